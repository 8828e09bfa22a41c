//! What a newcomer does first and other programs must agree with: the half that is not wattle is JavaScript.
//!
//! It needs Node and `npm ci` in `tests/interop`; without them these tests say that they did not run, and with
//! `WATTLE_TEST_ALL=1` they fail.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use wattle_tests::binary::{Machine, did_not_run};
use wattle_tests::local::Local;

/// What another program's decoder reads in a code as the terminal shows it; `None` where there is no Node.
fn scanned(code: &str) -> Option<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
    if !directory.join("node_modules/jsqr/package.json").exists() {
        did_not_run("Node is not here (npm ci in tests/interop)");
        return None;
    }
    let mut node = Command::new("node");
    node.arg("qr.mjs").current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = node.spawn().unwrap();
    node.stdin.take().unwrap().write_all(code.as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "not read: {code}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_invitation_can_be_scanned_from_the_terminal_and_lets_in() {
    let machine = Machine::new(None);
    let (alice, bob) = (Local::start(&machine, "alice"), Local::start(&machine, "bob"));
    let ok = |words: &[&str]| {
        let output = machine.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ok(&["-n", alice.name(), "room", "new", "dev"]);
    ok(&["-n", alice.name(), "doc", "new", "notes"]);
    for words in [
        &["invite", "--room", "dev", "--qr"][..],
        &["invite", "--qr"],
        &["invite", "--doc", "notes", "--qr"],
        &["doc", "share", "notes", "--ro", "--qr"],
    ] {
        let said = ok(&[&["-n", alice.name()], words].concat());
        let is_code = |line: &&str| !line.is_empty() && line.chars().all(|c| "█▀▄ ".contains(c));
        let code: String = said.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect();
        let Some(read) = scanned(&code) else { return };
        let ticket = said.split_whitespace().find(|word| word.starts_with("wattle:")).unwrap();
        assert_eq!(read.to_lowercase(), ticket, "{words:?}");
        // As a camera gives it, in capitals.
        ok(&["-n", bob.name(), "join", &read]);
    }
    assert!(ok(&["-n", bob.name(), "room", "list"]).contains("#dev"));
}
