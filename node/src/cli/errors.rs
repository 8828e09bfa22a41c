//! How a command fails: what happened, why we think so, what to type. The texts are part of the contract.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::output::{Asked, Meaning, paint};
use super::table::tame;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// The end of a command that did not simply succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Everything was said already; this exit status is left.
    Told(u8),
    /// The reader of stdout went away.
    Closed,
    /// Help or the version was asked for.
    Help(String),
    /// Something to say.
    Error(Box<ErrorDocument>),
}

impl From<ErrorDocument> for Failure {
    fn from(document: ErrorDocument) -> Self {
        Self::Error(Box::new(document))
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::Told(code.exit())
    }
}

/// `document` with one more row: what to type now. The first such row is the hint for programs too.
pub(crate) fn advise(mut document: ErrorDocument, label: &str, command: &str, more: &str) -> ErrorDocument {
    document.hint.get_or_insert_with(|| command.to_owned());
    let text = if more.is_empty() { command.to_owned() } else { format!("{command:<19} {more}") };
    document.detail(label, text)
}

/// A text with its commands as one would type them for this node: `wattle status` becomes `wattle -n bob status`. A
/// command between backticks is for somebody else to type.
pub(crate) fn for_node(text: &str, program: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("wattle ") {
        let (before, from) = rest.split_at(at);
        let after = from.get("wattle ".len()..).unwrap_or_default();
        let begins = before.chars().next_back().is_none_or(|c| c.is_whitespace() || "(,:".contains(c));
        // What is about a whole testnet is for no single node of it.
        let whole_net = program.starts_with("wattle -t ") && after.starts_with("testnet ");
        let command = begins && !whole_net && after.starts_with(|c: char| c.is_ascii_lowercase());
        whole.push_str(before);
        whole.push_str(if command { program } else { "wattle" });
        whole.push(' ');
        rest = after;
    }
    whole.push_str(rest);
    whole
}

/// An error with what to type as one would type it for this node. What to ask others for stays.
pub(crate) fn of_node(mut document: ErrorDocument, program: &str) -> ErrorDocument {
    document.hint = document.hint.map(|hint| for_node(&hint, program));
    for [label, row] in &mut document.details {
        if !label.starts_with("ask") {
            *row = for_node(row, program);
        }
    }
    document
}

/// The layout of the catalogue: the message, then rows whose texts start in one column.
pub(crate) fn to_text(document: &ErrorDocument, color: bool) -> String {
    let mut text = format!("{} {}", paint(color, Meaning::Bad, "error:"), tame(&document.message));
    for [label, row] in &document.details {
        let row = tame(row);
        let label = if label.is_empty() { String::new() } else { format!("{label:<12} ") };
        text.push_str(&format!("\n  {label}{row}"));
    }
    if let Some(hint) = &document.hint
        && !document.details.iter().any(|[_, row]| row.contains(hint.as_str()))
    {
        text.push_str(&format!("\n  {:<12} {}", "try", tame(hint)));
    }
    text
}

/// One line of JSON, `wattle.error/1`.
pub(crate) fn to_json(document: &ErrorDocument) -> String {
    // A struct of texts and numbers is always JSON; the message alone is better than nothing.
    serde_json::to_string(document).unwrap_or_else(|_not_json| document.message.clone())
}

/// What clap made of the arguments: help, or a usage error in our words and layout.
pub(crate) fn of_clap(error: &clap::Error, arguments: &[OsString], asked: &Asked) -> Failure {
    let rendered = error.render();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let color = asked.color_on_stdout();
        return Failure::Help(if color { rendered.ansi().to_string() } else { rendered.to_string() });
    }
    let (path, commands) = where_in_tree(arguments);
    let text = |kind| error.get(kind).and_then(words).unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("`{path}` needs a command: {}", commands.join(", "))
        }
        ErrorKind::InvalidSubcommand => {
            format!("`{path}` has no command `{}`", text(ContextKind::InvalidSubcommand))
        }
        ErrorKind::MissingRequiredArgument => format!("missing: {}", text(ContextKind::InvalidArg)),
        ErrorKind::UnknownArgument => format!("unknown argument `{}`", text(ContextKind::InvalidArg)),
        _ => first_line(&rendered.to_string()),
    };
    let mut document = ErrorDocument::new(ErrorCode::Usage, message);
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let meant = meant.into_iter().find_map(|kind| error.get(kind).and_then(words)).or_else(|| {
        // clap finds no short word near another; `rn` is still `run`.
        let wrong = text(ContextKind::InvalidSubcommand);
        let near = crate::config::nearest(&wrong, commands.iter().map(String::as_str));
        near.filter(|_| !wrong.is_empty()).map(str::to_owned)
    });
    if let Some(meant) = meant {
        document = document.detail("did you mean", format!("{meant}?"));
    }
    advise(document, "see", &format!("{path} --help"), "").into()
}

fn words(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The command the arguments lead to, as one would type it, and the commands below it.
fn where_in_tree(arguments: &[OsString]) -> (String, Vec<String>) {
    let root = super::command();
    let (mut path, mut at) = ("wattle".to_owned(), &root);
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(child) = at.find_subcommand(word) {
            path = format!("{path} {}", child.get_name());
            at = child;
        }
    }
    (
        path,
        at.get_subcommands()
            .filter(|child| !child.is_hide_set())
            .map(|child| child.get_name().to_owned())
            .collect(),
    )
}

/// A file that could not be read or written.
pub(crate) fn of_io(what: &str, path: &Path, error: &std::io::Error) -> ErrorDocument {
    let code = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorCode::Denied,
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        std::io::ErrorKind::AlreadyExists => ErrorCode::Conflict,
        _ => ErrorCode::Failed,
    };
    ErrorDocument::new(code, format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_hints_are_those_for_the_node_that_was_meant() {
        for (text, expected) in [
            ("wattle status", "wattle -n bob status"),
            (
                "wattle connect <multiaddr>, or wattle join <ticket>",
                "wattle -n bob connect <multiaddr>, or wattle -n bob join <ticket>",
            ),
            ("make one     wattle room new dev\n", "make one     wattle -n bob room new dev\n"),
            ("wattle -n carol run", "wattle -n carol run"),
            ("whoever invited you types `wattle invite`", "whoever invited you types `wattle invite`"),
            ("this is wattle 0.1.0", "this is wattle 0.1.0"),
            ("a wattle", "a wattle"),
        ] {
            assert_eq!(for_node(text, "wattle -n bob"), expected);
        }
        let document = ErrorDocument::new(ErrorCode::Denied, "no")
            .detail("ask for", "a new ticket: wattle doc share <id>")
            .detail("see", "wattle doc list");
        let document = of_node(document, "wattle -n bob");
        assert_eq!(document.details[0][1], "a new ticket: wattle doc share <id>");
        assert_eq!(document.details[1][1], "wattle -n bob doc list");
        let of_net = for_node("wattle testnet heal, then wattle status", "wattle -t demo/1");
        assert_eq!(of_net, "wattle testnet heal, then wattle -t demo/1 status");
    }
}
