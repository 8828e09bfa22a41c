//! The ordered log: no fork, nothing that was ordered is lost, and every node has all of it.

use std::collections::BTreeMap;

use hyper::Method;
use jiff::Timestamp;
use serde_json::json;

use super::timing::SILENCE;
use super::{Found, Scene, checks};
use crate::api::documents::{EventLine, NodeEvent, OrderBlockDocument, OrderStatusDocument};
use crate::cli::client::{Client, part, read_line};
use crate::cli::documents::TestnetCheck;
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::cli::testnet::state::{Kept, State};
use crate::exit::ErrorCode;

/// What happened in the log is asked for from the beginning.
const EVENTS: &str = "/api/v1/events?topics=order&since=0";

/// What one node shows of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) node: String,
    pub(super) height: u64,
    /// The block at its own height.
    pub(super) block: String,
    /// The block that the node with the longest log has at that height.
    pub(super) there: String,
    /// Where the entry stands that was ordered first.
    pub(super) first: Option<u64>,
    /// From which height on it keeps blocks.
    pub(super) kept_from: u64,
}

pub(super) async fn check(scene: &Scene) -> TestnetCheck {
    let Some(kept) = scene.state.log.clone() else {
        let nothing = || Found { holds: None, summary: "no log".to_owned(), evidence: Vec::new() };
        return scene.check("order", async || nothing()).await;
    };
    // How far somebody was when this began: all must come that far.
    let mut wanted = 0;
    for (_, client) in &scene.running {
        wanted = wanted.max(status(client).await.map_or(0, |status| status.height));
    }
    let mut check = scene.check("order", async || look(scene, &kept, wanted).await).await;
    if let Some((summary, sides)) = commits(scene).await {
        check.summary = format!("{summary}; {}", check.summary);
        check.evidence.insert("blocks_with_entries_while_split".to_owned(), json!(sides));
    }
    check
}

async fn status(client: &Client) -> Result<OrderStatusDocument, Failure> {
    Ok(client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document)
}

async fn block(client: &Client, at: &str) -> Result<OrderBlockDocument, Failure> {
    let path = format!("{}/{}", routes::ORDER_ENTRIES, part(at));
    Ok(client.get::<OrderBlockDocument>(&path).await?.document)
}

/// What one node shows; its name is left out.
async fn tip(
    client: &Client,
    kept: &Kept,
    (height, kept_from): (u64, u64),
    (longest, longest_from): (&Client, u64),
) -> Result<Tip, Failure> {
    let nothing = Tip { height, kept_from, ..Tip::default() };
    if height < kept_from {
        // No block stands there: the log begins, here at least.
        return Ok(nothing);
    }
    let at = height.to_string();
    let first = match block(client, &kept.entry).await {
        Ok(found) => Some(found.block.height),
        Err(Failure::Error(error)) if error.code == ErrorCode::NotFound => None,
        Err(failure) => return Err(failure),
    };
    let here = block(client, &at).await?.block.block;
    // Who is behind may be where the longest one has only a snapshot.
    let there = if height < longest_from { here.clone() } else { block(longest, &at).await?.block.block };
    Ok(Tip { block: here, there, first, ..nothing })
}

async fn look(scene: &Scene, kept: &Kept, wanted: u64) -> Found {
    let statuses =
        scene.running.iter().map(|(row, client)| async move { (row, client, status(client).await) });
    let (mut heights, mut evidence) = (Vec::new(), Vec::new());
    for (row, client, status) in futures::future::join_all(statuses).await {
        match status {
            Ok(status) if status.chain == kept.chain => {
                heights.push((row, client, (status.height, status.first)));
            }
            Ok(_other) => evidence.push((row.name.clone(), json!("it keeps another log"))),
            Err(failure) => evidence.push((row.name.clone(), json!(checks::words(&failure)))),
        }
    }
    let Some((_, longest, (_, longest_from))) =
        heights.iter().max_by_key(|(.., (height, _))| *height).copied()
    else {
        return Found { holds: Some(false), summary: "no node keeps the log".to_owned(), evidence };
    };
    let tips = heights.iter().map(|(row, client, reach)| async move {
        let tip = tip(client, kept, *reach, (longest, longest_from)).await;
        tip.map(|tip| Tip { node: row.name.clone(), ..tip }).map_err(|failure| (row.name.clone(), failure))
    });
    let mut known = Vec::new();
    for tip in futures::future::join_all(tips).await {
        match tip {
            Ok(tip) => known.push(tip),
            Err((name, failure)) => evidence.push((name, json!(checks::words(&failure)))),
        }
    }
    let unanswered = evidence.len();
    let found = judge(&known, kept.height, wanted);
    for tip in &known {
        evidence.push((
            tip.node.clone(),
            json!({ "height": tip.height, "block": tip.block, "kept_from": tip.kept_from }),
        ));
    }
    evidence.push(("forks".to_owned(), json!(found.forks)));
    evidence.push(("lost".to_owned(), json!(found.lost)));
    Found {
        holds: Some(found.is_well() && unanswered == 0),
        summary: match unanswered {
            0 => found.words(known.len()),
            _ => format!("{unanswered} of {} nodes did not say what they have", scene.running.len()),
        },
        evidence,
    }
}

/// What is wrong with what nodes show of one log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Nodes that have another block where the longest log has one.
    pub(super) forks: Vec<String>,
    /// Nodes that do not have where it stood what somebody has a receipt for.
    pub(super) lost: Vec<String>,
    /// Nodes that are not as far yet as one was.
    pub(super) behind: Vec<String>,
    height: u64,
}

/// Compares what nodes show.
pub(super) fn judge(tips: &[Tip], first: u64, wanted: u64) -> Wrong {
    let named = |wrong: &dyn Fn(&Tip) -> bool| {
        tips.iter().filter(|tip| wrong(tip)).map(|tip| tip.node.clone()).collect::<Vec<_>>()
    };
    Wrong {
        forks: named(&|tip| tip.block != tip.there),
        // Where the log was compacted it is in the snapshot's state, or nowhere: that is what was asked for.
        lost: named(&|tip| tip.kept_from <= first && first <= tip.height && tip.first != Some(first)),
        behind: named(&|tip| tip.height < wanted),
        height: tips.iter().map(|tip| tip.height).min().unwrap_or_default(),
    }
}

impl Wrong {
    const fn is_well(&self) -> bool {
        self.forks.is_empty() && self.lost.is_empty() && self.behind.is_empty()
    }

    fn words(&self, nodes: usize) -> String {
        let Self { forks, lost, behind, height } = self;
        if !forks.is_empty() {
            return format!("FORK: {} have another block", forks.join(", "));
        }
        if !lost.is_empty() {
            return format!("an entry with a receipt is lost on {}", lost.join(", "));
        }
        if !behind.is_empty() {
            return format!("behind: {}", behind.join(", "));
        }
        format!("no fork, {nodes} of {nodes} agree at {height}")
    }
}

/// How many blocks with entries each side of the last split committed while it lasted.
async fn commits(scene: &Scene) -> Option<(String, BTreeMap<String, u64>)> {
    let last = |what: &str| scene.state.events.iter().rev().find(|event| event.what.starts_with(what));
    let (split, groups) = last("partition").map(|event| (event.at, sides_of(&scene.state, &event.what)))?;
    let healed = last("heal").map(|event| event.at).filter(|at| *at > split);
    let within = |at: &Timestamp| *at > split && healed.is_none_or(|healed| *at < healed);
    let told = scene.running.iter().map(|(row, client)| async move { (row.index, committed(client).await) });
    let mut sides: BTreeMap<String, u64> = BTreeMap::new();
    for (index, times) in futures::future::join_all(told).await {
        let side = groups.iter().find(|group| group.contains(&index))?;
        // One that came later was on no side.
        if !times.iter().any(|at| *at < split) {
            continue;
        }
        let name = side.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let count = times.iter().filter(|at| within(at)).count() as u64;
        let most = sides.entry(format!("{{{name}}}")).or_default();
        *most = count.max(*most);
    }
    let words: Vec<String> = sides.iter().map(|(side, count)| format!("{side} committed {count}")).collect();
    Some((words.join(", "), sides))
}

/// The groups of a split, from what was written down of it.
fn sides_of(state: &State, what: &str) -> Vec<Vec<u32>> {
    let group = |word: &str| -> Vec<u32> {
        word.split(',').filter_map(|node| state.node(node).ok()).map(|row| row.index).collect()
    };
    let mut groups: Vec<Vec<u32>> =
        what.split_whitespace().skip(1).map(group).filter(|group| !group.is_empty()).collect();
    let rest = state.nodes.iter().map(|row| row.index);
    let rest: Vec<u32> = rest.filter(|index| !groups.iter().any(|group| group.contains(index))).collect();
    groups.extend((!rest.is_empty()).then_some(rest));
    groups
}

async fn committed(client: &Client) -> Vec<Timestamp> {
    let mut times = Vec::new();
    let Ok(mut lines) = client.stream(Method::GET, EVENTS, None::<&()>).await else { return times };
    while let Ok(Ok(Some(line))) = tokio::time::timeout(SILENCE, lines.next()).await {
        if let Ok(EventLine { ts, event: NodeEvent::OrderCommitted { .. }, .. }) = read_line(&line) {
            times.push(ts);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(node: &str, height: u64, block: &str) -> Tip {
        Tip {
            node: node.to_owned(),
            height,
            block: block.to_owned(),
            there: block.to_owned(),
            first: Some(1),
            kept_from: 1,
        }
    }

    #[test]
    fn a_fork_a_lost_entry_and_who_is_behind_are_found() {
        let well = [tip("one", 7, "a"), tip("two", 9, "b")];
        assert!(judge(&well, 1, 7).is_well());
        assert_eq!(judge(&well, 1, 9).behind, ["one"]);
        let forked = [tip("one", 7, "a"), Tip { there: "c".to_owned(), ..tip("two", 7, "b") }];
        assert_eq!(judge(&forked, 1, 7).forks, ["two"]);
        let lost = [tip("one", 7, "a"), Tip { first: None, ..tip("two", 7, "a") }];
        assert_eq!(judge(&lost, 1, 7).lost, ["two"]);
        let moved = [Tip { first: Some(3), ..tip("one", 7, "a") }];
        assert_eq!(judge(&moved, 1, 7).lost, ["one"], "it stands elsewhere now");
        let fresh = [Tip { first: None, ..tip("two", 0, "a") }];
        assert_eq!(judge(&fresh, 1, 0).lost, [""; 0], "it may still come");
        let compacted = [Tip { first: None, kept_from: 5, ..tip("two", 7, "a") }];
        assert_eq!(judge(&compacted, 4, 7).lost, [""; 0], "it is not kept");
        assert_eq!(judge(&compacted, 5, 7).lost, ["two"], "it is kept from there on");
    }
}
