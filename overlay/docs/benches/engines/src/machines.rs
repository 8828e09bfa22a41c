//! Two of our machines without sockets and disks, so that bytes and CPU are known for each side; and
//! Automerge's own protocol in the same harness.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc};
use wattle_docs::{Config, DocError, Edit, Input, Label, Outcome, Output, Replica, RequestId, Role, Show};
use wattle_types::{
    DocId, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Table, Time, UnixTime, Write,
};

use crate::Result;
use crate::report::thread_cpu;

/// What a side cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Of the machine alone: what the disk and the network cost is not in it.
    pub cpu: Duration,
    pub sent: u64,
    /// Given to the store.
    pub written: u64,
}

struct Side {
    id: NodeId,
    key: SecretKey,
    replica: Replica,
    disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    cost: Cost,
}

/// Two machines and what is on its way between them.
pub struct Pair {
    sides: [Side; 2],
    now: Time,
    queue: VecDeque<(usize, Input)>,
    connected: bool,
    requests: u64,
    replies: BTreeMap<RequestId, std::result::Result<Outcome, DocError>>,
    misbehaved: Option<&'static str>,
}

impl Pair {
    pub fn new() -> Result<Self> {
        Ok(Self {
            sides: [Side::new(1)?, Side::new(2)?],
            now: Time::ZERO,
            queue: VecDeque::new(),
            connected: false,
            requests: 0,
            replies: BTreeMap::new(),
            misbehaved: None,
        })
    }

    /// What each side cost since the last call.
    pub fn take_costs(&mut self) -> [Cost; 2] {
        let [one, two] = &mut self.sides;
        [std::mem::take(&mut one.cost), std::mem::take(&mut two.cost)]
    }

    pub fn connect(&mut self) {
        self.connected = true;
        for at in 0..2 {
            self.queue.push_back((at, Input::PeerUp { peer: self.sides[1 - at].id }));
        }
    }

    /// Starts both again from their disks.
    pub fn restart(&mut self) -> Result<()> {
        self.connected = false;
        self.queue.clear();
        for side in &mut self.sides {
            side.replica = start(&side.key, &side.disk)?;
        }
        Ok(())
    }

    pub fn import(&mut self, history: Automerge) -> Result<DocId> {
        let history = Some(Box::new(history));
        let edit: Edit = Box::new(|_transaction| Ok(()));
        match self.ask(0, |request| Input::Create { request, history, edit })? {
            Outcome::Opened { doc } => Ok(doc),
            other => Err(format!("{other:?}").into()),
        }
    }

    pub fn edit(&mut self, doc: DocId, edit: Edit) -> Result<()> {
        self.ask(0, |request| Input::Edit { request, doc, at: None, edit }).map(drop)
    }

    /// Lets the second join.
    pub fn share(&mut self, doc: DocId) -> Result<()> {
        let invite = |request| Input::Invite { request, doc, role: Role::Writer, expires: None, uses: None };
        let Outcome::Invited { access, bearer } = self.ask(0, invite)? else {
            return Err("no ticket".into());
        };
        let inviter = Some(self.sides[0].id);
        self.ask(1, |request| Input::Join { request, access, bearer: Some(bearer), inviter }).map(drop)
    }

    fn ask(&mut self, at: usize, input: impl FnOnce(RequestId) -> Input) -> Result<Outcome> {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.queue.push_back((at, input(request)));
        self.run(|pair| pair.replies.contains_key(&request))?;
        let outcome = self.replies.remove(&request).ok_or("no answer")?;
        Ok(outcome?)
    }

    /// Goes on until both hold the same and know it.
    pub fn until_equal(&mut self, doc: DocId) -> Result<()> {
        self.run(|pair| {
            let status = |side: &Side| side.replica.status(&doc);
            let [Some(one), Some(two)] = [status(&pair.sides[0]), status(&pair.sides[1])] else {
                return false;
            };
            let knows = |peers: &[wattle_docs::PeerStatus]| peers.iter().any(|peer| peer.in_sync);
            !one.heads.is_empty() && one.heads == two.heads && knows(&one.peers) && knows(&two.peers)
        })
    }

    /// Lets everything happen until `done`, and what is on its way then.
    fn run(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        for _ in 0..10_000_000 {
            if let Some(why) = self.misbehaved {
                return Err(why.into());
            }
            if let Some((at, input)) = self.queue.pop_front() {
                self.handle(at, input);
            } else if done(self) {
                return Ok(());
            } else {
                let wakes = self.sides.iter().enumerate();
                let wakes = wakes.filter_map(|(at, side)| Some((side.replica.deadline()?, at)));
                let (when, at) = wakes.min().ok_or("both wait for ever")?;
                self.now = self.now.max(when);
                self.handle(at, Input::Wake);
            }
        }
        Err("the machines talk without end".into())
    }

    fn handle(&mut self, at: usize, input: Input) {
        let mut out = Outbox::new();
        let side = &mut self.sides[at];
        let begun = thread_cpu();
        side.replica.handle(self.now, input, &mut out);
        side.cost.cpu += thread_cpu() - begun;
        for output in out.drain().collect::<Vec<_>>() {
            self.dispatch(at, output);
        }
    }

    fn dispatch(&mut self, at: usize, output: Output) {
        let side = &mut self.sides[at];
        match output {
            Output::Send { frame, .. } if self.connected => {
                side.cost.sent += bytes(frame.len());
                let peer = side.id;
                self.queue.push_back((1 - at, Input::Received { peer, frame }));
            }
            Output::Persist { id, writes } => {
                side.write(writes);
                self.queue.push_back((at, Input::Persisted { id }));
            }
            Output::Load { doc, keys } => {
                let values = Ok(side.read(&keys));
                self.queue.push_back((at, Input::Loaded { doc, values }));
            }
            Output::Fetch { id, keys } => {
                let values = Ok(side.read(&keys));
                self.queue.push_back((at, Input::Fetched { id, values }));
            }
            Output::Seek { doc, .. } if self.connected => {
                let peer = self.sides[1 - at].id;
                self.queue.push_back((at, Input::Found { doc, peer }));
            }
            Output::Reply { request, outcome } => drop(self.replies.insert(request, outcome)),
            Output::Misbehaved { why, .. } => self.misbehaved = Some(why),
            Output::Send { .. } | Output::Seek { .. } | Output::Notify(_) => {}
            Output::Held { .. } | Output::Dropped { .. } => {}
        }
    }
}

impl Side {
    fn new(number: u8) -> Result<Self> {
        let key = SecretKey::from_bytes(&[number; 32]);
        let disk = BTreeMap::new();
        Ok(Self { id: key.node_id(), replica: start(&key, &disk)?, key, disk, cost: Cost::default() })
    }

    fn read(&self, keys: &[(Table, Vec<u8>)]) -> Vec<Option<Vec<u8>>> {
        keys.iter().map(|key| self.disk.get(key).cloned()).collect()
    }

    fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { table, key, value } => {
                    self.cost.written += bytes(key.len() + value.len());
                    self.disk.insert((table, key), value);
                }
                Write::Remove { table, key } => drop(self.disk.remove(&(table, key))),
                Write::RemoveRange { table, range } => {
                    self.disk.retain(|(of, key), _| *of != table || !range.contains(key));
                }
            }
        }
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn start(key: &SecretKey, disk: &BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Result<Replica> {
    let rows = |table| {
        let rows = disk.iter().filter(move |((of, _), _)| *of == table);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    };
    let config = Config {
        key: key.clone(),
        network: NetworkName::default(),
        seed: *key.to_bytes(),
        started: UnixTime::from_millis(1_800_000_000_000),
        label: |_| Label::default(),
        show: Show::NOTHING,
    };
    Ok(Replica::new(config, rows(Table::Docs), rows(Table::DocControl), rows(Table::DocFeeds))?)
}

/// Two documents meet by Automerge's own protocol, without knowing of each other: what each side cost.
pub fn automerge_alone(one: &mut Automerge, two: &mut Automerge) -> Result<[Cost; 2]> {
    let documents = [one, two];
    let mut states = [State::new(), State::new()];
    let mut costs = [Cost::default(); 2];
    let mut silent = 0;
    let mut at = 0;
    while silent < 2 {
        let begun = thread_cpu();
        let message = documents[at].generate_sync_message(&mut states[at]).map(Message::encode);
        costs[at].cpu += thread_cpu() - begun;
        match message {
            None => silent += 1,
            Some(message) => {
                silent = 0;
                costs[at].sent += bytes(message.len());
                let begun = thread_cpu();
                let message = Message::decode(&message)?;
                documents[1 - at].receive_sync_message(&mut states[1 - at], message)?;
                costs[1 - at].cpu += thread_cpu() - begun;
            }
        }
        at = 1 - at;
    }
    Ok(costs)
}
