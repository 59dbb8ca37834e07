//! What goes over wires: reports between agents and extenders, and
//! kube-scheduler's extender calls.

mod depth;
pub mod eviction;
pub mod failed_files;
pub mod report;
pub mod scheduler;
