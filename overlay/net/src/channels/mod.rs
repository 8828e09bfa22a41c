//! Channels: frames of bytes to and from one peer, in order, for what two nodes have to say to each other and
//! to nobody else.
//!
//! # What it does
//!
//! A lane opens a channel to a peer ([`Overlay::open_channel`]), or takes those that peers opened
//! ([`Overlay::accept_channels`]). Each is one stream of a connection, under a protocol name of its own
//! (`/wattle/NETWORK/docs/1`), so that one lane never waits for another. Who is at the other end is what the
//! handshake of the connection proved.
//!
//! # On the wire
//!
//! `length ‖ bytes`, again and again: the length is an unsigned varint of the multiformats, in its shortest
//! form. Nothing is said at the beginning or the end.
//!
//! # Rules
//!
//! 1. A channel is whole or gone. It ends when either side drops the sender or the receiver, when a frame
//!    breaks a rule, or with its connection. Whatever was sent before an orderly end arrives before it.
//! 2. A peer has at most [`CHANNELS_PER_PEER_MAX`] channels of a kind that it opened, and of all peers 16 of a
//!    kind wait to be accepted. What is beyond that is closed, and its opener sees a channel that ends at
//!    once: it should try again, later each time. Streams of one moment are closed too when they come faster
//!    than they are taken from the swarm.
//! 3. A frame is at most [`CHANNEL_FRAME_BYTES_MAX`] bytes long, which is checked before memory is set aside,
//!    and memory grows as bytes arrive. A frame that has begun and then stands still for 30 s ends the
//!    channel.
//! 4. The connection under an open channel is woven: it is not trimmed ([`crate::connections`]). For channels
//!    that only the peer opened this holds for the eldest only, of as many peers as half of the high water: a
//!    crowd of strangers cannot keep everybody else out.
//! 5. Of two connections to a peer one is closed in the end, and a channel over that one ends too. When the
//!    node stops, all channels end: a stream that somebody holds would keep its connection open.
//!
//! # Bounds
//!
//! A channel costs 8 KiB, twice what has arrived of a frame, and what waits to be sent: 64 KiB and one frame.
//! What arrives while nobody reads waits in the windows of the transport.

mod frames;
mod places;

use std::time::Duration;

use futures::StreamExt as _;
use libp2p::StreamProtocol;
use libp2p_stream::{IncomingStreams, OpenStreamError};
use tokio::sync::mpsc;
use wattle_types::{NetworkName, NodeId};

pub use frames::{ChannelReceiver, ChannelSender, ReceiveError, SendError};
pub(crate) use places::Places;

use crate::behaviour::{
    documents_protocol, members_protocol, node_id, order_protocol, order_sync_protocol, peer_id,
};
use crate::command::Command;
use crate::report::ConnectError;
use crate::translate::deepest;
use crate::{Address, Overlay};
use frames::Pipe;
use places::Place;

/// How long a connected peer has to agree to a channel.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Channels of peers that wait to be accepted.
const WAITING_MAX: usize = 16;

/// What a channel is for. Each kind has a protocol name and a listener of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelKind {
    /// Documents and feeds: `/wattle/NETWORK/docs/1`.
    Documents,
    /// What members tell each other when one joins, and to become equal: `/wattle/NETWORK/members/1`.
    Members,
    /// What validators of the ordered log tell each other, one channel for each direction: `/wattle/NETWORK/order/1`.
    Order,
    /// Questions of those who follow the ordered log, each with its answer: `/wattle/NETWORK/order-sync/1`.
    OrderSync,
}

impl ChannelKind {
    fn protocol(self, network: &NetworkName) -> StreamProtocol {
        match self {
            Self::Documents => documents_protocol(network),
            Self::Members => members_protocol(network),
            Self::Order => order_protocol(network),
            Self::OrderSync => order_sync_protocol(network),
        }
    }
}

/// Why a channel was not opened. Nothing changed, but that a connection may stand now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenChannelError {
    /// Not connected, and connecting failed; or the node stops.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer takes no channels of this kind: it does not know them, or nobody there accepts them now.
    #[error("the peer takes no such channels")]
    NotTaken,
    /// The connection broke meanwhile. To do: try again.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The peer neither agreed nor refused in time.
    #[error("no answer after {0:?}")]
    Timeout(Duration),
}

/// Somebody accepts channels of this kind already. The caller's fault: one listener per kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channels of this kind are accepted elsewhere")]
pub struct AlreadyAccepted;

/// A channel to one peer. It ends when either half is dropped.
pub struct Channel {
    peer: NodeId,
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

impl Channel {
    fn new(peer: NodeId, pipe: Box<dyn Pipe>, place: Place) -> Self {
        let (sender, receiver) = frames::over(pipe, place);
        Self { peer, sender, receiver }
    }

    /// Who is at the other end, as the handshake of its connection proved.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    /// The two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (self.sender, self.receiver)
    }
}

/// The channels of one kind that peers open, until it is dropped. As long as it is there the overlay runs.
pub struct ChannelListener {
    queue: mpsc::Receiver<Channel>,
}

impl ChannelListener {
    /// The next channel; `None` when the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Channel> {
        self.queue.recv().await
    }
}

/// Connects if need be, and opens a channel.
pub(crate) async fn open(
    overlay: &Overlay,
    peer: NodeId,
    addresses: Vec<Address>,
    kind: ChannelKind,
) -> Result<Channel, OpenChannelError> {
    overlay.reach_anywhere(peer, addresses).await?;
    let mut control = overlay.streams.clone();
    let opening = control.open_stream(peer_id(peer), kind.protocol(&overlay.network));
    match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(stream)) => Ok(Channel::new(peer, Box::new(stream), overlay.places.of_ours(peer))),
        Ok(Err(OpenStreamError::UnsupportedProtocol(_))) => Err(OpenChannelError::NotTaken),
        Ok(Err(error)) => Err(OpenChannelError::Broken(deepest(&error))),
        Err(_elapsed) => Err(OpenChannelError::Timeout(OPEN_TIMEOUT)),
    }
}

/// From now on peers may open channels of this kind.
pub(crate) fn accept(overlay: &Overlay, kind: ChannelKind) -> Result<ChannelListener, AlreadyAccepted> {
    let incoming = overlay.streams.clone().accept(kind.protocol(&overlay.network));
    let incoming = incoming.map_err(|_registered| AlreadyAccepted)?;
    let (waiting, queue) = mpsc::channel(WAITING_MAX);
    tokio::spawn(admit(incoming, kind, overlay.places.clone(), waiting, overlay.commands.clone()));
    Ok(ChannelListener { queue })
}

/// Takes what peers open, and closes what is beyond a bound, until nobody accepts any more or the node stops.
async fn admit(
    mut incoming: IncomingStreams,
    kind: ChannelKind,
    places: Places,
    waiting: mpsc::Sender<Channel>,
    overlay: mpsc::Sender<Command>,
) {
    loop {
        let (peer, stream) = tokio::select! {
            opened = incoming.next() => match opened {
                Some((peer, stream)) => (node_id(&peer), stream),
                None => return,
            },
            () = waiting.closed() => return,
            () = overlay.closed() => return,
        };
        // A stream that is dropped here is reset.
        let Some(peer) = peer else { continue };
        let Some(place) = places.of_peer(peer, kind) else { continue };
        if waiting.try_send(Channel::new(peer, Box::new(stream), place)).is_err() {
            tracing::debug!(?peer, ?kind, "too many channels wait to be accepted: one is closed");
        }
    }
}

#[cfg(test)]
mod tests;
