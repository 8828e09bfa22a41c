//! A member over real sockets that has a key, does what members do, and lies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_bytes::ByteArray;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wattle_net::datagrams::{Datagram, DatagramConfig, Datagrams};
use wattle_net::{Address, ChannelKind, ChannelListener, Overlay};
use wattle_swim::{
    Body, Claim, Config, Description, Incarnation, Input, Memory, Message, Output, Packet, RawClaim, Reach,
    Rumor, Signed, Swim, Timing,
};
use wattle_types::{Envelope, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Time, UnixTime};

use crate::overlay::{Node, fail};

/// How often a liar lies to everybody: with what it sends meanwhile, less than it would not be read any more for.
const LIES_EVERY: Duration = Duration::from_millis(500);
/// What it keeps of others' words, and how much of that it replays each time.
const KEPT_MAX: usize = 200;
const REPLAYED: usize = 12;

/// A member that has keys of its own and does with them what it likes. While it does not lie it is like any other.
pub struct Liar {
    node: Node,
    accomplice: SecretKey,
    swim: Swim,
    datagrams: Datagrams,
    listener: ChannelListener,
    heard: mpsc::Receiver<Input>,
    hears: mpsc::Sender<Input>,
    started: Instant,
    /// What others said of themselves, in packets and streams.
    kept: Vec<Arc<Signed>>,
    /// Whom it lies about, and to.
    victims: Vec<NodeId>,
    lies: Arc<AtomicBool>,
    turn: u64,
}

impl Liar {
    /// Starts one on a node. Beside its own key it may use its accomplice's.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(
        node: Node,
        accomplice: SecretKey,
        victims: Vec<NodeId>,
        lies: Arc<AtomicBool>,
    ) -> Self {
        let network = NetworkName::default();
        let config = DatagramConfig {
            me: node.id(),
            network: network.clone(),
            port: 0,
            loopback_only: true,
            faults: None,
        };
        let datagrams = Datagrams::bind(config).await.unwrap_or_else(|error| fail(&error.to_string()));
        let description = Description {
            name: "honest".to_owned(),
            roles: BTreeSet::new(),
            addresses: node.addresses().await.iter().map(ToString::to_string).collect(),
            udp_port: datagrams.port().unwrap_or_default(),
            boot_key: ByteArray::new(datagrams.boot_key()),
            reach: Reach::Public,
            anchors: Vec::new(),
            tags: BTreeMap::new(),
        };
        let now = UnixTime::from_millis(1_800_000_000_000);
        let config = Config::new(node.key.clone(), network, [7; 32], now, description, Timing::lan());
        let config = config.unwrap_or_else(|error| fail(&error.to_string()));
        let config = config.with_seeds(victims.iter().copied());
        let listener = node.overlay.accept_channels(ChannelKind::Members);
        let listener = listener.unwrap_or_else(|error| fail(&error.to_string()));
        let (hears, heard) = mpsc::channel(256);
        Self {
            swim: Swim::new(config, &Memory::default()),
            node,
            accomplice,
            datagrams,
            listener,
            heard,
            hears,
            started: Instant::now(),
            kept: Vec::new(),
            victims,
            lies,
            turn: 0,
        }
    }

    /// Does what members do, and lies while it is told to, until `stop`.
    pub async fn live(mut self, stop: CancellationToken) {
        let mut lies = tokio::time::interval(LIES_EVERY);
        loop {
            let due = self.swim.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            tokio::select! {
                () = stop.cancelled() => return,
                datagram = self.datagrams.receive() => self.on_datagram(datagram),
                Some(input) = self.heard.recv() => self.feed(input),
                Some(channel) = self.listener.next() => {
                    let (peer, hears) = (channel.peer(), self.hears.clone());
                    tokio::spawn(async move {
                        let (_sender, mut receiver) = channel.split();
                        let Some(Ok(frame)) = receiver.next().await else { return };
                        let Ok(message) = Message::<Envelope>::decode(&frame) else { return };
                        let Ok(message) = message.open(&NetworkName::default()) else { return };
                        // Ignored because the liar has ended.
                        drop(hears.send(Input::Message { from: peer, message }).await);
                    });
                }
                _ = lies.tick(), if self.lies.load(Ordering::Relaxed) => self.lie(),
                () = tokio::time::sleep_until(due.into()) => self.feed(Input::Wake),
            }
        }
    }

    fn on_datagram(&mut self, datagram: Datagram) {
        let Datagram::Opened { from, bytes } = datagram else { return };
        let packet = Packet::<RawClaim>::decode(&bytes, &|short| self.swim.resolve(short));
        let Ok(packet) = packet.map_err(drop).and_then(|it| it.open(&NetworkName::default()).map_err(drop))
        else {
            return;
        };
        self.feed(Input::Packet { from, packet });
    }

    fn keep(&mut self, input: &Input) {
        let mut claims: Vec<Arc<Signed>> = Vec::new();
        match input {
            Input::Packet { packet, .. } => {
                claims.extend(packet.rumors.iter().filter_map(|rumor| match rumor {
                    Rumor::Claim(claim) => Some(Arc::clone(claim)),
                    Rumor::Dead(_) | Rumor::Ask(_) => None,
                }));
            }
            Input::Message { message: Message::Hello { record, .. }, .. } => claims.push(Arc::clone(record)),
            Input::Message { message: Message::Records { records, .. }, .. } => {
                claims.extend(
                    records.iter().flat_map(|entry| entry.since.iter().chain([&entry.record])).cloned(),
                );
            }
            _ => {}
        }
        for claim in claims {
            if self.kept.len() < KEPT_MAX && !self.kept.contains(&claim) {
                self.kept.push(claim);
            }
        }
    }

    fn feed(&mut self, input: Input) {
        self.keep(&input);
        let mut out = Outbox::new();
        self.swim.handle(Time::since_start(self.started.elapsed()), input, &mut out);
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                // Ignored because packets may be lost.
                Output::Packet { to, bytes } => drop(self.datagrams.send(&to, &bytes)),
                Output::Message { to, bytes } => self.message(to, bytes),
                Output::FallbackPing { peer, sequence } => {
                    let (overlay, hears) = (self.node.overlay.clone(), self.hears.clone());
                    tokio::spawn(async move {
                        let answered = overlay.ping_connected(peer, Duration::from_millis(600)).await.is_ok();
                        // Ignored because the liar has ended.
                        drop(hears.send(Input::FallbackAnswered { peer, sequence, answered }).await);
                    });
                }
                Output::Persist { id, .. } => self.feed(Input::Persisted { id }),
                Output::Contact { record } => self.contact(&record),
                _ => {}
            }
        }
    }

    fn contact(&mut self, record: &Signed) {
        let Some(described) = record.description() else { return };
        let addresses = described.addresses.iter().filter_map(|text| text.parse::<Address>().ok());
        let places: BTreeSet<SocketAddr> = addresses
            .filter_map(|address| address.ip())
            .map(|ip| SocketAddr::new(ip, described.udp_port))
            .collect();
        self.datagrams.know(record.author(), *described.boot_key, places.into_iter().collect());
    }

    fn message(&self, to: NodeId, bytes: Vec<u8>) {
        tokio::spawn(say(self.node.overlay.clone(), to, bytes));
    }

    fn sign(&self, key: &SecretKey, claim: &Claim) -> Arc<Signed> {
        let signed = Signed::seal(key, &NetworkName::default(), claim);
        Arc::new(signed.unwrap_or_else(|| fail("a claim that cannot be signed")))
    }

    /// Everything that a key allows, to everybody.
    fn lie(&mut self) {
        self.turn += 1;
        let (me, other) = (self.node.key.clone(), self.accomplice.clone());
        let mut rumors: Vec<Rumor<Arc<Signed>>> = Vec::new();
        for subject in self.victims.clone() {
            let Some((_, now)) = self.swim.standing(&subject) else { continue };
            let accusation = |incarnation| Claim::Suspect { subject, incarnation };
            let both = [&me, &other].map(|key| self.sign(key, &accusation(now)));
            rumors.extend(both.iter().cloned().map(Rumor::Claim));
            rumors.push(Rumor::Dead(both.to_vec()));
            // Incarnations that it never had, and some that it had.
            let run = u64::from(u32::MAX) + 1;
            for other in
                [now.as_u64() + 1 + self.turn % 3, now.as_u64() + run, now.as_u64().saturating_sub(run)]
            {
                let claim = accusation(Incarnation::from_u64(other));
                rumors.push(Rumor::Claim(self.sign(&me, &claim)));
            }
            rumors.push(Rumor::Claim(self.sign(&me, &Claim::Remove { subject, incarnation: now })));
            rumors.push(Rumor::Ask(wattle_swim::ShortId::of(&subject)));
        }
        let replayed = REPLAYED.min(self.kept.len());
        self.kept.rotate_left(replayed);
        rumors.extend(self.kept.iter().take(REPLAYED).cloned().map(Rumor::Claim));
        let own = self.swim.incarnation();
        for to in self.victims.clone() {
            let stamp = Incarnation::from_u64(own.as_u64() + self.turn % 7).stamp();
            for part in rumors.chunks(3) {
                let packet = Packet { stamp, body: Body::Gossip, rumors: part.to_vec() };
                // Ignored because packets may be lost.
                drop(self.datagrams.send(&to, &packet.encode()));
            }
        }
        if self.turn.is_multiple_of(4) {
            self.lie_by_stream();
        }
    }

    /// What comes over a stream may be old, and is held to no quota.
    fn lie_by_stream(&self) {
        let keys = [&self.node.key, &self.accomplice];
        let mut records = Vec::new();
        for subject in &self.victims {
            let Some((_, incarnation)) = self.swim.standing(subject) else { continue };
            let Some(record) = self.swim.record(subject).cloned() else { continue };
            let claim = Claim::Suspect { subject: *subject, incarnation };
            let accusations = keys.map(|key| self.sign(key, &claim)).to_vec();
            let removal = self.sign(&self.node.key, &Claim::Remove { subject: *subject, incarnation });
            let leave = self.kept.iter().find(|it| {
                it.author() == *subject && matches!(it.claim(), Claim::Leave { .. } | Claim::Refute { .. })
            });
            let (since, removal) = (leave.cloned(), Some(removal));
            records.push(wattle_swim::Entry { record, since, accusations, removal, age_s: 1000 });
        }
        let message = Message::Records { records, want: Vec::new() };
        for to in &self.victims {
            self.message(*to, message.clone().encode());
        }
    }
}

async fn say(overlay: Overlay, to: NodeId, bytes: Vec<u8>) {
    let Ok(channel) = overlay.open_channel(to, ChannelKind::Members).await else { return };
    let (mut sender, mut receiver) = channel.split();
    if sender.send(&bytes).await.is_ok() {
        while receiver.next().await.is_some() {}
    }
}
