//! Settings: see, test, change.

use clap::{Args, Subcommand};

use super::documents::{
    ConfigDefault, ConfigDefaultsDocument, ConfigDefaultsSchema, ConfigPathDocument, ConfigPathSchema,
    ConfigSetDocument, ConfigSetSchema,
};
use super::errors::Failure;
use super::files::{self, tilde};
use super::session::{Session, Shown};
use super::table::fill;
use crate::api::documents::{ConfigCheckDocument, ConfigCheckSchema};
use crate::config::{KEYS, defaults_toml};
use crate::paths::Paths;

/// See, test and change settings
#[derive(Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    Show(Show),
    Check(Check),
    Defaults(Defaults),
    Set(Set),
    Path(ConfigPath),
}

/// Show the settings in force
#[derive(Args)]
struct Show {
    /// One of them: p2p.listen
    key: Option<String>,
    /// Say where each comes from
    #[arg(long)]
    origin: bool,
}

/// Test the config file
#[derive(Args)]
struct Check {}

/// Print every key with its default and its meaning
#[derive(Args)]
struct Defaults {}

/// Change one setting in the config file
#[derive(Args)]
struct Set {
    /// Which: log.level
    key: String,
    /// A TOML value; a bare word is a string
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Print where the config file is
#[derive(Args)]
struct ConfigPath {}

pub(super) fn config(session: &Session, args: Config) -> Result<(), Failure> {
    let paths = session.paths()?;
    match args.command {
        ConfigCommand::Show(args) => show(session, &paths, &args),
        ConfigCommand::Check(_) => check(session, &paths),
        ConfigCommand::Defaults(_) => defaults(session),
        ConfigCommand::Set(args) => set(session, &paths, &args),
        ConfigCommand::Path(_) => path(session, &paths),
    }
}

fn show(session: &Session, paths: &Paths, args: &Show) -> Result<(), Failure> {
    let config = files::load_config(paths)?;
    let document = config.document(args.key.as_deref());
    if let Some(key) = &args.key
        && document.values.is_empty()
    {
        // A section or a key; anything else is a spelling to correct.
        files::known(key)?;
    }
    session.show_own(&document, |document| {
        let rows: Vec<(String, String)> = (document.values.iter())
            .map(|value| (format!("{} = {}", value.key, value.value), value.origin.clone()))
            .collect();
        let widest = rows.iter().map(|(row, _)| row.len()).max().unwrap_or_default().min(60);
        let text = rows.iter().map(|(row, origin)| {
            if args.origin { format!("{}   from {origin}\n", fill(row, widest)) } else { format!("{row}\n") }
        });
        let ids = document.values.iter().map(|value| match &value.value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Shown { text: text.collect(), ids: ids.collect() }
    })
}

fn check(session: &Session, paths: &Paths) -> Result<(), Failure> {
    let config = files::load_config(paths)?;
    let document = ConfigCheckDocument {
        schema: ConfigCheckSchema::V1,
        files: config.files.iter().map(|file| file.display().to_string()).collect(),
        problems: Vec::new(),
    };
    session.show_own(&document, |document| {
        let text = if document.files.is_empty() {
            format!("ok  no config file, defaults apply   (it would be {})\n", tilde(&paths.config_file))
        } else {
            format!("ok  {}\n", document.files.join(", "))
        };
        Shown { text, ids: document.files.clone() }
    })
}

fn defaults(session: &Session) -> Result<(), Failure> {
    if !session.out.json {
        return session.out.text(&defaults_toml());
    }
    let keys = KEYS.iter().map(|key| ConfigDefault {
        key: key.name.to_owned(),
        default: key.default.to_owned(),
        variable: key.variable(),
        comment: key.comment.to_owned(),
    });
    session.out.document(&ConfigDefaultsDocument { schema: ConfigDefaultsSchema::V1, keys: keys.collect() })
}

fn set(session: &Session, paths: &Paths, args: &Set) -> Result<(), Failure> {
    files::edit_config(paths, |edit| edit.set(&args.key, &args.value))?;
    let config = files::load_config(paths)?;
    let now = config.document(Some(&args.key)).values.into_iter().next();
    let value = now.as_ref().map(|now| now.value.clone()).unwrap_or_default();
    if let Some(now) = &now
        && (now.origin.starts_with("env") || now.origin.starts_with("flag"))
    {
        session.out.warn(&format!("{} is stronger: it stays {} until that is gone", now.origin, now.value));
    }
    let document = ConfigSetDocument {
        schema: ConfigSetSchema::V1,
        key: args.key.clone(),
        value,
        file: paths.config_file.display().to_string(),
    };
    session.show_own(&document, |document| Shown {
        text: format!(
            "{} = {}   in {}\n  takes effect at the next start of the node\n",
            document.key,
            document.value,
            tilde(&paths.config_file)
        ),
        ids: vec![document.key.clone()],
    })
}

fn path(session: &Session, paths: &Paths) -> Result<(), Failure> {
    let document = ConfigPathDocument {
        schema: ConfigPathSchema::V1,
        file: paths.config_file.display().to_string(),
        exists: paths.config_file.exists(),
        system_file: paths.system_config_file.as_ref().map(|file| file.display().to_string()),
    };
    session.show_own(&document, |document| {
        let absent = if document.exists { "" } else { "   (absent: defaults apply)" };
        Shown { text: format!("{}{absent}\n", document.file), ids: vec![document.file.clone()] }
    })
}
