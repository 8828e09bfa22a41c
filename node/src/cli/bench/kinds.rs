//! The operations: each a question of the command line's own, and where its outcome is seen.

use std::time::{Duration, Instant};

use hyper::Method;
use wattle_types::NodeId;

use super::arrivals::Arrivals;
use super::load::{Done, Load, Tally};
use crate::api::documents::{
    Bytes, DhtGetDocument, DhtPutDocument, DhtPutRequest, DocDocument, DocDoneDocument, DocEditDocument,
    DocFieldRequest, DocJoinRequest, DocLine, DocNewRequest, DocRole, DocShareRequest, DocTicketDocument,
    ErrorDocument, OrderStatusDocument, OrderSubmission, OrderSubmissionsDocument, OrderSubmissionsRequest,
    OrderSubmitDocument, OrderSubmitRequest, OrderWait, PeersDocument, PingLine, PingRequest, StatusDocument,
    TopicLine,
};
use crate::cli::client::{Client, Lines, cut_off, part, read_line};
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::cli::session::Session;
use crate::cli::topic::publish_one;
use crate::cli::values::as_ms;
use crate::exit::ErrorCode;
use crate::paths::{Environment, Paths};

/// How long the others may take, unless somebody said how long to wait.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to be heard at all.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long a record lives that nobody needs afterwards.
const RECORD_TTL: Duration = Duration::from_secs(600);

/// What a message of `gossip` begins with: its number, by which it is known where it arrives.
pub(super) const KEY_BYTES: usize = 16;

/// The node that is loaded, and the others of this machine that it can reach.
pub(super) struct Scene {
    client: Client,
    status: StatusDocument,
    /// Those of the same network in the same home: the rest of a testnet.
    others: Vec<Client>,
    validators: Option<u64>,
    /// What tells this run from others.
    nonce: String,
    timeout_ms: Option<u64>,
    others_within: Duration,
}

impl Scene {
    pub(super) async fn of(session: &Session) -> Result<Self, Failure> {
        let client = session.client()?;
        let status = client.get::<StatusDocument>(routes::STATUS).await?.document;
        let others = others(session, &status).await?;
        // Ignored because a node that keeps no log says so by this, and `bench order` itself says why.
        let order = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await.ok();
        let within = if session.patient { session.timeout() } else { None };
        Ok(Self {
            client,
            status,
            others,
            validators: order.map(|order| order.document.validators.len() as u64),
            nonce: format!("{:012x}", fastrand::u64(..) >> 16),
            timeout_ms: session.timeout_ms(),
            others_within: within.unwrap_or(OTHERS_WITHIN),
        })
    }

    /// Members that are alive for the node.
    pub(super) const fn alive(&self) -> u64 {
        self.status.members.alive
    }

    pub(super) const fn others(&self) -> usize {
        self.others.len()
    }

    pub(super) const fn validators(&self) -> Option<u64> {
        self.validators
    }

    fn need_others(&self, what: &str) -> Result<(), Failure> {
        if !self.others.is_empty() {
            return Ok(());
        }
        let message = format!("no other node of this network runs on this machine to {what}");
        let document = ErrorDocument::new(ErrorCode::NotFound, message);
        Err(document.hint("wattle testnet up 3, then: wattle -t demo/0 bench gossip").into())
    }
}

/// The other nodes that run in the same home and belong to the same network.
async fn others(session: &Session, status: &StatusDocument) -> Result<Vec<Client>, Failure> {
    let mut found = Vec::new();
    if session.globals.api.is_some() {
        // That node is somewhere else.
        return Ok(found);
    }
    let own = session.paths()?;
    for name in own.nodes_seen().into_iter().filter(|name| *name != own.node) {
        let Ok(paths) = Paths::new(&Environment::of_process(), name, own.home.as_deref()) else { continue };
        let client = Client::to(paths, session.program(), session.timeout());
        // One that does not run, or does not answer, is not here.
        if !client.answers().await {
            continue;
        }
        if let Ok(other) = client.get::<StatusDocument>(routes::STATUS).await {
            let network = &other.document.network;
            if network.name == status.network.name && network.private == status.network.private {
                found.push(client);
            }
        }
    }
    Ok(found)
}

/// So many bytes, which begin with a text and end with noise that nobody can make smaller.
fn payload(text: &str, bytes: usize) -> Vec<u8> {
    let mut payload = text.as_bytes().to_vec();
    payload.push(b' ');
    payload.extend(std::iter::repeat_with(|| fastrand::alphanumeric() as u8).take(bytes));
    payload.truncate(bytes);
    payload
}

pub(super) async fn ping(scene: &Scene, load: &Load) -> Result<Tally, Failure> {
    let peers = scene.client.get::<PeersDocument>(routes::PEERS).await?.document.peers;
    let peers: Vec<NodeId> = peers.iter().map(|peer| peer.id).collect();
    if peers.is_empty() {
        let document = ErrorDocument::new(ErrorCode::NotFound, "this node is connected to nobody");
        return Err(document.hint("wattle status").into());
    }
    let tally = load
        .run(async |_: usize, number: u64| -> Result<Done, Failure> {
            let turn = usize::try_from(number).unwrap_or(0) % peers.len();
            let took = ping_one(scene, peers[turn]).await?;
            Ok(Done { took: Some(took), parts: Vec::new() })
        })
        .await;
    Ok(tally)
}

async fn ping_one(scene: &Scene, peer: NodeId) -> Result<Duration, Failure> {
    let request = PingRequest {
        peer: peer.to_string(),
        count: Some(1),
        interval_ms: None,
        timeout_ms: scene.timeout_ms,
        until_direct: false,
    };
    let mut lines = scene.client.stream(Method::POST, routes::PING, Some(&request)).await?;
    let Some(raw) = lines.next().await? else { return Err(cut_off()) };
    match read_line::<PingLine>(&raw)? {
        PingLine::Reply { rtt_ms, .. } => Ok(Duration::from_secs_f64(rtt_ms.max(0.0) / 1000.0)),
        PingLine::Lost { error, .. } => Err(error.into()),
        PingLine::Done { .. } => Err(cut_off()),
    }
}

pub(super) async fn gossip(scene: &Scene, load: &Load, bytes: usize) -> Result<Tally, Failure> {
    scene.need_others("hear what this one says")?;
    let topic = format!("bench.{}", scene.nonce);
    let arrivals = Arrivals::default();
    for other in &scene.others {
        let path = routes::messages(std::slice::from_ref(&topic));
        let mut lines = other.stream(Method::GET, &path, None::<&()>).await?;
        lines.next().await?.ok_or_else(cut_off)?;
        tokio::spawn(hear(lines, arrivals.clone()));
    }
    let count = scene.others.len();
    // Nodes tell each other first what they follow. What is said before that is no part of the figures.
    let heard = async {
        for number in 0_u64.. {
            let key = format!("w{number:015}");
            publish_one(&scene.client, &topic, payload(&key, KEY_BYTES)).await?;
            if arrivals.all(&key, count, TRY_AGAIN).await.is_ok() {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    tokio::time::timeout(scene.others_within, heard).await.map_err(|_elapsed| {
        let message = "the other nodes of this machine do not hear this one";
        Failure::from(ErrorDocument::new(ErrorCode::Timeout, message).hint("wattle topic list --mesh"))
    })??;
    let tally = load
        .run(async |_: usize, number: u64| -> Result<Done, Failure> {
            let started = Instant::now();
            let key = format!("{number:016}");
            publish_one(&scene.client, &topic, payload(&key, bytes)).await?;
            let last = arrivals.all(&key, count, scene.others_within).await?;
            Ok(Done { took: Some(last.saturating_duration_since(started)), parts: Vec::new() })
        })
        .await;
    Ok(tally)
}

/// Notes what one subscriber hears, until its stream ends.
async fn hear(mut lines: Lines, arrivals: Arrivals) {
    while let Ok(Some(raw)) = lines.next().await {
        if let Ok(TopicLine::Message(message)) = read_line::<TopicLine>(&raw)
            && let Some(key) =
                message.data_b64.0.get(..KEY_BYTES).and_then(|key| std::str::from_utf8(key).ok())
        {
            arrivals.note(key.to_owned());
        }
    }
}

pub(super) async fn dht(scene: &Scene, load: &Load, bytes: usize) -> Result<Tally, Failure> {
    // Who stored a record has it: another one has to look for it.
    let reader = scene.others.first().unwrap_or(&scene.client);
    let tally = load
        .run(async |client: usize, number: u64| -> Result<Done, Failure> {
            let value = payload(&format!("{} {number}", scene.nonce), bytes);
            let started = Instant::now();
            let request = DhtPutRequest {
                value_b64: Bytes(value.clone()),
                mine: true,
                ttl_ms: Some(as_ms(RECORD_TTL)),
                timeout_ms: scene.timeout_ms,
            };
            // A name for each client: the last record of a name is the one to be found.
            let name = format!("bench-{}-{client}", scene.nonce);
            let path = format!("{}/{}", routes::DHT_RECORDS, part(&name));
            let put = scene.client.ask::<DhtPutDocument>(Method::PUT, &path, Some(&request)).await?.document;
            let stored = started.elapsed();
            let mut path = format!("{}/{}", routes::DHT_RECORDS, part(&put.get));
            path.push_str(&scene.timeout_ms.map(|ms| format!("?timeout_ms={ms}")).unwrap_or_default());
            let got = reader.get::<DhtGetDocument>(&path).await?.document;
            if got.record.value_b64.0 != value {
                let message = "an older record was found than the one that was stored";
                return Err(ErrorDocument::new(ErrorCode::Failed, message).into());
            }
            let found = started.elapsed() - stored;
            Ok(Done { took: None, parts: vec![("put ms", stored), ("get ms", found)] })
        })
        .await;
    Ok(tally)
}

/// A document that this node edits and the others watch.
struct Shared {
    id: String,
    arrivals: Arrivals,
}

pub(super) async fn doc(scene: &Scene, load: &Load, bytes: usize) -> Result<Tally, Failure> {
    scene.need_others("have what this one writes")?;
    let mut shared = Vec::new();
    let mut made = Ok(());
    while made.is_ok() && shared.len() < load.clients {
        made = share(scene, &mut shared).await;
    }
    let tally = match made {
        Ok(()) => {
            Ok(load.run(async |client, number| edit(scene, &shared[client], number, bytes).await).await)
        }
        Err(failure) => Err(failure),
    };
    // Nothing of it stays, whatever came of it.
    for client in std::iter::once(&scene.client).chain(&scene.others) {
        for one in &shared {
            let path = routes::doc(&one.id, "forget");
            // Ignored because a node that is gone or never had it has nothing to forget.
            drop(client.post::<DocDoneDocument>(&path, &serde_json::json!({})).await);
        }
    }
    tally
}

/// A new document, on every node, and watched there.
async fn share(scene: &Scene, shared: &mut Vec<Shared>) -> Result<(), Failure> {
    let request = DocNewRequest { title: format!("bench {}", scene.nonce), text_b64: None };
    let id = scene.client.post::<DocDocument>(routes::DOCS, &request).await?.document.doc.id;
    let arrivals = Arrivals::default();
    // Before anything else can fail: it is to be forgotten in any case.
    shared.push(Shared { id: id.clone(), arrivals: arrivals.clone() });
    let request = DocShareRequest { role: DocRole::Reader, expires_ms: None, uses: None };
    let ticket = scene.client.post::<DocTicketDocument>(&routes::doc(&id, "tickets"), &request).await?;
    for other in &scene.others {
        let timeout_ms = Some(as_ms(scene.others_within));
        let request = DocJoinRequest { ticket: ticket.document.ticket.clone(), timeout_ms };
        other.post::<DocDocument>(routes::DOCS_JOIN, &request).await?;
        let path = routes::doc(&id, "changes?since=");
        let mut lines = other.stream(Method::GET, &path, None::<&()>).await?;
        lines.next().await?.ok_or_else(cut_off)?;
        tokio::spawn(watch(lines, arrivals.clone()));
    }
    Ok(())
}

/// Notes which versions one node comes to, until its stream ends.
async fn watch(mut lines: Lines, arrivals: Arrivals) {
    while let Ok(Some(raw)) = lines.next().await {
        if let Ok(DocLine::Changed { heads, .. }) = read_line::<DocLine>(&raw) {
            arrivals.note(version(heads));
        }
    }
}

/// Heads as one text.
fn version(mut heads: Vec<String>) -> String {
    heads.sort();
    heads.join(",")
}

async fn edit(scene: &Scene, shared: &Shared, number: u64, bytes: usize) -> Result<Done, Failure> {
    let started = Instant::now();
    let text = String::from_utf8_lossy(&payload(&number.to_string(), bytes)).into_owned();
    let request = DocFieldRequest { path: "bench".to_owned(), value: text.into() };
    let path = routes::doc(&shared.id, "fields");
    let edit = scene.client.post::<DocEditDocument>(&path, &request).await?.document;
    let count = scene.others.len();
    let last = shared.arrivals.all(&version(edit.after), count, scene.others_within).await?;
    Ok(Done { took: Some(last.saturating_duration_since(started)), parts: Vec::new() })
}

pub(super) async fn order(scene: &Scene, load: &Load, bytes: usize) -> Result<Tally, Failure> {
    let tally = load
        .run(async |_: usize, number: u64| -> Result<Done, Failure> {
            if load.together > 1 {
                return submit_all(scene, number, load.together, bytes).await;
            }
            let request = OrderSubmitRequest {
                data_b64: Bytes(payload(&format!("bench {} {number}", scene.nonce), bytes)),
                wait: OrderWait::Commit,
                timeout_ms: scene.timeout_ms,
                ..OrderSubmitRequest::default()
            };
            scene.client.post::<OrderSubmitDocument>(routes::ORDER_ENTRIES, &request).await?;
            Ok(Done::default())
        })
        .await;
    Ok(tally)
}

/// A request of many entries. It is done when all of them are ordered.
async fn submit_all(scene: &Scene, number: u64, together: u32, bytes: usize) -> Result<Done, Failure> {
    let entry = |one: u32| OrderSubmission {
        data_b64: Bytes(payload(&format!("bench {} {number} {one}", scene.nonce), bytes)),
        ..OrderSubmission::default()
    };
    let request = OrderSubmissionsRequest {
        entries: (0..together).map(entry).collect(),
        wait: OrderWait::Commit,
        timeout_ms: scene.timeout_ms,
    };
    let answer = scene.client.post::<OrderSubmissionsDocument>(routes::ORDER_SUBMISSIONS, &request).await?;
    match answer.document.entries.into_iter().find_map(|entry| entry.why) {
        None => Ok(Done::default()),
        Some(why) => Err(ErrorDocument::new(ErrorCode::Failed, why).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_size_that_was_asked_for_and_is_never_the_same() {
        for bytes in [1, 8, 16, 128, 4096] {
            assert_eq!(payload("0000000000000007", bytes).len(), bytes);
        }
        assert!(payload("0000000000000007", 16).starts_with(b"0000000000000007"));
        assert_ne!(payload("x", 64), payload("x", 64));
    }
}
