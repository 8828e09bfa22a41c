//! What `wattle run` prints: one screen for a person, or JSON Lines for a program.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;
use wattle_net::Address;

use super::Options;
use crate::api::documents::{
    EventLine, NodeEvent, PathName, Peer, ReadyKind, ReadyLine, RunSchema, TransportName,
};
use crate::cli::tame;
use crate::node::{Node, whole_millis};
use crate::paths::program;
use crate::ring::Ring;

/// Where the screen goes.
pub(super) struct Screen {
    style: Style,
    text: String,
    line: ReadyLine,
    try_alone: String,
    prefix: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Person,
    Json,
    Quiet,
}

impl Screen {
    pub(super) fn new(node: &Node, listening: &[Address], created: bool, options: &Options) -> Self {
        let settings = &node.config.settings;
        let name = &node.paths.node;
        let prefix = program(name.as_str(), options.home.as_deref());
        let mut text = String::new();
        if created {
            text.push_str(&format!("created node \"{name}\"  (key {})\n", node.paths.key_file().display()));
        }
        let id = node.overlay.id().to_string();
        let short = format!("{}..{}", id.get(..10).unwrap_or_default(), node.overlay.id().short());
        let network = node.overlay.network();
        let private = if settings.private { " (private)" } else { "" };
        text.push_str(&format!(
            "wattle {}  network {network}{private}  id {short}\n",
            env!("CARGO_PKG_VERSION")
        ));
        for line in listening_lines(listening) {
            text.push_str(&format!("listening  {line}\n"));
        }
        let on = |on: bool| if on { "on" } else { "off" };
        let bootstrap = match settings.bootstrap.len() {
            0 => "none".to_owned(),
            count => count.to_string(),
        };
        text.push_str(&format!(
            "finding    same machine: {}   LAN (mDNS): {}   bootstrap: {bootstrap}\n",
            on(settings.same_machine),
            on(settings.mdns),
        ));
        let dashboard = node.url.as_deref().unwrap_or("off");
        text.push_str(&format!("api        unix:{}   http: {dashboard}\n", node.paths.socket.display()));
        let line = ReadyLine {
            kind: ReadyKind::Ready,
            ts: Timestamp::now(),
            schema: RunSchema::V1,
            name: name.to_string(),
            id: node.overlay.id(),
            network: network.to_string(),
            listen: listening.iter().map(ToString::to_string).collect(),
            api: format!("unix:{}", node.paths.socket.display()),
            url: node.url.clone(),
            pid: std::process::id(),
            created,
            ready_ms: 0,
        };
        let other = if name.as_str() == "bob" { "alice" } else { "bob" };
        let style = match (options.json, options.quiet) {
            (true, _) => Style::Json,
            (false, true) => Style::Quiet,
            (false, false) => Style::Person,
        };
        Self {
            style,
            text,
            line,
            try_alone: format!("{} run", program(other, options.home.as_deref())),
            prefix,
        }
    }

    /// Prints the screen, or the `ready` line.
    pub(super) fn ready(&self, took: Duration) {
        match self.style {
            Style::Quiet => {}
            Style::Json => {
                let line =
                    ReadyLine { ts: Timestamp::now(), ready_ms: whole_millis(took), ..self.line.clone() };
                print_json(&line);
            }
            Style::Person => {
                let Self { text, prefix, try_alone, .. } = self;
                let took = took.as_millis();
                print(&format!(
                    "{text}ready in {took} ms\n  invite someone        {prefix} invite\n  \
                     try it alone          {try_alone}      (a second node here; they find each other)\n"
                ));
            }
        }
    }

    fn show(&self, line: &EventLine) {
        match self.style {
            Style::Quiet => {}
            Style::Json => print_json(line),
            Style::Person => {
                if let Some(text) = person_line(line) {
                    print(&text);
                }
            }
        }
    }

    /// Prints what happens until the node stops.
    pub(super) async fn follow(self, events: Arc<Ring<EventLine>>, stop: CancellationToken) {
        if matches!(self.style, Style::Quiet) {
            return;
        }
        let (mut news, mut seen) = (events.watch(), 0);
        loop {
            news.mark_unchanged();
            let unread = events.after(seen);
            for line in unread.lines {
                seen = line.id;
                // A reader that does not read must hold up nothing but this task.
                tokio::task::block_in_place(|| self.show(&line));
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                // Once more around, for the events of the goodbye.
                () = stop.cancelled() => {}
            }
        }
    }
}

/// `192.168.1.5  udp/7710 (quic), tcp/7710`, one line an address; this machine's own only when there is no
/// other.
fn listening_lines(listening: &[Address]) -> Vec<String> {
    let mut by_ip: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for address in listening {
        let (Some(ip), Some(port)) = (address.ip(), address.port()) else { continue };
        let transport = if address.is_quic() { format!("udp/{port} (quic)") } else { format!("tcp/{port}") };
        by_ip.entry(ip).or_default().push(transport);
    }
    if by_ip.keys().any(|ip| !ip.is_loopback()) {
        by_ip.retain(|ip, _| !ip.is_loopback());
    }
    by_ip
        .into_iter()
        .map(|(ip, mut transports)| {
            transports.sort_by(|a, b| b.cmp(a));
            transports.dedup();
            format!("{ip}  {}", transports.join(", "))
        })
        .collect()
}

fn person_line(line: &EventLine) -> Option<String> {
    let text = match &line.event {
        NodeEvent::PeerConnected { peer } => {
            format!(
                "+ {}   {}",
                who(peer.name.as_deref().or(peer.label.as_deref()), &peer.id.short()),
                path(peer)
            )
        }
        NodeEvent::PeerDisconnected { peer, name, reason } => {
            format!("- {}   {reason}", who(name.as_deref(), &peer.short()))
        }
        NodeEvent::Misbehaved { peer, name, what } => {
            format!("! {}   {what}", who(name.as_deref(), &peer.short()))
        }
        NodeEvent::DuplicateIdentity { peer, name } => {
            format!("! {}   runs twice with one key: stop one of them", who(name.as_deref(), &peer.short()))
        }
        NodeEvent::SelfSuspect { begins: true } => {
            "! so many members fail at once that this node itself is likely cut off".to_owned()
        }
        NodeEvent::SelfSuspect { begins: false } => "this node is well again".to_owned(),
        NodeEvent::OrderEpoch { epoch, height, validators } => {
            let ids: Vec<String> = validators.iter().map(|id| format!("..{}", id.short())).collect();
            format!("the ordered log: {} vote from epoch {epoch} on, behind height {height}", ids.join(" "))
        }
        NodeEvent::OrderEvidence { peer, what } => {
            let whom = peer.map(|id| format!("..{}", id.short())).unwrap_or_default();
            format!("!! validator {whom} lies ({what}), and its signatures prove it")
        }
        NodeEvent::OrderMisbehaved { peer } => {
            format!("!! validator ..{} sent what no honest one sends", peer.short())
        }
        NodeEvent::OrderAlarm { what } => format!("!! ordered log: {}", tame(what)),
        NodeEvent::Stopping => "stopping".to_owned(),
        NodeEvent::Gap { lost } => format!("... {lost} events not shown"),
        NodeEvent::Listening { .. }
        | NodeEvent::ListenClosed { .. }
        | NodeEvent::Member { .. }
        | NodeEvent::Lookup { .. }
        | NodeEvent::OrderCommitted { .. }
        | NodeEvent::Table { .. } => {
            return None;
        }
    };
    let time = line.ts.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
    Some(format!("{time}  {}\n", tame(&text)))
}

fn who(name: Option<&str>, short: &str) -> String {
    match name {
        Some(name) => format!("{name} (..{short})"),
        None => format!("..{short}"),
    }
}

fn path(peer: &Peer) -> String {
    let kind = match peer.path {
        PathName::Direct => "direct",
        PathName::Relayed => "relayed",
    };
    let transport = match peer.transport {
        TransportName::Quic => "quic",
        TransportName::Tcp => "tcp",
    };
    let ip = peer.address.split('/').nth(2).unwrap_or_default();
    let rtt = peer.rtt_ms.map(|rtt| format!("   {rtt:.1} ms")).unwrap_or_default();
    format!("{kind} {transport} {ip}{rtt}")
}

fn print_json<T: serde::Serialize>(line: &T) {
    if let Ok(mut text) = serde_json::to_string(line) {
        text.push('\n');
        print(&text);
    }
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Ignored because the node goes on when nobody reads its screen.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_cannot_drive_the_terminal() {
        let id = wattle_types::NodeId::from_public_key([7; 32]);
        let event = NodeEvent::PeerDisconnected { peer: id, name: None, reason: "\u{1b}[2Jbye\n".to_owned() };
        let line = EventLine { id: 1, ts: Timestamp::UNIX_EPOCH, topic: event.topic(), event };
        let text = person_line(&line).unwrap();
        assert!(text.ends_with("bye\u{fffd}\n") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn listening_addresses_are_shown_once_an_ip_with_their_transports() {
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Address>>();
        let all = addresses(&[
            "/ip4/127.0.0.1/tcp/7710",
            "/ip4/192.168.1.5/tcp/7710",
            "/ip4/192.168.1.5/udp/7710/quic-v1",
        ]);
        assert_eq!(listening_lines(&all), ["192.168.1.5  udp/7710 (quic), tcp/7710"]);
        assert_eq!(listening_lines(&addresses(&["/ip4/127.0.0.1/tcp/1"])), ["127.0.0.1  tcp/1"]);
    }
}
