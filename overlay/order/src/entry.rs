//! What is ordered: bytes for an app, each at most once.
//!
//! An entry says until when it may be ordered. So those who vote need to remember only what was ordered and could
//! still come again, and what they remember has a bound that is a rule of the chain (M1).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::{UnixTime, cbor};

use crate::ids::Digest;
use crate::limits::{APP_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_LIFE_MAX_MS};
use crate::merkle::transaction_hash;

/// Something to be ordered. Its encoding is a transaction of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// For which app: `register/1`.
    pub app: String,
    /// In the app's own form.
    pub data: ByteBuf,
    /// In no block whose time is later. At most two minutes ahead when it is handed in.
    pub until: UnixTime,
    /// Tells apart two entries that say the same; who hands in one again keeps it.
    pub salt: u64,
}

/// Why an entry is none, or not taken any more. The fault of who hands it in; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    /// Too large to be ordered.
    #[error("an entry of {got} bytes; at most {max} are ordered at once")]
    TooLarge {
        /// Its bytes.
        got: usize,
        /// The most.
        max: usize,
    },
    /// It has no bytes for the app.
    #[error("an entry without data")]
    Empty,
    /// Its app has no name that an app can have.
    #[error("`{0}` is no app's name: small letters, digits and hyphens, and a version, as in `register/1`")]
    App(String),
    /// Not an entry in its one encoding.
    #[error("not an entry: {0}")]
    Malformed(#[from] cbor::DecodeError),
    /// It would approve validators, and counts for nothing.
    #[error(
        "an approval of validators that counts for nothing now: it is of another epoch, not by who signs, or nobody who \
         votes wants these"
    )]
    Approval,
    /// Its time is over.
    #[error("it was to be ordered until {until}, and it is {now}: hand it in again with a later time")]
    Expired {
        /// Until when it could be ordered.
        until: UnixTime,
        /// What time it is.
        now: UnixTime,
    },
    /// Its time is too far ahead to be remembered.
    #[error("it may be ordered until {until}, and it is {now}: at most {max} ms ahead are remembered")]
    TooFar {
        /// Until when it may be ordered.
        until: UnixTime,
        /// What time it is.
        now: UnixTime,
        /// How far ahead it may lie.
        max: u64,
    },
}

/// Whether an app may be called so: `name/version`.
#[must_use]
pub fn is_app_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let (name, version) = name.split_once('/').unwrap_or((name, "x"));
    let numbered = (1..=4).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
    (1..=APP_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && numbered
}

impl Entry {
    /// As it is ordered.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// What stands in the log, or came from somebody.
    ///
    /// # Errors
    /// [`InvalidEntry`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidEntry> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(InvalidEntry::TooLarge { got: bytes.len(), max: ENTRY_BYTES_MAX });
        }
        let entry: Self = cbor::decode(bytes, ENTRY_BYTES_MAX)?;
        if entry.data.is_empty() {
            return Err(InvalidEntry::Empty);
        }
        if is_app_name(&entry.app) { Ok(entry) } else { Err(InvalidEntry::App(entry.app)) }
    }
}

/// What tells an entry from every other one that may still be ordered. Half of the hash: two entries of one author
/// that share it only refuse each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) until: UnixTime,
    hash: [u8; 16],
}

impl Key {
    /// Below every key of this time.
    pub(crate) const fn first_of(until: UnixTime) -> Self {
        Self { until, hash: [0; 16] }
    }

    fn of(until: UnixTime, transaction: &Digest) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&transaction.as_bytes()[..16]);
        Self { until, hash }
    }

    /// Whether it may stand in a block of that time.
    pub(crate) fn lives_at(&self, time: UnixTime) -> bool {
        self.until >= time && self.until <= time.after(Duration::from_millis(ENTRY_LIFE_MAX_MS))
    }
}

/// An entry, whole: its bytes are what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub(crate) bytes: ByteBuf,
    pub(crate) entry: Entry,
    pub(crate) transaction: Digest,
    pub(crate) key: Key,
}

impl Whole {
    /// From its encoding.
    ///
    /// # Errors
    /// [`InvalidEntry`] when it is none.
    pub fn read(bytes: ByteBuf) -> Result<Self, InvalidEntry> {
        let entry = Entry::decode(&bytes)?;
        let transaction = transaction_hash(&bytes);
        let key = Key::of(entry.until, &transaction);
        Ok(Self { bytes, entry, transaction, key })
    }

    /// Its hash, by which the log knows it.
    #[must_use]
    pub const fn transaction(&self) -> Digest {
        self.transaction
    }

    /// What it says.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether it may be handed in now.
    pub(crate) fn check_life(&self, now: UnixTime) -> Result<(), InvalidEntry> {
        let until = self.key.until;
        if until < now {
            return Err(InvalidEntry::Expired { until, now });
        }
        if !self.key.lives_at(now) {
            return Err(InvalidEntry::TooFar { until, now, max: ENTRY_LIFE_MAX_MS });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_called_as_their_ids_are() {
        for good in ["register/1", "chat/1", "a/12", "key-value/3"] {
            assert!(is_app_name(good), "{good}");
        }
        for bad in ["", "/1", "register", "Register/1", "a b/1", "a/", "a/x", "a/12345", "../1", "a/1/2"] {
            assert!(!is_app_name(bad), "{bad}");
        }
        assert!(!is_app_name(&format!("{}/1", "a".repeat(APP_BYTES_MAX + 1))));
    }

    #[test]
    fn an_entry_has_one_spelling_and_its_limits_are_exact() {
        let entry = |bytes: usize| Entry {
            app: "a/1".to_owned(),
            data: ByteBuf::from(vec![7; bytes]),
            until: UnixTime::from_millis(1),
            salt: 1,
        };
        let bytes = entry(5).encode();
        assert_eq!(Entry::decode(&bytes).unwrap(), entry(5));
        assert!(matches!(Entry::decode(&[bytes.as_slice(), &[0]].concat()), Err(InvalidEntry::Malformed(_))));
        assert_eq!(Entry::decode(&entry(0).encode()), Err(InvalidEntry::Empty));
        let room = ENTRY_BYTES_MAX - (entry(300).encode().len() - 300);
        assert!(Entry::decode(&entry(room).encode()).is_ok());
        let over = entry(room + 1).encode();
        let (got, max) = (ENTRY_BYTES_MAX + 1, ENTRY_BYTES_MAX);
        assert_eq!(Entry::decode(&over), Err(InvalidEntry::TooLarge { got, max }));
    }
}
