//! Load on a real testnet: that everything has its outcome, not how fast.

use serde_json::Value;
use wattle_tests::binary::{did_not_run, wait_for};

use super::{Net, PATIENCE};

/// Runs a load that must come through, and holds its figures against each other.
fn load(net: &Net, kind: &str, words: &[&str]) -> Value {
    let bench = net.machine.json(&[&["-t", "demo/0", "bench", kind], words].concat());
    let number = |name: &str| bench[name].as_u64().unwrap();
    assert_eq!((&bench["schema"], &bench["kind"]), (&"wattle.bench/1".into(), &kind.into()));
    assert!(number("sent") >= 1 && number("ok") == number("sent"), "{bench:#}");
    assert_eq!((number("errors"), &bench["why"]), (0, &Value::Null), "{bench:#}");
    let latency = |of: &Value| ["p50", "p90", "p99", "max"].map(|name| of[name].as_f64().unwrap());
    let whole = latency(&bench["latency_ms"]);
    assert!(whole[0] > 0.0 && whole.is_sorted(), "{bench:#}");
    assert!(whole[3] <= bench["took_ms"].as_f64().unwrap() + 1.0, "one took longer than all: {bench:#}");
    for part in bench["parts"].as_object().into_iter().flat_map(|parts| parts.values()) {
        let part = latency(part);
        assert!(part.is_sorted() && part[3] <= whole[3], "a part took longer than the whole: {bench:#}");
    }
    bench
}

#[test]
fn everything_that_load_does_has_its_outcome_and_leaves_nothing() {
    let net = Net::up(&["5", "--validators", "4"]);
    let ping = load(&net, "ping", &["--for", "500ms"]);
    assert_eq!((&ping["env"]["nodes"], &ping["env"]["bytes"]), (&5.into(), &0.into()));

    let dht = load(&net, "dht", &["--for", "500ms", "--clients", "2"]);
    assert!(dht["parts"]["put ms"].is_object() && dht["parts"]["get ms"].is_object(), "{dht:#}");

    let before = net.machine.json(&["-t", "demo/0", "order", "status"])["height"].as_u64().unwrap();
    let order = load(&net, "order", &["--for", "500ms", "--clients", "4", "--size", "64"]);
    assert_eq!((&order["env"]["validators"], &order["env"]["bytes"]), (&4.into(), &64.into()));
    let from = (before + 1).to_string();
    let entries = || {
        let log = net.machine.json(&["-t", "demo/3", "order", "log", "--from", &from, "-c", "1000"]);
        log["entries"].as_array().unwrap().len() as u64
    };
    wait_for("each stands there once", PATIENCE, || Some(entries()) == order["ok"].as_u64());

    let gossip = load(&net, "gossip", &["--for", "500ms", "--rate", "20"]);
    assert!(gossip["sent"].as_u64().unwrap() <= 10, "more than 20 a second: {gossip:#}");
    assert_eq!(gossip["env"]["listeners"], 4);

    let doc = load(&net, "doc", &["--for", "500ms", "--clients", "2", "--size", "32"]);
    assert_eq!(doc["env"]["listeners"], 4);
    for node in ["0", "1", "4"] {
        let docs = net.at(node, &["doc", "list", "-q"]);
        assert_eq!(docs, "", "a document of the load is left at {node}");
    }
}

/// What a command draws on a terminal, which `script` gives it; nothing where there is no `script`.
fn on_a_terminal(net: &Net, words: &[&str]) -> Option<String> {
    let command = net.machine.command(words);
    let quoted: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qefc", &quoted.join(" "), "/dev/null"]).env_clear().stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    match script.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            did_not_run("a bar on a terminal needs `script` (util-linux)");
            None
        }
        output => Some(String::from_utf8(output.unwrap().stdout).unwrap()),
    }
}

#[test]
fn on_a_terminal_a_bar_grows_and_goes_unless_it_is_unwanted() {
    let net = Net::up(&["2"]);
    let words = ["-t", "demo/0", "bench", "ping", "--for", "1s"];
    let Some(drawn) = on_a_terminal(&net, &words) else { return };
    let bars: Vec<usize> = drawn
        .split('\r')
        .filter(|line| line.contains("ping  ["))
        .map(|line| line.matches('#').count())
        .collect();
    assert!(bars.len() >= 4 && bars.is_sorted() && bars.last() >= Some(&10), "{bars:?}");
    let (_, after) = drawn.rsplit_once("ping  [").unwrap();
    assert!(after.contains("\r\u{1b}[K") && after.contains("latency ms"), "the bar is taken away: {after:?}");
    let plain = on_a_terminal(&net, &[&words[..], &["--no-progress"]].concat()).unwrap();
    assert!(plain.contains("latency ms") && !plain.contains('['), "{plain:?}");
}

#[test]
fn load_that_comes_to_nothing_says_why_and_what_comes_to_something_is_counted() {
    let net = Net::up(&["4", "--validators", "4"]);
    let output = net.run(&["-t", "demo/0", "bench", "order", "--for", "300ms"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("order/submit  ") && said.contains("  0 errors"), "{said}");
    assert!(said.contains("4 nodes, 4 validators") && said.contains("128 B"), "{said}");
    assert_eq!(output.stderr, b"", "no progress where nobody looks");

    net.ok(&["testnet", "pause", "2"]);
    let words =
        ["-t", "demo/0", "bench", "ping", "--for", "300ms", "--clients", "6", "--timeout", "1s", "--json"];
    let output = net.run(&words);
    assert_eq!(output.status.code(), Some(10), "{}", String::from_utf8_lossy(&output.stderr));
    let bench: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [sent, ok, errors] = ["sent", "ok", "errors"].map(|name| bench[name].as_u64().unwrap());
    assert!(ok >= 1 && errors >= 1 && sent == ok + errors, "{bench:#}");
    let reasons = bench["why"].as_object().unwrap().values();
    assert_eq!(reasons.map(|count| count.as_u64().unwrap()).sum::<u64>(), errors, "{bench:#}");
    assert!(
        bench["latency_ms"]["max"].as_f64().unwrap() < 1000.0,
        "what has no answer has no latency: {bench:#}"
    );

    net.ok(&["testnet", "kill", "1", "2"]);
    let output = net.run(&["-t", "demo/0", "bench", "order", "--for", "300ms", "--timeout", "20s", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("no quorum") && output.stdout.is_empty(), "{said}");
    net.ok(&["testnet", "kill", "3"]);
    let alone = net.run(&["-t", "demo/0", "bench", "gossip", "--for", "300ms"]);
    let said = String::from_utf8(alone.stderr).unwrap();
    assert_eq!(alone.status.code(), Some(4), "{said}");
    assert!(said.contains("no other node of this network runs on this machine"), "{said}");
}
