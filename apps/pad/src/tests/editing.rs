//! Edits of the text: nothing lost, nothing rewritten, right in every script.

use automerge::{
    ActorId, Automerge, ObjType, ROOT, ReadDoc as _, TextEncoding, transaction::Transactable as _,
};
use proptest::prelude::*;
use wattle_types::limits::{DOCUMENT_TEXT_BYTES_MAX, SECTION_BYTES_MAX, SECTION_FILL_BYTES};

use super::{commit, copy, document, merge, read, replica, save, save_at};
use crate::body::cut;
use crate::diff;
use crate::{PadError, TextChange, change_text, create, import_text, text};

/// Operations of the newest change.
fn operations(doc: &Automerge) -> u64 {
    let heads = doc.get_heads();
    let change = doc.get_change_meta_by_hash(&heads[0]).unwrap();
    change.max_op + 1 - change.start_op
}

/// The lengths of the sections in bytes.
fn sections(doc: &Automerge) -> Vec<usize> {
    let (_, list) = doc.get(ROOT, "sections").unwrap().unwrap();
    doc.list_range(&list, ..).map(|item| doc.text(item.id()).unwrap().len()).collect()
}

/// `bytes` of lines that are all different.
fn lines(bytes: usize) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < bytes {
        text.push_str(&format!("line {number} of a long text about nothing\n"));
        number += 1;
    }
    text
}

#[test]
fn concurrent_edits_of_different_lines_both_survive() {
    let mut alice = document("alice", "one\ntwo\nthree\n");
    let mut bob = copy(&alice, "bob");
    save(&mut alice, "ONE\ntwo\nthree\n");
    save(&mut bob, "one\ntwo\nthree, and four\n");
    merge(&mut alice, &mut bob);
    assert_eq!(read(&alice), "ONE\ntwo\nthree, and four\n");
}

#[test]
fn concurrent_edits_of_the_same_line_both_survive() {
    let mut alice = document("alice", "hello world\n");
    let mut bob = copy(&alice, "bob");
    save(&mut alice, "hello brave world\n");
    save(&mut bob, "hello world!\n");
    merge(&mut alice, &mut bob);
    assert_eq!(read(&alice), "hello brave world!\n");
}

#[test]
fn an_edit_of_an_older_version_keeps_what_came_since() {
    let mut doc = document("alice", "one\ntwo\n");
    let opened = doc.get_heads();
    save(&mut doc, "one\ntwo\nthree, while the editor was open\n");
    let change = save_at(&mut doc, &opened, "zero\none\ntwo\n");
    assert_eq!((change.lines_added, change.lines_removed), (1, 0));
    assert_eq!(read(&doc), "zero\none\ntwo\nthree, while the editor was open\n");
}

#[test]
fn an_edit_with_another_base_is_refused() {
    let mut doc = document("alice", "one\n");
    let mut tx = doc.transaction();
    let refused = change_text(&mut tx, "two\n", "two\nthree\n");
    assert!(matches!(refused, Err(PadError::OtherBase { base: 4, got: 4 })));
}

#[test]
fn splices_are_minimal() {
    let before = "fn main() {\n    println!(\"hello\");\n}\n";
    let cases = [
        ("fn main() {\n    println!(\"hello!\");\n}\n", 1, 1),
        ("fn main() {\n    println!(\"help\");\n}\n", 3, 1),
        ("fn main() {\n    print!(\"hello!\");\n}\n", 3, 2),
        ("fn main() {\n}\n", 23, 1),
        ("// x\nfn main() {\n    println!(\"hello\");\n}\n// y\n", 10, 2),
        (before, 0, 0),
    ];
    for (after, ops, splices) in cases {
        let mut doc = document("alice", before);
        let created = doc.get_heads();
        assert_eq!(save(&mut doc, after).splices, splices, "{after}");
        assert_eq!(if doc.get_heads() == created { 0 } else { operations(&doc) }, ops, "{after}");
        assert_eq!(read(&doc), after);
    }
}

#[test]
fn lines_are_counted_as_a_person_counts_them() {
    let mut doc = document("alice", "a\nb\nc\nd\n");
    let change = save(&mut doc, "a\nB\nc\nd\ne\n");
    assert_eq!(change, TextChange { lines_added: 2, lines_removed: 1, splices: 2, sections_added: 0 });
}

#[test]
fn an_unrelated_line_replaces_the_old_one_as_a_whole() {
    let mut alice = document("alice", "the cat sat on the mat\n");
    let mut bob = copy(&alice, "bob");
    assert_eq!(save(&mut alice, "we went out by 9, in 2 cars\n").splices, 1);
    save(&mut bob, "the cat sat on the mat.\n");
    merge(&mut alice, &mut bob);
    assert!(read(&alice).contains("we went out by 9, in 2 cars"), "{}", read(&alice));
}

#[test]
fn characters_stay_whole_in_every_script() {
    let cases = [
        ("你好，世界\n", "你好，新世界\n"),
        ("family 👨‍👩‍👧 here\n", "family 👨‍👩‍👦 here\n"),
        ("e\u{301}te\u{301}\n", "e\u{300}te\u{301}\n"),
        ("flags 🇩🇪🇫🇷\n", "flags 🇩🇪🇮🇹\n"),
        ("नमस्ते\n", "नमस्ते दुनिया\n"),
        ("a\r\nb\r\n", "a\nb\r\n"),
        ("x\u{fe0f}❤️\n", "x❤\n"),
    ];
    for encoding in [
        TextEncoding::UnicodeCodePoint,
        TextEncoding::Utf8CodeUnit,
        TextEncoding::Utf16CodeUnit,
        TextEncoding::GraphemeCluster,
    ] {
        for (before, after) in cases {
            let mut doc =
                Automerge::new_with_encoding(encoding).with_actor(ActorId::from(b"alice".as_slice()));
            commit(&mut doc, |tx| create(tx, "t", before));
            save(&mut doc, after);
            assert_eq!(read(&doc), after, "{encoding:?}");
        }
    }
}

#[test]
fn an_emoji_is_replaced_as_a_whole_and_never_mixed_with_another() {
    let mut alice = document("alice", "we are 👨‍👩‍👧 today\n");
    let mut bob = copy(&alice, "bob");
    save(&mut alice, "we are 👨‍👩‍👦 today\n");
    save(&mut bob, "we are 👩‍👩‍👧 today\n");
    merge(&mut alice, &mut bob);
    let both = read(&alice);
    assert!(both.contains("👨‍👩‍👦") && both.contains("👩‍👩‍👧"), "{both}");
    assert_eq!(both.replace("👨‍👩‍👦", "").replace("👩‍👩‍👧", ""), "we are  today\n");
}

#[test]
fn a_text_is_cut_in_sections_and_an_edit_touches_one() {
    let before = lines(600_000);
    let mut doc = document("alice", &before);
    let cut = sections(&doc);
    assert!(cut.len() >= 10 && cut.iter().all(|bytes| *bytes <= SECTION_BYTES_MAX), "{cut:?}");
    assert_eq!(read(&doc), before);
    let after = before.replacen("line 9000 of", "line 9000 by", 1);
    let change = save(&mut doc, &after);
    assert_eq!((change.splices, change.sections_added), (1, 0));
    assert_eq!((operations(&doc), sections(&doc)), (4, cut));
    assert_eq!(read(&doc), after);
}

#[test]
fn ten_megabytes_are_cut_at_line_ends() {
    let text = lines(DOCUMENT_TEXT_BYTES_MAX - 100);
    let sections = cut(&text);
    assert_eq!(sections.concat(), text);
    assert!(sections.iter().all(|section| section.len() <= SECTION_FILL_BYTES && section.ends_with('\n')));
    assert!(sections.len() <= 2 * DOCUMENT_TEXT_BYTES_MAX / SECTION_FILL_BYTES);
    // One line without any place to cut, in characters of three bytes.
    let text = "中".repeat(100_000);
    assert_eq!(cut(&text).concat(), text);
    assert!(
        cut(&text).iter().all(|section| section.len() > SECTION_FILL_BYTES - 3 || text.ends_with(section))
    );
}

#[test]
fn far_edits_of_a_huge_text_are_still_small() {
    let before = lines(5_000_000);
    let after = before.replacen("line 7 ", "line seven ", 1).replacen("line 120000 ", "line 12e4 ", 1);
    let diff = diff::texts(&before, &after);
    assert_eq!((diff.edits.len(), diff.lines_added, diff.lines_removed), (2, 2, 2));
    let moved = format!("{}{}", &before[before.len() / 2..], &before[..before.len() / 2]);
    let diff = diff::texts(&before, &moved);
    assert_eq!(diff.edits.len(), 2);
}

#[test]
fn text_that_does_not_fit_goes_to_new_sections_beside() {
    for at in [0, 1, 2] {
        let before = lines(16_000);
        let mut doc = document("alice", &before);
        let paste = "pasted\n".repeat(20_000);
        let place = [0, before.find("line 150 ").unwrap(), before.len()][at];
        let after = format!("{}{paste}{}", &before[..place], &before[place..]);
        let change = save(&mut doc, &after);
        assert_eq!(read(&doc), after);
        assert!(sections(&doc).iter().all(|bytes| *bytes <= SECTION_BYTES_MAX));
        assert!((6..=10).contains(&change.sections_added), "{change:?}");
        let moved = operations(&doc) as usize - paste.len();
        // Of the old text at most the shorter side moves: deleted here, inserted there.
        let shorter = place.min(before.len() - place);
        assert!(moved <= 2 * shorter + 10, "{moved} operations for {shorter} bytes");
    }
}

#[test]
fn an_edit_that_overfills_several_sections_keeps_the_order() {
    let before = lines(60_000);
    let mut doc = document("alice", &before);
    let pasted = |place: &str| format!("{}{place}", format!("pasted before {place}\n").repeat(4_000));
    let after =
        before.replacen("line 100 ", &pasted("line 100 "), 1).replacen("line 900 ", &pasted("line 900 "), 1);
    let change = save(&mut doc, &after);
    assert!(change.sections_added >= 8, "{change:?}");
    assert_eq!(read(&doc), after);
}

#[test]
fn typing_into_a_full_section_seldom_cuts_it() {
    let mut doc = document("alice", &lines(16_000));
    let mut cuts = 0;
    for round in 0..120 {
        let before = read(&doc);
        let middle = before.find("line 150 ").unwrap();
        let typed = format!("{round} and some more words, as if a person typed on and on\n").repeat(10);
        let after = format!("{}{typed}{}", &before[..middle], &before[middle..]);
        cuts += save(&mut doc, &after).sections_added;
        assert_eq!(read(&doc), after);
    }
    assert!((1..=8).contains(&cuts), "{cuts} sections added for {} bytes", read(&doc).len());
    assert!(sections(&doc).iter().all(|bytes| *bytes <= SECTION_BYTES_MAX));
}

#[test]
fn deleting_everything_leaves_a_document_that_can_be_written() {
    let mut doc = document("alice", &lines(100_000));
    save(&mut doc, "");
    assert_eq!(read(&doc), "");
    save(&mut doc, "again\n");
    assert_eq!(read(&doc), "again\n");
}

#[test]
fn an_edit_over_several_sections_is_exact() {
    let before = lines(150_000);
    let mut doc = document("alice", &before);
    let after = format!("{}here was a lot\n{}", &before[..10_000], &before[140_000..]);
    save(&mut doc, &after);
    assert_eq!(read(&doc), after);
}

#[test]
fn a_text_beyond_the_cap_is_refused_with_both_numbers() {
    let mut doc = document("alice", "short\n");
    let long = "x".repeat(DOCUMENT_TEXT_BYTES_MAX + 1);
    let mut tx = doc.transaction();
    let refused = change_text(&mut tx, "short\n", &long).unwrap_err();
    assert_eq!(refused.to_string(), "10485761 bytes are too long for a document's text, 10485760 at most");
}

#[test]
fn a_binary_file_is_refused() {
    for (file, place) in [(b"\x7fELF\x00".as_slice(), 4), (b"caf\xe9 au lait".as_slice(), 3)] {
        let mut doc = replica("alice");
        let mut tx = doc.transaction();
        let refused = import_text(&mut tx, "t", file);
        assert!(matches!(refused, Err(PadError::NotText { at }) if at == place), "{refused:?}");
    }
}

#[test]
fn documents_of_other_programs_are_edited_where_their_text_is() {
    for name in ["text", "content", "anything"] {
        let mut doc = replica("js");
        let mut tx = doc.transaction();
        let title = tx.put_object(ROOT, "title", ObjType::Text).unwrap();
        tx.splice_text(&title, 0, 0, "Notes").unwrap();
        let body = tx.put_object(ROOT, name, ObjType::Text).unwrap();
        tx.splice_text(&body, 0, 0, "hello\n").unwrap();
        tx.commit();
        save(&mut doc, "hello you\n");
        assert_eq!(doc.text(&body).unwrap(), "hello you\n");
        assert_eq!(crate::title(&doc).unwrap(), "Notes");
    }
}

#[test]
fn a_document_with_fields_only_has_no_text() {
    let mut doc = replica("js");
    let mut tx = doc.transaction();
    tx.put(ROOT, "count", 3).unwrap();
    tx.commit();
    assert_eq!(text(&doc, None).unwrap(), None);
    let refused = change_text(&mut doc.transaction(), "", "x");
    assert!(matches!(refused, Err(PadError::NoText)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// P1, P2, P3: for whatever base, new text and concurrent text.
    #[test]
    fn any_edit_is_exact_alone_and_merges_with_any_other(
        base in "([a-c中e\u{301}👩\u{200d}👧 \n]|line one\n|\r\n){0,40}",
        new in "([a-c中e\u{301}👩\u{200d}👧 \n]|line one\n|\r\n){0,40}",
        current in "([a-c中e\u{301}👩\u{200d}👧 \n]|line one\n|\r\n){0,40}",
    ) {
        let mut alice = document("alice", &base);
        let opened = alice.get_heads();
        let mut bob = copy(&alice, "bob");
        save(&mut alice, &new);
        prop_assert_eq!(&read(&alice), &new);
        save(&mut bob, &current);
        save_at(&mut bob, &opened, &new);
        merge(&mut alice, &mut bob);
    }
}
