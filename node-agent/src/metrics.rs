//! The names of all metrics, and the hands that move them.

use crate::store::{Store, StoreStats};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};
use std::sync::atomic::Ordering;

/// The metrics of an agent.
#[derive(Debug)]
pub struct Metrics {
    /// What the admin server gathers.
    pub registry: Registry,
    /// Bytes read from origins, by `scheme`.
    pub origin_bytes: IntCounterVec,
    /// Requests to origins, by `scheme`, `operation` and `outcome`.
    pub origin_requests: IntCounterVec,
    /// Requests to origins that were tried again.
    pub origin_retries: IntCounter,
    /// Bytes per second that fills reached of late.
    pub origin_rate: Gauge,
    /// From the start of a request for data until its blocks are kept.
    pub fill_seconds: Histogram,
    /// Requests for data that are under way.
    pub fill_running: IntGauge,
    /// Whether fetching holds back for others.
    pub fill_yields: IntGauge,
    /// Bytes that readers got and that were not kept.
    pub read_through_bytes: IntCounter,
    /// Bytes given up to make room, by `reason`.
    pub evicted_bytes: IntCounterVec,
    /// Objects given up to make room, by `reason`.
    pub evicted_objects: IntCounterVec,
    /// Bytes that moved between tiers, by the media `from` and `to`.
    pub tier_moved_bytes: IntCounterVec,
    /// Bytes that were read again and found good.
    pub scrubbed_bytes: IntCounter,
    /// Times that all that is held has been read again.
    pub scrub_passes: IntCounter,
    /// Blocks that are wanted and not here.
    pub fill_missing_blocks: IntGauge,
    /// Wants, by `state`.
    pub wants: IntGaugeVec,
    /// Troubles, by `kind`.
    pub troubles: IntGaugeVec,
    /// Reports, by `outcome`.
    pub reports: IntCounterVec,
    /// From sending a report to its reply.
    pub report_seconds: Histogram,
    /// When a replica last took a report, by `replica`.
    pub replica_success: GaugeVec,
    /// Whether this agent lists for the cluster.
    pub lister_leading: IntGauge,
    /// Listings of origins, by `outcome`.
    pub listings: IntCounterVec,
    /// How long a listing takes.
    pub listing_seconds: Histogram,
    /// Reads of FUSE views that failed.
    pub fuse_read_errors: IntCounter,
    /// Live FUSE sessions.
    pub fuse_sessions: IntGauge,
    /// Those that outlive the agent.
    pub fuse_sessions_kept: IntGauge,
    /// Published volumes.
    pub volumes: IntGaugeVec,
    store: StoreMetrics,
}

/// What the store counts itself and a scrape takes over.
#[derive(Debug)]
struct StoreMetrics {
    capacity: IntGauge,
    used: IntGauge,
    free: IntGauge,
    blocks_written: IntCounter,
    bytes_written: IntCounter,
    blocks_read: IntCounter,
    bytes_read: IntCounter,
    blocks_damaged: IntCounter,
    rows_damaged: IntCounter,
    manifests_lost: IntCounter,
    index_rebuilds: IntCounter,
    index_reopens: IntCounter,
    syncs: IntCounter,
    commits: IntCounter,
    commits_failed: IntCounter,
    orphans_removed: IntCounter,
    no_space: IntCounter,
    tier_capacity: IntGaugeVec,
    tier_used: IntGaugeVec,
    tier_failed: IntGaugeVec,
}

/// Seconds that anything at an origin may take.
const WAITS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Seconds of a report, which is mostly held for two.
const HOLDS: [f64; 9] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0];
/// Seconds of a listing.
const LISTINGS: [f64; 9] = [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

impl Metrics {
    /// All of them, registered.
    pub fn new() -> Result<Self> {
        let registry = Registry::new_custom(Some("hearth_agent".to_owned()), None)?;
        let make = Make(&registry);
        let store = StoreMetrics::new(&make)?;
        let metrics = Self {
            origin_bytes: make.counters("origin_bytes_total", "Bytes of objects read from origins.", &["scheme"])?,
            origin_requests: make.counters(
                "origin_requests_total",
                "Requests to origins, by what they were for and how they ended.",
                &["scheme", "operation", "outcome"],
            )?,
            origin_retries: make.counter("origin_retries_total", "Requests to origins that were tried again.")?,
            origin_rate: make.registered(Gauge::new(
                "origin_bytes_per_second",
                "Bytes per second that fetching from origins reached of late.",
            )?)?,
            fill_seconds: make.histogram(
                "fill_seconds",
                "Time from a request for data until its blocks are kept.",
                &WAITS,
            )?,
            fill_running: make.gauge("fill_requests_running", "Requests for data that are under way.")?,
            fill_yields: make.gauge(
                "fill_yields",
                "1 while others want all processors, and what no pod waits for keeps to origin.busyCpuPercent.",
            )?,
            read_through_bytes: make.counter(
                "read_through_bytes_total",
                "Bytes that readers waited for and that were not kept, since what is held is worth more.",
            )?,
            evicted_bytes: make.counters(
                "evicted_bytes_total",
                "Bytes given up: as room for datasets of more value, in exchange for what is read more, to keep to a limit, or by order of an Eviction.",
                &["reason"],
            )?,
            evicted_objects: make.counters(
                "evicted_objects_total",
                "Objects given up, by the same reasons.",
                &["reason"],
            )?,
            tier_moved_bytes: make.counters(
                "tier_moved_bytes_total",
                "Bytes that moved between tiers of the store, by their media.",
                &["from", "to"],
            )?,
            scrubbed_bytes: make.counter(
                "scrubbed_bytes_total",
                "Bytes that were read again from the disk, without a reader, and found good.",
            )?,
            scrub_passes: make
                .counter("scrub_passes_total", "Times that all that is held has been read again.")?,
            fill_missing_blocks: make.gauge("fill_missing_blocks", "Blocks that are wanted here and not held.")?,
            wants: make.gauges("wants", "Parts of datasets that this node is to hold, by state.", &["state"])?,
            troubles: make.gauges("troubles", "What keeps this node from getting warm, by kind.", &["kind"])?,
            reports: make.counters("reports_total", "Reports to extender replicas, by how they ended.", &["outcome"])?,
            report_seconds: make.histogram(
                "report_seconds",
                "Time from sending a report to its reply, which an extender with nothing to say holds for two seconds.",
                &HOLDS,
            )?,
            replica_success: make.registered(GaugeVec::new(
                Opts::new("replica_last_success_timestamp_seconds", "When an extender replica last took a report."),
                &["replica"],
            )?)?,
            lister_leading: make.gauge("lister_leading", "1 on the agent that lists origins for the cluster.")?,
            listings: make.counters("listings_total", "Listings of origins, by how they ended: changes are those of what stores' notices told of, and ok those of all.", &["outcome"])?,
            listing_seconds: make.histogram("listing_seconds", "Time to list one origin.", &LISTINGS)?,
            fuse_read_errors: make.counter(
                "fuse_read_errors_total",
                "Reads of FUSE views that failed because their bytes did not come in time or could not be read.",
            )?,
            fuse_sessions: make.gauge("fuse_sessions", "Live sessions of FUSE views.")?,
            fuse_sessions_kept: make.gauge(
                "fuse_sessions_kept",
                "Sessions of FUSE views that the keeper holds: only these outlive the agent.",
            )?,
            volumes: make.gauges("volumes", "Volumes that are published to pods, by the view that they show.", &["view"])?,
            store,
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series that exist from the start, so that a rate over them is 0 and not absent,
    /// and the first failure counts as one.
    fn start_at_zero(&self) {
        for outcome in ["ok", "changes", "failed"] {
            self.listings.with_label_values(&[outcome]);
        }
        for outcome in ["ok", "unreachable", "refused", "resync"] {
            self.reports.with_label_values(&[outcome]);
        }
        for reason in ["room", "exchange", "limit", "order"] {
            self.evicted_bytes.with_label_values(&[reason]);
            self.evicted_objects.with_label_values(&[reason]);
        }
        for operation in ["list", "get"] {
            self.origin_requests.with_label_values(&["s3", operation, "ok"]);
        }
        for scheme in ["s3", "file"] {
            self.origin_bytes.with_label_values(&[scheme]);
        }
    }

    /// Takes over how many volumes there are, how many FUSE sessions serve them, and how
    /// many of these outlive the agent.
    pub fn observe_views(&self, (native, fuse): (usize, usize), (sessions, kept): (usize, usize)) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.volumes.with_label_values(&["native"]).set(gauge(native));
        self.volumes.with_label_values(&["fuse"]).set(gauge(fuse));
        self.fuse_sessions.set(gauge(sessions));
        self.fuse_sessions_kept.set(gauge(kept));
    }

    /// Takes over what the store counted, and how full it and its tiers are.
    pub fn observe_store(&self, store: &Store) {
        self.observe_counts(store.stats());
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Ok(usage) = store.usage() {
            self.store.capacity.set(gauge(usage.capacity_bytes));
            self.store.used.set(gauge(usage.used_bytes));
            self.store.free.set(gauge(usage.free_bytes));
        }
        for tier in store.tiers() {
            let (directory, medium) = (tier.directory().to_string_lossy(), tier.medium().to_string());
            let labels = [directory.as_ref(), medium.as_str()];
            self.store.tier_failed.with_label_values(&labels).set(i64::from(!tier.works()));
            if let Ok(usage) = tier.usage() {
                self.store.tier_capacity.with_label_values(&labels).set(gauge(usage.capacity_bytes));
                self.store.tier_used.with_label_values(&labels).set(gauge(usage.used_bytes));
            }
        }
    }

    fn observe_counts(&self, stats: &StoreStats) {
        let store = &self.store;
        for (metric, counted) in [
            (&store.blocks_written, &stats.blocks_written),
            (&store.bytes_written, &stats.bytes_written),
            (&store.blocks_read, &stats.blocks_read),
            (&store.bytes_read, &stats.bytes_read),
            (&store.blocks_damaged, &stats.blocks_damaged),
            (&store.rows_damaged, &stats.rows_damaged),
            (&store.manifests_lost, &stats.manifests_lost),
            (&store.index_rebuilds, &stats.index_rebuilds),
            (&store.index_reopens, &stats.index_reopens),
            (&store.syncs, &stats.syncs),
            (&store.commits, &stats.commits),
            (&store.commits_failed, &stats.commits_failed),
            (&store.orphans_removed, &stats.orphans_removed),
            (&store.no_space, &stats.no_space),
        ] {
            metric.inc_by(counted.load(Ordering::Relaxed).saturating_sub(metric.get()));
        }
    }
}

/// What tells tiers apart.
const TIER: [&str; 2] = ["directory", "medium"];

impl StoreMetrics {
    fn new(make: &Make<'_>) -> Result<Self> {
        Ok(Self {
            capacity: make.gauge("store_capacity_bytes", "Bytes that the store may take.")?,
            used: make.gauge("store_used_bytes", "Bytes that the store takes.")?,
            free: make.gauge("store_filesystem_free_bytes", "Bytes free on the store's file system.")?,
            blocks_written: make.counter("store_blocks_written_total", "Blocks that were kept.")?,
            bytes_written: make.counter("store_bytes_written_total", "Bytes of blocks that were kept.")?,
            blocks_read: make.counter("store_blocks_read_total", "Blocks read and found good.")?,
            bytes_read: make.counter("store_bytes_read_total", "Bytes of blocks read and found good.")?,
            blocks_damaged: make.counter(
                "store_blocks_damaged_total",
                "Blocks given up because they were damaged, missing or unreadable.",
            )?,
            rows_damaged: make.counter(
                "store_rows_damaged_total",
                "Rows of the index given up because their checksum was wrong.",
            )?,
            manifests_lost: make.counter(
                "store_manifests_lost_total",
                "Manifests given up because they were missing or damaged.",
            )?,
            index_rebuilds: make.counter(
                "store_index_rebuilds_total",
                "Times that a damaged index was put aside and an empty one begun.",
            )?,
            index_reopens: make.counter(
                "store_index_reopens_total",
                "Times that the index was opened again after an error.",
            )?,
            syncs: make
                .counter("store_syncs_total", "Times that the cache's file system was synced as a whole.")?,
            commits: make.counter("store_commits_total", "Durable commits of the index.")?,
            commits_failed: make
                .counter("store_commits_failed_total", "Commits of the index that failed.")?,
            orphans_removed: make
                .counter("store_orphans_removed_total", "Object files removed because nothing held them.")?,
            no_space: make.counter(
                "store_no_space_total",
                "Times that the disk was full when something was written.",
            )?,
            tier_capacity: make.gauges("tier_capacity_bytes", "Bytes that a tier may take.", &TIER)?,
            tier_used: make.gauges("tier_used_bytes", "Bytes that a tier takes.", &TIER)?,
            tier_failed: make.gauges(
                "tier_failed",
                "1 for a tier whose disk fails again and again: what it holds counts as missing.",
                &TIER,
            )?,
        })
    }
}

struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn registered<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.registered(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.registered(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        self.registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_help_texts_are_as_prometheus_expects_them() {
        let metrics = Metrics::new().unwrap();
        metrics.origin_requests.with_label_values(&["s3", "get", "ok"]).inc();
        for family in metrics.registry.gather() {
            assert!(family.name().starts_with("hearth_agent_"), "{}", family.name());
            assert!(family.help().ends_with('.'), "{}", family.name());
            let counts = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(family.name().ends_with("_total"), counts, "{}", family.name());
        }
    }

    #[test]
    fn what_the_store_counted_is_taken_over_once() {
        let metrics = Metrics::new().unwrap();
        let stats = StoreStats::default();
        stats.blocks_written.store(3, Ordering::Relaxed);
        for _ in 0..2 {
            metrics.observe_counts(&stats);
            assert_eq!(metrics.store.blocks_written.get(), 3);
        }
    }
}
