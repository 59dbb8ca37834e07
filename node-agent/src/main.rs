//! Hearth's node agent: caches blocks of datasets on one node and reports which it holds.

fn main() {}
