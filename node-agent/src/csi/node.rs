//! CSI's Node service: mounts, unmounts and tells of volumes.

use super::proto::csi::node_service_capability::{Rpc, Type, rpc};
use super::proto::csi::volume_usage::Unit;
use super::proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, VolumeCondition, VolumeUsage, node_server,
};
use super::request;
use crate::views::{ViewError, Views, VolumeState};
use tonic::{Request, Response, Status};

/// The service.
pub(super) struct Node {
    name: String,
    views: Views,
}

impl Node {
    pub(super) fn new(name: String, views: Views) -> Self {
        Self { name, views }
    }
}

/// The code says whether kubelet asks again, and how soon; the words stand in the pod's events.
fn status(error: &ViewError) -> Status {
    let text = error.to_string();
    let status = match error {
        ViewError::Invalid(_) => Status::invalid_argument(text),
        ViewError::NotFound(_) => Status::not_found(text),
        ViewError::NotYet(_) => Status::unavailable(text),
        ViewError::Busy => Status::aborted(text),
        ViewError::Store(_) | ViewError::Io { .. } => Status::internal(text),
    };
    tracing::warn!(code = ?status.code(), "a volume: {}", status.message());
    status
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let volume = request::publish(&request.into_inner())
            .map_err(ViewError::Invalid)
            .map_err(|error| status(&error))?;
        self.views.publish(volume).await.map_err(|error| status(&error))?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request::volume_id(&request.volume_id).map_err(Status::invalid_argument)?;
        let target =
            request::target("target_path", &request.target_path).map_err(Status::invalid_argument)?;
        self.views.unpublish(&volume, &target).await.map_err(|error| status(&error))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = request::volume_id(&request.volume_id).map_err(Status::invalid_argument)?;
        let path = request::volume_path(&request.volume_path).map_err(Status::invalid_argument)?;
        let state = self.views.state(&volume, &path).await.map_err(|error| status(&error))?;
        let unknown = || Status::not_found(format!("volume {volume} is not published at {}", path.display()));
        Ok(Response::new(stats(state.ok_or_else(unknown)?)))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let of = |capability: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: capability.into() })),
        };
        let capabilities = [rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition].map(of).into();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        // No limit: a volume costs a mount.
        Ok(Response::new(NodeGetInfoResponse { node_id: self.name.clone(), max_volumes_per_node: 0 }))
    }
}

/// Nothing is free in a read-only volume; all of it is used.
fn stats(state: VolumeState) -> NodeGetVolumeStatsResponse {
    let usage = |unit: Unit, count: u64| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        VolumeUsage { available: 0, total: count, used: count, unit: unit.into() }
    };
    let condition = match state.problem {
        Some(message) => VolumeCondition { abnormal: true, message },
        None => {
            let message = format!("{} of {} bytes are on this node", state.held, state.bytes);
            VolumeCondition { abnormal: false, message }
        }
    };
    NodeGetVolumeStatsResponse {
        usage: vec![usage(Unit::Bytes, state.bytes), usage(Unit::Inodes, state.files)],
        volume_condition: Some(condition),
    }
}
