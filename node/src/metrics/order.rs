//! The ordered log, as far as this node keeps one: without a log there are no series.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::order::{Quorum, View};

/// None.
type NoLabels = [(&'static str, &'static str); 0];

/// Which validators.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Which of the latencies, by how many of them are no longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuantileLabels {
    quantile: &'static str,
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

/// What is told of the log. A family without labels has no series before it is set.
#[derive(Default)]
pub(super) struct Order {
    height: Family<NoLabels, Gauge>,
    round: Family<NoLabels, Gauge>,
    epoch: Family<NoLabels, Gauge>,
    waiting: Family<NoLabels, Gauge>,
    validators: Family<StateLabels, Gauge>,
    quorum: Family<NoLabels, Gauge>,
    signs: Family<NoLabels, Gauge>,
    alarms: Family<NoLabels, Gauge>,
    commit: Family<QuantileLabels, Gauge<f64, AtomicU64>>,
    blocks: Family<NoLabels, Counter>,
    entries: Family<NoLabels, Counter>,
    votes: Family<NoLabels, Counter>,
    timeouts: Family<NoLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
}

impl Order {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let order = Self::default();
        let gauges = [
            ("height", "Blocks that are ordered, as far as this node knows", &order.height),
            ("round", "The round that this node is in", &order.round),
            ("epoch", "The epoch of the log", &order.epoch),
            ("waiting", "Entries that wait here to be ordered", &order.waiting),
            ("quorum", "Whether enough validators are there: 1 or 0", &order.quorum),
            ("signs", "Whether this node votes: 1 or 0", &order.signs),
            ("alarms", "What an operator has to know: see order status", &order.alarms),
        ];
        for (name, help, gauge) in gauges {
            registry.register(format!("order_{name}"), help, gauge.clone());
        }
        let counters = [
            ("blocks", "Blocks that were ordered since the start", &order.blocks),
            ("entries", "Entries that were ordered since the start", &order.entries),
            ("votes", "Votes that this node signed since the start", &order.votes),
            ("timeouts", "Rounds that this node timed out since the start", &order.timeouts),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("order_{name}"), help, counter.clone());
        }
        let (validators, refusals) = (order.validators.clone(), order.refusals.clone());
        registry.register("order_validators", "Validators as this node sees them", validators);
        registry.register("order_refusals", "Times that nothing was signed, since the start", refusals);
        registry.register_with_unit(
            "order_commit",
            "From when an entry was submitted here until it was ordered, of the last 256",
            Unit::Seconds,
            order.commit.clone(),
        );
        order
    }

    pub(super) fn set(&self, view: &View, standing: &Quorum) {
        let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let status = &view.status;
        let signs = status.validator && crate::order::silenced(status).is_none() && !status.wary;
        let gauges = [
            (&self.height, number(status.height.0)),
            (&self.round, number(status.round.0)),
            (&self.epoch, number(status.epoch.0)),
            (&self.waiting, size(view.waiting)),
            (&self.quorum, i64::from(standing.holds)),
            (&self.signs, i64::from(signs)),
            (&self.alarms, size(view.alarms.len())),
        ];
        for (gauge, value) in gauges {
            gauge.get_or_create(&[]).set(value);
        }
        for (state, validators) in
            [("reachable", standing.reachable.len()), ("missing", standing.missing.len())]
        {
            self.validators.get_or_create(&StateLabels { state }).set(size(validators));
        }
        let counts = &view.counts;
        let counters = [
            (&self.blocks, counts.commits),
            (&self.entries, view.entries),
            (&self.votes, counts.votes),
            (&self.timeouts, counts.timeouts),
        ];
        for (counter, count) in counters {
            counter.get_or_create(&[]).inner().store(count, Ordering::Relaxed);
        }
        for (refusal, count) in &counts.refusals {
            let labels = ReasonLabels { reason: refusal.to_string() };
            self.refusals.get_or_create(&labels).inner().store(*count, Ordering::Relaxed);
        }
        for (quantile, percent) in [("0.5", 50), ("0.99", 99)] {
            if let Some(latency) = view.latency(percent) {
                self.commit.get_or_create(&QuantileLabels { quantile }).set(latency.as_secs_f64());
            }
        }
    }
}
