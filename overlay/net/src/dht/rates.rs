//! How often one peer may ask to store something: a token bucket each.
//!
//! Every request costs a signature check, so the limit comes before it. 50 a second sustained is more than
//! replication of a full store needs (8192 records in an hour: 2.3 a second); a burst of 400 lets a restarted
//! publisher catch up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

const PER_SECOND: f64 = 50.0;
const BURST: f64 = 400.0;

/// The buckets of the peers that asked lately.
#[derive(Default)]
pub(crate) struct Rates {
    buckets: BTreeMap<PeerId, (f64, Instant)>,
}

impl Rates {
    /// Takes one token of `peer`; false when it has none.
    pub(crate) fn allow(&mut self, peer: PeerId, now: Instant) -> bool {
        let (tokens, last) = self.buckets.entry(peer).or_insert((BURST, now));
        let refill = now.saturating_duration_since(*last).as_secs_f64() * PER_SECOND;
        *tokens = (*tokens + refill).min(BURST);
        *last = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    /// Forgets peers whose bucket is full again.
    pub(crate) fn forget_idle(&mut self, now: Instant) {
        let full_after = Duration::from_secs_f64(BURST / PER_SECOND);
        self.buckets.retain(|_, (_, last)| now.saturating_duration_since(*last) < full_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_nobody_else_pays() {
        let (mut rates, flooder, honest) = (Rates::default(), PeerId::random(), PeerId::random());
        let start = Instant::now();
        let mut passed = 0;
        for request in 0..10_000_u32 {
            let now = start + Duration::from_millis(u64::from(request));
            passed += u32::from(rates.allow(flooder, now));
            assert!(request % 100 != 0 || rates.allow(honest, now));
        }
        assert!((890..=910).contains(&passed), "400 at once and 50 a second for ten seconds, not {passed}");
        rates.forget_idle(start + Duration::from_secs(3600));
        assert!(rates.buckets.is_empty());
    }
}
