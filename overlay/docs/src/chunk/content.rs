//! The content of changes and documents, walked in the order in which it is written.

use super::columns::{Column, RowCap};
use super::reader::{Bound, Reader};
use super::{
    ACTORS_MAX, CHANGE_ROWS_MAX, CLOCK_CELLS_MAX, Caps, ChunkError, INFLATED_BYTES_MAX, Summary, size,
};

const HASH_BYTES: u64 = 32;

/// A walk that counts against the caps.
pub(super) struct Content<'s> {
    summary: &'s mut Summary,
    caps: Caps,
}

impl<'s> Content<'s> {
    pub(super) const fn new(summary: &'s mut Summary, caps: Caps) -> Self {
        Self { summary, caps }
    }

    /// Bytes that may still be inflated.
    const fn inflated_left(&self) -> u64 {
        INFLATED_BYTES_MAX.saturating_sub(self.summary.inflated_bytes)
    }

    /// How far so many deflated bytes may inflate.
    pub(super) fn bound(&self, deflated: u64) -> Result<Bound, ChunkError> {
        let bound = Bound::deflated(deflated, self.inflated_left());
        if self.caps.inflates { Ok(bound) } else { Err(ChunkError::Inflated { max: 0 }) }
    }

    /// What a chunk may hold that by itself may have so many rows.
    const fn rows(&self, max: u64) -> RowCap {
        let left = self.caps.rows.saturating_sub(self.summary.rows);
        if left < max { RowCap { left, max: self.caps.rows } } else { RowCap { left: max, max } }
    }

    fn add_bytes(&mut self, bytes: u64) -> Result<(), ChunkError> {
        if bytes > self.inflated_left() {
            return Err(ChunkError::Inflated { max: INFLATED_BYTES_MAX });
        }
        self.summary.inflated_bytes = self.summary.inflated_bytes.saturating_add(bytes);
        Ok(())
    }

    /// A change: dependencies, author, numbers, message, other actors, columns, and whatever comes after.
    pub(super) fn change(&mut self, reader: &mut Reader<'_>) -> Result<(), ChunkError> {
        self.add_bytes(size(reader.rest()))?;
        skip_hashes(reader)?;
        skip_prefixed(reader)?;
        let (_sequence, _start) = (reader.unsigned()?, reader.unsigned()?);
        let _time = reader.signed()?;
        skip_prefixed(reader)?;
        skip_actors(reader)?;
        let columns = Column::read_all(reader)?;
        // Automerge refuses them too; only whole changes are compressed.
        if columns.iter().any(|column| column.is_deflated()) {
            return Err(ChunkError::Columns);
        }
        let mut rows = 0;
        for column in columns {
            let cap = self.rows(CHANGE_ROWS_MAX);
            rows = rows.max(reader.section(column.length, |section| column.count(section, cap))?);
        }
        self.summary.rows = self.summary.rows.saturating_add(rows);
        self.summary.history = self.summary.history.saturating_add(1);
        self.summary.actors = self.summary.actors.saturating_add(1);
        reader.skip_all()?;
        self.add_bytes(reader.inflated())
    }

    /// A document: actors, heads, the columns of its changes and of its operations, and the heads' places.
    pub(super) fn document(&mut self, content: &[u8]) -> Result<(), ChunkError> {
        let mut reader = Reader::plain(content);
        let actors = skip_actors(&mut reader)?;
        let heads = skip_hashes(&mut reader)?;
        let of_changes = Column::read_all(&mut reader)?;
        let of_operations = Column::read_all(&mut reader)?;
        let deflated = of_changes.iter().chain(&of_operations).map(|column| column.deflated());
        let deflated = deflated.fold(0, u64::saturating_add);
        self.add_bytes(size(content).saturating_sub(deflated))?;
        let changes = self.columns(&of_changes, &mut reader)?;
        if actors.saturating_mul(changes) > CLOCK_CELLS_MAX {
            return Err(ChunkError::Clocks { actors, changes });
        }
        let operations = self.columns(&of_operations, &mut reader)?;
        let rows = changes.max(operations);
        self.summary.rows = self.summary.rows.saturating_add(rows);
        self.summary.history = self.summary.history.saturating_add(changes);
        self.summary.actors = self.summary.actors.saturating_add(actors);
        self.summary.document_rows = self.summary.document_rows.max(rows);
        // Documents of the first versions end here, without the places.
        if !reader.at_end()? {
            for _ in 0..heads {
                reader.unsigned()?;
            }
        }
        if reader.at_end()? { Ok(()) } else { Err(ChunkError::Trailing) }
    }

    /// The rows of the longest of a document's columns.
    fn columns(&mut self, columns: &[Column], reader: &mut Reader<'_>) -> Result<u64, ChunkError> {
        let mut rows = 0;
        for column in columns {
            let length = usize::try_from(column.length).map_err(|_too_long| ChunkError::Truncated)?;
            let bytes = reader.rest().get(..length).ok_or(ChunkError::Truncated)?;
            reader.skip(column.length)?;
            let mut cells = if column.is_deflated() {
                Reader::deflated(bytes, self.bound(column.length)?)
            } else {
                Reader::plain(bytes)
            };
            rows = rows.max(column.count(&mut cells, self.rows(self.caps.document_rows))?);
            self.add_bytes(cells.inflated())?;
        }
        Ok(rows)
    }
}

/// How many hashes there are; they are passed over.
pub(super) fn skip_hashes(reader: &mut Reader<'_>) -> Result<u64, ChunkError> {
    let count = reader.unsigned()?;
    reader.skip(count.checked_mul(HASH_BYTES).ok_or(ChunkError::Truncated)?)?;
    Ok(count)
}

/// Passes over bytes with their length before them.
fn skip_prefixed(reader: &mut Reader<'_>) -> Result<(), ChunkError> {
    let length = reader.unsigned()?;
    reader.skip(length)
}

/// How many actors there are; they are passed over.
fn skip_actors(reader: &mut Reader<'_>) -> Result<u64, ChunkError> {
    let count = reader.unsigned()?;
    if count > ACTORS_MAX {
        return Err(ChunkError::Actors { got: count, max: ACTORS_MAX });
    }
    for _ in 0..count {
        skip_prefixed(reader)?;
    }
    Ok(count)
}
