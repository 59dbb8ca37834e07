//! `CronWarmup`: Warmups that are made by a schedule.

use crate::WarmupSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Makes a Warmup whenever its schedule says so, as a CronJob makes Jobs.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "hearth.dev",
    version = "v1alpha1",
    kind = "CronWarmup",
    plural = "cronwarmups",
    shortname = "hcw",
    category = "hearth",
    namespaced,
    status = "CronWarmupStatus",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Time zone", type_ = "string", json_path = ".spec.timeZone"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active"),
    printcolumn(name = "Last schedule", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Last success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    // A date would be shown as the time since then, and this one is to come.
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    // As a CronJob's: eleven more are appended for each Warmup.
    validation = Rule::new("size(self.metadata.name) <= 52").message("metadata.name may have at most 52 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct CronWarmupSpec {
    /// When Warmups are made: minute, hour, day of month, month and day of week as cron has them,
    /// such as "30 4 * * 1-5", or @hourly, @daily, @weekly, @monthly or @yearly.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[^ @]+( [^ @]+){4})$')").message("schedule must be five fields with one space in between, such as '30 4 * * 1-5', or @daily and the like"))]
    pub schedule: String,

    /// The time zone of the schedule by its IANA name, such as Europe/Berlin; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+/-]+$')").message("timeZone must be a name of the IANA database, such as Europe/Berlin"))]
    pub time_zone: Option<String>,

    /// What becomes of a Warmup that is due while an earlier one has not ended. Unlike a CronJob's
    /// it is Forbid when absent: the earlier one fetches the newest version anyway, and another
    /// would order the same once more.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,

    /// Seconds after its time from which a Warmup is not made any more, when nobody could make it
    /// in time; made however late when absent. Of several that were missed only the latest is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,

    /// Whether no Warmups are made for now. Those that there are go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// How many Warmups that are complete are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub successful_warmups_history_limit: i32,

    /// How many Warmups that have missed their deadline are kept.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub failed_warmups_history_limit: i32,

    /// What the Warmups are like. A change holds for those that are made afterwards.
    pub warmup_template: WarmupTemplate,
}

fn three() -> i32 {
    3
}

fn one() -> i32 {
    1
}

/// What becomes of a Warmup that is due while an earlier one has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// It is made beside the earlier one.
    Allow,
    /// It is made when the earlier one has ended, unless it is too late then.
    #[default]
    Forbid,
    /// The earlier one is deleted. What that has fetched stays and is not fetched again.
    Replace,
}

/// What the Warmups of a CronWarmup are like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmupTemplate {
    /// Labels and annotations that they get.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// Their spec. keepWarm is false when absent: each fetches what is there at its time, and
    /// does no more once that has come.
    pub spec: WarmupSpec,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// What has become of it so far.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronWarmupStatus {
    /// The generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The scheduled time of the last Warmup that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,

    /// When one of its Warmups was last complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,

    /// When the next is due; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,

    /// Names of its Warmups that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub active: Vec<String>,

    /// Ready: Warmups are made when they are due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
