//! What is known of nodes, and the small numbers by which the index names them.

use super::Millis;
use crate::manifest::ManifestHash;
use crate::node_rules::Taint;
use crate::wire::report::{NodeStatus, Orders, Speaker};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the API server says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// UID of the Node object.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether new pods may go there: neither cordoned nor lost.
    pub schedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
}

/// A node's place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// The run of reports that a node is in.
pub(super) struct Session {
    pub(super) speaker: Speaker,
    pub(super) sequence: u64,
    pub(super) heard: Millis,
    pub(super) status: NodeStatus,
}

pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) facts: Option<NodeFacts>,
    pub(super) session: Option<Session>,
    /// It keeps nothing, as it last said: all is read from the origins there.
    pub(super) keeps_nothing: bool,
    /// Versions that it reports.
    pub(super) reported: HashMap<ManifestHash, Reported>,
    /// What it was last told, until something changes that.
    pub(super) orders: Option<CachedOrders>,
}

/// A version that a node reports.
#[derive(Clone)]
pub(super) struct Reported {
    /// The dataset that it knows the version from.
    pub(super) dataset: String,
    /// When it first said so.
    pub(super) since: Millis,
}

/// Orders with their digest.
#[derive(Clone)]
pub(super) struct CachedOrders {
    pub(super) orders: Arc<Orders>,
    pub(super) digest: u64,
    /// When time alone makes others of them.
    pub(super) until: Option<Millis>,
}

impl Node {
    /// Whether it said that it cannot fetch this version.
    pub(super) fn is_stuck_on(&self, manifest: &ManifestHash) -> bool {
        let troubles = self.session.iter().flat_map(|session| &session.status.troubles);
        troubles.into_iter().any(|trouble| trouble.manifest == *manifest)
    }
}

#[derive(Default)]
pub(super) struct Nodes {
    ids: HashMap<Arc<str>, NodeId>,
    entries: Vec<Option<Node>>,
    free: HashSet<NodeId>,
}

impl Nodes {
    pub(super) fn id(&self, name: &str) -> Option<NodeId> {
        self.ids.get(name).copied()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.entries.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.entries.get_mut(id.0 as usize)?.as_mut()
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Node> {
        self.get(self.id(name)?)
    }

    pub(super) fn get_or_insert(&mut self, name: &str) -> &mut Node {
        let id = match self.id(name) {
            Some(id) => id,
            None => self.insert(name),
        };
        self.entries[id.0 as usize].as_mut().expect("an id in the map has an entry")
    }

    fn insert(&mut self, name: &str) -> NodeId {
        let name: Arc<str> = name.into();
        let node = Node {
            name: name.clone(),
            facts: None,
            session: None,
            keeps_nothing: false,
            reported: HashMap::new(),
            orders: None,
        };
        let id = match self.free.iter().next().copied() {
            Some(id) => {
                self.free.remove(&id);
                self.entries[id.0 as usize] = Some(node);
                id
            }
            None => {
                self.entries.push(Some(node));
                NodeId(self.entries.len() as u32 - 1)
            }
        };
        self.ids.insert(name, id);
        id
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<NodeId> {
        let id = self.ids.remove(name)?;
        self.entries[id.0 as usize] = None;
        self.free.insert(id);
        Some(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.entries.iter().enumerate().filter_map(|(id, node)| Some((NodeId(id as u32), node.as_ref()?)))
    }

    pub(super) fn invalidate_orders(&mut self, name: &str) {
        if let Some(node) = self.id(name).and_then(|id| self.get_mut(id)) {
            node.orders = None;
        }
    }

    pub(super) fn invalidate_all_orders(&mut self) {
        for node in self.entries.iter_mut().flatten() {
            node.orders = None;
        }
    }
}
