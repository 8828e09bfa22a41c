//! The description of the API: committed, complete, and no route without rights.

use std::path::Path;

use axum::http::Method;
use serde::Serialize as _;
use utoipa::openapi::path::PathItem;
use wattle::api::{Needs, needed, openapi};

#[test]
fn the_committed_description_is_the_one_the_node_serves() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    // A line a value and no indentation: people read it by searching, and it is long.
    let mut now = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"");
    openapi().serialize(&mut serde_json::Serializer::with_formatter(&mut now, formatter)).unwrap();
    let now = String::from_utf8(now).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == now,
        "the API changed: look at it, then UPDATE=1 cargo test -p wattle --test openapi"
    );
}

fn operations(item: &PathItem) -> Vec<Method> {
    let all = [(&item.get, Method::GET), (&item.post, Method::POST), (&item.put, Method::PUT)];
    assert!(item.delete.is_none() && item.patch.is_none(), "the guard knows no such method");
    all.into_iter().filter(|(operation, _)| operation.is_some()).map(|(_, method)| method).collect()
}

#[test]
fn only_signing_in_needs_no_rights() {
    let mut open = Vec::new();
    let mut count = 0;
    for (path, item) in &openapi().paths.paths {
        for method in operations(item) {
            count += 1;
            if needed(&method, path) == Needs::Nothing {
                open.push(format!("{method} {path}"));
            }
        }
    }
    assert_eq!(open, ["POST /api/v1/session", "GET /healthz", "GET /readyz"]);
    assert!(count > 30, "{count} operations");
}
