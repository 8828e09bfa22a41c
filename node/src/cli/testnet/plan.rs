//! A testnet in a file: how many nodes, who votes, what links are like, and what is done when. Pure: reading it, and
//! comparing it with what there is, changes nothing.
//!
//! What is done is written as one would type it, so the file has no words of its own. The testnet as the file wants it
//! is played through in memory by the same functions that the commands use; so a fault that cannot be done is found
//! before anything is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use clap::{Parser as _, ValueEnum as _};
use jiff::Timestamp;
use toml_edit::{Document, Item, TableLike};
use wattle_types::{ContentHash, NodeId};

use super::state::{NetName, Row, State, pair};
use super::{TestnetCommand, links, up};
use crate::api::documents::ErrorDocument;
use crate::cli::documents::{
    TestnetBackend, TestnetDone, TestnetPhase, TestnetShape, TestnetStanding, TestnetStateSchema,
};
use crate::cli::errors::Failure;
use crate::cli::values::{Span, as_ms};
use crate::config::{Origin, Problem, nearest};
use crate::exit::ErrorCode;

/// Faults of one file: days of them.
const FAULTS_MAX: usize = 10_000;

/// What may stand in the file, and what below `[links]`, in a `[[link]]` and in a `[[fault]]`.
const KEYS: [&str; 8] = ["name", "nodes", "backend", "validators", "seed", "links", "link", "fault"];
const LINKS_KEYS: [&str; 4] = ["latency", "spread", "loss", "rate"];
const LINK_KEYS: [&str; 5] = ["between", "latency", "spread", "loss", "rate"];
const FAULT_KEYS: [&str; 2] = ["at", "do"];

/// What is typed after `wattle testnet`.
#[derive(clap::Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Typed {
    #[command(subcommand)]
    command: TestnetCommand,
}

/// Something that is done to the testnet.
pub(super) struct Step {
    /// When, counted from when everything is as the file begins.
    pub(super) at: Duration,
    /// As one would type it.
    pub(super) words: String,
    pub(super) command: TestnetCommand,
    origin: Origin,
}

/// A testnet as a file wants it.
pub(super) struct Plan {
    pub(super) name: Option<NetName>,
    pub(super) nodes: u32,
    pub(super) backend: TestnetBackend,
    /// None without a log.
    pub(super) validators: Option<u32>,
    pub(super) seed: Option<u64>,
    /// What links are like from the beginning.
    links: Vec<Step>,
    /// In the order of their times.
    pub(super) faults: Vec<Step>,
    /// Where each key stands.
    origins: BTreeMap<&'static str, Origin>,
}

/// How a testnet is to be.
pub(super) struct Wanted {
    /// Its links; nodes without keys.
    pub(super) state: State,
    /// The nodes that do not run.
    pub(super) away: BTreeMap<u32, TestnetStanding>,
}

/// What has to be done for a testnet to be as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To these nodes.
    Nodes(TestnetDone, Vec<u32>),
    /// So many more.
    Add(u32),
    /// All links.
    Links,
}

/// A table of the file, and where it stands.
type Placed<'a> = (&'a dyn TableLike, Option<Range<usize>>);

impl Action {
    /// As one would type it, as far as one could.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Nodes(done, nodes) => super::nodes::words(*done, nodes),
            Self::Add(count) => format!("add {count}"),
            Self::Links => "links".to_owned(),
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, span: Option<Range<usize>>) -> Origin {
        let before = self.text.get(..span.map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn wrong(&self, message: String, span: Option<Range<usize>>) -> Failure {
        Problem { message, origin: self.origin(span), hint: None }.document().into()
    }

    /// Refuses keys that nobody knows.
    fn check_keys(&self, table: &dyn TableLike, known: &[&str], of: &str) -> Result<(), Failure> {
        for (name, _) in table.iter() {
            if !known.contains(&name) {
                let span = table.key(name).and_then(toml_edit::Key::span);
                let near = nearest(name, known.iter().copied());
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let message = format!("unknown key `{name}`{of}");
                return Err(Problem { message, origin: self.origin(span), hint }.document().into());
            }
        }
        Ok(())
    }

    fn number(&self, table: &dyn TableLike, name: &str) -> Result<Option<u64>, Failure> {
        let Some(item) = table.get(name) else { return Ok(None) };
        let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
        let wrong = || self.wrong(format!("`{name}` must be a number from 0 up,"), item.span());
        number.map(Some).ok_or_else(wrong)
    }

    fn small(&self, table: &dyn TableLike, name: &str) -> Result<Option<u32>, Failure> {
        let number = self.number(table, name)?;
        Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
    }

    fn text<'a>(&self, table: &'a dyn TableLike, name: &str) -> Result<Option<&'a str>, Failure> {
        let Some(item) = table.get(name) else { return Ok(None) };
        let wrong = || self.wrong(format!("`{name}` must be a text in quotes,"), item.span());
        item.as_str().map(Some).ok_or_else(wrong)
    }

    /// Every `[[name]]`, with where it stands.
    fn tables<'a>(&self, document: &'a dyn TableLike, name: &str) -> Result<Vec<Placed<'a>>, Failure> {
        let Some(item) = document.get(name) else { return Ok(Vec::new()) };
        match item {
            Item::ArrayOfTables(tables) => {
                Ok(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect())
            }
            _ => {
                let message = format!("`{name}` is a list: write [[{name}]] and its keys below it, for each");
                Err(self.wrong(message, item.span()))
            }
        }
    }

    /// Reads a command as one would type it.
    fn step(&self, at: Duration, words: String, span: Option<Range<usize>>) -> Result<Step, Failure> {
        let typed = Typed::try_parse_from(words.split_whitespace());
        let command = typed.map(|typed| typed.command).map_err(|error| {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            let why = line.strip_prefix("error: ").unwrap_or(line).to_owned();
            self.wrong(format!("`{words}`: {why},"), span.clone())
        })?;
        if net_of(&command).is_none_or(|net| net.name.is_some()) {
            let message = format!(
                "`{words}` is nothing to do to links or nodes: partition, heal, latency, loss, rate, disk, clock, \
                 clear, kill, pause, resume, restart,"
            );
            return Err(self.wrong(message, span));
        }
        Ok(Step { at, words, command, origin: self.origin(span) })
    }

    /// What a table says of a link, or of all.
    fn shape(&self, table: &dyn TableLike, link: Option<&str>, steps: &mut Vec<Step>) -> Result<(), Failure> {
        let spread = self.text(table, "spread")?.map(|spread| format!(" --spread {spread}"));
        for name in ["latency", "loss", "rate"] {
            let Some(value) = self.text(table, name)? else { continue };
            let link = link.map(|link| format!("{link} ")).unwrap_or_default();
            let spread = spread.as_deref().filter(|_| name == "latency").unwrap_or_default();
            let words = format!("{name} {link}{value}{spread}");
            steps.push(self.step(Duration::ZERO, words, table.get(name).and_then(Item::span))?);
        }
        if spread.is_some() && table.get("latency").is_none() {
            let span = table.get("spread").and_then(Item::span);
            return Err(
                self.wrong("`spread` says how a `latency` spreads, and there is none,".to_owned(), span)
            );
        }
        Ok(())
    }

    fn links(&self, document: &dyn TableLike) -> Result<Vec<Step>, Failure> {
        let mut steps = Vec::new();
        if let Some(item) = document.get("links") {
            let message = "`links` is a section: write [links] and its keys below it";
            let table = item.as_table_like().ok_or_else(|| self.wrong(message.to_owned(), item.span()))?;
            self.check_keys(table, &LINKS_KEYS, " of [links]")?;
            self.shape(table, None, &mut steps)?;
        }
        for (table, span) in self.tables(document, "link")? {
            self.check_keys(table, &LINK_KEYS, " of [[link]]")?;
            let ends = table.get("between").and_then(Item::as_array);
            let ends: Vec<String> = ends
                .into_iter()
                .flatten()
                .filter_map(|end| match end.as_integer() {
                    Some(index) => Some(index.to_string()),
                    None => end.as_str().map(str::to_owned),
                })
                .collect();
            let [one, other] = ends.as_slice() else {
                let message = "a [[link]] names its two ends: between = [0, 1]".to_owned();
                return Err(self.wrong(message, table.get("between").and_then(Item::span).or(span)));
            };
            self.shape(table, Some(&format!("{one}-{other}")), &mut steps)?;
        }
        Ok(steps)
    }

    fn faults(&self, document: &dyn TableLike) -> Result<Vec<Step>, Failure> {
        let mut steps = Vec::new();
        for (table, span) in self.tables(document, "fault")? {
            self.check_keys(table, &FAULT_KEYS, " of [[fault]]")?;
            let (Some(at), Some(words)) = (self.text(table, "at")?, self.text(table, "do")?) else {
                let message = "a [[fault]] says when and what: at = \"5s\", do = \"kill 2\"".to_owned();
                return Err(self.wrong(message, span));
            };
            let place = |name| table.get(name).and_then(Item::span);
            let when = at.parse::<Span>().map_err(|error| self.wrong(format!("{error},"), place("at")))?.0;
            if steps.len() == FAULTS_MAX {
                return Err(self.wrong(format!("that is more than {FAULTS_MAX} faults"), span));
            }
            steps.push(self.step(when, words.to_owned(), place("do"))?);
        }
        // Stable: what is done at one moment is done in the order of the file.
        steps.sort_by_key(|step| step.at);
        Ok(steps)
    }
}

/// The testnet that a command names, of those that do something to links or to nodes that can be undone.
const fn net_of(command: &TestnetCommand) -> Option<&super::Net> {
    match command {
        TestnetCommand::Partition(args) => Some(&args.net),
        TestnetCommand::Heal(args) => Some(&args.net),
        TestnetCommand::Latency(args) => Some(&args.net),
        TestnetCommand::Loss(args) => Some(&args.net),
        TestnetCommand::Rate(args) => Some(&args.net),
        TestnetCommand::Disk(args) => Some(&args.net),
        TestnetCommand::Clock(args) => Some(&args.net),
        TestnetCommand::Clear(args) => Some(&args.net),
        TestnetCommand::Kill(args) => Some(&args.which.net),
        TestnetCommand::Pause(args) => Some(&args.which.net),
        TestnetCommand::Resume(args) => Some(&args.which.net),
        TestnetCommand::Restart(args) => Some(&args.which.net),
        _ => None,
    }
}

/// What a command does to which nodes, if it is one about nodes.
pub(super) fn to_nodes(command: &TestnetCommand) -> Option<(TestnetDone, &[String])> {
    match command {
        TestnetCommand::Kill(args) => Some((TestnetDone::Killed, &args.which.nodes)),
        TestnetCommand::Pause(args) => Some((TestnetDone::Paused, &args.which.nodes)),
        TestnetCommand::Resume(args) => Some((TestnetDone::Resumed, &args.which.nodes)),
        TestnetCommand::Restart(args) => Some((TestnetDone::Restarted, &args.which.nodes)),
        _ => None,
    }
}

/// Reads a file. What is wrong with it is said with its line.
pub(super) fn read(path: &Path, text: &str) -> Result<Plan, Failure> {
    let file = File { path, text };
    let document = Document::parse(text)
        .map_err(|error| file.wrong(error.message().replace('\n', ": "), error.span()))?;
    let table: &dyn TableLike = document.as_table();
    file.check_keys(table, &KEYS, "")?;
    let name = file.text(table, "name")?.map(str::parse::<NetName>).transpose();
    let name =
        name.map_err(|error| file.wrong(format!("{error},"), table.get("name").and_then(Item::span)))?;
    let Some(nodes) = file.small(table, "nodes")? else {
        return Err(file.wrong("it does not say how many `nodes` there are".to_owned(), None));
    };
    let validators = file.small(table, "validators")?.filter(|votes| *votes > 0);
    let origins = KEYS.into_iter().filter_map(|key| Some((key, file.origin(table.get(key)?.span()))));
    let backend = file.text(table, "backend")?.map(|text| TestnetBackend::from_str(text, false));
    let backend = backend.transpose().map_err(|_unknown| {
        let known: Vec<&str> = TestnetBackend::value_variants().iter().map(|known| known.word()).collect();
        let message = format!("`backend` must be one of {},", known.join(", "));
        file.wrong(message, table.get("backend").and_then(Item::span))
    })?;
    let plan = Plan {
        name,
        nodes,
        backend: backend.unwrap_or_default(),
        validators,
        seed: file.number(table, "seed")?,
        links: file.links(table)?,
        faults: file.faults(table)?,
        origins: origins.collect(),
    };
    if let Err(why) = up::check(nodes, validators) {
        let key = if up::check(nodes, None).is_err() { "nodes" } else { "validators" };
        return Err(file.wrong(format!("{why},"), table.get(key).and_then(Item::span)));
    }
    plan.after(plan.faults.len())?;
    plan.check_alone()?;
    Ok(plan)
}

impl Plan {
    /// Where a key stands, for an error about it.
    pub(super) fn place_of(&self, key: &str, path: &Path) -> String {
        self.origins.get(key).map_or_else(|| path.display().to_string(), ToString::to_string)
    }

    /// That nothing is to be done to one node of a process and not to the others in it.
    fn check_alone(&self) -> Result<(), Failure> {
        if !self.backend.shares_process() {
            return Ok(());
        }
        let state = imagined(self.nodes);
        for step in &self.faults {
            if let Some((TestnetDone::Killed | TestnetDone::Paused, which)) = to_nodes(&step.command)
                && state.chosen(which)?.len() < state.nodes.len()
            {
                let message = "nodes of an `inproc` testnet share a process: it takes all of them";
                return Err(at(ErrorDocument::new(ErrorCode::Usage, message).into(), step));
            }
        }
        Ok(())
    }

    /// What tells these faults from others.
    pub(super) fn faults_hash(&self) -> String {
        let lines = self.faults.iter().map(|step| format!("{} {}\n", as_ms(step.at), step.words));
        ContentHash::of(lines.collect::<String>().as_bytes()).to_string()
    }

    /// How everything is to be when so many of the faults were done.
    pub(super) fn after(&self, done: usize) -> Result<Wanted, Failure> {
        let mut wanted = Wanted { state: imagined(self.nodes), away: BTreeMap::new() };
        wanted.state.backend = self.backend;
        wanted.state.name = self.name.as_ref().map_or("demo", NetName::as_str).to_owned();
        for step in self.links.iter().chain(self.faults.iter().take(done)) {
            wanted.take(&step.command).map_err(|failure| at(failure, step))?;
        }
        Ok(wanted)
    }
}

/// A failure with the place of what led to it.
fn at(failure: Failure, step: &Step) -> Failure {
    match failure {
        Failure::Error(document) => {
            let message = format!("`{}`: {}, in {}", step.words, document.message, step.origin);
            let usage = ErrorDocument::new(ErrorCode::Usage, message);
            ErrorDocument { details: document.details, ..usage }.into()
        }
        other => other,
    }
}

/// Nodes with names and nothing else.
pub(super) fn imagined(nodes: u32) -> State {
    let row = |index| Row {
        index,
        name: up::name_of(index),
        id: NodeId::from_public_key([0; 32]),
        port: 0,
        process: None,
        shared: false,
        rss_bytes: None,
    };
    State {
        schema: TestnetStateSchema::V1,
        name: String::new(),
        phase: TestnetPhase::Up,
        backend: TestnetBackend::default(),
        seed: 0,
        created: Timestamp::UNIX_EPOCH,
        next: nodes,
        nodes: (0..nodes).map(row).collect(),
        log: None,
        applied: None,
        partition: None,
        links: Vec::new(),
        node_faults: Vec::new(),
        events: Vec::new(),
    }
}

impl Wanted {
    fn take(&mut self, command: &TestnetCommand) -> Result<(), Failure> {
        if links::alter(&mut self.state, command)?.is_some() {
            return Ok(());
        }
        let Some((done, nodes)) = to_nodes(command) else { return Ok(()) };
        for row in self.state.chosen(nodes)? {
            match done {
                TestnetDone::Killed => self.away.insert(row.index, TestnetStanding::Down),
                TestnetDone::Paused => self.away.insert(row.index, TestnetStanding::Paused),
                _ => self.away.remove(&row.index),
            };
        }
        Ok(())
    }

    fn standing(&self, index: u32) -> TestnetStanding {
        self.away.get(&index).copied().unwrap_or(TestnetStanding::Running)
    }

    /// Whether links are as they are to be.
    pub(super) fn has_links_of(&self, state: &State) -> bool {
        let cuts = |state: &State| state.partition.as_ref().map(|cut| (cut.groups.clone(), cut.one_way));
        cuts(&self.state) == cuts(state)
            && are_alike(&self.state.links, &state.links)
            && self.state.node_faults == state.node_faults
    }

    /// What has to be done to a testnet with these nodes, in this order.
    pub(super) fn missing(
        &self,
        state: &State,
        standing: impl Fn(&Row) -> TestnetStanding,
    ) -> Result<Vec<Action>, String> {
        let nodes = self.state.next;
        let mut to: [(TestnetDone, Vec<u32>); 5] = [
            (TestnetDone::Restarted, Vec::new()),
            (TestnetDone::Resumed, Vec::new()),
            (TestnetDone::Killed, Vec::new()),
            (TestnetDone::Paused, Vec::new()),
            (TestnetDone::Removed, Vec::new()),
        ];
        for row in &state.nodes {
            use TestnetStanding::{Down, Paused, Running};
            let which = match (standing(row), self.standing(row.index)) {
                _ if row.index >= nodes => 4,
                (Down, Running) => 0,
                (Paused, Running) => 1,
                (Running | Paused, Down) => 2,
                (Running, Paused) => 3,
                (Down, Down | Paused) | (Paused, Paused) | (Running, Running) => continue,
            };
            to[which].1.push(row.index);
        }
        let here = |index: &u32| state.nodes.iter().any(|row| row.index == *index);
        if let Some(gone) = (0..nodes.min(state.next)).find(|index| !here(index)) {
            return Err(format!("its node {gone} was removed, and no index is used twice"));
        }
        let done = to.into_iter().filter(|(_, nodes)| !nodes.is_empty());
        let mut actions: Vec<Action> = done.map(|(done, nodes)| Action::Nodes(done, nodes)).collect();
        if nodes > state.next {
            actions.push(Action::Add(nodes - state.next));
        }
        if !self.has_links_of(state) {
            actions.push(Action::Links);
        }
        Ok(actions)
    }
}

/// Whether links have the same shapes, in whatever order they came to them.
fn are_alike(ones: &[TestnetShape], others: &[TestnetShape]) -> bool {
    let ends = |shape: &TestnetShape| shape.between.map(|[one, other]| pair(one, other));
    ones.len() == others.len()
        && ones.iter().all(|one| others.iter().any(|other| ends(one) == ends(other) && one == other))
}

/// The file, read whole.
pub(super) fn text_of(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            let message = format!("{} is no text in UTF-8", path.display());
            ErrorDocument::new(ErrorCode::Usage, message).into()
        }
        _ => crate::cli::errors::of_io("read", path, &error).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        read(Path::new("t.toml"), text).unwrap()
    }

    fn said(failure: &Failure) -> String {
        match failure {
            Failure::Error(document) => document.message.clone(),
            other => format!("{other:?}"),
        }
    }

    const WHOLE: &str = "name = \"lab\"\nnodes = 4\nvalidators = 4\nseed = 7\n\
        [links]\nlatency = \"20ms+-5\"\nspread = \"normal\"\nloss = \"1%\"\n\
        [[link]]\nbetween = [0, \"carol\"]\nrate = \"1mbit\"\n\
        [[fault]]\nat = \"9s\"\ndo = \"heal\"\n\
        [[fault]]\nat = \"2s\"\ndo = \"partition --one-way 0 1,2\"\n\
        [[fault]]\nat = \"3s\"\ndo = \"kill bob\"\n";

    fn state_of(plan: &Plan, done: usize) -> State {
        plan.after(done).unwrap().state
    }

    #[test]
    fn a_file_says_what_there_is_and_what_is_done_when() {
        let plan = plan(WHOLE);
        assert_eq!((plan.nodes, plan.validators, plan.seed), (4, Some(4), Some(7)));
        let times: Vec<(u64, &str)> =
            plan.faults.iter().map(|step| (as_ms(step.at), step.words.as_str())).collect();
        assert_eq!(times, [(2000, "partition --one-way 0 1,2"), (3000, "kill bob"), (9000, "heal")]);
        let state = state_of(&plan, 0);
        let (all, link) = (state.shape(1, 3), state.shape(2, 0));
        assert_eq!((all.latency_ms, all.jitter_ms, all.loss, all.rate_bits), (20.0, 5.0, 0.01, 0));
        assert_eq!(
            (link.latency_ms, link.rate_bits),
            (20.0, 1_000_000),
            "a link has what all have, and its own"
        );
        assert_eq!(state.partition, None);
        let cut = state_of(&plan, 1).partition.unwrap();
        assert_eq!((cut.groups, cut.one_way), (vec![vec![0], vec![1, 2], vec![3]], true));
        assert_eq!(plan.after(2).unwrap().away.get(&1), Some(&TestnetStanding::Down));
        assert_eq!(state_of(&plan, 3).partition, None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        for (text, words) in [
            ("nodes = \n", "t.toml:1:"),
            ("name = \"lab\"\n", "how many `nodes` there are in t.toml:1:1"),
            ("nodes = 0\n", "1 to 200 nodes, not 0, in t.toml:1:9"),
            ("nodes = -1\n", "`nodes` must be a number from 0 up, in t.toml:1:9"),
            (
                "nodes = 5\nvalidators = 3\n",
                "at least 4 validators, not 3: fewer cannot bear one that lies, in t.toml:2:14",
            ),
            ("nodes = 5\nname = \"Bad\"\n", "`Bad` is no name of a testnet"),
            ("nodes = 5\nnods = 5\n", "unknown key `nods` in t.toml:2:1"),
            ("nodes = 5\n[links]\nlatency = \"soon\"\n", "a latency is a duration"),
            ("nodes = 5\n[links]\nlatency = \"soon\"\n", "in t.toml:3:11"),
            ("nodes = 5\n[links]\nspread = \"normal\"\n", "there is none, in t.toml:3:10"),
            ("nodes = 5\n[links]\ndelay = \"5ms\"\n", "unknown key `delay` of [links] in t.toml:3:1"),
            ("nodes = 5\n[[link]]\nloss = \"5%\"\n", "names its two ends: between = [0, 1] in t.toml:2:"),
            ("nodes = 5\n[[link]]\nbetween = [0, 9]\nloss = \"5%\"\n", "has no node `9`, in t.toml:4:8"),
            ("nodes = 5\n[[fault]]\ndo = \"heal\"\n", "says when and what"),
            ("nodes = 5\n[[fault]]\nat = \"later\"\ndo = \"heal\"\n", "in t.toml:3:6"),
            ("nodes = 5\n[[fault]]\nat = \"1s\"\ndo = \"explode 3\"\n", "in t.toml:4:6"),
            (
                "nodes = 5\n[[fault]]\nat = \"1s\"\ndo = \"down\"\n",
                "`down` is nothing to do to links or nodes",
            ),
            ("nodes = 5\n[[fault]]\nat = \"1s\"\ndo = \"kill 7\"\n", "has no node `7`, in t.toml:4:6"),
            (
                "nodes = 5\n[[fault]]\nat = \"1s\"\ndo = \"heal --name lab\"\n",
                "`heal --name lab` is nothing to do",
            ),
            ("nodes = 5\nlinks = 3\n", "write [links] and its keys below it in t.toml:2:9"),
        ] {
            let failure = read(Path::new("t.toml"), text).map(drop).unwrap_err();
            assert!(said(&failure).contains(words), "{text}: {}", said(&failure));
        }
    }

    #[test]
    fn a_testnet_that_is_as_wanted_lacks_nothing_and_another_one_what_it_lacks() {
        let plan = plan(WHOLE);
        let running = |_: &Row| TestnetStanding::Running;
        let wanted = plan.after(3).unwrap();
        let as_wanted = state_of(&plan, 3);
        let standing = |row: &Row| match row.index {
            1 => TestnetStanding::Down,
            _ => TestnetStanding::Running,
        };
        assert_eq!(wanted.missing(&as_wanted, standing), Ok(Vec::new()));
        let killed = Action::Nodes(TestnetDone::Killed, vec![1]);
        assert_eq!(wanted.missing(&as_wanted, running), Ok(vec![killed]));

        let begin = plan.after(0).unwrap();
        let restarted = Action::Nodes(TestnetDone::Restarted, vec![1]);
        assert_eq!(begin.missing(&as_wanted, standing), Ok(vec![restarted]));
        let few =
            State { nodes: as_wanted.nodes[..3].to_vec(), next: 3, links: Vec::new(), ..as_wanted.clone() };
        assert_eq!(begin.missing(&few, running), Ok(vec![Action::Add(1), Action::Links]));
        let many = State { links: as_wanted.links.clone(), ..imagined(6) };
        let removed = Action::Nodes(TestnetDone::Removed, vec![4, 5]);
        assert_eq!(begin.missing(&many, running), Ok(vec![removed]));
        let hole = State { nodes: as_wanted.nodes[1..].to_vec(), ..as_wanted };
        assert!(begin.missing(&hole, running).unwrap_err().contains("node 0 was removed"));
    }

    #[test]
    fn other_faults_are_begun_anew_and_the_same_ones_are_not() {
        let hash = |text: &str| plan(text).faults_hash();
        assert_eq!(hash(WHOLE), hash(&format!("# a word\n{WHOLE}")));
        assert_ne!(hash(WHOLE), hash(&WHOLE.replace("\"9s\"", "\"8s\"")));
    }
}
