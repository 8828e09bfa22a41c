//! `doctor`: everything a node needs, each checked, each with what to type.

use std::path::PathBuf;

use clap::Args;

use super::errors::Failure;
use super::session::Session;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// Check everything a node needs; pack a bug report
#[derive(Args)]
pub(super) struct Doctor {
    /// Write a bug report without secrets into FILE (a tar archive)
    #[arg(long, value_name = "F")]
    bundle: Option<PathBuf>,
}
pub(super) fn doctor(_s: &Session, _a: &Doctor) -> Result<(), Failure> { Err(ErrorDocument::new(ErrorCode::Failed, "not yet").into()) }
