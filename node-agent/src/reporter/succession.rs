//! Takes newer versions into the inventory and forgets those that nobody names.

use super::Shared;
use super::orders::Union;
use crate::views::blocking;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::Adoption;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// When to try again what did not work.
const AGAIN: Duration = Duration::from_secs(5);
/// A version is forgotten only when that is asked for all this time: a replica may
/// not have heard yet that a version has been named.
const CONSIDERED: Duration = Duration::from_secs(10);

/// Follows `orders` for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>, mut orders: watch::Receiver<Union>) {
    let mut retiring: BTreeMap<ManifestHash, Instant> = BTreeMap::new();
    loop {
        let union = orders.borrow_and_update().clone();
        let now = Instant::now();
        retiring.retain(|hash, _| union.retire.contains(hash));
        for hash in &union.retire {
            retiring.entry(*hash).or_insert(now);
        }
        let adopted = adopt(&shared, &union.adopt).await;
        let retired = retire(&shared, &retiring).await;
        let again = async {
            match adopted && retired {
                true => std::future::pending().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Takes versions into the inventory; whether all are.
async fn adopt(shared: &Shared, adoptions: &[Adoption]) -> bool {
    let mut settled = true;
    for Adoption { manifest, dataset } in adoptions {
        if shared.store.is_adopted(manifest) {
            continue;
        }
        match shared.manifests.adopted(*manifest, dataset).await {
            Ok(_) => tracing::info!(dataset, ?manifest, "a newer version is known"),
            Err(error) => {
                settled = false;
                tracing::warn!(dataset, "a newer version cannot be known: {error}");
            }
        }
    }
    settled
}

/// Forgets versions whose time has come; whether none is left.
async fn retire(shared: &Shared, retiring: &BTreeMap<ManifestHash, Instant>) -> bool {
    let mut settled = true;
    let known: Vec<_> = shared.store.manifests().into_iter().map(|(hash, _)| hash).collect();
    for (hash, since) in retiring.iter().filter(|(hash, _)| known.contains(hash)) {
        if since.elapsed() < CONSIDERED {
            settled = false;
            continue;
        }
        // Pods that read it keep it until they end.
        let Some(_retiring) = shared.in_use.try_retire(*hash) else {
            settled = false;
            continue;
        };
        let (forget, hash) = (shared.forget.clone(), *hash);
        match blocking(move || forget(&hash)).await {
            Ok(()) => tracing::info!(manifest = ?hash, "a version that nobody names is forgotten"),
            Err(error) => {
                settled = false;
                tracing::warn!(manifest = ?hash, "a version that nobody names cannot be forgotten: {error}");
            }
        }
    }
    settled
}
