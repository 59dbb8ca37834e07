//! Looks after the disks below the tiers: each by itself, since one that hangs must not keep
//! anybody from the others.

use crate::store::Tier;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a disk is probed.
const LOOK: Duration = Duration::from_secs(10);
/// A probe that takes longer does not come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Probes one tier's disk until the agent ends.
pub async fn look_after(tier: Tier, shutdown: CancellationToken) -> anyhow::Result<()> {
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let probed = tier.clone();
        let mut probe = tokio::task::spawn_blocking(move || probed.look_after());
        let answered = async {
            if tokio::time::timeout(PATIENCE, &mut probe).await.is_err() {
                tier.hangs(PATIENCE.as_secs());
                // Not one more beside it.
                let _ = probe.await;
            }
        };
        let _ = shutdown.run_until_cancelled(answered).await;
    }
    Ok(())
}
