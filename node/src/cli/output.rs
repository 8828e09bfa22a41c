//! What reaches the terminal: data on stdout, messages on stderr, colour only where somebody looks.
//!
//! Everything is written through checked writers. A reader that went away ends the command quietly, as it
//! ends any Unix filter; a full disk is an error with its own text; neither is ever a panic.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

use super::errors::{self, Failure};
use super::session::Globals;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// What a shell reports for a program that wrote to a closed pipe (128 + SIGPIPE).
const CLOSED_PIPE: u8 = 141;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    fn on(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && is_wanted(std::env::var_os("NO_COLOR"), std::env::var_os("TERM")),
        }
    }
}

/// Whether a terminal should get colours (<https://no-color.org>: any value but an empty one forbids them).
fn is_wanted(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|term| term != "dumb")
}

/// How errors are to look, read from the raw arguments: it must be known before (and when) they cannot be
/// parsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) json: bool,
    color: Color,
}

impl Asked {
    pub(crate) fn of(arguments: &[OsString]) -> Self {
        let mut asked = Self { json: false, color: Color::Auto };
        let mut texts = arguments.iter().skip(1).filter_map(|text| text.to_str());
        while let Some(text) = texts.next() {
            match text {
                "--" => break,
                "--json" => asked.json = true,
                "--color" => asked.color = read_color(texts.next().unwrap_or_default()),
                _ => {
                    if let Some(when) = text.strip_prefix("--color=") {
                        asked.color = read_color(when);
                    }
                }
            }
        }
        asked
    }

    pub(crate) fn color_on_stdout(self) -> bool {
        self.color.on(io::stdout().is_terminal())
    }

    pub(crate) fn color_on_stderr(self) -> bool {
        self.color.on(io::stderr().is_terminal())
    }
}

fn read_color(when: &str) -> Color {
    Color::from_str(when, true).unwrap_or_default()
}

/// What a piece of text means, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Good,
    Doubtful,
    Bad,
    Faint,
    Plain,
    Strong,
}

impl Meaning {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Plain => Style::new(),
            Self::Faint => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// `text` in the colour of its meaning when `on`.
pub(crate) fn paint(on: bool, meaning: Meaning, text: &str) -> String {
    let style = meaning.style();
    if on { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    pub(crate) terminal: bool,
    color: bool,
    color_stderr: bool,
}

impl Output {
    pub(crate) fn new(globals: &Globals) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            json: globals.json,
            quiet: globals.quiet,
            verbose: globals.verbose,
            terminal,
            color: globals.color.on(terminal),
            color_stderr: globals.color.on(io::stderr().is_terminal()),
        }
    }

    /// Writes `text` to stdout as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes one line to stdout.
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// Writes a document, or one line of a stream, to stdout as JSON.
    pub(crate) fn document(&self, document: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document)
            .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// Writes a document of the node as the node wrote it: fields that this program does not know stay.
    pub(crate) fn raw(&self, json: &str) -> Result<(), Failure> {
        self.line(json.trim())
    }

    /// Writes bytes to stdout.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(of_stdout)
    }

    /// Says something on stderr that is no data: progress, advice. `-q` silences it.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Says on stderr that something may be wrong. `-q` does not silence it.
    pub(crate) fn warn(&self, text: &str) {
        say(&format!("{} {text}", paint(self.color_stderr, Meaning::Doubtful, "warning:")));
    }

    /// Says on stderr what is only worth saying under `-v`.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose > 0 {
            say(text);
        }
    }

    /// Whether stderr is a terminal where a line can be drawn over the one before, and somebody wants to see it.
    pub(crate) fn can_draw_over(&self) -> bool {
        !self.quiet
            && io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Draws a line on stderr over the one before; an empty one takes it away.
    pub(crate) fn draw_over(&self, line: &str) {
        // Ignored because there is nowhere left to say that stderr is closed.
        drop(write!(io::stderr().lock(), "\r{line}\x1b[K"));
    }

    /// Whether stdout has colours.
    pub(crate) const fn colored(&self) -> bool {
        self.color
    }

    /// `text` in a colour of its own for each of a few numbers, when stdout has colours.
    pub(crate) fn paint_number(&self, number: u32, text: &str) -> String {
        const COLORS: [AnsiColor; 6] = [
            AnsiColor::Cyan,
            AnsiColor::Yellow,
            AnsiColor::Green,
            AnsiColor::Magenta,
            AnsiColor::Blue,
            AnsiColor::Red,
        ];
        let color = usize::try_from(number).ok().and_then(|number| COLORS.get(number % COLORS.len()));
        match color.filter(|_| self.color) {
            Some(color) => {
                let style = color.on_default();
                format!("{style}{text}{style:#}")
            }
            None => text.to_owned(),
        }
    }

    /// `text` in the colour of its meaning when stdout has colours.
    pub(crate) fn paint(&self, meaning: Meaning, text: &str) -> String {
        paint(self.color, meaning, text)
    }
}

fn of_stdout(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Closed
    } else {
        ErrorDocument::new(ErrorCode::Failed, format!("cannot write to stdout: {error}")).into()
    }
}

/// Writes one line to stderr.
fn say(text: &str) {
    // Ignored because there is nowhere left to say that stderr is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Ends the command: prints what went wrong, if anything did, and gives the exit code.
pub(crate) fn end(asked: &Asked, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told(code)) => ExitCode::from(code),
        Err(Failure::Closed) => ExitCode::from(CLOSED_PIPE),
        Err(Failure::Help(text)) => {
            let mut stdout = io::stdout().lock();
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => end(asked, Err(of_stdout(error))),
            }
        }
        Err(Failure::Error(document)) => {
            say(&if asked.json {
                errors::to_json(&document)
            } else {
                errors::to_text(&document, asked.color_on_stderr())
            });
            ExitCode::from(document.exit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let is_wanted = |no_color: Option<&str>, term: Option<&str>| {
            is_wanted(no_color.map(OsString::from), term.map(OsString::from))
        };
        assert!(is_wanted(None, Some("xterm")));
        assert!(is_wanted(Some(""), None));
        assert!(!is_wanted(Some("1"), Some("xterm")));
        assert!(!is_wanted(None, Some("dumb")));
        assert!(!Color::Auto.on(false) && Color::Always.on(false) && !Color::Never.on(true));
    }

    #[test]
    fn the_look_of_errors_is_known_before_arguments_are() {
        let asked = |words: &[&str]| Asked::of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asked(&["wattle", "sttus", "--json"]).json);
        assert!(!asked(&["wattle", "topic", "pub", "a", "--", "--json"]).json);
        assert_eq!(asked(&["wattle", "--color", "never"]).color, Color::Never);
        assert_eq!(asked(&["wattle", "--color=always"]).color, Color::Always);
    }
}
