//! When a want is looked at again.

use super::*;
use hearth_core::manifest::ManifestHash;

fn want() -> Want {
    Want {
        namespace: "ns".into(),
        dataset: "d".into(),
        uid: "u".into(),
        generation: 1,
        manifest: ManifestHash([1; 32]),
        globs: vec![],
        priority: 1,
    }
}

fn denied() -> FillError {
    FillError::Origin(OriginError::Denied("no".into()))
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer_until_the_spec_changes() {
    let mut now = Instant::now();
    let mut job = Job::new(want(), now);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(job.due(), Some(now));
        job.begin_preparing();
        assert_eq!(job.due(), None);
        job.prepared(Err(denied()), now);
        assert_eq!(job.troubles().count(), 1);
        pauses.push(job.due().unwrap() - now);
        now = job.due().unwrap();
    }
    assert!(pauses[0] <= Duration::from_secs(2) && pauses[9] >= Duration::from_secs(60), "{pauses:?}");
    let before = now - Duration::from_secs(1);
    job.update(Want { priority: 7, ..want() }, before);
    assert_eq!(job.due(), Some(now), "another priority mends nothing");
    job.update(Want { generation: 2, ..want() }, before);
    assert_eq!(job.due(), Some(before));
}

#[tokio::test(start_paused = true)]
async fn while_somebody_waits_pauses_are_short() {
    let now = Instant::now();
    let mut job = Job::new(want(), now);
    for _ in 0..10 {
        job.begin_preparing();
        job.prepared(Err(denied()), now + Duration::from_secs(3600));
    }
    let blocks = RoaringBitmap::from_iter([1]);
    assert!(job.urge(&blocks, now).is_empty());
    assert_eq!(job.due(), Some(now + HURRIED));
    // Asking again does not put it off.
    job.urge(&blocks, now + Duration::from_secs(4));
    assert_eq!(job.due(), Some(now + HURRIED));
}
