//! Versions as people type them.

use automerge::{Automerge, ChangeHash};

use crate::PadError;

/// Hexadecimal digits of a whole hash.
const HASH_DIGITS: usize = 64;

/// Digits that a beginning has at least: fewer would soon mean several changes.
const DIGITS_MIN: usize = 4;

/// Heads in one version; a document with more concurrent ones is named by a later change.
const HEADS_MAX: usize = 1024;

/// The version that a text names: changes separated by commas, each by its hash or by a beginning of it that no
/// other change has. None when it names nothing.
///
/// # Errors
///
/// [`PadError::NotAVersion`], [`PadError::NoSuchChange`], [`PadError::SeveralChanges`].
pub fn version(doc: &Automerge, text: &str) -> Result<Option<Vec<ChangeHash>>, PadError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.len() > HEADS_MAX {
        return Err(PadError::NotAVersion { text: format!("{} changes", parts.len()) });
    }
    let mut known: Option<Vec<(String, ChangeHash)>> = None;
    let mut heads = Vec::new();
    for part in parts {
        let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits || !(DIGITS_MIN..=HASH_DIGITS).contains(&part.len()) {
            return Err(PadError::NotAVersion { text: part.chars().take(HASH_DIGITS).collect() });
        }
        let missing = || PadError::NoSuchChange { text: part.to_owned() };
        let found = if part.len() == HASH_DIGITS {
            let hash: ChangeHash = part.parse().map_err(|_not_a_hash| missing())?;
            doc.get_change_meta_by_hash(&hash).map(|change| change.hash)
        } else {
            let known = known.get_or_insert_with(|| {
                let all = doc.get_changes_meta(&[]).into_iter();
                all.map(|change| (change.hash.to_string(), change.hash)).collect()
            });
            let part = part.to_ascii_lowercase();
            let mut alike = known.iter().filter(|(text, _)| text.starts_with(&part));
            let found = alike.next().map(|(_, hash)| *hash);
            if alike.next().is_some() {
                return Err(PadError::SeveralChanges { text: part });
            }
            found
        };
        heads.push(found.ok_or_else(missing)?);
    }
    Ok(Some(heads).filter(|heads| !heads.is_empty()))
}
