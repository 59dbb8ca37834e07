//! Harness with a real control plane, end-to-end tests, benchmarks and the demo.
//!
//! The control plane's programs are the real ones ([`binaries`]), Hearth's own programs run as processes with exactly
//! the rights that `manifests/` grants them, nodes are simulated ([`nodes`]), and nothing survives the test.

pub mod agent;
pub mod binaries;
pub mod cache;
pub mod cluster;
pub mod control_plane;
pub mod datasets;
pub mod downloads;
pub mod environment;
pub mod extender;
mod go_build;
pub mod kube_access;
pub mod measure;
pub mod nodes;
pub mod origin_proxy;
pub mod pki;
pub mod pods;
pub mod ports;
pub mod process;
pub mod programs;
pub mod python;
pub mod real_nodes;
pub mod report;
pub mod run_dir;
pub mod s3;
pub mod silent_origin;
pub mod stores;
pub mod throttle;
pub mod volumes;
pub mod wait;
pub mod workload;
