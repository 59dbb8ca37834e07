//! What the API server says: one file per kind of object, each of which feeds the
//! index.

mod datasets;
mod evictions;
mod follow;
mod known;
mod nodes;
mod pending;
mod pods;
mod runs;
mod warmups;

pub(crate) use datasets::{current_of, held_of, is_ending, name_of};
pub(crate) use follow::{Follower, follow};
pub use known::{HoldingPod, Known, WaitingPod};
pub(crate) use runs::owner_of;

use crate::events::Recorder;
use crate::state::State;
use std::sync::Arc;
use tokio::sync::watch::{Receiver, channel};
use tokio_util::sync::CancellationToken;

/// The watches of all kinds.
pub struct Watches {
    /// The API server.
    pub client: kube::Client,
    /// Namespace of the agents' pods.
    pub namespace: String,
    /// What they feed.
    pub state: Arc<State>,
    /// What they tell of placements.
    pub recorder: Recorder,
    /// What they leave for the leader's duties.
    pub known: Arc<Known>,
    /// Whether this replica leads.
    pub leads: Receiver<bool>,
}

impl Watches {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { client, namespace, state, recorder, known, leads } = self;
        let (pods_done, pods_synced) = channel(false);
        let (nodes_done, nodes_synced) = channel(false);
        let (datasets_done, datasets_synced) = channel(false);
        let (warmups_done, warmups_synced) = channel(false);
        let pods = pods::Pods::new(namespace, state.clone(), recorder, known.clone(), leads);
        let nodes = nodes::Nodes::new(state.clone());
        let datasets = datasets::Datasets::new(state.clone(), known.clone());
        let warmups = warmups::Warmups::new(state.clone(), known.clone());
        // Nothing else waits for these.
        let (evictions_done, _) = channel(false);
        let evictions = evictions::Evictions::new(state.clone(), known);
        let pods = async {
            // Whose Dataset the claim of a pod is of, the Datasets say.
            if shutdown.run_until_cancelled(all_synced([datasets_synced.clone()])).await.is_none() {
                return Ok(());
            }
            follow(client.clone(), pods, pods_done, shutdown.clone()).await
        };
        let warmups = async {
            // A warm-up chooses its nodes again with every node and dataset that comes:
            // once all are known, that is done once.
            let all = all_synced([nodes_synced.clone(), datasets_synced.clone()]);
            if shutdown.run_until_cancelled(all).await.is_none() {
                return Ok(());
            }
            follow(client.clone(), warmups, warmups_done, shutdown.clone()).await
        };
        let synced = async {
            let all = [pods_synced, nodes_synced.clone(), datasets_synced.clone(), warmups_synced];
            if shutdown.run_until_cancelled(all_synced(all)).await.is_some() {
                state.set_agents(|agents| agents.synced = true);
                tracing::info!("the API server's objects have all been seen");
            }
            Ok(())
        };
        tokio::try_join!(
            pods,
            follow(client.clone(), nodes, nodes_done, shutdown.clone()),
            follow(client.clone(), datasets, datasets_done, shutdown.clone()),
            follow(client.clone(), evictions, evictions_done, shutdown.clone()),
            warmups,
            synced,
        )?;
        Ok(())
    }
}

async fn all_synced<const N: usize>(kinds: [Receiver<bool>; N]) {
    for mut kind in kinds {
        if kind.wait_for(|synced| *synced).await.is_err() {
            // Its watch has ended, which ends the others too.
            std::future::pending::<()>().await;
        }
    }
}
