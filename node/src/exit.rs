//! Exit codes: the same everywhere, part of the contract.

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Ok,
    /// Anything not below.
    Failed,
    /// Bad arguments or a bad config file.
    Usage,
    /// The node is not running, or its API cannot be reached.
    NoNode,
    /// A key, peer or entry does not exist, or nobody has it.
    NotFound,
    /// Stopped waiting.
    Timeout,
    /// Already exists, lock held, compare failed, port or directory in use.
    Conflict,
    /// Not your socket, bad token, not allowed.
    Denied,
    /// The ordered log cannot commit now.
    NoQuorum,
    /// A signature, receipt, ticket or hash does not verify.
    Invalid,
    /// Some targets worked, some did not.
    Partial,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Every one, in order of its number.
    pub const ALL: [Self; 12] = [
        Self::Ok,
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

    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
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
}

impl Exit {
    /// Its word, as errors carry it in `code`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
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
}
