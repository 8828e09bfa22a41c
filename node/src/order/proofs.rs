//! Receipts of the blocks that were asked for last: all who wait for an entry of a block ask for it at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_bytes::ByteBuf;
use tokio::sync::OnceCell;
use wattle_order::{ChainId, EpochProof, Header, Height, Proposal, Qc, Receipt, Tree};

use super::disk::{BATCH_PLACES, DiskError, Place};

/// Blocks that are remembered, with at most 8 MiB of entries each and mostly much less.
const BLOCKS_MAX: usize = 4;

/// A committed block with all that a receipt of one of its entries says.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) block: Proposal,
    /// What it orders, by its batches, with the tree over each.
    pub(super) batches: Vec<(Vec<ByteBuf>, Tree)>,
    /// From the beginning of the log to its epoch.
    pub(super) epochs: Vec<EpochProof>,
    /// The blocks behind it, up to the one that `commit` names.
    pub(super) links: Vec<Header>,
    pub(super) commit: Qc,
}

impl Proven {
    /// The receipt of an entry, with the entry; none if nothing stands there.
    fn receipt(&self, chain: ChainId, place: Place) -> Option<(Receipt, Vec<u8>)> {
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (batch, index) = (number(place.index / BATCH_PLACES), number(place.index % BATCH_PLACES));
        let (entries, tree) = self.batches.get(batch)?;
        let entry = entries.get(index)?;
        let (of, end) =
            ((self.block.header(), &self.block.block.payload), (self.links.clone(), self.commit.clone()));
        let receipt = Receipt::new(chain, self.epochs.clone(), of, (batch, index), tree, end)?;
        Some((receipt, entry.to_vec()))
    }
}

type Slot = Arc<OnceCell<Arc<Proven>>>;

/// The blocks that were asked for last, newest first.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<VecDeque<(Height, Slot)>>);

impl Proofs {
    fn slot(&self, height: Height) -> Slot {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = blocks.iter().find(|(at, _)| *at == height) {
            return Arc::clone(&known.1);
        }
        let slot = Slot::default();
        blocks.push_front((height, Arc::clone(&slot)));
        blocks.truncate(BLOCKS_MAX);
        slot
    }

    /// The receipt of an entry, with the entry; none if nothing stands there. `read` reads its block, once for all who
    /// ask at the same time.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) async fn receipt<F>(
        &self,
        chain: ChainId,
        place: Place,
        read: impl FnOnce(Height) -> F,
    ) -> Result<Option<(Receipt, Vec<u8>)>, DiskError>
    where
        F: Future<Output = Result<Option<Proven>, DiskError>>,
    {
        // What is not there yet may be later, and is not remembered.
        let read = async || read(place.height).await.map_err(Some)?.map(Arc::new).ok_or(None);
        match self.slot(place.height).get_or_try_init(read).await {
            Ok(proven) => Ok(proven.receipt(chain, place)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}
