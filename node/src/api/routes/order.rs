//! Routes about the ordered log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};
use utoipa::IntoParams;
use wattle_order::limits::ENTRY_LIFE_MAX_MS;
use wattle_order::payloads::NotTaken;
use wattle_order::{Committee, Digest, Entry, Genesis, Height, Whole, transaction_hash};
use wattle_types::{NodeId, UnixTime};

use super::super::documents::{
    Bytes, ErrorDocument, NodeEvent, OrderBlock, OrderBlockDocument, OrderBlockSchema, OrderEntry,
    OrderEntryState, OrderHighQc, OrderJoinDocument, OrderJoinRequest, OrderJoinSchema, OrderLatency,
    OrderLine, OrderLogDocument, OrderLogSchema, OrderRole, OrderStatusDocument, OrderStatusSchema,
    OrderSubmitDocument, OrderSubmitRequest, OrderSubmitSchema, OrderSummary, OrderValidator,
    OrderValidatorsDocument, OrderValidatorsSchema, OrderVerifyDocument, OrderVerifyRequest,
    OrderVerifySchema, OrderWait,
};
use super::super::extract::{Json, Parameters, Part, STREAM_LINES_MAX, json_lines, timeout};
use super::super::failure::{ApiFailure, words};
use super::members::called;
use super::order_changes as changes;
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::{Node, count, millis, whole_millis};
use crate::order::receipts::{self, ReceiptFile, Sound};
use crate::order::{
    self, DiskError, Event, Fate, JoinError, Log, Place, Quorum, SubmitError, ValidatorView, View,
    WholeBlock, silenced,
};

type Result<T> = std::result::Result<T, ApiFailure>;

/// For what nobody reads but people.
const NOTE: &str = "note/1";
/// How long an entry may be ordered, when nobody says.
const LIFE: Duration = Duration::from_secs(60);
/// How often whoever waits for a commit is asked whether there can be one.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So often in a row there is no quorum before nobody waits any more.
const LOOKS: u32 = 3;
/// Entries in one answer.
const ENTRIES_MAX: usize = 1000;
/// Blocks that one answer reads; the next goes on there.
const BLOCKS_MAX: usize = 4096;
/// Of them, read at a time.
const BLOCKS_AT_ONCE: usize = 64;

pub(super) fn log(node: &Node) -> Result<Arc<Log>> {
    if let Some(log) = node.order.log() {
        return Ok(log);
    }
    Err(match node.order.broken() {
        Some(why) => ApiFailure::new(ErrorCode::Failed, why).detail("the log", "takes no part until then"),
        None => ApiFailure::new(ErrorCode::NotFound, "this node keeps no ordered log")
            .detail("join one", "wattle order join genesis.json")
            .detail("begin one", "wattle order init --validators A,B,C,D -o genesis.json")
            .hint("wattle order join genesis.json"),
    })
}

async fn view(log: &Log) -> Result<Box<View>> {
    log.view().await.ok_or_else(|| wattle_net::Stopped.into())
}

pub(super) async fn lately(log: &Log) -> Result<Arc<View>> {
    log.lately().await.ok_or_else(|| wattle_net::Stopped.into())
}

/// Who could vote now, as far as this node can tell.
pub(super) async fn quorum(node: &Node, log: &Log, view: &View) -> Result<Quorum> {
    let mut connected = Vec::new();
    if log.seat().is_none() {
        connected.extend(node.overlay.status().await?.peers.iter().map(|peer| peer.peer));
    }
    let members = node.members.view();
    let is_connected = |id| connected.contains(&id);
    Ok(order::quorum(&log.committee(), node.overlay.id(), view, &members, unix_now(), is_connected))
}

/// Fails where an entry would not be ordered now; `nothing` says what became of it.
pub(super) async fn check_quorum(node: &Node, nothing: &str) -> Result<()> {
    let log = log(node)?;
    let standing = quorum(node, &log, &*view(&log).await?).await?;
    if standing.holds { Ok(()) } else { Err(no_quorum(node, &standing).detail("", nothing)) }
}

pub(super) fn disk_failure(error: DiskError) -> ApiFailure {
    ApiFailure::new(ErrorCode::Failed, error.to_string())
}

pub(super) fn role(log: &Log) -> OrderRole {
    if log.seat().is_some() { OrderRole::Validator } else { OrderRole::Follower }
}

fn read_genesis(genesis: serde_json::Value) -> Result<Genesis> {
    let invalid = |error: serde_json::Error| {
        ApiFailure::new(ErrorCode::Invalid, format!("not a genesis: {error}"))
            .hint("wattle order init --validators A,B,C,D -o genesis.json")
    };
    let read: Genesis = serde_json::from_value(genesis.clone()).map_err(invalid)?;
    // Whoever reads it otherwise would name the log otherwise.
    match serde_json::to_value(&read) {
        Ok(again) if again == genesis => Ok(read),
        _ => Err(ApiFailure::new(
            ErrorCode::Invalid,
            "not a genesis: it says more than one does, or otherwise",
        )),
    }
}

/// Keep a log from now on: vote, if this node's key is in its genesis, and follow it if not.
#[utoipa::path(post, path = "/order/join", tag = "order", request_body = OrderJoinRequest,
    responses((status = 200, body = OrderJoinDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn join(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderJoinRequest>,
) -> Result<Answer<OrderJoinDocument>> {
    let genesis = read_genesis(request.genesis)?;
    let log = node.order.join(genesis).await.map_err(join_failure)?;
    Ok(Answer(OrderJoinDocument {
        schema: OrderJoinSchema::V1,
        chain: log.chain().to_string(),
        role: role(&log),
        validators: count(log.committee().validators().list().len()),
        height: log.tip().borrow().0,
    }))
}

pub(super) fn join_failure(error: JoinError) -> ApiFailure {
    let code = match &error {
        JoinError::OtherNetwork { .. } => ErrorCode::Invalid,
        JoinError::OtherLog { .. } => ErrorCode::Conflict,
        JoinError::Stopped => ErrorCode::NoNode,
        JoinError::Disk(_) | JoinError::Corrupt(_) | JoinError::NotSaved(_) => ErrorCode::Failed,
    };
    let failure = ApiFailure::new(code, error.to_string());
    match error {
        JoinError::OtherLog { .. } => failure.hint("wattle -n other run, and join there"),
        JoinError::OtherNetwork { theirs, .. } => {
            failure.hint(format!("wattle -n other init --network {theirs}"))
        }
        _ => failure,
    }
}

/// Append an entry. While too few validators are there to order it, that is said at once, and nothing is kept of it.
#[utoipa::path(post, path = "/order/entries", tag = "order", request_body = OrderSubmitRequest,
    responses((status = 200, body = OrderSubmitDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn submit(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderSubmitRequest>,
) -> Result<Answer<OrderSubmitDocument>> {
    let began = Instant::now();
    let log = log(&node)?;
    let entry = read_entry(&request)?;
    let (hash, until) = (entry.transaction(), entry.entry().until);
    node.apps.check(&entry.entry().app, &entry.entry().data).await?;
    let seen = lately(&log).await?;
    let standing = quorum(&node, &log, &seen).await?;
    // What is ordered already needs no quorum.
    if !standing.holds && log.place(hash).await.map_err(disk_failure)?.is_none() {
        let failure = no_quorum(&node, &standing);
        return Err(
            failure.detail("", "your entry was NOT accepted; wattle order status tells when it will be")
        );
    }
    if let Some(failure) = behind_the_log(&seen, until)
        && log.place(hash).await.map_err(disk_failure)?.is_none()
    {
        return Err(failure);
    }
    let fate = log.submit(Arc::new(entry)).await.map_err(submit_failure)?;
    let submitted = OrderSubmitDocument {
        schema: OrderSubmitSchema::V1,
        state: OrderEntryState::Accepted,
        entry: hash.to_string(),
        height: None,
        index: None,
        took_ms: whole_millis(began.elapsed()),
        receipt_b64: None,
    };
    if request.wait == OrderWait::Accept {
        return Ok(Answer(submitted));
    }
    let place = Waiting { hash, until }.wait(Patience::new(&node, &log, request.timeout_ms), fate).await?;
    let receipt = log.receipt(place).await.map_err(disk_failure)?;
    Ok(Answer(OrderSubmitDocument {
        state: OrderEntryState::Ordered,
        height: Some(place.height.0),
        index: Some(u64::from(place.index)),
        took_ms: whole_millis(began.elapsed()),
        receipt_b64: receipt.map(|(receipt, entry)| Bytes(ReceiptFile::new(receipt, &entry).to_bytes())),
        ..submitted
    }))
}

fn read_entry(request: &OrderSubmitRequest) -> Result<Whole> {
    let OrderSubmitRequest { app, data_b64, salt, until_ms, .. } = request;
    entry(app.clone(), &data_b64.0, *salt, *until_ms)
}

/// An entry for the log, if it can be one.
pub(super) fn entry(
    app: Option<String>,
    data: &[u8],
    salt: Option<u64>,
    until_ms: Option<u64>,
) -> Result<Whole> {
    let now = unix_now();
    let until = until_ms.map_or_else(|| now.after(LIFE), UnixTime::from_millis);
    let salt = match salt {
        Some(salt) => salt,
        None => getrandom::u64().map_err(|error| ApiFailure::new(ErrorCode::Failed, error.to_string()))?,
    };
    let app = app.unwrap_or_else(|| NOTE.to_owned());
    let entry = Entry { app, data: ByteBuf::from(data.to_vec()), until, salt };
    let entry = Whole::read(entry.encode().into()).map_err(ApiFailure::usage)?;
    let most = Duration::from_millis(ENTRY_LIFE_MAX_MS);
    if until < now || until > now.after(most) {
        let most = words(most);
        return Err(ApiFailure::usage(format!("until_ms is over, or more than {most} ahead")));
    }
    Ok(entry)
}

pub(super) fn submit_failure(error: SubmitError) -> ApiFailure {
    let message = error.to_string();
    match error {
        SubmitError::NotTaken(NotTaken::Busy(_)) => {
            let document = ErrorDocument::new(ErrorCode::Failed, message).hint("try again more slowly");
            ApiFailure::with_status(axum::http::StatusCode::SERVICE_UNAVAILABLE, document)
        }
        SubmitError::NotTaken(NotTaken::Disk) => {
            let document = ErrorDocument::new(ErrorCode::Failed, message)
                .hint("see why in wattle logs, and start it again");
            ApiFailure::with_status(axum::http::StatusCode::INSUFFICIENT_STORAGE, document)
        }
        SubmitError::NotTaken(NotTaken::DiskFull) => {
            let document =
                ErrorDocument::new(ErrorCode::Failed, message).hint("free some space: it goes on by itself");
            ApiFailure::with_status(axum::http::StatusCode::INSUFFICIENT_STORAGE, document)
        }
        SubmitError::NotTaken(NotTaken::Invalid(_) | NotTaken::Ordered) => ApiFailure::usage(message),
        SubmitError::Disk(error) => disk_failure(error),
        SubmitError::Stopped => wattle_net::Stopped.into(),
    }
}

/// An entry whose time is over by the clock of the log, while this node's says that it has just begun: no block will
/// ever have it.
pub(super) fn behind_the_log(view: &View, until: UnixTime) -> Option<ApiFailure> {
    let tip = view.tip_time.filter(|tip| *tip > until)?;
    let behind = words(tip.since(unix_now()));
    let message = format!("the clock of this node is {behind} behind that of the log");
    let failure = ApiFailure::new(ErrorCode::Failed, message);
    let what = "your entry was NOT accepted: its time was over before it began";
    Some(failure.detail("", what).hint("set the clock of this machine"))
}

/// Says who is missing.
pub(super) fn no_quorum(node: &Node, quorum: &Quorum) -> ApiFailure {
    let all = quorum.reachable.len() + quorum.missing.len();
    let message = format!(
        "no quorum: {} of {all} validators reachable ({} needed)",
        quorum.reachable.len(),
        quorum.needed
    );
    let reachable: Vec<String> = quorum.reachable.iter().map(|id| shown(node, *id)).collect();
    let missing: Vec<String> =
        quorum.missing.iter().map(|(id, why)| format!("{} ({why})", shown(node, *id))).collect();
    ApiFailure::new(ErrorCode::NoQuorum, message)
        .detail("reachable", reachable.join(", "))
        .detail("missing", missing.join(", "))
        .hint("wattle order status")
}

/// Its petname here, else what it calls itself, else the end of its id.
fn shown(node: &Node, id: NodeId) -> String {
    if id == node.overlay.id() {
        return "this node".to_owned();
    }
    called(node, id).unwrap_or_else(|| format!("..{}", id.short()))
}

/// How long whoever submitted waits, and whether there is hope.
pub(super) struct Patience<'a> {
    node: &'a Node,
    log: &'a Log,
    limit: Duration,
    ends: tokio::time::Instant,
    /// So often in a row there was no quorum.
    without: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(node: &'a Node, log: &'a Log, timeout_ms: Option<u64>) -> Self {
        let limit = timeout(timeout_ms, Duration::from_secs(30));
        Self { node, log, limit, ends: tokio::time::Instant::now() + limit, without: 0 }
    }

    /// The fate of an entry, or why nobody waits for it any more.
    pub(super) async fn fate(&mut self, fate: &mut oneshot::Receiver<Fate>) -> Result<Fate> {
        loop {
            tokio::select! {
                biased;
                fate = &mut *fate => return fate.map_err(|_dropped| {
                    ApiFailure::new(ErrorCode::Failed, "the log begins anew here, or the node stops")
                }),
                () = tokio::time::sleep_until(self.ends) => {
                    let message = format!("timed out after {} waiting for the commit", words(self.limit));
                    return Err(ApiFailure::new(ErrorCode::Timeout, message));
                }
                () = self.node.stop.cancelled() => return Err(wattle_net::Stopped.into()),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let standing = quorum(self.node, self.log, &*lately(self.log).await?).await?;
                    self.without = if standing.holds { 0 } else { self.without + 1 };
                    if self.without >= LOOKS {
                        return Err(no_quorum(self.node, &standing));
                    }
                }
            }
        }
    }
}

/// One who waits for an entry.
pub(super) struct Waiting {
    pub(super) hash: Digest,
    pub(super) until: UnixTime,
}

impl Waiting {
    pub(super) async fn wait(
        &self,
        mut patience: Patience<'_>,
        mut fate: oneshot::Receiver<Fate>,
    ) -> Result<Place> {
        match patience.fate(&mut fate).await {
            Ok(Fate::Ordered(place)) => Ok(place),
            Ok(Fate::Expired) => Err(self.expired()),
            Ok(Fate::Unknown) => {
                let message = "the entry was not ordered since this node went on from a snapshot";
                let failure = ApiFailure::new(ErrorCode::Timeout, message);
                Err(failure
                    .detail("", "whether it was ordered before that is NOT KNOWN here")
                    .detail("find out", format!("wattle order get {}, on another node", self.hash)))
            }
            Err(failure) => Err(self.unknown(failure)),
        }
    }

    /// Nobody knows yet how it ends; the caller is told how to find out.
    fn unknown(&self, failure: ApiFailure) -> ApiFailure {
        let until = timestamp(self.until);
        failure
            .detail(
                "",
                format!("whether your entry is ordered is NOT KNOWN yet; after {until} it will not be"),
            )
            .detail("find out", format!("wattle order get {}", self.hash))
            .hint(format!("wattle order get {}", self.hash))
    }

    fn expired(&self) -> ApiFailure {
        let message = "the entry was not ordered in its time, and never will be";
        ApiFailure::new(ErrorCode::Timeout, message)
            .detail("its time", format!("was over at {}", timestamp(self.until)))
            .hint("wattle order status, then submit it again")
    }
}

/// How the log does.
#[utoipa::path(get, path = "/order/status", tag = "order",
    responses((status = 200, body = OrderStatusDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn status(State(node): State<Arc<Node>>) -> Result<Answer<OrderStatusDocument>> {
    let log = log(&node)?;
    let view = view(&log).await?;
    let quorum = quorum(&node, &log, &view).await?;
    let of = count(view.validators.len());
    let first = log.first().await.map_err(disk_failure)?.0;
    let (status, committee) = (&view.status, log.committee());
    Ok(Answer(OrderStatusDocument {
        schema: OrderStatusSchema::V1,
        engine: "hotstuff".to_owned(),
        chain: log.chain().to_string(),
        role: role(&log),
        signs: silenced(status).is_none() && !(status.wary || status.syncing),
        starting: status.wary,
        syncing: status.syncing,
        epoch: view.epoch.0,
        view: status.round.0,
        view_age_ms: whole_millis(view.round_age),
        height: log.tip().borrow().0,
        first,
        leader: status.leader,
        high_qc: view.high_qc.map(|qc| OrderHighQc {
            view: qc.round.0,
            height: qc.height.0,
            votes: count(qc.votes),
            of,
            age_ms: whole_millis(qc.age),
        }),
        quorum: count(quorum.needed),
        reachable: count(quorum.reachable.len()),
        has_quorum: quorum.holds,
        tps: (view.rate * 10.0).round() / 10.0,
        commit_ms: latency(&view),
        timeouts_last_hour: count(view.timeouts),
        waiting: count(view.waiting),
        validators: validator_rows(&node, &view, &quorum),
        changes: view.changes.iter().map(|change| changes::row(&committee, change)).collect(),
        alarms: view.alarms.clone(),
    }))
}

fn latency(view: &View) -> Option<OrderLatency> {
    let at = |percent| view.latency(percent).map(millis);
    Some(OrderLatency { p50: at(50)?, p99: at(99)? })
}

fn validator_rows(node: &Node, view: &View, quorum: &Quorum) -> Vec<OrderValidator> {
    let me = node.overlay.id();
    let row = |validator: &ValidatorView| {
        let why = quorum.missing.iter().find(|(id, _)| *id == validator.id).map(|(_, why)| why.clone());
        let name =
            if validator.id == me { Some(node.paths.node.to_string()) } else { called(node, validator.id) };
        OrderValidator {
            id: validator.id,
            name,
            weight: validator.weight,
            votes_last_20: count(validator.votes.iter().filter(|voted| **voted).count()),
            votes: validator.votes.iter().map(|voted| if *voted { '#' } else { '.' }).collect(),
            last_vote_ms_ago: validator.last_vote.map(whole_millis),
            reachable: why.is_none(),
            why,
            myself: validator.id == me,
        }
    };
    view.validators.iter().map(row).collect()
}

/// How the log does, and who could vote now; nothing when there is none.
pub(super) async fn standing(node: &Node) -> Result<Option<(Box<View>, Quorum)>> {
    let Some(log) = node.order.log() else { return Ok(None) };
    let view = view(&log).await?;
    let standing = quorum(node, &log, &view).await?;
    Ok(Some((view, standing)))
}

/// The log at a glance, for the status of the node; nothing when there is none.
pub(super) async fn summary(node: &Node) -> Result<Option<OrderSummary>> {
    let Some(log) = node.order.log() else {
        return Ok(node.order.broken().map(|_why| OrderSummary {
            role: OrderRole::Broken,
            seat: None,
            of: 0,
            height: 0,
            view: 0,
            leader: None,
            leader_name: None,
            last_commit_ms_ago: None,
            quorum: false,
        }));
    };
    let view = view(&log).await?;
    let quorum = quorum(node, &log, &view).await?;
    let leader = view.status.leader;
    Ok(Some(OrderSummary {
        role: role(&log),
        seat: log.seat().map(|seat| u64::from(seat.0) + 1),
        of: count(view.validators.len()),
        height: log.tip().borrow().0,
        view: view.status.round.0,
        leader,
        leader_name: leader.map(|id| shown(node, id)),
        last_commit_ms_ago: view.high_qc.map(|qc| whole_millis(qc.age)),
        quorum: quorum.holds,
    }))
}

/// Who votes, and how each does.
#[utoipa::path(get, path = "/order/validators", tag = "order",
    responses((status = 200, body = OrderValidatorsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn validators(State(node): State<Arc<Node>>) -> Result<Answer<OrderValidatorsDocument>> {
    let log = log(&node)?;
    let view = view(&log).await?;
    let quorum = quorum(&node, &log, &view).await?;
    Ok(Answer(OrderValidatorsDocument {
        schema: OrderValidatorsSchema::V1,
        chain: log.chain().to_string(),
        validators: validator_rows(&node, &view, &quorum),
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EntriesQuery {
    /// From this height on; the newest when absent.
    from: Option<u64>,
    /// So many at most; 20 when absent, 1000 at most.
    count: Option<usize>,
    /// Only those of this app.
    app: Option<String>,
}

/// Entries of the log, in order.
#[utoipa::path(get, path = "/order/entries", tag = "order", params(EntriesQuery),
    responses((status = 200, body = OrderLogDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<EntriesQuery>,
) -> Result<Answer<OrderLogDocument>> {
    let log = log(&node)?;
    let height = log.tip().borrow().0;
    let most = query.count.unwrap_or(20).clamp(1, ENTRIES_MAX);
    let app = query.app.as_deref();
    let (entries, next) = match query.from {
        Some(from) => forward(&log, from, most, app).await?,
        None => (newest(&log, height, most, app).await?, height.saturating_add(1)),
    };
    Ok(Answer(OrderLogDocument { schema: OrderLogSchema::V1, height, next, entries }))
}

/// Entries from a height on, in whole blocks but for the first that has more than fit; and where to read on.
async fn forward(log: &Log, from: u64, most: usize, app: Option<&str>) -> Result<(Vec<OrderEntry>, u64)> {
    let (mut found, mut next) = (Vec::new(), from.max(1));
    for _ in 0..BLOCKS_MAX / BLOCKS_AT_ONCE {
        let blocks = log.blocks_whole(Height(next - 1), BLOCKS_AT_ONCE).await.map_err(disk_failure)?;
        if blocks.is_empty() {
            break;
        }
        for block in &blocks {
            let here = rows_of(block, app);
            if !found.is_empty() && found.len() + here.len() > most {
                return Ok((found, next));
            }
            found.extend(here);
            next = block.block.header().height.0.saturating_add(1);
        }
        if found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    Ok((found, next))
}

/// The newest entries, in order.
async fn newest(log: &Log, height: u64, most: usize, app: Option<&str>) -> Result<Vec<OrderEntry>> {
    let (mut found, mut upto) = (Vec::new(), height);
    for _ in 0..BLOCKS_MAX / BLOCKS_AT_ONCE {
        if upto == 0 || found.len() >= most {
            break;
        }
        let span = u64::try_from(BLOCKS_AT_ONCE).unwrap_or(1);
        let above = upto.saturating_sub(span);
        let many = usize::try_from(upto - above).unwrap_or(BLOCKS_AT_ONCE);
        let blocks = log.blocks_whole(Height(above), many).await.map_err(disk_failure)?;
        let mut here: Vec<OrderEntry> = blocks.iter().flat_map(|block| rows_of(block, app)).collect();
        here.append(&mut found);
        found = here;
        upto = above;
    }
    let extra = found.len().saturating_sub(most);
    found.drain(..extra);
    Ok(found)
}

fn rows_of(block: &WholeBlock, app: Option<&str>) -> Vec<OrderEntry> {
    let header = block.block.header();
    let rows = block.entries.iter().filter_map(|(place, bytes)| {
        // What is no entry is in no block that was voted for.
        let entry = Entry::decode(bytes).ok()?;
        Some(OrderEntry {
            height: header.height.0,
            index: u64::from(place.index),
            entry: transaction_hash(bytes).to_string(),
            app: entry.app,
            time: timestamp(header.time),
            data_b64: Bytes(entry.data.into_vec()),
        })
    });
    rows.filter(|row| app.is_none_or(|app| row.app == app)).collect()
}

fn block_row(log: &Log, whole: &WholeBlock) -> OrderBlock {
    let header = whole.block.header();
    let committee = log.committee_of(header.epoch);
    OrderBlock {
        height: header.height.0,
        block: header.id().to_string(),
        view: header.round.0,
        leader: committee.and_then(|committee| committee.id(header.author)),
        time: timestamp(header.time),
        count: count(whole.entries.len()),
    }
}

/// What somebody asks for.
enum At {
    Block(Height),
    Entry(Place),
}

async fn read_at(log: &Log, text: &str) -> Result<At> {
    let usage =
        || ApiFailure::usage(format!("`{text}` is no place of the log: 412, 412:3, or the hash of an entry"));
    let number = |text: &str| text.parse::<u64>().map_err(|_not_a_number| usage());
    if text.len() == 64 {
        let hash: Digest = serde_json::from_value(text.into()).map_err(|_not_hex| usage())?;
        let place = log.place(hash).await.map_err(disk_failure)?;
        let first = log.first().await.map_err(disk_failure)?;
        let height = log.tip().borrow().0;
        return place.map(At::Entry).ok_or_else(|| {
            let message = match first.0 {
                1 => format!("no entry {text} is ordered, up to height {height}"),
                first => format!("no entry {text} is ordered from height {first} to {height}; what was before is not kept here"),
            };
            ApiFailure::new(ErrorCode::NotFound, message)
                .detail("maybe", "it waits; a minute after it was submitted it is ordered or never will be")
                .hint("wattle order status")
        });
    }
    match text.split_once(':') {
        None => Ok(At::Block(Height(number(text)?))),
        Some((height, index)) => {
            let index = u32::try_from(number(index)?).map_err(|_large| usage())?;
            Ok(At::Entry(Place { height: Height(number(height)?), index }))
        }
    }
}

/// One block with its entries, or one entry with its receipt.
#[utoipa::path(get, path = "/order/entries/{at}", tag = "order",
    params(("at" = String, Path, description = "A height (412), a place (412:3), or the hash of an entry")),
    responses((status = 200, body = OrderBlockDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn get(State(node): State<Arc<Node>>, Part(at): Part) -> Result<Answer<OrderBlockDocument>> {
    let log = log(&node)?;
    let (height, index) = match read_at(&log, &at).await? {
        At::Block(height) => (height, None),
        At::Entry(place) => (place.height, Some(place.index)),
    };
    let first = log.first().await.map_err(disk_failure)?;
    let absent = || {
        let message = if Height(0) < height && height < first {
            format!(
                "{at} is not kept here: this node begins at height {first}, with a snapshot of what was before"
            )
        } else {
            format!("nothing stands at {at}; the log is at height {}", *log.tip().borrow())
        };
        ApiFailure::new(ErrorCode::NotFound, message).hint("wattle order log")
    };
    let block = log.block(height).await.map_err(disk_failure)?.ok_or_else(absent)?;
    let mut found = rows_of(&block, None);
    let mut receipt_b64 = None;
    if let Some(index) = index {
        found.retain(|row| row.index == u64::from(index));
        let proof = log.receipt(Place { height, index }).await.map_err(disk_failure)?.ok_or_else(absent)?;
        receipt_b64 = Some(Bytes(ReceiptFile::new(proof.0, &proof.1).to_bytes()));
    }
    Ok(Answer(OrderBlockDocument {
        schema: OrderBlockSchema::V1,
        block: block_row(&log, &block),
        entries: found,
        receipt_b64,
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowQuery {
    /// From this height on; what comes from now on when absent.
    from: Option<u64>,
    /// Blocks instead of entries, empty ones too.
    #[serde(default)]
    blocks: bool,
    /// Only entries of this app.
    app: Option<String>,
}

/// The log as it grows, as JSON Lines, without a gap.
#[utoipa::path(get, path = "/order/follow", tag = "order", params(FollowQuery),
    responses((status = 200, body = OrderLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn follow(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<FollowQuery>,
) -> Result<Response> {
    let log = log(&node)?;
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    tokio::spawn(async move {
        let forwarding = forward_lines(&log, &query, &sender);
        let ended = tokio::select! {
            ended = forwarding => ended,
            () = sender.closed() => return,
            () = node.stop.cancelled() => Err(wattle_net::Stopped.into()),
        };
        if let Err(failure) = ended {
            let error = failure.into_document();
            // Ignored because this is the last line, read or not.
            drop(sender.send(OrderLine::Error { ts: Timestamp::now(), error }).await);
        }
    });
    Ok(json_lines(lines))
}

async fn forward_lines(log: &Log, query: &FollowQuery, sender: &mpsc::Sender<OrderLine>) -> Result<()> {
    let mut tip = log.tip();
    let mut told = query.from.map_or_else(|| *tip.borrow(), |from| Height(from.saturating_sub(1)));
    loop {
        let blocks = log.blocks_whole(told, BLOCKS_AT_ONCE).await.map_err(disk_failure)?;
        if blocks.is_empty() && tip.wait_for(|tip| *tip > told).await.is_err() {
            return Err(wattle_net::Stopped.into());
        }
        for block in &blocks {
            told = block.block.header().height;
            let ts = Timestamp::now();
            let lines: Vec<OrderLine> = if query.blocks {
                vec![OrderLine::Block { ts, block: block_row(log, block) }]
            } else {
                let rows = rows_of(block, query.app.as_deref()).into_iter();
                rows.map(|entry| OrderLine::Entry { ts, entry }).collect()
            };
            for line in lines {
                if sender.send(line).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// As an event of the node.
pub(crate) fn event(event: Event) -> NodeEvent {
    match event {
        Event::Committed { height, round, entries, leader } => {
            NodeEvent::OrderCommitted { height: height.0, view: round.0, entries: count(entries), leader }
        }
        Event::Epoch { epoch, height, validators } => {
            NodeEvent::OrderEpoch { epoch: epoch.0, height: height.0, validators }
        }
        Event::Evidence { validator, what } => NodeEvent::OrderEvidence { peer: validator, what },
        Event::Misbehaved { validator } => NodeEvent::OrderMisbehaved { peer: validator },
        Event::Alarm { what } => NodeEvent::OrderAlarm { what },
    }
}

/// Check a receipt.
#[utoipa::path(post, path = "/order/verify", tag = "order", request_body = OrderVerifyRequest,
    responses((status = 200, body = OrderVerifyDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn verify(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderVerifyRequest>,
) -> Result<Answer<OrderVerifyDocument>> {
    let genesis = match request.genesis {
        Some(genesis) => read_genesis(genesis)?,
        None => log(&node)?.genesis().clone(),
    };
    Ok(Answer(verified(&genesis, &request.receipt).map_err(ApiFailure::from)?))
}

/// Checks a receipt against the genesis of its log.
pub(crate) fn verified(
    genesis: &Genesis,
    receipt: &serde_json::Value,
) -> std::result::Result<OrderVerifyDocument, ErrorDocument> {
    let Sound { place, entry, receipt, committee } =
        receipts::check(&Committee::genesis(genesis), receipt)
            .map_err(|why| ErrorDocument::new(ErrorCode::Invalid, format!("invalid: {why}")))?;
    let signers = receipt.commit.signers.seats().filter_map(|seat| committee.id(seat)).collect();
    let executed = receipt.header.executed;
    Ok(OrderVerifyDocument {
        schema: OrderVerifySchema::V1,
        chain: committee.chain().to_string(),
        entry: receipt.transaction.to_string(),
        app: entry.app,
        data_b64: Bytes(entry.data.into_vec()),
        height: place.height.0,
        index: u64::from(place.index),
        signers,
        of: count(committee.validators().list().len()),
        state_root: (executed.height > Height(0)).then(|| executed.root.to_string()),
    })
}
