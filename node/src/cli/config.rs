//! Settings: see, test, change.

use clap::{Args, Subcommand};

use super::errors::Failure;
use super::session::Session;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// See, test and change settings
#[derive(Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    Show(Show),
    Check(Check),
    Defaults(Defaults),
    Set(Set),
    Path(ConfigPath),
}

/// Show the settings in force
#[derive(Args)]
struct Show {
    /// One of them: p2p.listen
    key: Option<String>,
    /// Say where each comes from
    #[arg(long)]
    origin: bool,
}

/// Test the config file
#[derive(Args)]
struct Check {}

/// Print every key with its default and its meaning
#[derive(Args)]
struct Defaults {}

/// Change one setting in the config file
#[derive(Args)]
struct Set {
    /// Which: log.level
    key: String,
    /// A TOML value; a bare word is a string
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Print where the config file is
#[derive(Args)]
struct ConfigPath {}
pub(super) fn config(_s: &Session, _a: Config) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
