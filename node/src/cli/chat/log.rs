//! The messages of the open room in their one order, and the lines between them that are only ours: what
//! came late and slid in above, what a command said.

use jiff::Timestamp;

use super::model::{Batch, Kind, Mark, Message};

/// So many messages of a room are kept in the screen; the node has all.
pub(super) const MESSAGES_MAX: usize = 5000;
/// So many lines of our own; the oldest go first.
const NOTES_MAX: usize = 100;

/// The messages that are loaded.
#[derive(Debug, Default)]
pub(super) struct Log {
    messages: Vec<Message>,
    notes: Vec<Note>,
    /// Nothing older is stored at the node.
    pub(super) complete: bool,
    /// What to ask for what is older.
    pub(super) before: Option<String>,
    /// Older messages were asked for.
    pub(super) loading: bool,
}

/// A line of our own, below the message that was last when it came.
#[derive(Debug)]
struct Note {
    after: Option<String>,
    what: What,
}

/// What such a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Messages that came late and stand above.
    Late(Late),
    Said(String),
}

/// Late messages of one author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) author: String,
    pub(super) nick: String,
    pub(super) count: usize,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The first of them.
    pub(super) id: String,
}

impl Late {
    fn of(message: &Message) -> Self {
        Self {
            author: message.author.clone(),
            nick: message.nick.clone(),
            count: 1,
            first: message.sent,
            last: message.sent,
            id: message.id.clone(),
        }
    }

    fn add(&mut self, message: &Message) {
        self.count += 1;
        if message.sent < self.first {
            (self.first, self.id) = (message.sent, message.id.clone());
        }
        self.last = self.last.max(message.sent);
    }
}

impl Log {
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(super) fn index_of(&self, id: &str) -> Option<usize> {
        self.messages.iter().rposition(|message| message.id == id)
    }

    /// The lines of our own after the message with this id; before the first message for `None`.
    pub(super) fn notes_after<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a What> {
        self.notes.iter().filter(move |note| note.after.as_deref() == id).map(|note| &note.what)
    }

    /// The newest line about late messages.
    pub(super) fn last_late(&self) -> Option<&Late> {
        self.notes.iter().rev().find_map(|note| match &note.what {
            What::Late(late) => Some(late),
            What::Said(_) => None,
        })
    }

    /// When messages of one author came late in a row, the row that begins at `index`.
    pub(super) fn late_row(&self, index: usize) -> Option<Late> {
        let first = self.messages.get(index).filter(|message| is_late(message))?;
        let same = |message: &Message| is_late(message) && message.author == first.author;
        if index > 0 && same(&self.messages[index - 1]) {
            return None;
        }
        let mut row = Late::of(first);
        self.messages[index + 1..].iter().take_while(|message| same(message)).for_each(|next| row.add(next));
        Some(row)
    }

    /// Takes one message that just came, or a change of one that is here.
    pub(super) fn arrive(&mut self, message: Message) {
        if let Some(index) = self.index_of(&message.id) {
            let mark = self.messages[index].mark.max(message.mark);
            self.messages[index] = Message { mark, ..message };
            return;
        }
        let index = self.messages.partition_point(|other| other.place < message.place);
        if index < self.messages.len() && is_late(&message) {
            self.note_late(&message);
        }
        if index == 0 && !self.messages.is_empty() && !self.complete {
            // It belongs to what is not loaded: shown here, it would hide what lies between.
            return;
        }
        self.messages.insert(index, message);
        if self.messages.len() > MESSAGES_MAX {
            let first = self.messages.remove(0);
            self.notes.retain(|note| note.after.as_ref() != Some(&first.id));
            (self.complete, self.before) = (false, None);
        }
    }

    /// Takes many messages: the newest after a connection, or older ones.
    pub(super) fn load(&mut self, batch: Batch) {
        let overlaps = batch.messages.iter().any(|message| self.index_of(&message.id).is_some());
        if batch.newest && !overlaps && !batch.messages.is_empty() {
            // Between what is shown and these there may be others.
            self.messages.clear();
            self.notes.retain(|note| matches!(note.what, What::Said(_)));
            for note in &mut self.notes {
                note.after = None;
            }
        }
        let fresh = self.messages.is_empty();
        if fresh || !batch.newest {
            self.complete = batch.before.is_none();
            self.before = batch.before;
            self.loading = false;
            for message in batch.messages {
                self.place(message);
            }
        } else {
            for message in batch.messages {
                self.arrive(message);
            }
        }
    }

    fn place(&mut self, message: Message) {
        if self.index_of(&message.id).is_none() {
            let index = self.messages.partition_point(|other| other.place < message.place);
            self.messages.insert(index, message);
        }
    }

    /// A message of ours got further.
    pub(super) fn mark(&mut self, id: &str, mark: Mark) {
        if let Some(index) = self.index_of(id) {
            self.messages[index].mark = self.messages[index].mark.max(mark);
        }
    }

    /// An author changed a message, or took it back.
    pub(super) fn change(&mut self, id: &str, author: &str, text: Option<String>) {
        let Some(index) = self.index_of(id).filter(|index| self.messages[*index].author == author) else {
            return;
        };
        let message = &mut self.messages[index];
        match text {
            Some(text) => (message.text, message.edited) = (text, true),
            None => message.deleted = true,
        }
    }

    /// An author signed two histories.
    pub(super) fn flag(&mut self, author: &str) {
        self.messages
            .iter_mut()
            .filter(|message| message.author == author)
            .for_each(|one| one.flagged = true);
    }

    /// Says something below the newest message.
    pub(super) fn say(&mut self, text: String) {
        self.note(What::Said(text));
    }

    fn note_late(&mut self, message: &Message) {
        let newest = self.messages.last().map(|message| message.id.clone());
        if let Some(Note { after, what: What::Late(late) }) = self.notes.last_mut()
            && *after == newest
            && late.author == message.author
        {
            late.add(message);
            return;
        }
        self.note(What::Late(Late::of(message)));
    }

    fn note(&mut self, what: What) {
        if self.notes.len() == NOTES_MAX {
            self.notes.remove(0);
        }
        let after = self.messages.last().map(|message| message.id.clone());
        self.notes.push(Note { after, what });
    }

    /// What this node wrote, the newest first, as it would be typed.
    pub(super) fn own_texts(&self) -> Vec<String> {
        let own = self.messages.iter().rev().filter(|message| message.own && !message.deleted);
        let mut texts: Vec<String> = own.filter_map(typed).collect();
        texts.dedup();
        texts
    }
}

/// Late for a person: what we wrote ourselves is no surprise.
fn is_late(message: &Message) -> bool {
    message.late && !message.own
}

/// What to type for this message to be sent again.
fn typed(message: &Message) -> Option<String> {
    match message.kind {
        Kind::Text => Some(as_typed(&message.text, false)),
        Kind::Action => Some(as_typed(&message.text, true)),
        Kind::Notice => None,
    }
}

/// The line that is read as this text.
pub(super) fn as_typed(text: &str, action: bool) -> String {
    match (action, text.starts_with('/')) {
        (true, _) => format!("/me {text}"),
        (false, true) => format!("/{text}"),
        (false, false) => text.to_owned(),
    }
}
