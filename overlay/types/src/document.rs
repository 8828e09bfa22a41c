//! The names and secrets of shared documents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::Zeroize;

use crate::{NodeId, SecretKey};

const URL_PREFIX: &str = "automerge:";

/// The id of a document: 16 bytes, written as an automerge URL (`automerge:` and base58check), so that every
/// automerge-repo program can name it. Made here, it is a hash of the key that signs the document's grants:
/// whoever holds the id can tell the owner's word from another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocId(ByteArray<16>);

/// Why a text is no document id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a document id: `automerge:` and base58 with a checksum, as `wattle doc list` shows them")]
pub struct InvalidDocId;

impl DocId {
    /// The id of the document that `owner` founds.
    #[must_use]
    pub fn of_owner(owner: &NodeId) -> Self {
        Self(ByteArray::new(derive("wattle doc id v1", owner.public_key())))
    }

    /// The id with these bytes, as another program made it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{URL_PREFIX}{}", bs58::encode(self.as_bytes()).with_check().into_string())
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DocId {
    type Err = InvalidDocId;

    /// Reads an id with or without its prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let packed = text.strip_prefix(URL_PREFIX).unwrap_or(text);
        // 16 bytes and a checksum are at most 28 characters; base58 takes quadratic time.
        if packed.len() > 32 {
            return Err(InvalidDocId);
        }
        let bytes = bs58::decode(packed).with_check(None).into_vec().map_err(|_invalid| InvalidDocId)?;
        Ok(Self::from_bytes(bytes.try_into().map_err(|_length| InvalidDocId)?))
    }
}

/// Under what a document is looked for: derived from the read secret, so that who does not hold the secret
/// can neither tell which document it is nor make one up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocTag(ByteArray<16>);

impl DocTag {
    /// The tag with these bytes, as a peer sent it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What everyone who may read a document holds. Wiped from memory when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSecret(ByteArray<16>);

impl ReadSecret {
    /// The secret with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// Its 16 bytes, for a ticket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The tag under which the document is looked for.
    #[must_use]
    pub fn tag(&self) -> DocTag {
        DocTag::from_bytes(derive("wattle doc tag v1", self.as_bytes()))
    }

    /// A proof that its maker holds this secret, over `parts`; a part's length is hashed before it.
    #[must_use]
    pub fn proof(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = blake3::derive_key("wattle doc proof v1", self.as_bytes());
        keyed(&key, parts)
    }
}

impl Drop for ReadSecret {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for ReadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadSecret(hidden)")
    }
}

/// What leads to a document: which one, and the secret that lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocAccess {
    /// Which document.
    pub id: DocId,
    /// What its readers hold.
    pub read: ReadSecret,
    /// The key that signs its grants, where `id` is not its hash: a document that another program made.
    pub owner: Option<NodeId>,
}

impl DocAccess {
    /// Whether `author` is the key whose grants found this document.
    #[must_use]
    pub fn is_owner(&self, author: &NodeId) -> bool {
        self.owner.map_or_else(|| DocId::of_owner(author) == self.id, |owner| owner == *author)
    }
}

/// The key inside a ticket: whoever holds its 16 bytes may take part once a grant names it.
#[must_use]
pub fn bearer_key(seed: &[u8; 16]) -> SecretKey {
    SecretKey::from_bytes(&blake3::derive_key("wattle doc bearer v1", seed))
}

/// BLAKE3 with `key` over `parts`, each behind its length, so that no two lists of parts collide.
#[must_use]
pub fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

fn derive(label: &str, bytes: &[u8]) -> [u8; 16] {
    let whole = blake3::derive_key(label, bytes);
    whole.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_the_url_that_automerge_repo_writes() {
        // Base58check, computed apart from this crate.
        let id = DocId::from_bytes(std::array::from_fn(|index| index as u8));
        let text = id.to_string();
        assert_eq!(text, "automerge:1Bhh3pU9gLXZiNDL6PEa1Gs9fh");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.trim_start_matches("automerge:").parse(), Ok(id));
        let mut changed = text.clone();
        changed.replace_range(12..13, if &text[12..13] == "2" { "3" } else { "2" });
        assert_eq!(changed.parse::<DocId>(), Err(InvalidDocId));
        assert_eq!("automerge:".parse::<DocId>(), Err(InvalidDocId));
        assert_eq!("x".repeat(4000).parse::<DocId>(), Err(InvalidDocId));
    }

    #[test]
    fn the_owner_of_an_id_is_known_by_its_hash_or_by_name() {
        let owner = SecretKey::from_bytes(&[1; 32]).node_id();
        let other = SecretKey::from_bytes(&[2; 32]).node_id();
        let read = ReadSecret::from_bytes([3; 16]);
        let ours = DocAccess { id: DocId::of_owner(&owner), read: read.clone(), owner: None };
        assert!(ours.is_owner(&owner) && !ours.is_owner(&other));
        let foreign = DocAccess { id: DocId::from_bytes([4; 16]), read, owner: Some(other) };
        assert!(foreign.is_owner(&other) && !foreign.is_owner(&owner));
    }

    #[test]
    fn a_read_secret_is_never_shown() {
        assert_eq!(format!("{:?}", ReadSecret::from_bytes([0xab; 16])), "ReadSecret(hidden)");
    }
}
