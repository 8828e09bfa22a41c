//! Receipts: written, and checked with nothing but the genesis.

use std::path::{Path, PathBuf};

use clap::Args;

use super::genesis::{read_genesis, read_json};
use crate::api::documents::{Bytes, ErrorDocument};
use crate::api::verify_receipt;
use crate::cli::errors::{Failure, of_io};
use crate::cli::session::{Session, Shown};
use crate::exit::ErrorCode;

/// More than any receipt: an epoch's proof is a few kilobytes.
const RECEIPT_BYTES_MAX: u64 = 64 << 20;

/// Check a receipt; needs no node
#[derive(Args)]
pub(super) struct Verify {
    /// The file that `order submit --receipt` wrote
    receipt: PathBuf,
    /// How its log began
    #[arg(long, value_name = "G")]
    genesis: PathBuf,
    /// What the entry must say
    #[arg(long, value_name = "F")]
    data: Option<PathBuf>,
}

/// Writes a receipt as it came; what is there is replaced.
pub(super) fn write(file: &Path, receipt: &Bytes) -> Result<(), Failure> {
    wattle_store::replace_file(file, &receipt.0).map_err(|error| of_io("write", file, &error).into())
}

pub(super) fn verify(session: &Session, args: &Verify) -> Result<(), Failure> {
    let (genesis, _value) = read_genesis(&args.genesis)?;
    let receipt = read_json(&args.receipt, RECEIPT_BYTES_MAX, "receipt")?;
    let document = verify_receipt(&genesis, &receipt)?;
    if let Some(file) = &args.data {
        let data = std::fs::read(file).map_err(|error| of_io("read", file, &error))?;
        if data != document.data_b64.0 {
            let message = format!("invalid: the entry says something else than {}", file.display());
            let (here, there) = (document.data_b64.0.len(), data.len());
            return Err(ErrorDocument::new(ErrorCode::Invalid, message)
                .detail("it has", format!("{here} bytes, the file {there}"))
                .into());
        }
    }
    session.show_own(&document, |document| {
        let signers: Vec<String> = document.signers.iter().map(|id| format!("..{}", id.short())).collect();
        let root = document.state_root.as_deref().and_then(|root| root.get(..16));
        let root = root.map(|root| format!(", state root {root}..")).unwrap_or_default();
        let entry = document.entry.get(..16).unwrap_or_default();
        let text = format!(
            "valid: entry {entry}.. is h={} i={}, signed by {} ({} of {}){root}\n",
            document.height,
            document.index,
            signers.join(" "),
            signers.len(),
            document.of,
        );
        Shown { text, ids: vec![document.entry.clone()] }
    })
}
