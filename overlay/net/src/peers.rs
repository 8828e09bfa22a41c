//! Peers: who is connected and how, whom to dial, and who waits for that.
//!
//! Dials are by peer and on condition that no connection or dial to it exists, with all addresses in one
//! dial: one connection per peer is the aim, and [`Connections`] closes what slips through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm};
use tokio::sync::oneshot;
use wattle_types::limits::ADDRESSES_PER_PEER_MAX;
use wattle_types::{Liveness, Machine as _, NodeId, Outbox, Table, Time, UnixTime, Write};

use crate::address_book::{AddressBook, is_believable};
use crate::away::Away;
use crate::behaviour::{Behaviour, K, network_protocol, node_id, peer_id};
use crate::channels::Places;
use crate::command::{PeersCommand, Reply, answer, when_durable};
use crate::connections::{self, Connections, Value, Why};
use crate::event::Watchers;
use crate::report::{ConnectError, LanStatus, Path, PeerInfo, Source};
use crate::traffic::Traffic;
use crate::translate::{DialFailure, Identity};
use crate::{Address, Config, DisconnectReason, Event, Reach, Restored};

/// How long a person waits for a dial, identification included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Below this many connections, remembered peers are dialed.
const WANTED_CONNECTIONS: usize = 8;
/// Between two rounds of dials, at first and at most.
const ROUND_PAUSE_MIN: Duration = Duration::from_secs(1);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How many remembered peers are dialed at once.
const DIALS_PER_ROUND: usize = 8;
/// How long a peer of another network has to learn that it is one.
const PARTING_DELAY: Duration = Duration::from_millis(500);
/// Peers of other networks to remember, so that they are not dialed again and again.
const FOREIGN_MAX: usize = 1024;
/// How often a peer may say anew what it is.
const IDENTIFY_EVERY: Duration = Duration::from_secs(1);
/// Peers whose connections are kept because somebody asked for them.
const PINNED_MAX: usize = 256;
/// How often those of them that are away are dialed again.
const PINNED_EVERY: Duration = Duration::from_secs(5);

/// One connected peer.
struct Peer {
    connections: BTreeMap<ConnectionId, (Path, bool)>,
    since: Time,
    source: Source,
    rtt: Option<Duration>,
    identity: Option<Identity>,
    identified: Option<Time>,
}

/// Somebody who waits for a connection.
struct Waiting {
    peer: Option<NodeId>,
    dials: BTreeSet<ConnectionId>,
    tried: Vec<(Address, String)>,
    deadline: Time,
    wish: Wish,
}

/// Whom to tell, and whether the connection is to be kept for their sake.
struct Wish {
    pin: bool,
    reply: Reply<Result<PeerInfo, ConnectError>>,
}

/// The part of the actor that knows peers.
pub(crate) struct Peers {
    me: NodeId,
    network_protocol: String,
    watchers: Watchers,
    traffic: Traffic,
    pub(crate) channels: Places,
    pub(crate) book: AddressBook,
    connections: Connections,
    low_water: usize,
    high_water: usize,
    connected: BTreeMap<NodeId, Peer>,
    closing: BTreeMap<ConnectionId, DisconnectReason>,
    waiting: Vec<Waiting>,
    sources: BTreeMap<NodeId, Source>,
    pinned: BTreeSet<NodeId>,
    blocked: BTreeSet<NodeId>,
    /// Peers that somebody disconnected: not dialed again until somebody asks for them.
    parted: BTreeSet<NodeId>,
    foreign: BTreeSet<NodeId>,
    /// Peers that membership holds for away.
    away: Away,
    /// Peers of other networks, and when to part with them.
    parting: Vec<(Time, NodeId, DisconnectReason)>,
    bootstrap: Vec<Address>,
    mdns: bool,
    lan_heard: BTreeSet<NodeId>,
    inbound_seen: u64,
    next_round: Time,
    next_pinned: Time,
    round_pause: Duration,
    writes: Vec<Write>,
}

impl Peers {
    pub(crate) fn new(
        config: &Config,
        restored: &Restored,
        watchers: Watchers,
        traffic: Traffic,
        channels: Places,
    ) -> Self {
        let me = config.key.node_id();
        let mut book = AddressBook::default();
        book.restore(&restored.addresses);
        let blocked =
            restored.blocked.iter().filter_map(|(key, _)| <[u8; 32]>::try_from(key.as_slice()).ok());
        Self {
            me,
            network_protocol: network_protocol(&config.network),
            watchers,
            traffic,
            channels,
            book,
            connections: Connections::new(me, config.connections),
            low_water: config.connections.low_water.get(),
            high_water: config.connections.high_water.get(),
            connected: BTreeMap::new(),
            closing: BTreeMap::new(),
            waiting: Vec::new(),
            sources: BTreeMap::new(),
            pinned: BTreeSet::new(),
            blocked: blocked.map(NodeId::from_public_key).collect(),
            parted: BTreeSet::new(),
            foreign: BTreeSet::new(),
            away: Away::default(),
            parting: Vec::new(),
            bootstrap: config.bootstrap.clone(),
            mdns: config.mdns,
            lan_heard: BTreeSet::new(),
            inbound_seen: 0,
            next_round: Time::ZERO,
            next_pinned: Time::ZERO,
            round_pause: ROUND_PAUSE_MIN,
            writes: Vec::new(),
        }
    }

    /// Lets the swarm know whom an earlier run blocked.
    pub(crate) fn arm(&self, swarm: &mut Swarm<Behaviour>) {
        for peer in &self.blocked {
            swarm.behaviour_mut().blocked.block_peer(peer_id(*peer));
        }
    }

    /// Carries out a command. When its caller must not hear of success before the disk has it: what to tell
    /// then.
    pub(crate) fn command(
        &mut self,
        now: Time,
        swarm: &mut Swarm<Behaviour>,
        command: PeersCommand,
    ) -> Option<oneshot::Sender<()>> {
        match command {
            PeersCommand::Connect { peer, addresses, reply } => {
                self.connect(now, swarm, peer, addresses, Wish { pin: true, reply });
            }
            PeersCommand::Reach { peer, addresses, reply } => {
                self.connect(now, swarm, Some(peer), addresses, Wish { pin: false, reply });
            }
            PeersCommand::Candidate { peer, addresses, source } => {
                self.candidate(now, swarm, peer, &addresses, source);
            }
            PeersCommand::Liveness { peer, liveness } => self.note_liveness(now, peer, liveness),
            PeersCommand::BeganAgain { peer } => {
                let mut out = Outbox::new();
                self.connections.handle(now, connections::Input::BeganAgain { peer }, &mut out);
                self.carry_out(swarm, &mut out);
            }
            PeersCommand::Unanswered { peer } => {
                let reason = DisconnectReason::Lost("a member that is away".to_owned());
                self.close_peer(swarm, peer, &reason);
            }
            PeersCommand::Disconnect { peer, reply } => {
                self.pinned.remove(&peer);
                if self.parted.len() < PINNED_MAX {
                    self.parted.insert(peer);
                }
                let was = self.close_peer(swarm, peer, &DisconnectReason::Asked);
                answer(reply, was);
            }
            PeersCommand::Block { peer, blocked, reply } => {
                self.block(swarm, peer, blocked);
                let (done, durable) = oneshot::channel();
                when_durable(durable, reply, ());
                return Some(done);
            }
            PeersCommand::Blocked(reply) => answer(reply, self.blocked.clone()),
            PeersCommand::Known(reply) => answer(reply, self.book.recent()),
            PeersCommand::Addresses { peer, reply } => answer(reply, self.addresses_of(peer)),
            PeersCommand::Connected { peer, reply } => answer(reply, self.info(now, peer)),
        }
        None
    }

    /// Where a peer can be reached: the path that works now, then the book.
    pub(crate) fn addresses_of(&self, peer: NodeId) -> Vec<Address> {
        let now = self.connected.get(&peer).into_iter().flat_map(|peer| peer.connections.values());
        let outbound = now.filter(|(_, outbound)| *outbound).map(|(path, _)| path.address.clone());
        let mut addresses: Vec<Address> = outbound.collect();
        for address in self.book.addresses(peer) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn connect(
        &mut self,
        now: Time,
        swarm: &mut Swarm<Behaviour>,
        peer: Option<NodeId>,
        addresses: Vec<Address>,
        wish: Wish,
    ) {
        let peer = peer.or_else(|| addresses.iter().find_map(Address::peer));
        if let Some(peer) = peer {
            self.foreign.remove(&peer);
            if wish.pin {
                self.parted.remove(&peer);
                self.sources.insert(peer, Source::Asked);
            }
            let refusal = match self.info(now, peer) {
                _ if peer == self.me => Some(Err(ConnectError::Myself)),
                _ if self.blocked.contains(&peer) => Some(Err(ConnectError::Blocked)),
                Some(info) => Some(Ok(info)),
                None => None,
            };
            if let Some(outcome) = refusal {
                if wish.pin && outcome.is_ok() {
                    self.pin(peer);
                }
                answer(wish.reply, outcome);
                return;
            }
        }
        // Where somebody says to dial is dialed also while the node tries elsewhere, which may take long to fail.
        let when = if wish.pin && !addresses.is_empty() {
            PeerCondition::Disconnected
        } else {
            PeerCondition::DisconnectedAndNotDialing
        };
        let dials = self.dial(swarm, peer, addresses, when);
        let under_way = peer.is_some_and(|peer| self.connected.contains_key(&peer));
        let dials = match dials {
            Err(ConnectError::NoAddress) if under_way => BTreeSet::new(),
            Err(error) => {
                answer(wish.reply, Err(error));
                return;
            }
            Ok(dials) => dials,
        };
        let deadline = now.after(CONNECT_TIMEOUT);
        self.waiting.push(Waiting { peer, dials, tried: Vec::new(), deadline, wish });
    }

    /// Dials a known peer at all its addresses at once, or an unknown one at each address by itself.
    fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: Option<NodeId>,
        mut addresses: Vec<Address>,
        when: PeerCondition,
    ) -> Result<BTreeSet<ConnectionId>, ConnectError> {
        let dials: Vec<DialOpts> = match peer {
            Some(peer) => {
                if addresses.is_empty() {
                    addresses = self.book.addresses(peer);
                }
                if addresses.is_empty() {
                    return Err(ConnectError::NoAddress);
                }
                let addresses = addresses.iter().map(|address| address.as_multiaddr().clone()).collect();
                vec![DialOpts::peer_id(peer_id(peer)).condition(when).addresses(addresses).build()]
            }
            None if addresses.is_empty() => return Err(ConnectError::NoAddress),
            None => addresses
                .iter()
                .map(|address| DialOpts::unknown_peer_id().address(address.as_multiaddr().clone()).build())
                .collect(),
        };
        let mut started = BTreeSet::new();
        for dial in dials {
            let connection = dial.connection_id();
            match swarm.dial(dial) {
                Ok(()) => {
                    started.insert(connection);
                }
                // Another dial to the same peer is under way: its outcome is ours.
                Err(libp2p::swarm::DialError::DialPeerConditionFalse(_)) => {}
                Err(error) => return Err(ConnectError::HungUp(error.to_string())),
            }
        }
        Ok(started)
    }

    /// Somebody told of a peer: dial it when there is room and no reason against it.
    fn candidate(
        &mut self,
        now: Time,
        swarm: &mut Swarm<Behaviour>,
        peer: NodeId,
        addresses: &[Address],
        source: Source,
    ) {
        let away = [&self.blocked, &self.foreign, &self.parted].iter().all(|set| !set.contains(&peer));
        if peer == self.me
            || !away
            || self.connected.contains_key(&peer)
            || self.connections.count() >= self.room_for(source)
            || !self.is_worth_a_dial(now, peer, source)
        {
            return;
        }
        if self.sources.len() < FOREIGN_MAX {
            self.sources.insert(peer, source);
        }
        self.away.dialed(now, peer);
        // Ignored because a candidate that cannot be dialed is not missed.
        let when = PeerCondition::DisconnectedAndNotDialing;
        drop(self.dial(swarm, Some(peer), addresses.to_vec(), when));
    }

    /// Up to how many connections a peer is dialed that was told of so. Who is only there is dialed up to low water:
    /// between the two only others dial. Else where there are more nodes than high water everybody would dial up to
    /// it, be trimmed, and dial again, for ever.
    const fn room_for(&self, source: Source) -> usize {
        match source {
            Source::SameMachine | Source::Mdns | Source::AddressBook => self.low_water,
            Source::Overlay | Source::Bootstrap | Source::Asked => self.high_water,
        }
    }

    /// Whether membership has anything against a dial. Nothing that a peer itself lets hear of it waits for that (a
    /// neighbour's file was written when it started, and then it dials by itself), nor does a node that is alone: it
    /// may be the one that is away. A bootstrap peer that lost its memory knows nobody.
    fn is_worth_a_dial(&self, now: Time, peer: NodeId, source: Source) -> bool {
        let heard = source == Source::Mdns;
        heard || source == Source::Bootstrap || self.connected.is_empty() || self.away.may_dial(now, peer)
    }

    pub(crate) fn note_liveness(&mut self, now: Time, peer: NodeId, liveness: Liveness) {
        self.away.note(now, peer, liveness);
        if liveness == Liveness::Here && self.pinned.contains(&peer) {
            self.next_pinned = now;
        }
    }

    pub(crate) fn is_away(&self, peer: NodeId) -> bool {
        self.away.is_away(peer)
    }

    fn block(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId, blocked: bool) {
        let key = peer.public_key().to_vec();
        if blocked {
            self.blocked.insert(peer);
            self.writes.push(Write::Put { table: Table::Blocked, key, value: Vec::new() });
            for connection in self.connected.get(&peer).into_iter().flat_map(|peer| peer.connections.keys()) {
                self.closing.insert(*connection, DisconnectReason::Denied);
            }
            swarm.behaviour_mut().blocked.block_peer(peer_id(peer));
        } else {
            self.blocked.remove(&peer);
            self.writes.push(Write::Remove { table: Table::Blocked, key });
            swarm.behaviour_mut().blocked.unblock_peer(peer_id(peer));
        }
    }

    fn close_peer(&mut self, swarm: &mut Swarm<Behaviour>, peer: NodeId, reason: &DisconnectReason) -> bool {
        let Some(known) = self.connected.get(&peer) else { return false };
        for connection in known.connections.keys() {
            self.closing.insert(*connection, reason.clone());
            swarm.close_connection(*connection);
        }
        true
    }

    pub(crate) fn on_opened(&mut self, now: Time, swarm: &mut Swarm<Behaviour>, opened: Opened) {
        let Opened { connection, peer, path, outbound, failed } = opened;
        for address in failed {
            self.book.failed(peer, &address);
        }
        if !outbound && path.address.reach() == Reach::Global {
            self.inbound_seen = self.inbound_seen.saturating_add(1);
        }
        let source = self.sources.remove(&peer).unwrap_or(Source::Overlay);
        // Whatever was said of it, it is here.
        self.away.note(now, peer, Liveness::Here);
        let entry = self.connected.entry(peer).or_insert_with(|| Peer {
            connections: BTreeMap::new(),
            since: now,
            source,
            rtt: None,
            identity: None,
            identified: None,
        });
        entry.connections.insert(connection, (path, outbound));
        let mut pinned = self.pinned.contains(&peer);
        for waiting in &mut self.waiting {
            if waiting.dials.contains(&connection) {
                waiting.peer = Some(peer);
            }
            pinned |= waiting.wish.pin && waiting.peer == Some(peer);
        }
        let full = self.connections.count() >= self.high_water;
        let values = if full { self.values(swarm) } else { BTreeMap::new() };
        let mut out = Outbox::new();
        let input = connections::Input::Opened { key: connection, peer, outbound, pinned, values };
        self.connections.handle(now, input, &mut out);
        self.carry_out(swarm, &mut out);
    }

    fn carry_out(&mut self, swarm: &mut Swarm<Behaviour>, out: &mut Outbox<connections::Output>) {
        for connections::Output::Close { key, why } in out.drain() {
            let reason = match why {
                Why::Duplicate => DisconnectReason::Asked,
                Why::Trimmed => DisconnectReason::Trimmed,
                Why::Replaced => DisconnectReason::Lost("it was to an earlier run".to_owned()),
            };
            self.closing.insert(key, reason);
            swarm.close_connection(key);
        }
    }

    /// A connection ended. Returns the peer when it was the last one to it.
    pub(crate) fn on_closed(
        &mut self,
        now: Time,
        connection: ConnectionId,
        peer: NodeId,
        reason: DisconnectReason,
    ) {
        self.connections.handle(now, connections::Input::Closed { key: connection }, &mut Outbox::new());
        let reason = self.closing.remove(&connection).unwrap_or(reason);
        let Some(known) = self.connected.get_mut(&peer) else { return };
        known.connections.remove(&connection);
        if !known.connections.is_empty() {
            return;
        }
        let was_known = known.identity.is_some();
        self.connected.remove(&peer);
        if self.connected.is_empty() {
            // Alone again: look around at once, and soon once more.
            self.round_pause = ROUND_PAUSE_MIN;
            self.next_round = now;
        }
        self.settle(peer, |_| Err(ConnectError::HungUp(reason.to_string())));
        if was_known || matches!(reason, DisconnectReason::OtherNetwork(_)) {
            self.watchers.tell(Event::Disconnected { peer, reason });
        }
    }

    /// Nobody answers pings there: a cable was pulled, which TCP alone notices only after minutes.
    pub(crate) fn on_unanswered(&mut self, swarm: &mut Swarm<Behaviour>, connection: ConnectionId) {
        self.closing.insert(connection, DisconnectReason::Lost("no answer to pings".to_owned()));
        if !swarm.close_connection(connection) {
            self.closing.remove(&connection);
        }
    }

    pub(crate) fn on_dial_failed(
        &mut self,
        connection: ConnectionId,
        peer: Option<NodeId>,
        failure: DialFailure,
    ) {
        if let Some(peer) = peer.filter(|_| !matches!(failure, DialFailure::Redundant)) {
            self.sources.remove(&peer);
        }
        if let (Some(peer), DialFailure::Unreachable(tried)) = (peer, &failure) {
            for (address, _) in tried {
                self.book.failed(peer, address);
            }
        }
        let concerned = |waiting: &Waiting| {
            waiting.dials.contains(&connection)
                || (peer.is_some() && waiting.peer == peer && waiting.dials.is_empty())
        };
        for mut waiting in self.waiting.extract_if(.., |waiting| concerned(waiting)).collect::<Vec<_>>() {
            waiting.dials.remove(&connection);
            let error = match &failure {
                DialFailure::Redundant => {
                    self.waiting.push(waiting);
                    continue;
                }
                DialFailure::NoAddress => ConnectError::NoAddress,
                DialFailure::Myself => ConnectError::Myself,
                DialFailure::WrongPeer { got: Some(other), .. } => ConnectError::WrongPeer(*other),
                DialFailure::WrongPeer { got: None, .. } => {
                    ConnectError::HungUp("it has a key that is not Ed25519".to_owned())
                }
                DialFailure::Denied(why) => ConnectError::HungUp(why.clone()),
                DialFailure::Unreachable(tried) => {
                    waiting.tried.extend(tried.iter().cloned());
                    if !waiting.dials.is_empty() {
                        self.waiting.push(waiting);
                        continue;
                    }
                    ConnectError::Unreachable { tried: std::mem::take(&mut waiting.tried) }
                }
            };
            answer(waiting.wish.reply, Err(error));
        }
    }

    /// The peer said what it is. Returns where the routing table may say that it is.
    pub(crate) fn on_identified(
        &mut self,
        now: Time,
        wall: UnixTime,
        peer: NodeId,
        identity: Identity,
    ) -> Option<Offer> {
        let wattle_peer = identity.network_protocol.strip_prefix("/wattle/");
        if let Some(theirs) = wattle_peer.filter(|_| identity.network_protocol != self.network_protocol) {
            let name = theirs.strip_suffix("/1").unwrap_or(theirs).to_owned();
            if self.foreign.len() < FOREIGN_MAX {
                self.foreign.insert(peer);
            }
            // Parted with a moment later, so that the other side too learns why.
            let reason = DisconnectReason::OtherNetwork(name);
            self.settle(peer, |_| Err(ConnectError::HungUp(reason.to_string())));
            self.parting.push((now.after(PARTING_DELAY), peer, reason));
            return None;
        }
        let known = self.connected.get_mut(&peer)?;
        if known.identified.is_some_and(|last| now.since(last) < IDENTIFY_EVERY) {
            // Whatever it has to say that often, nobody here writes it down.
            return None;
        }
        known.identified = Some(now);
        let (path, outbound) = known.connections.values().next().cloned()?;
        let from = path.address.reach();
        if outbound {
            self.book.worked(peer, &path.address, wall);
        }
        let believable = identity.listens.iter().filter(|address| is_believable(address, from));
        let believable: Vec<Address> = believable.take(ADDRESSES_PER_PEER_MAX).cloned().collect();
        if let Some(first) =
            believable.iter().find(|address| address.ip() == path.address.ip()).filter(|_| !outbound)
        {
            // It came to us from where it says it listens: as good as dialed.
            self.book.worked(peer, first, wall);
        }
        for address in &believable {
            self.book.claimed(peer, address, from);
        }
        let first_time = known.identity.is_none();
        known.identity = Some(identity);
        if let (true, Some(info)) = (first_time, self.info(now, peer)) {
            self.settle(peer, |_| Ok(info.clone()));
            self.watchers.tell(Event::Connected(info));
        }
        let dialed = outbound.then(|| path.address.clone());
        let addresses = dialed.into_iter().chain(believable).map(|address| address.without_peer());
        Some(Offer { via: path.address, addresses: addresses.take(ADDRESSES_PER_PEER_MAX).collect() })
    }

    /// Answers everybody who waits for `peer`.
    fn settle(&mut self, peer: NodeId, outcome: impl Fn(&Waiting) -> Result<PeerInfo, ConnectError>) {
        for waiting in self.waiting.extract_if(.., |waiting| waiting.peer == Some(peer)).collect::<Vec<_>>() {
            let outcome = outcome(&waiting);
            if waiting.wish.pin && outcome.is_ok() {
                self.pin(peer);
            }
            answer(waiting.wish.reply, outcome);
        }
    }

    /// Keeps a connection that somebody asked for: it is spared when trimming, and dialed again when it is
    /// lost.
    fn pin(&mut self, peer: NodeId) {
        if self.pinned.len() < PINNED_MAX {
            self.pinned.insert(peer);
        }
    }

    pub(crate) fn on_round_trip(&mut self, peer: NodeId, rtt: Duration) {
        if let Some(known) = self.connected.get_mut(&peer) {
            // RFC 6298, section 2: SRTT moves by an eighth of each new sample.
            known.rtt = Some(known.rtt.map_or(rtt, |smooth| (smooth * 7 + rtt) / 8));
        }
    }

    pub(crate) fn on_lan_found(
        &mut self,
        now: Time,
        swarm: &mut Swarm<Behaviour>,
        found: Vec<(NodeId, Address)>,
    ) {
        let mut by_peer: BTreeMap<NodeId, Vec<Address>> = BTreeMap::new();
        for (peer, address) in found {
            by_peer.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in by_peer {
            if self.lan_heard.len() < FOREIGN_MAX {
                self.lan_heard.insert(peer);
            }
            self.candidate(now, swarm, peer, &addresses, Source::Mdns);
        }
    }

    /// Announcements ran out. A peer that announced several addresses may still be heard at another.
    pub(crate) fn on_lan_lost(&mut self, swarm: &Swarm<Behaviour>, lost: Vec<NodeId>) {
        let heard = swarm.behaviour().mdns.as_ref().into_iter().flat_map(|mdns| mdns.discovered_nodes());
        let heard: BTreeSet<NodeId> = heard.filter_map(node_id).collect();
        for peer in lost.iter().filter(|peer| !heard.contains(peer)) {
            self.lan_heard.remove(peer);
        }
    }

    /// Time passed: give up on those who waited too long, and dial when there are too few peers.
    pub(crate) fn on_tick(&mut self, now: Time, swarm: &mut Swarm<Behaviour>) {
        for (_, peer, reason) in self.parting.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.close_peer(swarm, peer, &reason);
        }
        for waiting in self.waiting.extract_if(.., |w| w.deadline <= now || w.wish.reply.is_closed()) {
            let error = ConnectError::Unreachable { tried: waiting.tried };
            answer(waiting.wish.reply, Err(error));
        }
        if self.connected.len() < WANTED_CONNECTIONS && self.next_round <= now {
            self.round(now, swarm);
            // The pause doubles from 1 s to a minute: a lone node does not hammer dead addresses.
            self.next_round = now.after(self.round_pause);
            self.round_pause = (self.round_pause * 2).min(ROUND_PAUSE_MAX);
        }
        if self.next_pinned <= now {
            self.next_pinned = now.after(PINNED_EVERY);
            let away = self.pinned.iter().filter(|peer| {
                !self.connected.contains_key(peer) && self.is_worth_a_dial(now, **peer, Source::Asked)
            });
            let away = away.copied();
            for peer in away.take(DIALS_PER_ROUND).collect::<Vec<_>>() {
                self.candidate(now, swarm, peer, &[], Source::Asked);
            }
        }
        let mut out = Outbox::new();
        for (peer, _) in self.connected.iter().filter(|(_, known)| known.connections.len() > 1) {
            let quiet = self.traffic.quiet(&peer_id(*peer));
            self.connections.handle(now, connections::Input::Doubled { peer: *peer, quiet }, &mut out);
        }
        self.carry_out(swarm, &mut out);
    }

    /// Dials the configured bootstraps, then those seen last.
    fn round(&mut self, now: Time, swarm: &mut Swarm<Behaviour>) {
        for address in self.bootstrap.clone() {
            match address.peer() {
                Some(peer) => self.candidate(now, swarm, peer, &[address], Source::Bootstrap),
                // Ignored because the next round tries again.
                None if self.connected.is_empty() => {
                    drop(self.dial(swarm, None, vec![address], PeerCondition::DisconnectedAndNotDialing));
                }
                None => {}
            }
        }
        let away = self.book.recent().into_iter().filter(|(peer, _)| {
            !self.connected.contains_key(peer) && self.is_worth_a_dial(now, *peer, Source::AddressBook)
        });
        for (peer, addresses) in away.take(DIALS_PER_ROUND).collect::<Vec<_>>() {
            self.candidate(now, swarm, peer, &addresses, Source::AddressBook);
        }
    }

    /// What each connected peer is good for.
    fn values(&self, swarm: &mut Swarm<Behaviour>) -> BTreeMap<NodeId, Value> {
        let behaviour = swarm.behaviour_mut();
        let mesh: BTreeSet<NodeId> = behaviour.gossip.all_mesh_peers().filter_map(node_id).collect();
        let me = KBucketKey::from(peer_id(self.me));
        let nearest: Vec<_> = behaviour.kad.get_closest_local_peers(&me).collect();
        let near: BTreeMap<NodeId, (usize, u32)> = nearest
            .iter()
            .enumerate()
            .filter_map(|(rank, key)| {
                Some((node_id(key.preimage())?, (rank, crate::dht::shared_bits(&me, key))))
            })
            .collect();
        // A lookup asks those nearest to its target next; a connection that is closing would not carry that.
        let mut asked_next = BTreeSet::new();
        let mut connected: Vec<(NodeId, KBucketKey<PeerId>)> =
            self.connected.keys().map(|peer| (*peer, KBucketKey::from(peer_id(*peer)))).collect();
        for target in crate::dht::sought(&behaviour.kad) {
            connected.sort_by_cached_key(|(_, key)| target.distance(key));
            asked_next.extend(connected.iter().take(K.get()).map(|(peer, _)| *peer));
        }
        // Strangers alone cannot weave a whole node full: see `channels`, rule 4.
        let channels = self.channels.woven(self.high_water / 2);
        let is_near = |peer: &NodeId| near.get(peer).is_some_and(|(rank, _)| *rank < WANTED_CONNECTIONS);
        let value = |peer: &NodeId| Value {
            pinned: self.pinned.contains(peer),
            woven: mesh.contains(peer) || is_near(peer) || channels.contains(peer),
            asked_next: asked_next.contains(peer),
            nearness: near.get(peer).map_or(0, |(_, bits)| bits.saturating_add(1)),
            quiet: self.traffic.quiet(&peer_id(*peer)),
        };
        self.connected.keys().map(|peer| (*peer, value(peer))).collect()
    }

    fn info(&self, now: Time, peer: NodeId) -> Option<PeerInfo> {
        let known = self.connected.get(&peer)?;
        let (path, outbound) = known.connections.values().next()?;
        let identity = known.identity.as_ref()?;
        let (bytes_in, bytes_out) = self.traffic.of(&peer_id(peer));
        Some(PeerInfo {
            peer,
            path: path.clone(),
            rtt: known.rtt,
            connected: now.since(known.since),
            outbound: *outbound,
            agent: Some(identity.agent.clone()),
            protocols: identity.protocols.clone(),
            listens: identity.listens.clone(),
            bytes_in,
            bytes_out,
            source: known.source,
        })
    }

    /// Everybody who is connected and said what it is, but for those whose connections are being closed.
    pub(crate) fn infos(&self, now: Time) -> Vec<PeerInfo> {
        let stays = |peer: &Peer| peer.connections.keys().any(|key| !self.closing.contains_key(key));
        let staying = self.connected.iter().filter(|(_, peer)| stays(peer));
        staying.filter_map(|(peer, _)| self.info(now, *peer)).collect()
    }

    /// Whether it is connected and an address is known at which others could dial it.
    pub(crate) fn is_reached_at(&self, peer: NodeId) -> bool {
        self.is_connected(peer) && !self.addresses_of(peer).is_empty()
    }

    pub(crate) fn is_connected(&self, peer: NodeId) -> bool {
        self.connected.contains_key(&peer)
    }

    pub(crate) fn lan(&self) -> LanStatus {
        match (self.mdns, self.lan_heard.len()) {
            (false, _) => LanStatus::Off,
            (true, 0) => LanStatus::Silent,
            (true, heard) => LanStatus::Heard(heard),
        }
    }

    pub(crate) const fn inbound_seen(&self) -> u64 {
        self.inbound_seen
    }

    pub(crate) fn bootstrap_count(&self) -> usize {
        self.bootstrap.len()
    }

    /// What changed since the last call and must reach the disk.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = self.book.take_writes();
        writes.append(&mut self.writes);
        writes
    }
}

/// Where a peer is, for the routing table.
pub(crate) struct Offer {
    /// The other end of its connection: the one address that it cannot make up.
    pub(crate) via: Address,
    /// Where it can be dialed.
    pub(crate) addresses: Vec<Address>,
}

/// A new connection.
pub(crate) struct Opened {
    pub(crate) connection: ConnectionId,
    pub(crate) peer: NodeId,
    pub(crate) path: Path,
    pub(crate) outbound: bool,
    pub(crate) failed: Vec<Address>,
}
