//! Walks the command tree: what holds for every leaf is checked for every leaf, and a new one cannot be
//! forgotten.
//!
//! Help texts and the error catalogue are kept as files under `snapshots/`; `UPDATE=1 cargo test -p wattle
//! --test walker` writes them anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod schemas;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wattle::api::documents::ErrorDocument;
use wattle::cli::pages::{Json, PAGES, page};
use wattle::exit::ErrorCode;

/// A place of its own for each test: nothing of the machine's owner is read or written.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn wattle(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
        command.args(words).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.path()).env("XDG_RUNTIME_DIR", self.path().join("run"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn output(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        self.wattle(words).output().unwrap()
    }

    /// The text with what differs between machines replaced.
    fn neutral(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replace(&self.path().display().to_string(), "HOME")
    }
}

/// Every leaf of the tree: its path and its command. A command that works without a subcommand is a leaf too.
fn leaves() -> Vec<(String, clap::Command)> {
    fn descend(command: &clap::Command, path: &str, leaves: &mut Vec<(String, clap::Command)>) {
        if !path.is_empty() && !command.is_subcommand_required_set() {
            leaves.push((path.to_owned(), command.clone()));
        }
        let shown = |child: &&clap::Command| child.get_name() != "help" && !child.is_hide_set();
        for child in command.get_subcommands().filter(shown) {
            let below = if path.is_empty() { String::new() } else { format!("{path} ") };
            descend(child, &format!("{below}{}", child.get_name()), leaves);
        }
    }
    let mut leaves = Vec::new();
    descend(&wattle::cli::command(), "", &mut leaves);
    leaves
}

/// The words of an example's `wattle` command, as a shell would split them.
fn words_of(example: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    let mut line = example.replace("$(", " ").replace(')', " ");
    line.push(' ');
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '>' | '|' if !quoted => {
                words.extend(word.take());
                if c != ' ' {
                    words.push(c.to_string());
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    let begin = words.iter().position(|word| word == "wattle").unwrap();
    let end = words[begin..].iter().position(|word| word == ">" || word == "|").map(|end| begin + end);
    words[begin + 1..end.unwrap_or(words.len())].iter().filter(|word| !word.is_empty()).cloned().collect()
}

/// The same, where an empty word is one that was quoted.
fn example_words(example: &str) -> Vec<String> {
    let empty = example.contains(" \"\"");
    let mut words = words_of(&example.replace("\"$(", "$(").replace(")\"", ")"));
    if empty {
        words.push(String::new());
    }
    words
}

#[test]
fn every_leaf_has_a_page_and_every_page_a_leaf() {
    let leaves: BTreeSet<String> = leaves().into_iter().map(|(path, _)| path).collect();
    let pages: BTreeSet<String> = PAGES.iter().map(|page| page.path.to_owned()).collect();
    assert_eq!(leaves, pages);
}

#[test]
fn every_leaf_says_what_it_does_in_a_line_and_shows_two_examples_that_parse() {
    for (path, command) in leaves() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.contains('\n') && about.len() <= 72, "{path}: `{about}`");
        let help = command.get_before_long_help().map(ToString::to_string).unwrap_or_default();
        for (example, why) in page(&path).unwrap().examples {
            assert!(help.contains(example) && !why.is_empty(), "{path}: {help}");
            let words = example_words(example);
            let all = std::iter::once("wattle".to_owned()).chain(words.clone());
            let parsed = wattle::cli::command().try_get_matches_from(all);
            assert!(parsed.is_ok(), "{example}: {words:?}: {}", parsed.unwrap_err());
        }
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{path}: {} has no help", argument.get_id());
        }
    }
}

/// Leaves that would start a node, whatever else they find.
fn starts_a_node(path: &str) -> bool {
    matches!(path, "run" | "testnet up" | "testnet demo")
}

/// The error on stderr: one line, one document, and the exit status it names.
fn error_of(path: &str, output: &Output) -> ErrorDocument {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    schemas::check_error(page(path).unwrap(), &text);
    let document: ErrorDocument =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    let again = serde_json::to_value(&document).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap(), "{path}: fields that no document has");
    assert_eq!(output.status.code(), Some(i32::from(document.exit)), "{path}: {text}");
    document
}

#[test]
fn without_a_node_every_leaf_that_needs_one_says_so_at_once() {
    let place = Place::new();
    for page in PAGES.iter().filter(|page| page.needs_node) {
        let mut words = example_words(page.examples[0].0);
        words.push("--json".to_owned());
        if page.path == "wait" {
            words.extend(["--timeout".to_owned(), "200ms".to_owned()]);
        }
        let begun = Instant::now();
        let output = place.output(&words);
        let took = begun.elapsed();
        let document = error_of(page.path, &output);
        assert!(output.stdout.is_empty(), "{}", page.path);
        if page.path == "wait" {
            assert_eq!(document.code, ErrorCode::Timeout);
            continue;
        }
        assert_eq!(document.code, ErrorCode::NoNode, "{}: {}", page.path, document.message);
        assert_eq!(document.hint.as_deref(), Some("wattle run"), "{}", page.path);
        // The contract is 100 ms for the shipped binary; this one is not optimised, and tests run beside it.
        assert!(took < Duration::from_secs(2), "{} took {took:?}", page.path);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "asking in vain leaves no trace");
}

#[test]
fn without_a_node_the_others_work_or_fail_with_a_document() {
    let place = Place::new();
    assert!(place.output(&["init"]).status.success());
    for page in PAGES.iter().filter(|page| !page.needs_node && !starts_a_node(page.path)) {
        let mut words = example_words(page.examples[0].0);
        words.push("--json".to_owned());
        let output = place.output(&words);
        match (output.status.code(), page.json) {
            (Some(0), _) => schemas::check(page, std::str::from_utf8(&output.stdout).unwrap()),
            (Some(2), Json::Document(_)) if page.path == "health" => {
                schemas::check(page, std::str::from_utf8(&output.stdout).unwrap());
            }
            (_, _) => {
                let document = error_of(page.path, &output);
                assert!(page.exits.contains(&document.code), "{}: {}", page.path, document.message);
            }
        }
    }
}

#[test]
fn output_that_nobody_takes_is_an_exit_status_and_never_a_panic() {
    let place = Place::new();
    assert!(place.output(&["init"]).status.success());
    let mut runs: Vec<Vec<String>> = leaves().into_iter().map(|(path, _)| help_words(&path)).collect();
    runs.push(Vec::new());
    runs.extend(
        PAGES
            .iter()
            .filter(|page| !page.needs_node && !starts_a_node(page.path))
            .map(|page| example_words(page.examples[0].0)),
    );
    for words in runs {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = place.wattle(&words).stdout(full).output().unwrap();
        check_calm(&words, &output);

        let mut child = place.wattle(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = Vec::new();
        child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        check_calm(&words, &Output { status, stdout: Vec::new(), stderr });
    }
}

fn help_words(path: &str) -> Vec<String> {
    path.split(' ').map(str::to_owned).chain(["--help".to_owned()]).collect()
}

fn check_calm(words: &[String], output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
    assert_ne!(output.status.code(), Some(101), "{words:?}: {stderr}");
    assert!(output.status.code().is_some(), "{words:?} was killed");
}

#[test]
fn no_color_means_no_escape_bytes_and_always_means_some() {
    let place = Place::new();
    for (path, _) in leaves() {
        let output = place.wattle(&help_words(&path)).env("NO_COLOR", "1").output().unwrap();
        assert!(output.status.success(), "{path}");
        assert!(!output.stdout.contains(&0x1b), "{path}");
    }
    for (color, some) in [("never", false), ("auto", false), ("always", true)] {
        let output = place.output(&["status", "--color", color]);
        assert_eq!(output.stderr.contains(&0x1b), some, "{color}");
    }
}

#[test]
fn help_and_mistakes_write_nothing() {
    let place = Place::new();
    let overview = place.output(&[] as &[&str]);
    assert!(overview.status.success());
    let lines = String::from_utf8(overview.stdout).unwrap().lines().count();
    assert!((15..=22).contains(&lines), "{lines} lines");
    for words in [vec!["--help"], vec!["statsu"], vec!["status"], vec!["dht"], vec!["id"], vec!["doctor"]] {
        place.output(&words);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_manual_has_a_page_for_every_leaf() {
    let place = Place::new();
    assert!(place.output(&["man", "-o", "man"]).status.success());
    for page in PAGES {
        let file = place.path().join("man").join(format!("wattle-{}.1", page.path.replace(' ', "-")));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains("EXAMPLES") && text.contains("EXIT STATUS"), "{}", page.path);
    }
}

/// Compares with the file, or writes it when `UPDATE` is set.
fn snapshot(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, kept, "{name} changed; when that is meant: UPDATE=1 cargo test -p wattle --test walker");
}

#[test]
fn help_texts_are_as_kept() {
    let place = Place::new();
    snapshot("help/wattle.txt", &place.neutral(&place.output(&["--help"]).stdout));
    snapshot("help/overview.txt", &place.neutral(&place.output(&[] as &[&str]).stdout));
    for (path, _) in leaves() {
        let help = place.neutral(&place.output(&help_words(&path)).stdout);
        // The global options are the same everywhere and kept once, with those of `wattle`.
        let (own, rest) = help.split_once("Global options:").unwrap();
        let footer = rest.rfind("\n\n").map(|at| &rest[at..]).unwrap_or_default();
        snapshot(
            &format!("help/{}.txt", path.replace(' ', "-")),
            &format!("{own}Global options: ..{footer}"),
        );
    }
}

#[test]
fn the_error_catalogue_is_as_kept() {
    let place = Place::new();
    let mut catalogue = String::new();
    let mut add = |words: &[&str]| {
        let output = place.output(words);
        let (error, exit) = (place.neutral(&output.stderr), output.status.code().unwrap());
        catalogue.push_str(&format!("$ wattle {}\n{error}exit {exit}\n\n", words.join(" ")));
    };
    add(&["status"]);
    add(&["-n", "bob", "peers"]);
    add(&["-n", "../bob", "peers"]);
    add(&["--api", "http://127.0.0.1:1", "status"]);
    add(&["--api", "/run/api.sock", "status"]);
    add(&["wait", "--ready", "--peers", "2", "--timeout", "0.1s"]);
    add(&["id"]);
    add(&["statsu"]);
    add(&["dht"]);
    add(&["dht", "get"]);
    add(&["status", "--timeout", "3"]);
    add(&["peers", "--sorted"]);
    add(&["health", "--format", "nagois"]);
    add(&["join", "hello"]);
    add(&["join", "wattle:1abc"]);
    add(&["join", "wattle:2abc"]);
    add(&["config", "set", "p2p.lisen", "x"]);
    add(&["config", "set", "p2p.dht_mode", "sometimes"]);
    add(&["init"]);
    add(&["init"]);
    add(&["key", "new"]);
    add(&["key", "import", "absent.key"]);
    std::fs::write(place.path().join(".config/wattle/nodes/default/config.toml"), "[p2p]\nlisen = []\n")
        .unwrap();
    add(&["config", "check"]);
    add(&["run", "-d"]);
    snapshot("errors.txt", &catalogue);
}
