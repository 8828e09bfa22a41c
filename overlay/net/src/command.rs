//! What may be asked of the overlay task. Each command carries its own reply; a dropped reply cancels the
//! work.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wattle_types::{Liveness, NodeId, ProviderKey, Record, RecordKey, TopicMessage, TopicPattern, TopicRoot};

use crate::Address;
use crate::report::{
    Bucket, ClosestPeer, ConnectError, Delivery, DhtError, DhtStats, FoundRecord, Lagged, PeerInfo,
    PublishError, Published, PutReport, Source, Status, TopicInfo, TraceTarget,
};

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// One command. Grouped by the part of the actor that answers it.
pub(crate) enum Command {
    Peers(PeersCommand),
    Dht(DhtCommand),
    Topics(TopicsCommand),
    Status(Reply<Status>),
    Metrics(Reply<String>),
    Stop(Reply<()>),
}

pub(crate) enum PeersCommand {
    Connect {
        peer: Option<NodeId>,
        addresses: Vec<Address>,
        reply: Reply<Result<PeerInfo, ConnectError>>,
    },
    /// As `Connect`, for the overlay's own use: the connection may be trimmed again.
    Reach {
        peer: NodeId,
        addresses: Vec<Address>,
        reply: Reply<Result<PeerInfo, ConnectError>>,
    },
    Candidate {
        peer: NodeId,
        addresses: Vec<Address>,
        source: Source,
    },
    /// What membership says of a peer.
    Liveness {
        peer: NodeId,
        liveness: Liveness,
    },
    /// A peer is there as a later run: connections to the earlier one are dead.
    BeganAgain {
        peer: NodeId,
    },
    /// Closes the connections to a peer that answers nothing; it may be dialed again.
    Unanswered {
        peer: NodeId,
    },
    Disconnect {
        peer: NodeId,
        reply: Reply<bool>,
    },
    Block {
        peer: NodeId,
        blocked: bool,
        reply: Reply<()>,
    },
    Blocked(Reply<BTreeSet<NodeId>>),
    Known(Reply<Vec<(NodeId, Vec<Address>)>>),
    Addresses {
        peer: NodeId,
        reply: Reply<Vec<Address>>,
    },
    Connected {
        peer: NodeId,
        reply: Reply<Option<PeerInfo>>,
    },
}

pub(crate) enum DhtCommand {
    /// `lasting`: signed anew before it expires.
    Put {
        record: Record,
        lasting: bool,
        timeout: Duration,
        reply: Reply<Result<PutReport, DhtError>>,
    },
    Get {
        key: RecordKey,
        timeout: Duration,
        reply: Reply<Result<FoundRecord, DhtError>>,
    },
    /// `lasting`: after a restart too, until it is taken back.
    Provide {
        key: ProviderKey,
        lasting: bool,
        timeout: Duration,
        reply: Reply<Result<(), DhtError>>,
    },
    StopProviding {
        key: ProviderKey,
        reply: Reply<()>,
    },
    /// Whether it is announced time and again, without being asked once more.
    IsProviding {
        key: ProviderKey,
        reply: Reply<bool>,
    },
    FindProviders {
        key: ProviderKey,
        count: usize,
        timeout: Duration,
        reply: Reply<Result<Vec<NodeId>, DhtError>>,
    },
    FindPeer {
        peer: NodeId,
        timeout: Duration,
        reply: Reply<Result<Vec<Address>, DhtError>>,
    },
    Closest {
        target: TraceTarget,
        timeout: Duration,
        reply: Reply<Result<Vec<ClosestPeer>, DhtError>>,
    },
    Nearest {
        target: TraceTarget,
        reply: Reply<Vec<ClosestPeer>>,
    },
    Table(Reply<Vec<Bucket>>),
    Stats(Reply<DhtStats>),
}

pub(crate) enum TopicsCommand {
    Publish {
        message: TopicMessage,
        reply: Reply<Result<Published, PublishError>>,
    },
    Subscribe {
        patterns: Vec<TopicPattern>,
        deliveries: mpsc::Sender<Result<Delivery, Lagged>>,
        reply: Reply<()>,
    },
    List(Reply<Vec<TopicInfo>>),
    Listeners {
        root: TopicRoot,
        reply: Reply<usize>,
    },
    /// Whether no follower of a root is known, and none was looked for lately.
    IsUnheard {
        root: TopicRoot,
        reply: Reply<bool>,
    },
}

/// Resolves when what the caller was promised is on disk.
pub(crate) type Durable = oneshot::Receiver<()>;

/// Replies once the disk has what is promised. The task that holds the swarm does not wait for it.
pub(crate) fn when_durable<T: Send + 'static>(durable: Durable, reply: Reply<T>, outcome: T) {
    tokio::spawn(async move {
        // A disk that failed stops the node, and a full one keeps nothing; the caller then gets no answer, and
        // never hears that all went well.
        if durable.await.is_ok() {
            answer(reply, outcome);
        }
    });
}

/// Replies. A caller that left does not want to know any more.
pub(crate) fn answer<T>(reply: Reply<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("nobody waits for this reply any more");
    }
}

impl DhtCommand {
    /// Answers a command that needs a query with an error; the others are answered at once anyway.
    pub(crate) fn refuse(self, error: DhtError) {
        match self {
            Self::Put { reply, .. } => answer(reply, Err(error)),
            Self::Get { reply, .. } => answer(reply, Err(error)),
            Self::Provide { reply, .. } => answer(reply, Err(error)),
            Self::FindProviders { reply, .. } => answer(reply, Err(error)),
            Self::FindPeer { reply, .. } => answer(reply, Err(error)),
            Self::Closest { reply, .. } => answer(reply, Err(error)),
            Self::StopProviding { .. }
            | Self::IsProviding { .. }
            | Self::Nearest { .. }
            | Self::Table(_)
            | Self::Stats(_) => {}
        }
    }
}
