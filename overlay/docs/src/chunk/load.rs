//! A whole document from bytes that anybody may have made.

use std::panic::catch_unwind;

use automerge::{Automerge, ReadDoc as _};

use super::{Caps, Summary, inspect_into};

/// Reads a file of Automerge: bounded before the decoder has it, and whole. It may take as long as the file is large.
///
/// # Errors
/// Why it is none, in words.
pub fn load(bytes: &[u8]) -> Result<Automerge, String> {
    inspect_into(bytes, &mut Summary::default(), Caps::FILE).map_err(|error| error.to_string())?;
    let loaded = catch_unwind(|| Automerge::load(bytes));
    let loaded = loaded.map_err(|_panic| "the decoder does not survive it".to_owned())?;
    let automerge = loaded.map_err(|error| error.to_string())?;
    if automerge.get_missing_deps(&[]).is_empty() {
        Ok(automerge)
    } else {
        Err("changes are missing from it".to_owned())
    }
}
