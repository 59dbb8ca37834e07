//! kubelet's plugin registration: where the driver is.

use super::DRIVER;
use super::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// The versions of CSI that the driver speaks, as kubelet wants them: its major one.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// The service.
pub(super) struct Registration {
    endpoint: PathBuf,
}

impl Registration {
    pub(super) fn new(endpoint: PathBuf) -> Self {
        Self { endpoint }
    }
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: VERSIONS.map(str::to_owned).into(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        match plugin_registered {
            true => tracing::info!(driver = DRIVER, "kubelet has registered the CSI driver"),
            false => tracing::error!(driver = DRIVER, error, "kubelet refuses the CSI driver"),
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
