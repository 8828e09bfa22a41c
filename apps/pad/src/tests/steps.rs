//! Steps, versions and files.

use automerge::transaction::CommitOptions;
use automerge::{Automerge, ChangeHash};
use serde_json::json;
use wattle_types::NodeId;

use super::{commit, copy, document, merge, read, replica, save};
use crate::{
    FileContent, FileFormat, HistoryStep, PadError, Telling, change_text, export, import, lines_changed,
    made_already, recognise, set, steps, text, to_json, version,
};

fn node(name: &str) -> NodeId {
    NodeId::from_public_key([name.as_bytes()[0]; 32])
}

/// Saves at a time, in seconds after the document was made.
fn save_after(doc: &mut Automerge, seconds: i64, new: &str) {
    let base = read(doc);
    let mut tx = doc.transaction();
    change_text(&mut tx, &base, new).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1_700_000_000 + seconds));
}

fn told(doc: &Automerge, telling: Telling<'_>) -> Vec<HistoryStep> {
    let author = |actor: &automerge::ActorId| {
        let known = ["alice", "bob"].into_iter().find(|name| name.as_bytes() == actor.to_bytes());
        known.map(node)
    };
    steps(doc, telling, author).unwrap()
}

const ALL: Telling<'static> = Telling { since: None, until: None, limit: 100, each: false };

#[test]
fn what_one_person_does_in_one_go_is_one_step_and_a_pause_or_another_begins_the_next() {
    let mut alice = document("alice", "one\n");
    save_after(&mut alice, 10, "one\ntwo\n");
    save_after(&mut alice, 20, "one\ntwo!\n");
    let mut bob = copy(&alice, "bob");
    save_after(&mut bob, 25, "zero\none\ntwo!\n");
    merge(&mut alice, &mut bob);
    save_after(&mut alice, 30, "zero\none\n");
    save_after(&mut alice, 300, "zero\none\nlast\n");
    let steps = told(&alice, ALL);
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            let touched = step.touched.clone().unwrap();
            (step.author.unwrap(), step.changes, touched.lines_added, touched.lines_removed)
        })
        .collect();
    let (a, b) = (node("alice"), node("bob"));
    assert_eq!(rows, [(a, 1, 1, 0), (a, 1, 0, 1), (b, 1, 1, 0), (a, 3, 2, 0)]);
    assert_eq!(text(&alice, Some(&[steps[2].version])).unwrap().unwrap(), "zero\none\ntwo!\n");
    assert_eq!(told(&alice, Telling { each: true, ..ALL }).len(), 6);
    assert_eq!(told(&alice, Telling { limit: 2, ..ALL }), steps[..2]);
    let since = [steps[2].version];
    assert_eq!(told(&alice, Telling { since: Some(&since), ..ALL }), steps[..2]);
    let between = Telling { since: Some(&steps[2].before), until: Some(&[steps[1].version]), ..ALL };
    assert_eq!(told(&alice, between), steps[1..3]);
}

#[test]
fn both_sides_of_a_fork_are_named_and_neither_takes_the_other_ones_lines() {
    let mut alice = document("alice", "one\ntwo\n");
    let mut bob = copy(&alice, "bob");
    save_after(&mut alice, 100, "one by alice\ntwo\n");
    save_after(&mut bob, 100, "one\ntwo by bob\nthree\n");
    merge(&mut alice, &mut bob);
    let steps = told(&alice, ALL);
    assert_eq!(steps, told(&bob, ALL));
    let lines = |name: &str| {
        let step = steps.iter().find(|step| step.author == Some(node(name)) && step.before.len() == 1);
        let touched = step.unwrap().touched.clone().unwrap();
        (touched.lines_added, touched.lines_removed)
    };
    assert_eq!((lines("alice"), lines("bob")), ((1, 1), (2, 1)));
}

#[test]
fn changes_that_nobody_vouches_for_name_who_brought_them() {
    let mut old = document("someone", "one\n");
    save(&mut old, "two\n");
    let mut alice = copy(&old, "alice");
    save_after(&mut alice, 10, "three\n");
    let steps = told(&alice, ALL);
    assert_eq!((steps[0].author, steps[0].brought_by), (Some(node("alice")), None));
    assert_eq!(steps[1..].iter().map(|step| step.changes).sum::<usize>(), 2);
    assert!(steps[1..].iter().all(|step| (step.author, step.brought_by) == (None, Some(node("alice")))));
}

#[test]
fn an_edit_that_was_made_already_is_found_and_one_of_somebody_else_is_not() {
    let mut alice = document("alice", "one\n");
    let base = alice.get_heads();
    let mut bob = copy(&alice, "bob");
    save(&mut bob, "one\ntwo\n");
    merge(&mut alice, &mut bob);
    let mine = |actor: &automerge::ActorId| actor.to_bytes() == b"alice";
    assert_eq!(made_already(&alice, &base, "one\ntwo\n", mine).unwrap(), None);
    super::save_at(&mut alice, &base, "one\ntwo\n");
    let made = made_already(&alice, &base, "one\ntwo\n", mine).unwrap().unwrap();
    assert_eq!(text(&alice, Some(&[made])).unwrap().unwrap(), "one\ntwo\n");
    assert_eq!(made_already(&alice, &base, "one\nthree\n", mine).unwrap(), None);
    assert_eq!(made_already(&alice, &[made], "one\ntwo\n", mine).unwrap(), None);
    save(&mut alice, "later\n");
    assert_eq!(made_already(&alice, &base, "later\n", mine).unwrap(), None, "it was made on another version");
}

#[test]
fn a_step_names_the_fields_it_touched() {
    let mut alice = document("alice", "one\n");
    let before = alice.get_heads();
    commit(&mut alice, |tx| set(tx, &"tea".parse().unwrap(), &json!("green")));
    commit(&mut alice, |tx| set(tx, &"title".parse().unwrap(), &json!("new")));
    let steps = told(&alice, Telling { since: Some(&before), ..ALL });
    assert_eq!(steps[0].touched.clone().unwrap().fields, ["tea", "title"]);
    assert_eq!(lines_changed("a\nb\nc\n", "a\nB\nc\nd\n"), (2, 1));
}

#[test]
fn a_version_is_named_by_a_beginning_that_no_other_change_has() {
    let mut alice = document("alice", "one\n");
    save(&mut alice, "two\n");
    let head = alice.get_heads()[0];
    let whole = head.to_string();
    for typed in [whole.as_str(), &whole[..8], &whole[..4].to_uppercase(), &format!(" {}, ", &whole[..9])] {
        assert_eq!(version(&alice, typed).unwrap(), Some(vec![head]), "{typed}");
    }
    assert_eq!(version(&alice, " , ").unwrap(), None);
    for wrong in ["xyz", "abc", "HEAD", "新新新新", &"a".repeat(65)] {
        assert!(matches!(version(&alice, wrong), Err(PadError::NotAVersion { .. })), "{wrong}");
    }
    for absent in [ChangeHash([7; 32]).to_string().as_str(), "07070707"] {
        assert!(matches!(version(&alice, absent), Err(PadError::NoSuchChange { .. })), "{absent}");
    }
    // Until two changes share four digits: 65,536 beginnings, so a thousand changes do.
    let mut long = replica("long");
    for number in 0..1_000_i64 {
        commit(&mut long, |tx| set(tx, &"n".parse().unwrap(), &json!(number)));
    }
    let mut all: Vec<String> = long.get_changes_meta(&[]).iter().map(|it| it.hash.to_string()).collect();
    all.sort();
    let twin = all.windows(2).find(|two| two[0][..4] == two[1][..4]).unwrap();
    assert!(matches!(version(&long, &twin[0][..4]), Err(PadError::SeveralChanges { .. })));
    assert!(version(&long, &twin[0]).unwrap().is_some());
}

#[test]
fn a_file_is_recognised_by_what_is_in_it() {
    let doc = document("alice", "one\n");
    let saved = export(&doc, FileFormat::Automerge).unwrap();
    assert_eq!(recognise("x.txt", &saved).unwrap(), FileContent::Automerge);
    assert_eq!(recognise("x", b"{\"a\": 1}").unwrap(), FileContent::Json(json!({"a": 1})));
    assert_eq!(recognise("x.md", b"[1]").unwrap(), FileContent::Text("[1]".to_owned()));
    assert_eq!(recognise("x.md", b"{ not json").unwrap(), FileContent::Text("{ not json".to_owned()));
    for (name, bytes) in [("x.json", b"{ not json".as_slice()), ("x.json", b"[1]"), ("x.AUTOMERGE", b"?")] {
        assert!(matches!(recognise(name, bytes), Err(PadError::Damaged { .. })), "{name}");
    }
    assert!(matches!(recognise("x", &[0xff, 0, 1]), Err(PadError::NotText { at: 0 })));
}

#[test]
fn a_document_is_the_same_after_it_was_a_file() {
    let mut doc = document("alice", "one\ntwo\n");
    commit(&mut doc, |tx| set(tx, &"tea".parse().unwrap(), &json!({"kind": "green", "cups": [1, 2]})));
    let again = Automerge::load(&export(&doc, FileFormat::Automerge).unwrap()).unwrap();
    assert_eq!(again.get_heads(), doc.get_heads());
    let json = export(&doc, FileFormat::Json).unwrap();
    let content = recognise("notes.json", &json).unwrap();
    let mut copy = replica("bob");
    commit(&mut copy, |tx| import(tx, &content, None, "another name"));
    assert_eq!(to_json(&copy, None).unwrap(), to_json(&doc, None).unwrap());
    let text = export(&doc, FileFormat::Text).unwrap();
    assert_eq!(text, b"one\ntwo\n");
    let mut copy = replica("carol");
    commit(&mut copy, |tx| import(tx, &recognise("notes.md", &text).unwrap(), None, "notes"));
    assert_eq!((crate::title(&copy).as_deref(), read(&copy).as_str()), (Some("notes"), "one\ntwo\n"));
    let mut fields = replica("dave");
    commit(&mut fields, |tx| import(tx, &FileContent::Json(json!({"a": 1})), Some("given"), "name"));
    assert_eq!(to_json(&fields, None).unwrap(), json!({"a": 1, "title": "given"}));
    assert!(matches!(export(&fields, FileFormat::Text), Err(PadError::NoText)));
}
