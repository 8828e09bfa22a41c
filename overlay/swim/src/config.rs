//! What the machine is told at its start.

use std::time::Duration;

use wattle_types::{NetworkName, NodeId, SecretKey, UnixTime};

use crate::claim::{Description, InvalidDescription};

/// Members that are remembered, whatever became of them. Beyond it the one that left or failed longest ago is
/// forgotten, and if all are alive a newcomer is not let in: 16 384 members take 16 MB.
pub const MEMBERS_MAX: usize = 16_384;

/// How fast things happen. The profiles are made to fit together; a change of one is held to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One member is probed each period (SWIM, section 4.1). Longer while this node itself does badly.
    pub period: Duration,
    /// How long a probed member has, when nothing is known of its round trips.
    pub direct_timeout: Duration,
    /// How long it has at the least: three times its slowest round trip is what it has.
    pub direct_timeout_min: Duration,
    /// How long the ping over an established connection has. It is tried twice within it by TCP.
    pub fallback_timeout: Duration,
    /// Members asked to probe in this node's place.
    pub helpers: usize,
    /// The shortest suspicion is this times the decimal logarithm of the members, of at least 13.
    pub suspicion: Duration,
    /// How often waiting rumours are told without being asked.
    pub gossip_every: Duration,
    /// How many members are told each time.
    pub gossip_fanout: usize,
    /// How often a faulty member is tried again.
    pub announce_every: Duration,
    /// How often tables are compared with another member.
    pub sync_every: Duration,
    /// How often one who is alone, or just came, asks members it remembers.
    pub join_every: Duration,
    /// How long a member that was remembered from before a restart is not accused.
    pub restart_grace: Duration,
    /// How often what changed is written to disk.
    pub flush_every: Duration,
    /// How long a member that left or failed is remembered.
    pub tombstone: Duration,
    /// What protects the group from members that do badly; off only to measure what it is worth.
    pub lifeguard: Lifeguard,
}

/// The parts of Lifeguard, each with the name its paper has for it, and the ping over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifeguard {
    /// Local Health Aware Probe: a node that does badly probes less and waits longer.
    pub probe: bool,
    /// Local Health Aware Suspicion: few accusers make a long suspicion.
    pub suspicion: bool,
    /// Buddy System: a probe tells the suspect that it is one.
    pub buddy: bool,
    /// A ping over an established connection before a member is accused.
    pub fallback: bool,
    /// A last ping before a member is faulty.
    pub last_chance: bool,
}

impl Lifeguard {
    /// Everything.
    pub const ON: Self =
        Self { probe: true, suspicion: true, buddy: true, fallback: true, last_chance: true };

    /// SWIM with suspicion as its paper has it.
    pub const OFF: Self =
        Self { probe: false, suspicion: false, buddy: false, fallback: false, last_chance: false };
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Timing {
    /// One building: round trips of milliseconds.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            period: millis(1000),
            direct_timeout: millis(400),
            direct_timeout_min: millis(50),
            fallback_timeout: millis(600),
            helpers: 3,
            suspicion: millis(2700),
            gossip_every: millis(200),
            gossip_fanout: 3,
            announce_every: millis(5_000),
            sync_every: millis(30_000),
            join_every: millis(1000),
            restart_grace: millis(10_000),
            flush_every: millis(500),
            tombstone: Duration::from_secs(24 * 60 * 60),
            lifeguard: Lifeguard::ON,
        }
    }

    /// One building whose machines are never paused for long: a suspicion takes three quarters of the time.
    #[must_use]
    pub const fn fast() -> Self {
        Self { suspicion: millis(2000), fallback_timeout: millis(500), ..Self::lan() }
    }

    /// The internet.
    #[must_use]
    pub const fn wan() -> Self {
        Self {
            period: millis(3000),
            direct_timeout: millis(1500),
            direct_timeout_min: millis(150),
            fallback_timeout: millis(2000),
            suspicion: millis(15_000),
            gossip_every: millis(500),
            gossip_fanout: 4,
            announce_every: millis(15_000),
            sync_every: millis(60_000),
            restart_grace: millis(30_000),
            ..Self::lan()
        }
    }

    /// As on a LAN; a simulation asks for it by its own name so that it can be told apart.
    #[must_use]
    pub const fn sim() -> Self {
        Self::lan()
    }

    /// Holds the times to each other.
    const fn check(&self) -> Result<(), InvalidConfig> {
        let rules = [
            (self.period.as_millis() >= 10, "the period is at least 10 ms"),
            (self.direct_timeout_min.as_millis() >= 1, "the shortest timeout is at least 1 ms"),
            (
                self.direct_timeout_min.as_micros() <= self.direct_timeout.as_micros(),
                "the shortest timeout is no longer than the one without samples",
            ),
            (
                self.direct_timeout.as_micros() * 2 <= self.period.as_micros(),
                "the timeout of a probe fits twice into the period",
            ),
            (
                self.fallback_timeout.as_micros() < self.period.as_micros(),
                "the ping over a connection ends within the period",
            ),
            (self.helpers <= 8, "at most 8 members help to probe"),
            (
                self.suspicion.as_micros() >= self.period.as_micros()
                    && self.suspicion.as_micros() <= self.period.as_micros() * 100,
                "the shortest suspicion is 1 to 100 periods",
            ),
            (self.gossip_every.as_millis() >= 10, "gossip waits at least 10 ms"),
            (self.gossip_fanout >= 1 && self.gossip_fanout <= 16, "gossip tells 1 to 16 members"),
            (
                self.announce_every.as_micros() >= self.gossip_every.as_micros(),
                "faulty members are not tried more often than gossip goes",
            ),
            (
                self.sync_every.as_micros() >= self.period.as_micros(),
                "tables are not compared more often than members are probed",
            ),
            (self.join_every.as_millis() >= 100, "asking to join waits at least 100 ms"),
            (self.flush_every.as_millis() >= 1, "writing waits at least 1 ms"),
            (
                self.tombstone.as_micros() >= self.sync_every.as_micros() * 10,
                "a member that left is remembered for at least ten comparisons",
            ),
        ];
        let mut at = 0;
        while at < rules.len() {
            if !rules[at].0 {
                return Err(InvalidConfig::Timing(rules[at].1));
            }
            at += 1;
        }
        Ok(())
    }
}

/// Why a machine cannot begin with a configuration. The caller's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Two times do not fit together.
    #[error("the times do not fit together: {0}")]
    Timing(&'static str),
    /// The description of this node is over a limit.
    #[error(transparent)]
    Description(#[from] InvalidDescription),
    /// No members could be remembered.
    #[error("at least 1 and at most {MEMBERS_MAX} members can be remembered, not {0}")]
    Members(usize),
}

/// What the machine is told at its start. Made by [`Config::new`] alone.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) key: SecretKey,
    pub(crate) network: NetworkName,
    pub(crate) seed: [u8; 32],
    pub(crate) started: UnixTime,
    pub(crate) description: Description,
    pub(crate) seeds: Vec<NodeId>,
    pub(crate) timing: Timing,
    pub(crate) members_max: usize,
}

impl Config {
    /// A configuration whose parts fit together. `key` signs this node's claims, `seed` is the only source of
    /// randomness, `started` the wall clock when [`wattle_types::Time`] was zero. It cannot be read back: the
    /// key stays in.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the rule that is broken.
    pub fn new(
        key: SecretKey,
        network: NetworkName,
        seed: [u8; 32],
        started: UnixTime,
        description: Description,
        timing: Timing,
    ) -> Result<Self, InvalidConfig> {
        timing.check()?;
        description.check()?;
        let (seeds, members_max) = (Vec::new(), MEMBERS_MAX);
        Ok(Self { key, network, seed, started, description, seeds, timing, members_max })
    }

    /// With members to ask at first, beside those that are remembered. At most 64 are taken.
    #[must_use]
    pub fn with_seeds(mut self, seeds: impl IntoIterator<Item = NodeId>) -> Self {
        let me = self.key.node_id();
        self.seeds = seeds.into_iter().filter(|seed| *seed != me).take(crate::swim::SEEDS_MAX).collect();
        self
    }

    /// With a smaller table than [`MEMBERS_MAX`].
    ///
    /// # Errors
    /// [`InvalidConfig::Members`] if it is none, or larger.
    pub fn with_members_max(mut self, members_max: usize) -> Result<Self, InvalidConfig> {
        if members_max == 0 || members_max > MEMBERS_MAX {
            return Err(InvalidConfig::Members(members_max));
        }
        self.members_max = members_max;
        Ok(self)
    }
}
