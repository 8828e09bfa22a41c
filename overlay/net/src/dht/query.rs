//! One query of a caller, from its first answer to its reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::kad::{
    GetClosestPeersOk, GetProvidersOk, GetRecordOk, KBucketKey, PeerInfo, PeerRecord, QueryResult, QueryStats,
};
use wattle_types::{ContentHash, NetworkName, NodeId, Record, RecordKey, Time, UnixTime};

use crate::behaviour::{K, node_id, peer_id};
use crate::command::{Durable, Reply, answer, when_durable};
use crate::dht::shared_bits;
use crate::report::{
    Answer, ClosestPeer, DhtError, FoundRecord, PutReport, QueryStats as Row, RejectedAnswer,
};
use crate::{Address, Event};

/// Answers remembered that broke a rule; a hostile crowd could send more.
const REJECTED_MAX: usize = 64;
/// A lookup with answers in hand ends when none has come for this long.
const STALLED_AFTER: Duration = Duration::from_millis(1500);
/// How often a lookup sets out that loses questions on its way.
const ROUNDS_MAX: u32 = 3;
/// Peers remembered per round that hung up, and that could not be dialed. Beyond it a round is repeated that
/// need not be, which `ROUNDS_MAX` ends.
const FAILED_MAX: usize = 256;
/// Latencies remembered per kind, for percentiles.
const LATENCIES_MAX: usize = 512;

/// What a query is for.
pub(super) enum Job {
    /// Offering a record to the k nearest.
    Put {
        record: Record,
        durable: Durable,
        reply: Reply<Result<PutReport, DhtError>>,
        /// When this is the second offer, to those that the first one did not reach: who has it already.
        holders: Option<BTreeSet<NodeId>>,
    },
    /// Asking for it again, to see who has it.
    ReadBack {
        record: Record,
        durable: Durable,
        reply: Reply<Result<PutReport, DhtError>>,
        holders: BTreeSet<NodeId>,
        /// Peers near the key that answered without it.
        without: BTreeSet<NodeId>,
        /// Whether it was offered once more to those.
        again: bool,
    },
    Get {
        key: RecordKey,
        found: Found,
        reply: Reply<Result<FoundRecord, DhtError>>,
    },
    Provide {
        durable: Durable,
        reply: Reply<Result<(), DhtError>>,
    },
    FindProviders {
        count: usize,
        found: BTreeSet<NodeId>,
        reply: Reply<Result<Vec<NodeId>, DhtError>>,
    },
    FindPeer {
        peer: NodeId,
        found: Vec<Address>,
        reply: Reply<Result<Vec<Address>, DhtError>>,
    },
    Closest {
        key: Vec<u8>,
        found: Vec<ClosestPeer>,
        reply: Reply<Result<Vec<ClosestPeer>, DhtError>>,
    },
}

impl Job {
    /// What a lookup that may go several rounds is looking for.
    fn key(&self) -> Option<Vec<u8>> {
        match self {
            Self::Closest { key, .. } => Some(key.clone()),
            Self::FindPeer { peer, .. } => Some(peer.to_peer_id_bytes().to_vec()),
            _ => None,
        }
    }
}

/// What a get has found so far.
#[derive(Default)]
pub(super) struct Found {
    best: Option<Record>,
    answers: Vec<(Option<NodeId>, Option<u64>, ContentHash)>,
    rejected: Vec<RejectedAnswer>,
}

/// A query under way.
pub(super) struct Query {
    pub(super) job: Job,
    /// Of this round.
    stats: QueryStats,
    /// Of the rounds before.
    before: QueryStats,
    rounds: u32,
    /// Peers a connection to which closed during this round.
    hung_up: BTreeSet<NodeId>,
    /// Peers that could not be dialed during this round.
    unreachable: BTreeSet<NodeId>,
    begun: Instant,
    /// When the last answer came.
    progressed: Time,
    deadline: Time,
    timeout: Duration,
}

/// What follows the end of a query.
pub(super) enum Outcome {
    /// The caller has its answer.
    Done,
    /// The next phase of a put: who has it?
    ReadBack { key: Vec<u8>, next: Box<Query> },
    /// One more phase: these near peers do not have it.
    OfferAgain { record: Record, to: BTreeSet<NodeId>, next: Box<Query> },
    /// The caller has its answer, and these holders get the better record.
    Repair { record: Record, stale: BTreeSet<NodeId> },
    /// Questions were lost: the lookup sets out once more.
    AskAgain { key: Vec<u8>, next: Box<Query> },
}

impl Query {
    pub(super) fn new(job: Job, now: Time, timeout: Duration) -> Self {
        // Zero means for ever; a lookup ends by itself long before an hour.
        let timeout = if timeout.is_zero() { Duration::from_secs(3600) } else { timeout };
        Self {
            job,
            stats: QueryStats::empty(),
            before: QueryStats::empty(),
            rounds: 1,
            hung_up: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            begun: Instant::now(),
            progressed: now,
            deadline: now.after(timeout),
            timeout,
        }
    }

    const fn kind(&self) -> &'static str {
        match self.job {
            Job::Put { .. } | Job::ReadBack { .. } => "put",
            Job::Get { .. } => "get",
            Job::Provide { .. } => "provide",
            Job::FindProviders { .. } => "find_providers",
            Job::FindPeer { .. } => "find_peer",
            Job::Closest { .. } => "closest",
        }
    }

    /// A connection to this peer closed, perhaps under a question.
    pub(super) fn on_hung_up(&mut self, peer: NodeId) {
        if self.hung_up.len() < FAILED_MAX {
            self.hung_up.insert(peer);
        }
    }

    /// This peer could not be dialed.
    pub(super) fn on_unreachable(&mut self, peer: NodeId) {
        if self.unreachable.len() < FAILED_MAX {
            self.unreachable.insert(peer);
        }
    }

    /// Takes one result. True when nothing better can come, so that the query may end early.
    pub(super) fn on_progress(
        &mut self,
        now: Time,
        network: &NetworkName,
        wall: UnixTime,
        stats: QueryStats,
        result: QueryResult,
    ) -> bool {
        self.progressed = now;
        self.stats = stats;
        match (&mut self.job, result) {
            (Job::Get { key, found, .. }, QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(answer)))) => {
                found.take(network, key, wall, answer);
                // Nothing is better than the value with the right hash.
                matches!(key, RecordKey::Hash(_)) && found.best.is_some()
            }
            (
                Job::ReadBack { record, holders, .. },
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(answer))),
            ) => {
                if answer.record.value == record.value() {
                    holders.extend(answer.peer.as_ref().and_then(node_id));
                }
                false
            }
            (
                Job::ReadBack { without, .. },
                QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates })),
            ) => {
                without.extend(cache_candidates.values().filter_map(node_id));
                false
            }
            (
                Job::FindProviders { count, found, .. },
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ) => {
                found.extend(providers.iter().filter_map(node_id));
                found.len() >= *count
            }
            (Job::FindPeer { peer, found, .. }, QueryResult::GetClosestPeers(result)) => {
                let named = closest(result).into_iter().find(|named| node_id(&named.peer_id) == Some(*peer));
                found.extend(named.into_iter().flat_map(addresses));
                false
            }
            (Job::Closest { key, found, .. }, QueryResult::GetClosestPeers(result)) => {
                let target = KBucketKey::new(key.clone());
                found.extend(closest(result).into_iter().filter_map(|peer| {
                    let shared_bits = shared_bits(&target, &KBucketKey::from(peer.peer_id));
                    Some(ClosestPeer {
                        peer: node_id(&peer.peer_id)?,
                        shared_bits,
                        addresses: addresses(peer),
                    })
                }));
                keep_nearest(&target, found);
                false
            }
            _ => false,
        }
    }

    /// Whether it has answers and only silent peers are left to wait for: whoever is alive answers within
    /// milliseconds to a second, and a dead one takes its dial's whole timeout. What is there is checked, so
    /// waiting longer could only find a newer version on a peer slower than this.
    pub(super) fn has_stalled(&self, now: Time) -> bool {
        let answered = match &self.job {
            Job::Get { found, .. } => found.answers.len(),
            Job::ReadBack { holders, .. } => holders.len(),
            Job::FindProviders { found, .. } => found.len(),
            // Those have just answered; whoever does not take the second offer at once has had its chance.
            Job::Put { holders, .. } => usize::from(holders.is_some()),
            Job::Provide { .. } | Job::FindPeer { .. } | Job::Closest { .. } => 0,
        };
        answered > 0 && now.since(self.progressed) >= STALLED_AFTER
    }

    /// Whether its time is over or nobody waits for it any more.
    pub(super) fn is_over(&self, now: Time) -> bool {
        let abandoned = match &self.job {
            Job::Put { reply, .. } | Job::ReadBack { reply, .. } => reply.is_closed(),
            Job::Get { reply, .. } => reply.is_closed(),
            Job::Provide { reply, .. } => reply.is_closed(),
            Job::FindProviders { reply, .. } => reply.is_closed(),
            Job::FindPeer { reply, .. } => reply.is_closed(),
            Job::Closest { reply, .. } => reply.is_closed(),
        };
        self.deadline <= now || abandoned
    }

    pub(super) fn rejected_count(&self) -> u64 {
        match &self.job {
            Job::Get { found, .. } => u64::try_from(found.rejected.len()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    /// Whether a question was lost whose answer might have been worth more than what was found.
    ///
    /// The library counts a peer out for good when its connection closes under a question, and does not say
    /// whom. So a question was lost when more of them failed than peers could not be dialed; and when
    /// somebody hung up that would belong to the answer, since with two connections the library does not even
    /// notice.
    fn has_lost_questions(&self) -> bool {
        let failed = usize::try_from(self.stats.num_failures()).unwrap_or(usize::MAX);
        let failed = failed > self.unreachable.len();
        match &self.job {
            Job::Closest { key, found, .. } => {
                let target = KBucketKey::new(key.clone());
                let distance = |peer: &NodeId| target.distance(&KBucketKey::from(peer_id(*peer)));
                let farthest = found.get(K.get() - 1).map(|last| distance(&last.peer));
                let belongs = |peer: &&NodeId| farthest.is_none_or(|farthest| distance(peer) < farthest);
                let mut near = self.hung_up.iter().filter(belongs);
                failed || near.any(|peer| found.iter().all(|found| found.peer != *peer))
            }
            Job::FindPeer { peer, found, .. } => found.is_empty() && (failed || self.hung_up.contains(peer)),
            // A put is read back, and the others have k holders to find one of.
            _ => false,
        }
    }

    /// The next round of a lookup that lost questions, when there is time for one.
    fn ask_again(self, now: Time, key: Vec<u8>) -> Outcome {
        let (hung_up, unreachable) = (BTreeSet::new(), BTreeSet::new());
        let (before, stats) = (self.before.merge(self.stats), QueryStats::empty());
        let rounds = self.rounds + 1;
        let next = Self { before, stats, rounds, hung_up, unreachable, progressed: now, ..self };
        Outcome::AskAgain { key, next: Box::new(next) }
    }

    /// What the statistics and those who watch are told.
    pub(super) fn report(&self) -> Event {
        let stats = self.before.merge(self.stats);
        let found = match &self.job {
            Job::Put { .. } | Job::Provide { .. } => stats.num_successes() > 0,
            Job::ReadBack { holders, .. } => !holders.is_empty(),
            Job::Get { found, .. } => found.best.is_some(),
            Job::FindProviders { found, .. } => !found.is_empty(),
            Job::FindPeer { found, .. } => !found.is_empty(),
            Job::Closest { found, .. } => !found.is_empty(),
        };
        Event::Lookup {
            kind: self.kind(),
            requests: stats.num_requests(),
            answers: stats.num_successes(),
            took_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            found,
        }
    }

    /// The query ended by itself.
    pub(super) fn finish(self, now: Time, me: NodeId, network: &NetworkName) -> Outcome {
        if self.rounds < ROUNDS_MAX
            && now < self.deadline
            && self.has_lost_questions()
            && let Some(key) = self.job.key()
        {
            return self.ask_again(now, key);
        }
        let asked = self.before.merge(self.stats).num_requests();
        let took = self.begun.elapsed();
        match self.job {
            Job::Put { record, durable, reply, holders } => {
                let key = record.key_bytes(network);
                let again = holders.is_some();
                let (holders, without) = (holders.unwrap_or_default(), BTreeSet::new());
                let job = Job::ReadBack { record, durable, reply, holders, without, again };
                Outcome::ReadBack { key, next: Box::new(Self { job, progressed: now, ..self }) }
            }
            Job::ReadBack { record, durable, reply, holders, without, again } => {
                let offered = nearest(&record.key_bytes(network), &holders | &without);
                let missed: BTreeSet<NodeId> = &offered - &holders;
                if !missed.is_empty() && !again {
                    let job = Job::Put { record: record.clone(), durable, reply, holders: Some(holders) };
                    let next = Box::new(Self { job, progressed: now, ..self });
                    return Outcome::OfferAgain { record, to: missed, next };
                }
                let answer = if holders.is_empty() && asked > 0 {
                    Err(DhtError::NotStored { asked })
                } else {
                    let offered_to = size(&(&offered | &holders));
                    Ok(PutReport { stored_on: holders.into_iter().collect(), offered_to, took })
                };
                when_durable(durable, reply, answer);
                Outcome::Done
            }
            Job::Get { found, reply, .. } => found.finish(me, asked, took, reply),
            Job::Provide { durable, reply } => {
                when_durable(durable, reply, Ok(()));
                Outcome::Done
            }
            Job::FindProviders { found, reply, count } => {
                let found: Vec<NodeId> = found.into_iter().take(count).collect();
                answer(reply, if found.is_empty() { Err(not_found(asked)) } else { Ok(found) });
                Outcome::Done
            }
            Job::FindPeer { found, reply, .. } => {
                answer(reply, if found.is_empty() { Err(not_found(asked)) } else { Ok(found) });
                Outcome::Done
            }
            Job::Closest { found, reply, .. } => {
                answer(reply, if found.is_empty() { Err(not_found(asked)) } else { Ok(found) });
                Outcome::Done
            }
        }
    }

    /// The time is over: say how far it got.
    pub(super) fn time_out(self, now: Time) {
        if self.deadline > now {
            return;
        }
        let stats = self.before.merge(self.stats);
        let (asked, answered) = (stats.num_requests(), stats.num_successes());
        let error = DhtError::Timeout { asked, answered, after: self.timeout };
        match self.job {
            Job::Put { reply, .. } | Job::ReadBack { reply, .. } => answer(reply, Err(error)),
            Job::Get { reply, .. } => answer(reply, Err(error)),
            Job::Provide { reply, .. } => answer(reply, Err(error)),
            Job::FindProviders { reply, .. } => answer(reply, Err(error)),
            Job::FindPeer { reply, .. } => answer(reply, Err(error)),
            // An earlier round had its answer.
            Job::Closest { found, reply, .. } if !found.is_empty() => answer(reply, Ok(found)),
            Job::Closest { reply, .. } => answer(reply, Err(error)),
        }
    }
}

impl Found {
    /// Checks one answer and keeps it when it is valid.
    fn take(&mut self, network: &NetworkName, key: &RecordKey, wall: UnixTime, answer: PeerRecord) {
        let peer = answer.peer.as_ref().and_then(node_id);
        match Record::check(network, &key.to_bytes(network), &answer.record.value, wall) {
            Ok(record) => {
                self.answers.push((peer, record.sequence(), ContentHash::of(record.value())));
                self.best = Some(match self.best.take() {
                    Some(best) => best.better(record),
                    None => record,
                });
            }
            Err(why) if self.rejected.len() < REJECTED_MAX => {
                self.rejected.push(RejectedAnswer { peer, why });
            }
            Err(_) => {}
        }
    }

    fn finish(
        self,
        me: NodeId,
        asked: u32,
        took: Duration,
        reply: Reply<Result<FoundRecord, DhtError>>,
    ) -> Outcome {
        let Some(record) = self.best else {
            answer(reply, Err(DhtError::NotFound { asked, rejected: self.rejected }));
            return Outcome::Done;
        };
        let chosen = ContentHash::of(record.value());
        let stale = self.answers.iter().filter(|(_, _, hash)| *hash != chosen).filter_map(|(peer, ..)| *peer);
        let stale: BTreeSet<NodeId> = stale.collect();
        let answers = self.answers.iter().map(|(peer, sequence, hash)| Answer {
            peer: peer.unwrap_or(me),
            sequence: *sequence,
            current: *hash == chosen,
        });
        let answers = answers.collect();
        answer(
            reply,
            Ok(FoundRecord { record: record.clone(), answers, rejected: self.rejected, asked, took }),
        );
        if stale.is_empty() { Outcome::Done } else { Outcome::Repair { record, stale } }
    }
}

/// Each peer once, the nearest first, and of several rounds together no more than the k nearest.
fn keep_nearest(target: &KBucketKey<Vec<u8>>, found: &mut Vec<ClosestPeer>) {
    found.sort_by_cached_key(|found| target.distance(&KBucketKey::from(peer_id(found.peer))));
    found.dedup_by_key(|found| found.peer);
    found.truncate(K.get());
}

/// The k of `peers` that are nearest to a key.
fn nearest(key: &[u8], peers: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let target = KBucketKey::new(key.to_vec());
    let mut ranked: Vec<NodeId> = peers.into_iter().collect();
    ranked.sort_by_cached_key(|peer| target.distance(&KBucketKey::from(peer_id(*peer))));
    ranked.into_iter().take(K.get()).collect()
}

fn size(peers: &BTreeSet<NodeId>) -> u32 {
    u32::try_from(peers.len()).unwrap_or(u32::MAX)
}

const fn not_found(asked: u32) -> DhtError {
    DhtError::NotFound { asked, rejected: Vec::new() }
}

fn closest(result: Result<GetClosestPeersOk, libp2p::kad::GetClosestPeersError>) -> Vec<PeerInfo> {
    match result {
        Ok(GetClosestPeersOk { peers, .. })
        | Err(libp2p::kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
    }
}

fn addresses(peer: PeerInfo) -> Vec<Address> {
    peer.addrs.into_iter().map(|address| Address::from_multiaddr(address).without_peer()).collect()
}

/// How many queries of each kind ended how, and how long the last ones took.
#[derive(Default)]
pub(super) struct Statistics(BTreeMap<&'static str, Kind>);

#[derive(Default)]
struct Kind {
    count: u64,
    ok: u64,
    latencies_ms: VecDeque<u64>,
}

impl Statistics {
    pub(super) fn note(&mut self, report: &Event) {
        let Event::Lookup { kind, took_ms, found, .. } = report else { return };
        let row = self.0.entry(kind).or_default();
        row.count += 1;
        row.ok += u64::from(*found);
        if row.latencies_ms.len() == LATENCIES_MAX {
            row.latencies_ms.pop_front();
        }
        row.latencies_ms.push_back(*took_ms);
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |(kind, row): (&&'static str, &Kind)| {
            let mut sorted: Vec<u64> = row.latencies_ms.iter().copied().collect();
            sorted.sort_unstable();
            Row {
                kind,
                count: row.count,
                ok: row.ok,
                p50_ms: percentile(&sorted, 50),
                p90_ms: percentile(&sorted, 90),
                p99_ms: percentile(&sorted, 99),
            }
        };
        self.0.iter().map(row).collect()
    }
}

/// The nearest-rank percentile of sorted values; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let value = sorted.get(rank - 1).copied().unwrap_or(0);
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const KEY: &[u8] = b"target";

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    /// Thirty nodes, the nearest to the key first.
    fn ranked() -> Vec<NodeId> {
        let target = KBucketKey::new(KEY.to_vec());
        let mut nodes: Vec<NodeId> = (1..=30).map(node).collect();
        nodes.sort_by_cached_key(|node| target.distance(&KBucketKey::from(peer_id(*node))));
        nodes
    }

    /// One round of a lookup ends with these peers.
    fn found(query: &mut Query, peers: &[NodeId]) {
        let peers = peers.iter().map(|peer| PeerInfo { peer_id: peer_id(*peer), addrs: Vec::new() });
        let result = GetClosestPeersOk { key: KEY.to_vec(), peers: peers.collect() };
        let result = QueryResult::GetClosestPeers(Ok(result));
        let wall = UnixTime::from_millis(0);
        query.on_progress(Time::ZERO, &NetworkName::default(), wall, QueryStats::empty(), result);
    }

    fn finish(query: Query) -> Option<Query> {
        match query.finish(Time::ZERO, node(0), &NetworkName::default()) {
            Outcome::AskAgain { key, next } => {
                assert_eq!(key, KEY);
                Some(*next)
            }
            _ => None,
        }
    }

    fn lookup() -> (Query, oneshot::Receiver<Result<Vec<ClosestPeer>, DhtError>>) {
        let (reply, answer) = oneshot::channel();
        let job = Job::Closest { key: KEY.to_vec(), found: Vec::new(), reply };
        (Query::new(job, Time::ZERO, Duration::from_secs(9)), answer)
    }

    #[test]
    fn a_lookup_sets_out_again_when_somebody_hung_up_who_belongs_to_its_answer() {
        let nodes = ranked();
        let (mut query, mut answer) = lookup();
        query.on_hung_up(nodes[0]);
        found(&mut query, &nodes[1..21]);
        let mut query = finish(query).unwrap();
        found(&mut query, &nodes[..20]);
        assert!(finish(query).is_none(), "it answered this time");
        let answer = answer.try_recv().unwrap().unwrap();
        assert_eq!(answer.iter().map(|peer| peer.peer).collect::<Vec<_>>(), nodes[..20]);
    }

    #[test]
    fn a_lookup_ends_when_those_who_hung_up_are_of_no_use() {
        let nodes = ranked();
        let (mut query, _answer) = lookup();
        query.on_hung_up(nodes[0]);
        query.on_hung_up(nodes[20]);
        found(&mut query, &nodes[..20]);
        assert!(finish(query).is_none(), "one had answered before, the other is too far away");
    }

    #[test]
    fn a_lookup_ends_after_three_rounds_with_all_that_they_found() {
        let nodes = ranked();
        let (query, mut answer) = lookup();
        let mut next = Some(query);
        for round in [&nodes[1..3], &nodes[2..5], &nodes[3..4]] {
            let mut query = next.take().unwrap();
            query.on_hung_up(nodes[0]);
            found(&mut query, round);
            next = finish(query);
        }
        assert!(next.is_none(), "no fourth round");
        let answer = answer.try_recv().unwrap().unwrap();
        assert_eq!(answer.iter().map(|peer| peer.peer).collect::<Vec<_>>(), nodes[1..5], "each once");
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&sorted, percent)), [50.0, 90.0, 99.0]);
        assert_eq!(percentile(&[7], 99), 7.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
