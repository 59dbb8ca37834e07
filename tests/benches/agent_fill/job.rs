//! What both sides are told and what they answer.

use crate::cpu::cpu_seconds;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// Requests at one time; the agent's default.
pub(crate) const CONCURRENCY: usize = 32;

/// What to fetch, and where to.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) folder: String,
    pub(crate) objects: usize,
    pub(crate) size: usize,
    /// Empty.
    pub(crate) directory: PathBuf,
}

/// What it took, from the first request to the last byte durable.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// The key of one object.
pub(crate) fn key(folder: &str, object: usize) -> String {
    format!("{folder}/part-{}/{object:05}.bin", object % 10)
}

/// Measures time and CPU time from here on.
pub(crate) struct Stopwatch(Instant, f64);

impl Stopwatch {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Ok(Self(Instant::now(), cpu_seconds("self")?))
    }

    pub(crate) fn stop(self) -> anyhow::Result<Measured> {
        Ok(Measured { seconds: self.0.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds("self")? - self.1 })
    }
}
