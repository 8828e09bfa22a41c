//! A testnet on disk: its directory, what is written there of it, and its lock.
//!
//! The directory is the `--home` of all its nodes. `testnet.json` says what was made and what was done; it is written
//! before anything is started, so that whatever ends a command in the middle, the next one knows where to look.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wattle_types::NodeId;

use super::process::{Look, Process, Taken};
use crate::api::documents::{ErrorDocument, FaultLink, FaultsRequest};
use crate::cli::client::Client;
use crate::cli::documents::{
    TestnetBackend, TestnetEvent, TestnetNodeFault, TestnetPartition, TestnetPhase, TestnetShape,
    TestnetStanding, TestnetStateSchema,
};
use crate::cli::errors::{Failure, advise, of_io};
use crate::cli::session::{Session, of_paths};
use crate::exit::ErrorCode;
use crate::faults::FaultsFile;
use crate::paths::{Environment, NodeName, Paths};

/// How long to wait for another command that changes the same testnet.
const LOCK_MAX: Duration = Duration::from_secs(20);
/// Events that are kept; older ones go.
const EVENTS_MAX: usize = 1000;
/// Nodes of one testnet: what one machine has memory for.
pub(super) const NODES_MAX: u32 = 200;

/// The name of a testnet: part of paths and of its network's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetName(String);

impl NetName {
    /// Of a testnet that nobody named.
    pub(super) fn usual() -> Self {
        Self("demo".to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for NetName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no testnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a testnet: 1 to 24 lower-case letters, digits or dashes, beginning with a letter"
)]
pub(crate) struct InvalidNetName(String);

impl FromStr for NetName {
    type Err = InvalidNetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let spelled = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
        if spelled && begins && text.len() <= 24 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidNetName(text.to_owned()))
        }
    }
}

/// `demo/0`, `demo/alice`, or `demo` alone where a command is about the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) net: NetName,
    pub(crate) node: Option<String>,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{}/{node}", self.net),
            None => write!(f, "{}", self.net),
        }
    }
}

impl FromStr for Spot {
    type Err = InvalidNetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((net, node)) if node.parse::<NodeName>().is_ok() => {
                Ok(Self { net: net.parse()?, node: Some(node.to_owned()) })
            }
            Some(_) => Err(InvalidNetName(text.to_owned())),
            None => Ok(Self { net: text.parse()?, node: None }),
        }
    }
}

/// A node of a testnet, as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) id: NodeId,
    pub(super) port: u16,
    /// The process it was started in; nothing when a command ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process>,
    /// Others are in that process, and it may live on without this node.
    #[serde(default)]
    pub(super) shared: bool,
    /// Its memory when the testnet was up, or the node was started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rss_bytes: Option<u64>,
}

/// The ordered log of a testnet, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) chain: String,
    /// The first entry, which `testnet up` got a receipt for, and where it stands.
    pub(super) entry: String,
    pub(super) height: u64,
}

/// How far `testnet apply` came with the faults of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Applied {
    /// Which faults: a hash of all of them.
    pub(super) faults: String,
    /// How many of them were done.
    pub(super) done: usize,
}

/// What is written down of a testnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) schema: TestnetStateSchema,
    pub(super) name: String,
    pub(super) phase: TestnetPhase,
    #[serde(default)]
    pub(super) backend: TestnetBackend,
    pub(super) seed: u64,
    pub(super) created: Timestamp,
    /// The index of the next new node: none is used twice.
    pub(super) next: u32,
    pub(super) nodes: Vec<Row>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<Applied>,
    pub(super) partition: Option<TestnetPartition>,
    pub(super) links: Vec<TestnetShape>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) node_faults: Vec<TestnetNodeFault>,
    pub(super) events: Vec<TestnetEvent>,
}

impl State {
    /// The node that is meant: its index or its name.
    pub(super) fn node(&self, text: &str) -> Result<&Row, Failure> {
        let index = text.parse::<u32>().ok();
        let found = self.nodes.iter().find(|row| Some(row.index) == index || row.name == text);
        found.ok_or_else(|| {
            let known: Vec<String> =
                self.nodes.iter().map(|row| format!("{} {}", row.index, row.name)).collect();
            let message = format!("testnet \"{}\" has no node `{text}`", self.name);
            ErrorDocument::new(ErrorCode::NotFound, message).detail("it has", known.join(", ")).into()
        })
    }

    /// Of these, the ones that are meant: `all`, or indexes and names.
    pub(super) fn chosen(&self, texts: &[String]) -> Result<Vec<Row>, Failure> {
        let mut chosen = BTreeMap::new();
        for text in texts {
            if text == "all" {
                chosen.extend(self.nodes.iter().map(|row| (row.index, row.clone())));
            } else {
                let row = self.node(text)?;
                chosen.insert(row.index, row.clone());
            }
        }
        Ok(chosen.into_values().collect())
    }

    /// Writes down that something was done.
    pub(super) fn note(&mut self, what: String) -> Timestamp {
        let at = Timestamp::now();
        self.events.push(TestnetEvent { at, what });
        let surplus = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.drain(..surplus);
        at
    }

    /// What a node and its links are to have: both ends know of a cut, and each shapes what leaves it. Where nodes have
    /// a network each, the kernel does most of it.
    pub(super) fn faults_of(&self, row: &Row) -> FaultsRequest {
        let others = self.nodes.iter().filter(|other| other.index != row.index);
        let links = others.map(|other| self.link(row, other)).map(|link| {
            if self.backend.has_own_network() {
                FaultLink { loss: 0.0, rate_bits: 0, cut_to: false, cut_from: false, ..link }
            } else {
                link
            }
        });
        let links = links.filter(|link| !is_nothing(link)).collect();
        let TestnetNodeFault { disk_full, clock_ms, .. } = self.node_fault(row.index);
        FaultsRequest { links, disk_full, clock_ms }
    }

    /// What is done to a node itself.
    pub(super) fn node_fault(&self, node: u32) -> TestnetNodeFault {
        let found = self.node_faults.iter().find(|fault| fault.node == node).copied();
        found.unwrap_or(TestnetNodeFault { node, ..TestnetNodeFault::default() })
    }

    /// Makes this what is done to a node.
    pub(super) fn set_node_fault(&mut self, fault: TestnetNodeFault) {
        self.node_faults.retain(|other| other.node != fault.node);
        if fault.disk_full || fault.clock_ms != 0 {
            self.node_faults.push(fault);
            self.node_faults.sort_by_key(|fault| fault.node);
        }
    }

    fn link(&self, from: &Row, to: &Row) -> FaultLink {
        let shape = self.shape(from.index, to.index);
        let (cut_to, cut_from) = (self.is_cut(from.index, to.index), self.is_cut(to.index, from.index));
        FaultLink {
            peer: to.id,
            delay_ms: shape.latency_ms / 2.0,
            jitter_ms: shape.jitter_ms / 2.0,
            spread: shape.spread,
            loss: shape.loss,
            rate_bits: shape.rate_bits,
            cut_to,
            cut_from,
        }
    }

    /// The shape of the link between two nodes: its own, or that of all.
    pub(super) fn shape(&self, one: u32, other: u32) -> TestnetShape {
        let of =
            |between: Option<[u32; 2]>| self.links.iter().find(|shape| shape.between == between).copied();
        of(Some(pair(one, other))).or_else(|| of(None)).unwrap_or_default()
    }

    /// Whether nothing gets from one node to another.
    pub(super) fn is_cut(&self, from: u32, to: u32) -> bool {
        let Some(partition) = &self.partition else { return false };
        // Nodes that nobody named are a group of their own.
        let group = |index| partition.groups.iter().position(|group| group.contains(&index));
        let (from, to) = (group(from), group(to));
        from != to && (!partition.one_way || from == Some(0))
    }
}

/// The two ends of a link in order.
pub(super) const fn pair(one: u32, other: u32) -> [u32; 2] {
    if one < other { [one, other] } else { [other, one] }
}

fn is_nothing(link: &FaultLink) -> bool {
    let FaultLink { delay_ms, jitter_ms, loss, rate_bits, cut_to, cut_from, .. } = *link;
    delay_ms == 0.0 && jitter_ms == 0.0 && loss == 0.0 && rate_bits == 0 && !cut_to && !cut_from
}

/// Where a testnet is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) net: NetName,
    /// The home of all its nodes.
    pub(super) directory: PathBuf,
    timeout: Option<Duration>,
}

/// A testnet that no other command changes meanwhile.
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) state: State,
    _lock: File,
}

/// Where the testnets of this user are.
pub(super) fn root(session: &Session) -> Result<PathBuf, Failure> {
    Ok(session.paths()?.testnets_dir())
}

impl Place {
    /// In that directory of testnets.
    pub(super) fn below(root: &Path, net: NetName) -> Self {
        Self { directory: root.join(net.as_str()), net, timeout: None }
    }

    pub(super) fn of(session: &Session, net: NetName) -> Result<Self, Failure> {
        Ok(Self { directory: root(session)?.join(net.as_str()), net, timeout: session.timeout() })
    }

    /// The testnet that is meant: the one that was named, else the only one there is.
    pub(super) fn named(session: &Session, name: Option<&NetName>) -> Result<Self, Failure> {
        let told = name.or_else(|| session.globals.testnet.as_ref().map(|spot| &spot.net));
        if let Some(net) = told {
            let place = Self::of(session, net.clone())?;
            return if place.directory.exists() {
                Ok(place)
            } else {
                Err(place.absent(&names(&root(session)?)))
            };
        }
        let all = names(&root(session)?);
        match all.as_slice() {
            [] => {
                let document = ErrorDocument::new(ErrorCode::NotFound, "there is no testnet");
                Err(advise(document, "make one", "wattle testnet up 5", "").into())
            }
            [only] => Self::of(session, only.clone()),
            several => {
                let names: Vec<&str> = several.iter().map(NetName::as_str).collect();
                let document = ErrorDocument::new(ErrorCode::Usage, "there are several testnets")
                    .detail("they are", names.join(", "));
                Err(advise(document, "say which", &format!("--name {}", names[0]), "").into())
            }
        }
    }

    /// How long to wait for anything; `None` is for ever.
    pub(super) const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn absent(&self, others: &[NetName]) -> Failure {
        let message = format!("there is no testnet \"{}\"", self.net);
        let mut document = ErrorDocument::new(ErrorCode::NotFound, message);
        if !others.is_empty() {
            let others: Vec<&str> = others.iter().map(NetName::as_str).collect();
            document = document.detail("there is", others.join(", "));
        }
        advise(document, "make it", &format!("wattle testnet up 5 --name {}", self.net), "").into()
    }

    fn state_file(&self) -> PathBuf {
        self.directory.join("testnet.json")
    }

    pub(super) fn read(&self) -> Result<State, Failure> {
        let file = self.state_file();
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.absent(&[])),
            Err(error) => return Err(of_io("read", &file, &error).into()),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            let document = ErrorDocument::new(ErrorCode::Failed, format!("{}: {error}", file.display()));
            advise(document, "start over", &format!("wattle testnet down --name {}", self.net), "").into()
        })
    }

    pub(super) fn write(&self, state: &State) -> Result<(), Failure> {
        let file = self.state_file();
        let bytes = serde_json::to_vec_pretty(state)
            .map_err(|error| ErrorDocument::new(ErrorCode::Failed, error.to_string()))?;
        wattle_store::write_atomically(&file, &bytes, 0o600)
            .map_err(|error| of_io("write", &file, &error).into())
    }

    /// The lock of this testnet: one command at a time changes it.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let file = self.directory.join("lock");
        let begun = Instant::now();
        loop {
            match wattle_store::lock_file(&file) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if begun.elapsed() < LOCK_MAX => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) => {
                    let message =
                        format!("another command has been changing testnet \"{}\" for 20s", self.net);
                    return Err(ErrorDocument::new(ErrorCode::Conflict, message)
                        .hint("wait for it, or end it")
                        .into());
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.absent(&[])),
                Err(error) => return Err(of_io("lock", &file, &error).into()),
            }
        }
    }

    /// Takes the testnet for this command alone.
    pub(super) fn hold(&self) -> Result<Held, Failure> {
        let lock = self.lock()?;
        Ok(Held { place: self.clone(), state: self.read()?, _lock: lock })
    }

    /// Where a node keeps its files.
    pub(super) fn paths(&self, name: &str) -> Result<Paths, Failure> {
        let name: NodeName =
            name.parse().map_err(|error| ErrorDocument::new(ErrorCode::Usage, format!("{error}")))?;
        Paths::new(&Environment::of_process(), name, Some(&self.directory)).map_err(|error| of_paths(&error))
    }

    /// A client of a node.
    pub(super) fn client(&self, row: &Row) -> Result<Client, Failure> {
        self.patient_client(row, self.timeout)
    }

    /// A client that gives up after a while.
    pub(super) fn patient_client(&self, row: &Row, timeout: Option<Duration>) -> Result<Client, Failure> {
        let program = format!("wattle -t {}/{}", self.net, row.index);
        Ok(Client::to(self.paths(&row.name)?, program, timeout))
    }

    /// What processes with several nodes say; locked for as long as there is one.
    pub(super) fn host_log(&self) -> PathBuf {
        self.directory.join("host.log")
    }

    /// Where the files of faults are.
    pub(super) fn faults_dir(&self) -> PathBuf {
        self.directory.join("faults")
    }

    /// The file of faults that a node starts with.
    pub(super) fn faults_file(&self, name: &str) -> PathBuf {
        faults_in(&self.faults_dir(), name)
    }

    /// Writes the faults that each node is to have when it starts.
    pub(super) fn write_faults(&self, state: &State) -> Result<(), Failure> {
        crate::cli::files::private_dir(&self.faults_dir())?;
        for row in &state.nodes {
            let seed = state.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(row.index));
            let file = self.faults_file(&row.name);
            let document = FaultsFile { seed, faults: state.faults_of(row) };
            let bytes = serde_json::to_vec(&document)
                .map_err(|error| ErrorDocument::new(ErrorCode::Failed, error.to_string()))?;
            let written = wattle_store::write_atomically(&file, &bytes, 0o600);
            written.map_err(|error| of_io("write", &file, &error))?;
        }
        Ok(())
    }

    /// The process that runs a node: the one that was written down, or the one that holds its data.
    pub(super) fn process(&self, row: &Row) -> Option<Process> {
        let own = row.process.clone().filter(|_| !row.shared);
        let known = own.filter(|process| process.look() != Look::Gone);
        known.or_else(|| {
            let owner = wattle_store::read_owner(&self.paths(&row.name).ok()?.data_dir)?;
            Process::now(owner.pid)
        })
    }

    /// The processes that run these nodes, each with its nodes.
    pub(super) fn processes(&self, rows: &[Row]) -> Vec<(Process, Vec<Row>)> {
        let mut processes: Vec<(Process, Vec<Row>)> = Vec::new();
        for row in rows {
            let Some(process) = self.process(row) else { continue };
            match processes.iter_mut().find(|(known, _)| *known == process) {
                Some((_, rows)) => rows.push(row.clone()),
                None => processes.push((process, vec![row.clone()])),
            }
        }
        processes
    }

    /// What each of these takes, by its index; of a process with several an equal share.
    pub(super) fn taken(&self, rows: &[Row]) -> BTreeMap<u32, Taken> {
        let shares = self.processes(rows).into_iter().filter_map(|(process, rows)| {
            let taken = process.taken()?.divided(rows.len() as u64);
            Some(rows.into_iter().map(move |row| (row.index, taken)))
        });
        shares.flatten().collect()
    }

    /// How a node does.
    pub(super) fn standing(&self, row: &Row) -> TestnetStanding {
        match self.process(row).map(|process| process.look()) {
            Some(Look::Running) => TestnetStanding::Running,
            Some(Look::Frozen) => TestnetStanding::Paused,
            Some(Look::Gone) | None => TestnetStanding::Down,
        }
    }
}

impl Held {
    pub(super) fn save(&self) -> Result<(), Failure> {
        self.place.write(&self.state)
    }

    /// The nodes by their index, to change one.
    pub(super) fn row(&mut self, index: u32) -> Option<&mut Row> {
        self.state.nodes.iter_mut().find(|row| row.index == index)
    }

    /// Writes down how much memory these take now; all, where the shares of others change with theirs.
    pub(super) fn note_memory(&mut self, rows: &[Row]) {
        let taken = self.place.taken(&self.state.nodes);
        let rows = if self.state.backend.shares_process() { self.state.nodes.clone() } else { rows.to_vec() };
        for row in rows {
            let rss_bytes = taken.get(&row.index).map(|taken| taken.rss_bytes);
            if let Some(row) = self.row(row.index) {
                row.rss_bytes = rss_bytes;
            }
        }
    }

    /// Of these, the ones that are meant: `all`, or indexes and names.
    pub(super) fn chosen(&self, texts: &[String]) -> Result<Vec<Row>, Failure> {
        self.state.chosen(texts)
    }
}

/// The file of faults of a node, among those of all.
pub(super) fn faults_in(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

/// The testnets in a directory, whole or begun.
pub(super) fn names(root: &Path) -> Vec<NetName> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut names: Vec<NetName> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(count: u8) -> State {
        let row = |index: u8| Row {
            index: u32::from(index),
            name: format!("n{index}"),
            id: NodeId::from_public_key([index; 32]),
            port: 1,
            process: None,
            shared: false,
            rss_bytes: None,
        };
        State {
            schema: TestnetStateSchema::V1,
            name: "demo".to_owned(),
            phase: TestnetPhase::Up,
            backend: TestnetBackend::Process,
            seed: 1,
            created: Timestamp::now(),
            next: u32::from(count),
            nodes: (0..count).map(row).collect(),
            log: None,
            applied: None,
            partition: None,
            links: Vec::new(),
            node_faults: Vec::new(),
            events: Vec::new(),
        }
    }

    fn partition(groups: &[&[u32]], one_way: bool) -> TestnetPartition {
        let groups = groups.iter().map(|group| group.to_vec()).collect();
        TestnetPartition { groups, one_way, since: Timestamp::now() }
    }

    #[test]
    fn nodes_that_nobody_named_are_a_group_of_their_own() {
        let mut state = state(5);
        state.partition = Some(partition(&[&[0, 1], &[2]], false));
        for (from, to, cut) in
            [(0, 1, false), (0, 2, true), (2, 0, true), (3, 4, false), (3, 0, true), (2, 4, true)]
        {
            assert_eq!(state.is_cut(from, to), cut, "{from} to {to}");
        }
    }

    #[test]
    fn a_one_way_partition_keeps_the_first_group_from_being_heard_and_nothing_else() {
        let mut state = state(4);
        state.partition = Some(partition(&[&[0], &[1, 2]], true));
        for (from, to, cut) in [(0, 1, true), (1, 0, false), (0, 3, true), (3, 0, false), (1, 3, false)] {
            assert_eq!(state.is_cut(from, to), cut, "{from} to {to}");
        }
        let link = state.link(&state.nodes[1], &state.nodes[0]);
        assert!(!link.cut_to && link.cut_from, "both ends know: {link:?}");
    }

    #[test]
    fn a_link_has_its_own_shape_or_that_of_all_and_half_of_a_round_trip_each_way() {
        let mut state = state(3);
        state.links = vec![
            TestnetShape { latency_ms: 50.0, jitter_ms: 10.0, ..TestnetShape::default() },
            TestnetShape { between: Some([0, 2]), loss: 0.1, ..TestnetShape::default() },
        ];
        let faults = state.faults_of(&state.nodes[0]).links;
        assert_eq!((faults[0].delay_ms, faults[0].jitter_ms, faults[0].loss), (25.0, 5.0, 0.0));
        assert_eq!((faults[1].delay_ms, faults[1].loss), (0.0, 0.1));
        assert_eq!(state.faults_of(&state.nodes[2]).links[0].loss, 0.1, "from either end");
        state.links.clear();
        assert_eq!(state.faults_of(&state.nodes[0]), FaultsRequest::default());
    }

    #[test]
    fn spots_are_a_testnet_and_a_node() {
        let spot = |text: &str| text.parse::<Spot>().map(|spot| (spot.net.0, spot.node));
        assert_eq!(spot("demo/0"), Ok(("demo".to_owned(), Some("0".to_owned()))));
        assert_eq!(spot("a-b/alice"), Ok(("a-b".to_owned(), Some("alice".to_owned()))));
        assert_eq!(spot("demo"), Ok(("demo".to_owned(), None)));
        for bad in ["", "/0", "demo/", "Demo/0", "demo/../x", "..", "a/b/c", "-a", "a-"] {
            assert!(spot(bad).is_err(), "{bad}");
        }
    }
}
