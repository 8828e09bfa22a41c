//! Testnets: many nodes on this machine, a bad network between them, and a report about what held.
//!
//! Every node has its own key, ports and files below one directory, the `--home` of them all, and a process of its own;
//! or they share one, which is lighter, and then none of them can be killed or frozen alone. The
//! tool is gone when its command ends: what it must know the next time stands in that directory (`state`), and what is
//! done to links is told to each node by its API (`links`), which only these nodes listen to.

mod apply;
mod chaos;
mod demo;
mod exec;
mod host;
mod links;
mod logs;
mod netns;
mod nodes;
mod ordered;
mod plan;
mod process;
mod report;
mod show;
mod start;
mod state;
mod up;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use state::{NetName, Spot};

use super::errors::{Failure, advise};
use super::session::{Globals, Session};
use super::values::Span;
use crate::api::documents::{ErrorDocument, SpreadName};
use crate::cli::documents::TestnetBackend;
use crate::exit::ErrorCode;
use crate::paths::{Environment, NodeName, Paths};

/// Run many nodes on this machine, with faults between them
#[derive(Args)]
pub(super) struct Testnet {
    #[command(subcommand)]
    command: TestnetCommand,
}

#[derive(Subcommand)]
enum TestnetCommand {
    Up(Up),
    Apply(Apply),
    Down(Down),
    List(List),
    Status(Status),
    Exec(Exec),
    Logs(Logs),
    Partition(Partition),
    Heal(Heal),
    Latency(LatencyArgs),
    Loss(LossArgs),
    Rate(RateArgs),
    Disk(Disk),
    Clock(Clock),
    Clear(Clear),
    Kill(Kill),
    Pause(Pause),
    Resume(Resume),
    Restart(Restart),
    Add(Add),
    Remove(Remove),
    Chaos(Chaos),
    Report(Report),
    Demo(Demo),
    Host(Host),
}

// Which testnet. No documentation: clap would take it for that of the command that has it.
#[derive(Args)]
pub(super) struct Net {
    /// Which testnet; not needed when there is one only
    #[arg(long, value_name = "NAME")]
    name: Option<NetName>,
}

/// Start N connected nodes on this machine
#[derive(Args)]
pub(super) struct Up {
    /// How many
    #[arg(value_name = "N")]
    nodes: u32,
    /// What to call the testnet; demo when absent
    #[arg(long, value_name = "NAME")]
    name: Option<NetName>,
    /// What the nodes run in
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    backend: TestnetBackend,
    /// Keep an ordered log too: the last V nodes are its validators, the others follow it
    #[arg(long, value_name = "V")]
    validators: Option<u32>,
    /// Give every link this much more round trip: 50ms
    #[arg(long, value_name = "D")]
    latency: Option<Span>,
    /// What faults follow from: the same seed loses the same; drawn when absent
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// Make a testnet as a file says; a second time changes nothing
#[derive(Args)]
pub(super) struct Apply {
    /// What to call the testnet; as the file says when absent
    #[arg(long, value_name = "NAME")]
    name: Option<NetName>,
    /// The file, such as configs/testnet.toml: nodes, validators, links, and faults over time
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Stop a testnet, and leave nothing of it
#[derive(Args)]
pub(super) struct Down {
    #[command(flatten)]
    net: Net,
    /// Keep its files: `testnet restart all` brings it back
    #[arg(long)]
    keep: bool,
}

/// List the testnets of this user
#[derive(Args)]
struct List {}

/// Show how the nodes of a testnet do
#[derive(Args)]
struct Status {
    #[command(flatten)]
    net: Net,
    /// Again and again
    #[arg(short, long)]
    watch: bool,
}

/// Run a wattle command against one node, or against all
#[derive(Args)]
struct Exec {
    #[command(flatten)]
    net: Net,
    /// Which node: its index, its name, or all
    #[arg(value_name = "IDX")]
    which: String,
    /// The command, without `wattle`
    #[arg(last = true, required = true, value_name = "ARGS")]
    words: Vec<String>,
}

/// Read the logs of the nodes as one, each in its colour
#[derive(Args)]
struct Logs {
    #[command(flatten)]
    net: Net,
    /// Of this node only: its index or its name
    #[arg(value_name = "IDX")]
    which: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
}

/// Cut groups of nodes off from each other
#[derive(Args)]
struct Partition {
    #[command(flatten)]
    net: Net,
    /// Nodes that still reach each other, such as 0,1 or alice,bob; who is in no group is in one more
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Only keep the first group from being heard; it hears the others
    #[arg(long)]
    one_way: bool,
}

/// Join what a partition cut
#[derive(Args)]
struct Heal {
    #[command(flatten)]
    net: Net,
}

/// How delays spread around the one asked for
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Spread {
    /// Anything up to the jitter more or less
    #[default]
    Uniform,
    /// Normal, with the jitter as its standard deviation
    Normal,
    /// Never less, mostly a little more, now and then much
    HeavyTail,
}

impl From<Spread> for SpreadName {
    fn from(spread: Spread) -> Self {
        match spread {
            Spread::Uniform => Self::Uniform,
            Spread::Normal => Self::Normal,
            Spread::HeavyTail => Self::HeavyTail,
        }
    }
}

/// Make round trips longer: 50ms, or 50ms+-10
#[derive(Args)]
struct LatencyArgs {
    #[command(flatten)]
    net: Net,
    /// The link, such as 0-1 or alice-bob, then how much; without a link, all of them
    #[arg(required = true, num_args = 1..=2, value_name = "[A-B] D")]
    what: Vec<String>,
    /// How delays spread
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    spread: Spread,
}

/// Lose some of what is sent: 5%
#[derive(Args)]
struct LossArgs {
    #[command(flatten)]
    net: Net,
    /// The link, such as 0-1, then which share; without a link, all of them
    #[arg(required = true, num_args = 1..=2, value_name = "[A-B] P")]
    what: Vec<String>,
}

/// Let only so much through: 1mbit
#[derive(Args)]
struct RateArgs {
    #[command(flatten)]
    net: Net,
    /// The link, such as 0-1, then how much a second; without a link, each of them
    #[arg(required = true, num_args = 1..=2, value_name = "[A-B] R")]
    what: Vec<String>,
}

/// Have nodes find no space on their disks: full; and again: free
#[derive(Args)]
struct Disk {
    #[command(flatten)]
    net: Net,
    /// The node, by index or name, then full or free; without a node, all of them
    #[arg(required = true, num_args = 1..=2, value_name = "[IDX] HOW")]
    what: Vec<String>,
}

/// Set the clocks of nodes wrong: 5m ahead; and right again: 0s
#[derive(Args)]
struct Clock {
    #[command(flatten)]
    net: Net,
    /// The node, by index or name, then how far; without a node, all of them
    #[arg(required = true, num_args = 1..=2, value_name = "[IDX] D")]
    what: Vec<String>,
    /// Behind instead of ahead
    #[arg(long)]
    behind: bool,
}

/// Take what was done off every link, every disk and every clock
#[derive(Args)]
struct Clear {
    #[command(flatten)]
    net: Net,
}

// Which nodes.
#[derive(Args)]
struct Nodes {
    #[command(flatten)]
    net: Net,
    /// Which: indexes, names, or all
    #[arg(required = true, value_name = "IDX")]
    nodes: Vec<String>,
}

/// Kill nodes, as a power cut would
#[derive(Args)]
struct Kill {
    #[command(flatten)]
    which: Nodes,
}

/// Freeze nodes where they are
#[derive(Args)]
struct Pause {
    #[command(flatten)]
    which: Nodes,
}

/// Thaw frozen nodes
#[derive(Args)]
struct Resume {
    #[command(flatten)]
    which: Nodes,
}

/// Bring nodes back with what they had on disk, or stop and start them
#[derive(Args)]
struct Restart {
    #[command(flatten)]
    which: Nodes,
}

/// Start more nodes, and connect them
#[derive(Args)]
struct Add {
    #[command(flatten)]
    net: Net,
    /// How many
    #[arg(value_name = "N", default_value_t = 1)]
    count: u32,
}

/// Take nodes away: they say goodbye, and their files go
#[derive(Args)]
struct Remove {
    #[command(flatten)]
    which: Nodes,
}

/// Do random faults for a while, undo them, and report
#[derive(Args)]
struct Chaos {
    #[command(flatten)]
    net: Net,
    /// How long
    #[arg(long = "for", value_name = "D", default_value = "60s")]
    span: Span,
    /// What they follow from: the same seed does the same; the testnet's own when absent
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only these kinds, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<chaos::Kind>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long things may take afterwards to become as they must be
    #[arg(long, value_name = "D", default_value = "60s")]
    within: Span,
}

/// Show a partition and its end in two minutes, with the commands to type
#[derive(Args)]
struct Demo {
    /// What to call the testnet; demo when absent
    #[arg(long, value_name = "NAME")]
    name: Option<NetName>,
    /// Leave the testnet up afterwards
    #[arg(long)]
    keep: bool,
}

/// Check what must hold, say how long it took, and write it down
#[derive(Args)]
struct Report {
    #[command(flatten)]
    net: Net,
    /// Write report.html and report.json there
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How long things may take to become as they must be
    #[arg(long, value_name = "D", default_value = "10s")]
    within: Span,
}

/// Run several nodes in this process, for `testnet up --backend inproc`
#[derive(Args)]
#[command(hide = true)]
struct Host {
    /// Where the files of faults are
    #[arg(value_name = "DIR")]
    faults: PathBuf,
    /// Which nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<NodeName>,
}

pub(super) fn testnet(session: &Session, args: Testnet) -> Result<(), Failure> {
    use crate::cli::documents::TestnetDone;
    match args.command {
        TestnetCommand::Up(args) => up::up(session, &args),
        TestnetCommand::Apply(args) => apply::apply(session, &args),
        TestnetCommand::Down(args) => up::down(session, &args),
        TestnetCommand::List(List {}) => show::list(session),
        TestnetCommand::Status(args) => session.block_on(show::status(session, &args)),
        TestnetCommand::Exec(args) => exec::exec(session, &args),
        TestnetCommand::Logs(args) => session.block_on(logs::logs(session, &args)),
        TestnetCommand::Partition(args) => links::partition(session, &args),
        TestnetCommand::Heal(args) => links::heal(session, &args),
        TestnetCommand::Latency(args) => links::latency(session, &args),
        TestnetCommand::Loss(args) => links::loss(session, &args),
        TestnetCommand::Rate(args) => links::rate(session, &args),
        TestnetCommand::Disk(args) => links::disk(session, &args),
        TestnetCommand::Clock(args) => links::clock(session, &args),
        TestnetCommand::Clear(args) => links::clear(session, &args),
        TestnetCommand::Kill(args) => nodes::change(session, &args.which, TestnetDone::Killed),
        TestnetCommand::Pause(args) => nodes::change(session, &args.which, TestnetDone::Paused),
        TestnetCommand::Resume(args) => nodes::change(session, &args.which, TestnetDone::Resumed),
        TestnetCommand::Restart(args) => nodes::change(session, &args.which, TestnetDone::Restarted),
        TestnetCommand::Remove(args) => nodes::change(session, &args.which, TestnetDone::Removed),
        TestnetCommand::Add(args) => nodes::add(session, &args),
        TestnetCommand::Chaos(args) => chaos::chaos(session, &args),
        TestnetCommand::Demo(args) => demo::demo(session, &args),
        TestnetCommand::Report(args) => report::report(session, &args),
        TestnetCommand::Host(args) => host::host(session, &args),
    }
}

/// What `-t NET/IDX` means: the home of that testnet, and the name of that node.
pub(super) fn find(mut globals: Globals) -> Result<Globals, Failure> {
    let Some(spot) = globals.testnet.clone() else { return Ok(globals) };
    let Some(node) = &spot.node else {
        let message = format!("`-t {spot}` does not say which node");
        let hint = format!("-t {spot}/0");
        return Err(ErrorDocument::new(ErrorCode::Usage, message).hint(hint).into());
    };
    let paths = Paths::new(&Environment::of_process(), globals.node.clone(), globals.home.as_deref())
        .map_err(|error| super::session::of_paths(&error))?;
    let place = state::Place::below(&paths.testnets_dir(), spot.net.clone());
    let name = place.read()?.node(node)?.name.clone();
    globals.node = name.parse().map_err(|error: crate::paths::InvalidNodeName| {
        ErrorDocument::new(ErrorCode::Failed, error.to_string())
    })?;
    globals.outer_home = globals.home.replace(place.directory);
    Ok(globals)
}

/// How a node of a testnet is started again, when `program` is one: `wattle -t demo/1`, perhaps with a `--home`.
pub(super) fn restart_of(program: &str) -> Option<String> {
    let (net, rest) = program.strip_prefix("wattle -t ")?.split_once('/')?;
    Some(format!("wattle testnet restart --name {net} {rest}"))
}

/// `wattle -t demo/1 run` would be a node without the faults of its testnet.
pub(super) fn started_by_its_testnet(spot: &Spot) -> Failure {
    let document = ErrorDocument::new(ErrorCode::Usage, format!("{spot} is started by its testnet"));
    let restart = restart_of(&format!("wattle -t {spot}")).unwrap_or_default();
    advise(document, "start it", &restart, "").into()
}
