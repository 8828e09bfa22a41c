//! What is done to nodes: `kill`, `pause`, `resume`, `restart`, `add`, `remove`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::process::Signal;

use super::process::{Look, Process};
use super::start::{Batch, LOOK_AGAIN};
use super::state::{Held, NODES_MAX, Place, Row};
use super::{links, netns, ordered, up};
use crate::api::documents::{
    ErrorDocument, MembersRemoveDocument, MembersRemoveRequest, StopDocument, StopRequest,
};
use crate::cli::documents::{
    TestnetDone, TestnetNodesDocument, TestnetNodesSchema, TestnetPhase, TestnetStanding,
};
use crate::cli::errors::{Failure, advise};
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::exit::ErrorCode;

/// How long a node may take to say goodbye before it is killed.
const GOODBYE_MAX: Duration = Duration::from_secs(4);

pub(super) fn change(session: &Session, which: &super::Nodes, done: TestnetDone) -> Result<(), Failure> {
    let mut held = Place::named(session, which.net.name.as_ref())?.hold()?;
    let rows = held.chosen(&which.nodes)?;
    take(session, &mut held, &rows, done)?;
    finish(session, held, done, &rows)
}

/// Does it.
pub(super) fn take(
    session: &Session,
    held: &mut Held,
    rows: &[Row],
    done: TestnetDone,
) -> Result<(), Failure> {
    match done {
        TestnetDone::Killed => kill(held, rows),
        TestnetDone::Paused => pause(held, rows),
        TestnetDone::Resumed => resume(session, held, rows),
        TestnetDone::Restarted => restart(session, held, rows),
        TestnetDone::Removed => remove(session, held, rows),
        TestnetDone::Added => Ok(()),
    }
}

/// What was done, as one would type it.
pub(super) fn words(done: TestnetDone, nodes: &[u32]) -> String {
    let names: Vec<String> = nodes.iter().map(u32::to_string).collect();
    format!("{} {}", verb(done), names.join(" "))
}

fn finish(session: &Session, mut held: Held, done: TestnetDone, rows: &[Row]) -> Result<(), Failure> {
    let nodes: Vec<u32> = rows.iter().map(|row| row.index).collect();
    let names: Vec<String> = nodes.iter().map(u32::to_string).collect();
    let at = held.state.note(words(done, &nodes));
    held.save()?;
    let document = TestnetNodesDocument {
        schema: TestnetNodesSchema::V1,
        name: held.state.name.clone(),
        done,
        at,
        nodes,
    };
    session.show_own(&document, |document| Shown { text: text_of(document, rows), ids: names.clone() })
}

const fn verb(done: TestnetDone) -> &'static str {
    match done {
        TestnetDone::Killed => "kill",
        TestnetDone::Paused => "pause",
        TestnetDone::Resumed => "resume",
        TestnetDone::Restarted => "restart",
        TestnetDone::Added => "add",
        TestnetDone::Removed => "remove",
    }
}

fn text_of(document: &TestnetNodesDocument, rows: &[Row]) -> String {
    let word = match document.done {
        TestnetDone::Killed => "killed",
        TestnetDone::Paused => "frozen",
        TestnetDone::Resumed => "thawed",
        TestnetDone::Restarted => "running again",
        TestnetDone::Added => "added",
        TestnetDone::Removed => "removed",
    };
    let at = clock(document.at);
    let names: Vec<String> = rows.iter().map(|row| format!("{} {}", row.index, row.name)).collect();
    format!("{word} at {at}: {}\n", names.join(", "))
}

fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

fn not_running(held: &Held, row: &Row) -> Failure {
    let document =
        ErrorDocument::new(ErrorCode::Conflict, format!("node {} ({}) does not run", row.index, row.name));
    let restart = format!("wattle testnet restart --name {} {}", held.state.name, row.index);
    advise(document, "start it", &restart, "").into()
}

/// That what is to be done to a process is meant for every node in it.
fn check_alone(held: &Held, rows: &[Row], done: TestnetDone) -> Result<(), Failure> {
    for (process, all) in held.place.processes(&held.state.nodes) {
        let meant = |row: &&Row| rows.iter().any(|meant| meant.index == row.index);
        let Some(row) = all.iter().find(meant) else { continue };
        let others = all.iter().filter(|row| !meant(row)).count();
        if others == 0 {
            continue;
        }
        let word = verb(done);
        let message = format!(
            "cannot {word} node {} ({}) alone: it is in process {} with {others} others",
            row.index, row.name, process.pid
        );
        let document = ErrorDocument::new(ErrorCode::Conflict, message)
            .detail("end it", format!("wattle -t {}/{} stop", held.state.name, row.index))
            .detail("or all", format!("wattle testnet {word} --name {} all", held.state.name));
        let apart = "wattle testnet up 5 --backend process";
        return Err(advise(document, "have each", apart, "in a process of its own").into());
    }
    Ok(())
}

pub(super) fn kill(held: &mut Held, rows: &[Row]) -> Result<(), Failure> {
    check_alone(held, rows, TestnetDone::Killed)?;
    for (process, _) in held.place.processes(rows) {
        end(&process, Signal::KILL)?;
    }
    for row in rows {
        if let Some(row) = held.row(row.index) {
            row.process = None;
        }
    }
    Ok(())
}

/// Ends nodes as if each said goodbye: the processes that have only these in them, and in others these alone.
fn stop(session: &Session, held: &Held, rows: &[Row]) -> Result<(), Failure> {
    let all = held.place.processes(&held.state.nodes);
    for (process, here) in held.place.processes(rows) {
        let is_whole = all.iter().any(|(other, all)| *other == process && all.len() == here.len());
        if is_whole {
            end(&process, Signal::TERM)?;
        } else {
            // A frozen one hears nothing.
            process.signal(Signal::CONT);
            session.block_on(stop_within(&held.place, &here))?;
        }
    }
    Ok(())
}

/// Has nodes end by themselves, and waits until each has.
async fn stop_within(place: &Place, rows: &[Row]) -> Result<(), Failure> {
    let each = rows.iter().map(|row| async move {
        let client = place.client(row)?;
        match client.post::<StopDocument>(routes::STOP, &StopRequest { now: false }).await {
            // It is on its way already.
            Err(Failure::Error(document)) if document.code == ErrorCode::NoNode => {}
            told => drop(told?),
        }
        let log = place.paths(&row.name)?.log_file;
        let begun = Instant::now();
        while matches!(wattle_store::lock_file(&log), Ok(None)) {
            if begun.elapsed() > GOODBYE_MAX {
                let message = format!("node {} ({}) does not end", row.index, row.name);
                return Err(Failure::from(ErrorDocument::new(ErrorCode::Failed, message)));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    });
    futures::future::join_all(each).await.into_iter().collect()
}

/// Ends a process and waits until it is gone.
fn end(process: &Process, signal: Signal) -> Result<(), Failure> {
    process.signal(signal);
    // A frozen one hears nothing else.
    process.signal(Signal::CONT);
    let begun = Instant::now();
    while process.look() != Look::Gone {
        if begun.elapsed() > GOODBYE_MAX {
            process.signal(Signal::KILL);
        }
        if begun.elapsed() > GOODBYE_MAX * 2 {
            let message = format!("process {} does not end", process.pid);
            return Err(ErrorDocument::new(ErrorCode::Failed, message).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(super) fn pause(held: &Held, rows: &[Row]) -> Result<(), Failure> {
    check_alone(held, rows, TestnetDone::Paused)?;
    signal(held, rows, Signal::STOP, Look::Running)
}

pub(super) fn resume(session: &Session, held: &Held, rows: &[Row]) -> Result<(), Failure> {
    signal(held, rows, Signal::CONT, Look::Frozen)?;
    // What was done to links meanwhile: others may be in the same process.
    let is_meant =
        |(_, all): &(Process, Vec<Row>)| all.iter().any(|row| rows.iter().any(|it| it.index == row.index));
    let thawed = held.place.processes(&held.state.nodes).into_iter().filter(is_meant);
    let thawed: Vec<Row> = thawed.flat_map(|(_, all)| all).collect();
    session.block_on(links::apply(&held.place, &held.state, &thawed)).map(drop)
}

/// Sends a signal to the process of each, and waits until it does as before no longer.
fn signal(held: &Held, rows: &[Row], signal: Signal, before: Look) -> Result<(), Failure> {
    for row in rows {
        let process = held.place.process(row).ok_or_else(|| not_running(held, row))?;
        process.signal(signal);
        let begun = Instant::now();
        while process.look() == before && begun.elapsed() < GOODBYE_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

pub(super) fn restart(session: &Session, held: &mut Held, rows: &[Row]) -> Result<(), Failure> {
    stop(session, held, rows)?;
    held.place.write_faults(&held.state)?;
    let turn = up::Turn::take();
    start(session, held, rows)?;
    drop(turn);
    held.state.phase = TestnetPhase::Up;
    Ok(())
}

/// Starts nodes and waits until they answer; when one does not, none of them runs. When somebody else takes a port
/// before a node does, all of it is begun again with other ports. Gives the nodes as they are then.
fn start(session: &Session, held: &mut Held, rows: &[Row]) -> Result<Vec<Row>, Failure> {
    let mut attempt = 1;
    loop {
        let rows = up::move_off_taken_ports(held, rows)?;
        let mut batch = Batch::default();
        let begun = batch.start(held, &rows);
        let begun = begun.and_then(|()| session.block_on(batch.wait(&held.place, |_| true)));
        match begun {
            Ok(_) => {
                held.note_memory(&rows);
                batch.release()?;
                return Ok(rows);
            }
            Err(Failure::Error(error)) if error.code == ErrorCode::Conflict && attempt < up::ATTEMPTS => {
                attempt += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Those that run now.
fn running(held: &Held) -> Vec<Row> {
    let runs = |row: &&Row| held.place.standing(row) == TestnetStanding::Running;
    held.state.nodes.iter().filter(runs).cloned().collect()
}

pub(super) fn add(session: &Session, args: &super::Add) -> Result<(), Failure> {
    let mut held = Place::named(session, args.net.name.as_ref())?.hold()?;
    let rows = grow(session, &mut held, args.count)?;
    finish(session, held, TestnetDone::Added, &rows)
}

/// More nodes, connected to those that run. When one of them does not start, all is as it was.
pub(super) fn grow(session: &Session, held: &mut Held, count: u32) -> Result<Vec<Row>, Failure> {
    let more = held.state.nodes.len() as u64 + u64::from(count);
    if count == 0 || more > u64::from(NODES_MAX) {
        let message = format!("a testnet has 1 to {NODES_MAX} nodes, and this one would have {more}");
        return Err(ErrorDocument::new(ErrorCode::Usage, message).into());
    }
    let before = held.state.clone();
    let turn = up::Turn::take();
    let rows = (0..count).map(|_| up::new_row(held)).collect::<Result<Vec<_>, _>>();
    let added = rows.and_then(|rows| {
        rows.iter().try_for_each(|row| up::write_config(held, row))?;
        held.place.write_faults(&held.state)?;
        let others = running(held);
        let rows = start(session, held, &rows)?;
        session.block_on(introduce(held, &rows, &others))?;
        Ok(rows)
    });
    drop(turn);
    if added.is_err() {
        let new: Vec<Row> = held.state.nodes.iter().filter(|row| row.index >= before.next).cloned().collect();
        kill(held, &new)?;
        new.iter().try_for_each(|row| forget(held, row))?;
        held.state = before;
        held.save()?;
    }
    added
}

/// New nodes and those that were there get to know each other, and what is done to the links between them.
async fn introduce(held: &Held, new: &[Row], others: &[Row]) -> Result<(), Failure> {
    links::apply(&held.place, &held.state, others).await?;
    let all: Vec<Row> = others.iter().chain(new).cloned().collect();
    up::name_all(&held.place, new, &all).await?;
    up::name_all(&held.place, others, new).await?;
    ordered::join(&held.place, new).await
}

fn remove(session: &Session, held: &mut Held, rows: &[Row]) -> Result<(), Failure> {
    if rows.len() >= held.state.nodes.len() {
        let document = ErrorDocument::new(ErrorCode::Conflict, "that is every node of it");
        let down = format!("wattle testnet down --name {}", held.state.name);
        return Err(advise(document, "stop it", &down, "").into());
    }
    stop(session, held, rows)?;
    for row in rows {
        forget(held, row)?;
        held.state.nodes.retain(|other| other.index != row.index);
        leave_groups(held, row.index);
    }
    held.save()?;
    held.place.write_faults(&held.state)?;
    let others = running(held);
    session.block_on(withdraw(held, rows, &others))
}

/// A node that is no more is in no group and has no links.
fn leave_groups(held: &mut Held, index: u32) {
    held.state.node_faults.retain(|fault| fault.node != index);
    held.state.links.retain(|shape| shape.between.is_none_or(|ends| !ends.contains(&index)));
    if let Some(partition) = &mut held.state.partition {
        for group in &mut partition.groups {
            group.retain(|member| *member != index);
        }
    }
}

/// Takes who is gone out of the lists of those that stay.
async fn withdraw(held: &Held, gone: &[Row], others: &[Row]) -> Result<(), Failure> {
    let Some(other) = others.first() else { return Ok(()) };
    let client = held.place.client(other)?;
    for row in gone {
        let request = MembersRemoveRequest { peer: row.id.to_string() };
        // Ignored because a node that nobody knew, or that is still suspect, leaves the lists by itself or stands
        // there as gone.
        drop(client.post::<MembersRemoveDocument>(routes::MEMBERS_REMOVE, &request).await);
    }
    Ok(())
}

/// Takes the files of a node away.
fn forget(held: &Held, row: &Row) -> Result<(), Failure> {
    let paths = held.place.paths(&row.name)?;
    up::remove_socket(&paths);
    netns::remove(&held.place, row.index)?;
    let directories = [
        Some(paths.data_dir.as_path()),
        paths.config_file.parent(),
        paths.log_file.parent(),
        Some(&paths.runtime_dir),
    ];
    for directory in directories.into_iter().flatten() {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(crate::cli::errors::of_io("remove", directory, &error).into());
            }
            _ => {}
        }
    }
    // Ignored because it is no harm to anybody.
    drop(std::fs::remove_file(held.place.faults_file(&row.name)));
    Ok(())
}
