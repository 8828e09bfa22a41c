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

#[test]
fn a_payload_of_a_large_document_is_cut_into_records_that_hold_all_of_it_in_order() {
    let key = SecretKey::from_bytes(&[1; 32]);
    let chunk = |number: u8| ByteBuf::from(vec![number; 60 * 1024]);
    let vouches = (0..3).map(|number: u8| {
        Envelope::seal(&key, wattle_types::Domain::DocVouch, &wattle_types::NetworkName::default(), &number)
    });
    let payload = Payload { vouches: vouches.collect(), chunks: (0..40).map(chunk).collect() };
    assert_eq!(records(&payload, false).len(), 1, "what is no large document is put together");
    let cut = records(&payload, true);
    assert!(cut.len() > 4 && cut.iter().all(|record| record.len() <= RECORD_BYTES_MAX));
    let mut all = Payload::default();
    for record in cut {
        let part: Payload = cbor::decode(&record, record.len()).unwrap();
        all.vouches.extend(part.vouches);
        all.chunks.extend(part.chunks);
    }
    assert_eq!(all, payload);
}
