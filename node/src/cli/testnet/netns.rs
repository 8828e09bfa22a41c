//! A network of its own for each node of a testnet: namespaces of the kernel, with cables to one switch.
//!
//! What is done to links is done by the kernel then (nftables, and tc for rates); only latency is done by the nodes, as
//! elsewhere, since not every kernel can. The names of namespaces begin with that of the testnet and say where its
//! files are: so whatever ended a command in the middle, `down` finds them.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use wattle_types::ContentHash;

use super::state::{Place, Row, State};
use crate::api::documents::ErrorDocument;
use crate::cli::documents::TestnetBackend;
use crate::cli::errors::Failure;
use crate::exit::ErrorCode;

/// The namespaces that have names.
const NAMED: &str = "/run/netns";
/// The network of every testnet: nobody else is in it.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 77, 0, 1]);
/// What is needed: the program, and in which package Debian has it.
const PROGRAMS: [(&str, &str); 3] = [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")];

/// Where a node listens.
pub(super) fn address(backend: TestnetBackend, index: u32) -> Ipv4Addr {
    if backend.has_own_network() {
        Ipv4Addr::from(FIRST_ADDRESS.saturating_add(index))
    } else {
        Ipv4Addr::LOCALHOST
    }
}

/// That this user may do this, and has what it takes.
pub(super) fn check() -> Result<(), Failure> {
    let refuse = |what: &str, needs: String| {
        let message = format!("`--backend netns` needs {what}");
        let document = ErrorDocument::new(ErrorCode::Denied, message).detail("it needs", needs);
        document.detail("without it", "wattle testnet up 5 does the same faults without namespaces").into()
    };
    if !geteuid().is_root() {
        return Err(refuse("root", "to make network namespaces".to_owned()));
    }
    for (program, package) in PROGRAMS {
        if run(program, &["-V"], None).is_err() && run(program, &["-v"], None).is_err() {
            return Err(refuse(&format!("the program {program}"), format!("the package {package}")));
        }
    }
    Ok(())
}

/// What the names of all namespaces of a testnet begin with: two users may have one of the same name.
fn switch(place: &Place) -> String {
    // However the path to it was spelled.
    let directory = place.directory.canonicalize().unwrap_or_else(|_absent| place.directory.clone());
    let hash = ContentHash::of(directory.as_os_str().as_encoded_bytes()).to_string();
    format!("wattle.{}.{}", place.net, hash.get(..8).unwrap_or_default())
}

/// The namespace of a node.
pub(super) fn name(place: &Place, index: u32) -> String {
    format!("{}.{index}", switch(place))
}

/// Makes the namespace of a node anew, with a cable to the switch.
pub(super) fn make(place: &Place, row: &Row) -> Result<(), Failure> {
    let (switch, node, port) = (switch(place), name(place, row.index), format!("n{}", row.index));
    if !Path::new(NAMED).join(&switch).exists() {
        run("ip", &["netns", "add", &switch], None)?;
        run("ip", &["-n", &switch, "-batch", "-"], Some("link add br0 type bridge\nlink set br0 up\n"))?;
    }
    remove(place, row.index)?;
    run("ip", &["netns", "add", &node], None)?;
    let cable =
        format!("link add {port} type veth peer name eth0 netns {node}\nlink set {port} master br0 up\n");
    run("ip", &["-n", &switch, "-batch", "-"], Some(&cable))?;
    let ends = format!(
        "address add {}/16 dev eth0\nlink set eth0 up\nlink set lo up\n",
        address(TestnetBackend::Netns, row.index)
    );
    run("ip", &["-n", &node, "-batch", "-"], Some(&ends))
}

/// Takes the namespace of a node away, and its cable, if there is one.
pub(super) fn remove(place: &Place, index: u32) -> Result<(), Failure> {
    let (switch, node) = (switch(place), name(place, index));
    if !Path::new(NAMED).join(&node).exists() {
        return Ok(());
    }
    // The kernel takes the cable away some time after its namespace, and the name of its end would be in use. Ignored
    // because there may be none.
    drop(run("ip", &["-n", &switch, "link", "delete", &format!("n{index}")], None));
    run("ip", &["netns", "delete", &node], None)
}

/// Takes every namespace of a testnet away.
pub(super) fn remove_all(place: &Place) -> Result<(), Failure> {
    let switch = switch(place);
    let Ok(entries) = std::fs::read_dir(NAMED) else { return Ok(()) };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.strip_prefix(&switch).is_some_and(is_end)) {
        run("ip", &["netns", "delete", &name], None)?;
    }
    Ok(())
}

/// What follows the name of a testnet: nothing, or an index.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|index| index.parse::<u32>().is_ok())
}

/// Whether a node has its namespace now: one that was kept has none until it is started.
pub(super) fn is_made(place: &Place, row: &Row) -> bool {
    Path::new(NAMED).join(name(place, row.index)).exists()
}

/// Has the kernel do to the links of a node what is written down, and nothing else.
pub(super) fn shape(place: &Place, state: &State, row: &Row) -> Result<(), Failure> {
    let node = name(place, row.index);
    run("ip", &["netns", "exec", &node, "nft", "-f", "-"], Some(&rules(state, row)))?;
    // Ignored because there may be none.
    drop(run("ip", &["netns", "exec", &node, "tc", "qdisc", "delete", "dev", "eth0", "root"], None));
    let rates = rates(state, row);
    if rates.is_empty() {
        return Ok(());
    }
    run("ip", &["netns", "exec", &node, "tc", "-batch", "-"], Some(&rates))
}

/// What is dropped, for `nft`: all at once, in place of what was.
fn rules(state: &State, row: &Row) -> String {
    let (mut out, mut input) = (String::new(), String::new());
    for other in state.nodes.iter().filter(|other| other.index != row.index) {
        let to = address(TestnetBackend::Netns, other.index);
        let loss = (state.shape(row.index, other.index).loss * 100_000.0).round();
        if state.is_cut(row.index, other.index) {
            out.push_str(&format!("ip daddr {to} counter drop\n"));
        } else if loss > 0.0 {
            out.push_str(&format!("ip daddr {to} counter numgen random mod 100000 < {loss} counter drop\n"));
        }
        if state.is_cut(other.index, row.index) {
            input.push_str(&format!("ip saddr {to} counter drop\n"));
        }
    }
    format!(
        "table inet wattle\ndelete table inet wattle\ntable inet wattle {{\nchain out {{\ntype filter hook output \
         priority 0; policy accept;\n{out}}}\nchain in {{\ntype filter hook input priority 0; policy accept;\n{input}}}\n}}\n"
    )
}

/// How much goes to each, for `tc`; nothing when there is no limit.
fn rates(state: &State, row: &Row) -> String {
    let mut lines = String::new();
    for other in state.nodes.iter().filter(|other| other.index != row.index) {
        let bits = state.shape(row.index, other.index).rate_bits;
        if bits > 0 {
            let (to, class) =
                (address(TestnetBackend::Netns, other.index), format!("1:{:x}", other.index + 1));
            lines.push_str(&format!(
                "class add dev eth0 parent 1: classid {class} htb rate {bits}bit\n\
                 filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst {to}/32 flowid {class}\n"
            ));
        }
    }
    if lines.is_empty() { lines } else { format!("qdisc add dev eth0 root handle 1: htb default 0\n{lines}") }
}

/// Runs a program of the system, which must succeed.
fn run(program: &str, words: &[&str], input: Option<&str>) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        let message = format!("`{program} {}` failed: {why}", words.join(" "));
        Failure::from(ErrorDocument::new(ErrorCode::Failed, message))
    };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(&said.lines().next().unwrap_or("it said nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespaces_of_a_testnet_are_its_own() {
        assert!(is_end("") && is_end(".0") && is_end(".199"));
        assert!(!is_end("0") && !is_end(".") && !is_end(".x") && !is_end(".1.2"));
    }
}
