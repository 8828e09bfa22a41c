//! `testnet exec`: a wattle command against one node, or against all at once.

use std::process::{Command, Output, Stdio};

use jiff::Timestamp;

use super::state::{Place, Row};
use crate::api::documents::ErrorDocument;
use crate::cli::documents::{TestnetExecKind, TestnetExecLine};
use crate::cli::errors::Failure;
use crate::cli::output::Meaning;
use crate::cli::session::Session;
use crate::exit::ErrorCode;

pub(super) fn exec(session: &Session, args: &super::Exec) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    let state = place.read()?;
    if args.which == "all" {
        return at_all(session, &place, &state.nodes, &args.words);
    }
    let row = state.node(&args.which)?;
    if session.out.json {
        let output =
            command(session, &place, row, &args.words)?.stdin(Stdio::null()).output().map_err(failed)?;
        show(session, row, &output)?;
        return end(std::slice::from_ref(&output));
    }
    // The terminal is the command's, to read from and to draw on.
    let status = command(session, &place, row, &args.words)?.status().map_err(failed)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Told(u8::try_from(code).unwrap_or(1))),
        None => Err(ErrorDocument::new(ErrorCode::Failed, format!("the command ended: {status}")).into()),
    }
}

fn failed(error: std::io::Error) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot start myself: {error}")).into()
}

fn command(session: &Session, place: &Place, row: &Row, words: &[String]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(home) = &session.globals.home {
        command.arg("--home").arg(home);
    }
    command.arg("--testnet").arg(format!("{}/{}", place.net, row.index)).args(words);
    Ok(command)
}

fn at_all(session: &Session, place: &Place, rows: &[Row], words: &[String]) -> Result<(), Failure> {
    let mut running = Vec::new();
    for row in rows {
        let mut command = command(session, place, row, words)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push(command.spawn().map_err(failed)?);
    }
    let mut outputs = Vec::new();
    for (row, child) in rows.iter().zip(running) {
        let output = child.wait_with_output().map_err(failed)?;
        show(session, row, &output)?;
        outputs.push(output);
    }
    end(&outputs)
}

fn show(session: &Session, row: &Row, output: &Output) -> Result<(), Failure> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if session.out.json {
        return session.out.document(&TestnetExecLine {
            kind: TestnetExecKind::Exec,
            ts: Timestamp::now(),
            index: row.index,
            name: row.name.clone(),
            exit: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        });
    }
    let ended = match output.status.code() {
        Some(0) => String::new(),
        Some(code) => format!("   exit {code}"),
        None => format!("   {}", output.status),
    };
    session.out.line(&session.out.paint(Meaning::Strong, &format!("{} {}{ended}", row.index, row.name)))?;
    for line in text(&output.stdout).lines().chain(text(&output.stderr).lines()) {
        session.out.line(&format!("  {line}"))?;
    }
    Ok(())
}

/// As the commands ended, when all ended alike.
fn end(outputs: &[Output]) -> Result<(), Failure> {
    let codes: Vec<i32> = outputs.iter().map(|output| output.status.code().unwrap_or(1)).collect();
    match codes.split_first() {
        Some((first, rest)) if rest.iter().all(|code| code == first) => match *first {
            0 => Ok(()),
            code => Err(Failure::Told(u8::try_from(code).unwrap_or(1))),
        },
        Some(_) => Err(ErrorCode::Partial.into()),
        None => Ok(()),
    }
}
