//! What members say under their signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use wattle_types::{Domain, Envelope, EnvelopeError, NetworkName, NodeId, SecretKey, Verified, cbor};

/// Bytes of a name: what people give a machine.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of tags, keys and values together. serf allows as many, and a record must fit one packet.
pub const TAGS_BYTES_MAX: usize = 512;

/// Roles of a member.
pub const ROLES_MAX: usize = 8;

/// Bytes of one role.
pub const ROLE_BYTES_MAX: usize = 32;

/// Addresses of a member: two families, direct and mapped.
pub const ADDRESSES_MAX: usize = 4;

/// Bytes of one address.
pub const ADDRESS_BYTES_MAX: usize = 128;

/// Relays through which an anchored member is reached.
pub const ANCHORS_MAX: usize = 3;

/// Bytes of a member's own record as it is signed: a packet holds it with its header and signature.
pub const RECORD_BYTES_MAX: usize = 1024;

/// How often a member said that it is alive: its run above, its refutations within that run below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The first of a run.
    #[must_use]
    pub const fn of_epoch(epoch: u32) -> Self {
        Self((epoch as u64) << 32)
    }

    /// From its number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The run: it grows with every start of the member.
    #[must_use]
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// The next one of the same run; none after four thousand million refutations.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let next = self.0.checked_add(1)?;
        (next >> 32 == self.0 >> 32).then_some(Self(next))
    }
}

/// An incarnation as every packet has it: enough to tell it among those near one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The last byte of the run. A packet is sealed for a run's key, so it is that of a neighbouring run at most.
    pub run: u8,
    /// The last two bytes of the refutations.
    pub refutations: u16,
}

impl Incarnation {
    /// As packets have it.
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        let [.., run, _, _, high, low] = self.0.to_be_bytes();
        Stamp { run, refutations: u16::from_be_bytes([high, low]) }
    }

    /// The incarnation nearest to this one that has a stamp (serial numbers, RFC 1982); none if that is of another
    /// run.
    #[must_use]
    pub fn nearest(self, stamp: Stamp) -> Option<Self> {
        let known = self.stamp();
        if known.run != stamp.run {
            return None;
        }
        let ahead = stamp.refutations.wrapping_sub(known.refutations);
        let other = if ahead < 0x8000 {
            self.0.checked_add(u64::from(ahead))?
        } else {
            self.0.checked_sub(u64::from(ahead.wrapping_neg()))?
        };
        (other >> 32 == self.0 >> 32).then_some(Self(other))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.0 & u64::from(u32::MAX))
    }
}

/// The first eight bytes of a public key: how packets spell a member. Making a key with another's short id
/// takes 2^64 tries; who has it is not let in beside the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShortId(pub u64);

impl ShortId {
    /// The short id of a node.
    #[must_use]
    pub fn of(node: &NodeId) -> Self {
        let first = node.public_key().first_chunk::<8>().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How a member is reached by datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// At its addresses.
    Public,
    /// At its addresses, after both sides have sent.
    Punched,
    /// Only over its connections to its anchors.
    Anchored,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What people call it.
    pub name: String,
    /// What it does.
    pub roles: BTreeSet<String>,
    /// Where streams reach it: multiaddresses.
    pub addresses: Vec<String>,
    /// Where packets reach it: a UDP port at those addresses.
    pub udp_port: u16,
    /// The X25519 public key of this run, which packets are sealed for.
    pub boot_key: ByteArray<32>,
    /// How packets reach it.
    pub reach: Reach,
    /// Its relays, if it is anchored.
    pub anchors: Vec<NodeId>,
    /// What its owner says of it.
    pub tags: BTreeMap<String, String>,
}

/// Why a description is none. Whose it is is at fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} of a member may have {max}, and these have {got}")]
pub struct InvalidDescription {
    /// Which part.
    pub what: &'static str,
    /// What it has, in bytes or items.
    pub got: usize,
    /// What it may have.
    pub max: usize,
}

impl Description {
    /// Holds a description to its limits.
    ///
    /// # Errors
    /// [`InvalidDescription`] with the part that is too large.
    pub fn check(&self) -> Result<(), InvalidDescription> {
        let longest = |texts: &mut dyn Iterator<Item = &String>| texts.map(String::len).max().unwrap_or(0);
        let tags: usize = self.tags.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
        let parts = [
            ("bytes of the name", self.name.len(), NAME_BYTES_MAX),
            ("roles", self.roles.len(), ROLES_MAX),
            ("bytes of a role", longest(&mut self.roles.iter()), ROLE_BYTES_MAX),
            ("addresses", self.addresses.len(), ADDRESSES_MAX),
            ("bytes of an address", longest(&mut self.addresses.iter()), ADDRESS_BYTES_MAX),
            ("anchors", self.anchors.len(), ANCHORS_MAX),
            ("bytes of the tags", tags, TAGS_BYTES_MAX),
        ];
        for (what, got, max) in parts {
            if got > max {
                return Err(InvalidDescription { what, got, max });
            }
        }
        let claim = Claim::Alive { incarnation: Incarnation(u64::MAX), description: self.clone() };
        let got = cbor::encode(&claim).len();
        if got > RECORD_BYTES_MAX {
            return Err(InvalidDescription { what: "bytes of the record", got, max: RECORD_BYTES_MAX });
        }
        Ok(())
    }
}

/// What is signed. Only `Suspect` and `Remove` are about another than their author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// I am here, and this is what I am.
    Alive {
        /// How often I said so.
        incarnation: Incarnation,
        /// What I am.
        description: Description,
    },
    /// I am still here: whatever was said of me before is wrong.
    Refute {
        /// One more than what was accused.
        incarnation: Incarnation,
    },
    /// I could not reach it, in no way I know.
    Suspect {
        /// Whom.
        subject: NodeId,
        /// As which incarnation.
        incarnation: Incarnation,
    },
    /// I go.
    Leave {
        /// As which incarnation.
        incarnation: Incarnation,
    },
    /// My operator says that it is gone for good. Nobody is removed who is not faulty or gone where this is read.
    Remove {
        /// Whom.
        subject: NodeId,
        /// As which incarnation.
        incarnation: Incarnation,
    },
}

impl Claim {
    /// The incarnation it speaks of.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        match self {
            Self::Alive { incarnation, .. }
            | Self::Refute { incarnation }
            | Self::Suspect { incarnation, .. }
            | Self::Remove { incarnation, .. }
            | Self::Leave { incarnation } => *incarnation,
        }
    }
}

/// A claim whose signature was checked, with its envelope: it can be believed, and passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    envelope: Envelope,
    claim: Verified<Claim>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} says {:?}", self.author(), self.claim())
    }
}

/// Why an envelope is no claim. Its sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedClaim {
    /// The signature or the bytes.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// What a member says of itself is over a limit.
    #[error(transparent)]
    Description(#[from] InvalidDescription),
    /// Nobody accuses or removes itself.
    #[error("a member accuses or removes itself")]
    Itself,
}

impl Signed {
    /// Checks the signature and the limits of a claim. The only way to have one of another member.
    ///
    /// # Errors
    /// [`RejectedClaim`]; the signature is checked before anything else is read.
    pub fn open(envelope: Envelope, network: &NetworkName) -> Result<Self, RejectedClaim> {
        let claim: Verified<Claim> = envelope.open(Domain::Member, network)?;
        match claim.value() {
            Claim::Alive { description, .. } => description.check()?,
            Claim::Suspect { subject, .. } | Claim::Remove { subject, .. } if *subject == claim.author() => {
                return Err(RejectedClaim::Itself);
            }
            Claim::Suspect { .. } | Claim::Remove { .. } | Claim::Refute { .. } | Claim::Leave { .. } => {}
        }
        Ok(Self { envelope, claim })
    }

    /// Signs a claim. `None` if it is not one that [`Signed::open`] takes.
    #[must_use]
    pub fn seal(key: &SecretKey, network: &NetworkName, claim: &Claim) -> Option<Self> {
        Self::open(Envelope::seal(key, Domain::Member, network, claim), network).ok()
    }

    /// Who signed it.
    #[must_use]
    pub const fn author(&self) -> NodeId {
        self.claim.author()
    }

    /// What was signed.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        self.claim.value()
    }

    /// It as it travels.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Whom it is about.
    #[must_use]
    pub const fn subject(&self) -> NodeId {
        match self.claim() {
            Claim::Suspect { subject, .. } | Claim::Remove { subject, .. } => *subject,
            Claim::Alive { .. } | Claim::Refute { .. } | Claim::Leave { .. } => self.author(),
        }
    }

    /// What it says of its author, if it is a record.
    #[must_use]
    pub const fn description(&self) -> Option<&Description> {
        match self.claim() {
            Claim::Alive { description, .. } => Some(description),
            Claim::Refute { .. } | Claim::Suspect { .. } | Claim::Leave { .. } | Claim::Remove { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_of_the_nearest_incarnation_of_its_run() {
        let of = |epoch: u64, refutations: u64| Incarnation(epoch << 32 | refutations);
        for (known, said) in
            [(0, 0), (0, 7), (9, 3), (0xfffe, 0x1_0003), (0x1_0003, 0xfffe), (70_000, 90_000)]
        {
            let (known, said) = (of(0x6b49_d203, known), of(0x6b49_d203, said));
            assert_eq!(known.nearest(said.stamp()), Some(said));
            assert_eq!(
                known.nearest(of(0x6b49_d204, 7).stamp()),
                None,
                "a packet of another run says nothing"
            );
        }
        let (first, last) = (of(3, 0), of(3, u64::from(u32::MAX)));
        assert_eq!(last.nearest(first.stamp()), None, "it never leaves its run");
        assert_eq!(first.nearest(last.stamp()), None);
    }
}
