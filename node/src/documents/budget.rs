//! How much memory the open documents of all machines take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wattle_docs::Shard;

/// Bytes of open documents, of all machines. Beyond it what nobody used for a second is put away, and read again when
/// it is used: reading back a document of a few kilobytes takes a millisecond, and half a second each megabyte of text.
pub(super) const OPEN_BYTES_MAX: u64 = 256 << 20;

/// What each machine last said.
#[derive(Clone)]
pub(super) struct Budget(Arc<[AtomicU64]>);

impl Budget {
    pub(super) fn new(shards: u16) -> Self {
        Self(Shard::each(shards).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes what the open documents of a machine take; says whether that of all is too much.
    pub(super) fn is_over(&self, shard: Shard, bytes: u64) -> bool {
        if let Some(its) = self.0.get(usize::from(shard.index())) {
            its.store(bytes, Ordering::Relaxed);
        }
        let all = self.0.iter().map(|its| its.load(Ordering::Relaxed));
        all.fold(0, u64::saturating_add) > OPEN_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_machines_hold_counts_together_and_what_one_put_away_counts_no_more() {
        let budget = Budget::new(3);
        let shards: Vec<Shard> = Shard::each(3).collect();
        assert!(!budget.is_over(shards[0], OPEN_BYTES_MAX / 2));
        assert!(!budget.is_over(shards[1], OPEN_BYTES_MAX / 2));
        assert!(budget.is_over(shards[2], 1));
        assert!(budget.is_over(shards[2], 1), "it stays so until something is put away");
        assert!(!budget.is_over(shards[0], 0));
    }
}
