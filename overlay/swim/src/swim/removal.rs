//! Removal: an operator says that a member is gone for good.
//!
//! It takes away no vote and no chance. A member is removed where it is faulty or has left already; where it is
//! suspect the word waits for the verdict; where it is alive the word says nothing. And whoever was removed, and
//! runs, refutes with the next incarnation, as after any verdict. So a liar can hide for a while who is gone
//! anyway, under its own name, and nobody else.
//!
//! The operator is answered when the word is on this node's disk, and not before.

use std::sync::Arc;

use wattle_types::{NodeId, Outbox, Time};

use super::claims::Source;
use super::start::Phase;
use super::{Index, Output, RequestId, Swim};
use crate::claim::{Claim, Incarnation, Signed};
use crate::queue::Urgency;
use crate::table::Member;
use crate::view::{Reason, State, Why};
use crate::wire::Rumor;

/// Why it cannot be said that a member was removed. The caller's fault, or the moment's, and nothing changed; or the
/// disk's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// Nobody of that id is in the list: it never was, or it was removed before.
    #[error("it is no member")]
    Unknown,
    /// This node leaves, it is not removed.
    #[error("it is this node itself")]
    Myself,
    /// It is not gone. Where it is suspect, the verdict comes first.
    #[error("it is still there: {0:?}")]
    StillThere(State),
    /// This node takes no part: it has not started, or it has left.
    #[error("this node is no member itself")]
    NotTakingPart,
    /// The disk failed. It is removed as long as this node runs; the others may have heard it or not, and the disk is
    /// tried again.
    #[error("the word is not on disk")]
    NotOnDisk,
}

impl Swim {
    /// The operator's word.
    pub(crate) fn on_remove(
        &mut self,
        now: Time,
        request: RequestId,
        peer: &NodeId,
        out: &mut Outbox<Output>,
    ) {
        match self.remove(now, peer, out) {
            Ok(()) => {
                self.removing.push((request, *peer));
                self.due.flush = Some(now);
            }
            Err(error) => out.push(Output::Removed { request, outcome: Err(error) }),
        }
    }

    /// A batch with the words of some requests is on disk, or will not be.
    pub(crate) fn answer_removals(
        requests: Vec<RequestId>,
        outcome: Result<(), RemoveError>,
        out: &mut Outbox<Output>,
    ) {
        for request in requests {
            out.push(Output::Removed { request, outcome });
        }
    }

    fn remove(&mut self, now: Time, peer: &NodeId, out: &mut Outbox<Output>) -> Result<(), RemoveError> {
        if *peer == self.me {
            return Err(RemoveError::Myself);
        }
        if self.phase != Phase::Running {
            return Err(RemoveError::NotTakingPart);
        }
        let index = self.table.find(peer).ok_or(RemoveError::Unknown)?;
        let member = self.table.get(index).ok_or(RemoveError::Unknown)?;
        match member.state {
            State::Faulty | State::Left => {}
            State::Removed => return Err(RemoveError::Unknown),
            State::Alive | State::Suspect => return Err(RemoveError::StillThere(member.state)),
        }
        let claim = Claim::Remove { subject: *peer, incarnation: member.incarnation };
        let signed = Signed::seal(&self.config.key, &self.config.network, &claim);
        let signed = signed.ok_or(RemoveError::Unknown)?;
        self.become_removed(now, index, Arc::new(signed), out);
        Ok(())
    }

    /// Another member's operator said so.
    pub(crate) fn on_removal(
        &mut self,
        now: Time,
        claim: Arc<Signed>,
        incarnation: Incarnation,
        source: Source,
        out: &mut Outbox<Output>,
    ) {
        let Some(index) = self.table.find(&claim.subject()) else { return };
        if !self.is_current(now, index, incarnation, source, out) {
            return;
        }
        // What comes over a stream may be hours old, and who said it may be gone itself since.
        if !matches!(source, Source::Stream(_)) && !self.is_trusted(&claim.author()) {
            self.counts.untrusted += 1;
            return;
        }
        let Some(member) = self.table.get_mut(index).filter(|member| member.removal.is_none()) else {
            return;
        };
        match member.state {
            State::Faulty | State::Left => self.become_removed(now, index, claim, out),
            State::Suspect => {
                member.removal = Some(Arc::clone(&claim));
                self.tell(now, Urgency::Removal, Rumor::Claim(claim));
            }
            State::Alive | State::Removed => {}
        }
    }

    /// The verdict came after the word that waited for it.
    pub(crate) fn remove_if_told(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) {
        let waiting = self.table.get(index).and_then(|member| member.removal.clone());
        if let Some(claim) = waiting {
            self.become_removed(now, index, claim, out);
        }
    }

    fn become_removed(&mut self, now: Time, index: Index, claim: Arc<Signed>, out: &mut Outbox<Output>) {
        let at = self.unix(now);
        self.table.change(index, |member| {
            (member.state, member.at) = (State::Removed, at);
            member.removal = Some(Arc::clone(&claim));
        });
        let accusers = self.table.get(index).map(Member::removed_by).unwrap_or_default();
        let why = Why { reason: Reason::Removed, accusers, helpers: Vec::new() };
        self.changed(now, index, why, out);
        self.tell(now, Urgency::Removal, Rumor::Claim(claim));
    }
}
