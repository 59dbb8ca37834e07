//! What the API server's rules cannot say about a spec.

use crate::{CronWarmup, Dataset, Eviction, REFRESH, RefreshRequest, Warmup};
use hearth_core::cron::{InvalidSchedule, Schedule};
use hearth_core::quantity;
use hearth_core::selection::{FileFilter, GlobError, Selection};
use kube::ResourceExt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What is wrong with a spec, as one sentence that names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// A glob of a Dataset.
    #[error("spec.files: {0}")]
    Files(GlobError),
    /// A glob of a Warmup or an Eviction.
    #[error("spec.paths: {0}")]
    Paths(GlobError),
    /// Anything else.
    #[error("{0}")]
    Field(String),
}

impl Dataset {
    /// Which of the origin's files belong to the dataset.
    pub fn file_filter(&self) -> Result<FileFilter, InvalidSpec> {
        let (include, exclude) = match &self.spec.files {
            Some(files) => (files.include.as_slice(), files.exclude.as_slice()),
            None => Default::default(),
        };
        FileFilter::new(include, exclude).map_err(InvalidSpec::Files)
    }

    /// How often the origin is listed again; `None` for Never.
    pub fn refresh_interval(&self) -> Result<Option<Duration>, InvalidSpec> {
        const SHORTEST: Duration = Duration::from_secs(10);
        let text = self.spec.refresh.as_str();
        if text == "Never" {
            return Ok(None);
        }
        match humantime::parse_duration(text) {
            Ok(interval) if interval >= SHORTEST => Ok(Some(interval)),
            _ => Err(InvalidSpec::Field(format!(
                "spec.refresh is {text:?}, and Never or a duration of at least 10s is allowed"
            ))),
        }
    }

    /// What asks for a listing besides time and the spec; `None` when nothing ever did.
    pub fn refresh_request(&self) -> Option<RefreshRequest> {
        let annotation = self.annotations().get(REFRESH).map(|value| value.chars().take(64).collect());
        let notified_at = self.status.as_ref().and_then(|status| status.notified_at.clone());
        let asks = annotation.is_some() || notified_at.is_some();
        asks.then_some(RefreshRequest { annotation, notified_at })
    }

    /// What begins with any of these may have changed at the origins since the last listing, as stores have told; `None` when
    /// that is not known.
    pub fn notified_of(&self) -> Option<&[String]> {
        let status = self.status.as_ref()?;
        let told =
            status.notified_of.as_ref().filter(|told| status.notified_at.as_ref() == Some(&told.at))?;
        Some(&told.prefixes)
    }

    /// How many replicas there may be, the least first; `None` when there are to be none.
    pub fn replica_bounds(&self) -> Option<RangeInclusive<usize>> {
        let cache = self.spec.cache.as_ref()?;
        let least = usize::try_from(cache.replicas?).unwrap_or(0);
        let most = cache.max_replicas.map_or(least, |most| usize::try_from(most).unwrap_or(0));
        (most > 0).then(|| least..=most.max(least))
    }

    /// How many replicas are wanted now: what the status says, within the bounds.
    pub fn replicas_wanted(&self) -> Option<usize> {
        let bounds = self.replica_bounds()?;
        let said = self.status.as_ref().and_then(|status| status.replicas.as_ref());
        let wanted = said.map_or(0, |replicas| usize::try_from(replicas.wanted).unwrap_or(0));
        Some(wanted.clamp(*bounds.start(), *bounds.end()))
    }

    /// Most bytes of it on any one node.
    pub fn quota_bytes(&self) -> Result<Option<u64>, InvalidSpec> {
        let Some(text) = self.spec.cache.as_ref().and_then(|cache| cache.quota.as_deref()) else {
            return Ok(None);
        };
        quantity::bytes(text).map(Some).ok_or_else(|| {
            InvalidSpec::Field(format!(
                "spec.cache.quota is {text:?}, and a positive quantity such as 500Gi is allowed"
            ))
        })
    }
}

impl Warmup {
    /// Which files of the dataset it asks for.
    pub fn selection(&self) -> Result<Selection, InvalidSpec> {
        Selection::new(self.spec.paths.iter().cloned()).map_err(InvalidSpec::Paths)
    }
}

impl CronWarmup {
    /// When its Warmups are due, if they can be made at all.
    pub fn schedule(&self) -> Result<Schedule, InvalidSpec> {
        let spec = &self.spec;
        let selection = Selection::new(spec.warmup_template.spec.paths.iter().cloned());
        selection.map_err(|error| InvalidSpec::Field(format!("spec.warmupTemplate.spec.paths: {error}")))?;
        Schedule::new(&spec.schedule, spec.time_zone.as_deref()).map_err(|error| {
            let field = match error {
                InvalidSchedule::Expression(..) | InvalidSchedule::Never(_) => "schedule",
                InvalidSchedule::TimeZone(_) => "timeZone",
            };
            InvalidSpec::Field(format!("spec.{field} {error}"))
        })
    }
}

impl Eviction {
    /// Which files of the dataset it names.
    pub fn selection(&self) -> Result<Selection, InvalidSpec> {
        Selection::new(self.spec.paths.iter().cloned()).map_err(InvalidSpec::Paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DatasetSpec, DatasetStatus, ReplicasStatus};

    fn dataset(spec: serde_json::Value) -> Dataset {
        Dataset::new("d", serde_json::from_value::<DatasetSpec>(spec).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_schema() {
        let dataset = dataset(serde_json::json!({"origins": [{"uri": "s3://bucket"}]}));
        assert_eq!(dataset.refresh_interval(), Ok(Some(Duration::from_secs(600))));
        assert_eq!(dataset.spec.origins[0].path, "/");
        assert_eq!(dataset.quota_bytes(), Ok(None));
        assert!(dataset.file_filter().unwrap().takes("anything"));
    }

    #[test]
    fn replicas_are_wanted_within_their_bounds() {
        let with = |cache: serde_json::Value, wanted: Option<i32>| {
            let mut dataset =
                dataset(serde_json::json!({"origins": [{"uri": "s3://bucket"}], "cache": cache}));
            let replicas =
                wanted.map(|wanted| ReplicasStatus { wanted, nodes: 0, warm: 0, summary: String::new() });
            dataset.status = Some(DatasetStatus { replicas, ..DatasetStatus::default() });
            dataset.replicas_wanted()
        };
        let scaled = || serde_json::json!({"replicas": 2, "maxReplicas": 4});
        assert_eq!(with(serde_json::json!({}), Some(3)), None);
        assert_eq!(with(serde_json::json!({"replicas": 0}), Some(3)), None);
        assert_eq!(with(serde_json::json!({"replicas": 2}), Some(3)), Some(2));
        assert_eq!(
            [with(scaled(), None), with(scaled(), Some(3)), with(scaled(), Some(9))],
            [Some(2), Some(3), Some(4)]
        );
    }

    #[test]
    fn what_is_wrong_is_one_sentence_that_names_the_field() {
        let dataset = dataset(serde_json::json!({"origins": [{"uri": "s3://bucket"}], "refresh": "1s",
            "files": {"include": ["{a"]}, "cache": {"quota": "much"}}));
        for (error, field) in [
            (dataset.file_filter().unwrap_err(), "spec.files"),
            (dataset.refresh_interval().unwrap_err(), "spec.refresh"),
            (dataset.quota_bytes().unwrap_err(), "spec.cache.quota"),
        ] {
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
