//! Routes about the node as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;
use wattle_net::{Event, LanStatus, Status};

use super::super::documents::{
    ApiStatus, DhtModeName, DhtStatus, ErrorDocument, HealthDocument, HealthLevel, HealthSchema, IdDocument,
    IdSchema, LanState, NetworkStatus, NodeStatus, PathName, PeersStatus, Reachability, StatusDocument,
    StatusSchema, StopDocument, StopRequest, StopSchema, TransportName, Verdict, WaitDocument, WaitSchema,
};
use super::super::extract::{Json, Parameters, timeout};
use super::super::failure::{ApiFailure, words};
use super::super::names::resolve_peer;
use super::{members, order};
use crate::exit::ErrorCode;
use crate::health;
use crate::metrics::resident_bytes;
use crate::node::{Node, count, path_names, whole_millis};

type Result<T> = std::result::Result<T, ApiFailure>;

/// How the node is doing, on one screen.
#[utoipa::path(get, path = "/status", tag = "node",
    responses((status = 200, body = StatusDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn status(State(node): State<Arc<Node>>) -> Result<Answer<StatusDocument>> {
    let status = node.overlay.status().await?;
    let mut judgement = health::judge(&status);
    let order = order::summary(&node).await?;
    if let Some(order) = &order {
        judgement = judgement.with_log(order);
    }
    Ok(Answer(StatusDocument {
        schema: StatusSchema::V1,
        verdict: judgement.verdict,
        summary: judgement.summary,
        warnings: judgement.warnings,
        node: NodeStatus {
            name: node.paths.node.to_string(),
            id: node.overlay.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: whole_millis(node.started.elapsed()),
            rss_bytes: resident_bytes(),
        },
        network: network_status(&node, &status),
        peers: peers_status(&status),
        members: members::counts(&node, &node.members.view()).await,
        dht: DhtStatus {
            mode: if status.dht_server { DhtModeName::Server } else { DhtModeName::Client },
            table_size: count(status.table_size),
            buckets: count(status.table_buckets),
            records_held: count(status.records_held),
            published: count(status.published),
        },
        order,
        api: ApiStatus { socket: format!("unix:{}", node.paths.socket.display()), url: node.url.clone() },
    }))
}

fn network_status(node: &Node, status: &Status) -> NetworkStatus {
    let reachable = status.inbound_seen > 0 || !status.external.is_empty();
    let mut relays: Vec<_> = status.peers.iter().filter_map(|peer| path_names(&peer.path).2).collect();
    relays.sort();
    relays.dedup();
    NetworkStatus {
        name: node.overlay.network().to_string(),
        private: node.network_key.is_some(),
        reachability: if reachable { Reachability::Public } else { Reachability::Unknown },
        lan: match status.lan {
            LanStatus::Off => LanState::Off,
            LanStatus::Silent => LanState::Silent,
            LanStatus::Heard(_) => LanState::Heard,
        },
        lan_heard: match status.lan {
            LanStatus::Off => None,
            LanStatus::Silent => Some(0),
            LanStatus::Heard(heard) => Some(count(heard)),
        },
        relays,
        listen: status.listening.iter().map(ToString::to_string).collect(),
        external: status.external.iter().map(ToString::to_string).collect(),
        bootstrap: count(status.bootstrap),
        address_book: count(status.address_book),
        inbound_seen: status.inbound_seen,
    }
}

fn peers_status(status: &Status) -> PeersStatus {
    let paths: Vec<_> = status.peers.iter().map(|peer| path_names(&peer.path)).collect();
    let relayed = count(paths.iter().filter(|(path, ..)| *path == PathName::Relayed).count());
    let quic = count(paths.iter().filter(|(_, transport, _)| *transport == TransportName::Quic).count());
    let total = count(paths.len());
    PeersStatus {
        total,
        direct: total.saturating_sub(relayed),
        relayed,
        quic,
        tcp: total.saturating_sub(quic),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct IdQuery {
    /// A peer (petname, short id, peer id, multiaddr, ticket); this node when absent.
    peer: Option<String>,
}

/// Who this node is, or what it knows of a peer.
#[utoipa::path(get, path = "/id", tag = "node", params(IdQuery),
    responses((status = 200, body = IdDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn id(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<IdQuery>,
) -> Result<Answer<IdDocument>> {
    let status = node.overlay.status().await?;
    let me = node.overlay.id();
    let id = match query.peer {
        None => me,
        Some(peer) => resolve_peer(&node, &peer).await?,
    };
    let this_node = id == me;
    let connected = status.peers.iter().find(|peer| peer.peer == id);
    let addresses = if this_node {
        status.external.iter().chain(&status.listening).map(|address| address.with_peer(id)).collect()
    } else {
        node.overlay.addresses(id).await?
    };
    Ok(Answer(IdDocument {
        schema: IdSchema::V1,
        id,
        short: id.short(),
        name: if this_node { Some(node.paths.node.to_string()) } else { node.names.of(id) },
        this_node,
        network: node.overlay.network().to_string(),
        connected: (!this_node).then_some(connected.is_some()),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        agent: if this_node {
            Some(concat!("wattle/", env!("CARGO_PKG_VERSION")).to_owned())
        } else {
            connected.and_then(|peer| peer.agent.clone())
        },
        protocols: connected.map(|peer| peer.protocols.clone()).unwrap_or_default(),
    }))
}

/// Health for monitors. The HTTP status is 200 whatever the level; the document says it.
#[utoipa::path(get, path = "/health", tag = "node",
    responses((status = 200, body = HealthDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn health(State(node): State<Arc<Node>>) -> Result<Answer<HealthDocument>> {
    let status = node.overlay.status().await?;
    let checks = health::checks(&status);
    let level = checks.iter().map(|check| check.level).max().unwrap_or(HealthLevel::Unknown);
    Ok(Answer(HealthDocument {
        schema: HealthSchema::V1,
        level,
        exit: level.exit(),
        summary: health::judge(&status).summary,
        peers: count(status.peers.len()),
        uptime_ms: whole_millis(node.started.elapsed()),
        checks,
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// Wait for so many connected peers; 0 when absent: only for the node to be ready.
    peers: Option<u64>,
    /// Wait for so many members that are alive, with this node.
    members: Option<u64>,
    /// When to give up; 30 s when absent, 0 = never.
    timeout_ms: Option<u64>,
}

/// Block until a condition holds.
#[utoipa::path(get, path = "/wait", tag = "node", params(WaitQuery),
    responses((status = 200, body = WaitDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn wait(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<WaitQuery>,
) -> Result<Answer<WaitDocument>> {
    let began = Instant::now();
    let wanted = (query.peers.unwrap_or(0), query.members.unwrap_or(0));
    let limit = timeout(query.timeout_ms, Duration::from_secs(30));
    // Watching begins before the first look, so nothing falls between the two.
    let mut events = node.overlay.events();
    let mut changes = node.members.changes();
    let mut seen = peers_and_members(&node).await?;
    let waiting = async {
        while seen.0 < wanted.0 || seen.1 < wanted.1 {
            let event = tokio::select! {
                event = events.recv() => event,
                _changed = changes.changed() => Err(RecvError::Lagged(0)),
            };
            match event {
                Ok(Event::Connected(_) | Event::Disconnected { .. }) | Err(RecvError::Lagged(_)) => {}
                Ok(_) => continue,
                Err(RecvError::Closed) => return Err(wattle_net::Stopped),
            }
            seen = peers_and_members(&node).await?;
        }
        Ok(seen)
    };
    let reached = tokio::select! {
        reached = tokio::time::timeout(limit, waiting) => reached,
        () = node.stop.cancelled() => return Err(wattle_net::Stopped.into()),
    };
    match reached {
        Ok(seen) => {
            let (peers, members) = seen?;
            let waited_ms = whole_millis(began.elapsed());
            Ok(Answer(WaitDocument { schema: WaitSchema::V1, ready: true, peers, members, waited_ms }))
        }
        Err(_elapsed) => {
            let (peers, members) = peers_and_members(&node).await?;
            let wanted = [(query.peers, "peers"), (query.members, "members")];
            let wanted = wanted.iter().filter_map(|(count, what)| Some(format!("{} {what}", (*count)?)));
            let wanted = wanted.collect::<Vec<_>>().join(" and ");
            let message = format!("timed out after {} waiting for {wanted}", words(limit));
            let failure = ApiFailure::new(ErrorCode::Timeout, message);
            let so_far = format!("connected to {peers}, {members} members alive so far");
            Err(failure.detail("", so_far).hint("wattle status"))
        }
    }
}

/// Connected peers, and members that are alive, with this node.
async fn peers_and_members(node: &Node) -> std::result::Result<(u64, u64), wattle_net::Stopped> {
    let view = node.members.view();
    let alive = view.members.iter().filter(|member| member.state == wattle_swim::State::Alive).count();
    let peers = count(node.overlay.status().await?.peers.len());
    Ok((peers, count(alive).saturating_add(u64::from(view.own.is_some()))))
}

/// Leave politely, then stop.
#[utoipa::path(post, path = "/stop", tag = "node", request_body = StopRequest,
    responses((status = 200, body = StopDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn stop(
    State(node): State<Arc<Node>>,
    Json(request): Json<StopRequest>,
) -> Answer<StopDocument> {
    tracing::info!(now = request.now, "stopping: asked by the API");
    node.stop.cancel();
    Answer(StopDocument { schema: StopSchema::V1, pid: std::process::id() })
}

/// Ready to serve: 200, or 503 while it stops or listens nowhere.
#[utoipa::path(get, path = "/readyz", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = String, content_type = "text/plain")))]
pub(super) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    match node.overlay.status().await {
        Ok(status) if !status.listening.is_empty() && !node.stop.is_cancelled() => {
            let alone = health::judge(&status).verdict == Verdict::Alone;
            let text = if alone { "ready, but alone\n" } else { "ready\n" };
            text.into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Result<Response> {
    if let Some(health) = node.members.health().await {
        node.metrics.members(&health);
    }
    // A log that stopped takes nothing else with it.
    if let Ok(Some((view, standing))) = order::standing(&node).await {
        node.metrics.order(&view, &standing);
    }
    let text = node.metrics.text(&node.overlay.metrics().await?);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
