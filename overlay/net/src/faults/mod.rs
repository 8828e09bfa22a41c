//! Faults on purpose: what a node of a testnet does to the traffic between it and its peers.
//!
//! # What it does
//!
//! A bad network is not to be had on one machine, so a node can make one of its own: each link to a peer may delay
//! what leaves over it, lose some of it, let only so much through, or be cut, in one direction or in both. Only a node
//! that was started with a [`Faults`] has any of this: every other one has neither the layer in its transport nor a
//! branch in a stream, and for a datagram it looks at one `Option`.
//!
//! # Rules
//!
//! 1. Delay, loss and rate are for what leaves; a link is shaped both ways when both ends shape it.
//! 2. A **datagram** of members is lost with the chance that was asked for, and each for itself.
//! 3. The bytes of a **stream** are never lost, because QUIC and TCP repeat what was: a lost segment arrives one round
//!    trip and [`RESENT_AFTER`] later, and so does what is behind it in the same stream.
//! 4. What is **cut** waits, as it would in the buffers of a transport that tries again, and goes on when the link is
//!    healed. A connection that is cut for [`DEAD_AFTER`] breaks, and none begins while either direction is cut: a
//!    handshake needs both.
//! 5. All of a link's streams and datagrams share its rate. A datagram that would wait longer than
//!    [`BACKLOG_MAX`] is dropped, as a router drops it.
//!
//! # Deliberately not here
//!
//! Packets of QUIC and segments of TCP themselves: libp2p gives nobody their sockets. So handshakes are not delayed,
//! and what the transports say to each other below a stream (acknowledgements) passes.

mod shaped;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wattle_types::NodeId;

pub(crate) use shaped::shape;

/// A connection that is cut breaks after this: QUIC's idle timeout here.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// A lost segment is sent again after a round trip and this: TCP's least timeout (RFC 6298 in Linux), and more than
/// QUIC's.
pub const RESENT_AFTER: Duration = Duration::from_millis(200);
/// What a link with a rate holds at most.
pub const BACKLOG_MAX: Duration = Duration::from_secs(1);
/// How far streams fill it: whoever writes more waits, as congestion control makes it wait.
const STREAMS_BACKLOG_MAX: Duration = Duration::from_millis(200);
/// The longest delay.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Links with faults: more than a testnet has nodes.
pub const LINKS_MAX: usize = 1024;
/// How much of a stream is lost or delayed as one.
pub(crate) const SEGMENT_BYTES: usize = 1200;
/// Bytes that a packet has beside what it carries, as a link with a rate counts them: IP, UDP and QUIC, about.
const PACKET_BYTES_MORE: usize = 48;

/// How delays spread around the one asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Anything up to the jitter more or less.
    #[default]
    Uniform,
    /// Normal, with the jitter as its standard deviation.
    Normal,
    /// Never less, mostly a little more, and now and then much: Pareto with exponent 2.5 and the jitter as its scale.
    HeavyTail,
}

/// What happens to what leaves over a link, and whether it is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkFaults {
    /// How much later things arrive.
    pub delay: Duration,
    /// How much that varies.
    pub jitter: Duration,
    /// And how.
    pub spread: Spread,
    /// The share that is lost: 0 to 1.
    pub loss: f64,
    /// Bits in a second; 0 is as many as there are.
    pub rate_bits: u64,
    /// Nothing leaves.
    pub cut_to: bool,
    /// Nothing arrives.
    pub cut_from: bool,
}

/// Why faults were not taken. The caller's mistake; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidFaults {
    /// Longer than [`DELAY_MAX`].
    #[error("a delay of {0:?} is longer than a minute")]
    Delay(Duration),
    /// Not from 0 to 1.
    #[error("{0} is no share: it must be from 0 to 1")]
    Loss(f64),
    /// So slow that a packet takes longer than a minute.
    #[error("{0} bit/s is too slow: it must be 1000 at least, or 0 for no limit")]
    Rate(u64),
    /// More than [`LINKS_MAX`].
    #[error("faults for {0} links are too many: {LINKS_MAX} at most")]
    Links(usize),
}

impl LinkFaults {
    fn check(&self) -> Result<(), InvalidFaults> {
        if let Some(span) = [self.delay, self.jitter].into_iter().find(|span| *span > DELAY_MAX) {
            return Err(InvalidFaults::Delay(span));
        }
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(InvalidFaults::Loss(self.loss));
        }
        if self.rate_bits > 0 && self.rate_bits < 1000 {
            return Err(InvalidFaults::Rate(self.rate_bits));
        }
        Ok(())
    }

    const fn is_cut(&self) -> bool {
        self.cut_to || self.cut_from
    }

    /// Nothing but a cut can happen here.
    fn is_plain(&self) -> bool {
        let shaped = Self { cut_to: false, cut_from: false, ..*self };
        shaped == Self::default()
    }

    fn sample(&self, random: &mut fastrand::Rng) -> Duration {
        if self.delay.is_zero() && self.jitter.is_zero() {
            return Duration::ZERO;
        }
        let jitter = self.jitter.as_secs_f64();
        let more = match self.spread {
            Spread::Uniform => jitter * (random.f64() * 2.0 - 1.0),
            // Box and Muller, "A note on the generation of random normal deviates", 1958.
            Spread::Normal => {
                let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
                jitter * radius * (std::f64::consts::TAU * random.f64()).cos()
            }
            Spread::HeavyTail => jitter * ((1.0 - random.f64()).powf(-1.0 / 2.5) - 1.0),
        };
        let seconds = (self.delay.as_secs_f64() + more).clamp(0.0, DELAY_MAX.as_secs_f64());
        Duration::from_secs_f64(seconds)
    }
}

/// What was done to one link since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Datagrams that wanted to leave.
    pub datagrams: u64,
    /// Of these, lost or stopped by a cut.
    pub datagrams_lost: u64,
    /// Segments of streams that left.
    pub segments: u64,
    /// Of these, sent again.
    pub segments_resent: u64,
    /// Datagrams that arrived and were stopped by a cut.
    pub datagrams_refused: u64,
}

#[derive(Debug)]
struct Link {
    faults: LinkFaults,
    counts: FaultCounts,
    /// When the rate lets the next one through.
    free: Instant,
    cut_since: Option<Instant>,
}

impl Link {
    fn new(now: Instant) -> Self {
        Self { faults: LinkFaults::default(), counts: FaultCounts::default(), free: now, cut_since: None }
    }

    /// How long this many bytes wait for the rate, and then take.
    fn queue(&mut self, now: Instant, bytes: usize) -> Duration {
        if self.faults.rate_bits == 0 {
            return Duration::ZERO;
        }
        let bits = (bytes + PACKET_BYTES_MORE) as f64 * 8.0;
        self.free = self.free.max(now) + Duration::from_secs_f64(bits / self.faults.rate_bits as f64);
        self.free - now
    }
}

#[derive(Debug)]
struct State {
    links: BTreeMap<NodeId, Link>,
    random: fastrand::Rng,
}

/// The faults of a node: a handle to one table, for its transport, its datagrams and whoever sets them.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<State>>);

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Now,
    Later(Duration),
    Lost,
}

impl Faults {
    /// No faults yet; the seed decides what is lost and by how much delays vary.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { links: BTreeMap::new(), random: fastrand::Rng::with_seed(seed) })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment: a table that a panic left is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these links have these faults, and all others have none.
    ///
    /// # Errors
    /// [`InvalidFaults`]; nothing changed then.
    pub fn set(&self, links: &BTreeMap<NodeId, LinkFaults>) -> Result<(), InvalidFaults> {
        if links.len() > LINKS_MAX {
            return Err(InvalidFaults::Links(links.len()));
        }
        links.values().try_for_each(LinkFaults::check)?;
        let now = Instant::now();
        let mut state = self.state();
        for peer in links.keys() {
            state.links.entry(*peer).or_insert_with(|| Link::new(now));
        }
        for (peer, link) in &mut state.links {
            link.faults = links.get(peer).copied().unwrap_or_default();
            link.free = now;
            let since = link.cut_since.unwrap_or(now);
            link.cut_since = link.faults.is_cut().then_some(since);
        }
        // A link that was ever named keeps its counts, up to a bound.
        while state.links.len() > LINKS_MAX {
            let plain = state.links.iter().find(|(peer, _)| !links.contains_key(peer));
            let Some(peer) = plain.map(|(peer, _)| *peer) else { break };
            state.links.remove(&peer);
        }
        Ok(())
    }

    /// Every link that was ever named: its faults now, and what they did.
    #[must_use]
    pub fn all(&self) -> Vec<(NodeId, LinkFaults, FaultCounts)> {
        self.state().links.iter().map(|(peer, link)| (*peer, link.faults, link.counts)).collect()
    }

    pub(crate) fn is_cut_from(&self, peer: NodeId) -> bool {
        self.state().links.get(&peer).is_some_and(|link| link.faults.cut_from)
    }

    pub(crate) fn is_cut_to(&self, peer: NodeId) -> bool {
        self.state().links.get(&peer).is_some_and(|link| link.faults.cut_to)
    }

    /// How long the link to a peer has been cut; `None` when it is not.
    pub(crate) fn cut_for(&self, peer: NodeId) -> Option<Duration> {
        self.state().links.get(&peer)?.cut_since.map(|since| since.elapsed())
    }

    /// How much of a stream is handled as one: everything while nothing is done to it.
    pub(crate) fn segment_bytes(&self, peer: NodeId) -> usize {
        let plain = self.state().links.get(&peer).is_none_or(|link| link.faults.is_plain());
        if plain { usize::MAX } else { SEGMENT_BYTES }
    }

    /// How long a stream waits until its link has room for more.
    pub(crate) fn room_after(&self, peer: NodeId) -> Duration {
        let state = self.state();
        let link = state.links.get(&peer).filter(|link| link.faults.rate_bits > 0);
        let ahead = link.map(|link| link.free.saturating_duration_since(Instant::now()));
        ahead.unwrap_or_default().saturating_sub(STREAMS_BACKLOG_MAX)
    }

    /// When a segment of a stream arrives, if nothing of the stream is before it.
    pub(crate) fn segment_due(&self, peer: NodeId, bytes: usize) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        let State { links, random } = &mut *state;
        let Some(link) = links.get_mut(&peer) else { return now };
        link.counts.segments += 1;
        let mut due = now + link.queue(now, bytes) + link.faults.sample(random);
        if link.faults.loss > 0.0 {
            // What is sent again may be lost again; not for ever, or a stream with a loss of 1 would never end.
            for _ in 0..16 {
                if random.f64() >= link.faults.loss {
                    break;
                }
                link.counts.segments_resent += 1;
                due += link.faults.delay * 2 + RESENT_AFTER;
            }
        }
        due
    }

    /// What becomes of a datagram to a peer.
    pub(crate) fn datagram_to(&self, peer: NodeId, bytes: usize) -> Fate {
        let now = Instant::now();
        let mut state = self.state();
        let State { links, random } = &mut *state;
        let Some(link) = links.get_mut(&peer) else { return Fate::Now };
        link.counts.datagrams += 1;
        let full = link.faults.rate_bits > 0 && link.free.saturating_duration_since(now) > BACKLOG_MAX;
        if link.faults.cut_to || full || (link.faults.loss > 0.0 && random.f64() < link.faults.loss) {
            link.counts.datagrams_lost += 1;
            return Fate::Lost;
        }
        let later = link.queue(now, bytes) + link.faults.sample(random);
        if later.is_zero() { Fate::Now } else { Fate::Later(later) }
    }

    /// Whether a datagram of the peer whose key begins so may come in.
    pub(crate) fn lets_in(&self, key_begins: &[u8]) -> bool {
        let mut state = self.state();
        let mut cut = state
            .links
            .iter_mut()
            .filter(|(peer, link)| link.faults.cut_from && peer.public_key().starts_with(key_begins));
        match cut.next() {
            Some((_, link)) => {
                link.counts.datagrams_refused += 1;
                false
            }
            None => true,
        }
    }

    /// The peer whose key begins so, among those with faults.
    pub(crate) fn named(&self, key_begins: &[u8]) -> Option<NodeId> {
        self.state().links.keys().copied().find(|peer| peer.public_key().starts_with(key_begins))
    }
}
