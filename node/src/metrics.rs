//! What the API itself counts, in Prometheus text beside the overlay's metrics.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::members::Health;
use crate::order::{Quorum, View};

mod order;

use order::Order;

/// Which requests. The path is the route's pattern, never what a caller wrote, so the number of series is
/// bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    path: String,
    status: u16,
}

/// The node's own metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    uptime: Gauge,
    memory: Gauge,
    members: Members,
    order: Order,
    started: Instant,
}

/// Which members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// What happened to a probe, an accusation or a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Membership. Its counters take over what the machine and the socket counted.
#[derive(Default)]
struct Members {
    states: Family<StateLabels, Gauge>,
    health: Gauge,
    queue: Gauge,
    probes: Family<ResultLabels, Counter>,
    accusations: Family<ResultLabels, Counter>,
    datagrams: Family<ResultLabels, Counter>,
    datagram_bytes: Family<ResultLabels, Counter>,
    stalls: Counter,
    false_positives: Counter,
}

impl Members {
    fn register(registry: &mut Registry) -> Self {
        let members = Self::default();
        let (states, health, queue) = (members.states.clone(), members.health.clone(), members.queue.clone());
        registry.register("members", "Members as this node sees them, with itself", states);
        registry.register("members_health", "How badly this node does: 0 is well, 7 the worst", health);
        registry.register("members_queue", "Rumours that wait to be told", queue);
        registry.register("members_probes", "Probes since the start", members.probes.clone());
        registry.register("members_accusations", "Accusations since the start", members.accusations.clone());
        registry.register("members_datagrams", "Packets since the start", members.datagrams.clone());
        registry.register_with_unit(
            "members_datagrams",
            "Bytes of packets since the start, without the headers of UDP and IP",
            Unit::Bytes,
            members.datagram_bytes.clone(),
        );
        registry.register("members_stalls", "Times this node was woken too late", members.stalls.clone());
        registry.register(
            "members_false_positives",
            "Faulty members that came back within a minute",
            members.false_positives.clone(),
        );
        members
    }

    fn set(&self, health: &Health) {
        let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (status, datagrams) = (&health.status, &health.datagrams);
        let counts = &status.counts;
        let alive = status.live.saturating_sub(status.suspect);
        for (state, count) in
            [("alive", alive), ("suspect", status.suspect), ("faulty", status.faulty), ("left", status.left)]
        {
            self.states.get_or_create(&StateLabels { state }).set(size(count));
        }
        self.health.set(i64::from(status.health));
        self.queue.set(size(status.queue));
        let sets = [
            (&self.probes, "begun", counts.probes),
            (&self.probes, "answered", counts.answered),
            (&self.probes, "indirect", counts.indirect),
            (&self.probes, "fallback", counts.fallback),
            (&self.probes, "failed", counts.failed),
            (&self.accusations, "made", counts.accused),
            (&self.accusations, "withheld", counts.withheld),
            (&self.accusations, "refuted", counts.refuted),
            (&self.accusations, "over_quota", counts.over_quota),
            (&self.accusations, "repeated", counts.repeated),
            (&self.accusations, "untrusted", counts.untrusted),
            (&self.accusations, "stale", counts.stale),
            (&self.accusations, "unproven", counts.unproven),
            (&self.datagrams, "sent", datagrams.sent),
            (&self.datagrams, "opened", datagrams.opened),
            (&self.datagrams, "unknown", datagrams.unknown),
            (&self.datagrams, "refused", datagrams.refused),
            (&self.datagrams, "replayed", datagrams.replayed),
            (&self.datagrams, "unsent", datagrams.unsent),
            (&self.datagrams, "unread", counts.unread),
            (&self.datagram_bytes, "sent", datagrams.sent_bytes),
            (&self.datagram_bytes, "received", datagrams.received_bytes),
        ];
        for (family, result, count) in sets {
            family.get_or_create(&ResultLabels { result }).inner().store(count, Ordering::Relaxed);
        }
        self.stalls.inner().store(counts.stalls, Ordering::Relaxed);
        self.false_positives.inner().store(counts.false_positives, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts from zero.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        let mut registry = Registry::with_prefix("wattle");
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]);
        let (uptime, memory) = (Gauge::default(), Gauge::default());
        registry.register("api_requests", "Requests to the local API", requests.clone());
        registry.register_with_unit(
            "api_request_duration",
            "Time until the answer of the local API began",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register_with_unit("uptime", "Time since the node started", Unit::Seconds, uptime.clone());
        registry.register_with_unit(
            "resident_memory",
            "Resident memory of the process",
            Unit::Bytes,
            memory.clone(),
        );
        registry.register(
            "build",
            "The program that runs",
            Info::new([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        );
        let members = Members::register(&mut registry);
        let order = Order::register(&mut registry);
        Self { registry, requests, seconds, uptime, memory, members, order, started }
    }

    /// Takes over what membership counted.
    pub fn members(&self, health: &Health) {
        self.members.set(health);
    }

    /// Takes over how the ordered log does, and who could vote now.
    pub fn order(&self, view: &View, standing: &Quorum) {
        self.order.set(view, standing);
    }

    /// Counts one request.
    pub fn request(&self, method: &str, path: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), path: path.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The node's metrics after the overlay's, as Prometheus text format 0.0.4.
    #[must_use]
    pub fn text(&self, overlay: &str) -> String {
        self.uptime.set(i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX));
        self.memory.set(resident_bytes().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0));
        let mut own = String::new();
        let written = encode(&mut own, &self.registry);
        assert!(written.is_ok(), "writing metrics into memory cannot fail: {written:?}");
        format!("{}{}", prometheus(overlay), prometheus(&own))
    }
}

/// OpenMetrics as Prometheus text 0.0.4, where a family has the name of its samples (a counter's ends in
/// `_total`, an info is a gauge whose name ends in `_info`), and a HELP that ends with one dot at most.
fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), said) => {
                help = Some((name, said.unwrap_or_default().trim_end_matches('.')));
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" if !name.ends_with("_total") => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                let said = help.take().filter(|(helped, _)| *helped == name).map_or(name, |(_, said)| said);
                text.push_str(&format!("# HELP {name}{suffix} {said}.\n# TYPE {name}{suffix} {kind}\n"));
            }
            // UNIT and EOF are words of OpenMetrics alone.
            (Some("#"), ..) | (Some(""), None, ..) => {}
            // A family without labels has an empty set of them.
            _ => {
                text.push_str(&line.replacen("{} ", " ", 1));
                text.push('\n');
            }
        }
    }
    text
}

/// The resident memory of this process.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_and_type_and_the_end_mark_is_gone() {
        let metrics = Metrics::new(Instant::now());
        metrics.request("GET", "/api/v1/status", 200, Duration::from_millis(2));
        let text = metrics.text("# HELP a b..\n# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n");
        assert!(text.starts_with("# HELP a b.\n# TYPE a gauge\na 1\n") && !text.contains("EOF"), "{text}");
        for line in [
            "# HELP wattle_api_requests_total Requests to the local API.",
            "# TYPE wattle_api_requests_total counter",
            "wattle_api_requests_total{method=\"GET\",path=\"/api/v1/status\",status=\"200\"} 1",
            "# TYPE wattle_build_info gauge",
            "# TYPE wattle_uptime_seconds gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
