//! The log by height: asked for by those who follow or fell behind, and told to them.
//!
//! Whoever has the log may tell it: what it tells proves itself. A node that follows asks one keeper after the other
//! for what is above its own height; who is asked waits until there is something, so a new block is here one way after
//! it is committed there, and a log that rests costs an answer in twenty seconds. A keeper may stand still while the
//! log goes on, so after an answer without news, or when what was handed in is not ordered as far as one tells, the
//! next is asked. A validator asks too, while it has no channels to a quorum or its round does not end: the epoch in
//! which it votes may be over. Where none of the validators tells anything, other peers are asked: those of an old
//! epoch may be gone for ever, or know no more than this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::{
    AlreadyAccepted, Channel, ChannelKind, ChannelListener, ChannelReceiver, ChannelSender, Overlay,
};
use wattle_order::catch_up::{self, AskId, Range, Unanswered};
use wattle_order::limits::HANDED_MAX;
use wattle_order::{
    Certified, ChainEnd, ChainId, Checked, Checker, Digest, Height, Message, Proposal, Seen, payloads,
};
use wattle_types::NodeId;
use wattle_weave::order::{Answer, Ask, Input};

use super::Heard;
use super::disk::{Disk, DiskError, Stretch, validators};
use super::epochs::Now;
use super::links::Links;

/// The longest wait for something new before an empty answer.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// The longest wait for an answer beyond what was asked for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long to wait before the next keeper is asked, when all were.
const PAUSE: Duration = Duration::from_millis(300);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long after entries were handed on the log may stand still before another keeper is asked.
const IN_VAIN: Duration = Duration::from_secs(1);
/// How long one that was not reached is not tried again.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Other peers that are asked.
const OTHERS_MAX: usize = 8;
/// How often a validator looks whether it hears of the log as one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long a round may be over its time before a validator asks whether others are farther.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// How long blocks that came may take to be committed here.
const TAKE_MAX: Duration = Duration::from_secs(2);
/// Channels that are answered at once; who is beyond waits in the listener.
const ANSWERED_MAX: usize = 64;
/// A channel over which nothing is asked for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What asking needs.
#[derive(Clone)]
pub(super) struct Follower {
    overlay: Overlay,
    chain: ChainId,
    epochs: Now,
    seen: Arc<Mutex<Seen>>,
    heard: mpsc::Sender<Heard>,
    compacted: mpsc::Sender<Behind>,
    tip: watch::Receiver<Height>,
    /// Since when the round of this validator is over its time.
    expired: watch::Receiver<Option<Instant>>,
    open: Arc<Mutex<BTreeMap<NodeId, Conversation>>>,
    /// Who told the log where none of the validators did.
    helper: Arc<Mutex<Option<NodeId>>>,
    /// Entries are handed on, as they are again and again until they are ordered.
    handed: Arc<Notify>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a keeper says that kept nothing of what it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) keeper: NodeId,
    /// Up to there it has a snapshot only.
    pub(super) base: Height,
    /// It is no validator, and is asked because none of those tells anything.
    pub(super) helps: bool,
}

/// With one keeper, one question at a time: each has room for two channels of a node, and one is for the newest blocks.
type Conversation = Arc<tokio::sync::Mutex<Talk>>;

#[derive(Default)]
struct Talk {
    asking: Option<Asking>,
    /// When it could not be opened: whoever waits meanwhile need not try again.
    failed: Option<Instant>,
}

/// An open conversation with one keeper.
struct Asking {
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

impl Asking {
    async fn open(overlay: &Overlay, keeper: NodeId) -> Result<Self, String> {
        let channel = overlay.open_channel(keeper, ChannelKind::OrderSync).await;
        let (sender, receiver) = channel.map_err(|error| error.to_string())?.split();
        Ok(Self { sender, receiver })
    }

    async fn ask(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, String> {
        let asking = async {
            self.sender.send(&ask.encode()).await.map_err(|error| error.to_string())?;
            match self.receiver.next().await {
                Some(Ok(frame)) => Answer::decode(&frame).map_err(|error| error.to_string()),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("it closed the channel".to_owned()),
            }
        };
        let answer = tokio::time::timeout(patience, asking).await;
        answer.unwrap_or_else(|_elapsed| Err(format!("no answer after {patience:?}")))
    }
}

impl Follower {
    pub(super) fn new(
        overlay: &Overlay,
        chain: ChainId,
        epochs: Now,
        (heard, compacted): (mpsc::Sender<Heard>, mpsc::Sender<Behind>),
        (tip, expired): (watch::Receiver<Height>, watch::Receiver<Option<Instant>>),
        (stop, tasks): (&CancellationToken, &TaskTracker),
    ) -> Self {
        Self {
            compacted,
            overlay: overlay.clone(),
            chain,
            epochs,
            seen: Arc::default(),
            heard,
            tip,
            expired,
            open: Arc::default(),
            helper: Arc::default(),
            handed: Arc::default(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        }
    }

    fn helper(&self) -> Option<NodeId> {
        *self.helper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is far is asked of it as well, and what blocks order.
    async fn set_helper(&self, helper: Option<NodeId>) {
        let before =
            std::mem::replace(&mut *self.helper.lock().unwrap_or_else(PoisonError::into_inner), helper);
        if before != helper {
            let peers = Input::CatchUp(catch_up::Input::Peers(helper.into_iter().collect()));
            // Ignored because the node stops.
            drop(self.heard.send(Heard::Log(peers)).await);
        }
    }

    fn checker(&self) -> Checker {
        Checker::new(Arc::clone(self.epochs.borrow().current()))
    }

    /// A keeper kept nothing of what this node needs next.
    fn tell_compacted(&self, keeper: NodeId, base: Height, helps: bool) {
        // Ignored because it is said again as long as it is so.
        self.compacted.try_send(Behind { keeper, base, helps }).unwrap_or_default();
    }

    /// Asks a keeper for its newest snapshot.
    pub(super) async fn snapshot(&self, keeper: NodeId) -> Result<Option<Certified>, String> {
        match self.ask(keeper, &Ask::Snapshot { chain: self.chain }).await? {
            Answer::Snapshot(certified) => Ok(certified.map(|certified| *certified)),
            Answer::Refused(why) => Err(why.chars().take(200).collect()),
            _ => Err("an answer to something else".to_owned()),
        }
    }

    /// Asks a keeper for a piece of a snapshot.
    pub(super) async fn piece(&self, keeper: NodeId, piece: Digest) -> Result<Option<Vec<u8>>, String> {
        match self.ask(keeper, &Ask::Piece { chain: self.chain, piece }).await? {
            Answer::Piece(bytes) => Ok(bytes.map(ByteBuf::into_vec)),
            Answer::Refused(why) => Err(why.chars().take(200).collect()),
            _ => Err("an answer to something else".to_owned()),
        }
    }

    /// Asks a keeper something, over the channel that is open or a new one.
    async fn ask(&self, keeper: NodeId, ask: &Ask) -> Result<Answer, String> {
        let conversation = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(keeper).or_default())
        };
        let mut talk = conversation.lock().await;
        if let Some(mut asking) = talk.asking.take()
            && let Ok(answer) = asking.ask(ask, ANSWER_MAX).await
        {
            talk.asking = Some(asking);
            return Ok(answer);
        }
        if talk.failed.is_some_and(|at| at.elapsed() < FAILED_FOR) {
            return Err("it was not reached a moment ago".to_owned());
        }
        // The old one may have been closed because nothing was asked for long.
        let opened = Asking::open(&self.overlay, keeper).await;
        talk.failed = opened.is_err().then(Instant::now);
        let mut asking = opened?;
        let answer = asking.ask(ask, ANSWER_MAX).await?;
        talk.asking = Some(asking);
        Ok(answer)
    }

    /// Asks a keeper for a range, and tells the machine what came of it.
    pub(super) fn fetch(&self, keeper: NodeId, id: AskId, range: Range) {
        let this = self.clone();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let ask = Ask::Range { chain: this.chain, range };
            let result = match this.ask(keeper, &ask).await {
                Ok(Answer::Range(catch_up::Answer { blocks, end: Some(end) })) => {
                    this.check_range(keeper, blocks, end).await
                }
                Ok(Answer::Range(_) | Answer::Refused(_)) => Err(Unanswered::Nothing),
                Ok(Answer::Compacted(base)) => {
                    this.tell_compacted(keeper, base, this.helper() == Some(keeper));
                    Err(Unanswered::Nothing)
                }
                Ok(_) => Err(Unanswered::Malformed),
                Err(why) => {
                    tracing::debug!(%keeper, why, "a range of the log is not told by a keeper");
                    Err(Unanswered::Nothing)
                }
            };
            let answered = Input::CatchUp(catch_up::Input::Answered { id, result });
            // Ignored because the node stops.
            drop(this.heard.send(Heard::Log(answered)).await);
        }));
    }

    /// The blocks of a range. If their epoch ends with them, the machine is told so.
    async fn check_range(
        &self,
        keeper: NodeId,
        blocks: Vec<Proposal>,
        end: ChainEnd,
    ) -> Result<Vec<Checked<Proposal>>, Unanswered> {
        let (checker, seen) = (self.checker(), Arc::clone(&self.seen));
        let checking = tokio::task::spawn_blocking(move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let blocks = checker.check_chain(&mut seen, blocks, &end)?;
            let ended = match end {
                ChainEnd::Epoch(proof) => Some(checker.check(&mut seen, Message::EpochEnded(*proof))?),
                ChainEnd::Certified(_) => None,
            };
            Ok((blocks, ended))
        });
        let (blocks, ended) = match checking.await {
            Ok(checked) => checked.map_err(Unanswered::Lie)?,
            Err(_stopped) => return Err(Unanswered::Nothing),
        };
        if let Some(message) = ended {
            let received = wattle_order::Input::Received { from: keeper, message };
            // Ignored because the node stops.
            drop(self.heard.send(Heard::Log(Input::Core(received))).await);
        }
        Ok(blocks)
    }

    /// What the machine of a node that follows says about payloads is a question to a keeper.
    pub(super) fn say(&self, keeper: NodeId, message: payloads::Message) {
        let chain = self.chain;
        let (ask, batch) = match message {
            payloads::Message::Fetch(batch) => (Ask::Batch { chain, batch }, Some(batch)),
            payloads::Message::Entries(entries) => {
                self.handed.notify_waiters();
                (Ask::Submit { chain, entries }, None)
            }
            // Only validators are told of batches.
            _ => return,
        };
        let this = self.clone();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let mut answer = this.ask(keeper, &ask).await;
            if let (Some(helper), Some(_)) = (this.helper(), batch)
                && !matches!(answer, Ok(Answer::Batch(Some(_))))
            {
                // What is named by its content may come from anybody.
                answer = this.ask(helper, &ask).await;
            }
            if let Err(why) = &answer {
                tracing::debug!(%keeper, why, "a keeper of the log does not answer");
            }
            let message = match (answer, batch) {
                (Ok(Answer::Batch(Some(entries))), Some(_)) => payloads::Message::Fetched(entries),
                (_, Some(batch)) => payloads::Message::Lacks(batch),
                // Who handed in an entry hears of it from the log, and tries others until then.
                (_, None) => return,
            };
            let received = Input::Payloads(payloads::Input::Received { from: keeper, message });
            // Ignored because the node stops.
            drop(this.heard.send(Heard::Log(received)).await);
        }));
    }

    /// Follows the log for ever: one keeper at a time, and the next when one tells nothing. Rests while this node hears
    /// of the log as a validator.
    pub(super) async fn follow(mut self, links: Links) {
        let me = self.overlay.id();
        let mut pause = PAUSE;
        loop {
            if self.is_keeper(&me) {
                tokio::time::sleep(LOOK_AGAIN).await;
                if self.hears(&links) {
                    self.set_helper(None).await;
                    continue;
                }
            }
            let committee = Arc::clone(self.epochs.borrow().current());
            let mut keepers: Vec<NodeId> =
                validators(&committee).into_iter().filter(|id| *id != me).collect();
            let first = usize::from(me.public_key()[0]) % keepers.len().max(1);
            keepers.rotate_left(first);
            if self.follow_any(keepers, &links).await {
                pause = PAUSE;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// Follows what is told by the keepers to whom there is a connection, else by the others, else by other peers.
    /// Whether anybody told anything.
    async fn follow_any(&mut self, keepers: Vec<NodeId>, links: &Links) -> bool {
        let peers = self.overlay.status().await.map(|status| status.peers).unwrap_or_default();
        let peers: Vec<NodeId> = peers.into_iter().map(|peer| peer.peer).collect();
        let (near, far): (Vec<NodeId>, Vec<NodeId>) =
            keepers.into_iter().partition(|keeper| peers.contains(keeper));
        for keepers in [&near, &far] {
            let told = self.follow_each(keepers, links).await;
            // Where a round does not end they may have nothing to tell because they stand as this one does.
            if told && !self.is_stalled() {
                self.set_helper(None).await;
                return true;
            }
        }
        let others = peers.into_iter().filter(|peer| !near.contains(peer)).take(OTHERS_MAX);
        self.follow_each(&others.collect::<Vec<_>>(), links).await
    }

    /// Whether this node votes, and hears of the log as one who does.
    fn hears(&self, links: &Links) -> bool {
        !self.is_stalled() && links.reach_quorum(self.epochs.borrow().current())
    }

    /// Whether it votes in a round that does not end.
    fn is_stalled(&self) -> bool {
        let since = *self.expired.borrow();
        self.is_keeper(&self.overlay.id()) && since.is_some_and(|since| since.elapsed() >= STALLED_AFTER)
    }

    /// Whether somebody votes in the epoch that is under way.
    fn is_keeper(&self, peer: &NodeId) -> bool {
        self.epochs.borrow().current().seat(peer).is_some()
    }

    /// Follows what each of them tells, one after the other. Whether any told something.
    async fn follow_each(&mut self, keepers: &[NodeId], links: &Links) -> bool {
        let mut told = false;
        for keeper in keepers {
            match Asking::open(&self.overlay, *keeper).await {
                Ok(asking) => {
                    if let Err(why) = self.follow_one(*keeper, asking, links, &mut told).await {
                        tracing::debug!(%keeper, why, "the log is not told by a keeper any more");
                    }
                }
                Err(why) => tracing::debug!(%keeper, why, "a keeper of the log is not reached"),
            }
        }
        told
    }

    /// Follows what one keeper tells until it has nothing new. `told`: it told something, or that there is nothing.
    async fn follow_one(
        &mut self,
        keeper: NodeId,
        mut asking: Asking,
        links: &Links,
        told: &mut bool,
    ) -> Result<(), String> {
        let me = self.overlay.id();
        loop {
            if self.hears(links) {
                return Ok(());
            }
            let above = *self.tip.borrow_and_update();
            let wait = if self.is_keeper(&me) { LOOK_AGAIN } else { WAIT_MAX };
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let ask = Ask::Blocks { chain: self.chain, above, wait_ms };
            let answer = tokio::select! {
                answer = asking.ask(&ask, WAIT_MAX + ANSWER_MAX) => answer?,
                () = self.in_vain() => return Ok(()),
            };
            if let Answer::Compacted(base) = answer {
                self.tell_compacted(keeper, base, !self.is_keeper(&keeper));
                return Ok(());
            }
            let news = self.take(answer).await?;
            *told = true;
            if news && !self.is_keeper(&keeper) {
                self.set_helper(Some(keeper)).await;
            }
            if !news {
                return Ok(());
            }
            // The next stretch begins where this one ends.
            let grown = self.tip.wait_for(|tip| *tip > above);
            match tokio::time::timeout(TAKE_MAX, grown).await {
                Ok(Ok(_)) => {}
                Ok(Err(_stopped)) => return Err("the node stops".to_owned()),
                Err(_elapsed) => return Err("what it told was not taken".to_owned()),
            }
        }
    }

    /// Entries were handed on, and there was time to order them.
    async fn in_vain(&self) {
        self.handed.notified().await;
        tokio::time::sleep(IN_VAIN).await;
    }

    /// Checks an answer and gives it to the machine; whether there was anything in it.
    async fn take(&self, answer: Answer) -> Result<bool, String> {
        let (blocks, end) = match answer {
            Answer::Blocks { blocks, end: Some(end), .. } => (blocks, *end),
            Answer::Blocks { .. } => return Ok(false),
            Answer::Far(qc) => (Vec::new(), ChainEnd::Certified(qc)),
            Answer::Refused(why) => return Err(why.chars().take(200).collect()),
            _ => return Err("an answer to something else".to_owned()),
        };
        let (checker, seen) = (self.checker(), Arc::clone(&self.seen));
        let checking = tokio::task::spawn_blocking(move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            check(&checker, &mut seen, blocks, end)
        });
        let heard = checking.await.map_err(|error| error.to_string())??;
        self.heard.send(heard).await.map_err(|_stopped| "the node stops".to_owned())?;
        Ok(true)
    }
}

/// Every block of a stretch, and what is at its end: a certificate, which may commit what no block in it does, or the
/// proof that the epoch is over.
pub(super) fn check(
    checker: &Checker,
    seen: &mut Seen,
    blocks: Vec<Proposal>,
    end: ChainEnd,
) -> Result<Heard, String> {
    let blocks = checker.check_chain(seen, blocks, &end).map_err(|why| why.to_string())?;
    let proof = match end {
        ChainEnd::Certified(qc) => Message::Certificates { qc: *qc, tc: None },
        ChainEnd::Epoch(proof) => Message::EpochEnded(*proof),
    };
    let proof = checker.check(seen, proof).map_err(|why| why.to_string())?;
    Ok(Heard::Synced { blocks, proof })
}

/// What telling needs.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) chain: ChainId,
    pub(super) disk: Disk,
    pub(super) tip: watch::Receiver<Height>,
    pub(super) heard: mpsc::Sender<Heard>,
    /// This node; only who votes takes entries, and can order them.
    pub(super) me: NodeId,
    pub(super) epochs: Now,
}

impl Keeper {
    /// Tells the log to whoever asks.
    pub(super) fn start(
        self,
        overlay: &Overlay,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), AlreadyAccepted> {
        let listener = overlay.accept_channels(ChannelKind::OrderSync)?;
        let telling = self.tell_all(listener, stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(telling));
        Ok(())
    }

    async fn tell_all(self, mut listener: ChannelListener, stop: CancellationToken, tasks: TaskTracker) {
        let places = Arc::new(Semaphore::new(ANSWERED_MAX));
        while let Some(channel) = listener.next().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let keeper = self.clone();
            tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                let peer = channel.peer();
                if let Err(why) = keeper.tell(channel).await {
                    tracing::debug!(%peer, why, "who asks for the log broke off");
                }
                drop(place);
            }));
        }
    }

    async fn tell(mut self, channel: Channel) -> Result<(), String> {
        let peer = channel.peer();
        let (mut sender, mut receiver) = channel.split();
        loop {
            let asked = tokio::time::timeout(IDLE_MAX, receiver.next()).await;
            let frame = match asked {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) | Err(_) => return Ok(()),
            };
            let ask = Ask::decode(&frame).map_err(|error| error.to_string())?;
            let answer = tokio::select! {
                answer = self.answer(peer, ask) => answer,
                // Nothing is asked before the answer came.
                _ended = receiver.next() => return Ok(()),
            };
            sender.send(&answer.encode()).await.map_err(|error| error.to_string())?;
        }
    }

    async fn answer(&mut self, peer: NodeId, ask: Ask) -> Answer {
        if ask.chain() != self.chain {
            return Answer::Refused(format!("this is log {}", self.chain));
        }
        match ask {
            Ask::Blocks { above, wait_ms, .. } => self.blocks(above, wait_ms).await,
            Ask::Range { range, .. } => {
                let told = move |disk: &Disk| {
                    let base = disk.base_height()?;
                    if range.above < base {
                        Ok(Answer::Compacted(base))
                    } else {
                        disk.range(&range).map(Answer::Range)
                    }
                };
                self.read(told).await.unwrap_or_else(Answer::Refused)
            }
            Ask::Snapshot { .. } => {
                let certified = self.read(Disk::certified).await;
                certified.map_or_else(Answer::Refused, |found| Answer::Snapshot(found.map(Box::new)))
            }
            Ask::Piece { piece, .. } => {
                let found = self.read(move |disk| disk.piece(&piece)).await;
                found.map_or_else(Answer::Refused, |found| Answer::Piece(found.map(ByteBuf::from)))
            }
            Ask::Batch { batch, .. } => {
                let entries = |batch: payloads::Batch| batch.to_bytes();
                let found = self.read(move |disk| Ok(disk.batch(&batch)?.map(entries))).await;
                found.map_or_else(Answer::Refused, Answer::Batch)
            }
            Ask::Submit { .. } if self.epochs.borrow().current().seat(&self.me).is_none() => {
                Answer::Refused("this node does not vote".to_owned())
            }
            Ask::Submit { entries, .. } if entries.len() > HANDED_MAX => {
                Answer::Refused("too many entries at once".to_owned())
            }
            Ask::Submit { entries, .. } => {
                let message = payloads::Message::Entries(entries);
                let received = Input::Payloads(payloads::Input::Received { from: peer, message });
                match self.heard.send(Heard::Log(received)).await {
                    Ok(()) => Answer::Taken,
                    Err(_stopped) => Answer::Refused("the node stops".to_owned()),
                }
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, String> {
        let disk = self.disk.clone();
        match tokio::task::spawn_blocking(move || work(&disk)).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_stopped) => Err("the node stops".to_owned()),
        }
    }

    async fn blocks(&mut self, above: Height, wait_ms: u64) -> Answer {
        let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
        // Ignored because an answer without blocks says enough.
        drop(tokio::time::timeout(wait, self.tip.wait_for(|tip| *tip > above)).await);
        let epochs = Arc::clone(&self.epochs.borrow());
        let told = self.read(move |disk| {
            let base = disk.base_height()?;
            if above < base {
                return Ok(Answer::Compacted(base));
            }
            if let Some(proof) = disk.far(above, &epochs)? {
                return Ok(Answer::Far(Box::new(proof)));
            }
            let Stretch { blocks, end, height } = disk.stretch(above)?;
            Ok(Answer::Blocks { blocks, end, height })
        });
        told.await.unwrap_or_else(Answer::Refused)
    }
}
