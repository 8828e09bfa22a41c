//! Whose changes a document takes.

use std::ops::ControlFlow;

use automerge::transaction::Transactable as _;
use automerge::{ROOT, ReadDoc as _};
use wattle_types::{DocAccess, ReadSecret};

use super::*;
use crate::access::{Act, ControlLog, Operation, Role};

const PAYLOAD: usize = crate::PAYLOAD_BYTES_MAX;

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

/// A document that was written in so many changes of so many letters each.
fn in_changes(changes: usize, letters: usize) -> Document {
    let mut document = empty();
    let mut step = 0;
    let steps: Steps = Box::new(move |tx| {
        let text = tx.put_object(ROOT, format!("text {step}"), automerge::ObjType::Text).unwrap();
        tx.splice_text(text, 0, 0, &"x".repeat(letters)).unwrap();
        step += 1;
        Ok(if step == changes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    document.work(None, UnixTime::from_millis(0), Work::Steps(steps)).unwrap();
    document
}

#[test]
fn each_step_of_an_edit_is_a_change_on_top_of_the_one_before_and_one_vouch_is_for_all() {
    let mut document = in_changes(5, 10);
    let (doc, _) = members();
    let payload = document.take_fresh(doc, &key(2), &NetworkName::default(), 1);
    assert_eq!((payload.chunks.len(), payload.vouches.len(), document.operations), (5, 1, 55));
    let mut other = empty();
    accept(&mut other, &payload).unwrap();
    assert_eq!((other.heads(), other.operations), (document.heads(), 55));
    let read =
        Document::restore(&key(2).node_id(), &[7; 16], &NetworkName::default(), vec![payload]).unwrap();
    assert_eq!((read.heads(), read.operations), (document.heads(), 55));
}

#[test]
fn steps_on_an_older_version_follow_each_other_and_are_merged() {
    let mut document = in_changes(1, 3);
    let base = document.heads();
    let later: Edit = Box::new(|tx| tx.put(ROOT, "later", 1).map_err(|error| error.to_string()));
    document.edit(None, UnixTime::from_millis(0), later).unwrap();
    let mut step = 0;
    let steps: Steps = Box::new(move |tx| {
        assert!(tx.get(ROOT, "later").unwrap().is_none(), "it is not in the version that was edited");
        assert!(step == 0 || tx.get(ROOT, format!("step {}", step - 1)).unwrap().is_some());
        tx.put(ROOT, format!("step {step}"), 1).unwrap();
        step += 1;
        Ok(if step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    document.work(Some(&base), UnixTime::from_millis(0), Work::Steps(steps)).unwrap();
    assert_eq!(document.heads().len(), 2);
    let keys: Vec<String> = document.automerge.keys(ROOT).collect();
    assert_eq!(keys, ["later", "step 0", "step 1", "step 2", "text 0"]);
}

#[test]
fn a_step_that_fails_takes_those_before_it_with_it() {
    let mut document = in_changes(1, 3);
    let before = (document.heads(), document.clock(), document.operations, document.fresh.len());
    for panics in [false, true] {
        let mut step = 0;
        let steps: Steps = Box::new(move |tx| {
            assert!(step < 2 || !panics, "it fails inside");
            if step == 2 {
                return Err("no further".to_owned());
            }
            tx.put(ROOT, "key", step).unwrap();
            step += 1;
            Ok(ControlFlow::Continue(()))
        });
        let why = if panics { "the edit failed inside the document" } else { "no further" };
        let failed = document.work(None, UnixTime::from_millis(0), Work::Steps(steps));
        assert_eq!(failed, Err(EditFault::Refused(why.to_owned())));
        let after = (document.heads(), document.clock(), document.operations, document.fresh.len());
        assert_eq!(after, before);
    }
}

#[test]
fn what_other_nodes_would_not_take_is_refused_where_it_is_made() {
    assert_eq!(edit::check(CHANGE_ROWS_MAX, CHANGE_ROWS_MAX), Ok(()));
    let why = edit::check(CHANGE_ROWS_MAX + 1, CHANGE_ROWS_MAX + 1).unwrap_err();
    assert!(why.contains("smaller parts"), "{why}");
    let why = edit::check(1, chunk::ROWS_MAX).unwrap_err();
    assert!(why.contains("begin a new document"), "{why}");
    let mut document = empty();
    document.operations = chunk::ROWS_MAX;
    let edit: Edit = Box::new(|tx| tx.put(ROOT, "key", 1).map_err(|error| error.to_string()));
    assert!(document.edit(None, UnixTime::from_millis(0), edit).is_err());
    assert!(document.heads().is_empty());
}

/// What an older build made at once is here, and peers would not take it: it would count against this node.
#[test]
fn a_change_that_is_too_large_opens_from_the_disk_and_is_neither_given_nor_taken() {
    let mut automerge = Automerge::new();
    let mut tx = automerge.transaction();
    let text = tx.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
    tx.splice_text(text, 0, 0, &"x".repeat(CHANGE_ROWS_MAX as usize)).unwrap();
    tx.commit();
    let saved = ByteBuf::from(automerge.save());
    let stored = Payload { vouches: Vec::new(), chunks: vec![saved] };
    let node = key(2).node_id();
    let mut document = Document::restore(&node, &[7; 16], &NetworkName::default(), vec![stored]).unwrap();
    assert_eq!(document.operations, CHANGE_ROWS_MAX + 1);
    let edit: Edit = Box::new(|tx| tx.put(ROOT, "key", 1).map_err(|error| error.to_string()));
    document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    let (doc, _) = members();
    let vouches = document.take_fresh(doc, &key(2), &NetworkName::default(), 1).vouches;
    assert_eq!(document.beyond(&[], &[], PAYLOAD), Payload::default());
    let sent = Payload { vouches, chunks: vec![ByteBuf::from(document.automerge.save())] };
    assert!(matches!(accept(&mut empty(), &sent), Err(Fault::Malformed(_))));
}

#[test]
fn a_slice_holds_what_memory_allows_and_a_larger_change_stands_alone() {
    let mut document = empty();
    for letters in [100_000, 150_000, 50_000, 400_000, 10] {
        let edit: Edit = Box::new(move |tx| {
            let text = tx.put_object(ROOT, format!("text {letters}"), automerge::ObjType::Text).unwrap();
            tx.splice_text(text, 0, 0, &"x".repeat(letters)).map_err(|error| error.to_string())
        });
        document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    }
    let changes: Incoming =
        document.automerge.get_changes(&[]).into_iter().map(|change| (change, ByteBuf::new())).collect();
    let sizes: Vec<usize> = apply::slices(&changes).iter().map(|slice| slice.len()).collect();
    assert_eq!(sizes, [2, 1, 1, 1]);
    let mut next = Automerge::new();
    assert!(apply_and_look(&mut next, &changes).unwrap());
    assert_eq!(next.get_heads(), document.automerge.get_heads());
}

/// What is done with a small document takes no time to speak of: for what it holds, not for how well that is packed.
#[test]
fn a_document_is_small_by_its_operations_changes_actors_and_bytes() {
    let network = NetworkName::default();
    let put = |document: &mut Document, bytes: usize| {
        let edit: Edit =
            Box::new(move |tx| tx.put(ROOT, "key", vec![0_u8; bytes]).map_err(|error| error.to_string()));
        document.edit(None, UnixTime::from_millis(0), edit).unwrap();
    };
    let is_small = |document: &mut Document| {
        let payload = document.take_fresh(members().0, &key(2), &network, 1);
        let read = Document::restore(&key(2).node_id(), &[8; 16], &network, vec![payload]).unwrap();
        assert_eq!(read.is_small(), document.is_small(), "read again it is as large");
        document.is_small()
    };
    assert!(is_small(&mut in_changes(4, 200)) && !is_small(&mut in_changes(6, 200)));
    let in_empty = |changes: usize| {
        let mut document = empty();
        (0..changes).for_each(|change| put(&mut document, change % 2));
        document
    };
    let by_actors = |actors: u8| {
        let mut history = Automerge::new();
        for actor in 0..actors {
            history.set_actor(ActorId::from([actor; 16]));
            let mut transaction = history.transaction();
            transaction.put(ROOT, "key", i64::from(actor)).unwrap();
            transaction.commit();
        }
        let nothing: Edit = Box::new(|_| Ok(()));
        let (node, now) = (key(2).node_id(), UnixTime::from_millis(0));
        Document::import(&node, &[200; 16], history, now, Work::Edit(nothing)).unwrap()
    };
    assert!(is_small(&mut by_actors(31)) && !is_small(&mut by_actors(40)));
    assert!(is_small(&mut in_empty(256)) && !is_small(&mut in_empty(257)));
    let mut zeros = empty();
    put(&mut zeros, 60 * 1024);
    assert!(zeros.is_small());
    put(&mut zeros, 60 * 1024 + 1);
    assert!(!is_small(&mut zeros), "packed they are a hundred bytes");
}

#[test]
fn a_program_may_send_a_document_as_large_as_the_one_here() {
    let document = in_changes(2, 10);
    assert!(document.check_rows(chunk::DOCUMENT_ROWS_MAX).is_ok());
    let refused = document.check_rows(chunk::DOCUMENT_ROWS_MAX + 1).unwrap_err();
    assert!(refused.to_string().contains("2097153 operations"), "{refused}");
}
