//! What is kept of all jobs is what each of them says.

use super::super::plan::InFlight;
use super::super::plan::tests::manifest_showing;
use super::super::quota::{Counted, Quotas};
use super::super::source::{FillError, Prepared, Source};
use super::*;
use crate::origin::OriginError;
use proptest::prelude::*;
use roaring::RoaringBitmap;
use std::sync::Arc;
use std::time::Duration;

fn want(manifest: u8, glob: u8, priority: i32) -> Want {
    Want {
        namespace: "ns".into(),
        dataset: "d".into(),
        uid: "u".into(),
        generation: i64::from(priority),
        manifest: ManifestHash([manifest; 32]),
        globs: (0..glob).map(|glob| glob.to_string()).collect(),
        priority,
    }
}

fn down() -> FillError {
    FillError::Origin(OriginError::Unavailable("it is down".into()))
}

#[derive(Clone, Copy, Debug)]
enum Fails {
    Down,
    Changed,
    Full,
}

fn error(fails: Fails) -> FillError {
    match fails {
        Fails::Down => down(),
        Fails::Changed => FillError::Origin(OriginError::Changed("it is another".into())),
        Fails::Full => FillError::Quota(1),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Want(Vec<(u8, u8, i32)>),
    /// The first that is due begins to be prepared.
    Begin,
    /// The so-manieth that is being prepared is; with these blocks, or not at all.
    Prepared(usize, Option<Vec<u32>>),
    /// The so-manieth hands out a request, urgent ones alone or any.
    HandOut(usize, bool),
    /// The so-manieth request ends, with its blocks or in one of the ways to fail.
    End(usize, Option<Fails>),
    /// The dataset's quota, as it is counted.
    Quota(u64),
    Urge(u8, u32),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => prop::collection::vec((0u8..3, 0u8..2, 0i32..3), 0..6).prop_map(Step::Want),
        3 => Just(Step::Begin),
        3 => (0usize..8, prop::option::weighted(0.7, prop::collection::vec(0u32..5, 0..6)))
            .prop_map(|(which, blocks)| Step::Prepared(which, blocks)),
        3 => (0usize..8, any::<bool>()).prop_map(|(which, only_urgent)| Step::HandOut(which, only_urgent)),
        3 => (0usize..8, prop::option::of(prop_oneof![Just(Fails::Down), Just(Fails::Changed), Just(Fails::Full)]))
            .prop_map(|(which, fails)| Step::End(which, fails)),
        1 => (0u64..4).prop_map(Step::Quota),
        1 => (0u8..3, 0u32..6).prop_map(|(hash, block)| Step::Urge(hash, block)),
        1 => (0u64..90).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..120)
}

fn check(jobs: &Jobs) {
    let all = || jobs.jobs.iter().map(|(number, listed)| (*number, Marks::of(&listed.job)));
    let order = |is_in: fn(&Marks) -> bool| -> BTreeSet<Turn> {
        all().filter(|(_, marks)| is_in(marks)).map(|(number, marks)| marks.turn(number)).collect()
    };
    assert_eq!(jobs.more, order(|marks| marks.has_more));
    assert_eq!(jobs.urgent, order(|marks| marks.has_urgent));
    assert_eq!(jobs.full, order(|marks| marks.is_full));
    assert_eq!(jobs.failing, order(|marks| marks.fails));
    assert_eq!(jobs.done(), all().filter(|(_, marks)| marks.is_done).count());
    assert_eq!(jobs.missing(), all().map(|(_, marks)| marks.missing).sum::<u64>());
    for (number, marks) in all() {
        let is_later = marks.due.is_some_and(|at| jobs.later.contains(&(at, number)));
        let is_due = jobs.due.contains(&marks.turn(number));
        assert_eq!(marks.due.is_some(), is_later != is_due, "it waits once, if at all");
    }
    let waiting = all().filter(|(_, marks)| marks.due.is_some()).count();
    assert_eq!(jobs.later.len() + jobs.due.len(), waiting, "nobody else waits");
    let numbers: BTreeSet<u64> = jobs.numbers.values().copied().collect();
    assert_eq!(numbers, jobs.jobs.keys().copied().collect());
}

proptest! {
    #[test]
    fn what_is_kept_of_all_is_what_each_says(steps in steps()) {
        let (mut jobs, mut now) = (Jobs::default(), Instant::now());
        let source = Source::of(Arc::new(manifest_showing(&[1; 6], &[5])));
        let (mut preparing, mut running) = (Vec::new(), Vec::new());
        let (mut in_flight, mut quotas) = (InFlight::default(), Quotas::default());
        for step in steps {
            match step {
                Step::Want(wants) => {
                    let wants: Vec<Want> = wants.iter().map(|(hash, glob, priority)| want(*hash, *glob, *priority)).collect();
                    jobs.want(wants, now);
                }
                Step::Begin => {
                    if let Some(number) = jobs.due(now) {
                        prop_assert!(jobs.get(number).unwrap().due().is_some_and(|at| at <= now));
                        jobs.change(number, Job::begin_preparing);
                        preparing.push(number);
                    }
                }
                Step::Prepared(which, blocks) if which < preparing.len() => {
                    let outcome = blocks.map(|blocks| Prepared {
                        source: source.clone(),
                        missing: blocks.into_iter().collect(),
                        shown: RoaringBitmap::from_iter([5]),
                        counted: None,
                    });
                    jobs.change(preparing.remove(which), |job| job.prepared(outcome.ok_or_else(down), now));
                }
                Step::HandOut(which, only_urgent) => {
                    let number = jobs.jobs.keys().nth(which).copied();
                    let next = number.and_then(|number| {
                        let next = |job: &mut Job| job.next(&in_flight, &mut quotas, only_urgent, now);
                        Some((number, jobs.change(number, next)??))
                    });
                    if let Some((number, request)) = next {
                        prop_assert!(request.urgent || !only_urgent);
                        in_flight.begin(&request.run);
                        running.push((number, request));
                    }
                }
                Step::End(which, fails) if which < running.len() => {
                    let (number, request) = running.remove(which);
                    in_flight.end(&request.run);
                    let done = match fails {
                        None => request.run.numbers.clone().collect(),
                        Some(_) => RoaringBitmap::new(),
                    };
                    let error = fails.map(error);
                    jobs.change(number, |job| job.ended(&request.run, request.urgent, &done, error.as_ref(), now));
                }
                Step::Quota(quota) => quotas.counted("u", Some(Counted { quota, held: 0 })),
                Step::Urge(hash, block) => {
                    for number in jobs.of(ManifestHash([hash; 32])) {
                        prop_assert_eq!(jobs.get(number).unwrap().want.manifest, ManifestHash([hash; 32]));
                        jobs.change(number, |job| job.urge(&RoaringBitmap::from_iter([block]), now));
                    }
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Prepared(..) | Step::End(..) => {}
            }
            check(&jobs);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_comes_by_its_priority_and_then_as_it_was_wanted() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let new = jobs.want(vec![want(1, 0, 1), want(2, 0, 5), want(1, 0, 3)], now);
    assert_eq!(new.len(), 2, "one key is one job");
    let late = jobs.want(vec![want(1, 0, 3), want(2, 0, 5), want(3, 0, 5), want(0, 0, 3)], now);
    assert_eq!(late.len(), 2);
    let mut came = Vec::new();
    while let Some(number) = jobs.due(now) {
        jobs.change(number, Job::begin_preparing);
        came.push(jobs.get(number).unwrap().want.manifest.0[0]);
    }
    assert_eq!(came, [2, 3, 1, 0]);
    assert_eq!(jobs.next_due(), None);
    // What went and comes again is another one.
    jobs.want(Vec::new(), now);
    assert_eq!((jobs.len(), jobs.change(new[0], |_| ())), (0, None));
    assert!(!jobs.want(vec![want(1, 0, 1)], now).contains(&new[0]));
}
