//! How fast the nodes saw a split and a heal, from what each remembers of its members.

use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;

use super::Scene;
use crate::api::documents::{EventLine, MemberState, NodeEvent};
use crate::cli::client::{Client, read_line};

/// A stream that is silent for this long has told everything that was.
pub(super) const SILENCE: Duration = Duration::from_millis(150);
/// What happened is asked for from the beginning.
const EVENTS: &str = "/api/v1/events?topics=members&since=0";

/// What was seen how long after it was done; absent where it was not done, or not seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) split_ms: Option<u64>,
    pub(super) healed_ms: Option<u64>,
}

/// When a member became what, as one node saw it.
type Change = (Timestamp, MemberState);

pub(super) async fn of(scene: &Scene) -> Seen {
    let last = |what: &str| {
        let found = scene.state.events.iter().rev().find(|event| event.what.starts_with(what));
        found.map(|event| event.at)
    };
    let Some(split) = last("partition") else { return Seen::default() };
    let healed = last("heal").filter(|at| *at > split);
    let asked = scene.running.iter().map(|(_, client)| changes(client));
    let changes: Vec<Change> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    Seen {
        split_ms: after(&changes, split, healed, MemberState::Faulty),
        healed_ms: healed.and_then(|healed| after(&changes, healed, None, MemberState::Alive)),
    }
}

/// From a moment until the last node saw its last member become so, before another moment.
fn after(changes: &[Change], from: Timestamp, to: Option<Timestamp>, state: MemberState) -> Option<u64> {
    let within =
        changes.iter().filter(|(at, became)| *became == state && *at > from && to.is_none_or(|to| *at < to));
    let last = within.map(|(at, _)| *at).max()?;
    u64::try_from(last.duration_since(from).as_millis()).ok()
}

async fn changes(client: &Client) -> Vec<Change> {
    let mut changes = Vec::new();
    let Ok(mut lines) = client.stream(Method::GET, EVENTS, None::<&()>).await else { return changes };
    while let Ok(Ok(Some(line))) = tokio::time::timeout(SILENCE, lines.next()).await {
        if let Ok(EventLine { ts, event: NodeEvent::Member { change, .. }, .. }) = read_line(&line) {
            changes.push((ts, change.to));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_seen_when_the_last_node_saw_its_last_member_go_and_not_what_came_after_the_heal() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let changes = [
            (at(1), MemberState::Faulty),
            (at(12), MemberState::Faulty),
            (at(14), MemberState::Faulty),
            (at(15), MemberState::Alive),
            (at(22), MemberState::Alive),
            (at(30), MemberState::Faulty),
        ];
        assert_eq!(after(&changes, at(10), Some(at(20)), MemberState::Faulty), Some(4000));
        assert_eq!(after(&changes, at(20), None, MemberState::Alive), Some(2000));
        assert_eq!(after(&changes, at(40), None, MemberState::Alive), None);
    }
}
