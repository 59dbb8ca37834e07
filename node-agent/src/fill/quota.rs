//! What datasets may still take on this node: one account a dataset, whoever wants
//! which part of it. Pure.

use std::collections::{BTreeSet, HashMap};

/// The accounts, by the UID of the Dataset.
#[derive(Debug, Default)]
pub(super) struct Quotas(HashMap<String, Account>);

/// Bytes of one dataset.
#[derive(Clone, Copy, Debug)]
struct Account {
    quota: u64,
    held: u64,
    /// Asked for and not there yet.
    asked: u64,
}

/// The quota of a dataset and what it takes, as it was just counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// `spec.cache.quota`.
    pub(super) quota: u64,
    /// Bytes of all its versions that are on this node.
    pub(super) held: u64,
}

impl Quotas {
    /// What a dataset takes has been counted; `None` when it has no quota. What ended
    /// since the count is counted twice until the next one, which errs on the safe side.
    pub(super) fn counted(&mut self, uid: &str, counted: Option<Counted>) {
        let Some(Counted { quota, held }) = counted else {
            self.0.remove(uid);
            return;
        };
        let asked = self.0.get(uid).map_or(0, |account| account.asked);
        self.0.insert(uid.to_owned(), Account { quota, held, asked });
    }

    /// Takes room for `bytes`; the error is the quota that has no more.
    pub(super) fn take(&mut self, uid: &str, bytes: u64) -> Result<(), u64> {
        let Some(account) = self.0.get_mut(uid) else { return Ok(()) };
        let all = account.held.saturating_add(account.asked).saturating_add(bytes);
        if all > account.quota {
            return Err(account.quota);
        }
        account.asked += bytes;
        Ok(())
    }

    /// Of `asked` bytes that room was taken for, `done` are there and no more will come.
    pub(super) fn ended(&mut self, uid: &str, asked: u64, done: u64) {
        if let Some(account) = self.0.get_mut(uid) {
            account.asked = account.asked.saturating_sub(asked);
            account.held = account.held.saturating_add(done);
        }
    }

    /// Forgets datasets of which nothing is wanted and nothing is under way.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<&str>) {
        self.0.retain(|uid, account| account.asked > 0 || wanted.contains(uid.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_quota_all_is_allowed() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.take("d", u64::MAX), Ok(()));
        quotas.counted("d", Some(Counted { quota: 10, held: 0 }));
        assert_eq!(quotas.take("d", 11), Err(10));
        quotas.counted("d", None);
        assert_eq!(quotas.take("d", 11), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_held_and_asked_for_never_exceeds_the_quota(
            quota in 0u64..1000,
            held in 0u64..1000,
            steps in prop::collection::vec((1u64..200, 0u64..=100, any::<bool>()), 0..60),
        ) {
            let mut quotas = Quotas::default();
            quotas.counted("d", Some(Counted { quota, held }));
            let (mut there, mut under_way) = (held, Vec::new());
            for (bytes, percent, ends) in steps {
                if ends && let Some(asked) = under_way.pop() {
                    let done = asked * percent / 100;
                    quotas.ended("d", asked, done);
                    there += done;
                } else if quotas.take("d", bytes).is_ok() {
                    under_way.push(bytes);
                    prop_assert!(there + under_way.iter().sum::<u64>() <= quota);
                } else {
                    prop_assert!(there + under_way.iter().sum::<u64>() + bytes > quota, "refused without need");
                }
            }
        }
    }
}
