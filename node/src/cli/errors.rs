//! How a command fails: what happened, why we think so, what to type. The texts are part of the contract.

use std::fmt::Write as _;
use std::path::Path;

use clap::error::{ContextKind, ErrorKind};

use super::output::{Asked, Meaning, paint};
use crate::exit::Exit;

/// The end of a command that did not simply succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Everything was said already; this exit code is left.
    Told(u8),
    /// The reader of stdout went away.
    Closed,
    /// Help or the version was asked for.
    Help(String),
    /// Something to say.
    Report(Box<Report>),
}

/// An error as a person and as a program read it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) exit: Exit,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Labelled lines below the message; an empty label continues the text.
    pub(crate) rows: Vec<(String, String)>,
    pub(crate) hint: Option<String>,
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::Report(Box::new(report))
    }
}

impl From<Exit> for Failure {
    fn from(exit: Exit) -> Self {
        Self::Told(exit.code())
    }
}

impl Report {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: exit.name().to_owned(), message: message.into(), rows: Vec::new(), hint: None }
    }

    /// A more exact word for programs than the name of the exit code.
    pub(crate) fn code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.code);
        self
    }

    /// Adds a labelled line.
    pub(crate) fn row(mut self, label: &str, text: impl Into<String>) -> Self {
        self.rows.push((label.to_owned(), text.into()));
        self
    }

    /// Adds a labelled line with a command to type; programs get it as `hint`.
    pub(crate) fn try_this(mut self, label: &str, command: &str, more: &str) -> Self {
        self.hint = Some(command.to_owned());
        let text = if more.is_empty() { command.to_owned() } else { format!("{command:<18} {more}") };
        self.row(label, text)
    }

    /// The layout of the catalogue: the message, then rows whose texts start in one column.
    pub(crate) fn to_text(&self, color: bool) -> String {
        let mut text = format!("{} {}", paint(color, Meaning::Bad, "error:"), self.message);
        for (label, row) in &self.rows {
            // Ignored because writing to a String cannot fail.
            drop(if label.is_empty() {
                write!(text, "\n  {row}")
            } else {
                write!(text, "\n  {label:<12} {row}")
            });
        }
        text
    }

    /// One line of JSON, `wattle.error/1`.
    pub(crate) fn to_json(&self) -> String {
        let mut document = serde_json::json!({
            "schema": "wattle.error/1",
            "code": self.code,
            "exit": self.exit.code(),
            "message": self.message,
            "docs": format!("wattle --help (exit {})", self.exit.code()),
        });
        if let Some(hint) = &self.hint {
            document["hint"] = hint.as_str().into();
        }
        document.to_string()
    }
}

/// What clap made of the arguments: help, or a usage error in our words and layout.
pub(crate) fn of_clap(error: &clap::Error, asked: &Asked) -> Failure {
    let rendered = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let color = asked.color_on_stdout();
            return Failure::Help(if color { rendered.ansi().to_string() } else { rendered.to_string() });
        }
        _ => {}
    }
    let text = rendered.to_string();
    let mut lines = text.lines().map(str::trim_end);
    let first = lines.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let mut report = Report::new(Exit::Usage, message);
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let line = line.trim();
        if let Some(tip) = line.strip_prefix("tip: ") {
            report.hint = Some(tip.to_owned());
            report = report.row("", tip);
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            report = report.row("usage", usage);
        } else if !line.starts_with("For more information") {
            report = report.row("", line);
        }
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || report.message.is_empty() {
        report.message = "what should it do?".to_owned();
    }
    if error.get(ContextKind::SuggestedSubcommand).is_none() {
        report = report.row("see", "the same command with --help");
    }
    report.into()
}

/// A file that could not be read or written.
pub(crate) fn of_io(what: &str, path: &Path, error: &std::io::Error) -> Report {
    let exit = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::Denied,
        std::io::ErrorKind::NotFound => Exit::NotFound,
        std::io::ErrorKind::AlreadyExists => Exit::Conflict,
        _ => Exit::Failed,
    };
    Report::new(exit, format!("cannot {what} {}: {error}", path.display()))
}
impl Report {
    /// Reads a `wattle.error/1`.
    pub(crate) fn from_json(_bytes: &[u8]) -> Option<Self> { None }
}
