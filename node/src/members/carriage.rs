//! How what the machine says reaches others and the disk: streams, pings over connections, batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::{Address, AlreadyAccepted, Channel, ChannelKind, Overlay};
use wattle_store::Store;
use wattle_swim::{Input, Message, PersistId};
use wattle_types::{Envelope, NetworkName, NodeId, Write};

/// Messages that are on their way at once; what is beyond is lost, and made good by the next comparison.
const MESSAGES_MAX: usize = 64;
/// Channels that are read at once; who is beyond waits in the listener.
const READ_MAX: usize = 64;
/// Longest time for one message, with connecting.
const MESSAGE_MAX: Duration = Duration::from_secs(15);
/// How long a channel is read: its opener says one thing.
const READ_FOR: Duration = Duration::from_secs(10);

/// What the members' task hears from others.
pub(super) enum Heard {
    /// Something for the machine.
    Input(Input),
    /// A peer said what is no message, or with a signature that does not hold.
    Refused {
        /// Who.
        peer: NodeId,
        /// Why.
        why: String,
    },
}

/// Everything but datagrams.
pub(super) struct Carriage {
    overlay: Overlay,
    store: Arc<Store>,
    heard: mpsc::Sender<Heard>,
    fallback_timeout: Duration,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Carriage {
    pub(super) fn start(
        overlay: &Overlay,
        store: &Arc<Store>,
        heard: mpsc::Sender<Heard>,
        fallback_timeout: Duration,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, AlreadyAccepted> {
        let mut listener = overlay.accept_channels(ChannelKind::Members)?;
        let (network, readers) = (overlay.network().clone(), Arc::new(Semaphore::new(READ_MAX)));
        let (stopped, told, listening) = (stop.clone(), heard.clone(), tasks.clone());
        tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    () = stopped.cancelled() => return,
                    next = listener.next() => next,
                };
                let Some(channel) = next else { return };
                let Ok(place) = Arc::clone(&readers).acquire_owned().await else { return };
                let (told, network) = (told.clone(), network.clone());
                listening.spawn(async move {
                    // Ignored because a channel that stands still is closed.
                    drop(tokio::time::timeout(READ_FOR, read(channel, &network, &told)).await);
                    drop(place);
                });
            }
        });
        Ok(Self {
            overlay: overlay.clone(),
            store: Arc::clone(store),
            heard,
            fallback_timeout,
            places: Arc::new(Semaphore::new(MESSAGES_MAX)),
            stop: stop.clone(),
            tasks: tasks.clone(),
        })
    }

    /// Says one thing to a member, over a channel of its own.
    pub(super) fn message(&self, to: NodeId, addresses: Vec<Address>, bytes: Vec<u8>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!(%to, "too many messages to members at once: one is lost");
            return;
        };
        let (overlay, stop) = (self.overlay.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let saying = tokio::time::timeout(MESSAGE_MAX, say(&overlay, to, addresses, &bytes));
            tokio::select! {
                () = stop.cancelled() => {}
                said = saying => match said {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => tracing::debug!(%to, why, "a message to a member is lost"),
                    Err(_elapsed) => tracing::debug!(%to, "a message to a member is lost: no answer"),
                },
            }
            drop(place);
        });
    }

    /// Pings over a connection that is there.
    pub(super) fn fallback(&self, peer: NodeId, sequence: u16) {
        let (overlay, heard, timeout) = (self.overlay.clone(), self.heard.clone(), self.fallback_timeout);
        self.tasks.spawn(async move {
            let answered = overlay.ping_connected(peer, timeout).await.is_ok();
            // Ignored because the node stops.
            drop(heard.send(Heard::Input(Input::FallbackAnswered { peer, sequence, answered })).await);
        });
    }

    /// Writes a batch.
    pub(super) fn persist(&self, id: PersistId, writes: Vec<Write>) {
        let (store, heard) = (Arc::clone(&self.store), self.heard.clone());
        self.tasks.spawn(async move {
            let input = match store.commit(writes).await {
                Ok(()) => Input::Persisted { id },
                Err(error) => Input::NotPersisted { id, why: error.to_string() },
            };
            // Ignored because the node stops.
            drop(heard.send(Heard::Input(input)).await);
        });
    }
}

async fn say(overlay: &Overlay, to: NodeId, addresses: Vec<Address>, bytes: &[u8]) -> Result<(), String> {
    let channel = overlay.open_channel_at(to, addresses, ChannelKind::Members).await;
    let (mut sender, mut receiver) = channel.map_err(|error| error.to_string())?.split();
    sender.send(bytes).await.map_err(|error| error.to_string())?;
    // The other side closes when it has read: until then the bytes may be on their way.
    while receiver.next().await.is_some() {}
    Ok(())
}

/// Reads what a peer has to say, checks its signatures, and closes.
async fn read(channel: Channel, network: &NetworkName, told: &mpsc::Sender<Heard>) {
    let peer = channel.peer();
    let (_sender, mut receiver) = channel.split();
    let Some(Ok(frame)) = receiver.next().await else { return };
    let message = Message::<Envelope>::decode(&frame).and_then(|message| message.open(network));
    let heard = match message {
        Ok(message) => Heard::Input(Input::Message { from: peer, message }),
        Err(error) => Heard::Refused { peer, why: error.to_string() },
    };
    // Ignored because the node stops.
    drop(told.send(heard).await);
}
