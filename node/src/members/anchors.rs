//! Where other members ask after this node, if packets do not reach it: at members that it is connected to.

use std::collections::BTreeSet;

use wattle_swim::{ANCHORS_MAX, MemberView, Reach, State, View};
use wattle_types::NodeId;

/// The anchors of this node.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    wanted: bool,
    connected: BTreeSet<NodeId>,
    chosen: Vec<NodeId>,
    /// Whether something happened since they were chosen.
    stale: bool,
}

impl Anchors {
    /// For a node that packets do not reach, or for one that needs none.
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// As they were chosen last.
    pub(super) fn chosen(&self) -> &[NodeId] {
        &self.chosen
    }

    pub(super) fn opened(&mut self, peer: NodeId) {
        if self.wanted {
            self.connected.insert(peer);
            self.stale = true;
        }
    }

    pub(super) fn closed(&mut self, peer: NodeId) {
        self.stale |= self.connected.remove(&peer);
    }

    /// Something changed among the members.
    pub(super) fn look_again(&mut self) {
        self.stale = self.wanted;
    }

    /// Chooses again if something happened. Whoever is one stays one while it fits: each change is told to everybody.
    /// Those that are new, if any are others than before.
    pub(super) fn choose(&mut self, view: &View) -> Option<Vec<NodeId>> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let reached = |member: &&MemberView| {
            let described = member.record.description();
            self.connected.contains(&member.id) && described.is_some_and(|it| it.reach == Reach::Public)
        };
        let fits: Vec<&MemberView> = view.members.iter().filter(reached).collect();
        let is_live = |member: &&&MemberView| matches!(member.state, State::Alive | State::Suspect);
        let live: BTreeSet<NodeId> = fits.iter().filter(is_live).map(|member| member.id).collect();
        let mut chosen: Vec<NodeId> =
            self.chosen.iter().copied().filter(|peer| live.contains(peer)).collect();
        let others = fits.iter().filter(|member| member.state == State::Alive).map(|member| member.id);
        let others: Vec<NodeId> = others.filter(|peer| !chosen.contains(peer)).collect();
        chosen.extend(others.into_iter().take(ANCHORS_MAX.saturating_sub(chosen.len())));
        let new = chosen.iter().copied().filter(|peer| !self.chosen.contains(peer)).collect();
        let before = std::mem::replace(&mut self.chosen, chosen);
        (before != self.chosen).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_bytes::ByteArray;
    use wattle_swim::{Claim, Description, Incarnation, Signed};
    use wattle_types::{NetworkName, SecretKey, UnixTime};

    use super::*;

    fn id(seed: u8) -> NodeId {
        SecretKey::from_bytes(&[seed; 32]).node_id()
    }

    fn member(seed: u8, reach: Reach, state: State) -> MemberView {
        let description = Description {
            name: String::new(),
            roles: BTreeSet::new(),
            addresses: Vec::new(),
            udp_port: 1,
            boot_key: ByteArray::new([seed; 32]),
            reach,
            anchors: Vec::new(),
            tags: std::collections::BTreeMap::new(),
        };
        let claim = Claim::Alive { incarnation: Incarnation::default(), description };
        let record = Signed::seal(&SecretKey::from_bytes(&[seed; 32]), &NetworkName::default(), &claim);
        MemberView {
            id: id(seed),
            record: Arc::new(record.unwrap()),
            state,
            since: UnixTime::from_millis(0),
            incarnation: Incarnation::default(),
            rtt: None,
            coordinate: None,
            estimate: None,
            accusers: Vec::new(),
        }
    }

    fn view(members: Vec<MemberView>) -> View {
        View { version: 1, own: None, members, self_suspect: false }
    }

    fn public(seed: u8) -> MemberView {
        member(seed, Reach::Public, State::Alive)
    }

    #[test]
    fn anchors_are_members_that_packets_reach_and_this_node_is_connected_to() {
        let mut anchors = Anchors::new(true);
        for seed in 1..6 {
            anchors.opened(id(seed));
        }
        let others = vec![
            public(1),
            member(2, Reach::Anchored, State::Alive),
            member(3, Reach::Public, State::Faulty),
            member(4, Reach::Public, State::Suspect),
            public(7),
        ];
        assert_eq!(anchors.choose(&view(others)), Some(vec![id(1)]));
        assert_eq!(anchors.choose(&view(vec![public(5)])), None, "nothing happened");
    }

    #[test]
    fn an_anchor_stays_one_until_it_is_lost_and_then_one_takes_its_place() {
        let mut anchors = Anchors::new(true);
        let all: Vec<MemberView> = (1..8).map(public).collect();
        for seed in [5, 6, 7] {
            anchors.opened(id(seed));
        }
        let first = anchors.choose(&view(all.clone())).unwrap();
        assert_eq!(first.len(), ANCHORS_MAX);
        for seed in 1..4 {
            anchors.opened(id(seed));
        }
        assert_eq!(anchors.choose(&view(all.clone())), None, "they are enough");
        anchors.closed(id(6));
        let new = anchors.choose(&view(all)).unwrap();
        assert_eq!(new.len(), 1);
        assert!(!anchors.chosen().contains(&id(6)) && anchors.chosen().contains(&id(5)));
    }

    #[test]
    fn a_node_that_packets_reach_has_no_anchors() {
        let mut anchors = Anchors::new(false);
        anchors.opened(id(1));
        anchors.look_again();
        assert_eq!(anchors.choose(&view(vec![public(1)])), None);
    }
}
