//! The real binary on machines of their own: network namespaces on a bridge, with and without multicast.
//!
//! Needs root, `ip` and `nft`. Everything made here has this process's number in its name and goes when the test ends.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wattle_tests::binary::{Machine, did_not_run, wait_for};

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
    let begun = std::time::Instant::now();
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

    let begun = std::time::Instant::now();
    let _again = machines[1].start(&[]);
    wait_for("back with its peer", Duration::from_secs(5), || peers(&machines[1], "default") == 1);
    println!("back {:?} after the start", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let got = machines[0].run(&["dht", "get", "greeting"]);
    assert_eq!(String::from_utf8_lossy(&got.stdout).trim_end(), "hello");
}
