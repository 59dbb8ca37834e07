//! What of a Dataset is to be listed again after its stores' notices, when that is not all of it. Pure.

use crate::origin::Address;
use hearth_api::Dataset;
use hearth_core::manifest::ManifestHash;

/// Keys in a page of a listing.
const PAGE: u64 = 1000;

/// Objects that may have changed since a version was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changes {
    /// That version.
    pub(super) since: ManifestHash,
    /// For each origin, in rising order, what their paths below it begin with; none begins with another.
    pub(super) starts: Vec<Vec<String>>,
}

impl Changes {
    /// Those that the Dataset's status tells of; `None` when all of it is to be listed: something else may have changed, or
    /// that takes no longer.
    pub(super) fn of(dataset: &Dataset) -> Option<Self> {
        let status = dataset.status.as_ref()?;
        let version = status.version.as_ref()?;
        let annotation = status.observed_refresh.as_ref().and_then(|refresh| refresh.annotation.as_ref());
        let asked = dataset.refresh_request();
        let is_the_same_otherwise = status.observed_generation == dataset.metadata.generation
            && asked.as_ref().and_then(|refresh| refresh.annotation.as_ref()) == annotation;
        // Which keys were left out or are missing is not known, only how many.
        let is_all_known = status.skipped.is_none() && status.missing.is_none();
        let has_list = dataset.spec.files.as_ref().is_some_and(|files| files.list.is_some());
        let files = version.files.saturating_add(version.unlisted.unwrap_or(0));
        let pages = u64::try_from(files).unwrap_or(0) / PAGE;
        let told = dataset.notified_of()?;
        let is_worth_it = 2 * told.len() as u64 <= pages;
        if !is_the_same_otherwise || !is_all_known || has_list || !is_worth_it {
            return None;
        }
        let since = ManifestHash::parse(&version.manifest)?;
        let origins = &dataset.spec.origins;
        let starts = origins.iter().map(|origin| starts(Address::of(origin).ok()?, told));
        let starts: Vec<Vec<String>> = starts.collect::<Option<_>>()?;
        // Told of nothing that is here: then of anything.
        starts.iter().any(|starts| !starts.is_empty()).then_some(Self { since, starts })
    }

    /// Whether the object of this path below an origin may have changed.
    pub(super) fn has(&self, origin: u16, path: &str) -> bool {
        let starts = self.starts.get(usize::from(origin)).map_or(&[][..], Vec::as_slice);
        // The last one that does not stand behind the path is the only one that it can begin with.
        let behind = starts.partition_point(|start| start.as_str() <= path);
        behind.checked_sub(1).is_some_and(|last| path.starts_with(&starts[last]))
    }
}

/// What paths below an origin begin with; `None` when that is nothing and so all of them.
fn starts(address: Address, uris: &[String]) -> Option<Vec<String>> {
    let Address::S3(place) = address else { return Some(Vec::new()) };
    let mut starts = Vec::new();
    for uri in uris {
        let (bucket, key) = uri.strip_prefix("s3://").and_then(|uri| uri.split_once('/'))?;
        if bucket != place.name {
            continue;
        }
        match key.strip_prefix(&place.prefix) {
            Some("") => return None,
            Some(start) => starts.push(start.to_owned()),
            None if place.prefix.starts_with(key) => return None,
            None => {}
        }
    }
    starts.sort();
    starts.dedup_by(|next, kept| next.starts_with(kept.as_str()));
    Some(starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::RefreshRequest;
    use serde_json::json;

    fn dataset(uris: &[&str], notified_of: &[&str], files: i64) -> Dataset {
        let origins: Vec<_> = uris.iter().map(|uri| json!({"uri": uri})).collect();
        serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"namespace": "ns", "name": "d", "generation": 1},
            "spec": {"origins": origins},
            "status": {
                "observedGeneration": 1, "notifiedAt": "2026-01-01T00:00:00.000000Z",
                "notifiedOf": {"at": "2026-01-01T00:00:00.000000Z", "prefixes": notified_of},
                "version": {
                    "manifest": ManifestHash([7; 32]).to_string(), "files": files, "bytes": 1, "size": "1 B",
                    "blocks": 1, "listedAt": "2026-01-01T00:00:00Z",
                },
            },
        }))
        .unwrap()
    }

    fn starts_of(uris: &[&str], notified_of: &[&str]) -> Option<Vec<Vec<String>>> {
        Changes::of(&dataset(uris, notified_of, 1_000_000)).map(|changes| changes.starts)
    }

    #[test]
    fn what_was_told_is_looked_for_below_each_origin() {
        let two = ["s3://b/train", "s3://c", "file:///x"];
        let found = starts_of(&two, &["s3://b/train/1", "s3://b/train/12", "s3://b/test/1", "s3://c/x/"]);
        assert_eq!(found.unwrap(), [vec!["1".to_owned()], vec!["x/".to_owned()], vec![]]);
        // All of an origin, or something else.
        for notified_of in
            [&["s3://b/train/"][..], &["s3://b/tr"], &["s3://b/"], &["s3://c/"], &["s3://d/1"], &["b/1"], &[]]
        {
            assert_eq!(starts_of(&two, notified_of), None, "{notified_of:?}");
        }
    }

    #[test]
    fn all_is_listed_where_not_only_notices_ask_for_it_or_it_is_as_fast() {
        let told = || dataset(&["s3://b"], &["s3://b/1"], 2_000);
        assert!(Changes::of(&told()).is_some());
        let changed: [fn(&mut Dataset); 7] = [
            |d| d.status.as_mut().unwrap().notified_at = None,
            |d| d.metadata.generation = Some(2),
            |d| d.metadata.annotations = Some([(hearth_api::REFRESH.to_owned(), "1".to_owned())].into()),
            |d| d.status.as_mut().unwrap().version.as_mut().unwrap().files = 1_999,
            |d| d.status.as_mut().unwrap().version = None,
            |d| {
                let example = hearth_api::MissingFiles { count: 1, example: "x".to_owned() };
                d.status.as_mut().unwrap().missing = Some(example);
            },
            |d| d.spec.files = serde_json::from_value(json!({"list": {"path": "files.txt"}})).unwrap(),
        ];
        for (number, change) in changed.iter().enumerate() {
            let mut dataset = told();
            change(&mut dataset);
            assert_eq!(Changes::of(&dataset), None, "{number}");
        }
        let mut listed_by_hand = told();
        listed_by_hand.metadata.annotations = Some([(hearth_api::REFRESH.to_owned(), "1".to_owned())].into());
        let observed = RefreshRequest { annotation: Some("1".to_owned()), notified_at: None };
        listed_by_hand.status.as_mut().unwrap().observed_refresh = Some(observed);
        assert!(Changes::of(&listed_by_hand).is_some());
    }

    #[test]
    fn a_path_may_have_changed_when_it_begins_as_was_told() {
        let starts = ["a", "b/", "b/x"].map(str::to_owned);
        let changes = Changes { since: ManifestHash([0; 32]), starts: vec![vec![], starts[..2].to_vec()] };
        for (path, has) in [("a", true), ("ab", true), ("b", false), ("b/x", true), ("c", false), ("", false)]
        {
            assert_eq!(changes.has(1, path), has, "{path}");
        }
        assert!(!changes.has(0, "a") && !changes.has(9, "a"));
    }
}
