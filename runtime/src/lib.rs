//! What both programs' shells share: configuration, logs, leader election, tasks,
//! TLS and the small server that operators ask.

pub mod admin;
pub mod config;
pub mod kube_client;
pub mod lease;
pub mod logs;
pub mod request_id;
pub mod tasks;
pub mod tls;
