//! Documents about shared documents.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    Bytes, DocContentSchema, DocDoneSchema, DocEditSchema, DocMembersSchema, DocSchema, DocTicketSchema,
    DocsSchema,
};

/// What somebody may do with a document. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocRole {
    /// Receives it and who is a member.
    Reader,
    /// Changes it.
    Writer,
    /// Lets others in, as readers and writers, and removes them.
    Admin,
}

impl DocRole {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }
}

/// A new document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocNewRequest {
    /// What people call it.
    #[serde(default)]
    pub title: String,
    /// Its first text, UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_b64: Option<Bytes>,
}

/// A peer that shares a document and is here now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocPeer {
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What this node calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it holds exactly what this node holds.
    pub in_sync: bool,
    /// Of its heads, how many have not arrived here.
    pub heads_missing: u64,
}

/// A shared document at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doc {
    /// `automerge:` and base58.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Its heads on disk, as hexadecimal.
    pub heads: Vec<String>,
    /// What this node may do; absent until it was let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<DocRole>,
    /// Members, this node among them.
    pub members: u64,
    /// When it came here.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Members that are here now.
    pub peers: Vec<DocPeer>,
}

/// One shared document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocDocument {
    /// `wattle.doc/1`.
    pub schema: DocSchema,
    /// The document.
    pub doc: Doc,
}

/// The shared documents here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocsDocument {
    /// `wattle.docs/1`.
    pub schema: DocsSchema,
    /// By id.
    pub docs: Vec<Doc>,
}

/// What is in a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocContentDocument {
    /// `wattle.doc_show/1`.
    pub schema: DocContentSchema,
    /// Which.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// The version shown, as hexadecimal.
    pub heads: Vec<String>,
    /// Its text, where it has one and no path was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What is at the path; without a path, everything but the text.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub value: serde_json::Value,
}

/// A text as somebody left it in an editor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocTextRequest {
    /// The version that was edited, as `heads` said; the current one when empty.
    #[serde(default)]
    pub at: Vec<String>,
    /// The whole text after the edit, UTF-8.
    pub text_b64: Bytes,
}

/// A field and its new value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocFieldRequest {
    /// Where, as `a.b[3].c`.
    pub path: String,
    /// What.
    pub value: serde_json::Value,
}

/// An edit that is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocEditDocument {
    /// `wattle.doc_edit/1`.
    pub schema: DocEditSchema,
    /// Which document.
    pub id: String,
    /// The heads before, as hexadecimal.
    pub before: Vec<String>,
    /// The heads after.
    pub after: Vec<String>,
    /// The change that it became: as a version, the document as it was saved. Absent when nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Lines of text that it added.
    pub lines_added: u64,
    /// Lines of text that it removed.
    pub lines_removed: u64,
    /// Members that are here now and will get it at once.
    pub peers: u64,
}

/// A ticket to a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocShareRequest {
    /// What the invited may do.
    pub role: DocRole,
    /// How long it lets in; 7 days without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// How many it lets in; any number without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A ticket that leads to a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocTicketDocument {
    /// `wattle.doc_share/1`.
    pub schema: DocTicketSchema,
    /// Which document.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// The text to send.
    pub ticket: String,
    /// What it allows.
    pub role: DocRole,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// What limits it.
    pub warnings: Vec<String>,
}

/// A ticket to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocJoinRequest {
    /// A ticket that leads to a document, or the id of one that is here.
    pub ticket: String,
    /// How long to wait until the document is here; 30 s without, 0 is as long as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A member of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocMember {
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What this node calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it may do.
    pub role: DocRole,
    /// Whether it is this node.
    pub me: bool,
    /// Whether it is here now.
    pub here: bool,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocMembersDocument {
    /// `wattle.doc_members/1`.
    pub schema: DocMembersSchema,
    /// Of which document.
    pub id: String,
    /// By id.
    pub members: Vec<DocMember>,
}

/// Somebody to remove from a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocRemoveRequest {
    /// A petname, short id or full id.
    pub peer: String,
}

/// Done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocDoneDocument {
    /// `wattle.doc_done/1`.
    pub schema: DocDoneSchema,
    /// With which document.
    pub id: String,
    /// What people call it.
    pub title: String,
}
