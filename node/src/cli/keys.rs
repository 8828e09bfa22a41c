//! The node's identity and the API's tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::errors::Failure;
use super::session::Session;
use super::values::Span;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// The identity of the node
#[derive(Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    New(KeyNew),
    Show(KeyShow),
    Export(KeyExport),
    Import(KeyImport),
}

/// Make the key of this node
#[derive(Args)]
struct KeyNew {
    /// Replace the key it has: the node becomes somebody else
    #[arg(long)]
    force: bool,
}

/// Show the public half of the key
#[derive(Args)]
struct KeyShow {}

/// Copy the key into a file of mode 0600
#[derive(Args)]
struct KeyExport {
    /// Where to; must not exist
    file: PathBuf,
}

/// Take over a key from a file
#[derive(Args)]
struct KeyImport {
    /// A file made by `key export`
    file: PathBuf,
    /// Replace the key it has
    #[arg(long)]
    force: bool,
}

/// API tokens, for browsers and programs that cannot use the socket
#[derive(Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    New(TokenNew),
    List(TokenList),
    Revoke(TokenRevoke),
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Metrics and status
    Read,
    /// Also publish, store and fetch
    User,
    /// Everything, also config, tokens and stop
    Admin,
}

/// Make a token
#[derive(Args)]
struct TokenNew {
    /// What it may do
    #[arg(long)]
    role: Role,
    /// How long it is valid; without it, until revoked
    #[arg(long, value_name = "D")]
    expires: Option<Span>,
}

/// List the tokens
#[derive(Args)]
struct TokenList {}

/// Make a token useless
#[derive(Args)]
struct TokenRevoke {
    /// Its id, as `token list` shows it
    id: String,
}
pub(super) fn key(_s: &Session, _a: Key) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
pub(super) async fn token(_s: &Session, _a: Token) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
