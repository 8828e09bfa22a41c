//! What is done to nodes themselves: disks without space, and clocks that are wrong.

use jiff::{SignedDuration, Timestamp};

use super::*;

/// Waits until a validator says, or no longer says, that it finds no space for the log.
fn wait_for_alarm(net: &Net, wanted: bool) {
    wait_for("the log knows of its disk", PATIENCE, || {
        let alarms = net.machine.json(&["-t", "demo/1", "order", "status"])["alarms"].to_string();
        alarms.contains("no space is left on the disk") == wanted
    });
}

#[test]
fn a_validator_without_space_refuses_in_words_and_takes_part_when_there_is_some() {
    let net = Net::up(&["5", "--validators", "4"]);
    let submit = |node: &str, what: &str| {
        net.at(node, &["order", "submit", what, "--wait", "commit", "--timeout", "30s"]);
    };
    for restarted in [false, true] {
        net.ok(&["testnet", "disk", "bob", "full"]);
        if restarted {
            net.ok(&["testnet", "restart", "1"]);
            assert_eq!(get(&net, "1")["disk_full"], true, "it is full from the start");
        }
        let refused = net.run(&["-t", "demo/1", "doc", "new", "plan"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("no space is left on the disk"), "{said}");
        assert!(net.ok(&["testnet", "status"]).contains("1:  disk full"));
        // Three of four have space, and that is a quorum.
        submit("0", "without bob");
        wait_for_alarm(&net, true);
        let refused = net.run(&["-t", "demo/1", "order", "submit", "by bob", "--timeout", "30s"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("until there is some"), "{said}");

        net.ok(&["testnet", "disk", "1", "free"]);
        assert_eq!(get(&net, "1")["disk_full"], false);
        wait_for_alarm(&net, false);
        // Another may be away now, since bob is there.
        net.ok(&["testnet", "kill", "2"]);
        submit("1", "with bob");
        net.ok(&["testnet", "restart", "2"]);
    }
    net.at("1", &["doc", "new", "plan"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}

/// Whichever validator a node listens to that only follows: it asks another one when that one stands still.
#[test]
fn who_follows_hears_of_what_is_ordered_while_any_validator_stands_still() {
    let net = Net::up(&["5", "--validators", "4"]);
    for still in ["1", "2", "3", "4"] {
        net.ok(&["testnet", "disk", still, "full"]);
        // From the start, so that it knows of nothing that is ordered from here on. One of them is who the other asks
        // first when it starts.
        net.ok(&["testnet", "restart", still]);
        net.ok(&["testnet", "restart", "0"]);
        net.at("0", &["order", "submit", &format!("without {still}"), "--timeout", "15s"]);
        net.ok(&["testnet", "disk", still, "free"]);
        net.ok(&["testnet", "restart", still]);
        net.at("0", &["order", "submit", &format!("with {still}"), "--timeout", "15s"]);
    }
}

#[test]
fn a_validator_with_a_wrong_clock_moves_the_time_of_the_log_for_nobody() {
    let net = Net::up(&["5", "--validators", "4"]);
    net.ok(&["testnet", "clock", "bob", "1h"]);
    assert!(net.ok(&["testnet", "status"]).contains("1:  clock 1h00m ahead"));
    // Each leads once at least.
    for number in 0..8 {
        net.at("0", &["order", "submit", &format!("entry {number}"), "--wait", "commit", "--timeout", "30s"]);
    }
    let log = net.machine.json(&["-t", "demo/2", "order", "log"]);
    let times = log["entries"].as_array().unwrap().iter().map(|entry| entry["time"].as_str().unwrap());
    let times: Vec<Timestamp> = times.map(|time| time.parse().unwrap()).collect();
    let minute = SignedDuration::from_mins(1);
    assert!(
        times.len() >= 9 && times.iter().all(|time| Timestamp::now().duration_since(*time).abs() < minute),
        "{times:?}"
    );

    // What bob hands in has its time by bob's clock, and no honest validator takes it before.
    let early = net.run(&["-t", "demo/1", "order", "submit", "from the future", "--timeout", "3s"]);
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && said.contains("NOT KNOWN yet"), "{said}");
    // Behind it is known at once that what is handed in is over.
    net.ok(&["testnet", "clock", "0", "1h", "--behind"]);
    let late = net.run(&["-t", "demo/0", "order", "submit", "from the past", "--timeout", "20s"]);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(!late.status.success() && said.contains("behind that of the log"), "{said}");
    net.ok(&["testnet", "clock", "0s"]);
    assert_eq!(get(&net, "1")["clock_ms"], 0);
    net.at("1", &["order", "submit", "from now", "--wait", "commit", "--timeout", "30s"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}

/// As a machine whose clock is set after the start, or that slept.
#[test]
fn what_was_said_while_a_clock_was_behind_is_shown_once_it_is_right() {
    let net = Net::up(&["2"]);
    net.at("0", &["room", "new", "talk"]);
    let room = net.at("0", &["invite", "--room", "talk", "-q"]);
    net.at("1", &["join", room.trim()]);
    net.ok(&["testnet", "clock", "1", "1h", "--behind"]);
    net.ok(&["testnet", "restart", "1"]);
    net.at("0", &["chat", "send", "talk", "good morning", "--wait-ack", "1"]);
    let shown = || net.at("1", &["chat", "tail", "talk", "-c", "9"]).contains("good morning");
    assert!(!shown(), "for bob it is an hour ahead");
    net.ok(&["testnet", "clock", "0s"]);
    wait_for("bob has it", PATIENCE, shown);
    let (exit, report) = net.report("30s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}
