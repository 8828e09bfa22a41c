//! `logs`: read the node's log, change its level.

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;

use super::client::read_line;
use super::errors::Failure;
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown};
use super::table::tame;
use super::values::{Span, as_ms, clock};
use crate::api::documents::{LogLevelDocument, LogLevelRequest, LogLine, LogSeverity, LogsDocument};

/// Read the node's log; change its level
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Logs {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only lines at least this bad
    #[arg(long, value_name = "LEVEL")]
    level: Option<Least>,
    /// Only what was logged in the last D
    #[arg(long, value_name = "D")]
    since: Option<Span>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Least {
    /// Every step
    Trace,
    /// For those who look for a fault
    Debug,
    /// What an operator may want to know
    Info,
    /// Something is not as it should be
    Warn,
    /// Something failed
    Error,
}

impl Least {
    const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[derive(Subcommand)]
enum LogsCommand {
    Level(Level),
}

/// Show or change what the running node logs
#[derive(Args)]
struct Level {
    /// Such as debug, or by part: info,libp2p_kad=debug; without it, the level is shown
    spec: Option<String>,
}

pub(super) async fn logs(session: &Session, args: &Logs) -> Result<(), Failure> {
    if let Some(LogsCommand::Level(args)) = &args.command {
        return level(session, args).await;
    }
    let mut path = format!("{}?follow={}", routes::LOGS, args.follow);
    if let Some(level) = args.level {
        path.push_str(&format!("&level={}", level.name()));
    }
    if let Some(since) = args.since {
        path.push_str(&format!("&since_ms={}", as_ms(since.0)));
    }
    let client = session.client()?;
    if !args.follow {
        for line in client.get::<LogsDocument>(&path).await?.document.lines {
            show(session, &line)?;
        }
        return Ok(());
    }
    let mut lines = client.stream(Method::GET, &path, None::<&()>).await?;
    while let Some(raw) = lines.next().await? {
        show(session, &read_line(&raw)?)?;
    }
    Ok(())
}

fn show(session: &Session, line: &LogLine) -> Result<(), Failure> {
    if session.out.json { session.out.document(line) } else { session.out.line(&line_text(session, line)) }
}

fn line_text(session: &Session, line: &LogLine) -> String {
    let (level, meaning) = match line.level {
        LogSeverity::Trace => ("TRACE", Meaning::Faint),
        LogSeverity::Debug => ("DEBUG", Meaning::Faint),
        LogSeverity::Info => (" INFO", Meaning::Good),
        LogSeverity::Warn => (" WARN", Meaning::Doubtful),
        LogSeverity::Error => ("ERROR", Meaning::Bad),
    };
    let mut text = format!(
        "{}  {} {}: {}",
        clock(line.ts),
        session.out.paint(meaning, level),
        tame(&line.target),
        tame(&line.message)
    );
    for (name, value) in &line.fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&tame(&format!("  {name}={value}")));
    }
    text
}

async fn level(session: &Session, args: &Level) -> Result<(), Failure> {
    let client = session.client()?;
    let answer = match &args.spec {
        None => client.get::<LogLevelDocument>(routes::LOG_LEVEL).await?,
        Some(spec) => {
            let request = LogLevelRequest { level: spec.clone() };
            client.post::<LogLevelDocument>(routes::LOG_LEVEL, &request).await?
        }
    };
    session.show(&answer, |answer| {
        let before = answer.before.as_ref().map(|before| format!("   (before: {})", tame(before)));
        let text = format!("{}{}\n", tame(&answer.level), before.unwrap_or_default());
        Shown { text, ids: vec![answer.level.clone()] }
    })
}
