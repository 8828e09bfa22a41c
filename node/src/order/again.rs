//! What the machine is told of again after a start: the committed blocks whose entries could come a second time.
//!
//! They may be as many as were committed in two minutes. So they come a part at a time, and the next is read when the
//! machine has told of the one before: what a start takes in memory does not depend on how much was ordered.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use wattle_order::{Checker, Height, Seen, payloads};
use wattle_weave::order::Input;

use super::Heard;
use super::disk::{Disk, DiskError};
use super::epochs::Now;

/// How often a part is read that seems damaged.
const ATTEMPTS: usize = 3;

/// The task that tells of them.
pub(super) struct Again {
    disk: Disk,
    epochs: Now,
    /// Above this height.
    above: Height,
    /// Up to there; what is committed later the machine knows itself.
    upto: Height,
    /// Up to where the machine told of what is ordered.
    told: watch::Receiver<Height>,
    heard: mpsc::Sender<Heard>,
}

impl Again {
    /// Of all that is committed now, above where `told` begins. Reads the disk: for the start.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(super) fn new(
        disk: &Disk,
        epochs: &Now,
        told: &watch::Receiver<Height>,
        heard: &mpsc::Sender<Heard>,
    ) -> Result<Self, DiskError> {
        let (above, upto) = (*told.borrow(), disk.height()?);
        let (disk, epochs, told, heard) = (disk.clone(), epochs.clone(), told.clone(), heard.clone());
        Ok(Self { disk, epochs, above, upto, told, heard })
    }

    /// Runs until the machine told of all, or the node stops.
    pub(super) async fn run(mut self) {
        while self.above < self.upto {
            let (disk, epochs, above) = (self.disk.clone(), self.epochs.clone(), self.above);
            let reading = move || read_again(&disk, &epochs, above);
            let Ok(part) = tokio::task::spawn_blocking(reading).await else { return };
            let (blocks, last) = match part {
                Ok(part) => part,
                Err(error) => {
                    let what = format!(
                        "the log above height {above} cannot be read: {error}. This node does not know what was ordered \
                         last, and votes for no block of others: see to its disk, and start it again"
                    );
                    // Ignored because the node stops.
                    return drop(self.heard.send(Heard::Alarm(what)).await);
                }
            };
            self.above = last;
            let sent = self.heard.send(Heard::Log(Input::Payloads(blocks))).await;
            if sent.is_err() || self.told.wait_for(|told| *told >= last).await.is_err() {
                return;
            }
        }
    }
}

/// A part. While it is read others are committed, and what seems damaged may be whole a moment later.
fn read_again(disk: &Disk, epochs: &Now, above: Height) -> Result<(payloads::Input, Height), DiskError> {
    let mut part = read(disk, epochs, above);
    for _ in 1..ATTEMPTS {
        if matches!(part, Err(DiskError::Damaged { .. })) {
            part = read(disk, epochs, above);
        }
    }
    part
}

/// Some of the blocks above a height, proven, with the height of the last.
fn read(disk: &Disk, epochs: &Now, above: Height) -> Result<(payloads::Input, Height), DiskError> {
    let damaged = || DiskError::Damaged { what: "chain of blocks" };
    let (blocks, end) = disk.proven(above)?;
    let (Some(end), Some(first), Some(last)) = (end, blocks.first(), blocks.last()) else {
        return Err(damaged());
    };
    let (on, last) = (first.header().height.follows(above), last.header().clone());
    let committee = epochs.borrow().of(last.epoch).filter(|_| on).cloned().ok_or_else(damaged)?;
    let checked = Checker::new(Arc::clone(&committee)).check_chain(&mut Seen::new(), blocks, &end);
    let blocks = checked.map_err(|_damaged| damaged())?;
    Ok((payloads::Input::Commit { blocks, proof: None, before: Some(committee) }, last.height))
}
