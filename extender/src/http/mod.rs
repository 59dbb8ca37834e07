//! The servers: for kube-scheduler and people, and for agents.

pub mod agents;
pub mod explain;
mod manifests;
pub mod scheduler;
