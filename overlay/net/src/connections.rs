//! Which connections to keep: a pure machine.
//!
//! # What it does
//!
//! Keeps at most one connection per peer and at most `high_water` in all. libp2p alone keeps every connection
//! for ever once gossip runs over it, so an overlay of N nodes drifts to N - 1 connections each.
//!
//! # Rules
//!
//! 1. When both sides dialed at once, both keep the connection that the lower node id dialed, and close the
//!    other. Of two that one side dialed, that side closes the younger. Not at once: libp2p's Kademlia does
//!    not notice that a question was lost with one of two connections, and waits for its answer. So a
//!    duplicate lingers until the peer is idle, and for ten seconds at most; where the other side should close
//!    one and does not, this side does after twenty.
//!    When the peer is there as a later run, what was opened to the earlier one is dead, though over QUIC nobody
//!    says so where that was killed: of its connections only the youngest is kept, and only until one opens that
//!    is younger. Two that were opened within a quarter of a second are both of the later run.
//! 2. Above `high_water` connections, close the least valuable until `low_water` are left: first those that
//!    are idle, the far and the young before the near and the old; then those in use, those that others
//!    dialed and that were quiet longest first; then those that a lookup of ours asks next. A connection of a
//!    gossip mesh, of an open channel, of one of the nearest peers or one that a person asked for goes only
//!    when nothing else is left above `high_water`: a stranger's flood of dials cannot push them out.
//!
//! Use decides before nearness because a lookup is what fills a node: closing the connection that carries one
//! of its questions makes the lookup miss that peer, on this side or on the other. The price: who sends a byte
//! every second outlives an idle peer that is worth more. What must not be lost to that is woven or pinned.
//!
//! # Invariants
//!
//! * **C1** after every input that opened a connection, those not being closed are at most `high_water`.
//! * **C2** a peer has at most four connections, and the same two for at most twenty seconds.
//!
//! # Bounds
//!
//! One entry per connection (at most `2 * high_water`, which libp2p's own limit enforces below us); work per
//! input is O(n log n) when trimming, else O(log n).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use wattle_types::{Machine, NodeId, Outbox, Time};

use crate::ConnectionLimits;

/// A duplicate stays until its peer is idle, and this long at most.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// Connections that both sides dialed at once open within this span; no run ends and another begins in it.
const OPENED_TOGETHER: Duration = Duration::from_millis(250);

/// What a peer is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// A person or an application asked for it.
    pub(crate) pinned: bool,
    /// In a gossip mesh, among the nearest peers of the DHT, or at the other end of a channel.
    pub(crate) woven: bool,
    /// Next to be asked by a lookup under way.
    pub(crate) asked_next: bool,
    /// In the routing table: leading bits shared with this node, plus one; 0 when not in it.
    pub(crate) nearness: u32,
    /// Since the last byte from or to it.
    pub(crate) quiet: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// `pinned`: somebody asked for it, so it is spared from its first moment on. `values`: what the connected
    /// peers are good for now; needed only when this connection may fill the node.
    Opened {
        key: ConnectionId,
        peer: NodeId,
        outbound: bool,
        pinned: bool,
        values: BTreeMap<NodeId, Value>,
    },
    Closed {
        key: ConnectionId,
    },
    /// The peer is there as a later run than before.
    BeganAgain {
        peer: NodeId,
    },
    /// There are several connections to this peer, and so long none of them carried anything.
    Doubled {
        peer: NodeId,
        quiet: Duration,
    },
}

/// What must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Close { key: ConnectionId, why: Why },
}

/// Why a connection must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Duplicate,
    Trimmed,
    Replaced,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    peer: NodeId,
    outbound: bool,
    pinned: bool,
    opened: Time,
    closing: bool,
    /// It may be to an earlier run of the peer.
    doubted: bool,
}

/// The machine.
pub(crate) struct Connections {
    me: NodeId,
    limits: ConnectionLimits,
    open: BTreeMap<ConnectionId, Connection>,
}

impl Connections {
    pub(crate) const fn new(me: NodeId, limits: ConnectionLimits) -> Self {
        Self { me, limits, open: BTreeMap::new() }
    }

    /// Connections that are not being closed.
    pub(crate) fn count(&self) -> usize {
        self.open.values().filter(|connection| !connection.closing).count()
    }

    /// Closes duplicates that have lingered long enough.
    fn on_doubled(&mut self, now: Time, peer: NodeId, quiet: Duration, out: &mut Outbox<Output>) {
        let open = self.open.iter().filter(|(_, other)| other.peer == peer && !other.closing);
        let mut twins: Vec<(Time, ConnectionId)> = open.map(|(key, other)| (other.opened, *key)).collect();
        twins.sort_unstable();
        let age_of =
            |twin: Option<&(Time, ConnectionId)>| twin.map_or(Duration::ZERO, |(at, _)| now.since(*at));
        let age = age_of(twins.last());
        let losers = if age_of(twins.get(1)) >= 2 * LINGER_MAX {
            // The other side should have decided long ago.
            twins.iter().skip(1).map(|(_, key)| *key).collect()
        } else if age >= LINGER_MAX || quiet.min(age) >= self.limits.idle_after {
            self.losers(peer, &twins)
        } else {
            Vec::new()
        };
        for loser in losers {
            self.close(loser, Why::Duplicate, out);
        }
    }

    /// Closes what may be to an earlier run of a peer and is older than another connection to it.
    fn close_replaced(&mut self, peer: NodeId, out: &mut Outbox<Output>) {
        let open = || self.open.iter().filter(|(_, other)| other.peer == peer && !other.closing);
        let Some(youngest) = open().map(|(_, connection)| connection.opened).max() else { return };
        let replaced = |one: &Connection| one.doubted && youngest.since(one.opened) >= OPENED_TOGETHER;
        let replaced: Vec<_> = open().filter(|(_, one)| replaced(one)).map(|(key, _)| *key).collect();
        for key in replaced {
            self.close(key, Why::Replaced, out);
        }
    }

    /// Which of several connections to one peer, eldest first, this side closes.
    fn losers(&self, peer: NodeId, twins: &[(Time, ConnectionId)]) -> Vec<ConnectionId> {
        let mine_win = self.me < peer;
        let outbound = |key: &ConnectionId| self.open.get(key).is_some_and(|connection| connection.outbound);
        let (winners, losers): (Vec<_>, Vec<_>) =
            twins.iter().map(|(_, key)| *key).partition(|key| outbound(key) == mine_win);
        match (winners.is_empty(), mine_win) {
            // All were dialed by the higher id: that is this side, or the other one decides.
            (true, false) => losers.into_iter().skip(1).collect(),
            (true, true) => Vec::new(),
            // The winners were dialed by this side, which keeps the eldest, or by the other, which does.
            (false, true) => winners.into_iter().skip(1).chain(losers).collect(),
            (false, false) => losers,
        }
    }

    fn trim(&mut self, now: Time, values: &BTreeMap<NodeId, Value>, out: &mut Outbox<Output>) {
        let mut ranked: Vec<_> = self
            .open
            .iter()
            .filter(|(_, connection)| !connection.closing)
            .map(|(key, connection)| {
                let value = values.get(&connection.peer).copied().unwrap_or_default();
                let quiet = value.quiet.min(now.since(connection.opened));
                let used = quiet < self.limits.idle_after;
                let worth = if used { u32::from(connection.outbound) } else { value.nearness };
                let recent = if used { micros(quiet) } else { connection.opened.as_micros() };
                let pinned = value.pinned || connection.pinned;
                ((pinned, value.woven, value.asked_next, used, worth, Reverse(recent)), *key)
            })
            .collect();
        ranked.sort_unstable();
        let mut left = ranked.len();
        for ((pinned, woven, ..), key) in ranked {
            let spared = pinned || woven;
            if left <= self.limits.low_water.get() || (spared && left <= self.limits.high_water.get()) {
                break;
            }
            self.close(key, Why::Trimmed, out);
            left -= 1;
        }
    }

    fn close(&mut self, key: ConnectionId, why: Why, out: &mut Outbox<Output>) {
        if let Some(connection) = self.open.get_mut(&key) {
            connection.closing = true;
            out.push(Output::Close { key, why });
        }
    }

    fn check_invariants(&self) {
        debug_assert!(self.count() <= self.limits.high_water.get(), "C1: at most high_water connections");
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Machine for Connections {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Opened { key, peer, outbound, pinned, values } => {
                let connection =
                    Connection { peer, outbound, pinned, opened: now, closing: false, doubted: false };
                self.open.insert(key, connection);
                self.close_replaced(peer, out);
                if self.count() > self.limits.high_water.get() {
                    self.trim(now, &values, out);
                }
                self.check_invariants();
            }
            Input::Closed { key } => {
                self.open.remove(&key);
            }
            Input::BeganAgain { peer } => {
                let to_peer = self.open.values_mut().filter(|connection| connection.peer == peer);
                to_peer.for_each(|connection| connection.doubted = true);
                self.close_replaced(peer, out);
            }
            Input::Doubled { peer, quiet } => self.on_doubled(now, peer, quiet, out),
        }
    }

    /// The ticks of its owner are near enough.
    fn deadline(&self) -> Option<Time> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    fn limits(low: usize, high: usize) -> ConnectionLimits {
        ConnectionLimits {
            low_water: NonZeroUsize::new(low).unwrap(),
            high_water: NonZeroUsize::new(high).unwrap(),
            idle_after: Duration::from_secs(2),
        }
    }

    fn open(machine: &mut Connections, at: u64, key: usize, peer: u8, outbound: bool) -> Vec<Output> {
        open_among(machine, at, key, peer, outbound, [])
    }

    /// The same, where the connected peers are good for this.
    fn open_among(
        machine: &mut Connections,
        at: u64,
        key: usize,
        peer: u8,
        outbound: bool,
        values: impl IntoIterator<Item = (u8, Value)>,
    ) -> Vec<Output> {
        let mut out = Outbox::new();
        let values = values.into_iter().map(|(peer, value)| (node(peer), value)).collect();
        let key = ConnectionId::new_unchecked(key);
        let opened = Input::Opened { key, peer: node(peer), outbound, pinned: false, values };
        machine.handle(Time::from_micros(at * 1_000_000), opened, &mut out);
        out.drain().collect()
    }

    fn quiet(millis: u64) -> Value {
        Value { quiet: Duration::from_millis(millis), ..Value::default() }
    }

    fn closes(key: usize, why: Why) -> Vec<Output> {
        vec![Output::Close { key: ConnectionId::new_unchecked(key), why }]
    }

    fn doubled(machine: &mut Connections, at: u64, peer: u8, quiet_millis: u64) -> Vec<Output> {
        let mut out = Outbox::new();
        let quiet = Duration::from_millis(quiet_millis);
        let input = Input::Doubled { peer: node(peer), quiet };
        machine.handle(Time::from_micros(at * 1_000_000), input, &mut out);
        out.drain().collect()
    }

    fn began_again(machine: &mut Connections, at: u64, peer: u8) -> Vec<Output> {
        let mut out = Outbox::new();
        machine.handle(Time::from_micros(at * 1_000_000), Input::BeganAgain { peer: node(peer) }, &mut out);
        out.drain().collect()
    }

    #[test]
    fn what_was_opened_to_an_earlier_run_is_closed_once_there_is_something_younger() {
        // The later run dialed before it was told of.
        let mut machine = Connections::new(node(3), limits(4, 8));
        open(&mut machine, 0, 1, 5, true);
        assert_eq!(open(&mut machine, 9, 2, 5, false), [], "two at once may be two dials");
        open(&mut machine, 0, 7, 6, true);
        assert_eq!(began_again(&mut machine, 10, 5), closes(1, Why::Replaced));
        assert_eq!(
            began_again(&mut machine, 10, 6),
            [],
            "of one that is alone nobody knows which run it is to"
        );

        // It was told of before it dialed.
        assert_eq!(open(&mut machine, 11, 8, 6, false), closes(7, Why::Replaced));
        assert_eq!(open(&mut machine, 12, 9, 6, true), [], "that one is of the later run");
    }

    #[test]
    fn two_that_both_sides_dialed_after_a_restart_both_stay() {
        let mut machine = Connections::new(node(3), limits(4, 8));
        open(&mut machine, 9, 1, 5, true);
        open(&mut machine, 9, 2, 5, false);
        assert_eq!(began_again(&mut machine, 9, 5), []);
    }

    #[test]
    fn of_two_simultaneous_dials_both_sides_keep_the_lower_ids() {
        // Connection 1 was dialed by node 3, connection 2 by node 5.
        let mut three = Connections::new(node(3), limits(4, 8));
        open(&mut three, 0, 1, 5, true);
        open(&mut three, 0, 2, 5, false);
        assert_eq!(doubled(&mut three, 2, 5, 2000), closes(2, Why::Duplicate));
        let mut five = Connections::new(node(5), limits(4, 8));
        open(&mut five, 0, 2, 3, true);
        open(&mut five, 0, 1, 3, false);
        assert_eq!(doubled(&mut five, 2, 3, 2000), closes(2, Why::Duplicate));
    }

    #[test]
    fn the_side_that_dialed_twice_closes_the_younger() {
        // Whether its id is the lower or the higher one.
        for (me, peer) in [(3, 5), (5, 3)] {
            let mut dialer = Connections::new(node(me), limits(4, 8));
            open(&mut dialer, 0, 1, peer, true);
            open(&mut dialer, 0, 2, peer, true);
            assert_eq!(doubled(&mut dialer, 2, peer, 2000), closes(2, Why::Duplicate));
            let mut listener = Connections::new(node(peer), limits(4, 8));
            open(&mut listener, 0, 1, me, false);
            open(&mut listener, 0, 2, me, false);
            assert_eq!(doubled(&mut listener, 19, me, 2000), [], "the dialer decides");
            assert_eq!(doubled(&mut listener, 20, me, 2000), closes(2, Why::Duplicate), "but not never");
        }
    }

    #[test]
    fn a_duplicate_that_may_carry_a_question_is_not_closed() {
        let mut machine = Connections::new(node(3), limits(4, 8));
        open(&mut machine, 0, 1, 5, true);
        assert_eq!(open(&mut machine, 5, 2, 5, false), [], "just opened");
        assert_eq!(doubled(&mut machine, 6, 5, 6000), [], "one of them is young");
        assert_eq!(doubled(&mut machine, 8, 5, 1900), [], "in use");
        assert_eq!(doubled(&mut machine, 15, 5, 0), closes(2, Why::Duplicate), "but not for ever");
        assert_eq!(doubled(&mut machine, 16, 5, 9000), [], "once");
    }

    #[test]
    fn trimming_spares_the_mesh_and_what_people_asked_for() {
        let mut machine = Connections::new(node(0), limits(3, 5));
        for peer in 1..=5 {
            assert_eq!(open(&mut machine, u64::from(peer), usize::from(peer), peer, true), []);
        }
        let woven = Value { woven: true, ..quiet(60_000) };
        let pinned = Value { pinned: true, ..quiet(60_000) };
        let values = [(1, woven), (2, pinned), (3, quiet(9_000)), (4, quiet(9_000)), (5, quiet(9_000))];
        let closed = open_among(&mut machine, 60, 6, 6, false, values);
        // The idle ones go, the newest first; the mesh, the pinned and the newcomer stay.
        assert_eq!(closed, [5, 4, 3].map(|key| closes(key, Why::Trimmed)).concat());
    }

    #[test]
    fn a_newcomer_gets_its_chance_on_a_full_node() {
        let mut machine = Connections::new(node(0), limits(3, 5));
        for peer in 1..=5 {
            open(&mut machine, u64::from(peer), usize::from(peer), peer, false);
        }
        // All are in use: those that were quiet longest go.
        let values = (1..=5).map(|peer| (peer, quiet(100 * u64::from(6 - peer))));
        let closed = open_among(&mut machine, 6, 6, 6, false, values);
        assert_eq!(closed, [1, 2, 3].map(|key| closes(key, Why::Trimmed)).concat());
    }

    #[test]
    fn a_question_of_this_moment_outlives_nearer_peers_that_are_idle() {
        let mut machine = Connections::new(node(0), limits(3, 5));
        for peer in 1..=5 {
            open(&mut machine, u64::from(peer), usize::from(peer), peer, false);
        }
        let near = |peer| Value { nearness: 9 + u32::from(peer), ..quiet(5_000) };
        let values = (1..=5).map(|peer| (peer, if peer == 2 { quiet(10) } else { near(peer) }));
        let closed = open_among(&mut machine, 6, 6, 6, true, values);
        assert_eq!(closed, [1, 3, 4].map(|key| closes(key, Why::Trimmed)).concat(), "the farthest first");
    }

    #[test]
    fn what_this_node_asks_outlives_what_strangers_do() {
        let mut machine = Connections::new(node(0), limits(3, 5));
        for peer in 1..=5 {
            open(&mut machine, u64::from(peer), usize::from(peer), peer, peer == 1);
        }
        let values = (1..=5).map(|peer| (peer, quiet(if peer == 1 { 900 } else { 1 })));
        let closed = open_among(&mut machine, 6, 6, 6, false, values);
        assert!(closed.len() == 3 && !closed.contains(&closes(1, Why::Trimmed)[0]), "{closed:?}");
    }

    #[test]
    fn a_flood_of_strangers_pushes_out_no_valuable_peer() {
        let mut machine = Connections::new(node(0), limits(4, 8));
        for peer in 1..=4 {
            open(&mut machine, 0, usize::from(peer), peer, true);
        }
        let pinned = Value { pinned: true, ..Value::default() };
        let pinned = || (1..=4).map(|peer| (peer, pinned));
        for stranger in 5..=200 {
            let closed = open_among(&mut machine, 1, usize::from(stranger), stranger, false, pinned());
            for Output::Close { key, .. } in closed {
                assert!(key > ConnectionId::new_unchecked(4), "a pinned peer was closed");
                machine.handle(Time::ZERO, Input::Closed { key }, &mut Outbox::new());
            }
        }
    }

    #[test]
    fn what_a_person_asked_for_is_spared_from_its_first_moment() {
        let mut machine = Connections::new(node(0), limits(2, 4));
        for stranger in 1..=4 {
            open(&mut machine, 1, usize::from(stranger), stranger, false);
        }
        let key = ConnectionId::new_unchecked(9);
        let values = BTreeMap::new();
        let asked = Input::Opened { key, peer: node(9), outbound: true, pinned: true, values };
        let mut out = Outbox::new();
        machine.handle(Time::from_micros(1_000_001), asked, &mut out);
        assert!(out.as_slice().iter().all(|Output::Close { key: closed, .. }| *closed != key), "{out:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_high_water(dials in prop::collection::vec((0u8..40, any::<bool>(), 0u64..100), 1..300)) {
            let mut machine = Connections::new(node(0), limits(4, 9));
            let mut clock = 0;
            for (key, (peer, outbound, wait)) in dials.into_iter().enumerate() {
                clock += wait;
                for Output::Close { key, .. } in open(&mut machine, clock, key, peer + 1, outbound) {
                    machine.handle(Time::ZERO, Input::Closed { key }, &mut Outbox::new());
                }
                prop_assert!(machine.count() <= 9);
            }
        }
    }
}
