//! The three machines of the log as one: what the core wants to know of payloads, and what it misses, the other two
//! find out; what they say goes back to it. What only a disk, a stream or a person can do comes out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wattle_order::{
    Alarm, Checked, Committee, Core, Digest, EpochProof, Evidence, Height, Message, Proposal, Qc, Record,
    Seq, To, catch_up, ordered_after, payloads, state_root,
};
use wattle_types::{Machine, NodeId, Outbox, Time};

/// Blocks whose digest waits for what the apps came to. Beyond it the oldest is left out: the votes go on without it.
const UNAPPLIED_MAX: usize = 1024;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// For the machine that agrees.
    Core(wattle_order::Input),
    /// For the one that carries payloads.
    Payloads(payloads::Input),
    /// For the one that fetches by height.
    CatchUp(catch_up::Input),
    /// The apps of this node applied everything up to a block.
    Applied {
        /// The block.
        height: Height,
        /// What they came to: [`wattle_order::apps_root`].
        root: Digest,
    },
    /// The deadline has come. The first starts all three.
    Wake,
}

/// What must happen now.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this to disk in the order of the numbers, and say [`wattle_order::Input::Persisted`].
    Persist {
        /// Its number.
        seq: Seq,
        /// What.
        record: Record,
    },
    /// Send this to validators.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Arc<Message>,
    },
    /// These are decided. What they order is told by [`Output::Ordered`].
    Committed {
        /// The blocks, ascending.
        blocks: Vec<Checked<Proposal>>,
        /// What commits them.
        proof: Checked<Qc>,
    },
    /// This is decided, with all that it orders: ascending, each block once in the life of a process.
    Ordered {
        /// The block.
        block: Checked<Proposal>,
        /// Its entries, in order.
        entries: Vec<payloads::Ordered>,
        /// The digest of everything that is ordered up to here.
        root: Digest,
    },
    /// What came of handing in an entry.
    Answer {
        /// Which.
        id: payloads::SubmitId,
        /// Its hash, or why it is not taken.
        result: Result<Digest, payloads::NotTaken>,
    },
    /// Write this to disk in the order of the numbers, and say [`payloads::Input::Persisted`].
    Store {
        /// Its number.
        seq: Seq,
        /// What.
        batch: Arc<payloads::Batch>,
    },
    /// Look whether this batch is on disk, and say [`payloads::Input::Loaded`].
    Load {
        /// Which.
        batch: Digest,
    },
    /// No block will have this batch: it may go from the disk.
    Forget {
        /// Which.
        batch: Digest,
    },
    /// Send this about payloads.
    Say {
        /// To whom.
        to: To,
        /// What.
        message: payloads::Message,
    },
    /// Ask a node for a range, and say [`catch_up::Input::Answered`].
    Ask {
        /// Whom.
        peer: NodeId,
        /// To be named in the answer.
        id: catch_up::AskId,
        /// For what.
        range: catch_up::Range,
    },
    /// The epoch is over, and on disk.
    EpochEnded {
        /// For those who come after.
        proof: Box<EpochProof>,
        /// The new epoch.
        committee: Arc<Committee>,
    },
    /// Somebody broke the protocol, and this proves it.
    Evidence(Checked<Evidence>),
    /// An operator has to know.
    Alarm(Alarm),
    /// A peer broke the protocol in a way that proves nothing to others.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// The machines, each as the disk left it.
#[derive(Debug)]
pub struct Machines {
    /// The one that agrees.
    pub core: Core,
    /// The one that carries payloads.
    pub payloads: payloads::Payloads,
    /// The one that fetches by height.
    pub catch_up: catch_up::CatchUp,
}

/// One node's part of the log, whole.
#[derive(Debug)]
pub struct Log {
    machines: Machines,
    /// Up to where the root goes, and the digest of everything that is ordered up to there.
    root: (Height, Digest),
    /// The same of the last blocks that the apps have not applied; none where no apps run.
    unapplied: Option<BTreeMap<Height, Digest>>,
    started: bool,
}

impl Log {
    /// Of its machines, and the digest of what is ordered up to a height: what is told of at or below it is not
    /// counted again. `unapplied` are the digests up to there, where apps run that say what they come to.
    #[must_use]
    pub const fn new(
        machines: Machines,
        root: (Height, Digest),
        unapplied: Option<BTreeMap<Height, Digest>>,
    ) -> Self {
        Self { machines, root, unapplied, started: false }
    }

    /// What it consists of.
    #[must_use]
    pub const fn machines(&self) -> &Machines {
        &self.machines
    }

    fn due(&self, now: Time) -> [bool; 3] {
        let Machines { core, payloads, catch_up } = &self.machines;
        let due = |at: Option<Time>| !self.started || at.is_some_and(|at| at <= now);
        [due(core.deadline()), due(payloads.deadline()), due(catch_up.deadline())]
    }

    fn wake(&mut self, now: Time, queue: &mut VecDeque<Input>) {
        let [core, payloads, catch_up] = self.due(now);
        self.started = true;
        // Payloads first: what the core asks at its start finds them awake.
        queue.extend(payloads.then_some(Input::Payloads(payloads::Input::Wake)));
        queue.extend(core.then_some(Input::Core(wattle_order::Input::Wake)));
        queue.extend(catch_up.then_some(Input::CatchUp(catch_up::Input::Wake)));
    }

    fn on_core(&mut self, said: wattle_order::Output, queue: &mut VecDeque<Input>, out: &mut Outbox<Output>) {
        use wattle_order::Output as Said;
        match said {
            Said::Persist { seq, record } => out.push(Output::Persist { seq, record }),
            Said::Send { to, message } => out.push(Output::Send { to, message }),
            Said::Build { round, parent } => {
                queue.push_back(Input::Payloads(payloads::Input::Build { round, parent }));
            }
            Said::Validate { block } => queue.push_back(Input::Payloads(payloads::Input::Validate { block })),
            Said::Commit { blocks, proof } => {
                let tip = blocks.last().map(|last| catch_up::Input::Committed(last.header().height));
                queue.extend(tip.map(Input::CatchUp));
                let told = payloads::Input::Commit {
                    blocks: blocks.clone(),
                    proof: Some(proof.clone()),
                    before: None,
                };
                queue.push_back(Input::Payloads(told));
                out.push(Output::Committed { blocks, proof });
            }
            Said::Behind { above, target } => {
                queue.push_back(Input::CatchUp(catch_up::Input::Behind { above, target }));
            }
            Said::EpochEnded { proof, committee } => {
                let committee_of = || Arc::clone(&committee);
                let told = payloads::Input::EpochEnded { committee: committee_of() };
                queue.push_back(Input::Payloads(told));
                queue.push_back(Input::CatchUp(catch_up::Input::EpochEnded(committee_of())));
                out.push(Output::EpochEnded { proof, committee });
            }
            Said::Evidence(evidence) => out.push(Output::Evidence(evidence)),
            Said::Alarm(alarm) => out.push(Output::Alarm(alarm)),
            Said::Misbehaved { peer, why } => out.push(Output::Misbehaved { peer, why }),
        }
    }

    fn on_payloads(&mut self, said: payloads::Output, queue: &mut VecDeque<Input>, out: &mut Outbox<Output>) {
        use payloads::Output as Said;
        use wattle_order::Input as Told;
        match said {
            Said::Answer { id, result } => out.push(Output::Answer { id, result }),
            Said::Built { round, payload, time, next } => {
                queue.push_back(Input::Core(Told::Built { round, payload, time, next }));
            }
            Said::Judged { block, verdict } => {
                queue.push_back(Input::Core(Told::Judged { block, verdict }));
            }
            Said::Waiting(waits) => queue.push_back(Input::Core(Told::Waiting(waits))),
            Said::Ordered { block, entries } => {
                self.count(&block, queue);
                out.push(Output::Ordered { block, entries, root: self.root.1 });
            }
            // The log itself says when it went past an entry's time; this is only this node's clock.
            Said::Expired { .. } => {}
            Said::Persist { seq, batch } => out.push(Output::Store { seq, batch }),
            Said::Load { batch } => out.push(Output::Load { batch }),
            Said::Forget { batch } => out.push(Output::Forget { batch }),
            Said::Send { to, message } => out.push(Output::Say { to, message }),
            Said::Misbehaved { peer, why } => out.push(Output::Misbehaved { peer, why }),
        }
    }

    /// What every node computes of the same log: a digest over what each block orders.
    fn count(&mut self, block: &Proposal, queue: &mut VecDeque<Input>) {
        let height = block.header().height;
        if height <= self.root.0 {
            return;
        }
        self.root = (height, ordered_after(self.root.1, block));
        match &mut self.unapplied {
            Some(unapplied) => {
                unapplied.insert(height, self.root.1);
                while unapplied.len() > UNAPPLIED_MAX {
                    unapplied.pop_first();
                }
            }
            None => queue.push_back(executed(height, self.root.1, Digest::default())),
        }
    }

    fn on_applied(&mut self, height: Height, root: Digest, queue: &mut VecDeque<Input>) {
        let ordered = self.unapplied.as_mut().and_then(|unapplied| unapplied.remove(&height));
        queue.extend(ordered.map(|ordered| executed(height, ordered, root)));
    }

    fn on_catch_up(said: catch_up::Output, queue: &mut VecDeque<Input>, out: &mut Outbox<Output>) {
        use catch_up::Output as Said;
        match said {
            Said::Ask { peer, id, range } => out.push(Output::Ask { peer, id, range }),
            Said::Synced { blocks } => queue.push_back(Input::Core(wattle_order::Input::Synced { blocks })),
            Said::Misbehaved { peer, why } => out.push(Output::Misbehaved { peer, why }),
        }
    }

    /// What must hold after every input. For tests and simulations.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        let Machines { core, payloads, catch_up } = &self.machines;
        core.check_invariants();
        payloads.check_invariants();
        catch_up.check_invariants();
    }
}

/// What votes vouch for: everything that is ordered up to a block, and what the apps made of it.
fn executed(height: Height, ordered: Digest, apps: Digest) -> Input {
    Input::Core(wattle_order::Input::Executed { height, root: state_root(ordered, apps) })
}

impl Machine for Log {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        let mut queue = VecDeque::from([input]);
        let (mut core, mut payloads, mut catch_up) = (Outbox::new(), Outbox::new(), Outbox::new());
        while let Some(input) = queue.pop_front() {
            match input {
                Input::Wake => self.wake(now, &mut queue),
                Input::Core(input) => self.machines.core.handle(now, input, &mut core),
                Input::Payloads(input) => self.machines.payloads.handle(now, input, &mut payloads),
                Input::CatchUp(input) => self.machines.catch_up.handle(now, input, &mut catch_up),
                Input::Applied { height, root } => self.on_applied(height, root, &mut queue),
            }
            for said in core.drain() {
                self.on_core(said, &mut queue, out);
            }
            for said in payloads.drain() {
                self.on_payloads(said, &mut queue, out);
            }
            for said in catch_up.drain() {
                Self::on_catch_up(said, &mut queue, out);
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        let Machines { core, payloads, catch_up } = &self.machines;
        [core.deadline(), payloads.deadline(), catch_up.deadline()].into_iter().flatten().min()
    }
}
