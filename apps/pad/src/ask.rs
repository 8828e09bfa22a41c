//! What people ask of pad, and what they are told.

use serde::{Deserialize, Serialize};
use wattle_app::CallError;
use wattle_types::DocId;

use crate::{FileFormat, HistoryStep, PadError, PatchLine};

/// The hash of a change.
pub type Hash = [u8; 32];

/// A question. Versions are as people type them: changes in hexadecimal, or beginnings of them, with commas between;
/// empty is the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Make a document of a text.
    New {
        /// What people shall call it.
        title: String,
        /// The text.
        #[serde(with = "serde_bytes")]
        text: Vec<u8>,
    },
    /// Make a document of a file: Automerge with its history, JSON, or text.
    Import {
        /// What the file is called.
        name: String,
        /// What people shall call the document; without, what the file itself says, or else its name.
        title: Option<String>,
        /// The file.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// What is in a document.
    Content {
        /// Which.
        doc: DocId,
        /// At which version.
        at: String,
        /// Only what is at a path.
        path: Option<String>,
    },
    /// Bring an edited text in.
    Write {
        /// Which document.
        doc: DocId,
        /// The version that was edited; none for the current one.
        at: Option<Vec<Hash>>,
        /// The whole text.
        #[serde(with = "serde_bytes")]
        text: Vec<u8>,
    },
    /// Change one field.
    Set {
        /// Of which document.
        doc: DocId,
        /// Where.
        path: String,
        /// What, as JSON.
        json: String,
    },
    /// Who changed a document, when, and what.
    History {
        /// Which.
        doc: DocId,
        /// Only what came after this version.
        since: String,
        /// The newest so many steps.
        limit: usize,
        /// Every change by itself.
        each: bool,
    },
    /// What came after a version.
    News {
        /// Of which document.
        doc: DocId,
        /// The version.
        since: Vec<Hash>,
        /// The newest so many steps.
        limit: usize,
    },
    /// Where a version is.
    Version {
        /// Of which document.
        doc: DocId,
        /// The version. One that is not here any more is the current one.
        at: String,
    },
    /// What differs between two versions.
    Difference {
        /// Of which document.
        doc: DocId,
        /// The old version.
        before: String,
        /// The new one.
        after: String,
        /// So many steps each way.
        limit: usize,
    },
    /// A document as a file.
    Export {
        /// Which.
        doc: DocId,
        /// As what.
        format: FileFormat,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A document was made.
    Made {
        /// Which.
        doc: DocId,
    },
    /// What is in a document.
    Content {
        /// What people call it.
        title: String,
        /// The version.
        heads: Vec<Hash>,
        /// Its text, if it has one and no path was asked for.
        text: Option<String>,
        /// What is at the path, or all fields beside title and text; as JSON.
        json: String,
    },
    /// A change is on disk, or changed nothing.
    Written {
        /// The version before.
        before: Vec<Hash>,
        /// The version after.
        after: Vec<Hash>,
        /// The change that was made, now or already.
        change: Option<Hash>,
        /// Lines of text that only the new version has.
        lines_added: usize,
        /// Lines of text that only the old version has.
        lines_removed: usize,
    },
    /// Steps, the newest first.
    History {
        /// What people call the document.
        title: String,
        /// Its version.
        heads: Vec<Hash>,
        /// Who did what.
        steps: Vec<HistoryStep>,
    },
    /// What came after a version, the newest first.
    News {
        /// The current version.
        heads: Vec<Hash>,
        /// Who did what; none where the version that it was to be told since was taken out.
        steps: Option<Vec<HistoryStep>>,
    },
    /// Where a version is.
    Version {
        /// What people call the document.
        title: String,
        /// The version.
        heads: Vec<Hash>,
    },
    /// What differs between two versions.
    Difference {
        /// What people call the document.
        title: String,
        /// The old version.
        before: Vec<Hash>,
        /// The new version.
        after: Vec<Hash>,
        /// What differs.
        lines: Vec<PatchLine>,
        /// Who did what, from the old version to the new one.
        steps: Vec<HistoryStep>,
        /// What the new version is without.
        without: Vec<HistoryStep>,
    },
    /// A file.
    Exported {
        /// What people call the document.
        title: String,
        /// Its version.
        heads: Vec<Hash>,
        /// The file.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
}

/// Why pad did not do what it was asked; what it replies is an [`Answer`] or this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// What was typed names no version that is here.
    #[error("{0}")]
    NoSuchVersion(String),
    /// What was typed names no version, or several.
    #[error("{0}")]
    NotAVersion(String),
    /// Nothing is at the path that was asked for.
    #[error("{0}")]
    NotFound(String),
    /// A file is not what it says it is.
    #[error("{0}")]
    Damaged(String),
    /// What was asked cannot be done with what is there.
    #[error("{0}")]
    Refused(String),
    /// The documents say why not.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<PadError> for Refusal {
    fn from(error: PadError) -> Self {
        let text = error.to_string();
        match error {
            PadError::UnknownVersion(_) | PadError::NoSuchChange { .. } => Self::NoSuchVersion(text),
            PadError::NotAVersion { .. } | PadError::SeveralChanges { .. } => Self::NotAVersion(text),
            PadError::NotFound { .. } => Self::NotFound(text),
            PadError::Damaged { .. } => Self::Damaged(text),
            _ => Self::Refused(text),
        }
    }
}
