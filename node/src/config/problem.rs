//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong. The fault of whoever wrote it there; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// Where.
    pub origin: Origin,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.message, self.origin)
    }
}

impl Problem {
    /// The problem as a document.
    #[must_use]
    pub fn document(&self) -> ErrorDocument {
        let document = ErrorDocument::new(ErrorCode::Usage, self.to_string());
        match &self.hint {
            Some(hint) => document.hint(hint.clone()).detail("", hint.clone()),
            None => document,
        }
    }
}

/// Everything that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Problems {
    /// All of them as one document: the first in full, the others as rows.
    #[must_use]
    pub fn document(&self) -> ErrorDocument {
        let mut problems = self.0.iter();
        let mut document = match problems.next() {
            Some(first) => first.document(),
            None => ErrorDocument::new(ErrorCode::Usage, "the configuration is not valid"),
        };
        for problem in problems {
            document = document.detail("also", problem.to_string());
        }
        document
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
