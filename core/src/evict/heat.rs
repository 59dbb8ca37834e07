//! How often something happened of late.

use crate::index::Millis;

/// A count that fades: what happened one half-life ago counts half. Time that goes
/// backwards is taken for no time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heat {
    half_life: u64,
    count: f64,
    as_of: Millis,
}

impl Heat {
    /// Of nothing yet. The half-life is in milliseconds, at least one.
    pub fn new(half_life: u64) -> Self {
        Self { half_life: half_life.max(1), count: 0.0, as_of: Millis(0) }
    }

    /// It happens so many times.
    pub fn add(&mut self, now: Millis, times: f64) {
        self.count = self.count(now) + times;
        self.as_of = self.as_of.max(now);
    }

    /// How often it happened of late.
    pub fn count(&self, now: Millis) -> f64 {
        self.count * (-(now.since(self.as_of) as f64) / self.half_life as f64).exp2()
    }

    /// How often it happens in a second, when it goes on as it did of late.
    pub fn per_second(&self, now: Millis) -> f64 {
        self.count(now) * std::f64::consts::LN_2 * 1000.0 / self.half_life as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fades_by_half() {
        let mut heat = Heat::new(1000);
        heat.add(Millis(5000), 8.0);
        assert_eq!(heat.count(Millis(5000)), 8.0);
        assert_eq!(heat.count(Millis(8000)), 1.0);
        heat.add(Millis(8000), 1.0);
        assert_eq!((heat.count(Millis(7000)), heat.count(Millis(9000))), (2.0, 1.0));
    }

    #[test]
    fn what_happens_evenly_has_its_rate() {
        let mut heat = Heat::new(10_000);
        (0..10_000).for_each(|tick| heat.add(Millis(tick * 20), 1.0));
        let rate = heat.per_second(Millis(200_000));
        assert!((rate - 50.0).abs() < 0.5, "{rate}");
    }
}
