//! What the chat screen is told, and what it asks for. Nothing here knows the API or the terminal.

use crossterm::event::KeyEvent;
use jiff::Timestamp;

/// A room in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) id: String,
    /// Without `#`.
    pub(super) name: String,
    pub(super) topic: Option<String>,
    /// Messages that came while another room was open; counted by the screen.
    pub(super) unread: u64,
    /// Members who are online, this node too.
    pub(super) here: u64,
    pub(super) members: u64,
    pub(super) sync: Sync,
}

/// How much of a room this node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sync {
    /// Messages that are stored here.
    pub(super) have: u64,
    /// Messages that somebody online is known to have.
    pub(super) known: u64,
    /// Online members with whom nothing is missing.
    pub(super) with: u64,
    /// Online members beside this node.
    pub(super) peers: u64,
}

impl Sync {
    /// Whether something is known to be missing here.
    pub(super) const fn is_behind(self) -> bool {
        self.have < self.known
    }
}

/// Where a message stands among the others: every member sorts by the same value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) u64, pub(super) String);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// `/me waves`.
    Action,
    /// Not written by a person, or by a newer version of this program.
    Notice,
}

/// How far a message of ours got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// Only here.
    Local,
    /// At least one other member has it.
    Reached,
    /// Every member who is online has it.
    Everyone,
}

impl Mark {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Local => "()",
            Self::Reached => "(*)",
            Self::Everyone => "(**)",
        }
    }
}

/// One message of the open room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) place: Place,
    /// The author's id as text.
    pub(super) author: String,
    pub(super) nick: String,
    /// Written at this node.
    pub(super) own: bool,
    pub(super) sent: Timestamp,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) edited: bool,
    pub(super) deleted: bool,
    pub(super) mark: Mark,
    /// It arrived long after it was written.
    pub(super) late: bool,
    /// Its author signed two histories.
    pub(super) flagged: bool,
}

/// Whether a member is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Presence {
    Here,
    /// Here, and not yet with everything that we have, or we with all of theirs.
    Behind,
    /// Offline; since when, where that was seen.
    Offline(Option<Timestamp>),
}

/// Somebody who may write in the open room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) nick: String,
    pub(super) own: bool,
    pub(super) presence: Presence,
    /// How we reach them, in words: `1 ms`, `38 ms relay`.
    pub(super) path: Option<String>,
}

/// A text on its way to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SendId(pub(super) u64);

/// Some messages of a room, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) room: String,
    pub(super) messages: Vec<Message>,
    /// What to ask for older ones; `None` where there are none.
    pub(super) before: Option<String>,
    /// They follow a gap or a new connection: what is shown and not among them stays, if it is older.
    pub(super) newest: bool,
}

/// Whether the node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// It went away, and why we think so.
    Down(String),
}

/// Something happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Key(KeyEvent),
    Paste(String),
    Resize(u16, u16),
    /// The time, about once a second.
    Tick(Timestamp),
    Link(Link),
    Rooms(Vec<Room>),
    /// Look at this room now.
    Open(String),
    /// This room came by a ticket; all rooms, with it.
    Joined(String, Vec<Room>),
    Batch(Batch),
    /// One message as it came, or an older one that changed.
    Message(String, Box<Message>),
    Mark(String, String, Mark),
    /// A message of this author got another text, or was taken back.
    Changed {
        room: String,
        id: String,
        author: String,
        text: Option<String>,
    },
    /// This author signed two histories.
    Forked(String, String),
    Typing(String, String),
    Members(String, Vec<Member>),
    Sync(String, Sync),
    /// A text of an earlier chat that the node does not have yet.
    Waiting {
        id: SendId,
        room: String,
        text: String,
        action: bool,
        written: Timestamp,
    },
    /// A text is on disk: it goes as soon as the node takes it.
    Kept(SendId),
    Sent(SendId),
    NotSent(SendId, String),
    /// What a command did, in one line.
    Done(String),
    /// What a command could not do.
    Failed(String),
    /// What a command found, to be read in peace.
    Page(Page),
}

/// A text over the messages, closed by Esc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// Something must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Send {
        id: SendId,
        room: String,
        text: String,
        action: bool,
        /// The place of the newest message here: 0 where none is known.
        after: u64,
    },
    Nick {
        room: String,
        nick: String,
    },
    JoinTicket(String),
    Invite(String),
    LeaveRoom(String),
    Topic {
        room: String,
        topic: String,
    },
    OpenRoom(String),
    LoadOlder {
        room: String,
        before: String,
    },
    Export {
        room: String,
        file: Option<String>,
    },
    Typing(String),
    /// Draw everything anew: something else wrote to the terminal.
    Redraw,
    Quit,
}
