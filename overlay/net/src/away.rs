//! Whom membership holds for away: they are dialed seldom, so that dead nodes cost little and a living one that was
//! held for dead is found again.

use std::collections::BTreeMap;
use std::time::Duration;

use wattle_types::{Liveness, NodeId, Time};

/// Peers that are remembered as away; who is beyond is dialed as any other.
const AWAY_MAX: usize = 4096;
/// How long who is away is not dialed at first, and between two dials after that.
const AWAY_PAUSE: Duration = Duration::from_secs(30);
const AWAY_EVERY: Duration = Duration::from_secs(65);
/// Between two dials of who is gone. It finds the others by itself when it starts again, unless it lost its memory.
const GONE_EVERY: Duration = Duration::from_secs(600);

/// Who is away or gone: from when on a dial is worth while again, and how long after that.
#[derive(Debug, Default)]
pub(crate) struct Away(BTreeMap<NodeId, (Time, Duration)>);

impl Away {
    /// Takes note of what membership says.
    pub(crate) fn note(&mut self, now: Time, peer: NodeId, liveness: Liveness) {
        let from = match liveness {
            Liveness::Here | Liveness::Doubted => {
                self.0.remove(&peer);
                return;
            }
            Liveness::Away => (now.after(AWAY_PAUSE), AWAY_EVERY),
            Liveness::Gone => (now.after(GONE_EVERY), GONE_EVERY),
        };
        if self.0.len() < AWAY_MAX || self.0.contains_key(&peer) {
            self.0.insert(peer, from);
        }
    }

    pub(crate) fn is_away(&self, peer: NodeId) -> bool {
        self.0.contains_key(&peer)
    }

    /// Whether a peer may be dialed now.
    pub(crate) fn may_dial(&self, now: Time, peer: NodeId) -> bool {
        self.0.get(&peer).is_none_or(|(from, _)| *from <= now)
    }

    /// It is dialed: if it is away, the next time is later.
    pub(crate) fn dialed(&mut self, now: Time, peer: NodeId) {
        if let Some((from, every)) = self.0.get_mut(&peer) {
            *from = now.after(*every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn who_is_away_is_dialed_after_a_while_and_then_seldom() {
        let (mut away, peer) = (Away::default(), NodeId::from_public_key([1; 32]));
        assert!(away.may_dial(at(0), peer) && away.may_dial(at(0), peer));
        away.note(at(0), peer, Liveness::Away);
        let mut dialed = Vec::new();
        for second in 0..200 {
            if away.may_dial(at(second), peer) {
                away.dialed(at(second), peer);
                dialed.push(second);
            }
        }
        assert_eq!(dialed, [30, 95, 160]);
        away.note(at(200), peer, Liveness::Here);
        assert!(away.may_dial(at(200), peer) && !away.is_away(peer));
    }

    #[test]
    fn who_is_gone_is_hardly_dialed() {
        let (mut away, peer) = (Away::default(), NodeId::from_public_key([1; 32]));
        away.note(at(0), peer, Liveness::Gone);
        assert!(away.is_away(peer) && !away.may_dial(at(599), peer) && away.may_dial(at(600), peer));
        away.dialed(at(600), peer);
        assert!(!away.may_dial(at(1199), peer));
        away.note(at(1), peer, Liveness::Doubted);
        assert!(away.may_dial(at(1), peer), "who is only accused is not");
    }

    #[test]
    fn who_is_beyond_the_cap_is_dialed_as_any_other() {
        let mut away = Away::default();
        let peer = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            NodeId::from_public_key(key)
        };
        for number in 0..=AWAY_MAX as u32 {
            away.note(at(0), peer(number), Liveness::Away);
        }
        assert!(!away.may_dial(at(1), peer(0)) && away.may_dial(at(1), peer(AWAY_MAX as u32)));
    }
}
