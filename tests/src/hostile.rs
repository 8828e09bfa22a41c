//! A libp2p program that is not wattle and need not be honest: it speaks wattle's protocols byte by byte.
//!
//! It has a real swarm (so that handshakes and identify are real) and, beside it, raw streams: [`Line`]s over
//! which a test says what no well-behaved program would.

use std::io;
use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, RecordStore as _};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Transport as _, identify, kad, noise, pnet, swarm, tcp, yamux,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use wattle_types::{NetworkKey, NodeId, SecretKey};

use crate::overlay::{Node, fail, key, until};

/// Kademlia as wattle names it.
const KAD: StreamProtocol = StreamProtocol::new("/wattle/kad/1.0.0");
/// The gossipsub version that every implementation speaks.
const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
/// Channels for documents as wattle names them.
const DOCUMENTS: StreamProtocol = StreamProtocol::new("/wattle/wattle/docs/1");
/// Whatever a node says on its own streams to us is read up to this size and thrown away.
const REPLY_BYTES_MAX: usize = 256 * 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    streams: libp2p_stream::Behaviour,
}

/// What a stranger claims to be.
pub struct Manner {
    /// Its key: the one of test node number so and so.
    pub number: u32,
    /// What it tells identify about its network.
    pub network_protocol: String,
    /// What it calls itself.
    pub agent: String,
    /// Addresses it claims besides its own.
    pub claims: Vec<Multiaddr>,
    /// The key of a private network, when it has one.
    pub network_key: Option<NetworkKey>,
    /// How many of the records that others bring it calls stored and throws away, before it keeps them.
    pub forgets: usize,
    /// How many of those that dial it find it hanging up at once, before it stays on the line.
    pub hangs_up: usize,
}

impl Manner {
    /// A stranger that looks like a wattle node.
    #[must_use]
    pub fn plausible(number: u32) -> Self {
        Self {
            number,
            network_protocol: "/wattle/wattle/1".to_owned(),
            agent: "stranger/1".to_owned(),
            claims: Vec::new(),
            network_key: None,
            forgets: usize::MAX,
            hangs_up: 0,
        }
    }
}

type Task = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;

/// A running stranger. It serves Kademlia with a store that believes everything its owner tells it, and what
/// others do as [`Manner::forgets`] says.
pub struct Stranger {
    /// Its key.
    pub key: SecretKey,
    keypair: Keypair,
    tasks: mpsc::Sender<Task>,
    control: libp2p_stream::Control,
}

impl Stranger {
    /// Starts one that listens on loopback.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        let key = key(manner.number);
        let mut secret = *key.to_bytes();
        let keypair = Keypair::ed25519_from_bytes(&mut secret);
        let keypair = keypair.unwrap_or_else(|error| fail(&error.to_string()));
        let (forgets, hangs_up) = (manner.forgets, manner.hangs_up);
        let mut swarm = build(&keypair, manner);
        let control = swarm.behaviour().streams.new_control();
        let listening = "/ip4/127.0.0.1/tcp/0".parse().map(|address| swarm.listen_on(address));
        if !matches!(listening, Ok(Ok(_))) {
            fail("a stranger could not listen");
        }
        let (tasks, todo) = mpsc::channel(8);
        tokio::spawn(drive(swarm, todo, forgets, hangs_up));
        // Taken before anybody can connect: a node whose stream is refused speaks no gossip with this peer.
        let Ok(gossip) = control.clone().accept(MESHSUB) else { fail("a protocol is taken twice") };
        tokio::spawn(swallow(gossip));
        Self { key, keypair, tasks, control }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Swarm<Behaviour>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |swarm| drop(reply.send(what(swarm))));
        let sent = self.tasks.send(task).await;
        let answer = if sent.is_ok() { answer.await.ok() } else { None };
        answer.unwrap_or_else(|| fail("a stranger's task ended"))
    }

    /// Dials a node over TCP, without waiting for what becomes of it.
    pub async fn dial(&self, node: &Node) {
        let peer = peer_id(node.id());
        let addresses = node.addresses().await;
        let tcp = addresses.iter().filter(|address| address.is_tcp()).map(ToString::to_string);
        let tcp: Vec<Multiaddr> = tcp.filter_map(|address| address.parse().ok()).collect();
        let dial = DialOpts::peer_id(peer).addresses(tcp).build();
        self.with(move |swarm| swarm.dial(dial).is_ok()).await;
    }

    /// Whether it has a connection to a node.
    pub async fn is_connected(&self, node: NodeId) -> bool {
        self.with(move |swarm| swarm.is_connected(&peer_id(node))).await
    }

    /// Dials a node over TCP and waits until the node lists it among its peers.
    pub async fn join(&self, node: &Node) {
        self.dial(node).await;
        until("the stranger is a peer", || async { node.peers().await.contains(&self.id()) }).await;
    }

    /// Holds a value and gives it to whoever asks for the key.
    pub async fn hold(&self, key: Vec<u8>, value: Vec<u8>) {
        let record = kad::Record::new(key, value);
        self.with(move |swarm| swarm.behaviour_mut().kad.store_mut().put(record).is_ok()).await;
    }

    /// Opens a raw Kademlia stream to a connected node.
    ///
    /// # Panics
    /// When the node does not take it.
    pub async fn kad(&self, node: &Node) -> Line {
        self.open(node.id(), KAD).await
    }

    /// Opens a raw gossip stream to a connected node.
    ///
    /// # Panics
    /// When the node does not take it.
    pub async fn gossip(&self, node: &Node) -> Line {
        self.open(node.id(), MESHSUB).await
    }

    /// Opens a raw channel for documents to a connected node.
    ///
    /// # Panics
    /// When the node does not take it.
    pub async fn channel(&self, node: &Node) -> Line {
        self.open(node.id(), DOCUMENTS).await
    }

    async fn open(&self, node: NodeId, protocol: StreamProtocol) -> Line {
        let opened = self.control.clone().open_stream(peer_id(node), protocol).await;
        Line(opened.unwrap_or_else(|error| fail(&format!("no stream: {error}"))))
    }

    /// A gossip message of this stranger: any bytes on any topic, signed as gossipsub wants it.
    ///
    /// # Panics
    /// Never: an Ed25519 key always signs.
    #[must_use]
    pub fn gossip_message(&self, topic: &str, sequence: u64, data: Vec<u8>) -> GossipMessage {
        let from = self.keypair.public().to_peer_id().to_bytes();
        let seqno = sequence.to_be_bytes().to_vec();
        let mut message = GossipMessage {
            from: Some(from),
            data: Some(data),
            seqno: Some(seqno),
            topic: topic.to_owned(),
            signature: None,
        };
        let bytes = [b"libp2p-pubsub:".as_slice(), &message.encode_to_vec()].concat();
        message.signature = self.keypair.sign(&bytes).ok();
        message
    }
}

/// A raw stream. Messages go out with their length before them, as libp2p frames protobuf.
pub struct Line(Stream);

impl Line {
    /// Says these bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed or reset the stream.
    pub async fn tell_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Reads until the other side closes or resets the stream; how many bytes it said before.
    pub async fn closed(&mut self) -> usize {
        let mut said = Vec::new();
        // Ignored because a reset is an end like any other here.
        drop(self.0.read_to_end(&mut said).await);
        said.len()
    }

    /// Says something.
    ///
    /// # Errors
    /// When the other side has closed or reset the stream.
    pub async fn tell(&mut self, message: &impl prost::Message) -> io::Result<()> {
        self.0.write_all(&message.encode_length_delimited_to_vec()).await?;
        self.0.flush().await
    }

    /// Says something and reads the answer.
    ///
    /// # Errors
    /// When the other side has closed or reset the stream.
    pub async fn ask(&mut self, message: &KadMessage) -> io::Result<KadMessage> {
        self.tell(message).await?;
        let mut length = 0_usize;
        for shift in (0..28).step_by(7) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).await?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut answer = vec![0; length.min(REPLY_BYTES_MAX)];
        self.0.read_exact(&mut answer).await?;
        KadMessage::decode(answer.as_slice()).map_err(io::Error::other)
    }

    /// Says many things without waiting for an answer in between, then waits until the node has read them
    /// all.
    ///
    /// # Errors
    /// When the other side has closed or reset the stream.
    pub async fn flood(&mut self, messages: impl Iterator<Item = KadMessage>) -> io::Result<()> {
        for message in messages {
            self.0.write_all(&message.encode_length_delimited_to_vec()).await?;
        }
        // A node reads a stream in order, so the answer to a question says that all before it was read.
        self.ask(&KadMessage { kind: KadMessage::FIND_NODE, key: vec![1; 32], ..KadMessage::default() })
            .await
            .map(drop)
    }
}

/// A Kademlia message (libp2p kad-dht spec, "RPC messages").
#[derive(Clone, PartialEq, prost::Message)]
pub struct KadMessage {
    /// What it asks for.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// About which key.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// A value with its key.
    #[prost(message, optional, tag = "3")]
    pub record: Option<KadRecord>,
    /// Who has it.
    #[prost(message, repeated, tag = "9")]
    pub providers: Vec<KadPeer>,
}

impl KadMessage {
    const PUT_VALUE: i32 = 0;
    const GET_VALUE: i32 = 1;
    const ADD_PROVIDER: i32 = 2;
    const FIND_NODE: i32 = 4;

    /// "Store this", for so many seconds (0: as long as you like).
    #[must_use]
    pub fn put(key: &[u8], value: &[u8], ttl_seconds: u32) -> Self {
        let record = KadRecord { key: key.to_vec(), value: value.to_vec(), ttl_seconds };
        Self { kind: Self::PUT_VALUE, key: key.to_vec(), record: Some(record), providers: Vec::new() }
    }

    /// "What do you have under this key?"
    #[must_use]
    pub fn get(key: &[u8]) -> Self {
        Self { kind: Self::GET_VALUE, key: key.to_vec(), ..Self::default() }
    }

    /// "This node has it."
    #[must_use]
    pub fn provide(key: &[u8], provider: NodeId) -> Self {
        let provider = KadPeer { id: provider.to_peer_id_bytes().to_vec() };
        Self { kind: Self::ADD_PROVIDER, key: key.to_vec(), record: None, providers: vec![provider] }
    }
}

/// A value in a Kademlia message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KadRecord {
    /// Its key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// How long it is to be kept, or has left; 0 when nothing is said.
    #[prost(uint32, tag = "777")]
    pub ttl_seconds: u32,
}

/// A peer in a Kademlia message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KadPeer {
    /// Its id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
}

/// A gossipsub RPC (libp2p pubsub spec, "The RPC").
#[derive(Clone, PartialEq, prost::Message)]
pub struct GossipRpc {
    /// Messages.
    #[prost(message, repeated, tag = "2")]
    pub publish: Vec<GossipMessage>,
    /// Control data.
    #[prost(message, optional, tag = "3")]
    pub control: Option<GossipControl>,
}

impl GossipRpc {
    /// One message.
    #[must_use]
    pub fn publish(message: GossipMessage) -> Self {
        Self { publish: vec![message], control: None }
    }

    /// "I have these."
    #[must_use]
    pub fn ihave(topic: &str, ids: Vec<Vec<u8>>) -> Self {
        let ihave = GossipIHave { topic: topic.to_owned(), ids };
        Self { publish: Vec::new(), control: Some(GossipControl { ihave: vec![ihave] }) }
    }
}

/// A gossip message. Fields that are `None` are absent on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GossipMessage {
    /// The author.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub from: Option<Vec<u8>>,
    /// The bytes.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub data: Option<Vec<u8>>,
    /// The author's number of it.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub seqno: Option<Vec<u8>>,
    /// The topic.
    #[prost(string, tag = "4")]
    pub topic: String,
    /// The author's signature.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub signature: Option<Vec<u8>>,
}

/// Gossip control data, as far as a test needs it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GossipControl {
    /// Announcements.
    #[prost(message, repeated, tag = "1")]
    pub ihave: Vec<GossipIHave>,
}

/// "I have messages with these ids."
#[derive(Clone, PartialEq, prost::Message)]
pub struct GossipIHave {
    /// The topic.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// The ids.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub ids: Vec<Vec<u8>>,
}

/// Resident memory of this process in bytes.
#[must_use]
pub fn resident_bytes() -> u64 {
    resident_bytes_of("self")
}

/// The same of the process with this number.
#[must_use]
pub fn resident_bytes_of(process: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn peer_id(node: NodeId) -> PeerId {
    PeerId::from_bytes(&node.to_peer_id_bytes()).unwrap_or_else(|error| fail(&error.to_string()))
}

fn build(keypair: &Keypair, manner: Manner) -> Swarm<Behaviour> {
    let me = keypair.public().to_peer_id();
    let noise = noise::Config::new(keypair).unwrap_or_else(|error| fail(&error.to_string()));
    let psk = manner.network_key.as_ref();
    let psk = psk.map(|key| pnet::PnetConfig::new(pnet::PreSharedKey::new(*key.as_bytes())));
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, _| async move {
            match psk {
                Some(psk) => psk.handshake(socket).await.map(Either::Left).map_err(io::Error::other),
                None => Ok(Either::Right(socket)),
            }
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(Duration::from_secs(10))
        .boxed();
    let identify = identify::Config::new(manner.network_protocol, keypair.public())
        .with_agent_version(manner.agent)
        .with_push_listen_addr_updates(true);
    let mut settings = kad::Config::new(KAD);
    // An empty table: a stranger dials nobody unless its test says so.
    settings
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), settings);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Behaviour::new(identify);
    let behaviour = Behaviour { identify, kad, streams: libp2p_stream::Behaviour::new() };
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, behaviour, me, settings);
    for address in manner.claims {
        swarm.add_external_address(address);
    }
    swarm
}

async fn drive(
    mut swarm: Swarm<Behaviour>,
    mut todo: mpsc::Receiver<Task>,
    mut forgets: usize,
    mut hangs_up: usize,
) {
    loop {
        tokio::select! {
            task = todo.recv() => match task {
                Some(task) => task(&mut swarm),
                None => return,
            },
            event = swarm.select_next_some() => {
                if let SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } = &event
                    && endpoint.is_listener()
                    && hangs_up > 0
                {
                    hangs_up -= 1;
                    swarm.close_connection(*connection_id);
                }
                let Some(record) = brought(event) else { continue };
                if forgets > 0 {
                    forgets -= 1;
                } else if let Err(error) = swarm.behaviour_mut().kad.store_mut().put(record) {
                    fail(&error.to_string());
                }
            }
        }
    }
}

/// The record that somebody wants stored.
fn brought(event: SwarmEvent<BehaviourEvent>) -> Option<kad::Record> {
    let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::InboundRequest { request })) = event else {
        return None;
    };
    if let kad::InboundRequest::PutRecord { record, .. } = request { record } else { None }
}

/// Takes the streams a node opens to us and throws away what comes: a node that cannot gossip to us would not
/// listen either.
async fn swallow(mut streams: libp2p_stream::IncomingStreams) {
    while let Some((_, stream)) = streams.next().await {
        tokio::spawn(drain(stream));
    }
}

async fn drain(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
}
