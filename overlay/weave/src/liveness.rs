//! Who is there, for the rest of a node: what membership tells, as the overlay, the documents and the apps hear it.
//!
//! ```text
//!             overlay                                  documents            apps
//! Here        may be dialed at once                    tried at once        told
//! Doubted     as before: the accused is not guilty     as before            told
//! Away        dialed seldom; out of the routing        not tried again      told
//!             table unless connected; a connection
//!             that answers nothing is closed
//! Gone        dialed every ten minutes; out of the     not tried again      told
//!             routing table unless connected
//! ```
//!
//! Of one that started again the connections to its earlier run are dead, whatever this side thinks of them: the
//! overlay closes them.
//!
//! While this node doubts itself it is likelier to be at fault than those it buries, and nothing is done upon a
//! verdict; that somebody is here is passed on at once. What was held back is told when the doubt is over, if it
//! still holds. The ordered log's quorum never follows from any of this.

use std::collections::BTreeMap;

use wattle_app::{AppEvent, Input as AppInput};
use wattle_swim::{Event, MEMBERS_MAX, Reason, State, View};
use wattle_types::{Liveness, NodeId};

/// A member is there in another way than was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub member: NodeId,
    /// How.
    pub liveness: Liveness,
    /// Whether it is there as a later run than before.
    pub began_again: bool,
}

/// What is held back while this node doubts itself. As many as there can be members.
#[derive(Debug, Default)]
pub struct Caution {
    doubts_itself: bool,
    held: BTreeMap<NodeId, Liveness>,
}

impl Caution {
    /// What follows from an event.
    pub fn hear(&mut self, event: &Event) -> Vec<Change> {
        match event {
            Event::MemberChanged { member, to, why, .. } => {
                let began_again = why.reason == Reason::Restarted;
                self.change(Change { member: *member, liveness: liveness_of(*to), began_again })
            }
            Event::SelfSuspect { begins: true } => {
                self.doubts_itself = true;
                Vec::new()
            }
            Event::SelfSuspect { begins: false } => {
                self.doubts_itself = false;
                let held = std::mem::take(&mut self.held).into_iter();
                held.map(|(member, liveness)| Change { member, liveness, began_again: false }).collect()
            }
            Event::Forgotten { member, .. } => {
                // It was over long ago.
                self.held.remove(member);
                Vec::new()
            }
            Event::Described { .. }
            | Event::DuplicateIdentity { .. }
            | Event::Started { .. }
            | Event::CannotStart { .. }
            | Event::Left => Vec::new(),
        }
    }

    /// What follows from a whole view, for whoever missed events.
    pub fn see(&mut self, view: &View) -> Vec<Change> {
        self.doubts_itself = view.self_suspect;
        if !self.doubts_itself {
            self.held.clear();
        }
        let members = view.members.iter();
        let change = |member: &wattle_swim::MemberView| Change {
            member: member.id,
            liveness: liveness_of(member.state),
            began_again: false,
        };
        let changes: Vec<Change> = members.map(change).collect();
        changes.into_iter().flat_map(|change| self.change(change)).collect()
    }

    fn change(&mut self, change: Change) -> Vec<Change> {
        let Change { member, liveness, .. } = change;
        if liveness.is_near() || !self.doubts_itself {
            self.held.remove(&member);
            return vec![change];
        }
        if self.held.len() < MEMBERS_MAX {
            self.held.insert(member, liveness);
        }
        Vec::new()
    }
}

/// What a member's standing is for the rest of the node.
#[must_use]
pub const fn liveness_of(state: State) -> Liveness {
    match state {
        State::Alive => Liveness::Here,
        State::Suspect => Liveness::Doubted,
        State::Faulty => Liveness::Away,
        State::Left | State::Removed => Liveness::Gone,
    }
}

/// What every app hears of it.
#[must_use]
pub const fn to_apps(change: Change) -> AppInput {
    let Change { member, liveness, .. } = change;
    AppInput::Event { kind: None, event: AppEvent::Member { member, liveness } }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wattle_swim::{Incarnation, Why};

    use super::*;

    fn member(seed: u8) -> NodeId {
        NodeId::from_public_key([seed; 32])
    }

    fn becomes(seed: u8, to: State) -> Event {
        let why = Why { reason: Reason::RanOut, accusers: Vec::new(), helpers: Vec::new() };
        let incarnation = Incarnation::default();
        Event::MemberChanged { version: 1, member: member(seed), from: None, to, incarnation, why }
    }

    fn change(seed: u8, liveness: Liveness) -> Change {
        Change { member: member(seed), liveness, began_again: false }
    }

    #[test]
    fn every_standing_is_told() {
        let mut caution = Caution::default();
        let cases = [
            (State::Alive, Liveness::Here),
            (State::Suspect, Liveness::Doubted),
            (State::Faulty, Liveness::Away),
            (State::Left, Liveness::Gone),
            (State::Removed, Liveness::Gone),
        ];
        for (state, liveness) in cases {
            assert_eq!(caution.hear(&becomes(1, state)), [change(1, liveness)]);
        }
    }

    #[test]
    fn who_started_again_is_told_of_as_a_later_run() {
        let Event::MemberChanged { version, member, from, to, incarnation, why } = becomes(1, State::Alive)
        else {
            return;
        };
        let why = Why { reason: Reason::Restarted, ..why };
        let again = Event::MemberChanged { version, member, from, to, incarnation, why };
        let told = Caution::default().hear(&again);
        assert_eq!(told, [Change { began_again: true, ..change(1, Liveness::Here) }]);
    }

    #[test]
    fn nothing_is_done_upon_verdicts_of_a_node_that_doubts_itself() {
        let mut caution = Caution::default();
        assert_eq!(caution.hear(&Event::SelfSuspect { begins: true }), []);
        assert_eq!(caution.hear(&becomes(1, State::Faulty)), []);
        assert_eq!(caution.hear(&becomes(2, State::Faulty)), []);
        assert_eq!(caution.hear(&becomes(3, State::Left)), []);
        assert_eq!(
            caution.hear(&becomes(2, State::Alive)),
            [change(2, Liveness::Here)],
            "but who is back is"
        );
        caution.hear(&Event::Forgotten { version: 2, member: member(3) });
        let after = caution.hear(&Event::SelfSuspect { begins: false });
        assert_eq!(after, [change(1, Liveness::Away)], "what still holds is told when the doubt is over");
        assert_eq!(caution.hear(&becomes(4, State::Faulty)), [change(4, Liveness::Away)]);
    }

    #[test]
    fn a_view_makes_good_what_was_missed() {
        let mut caution = Caution::default();
        caution.hear(&Event::SelfSuspect { begins: true });
        caution.hear(&becomes(1, State::Faulty));
        let view = View { version: 3, own: None, members: Vec::new(), self_suspect: false };
        assert_eq!(caution.see(&view), [], "who is not in it is no member");
        assert_eq!(caution.hear(&becomes(2, State::Faulty)), [change(2, Liveness::Away)]);
        let view = View { self_suspect: true, ..view };
        caution.see(&Arc::new(view));
        assert_eq!(caution.hear(&becomes(2, State::Faulty)), []);
    }

    #[test]
    fn every_app_hears_of_it_whatever_its_documents() {
        let AppInput::Event { kind, event } = to_apps(change(5, Liveness::Away)) else { return };
        assert_eq!(kind, None);
        assert_eq!(event, AppEvent::Member { member: member(5), liveness: Liveness::Away });
    }
}
