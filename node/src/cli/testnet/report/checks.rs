//! What must hold, each as a look at all nodes that run.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Value, json};
use wattle_types::NodeId;

use super::{Found, Scene, timing};
use crate::api::documents::{
    Bytes, DhtGetDocument, DhtPutDocument, DhtPutRequest, DocsDocument, MemberState, MembersDocument,
    RoomsDocument,
};
use crate::cli::client::{Client, part};
use crate::cli::documents::{TestnetCheck, TestnetStanding};
use crate::cli::errors::Failure;
use crate::cli::room;
use crate::cli::routes;
use crate::cli::values::bytes;

/// Memory may grow by this, and to twice what it was, before it counts as not flat.
const MEMORY_MORE_MAX: u64 = 64 << 20;
/// The record that a report puts and asks for.
const RECORD: &str = "testnet-report";

pub(super) fn words(failure: &Failure) -> String {
    match failure {
        Failure::Error(document) => document.message.clone(),
        _ => "it did not answer".to_owned(),
    }
}

/// Every node that nobody stopped runs.
pub(super) fn nodes(scene: &Scene) -> Found {
    let total = scene.state.nodes.len();
    let fallen: Vec<&str> = scene
        .state
        .nodes
        .iter()
        .filter(|row| row.process.is_some() && scene.place.standing(row) == TestnetStanding::Down)
        .map(|row| row.name.as_str())
        .collect();
    let running = scene.running.len();
    Found {
        holds: Some(fallen.is_empty()),
        summary: match fallen.is_empty() {
            true => format!("{running} of {total} run, and nobody fell"),
            false => format!("ended by themselves: {}", fallen.join(", ")),
        },
        evidence: vec![
            ("running".to_owned(), json!(running)),
            ("nodes".to_owned(), json!(total)),
            ("fallen".to_owned(), json!(fallen)),
        ],
    }
}

/// Each node that runs sees alive exactly those that run. Says too how fast a split and a heal were seen.
pub(super) async fn membership(scene: &Scene) -> TestnetCheck {
    let mut check = scene.check("membership", async || members(scene).await).await;
    let seen = timing::of(scene).await;
    if let Some(split) = seen.split_ms {
        check.evidence.insert("split_seen_after_ms".to_owned(), json!(split));
        check.summary.push_str(&format!(", split seen by all in {}", seconds(split)));
    }
    if let Some(healed) = seen.healed_ms {
        check.evidence.insert("healed_seen_after_ms".to_owned(), json!(healed));
        check.summary.push_str(&format!(", healed view in {}", seconds(healed)));
    }
    check
}

fn seconds(ms: u64) -> String {
    format!("{}.{}s", ms / 1000, ms % 1000 / 100)
}

async fn members(scene: &Scene) -> Found {
    let wanted: BTreeSet<NodeId> = scene.running.iter().map(|(row, _)| row.id).collect();
    let views = scene.running.iter().map(|(row, client)| async move {
        (row.name.clone(), client.get::<MembersDocument>(routes::MEMBERS).await)
    });
    let mut agreeing = 0;
    let mut evidence = Vec::new();
    for (name, view) in futures::future::join_all(views).await {
        let view = match view {
            Ok(view) => view.document,
            Err(failure) => {
                evidence.push((name, json!(words(&failure))));
                continue;
            }
        };
        let alive = view.members.iter().filter(|member| member.state == MemberState::Alive);
        let alive: BTreeSet<NodeId> = alive.map(|member| member.id).collect();
        if alive == wanted {
            agreeing += 1;
        }
        let named =
            |ids: &mut dyn Iterator<Item = &NodeId>| ids.map(|id| scene.name(*id)).collect::<Vec<_>>();
        evidence.push((
            name,
            json!({
                "alive": alive.len(),
                "not_seen": named(&mut wanted.difference(&alive)),
                "seen_but_not_running": named(&mut alive.difference(&wanted)),
            }),
        ));
    }
    let count = wanted.len();
    Found {
        holds: Some(agreeing == count && count > 0),
        summary: format!("all {count} alive on {agreeing} of {count}"),
        evidence,
    }
}

/// A document as the nodes have it.
#[derive(Default)]
struct HeldDoc {
    title: String,
    /// Its heads, by node.
    heads: BTreeMap<String, Vec<String>>,
}

/// Every document has the same heads wherever it is.
pub(super) async fn docs(scene: &Scene) -> Found {
    let asked = scene.running.iter().map(|(row, client)| async move {
        (row.name.clone(), client.get::<DocsDocument>(routes::DOCS).await)
    });
    let mut held: BTreeMap<String, HeldDoc> = BTreeMap::new();
    let mut evidence = Vec::new();
    for (name, docs) in futures::future::join_all(asked).await {
        match docs {
            Ok(docs) => {
                for doc in docs.document.docs {
                    let mut heads = doc.heads;
                    heads.sort();
                    let entry = held.entry(doc.id).or_default();
                    if !doc.title.is_empty() {
                        entry.title = doc.title;
                    }
                    entry.heads.insert(name.clone(), heads);
                }
            }
            Err(failure) => evidence.push((name, json!(words(&failure)))),
        }
    }
    let unanswered = evidence.len();
    let mut equal = 0;
    for (id, HeldDoc { title, heads: nodes }) in &held {
        let first = nodes.values().next();
        let agree = nodes.values().all(|heads| Some(heads) == first && !heads.is_empty());
        equal += usize::from(agree);
        evidence.push((id.clone(), json!({ "title": title, "equal": agree, "heads": nodes })));
    }
    let (count, of) = (held.len(), scene.running.len());
    Found {
        holds: if count == 0 && unanswered == 0 { None } else { Some(equal == count && unanswered == 0) },
        summary: match (count, unanswered) {
            (0, 0) => "no documents".to_owned(),
            (_, 0) => format!("heads equal in {equal} of {count} documents on {of} nodes"),
            _ => format!("{unanswered} of {of} nodes did not say what they hold"),
        },
        evidence,
    }
}

/// What one node shows of a room.
pub(super) struct Shown {
    pub(super) node: String,
    pub(super) messages: Vec<(String, Vec<String>)>,
}

/// What is wrong with what nodes show of one room.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Node and how many messages it lacks.
    pub(super) missing: BTreeMap<String, usize>,
    /// Node and a message that stands before one it answers to.
    pub(super) too_early: BTreeMap<String, String>,
    /// Node and a message that it shows twice.
    pub(super) twice: BTreeMap<String, String>,
}

/// Compares what nodes show of a room; gives how many messages there are in all.
pub(super) fn compare(room: &[Shown]) -> (usize, Wrong) {
    let all: BTreeSet<&String> =
        room.iter().flat_map(|shown| shown.messages.iter().map(|(id, _)| id)).collect();
    let mut wrong = Wrong::default();
    for shown in room {
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        for (id, parents) in &shown.messages {
            if parents.iter().any(|parent| all.contains(parent) && !seen.contains(parent)) {
                wrong.too_early.entry(shown.node.clone()).or_insert_with(|| id.clone());
            }
            if !seen.insert(id) {
                wrong.twice.entry(shown.node.clone()).or_insert_with(|| id.clone());
            }
        }
        let missing = all.len() - seen.len();
        if missing > 0 {
            wrong.missing.insert(shown.node.clone(), missing);
        }
    }
    (all.len(), wrong)
}

/// Every member of a room has every message of it, once, and none before what it answers to.
pub(super) async fn chat(scene: &Scene) -> Found {
    let asked = scene
        .running
        .iter()
        .map(|(row, client)| async move { (row, client, shown_by(&row.name, client).await) });
    let mut rooms: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    let mut titles: BTreeMap<String, String> = BTreeMap::new();
    let mut evidence = Vec::new();
    for (row, _, shown) in futures::future::join_all(asked).await {
        match shown {
            Ok(shown) => {
                for (id, title, shown) in shown {
                    titles.insert(id.clone(), title);
                    rooms.entry(id).or_default().push(shown);
                }
            }
            Err(failure) => evidence.push((row.name.clone(), json!(words(&failure)))),
        }
    }
    let unanswered = evidence.len();
    let (mut total, mut bad) = (0, 0);
    for (id, room) in &rooms {
        let (count, wrong) = compare(room);
        total += count;
        bad += usize::from(wrong != Wrong::default());
        let per_node: BTreeMap<&str, usize> =
            room.iter().map(|shown| (shown.node.as_str(), shown.messages.len())).collect();
        let title = titles.get(id).cloned().unwrap_or_default();
        evidence.push((
            format!("#{title}"),
            json!({ "messages": count, "shown": per_node, "missing": wrong.missing,
                    "before_what_they_answer_to": wrong.too_early, "twice": wrong.twice }),
        ));
    }
    let nothing = total == 0 && unanswered == 0 && bad == 0;
    Found {
        holds: if nothing { None } else { Some(bad == 0 && unanswered == 0) },
        summary: match (nothing, bad + unanswered) {
            (true, _) => "no messages".to_owned(),
            (false, 0) => format!("{total} of {total} messages on every node of their rooms, in order"),
            (false, _) => format!("{bad} of {} rooms differ between nodes", rooms.len()),
        },
        evidence,
    }
}

async fn shown_by(node: &str, client: &Client) -> Result<Vec<(String, String, Shown)>, Failure> {
    let mut all = Vec::new();
    for held in client.get::<RoomsDocument>(routes::ROOMS).await?.document.rooms {
        let messages = room::all(client, &held.id).await?;
        let messages = messages.into_iter().map(|message| (message.id, message.parents)).collect();
        all.push((held.id, held.name, Shown { node: node.to_owned(), messages }));
    }
    Ok(all)
}

/// A record that one node puts is found by every other.
pub(super) async fn dht(scene: &Scene) -> TestnetCheck {
    let nothing = |summary: &str| Found { holds: None, summary: summary.to_owned(), evidence: Vec::new() };
    let Some(((_, first), others)) = scene.running.split_first().filter(|(_, others)| !others.is_empty())
    else {
        return scene.check("dht", async || nothing("fewer than two nodes run")).await;
    };
    let value = format!("{} {}", scene.state.name, jiff::Timestamp::now()).into_bytes();
    let request = DhtPutRequest {
        value_b64: Bytes(value.clone()),
        mine: true,
        ttl_ms: Some(600_000),
        timeout_ms: Some(4000),
    };
    let path = format!("{}/{}", routes::DHT_RECORDS, part(RECORD));
    let mut key = None;
    scene
        .check("dht", async || {
            // Stored once: what is asked for is the same until it is found.
            if key.is_none() {
                match first.ask::<DhtPutDocument>(Method::PUT, &path, Some(&request)).await {
                    Ok(put) => key = Some(put.document.get),
                    Err(failure) => return not_stored(&failure),
                }
            }
            find(key.as_deref().unwrap_or_default(), &value, others).await
        })
        .await
}

fn not_stored(failure: &Failure) -> Found {
    let summary = format!("the record was not stored: {}", words(failure));
    Found { holds: Some(false), summary, evidence: Vec::new() }
}

async fn find(key: &str, value: &[u8], others: &[(super::Row, Client)]) -> Found {
    let path = format!("{}/{}?timeout_ms=3000", routes::DHT_RECORDS, part(key));
    let asked = others.iter().map(|(row, client)| {
        let path = path.clone();
        async move { (row.name.clone(), client.get::<DhtGetDocument>(&path).await) }
    });
    let mut found = 0;
    let mut evidence = Vec::new();
    for (name, got) in futures::future::join_all(asked).await {
        let seen: Value = match got {
            Ok(got) if got.document.record.value_b64.0 == value => {
                found += 1;
                json!({ "took_ms": got.document.took_ms })
            }
            Ok(_other) => json!("an older record"),
            Err(failure) => json!(words(&failure)),
        };
        evidence.push((name, seen));
    }
    let of = others.len();
    Found {
        holds: Some(found == of),
        summary: format!("a record found by {found} of {of} other nodes"),
        evidence,
    }
}

/// No node takes much more memory than when it was up.
pub(super) fn memory(scene: &Scene) -> Found {
    let taken = scene.place.taken(&scene.state.nodes);
    let mut grown = Vec::new();
    let (mut most, mut evidence) = (0, Vec::new());
    for (row, _) in &scene.running {
        let now = taken.get(&row.index).map(|taken| taken.rss_bytes);
        let (Some(before), Some(now)) = (row.rss_bytes, now) else { continue };
        most = now.max(most);
        if now > before.saturating_mul(2) && now > before.saturating_add(MEMORY_MORE_MAX) {
            grown.push(row.name.as_str());
        }
        evidence.push((row.name.clone(), json!({ "at_first_bytes": before, "now_bytes": now })));
    }
    let known = evidence.len();
    Found {
        holds: if known == 0 { None } else { Some(grown.is_empty()) },
        summary: match grown.is_empty() {
            true => format!("flat on {known} nodes, {} at most", bytes(most)),
            false => format!("grew on {}", grown.join(", ")),
        },
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &str, messages: &[(&str, &[&str])]) -> Shown {
        let messages = messages
            .iter()
            .map(|(id, parents)| ((*id).to_owned(), parents.iter().map(|id| (*id).to_owned()).collect()));
        Shown { node: node.to_owned(), messages: messages.collect() }
    }

    #[test]
    fn a_message_that_one_node_lacks_or_shows_too_early_or_twice_is_found() {
        let whole: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"])];
        assert_eq!(compare(&[shown("one", whole), shown("two", whole)]), (3, Wrong::default()));
        let (count, wrong) = compare(&[shown("one", whole), shown("two", &[("a", &[]), ("c", &["b"])])]);
        assert_eq!((count, wrong.missing.get("two")), (3, Some(&1)));
        let early = [shown("one", &[("b", &["a"]), ("a", &[])])];
        assert_eq!(compare(&early).1.too_early.get("one").map(String::as_str), Some("b"));
        let twice = [shown("one", &[("a", &[]), ("a", &[])])];
        assert_eq!(compare(&twice).1.twice.get("one").map(String::as_str), Some("a"));
        let unknown = [shown("one", &[("b", &["long ago"])])];
        assert_eq!(compare(&unknown).1, Wrong::default(), "what nobody has cannot be shown");
    }
}
