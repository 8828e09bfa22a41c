//! Topics: publish, subscribe, ask and answer.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, part};
use super::errors::{Failure, of_io};
use super::session::Session;
use super::table::{Table, tame};
use super::values::Span;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// Publish and subscribe
#[derive(Args)]
pub(super) struct Topic {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    Pub(Pub),
    Sub(Sub),
    List(List),
    Request(Request),
    Reply(Reply),
}

/// Publish messages
#[derive(Args)]
struct Pub {
    /// Words joined by dots: sensors.kitchen
    topic: String,
    /// The message; `-` (or nothing) reads stdin, one message a line
    #[arg(allow_hyphen_values = true)]
    message: Option<String>,
    /// Messages on stdin end with a zero byte instead of a line end
    #[arg(short = '0', long)]
    null: bool,
    /// Publish it N times
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Wait D between messages
    #[arg(short, long, value_name = "D")]
    interval: Option<Span>,
    /// Publish a file as one message
    #[arg(short, long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
}

/// Print messages as they arrive
#[derive(Args)]
struct Sub {
    /// Topics; `*` stands for one word, a last `>` for the rest (quote them)
    #[arg(required = true)]
    topic: Vec<String>,
    /// Stop after N messages; then --timeout applies
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Payloads only, each followed by a line end
    #[arg(long)]
    raw: bool,
}

/// List the topics this node follows or publishes to
#[derive(Args)]
struct List {
    /// Show the peers of each mesh
    #[arg(long)]
    mesh: bool,
}

/// Ask on a topic and print the first answer
#[derive(Args)]
struct Request {
    /// Where to ask
    topic: String,
    /// The question; `-` reads stdin
    #[arg(allow_hyphen_values = true)]
    message: String,
}

/// Answer requests on a topic with the output of a command
#[derive(Args)]
struct Reply {
    /// Where to answer; wildcards allowed
    topic: String,
    /// Run by `sh -c` for each request: the request is its stdin, its stdout the answer
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Stop after N answers
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn topic(session: &Session, args: Topic) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Pub(args) => publish(session, &args).await,
        TopicCommand::Sub(args) => subscribe(session, &args).await,
        TopicCommand::List(args) => list(session, &args).await,
        TopicCommand::Request(args) => request(session, &args).await,
        TopicCommand::Reply(args) => reply(session, &args).await,
    }
}
async fn publish(_s: &Session, _a: &Pub) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
async fn subscribe(_s: &Session, _a: &Sub) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
async fn list(_s: &Session, _a: &List) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
async fn request(_s: &Session, _a: &Request) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
async fn reply(_s: &Session, _a: &Reply) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
