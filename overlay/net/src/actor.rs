//! The task that owns the swarm. It alone touches libp2p; everybody else has the [`Overlay`] handle.
//!
//! One loop: a command or a libp2p event or a tick goes to the part that it concerns ([`Peers`], [`Dht`],
//! [`Topics`]), and what must survive a restart goes to the disk owner. No arm waits for anything but the
//! disk owner's queue: when the disk does not keep up the node stops reading from the network instead of
//! piling up.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::metrics::{Metrics, Recorder as _, Registry};
use libp2p::swarm::{Swarm, SwarmEvent};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use wattle_types::{NodeId, Time, UnixTime};

use crate::behaviour::{Behaviour, kad_protocol};
use crate::command::{Command, DhtCommand, PeersCommand, answer};
use crate::dht::Dht;
use crate::event::Watchers;
use crate::peers::Peers;
use crate::report::{PersistBatch, Status};
use crate::topics::Topics;
use crate::translate::{DialFailure, Input, deepest, translate};
use crate::{Address, Event, StartError};

/// Listening on an address of this machine is a matter of microseconds; a second means that it will not
/// happen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

/// The task.
pub(crate) struct Actor {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) watchers: Watchers,
    pub(crate) persist: mpsc::Sender<PersistBatch>,
    pub(crate) peers: Peers,
    pub(crate) dht: Dht,
    pub(crate) topics: Topics,
    pub(crate) external: Vec<Address>,
    pub(crate) dht_server: bool,
    pub(crate) kad_protocol: String,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
}

/// How long connections have to close when the node stops: a part of what its whole goodbye has.
const HANG_UP_MAX: Duration = Duration::from_millis(500);

/// The wall clock, for what crosses a restart or the network.
pub(crate) fn wall_clock() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Actor {
    pub(crate) async fn run(mut self: Box<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped_by = loop {
            let mut batch = None;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop(reply)) => break Some(reply),
                    Some(command) => batch = self.on_command(command),
                    // Every handle is gone: nobody can ask for anything any more.
                    None => break None,
                },
                event = self.swarm.select_next_some() => {
                    self.metrics.record(&event);
                    if let Some(input) = translate(event) {
                        self.on_input(input);
                    }
                }
                _ = tick.tick() => self.on_tick(),
            }
            self.flush(batch).await;
        };
        self.peers.channels.close();
        if let Some(reply) = stopped_by {
            self.flush(None).await;
            self.hang_up().await;
            answer(reply, ());
        }
    }

    /// Closes every connection in words. Over QUIC nothing else tells the other side that this one is gone: for ten
    /// seconds it would wait, and when this node is back it would speak into what is dead.
    async fn hang_up(&mut self) {
        let peers: Vec<libp2p::PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Ignored because one that closed meanwhile is what is wanted.
            self.swarm.disconnect_peer_id(peer).unwrap_or_default();
        }
        let closed = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } = self.swarm.select_next_some().await
                {
                    // It came back at once, as one does who misses a node. Ignored as above.
                    self.swarm.disconnect_peer_id(peer_id).unwrap_or_default();
                }
            }
        };
        if tokio::time::timeout(HANG_UP_MAX, closed).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }

    /// Listens everywhere that was asked for, or says where it could not.
    pub(crate) async fn listen(&mut self, addresses: &[Address]) -> Result<(), StartError> {
        self.peers.arm(&mut self.swarm);
        for address in addresses {
            let failed = |why: String| StartError::Listen { address: address.clone(), why };
            let listener = self.swarm.listen_on(address.as_multiaddr().clone());
            let listener = listener.map_err(|error| failed(deepest(&error)))?;
            match tokio::time::timeout(LISTEN_TIMEOUT, self.listening(listener)).await {
                Ok(outcome) => outcome.map_err(failed)?,
                Err(_elapsed) => return Err(failed("the system gave no address".to_owned())),
            }
        }
        Ok(())
    }

    /// Serves the swarm until a listener has an address. Peers may come meanwhile through an earlier one.
    async fn listening(&mut self, listener: ListenerId) -> Result<(), String> {
        loop {
            let event = self.swarm.select_next_some().await;
            let outcome = match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } if *listener_id == listener => Some(Ok(())),
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if *listener_id == listener => {
                    let why = reason.as_ref().err().map(ToString::to_string);
                    Some(Err(why.unwrap_or_else(|| "it closed at once".to_owned())))
                }
                _ => None,
            };
            if let Some(input) = translate(event) {
                self.on_input(input);
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn now(&self) -> Time {
        Time::since_start(self.started.elapsed())
    }

    /// Hands to the disk owner what changed. A disk owner that is gone took the node with it.
    async fn flush(&mut self, batch: Option<PersistBatch>) {
        let mut batch = batch.unwrap_or(PersistBatch { writes: Vec::new(), done: None });
        batch.writes.append(&mut self.dht.take_writes(&mut self.swarm));
        batch.writes.append(&mut self.peers.take_writes());
        if (!batch.writes.is_empty() || batch.done.is_some()) && self.persist.send(batch).await.is_err() {
            // The promise in `done` is dropped with the batch, and so nothing is acknowledged.
            tracing::debug!("the disk owner is gone");
        }
    }

    fn on_command(&mut self, command: Command) -> Option<PersistBatch> {
        let now = self.now();
        match command {
            Command::Peers(PeersCommand::Liveness { peer, liveness }) => {
                self.peers.note_liveness(now, peer, liveness);
                self.withdraw_if_away(peer);
            }
            Command::Peers(command) => {
                let done = self.peers.command(now, &mut self.swarm, command)?;
                return Some(PersistBatch { writes: Vec::new(), done: Some(done) });
            }
            Command::Dht(DhtCommand::FindPeer { peer, reply, .. }) if self.peers.is_reached_at(peer) => {
                answer(reply, Ok(self.peers.addresses_of(peer)));
            }
            Command::Dht(command) => {
                return Some(self.dht.command(now, wall_clock(), &mut self.swarm, command));
            }
            Command::Topics(command) => self.topics.command(now, &mut self.swarm, command),
            Command::Status(reply) => answer(reply, self.status()),
            Command::Metrics(reply) => answer(reply, self.encode_metrics()),
            Command::Stop(reply) => answer(reply, ()),
        }
        None
    }

    /// Who is away and not connected has no place in the routing table: every lookup would wait for it. That it is
    /// away this node found itself, by its last ping; what others say alone empties no bucket.
    fn withdraw_if_away(&mut self, peer: NodeId) {
        if self.peers.is_away(peer) && !self.peers.is_connected(peer) {
            self.dht.withdraw(&mut self.swarm, peer);
        }
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Listening(address) => {
                tracing::info!(%address, "listening");
                self.watchers.tell(Event::Listening(address));
            }
            Input::ListenClosed { addresses, why } => {
                for address in addresses {
                    tracing::warn!(%address, ?why, "no longer listening");
                    self.watchers.tell(Event::ListenClosed(address));
                }
            }
            Input::Opened(opened) => self.peers.on_opened(now, &mut self.swarm, opened),
            Input::Closed { connection, peer, reason } => {
                self.dht.hung_up(peer);
                self.peers.on_closed(now, connection, peer, reason);
                self.withdraw_if_away(peer);
            }
            Input::DialFailed { connection, peer, failure } => {
                if let Some(peer) = peer.filter(|_| !matches!(failure, DialFailure::Redundant)) {
                    self.dht.not_dialed(peer);
                }
                let away = peer.filter(|peer| !self.peers.is_connected(*peer));
                match (away, &failure) {
                    (Some(peer), DialFailure::Unreachable(tried)) => {
                        let tried: Vec<Address> = tried.iter().map(|(address, _)| address.clone()).collect();
                        self.dht.unreachable(&mut self.swarm, peer, &tried);
                    }
                    (Some(peer), DialFailure::WrongPeer { address, .. }) => {
                        self.dht.occupied(&mut self.swarm, peer, address);
                    }
                    _ => {}
                }
                self.peers.on_dial_failed(connection, peer, failure);
            }
            Input::Identified { peer, info } => {
                let serves = info.protocols.contains(&self.kad_protocol);
                let Some(offer) = self.peers.on_identified(now, wall_clock(), peer, info) else {
                    return;
                };
                if serves {
                    self.dht.offer(&mut self.swarm, peer, &offer);
                } else {
                    self.dht.withdraw(&mut self.swarm, peer);
                }
            }
            Input::RoundTrip { peer, rtt } => self.peers.on_round_trip(peer, rtt),
            Input::Unanswered { connection } => self.peers.on_unanswered(&mut self.swarm, connection),
            Input::LanFound(found) => self.peers.on_lan_found(now, &mut self.swarm, found),
            Input::LanLost(lost) => self.peers.on_lan_lost(&self.swarm, lost),
            Input::Dht(input) => {
                self.dht.on_event(now, wall_clock(), &mut self.swarm, &self.peers.book, input);
            }
            Input::Gossip(input) => self.topics.on_event(&mut self.swarm, input),
        }
    }

    fn on_tick(&mut self) {
        let now = self.now();
        self.peers.on_tick(now, &mut self.swarm);
        self.dht.on_tick(now, wall_clock(), &mut self.swarm);
        self.topics.on_tick(&mut self.swarm);
    }

    fn status(&mut self) -> Status {
        let peers = self.peers.infos(self.now());
        let buckets = self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries());
        let buckets: Vec<usize> = buckets.filter(|entries| *entries > 0).collect();
        Status {
            listening: self.swarm.listeners().cloned().map(Address::from_multiaddr).collect(),
            external: self.external.clone(),
            peers,
            dht_server: self.dht_server,
            table_size: buckets.iter().sum(),
            table_buckets: buckets.len(),
            records_held: self.swarm.behaviour_mut().kad.store_mut().record_count(),
            published: self.dht.published(),
            lan: self.peers.lan(),
            bootstrap: self.peers.bootstrap_count(),
            address_book: self.peers.book.len(),
            inbound_seen: self.peers.inbound_seen(),
            up: self.started.elapsed(),
        }
    }

    fn encode_metrics(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::warn!(%error, "the metrics could not be written");
        }
        text
    }
}

/// The name of the Kademlia protocol, as identify lists it.
pub(crate) fn kad_protocol_name(network: &wattle_types::NetworkName) -> String {
    kad_protocol(network).to_string()
}
