//! Run-length encoded columns, counted.

use super::reader::Reader;
use super::{COLUMNS_MAX, ChunkError};

const DEFLATED: u32 = 0b1000;

/// A column as the head of its group names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    spec: u32,
    /// Bytes as they are in the chunk.
    pub(super) length: u64,
}

/// What the low three bits of a column's name say of its cells.
enum Cell {
    /// uLEB128, and how many cells of other columns each row has.
    Group,
    /// uLEB128: an actor, a number, the kind and length of a value.
    Unsigned,
    /// Signed LEB128: the distance from the row before.
    Delta,
    /// Lengths of runs of false and true.
    Boolean,
    /// A length, then so many bytes.
    Text,
    /// No rows: the bytes of values, one after another.
    Raw,
}

impl Column {
    /// The columns that a group has: how many, then name and length of each.
    pub(super) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, ChunkError> {
        let count = reader.unsigned()?;
        if count > COLUMNS_MAX {
            return Err(ChunkError::Columns);
        }
        let mut columns: Vec<Self> = Vec::new();
        for _ in 0..count {
            let spec = u32::try_from(reader.unsigned()?).map_err(|_too_large| ChunkError::Columns)?;
            let column = Self { spec, length: reader.unsigned()? };
            if columns.last().is_some_and(|last| last.name() >= column.name()) {
                return Err(ChunkError::Columns);
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// What it is called, deflated or not.
    const fn name(self) -> u32 {
        self.spec & !DEFLATED
    }

    pub(super) const fn is_deflated(self) -> bool {
        self.spec & DEFLATED != 0
    }

    /// Bytes of it that are deflated.
    pub(super) const fn deflated(self) -> u64 {
        if self.is_deflated() { self.length } else { 0 }
    }

    const fn cell(self) -> Cell {
        match self.spec & 0b111 {
            0 => Cell::Group,
            1 | 2 | 6 => Cell::Unsigned,
            3 => Cell::Delta,
            4 => Cell::Boolean,
            5 => Cell::Text,
            _ => Cell::Raw,
        }
    }

    /// Counts the rows of the section that `reader` is in, and the cells of a group.
    pub(super) fn count(self, reader: &mut Reader<'_>, cap: RowCap) -> Result<u64, ChunkError> {
        let mut rows = Rows { rows: 0, cells: 0, cap };
        match self.cell() {
            Cell::Raw => reader.skip_all()?,
            Cell::Boolean => {
                while !reader.at_end()? {
                    rows.add(reader.unsigned()?)?;
                }
            }
            cell => {
                while !reader.at_end()? {
                    rows.run(&cell, reader)?;
                }
            }
        }
        Ok(rows.rows.max(rows.cells))
    }
}

/// How many rows a column may still have, and of which cap that is what is left.
#[derive(Clone, Copy)]
pub(super) struct RowCap {
    pub(super) left: u64,
    pub(super) max: u64,
}

struct Rows {
    rows: u64,
    cells: u64,
    cap: RowCap,
}

impl Rows {
    /// One run: `n` times a value, `-n` values, or `0` and how many rows without one.
    fn run(&mut self, cell: &Cell, reader: &mut Reader<'_>) -> Result<(), ChunkError> {
        let count = reader.signed()?;
        match count {
            1.. => {
                self.add(count.unsigned_abs())?;
                self.cell(cell, count.unsigned_abs(), reader)?;
            }
            0 => self.add(reader.unsigned()?)?,
            ..0 => {
                self.add(count.unsigned_abs())?;
                for _ in 0..count.unsigned_abs() {
                    self.cell(cell, 1, reader)?;
                }
            }
        }
        Ok(())
    }

    fn cell(&mut self, cell: &Cell, times: u64, reader: &mut Reader<'_>) -> Result<(), ChunkError> {
        match cell {
            Cell::Group => {
                let each = reader.unsigned()?;
                self.cells = self.bounded(self.cells.saturating_add(each.saturating_mul(times)))?;
            }
            Cell::Delta => drop(reader.signed()?),
            Cell::Text => {
                let length = reader.unsigned()?;
                reader.skip(length)?;
            }
            Cell::Unsigned | Cell::Boolean | Cell::Raw => drop(reader.unsigned()?),
        }
        Ok(())
    }

    fn add(&mut self, count: u64) -> Result<(), ChunkError> {
        self.rows = self.bounded(self.rows.saturating_add(count))?;
        Ok(())
    }

    const fn bounded(&self, rows: u64) -> Result<u64, ChunkError> {
        if rows > self.cap.left { Err(ChunkError::Rows { max: self.cap.max }) } else { Ok(rows) }
    }
}
