//! How every command and every API call can end: one code, one exit status, the same everywhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why something did not work, as a program reads it. The exit status of a command follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Anything not below.
    Failed,
    /// Bad arguments or a bad config file.
    Usage,
    /// The node does not run, or its API cannot be reached.
    NoNode,
    /// A key, peer, topic or entry does not exist, or nobody has it.
    NotFound,
    /// Stopped waiting.
    Timeout,
    /// Already exists, a lock is held, a port or directory is in use.
    Conflict,
    /// Not your socket, a bad token, not enough rights.
    Denied,
    /// The ordered log cannot commit now.
    NoQuorum,
    /// A signature, ticket, record or hash does not verify.
    Invalid,
    /// Some targets worked, some did not.
    Partial,
    /// Ctrl-C.
    Interrupted,
}

impl ErrorCode {
    /// Every code, in the order of its exit status.
    pub const ALL: [Self; 11] = [
        Self::Failed,
        Self::Usage,
        Self::NoNode,
        Self::NotFound,
        Self::Timeout,
        Self::Conflict,
        Self::Denied,
        Self::NoQuorum,
        Self::Invalid,
        Self::Partial,
        Self::Interrupted,
    ];

    /// The exit status of a command that ends so.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoNode => 3,
            Self::NotFound => 4,
            Self::Timeout => 5,
            Self::Conflict => 6,
            Self::Denied => 7,
            Self::NoQuorum => 8,
            Self::Invalid => 9,
            Self::Partial => 10,
            Self::Interrupted => 130,
        }
    }

    /// The code as it stands in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NoNode => "no_node",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::NoQuorum => "no_quorum",
            Self::Invalid => "invalid",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
        }
    }

    /// The HTTP status that carries it.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Failed | Self::Interrupted => 500,
            Self::Usage => 400,
            Self::NoNode | Self::NoQuorum => 503,
            Self::NotFound => 404,
            Self::Timeout => 504,
            Self::Conflict => 409,
            Self::Denied => 403,
            Self::Invalid => 422,
            Self::Partial => 207,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_spelled_in_json_as_it_is_named() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
