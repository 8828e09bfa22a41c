//! The scripts below `configs/scripts` do what their first lines say: people copy them.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use wattle_tests::binary::{Machine, did_not_run, wait_for, wattle};

/// A script as a person runs it who has `wattle` in the path.
fn script(machine: &Machine, name: &str, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/scripts").join(name);
    let like = machine.command(&[]);
    let others = std::env::var("PATH").unwrap_or_default();
    let mut run = Command::new(script);
    run.args(arguments).env_clear().stdin(Stdio::null());
    run.envs(like.get_envs().filter_map(|(key, value)| Some((key, value?))));
    run.env("PATH", format!("{}:{others}", wattle().parent().unwrap().display()));
    run
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn has_jq() -> bool {
    Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Takes the testnet down, however the test ends.
struct Down<'a>(&'a Machine);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        drop(self.0.run(&["testnet", "down"]));
    }
}

#[test]
fn validators_are_there_while_a_command_runs_and_nothing_of_them_after_it() {
    let machine = Machine::new(None);
    let _down = Down(&machine);
    // Another node may have it a moment later.
    let append = "wattle -t ci/3 order submit tested && wattle -t ci/3 order log -c 1";
    let run = script(&machine, "testnet-ci.sh", &["sh", "-c", append]).output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    assert!(said(&run).contains("tested") && said(&run).contains("no fork"), "{}", said(&run));
    assert_eq!(machine.json(&["testnet", "list"])["testnets"], serde_json::json!([]));

    let run = script(&machine, "testnet-ci.sh", &["sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(run.status.code(), Some(7), "it ends as its command: {}", said(&run));
    assert!(said(&run).contains("alice INFO"), "with what the nodes logged: {}", said(&run));
    assert_eq!(machine.json(&["testnet", "list"])["testnets"], serde_json::json!([]));
}

#[test]
fn nodes_are_restarted_one_after_the_other_and_the_log_goes_on() {
    if !has_jq() {
        return did_not_run("the scripts that read JSON need jq");
    }
    let machine = Machine::new(None);
    let _down = Down(&machine);
    let _up = machine.json(&["testnet", "up", "4", "--validators", "4"]);
    let pids = || -> Vec<u64> {
        let status = machine.json(&["testnet", "status"]);
        status["nodes"].as_array().unwrap().iter().map(|node| node["pid"].as_u64().unwrap()).collect()
    };
    let before = pids();
    let run = script(&machine, "rolling-restart.sh", &["demo"]).output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    assert!(pids().iter().zip(&before).all(|(after, before)| after != before), "all are new processes");
    let log = machine.run(&["-t", "demo/0", "order", "log", "-c", "20"]);
    for node in 0..4 {
        assert!(said(&log).contains(&format!("node {node} is back")), "{}", said(&log));
    }
}

#[test]
fn a_crawl_finds_every_node_of_the_dht() {
    let machine = Machine::new(None);
    let _down = Down(&machine);
    let up = machine.json(&["testnet", "up", "8"]);
    let ids = up["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned());
    let ids: BTreeSet<String> = ids.collect();
    let run = script(&machine, "dht-crawl.sh", &["-t", "demo/3"]).output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    let found: BTreeSet<String> = String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect();
    assert_eq!(found, ids);
}

#[test]
fn a_bot_answers_what_it_knows_and_only_what_is_said_from_now_on() {
    if !has_jq() {
        return did_not_run("the scripts that read JSON need jq");
    }
    let machine = Machine::new(None);
    let _down = Down(&machine);
    let _up = machine.json(&["testnet", "up", "3"]);
    let at = |node: &str, words: &[&str]| {
        let output = machine.run(&[&["-t", node], words].concat());
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    at("demo/0", &["room", "new", "dev"]);
    let ticket = at("demo/0", &["invite", "--room", "dev", "-q"]);
    at("demo/1", &["join", ticket.trim()]);
    at("demo/0", &["chat", "send", "dev", "!members", "--wait-ack", "1"]);

    let mut bot = script(&machine, "chat-bot.sh", &["dev", "-t", "demo/1"]);
    let mut bot = bot.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut tail = machine.command(&["-t", "demo/0", "chat", "tail", "dev", "-f", "-c", "0"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // The bot may not listen yet: asked until it answers, as a person does.
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            sender.send(line).unwrap_or_default();
        }
    });
    let mut heard: Vec<String> = Vec::new();
    wait_for("the bot answers", Duration::from_secs(30), || {
        at("demo/0", &["chat", "send", "dev", "$(touch ran); !members"]);
        at("demo/0", &["chat", "send", "dev", "!members"]);
        std::thread::sleep(Duration::from_millis(300));
        heard.extend(answers.try_iter());
        heard.iter().any(|line| line.ends_with("3 are alive"))
    });
    bot.kill().unwrap();
    tail.kill().unwrap();
    drop((bot.wait(), tail.wait()));
    let asked = heard.iter().filter(|line| line.ends_with("\t!members")).count();
    let answered = heard.iter().filter(|line| line.ends_with("are alive")).count();
    assert!(answered <= asked, "what was asked before it came is not answered: {heard:?}");
    assert!(!Path::new("ran").exists() && !machine.home().join("ran").exists(), "a text is never run");
}
