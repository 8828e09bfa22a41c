//! `testnet apply`: a testnet as a file wants it, whatever there was before.
//!
//! What is missing is computed first and then done, so applying a file twice does nothing the second time. Faults over
//! time are done once: how many of them were is written down with each, and whoever is interrupted goes on from there.

use std::path::Path;
use std::time::{Duration, Instant};

use super::plan::{self, Action, Plan, Step, Wanted};
use super::state::{Applied, Held, Place};
use super::{links, nodes, ordered, up};
use crate::api::documents::ErrorDocument;
use crate::cli::documents::{
    TestnetApplyDocument, TestnetApplySchema, TestnetBackend, TestnetChaosStep, TestnetPhase,
};
use crate::cli::errors::{Failure, advise};
use crate::cli::session::{Session, Shown};
use crate::cli::values::as_ms;
use crate::exit::ErrorCode;

/// A file and the testnet that is to be as it says.
struct Apply<'a> {
    session: &'a Session,
    path: &'a Path,
    plan: Plan,
    place: Place,
    /// Say what would be done, and do nothing.
    dry_run: bool,
}

pub(super) fn apply(session: &Session, args: &super::Apply) -> Result<(), Failure> {
    let plan = plan::read(&args.file, &plan::text_of(&args.file)?)?;
    let typed = args.name.clone();
    let spot = || session.globals.testnet.as_ref().map(|spot| spot.net.clone());
    let net = typed.or_else(spot).or_else(|| plan.name.clone()).unwrap_or_else(super::NetName::usual);
    let place = Place::of(session, net)?;
    let apply = Apply { session, path: &args.file, plan, place, dry_run: args.dry_run };
    let mut document = TestnetApplyDocument {
        schema: TestnetApplySchema::V1,
        name: apply.place.net.to_string(),
        directory: apply.place.directory.display().to_string(),
        nodes: apply.plan.nodes.into(),
        validators: apply.plan.validators.unwrap_or_default().into(),
        changed: false,
        did: Vec::new(),
        faults: Vec::new(),
        faults_before: 0,
    };
    apply.play(&mut document)?;
    document.changed = !document.did.is_empty() || !document.faults.is_empty();
    session.show_own(&document, |document| Shown {
        text: text_of(document, &apply),
        ids: document.did.iter().chain(document.faults.iter().map(|step| &step.what)).cloned().collect(),
    })
}

impl Apply<'_> {
    fn play(&self, document: &mut TestnetApplyDocument) -> Result<(), Failure> {
        let made = self.place.directory.exists();
        if !made {
            let validators = self.plan.validators;
            let votes = validators.map(|votes| format!(" --validators {votes}")).unwrap_or_default();
            let backend = match self.plan.backend {
                TestnetBackend::Process => String::new(),
                other => format!(" --backend {}", other.word()),
            };
            document.did.push(format!("up {}{backend}{votes}", self.plan.nodes));
            if !self.dry_run {
                let args = super::Up {
                    nodes: self.plan.nodes,
                    name: None,
                    backend: self.plan.backend,
                    validators,
                    latency: None,
                    seed: self.plan.seed,
                };
                up::bring_up(self.session, &self.place, &args)?;
            }
        }
        let hash = self.plan.faults_hash();
        let mut done = 0;
        if made || !self.dry_run {
            let mut held = self.place.hold()?;
            self.refuse_another(&held)?;
            let before = held.state.applied.as_ref().filter(|applied| applied.faults == hash);
            done = before.map_or(0, |applied| applied.done.min(self.plan.faults.len()));
            self.settle(&mut held, done, document)?;
        } else if !self.plan.after(0)?.has_links_of(&plan::imagined(self.plan.nodes)) {
            document.did.push(Action::Links.words());
        }
        document.faults_before = done as u64;
        self.go_on(done, &hash, document)
    }

    /// What a file cannot change about a testnet.
    fn refuse_another(&self, held: &Held) -> Result<(), Failure> {
        let (net, state) = (&self.place.net, &held.state);
        let down = format!("wattle testnet down --name {net}");
        let conflict = |message: String| {
            let document = ErrorDocument::new(ErrorCode::Conflict, message);
            Failure::from(advise(document, "begin anew", &down, "then apply it again"))
        };
        if state.phase == TestnetPhase::Starting {
            return Err(conflict(format!("testnet \"{net}\" was begun and not finished")));
        }
        if let Some(seed) = self.plan.seed.filter(|seed| *seed != state.seed) {
            let at = self.plan.place_of("seed", self.path);
            let message =
                format!("the seed of testnet \"{net}\" is {}, and not {seed} as in {at}", state.seed);
            return Err(conflict(message));
        }
        if self.plan.backend != state.backend {
            let at = self.plan.place_of("backend", self.path);
            let (has, wants) = (state.backend.word(), self.plan.backend.word());
            return Err(conflict(format!(
                "the backend of testnet \"{net}\" is {has}, and not {wants} as in {at}"
            )));
        }
        let (voters, wanted) = (ordered::voters(&self.place)?, self.plan.validators.unwrap_or_default());
        let votes = voters.len();
        if u32::try_from(votes) != Ok(wanted) {
            let at = self.plan.place_of("validators", self.path);
            let message = format!(
                "testnet \"{net}\" has {votes} validators, and not {wanted} as in {at}: who votes is said once"
            );
            return Err(conflict(message));
        }
        let mut lost = state.nodes.iter().filter(|row| row.index >= self.plan.nodes);
        if let Some(row) = lost.find(|row| voters.contains(&row.id)) {
            let at = self.plan.place_of("nodes", self.path);
            let message = format!("node {} ({}) votes, and is one too many for {at}", row.index, row.name);
            return Err(conflict(message));
        }
        Ok(())
    }

    /// Makes everything as it is to be after so many of the faults.
    fn settle(
        &self,
        held: &mut Held,
        done: usize,
        document: &mut TestnetApplyDocument,
    ) -> Result<(), Failure> {
        let wanted = self.plan.after(done)?;
        let missing = wanted.missing(&held.state, |row| held.place.standing(row)).map_err(|why| {
            let message = format!("testnet \"{}\" cannot become what it is to be: {why}", self.place.net);
            let document = ErrorDocument::new(ErrorCode::Conflict, message);
            let down = format!("wattle testnet down --name {}", self.place.net);
            advise(document, "begin anew", &down, "then apply it again")
        })?;
        for action in missing {
            if !self.dry_run {
                self.act(held, &action, &wanted)?;
                held.state.note(action.words());
                held.save()?;
            }
            document.did.push(action.words());
        }
        Ok(())
    }

    fn act(&self, held: &mut Held, action: &Action, wanted: &Wanted) -> Result<(), Failure> {
        match action {
            Action::Nodes(done, indexes) => {
                let rows: Vec<_> =
                    held.state.nodes.iter().filter(|row| indexes.contains(&row.index)).cloned().collect();
                nodes::take(self.session, held, &rows, *done)
            }
            Action::Add(count) => nodes::grow(self.session, held, *count).map(drop),
            Action::Links => {
                match &wanted.state.partition {
                    Some(cut) => {
                        held.state.note(links::cut_words(cut));
                    }
                    None if held.state.partition.is_some() => {
                        held.state.note("heal".to_owned());
                    }
                    None => {}
                }
                held.state.links.clone_from(&wanted.state.links);
                held.state.partition.clone_from(&wanted.state.partition);
                held.state.node_faults.clone_from(&wanted.state.node_faults);
                links::spread(self.session, held).map(drop)
            }
        }
    }

    /// Does the faults that were not done yet, each at its time.
    fn go_on(&self, done: usize, hash: &str, document: &mut TestnetApplyDocument) -> Result<(), Failure> {
        // What was done before took its time then.
        let passed = done.checked_sub(1).and_then(|last| self.plan.faults.get(last)).map(|step| step.at);
        let passed = passed.unwrap_or_default();
        let begun = Instant::now();
        for (number, step) in self.plan.faults.iter().enumerate().skip(done) {
            let mut line = TestnetChaosStep { at_ms: as_ms(step.at), what: step.words.clone(), done: None };
            if !self.dry_run {
                self.wait(step.at.saturating_sub(passed).saturating_sub(begun.elapsed()))?;
                let mut held = self.place.hold()?;
                self.fault(&mut held, step)?;
                held.state.applied = Some(Applied { faults: hash.to_owned(), done: number + 1 });
                held.save()?;
                let now = begun.elapsed() + passed;
                line.done = Some(as_ms(now));
                if !self.session.out.json && !self.session.out.quiet {
                    let text = format!("{:>7.1}s  {}", now.as_secs_f64(), step.words);
                    self.session.out.line(&text)?;
                }
            }
            document.faults.push(line);
        }
        Ok(())
    }

    fn wait(&self, span: Duration) -> Result<(), Failure> {
        self.session.block_on(async move {
            tokio::time::sleep(span).await;
            Ok(())
        })
    }

    fn fault(&self, held: &mut Held, step: &Step) -> Result<(), Failure> {
        if links::alter(&mut held.state, &step.command)?.is_some() {
            held.state.note(step.words.clone());
            return links::spread(self.session, held).map(drop);
        }
        let Some((done, which)) = plan::to_nodes(&step.command) else { return Ok(()) };
        let rows = held.state.chosen(which)?;
        nodes::take(self.session, held, &rows, done)?;
        held.state.note(step.words.clone());
        Ok(())
    }
}

fn text_of(document: &TestnetApplyDocument, apply: &Apply<'_>) -> String {
    let TestnetApplyDocument { name, nodes, validators, did, faults, faults_before, .. } = document;
    let mut text = String::new();
    for what in did {
        text.push_str(&format!("{name}: {}{what}\n", if apply.dry_run { "would do " } else { "" }));
    }
    if apply.dry_run {
        for step in faults {
            let at = Duration::from_millis(step.at_ms).as_secs_f64();
            text.push_str(&format!("{at:>7.1}s  {}\n", step.what));
        }
    }
    let mut sum = format!("{nodes} nodes");
    if *validators > 0 {
        sum.push_str(&format!(", {validators} validators"));
    }
    let all = faults.len() as u64 + faults_before;
    if all > 0 && !apply.dry_run {
        sum.push_str(&format!(", {all} of {all} faults done"));
    }
    let file = apply.path.display();
    match (document.changed, apply.dry_run) {
        (true, true) => text.push_str(&format!("nothing was done; {name} would be as {file} says: {sum}\n")),
        (true, false) => text.push_str(&format!("{name} is as {file} says: {sum}\n")),
        (false, _) => text.push_str(&format!("nothing to change: {name} is as {file} says: {sum}\n")),
    }
    text
}
