//! The handle to the overlay: cheap to clone, and the only way to ask anything of the task that owns the
//! swarm.
//!
//! Every method sends one typed command and awaits its one reply. The command channel is bounded: a caller
//! waits when the task is busy, and nothing piles up. Dropping the returned future cancels the work.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_bytes::ByteBuf;
use tokio::sync::{broadcast, mpsc, oneshot};
use wattle_types::{
    Liveness, NetworkName, NodeId, ProviderKey, Record, RecordKey, Topic, TopicMessage, TopicPattern,
    TopicRoot, TraceContext,
};

use crate::channels::{
    self, AlreadyAccepted, Channel, ChannelKind, ChannelListener, OpenChannelError, Places,
};
use crate::command::{Command, DhtCommand, PeersCommand, Reply, TopicsCommand};
use crate::report::{
    Bucket, ClosestPeer, ConnectError, Delivery, DhtError, DhtStats, FoundRecord, Lagged, PeerInfo,
    PingError, Pong, PublishError, Published, PutReport, RequestError, Source, Status, Stopped, TopicInfo,
    TraceEvent, TraceReport, TraceTarget,
};
use crate::{Address, Event, meeting};

/// How long the DHT is asked for a peer's addresses before a dial gives up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection to a member that is away has to show that it is one: others waited for longer already.
const AWAY_PING: Duration = Duration::from_secs(3);

/// Messages a subscriber may lag behind before it is told that it lost some.
const SUBSCRIPTION_MESSAGES_MAX: usize = 1024;

/// The overlay.
#[derive(Clone)]
pub struct Overlay {
    pub(crate) me: NodeId,
    pub(crate) network: NetworkName,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) streams: libp2p_stream::Control,
    pub(crate) places: Places,
}

/// Messages of some patterns, until it is dropped.
pub struct Subscription {
    deliveries: mpsc::Receiver<Result<Delivery, Lagged>>,
}

impl Subscription {
    /// The next message; `None` when the node stops.
    ///
    /// # Errors
    /// [`Lagged`] once, with the number of messages lost, after this reader was too slow. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, Lagged>> {
        self.deliveries.recv().await
    }
}

impl Overlay {
    /// This node.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.me
    }

    /// The network this node is in.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// What happens from now on. A watcher that lags more than 1024 events is told how many it lost.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_closed| Stopped)?;
        answer.await.map_err(|_dropped| Stopped)
    }

    /// How the overlay is doing.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Command::Status).await
    }

    /// The overlay's metrics as Prometheus text.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn metrics(&self) -> Result<String, Stopped> {
        self.ask(Command::Metrics).await
    }

    /// Closes every connection and ends the task, after everything noted is on disk.
    pub async fn stop(&self) {
        match self.ask(Command::Stop).await {
            // A task that is already gone has stopped.
            Ok(()) | Err(Stopped) => {}
        }
    }
}

/// Peers.
impl Overlay {
    /// Dials a peer: at these addresses, or where the address book and the DHT say it is. The connection is
    /// kept: it is spared when there are too many, and dialed again when it is lost.
    ///
    /// # Errors
    /// [`ConnectError`], with what every address said.
    pub async fn connect(
        &self,
        peer: Option<NodeId>,
        addresses: Vec<Address>,
    ) -> Result<PeerInfo, ConnectError> {
        let unknown = addresses.is_empty();
        let first =
            self.ask(|reply| Command::Peers(PeersCommand::Connect { peer, addresses, reply })).await?;
        match (first, peer) {
            (Err(ConnectError::NoAddress), Some(target)) if unknown => {
                let addresses = self.whereabouts(target).await?;
                self.ask(|reply| Command::Peers(PeersCommand::Connect { peer, addresses, reply })).await?
            }
            (answer, _) => answer,
        }
    }

    /// Makes sure of a connection to a peer, without keeping it for ever.
    pub(crate) async fn reach(
        &self,
        peer: NodeId,
        addresses: Vec<Address>,
    ) -> Result<PeerInfo, ConnectError> {
        self.ask(|reply| Command::Peers(PeersCommand::Reach { peer, addresses, reply })).await?
    }

    /// As [`Self::reach`]; without addresses, wherever the address book or the DHT say that the peer is.
    pub(crate) async fn reach_anywhere(
        &self,
        peer: NodeId,
        addresses: Vec<Address>,
    ) -> Result<PeerInfo, ConnectError> {
        match self.reach(peer, addresses).await {
            Err(ConnectError::NoAddress) => self.reach(peer, self.whereabouts(peer).await?).await,
            answer => answer,
        }
    }

    /// Where the DHT says that a peer is, when the address book does not know.
    async fn whereabouts(&self, peer: NodeId) -> Result<Vec<Address>, ConnectError> {
        self.find_peer(peer, LOOKUP_TIMEOUT).await.map_err(|_not_found| ConnectError::NoAddress)
    }

    /// Tells of a peer that could be dialed; the overlay decides whether it is worth a connection.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn candidate(
        &self,
        peer: NodeId,
        addresses: Vec<Address>,
        source: Source,
    ) -> Result<(), Stopped> {
        let command = Command::Peers(PeersCommand::Candidate { peer, addresses, source });
        self.commands.send(command).await.map_err(|_closed| Stopped)
    }

    /// Drops the connections to a peer; false when there was none.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn disconnect(&self, peer: NodeId) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Disconnect { peer, reply })).await
    }

    /// Blocks a peer (and drops it) or lets it in again. Survives a restart.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn block(&self, peer: NodeId, blocked: bool) -> Result<(), Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Block { peer, blocked, reply })).await
    }

    /// The blocked peers.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn blocked(&self) -> Result<BTreeSet<NodeId>, Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Blocked(reply))).await
    }

    /// Every peer of the address book with its addresses, the one seen last first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn known(&self) -> Result<Vec<(NodeId, Vec<Address>)>, Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Known(reply))).await
    }

    /// The addresses of a peer in the address book, best first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn addresses(&self, peer: NodeId) -> Result<Vec<Address>, Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Addresses { peer, reply })).await
    }

    /// One round trip to a peer over `/ipfs/ping/1.0.0`, connecting first when needed.
    ///
    /// # Errors
    /// [`PingError`].
    pub async fn ping(&self, peer: NodeId, timeout: Duration) -> Result<Pong, PingError> {
        crate::ping::ping(self, peer, timeout).await
    }

    /// As [`Self::ping`], but over a connection that is there: nobody is dialed.
    ///
    /// # Errors
    /// [`PingError`], at once when there is no connection.
    pub async fn ping_connected(&self, peer: NodeId, timeout: Duration) -> Result<Pong, PingError> {
        crate::ping::ping_connected(self, peer, timeout).await
    }

    /// The connection to a peer, if there is one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn peer(&self, peer: NodeId) -> Result<Option<PeerInfo>, Stopped> {
        self.ask(|reply| Command::Peers(PeersCommand::Connected { peer, reply })).await
    }
}

/// What membership says.
impl Overlay {
    /// Says how far a peer is there. One that is away or gone is dialed seldom by this node's own wish, and is in the
    /// routing table only while it is connected; one that is here may be dialed at once.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn liveness(&self, peer: NodeId, liveness: Liveness) -> Result<(), Stopped> {
        let command = Command::Peers(PeersCommand::Liveness { peer, liveness });
        self.commands.send(command).await.map_err(|_closed| Stopped)
    }

    /// Says that a peer is there as a later run than before. Of its connections the youngest is kept, and that one
    /// too is closed when a younger one opens: what was opened to an earlier run is dead, and over QUIC nobody says so
    /// where that was killed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn began_again(&self, peer: NodeId) -> Result<(), Stopped> {
        let command = Command::Peers(PeersCommand::BeganAgain { peer });
        self.commands.send(command).await.map_err(|_closed| Stopped)
    }

    /// Closes the connection to a peer, if there is one and it answers no ping within 3 s.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn close_unless_it_answers(&self, peer: NodeId) -> Result<(), Stopped> {
        if self.peer(peer).await?.is_none() {
            return Ok(());
        }
        match self.ping_connected(peer, AWAY_PING).await {
            Err(PingError::Timeout(_) | PingError::Broken(_)) => {
                let command = Command::Peers(PeersCommand::Unanswered { peer });
                self.commands.send(command).await.map_err(|_closed| Stopped)
            }
            Err(PingError::Stopped(stopped)) => Err(stopped),
            // It hung up meanwhile, or answers whatever others say.
            Err(PingError::Connect(_)) | Ok(_) => Ok(()),
        }
    }
}

/// Channels to one peer each.
impl Overlay {
    /// Opens a channel to a peer, connecting first when needed. The peer may close it at once, when it has
    /// too many.
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub async fn open_channel(&self, peer: NodeId, kind: ChannelKind) -> Result<Channel, OpenChannelError> {
        channels::open(self, peer, Vec::new(), kind).await
    }

    /// As [`Self::open_channel`], with where the peer itself says that it is.
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub async fn open_channel_at(
        &self,
        peer: NodeId,
        addresses: Vec<Address>,
        kind: ChannelKind,
    ) -> Result<Channel, OpenChannelError> {
        channels::open(self, peer, addresses, kind).await
    }

    /// Lets peers open channels of a kind, until the listener is dropped. To be called inside the runtime.
    ///
    /// # Errors
    /// [`AlreadyAccepted`].
    pub fn accept_channels(&self, kind: ChannelKind) -> Result<ChannelListener, AlreadyAccepted> {
        channels::accept(self, kind)
    }
}

/// The DHT. Every operation ends by itself after its timeout.
impl Overlay {
    /// Stores a record on the nearest nodes, then asks for it again to see who really has it.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn put(&self, record: Record, timeout: Duration) -> Result<PutReport, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Put { record, lasting: false, timeout, reply })).await?
    }

    /// Stores a record of this node's own key like [`Self::put`], and signs it anew before it expires, until
    /// another one takes its place.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn put_lasting(&self, record: Record, timeout: Duration) -> Result<PutReport, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Put { record, lasting: true, timeout, reply })).await?
    }

    /// Finds the best valid record under a key.
    ///
    /// # Errors
    /// [`DhtError`]; answers that broke a rule are named in it.
    pub async fn get(&self, key: RecordKey, timeout: Duration) -> Result<FoundRecord, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Get { key, timeout, reply })).await?
    }

    /// Announces that this node has or offers what the key stands for, now and until
    /// [`Self::stop_providing`].
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn provide(&self, key: ProviderKey, timeout: Duration) -> Result<(), DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Provide { key, lasting: true, timeout, reply })).await?
    }

    /// As [`Self::provide`], but nothing is announced again by itself or after a restart.
    pub(crate) async fn announce(&self, key: ProviderKey, timeout: Duration) -> Result<(), DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Provide { key, lasting: false, timeout, reply })).await?
    }

    /// Whether [`Self::provide`] took it up, in an earlier run or in this: nobody need ask for it again.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn is_providing(&self, key: ProviderKey) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Dht(DhtCommand::IsProviding { key, reply })).await
    }

    /// No longer announces it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn stop_providing(&self, key: ProviderKey) -> Result<(), Stopped> {
        self.ask(|reply| Command::Dht(DhtCommand::StopProviding { key, reply })).await
    }

    /// Finds up to `count` peers that announced the key.
    ///
    /// # Errors
    /// [`DhtError`]; `NotFound` when nobody did.
    pub async fn find_providers(
        &self,
        key: ProviderKey,
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<NodeId>, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::FindProviders { key, count, timeout, reply })).await?
    }

    /// Finds a peer's addresses: those of its connection, or by a lookup.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn find_peer(&self, peer: NodeId, timeout: Duration) -> Result<Vec<Address>, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::FindPeer { peer, timeout, reply })).await?
    }

    /// The k peers nearest to a target, by XOR, found by a lookup.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn closest(
        &self,
        target: TraceTarget,
        timeout: Duration,
    ) -> Result<Vec<ClosestPeer>, DhtError> {
        self.ask(|reply| Command::Dht(DhtCommand::Closest { target, timeout, reply })).await?
    }

    /// Walks to a target one question at a time and reports each step as it happens. The walk is its own: it
    /// speaks the Kademlia protocol itself and changes nothing in the routing table.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn trace(
        &self,
        target: TraceTarget,
        timeout: Duration,
        steps: mpsc::Sender<TraceEvent>,
    ) -> Result<TraceReport, DhtError> {
        crate::dht::trace::walk(self, target, timeout, steps).await
    }

    /// The peers in this node's own table nearest to a target, where a walk begins.
    pub(crate) async fn nearest(&self, target: TraceTarget) -> Result<Vec<ClosestPeer>, Stopped> {
        self.ask(|reply| Command::Dht(DhtCommand::Nearest { target, reply })).await
    }

    /// This node's routing table, farthest bucket first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn table(&self) -> Result<Vec<Bucket>, Stopped> {
        self.ask(|reply| Command::Dht(DhtCommand::Table(reply))).await
    }

    /// What the DHT did since the start.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn dht_stats(&self) -> Result<DhtStats, Stopped> {
        self.ask(|reply| Command::Dht(DhtCommand::Stats(reply))).await
    }
}

/// Topics.
impl Overlay {
    /// Publishes one message. When no follower is known, some are looked for first, for up to 3 s.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was sent.
    pub async fn publish(
        &self,
        topic: Topic,
        payload: Vec<u8>,
        trace: Option<TraceContext>,
    ) -> Result<Published, PublishError> {
        let payload = ByteBuf::from(payload);
        self.publish_message(TopicMessage { topic, payload, reply_to: None, trace }).await
    }

    /// Follows patterns until the subscription is dropped.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn subscribe(&self, patterns: Vec<TopicPattern>) -> Result<Subscription, Stopped> {
        let (sender, deliveries) = mpsc::channel(SUBSCRIPTION_MESSAGES_MAX);
        self.ask(|reply| Command::Topics(TopicsCommand::Subscribe { patterns, deliveries: sender, reply }))
            .await?;
        Ok(Subscription { deliveries })
    }

    /// Publishes a request and awaits the first answer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &self,
        topic: Topic,
        payload: Vec<u8>,
        timeout: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Delivery, RequestError> {
        crate::topics::request(self, topic, payload, timeout, trace).await
    }

    pub(crate) async fn publish_message(&self, message: TopicMessage) -> Result<Published, PublishError> {
        meeting::introduce(self, message.topic.root()).await?;
        self.ask(|reply| Command::Topics(TopicsCommand::Publish { message, reply })).await?
    }

    pub(crate) async fn listeners(&self, root: TopicRoot) -> Result<usize, Stopped> {
        self.ask(|reply| Command::Topics(TopicsCommand::Listeners { root, reply })).await
    }

    pub(crate) async fn is_unheard(&self, root: TopicRoot) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Topics(TopicsCommand::IsUnheard { root, reply })).await
    }

    /// The roots this node follows or publishes to.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, Stopped> {
        self.ask(|reply| Command::Topics(TopicsCommand::List(reply))).await
    }
}
