//! Reports: what a node agent tells an extender, and what it is told in reply.
//!
//! MessagePack with named fields: a reader leaves out what it does not know and
//! takes defaults for what is not there, so a release and its predecessor
//! understand each other. Fields may be added with a default; nothing may change
//! its meaning without a new [`PROTOCOL`].

use super::eviction::{EvictionDone, EvictionOrder};
use super::failed_files::FailedFiles;
use crate::manifest::ManifestHash;
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The protocol that this release speaks.
pub const PROTOCOL: u16 = 4;
/// The oldest protocol that this release understands. Protocol 1 had no
/// [`NodeStatus::origin_bytes_per_second`] and no [`NodeStatus::troubles`], protocol 2 no
/// [`Orders::versions`], protocol 3 no
/// [`NodeStatus::in_use`], no [`NodeStatus::evictions`] and no [`Orders::evictions`].
pub const OLDEST_PROTOCOL: u16 = 1;
/// Content type of reports and replies.
pub const CONTENT_TYPE: &str = "application/vnd.hearth.report+msgpack";
/// Longest time that a reply may be held, milliseconds.
pub const MAX_HOLD_MILLIS: u32 = 2_000;
/// Most troubles that one report may carry.
pub const MAX_TROUBLES: usize = 32;

/// A set of block numbers on the wire: Roaring's portable format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks(pub RoaringBitmap);

impl Serialize for Blocks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0.serialize_into(&mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blocks;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a Roaring bitmap in portable format")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blocks, E> {
                RoaringBitmap::deserialize_from(bytes).map(Blocks).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// Which node speaks, and from which store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Name of the Node object.
    pub node: String,
    /// UID of the Node object, so that a node made again under an old name
    /// inherits nothing.
    pub node_uid: String,
    /// UUID of the store, made with it: a reformatted disk has another.
    pub store: uuid::Uuid,
    /// How often the agent has started on this store.
    pub boot: u64,
}

/// One manifest's blocks that a node holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holding {
    /// Whose blocks.
    pub manifest: ManifestHash,
    /// `namespace/name` of the Dataset that the node knows the manifest from: it
    /// says which newer version inherits from this one, also to an extender that
    /// has never seen this version named.
    pub dataset: String,
    /// Which; empty when the node knows the manifest and holds nothing of it.
    pub blocks: Blocks,
}

/// One change of what a node holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Blocks that came and went.
    Blocks {
        /// Whose blocks.
        manifest: ManifestHash,
        /// As in [`Holding::dataset`].
        dataset: String,
        /// Now held.
        added: Blocks,
        /// No longer held.
        removed: Blocks,
    },
    /// The node holds nothing of this manifest and no longer knows it.
    Forgotten(ManifestHash),
}

/// What a node holds, or what changed since the report before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Inventory {
    /// All of it.
    Snapshot(Vec<Holding>),
    /// Changes since the report of the sequence number before.
    Delta(Vec<Change>),
}

/// What keeps an agent from doing what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TroubleKind {
    /// The store has no room, or the dataset's quota is used up.
    NoSpace,
    /// The origin refuses the credentials, or they cannot be read.
    Credentials,
    /// The origin does not answer, or answers with errors.
    Origin,
    /// An object is not what the manifest says.
    Changed,
    /// The node's own disk fails.
    Store,
}

/// Something that keeps a node from getting warm, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `namespace/name` of the dataset that waits.
    pub dataset: String,
    /// The manifest of it that waits.
    pub manifest: ManifestHash,
    /// What kind of trouble.
    pub kind: TroubleKind,
    /// One sentence.
    pub message: String,
}

/// How a node's store and origin do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Bytes that the store may take.
    pub capacity_bytes: u64,
    /// Bytes that it takes.
    pub used_bytes: u64,
    /// Bytes per second that fills reached of late; `None` before the first. Since protocol 2.
    #[serde(default)]
    pub origin_bytes_per_second: Option<u64>,
    /// What goes wrong, at most [`MAX_TROUBLES`]. Since protocol 2.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// Versions that pods on the node read: they are kept until these end, whatever becomes
    /// of their Datasets. Since protocol 4.
    #[serde(default)]
    pub in_use: Vec<ManifestHash>,
    /// What was given up of the [`Orders::evictions`] that the node has, by those that it has
    /// carried out. Since protocol 4.
    #[serde(default)]
    pub evictions: Vec<EvictionDone>,
    /// Files that could not be fetched, by want. Left out when there are none; a release that
    /// does not know them leaves them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_files: Vec<FailedFiles>,
    /// The store is configured to keep nothing, so that all is read from the origins. Left out, too, when
    /// that is not so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_nothing: bool,
}

/// What an agent sends to every extender replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The sender's [`PROTOCOL`], or an older one that the receiver asked for.
    pub protocol: u16,
    /// Who speaks.
    pub speaker: Speaker,
    /// Numbers the reports of one session with one replica, from the snapshot's
    /// on, in steps of one.
    pub sequence: u64,
    /// What the node holds.
    pub inventory: Inventory,
    /// How it does.
    pub status: NodeStatus,
    /// [`Orders::digest`] of the orders that the agent has from this replica; 0 before the first.
    pub orders_seen: u64,
    /// How long the reply may be held while there is nothing to say, milliseconds.
    pub hold_millis: u32,
}

/// Part of a dataset that a node is to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Want {
    /// Namespace of the Dataset.
    pub namespace: String,
    /// Name of the Dataset.
    pub dataset: String,
    /// The Dataset's UID and generation, by which an agent knows whether its
    /// copy of the spec still holds.
    pub uid: String,
    /// See `uid`.
    pub generation: i64,
    /// The version to fetch.
    pub manifest: ManifestHash,
    /// The part of it; empty for all.
    pub globs: Vec<String>,
    /// Higher first: pods that are bound before warm-ups.
    pub priority: i32,
}

/// Priority of what a bound pod reads; warm-ups come below.
pub const POD_PRIORITY: i32 = 1_000_000;

/// A version to know without fetching its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Adoption {
    /// The version.
    pub manifest: ManifestHash,
    /// `namespace/name` of the Dataset that names it.
    pub dataset: String,
}

/// Which version a pod gets of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Choice {
    /// The current one when it is mounted.
    Current,
    /// The one that the Dataset's status holds for this owner: there, and nowhere else,
    /// so that no two nodes are told differently.
    Held(String),
    /// The one that the pod names, if the Dataset's status has it.
    Named(ManifestHash),
    /// It is about to be held for the pod's owner.
    Undecided,
    /// None, for this reason, a sentence for the pod's owner.
    Refused(String),
}

/// Which version a pod on the node gets of one dataset that it reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodVersion {
    /// UID of the pod.
    pub pod: String,
    /// `namespace/name` of the Dataset.
    pub dataset: String,
    /// Which one.
    pub choice: Choice,
}

/// All that an extender asks of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Orders {
    /// What to fetch.
    pub wants: Vec<Want>,
    /// Versions to know without fetching data: newer ones of what the node
    /// holds, so that what did not change counts there too.
    pub adopt: Vec<Adoption>,
    /// Versions that no dataset names any more: forget them and free their bytes.
    pub retire: Vec<ManifestHash>,
    /// Which versions its pods get; `None` from a release that does not say. Since protocol
    /// 3, and left out when `None`: older ones name their orders by what they know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<PodVersion>>,
    /// What to give up, once each. Since protocol 4, and left out when there is nothing, as
    /// `versions` is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evictions: Vec<EvictionOrder>,
}

impl Orders {
    /// The orders as one who speaks `protocol` reads, and names, them.
    pub fn spoken(&self, protocol: u16) -> Cow<'_, Self> {
        let versions = protocol >= 3 || self.versions.is_none();
        let evictions = protocol >= 4 || self.evictions.is_empty();
        if versions && evictions {
            return Cow::Borrowed(self);
        }
        let mut spoken = self.clone();
        spoken.versions = spoken.versions.filter(|_| protocol >= 3);
        if !evictions {
            spoken.evictions.clear();
        }
        Cow::Owned(spoken)
    }

    /// Names these orders; never 0.
    pub fn digest(&self) -> u64 {
        let bytes = rmp_serde::to_vec_named(self).expect("plain data into memory always serialises");
        let hash = blake3::hash(&bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first).max(1)
    }
}

/// Whether a report was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was.
    Applied,
    /// It could not be, and a snapshot must follow.
    Resync {
        /// Why, for the log.
        reason: String,
    },
}

/// The reply to a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The protocol that the replier speaks.
    pub protocol: u16,
    /// Whether the report was applied.
    pub verdict: Verdict,
    /// The node's orders, when they differ from those it has.
    pub orders: Option<Orders>,
    /// Manifests that the extender misses and the node has: send them.
    pub need_manifests: Vec<ManifestHash>,
}

/// Why a message cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not such a message.
    #[error("the body is not a {what}: {why}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What the decoder found.
        why: String,
    },
    /// Of another time.
    #[error("the {what} speaks protocol {found}, and {OLDEST_PROTOCOL} to {PROTOCOL} are understood here")]
    Protocol {
        /// Report or reply.
        what: &'static str,
        /// What it said.
        found: u16,
    },
}

#[derive(Deserialize)]
struct Envelope {
    protocol: u16,
}

/// Encodes a report or a reply.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("plain data into memory always serialises")
}

/// Reads a report.
pub fn decode_report(bytes: &[u8]) -> Result<Report, WireError> {
    decode("report", bytes)
}

/// Reads a reply.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, WireError> {
    decode("reply", bytes)
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    let malformed = |error: rmp_serde::decode::Error| WireError::Malformed { what, why: error.to_string() };
    // The version first: a message of another time may not even have our fields.
    let Envelope { protocol } = rmp_serde::from_slice(bytes).map_err(malformed)?;
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&protocol) {
        return Err(WireError::Protocol { what, found: protocol });
    }
    rmp_serde::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests;
