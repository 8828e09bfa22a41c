//! How a person writes a key of the DHT.
//!
//! | text | means |
//! | --- | --- |
//! | `hash:` | with put: store under the value's own hash, and say which |
//! | `hash:DIGEST` | the value with this hash: nobody can change it |
//! | `PEER/NAME` | the record that PEER signed as NAME; PEER is a petname, short id or peer id |
//! | `/NETWORK/hash/DIGEST`, `/NETWORK/signed/OWNER/NAME` | the same as the DHT spells it |
//! | `NAME` | put: my signed record NAME, and an announcement that I have one; get: whoever announced NAME |

use wattle_net::TraceTarget;
use wattle_types::{ContentHash, NetworkName, NodeId, ProviderKey, RecordKey, RecordName};

use super::super::failure::ApiFailure;
use super::super::names::resolve_peer;
use crate::exit::ErrorCode;
use crate::node::Node;

/// A key as a person wrote it, with the owner still as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyText {
    /// `hash:`
    OwnHash,
    /// A whole key.
    Whole(RecordKey),
    /// `PEER/NAME`
    Owned { owner: String, name: RecordName },
    /// `NAME`
    Bare(RecordName),
}

impl KeyText {
    /// Reads a key.
    pub(super) fn parse(network: &NetworkName, text: &str) -> Result<Self, ApiFailure> {
        let wrong = |error: wattle_types::InvalidRecordKey| {
            ApiFailure::usage(format!("`{text}` is no key: {error}"))
                .hint("hash:DIGEST, PEER/NAME, NAME, or a full path")
        };
        if let Some(digest) = text.strip_prefix("hash:") {
            if digest.is_empty() {
                return Ok(Self::OwnHash);
            }
            return digest
                .parse::<ContentHash>()
                .map(|hash| Self::Whole(RecordKey::Hash(hash)))
                .map_err(wrong);
        }
        if text.starts_with('/') {
            return RecordKey::from_path(network, text).map(Self::Whole).map_err(wrong);
        }
        match text.split_once('/') {
            Some((owner, name)) => {
                Ok(Self::Owned { owner: owner.to_owned(), name: name.parse().map_err(wrong)? })
            }
            None => text.parse().map(Self::Bare).map_err(wrong),
        }
    }
}

/// Whether a text is a key, as far as can be said without asking who its owner is.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(network: &NetworkName, text: &str) -> Result<(), ApiFailure> {
    KeyText::parse(network, text).map(drop)
}

/// A key with its owner resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    OwnHash,
    Record(RecordKey),
    Name(RecordName),
}

/// Reads a key and finds out who its owner is.
pub(super) async fn read(node: &Node, text: &str) -> Result<Key, ApiFailure> {
    Ok(match KeyText::parse(node.overlay.network(), text)? {
        KeyText::OwnHash => Key::OwnHash,
        KeyText::Whole(key) => Key::Record(key),
        KeyText::Owned { owner, name } => {
            Key::Record(RecordKey::Signed { owner: resolve_peer(node, &owner).await?, name })
        }
        KeyText::Bare(name) => Key::Name(name),
    })
}

/// Where those who have what a key stands for announce themselves.
pub(super) fn provider_key(network: &NetworkName, key: &Key) -> Result<ProviderKey, ApiFailure> {
    match key {
        Key::Record(RecordKey::Hash(hash)) => Ok(ProviderKey::of_content(hash)),
        Key::Name(name) => Ok(ProviderKey::of_name(network, name)),
        Key::Record(RecordKey::Signed { .. }) => {
            Err(ApiFailure::usage("a signed record has one owner, so nobody else provides it")
                .hint("wattle dht get"))
        }
        Key::OwnHash => Err(ApiFailure::usage("`hash:` needs a digest here")),
    }
}

/// What a person wants to walk towards: a peer when one is known by that text, else a key.
pub(super) async fn target(node: &Node, text: &str) -> Result<(TraceTarget, Option<NodeId>), ApiFailure> {
    let is_key = text.starts_with("hash:") || text.contains('/');
    if !is_key {
        match resolve_peer(node, text).await {
            Ok(peer) => return Ok((TraceTarget::Peer(peer), Some(peer))),
            // What begins with dots can only be a short id.
            Err(failure) if text.starts_with('.') => return Err(failure),
            Err(_not_a_peer) => {}
        }
    }
    match read(node, text).await? {
        Key::Record(key) => Ok((TraceTarget::Record(key), None)),
        key => Ok((TraceTarget::Provider(provider_key(node.overlay.network(), &key)?), None)),
    }
}

/// The error for reading `hash:` without a digest.
pub(super) fn needs_digest() -> ApiFailure {
    ApiFailure::new(ErrorCode::Usage, "`hash:` needs the digest that `dht put hash: VALUE` printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        let network = NetworkName::default();
        let parse = |text: &str| KeyText::parse(&network, text);
        let hash = ContentHash::of(b"x");
        assert_eq!(parse("hash:").unwrap(), KeyText::OwnHash);
        assert_eq!(parse(&format!("hash:{hash}")).unwrap(), KeyText::Whole(RecordKey::Hash(hash)));
        assert_eq!(parse(&format!("/wattle/hash/{hash}")).unwrap(), KeyText::Whole(RecordKey::Hash(hash)));
        assert_eq!(parse("greeting").unwrap(), KeyText::Bare("greeting".parse().unwrap()));
        let owned = KeyText::Owned { owner: "bob".to_owned(), name: "a/b".parse().unwrap() };
        assert_eq!(parse("bob/a/b").unwrap(), owned);
        for bad in ["", "hash:zz", "/other/hash/x", "bob/", "a\nb"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
