//! Documents about the past of shared documents, and about documents as files.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{Bytes, DocDiffSchema, DocExportSchema, DocHistorySchema, ErrorDocument};

/// Who vouches for changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocAuthor {
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What this node calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is this node.
    pub me: bool,
}

/// What one author did in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocStep {
    /// The newest of its changes, as hexadecimal. As a version it is the document as its author saw it then.
    pub version: String,
    /// The version that it was made on.
    pub before: Vec<String>,
    /// Who vouches for it; absent where nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<DocAuthor>,
    /// Where nobody does: who brought it in, with a change that builds on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brought_by: Option<DocAuthor>,
    /// When it began, by the clock of who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub began: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// How many changes it has.
    pub changes: u64,
    /// What its author says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Lines of text that it added; absent where the text is too long to compare every step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines_added: Option<u64>,
    /// Lines of text that it removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines_removed: Option<u64>,
    /// Fields that it touched, the first few.
    pub fields: Vec<String>,
}

/// Who changed a document, when, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocHistoryDocument {
    /// `wattle.doc_history/1`.
    pub schema: DocHistorySchema,
    /// Of which document.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Its heads, as hexadecimal.
    pub heads: Vec<String>,
    /// The newest first.
    pub steps: Vec<DocStep>,
    /// Whether there are older ones.
    pub more: bool,
}

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DocDiffLine {
    /// The next lines are of the text at `path` (the document's text without one), from these lines on.
    Text {
        /// The path of the text.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// The first line in the old version, from 1.
        old_line: u64,
        /// The first line in the new version, from 1.
        new_line: u64,
    },
    /// A line that both versions have.
    Kept {
        /// The line.
        text: String,
    },
    /// A line that only the old version has.
    Removed {
        /// The line.
        text: String,
    },
    /// A line that only the new version has.
    Added {
        /// The line.
        text: String,
    },
    /// A field, each value as JSON in short; absent where the field is not.
    Field {
        /// Its path.
        path: String,
        /// What it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        old: Option<String>,
        /// What it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<String>,
    },
    /// There is more than is told.
    Cut,
}

/// What differs between two versions of a document, and who made it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocDiffDocument {
    /// `wattle.doc_diff/1`.
    pub schema: DocDiffSchema,
    /// Of which document.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// The old version, as hexadecimal.
    pub before: Vec<String>,
    /// The new version.
    pub after: Vec<String>,
    /// Steps that only the new version has, the newest first.
    pub steps: Vec<DocStep>,
    /// Steps that only the old version has.
    pub without: Vec<DocStep>,
    /// The difference.
    pub lines: Vec<DocDiffLine>,
}

/// What a document is as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DocFormat {
    /// Everything, with the history, as Automerge saves it.
    Automerge,
    /// The text alone.
    Text,
    /// Fields and text, without the history.
    Json,
}

impl DocFormat {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Automerge => "automerge",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A document as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocExportDocument {
    /// `wattle.doc_export/1`.
    pub schema: DocExportSchema,
    /// Which document.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// The version, as hexadecimal.
    pub heads: Vec<String>,
    /// What the bytes are.
    pub format: DocFormat,
    /// How many bytes.
    pub bytes: u64,
    /// The bytes; absent where they were written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_b64: Option<Bytes>,
    /// The file that they were written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A file that becomes a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocImportRequest {
    /// The name of the file.
    pub name: String,
    /// What people shall call the document; what the file says, or else its name, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is in the file: Automerge, JSON or text.
    pub data_b64: Bytes,
}

/// One line of watching a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DocLine {
    /// What is changed from this version on is told.
    Watching {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which document.
        id: String,
        /// What people call it.
        title: String,
        /// The version.
        heads: Vec<String>,
    },
    /// Somebody changed it.
    Changed {
        /// When it came here.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which document.
        id: String,
        /// The version here with everything that came at once.
        heads: Vec<String>,
        /// Who did what.
        step: Box<DocStep>,
    },
    /// Changes of somebody who was removed were taken out again.
    TakenOut {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which document.
        id: String,
        /// The version that is left.
        heads: Vec<String>,
    },
    /// The stream ends.
    Error {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Why.
        error: ErrorDocument,
    },
}
