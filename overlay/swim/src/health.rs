//! How well this node itself does (Lifeguard, section IV-A: Local Health Multiplier).

/// The highest score. A node at it probes at an eighth of the pace.
pub const HEALTH_SCORE_MAX: u32 = 7;

/// Zero is well; up for own failures, down for what works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health(u32);

impl Health {
    pub(crate) const fn score(self) -> u32 {
        self.0
    }

    /// What periods and timeouts are multiplied by.
    pub(crate) const fn multiplier(self) -> u32 {
        self.0 + 1
    }

    pub(crate) fn worse(&mut self, by: u32) {
        self.0 = self.0.saturating_add(by).min(HEALTH_SCORE_MAX);
    }

    pub(crate) const fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// How many of the probes that are answered are not answered by their first packet: the average of the last 16 or so,
/// in 1024ths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(u32);

impl Losses {
    /// A probe was answered; its first packet, or the answer to that, was lost or not.
    pub(crate) const fn note(&mut self, lost: bool) {
        self.0 = self.0 - self.0 / 16 + if lost { 64 } else { 0 };
    }

    /// Whether it is more than one of eight.
    pub(crate) const fn are_many(self) -> bool {
        self.0 > 128
    }
}
