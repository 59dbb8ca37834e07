//! The CSI driver: what kubelet calls to mount datasets into pods.
//!
//! kubelet finds the registration socket, asks there for the driver's own socket, and
//! calls Identity and Node on that. Both come anew with every start of the agent,
//! which makes kubelet register it again.

mod identity;
mod node;
mod registration;
mod request;
mod socket;

/// Generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    /// The Container Storage Interface.
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    /// kubelet's plugin registration.
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}

use crate::config::CsiSection;
use crate::views::Views;
use anyhow::Context;
use identity::Identity;
use node::Node;
use proto::csi::identity_server::IdentityServer;
use proto::csi::node_server::NodeServer;
use proto::registration::registration_server::RegistrationServer;
use registration::Registration;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use hearth_core::annotation::CSI_DRIVER as DRIVER;

/// Calls of one kubelet at one time; more wait.
const CALLS: usize = 64;
/// kubelet calls the registration socket with its percent-encoded path for the host's
/// name, which HTTP/2 servers refuse: a host's name has no `%`. Before an `@` it may be.
const REGISTRATION_SOCKET: &str = "registration@hearth.dev.sock";
/// Longer than a volume waits for its data.
const CALL: Duration = Duration::from_secs(110);

/// Serves kubelet until `shutdown`.
pub async fn serve(
    config: CsiSection,
    node_name: String,
    views: Views,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let driver = socket::listen(&config.socket)?;
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS)
        .timeout(CALL)
        .add_service(IdentityServer::new(Identity))
        .add_service(NodeServer::new(Node::new(node_name, views)))
        .serve_with_incoming_shutdown(driver, shutdown.clone().cancelled_owned());
    // After the driver's own socket: kubelet calls it as soon as it sees this one.
    let place = config.registration_directory.join(REGISTRATION_SOCKET);
    let registered = Server::builder()
        .add_service(RegistrationServer::new(Registration::new(config.socket.clone())))
        .serve_with_incoming_shutdown(socket::listen(&place)?, shutdown.cancelled_owned());
    tracing::info!(driver = DRIVER, socket = %config.socket.display(), "kubelet can call the CSI driver");
    let (served, registered) = tokio::join!(served, registered);
    // kubelet forgets the driver when its registration socket is gone.
    socket::remove(&place);
    socket::remove(&config.socket);
    served.context("the CSI driver's socket")?;
    registered.context("the CSI driver's registration socket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::proto::registration::InfoRequest;
    use crate::csi::proto::registration::registration_client::RegistrationClient;
    use tonic::transport::Endpoint;

    #[tokio::test]
    async fn kubelet_is_answered_by_the_name_that_it_gives_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join(REGISTRATION_SOCKET);
        let server = Server::builder()
            .add_service(RegistrationServer::new(Registration::new("/csi.sock".into())))
            .serve_with_incoming(socket::listen(&socket).unwrap());
        let server = tokio::spawn(server);
        // As grpc-go does.
        let kubelets = format!("http://%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2F{REGISTRATION_SOCKET}");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = endpoint.origin(kubelets.parse().unwrap()).connect().await.unwrap();
        let info = RegistrationClient::new(channel).get_info(InfoRequest {}).await.unwrap();
        assert_eq!(info.into_inner().name, DRIVER);
        server.abort();
    }
}
