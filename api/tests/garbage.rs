//! Specs that no API server would let through are read or refused in one sentence.

use hearth_api::{
    CronWarmup, CronWarmupSpec, Dataset, DatasetSpec, Eviction, EvictionSpec, Warmup, WarmupSpec,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, small and not deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Text, with what globs, durations and quantities are made of more often than chance has it.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,40}", "[0-9]{0,25}[smhdKMGTPEi.e+-]{0,3}", "[*?{}\\[\\],/\\\\a-b!^\n]{0,60}"]
}

fn check(outcomes: impl IntoIterator<Item = Result<(), String>>) -> Result<(), TestCaseError> {
    for error in outcomes.into_iter().filter_map(Result::err) {
        prop_assert!(error.starts_with("spec.") && error.lines().count() == 1, "{error:?}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_json_is_a_spec_or_an_error(
        spec in any_json(),
        field in prop::sample::select(vec!["origins", "files", "refresh", "cache", "shareWith", "dataset", "paths", "nodes", "schedule", "timeZone", "warmupTemplate", "what"]),
    ) {
        let with = json!({"origins": [{"uri": "s3://bucket"}], "dataset": {"name": "d"}, "schedule": "@daily",
            "warmupTemplate": {"spec": {"dataset": {"name": "d"}}}, field: spec});
        for value in [&spec, &with] {
            let _ = serde_json::from_value::<DatasetSpec>(value.clone());
            let _ = serde_json::from_value::<WarmupSpec>(value.clone());
            let _ = serde_json::from_value::<CronWarmupSpec>(value.clone());
            let _ = serde_json::from_value::<EvictionSpec>(value.clone());
        }
    }

    #[test]
    fn what_the_schema_cannot_say_is_one_sentence(
        globs in prop::collection::vec(any_text(), 0..5),
        refresh in any_text(),
        quota in any_text(),
        schedule in prop_oneof![any_text(), "([0-9*,/LW#?-]{1,5} ){4}[0-9*,/LW#?A-Z-]{1,5}"],
        time_zone in prop::option::of(any_text()),
    ) {
        let spec: DatasetSpec = serde_json::from_value(json!({
            "origins": [{"uri": "s3://bucket"}], "refresh": refresh,
            "files": {"include": globs, "exclude": globs}, "cache": {"quota": quota},
        })).unwrap();
        let dataset = Dataset::new("d", spec);
        check([
            dataset.file_filter().map(drop).map_err(|error| error.to_string()),
            dataset.refresh_interval().map(drop).map_err(|error| error.to_string()),
            dataset.quota_bytes().map(drop).map_err(|error| error.to_string()),
        ])?;
        let spec: WarmupSpec =
            serde_json::from_value(json!({"dataset": {"name": "d"}, "paths": globs})).unwrap();
        let eviction: EvictionSpec =
            serde_json::from_value(json!({"dataset": {"name": "d"}, "paths": globs})).unwrap();
        check([Eviction::new("e", eviction).selection().map(drop).map_err(|error| error.to_string())])?;
        check([Warmup::new("w", spec.clone()).selection().map(drop).map_err(|error| error.to_string())])?;
        let spec: CronWarmupSpec = serde_json::from_value(
            json!({"schedule": schedule, "timeZone": time_zone, "warmupTemplate": {"spec": spec}}),
        ).unwrap();
        check([CronWarmup::new("c", spec).schedule().map(drop).map_err(|error| error.to_string())])?;
    }
}
