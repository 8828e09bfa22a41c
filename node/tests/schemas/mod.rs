//! What `--json` prints, held to the schemas of `openapi.json`.

use std::sync::LazyLock;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};
use wattle::cli::pages::{Json, Page};

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
});

/// A validator of one of these components. A property that the component does not describe is a fault too.
fn validator(names: &[&str]) -> Validator {
    let components = &DESCRIPTION["components"];
    let reference = |name: &&str| {
        assert!(components["schemas"][name].is_object(), "openapi.json has no component {name}");
        json!({ "$ref": format!("#/components/schemas/{name}") })
    };
    let any: Vec<Value> = names.iter().map(reference).collect();
    let schema = json!({ "anyOf": any, "unevaluatedProperties": false, "components": components });
    let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|error| panic!("{names:?}: {error}"))
}

/// The component whose `schema` property can only be `schema`.
fn component(schema: &str) -> String {
    let schemas = DESCRIPTION["components"]["schemas"].as_object().unwrap();
    let names_it = |component: &Value| {
        let reference = component["properties"]["schema"]["$ref"].as_str().unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default();
        schemas.get(name).is_some_and(|kind| kind["enum"] == json!([schema]))
    };
    let found = schemas.iter().find(|(_, component)| names_it(component));
    found.unwrap_or_else(|| panic!("no component of openapi.json is a {schema}")).0.clone()
}

fn held_to(names: &[&str], what: &str, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    let validator = validator(names);
    let wrong: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{what} is no {names:?}: {wrong:#?}\n{text}");
    assert!(!text.contains(":null"), "{what}: what is unknown is absent: {text}");
}

/// What a leaf printed with `--json` when it succeeded.
pub(crate) fn check(page: &Page, stdout: &str) {
    assert!(!stdout.is_empty(), "{} printed nothing", page.path);
    match page.json {
        Json::Document(schema) => {
            assert_eq!(stdout.lines().count(), 1, "{}: one document on one line: {stdout}", page.path);
            let begins = format!("{{\"schema\":\"{schema}\"");
            assert!(stdout.starts_with(&begins), "{}: the schema comes first: {stdout}", page.path);
            held_to(&[&component(schema)], page.path, stdout);
        }
        Json::Lines(components) => {
            for line in stdout.lines() {
                held_to(components, page.path, line);
                let value: Value = serde_json::from_str(line).unwrap();
                assert!(value["type"].is_string() && value["ts"].is_string(), "{}: {line}", page.path);
            }
        }
        Json::Plain => {}
    }
}

/// What a leaf printed on stderr with `--json` when it failed.
pub(crate) fn check_error(page: &Page, stderr: &str) {
    assert_eq!(stderr.lines().count(), 1, "{}: one document on one line: {stderr}", page.path);
    held_to(&["ErrorDocument"], page.path, stderr);
}
