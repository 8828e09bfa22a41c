//! What this node keeps alive in the DHT: its own records and announcements, and those it holds for others.
//!
//! libp2p's own jobs copy the whole store into memory and send it at once. Here one thing is published at a
//! time: own ones every 12 hours (Kademlia section 2.3 republishes every 24; half of it survives one missed
//! round), restored ones spread over the first minutes, and a record held for others when nobody has brought
//! it for an hour, so that of k holders one does the work.
//!
//! A record that its owner wants to last is signed anew before it expires, with the next sequence number and
//! not with the time: a put of the same key elsewhere, which has the time, stays the newer one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{self, Record as KadRecord, RecordKey as KadKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::limits::{PUBLISHED_MAX, RECORD_PAYLOAD_BYTES_MAX};
use wattle_types::{
    NetworkName, ProviderKey, Record, RecordKey, SecretKey, Table, Time, UnixTime, Write, cbor,
};

use super::start::void_at_cap;
use super::store::Records;

const REPUBLISH_EVERY: Duration = Duration::from_secs(12 * 3600);
/// After a put this soon again: it may have been made while alone, or its holders may have left at once.
const FIRST_REPUBLISH_AFTER: Duration = Duration::from_secs(60);
const RESTORED_PAUSE: Duration = Duration::from_secs(2);
const REPLICATE_AFTER: Duration = Duration::from_secs(3600);
/// A lasting record that expires this soon is signed anew, for so long: at every round of publications.
const RENEW_BEFORE: Duration = Duration::from_secs(13 * 3600);
const RENEW_FOR: Duration = Duration::from_secs(24 * 3600);
/// Largest [`Kept`] on disk.
const KEPT_BYTES_MAX: usize = RECORD_PAYLOAD_BYTES_MAX + 1024;
/// One publication per this much time.
const PAUSE: Duration = Duration::from_millis(500);

/// One thing kept alive, on disk under its DHT key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kept {
    /// A record, until it expires.
    Record { expires: UnixTime },
    /// A record of this node's own, for ever: also when it expired while the node was not running.
    Lasting { sequence: u64, expires: UnixTime, payload: ByteBuf },
    /// An announcement, until it is taken back.
    Provider { key: ByteBuf },
}

/// What becomes of a kept record.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It has expired, or another copy of this node's key has replaced it.
    Gone,
    /// It is published once more.
    Due(Record),
    /// This takes its place.
    Renewed(Record),
}

/// The publisher.
pub(super) struct Publisher {
    key: SecretKey,
    network: NetworkName,
    kept: BTreeMap<Vec<u8>, (Kept, Time)>,
    next: Time,
    /// Added to the hour after which a record is replicated, so that its k holders do not all wake at once.
    jitter: Duration,
    writes: Vec<Write>,
}

impl Publisher {
    pub(super) fn new(key: &SecretKey, network: &NetworkName, restored: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut writes = Vec::new();
        let mut kept = BTreeMap::new();
        let mut due = Time::ZERO.after(Duration::from_secs(10));
        for (at, bytes) in restored {
            match cbor::decode::<Kept>(bytes, KEPT_BYTES_MAX) {
                Ok(entry) => {
                    kept.insert(at.clone(), (entry, due));
                    due = due.after(RESTORED_PAUSE);
                }
                Err(_) => writes.push(Write::Remove { table: Table::Published, key: at.clone() }),
            }
        }
        let jitter = Duration::from_secs(u64::from(getrandom::u32().unwrap_or(0)) % 1200);
        Self { key: key.clone(), network: network.clone(), kept, next: Time::ZERO, jitter, writes }
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

    pub(super) fn add_record(&mut self, now: Time, record: &Record, expires: UnixTime, lasting: bool) {
        let kept = match record.sequence() {
            Some(sequence) if lasting && record.owner() == Some(self.key.node_id()) => {
                Kept::Lasting { sequence, expires, payload: ByteBuf::from(record.payload()) }
            }
            _ => Kept::Record { expires },
        };
        self.keep(&record.key_bytes(&self.network), kept, now.after(FIRST_REPUBLISH_AFTER));
    }

    pub(super) fn add_provider(&mut self, now: Time, key: &ProviderKey) {
        let kept = Kept::Provider { key: ByteBuf::from(key.as_bytes().to_vec()) };
        self.keep(key.as_bytes(), kept, now.after(FIRST_REPUBLISH_AFTER));
    }

    pub(super) fn is_providing(&self, key: &ProviderKey) -> bool {
        self.kept.contains_key(key.as_bytes().as_slice())
    }

    pub(super) fn stop_providing(&mut self, key: &ProviderKey) {
        self.drop_key(key.as_bytes());
    }

    fn keep(&mut self, key: &[u8], kept: Kept, due: Time) {
        self.writes.push(Write::Put {
            table: Table::Published,
            key: key.to_vec(),
            value: cbor::encode(&kept),
        });
        self.kept.insert(key.to_vec(), (kept, due));
    }

    fn drop_key(&mut self, key: &[u8]) {
        if self.kept.remove(key).is_some() {
            self.writes.push(Write::Remove { table: Table::Published, key: key.to_vec() });
        }
    }

    /// What becomes of a record of which `held` is in the store.
    fn fate(&self, wall: UnixTime, key: &[u8], kept: &Kept, held: Option<Record>) -> Fate {
        let Kept::Lasting { sequence, expires, payload } = kept else {
            return held.map_or(Fate::Gone, Fate::Due);
        };
        match held {
            Some(held) if held.sequence().is_some_and(|newer| newer > *sequence) => return Fate::Gone,
            Some(held) if *expires > wall.after(RENEW_BEFORE) => return Fate::Due(held),
            _ => {}
        }
        let Ok(RecordKey::Signed { name, .. }) = RecordKey::from_bytes(&self.network, key) else {
            return Fate::Gone;
        };
        let (sequence, expires) = (sequence.saturating_add(1), wall.after(RENEW_FOR));
        let renewed = Record::sign(&self.key, &self.network, name, sequence, expires, payload);
        renewed.map_or(Fate::Gone, Fate::Renewed)
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

    /// Takes the next version of a lasting record into the store. It goes out a minute later, when it is on
    /// disk: signed twice with one number, it would be called a forgery.
    fn renew(&mut self, now: Time, kad: &mut kad::Behaviour<Records>, record: &Record) {
        let Some(expires) = record.expires() else { return };
        let stored = KadRecord::new(KadKey::new(&record.key_bytes(&self.network)), record.value().to_vec());
        let me = *kad.store_mut().me();
        if kad.store_mut().accept(stored, me, expires).is_ok() {
            self.add_record(now, record, expires, true);
        } else if let Some((_, due)) = self.kept.get_mut(&record.key_bytes(&self.network)) {
            *due = now.after(REPUBLISH_EVERY);
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
            Kept::Record { .. } | Kept::Lasting { .. } => {
                let held = kad.store_mut().get(&kad_key).map(|held| held.value.clone());
                let held = held.and_then(|value| Record::check(&self.network, key, &value, wall).ok());
                let record = match self.fate(wall, key, kept, held) {
                    Fate::Gone => return self.drop_key(key),
                    Fate::Due(record) => KadRecord::new(kad_key, record.value().to_vec()),
                    Fate::Renewed(record) => return self.renew(now, kad, &record),
                };
                if kad.put_record(record, kad::Quorum::One).is_err() {
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
    use super::super::store::Caps;
    use super::*;
    use crate::behaviour::{kad_protocol, peer_id};

    const HOUR: Duration = Duration::from_secs(3600);

    fn publisher(restored: &[(Vec<u8>, Vec<u8>)]) -> Publisher {
        Publisher::new(&SecretKey::from_bytes(&[7; 32]), &NetworkName::default(), restored)
    }

    fn home(publisher: &Publisher, sequence: u64, expires: UnixTime) -> Record {
        let name = "home".parse().unwrap();
        Record::sign(&publisher.key, &publisher.network, name, sequence, expires, b"here").unwrap()
    }

    fn written(publisher: &mut Publisher) -> (Vec<u8>, Vec<u8>) {
        let Some(Write::Put { key, value, .. }) = publisher.take_writes().pop() else {
            panic!("kept on disk")
        };
        (key, value)
    }

    #[test]
    fn what_is_kept_survives_a_restart_and_damage_is_dropped() {
        let mut first = publisher(&[]);
        let record = Record::content(b"x".to_vec()).unwrap();
        first.add_record(Time::ZERO, &record, UnixTime::from_millis(5), false);
        let mut again = publisher(&[written(&mut first), (b"bad".to_vec(), b"bad".to_vec())]);
        assert_eq!(again.len(), 1);
        assert_eq!(again.take_writes(), [Write::Remove { table: Table::Published, key: b"bad".to_vec() }]);
    }

    #[test]
    fn a_lasting_record_is_signed_anew_before_it_expires_and_after_a_long_sleep() {
        let made = UnixTime::from_millis(1_000_000_000_000);
        let mut first = publisher(&[]);
        let record = home(&first, 41, made.after(24 * HOUR));
        first.add_record(Time::ZERO, &record, made.after(24 * HOUR), true);
        let stored = written(&mut first);
        let again = publisher(std::slice::from_ref(&stored));
        let (kept, _) = &again.kept[&stored.0];
        let fate = |after, held| again.fate(made.after(after), &stored.0, kept, held);

        assert_eq!(fate(HOUR, Some(record.clone())), Fate::Due(record.clone()), "not yet");
        for (after, held) in [(12 * HOUR, Some(record)), (500 * HOUR, None)] {
            let Fate::Renewed(renewed) = fate(after, held) else { panic!("it is time") };
            assert_eq!((renewed.sequence(), renewed.payload()), (Some(42), b"here".as_slice()));
            assert_eq!(renewed.expires(), Some(made.after(after + 24 * HOUR)));
        }
        let newer = home(&again, 1_000_000_000_000, made.after(24 * HOUR));
        assert_eq!(fate(HOUR, Some(newer)), Fate::Gone, "put elsewhere with the same key");
    }

    #[test]
    fn a_node_that_runs_for_a_week_still_publishes_what_it_was_given() {
        let begun = UnixTime::from_millis(1_000_000_000_000);
        let mut publisher = publisher(&[]);
        let me = peer_id(publisher.key.node_id());
        let settings = kad::Config::new(kad_protocol(&publisher.network));
        let mut kad = kad::Behaviour::with_config(me, Records::new(me, Caps::standard()), settings);
        let record = home(&publisher, 41, begun.after(24 * HOUR));
        let at = record.key_bytes(&publisher.network);
        let stored = KadRecord::new(KadKey::new(&at), record.value().to_vec());
        kad.store_mut().accept(stored, me, begun.after(24 * HOUR)).unwrap();
        publisher.add_record(Time::ZERO, &record, begun.after(24 * HOUR), true);

        for minute in 0..7 * 24 * 60 {
            let since = Duration::from_secs(60 * minute);
            kad.store_mut().expire(begun.after(since));
            publisher.on_tick(Time::ZERO.after(since), begun.after(since), &mut kad);
        }
        let held = kad.store_mut().get(&KadKey::new(&at)).unwrap().into_owned();
        let week = begun.after(7 * 24 * HOUR);
        let held = Record::check(&publisher.network, &at, &held.value, week).unwrap();
        // Signed anew every twelve hours.
        assert!((53..=55).contains(&held.sequence().unwrap()), "{held:?}");
    }

    #[test]
    fn a_record_with_an_end_is_left_to_it() {
        let mut publisher = publisher(&[]);
        let expires = UnixTime::from_millis(5);
        let record = home(&publisher, 41, expires);
        publisher.add_record(Time::ZERO, &record, expires, false);
        let (kept, _) = &publisher.kept[&record.key_bytes(&publisher.network)];
        assert_eq!(kept, &Kept::Record { expires });
    }
}
