//! The nodes' network: a bridge that the control plane's programs and all nodes are on, and a range of pod addresses
//! for each node, routed without NAT. The API server's service address lies on the bridge too, so that pods reach it
//! by routing alone and no kube-proxy is needed.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::command::run;

/// The control plane's own address, its name server's and the origin's.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// Where pods look for the API server: the first address of the service range.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The address of node `index`; the control plane's node, 0, is the host.
pub(super) fn address(index: u8) -> Ipv4Addr {
    match index {
        0 => HOST,
        index => Ipv4Addr::new(172, 30, 0, 10 + index),
    }
}

/// The addresses of the pods of node `index`.
pub(super) fn pods(index: u8) -> String {
    format!("10.250.{index}.0/24")
}

/// Sets up the present network namespace as the host of the control plane.
pub(super) fn host() -> Result<()> {
    let commands = format!(
        "link set lo up\n\
         link add nodes type bridge\n\
         addr add {HOST}/24 dev nodes\n\
         addr add {SERVICE}/32 dev nodes\n\
         link set nodes up\n"
    );
    run("ip", &["-batch", "-"], &commands).context("cannot set up the bridge")?;
    Ok(())
}

/// Connects node `index`, whose namespace is that of process `init`, to the bridge.
pub(super) fn attach(index: u8, init: u32) -> Result<()> {
    let (link, address, pods) = (format!("node{index}"), address(index), pods(index));
    // After a power cut the old one may be there still.
    let _ = run("ip", &["link", "del", &link], "");
    let outside = format!(
        "link add {link} type veth peer name eth0 netns {init}\n\
         link set {link} master nodes up\n\
         route replace {pods} via {address}\n"
    );
    run("ip", &["-batch", "-"], &outside).context("cannot connect the node to the bridge")?;
    let inside = format!(
        "link set lo up\n\
         link set eth0 up\n\
         addr add {address}/24 dev eth0\n\
         route add default via {HOST}\n"
    );
    let init = init.to_string();
    run("nsenter", &["--target", &init, "--net", "ip", "-batch", "-"], &inside)
        .context("cannot set up the node's network")?;
    Ok(())
}
