//! What one node does as it likes; nobody else needs to know.

use std::time::Duration;

/// How fast things happen. Profiles fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a round may take while all goes well.
    pub timeout: Duration,
    /// How long it may take at most, however many rounds brought no commit.
    pub timeout_max: Duration,
    /// How often a timeout is told again while its round lasts (rule T: forever).
    pub retry: Duration,
    /// How long a leader waits for something to order while nothing is in a hurry.
    pub idle: Duration,
    /// How often a missing block is asked for, of somebody else each time.
    pub fetch_retry: Duration,
    /// Rule K. Off only where one key signs in two places on purpose.
    pub guards_key: bool,
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Config {
    /// One building. A round takes a few milliseconds; where the processor is so busy that each step waits for it, it
    /// takes hundreds, and a leader that failed is passed over for long, so that patience costs little.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            timeout: millis(1000),
            timeout_max: millis(10_000),
            retry: millis(500),
            idle: millis(1000),
            fetch_retry: millis(100),
            guards_key: true,
        }
    }

    /// The internet.
    #[must_use]
    pub const fn wan() -> Self {
        Self {
            timeout: millis(2000),
            timeout_max: millis(30_000),
            retry: millis(1500),
            idle: millis(3000),
            fetch_retry: millis(500),
            guards_key: true,
        }
    }

    /// The same, with every span at least a millisecond: what is told again at once is told without end.
    #[must_use]
    pub fn clamped(self) -> Self {
        let least = millis(1);
        Self {
            timeout: self.timeout.max(least),
            timeout_max: self.timeout_max.max(self.timeout).max(least),
            retry: self.retry.max(least),
            idle: self.idle,
            fetch_retry: self.fetch_retry.max(least),
            guards_key: self.guards_key,
        }
    }

    /// How long a round may take that is so many rounds behind the last commit: `timeout` for the two that a commit
    /// takes, then half as much more for each, up to `timeout_max`.
    #[must_use]
    pub fn round_timeout(&self, rounds_since_commit: u64) -> Duration {
        let mut timeout = self.timeout.min(self.timeout_max);
        for _ in 2..rounds_since_commit {
            if timeout >= self.timeout_max {
                break;
            }
            timeout = timeout.saturating_add(timeout / 2).max(timeout + Duration::from_micros(1));
        }
        timeout.min(self.timeout_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounds_timeout_never_shrinks_with_the_rounds_and_is_never_zero_or_over_its_cap() {
        for base in [0, 1, 999, 500_000, 1_000_000, u64::MAX] {
            let timeout = Duration::from_micros(base);
            let config = Config { timeout, ..Config::lan() };
            let mut last = Duration::ZERO;
            for rounds in (0..100).chain([u64::MAX]) {
                let next = config.round_timeout(rounds);
                assert!(
                    next >= last && next <= config.timeout_max && next >= timeout.min(config.timeout_max)
                );
                last = next;
            }
            assert_eq!(last, config.timeout_max);
        }
        assert_eq!(Config::lan().round_timeout(2), millis(1000));
        assert_eq!(Config::lan().round_timeout(3), millis(1500));
    }
}
