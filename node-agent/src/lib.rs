//! Hearth's node agent: caches blocks of datasets on one node and reports which it holds.
//!
//! The way of the data, one module each: orders come in the replies to reports
//! ([`reporter`]), what is missing is planned and fetched ([`fill`]) from where it
//! lives ([`origin`]) and kept ([`store`]). One agent of the cluster lists origins
//! for all ([`lister`]).

pub mod accounts;
pub mod admin;
pub mod blocks;
pub mod config;
pub mod credentials;
pub mod csi;
pub mod datasets;
mod durable;
pub mod events;
pub mod evict;
pub mod fill;
mod fuse;
pub mod heat_file;
pub mod identity;
mod lent;
pub mod lister;
pub mod manifests;
pub mod metrics;
pub mod origin;
pub mod pressure;
pub mod reads;
pub mod replicas;
pub mod reporter;
pub mod run;
pub mod scrub;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tiers;
pub mod versions;
pub mod views;

pub use fuse::end_when_a_session_panics;
