//! The processes of a testnet's nodes: started, waited for, let go.
//!
//! Each node has one to itself, or they are all in one. Until everything is well a process is tethered: it ends by
//! itself when whoever started it is gone before that.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::netns;
use super::process::Process;
use super::state::{Held, Place, Row};
use crate::api::documents::{ErrorDocument, StatusDocument};
use crate::cli::errors::{Failure, advise, of_io};
use crate::cli::files;
use crate::cli::routes;
use crate::cli::values::short;
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// How often it is looked whether the nodes are ready.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// How long a process that has ended may still have its files: the last of its threads closes them.
const RELEASED_MAX: Duration = Duration::from_secs(2);

/// A process that was started, and the nodes in it.
struct Started {
    child: Child,
    rows: Vec<Row>,
    /// Where each of these logs, and where the process does; and how long that was before.
    logs: Vec<(PathBuf, u64)>,
}

/// Processes that were started and not let go yet. Dropped before that, they end.
#[derive(Default)]
pub(super) struct Batch(Vec<Started>);

impl Batch {
    /// Starts these nodes, and writes down where they are.
    pub(super) fn start(&mut self, held: &mut Held, rows: &[Row]) -> Result<(), Failure> {
        let shared = held.state.backend.shares_process();
        for rows in rows.chunks(if shared { rows.len().max(1) } else { 1 }) {
            let mut logs = Vec::new();
            for row in rows {
                logs.push(held.place.paths(&row.name)?.log_file);
            }
            logs.push(held.place.host_log());
            let length = |log: PathBuf| (log.metadata().map_or(0, |it| it.len()), log);
            let logs = logs.into_iter().map(length).map(|(length, log)| (log, length)).collect();
            let child = match rows {
                [row] if !shared => spawn_alone(held, row)?,
                rows => spawn_together(&held.place, rows)?,
            };
            let process = Process::now(child.id());
            for row in rows {
                if let Some(row) = held.row(row.index) {
                    (row.process, row.shared) = (process.clone(), shared);
                }
            }
            self.0.push(Started { child, rows: rows.to_vec(), logs });
        }
        held.save()
    }

    /// Waits until each node answers and its status is as wanted; gives these in the order of the nodes.
    pub(super) async fn wait(
        &mut self,
        place: &Place,
        wanted: impl Fn(&StatusDocument) -> bool,
    ) -> Result<Vec<StatusDocument>, Failure> {
        let rows: Vec<Row> = self.0.iter().flat_map(|started| started.rows.clone()).collect();
        let clients = rows.iter().map(|row| place.client(row)).collect::<Result<Vec<_>, _>>()?;
        let mut found: Vec<Option<StatusDocument>> = rows.iter().map(|_| None).collect();
        let begun = Instant::now();
        loop {
            for started in &mut self.0 {
                if let Ok(Some(status)) = started.child.try_wait() {
                    return Err(ended(started, status));
                }
            }
            let round = Instant::now();
            let asked = found.iter().zip(&clients).enumerate().filter(|(_, (found, _))| found.is_none());
            let asked = asked.map(|(at, (_, client))| async move {
                let answer = client.get::<StatusDocument>(routes::STATUS).await.ok()?;
                Some((at, answer.document))
            });
            let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await;
            for (at, status) in answers.into_iter().flatten().filter(|(_, status)| wanted(status)) {
                if let Some(place) = found.get_mut(at) {
                    *place = Some(status);
                }
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            if let Some(limit) = place.timeout().filter(|limit| begun.elapsed() >= *limit) {
                let late = rows.iter().zip(&found).filter(|(_, found)| found.is_none());
                let late: Vec<&str> = late.map(|(row, _)| row.name.as_str()).collect();
                let message = format!("timed out after {} waiting for {}", short(limit), late.join(", "));
                let document = ErrorDocument::new(ErrorCode::Timeout, message);
                return Err(advise(document, "give it more", "--timeout 2m", "").into());
            }
            // Many that are busy are not kept from their work by being asked.
            tokio::time::sleep(round.elapsed().max(LOOK_AGAIN)).await;
        }
    }

    /// Says to each process that all is well: it goes on without this one.
    pub(super) fn release(mut self) -> Result<(), Failure> {
        for Started { child, .. } in &mut self.0 {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(b"\n").map_err(|error| {
                    ErrorDocument::new(ErrorCode::Failed, format!("a node ended: {error}"))
                })?;
            }
        }
        self.0.clear();
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for Started { child, .. } in &mut self.0 {
            // Ignored because one that has ended already is as good.
            drop(child.kill());
        }
        for Started { mut child, .. } in self.0.drain(..) {
            drop(child.wait());
        }
    }
}

/// Starts the process of one node, which logs what the process says.
fn spawn_alone(held: &Held, row: &Row) -> Result<Child, Failure> {
    let place = &held.place;
    let log = open_log(&place.paths(&row.name)?)?;
    let mut command = Command::new(myself()?);
    if held.state.backend.has_own_network() {
        netns::make(place, row)?;
        netns::shape(place, &held.state, row)?;
        // It becomes the program that it starts, with the number it has.
        command = Command::new("ip");
        command.args(["netns", "exec", &netns::name(place, row.index)]).arg(myself()?);
    }
    prepare(&mut command, place);
    command.args(["--node", &row.name, "run", "--quiet", "--tethered", "--faults"]);
    spawn(command.arg(place.faults_file(&row.name)), log)
}

/// Starts one process for all of these nodes, each of which opens its own log.
fn spawn_together(place: &Place, rows: &[Row]) -> Result<Child, Failure> {
    let path = place.host_log();
    let opened = File::options().append(true).create(true).mode(0o600).open(&path);
    let said = opened.map_err(|error| of_io("open", &path, &error))?;
    said.try_lock_shared().map_err(|error| of_io("lock", &path, &error.into()))?;
    let mut command = Command::new(myself()?);
    prepare(&mut command, place);
    command.args(["testnet", "host"]).arg(place.faults_dir());
    spawn(command.args(rows.iter().map(|row| &row.name)), said)
}

/// This program.
fn myself() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| cannot_start(&error))
}

/// Gives a command what every node of a testnet is started with.
fn prepare(command: &mut Command, place: &Place) {
    for (name, _) in std::env::vars_os() {
        // What its user sets for other nodes is not for this one.
        if name.to_str().is_some_and(|name| name.starts_with("WATTLE_")) {
            command.env_remove(name);
        }
    }
    command.arg("--home").arg(&place.directory).arg("--color=never");
    // A process group of its own: Ctrl-C at this terminal is not for the node.
    command.process_group(0).stdin(Stdio::piped());
}

fn spawn(command: &mut Command, output: File) -> Result<Child, Failure> {
    let errors = output.try_clone().map_err(|error| cannot_start(&error))?;
    command.stdout(output).stderr(errors).spawn().map_err(|error| cannot_start(&error))
}

fn cannot_start(error: &std::io::Error) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot start myself: {error}")).into()
}

/// The log of a node, locked for as long as a process writes it: so it is known whether one does, whatever else is
/// known of it.
pub(super) fn open_log(paths: &Paths) -> Result<File, Failure> {
    let path = &paths.log_file;
    if let Some(parent) = path.parent() {
        files::private_dir(parent)?;
    }
    let opened = File::options().append(true).create(true).mode(0o600).open(path);
    let log = opened.map_err(|error| of_io("open", path, &error))?;
    let begun = Instant::now();
    while log.try_lock().is_err() {
        if begun.elapsed() > RELEASED_MAX {
            let message = format!("node \"{}\" is still running", paths.node);
            return Err(ErrorDocument::new(ErrorCode::Conflict, message)
                .hint("wattle testnet status")
                .into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(log)
}

/// A process ended instead of starting: what the node that could not start said last, or the process.
fn ended(started: &Started, status: ExitStatus) -> Failure {
    let said: Vec<Vec<String>> = started.logs.iter().map(|(log, from)| last_error(log, *from)).collect();
    let is_error = |lines: &Vec<String>| lines.first().is_some_and(|line| line.starts_with("error: "));
    let at = said.iter().position(is_error).or_else(|| said.iter().position(|lines| !lines.is_empty()));
    let name = at.and_then(|at| started.rows.get(at)).map(|row| format!("node \"{}\"", row.name));
    let is_conflict = status.code() == Some(i32::from(ErrorCode::Conflict.exit()));
    let code = if is_conflict { ErrorCode::Conflict } else { ErrorCode::Failed };
    let name = name.unwrap_or_else(|| "a node".to_owned());
    let document = ErrorDocument::new(code, format!("{name} did not start ({status})"));
    let lines = at.and_then(|at| said.get(at)).into_iter().flatten();
    lines.fold(document, |document, line| document.detail("it said", line)).into()
}

/// The last error that was said in a log after what stood there, else the last line.
fn last_error(log: &Path, from: u64) -> Vec<String> {
    let said = std::fs::read(log).unwrap_or_default();
    let said = usize::try_from(from).ok().and_then(|from| said.get(from..)).unwrap_or_default();
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().collect();
    let error = lines.iter().rposition(|line| line.starts_with("error: "));
    let start = error.unwrap_or(lines.len().saturating_sub(1));
    lines.iter().skip(start).take(5).map(|line| line.trim().to_owned()).collect()
}
