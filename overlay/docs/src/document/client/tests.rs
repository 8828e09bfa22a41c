//! Programs with very many actors.

use automerge::sync::SyncDoc as _;
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ROOT};
use wattle_types::{DocId, NetworkName, SecretKey};

use super::*;

fn actor(number: u16) -> ActorId {
    ActorId::from([number.to_be_bytes(), [0; 2]].concat().as_slice())
}

/// A document to which each actor adds one change: one after the other, or all at once.
fn written(actors: u16, at_once: bool) -> Automerge {
    let mut all = Automerge::new();
    let empty = all.clone();
    for number in 0..actors {
        let mut one = if at_once { empty.clone() } else { all.clone() };
        one.set_actor(actor(number));
        let mut transaction = one.transaction();
        transaction.put(ROOT, format!("{number}"), 1).unwrap();
        transaction.commit();
        if at_once {
            all.apply_changes(one.get_changes(&[])).unwrap();
        } else {
            all = one;
        }
    }
    all
}

/// What a document makes of all that a program has.
fn heard(program: &Automerge) -> (Document, Result<(), Fault>) {
    let mut document = Document::new(&SecretKey::from_bytes(&[2; 32]).node_id(), &[9; 16]);
    let (mut state, mut conversation) = (State::new(), Conversation::default());
    for _ in 0..4 {
        let Some(message) = program.generate_sync_message(&mut state) else { break };
        let heard = Heard::read(&message.encode()).unwrap();
        if let Err(fault) = document.hear(&mut conversation, heard, &[]) {
            return (document, Err(fault));
        }
        let Some(answer) = document.say(&mut conversation).unwrap() else { break };
        program.clone().receive_sync_message(&mut state, Message::decode(&answer).unwrap()).unwrap();
    }
    (document, Ok(()))
}

fn vouches(document: &mut Document) -> usize {
    let key = SecretKey::from_bytes(&[2; 32]);
    document.take_fresh(DocId::from_bytes([1; 16]), &key, &NetworkName::default(), 1).vouches.len()
}

#[test]
fn each_actor_is_vouched_for_and_of_very_many_only_those_that_stand_for_all() {
    let (mut few, ok) = heard(&written(20, true));
    assert_eq!((ok, few.heads().len(), vouches(&mut few)), (Ok(()), 20, 20));
    let (mut many, ok) = heard(&written(1100, false));
    assert_eq!((ok, many.heads().len(), vouches(&mut many)), (Ok(()), 1, 1));
}

#[test]
fn more_heads_than_a_message_between_nodes_names_are_refused() {
    let (document, refused) = heard(&written(1100, true));
    assert!(matches!(refused, Err(Fault::Malformed(_))), "{refused:?}");
    assert!(document.heads().is_empty());
}
