//! Registers in the ordered log: anybody appends a line, and everybody reads the same.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::part;
use super::errors::Failure;
use super::routes;
use super::session::{Session, Shown};
use super::table::{Table, tame};
use super::topic::payload_text;
use super::values::{clock, short};
use crate::api::documents::{
    Bytes, RegisterAppendDocument, RegisterAppendRequest, RegisterDocument, RegistersDocument,
};

/// Lists of lines that everybody reads alike, in the ordered log
#[derive(Args)]
pub(super) struct Register {
    #[command(subcommand)]
    command: RegisterCommand,
}

#[derive(Subcommand)]
enum RegisterCommand {
    Append(Append),
    Read(Read),
    List(List),
}

/// Append a line; prints its number
#[derive(Args)]
struct Append {
    /// To which register; it begins with its first line
    register: String,
    /// What it says; `-` (or nothing) reads stdin
    #[arg(allow_hyphen_values = true)]
    line: Option<String>,
}

/// Print lines, in their order
#[derive(Args)]
struct Read {
    /// Which
    register: String,
    /// From this number on; the newest without
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// So many at most
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
}

/// Which registers there are
#[derive(Args)]
struct List {}

pub(super) async fn register(session: &Session, args: Register) -> Result<(), Failure> {
    match args.command {
        RegisterCommand::Append(args) => append(session, args).await,
        RegisterCommand::Read(args) => read(session, &args).await,
        RegisterCommand::List(List {}) => list(session).await,
    }
}

fn path(register: &str) -> String {
    format!("{}/{}", routes::REGISTERS, part(register))
}

async fn append(session: &Session, args: Append) -> Result<(), Failure> {
    let line = match args.line.as_deref() {
        Some(line) if line != "-" => line.as_bytes().to_vec(),
        _ => session.stdin().await?,
    };
    let request = RegisterAppendRequest { line_b64: Bytes(line), timeout_ms: session.timeout_ms() };
    let client = session.client()?;
    let answer = client.post::<RegisterAppendDocument>(&path(&args.register), &request).await?;
    session.show(&answer, |answer| {
        let (took, register) = (short(Duration::from_millis(answer.took_ms)), tame(&answer.register));
        let (height, index) = (answer.height, answer.index);
        let text = format!("{register} {}   h={height} i={index}   after {took}\n", answer.number);
        Shown { text, ids: vec![answer.number.to_string()] }
    })
}

async fn read(session: &Session, args: &Read) -> Result<(), Failure> {
    let from = args.from.map(|from| format!("from={from}"));
    let count = args.count.map(|count| format!("count={count}"));
    let query: Vec<String> = from.into_iter().chain(count).collect();
    let path = format!("{}?{}", path(&args.register), query.join("&"));
    let answer = session.client()?.get::<RegisterDocument>(&path).await?;
    session.show(&answer, |answer| {
        let ids = answer.lines.iter().map(|line| line.number.to_string()).collect();
        if answer.lines.is_empty() {
            return Shown { text: format!("no lines there; it has {}\n", answer.count), ids };
        }
        let row = |line: &crate::api::documents::RegisterLine| {
            format!("{}  {}  {}\n", line.number, clock(line.time), payload_text(&line.line_b64.0))
        };
        Shown { text: answer.lines.iter().map(row).collect(), ids }
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<RegistersDocument>(routes::REGISTERS).await?;
    session.show(&answer, |answer| {
        let ids = answer.registers.iter().map(|row| row.register.clone()).collect();
        if answer.registers.is_empty() {
            let text = format!("no registers up to height {} of the log\n", answer.height);
            return Shown { text, ids };
        }
        let mut table = Table::new(&["REGISTER", ">LINES"]);
        for row in &answer.registers {
            table.row([tame(&row.register), row.count.to_string()]);
        }
        Shown { text: table.render(), ids }
    })
}
