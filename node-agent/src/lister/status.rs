//! What a listing, or its failure, says in a Dataset's status. Pure.

use super::listing::Listed;
use crate::origin::shown;
use hearth_api::{
    ConditionStatus, Dataset, DatasetStatus, MissingFiles, SkippedKeys, VersionStatus, set_condition,
};
use hearth_core::explain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The condition that says whether the origin was listed.
pub(super) const LISTED: &str = "Listed";

/// Why there is no new version.
#[derive(Debug)]
pub(super) struct Failure {
    /// One CamelCase word.
    pub(super) reason: &'static str,
    /// One sentence.
    pub(super) message: String,
    /// Whether the origin was asked in vain.
    pub(super) unanswered: bool,
}

/// The lister's part of the status after an outcome, and nothing of anybody else's.
pub(super) fn after(dataset: &Dataset, outcome: &Result<Listed, Failure>, now: Timestamp) -> DatasetStatus {
    let before = dataset.status.clone().unwrap_or_default();
    let mut status = DatasetStatus { conditions: before.conditions, ..DatasetStatus::default() };
    status.conditions.retain(|condition| condition.type_ == LISTED);
    let mut listed = |value, reason: &str, message| {
        let generation = dataset.metadata.generation;
        set_condition(&mut status.conditions, LISTED, value, reason, message, generation, now);
    };
    match outcome {
        Ok(listing) => {
            let version = version(listing, before.version.as_ref(), now);
            let VersionStatus { files, size, blocks, unlisted, .. } = &version;
            let shown = unlisted.map_or_else(String::new, |shown| format!(", {shown} more are only shown"));
            let what = format!("{files} files of {size} in {blocks} blocks{shown}");
            match (version.files, listing.missing.count, listing.skipped.count) {
                (0, ..) => listed(
                    ConditionStatus::True,
                    "Empty",
                    "no origin has objects that the dataset takes".to_owned(),
                ),
                (_, 0, 0) => listed(ConditionStatus::True, "Listed", what),
                (_, 0, skipped) => listed(
                    ConditionStatus::True,
                    "SomeSkipped",
                    format!("{what}; {skipped} keys that cannot be files were skipped"),
                ),
                (_, missing, _) => listed(
                    ConditionStatus::True,
                    "SomeMissing",
                    format!(
                        "{what}; {missing} files of spec.files.list are at no origin, see status.missing"
                    ),
                ),
            }
            status.version = Some(version);
            status.skipped = listing.skipped.example.as_ref().map(|(example, reason)| SkippedKeys {
                count: signed(listing.skipped.count),
                example: example.clone(),
                reason: reason.to_string(),
            });
            status.missing = listing.missing.example.as_ref().map(|example| MissingFiles {
                count: signed(listing.missing.count),
                example: example.clone(),
            });
            status.observed_generation = dataset.metadata.generation;
            status.observed_refresh = dataset.refresh_request();
        }
        // The version from before stays: what is cached of it is as good as it was.
        Err(failure) => {
            listed(ConditionStatus::False, failure.reason, shown_whole(&failure.message));
            status.version = before.version;
            status.skipped = before.skipped;
            status.missing = before.missing;
            status.observed_generation = before.observed_generation;
            status.observed_refresh = before.observed_refresh;
        }
    }
    status
}

/// Whether the lister's part of a status is as it should be.
pub(super) fn is_current(dataset: &Dataset, wanted: &DatasetStatus) -> bool {
    let Some(status) = &dataset.status else { return false };
    let listed = status.conditions.iter().filter(|condition| condition.type_ == LISTED);
    status.observed_generation == wanted.observed_generation
        && status.observed_refresh == wanted.observed_refresh
        && status.version == wanted.version
        && status.skipped == wanted.skipped
        && status.missing == wanted.missing
        && listed.eq(&wanted.conditions)
}

fn version(listing: &Listed, before: Option<&VersionStatus>, now: Timestamp) -> VersionStatus {
    let manifest = listing.hash.to_string();
    // The same content found again is the same version, found when it was found first.
    if let Some(before) = before.filter(|before| before.manifest == manifest) {
        return before.clone();
    }
    VersionStatus {
        manifest,
        files: signed(listing.files),
        unlisted: Some(listing.unlisted).filter(|count| *count > 0).map(signed),
        bytes: signed(listing.bytes),
        size: explain::bytes(listing.bytes),
        blocks: i64::from(listing.blocks),
        listed_at: Time(now),
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A condition's message may have 32,768 characters; a sentence needs far less.
fn shown_whole(message: &str) -> String {
    const LONGEST: usize = 1024;
    if message.chars().count() <= LONGEST { message.to_owned() } else { shown(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lister::listing::Listing;
    use hearth_api::DatasetSpec;
    use hearth_core::file_list::Missing;
    use hearth_core::manifest::{ListedObject, ManifestBuilder, ManifestOrigin, SkipReason};
    use hearth_core::object::{AccessDomain, Validator};

    fn dataset() -> Dataset {
        let spec = serde_json::json!({"origins": [{"uri": "s3://b"}]});
        let mut dataset = Dataset::new("d", serde_json::from_value::<DatasetSpec>(spec).unwrap());
        dataset.metadata.generation = Some(3);
        dataset
    }

    fn listing(paths: &[&str]) -> Listed {
        let mut builder =
            ManifestBuilder::new(vec![ManifestOrigin::whole(AccessDomain::new("n", None), "s3://b")]);
        for path in paths {
            builder.push(ListedObject {
                origin: 0,
                path: (*path).into(),
                size: 5,
                modified: 0,
                validator: Validator::Modified(1),
                unlisted: false,
            });
        }
        let (manifest, skipped) = builder.encode().unwrap();
        Listed::of(Listing { manifest, skipped, missing: Missing::default() }).0
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_same_version_found_again_changes_nothing() {
        let mut dataset = dataset();
        let first = after(&dataset, &Ok(listing(&["a", "b"])), at(1));
        assert!(!is_current(&dataset, &first));
        assert_eq!(first.conditions[0].message, "2 files of 10 B in 2 blocks");
        dataset.status = Some(first.clone());
        let again = after(&dataset, &Ok(listing(&["a", "b"])), at(2));
        assert_eq!(again, first);
        assert!(is_current(&dataset, &again));
        let other = after(&dataset, &Ok(listing(&["a"])), at(3));
        assert_eq!(other.version.as_ref().unwrap().listed_at, Time(at(3)));
        assert!(!is_current(&dataset, &other));
    }

    #[test]
    fn a_failure_keeps_the_version_and_says_since_when() {
        let mut dataset = dataset();
        dataset.status = Some(after(&dataset, &Ok(listing(&["a"])), at(1)));
        dataset.metadata.generation = Some(4);
        let failure = || Err(Failure { reason: "Denied", message: "no".into(), unanswered: false });
        let failed = after(&dataset, &failure(), at(2));
        assert_eq!(failed.version, dataset.status.as_ref().unwrap().version);
        assert_eq!(failed.observed_generation, Some(3));
        assert_eq!(
            (failed.conditions[0].status.as_str(), failed.conditions[0].message.as_str()),
            ("False", "no")
        );
        dataset.status = Some(failed.clone());
        assert!(is_current(&dataset, &after(&dataset, &failure(), at(9))));
    }

    #[test]
    fn what_others_say_is_left_alone() {
        let mut dataset = dataset();
        let mut status = after(&dataset, &Ok(listing(&["a"])), at(1));
        let mine = status.clone();
        set_condition(
            &mut status.conditions,
            "Ready",
            ConditionStatus::True,
            "R",
            String::new(),
            None,
            at(1),
        );
        dataset.status = Some(status);
        let again = after(&dataset, &Ok(listing(&["a"])), at(2));
        assert_eq!(again, mine);
        assert!(is_current(&dataset, &again));
    }

    #[test]
    fn empty_and_skipped_are_said() {
        let dataset = dataset();
        let empty = after(&dataset, &Ok(listing(&[])), at(1));
        assert_eq!(empty.conditions[0].reason, "Empty");
        let mut listing = listing(&["a"]);
        listing.skipped.add("x//y", SkipReason::EmptySegment);
        let some = after(&dataset, &Ok(listing), at(1));
        let skipped = some.skipped.unwrap();
        assert_eq!(
            (skipped.count, skipped.example.as_str(), skipped.reason.as_str()),
            (1, "x//y", "it has an empty segment")
        );
        assert!(some.conditions[0].message.ends_with("; 1 keys that cannot be files were skipped"));
    }
}
