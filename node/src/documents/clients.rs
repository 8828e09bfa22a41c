//! Programs on this machine that speak automerge-repo over a WebSocket: this node is their sync server.
//!
//! Each connection is one task. It keeps how far the conversation about each open document has come, gives
//! messages to the machine one at a time for each document, and sends what the machine answers. When a
//! document changes, it asks the machine what there is to say.
//!
//! Bounds: [`SOCKETS_MAX`] connections; for each [`OPEN_MAX`] documents, [`PENDING_BYTES_MAX`] of messages that
//! wait (then it is not read), [`KEPT_BYTES_MAX`] of conversations; who does not read for [`UNREAD_MAX`] or does
//! not answer pings is sent away. A document that is not here leaves nothing but its id among the last
//! [`LACKING_MAX`]; as many are waited for for a moment, in case another program has just made them.

mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use futures::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wattle_docs::repo::Message;
use wattle_docs::{Conversation, DocError, Input, Outcome, Presence};
use wattle_types::{DocId, NodeId};

use super::shard::Item;
use super::{Documents, unexpected};
use session::Session;

/// Connections of programs, through both doors.
pub(crate) const SOCKETS_MAX: usize = 64;
/// Documents that one connection has open.
pub(super) const OPEN_MAX: usize = 4096;
/// Bytes of messages of one connection that wait for their documents.
pub(super) const PENDING_BYTES_MAX: usize = 16 << 20;
/// Bytes of all conversations of one connection: what a program says it has is remembered until it says more.
pub(super) const KEPT_BYTES_MAX: usize = 64 << 20;
/// Documents that a program asked for in vain and is told of should they come.
pub(super) const LACKING_MAX: usize = 64;
/// Messages of presence a second that one connection is heard with.
pub(super) const PRESENCE_MAX: u32 = 100;
/// How long a document that is not here is waited for while other programs are connected: automerge-repo offers
/// a new document some tens of milliseconds after it gave its URL to the one who made it.
const GUESS_HOLDS: Duration = Duration::from_millis(250);
/// How long a document that one program offered is waited for when another asks for it.
const OFFER_HOLDS: Duration = Duration::from_secs(5);
/// Offers that are remembered; who asks for what was offered beyond is told that it is not here.
const OFFERS_MAX: usize = 1024;
/// How long changes of a document are gathered, once something was said about it.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// Longest time between the opening of a connection and its `join`.
const JOIN_WITHIN: Duration = Duration::from_secs(10);
/// Longest time in which a program takes nothing of what it is sent.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How often a program is asked whether it is there, and how long it may be silent.
const PING_EVERY: Duration = Duration::from_secs(10);
const SILENT_MAX: Duration = Duration::from_secs(40);
/// What the end of a connection may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Close codes of RFC 6455: the server goes, and the client broke the rules.
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
/// Bytes of a reason that fit in a close frame.
const CLOSE_REASON_BYTES_MAX: usize = 120;

/// Documents that programs said to have, and when.
pub(super) type Offers = Arc<Mutex<BTreeMap<DocId, Instant>>>;

/// What a program is answered: how far the conversation has come, and the next message.
type Synced = (Option<Box<Conversation>>, Option<Vec<u8>>);

impl Documents {
    /// A place for one more connection, if there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whether more than one program is connected.
    fn has_others(&self) -> bool {
        SOCKETS_MAX.saturating_sub(self.places.available_permits()) > 1
    }

    /// Notes that a program says it has a document that is not here: it was asked for it, and gives it at once.
    fn offered(&self, doc: DocId) {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.retain(|_, at| at.elapsed() < OFFER_HOLDS);
        if offers.len() < OFFERS_MAX {
            offers.insert(doc, Instant::now());
        }
    }

    /// Until when a document that is not here may still come from a program that offered it.
    fn offer(&self, doc: &DocId) -> Option<Instant> {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.get(doc).map(|at| *at + OFFER_HOLDS).filter(|until| *until > Instant::now())
    }

    /// Gives a program's message to the machine, or asks what there is to say; what it brought is on disk when
    /// this returns.
    async fn sync(
        &self,
        doc: DocId,
        conversation: Box<Conversation>,
        message: Option<Vec<u8>>,
    ) -> Result<Synced, DocError> {
        match self.ask(move |request| Input::Sync { request, doc, conversation, message }).await? {
            Outcome::Synced { conversation, message } => Ok((conversation, message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Passes on what a program says in passing.
    async fn say(&self, doc: DocId, presence: Presence) {
        if let Some(inbox) = self.inboxes.home(&doc) {
            // Ignored because a machine that ended has nobody to tell.
            drop(inbox.send(Item::Input(Input::Ephemeral { doc, presence })).await);
        }
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum Ended {
    /// The program closed it, or said that it goes.
    Left,
    /// The node stops.
    Stopping,
    /// The program does not read, or does not answer.
    Silent,
    /// Something that the program is told: mostly its own fault.
    Broken(String),
}

impl Ended {
    fn broken(reason: impl std::fmt::Display) -> Self {
        Self::Broken(reason.to_string())
    }
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(socket: WebSocket, documents: Documents, me: NodeId, stop: CancellationToken) {
    let mut line = Line { socket, heard: Instant::now() };
    let mut session = Session::new(documents, &me);
    let ended = line.converse(&mut session, &stop).await;
    match &ended {
        Ended::Broken(reason) => tracing::warn!(program = session.name(), reason, "sent a program away"),
        ended => tracing::debug!(program = session.name(), ?ended, "a program is gone"),
    }
    let last = if let Ended::Broken(reason) = &ended { Some(session.error(reason)) } else { None };
    line.end(last, ended).await;
}

/// The connection itself.
struct Line {
    socket: WebSocket,
    /// When something last came.
    heard: Instant,
}

impl Line {
    async fn converse(&mut self, session: &mut Session, stop: &CancellationToken) -> Ended {
        let mut events = session.events();
        let mut pings = tokio::time::interval(PING_EVERY);
        loop {
            while let Some(message) = session.outgoing.pop_front() {
                if let Err(ended) = self.send(Frame::Binary(message.encode().into())).await {
                    return ended;
                }
            }
            let due = session.due();
            let sleep = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (has_room, asks) = (session.has_room(), !session.asks.is_empty());
            let went_on = tokio::select! {
                () = stop.cancelled() => Err(Ended::Stopping),
                frame = self.frame(), if has_room => match frame {
                    Ok(Some(bytes)) => session.on_frame(&bytes).await,
                    Ok(None) => Ok(()),
                    Err(ended) => Err(ended),
                },
                Some(answer) = session.asks.next(), if asks => session.on_answer(answer),
                event = events.recv() => session.on_event(event),
                () = sleep => {
                    session.on_due();
                    Ok(())
                }
                _ = pings.tick() => match self.check(session) {
                    Ok(()) => self.send(Frame::Ping(Vec::new().into())).await,
                    Err(ended) => Err(ended),
                },
            };
            if let Err(ended) = went_on {
                return ended;
            }
        }
    }

    /// The next message; none for what only shows that the program is there.
    async fn frame(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        let frame = self.socket.recv().await;
        self.heard = Instant::now();
        match frame {
            Some(Ok(Frame::Binary(bytes))) => Ok(Some(bytes.into())),
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Ok(None),
            Some(Ok(Frame::Text(_))) => {
                Err(Ended::broken("automerge-repo speaks in binary frames, not text"))
            }
            Some(Ok(Frame::Close(_))) | None => Err(Ended::Left),
            // A frame that is too large, or none of the protocol; or the connection broke, and nobody hears it.
            Some(Err(error)) => Err(Ended::broken(error)),
        }
    }

    /// Whether the program has joined in time and is still there.
    fn check(&mut self, session: &Session) -> Result<(), Ended> {
        if !session.has_joined() && session.began.elapsed() >= JOIN_WITHIN {
            return Err(Ended::broken("no `join` came"));
        }
        if !session.has_room() {
            // It is not read at present, so it may have answered.
            self.heard = Instant::now();
        }
        if self.heard.elapsed() > SILENT_MAX {
            return Err(Ended::Silent);
        }
        Ok(())
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Ended> {
        match timeout(UNREAD_MAX, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_broken)) => Err(Ended::Left),
            Err(_elapsed) => Err(Ended::Silent),
        }
    }

    /// Says why, where there is somebody to say it to, and closes.
    async fn end(mut self, last: Option<Message>, ended: Ended) {
        let (code, reason) = match ended {
            Ended::Left | Ended::Silent => return,
            Ended::Stopping => (GOING_AWAY, "the node stops".to_owned()),
            Ended::Broken(reason) => (POLICY, reason),
        };
        let last_words = async {
            if let Some(last) = last {
                self.socket.send(Frame::Binary(last.encode().into())).await?;
            }
            let cut = (0..=CLOSE_REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            let reason = reason.get(..cut).unwrap_or(&reason).to_owned();
            self.socket.send(Frame::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
            // Until the other side has closed too: what is unread when a socket closes takes the last words away.
            while let Some(Ok(_)) = self.socket.recv().await {}
            Ok::<(), axum::Error>(())
        };
        // Ignored because it is gone, one way or the other.
        drop(timeout(LAST_WORDS_MAX, last_words).await);
    }
}
