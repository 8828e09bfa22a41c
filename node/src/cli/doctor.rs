//! `doctor`: everything a node needs, each checked, each with what to type.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_store::DATA_FORMAT;

use super::documents::BundleSchema;
use super::errors::{Failure, of_io};
use super::files::{self, tilde};
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown};
use super::table::tame;
use crate::api::documents::{
    ConfigDocument, DoctorDocument, DoctorSchema, ErrorDocument, HealthCheck, HealthLevel, LogLine,
    LogsDocument, StatusDocument,
};
use crate::config::Config;
use crate::exit::ErrorCode;
use crate::paths::{OTHERS_SEE, Paths};

/// 2026-01-01T00:00Z in seconds since 1970.
const BUILT_AFTER: i64 = 1_767_225_600;

/// Check everything a node needs; pack a bug report
#[derive(Args)]
pub(super) struct Doctor {
    /// Write a bug report without secrets into FILE, as JSON
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// A bug report: everything the doctor saw, and the settings. No keys, no tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct BundleDocument {
    /// What this is.
    pub schema: BundleSchema,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// The operating system and the processor's kind.
    pub system: String,
    /// What was checked.
    pub doctor: DoctorDocument,
    /// The settings in force; absent when they are not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigDocument>,
}

pub(super) fn doctor(session: &Session, args: &Doctor) -> Result<(), Failure> {
    let paths = session.paths()?;
    let config = files::load_config(&paths);
    let mut checks = vec![config_check(&paths, &config)];
    checks.extend([data_check(&paths), key_check(session, &paths), format_check(&paths)]);
    checks.push(runtime_check(&paths));
    let asked = session.block_on(ask(session));
    checks.push(socket_check(session, &paths, asked.as_ref().err()));
    let running = asked.is_ok();
    if let Ok(config) = &config {
        checks.extend(port_checks(config, running));
    }
    checks.extend([multicast_check(), clock_check()]);
    let (status, log, error) = match asked {
        Ok((status, log)) => (Some(status), log, None),
        Err(Failure::Error(error)) => (None, Vec::new(), Some(*error)),
        Err(failure) => return Err(failure),
    };
    for warning in status.iter().flat_map(|status| &status.warnings) {
        checks.push(check("node", HealthLevel::Warning, warning.message.clone(), warning.hint.clone()));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let document = DoctorDocument { schema: DoctorSchema::V1, version, checks, status, log, error };
    let failed = document.checks.iter().any(|check| check.level >= HealthLevel::Critical);
    session.show_own(&document, |document| Shown { text: screen(session, document), ids: Vec::new() })?;
    if let Some(file) = &args.bundle {
        write_bundle(session, file, document, config.ok())?;
    }
    if failed { Err(ErrorCode::Failed.into()) } else { Ok(()) }
}

async fn ask(session: &Session) -> Result<(StatusDocument, Vec<LogLine>), Failure> {
    let client = session.client()?;
    let status = client.get::<StatusDocument>(routes::STATUS).await?.document;
    // Ignored because a log that cannot be read is no reason to leave out the rest.
    let log = client
        .get::<LogsDocument>(routes::LOGS)
        .await
        .map(|answer| answer.document.lines)
        .unwrap_or_default();
    Ok((status, log))
}

fn screen(session: &Session, document: &DoctorDocument) -> String {
    let mut text = String::new();
    for check in &document.checks {
        let (word, meaning) = match check.level {
            HealthLevel::Ok => ("ok  ", Meaning::Good),
            HealthLevel::Warning => ("warn", Meaning::Doubtful),
            HealthLevel::Critical | HealthLevel::Unknown => ("fail", Meaning::Bad),
        };
        let word = session.out.paint(meaning, word);
        text.push_str(&format!("{word}  {:<10} {}\n", check.name, tame(&check.message)));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("      {:<10} {}\n", "", tame(hint)));
        }
    }
    text
}

fn check(name: &str, level: HealthLevel, message: impl Into<String>, hint: Option<String>) -> HealthCheck {
    HealthCheck { name: name.to_owned(), level, message: message.into(), hint }
}

fn fine(name: &str, message: impl Into<String>) -> HealthCheck {
    check(name, HealthLevel::Ok, message, None)
}

fn config_check(paths: &Paths, config: &Result<Config, Failure>) -> HealthCheck {
    match config {
        Ok(config) if config.files.is_empty() => fine("config", "no config file: defaults apply"),
        Ok(_) => fine("config", tilde(&paths.config_file)),
        Err(Failure::Error(error)) => {
            let edit = format!("edit {}", tilde(&paths.config_file));
            check(
                "config",
                HealthLevel::Critical,
                error.message.clone(),
                Some(error.hint.clone().unwrap_or(edit)),
            )
        }
        Err(_) => check("config", HealthLevel::Unknown, "cannot be read", None),
    }
}

/// The data directory: there or possible, ours, closed to others.
fn data_check(paths: &Paths) -> HealthCheck {
    let dir = &paths.data_dir;
    let metadata = match dir.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return fine("data", format!("{} (made at the first start)", tilde(dir)));
        }
        Err(error) => return check("data", HealthLevel::Critical, format!("{}: {error}", tilde(dir)), None),
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        let hint = Some(format!("move it away: mv {0} {0}.old", dir.display()));
        return check("data", HealthLevel::Critical, format!("{} is no directory", tilde(dir)), hint);
    }
    if metadata.uid() != paths.uid() {
        let hint = Some(format!("chown -R {} {}", paths.uid(), dir.display()));
        let message = format!("{} belongs to user {}", tilde(dir), metadata.uid());
        return check("data", HealthLevel::Critical, message, hint);
    }
    if metadata.mode() & OTHERS_SEE != 0 {
        let hint = Some(format!("chmod 700 {}", dir.display()));
        return check("data", HealthLevel::Warning, format!("{} is open to others", tilde(dir)), hint);
    }
    fine("data", tilde(dir))
}

fn key_check(session: &Session, paths: &Paths) -> HealthCheck {
    if paths.key_file().symlink_metadata().is_err() {
        return fine("key", "none yet (made at the first start)");
    }
    match files::read_key(paths, &session.program()) {
        Ok(key) => {
            fine("key", format!("..{}   {} (mode 0600)", key.node_id().short(), tilde(&paths.key_file())))
        }
        Err(Failure::Error(error)) => {
            check("key", HealthLevel::Critical, error.message.clone(), error.hint.clone())
        }
        Err(_) => check("key", HealthLevel::Unknown, "cannot be read", None),
    }
}

fn format_check(paths: &Paths) -> HealthCheck {
    let file = paths.data_dir.join("VERSION");
    match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => fine("format", "no data yet"),
        Err(error) => check("format", HealthLevel::Critical, format!("{}: {error}", tilde(&file)), None),
        Ok(text) => {
            let found = text.split_whitespace().next().unwrap_or_default();
            if found == DATA_FORMAT.to_string() {
                fine("format", format!("version {found}"))
            } else {
                let message =
                    format!("the data has format {}, this program knows {DATA_FORMAT}", tame(found));
                check(
                    "format",
                    HealthLevel::Critical,
                    message,
                    Some("use the wattle that wrote it".to_owned()),
                )
            }
        }
    }
}

/// The directory of the socket. Nothing is made here: only what is there can be wrong.
fn runtime_check(paths: &Paths) -> HealthCheck {
    let dir = &paths.runtime_dir;
    match dir.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fine("runtime", format!("{} (made at the start)", tilde(dir)))
        }
        Err(error) => check("runtime", HealthLevel::Critical, format!("{}: {error}", tilde(dir)), None),
        Ok(metadata)
            if metadata.uid() != paths.uid() || metadata.mode() & OTHERS_SEE != 0 || !metadata.is_dir() =>
        {
            let hint = Some(format!("rm -r {}", dir.display()));
            check("runtime", HealthLevel::Critical, format!("{} is not yours alone", tilde(dir)), hint)
        }
        Ok(_) => fine("runtime", tilde(dir)),
    }
}

fn socket_check(session: &Session, paths: &Paths, error: Option<&Failure>) -> HealthCheck {
    let owner = wattle_store::read_owner(&paths.data_dir);
    match (error, owner) {
        (None, owner) => {
            let pid = owner.map(|owner| format!(" (pid {})", owner.pid)).unwrap_or_default();
            fine("socket", format!("the node answers{pid}"))
        }
        (Some(_), Some(owner)) => {
            let message = format!("a process holds the data (pid {}) but its API does not answer", owner.pid);
            check("socket", HealthLevel::Critical, message, Some(format!("kill {}", owner.pid)))
        }
        (Some(_), None) => {
            fine("socket", format!("the node is not running   (start it: {} run)", session.program()))
        }
    }
}

/// Whether the configured ports can be had; those of our own running node are taken by it.
fn port_checks(config: &Config, running: bool) -> Vec<HealthCheck> {
    let mut checks = Vec::new();
    for address in &config.settings.listen {
        let (Some(ip), Some(port)) = (address.ip(), address.port()) else { continue };
        let name = if address.is_tcp() { "tcp" } else { "udp" };
        let bound = if address.is_tcp() {
            TcpListener::bind((ip, port)).map(drop)
        } else {
            UdpSocket::bind((ip, port)).map(drop)
        };
        checks.push(match bound {
            Ok(()) => fine("port", format!("{name}/{port} is free")),
            Err(_) if running => fine("port", format!("{name}/{port} is in use (this node runs)")),
            Err(error) if config.settings.listen_is_default => {
                fine("port", format!("{name}/{port}: {error}; the next free one is taken"))
            }
            Err(error) => {
                let hint = Some("free it, or choose another: wattle config set p2p.listen ...".to_owned());
                check("port", HealthLevel::Critical, format!("{name}/{port}: {error}"), hint)
            }
        });
    }
    checks
}

/// Whether this machine can send to the group of multicast DNS at all. That somebody hears it is another
/// question.
fn multicast_check() -> HealthCheck {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let tried = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        // The header of a query with no questions: no responder answers it.
        socket.send_to(&[0; 12], (group, 5353))
    });
    match tried {
        Ok(_) => fine("multicast", "can be sent (who hears it: wattle status)"),
        Err(error) => {
            let hint = Some("no LAN discovery here: use a ticket (wattle invite, wattle join)".to_owned());
            check("multicast", HealthLevel::Warning, error.to_string(), hint)
        }
    }
}

/// Tickets and records have times in them: a clock in another year makes all of them void.
fn clock_check() -> HealthCheck {
    let now = Timestamp::now();
    if now.as_second() < BUILT_AFTER {
        let hint = Some("set it: timedatectl set-ntp true".to_owned());
        return check(
            "clock",
            HealthLevel::Critical,
            format!("{now} is before this program was written"),
            hint,
        );
    }
    fine("clock", now.to_string())
}

fn write_bundle(
    session: &Session,
    file: &Path,
    doctor: DoctorDocument,
    config: Option<Config>,
) -> Result<(), Failure> {
    let mut config = config.map(|config| config.document(None));
    for value in config.iter_mut().flat_map(|config| &mut config.values) {
        // An address of a collector may carry a password.
        if value.key == "telemetry.otlp_endpoint" && value.value != "" {
            value.value = "(hidden)".into();
        }
    }
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let bundle = BundleDocument { schema: BundleSchema::V1, ts: Timestamp::now(), system, doctor, config };
    let text = serde_json::to_vec_pretty(&bundle)
        .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot write JSON: {error}")))?;
    wattle_store::write_atomically(file, &text, 0o600).map_err(|error| of_io("write", file, &error))?;
    session.out.note(&format!(
        "wrote {}: no keys and no tokens; addresses and peer ids are in it, read it before you send it",
        file.display()
    ));
    Ok(())
}
