//! What a binding remembers between runs: the version at which file and document were last equal.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wattle_types::ContentHash;

use super::super::errors::{Failure, of_io};
use super::super::files::private_dir;
use crate::api::documents::{Bytes, ErrorDocument};
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// The state of one binding, as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// For people who look.
    file: String,
    doc: String,
    /// The base.
    pub(super) heads: Vec<String>,
    /// The version that the file is about to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Vec<String>>,
    /// The edit that is about to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent: Option<Sent>,
}

/// An edit of a version: the whole text after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    pub(super) at: Vec<String>,
    pub(super) text_b64: Bytes,
}

impl State {
    pub(super) fn new(
        file: &Path,
        doc: &str,
        heads: Vec<String>,
        next: Option<Vec<String>>,
        sent: Option<Sent>,
    ) -> Self {
        Self { file: file.display().to_string(), doc: doc.to_owned(), heads, next, sent }
    }
}

/// Where bindings are remembered: in the node's state directory, beside its log.
fn directory(paths: &Paths) -> Result<PathBuf, Failure> {
    let directory = paths.log_file.with_file_name("bound");
    private_dir(&directory)?;
    Ok(directory)
}

fn name_of(text: &str) -> String {
    ContentHash::of(text.as_bytes()).to_string().chars().take(24).collect()
}

/// Where the state of this file with this document is.
pub(super) fn place(paths: &Paths, file: &Path, doc: &str) -> Result<PathBuf, Failure> {
    let name = name_of(&format!("{}\0{doc}", file.display()));
    Ok(directory(paths)?.join(format!("{name}.json")))
}

/// The right to keep the file of this name, as long as the handle lives: none where another process of this node
/// has it. The lock on the file itself is the one that processes of other nodes see, and for a moment there is
/// none, whenever an editor has put a new file there.
pub(super) fn claim(paths: &Paths, file: &Path) -> Result<Option<File>, Failure> {
    let lock = directory(paths)?.join(format!("{}.lock", name_of(&file.display().to_string())));
    match wattle_store::create_file(&lock, b"") {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(of_io("create", &lock, &error).into()),
        _ => wattle_store::lock_file(&lock).map_err(|error| of_io("lock", &lock, &error).into()),
    }
}

/// What is remembered. A file that cannot be read is as good as none: then both are compared as if they were new
/// to each other, and nothing is overwritten.
pub(super) fn read(path: &Path, doc: &str) -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (state.doc == doc).then_some(state)
}

/// Remembers; it is on disk when this returns.
pub(super) fn write(path: &Path, state: &State) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(state)
        .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot write JSON: {error}")))?;
    wattle_store::write_atomically(path, &bytes, 0o600).map_err(|error| of_io("write", path, &error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_for_no_other_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read(&path, "automerge:a"), None);
        let heads = vec!["aa".to_owned()];
        let sent = Some(Sent { at: heads.clone(), text_b64: Bytes(b"text".to_vec()) });
        let state = State::new(Path::new("/n.md"), "automerge:a", heads.clone(), Some(heads), sent);
        write(&path, &state).unwrap();
        assert_eq!(read(&path, "automerge:a"), Some(state));
        assert_eq!(read(&path, "automerge:b"), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read(&path, "automerge:a"), None);
    }
}
