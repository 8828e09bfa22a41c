//! Automerge bytes, bounded before the decoder sees them.
//!
//! # What it does
//!
//! Walks automerge chunks and sync messages without building anything, and refuses what would make
//! automerge inflate, allocate or loop without a bound. A panic of the decoder can be caught on a worker; an
//! endless loop and an allocation that aborts the process cannot. Those are what this module is for.
//!
//! # Source
//!
//! The binary format of automerge (<https://automerge.org/automerge-binary-format-spec/>) and the sources of
//! automerge 0.12 (`storage/chunk.rs`, `storage/document.rs`, `storage/change.rs`, `sync.rs`,
//! `sync/bloom.rs`).
//!
//! # Protocol
//!
//! 1. Bytes are one or more chunks, nothing before, between or after them: magic `85 6f 4a 83`, four bytes of
//!    checksum, the kind, the length as uLEB128, the content.
//! 2. The checksum is the head of SHA-256 over kind, length and content; that of a compressed change is over
//!    the change that it inflates to. Inflating happens in a window of 32 KiB that is thrown away.
//! 3. A change names dependencies, actors and columns; a document names actors, heads and two groups of
//!    columns. Each column is run-length encoded: 69 bytes can say 2^40 operations, so runs are added up.
//! 4. A sync message is a version, heads, needs, filters of what the sender has, chunks, flags.
//!
//! # Deviations from automerge
//!
//! * Bundles (kind 3, hidden in automerge 0.12) are refused: no honest peer of ours sends one.
//! * Bytes after a deflate stream, after the flags of a sync message and after a Bloom filter are refused;
//!   automerge ignores them. So are columns named twice.
//!
//! # Bounds
//!
//! Memory: 32 KiB and the tables of the inflater, whatever comes. Work: linear in the bytes and in what they
//! inflate to, at most [`INFLATED_BYTES_MAX`] twice. What automerge may be given then: one change of
//! [`CHANGE_ROWS_MAX`] rows at about 470 bytes each while it is applied, one document of [`DOCUMENT_ROWS_MAX`] at
//! about 95 bytes each while it is read, 250 MB and 200 MB; and [`ROWS_MAX`] of all, which whoever applies them
//! takes in slices.
//!
//! # Not here
//!
//! Whether a change means anything: automerge refuses nonsense, and may panic while it does. How many changes
//! and actors a document gathers over its life: the rights of its writers decide.

mod columns;
mod content;
mod load;
mod reader;
mod sync;
#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

use content::Content;
use reader::{Reader, measure, split_prefixed};

pub use load::load;
pub(crate) use sync::is_little_sync;
pub use sync::{BLOOM_PROBES_MAX, SYNC_HAVES_MAX, SyncError, SyncSummary, inspect_sync};

/// What all chunks of one input may hold, compressed parts inflated. Four times the largest frame between
/// nodes: text inflates to about three times its size.
pub const INFLATED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How much more than its own size a deflated part may hold. Deflate reaches 1030; prose stays below 10, and
/// only a megabyte of the same few words over and over comes near.
pub const RATIO_MAX: u64 = 100;

/// A deflated part may hold this much whatever its ratio: a page of the same letter is honest, and small.
pub const RATIO_FREE_BYTES: u64 = 1024 * 1024;

/// Rows of one change. Automerge has all of a change in memory while it applies it, 470 bytes for each (measured):
/// 250 MB. Half a megabyte that is pasted at once is one change; what is more is made in steps.
pub const CHANGE_ROWS_MAX: u64 = 512 * 1024;

/// Rows of one whole document: operations, or changes where it holds more of those. Automerge has all of them in
/// memory while it reads it, 95 bytes for each (measured): 200 MB. A paper written letter by letter has 260 thousand; a
/// document with more is given as changes.
pub const DOCUMENT_ROWS_MAX: u64 = 2 * 1024 * 1024;

/// Rows of all chunks of one input, a microsecond each, and a few bytes for good: a text of 10 MiB that was written
/// and replaced by another as long, which was written too.
pub const ROWS_MAX: u64 = 32 * 1024 * 1024;

/// Actors that one chunk names. Each session of an editor is one; 65,536 take a megabyte for their names.
pub const ACTORS_MAX: u64 = 64 * 1024;

/// Actors times changes of one document. Automerge keeps a clock of all actors for every sixteenth change,
/// four bytes an entry: 256 MiB.
pub const CLOCK_CELLS_MAX: u64 = 1 << 30;

/// Columns of one group. Automerge writes 16 at most; the rest is room for what it may add.
pub const COLUMNS_MAX: u64 = 64;

/// What the chunks of one input may hold.
#[derive(Clone, Copy)]
struct Caps {
    /// Whether a part may be compressed.
    inflates: bool,
    /// Rows of one whole document.
    document_rows: u64,
    rows: u64,
}

impl Caps {
    /// From a peer.
    const PEER: Self = Self { inflates: true, document_rows: DOCUMENT_ROWS_MAX, rows: ROWS_MAX };

    /// From this machine's user, or a program of it: the largest text, and half as much that was deleted. Automerge
    /// takes 95 bytes for each row while it reads them: a gigabyte for the largest text. No less would read what it
    /// saves itself.
    const FILE: Self = Self { document_rows: 16 * 1024 * 1024, ..Self::PEER };

    /// What [`Summary::is_little`].
    const LITTLE: Self = Self { inflates: false, document_rows: 256, rows: 256 };
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;

/// Why bytes must not reach automerge. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No bytes at all.
    #[error("no chunk")]
    Empty,
    /// Something else than a chunk where one must begin.
    #[error("not a chunk")]
    NotAChunk,
    /// A document or a further chunk where one change was asked for.
    #[error("not one change")]
    NotOneChange,
    /// A kind of chunk that automerge does not write here.
    #[error("chunks of kind {kind} are not accepted")]
    Kind {
        /// The kind that was named.
        kind: u8,
    },
    /// Fewer bytes than they say.
    #[error("cut short")]
    Truncated,
    /// Bytes after the end of what they belong to.
    #[error("bytes after the end")]
    Trailing,
    /// A number of more than 64 bits.
    #[error("a number does not fit")]
    Number,
    /// The checksum is of other content.
    #[error("checksum {got:02x?} of content that has {expected:02x?}")]
    Checksum {
        /// What the chunk says.
        got: [u8; 4],
        /// What its content has.
        expected: [u8; 4],
    },
    /// Not a deflate stream.
    #[error("a compressed part is damaged")]
    Deflate,
    /// More inflated bytes than [`INFLATED_BYTES_MAX`].
    #[error("more than {max} bytes when inflated")]
    Inflated {
        /// Bytes allowed.
        max: u64,
    },
    /// Inflates to more than [`RATIO_MAX`] times its size.
    #[error("{deflated} bytes that inflate to more than {max}")]
    Ratio {
        /// Bytes of the deflated part.
        deflated: u64,
        /// Bytes it may inflate to.
        max: u64,
    },
    /// Columns are too many, out of order, named twice, or compressed inside a change.
    #[error("columns in disorder")]
    Columns,
    /// More rows than [`CHANGE_ROWS_MAX`], [`DOCUMENT_ROWS_MAX`] or [`ROWS_MAX`].
    #[error("more than {max} rows")]
    Rows {
        /// Rows allowed.
        max: u64,
    },
    /// More actors than [`ACTORS_MAX`].
    #[error("{got} actors are more than the {max} allowed")]
    Actors {
        /// Actors named.
        got: u64,
        /// Actors allowed.
        max: u64,
    },
    /// Actors times changes are more than [`CLOCK_CELLS_MAX`].
    #[error("the clocks of {actors} actors at {changes} changes are too many")]
    Clocks {
        /// Actors of the document.
        actors: u64,
        /// Changes of the document.
        changes: u64,
    },
}

/// What passed: numbers to account for before automerge is given the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Document chunks.
    pub documents: u64,
    /// Change chunks as they are.
    pub changes: u64,
    /// Change chunks that were compressed.
    pub compressed_changes: u64,
    /// Bytes of content with every compressed part inflated.
    pub inflated_bytes: u64,
    /// Rows that automerge will build: operations, or changes where a document has more of those.
    pub rows: u64,
    /// Of these, the rows of the largest document.
    pub document_rows: u64,
    /// Changes, those in documents among them.
    pub history: u64,
    /// Actors that documents name, and one for each change by itself.
    pub actors: u64,
}

impl Summary {
    /// Whether this is applied, or read, in half a millisecond, as long as nothing of it is compressed: a change takes
    /// as long as twenty operations, and each actor may come to be one signature.
    const fn is_little(&self) -> bool {
        self.rows <= Caps::LITTLE.rows && self.history <= 16 && self.actors <= 8
    }
}

/// What a single change is, before automerge sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeSummary {
    /// The hash that automerge names the change by.
    pub hash: [u8; 32],
    /// Bytes of content, inflated.
    pub inflated_bytes: u64,
    /// Operations.
    pub rows: u64,
}

/// Inspects bytes that should be one or more chunks, as `load_incremental` takes them.
///
/// # Errors
/// [`ChunkError`] for anything that automerge must not be given.
pub fn inspect(bytes: &[u8]) -> Result<Summary, ChunkError> {
    let mut summary = Summary::default();
    inspect_into(bytes, &mut summary, Caps::PEER)?;
    Ok(summary)
}

/// Inspects bytes that should be exactly one change, compressed or not.
///
/// # Errors
/// [`ChunkError`] for anything that automerge must not be given, and for a document or a second chunk.
pub fn inspect_change(bytes: &[u8]) -> Result<ChangeSummary, ChunkError> {
    let (chunk, rest) = Chunk::split(bytes)?;
    if chunk.kind == DOCUMENT || !rest.is_empty() {
        return Err(ChunkError::NotOneChange);
    }
    let mut summary = Summary::default();
    let hash = chunk.inspect(&mut summary, Caps::PEER)?;
    Ok(ChangeSummary { hash, inflated_bytes: summary.inflated_bytes, rows: summary.rows })
}

/// The chunks of bytes that were inspected, one by one.
///
/// # Errors
/// [`ChunkError`] where no chunk begins.
pub(crate) fn split(bytes: &[u8]) -> Result<Vec<&[u8]>, ChunkError> {
    let (mut chunks, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (_, after) = Chunk::split(rest)?;
        let (chunk, after) = rest.split_at(rest.len().saturating_sub(after.len()));
        chunks.push(chunk);
        rest = after;
    }
    Ok(chunks)
}

/// Whether chunks that come together are applied, or read, in half a millisecond.
pub(crate) fn are_little<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut summary = Summary::default();
    let is_plain = chunks.into_iter().all(|bytes| inspect_into(bytes, &mut summary, Caps::LITTLE).is_ok());
    is_plain && summary.is_little()
}

/// Adds the chunks of `bytes` to a summary, whose numbers count against the caps.
fn inspect_into(bytes: &[u8], summary: &mut Summary, caps: Caps) -> Result<(), ChunkError> {
    if bytes.is_empty() {
        return Err(ChunkError::Empty);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = Chunk::split(rest)?;
        chunk.inspect(summary, caps)?;
        rest = after;
    }
    Ok(())
}

/// A chunk whose content is still closed.
struct Chunk<'a> {
    checksum: [u8; 4],
    kind: u8,
    content: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The first chunk of `bytes`, and the bytes after it.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ChunkError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(ChunkError::Truncated)?;
        if *magic != MAGIC {
            return Err(ChunkError::NotAChunk);
        }
        let (checksum, rest) = rest.split_first_chunk().ok_or(ChunkError::Truncated)?;
        let (kind, rest) = rest.split_first().ok_or(ChunkError::Truncated)?;
        if ![DOCUMENT, CHANGE, COMPRESSED_CHANGE].contains(kind) {
            return Err(ChunkError::Kind { kind: *kind });
        }
        let (content, rest) = split_prefixed(rest)?;
        Ok((Self { checksum: *checksum, kind: *kind, content }, rest))
    }

    /// Opens the content; the hash of what is in it.
    fn inspect(&self, summary: &mut Summary, caps: Caps) -> Result<[u8; 32], ChunkError> {
        let mut content = Content::new(summary, caps);
        match self.kind {
            DOCUMENT => {
                let hash = self.check(Hash::of(DOCUMENT, size(self.content)).over(self.content))?;
                content.document(self.content)?;
                summary.documents = summary.documents.saturating_add(1);
                Ok(hash)
            }
            CHANGE => {
                let hash = self.check(Hash::of(CHANGE, size(self.content)).over(self.content))?;
                content.change(&mut Reader::plain(self.content))?;
                summary.changes = summary.changes.saturating_add(1);
                Ok(hash)
            }
            _ => {
                let bound = content.bound(size(self.content))?;
                // The hash begins with the length, which nothing else says: inflated once to know it.
                let mut hash = Hash::of(CHANGE, measure(self.content, bound)?);
                content.change(&mut Reader::hashed(self.content, bound, &mut hash))?;
                let hash = self.check(hash.finish())?;
                summary.compressed_changes = summary.compressed_changes.saturating_add(1);
                Ok(hash)
            }
        }
    }

    fn check(&self, hash: [u8; 32]) -> Result<[u8; 32], ChunkError> {
        let [a, b, c, d, ..] = hash;
        let expected = [a, b, c, d];
        if self.checksum == expected {
            Ok(hash)
        } else {
            Err(ChunkError::Checksum { got: self.checksum, expected })
        }
    }
}

/// The hash of a chunk: kind and length first.
struct Hash(Sha256);

impl Hash {
    fn of(kind: u8, length: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update([kind]);
        let mut rest = length;
        while rest > 0x7f {
            hash.update([low_bits(rest) | 0x80]);
            rest >>= 7;
        }
        hash.update([low_bits(rest)]);
        Self(hash)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn over(mut self, bytes: &[u8]) -> [u8; 32] {
        self.update(bytes);
        self.finish()
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The low seven bits, as one byte of uLEB128 holds them.
fn low_bits(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low & 0x7f
}

/// How many bytes; `usize` is never wider than 64 bits.
fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
