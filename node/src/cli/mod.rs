//! The command line: what a person types, and what they read back.
//!
//! One file per group of commands. Every command gets a `session::Session` (the global flags, the output,
//! the client) and ends in `Ok(())` or one `errors::Failure`, which carries its text and its exit code;
//! nothing below `main` prints or exits by itself (but for a Ctrl-C that cannot wait, in
//! `session::Session::block_on`). Data goes to stdout through `output::Output`, messages
//! to stderr.

mod bench;
mod bind;
mod chat;
mod client;
mod config;
mod dht;
mod doc;
mod doctor;
pub mod documents;
mod errors;
mod files;
mod health;
mod help;
mod keys;
mod logs;
mod members;
mod misc;
mod node;
mod order;
mod output;
pub mod pages;
mod past;
mod peers;
mod qr;
mod register;
mod reply;
mod room;
mod routes;
mod run;
mod session;
mod table;
mod testnet;
mod tickets;
mod topic;
mod trace;
mod ui;
mod values;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use table::tame;

use errors::Failure;
use output::Output;
use session::{Globals, Session};

/// A peer-to-peer overlay node: a DHT, topics and tickets behind one local API.
#[derive(Parser)]
#[command(name = "wattle", version, propagate_version = false, disable_version_flag = false)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Init(node::Init),
    Id(node::Id),
    Run(run::Run),
    Status(node::Status),
    Stop(node::Stop),
    Wait(node::Wait),
    Health(health::Health),
    Logs(logs::Logs),
    Ui(ui::Ui),
    Invite(tickets::Invite),
    Join(tickets::Join),
    Connect(peers::Connect),
    Disconnect(peers::Disconnect),
    Peers(peers::Peers),
    Ping(peers::Ping),
    Members(members::Members),
    Dht(dht::Dht),
    #[command(visible_alias = "gossip")]
    Topic(topic::Topic),
    Room(room::Room),
    Chat(chat::Chat),
    Doc(doc::Doc),
    Order(order::Order),
    Register(register::Register),
    Testnet(testnet::Testnet),
    Bench(bench::Bench),
    Config(config::Config),
    Key(keys::Key),
    Token(keys::Token),
    Completions(misc::Completions),
    Man(misc::Man),
    Version(misc::Version),
    Doctor(doctor::Doctor),
}

/// The whole command tree as clap sees it, with examples and exit codes at every leaf.
#[must_use]
pub fn command() -> clap::Command {
    help::complete(Cli::command())
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let asked = output::Asked::of(&arguments);
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return output::end(&asked, Err(errors::of_clap(&error, &arguments, &asked))),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return output::end(&asked, Err(errors::of_clap(&error, &arguments, &asked))),
    };
    let output = Output::new(&cli.globals);
    let patient = matches.value_source("timeout") == Some(ValueSource::CommandLine);
    let result = match cli.command {
        None => output.text(help::overview()),
        Some(command) => run(cli.globals, output, patient, command),
    };
    output::end(&asked, result)
}

fn run(globals: Globals, output: Output, patient: bool, command: Command) -> Result<(), Failure> {
    let globals = match command {
        Command::Testnet(_) => globals,
        _ => testnet::find(globals)?,
    };
    let session = Session::new(globals, output, patient);
    let program = session.program();
    dispatch(session, command).map_err(|failure| match failure {
        Failure::Error(document) => errors::of_node(*document, &program).into(),
        other => other,
    })
}

fn dispatch(session: Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => node::init(&session, &args),
        Command::Id(args) => node::id(&session, &args),
        Command::Run(args) => run::run(&session, &args),
        Command::Status(args) => session.block_on(node::status(&session, &args)),
        Command::Stop(args) => session.block_on(node::stop(&session, &args)),
        Command::Wait(args) => session.block_on(node::wait(&session, &args)),
        Command::Health(args) => health::health(&session, &args),
        Command::Logs(args) => session.block_on(logs::logs(&session, &args)),
        Command::Invite(args) => session.block_on(tickets::invite(&session, &args)),
        Command::Join(args) => tickets::join(&session, &args),
        Command::Connect(args) => session.block_on(peers::connect(&session, &args)),
        Command::Disconnect(args) => session.block_on(peers::disconnect(&session, &args)),
        Command::Peers(args) => session.block_on(peers::peers(&session, args)),
        Command::Ping(args) => session.block_on(peers::ping(&session, &args)),
        Command::Members(args) => session.block_on(members::members(&session, args)),
        Command::Dht(args) => session.block_on(dht::dht(&session, args)),
        Command::Ui(args) => session.block_on(ui::ui(&session, &args)),
        Command::Topic(args) => session.block_on(topic::topic(&session, args)),
        Command::Room(args) => session.block_on(room::room(&session, args)),
        Command::Chat(args) => session.block_on(chat::chat(&session, args)),
        Command::Doc(args) => session.block_on(doc::doc(&session, args)),
        Command::Order(args) => order::order(&session, args),
        Command::Register(args) => session.block_on(register::register(&session, args)),
        Command::Testnet(args) => testnet::testnet(&session, args),
        Command::Bench(args) => session.block_on(bench::bench(&session, args)),
        Command::Config(args) => config::config(&session, args),
        Command::Key(args) => keys::key(&session, args),
        Command::Token(args) => session.block_on(keys::token(&session, args)),
        Command::Completions(args) => misc::completions(&session, &args),
        Command::Man(args) => misc::man(&session, &args),
        Command::Version(_) => session.block_on(misc::version(&session)),
        Command::Doctor(args) => doctor::doctor(&session, &args),
    }
}
