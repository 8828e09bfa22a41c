//! What is done to nodes themselves: disks without space, and clocks that are wrong.

use jiff::{SignedDuration, Timestamp};

use super::*;

#[test]
fn a_validator_without_space_refuses_in_words_and_takes_part_when_there_is_some() {
    let net = Net::up(&["5", "--validators", "4"]);
    net.ok(&["testnet", "disk", "bob", "full"]);
    let refused = net.run(&["-t", "demo/1", "doc", "new", "plan"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no space is left on the disk"), "{said}");
    assert!(net.ok(&["testnet", "status"]).contains("1:  disk full"));
    // Three of four have space, and that is a quorum.
    net.at("0", &["order", "submit", "without bob", "--wait", "commit", "--timeout", "30s"]);

    let refused = net.run(&["-t", "demo/1", "order", "submit", "by bob", "--timeout", "30s"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("until there is some"), "{said}");
    let alarms = net.machine.json(&["-t", "demo/1", "order", "status"])["alarms"].to_string();
    assert!(alarms.contains("no space is left on the disk"), "{alarms}");

    net.ok(&["testnet", "restart", "1"]);
    assert_eq!(get(&net, "1")["disk_full"], true, "it is full from the start");
    net.at("0", &["order", "submit", "again without bob", "--wait", "commit", "--timeout", "30s"]);

    net.ok(&["testnet", "disk", "1", "free"]);
    assert_eq!(get(&net, "1")["disk_full"], false);
    net.at("1", &["doc", "new", "plan"]);
    wait_for("the log goes on by itself", PATIENCE, || {
        let status = net.machine.json(&["-t", "demo/1", "order", "status"]);
        status["alarms"].as_array().unwrap().is_empty()
    });
    // One more may be away now: it is needed.
    net.ok(&["testnet", "kill", "2"]);
    net.at("1", &["order", "submit", "with bob", "--wait", "commit", "--timeout", "30s"]);
    net.ok(&["testnet", "restart", "2"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
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
    assert!(!early.status.success(), "{}", String::from_utf8_lossy(&early.stdout));
    net.ok(&["testnet", "clock", "0s"]);
    assert_eq!(get(&net, "1")["clock_ms"], 0);
    net.at("1", &["order", "submit", "from now", "--wait", "commit", "--timeout", "30s"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}
