//! What there is, and how it does: `list` and `status`.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::links::{groups, node_fault_text, shape_text};
use super::netns;
use super::process::Taken;
use super::state::{Place, Row, State};
use super::up;
use crate::api::documents::StatusDocument;
use crate::cli::documents::{
    TestnetListDocument, TestnetListSchema, TestnetNode, TestnetPhase, TestnetRow, TestnetStanding,
    TestnetStatusDocument, TestnetStatusSchema,
};
use crate::cli::errors::Failure;
use crate::cli::files::tilde;
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::table::Table;
use crate::cli::values::{as_ms, bytes, short};
use crate::cli::watch::watch;

/// How long a node may take to say how it does: one that is busy is shown as not answering.
const ANSWER_MAX: Duration = Duration::from_secs(2);

pub(super) fn list(session: &Session) -> Result<(), Failure> {
    let testnets = up::all(session)?.into_iter().map(|(place, state)| row_of(&place, state.as_ref()));
    let document = TestnetListDocument { schema: TestnetListSchema::V1, testnets: testnets.collect() };
    session.show_own(&document, |document| Shown {
        text: list_text(document),
        ids: document.testnets.iter().map(|row| row.name.clone()).collect(),
    })
}

fn row_of(place: &Place, state: Option<&State>) -> TestnetRow {
    let rows = state.map(|state| state.nodes.as_slice()).unwrap_or_default();
    let running = rows.iter().filter(|row| place.standing(row) != TestnetStanding::Down).count();
    TestnetRow {
        name: place.net.to_string(),
        phase: state.map_or(TestnetPhase::Starting, |state| state.phase),
        nodes: rows.len() as u64,
        running: running as u64,
        created: state.map_or(jiff::Timestamp::UNIX_EPOCH, |state| state.created),
        directory: place.directory.display().to_string(),
    }
}

fn list_text(document: &TestnetListDocument) -> String {
    if document.testnets.is_empty() {
        return "no testnets\n".to_owned();
    }
    let mut table = Table::new(&["TESTNET", "STATE", ">NODES", ">RUNNING", "SINCE", "DIRECTORY"]);
    for row in &document.testnets {
        let since = row.created.to_zoned(TimeZone::system()).strftime("%F %H:%M").to_string();
        table.row([
            row.name.clone(),
            phase(row.phase).to_owned(),
            row.nodes.to_string(),
            row.running.to_string(),
            since,
            tilde(row.directory.as_ref()),
        ]);
    }
    table.render()
}

const fn phase(phase: TestnetPhase) -> &'static str {
    match phase {
        TestnetPhase::Starting => "not finished",
        TestnetPhase::Up => "up",
        TestnetPhase::Down => "down",
    }
}

pub(super) async fn status(session: &Session, args: &super::Status) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    if args.watch {
        return watch(session.out, async || {
            let document = look(&place, &place.read()?).await?;
            if session.out.json {
                return serde_json::to_string(&document).map(|line| line + "\n").map_err(|error| {
                    crate::api::documents::ErrorDocument::new(
                        crate::exit::ErrorCode::Failed,
                        error.to_string(),
                    )
                    .into()
                });
            }
            Ok(status_text(&document))
        })
        .await;
    }
    let document = look(&place, &place.read()?).await?;
    session.show_own(&document, |document| Shown {
        text: status_text(document),
        ids: document.nodes.iter().map(|node| node.id.to_string()).collect(),
    })
}

/// How a testnet does, as its nodes say.
pub(super) async fn look(place: &Place, state: &State) -> Result<TestnetStatusDocument, Failure> {
    let taken = place.taken(&state.nodes);
    let nodes = state.nodes.iter().map(|row| node(place, state, row, taken.get(&row.index)));
    let nodes = futures::future::join_all(nodes).await;
    Ok(TestnetStatusDocument {
        schema: TestnetStatusSchema::V1,
        name: state.name.clone(),
        phase: state.phase,
        seed: state.seed,
        backend: state.backend,
        directory: place.directory.display().to_string(),
        nodes: nodes.into_iter().collect::<Result<_, Failure>>()?,
        partition: state.partition.clone(),
        links: state.links.clone(),
        node_faults: state.node_faults.clone(),
    })
}

async fn node(
    place: &Place,
    state: &State,
    row: &Row,
    taken: Option<&Taken>,
) -> Result<TestnetNode, Failure> {
    let standing = place.standing(row);
    let mut status = None;
    if standing == TestnetStanding::Running {
        let client = place.patient_client(row, Some(ANSWER_MAX))?;
        status = client.get::<StatusDocument>(routes::STATUS).await.ok().map(|answer| answer.document);
    }
    Ok(TestnetNode {
        index: row.index,
        name: row.name.clone(),
        id: row.id,
        state: standing,
        port: row.port,
        pid: place.process(row).map(|process| process.pid),
        namespace: state.backend.has_own_network().then(|| netns::name(place, row.index)),
        answers: status.is_some(),
        uptime_ms: status.as_ref().map(|status| status.node.uptime_ms),
        rss_bytes: taken.map(|taken| taken.rss_bytes),
        cpu_ms: taken.map(|taken| as_ms(taken.cpu)),
        peers: status.as_ref().map(|status| status.peers.total),
        alive: status.as_ref().map(|status| status.members.alive),
    })
}

/// A word for how a node does.
pub(super) const fn standing(node: &TestnetNode) -> &'static str {
    match (node.state, node.answers) {
        (TestnetStanding::Running, true) => "running",
        (TestnetStanding::Running, false) => "does not answer",
        (TestnetStanding::Paused, _) => "frozen",
        (TestnetStanding::Down, _) => "down",
    }
}

fn status_text(document: &TestnetStatusDocument) -> String {
    let mut table = Table::new(&[
        ">IDX", "NODE", "STATE", ">PORT", ">PID", ">UP", ">CPU", ">RSS", ">PEERS", ">ALIVE", "ID",
    ]);
    // Absent where it is not known: a word of the state says why.
    let cell = |value: Option<String>| value.unwrap_or_default();
    for node in &document.nodes {
        table.row([
            node.index.to_string(),
            node.name.clone(),
            standing(node).to_owned(),
            node.port.to_string(),
            cell(node.pid.map(|pid| pid.to_string())),
            cell(node.uptime_ms.map(|ms| short(Duration::from_millis(ms)))),
            cell(node.cpu_ms.map(|ms| short(Duration::from_millis(ms)))),
            cell(node.rss_bytes.map(bytes)),
            cell(node.peers.map(|peers| peers.to_string())),
            cell(node.alive.map(|alive| alive.to_string())),
            format!("..{}", node.id.short()),
        ]);
    }
    let mut text =
        format!("testnet {}   {}   seed {}\n", document.name, phase(document.phase), document.seed);
    text.push_str(&table.render());
    if let Some(namespace) = document.nodes.first().and_then(|node| node.namespace.as_ref()) {
        text.push_str(&format!("namespaces: ip netns exec {namespace} ..., and so on\n"));
    }
    if let Some(partition) = &document.partition {
        let since = partition.since.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
        text.push_str(&format!("split since {since}: {}\n", groups(partition)));
    }
    for shape in &document.links {
        text.push_str(&format!("{}\n", shape_text(shape)));
    }
    for fault in &document.node_faults {
        text.push_str(&format!("{}\n", node_fault_text(fault)));
    }
    text
}
