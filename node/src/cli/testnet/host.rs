//! Several nodes in one process: each on a thread of its own, with its own files, its own sockets and its own log.
//!
//! They share nothing but the process: the same code runs as where a node is alone, and they find each other by their
//! addresses. What is done to the process is done to all of them, so one cannot be killed or frozen without the others.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::start::open_log;
use super::state::faults_in;
use crate::api::documents::ErrorDocument;
use crate::cli::errors::{Failure, to_text};
use crate::cli::run::tether;
use crate::cli::session::{Session, of_paths};
use crate::exit::ErrorCode;
use crate::paths::{Environment, NodeName, Paths};
use crate::run::{Options, run};

/// Runs the nodes until all of them have ended. Until whoever started this says that all is well, the end of one is the
/// end of all.
pub(super) fn host(session: &Session, args: &super::Host) -> Result<(), Failure> {
    raise_open_files();
    let stop = CancellationToken::new();
    let released = tether(stop.clone());
    let mut nodes = Vec::new();
    for name in &args.nodes {
        let paths = Paths::new(&Environment::of_process(), name.clone(), session.globals.home.as_deref());
        let log = Arc::new(open_log(&paths.map_err(|error| of_paths(&error))?)?);
        nodes.push((options(session, name, &args.faults, &log, &stop)?, log));
    }
    let mut threads = Vec::new();
    for (options, log) in nodes {
        threads.push(spawn(options, log, Arc::clone(&released))?);
    }
    let mut worst = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(code)) => worst = Err(code.into()),
            Err(_panicked) => worst = Err(ErrorCode::Failed.into()),
        }
    }
    worst
}

fn options(
    session: &Session,
    name: &NodeName,
    faults: &Path,
    log: &Arc<File>,
    stop: &CancellationToken,
) -> Result<Options, Failure> {
    Ok(Options {
        node: name.clone(),
        home: session.globals.home.clone(),
        faults: Some(crate::faults::read(&faults_in(faults, name.as_str()))?),
        quiet: true,
        log: Some(Arc::clone(log)),
        stop: stop.clone(),
        ..Options::default()
    })
}

/// Runs a node on a thread. Its error stands in its log, as that of a node alone does; the status is for the process.
fn spawn(
    options: Options,
    log: Arc<File>,
    released: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<(), ErrorCode>>, Failure> {
    let node = move || {
        let ended = run(&options);
        if let Err(document) = &ended {
            // Ignored because there is no other place to say it.
            drop((&*log).write_all(format!("{}\n", to_text(document, false)).as_bytes()));
        }
        // Threads that still end have the log too.
        drop(log.unlock());
        if !released.load(Ordering::Relaxed) {
            options.stop.cancel();
        }
        ended.map_err(|document| document.code)
    };
    let spawned = std::thread::Builder::new().spawn(node);
    spawned.map_err(|error| {
        ErrorDocument::new(ErrorCode::Failed, format!("cannot start a thread: {error}")).into()
    })
}

/// As many open files as the system lets this process have: many nodes need more than one does.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Ignored because a node that cannot open a file says so itself.
    setrlimit(Resource::Nofile, limit).unwrap_or_default();
}
