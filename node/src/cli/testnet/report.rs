//! `testnet report`: what must hold, whether it does, how long that took, and what that follows from.
//!
//! Nothing is taken from one node's word about itself alone: what nodes hold is asked of each and compared. A check
//! that does not hold is asked again until it does or its time is over; so a report right after a heal says how long
//! healing took, and one while a fault is on says what the fault broke.

mod checks;
mod html;
mod order;
mod timing;

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::show;
use super::state::{Place, Row, State};
use crate::api::documents::ErrorDocument;
use crate::cli::client::Client;
use crate::cli::documents::{
    TestnetCheck, TestnetNode, TestnetReportDocument, TestnetReportSchema, TestnetStanding,
};
use crate::cli::errors::{Failure, of_io};
use crate::cli::output::Meaning;
use crate::cli::session::{Session, Shown};
use crate::cli::values::as_ms;
use crate::exit::ErrorCode;

/// Between two looks at what does not hold yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a node may take to answer one question.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The testnet, as the checks see it: the nodes that run, each with a client.
struct Scene {
    place: Place,
    state: State,
    running: Vec<(Row, Client)>,
    begun: Instant,
    within: Duration,
}

/// What a look found.
struct Found {
    /// Whether it holds; nothing when there is nothing to look at.
    holds: Option<bool>,
    summary: String,
    evidence: Vec<(String, Value)>,
}

impl Scene {
    fn of(place: &Place, state: State, within: Duration) -> Result<Self, Failure> {
        let runs = state.nodes.iter().filter(|row| place.standing(row) == TestnetStanding::Running);
        let running = runs.map(|row| Ok((row.clone(), place.patient_client(row, Some(ANSWER_MAX))?)));
        let running = running.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { place: place.clone(), state, running, begun: Instant::now(), within })
    }

    /// What a node is called here, by its id.
    fn name(&self, id: wattle_types::NodeId) -> String {
        let row = self.state.nodes.iter().find(|row| row.id == id);
        row.map_or_else(|| format!("..{}", id.short()), |row| row.name.clone())
    }

    /// Looks until it holds or its time is over.
    async fn check(&self, name: &str, mut look: impl AsyncFnMut() -> Found) -> TestnetCheck {
        loop {
            let found = look().await;
            let took = self.begun.elapsed();
            if found.holds == Some(false) && took < self.within {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            return TestnetCheck {
                name: name.to_owned(),
                pass: found.holds,
                summary: found.summary,
                held_after_ms: (found.holds == Some(true)).then(|| as_ms(took)),
                evidence: found.evidence.into_iter().collect(),
            };
        }
    }
}

pub(super) fn report(session: &Session, args: &super::Report) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    let state = place.read()?;
    if let Some(directory) = &args.output {
        let made = std::fs::create_dir_all(directory);
        made.map_err(|error| of_io("create", directory, &error))?;
    }
    let mut document = session.block_on(look(&place, state, args.within.0))?;
    if let Some(directory) = &args.output {
        write(&mut document, directory)?;
    }
    session.show_own(&document, |document| Shown {
        text: text_of(session, document),
        ids: failed(document).map(|check| check.name.clone()).collect(),
    })?;
    if document.pass { Ok(()) } else { Err(ErrorCode::Partial.into()) }
}

/// A report of the testnet as it is now.
pub(super) fn of(
    session: &Session,
    place: &Place,
    within: Duration,
) -> Result<TestnetReportDocument, Failure> {
    session.block_on(look(place, place.read()?, within))
}

fn failed(document: &TestnetReportDocument) -> impl Iterator<Item = &TestnetCheck> {
    document.checks.iter().filter(|check| check.pass == Some(false))
}

async fn look(place: &Place, state: State, within: Duration) -> Result<TestnetReportDocument, Failure> {
    let scene = Scene::of(place, state, within)?;
    let (nodes, members, docs, chat, order, dht, memory) = futures::join!(
        scene.check("nodes", async || checks::nodes(&scene)),
        checks::membership(&scene),
        scene.check("docs", async || checks::docs(&scene).await),
        scene.check("chat", async || checks::chat(&scene).await),
        order::check(&scene),
        checks::dht(&scene),
        scene.check("memory", async || checks::memory(&scene)),
    );
    let checks = vec![nodes, members, docs, chat, order, dht, memory];
    let seen: Vec<TestnetNode> = show::look(place, &scene.state).await?.nodes;
    Ok(TestnetReportDocument {
        schema: TestnetReportSchema::V1,
        name: scene.state.name.clone(),
        seed: scene.state.seed,
        at: Timestamp::now(),
        pass: checks.iter().all(|check| check.pass != Some(false)),
        events: scene.state.events.clone(),
        checks,
        partition: scene.state.partition.clone(),
        links: scene.state.links.clone(),
        nodes: seen,
        files: Vec::new(),
    })
}

fn write(document: &mut TestnetReportDocument, directory: &Path) -> Result<(), Failure> {
    let (page, json) = (directory.join("report.html"), directory.join("report.json"));
    document.files = [&page, &json].iter().map(|file| file.display().to_string()).collect();
    let text = serde_json::to_string_pretty(&document)
        .map_err(|error| ErrorDocument::new(ErrorCode::Failed, error.to_string()))?;
    for (file, text) in [(&page, html::page(document)), (&json, text + "\n")] {
        let written = wattle_store::replace_file(file, text.as_bytes());
        written.map_err(|error| of_io("write", file, &error))?;
    }
    Ok(())
}

/// The word for how a check ended.
const fn verdict(check: &TestnetCheck) -> (&'static str, Meaning) {
    match check.pass {
        Some(true) => ("PASS", Meaning::Good),
        Some(false) => ("FAIL", Meaning::Bad),
        None => ("nothing to check", Meaning::Faint),
    }
}

pub(super) fn text_of(session: &Session, document: &TestnetReportDocument) -> String {
    let width = document.checks.iter().map(|check| check.summary.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for check in &document.checks {
        let (word, meaning) = verdict(check);
        let word = session.out.paint(meaning, word);
        text.push_str(&format!("{:<12} {:<width$}   {word}\n", check.name, check.summary));
    }
    for check in failed(document) {
        for (name, seen) in &check.evidence {
            text.push_str(&format!("  {:<10} {name}: {}\n", check.name, plain(seen)));
        }
    }
    for file in &document.files {
        text.push_str(&format!("wrote {file}\n"));
    }
    text
}

/// A value without the quotes of JSON where it is a text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
