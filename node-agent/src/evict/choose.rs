//! Goes through what a tier holds, so that it can be decided what is given up.

use super::standings::Version;
use crate::fill::Visitor;
use crate::reads::{Habit, Reads};
use crate::store::{BlockSets, StoreError, Tier};
use hearth_core::evict::{
    self, Candidate, Claim, NotEnough, Plan, SAMPLE, Shortage, displaced, least_valuable_first,
};
use hearth_core::manifest::{File, Manifest};
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    /// Place of its version.
    pub(super) version: usize,
    /// Index of its file in there.
    pub(super) file: u32,
}

/// What is held, shown and read.
pub(super) struct Held<'a> {
    pub(super) tier: &'a Tier,
    pub(super) shown: &'a BlockSets,
    pub(super) reads: &'a Reads,
}

/// Puts the least valuable version first.
pub(super) fn sort(versions: &mut [Version], reads: &Reads) {
    for version in versions.iter_mut() {
        version.heat = reads.of(&version.dataset).heat();
    }
    versions
        .sort_by(|one, other| least_valuable_first((&one.standing, one.heat), (&other.standing, other.heat)));
}

impl Held<'_> {
    /// What goes to end the shortage, of versions that are sorted; or why it cannot be ended.
    pub(super) fn plan(
        &self,
        versions: &[Version],
        claim: Claim,
        shortage: Shortage,
    ) -> Result<Result<Vec<Chosen>, NotEnough>, StoreError> {
        let mut plan = Plan::new(claim, shortage);
        for (place, version) in versions.iter().enumerate() {
            if !plan.begin(&version.standing) {
                continue;
            }
            let Some((manifest, held)) = self.held_of(version)? else { continue };
            let habit = self.reads.of(&version.dataset);
            let spared = self.listed_by_better(versions, place, &held)?;
            for file in manifest.files_with(&held).filter(|file| !spared.contains(file.index as u32)) {
                let Looked { bytes, worth, native } = self.look(version, &habit, &manifest, &held, &file);
                let object = Chosen { version: place, file: file.index as u32 };
                plan.offer(Candidate { object, bytes, worth, native });
                // All the others are worth no less.
                if plan.is_enough() && !habit.is_known() {
                    break;
                }
            }
        }
        Ok(plan.finish())
    }

    /// What a block takes the room of that was fetched for a reader; nothing when it is not
    /// to be kept.
    pub(super) fn displaced(
        &self,
        versions: &[Version],
        visitor: &Visitor,
        short: u64,
    ) -> Result<Vec<Chosen>, StoreError> {
        let Some(own) = versions.iter().find(|version| version.hash == visitor.hash) else {
            return Ok(Vec::new());
        };
        let Some(file) = visitor.manifest.file(visitor.file) else { return Ok(Vec::new()) };
        let object = visitor.manifest.object_id(&file);
        let worth = self.reads.of(&own.dataset).worth(&object);
        let is_own = |other: &Version| other.dataset == own.dataset;
        let yields = |other: &Version| match visitor.over_quota {
            true => is_own(other) && other.standing <= own.standing,
            false => other.standing == own.standing && (is_own(other) || !other.standing.pinned),
        };
        let mut looked = self.sample(versions, yields, &object)?;
        self.leave_better(versions, &mut looked)?;
        let sample: Vec<evict::Held> = looked
            .iter()
            .map(|(_, Looked { bytes, worth, native })| evict::Held {
                bytes: *bytes,
                worth: *worth,
                native: *native,
            })
            .collect();
        let places = displaced(short, visitor.bytes, worth, &sample).unwrap_or_default();
        let mut chosen: Vec<Chosen> = places.into_iter().map(|place| looked[place].0).collect();
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// Some objects of these versions, drawn at random, and not the visitor itself.
    fn sample(
        &self,
        versions: &[Version],
        is_meant: impl Fn(&Version) -> bool,
        visitor: &ObjectId,
    ) -> Result<Vec<(Chosen, Looked)>, StoreError> {
        let mut equals = Vec::new();
        for (place, version) in versions.iter().enumerate() {
            if is_meant(version)
                && let Some((manifest, held)) = self.held_of(version)?
            {
                equals.push((place, version, manifest, held));
            }
        }
        let all: u64 = equals.iter().map(|(.., held)| held.len()).sum();
        let mut sample: BTreeMap<Chosen, Looked> = BTreeMap::new();
        if all == 0 {
            return Ok(Vec::new());
        }
        for _ in 0..SAMPLE {
            let mut at = fastrand::u64(..all);
            for (place, version, manifest, held) in &equals {
                if at >= held.len() {
                    at -= held.len();
                    continue;
                }
                let number = held.select(at as u32);
                let Some(file) = number.and_then(|number| manifest.file_of_block(number)) else { break };
                if manifest.object_id(&file) != *visitor {
                    let chosen = Chosen { version: *place, file: file.index as u32 };
                    let habit = self.reads.of(&version.dataset);
                    sample.insert(chosen, self.look(version, &habit, manifest, held, &file));
                }
                break;
            }
        }
        Ok(sample.into_iter().collect())
    }

    /// A version's manifest and what is held of it; `None` when that is nothing, or cannot
    /// be read: then the others make room.
    fn held_of(&self, version: &Version) -> Result<Option<(Arc<Manifest>, RoaringBitmap)>, StoreError> {
        let Some(held) = self.tier.held(&version.hash).filter(|held| !held.is_empty()) else {
            return Ok(None);
        };
        match self.tier.manifest(&version.hash) {
            Ok(manifest) => Ok(manifest.map(|manifest| (manifest, held))),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Manifest { .. })) => {
                tracing::warn!(dataset = version.dataset, %error, "nothing of a version can be given up");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves out what a better version lists, too.
    fn leave_better(
        &self,
        versions: &[Version],
        looked: &mut Vec<(Chosen, Looked)>,
    ) -> Result<(), StoreError> {
        for place in looked.iter().map(|(chosen, _)| chosen.version).collect::<BTreeSet<_>>() {
            let files = looked.iter().filter(|(chosen, _)| chosen.version == place);
            let files: RoaringBitmap = files.map(|(chosen, _)| chosen.file).collect();
            for better in better_than(versions, place) {
                let shared = self.tier.also_listed(&versions[place].hash, &files, &better.hash)?;
                looked.retain(|(chosen, _)| chosen.version != place || !shared.contains(chosen.file));
            }
        }
        Ok(())
    }

    /// The files of a version that a better one lists, too: they stay for that one's sake.
    fn listed_by_better(
        &self,
        versions: &[Version],
        place: usize,
        held: &RoaringBitmap,
    ) -> Result<RoaringBitmap, StoreError> {
        let mut listed = RoaringBitmap::new();
        let version = &versions[place];
        let Some(manifest) = self.tier.manifest(&version.hash)? else { return Ok(listed) };
        let files: RoaringBitmap = manifest.files_with(held).map(|file| file.index as u32).collect();
        for better in better_than(versions, place) {
            listed |= self.tier.also_listed(&version.hash, &(&files - &listed), &better.hash)?;
        }
        Ok(listed)
    }

    fn look(
        &self,
        version: &Version,
        habit: &Habit,
        manifest: &Manifest,
        held: &RoaringBitmap,
        file: &File<'_>,
    ) -> Looked {
        let blocks = file.blocks();
        let bytes = match held.contains_range(blocks.clone()) {
            true => file.size,
            false => {
                let mut of_file = RoaringBitmap::new();
                of_file.insert_range(blocks.clone());
                manifest.bytes_of(&(of_file & held))
            }
        };
        let shown = self.shown.get(&version.hash);
        Looked {
            bytes,
            worth: if habit.is_known() { habit.worth(&manifest.object_id(file)) } else { 0.0 },
            native: shown.is_some_and(|shown| shown.range_cardinality(blocks) > 0),
        }
    }
}

/// The versions for whose sake the objects of one stay, of all that are sorted or not: those
/// of more value, those that come behind it among equals, and those that are pinned.
fn better_than(versions: &[Version], place: usize) -> impl Iterator<Item = &Version> {
    let standing = versions[place].standing;
    versions.iter().enumerate().filter_map(move |(other, version)| {
        let is_better = version.standing > standing || (version.standing == standing && other > place);
        (other != place && (is_better || version.standing.pinned)).then_some(version)
    })
}

/// What is known of one held object.
#[derive(Clone, Copy, Debug)]
struct Looked {
    bytes: u64,
    worth: f64,
    native: bool,
}
