//! What of a packet is worth reading: signatures cost more than all the rest.

use std::sync::Arc;
use std::time::Duration;

use wattle_types::{NodeId, Time};

use super::Swim;
use super::claims::ACCUSERS_MAX;
use crate::claim::{RejectedClaim, ShortId, Signed};
use crate::table::Member;
use crate::view::State;
use crate::wire::{Packet, RawClaim, Rumor};

/// Packets of one member that are read, in the long run and at once. In a group of four, where everybody is told
/// everything, an honest one sends eighty a second while very much happens, and a few answers. The bill is that of the
/// signatures: a packet has up to fourteen.
const READ_EVERY: Duration = Duration::from_micros(1_000_000 / 128);
const READ_AT_ONCE: u32 = 256;

impl Swim {
    /// Whether a packet of a member is read, whose seal holds: of one that sends without end the rest is not, so that
    /// it makes nobody deaf to the others. Then it has been.
    pub fn reads(&mut self, now: Time, from: &NodeId) -> bool {
        // Whoever is not in the table cannot have sealed it for this node; its record may just have gone.
        let Some(member) = self.table.find(from).and_then(|index| self.table.get_mut(index)) else {
            return false;
        };
        if member.read_until.since(now) > READ_EVERY * (READ_AT_ONCE - 1) {
            self.counts.unread += 1;
            return false;
        }
        member.read_until = member.read_until.max(now).after(READ_EVERY);
        true
    }

    /// Whose short id it is.
    #[must_use]
    pub fn resolve(&self, short: ShortId) -> Option<NodeId> {
        if ShortId::of(&self.me) == short {
            return Some(self.me);
        }
        let index = self.table.by_short(short)?;
        self.table.get(index).map(|member| member.id)
    }

    /// Checks what a packet says, as far as it matters here: what this node holds itself was checked when it came,
    /// and is taken from here; what would teach it nothing is left out. `open` is [`Signed::open`], or one that
    /// remembers what it has checked.
    ///
    /// # Errors
    /// [`RejectedClaim`] of the first that does not hold: who passes on what it did not check is at fault.
    pub fn open(
        &self,
        mut packet: Packet<RawClaim>,
        open: &mut dyn FnMut(RawClaim) -> Result<Arc<Signed>, RejectedClaim>,
    ) -> Result<Packet<Arc<Signed>>, RejectedClaim> {
        packet.rumors.retain(|rumor| match rumor {
            Rumor::Claim(claim) => self.is_news(claim) || self.copy_of(claim).is_some(),
            Rumor::Dead(claims) => self.is_verdict(claims) || claims.iter().any(|claim| self.is_news(claim)),
            Rumor::Ask(_) => true,
        });
        packet.check(&mut |claim| match self.copy_of(&claim) {
            Some(copy) => Ok(copy),
            None => open(claim),
        })
    }

    fn known(&self, id: &NodeId) -> Option<&Member> {
        self.table.get(self.table.find(id)?)
    }

    /// This very claim, if it is here: not one byte of it can differ, since the signatures are equal and one of them
    /// holds.
    fn copy_of(&self, claim: &RawClaim) -> Option<Arc<Signed>> {
        let subject = match claim {
            RawClaim::Alive { author, .. } | RawClaim::Own { author, .. } => author,
            RawClaim::Suspect { subject, .. } | RawClaim::Remove { subject, .. } => subject,
        };
        let is_it = |held: &&Arc<Signed>| RawClaim::of(held) == *claim;
        if *subject == self.me {
            return self.record.iter().chain(&self.refutation).find(is_it).map(Arc::clone);
        }
        let member = self.known(subject)?;
        let held = match claim {
            RawClaim::Alive { .. } => Some(&member.record).filter(is_it),
            RawClaim::Own { .. } => member.since.as_ref().filter(is_it),
            RawClaim::Remove { .. } => member.removal.as_ref().filter(is_it),
            RawClaim::Suspect { .. } => member.suspicion.as_deref()?.accusers.iter().find(is_it),
        };
        held.map(Arc::clone)
    }

    /// Whether a certificate decides something here, whoever accuses in it: a suspicion that is not over.
    fn is_verdict(&self, claims: &[RawClaim]) -> bool {
        let Some(RawClaim::Suspect { subject, incarnation, .. }) = claims.first() else { return false };
        let Some(member) = self.known(subject) else { return false };
        let certified = member.suspicion.as_deref().is_some_and(|suspicion| suspicion.certified);
        member.is_live() && !certified && *incarnation >= member.incarnation
    }

    /// Whether a claim would teach this node something.
    fn is_news(&self, claim: &RawClaim) -> bool {
        use RawClaim::{Alive, Own, Remove, Suspect};
        match claim {
            // What a record says is known only once it is read.
            Alive { .. } => true,
            Own { author, incarnation, leaves, .. } => self.known(author).is_none_or(|member| {
                // What it said in passing is no proof: the signed word for it is news.
                *incarnation > member.proven() || (*leaves && *incarnation == member.incarnation)
            }),
            Remove { subject, incarnation, .. } if *subject == self.me => *incarnation == self.incarnation,
            Remove { subject, incarnation, .. } => {
                let known = self.known(subject);
                known.is_some_and(|member| *incarnation >= member.incarnation && member.removal.is_none())
            }
            Suspect { subject, incarnation, .. } if *subject == self.me => *incarnation == self.incarnation,
            Suspect { subject, incarnation, accuser, .. } => self.known(subject).is_some_and(|member| {
                let over = matches!(member.state, State::Left | State::Removed);
                let accusers = member.suspicion.as_deref().map_or(&[][..], |it| it.accusers.as_slice());
                let told = accusers.iter().any(|claim| claim.author() == *accuser);
                let counts = !over && !told && accusers.len() < ACCUSERS_MAX;
                *incarnation > member.incarnation || (*incarnation == member.incarnation && counts)
            }),
        }
    }
}
