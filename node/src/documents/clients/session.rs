//! What one program has said and is to be told; nothing here knows of sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep_until};
use wattle_docs::repo::{
    DocumentId, Ephemeral, InvalidText, Message, PeerId, PeerMetadata, ProtocolVersion, StorageId, Sync,
};
use wattle_docs::{Conversation, DocError, Event, PRESENCE_BYTES_MAX, Presence};
use wattle_types::{DocId, NodeId};

use super::{
    Documents, Ended, GATHER, GUESS_HOLDS, KEPT_BYTES_MAX, LACKING_MAX, OPEN_MAX, PENDING_BYTES_MAX,
    PRESENCE_MAX, Synced,
};

/// A document that the program has open.
struct Open {
    /// As the program spells it.
    name: DocumentId,
    /// How far the conversation has come; none while the machine has it.
    conversation: Option<Box<Conversation>>,
    /// What it takes.
    kept_bytes: usize,
    /// Messages that wait for the one before them.
    waiting: VecDeque<Vec<u8>>,
    /// Something changed that the program has not been told.
    news: bool,
    /// When it is told; none when there is no news, or once it is being told.
    due: Option<Instant>,
    /// When the machine was last asked.
    asked: Option<Instant>,
    /// It has not arrived here; the program is told when it does, or that it cannot be had.
    awaited: bool,
    /// Whether it was logged that a removal cut the program off.
    was_cut: bool,
}

/// What the machine says to something that was asked.
pub(super) enum Answer {
    Synced(DocId, Result<Synced, DocError>),
    /// Nobody looks for the document any more.
    LookedFor(DocId),
    /// A document that another program may have made was waited for long enough.
    GivenUp(DocId),
}

/// One program on one connection.
pub(super) struct Session {
    documents: Documents,
    server: Option<PeerId>,
    client: Option<PeerId>,
    pub(super) began: Instant,
    open: BTreeMap<DocId, Open>,
    due: BTreeSet<(Instant, DocId)>,
    /// Documents that were asked for and are not here.
    lacking: VecDeque<DocId>,
    /// Documents that are waited for because another program may have made them.
    guesses: usize,
    pending_bytes: usize,
    kept_bytes: usize,
    presence: (Instant, u32),
    pub(super) asks: FuturesUnordered<BoxFuture<'static, Answer>>,
    pub(super) outgoing: VecDeque<Message>,
}

impl Session {
    pub(super) fn new(documents: Documents, me: &NodeId) -> Self {
        let now = Instant::now();
        Self {
            documents,
            server: format!("wattle-{me}").parse().ok(),
            client: None,
            began: now,
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            lacking: VecDeque::new(),
            guesses: 0,
            pending_bytes: 0,
            kept_bytes: 0,
            presence: (now, 0),
            asks: FuturesUnordered::new(),
            outgoing: VecDeque::new(),
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.documents.events()
    }

    /// What the program calls itself.
    pub(super) fn name(&self) -> &str {
        self.client.as_ref().map_or("one that has not joined", PeerId::as_str)
    }

    pub(super) const fn has_joined(&self) -> bool {
        self.client.is_some()
    }

    /// Whether more may be read.
    pub(super) const fn has_room(&self) -> bool {
        self.pending_bytes < PENDING_BYTES_MAX
    }

    /// When [`Self::on_due`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What the program is told before it is sent away.
    pub(super) fn error(&self, reason: &str) -> Message {
        let stranger = || PeerId::try_from("unknown".to_owned());
        let (sender, target) = (self.server.clone(), self.client.clone());
        match (sender.map_or_else(stranger, Ok), target.map_or_else(stranger, Ok)) {
            (Ok(sender), Ok(target)) => Message::Error { sender, target, reason: reason.to_owned() },
            (Err(InvalidText { .. }), _) | (_, Err(InvalidText { .. })) => {
                Message::Unknown { kind: "error".to_owned() }
            }
        }
    }

    /// A frame came.
    pub(super) async fn on_frame(&mut self, frame: &[u8]) -> Result<(), Ended> {
        let message = Message::decode(frame).map_err(Ended::broken)?;
        match message {
            Message::Join { sender, versions, .. } => self.on_join(sender, &versions),
            _ if self.client.is_none() => Err(Ended::broken("the first message must be `join`")),
            Message::Request(sync) | Message::Sync(sync) => self.on_sync(sync),
            Message::Ephemeral(said) => {
                self.on_ephemeral(said).await;
                Ok(())
            }
            Message::Leave { .. } => Err(Ended::Left),
            Message::Error { reason, .. } => {
                tracing::warn!(program = self.name(), reason, "a program says that something is wrong");
                Err(Ended::Left)
            }
            // That a program lacks a document changes nothing here; gossip about others is not spoken.
            Message::Unavailable { .. }
            | Message::Peer { .. }
            | Message::RemoteSubscriptionChange { .. }
            | Message::RemoteHeadsChanged { .. }
            | Message::Unknown { .. } => Ok(()),
        }
    }

    fn on_join(&mut self, client: PeerId, versions: &[ProtocolVersion]) -> Result<(), Ended> {
        let Some(server) = self.server.clone() else { return Err(Ended::Left) };
        if !versions.contains(&ProtocolVersion::one()) {
            let spoken: Vec<&str> = versions.iter().map(ProtocolVersion::as_str).collect();
            return Err(Ended::Broken(format!("version 1 is spoken here, not {}", spoken.join(", "))));
        }
        if client == server || self.client.as_ref().is_some_and(|known| *known != client) {
            return Err(Ended::broken("this id cannot join here now"));
        }
        // What is stored here outlives this process, so a program may remember what it has in common with it.
        let storage = StorageId::try_from(String::from(server.clone())).ok();
        self.outgoing.push_back(Message::Peer {
            sender: server,
            target: client.clone(),
            metadata: PeerMetadata { storage, ephemeral: false },
            version: ProtocolVersion::one(),
        });
        self.client = Some(client);
        Ok(())
    }

    fn on_sync(&mut self, sync: Sync) -> Result<(), Ended> {
        if self.client.as_ref() != Some(&sync.sender) {
            return Err(Ended::Broken(format!("{} did not join on this connection", sync.sender)));
        }
        let Ok(doc) = sync.document.as_str().parse::<DocId>() else {
            // An id of another kind than ours: nobody here can have it.
            self.unavailable(sync.document);
            return Ok(());
        };
        if !self.open.contains_key(&doc) {
            if self.open.len() >= OPEN_MAX {
                return Err(Ended::Broken(format!("more than {OPEN_MAX} documents on one connection")));
            }
            self.open.insert(doc, Open::new(sync.document));
        }
        let Some(open) = self.open.get_mut(&doc) else { return Ok(()) };
        self.pending_bytes = self.pending_bytes.saturating_add(sync.data.len());
        open.waiting.push_back(sync.data);
        self.advance(doc);
        Ok(())
    }

    /// Gives the machine what waits for it, one thing at a time for each document.
    fn advance(&mut self, doc: DocId) {
        let Some(open) = self.open.get_mut(&doc) else { return };
        let told = !open.waiting.is_empty() || (open.news && open.due.is_none());
        if !told || open.conversation.is_none() {
            return;
        }
        let Some(conversation) = open.conversation.take() else { return };
        let message = open.waiting.pop_front();
        self.pending_bytes = self.pending_bytes.saturating_sub(message.as_ref().map_or(0, Vec::len));
        self.kept_bytes = self.kept_bytes.saturating_sub(std::mem::take(&mut open.kept_bytes));
        // Whatever is said now is said with all news.
        open.news = false;
        if let Some(due) = open.due.take() {
            self.due.remove(&(due, doc));
        }
        open.asked = Some(Instant::now());
        let documents = self.documents.clone();
        let ask = async move { Answer::Synced(doc, documents.sync(doc, conversation, message).await) };
        self.asks.push(ask.boxed());
    }

    pub(super) fn on_answer(&mut self, answer: Answer) -> Result<(), Ended> {
        match answer {
            Answer::Synced(doc, Ok((conversation, message))) => self.on_synced(doc, conversation, message),
            Answer::Synced(doc, Err(error)) => self.on_refused(doc, error),
            Answer::LookedFor(doc) => {
                if let Some(open) = self.open.get(&doc).filter(|open| open.awaited) {
                    self.unavailable(open.name.clone());
                }
                Ok(())
            }
            Answer::GivenUp(doc) => {
                self.guesses = self.guesses.saturating_sub(1);
                if self.open.get(&doc).is_some_and(|open| open.awaited) && !self.guess(doc, None) {
                    self.lacks(doc);
                }
                Ok(())
            }
        }
    }

    fn on_synced(
        &mut self,
        doc: DocId,
        conversation: Option<Box<Conversation>>,
        message: Option<Vec<u8>>,
    ) -> Result<(), Ended> {
        let Some(open) = self.open.get_mut(&doc) else { return Ok(()) };
        open.awaited = false;
        let (name, is_here) = (open.name.clone(), conversation.is_some());
        let conversation = conversation.unwrap_or_default();
        if conversation.is_cut() && !open.was_cut {
            open.was_cut = true;
            let program = self.client.as_ref().map(PeerId::as_str);
            tracing::warn!(program, %doc, "a program still has what the removal of a writer cut off: it must load anew");
        }
        open.conversation = Some(conversation);
        open.kept_bytes = open.conversation.as_ref().map_or(0, |conversation| conversation.bytes());
        self.kept_bytes = self.kept_bytes.saturating_add(open.kept_bytes);
        if self.kept_bytes > KEPT_BYTES_MAX {
            return Err(Ended::broken("too much is to be remembered of what this program has"));
        }
        if let (Some(data), Some(sender), Some(target)) = (message, self.server.clone(), self.client.clone())
        {
            let sync = Sync { sender, target, document: name, data };
            let message = Message::Sync(sync);
            self.outgoing.push_back(message);
        }
        if !is_here && open.waiting.is_empty() {
            // It was asked for what it has; the machine keeps nothing until it has said it, nor does this.
            self.close(doc);
            self.documents.offered(doc);
        }
        self.advance(doc);
        Ok(())
    }

    fn on_refused(&mut self, doc: DocId, error: DocError) -> Result<(), Ended> {
        let Some(open) = self.open.get_mut(&doc) else { return Ok(()) };
        match error {
            DocError::NotHere | DocError::Unknown(_) if open.news => {
                // It came between the question and the answer.
                open.conversation = Some(Box::default());
                self.advance(doc);
                Ok(())
            }
            DocError::NotHere => {
                let documents = self.documents.clone();
                let end = async move {
                    documents.looked_for(doc).await;
                    Answer::LookedFor(doc)
                };
                self.hold(doc, end.boxed());
                Ok(())
            }
            DocError::Unknown(_) if self.guess(doc, Some(GUESS_HOLDS)) => Ok(()),
            DocError::Unknown(_) => {
                self.lacks(doc);
                Ok(())
            }
            DocError::Damaged(_) => {
                tracing::warn!(%doc, %error, "a program asked for a document that cannot be read");
                self.lacks(doc);
                Ok(())
            }
            other => Err(Ended::Broken(format!("{doc}: {other}"))),
        }
    }

    /// Waits for a document that another program offered, or may be about to: who makes one and says where it is
    /// says so to this node a moment later. Says whether it is waited for.
    fn guess(&mut self, doc: DocId, may_wait: Option<Duration>) -> bool {
        let others = may_wait.filter(|_| self.documents.has_others());
        let offered = self.documents.offer(&doc);
        let Some(until) = offered.or_else(|| others.map(|span| Instant::now() + span)) else { return false };
        if self.guesses >= LACKING_MAX {
            return false;
        }
        self.guesses += 1;
        let end = sleep_until(until).map(move |()| Answer::GivenUp(doc));
        self.hold(doc, end.boxed());
        true
    }

    /// Says that a document is not here, and forgets it but for its id.
    fn lacks(&mut self, doc: DocId) {
        let Some(open) = self.open.get(&doc) else { return };
        let name = open.name.clone();
        self.close(doc);
        self.unavailable(name);
        if self.lacking.len() >= LACKING_MAX {
            self.lacking.pop_front();
        }
        self.lacking.push_back(doc);
    }

    /// Says nothing about a document that may yet come, until `end`.
    fn hold(&mut self, doc: DocId, end: BoxFuture<'static, Answer>) {
        let Some(open) = self.open.get_mut(&doc) else { return };
        open.conversation = Some(Box::default());
        let waiting: usize = open.waiting.drain(..).map(|message| message.len()).sum();
        self.pending_bytes = self.pending_bytes.saturating_sub(waiting);
        open.awaited = true;
        self.asks.push(end);
    }

    fn close(&mut self, doc: DocId) {
        let Some(open) = self.open.remove(&doc) else { return };
        let waiting: usize = open.waiting.iter().map(Vec::len).sum();
        self.pending_bytes = self.pending_bytes.saturating_sub(waiting);
        self.kept_bytes = self.kept_bytes.saturating_sub(open.kept_bytes);
        if let Some(due) = open.due {
            self.due.remove(&(due, doc));
        }
    }

    fn unavailable(&mut self, document: DocumentId) {
        if let (Some(sender), Some(target)) = (self.server.clone(), self.client.clone()) {
            self.outgoing.push_back(Message::Unavailable { sender, target, document });
        }
    }

    pub(super) fn on_event(&mut self, event: Result<Event, RecvError>) -> Result<(), Ended> {
        match event {
            Ok(Event::Changed { doc, after, .. }) => self.on_changed(doc, &after),
            // Whether the program may write may have changed. What has not arrived is told of when it does.
            Ok(Event::MembersChanged { doc }) if self.open.get(&doc).is_some_and(|open| open.awaited) => {}
            Ok(Event::MembersChanged { doc }) => self.gather(doc),
            Ok(Event::Ephemeral { doc, presence, .. }) => self.on_presence(doc, presence),
            // The rest is about peers and feeds, of which automerge-repo knows nothing.
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                for doc in self.open.keys().copied().collect::<Vec<_>>() {
                    self.gather(doc);
                }
            }
            Err(RecvError::Closed) => return Err(Ended::Stopping),
        }
        Ok(())
    }

    fn on_changed(&mut self, doc: DocId, after: &[[u8; 32]]) {
        if let Some(at) = self.lacking.iter().position(|lacking| *lacking == doc) {
            self.lacking.remove(at);
            let name = DocumentId::try_from(doc.to_string().trim_start_matches("automerge:").to_owned());
            if let (Ok(name), true) = (name, self.open.len() < OPEN_MAX) {
                self.open.entry(doc).or_insert_with(|| Open::new(name));
            }
        }
        let conversation = self.open.get(&doc).and_then(|open| open.conversation.as_ref());
        if !conversation.is_some_and(|conversation| conversation.was_told(after)) {
            self.gather(doc);
        }
    }

    /// Something changed: what follows within a moment is said with it.
    fn gather(&mut self, doc: DocId) {
        let Some(open) = self.open.get_mut(&doc) else { return };
        open.news = true;
        let at = open.asked.map(|asked| asked + GATHER).filter(|at| *at > Instant::now());
        if let (Some(at), None) = (at, open.due) {
            open.due = Some(at);
            self.due.insert((at, doc));
        }
        self.advance(doc);
    }

    pub(super) fn on_due(&mut self) {
        let now = Instant::now();
        while let Some((at, doc)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, doc));
            if let Some(open) = self.open.get_mut(&doc) {
                open.due = None;
            }
            self.advance(doc);
        }
    }

    /// Others on this node or elsewhere say something.
    fn on_presence(&mut self, doc: DocId, presence: Presence) {
        let (Some(open), Some(client)) = (self.open.get(&doc), &self.client) else { return };
        if presence.sender == *client {
            return;
        }
        let Presence { sender, session, count, data } = presence;
        let (target, document) = (client.clone(), open.name.clone());
        self.outgoing.push_back(Message::Ephemeral(Ephemeral {
            sender,
            target,
            document,
            count,
            session,
            data,
        }));
    }

    /// The program says something, or passes on what it heard: the machine tells one from the other.
    async fn on_ephemeral(&mut self, said: Ephemeral) {
        let Ok(doc) = said.document.as_str().parse::<DocId>() else { return };
        if self.presence.0.elapsed() >= Duration::from_secs(1) {
            self.presence = (Instant::now(), 0);
        }
        self.presence.1 = self.presence.1.saturating_add(1);
        if self.presence.1 > PRESENCE_MAX
            || said.data.len() > PRESENCE_BYTES_MAX
            || !self.open.contains_key(&doc)
        {
            let bytes = said.data.len();
            tracing::debug!(program = self.name(), %doc, bytes, "presence that is too much was dropped");
            return;
        }
        let Ephemeral { sender, session, count, data, .. } = said;
        self.documents.say(doc, Presence { sender, session, count, data }).await;
    }
}

impl Open {
    fn new(name: DocumentId) -> Self {
        Self {
            name,
            conversation: Some(Box::default()),
            kept_bytes: 0,
            waiting: VecDeque::new(),
            news: false,
            due: None,
            asked: None,
            awaited: false,
            was_cut: false,
        }
    }
}
