//! What tests ask of a world.

use std::time::Duration;

use wattle_order::{BlockId, Proposal, Record};
use wattle_types::Time;

use crate::world::{Place, World, transactions};

impl World {
    /// The places that run honest code alone with their key.
    pub(crate) fn honest(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|place| self.places[*place].honest()).collect()
    }

    /// The lowest height among the honest who run.
    pub(crate) fn lowest(&self) -> u64 {
        let up = |place: &&Place| place.honest() && place.core.is_some();
        self.places.iter().filter(up).map(Place::height).min().unwrap_or(0)
    }

    pub(crate) fn lowest_of(&self, places: &[usize]) -> u64 {
        places.iter().map(|place| self.places[*place].height()).min().unwrap_or_default()
    }

    pub(crate) fn within(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.after(span);
        self.run_until(end, done)
    }

    /// Ends the test, with what is needed to see it again.
    pub(crate) fn fail(&self, why: &str) -> ! {
        let heights: Vec<_> = self.places.iter().map(|place| (place.height(), place.round())).collect();
        panic!(
            "{why}\n  at {:?}, (height, round) of each {heights:?}\n  reproduce: seed {:#x}, {:?}\n  script {:?}",
            self.now, self.options.seed, self.options, self.script
        )
    }

    /// Sides that hear only themselves, by place.
    pub(crate) fn partition(&mut self, sides: &[u8]) {
        self.cut.clear();
        for (from, one) in sides.iter().enumerate() {
            for (to, other) in sides.iter().enumerate() {
                if one != other {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// The median time from a transaction's coming to its commit at a place.
    pub(crate) fn median_latency(&self, place: usize) -> Duration {
        let here = &self.places[place];
        let mut spans: Vec<Duration> = Vec::new();
        for (applied, at) in here.chain.iter().zip(&here.commit_times) {
            let submitted = transactions(&applied.block).into_iter().filter_map(|tx| self.submitted.get(&tx));
            spans.extend(submitted.map(|submitted| at.since(*submitted)));
        }
        spans.sort_unstable();
        spans.get(spans.len() / 2).copied().unwrap_or_default()
    }

    /// The longest time without a commit at a place, between two moments.
    pub(crate) fn longest_gap(&self, place: usize, from: Time, to: Time) -> Duration {
        let times = self.places[place].commit_times.iter().filter(|at| (from..to).contains(*at));
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in times.chain([&to]) {
            longest = longest.max(at.since(last));
            last = *at;
        }
        longest
    }

    pub(crate) fn timeouts(&self) -> u64 {
        self.places.iter().filter_map(|place| place.core.as_ref()).map(|core| core.counts().timeouts).sum()
    }

    /// A block that a place heard of.
    pub(crate) fn judge_block_of(&self, place: usize, id: &BlockId) -> Option<Proposal> {
        let records = self.places[place].disk.log.iter().rev();
        let blocks = records.filter_map(|(_, record)| match record {
            Record::Block(block) => Some(block),
            _ => None,
        });
        blocks.map(|block| (**block).clone()).find(|block| block.header().id() == *id)
    }
}
