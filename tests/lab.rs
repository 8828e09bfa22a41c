//! The real binary on machines of their own: network namespaces on a bridge, with and without multicast.
//!
//! Needs root, `ip` and `nft`. Everything made here has this process's number in its name and goes when the
//! test ends.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use wattle_tests::binary::{Machine, Node, did_not_run, wait_for};
use wattle_tests::watch::Watch;

/// Namespaces `0..count` joined by one bridge, 10.77.0.1 and up. Removed when dropped.
struct Lan {
    tag: String,
    names: Vec<String>,
}

static LANS: AtomicU32 = AtomicU32::new(0);

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split_whitespace()).output();
    status.is_ok_and(|output| output.status.success())
}

impl Lan {
    fn new(count: usize) -> Option<Self> {
        let tag = format!("w{}x{}", std::process::id(), LANS.fetch_add(1, Ordering::Relaxed));
        let mut lan = Self { tag: tag.clone(), names: Vec::new() };
        // The bridge has a namespace of its own, so that the machine's own network is not touched.
        if !ip(&format!("netns add {tag}"))
            || !ip(&format!("-n {tag} link add br0 type bridge mcast_snooping 0"))
        {
            return None;
        }
        ip(&format!("-n {tag} link set br0 up"));
        for number in 0..count {
            let name = format!("{tag}n{number}");
            let made = ip(&format!("netns add {name}"))
                && ip(&format!("-n {name} link set lo up"))
                && ip(&format!("-n {tag} link add v{number} type veth peer name eth0 netns {name}"))
                && ip(&format!("-n {tag} link set v{number} master br0 up"))
                && ip(&format!("-n {name} addr add 10.77.0.{}/24 dev eth0", number + 1))
                && ip(&format!("-n {name} link set eth0 up"))
                && ip(&format!("-n {name} route add default via 10.77.0.254"));
            lan.names.push(name);
            if !made {
                return None;
            }
        }
        Some(lan)
    }

    /// Loses so many of a hundred packets that arrive at a machine, loopback too.
    fn lose(&self, machine: usize, percent: u32) -> bool {
        let rules = format!(
            "add table inet loss; add chain inet loss in {{ type filter hook input priority 0; }}; \
             add rule inet loss in numgen random mod 100 < {percent} drop"
        );
        let nft = Command::new("ip").args(["netns", "exec", &self.names[machine], "nft", &rules]).output();
        nft.is_ok_and(|output| output.status.success())
    }

    /// Loses nothing any more.
    fn heal(&self, machine: usize) {
        ip(&format!("netns exec {} nft delete table inet loss", self.names[machine]));
    }

    /// Drops multicast at every machine, as some access points and bridges do.
    fn block_multicast(&self) -> bool {
        self.names.iter().all(|name| {
            let rules = "add table inet lab; \
                add chain inet lab out { type filter hook output priority 0; }; \
                add rule inet lab out ip daddr 224.0.0.0/4 drop; \
                add rule inet lab out ip6 daddr ff00::/8 drop";
            let nft = Command::new("ip").args(["netns", "exec", name, "nft", rules]).output();
            nft.is_ok_and(|output| output.status.success())
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.tag]) {
            ip(&format!("netns del {name}"));
        }
    }
}

fn lan(count: usize) -> Option<Lan> {
    let lan = Lan::new(count);
    if lan.is_none() {
        did_not_run("network namespaces need root and iproute2");
    }
    lan
}

/// How many peers a node lists.
fn peers(machine: &Machine, node: &str) -> usize {
    machine.json(&["-n", node, "peers"])["peers"].as_array().map_or(0, Vec::len)
}

#[test]
fn two_nodes_on_one_machine_find_each_other_without_multicast() {
    let Some(lan) = lan(1) else { return };
    if !lan.block_multicast() {
        return did_not_run("dropping multicast needs nftables");
    }
    let machine = Machine::new(Some(&lan.names[0]));
    let _alice = machine.start(&["-n", "alice"]);
    let _bob = machine.start(&["-n", "bob"]);
    let took = wait_for("alice and bob list each other", Duration::from_secs(5), || {
        peers(&machine, "alice") == 1 && peers(&machine, "bob") == 1
    });
    println!("found each other {took:?} after bob was ready");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let listed = machine.json(&["-n", "alice", "peers"]);
    assert_eq!(listed["peers"][0]["path"], "direct");
}

#[test]
fn two_machines_on_a_network_find_each_other_by_multicast() {
    let Some(lan) = lan(2) else { return };
    let machines = [0, 1].map(|number| Machine::new(Some(&lan.names[number])));
    let _one = machines[0].start(&[]);
    let _two = machines[1].start(&[]);
    let took = wait_for("both list the other", Duration::from_secs(10), || {
        machines.iter().all(|machine| peers(machine, "default") == 1)
    });
    println!("found each other {took:?} after both were ready");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn where_multicast_is_blocked_status_says_so_and_a_ticket_joins() {
    let Some(lan) = lan(2) else { return };
    if !lan.block_multicast() {
        return did_not_run("dropping multicast needs nftables");
    }
    let machines = [0, 1].map(|number| Machine::new(Some(&lan.names[number])));
    let _one = machines[0].start(&[]);
    let _two = machines[1].start(&[]);
    wait_for("status says that it is alone", Duration::from_secs(15), || {
        machines[1].json(&["status"])["verdict"] == "alone"
    });
    let status = machines[1].json(&["status"]);
    let reason = status["warnings"][0]["message"].as_str().unwrap_or_default();
    assert!(reason.contains("mDNS"), "the first reason is multicast: {status}");

    let invitation = machines[0].json(&["invite"]);
    let ticket = invitation["ticket"].as_str().unwrap();
    assert!(ticket.len() <= 200, "{} characters", ticket.len());
    let begun = Instant::now();
    let joined = machines[1].run(&["join", ticket]);
    let said = String::from_utf8_lossy(&joined.stderr);
    assert!(joined.status.success(), "{said}");
    wait_for("both list the other", Duration::from_secs(5), || {
        machines.iter().all(|machine| peers(machine, "default") == 1)
    });
    println!("joined by ticket in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_killed_node_is_back_with_its_peers_from_its_address_book() {
    let Some(lan) = lan(2) else { return };
    if !lan.block_multicast() {
        return did_not_run("dropping multicast needs nftables");
    }
    let machines = [0, 1].map(|number| Machine::new(Some(&lan.names[number])));
    let _one = machines[0].start(&[]);
    let mut two = machines[1].start(&[]);
    let invitation = machines[0].json(&["invite"]);
    let joined = machines[1].run(&["join", invitation["ticket"].as_str().unwrap()]);
    assert!(joined.status.success());
    wait_for("connected", Duration::from_secs(5), || peers(&machines[1], "default") == 1);
    let put = machines[1].run(&["dht", "put", "greeting", "hello"]);
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    two.kill();

    let begun = Instant::now();
    let _again = machines[1].start(&[]);
    wait_for("back with its peer", Duration::from_secs(5), || peers(&machines[1], "default") == 1);
    println!("back {:?} after the start", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let got = machines[0].run(&["dht", "get", "greeting"]);
    assert_eq!(String::from_utf8_lossy(&got.stdout).trim_end(), "hello");
}

const FIVE: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Five nodes on one machine that see each other, and the id and process of each.
fn five(machine: &Machine) -> (Vec<Node>, Vec<String>, Vec<u64>) {
    let nodes: Vec<Node> = FIVE.iter().map(|name| machine.start(&["-n", name])).collect();
    for name in FIVE {
        let all = machine.run(&["-n", name, "wait", "--members", "5", "--timeout", "30s"]);
        assert!(all.status.success(), "{name} sees {:#?}", machine.json(&["-n", name, "members"]));
    }
    let status = |name: &&str| machine.json(&["-n", name, "status"])["node"].clone();
    let id = |name| status(name)["id"].as_str().unwrap_or_default().to_owned();
    let ids = FIVE.iter().map(id).collect();
    (nodes, ids, FIVE.iter().filter_map(|name| status(name)["pid"].as_u64()).collect())
}

/// J16, as a script goes through it: idle, with every fifth packet lost, a kill, a goodbye, a freeze. Idle and lossy
/// for ten seconds each; with `WATTLE_J16` for ten minutes and for one.
#[test]
fn whoever_watches_five_nodes_sees_who_dies_who_goes_who_sleeps_and_nobody_else() {
    let Some(lan) = lan(1) else { return };
    let machine = Machine::new(Some(&lan.names[0]));
    let (mut nodes, ids, pids) = five(&machine);
    let whole = std::env::var_os("WATTLE_J16").is_some();
    let (idle, lossy) = if whole { (600, 60) } else { (10, 10) };
    let mut watch = Watch::start(&machine, "one");
    std::thread::sleep(Duration::from_secs(idle));
    assert_eq!(watch.false_alarms(&[]), Vec::<serde_json::Value>::new(), "{idle} s idle");
    if !lan.lose(0, 20) {
        return did_not_run("losing packets needs nftables");
    }
    std::thread::sleep(Duration::from_secs(lossy));
    lan.heal(0);
    assert_eq!(watch.false_alarms(&[]), Vec::<serde_json::Value>::new(), "{lossy} s of 20 % loss");

    let killed = Instant::now();
    nodes[1].kill();
    let faulty = watch.until(&ids[1], "faulty", killed);
    let stopped = Instant::now();
    assert!(machine.run(&["-n", "three", "stop"]).status.success());
    let left = watch.until(&ids[2], "left", stopped);
    let signal = |what: &str| Command::new("kill").args([what, &pids[3].to_string()]).status();
    let frozen = Instant::now();
    assert!(signal("-STOP").is_ok_and(|status| status.success()));
    let asleep = watch.until(&ids[3], "faulty", frozen);
    std::thread::sleep(Duration::from_secs(20).saturating_sub(frozen.elapsed()));
    let thawed = Instant::now();
    assert!(signal("-CONT").is_ok_and(|status| status.success()));
    let back = watch.until(&ids[3], "alive", thawed);
    println!("faulty {faulty:.1?}, left {left:.1?}, asleep {asleep:.1?}, back {back:.1?}");
    assert!(faulty <= Duration::from_secs(6), "found out after {faulty:?}");
    assert!(left <= Duration::from_millis(1500), "the goodbye was heard after {left:?}");
    let word = watch.all().into_iter().rfind(|line| line["to"] == "alive").unwrap_or_default();
    assert!(word["reason"] == "refuted" || word["reason"] == "spoke", "not by its own word: {word}");
    assert_eq!(watch.false_alarms(&[&ids[1], &ids[3]]), Vec::<serde_json::Value>::new());
}
