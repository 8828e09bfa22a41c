//! Peers: who is connected, connecting, names, blocks, ping.

use clap::{Args, Subcommand, ValueEnum};

use super::client::part;
use super::errors::{Failure, Report};
use super::session::Session;
use super::table::{Table, tame};
use super::values::{Span, bytes, millis, short};
use crate::exit::Exit;

/// Dial a peer or an address
#[derive(Args)]
pub(super) struct Connect {
    /// A petname, short id, full id, multiaddr or ticket
    #[arg(value_name = "MULTIADDR|PEER")]
    peer: String,
}

/// Drop the connection to a peer
#[derive(Args)]
pub(super) struct Disconnect {
    /// A petname, short id or full id
    peer: String,
}

/// List connections; give names, block
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Peers {
    #[command(subcommand)]
    command: Option<PeersCommand>,
    /// Known peers too, not only connected ones
    #[arg(short, long)]
    all: bool,
    /// Show it again and again
    #[arg(short, long)]
    watch: bool,
    /// In which order
    #[arg(long, value_name = "BY", default_value = "name")]
    sort: Sort,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    /// Names first, then ids
    Name,
    /// Nearest first
    Rtt,
    /// Longest connected first
    Up,
    /// Most traffic first
    Traffic,
}

#[derive(Subcommand)]
enum PeersCommand {
    Name(Name),
    Block(Block),
    Unblock(Unblock),
}

/// Give a peer a name that only this node knows
#[derive(Args)]
struct Name {
    /// A petname, short id or full id
    peer: String,
    /// The name; an empty one forgets it
    name: String,
}

/// Drop a peer and refuse it from now on
#[derive(Args)]
struct Block {
    /// A petname, short id or full id
    peer: String,
}

/// Let a blocked peer in again
#[derive(Args)]
struct Unblock {
    /// A petname, short id or full id
    peer: String,
}

/// Measure round trips to a peer, and show which path they took
#[derive(Args)]
pub(super) struct Ping {
    /// A petname, short id, full id or multiaddr
    peer: String,
    /// How many
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    count: u32,
    /// Time between two
    #[arg(short, long, value_name = "D", default_value = "1s")]
    interval: Span,
}
pub(super) async fn connect(_s: &Session, _a: &Connect) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn disconnect(_s: &Session, _a: &Disconnect) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn peers(_s: &Session, _a: Peers) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
pub(super) async fn ping(_s: &Session, _a: &Ping) -> Result<(), Failure> { Err(Report::new(Exit::Failed, "not yet").into()) }
