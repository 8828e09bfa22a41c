//! The past: older versions, history, differences, who typed what.

use automerge::{
    ActorId, Author, Automerge, ChangeHash, ObjType, ROOT,
    transaction::{CommitOptions, Transactable as _},
};
use serde_json::json;
use wattle_types::UnixTime;

use super::{commit, copy, document, merge, read, replica, save};
use crate::{PadError, Typed, blame, create, difference, history, set, text, to_json};

/// A small generator, so that a journal is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// Types or deletes at a random place.
fn random_edit(random: &mut Random, before: &str) -> String {
    let mut characters: Vec<char> = before.chars().collect();
    let at = random.below(characters.len() + 1);
    if random.below(4) == 0 {
        let end = (at + random.below(20)).min(characters.len());
        characters.drain(at..end);
    } else {
        let typed = ["word ", "新しい", "\n", "👩‍👧 ", "longer than a word, "][random.below(5)];
        characters.splice(at..at, typed.chars());
    }
    characters.into_iter().collect()
}

#[test]
fn every_older_version_reads_as_it_was() {
    let mut random = Random(7);
    let mut alice = document("alice", "begin\n");
    let mut bob = copy(&alice, "bob");
    let mut journal = Vec::new();
    for round in 0..150 {
        let doc = if random.below(2) == 0 { &mut alice } else { &mut bob };
        let after = random_edit(&mut random, &read(doc));
        save(doc, &after);
        assert_eq!(read(doc), after);
        journal.push((doc.get_heads(), after));
        if round % 10 == 9 {
            merge(&mut alice, &mut bob);
            journal.push((alice.get_heads(), read(&alice)));
        }
    }
    merge(&mut alice, &mut bob);
    for _ in 0..100 {
        let (heads, was) = &journal[random.below(journal.len())];
        for doc in [&alice, &bob] {
            assert_eq!(text(doc, Some(heads)).unwrap().as_ref(), Some(was));
        }
    }
}

#[test]
fn a_version_that_is_not_here_is_an_error_and_not_another_version() {
    let mut alice = document("alice", "one\n");
    let bob = copy(&alice, "bob");
    save(&mut alice, "two\n");
    let newer = alice.get_heads();
    assert!(matches!(text(&bob, Some(&newer)), Err(PadError::UnknownVersion(hash)) if hash == newer[0]));
    assert!(matches!(to_json(&bob, Some(&newer)), Err(PadError::UnknownVersion(_))));
    assert!(difference(&bob, &bob.get_heads(), &newer).is_err());
}

#[test]
fn history_names_who_when_and_what() {
    let author = Author::from(b"node id of alice".to_vec());
    let mut alice = Automerge::new().with_author(Some(author.clone()));
    commit(&mut alice, |tx| create(tx, "t", "one\n"));
    let mut tx = alice.transaction();
    crate::change_text(&mut tx, "one\n", "one, two\n").unwrap();
    tx.commit_with(CommitOptions::default().with_message("count on").with_time(1_800_000_000_123));
    let entries = history(&alice, 10);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].message.as_deref(), Some("count on"));
    assert_eq!((entries[0].ops, entries[0].seq), (5, 2));
    assert_eq!(entries[0].time, Some(UnixTime::from_millis(1_800_000_000_123)));
    assert_eq!(entries[1].time, Some(UnixTime::from_millis(1_700_000_000_000)));
    assert_eq!(entries[0].deps, [entries[1].hash]);
    assert!(entries.iter().all(|entry| entry.author.as_deref() == Some(author.as_bytes())));
    assert_eq!(history(&alice, 1).len(), 1);
}

#[test]
fn history_is_the_same_on_every_replica_and_causal_whatever_the_clocks_say() {
    let mut random = Random(11);
    let mut alice = document("alice", "begin\n");
    let mut bob = copy(&alice, "bob");
    for _ in 0..60 {
        let doc = if random.below(2) == 0 { &mut alice } else { &mut bob };
        let (base, after) = (read(doc), random_edit(&mut random, &read(doc)));
        let mut tx = doc.transaction();
        crate::change_text(&mut tx, &base, &after).unwrap();
        tx.commit_with(CommitOptions::default().with_time(random.below(1000) as i64 - 500));
        if random.below(5) == 0 {
            merge(&mut alice, &mut bob);
        }
    }
    merge(&mut alice, &mut bob);
    let entries = history(&alice, usize::MAX);
    assert_eq!(entries, history(&bob, usize::MAX));
    assert_eq!(entries.len() as u64, crate::summary(&alice).changes);
    for (at, entry) in entries.iter().enumerate() {
        let newer = &entries[..at];
        assert!(entry.deps.iter().all(|dep| newer.iter().all(|newer| newer.hash != *dep)), "{at}");
    }
}

#[test]
fn a_difference_shows_lines_and_fields() {
    let before = (1..=20).map(|line| format!("line {line}\n")).collect::<String>();
    let mut doc = document("alice", &before);
    commit(&mut doc, |tx| set(tx, &"list".parse().unwrap(), &json!(["a", {"n": 1}, "c"])));
    let old = doc.get_heads();
    save(&mut doc, &before.replace("line 4\n", "line four\n").replace("line 18\n", ""));
    commit(&mut doc, |tx| set(tx, &"title".parse().unwrap(), &json!("new title")));
    commit(&mut doc, |tx| set(tx, &"list[1].n".parse().unwrap(), &json!(2)));
    commit(&mut doc, |tx| set(tx, &"more".parse().unwrap(), &json!({"x": [1, 2]})));
    let mut tx = doc.transaction();
    let (_, list) = automerge::ReadDoc::get(&tx, ROOT, "list").unwrap().unwrap();
    tx.insert(&list, 0, "first").unwrap();
    tx.delete(&list, 1).unwrap();
    tx.commit();
    let new = doc.get_heads();
    let told = |from: &[ChangeHash], to: &[ChangeHash]| {
        let lines = difference(&doc, from, to).unwrap();
        lines.iter().map(|line| format!("{line}\n")).collect::<String>()
    };
    let expected = "\
@@ -1 +1 @@
 line 1
 line 2
 line 3
-line 4
+line four
 line 5
 line 6
 line 7
@@ -15 +15 @@
 line 15
 line 16
 line 17
-line 18
 line 19
 line 20
more: (nothing) -> {\"x\":[1,2]}
list[0]: \"a\" -> \"first\"
list[1].n: 1 -> 2
title: \"notes\" -> \"new title\"
";
    assert_eq!(told(&old, &new), expected);
    assert_eq!(told(&new, &new), "");
    assert!(told(&new, &old).contains("-line four\n+line 4\n"));
    assert!(told(&[], &old).starts_with("@@ -1 +1 @@\n+line 1\n"));
}

#[test]
fn a_difference_is_cut_and_never_endless() {
    let mut doc = replica("alice");
    commit(&mut doc, |tx| create(tx, "t", &"x\n".repeat(30_000)));
    let told = difference(&doc, &[], &doc.get_heads()).unwrap();
    assert_eq!(told.len(), 10_001);
    assert_eq!(told.last().unwrap().to_string(), "... and more");

    let mut tx = doc.transaction();
    let mut inner = ROOT;
    for _ in 0..500 {
        inner = tx.put_object(&inner, "a", ObjType::Map).unwrap();
    }
    tx.commit();
    let deep = doc.get_heads();
    let mut tx = doc.transaction();
    tx.put(&inner, "b", 1).unwrap();
    tx.commit();
    assert_eq!(difference(&doc, &deep, &doc.get_heads()).unwrap().len(), 1);
}

/// The text, each character with the first letter of who typed it.
fn signed(doc: &Automerge) -> String {
    let all = read(doc);
    let of = |typed: &Typed| {
        let who = char::from(typed.actor.to_bytes()[0]);
        format!("{who}:{}", &all[typed.bytes.clone()])
    };
    blame(doc).iter().map(of).collect::<Vec<_>>().join("|")
}

#[test]
fn blame_names_who_typed_each_character() {
    let mut alice = document("alice", "hello world\n");
    let mut bob = copy(&alice, "bob");
    save(&mut bob, "hello brave 新 world\n");
    save(&mut alice, "hello world!\nbye\n");
    merge(&mut alice, &mut bob);
    let expected = "a:hello |b:brave 新 |a:world!\nbye\n";
    assert_eq!((signed(&alice).as_str(), signed(&bob).as_str()), (expected, expected));
}

#[test]
fn blame_covers_the_text_exactly_and_agrees_with_a_journal() {
    let mut random = Random(23);
    let mut docs = ["alice", "bob", "carol"].map(replica);
    commit(&mut docs[0], |tx| create(tx, "t", ""));
    let bytes = docs[0].save();
    for (doc, name) in docs.iter_mut().zip(["alice", "bob", "carol"]) {
        *doc = Automerge::load(&bytes).unwrap().with_actor(ActorId::from(name.as_bytes()));
    }
    // In a text where everybody types only an own letter, each letter says who typed it.
    for _ in 0..200 {
        let who = random.below(3);
        let before = read(&docs[who]);
        let at = random.below(before.len() + 1);
        let after =
            format!("{}{}{}", &before[..at], ["a", "b", "c"][who].repeat(1 + random.below(5)), &before[at..]);
        save(&mut docs[who], &after);
        if random.below(6) == 0 {
            let [alice, bob, carol] = &mut docs;
            merge(alice, bob);
            merge(bob, carol);
            merge(alice, carol);
        }
    }
    let [alice, bob, carol] = &mut docs;
    merge(alice, bob);
    merge(bob, carol);
    merge(alice, bob);
    let all = read(alice);
    assert_eq!(blame(alice), blame(carol));
    assert_eq!(blame(alice).last().unwrap().bytes.end, all.len());
    assert_letters_name_their_typists(alice);
}

/// In a text where everybody types only the first letter of the own name.
fn assert_letters_name_their_typists(doc: &Automerge) {
    let all = read(doc);
    for typed in blame(doc) {
        let letter = char::from(typed.actor.to_bytes()[0]);
        assert!(all[typed.bytes.clone()].chars().all(|typed| typed == letter), "{letter} {:?}", typed.bytes);
    }
}

#[test]
fn blame_follows_text_that_moves_to_another_section() {
    let mut docs = ["alice", "bob", "carol"].map(replica);
    commit(&mut docs[0], |tx| create(tx, "t", &"a".repeat(12_000)));
    let [alice, bob, carol] = &mut docs;
    bob.merge(alice).unwrap();
    carol.merge(alice).unwrap();
    // Near the end of the section, near its beginning, into what was moved already, and behind everything.
    let steps = [
        (1, 9_000, 60_000),
        (2, 500, 70_000),
        (0, 700, 66_000),
        (1, 190_000, 66_000),
        (2, usize::MAX, 80_000),
    ];
    for (who, place, length) in steps {
        let before = read(&docs[who]);
        let place = place.min(before.len());
        let typed = ["a", "b", "c"][who].repeat(length);
        let change = save(&mut docs[who], &format!("{}{typed}{}", &before[..place], &before[place..]));
        assert!(change.sections_added > 0, "{who} {change:?}");
        assert_letters_name_their_typists(&docs[who]);
        let [alice, bob, carol] = &mut docs;
        merge(alice, bob);
        merge(bob, carol);
        merge(alice, carol);
    }
    assert_eq!(blame(&docs[0]), blame(&docs[2]));
}

#[test]
fn nobody_is_blamed_for_words_made_of_letters_that_were_deleted_elsewhere() {
    let mut alice = document("alice", &format!("{}end\n", "alice likes bob very much. ".repeat(500)));
    let before = read(&alice);
    let mut bob = copy(&alice, "bob");
    // Bob drops the last line and makes a section of his own that says something else.
    let made = format!("{}alice owes bob. end\n{}", &before[..before.len() - 60], "b".repeat(70_000));
    save(&mut bob, &made);
    merge(&mut alice, &mut bob);
    let all = read(&alice);
    let (start, end) = (all.find("owes").unwrap(), all.rfind('b').unwrap());
    for typed in blame(&alice).iter().filter(|typed| typed.bytes.end > start && typed.bytes.start <= end) {
        assert_eq!(typed.actor.to_bytes(), b"bob", "{:?}", typed.bytes);
    }
}
