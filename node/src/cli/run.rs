//! `run`: the node in this process, or in the background.

use clap::Args;

use super::errors::Failure;
use super::session::Session;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

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
}
pub(super) fn run(_s: &Session, _a: Run) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
