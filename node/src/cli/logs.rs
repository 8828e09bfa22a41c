//! `logs`: read the node's log, change its level.

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{part, read_line};
use super::errors::Failure;
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown};
use super::table::tame;
use super::values::{Span, as_ms, clock};
use crate::api::documents::{LogLevelDocument, LogLevelRequest, LogLine, LogSeverity};

/// Read the node's log; change its level
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Logs {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only these: a level (warn), or levels by module (info,libp2p_kad=debug)
    #[arg(long, value_name = "SPEC")]
    level: Option<String>,
    /// Only what was logged in the last D
    #[arg(long, value_name = "D")]
    since: Option<Span>,
}

#[derive(Subcommand)]
enum LogsCommand {
    Level(Level),
}

/// Show or change what the running node logs
#[derive(Args)]
struct Level {
    /// Such as info,libp2p_kad=debug; without it, what is logged now
    spec: Option<String>,
}
pub(super) async fn logs(session: &Session, args: &Logs) -> Result<(), Failure> {
    if let Some(LogsCommand::Level(args)) = &args.command {
        return level(session, args).await;
    }
    let mut path = format!("{}?follow={}", routes::LOGS, args.follow);
    if let Some(level) = &args.level {
        path.push_str(&format!("&level={}", part(level)));
    }
    if let Some(since) = args.since {
        path.push_str(&format!("&since_ms={}", as_ms(since.0)));
    }
    let mut lines = session.client()?.stream(Method::GET, &path, None::<&()>).await?;
    while let Some(raw) = lines.next().await? {
        if session.out.json {
            session.out.document(&raw)?;
        } else {
            session.out.line(&line_text(session, &read_line(raw)?))?;
        }
    }
    Ok(())
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
        Some(spec) => {
            let request = LogLevelRequest { level: spec.clone() };
            client.ask::<LogLevelDocument>(Method::PUT, routes::LOG_LEVEL, Some(&request)).await?
        }
        None => client.get::<LogLevelDocument>(routes::LOG_LEVEL).await?,
    };
    session.show(&answer, |answer| {
        let text = if answer.level == answer.before {
            format!("{}\n", answer.level)
        } else {
            format!("{}   (before: {})\n", answer.level, answer.before)
        };
        Shown { text, ids: vec![answer.level.clone()] }
    })
}
