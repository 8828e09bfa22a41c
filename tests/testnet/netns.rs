//! A network for each node: what happens to links happens in the kernel. Needs root, `ip`, `tc` and `nft`.

use wattle_tests::binary::did_not_run;

use super::*;

/// The namespaces of one testnet: the switch, and each node's.
fn namespaces(net: &Net) -> Vec<String> {
    let status = net.machine.json(&["testnet", "status"]);
    beginning_with(status["nodes"][0]["namespace"].as_str().unwrap().rsplit_once('.').unwrap().0)
}

/// The namespaces whose names begin so.
fn beginning_with(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// What a program prints inside of a namespace, or nothing.
fn inside(namespace: &str, words: &[&str]) -> String {
    let output =
        std::process::Command::new("ip").args(["netns", "exec", namespace]).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A testnet of namespaces, where this user can make them.
fn up(words: &[&str]) -> Option<Net> {
    let machine = Machine::new(None);
    let words = [&["testnet", "up", "--backend", "netns", "--timeout", "60s", "--json"], words].concat();
    let output = machine.run(&words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(7) && said.contains("`--backend netns` needs") {
        assert!(said.contains("it needs"), "{said}");
        did_not_run(&said);
        return None;
    }
    assert!(output.status.success(), "{said}");
    let up = serde_json::from_slice(&output.stdout).unwrap();
    Some(Net { machine, up })
}

#[test]
fn in_namespaces_the_kernel_cuts_links_and_nothing_of_them_is_left() {
    let Some(net) = up(&["3"]) else { return };
    let made = namespaces(&net);
    assert_eq!(made.len(), 4, "a switch and three nodes: {made:?}");
    let before = net.ping("0", "bob");
    net.ok(&["testnet", "latency", "0-1", "50ms"]);
    let added = net.ping("0", "bob") - before;
    assert!((45.0..=60.0).contains(&added), "{added} ms more");
    net.ok(&["testnet", "clear"]);

    net.ok(&["testnet", "partition", "--one-way", "0", "1,2"]);
    assert!(inside(&made[1], &["nft", "list", "ruleset"]).contains("ip daddr 10.77.0.2 counter"));
    wait_for("the others do not hear it", PATIENCE, || net.alive("1") == 2 && net.alive("2") == 2);
    net.ok(&["testnet", "heal"]);
    wait_for("they do again", PATIENCE, || net.alive("1") == 3 && net.alive("0") == 3);

    net.ok(&["testnet", "kill", "1"]);
    net.ok(&["testnet", "restart", "1"]);
    net.ok(&["testnet", "add"]);
    net.ok(&["testnet", "remove", "0"]);
    let now = namespaces(&net);
    assert!(now.len() == 4 && !now.contains(&made[1]), "{now:?}");
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");

    net.ok(&["testnet", "down", "--keep"]);
    assert_eq!(left(&now), Vec::<String>::new());
    net.ok(&["testnet", "restart", "all"]);
    wait_for("all are back", PATIENCE, || ["1", "2", "3"].iter().all(|node| net.alive(node) == 3));
    assert_eq!(namespaces(&net), now);
    net.ok(&["testnet", "down"]);
    assert_eq!(left(&now), Vec::<String>::new());
    assert_eq!(files_below(net.machine.home()), Vec::<String>::new());
}

/// Those of these that are still there.
fn left(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| Path::new("/run/netns").join(name).exists()).cloned().collect()
}

#[test]
fn in_namespaces_a_tenth_is_lost_and_no_more_comes_through_than_may() {
    let Some(net) = up(&["2"]) else { return };
    let alice = namespaces(&net).remove(1);
    net.ok(&["testnet", "loss", "0-1", "10%"]);
    // Some may be without an answer.
    net.run(&["-t", "demo/0", "bench", "ping", "--for", "4s", "--clients", "8"]);
    let rules = inside(&alice, &["nft", "list", "ruleset"]);
    let rule = rules.lines().find(|line| line.contains("ip daddr 10.77.0.2")).unwrap();
    let counts: Vec<f64> =
        rule.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect();
    let share = counts[1] / counts[0];
    eprintln!("{} of {} packets were lost", counts[1], counts[0]);
    assert!(counts[0] > 2000.0 && (0.08..=0.12).contains(&share), "{rule}");

    net.ok(&["testnet", "clear"]);
    net.ok(&["testnet", "rate", "0-1", "64kbit"]);
    let begun = Instant::now();
    net.run(&["-t", "demo/0", "bench", "ping", "--for", "4s", "--clients", "64"]);
    let classes = inside(&alice, &["tc", "-s", "class", "show", "dev", "eth0"]);
    let sent = classes.split("Sent ").nth(1).unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
    let rate = sent * 8.0 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} bits a second came through");
    assert!((16_000.0..=72_000.0).contains(&rate), "{rate}: {classes}");
    net.ok(&["testnet", "rate", "0-1", "0"]);
    assert!(
        !inside(&alice, &["tc", "qdisc", "show", "dev", "eth0"]).contains("htb"),
        "nothing is limited any more"
    );
}

#[test]
fn an_up_of_namespaces_that_is_killed_in_the_middle_is_taken_away_by_down() {
    let Some(first) = up(&["1"]) else { return };
    drop(first);
    let machine = Machine::new(None);
    let words = ["testnet", "up", "8", "--backend", "netns"];
    let mut up = machine.command(&words).stdout(Stdio::null()).spawn().unwrap();
    wait_for("some nodes are started", PATIENCE, || processes_of(machine.home()).len() >= 4);
    let net = Net { machine, up: Value::Null };
    up.kill().unwrap();
    up.wait().unwrap();
    let made = namespaces(&net);
    assert!(made.len() >= 3, "{made:?}");
    net.ok(&["testnet", "down"]);
    assert_eq!(beginning_with(&made[0]), Vec::<String>::new());
    assert_eq!(processes_of(net.machine.home()), Vec::<String>::new());
}
