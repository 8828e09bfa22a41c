//! How fast shared documents are, beside samod and beside Automerge alone: in one process, in one run, so that
//! a busy machine slows all of them alike.
//!
//! `engines [--quick] [--only GOALS] [--node WATTLE] [TRACE]`. Each line is one goal: ours, theirs, the ratio, what is
//! wanted, whether it is met. `--quick` takes a fifth of the keystrokes and fewer rounds. `--only 2,5` takes some
//! goals: 1 programs on automerge-repo, 2 live edits, 3 a burst, 4 many documents, 5 reconnecting, 6 a first
//! fetch, 7 memory, 8 disk bytes, 9 rooms. 1 and 7 need Node and `npm ci` in tests/interop; with
//! `--node target/release/wattle` they take the node as it is released, which is built for little memory. TRACE is a
//! file of keystrokes as in github.com/josephg/editing-traces, packed or not; without one, keystrokes of the same
//! shape are made.

mod documents;
mod machines;
mod ours;
mod programs;
mod report;
mod rooms;
mod theirs;
mod trace;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is measured.
struct Plan {
    quick: bool,
    only: Vec<u8>,
    node: Option<PathBuf>,
    trace: Option<String>,
}

impl Plan {
    fn of_arguments() -> Result<Self> {
        let mut plan = Self { quick: false, only: Vec::new(), node: None, trace: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => plan.quick = true,
                "--only" => {
                    let goals = arguments.next().ok_or("--only takes goals, as in --only 2,5")?;
                    plan.only =
                        goals.split(',').map(str::parse::<u8>).collect::<std::result::Result<_, _>>()?;
                }
                "--node" => plan.node = Some(arguments.next().ok_or("--node takes a program")?.into()),
                other if other.starts_with('-') => return Err(format!("no option {other}").into()),
                path => plan.trace = Some(path.to_owned()),
            }
        }
        Ok(plan)
    }

    fn has(&self, goal: u8) -> bool {
        self.only.is_empty() || self.only.contains(&goal)
    }

    /// One of two numbers.
    fn pick(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// A directory on the disk that the program is on: what is in memory is no disk.
    fn directory(&self) -> Result<tempfile::TempDir> {
        let program = std::env::current_exe()?;
        Ok(tempfile::tempdir_in(program.parent().unwrap_or(Path::new(".")))?)
    }
}

fn main() -> ExitCode {
    // A node of its own process is this program under another name, so that both are built alike.
    if std::env::args().next().as_deref() == Some("wattle") {
        return wattle::cli::main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--hold-samod") {
        return runtime.block_on(programs::hold_samod(arguments.next().unwrap_or_default().parse()?));
    }
    let plan = Plan::of_arguments()?;
    report::head();
    if plan.has(1) {
        programs::isolated(&plan)?;
    }
    if plan.has(2) {
        runtime.block_on(documents::live(&plan))?;
    }
    if [3, 5, 6, 8].iter().any(|goal| plan.has(*goal)) {
        let mut patches = match &plan.trace {
            Some(path) => trace::read(Path::new(path))?,
            None => trace::made(),
        };
        if plan.quick {
            patches.truncate(patches.len() / 5);
        }
        let begun = report::thread_cpu();
        let document = trace::build(&patches)?;
        let cost = report::ms(report::thread_cpu() - begun);
        let bytes = document.save().len();
        report::aside("the document", &format!("{} changes, {bytes} B saved, {cost:.0} ms", patches.len()));
        if plan.has(5) || plan.has(8) {
            documents::alone(&plan, &document)?;
        }
        if plan.has(8) {
            runtime.block_on(documents::their_disk(&plan, &document))?;
        }
        if plan.has(3) || plan.has(6) {
            runtime.block_on(documents::large(&plan, &document))?;
        }
    }
    if plan.has(7) {
        runtime.block_on(programs::memory(&plan))?;
    }
    if plan.has(4) {
        runtime.block_on(rooms::many(&plan))?;
    }
    if plan.has(9) {
        runtime.block_on(rooms::room(&plan))?;
    }
    Ok(())
}
