//! Many nodes in one process: each itself to the others, and none of them to be killed alone.

use super::*;

fn up(words: &[&str]) -> Net {
    Net::up(&[&["--backend", "inproc"], words].concat())
}

/// Who runs, by index.
fn running(net: &Net) -> Vec<u64> {
    let status = net.machine.json(&["testnet", "status"]);
    let rows = status["nodes"].as_array().unwrap().iter();
    rows.filter(|row| row["state"] == "running").map(|row| row["index"].as_u64().unwrap()).collect()
}

#[test]
fn nodes_in_one_process_are_themselves_to_each_other_and_gone_without_a_trace() {
    let net = up(&["5", "--validators", "4"]);
    assert_eq!(
        (&net.up["backend"], net.up["log"]["validators"].as_array().unwrap().len()),
        (&"inproc".into(), 4)
    );
    assert_eq!(processes_of(net.machine.home()).len(), 1);
    for node in ["0", "1", "carol", "dave", "4"] {
        assert_eq!(net.alive(node), 5, "at {node}");
    }
    // Each has its own key, and its own log in memory and on disk.
    for node in net.up["nodes"].as_array().unwrap() {
        let (name, id) = (node["name"].as_str().unwrap(), &node["id"]);
        assert_eq!(net.at(name, &["id", "-q"]).trim(), id.as_str().unwrap());
        let lines = net.at(name, &["logs", "--json"]);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ready: Vec<Value> = lines.filter(|line| line["message"] == "ready").collect();
        assert!(ready.len() == 1 && ready[0]["fields"]["id"] == *id, "{name} remembers {ready:?}");
        let file = files_below(&net.directory())
            .into_iter()
            .find(|file| file.ends_with(&format!("{name}/wattle.log")));
        let said = std::fs::read_to_string(file.unwrap()).unwrap();
        assert_eq!(said.matches("wattle::run: ready id=").count(), 1, "{name} wrote {said}");
    }
    // What they do, they do for each other.
    net.at("0", &["dht", "put", "one", "1"]);
    assert_eq!(net.at("4", &["dht", "get", "one"]).trim(), "1");
    net.ok(&["testnet", "partition", "0,1", "2,3,4"]);
    wait_for("each side sees itself alone", PATIENCE, || net.alive("0") == 2 && net.alive("4") == 3);
    net.ok(&["testnet", "heal"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");

    let down = net.machine.json(&["testnet", "down"]);
    assert_eq!(down["stopped"], 5);
    assert_eq!(processes_of(net.machine.home()), Vec::<String>::new());
    assert_eq!(files_below(net.machine.home()), Vec::<String>::new());
}

#[test]
fn fifty_nodes_in_one_process_find_each_other_and_all_hear_what_one_says() {
    let net = up(&["50"]);
    let status = net.machine.json(&["testnet", "status"]);
    let nodes = status["nodes"].as_array().unwrap();
    let sum = |what: &str| nodes.iter().map(|node| node[what].as_u64().unwrap()).sum::<u64>();
    let (memory, cpu) = (sum("rss_bytes") / 50 / 1_000_000, sum("cpu_ms") / 50);
    eprintln!(
        "50 nodes: answered after {} ms, alive for all after {} ms; each {memory} MB and {cpu} ms of a processor",
        net.up["up_ms"], net.up["alive_ms"]
    );
    assert!(memory < 60, "{memory} MB each: more than a process of its own takes");
    let (exit, report) = net.report("30s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
    let found = check(&report, "dht");
    assert!(found["summary"].as_str().unwrap().contains("49 of 49"), "{found}");
    for (kind, what) in [("dht", "of lookups"), ("gossip", "of messages, each heard by 49")] {
        let load = net.machine.json(&[
            "-t",
            "demo/7",
            "bench",
            kind,
            "--for",
            "8s",
            "--rate",
            "10",
            "--clients",
            "4",
        ]);
        eprintln!("{} of {} {what}", load["ok"], load["sent"]);
        assert!(load["sent"].as_u64() >= Some(10) && load["ok"] == load["sent"], "{kind}: {load:#}");
        assert_eq!(load["env"]["nodes"], 50);
    }
}

#[test]
fn one_of_a_process_is_not_killed_or_frozen_and_comes_and_goes_alone() {
    let net = up(&["3"]);
    for what in ["kill", "pause"] {
        let refused = net.run(&["testnet", what, "bob"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(6), "{said}");
        assert!(said.contains("with 2 others") && said.contains("--backend process"), "{said}");
    }
    assert_eq!(net.run(&["testnet", "chaos", "--kinds", "kill"]).status.code(), Some(2));
    assert_eq!(net.run(&["testnet", "clock", "bob", "1h"]).status.code(), Some(6), "one clock for all");
    assert_eq!(running(&net), [0, 1, 2], "nothing was done to any");

    let id = net.at("1", &["id", "-q"]);
    net.at("1", &["stop"]);
    wait_for("the others see it leave", PATIENCE, || net.alive("0") == 2 && net.alive("2") == 2);
    assert_eq!(running(&net), [0, 2]);
    net.ok(&["testnet", "restart", "1", "2"]);
    assert_eq!(net.at("1", &["id", "-q"]), id, "it is who it was");
    wait_for("both are back", PATIENCE, || ["0", "1", "2"].iter().all(|node| net.alive(node) == 3));
    assert_eq!(processes_of(net.machine.home()).len(), 2, "what was started together is together");

    net.ok(&["testnet", "add", "2"]);
    wait_for("new ones are known", PATIENCE, || ["0", "2", "4"].iter().all(|node| net.alive(node) == 5));
    net.ok(&["testnet", "remove", "3"]);
    wait_for("one is gone", PATIENCE, || ["0", "1", "4"].iter().all(|node| net.alive(node) == 4));
    // Everybody in a process, whoever else there is: that is what happens when a process dies.
    net.ok(&["testnet", "kill", "1", "2"]);
    wait_for("they are gone", PATIENCE, || net.alive("0") == 2 && net.alive("4") == 2);
    assert_eq!(running(&net), [0, 4]);
}

#[test]
fn a_process_that_thaws_has_for_all_its_nodes_what_was_done_meanwhile() {
    let net = up(&["3"]);
    net.ok(&["testnet", "pause", "all"]);
    net.ok(&["testnet", "partition", "0", "1,2"]);
    net.ok(&["testnet", "resume", "0"]);
    wait_for("each side sees itself alone", PATIENCE, || net.alive("0") == 1 && net.alive("1") == 2);
    net.ok(&["testnet", "heal"]);
    net.ok(&["testnet", "pause", "all"]);
    net.ok(&["testnet", "restart", "1"]);
    wait_for("all are back", PATIENCE, || ["0", "1", "2"].iter().all(|node| net.alive(node) == 3));
    let (exit, report) = net.report("30s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}

#[test]
fn an_up_of_one_process_that_is_killed_in_the_middle_leaves_nothing() {
    let machine = Machine::new(None);
    let mut up = machine
        .command(&["testnet", "up", "8", "--backend", "inproc"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("its process is there", PATIENCE, || {
        processes_of(machine.home()).iter().any(|line| line.contains("host"))
    });
    up.kill().unwrap();
    up.wait().unwrap();
    wait_for("it ends by itself", PATIENCE, || processes_of(machine.home()).is_empty());
    assert!(machine.run(&["testnet", "down"]).status.success());
    assert_eq!(files_below(machine.home()), Vec::<String>::new());
}

#[test]
fn a_node_of_a_process_that_cannot_start_ends_all_of_them_and_is_named() {
    let machine = Machine::new(None);
    let net = machine.run(&["testnet", "up", "2", "--backend", "inproc"]);
    assert!(net.status.success(), "{}", String::from_utf8_lossy(&net.stderr));
    assert!(machine.run(&["testnet", "down", "--keep"]).status.success());
    let list = machine.json(&["testnet", "list"]);
    let directory = PathBuf::from(list["testnets"][0]["directory"].as_str().unwrap());
    let key = files_below(&directory).into_iter().find(|file| file.ends_with("bob/identity.key")).unwrap();
    let whole = std::fs::read(&key).unwrap();
    std::fs::write(&key, "nonsense").unwrap();
    let refused = |who: &str| {
        let refused = machine.run(&["testnet", "restart", "all"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains(&format!("node \"{who}\" did not start")),
            "{said}"
        );
        assert!(said.contains("it said"), "{said}");
        assert_eq!(processes_of(machine.home()), Vec::<String>::new());
    };
    refused("bob");
    // What was wrong before is not told again, and the others do not wait for one that fails at once.
    std::fs::write(&key, whole).unwrap();
    let config =
        files_below(&directory).into_iter().find(|file| file.ends_with("alice/config.toml")).unwrap();
    std::fs::write(&config, "nonsense").unwrap();
    refused("alice");
    assert!(machine.run(&["testnet", "down"]).status.success());
}
