//! What the versions on this node are worth: who needs them here, and what their Datasets say.

use crate::datasets::Datasets;
use crate::views::InUse;
use futures::StreamExt;
use futures::stream;
use hearth_api::Dataset;
use hearth_core::evict::{Need, Standing};
use hearth_core::manifest::ManifestHash;
use hearth_core::tier::Medium;
use hearth_core::wire::report::{POD_PRIORITY, Want};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long what a Dataset says is taken to hold; less by up to a third, so that a node's do
/// not all end at once.
const HOLDS: Duration = Duration::from_secs(180);
/// When a Dataset that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// Datasets looked up at one time.
const AT_ONCE: usize = 8;

/// A version on this node.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) hash: ManifestHash,
    /// `namespace/name` of its Dataset.
    pub(crate) dataset: String,
    pub(crate) standing: Standing,
    /// Whether its Dataset could be asked. If not, it counts as pinned.
    pub(crate) is_known: bool,
    /// How often its Dataset was mounted of late.
    pub(crate) heat: f64,
}

/// Where standings come from.
pub struct StandingParts {
    /// What Datasets say.
    pub datasets: Datasets,
    /// Which versions pods read.
    pub in_use: InUse,
    /// What is ordered, and by whom.
    pub wants: watch::Receiver<Vec<Want>>,
}

/// Tells what versions are worth, and where they wish to be.
pub struct Standings {
    parts: StandingParts,
    known: Mutex<HashMap<String, Known>>,
}

/// What a Dataset said, if it ever did, and until when that is not asked again.
#[derive(Clone, Debug)]
struct Known {
    until: Instant,
    terms: Option<Terms>,
}

/// What a Dataset says of its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terms {
    pinned: bool,
    priority: i32,
    media: Vec<Medium>,
    /// Versions that pods which come get.
    current: BTreeSet<ManifestHash>,
}

impl Terms {
    fn of(dataset: &Dataset) -> Self {
        let cache = dataset.spec.cache.as_ref();
        let status = dataset.status.as_ref();
        let named =
            status.and_then(|status| status.version.as_ref()).map(|version| version.manifest.as_str());
        let held = status.iter().flat_map(|status| &status.held).map(|held| held.manifest.as_str());
        Self {
            pinned: cache.is_some_and(|cache| cache.pinned),
            priority: cache.and_then(|cache| cache.priority).unwrap_or(0),
            media: cache
                .map(|cache| cache.media.iter().map(|medium| (*medium).into()).collect())
                .unwrap_or_default(),
            current: named.into_iter().chain(held).filter_map(ManifestHash::parse).collect(),
        }
    }

    fn standing(&self, hash: &ManifestHash, need: Need) -> Standing {
        // What pods read of an old version may be at the origin no more: it is worth no less.
        let current = self.current.contains(hash) || need == Need::Pods;
        let pinned = self.pinned && (current || need > Need::Nobody);
        Standing { need, pinned, current, priority: self.priority }
    }
}

impl Standings {
    /// Nothing is known yet.
    pub fn new(parts: StandingParts) -> Self {
        Self { parts, known: Mutex::default() }
    }

    /// The standings of these versions.
    pub(crate) async fn of(&self, manifests: Vec<(ManifestHash, String)>) -> Vec<Version> {
        let names: BTreeSet<&String> = manifests.iter().map(|(_, dataset)| dataset).collect();
        let terms: HashMap<String, Option<Terms>> = stream::iter(names.into_iter().cloned())
            .map(|name| async move {
                let terms = self.terms(&name).await;
                (name, terms)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let needs = self.needs();
        let version = |(hash, dataset): (ManifestHash, String)| {
            let wanted = needs.get(&hash).copied().unwrap_or_default();
            let need = if self.parts.in_use.uses(&hash) { Need::Pods } else { wanted };
            let terms = terms.get(&dataset).and_then(Option::as_ref);
            let standing = match terms {
                Some(terms) => terms.standing(&hash, need),
                None => Standing { need, pinned: true, current: true, priority: 0 },
            };
            Version { hash, dataset, standing, is_known: terms.is_some(), heat: 0.0 }
        };
        manifests.into_iter().map(version).collect()
    }

    /// The media that a Dataset, `namespace/name`, wishes its data to be on, the best first.
    pub(crate) async fn wish(&self, dataset: &str) -> Vec<Medium> {
        self.terms(dataset).await.map(|terms| terms.media).unwrap_or_default()
    }

    fn needs(&self) -> HashMap<ManifestHash, Need> {
        let mut needs: HashMap<ManifestHash, Need> = HashMap::new();
        for want in self.parts.wants.borrow().iter() {
            let need = if want.priority >= POD_PRIORITY { Need::Pods } else { Need::Warmup };
            let known = needs.entry(want.manifest).or_default();
            *known = need.max(*known);
        }
        needs
    }

    /// What a Dataset says; `None` when nobody can tell. What was said last holds while the
    /// API server is away.
    async fn terms(&self, name: &str) -> Option<Terms> {
        let known = self.known.lock().get(name).cloned();
        if let Some(known) = &known
            && known.until > Instant::now()
        {
            return known.terms.clone();
        }
        let (namespace, dataset) = name.split_once('/')?;
        let asked = tokio::time::timeout(PATIENCE, self.parts.datasets.named(namespace, dataset)).await;
        let (terms, holds) = match asked {
            Ok(Ok(found)) => (
                Some(found.as_ref().map(Terms::of).unwrap_or_default()),
                HOLDS.mul_f64(1.0 - fastrand::f64() / 3.0),
            ),
            failed => {
                let why =
                    failed.err().map_or_else(|| "it cannot be read".to_owned(), |late| late.to_string());
                tracing::debug!(dataset = name, why, "the Dataset was not asked whether it is pinned");
                (known.and_then(|known| known.terms), AGAIN)
            }
        };
        let mut all = self.known.lock();
        let before =
            all.insert(name.to_owned(), Known { until: Instant::now() + holds, terms: terms.clone() });
        // Only when it grows: thousands are asked for one after the other.
        if before.is_none() {
            all.retain(|_, known| known.until.elapsed() < HOLDS * 20);
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_a_pinned_dataset_are_not_pinned() {
        let (old, new) = (ManifestHash([1; 32]), ManifestHash([2; 32]));
        let terms = Terms { pinned: true, priority: 7, current: BTreeSet::from([new]), ..Terms::default() };
        let standing = |hash, need| terms.standing(hash, need);
        assert!(standing(&new, Need::Nobody).pinned && standing(&new, Need::Nobody).current);
        assert!(standing(&old, Need::Pods).pinned && standing(&old, Need::Pods).current, "a pod reads it");
        let spare = standing(&old, Need::Nobody);
        assert_eq!(spare, Standing { need: Need::Nobody, pinned: false, current: false, priority: 7 });
    }
}
