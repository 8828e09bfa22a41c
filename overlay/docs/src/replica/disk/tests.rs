//! What is written to disk, as far as no simulated node is needed for it.

use automerge::ROOT;
use automerge::transaction::Transactable as _;
use wattle_types::{SecretKey, UnixTime};

use super::*;

#[test]
fn a_snapshot_that_could_not_be_read_takes_no_records_place() {
    let node = SecretKey::from_bytes(&[1; 32]).node_id();
    let mut document = Document::new(&node, &[7; 16]);
    let edit: crate::document::Edit =
        Box::new(|tx| tx.put(ROOT, "key", "value").map_err(|error| error.to_string()));
    document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    let bytes = proven_snapshot(&document, PAYLOAD_BYTES_MAX).unwrap();
    assert!(proven_snapshot(&document, bytes.len() / 2).is_none());
}
