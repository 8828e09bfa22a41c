//! Documents about rooms and their messages.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{ErrorDocument, RoomDoneSchema, RoomMessagesSchema, RoomSchema, RoomsSchema, SaidSchema};

/// A new room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomNewRequest {
    /// Its name, with or without `#`.
    pub name: String,
}

/// What to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SayRequest {
    /// The message; absent where one is taken back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Something done, as `/me` says it.
    #[serde(default)]
    pub action: bool,
    /// The own message that gets this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<String>,
    /// The own message that is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<String>,
    /// Say it once, however often it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<SayOnce>,
    /// Answer when so many members hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_acks: Option<u64>,
    /// Answer then at the latest; 30 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What makes a message of a program that is said once, however often it is asked for: one that was kept while
/// the node was away, or whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SayOnce {
    /// A number nobody else draws: 16 hexadecimal digits.
    pub id: String,
    /// When it was written; now, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub written: Option<Timestamp>,
    /// Where it was asked for before: the `hlc` of a message that was in the room before the first attempt, `0` when
    /// none is known. Absent for the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What this node is called in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NickRequest {
    /// The name; empty takes it back.
    pub nick: String,
}

/// What a room is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomTopicRequest {
    /// The topic.
    pub topic: String,
}

/// Who is in a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoomMember {
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What to call them: what they call themselves, else what this node calls them, else their short id.
    pub nick: String,
    /// This node itself.
    pub me: bool,
    /// Connected now.
    pub here: bool,
    /// Holds exactly what this node holds.
    pub in_sync: bool,
    /// `direct quic`, `direct tcp` or `relayed`; absent where there is no connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Round trip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// A room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Room {
    /// Its name, without `#`.
    pub name: String,
    /// Its document, `automerge:` and base58.
    pub id: String,
    /// What it is about.
    pub topic: String,
    /// When it came here.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Whether this node may say something.
    pub may_write: bool,
    /// Who is in it, this node first.
    pub members: Vec<RoomMember>,
    /// Entries here, edits among them.
    pub messages: u64,
    /// Entries that others have and that are not here yet.
    pub messages_missing: u64,
}

/// One room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoomDocument {
    /// `wattle.room/1`.
    pub schema: RoomSchema,
    /// The room.
    pub room: Room,
}

/// The rooms here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoomsDocument {
    /// `wattle.rooms/1`.
    pub schema: RoomsSchema,
    /// By name.
    pub rooms: Vec<Room>,
}

/// Something about a room was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomDoneDocument {
    /// `wattle.room_done/1`.
    pub schema: RoomDoneSchema,
    /// The room's name.
    pub name: String,
    /// Its document.
    pub id: String,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Said.
    Text,
    /// Done, as `/me` says it.
    Action,
    /// Taken back by its author.
    Deleted,
    /// Written by a newer version.
    Unknown,
}

/// How far an own message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageMark {
    /// On this node's disk: `()`.
    Local,
    /// At one member or more: `(*)`.
    Reached,
    /// At every member that is here: `(**)`.
    Everyone,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// The room's name.
    pub room: String,
    /// Its name: 64 hexadecimal digits.
    pub id: String,
    /// Who signed it; the signature was checked.
    #[schema(value_type = String)]
    pub from: NodeId,
    /// What to call them.
    pub nick: String,
    /// By this node.
    pub own: bool,
    /// When it was written, by its author's clock. Of one that was sent at once it is never before what it answers
    /// to.
    #[schema(value_type = String, format = DateTime)]
    pub sent: Timestamp,
    /// Its place in the order: a hybrid time in hexadecimal, then by id.
    pub hlc: String,
    /// What its author had seen.
    pub parents: Vec<String>,
    /// When it came here.
    #[schema(value_type = String, format = DateTime)]
    pub received: Timestamp,
    /// It came long after it was written, although this node was up, or its author's node was away.
    pub late: bool,
    /// Its author signed another one in its place.
    pub forked: bool,
    /// What it is.
    pub kind: MessageKind,
    /// What it says.
    pub text: String,
    /// Its author changed it.
    pub edited: bool,
    /// For own messages: how far it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<MessageMark>,
    /// For own messages: how many members hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acks: Option<u64>,
}

/// Messages of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomMessagesDocument {
    /// `wattle.chat/1`.
    pub schema: RoomMessagesSchema,
    /// The room's name.
    pub room: String,
    /// In order.
    pub messages: Vec<ChatMessage>,
    /// Ask before this for older ones; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// A message is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SaidDocument {
    /// `wattle.chat_send/1`.
    pub schema: SaidSchema,
    /// The room's name.
    pub room: String,
    /// The message.
    pub id: String,
    /// How far it came.
    pub mark: MessageMark,
    /// How many members hold it.
    pub acks: u64,
}

/// How far one message came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MarkRow {
    /// Which.
    pub id: String,
    /// How far.
    pub mark: MessageMark,
    /// How many members hold it.
    pub acks: u64,
}

/// One line of what happens in a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RoomLine {
    /// The room as it is now: the first line, and whenever it changes.
    Room {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The room.
        room: Room,
    },
    /// Somebody said something.
    Message {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// What.
        #[serde(flatten)]
        message: ChatMessage,
    },
    /// A message was changed or taken back: holds where both are of the same author.
    Changed {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which message.
        of: String,
        /// Who.
        #[schema(value_type = String)]
        from: NodeId,
        /// The new text; absent where it was taken back.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Own messages came farther.
    Marks {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which, and how far.
        marks: Vec<MarkRow>,
    },
    /// Somebody is typing.
    Typing {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Who.
        #[schema(value_type = String)]
        from: NodeId,
        /// What to call them.
        nick: String,
    },
    /// An author signed two messages for one place.
    Forked {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Who.
        #[schema(value_type = String)]
        from: NodeId,
        /// What to call them.
        nick: String,
    },
    /// This node left the room.
    Left {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
    },
    /// Lines were lost because the reader was too slow: read the messages anew.
    Gap {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// How many.
        lost: u64,
    },
    /// The stream ended.
    Error {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Why.
        error: ErrorDocument,
    },
}
