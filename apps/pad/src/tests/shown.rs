//! What a document shows at first, as nodes keep it from one build to the next.

use serde::Serialize;
use wattle_types::cbor;

use super::document;
use crate::{SHOWN_FORM, set, shown};

/// The bytes in form 1. Who changes them names another form, so that what an earlier build kept is not taken for it.
#[derive(Serialize)]
enum Form1 {
    Ok(Answer),
}

#[derive(Serialize)]
enum Answer {
    Content { title: &'static str, heads: Vec<[u8; 32]>, text: Option<&'static str>, json: &'static str },
}

#[test]
fn what_is_shown_has_the_form_that_is_named() {
    let mut doc = document("ann", "one\ntwo\n");
    super::commit(&mut doc, |tx| set(tx, &"mood".parse()?, &"fine".into()));
    let heads = doc.get_heads().iter().map(|head| head.0).collect();
    let json = r#"{"mood":"fine"}"#;
    let form = Form1::Ok(Answer::Content { title: "notes", heads, text: Some("one\ntwo\n"), json });
    assert_eq!((SHOWN_FORM, shown(&doc)), (1, cbor::encode(&form)));
}
