//! DHT records that can be trusted: what a key promises, and the checks that hold a value to it.
//!
//! A key says how its value is checked, so a holder and a reader reach the same verdict without trusting each
//! other:
//!
//! | key | value | rule |
//! | --- | --- | --- |
//! | `/NETWORK/hash/DIGEST` | any bytes | BLAKE3 of the value is DIGEST: nobody can change it |
//! | `/NETWORK/signed/OWNER/NAME` | a signed envelope | signed by OWNER for this key; the highest sequence wins |
//!
//! The same checks run when a record is stored and on every answer of a lookup: a holder may be honest and
//! wrong, or neither (Baumgart and Mies, "S/Kademlia", 2007, section 4.4; libp2p's own `publisher` field is
//! not authenticated).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::limits::{
    CLOCK_SKEW_MAX_MS, RECORD_KEY_BYTES_MAX, RECORD_NAME_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX,
    RECORD_TTL_MAX_MS, RECORD_VALUE_BYTES_MAX,
};
use crate::{
    DocTag, Domain, Envelope, EnvelopeError, NetworkName, NodeId, SecretKey, TopicRoot, UnixTime, Verified,
    cbor,
};

/// The BLAKE3 hash of a value, written in lower-case base32 without padding (52 characters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `value`.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(blake3::hash(value).into())
    }

    /// The hash's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = InvalidRecordKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let bytes = data_encoding::BASE32_NOPAD.decode(upper.as_bytes());
        let Ok(Ok(bytes)) = bytes.map(<[u8; 32]>::try_from) else { return Err(InvalidRecordKey::Hash) };
        Ok(Self(bytes))
    }
}

/// The name of a record below its owner: any text without control characters, 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

impl RecordName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RecordName {
    type Err = InvalidRecordKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sized = (1..=RECORD_NAME_BYTES_MAX).contains(&text.len());
        if sized && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRecordKey::Name)
        }
    }
}

/// The key of a record within one network. The key alone says how the value is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// Content-addressed: the value is whatever hashes to this.
    Hash(ContentHash),
    /// Mutable: the value is what the owner signed last.
    Signed {
        /// Whose key must have signed the value.
        owner: NodeId,
        /// Which of the owner's records.
        name: RecordName,
    },
}

/// Why a text or bytes are no record key. Caller error or the sender's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecordKey {
    /// The hash is not 52 characters of base32.
    #[error("a content hash is 52 characters of base32, as `dht put hash: VALUE` prints it")]
    Hash,
    /// The name is empty, too long, or has control characters.
    #[error("a record name has 1 to {RECORD_NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// The owner is no node id.
    #[error("the owner of a signed record is a full peer id (12D3KooW…)")]
    Owner,
    /// Not of the form `/NETWORK/hash/DIGEST` or `/NETWORK/signed/OWNER/NAME`.
    #[error("a record key is /NETWORK/hash/DIGEST or /NETWORK/signed/OWNER/NAME")]
    Form,
    /// A key of another network.
    #[error("the key belongs to another network")]
    OtherNetwork,
}

impl RecordKey {
    /// The key's bytes in the DHT of `network`.
    #[must_use]
    pub fn to_bytes(&self, network: &NetworkName) -> Vec<u8> {
        self.to_path(network).into_bytes()
    }

    /// The key as text: `/NETWORK/hash/DIGEST` or `/NETWORK/signed/OWNER/NAME`.
    #[must_use]
    pub fn to_path(&self, network: &NetworkName) -> String {
        match self {
            Self::Hash(hash) => format!("/{network}/hash/{hash}"),
            Self::Signed { owner, name } => format!("/{network}/signed/{owner}/{name}"),
        }
    }

    /// Reads a key as it travels in the DHT of `network`.
    ///
    /// # Errors
    /// [`InvalidRecordKey`] for anything but the one spelling of a key of this network.
    pub fn from_bytes(network: &NetworkName, bytes: &[u8]) -> Result<Self, InvalidRecordKey> {
        if bytes.len() > RECORD_KEY_BYTES_MAX {
            return Err(InvalidRecordKey::Form);
        }
        let Ok(path) = std::str::from_utf8(bytes) else { return Err(InvalidRecordKey::Form) };
        let key = Self::from_path(network, path)?;
        // A hash in capitals names the same digest, but would be another place in the DHT.
        if key.to_path(network) == path { Ok(key) } else { Err(InvalidRecordKey::Form) }
    }

    /// Reads `/NETWORK/hash/DIGEST` or `/NETWORK/signed/OWNER/NAME` as a person may type it.
    ///
    /// # Errors
    /// [`InvalidRecordKey`] naming the part that is wrong.
    pub fn from_path(network: &NetworkName, path: &str) -> Result<Self, InvalidRecordKey> {
        let mut parts = path.strip_prefix('/').ok_or(InvalidRecordKey::Form)?.splitn(3, '/');
        let (Some(of), Some(kind), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidRecordKey::Form);
        };
        if of != network.as_str() {
            return Err(InvalidRecordKey::OtherNetwork);
        }
        match kind {
            "hash" => rest.parse().map(Self::Hash),
            "signed" => {
                let (owner, name) = rest.split_once('/').ok_or(InvalidRecordKey::Form)?;
                let Ok(owner) = owner.parse() else { return Err(InvalidRecordKey::Owner) };
                Ok(Self::Signed { owner, name: name.parse()? })
            }
            _ => Err(InvalidRecordKey::Form),
        }
    }
}

/// Where providers of something announce themselves: a BLAKE3 multihash, as other libp2p programs expect of
/// provider keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderKey([u8; 34]);

impl ProviderKey {
    /// The multihash code of BLAKE3 and the length of its digest (multicodec table).
    const PREFIX: [u8; 2] = [0x1e, 0x20];

    /// Where the holders of a value announce themselves.
    #[must_use]
    pub fn of_content(hash: &ContentHash) -> Self {
        let mut bytes = [0; 34];
        bytes[..2].copy_from_slice(&Self::PREFIX);
        bytes[2..].copy_from_slice(hash.as_bytes());
        Self(bytes)
    }

    /// Where those who publish or offer something under a free name announce themselves.
    #[must_use]
    pub fn of_name(network: &NetworkName, name: &RecordName) -> Self {
        Self::of_content(&ContentHash::of(format!("wattle name v1\0{network}\0{name}").as_bytes()))
    }

    /// Where the replicas of a document announce themselves: by its tag, which only its members can make.
    #[must_use]
    pub fn of_document(network: &NetworkName, tag: &DocTag) -> Self {
        let label = [b"wattle doc v1\0", network.as_str().as_bytes(), b"\0", tag.as_bytes()].concat();
        Self::of_content(&ContentHash::of(&label))
    }

    /// Where those who follow topics below a root announce themselves.
    #[must_use]
    pub fn of_topic(network: &NetworkName, root: &TopicRoot) -> Self {
        let root = root.as_str();
        Self::of_content(&ContentHash::of(format!("wattle topic v1\0{network}\0{root}").as_bytes()))
    }

    /// The key's bytes in the DHT.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 34] {
        &self.0
    }
}

/// What the owner of a mutable record signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordBody {
    /// The key this value is for: a record cannot be replayed under another key.
    pub key: ByteBuf,
    /// Grows with every change. Of two valid records the one with the higher number wins.
    pub sequence: u64,
    /// After this the record is void.
    pub expires: UnixTime,
    /// What the owner wants to say.
    pub payload: ByteBuf,
}

/// A mutable record whose signature, key and expiry were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    body: Verified<RecordBody>,
    value: Vec<u8>,
}

/// A record that passed every check for its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Content-addressed.
    Hash {
        /// Its hash.
        hash: ContentHash,
        /// The bytes.
        value: Vec<u8>,
    },
    /// Mutable, signed by its owner.
    Signed(SignedRecord),
}

/// Why a record was refused. The sender's fault (or an old holder's); nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedRecord {
    /// The key is none of this network.
    #[error("key: {0}")]
    Key(#[from] InvalidRecordKey),
    /// The value is larger than a record may be.
    #[error("{got} bytes are more than the {max} a record may have")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The value does not hash to its key.
    #[error("the value does not hash to its key")]
    WrongHash,
    /// The envelope does not open: damaged, or signed by another key or for another purpose or network.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Properly signed, but not by the owner the key names.
    #[error("signed by {signer}, but the key belongs to {owner}")]
    WrongOwner {
        /// Who signed.
        signer: NodeId,
        /// Whose key it is.
        owner: NodeId,
    },
    /// Properly signed, but for another key.
    #[error("signed for another key")]
    WrongKey,
    /// Past its time.
    #[error("expired {0:?} ago")]
    Expired(Duration),
    /// Promises to live longer than any record may.
    #[error("expires {0:?} from now, more than the 48 h a record may live")]
    LivesTooLong(Duration),
}

/// How a new record stands to the one already held under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// Higher sequence: replaces.
    Newer,
    /// The same bytes: nothing changes.
    Same,
    /// Lower sequence: a replay or a slow holder.
    Stale,
    /// Equal sequence, other bytes: the owner signed two records with one number. The first stays.
    Conflicting,
}

impl Record {
    /// A content-addressed record.
    ///
    /// # Errors
    /// [`RejectedRecord::TooLarge`] for a value of more than 8 KiB.
    pub fn content(value: Vec<u8>) -> Result<Self, RejectedRecord> {
        check_size(value.len(), RECORD_PAYLOAD_BYTES_MAX)?;
        Ok(Self::Hash { hash: ContentHash::of(&value), value })
    }

    /// A mutable record, signed by `key` and valid from now for `ttl` (at most 48 h).
    ///
    /// # Errors
    /// [`RejectedRecord::TooLarge`] for a payload of more than 8 KiB.
    pub fn sign(
        key: &SecretKey,
        network: &NetworkName,
        name: RecordName,
        sequence: u64,
        expires: UnixTime,
        payload: &[u8],
    ) -> Result<Self, RejectedRecord> {
        check_size(payload.len(), RECORD_PAYLOAD_BYTES_MAX)?;
        let at = RecordKey::Signed { owner: key.node_id(), name };
        let body = RecordBody {
            key: ByteBuf::from(at.to_bytes(network)),
            sequence,
            expires,
            payload: ByteBuf::from(payload),
        };
        let envelope = Envelope::seal(key, Domain::Record, network, &body);
        let body = envelope.open(Domain::Record, network)?;
        Ok(Self::Signed(SignedRecord { body, value: cbor::encode(&envelope) }))
    }

    /// Checks a record as it arrived from a peer or from disk: every rule of its key, and its time.
    ///
    /// # Errors
    /// [`RejectedRecord`] naming the first rule it breaks.
    pub fn check(
        network: &NetworkName,
        key: &[u8],
        value: &[u8],
        now: UnixTime,
    ) -> Result<Self, RejectedRecord> {
        match RecordKey::from_bytes(network, key)? {
            RecordKey::Hash(hash) => {
                check_size(value.len(), RECORD_PAYLOAD_BYTES_MAX)?;
                if ContentHash::of(value) != hash {
                    return Err(RejectedRecord::WrongHash);
                }
                Ok(Self::Hash { hash, value: value.to_vec() })
            }
            RecordKey::Signed { owner, .. } => {
                let envelope: Envelope =
                    cbor::decode(value, RECORD_VALUE_BYTES_MAX).map_err(EnvelopeError::Malformed)?;
                let body = envelope.open::<RecordBody>(Domain::Record, network)?;
                let signed = SignedRecord { body, value: value.to_vec() };
                signed.check(owner, key, now)?;
                Ok(Self::Signed(signed))
            }
        }
    }

    /// The key of this record.
    #[must_use]
    pub fn key_bytes(&self, network: &NetworkName) -> Vec<u8> {
        match self {
            Self::Hash { hash, .. } => RecordKey::Hash(*hash).to_bytes(network),
            Self::Signed(signed) => signed.body.value().key.to_vec(),
        }
    }

    /// The value as it travels: for a signed record the envelope, else the bytes themselves.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        match self {
            Self::Hash { value, .. } => value,
            Self::Signed(signed) => &signed.value,
        }
    }

    /// What the publisher wanted to say.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Hash { value, .. } => value,
            Self::Signed(signed) => &signed.body.value().payload,
        }
    }

    /// The sequence number of a mutable record.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        match self {
            Self::Hash { .. } => None,
            Self::Signed(signed) => Some(signed.body.value().sequence),
        }
    }

    /// When a mutable record becomes void.
    #[must_use]
    pub fn expires(&self) -> Option<UnixTime> {
        match self {
            Self::Hash { .. } => None,
            Self::Signed(signed) => Some(signed.body.value().expires),
        }
    }

    /// Who signed a mutable record.
    #[must_use]
    pub fn owner(&self) -> Option<NodeId> {
        match self {
            Self::Hash { .. } => None,
            Self::Signed(signed) => Some(signed.body.author()),
        }
    }

    /// How this record stands to `held`, a record under the same key.
    #[must_use]
    pub fn precedence_over(&self, held: &Self) -> Precedence {
        if self.value() == held.value() {
            return Precedence::Same;
        }
        match self.sequence().cmp(&held.sequence()) {
            Ordering::Greater => Precedence::Newer,
            Ordering::Less => Precedence::Stale,
            Ordering::Equal => Precedence::Conflicting,
        }
    }

    /// The one of two valid records under one key that every reader chooses: the higher sequence; where an
    /// owner signed two with one number, the lower hash, so that all readers agree.
    #[must_use]
    pub fn better(self, other: Self) -> Self {
        match other.precedence_over(&self) {
            Precedence::Newer => other,
            Precedence::Same | Precedence::Stale => self,
            Precedence::Conflicting => {
                if ContentHash::of(other.value()) < ContentHash::of(self.value()) {
                    other
                } else {
                    self
                }
            }
        }
    }
}

impl SignedRecord {
    fn check(&self, owner: NodeId, key: &[u8], now: UnixTime) -> Result<(), RejectedRecord> {
        let (signer, body) = (self.body.author(), self.body.value());
        if signer != owner {
            return Err(RejectedRecord::WrongOwner { signer, owner });
        }
        if body.key.as_ref() != key {
            return Err(RejectedRecord::WrongKey);
        }
        check_size(body.payload.len(), RECORD_PAYLOAD_BYTES_MAX)?;
        if body.expires <= now {
            return Err(RejectedRecord::Expired(now.since(body.expires)));
        }
        let lives = body.expires.since(now);
        if lives > Duration::from_millis(RECORD_TTL_MAX_MS.saturating_add(CLOCK_SKEW_MAX_MS)) {
            return Err(RejectedRecord::LivesTooLong(lives));
        }
        Ok(())
    }
}

fn check_size(got: usize, max: usize) -> Result<(), RejectedRecord> {
    if got > max { Err(RejectedRecord::TooLarge { got, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn alice() -> SecretKey {
        SecretKey::from_bytes(&[1; 32])
    }

    fn signed(sequence: u64, payload: &str) -> Record {
        let name = "greeting".parse().unwrap();
        Record::sign(&alice(), &NetworkName::default(), name, sequence, NOW.after(HOUR), payload.as_bytes())
            .unwrap()
    }

    fn check(key: &[u8], value: &[u8]) -> Result<Record, RejectedRecord> {
        Record::check(&NetworkName::default(), key, value, NOW)
    }

    #[test]
    fn a_content_record_is_whatever_hashes_to_its_key() {
        let record = Record::content(b"hello".to_vec()).unwrap();
        let key = record.key_bytes(&NetworkName::default());
        assert_eq!(check(&key, b"hello"), Ok(record));
        assert_eq!(check(&key, b"hellO"), Err(RejectedRecord::WrongHash));
    }

    #[test]
    fn a_signed_record_is_its_owners_for_its_key_and_its_time() {
        let network = NetworkName::default();
        let record = signed(5, "hi");
        let key = record.key_bytes(&network);
        assert_eq!(check(&key, record.value()), Ok(record.clone()));

        let mut flipped = record.value().to_vec();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(check(&key, &flipped), Err(RejectedRecord::Envelope(EnvelopeError::BadSignature)));

        let bob = SecretKey::from_bytes(&[2; 32]);
        let bobs =
            Record::sign(&bob, &network, "greeting".parse().unwrap(), 9, NOW.after(HOUR), b"no").unwrap();
        assert!(matches!(check(&key, bobs.value()), Err(RejectedRecord::WrongOwner { .. })));

        let other =
            Record::sign(&alice(), &network, "other".parse().unwrap(), 9, NOW.after(HOUR), b"no").unwrap();
        assert_eq!(check(&key, other.value()), Err(RejectedRecord::WrongKey));

        let late = NOW.after(2 * HOUR);
        assert_eq!(Record::check(&network, &key, record.value(), late), Err(RejectedRecord::Expired(HOUR)));

        let forever = UnixTime::from_millis(u64::MAX);
        let forever =
            Record::sign(&alice(), &network, "greeting".parse().unwrap(), 9, forever, b"no").unwrap();
        assert!(matches!(check(&key, forever.value()), Err(RejectedRecord::LivesTooLong(_))));
    }

    #[test]
    fn oversized_payloads_are_refused_by_the_writer_and_by_the_reader() {
        let big = vec![0; RECORD_PAYLOAD_BYTES_MAX + 1];
        assert!(matches!(Record::content(big.clone()), Err(RejectedRecord::TooLarge { .. })));
        let key = RecordKey::Hash(ContentHash::of(&big)).to_bytes(&NetworkName::default());
        assert!(matches!(check(&key, &big), Err(RejectedRecord::TooLarge { .. })));
        let name = "n".parse().unwrap();
        let network = NetworkName::default();
        assert!(Record::sign(&alice(), &network, name, 1, NOW.after(HOUR), &big).is_err());
    }

    #[test]
    fn the_highest_sequence_wins_and_equal_ones_with_other_bytes_conflict() {
        let (old, new, twin) = (signed(1, "a"), signed(2, "b"), signed(2, "c"));
        assert_eq!(new.precedence_over(&old), Precedence::Newer);
        assert_eq!(old.precedence_over(&new), Precedence::Stale);
        assert_eq!(new.precedence_over(&new), Precedence::Same);
        assert_eq!(twin.precedence_over(&new), Precedence::Conflicting);
        assert_eq!(new.clone().better(twin.clone()), twin.better(new));
    }

    #[test]
    fn a_key_has_one_spelling() {
        let network = NetworkName::default();
        let key = RecordKey::Hash(ContentHash::of(b"x"));
        let path = key.to_path(&network);
        assert_eq!(RecordKey::from_bytes(&network, path.as_bytes()), Ok(key.clone()));
        let (head, digest) = path.split_at("/wattle/hash/".len());
        let shouted = format!("{head}{}", digest.to_ascii_uppercase());
        assert_eq!(RecordKey::from_path(&network, &shouted), Ok(key));
        assert_eq!(RecordKey::from_bytes(&network, shouted.as_bytes()), Err(InvalidRecordKey::Form));
        for (bad, why) in [
            ("", InvalidRecordKey::Form),
            ("/wattle/pk/x", InvalidRecordKey::Form),
            ("/other/hash/x", InvalidRecordKey::OtherNetwork),
            ("/wattle/hash/x", InvalidRecordKey::Hash),
            ("/wattle/signed/bob/x", InvalidRecordKey::Owner),
        ] {
            assert_eq!(RecordKey::from_bytes(&network, bad.as_bytes()), Err(why), "{bad}");
        }
    }
}
