//! Long edits in steps: what comes out is the same, and no change is larger than other nodes take.

use std::cell::Cell;
use std::ops::ControlFlow;

use automerge::transaction::{CommitOptions, Transactable as _, Transaction};
use automerge::{Automerge, ChangeHash, ObjType, PatchLog, ROOT};
use proptest::prelude::*;
use wattle_types::limits::{DOCUMENT_TEXT_BYTES_MAX, SECTION_FILL_BYTES};

use super::{copy, document, merge, read, replica, save};
use crate::body::STEP_BYTES;
use crate::{PadError, TextChange, change_text_in_steps, create_in_steps, made_already, text};

/// Runs steps, each as a change on top of the one before; the changes.
fn run(
    doc: &mut Automerge,
    at: Option<&[ChangeHash]>,
    mut steps: impl FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, PadError>,
) -> Result<Vec<ChangeHash>, PadError> {
    let mut made: Vec<ChangeHash> = Vec::new();
    loop {
        let at: Option<Vec<ChangeHash>> = at.map(|at| made.last().map_or(at.to_vec(), |last| vec![*last]));
        // As the host does: Automerge finds a place in an older version letter by letter.
        let mut tx = match at.filter(|at| *at != doc.get_heads()) {
            Some(at) => doc.transaction_at(PatchLog::inactive(), &at).unwrap(),
            None => doc.transaction(),
        };
        let flow = steps(&mut tx)?;
        made.extend(tx.commit_with(CommitOptions::default().with_time(1_700_000_000)).0);
        if flow.is_break() {
            return Ok(made);
        }
    }
}

fn save_in_steps(doc: &mut Automerge, new: &str) -> (Vec<ChangeHash>, TextChange) {
    let done = Cell::new(None);
    let steps = change_text_in_steps(read(doc), new.to_owned(), |change| done.set(Some(change)));
    let at = doc.get_heads();
    let made = run(doc, Some(&at), steps).unwrap();
    (made, done.into_inner().unwrap())
}

fn lines(bytes: usize) -> String {
    (0..bytes / 16).map(|number| format!("line {number:10}\n")).collect()
}

/// Operations of the largest change.
fn largest(doc: &Automerge, changes: &[ChangeHash]) -> u64 {
    let size = |hash| doc.get_change_meta_by_hash(hash).map(|it| it.max_op + 1 - it.start_op).unwrap();
    changes.iter().map(size).max().unwrap()
}

/// A step, and the objects that hold what it brings.
const OPERATIONS_MAX: u64 = STEP_BYTES as u64 + 100;

#[test]
fn a_long_text_is_laid_out_in_changes_of_64_kib_as_it_would_be_at_once() {
    for bytes in [0, 100, SECTION_FILL_BYTES * 4, 300_000] {
        let text = lines(bytes);
        let mut doc = replica("alice");
        let made = run(&mut doc, None, create_in_steps("notes".to_owned(), text.clone()).unwrap()).unwrap();
        let at_once = document("bob", &text);
        assert_eq!(doc.hydrate(None), at_once.hydrate(None));
        assert!(
            made.len() >= text.len().div_ceil(STEP_BYTES).max(1) && made.len() <= text.len() / 40_000 + 1
        );
        assert!(largest(&doc, &made) <= OPERATIONS_MAX);
    }
    let long = "x".repeat(DOCUMENT_TEXT_BYTES_MAX + 1);
    assert!(
        create_in_steps("notes".to_owned(), long).is_err(),
        "what is too long is refused before the first"
    );
}

#[test]
fn a_long_edit_is_the_same_in_steps_and_none_of_them_is_long() {
    let base = lines(160_000);
    let upper = base.to_uppercase();
    let (front, back) = base.split_at(80_000);
    let edits = [
        String::new(),
        upper,
        format!("{front}{}{back}", lines(200_000).replace("line", "more")),
        format!("a{base}z"),
    ];
    for new in edits {
        let mut doc = document("alice", &base);
        let mut at_once = copy(&doc, "alice");
        let (made, change) = save_in_steps(&mut doc, &new);
        assert_eq!((read(&doc) == new, change), (true, save(&mut at_once, &new)));
        assert_eq!(doc.hydrate(None), at_once.hydrate(None));
        assert!(largest(&doc, &made) <= 2 * OPERATIONS_MAX, "{} in {}", largest(&doc, &made), made.len());
    }
    let mut doc = document("alice", &base);
    assert_eq!(save_in_steps(&mut doc, &format!("a{base}z")).0.len(), 1, "what is short is one change");
    assert_eq!(save_in_steps(&mut doc, &format!("a{base}z")).0.len(), 0);
}

#[test]
fn the_one_text_of_another_program_is_changed_in_steps_too() {
    let base = "中".repeat(70_000);
    let mut doc = replica("alice");
    let mut tx = doc.transaction();
    let id = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&id, 0, 0, &base).unwrap();
    tx.commit();
    let new = format!("{}é{}", lines(100_000), lines(100_000));
    let (made, _) = save_in_steps(&mut doc, &new);
    assert!(read(&doc) == new);
    assert!(made.len() > 3 && largest(&doc, &made) <= OPERATIONS_MAX);
}

#[test]
fn an_edit_in_steps_that_was_made_already_is_found() {
    let mut doc = document("alice", "one\n");
    let base = doc.get_heads();
    let new = lines(200_000);
    let (made, _) = save_in_steps(&mut doc, &new);
    assert!(made.len() > 2);
    let mine = |actor: &automerge::ActorId| actor.to_bytes().starts_with(b"alice");
    assert_eq!(made_already(&doc, &base, &new, mine).unwrap(), made.last().copied());
    assert_eq!(made_already(&doc, &base, "other\n", mine).unwrap(), None);
    assert!(text(&doc, Some(&made[..1])).unwrap().is_some_and(|text| text != new));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// P1, P2, P3, where each side takes many steps.
    #[test]
    fn any_long_edit_is_exact_alone_and_merges_with_any_other(
        base in "([a-c中\n]|line one\n){0,9}",
        new in "([a-c中\n]|line two\n){0,9}",
        other in "([a-c\n]|line two\n){0,9}",
    ) {
        let long = |text: &str| text.repeat(1000);
        let mut alice = document("alice", &long(&base));
        let mut bob = copy(&alice, "bob");
        save_in_steps(&mut alice, &long(&new));
        prop_assert!(read(&alice) == long(&new));
        save_in_steps(&mut bob, &long(&other));
        merge(&mut alice, &mut bob);
    }
}
