//! The pure part of Hearth: plain data in, plain data out.
//!
//! Nothing here does I/O, reads a clock, draws a random number or knows of
//! Kubernetes clients, so that every decision can be tested by calling it. The
//! shells around it are `hearth-extender` and `hearth-node-agent`.

pub mod annotation;
pub mod block;
pub mod claim;
pub mod cron;
pub mod decide;
pub mod evict;
pub mod eviction;
pub mod explain;
pub mod file_list;
pub mod hold;
pub mod index;
pub mod key_ranges;
pub mod manifest;
pub mod node_rules;
pub mod notice;
pub mod object;
pub mod pin;
pub mod placement;
pub mod pod;
mod prefix;
pub mod quantity;
pub mod removal;
pub mod scaling;
pub mod score;
pub mod selection;
pub mod tier;
pub mod volume;
pub mod wire;
