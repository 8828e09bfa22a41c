//! What is wrong, if anything, and what to do about it. Pure: from the overlay's status to words.
//!
//! Only what is known is said: "heard nothing" when nothing was heard, never why.

use std::time::Duration;

use wattle_net::{LanStatus, Status};

use crate::api::documents::{HealthCheck, HealthLevel, OrderRole, OrderSummary, Verdict, Warning};
use crate::api::words;

/// A node without peers is not called alone before this: finding some takes a moment.
pub const ALONE_AFTER: Duration = Duration::from_secs(10);

/// A verdict with its line and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The one-word answer.
    pub verdict: Verdict,
    /// The line for a person.
    pub summary: String,
    /// The reasons, most important first.
    pub warnings: Vec<Warning>,
}

impl Judgement {
    /// With the ordered log that the node keeps.
    #[must_use]
    pub fn with_log(mut self, log: &OrderSummary) -> Self {
        let found = match log.role {
            OrderRole::Broken => {
                Some((Verdict::Degraded, "log_broken", "the ordered log on disk cannot be used"))
            }
            _ if !log.quorum => {
                Some((Verdict::NoQuorum, "no_quorum", "too few validators are there: the ordered log rests"))
            }
            _ => None,
        };
        if let Some((verdict, code, message)) = found {
            if self.verdict == Verdict::Ok || verdict == Verdict::NoQuorum {
                self.verdict = verdict;
            }
            self.summary = format!("{}, {message}", self.summary);
            self.warnings.insert(0, warning(code, message.to_owned(), "wattle order status"));
        } else if self.verdict == Verdict::Ok {
            self.summary = format!("{}, log at height {}", self.summary, log.height);
        }
        self
    }
}

/// Judges a status.
#[must_use]
pub fn judge(status: &Status) -> Judgement {
    let peers = status.peers.len();
    if peers == 0 && status.up >= ALONE_AFTER {
        let summary = format!("up, but alone: 0 peers after {}", words(whole_seconds(status.up)));
        return Judgement { verdict: Verdict::Alone, summary, warnings: why_alone(status) };
    }
    let warnings = why_degraded(status);
    let verdict = if warnings.is_empty() { Verdict::Ok } else { Verdict::Degraded };
    let summary = match peers {
        0 => format!("up for {}, no peers yet", words(whole_seconds(status.up))),
        1 => "connected to 1 peer".to_owned(),
        _ => format!("connected to {peers} peers"),
    };
    Judgement { verdict, summary, warnings }
}

fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

fn warning(code: &str, message: String, hint: &str) -> Warning {
    Warning { code: code.to_owned(), message, hint: Some(hint.to_owned()) }
}

fn why_alone(status: &Status) -> Vec<Warning> {
    let mut warnings = Vec::new();
    match status.lan {
        LanStatus::Off => {
            warnings.push(warning(
                "mdns_off",
                "mDNS is off".to_owned(),
                "set p2p.mdns = true, or use a ticket",
            ));
        }
        LanStatus::Silent => {
            let message = format!("mDNS on for {}, heard nothing", words(whole_seconds(status.up)));
            warnings.push(warning("mdns_silent", message, "your network may block multicast: use a ticket"));
        }
        LanStatus::Heard(heard) => {
            let message = format!("mDNS heard {heard} nodes, none connected");
            warnings.push(warning("mdns_unreachable", message, "wattle logs --level debug"));
        }
    }
    let dial = "wattle join <ticket>   or   wattle connect <multiaddr>";
    match (status.bootstrap, status.address_book) {
        (0, 0) => {
            warnings.push(warning("no_bootstrap", "no bootstrap peers are configured".to_owned(), dial));
        }
        (0, known) => {
            let message = format!("{known} peers are known from earlier, none answered");
            warnings.push(warning("known_unreachable", message, dial));
        }
        (configured, _) => {
            let message = format!("{configured} bootstrap addresses are configured, none answered");
            warnings.push(warning("bootstrap_unreachable", message, "wattle logs"));
        }
    }
    if status.inbound_seen == 0 {
        let ports = ports(status);
        let message =
            format!("{} inbound not seen", if ports.is_empty() { "nothing listens:" } else { &ports });
        warnings.push(warning("no_inbound", message, "does a firewall close the port?"));
    }
    warnings
}

fn ports(status: &Status) -> String {
    let port = |address: &wattle_net::Address| {
        let kind = if address.is_quic() { "udp" } else { "tcp" };
        address.port().map(|port| format!("{kind}/{port}"))
    };
    let mut ports: Vec<String> = status.listening.iter().filter_map(port).collect();
    ports.sort();
    ports.dedup();
    ports.reverse();
    ports.join(", ")
}

fn why_degraded(status: &Status) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if status.listening.is_empty() {
        let message = "the node listens nowhere: nobody can dial it".to_owned();
        warnings.push(warning("not_listening", message, "wattle config show p2p.listen"));
    }
    if !status.peers.is_empty() && status.table_size == 0 && status.up >= ALONE_AFTER {
        let message = "no peer answers DHT queries: nothing can be stored or found".to_owned();
        warnings.push(warning("dht_empty", message, "connect to a node in server mode"));
    }
    warnings
}

/// Judges for monitors: each check with its level.
#[must_use]
pub fn checks(status: &Status) -> Vec<HealthCheck> {
    let judgement = judge(status);
    let check = |name: &str, level, message: String| HealthCheck {
        name: name.to_owned(),
        level,
        message,
        hint: None,
    };
    let listening = match status.listening.len() {
        0 => check("listening", HealthLevel::Critical, "the node listens nowhere".to_owned()),
        count => check("listening", HealthLevel::Ok, format!("{count} addresses")),
    };
    let peers = match (judgement.verdict, status.peers.len()) {
        (Verdict::Alone, _) => check("peers", HealthLevel::Warning, judgement.summary.clone()),
        (_, count) => check("peers", HealthLevel::Ok, format!("{count} connected")),
    };
    let dht = match judgement.warnings.iter().find(|warning| warning.code == "dht_empty") {
        Some(warning) => check("dht", HealthLevel::Warning, warning.message.clone()),
        None => check("dht", HealthLevel::Ok, format!("{} peers in the table", status.table_size)),
    };
    vec![listening, peers, dht]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(up_s: u64) -> Status {
        Status {
            listening: vec!["/ip4/127.0.0.1/udp/7710/quic-v1".parse().unwrap()],
            external: Vec::new(),
            peers: Vec::new(),
            dht_server: true,
            table_size: 0,
            table_buckets: 0,
            records_held: 0,
            published: 0,
            lan: LanStatus::Silent,
            bootstrap: 0,
            address_book: 0,
            inbound_seen: 0,
            up: Duration::from_secs(up_s),
        }
    }

    #[test]
    fn a_node_without_peers_is_told_why_after_ten_seconds_and_not_before() {
        assert_eq!(judge(&status(9)).verdict, Verdict::Ok);
        let judgement = judge(&status(34));
        assert_eq!(
            (judgement.verdict, judgement.summary.as_str()),
            (Verdict::Alone, "up, but alone: 0 peers after 34s")
        );
        let messages: Vec<_> = judgement.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "mDNS on for 34s, heard nothing",
                "no bootstrap peers are configured",
                "udp/7710 inbound not seen"
            ]
        );
    }

    #[test]
    fn a_node_that_listens_nowhere_is_critical_for_a_monitor() {
        let deaf = Status { listening: Vec::new(), ..status(1) };
        assert_eq!(checks(&deaf).iter().map(|check| check.level).max(), Some(HealthLevel::Critical));
        assert_eq!(judge(&deaf).verdict, Verdict::Degraded);
    }
}
