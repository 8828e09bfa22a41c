//! Packets: what goes in one sealed datagram between two members.
//!
//! The edge seals it (30 bytes more) and knows from whom it is. All numbers are big-endian.
//!
//! ```text
//! byte 0     low half: 0 gossip, 1 ping, 2 ping-req, 3 ack, 4 nack
//!            0x10: a ping that asks for more, an ack that holds more
//! byte 1     the run of the sender's incarnation, its last byte
//! bytes 2-3  the refutations of it, their last two bytes
//! gossip     nothing
//! ping       sequence 2
//! ping-req   sequence 2, target 8, patience in milliseconds 2
//! ack        sequence 2, and with 0x10: axes 4 x 4, height 4, error 2, root 8
//! nack       sequence 2
//! then, to the end, rumours:
//!   1 alive    author 32, length 2, body, signature 64
//!   2 refute   author 8, incarnation 8, signature 64
//!   3 suspect  subject 8, incarnation 8, accuser 8, signature 64
//!   4 leave    author 8, incarnation 8, signature 64
//!   5 dead     subject 8, incarnation 8, count 1, then accuser 8 and signature 64 each
//!   6 ask      member 8
//!   7 remove   subject 8, incarnation 8, author 8, signature 64
//! ```
//!
//! Short ids are looked up when a packet is read: a rumour about a member that is not known here says nothing
//! that could be checked, and is left out. What was signed is the canonical CBOR of [`Claim`], made again from
//! these bytes.

use std::sync::Arc;

use wattle_types::{Envelope, NetworkName, NodeId, cbor};

use crate::claim::{Claim, Incarnation, RECORD_BYTES_MAX, RejectedClaim, ShortId, Signed, Stamp};
use crate::coordinate::Coordinate;

/// Bytes of a packet before it is sealed. With 30 for the seal and 48 for IPv6 and UDP it fits the smallest
/// path that IPv6 allows, 1280, which no tunnel in use goes below.
pub const PACKET_BYTES_MAX: usize = 1199;

/// Accusations in one certificate: three prove, and nobody needs more.
pub const CERTIFICATE_MAX: usize = 4;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Only its rumours.
    Gossip,
    /// Answer with an ack.
    Ping {
        /// Comes back in the ack.
        sequence: u16,
        /// The ack is to hold [`More`].
        more: bool,
    },
    /// Ping another member in my place.
    PingRequest {
        /// Comes back in the ack or nack.
        sequence: u16,
        /// Whom.
        target: ShortId,
        /// After this long without its answer, send a nack.
        patience_ms: u16,
    },
    /// The one who was pinged answered.
    Ack {
        /// Of the ping or ping-req.
        sequence: u16,
        /// What the ping asked for.
        more: Option<More>,
    },
    /// The one who was to be pinged did not answer so far.
    Nack {
        /// Of the ping-req.
        sequence: u16,
    },
}

/// What an ack holds when it was asked for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More {
    /// Where the sender is.
    pub coordinate: Coordinate,
    /// The fingerprint of its table.
    pub root: u64,
}

/// One thing told in passing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rumor<C> {
    /// A claim.
    Claim(C),
    /// Enough accusations of one member, as one incarnation, by different ones.
    Dead(Vec<C>),
    /// Tell me what you know of it.
    Ask(ShortId),
}

/// One packet; its claims are [`RawClaim`]s, or [`Signed`] once they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<C> {
    /// The sender's incarnation: its own word for being alive, since the packet is sealed by it.
    pub stamp: Stamp,
    /// What it is for.
    pub body: Body,
    /// What it tells in passing.
    pub rumors: Vec<Rumor<C>>,
}

/// A claim as a packet has it, its signature not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawClaim {
    /// A record, still encoded.
    Alive {
        /// Who claims to have signed it.
        author: NodeId,
        /// What is signed.
        body: Vec<u8>,
        /// The signature.
        signature: [u8; 64],
    },
    /// A refutation or a leave.
    Own {
        /// Who claims to have signed it.
        author: NodeId,
        /// Of which incarnation.
        incarnation: Incarnation,
        /// It goes.
        leaves: bool,
        /// The signature.
        signature: [u8; 64],
    },
    /// An accusation.
    Suspect {
        /// Of whom.
        subject: NodeId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// Who claims to have signed it.
        accuser: NodeId,
        /// The signature.
        signature: [u8; 64],
    },
    /// The word that one is gone for good.
    Remove {
        /// Who.
        subject: NodeId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// Who claims to have signed it.
        author: NodeId,
        /// The signature.
        signature: [u8; 64],
    },
}

/// Why bytes are no packet. The sender's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Refused before anything was read.
    #[error("{0} bytes are more than the {PACKET_BYTES_MAX} of a packet")]
    TooLarge(usize),
    /// It ends within something.
    #[error("the packet ends within its {0}")]
    Short(&'static str),
    /// A byte that says what follows says nothing known.
    #[error("the packet has an unknown {0}: {1}")]
    Unknown(&'static str, u8),
    /// A length or count that nobody writes.
    #[error("the packet has {1} as its {0}")]
    Count(&'static str, usize),
}

impl RawClaim {
    /// A checked claim as a packet has it.
    #[must_use]
    pub fn of(signed: &Signed) -> Self {
        let (author, signature) = (signed.author(), *signed.envelope().signature());
        match signed.claim() {
            Claim::Alive { .. } => Self::Alive { author, body: signed.envelope().body().to_vec(), signature },
            Claim::Refute { incarnation } => {
                Self::Own { author, incarnation: *incarnation, leaves: false, signature }
            }
            Claim::Leave { incarnation } => {
                Self::Own { author, incarnation: *incarnation, leaves: true, signature }
            }
            Claim::Suspect { subject, incarnation } => {
                Self::Suspect { subject: *subject, incarnation: *incarnation, accuser: author, signature }
            }
            Claim::Remove { subject, incarnation } => {
                Self::Remove { subject: *subject, incarnation: *incarnation, author, signature }
            }
        }
    }

    /// The envelope it stands for.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        match self {
            Self::Alive { author, body, signature } => {
                Envelope::from_parts(*author, body.clone(), *signature)
            }
            Self::Own { author, incarnation, leaves, signature } => {
                let incarnation = *incarnation;
                let claim =
                    if *leaves { Claim::Leave { incarnation } } else { Claim::Refute { incarnation } };
                Envelope::from_parts(*author, cbor::encode(&claim), *signature)
            }
            Self::Suspect { subject, incarnation, accuser, signature } => {
                let claim = Claim::Suspect { subject: *subject, incarnation: *incarnation };
                Envelope::from_parts(*accuser, cbor::encode(&claim), *signature)
            }
            Self::Remove { subject, incarnation, author, signature } => {
                let claim = Claim::Remove { subject: *subject, incarnation: *incarnation };
                Envelope::from_parts(*author, cbor::encode(&claim), *signature)
            }
        }
    }
}

/// Bytes that a checked claim takes in a packet.
pub(crate) fn claim_bytes(signed: &Signed) -> usize {
    match signed.claim() {
        Claim::Alive { .. } => 1 + 32 + 2 + signed.envelope().body().len() + 64,
        Claim::Refute { .. } | Claim::Leave { .. } => 1 + 8 + 8 + 64,
        Claim::Suspect { .. } | Claim::Remove { .. } => 1 + 8 + 8 + 8 + 64,
    }
}

/// Bytes that a certificate takes in a packet.
pub(crate) const fn certificate_bytes(accusations: usize) -> usize {
    1 + 8 + 8 + 1 + accusations * (8 + 64)
}

/// Bytes that a question takes in a packet.
pub(crate) const ASK_BYTES: usize = 1 + 8;

/// Bytes of the head of a packet.
pub(crate) const fn head_bytes(body: &Body) -> usize {
    1 + 1
        + 2
        + match body {
            Body::Gossip => 0,
            Body::Ping { .. } | Body::Nack { .. } | Body::Ack { more: None, .. } => 2,
            Body::PingRequest { .. } => 2 + 8 + 2,
            Body::Ack { more: Some(_), .. } => 2 + 16 + 4 + 2 + 8,
        }
}

impl Packet<Arc<Signed>> {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = |signed: &Arc<Signed>| RawClaim::of(signed);
        let rumors = self.rumors.iter().map(|rumor| match rumor {
            Rumor::Claim(claim) => Rumor::Claim(raw(claim)),
            Rumor::Dead(claims) => Rumor::Dead(claims.iter().map(raw).collect()),
            Rumor::Ask(member) => Rumor::Ask(*member),
        });
        Packet { stamp: self.stamp, body: self.body, rumors: rumors.collect() }.encode()
    }
}

impl Packet<RawClaim> {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        write_head(&mut bytes, self.stamp, &self.body);
        for rumor in &self.rumors {
            write_rumor(&mut bytes, rumor);
        }
        bytes
    }

    /// Reads a packet. `resolve` tells whose short id it is; what is about nobody known is left out.
    ///
    /// # Errors
    /// [`PacketError`] if it is not one.
    pub fn decode(bytes: &[u8], resolve: &dyn Fn(ShortId) -> Option<NodeId>) -> Result<Self, PacketError> {
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(PacketError::TooLarge(bytes.len()));
        }
        let mut reader = Reader(bytes);
        let first = reader.take::<1>("kind")?[0];
        let run = reader.take::<1>("incarnation")?[0];
        let stamp = Stamp { run, refutations: reader.u16("incarnation")? };
        let body = reader.body(first)?;
        let mut rumors = Vec::new();
        while !reader.0.is_empty() {
            rumors.extend(reader.rumor(resolve)?);
        }
        Ok(Self { stamp, body, rumors })
    }

    /// Checks every signature. `open` is [`Signed::open`], or one that remembers what it has checked.
    ///
    /// # Errors
    /// [`RejectedClaim`] of the first that does not hold: who passes on what it did not check is at fault.
    pub fn check(
        self,
        open: &mut dyn FnMut(RawClaim) -> Result<Arc<Signed>, RejectedClaim>,
    ) -> Result<Packet<Arc<Signed>>, RejectedClaim> {
        let mut rumors = Vec::with_capacity(self.rumors.len());
        for rumor in self.rumors {
            rumors.push(match rumor {
                Rumor::Claim(claim) => Rumor::Claim(open(claim)?),
                Rumor::Dead(claims) => {
                    Rumor::Dead(claims.into_iter().map(&mut *open).collect::<Result<_, _>>()?)
                }
                Rumor::Ask(member) => Rumor::Ask(member),
            });
        }
        Ok(Packet { stamp: self.stamp, body: self.body, rumors })
    }

    /// Checks every signature, each for itself.
    ///
    /// # Errors
    /// As [`Packet::check`].
    pub fn open(self, network: &NetworkName) -> Result<Packet<Arc<Signed>>, RejectedClaim> {
        self.check(&mut |claim| Signed::open(claim.envelope(), network).map(Arc::new))
    }
}

fn write_head(bytes: &mut Vec<u8>, stamp: Stamp, body: &Body) {
    let (kind, sequence) = match body {
        Body::Gossip => (0, None),
        Body::Ping { sequence, more } => (1 | if *more { 0x10 } else { 0 }, Some(sequence)),
        Body::PingRequest { sequence, .. } => (2, Some(sequence)),
        Body::Ack { sequence, more } => (3 | if more.is_some() { 0x10 } else { 0 }, Some(sequence)),
        Body::Nack { sequence } => (4, Some(sequence)),
    };
    bytes.push(kind);
    bytes.push(stamp.run);
    bytes.extend(stamp.refutations.to_be_bytes());
    bytes.extend(sequence.map(|sequence| sequence.to_be_bytes()).into_iter().flatten());
    match body {
        Body::PingRequest { target, patience_ms, .. } => {
            bytes.extend(target.0.to_be_bytes());
            bytes.extend(patience_ms.to_be_bytes());
        }
        Body::Ack { more: Some(more), .. } => {
            let Coordinate { axes, height, error } = more.coordinate;
            bytes.extend(axes.iter().flat_map(|axis| axis.to_be_bytes()));
            bytes.extend(height.to_be_bytes());
            bytes.extend(error.to_be_bytes());
            bytes.extend(more.root.to_be_bytes());
        }
        Body::Gossip | Body::Ping { .. } | Body::Ack { more: None, .. } | Body::Nack { .. } => {}
    }
}

fn write_rumor(bytes: &mut Vec<u8>, rumor: &Rumor<RawClaim>) {
    let short = |node: &NodeId| ShortId::of(node).0.to_be_bytes();
    match rumor {
        Rumor::Claim(RawClaim::Alive { author, body, signature }) => {
            bytes.push(1);
            bytes.extend(author.public_key());
            bytes.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(body);
            bytes.extend(signature);
        }
        Rumor::Claim(RawClaim::Own { author, incarnation, leaves, signature }) => {
            bytes.push(if *leaves { 4 } else { 2 });
            bytes.extend(short(author));
            bytes.extend(incarnation.as_u64().to_be_bytes());
            bytes.extend(signature);
        }
        Rumor::Claim(RawClaim::Suspect { subject, incarnation, accuser, signature }) => {
            bytes.push(3);
            bytes.extend(short(subject));
            bytes.extend(incarnation.as_u64().to_be_bytes());
            bytes.extend(short(accuser));
            bytes.extend(signature);
        }
        Rumor::Claim(RawClaim::Remove { subject, incarnation, author, signature }) => {
            bytes.push(7);
            bytes.extend(short(subject));
            bytes.extend(incarnation.as_u64().to_be_bytes());
            bytes.extend(short(author));
            bytes.extend(signature);
        }
        Rumor::Dead(claims) => {
            let suspects = claims.iter().filter_map(|claim| match claim {
                RawClaim::Suspect { subject, incarnation, accuser, signature } => {
                    Some((subject, incarnation, accuser, signature))
                }
                RawClaim::Alive { .. } | RawClaim::Own { .. } | RawClaim::Remove { .. } => None,
            });
            let suspects: Vec<_> = suspects.take(CERTIFICATE_MAX).collect();
            let Some((subject, incarnation, ..)) = suspects.first() else { return };
            bytes.push(5);
            bytes.extend(short(subject));
            bytes.extend(incarnation.as_u64().to_be_bytes());
            bytes.push(u8::try_from(suspects.len()).unwrap_or(u8::MAX));
            for (_, _, accuser, signature) in &suspects {
                bytes.extend(short(accuser));
                bytes.extend(*signature);
            }
        }
        Rumor::Ask(member) => {
            bytes.push(6);
            bytes.extend(member.0.to_be_bytes());
        }
    }
}

/// What is left of a packet.
struct Reader<'a>(&'a [u8]);

type Resolve<'a> = &'a dyn Fn(ShortId) -> Option<NodeId>;

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], PacketError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(PacketError::Short(what))?;
        self.0 = rest;
        Ok(*first)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, PacketError> {
        self.take(what).map(u16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, PacketError> {
        self.take(what).map(i32::from_be_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, PacketError> {
        self.take(what).map(u64::from_be_bytes)
    }

    fn body(&mut self, kind: u8) -> Result<Body, PacketError> {
        Ok(match kind {
            0 => Body::Gossip,
            1 | 0x11 => Body::Ping { sequence: self.u16("sequence")?, more: kind == 0x11 },
            2 => Body::PingRequest {
                sequence: self.u16("sequence")?,
                target: ShortId(self.u64("target")?),
                patience_ms: self.u16("patience")?,
            },
            3 => Body::Ack { sequence: self.u16("sequence")?, more: None },
            0x13 => Body::Ack { sequence: self.u16("sequence")?, more: Some(self.more()?) },
            4 => Body::Nack { sequence: self.u16("sequence")? },
            other => return Err(PacketError::Unknown("kind", other)),
        })
    }

    fn more(&mut self) -> Result<More, PacketError> {
        let mut axes = [0; 4];
        for axis in &mut axes {
            *axis = self.i32("coordinate")?;
        }
        let (height, error) = (self.i32("coordinate")?, self.u16("coordinate")?);
        Ok(More { coordinate: Coordinate { axes, height, error }, root: self.u64("root")? })
    }

    fn rumor(&mut self, resolve: Resolve<'_>) -> Result<Option<Rumor<RawClaim>>, PacketError> {
        let tag = self.take::<1>("rumour")?[0];
        Ok(match tag {
            1 => Some(Rumor::Claim(self.alive()?)),
            2 | 4 => {
                let author = resolve(ShortId(self.u64("author")?));
                let incarnation = Incarnation::from_u64(self.u64("incarnation")?);
                let signature = self.take("signature")?;
                let own = |author| RawClaim::Own { author, incarnation, leaves: tag == 4, signature };
                author.map(|author| Rumor::Claim(own(author)))
            }
            3 | 7 => {
                let subject = resolve(ShortId(self.u64("subject")?));
                let incarnation = Incarnation::from_u64(self.u64("incarnation")?);
                let author = resolve(ShortId(self.u64("author")?));
                let signature = self.take("signature")?;
                let both = subject.zip(author);
                both.map(|(subject, author)| {
                    Rumor::Claim(if tag == 3 {
                        RawClaim::Suspect { subject, incarnation, accuser: author, signature }
                    } else {
                        RawClaim::Remove { subject, incarnation, author, signature }
                    })
                })
            }
            5 => self.certificate(resolve)?,
            6 => Some(Rumor::Ask(ShortId(self.u64("member")?))),
            other => return Err(PacketError::Unknown("rumour", other)),
        })
    }

    fn alive(&mut self) -> Result<RawClaim, PacketError> {
        let author = NodeId::from_public_key(self.take("author")?);
        let length = usize::from(self.u16("length")?);
        if length > RECORD_BYTES_MAX {
            return Err(PacketError::Count("length of a record", length));
        }
        let (body, rest) = self.0.split_at_checked(length).ok_or(PacketError::Short("record"))?;
        self.0 = rest;
        Ok(RawClaim::Alive { author, body: body.to_vec(), signature: self.take("signature")? })
    }

    fn certificate(&mut self, resolve: Resolve<'_>) -> Result<Option<Rumor<RawClaim>>, PacketError> {
        let subject = resolve(ShortId(self.u64("subject")?));
        let incarnation = Incarnation::from_u64(self.u64("incarnation")?);
        let count = usize::from(self.take::<1>("count")?[0]);
        if count == 0 || count > CERTIFICATE_MAX {
            return Err(PacketError::Count("number of accusations", count));
        }
        let mut claims = Vec::with_capacity(count);
        for _ in 0..count {
            let accuser = resolve(ShortId(self.u64("accuser")?));
            let signature = self.take("signature")?;
            let both = subject.zip(accuser);
            claims.extend(both.map(|(subject, accuser)| RawClaim::Suspect {
                subject,
                incarnation,
                accuser,
                signature,
            }));
        }
        Ok((!claims.is_empty()).then_some(Rumor::Dead(claims)))
    }
}

#[cfg(test)]
mod tests;
