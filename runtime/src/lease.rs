//! Leader election by a Lease.
//!
//! A holder counts on its Lease only from the moment it *sent* a renewal that
//! succeeded, and steps down by its own monotonic clock before anybody else may take
//! over. A candidate takes over only when the Lease has not changed for its whole
//! duration as *observed* by the candidate: no two clocks are ever compared.

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How an election runs.
#[derive(Clone, Debug)]
pub struct Election {
    /// Name of the Lease.
    pub lease: String,
    /// Who takes part; unique among the candidates.
    pub identity: String,
    /// How long a Lease is good for without a renewal.
    pub duration: Duration,
    /// How often it is renewed, or looked at.
    pub period: Duration,
}

impl Election {
    /// 15 seconds' Lease, renewed every 3: as Kubernetes' own components have it,
    /// with some more room for a slow API server.
    pub fn new(lease: &str, identity: &str) -> Self {
        Self {
            lease: lease.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            period: Duration::from_secs(3),
        }
    }

    /// Runs until `shutdown`, keeping `leading` true while this candidate leads, and
    /// releases the Lease at the end.
    pub async fn run(
        self,
        api: Api<Lease>,
        leading: watch::Sender<bool>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut candidate = Candidate::default();
        loop {
            let sent = Instant::now();
            // A try may not outlast the leadership that it is to renew.
            let attempt = tokio::time::timeout(self.period * 2, self.attempt(&api, &mut candidate));
            let outcome = tokio::select! {
                outcome = attempt => outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server did not answer in time"))),
                () = shutdown.cancelled() => break,
            };
            match outcome {
                Ok(true) => candidate.leads_until = Some(sent + self.duration - self.period),
                Ok(false) => candidate.leads_until = None,
                Err(error) => tracing::debug!(lease = self.lease, "lease: {error:#}"),
            }
            let leads = candidate.leads_until.is_some_and(|until| Instant::now() < until);
            leading.send_if_modified(|before| {
                let changed = *before != leads;
                if changed {
                    tracing::info!(lease = self.lease, leads, "leadership changed");
                }
                *before = leads;
                changed
            });
            let pause = tokio::time::sleep(jittered(self.period, sent));
            let demotion = async {
                match candidate.leads_until {
                    Some(until) if leads => tokio::time::sleep_until(until).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = demotion => {}
                () = shutdown.cancelled() => break,
            }
        }
        let led = leading.send_replace(false);
        if led {
            let release = tokio::time::timeout(self.period, self.release(&api));
            if let Ok(Err(error)) | Err(error) = release.await.map_err(anyhow::Error::from) {
                tracing::debug!(
                    lease = self.lease,
                    "the lease was not released and runs out by itself: {error:#}"
                );
            }
        }
        Ok(())
    }

    /// One try to get or keep the Lease; whether it is ours now.
    async fn attempt(&self, api: &Api<Lease>, candidate: &mut Candidate) -> anyhow::Result<bool> {
        let Some(lease) = api.get_opt(&self.lease).await.context("the lease cannot be read")? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(0, None)),
            };
            return settled(api.create(&PostParams::default(), &lease).await.map(|_| ()));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let step = decide(&self.identity, &spec, candidate.unchanged_for(&lease));
        let transitions = spec.lease_transitions.unwrap_or(0);
        let next = match step {
            Step::Wait => return Ok(false),
            Step::Renew => self.spec(transitions, spec.acquire_time),
            Step::Take => self.spec(transitions.saturating_add(1), None),
        };
        // The resourceVersion of what was read goes along: whoever was faster wins.
        let lease = Lease { metadata: lease.metadata, spec: Some(next) };
        settled(api.replace(&self.lease, &PostParams::default(), &lease).await.map(|_| ()))
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self, api: &Api<Lease>) -> anyhow::Result<()> {
        let Some(mut lease) = api.get_opt(&self.lease).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            api.replace(&self.lease, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// What a candidate remembers.
#[derive(Default)]
struct Candidate {
    leads_until: Option<Instant>,
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// For how long the Lease has been as it is, by this candidate's own clock.
    fn unchanged_for(&mut self, lease: &Lease) -> Duration {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let now = Instant::now();
        match &self.seen {
            Some((seen, since)) if *seen == version => now - *since,
            _ => {
                self.seen = Some((version, now));
                Duration::ZERO
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Renew,
    Take,
    Wait,
}

fn decide(identity: &str, spec: &LeaseSpec, unchanged_for: Duration) -> Step {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let good_for = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
    match holder {
        _ if holder == identity => Step::Renew,
        "" => Step::Take,
        _ if unchanged_for >= good_for => Step::Take,
        _ => Step::Wait,
    }
}

/// Whoever was faster has it: that is an outcome, not an error.
fn settled(result: kube::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error).context("the lease cannot be written"),
    }
}

/// Up to a quarter more, so that candidates do not come all at once.
fn jittered(period: Duration, seed: Instant) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(seed.elapsed().as_nanos());
    period + (period / 4).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_nobody_renews_it() {
        let seconds = Duration::from_secs;
        assert_eq!(decide("a", &held_by("a"), seconds(100)), Step::Renew);
        assert_eq!(decide("b", &held_by("a"), seconds(0)), Step::Wait);
        assert_eq!(decide("b", &held_by("a"), Duration::from_millis(14_999)), Step::Wait);
        assert_eq!(decide("b", &held_by("a"), seconds(15)), Step::Take);
        assert_eq!(decide("b", &held_by(""), seconds(0)), Step::Take);
        assert_eq!(decide("b", &LeaseSpec::default(), seconds(0)), Step::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn the_observers_clock_counts_and_a_renewal_starts_it_again() {
        let lease = |version: &str| Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: None,
        };
        let mut candidate = Candidate::default();
        assert_eq!(candidate.unchanged_for(&lease("1")), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(candidate.unchanged_for(&lease("1")), Duration::from_secs(9));
        assert_eq!(candidate.unchanged_for(&lease("2")), Duration::ZERO);
    }
}
