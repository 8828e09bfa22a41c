//! Reads the sources one over the other, and keeps for every value where it came from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml_edit::{Document, Item};

use super::keys::{KEYS, Key, Kind, nearest, section_names};
use super::problem::{Origin, Problem, Problems};

/// Environment variables of other meaning that share the prefix.
const OTHER_VARIABLES: &[&str] = &["WATTLE_NODE", "WATTLE_HOME", "WATTLE_API", "WATTLE_LOG"];

/// The places a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// Files, weakest first. One that does not exist says nothing.
    pub files: Vec<&'a Path>,
    /// The text of a file that is not written yet, over the others.
    pub draft: Option<(&'a Path, &'a str)>,
    /// The environment: every variable, those of others are ignored.
    pub variables: Vec<(String, String)>,
    /// What flags say.
    pub overrides: Vec<Override>,
}

/// What a flag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Which key, such as `p2p.listen`.
    pub key: &'static str,
    /// Its value, or the values of a list.
    pub values: Vec<String>,
    /// The flag, such as `--listen`.
    pub flag: &'static str,
}

/// A value of a known kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A text.
    Text(String),
    /// A whole number from 1.
    Count(u64),
    /// A span of time.
    Duration(Duration),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of user ids.
    Uids(Vec<u32>),
}

impl Value {
    /// The value in JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Text(value) => value.clone().into(),
            Self::Count(value) => (*value).into(),
            Self::Duration(value) => show_duration(*value).into(),
            Self::Texts(values) => values.clone().into(),
            Self::Uids(values) => values.clone().into(),
        }
    }

    /// The value as it would stand in the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.to_json().to_string()
    }

    /// Reads a value as it stands in an environment variable or after a flag: lists are separated by commas.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let expected = || kind.expected();
        match kind {
            Kind::Bool => text.parse().map(Self::Bool).ok().ok_or_else(expected),
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(_) => Err(expected()),
            Kind::Count => text.parse().ok().filter(|n| *n > 0).map(Self::Count).ok_or_else(expected),
            Kind::Duration => parse_duration(text).map(Self::Duration).ok_or_else(expected),
            Kind::Texts => Ok(Self::Texts(list(text).map(str::to_owned).collect())),
            Kind::Uids => {
                let uids: Result<_, _> = list(text).map(str::parse).collect();
                uids.map(Self::Uids).ok().ok_or_else(expected)
            }
        }
    }

    fn of_toml(kind: Kind, value: &toml_edit::Value) -> Result<Self, String> {
        let expected = || format!("{}, not {}", kind.expected(), value.type_name());
        match kind {
            Kind::Bool => value.as_bool().map(Self::Bool).ok_or_else(expected),
            Kind::Text | Kind::Choice(_) | Kind::Duration => {
                let text = value.as_str().ok_or_else(expected)?;
                Self::parse(kind, text).map_err(|expected| format!("{expected}, not \"{text}\""))
            }
            Kind::Count => {
                let number = value.as_integer().ok_or_else(expected)?;
                let count = u64::try_from(number).ok().filter(|count| *count > 0);
                count.map(Self::Count).ok_or_else(|| format!("{}, not {number}", kind.expected()))
            }
            Kind::Texts => {
                let texts = value.as_array().map(|array| {
                    array.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()
                });
                texts.flatten().map(Self::Texts).ok_or_else(|| kind.expected())
            }
            Kind::Uids => {
                let uids = value.as_array().map(|array| {
                    let uid = |item: &toml_edit::Value| u32::try_from(item.as_integer()?).ok();
                    array.iter().map(uid).collect::<Option<_>>()
                });
                uids.flatten().map(Self::Uids).ok_or_else(|| kind.expected())
            }
        }
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Reads `500ms`, `20s`, `5m`, `24h`, `7d` and combinations such as `1h30m`; nothing negative.
#[must_use]
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.parse().ok()?;
        return days.checked_mul(24 * 60 * 60).map(Duration::from_secs);
    }
    let bare =
        text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_lowercase());
    let span: SignedDuration = bare.then(|| text.parse().ok()).flatten()?;
    Duration::try_from(span).ok()
}

fn show_duration(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

pub(super) type Values = BTreeMap<&'static str, (Value, Origin)>;

pub(super) struct Layered {
    pub(super) values: Values,
    pub(super) files: Vec<PathBuf>,
}

/// Reads every source, strongest last.
pub(super) fn read(sources: &Sources<'_>) -> Result<Layered, Problems> {
    let mut layered = Layered { values: Values::new(), files: Vec::new() };
    let mut problems = Vec::new();
    for key in KEYS {
        let (value, _) = default_of(key);
        layered.values.insert(key.name, (value, Origin::Default));
    }
    for path in &sources.files {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                layered.files.push((*path).to_owned());
                read_file(path, &text, &mut layered.values, &mut problems);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => problems.push(Problem {
                message: format!("cannot read the file ({error})"),
                origin: Origin::File { path: (*path).to_owned(), line: 1, column: 1 },
                hint: None,
            }),
        }
    }
    if let Some((path, text)) = sources.draft {
        layered.files.push(path.to_owned());
        read_file(path, text, &mut layered.values, &mut problems);
    }
    read_variables(&sources.variables, &mut layered.values, &mut problems);
    read_overrides(&sources.overrides, &mut layered.values, &mut problems);
    if problems.is_empty() { Ok(layered) } else { Err(Problems(problems)) }
}

fn default_of(key: &Key) -> (Value, Origin) {
    let parsed = key.default.parse::<toml_edit::Value>().ok();
    let value = parsed.and_then(|value| Value::of_toml(key.kind, &value).ok());
    (value.expect("every default in KEYS is of its kind: a test reads them all"), Origin::Default)
}

struct FileReader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl FileReader<'_> {
    fn origin(&self, span: Option<Range<usize>>) -> Origin {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn problem(&self, message: String, span: Option<Range<usize>>, hint: Option<String>) -> Problem {
        Problem { message, origin: self.origin(span), hint }
    }
}

fn read_file(path: &Path, text: &str, values: &mut Values, problems: &mut Vec<Problem>) {
    let file = FileReader { path, text };
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            problems.push(file.problem(error.message().replace('\n', ": "), error.span(), None));
            return;
        }
    };
    for (section, item) in document.iter() {
        let span = document.key(section).and_then(toml_edit::Key::span);
        if !section_names().any(|name| name == section) {
            let hint = nearest(section, section_names()).map(|name| format!("did you mean `[{name}]`?"));
            problems.push(file.problem(format!("unknown section `{section}`"), span, hint));
            continue;
        }
        let Some(table) = item.as_table_like() else {
            let message = format!("`{section}` is a section: write [{section}] and its keys below it");
            problems.push(file.problem(message, span, None));
            continue;
        };
        for (name, item) in table.iter() {
            let name = format!("{section}.{name}");
            let span = table.key(name.rsplit('.').next().unwrap_or_default()).and_then(toml_edit::Key::span);
            read_item(&file, &name, item, span, values, problems);
        }
    }
}

fn read_item(
    file: &FileReader<'_>,
    name: &str,
    item: &Item,
    span: Option<Range<usize>>,
    values: &mut Values,
    problems: &mut Vec<Problem>,
) {
    let Some(key) = Key::named(name) else {
        let hint = Key::nearest(name).map(|nearest| format!("did you mean `{nearest}`?"));
        problems.push(file.problem(format!("unknown key `{name}`"), span, hint));
        return;
    };
    let value = item.as_value().ok_or_else(|| key.kind.expected());
    match value.and_then(|value| Value::of_toml(key.kind, value)) {
        Ok(value) => {
            values.insert(key.name, (value, file.origin(span)));
        }
        Err(expected) => {
            let at = item.span().or(span);
            problems.push(file.problem(format!("`{name}` must be {expected},"), at, None));
        }
    }
}

fn read_variables(variables: &[(String, String)], values: &mut Values, problems: &mut Vec<Problem>) {
    let mut sorted: Vec<_> = variables.iter().filter(|(name, _)| name.starts_with("WATTLE_")).collect();
    sorted.sort();
    // The short name is weaker than the full one, so it goes first.
    for (name, text) in variables.iter().filter(|(name, _)| name == "WATTLE_LOG") {
        values.insert("log.level", (Value::Text(text.clone()), Origin::Variable(name.clone())));
    }
    for (name, text) in sorted {
        let origin = Origin::Variable(name.clone());
        let Some(key) = KEYS.iter().find(|key| key.variable() == *name) else {
            let of_section = section_names()
                .any(|section| name.starts_with(&format!("WATTLE_{}_", section.to_ascii_uppercase())));
            if of_section && !OTHER_VARIABLES.contains(&name.as_str()) {
                let names: Vec<String> = KEYS.iter().map(Key::variable).collect();
                let near = nearest(name, names.iter().map(String::as_str));
                problems.push(Problem {
                    message: format!("unknown variable `{name}`"),
                    origin,
                    hint: near.map(|near| format!("did you mean `{near}`?")),
                });
            }
            continue;
        };
        match Value::parse(key.kind, text) {
            Ok(value) => {
                values.insert(key.name, (value, origin));
            }
            Err(expected) => problems.push(wrong(key, &expected, text, origin)),
        }
    }
}

fn read_overrides(overrides: &[Override], values: &mut Values, problems: &mut Vec<Problem>) {
    for Override { key: name, values: given, flag } in overrides {
        let origin = Origin::Flag((*flag).to_owned());
        let Some(key) = Key::named(name) else {
            problems.push(Problem { message: format!("unknown key `{name}`"), origin, hint: None });
            continue;
        };
        let value = match key.kind {
            Kind::Texts => Ok(Value::Texts(given.clone())),
            kind => Value::parse(kind, given.last().map_or("", String::as_str)),
        };
        match value {
            Ok(value) => {
                values.insert(key.name, (value, origin));
            }
            Err(expected) => problems.push(wrong(key, &expected, &given.join(","), origin)),
        }
    }
}

fn wrong(key: &Key, expected: &str, got: &str, origin: Origin) -> Problem {
    Problem { message: format!("`{}` must be {expected}, not \"{got}\",", key.name), origin, hint: None }
}
