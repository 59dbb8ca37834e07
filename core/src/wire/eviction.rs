//! What nodes are to give up, and what became of that: parts of reports and of the replies
//! to them.

use crate::manifest::ManifestHash;
use serde::{Deserialize, Serialize};

/// What an Eviction gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evicts {
    /// The bytes of files.
    Data,
    /// Versions as a whole, that nobody on the node needs.
    Metadata,
}

/// What a node is to give up, once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EvictionOrder {
    /// UID of the Eviction.
    pub id: String,
    /// `namespace/name` of the Dataset.
    pub dataset: String,
    /// Versions that the Dataset names: the node may know them from another one.
    pub versions: Vec<ManifestHash>,
    /// The part of it; empty for all.
    pub globs: Vec<String>,
    /// What goes.
    pub what: Evicts,
}

/// Why something stays that was to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeptWhy {
    /// Pods have it mounted: by a native view, or, where versions go as a whole, by any.
    Mounted,
    /// A pod or a Warmup needs the version.
    Wanted,
    /// It was being written.
    Written,
}

/// What stays of what was to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Why.
    pub why: KeptWhy,
    /// Files.
    pub files: u64,
    /// Their bytes that are held.
    pub bytes: u64,
}

/// What became of one Eviction on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionDone {
    /// UID of the Eviction.
    pub id: String,
    /// Files that were given up.
    pub files: u64,
    /// Their bytes that were held.
    pub bytes: u64,
    /// What stays.
    pub kept: Vec<Kept>,
    /// Some of what went is wanted here, and is fetched again.
    pub again: bool,
    /// Why it was not carried out to its end, one sentence.
    pub error: Option<String>,
}
