//! Whose changes a document takes.

use automerge::ROOT;
use automerge::transaction::Transactable as _;
use wattle_types::{DocAccess, ReadSecret};

use super::*;
use crate::access::{Act, ControlLog, Operation, Role};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

/// The owner's grants: 2 writes, 3 reads.
fn members() -> (DocId, Members) {
    let id = DocId::of_owner(&key(1).node_id());
    let access = DocAccess { id, read: ReadSecret::from_bytes([9; 16]), owner: None };
    let mut log = ControlLog::default();
    for (to, role) in [(2, Role::Writer), (3, Role::Reader)] {
        let act = Act::Grant { to: key(to).node_id(), role, bearer: None };
        let operation = Operation { doc: id, epoch: 1, act };
        let network = NetworkName::default();
        log.insert(&access, &network, &Envelope::seal(&key(1), Domain::DocControl, &network, &operation));
    }
    (id, log.members(&access))
}

fn written(by: u8, on: &Payload) -> Payload {
    let (doc, _) = members();
    let network = NetworkName::default();
    let node = key(by).node_id();
    let mut document = Document::restore(&node, &[by; 16], &network, vec![on.clone()]).unwrap();
    let edit: Edit =
        Box::new(move |tx| tx.put(ROOT, format!("by {by}"), "x").map_err(|error| error.to_string()));
    document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    document.take_fresh(doc, &key(by), &network, 1)
}

fn accept(document: &mut Document, payload: &Payload) -> Result<Accepted, Fault> {
    let (doc, members) = members();
    let network = NetworkName::default();
    document.accept(&Judge { doc, network: &network, members: &members, epoch: 1 }, payload)
}

fn empty() -> Document {
    Document::new(&key(2).node_id(), &[7; 16])
}

#[test]
fn a_writers_change_is_taken_and_a_readers_is_not_whoever_sends_it() {
    let mut document = empty();
    let honest = written(2, &Payload::default());
    assert!(!accept(&mut document, &honest).unwrap().refused);
    let heads = document.heads();
    // By itself, without any vouch, and inside what a writer sends.
    let forged = written(3, &honest);
    let bare = Payload { vouches: Vec::new(), chunks: forged.chunks.clone() };
    let hidden = Payload {
        vouches: honest.vouches.iter().chain(&forged.vouches).cloned().collect(),
        chunks: honest.chunks.iter().chain(&forged.chunks).cloned().collect(),
    };
    for payload in [&forged, &bare, &hidden] {
        let accepted = accept(&mut document, payload).unwrap();
        assert!(accepted.refused && accepted.payload.chunks.is_empty());
        assert_eq!(document.heads(), heads);
    }
    let mut fresh = empty();
    accept(&mut fresh, &hidden).unwrap();
    assert_eq!(fresh.heads(), heads, "what a writer wrote is taken out of it");
}

#[test]
fn a_vouch_with_a_bad_signature_or_for_another_document_refuses_the_whole() {
    let mut payload = written(2, &Payload::default());
    let stranger = Vouch {
        doc: DocId::from_bytes([8; 16]),
        root: Root { actor: ByteBuf::from(vec![1]), seq: 1, change: ByteArray::new([0; 32]) },
        epoch: 1,
    };
    let sealed = Envelope::seal(&key(2), Domain::DocVouch, &NetworkName::default(), &stranger);
    payload.vouches.push(sealed);
    let mut document = empty();
    assert_eq!(accept(&mut document, &payload).unwrap_err(), Fault::BadSignature);
    assert!(document.heads().is_empty());
}

#[test]
fn bytes_that_are_no_change_are_the_senders_fault_and_change_nothing() {
    let good = written(2, &Payload::default());
    for cut in 0..good.chunks[0].len() {
        let chunk = ByteBuf::from(good.chunks[0][..cut].to_vec());
        let mut document = empty();
        let payload = Payload { vouches: good.vouches.clone(), chunks: vec![chunk] };
        let outcome = accept(&mut document, &payload);
        assert!(cut == 0 || matches!(outcome, Err(Fault::Malformed(_))), "cut at {cut}: {outcome:?}");
        assert!(document.heads().is_empty());
    }
}
