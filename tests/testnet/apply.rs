//! Testnets that a file describes.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use wattle_tests::binary::{Machine, wait_for};

use super::{Net, PATIENCE, check};

/// A machine without testnets, and a file on it.
struct Declared {
    net: Net,
    file: PathBuf,
}

impl Declared {
    fn new() -> Self {
        let machine = Machine::new(None);
        let file = machine.home().join("net.toml");
        Self { net: Net { machine, up: Value::Null }, file }
    }

    /// The words that apply a text.
    fn words(&self, text: &str) -> [String; 5] {
        std::fs::write(&self.file, text).unwrap();
        ["testnet", "apply", "--timeout", "60s", &self.file.display().to_string()].map(str::to_owned)
    }

    fn apply(&self, text: &str) -> Value {
        let words = self.words(text);
        self.net.machine.json(&words.each_ref().map(String::as_str))
    }

    fn refused(&self, text: &str) -> (Option<i32>, String) {
        let words = self.words(text);
        let output = self.net.run(&words.each_ref().map(String::as_str));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn status(&self) -> Value {
        self.net.machine.json(&["testnet", "status"])
    }

    fn states(&self) -> Vec<String> {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
    }
}

fn faults(applied: &Value) -> Vec<&str> {
    applied["faults"].as_array().unwrap().iter().map(|step| step["what"].as_str().unwrap()).collect()
}

const THREE: &str = "nodes = 3\nseed = 7\n[links]\nlatency = \"20ms\"\n\
    [[link]]\nbetween = [\"alice\", 2]\nloss = \"1%\"\n\
    [[fault]]\nat = \"300ms\"\ndo = \"heal\"\n\
    [[fault]]\nat = \"100ms\"\ndo = \"partition 0 1,2\"\n\
    [[fault]]\nat = \"400ms\"\ndo = \"kill carol\"\n";

#[test]
fn a_testnet_in_a_file_is_made_once_and_then_there_is_nothing_to_change() {
    let declared = Declared::new();
    let applied = declared.apply(THREE);
    assert_eq!((&applied["changed"], &applied["did"]), (&true.into(), &json!(["up 3", "links"])));
    assert_eq!(faults(&applied), ["partition 0 1,2", "heal", "kill carol"]);
    for step in applied["faults"].as_array().unwrap() {
        assert!(step["done_ms"].as_u64() >= step["at_ms"].as_u64(), "{step}");
    }
    let status = declared.status();
    assert_eq!(declared.states(), ["running", "running", "down"]);
    assert_eq!((&status["seed"], &status["partition"]), (&7.into(), &Value::Null));
    let links = status["links"].as_array().unwrap();
    assert_eq!((&links[0]["latency_ms"], links[0].get("between")), (&json!(20.0), None), "{status:#}");
    assert_eq!((&links[1]["between"], &links[1]["loss"]), (&json!([0, 2]), &json!(0.01)), "{status:#}");

    let again = declared.apply(THREE);
    assert_eq!((&again["changed"], &again["did"], faults(&again).len()), (&false.into(), &json!([]), 0));
    assert_eq!(again["faults_before"], 3);
    let after = declared.status();
    for node in 0..3 {
        assert_eq!(after["nodes"][node]["pid"], status["nodes"][node]["pid"], "nobody was started again");
    }
    let words = declared.words(THREE);
    let said = declared.net.ok(&words.each_ref().map(String::as_str));
    assert!(said.starts_with("nothing to change: demo is as "), "{said}");
    assert!(said.contains("3 nodes, 3 of 3 faults done"), "{said}");
}

#[test]
fn what_somebody_changed_by_hand_is_put_back_and_what_the_file_changed_is_done() {
    let declared = Declared::new();
    declared.apply(THREE);
    for words in [
        &["testnet", "pause", "bob"][..],
        &["testnet", "latency", "90ms"],
        &["testnet", "partition", "1", "2"],
    ] {
        declared.net.ok(words);
    }
    let back = declared.apply(THREE);
    assert_eq!(back["did"], json!(["resume 1", "links"]));
    assert_eq!(declared.states(), ["running", "running", "down"], "carol was killed by the file");
    assert_eq!(declared.status()["partition"], Value::Null);
    assert_eq!(declared.apply(THREE)["changed"], false);

    let four = THREE.replace("nodes = 3", "nodes = 4");
    assert_eq!(declared.apply(&four)["did"], json!(["add 1"]));
    wait_for("the new one is known", PATIENCE, || declared.net.alive("dave") == 3);
    assert_eq!(declared.apply(THREE)["did"], json!(["remove 3"]));
    // Index 3 was used; what the file wants cannot be had without beginning anew.
    let (exit, said) = declared.refused(&four);
    assert!(exit == Some(6) && said.contains("its node 3 was removed"), "{said}");
    assert!(said.contains("wattle testnet down --name demo"), "{said}");

    let calm = THREE.split("[[fault]]").next().unwrap();
    assert_eq!(declared.apply(calm)["did"], json!(["restart 2"]), "without the fault nobody killed her");
    assert_eq!(declared.states(), ["running", "running", "running"]);
    declared.net.ok(&["testnet", "down", "--keep"]);
    assert_eq!(declared.apply(calm)["did"], json!(["restart 0 1 2"]));
    assert_eq!(declared.states(), ["running", "running", "running"]);
}

#[test]
fn faults_that_were_interrupted_go_on_where_they_were() {
    let declared = Declared::new();
    let text =
        "nodes = 2\n[[fault]]\nat = \"0s\"\ndo = \"loss 2%\"\n[[fault]]\nat = \"4s\"\ndo = \"clear\"\n";
    let words = declared.words(text);
    let mut command = declared.net.machine.command(&words.each_ref().map(String::as_str));
    let mut applying = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let written = declared.net.machine.home().join(".local/state/wattle/testnets/demo/testnet.json");
    let begun = || std::fs::read_to_string(&written).is_ok_and(|text| text.contains("\"done\": 1"));
    wait_for("the first fault is done", PATIENCE, begun);
    applying.kill().unwrap();
    applying.wait().unwrap();
    assert_eq!(declared.status()["links"][0]["loss"], 0.02, "the second one was not done yet");
    let rest = declared.apply(text);
    assert_eq!((&rest["faults_before"], &rest["did"]), (&1.into(), &json!([])), "{rest:#}");
    assert_eq!(faults(&rest), ["clear"]);
    assert_eq!(declared.status()["links"], json!([]));
    assert_eq!(declared.apply(text)["changed"], false);
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_says_where() {
    let declared = Declared::new();
    for (text, place, words) in [
        ("nodes = 3\nnods = 4\n", "net.toml:2:1", "did you mean `nodes`?"),
        ("nodes = 3\n[[fault]]\nat = \"1s\"\ndo = \"kill dave\"\n", "net.toml:4:6", "no node `dave`"),
        ("nodes = 3\n[links]\nloss = \"200%\"\n", "net.toml:3:8", "0% to 100%"),
        ("nodes = 200\nvalidators = 129\n", "net.toml:2:14", "at most 128 validators"),
        ("nodes = 3\n[links\n", "net.toml:2:", ""),
    ] {
        let (exit, said) = declared.refused(text);
        assert_eq!(exit, Some(2), "{said}");
        assert!(said.contains(place) && said.contains(words), "{text}: {said}");
    }
    assert_eq!(declared.net.machine.json(&["testnet", "list"])["testnets"], json!([]));
}

/// The file that is shipped: a log, a bad network, a split, a death; and everything holds afterwards.
#[test]
fn the_shipped_file_makes_a_testnet_whose_report_passes() {
    let declared = Declared::new();
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/testnet.toml");
    let text = std::fs::read_to_string(shipped).unwrap();
    let applied = declared.apply(&text);
    assert_eq!((&applied["nodes"], &applied["validators"]), (&5.into(), &4.into()));
    assert_eq!(faults(&applied).len(), 4);
    let (exit, report) = declared.net.report("60s");
    assert_eq!(exit, 0, "{report:#}");
    assert_eq!(check(&report, "order")["pass"], true);
    assert_eq!(declared.apply(&text)["changed"], false);
    for (text, words) in [
        ("nodes = 4\nvalidators = 4\n", "node 4 (erin) votes, and is one too many for"),
        ("nodes = 5\n", "has 4 validators, and not 0 as in"),
        ("nodes = 5\nvalidators = 4\nseed = 8\n", "is 7, and not 8 as in"),
    ] {
        let (exit, said) = declared.refused(text);
        assert!(exit == Some(6) && said.contains(words), "{said}");
    }
    assert_eq!(declared.states(), ["running"; 5]);
}
