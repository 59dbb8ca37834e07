//! The times that a cron expression names in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The times that a cron expression names in a time zone, whole seconds all of them.
///
/// Where clocks are put forward, what falls into the hour that is left out is due right after it; where they are put
/// back, a time of the hour that comes twice is due at the first, and what recurs (`*`, `*/15`) in both.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// What is wrong with a schedule: the rest of a sentence that begins with the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// It is no cron expression.
    #[error(
        "{0:?} is not understood ({1}): minute, hour, day of month, month and day of week are allowed, such as \"30 4 * * 1-5\", or @daily and the like"
    )]
    Expression(String, String),
    /// No time is ever like that.
    #[error("{0:?} names a day that never comes")]
    Never(String),
    /// Nobody knows the time zone.
    #[error("{0:?} is no time zone: names of the IANA database are allowed, such as Europe/Berlin or UTC")]
    TimeZone(String),
}

impl Schedule {
    /// Understands a cron expression of five fields; in UTC when no time zone is given.
    ///
    /// # Errors
    /// When one of them is not understood.
    pub fn new(expression: &str, time_zone: Option<&str>) -> Result<Self, InvalidSchedule> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(expression)
            .map_err(|why| InvalidSchedule::Expression(expression.to_owned(), sentence(&why.to_string())))?;
        let zone = match time_zone {
            None => TimeZone::UTC,
            // Its own database, and not the system's: each replica has the same, and it is always there.
            Some(name) => TimeZoneDatabase::bundled()
                .get(name)
                .map_err(|_| InvalidSchedule::TimeZone(name.to_owned()))?,
        };
        let schedule = Self { cron, zone };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(InvalidSchedule::Never(expression.to_owned())),
        }
    }

    /// The first time after this one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_next_occurrence(&whole_second(after).to_zoned(self.zone.clone()), false);
        found.ok().map(|found| found.timestamp())
    }

    /// The last time up to `until`, if that is after `after`.
    pub fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let found = self
            .cron
            .find_previous_occurrence(&whole_second(until).to_zoned(self.zone.clone()), true)
            .ok()?;
        Some(found.timestamp()).filter(|found| *found > after)
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    // The second that it is in, also before 1970.
    let second = time.as_nanosecond().div_euclid(1_000_000_000);
    i64::try_from(second)
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok())
        .unwrap_or(Timestamp::MIN)
}

/// What the parser says, to stand within a sentence.
fn sentence(said: &str) -> String {
    said.lines().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(expression, Some(zone)).unwrap();
        let first = schedule.next(at(after));
        std::iter::successors(first, |time| schedule.next(*time))
            .take(count)
            .map(|time| time.to_string())
            .collect()
    }

    #[test]
    fn times_are_those_of_the_zone_and_utc_without_one() {
        assert_eq!(
            times("30 4 * * 1-5", "Asia/Tokyo", "2026-11-26T19:30:00Z", 2),
            ["2026-11-29T19:30:00Z", "2026-11-30T19:30:00Z"]
        );
        let utc = Schedule::new("@daily", None).unwrap();
        assert_eq!(utc.next(at("2026-11-26T00:00:00Z")), Some(at("2026-11-27T00:00:00Z")));
        assert_eq!(utc.next(at("2026-11-26T23:59:59.9Z")), Some(at("2026-11-27T00:00:00Z")));
        let latest = |until: &str| utc.latest(at("2026-11-20T00:00:00Z"), at(until));
        assert_eq!(latest("2026-11-26T00:00:00Z"), Some(at("2026-11-26T00:00:00Z")));
        assert_eq!(latest("2026-11-25T23:59:59.9Z"), Some(at("2026-11-25T00:00:00Z")));
        assert_eq!(latest("2026-11-20T12:00:00Z"), None, "that one was before");
        // As cron has it: either the day of the month or the day of the week.
        assert_eq!(
            times("0 0 1 * 1", "UTC", "2026-11-26T00:00:00Z", 3),
            ["2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-07T00:00:00Z"]
        );
    }

    #[test]
    fn clocks_that_are_put_forward_leave_nothing_out_and_those_put_back_repeat_nothing_fixed() {
        // 02:30 is not there on 2026-03-29, and is there twice on 2026-10-25.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error =
            |expression: &str, zone: &str| Schedule::new(expression, Some(zone)).unwrap_err().to_string();
        for bad in ["", "* * * *", "0 * * * * *", "61 * * * *", "soon", "* * * * * 2027", "@hourlyish"] {
            let error = error(bad, "UTC");
            assert!(error.contains("is not understood (") && error.lines().count() == 1, "{bad:?}: {error}");
        }
        assert_eq!(error("0 0 30 2 *", "UTC"), "\"0 0 30 2 *\" names a day that never comes");
        for bad in ["Mars/Olympus", "", "../etc/passwd", "+02:00"] {
            assert!(error("@daily", bad).contains("is no time zone"), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Looking back finds what looking forward finds, over changes of the clocks, too.
        #[test]
        fn the_latest_is_the_last_of_the_next(
            expression in prop::sample::select(vec![
                "* * * * *", "*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15,45 1-3 * * 0", "0 0 1 * 1", "59 23 31 * *",
            ]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]),
            // Days on which clocks change, among others.
            day in prop::sample::select(vec![
                "2026-03-08T00:00:00Z", "2026-03-29T00:00:00Z", "2026-04-04T12:00:00Z", "2026-10-03T12:00:00Z",
                "2026-10-25T00:00:00Z", "2026-11-01T00:00:00Z", "2018-11-04T00:00:00Z", "2026-07-01T00:00:00Z",
            ]),
            start in 0i64..36_000,
            length in 0i64..36_000,
        ) {
            let schedule = Schedule::new(expression, Some(zone)).unwrap();
            let after = Timestamp::from_second(at(day).as_second() + start).unwrap();
            let until = Timestamp::from_second(after.as_second() + length).unwrap();
            let all = std::iter::successors(schedule.next(after), |time| schedule.next(*time));
            let last = all.take_while(|time| *time <= until).last();
            prop_assert_eq!(schedule.latest(after, until), last);
        }
    }
}
