//! The epochs of a log: who voted in each, and what proves it to those who know how the log began.
//!
//! ```text
//! order  epoch, number -> the proof that the epoch ended, with who votes in the next
//! ```

use std::sync::Arc;

use tokio::sync::watch;
use wattle_order::{ChainEnd, Committee, Epoch, EpochProof, Genesis, Height, Proposal, Seen};
use wattle_types::{KeyRange, Table, Write, cbor};

use super::disk::{Disk, DiskError, put, read};

/// Before the number of an epoch.
pub(super) const EPOCH: &[u8] = b"epoch";

/// The epochs up to the one that is under way.
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    first: Arc<Committee>,
    /// What ended each, and who votes in the next.
    ended: Vec<(Arc<EpochProof>, Arc<Committee>)>,
}

/// The epochs, and when one begins.
pub(super) type Now = watch::Receiver<Arc<Epochs>>;

impl Epochs {
    /// The first of a log.
    pub(super) fn genesis(genesis: &Genesis) -> Self {
        Self { first: Arc::new(Committee::genesis(genesis)), ended: Vec::new() }
    }

    /// With those that these proofs lead to.
    pub(super) fn and(mut self, proofs: Vec<EpochProof>) -> Result<Self, wattle_order::Rejected> {
        let mut seen = Seen::new();
        for proof in proofs {
            let next = proof.check(self.current(), &mut seen)?;
            self = self.followed_by(proof, Arc::new(next));
        }
        Ok(self)
    }

    /// With the one that begins.
    pub(super) fn followed_by(mut self, proof: EpochProof, next: Arc<Committee>) -> Self {
        self.ended.push((Arc::new(proof), next));
        self
    }

    /// Who votes in the first.
    pub(super) const fn first(&self) -> &Arc<Committee> {
        &self.first
    }

    /// Who votes in the one that is under way.
    pub(super) fn current(&self) -> &Arc<Committee> {
        self.ended.last().map_or(&self.first, |(_, next)| next)
    }

    /// Who voted in an epoch, if it began.
    pub(super) fn of(&self, epoch: Epoch) -> Option<&Arc<Committee>> {
        let at = usize::try_from(epoch.0.checked_sub(1)?).ok()?;
        at.checked_sub(1).map_or(Some(&self.first), |at| self.ended.get(at).map(|(_, next)| next))
    }

    /// What leads from the beginning of the log to an epoch.
    pub(super) fn before(&self, epoch: Epoch) -> Vec<EpochProof> {
        let proofs = self.ended.iter().map(|(proof, _)| proof).take_while(|proof| proof.epoch() < epoch);
        proofs.map(|proof| (**proof).clone()).collect()
    }

    /// What ended the epoch of the block at a height; none if that is under way.
    pub(super) fn end_of(&self, height: Height) -> Option<&EpochProof> {
        let at = self.ended.partition_point(|(proof, _)| proof.header.height < height);
        self.ended.get(at).map(|(proof, _)| &**proof)
    }
}

/// The row of the end of an epoch.
pub(super) fn epoch_row(proof: &EpochProof) -> Write {
    let key = [EPOCH, proof.epoch().0.to_be_bytes().as_slice()].concat();
    put(Table::Order, key, cbor::encode(proof))
}

impl Disk {
    /// The epochs of a log, each proven anew.
    pub(super) fn epochs(&self, genesis: &Genesis) -> Result<Epochs, DiskError> {
        let rows = self.store().range(Table::Order, &KeyRange::prefix(EPOCH), usize::MAX)?;
        let proofs: Result<Vec<EpochProof>, DiskError> =
            rows.iter().map(|(_, row)| read("epoch", row)).collect();
        let epochs = Epochs::genesis(genesis).and(proofs?);
        epochs.map_err(|_rejected| DiskError::Damaged { what: "epoch" })
    }

    /// What proves that a committed block was the last of its epoch; none if it was not.
    pub(super) fn epoch_end(&self, block: &Proposal) -> Result<Option<EpochProof>, DiskError> {
        if block.block.next.is_none() {
            return Ok(None);
        }
        let key = [EPOCH, block.header().epoch.0.to_be_bytes().as_slice()].concat();
        let row = self.store().get(Table::Order, &key)?.ok_or(DiskError::Damaged { what: "epoch" })?;
        Ok(Some(read("epoch", &row)?))
    }

    /// Cuts committed blocks behind the last of the first one's epoch, and gives what proves that one. None where their
    /// epoch goes on.
    pub(super) fn cut(&self, blocks: &mut Vec<Proposal>) -> Result<Option<ChainEnd>, DiskError> {
        let Some(last) = blocks.iter().position(|block| block.block.next.is_some()) else { return Ok(None) };
        blocks.truncate(last.saturating_add(1));
        let proof = blocks.last().map(|last| self.epoch_end(last)).transpose()?.flatten();
        Ok(proof.map(|proof| ChainEnd::Epoch(Box::new(proof))))
    }
}
