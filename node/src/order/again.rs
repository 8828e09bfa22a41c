//! What the machine is told of again after a start: the committed blocks whose entries could come a second time.
//!
//! They may be as many as were committed in two minutes. So they come a part at a time, and the next is read when the
//! machine has told of the one before: what a start takes in memory does not depend on how much was ordered.

use tokio::sync::{mpsc, watch};
use wattle_order::{Checked, Checker, Height, Proposal, Seen, payloads};
use wattle_weave::order::Input;

use super::Heard;
use super::disk::{Disk, DiskError};
use super::epochs::Now;

/// The task that tells of them.
pub(super) struct Again {
    pub(super) disk: Disk,
    pub(super) epochs: Now,
    /// Above this height.
    pub(super) above: Height,
    /// Up to there; what is committed later the machine knows itself.
    pub(super) upto: Height,
    /// Up to where the machine told of what is ordered.
    pub(super) told: watch::Receiver<Height>,
    pub(super) heard: mpsc::Sender<Heard>,
}

impl Again {
    /// Runs until the machine told of all, or the node stops.
    pub(super) async fn run(mut self) {
        while self.above < self.upto {
            let (disk, epochs, above) = (self.disk.clone(), self.epochs.clone(), self.above);
            let Ok(read) = tokio::task::spawn_blocking(move || read(&disk, &epochs, above)).await else {
                return;
            };
            let told = match read {
                Ok((input, last)) => {
                    self.above = last;
                    Heard::Log(Input::Payloads(input))
                }
                Err(error) => {
                    let why = "this node does not know what it ordered last, and will vote no more";
                    let what = format!("the log above height {above} cannot be read: {error}; {why}");
                    // Ignored because the node stops.
                    return drop(self.heard.send(Heard::Alarm(what)).await);
                }
            };
            let upto = self.above;
            if self.heard.send(told).await.is_err() || self.told.wait_for(|told| *told >= upto).await.is_err()
            {
                return;
            }
        }
    }
}

/// Some of the blocks above a height, proven, with the height of the last.
fn read(disk: &Disk, epochs: &Now, above: Height) -> Result<(payloads::Input, Height), DiskError> {
    let damaged = DiskError::Damaged { what: "chain of blocks" };
    let (blocks, end) = disk.proven(above)?;
    let (Some(end), Some(first), Some(last)) = (end, blocks.first(), blocks.last()) else {
        return Err(damaged);
    };
    let (height, epoch) = (last.header().height, last.header().epoch);
    let committee = epochs.borrow().of(epoch).cloned().ok_or(damaged.clone())?;
    if !first.header().height.follows(above) {
        return Err(damaged);
    }
    let checked = Checker::new(committee.clone()).check_chain(&mut Seen::new(), blocks, &end);
    let blocks: Vec<Checked<Proposal>> = checked.map_err(|_damaged| damaged)?;
    Ok((payloads::Input::Commit { blocks, proof: None, before: Some(committee) }, height))
}
