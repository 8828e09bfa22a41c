//! This node: make it, look at it, wait for it, stop it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::errors::{Failure, Report};
use super::session::Session;
use super::values::Span;
use crate::exit::Exit;

/// Create a node's key and config (run does this for you)
#[derive(Args)]
pub(super) struct Init {
    /// The overlay to belong to
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Use this key instead of a new one
    #[arg(long, value_name = "F")]
    key_file: Option<PathBuf>,
    /// Make a private network: only who has its key can join
    #[arg(long)]
    private: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

/// Show who this node is, or what it knows of a peer
#[derive(Args)]
pub(super) struct Id {
    /// A petname, short id or full id
    peer: Option<String>,
    /// Show the id as a QR code too
    #[arg(long)]
    qr: bool,
}

/// One screen: am I up, am I connected, is anything wrong
#[derive(Args)]
pub(super) struct Status {
    /// Show it again and again
    #[arg(short, long)]
    watch: bool,
}

/// Leave politely, then stop
#[derive(Args)]
pub(super) struct Stop {
    /// Do not wait for anything
    #[arg(long)]
    now: bool,
}

/// Block until a condition holds (for scripts)
#[derive(Args)]
pub(super) struct Wait {
    /// The node answers and listens (what is waited for when nothing else is)
    #[arg(long)]
    ready: bool,
    /// It has at least N peers
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
}

/// Health verdict for monitors
#[derive(Args)]
pub(super) struct Health {
    /// For whom
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: HealthFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HealthFormat {
    /// A line for a person
    Text,
    /// A line with performance data, as Nagios and its heirs read it
    Nagios,
    /// One document
    Json,
    /// Metrics in the Prometheus text format, for a textfile collector
    Prometheus,
}

/// Read the node's log; change its level
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Logs {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only these: a level (warn), or levels by module (info,libp2p_kad=debug)
    #[arg(long, value_name = "SPEC")]
    level: Option<String>,
    /// Only what was logged in the last D
    #[arg(long, value_name = "D")]
    since: Option<Span>,
}

#[derive(Subcommand)]
enum LogsCommand {
    Level(Level),
}

/// Show or change what the running node logs
#[derive(Args)]
struct Level {
    /// Such as info,libp2p_kad=debug; without it, what is logged now
    spec: Option<String>,
}
pub(super) fn init(_s: &Session, _a: Init) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) fn id(_s: &Session, _a: Id) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) fn health(_s: &Session, _a: &Health) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn status(_s: &Session, _a: &Status) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn stop(_s: &Session, _a: &Stop) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn wait(_s: &Session, _a: &Wait) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn logs(_s: &Session, _a: Logs) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
