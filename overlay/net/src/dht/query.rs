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
    pub(super) stats: QueryStats,
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
}

impl Query {
    pub(super) fn new(job: Job, now: Time, timeout: Duration) -> Self {
        // Zero means for ever; a lookup ends by itself long before an hour.
        let timeout = if timeout.is_zero() { Duration::from_secs(3600) } else { timeout };
        Self {
            job,
            stats: QueryStats::empty(),
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

    /// Takes one result. True when nothing better can come, so that the query may end early.
    pub(super) fn on_progress(
        &mut self,
        now: Time,
        network: &NetworkName,
        wall: UnixTime,
        result: QueryResult,
    ) -> bool {
        self.progressed = now;
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

    /// What the statistics and those who watch are told.
    pub(super) fn report(&self) -> Event {
        let found = match &self.job {
            Job::Put { .. } | Job::Provide { .. } => self.stats.num_successes() > 0,
            Job::ReadBack { holders, .. } => !holders.is_empty(),
            Job::Get { found, .. } => found.best.is_some(),
            Job::FindProviders { found, .. } => !found.is_empty(),
            Job::FindPeer { found, .. } => !found.is_empty(),
            Job::Closest { found, .. } => !found.is_empty(),
        };
        Event::Lookup {
            kind: self.kind(),
            requests: self.stats.num_requests(),
            answers: self.stats.num_successes(),
            took_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            found,
        }
    }

    /// The query ended by itself.
    pub(super) fn finish(self, now: Time, me: NodeId, network: &NetworkName) -> Outcome {
        let asked = self.stats.num_requests();
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
            Job::Closest { mut found, reply, .. } => {
                found.sort_by_key(|peer| std::cmp::Reverse(peer.shared_bits));
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
        let (asked, answered) = (self.stats.num_requests(), self.stats.num_successes());
        let error = DhtError::Timeout { asked, answered, after: self.timeout };
        match self.job {
            Job::Put { reply, .. } | Job::ReadBack { reply, .. } => answer(reply, Err(error)),
            Job::Get { reply, .. } => answer(reply, Err(error)),
            Job::Provide { reply, .. } => answer(reply, Err(error)),
            Job::FindProviders { reply, .. } => answer(reply, Err(error)),
            Job::FindPeer { reply, .. } => answer(reply, Err(error)),
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
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&sorted, percent)), [50.0, 90.0, 99.0]);
        assert_eq!(percentile(&[7], 99), 7.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
