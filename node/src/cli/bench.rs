//! `bench`: load on the running node, and how long what it is asked for takes.
//!
//! Each kind is one thing that a user does, from asking for it to its outcome where that is: an answer, a message that
//! every other node of this machine heard, an edit that they all have, a record that was found again, an entry that
//! stands in the log for ever. What has no outcome is an error and no latency. With `--rate` a latency counts from when
//! an operation was due, so a node that is too slow is seen to be.

mod arrivals;
mod kinds;
mod load;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::documents::{BenchDocument, BenchEnvironment, BenchKind, BenchSchema};
use super::errors::Failure;
use super::session::{Session, Shown};
use super::values::{Span, as_ms, millis, short};
use crate::exit::ErrorCode;
use load::{Load, Tally};

/// Load this node, and show how long things take
#[derive(Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    Ping(Ping),
    Gossip(Gossip),
    Dht(Dht),
    Doc(Doc),
    Order(Order),
}

// How much. No documentation: clap would take it for that of the command that has it.
#[derive(Args)]
struct Much {
    /// How long
    #[arg(long = "for", value_name = "D", default_value = "5s")]
    span: Span,
    /// So many a second in all; without, the next begins when one ends
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// How many at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// No progress bar, though this is a terminal
    #[arg(long)]
    no_progress: bool,
}

// How much, and how large.
#[derive(Args)]
struct MuchOfSize {
    #[command(flatten)]
    much: Much,
    /// Bytes of each
    #[arg(long, value_name = "B", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    size: u32,
}

/// Ping connected peers in turn: round trips
#[derive(Args)]
struct Ping {
    #[command(flatten)]
    much: Much,
}

/// Publish messages, until every other node of this machine heard them
#[derive(Args)]
struct Gossip {
    #[command(flatten)]
    much: MuchOfSize,
}

/// Store records, and find them again from another node
#[derive(Args)]
struct Dht {
    #[command(flatten)]
    much: MuchOfSize,
}

/// Edit a document, until every other node of this machine has the edit
#[derive(Args)]
struct Doc {
    #[command(flatten)]
    much: MuchOfSize,
}

/// Submit entries to the ordered log, until they stand there for ever
#[derive(Args)]
struct Order {
    #[command(flatten)]
    much: MuchOfSize,
    /// So many in one request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    together: u32,
}

pub(super) async fn bench(session: &Session, args: Bench) -> Result<(), Failure> {
    let (kind, much, bytes) = match &args.command {
        BenchCommand::Ping(args) => (BenchKind::Ping, &args.much, 0),
        BenchCommand::Gossip(args) => (BenchKind::Gossip, &args.much.much, args.much.size),
        BenchCommand::Dht(args) => (BenchKind::Dht, &args.much.much, args.much.size),
        BenchCommand::Doc(args) => (BenchKind::Doc, &args.much.much, args.much.size),
        BenchCommand::Order(args) => (BenchKind::Order, &args.much.much, args.much.size),
    };
    let shows = !much.no_progress && !session.out.json && session.out.can_draw_over();
    let clients = usize::try_from(much.clients).unwrap_or(1);
    let together = if let BenchCommand::Order(args) = &args.command { args.together } else { 1 };
    let (word, span, rate) = (kind.word(), much.span.0, much.rate);
    let load = Load { out: session.out, word, span, rate, clients, together, shows };
    let least = if kind == BenchKind::Gossip { kinds::KEY_BYTES } else { 0 };
    let bytes = usize::try_from(bytes).unwrap_or(0).max(least);
    let scene = kinds::Scene::of(session).await?;
    let tally = match kind {
        BenchKind::Ping => kinds::ping(&scene, &load).await?,
        BenchKind::Gossip => kinds::gossip(&scene, &load, bytes).await?,
        BenchKind::Dht => kinds::dht(&scene, &load, bytes).await?,
        BenchKind::Doc => kinds::doc(&scene, &load, bytes).await?,
        BenchKind::Order => kinds::order(&scene, &load, bytes).await?,
    };
    let environment = BenchEnvironment {
        nodes: scene.alive(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64,
        bytes: bytes as u64,
        clients: clients as u64,
        together: u64::from(together),
        listeners: scene.others() as u64,
        validators: scene.validators(),
    };
    show(session, kind, tally, environment)
}

fn show(
    session: &Session,
    kind: BenchKind,
    tally: Tally,
    environment: BenchEnvironment,
) -> Result<(), Failure> {
    let errors = tally.sent - tally.ok;
    if let Some(failure) = tally.first.filter(|_| tally.ok == 0) {
        // Nothing came of it: why not is the only thing to say.
        return Err(failure);
    }
    let seconds = tally.elapsed.as_secs_f64();
    let document = BenchDocument {
        schema: BenchSchema::V1,
        kind,
        sent: tally.sent,
        ok: tally.ok,
        errors,
        rate: if seconds > 0.0 { (tally.ok as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 },
        took_ms: as_ms(tally.elapsed),
        latency_ms: tally.whole.latency(),
        parts: tally
            .parts
            .iter()
            .filter_map(|(name, samples)| Some(((*name).to_owned(), samples.latency()?)))
            .collect(),
        why: tally.why,
        env: environment,
    };
    session.show_own(&document, |document| Shown {
        text: text_of(document),
        ids: document.latency_ms.iter().map(|latency| latency.p50.to_string()).collect(),
    })?;
    if errors == 0 { Ok(()) } else { Err(ErrorCode::Partial.into()) }
}

fn text_of(document: &BenchDocument) -> String {
    let BenchDocument { kind, sent, ok, errors, rate, env, .. } = document;
    let (what, came) = kind.words();
    let mut text = format!("{what}  {sent} sent  {ok} {came}  {errors} errors   {rate}/s\n");
    let mut about = vec![format!("{} nodes", env.nodes)];
    about.extend(env.validators.map(|votes| format!("{votes} validators")));
    about.push(format!("{} cores", env.cores));
    if env.bytes > 0 {
        about.push(format!("{} B", env.bytes));
    }
    if env.clients > 1 {
        about.push(format!("{} at the same time", env.clients));
    }
    if env.together > 1 {
        about.push(format!("{} in a request", env.together));
    }
    let about = about.join(", ");
    let whole = document.latency_ms.iter().map(|latency| ("latency ms", latency));
    let parts = document.parts.iter().map(|(name, latency)| (name.as_str(), latency));
    for (number, (name, latency)) in whole.chain(parts).enumerate() {
        let about = if number == 0 { format!("          ({about})") } else { String::new() };
        text.push_str(&format!(
            "{name:<12}  p50 {:.1}   p90 {:.1}   p99 {:.1}   max {:.1}{about}\n",
            latency.p50, latency.p90, latency.p99, latency.max
        ));
    }
    for (message, count) in &document.why {
        text.push_str(&format!("{count} times: {}\n", super::table::tame(message)));
    }
    text
}

/// How far it is: `order  [#####.....]  5s of 10s   2103 sent   p50 12.0 ms`.
fn progress(word: &str, passed: Duration, span: Duration, tally: &Tally) -> String {
    const WIDTH: usize = 20;
    let share = if span.is_zero() { 1.0 } else { (passed.as_secs_f64() / span.as_secs_f64()).min(1.0) };
    let full = ((WIDTH as f64) * share) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
    let errors = match tally.ended - tally.ok {
        0 => String::new(),
        errors => format!("   {errors} errors"),
    };
    let last = tally.whole.last().map(|ms| format!("   last {}", millis(ms))).unwrap_or_default();
    format!("{word}  [{bar}]  {} of {}   {} sent{last}{errors}", short(passed), short(span), tally.sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_time_that_passed() {
        let tally = Tally { sent: 12, ..Tally::default() };
        let bar = |seconds| progress("order", Duration::from_secs(seconds), Duration::from_secs(10), &tally);
        assert_eq!(bar(5), "order  [##########..........]  5s of 10s   12 sent");
        assert!(bar(0).contains("[....................]"));
        assert!(bar(30).contains("[####################]"), "what is late takes no more room");
    }
}
