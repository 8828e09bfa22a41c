//! The DHT from the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::part;
use super::errors::{Failure, of_io};
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, tame, tame_text};
use super::values::{Span, as_ms, millis, short};
use crate::api::documents::{
    Bytes, DhtClosestDocument, DhtFindPeerRequest, DhtGetDocument, DhtPeerDocument, DhtProvideDocument,
    DhtProvideRequest, DhtProvidersDocument, DhtProvidersRequest, DhtPutDocument, DhtPutRequest, DhtRecord,
    DhtStatsDocument, DhtTableDocument, DhtTargetRequest, Percentiles,
};
use crate::exit::ErrorCode;

/// Peers a bucket holds: Kademlia's k.
const BUCKET_PEERS: usize = 20;

/// The distributed hash table
#[derive(Args)]
pub(super) struct Dht {
    #[command(subcommand)]
    command: DhtCommand,
}

#[derive(Subcommand)]
enum DhtCommand {
    Put(Put),
    Get(Get),
    Provide(Provide),
    FindProviders(FindProviders),
    FindPeer(FindPeer),
    Closest(Closest),
    Table(ShowTable),
    Trace(Trace),
    Stats(Stats),
}

/// Store a record
#[derive(Args)]
struct Put {
    /// A name, signed by this node; or `hash:`, and the value makes the key
    key: String,
    /// The value; `-` (or nothing) reads stdin
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Store the contents of a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Do not announce the name: only who knows whose record it is finds it
    #[arg(long)]
    mine: bool,
    /// When a signed record ends, at most 48h from now; without it, this node renews it every day
    #[arg(long, value_name = "D")]
    ttl: Option<Span>,
}

/// Fetch a record
#[derive(Args)]
struct Get {
    /// A record key
    key: String,
    /// Show everybody who had it
    #[arg(short, long)]
    all: bool,
    /// Write the value to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Announce that this node has or offers something
#[derive(Args)]
struct Provide {
    /// A name, or `hash:` and a hash
    key: String,
    /// No longer announce it
    #[arg(long)]
    stop: bool,
}

/// Find who announced something
#[derive(Args)]
struct FindProviders {
    /// A name, or `hash:` and a hash
    key: String,
    /// Stop after N
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    count: u64,
}

/// Find the addresses of a peer
#[derive(Args)]
struct FindPeer {
    /// A petname, short id or full id
    peer: String,
}

/// Find the peers nearest to a key, by XOR
#[derive(Args)]
struct Closest {
    /// A record key or a peer
    #[arg(value_name = "KEY|PEER")]
    target: String,
}

/// Show my routing table, bucket by bucket
#[derive(Args)]
struct ShowTable {
    /// How full each bucket is, as bars
    #[arg(long)]
    bars: bool,
}

/// Follow a lookup hop by hop
#[derive(Args)]
pub(super) struct Trace {
    /// A record key or a peer
    #[arg(value_name = "KEY|PEER")]
    pub(super) target: String,
    /// Draw it into FILE
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// Show queries, success and latencies since the start
#[derive(Args)]
struct Stats {}

pub(super) async fn dht(session: &Session, args: Dht) -> Result<(), Failure> {
    match args.command {
        DhtCommand::Put(args) => put(session, &args).await,
        DhtCommand::Get(args) => get(session, &args).await,
        DhtCommand::Provide(args) => provide(session, &args).await,
        DhtCommand::FindProviders(args) => find_providers(session, &args).await,
        DhtCommand::FindPeer(args) => find_peer(session, &args).await,
        DhtCommand::Closest(args) => closest(session, &args).await,
        DhtCommand::Table(args) => table(session, &args).await,
        DhtCommand::Trace(args) => super::trace::trace(session, &args).await,
        DhtCommand::Stats(_) => stats(session).await,
    }
}

async fn put(session: &Session, args: &Put) -> Result<(), Failure> {
    let value = match (&args.file, args.value.as_deref()) {
        (Some(file), _) => std::fs::read(file).map_err(|error| of_io("read", file, &error))?,
        (None, Some(value)) if value != "-" => value.as_bytes().to_vec(),
        (None, _) => session.stdin().await?,
    };
    let request = DhtPutRequest {
        value_b64: Bytes(value),
        mine: args.mine,
        ttl_ms: args.ttl.map(|ttl| as_ms(ttl.0)),
        timeout_ms: session.timeout_ms(),
    };
    let path = format!("{}/{}", routes::DHT_RECORDS, part(&args.key));
    let answer = session.client()?.ask::<DhtPutDocument>(Method::PUT, &path, Some(&request)).await?;
    for warning in &answer.document.warnings {
        session.out.warn(&tame(warning));
    }
    session.show(&answer, |answer| {
        let stored = answer.stored_on.len();
        let mut text = format!(
            "stored {} B on {stored} of {} peers in {}\n  key    {}\n  fetch  wattle dht get {}\n",
            answer.bytes,
            answer.offered_to,
            took(answer.took_ms),
            tame(&answer.key),
            tame(&answer.get),
        );
        if let Some(sequence) = answer.sequence {
            text.push_str(&format!("  signed, number {sequence}"));
            text.push_str(&answer.expires.map(|at| format!(", valid until {at}")).unwrap_or_default());
            text.push_str(if answer.renewed { ", renewed before then" } else { "" });
            text.push('\n');
        }
        Shown { text, ids: vec![answer.get.clone()] }
    })?;
    // How many of those asked keep a record differs from network to network; the node knows when it was too
    // few.
    if answer.document.warnings.is_empty() { Ok(()) } else { Err(ErrorCode::Partial.into()) }
}

async fn get(session: &Session, args: &Get) -> Result<(), Failure> {
    let mut path = format!("{}/{}?all={}", routes::DHT_RECORDS, part(&args.key), args.all);
    path.push_str(&session.timeout_ms().map(|ms| format!("&timeout_ms={ms}")).unwrap_or_default());
    let answer = session.client()?.get::<DhtGetDocument>(&path).await?;
    let document = &answer.document;
    for warning in &document.warnings {
        session.out.warn(&tame(warning));
    }
    if session.out.json {
        return session.out.raw(&answer.raw);
    }
    let value = &document.record.value_b64.0;
    match &args.out {
        Some(file) => std::fs::write(file, value).map_err(|error| of_io("write", file, &error))?,
        // A terminal is told what it gets as text; a pipe gets the bytes.
        None if session.out.terminal => session.out.line(&tame_text(&String::from_utf8_lossy(value)))?,
        None => session.out.bytes(value)?,
    }
    session.out.note(&held(&document.record, document.took_ms));
    if args.all {
        for answer in document.record.answers.iter().filter(|answer| !answer.current) {
            let sequence = answer.sequence.map(|number| format!("number {number}")).unwrap_or_default();
            session.out.note(&format!("  older   {}   {sequence}", who(&answer.id, &answer.name)));
        }
        for other in &document.others {
            let value = tame(&String::from_utf8_lossy(&other.value_b64.0));
            session.out.note(&format!("  also    {}   {value}", tame(&other.key)));
        }
    }
    for rejected in &document.record.rejected {
        let from = rejected.id.map(|id| format!(" from ..{}", id.short())).unwrap_or_default();
        session.out.warn(&format!("refused an answer{from}: {}", tame(&rejected.why)));
    }
    Ok(())
}

/// Who had a record.
fn held(record: &DhtRecord, took_ms: u64) -> String {
    let holders: Vec<String> = record
        .answers
        .iter()
        .filter(|answer| answer.current)
        .map(|answer| who(&answer.id, &answer.name))
        .collect();
    let mut text = format!("{} B from {}", record.value_b64.0.len(), holders.join(", "));
    if let Some(owner) = &record.owner {
        text.push_str(&format!("   signed by {}", who(owner, &record.owner_name)));
    }
    if let Some(sequence) = record.sequence {
        text.push_str(&format!(", number {sequence}"));
    }
    format!("{text}   asked {} peers, {}", record.asked, took(took_ms))
}

fn took(ms: u64) -> String {
    short(Duration::from_millis(ms))
}

async fn provide(session: &Session, args: &Provide) -> Result<(), Failure> {
    let request = DhtProvideRequest { key: args.key.clone(), timeout_ms: session.timeout_ms() };
    let path = if args.stop { routes::DHT_STOP_PROVIDING } else { routes::DHT_PROVIDE };
    let answer = session.client()?.post::<DhtProvideDocument>(path, &request).await?;
    session.show(&answer, |answer| {
        let said = if answer.provided { "announced" } else { "no longer announced:" };
        let text = format!("{said} {} ({})\n", tame(&answer.key), took(answer.took_ms));
        Shown { text, ids: vec![answer.key.clone()] }
    })
}

async fn find_providers(session: &Session, args: &FindProviders) -> Result<(), Failure> {
    let request = DhtProvidersRequest {
        key: args.key.clone(),
        count: Some(args.count),
        timeout_ms: session.timeout_ms(),
    };
    let answer = session.client()?.post::<DhtProvidersDocument>(routes::DHT_PROVIDERS, &request).await?;
    session.show(&answer, |answer| Shown {
        text: answer
            .providers
            .iter()
            .map(|peer| format!("{}   {}\n", peer.id, tame(peer.name.as_deref().unwrap_or_default())))
            .map(|line| format!("{}\n", line.trim_end()))
            .collect(),
        ids: answer.providers.iter().map(|peer| peer.id.to_string()).collect(),
    })
}

async fn find_peer(session: &Session, args: &FindPeer) -> Result<(), Failure> {
    let request = DhtFindPeerRequest { peer: args.peer.clone(), timeout_ms: session.timeout_ms() };
    let answer = session.client()?.post::<DhtPeerDocument>(routes::DHT_FIND_PEER, &request).await?;
    session.show(&answer, |answer| {
        let ids: Vec<String> = answer.addresses.iter().map(|address| tame(address)).collect();
        let lines: String = ids.iter().map(|address| format!("  {address}\n")).collect();
        Shown { text: format!("{}   {}\n{lines}", who(&answer.id, &answer.name), took(answer.took_ms)), ids }
    })
}

async fn closest(session: &Session, args: &Closest) -> Result<(), Failure> {
    let request = DhtTargetRequest { target: args.target.clone(), timeout_ms: session.timeout_ms() };
    let answer = session.client()?.post::<DhtClosestDocument>(routes::DHT_CLOSEST, &request).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&[">SHARED BITS", "PEER", "ADDRESS"]);
        for peer in &answer.peers {
            let address = peer.addresses.first().map(|address| tame(address)).unwrap_or_default();
            table.row([peer.shared_bits.to_string(), who(&peer.id, &peer.name), address]);
        }
        Shown { text: table.render(), ids: answer.peers.iter().map(|peer| peer.id.to_string()).collect() }
    })
}

async fn table(session: &Session, args: &ShowTable) -> Result<(), Failure> {
    let answer = session.client()?.get::<DhtTableDocument>(routes::DHT_TABLE).await?;
    session.show(&answer, |answer| {
        let ids =
            answer.buckets.iter().flat_map(|bucket| &bucket.peers).map(|peer| peer.id.to_string()).collect();
        let text = if args.bars { bars(answer) } else { buckets(answer) };
        let count = answer.buckets.len();
        Shown { text: format!("{text}{} peers in {count} buckets\n", answer.size), ids }
    })
}

fn buckets(document: &DhtTableDocument) -> String {
    let mut table = Table::new(&[">BUCKET", "PEER", "STATE", "ADDRESS"]);
    for bucket in &document.buckets {
        for peer in &bucket.peers {
            let state = if peer.connected { "connected" } else { "known" };
            let address = peer.addresses.first().map(|address| tame(address)).unwrap_or_default();
            let bits = bucket.shared_bits.to_string();
            table.row([bits, who(&peer.id, &peer.name), state.to_owned(), address]);
        }
    }
    table.render()
}

/// One line a bucket: a full block for each connected peer, a light one for each known, dots up to k.
fn bars(document: &DhtTableDocument) -> String {
    let mut text = String::new();
    for bucket in &document.buckets {
        let connected = bucket.peers.iter().filter(|peer| peer.connected).count();
        let known = bucket.peers.len().saturating_sub(connected);
        let free = BUCKET_PEERS.saturating_sub(bucket.peers.len());
        text.push_str(&format!(
            "{:>3} bits  {}{}{}  {:>2}/{BUCKET_PEERS}\n",
            bucket.shared_bits,
            "█".repeat(connected),
            "░".repeat(known),
            "·".repeat(free),
            bucket.peers.len()
        ));
    }
    text
}

async fn stats(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<DhtStatsDocument>(routes::DHT_STATS).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&["QUERY", ">COUNT", ">OK", ">P50", ">P90", ">P99"]);
        for query in &answer.queries {
            let latency = |of: fn(&Percentiles) -> f64| {
                query.latency_ms.as_ref().map_or_else(|| "none yet".to_owned(), |latency| millis(of(latency)))
            };
            table.row([
                query.kind.clone(),
                query.count.to_string(),
                query.ok.to_string(),
                latency(|all| all.p50),
                latency(|all| all.p90),
                latency(|all| all.p99),
            ]);
        }
        let text = format!(
            "{}holds {} records and {} provider records of others, publishes {}, refused {}\n",
            table.render(),
            answer.records_held,
            answer.providers_held,
            answer.published,
            answer.records_rejected
        );
        Shown { text, ids: Vec::new() }
    })
}
