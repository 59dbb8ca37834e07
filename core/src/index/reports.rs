//! Applies agents' reports.

use super::node::{Reported, Session};
use super::{ClusterIndex, Millis, NodeId};
use crate::wire::report::{Change, Inventory, Report, Speaker, Verdict};

impl ClusterIndex {
    /// Applies a report that its sender was entitled to make, or says that a
    /// snapshot must follow. Nothing of a report that cannot be applied is.
    pub fn apply(&mut self, now: Millis, report: Report) -> Verdict {
        let Report { speaker, sequence, inventory, status, .. } = report;
        let (name, keeps_nothing) = (speaker.node.clone(), status.keeps_nothing);
        match inventory {
            Inventory::Snapshot(holdings) => {
                let node = self.nodes.get_or_insert(&speaker.node);
                if let Some(session) = &node.session {
                    // A snapshot that was on its way while the agent restarted.
                    if session.speaker.store == speaker.store && session.speaker.boot > speaker.boot {
                        return resync("the report is of an earlier start of this agent");
                    }
                }
                let is_troubled = !status.troubles.is_empty();
                node.session = Some(Session { speaker, sequence, heard: now, status });
                node.orders = None;
                let before = std::mem::take(&mut node.reported);
                let reported = holdings.iter().map(|holding| {
                    let since = before.get(&holding.manifest).map_or(now, |reported| reported.since);
                    (holding.manifest, Reported { dataset: holding.dataset.clone(), since })
                });
                node.reported = reported.collect();
                let gone: Vec<_> =
                    before.into_keys().filter(|hash| !node.reported.contains_key(hash)).collect();
                let name = node.name.clone();
                let Some(id) = self.nodes.id(&name) else { return Verdict::Applied };
                self.note_troubles(id, is_troubled);
                for hash in &gone {
                    if let Some(version) = self.versions.get_mut(hash) {
                        version.forget(id);
                    }
                }
                for holding in holdings {
                    self.versions.entry(holding.manifest).or_default().replace(id, holding.blocks.0);
                }
                if !gone.is_empty() {
                    self.drop_unused_versions();
                }
            }
            Inventory::Delta(changes) => {
                let Some(id) = self.nodes.id(&speaker.node) else {
                    return resync("this replica has no snapshot of the node");
                };
                let Some(session) = self.nodes.get_mut(id).and_then(|node| node.session.as_mut()) else {
                    return resync("this replica has no snapshot of the node");
                };
                if let Some(why) = discontinuity(session, &speaker, sequence) {
                    return resync(why);
                }
                session.sequence = sequence;
                session.heard = now;
                let is_troubled = !status.troubles.is_empty();
                if session.status.troubles != status.troubles {
                    session.status = status;
                    self.nodes.invalidate_orders(&speaker.node);
                } else {
                    session.status = status;
                }
                self.note_troubles(id, is_troubled);
                for change in changes {
                    self.apply_change(now, &speaker, change);
                }
            }
        }
        self.note_room(&name, keeps_nothing);
        // Whoever reports is here, whatever a watch has seen of it so far.
        Verdict::Applied
    }

    /// Who keeps nothing is chosen for no warm-up.
    fn note_room(&mut self, name: &str, keeps_nothing: bool) {
        let node = self.nodes.get_or_insert(name);
        if node.keeps_nothing != keeps_nothing {
            node.keeps_nothing = keeps_nothing;
            self.reconsider(name);
        }
    }

    fn note_troubles(&mut self, node: NodeId, is_troubled: bool) {
        match is_troubled {
            true => self.troubled.insert(node),
            false => self.troubled.remove(&node),
        };
    }

    fn apply_change(&mut self, now: Millis, speaker: &Speaker, change: Change) {
        let Some(id) = self.nodes.id(&speaker.node) else { return };
        let Some(node) = self.nodes.get_mut(id) else { return };
        match change {
            Change::Blocks { manifest, dataset, added, removed } => {
                node.reported.entry(manifest).or_insert_with(|| {
                    node.orders = None;
                    Reported { dataset, since: now }
                });
                self.versions.entry(manifest).or_default().change(id, added.0, removed.0);
            }
            Change::Forgotten(manifest) => {
                node.reported.remove(&manifest);
                node.orders = None;
                if let Some(version) = self.versions.get_mut(&manifest) {
                    version.forget(id);
                }
                self.drop_unused_versions();
            }
        }
    }
}

fn discontinuity(session: &Session, speaker: &Speaker, sequence: u64) -> Option<&'static str> {
    if session.speaker != *speaker {
        return Some("the delta is of another node UID, store or start of the agent than the snapshot");
    }
    if sequence != session.sequence.wrapping_add(1) {
        return Some("a report before this one did not arrive");
    }
    None
}

fn resync(reason: &str) -> Verdict {
    Verdict::Resync { reason: reason.to_owned() }
}
