//! Hearth's scheduler extender: knows who holds what and answers kube-scheduler.

fn main() {}
