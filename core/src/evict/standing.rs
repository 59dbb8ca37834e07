//! How valuable a version of a dataset is to its node: which goes first, and what may
//! take its room.

use std::cmp::Ordering;

/// Who needs a version on this node, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// It is only here.
    #[default]
    Nobody,
    /// A warm-up has ordered it.
    Warmup,
    /// Pods that run here, or are to.
    Pods,
}

/// What a version of a dataset is to a node. Compared field by field in this order: what
/// pods need is of more value than anything else, whatever its priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Who needs it.
    pub need: Need,
    /// Its Dataset is pinned, and it is the current version or one that is needed: it is
    /// not given up for anything.
    pub pinned: bool,
    /// Pods that come get this version: it is current, or held for somebody.
    pub current: bool,
    /// Of its Dataset; higher is worth more.
    pub priority: i32,
}

/// For whom there is to be room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// To stay within a limit, since others fill the disk or the limit is lower now.
    /// Everything has to yield but what is pinned.
    Limit,
    /// For more of a version of this standing. Only what is of less standing yields:
    /// equals would take turns in evicting one another.
    Version(Standing),
}

impl Claim {
    /// Whether a version of that standing yields.
    pub fn takes_from(&self, standing: &Standing) -> bool {
        let yields = match self {
            Self::Limit => true,
            Self::Version(claimant) => standing < claimant,
        };
        yields && !standing.pinned
    }
}

/// The order in which versions are given up: by standing, and among equals by heat, the
/// coldest first.
pub fn least_valuable_first(one: (&Standing, f64), other: (&Standing, f64)) -> Ordering {
    one.0.cmp(other.0).then_with(|| one.1.total_cmp(&other.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the least to the most valuable.
    fn ladder() -> [Standing; 7] {
        let nothing = Standing::default();
        let current = Standing { current: true, ..nothing };
        [
            Standing { priority: 1_000, ..nothing },
            Standing { priority: -1, ..current },
            current,
            Standing { priority: 1, ..current },
            Standing { need: Need::Warmup, ..current },
            Standing { need: Need::Pods, priority: -5, ..nothing },
            Standing { need: Need::Pods, pinned: true, ..current },
        ]
    }

    #[test]
    fn what_is_of_less_value_yields_and_equals_do_not() {
        for (at, claimant) in ladder().iter().enumerate() {
            for (other, standing) in ladder().iter().enumerate() {
                let takes = Claim::Version(*claimant).takes_from(standing);
                assert_eq!(takes, other < at, "{claimant:?} from {standing:?}");
            }
        }
    }

    #[test]
    fn limits_take_from_all_but_the_pinned() {
        assert!(ladder().iter().all(|standing| Claim::Limit.takes_from(standing) != standing.pinned));
        let pinned = Standing { pinned: true, ..Standing::default() };
        let pods = Standing { need: Need::Pods, ..Standing::default() };
        assert!(!Claim::Version(pods).takes_from(&pinned));
        assert!(!Claim::Version(pinned).takes_from(&pods), "pods come before what is only pinned");
    }

    #[test]
    fn among_equals_the_coldest_goes_first() {
        let [old, .., top] = ladder();
        let mut versions = [(top, 0.1), (old, 3.0), (old, 0.5), (top, 0.0)];
        versions.sort_by(|one, other| least_valuable_first((&one.0, one.1), (&other.0, other.1)));
        assert_eq!(versions, [(old, 0.5), (old, 3.0), (top, 0.0), (top, 0.1)]);
    }
}
