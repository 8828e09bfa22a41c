//! Programs on this machine that edit by automerge's own sync protocol: browser pages, automerge-repo.
//!
//! The machine keeps nothing about them. Whoever holds the connection keeps one [`Conversation`] for each
//! document, hands it in with every message, and gets it back with what to say next. The answer leaves when
//! what was learned, and what is said, is on disk (D1). What a program brings counts as this node's own: this
//! node vouches for it, if it may write; a reader says that it takes nothing.

use wattle_types::{DocAccess, DocId, Outbox, ReadSecret, SecretKey, Time};

use super::{DocError, Entry, Job, Outcome, Output, Replica, RequestId, State, Waiting};
use crate::document::{Conversation, Document, Fault, Heard};
use crate::payload::Payload;

impl Replica {
    pub(super) fn sync(
        &mut self,
        now: Time,
        request: RequestId,
        doc: DocId,
        conversation: Box<Conversation>,
        message: Option<&[u8]>,
        out: &mut Outbox<Output>,
    ) {
        let reply = |outcome, out: &mut Outbox<Output>| out.push(Output::Reply { request, outcome });
        let heard = match message.map(Heard::read).transpose() {
            Ok(heard) => heard,
            Err(fault) => return reply(Err(refused(&fault)), out),
        };
        match (self.entries.get(&doc), heard) {
            (Some(entry), _) if entry.is_awaited() => reply(Err(DocError::NotHere), out),
            (Some(_), heard) => {
                self.local_job(now, doc, request, Job::Sync { request, conversation, heard }, out);
            }
            (None, Some(heard)) if heard.has_heads() => self.offered(now, request, doc, heard, out),
            // Nobody here has it: a made-up id leaves no trace.
            (None, _) => reply(Err(DocError::Unknown(doc)), out),
        }
    }

    /// A message about an open document: learns, and says what comes next.
    pub(super) fn converse(
        &mut self,
        now: Time,
        doc: DocId,
        request: RequestId,
        mut conversation: Box<Conversation>,
        heard: Option<Heard>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        conversation.set_may_write(entry.members.may_write(&self.me));
        let State::Open(document) = &mut entry.state else { return };
        let heard = heard.map_or(Ok(()), |heard| document.hear(&mut conversation, heard, &entry.row.cut));
        // What a removal cut off does not come back by a program that still has it.
        conversation.set_may_write(entry.members.may_write(&self.me));
        let said = heard.and_then(|()| document.say(&mut conversation));
        conversation.shrink();
        let outcome = match said {
            Ok(message) => Outcome::Synced { conversation: Some(conversation), message },
            Err(fault) => return out.push(Output::Reply { request, outcome: Err(refused(&fault)) }),
        };
        let writing = entry.writing.get_or_insert_default();
        let waiting = Waiting::Plain { request, outcome };
        if !document.is_vouched() || writing.next.payload != Payload::default() {
            writing.next.waiting.push(waiting);
            self.flush(doc, now, out);
        } else if writing.in_flight.is_some() {
            // All that is said is in the batch on its way.
            writing.flight.waiting.push(waiting);
        } else {
            let Waiting::Plain { request, outcome } = waiting else { return };
            out.push(Output::Reply { request, outcome: Ok(outcome) });
            entry.rest();
        }
    }

    /// A program has a document that is not here. Without changes it is asked for them, and nothing is kept;
    /// with all of them the document is adopted under the id that the program gave it.
    fn offered(&mut self, now: Time, request: RequestId, doc: DocId, heard: Heard, out: &mut Outbox<Output>) {
        let actor = self.draw();
        let mut document = Document::new(&self.me, &actor);
        let mut conversation = Box::<Conversation>::default();
        let heard = document.hear(&mut conversation, heard, &[]);
        let message = match heard.and_then(|()| document.say(&mut conversation)) {
            Ok(message) => message,
            Err(fault) => return out.push(Output::Reply { request, outcome: Err(refused(&fault)) }),
        };
        if document.heads().is_empty() {
            let outcome = Ok(Outcome::Synced { conversation: None, message });
            return out.push(Output::Reply { request, outcome });
        }
        conversation.shrink();
        let owner = SecretKey::from_bytes(&self.draw());
        let read = ReadSecret::from_bytes(self.draw());
        let access = DocAccess { id: doc, read, owner: Some(owner.node_id()) };
        let outcome = Outcome::Synced { conversation: Some(conversation), message };
        self.found_document(now, access, &owner, document, Waiting::Plain { request, outcome }, out);
    }
}

impl Entry {
    /// Whether it was joined and has not arrived from anybody yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.row.owner.is_none() && self.row.tip.heads.is_empty()
    }
}

fn refused(fault: &Fault) -> DocError {
    DocError::Refused(format!("the sync message is refused: {fault}"))
}
