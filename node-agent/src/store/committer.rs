//! The committer: the one thread that changes the index and the inventory.
//!
//! It takes whatever waits and commits it in one transaction; while that syncs, the next
//! batch gathers. Transactions of what nobody waits for follow each other at a pace: each takes
//! its share of two cores and of the disk. Who does nothing else until it is answered waits for none.
//!
//! Bytes of most blocks are not synced yet (`unsynced.rs`), which the same transaction notes.

use super::commands::{BlockCommand, Command, ManifestCommand, Reply, Written};
use super::engine::Shared;
use super::error::StoreError;
use super::evict::{self, Doomed, Evicted};
use super::index::{self, Fault, Tables, meta};
use super::inventory::BlockChange;
use super::manifests::Object;
use super::rows::{BLOCKS_PER_CHUNK, BlockOf, ManifestRow, ManifestState};
use super::staging::{Places, Staging, held_in, part, put_holdings};
use super::stats::count;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Most commands in one transaction.
const BATCH: usize = 512;
/// From one transaction to the next while nobody waits, and not more than so many bytes: who wrote
/// them keeps them in memory until then.
const PACE: Duration = Duration::from_millis(100);
const BYTES: u64 = 32 << 20;
/// How often to look whether a doomed file may go, while there is one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Committer {
    shared: Arc<Shared>,
    queue: Receiver<Command>,
    /// Objects to unlink once nobody writes them.
    doomed: BTreeSet<ObjectId>,
    /// When the last batch was begun.
    began: Instant,
}

/// What a transaction of block commands comes to.
struct Staged {
    changes: BTreeMap<ManifestHash, BlockChange>,
    used: u64,
    outcomes: Vec<Outcome>,
}

/// Blocks of a transaction that are not synced, and their bytes.
#[derive(Default)]
struct Notes {
    blocks: Vec<BlockOf>,
    bytes: u64,
}

/// What a command comes to.
enum Outcome {
    Done,
    /// A write of an object that was given up meanwhile.
    Void,
    Evicted(Evicted, Vec<ObjectId>),
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, queue: Receiver<Command>) -> Self {
        Self { shared, queue, doomed: BTreeSet::new(), began: Instant::now() }
    }

    /// Works until all senders are gone.
    pub(super) fn run(mut self) {
        loop {
            let first = if self.doomed.is_empty() {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.queue.recv_timeout(LOOK_AGAIN)
            };
            match first {
                Ok(first) => {
                    let mut batch = vec![first];
                    batch.extend(self.queue.try_iter().take(BATCH - 1));
                    self.gather(&mut batch);
                    self.began = Instant::now();
                    self.process(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.remove_doomed();
        }
    }

    /// Lets more writes come along until it is time.
    fn gather(&self, batch: &mut Vec<Command>) {
        let mut bytes = batch.iter().map(written_by).sum::<Option<u64>>();
        while batch.len() < BATCH && bytes.is_some_and(|bytes| bytes < BYTES) {
            let left = (self.began + PACE).saturating_duration_since(Instant::now());
            let Ok(command) = self.queue.recv_timeout(left) else { return };
            bytes = bytes.zip(written_by(&command)).map(|(all, one)| all + one);
            batch.push(command);
        }
    }

    fn process(&mut self, batch: Vec<Command>) {
        if !self.shared.index.is_open() {
            self.reopen();
        }
        let mut blocks = Vec::new();
        for command in batch {
            match command {
                Command::Block(command) => blocks.push(command),
                Command::Manifest(command) => {
                    self.commit_blocks(std::mem::take(&mut blocks));
                    self.commit_manifest(command);
                }
            }
        }
        self.commit_blocks(blocks);
    }

    fn commit_blocks(&mut self, commands: Vec<BlockCommand>) {
        if commands.is_empty() {
            return;
        }
        let began = Instant::now();
        let staged = self.places_of(&commands).and_then(|places| {
            let shared = Arc::clone(&self.shared);
            shared.index.write(|tables| self.stage(tables, &commands, &places))
        });
        match staged {
            Ok(staged) => {
                self.shared.space.set_used(staged.used);
                self.shared.inventory.apply(staged.changes.into_values());
                count(&self.shared.stats.commits, 1);
                count(&self.shared.stats.commit_micros, began.elapsed().as_micros() as u64);
                for (command, outcome) in commands.into_iter().zip(staged.outcomes) {
                    self.answer(command, outcome);
                }
            }
            Err(error) => {
                self.recover(&error);
                commands.into_iter().for_each(|command| refuse(command, &error));
            }
        }
    }

    fn answer(&mut self, command: BlockCommand, outcome: Outcome) {
        match command {
            BlockCommand::Write(write) if !self.shared.inventory.is_adopted(&write.manifest) => {
                (write.reply)(Err(StoreError::UnknownManifest(write.manifest)));
            }
            BlockCommand::Write(write) => {
                let written = match outcome {
                    Outcome::Void => Written::Void,
                    Outcome::Done | Outcome::Evicted(..) => Written::Kept,
                };
                if written == Written::Kept {
                    self.shared.health.worked();
                    count(&self.shared.stats.blocks_written, 1);
                    count(&self.shared.stats.bytes_written, write.length);
                }
                // The pass goes after the answer's inventory is visible, not before.
                (write.reply)(Ok(written));
                drop(write.pass);
            }
            BlockCommand::GiveUp(give_up) => (give_up.reply)(Ok(())),
            BlockCommand::Free(free) => (free.reply)(Ok(())),
            BlockCommand::Evict(evict) => {
                let (evicted, gone) = match outcome {
                    Outcome::Evicted(evicted, gone) => (evicted, gone),
                    Outcome::Done | Outcome::Void => Default::default(),
                };
                // Whoever asked unlinks them, which takes its time.
                gone.iter().for_each(|id| _ = self.doomed.remove(id));
                (evict.reply)(Ok((evicted, Doomed::new(&self.shared, gone))));
            }
        }
    }

    /// Where the objects of the commands count.
    fn places_of(&self, commands: &[BlockCommand]) -> Result<HashMap<ObjectId, Places>, StoreError> {
        let counting = self.shared.inventory.counting();
        let mut places: HashMap<ObjectId, Places> = HashMap::new();
        for object in commands.iter().flat_map(objects) {
            if places.contains_key(&object.id) {
                continue;
            }
            let mut found = Places::new();
            for hash in &counting {
                match self.shared.manifests.places(hash, object) {
                    Ok(first_blocks) if first_blocks.is_empty() => {}
                    Ok(first_blocks) => found.push((*hash, first_blocks)),
                    Err(error @ (StoreError::Io { .. } | StoreError::NoSpace { .. })) => return Err(error),
                    // Missing or damaged: it cannot count any more.
                    Err(error) => self.lose(hash, &error)?,
                }
            }
            places.insert(object.id, found);
        }
        Ok(places)
    }

    fn stage(
        &mut self,
        tables: &mut Tables<'_>,
        commands: &[BlockCommand],
        places: &HashMap<ObjectId, Places>,
    ) -> Result<Staged, Fault> {
        let mut staging = Staging::new(self.shared.space.used());
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut notes = Notes::default();
        for command in commands {
            let mut outcome = Outcome::Done;
            match command {
                BlockCommand::Write(write) => {
                    let id = write.object.id;
                    if staging.taken.contains(&id) || self.shared.gate.is_dying(&id) {
                        outcome = Outcome::Void;
                    } else if self.shared.inventory.is_adopted(&write.manifest) {
                        staging.write(tables, write, &places[&id])?;
                        if write.unsynced {
                            notes.blocks.push((id, write.block));
                            notes.bytes += write.length;
                        }
                    } else {
                        // Retired meanwhile: if nothing else holds the file, it goes.
                        self.doom(id);
                    }
                }
                BlockCommand::GiveUp(give_up) => {
                    let (id, block, entire) = (give_up.object.id, give_up.block, give_up.entire);
                    let places = &places[&id];
                    if staging.taken.contains(&id) || !self.is_claimed(places, block) {
                        // It was evicted while somebody read it.
                    } else {
                        count(&self.shared.stats.blocks_damaged, 1);
                        tracing::warn!(object = %id, block, entire, "a block does not read back and is given up");
                        if staging.give_up(tables, give_up, places)? {
                            self.doom(id);
                        }
                    }
                }
                BlockCommand::Free(free) => {
                    for object in free.objects.iter().filter(|object| places[&object.id].is_empty()) {
                        staging.take(tables, object, &Places::new())?;
                        self.doom(object.id);
                    }
                }
                BlockCommand::Evict(evict) => {
                    let (gate, doomed) = (&self.shared.gate, &mut self.doomed);
                    let doom = |id| gate.doom_if_idle(id) && doomed.insert(id);
                    let (evicted, gone) = evict::stage(&mut staging, tables, evict, places, doom)?;
                    outcome = Outcome::Evicted(evicted, gone);
                }
            }
            outcomes.push(outcome);
        }
        for change in staging.changes.values() {
            self.put_changed_chunks(tables, change)?;
        }
        if !notes.blocks.is_empty() {
            let number = self.shared.unsynced.note(notes.blocks.len(), notes.bytes);
            tables.note_unsynced(number, &notes.blocks)?;
        }
        tables.put_meta(meta::USED, &staging.used.to_le_bytes())?;
        Ok(Staged { changes: staging.changes, used: staging.used, outcomes })
    }

    /// Whether the inventory has a block in any manifest that lists it.
    fn is_claimed(&self, places: &Places, block: u64) -> bool {
        let mut numbers =
            places.iter().flat_map(|(hash, first)| first.iter().map(move |first| (hash, first)));
        // Within the manifest's numbers, as the file has this block.
        numbers.any(|(hash, first)| self.shared.inventory.holds(hash, first + block as u32) == Some(true))
    }

    fn put_changed_chunks(&self, tables: &mut Tables<'_>, change: &BlockChange) -> Result<(), Fault> {
        let touched: BTreeSet<u16> = (&change.added | &change.removed)
            .iter()
            .map(|number| (number / BLOCKS_PER_CHUNK) as u16)
            .collect();
        for chunk in touched {
            let held = self.shared.inventory.with_adopted(&change.manifest, |held| part(held, chunk));
            // One that is being adopted has no rows before it is.
            let Some(mut held) = held else { break };
            held -= &change.removed;
            held |= part(&change.added, chunk);
            tables.put_holding(&change.manifest, chunk, &held)?;
        }
        Ok(())
    }

    fn doom(&mut self, id: ObjectId) {
        if self.shared.gate.is_dying(&id) && !self.doomed.contains(&id) {
            // Somebody gives it up, and unlinks it.
            return;
        }
        self.shared.gate.doom(id);
        self.doomed.insert(id);
    }

    /// Unlinks doomed files that nobody writes. One that has rows after all, since
    /// the transaction failed, stays.
    fn remove_doomed(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.doomed.retain(|id| {
            if !shared.gate.is_idle(id) {
                return true;
            }
            match shared.index.has_object(id) {
                Ok(false) => shared.unlink(id),
                Err(_) if shared.index.is_open() => return true,
                // The index is away: whoever writes the object next looks again.
                Ok(true) | Err(_) => shared.gate.revive(id),
            }
            false
        });
    }

    fn commit_manifest(&mut self, command: ManifestCommand) {
        match command {
            ManifestCommand::Put { hash, dataset, reply } => {
                let state =
                    self.shared.inventory.state(&hash).map_or(ManifestState::Stored, |(state, _)| state);
                let row = ManifestRow { state, dataset };
                let result = self.commit(|tables| tables.put_manifest(&hash, &row));
                if result.is_ok() {
                    self.shared.inventory.put(hash, &row.dataset);
                }
                reply(result);
            }
            ManifestCommand::BeginAdopting { hash, reply } => {
                let begun = self.shared.inventory.begin_adopting(&hash);
                reply(if begun { Ok(()) } else { Err(StoreError::UnknownManifest(hash)) });
            }
            ManifestCommand::FinishAdopting { hash, found, reply } => {
                reply(self.finish_adopting(hash, &found))
            }
            ManifestCommand::BeginRetiring { hash, reply } => {
                let dataset =
                    self.shared.inventory.state(&hash).map(|(_, dataset)| dataset).unwrap_or_default();
                let row = ManifestRow { state: ManifestState::Retiring, dataset };
                let result = self.commit(|tables| {
                    tables.remove_holdings(&hash)?;
                    tables.put_manifest(&hash, &row)
                });
                if result.is_ok() {
                    self.shared.inventory.begin_retiring(&hash);
                }
                reply(result);
            }
            ManifestCommand::FinishRetiring { hash, reply } => {
                let result = self.commit(|tables| tables.remove_manifest(&hash));
                if result.is_ok() {
                    self.shared.inventory.remove(&hash);
                }
                reply(result);
            }
            ManifestCommand::Lose { hash, reply } => {
                let lost = self.lose(&hash, &StoreError::UnknownManifest(hash));
                reply(lost.inspect_err(|error| self.recover(error)));
            }
            ManifestCommand::Collect { objects, seen, reply } => reply(self.collect(&objects, &seen)),
            ManifestCommand::Synced { upto, reply } => {
                reply(self.commit(|tables| tables.forget_unsynced(upto)));
            }
            // Opened again before this command, as before every other, or not.
            ManifestCommand::Settle { reply } => reply(match self.shared.index.is_open() {
                true => Ok(()),
                false => Err(index::closed()),
            }),
            ManifestCommand::Collected { reply } => {
                reply(self.commit(|tables| tables.put_meta(meta::COLLECT, &0u64.to_le_bytes())));
            }
        }
    }

    fn finish_adopting(&mut self, hash: ManifestHash, found: &RoaringBitmap) -> Result<(), StoreError> {
        let interrupted =
            || StoreError::Index { why: "an error interrupted the adoption: adopt again".into() };
        let held = self.shared.inventory.adoption(&hash, found).ok_or_else(interrupted)?;
        let dataset =
            self.shared.inventory.state(&hash).map(|(_, dataset)| dataset).ok_or_else(interrupted)?;
        let row = ManifestRow { state: ManifestState::Adopted, dataset };
        self.commit(|tables| {
            put_holdings(tables, &hash, &held)?;
            tables.put_manifest(&hash, &row)
        })?;
        self.shared.inventory.finish_adopting(&hash, held);
        Ok(())
    }

    /// Forgets a manifest that cannot be read. Which objects it listed is unknown,
    /// so they are to be found by elimination.
    fn lose(&self, hash: &ManifestHash, why: &StoreError) -> Result<(), StoreError> {
        tracing::warn!(manifest = %hash, %why, "a manifest is lost, and is forgotten with its holdings");
        count(&self.shared.stats.manifests_lost, 1);
        self.shared.index.write(|tables| {
            tables.remove_holdings(hash)?;
            tables.remove_manifest(hash)?;
            tables.put_meta(meta::COLLECT, &1u64.to_le_bytes())
        })?;
        self.shared.inventory.remove(hash);
        Ok(())
    }

    fn collect(&mut self, objects: &[ObjectId], seen: &[ManifestHash]) -> Result<bool, StoreError> {
        if self.shared.inventory.counting().iter().any(|hash| !seen.contains(hash)) {
            return Ok(false);
        }
        let before = self.shared.space.used();
        let used = self.commit(|tables| {
            let mut used = before;
            for id in objects {
                for (first, row) in tables.take_object(id)? {
                    used = used.saturating_sub(held_in(first, &row).map(|(_, bytes)| bytes).sum());
                }
            }
            tables.put_meta(meta::USED, &used.to_le_bytes())?;
            Ok(used)
        })?;
        self.shared.space.set_used(used);
        objects.iter().for_each(|id| self.doom(*id));
        Ok(true)
    }

    fn commit<T>(&self, work: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault>) -> Result<T, StoreError> {
        let result = self.shared.index.write(work);
        match &result {
            Ok(_) => count(&self.shared.stats.commits, 1),
            Err(error) => self.recover(error),
        }
        result
    }

    /// After a failed commit nobody knows what is durable, and the index takes no
    /// more until it is opened again.
    fn recover(&self, error: &StoreError) {
        count(&self.shared.stats.commits_failed, 1);
        tracing::warn!(%error, "a commit failed");
        self.shared.note_failure(error);
        if error.is_no_space() {
            count(&self.shared.stats.no_space, 1);
            self.shared.space.drop_ballast();
        }
        self.shared.suspect_if_damaged(error);
        self.reopen();
    }

    fn reopen(&self) {
        match self.shared.index.reopen() {
            Ok(loaded) => {
                count(&self.shared.stats.index_reopens, 1);
                self.shared.space.set_used(loaded.used);
                self.shared.inventory.reconcile(&loaded.manifests, &loaded.holdings);
                if !self.shared.health.works() {
                    self.shared.inventory.withhold_all(true);
                }
            }
            Err(error) => {
                self.shared.suspect_if_damaged(&error);
                // Of one that has failed that is no news.
                match self.shared.health.works() {
                    true => tracing::error!(%error, "the index cannot be opened again"),
                    false => tracing::debug!(%error, "the index cannot be opened again"),
                }
            }
        }
    }
}

/// The bytes of a write that nobody waits for.
fn written_by(command: &Command) -> Option<u64> {
    match command {
        Command::Block(BlockCommand::Write(write)) if !write.awaited => Some(write.length),
        _ => None,
    }
}

fn objects(command: &BlockCommand) -> &[Arc<Object>] {
    match command {
        BlockCommand::Write(write) => std::slice::from_ref(&write.object),
        BlockCommand::GiveUp(give_up) => std::slice::from_ref(&give_up.object),
        BlockCommand::Free(free) => &free.objects,
        BlockCommand::Evict(evict) => &evict.objects,
    }
}

fn refuse(command: BlockCommand, error: &StoreError) {
    fn with<T>(reply: Reply<T>, error: &StoreError) {
        reply(Err(error.clone()));
    }
    match command {
        BlockCommand::Write(write) => with(write.reply, error),
        BlockCommand::GiveUp(give_up) => with(give_up.reply, error),
        BlockCommand::Free(free) => with(free.reply, error),
        BlockCommand::Evict(evict) => with(evict.reply, error),
    }
}
