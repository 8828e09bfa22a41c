//! How the log does, as people and programs are told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wattle_order::{Change, Committee, Counts, Epoch, Height, Qc, Round, Status};
use wattle_types::{NodeId, Time, UnixTime};

use super::links::Reach;

/// Certificates over which votes are counted.
const CERTIFICATES: usize = 20;
/// Entries over which latency is told.
const LATENCIES_MAX: usize = 256;
/// Over which span entries a second are counted.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// Blocks with entries in that span; what is beyond makes the rate too low, not the memory too large.
const RATE_BLOCKS_MAX: usize = 4096;
/// A timeout is told of for this long.
const TIMEOUT_SPAN: Duration = Duration::from_secs(3600);
const TIMEOUTS_MAX: usize = 1024;

/// The certificate that committed the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighQc {
    /// Its round.
    pub round: Round,
    /// What it commits.
    pub height: Height,
    /// Who signed.
    pub votes: usize,
    /// Since when it is known.
    pub age: Duration,
}

/// A validator as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorView {
    /// Who.
    pub id: NodeId,
    /// What its vote counts.
    pub weight: u64,
    /// In which of the last certificates it voted, the eldest first.
    pub votes: Vec<bool>,
    /// Since its last vote that is in a certificate.
    pub last_vote: Option<Duration>,
    /// How it is reached; none for this node itself, and on a node that only follows.
    pub reach: Option<Reach>,
}

/// How the log does.
#[derive(Clone, Debug)]
pub struct View {
    /// The epoch in which these vote: that of the machine, as soon as it is on disk.
    pub epoch: Epoch,
    /// The machine's.
    pub status: Status,
    /// How long its round lasts.
    pub round_age: Duration,
    /// How long it has taken too long here.
    pub expired_age: Option<Duration>,
    /// What it did.
    pub counts: Counts,
    /// What committed the tip.
    pub high_qc: Option<HighQc>,
    /// The time of the committed tip's block, by its author's clock.
    pub tip_time: Option<UnixTime>,
    /// Everybody who votes.
    pub validators: Vec<ValidatorView>,
    /// Entries a second.
    pub rate: f64,
    /// Entries that were ordered since this node started.
    pub entries: u64,
    /// From when an entry was submitted here until it was committed, sorted.
    pub latencies: Vec<Duration>,
    /// Rounds that timed out here within an hour.
    pub timeouts: usize,
    /// Entries that wait.
    pub waiting: usize,
    /// Validators that some approve for the next epoch.
    pub changes: Vec<Change>,
    /// What an operator has to know.
    pub alarms: Vec<String>,
}

impl View {
    /// What so many percent of the latencies do not exceed; none where nothing was submitted here yet.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Option<Duration> {
        let place = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        self.latencies.get(place).copied()
    }
}

/// What is counted while it runs.
pub(super) struct Figures {
    certificates: VecDeque<Vec<bool>>,
    last_vote: BTreeMap<NodeId, Instant>,
    high_qc: Option<(Round, Height, usize, Instant)>,
    tip_time: Option<UnixTime>,
    rate: VecDeque<(Instant, usize)>,
    entries: u64,
    latencies: VecDeque<Duration>,
    timeouts: VecDeque<Instant>,
    timeouts_before: u64,
    started: Instant,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            certificates: VecDeque::new(),
            last_vote: BTreeMap::new(),
            high_qc: None,
            tip_time: None,
            rate: VecDeque::new(),
            entries: 0,
            latencies: VecDeque::new(),
            timeouts: VecDeque::new(),
            timeouts_before: 0,
            started: Instant::now(),
        }
    }

    /// Others vote from now on.
    pub(super) fn enter(&mut self) {
        self.certificates.clear();
    }

    /// A certificate is known.
    pub(super) fn certificate(&mut self, committee: &Committee, qc: &Qc) {
        let now = Instant::now();
        let mut voted = vec![false; committee.validators().list().len()];
        for seat in qc.signers.seats() {
            if let (Some(voted), Some(id)) = (voted.get_mut(seat.index()), committee.id(seat)) {
                *voted = true;
                self.last_vote.insert(id, now);
            }
        }
        if qc.data.round > Round(0) {
            self.certificates.push_back(voted);
        }
        while self.certificates.len() > CERTIFICATES {
            self.certificates.pop_front();
        }
    }

    /// Blocks are committed.
    pub(super) fn committed(&mut self, proof: &Qc) {
        let now = Instant::now();
        let height = proof.data.commit.map_or(Height(0), |commit| commit.height);
        self.high_qc = Some((proof.data.round, height, proof.signatures.len(), now));
    }

    /// A block with so many entries is ordered, and they are here.
    pub(super) fn ordered(&mut self, entries: usize, time: UnixTime) {
        self.tip_time = Some(time);
        self.entries = self.entries.saturating_add(entries as u64);
        if entries > 0 {
            self.rate.push_back((Instant::now(), entries));
        }
        while self.rate.len() > RATE_BLOCKS_MAX
            || self.rate.front().is_some_and(|(at, _)| at.elapsed() > RATE_SPAN)
        {
            self.rate.pop_front();
        }
    }

    /// An entry that was submitted here is committed.
    pub(super) fn answered(&mut self, after: Duration) {
        self.latencies.push_back(after);
        if self.latencies.len() > LATENCIES_MAX {
            self.latencies.pop_front();
        }
    }

    /// So many rounds timed out so far.
    pub(super) fn note_timeouts(&mut self, count: u64) {
        if count > self.timeouts_before {
            self.timeouts_before = count;
            self.timeouts.push_back(Instant::now());
        }
        if self.timeouts.len() > TIMEOUTS_MAX {
            self.timeouts.pop_front();
        }
    }

    fn rate(&self) -> f64 {
        let recent = self.rate.iter().filter(|(at, _)| at.elapsed() <= RATE_SPAN);
        let entries: usize = recent.map(|(_, entries)| entries).sum();
        let span = self.started.elapsed().min(RATE_SPAN).as_secs_f64().max(1.0);
        // Counts of this size are exact.
        u32::try_from(entries).map_or(f64::MAX, f64::from) / span
    }

    /// Puts it together with what others know.
    pub(super) fn view(
        &self,
        committee: &Committee,
        (status, counts, now): (Status, Counts, Time),
        reach: &BTreeMap<NodeId, Reach>,
        (waiting, changes): (usize, Vec<Change>),
        alarms: Vec<String>,
    ) -> View {
        let validators = committee.validators().list().iter().enumerate().map(|(seat, validator)| {
            let votes = self.certificates.iter().map(|voted| voted.get(seat).copied().unwrap_or(false));
            ValidatorView {
                id: validator.id,
                weight: validator.weight,
                votes: votes.collect(),
                last_vote: self.last_vote.get(&validator.id).map(Instant::elapsed),
                reach: reach.get(&validator.id).copied(),
            }
        });
        let mut latencies: Vec<Duration> = self.latencies.iter().copied().collect();
        latencies.sort_unstable();
        let high_qc = self.high_qc.map(|(round, height, votes, at)| {
            let age = at.elapsed();
            HighQc { round, height, votes, age }
        });
        View {
            epoch: committee.epoch(),
            round_age: now.since(status.round_since),
            expired_age: status.expired_since.map(|since| now.since(since)),
            status,
            counts,
            high_qc,
            tip_time: self.tip_time,
            validators: validators.collect(),
            rate: self.rate(),
            entries: self.entries,
            latencies,
            timeouts: self.timeouts.iter().filter(|at| at.elapsed() <= TIMEOUT_SPAN).count(),
            waiting,
            changes,
            alarms,
        }
    }
}
