//! The wall clock, at the edge.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wattle_types::UnixTime;

/// How far the clock is wrong on purpose: only ever set in the nodes of a testnet. Of the process, as clocks are.
static SKEW_MS: AtomicI64 = AtomicI64::new(0);

/// Now, as it crosses a restart or a network.
#[must_use]
pub fn unix_now() -> UnixTime {
    let now = Timestamp::now().as_millisecond().saturating_add(skew_ms());
    UnixTime::from_millis(u64::try_from(now).unwrap_or(0))
}

/// The wall clock was set when it is off by this.
const SET: Duration = Duration::from_millis(50);

/// What a machine believes of the wall clock, which it counts on from what it was told last.
#[derive(Clone, Copy, Debug)]
pub struct Believed {
    told: UnixTime,
    at: Instant,
}

impl Believed {
    /// It was told this now.
    #[must_use]
    pub fn now(told: UnixTime) -> Self {
        Self { told, at: Instant::now() }
    }

    /// What to tell it, when somebody set the clock or the machine slept meanwhile.
    pub fn news(&mut self) -> Option<UnixTime> {
        let (now, expected) = (unix_now(), self.told.after(self.at.elapsed()));
        let off = now.since(expected).max(expected.since(now));
        (off > SET).then(|| {
            *self = Self::now(now);
            now
        })
    }
}

/// Sets the clock of this process so many milliseconds ahead, or behind.
pub fn set_skew_ms(skew_ms: i64) {
    SKEW_MS.store(skew_ms, Ordering::Relaxed);
}

/// How many milliseconds it is ahead on purpose.
#[must_use]
pub fn skew_ms() -> i64 {
    SKEW_MS.load(Ordering::Relaxed)
}

/// The time as it stands in documents; one that no calendar holds is the last one that does.
#[must_use]
pub fn timestamp(time: UnixTime) -> Timestamp {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}
