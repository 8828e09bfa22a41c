//! The blocks above the committed tip, and what follows from where each stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::block::{BlockInfo, Proposal};
use crate::check::Checked;
use crate::committee::Committee;
use crate::evidence::EvidenceKey;
use crate::ids::{BlockId, Height, Round, Seat};
use crate::leader::{Led, Schedule};
use crate::limits::{BLOCKS_PER_ROUND_MAX, EVIDENCE_PER_SEAT_MAX, LOOSE_BLOCKS_MAX, UNCOMMITTED_MAX};

/// What the application says of a block: its payload is here and durable, within the limits, and not a repetition
/// (rule V6). Of a block whose time is far ahead of the clock (rule V7) it says nothing until the clock is there: a
/// clock that goes wrong delays votes, and convicts nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// It may be voted for.
    Valid,
    /// It may never be voted for.
    Invalid,
}

/// What the tree stands on: the committed tip, and what blocks on top of it inherit. Written with each commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub(crate) info: BlockInfo,
    /// What a certificate for the tip commits.
    pub(crate) commits: Height,
    pub(crate) failures: BTreeMap<Seat, Height>,
    /// Committed blocks above `commits`: they are not in the schedule yet.
    pub(crate) past: Vec<Led>,
    /// Misbehaviour that is told of in committed blocks of this epoch.
    pub(crate) told: BTreeSet<EvidenceKey>,
    /// The highest block with something in it, the tip included.
    pub(crate) busy: Height,
    pub(crate) quiet: bool,
}

impl Root {
    /// What an epoch begins with.
    pub(crate) fn of_epoch(committee: &Committee) -> Self {
        let info = BlockInfo::of_anchor(committee.anchor());
        Self {
            info,
            commits: info.height,
            failures: BTreeMap::new(),
            past: Vec::new(),
            told: BTreeSet::new(),
            busy: info.height,
            quiet: true,
        }
    }

    /// The committed tip.
    #[must_use]
    pub const fn tip(&self) -> &BlockInfo {
        &self.info
    }
}

/// A block in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// None for the block on which the epoch, or what is known, stands.
    pub(crate) proposal: Option<Checked<Proposal>>,
    pub(crate) info: BlockInfo,
    pub(crate) parent: BlockId,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) certified: bool,
    led: Led,
    /// Up to where a certificate for this block commits.
    pub(crate) commits: Height,
    /// Whose turns the rounds on top of this block are.
    pub(crate) schedule: Arc<Schedule>,
    /// The highest block with something in it, from this one down.
    pub(crate) busy: Height,
    /// All with something in it is committed by certificates that were broadcast in blocks: nothing is in a hurry.
    pub(crate) quiet: bool,
    /// This block or one before it ends the epoch.
    pub(crate) ends: bool,
}

/// A block that may be voted for as far as rules V5 and V6 go: it and its parent are here and valid. Only the tree
/// makes one.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    proposal: Checked<Proposal>,
    parent: BlockInfo,
}

impl Ready {
    pub(crate) const fn proposal(&self) -> &Checked<Proposal> {
        &self.proposal
    }

    pub(crate) const fn parent(&self) -> &BlockInfo {
        &self.parent
    }
}

/// Why a block does not fit on its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    /// It breaks a rule: its author's fault.
    Rule(&'static str),
    /// There are enough blocks of its round, and no certificate asks for this one.
    Crowd,
}

#[derive(Debug)]
pub(crate) struct Tree {
    root: Entry,
    /// All but the root.
    entries: BTreeMap<BlockId, Entry>,
    rounds: BTreeMap<Round, BTreeSet<BlockId>>,
    told: BTreeSet<EvidenceKey>,
    past: BTreeMap<Height, Led>,
}

impl Tree {
    pub(crate) fn new(committee: &Committee, root: Root) -> Self {
        let Root { info, commits, failures, past, told, busy, quiet } = root;
        let root = Entry {
            proposal: None,
            info,
            parent: info.id,
            verdict: Some(Verdict::Valid),
            certified: true,
            led: Led { height: info.height, author: Seat::default(), failed: Vec::new() },
            commits,
            schedule: Arc::new(Schedule::new(committee, failures)),
            busy,
            quiet,
            ends: false,
        };
        let past = past.into_iter().map(|led| (led.height, led)).collect();
        Self { root, entries: BTreeMap::new(), rounds: BTreeMap::new(), told, past }
    }

    /// The committed tip.
    pub(crate) const fn tip(&self) -> &Entry {
        &self.root
    }

    pub(crate) fn get(&self, id: &BlockId) -> Option<&Entry> {
        if *id == self.root.info.id { Some(&self.root) } else { self.entries.get(id) }
    }

    pub(crate) fn of_round(&self, round: Round) -> impl Iterator<Item = &Entry> {
        self.rounds.get(&round).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) const fn told(&self) -> &BTreeSet<EvidenceKey> {
        &self.told
    }

    /// From a block down to the tip, without the tip.
    fn path(&self, from: &BlockId) -> impl Iterator<Item = &Entry> {
        std::iter::successors(self.entries.get(from), |entry| self.entries.get(&entry.parent))
    }

    /// Misbehaviour told of from a block down to the beginning of the epoch.
    pub(crate) fn told_at(&self, from: &BlockId) -> BTreeSet<EvidenceKey> {
        let mut told = self.told.clone();
        for proposal in self.path(from).filter_map(|entry| entry.proposal.as_ref()) {
            told.extend(proposal.block.evidence.iter().map(crate::evidence::Evidence::key));
        }
        told
    }

    /// Puts a block on its parent, if it fits (rules V1, V5 and V7 as far as they need the parent). `asked` says that
    /// a certificate names it, or one after it.
    pub(crate) fn attach(
        &mut self,
        committee: &Committee,
        proposal: &Checked<Proposal>,
        asked: bool,
    ) -> Result<(), Unfit> {
        let Some(parent) = self.get(&proposal.header().parent) else {
            return Err(Unfit::Rule("its parent is not here"));
        };
        self.check_fit(committee, proposal, parent, asked)?;
        let entry = self.entry(committee, proposal, parent);
        self.rounds.entry(entry.info.round).or_default().insert(entry.info.id);
        self.entries.insert(entry.info.id, entry);
        self.certify(&proposal.header().parent);
        self.drop_loose();
        Ok(())
    }

    fn check_fit(
        &self,
        committee: &Committee,
        proposal: &Proposal,
        parent: &Entry,
        asked: bool,
    ) -> Result<(), Unfit> {
        let header = proposal.header();
        let block = &proposal.block;
        let lag = committee.rules().lag;
        let same = header.executed == parent.info.executed;
        let later = header.executed.height > parent.info.executed.height
            && header.executed.height.0.saturating_add(lag) <= header.height.0
            && header.executed.height <= parent.commits;
        let orders = !block.payload.is_empty() || !block.evidence.is_empty();
        let deep = header.height.0.saturating_sub(parent.commits.0) > UNCOMMITTED_MAX;
        let crowd = self.rounds.get(&header.round).map_or(0, BTreeSet::len);
        let rules = [
            (header.height.follows(parent.info.height), "V5: its height is not that behind its parent"),
            (header.round > parent.info.round, "V4: its round is not behind its parent's"),
            (parent.schedule.leader(committee, header.round) == header.author, "V1: it was not its turn"),
            (header.time >= parent.info.time, "V7: its time is before its parent's"),
            (same || later, "it vouches for an execution that cannot be known"),
            (block.is_empty() || !parent.ends, "it orders something behind the end of the epoch"),
            // The end of the epoch does not wait (N).
            (!orders || !deep, "it orders something while too much is not committed"),
        ];
        if let Some((_, why)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(Unfit::Rule(why));
        }
        if !asked && crowd >= BLOCKS_PER_ROUND_MAX {
            return Err(Unfit::Crowd);
        }
        self.check_evidence(proposal)
    }

    /// Each proof once, and of each validator not more than says something new.
    fn check_evidence(&self, proposal: &Proposal) -> Result<(), Unfit> {
        if proposal.block.evidence.is_empty() {
            return Ok(());
        }
        let mut told = self.told_at(&proposal.header().parent);
        for evidence in &proposal.block.evidence {
            if !admits(&told, &evidence.key()) {
                return Err(Unfit::Rule("it repeats a proof"));
            }
            told.insert(evidence.key());
        }
        Ok(())
    }

    fn entry(&self, committee: &Committee, proposal: &Checked<Proposal>, parent: &Entry) -> Entry {
        let (info, header) = (proposal.info(), proposal.header());
        let failed = parent.schedule.failed(committee, parent.info.round, info.round);
        let led = Led { height: info.height, author: header.author, failed };
        // Rule C: a certificate for this block commits its parent if their rounds are consecutive.
        let direct = info.round.follows(parent.info.round) && parent.info.round > Round(0);
        let commits = if direct { parent.info.height } else { parent.commits };
        let busy = if proposal.block.is_empty() { parent.busy } else { info.height };
        Entry {
            proposal: Some(proposal.clone()),
            info,
            parent: parent.info.id,
            verdict: None,
            certified: false,
            led,
            commits,
            schedule: self.schedule_after(committee, parent, commits),
            busy,
            quiet: busy <= parent.commits,
            ends: parent.ends || proposal.block.next.is_some(),
        }
    }

    /// The schedule on top of a child of `parent` whose certificate commits up to `commits`.
    fn schedule_after(&self, committee: &Committee, parent: &Entry, commits: Height) -> Arc<Schedule> {
        if commits == parent.commits || committee.rules().skip_blocks == 0 {
            return Arc::clone(&parent.schedule);
        }
        let path: BTreeMap<Height, &Led> =
            self.path(&parent.info.id).map(|entry| (entry.led.height, &entry.led)).collect();
        let mut schedule = (*parent.schedule).clone();
        for height in parent.commits.next().0..=commits.0 {
            let led = path.get(&Height(height)).copied().or_else(|| self.past.get(&Height(height)));
            if let Some(led) = led {
                schedule = schedule.after(committee, led);
            }
        }
        if schedule == *parent.schedule { Arc::clone(&parent.schedule) } else { Arc::new(schedule) }
    }

    pub(crate) fn certify(&mut self, id: &BlockId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.certified = true;
        }
    }

    /// Sets what the application says; the first word stands.
    pub(crate) fn set_verdict(&mut self, id: &BlockId, verdict: Verdict) -> Option<&Entry> {
        let entry = self.entries.get_mut(id)?;
        entry.verdict.get_or_insert(verdict);
        Some(entry)
    }

    /// Rules V5 and V6: the block and its parent are here and valid.
    pub(crate) fn ready(&self, id: &BlockId) -> Option<Ready> {
        let entry = self.entries.get(id)?;
        let parent = self.get(&entry.parent)?;
        let valid = |entry: &Entry| entry.verdict == Some(Verdict::Valid);
        let proposal = entry.proposal.clone().filter(|_| valid(entry) && valid(parent))?;
        Some(Ready { proposal, parent: parent.info })
    }

    /// The blocks that a certificate for `certified` commits: rule C, ascending. None if it commits nothing new.
    pub(crate) fn committed_by(&self, certified: &BlockId) -> Option<Vec<Checked<Proposal>>> {
        let block = self.entries.get(certified)?;
        let parent = self.get(&block.parent)?;
        // Rule C: without this condition a fork can be committed on both sides (attack 1).
        if !block.info.round.follows(parent.info.round) {
            return None;
        }
        self.path_up_to(&parent.info.id)
    }

    /// The blocks from the tip up to one, ascending. None if there are none.
    pub(crate) fn path_up_to(&self, id: &BlockId) -> Option<Vec<Checked<Proposal>>> {
        let mut path: Vec<_> = self.path(id).filter_map(|entry| entry.proposal.clone()).collect();
        path.reverse();
        if path.is_empty() { None } else { Some(path) }
    }

    /// Makes a block the tip, and forgets what does not stand on it.
    pub(crate) fn advance(&mut self, tip: &BlockId) {
        let path: Vec<Entry> = self.path(tip).cloned().collect();
        let Some(root) = path.first() else { return };
        for entry in &path {
            self.past.insert(entry.led.height, entry.led.clone());
            let evidence = entry.proposal.iter().flat_map(|proposal| &proposal.block.evidence);
            self.told.extend(evidence.map(crate::evidence::Evidence::key));
        }
        self.root = root.clone();
        self.past.retain(|height, _| *height > self.root.commits);
        let mut order: Vec<(Height, BlockId)> =
            self.entries.values().map(|entry| (entry.info.height, entry.info.id)).collect();
        order.sort_unstable();
        let mut kept = BTreeSet::from([*tip]);
        for (_, id) in order {
            let stands = self.entries.get(&id).is_some_and(|entry| kept.contains(&entry.parent));
            if id != *tip && stands {
                kept.insert(id);
            } else {
                self.remove(&id);
            }
        }
    }

    fn remove(&mut self, id: &BlockId) {
        let Some(entry) = self.entries.remove(id) else { return };
        if let Some(round) = self.rounds.get_mut(&entry.info.round) {
            round.remove(id);
            if round.is_empty() {
                self.rounds.remove(&entry.info.round);
            }
        }
    }

    /// Blocks that no certificate names are leaves. Too many of them: those of the lowest rounds go.
    fn drop_loose(&mut self) {
        if self.entries.len() <= LOOSE_BLOCKS_MAX {
            return;
        }
        let loose = self.entries.values().filter(|entry| !entry.certified);
        let mut loose: Vec<(Round, BlockId)> = loose.map(|entry| (entry.info.round, entry.info.id)).collect();
        loose.sort_unstable();
        let over = loose.len().saturating_sub(LOOSE_BLOCKS_MAX);
        loose.iter().take(over).for_each(|(_, id)| self.remove(id));
    }

    /// What to write so that the tree can be built again on its tip.
    pub(crate) fn root(&self) -> Root {
        let tip = self.tip();
        Root {
            info: tip.info,
            commits: tip.commits,
            failures: tip.schedule.failures().clone(),
            past: self.past.values().cloned().collect(),
            told: self.told.clone(),
            busy: tip.busy,
            quiet: tip.quiet,
        }
    }
}

/// Whether a proof says something new to those who know `told`.
pub(crate) fn admits(told: &BTreeSet<EvidenceKey>, key: &EvidenceKey) -> bool {
    let (offence, seat, _) = *key;
    let of_seat = told.range((offence, seat, Round(0))..=(offence, seat, Round(u64::MAX))).count() as u64;
    !told.contains(key) && of_seat < EVIDENCE_PER_SEAT_MAX
}
