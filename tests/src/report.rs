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
        &[
            "get",
            "datasets.hearth.dev,evictions.hearth.dev,warmups.hearth.dev,cronwarmups.hearth.dev",
            "-A",
            "-o",
            "yaml",
        ],
        &["get", "persistentvolumes,persistentvolumeclaims", "-A", "-o", "wide"],
        &["get", "leases", "-n", "hearth-system"],
        &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
    ];
    for question in questions {
        let answer = kube.kubectl(question, "").await.unwrap_or_else(|e| format!("{e:#}"));
        let _ = writeln!(text, "════ kubectl {}\n{}", question.join(" "), answer.trim_end());
    }
    let mut files: Vec<_> =
        std::fs::read_dir(logs).map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    // Hearth's own last, where the eye is when the output ends.
    files.sort_by_key(|file| (is_hearths(file), file.clone()));
    for file in files {
        let all = tail(&file, usize::MAX);
        let told: Vec<&str> = all.lines().filter(|line| is_hearths(&file) || matters(line)).collect();
        let end = told[told.len().saturating_sub(LOG_LINES)..].join("\n");
        let _ = writeln!(text, "════ the end of {}\n{end}", file.display());
    }
    text
}

fn is_hearths(log: &Path) -> bool {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("agent-") || name.starts_with("extender-")
}

/// Of Kubernetes' and etcd's logs: what went wrong, and what the scheduler did with pods.
fn matters(line: &str) -> bool {
    line.starts_with(['E', 'W', 'F', '{']) || line.contains("schedule_one.go") || line.contains("panic")
}
