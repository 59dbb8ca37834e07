//! Hearth's scheduler extender: knows who holds what and answers kube-scheduler.
//!
//! The path of a call: `http::scheduler` decodes it and asks `hearth_core::decide`,
//! which reads the index that `http::agents` feeds with reports and `watch` with what
//! the API server says; `http::notices` hears of stores what to list again. The replica that holds the Lease also runs `leader`.

mod answer;
pub mod auth;
pub mod certificates;
pub mod config;
pub mod events;
pub mod gauges;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod notices;
pub mod run;
mod size;
pub mod state;
pub mod watch;
