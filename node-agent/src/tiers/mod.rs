//! The tiers of a node's store: which of them gets what comes, and what moves between them.
//!
//! [`hearth_core::tier`] decides; here is gathered what it takes. Each tier has an
//! [`Evictor`] that makes room in it.

mod directories;
mod mover;
mod probes;

pub use directories::find;
#[cfg(test)]
pub(crate) use mover::Looked;
pub use mover::{Mover, MoverParts};
pub use probes::look_after;

use crate::evict::{Evictor, Standings};
use crate::fill::{MakeRoom, NoRoom, Visitor};
use crate::manifests::blocking;
use crate::store::{Reservation, Store, StoreError, Tier, TierId};
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_core::evict::{Amount, Room};
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::tier::{self, Medium};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an order of tiers is taken to be good: thousands of files come in that time.
const HOLDS: Duration = Duration::from_secs(1);
/// How long the first block of a file may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(600);
/// Versions whose order is remembered.
const ORDERS: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Files on their way of which it is remembered where they go, more than there are requests.
const FILES: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Finds room for what comes, in the tier where it belongs. Clones are the same.
#[derive(Clone)]
pub struct TierRoom(Arc<Inner>);

struct Inner {
    store: Store,
    /// By the ids of the tiers.
    evictors: Vec<Evictor>,
    standings: Arc<Standings>,
    orders: Mutex<LruCache<ManifestHash, (Instant, Vec<TierId>)>>,
    /// Where files have gone of late, of which other blocks may be on their way.
    files: Mutex<LruCache<(ManifestHash, usize), (Instant, TierId)>>,
}

impl TierRoom {
    /// With an evictor for each tier, in their order.
    pub fn new(store: Store, evictors: Vec<Evictor>, standings: Arc<Standings>) -> Self {
        let (orders, files) = (Mutex::new(LruCache::new(ORDERS)), Mutex::new(LruCache::new(FILES)));
        Self(Arc::new(Inner { store, evictors, standings, orders, files }))
    }
}

impl MakeRoom for TierRoom {
    fn reserve(
        &self,
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Reservation, NoRoom>> {
        self.0.reserve(hash, file, bytes).boxed()
    }

    fn free(
        &self,
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Option<Reservation>, NoRoom>> {
        std::future::ready(self.0.free_at_once(hash, file, bytes)).boxed()
    }

    fn admit(&self, visitor: Visitor) -> BoxFuture<'static, Result<Option<Reservation>, NoRoom>> {
        let inner = self.0.clone();
        async move { inner.admit(visitor).await }.boxed()
    }
}

impl Inner {
    async fn reserve(&self, hash: ManifestHash, file: usize, bytes: u64) -> Result<Reservation, NoRoom> {
        let places = self.places(hash, file).await?;
        // With one tier the evictor looks for itself, and sees to what others take meanwhile.
        if places.len() > 1
            && let Some(reservation) = self.free(&places, hash, file, bytes).await?
        {
            return Ok(reservation);
        }
        let mut refused = None;
        for place in places {
            let reserved = match self.know(place, hash).await {
                Ok(()) => self.evictors[place.index()].reserve(hash, bytes).await,
                Err(error) => Err(error.into()),
            };
            match reserved {
                Ok(reservation) => return Ok(self.goes(reservation, hash, file)),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or(NoRoom::Failed("no disk of the store works".to_owned())))
    }

    async fn admit(&self, visitor: Visitor) -> Result<Option<Reservation>, NoRoom> {
        let Visitor { hash, file, bytes, over_quota, .. } = visitor;
        let places = self.places(hash, file).await?;
        if !over_quota
            && places.len() > 1
            && let Some(reservation) = self.free(&places, hash, file, bytes).await?
        {
            return Ok(Some(reservation));
        }
        let mut failed = None;
        for place in places {
            let admitted = match self.know(place, hash).await {
                Ok(()) => self.evictors[place.index()].admit(visitor.clone()).await,
                Err(error) => Err(error.into()),
            };
            match admitted {
                Ok(Some(reservation)) => return Ok(Some(self.goes(reservation, hash, file))),
                Ok(None) => {}
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Room that is there already, by what is known: without asking anybody. Nothing as long as it is
    /// not known where the version belongs, or the tier does not know it: once the reader has its
    /// block there is time to find out.
    fn free_at_once(
        &self,
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> Result<Option<Reservation>, NoRoom> {
        let known = match self.store.tiers() {
            [only] => Some(vec![only.id()]),
            _ => self.orders.lock().peek(&hash).map(|(_, order)| order.clone()),
        };
        let mut places = known.unwrap_or_default();
        self.put_first(self.place_of(hash, file)?, &mut places);
        let knows = |place: &TierId| {
            let tier = self.store.tiers().get(place.index());
            tier.is_some_and(|tier| tier.works() && tier.is_adopted(&hash))
        };
        for place in places.into_iter().take_while(knows) {
            if let Some(reservation) = self.evictors[place.index()].free(bytes)? {
                return Ok(Some(self.goes(reservation, hash, file)));
            }
        }
        Ok(None)
    }

    /// Room that is there already, in the first of these tiers that has some. What is wrong with
    /// one counts when no other has any.
    async fn free(
        &self,
        places: &[TierId],
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> Result<Option<Reservation>, NoRoom> {
        let mut failed = None;
        for place in places {
            let found = match self.evictors[place.index()].free(bytes) {
                Ok(Some(reservation)) => self.know(*place, hash).await.map(|()| reservation),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match found {
                Ok(reservation) => return Ok(Some(self.goes(reservation, hash, file))),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), |error| Err(error.into()))
    }

    fn goes(&self, reservation: Reservation, hash: ManifestHash, file: usize) -> Reservation {
        if self.store.tiers().len() > 1 {
            self.files.lock().put((hash, file), (Instant::now(), reservation.tier()));
        }
        reservation
    }

    fn put_first(&self, first: Option<TierId>, places: &mut Vec<TierId>) {
        if let Some(first) = first {
            places.retain(|place| *place != first);
            places.insert(0, first);
        }
    }

    /// Makes sure that a tier knows the version.
    async fn know(&self, tier: TierId, hash: ManifestHash) -> Result<(), StoreError> {
        if self.store.tiers().get(tier.index()).is_some_and(|tier| tier.is_adopted(&hash)) {
            return Ok(());
        }
        let store = self.store.clone();
        blocking(move || store.admit(tier, &hash)).await
    }

    /// The tiers that a file of a version may go to, the best first: where some of it is before
    /// all others, so that it becomes one object if it can.
    async fn places(&self, hash: ManifestHash, file: usize) -> Result<Vec<TierId>, NoRoom> {
        if let [only] = self.store.tiers() {
            return Ok(Some(only.id()).filter(|_| only.works()).into_iter().collect());
        }
        let mut places = self.order(hash).await?;
        self.put_first(self.place_of(hash, file)?, &mut places);
        Ok(places)
    }

    async fn order(&self, hash: ManifestHash) -> Result<Vec<TierId>, NoRoom> {
        let known = self.orders.lock().get(&hash).cloned();
        if let Some((_, order)) = known.filter(|(since, _)| since.elapsed() < HOLDS) {
            return Ok(order);
        }
        let dataset = self.store.manifests().into_iter().find(|(known, _)| *known == hash);
        let wish = match dataset {
            Some((_, dataset)) => self.standings.wish(&dataset).await,
            None => Vec::new(),
        };
        let store = self.store.clone();
        let order = blocking(move || order(&store, &hash, &wish)).await?;
        self.orders.lock().put(hash, (Instant::now(), order.clone()));
        Ok(order)
    }

    /// Where some of the file is, or is on its way to.
    fn place_of(&self, hash: ManifestHash, file: usize) -> Result<Option<TierId>, StoreError> {
        if self.store.tiers().len() == 1 {
            return Ok(None);
        }
        let Some(manifest) = self.store.manifest(&hash)? else { return Ok(None) };
        let Some(blocks) = manifest.file(file).map(|file| file.blocks()) else { return Ok(None) };
        let mut working = self.store.tiers().iter().filter(|tier| tier.works());
        if let Some(tier) = working.clone().find(|tier| tier.holds_some(&hash, blocks.clone())) {
            return Ok(Some(tier.id()));
        }
        let known = self.files.lock().get(&(hash, file)).copied();
        let known = known.filter(|(since, _)| blocks.len() > 1 && since.elapsed() < ON_ITS_WAY);
        Ok(known.map(|(_, tier)| tier).filter(|known| working.any(|tier| tier.id() == *known)))
    }
}

/// In which order tiers are asked for room for a version. Blocks on the disk.
fn order(store: &Store, hash: &ManifestHash, wish: &[Medium]) -> Result<Vec<TierId>, StoreError> {
    let Some(manifest) = store.manifest(hash)? else { return Err(StoreError::UnknownManifest(*hash)) };
    let held = manifest.bytes_of(&store.held(hash).unwrap_or_default());
    let to_come = manifest.bytes().saturating_sub(held);
    // What is reserved is mostly for what is to come of the same version.
    let as_seen = |tier: &Tier| seen(tier, &tier.room_of_held(0), held_in(tier, hash, &manifest));
    let tiers: Vec<tier::Tier> = store.tiers().iter().map(as_seen).collect();
    let order = tier::places(wish, to_come, &tiers);
    Ok(order.into_iter().filter_map(|index| store.tiers().get(index)).map(Tier::id).collect())
}

/// A tier as a version sees it. Of one that cannot tell what it has, nothing is free.
fn seen(tier: &Tier, room: &Result<Room, StoreError>, held: u64) -> tier::Tier {
    let free = room.as_ref().map_or(Amount::default(), |room| room.limits.high.minus(room.used));
    tier::Tier { medium: tier.medium(), free: free.bytes, held, works: tier.works() && room.is_ok() }
}

fn held_in(tier: &Tier, hash: &ManifestHash, manifest: &Manifest) -> u64 {
    tier.held(hash).map_or(0, |held| manifest.bytes_of(&held))
}
