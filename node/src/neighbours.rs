//! Same-machine discovery: nodes of one user find each other by files, where no multicast gets through.
//!
//! Every node writes `neighbour.json` into its runtime directory and looks at those of the others, at once
//! and then every two seconds. The one that starts last finds the others at once, and dials: all of them, or where
//! there are many some at a time.
//!
//! A file is believed only as far as the directory is: it must be a plain file of this user behind no link,
//! at most 16 KiB, of a process that lives. What it says is a hint where to dial; who answers there proves
//! itself by its key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::Pid;
use tokio_util::sync::CancellationToken;
use wattle_net::{Address, Overlay, Source};
use wattle_types::NodeId;
use wattle_types::limits::ADDRESSES_PER_PEER_MAX;

use crate::api::documents::{NeighbourDocument, NeighbourSchema};
use crate::paths::{NodeName, Paths};

/// Between two looks: a look costs some system calls a node.
const RESCAN: Duration = Duration::from_secs(2);
/// Largest file that is read; ours have some hundred bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Nodes looked at.
const NODES_MAX: usize = 256;
/// Nodes told of at a look, beginning with those after this one by name: so fifty that start together dial a few each,
/// not always the same, and hear of the others from those. Who is not told of yet is at one of the next looks.
const TOLD_AT_ONCE: usize = 8;

/// Writes this node's file.
///
/// # Errors
/// The disk's.
pub fn announce(paths: &Paths, id: NodeId, network: &str, listening: &[Address]) -> io::Result<()> {
    let on_loopback = |address: &&Address| address.ip().is_some_and(|ip| ip.is_loopback());
    let mut addresses: Vec<_> = listening.iter().filter(on_loopback).map(ToString::to_string).collect();
    if addresses.is_empty() {
        addresses = listening.iter().map(ToString::to_string).collect();
    }
    addresses.truncate(ADDRESSES_PER_PEER_MAX);
    let document = NeighbourDocument {
        schema: NeighbourSchema::V1,
        pid: std::process::id(),
        id,
        name: Some(paths.node.to_string()),
        network: network.to_owned(),
        addresses,
    };
    wattle_store::write_atomically(&paths.neighbour_file(), &serde_json::to_vec(&document)?, 0o600)
}

/// Looks for neighbours until `stop`, and tells the overlay.
pub async fn look(overlay: Overlay, paths: Paths, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(RESCAN);
    let mut looker =
        Looker { me: overlay.id(), network: overlay.network().to_string(), seen: BTreeMap::new(), turn: 0 };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for (peer, addresses) in looker.look(&paths) {
            if overlay.candidate(peer, addresses, Source::SameMachine).await.is_err() {
                return;
            }
        }
    }
}

/// What a peer calls itself, when it is a node of this user on this machine.
#[must_use]
pub fn name_of(paths: &Paths, peer: NodeId) -> Option<NodeName> {
    paths.nodes_seen().into_iter().take(NODES_MAX).find_map(|node| {
        let (file, _stamp) = open(&paths.runtime_root.join(node.as_str()), paths.uid()).ok()??;
        let document = read(file).filter(|document| document.id == peer && lives(document.pid))?;
        document.name?.parse().ok()
    })
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    bytes: i64,
}

struct Looker {
    me: NodeId,
    network: String,
    seen: BTreeMap<String, (Stamp, Option<NeighbourDocument>)>,
    /// How many after this node were told of.
    turn: usize,
}

impl Looker {
    fn look(&mut self, paths: &Paths) -> Vec<(NodeId, Vec<Address>)> {
        let mut found: Vec<(String, (NodeId, Vec<Address>))> = Vec::new();
        let mut still_there = BTreeMap::new();
        for node in paths.nodes_seen().into_iter().take(NODES_MAX) {
            let directory = paths.runtime_root.join(node.as_str());
            let Ok(Some((file, stamp))) = open(&directory, paths.uid()) else { continue };
            let name = node.as_str().to_owned();
            let known = self.seen.remove(&name).filter(|(old, _)| *old == stamp);
            let document = known.map_or_else(|| read(file), |(_, document)| document);
            if let Some(neighbour) = document.as_ref().and_then(|document| self.neighbour(document)) {
                found.push((name.clone(), neighbour));
            }
            still_there.insert(name, (stamp, document));
        }
        self.seen = still_there;
        self.next_of(paths.node.as_str(), found)
    }

    /// Some of those found, in turn.
    fn next_of<T>(&mut self, me: &str, mut found: Vec<(String, T)>) -> Vec<T> {
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let after = found.partition_point(|(name, _)| name.as_str() <= me);
        if found.len() <= TOLD_AT_ONCE {
            self.turn = 0;
        }
        let count = found.len().max(1);
        let first = (after + self.turn) % count;
        if first < found.len() {
            found.rotate_left(first);
        }
        self.turn = (self.turn + TOLD_AT_ONCE) % count;
        found.into_iter().take(TOLD_AT_ONCE).map(|(_, neighbour)| neighbour).collect()
    }

    fn neighbour(&self, document: &NeighbourDocument) -> Option<(NodeId, Vec<Address>)> {
        if document.id == self.me || document.network != self.network || !lives(document.pid) {
            return None;
        }
        let addresses = document.addresses.iter().take(ADDRESSES_PER_PEER_MAX);
        let addresses: Vec<Address> = addresses.filter_map(|text| text.parse().ok()).collect();
        (!addresses.is_empty()).then_some((document.id, addresses))
    }
}

fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// Opens the file, if everything about it is as it must be.
fn open(directory: &Path, uid: u32) -> io::Result<Option<(OwnedFd, Stamp)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    // NONBLOCK so that a pipe of that name cannot hold us up.
    let file =
        rustix::fs::openat(directory.as_fd(), "neighbour.json", flags | OFlags::NONBLOCK, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let small = u64::try_from(stat.st_size).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX);
    if !plain || !small || stat.st_uid != uid {
        return Ok(None);
    }
    let changed = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
    Ok(Some((file, Stamp { inode: stat.st_ino, changed, bytes: stat.st_size })))
}

fn read(file: OwnedFd) -> Option<NeighbourDocument> {
    let mut bytes = Vec::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Environment;

    const NETWORK: &str = "wattle";

    fn node(byte: u8) -> NodeId {
        NodeId::from_public_key([byte; 32])
    }

    fn paths(home: &Path, name: &str) -> Paths {
        let environment = Environment { uid: rustix::process::geteuid().as_raw(), ..Environment::default() };
        let paths = Paths::new(&environment, name.parse().unwrap(), Some(home)).unwrap();
        paths.prepare_runtime(false).unwrap();
        paths
    }

    fn looker() -> Looker {
        Looker { me: node(1), network: NETWORK.to_owned(), seen: BTreeMap::new(), turn: 0 }
    }

    fn address() -> Address {
        "/ip4/127.0.0.1/udp/7720/quic-v1".parse().unwrap()
    }

    #[test]
    fn a_neighbour_is_found_with_its_loopback_addresses() {
        let home = tempfile::tempdir().unwrap();
        let (alice, bob) = (paths(home.path(), "alice"), paths(home.path(), "bob"));
        announce(&alice, node(1), NETWORK, &[address()]).unwrap();
        let outside = "/ip4/10.0.0.1/tcp/7720".parse().unwrap();
        announce(&bob, node(2), NETWORK, &[outside, address()]).unwrap();
        let mut looker = looker();
        assert_eq!(looker.look(&alice), [(node(2), vec![address()])]);
        assert_eq!(looker.look(&alice), [(node(2), vec![address()])], "unchanged files are still neighbours");
        std::fs::remove_file(bob.neighbour_file()).unwrap();
        assert_eq!(looker.look(&alice), []);
    }

    #[test]
    fn of_many_neighbours_a_few_are_told_of_at_a_time_and_all_in_turn() {
        let names: Vec<String> = (10..60).map(|number| format!("n{number}")).collect();
        let found = || names.iter().map(|name| (name.clone(), name.clone())).collect::<Vec<_>>();
        let (mut one, mut other) = (looker(), looker());
        let (first, second) = (one.next_of("n30", found()), other.next_of("n31", found()));
        assert_eq!((first[0].as_str(), second[0].as_str(), first.len()), ("n31", "n32", TOLD_AT_ONCE));
        let mut told: std::collections::BTreeSet<String> = first.into_iter().collect();
        for _ in 1..names.len().div_ceil(TOLD_AT_ONCE) {
            told.extend(one.next_of("n30", found()));
        }
        assert_eq!(told.len(), names.len());
        for _ in 0..3 {
            let few: Vec<_> = found().into_iter().take(TOLD_AT_ONCE).collect();
            assert_eq!(one.next_of("n30", few).len(), TOLD_AT_ONCE, "where there are few, always all");
        }
    }

    #[test]
    fn other_networks_dead_processes_links_and_large_files_are_no_neighbours() {
        let home = tempfile::tempdir().unwrap();
        let bob = paths(home.path(), "bob");
        announce(&bob, node(2), "other", &[address()]).unwrap();
        assert_eq!(looker().look(&bob), []);

        announce(&bob, node(2), NETWORK, &[address()]).unwrap();
        let text = std::fs::read_to_string(bob.neighbour_file()).unwrap();
        let dead = text.replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":999999999");
        std::fs::write(bob.neighbour_file(), &dead).unwrap();
        assert_eq!(looker().look(&bob), []);

        std::fs::write(bob.neighbour_file(), format!("{text}{}", " ".repeat(20_000))).unwrap();
        assert_eq!(looker().look(&bob), []);

        let elsewhere = home.path().join("elsewhere.json");
        std::fs::write(&elsewhere, &text).unwrap();
        std::fs::remove_file(bob.neighbour_file()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, bob.neighbour_file()).unwrap();
        assert_eq!(looker().look(&bob), []);
    }

    #[test]
    fn files_of_other_users_are_no_neighbours() {
        let home = tempfile::tempdir().unwrap();
        let bob = paths(home.path(), "bob");
        announce(&bob, node(2), NETWORK, &[address()]).unwrap();
        let other_uid = bob.uid().wrapping_add(1);
        assert!(open(&bob.runtime_dir, bob.uid()).unwrap().is_some());
        assert!(open(&bob.runtime_dir, other_uid).unwrap().is_none());
    }
}
