//! A lookup, walked hop by hop.
//!
//! libp2p's Kademlia tells only how many questions a query asked. So a trace walks the network itself: it
//! opens a Kademlia stream to one peer after another, asks FIND_NODE (libp2p kad-dht spec, "RPC messages"),
//! and reports each question and answer. It reads the routing table once, at the start, and changes nothing.
//!
//! # Steps (Maymounkov and Mazieres, "Kademlia", 2002, section 2.3)
//!
//! 1. Begin with the k peers of our own table that are nearest to the target: hop 1.
//! 2. Ask the alpha nearest that were not asked yet. Whoever an answer names for the first time is one hop
//!    farther.
//! 3. End when the k nearest known have all answered or failed, or when an answer names the peer looked for.
//!
//! # Bounds
//!
//! At most 256 questions, 20 peers taken from an answer, 8 addresses of each, 3 s for a question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::kad::KBucketKey;
use libp2p::{Multiaddr, PeerId};
use prost::Message as _;
use tokio::sync::mpsc;
use wattle_types::NodeId;
use wattle_types::limits::ADDRESSES_PER_PEER_MAX;

use super::wire::{Kind, Message};
use super::{shared_bits, target_key};
use crate::behaviour::{ALPHA, K, KAD_MESSAGE_BYTES_MAX, kad_protocol, peer_id};
use crate::report::{ClosestPeer, DhtError, TraceEvent, TraceReport, TraceTarget};
use crate::{Address, Overlay, Reach};

const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
const QUESTIONS_MAX: u32 = 256;

/// What is known of a peer on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known,
    Asked,
    Answered,
    Failed,
}

struct Seen {
    state: State,
    hop: u32,
    shared_bits: u32,
    addresses: Vec<Address>,
}

/// A walk under way.
struct Walk {
    target: KBucketKey<Vec<u8>>,
    looked_for: Option<NodeId>,
    seen: BTreeMap<NodeId, Seen>,
    /// Peers by distance, nearest first.
    ranked: BTreeSet<(libp2p::kad::KBucketDistance, NodeId)>,
    queries: u32,
    failures: u32,
    found: Option<Vec<Address>>,
    /// Shared bits of the nearest peer that answered.
    nearest: Option<u32>,
}

/// A peer that an answer names, and where it is said to be.
type Named = (NodeId, Vec<Address>);

/// The answer to one question.
struct Reply {
    peer: NodeId,
    outcome: Result<Vec<Named>, (bool, String)>,
    rtt: Duration,
}

/// Walks to a target.
pub(crate) async fn walk(
    overlay: &Overlay,
    target: TraceTarget,
    timeout: Duration,
    steps: mpsc::Sender<TraceEvent>,
) -> Result<TraceReport, DhtError> {
    let key = target_key(overlay.network(), &target);
    let begun = Instant::now();
    let start = overlay.nearest(target.clone()).await?;
    if start.is_empty() {
        return Err(DhtError::Alone);
    }
    let mut walk = Walk::new(key.clone(), &target, start);
    let timeout = if timeout.is_zero() { Duration::from_secs(3600) } else { timeout };
    let walked = tokio::time::timeout(timeout, walk.run(overlay, &key, &steps)).await;
    if walked.is_err() {
        let answered = walk.queries.saturating_sub(walk.failures);
        return Err(DhtError::Timeout { asked: walk.queries, answered, after: timeout });
    }
    Ok(walk.report(begun.elapsed()))
}

impl Walk {
    fn new(key: Vec<u8>, target: &TraceTarget, start: Vec<ClosestPeer>) -> Self {
        let looked_for = match target {
            TraceTarget::Peer(peer) => Some(*peer),
            TraceTarget::Record(_) | TraceTarget::Provider(_) => None,
        };
        let mut walk = Self {
            target: KBucketKey::new(key),
            looked_for,
            seen: BTreeMap::new(),
            ranked: BTreeSet::new(),
            queries: 0,
            failures: 0,
            found: None,
            nearest: None,
        };
        for peer in start {
            walk.learn(peer.peer, 1, peer.addresses);
        }
        walk
    }

    /// Remembers a peer named at `hop`; its shared bits.
    fn learn(&mut self, peer: NodeId, hop: u32, addresses: Vec<Address>) -> u32 {
        let key = KBucketKey::from(peer_id(peer));
        let shared_bits = shared_bits(&self.target, &key);
        self.ranked.insert((self.target.distance(&key), peer));
        self.seen.entry(peer).or_insert(Seen { state: State::Known, hop, shared_bits, addresses });
        shared_bits
    }

    async fn run(&mut self, overlay: &Overlay, key: &[u8], steps: &mpsc::Sender<TraceEvent>) {
        let mut asking = FuturesUnordered::new();
        loop {
            while asking.len() < ALPHA.get()
                && let Some((peer, addresses)) = self.next(overlay.id())
            {
                let Some(seen) = self.seen.get(&peer) else { break };
                let event = TraceEvent::Query { hop: seen.hop, peer, shared_bits: seen.shared_bits };
                // A watcher that left does not stop the walk; its caller does.
                tell(steps, event).await;
                asking.push(ask(overlay, peer, addresses, key));
            }
            let Some(reply) = asking.next().await else { return };
            let peer = reply.peer;
            let event = self.take(reply);
            tell(steps, event).await;
            if let Some(event) = self.nearer(peer) {
                tell(steps, event).await;
            }
            if self.found.is_some() {
                return;
            }
        }
    }

    /// The nearest peer not asked yet, as long as it is among the k nearest that may still answer.
    fn next(&mut self, me: NodeId) -> Option<(NodeId, Vec<Address>)> {
        if self.queries >= QUESTIONS_MAX {
            return None;
        }
        let hopeful = self.ranked.iter().map(|(_, peer)| *peer).filter(|peer| {
            *peer != me && self.seen.get(peer).is_some_and(|seen| seen.state != State::Failed)
        });
        let next = hopeful
            .take(K.get())
            .find(|peer| self.seen.get(peer).is_some_and(|s| s.state == State::Known))?;
        let seen = self.seen.get_mut(&next)?;
        seen.state = State::Asked;
        self.queries += 1;
        Some((next, seen.addresses.clone()))
    }

    fn take(&mut self, reply: Reply) -> TraceEvent {
        let Reply { peer, outcome, rtt } = reply;
        let (hop, shared_bits) = self.seen.get(&peer).map_or((0, 0), |seen| (seen.hop, seen.shared_bits));
        let answered = outcome.is_ok();
        if let Some(seen) = self.seen.get_mut(&peer) {
            seen.state = if answered { State::Answered } else { State::Failed };
        }
        match outcome {
            Ok(named) => {
                let mut closer = Vec::new();
                let mut has_target = Some(peer) == self.looked_for;
                for (other, addresses) in named {
                    if Some(other) == self.looked_for && !addresses.is_empty() {
                        has_target = true;
                        self.found.get_or_insert_with(|| addresses.clone());
                    }
                    closer.push((other, self.learn(other, hop + 1, addresses)));
                }
                if has_target && self.found.is_none() {
                    self.found = self.seen.get(&peer).map(|seen| seen.addresses.clone());
                }
                closer.sort_by_key(|(_, bits)| std::cmp::Reverse(*bits));
                TraceEvent::Response { hop, peer, shared_bits, rtt, closer, has_target }
            }
            Err((timed_out, why)) => {
                self.failures += 1;
                TraceEvent::Failed { hop, peer, shared_bits, timed_out, why }
            }
        }
    }

    /// The step that `peer` is on the way, when it answered and is nearer than everybody before.
    fn nearer(&mut self, peer: NodeId) -> Option<TraceEvent> {
        let seen = self.seen.get(&peer).filter(|seen| seen.state == State::Answered)?;
        if self.nearest.is_some_and(|nearest| nearest >= seen.shared_bits) {
            return None;
        }
        self.nearest = Some(seen.shared_bits);
        Some(TraceEvent::Closer { hop: seen.hop, peer, shared_bits: seen.shared_bits })
    }

    fn report(self, took: Duration) -> TraceReport {
        let answered = self.ranked.iter().filter_map(|(_, peer)| {
            let seen = self.seen.get(peer).filter(|seen| seen.state == State::Answered)?;
            Some((
                seen.hop,
                ClosestPeer { peer: *peer, shared_bits: seen.shared_bits, addresses: seen.addresses.clone() },
            ))
        });
        let answered: Vec<(u32, ClosestPeer)> = answered.take(K.get()).collect();
        TraceReport {
            hops: answered.first().map_or(0, |(hop, _)| *hop),
            queries: self.queries,
            failures: self.failures,
            took,
            closest: answered.into_iter().map(|(_, peer)| peer).collect(),
            target: self.found,
        }
    }
}

async fn tell(steps: &mpsc::Sender<TraceEvent>, event: TraceEvent) {
    if steps.send(event).await.is_err() {
        tracing::trace!("nobody watches this walk");
    }
}

/// Asks one peer for the peers it knows nearest to `key`.
async fn ask(overlay: &Overlay, peer: NodeId, addresses: Vec<Address>, key: &[u8]) -> Reply {
    let begun = Instant::now();
    let outcome = match tokio::time::timeout(QUESTION_TIMEOUT, find_node(overlay, peer, addresses, key)).await
    {
        Ok(outcome) => outcome.map_err(|why| (false, why)),
        Err(_elapsed) => Err((true, format!("no answer after {QUESTION_TIMEOUT:?}"))),
    };
    Reply { peer, outcome, rtt: begun.elapsed() }
}

async fn find_node(
    overlay: &Overlay,
    peer: NodeId,
    addresses: Vec<Address>,
    key: &[u8],
) -> Result<Vec<Named>, String> {
    let connected = overlay.reach(peer, addresses).await.map_err(|error| error.to_string())?;
    let from = connected.path.address.reach();
    let protocol = kad_protocol(overlay.network());
    let opened = overlay.streams.clone().open_stream(peer_id(peer), protocol).await;
    let mut stream = opened.map_err(|error| error.to_string())?;
    let question = Message { kind: Kind::FindNode.into(), key: key.to_vec(), closer_peers: Vec::new() };
    let io = |error: std::io::Error| error.to_string();
    stream.write_all(&question.encode_length_delimited_to_vec()).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let length = unsigned_varint::aio::read_usize(&mut stream).await.map_err(|error| error.to_string())?;
    if length > KAD_MESSAGE_BYTES_MAX {
        return Err(format!("an answer of {length} bytes is more than the {KAD_MESSAGE_BYTES_MAX} allowed"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(io)?;
    if let Err(error) = stream.close().await {
        // The answer is here; the peer may close first.
        tracing::trace!(%error, "closing after an answer");
    }
    read_answer(&bytes, from)
}

/// The peers that a Kademlia answer of at most 64 KiB names, with the addresses that a peer
/// at distance `from` can know of.
///
/// # Errors
/// What is wrong with the bytes.
pub fn read_answer(bytes: &[u8], from: Reach) -> Result<Vec<Named>, String> {
    Message::decode(bytes).map(|answer| named(answer, from)).map_err(|error| error.to_string())
}

fn named(answer: Message, from: Reach) -> Vec<Named> {
    let peers = answer.closer_peers.into_iter().take(K.get()).filter_map(|peer| {
        let id = PeerId::from_bytes(&peer.id).ok().as_ref().and_then(crate::behaviour::node_id)?;
        let addresses = peer.addresses.into_iter().take(ADDRESSES_PER_PEER_MAX);
        let addresses = addresses.filter_map(|bytes| Multiaddr::try_from(bytes).ok());
        let addresses = addresses.map(|address| Address::from_multiaddr(address).without_peer());
        Some((id, addresses.filter(|address| crate::address_book::is_believable(address, from)).collect()))
    });
    peers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    fn walk_from(start: &[u8]) -> Walk {
        let start =
            start.iter().map(|n| ClosestPeer { peer: node(*n), shared_bits: 0, addresses: Vec::new() });
        Walk::new(b"target".to_vec(), &TraceTarget::Peer(node(99)), start.collect())
    }

    fn answer(peer: u8, named: &[u8]) -> Reply {
        let named = named.iter().map(|n| (node(*n), Vec::new())).collect();
        Reply { peer: node(peer), outcome: Ok(named), rtt: Duration::ZERO }
    }

    #[test]
    fn the_nearest_unasked_peer_is_next_and_each_is_asked_once() {
        let mut walk = walk_from(&[1, 2, 3, 4]);
        let mut order = Vec::new();
        while let Some((peer, _)) = walk.next(node(0)) {
            order.push(walk.seen[&peer].shared_bits);
        }
        assert_eq!(order.len(), 4);
        assert!(order.is_sorted_by(|a, b| a >= b), "nearest first: {order:?}");
    }

    #[test]
    fn a_peer_named_for_the_first_time_is_one_hop_farther() {
        let mut walk = walk_from(&[1]);
        walk.next(node(0));
        walk.take(answer(1, &[1, 2, 3]));
        assert_eq!(walk.seen[&node(1)].hop, 1, "known before");
        assert_eq!((walk.seen[&node(2)].hop, walk.seen[&node(3)].hop), (2, 2));
    }

    #[test]
    fn the_walk_ends_when_the_k_nearest_were_asked() {
        let many: Vec<u8> = (1..=60).collect();
        let mut walk = walk_from(&many);
        let mut asked = 0;
        while let Some((peer, _)) = walk.next(node(0)) {
            asked += 1;
            let first_byte = peer.public_key()[0];
            walk.take(answer(first_byte, &[]));
        }
        assert_eq!(asked, K.get());
    }

    #[test]
    fn oversized_and_hostile_answers_are_cut() {
        let peer = super::super::wire::Peer {
            id: peer_id(node(7)).to_bytes(),
            addresses: vec![b"junk".to_vec(); 100],
            connection: 0,
        };
        let stranger = super::super::wire::Peer { id: vec![1, 2, 3], addresses: Vec::new(), connection: 0 };
        let mut peers = vec![stranger];
        peers.extend(std::iter::repeat_n(peer, 500));
        let cut = named(Message { kind: 4, key: Vec::new(), closer_peers: peers }, Reach::Global);
        assert_eq!(cut.len(), K.get() - 1);
        assert!(cut.iter().all(|(_, addresses)| addresses.is_empty()));
    }
}
