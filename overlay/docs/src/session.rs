//! What is known of one peer for one document: the handshake's proofs, where it stands, transfers.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{DocTag, FeedId, NodeId, ReadSecret, Time, cbor, keyed};

use crate::document::Hash;
use crate::feed::Top;
use crate::message::{Message, Nonce, PART_BYTES};
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::replica::Allowance;

/// Parts of a transfer at most.
const PARTS_MAX: u32 = (PAYLOAD_BYTES_MAX / PART_BYTES) as u32 + 1;

/// Where a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub control: ByteArray<32>,
    pub heads: Vec<Hash>,
    pub feeds: ByteArray<32>,
}

/// A peer that proved the read secret.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// When the handshake ended.
    pub opened: Time,
    /// Whether it said anything since: who did not may have missed the handshake's end.
    pub heard: bool,
    /// What it was last told about this replica.
    pub told: Option<Standing>,
    /// When that was.
    pub told_at: Time,
    /// What it last told.
    pub theirs: Option<Standing>,
    /// A transfer to it.
    pub outgoing: Option<Outgoing>,
    /// A transfer from it.
    pub incoming: Option<Incoming>,
    /// When its transfer is given up and asked for anew.
    pub wanted_until: Option<Time>,
    /// Of the last questions and payloads how many brought nothing, or what misses something that it builds on.
    pub gaps: u32,
    /// The heads there when all that it has was asked for.
    pub asked_whole: Option<Vec<Hash>>,
    /// How far feeds are there, as it said.
    pub feeds: BTreeMap<FeedId, Top>,
    /// What it was asked of feeds and has not answered, the oldest first.
    pub fetching: Vec<Fetching>,
    /// From where on it was asked for entries of a feed and gave none that were new: what is asked next lies below.
    pub asked_from: BTreeMap<FeedId, u64>,
    /// Feeds of which it claimed more than it gave when it was asked.
    pub doubted: BTreeSet<FeedId>,
    /// How many times entries are being read for it.
    pub giving: u8,
    /// Members whose changes it gets on a shorter way, as it said.
    pub pruned: BTreeSet<NodeId>,
    /// How much of presence it may still bring.
    pub presence: Allowance,
    /// How much it may still say in passing.
    pub signals: Allowance,
}

/// Entries that were asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetching {
    /// Until when an answer is waited for.
    pub until: Time,
    pub feed: FeedId,
    pub first: u64,
    pub last: u64,
}

/// A transfer that the other side pulls.
#[derive(Debug)]
pub(crate) struct Outgoing {
    number: u32,
    bytes: Vec<u8>,
}

/// A transfer that is being pulled.
#[derive(Debug)]
pub(crate) struct Incoming {
    number: u32,
    parts: u32,
    next: u32,
    bytes: Vec<u8>,
}

/// What came of a part.
pub(crate) enum Progress {
    /// All is here.
    Whole(Payload),
    /// The next part is to be asked for.
    Next(Message),
    /// Not the part that was asked for: old or doubled.
    Stale,
    /// No payload at all.
    Malformed,
}

impl Outgoing {
    pub(crate) fn new(number: u32, payload: &Payload) -> Self {
        Self { number, bytes: cbor::encode(payload) }
    }

    fn parts(&self) -> u32 {
        u32::try_from(self.bytes.len().div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
    }

    /// Whether it is more than a peer takes.
    pub(crate) const fn is_too_large(&self) -> bool {
        self.bytes.len() > PAYLOAD_BYTES_MAX
    }

    /// One part; none behind the last.
    pub(crate) fn part(&self, number: u32, part: u32) -> Option<Message> {
        let bytes = self.bytes.chunks(PART_BYTES).nth(part as usize).filter(|_| number == self.number)?;
        Some(Message::Part {
            transfer: number,
            part,
            parts: self.parts(),
            bytes: ByteBuf::from(bytes.to_vec()),
        })
    }

    pub(crate) fn is_last(&self, part: u32) -> bool {
        part.saturating_add(1) >= self.parts()
    }
}

impl Session {
    /// Takes the question that an answer is to: entries of a feed, of which the newest has this number.
    pub(crate) fn take_asked(&mut self, feed: &FeedId, newest: Option<u64>) -> Option<Fetching> {
        let is_it =
            |it: &Fetching| it.feed == *feed && newest.is_none_or(|seq| (it.first..=it.last).contains(&seq));
        let at = self.fetching.iter().position(is_it)?;
        Some(self.fetching.remove(at))
    }

    /// Takes one part of a transfer. A push of one part is a transfer too.
    pub(crate) fn take_part(&mut self, number: u32, part: u32, parts: u32, bytes: &[u8]) -> Progress {
        if parts == 0 || parts > PARTS_MAX || part >= parts || bytes.len() > PART_BYTES {
            return Progress::Malformed;
        }
        if parts == 1 {
            return whole(bytes);
        }
        if part == 0 {
            self.incoming = Some(Incoming { number, parts, next: 0, bytes: Vec::new() });
        }
        let Some(incoming) = &mut self.incoming else { return Progress::Stale };
        if (incoming.number, incoming.parts, incoming.next) != (number, parts, part) {
            return Progress::Stale;
        }
        incoming.bytes.extend(bytes);
        incoming.next += 1;
        if incoming.next < parts {
            return Progress::Next(Message::More { transfer: number, part: incoming.next });
        }
        let bytes = self.incoming.take().map(|incoming| incoming.bytes).unwrap_or_default();
        whole(&bytes)
    }
}

fn whole(bytes: &[u8]) -> Progress {
    cbor::decode(bytes, PAYLOAD_BYTES_MAX).map_or(Progress::Malformed, Progress::Whole)
}

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Said hello.
    Asking,
    /// Was asked.
    Asked,
}

/// The proof of one side: both nonces and both identities are in it, so it proves nothing anywhere else.
pub(crate) fn proof(
    secret: &ReadSecret,
    side: Side,
    asking: (&NodeId, &Nonce),
    asked: (&NodeId, &Nonce),
) -> ByteArray<32> {
    let label: &[u8] = if side == Side::Asking { b"asking" } else { b"asked" };
    let parts = [label, asking.0.public_key(), asking.1.as_slice(), asked.0.public_key(), asked.1.as_slice()];
    ByteArray::new(secret.proof(&parts))
}

/// What the asked side answers with, made from the question: it keeps no state for who asks.
pub(crate) fn nonce_for(link: &[u8; 32], tag: &DocTag, nonce: &Nonce) -> Nonce {
    let whole = keyed(link, &[b"nonce", tag.as_bytes(), nonce.as_slice()]);
    Nonce::new(whole.first_chunk().copied().unwrap_or_default())
}

/// What is answered about a document that is not here: as random as a proof.
pub(crate) fn no_proof(link: &[u8; 32], tag: &DocTag, nonce: &Nonce) -> ByteArray<32> {
    ByteArray::new(keyed(link, &[b"no proof", tag.as_bytes(), nonce.as_slice()]))
}
