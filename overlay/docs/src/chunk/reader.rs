//! Bytes read forwards, inflated on the way where they are deflated, never more than a window of them.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_IGNORE_ADLER32;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{ChunkError, Hash, INFLATED_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX, size};

/// The farthest that deflate refers back.
const WINDOW_BYTES: usize = 32 * 1024;

/// Splits off a part that is prefixed with its length: the part, the rest.
pub(super) fn split_prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), ChunkError> {
    let mut reader = Reader::plain(bytes);
    let length = reader.unsigned()?;
    let rest = reader.rest();
    let length = usize::try_from(length).map_err(|_too_long| ChunkError::Truncated)?;
    rest.split_at_checked(length).ok_or(ChunkError::Truncated)
}

/// How far a deflated part may inflate, and what to say when it goes on.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    bytes: u64,
    deflated: Option<u64>,
}

impl Bound {
    /// For `deflated` bytes, when `left` may still be inflated in all.
    pub(super) fn deflated(deflated: u64, left: u64) -> Self {
        let by_ratio = deflated.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES);
        Self { bytes: by_ratio.min(left), deflated: (by_ratio <= left).then_some(deflated) }
    }

    fn exceeded(self) -> ChunkError {
        match self.deflated {
            Some(deflated) => ChunkError::Ratio { deflated, max: self.bytes },
            None => ChunkError::Inflated { max: INFLATED_BYTES_MAX },
        }
    }
}

/// A reader of numbers and lengths.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    /// Bytes left of the section that is read: none beyond them is taken.
    left: u64,
}

enum Source<'a> {
    Plain(&'a [u8]),
    Deflated(Box<Inflater<'a>>),
}

impl<'a> Reader<'a> {
    pub(super) fn plain(bytes: &'a [u8]) -> Self {
        Self { source: Source::Plain(bytes), left: u64::MAX }
    }

    pub(super) fn deflated(bytes: &'a [u8], bound: Bound) -> Self {
        Self { source: Source::Deflated(Box::new(Inflater::new(bytes, bound))), left: u64::MAX }
    }

    /// Hashes everything on its way.
    pub(super) fn hashed(bytes: &'a [u8], bound: Bound, hash: &'a mut Hash) -> Self {
        let inflater = Inflater { hash: Some(hash), ..Inflater::new(bytes, bound) };
        Self { source: Source::Deflated(Box::new(inflater)), left: u64::MAX }
    }

    /// Bytes that were inflated so far.
    pub(super) fn inflated(&self) -> u64 {
        match &self.source {
            Source::Plain(_) => 0,
            Source::Deflated(inflater) => inflater.inflated,
        }
    }

    /// What is unread of bytes that are not deflated.
    pub(super) fn rest(&self) -> &'a [u8] {
        match &self.source {
            Source::Plain(bytes) => bytes,
            Source::Deflated(_) => &[],
        }
    }

    /// Reads `length` bytes as a section of their own, which `read` takes to the end.
    pub(super) fn section<T>(
        &mut self,
        length: u64,
        read: impl FnOnce(&mut Self) -> Result<T, ChunkError>,
    ) -> Result<T, ChunkError> {
        let after = self.left.checked_sub(length).ok_or(ChunkError::Truncated)?;
        self.left = length;
        let value = read(self)?;
        if self.left != 0 {
            return Err(ChunkError::Truncated);
        }
        self.left = after;
        Ok(value)
    }

    /// Whether the section, or everything, is read.
    pub(super) fn at_end(&mut self) -> Result<bool, ChunkError> {
        if self.left == 0 {
            return Ok(true);
        }
        Ok(self.window()?.is_empty())
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, ChunkError> {
        let byte = *self.window()?.first().ok_or(ChunkError::Truncated)?;
        self.take(1)?;
        Ok(byte)
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), ChunkError> {
        let mut rest = count;
        while rest > 0 {
            let here = size(self.window()?).min(rest);
            if here == 0 {
                return Err(ChunkError::Truncated);
            }
            self.take(here)?;
            rest = rest.saturating_sub(here);
        }
        Ok(())
    }

    /// Passes over the rest of the section.
    pub(super) fn skip_all(&mut self) -> Result<(), ChunkError> {
        while !self.at_end()? {
            let here = size(self.window()?);
            self.take(here.min(self.left))?;
        }
        Ok(())
    }

    /// An uLEB128 number.
    pub(super) fn unsigned(&mut self) -> Result<u64, ChunkError> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(ChunkError::Number);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ChunkError::Number)
    }

    /// A signed LEB128 number.
    pub(super) fn signed(&mut self) -> Result<i64, ChunkError> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(ChunkError::Number);
            }
            number |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = shift < 57 && byte & 0x40 != 0;
                return Ok(if negative { number | (-1 << (shift + 7)) } else { number });
            }
        }
        Err(ChunkError::Number)
    }

    /// Bytes that can be read without inflating more; none at the end of the section or of everything.
    fn window(&mut self) -> Result<&[u8], ChunkError> {
        let bytes = match &mut self.source {
            Source::Plain(bytes) => bytes,
            Source::Deflated(inflater) => inflater.window()?,
        };
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(bytes.get(..left).unwrap_or(bytes))
    }

    fn take(&mut self, count: u64) -> Result<(), ChunkError> {
        self.left = self.left.checked_sub(count).ok_or(ChunkError::Truncated)?;
        let count = usize::try_from(count).map_err(|_too_many| ChunkError::Truncated)?;
        match &mut self.source {
            Source::Plain(bytes) => *bytes = bytes.get(count..).ok_or(ChunkError::Truncated)?,
            Source::Deflated(inflater) => inflater.start = inflater.start.saturating_add(count),
        }
        Ok(())
    }
}

/// How many bytes a deflate stream inflates to.
pub(super) fn measure(deflated: &[u8], bound: Bound) -> Result<u64, ChunkError> {
    let mut inflater = Inflater::new(deflated, bound);
    while !inflater.ended {
        inflater.refill()?;
    }
    Ok(inflater.inflated)
}

/// A deflate stream and the window that it was inflated into last.
struct Inflater<'a> {
    state: DecompressorOxide,
    input: &'a [u8],
    window: Box<[u8]>,
    /// What of the window is unread.
    start: usize,
    end: usize,
    inflated: u64,
    bound: Bound,
    ended: bool,
    hash: Option<&'a mut Hash>,
}

impl<'a> Inflater<'a> {
    fn new(input: &'a [u8], bound: Bound) -> Self {
        Self {
            state: DecompressorOxide::new(),
            input,
            window: vec![0; WINDOW_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            inflated: 0,
            bound,
            ended: false,
            hash: None,
        }
    }

    fn window(&mut self) -> Result<&[u8], ChunkError> {
        while self.start == self.end && !self.ended {
            self.refill()?;
        }
        Ok(self.window.get(self.start..self.end).unwrap_or_default())
    }

    fn refill(&mut self) -> Result<(), ChunkError> {
        let start = self.end % WINDOW_BYTES;
        let (status, read, written) =
            decompress(&mut self.state, self.input, &mut self.window, start, TINFL_FLAG_IGNORE_ADLER32);
        self.input = self.input.get(read..).unwrap_or_default();
        (self.start, self.end) = (start, start.saturating_add(written));
        let new = self.window.get(self.start..self.end).unwrap_or_default();
        self.inflated = self.inflated.saturating_add(size(new));
        if self.inflated > self.bound.bytes {
            return Err(self.bound.exceeded());
        }
        if let Some(hash) = &mut self.hash {
            hash.update(new);
        }
        match status {
            TINFLStatus::Done if self.input.is_empty() => self.ended = true,
            TINFLStatus::Done => return Err(ChunkError::Trailing),
            // The window is full; what is in it goes first.
            TINFLStatus::HasMoreOutput if written > 0 => {}
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(ChunkError::Truncated);
            }
            _ => return Err(ChunkError::Deflate),
        }
        Ok(())
    }
}
