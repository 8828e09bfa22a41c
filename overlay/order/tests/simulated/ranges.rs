//! Blocks by height in the simulation: each place's machine that fetches, and how places answer.

use std::sync::Arc;
use std::time::Duration;

use wattle_order::catch_up::{Answer, AskId, CatchUp, Config, Input, Output, Range, Unanswered};
use wattle_order::{EpochProof, Proposal, Record};
use wattle_types::{Machine as _, NodeId, Outbox, Time};

use crate::carry;
use crate::world::World;

/// How a place answers who asks for ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// With a bit elsewhere in a block.
    Garbled,
    /// With blocks of another height.
    Others,
    /// Never.
    Never,
    /// With one block each time.
    Dribbles,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Input(Input),
    Asked { by: usize, id: AskId, range: Range },
    Answer { by: usize, id: AskId, answer: Vec<u8> },
    Wake,
}

#[derive(Debug, Default)]
pub(crate) struct Ranged {
    pub(crate) machine: Option<CatchUp>,
    wake: Option<Time>,
    pub(crate) serves: Option<Serves>,
    pub(crate) accused: Vec<NodeId>,
    /// Whom it asked, and how many blocks came.
    pub(crate) asked: Vec<NodeId>,
    pub(crate) came: u64,
}

impl World {
    pub(crate) fn start_ranges(&mut self, place: usize) {
        let here = &mut self.places[place];
        let millis = Duration::from_millis;
        let config = Config { me: here.id, answer_within: millis(60), rest: millis(300) };
        here.ranged.machine = Some(CatchUp::new(config, Arc::clone(here.checker.committee())));
        here.ranged.wake = None;
        let peers = self.places.iter().map(|place| place.id).collect();
        self.ranged(place, Event::Input(Input::Peers(peers)));
    }

    pub(crate) fn ranged(&mut self, place: usize, event: Event) {
        match event {
            Event::Input(input) => self.range(place, input),
            Event::Asked { by, id, range } => {
                let answer = self.answer(place, &range);
                let Some(answer) = answer.filter(|_| !self.is_apart(place, by, false)) else { return };
                let us = self.options.delay_us + self.random.below(self.options.jitter_us + 1);
                let event = Event::Answer { by: place, id, answer };
                self.carry_later(us, by, carry::Event::Range(event));
            }
            Event::Answer { by, id, answer } => {
                let liar = self.places[by].ranged.serves.is_some();
                let result = self.check_answer(place, &answer);
                let lie = matches!(result, Err(Unanswered::Lie(_) | Unanswered::Malformed));
                assert!(liar || !lie, "place {by} is honest and its answer is refused: {result:?}");
                self.range(place, Input::Answered { id, result });
            }
            Event::Wake => {
                self.places[place].ranged.wake = None;
                self.range(place, Input::Wake);
            }
        }
    }

    fn check_answer(
        &mut self,
        place: usize,
        answer: &[u8],
    ) -> Result<Vec<wattle_order::Checked<Proposal>>, Unanswered> {
        let Ok(Answer { blocks, end }) = Answer::decode(answer) else { return Err(Unanswered::Malformed) };
        let Some(end) = end else { return Err(Unanswered::Nothing) };
        let checker = self.places[place].checker.clone();
        checker.check_chain(&mut self.seen, blocks, &end).map_err(Unanswered::Lie)
    }

    fn range(&mut self, place: usize, input: Input) {
        let now = self.now;
        let here = &mut self.places[place].ranged;
        let Some(machine) = here.machine.as_mut() else { return };
        let mut out = Outbox::new();
        machine.handle(now, input, &mut out);
        machine.check_invariants();
        let outputs: Vec<Output> = out.drain().collect();
        for output in outputs {
            let here = &mut self.places[place].ranged;
            match output {
                Output::Ask { peer, id, range } => {
                    here.asked.push(peer);
                    let us = self.options.delay_us + self.random.below(self.options.jitter_us + 1);
                    for other in (0..self.places.len()).filter(|other| *other != place) {
                        let apart = self.is_apart(place, other, false);
                        if self.places[other].id == peer && self.places[other].core.is_some() && !apart {
                            let event = Event::Asked { by: place, id, range };
                            self.carry_later(us, other, carry::Event::Range(event));
                        }
                    }
                }
                Output::Synced { blocks } => {
                    here.came += blocks.len() as u64;
                    self.later(place, 0, wattle_order::Input::Synced { blocks });
                }
                Output::Misbehaved { peer, .. } => here.accused.push(peer),
            }
        }
        let here = &mut self.places[place].ranged;
        let Some(at) = here.machine.as_ref().and_then(CatchUp::deadline) else { return };
        let at = at.max(now);
        if here.wake.is_none_or(|set| at < set) {
            here.wake = Some(at);
            self.carry_later(at.since(now).as_micros() as u64, place, carry::Event::Range(Event::Wake));
        }
    }

    /// What a place answers.
    fn answer(&mut self, place: usize, range: &Range) -> Option<Vec<u8>> {
        let here = &self.places[place];
        let skip = match here.ranged.serves {
            Some(Serves::Never) => return None,
            Some(Serves::Others) => 1,
            _ => 0,
        };
        let chain = here.chain.iter().skip(range.above.0 as usize + skip).take(range.count as usize + 1);
        let blocks: Vec<Proposal> = chain.map(|applied| (*applied.block).clone()).collect();
        let ended: Option<EpochProof> = here.disk.log.iter().find_map(|(_, record)| match record {
            Record::Epoch { proof, .. } if proof.header.epoch == range.epoch => Some((**proof).clone()),
            _ => None,
        });
        let few = here.ranged.serves == Some(Serves::Dribbles);
        let range = Range { count: if few { 1 } else { range.count }, ..*range };
        let answer = Answer::of(&range, &blocks, ended.as_ref());
        let mut bytes = answer.encode();
        if here.ranged.serves == Some(Serves::Garbled) {
            let bit = self.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Some(bytes)
    }
}
