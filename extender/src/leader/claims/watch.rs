//! What feeds the world: the Datasets that are known anyway, and the metadata of claims,
//! volumes and namespaces, which are watched by the leader alone.

use super::group::Source;
use super::objects::{SELECTOR, read_claim, read_volume};
use super::world::{Namespace, World};
use crate::watch::{Follower, name_of};
use hearth_api::Dataset;
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// The world, and word that something in it is to be planned for.
#[derive(Default)]
pub(super) struct Shared {
    world: Mutex<World>,
    changed: Notify,
}

impl Shared {
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world.lock());
        self.changed.notify_one();
        result
    }

    /// Like [`Self::change`], for the one who waits for changes.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut World) -> T) -> T {
        read(&mut self.world.lock())
    }

    /// Resolves when there was a change since it last did.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The Datasets as they were at the last look, by UID.
#[derive(Default)]
pub(super) struct Datasets(HashMap<String, Arc<Dataset>>);

impl Datasets {
    /// Tells the world what is new among the Datasets.
    pub(super) fn look(&mut self, datasets: Vec<Arc<Dataset>>, world: &mut World) {
        let mut before = std::mem::take(&mut self.0);
        for dataset in datasets {
            let uid = dataset.uid().unwrap_or_default();
            if before.remove(&uid).is_none_or(|before| !Arc::ptr_eq(&before, &dataset)) {
                world.set_source(&name_of(&dataset), Source::of(&dataset));
            }
            self.0.insert(uid, dataset);
        }
        for (uid, gone) in before {
            world.remove_source(&name_of(&gone), &uid);
        }
    }
}

pub(super) struct Claims(pub(super) Arc<Shared>);
pub(super) struct Volumes(pub(super) Arc<Shared>);
pub(super) struct Namespaces(pub(super) Arc<Shared>);

impl Follower<PartialObjectMeta<PersistentVolumeClaim>> for Claims {
    const KIND: &'static str = "PersistentVolumeClaim";
    const SELECTOR: Option<&'static str> = Some(SELECTOR);

    fn apply(&mut self, claim: PartialObjectMeta<PersistentVolumeClaim>) {
        if let Some((own, claim)) = read_claim(&claim.metadata) {
            self.0.change(|world| world.set_claim(&own, claim));
        }
    }

    fn delete(&mut self, claim: PartialObjectMeta<PersistentVolumeClaim>) {
        if let Some((own, claim)) = read_claim(&claim.metadata) {
            self.0.change(|world| world.remove_claim(&own, &claim.uid));
        }
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.0.change(|world| world.remove_claims(|uid| !uids.contains(uid)));
    }
}

impl Follower<PartialObjectMeta<PersistentVolume>> for Volumes {
    const KIND: &'static str = "PersistentVolume";
    const SELECTOR: Option<&'static str> = Some(SELECTOR);

    fn apply(&mut self, volume: PartialObjectMeta<PersistentVolume>) {
        if let Some((dataset, name, volume)) = read_volume(&volume.metadata) {
            self.0.change(|world| world.set_volume(&dataset, &name, volume));
        }
    }

    fn delete(&mut self, volume: PartialObjectMeta<PersistentVolume>) {
        if let Some((dataset, _, volume)) = read_volume(&volume.metadata) {
            self.0.change(|world| world.remove_volume(&dataset, &volume.uid));
        }
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.0.change(|world| world.remove_volumes(|uid| !uids.contains(uid)));
    }
}

impl Follower<PartialObjectMeta<ApiNamespace>> for Namespaces {
    const KIND: &'static str = "Namespace";

    fn apply(&mut self, namespace: PartialObjectMeta<ApiNamespace>) {
        let seen = Namespace {
            uid: namespace.uid().unwrap_or_default(),
            ending: namespace.metadata.deletion_timestamp.is_some(),
        };
        self.0.change(|world| world.set_namespace(&namespace.name_any(), seen));
    }

    fn delete(&mut self, namespace: PartialObjectMeta<ApiNamespace>) {
        let gone = namespace.uid().unwrap_or_default();
        self.0.change(|world| world.remove_namespaces(|uid| uid == gone));
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.0.change(|world| world.remove_namespaces(|uid| !uids.contains(uid)));
    }
}
