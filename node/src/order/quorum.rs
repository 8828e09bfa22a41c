//! Whether the log can commit now, and who is missing, as far as this node can tell. Pure.
//!
//! This only says something early and by name; what is committed the certificates alone decide.

use std::time::Duration;

use wattle_order::{Committee, Status};
use wattle_swim::{State, View as Members};
use wattle_types::{NodeId, UnixTime};

use super::view::View;

/// In a round that timed out everybody says so again, every second or so: who is not heard for so long is not there.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// Who could vote now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Who is there, this node among them if it votes.
    pub reachable: Vec<NodeId>,
    /// Who is not, and why we think so.
    pub missing: Vec<(NodeId, String)>,
    /// Whether those who are there are enough.
    pub holds: bool,
    /// How many are enough, if all count alike.
    pub needed: usize,
}

/// Judges by streams, membership, and whether anything is heard while a round does not end. `is_connected` is asked
/// only on a node that follows, which has no streams of its own.
#[must_use]
pub fn quorum(
    committee: &Committee,
    me: NodeId,
    view: &View,
    members: &Members,
    now: UnixTime,
    is_connected: impl Fn(NodeId) -> bool,
) -> Quorum {
    let mut quorum = Quorum { needed: needed(committee), ..Quorum::default() };
    let votes = committee.seat(&me).is_some();
    // While nothing waits the log rests, and nobody has anything to say. Those who only now hear that it should not
    // give the round its time first.
    let patience = SILENT_AFTER + view.status.round_timeout;
    let stalled = view.expired_age.is_some_and(|age| age > patience);
    for validator in &view.validators {
        if validator.id == me {
            match silenced(&view.status) {
                Some(why) => quorum.missing.push((me, why.to_owned())),
                None => quorum.reachable.push(me),
            }
            continue;
        }
        let member = members.members.iter().find(|member| member.id == validator.id);
        let since = member.map(|member| now.since(member.since));
        let state = member.map(|member| member.state);
        let reach = validator.reach.unwrap_or_default();
        let silent = reach.heard.is_none_or(|heard| heard > SILENT_AFTER);
        let why = match state {
            Some(State::Faulty) => Some(aged("faulty", since)),
            Some(State::Left | State::Removed) => Some("left".to_owned()),
            Some(State::Suspect) if !votes || !reach.up => Some(aged("suspect", since)),
            _ if votes && !reach.up => Some("not connected".to_owned()),
            _ if votes && stalled && silent => Some(aged("silent", reach.heard)),
            Some(State::Alive) => None,
            _ if !votes && !is_connected(validator.id) => Some("not connected".to_owned()),
            _ => None,
        };
        match why {
            Some(why) => quorum.missing.push((validator.id, why)),
            None => quorum.reachable.push(validator.id),
        }
    }
    quorum.holds = committee.is_quorum(quorum.reachable.iter().filter_map(|id| committee.seat(id)));
    quorum
}

/// Why a validator votes no more, if that is so; that it starts or catches up ends by itself.
#[must_use]
pub fn silenced(status: &Status) -> Option<&'static str> {
    let reasons = [
        (status.halted, "stopped: the log contradicts itself"),
        (status.failed, "its disk failed"),
        (status.quarantined, "it found another result than the others"),
        (!status.validator, "its key signed elsewhere, or it lost what it signed"),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
}

fn aged(what: &str, since: Option<Duration>) -> String {
    since.map_or_else(|| what.to_owned(), |since| format!("{what} {}s", since.as_secs()))
}

/// The fewest validators that are a quorum.
#[must_use]
pub fn needed(committee: &Committee) -> usize {
    let mut weights: Vec<u64> = committee.seats().map(|seat| committee.weight(seat)).collect();
    weights.sort_unstable();
    let mut sum = 0;
    let enough = weights.iter().rev().position(|weight| {
        sum += weight;
        sum * 3 > committee.total() * 2
    });
    enough.map_or(weights.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use wattle_order::{Config, Core, Counts, Genesis, Recovered, Rules, Validator, Validators};
    use wattle_types::{NetworkName, SecretKey, Time};

    use super::*;
    use crate::order::links::Reach;
    use crate::order::view::Figures;

    const SECOND: Duration = Duration::from_secs(1);

    /// What the first of four validators judges of the others, whose channels stand, who are alive, and who were heard
    /// so long ago, when its round expired so long ago.
    fn judged(heard: Duration, expired: Option<Duration>) -> Quorum {
        judged_as(heard, expired, |_| {})
    }

    /// The same, where the machine of the first stands otherwise.
    fn judged_as(heard: Duration, expired: Option<Duration>, stand: fn(&mut Status)) -> Quorum {
        let keys: Vec<SecretKey> = (1..=4).map(|seed| SecretKey::from_bytes(&[seed; 32])).collect();
        let list = keys.iter().map(|key| Validator { id: key.node_id(), weight: 1 }).collect();
        let committee = Arc::new(Committee::genesis(&Genesis {
            network: NetworkName::default(),
            validators: Validators::new(list).unwrap(),
            rules: Rules::default(),
            created: UnixTime::from_millis(0),
        }));
        let me = keys[0].clone();
        let id = me.node_id();
        let now = Time::ZERO.after(SECOND * 60);
        let mut status = Core::new(Config::lan(), me, Recovered::none(Arc::clone(&committee))).status();
        status.expired_since = expired.map(|age| Time::ZERO.after(SECOND * 60 - age));
        stand(&mut status);
        let reach = Reach { up: true, heard: Some(heard), dropped: 0 };
        let reach: BTreeMap<NodeId, Reach> = keys[1..].iter().map(|key| (key.node_id(), reach)).collect();
        let view = Figures::new().view(
            &committee,
            (status, Counts::default(), now),
            &reach,
            (0, Vec::new()),
            Vec::new(),
        );
        let members = Members { version: 0, own: None, members: Vec::new(), self_suspect: false };
        quorum(&committee, id, &view, &members, UnixTime::from_millis(0), |_| true)
    }

    #[test]
    fn who_never_votes_is_missing_to_itself_too_and_who_starts_is_not() {
        let reachable = |stand| judged_as(SECOND, None, stand).reachable.len();
        assert_eq!(reachable(|status| (status.wary, status.syncing) = (true, true)), 4);
        assert_eq!(reachable(|status| status.quarantined = true), 3);
        assert_eq!(reachable(|status| status.failed = true), 3);
        assert_eq!(reachable(|status| status.halted = true), 3);
        let wiped = judged_as(SECOND, None, |status| status.validator = false);
        assert_eq!(wiped.missing.len(), 1);
        assert_eq!(wiped.missing[0].1, "its key signed elsewhere, or it lost what it signed");
    }

    #[test]
    fn after_a_rest_nobody_is_missed_until_there_was_time_to_say_something() {
        assert!(judged(SECOND * 50, None).holds, "the log rests");
        assert!(judged(SECOND * 50, Some(SECOND)).holds, "a round has just expired after the rest");
        assert!(judged(SECOND, Some(SECOND * 50)).holds, "they say so again and again");
        let silent = judged(SECOND * 50, Some(SECOND * 8));
        assert!(!silent.holds && silent.reachable.len() == 1, "{silent:?}");
        assert!(silent.missing.iter().all(|(_, why)| why == "silent 50s"), "{silent:?}");
    }
}
