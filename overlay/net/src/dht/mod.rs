//! The DHT: Kademlia with records that prove themselves.
//!
//! # What it does
//!
//! Drives libp2p's Kademlia queries and holds everything they bring to the rules of [`wattle_types::Record`]:
//! a record is checked when a peer wants it stored here and again on every answer of a lookup, since a holder
//! may lie.
//!
//! # Steps of a get (Maymounkov and Mazieres, "Kademlia", 2002, section 2.3; S/Kademlia section 4.4)
//!
//! 1. Iterate towards the key over disjoint paths; every answer is checked, and a bad one is remembered with
//!    its sender.
//! 2. A content-addressed record ends the lookup at the first valid answer: there can be no better one. A
//!    mutable one asks all k holders, because the highest sequence may be anywhere.
//! 3. Holders of an older version are given the best one (Kademlia section 2.3, caching; read repair).
//!
//! # Deviations
//!
//! * A put is read back: libp2p answers "stored" before our peers' checks run, so the answer alone proves
//!   nothing. Near peers that answer without the record are offered it once more: a lookup counts a peer out
//!   when its connection closes under the question, as the slower of two that were dialed at once does.
//! * A lookup of peers goes up to three rounds. libp2p counts a peer out for good when its connection closes
//!   under a question, be it that the other side was full or that both had dialed, and so could miss the
//!   nearest of all although everybody near the key names it. A lookup that lost a question asks once more.
//! * No bootstrap over all buckets: a joining node looks itself up as soon as it knows one peer and once more
//!   some minutes later, and far buckets follow one at a time ([`Dht::on_tick`]). libp2p's automatic
//!   bootstrap, which cannot be switched off, is left to tables of fewer than k peers.
//! * Whoever is in a full bucket stays until it stops serving the DHT or cannot be dialed where the table says
//!   it is ([`Dht::unreachable`]); section 2.2 would ping it for every newcomer. libp2p dials instead, whoever
//!   answers offers itself at the other end, fills a bucket there, and so on: each join and each lookup would
//!   set off dials all over the overlay. A dead peer leaves at the first lookup that meets it (section 4.1).
//!
//! # Bounds
//!
//! 256 queries at once; records and providers by [`store::Caps`]; requests to store per peer by [`Rates`].

mod publish;
mod query;
mod rates;
mod start;
pub(crate) mod store;
mod table;
pub(crate) mod trace;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{
    KBucketKey, ProviderRecord, QueryId, QueryInfo, QueryResult, Record as KadRecord, RecordKey as KadKey,
};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::Swarm;
use libp2p::{Multiaddr, PeerId, kad};
use tokio::sync::oneshot;
use wattle_types::limits::RECORD_TTL_MAX_MS;
use wattle_types::{NetworkName, NodeId, Precedence, Record, Time, UnixTime, Write};

use crate::address_book::AddressBook;
use crate::behaviour::{Behaviour, K, node_id, peer_id};
use crate::command::{DhtCommand, answer, when_durable};
use crate::event::Watchers;
use crate::peers::Offer;
use crate::report::{Bucket, BucketPeer, ClosestPeer, DhtStats, PersistBatch, TraceTarget};
use crate::translate::{DhtInput, Progress};
use crate::{Address, Config, Event, Misbehaviour, Restored};
use publish::Publisher;
use query::{Outcome, Query, Statistics};
use rates::Rates;
use table::Diversity;

/// Queries of callers under way at once; beyond it a caller is told that the node is busy by a timeout of its
/// own.
const QUERIES_MAX: usize = 256;
/// A far bucket is refreshed this often (Kademlia section 2.3: hourly per bucket; about ten buckets are
/// occupied).
const REFRESH_EVERY: Duration = Duration::from_secs(6 * 60);

type Kad = kad::Behaviour<store::Records>;

/// The part of the actor that knows the DHT.
pub(crate) struct Dht {
    me: NodeId,
    network: NetworkName,
    watchers: Watchers,
    queries: HashMap<QueryId, Query>,
    statistics: Statistics,
    publisher: Publisher,
    rates: Rates,
    gate: Diversity,
    records_rejected: u64,
    /// Whether no bucket was refreshed yet.
    young: bool,
    next_refresh: Time,
    next_expiry: Time,
}

/// Leading bits that two keys share: 256 minus the position of the highest bit of their distance.
pub(crate) fn shared_bits<A, B>(one: &KBucketKey<A>, other: &KBucketKey<B>) -> u32 {
    one.distance(other).ilog2().map_or(256, |highest| 255_u32.saturating_sub(highest))
}

/// The DHT key of a target.
pub(crate) fn target_key(network: &NetworkName, target: &TraceTarget) -> Vec<u8> {
    match target {
        TraceTarget::Peer(peer) => peer.to_peer_id_bytes().to_vec(),
        TraceTarget::Record(key) => key.to_bytes(network),
        TraceTarget::Provider(key) => key.as_bytes().to_vec(),
    }
}

impl Dht {
    pub(crate) fn new(config: &Config, restored: &Restored, watchers: Watchers) -> Self {
        let me = config.key.node_id();
        Self {
            me,
            network: config.network.clone(),
            watchers,
            queries: HashMap::new(),
            statistics: Statistics::default(),
            publisher: Publisher::new(&config.key, &config.network, &restored.published),
            rates: Rates::default(),
            gate: Diversity::default(),
            records_rejected: 0,
            young: true,
            next_refresh: Time::ZERO.after(first_refresh(me)),
            next_expiry: Time::ZERO,
        }
    }

    pub(crate) fn command(
        &mut self,
        now: Time,
        wall: UnixTime,
        swarm: &mut Swarm<Behaviour>,
        command: DhtCommand,
    ) -> PersistBatch {
        let kad = &mut swarm.behaviour_mut().kad;
        match command {
            DhtCommand::Table(reply) => answer(reply, self.table(kad)),
            DhtCommand::Stats(reply) => answer(reply, self.stats(kad)),
            DhtCommand::Nearest { target, reply } => answer(reply, self.nearest(kad, &target)),
            DhtCommand::IsProviding { key, reply } => answer(reply, self.publisher.is_providing(&key)),
            DhtCommand::StopProviding { key, reply } => {
                kad.stop_providing(&KadKey::new(key.as_bytes()));
                self.publisher.stop_providing(&key);
                let (done, durable) = oneshot::channel();
                when_durable(durable, reply, ());
                return PersistBatch { writes: self.take_writes(swarm), done: Some(done) };
            }
            command => {
                let done = self.start_query(now, wall, swarm, command);
                return PersistBatch { writes: self.take_writes(swarm), done };
            }
        }
        PersistBatch { writes: self.take_writes(swarm), done: None }
    }

    /// What changed since the last call and must reach the disk.
    pub(crate) fn take_writes(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<Write> {
        let mut writes = swarm.behaviour_mut().kad.store_mut().take_writes();
        writes.append(&mut self.publisher.take_writes());
        writes
    }

    pub(crate) fn on_event(
        &mut self,
        now: Time,
        wall: UnixTime,
        swarm: &mut Swarm<Behaviour>,
        book: &AddressBook,
        input: DhtInput,
    ) {
        match input {
            DhtInput::Progress(progress) => self.on_progress(now, wall, swarm, progress),
            DhtInput::PutRequest { source, record } => self.on_put_request(wall, swarm, source, record),
            DhtInput::ProvideRequest { record } => self.on_provide_request(wall, swarm, book, record),
            DhtInput::TableGrew => {
                let kad = &mut swarm.behaviour_mut().kad;
                let size = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
                join(kad, peer_id(self.me), size);
                self.watchers.tell(Event::Table { size });
            }
        }
    }

    fn on_progress(&mut self, now: Time, wall: UnixTime, swarm: &mut Swarm<Behaviour>, progress: Progress) {
        let Progress { query: id, result, stats, last } = progress;
        let kad = &mut swarm.behaviour_mut().kad;
        if let QueryResult::Bootstrap(_) = &result {
            // The library's bootstrap goes on to ask for a random key in every bucket, so that joining costs
            // more the larger the network is. Its first part, the lookup of this node itself, is all a
            // joining node needs.
            if let Some(mut query) = kad.query_mut(&id).filter(|_| !last) {
                query.finish();
            }
            return;
        }
        let Some(query) = self.queries.get_mut(&id) else { return };
        let enough = query.on_progress(now, &self.network, wall, stats, result);
        if enough
            && !last
            && let Some(mut running) = kad.query_mut(&id)
        {
            running.finish();
        }
        if last && let Some(query) = self.queries.remove(&id) {
            self.finish(now, swarm, query);
        }
    }

    /// A query ended: answer, repair, or go on to its next phase.
    fn finish(&mut self, now: Time, swarm: &mut Swarm<Behaviour>, query: Query) {
        self.records_rejected = self.records_rejected.saturating_add(query.rejected_count());
        let report = query.report();
        let kad = &mut swarm.behaviour_mut().kad;
        let network = &self.network;
        let offer = |kad: &mut Kad, record: Record, to: BTreeSet<NodeId>| {
            let key = KadKey::new(&record.key_bytes(network));
            let record = KadRecord::new(key, record.value().to_vec());
            // All: at the first that has it, those still being dialed would be forgotten.
            kad.put_record_to(record, to.into_iter().map(peer_id), kad::Quorum::All)
        };
        // A put is one query to whoever counts them.
        let (id, next) = match query.finish(now, self.me, network) {
            Outcome::ReadBack { key, next } => (kad.get_record(KadKey::new(&key)), next),
            Outcome::OfferAgain { record, to, next } => (offer(kad, record, to), next),
            Outcome::Repair { record, stale } => {
                offer(kad, record, stale);
                return self.tell(report);
            }
            Outcome::AskAgain { key, next } => (kad.get_closest_peers(key), next),
            Outcome::Done => return self.tell(report),
        };
        self.queries.insert(id, *next);
    }

    fn tell(&mut self, report: Event) {
        self.statistics.note(&report);
        self.watchers.tell(report);
    }

    /// A peer wants a record stored here.
    fn on_put_request(
        &mut self,
        wall: UnixTime,
        swarm: &mut Swarm<Behaviour>,
        source: PeerId,
        record: KadRecord,
    ) {
        if !self.rates.allow(source, Instant::now()) {
            return self.misbehaved(&source, Misbehaviour::OverQuota("requests to store"));
        }
        let key = record.key.to_vec();
        let offered = match Record::check(&self.network, &key, &record.value, wall) {
            Ok(offered) => offered,
            Err(why) => {
                self.records_rejected = self.records_rejected.saturating_add(1);
                return self.misbehaved(&source, Misbehaviour::BadRecord(why.to_string()));
            }
        };
        let store = swarm.behaviour_mut().kad.store_mut();
        let held = store
            .get(&record.key)
            .and_then(|held| Record::check(&self.network, &key, &held.value, wall).ok());
        match held.map(|held| offered.precedence_over(&held)) {
            None | Some(Precedence::Newer | Precedence::Same) => {
                let expires = void_at(wall, &offered, record.expires);
                // kad drops by its own clock and believes the sender; it gets the time that was decided here.
                let expires_at = Some(Instant::now() + expires.since(wall));
                let record = KadRecord { expires: expires_at, ..record };
                if store.accept(record, source, expires).is_err() {
                    self.misbehaved(&source, Misbehaviour::OverQuota("records"));
                }
            }
            // A slow holder, not a liar.
            Some(Precedence::Stale) => {}
            Some(Precedence::Conflicting) => {
                let why = "another record with the same sequence number is held".to_owned();
                self.misbehaved(&source, Misbehaviour::BadRecord(why));
            }
        }
    }

    /// A peer says that it has something.
    fn on_provide_request(
        &mut self,
        wall: UnixTime,
        swarm: &mut Swarm<Behaviour>,
        book: &AddressBook,
        mut record: ProviderRecord,
    ) {
        let provider = record.provider;
        if !self.rates.allow(provider, Instant::now()) {
            return self.misbehaved(&provider, Misbehaviour::OverQuota("requests to store"));
        }
        // A peer's whereabouts come from what was seen of it (identify), not from a claim that we would pass
        // on. Never none: libp2p gives providers without addresses only to whom it has in its table, and that
        // is nobody that only asks, and few of those far away.
        let known = node_id(&provider).map(|provider| book.addresses(provider)).unwrap_or_default();
        record.addresses = known.iter().map(|address| address.as_multiaddr().clone()).collect();
        if record.addresses.is_empty() {
            record.addresses = vec![Multiaddr::from(Protocol::P2p(provider))];
        }
        let expires = wall.after(Duration::from_millis(RECORD_TTL_MAX_MS));
        let refused = swarm.behaviour_mut().kad.store_mut().accept_provider(record, expires).err();
        if refused == Some(store::Refused::Quota) {
            self.misbehaved(&provider, Misbehaviour::OverQuota("provider keys"));
        }
    }

    fn misbehaved(&mut self, peer: &PeerId, what: Misbehaviour) {
        if let Some(peer) = node_id(peer) {
            self.watchers.complain(peer, what);
        }
    }

    /// A peer of this network that serves the DHT said where it listens.
    pub(crate) fn offer(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId, offer: &Offer) {
        let id = peer_id(peer);
        let bucket = shared_bits(&KBucketKey::from(peer_id(self.me)), &KBucketKey::from(id));
        let kad = &mut swarm.behaviour_mut().kad;
        let known = table_addresses(kad, &id);
        let full = kad.kbucket(id).is_none_or(|bucket| bucket.num_entries() >= K.get());
        if offer.addresses.is_empty()
            || (known.is_empty() && full)
            || !self.gate.admit(peer, bucket, &offer.via)
        {
            return;
        }
        // The table keeps every address it was ever told; a peer that moves on would grow without end there.
        for old in known {
            if !offer.addresses.contains(&Address::from_multiaddr(old.clone()).without_peer()) {
                kad.remove_address(&id, &old);
            }
        }
        let mut updates =
            offer.addresses.iter().map(|address| kad.add_address(&id, address.as_multiaddr().clone()));
        if updates.any(|update| update == kad::RoutingUpdate::Failed) {
            self.gate.left(peer);
        }
    }

    /// A connection to a peer closed: questions on their way to it are lost.
    pub(crate) fn hung_up(&mut self, peer: NodeId) {
        for query in self.queries.values_mut() {
            query.on_hung_up(peer);
        }
    }

    /// A dial failed: questions that waited for it will not be asked.
    pub(crate) fn not_dialed(&mut self, peer: NodeId) {
        for query in self.queries.values_mut() {
            query.on_unreachable(peer);
        }
    }

    /// A peer no longer serves the DHT.
    pub(crate) fn withdraw(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId) {
        self.gate.left(peer);
        swarm.behaviour_mut().kad.remove_peer(&peer_id(peer));
    }

    /// A dial failed at these addresses. libp2p keeps dead peers in the table, where every lookup waits for
    /// them again; but that a stranger named a wrong address must not remove anybody.
    pub(crate) fn unreachable(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId, tried: &[Address]) {
        let listed = table_addresses(&mut swarm.behaviour_mut().kad, &peer_id(peer));
        let tried: Vec<Address> = tried.iter().map(Address::without_peer).collect();
        let mut listed = listed.into_iter().map(|address| Address::from_multiaddr(address).without_peer());
        if listed.all(|address| tried.contains(&address)) {
            self.withdraw(swarm, peer);
        }
    }

    /// Somebody else answered at this address of a peer: it has none there any more.
    pub(crate) fn occupied(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId, by_other: &Address) {
        let id = peer_id(peer);
        let kad = &mut swarm.behaviour_mut().kad;
        for listed in table_addresses(kad, &id) {
            let same = Address::from_multiaddr(listed.clone()).without_peer() == by_other.without_peer();
            if same && kad.remove_address(&id, &listed).is_some() {
                self.gate.left(peer);
            }
        }
    }

    pub(crate) fn on_tick(&mut self, now: Time, wall: UnixTime, swarm: &mut Swarm<Behaviour>) {
        self.end_overdue(now, swarm);
        let kad = &mut swarm.behaviour_mut().kad;
        let alone = kad.kbuckets().all(|bucket| bucket.is_empty());
        if self.next_expiry <= now {
            kad.store_mut().expire(wall);
            self.rates.forget_idle(Instant::now());
            self.next_expiry = now.after(Duration::from_secs(30));
        }
        if alone {
            return;
        }
        if self.next_refresh <= now {
            // Once more this node itself, now that there is more than one peer to begin with.
            let first = std::mem::take(&mut self.young);
            kad.get_closest_peers(if first { peer_id(self.me) } else { PeerId::random() });
            self.next_refresh = now.after(REFRESH_EVERY);
        }
        self.publisher.on_tick(now, wall, kad);
    }

    /// Ends queries whose time is over or whose caller has left.
    fn end_overdue(&mut self, now: Time, swarm: &mut Swarm<Behaviour>) {
        let overdue: Vec<QueryId> =
            self.queries.iter().filter(|(_, query)| query.is_over(now)).map(|(id, _)| *id).collect();
        let stalled = self.queries.iter().filter(|(_, query)| query.has_stalled(now)).map(|(id, _)| *id);
        for id in stalled {
            if let Some(mut running) = swarm.behaviour_mut().kad.query_mut(&id) {
                running.finish();
            }
        }
        for id in overdue {
            if let Some(mut running) = swarm.behaviour_mut().kad.query_mut(&id) {
                running.finish();
            }
            if let Some(query) = self.queries.remove(&id) {
                self.tell(query.report());
                query.time_out(now);
            }
        }
    }

    fn nearest(&self, kad: &mut Kad, target: &TraceTarget) -> Vec<ClosestPeer> {
        let key = KBucketKey::new(target_key(&self.network, target));
        let me = peer_id(self.me);
        kad.find_closest_local_peers(&key, &me)
            .filter_map(|found| {
                Some(ClosestPeer {
                    peer: node_id(&found.node_id)?,
                    shared_bits: shared_bits(&key, &KBucketKey::from(found.node_id)),
                    addresses: found
                        .multiaddrs
                        .into_iter()
                        .map(|a| Address::from_multiaddr(a).without_peer())
                        .collect(),
                })
            })
            .collect()
    }

    fn table(&self, kad: &mut Kad) -> Vec<Bucket> {
        let me = KBucketKey::from(peer_id(self.me));
        let buckets = kad.kbuckets().filter(|bucket| !bucket.is_empty()).map(|bucket| {
            let mut shared = 0;
            let peers = bucket
                .iter()
                .filter_map(|entry| {
                    shared = shared_bits(&me, entry.node.key);
                    let addresses = entry.node.value.iter();
                    Some(BucketPeer {
                        peer: node_id(entry.node.key.preimage())?,
                        connected: entry.status == kad::NodeStatus::Connected,
                        addresses: addresses
                            .map(|a| Address::from_multiaddr(a.clone()).without_peer())
                            .collect(),
                    })
                })
                .collect();
            Bucket { shared_bits: shared, peers }
        });
        let mut buckets: Vec<Bucket> = buckets.collect();
        buckets.sort_by_key(|bucket| bucket.shared_bits);
        buckets
    }

    fn stats(&self, kad: &mut Kad) -> DhtStats {
        let store = kad.store_mut();
        DhtStats {
            queries: self.statistics.rows(),
            records_held: store.record_count(),
            providers_held: store.provider_count(),
            published: self.publisher.len(),
            records_rejected: self.records_rejected,
        }
    }

    pub(crate) fn published(&self) -> usize {
        self.publisher.len()
    }
}

/// What a table that has grown to `size` peers calls for.
fn join(kad: &mut Kad, me: PeerId, size: usize) {
    if size == 1 {
        kad.get_closest_peers(me);
    }
    // libp2p notes at each of the first k - 1 peers to look this node up half a second later, which was just done.
    // Only the start of a bootstrap makes it forget that; this one ends before it asks anybody.
    if size == K.get()
        && let Ok(id) = kad.bootstrap()
        && let Some(mut query) = kad.query_mut(&id)
    {
        query.finish();
    }
}

/// Nodes that started together refresh at different times: a half to one and a half intervals in, by their id.
fn first_refresh(me: NodeId) -> Duration {
    let share = me.public_key().first().copied().unwrap_or_default();
    REFRESH_EVERY / 2 + REFRESH_EVERY * u32::from(share) / 256
}

/// What the lookups under way are looking for.
pub(crate) fn sought(kad: &Kad) -> Vec<KBucketKey<Vec<u8>>> {
    let key = |info: &QueryInfo| match info {
        QueryInfo::Bootstrap { peer, .. } => peer.to_bytes(),
        QueryInfo::GetClosestPeers { key, .. } => key.clone(),
        QueryInfo::GetProviders { key, .. }
        | QueryInfo::AddProvider { key, .. }
        | QueryInfo::GetRecord { key, .. } => key.to_vec(),
        QueryInfo::PutRecord { record, .. } => record.key.to_vec(),
    };
    kad.iter_queries().map(|query| KBucketKey::new(key(query.info()))).collect()
}

/// The addresses that the routing table has of a peer.
fn table_addresses(kad: &mut Kad, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(*peer) else { return Vec::new() };
    let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
    entry.map(|entry| entry.node.value.iter().cloned().collect()).unwrap_or_default()
}

/// When a record is void: when its owner signed that it is, or for unsigned ones when the sender wishes, and
/// at the cap. Anybody may bring a signed record, so the sender's wish counts for nothing there: it could
/// make a record vanish from its holders.
fn void_at(wall: UnixTime, record: &Record, wished: Option<Instant>) -> UnixTime {
    let cap = wall.after(Duration::from_millis(RECORD_TTL_MAX_MS));
    let wished = wished.map_or(cap, |at| wall.after(at.saturating_duration_since(Instant::now())));
    cap.min(record.expires().unwrap_or(wished))
}
