//! How often something may happen.

use std::time::Duration;

use wattle_types::Time;

/// So often in the long run, and so many times at once (the leaky bucket as a meter, ITU-T I.371, annex A).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    every: Duration,
    ahead_max: Duration,
    until: Time,
}

impl Pace {
    pub(crate) fn new(every: Duration, at_once: u32) -> Self {
        Self { every, ahead_max: every.saturating_mul(at_once.saturating_sub(1)), until: Time::ZERO }
    }

    /// Whether it may happen now; then it has.
    pub(crate) fn allows(&mut self, now: Time) -> bool {
        if self.until.since(now) > self.ahead_max {
            return false;
        }
        self.until = self.until.max(now).after(self.every);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_so_often() {
        let mut pace = Pace::new(Duration::from_millis(50), 3);
        let at = |millis: u64| Time::from_micros(1000 * millis);
        assert_eq!(
            [100, 100, 100, 100, 120, 151, 151].map(|millis| pace.allows(at(millis))),
            [true, true, true, false, false, true, false]
        );
    }
}
