//! What is printed when a test fails, so that it can be understood from its output alone.

use std::fmt::Write as _;
use std::path::Path;

use crate::kube_access::Kube;
use crate::process::tail;

/// Enough to see what happened, short enough to be read.
const LOG_LINES: usize = 40;

/// The cluster's objects as kubectl shows them, and the end of each program's log.
pub async fn describe(kube: &Kube, logs: &Path) -> String {
    let mut text = String::new();
    let questions: &[&[&str]] = &[
        &["get", "nodes", "-o", "wide"],
        &["get", "pods", "-A", "-o", "wide"],
        &["get", "datasets.hearth.dev,warmups.hearth.dev", "-A", "-o", "yaml"],
        &["get", "leases", "-n", "hearth-system"],
        &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
    ];
    for question in questions {
        let answer = kube.kubectl(question, "").await.unwrap_or_else(|e| format!("{e:#}"));
        let _ = writeln!(text, "════ kubectl {}\n{}", question.join(" "), answer.trim_end());
    }
    let mut files: Vec<_> = std::fs::read_dir(logs)
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        let _ = writeln!(text, "════ the end of {}\n{}", file.display(), tail(&file, LOG_LINES));
    }
    text
}
