//! How far a member of the network is there, in the words that all layers share.

/// What membership says of a node, for those who talk with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It answers.
    Here,
    /// It is accused of not answering, and may still refute. Whoever talks with it goes on.
    Doubted,
    /// It answered nobody, this node neither. It may come back.
    Away,
    /// It said that it goes, or an operator said that it is gone for good.
    Gone,
}

impl Liveness {
    /// Whether it is worth trying to reach it.
    #[must_use]
    pub const fn is_near(self) -> bool {
        matches!(self, Self::Here | Self::Doubted)
    }
}
