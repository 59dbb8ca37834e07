//! What can go wrong at an origin, as far as a caller decides on it.

use hearth_core::wire::report::TroubleKind;
use std::time::Duration;

/// Why an origin did not do what it was asked. Each carries one sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The object is not, or no longer, what the manifest says.
    #[error("{0}")]
    Changed(String),
    /// The object is no longer there.
    #[error("{0}")]
    Gone(String),
    /// The bucket or the directory does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The credentials are missing, or do not suffice.
    #[error("{0}")]
    Denied(String),
    /// The origin asks for fewer requests.
    #[error("{message}")]
    Throttled {
        /// What it said.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer, a broken one, or an error of the origin's own.
    #[error("{0}")]
    Unavailable(String),
    /// An answer that makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The origin, as the Dataset names it, cannot be used here at all.
    #[error("{0}")]
    Refused(String),
}

impl OriginError {
    /// Whether the same request may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unavailable(_))
    }

    /// Whether it is the object that is not what the manifest says, and nothing else is wrong.
    pub fn is_of_the_object(&self) -> bool {
        matches!(self, Self::Changed(_) | Self::Gone(_))
    }

    /// How long the origin wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// As a report says it.
    pub fn trouble(&self) -> TroubleKind {
        match self {
            Self::Changed(_) | Self::Gone(_) => TroubleKind::Changed,
            Self::Denied(_) => TroubleKind::Credentials,
            Self::NotFound(_)
            | Self::Throttled { .. }
            | Self::Unavailable(_)
            | Self::Malformed(_)
            | Self::Refused(_) => TroubleKind::Origin,
        }
    }

    /// One CamelCase word, as the reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Changed(_) => "Changed",
            Self::Gone(_) => "Gone",
            Self::NotFound(_) => "NotFound",
            Self::Denied(_) => "Denied",
            Self::Throttled { .. } => "Throttled",
            Self::Unavailable(_) => "Unavailable",
            Self::Malformed(_) => "Malformed",
            Self::Refused(_) => "Refused",
        }
    }
}

impl OriginError {
    /// The label of the metric that counts requests.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Changed(_) | Self::Gone(_) => "changed",
            Self::NotFound(_) => "not_found",
            Self::Denied(_) => "denied",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "refused",
        }
    }
}

/// Text from outside, fit for a log line or a status: short, and of one line.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_one_short_line(text: String) {
            let shown = shown(&text);
            prop_assert!(shown.chars().count() <= 201);
            prop_assert!(!shown.contains(['\n', '\r', '\0']));
        }
    }
}
