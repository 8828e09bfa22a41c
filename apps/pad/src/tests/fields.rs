//! Fields: paths, reading, setting, JSON files.

use automerge::{ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use proptest::prelude::*;
use serde_json::json;

use super::{commit, copy, document, merge, read, replica};
use crate::{PadError, Path, Step, get, import_json, set, text, title, to_json, value_of};

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

#[test]
fn a_path_is_read_as_people_write_it() {
    let steps = |text: &str| path(text).steps().to_vec();
    let key = |name: &str| Step::Key(name.to_owned());
    assert_eq!(steps("a.b[3].c"), [key("a"), key("b"), Step::Index(3), key("c")]);
    assert_eq!(steps("a.3"), [key("a"), key("3")]);
    assert_eq!(steps("[\"b.c \\\" d]\"][0]"), [key("b.c \" d]"), Step::Index(0)]);
    assert_eq!(steps(""), []);
    assert_eq!(path("a[\"b c\"].名字[1]").to_string(), "a[\"b c\"].名字[1]");
    for wrong in ["a..b", ".a", "a[", "a[x]", "a[-1]", "a[+1]", "a[1", "a[\"b]", "a[1]b", "a]b", "a.", "a[]"]
    {
        assert!(matches!(wrong.parse::<Path>(), Err(PadError::InvalidPath { .. })), "{wrong}");
    }
    assert!("a[0]".repeat(10_000).parse::<Path>().is_err());
}

#[test]
fn fields_are_set_and_read() {
    let mut doc = document("alice", "text\n");
    commit(&mut doc, |tx| set(tx, &path("people"), &json!([{"name": "Ada", "age": 36}])));
    commit(&mut doc, |tx| set(tx, &path("people[0].age"), &json!(37)));
    commit(&mut doc, |tx| {
        set(tx, &path("people.1"), &json!({"name": "Grace", "tags": [1, 2.5, null, true]}))
    });
    commit(&mut doc, |tx| set(tx, &path("title"), &value_of("New title")));
    assert_eq!(get(&doc, &path("people[1].tags"), None).unwrap(), json!([1, 2.5, null, true]));
    assert_eq!(
        to_json(&doc, None).unwrap(),
        json!({
            "title": "New title",
            "sections": ["text\n"],
            "people": [{"name": "Ada", "age": 37}, {"name": "Grace", "tags": [1, 2.5, null, true]}],
        })
    );
}

#[test]
fn a_typed_value_is_json_or_else_a_string() {
    let typed = ["3", "true", "\"3\"", "{\"a\":1}", "two words", "{broken", ""];
    let values = typed.map(value_of);
    assert_eq!(
        values,
        [json!(3), json!(true), json!("3"), json!({"a": 1}), json!("two words"), json!("{broken"), json!("")]
    );
}

#[test]
fn a_typed_number_is_the_nearest_there_is_to_the_last_bit() {
    for typed in ["907.3038322028689", "481.83792520110524", "0.1", "1e-7", "8.589973e9", "5e-324"] {
        assert_eq!(value_of(typed).as_f64(), Some(typed.parse::<f64>().unwrap()), "{typed}");
    }
}

#[test]
fn what_cannot_be_set_says_what_to_do() {
    let mut doc = document("alice", "text\n");
    commit(&mut doc, |tx| set(tx, &path("a"), &json!({"list": [1], "name": "x"})));
    let cases = [
        ("b.c", "`b` does not exist yet; make it first with `doc set ID 'b' {}`"),
        ("a.b[0]", "`a.b` does not exist yet; make it first with `doc set ID 'a.b' []`"),
        ("a.list[2]", "`a.list` has 1 elements: set [0] to [1]"),
        ("a.list.x", "`a.list` is a list: give a number, as in [0]"),
        ("a[0]", "`a` is a map: give a name, not a number"),
        ("a.name.x", "`a.name` is a single value and has no fields"),
        ("sections", "`sections` is the document's text: change it with `doc edit`"),
        ("sections[0]", "`sections[0]` is the document's text: change it with `doc edit`"),
        ("sections[9]", "`sections[9]` is the document's text: change it with `doc edit`"),
        ("sections[0].x", "`sections[0]` is a text and has no fields"),
        ("", "a document is a map of fields: name a field"),
    ];
    let before = to_json(&doc, None).unwrap();
    for (place, message) in cases {
        let refused = set(&mut doc.transaction(), &path(place), &json!("v")).unwrap_err();
        assert_eq!(refused.to_string(), message, "{place}");
        assert_eq!(to_json(&doc, None).unwrap(), before);
    }
}

#[test]
fn what_is_not_there_says_what_is() {
    let mut doc = document("alice", "text\n");
    commit(&mut doc, |tx| set(tx, &path("a"), &json!({"list": [1], "name": "x"})));
    let message = |place: &str| get(&doc, &path(place), None).unwrap_err().to_string();
    assert_eq!(message("a.nam"), "nothing at `a.nam`; `a` has list, name");
    assert_eq!(message("a.list[7].x"), "nothing at `a.list[7].x`; `a.list` has 1 elements");
    assert_eq!(message("b"), "nothing at `b`; `the document` has a, sections, title");
}

#[test]
fn concurrent_strings_of_one_field_are_not_mixed() {
    let mut alice = document("alice", "");
    commit(&mut alice, |tx| set(tx, &path("state"), &json!("open")));
    let mut bob = copy(&alice, "bob");
    commit(&mut alice, |tx| set(tx, &path("state"), &json!("done")));
    commit(&mut bob, |tx| set(tx, &path("state"), &json!("doing")));
    merge(&mut alice, &mut bob);
    let state = get(&alice, &path("state"), None).unwrap();
    assert!(state == "done" || state == "doing", "{state}");
}

#[test]
fn a_text_that_is_a_field_is_merged() {
    let mut alice = document("alice", "body\n");
    let mut tx = alice.transaction();
    let note = tx.put_object(ROOT, "note", ObjType::Text).unwrap();
    tx.splice_text(&note, 0, 0, "buy milk").unwrap();
    tx.commit();
    let mut bob = copy(&alice, "bob");
    commit(&mut alice, |tx| set(tx, &path("note"), &json!("buy milk and bread")));
    commit(&mut bob, |tx| set(tx, &path("note"), &json!("please buy milk")));
    merge(&mut alice, &mut bob);
    assert_eq!(get(&alice, &path("note"), None).unwrap(), "please buy milk and bread");
}

#[test]
fn a_json_file_becomes_a_document_and_comes_back_the_same() {
    let long = "a line of some length\n".repeat(5_000);
    let file = json!({"title": "T", "sections": [long], "n": [[], {}, {"a": -1, "b": 18_446_744_073_709_551_615u64}]});
    let mut doc = replica("alice");
    commit(&mut doc, |tx| import_json(tx, &file));
    assert_eq!(read(&doc), long);
    assert_eq!(title(&doc).unwrap(), "T");
    let shown = to_json(&doc, None).unwrap();
    assert_eq!(shown["n"], file["n"]);
    let mut again = replica("bob");
    commit(&mut again, |tx| import_json(tx, &shown));
    assert_eq!(to_json(&again, None).unwrap()["n"], shown["n"]);
    assert_eq!(read(&again), long);
    assert!(matches!(import_json(&mut doc.transaction(), &json!([1])), Err(PadError::RootIsAMap)));
}

#[test]
fn deep_and_large_values_are_refused_and_do_not_end_the_node() {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let mut doc = replica("alice");
    assert!(matches!(set(&mut doc.transaction(), &path("a"), &deep), Err(PadError::TooDeep)));
    let wide = json!(vec![0; 200_000]);
    assert!(matches!(set(&mut doc.transaction(), &path("a"), &wide), Err(PadError::TooLarge)));

    // What another program wrote has no such cap: it is refused when it is read.
    let mut tx = doc.transaction();
    let mut inner = ROOT;
    for _ in 0..2_000 {
        inner = tx.put_object(&inner, "a", ObjType::Map).unwrap();
    }
    tx.commit();
    assert!(matches!(to_json(&doc, None), Err(PadError::TooDeep)));
    assert_eq!(text(&doc, None).unwrap(), None);
}

#[test]
fn anything_may_stand_where_the_schema_says_otherwise() {
    let mut doc = replica("mallory");
    let mut tx = doc.transaction();
    tx.put(ROOT, "sections", 7).unwrap();
    tx.put_object(ROOT, "title", ObjType::List).unwrap();
    tx.commit();
    assert_eq!((text(&doc, None).unwrap(), title(&doc)), (None, None));
    assert_eq!(crate::summary(&doc).text_bytes, 0);

    let mut tx = doc.transaction();
    let list = tx.put_object(ROOT, "sections", ObjType::List).unwrap();
    tx.insert(&list, 0, 1.5).unwrap();
    let one = tx.insert_object(&list, 1, ObjType::Text).unwrap();
    tx.splice_text(&one, 0, 0, "one\n").unwrap();
    tx.insert_object(&list, 2, ObjType::Map).unwrap();
    tx.insert(&list, 3, "a string").unwrap();
    let two = tx.insert_object(&list, 4, ObjType::Text).unwrap();
    tx.splice_text(&two, 0, 0, "two\n").unwrap();
    // In a Text, elements of several characters and elements that are no text.
    tx.insert(&two, 0, "long element ").unwrap();
    tx.insert(&two, 1, 5).unwrap();
    tx.insert_object(&two, 2, ObjType::Map).unwrap();
    tx.commit();
    let before = read(&doc);
    super::save(&mut doc, &before.replace("two", "2"));
    assert_eq!(read(&doc), before.replace("two", "2"));
    assert_eq!(doc.text(&one).unwrap(), "one\n");
    // An edit within an element of several characters cannot be exact: it is refused.
    let (base, new) = (read(&doc), read(&doc).replace("element", "stone"));
    let refused = crate::change_text(&mut doc.transaction(), &base, &new);
    assert!(matches!(refused, Err(PadError::ForeignText)), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_path_is_read_back_as_it_was_written(keys in proptest::collection::vec("[a\\.\\[\\]\" \u{301}中\\\\\n]{0,4}", 0..5), at in 0usize..10) {
        let mut all = Path::default();
        for key in keys {
            all = all.then(Step::Key(key)).then(Step::Index(at));
        }
        prop_assert_eq!(path(&all.to_string()), all);
    }

    #[test]
    fn no_text_makes_the_path_parser_panic(text in "[a\\.\\[\\]\" 0-9\\\\]{0,12}|.{0,20}") {
        drop(text.parse::<Path>());
    }
}
