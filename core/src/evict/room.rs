//! How much room there is, and how much there has to be made.

/// How much may be held. Bytes, and objects where the disk's inodes are scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nothing is taken in above the high watermark, and what is above goes.
    pub high: Amount,
    /// Once something has to go, it goes down to here: many at once cost less.
    pub low: Amount,
}

/// Bytes and objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of blocks.
    pub bytes: u64,
    /// Objects, each with an inode of its own.
    pub objects: u64,
}

/// Shares of a capacity, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    high: u8,
    low: u8,
}

impl Watermarks {
    /// The low one is below the high one, and that is at most 100.
    pub fn new(high: u8, low: u8) -> Result<Self, WatermarkError> {
        match low < high && high <= 100 {
            true => Ok(Self { high, low }),
            false => Err(WatermarkError { high, low }),
        }
    }
}

impl Default for Watermarks {
    /// Twenty evictions of many objects, not one for each, replace all there is.
    fn default() -> Self {
        Self { high: 100, low: 95 }
    }
}

/// Watermarks that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the high watermark is {high} % and the low one {low} %: 1 to 100 are allowed for the high one, and less than that for the low one"
)]
pub struct WatermarkError {
    high: u8,
    low: u8,
}

/// What there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Held, and promised to writes under way.
    pub used: Amount,
    /// How much may be.
    pub limits: Limits,
}

/// What is to be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Less than this is not enough.
    pub least: Amount,
    /// As much is to be had for the same trouble.
    pub wanted: Amount,
}

impl Amount {
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { bytes: of(self.bytes, other.bytes), objects: of(self.objects, other.objects) }
    }

    /// The sum; as much as can be counted when it is more.
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// The difference; none when `other` is more.
    pub fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// Whether it is at least `other`, in bytes and in objects.
    pub fn covers(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.objects >= other.objects
    }
}

impl Limits {
    /// Of a capacity.
    pub fn new(capacity: Amount, watermarks: Watermarks) -> Self {
        let part = |of: u64, percent: u8| (u128::from(of) * u128::from(percent) / 100) as u64;
        let at = |percent| Amount {
            bytes: part(capacity.bytes, percent),
            objects: part(capacity.objects, percent),
        };
        Self { high: at(watermarks.high), low: at(watermarks.low) }
    }
}

impl Room {
    /// What has to go so that `more` can come; `None` when it fits. `more` of nothing asks
    /// whether the limits are kept.
    pub fn shortage(&self, more: Amount) -> Option<Shortage> {
        let used = self.used.plus(more);
        let least = used.minus(self.limits.high);
        // Down to the low watermark only in what is scarce.
        let wanted = least.each(used.minus(self.limits.low), |least, wanted| match least {
            0 => 0,
            least => wanted.max(least),
        });
        (least != Amount::default()).then_some(Shortage { least, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(bytes: u64, objects: u64) -> Amount {
        Amount { bytes, objects }
    }

    #[test]
    fn from_above_the_high_watermark_to_the_low_one() {
        let limits = Limits::new(amount(1000, 100), Watermarks::new(90, 80).unwrap());
        let room = |bytes, objects| Room { used: amount(bytes, objects), limits };
        assert_eq!(room(900, 90).shortage(Amount::default()), None);
        let shortage = |least, wanted| Some(Shortage { least, wanted });
        assert_eq!(room(901, 90).shortage(Amount::default()), shortage(amount(1, 0), amount(101, 0)));
        assert_eq!(room(890, 90).shortage(amount(10, 1)), shortage(amount(0, 1), amount(0, 11)));
    }

    #[test]
    fn watermarks_that_make_no_sense_are_named() {
        for (high, low) in [(0, 0), (80, 80), (80, 90), (101, 80)] {
            let why = Watermarks::new(high, low).unwrap_err().to_string();
            assert!(why.contains(&format!("is {high} % and the low one {low} %")), "{why}");
        }
    }

    proptest! {
        #[test]
        fn giving_up_the_least_makes_it_fit(
            used in (0..1u64 << 40, 0..1u64 << 30),
            more in (0..1u64 << 30, 0..10u64),
            capacity in (0..1u64 << 40, 0..1u64 << 30),
            (low, high) in (0u8..99).prop_flat_map(|low| (Just(low), low + 1..=100)),
        ) {
            let watermarks = Watermarks::new(high, low).unwrap();
            let limits = Limits::new(amount(capacity.0, capacity.1), watermarks);
            let (used, more) = (amount(used.0, used.1), amount(more.0, more.1));
            let fits = |used: Amount| limits.high.covers(used.plus(more));
            match (Room { used, limits }).shortage(more) {
                None => prop_assert!(fits(used)),
                Some(Shortage { least, wanted }) => {
                    prop_assert!(!fits(used) && wanted.covers(least));
                    let more_than_there_is = !used.covers(least);
                    prop_assert!(more_than_there_is || fits(used.minus(least)));
                }
            }
        }
    }
}
