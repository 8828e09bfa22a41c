//! The node's identity and the API's tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::documents::{KeyDocument, KeySchema};
use super::errors::Failure;
use super::files::{self, tilde};
use super::routes;
use super::session::{Session, Shown};
use super::table::{Table, tame};
use super::values::{Span, as_ms};
use crate::api::documents::{
    self, TokenDocument, TokenNewRequest, TokenRevokeRequest, TokenRevokedDocument, TokensDocument,
};

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

impl Role {
    const fn name(self) -> documents::Role {
        match self {
            Self::Read => documents::Role::Read,
            Self::User => documents::Role::User,
            Self::Admin => documents::Role::Admin,
        }
    }
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
    /// A word to know it by
    #[arg(long, value_name = "WORD")]
    label: Option<String>,
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

pub(super) fn key(session: &Session, args: Key) -> Result<(), Failure> {
    let paths = session.paths()?;
    let (key, file, said) = match args.command {
        KeyCommand::New(args) => {
            files::retire_key(&paths, args.force)?;
            (files::own_key(&paths)?, paths.key_file(), "made a new key")
        }
        KeyCommand::Show(_) => (files::read_key(&paths, &session.program())?, paths.key_file(), ""),
        KeyCommand::Export(args) => {
            let key = files::export_key(&paths, &args.file, &session.program())?;
            (key, args.file, "copied; keep it secret: whoever has it is this node")
        }
        KeyCommand::Import(args) => {
            (files::import_key(&paths, &args.file, args.force)?, paths.key_file(), "took over the key")
        }
    };
    let id = key.node_id();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let document = KeyDocument {
        schema: KeySchema::V1,
        id,
        public_key: hex(id.public_key()),
        file: file.display().to_string(),
    };
    session.show_own(&document, |document| Shown {
        text: format!(
            "{}{id}\n  public   {} (ed25519)\n  file     {}\n",
            if said.is_empty() { String::new() } else { format!("{said}\n") },
            document.public_key,
            tilde(&file)
        ),
        ids: vec![document.id.to_string()],
    })
}

pub(super) async fn token(session: &Session, args: Token) -> Result<(), Failure> {
    match args.command {
        TokenCommand::New(args) => token_new(session, &args).await,
        TokenCommand::List(_) => token_list(session).await,
        TokenCommand::Revoke(args) => token_revoke(session, args).await,
    }
}

async fn token_new(session: &Session, args: &TokenNew) -> Result<(), Failure> {
    let request = TokenNewRequest {
        role: args.role.name(),
        expires_ms: args.expires.and_then(Span::some).map(as_ms),
        label: args.label.clone(),
    };
    let answer = session.client()?.post::<TokenDocument>(routes::TOKENS, &request).await?;
    session.show(&answer, |answer| {
        let until =
            answer.expires.map(|at| format!("until {at}")).unwrap_or_else(|| "until revoked".to_owned());
        let text = format!(
            "{}\n  role {}, {until}; shown only this once\n  revoke it    wattle token revoke {}\n",
            answer.token, answer.role, answer.id
        );
        Shown { text, ids: vec![answer.token.clone()] }
    })
}

async fn token_list(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<TokensDocument>(routes::TOKENS).await?;
    session.show(&answer, |answer| {
        let ids = answer.tokens.iter().map(|token| token.id.clone()).collect();
        if answer.tokens.is_empty() {
            let text = "no tokens   (make one: wattle token new --role read)\n".to_owned();
            return Shown { text, ids };
        }
        let mut table = Table::new(&["ID", "ROLE", "MADE", "EXPIRES", "LABEL"]);
        for token in &answer.tokens {
            let expires = match token.expires {
                Some(at) if token.expired => format!("{at} (over)"),
                Some(at) => at.to_string(),
                None => "when revoked".to_owned(),
            };
            let label = tame(token.label.as_deref().unwrap_or_default());
            table.row([token.id.clone(), token.role.to_string(), token.created.to_string(), expires, label]);
        }
        Shown { text: table.render(), ids }
    })
}

async fn token_revoke(session: &Session, args: TokenRevoke) -> Result<(), Failure> {
    let request = TokenRevokeRequest { id: args.id };
    let answer = session.client()?.post::<TokenRevokedDocument>(routes::TOKENS_REVOKE, &request).await?;
    session.show(&answer, |answer| Shown {
        text: format!("token {} works no more\n", tame(&answer.id)),
        ids: vec![answer.id.clone()],
    })
}
