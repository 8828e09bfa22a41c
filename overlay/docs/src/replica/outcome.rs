//! What a request came to.

use wattle_types::{DocAccess, DocId, PostId};

use crate::document::Conversation;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A document was made or joined.
    Opened {
        /// Which.
        doc: DocId,
    },
    /// An edit is on disk.
    Edited {
        /// The heads before it.
        before: Vec<[u8; 32]>,
        /// The heads after it.
        after: Vec<[u8; 32]>,
    },
    /// An entry is on disk.
    Appended {
        /// Its name.
        post: PostId,
    },
    /// What was asked for.
    Read(Vec<u8>),
    /// What a program said is on disk, and this is to be said next.
    Synced {
        /// How far the conversation has come; none when the document is not here, and nothing is kept.
        conversation: Option<Box<Conversation>>,
        /// The next message, if there is anything to say.
        message: Option<Vec<u8>>,
    },
    /// A ticket's content.
    Invited {
        /// What leads to the document.
        access: DocAccess,
        /// The key of the ticket.
        bearer: [u8; 16],
    },
    /// Done, and on disk.
    Done,
}

/// Why a request was not done. Unless said otherwise nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocError {
    /// The caller's fault: no such document here.
    #[error("no document {0} here")]
    Unknown(DocId),
    /// The caller's fault: its role does not allow it.
    #[error("this needs the role of {needed}, and this node is {held}")]
    NotAllowed {
        /// What it takes.
        needed: &'static str,
        /// What there is.
        held: &'static str,
    },
    /// The caller's fault: the edit says why.
    #[error("{0}")]
    Refused(String),
    /// Nobody's fault yet: the document has not arrived from any peer.
    #[error("the document has not arrived yet")]
    NotHere,
    /// Too many wait for the document. To do: try again.
    #[error("too many requests wait for the document")]
    Busy,
    /// The disk's fault: what was asked is not saved and was taken back.
    #[error("not saved: {0}")]
    NotSaved(String),
    /// The disk's fault: what is stored of the document cannot be read.
    #[error("what is stored of the document is damaged: {0}")]
    Damaged(String),
}

/// Stored rows that do not fit together. To do: restore the data directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index of documents is damaged: {0}")]
pub struct Corrupt(pub String);
