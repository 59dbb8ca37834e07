//! The servers: for kube-scheduler and people, and for agents and stores.

pub mod agents;
pub mod explain;
mod manifests;
pub mod notices;
pub mod scheduler;
