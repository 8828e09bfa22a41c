//! The ordered log: begin one, join it, append to it, read it, prove what stands in it.

mod change;
mod genesis;
mod lines;
mod receipt;
mod snapshot;

pub(super) use genesis::read_genesis;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use wattle_types::NodeId;

use super::client::{cut_off, part, read_line};
use super::errors::Failure;
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, fill, tame};
use super::topic::payload_text;
use super::values::{clock, millis, short};
use crate::api::documents::{
    Bytes, ErrorDocument, OrderBlockDocument, OrderEntry, OrderEntryState, OrderLine, OrderLogDocument,
    OrderRole, OrderStatusDocument, OrderSubmitDocument, OrderSubmitRequest, OrderValidator,
    OrderValidatorsDocument, OrderWait,
};
use crate::exit::ErrorCode;

/// One log for everybody, though some of those who keep it lie
#[derive(Args)]
pub(super) struct Order {
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Subcommand)]
enum OrderCommand {
    Init(genesis::Init),
    Join(genesis::Join),
    Submit(Submit),
    SubmitLines(lines::SubmitLines),
    Status(Status),
    Log(Log),
    Get(Get),
    Watch(Watch),
    Validators(Validators),
    Change(change::Change),
    Verify(receipt::Verify),
    Snapshot(snapshot::Snapshot),
}

/// Append an entry; prints where it stands
#[derive(Args)]
struct Submit {
    /// What it says; `-` (or nothing) reads stdin
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
    /// For which app; nobody but people reads it without
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "FOR", default_value = "commit")]
    wait: Wait,
    /// Write the proof that it stands there into a file
    #[arg(long, value_name = "F")]
    receipt: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Until it stands there for ever
    Commit,
    /// Until validators have it in memory; it may still be lost
    Accept,
}

/// How the log does: whose turn it is, how far it is, who votes
#[derive(Args)]
struct Status {}

/// Print entries, in their order
#[derive(Args)]
struct Log {
    /// From this height on; the newest without
    #[arg(long, value_name = "H")]
    from: Option<u64>,
    /// So many at most
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Only those of an app
    #[arg(long, value_name = "A")]
    app: Option<String>,
    /// Go on as it grows
    #[arg(short, long)]
    follow: bool,
}

/// Print a block, or one entry with its proof
#[derive(Args)]
struct Get {
    /// A height (412), a place (412:3), or the hash of an entry
    at: String,
    /// Write the proof that the entry stands there into a file
    #[arg(long, value_name = "F")]
    receipt: Option<PathBuf>,
}

/// Print blocks as they are committed, empty ones too
#[derive(Args)]
struct Watch {
    /// Stop after N blocks; then --timeout applies
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
}

/// Who votes, and how each does
#[derive(Args)]
struct Validators {}

pub(super) fn order(session: &Session, args: Order) -> Result<(), Failure> {
    match args.command {
        OrderCommand::Init(args) => genesis::init(session, &args),
        OrderCommand::Verify(args) => receipt::verify(session, &args),
        OrderCommand::Snapshot(args) => session.block_on(snapshot::snapshot(session, args)),
        OrderCommand::Join(args) => session.block_on(genesis::join(session, &args)),
        OrderCommand::Submit(args) => session.block_on(submit(session, args)),
        OrderCommand::SubmitLines(args) => session.block_on(lines::submit(session, &args)),
        OrderCommand::Status(Status {}) => session.block_on(status(session)),
        OrderCommand::Log(args) => session.block_on(log(session, &args)),
        OrderCommand::Get(args) => session.block_on(get(session, &args)),
        OrderCommand::Watch(args) => session.block_on(watch(session, &args)),
        OrderCommand::Validators(Validators {}) => session.block_on(validators(session)),
        OrderCommand::Change(args) => session.block_on(change::change(session, &args)),
    }
}

async fn submit(session: &Session, args: Submit) -> Result<(), Failure> {
    let data = match args.data.as_deref() {
        Some(data) if data != "-" => data.as_bytes().to_vec(),
        _ => session.stdin().await?,
    };
    let accept = args.wait == Wait::Accept;
    if accept && args.receipt.is_some() {
        let message = "what is only accepted has no receipt yet";
        return Err(ErrorDocument::new(ErrorCode::Usage, message).hint("--wait commit").into());
    }
    let request = OrderSubmitRequest {
        app: args.app,
        data_b64: Bytes(data),
        wait: if accept { OrderWait::Accept } else { OrderWait::Commit },
        timeout_ms: session.timeout_ms(),
        ..OrderSubmitRequest::default()
    };
    let answer = session.client()?.post::<OrderSubmitDocument>(routes::ORDER_ENTRIES, &request).await?;
    if let (Some(file), Some(receipt)) = (&args.receipt, &answer.document.receipt_b64) {
        receipt::write(file, receipt)?;
    }
    session.show(&answer, |answer| {
        let took = short(Duration::from_millis(answer.took_ms));
        let text = match (answer.state, answer.height, answer.index) {
            (OrderEntryState::Ordered, Some(height), Some(index)) => {
                let proof = args.receipt.as_ref().map(|file| format!("   receipt {}", file.display()));
                format!("h={height} i={index}   after {took}{}\n", proof.unwrap_or_default())
            }
            _ => format!("accepted, not ordered yet: {}\n", answer.entry),
        };
        Shown { text, ids: vec![answer.entry.clone()] }
    })
}

async fn status(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?;
    session.show(&answer, |status| screen(session, status))?;
    if answer.document.has_quorum { Ok(()) } else { Err(ErrorCode::NoQuorum.into()) }
}

/// What this node does for which log.
fn keeps(role: OrderRole, chain: &str) -> String {
    let role = match role {
        OrderRole::Validator => "votes in",
        OrderRole::Follower | OrderRole::Broken => "follows",
    };
    format!("this node {role} log {}", chain.get(..16).unwrap_or_default())
}

/// Its name here, else the end of its id.
fn label(validator: &OrderValidator) -> String {
    let name = validator.name.as_deref().map(tame).unwrap_or_else(|| format!("..{}", validator.id.short()));
    if validator.myself { format!("{name}*") } else { name }
}

fn screen(session: &Session, status: &OrderStatusDocument) -> Shown {
    let of = |id: &NodeId| status.validators.iter().find(|validator| validator.id == *id).map(label);
    let leader = status.leader.as_ref().and_then(of).unwrap_or_else(|| "unknown yet".to_owned());
    let qc = status.high_qc.map(|qc| {
        let age = short(Duration::from_millis(qc.age_ms));
        format!("   QC for {}: {} of {} votes, {age} ago", qc.height, qc.votes, qc.of)
    });
    let epoch = if status.epoch > 1 { format!("epoch {}   ", status.epoch) } else { String::new() };
    let mut text = format!(
        "{epoch}view {}   height {}   leader {leader}{}\n",
        status.view,
        status.height,
        qc.unwrap_or_default()
    );
    let widest =
        status.validators.iter().map(|validator| label(validator).chars().count()).max().unwrap_or(0);
    for validator in &status.validators {
        let why = validator.why.as_ref().map(|why| session.out.paint(Meaning::Doubtful, &tame(why)));
        let line = format!(
            "{}  {}  {}",
            fill(&label(validator), widest),
            fill(&validator.votes, 20),
            why.unwrap_or_default()
        );
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    let latency =
        status.commit_ms.map(|ms| format!(", commit p50 {} p99 {}", millis(ms.p50), millis(ms.p99)));
    text.push_str(&format!(
        "rate    {} entries/s{}     timeouts last hour: {}     waiting: {}\n",
        status.tps,
        latency.unwrap_or_default(),
        status.timeouts_last_hour,
        status.waiting
    ));
    let role = match (status.role, status.signs, status.syncing) {
        (OrderRole::Validator, ..) if status.starting => {
            "validator that starts, and does not sign before it knows where the others are"
        }
        (OrderRole::Validator, _, true) => "validator that catches up, and does not sign before it has",
        (OrderRole::Validator, true, _) => "validator",
        (OrderRole::Validator, false, _) => "validator that does not sign: see below",
        (OrderRole::Follower, ..) => "follower",
        (OrderRole::Broken, ..) => "none: the log on disk cannot be used",
    };
    text.push_str(&format!("this    {role}   log {}\n", status.chain.get(..16).unwrap_or_default()));
    for change in &status.changes {
        let ids: Vec<String> =
            change.validators.iter().map(|id| of(id).unwrap_or_else(|| who(id, &None))).collect();
        let votes =
            format!("{} of {} who vote now, {} needed", change.votes, status.validators.len(), change.quorum);
        text.push_str(&format!("change  to {}   approved by {votes}\n", ids.join(", ")));
    }
    if status.first > 1 {
        text.push_str(&format!("kept    from height {} on, and what it came to before\n", status.first));
    }
    if !status.has_quorum {
        let line = format!(
            "!!  no quorum: {} of {} validators reachable ({} needed)",
            status.reachable,
            status.validators.len(),
            status.quorum
        );
        text.push_str(&format!("{}\n", session.out.paint(Meaning::Bad, &line)));
    }
    for alarm in &status.alarms {
        text.push_str(&format!("{}\n", session.out.paint(Meaning::Bad, &format!("!!  {}", tame(alarm)))));
    }
    Shown { text, ids: vec![status.chain.clone()] }
}

async fn validators(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<OrderValidatorsDocument>(routes::ORDER_VALIDATORS).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&["VALIDATOR", ">POWER", ">VOTES", ">LAST VOTE", "STATE"]);
        for validator in &answer.validators {
            let last = validator.last_vote_ms_ago.map(|ms| short(Duration::from_millis(ms)));
            table.row([
                format!("{} ..{}", label(validator), validator.id.short()),
                validator.weight.to_string(),
                format!("{}/{}", validator.votes_last_20, validator.votes.len()),
                last.unwrap_or_default(),
                validator.why.as_deref().map(tame).unwrap_or_else(|| "reachable".to_owned()),
            ]);
        }
        let ids = answer.validators.iter().map(|validator| validator.id.to_string()).collect();
        Shown { text: table.render(), ids }
    })
}

fn row(entry: &OrderEntry) -> String {
    format!(
        "h={} i={}  {}  {}  {}",
        entry.height,
        entry.index,
        clock(entry.time),
        tame(&entry.app),
        payload_text(&entry.data_b64.0)
    )
}

async fn log(session: &Session, args: &Log) -> Result<(), Failure> {
    let app = args.app.as_ref().map(|app| format!("app={}", part(app)));
    let from = args.from.map(|from| format!("from={from}"));
    if args.follow {
        let query: Vec<String> = from.into_iter().chain(app).collect();
        return follow(session, &query.join("&"), args.count).await;
    }
    let count = args.count.map(|count| format!("count={count}"));
    let query: Vec<String> = from.into_iter().chain(count).chain(app).collect();
    let path = format!("{}?{}", routes::ORDER_ENTRIES, query.join("&"));
    let answer = session.client()?.get::<OrderLogDocument>(&path).await?;
    session.show(&answer, |answer| {
        let ids = answer.entries.iter().map(|entry| entry.entry.clone()).collect();
        if answer.entries.is_empty() {
            return Shown { text: format!("no entries up to height {}\n", answer.height), ids };
        }
        let rows = answer.entries.iter().map(|entry| format!("{}\n", row(entry)));
        Shown { text: rows.collect(), ids }
    })
}

async fn watch(session: &Session, args: &Watch) -> Result<(), Failure> {
    follow(session, "blocks=true", args.count).await
}

/// Prints lines of the log as it grows.
async fn follow(session: &Session, query: &str, count: Option<u64>) -> Result<(), Failure> {
    let path = format!("{}?{query}", routes::ORDER_FOLLOW);
    let mut lines = session.client()?.stream(Method::GET, &path, None::<&()>).await?;
    let mut got = 0;
    let work = async {
        while count.is_none_or(|count| got < count) {
            let Some(raw) = lines.next().await? else { return Err(cut_off()) };
            let text = match read_line::<OrderLine>(&raw)? {
                OrderLine::Error { error, .. } => return Err(error.into()),
                OrderLine::Entry { entry, .. } => row(&entry),
                OrderLine::Block { block, .. } => format!(
                    "h={}  {}  view {}  leader {}  {} entries",
                    block.height,
                    clock(block.time),
                    block.view,
                    block.leader.map(|id| who(&id, &None)).unwrap_or_default(),
                    block.count
                ),
            };
            got += 1;
            if session.out.json { session.out.raw(&raw)? } else { session.out.line(&text)? }
        }
        Ok(())
    };
    match (count, session.timeout()) {
        (Some(_), Some(limit)) => match tokio::time::timeout(limit, work).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                let message = format!("timed out after {}: {got} lines came", short(limit));
                Err(ErrorDocument::new(ErrorCode::Timeout, message).into())
            }
        },
        _ => work.await,
    }
}

async fn get(session: &Session, args: &Get) -> Result<(), Failure> {
    let path = format!("{}/{}", routes::ORDER_ENTRIES, part(&args.at));
    let answer = session.client()?.get::<OrderBlockDocument>(&path).await?;
    if let Some(file) = &args.receipt {
        let Some(receipt) = &answer.document.receipt_b64 else {
            let message = "a receipt is of one entry";
            return Err(ErrorDocument::new(ErrorCode::Usage, message)
                .hint(format!("wattle order get {}:0 --receipt {}", args.at, file.display()))
                .into());
        };
        receipt::write(file, receipt)?;
    }
    session.show(&answer, |answer| {
        let block = &answer.block;
        let mut text = format!(
            "h={}  {}  view {}  leader {}  block {}\n",
            block.height,
            block.time,
            block.view,
            block.leader.map(|id| who(&id, &None)).unwrap_or_default(),
            tame(&block.block)
        );
        for entry in &answer.entries {
            text.push_str(&format!(
                "  i={}  {}  {}\n",
                entry.index,
                tame(&entry.app),
                payload_text(&entry.data_b64.0)
            ));
        }
        Shown { text, ids: answer.entries.iter().map(|entry| entry.entry.clone()).collect() }
    })
}
