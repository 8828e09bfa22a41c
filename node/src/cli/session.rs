//! What every command is given: the global flags, the output, where the node is, and the client to it.

use std::future::Future;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use wattle_types::NodeId;

use super::client::{Answer, Client};
use super::errors::{Failure, for_node};
use super::output::{Color, Output};
use super::table::tame;
use super::testnet::Spot;
use super::values::{Span, as_ms};
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;
use crate::paths::{Environment, NodeName, Paths, PathsError, program};

const HEADING: &str = "Global options";

/// More than any message, record or ticket may have.
const STDIN_BYTES_MAX: u64 = 1 << 20;
/// How long a command may take to end by itself after Ctrl-C.
const INTERRUPT_MAX: Duration = Duration::from_millis(500);

/// The flags every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Which node on this machine
    #[arg(short, long, global = true, env = "WATTLE_NODE", default_value = "default", value_name = "NAME", help_heading = HEADING)]
    pub(crate) node: NodeName,
    /// Keep config, data and socket under DIR
    #[arg(short = 'H', long, global = true, env = "WATTLE_HOME", value_name = "DIR", help_heading = HEADING)]
    pub(crate) home: Option<PathBuf>,
    /// Talk to node IDX of a testnet
    #[arg(short, long, global = true, value_name = "NET/IDX", help_heading = HEADING)]
    pub(crate) testnet: Option<Spot>,
    /// `--home` as it was given, where `-t` led below it.
    #[arg(skip)]
    pub(crate) outer_home: Option<PathBuf>,
    /// Where the node's API is: unix:/path or http://127.0.0.1:7711
    #[arg(long, global = true, env = "WATTLE_API", value_name = "ADDR", help_heading = HEADING)]
    pub(crate) api: Option<String>,
    /// Bearer token for http APIs
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub(crate) token_file: Option<PathBuf>,
    /// Machine output: one JSON document, or JSON Lines from streaming commands
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
    /// Ids only, no progress
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub(crate) quiet: bool,
    /// More detail on stderr (-vv for still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = HEADING)]
    pub(crate) verbose: u8,
    /// Colour: auto honours NO_COLOR and TERM=dumb
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = HEADING)]
    pub(crate) color: Color,
    /// Give up after DUR, such as 500ms, 10s, 7d; 0 = never
    #[arg(long, global = true, value_name = "DUR", default_value = "30s", help_heading = HEADING)]
    pub(crate) timeout: Span,
    /// Never prompt
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) no_input: bool,
}

/// One run of one command.
pub(crate) struct Session {
    pub(crate) globals: Globals,
    pub(crate) out: Output,
    /// Whether somebody said how long to wait.
    pub(crate) patient: bool,
}

impl Session {
    pub(crate) const fn new(globals: Globals, out: Output, patient: bool) -> Self {
        Self { globals, out, patient }
    }

    /// A text with its commands as one would type them for this node.
    pub(crate) fn commands(&self, text: &str) -> String {
        for_node(text, &self.program())
    }

    /// How long to wait for anything; `None` is for ever.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.globals.timeout.some()
    }

    /// Where this node keeps its files.
    pub(crate) fn paths(&self) -> Result<Paths, Failure> {
        let (environment, home) = (Environment::of_process(), self.globals.home.as_deref());
        Paths::new(&environment, self.globals.node.clone(), home).map_err(|error| of_paths(&error))
    }

    /// Everything on stdin. A person at a terminal is told that it is waited for. A read cannot be cancelled,
    /// so a thread of its own does it.
    pub(crate) async fn stdin(&self) -> Result<Vec<u8>, Failure> {
        if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            if self.globals.no_input {
                let message = "nothing to read: stdin is a terminal and --no-input was given";
                return Err(ErrorDocument::new(ErrorCode::Usage, message).into());
            }
            self.out.note("reading stdin; Ctrl-D ends it");
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_read| bytes)
        });
        let read = read.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)));
        let bytes = read
            .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot read stdin: {error}")))?;
        if bytes.len() as u64 > STDIN_BYTES_MAX {
            return Err(ErrorDocument::new(ErrorCode::Usage, "stdin has more than 1 MiB").into());
        }
        Ok(bytes)
    }

    /// What to type to give this same node another command: `wattle -n bob`.
    pub(crate) fn program(&self) -> String {
        if let Some(spot) = self.globals.testnet.as_ref().filter(|spot| spot.node.is_some()) {
            let home = self.globals.outer_home.as_ref().map(|home| format!(" --home {}", home.display()));
            return format!("wattle -t {spot}{}", home.unwrap_or_default());
        }
        program(self.globals.node.as_str(), self.globals.home.as_deref())
    }

    /// A client of the node these flags mean. Nothing is dialed yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::of(self)
    }

    /// Runs a command that talks to the node. Ctrl-C ends it at any moment: at once where it waits, and where
    /// a pipe that nobody reads holds it up in a write, after half a second and without it.
    pub(crate) fn block_on<T>(
        &self,
        command: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let failed = |error| ErrorDocument::new(ErrorCode::Failed, format!("cannot start: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(failed)?;
        // Before the command begins, so that no Ctrl-C falls between.
        let signals = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt()).map_err(failed)?,
                signal(SignalKind::interrupt()).map_err(failed)?,
            )
        };
        let (mut interrupt, mut insist) = signals;
        runtime.spawn(async move {
            insist.recv().await;
            tokio::time::sleep(INTERRUPT_MAX).await;
            std::process::exit(i32::from(ErrorCode::Interrupted.exit()));
        });
        let result = runtime.block_on(async {
            tokio::select! {
                result = command => result,
                _ = interrupt.recv() => Err(ErrorCode::Interrupted.into()),
            }
        });
        // A thread may still be blocked on stdin; nobody waits for what it reads.
        runtime.shutdown_background();
        result
    }
}

/// What a document looks like to a person: its screen, and the ids that `-q` prints instead.
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) ids: Vec<String>,
}

impl Session {
    /// `--timeout` as the node is told: 0 is never.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        Some(self.timeout().map_or(0, as_ms))
    }

    /// Shows an answer: as it came under `--json`, as ids under `-q`, else as a screen.
    pub(crate) fn show<T>(
        &self,
        answer: &Answer<T>,
        screen: impl FnOnce(&T) -> Shown,
    ) -> Result<(), Failure> {
        if self.out.json {
            return self.out.raw(&answer.raw);
        }
        let shown = screen(&answer.document);
        if self.out.quiet {
            self.out.text(&shown.ids.iter().map(|id| format!("{id}\n")).collect::<String>())
        } else {
            self.out.text(&shown.text)
        }
    }
}

impl Session {
    /// Shows a document of our own making.
    pub(crate) fn show_own<T: serde::Serialize>(
        &self,
        document: &T,
        screen: impl FnOnce(&T) -> Shown,
    ) -> Result<(), Failure> {
        if self.out.json {
            return self.out.document(document);
        }
        let shown = screen(document);
        if self.out.quiet {
            self.out.text(&shown.ids.iter().map(|id| format!("{id}\n")).collect::<String>())
        } else {
            self.out.text(&shown.text)
        }
    }
}

/// `bob (..k9LtRw)`, or `..k9LtRw` of a peer without a name.
pub(crate) fn who(id: &NodeId, name: &Option<String>) -> String {
    match name {
        Some(name) => format!("{} (..{})", tame(name), id.short()),
        None => format!("..{}", id.short()),
    }
}

/// Why the files of a node have no place.
pub(crate) fn of_paths(error: &PathsError) -> Failure {
    let code = match error {
        PathsError::NoHome(_) => ErrorCode::Usage,
        PathsError::Unsafe { .. } => ErrorCode::Denied,
        PathsError::Io { .. } => ErrorCode::Failed,
    };
    ErrorDocument::new(code, error.to_string()).into()
}
