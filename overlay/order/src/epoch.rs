//! How one epoch leads to the next.

use serde::{Deserialize, Serialize};

use crate::block::Header;
use crate::certificate::Qc;
use crate::check::{Rejected, Seen};
use crate::committee::{Anchor, Committee, Validators};
use crate::ids::Epoch;
use crate::limits::EPOCH_LINKS_MAX;

/// The proof that an epoch ended, and with whom the next begins.
///
/// The last block of an epoch is the one that names the next validators, whichever certificate commits it: so all
/// agree on it, though some saw it committed by a certificate that others never saw. Blocks behind it in the same
/// epoch are empty and count for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochProof {
    /// The last block of the epoch.
    pub header: Header,
    /// Who votes in the next.
    pub next: Validators,
    /// The blocks behind it, up to the one that `commit` names; none if that is the last block itself.
    pub links: Vec<Header>,
    /// A quorum of the epoch commits the block, or one behind it.
    pub commit: Qc,
}

impl EpochProof {
    /// The epoch that it ends.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The next epoch, if this proves it to those who know the one before.
    ///
    /// # Errors
    /// [`Rejected`] when it is not of this epoch, or the block is not committed, or names others.
    pub fn check(&self, committee: &Committee, seen: &mut Seen) -> Result<Committee, Rejected> {
        let names = self.header.next == Some(self.next.digest());
        if !names || self.header.epoch != committee.epoch() || self.links.len() > EPOCH_LINKS_MAX {
            return Err(Rejected::Inconsistent("epoch proof"));
        }
        let mut last = self.header.id();
        for link in &self.links {
            if link.parent != last || link.epoch != committee.epoch() {
                return Err(Rejected::Inconsistent("link of the epoch proof"));
            }
            last = link.id();
        }
        if self.commit.data.commit.is_none_or(|commit| commit.block != last) {
            return Err(Rejected::Inconsistent("commit of the epoch proof"));
        }
        seen.check_qc(committee, &self.commit)?;
        Ok(committee.succeeded(self.next.clone(), self.anchor()))
    }

    pub(crate) fn anchor(&self) -> Anchor {
        let Header { height, executed, time, .. } = self.header;
        Anchor { block: self.header.id(), height, executed, time }
    }
}
