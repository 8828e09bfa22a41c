//! The DHT from the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::part;
use super::errors::{Failure, of_io};
use super::session::Session;
use super::table::Table;
use super::values::Span;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// The distributed hash table
#[derive(Args)]
pub(super) struct Dht {
    #[command(subcommand)]
    command: DhtCommand,
}

#[derive(Subcommand)]
enum DhtCommand {
    Put(Put),
    Get(Get),
    Provide(Provide),
    FindProviders(FindProviders),
    FindPeer(FindPeer),
    Closest(Closest),
    Table(ShowTable),
    Trace(Trace),
    Stats(Stats),
}

/// Store a record
#[derive(Args)]
struct Put {
    /// With --mine a name; else `hash:`, and the value makes the key
    key: String,
    /// The value; `-` (or nothing) reads stdin
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Store the contents of a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Sign it: only this node can change it, and the newest wins
    #[arg(long)]
    mine: bool,
    /// How long it lives, at most 48h
    #[arg(long, value_name = "D")]
    ttl: Option<Span>,
}

/// Fetch a record
#[derive(Args)]
struct Get {
    /// A record key
    key: String,
    /// Show everybody who had it
    #[arg(short, long)]
    all: bool,
    /// Write the value to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Announce that this node has or offers something
#[derive(Args)]
struct Provide {
    /// A name, or `hash:` and a hash
    key: String,
    /// No longer announce it
    #[arg(long)]
    stop: bool,
}

/// Find who announced something
#[derive(Args)]
struct FindProviders {
    /// A name, or `hash:` and a hash
    key: String,
    /// Stop after N
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    count: usize,
}

/// Find the addresses of a peer
#[derive(Args)]
struct FindPeer {
    /// A petname, short id or full id
    peer: String,
}

/// Find the peers nearest to a key, by XOR
#[derive(Args)]
struct Closest {
    /// A record key or a peer
    #[arg(value_name = "KEY|PEER")]
    target: String,
}

/// Show my routing table, bucket by bucket
#[derive(Args)]
struct ShowTable {
    /// How full each bucket is, as bars
    #[arg(long)]
    bars: bool,
}

/// Follow a lookup hop by hop
#[derive(Args)]
struct Trace {
    /// A record key or a peer
    #[arg(value_name = "KEY|PEER")]
    target: String,
    /// Draw it into FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Show queries, success and latencies since the start
#[derive(Args)]
struct Stats {}
pub(super) async fn dht(_s: &Session, _a: Dht) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
