//! Shared documents: Automerge replicas whose rights hold, kept equal between nodes.
//!
//! # What it does
//!
//! Holds documents, lets local callers edit and read them, and keeps them equal with the replicas of other
//! members. An edit is acknowledged when it is on disk, and sent only then. The text model, the merge and the
//! file format are Automerge's (the `automerge` crate); rights, synchronisation and storage are here.
//!
//! # Rights
//!
//! A document has an owner's key, of which its id is the hash, and a read secret. Signed operations grant and
//! remove roles ([`Role`]); who is a member follows from the set of operations alone ([`Members`]). Writers
//! vouch for changes: one signature on an actor's newest change covers the chain before it, and all that the
//! chain builds on. **A document holds exactly the ancestors of the changes that its writers vouch for.** A
//! removal names the last changes of the removed that stay, so every replica cuts at the same place, also one
//! that joins later. Making a writer a reader is a removal that leaves it a role, in one signed operation. A grant
//! takes nothing away: of several the highest role holds, until an operation of a later epoch takes it.
//!
//! A ticket's limits hold against whoever has it: a redemption of one that expires or is counted is worth
//! nothing until a member, whose role is no lower than the ticket's, signs that it came in time. That word
//! ends with the role of who gave it; whoever takes the role away signs for those who are to stay.
//!
//! What it guarantees: an honest replica gives nothing to who is no member, and never holds a change that no
//! writer vouches for, whoever relays it. What it does not: a reader can pass on what it reads, a writer can
//! vouch for another's change and let in by an old ticket, and what was read before a removal stays read.
//!
//! **Two stories.** Automerge holds one change for each number of an actor. A writer that signs two can tell each
//! to another replica, and honest writers build on either. First come stays, until an admin's node has seen both: it
//! signs by itself which one stays (`Act::Settle`), the one that the actor's author vouches for where that
//! is one of them, else the one that it has. Every replica then cuts the other with all that builds on it, and
//! whoever wrote on it vouches anew for what remains of its own; so all end equal. Of two such words about one place
//! the one with the lower epoch, then hash, holds. No rule without an admin's word was taken: one that cuts both
//! stories, or prefers one by hash or by what was built on it, lets a writer sign a second beginning years later
//! and so take everything from everybody. The price: what honest writers wrote on the story that gives way is cut
//! (their text is not merged back), replicas that no admin's node has heard of stay apart, visibly: each counts heads
//! that it does not know; beyond 256 settled places an admin has to remove the writer; and an admin that lies can so
//! cut what anybody wrote. Who told both itself is sent away; who passes one on is not.
//!
//! # Between replicas
//!
//! 1. `Hello` names a tag derived from the read secret and a nonce; never the id. Of two members the one with the
//!    lower id says it, and about a few documents at a time.
//! 2. `Challenge` proves the secret. It is sent for every tag, known or not, so an outsider learns nothing.
//! 3. `Prove` proves the secret in return, and with a ticket redeems it.
//! 4. Both sides say a `Summary`: a fingerprint of the operations and the heads. Equal summaries are the end; no
//!    document is loaded for them. Where the operations differ, or one side does not know yet whom it may tell, each
//!    first gets those that it lacks.
//! 5. `Want` names heads and a clock; the answer is one transfer in parts, pulled part by part.
//! 6. An edit is pushed to every session once it is on disk, and passed on by who learned something from it.
//!    What a push misses, the next `Summary` shows: every message may be lost, doubled or late. Edits that are
//!    made while the disk writes go as one; those that come while a machine is busy are applied as one
//!    ([`Input::ReceivedTogether`]).
//!
//! 7. `Ephemeral` carries what programs say in passing to all who have the document open. It is passed on once
//!    by every member, told apart by session and count, and never stored.
//!
//! # Programs on this machine
//!
//! They speak automerge's sync protocol ([`Input::Sync`], framed by [`repo`]). What one brings counts as this
//! node's own change: bounded, applied to a copy, vouched for, written, and only then answered. A node that is
//! a reader says so and takes nothing. A document that a program made is adopted under its id, with an owner's
//! key made here.
//!
//! # Feeds
//!
//! Beside the document each writer has a feed: a chain of signed entries ([`wattle_types::Post`]) that only grows. An
//! entry is appended without loading the document, is on disk before it is acknowledged or sent, and its time is
//! behind all that its author had seen, so the order of times is an order of causes everywhere ([`FeedLog::page`]).
//! An author gives its entries to all who are here. Who got one from it says how far the feed is there, and what one
//! lacks it asks for, the newest first, and of many feeds the end of each before the rest of any. Two entries for one
//! place prove a fork: the feed ends before them on every replica, both are kept, and the author goes on in its next. A
//! removal names where the removed author's feeds end. Of a feed with gaps what is whole from the beginning stays, and
//! the newest pieces behind it, whatever came first.
//!
//! # Invariants
//!
//! * **D1** An acknowledged edit was on disk first; so was everything sent.
//! * **D2** Every head of a document is vouched for by a writer, or by the removal of one.
//! * **D3** A frame about a document leaves only to a peer that proved the read secret, and data only to one
//!   that is a member. Whether a document is here shows in nothing: neither in what is answered nor in who is
//!   sent away.
//! * **D4** A snapshot replaces changes only after it was read back with equal heads.
//! * **D5** A change is taken only on a copy that gives it back as it came, and that can be read back once it is
//!   saved. Bytes of who has no session, or that no writer vouches for, never reach Automerge.
//!
//! # Bounds
//!
//! A frame has at most [`FRAME_BYTES_MAX`], a transfer [`PAYLOAD_BYTES_MAX`]; changes that are more are sent as the
//! whole document, which packs them some tenfold, and one that is larger itself is not given. A change has
//! [`chunk::CHANGE_ROWS_MAX`] operations, and an edit here that would make a larger one is refused; a long one comes in
//! [`Steps`]. A document of more than [`chunk::DOCUMENT_ROWS_MAX`] is written and sent as its changes, which are
//! applied in slices: the memory is that of a slice, 120 MB, beside the document itself. A document has
//! [`OPERATIONS_MAX`] operations, a quarter of them kept free for admins, 512 by one ticket; one transfer each
//! way per session; [`WAITING_MAX`] requests wait for a document that is being loaded. Presence has at most
//! [`PRESENCE_BYTES_MAX`] and [`PRESENCE_PER_SECOND`]. An open document is put away when nobody used it for a
//! minute, or for a second where memory is short ([`Input::Shed`]); those in use stay. Of small ones few are kept
//! open, those that were used last: to read one again takes less than a millisecond. A document that is not
//! here costs nothing, however often it is asked for. To read a text of ten megabytes takes Automerge seconds: what
//! such a document shows at first is kept beside it once it rests ([`Show`]), and told without reading it
//! ([`Input::Show`]).
//!
//! # Not here
//!
//! What is inside a document (the apps), sockets and files, who is where (net), encryption at rest.

mod access;
pub mod chunk;
mod document;
mod feed;
mod message;
mod page;
mod payload;
mod replica;
pub mod repo;
mod row;
mod session;
mod shown;

pub use access::{Members, OPERATIONS_MAX, Refusal, Role};
pub use document::{Authors, Conversation, Edit, GAP_BYTES_MAX, Read, Steps};
pub use message::{FRAME_BYTES_MAX, PRESENCE_BYTES_MAX, SIGNAL_BYTES_MAX};
pub use page::FeedLog;
pub use payload::PAYLOAD_BYTES_MAX;
pub use replica::{
    Config, Corrupt, DocError, DocStatus, Event, FetchId, Input, Outcome, Output, PRESENCE_PER_SECOND,
    PeerStatus, PersistId, Presence, Replica, RequestId, Shard, Show, WAITING_MAX,
};
pub use row::Label;
