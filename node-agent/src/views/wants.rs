//! What volumes wait for. The extender orders it too, as soon as it sees the pod
//! bound; but a volume must not hang on that.

use super::Inner;
use hearth_core::wire::report::Want;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long something is fetched after kubelet last asked for it: kubelet asks again
/// at least every two minutes for as long as the pod is there.
pub(super) const KEPT: Duration = Duration::from_secs(300);

/// How long a volume wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// For as long as kubelet keeps asking.
    Forgotten,
    /// A FUSE view reads it.
    Unpublished,
}

/// What one volume waits for.
pub(super) struct Wanted {
    want: Want,
    asked: Instant,
    until: Until,
}

impl Inner {
    pub(super) fn want(&self, volume: String, want: Want, until: Until) {
        self.wanted.lock().insert(volume, Wanted { want, asked: Instant::now(), until });
        self.tell();
    }

    pub(super) fn unwant(&self, volume: &str) {
        if self.wanted.lock().remove(volume).is_some() {
            self.tell();
        }
    }

    pub(super) fn expire_wants(&self) {
        self.wanted
            .lock()
            .retain(|_, wanted| wanted.until == Until::Unpublished || wanted.asked.elapsed() < KEPT);
        self.tell();
    }

    fn tell(&self) {
        let wants: Vec<Want> = self.wanted.lock().values().map(|wanted| wanted.want.clone()).collect();
        self.wants.send_if_modified(|before| {
            let changed = *before != wants;
            *before = wants;
            changed
        });
    }
}

/// What the extender orders and what volumes wait for, as one. Ends when either ends.
pub async fn together(
    mut ordered: watch::Receiver<Vec<Want>>,
    mut waited: watch::Receiver<Vec<Want>>,
    all: watch::Sender<Vec<Want>>,
) {
    loop {
        let mut wants = ordered.borrow_and_update().clone();
        wants.extend(waited.borrow_and_update().iter().cloned());
        all.send_replace(wants);
        let changed = tokio::select! {
            changed = ordered.changed() => changed,
            changed = waited.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
