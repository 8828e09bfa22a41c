//! Why something cannot be read from a document or written to it.

use automerge::{AutomergeError, ChangeHash};
use wattle_types::limits::{
    DOCUMENT_ANSWER_BYTES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_PATH_BYTES_MAX, DOCUMENT_VALUES_MAX,
};

use crate::body::boundary;

/// Why a document was not read or edited.
///
/// After an error of an edit the transaction may hold a part of it: the caller drops it, and then nothing
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum PadError {
    /// The caller names a version that this replica does not have. Ask again after it has arrived.
    #[error("this replica has no version {0}")]
    UnknownVersion(ChangeHash),
    /// The caller typed something that names no version.
    #[error(
        "`{text}` is no version: a version is a change as `doc history` prints it, 4 to 64 hexadecimal digits"
    )]
    NotAVersion {
        /// What was typed.
        text: String,
    },
    /// The caller names a change that this replica does not have.
    #[error("no change here begins with `{text}`")]
    NoSuchChange {
        /// What was typed.
        text: String,
    },
    /// The caller names a change by too little of it.
    #[error("several changes begin with `{text}`: type more of it")]
    SeveralChanges {
        /// What was typed.
        text: String,
    },
    /// A file is not what it says it is.
    #[error("the file is damaged: {why}")]
    Damaged {
        /// Why we think so.
        why: String,
    },
    /// The document has no text to edit; making one here could hide the one another replica makes. Edit its
    /// fields instead.
    #[error("the document has no text, only fields: see `doc show` and change one with `doc set`")]
    NoText,
    /// The edit was made against another text than that of the transaction's version. The caller opened the
    /// transaction at the wrong heads.
    #[error("the text is not the one that was edited ({got} bytes, the edit began with {base})")]
    OtherBase {
        /// Bytes of the text that the edit began with.
        base: usize,
        /// Bytes of the document's text.
        got: usize,
    },
    /// The caller's text is too long for a document. Attach it as a file or cut it in documents.
    #[error("{bytes} bytes are too long for a document's text, {bytes_max} at most")]
    TextTooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes that a text may have.
        bytes_max: usize,
    },
    /// The file is binary: not UTF-8, or with a zero byte. Binary files cannot be merged.
    #[error("not a text file: byte {at} is not UTF-8 text; a document holds text")]
    NotText {
        /// Where the first such byte is.
        at: usize,
    },
    /// The document's text counts or stores characters in a way that splices cannot address exactly (a foreign
    /// program made it). Nothing of the caller's is at fault.
    #[error("the document's text was stored by another program in a form that cannot be edited here")]
    ForeignText,
    /// The caller's path is not of the form `a.b[3]["c d"]`.
    #[error("`{path}` is no path: {why} (a path is like `a.b[3].c` or `a[\"b c\"]`)")]
    InvalidPath {
        /// The path as it was typed, cut where it is too long.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing is at that path.
    #[error("nothing at `{path}`; `{parent}` has {has}", parent = shown(parent))]
    NotFound {
        /// The path that was asked for.
        path: String,
        /// The longest part of it that exists.
        parent: String,
        /// What is there instead, for people.
        has: String,
    },
    /// A field cannot be set inside something that does not exist: made here, it could hide what another
    /// replica makes at the same place.
    #[error("`{parent}` does not exist yet; make it first with `doc set ID '{parent}' {empty}`")]
    NoParent {
        /// The first missing part of the path.
        parent: String,
        /// What to make: `{}` or `[]`.
        empty: &'static str,
    },
    /// The path does not fit what is there: a name in a list, a number in a map, a field of a string.
    #[error("`{path}` {why}", path = shown(path))]
    WrongKind {
        /// The path of the value that does not fit.
        path: String,
        /// What it is and what fits.
        why: &'static str,
    },
    /// A list is set at an index of it or right behind its end.
    #[error("`{path}` has {length} elements: set [0] to [{length}]", path = shown(path))]
    OutOfRange {
        /// The path of the list.
        path: String,
        /// How many elements it has.
        length: usize,
    },
    /// The text is merged, not set.
    #[error("`{path}` is the document's text: change it with `doc edit`")]
    TextPath {
        /// The path that was to be set.
        path: String,
    },
    /// The root of a document is a map that cannot be replaced as a whole.
    #[error("a document is a map of fields: name a field")]
    RootIsAMap,
    /// Deeper than [`DOCUMENT_DEPTH_MAX`].
    #[error("more than {DOCUMENT_DEPTH_MAX} maps and lists within each other")]
    TooDeep,
    /// More than [`DOCUMENT_VALUES_MAX`] values or [`DOCUMENT_ANSWER_BYTES_MAX`] bytes.
    #[error("more than {DOCUMENT_VALUES_MAX} values or {DOCUMENT_ANSWER_BYTES_MAX} bytes: name a part of it")]
    TooLarge,
    /// Automerge refused the operation: the document and the path were checked before, so this is our fault.
    #[error("the document refused the edit: {0}")]
    Automerge(#[from] AutomergeError),
}

/// The root has no name of its own.
fn shown(path: &str) -> &str {
    if path.is_empty() { "the document" } else { path }
}

/// As much of a typed path as an error repeats.
pub(crate) fn cut_path(path: &str) -> String {
    path.get(..boundary(path, DOCUMENT_PATH_BYTES_MAX)).unwrap_or_default().to_owned()
}
