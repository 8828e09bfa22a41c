//! Sync messages of automerge: what two replicas say to each other, and the chunks inside.

use super::content::skip_hashes;
use super::reader::{Reader, split_prefixed};
use super::{Caps, ChunkError, Summary, inspect_into};

/// Filters in one message. Automerge sends one; each is asked for every change that the receiver has.
pub const SYNC_HAVES_MAX: u64 = 8;

/// Probes of a filter. Automerge uses 7; it allocates and loops for as many as the message says.
pub const BLOOM_PROBES_MAX: u64 = 16;

const VERSIONS: [u8; 2] = [0x42, 0x43];

/// Why a sync message must not reach automerge. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// A version that automerge 0.12 does not speak.
    #[error("sync messages of version {version:#04x} are not known")]
    Version {
        /// The version that was named.
        version: u8,
    },
    /// More filters than [`SYNC_HAVES_MAX`].
    #[error("{got} filters are more than the {max} allowed")]
    Haves {
        /// Filters named.
        got: u64,
        /// Filters allowed.
        max: u64,
    },
    /// A filter that would divide by zero, or loop or allocate without a bound.
    #[error("a Bloom filter of {entries} entries with {bits} bits and {probes} probes each")]
    Bloom {
        /// Entries it says it has.
        entries: u64,
        /// Bits for each.
        bits: u64,
        /// Probes for each.
        probes: u64,
    },
    /// The message itself, or a chunk in it, is not what it must be.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// What is in a sync message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Heads that the sender has.
    pub heads: u64,
    /// Changes that the sender asks for.
    pub needs: u64,
    /// Filters of what the sender has.
    pub haves: u64,
    /// All chunks.
    pub chunks: Summary,
}

/// Inspects a sync message of automerge, version 1 or 2, with all chunks in it.
///
/// # Errors
/// [`SyncError`] for anything that automerge must not be given.
pub fn inspect_sync(bytes: &[u8]) -> Result<SyncSummary, SyncError> {
    inspect_within(bytes, Caps::FILE)
}

/// Bytes of a sync message whose lists are soon walked.
const LITTLE_BYTES: usize = 2 * 1024;

/// Whether a sync message is answered in half a millisecond, for all that it brings and asks.
pub(crate) fn is_little_sync(bytes: &[u8]) -> bool {
    bytes.len() <= LITTLE_BYTES
        && inspect_within(bytes, Caps::LITTLE).is_ok_and(|summary| summary.chunks.is_little())
}

fn inspect_within(bytes: &[u8], caps: Caps) -> Result<SyncSummary, SyncError> {
    let mut reader = Reader::plain(bytes);
    let version = reader.byte()?;
    if !VERSIONS.contains(&version) {
        return Err(SyncError::Version { version });
    }
    let heads = skip_hashes(&mut reader)?;
    let needs = skip_hashes(&mut reader)?;
    let haves = reader.unsigned()?;
    if haves > SYNC_HAVES_MAX {
        return Err(SyncError::Haves { got: haves, max: SYNC_HAVES_MAX });
    }
    for _ in 0..haves {
        skip_hashes(&mut reader)?;
        let (filter, _rest) = split_prefixed(reader.rest())?;
        let length = reader.unsigned()?;
        reader.skip(length)?;
        inspect_filter(filter)?;
    }
    let mut chunks = Summary::default();
    let count = reader.unsigned()?;
    let mut rest = reader.rest();
    for _ in 0..count {
        let (item, after) = split_prefixed(rest)?;
        inspect_into(item, &mut chunks, caps)?;
        rest = after;
    }
    if !rest.is_empty() {
        let (_flags, after) = split_prefixed(rest)?;
        if !after.is_empty() {
            return Err(ChunkError::Trailing.into());
        }
    }
    Ok(SyncSummary { heads, needs, haves, chunks })
}

/// A Bloom filter: entries, bits and probes for each, then all bits. An empty one has no bytes.
fn inspect_filter(bytes: &[u8]) -> Result<(), SyncError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::plain(bytes);
    let (entries, bits, probes) = (reader.unsigned()?, reader.unsigned()?, reader.unsigned()?);
    let claimed = entries.checked_mul(bits).map(|bits| bits.div_ceil(8));
    if probes > BLOOM_PROBES_MAX || claimed.is_none_or(|bytes| bytes == 0) {
        return Err(SyncError::Bloom { entries, bits, probes });
    }
    reader.skip(claimed.unwrap_or_default())?;
    if reader.at_end()? { Ok(()) } else { Err(ChunkError::Trailing.into()) }
}
