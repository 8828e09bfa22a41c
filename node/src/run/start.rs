//! The steps from nothing to a node that serves.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::{Address, Overlay, PersistBatch, Profile, Restored, StartError};
use wattle_store::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, CommitError, Created, KeyError, OpenError, Owner, SecretFileError,
    Store,
};
use wattle_types::{NetworkKey, SecretKey, Table, Write};

use super::{EVENTS_MAX, Options, already_running, pump, pump_members, pump_order};
use crate::api::documents::{ErrorDocument, RuntimeDocument, RuntimeSchema};
use crate::api::{Access, Gate, Guard, Names, Server, Socket, bind_tcp, router};
use crate::apps::{self, Apps};
use crate::clock::unix_now;
use crate::config::{self, ApiListen, Config, Settings, Sources, defaults_toml};
use crate::documents::Documents;
use crate::exit::ErrorCode;
use crate::liveness::{self, Hearers};
use crate::members::{self, About, Members, Told};
use crate::metrics::Metrics;
use crate::neighbours;
use crate::node::Node;
use crate::order::{self, Order};
use crate::paths::{Environment, NodeName, Paths};
use crate::ports;
use crate::ring::Ring;
use crate::telemetry::{Output, Telemetry};

/// Batches on their way to the disk before the overlay has to wait.
const PERSIST_MAX: usize = 256;
/// What happened to documents and was not told to apps yet; beyond it the documents wait.
const APP_EVENTS_MAX: usize = 1024;
/// How often another default port is tried, when a node that starts at the same moment was faster.
const PORT_RETRIES: u32 = 8;
/// Batches that share one write.
const PERSIST_TOGETHER: usize = 64;
/// Half of what the store takes at once, so that its own bookkeeping fits too.
const PORTION_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;
const PORTION_WRITES_MAX: usize = BATCH_WRITES_MAX / 2;

/// A node that runs, and the files of its run.
pub(super) struct Running {
    pub(super) node: Arc<Node>,
    pub(super) listening: Vec<Address>,
    pub(super) created: bool,
    /// The overlay has ended: what it told is told.
    pub(super) ended: CancellationToken,
    files: Vec<PathBuf>,
}

impl Running {
    pub(super) fn remove_files(&self) {
        for file in &self.files {
            // Ignored because the next start replaces files that are left over.
            drop(std::fs::remove_file(file));
        }
    }
}

type Result<T> = std::result::Result<T, ErrorDocument>;

fn failed(what: impl std::fmt::Display) -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Failed, what.to_string())
}

pub(super) async fn start(
    options: &Options,
    output: &Output,
    started: Instant,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Running> {
    let paths = Paths::new(&Environment::of_process(), options.node.clone(), options.home.as_deref())
        .map_err(failed)?;
    let config = load_config(&paths, options)?;
    let settings = &config.settings;
    let telemetry = Arc::new(start_logging(settings, &paths, output)?);
    let (store, key, created) = open_data(&paths).await?;
    if let Some(faults) = &options.faults {
        faults.begin(&store);
    }
    let network_key = if settings.private { Some(network_key(&paths, settings)?) } else { None };
    let shared = !settings.api.allow_uids.is_empty();
    paths
        .prepare_runtime(shared)
        .map_err(|error| ErrorDocument::new(ErrorCode::Denied, error.to_string()))?;

    let (persist, batches) = mpsc::channel(PERSIST_MAX);
    tasks.spawn(keep(Arc::clone(&store), batches));
    let overlay = start_overlay(options, settings, (&key, network_key.as_ref()), &store, persist).await?;
    let (members, [told, present]) =
        start_members(options, settings, &overlay, &store, &key, stop, tasks).await?;
    let (happens, hears) = mpsc::channel(APP_EVENTS_MAX);
    let documents = Documents::start(&overlay, &store, &key, stop, happens, tasks).map_err(failed)?;
    let started_apps = Apps::start(apps::shipped(), overlay.id(), &documents, hears, stop, tasks);
    let (apps, proposals) = started_apps.map_err(failed)?;
    let timing = order::timing(settings.profile == Profile::Lan);
    let order = Order::start(&overlay, &store, &key, Some(&apps), timing, stop, tasks);
    proposals.go_to(&order);
    let ordered = order.events();
    let names = Arc::new(Names::open(Arc::clone(&store)).map_err(failed)?);
    let events = Arc::new(Ring::new(EVENTS_MAX));
    let (moves, moved) = watch::channel(0);
    let neighbours_at = settings.same_machine.then(|| paths.clone());
    let ended = CancellationToken::new();
    let pumping = pump(overlay.events(), Arc::clone(&names), neighbours_at, Arc::clone(&events), moves);
    tasks.spawn(ended.clone().run_until_cancelled_owned(pumping));

    let socket = Socket::bind(&paths.socket, shared)
        .map_err(|error| failed(format!("cannot listen on {}: {error}", paths.socket.display())))?;
    let listener = bind_api(settings.api.listen).await?;
    let url =
        listener.as_ref().and_then(|tcp| tcp.local_addr().ok()).map(|address| format!("http://{address}"));
    let node = Arc::new(Node {
        overlay,
        members,
        faults: options.links(),
        documents,
        order,
        apps,
        store,
        key,
        network_key,
        paths,
        names,
        events,
        telemetry,
        metrics: Arc::new(Metrics::new(started)),
        url,
        started,
        started_at: unix_now(),
        stop: stop.clone(),
        config,
    });
    let listening = node.overlay.status().await.map_err(failed)?.listening;
    serve(&node, socket, listener, stop, tasks)?;
    let files = write_runtime_files(&node, &listening)?;
    if node.config.settings.same_machine {
        tasks.spawn(neighbours::look(node.overlay.clone(), node.paths.clone(), stop.clone()));
    }
    follow(&node, Streams { told, present, ordered, moved }, stop, tasks);
    Ok(Running { node, listening, created: created == Created::Now, ended, files })
}

/// What the parts of a node tell of.
struct Streams {
    /// Members, for whoever watches events.
    told: broadcast::Receiver<Told>,
    /// Members, for those who work with others.
    present: broadcast::Receiver<Told>,
    ordered: broadcast::Receiver<order::Told>,
    /// This node has other addresses.
    moved: watch::Receiver<u64>,
}

/// Has what the parts of a node tell come to those whom it concerns.
fn follow(node: &Arc<Node>, streams: Streams, stop: &CancellationToken, tasks: &TaskTracker) {
    let Streams { told, present, ordered, moved } = streams;
    tasks.spawn(pump_members(Arc::clone(node), told, stop.clone()));
    tasks.spawn(pump_order(Arc::clone(node), ordered, stop.clone()));
    let hearers = Hearers::of(node);
    tasks.spawn(liveness::tell(hearers, node.members.clone(), present, stop.clone(), tasks.clone()));
    tasks.spawn(keep_announced(Arc::clone(node), moved, stop.clone()));
}

fn start_logging(settings: &Settings, paths: &Paths, output: &Output) -> Result<Telemetry> {
    let (level, format, node) = (&settings.log_level, settings.log_format, paths.node.as_str());
    let endpoint = settings.telemetry.otlp_endpoint.as_deref();
    Telemetry::start(level, format, endpoint, node, output).map_err(failed)
}

/// Reads the configuration. A node without a file gets one in which everything is commented out.
fn load_config(paths: &Paths, options: &Options) -> Result<Config> {
    let files = paths.system_config_file.iter().chain([&paths.config_file]).map(PathBuf::as_path).collect();
    let sources = Sources {
        files,
        variables: config::variables(),
        overrides: options.overrides.clone(),
        ..Sources::default()
    };
    let config = Config::load(&sources).map_err(|problems| problems.document())?;
    if !paths.config_file.exists() && make_directory(paths.config_file.parent()).is_ok() {
        // Never over a file that `config set` wrote in the meantime. Ignored because a node runs as well
        // without the file; a read-only home is no reason to stop.
        drop(wattle_store::create_secret_file(&paths.config_file, defaults_toml().as_bytes()));
    }
    Ok(config)
}

fn make_directory(path: Option<&Path>) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path))
}

async fn open_data(paths: &Paths) -> Result<(Arc<Store>, SecretKey, Created)> {
    let (dir, key_file) = (paths.data_dir.clone(), paths.key_file());
    let (node, home) = (paths.node.clone(), paths.home.clone());
    let mut owner = Owner::this_process(node.as_str());
    owner.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    owner.api_socket = Some(paths.socket.clone());
    let opening = tokio::task::spawn_blocking(move || {
        make_directory(Some(&dir)).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
        let store = Store::open(&dir, owner).map_err(|error| open_error(&node, home.as_deref(), error))?;
        let (key, created) = wattle_store::load_or_create_key(&key_file).map_err(key_error)?;
        Ok((Arc::new(store), key, created))
    });
    opening.await.map_err(failed)?
}

fn open_error(node: &NodeName, home: Option<&Path>, error: OpenError) -> ErrorDocument {
    match error {
        OpenError::Locked { owner, .. } => already_running(node, home, owner.as_deref()),
        OpenError::Newer { ref needs, .. } => {
            let document = ErrorDocument::new(ErrorCode::Conflict, error.to_string())
                .detail("nothing was", "changed")
                .detail("second node", "wattle -n bob run");
            match needs {
                Some(version) => document.hint(format!("run wattle {version} or newer")),
                None => document,
            }
        }
        other => failed(other),
    }
}

fn key_error(error: KeyError) -> ErrorDocument {
    let code = match &error {
        KeyError::File(_) => ErrorCode::Denied,
        KeyError::Damaged { .. } => ErrorCode::Invalid,
        KeyError::NoRandomness(_) => ErrorCode::Failed,
    };
    ErrorDocument::new(code, error.to_string())
}

/// The key of a private network: read, or made when nobody named a file and there is none.
fn network_key(paths: &Paths, settings: &Settings) -> Result<NetworkKey> {
    let denied = |error: SecretFileError| ErrorDocument::new(ErrorCode::Denied, error.to_string());
    let own = paths.network_key_file();
    let file = settings.network_key_file.as_ref().unwrap_or(&own);
    let text = match wattle_store::read_secret_file(file, 256) {
        Ok(text) => text,
        Err(SecretFileError::Missing { .. }) if settings.network_key_file.is_none() => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(failed)?;
            let key = NetworkKey::from_bytes(bytes);
            wattle_store::create_secret_file(file, format!("{}\n", key.to_hex()).as_bytes())
                .map_err(denied)?;
            tracing::info!(file = %file.display(), "made the key of a new private network");
            return Ok(key);
        }
        Err(error) => return Err(denied(error)),
    };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    text.parse().map_err(|error: wattle_types::InvalidNetworkKey| {
        ErrorDocument::new(ErrorCode::Invalid, format!("{}: {error}", file.display()))
    })
}

async fn start_overlay(
    options: &Options,
    settings: &Settings,
    (key, network_key): (&SecretKey, Option<&NetworkKey>),
    store: &Store,
    persist: mpsc::Sender<PersistBatch>,
) -> Result<Overlay> {
    let mut port = ports::DEFAULT_PORT;
    if !settings.listen_is_default {
        ports::check_chosen(&settings.listen)?;
    }
    for attempt in 0.. {
        let mut config = settings.overlay(key.clone(), network_key.cloned());
        config.faults = options.links();
        if settings.listen_is_default {
            let free = ports::free_default(&settings.listen, port);
            let none = || {
                ErrorDocument::new(ErrorCode::Conflict, "no free port from 7710 up")
                    .hint("wattle run --listen MULTIADDR")
            };
            (port, config.listen) = free.ok_or_else(none)?;
        }
        match Overlay::start(config, restored(store)?, persist.clone()).await {
            Ok(overlay) => return Ok(overlay),
            // Somebody was faster between the probe and the bind.
            Err(StartError::Listen { .. }) if settings.listen_is_default && attempt < PORT_RETRIES => {
                port = ports::after(port);
            }
            Err(error) => return Err(start_error(error)),
        }
    }
    unreachable!("the loop over all numbers ends by returning")
}

/// The port of the members' datagrams is the one after the first that the overlay listens on; any when that is taken.
async fn start_members(
    options: &Options,
    settings: &Settings,
    overlay: &Overlay,
    store: &Arc<Store>,
    key: &SecretKey,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(Members, [broadcast::Receiver<Told>; 2])> {
    let listening = overlay.status().await.map_err(failed)?.listening;
    let port = listening.iter().find_map(Address::port).map_or(0, |port| port.saturating_add(1));
    // Every node that nobody named is called alike: that is no name.
    let name = &options.node;
    let name = if *name == NodeName::default() { String::new() } else { name.to_string() };
    let about = About {
        name,
        reach: settings.members.reach,
        roles: settings.members.roles.clone(),
        tags: settings.members.tags.clone(),
        external: settings.external.clone(),
    };
    let timing = settings.members.timing.clone();
    let faults = options.links();
    let start = members::Start { overlay, store, key, about, timing, port, faults };
    Members::start(start, stop, tasks).await.map_err(failed)
}

fn start_error(error: StartError) -> ErrorDocument {
    let code = match &error {
        StartError::Listen { .. } => ErrorCode::Conflict,
        StartError::QuicIsNeverPrivate(_) | StartError::Water { .. } => ErrorCode::Usage,
        StartError::Transport { .. } => ErrorCode::Failed,
    };
    ErrorDocument::new(code, error.to_string())
}

fn restored(store: &Store) -> Result<Restored> {
    let scan = |table| store.scan(table).map_err(failed);
    Ok(Restored {
        records: scan(Table::Records)?,
        providers: scan(Table::Providers)?,
        published: scan(Table::Published)?,
        addresses: scan(Table::Addresses)?,
        blocked: scan(Table::Blocked)?,
    })
}

/// Brings the overlay's batches to the disk, in their order. Those that wait together are written together,
/// as many at once as the store takes. When the disk is full nothing of that round is answered, and the next
/// is tried. When it fails nothing is answered any more, and the node ends through `Store::failed`.
async fn keep(store: Arc<Store>, mut batches: mpsc::Receiver<PersistBatch>) {
    let mut together = Vec::new();
    while batches.recv_many(&mut together, PERSIST_TOGETHER).await > 0 {
        let (mut writes, mut waiting) = (Vec::new(), Vec::new());
        for PersistBatch { writes: more, done } in together.drain(..) {
            writes.extend(more);
            waiting.extend(done);
        }
        for part in portions(writes) {
            match store.commit(part).await {
                Ok(()) => {}
                // Dropped, so that nobody is told that it was kept.
                Err(CommitError::Full { .. }) => waiting.clear(),
                Err(error) => {
                    tracing::error!(%error, "the disk did not take what the overlay wants kept");
                    return;
                }
            }
        }
        for done in waiting {
            if done.send(()).is_err() {
                tracing::trace!("whoever asked for this write has stopped waiting");
            }
        }
    }
}

/// Cuts writes into portions that the store takes at once. Each write of the overlay stands by itself: a
/// record, an address; so a power cut between two portions loses the later ones and breaks nothing.
fn portions(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let size = |write: &Write| match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Remove { key, .. } => key.len(),
        Write::RemoveRange { range, .. } => range.from().len() + range.to().map_or(0, <[u8]>::len),
    };
    let (mut portions, mut bytes) = (vec![Vec::new()], 0);
    for write in writes {
        bytes += size(&write);
        let full = portions.last().is_some_and(|last: &Vec<Write>| last.len() >= PORTION_WRITES_MAX);
        if full || bytes > PORTION_BYTES_MAX {
            bytes = size(&write);
            portions.push(Vec::new());
        }
        if let Some(last) = portions.last_mut() {
            last.push(write);
        }
    }
    portions
}

async fn bind_api(listen: ApiListen) -> Result<Option<TcpListener>> {
    let (address, or_next) = match listen {
        ApiListen::Off => return Ok(None),
        ApiListen::Default(address) => (address, true),
        ApiListen::Exactly(address) => (address, false),
    };
    bind_tcp(address, or_next).await.map(Some).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::AddrInUse => ErrorCode::Conflict,
            std::io::ErrorKind::PermissionDenied => ErrorCode::Denied,
            _ => ErrorCode::Failed,
        };
        ErrorDocument::new(code, format!("the API cannot listen on {address}: {error}"))
            .hint("choose another api.listen, or leave it out to get a free port")
    })
}

fn serve(
    node: &Arc<Node>,
    socket: Socket,
    listener: Option<TcpListener>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let settings = &node.config.settings.api;
    let access = Arc::new(Access::open(Arc::clone(&node.store)).map_err(failed)?);
    let token = access.admin_token(unix_now()).map_err(failed)?;
    let token_file = node.paths.token_file();
    wattle_store::write_atomically(&token_file, format!("{}\n", token.secret).as_bytes(), 0o600)
        .map_err(|error| failed(format!("{}: {error}", token_file.display())))?;
    let guard = Guard::new(access, node.overlay.id(), settings.host_names.clone(), settings.metrics_open);
    let gate = Gate { guard: Arc::new(guard), id: node.overlay.id(), url: node.url.clone() };
    let server = Server::new(router(Arc::clone(node), Arc::new(gate)), stop.clone());
    tasks.spawn(server.clone().serve_socket(socket, node.paths.uid(), settings.allow_uids.clone()));
    if let Some(listener) = listener {
        tasks.spawn(server.serve_tcp(listener));
    }
    Ok(())
}

/// Writes the files by which programs and neighbours on this machine find the node; they are removed at the
/// end.
fn write_runtime_files(node: &Node, listening: &[Address]) -> Result<Vec<PathBuf>> {
    let port = listening.iter().find_map(Address::port);
    let document = RuntimeDocument {
        schema: RuntimeSchema::V1,
        pid: std::process::id(),
        started: since(node.started),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        id: node.overlay.id(),
        network: node.overlay.network().to_string(),
        socket: node.paths.socket.display().to_string(),
        url: node.url.clone(),
        token_file: node.paths.token_file().display().to_string(),
        port,
    };
    let io_failed = |path: &Path, error: std::io::Error| failed(format!("{}: {error}", path.display()));
    let api_file = node.paths.api_file();
    let bytes = serde_json::to_vec_pretty(&document).map_err(failed)?;
    wattle_store::write_atomically(&api_file, &bytes, 0o600).map_err(|error| io_failed(&api_file, error))?;
    let mut files = vec![api_file, node.paths.token_file()];
    if node.config.settings.same_machine {
        announce(node, listening);
        files.push(node.paths.neighbour_file());
    }
    let told = node.store.update_owner(|owner| {
        owner.p2p_port = port;
        owner.api_url.clone_from(&node.url);
    });
    if let Err(error) = told {
        tracing::debug!(%error, "the lock file does not say the port");
    }
    Ok(files)
}

fn since(started: Instant) -> Timestamp {
    let up = jiff::SignedDuration::try_from(started.elapsed()).unwrap_or_default();
    Timestamp::now().checked_sub(up).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn announce(node: &Node, listening: &[Address]) {
    let network = node.overlay.network();
    if let Err(error) = neighbours::announce(&node.paths, node.overlay.id(), network.as_str(), listening) {
        tracing::warn!(%error, "other nodes on this machine will not find this one");
    }
}

/// Writes the neighbour file again when addresses come and go.
async fn keep_announced(node: Arc<Node>, mut moved: watch::Receiver<u64>, stop: CancellationToken) {
    loop {
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        // Addresses mostly come several at once.
        tokio::time::sleep(Duration::from_millis(50)).await;
        moved.mark_unchanged();
        match node.overlay.status().await {
            Ok(status) if !stop.is_cancelled() => {
                if node.config.settings.same_machine {
                    announce(&node, &status.listening);
                }
                node.members.moved(status.listening).await;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_writes_is_cut_to_what_the_store_takes() {
        let put =
            |value: usize| Write::Put { table: Table::Records, key: vec![0; 10], value: vec![0; value] };
        let writes: Vec<Write> = (0..30_000).map(|_| put(100)).collect();
        let cut = portions(writes.clone());
        assert!(
            cut.iter().all(|part| part.len() <= PORTION_WRITES_MAX && part.len() * 110 <= PORTION_BYTES_MAX)
        );
        assert_eq!(cut.concat(), writes, "nothing is lost and the order stays");
        assert_eq!(portions(vec![put(9000); 200]).concat().len(), 200);
    }
}
