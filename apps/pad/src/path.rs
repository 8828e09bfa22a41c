//! The path to a value in a document, as people type it.

use std::fmt;
use std::str::FromStr;

use wattle_types::limits::{DOCUMENT_DEPTH_MAX, DOCUMENT_PATH_BYTES_MAX};

use crate::PadError;
use crate::error::cut_path;

/// One step from a map or list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `.name` or `["any name"]`: a field of a map. In a list, a name of digits is an index.
    Key(String),
    /// `[3]`: an element of a list.
    Index(usize),
}

/// Where a value is: `a.b[3].c`, `a.b.3.c`, `people["Ada L."].age`. The empty path is the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// The steps, from the root.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// This path, one step longer.
    #[must_use]
    pub fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The first `steps` steps.
    pub(crate) fn start(&self, steps: usize) -> Self {
        Self(self.0.iter().take(steps).cloned().collect())
    }
}

impl FromStr for Path {
    type Err = PadError;

    fn from_str(text: &str) -> Result<Self, PadError> {
        let invalid = |why| PadError::InvalidPath { path: cut_path(text), why };
        if text.len() > DOCUMENT_PATH_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside).map_err(invalid)?,
                None if steps.is_empty() => word(rest).map_err(invalid)?,
                None => word(rest.strip_prefix('.').ok_or_else(|| invalid("a dot is missing"))?)
                    .map_err(invalid)?,
            };
            steps.push(step);
            rest = after;
        }
        if steps.len() > DOCUMENT_DEPTH_MAX { Err(invalid("it has too many steps")) } else { Ok(Self(steps)) }
    }
}

/// A name up to the next `.` or `[`.
fn word(text: &str) -> Result<(Step, &str), &'static str> {
    let (word, rest) = text.split_at(text.find(['.', '[']).unwrap_or(text.len()));
    if word.is_empty() {
        Err("a name is missing")
    } else if word.contains([']', '"']) {
        Err("a name with ], [, . or \" is written [\"like this\"]")
    } else {
        Ok((Step::Key(word.to_owned()), rest))
    }
}

/// What stands between brackets: a number, or a name in JSON's quotes.
fn bracket(inside: &str) -> Result<(Step, &str), &'static str> {
    if !inside.starts_with('"') {
        let (number, rest) = inside.split_once(']').ok_or("a ] is missing")?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let index = number.parse().ok().filter(|_| digits);
        return Ok((Step::Index(index.ok_or("between [ and ] is a number or a name in \"quotes\"")?), rest));
    }
    // The stream stops behind the closing quote, wherever escapes put it.
    let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
    let name = names.next().and_then(Result::ok).ok_or("the quotes are not closed")?;
    let rest = inside.get(names.byte_offset()..).and_then(|rest| rest.strip_prefix(']'));
    Ok((Step::Key(name), rest.ok_or("a ] is missing")?))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(at) => write!(f, "[{at}]")?,
                Step::Key(key) if is_plain(key) && index == 0 => f.write_str(key)?,
                Step::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "[{}]", serde_json::Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}
