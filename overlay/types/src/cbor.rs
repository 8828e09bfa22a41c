//! Canonical CBOR with exact decoding (RFC 8949, section 4.2 "Deterministically Encoded CBOR").
//!
//! One value has one encoding: definite lengths, shortest integers, fields in declaration order. Decoding
//! accepts that encoding and no other, so bytes can be hashed and signed without asking how somebody else
//! would spell them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::CBOR_DEPTH_MAX;

/// Why bytes are not a value. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Refused before anything was read or allocated.
    #[error("{got} bytes are more than the {max} allowed here")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not CBOR, not this type, or nested too deeply.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A whole value, then more bytes.
    #[error("{0} bytes after the end of the value")]
    Trailing(usize),
    /// The right value in another spelling than the canonical one.
    #[error("not the canonical encoding")]
    NotCanonical,
}

/// The canonical encoding of a value.
///
/// # Panics
/// Never for the types of this crate: encoding into memory fails only when a `Serialize` implementation says
/// so.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = ciborium::into_writer(value, &mut bytes);
    assert!(written.is_ok(), "encoding into memory cannot fail: {written:?}");
    bytes
}

/// Decodes exactly one value of at most `bytes_max` bytes.
///
/// # Errors
/// [`DecodeError`] when the bytes are too many, malformed, followed by others, or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLarge { got: bytes.len(), max: bytes_max });
    }
    let mut rest = bytes;
    let value: T = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    let mut same = Same(bytes);
    if ciborium::into_writer(&value, &mut same).is_err() || !same.0.is_empty() {
        return Err(DecodeError::NotCanonical);
    }
    Ok(value)
}

/// Takes what is written as long as it is what is expected, without a copy of it.
struct Same<'a>(&'a [u8]);

impl std::io::Write for Same<'_> {
    fn write(&mut self, written: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_decodes() {
        assert_eq!(decode::<u64>(&[0x17], 8), Ok(23));
        // 23 in two bytes instead of one.
        assert_eq!(decode::<u64>(&[0x18, 0x17], 8), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<u64>(&[0x17, 0x00], 8), Err(DecodeError::Trailing(1)));
        assert!(matches!(decode::<u64>(&[0xff], 8), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn size_is_checked_before_anything_is_read() {
        assert_eq!(decode::<Vec<u8>>(&[0x80; 9], 8), Err(DecodeError::TooLarge { got: 9, max: 8 }));
    }

    #[test]
    fn a_length_bomb_allocates_nothing_like_its_claim() {
        // A byte string that claims 2^63 bytes and holds none.
        let bomb = [0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode::<serde_bytes::ByteBuf>(&bomb, 64), Err(DecodeError::Malformed(_))));
        let array_bomb = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode::<Vec<u64>>(&array_bomb, 64), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep: Vec<u8> = std::iter::repeat_n(0x81, 64).chain([0x00]).collect();
        assert!(matches!(decode::<Nested>(&deep, 128), Err(DecodeError::Malformed(_))));
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Nested(Vec<Self>);
}
