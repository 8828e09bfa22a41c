//! The wall clock, at the edge.

use jiff::Timestamp;
use wattle_types::UnixTime;

/// Now, as it crosses a restart or a network.
#[must_use]
pub fn unix_now() -> UnixTime {
    UnixTime::from_millis(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// The time as it stands in documents; one that no calendar holds is the last one that does.
#[must_use]
pub fn timestamp(time: UnixTime) -> Timestamp {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}
