//! Times of last changes: nanoseconds since 1970 in manifests, and what stores write.

/// As listings in JSON or S3's XML have it, RFC 3339.
pub(in crate::origin) fn of_listing(text: &str) -> Option<i64> {
    nanos(text.parse().ok()?)
}

/// As HTTP has it, in whole seconds.
pub(in crate::origin) fn of_http(text: &str) -> Option<i64> {
    nanos(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// What HTTP writes for it; nothing for a time that no calendar has.
pub(super) fn to_http(nanos: i64) -> String {
    jiff::Timestamp::from_second(nanos.div_euclid(1_000_000_000))
        .and_then(|time| jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time))
        .unwrap_or_default()
}

fn nanos(time: jiff::Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_however_it_is_written() {
        let nanos = 1_767_323_045_000_000_000;
        assert_eq!(of_http("Fri, 02 Jan 2026 03:04:05 GMT"), Some(nanos));
        assert_eq!(of_listing("2026-01-02T03:04:05.678Z"), Some(nanos + 678_000_000));
        assert_eq!(to_http(nanos + 678_000_000), "Fri, 02 Jan 2026 03:04:05 GMT");
        assert_eq!((of_http("yesterday"), of_listing("")), (None, None));
    }
}
