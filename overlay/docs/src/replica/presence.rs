//! Presence: what people who have a document open say in passing. Never stored, never answered.
//!
//! A message goes to the programs of this node, and to every member that is here; each passes it on once, so
//! it also reaches those that have no channel to its origin. What is not newer than the last of its sender and
//! session was heard already: that ends every loop. A member may say what it likes in another's name; only
//! members hear it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_types::{DocId, NodeId, Outbox, Time, keyed};

use super::{Event, Output, Replica};
use crate::message::{Message, PRESENCE_BYTES_MAX};
use crate::repo::{PeerId, SessionId};

/// Messages a second that one peer is heard with, for one document. What is more is dropped: the next says
/// the same, newer.
pub const PRESENCE_PER_SECOND: u32 = 20;

/// Sessions of programs that are remembered for one document; beyond it the one heard longest ago is
/// forgotten. One that is then heard late is heard twice.
const SESSIONS_MAX: usize = 256;

/// Something that a program says to all who have a document open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The program, as it calls itself.
    pub sender: PeerId,
    /// One run of it.
    pub session: SessionId,
    /// Grows with every message of a session.
    pub count: u64,
    /// What it says, of at most [`PRESENCE_BYTES_MAX`].
    pub data: Vec<u8>,
}

/// How much one peer may still say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: u32,
    since: Time,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: PRESENCE_PER_SECOND, since: Time::ZERO }
    }
}

impl Allowance {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { left: PRESENCE_PER_SECOND, since: now };
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or_default();
        taken.is_some()
    }
}

/// What was heard about one document.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The last count of each session, and when in the order of all it came.
    sessions: BTreeMap<[u8; 32], (u64, u64)>,
    heard: u64,
    /// What this node sends to others of its own programs' words.
    own: Allowance,
}

impl Said {
    /// Whether it is newer than all of its session before.
    fn is_news(&self, session: &[u8; 32], count: u64) -> bool {
        self.sessions.get(session).is_none_or(|(last, _)| count > *last)
    }

    fn remember(&mut self, session: [u8; 32], count: u64) {
        self.heard += 1;
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&session) {
            let oldest = self.sessions.iter().min_by_key(|(_, (_, at))| *at).map(|(session, _)| *session);
            oldest.and_then(|oldest| self.sessions.remove(&oldest));
        }
        self.sessions.insert(session, (count, self.heard));
    }
}

impl Replica {
    /// A program of this node says something.
    pub(super) fn say(&mut self, now: Time, doc: DocId, presence: Presence, out: &mut Outbox<Output>) {
        self.pass_on(now, doc, None, presence, out);
    }

    /// A member passes on what a program said.
    pub(super) fn on_presence(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        presence: Presence,
        out: &mut Outbox<Output>,
    ) {
        self.pass_on(now, doc, Some(peer), presence, out);
    }

    fn pass_on(
        &mut self,
        now: Time,
        doc: DocId,
        from: Option<NodeId>,
        presence: Presence,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let session =
            keyed(&[0; 32], &[presence.sender.as_str().as_bytes(), presence.session.as_str().as_bytes()]);
        if presence.data.len() > PRESENCE_BYTES_MAX || !entry.said.is_news(&session, presence.count) {
            return;
        }
        let allowance = match from {
            None => Some(&mut entry.said.own),
            Some(peer) => entry.sessions.get_mut(&peer).map(|session| &mut session.presence),
        };
        let allowed = allowance.is_some_and(|allowance| allowance.take(now));
        if from.is_some() && !allowed {
            return;
        }
        entry.said.remember(session, presence.count);
        if allowed {
            let Presence { sender, session, count, data } = presence.clone();
            let message = Message::Ephemeral { sender, session, count, data: ByteBuf::from(data) };
            let Some(entry) = self.entries.get(&doc) else { return };
            // D3: members only.
            let members = entry.sessions.keys().filter(|peer| entry.members.role(peer).is_some());
            for peer in members.filter(|peer| Some(**peer) != from) {
                self.send(&doc, *peer, &message, out);
            }
        }
        out.push(Output::Notify(Event::Ephemeral { doc, from, presence }));
    }
}
