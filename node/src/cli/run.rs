//! `run`: the node in this process, or in the background.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::errors::{Failure, advise, of_io};
use super::files::{self, tilde};
use super::node::abbreviated;
use super::routes;
use super::session::{Session, Shown};
use super::values::{as_ms, short};
use crate::api::documents::{ErrorDocument, ReadyKind, ReadyLine, RunSchema, StatusDocument};
use crate::config::Override;
use crate::exit::ErrorCode;
use crate::paths::Paths;
use crate::run::Options;

/// Start the node (creates it first if needed)
#[derive(Args)]
pub(super) struct Run {
    /// In the background; returns when it is ready
    #[arg(short, long)]
    detach: bool,
    /// Listen here (repeat for more): /ip4/0.0.0.0/udp/7710/quic-v1
    #[arg(long, value_name = "MA")]
    listen: Vec<String>,
    /// Dial this peer at the start (repeat for more)
    #[arg(long, value_name = "MA")]
    bootstrap: Vec<String>,
    /// Do not look for peers on the local network by multicast
    #[arg(long)]
    no_mdns: bool,
    /// Take the faults that FILE says: for the nodes of a testnet
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "detach")]
    faults: Option<PathBuf>,
    /// Stop when stdin ends before a byte came: for who starts many nodes
    #[arg(long, hide = true, conflicts_with = "detach")]
    tethered: bool,
}

/// The log of a background node is started anew beyond this size; the one before is kept.
const LOG_BYTES_MAX: u64 = 8 << 20;

pub(super) fn run(session: &Session, args: &Run) -> Result<(), Failure> {
    if !args.detach {
        return foreground(session, args);
    }
    if let Some(spot) = &session.globals.testnet {
        return Err(super::testnet::started_by_its_testnet(spot));
    }
    let paths = session.paths()?;
    let ready = start_detached(session, &paths, &flags_of(args))?;
    session.show_own(&ready, |ready| Shown {
        text: format!(
            "node \"{}\" runs in the background (pid {})   {}\napi          {}\nlog          {}\nsee it       {program} status       stop it: {program} stop\n",
            ready.name,
            ready.pid,
            abbreviated(&ready.id),
            ready.api,
            tilde(&paths.log_file),
            program = session.program(),
        ),
        ids: vec![ready.id.to_string()],
    })
}

/// What the flags say, as overrides of the config.
fn overrides(args: &Run) -> Vec<Override> {
    let mut overrides = Vec::new();
    let mut say = |key, flag, values: Vec<String>| overrides.push(Override { key, values, flag });
    if !args.listen.is_empty() {
        say("p2p.listen", "--listen", args.listen.clone());
    }
    if !args.bootstrap.is_empty() {
        say("p2p.bootstrap", "--bootstrap", args.bootstrap.clone());
    }
    if args.no_mdns {
        say("p2p.mdns", "--no-mdns", vec!["false".to_owned()]);
    }
    overrides
}

/// The same flags, to start this program again with.
fn flags_of(args: &Run) -> Vec<String> {
    let listen = args.listen.iter().map(|address| format!("--listen={address}"));
    let bootstrap = args.bootstrap.iter().map(|address| format!("--bootstrap={address}"));
    listen.chain(bootstrap).chain(args.no_mdns.then(|| "--no-mdns".to_owned())).collect()
}

/// Runs the node in this process until it is stopped.
fn foreground(session: &Session, args: &Run) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    if args.tethered {
        tether(stop.clone());
    }
    let faults = args.faults.as_deref().map(crate::faults::read).transpose()?;
    if let (None, Some(spot)) = (&faults, &session.globals.testnet) {
        return Err(super::testnet::started_by_its_testnet(spot));
    }
    let options = Options {
        faults,
        node: session.globals.node.clone(),
        home: session.globals.home.clone(),
        overrides: overrides(args),
        json: session.out.json,
        quiet: session.out.quiet,
        log: None,
        stop,
    };
    Ok(crate::run::run(&options)?)
}

/// Stops what runs here when whoever started this process is gone before it said that all is well; tells whether that
/// was said.
pub(super) fn tether(stop: CancellationToken) -> Arc<AtomicBool> {
    let released = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let released = Arc::clone(&released);
        move || match io::stdin().lock().read_exact(&mut [0]) {
            Ok(()) => released.store(true, Ordering::Relaxed),
            Err(_ended) => stop.cancel(),
        }
    });
    released
}

/// Starts this node in the background and waits until it answers. What it says goes to its log file; when it
/// ends instead, its own error becomes ours.
pub(super) fn start_detached(
    session: &Session,
    paths: &Paths,
    flags: &[String],
) -> Result<ReadyLine, Failure> {
    if let Some(owner) = wattle_store::read_owner(&paths.data_dir) {
        return Err(crate::run::already_running(&paths.node, paths.home.as_deref(), Some(&owner)).into());
    }
    // A mistake in the config is said here, where somebody reads it.
    files::load_config(paths)?;
    let created = paths.key_file().symlink_metadata().is_err();
    let (log, offset) = open_log(&paths.log_file)?;
    let begun = Instant::now();
    let mut child = spawn(session, flags, &log)?;
    let waiting = session.block_on(await_ready(session, &mut child));
    match waiting {
        Ok(Some(status)) => Ok(ReadyLine {
            kind: ReadyKind::Ready,
            ts: Timestamp::now(),
            schema: RunSchema::V1,
            name: status.node.name,
            id: status.node.id,
            network: status.network.name,
            listen: status.network.listen,
            api: status.api.socket,
            url: status.api.url,
            pid: status.node.pid,
            created,
            ready_ms: as_ms(begun.elapsed()),
        }),
        Ok(None) => Err(of_child(&mut child, paths, offset)),
        Err(failure) => {
            // Ignored because a child that ended by itself is as good.
            drop(child.kill());
            drop(child.wait());
            Err(failure)
        }
    }
}

fn spawn(session: &Session, flags: &[String], log: &File) -> Result<Child, Failure> {
    let failed =
        |error: io::Error| ErrorDocument::new(ErrorCode::Failed, format!("cannot start myself: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("--node").arg(session.globals.node.as_str()).arg("--color=never");
    if let Some(home) = &session.globals.home {
        command.arg("--home").arg(home);
    }
    command.args((0..session.globals.verbose).map(|_| "-v")).arg("run").args(flags);
    // A process group of its own: Ctrl-C at this terminal is not for the node.
    command.process_group(0).stdin(Stdio::null());
    let output = log.try_clone().map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    Ok(command.stdout(output).stderr(errors).spawn().map_err(failed)?)
}

/// The log file to append to, and its length now.
fn open_log(path: &Path) -> Result<(File, u64), Failure> {
    if let Some(parent) = path.parent() {
        files::private_dir(parent)?;
    }
    if path.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1")).map_err(|error| of_io("rename", path, &error))?;
    }
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let log = opened.map_err(|error| of_io("open", path, &error))?;
    let length = log.metadata().map_err(|error| of_io("read", path, &error))?.len();
    Ok((log, length))
}

/// The status of the child once it answers; `None` when it ended.
async fn await_ready(session: &Session, child: &mut Child) -> Result<Option<StatusDocument>, Failure> {
    let client = Client::here(session)?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(_ended)) => return Ok(None),
            Err(error) => {
                return Err(ErrorDocument::new(ErrorCode::Failed, format!("lost the node: {error}")).into());
            }
        }
        if let Ok(answer) = client.get::<StatusDocument>(routes::STATUS).await
            && answer.document.node.pid == child.id()
        {
            return Ok(Some(answer.document));
        }
        if let Some(limit) = session.timeout().filter(|limit| begun.elapsed() >= *limit) {
            let message = format!("timed out after {} waiting for the node to be ready", short(limit));
            let log = format!("{} run", session.program());
            return Err(advise(ErrorDocument::new(ErrorCode::Timeout, message), "watch it", &log, "").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The error of a child that ended, read back from what it wrote.
fn of_child(child: &mut Child, paths: &Paths, offset: u64) -> Failure {
    let status = child.wait().ok().and_then(|status| status.code());
    let code = ErrorCode::ALL.into_iter().find(|code| Some(i32::from(code.exit())) == status);
    let mut said = String::new();
    if let Ok(mut log) = File::open(&paths.log_file)
        && log.seek(SeekFrom::Start(offset)).is_ok()
    {
        // Ignored because what could be read is shown, and no more.
        drop(log.take(1 << 20).read_to_string(&mut said));
    }
    let mut document = error_in(&said, code.unwrap_or(ErrorCode::Failed));
    document = document.detail("log", tilde(&paths.log_file));
    document.into()
}

/// The last error in a log, in the layout of the catalogue.
fn error_in(log: &str, code: ErrorCode) -> ErrorDocument {
    let mut lines: Vec<&str> = log.lines().collect();
    let Some(start) = lines.iter().rposition(|line| line.starts_with("error: ")) else {
        let last = lines.pop().unwrap_or("it said nothing");
        return ErrorDocument::new(code, format!("the node ended at once: {last}"));
    };
    let message = lines[start].strip_prefix("error: ").unwrap_or_default();
    let rows = lines[start + 1..].iter().map_while(|line| line.strip_prefix("  "));
    rows.fold(ErrorDocument::new(code, message), |document, row| match row.split_at_checked(13) {
        Some((label, text)) if label.ends_with(' ') && !text.starts_with(' ') => {
            document.detail(label.trim(), text)
        }
        _ => document.detail("", row),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_background_node_is_read_back_as_it_was_written() {
        let document =
            advise(ErrorDocument::new(ErrorCode::Conflict, "port 7710 is taken"), "see", "wattle status", "")
                .detail("", "another program listens there");
        let log = format!("starting\n{}\n", super::super::errors::to_text(&document, false));
        let read = error_in(&log, ErrorCode::Conflict);
        assert_eq!((read.message, read.details), (document.message, document.details));
        let silent = error_in("", ErrorCode::Failed);
        assert_eq!(silent.message, "the node ended at once: it said nothing");
    }

    #[test]
    fn flags_reach_the_background_node_unchanged() {
        let args = Run {
            detach: true,
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            bootstrap: Vec::new(),
            no_mdns: true,
            faults: None,
            tethered: false,
        };
        assert_eq!(flags_of(&args), ["--listen=/ip4/127.0.0.1/tcp/0", "--no-mdns"]);
        assert_eq!(overrides(&args).len(), 2);
    }
}
