//! Status conditions as Kubernetes' conventions have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The three values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say yet.
    Unknown,
}

impl ConditionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Sets a condition among others. Its time moves only when its status does, so
/// that `lastTransitionTime` says since when.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let before = conditions.iter().find(|condition| condition.type_ == kind);
    let since = before
        .filter(|condition| condition.status == status.as_str())
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(before) => *before = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        let mut set = |status, message: &str, now| {
            set_condition(&mut conditions, "Ready", status, "Because", message.to_owned(), Some(1), at(now));
            (conditions.len(), conditions[0].message.clone(), conditions[0].last_transition_time.0)
        };
        assert_eq!(set(ConditionStatus::False, "a", 1), (1, "a".to_owned(), at(1)));
        assert_eq!(set(ConditionStatus::False, "b", 2), (1, "b".to_owned(), at(1)));
        assert_eq!(set(ConditionStatus::True, "c", 3), (1, "c".to_owned(), at(3)));
    }
}
