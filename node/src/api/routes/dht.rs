//! Routes about the DHT. How keys are written stands in [`super::keys`].
//!
//! `put NAME VALUE` signs a record `/NETWORK/signed/ME/NAME` whose sequence number is the time, and announces
//! that this node has something under NAME. `get NAME` takes the caller's own record first; else it asks who
//! announced NAME, fetches the record of each, and chooses the owner with the lowest id: every reader who
//! sees the same owners chooses the same one. A bare name belongs to nobody, so the answer says who else uses
//! it; `PEER/NAME` is the name that cannot be contested.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use utoipa::IntoParams;
use wattle_net::{ClosestPeer, DhtError, FoundRecord, TraceEvent, TraceReport, TraceTarget};
use wattle_types::limits::RECORD_TTL_MAX_MS;
use wattle_types::{NodeId, ProviderKey, Record, RecordKey, RecordName};

use super::super::documents::{
    Bytes, CloserPeer, DhtAnswer, DhtBucket, DhtBucketPeer, DhtClosePeer, DhtClosestDocument,
    DhtClosestSchema, DhtFindPeerRequest, DhtGetDocument, DhtGetSchema, DhtPeerDocument, DhtPeerSchema,
    DhtProvideDocument, DhtProvideRequest, DhtProvideSchema, DhtProvidersDocument, DhtProvidersRequest,
    DhtProvidersSchema, DhtPutDocument, DhtPutRequest, DhtPutSchema, DhtQueryStats, DhtRecord, DhtRejected,
    DhtStatsDocument, DhtStatsSchema, DhtTableDocument, DhtTableSchema, DhtTargetRequest, DhtTraceSchema,
    ErrorDocument, Percentiles, TraceDone, TraceLine, TraceStep,
};
use super::super::extract::{Json, Parameters, Part, STREAM_LINES_MAX, json_lines, timeout};
use super::super::failure::{ApiFailure, dht_failure};
use super::super::names::{Names, resolve_peer};
use super::keys::{self, Key};
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::{Node, count, millis, whole_millis};

type Result<T> = std::result::Result<T, ApiFailure>;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a signed record lives when nobody says otherwise.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Owners of a bare name whose records are fetched.
const OWNERS_MAX: usize = 8;
/// Providers found when nobody says how many.
const PROVIDERS: u64 = 20;
/// Bits of a DHT id.
const ID_BITS: u32 = 256;

/// Store a record. In the path, a slash inside the key is written `%2F`.
#[utoipa::path(put, path = "/dht/records/{key}", tag = "dht", request_body = DhtPutRequest,
    params(("key" = String, Path, description = "hash:, NAME, PEER/NAME or a full path; a slash is written %2F")),
    responses((status = 200, body = DhtPutDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn put(
    State(node): State<Arc<Node>>,
    Part(key): Part,
    Json(request): Json<DhtPutRequest>,
) -> Result<Answer<DhtPutDocument>> {
    let (began, limit) = (Instant::now(), timeout(request.timeout_ms, TIMEOUT));
    let (network, me) = (node.overlay.network(), node.overlay.id());
    let (bytes, term) = (count(request.value_b64.0.len()), request.ttl_ms);
    let (record, announce, get) = match keys::read(&node, &key).await? {
        Key::OwnHash => content(request.value_b64.0, None)?,
        Key::Record(RecordKey::Hash(hash)) => content(request.value_b64.0, Some(hash))?,
        Key::Record(RecordKey::Signed { owner, .. }) if owner != me => {
            let message = format!("only {} can sign a record under `{key}`", node.names.shown(owner));
            return Err(ApiFailure::new(ErrorCode::Denied, message).hint("put a bare name to sign your own"));
        }
        Key::Record(RecordKey::Signed { name, .. }) => {
            (sign(&node, name.clone(), &request)?, None, format!("{me}/{name}"))
        }
        Key::Name(name) => {
            let announce = (!request.mine).then(|| ProviderKey::of_name(network, &name));
            let get = if request.mine { format!("{me}/{name}") } else { name.to_string() };
            (sign(&node, name, &request)?, announce, get)
        }
    };
    let path = String::from_utf8_lossy(&record.key_bytes(network)).into_owned();
    let (sequence, expires) = (record.sequence(), record.expires().map(timestamp));
    let announcing = async {
        match announce {
            Some(key) => Some(node.overlay.provide(key, limit).await),
            None => None,
        }
    };
    let renewed = sequence.is_some() && term.is_none();
    let storing = async {
        if renewed {
            node.overlay.put_lasting(record, limit).await
        } else {
            node.overlay.put(record, limit).await
        }
    };
    let (stored, announced) = tokio::join!(storing, announcing);
    let report = stored.map_err(|error| dht_failure(error, &format!("`{key}`"), network.as_str()))?;
    let mut warnings = Vec::new();
    if let Some(Err(error)) = &announced {
        warnings.push(format!("the name was not announced ({error}): others find it as {me}/{get} only"));
    }
    if report.stored_on.is_empty() {
        warnings.push("no other peer gave the record back when asked for it".to_owned());
    }
    Ok(Answer(DhtPutDocument {
        schema: DhtPutSchema::V1,
        key: path,
        get,
        bytes,
        sequence,
        expires,
        renewed,
        stored_on: report.stored_on,
        offered_to: u64::from(report.offered_to),
        announced: matches!(announced, Some(Ok(()))),
        took_ms: whole_millis(began.elapsed()),
        warnings,
    }))
}

fn content(
    value: Vec<u8>,
    expected: Option<wattle_types::ContentHash>,
) -> Result<(Record, Option<ProviderKey>, String)> {
    let record = Record::content(value).map_err(|why| ApiFailure::usage(format!("the value: {why}")))?;
    let Record::Hash { hash, .. } = &record else { unreachable!("a content record is one by its hash") };
    let hash = *hash;
    if expected.is_some_and(|expected| expected != hash) {
        return Err(ApiFailure::new(ErrorCode::Invalid, format!("the value hashes to hash:{hash}"))
            .hint("put it under `hash:`"));
    }
    Ok((record, None, format!("hash:{hash}")))
}

fn sign(node: &Node, name: RecordName, request: &DhtPutRequest) -> Result<Record> {
    let ttl = request.ttl_ms.map_or(TTL, Duration::from_millis);
    if ttl.is_zero() || ttl > Duration::from_millis(RECORD_TTL_MAX_MS) {
        return Err(ApiFailure::usage("a record lives for more than nothing and at most 48h"));
    }
    let now = unix_now();
    // The time is the sequence number: it grows with every put of every copy of this key, without being
    // remembered.
    Record::sign(
        &node.key,
        node.overlay.network(),
        name,
        now.as_millis(),
        now.after(ttl),
        &request.value_b64.0,
    )
    .map_err(|why| ApiFailure::usage(format!("the value: {why}")))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct GetQuery {
    /// Also the records of other owners of a bare name.
    #[serde(default)]
    all: bool,
    /// When to give up; 30 s when absent.
    timeout_ms: Option<u64>,
}

/// Fetch a record, and show who had it. In the path, a slash inside the key is written `%2F`.
#[utoipa::path(get, path = "/dht/records/{key}", tag = "dht",
    params(("key" = String, Path, description = "hash:DIGEST, NAME, PEER/NAME or a full path; a slash is written %2F"),
        GetQuery),
    responses((status = 200, body = DhtGetDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn get(
    State(node): State<Arc<Node>>,
    Part(key): Part,
    Parameters(query): Parameters<GetQuery>,
) -> Result<Answer<DhtGetDocument>> {
    let (began, limit) = (Instant::now(), timeout(query.timeout_ms, TIMEOUT));
    let (mut found, warnings) = match keys::read(&node, &key).await? {
        Key::OwnHash => return Err(keys::needs_digest()),
        Key::Record(record) => {
            let found = node.overlay.get(record, limit).await;
            let failed = |error| dht_failure(error, &format!("`{key}`"), node.overlay.network().as_str());
            (vec![found.map_err(failed)?], Vec::new())
        }
        Key::Name(name) => by_name(&node, &name, query.all, limit).await?,
    };
    let chosen = found.remove(0);
    Ok(Answer(DhtGetDocument {
        schema: DhtGetSchema::V1,
        key,
        record: record(&node, &chosen),
        others: if query.all { found.iter().map(|other| record(&node, other)).collect() } else { Vec::new() },
        took_ms: whole_millis(began.elapsed()),
        warnings,
    }))
}

/// The records under a bare name, the chosen one first: mine, else the one of the owner with the lowest id.
async fn by_name(
    node: &Node,
    name: &RecordName,
    all: bool,
    limit: Duration,
) -> Result<(Vec<FoundRecord>, Vec<String>)> {
    let (began, network, me) = (Instant::now(), node.overlay.network(), node.overlay.id());
    let of_owner = |owner| RecordKey::Signed { owner, name: name.clone() };
    let failed = |error| dht_failure(error, &format!("`{name}`"), network.as_str());
    let providers = node.overlay.find_providers(ProviderKey::of_name(network, name), OWNERS_MAX, limit).await;
    // A lookup of my own record only where there may be one: it asks all k holders before it says no.
    let maybe_mine = providers.as_ref().map_or(true, |owners| owners.contains(&me));
    let mine = if maybe_mine {
        node.overlay.get(of_owner(me), limit).await
    } else {
        Err(DhtError::NotFound { asked: 0, rejected: Vec::new() })
    };
    let mut owners = match (&mine, providers) {
        (_, Ok(owners)) => owners,
        (Ok(_), Err(_)) => Vec::new(),
        (Err(_), Err(error)) => return Err(failed(error)),
    };
    owners.retain(|owner| *owner != me);
    owners.sort();
    owners.truncate(OWNERS_MAX);
    let rest = limit.saturating_sub(began.elapsed()).max(Duration::from_secs(1));
    let (found, first_error) = match mine {
        Ok(mine) if !all => (vec![mine], None),
        mine => {
            let fetched = join_all(owners.iter().map(|owner| node.overlay.get(of_owner(*owner), rest))).await;
            let (mut found, mut errors) = (Vec::new(), Vec::new());
            for result in std::iter::once(mine).chain(fetched) {
                match result {
                    Ok(record) => found.push(record),
                    Err(error) => errors.push(error),
                }
            }
            (found, errors.pop())
        }
    };
    if found.is_empty() {
        let error = first_error.unwrap_or(DhtError::NotFound { asked: 0, rejected: Vec::new() });
        let mut failure = failed(error);
        for owner in &owners {
            failure = failure.detail("announced by", owner.to_string());
        }
        return Err(failure);
    }
    let chosen = found.first().and_then(|found| found.record.owner());
    let others: Vec<NodeId> = owners.into_iter().filter(|owner| Some(*owner) != chosen).collect();
    Ok((found, contested(&node.names, name, chosen, &others)))
}

fn contested(names: &Names, name: &RecordName, chosen: Option<NodeId>, others: &[NodeId]) -> Vec<String> {
    let (Some(chosen), false) = (chosen, others.is_empty()) else { return Vec::new() };
    let others: Vec<String> = others.iter().map(|other| names.shown(*other)).collect();
    vec![format!(
        "`{name}` of {} was taken; also announced by {}: name the owner (PEER/{name}) to be sure",
        names.shown(chosen),
        others.join(", ")
    )]
}

fn record(node: &Node, found: &FoundRecord) -> DhtRecord {
    let owner = found.record.owner();
    let answer = |answer: &wattle_net::Answer| DhtAnswer {
        id: answer.peer,
        name: node.names.of(answer.peer),
        sequence: answer.sequence,
        current: answer.current,
    };
    DhtRecord {
        key: String::from_utf8_lossy(&found.record.key_bytes(node.overlay.network())).into_owned(),
        value_b64: Bytes(found.record.payload().to_vec()),
        owner,
        owner_name: owner.and_then(|owner| node.names.of(owner)),
        sequence: found.record.sequence(),
        expires: found.record.expires().map(timestamp),
        answers: found.answers.iter().map(answer).collect(),
        rejected: (found.rejected.iter())
            .map(|rejected| DhtRejected { id: rejected.peer, why: rejected.why.to_string() })
            .collect(),
        asked: u64::from(found.asked),
    }
}

/// Announce that this node has or offers what a key stands for, until it is taken back.
#[utoipa::path(post, path = "/dht/provide", tag = "dht", request_body = DhtProvideRequest,
    responses((status = 200, body = DhtProvideDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn provide(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtProvideRequest>,
) -> Result<Answer<DhtProvideDocument>> {
    let (began, network) = (Instant::now(), node.overlay.network());
    let key = keys::provider_key(network, &keys::read(&node, &request.key).await?)?;
    let provided = node.overlay.provide(key, timeout(request.timeout_ms, TIMEOUT)).await;
    provided.map_err(|error| dht_failure(error, &format!("`{}`", request.key), network.as_str()))?;
    let took_ms = whole_millis(began.elapsed());
    Ok(Answer(DhtProvideDocument { schema: DhtProvideSchema::V1, key: request.key, provided: true, took_ms }))
}

/// No longer announce a key.
#[utoipa::path(post, path = "/dht/stop-providing", tag = "dht", request_body = DhtProvideRequest,
    responses((status = 200, body = DhtProvideDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn stop_providing(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtProvideRequest>,
) -> Result<Answer<DhtProvideDocument>> {
    let began = Instant::now();
    let key = keys::provider_key(node.overlay.network(), &keys::read(&node, &request.key).await?)?;
    node.overlay.stop_providing(key).await?;
    let took_ms = whole_millis(began.elapsed());
    Ok(Answer(DhtProvideDocument {
        schema: DhtProvideSchema::V1,
        key: request.key,
        provided: false,
        took_ms,
    }))
}

/// Find who announced a key.
#[utoipa::path(post, path = "/dht/find-providers", tag = "dht", request_body = DhtProvidersRequest,
    responses((status = 200, body = DhtProvidersDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn find_providers(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtProvidersRequest>,
) -> Result<Answer<DhtProvidersDocument>> {
    let (began, network) = (Instant::now(), node.overlay.network());
    let key = keys::provider_key(network, &keys::read(&node, &request.key).await?)?;
    let wanted = usize::try_from(request.count.unwrap_or(PROVIDERS).clamp(1, 1000)).unwrap_or(1000);
    let found = node.overlay.find_providers(key, wanted, timeout(request.timeout_ms, TIMEOUT)).await;
    let failed = |error| dht_failure(error, &format!("providers of `{}`", request.key), network.as_str());
    let providers = found.map_err(failed)?.into_iter().map(|id| node.names.row(id)).collect();
    let took_ms = whole_millis(began.elapsed());
    Ok(Answer(DhtProvidersDocument { schema: DhtProvidersSchema::V1, key: request.key, providers, took_ms }))
}

/// Find a peer's addresses.
#[utoipa::path(post, path = "/dht/find-peer", tag = "dht", request_body = DhtFindPeerRequest,
    responses((status = 200, body = DhtPeerDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn find_peer(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtFindPeerRequest>,
) -> Result<Answer<DhtPeerDocument>> {
    let began = Instant::now();
    let id = resolve_peer(&node, &request.peer).await?;
    let found = node.overlay.find_peer(id, timeout(request.timeout_ms, TIMEOUT)).await;
    let what = format!("peer {}", node.names.shown(id));
    let addresses = found.map_err(|error| dht_failure(error, &what, node.overlay.network().as_str()))?;
    Ok(Answer(DhtPeerDocument {
        schema: DhtPeerSchema::V1,
        id,
        name: node.names.of(id),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        took_ms: whole_millis(began.elapsed()),
    }))
}

/// The k peers nearest to a key or peer, by XOR.
#[utoipa::path(post, path = "/dht/closest", tag = "dht", request_body = DhtTargetRequest,
    responses((status = 200, body = DhtClosestDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn closest(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtTargetRequest>,
) -> Result<Answer<DhtClosestDocument>> {
    let began = Instant::now();
    let (target, _) = keys::target(&node, &request.target).await?;
    let found = node.overlay.closest(target, timeout(request.timeout_ms, TIMEOUT)).await;
    let what = format!("the peers nearest to `{}`", request.target);
    let peers = found.map_err(|error| dht_failure(error, &what, node.overlay.network().as_str()))?;
    Ok(Answer(DhtClosestDocument {
        schema: DhtClosestSchema::V1,
        target: request.target,
        peers: peers.into_iter().map(|peer| close_peer(&node.names, peer)).collect(),
        took_ms: whole_millis(began.elapsed()),
    }))
}

fn close_peer(names: &Names, peer: ClosestPeer) -> DhtClosePeer {
    DhtClosePeer {
        id: peer.peer,
        name: names.of(peer.peer),
        shared_bits: peer.shared_bits,
        distance_bits: ID_BITS.saturating_sub(peer.shared_bits),
        addresses: peer.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// Follow a lookup hop by hop, as JSON Lines.
#[utoipa::path(post, path = "/dht/trace", tag = "dht", request_body = DhtTargetRequest,
    responses((status = 200, body = TraceLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn trace(
    State(node): State<Arc<Node>>,
    Json(request): Json<DhtTargetRequest>,
) -> Result<Response> {
    let (target, _) = keys::target(&node, &request.target).await?;
    let limit = timeout(request.timeout_ms, TIMEOUT);
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    let walking = async move {
        let hung_up = sender.clone();
        tokio::select! {
            () = walk(&node, target, &request.target, limit, &sender) => {}
            () = hung_up.closed() => {}
            () = node.stop.cancelled() => {}
        }
    };
    tokio::spawn(walking.in_current_span());
    Ok(json_lines(lines))
}

async fn walk(
    node: &Node,
    target: TraceTarget,
    text: &str,
    limit: Duration,
    sender: &mpsc::Sender<TraceLine>,
) {
    let (steps, mut taken) = mpsc::channel(STREAM_LINES_MAX);
    let of_peer = matches!(target, TraceTarget::Peer(_));
    let showing = async {
        while let Some(step) = taken.recv().await {
            if sender.send(step_line(&node.names, step)).await.is_err() {
                return;
            }
        }
    };
    let (ended, ()) = tokio::join!(node.overlay.trace(target, limit, steps), showing);
    let last = match ended {
        Ok(report) => done_line(&node.names, text, of_peer, report),
        Err(error) => {
            let failure = dht_failure(error, &format!("`{text}`"), node.overlay.network().as_str());
            TraceLine::Error { ts: Timestamp::now(), error: failure.into_document() }
        }
    };
    // Ignored because this is the last line, read or not.
    drop(sender.send(last).await);
}

fn step_line(names: &Names, step: TraceEvent) -> TraceLine {
    let new = |hop, peer, shared_bits: u32| TraceStep {
        ts: Timestamp::now(),
        hop,
        peer,
        name: names.of(peer),
        shared_bits,
        distance_bits: ID_BITS.saturating_sub(shared_bits),
        rtt_ms: None,
        closer: Vec::new(),
        has_target: false,
        why: None,
    };
    match step {
        TraceEvent::Query { hop, peer, shared_bits } => TraceLine::Query(new(hop, peer, shared_bits)),
        TraceEvent::Response { hop, peer, shared_bits, rtt, closer, has_target } => {
            let closer = closer.into_iter().map(|(id, shared_bits)| CloserPeer { id, shared_bits }).collect();
            let rtt_ms = Some(millis(rtt));
            TraceLine::Response(TraceStep { rtt_ms, closer, has_target, ..new(hop, peer, shared_bits) })
        }
        TraceEvent::Closer { hop, peer, shared_bits } => TraceLine::Closer(new(hop, peer, shared_bits)),
        TraceEvent::Failed { hop, peer, shared_bits, timed_out, why } => {
            let step = TraceStep { why: Some(why), ..new(hop, peer, shared_bits) };
            if timed_out { TraceLine::Timeout(step) } else { TraceLine::Failed(step) }
        }
    }
}

fn done_line(names: &Names, target: &str, of_peer: bool, report: TraceReport) -> TraceLine {
    let found = if of_peer { report.target.is_some() } else { !report.closest.is_empty() };
    let addresses = report.target.unwrap_or_default();
    TraceLine::Done(TraceDone {
        ts: Timestamp::now(),
        schema: DhtTraceSchema::V1,
        target: target.to_owned(),
        found,
        hops: report.hops,
        queries: report.queries,
        failures: report.failures,
        took_ms: whole_millis(report.took),
        closest: report.closest.into_iter().map(|peer| close_peer(names, peer)).collect(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    })
}

/// This node's routing table, bucket by bucket.
#[utoipa::path(get, path = "/dht/table", tag = "dht",
    responses((status = 200, body = DhtTableDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn table(State(node): State<Arc<Node>>) -> Result<Answer<DhtTableDocument>> {
    let buckets: Vec<DhtBucket> = (node.overlay.table().await?.into_iter())
        .map(|bucket| DhtBucket {
            shared_bits: bucket.shared_bits,
            peers: (bucket.peers.into_iter())
                .map(|peer| DhtBucketPeer {
                    id: peer.peer,
                    name: node.names.of(peer.peer),
                    connected: peer.connected,
                    addresses: peer.addresses.iter().map(ToString::to_string).collect(),
                })
                .collect(),
        })
        .collect();
    let size = count(buckets.iter().map(|bucket| bucket.peers.len()).sum());
    Ok(Answer(DhtTableDocument { schema: DhtTableSchema::V1, id: node.overlay.id(), size, buckets }))
}

/// Queries, success, latency percentiles.
#[utoipa::path(get, path = "/dht/stats", tag = "dht",
    responses((status = 200, body = DhtStatsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn stats(State(node): State<Arc<Node>>) -> Result<Answer<DhtStatsDocument>> {
    let stats = node.overlay.dht_stats().await?;
    let row = |query: wattle_net::QueryStats| DhtQueryStats {
        kind: query.kind.to_owned(),
        count: query.count,
        ok: query.ok,
        latency_ms: (query.count > 0).then_some(Percentiles {
            p50: query.p50_ms,
            p90: query.p90_ms,
            p99: query.p99_ms,
        }),
    };
    Ok(Answer(DhtStatsDocument {
        schema: DhtStatsSchema::V1,
        queries: stats.queries.into_iter().map(row).collect(),
        records_held: count(stats.records_held),
        providers_held: count(stats.providers_held),
        published: count(stats.published),
        records_rejected: stats.records_rejected,
    }))
}
