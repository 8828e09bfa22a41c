//! What is done to links, and to the disks and clocks of nodes: `partition`, `heal`, `latency`, `loss`, `rate`, `disk`,
//! `clock`, `clear`.
//!
//! The whole table is computed from what is written down and told to each node, so telling it twice is as good as once,
//! and a node that was away has it from its file when it starts.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::netns;
use super::state::{Held, Place, Row, State, pair};
use crate::api::documents::{ErrorDocument, FaultsDocument};
use crate::cli::documents::{
    TestnetLinksDocument, TestnetLinksSchema, TestnetNodeFault, TestnetPartition, TestnetShape,
    TestnetStanding,
};
use crate::cli::errors::{Failure, advise};
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::values::{Span, short};
use crate::exit::ErrorCode;
use crate::faults::CLOCK_MAX;

/// `50ms`, or `50ms+-10`: milliseconds around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    latency_ms: f64,
    jitter_ms: f64,
}

/// `5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loss(f64);

/// `1mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(u64);

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Full(bool);

/// Why a text is none of these. Caller error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidShape {
    #[error("a latency is a duration up to a minute, and may say how much it varies: 50ms, 50ms+-10")]
    Latency,
    #[error("a loss is a share from 0% to 100%: 5%, 0.5%")]
    Loss,
    #[error("a rate is a number of at least 1kbit, and a unit, or 0 for no limit: 64kbit, 1mbit, 1gbit")]
    Rate,
    #[error("a disk is full or free")]
    Disk,
    #[error("a clock is wrong by a duration up to a day: 5m, 90s, and 0s when it is right")]
    Clock,
}

fn milliseconds(text: &str) -> Option<f64> {
    let span = text.parse::<Span>().ok()?.0;
    (span <= Duration::from_secs(60)).then_some(span.as_secs_f64() * 1000.0)
}

impl FromStr for Latency {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (latency, jitter) = text.split_once("+-").or_else(|| text.split_once('±')).unwrap_or((text, "0"));
        // A bare number is in the unit of what it varies.
        let unit = latency.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let bare = jitter.chars().all(|c| c.is_ascii_digit() || c == '.') && jitter != "0";
        let jitter = if bare { format!("{jitter}{unit}") } else { jitter.to_owned() };
        let read = |text: &str| milliseconds(text).ok_or(InvalidShape::Latency);
        Ok(Self { latency_ms: read(latency)?, jitter_ms: read(&jitter)? })
    }
}

impl FromStr for Loss {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
        let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
        percent.map(|percent| Self(percent / 100.0)).ok_or(InvalidShape::Loss)
    }
}

impl FromStr for Rate {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(0));
        }
        let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)];
        let bits = units.into_iter().find_map(|(unit, size)| {
            let number: f64 = text.to_ascii_lowercase().strip_suffix(unit)?.parse().ok()?;
            let bits = number * size;
            (1000.0..=1e12).contains(&bits).then_some(bits as u64)
        });
        bits.map(Self).ok_or(InvalidShape::Rate)
    }
}

impl FromStr for Full {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "full" => Ok(Self(true)),
            "free" => Ok(Self(false)),
            _ => Err(InvalidShape::Disk),
        }
    }
}

/// How far a clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Skew(i64);

impl FromStr for Skew {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span = text.parse::<Span>().map_err(|_none| InvalidShape::Clock)?.0;
        match i64::try_from(span.as_millis()) {
            Ok(ms) if span <= CLOCK_MAX => Ok(Self(ms)),
            _ => Err(InvalidShape::Clock),
        }
    }
}

fn usage(message: impl std::fmt::Display) -> Failure {
    ErrorDocument::new(ErrorCode::Usage, message.to_string()).into()
}

/// A link and what to do to it: `0-1 50ms`, or `50ms` for all.
fn link_and<T: FromStr<Err = InvalidShape>>(
    state: &State,
    what: &[String],
) -> Result<(Option<[u32; 2]>, T), Failure> {
    match what {
        [value] => Ok((None, value.parse().map_err(usage)?)),
        [link, value] => {
            // Names may have dashes; indexes have none.
            let ends = link.match_indices('-').find_map(|(at, _)| {
                let (one, other) = (link.get(..at)?, link.get(at + 1..)?);
                Some((state.node(one).ok()?.index, state.node(other).ok()?.index))
            });
            match ends {
                Some((one, other)) if one != other => {
                    Ok((Some(pair(one, other)), value.parse().map_err(usage)?))
                }
                Some(_) => Err(usage("a link has two ends")),
                None => Err(unknown_link(state, link)),
            }
        }
        _ => Err(usage("too many words")),
    }
}

/// A node and what to do to it: `2 full`, or `full` for all.
fn node_and<T: FromStr<Err = InvalidShape>>(
    state: &State,
    what: &[String],
) -> Result<(Vec<u32>, T), Failure> {
    match what {
        [value] => Ok((state.nodes.iter().map(|row| row.index).collect(), value.parse().map_err(usage)?)),
        [node, value] => Ok((vec![state.node(node)?.index], value.parse().map_err(usage)?)),
        _ => Err(usage("too many words")),
    }
}

fn unknown_link(state: &State, link: &str) -> Failure {
    // Which of both is not there, is said as everywhere else.
    let first_unknown = link.split('-').find_map(|end| state.node(end).err());
    match first_unknown {
        Some(failure) if link.contains('-') => failure,
        _ => usage(format!("`{link}` is no link: name its ends, as in 0-1")),
    }
}

pub(super) fn partition(session: &Session, args: &super::Partition) -> Result<(), Failure> {
    command(session, &args.net, |state| cut(state, args))
}

pub(super) fn heal(session: &Session, args: &super::Heal) -> Result<(), Failure> {
    command(session, &args.net, |state| Ok(join(state)))
}

pub(super) fn latency(session: &Session, args: &super::LatencyArgs) -> Result<(), Failure> {
    command(session, &args.net, |state| delay(state, args))
}

pub(super) fn loss(session: &Session, args: &super::LossArgs) -> Result<(), Failure> {
    command(session, &args.net, |state| lose(state, args))
}

pub(super) fn rate(session: &Session, args: &super::RateArgs) -> Result<(), Failure> {
    command(session, &args.net, |state| narrow(state, args))
}

pub(super) fn disk(session: &Session, args: &super::Disk) -> Result<(), Failure> {
    command(session, &args.net, |state| fill(state, args))
}

pub(super) fn clock(session: &Session, args: &super::Clock) -> Result<(), Failure> {
    command(session, &args.net, |state| skew(state, args))
}

pub(super) fn clear(session: &Session, args: &super::Clear) -> Result<(), Failure> {
    command(session, &args.net, |state| Ok(bare(state)))
}

/// Changes what is written down of the links, and tells all nodes.
fn command(
    session: &Session,
    net: &super::Net,
    alter: impl FnOnce(&mut State) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut held = Place::named(session, net.name.as_ref())?.hold()?;
    let what = alter(&mut held.state)?;
    let at = held.state.note(what);
    tell(session, held, at)
}

/// Does to what is written down of the links what a command does, and gives it as one would type it. Nothing, when the
/// command is not about links.
pub(super) fn alter(state: &mut State, command: &super::TestnetCommand) -> Result<Option<String>, Failure> {
    use super::TestnetCommand as Command;
    match command {
        Command::Partition(args) => cut(state, args).map(Some),
        Command::Heal(_) => Ok(Some(join(state))),
        Command::Latency(args) => delay(state, args).map(Some),
        Command::Loss(args) => lose(state, args).map(Some),
        Command::Rate(args) => narrow(state, args).map(Some),
        Command::Disk(args) => fill(state, args).map(Some),
        Command::Clock(args) => skew(state, args).map(Some),
        Command::Clear(_) => Ok(Some(bare(state))),
        _ => Ok(None),
    }
}

fn cut(state: &mut State, args: &super::Partition) -> Result<String, Failure> {
    let mut groups = Vec::new();
    let mut seen = BTreeSet::new();
    for text in &args.groups {
        let mut group = Vec::new();
        for node in text.split(',').filter(|node| !node.is_empty()) {
            let index = state.node(node)?.index;
            if !seen.insert(index) {
                return Err(usage(format!("node {node} is in two groups")));
            }
            group.push(index);
        }
        if group.is_empty() {
            return Err(usage(format!("`{text}` is no group: name nodes, as in 0,1")));
        }
        groups.push(group);
    }
    let rest: Vec<u32> =
        state.nodes.iter().map(|row| row.index).filter(|index| !seen.contains(index)).collect();
    if !rest.is_empty() {
        groups.push(rest);
    }
    if groups.len() < 2 {
        return Err(usage("that is everybody in one group: there is nothing to cut"));
    }
    let arrow = if args.one_way { "--one-way " } else { "" };
    state.partition = Some(TestnetPartition { groups, one_way: args.one_way, since: Timestamp::now() });
    Ok(format!("partition {arrow}{}", args.groups.join(" ")))
}

fn join(state: &mut State) -> String {
    state.partition = None;
    "heal".to_owned()
}

fn delay(state: &mut State, args: &super::LatencyArgs) -> Result<String, Failure> {
    let (between, Latency { latency_ms, jitter_ms }) = link_and(state, &args.what)?;
    let spread = args.spread.into();
    change(state, between, |shape| {
        *shape = TestnetShape { latency_ms, jitter_ms, spread, ..*shape };
    });
    Ok(format!("latency {}", args.what.join(" ")))
}

fn lose(state: &mut State, args: &super::LossArgs) -> Result<String, Failure> {
    let (between, Loss(loss)) = link_and(state, &args.what)?;
    change(state, between, |shape| shape.loss = loss);
    Ok(format!("loss {}", args.what.join(" ")))
}

fn narrow(state: &mut State, args: &super::RateArgs) -> Result<String, Failure> {
    let (between, Rate(rate_bits)) = link_and(state, &args.what)?;
    change(state, between, |shape| shape.rate_bits = rate_bits);
    Ok(format!("rate {}", args.what.join(" ")))
}

fn fill(state: &mut State, args: &super::Disk) -> Result<String, Failure> {
    let (nodes, Full(disk_full)) = node_and(state, &args.what)?;
    for node in nodes {
        state.set_node_fault(TestnetNodeFault { disk_full, ..state.node_fault(node) });
    }
    Ok(format!("disk {}", args.what.join(" ")))
}

fn skew(state: &mut State, args: &super::Clock) -> Result<String, Failure> {
    if state.backend.shares_process() {
        let message = format!("the nodes of \"{}\" are in one process, which has one clock", state.name);
        let document = ErrorDocument::new(ErrorCode::Conflict, message);
        return Err(
            advise(document, "have each", "wattle testnet up 5 --backend process", "in its own").into()
        );
    }
    let (nodes, Skew(ahead)) = node_and(state, &args.what)?;
    let clock_ms = if args.behind { -ahead } else { ahead };
    for node in nodes {
        state.set_node_fault(TestnetNodeFault { clock_ms, ..state.node_fault(node) });
    }
    Ok(format!("clock {}{}", args.what.join(" "), if args.behind { " --behind" } else { "" }))
}

fn bare(state: &mut State) -> String {
    state.links.clear();
    state.node_faults.clear();
    "clear".to_owned()
}

/// Changes the shape of one link, which until then had that of all, or of all.
fn change(state: &mut State, between: Option<[u32; 2]>, change: impl Fn(&mut TestnetShape)) {
    match between {
        Some([one, other]) => {
            let mut shape = TestnetShape { between, ..state.shape(one, other) };
            change(&mut shape);
            state.links.retain(|link| link.between != between);
            state.links.push(shape);
        }
        None => {
            if !state.links.iter().any(|link| link.between.is_none()) {
                state.links.insert(0, TestnetShape::default());
            }
            state.links.iter_mut().for_each(change);
        }
    }
    let nothing = |shape: &TestnetShape| {
        TestnetShape { between: None, spread: Default::default(), ..*shape } == TestnetShape::default()
    };
    // A link of its own that does nothing still keeps off what all have.
    let all = state.links.iter().any(|link| link.between.is_none() && !nothing(link));
    state.links.retain(|link| !nothing(link) || (link.between.is_some() && all));
}

/// Writes down what changed, tells the nodes, and shows it.
fn tell(session: &Session, held: Held, at: Timestamp) -> Result<(), Failure> {
    let later = spread(session, &held)?;
    let document = TestnetLinksDocument {
        schema: TestnetLinksSchema::V1,
        name: held.state.name.clone(),
        at,
        partition: held.state.partition.clone(),
        links: held.state.links,
        node_faults: held.state.node_faults,
        later,
    };
    session.show_own(&document, |document| Shown { text: text_of(document), ids: Vec::new() })
}

/// Writes down what links are to have, and tells every node; gives those that do not run now.
pub(super) fn spread(session: &Session, held: &Held) -> Result<Vec<u32>, Failure> {
    held.save()?;
    held.place.write_faults(&held.state)?;
    session.block_on(apply(&held.place, &held.state, &held.state.nodes))
}

/// Tells nodes what their links are to have; gives those that do not run now.
pub(super) async fn apply(place: &Place, state: &State, rows: &[Row]) -> Result<Vec<u32>, Failure> {
    if state.backend.has_own_network() {
        rows.iter()
            .filter(|row| netns::is_made(place, row))
            .try_for_each(|row| netns::shape(place, state, row))?;
    }
    let each = rows.iter().map(|row| async move {
        if place.standing(row) != TestnetStanding::Running {
            return Ok(Some(row.index));
        }
        let told = place.client(row)?.post::<FaultsDocument>(routes::FAULTS, &state.faults_of(row)).await;
        match told {
            Ok(_told) => Ok(None),
            Err(Failure::Error(document)) if document.code == ErrorCode::NoNode => Ok(Some(row.index)),
            Err(failure) => Err(failure),
        }
    });
    let all = futures::future::join_all(each.collect::<Vec<_>>()).await;
    let all: Result<Vec<Option<u32>>, Failure> = all.into_iter().collect();
    Ok(all?.into_iter().flatten().collect())
}

fn text_of(document: &TestnetLinksDocument) -> String {
    let mut text = String::new();
    let at = document.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
    match &document.partition {
        Some(partition) => text.push_str(&format!("split at {at}: {}\n", groups(partition))),
        None => text.push_str(&format!("every node reaches every other, since {at} at the latest\n")),
    }
    for shape in &document.links {
        text.push_str(&format!("{}\n", shape_text(shape)));
    }
    for fault in &document.node_faults {
        text.push_str(&format!("{}\n", node_fault_text(fault)));
    }
    if !document.later.is_empty() {
        let later: Vec<String> = document.later.iter().map(u32::to_string).collect();
        text.push_str(&format!("not running, told when they do: {}\n", later.join(", ")));
    }
    text
}

/// A split as one would type it.
pub(super) fn cut_words(partition: &TestnetPartition) -> String {
    let group = |group: &Vec<u32>| group.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let groups: Vec<String> = partition.groups.iter().map(group).collect();
    format!("partition {}{}", if partition.one_way { "--one-way " } else { "" }, groups.join(" "))
}

/// `{0,1} | {2,3,4}`
pub(super) fn groups(partition: &TestnetPartition) -> String {
    let groups: Vec<String> = partition
        .groups
        .iter()
        .map(|group| {
            let members: Vec<String> = group.iter().map(u32::to_string).collect();
            format!("{{{}}}", members.join(","))
        })
        .collect();
    match (partition.one_way, groups.split_first()) {
        (true, Some((first, rest))) => format!("{first} is not heard by {}", rest.join(" ")),
        _ => groups.join(" | "),
    }
}

/// `0-1: +50 ms (+-10) loss 5% rate 1 mbit`
pub(super) fn shape_text(shape: &TestnetShape) -> String {
    let mut text = match shape.between {
        Some([one, other]) => format!("{one}-{other}:"),
        None => "all links:".to_owned(),
    };
    if shape.latency_ms > 0.0 || shape.jitter_ms > 0.0 {
        text.push_str(&format!("  +{} ms", shape.latency_ms));
        if shape.jitter_ms > 0.0 {
            text.push_str(&format!(" +-{}", shape.jitter_ms));
        }
    }
    if shape.loss > 0.0 {
        text.push_str(&format!("  loss {}%", (shape.loss * 10_000.0).round() / 100.0));
    }
    if shape.rate_bits > 0 {
        text.push_str(&format!("  rate {} kbit", shape.rate_bits / 1000));
    }
    text
}

/// `2:  disk full  clock 5m ahead`
pub(super) fn node_fault_text(fault: &TestnetNodeFault) -> String {
    let mut text = format!("{}:", fault.node);
    if fault.disk_full {
        text.push_str("  disk full");
    }
    if fault.clock_ms != 0 {
        let way = if fault.clock_ms > 0 { "ahead" } else { "behind" };
        text.push_str(&format!(
            "  clock {} {way}",
            short(Duration::from_millis(fault.clock_ms.unsigned_abs()))
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_people_type_them() {
        let latency = |text: &str| text.parse::<Latency>().map(|it| (it.latency_ms, it.jitter_ms));
        assert_eq!(latency("50ms"), Ok((50.0, 0.0)));
        assert_eq!(latency("50ms+-10"), Ok((50.0, 10.0)));
        assert_eq!(latency("1s+-200ms"), Ok((1000.0, 200.0)));
        assert_eq!(latency("1.5s±0.5"), Ok((1500.0, 500.0)));
        for bad in ["", "50", "-1ms", "2m", "50ms+-", "50ms+-x", "+-10"] {
            assert_eq!(latency(bad), Err(InvalidShape::Latency), "{bad}");
        }
        let loss = |text: &str| text.parse::<Loss>().map(|loss| loss.0);
        assert_eq!((loss("5%"), loss("0.5%"), loss("100%")), (Ok(0.05), Ok(0.005), Ok(1.0)));
        for bad in ["5", "-1%", "101%", "%", "NaN%"] {
            assert_eq!(loss(bad), Err(InvalidShape::Loss), "{bad}");
        }
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        assert_eq!(
            (rate("1mbit"), rate("64kbit"), rate("0.5Mbit"), rate("0")),
            (Ok(1_000_000), Ok(64_000), Ok(500_000), Ok(0))
        );
        for bad in ["1", "1mb", "0.1kbit", "-1mbit", "mbit", "infmbit"] {
            assert_eq!(rate(bad), Err(InvalidShape::Rate), "{bad}");
        }
    }
}
