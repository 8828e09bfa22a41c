//! Who votes in an epoch, with what weight, and what counts as enough.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wattle_types::{NetworkName, NodeId, UnixTime};

use crate::block::Executed;
use crate::ids::{BlockId, ChainId, Digest, Epoch, Height, Seat, hash};
use crate::limits::{VALIDATORS_MAX, VALIDATORS_MIN, WEIGHT_MAX};

/// One who votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Validator {
    /// Its key.
    pub id: NodeId,
    /// What its vote counts.
    pub weight: u64,
}

/// Those who vote, in the order of their ids: at least four, and none has more than a third of the weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Validator>", into = "Vec<Validator>")]
pub struct Validators {
    list: Vec<Validator>,
    total: u64,
}

/// Why a list is no set of validators. Caller error; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValidators {
    /// Too few or too many.
    #[error(
        "{0} validators; there are {VALIDATORS_MIN} to {VALIDATORS_MAX}, because fewer cannot bear a liar"
    )]
    Count(usize),
    /// One stands there twice, or the list is not in the order of ids.
    #[error("the list is not in the order of ids, each once: see {0}")]
    Order(NodeId),
    /// Its signatures would prove nothing.
    #[error("the key of {0} cannot sign")]
    Key(NodeId),
    /// Zero, or so large that one alone can stop or steer the log.
    #[error("{id} has {weight} of {total}; a weight is at least 1 and at most a third of all")]
    Weight {
        /// Whose.
        id: NodeId,
        /// Its weight.
        weight: u64,
        /// The sum of all.
        total: u64,
    },
}

impl Validators {
    /// A set from its members in any order.
    ///
    /// # Errors
    /// [`InvalidValidators`] when they are too few, or one is too heavy, twice there, or has a key that cannot sign.
    pub fn new(mut list: Vec<Validator>) -> Result<Self, InvalidValidators> {
        list.sort_unstable();
        Self::try_from(list)
    }

    /// All, by seat.
    #[must_use]
    pub fn list(&self) -> &[Validator] {
        &self.list
    }

    /// The hash that names the set.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(hash("wattle order validators v1", self))
    }
}

impl TryFrom<Vec<Validator>> for Validators {
    type Error = InvalidValidators;

    fn try_from(list: Vec<Validator>) -> Result<Self, InvalidValidators> {
        if !(VALIDATORS_MIN..=VALIDATORS_MAX).contains(&list.len()) {
            return Err(InvalidValidators::Count(list.len()));
        }
        if let Some(pair) = list.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            return Err(InvalidValidators::Order(pair[1].id));
        }
        if let Some(weak) = list.iter().find(|validator| !validator.id.can_sign()) {
            return Err(InvalidValidators::Key(weak.id));
        }
        let total = list.iter().fold(0u64, |sum, validator| sum.saturating_add(validator.weight));
        let wrong = |v: &&Validator| v.weight == 0 || total > WEIGHT_MAX || v.weight > total / 3;
        match list.iter().find(wrong) {
            Some(Validator { id, weight }) => {
                Err(InvalidValidators::Weight { id: *id, weight: *weight, total })
            }
            None => Ok(Self { list, total }),
        }
    }
}

impl From<Validators> for Vec<Validator> {
    fn from(validators: Validators) -> Self {
        validators.list
    }
}

/// What everybody must do alike. Part of the genesis, so of the chain id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The leaders of the first rounds of an epoch; after them it goes by turns.
    pub opening: Vec<Seat>,
    /// For how many committed blocks one that failed to lead is passed over; 0: never. A log in a hurry makes some
    /// hundred a second, and to try one that is down costs it two timeouts.
    pub skip_blocks: u64,
    /// So many blocks at the least lie between a block and the execution it vouches for.
    pub lag: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { opening: Vec::new(), skip_blocks: 10_000, lag: 8 }
    }
}

/// The beginning of a log. Whoever has it can check everything that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The overlay it belongs to.
    pub network: NetworkName,
    /// Who votes in the first epoch.
    pub validators: Validators,
    /// What everybody must do alike.
    pub rules: Rules,
    /// When it began; tells apart two logs of the same people.
    pub created: UnixTime,
}

impl Genesis {
    /// What names the log.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        ChainId::from_bytes(hash("wattle order chain v1", self))
    }
}

/// The committed block on which an epoch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The last block of the epoch before; for the first epoch the hash of the genesis.
    pub block: BlockId,
    /// Its height.
    pub height: Height,
    /// The execution it vouches for.
    pub executed: Executed,
    /// Its time.
    pub time: UnixTime,
}

/// One epoch: the log, who votes in it, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    network: NetworkName,
    chain: ChainId,
    rules: Rules,
    epoch: Epoch,
    validators: Validators,
    anchor: Anchor,
    seats: BTreeMap<NodeId, Seat>,
}

impl Committee {
    /// The first epoch of a log.
    #[must_use]
    pub fn genesis(genesis: &Genesis) -> Self {
        let chain = genesis.chain();
        let anchor = Anchor {
            block: BlockId::from_bytes(hash("wattle order genesis v1", &chain)),
            height: Height(0),
            executed: Executed::default(),
            time: genesis.created,
        };
        let Genesis { network, validators, rules, .. } = genesis.clone();
        Self::with(network, chain, rules, Epoch(1), validators, anchor)
    }

    /// The epoch behind this one.
    #[must_use]
    pub(crate) fn succeeded(&self, validators: Validators, anchor: Anchor) -> Self {
        let rules = Rules { opening: Vec::new(), ..self.rules.clone() };
        Self::with(self.network.clone(), self.chain, rules, self.epoch.next(), validators, anchor)
    }

    fn with(
        network: NetworkName,
        chain: ChainId,
        rules: Rules,
        epoch: Epoch,
        validators: Validators,
        anchor: Anchor,
    ) -> Self {
        let seats = validators.list.iter().zip(0..).map(|(validator, seat)| (validator.id, Seat(seat)));
        let seats = seats.collect();
        Self { network, chain, rules, epoch, validators, anchor, seats }
    }

    /// The overlay it belongs to.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The log.
    #[must_use]
    pub const fn chain(&self) -> ChainId {
        self.chain
    }

    /// What everybody must do alike.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Which epoch it is.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Who votes.
    #[must_use]
    pub const fn validators(&self) -> &Validators {
        &self.validators
    }

    /// Where it begins.
    #[must_use]
    pub const fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Where somebody sits, if it votes here.
    #[must_use]
    pub fn seat(&self, id: &NodeId) -> Option<Seat> {
        self.seats.get(id).copied()
    }

    /// Who sits there.
    #[must_use]
    pub fn id(&self, seat: Seat) -> Option<NodeId> {
        self.validators.list.get(seat.index()).map(|validator| validator.id)
    }

    /// What a seat's vote counts; nothing if nobody sits there.
    #[must_use]
    pub fn weight(&self, seat: Seat) -> u64 {
        self.validators.list.get(seat.index()).map_or(0, |validator| validator.weight)
    }

    /// The weight of all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.validators.total
    }

    /// Whether these make a quorum: more than two thirds, so that two quorums have an honest one in common. A seat
    /// counts once.
    #[must_use]
    pub fn is_quorum(&self, seats: impl IntoIterator<Item = Seat>) -> bool {
        self.sum(seats) * 3 > self.validators.total * 2
    }

    /// Whether one of these must be honest: more than a third (the papers' f + 1).
    #[must_use]
    pub fn has_honest(&self, seats: impl IntoIterator<Item = Seat>) -> bool {
        self.sum(seats) * 3 > self.validators.total
    }

    fn sum(&self, seats: impl IntoIterator<Item = Seat>) -> u64 {
        let distinct: std::collections::BTreeSet<Seat> = seats.into_iter().collect();
        distinct.into_iter().map(|seat| self.weight(seat)).sum()
    }

    /// Every seat.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        self.seats.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_types::SecretKey;

    fn validator(seed: u8, weight: u64) -> Validator {
        Validator { id: SecretKey::from_bytes(&[seed; 32]).node_id(), weight }
    }

    fn committee(weights: &[u64]) -> Committee {
        let list = weights.iter().zip(1..).map(|(weight, seed)| validator(seed, *weight)).collect();
        let validators = Validators::new(list).unwrap();
        let (network, created) = (NetworkName::default(), UnixTime::from_millis(1));
        Committee::genesis(&Genesis { network, validators, rules: Rules::default(), created })
    }

    #[test]
    fn a_set_in_which_one_could_stop_or_steer_the_log_is_refused() {
        let of = |weights: &[u64]| {
            Validators::new(weights.iter().zip(1..).map(|(weight, seed)| validator(seed, *weight)).collect())
        };
        assert_eq!(of(&[1, 1, 1]), Err(InvalidValidators::Count(3)));
        assert!(of(&[1, 1, 1, 1]).is_ok());
        assert!(of(&[2, 2, 1, 1]).is_ok(), "a third is allowed");
        assert!(matches!(of(&[3, 2, 2, 1]), Err(InvalidValidators::Weight { weight: 3, total: 8, .. })));
        assert!(matches!(of(&[1, 1, 1, 0]), Err(InvalidValidators::Weight { weight: 0, .. })));
        assert!(matches!(of(&[u64::MAX; 4]), Err(InvalidValidators::Weight { .. })));
        let twice = vec![validator(1, 1), validator(1, 1), validator(2, 1), validator(3, 1)];
        assert!(matches!(Validators::new(twice), Err(InvalidValidators::Order(_))));
        // The neutral element: anybody can make a signature of it.
        let mut one = [0; 32];
        one[0] = 1;
        let weak = Validator { id: NodeId::from_public_key(one), weight: 1 };
        let list = vec![weak, validator(1, 1), validator(2, 1), validator(3, 1)];
        assert_eq!(Validators::new(list), Err(InvalidValidators::Key(weak.id)));
        let mut unsorted: Vec<Validator> = of(&[1, 1, 1, 1]).unwrap().into();
        unsorted.reverse();
        assert!(matches!(Validators::try_from(unsorted), Err(InvalidValidators::Order(_))));
    }

    #[test]
    fn two_quorums_share_more_weight_than_may_lie_and_the_honest_alone_are_one() {
        // n, the least quorum, and the least count of which one is honest: written down, not computed.
        for (n, quorum, honest) in [(4, 3, 2), (5, 4, 2), (6, 5, 3), (7, 5, 3), (10, 7, 4), (100, 67, 34)] {
            let committee = committee(&vec![1; n]);
            let first = |count: u16| (0..count).map(Seat);
            assert!(committee.is_quorum(first(quorum)) && !committee.is_quorum(first(quorum - 1)), "{n}");
            assert!(committee.has_honest(first(honest)) && !committee.has_honest(first(honest - 1)), "{n}");
            // A seat counts once, and one where nobody sits not at all.
            assert!(!committee.is_quorum(std::iter::repeat_n(Seat(0), n)));
            assert!(!committee.is_quorum((0..200).map(|seat| Seat(seat + 200))));
        }
    }
}
