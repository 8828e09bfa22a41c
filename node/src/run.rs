//! `wattle run`: from nothing to a node, and back to nothing.
//!
//! 1. Paths, configuration, logging.
//! 2. The data directory (its lock says whether the node runs already) and the key.
//! 3. Ports.
//! 4. The overlay, with what an earlier run left; what it wants kept goes to the disk.
//! 5. The API, then the files by which others find it.
//! 6. Until a signal, `stop`, or the disk fails.
//! 7. Goodbye in at most two seconds, and no file of the run is left.

mod screen;
mod start;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::Event;
use wattle_net::faults::Faults;
use wattle_store::{Failure, Owner};

use crate::api::documents::{ErrorDocument, EventLine, NodeEvent};
use crate::api::{Names, member_event, order_event};
use crate::clock::timestamp;
use crate::config::Override;
use crate::exit::ErrorCode;
use crate::faults::AtStart;
use crate::members::Told;
use crate::neighbours;
use crate::node::{Node, count, peer_document};
use crate::paths::{NodeName, Paths, program};
use crate::ring::Ring;
use crate::telemetry::{Output, Threads};
use screen::Screen;

/// Events kept for readers that come late or go slowly.
const EVENTS_MAX: usize = 4096;
/// Longest goodbye of the overlay; the whole stop takes at most two seconds.
const GOODBYE_MAX: Duration = Duration::from_millis(1200);
/// Longest wait for the tasks after that.
const TASKS_MAX: Duration = Duration::from_millis(600);

/// What `wattle run` was told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which node.
    pub node: NodeName,
    /// `--home`.
    pub home: Option<PathBuf>,
    /// What flags set.
    pub overrides: Vec<Override>,
    /// JSON Lines instead of the screen.
    pub json: bool,
    /// No screen at all.
    pub quiet: bool,
    /// Faults on purpose: this is a node of a testnet.
    pub faults: Option<AtStart>,
    /// Other nodes are in this process: this one logs here, and works on the thread that runs it.
    pub log: Option<Arc<File>>,
    /// Ends the node, as a signal does.
    pub stop: CancellationToken,
}

impl Options {
    fn links(&self) -> Option<Faults> {
        self.faults.as_ref().map(|faults| faults.links.clone())
    }
}

/// Runs a node until it is stopped. Blocks.
///
/// # Errors
/// Why it did not start, or why it had to stop, as a document with its exit status.
pub fn run(options: &Options) -> Result<(), ErrorDocument> {
    let started = Instant::now();
    let (mut builder, output) = match &options.log {
        None => (tokio::runtime::Builder::new_multi_thread(), Output::Process),
        Some(log) => {
            let (threads, mut builder) = (Threads::default(), tokio::runtime::Builder::new_current_thread());
            builder.on_thread_start({
                let threads = threads.clone();
                move || threads.enter()
            });
            (builder, Output::Own(Arc::clone(log), threads))
        }
    };
    let failed =
        |error: io::Error| ErrorDocument::new(ErrorCode::Failed, format!("cannot start threads: {error}"));
    let runtime = builder.enable_all().build().map_err(failed)?;
    let ended = runtime.block_on(run_until_stopped(options, &output, started));
    // Nothing that still hangs may hold up the end: what had to be saved is saved.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn run_until_stopped(
    options: &Options,
    output: &Output,
    started: Instant,
) -> Result<(), ErrorDocument> {
    let stop = options.stop.child_token();
    // Before anything that must be cleaned up exists, so that no signal can fall between.
    let signals = stop_on_signals(&stop)?;
    let tasks = TaskTracker::new();
    let running = start::start(options, output, started, &stop, &tasks).await?;
    let node = Arc::clone(&running.node);
    // The screen reads the events from their beginning, so the first peer is on it as well.
    let screen = Screen::new(&node, &running.listening, running.created, options);
    screen.ready(started.elapsed());
    tasks.spawn(screen.follow(Arc::clone(&node.events), stop.clone()));
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(id = %node.overlay.id(), network = %node.overlay.network(), "ready");

    let failure = tokio::select! {
        () = stop.cancelled() => None,
        failure = node.store.failed() => Some(failure),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    signals.abort();
    goodbye(running, node, &stop, tasks).await;
    match failure {
        None => Ok(()),
        Some(failure) => Err(disk_failed(&failure)),
    }
}

async fn goodbye(running: start::Running, node: Arc<Node>, stop: &CancellationToken, tasks: TaskTracker) {
    push(&node.events, NodeEvent::Stopping);
    if tokio::time::timeout(GOODBYE_MAX, node.overlay.stop()).await.is_err() {
        tracing::warn!("the overlay did not say goodbye in time");
    }
    stop.cancel();
    // The handle that the routes hold keeps the overlay's events open.
    running.ended.cancel();
    running.remove_files();
    tasks.close();
    if tokio::time::timeout(TASKS_MAX, tasks.wait()).await.is_err() {
        tracing::debug!("some tasks were still busy");
    }
    // The directory goes when nothing is left in it. Ignored because an empty one harms nobody.
    drop(std::fs::remove_dir(&node.paths.runtime_dir));
    let telemetry = Arc::clone(&node.telemetry);
    drop((running, node));
    // Ignored because a panic while flushing traces must not keep the node from ending.
    drop(tokio::task::spawn_blocking(move || telemetry.flush()).await);
}

fn stop_on_signals(stop: &CancellationToken) -> Result<tokio::task::JoinHandle<()>, ErrorDocument> {
    let failed = |error: io::Error| {
        ErrorDocument::new(ErrorCode::Failed, format!("cannot listen for signals: {error}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let stop = stop.clone();
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            _ = hang_up.recv() => tracing::info!("stopping: SIGHUP"),
        }
        stop.cancel();
    }))
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell, and that is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

fn disk_failed(failure: &Failure) -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Failed, format!("stopped, because {failure}"))
        .detail(
            "your data",
            "everything that was acknowledged is on disk; nothing was acknowledged after this",
        )
        .hint("check the disk and its space, then: wattle run")
}

/// Somebody holds the data directory of this node.
pub(crate) fn already_running(node: &NodeName, home: Option<&Path>, owner: Option<&Owner>) -> ErrorDocument {
    let mut known = Vec::new();
    if let Some(owner) = owner {
        let since = timestamp(owner.since_ms).to_zoned(TimeZone::system());
        known.push(format!("pid {}", owner.pid));
        known.push(format!("since {}", since.strftime("%H:%M")));
        known.extend(owner.p2p_port.map(|port| format!("port {port}")));
    }
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    let other = if node.as_str() == "bob" { "alice" } else { "bob" };
    let status = format!("{} status", program(node.as_str(), home));
    let second = format!("{} run", program(other, home));
    ErrorDocument::new(ErrorCode::Conflict, format!("node \"{node}\" is already running{known}"))
        .detail("see it", format!("{status:<19} second node: {second}"))
        .hint(status)
}

fn push(events: &Ring<EventLine>, event: NodeEvent) {
    events.push(|id| EventLine { id, ts: Timestamp::now(), topic: event.topic(), event });
}

/// Turns what happens in the overlay into events of the API, until the overlay ends.
async fn pump(
    mut source: broadcast::Receiver<Event>,
    names: Arc<Names>,
    neighbours_at: Option<Paths>,
    events: Arc<Ring<EventLine>>,
    moved: tokio::sync::watch::Sender<u64>,
) {
    loop {
        let event = match source.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                push(&events, NodeEvent::Gap { lost });
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if matches!(event, Event::Listening(_) | Event::ListenClosed(_)) {
            moved.send_modify(|moves| *moves = moves.wrapping_add(1));
        }
        if let (Event::Connected(info), Some(paths)) = (&event, &neighbours_at)
            && info.path.address.ip().is_some_and(|ip| ip.is_loopback())
            && let Some(label) = neighbours::name_of(paths, info.peer)
        {
            names.set_label(info.peer, label);
        }
        push(&events, translate(&names, event));
    }
}

/// Turns what happens among the members into events of the API.
async fn pump_members(node: Arc<Node>, mut source: broadcast::Receiver<Told>, stop: CancellationToken) {
    loop {
        let told = tokio::select! {
            told = source.recv() => told,
            () = stop.cancelled() => return,
        };
        match told {
            Ok(told) => {
                if let Some(event) = member_event(&node, &told) {
                    push(&node.events, event);
                }
            }
            Err(broadcast::error::RecvError::Lagged(lost)) => push(&node.events, NodeEvent::Gap { lost }),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Turns what happens in the ordered log into events of the API.
async fn pump_order(
    node: Arc<Node>,
    mut source: broadcast::Receiver<crate::order::Told>,
    stop: CancellationToken,
) {
    loop {
        let told = tokio::select! {
            told = source.recv() => told,
            () = stop.cancelled() => return,
        };
        match told {
            Ok(told) => push(&node.events, order_event(told.event)),
            Err(broadcast::error::RecvError::Lagged(lost)) => push(&node.events, NodeEvent::Gap { lost }),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn translate(names: &Names, event: Event) -> NodeEvent {
    match event {
        Event::Connected(info) => NodeEvent::PeerConnected { peer: Box::new(peer_document(names, &info)) },
        Event::Disconnected { peer, reason } => {
            NodeEvent::PeerDisconnected { peer, name: names.of(peer), reason: reason.to_string() }
        }
        Event::Listening(address) => NodeEvent::Listening { address: address.to_string() },
        Event::ListenClosed(address) => NodeEvent::ListenClosed { address: address.to_string() },
        Event::Lookup { kind, requests, answers, took_ms, found } => NodeEvent::Lookup {
            kind: kind.to_owned(),
            requests: u64::from(requests),
            answers: u64::from(answers),
            took_ms,
            found,
        },
        Event::Misbehaved { peer, what } => {
            NodeEvent::Misbehaved { peer, name: names.of(peer), what: what.to_string() }
        }
        Event::Table { size } => NodeEvent::Table { size: count(size) },
    }
}
