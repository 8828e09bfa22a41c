//! What people ask of chat, and what they are told.

use serde::{Deserialize, Serialize};
use wattle_types::{DocId, Hlc, NodeId, PostId, PostLink, UnixTime};

use crate::said::{Kept, Said};

/// Messages in one answer.
pub const PAGE_MAX: usize = 500;

/// Characters of what somebody calls themselves.
pub const NICK_CHARS_MAX: usize = 32;

/// Bytes of a room's topic.
pub const TOPIC_BYTES_MAX: usize = 1024;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Which rooms are here.
    Rooms,
    /// Make a room.
    New {
        /// Its name.
        name: String,
    },
    /// One room, by its name or id.
    Room {
        /// Which.
        room: String,
    },
    /// The newest messages before one.
    Messages {
        /// In which room.
        room: String,
        /// Before which; none for the newest of all.
        before: Option<PostLink>,
        /// How many, at most [`PAGE_MAX`].
        limit: usize,
    },
    /// Say something.
    Say {
        /// In which room.
        room: String,
        /// What.
        said: Said,
    },
    /// Say what a program kept: once, however often it is asked for.
    SayOnce {
        /// In which room.
        room: String,
        /// What.
        kept: Kept,
        /// Where it was tried before: a place in the room that it would stand behind. None for what was not tried.
        after: Option<Hlc>,
    },
    /// What this node is called in a room.
    Nick {
        /// In which room.
        room: String,
        /// The name; empty takes it back.
        nick: String,
    },
    /// What a room is about.
    Topic {
        /// Which room.
        room: String,
        /// What it is about.
        topic: String,
    },
    /// Tell the others that somebody is typing.
    Typing {
        /// In which room.
        room: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The rooms here, by name.
    Rooms(Vec<Room>),
    /// One room.
    Room(Room),
    /// Messages, in order.
    Messages {
        /// Which.
        messages: Vec<Message>,
        /// The place to ask before for older ones; none where there are none.
        before: Option<PostLink>,
    },
    /// A message is on disk.
    Said {
        /// Its id.
        id: PostId,
    },
    /// Done.
    Done,
}

/// A room at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its document.
    pub doc: DocId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub topic: String,
    /// When it came here.
    pub since: UnixTime,
    /// Whether this node may say something.
    pub may_write: bool,
    /// Who is in it, this node first.
    pub members: Vec<Member>,
    /// Entries here, edits among them.
    pub posts: u64,
    /// Entries that others have and that are not here yet.
    pub posts_missing: u64,
}

/// Who is in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// What they call themselves here; empty where they said nothing.
    pub nick: String,
    /// Whether they are connected.
    pub here: bool,
    /// Whether they hold exactly what this node holds.
    pub in_sync: bool,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Said.
    Text,
    /// Done.
    Action,
    /// Taken back by its author.
    Deleted,
    /// Of a newer version.
    Unknown,
}

/// How far a message of this node came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mark {
    /// On this node's disk.
    Local,
    /// At one member or more.
    Reached,
    /// At every member that is connected.
    Everyone,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its name.
    pub id: PostId,
    /// In which room.
    pub room: DocId,
    /// Who signed it.
    pub from: NodeId,
    /// What they call themselves; empty where they said nothing.
    pub nick: String,
    /// When, by its author's hybrid clock.
    pub at: Hlc,
    /// When it was written, by its author's word: earlier, where a program kept it until the node had it.
    pub written: UnixTime,
    /// What its author had seen and answers to.
    pub parents: Vec<PostId>,
    /// When it came here.
    pub received: UnixTime,
    /// It came long after it was written, although this node was up, or its author's node was away.
    pub late: bool,
    /// Its author signed another in the same place.
    pub forked: bool,
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub text: String,
    /// Its author changed it.
    pub edited: bool,
    /// For own messages: how far it came.
    pub mark: Option<Mark>,
    /// For own messages: how many members hold it.
    pub acks: u64,
}

impl Message {
    /// Its place in the order.
    #[must_use]
    pub const fn link(&self) -> PostLink {
        PostLink { at: self.at, id: self.id }
    }
}

/// How far one message came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkOf {
    /// Which.
    pub id: PostId,
    /// How far.
    pub mark: Mark,
    /// How many members hold it.
    pub acks: u64,
}

/// What whoever watches is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// Somebody said something.
    Said(Message),
    /// An author changed or took back a message; who shows it checks that it is of the same author.
    Changed {
        /// In which room.
        room: DocId,
        /// Which message.
        of: PostId,
        /// Who.
        from: NodeId,
        /// The new text; none where it was taken back.
        text: Option<String>,
    },
    /// Own messages came farther.
    Marks {
        /// In which room.
        room: DocId,
        /// Which, and how far.
        marks: Vec<MarkOf>,
    },
    /// Somebody is typing.
    Typing {
        /// In which room.
        room: DocId,
        /// Who.
        from: NodeId,
    },
    /// A room came, or something about it changed.
    Room(Room),
    /// A room is gone from here.
    Left {
        /// Which.
        room: DocId,
    },
    /// An author signed two messages for one place.
    Forked {
        /// In which room.
        room: DocId,
        /// Who.
        from: NodeId,
    },
}
