//! A claim `hearth-NAME` for every Dataset, in its own namespace and in those that it is
//! shared with, and a volume for each, for as long as the Dataset is there.
//!
//! What is known of one name is planned for when it changes (`world`, `plan`), a step at a
//! time: what a step brings about is seen, which is the reason to plan the next. So it
//! does not matter who was interrupted where.

mod group;
mod objects;
mod plan;
mod retries;
#[cfg(test)]
mod tests;
mod watch;
mod world;
mod write;

use super::Duties;
use crate::watch::follow;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plan::{Action, Problem};
use retries::Retries;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;
use watch::Shared;
use write::Trouble;

/// Names that are worked on at one time.
const NAMES: usize = 8;
/// Writes for one name at one time.
const WRITES: usize = 4;
/// Changes of Datasets within so long are looked at together: most are of their status.
const COALESCE: Duration = Duration::from_millis(200);

impl Duties {
    pub(super) async fn claims(&self) {
        // To a leader that does not know all Datasets yet, claims would seem superfluous.
        self.synced().await;
        let shared = Arc::new(Shared::default());
        let (claims_done, claims_synced) = channel::channel(false);
        let (volumes_done, volumes_synced) = channel::channel(false);
        let (namespaces_done, namespaces_synced) = channel::channel(false);
        // They end when they are dropped, with the leadership.
        let (client, never) = (&self.client, CancellationToken::new());
        let watches = async {
            tokio::try_join!(
                follow(client.clone(), watch::Claims(shared.clone()), claims_done, never.clone()),
                follow(client.clone(), watch::Volumes(shared.clone()), volumes_done, never.clone()),
                follow(client.clone(), watch::Namespaces(shared.clone()), namespaces_done, never.clone()),
            )
        };
        let work = async {
            for mut synced in [claims_synced, volumes_synced, namespaces_synced] {
                if synced.wait_for(|synced| *synced).await.is_err() {
                    // Its watch has ended, and that is told below.
                    std::future::pending::<()>().await;
                }
            }
            // The first look comes before any work, or all claims would seem superfluous.
            let changes = self.known.dataset_changes();
            let mut datasets = watch::Datasets::default();
            shared.change(|world| datasets.look(self.known.datasets(), world));
            tokio::join!(self.look_at_datasets(&shared, datasets, changes), self.work(&shared));
        };
        tokio::select! {
            ended = watches => if let Err(error) = ended {
                tracing::warn!("claims cannot be kept in order: {error}");
            },
            () = work => {}
        }
    }

    async fn look_at_datasets(
        &self,
        shared: &Shared,
        mut datasets: watch::Datasets,
        mut changes: channel::Receiver<()>,
    ) {
        while changes.changed().await.is_ok() {
            tokio::time::sleep(COALESCE).await;
            changes.mark_unchanged();
            shared.change(|world| datasets.look(self.known.datasets(), world));
        }
    }

    async fn work(&self, shared: &Shared) {
        let mut running = FuturesUnordered::new();
        let mut busy: HashSet<String> = HashSet::new();
        let mut retries = Retries::default();
        loop {
            while busy.len() < NAMES {
                let Some((name, plan)) = shared.read(|world| world.next(&busy)) else { break };
                plan.problems.into_iter().for_each(|problem| self.tell(problem));
                busy.insert(name.clone());
                let again = retries.has(&name);
                running.push(async move {
                    let well = self.carry_out(&name, plan.actions, again).await;
                    (name, well)
                });
            }
            tokio::select! {
                Some((name, well)) = running.next(), if !running.is_empty() => {
                    busy.remove(&name);
                    match well {
                        true => retries.succeeded(&name),
                        false => retries.failed(&name),
                    }
                }
                name = retries.due() => shared.read(|world| world.mark(name)),
                () = shared.changed() => {}
            }
        }
    }

    /// Whether all went well.
    async fn carry_out(&self, name: &str, actions: Vec<Action>, again: bool) -> bool {
        let writes = futures::stream::iter(actions).map(|action| async move {
            let outcome = write::carry_out(&self.client, &action).await;
            if let Err(trouble) = &outcome {
                tracing::debug!(dataset = name, ?action, ?trouble, "a claim is not as it should be yet");
            }
            outcome
        });
        let mut well = true;
        let mut outcomes = std::pin::pin!(writes.buffer_unordered(WRITES));
        while let Some(outcome) = outcomes.next().await {
            let Err(trouble) = outcome else { continue };
            well = false;
            match trouble {
                Trouble::Outdated => {}
                Trouble::Taken(place, note) => {
                    self.tell(Problem { dataset: place.dataset, uid: place.uid, note });
                }
                // What is refused once may be refused because its namespace is about to go.
                Trouble::Refused(place, note) if again => {
                    self.tell(Problem { dataset: place.dataset, uid: place.uid, note });
                }
                Trouble::Refused(_, why) | Trouble::Failed(why) => tracing::warn!(dataset = name, "{why}"),
            }
        }
        well
    }

    fn tell(&self, problem: Problem) {
        let Problem { dataset, uid, note } = problem;
        self.recorder.claim_problem(&dataset, &uid, note);
    }
}
