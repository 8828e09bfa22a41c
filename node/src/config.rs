//! What a node is told to do: one TOML file, checked to the last key before anything starts.
//!
//! A value comes from the strongest place that has it: flags, then `WATTLE_*` in the environment, then the
//! node's file, then `/etc/wattle/config.toml`, then the defaults. Every value remembers its origin. Unknown
//! keys and wrong values are errors that name file, line and column; nothing is ever guessed.

mod keys;
mod layers;
mod problem;
mod settings;

pub(crate) use keys::nearest;
pub use keys::{KEYS, Key, Kind, defaults_toml};
pub use layers::{Override, Sources, Value};
pub use problem::{Origin, Problem, Problems};
pub use settings::{ApiListen, ApiSettings, LogFormat, Settings, TelemetrySettings};

use std::path::PathBuf;

use crate::api::documents::{ConfigDocument, ConfigSchema, ConfigValue};

/// The variables of this process's environment that are text; what is none cannot be meant for us.
#[must_use]
pub fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A checked configuration: what it means, and where each value comes from.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it means.
    pub settings: Settings,
    /// Every key in the order of [`KEYS`], with its value and origin.
    pub values: Vec<(&'static Key, Value, Origin)>,
    /// The files that were there to read, strongest last.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Reads and checks every source.
    ///
    /// # Errors
    /// [`Problems`]: all that is wrong, not only the first.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Problems> {
        let layered = layers::read(sources)?;
        let settings = Settings::new(&layered.values)?;
        let values = KEYS
            .iter()
            .filter_map(|key| {
                layered.values.get(key.name).map(|(value, origin)| (key, value.clone(), origin.clone()))
            })
            .collect();
        Ok(Self { settings, values, files: layered.files })
    }

    /// The configuration as a document, or only the part below `prefix`.
    #[must_use]
    pub fn document(&self, prefix: Option<&str>) -> ConfigDocument {
        let wanted = |name: &str| {
            prefix.is_none_or(|prefix| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        ConfigDocument {
            schema: ConfigSchema::V1,
            files: self.files.iter().map(|file| file.display().to_string()).collect(),
            values: (self.values.iter())
                .filter(|(key, _, _)| wanted(key.name))
                .map(|(key, value, origin)| ConfigValue {
                    key: key.name.to_owned(),
                    value: value.to_json(),
                    origin: origin.to_string(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
