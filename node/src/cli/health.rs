//! `health`: one verdict for monitors.

use clap::{Args, ValueEnum};

use super::errors::Failure;
use super::output::Meaning;
use super::routes;
use super::session::Session;
use super::table::tame;
use crate::api::documents::{HealthCheck, HealthDocument, HealthLevel, HealthSchema};
use crate::exit::ErrorCode;

/// Health verdict for monitors
#[derive(Args)]
pub(super) struct Health {
    /// For whom
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: HealthFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HealthFormat {
    /// A line for a person
    Text,
    /// A line with performance data, as Nagios and its heirs read it
    Nagios,
    /// One document
    Json,
    /// Metrics in the Prometheus text format, for a textfile collector
    Prometheus,
}

pub(super) fn health(session: &Session, args: &Health) -> Result<(), Failure> {
    let asked = session.block_on(async {
        let answer = session.client()?.get::<HealthDocument>(routes::HEALTH).await?;
        Ok::<_, Failure>(answer.document)
    });
    let document = match asked {
        Ok(document) => document,
        Err(Failure::Error(error)) => {
            // A node that is down is what a monitor must hear of. That we may not ask tells nothing about the node.
            let level =
                if error.code == ErrorCode::NoNode { HealthLevel::Critical } else { HealthLevel::Unknown };
            unreachable_node(level, &error.message, error.hint.clone())
        }
        Err(failure) => return Err(failure),
    };
    match args.format {
        _ if session.out.json => session.out.document(&document)?,
        HealthFormat::Json => session.out.document(&document)?,
        HealthFormat::Text => session.out.text(&text(session, &document))?,
        HealthFormat::Nagios => session.out.line(&nagios(&document))?,
        HealthFormat::Prometheus => session.out.text(&prometheus(&document))?,
    }
    if document.exit == 0 { Ok(()) } else { Err(Failure::Told(document.exit)) }
}

fn unreachable_node(level: HealthLevel, message: &str, hint: Option<String>) -> HealthDocument {
    HealthDocument {
        schema: HealthSchema::V1,
        level,
        exit: level.exit(),
        summary: message.to_owned(),
        peers: 0,
        uptime_ms: 0,
        checks: vec![HealthCheck { name: "node".to_owned(), level, message: message.to_owned(), hint }],
    }
}

/// The word for a level, and its colour.
pub(super) const fn word(level: HealthLevel) -> (&'static str, Meaning) {
    match level {
        HealthLevel::Ok => ("ok", Meaning::Good),
        HealthLevel::Warning => ("warning", Meaning::Doubtful),
        HealthLevel::Critical => ("critical", Meaning::Bad),
        HealthLevel::Unknown => ("unknown", Meaning::Bad),
    }
}

fn text(session: &Session, document: &HealthDocument) -> String {
    let (level, meaning) = word(document.level);
    let mut text = format!("{}  {}\n", session.out.paint(meaning, level), tame(&document.summary));
    for check in document.checks.iter().filter(|check| check.level != HealthLevel::Ok) {
        let hint = check.hint.as_deref().map(|hint| format!("   {}", tame(hint))).unwrap_or_default();
        text.push_str(&format!("  {:<10} {}{hint}\n", check.name, tame(&check.message)));
    }
    text
}

/// One line with performance data after the bar (Monitoring Plugins Development Guidelines, section 2.6).
fn nagios(document: &HealthDocument) -> String {
    let level = word(document.level).0.to_uppercase();
    let summary = tame(&document.summary).replace('|', "/");
    format!(
        "WATTLE {level} - {summary} | peers={};;;0 uptime={}s;;;0",
        document.peers,
        document.uptime_ms / 1000
    )
}

fn prometheus(document: &HealthDocument) -> String {
    let mut text = format!(
        "# HELP wattle_health_level 0 ok, 1 warning, 2 critical, 3 unknown.\n# TYPE wattle_health_level gauge\n\
         wattle_health_level {}\n\
         # HELP wattle_health_check_level The level of each check.\n# TYPE wattle_health_check_level gauge\n",
        document.level.exit()
    );
    for check in &document.checks {
        let name: String = check.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        text.push_str(&format!("wattle_health_check_level{{check=\"{name}\"}} {}\n", check.level.exit()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_down_is_critical_and_says_so_in_every_format() {
        let document = unreachable_node(HealthLevel::Critical, "node \"default\" is not running", None);
        assert_eq!(document.exit, 2);
        assert_eq!(
            nagios(&document),
            "WATTLE CRITICAL - node \"default\" is not running | peers=0;;;0 uptime=0s;;;0"
        );
        assert!(prometheus(&document).contains("\nwattle_health_check_level{check=\"node\"} 2\n"));
    }
}
