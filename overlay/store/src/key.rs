//! The node's secret key in its file: one line `wattle-ed25519-secret-v1 <64 hex digits> <node id>`.
//!
//! The node id says to a person whose key this is, and to the program whether a digit was damaged: any 32 bytes are a
//! valid Ed25519 secret, so without it a flipped bit would silently be another identity.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use wattle_types::{NodeId, SecretKey};
use zeroize::Zeroizing;

use crate::secret::{SecretFileError, create_secret_file, read_secret_file};

const FORMAT: &str = "wattle-ed25519-secret-v1";

/// Format, 64 digits, a node id of 52 characters, two blanks and the line end make 143.
const FILE_BYTES_MAX: usize = 256;

/// Whether the key was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// A new key was made and stored by this call.
    Now,
    /// The key was in the file.
    Before,
}

/// Why there is no key. No file was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used as a secret; the message holds the command that mends it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file is no key, or is not the one that was written. It is never overwritten: it may be all that is left of an
    /// identity. To do: put back a copy, or move the file away (`mv FILE FILE.damaged`) and start as a new node.
    #[error("the key file {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without its content.
        why: &'static str,
    },
    /// The system gave no random bytes. Nothing was stored; to do: fix the system (`/dev/urandom`, seccomp).
    #[error("no random bytes for a new key: {0}")]
    NoRandomness(String),
}

/// Reads the key at `path`, or makes a new one there if there is no file. The directory must exist.
///
/// Two processes that create at once end with the same key: the second finds the file and reads it.
///
/// # Errors
/// [`KeyError`]; an existing file is never changed.
pub fn load_or_create_key(path: &Path) -> Result<(SecretKey, Created), KeyError> {
    match load(path) {
        Err(KeyError::File(SecretFileError::Missing { .. })) => {}
        loaded => return loaded.map(|key| (key, Created::Before)),
    }
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).map_err(|error| KeyError::NoRandomness(error.to_string()))?;
    let key = SecretKey::from_bytes(&secret);
    match create_secret_file(path, &encode(&key)) {
        Ok(()) => Ok((key, Created::Now)),
        Err(SecretFileError::Exists { .. }) => load(path).map(|key| (key, Created::Before)),
        Err(error) => Err(error.into()),
    }
}

fn load(path: &Path) -> Result<SecretKey, KeyError> {
    let bytes = read_secret_file(path, FILE_BYTES_MAX)?;
    decode(&bytes).map_err(|why| KeyError::Damaged { path: path.to_owned(), why })
}

fn encode(key: &SecretKey) -> Zeroizing<Vec<u8>> {
    let mut digits = Zeroizing::new([0; 64]);
    HEXLOWER.encode_mut(&*key.to_bytes(), &mut *digits);
    // With its capacity from the start: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX));
    for part in [FORMAT.as_bytes(), b" ", &digits[..], b" ", key.node_id().to_string().as_bytes(), b"\n"] {
        line.extend_from_slice(part);
    }
    line
}

fn decode(bytes: &[u8]) -> Result<SecretKey, &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    let text = str::from_utf8(bytes).map_err(|_not_text| "it is not text")?;
    let mut words = text.strip_suffix('\n').unwrap_or(text).split(' ');
    let (format, digits, node) = (words.next(), words.next(), words.next());
    if format != Some(FORMAT) {
        return Err("it does not start with wattle-ed25519-secret-v1");
    }
    let (Some(digits), Some(node), None) = (digits, node, words.next()) else {
        return Err("it is not one line of three words");
    };
    if digits.len() != 64 {
        return Err("the secret does not have 64 digits");
    }
    let mut secret = Zeroizing::new([0; 32]);
    HEXLOWER
        .decode_mut(digits.as_bytes(), &mut *secret)
        .map_err(|_partial| "the secret has characters other than 0-9 and a-f")?;
    let key = SecretKey::from_bytes(&secret);
    let node: NodeId = node.parse().map_err(|_invalid| "the node id is not one")?;
    if key.node_id() != node {
        return Err("the secret is not that of the node id beside it");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_then_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let (made, created) = load_or_create_key(&path).unwrap();
        assert_eq!(created, Created::Now);
        let (found, created) = load_or_create_key(&path).unwrap();
        assert_eq!((created, found.node_id()), (Created::Before, made.node_id()));
        assert_eq!(*found.to_bytes(), *made.to_bytes());
    }

    #[test]
    fn two_keys_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (one, _) = load_or_create_key(&dir.path().join("one")).unwrap();
        let (two, _) = load_or_create_key(&dir.path().join("two")).unwrap();
        assert_ne!(one.node_id(), two.node_id());
    }

    #[test]
    fn the_format_of_the_key_file_does_not_change() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let line = encode(&key);
        let node = key.node_id();
        assert_eq!(
            str::from_utf8(&line).unwrap(),
            format!("wattle-ed25519-secret-v1 {} {node}\n", "07".repeat(32))
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_key_file_is_refused_and_left_alone() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let whole = encode(&key);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                // The last byte is the line end, which says nothing.
                assert!(decode(&damaged).is_err(), "byte {at} bit {bit}");
            }
        }
        for length in 0..whole.len() - 1 {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        create_secret_file(&path, &whole[..40]).unwrap();
        let error = load_or_create_key(&path).unwrap_err();
        assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains("0707"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), whole[..40]);
    }

    #[test]
    fn a_key_file_with_group_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        load_or_create_key(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create_key(&path).unwrap_err();
        assert!(matches!(error, KeyError::File(SecretFileError::OpenToOthers { .. })), "{error}");
    }

    #[test]
    fn a_key_behind_a_symbolic_link_is_refused_and_none_is_made_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("identity.key");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        let error = load_or_create_key(&link).unwrap_err();
        assert!(matches!(error, KeyError::File(SecretFileError::Symlink { .. })), "{error}");
        assert!(!dir.path().join("elsewhere").exists());
    }
}
