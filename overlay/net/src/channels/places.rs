//! Who has how many channels open, and which connections stay for their sake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wattle_types::NodeId;
use wattle_types::limits::CHANNELS_PER_PEER_MAX;

use super::ChannelKind;
use super::frames::Core;
use crate::Misbehaviour;
use crate::event::Watchers;

/// The open channels of every peer. One entry for each peer that has any.
#[derive(Clone)]
pub(crate) struct Places(Arc<Mutex<State>>);

struct State {
    watchers: Watchers,
    /// How many places were ever taken.
    counted: u64,
    open: BTreeMap<NodeId, Open>,
    /// What to end when the node stops, by place; `None` once it has.
    cores: Option<BTreeMap<u64, Weak<Core>>>,
}

/// The channels of one peer.
struct Open {
    since: u64,
    ours: usize,
    theirs: BTreeMap<ChannelKind, usize>,
}

/// One channel's place; free again when it is dropped.
pub(crate) struct Place {
    places: Places,
    number: u64,
    peer: NodeId,
    /// The kind, when the peer opened it.
    theirs: Option<ChannelKind>,
}

impl Places {
    pub(crate) fn new(watchers: Watchers) -> Self {
        let (open, cores) = (BTreeMap::new(), Some(BTreeMap::new()));
        Self(Arc::new(Mutex::new(State { watchers, counted: 0, open, cores })))
    }

    /// A place for a channel that this node opened.
    pub(crate) fn of_ours(&self, peer: NodeId) -> Place {
        let mut state = self.lock();
        let (number, open) = state.entry(peer);
        open.ours = open.ours.saturating_add(1);
        Place { places: self.clone(), number, peer, theirs: None }
    }

    /// A place for a channel that the peer opened, unless it has as many as it may.
    pub(crate) fn of_peer(&self, peer: NodeId, kind: ChannelKind) -> Option<Place> {
        let mut state = self.lock();
        let (number, open) = state.entry(peer);
        let theirs = open.theirs.entry(kind).or_default();
        if *theirs >= CHANNELS_PER_PEER_MAX {
            state.watchers.complain(peer, Misbehaviour::OverQuota("channels"));
            return None;
        }
        *theirs += 1;
        Some(Place { places: self.clone(), number, peer, theirs: Some(kind) })
    }

    /// The peers whose connections an open channel keeps: all that this node opened one to, and of the others
    /// so many, the eldest.
    pub(crate) fn woven(&self, others_max: usize) -> BTreeSet<NodeId> {
        let state = self.lock();
        let ours = state.open.iter().filter(|(_, open)| open.ours > 0).map(|(peer, _)| *peer);
        let theirs = state.open.iter().filter(|(_, open)| open.ours == 0);
        let mut theirs: Vec<(u64, NodeId)> = theirs.map(|(peer, open)| (open.since, *peer)).collect();
        theirs.sort_unstable();
        ours.chain(theirs.into_iter().map(|(_, peer)| peer).take(others_max)).collect()
    }

    /// Ends all channels, and those that are still to come. A stream that somebody holds keeps its connection
    /// open, swarm or no swarm.
    pub(crate) fn close(&self) {
        let cores = self.lock().cores.take().unwrap_or_default();
        for core in cores.into_values().filter_map(|core| core.upgrade()) {
            core.end(Vec::new());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters cannot be left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn entry(&mut self, peer: NodeId) -> (u64, &mut Open) {
        self.counted = self.counted.saturating_add(1);
        let new = Open { since: self.counted, ours: 0, theirs: BTreeMap::new() };
        (self.counted, self.open.entry(peer).or_insert(new))
    }
}

impl Place {
    /// Has this channel end when the node stops; false when it has stopped.
    pub(super) fn belongs_to(&self, core: Weak<Core>) -> bool {
        self.places.lock().cores.as_mut().is_some_and(|cores| {
            cores.insert(self.number, core);
            true
        })
    }

    /// Reports that the peer broke a rule over this channel.
    pub(super) fn complain(&self, what: Misbehaviour) {
        self.places.lock().watchers.complain(self.peer, what);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        if let Some(cores) = &mut state.cores {
            cores.remove(&self.number);
        }
        let Some(open) = state.open.get_mut(&self.peer) else { return };
        let count = match self.theirs {
            Some(kind) => open.theirs.entry(kind).or_default(),
            None => &mut open.ours,
        };
        *count = count.saturating_sub(1);
        if open.ours == 0 && open.theirs.values().all(|count| *count == 0) {
            state.open.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;
    use crate::Event;

    const KIND: ChannelKind = ChannelKind::Documents;

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    #[test]
    fn a_third_place_of_one_peer_is_refused_and_reported_until_one_is_free() {
        let (sender, mut watcher) = broadcast::channel(8);
        let places = Places::new(Watchers::new(sender));
        let held = [places.of_peer(node(1), KIND).unwrap(), places.of_peer(node(1), KIND).unwrap()];
        assert!(watcher.try_recv().is_err());
        assert!(places.of_peer(node(1), KIND).is_none());
        let reported = watcher.try_recv().unwrap();
        assert!(
            matches!(reported, Event::Misbehaved { peer, what: Misbehaviour::OverQuota("channels") } if peer == node(1))
        );
        assert!(places.of_peer(node(2), KIND).is_some(), "another peer has places of its own");
        let _ours = places.of_ours(node(1));
        drop(held);
        assert!(places.of_peer(node(1), KIND).is_some());
    }

    #[test]
    fn a_crowd_of_strangers_weaves_only_its_eldest_and_nobody_is_left_behind() {
        let places = Places::new(Watchers::new(broadcast::channel(8).0));
        let ours = places.of_ours(node(9));
        let mut theirs: Vec<Place> =
            [4, 3, 2, 1].map(|number| places.of_peer(node(number), KIND).unwrap()).into();
        assert_eq!(places.woven(2), BTreeSet::from([node(9), node(4), node(3)]));
        drop(theirs.remove(0));
        assert_eq!(places.woven(2), BTreeSet::from([node(9), node(3), node(2)]));
        drop((ours, theirs));
        assert!(places.woven(2).is_empty() && places.lock().open.is_empty());
    }
}
