//! How a Dataset wants its origin to be reached and spared.

use super::{OriginError, shown};
use hearth_api::OriginOptions;
use hearth_core::quantity;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const MOST_AT_ONCE: u32 = 1024;

/// What makes a client of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    /// Longest time without a byte.
    pub(super) timeout: Option<Duration>,
    /// URL of a proxy for all requests.
    pub(super) proxy: Option<String>,
    /// PEM of authorities to trust besides the system's.
    pub(super) authorities: Option<String>,
}

/// What this node asks of an origin at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Limits {
    /// Requests at one time.
    pub(super) at_once: Option<NonZeroU32>,
    pub(super) requests_per_second: Option<NonZeroU32>,
    pub(super) bytes_per_second: Option<NonZeroU32>,
}

impl Connection {
    pub(super) fn of(options: Option<&OriginOptions>) -> Result<Self, OriginError> {
        let Some(options) = options else { return Ok(Self::default()) };
        let timeout = options.timeout.as_deref().map(|text| match humantime::parse_duration(text) {
            Ok(timeout) if TIMEOUTS.contains(&timeout) => Ok(timeout),
            _ => Err(wrong("timeout", text, "a duration from 1s to 10m is")),
        });
        Ok(Self {
            timeout: timeout.transpose()?,
            proxy: options.proxy.clone(),
            authorities: options.ca_bundle.clone(),
        })
    }
}

impl Limits {
    pub(super) fn of(options: Option<&OriginOptions>) -> Result<Self, OriginError> {
        let Some(options) = options else { return Ok(Self::default()) };
        let count = |field, given: Option<i32>, most: u32| match given {
            None => Ok(None),
            Some(given) => {
                match u32::try_from(given).ok().filter(|count| *count <= most).and_then(NonZeroU32::new) {
                    Some(count) => Ok(Some(count)),
                    None => Err(wrong(field, &given.to_string(), &format!("1 to {most} are"))),
                }
            }
        };
        let bytes = options.bytes_per_second.as_deref().map(|text| {
            let bytes = quantity::bytes(text).filter(|bytes| *bytes > 0);
            // A rate beyond the type is none that a node's network has.
            let bytes = bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)).and_then(NonZeroU32::new);
            bytes.ok_or_else(|| wrong("bytesPerSecond", text, "a positive quantity such as 100Mi is"))
        });
        Ok(Self {
            at_once: count("concurrency", options.concurrency, MOST_AT_ONCE)?,
            requests_per_second: count("requestsPerSecond", options.requests_per_second, u32::MAX)?,
            bytes_per_second: bytes.transpose()?,
        })
    }
}

fn wrong(field: &str, given: &str, allowed: &str) -> OriginError {
    OriginError::Refused(format!("options.{field} is \"{}\", and {allowed} allowed", shown(given)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: serde_json::Value) -> OriginOptions {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, sentence) in [
            (json!({"timeout": "0s"}), "options.timeout is \"0s\", and a duration from 1s to 10m is allowed"),
            (
                json!({"timeout": "soon"}),
                "options.timeout is \"soon\", and a duration from 1s to 10m is allowed",
            ),
            (json!({"concurrency": 0}), "options.concurrency is \"0\", and 1 to 1024 are allowed"),
            (json!({"concurrency": 1025}), "options.concurrency is \"1025\", and 1 to 1024 are allowed"),
            (
                json!({"requestsPerSecond": -1}),
                "options.requestsPerSecond is \"-1\", and 1 to 4294967295 are allowed",
            ),
            (
                json!({"bytesPerSecond": "much"}),
                "options.bytesPerSecond is \"much\", and a positive quantity such as 100Mi is allowed",
            ),
        ] {
            let options = options(value);
            let error = Connection::of(Some(&options)).err().or_else(|| Limits::of(Some(&options)).err());
            assert_eq!(error.unwrap().to_string(), sentence);
        }
    }

    #[test]
    fn nothing_is_limited_unless_it_is_said() {
        assert_eq!(Limits::of(Some(&options(json!({})))).unwrap(), Limits::default());
        let given = json!({"concurrency": 4, "requestsPerSecond": 50, "bytesPerSecond": "1Ti"});
        let limits = Limits::of(Some(&options(given))).unwrap();
        assert_eq!(limits.at_once, NonZeroU32::new(4));
        assert_eq!(limits.bytes_per_second, NonZeroU32::new(u32::MAX));
    }
}
