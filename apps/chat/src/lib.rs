//! Chat: rooms with history.
//!
//! # What it does
//!
//! A room is a shared document with feeds. The document holds what is mutable, its name, its topic and what
//! its members call themselves; each message is an entry of its author's feed, signed and chained. So nobody
//! speaks for another, both sides of a partition talk on, and what was said comes together in one order.
//!
//! # The walk of a message
//!
//! 1. [`Ask::Say`] is checked and appended to this node's feed of the room ([`Said`]).
//! 2. When it is on disk the caller has its id; the documents' lane carries it to the members.
//! 3. There the entry comes as `FeedGrew`, becomes a [`Message`], and goes to whoever watches ([`Happened`]).
//! 4. What a member holds comes back as `Reached`, and the message's [`Mark`] rises.
//!
//! # Order
//!
//! By hybrid time, then by id. A message's time is later than that of everything its author had seen, so an
//! answer stands behind its question whatever the clocks say. One dated more than ten minutes ahead is shown
//! when its time has come.
//!
//! # What a program kept
//!
//! A program that is told something while its node is away keeps it, and says it when the node is back
//! ([`Ask::SayOnce`]). It may not know whether the node had it before it went: so such a message has a number, and
//! is answered with the message that is there when this author's feed has one with that number already. It says
//! when it was written; one that waited long is shown as late.
//!
//! # Edits and deletions
//!
//! They are entries that name another; they hold when the same author wrote both, the newest wins, and the
//! original stays in the history. A page is given only after everything newer was looked through, so what it
//! shows is edited already.
//!
//! # Invariants
//!
//! * **C1** A message is shown under the name of who signed it.
//! * **C2** Every replica with the same entries shows the same messages in the same order.
//!
//! # Bounds
//!
//! A message has [`TEXT_BYTES_MAX`] bytes, a page [`PAGE_MAX`] messages; of each room the edits and the newest
//! own messages are in memory, the numbers of the newest kept ones too; the rest is on disk.
//!
//! # Not here
//!
//! Who may write (the documents' rights), drawing, what was read already (the client knows).

mod ask;
mod chat;
mod room;
mod said;

pub use ask::{
    Answer, Ask, Happened, Kind, Mark, MarkOf, Member, Message, NICK_CHARS_MAX, PAGE_MAX, Room,
    TOPIC_BYTES_MAX,
};
pub use chat::{Chat, ID, KIND};
pub use said::{Kept, KeptId, Said, TEXT_BYTES_MAX, check_name, clean_name};
