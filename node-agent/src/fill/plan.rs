//! What is still to fetch of one manifest, cut into requests. Pure.

use hearth_core::block::BlockNumber;
use hearth_core::manifest::Manifest;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Blocks that one request fetches at most: 8 MiB make its overhead small. With more, the
/// requests that run beside each other would spread over so much of a file that whoever
/// reads it from its beginning would get little before the end.
pub(super) const LONGEST_RUN: u32 = 2;

/// Adjacent blocks of one object, fetched by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the file in the manifest.
    pub(super) file: usize,
    /// The object, whatever manifest lists it.
    pub(super) object: ObjectId,
    /// Block numbers in the manifest.
    pub(super) numbers: Range<BlockNumber>,
    /// Number of the file's first block.
    pub(super) first_block: BlockNumber,
    /// The file is unlisted: what comes of it is not kept.
    pub(super) unlisted: bool,
}

impl Run {
    /// Indices of its blocks within the file.
    pub(super) fn indices(&self) -> Range<u32> {
        self.numbers.start - self.first_block..self.numbers.end - self.first_block
    }
}

/// Blocks that are being fetched, by object, for whichever want. Without those that are not
/// kept: nobody else gets anything by them.
#[derive(Debug, Default)]
pub(super) struct InFlight(HashMap<ObjectId, RoaringBitmap>);

impl InFlight {
    pub(super) fn begin(&mut self, run: &Run) {
        if !run.unlisted {
            self.0.entry(run.object).or_default().insert_range(run.indices());
        }
    }

    pub(super) fn end(&mut self, run: &Run) {
        if let Some(blocks) = self.0.get_mut(&run.object).filter(|_| !run.unlisted) {
            blocks.remove_range(run.indices());
            if blocks.is_empty() {
                self.0.remove(&run.object);
            }
        }
    }

    fn has_any(&self, run: &Run) -> bool {
        self.0.get(&run.object).is_some_and(|blocks| blocks.range_cardinality(run.indices()) > 0)
    }
}

/// What is still to fetch of one manifest for one want.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Not asked for yet.
    missing: RoaringBitmap,
    /// Of those, what somebody waits for.
    urgent: RoaringBitmap,
    /// Being fetched for another want: to be looked at again.
    elsewhere: RoaringBitmap,
    /// Their objects are not what the manifest says: to be tried again much later.
    changed: RoaringBitmap,
    /// Origins that fail.
    failing: BTreeSet<u16>,
    /// Missing at those, and nobody waits for them: until they answer.
    put_off: RoaringBitmap,
    /// Asked for there in vain: until the plan is made anew.
    failed: RoaringBitmap,
    /// Blocks of unlisted files: never missing, and fetched anew whenever somebody waits for them.
    shown: RoaringBitmap,
    /// Of those, what is under way.
    reading: RoaringBitmap,
}

impl Plan {
    pub(super) fn new(missing: RoaringBitmap) -> Self {
        Self { missing, ..Self::default() }
    }

    /// With blocks that are fetched only for those who wait for them.
    pub(super) fn showing(self, shown: RoaringBitmap) -> Self {
        Self { shown, ..self }
    }

    /// Whether there may be something to hand out.
    pub(super) fn has_more(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Somebody waits for these: what of them is missing is handed out first. What another
    /// want fetched may have come and not been kept.
    pub(super) fn urge(&mut self, blocks: &RoaringBitmap) {
        let again = blocks & (&self.elsewhere | &self.put_off | &self.failed);
        self.elsewhere -= &again;
        self.put_off -= &again;
        self.failed -= &again;
        self.missing |= again;
        self.urgent |= blocks & &self.missing;
        self.read(blocks);
    }

    /// The same for blocks of unlisted files alone.
    pub(super) fn read(&mut self, blocks: &RoaringBitmap) {
        self.urgent |= self.shown(blocks) - &self.reading - &self.changed;
    }

    /// Those of these blocks that are of unlisted files.
    pub(super) fn shown(&self, blocks: &RoaringBitmap) -> RoaringBitmap {
        blocks & &self.shown
    }

    pub(super) fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Blocks not fetched yet, those that are under way left out.
    pub(super) fn missing(&self) -> u64 {
        let others = [&self.missing, &self.elsewhere, &self.put_off, &self.failed];
        others.iter().map(|blocks| blocks.len()).sum::<u64>() + self.changed.difference_len(&self.shown)
    }

    /// Whether any of these blocks is not fetched yet, those that are under way left out.
    pub(super) fn lacks(&self, numbers: Range<BlockNumber>) -> bool {
        [&self.missing, &self.elsewhere, &self.changed, &self.put_off, &self.failed]
            .iter()
            .any(|blocks| blocks.range_cardinality(numbers.clone()) > 0)
    }

    pub(super) fn waits_for_others(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Takes blocks back that this origin has not given: what nobody waits for there is put off.
    pub(super) fn fails(&mut self, origin: u16, numbers: impl IntoIterator<Item = Range<BlockNumber>>) {
        self.failing.insert(origin);
        for range in numbers.into_iter().filter(|range| !self.shown.contains(range.start)) {
            self.failed.insert_range(range);
        }
    }

    /// It does not fail any more: what was put off comes in its turn.
    pub(super) fn answers(&mut self, origin: u16) {
        if self.failing.remove(&origin) {
            // What is of others that fail is put off again.
            self.missing |= std::mem::take(&mut self.put_off);
        }
    }

    pub(super) fn has_put_off(&self) -> bool {
        !self.put_off.is_empty() || !self.failed.is_empty()
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Those of these blocks whose objects are not what the manifest says.
    pub(super) fn changed(&self, blocks: &RoaringBitmap) -> RoaringBitmap {
        blocks & &self.changed
    }

    /// Hands out the next request: what is urgent, and then the rest unless `only_urgent`,
    /// in the manifest's order; and whether it is urgent.
    pub(super) fn next(
        &mut self,
        manifest: &Manifest,
        in_flight: &InFlight,
        only_urgent: bool,
    ) -> Option<(Run, bool)> {
        loop {
            let is_urgent = self.has_urgent();
            if only_urgent && !is_urgent {
                return None;
            }
            let among = if is_urgent { &self.urgent } else { &self.missing };
            let start = among.min()?;
            let Some(file) = manifest.file_of_block(start) else {
                // Numbers that the manifest does not have cannot be fetched.
                self.missing.remove_range(start..);
                self.urgent.remove_range(start..);
                return None;
            };
            if !is_urgent && self.failing.contains(&file.origin) {
                let mut put_off = RoaringBitmap::new();
                put_off.insert_range(file.blocks());
                put_off &= &self.missing;
                self.missing -= &put_off;
                self.put_off |= put_off;
                continue;
            }
            let mut end = start + 1;
            let limit = file.blocks().end.min(start.saturating_add(LONGEST_RUN));
            while end < limit && among.contains(end) {
                end += 1;
            }
            self.missing.remove_range(start..end);
            self.urgent.remove_range(start..end);
            let run = Run {
                file: file.index,
                object: manifest.object_id(&file),
                numbers: start..end,
                first_block: file.first_block,
                unlisted: file.unlisted,
            };
            if run.unlisted {
                self.reading.insert_range(start..end);
                return Some((run, is_urgent));
            }
            if in_flight.has_any(&run) {
                self.elsewhere.insert_range(start..end);
                continue;
            }
            return Some((run, is_urgent));
        }
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, run: &Run) {
        if run.unlisted {
            self.reading.remove_range(run.numbers.clone());
        }
    }

    /// Takes blocks back that were handed out and not fetched. Whoever waits for those of an
    /// unlisted file asks again.
    pub(super) fn put_back(&mut self, numbers: Range<BlockNumber>) {
        if !self.shown.contains(numbers.start) {
            self.missing.insert_range(numbers);
        }
    }

    /// Takes back blocks of an object that is not what the manifest says, with
    /// whatever else of it was still to be asked for.
    pub(super) fn put_aside(&mut self, manifest: &Manifest, run: &Run, numbers: Range<BlockNumber>) {
        self.changed.insert_range(numbers);
        if let Some(file) = manifest.file(run.file) {
            let mut rest = RoaringBitmap::new();
            rest.insert_range(file.blocks());
            if !file.unlisted {
                rest &= &self.missing;
            }
            self.missing -= &rest;
            self.urgent -= &rest;
            self.changed |= rest;
        }
    }

    /// Another want of the same manifest has fetched these.
    pub(super) fn fetched(&mut self, numbers: Range<BlockNumber>) {
        self.missing.remove_range(numbers.clone());
        self.urgent.remove_range(numbers.clone());
        self.elsewhere.remove_range(numbers.clone());
        self.put_off.remove_range(numbers.clone());
        self.failed.remove_range(numbers.clone());
        self.changed.remove_range(numbers);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use hearth_core::block::BLOCK_SIZE;
    use hearth_core::manifest::{ListedObject, ManifestBuilder, ManifestOrigin};
    use hearth_core::object::{AccessDomain, Validator};
    use proptest::prelude::*;

    pub(in crate::fill) fn manifest(sizes: &[u64]) -> Manifest {
        manifest_showing(sizes, &[])
    }

    pub(in crate::fill) fn manifest_showing(sizes: &[u64], unlisted: &[usize]) -> Manifest {
        let origin = ManifestOrigin::whole(AccessDomain::new("n", None), "s3://b");
        let mut builder = ManifestBuilder::new(vec![origin]);
        for (index, size) in sizes.iter().enumerate() {
            builder.push(ListedObject {
                origin: 0,
                path: format!("{index:04}"),
                size: *size,
                modified: 0,
                validator: Validator::Modified(1),
                unlisted: unlisted.contains(&index),
            });
        }
        builder.finish().unwrap().0
    }

    #[test]
    fn adjacent_blocks_of_one_file_make_one_request() {
        let manifest = manifest(&[0, 3 * BLOCK_SIZE, 1, 7 * BLOCK_SIZE]);
        let mut plan = Plan::new((0..manifest.blocks()).filter(|number| *number != 9).collect());
        let mut ranges = Vec::new();
        while let Some((run, _)) = plan.next(&manifest, &InFlight::default(), false) {
            ranges.push((run.file, run.numbers.clone(), run.indices()));
        }
        assert_eq!(
            ranges,
            [
                (1, 0..2, 0..2),
                (1, 2..3, 2..3),
                (2, 3..4, 0..1),
                (3, 4..6, 0..2),
                (3, 6..8, 2..4),
                (3, 8..9, 4..5),
                (3, 10..11, 6..7),
            ]
        );
    }

    #[test]
    fn what_nobody_waits_for_at_a_failing_origin_is_put_off() {
        let origin = |name: &str| ManifestOrigin::whole(AccessDomain::new("n", None), name);
        let mut builder = ManifestBuilder::new(vec![origin("s3://a"), origin("s3://b")]);
        for (index, origin) in [0, 1, 0, 1].into_iter().enumerate() {
            builder.push(ListedObject {
                origin,
                path: index.to_string(),
                size: 1,
                modified: 0,
                validator: Validator::Modified(1),
                unlisted: false,
            });
        }
        let manifest = builder.finish().unwrap().0;
        let mut plan = Plan::new((0..4).collect());
        plan.fails(0, []);
        plan.urge(&RoaringBitmap::from([2]));
        let next = |plan: &mut Plan| {
            plan.next(&manifest, &InFlight::default(), false).map(|(run, urgent)| (run.file, urgent))
        };
        assert_eq!(
            [next(&mut plan), next(&mut plan), next(&mut plan)],
            [Some((2, true)), Some((1, false)), Some((3, false))]
        );
        assert!(next(&mut plan).is_none() && plan.has_put_off());
        assert_eq!(plan.missing(), 1);
        plan.urge(&RoaringBitmap::from([0]));
        assert_eq!(next(&mut plan), Some((0, true)));
        assert!(!plan.has_put_off());
        // Of what was put off all comes when the origin answers, but what it has refused.
        let mut plan = Plan::new((0..4).collect());
        assert_eq!(next(&mut plan), Some((0, false)));
        plan.fails(0, std::iter::once(0..1));
        assert_eq!(
            [next(&mut plan), next(&mut plan), next(&mut plan)],
            [Some((1, false)), Some((3, false)), None]
        );
        plan.answers(0);
        assert_eq!([next(&mut plan), next(&mut plan)], [Some((2, false)), None]);
        assert!(plan.has_put_off() && plan.missing() == 1);
        plan.urge(&RoaringBitmap::from([0]));
        assert_eq!((next(&mut plan), plan.has_put_off()), (Some((0, true)), false));
    }

    #[test]
    fn what_somebody_waits_for_comes_first_and_once() {
        let manifest = manifest(&[20 * BLOCK_SIZE, BLOCK_SIZE]);
        let mut plan = Plan::new((0..20).collect());
        plan.urge(&[7, 8, 12, 20].into_iter().collect());
        let mut next = || plan.next(&manifest, &InFlight::default(), false).map(|(run, _)| run.numbers);
        assert_eq!([next(), next(), next()], [Some(7..9), Some(12..13), Some(0..2)]);
        plan.urge(&[7, 12].into_iter().collect());
        assert!(!plan.has_urgent(), "what is handed out is under way");
        plan.urge(&[3].into_iter().collect());
        let mut next = || plan.next(&manifest, &InFlight::default(), true).map(|(run, _)| run.numbers);
        assert_eq!([next(), next()], [Some(3..4), None]);
    }

    #[test]
    fn what_is_under_way_for_another_want_is_not_asked_for_twice() {
        let manifest = manifest(&[BLOCK_SIZE, BLOCK_SIZE]);
        let all: RoaringBitmap = (0..2).collect();
        let (mut one, mut other, mut in_flight) =
            (Plan::new(all.clone()), Plan::new(all), InFlight::default());
        let run = one.next(&manifest, &in_flight, false).unwrap().0;
        in_flight.begin(&run);
        assert_eq!(other.next(&manifest, &in_flight, false).unwrap().0.numbers, 1..2);
        assert!(other.waits_for_others());
        other.urge(&[0].into_iter().collect());
        assert!(other.next(&manifest, &in_flight, true).is_none(), "it is still under way");
        in_flight.end(&run);
        other.fetched(run.numbers);
        assert!(!other.waits_for_others() && other.missing() == 0);
    }

    #[test]
    fn what_is_only_shown_is_handed_out_when_somebody_waits_and_then_again() {
        let manifest = manifest_showing(&[BLOCK_SIZE, 5 * BLOCK_SIZE], &[1]);
        let in_flight = InFlight::default();
        let mut plan = Plan::new((0..1).collect()).showing(manifest.unlisted_blocks().collect());
        assert_eq!(plan.next(&manifest, &in_flight, false).unwrap().0.numbers, 0..1);
        assert!(plan.next(&manifest, &in_flight, false).is_none(), "nobody waits for the rest");
        let blocks: RoaringBitmap = [2, 3].into_iter().collect();
        for _ in 0..2 {
            plan.urge(&blocks);
            let (run, urgent) = plan.next(&manifest, &in_flight, true).unwrap();
            assert_eq!((run.numbers.clone(), run.indices(), urgent, run.unlisted), (2..4, 1..3, true, true));
            plan.urge(&blocks);
            assert!(!plan.has_urgent(), "it is under way");
            plan.ended(&run);
            plan.put_back(run.numbers.clone());
            plan.fails(0, [run.numbers]);
            assert!(!plan.has_more() && !plan.has_put_off() && plan.missing() == 0);
        }
        plan.urge(&blocks);
        let (run, _) = plan.next(&manifest, &in_flight, true).unwrap();
        plan.ended(&run);
        plan.put_aside(&manifest, &run, run.numbers.clone());
        plan.urge(&[5].into_iter().collect());
        assert!(!plan.has_urgent() && plan.has_changed() && plan.missing() == 0);
        assert_eq!(plan.changed(&blocks), blocks);
    }

    #[test]
    fn a_changed_object_is_put_aside_whole() {
        let manifest = manifest(&[20 * BLOCK_SIZE, BLOCK_SIZE]);
        let mut plan = Plan::new((0..21).collect());
        let run = plan.next(&manifest, &InFlight::default(), false).unwrap().0;
        plan.put_aside(&manifest, &run, run.numbers.clone());
        assert_eq!(plan.next(&manifest, &InFlight::default(), false).unwrap().0.numbers, 20..21);
        assert!(plan.next(&manifest, &InFlight::default(), false).is_none());
        assert!(plan.has_changed());
        assert_eq!(plan.missing(), 20);
    }

    proptest! {
        #[test]
        fn every_missing_block_is_handed_out_once(
            sizes in prop::collection::vec(0..12 * BLOCK_SIZE, 1..20),
            missing in prop::collection::btree_set(0u32..250, 0..100),
        ) {
            let manifest = manifest(&sizes);
            let mut plan = Plan::new(missing.iter().copied().collect());
            let mut handed = Vec::new();
            while let Some((run, _)) = plan.next(&manifest, &InFlight::default(), false) {
                let file = manifest.file(run.file).unwrap();
                prop_assert!(file.blocks().contains(&run.numbers.start) && run.numbers.end <= file.blocks().end);
                prop_assert!(run.numbers.len() <= LONGEST_RUN as usize);
                handed.extend(run.numbers);
            }
            let expected: Vec<u32> = missing.into_iter().filter(|number| *number < manifest.blocks()).collect();
            prop_assert_eq!(handed, expected);
        }
    }
}
