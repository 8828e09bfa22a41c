//! This node: make it, look at it, wait for it, stop it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use wattle_types::{NetworkName, NodeId};

use super::client::{Answer, part};
use super::documents::{InitDocument, InitSchema};
use super::errors::{Failure, advise};
use super::files::{self, tilde};
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{fill, tame};
use super::values::{LONGEST, as_ms, short};
use super::watch::watch;
use crate::api::documents::{
    DhtModeName, ErrorDocument, IdDocument, IdSchema, LanState, NetworkStatus, OrderRole, OrderSummary,
    Reachability, StatusDocument, StopDocument, StopRequest, Verdict, WaitDocument, WaitSchema,
};
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// Create a node's key and config (run does this for you)
#[derive(Args)]
pub(super) struct Init {
    /// The overlay to belong to
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
    /// Use this key instead of a new one
    #[arg(long, value_name = "F")]
    key_file: Option<PathBuf>,
    /// Make a private network: only who has its key can join
    #[arg(long)]
    private: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

/// Show who this node is, or what it knows of a peer
#[derive(Args)]
pub(super) struct Id {
    /// A petname, short id or full id
    peer: Option<String>,
    /// Show the id as a QR code too
    #[arg(long)]
    qr: bool,
}

/// One screen: am I up, am I connected, is anything wrong
#[derive(Args)]
pub(super) struct Status {
    /// Show it again and again
    #[arg(short, long)]
    watch: bool,
}

/// Leave politely, then stop
#[derive(Args)]
pub(super) struct Stop {
    /// Do not wait for anything
    #[arg(long)]
    now: bool,
}

/// Block until a condition holds (for scripts)
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct Wait {
    /// The node answers and listens; one that does not run yet is waited for
    #[arg(long)]
    ready: bool,
    /// It has at least N peers
    #[arg(long, value_name = "N")]
    peers: Option<u64>,
    /// It sees at least N members alive, itself among them
    #[arg(long, value_name = "N")]
    members: Option<u64>,
}

pub(super) fn init(session: &Session, args: &Init) -> Result<(), Failure> {
    let paths = session.paths()?;
    if !args.force && (paths.key_file().exists() || paths.config_file.exists()) {
        let message = format!("node \"{}\" exists already", paths.node);
        let document = ErrorDocument::new(ErrorCode::Conflict, message)
            .detail("key", tilde(&paths.key_file()))
            .detail("config", tilde(&paths.config_file));
        let document = advise(document, "start it", &format!("{} run", session.program()), "");
        return Err(advise(document, "or another", "wattle -n bob init", "").into());
    }
    let key = match &args.key_file {
        Some(file) => files::import_key(&paths, file, args.force)?,
        None => files::own_key(&paths)?,
    };
    let network = args.network.clone().unwrap_or_default();
    files::edit_config(&paths, |edit| {
        edit.set("network.name", network.as_str())?;
        if args.private { edit.set("network.private", "true") } else { Ok(()) }
    })?;
    if args.private {
        files::own_network_key(&paths)?;
    }
    let document = InitDocument {
        schema: InitSchema::V1,
        name: paths.node.to_string(),
        id: key.node_id(),
        network: network.to_string(),
        private: args.private,
        key_file: paths.key_file().display().to_string(),
        config_file: paths.config_file.display().to_string(),
    };
    session.show_own(&document, |document| Shown {
        text: format!(
            "created node \"{}\"  {}\n  key      {}\n  config   {}\n  network  {}{}\nstart it     {} run\n",
            document.name,
            abbreviated(&document.id),
            tilde(&paths.key_file()),
            tilde(&paths.config_file),
            document.network,
            if document.private { " (private: who has its key can join)" } else { "" },
            session.program(),
        ),
        ids: vec![document.id.to_string()],
    })
}

pub(super) fn id(session: &Session, args: &Id) -> Result<(), Failure> {
    let paths = session.paths()?;
    let asked = session.block_on(async {
        let client = session.client()?;
        match &args.peer {
            Some(peer) => client.get::<IdDocument>(&format!("{}?peer={}", routes::ID, part(peer))).await,
            None => client.get::<IdDocument>(routes::ID).await,
        }
    });
    let answer = match asked {
        Err(Failure::Error(error))
            if error.code == ErrorCode::NoNode && args.peer.is_none() && session.globals.api.is_none() =>
        {
            Answer::own(own_id(session, &paths)?)?
        }
        asked => asked?,
    };
    session.show(&answer, |answer| {
        let mut text = answer.id.to_string();
        if !answer.this_node {
            let state = match answer.connected {
                Some(true) => "connected",
                Some(false) => "not connected",
                None => "state unknown",
            };
            text = format!("{text}\n  {}   {state}", who(&answer.id, &answer.name));
        } else if let Some(name) = &answer.name {
            text = format!("{text}\n  {name} (..{})   network {}", answer.short, answer.network);
        }
        for address in &answer.addresses {
            text.push_str(&format!("\n  {}", tame(address)));
        }
        text.push('\n');
        if args.qr {
            text.push_str(&super::qr::render(&answer.id.to_string()));
        }
        Shown { text, ids: vec![answer.id.to_string()] }
    })
}

/// Who this node is, by its key file alone.
fn own_id(session: &Session, paths: &Paths) -> Result<IdDocument, Failure> {
    let id = files::read_key(paths, &session.program())?.node_id();
    let config = files::load_config(paths)?;
    Ok(IdDocument {
        schema: IdSchema::V1,
        id,
        short: id.short(),
        name: Some(paths.node.to_string()),
        this_node: true,
        network: config.settings.network.to_string(),
        connected: None,
        addresses: Vec::new(),
        agent: None,
        protocols: Vec::new(),
    })
}

pub(super) async fn status(session: &Session, args: &Status) -> Result<(), Failure> {
    let client = session.client()?;
    if args.watch {
        return watch(session.out, async || {
            let answer = client.get::<StatusDocument>(routes::STATUS).await?;
            Ok(if session.out.json {
                format!("{}\n", answer.raw.trim())
            } else {
                screen(session, &answer.document).text
            })
        })
        .await;
    }
    let answer = client.get::<StatusDocument>(routes::STATUS).await?;
    if answer.document.node.version != env!("CARGO_PKG_VERSION") {
        session.out.warn(&format!(
            "this is wattle {}, the node is wattle {}: restart the node to make them equal",
            env!("CARGO_PKG_VERSION"),
            tame(&answer.document.node.version)
        ));
    }
    session.show(&answer, |document| screen(session, document))
}

fn screen(session: &Session, status: &StatusDocument) -> Shown {
    let (mark, meaning) = match status.verdict {
        Verdict::Ok => ("ok", Meaning::Good),
        Verdict::Degraded | Verdict::Alone => ("!!", Meaning::Doubtful),
        Verdict::NoQuorum => ("!!", Meaning::Bad),
    };
    let (node, network, peers, dht) = (&status.node, &status.network, &status.peers, &status.dht);
    let mut text = format!("{}  {}\n", session.out.paint(meaning, mark), tame(&status.summary));
    let widest =
        status.warnings.iter().map(|warning| warning.message.len()).max().unwrap_or_default().min(60);
    for (index, warning) in status.warnings.iter().enumerate() {
        let hint = tame(warning.hint.as_deref().unwrap_or_default());
        let line = format!("  {}. {}   {hint}", index + 1, fill(&tame(&warning.message), widest));
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    let mut row = |label: &str, value: String| text.push_str(&format!("{label:<9} {}\n", value.trim_end()));
    let rss = node.rss_bytes.map(|rss| format!("rss {} MB", rss / 1_000_000)).unwrap_or_default();
    let up = short(Duration::from_millis(node.uptime_ms));
    row(
        "node",
        format!("{}  {}   up {up}   v{}   {rss}", node.name, abbreviated(&node.id), tame(&node.version)),
    );
    let private = if network.private { " (private)" } else { "" };
    let (reachability, lan) = (reachability(network.reachability), lan(network));
    row("network", format!("{}{private}   reachability: {reachability}   LAN: {lan}", network.name));
    row(
        "peers",
        format!(
            "{:<7} direct {} (quic {}, tcp {})   relayed {}",
            peers.total, peers.direct, peers.quic, peers.tcp, peers.relayed
        ),
    );
    let members = &status.members;
    let doubts = if members.self_suspect { "   this node itself is likely cut off" } else { "" };
    row(
        "members",
        format!(
            "{:<7} alive {}   suspect {}   faulty {}{doubts}",
            members.alive.saturating_add(members.suspect),
            members.alive,
            members.suspect,
            members.faulty
        ),
    );
    let mode = match dht.mode {
        DhtModeName::Server => "server",
        DhtModeName::Client => "client",
    };
    row(
        "dht",
        format!(
            "{mode:<7} {} peers in {} buckets   {} records held   {} published",
            dht.table_size, dht.buckets, dht.records_held, dht.published
        ),
    );
    if let Some(order) = &status.order {
        row("order", order_line(order));
    }
    row("listening", network.listen.iter().map(|address| tame(address)).collect::<Vec<_>>().join("  "));
    let page =
        status.api.url.as_deref().map(|url| format!("   {}   page: {} ui", tame(url), session.program()));
    row("api", format!("{}{}", tame(&status.api.socket), page.unwrap_or_default()));
    if status.warnings.is_empty() {
        row("warnings", "none".to_owned());
    }
    Shown { text, ids: vec![node.id.to_string()] }
}

fn order_line(order: &OrderSummary) -> String {
    let role = match (order.role, order.seat) {
        (OrderRole::Validator, Some(seat)) => format!("validator {seat}/{}", order.of),
        (OrderRole::Validator, None) => "validator".to_owned(),
        (OrderRole::Follower, _) => format!("follows {}", order.of),
        (OrderRole::Broken, _) => return "cannot be used: wattle logs".to_owned(),
    };
    let last =
        order.last_commit_ms_ago.map(|ms| format!("   last block {} ago", short(Duration::from_millis(ms))));
    let leader = order.leader_name.as_deref().map(|leader| format!("   leader {}", tame(leader)));
    let quorum = if order.quorum { "" } else { "   no quorum" };
    let (last, leader) = (last.unwrap_or_default(), leader.unwrap_or_default());
    format!("{role}   height {}{last}{leader}{quorum}", order.height)
}

const fn reachability(reachability: Reachability) -> &'static str {
    match reachability {
        Reachability::Public => "public",
        Reachability::Private => "private",
        Reachability::Unknown => "nobody dialed in yet",
    }
}

fn lan(network: &NetworkStatus) -> String {
    match (network.lan, network.lan_heard) {
        (LanState::Off, _) => "off".to_owned(),
        (LanState::Silent, _) => "on, nobody heard".to_owned(),
        (LanState::Heard, heard) => format!("yes, {} heard", heard.unwrap_or_default()),
    }
}

/// The beginning and the end of an id: `12D3KooWPq..Xs2fQm`.
pub(super) fn abbreviated(id: &NodeId) -> String {
    let text = id.to_string();
    format!("{}..{}", text.get(..10).unwrap_or_default(), id.short())
}

pub(super) async fn stop(session: &Session, args: &Stop) -> Result<(), Failure> {
    let client = session.client()?;
    let begun = Instant::now();
    let answer = client.post::<StopDocument>(routes::STOP, &StopRequest { now: args.now }).await?;
    // The socket closes before the data directory is free, and `run` needs that: `stop && run` must work. One
    // that a supervisor starts again at once is another process.
    let data =
        session.globals.api.is_none().then(|| session.paths()).transpose()?.map(|paths| paths.data_dir);
    let is_there = async || match &data {
        Some(data) => wattle_store::read_owner(data).is_some_and(|owner| owner.pid == answer.document.pid),
        None => client.answers().await,
    };
    let gone = async {
        while is_there().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = session.timeout().unwrap_or(LONGEST);
    if tokio::time::timeout(limit, gone).await.is_err() {
        let message = format!("timed out after {} waiting for the node to stop", short(limit));
        let document = ErrorDocument::new(ErrorCode::Timeout, message)
            .detail("it said", format!("it would stop (pid {})", answer.document.pid));
        let now = format!("{} stop --now", session.program());
        return Err(advise(document, "insist", &now, "").into());
    }
    session.show(&answer, |answer| Shown {
        text: format!("stopped (pid {}) after {}\n", answer.pid, short(begun.elapsed())),
        ids: vec![answer.pid.to_string()],
    })
}

pub(super) async fn wait(session: &Session, args: &Wait) -> Result<(), Failure> {
    let client = session.client()?;
    let begun = Instant::now();
    let mut wanted: Vec<String> = args.ready.then(|| "ready".to_owned()).into_iter().collect();
    wanted.extend(args.peers.map(|peers| format!("{peers} peers")));
    wanted.extend(args.members.map(|members| format!("{members} members")));
    loop {
        let seen = match client.get::<StatusDocument>(routes::STATUS).await {
            Ok(answer) => Ok(answer.document),
            // A node that does not run yet is what `--ready` waits for.
            Err(Failure::Error(error)) if error.code == ErrorCode::NoNode && args.ready => Err(error.message),
            Err(failure) => return Err(failure),
        };
        let got = match seen {
            Ok(status) => {
                let enough = args.peers.is_none_or(|peers| status.peers.total >= peers)
                    && args.members.is_none_or(|members| status.members.alive >= members);
                if enough && !status.network.listen.is_empty() {
                    let document = WaitDocument {
                        schema: WaitSchema::V1,
                        ready: true,
                        peers: status.peers.total,
                        members: status.members.alive,
                        waited_ms: as_ms(begun.elapsed()),
                    };
                    return session.show_own(&document, |document| Shown {
                        text: format!(
                            "ready, {} peers, {} members, after {}\n",
                            document.peers,
                            document.members,
                            short(Duration::from_millis(document.waited_ms))
                        ),
                        ids: Vec::new(),
                    });
                }
                format!("ready, {} peers, {} members", status.peers.total, status.members.alive)
            }
            Err(message) => message,
        };
        if let Some(limit) = session.timeout().filter(|limit| begun.elapsed() >= *limit) {
            let message = format!("timed out after {} waiting for: {}", short(limit), wanted.join(", "));
            let status = format!("{} status", session.program());
            let document = ErrorDocument::new(ErrorCode::Timeout, message).detail("got as far as", got);
            return Err(advise(document, "look", &status, "").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
