//! What this node holds for the DHT: records and provider records, with quotas, and what must reach the disk.
//!
//! libp2p's own `MemoryStore` has one pool for everybody: a single peer can fill it, and the node then
//! refuses the whole network, itself included. Here every peer has a share, and at the cap the key farthest
//! from this node gives way (Kademlia's own measure of whose job a key is). Everything put here was checked
//! before ([`wattle_types::Record::check`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{KBucketDistance, KBucketKey, ProviderRecord, Record as KadRecord, RecordKey as KadKey};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::limits::{
    PROVIDERS_HELD_MAX, PROVIDERS_PER_KEY_MAX, PROVIDERS_PER_PEER_MAX, RECORD_KEY_BYTES_MAX,
    RECORD_VALUE_BYTES_MAX, RECORDS_HELD_MAX, RECORDS_PER_PEER_MAX,
};
use wattle_types::{Table, UnixTime, Write, cbor};

use crate::Restored;

/// The caps of a store; [`Caps::standard`] in a node, smaller ones in tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) records: usize,
    pub(crate) records_per_peer: usize,
    pub(crate) providers: usize,
    pub(crate) providers_per_peer: usize,
}

impl Caps {
    pub(crate) const fn standard() -> Self {
        Self {
            records: RECORDS_HELD_MAX,
            records_per_peer: RECORDS_PER_PEER_MAX,
            providers: PROVIDERS_HELD_MAX,
            providers_per_peer: PROVIDERS_PER_PEER_MAX,
        }
    }
}

/// Why something was not stored. The sender's fault or our cap; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The sender has its share already.
    Quota,
    /// The store is full of keys nearer to this node.
    Full,
}

/// A record held, and who brought it.
#[derive(Clone, Debug)]
struct Held {
    record: KadRecord,
    source: PeerId,
    expires: UnixTime,
    touched: Instant,
}

/// A record on disk: `Table::Records`, keyed by the record key.
#[derive(Serialize, Deserialize)]
struct StoredRecord {
    value: ByteBuf,
    source: ByteBuf,
    expires: UnixTime,
}

/// Largest provider record on disk: eight addresses with long names, and its key.
const STORED_PROVIDER_BYTES_MAX: usize = 8 * 1024;

/// A provider record on disk: `Table::Providers`, keyed by provider key, a zero byte and the provider's id.
#[derive(Serialize, Deserialize)]
struct StoredProvider {
    key: ByteBuf,
    provider: ByteBuf,
    expires: UnixTime,
    /// As multiaddrs in binary.
    addresses: Vec<ByteBuf>,
}

/// The store.
pub(crate) struct Records {
    me: KBucketKey<PeerId>,
    caps: Caps,
    records: BTreeMap<Vec<u8>, Held>,
    records_of: BTreeMap<PeerId, usize>,
    /// Keys by distance, so that the farthest is found without a scan.
    by_distance: BTreeSet<(KBucketDistance, Vec<u8>)>,
    /// Keys by when somebody last brought them.
    by_touch: BTreeSet<(Instant, Vec<u8>)>,
    providers: BTreeMap<Vec<u8>, BTreeMap<PeerId, (ProviderRecord, UnixTime)>>,
    provider_count: usize,
    providers_of: BTreeMap<PeerId, usize>,
    /// Writes not yet handed to the disk.
    writes: Vec<Write>,
}

impl Records {
    pub(crate) fn new(me: PeerId, caps: Caps) -> Self {
        Self {
            me: KBucketKey::from(me),
            caps,
            records: BTreeMap::new(),
            records_of: BTreeMap::new(),
            by_distance: BTreeSet::new(),
            by_touch: BTreeSet::new(),
            providers: BTreeMap::new(),
            provider_count: 0,
            providers_of: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    /// This node.
    pub(crate) fn me(&self) -> &PeerId {
        self.me.preimage()
    }

    /// Takes back what an earlier run left. Entries that do not decode or are past their time are dropped
    /// from disk too.
    pub(crate) fn restore(&mut self, restored: &Restored, wall: UnixTime, now: Instant) {
        for (key, bytes) in &restored.records {
            match cbor::decode::<StoredRecord>(bytes, RECORD_VALUE_BYTES_MAX * 2) {
                Ok(stored) if stored.expires > wall => {
                    let source = PeerId::from_bytes(&stored.source).unwrap_or(*self.me.preimage());
                    let record = KadRecord {
                        key: KadKey::new(key),
                        value: stored.value.into_vec(),
                        publisher: None,
                        expires: Some(now + stored.expires.since(wall)),
                    };
                    self.hold(Held { record, source, expires: stored.expires, touched: now });
                }
                Ok(_) | Err(_) => self.writes.push(Write::Remove { table: Table::Records, key: key.clone() }),
            }
        }
        for (key, bytes) in &restored.providers {
            let stored = cbor::decode::<StoredProvider>(bytes, STORED_PROVIDER_BYTES_MAX)
                .ok()
                .filter(|stored| stored.expires > wall);
            let provider = stored.as_ref().and_then(|stored| PeerId::from_bytes(&stored.provider).ok());
            let (Some(stored), Some(provider)) = (stored, provider) else {
                self.writes.push(Write::Remove { table: Table::Providers, key: key.clone() });
                continue;
            };
            let record = ProviderRecord {
                key: KadKey::new(&stored.key),
                provider,
                expires: Some(now + stored.expires.since(wall)),
                addresses: stored.addresses.iter().filter_map(|bytes| multiaddr(bytes)).collect(),
            };
            self.hold_provider(record, stored.expires);
        }
    }

    /// What changed since the last call and must reach the disk.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    pub(crate) const fn provider_count(&self) -> usize {
        self.provider_count
    }

    /// Stores a checked record that `source` brought. Whoever brings what is held already prolongs it at
    /// most: it neither becomes its source nor shortens its life.
    pub(crate) fn accept(
        &mut self,
        mut record: KadRecord,
        mut source: PeerId,
        mut expires: UnixTime,
    ) -> Result<(), Refused> {
        let held = self.records.get(record.key.as_ref());
        if let Some(held) = held.filter(|held| held.record.value == record.value) {
            if source != *self.me.preimage() {
                source = held.source;
            }
            expires = expires.max(held.expires);
            record.expires = record.expires.zip(held.record.expires).map(|(new, old)| new.max(old));
        }
        if held.is_none() {
            let share = self.records_of.get(&source).copied().unwrap_or(0);
            if source != *self.me.preimage() && share >= self.caps.records_per_peer {
                return Err(Refused::Quota);
            }
            if self.records.len() >= self.caps.records {
                self.make_room(&record.key, source == *self.me.preimage())?;
            }
        }
        let stored = StoredRecord {
            value: ByteBuf::from(record.value.clone()),
            source: ByteBuf::from(source.to_bytes()),
            expires,
        };
        self.writes.push(Write::Put {
            table: Table::Records,
            key: record.key.to_vec(),
            value: cbor::encode(&stored),
        });
        self.hold(Held { record, source, expires, touched: Instant::now() });
        Ok(())
    }

    /// Stores a provider record; the provider is the peer that sent it, which kad has checked.
    pub(crate) fn accept_provider(
        &mut self,
        record: ProviderRecord,
        expires: UnixTime,
    ) -> Result<(), Refused> {
        let known = self
            .providers
            .get(record.key.as_ref())
            .is_some_and(|of_key| of_key.contains_key(&record.provider));
        let mine = record.provider == *self.me.preimage();
        if record.key.as_ref().len() > RECORD_KEY_BYTES_MAX {
            return Err(Refused::Quota);
        }
        if !known && !mine {
            let share = self.providers_of.get(&record.provider).copied().unwrap_or(0);
            let of_key = self.providers.get(record.key.as_ref()).map_or(0, BTreeMap::len);
            if share >= self.caps.providers_per_peer {
                return Err(Refused::Quota);
            }
            if self.provider_count >= self.caps.providers || of_key >= PROVIDERS_PER_KEY_MAX {
                return Err(Refused::Full);
            }
        }
        let stored = StoredProvider {
            key: ByteBuf::from(record.key.to_vec()),
            provider: ByteBuf::from(record.provider.to_bytes()),
            expires,
            addresses: record.addresses.iter().map(|address| ByteBuf::from(address.to_vec())).collect(),
        };
        let key = provider_disk_key(&record.key, &record.provider);
        self.writes.push(Write::Put { table: Table::Providers, key, value: cbor::encode(&stored) });
        self.hold_provider(record, expires);
        Ok(())
    }

    /// Forgets what is past its time.
    pub(crate) fn expire(&mut self, wall: UnixTime) {
        let old: Vec<KadKey> = self
            .records
            .values()
            .filter(|held| held.expires <= wall)
            .map(|held| held.record.key.clone())
            .collect();
        for key in old {
            self.remove(&key);
        }
        let old: Vec<(KadKey, PeerId)> = self
            .providers
            .iter()
            .flat_map(|(key, of_key)| {
                of_key.iter().map(move |(provider, (_, expires))| (key, provider, expires))
            })
            .filter(|(_, _, expires)| **expires <= wall)
            .map(|(key, provider, _)| (KadKey::new(key), *provider))
            .collect();
        for (key, provider) in old {
            self.remove_provider(&key, &provider);
        }
    }

    /// A record that nobody has brought for `span`: it may have fewer holders than it should.
    pub(crate) fn stale(&mut self, now: Instant, span: Duration) -> Option<KadRecord> {
        let (touched, key) = self.by_touch.first()?.clone();
        if now.saturating_duration_since(touched) < span {
            return None;
        }
        self.touch(&key, now);
        self.records.get(&key).map(|held| held.record.clone())
    }

    fn touch(&mut self, key: &[u8], now: Instant) {
        if let Some(held) = self.records.get_mut(key) {
            self.by_touch.remove(&(held.touched, key.to_vec()));
            held.touched = now;
            self.by_touch.insert((now, key.to_vec()));
        }
    }

    /// Gives up the farthest key that is not this node's own for `key`, or refuses when `key` is the
    /// farthest. What this node publishes itself stays, and always finds room.
    fn make_room(&mut self, key: &KadKey, mine: bool) -> Result<(), Refused> {
        let distance = self.distance(key);
        let foreign =
            |key: &[u8]| self.records.get(key).is_some_and(|held| held.source != *self.me.preimage());
        let victim = self.by_distance.iter().rev().find(|(_, key)| foreign(key)).cloned();
        let Some((farthest, victim)) = victim else {
            return Err(Refused::Full);
        };
        if farthest <= distance && !mine {
            return Err(Refused::Full);
        }
        self.remove(&KadKey::new(&victim));
        Ok(())
    }

    fn distance(&self, key: &KadKey) -> KBucketDistance {
        self.me.distance(&KBucketKey::new(key.clone()))
    }

    fn hold(&mut self, held: Held) {
        let key = held.record.key.to_vec();
        let source = held.source;
        self.by_distance.insert((self.distance(&held.record.key), key.clone()));
        self.by_touch.insert((held.touched, key.clone()));
        if let Some(old) = self.records.insert(key.clone(), held) {
            self.by_touch.remove(&(old.touched, key));
            release(&mut self.records_of, &old.source);
        }
        *self.records_of.entry(source).or_default() += 1;
    }

    fn hold_provider(&mut self, record: ProviderRecord, expires: UnixTime) {
        let provider = record.provider;
        let of_key = self.providers.entry(record.key.to_vec()).or_default();
        if of_key.insert(provider, (record, expires)).is_none() {
            self.provider_count += 1;
            *self.providers_of.entry(provider).or_default() += 1;
        }
    }
}

fn release(shares: &mut BTreeMap<PeerId, usize>, peer: &PeerId) {
    if let Some(share) = shares.get_mut(peer) {
        *share = share.saturating_sub(1);
        if *share == 0 {
            shares.remove(peer);
        }
    }
}

fn multiaddr(bytes: &[u8]) -> Option<Multiaddr> {
    Multiaddr::try_from(bytes.to_vec()).ok()
}

fn provider_disk_key(key: &KadKey, provider: &PeerId) -> Vec<u8> {
    [key.as_ref(), &[0], &provider.to_bytes()].concat()
}

/// What kad itself reads and, for this node's own records, writes.
impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, KadRecord>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &KadKey) -> Option<Cow<'_, KadRecord>> {
        self.records.get(key.as_ref()).map(|held| Cow::Borrowed(&held.record))
    }

    /// kad calls this for this node's own records, after `accept` has stored them with their wall-clock
    /// expiry.
    fn put(&mut self, record: KadRecord) -> StoreResult<()> {
        if record.value.len() > RECORD_VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge);
        }
        if self.records.contains_key(record.key.as_ref()) { Ok(()) } else { Err(Error::MaxRecords) }
    }

    fn remove(&mut self, key: &KadKey) {
        if let Some(held) = self.records.remove(key.as_ref()) {
            release(&mut self.records_of, &held.source);
            self.by_distance.remove(&(self.distance(key), key.to_vec()));
            self.by_touch.remove(&(held.touched, key.to_vec()));
            self.writes.push(Write::Remove { table: Table::Records, key: key.to_vec() });
        }
    }

    /// For kad's own replication job, which is off.
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    /// kad calls this for this node's own announcements, after `accept_provider` has stored them.
    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        let known = self
            .providers
            .get(record.key.as_ref())
            .is_some_and(|of_key| of_key.contains_key(&record.provider));
        if known { Ok(()) } else { Err(Error::MaxProvidedKeys) }
    }

    fn providers(&self, key: &KadKey) -> Vec<ProviderRecord> {
        self.providers
            .get(key.as_ref())
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|(record, _)| record.clone())
            .collect()
    }

    /// For kad's own republishing job, which is off.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &KadKey, provider: &PeerId) {
        let Some(of_key) = self.providers.get_mut(key.as_ref()) else { return };
        if of_key.remove(provider).is_some() {
            self.provider_count = self.provider_count.saturating_sub(1);
            release(&mut self.providers_of, provider);
            self.writes
                .push(Write::Remove { table: Table::Providers, key: provider_disk_key(key, provider) });
        }
        if self.providers.get(key.as_ref()).is_some_and(BTreeMap::is_empty) {
            self.providers.remove(key.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const CAPS: Caps = Caps { records: 8, records_per_peer: 4, providers: 8, providers_per_peer: 4 };

    fn later() -> UnixTime {
        WALL.after(Duration::from_secs(60))
    }

    fn record(key: u32) -> KadRecord {
        KadRecord::new(KadKey::new(&key.to_be_bytes()), vec![1])
    }

    fn provider(key: u32, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(KadKey::new(&key.to_be_bytes()), provider, Vec::new())
    }

    fn store() -> Records {
        Records::new(PeerId::random(), CAPS)
    }

    #[test]
    fn who_brings_a_record_again_neither_owns_it_nor_shortens_its_life() {
        let mut store = Records::new(PeerId::random(), CAPS);
        let (owner, replayer) = (PeerId::random(), PeerId::random());
        store.accept(record(1), owner, later()).unwrap();
        store.accept(record(1), replayer, WALL).unwrap();
        store.expire(WALL);
        assert_eq!(store.record_count(), 1);
        assert_eq!(store.records_of.get(&owner), Some(&1));
        assert_eq!(store.records_of.get(&replayer), None);
    }

    #[test]
    fn one_peer_cannot_take_more_than_its_share() {
        let (mut store, greedy, honest) = (store(), PeerId::random(), PeerId::random());
        let taken = (0..100).filter(|key| store.accept(record(*key), greedy, later()).is_ok()).count();
        assert_eq!(taken, CAPS.records_per_peer);
        assert_eq!(store.accept(record(200), honest, later()), Ok(()));
        let announced =
            (0..10_000).filter(|key| store.accept_provider(provider(*key, greedy), later()).is_ok()).count();
        assert_eq!(announced, CAPS.providers_per_peer);
        assert_eq!(store.accept_provider(provider(1, honest), later()), Ok(()));
    }

    #[test]
    fn at_the_cap_the_farthest_key_gives_way() {
        let mut store = store();
        for key in 0..200 {
            match store.accept(record(key), PeerId::random(), later()) {
                Ok(()) | Err(Refused::Full) => {}
                Err(Refused::Quota) => panic!("nobody is over a share"),
            }
        }
        let mut distances: Vec<_> = (0..200).map(|key| store.distance(&record(key).key)).collect();
        distances.sort();
        let held: Vec<_> = store.by_distance.iter().map(|(distance, _)| *distance).collect();
        assert_eq!(held, distances[..CAPS.records]);
        assert_eq!(store.record_count(), CAPS.records);
    }

    #[test]
    fn strangers_push_out_nothing_of_this_nodes_own() {
        let mut store = store();
        let me = *store.me();
        for key in 0..4 {
            store.accept(record(key), me, later()).unwrap();
        }
        for key in 4..500 {
            match store.accept(record(key), PeerId::random(), later()) {
                Ok(()) | Err(Refused::Full) => {}
                Err(Refused::Quota) => panic!("nobody is over a share"),
            }
        }
        assert!((0..4).all(|key| store.get(&record(key).key).is_some()));
        for key in 500..503 {
            assert_eq!(
                store.accept(record(key), me, later()),
                Ok(()),
                "own records find room in a full store"
            );
        }
        assert_eq!(store.record_count(), CAPS.records);
    }

    #[test]
    fn what_is_held_comes_back_after_a_restart_until_it_expires() {
        let (mut store, peer) = (store(), PeerId::random());
        store.accept(record(1), peer, later()).unwrap();
        store.accept_provider(provider(2, peer), later()).unwrap();
        let mut restored = Restored::default();
        for write in store.take_writes() {
            let Write::Put { table, key, value } = write else { panic!("nothing was removed") };
            match table {
                Table::Records => restored.records.push((key, value)),
                _ => restored.providers.push((key, value)),
            }
        }
        restored.records.push((b"junk".to_vec(), b"junk".to_vec()));

        let mut again = Records::new(PeerId::random(), CAPS);
        again.restore(&restored, WALL, Instant::now());
        assert_eq!(again.get(&record(1).key).unwrap().value, vec![1]);
        assert_eq!(again.providers(&provider(2, peer).key).len(), 1);
        assert_eq!(again.take_writes(), vec![Write::Remove { table: Table::Records, key: b"junk".to_vec() }]);

        again.expire(later());
        assert_eq!((again.record_count(), again.provider_count()), (0, 0));

        let mut too_late = Records::new(PeerId::random(), CAPS);
        too_late.restore(&restored, later(), Instant::now());
        assert_eq!((too_late.record_count(), too_late.provider_count()), (0, 0));
    }

    #[test]
    fn a_replaced_record_counts_once_for_whoever_brought_it_last() {
        let (mut store, first, second) = (store(), PeerId::random(), PeerId::random());
        store.accept(record(1), first, later()).unwrap();
        store.accept(KadRecord { value: vec![2], ..record(1) }, second, later()).unwrap();
        assert_eq!(store.records_of, BTreeMap::from([(second, 1)]));
        assert_eq!((store.by_distance.len(), store.by_touch.len()), (1, 1));
    }

    #[test]
    fn only_a_record_that_nobody_brought_lately_is_replicated() {
        let (mut store, hour) = (store(), Duration::from_secs(3600));
        store.accept(record(1), PeerId::random(), later()).unwrap();
        let now = Instant::now();
        assert_eq!(store.stale(now, hour), None);
        assert_eq!(store.stale(now + hour, hour).map(|record| record.value), Some(vec![1]));
        assert_eq!(store.stale(now + hour, hour), None, "once an hour");
    }
}
