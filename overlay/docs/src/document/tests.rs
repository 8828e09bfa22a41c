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

/// A change whose content is not what its program wrote; length and checksum are.
fn rewritten(change: &[u8], rewrite: impl FnOnce(&mut Vec<u8>)) -> ByteBuf {
    use sha2::{Digest as _, Sha256};
    let header = 9 + change[9..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let mut content = change[header..].to_vec();
    rewrite(&mut content);
    let hash = Sha256::digest([&[1], &change[9..header], &content].concat());
    ByteBuf::from([&change[..4], &hash[..4], &change[8..header], &content].concat())
}

/// By a writer, with a word that holds for whatever the change is.
fn vouched(chunk: ByteBuf) -> Payload {
    let (doc, _) = members();
    let change = Change::from_bytes(chunk.to_vec()).unwrap();
    let vouch = Vouch { doc, root: root(&change), epoch: 1 };
    let envelope = Envelope::seal(&key(2), Domain::DocVouch, &NetworkName::default(), &vouch);
    Payload { vouches: vec![envelope], chunks: vec![chunk] }
}

#[test]
fn a_change_that_would_make_the_document_unreadable_is_not_taken() {
    let first = written(2, &Payload::default());
    let mut document = empty();
    accept(&mut document, &first).unwrap();
    let mut second = Automerge::load(&document.automerge.save()).unwrap();
    second.set_actor(ActorId::from([5; 16].as_slice()));
    let mut transaction = second.transaction();
    transaction.put(ROOT, "second", "x").unwrap();
    transaction.commit();
    let change = second.get_last_local_change().unwrap();
    // Behind one dependency, the actor and its number: the number of the first operation.
    let at = 1 + 32 + 1 + 16 + 1;
    let heads = document.heads();
    for (start, taken) in [([2], true), ([1], false)] {
        let chunk = rewritten(change.raw_bytes(), |content| content[at..=at].copy_from_slice(&start));
        let mut copy =
            Document::restore(&key(2).node_id(), &[7; 16], &NetworkName::default(), vec![first.clone()])
                .unwrap();
        let outcome = accept(&mut copy, &vouched(chunk.clone()));
        assert_eq!(outcome.is_ok(), taken, "{start:?}: {outcome:?}");
        assert_eq!(copy.heads() != heads, taken);
        let mut automerge = document.automerge.clone();
        automerge.apply_changes([Change::from_bytes(chunk.to_vec()).unwrap()]).unwrap();
        let saved = automerge.save();
        assert_eq!(
            Automerge::load(&saved).is_ok(),
            taken,
            "automerge itself takes it and cannot read it back"
        );
    }
}

#[test]
fn a_change_that_skips_numbers_waits_and_a_second_under_one_number_stays_out() {
    let mut document = empty();
    let first = written(2, &Payload::default());
    accept(&mut document, &first).unwrap();
    let heads = document.heads();
    let other = {
        let mut payload = written(2, &Payload::default());
        payload.chunks[0] = rewritten(&payload.chunks[0], |content| *content.last_mut().unwrap() ^= 0);
        let mut automerge = Automerge::new();
        automerge.set_actor(ActorId::from([2; 16].as_slice()));
        let mut transaction = automerge.transaction();
        transaction.put(ROOT, "another story", "x").unwrap();
        transaction.commit();
        vouched(ByteBuf::from(automerge.get_last_local_change().unwrap().raw_bytes().to_vec()))
    };
    let accepted = accept(&mut document, &other).unwrap();
    assert_eq!(accepted.forked_by, BTreeSet::from([key(2).node_id()]));
    assert_eq!((document.heads(), accepted.missing), (heads.clone(), false));
    // The third number without the second.
    let change = Change::from_bytes(first.chunks[0].to_vec()).unwrap();
    let skipping = rewritten(change.raw_bytes(), |content| content[1 + 16 + 1] = 3);
    let accepted = accept(&mut document, &vouched(skipping)).unwrap();
    assert!(accepted.missing && document.heads() == heads);
}

#[test]
fn who_lacks_more_changes_than_fit_is_given_the_document() {
    let mut document = empty();
    for number in 0..200 {
        let edit: Edit = Box::new(move |tx| tx.put(ROOT, "key", number).map_err(|error| error.to_string()));
        document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    }
    let (doc, _) = members();
    document.take_fresh(doc, &key(2), &NetworkName::default(), 1);
    // It has one change of its own that nobody knows, so it is not at the beginning.
    let mut other = empty();
    accept(&mut other, &written(2, &Payload::default())).unwrap();
    let lacks = |max| document.beyond(&other.heads(), &other.clock(), max);
    assert_eq!(lacks(1 << 20).chunks.len(), 200);
    let whole = lacks(4096);
    assert_eq!(whole.chunks.len(), 1);
    assert!(whole.bytes() < 4096, "{} bytes", whole.bytes());
    let accepted = accept(&mut other, &whole).unwrap();
    assert_eq!((accepted.refused, accepted.missing), (false, false));
    assert!(document.heads().iter().all(|head| other.knows(head)));
}
