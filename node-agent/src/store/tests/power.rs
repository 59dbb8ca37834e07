//! Random work and power cuts: nothing that was published and synced is lost, nothing is claimed
//! that is not there.

use super::*;
use crate::store::subscription::{Subscription, Taken};
use hearth_core::wire::report::Change;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Write {
        version: usize,
        file: usize,
        block: u64,
    },
    Read {
        version: usize,
        file: usize,
        block: u64,
    },
    Damage {
        version: usize,
        file: usize,
    },
    Retire(usize),
    Evict {
        version: usize,
        file: usize,
    },
    Sync,
    Reopen,
    /// The power fails after so many changes of the disk.
    CutAfter(u64),
    /// The power fails now, and what survives is chosen by the seed.
    Cut(u64),
}

const VERSIONS: usize = 3;

fn versions() -> Vec<Version> {
    let large = block::BLOCK_SIZE + 100;
    vec![
        Version::new("ns", &[("a", "1", 600), ("b", "1", 2000), ("c", "1", large), ("d", "1", 5)]),
        Version::new("ns", &[("0", "1", 700), ("b", "1", 2000), ("c", "1", large), ("d", "2", 6)]),
        Version::new("other", &[("a", "1", 600), ("b", "1", 2000)]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..VERSIONS, 0usize..4, 0u64..2);
    prop_oneof![
        3 => (0..VERSIONS).prop_map(Step::Put),
        10 => place().prop_map(|(version, file, block)| Step::Write { version, file, block }),
        3 => place().prop_map(|(version, file, block)| Step::Read { version, file, block }),
        1 => (0..VERSIONS, 0usize..4).prop_map(|(version, file)| Step::Damage { version, file }),
        1 => (0..VERSIONS).prop_map(Step::Retire),
        2 => (0..VERSIONS, 0usize..4).prop_map(|(version, file)| Step::Evict { version, file }),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => (0u64..120).prop_map(Step::CutAfter),
        2 => any::<u64>().prop_map(Step::Cut),
    ]
}

type Mirror = BTreeMap<ManifestHash, roaring::RoaringBitmap>;

/// The store under test and what is known of it from outside.
struct World {
    disk: FakeDisk,
    versions: Vec<Version>,
    store: Option<Engine>,
    feed: Option<(Mirror, Subscription)>,
    /// Versions of which an adoption was answered, and no retirement begun.
    adopted: BTreeSet<usize>,
    /// Blocks of objects of which a write was answered, and that nothing removed.
    published: BTreeSet<(ObjectId, u64)>,
    /// Those of them that a power cut must leave.
    durable: BTreeSet<(ObjectId, u64)>,
    /// Objects whose file somebody removed, which the store may not know yet.
    lost: BTreeSet<ObjectId>,
    seed: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            disk: FakeDisk::default(),
            versions: versions(),
            store: None,
            feed: None,
            adopted: BTreeSet::new(),
            published: BTreeSet::new(),
            durable: BTreeSet::new(),
            lost: BTreeSet::new(),
            seed: 1,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let store = Engine::open(Arc::new(self.disk.clone()), &config(), &Common::default());
        // A fuse may burn while opening.
        let store = store.unwrap_or_else(|error| {
            assert!(!matches!(error, StoreError::Damaged { .. }), "{error}");
            self.disk.power_on(self.seed);
            self.lose_half_durable();
            self.published.clone_from(&self.durable);
            open(&self.disk)
        });
        let (snapshot, feed) = subscribe(&store);
        let mirror = snapshot.into_iter().map(|holding| (holding.manifest, holding.blocks.0)).collect();
        (self.feed, self.store) = (Some((mirror, feed)), Some(store));
    }

    fn cut(&mut self, seed: u64) {
        self.seed = seed;
        self.disk.cut_now();
        self.store = None;
        self.disk.power_on(seed);
        self.open();
        self.lose_half_durable();
        self.published.clone_from(&self.durable);
        self.check();
    }

    fn blocks_of(&self, version: usize) -> impl Iterator<Item = (u32, usize, u64, ObjectId)> + '_ {
        let manifest = &self.versions[version].manifest;
        manifest.files().flat_map(move |file| {
            let id = manifest.object_id(&file);
            file.blocks().map(move |number| (number, file.index, u64::from(number - file.first_block), id))
        })
    }

    /// What is not listed by an adopted version may go.
    fn forget_unlisted(&mut self) {
        let listed: BTreeSet<ObjectId> =
            self.adopted.iter().flat_map(|version| self.blocks_of(*version).map(|(.., id)| id)).collect();
        self.lose(|id| !listed.contains(id));
    }

    /// A file that was whole and not all synced may go as a whole.
    fn lose_half_durable(&mut self) {
        let torn: BTreeSet<ObjectId> = self.published.difference(&self.durable).map(|(id, _)| *id).collect();
        self.lose(|id| torn.contains(id));
    }

    fn lose(&mut self, is_lost: impl Fn(&ObjectId) -> bool) {
        self.published.retain(|(id, _)| !is_lost(id));
        self.durable.retain(|(id, _)| !is_lost(id));
    }

    fn run(&mut self, step: &Step) {
        let store = self.store.as_ref().unwrap();
        match *step {
            Step::Put(version) => {
                if self.versions[version].put(store).is_ok() {
                    self.adopted.insert(version);
                }
            }
            Step::Write { version, file, block } => {
                let written = &self.versions[version];
                let exists =
                    written.manifest.file(file).is_some_and(|file| block < block::blocks_in(file.size));
                if exists
                    && written.write(store, file, block).is_ok()
                    && !self.lost.contains(&written.object(file))
                {
                    self.published.insert((written.object(file), block));
                }
            }
            Step::Read { version, file, block } => {
                let read = &self.versions[version];
                if let Ok(Some(bytes)) = store.read_block(&read.hash, file, block) {
                    assert!(bytes == read.content(file, block));
                }
            }
            Step::Damage { version, file } => {
                let damaged = &self.versions[version];
                let path = damaged.path(file % damaged.manifest.file_count());
                let id = damaged.object(file % damaged.manifest.file_count());
                if self.disk.files_below(&layout().objects()).contains(&path) {
                    self.disk.lose(&path);
                    self.lose(|lost| *lost == id);
                    self.lost.insert(id);
                }
            }
            Step::Retire(version) => {
                self.adopted.remove(&version);
                let hash = self.versions[version].hash;
                let _ = store.retire(&hash);
                self.forget_unlisted();
            }
            Step::Evict { version, file } => {
                let evicted = &self.versions[version];
                let file = file % evicted.manifest.file_count();
                let id = evicted.object(file);
                // Whether it is answered or not: it may be gone.
                self.published.retain(|(published, _)| *published != id);
                self.durable.retain(|(durable, _)| *durable != id);
                if let Ok(gone) = store.evict(&evicted.hash, &[file], Arc::default(), &mut || ()) {
                    self.lost.remove(&id);
                    assert_eq!(gone.amount.objects, 1);
                    // Or the power failed as it was unlinked: it is an orphan then.
                    let is_left = self.disk.files_below(&layout().objects()).contains(&evicted.path(file));
                    assert!(!is_left || self.disk.is_off());
                }
            }
            Step::Sync => {
                if store.sync().is_ok() {
                    self.durable.extend(self.published.iter().copied());
                }
            }
            Step::Reopen => {
                self.store = None;
                self.open();
                self.nothing_published_is_lost();
            }
            Step::CutAfter(changes) => self.disk.cut_after(changes),
            Step::Cut(seed) => self.cut(seed),
        }
        self.follow_the_feed();
    }

    /// The snapshot and all changes since make what is held now.
    fn follow_the_feed(&mut self) {
        let store = self.store.as_ref().unwrap();
        let (mirror, feed) = self.feed.as_mut().unwrap();
        let Taken::Changes(changes) = feed.take_changes() else { panic!("lagged") };
        for change in changes {
            match change {
                Change::Forgotten(hash) => _ = mirror.remove(&hash),
                Change::Blocks { manifest, added, removed, .. } => {
                    let held = mirror.entry(manifest).or_default();
                    *held -= removed.0;
                    *held |= added.0;
                }
            }
        }
        let (now, _) = subscribe(store);
        let now: Mirror = now.into_iter().map(|holding| (holding.manifest, holding.blocks.0)).collect();
        assert_eq!(*mirror, now);
    }

    fn nothing_published_is_lost(&self) {
        let store = self.store.as_ref().unwrap();
        for version in &self.adopted {
            let held = store.held(&self.versions[*version].hash).unwrap_or_default();
            for (number, file, block, id) in self.blocks_of(*version) {
                assert!(
                    held.contains(number) || !self.published.contains(&(id, block)),
                    "version {version} file {file} block {block} is lost"
                );
            }
        }
    }

    /// After reopening: nothing that was durable is lost, nothing is claimed in vain, and
    /// nothing takes room that nobody holds.
    fn check(&mut self) {
        self.store.as_mut().unwrap().finish_background_work();
        let store = self.store.as_ref().unwrap();
        for version in &self.adopted {
            assert!(store.is_adopted(&self.versions[*version].hash), "version {version} is not adopted");
        }
        // Whoever reads a lost file finds out.
        for (index, version) in self.versions.iter().enumerate() {
            for (_, file, block, _) in self.blocks_of(index).filter(|(.., id)| self.lost.contains(id)) {
                let _ = store.read_block(&version.hash, file, block);
            }
        }
        self.lost.clear();
        let mut bytes = BTreeMap::new();
        let mut paths = BTreeSet::new();
        for (index, version) in self.versions.iter().enumerate() {
            let Some(held) = store.held(&version.hash) else { continue };
            for (number, file, block, id) in self.blocks_of(index) {
                if held.contains(number) {
                    assert!(
                        version.read(store, file, block),
                        "version {index} file {file} block {block} is not there"
                    );
                    bytes.insert((id, block), version.content(file, block).len() as u64);
                    paths.insert(version.path(file));
                } else {
                    assert!(
                        !self.published.contains(&(id, block)),
                        "version {index} file {file} block {block} is lost"
                    );
                }
            }
        }
        assert_eq!(store.shared.space.used(), bytes.values().sum::<u64>());
        // Files go after the answer that gives them up, and before the store is closed.
        self.store = None;
        assert_eq!(self.disk.files_below(&layout().objects()), paths);
        self.open();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn power_cuts_lose_nothing_and_invent_nothing(steps in prop::collection::vec(step(), 1..40), seed: u64) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.cut(seed);
        world.cut(!seed);
    }
}
