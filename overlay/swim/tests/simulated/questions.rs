//! What tests ask of a world, and what they let its nodes say.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_swim::{Body, Claim, Event, Input, Packet, RejectedClaim, Rumor, Signed, State};
use wattle_types::{Envelope, NetworkName, NodeId, Time};

use super::World;

impl World {
    /// Gives a node a packet as if a member had sent it with its own seal.
    pub(crate) fn say(&mut self, from: usize, to: usize, rumors: Vec<Rumor<Arc<Signed>>>) {
        let stamp = self.swim(from).incarnation().stamp();
        let packet = Packet { stamp, body: Body::Gossip, rumors };
        let from = self.nodes[from].id;
        self.handle(to, Input::Packet { from, packet });
    }

    /// A claim that a node's key signs.
    pub(crate) fn sign(&self, node: usize, claim: &Claim) -> Arc<Signed> {
        Arc::new(Signed::seal(&self.nodes[node].key, &NetworkName::default(), claim).unwrap())
    }

    /// An accusation that a node's key signs, of a member as it is known to a third.
    pub(crate) fn accusation(&self, accuser: usize, subject: usize, at: usize) -> Arc<Signed> {
        let id = self.nodes[subject].id;
        let own = (at == subject).then(|| self.swim(subject).incarnation());
        let incarnation = own.unwrap_or_else(|| self.swim(at).standing(&id).unwrap().1);
        self.sign(accuser, &Claim::Suspect { subject: id, incarnation })
    }

    /// Where a member stands at a node.
    pub(crate) fn state(&self, node: usize, subject: usize) -> Option<State> {
        let swim = self.nodes[node].swim.as_ref()?;
        swim.standing(&self.nodes[subject].id).map(|(state, _)| state)
    }

    /// Where anybody stands at a node.
    pub(crate) fn state_of(&self, node: usize, id: &NodeId) -> Option<State> {
        self.swim(node).standing(id).map(|(state, _)| state)
    }

    /// Nodes that are up.
    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.is_up(*node)).collect()
    }

    /// Whether every node that is up has every other, up or not, in a state.
    pub(crate) fn all_see(&self, subject: usize, state: State) -> bool {
        self.up().into_iter().all(|node| node == subject || self.state(node, subject) == Some(state))
    }

    /// Whether every node that is up sees all that are up alive.
    pub(crate) fn all_see_all(&self) -> bool {
        self.up().into_iter().all(|subject| self.all_see(subject, State::Alive))
    }

    /// M4: all that are up have the same table.
    pub(crate) fn agree(&self) -> bool {
        let up = self.up();
        up.windows(2).all(|pair| self.swim(pair[0]).root() == self.swim(pair[1]).root())
    }

    /// Events of a kind about a member, at a node, since a time.
    pub(crate) fn changes(&self, node: usize, subject: usize, since: Time) -> Vec<(Time, State)> {
        let of = self.nodes[subject].id;
        let events = self.nodes[node].events.iter().filter(|(at, _)| *at >= since);
        let changes = events.filter_map(|(at, event)| match event {
            Event::MemberChanged { member, to, .. } if *member == of => Some((*at, *to)),
            _ => None,
        });
        changes.collect()
    }
}

/// Claims that were checked, by all that was signed.
pub(super) type Verified = BTreeMap<Vec<u8>, Arc<Signed>>;

/// Opens a claim once for all nodes: whether it holds depends on it alone.
pub(super) fn open(verified: &mut Verified, envelope: Envelope) -> Result<Arc<Signed>, RejectedClaim> {
    let key = [envelope.author().public_key().as_slice(), envelope.body(), envelope.signature()].concat();
    if let Some(known) = verified.get(&key) {
        return Ok(Arc::clone(known));
    }
    let signed = Arc::new(Signed::open(envelope, &NetworkName::default())?);
    verified.insert(key, Arc::clone(&signed));
    Ok(signed)
}
