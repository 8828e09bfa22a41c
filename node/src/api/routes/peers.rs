//! Routes about people and paths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use utoipa::IntoParams;
use wattle_net::{Address, PeerInfo, Reach, Status};
use wattle_types::limits::TICKET_ENDPOINTS_MAX;
use wattle_types::{DocId, Endpoint, NodeId, Ticket, TicketDocument, UnixTime};

use super::super::documents::{
    BlockDocument, BlockRequest, BlockSchema, ConnectDocument, ConnectRequest, ConnectSchema,
    DisconnectDocument, DisconnectRequest, DisconnectSchema, DocRole, ErrorDocument, InviteDocument,
    InviteRequest, InviteSchema, JoinDocument, JoinRequest, JoinSchema, NameDocument, NameRequest,
    NameSchema, PathName, Peer, PeersDocument, PeersSchema, PingLine, PingRequest, PingSchema,
};
use super::super::extract::{Json, Parameters, STREAM_LINES_MAX, json_lines, timeout};
use super::super::failure::{ApiFailure, connect_failure, ping_failure, words};
use super::super::names::{Whom, check_name, read_ticket, resolve, resolve_peer};
use super::{docs, rooms};
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::{Node, millis, path_names, whole_millis};

type Result<T> = std::result::Result<T, ApiFailure>;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a ticket works when nobody says otherwise.
const TICKET_LIVES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PeersQuery {
    /// Also peers of a name or of the address book that are not connected, and blocked ones.
    #[serde(default)]
    all: bool,
}

/// The connections of this node.
#[utoipa::path(get, path = "/peers", tag = "peers", params(PeersQuery),
    responses((status = 200, body = PeersDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn peers(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<PeersQuery>,
) -> Result<Answer<PeersDocument>> {
    let status = node.overlay.status().await?;
    let view = node.members.measured().await;
    let estimates: BTreeMap<NodeId, f64> =
        view.members.iter().filter_map(|member| Some((member.id, millis(member.estimate?)))).collect();
    let with_estimate = |peer: Peer| Peer { estimate_ms: estimates.get(&peer.id).copied(), ..peer };
    let peers: Vec<_> = status.peers.iter().map(|info| with_estimate(node.peer(info))).collect();
    let (mut offline, mut blocked) = (Vec::new(), Vec::new());
    if query.all {
        blocked.extend(node.overlay.blocked().await?.into_iter().map(|id| node.names.row(id)));
        let mut known: BTreeSet<NodeId> = node.names.all().into_keys().collect();
        known.extend(node.overlay.known().await?.into_iter().map(|(id, _addresses)| id));
        known.retain(|id| *id != node.overlay.id() && peers.iter().all(|peer| peer.id != *id));
        offline.extend(known.into_iter().map(|id| node.names.row(id)));
    }
    Ok(Answer(PeersDocument { schema: PeersSchema::V1, peers, offline, blocked }))
}

async fn dial(node: &Node, whom: &Whom, limit: Duration) -> Result<PeerInfo> {
    let dialing = node.overlay.connect(whom.id, whom.addresses.clone());
    match tokio::time::timeout(limit, dialing).await {
        Ok(connected) => connected.map_err(|error| connect_failure(error, &whom.shown)),
        Err(_elapsed) => {
            let message = format!("timed out after {} connecting to {}", words(limit), whom.shown);
            let mut failure = ApiFailure::new(ErrorCode::Timeout, message);
            for address in &whom.addresses {
                failure = failure.detail("tried", address.to_string());
            }
            Err(failure.detail("maybe", "it is offline, or a firewall drops the packets"))
        }
    }
}

/// Dial a peer.
#[utoipa::path(post, path = "/peers/connect", tag = "peers", request_body = ConnectRequest,
    responses((status = 200, body = ConnectDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn connect(
    State(node): State<Arc<Node>>,
    Json(request): Json<ConnectRequest>,
) -> Result<Answer<ConnectDocument>> {
    let whom = resolve(&node, &request.peer).await?;
    let info = dial(&node, &whom, timeout(request.timeout_ms, TIMEOUT)).await?;
    Ok(Answer(ConnectDocument { schema: ConnectSchema::V1, peer: node.peer(&info) }))
}

/// Drop a peer.
#[utoipa::path(post, path = "/peers/disconnect", tag = "peers", request_body = DisconnectRequest,
    responses((status = 200, body = DisconnectDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn disconnect(
    State(node): State<Arc<Node>>,
    Json(request): Json<DisconnectRequest>,
) -> Result<Answer<DisconnectDocument>> {
    let id = resolve_peer(&node, &request.peer).await?;
    let disconnected = node.overlay.disconnect(id).await?;
    Ok(Answer(DisconnectDocument { schema: DisconnectSchema::V1, id, name: node.names.of(id), disconnected }))
}

/// Block a peer, or let it in again.
#[utoipa::path(post, path = "/peers/block", tag = "peers", request_body = BlockRequest,
    responses((status = 200, body = BlockDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn block(
    State(node): State<Arc<Node>>,
    Json(request): Json<BlockRequest>,
) -> Result<Answer<BlockDocument>> {
    let id = resolve_peer(&node, &request.peer).await?;
    if id == node.overlay.id() {
        return Err(ApiFailure::usage("that is this node itself"));
    }
    node.overlay.block(id, request.blocked).await?;
    Ok(Answer(BlockDocument {
        schema: BlockSchema::V1,
        id,
        name: node.names.of(id),
        blocked: request.blocked,
    }))
}

/// Give a peer a petname, or take it back.
#[utoipa::path(post, path = "/peers/name", tag = "peers", request_body = NameRequest,
    responses((status = 200, body = NameDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn name(
    State(node): State<Arc<Node>>,
    Json(request): Json<NameRequest>,
) -> Result<Answer<NameDocument>> {
    let id = resolve_peer(&node, &request.peer).await?;
    set_name(&node, id, request.name.clone()).await?;
    Ok(Answer(NameDocument { schema: NameSchema::V1, id, name: request.name }))
}

async fn set_name(node: &Node, id: NodeId, name: Option<String>) -> Result<()> {
    if let Some(name) = &name {
        check_name(name).map_err(ApiFailure::usage)?;
        if let Some(other) = node.names.peer(name).filter(|other| *other != id) {
            let message = format!("`{name}` is the name of ..{} already", other.short());
            return Err(ApiFailure::new(ErrorCode::Conflict, message).detail("its id", other.to_string()));
        }
    }
    Ok(node.names.set(id, name).await?)
}

/// Round trips through the overlay, as JSON Lines; the last line sums up.
#[utoipa::path(post, path = "/ping", tag = "peers", request_body = PingRequest,
    responses((status = 200, body = PingLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn ping(
    State(node): State<Arc<Node>>,
    Json(request): Json<PingRequest>,
) -> Result<Response> {
    let whom = resolve(&node, &request.peer).await?;
    let id = match whom.id {
        Some(id) if whom.addresses.is_empty() => id,
        _ => dial(&node, &whom, timeout(request.timeout_ms, Duration::from_secs(10))).await?.peer,
    };
    if id == node.overlay.id() {
        return Err(ApiFailure::usage("that is this node itself"));
    }
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    let pinging = async move {
        let hung_up = sender.clone();
        tokio::select! {
            () = ping_loop(&node, id, &whom.shown, &request, &sender) => {}
            () = hung_up.closed() => {}
            () = node.stop.cancelled() => {}
        }
    };
    tokio::spawn(pinging.in_current_span());
    Ok(json_lines(lines))
}

async fn ping_loop(
    node: &Node,
    id: NodeId,
    shown: &str,
    request: &PingRequest,
    sender: &mpsc::Sender<PingLine>,
) {
    let count = match request.count {
        None => 4,
        Some(0) => u64::MAX,
        Some(count) => count,
    };
    let interval = Duration::from_millis(request.interval_ms.unwrap_or(1000).max(10));
    let limit = timeout(request.timeout_ms, Duration::from_secs(10));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut sent, mut trips, mut last) = (0, Vec::<f64>::new(), None);
    while sent < count {
        ticks.tick().await;
        sent += 1;
        let (ts_name, answer) = (node.names.of(id), node.overlay.ping(id, limit).await);
        let ts = Timestamp::now();
        let line = match answer {
            Ok(pong) => {
                let (path, transport, via) = path_names(&pong.path);
                let rtt_ms = millis(pong.rtt);
                // Enough for min, mean and max of the longest ping anybody reads.
                if trips.len() < 100_000 {
                    trips.push(rtt_ms);
                }
                last = Some((path, transport));
                let address = pong.path.address.to_string();
                PingLine::Reply { ts, seq: sent, id, name: ts_name, rtt_ms, path, transport, via, address }
            }
            Err(error) => PingLine::Lost { ts, seq: sent, error: ping_failure(error, shown).into_document() },
        };
        if sender.send(line).await.is_err() {
            return;
        }
        if request.until_direct && last.is_some_and(|(path, _)| path == PathName::Direct) {
            break;
        }
    }
    let done = summary(id, node.names.of(id), sent, &trips, last);
    // Ignored because this is the last line, read or not.
    drop(sender.send(done).await);
}

fn summary(
    id: NodeId,
    name: Option<String>,
    sent: u64,
    trips: &[f64],
    last: Option<(PathName, super::super::documents::TransportName)>,
) -> PingLine {
    let answered = crate::node::count(trips.len());
    let mean = |sum: f64| (sum / trips.len() as f64 * 1000.0).round() / 1000.0;
    PingLine::Done {
        ts: Timestamp::now(),
        schema: PingSchema::V1,
        id,
        name,
        sent,
        answered,
        min_ms: trips.iter().copied().reduce(f64::min),
        avg_ms: (!trips.is_empty()).then(|| mean(trips.iter().sum())),
        max_ms: trips.iter().copied().reduce(f64::max),
        path: last.map(|(path, _)| path),
        transport: last.map(|(_, transport)| transport),
    }
}

/// Make a ticket that lets someone in.
#[utoipa::path(post, path = "/tickets", tag = "peers", request_body = InviteRequest,
    responses((status = 200, body = InviteDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn invite(
    State(node): State<Arc<Node>>,
    Json(request): Json<InviteRequest>,
) -> Result<Answer<InviteDocument>> {
    let lives = request.expires_ms.map_or(TICKET_LIVES, Duration::from_millis);
    if lives < Duration::from_secs(1) {
        return Err(ApiFailure::usage("a ticket works for at least a second"));
    }
    let (endpoints, warnings) = ticket_endpoints(&node).await?;
    let expires = unix_now().after(lives);
    let target = invite_to(&node, &request, expires).await?;
    let ticket = Ticket {
        network: node.overlay.network().clone(),
        network_key: node.network_key.clone(),
        document: target.document,
        inviter: node.overlay.id(),
        endpoints,
        expires,
    };
    Ok(Answer(InviteDocument {
        schema: InviteSchema::V1,
        ticket: ticket.to_text(&node.key),
        network: ticket.network.to_string(),
        room: target.room,
        doc: target.doc.map(|doc| doc.to_string()),
        private: ticket.network_key.is_some(),
        inviter: ticket.inviter,
        addresses: ticket.endpoints.iter().map(ToString::to_string).collect(),
        expires: timestamp(expires),
        warnings,
    }))
}

/// What a ticket leads to beside the network.
#[derive(Default)]
struct Target {
    document: Option<TicketDocument>,
    doc: Option<DocId>,
    room: Option<String>,
}

/// Grants whoever holds the ticket its role in the room or document that it leads to.
async fn invite_to(node: &Node, request: &InviteRequest, expires: UnixTime) -> Result<Target> {
    let (doc, room) = match (&request.room, &request.doc) {
        (Some(_), Some(_)) => {
            return Err(ApiFailure::usage("a ticket leads into a room or to a document, not both"));
        }
        (Some(room), None) => {
            let room = rooms::find(node, room.clone()).await?;
            (room.doc, Some(room.name))
        }
        (None, Some(doc)) => (docs::resolve(node, doc).await?.doc, None),
        (None, None) if request.role.is_some() || request.uses.is_some() => {
            return Err(ApiFailure::usage("a role and a number of uses are for a room or a document"));
        }
        (None, None) => return Ok(Target::default()),
    };
    let role = request.role.unwrap_or(DocRole::Writer);
    let (access, bearer) = docs::grant_ticket(node, doc, role, expires, request.uses).await?;
    Ok(Target { document: Some(TicketDocument { access, bearer }), doc: Some(doc), room })
}

/// Where a ticket says that this node is, and what is to be said about it.
pub(super) async fn ticket_endpoints(node: &Node) -> Result<(Vec<Endpoint>, Vec<String>)> {
    let status = node.overlay.status().await?;
    let endpoints = endpoints(&status);
    if endpoints.is_empty() {
        let message = "this node listens nowhere that a ticket could name";
        return Err(ApiFailure::new(ErrorCode::Failed, message).hint("wattle config show p2p.listen"));
    }
    let mut warnings = Vec::new();
    if endpoints.iter().all(|endpoint| endpoint.ip.is_loopback()) {
        warnings.push("only nodes on this machine can reach the addresses in this ticket".to_owned());
    }
    Ok((endpoints, warnings))
}

/// The addresses worth a place in a ticket: those from outside first, then the local network's; this
/// machine's only when there is no other.
fn endpoints(status: &Status) -> Vec<Endpoint> {
    let mut found: Vec<(u8, Endpoint)> = Vec::new();
    for (external, address) in (status.external.iter().map(|address| (true, address)))
        .chain(status.listening.iter().map(|a| (false, a)))
    {
        let (Some(ip), Some(port)) = (address.ip(), address.port()) else { continue };
        if ip.is_unspecified() || is_link_local(ip) {
            continue;
        }
        let rank = rank(external, address);
        match found.iter_mut().find(|(_, known)| known.ip == ip && known.port == port) {
            Some((known_rank, known)) => {
                *known_rank = rank.min(*known_rank);
                known.quic |= address.is_quic();
                known.tcp |= address.is_tcp();
            }
            None => {
                let endpoint = Endpoint { ip, port, quic: address.is_quic(), tcp: address.is_tcp() };
                found.push((rank, endpoint));
            }
        }
    }
    found.sort();
    let elsewhere = found.iter().any(|(_, endpoint)| !endpoint.ip.is_loopback());
    found.retain(|(_, endpoint)| !elsewhere || !endpoint.ip.is_loopback());
    found.truncate(TICKET_ENDPOINTS_MAX);
    found.into_iter().map(|(_, endpoint)| endpoint).collect()
}

fn rank(external: bool, address: &Address) -> u8 {
    match (external, address.reach()) {
        (true, _) => 0,
        (false, Reach::Global) => 1,
        (false, Reach::Private) => 2,
        (false, Reach::Loopback | Reach::Relayed | Reach::Name) => 3,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    // Link-local addresses need a zone, which no ticket holds.
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Accept a ticket of this node's network: connect to whoever invites.
#[utoipa::path(post, path = "/join", tag = "peers", request_body = JoinRequest,
    responses((status = 200, body = JoinDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn join(
    State(node): State<Arc<Node>>,
    Json(request): Json<JoinRequest>,
) -> Result<Answer<JoinDocument>> {
    let began = Instant::now();
    let ticket = read_ticket(&node, &request.ticket)?;
    if ticket.inviter == node.overlay.id() {
        return Err(ApiFailure::new(ErrorCode::Conflict, "this node made the ticket itself")
            .hint("give it to somebody else, or try it here: wattle -n bob join <ticket>"));
    }
    if let Some(name) = &request.name {
        check_name(name).map_err(ApiFailure::usage)?;
    }
    let whom = resolve(&node, &request.ticket).await?;
    let info = dial(&node, &whom, timeout(request.timeout_ms, TIMEOUT)).await?;
    if request.name.is_some() {
        set_name(&node, ticket.inviter, request.name).await?;
    }
    let (mut doc, mut room) = (None, None);
    if let Some(document) = ticket.document {
        let id = docs::open_ticket(&node, document, ticket.inviter, request.timeout_ms).await?;
        room = rooms::enter(&node, id, request.nick).await?;
        doc = Some(docs::doc_of(&node, id).await?);
    }
    Ok(Answer(JoinDocument {
        schema: JoinSchema::V1,
        network: ticket.network.to_string(),
        peer: node.peer(&info),
        room,
        doc,
        took_ms: whole_millis(began.elapsed()),
    }))
}

#[cfg(test)]
mod tests {
    use wattle_net::LanStatus;

    use super::*;

    #[test]
    fn a_ticket_names_outside_addresses_first_and_this_machine_only_when_there_is_no_other() {
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Address>>();
        let mut status = Status {
            listening: addresses(&[
                "/ip4/127.0.0.1/udp/7710/quic-v1",
                "/ip4/127.0.0.1/tcp/7710",
                "/ip4/192.168.1.5/udp/7710/quic-v1",
                "/ip4/192.168.1.5/tcp/7710",
                "/ip4/169.254.1.1/tcp/7710",
            ]),
            external: addresses(&["/ip4/81.2.69.142/udp/4000/quic-v1"]),
            peers: Vec::new(),
            dht_server: true,
            table_size: 0,
            table_buckets: 0,
            records_held: 0,
            published: 0,
            lan: LanStatus::Off,
            bootstrap: 0,
            address_book: 0,
            inbound_seen: 0,
            up: Duration::ZERO,
        };
        let shown = |status: &Status| endpoints(status).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&status), ["81.2.69.142:4000", "192.168.1.5:7710"]);
        assert!(endpoints(&status).iter().any(|endpoint| endpoint.quic && endpoint.tcp));
        status.external.clear();
        status.listening.truncate(2);
        assert_eq!(shown(&status), ["127.0.0.1:7710"]);
    }
}
