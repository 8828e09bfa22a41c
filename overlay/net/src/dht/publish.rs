//! What this node keeps alive in the DHT: its own records and announcements, and those it holds for others.
//!
//! libp2p's own jobs copy the whole store into memory and send it at once. Here one thing is published at a
//! time: own ones every 12 hours (Kademlia section 2.3 republishes every 24; half of it survives one missed
//! round), restored ones spread over the first minutes, and a record held for others when nobody has brought
//! it for an hour, so that of k holders one does the work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{self, Record as KadRecord, RecordKey as KadKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::limits::PUBLISHED_MAX;
use wattle_types::{ProviderKey, Table, Time, UnixTime, Write, cbor};

use super::start::void_at_cap;
use super::store::Records;

const REPUBLISH_EVERY: Duration = Duration::from_secs(12 * 3600);
/// After a put this soon again: it may have been made while alone, or its holders may have left at once.
const FIRST_REPUBLISH_AFTER: Duration = Duration::from_secs(60);
const RESTORED_PAUSE: Duration = Duration::from_secs(2);
const REPLICATE_AFTER: Duration = Duration::from_secs(3600);
/// One publication per this much time.
const PAUSE: Duration = Duration::from_millis(500);

/// One thing kept alive, on disk under its DHT key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kept {
    /// A record, until it expires.
    Record { expires: UnixTime },
    /// An announcement, until it is taken back.
    Provider { key: ByteBuf },
}

/// The publisher.
pub(super) struct Publisher {
    kept: BTreeMap<Vec<u8>, (Kept, Time)>,
    next: Time,
    /// Added to the hour after which a record is replicated, so that its k holders do not all wake at once.
    jitter: Duration,
    writes: Vec<Write>,
}

impl Publisher {
    pub(super) fn new(restored: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut writes = Vec::new();
        let mut kept = BTreeMap::new();
        let mut due = Time::ZERO.after(Duration::from_secs(10));
        for (key, bytes) in restored {
            match cbor::decode::<Kept>(bytes, 1024) {
                Ok(entry) => {
                    kept.insert(key.clone(), (entry, due));
                    due = due.after(RESTORED_PAUSE);
                }
                Err(_) => writes.push(Write::Remove { table: Table::Published, key: key.clone() }),
            }
        }
        let jitter = Duration::from_secs(u64::from(getrandom::u32().unwrap_or(0)) % 1200);
        Self { kept, next: Time::ZERO, jitter, writes }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < PUBLISHED_MAX
    }

    pub(super) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    pub(super) fn add_record(&mut self, now: Time, key: &[u8], expires: UnixTime) {
        self.keep(now, key, Kept::Record { expires });
    }

    pub(super) fn add_provider(&mut self, now: Time, key: &ProviderKey) {
        self.keep(now, key.as_bytes(), Kept::Provider { key: ByteBuf::from(key.as_bytes().to_vec()) });
    }

    pub(super) fn stop_providing(&mut self, key: &ProviderKey) {
        self.drop_key(key.as_bytes());
    }

    fn keep(&mut self, now: Time, key: &[u8], kept: Kept) {
        self.writes.push(Write::Put {
            table: Table::Published,
            key: key.to_vec(),
            value: cbor::encode(&kept),
        });
        self.kept.insert(key.to_vec(), (kept, now.after(FIRST_REPUBLISH_AFTER)));
    }

    fn drop_key(&mut self, key: &[u8]) {
        if self.kept.remove(key).is_some() {
            self.writes.push(Write::Remove { table: Table::Published, key: key.to_vec() });
        }
    }

    /// Publishes at most one thing.
    pub(super) fn on_tick(&mut self, now: Time, wall: UnixTime, kad: &mut kad::Behaviour<Records>) {
        if now < self.next {
            return;
        }
        self.next = now.after(PAUSE);
        let due = self
            .kept
            .iter()
            .find(|(_, (_, due))| *due <= now)
            .map(|(key, (kept, _))| (key.clone(), kept.clone()));
        if let Some((key, kept)) = due {
            self.publish(now, wall, kad, &key, &kept);
        } else if let Some(record) = kad.store_mut().stale(Instant::now(), REPLICATE_AFTER + self.jitter)
            && kad.put_record(record, kad::Quorum::One).is_err()
        {
            tracing::debug!("a record left the store before it was replicated");
        }
    }

    fn publish(
        &mut self,
        now: Time,
        wall: UnixTime,
        kad: &mut kad::Behaviour<Records>,
        key: &[u8],
        kept: &Kept,
    ) {
        let kad_key = KadKey::new(&key);
        match kept {
            Kept::Record { expires } if *expires <= wall => return self.drop_key(key),
            Kept::Record { .. } => {
                let held = kad.store_mut().get(&kad_key).map(|held| held.value.clone());
                let Some(value) = held else { return self.drop_key(key) };
                if kad.put_record(KadRecord::new(kad_key, value), kad::Quorum::One).is_err() {
                    tracing::debug!("a record waits for the next round");
                }
            }
            Kept::Provider { .. } => {
                let me = *kad.store_mut().me();
                let record = kad::ProviderRecord::new(kad_key.clone(), me, Vec::new());
                let renewed = kad.store_mut().accept_provider(record, void_at_cap(wall)).is_ok();
                if !renewed || kad.start_providing(kad_key).is_err() {
                    tracing::debug!("an announcement waits for the next round");
                }
            }
        }
        if let Some((_, due)) = self.kept.get_mut(key) {
            *due = now.after(REPUBLISH_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_survives_a_restart_and_damage_is_dropped() {
        let mut publisher = Publisher::new(&[]);
        publisher.add_record(Time::ZERO, b"/wattle/hash/x", UnixTime::from_millis(5));
        let Some(Write::Put { key, value, .. }) = publisher.take_writes().pop() else {
            panic!("kept on disk")
        };
        let mut again = Publisher::new(&[(key, value), (b"bad".to_vec(), b"bad".to_vec())]);
        assert_eq!(again.len(), 1);
        assert_eq!(again.take_writes(), [Write::Remove { table: Table::Published, key: b"bad".to_vec() }]);
    }
}
