//! What `--help` and the man pages add to the command tree: two examples at every leaf, its exit codes, what
//! `--json` prints.

use clap::Command;

use super::pages::{Json, Page, page};
use crate::exit::ErrorCode;

/// About, then the examples, then the rest: what people came for stands at the top.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// What `wattle` alone prints.
const OVERVIEW: &str = "\
wattle: a peer-to-peer overlay node. One binary, one key: a DHT, topics and tickets behind one local API.

Day 1:
  wattle run            start a node (creates its key and config first)
  wattle invite         make a ticket that lets somebody in
  wattle join TICKET    accept a ticket: network and peers in one go
  wattle status         am I up, am I connected, is anything wrong
  wattle topic sub dev  print messages as they arrive; publish with: wattle topic pub dev hello

Then:
  peers connect disconnect ping          people and paths
  dht put get find-peer closest trace    the distributed hash table
  topic pub sub list request reply       publish and subscribe
  order init join submit status log      one log that all agree on, with receipts
  init id stop wait health logs ui       this node, and its page in the browser
  config key token doctor version        settings, identity, API tokens, trouble
  testnet up status partition report     many nodes here, and faults between them
  bench ping gossip dht doc order        load a node, and see how long things take
  completions man                        for your shell

  wattle COMMAND --help                  every option, with examples
";

/// What `wattle` alone prints.
#[must_use]
pub(crate) const fn overview() -> &'static str {
    OVERVIEW
}

/// Gives the root and every leaf of the tree its template, examples and exit codes.
pub(crate) fn complete(root: Command) -> Command {
    let root = root
        .after_help("`wattle` alone shows where to begin.")
        .after_long_help(exit_table())
        .disable_help_subcommand(false);
    descend(root, "")
}

fn descend(command: Command, path: &str) -> Command {
    let mut command = command.help_template(TEMPLATE);
    if let Some(page) = page(path) {
        command = command.before_long_help(examples(page)).after_long_help(footer(page));
    }
    let names: Vec<String> = command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |child| descend(child, &path));
    }
    command
}

fn examples(page: &Page) -> String {
    let width = page.examples.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
    let mut text = "Examples:".to_owned();
    for (line, why) in page.examples {
        text.push_str(&format!("\n  {line:<width$}   {why}"));
    }
    text
}

fn footer(page: &Page) -> String {
    let mut text = match page.json {
        Json::Document(schema) => format!("With --json: one document, {schema}.\n"),
        Json::Lines(_) => "With --json: JSON Lines, each object with `type` and `ts`.\n".to_owned(),
        Json::Plain => String::new(),
    };
    let exits: String = page.exits.iter().map(|code| format!(", {} {}", code.exit(), code.name())).collect();
    text.push_str(&format!("Exit codes: 0 ok{exits}   (all of them: wattle --help)"));
    text
}

/// The table of exit codes, as the long help and the manual show it.
pub(crate) fn exit_table() -> String {
    let mut text = "Exit codes:".to_owned();
    for code in ErrorCode::ALL {
        text.push_str(&format!("\n  {:>3}  {:<12} {}", code.exit(), code.name(), meaning(code)));
    }
    text.push_str("\n`wattle health` alone uses the Nagios set: 0 ok, 1 warning, 2 critical, 3 unknown.");
    text
}

/// When a code is used, for the table of exit codes.
pub(crate) const fn meaning(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Failed => "anything not below",
        ErrorCode::Usage => "bad arguments or bad config file",
        ErrorCode::NoNode => "the node is not running, or its API cannot be reached",
        ErrorCode::NotFound => "a key, peer or entry does not exist (or nobody has it)",
        ErrorCode::Timeout => "stopped waiting",
        ErrorCode::Conflict => "already exists, lock held, compare failed, port or directory in use",
        ErrorCode::Denied => "not your socket, bad token, not allowed",
        ErrorCode::NoQuorum => "the ordered log cannot commit now",
        ErrorCode::Invalid => "a signature, receipt, ticket or hash does not verify",
        ErrorCode::Partial => "some targets worked, some did not (details in the output)",
        ErrorCode::Interrupted => "Ctrl-C",
    }
}
