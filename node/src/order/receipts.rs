//! Receipts as files: one JSON object that holds the proof and the entry that it is of, and nothing that it does not
//! prove.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wattle_order::{Committee, Entry, InvalidEntry, InvalidReceipt, Receipt, Seen, transaction_hash};

use super::disk::Place;

/// Why a file is no receipt that holds. The fault of who made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    /// Not a receipt at all.
    #[error("not a receipt: {0}")]
    Malformed(String),
    /// It has the proof of another entry than the one in it.
    #[error("the receipt proves another entry than the one that it holds")]
    OtherEntry,
    /// What it holds is no entry.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// It proves nothing.
    #[error(transparent)]
    Invalid(#[from] InvalidReceipt),
}

/// A receipt as a file: the fields of the proof, in the order in which other programs hash them, and the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptFile {
    /// The proof.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// The entry, in hexadecimal.
    pub entry: String,
}

impl ReceiptFile {
    /// Of an entry.
    #[must_use]
    pub fn new(receipt: Receipt, entry: &[u8]) -> Self {
        Self { receipt, entry: HEXLOWER.encode(entry) }
    }

    /// As a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data with text for keys is always JSON.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// A receipt that holds, and what it says.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Where the entry stands.
    pub place: Place,
    /// The entry.
    pub entry: Entry,
    /// The proof.
    pub receipt: Receipt,
    /// Who voted in its epoch.
    pub committee: Committee,
}

/// Checks a file against the beginning of its log.
///
/// # Errors
/// [`BadReceipt`] with the first thing that does not hold.
pub fn check(genesis: &Committee, value: &Value) -> Result<Sound, BadReceipt> {
    let malformed = |why: String| BadReceipt::Malformed(why);
    let file = ReceiptFile::deserialize(value).map_err(|error| malformed(error.to_string()))?;
    // Nothing stands in it that the proof does not cover.
    if serde_json::to_value(&file).ok().as_ref() != Some(value) {
        return Err(malformed("it says more than a receipt does, or otherwise".to_owned()));
    }
    let ReceiptFile { receipt, entry } = file;
    let entry = HEXLOWER.decode(entry.as_bytes());
    let entry = entry.map_err(|_not_hex| malformed("its entry is not in hexadecimal".to_owned()))?;
    if transaction_hash(&entry) != receipt.transaction {
        return Err(BadReceipt::OtherEntry);
    }
    let mut seen = Seen::new();
    let place = receipt.verify(genesis, &mut seen)?.into();
    let mut committee = genesis.clone();
    for proof in &receipt.epochs {
        committee = proof.check(&committee, &mut seen).map_err(InvalidReceipt::Rejected)?;
    }
    Ok(Sound { place, entry: Entry::decode(&entry)?, receipt, committee })
}
