//! `testnet up` and `down`: from nothing to connected nodes, and back to nothing.
//!
//! What is started is tethered until everything is well: a node whose starter is gone before that ends by itself, and
//! what is left in the directory is found by `list` and taken away by `down`.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use wattle_order::limits::{VALIDATORS_MAX, VALIDATORS_MIN};

use super::process::{Look, Process};
use super::start::Batch;
use super::state::{Held, NODES_MAX, Place, Row, State, names, root};
use super::{netns, ordered};
use crate::api::documents::{ErrorDocument, NameDocument, NameRequest};
use crate::cli::documents::{
    TestnetDownDocument, TestnetDownSchema, TestnetPhase, TestnetStanding, TestnetStarted,
    TestnetStateSchema, TestnetUpDocument, TestnetUpSchema,
};
use crate::cli::errors::{Failure, advise, of_io};
use crate::cli::files;
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::values::as_ms;
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// The port of the first node. Each has two: for other nodes, and after it for its API and for datagrams of members.
const FIRST_PORT: u16 = 17_710;
/// How long a process that was told to end may take before it is killed.
const END_MAX: Duration = Duration::from_secs(4);
/// How long to wait for somebody else who chooses ports.
const TURN_MAX: Duration = Duration::from_secs(20);
/// How often all of it is begun when somebody else takes a port before a node does.
pub(super) const ATTEMPTS: u32 = 5;
/// Whom a node dials at its start.
const BOOTSTRAPS: usize = 3;

/// What nodes are called, by index.
const NAMES: [&str; 26] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "lena",
    "mike", "nina", "oscar", "peggy", "quinn", "rupert", "sybil", "trent", "ursula", "victor", "wendy",
    "xena", "yuri", "zoe",
];

pub(super) fn name_of(index: u32) -> String {
    let known = usize::try_from(index).ok().and_then(|index| NAMES.get(index));
    known.map_or_else(|| format!("node{index}"), |name| (*name).to_owned())
}

/// Why there is no such testnet, if there is none.
pub(super) fn check(nodes: u32, validators: Option<u32>) -> Result<(), String> {
    if nodes == 0 || nodes > NODES_MAX {
        return Err(format!("a testnet has 1 to {NODES_MAX} nodes, not {nodes}"));
    }
    let Some(votes) = validators else { return Ok(()) };
    let count = usize::try_from(votes).unwrap_or(usize::MAX);
    if count < VALIDATORS_MIN {
        let why = "fewer cannot bear one that lies";
        return Err(format!("a log has at least {VALIDATORS_MIN} validators, not {votes}: {why}"));
    }
    if count > VALIDATORS_MAX {
        let why = "a certificate has to hold a signature of each";
        return Err(format!("a log has at most {VALIDATORS_MAX} validators, not {votes}: {why}"));
    }
    if votes > nodes {
        return Err(format!("of {nodes} nodes {nodes} at most can be validators, not {votes}"));
    }
    Ok(())
}

pub(super) fn up(session: &Session, args: &super::Up) -> Result<(), Failure> {
    let net = args.name.clone().or_else(|| session.globals.testnet.as_ref().map(|spot| spot.net.clone()));
    let place = Place::of(session, net.unwrap_or_else(super::NetName::usual))?;
    let document = bring_up(session, &place, args)?;
    session.show_own(&document, |document| Shown {
        text: screen(document),
        ids: document.nodes.iter().map(|node| node.id.to_string()).collect(),
    })
}

/// A whole new testnet, or nothing of it.
pub(super) fn bring_up(
    session: &Session,
    place: &Place,
    args: &super::Up,
) -> Result<TestnetUpDocument, Failure> {
    check(args.nodes, args.validators).map_err(|why| ErrorDocument::new(ErrorCode::Usage, why))?;
    if args.backend.has_own_network() {
        netns::check()?;
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => random()?,
    };
    let turn = Turn::take();
    let begun = Instant::now();
    let mut attempt = 1;
    let document = loop {
        let held = make(place, args, seed)?;
        // From here on whatever ends this takes everything away again.
        let mut raised = Raised { batch: Batch::default(), held, done: false };
        match session.block_on(raise(&mut raised, args.validators, begun)) {
            Ok(document) => {
                raised.done = true;
                break document;
            }
            // Nodes whose starter was killed still come to their ports when it is no longer anybody's turn.
            Err(Failure::Error(error)) if error.code == ErrorCode::Conflict && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(failure) => return Err(failure),
        }
    };
    drop(turn);
    Ok(document)
}

fn random() -> Result<u64, Failure> {
    // 48 bits: a program that reads JSON numbers as floats must not change the seed.
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes[2..])
        .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("no random bytes: {error}")))?;
    Ok(u64::from_be_bytes(bytes))
}

fn screen(document: &TestnetUpDocument) -> String {
    let TestnetUpDocument { name, nodes, up_ms, alive_ms, .. } = document;
    let seconds = |ms: u64| format!("{}.{}s", ms / 1000, ms % 1000 / 100);
    let count = nodes.len();
    let mut text = format!(
        "{name}: {count} nodes up in {}   all {count} alive on all {count} after {}",
        seconds(*up_ms),
        seconds(*alive_ms)
    );
    if let Some(log) = &document.log {
        let votes = log.validators.len();
        let after = seconds(log.first_block_ms);
        text.push_str(&format!("   log height {} after {after}, {votes} validators", log.height));
    }
    text.push_str(&format!("   seed {}\n", document.seed));
    for row in nodes.chunks(5) {
        let cells: Vec<String> =
            row.iter().map(|node| format!("{} {}  :{}", node.index, node.name, node.port)).collect();
        text.push_str(&format!("  {}\n", cells.join("   ")));
    }
    if !document.backend.has_own_network() {
        text.push_str(&format!("  dashboard of node 0: wattle -t {name}/0 ui        "));
    }
    text.push_str(&format!("  stop: wattle testnet down --name {name}\n"));
    text
}

/// Makes the directory with everything in it that nodes need to start. Nothing runs yet.
fn make(place: &Place, args: &super::Up, seed: u64) -> Result<Held, Failure> {
    if let Some(above) = place.directory.parent() {
        files::private_dir(above)?;
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(&place.directory);
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(place),
        _ => of_io("create", &place.directory, &error),
    })?;
    let lock = place.directory.join("lock");
    wattle_store::create_file(&lock, b"").map_err(|error| of_io("create", &lock, &error))?;
    let state = State {
        schema: TestnetStateSchema::V1,
        name: place.net.to_string(),
        phase: TestnetPhase::Starting,
        backend: args.backend,
        seed,
        created: Timestamp::now(),
        next: 0,
        nodes: Vec::new(),
        log: None,
        applied: None,
        partition: None,
        links: Vec::new(),
        node_faults: Vec::new(),
        events: Vec::new(),
    };
    place.write(&state)?;
    let mut held = place.hold()?;
    let made = (0..args.nodes).try_for_each(|_| new_row(&mut held).map(drop));
    let made = made.and_then(|()| prepare(&mut held, args.latency.map(|latency| latency.0)));
    if let Err(failure) = made {
        remove(&held.place, &[])?;
        return Err(failure);
    }
    Ok(held)
}

fn exists(place: &Place) -> ErrorDocument {
    let net = &place.net;
    let interrupted = place.read().map_or(true, |state| state.phase == TestnetPhase::Starting);
    let message = match interrupted {
        true => format!("testnet \"{net}\" was begun and not finished"),
        false => format!("there is a testnet \"{net}\" already"),
    };
    let document = ErrorDocument::new(ErrorCode::Conflict, message);
    let document = advise(document, "take it away", &format!("wattle testnet down --name {net}"), "");
    document.detail("or another", "wattle testnet up 5 --name lab")
}

fn prepare(held: &mut Held, latency: Option<Duration>) -> Result<(), Failure> {
    if let Some(latency) = latency {
        let latency_ms = latency.as_secs_f64() * 1000.0;
        held.state.links.push(crate::cli::documents::TestnetShape { latency_ms, ..Default::default() });
    }
    for row in &held.state.nodes {
        write_config(held, row)?;
    }
    held.place.write_faults(&held.state)?;
    held.save()
}

/// A new node with a key and ports of its own.
pub(super) fn new_row(held: &mut Held) -> Result<Row, Failure> {
    let index = held.state.next;
    let name = name_of(index);
    let used = used_ports(held);
    let key = files::own_key(&held.place.paths(&name)?)?;
    let row = Row {
        index,
        name,
        id: key.node_id(),
        port: free_port(&used)?,
        process: None,
        shared: false,
        rss_bytes: None,
    };
    held.state.next = index.saturating_add(1);
    held.state.nodes.push(row.clone());
    Ok(row)
}

/// Nobody else on this machine chooses ports for a testnet meanwhile: between the look at a port and the node that
/// listens there, another testnet would find it free too. A name in the kernel, which goes with the process that has it
/// and is as wide as the ports are: one network namespace.
pub(super) struct Turn {
    _name: Option<UnixListener>,
}

impl Turn {
    /// Waits for it, but not for ever: whoever has it may be anybody.
    pub(super) fn take() -> Self {
        let Ok(name) = SocketAddr::from_abstract_name("wattle-testnet-ports") else {
            return Self { _name: None };
        };
        let begun = Instant::now();
        loop {
            match UnixListener::bind_addr(&name) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < TURN_MAX => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                bound => return Self { _name: bound.ok() },
            }
        }
    }
}

fn is_free(port: u16) -> bool {
    [port, port + 1].into_iter().all(|port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    })
}

/// Other ports for nodes whose own somebody else took while they were down.
pub(super) fn move_off_taken_ports(held: &mut Held, rows: &[Row]) -> Result<Vec<Row>, Failure> {
    let mut moved = false;
    for row in rows.iter().filter(|row| !is_free(row.port)) {
        let port = free_port(&used_ports(held))?;
        if let Some(row) = held.row(row.index) {
            row.port = port;
            moved = true;
        }
    }
    if moved {
        // Each names some of the others.
        held.state.nodes.iter().try_for_each(|row| write_config(held, row))?;
    }
    let indexes: Vec<u32> = rows.iter().map(|row| row.index).collect();
    Ok(held.state.nodes.iter().filter(|row| indexes.contains(&row.index)).cloned().collect())
}

/// The ports of all nodes of this user's testnets: one that is down comes back to its own.
fn used_ports(held: &Held) -> Vec<u16> {
    let mut used: Vec<u16> = held.state.nodes.iter().map(|row| row.port).collect();
    let root = held.place.directory.parent().unwrap_or(&held.place.directory);
    let others = names(root).into_iter().filter_map(|net| Place::below(root, net).read().ok());
    used.extend(others.flat_map(|state| state.nodes).map(|row| row.port));
    used
}

/// The first two ports after those in use that are free for everything that a node does with them.
fn free_port(used: &[u16]) -> Result<u16, Failure> {
    let mut ports = (FIRST_PORT..u16::MAX - 1).step_by(2).filter(|port| !used.contains(port));
    ports.find(|port| is_free(*port)).ok_or_else(|| {
        ErrorDocument::new(ErrorCode::Conflict, format!("no two free ports from {FIRST_PORT} up")).into()
    })
}

pub(super) fn write_config(held: &Held, row: &Row) -> Result<(), Failure> {
    let file = held.place.paths(&row.name)?.config_file;
    if let Some(parent) = file.parent() {
        files::private_dir(parent)?;
    }
    let (net, backend, port, api) = (&held.state.name, held.state.backend, row.port, row.port + 1);
    let others = held.state.nodes.iter().filter(|other| other.index != row.index);
    // Those before it and the first: whoever comes back finds some that stayed.
    let mut nearest: Vec<&Row> = others.collect();
    nearest.sort_by_key(|other| (other.index > row.index, row.index.abs_diff(other.index)));
    let bootstrap: Vec<String> = nearest
        .iter()
        .take(BOOTSTRAPS)
        .map(|other| {
            let address = netns::address(backend, other.index);
            format!("\"/ip4/{address}/udp/{}/quic-v1/p2p/{}\"", other.port, other.id)
        })
        .collect();
    // Nobody outside of its namespace could reach it.
    let api = if backend.has_own_network() { "off".to_owned() } else { format!("127.0.0.1:{api}") };
    let address = netns::address(backend, row.index);
    let text = format!(
        "# Node {} of the testnet \"{net}\", written by `wattle testnet`.\n\n\
         [network]\nname = \"testnet-{net}\"\n\n\
         [p2p]\nprofile = \"lan\"\nmdns = false\nsame_machine = false\ndht_mode = \"server\"\n\
         listen = [\"/ip4/{address}/udp/{port}/quic-v1\", \"/ip4/{address}/tcp/{port}\"]\n\
         bootstrap = [{}]\n\n\
         [api]\nlisten = \"{api}\"\n\n\
         [log]\nlevel = \"info\"\n",
        row.index,
        bootstrap.join(", "),
    );
    wattle_store::write_atomically(&file, text.as_bytes(), 0o600)
        .map_err(|error| of_io("write", &file, &error).into())
}

/// Nodes that were started and are not said to be well yet.
struct Raised {
    batch: Batch,
    held: Held,
    /// All is well: everything stays.
    done: bool,
}

impl Drop for Raised {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        drop(std::mem::take(&mut self.batch));
        if let Err(failure) = remove(&self.held.place, &[]) {
            tracing::debug!(?failure, "something is left of a testnet");
        }
    }
}

/// Starts all nodes, and waits until all are alive for all.
async fn raise(
    raised: &mut Raised,
    validators: Option<u32>,
    begun: Instant,
) -> Result<TestnetUpDocument, Failure> {
    let rows = raised.held.state.nodes.clone();
    let place = raised.held.place.clone();
    raised.batch.start(&mut raised.held, &rows)?;
    raised.batch.wait(&place, |_| true).await?;
    let up = begun.elapsed();
    let count = rows.len() as u64;
    let statuses = raised.batch.wait(&place, |status| status.members.alive == count).await?;
    let alive = begun.elapsed();
    raised.held.note_memory(&rows);
    name_all(&place, &rows, &rows).await?;
    let log = match validators {
        Some(votes) => {
            let (kept, log) = ordered::begin(&place, &rows, votes, begun).await?;
            raised.held.state.log = Some(kept);
            Some(log)
        }
        None => None,
    };
    raised.held.state.phase = TestnetPhase::Up;
    raised.held.state.note(format!("up {count}"));
    raised.held.save()?;
    std::mem::take(&mut raised.batch).release()?;
    let nodes = statuses.iter().zip(&rows).map(|(status, row)| TestnetStarted {
        index: row.index,
        name: row.name.clone(),
        id: row.id,
        pid: status.node.pid,
        port: row.port,
    });
    Ok(TestnetUpDocument {
        schema: TestnetUpSchema::V1,
        name: raised.held.state.name.clone(),
        seed: raised.held.state.seed,
        backend: raised.held.state.backend,
        directory: place.directory.display().to_string(),
        up_ms: as_ms(up),
        alive_ms: as_ms(alive),
        log,
        nodes: nodes.collect(),
    })
}

/// Lets each know the others by their names.
pub(super) async fn name_all(place: &Place, at: &[Row], whom: &[Row]) -> Result<(), Failure> {
    let each = at.iter().map(|row| async move {
        let client = place.client(row)?;
        for other in whom.iter().filter(|other| other.index != row.index) {
            let request = NameRequest { peer: other.id.to_string(), name: Some(other.name.clone()) };
            client.post::<NameDocument>(routes::NAME, &request).await?;
        }
        Ok::<(), Failure>(())
    });
    futures::future::join_all(each).await.into_iter().collect()
}

pub(super) fn down(session: &Session, args: &super::Down) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    // A testnet that something else damaged must go away as well.
    let lock = place.lock();
    if let Err(Failure::Error(document)) = &lock
        && document.code == ErrorCode::Conflict
    {
        return Err(ErrorDocument::clone(document).into());
    }
    let rows = place.read().map(|state| state.nodes).unwrap_or_default();
    let stopped = stop_all(&place, &rows, args.keep)?;
    let kept = if args.keep {
        netns::remove_all(&place)?;
        let mut state = place.read()?;
        state.phase = TestnetPhase::Down;
        state.nodes.iter_mut().for_each(|row| row.process = None);
        state.note("down --keep".to_owned());
        place.write(&state)?;
        Some(place.directory.display().to_string())
    } else {
        remove(&place, &rows)?;
        None
    };
    drop(lock);
    // Gone when this was the last one. Ignored because another may be in it.
    drop(std::fs::remove_dir(root(session)?));
    let document =
        TestnetDownDocument { schema: TestnetDownSchema::V1, name: place.net.to_string(), stopped, kept };
    session.show_own(&document, |document| Shown {
        text: match &document.kept {
            Some(kept) => format!("{}: stopped {} nodes; kept {kept}\n", document.name, document.stopped),
            None => format!("{}: stopped {} nodes, nothing is left\n", document.name, document.stopped),
        },
        ids: vec![document.name.clone()],
    })
}

/// Every node that may run here, written down or not: by the names of its files.
fn all_names(place: &Place, rows: &[Row]) -> Vec<String> {
    let mut names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    if let Ok(entries) = std::fs::read_dir(place.directory.join("data").join("nodes")) {
        names.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
    }
    names.sort();
    names.dedup();
    names
}

/// Ends every process of a testnet; politely when its files are to be used again. Gives how many nodes ran.
fn stop_all(place: &Place, rows: &[Row], politely: bool) -> Result<u64, Failure> {
    let mut processes: Vec<Process> = rows.iter().filter_map(|row| place.process(row)).collect();
    for name in all_names(place, rows) {
        let owner = wattle_store::read_owner(&place.paths(&name)?.data_dir);
        processes.extend(owner.and_then(|owner| Process::now(owner.pid)));
    }
    let told = rows.iter().filter(|row| place.standing(row) != TestnetStanding::Down).count();
    // One that several share and that none has come to yet.
    processes.extend(rows.iter().filter_map(|row| row.process.clone()));
    processes.sort_by_key(|process| process.pid);
    processes.dedup();
    let signal = if politely { Signal::TERM } else { Signal::KILL };
    for process in &processes {
        process.signal(signal);
        // A frozen one hears nothing else.
        process.signal(Signal::CONT);
    }
    let begun = Instant::now();
    while processes.iter().any(|process| process.look() != Look::Gone) || in_use(place, rows)? {
        if begun.elapsed() > END_MAX {
            for process in &processes {
                process.signal(Signal::KILL);
            }
        }
        if begun.elapsed() > END_MAX * 2 {
            let left: Vec<String> = processes
                .iter()
                .filter(|process| process.look() != Look::Gone)
                .map(|process| process.pid.to_string())
                .collect();
            let message = format!("processes of testnet \"{}\" do not end: {}", place.net, left.join(", "));
            return Err(ErrorDocument::new(ErrorCode::Failed, message).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(told as u64)
}

/// Whether a process writes one of the logs: also one that was started a moment ago and is not written down.
fn in_use(place: &Place, rows: &[Row]) -> Result<bool, Failure> {
    let mut logs = vec![place.host_log()];
    for name in all_names(place, rows) {
        logs.push(place.paths(&name)?.log_file);
    }
    Ok(logs.iter().any(|log| matches!(wattle_store::lock_file(log), Ok(None))))
}

/// Takes everything of a testnet off the disk. Nothing of it runs any more.
fn remove(place: &Place, rows: &[Row]) -> Result<(), Failure> {
    for name in all_names(place, rows) {
        remove_socket(&place.paths(&name)?);
    }
    netns::remove_all(place)?;
    match std::fs::remove_dir_all(&place.directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(of_io("remove", &place.directory, &error).into())
        }
        _ => Ok(()),
    }
}

/// Below a deep directory the socket is at a short place of its own.
pub(super) fn remove_socket(paths: &Paths) {
    // Ignored because a node that stopped politely took them with it.
    drop(std::fs::remove_file(&paths.socket));
    if let Some(parent) = paths.socket.parent().filter(|parent| !parent.starts_with(&paths.runtime_root)) {
        drop(std::fs::remove_dir(parent));
        if let Some(root) = parent.parent() {
            remove_when_empty(root);
        }
    }
}

fn remove_when_empty(directory: &Path) {
    // Ignored because it is everybody's, and only goes when it is nobody's.
    drop(std::fs::remove_dir(directory));
}

/// How many nodes of each testnet run: for `list`.
pub(super) fn all(session: &Session) -> Result<Vec<(Place, Option<State>)>, Failure> {
    let places = names(&root(session)?).into_iter().map(|net| Place::of(session, net));
    places.map(|place| place.map(|place| (place.clone(), place.read().ok()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_too_few_or_too_many_validators_is_refused_in_words() {
        assert_eq!((check(5, None), check(5, Some(4)), check(200, Some(128))), (Ok(()), Ok(()), Ok(())));
        for (nodes, validators, words) in [
            (0, None, "1 to 200 nodes"),
            (201, None, "1 to 200 nodes"),
            (5, Some(3), "at least 4 validators, not 3"),
            (200, Some(129), "at most 128 validators, not 129"),
            (4, Some(5), "of 4 nodes 4 at most can be validators, not 5"),
        ] {
            let why = check(nodes, validators).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
