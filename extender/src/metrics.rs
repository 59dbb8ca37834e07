//! The extender's metrics: all names stand here.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::time::Instant;

/// The extender's metrics.
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,
    /// kube-scheduler's calls by verb and outcome.
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    /// Nodes named in kube-scheduler's calls.
    pub candidates: Histogram,
    /// Nodes that a call's answer gave a score to or let pass.
    pub taken: Histogram,
    /// Percent of its bytes that a pod found on its node.
    pub bound_warmth: Histogram,
    /// Bytes that bound pods asked for.
    pub requested_bytes: IntCounter,
    /// Bytes of those that their nodes held.
    pub local_bytes: IntCounter,
    /// Reports by outcome.
    pub reports: IntCounterVec,
    /// Seconds to apply a report.
    pub report_seconds: Histogram,
    /// Reports that could not be applied.
    pub resyncs: IntCounter,
    /// Nodes whose agent reports.
    pub live_agents: IntGauge,
    /// Nodes that fell silent.
    pub silent_agents: IntGauge,
    /// Nodes whose agent should report.
    pub expected_agents: IntGauge,
    /// Datasets by whether their manifest is here.
    pub datasets: IntGaugeVec,
    /// Nodes that hold a dataset, by how much of it; see [`crate::gauges::DATASETS_SHOWN`].
    pub dataset_nodes: IntGaugeVec,
    /// Bytes of a dataset's current version.
    pub dataset_bytes: IntGaugeVec,
    /// Datasets that went after they were deleted, by outcome.
    pub removals: IntCounterVec,
    /// Notices of stores by outcome.
    pub notices: IntCounterVec,
    /// Whether this replica holds the Lease.
    pub leader: IntGauge,
    /// Times that kube-scheduler was told to try rejected pods again.
    pub nudges: IntCounter,
    /// Pods that wait for a warm node.
    pub waiting_pods: IntGauge,
    /// Events by reason and outcome.
    pub events: IntCounterVec,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Answered,
    /// Refused with a sentence.
    Refused,
    /// We failed.
    Failed,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Registers all of them.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let seconds =
            || vec![0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.3, 1.0];
        let nodes = || vec![0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];
        let tenths = || (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect::<Vec<_>>();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            registered(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let metrics = Self {
            calls: counters(
                "hearth_extender_calls_total",
                "Calls of kube-scheduler by verb and outcome.",
                &["verb", "outcome"],
            )?,
            call_seconds: registered(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "hearth_extender_call_duration_seconds",
                        "Time from a call's whole body to its answer.",
                    )
                    .buckets(seconds()),
                    &["verb"],
                )?,
            )?,
            candidates: histogram(
                "hearth_extender_candidate_nodes",
                "Nodes that kube-scheduler named in a call.",
                nodes(),
            )?,
            taken: histogram(
                "hearth_extender_taken_nodes",
                "Nodes that an answer gave a score to or let pass.",
                nodes(),
            )?,
            bound_warmth: histogram(
                "hearth_extender_bound_pod_warmth_ratio",
                "Part of a bound pod's bytes that its node held when it was bound.",
                tenths(),
            )?,
            requested_bytes: counter(
                "hearth_extender_bound_pod_requested_bytes_total",
                "Bytes that bound pods asked for.",
            )?,
            local_bytes: counter(
                "hearth_extender_bound_pod_local_bytes_total",
                "Bytes that bound pods asked for and their nodes held.",
            )?,
            reports: counters("hearth_extender_reports_total", "Agents' reports by outcome.", &["outcome"])?,
            report_seconds: histogram(
                "hearth_extender_report_duration_seconds",
                "Time to decode and apply a report, without the time that its reply is held.",
                seconds(),
            )?,
            resyncs: counter(
                "hearth_extender_resyncs_total",
                "Reports that could not be applied and were answered with a wish for a snapshot.",
            )?,
            live_agents: gauge("hearth_extender_live_agents", "Nodes whose agent reports.")?,
            silent_agents: gauge(
                "hearth_extender_silent_agents",
                "Nodes that reported once and are silent now.",
            )?,
            expected_agents: gauge("hearth_extender_expected_agents", "Nodes that have an agent's pod.")?,
            datasets: gauges("hearth_extender_datasets", "Datasets by what is here of them.", &["state"])?,
            dataset_nodes: gauges(
                "hearth_extender_dataset_nodes",
                "Live nodes that hold a dataset, by whether they hold the whole of it or a part.",
                &["namespace", "dataset", "held"],
            )?,
            dataset_bytes: gauges(
                "hearth_extender_dataset_bytes",
                "Bytes of a dataset's current version.",
                &["namespace", "dataset"],
            )?,
            removals: counters(
                "hearth_extender_removals_total",
                "Datasets that were let go after they were deleted, by whether all nodes had given up their bytes.",
                &["outcome"],
            )?,
            notices: counters(
                "hearth_extender_notices_total",
                "Notices that stores sent of changed objects: taken, about no Dataset, or refused.",
                &["outcome"],
            )?,
            leader: gauge("hearth_extender_leader", "1 when this replica holds the Lease, else 0.")?,
            nudges: counter(
                "hearth_extender_nudges_total",
                "Times that kube-scheduler was told to try rejected pods again.",
            )?,
            waiting_pods: gauge("hearth_extender_waiting_pods", "Pending pods that insist on a warm node.")?,
            events: counters(
                "hearth_extender_events_total",
                "Events by reason and outcome.",
                &["reason", "outcome"],
            )?,
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series that exist from the start, so that a rate over them is 0 and not absent.
    fn start_at_zero(&self) {
        for verb in ["filter", "prioritize", "preempt"] {
            self.call_seconds.with_label_values(&[verb]);
            for outcome in [Outcome::Answered, Outcome::Refused, Outcome::Failed] {
                self.calls.with_label_values(&[verb, outcome.label()]);
            }
        }
        for outcome in ["applied", "resync", "refused", "unauthorized"] {
            self.reports.with_label_values(&[outcome]);
        }
        for outcome in ["done", "given-up"] {
            self.removals.with_label_values(&[outcome]);
        }
        for outcome in ["taken", "unconcerned", "refused"] {
            self.notices.with_label_values(&[outcome]);
        }
        for state in ["listed", "unlisted", "manifest-missing", "deleting"] {
            self.datasets.with_label_values(&[state]);
        }
    }

    /// Observes a call of kube-scheduler from now to its end.
    pub fn call(&self, verb: &'static str) -> CallObserver<'_> {
        CallObserver { metrics: self, verb, started: Instant::now(), outcome: Outcome::Failed }
    }
}

/// Counts and times one call when it goes; as failed unless it was told better.
pub struct CallObserver<'a> {
    metrics: &'a Metrics,
    verb: &'static str,
    started: Instant,
    outcome: Outcome,
}

impl CallObserver<'_> {
    /// How it ended.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for CallObserver<'_> {
    fn drop(&mut self) {
        self.metrics.calls.with_label_values(&[self.verb, self.outcome.label()]).inc();
        self.metrics
            .call_seconds
            .with_label_values(&[self.verb])
            .observe(self.started.elapsed().as_secs_f64());
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
