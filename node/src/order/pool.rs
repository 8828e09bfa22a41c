//! Entries that wait to be ordered: bounded, in the order in which they came, each once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_bytes::ByteBuf;
use wattle_order::{Digest, Payload, transaction_hash};
use wattle_types::{NodeId, UnixTime};
use wattle_weave::order::{Entry, InvalidEntry, fill};

/// Entries that wait.
const ENTRIES_MAX: usize = 16 * 1024;
/// Their bytes.
const BYTES_MAX: usize = 16 << 20;
/// What one validator may hand on, of both: a quarter.
const SHARE: usize = 4;

/// Why an entry does not wait here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is none. The fault of who sent it.
    #[error(transparent)]
    Invalid(#[from] InvalidEntry),
    /// Its time is over, or too far ahead. The fault of who sent it, or of a clock.
    #[error("its time is over, or more than two minutes ahead of this node's clock")]
    Untimely,
    /// Too much waits. To do: try again later.
    #[error("too many entries wait to be ordered")]
    Full,
}

struct Waiting {
    bytes: ByteBuf,
    entry: Entry,
    from: NodeId,
}

/// The entries.
#[derive(Default)]
pub(super) struct Pool {
    waiting: BTreeMap<Digest, Waiting>,
    order: VecDeque<Digest>,
    bytes: usize,
    shares: BTreeMap<NodeId, (usize, usize)>,
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes an entry; its hash, and whether it is new.
    pub(super) fn add(
        &mut self,
        now: UnixTime,
        from: NodeId,
        is_own: bool,
        bytes: ByteBuf,
    ) -> Result<(Digest, bool), NotTaken> {
        let entry = Entry::decode(&bytes)?;
        let hash = transaction_hash(&bytes);
        if self.waiting.contains_key(&hash) {
            return Ok((hash, false));
        }
        if !entry.lives_at(now) {
            return Err(NotTaken::Untimely);
        }
        let (count, size) = self.shares.get(&from).copied().unwrap_or_default();
        let share = if is_own { 1 } else { SHARE };
        let full = self.waiting.len() >= ENTRIES_MAX || self.bytes + bytes.len() > BYTES_MAX;
        if full || count >= ENTRIES_MAX / share || size + bytes.len() > BYTES_MAX / share {
            return Err(NotTaken::Full);
        }
        self.shares.insert(from, (count + 1, size + bytes.len()));
        self.bytes += bytes.len();
        self.order.push_back(hash);
        self.waiting.insert(hash, Waiting { bytes, entry, from });
        Ok((hash, true))
    }

    /// Lets go of what is ordered.
    pub(super) fn remove(&mut self, hash: &Digest) {
        let Some(gone) = self.waiting.remove(hash) else { return };
        self.bytes -= gone.bytes.len();
        if let Some((count, size)) = self.shares.get_mut(&gone.from) {
            *count -= 1;
            *size -= gone.bytes.len();
        }
        // In order, so that it is mostly the first.
        if self.order.front() == Some(hash) {
            self.order.pop_front();
        } else if self.order.len() > 2 * self.waiting.len() + 64 {
            self.order.retain(|hash| self.waiting.contains_key(hash));
        }
    }

    /// Lets go of what no block may have any more; which.
    pub(super) fn expire(&mut self, time: UnixTime) -> Vec<Digest> {
        let over = self.waiting.iter().filter(|(_, waiting)| waiting.entry.until < time);
        let over: Vec<Digest> = over.map(|(hash, _)| *hash).collect();
        over.iter().for_each(|hash| self.remove(hash));
        over
    }

    /// What a block of that time orders, on top of what is taken.
    pub(super) fn payload(&self, time: UnixTime, taken: &BTreeSet<Digest>) -> Payload {
        let waiting = self.order.iter().filter_map(|hash| Some((hash, self.waiting.get(hash)?)));
        let living = waiting.filter(|(_, waiting)| waiting.entry.lives_at(time));
        fill(living.map(|(hash, waiting)| (hash, &waiting.bytes)), taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(salt: u64, size: usize) -> ByteBuf {
        let (app, data, until) =
            ("note/1".to_owned(), ByteBuf::from(vec![1; size]), UnixTime::from_millis(900));
        ByteBuf::from(Entry { app, data, until, salt }.encode())
    }

    const NOW: UnixTime = UnixTime::from_millis(500);

    #[test]
    fn one_validator_cannot_fill_the_pool_that_others_need() {
        let (mut pool, me, other) =
            (Pool::default(), NodeId::from_public_key([1; 32]), NodeId::from_public_key([2; 32]));
        let mut salt = 0;
        let mut until_full = |pool: &mut Pool, from: NodeId, is_own: bool| {
            let before = pool.len();
            loop {
                salt += 1;
                match pool.add(NOW, from, is_own, entry(salt, 10)) {
                    Ok(_) => {}
                    Err(why) => return (why, pool.len() - before),
                }
            }
        };
        assert_eq!(until_full(&mut pool, other, false), (NotTaken::Full, ENTRIES_MAX / SHARE));
        assert_eq!(until_full(&mut pool, me, true), (NotTaken::Full, ENTRIES_MAX - ENTRIES_MAX / SHARE));
        assert_eq!(pool.expire(UnixTime::from_millis(901)).len(), ENTRIES_MAX);
        assert_eq!((pool.len(), pool.bytes), (0, 0));
        assert!(pool.add(NOW, other, false, entry(1, 10)).is_ok(), "there is room again");
    }

    #[test]
    fn an_entry_waits_once_and_not_beyond_its_time() {
        let (mut pool, me) = (Pool::default(), NodeId::from_public_key([1; 32]));
        let (hash, new) = pool.add(NOW, me, true, entry(1, 10)).unwrap();
        assert!(new && !pool.add(NOW, me, true, entry(1, 10)).unwrap().1);
        assert!(!pool.payload(NOW, &BTreeSet::new()).is_empty());
        assert!(pool.payload(UnixTime::from_millis(901), &BTreeSet::new()).is_empty());
        assert!(pool.payload(NOW, &BTreeSet::from([hash])).is_empty(), "it is in a block already");
        assert_eq!(pool.add(UnixTime::from_millis(901), me, true, entry(2, 10)), Err(NotTaken::Untimely));
    }
}
