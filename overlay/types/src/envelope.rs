//! Keys and signed envelopes with domain separation.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::Zeroizing;

use crate::{NetworkName, NodeId, cbor};

/// What a signature is for. A signature made for one purpose proves nothing for another: the label is signed
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A mutable DHT record of its owner.
    Record,
    /// An invitation.
    Ticket,
    /// Who may do what with a document.
    DocControl,
    /// A writer's word for a change of a document.
    DocVouch,
    /// An entry of a feed.
    DocPost,
    /// A claim about a member: its own record, its refutation, its leave, or an accusation.
    Member,
    /// A validator's vote for a block of the ordered log.
    OrderVote,
    /// A validator's word that a round of the ordered log took too long.
    OrderTimeout,
    /// A leader's block of the ordered log.
    OrderProposal,
    /// A node's word that others are to keep the ordered log from its next epoch on.
    OrderApproval,
}

impl Domain {
    /// The label that is signed. Changing one is a new protocol version.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Record => "wattle record v1",
            Self::Ticket => "wattle ticket v1",
            Self::DocControl => "wattle doc control v1",
            Self::DocVouch => "wattle doc vouch v1",
            Self::DocPost => "wattle doc post v1",
            Self::Member => "wattle member v1",
            Self::OrderVote => "wattle order vote v1",
            Self::OrderTimeout => "wattle order timeout v1",
            Self::OrderProposal => "wattle order proposal v1",
            Self::OrderApproval => "wattle order approval v1",
        }
    }
}

/// The secret half of a node's identity. Wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key with these 32 secret bytes (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The 32 secret bytes, for the key file and the transport.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Who this key makes a node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::from_public_key(self.0.verifying_key().to_bytes())
    }

    /// Signs `body` for one purpose in one network.
    #[must_use]
    pub fn sign(&self, domain: Domain, network: &NetworkName, body: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_bytes(domain, network, body)).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.node_id())
    }
}

impl NodeId {
    /// Whether signatures of this key can verify: it is a point of the curve, and not one of the few for which
    /// anybody can make a signature.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        VerifyingKey::from_bytes(self.public_key()).is_ok_and(|key| !key.is_weak())
    }

    /// Whether `signature` is this node's, over `body`, for this purpose in this network. Strict: small-order
    /// keys and malleable signatures are refused.
    #[must_use]
    pub fn verifies(&self, domain: Domain, network: &NetworkName, body: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(self.public_key()) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        key.verify_strict(&signed_bytes(domain, network, body), &signature).is_ok()
    }
}

/// `label 0x00 network 0x00 body`: neither a label nor a network name can hold a zero byte, so no two triples
/// collide.
fn signed_bytes(domain: Domain, network: &NetworkName, body: &[u8]) -> Vec<u8> {
    [domain.label().as_bytes(), &[0], network.as_str().as_bytes(), &[0], body].concat()
}

/// A value with its author's signature, as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    author: NodeId,
    body: ByteBuf,
    signature: ByteArray<64>,
}

/// Why an envelope was not opened. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The signature is not the author's, or was made for another purpose or network.
    #[error("the signature does not verify")]
    BadSignature,
    /// The envelope or its body is not what it should be.
    #[error(transparent)]
    Malformed(#[from] cbor::DecodeError),
}

impl Envelope {
    /// Signs `value` for one purpose in one network.
    #[must_use]
    pub fn seal<T: Serialize>(key: &SecretKey, domain: Domain, network: &NetworkName, value: &T) -> Self {
        let body = cbor::encode(value);
        let signature = key.sign(domain, network, &body);
        Self { author: key.node_id(), body: ByteBuf::from(body), signature: ByteArray::new(signature) }
    }

    /// The envelope with these parts, nothing checked: for a wire format that spells them in fewer bytes.
    #[must_use]
    pub fn from_parts(author: NodeId, body: Vec<u8>, signature: [u8; 64]) -> Self {
        Self { author, body: ByteBuf::from(body), signature: ByteArray::new(signature) }
    }

    /// Who claims to have signed it.
    #[must_use]
    pub const fn author(&self) -> NodeId {
        self.author
    }

    /// What is signed, not decoded.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The signature, not checked.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// What names it in a set: the hash of the whole envelope.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&cbor::encode(self)).as_bytes()
    }

    /// Checks the signature, then decodes the body.
    ///
    /// # Errors
    /// [`EnvelopeError`]; the signature is checked first, so a stranger never reaches the decoder of the
    /// body.
    pub fn open<T>(&self, domain: Domain, network: &NetworkName) -> Result<Verified<T>, EnvelopeError>
    where
        T: Serialize + DeserializeOwned,
    {
        if !self.author.verifies(domain, network, &self.body, &self.signature) {
            return Err(EnvelopeError::BadSignature);
        }
        Ok(Verified { author: self.author, value: self.reread()? })
    }

    /// Decodes the body and believes the signature: of an envelope that was opened before it was stored here.
    ///
    /// # Errors
    /// [`cbor::DecodeError`] where the body is not what it should be.
    pub fn reread<T>(&self) -> Result<T, cbor::DecodeError>
    where
        T: Serialize + DeserializeOwned,
    {
        cbor::decode(&self.body, self.body.len())
    }
}

/// A value whose author's signature was checked for the right purpose and network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    author: NodeId,
    value: T,
}

impl<T> Verified<T> {
    /// Who signed it.
    #[must_use]
    pub const fn author(&self) -> NodeId {
        self.author
    }

    /// What was signed.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// What was signed, by value.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_signature_holds_only_for_its_purpose_network_author_and_body() {
        let here = NetworkName::default();
        let there: NetworkName = "elsewhere".parse().unwrap();
        let sealed = Envelope::seal(&key(1), Domain::Record, &here, &7u64);

        assert_eq!(sealed.open::<u64>(Domain::Record, &here).unwrap().value(), &7);
        assert_eq!(sealed.open::<u64>(Domain::Ticket, &here), Err(EnvelopeError::BadSignature));
        assert_eq!(sealed.open::<u64>(Domain::Record, &there), Err(EnvelopeError::BadSignature));

        let mut stolen = sealed.clone();
        stolen.author = key(2).node_id();
        assert_eq!(stolen.open::<u64>(Domain::Record, &here), Err(EnvelopeError::BadSignature));

        let mut changed = sealed;
        changed.body = ByteBuf::from(cbor::encode(&8u64));
        assert_eq!(changed.open::<u64>(Domain::Record, &here), Err(EnvelopeError::BadSignature));
    }

    #[test]
    fn a_secret_key_is_never_shown_by_debug() {
        let shown = format!("{:?}", key(0xab));
        assert!(!shown.contains("ab, ") && !shown.contains("171"), "{shown}");
    }
}
