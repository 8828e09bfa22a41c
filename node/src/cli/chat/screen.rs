//! The state of the chat: a pure function of what happened.
//!
//! `on` takes one event and gives what must be done; `draw` shows the state. Neither waits, reads a clock
//! or knows the API. What a person typed is given up only when it is on disk, and shown as on its way until the
//! node has it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::editor::Editor;
use super::log::{Log, as_typed};
use super::model::{Action, Batch, Event, Kind, Link, Member, Message, Page, Presence, Room, SendId, Sync};
use super::text::one_line;
use super::view::{At, Look, Pending, View};

/// A message takes so many bytes.
pub(super) use wattle_chat::TEXT_BYTES_MAX;

const ROOMS_MAX: usize = 1000;
const MEMBERS_MAX: usize = 1000;
/// Texts on their way to the node or refused by it; with so many, no more are taken.
pub(super) const OUTGOING_MAX: usize = 256;
const TYPING_MAX: usize = 8;
/// A person is typing until they send, or for so long after the last sign.
const TYPING_LASTS: SignedDuration = SignedDuration::from_secs(6);
/// A short message at the bottom stays so long.
const STATUS_LASTS: SignedDuration = SignedDuration::from_secs(10);

/// What the keys mean now.
#[derive(Debug, Default)]
pub(super) enum Mode {
    /// They write a message.
    #[default]
    Write,
    /// They answer a question.
    Ask(Question),
    /// They look for a message.
    Search { query: Editor, selected: usize },
}

/// A question that y or n answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Send what was pasted?
    Paste(String),
    /// Leave the room with this id?
    Leave(String),
}

/// A short message at the bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) text: String,
    pub(super) bad: bool,
    pub(super) until: Timestamp,
}

/// A text on its way.
#[derive(Clone, Debug)]
struct Outgoing {
    id: SendId,
    room: String,
    /// It is on disk.
    kept: bool,
    pending: Pending,
}

impl Outgoing {
    const fn waits(&self) -> bool {
        self.kept && self.pending.failed.is_none()
    }
}

/// A page that is open, and its first row that is shown.
#[derive(Clone, Debug)]
pub(super) struct OpenPage {
    pub(super) page: Page,
    pub(super) top: usize,
}

/// The place in the log that is looked at: the message at the bottom and a row of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    /// `None` is what stands below the last message.
    id: Option<String>,
    row: usize,
}

/// Everything the chat shows.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) look: Look,
    pub(super) now: Timestamp,
    pub(super) size: (u16, u16),
    pub(super) link: Link,
    pub(super) rooms: Vec<Room>,
    pub(super) open: Option<String>,
    pub(super) log: Log,
    pub(super) members: Vec<Member>,
    pub(super) mode: Mode,
    pub(super) page: Option<OpenPage>,
    pub(super) status: Option<Status>,
    pub(super) editor: Editor,
    pub(super) anchor: Option<Anchor>,
    pub(super) found: Option<String>,
    /// Who types, until when.
    pub(super) typing: BTreeMap<String, Timestamp>,
    /// How far up in our own texts the editor is, and what stood in it before.
    pub(super) recalled: Option<(usize, String)>,
    /// What was typed in rooms that are not open.
    drafts: BTreeMap<String, String>,
    /// How many messages a room had when it was looked at last.
    seen: BTreeMap<String, u64>,
    /// A text that was refused and stands in the editor again.
    returned: Option<String>,
    outgoing: Vec<Outgoing>,
    sends: u64,
    pub(super) typing_told: Option<Timestamp>,
}

impl Screen {
    pub(super) fn new(look: Look, now: Timestamp, size: (u16, u16)) -> Self {
        Self {
            look,
            now,
            size,
            link: Link::Up,
            rooms: Vec::new(),
            open: None,
            log: Log::default(),
            members: Vec::new(),
            mode: Mode::default(),
            page: None,
            status: None,
            editor: Editor::default(),
            anchor: None,
            found: None,
            typing: BTreeMap::new(),
            recalled: None,
            drafts: BTreeMap::new(),
            seen: BTreeMap::new(),
            returned: None,
            outgoing: Vec::new(),
            sends: 0,
            typing_told: None,
        }
    }

    /// Takes in what happened; gives what must be done.
    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Key(key) => return self.on_key(key),
            Event::Paste(text) => return self.on_paste(&text),
            Event::Open(room) => return self.open_room(room),
            Event::Rooms(rooms) => return self.on_rooms(rooms),
            Event::Joined(room, rooms) => {
                let mut actions = self.on_rooms(rooms);
                actions.extend(self.open_room(room));
                return actions;
            }
            Event::Batch(batch) => return self.on_batch(batch),
            Event::Resize(width, height) => self.size = (width, height),
            Event::Tick(now) => self.on_tick(now),
            Event::Link(link) => {
                if link == Link::Up {
                    // What was said of its absence holds no longer.
                    self.status = None;
                }
                self.link = link;
            }
            Event::Message(room, message) => self.on_message(&room, *message),
            Event::Mark(room, id, mark) => {
                if self.is_open(&room) {
                    self.log.mark(&id, mark);
                }
            }
            Event::Changed { room, id, author, text } => {
                if self.is_open(&room) {
                    self.log.change(&id, &author, text);
                }
            }
            Event::Forked(room, author) => {
                if self.is_open(&room) {
                    self.log.flag(&author);
                }
            }
            Event::Typing(room, nick) => {
                if self.is_open(&room) && (self.typing.len() < TYPING_MAX || self.typing.contains_key(&nick))
                {
                    self.typing.insert(nick, self.now + TYPING_LASTS);
                }
            }
            Event::Members(room, members) => {
                if self.is_open(&room) {
                    self.on_members(members);
                }
            }
            Event::Sync(room, sync) => self.on_sync(&room, sync),
            Event::Waiting { id, room, text, action, written } => {
                let pending = Pending { text, action, written, failed: None };
                self.outgoing.push(Outgoing { id, room, kept: true, pending });
            }
            Event::Kept(id) => self.on_kept(id),
            Event::Sent(id) => self.outgoing.retain(|outgoing| outgoing.id != id),
            Event::NotSent(id, why) => self.on_not_sent(id, &why),
            Event::Done(text) => self.tell(text),
            Event::Failed(text) => self.warn(text),
            Event::Page(page) => self.page = Some(OpenPage { page, top: 0 }),
        }
        Vec::new()
    }

    /// Whether something that was sent will be answered for in a moment: by the disk, or by a node that is there.
    pub(super) fn is_sending(&self) -> bool {
        let up = self.link == Link::Up;
        self.outgoing.iter().any(|outgoing| outgoing.pending.failed.is_none() && (up || !outgoing.kept))
    }

    /// What is on disk and waits for the node: how many texts for which room.
    pub(super) fn waiting(&self) -> BTreeMap<String, usize> {
        let mut rooms = BTreeMap::new();
        for outgoing in self.outgoing.iter().filter(|outgoing| outgoing.waits()) {
            *rooms.entry(self.name_of(&outgoing.room)).or_default() += 1;
        }
        rooms
    }

    /// What was typed and is neither at the node nor on disk: shown when the chat ends, so that it is not lost.
    pub(super) fn unsent(&self) -> Vec<(String, String)> {
        let mut texts: Vec<(String, String)> = Vec::new();
        for outgoing in self.outgoing.iter().filter(|outgoing| !outgoing.waits()) {
            let text = as_typed(&outgoing.pending.text, outgoing.pending.action);
            texts.push((self.name_of(&outgoing.room), text));
        }
        for (room, draft) in &self.drafts {
            texts.push((self.name_of(room), draft.clone()));
        }
        if !self.editor.text().trim().is_empty() {
            let room = self.open.as_deref().map(|room| self.name_of(room));
            texts.push((room.unwrap_or_default(), self.editor.text().to_owned()));
        }
        if let Mode::Ask(Question::Paste(text)) = &self.mode {
            let room = self.open.as_deref().map(|room| self.name_of(room));
            texts.push((room.unwrap_or_default(), text.clone()));
        }
        texts
    }

    pub(super) fn room(&self) -> Option<&Room> {
        let open = self.open.as_deref()?;
        self.rooms.iter().find(|room| room.id == open)
    }

    pub(super) fn name_of(&self, room: &str) -> String {
        let found = self.rooms.iter().find(|other| other.id == room);
        found.map_or_else(|| one_line(room), |room| one_line(&room.name))
    }

    pub(super) fn is_open(&self, room: &str) -> bool {
        self.open.as_deref() == Some(room)
    }

    /// Says something at the bottom for a while.
    pub(super) fn tell(&mut self, text: impl Into<String>) {
        self.status = Some(Status { text: text.into(), bad: false, until: self.now + STATUS_LASTS });
    }

    /// The same, for what went wrong.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.status = Some(Status { text: text.into(), bad: true, until: self.now + STATUS_LASTS });
    }

    /// Opens another room: what was typed stays with the one that was open.
    pub(super) fn open_room(&mut self, room: String) -> Vec<Action> {
        if self.is_open(&room) {
            return Vec::new();
        }
        let text = self.editor.take();
        if let Some(before) = self.open.replace(room.clone())
            && !text.trim().is_empty()
        {
            self.drafts.insert(before, text);
        }
        if let Some(room) = self.rooms.iter_mut().find(|other| other.id == room) {
            self.seen.insert(room.id.clone(), room.sync.have);
            room.unread = 0;
        }
        let draft = self.drafts.remove(&room).unwrap_or_default();
        self.editor.set(&draft);
        self.log = Log::default();
        self.log.loading = true;
        self.members.clear();
        self.typing.clear();
        (self.anchor, self.found, self.recalled, self.page) = (None, None, None, None);
        self.returned = None;
        self.mode = Mode::Write;
        vec![Action::OpenRoom(room)]
    }

    /// Sends a text, or keeps it until the node is there; `None` when it cannot be taken now and must stay where it is.
    pub(super) fn send(&mut self, text: &str, action: bool) -> Option<Action> {
        let Some(room) = self.open.clone() else {
            self.warn("no room is open: /join TICKET enters one");
            return None;
        };
        if text.len() > TEXT_BYTES_MAX {
            self.warn(too_long("the text", text.len()));
            return None;
        }
        if self.outgoing.len() >= OUTGOING_MAX {
            self.warn(format!("not sent: the node has not taken the last {OUTGOING_MAX} texts yet"));
            return None;
        }
        let id = SendId(self.sends);
        self.sends += 1;
        let pending = Pending { text: text.to_owned(), action, written: self.now, failed: None };
        self.outgoing.push(Outgoing { id, room: room.clone(), kept: false, pending });
        (self.anchor, self.typing_told, self.status) = (None, None, None);
        let after = self.log.messages().last().map_or(0, |message| message.place.0);
        Some(Action::Send { id, room, text: text.to_owned(), action, after })
    }

    /// The oldest text that was refused, taken back.
    pub(super) fn take_refused(&mut self) -> Option<String> {
        let refused = self.outgoing.iter().position(|outgoing| {
            outgoing.pending.failed.is_some() && self.open.as_deref() == Some(outgoing.room.as_str())
        })?;
        let pending = self.outgoing.remove(refused).pending;
        Some(as_typed(&pending.text, pending.action))
    }

    fn on_tick(&mut self, now: Timestamp) {
        self.now = now;
        self.typing.retain(|_, until| *until > now);
        if self.status.as_ref().is_some_and(|status| status.until <= now) {
            self.status = None;
        }
    }

    fn on_rooms(&mut self, mut rooms: Vec<Room>) -> Vec<Action> {
        rooms.truncate(ROOMS_MAX);
        for room in &mut rooms {
            let have = room.sync.have;
            let seen = self.seen.entry(room.id.clone()).or_insert(have);
            if self.open.as_ref() == Some(&room.id) {
                *seen = have;
            }
            room.unread = have.saturating_sub(*seen);
        }
        self.seen.retain(|id, _| rooms.iter().any(|room| room.id == *id));
        self.rooms = rooms;
        let gone = self.open.as_ref().is_some_and(|open| !self.rooms.iter().any(|room| room.id == *open));
        if gone && let Some(next) = self.rooms.first().map(|room| room.id.clone()) {
            return self.open_room(next);
        }
        if gone {
            self.open = None;
            self.log = Log::default();
            self.members.clear();
        }
        Vec::new()
    }

    fn on_message(&mut self, room: &str, message: Message) {
        if !self.is_open(room) {
            return;
        }
        self.typing.remove(&message.nick);
        if message.own {
            self.forget_refused(&message);
        }
        self.log.arrive(message);
    }

    /// A text that seemed lost had reached the node after all.
    fn forget_refused(&mut self, message: &Message) {
        if self.log.index_of(&message.id).is_some() {
            return;
        }
        let action = message.kind == Kind::Action;
        if self.returned.as_deref() == Some(self.editor.text())
            && as_typed(&message.text, action) == self.editor.text()
        {
            self.editor.take();
            self.returned = None;
            self.tell("the text that seemed lost was sent after all");
            return;
        }
        let same = self.outgoing.iter().position(|outgoing| {
            let pending = &outgoing.pending;
            pending.failed.is_some() && pending.text == message.text && pending.action == action
        });
        if let Some(same) = same {
            self.outgoing.remove(same);
        }
    }

    fn on_batch(&mut self, batch: Batch) -> Vec<Action> {
        if !self.is_open(&batch.room) {
            return Vec::new();
        }
        for message in batch.messages.iter().filter(|message| message.own) {
            self.forget_refused(message);
        }
        self.log.load(batch);
        // A search looks through everything the node has, page by page.
        if matches!(self.mode, Mode::Search { .. }) {
            self.load_older().into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// The node says who is here; since when somebody is not, is what was seen of it.
    fn on_members(&mut self, mut members: Vec<Member>) {
        members.truncate(MEMBERS_MAX);
        for member in members.iter_mut().filter(|member| member.presence == Presence::Offline(None)) {
            let before = self.members.iter().find(|other| other.id == member.id);
            member.presence = match before.map(|before| &before.presence) {
                Some(Presence::Offline(since)) => Presence::Offline(*since),
                Some(Presence::Here | Presence::Behind) => Presence::Offline(Some(self.now)),
                None => Presence::Offline(None),
            };
        }
        members.sort_by(|a, b| (!a.own, &a.presence, &a.nick).cmp(&(!b.own, &b.presence, &b.nick)));
        self.members = members;
    }

    fn on_sync(&mut self, room: &str, sync: Sync) {
        if let Some(room) = self.rooms.iter_mut().find(|other| other.id == room) {
            room.sync = sync;
            room.here = sync.peers + 1;
        }
    }

    fn on_kept(&mut self, id: SendId) {
        if let Some(outgoing) = self.outgoing.iter_mut().find(|outgoing| outgoing.id == id) {
            outgoing.kept = true;
        }
    }

    fn on_not_sent(&mut self, id: SendId, why: &str) {
        let Some(index) = self.outgoing.iter().position(|outgoing| outgoing.id == id) else { return };
        let why = one_line(why);
        if self.is_open(&self.outgoing[index].room) && self.editor.is_empty() {
            let pending = self.outgoing.remove(index).pending;
            let text = as_typed(&pending.text, pending.action);
            self.editor.set(&text);
            self.returned = Some(text);
            self.warn(format!("not sent: {why}; your text is back in the line"));
        } else {
            self.outgoing[index].pending.failed = Some(why.clone());
            self.warn(format!("not sent: {why}"));
        }
    }
}

/// Looking at the log.
impl Screen {
    pub(super) fn pending(&self) -> Vec<Pending> {
        let here = self.outgoing.iter().filter(|outgoing| self.is_open(&outgoing.room));
        here.map(|outgoing| outgoing.pending.clone()).collect()
    }

    pub(super) fn view<'a>(&'a self, pending: &'a [Pending], width: usize) -> View<'a> {
        let found = self.found.as_deref();
        View { log: &self.log, pending, look: &self.look, now: self.now, width, found }
    }

    /// Where the bottom of the window stands; `None` follows the newest.
    pub(super) fn at(&self) -> Option<At> {
        let anchor = self.anchor.as_ref()?;
        let block = match &anchor.id {
            Some(id) => self.log.index_of(id)?,
            None => self.log.messages().len(),
        };
        Some(At { block, row: anchor.row })
    }

    pub(super) fn anchor_of(&self, at: Option<At>) -> Option<Anchor> {
        let At { block, row } = at?;
        Some(Anchor { id: self.log.messages().get(block).map(|message| message.id.clone()), row })
    }

    /// Asks for what is older than everything that is loaded.
    pub(super) fn load_older(&mut self) -> Option<Action> {
        if self.log.complete || self.log.loading {
            return None;
        }
        if self.log.messages().len() >= super::log::MESSAGES_MAX {
            self.tell("the newest 5000 messages are loaded; /export writes all of them");
            return None;
        }
        let before = self.log.before.clone()?;
        self.log.loading = true;
        Some(Action::LoadOlder { room: self.open.clone()?, before })
    }

    /// Messages that hold the words searched for, the newest first.
    pub(super) fn hits(&self, query: &str) -> Vec<&Message> {
        let query = query.trim().to_lowercase();
        if query.is_empty() {
            return Vec::new();
        }
        let messages = self.log.messages().iter().rev().filter(|message| !message.deleted);
        messages
            .filter(|message| {
                message.text.to_lowercase().contains(&query) || message.nick.to_lowercase().contains(&query)
            })
            .take(super::log::MESSAGES_MAX)
            .collect()
    }
}

/// `the paste has 1.2M, and a message takes 16k`.
pub(super) fn too_long(what: &str, bytes: usize) -> String {
    use super::text::size;
    format!("{what} has {}B, and a message takes {}B at most", size(bytes), size(TEXT_BYTES_MAX))
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
