//! How long answers take: the last round trips to each member and to all.

use std::collections::VecDeque;
use std::time::Duration;

/// Round trips kept of one member. The smallest is the estimate, the largest stands for the 99th percentile.
const OF_ONE: usize = 20;

/// Round trips kept of all members together.
const OF_ALL: usize = 128;

/// Samples without which a timeout is not derived from them.
const ENOUGH: usize = 5;

/// Round trips of one member.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrips(VecDeque<u32>);

impl RoundTrips {
    pub(crate) fn add(&mut self, span: Duration) {
        if self.0.len() == OF_ONE {
            self.0.pop_front();
        }
        self.0.push_back(u32::try_from(span.as_micros()).unwrap_or(u32::MAX));
    }

    /// The smallest of the last: what the path takes without queues.
    pub(crate) fn estimate(&self) -> Option<Duration> {
        self.0.iter().min().map(|micros| Duration::from_micros(u64::from(*micros)))
    }

    /// The largest of the last, if there are enough.
    pub(crate) fn slowest(&self) -> Option<Duration> {
        let slowest = self.0.iter().max().filter(|_| self.0.len() >= ENOUGH);
        slowest.map(|micros| Duration::from_micros(u64::from(*micros)))
    }
}

/// Round trips of all members: a node probes one of a thousand twice an hour, and must not wait for that.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllRoundTrips(VecDeque<u32>);

impl AllRoundTrips {
    pub(crate) fn add(&mut self, span: Duration) {
        if self.0.len() == OF_ALL {
            self.0.pop_front();
        }
        self.0.push_back(u32::try_from(span.as_micros()).unwrap_or(u32::MAX));
    }

    /// The 99th percentile, if there are enough.
    pub(crate) fn slowest(&self) -> Option<Duration> {
        if self.0.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = sorted.len() * 99 / 100;
        sorted.get(at.min(sorted.len() - 1)).map(|micros| Duration::from_micros(u64::from(*micros)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_smallest_of_the_last_twenty() {
        let mut trips = RoundTrips::default();
        assert_eq!((trips.estimate(), trips.slowest()), (None, None));
        for millis in [1, 9, 8, 7, 6] {
            trips.add(Duration::from_millis(millis));
        }
        assert_eq!(trips.estimate(), Some(Duration::from_millis(1)));
        assert_eq!(trips.slowest(), Some(Duration::from_millis(9)));
        for _ in 0..20 {
            trips.add(Duration::from_millis(5));
        }
        assert_eq!(trips.estimate(), Some(Duration::from_millis(5)));
        assert_eq!(trips.slowest(), Some(Duration::from_millis(5)));
    }
}
