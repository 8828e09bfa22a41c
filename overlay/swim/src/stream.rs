//! What two members say to each other over a stream: to join, and to become equal.
//!
//! 1. `Hello` brings the sender's own record and the fingerprint of its table.
//! 2. `Same` ends it, or `Buckets` tells 256 fingerprints.
//! 3. `Versions` tells, for the buckets that differ, which incarnation of whom the sender has.
//! 4. `Records` brings what the other lacks and asks for what it has; one more `Records` answers.
//!
//! No step remembers the one before it: a message that is lost is made good by the next `Hello`.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{Envelope, NetworkName, cbor};

use crate::claim::{Incarnation, RejectedClaim, ShortId, Signed};

/// Bytes of one message: the versions of 16 384 members are half of it.
pub const STREAM_BYTES_MAX: usize = 1 << 20;

/// Buckets that the members are spread over by the first byte of their ids.
pub(crate) const BUCKETS: usize = 256;

/// Bytes of records in one message, so that another stream's message waits a few milliseconds.
pub(crate) const RECORDS_BYTES: usize = 128 * 1024;

/// One message. Its claims are envelopes, or [`Signed`] once they are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<C> {
    /// I am this, and my table has this fingerprint.
    Hello {
        /// The sender's own record.
        record: C,
        /// The fingerprint of its table.
        root: u64,
    },
    /// Mine has the same.
    Same,
    /// Mine has another: these are its parts.
    Buckets {
        /// The fingerprints, eight bytes each.
        hashes: ByteBuf,
    },
    /// What I have in the parts that differ.
    Versions {
        /// Which parts: a bit each.
        mask: ByteArray<32>,
        /// Which incarnation of whom.
        entries: Vec<Version>,
    },
    /// What you lack, and what I would have.
    Records {
        /// All that proves it.
        records: Vec<Entry<C>>,
        /// Members to tell of in return.
        want: Vec<ShortId>,
    },
}

/// Which incarnation of a member one has, and where it stands: 0 alive or suspect, 1 faulty, 2 left,
/// 3 removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(pub ShortId, pub Incarnation, pub u8, pub u32);

/// A member and all that proves where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<C> {
    /// Its own record.
    pub record: C,
    /// Its refutation or leave since.
    pub since: Option<C>,
    /// Who accuses it as that incarnation.
    pub accusations: Vec<C>,
    /// The word that it is gone for good, as that incarnation.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub removal: Option<C>,
    /// For how many seconds it has been faulty or gone.
    pub age_s: u32,
}

/// Why bytes are no message. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] cbor::DecodeError),
    /// A claim in it does not hold.
    #[error(transparent)]
    Claim(#[from] RejectedClaim),
}

type Open<'a> = &'a mut dyn FnMut(Envelope) -> Result<Arc<Signed>, RejectedClaim>;

impl<C> Message<C> {
    fn map<D, E>(self, of: &mut dyn FnMut(C) -> Result<D, E>) -> Result<Message<D>, E> {
        Ok(match self {
            Self::Hello { record, root } => Message::Hello { record: of(record)?, root },
            Self::Same => Message::Same,
            Self::Buckets { hashes } => Message::Buckets { hashes },
            Self::Versions { mask, entries } => Message::Versions { mask, entries },
            Self::Records { records, want } => {
                let mut opened = Vec::with_capacity(records.len());
                for entry in records {
                    let Entry { record, since, accusations, removal, age_s } = entry;
                    let since = since.map(&mut *of).transpose()?;
                    let removal = removal.map(&mut *of).transpose()?;
                    let accusations = accusations.into_iter().map(&mut *of).collect::<Result<_, _>>()?;
                    opened.push(Entry { record: of(record)?, since, accusations, removal, age_s });
                }
                Message::Records { records: opened, want }
            }
        })
    }
}

impl Message<Envelope> {
    /// Reads one message.
    ///
    /// # Errors
    /// [`MessageError::Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError>
    where
        Self: DeserializeOwned,
    {
        Ok(cbor::decode(bytes, STREAM_BYTES_MAX)?)
    }

    /// Checks every signature. `open` is [`Signed::open`], or one that remembers what it has checked.
    ///
    /// # Errors
    /// [`MessageError::Claim`] of the first that does not hold.
    pub fn check(self, open: Open<'_>) -> Result<Message<Arc<Signed>>, MessageError> {
        Ok(self.map(&mut |envelope| open(envelope))?)
    }

    /// Checks every signature, each for itself.
    ///
    /// # Errors
    /// As [`Message::check`].
    pub fn open(self, network: &NetworkName) -> Result<Message<Arc<Signed>>, MessageError> {
        self.check(&mut |envelope| Signed::open(envelope, network).map(Arc::new))
    }
}

impl Message<Arc<Signed>> {
    /// The message's bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let envelopes = self.map(&mut |signed| Ok::<_, std::convert::Infallible>(signed.envelope().clone()));
        match envelopes {
            Ok(message) => cbor::encode(&message),
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wattle_types::SecretKey;

    use super::*;
    use crate::claim::Claim;

    fn sign(seed: u8, claim: &Claim) -> Arc<Signed> {
        let key = SecretKey::from_bytes(&[seed; 32]);
        Arc::new(Signed::seal(&key, &NetworkName::default(), claim).unwrap())
    }

    fn samples() -> Vec<Message<Arc<Signed>>> {
        let record = sign(1, &Claim::Refute { incarnation: Incarnation::from_u64(7) });
        let accusation = Claim::Suspect { subject: record.author(), incarnation: Incarnation::from_u64(7) };
        let removal = Claim::Remove { subject: record.author(), incarnation: Incarnation::from_u64(7) };
        let entry = Entry {
            record: Arc::clone(&record),
            since: Some(Arc::clone(&record)),
            accusations: vec![sign(2, &accusation), sign(3, &accusation)],
            removal: Some(sign(4, &removal)),
            age_s: 90,
        };
        let version = Version(ShortId(1), Incarnation::from_u64(7), 1, 90);
        vec![
            Message::Hello { record, root: u64::MAX },
            Message::Same,
            Message::Buckets { hashes: ByteBuf::from(vec![3; BUCKETS * 8]) },
            Message::Versions { mask: ByteArray::new([5; 32]), entries: vec![version; 3] },
            Message::Records { records: vec![entry], want: vec![ShortId(9)] },
        ]
    }

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        for message in samples() {
            let bytes = message.clone().encode();
            let read = Message::decode(&bytes).unwrap().open(&NetworkName::default()).unwrap();
            assert_eq!(read, message);
        }
        let version = Version(ShortId(u64::MAX), Incarnation::from_u64(u64::MAX), 2, u32::MAX);
        let entries = vec![version; crate::MEMBERS_MAX + 1];
        let largest = Message::<Arc<Signed>>::Versions { mask: ByteArray::new([255; 32]), entries };
        assert!(largest.encode().len() <= STREAM_BYTES_MAX, "all members fit one message");
    }

    #[test]
    fn a_message_of_another_network_is_refused() {
        let bytes = samples().remove(0).encode();
        let elsewhere = "elsewhere".parse().unwrap();
        let refused = Message::decode(&bytes).unwrap().open(&elsewhere);
        assert!(matches!(refused, Err(MessageError::Claim(_))));
    }

    proptest! {
        /// Total and exact, as the encoding beneath it is.
        #[test]
        fn damaged_messages_are_refused_or_read_exactly(
            which in 0usize..5, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = samples()[which].clone().encode();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(cbor::encode(&message), bytes);
            }
        }
    }
}
