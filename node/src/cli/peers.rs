//! Peers: who is connected, connecting, names, blocks, ping.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use unicode_width::UnicodeWidthStr as _;
use wattle_types::NodeId;

use super::client::{cut_off, read_line};
use super::errors::Failure;
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, fill, tame};
use super::values::{Span, as_ms, bytes, guessed, millis, short};
use super::watch::watch;
use crate::api::documents::{
    BlockDocument, BlockRequest, ConnectDocument, ConnectRequest, DisconnectDocument, DisconnectRequest,
    ErrorDocument, NameDocument, NameRequest, PathName, Peer, PeersDocument, PingLine, PingRequest,
    TransportName,
};
use crate::exit::ErrorCode;

/// Dial a peer or an address
#[derive(Args)]
pub(super) struct Connect {
    /// A petname, short id, full id, multiaddr or ticket
    #[arg(value_name = "MULTIADDR|PEER")]
    peer: String,
}

/// Drop the connection to a peer
#[derive(Args)]
pub(super) struct Disconnect {
    /// A petname, short id or full id
    peer: String,
}

/// List connections; give names, block
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Peers {
    #[command(subcommand)]
    command: Option<PeersCommand>,
    /// Known peers too, not only connected ones
    #[arg(short, long)]
    all: bool,
    /// Show it again and again
    #[arg(short, long)]
    watch: bool,
    /// In which order
    #[arg(long, value_name = "BY", default_value = "name")]
    sort: Sort,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    /// Names first, then ids
    Name,
    /// Nearest first
    Rtt,
    /// Longest connected first
    Up,
    /// Most traffic first
    Traffic,
}

#[derive(Subcommand)]
enum PeersCommand {
    Name(Name),
    Block(Block),
    Unblock(Unblock),
}

/// Give a peer a name that only this node knows
#[derive(Args)]
struct Name {
    /// A petname, short id or full id
    peer: String,
    /// The name; an empty one forgets it
    name: String,
}

/// Drop a peer and refuse it from now on
#[derive(Args)]
struct Block {
    /// A petname, short id or full id
    peer: String,
}

/// Let a blocked peer in again
#[derive(Args)]
struct Unblock {
    /// A petname, short id or full id
    peer: String,
}

/// Measure round trips to a peer, and show which path they took
#[derive(Args)]
pub(super) struct Ping {
    /// A petname, short id, full id or multiaddr
    peer: String,
    /// How many; 0 = until Ctrl-C
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    count: u32,
    /// Time between two
    #[arg(short, long, value_name = "D", default_value = "1s")]
    interval: Span,
}

pub(super) async fn connect(session: &Session, args: &Connect) -> Result<(), Failure> {
    let request = ConnectRequest { peer: args.peer.clone(), timeout_ms: session.timeout_ms() };
    let answer = session.client()?.post::<ConnectDocument>(routes::CONNECT, &request).await?;
    session.show(&answer, |answer| {
        let peer = &answer.peer;
        Shown {
            text: format!(
                "connected to {}   {}   {}\n",
                who(&peer.id, &peer.name),
                path_of(peer),
                peer.address
            ),
            ids: vec![peer.id.to_string()],
        }
    })
}

pub(super) async fn disconnect(session: &Session, args: &Disconnect) -> Result<(), Failure> {
    let request = DisconnectRequest { peer: args.peer.clone() };
    let answer = session.client()?.post::<DisconnectDocument>(routes::DISCONNECT, &request).await?;
    session.show(&answer, |answer| {
        let peer = who(&answer.id, &answer.name);
        let said = if answer.disconnected { "disconnected from" } else { "was not connected to" };
        Shown { text: format!("{said} {peer}\n"), ids: vec![answer.id.to_string()] }
    })
}

pub(super) async fn peers(session: &Session, args: Peers) -> Result<(), Failure> {
    match args.command {
        None => list(session, &args).await,
        Some(PeersCommand::Name(args)) => name(session, &args).await,
        Some(PeersCommand::Block(args)) => block(session, args.peer, true).await,
        Some(PeersCommand::Unblock(args)) => block(session, args.peer, false).await,
    }
}

async fn list(session: &Session, args: &Peers) -> Result<(), Failure> {
    let client = session.client()?;
    let path = if args.all { format!("{}?all=true", routes::PEERS) } else { routes::PEERS.to_owned() };
    let once = async || {
        let mut answer = client.get::<PeersDocument>(&path).await?;
        sort(&mut answer.document.peers, args.sort);
        Ok::<_, Failure>(answer)
    };
    if args.watch {
        return watch(session.out, async || {
            let answer = once().await?;
            Ok(if session.out.json {
                format!("{}\n", answer.raw.trim())
            } else {
                table_of(&answer.document).text
            })
        })
        .await;
    }
    session.show(&once().await?, table_of)
}

fn sort(peers: &mut [Peer], by: Sort) {
    match by {
        Sort::Name => peers.sort_by_key(|peer| (peer.name.is_none(), peer.name.clone(), peer.id)),
        Sort::Rtt => peers.sort_by(|a, b| {
            let rtt = |peer: &Peer| peer.rtt_ms.or(peer.estimate_ms).unwrap_or(f64::INFINITY);
            rtt(a).total_cmp(&rtt(b))
        }),
        Sort::Up => peers.sort_by_key(|peer| std::cmp::Reverse(peer.connected_ms)),
        Sort::Traffic => {
            peers.sort_by_key(|peer| std::cmp::Reverse(peer.bytes_in.saturating_add(peer.bytes_out)));
        }
    }
}

fn table_of(document: &PeersDocument) -> Shown {
    let ids = document.peers.iter().map(|peer| peer.id.to_string()).collect();
    let mut text = if document.peers.is_empty() {
        "no peers yet   (why: wattle status   invite someone: wattle invite)\n".to_owned()
    } else {
        let widest = document.peers.iter().filter_map(called).map(|name| name.width()).max();
        let mut table = Table::new(&["PEER", "PATH", "ADDRESS", ">RTT", ">UP", ">IN/OUT", "AGENT"]);
        for peer in &document.peers {
            table.row(row_of(peer, widest.unwrap_or_default()));
        }
        let labelled = document.peers.iter().any(|peer| peer.name.is_none() && peer.label.is_some());
        let note = if labelled { "* its own name on this machine\n" } else { "" };
        format!("{}{note}", table.render())
    };
    for (label, peers) in [("known, not connected", &document.offline), ("blocked", &document.blocked)] {
        if !peers.is_empty() {
            let names: Vec<String> = peers.iter().map(|peer| who(&peer.id, &peer.name)).collect();
            text.push_str(&format!("{label}: {}\n", names.join(", ")));
        }
    }
    Shown { text, ids }
}

/// Its petname; else the name it gave itself on this machine, marked as such.
fn called(peer: &Peer) -> Option<String> {
    let label = || peer.label.as_deref().map(|label| format!("{}*", tame(label)));
    peer.name.as_deref().map(tame).or_else(label)
}

fn row_of(peer: &Peer, widest: usize) -> Vec<String> {
    let name = called(peer).unwrap_or_default();
    let label = match widest {
        0 => format!("..{}", peer.id.short()),
        _ => format!("{} ..{}", fill(&name, widest), peer.id.short()),
    };
    vec![
        label,
        path_of(peer),
        socket_of(&peer.address),
        peer.rtt_ms
            .map(millis)
            .or_else(|| peer.estimate_ms.map(guessed))
            .unwrap_or_else(|| "measuring".to_owned()),
        short(Duration::from_millis(peer.connected_ms)),
        format!("{}/{}", bytes(peer.bytes_in), bytes(peer.bytes_out)),
        tame(peer.agent.as_deref().unwrap_or("unknown")),
    ]
}

/// `direct quic`, or `relayed via ..k9LtRw`.
pub(super) fn path_of(peer: &Peer) -> String {
    path_text(peer.path, peer.transport, peer.via.as_ref())
}

fn path_text(path: PathName, transport: TransportName, via: Option<&NodeId>) -> String {
    let transport = match transport {
        TransportName::Quic => "quic",
        TransportName::Tcp => "tcp",
    };
    match (path, via) {
        (PathName::Direct, _) => format!("direct {transport}"),
        (PathName::Relayed, Some(via)) => format!("relayed via ..{}", via.short()),
        (PathName::Relayed, None) => "relayed".to_owned(),
    }
}

/// `192.168.1.9:7710` of a multiaddr; what is no such address stays as it is.
pub(super) fn socket_of(address: &str) -> String {
    let mut parts = address.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ip6"), Some(ip), Some("udp" | "tcp"), Some(port)) => format!("[{ip}]:{port}"),
        (Some("ip4" | "dns" | "dns4" | "dns6"), Some(host), Some("udp" | "tcp"), Some(port)) => {
            tame(&format!("{host}:{port}"))
        }
        _ => tame(address),
    }
}

async fn name(session: &Session, args: &Name) -> Result<(), Failure> {
    let name = (!args.name.is_empty()).then(|| args.name.clone());
    let request = NameRequest { peer: args.peer.clone(), name };
    let answer = session.client()?.post::<NameDocument>(routes::NAME, &request).await?;
    session.show(&answer, |answer| {
        let text = match &answer.name {
            Some(name) => format!("..{} is {} from now on\n", answer.id.short(), tame(name)),
            None => format!("..{} has no name any more\n", answer.id.short()),
        };
        Shown { text, ids: vec![answer.id.to_string()] }
    })
}

async fn block(session: &Session, peer: String, blocked: bool) -> Result<(), Failure> {
    let request = BlockRequest { peer, blocked };
    let answer = session.client()?.post::<BlockDocument>(routes::BLOCK, &request).await?;
    session.show(&answer, |answer| {
        let said = if answer.blocked { "blocked" } else { "no longer blocked:" };
        Shown {
            text: format!("{said} {}\n", who(&answer.id, &answer.name)),
            ids: vec![answer.id.to_string()],
        }
    })
}

pub(super) async fn ping(session: &Session, args: &Ping) -> Result<(), Failure> {
    let request = PingRequest {
        peer: args.peer.clone(),
        count: Some(args.count.into()),
        interval_ms: Some(as_ms(args.interval.0)),
        timeout_ms: session.timeout_ms(),
        until_direct: false,
    };
    let mut lines = session.client()?.stream(Method::POST, routes::PING, Some(&request)).await?;
    let mut losses = None;
    while let Some(raw) = lines.next().await? {
        if session.out.json {
            session.out.raw(&raw)?;
        }
        let line: PingLine = read_line(&raw)?;
        if !session.out.json {
            show_ping(session, &line)?;
        }
        match line {
            PingLine::Reply { .. } => {}
            PingLine::Lost { error, .. } => losses = Some(error),
            PingLine::Done { sent, answered, .. } => return ping_end(sent, answered, losses),
        }
    }
    Err(cut_off())
}

fn ping_end(sent: u64, answered: u64, losses: Option<ErrorDocument>) -> Result<(), Failure> {
    match losses {
        None => Ok(()),
        Some(_) if answered > 0 && answered < sent => Err(ErrorCode::Partial.into()),
        Some(error) => Err(error.code.into()),
    }
}

fn show_ping(session: &Session, line: &PingLine) -> Result<(), Failure> {
    match line {
        PingLine::Reply { id, name, rtt_ms, path, transport, via, address, .. } => {
            let (who, rtt) = (who(id, name), millis(*rtt_ms));
            let path = path_text(*path, *transport, via.as_ref());
            let text = format!("reply from {who} {path} {}: {rtt}", socket_of(address));
            if session.out.quiet { Ok(()) } else { session.out.line(&text) }
        }
        PingLine::Lost { error, .. } => session.out.line(&format!("no answer: {}", tame(&error.message))),
        PingLine::Done { sent, answered, min_ms, avg_ms, max_ms, path, transport, .. } => {
            let mut text = format!("{sent} sent, {answered} answered");
            if let (Some(min), Some(avg), Some(max)) = (min_ms, avg_ms, max_ms) {
                text.push_str(&format!(", min/avg/max {min:.1}/{avg:.1}/{max:.1} ms"));
            }
            if let (Some(path), Some(transport)) = (path, transport) {
                text.push_str(&format!(", path {}", path_text(*path, *transport, None)));
            }
            session.out.line(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_sockets() {
        assert_eq!(socket_of("/ip4/10.0.0.4/udp/7710/quic-v1"), "10.0.0.4:7710");
        assert_eq!(socket_of("/ip6/::1/tcp/7710"), "[::1]:7710");
        assert_eq!(socket_of("/memory/4"), "/memory/4");
    }

    #[test]
    fn losing_some_is_partial_and_losing_all_is_the_reason() {
        let lost = || Some(ErrorDocument::new(ErrorCode::Timeout, "no answer after 1s"));
        assert!(matches!(ping_end(2, 2, None), Ok(())));
        assert!(matches!(ping_end(2, 1, lost()), Err(Failure::Told(10))));
        assert!(matches!(ping_end(2, 0, lost()), Err(Failure::Told(5))));
    }
}
