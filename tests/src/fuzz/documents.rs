//! What document peers and local programs send: automerge bytes, and messages of automerge-repo.

use miniz_oxide::deflate::compress_to_vec;
use sha2::{Digest as _, Sha256};
use wattle_docs::chunk::{INFLATED_BYTES_MAX, ROWS_MAX, Summary, inspect, inspect_change, inspect_sync};
use wattle_docs::repo::{DecodeError, FRAME_BYTES_MAX, Message};

/// Automerge bytes: as they are, then as the content of each kind of chunk with the checksum it needs.
pub(super) fn chunk(bytes: &[u8]) {
    if let Ok(summary) = inspect(bytes) {
        bounded(&summary);
        assert!(summary.documents + summary.changes + summary.compressed_changes > 0, "nothing is no chunk");
    }
    if let Ok(change) = inspect_change(bytes) {
        assert_eq!(inspect(bytes).map(|summary| summary.rows), Ok(change.rows), "one way to count");
    }
    // A checksum is not found by chance, and behind it is most of what there is to find.
    for kind in [0, 1] {
        let checksum = checksum(kind, bytes);
        let plain = inspect(&framed(kind, checksum, bytes));
        let Ok(plain) = plain else { continue };
        bounded(&plain);
        if kind == 1 {
            let packed = inspect(&framed(2, checksum, &compress_to_vec(bytes, 6)));
            let packed = packed.map(|packed| (packed.rows, packed.inflated_bytes));
            assert_eq!(packed, Ok((plain.rows, plain.inflated_bytes)), "the same change, compressed");
        }
    }
    // Here the bytes are the deflate stream itself; no checksum is needed to inflate it.
    assert!(inspect_change(&framed(2, [0; 4], bytes)).is_err(), "four zeros are no checksum");
}

/// A sync message of automerge, as it is.
pub(super) fn sync_message(bytes: &[u8]) {
    if let Ok(summary) = inspect_sync(bytes) {
        bounded(&summary.chunks);
    }
}

/// A frame of a program that speaks automerge-repo.
pub(super) fn repo_message(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(message) => {
            let written = message.encode();
            assert_eq!(Message::decode(&written), Ok(message), "what is read can be written");
        }
        Err(DecodeError::TooLarge { .. }) => assert!(bytes.len() > FRAME_BYTES_MAX, "a frame is capped"),
        Err(_) => {}
    }
}

fn bounded(summary: &Summary) {
    assert!(summary.rows <= ROWS_MAX, "rows are capped");
    assert!(summary.inflated_bytes <= INFLATED_BYTES_MAX, "bytes are capped");
}

fn unsigned(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn checksum(kind: u8, content: &[u8]) -> [u8; 4] {
    let hash = Sha256::new().chain_update([kind]).chain_update(unsigned(content.len())).chain_update(content);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    [a, b, c, d]
}

fn framed(kind: u8, checksum: [u8; 4], content: &[u8]) -> Vec<u8> {
    [&[0x85, 0x6f, 0x4a, 0x83][..], &checksum, &[kind], &unsigned(content.len()), content].concat()
}
