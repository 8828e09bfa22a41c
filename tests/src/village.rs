//! Some nodes with apps: hosts woven to documents as the binary weaves them, over a network and disks that do
//! everything at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wattle_app::{App, AppId, Call, CallId, Host, Quota, Reject};
use wattle_docs::{Config, Input, Label, Outcome, Output, RequestId, Role, Show};
use wattle_types::{
    DocId, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Table, Time, UnixTime, Write, cbor,
};
use wattle_weave::Documents;

use crate::overlay::fail;

/// Machines that share a node's documents.
const SHARDS: u16 = 3;

const STARTED: UnixTime = UnixTime::from_millis(1_800_000_000_000);

enum Event {
    Docs(Input),
    Apps(wattle_app::Input),
}

struct Villager {
    seed: u8,
    started: UnixTime,
    id: NodeId,
    documents: Documents,
    host: Host,
    disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    calls: BTreeMap<RequestId, CallId>,
}

/// Nodes that are all connected.
pub struct Village {
    now: Time,
    nodes: Vec<Villager>,
    queue: VecDeque<(usize, Event)>,
    made: u64,
    answers: BTreeMap<u64, Result<Vec<u8>, Reject>>,
    outcomes: BTreeMap<RequestId, Outcome>,
    /// What apps told, by node.
    pub told: Vec<(usize, Vec<u8>)>,
}

impl Village {
    /// So many nodes, each with one app.
    #[must_use]
    pub fn new(nodes: usize, app: impl Fn() -> Box<dyn App>) -> Self {
        Self::with_clocks(&vec![Duration::ZERO; nodes], app)
    }

    /// A node for each of these clocks, which are so far ahead.
    #[must_use]
    pub fn with_clocks(clocks: &[Duration], app: impl Fn() -> Box<dyn App>) -> Self {
        let nodes = clocks.len();
        let mut village = Self {
            now: Time::ZERO,
            nodes: Vec::new(),
            queue: VecDeque::new(),
            made: 0,
            answers: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            told: Vec::new(),
        };
        for (seed, ahead) in (1..=u8::MAX).zip(clocks) {
            let id = SecretKey::from_bytes(&[seed; 32]).node_id();
            let started = STARTED.after(*ahead);
            let (disk, calls) = (BTreeMap::new(), BTreeMap::new());
            let (documents, host) = start(seed, started, &disk, app());
            village.nodes.push(Villager { seed, started, id, documents, host, disk, calls });
        }
        for one in 0..nodes {
            for other in 0..nodes {
                if let Some(peer) = village.nodes.get(other).map(|node| node.id).filter(|_| one != other) {
                    village.queue.push_back((one, Event::Docs(Input::PeerUp { peer })));
                }
            }
        }
        village.settle();
        village
    }

    /// Ends a node, whatever it was doing, and starts it again from its disk. Time goes on.
    pub fn restart(&mut self, node: usize, app: Box<dyn App>) {
        self.queue.retain(|(of, _)| *of != node);
        let others: Vec<(usize, NodeId)> =
            self.nodes.iter().map(|node| node.id).enumerate().filter(|(of, _)| *of != node).collect();
        let Some(villager) = self.nodes.get_mut(node) else { fail("no such node") };
        let peer = villager.id;
        villager.calls.clear();
        (villager.documents, villager.host) = start(villager.seed, villager.started, &villager.disk, app);
        let told = villager.documents.at_start();
        self.queue.extend(told.into_iter().map(|input| (node, Event::Apps(input))));
        for (other, id) in others {
            self.queue.push_back((other, Event::Docs(Input::PeerDown { peer })));
            self.queue.push_back((other, Event::Docs(Input::PeerUp { peer })));
            self.queue.push_back((node, Event::Docs(Input::PeerUp { peer: id })));
        }
        self.settle();
    }

    /// Who a node is.
    #[must_use]
    pub fn id(&self, node: usize) -> NodeId {
        self.nodes.get(node).map_or_else(|| fail("no such node"), |node| node.id)
    }

    /// What a node's clock says.
    #[must_use]
    pub fn clock(&self, node: usize) -> UnixTime {
        let started = self.nodes.get(node).map_or_else(|| fail("no such node"), |node| node.started);
        started.after(self.now.since(Time::ZERO))
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    pub fn wait(&mut self, span: Duration) {
        let end = self.now.after(span);
        loop {
            self.settle();
            let wakes = self.nodes.iter().enumerate().flat_map(|(index, node)| {
                [node.documents.deadline(), node.host.deadline()].map(|at| at.map(|at| (at, index)))
            });
            let Some((at, node)) = wakes.flatten().min().filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.queue.push_back((node, Event::Docs(Input::Wake)));
            self.queue.push_back((node, Event::Apps(wattle_app::Input::Wake)));
        }
        self.now = end;
    }

    fn settle(&mut self) {
        while let Some((node, event)) = self.queue.pop_front() {
            match event {
                Event::Docs(input) => self.docs(node, input),
                Event::Apps(input) => self.apps(node, input),
            }
        }
    }

    fn docs(&mut self, index: usize, input: Input) {
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let Some(node) = self.nodes.get_mut(index) else { return };
        let mut out = Outbox::new();
        node.documents.handle(self.now, input, &mut out);
        for output in out.drain().collect::<Vec<_>>() {
            let back = |input| (index, Event::Docs(input));
            match output {
                Output::Send { peer, frame } => {
                    let to = ids.iter().position(|id| *id == peer);
                    let event = Event::Docs(Input::Received { peer: node.id, frame });
                    self.queue.extend(to.map(|to| (to, event)));
                }
                Output::Persist { id, writes } => {
                    write(&mut node.disk, writes);
                    self.queue.push_back(back(Input::Persisted { id }));
                }
                Output::Load { doc, keys } => {
                    let values = Ok(keys.into_iter().map(|key| node.disk.get(&key).cloned()).collect());
                    self.queue.push_back(back(Input::Loaded { doc, values }));
                }
                Output::Fetch { id, keys } => {
                    let values = Ok(keys.into_iter().map(|key| node.disk.get(&key).cloned()).collect());
                    self.queue.push_back(back(Input::Fetched { id, values }));
                }
                Output::Reply { request, outcome } => match node.calls.remove(&request) {
                    Some(call) => {
                        let result = wattle_weave::to_answer(outcome);
                        self.queue.push_back((index, Event::Apps(wattle_app::Input::Done { call, result })));
                    }
                    None => {
                        let outcome = outcome.unwrap_or_else(|error| fail(&error.to_string()));
                        self.outcomes.insert(request, outcome);
                    }
                },
                Output::Notify(event) => {
                    let told = node.documents.to_apps(&event);
                    self.queue.extend(told.into_iter().map(|input| (index, Event::Apps(input))));
                }
                Output::Seek { .. } | Output::Held { .. } | Output::Dropped { .. } => {}
                Output::Misbehaved { why, .. } => fail(why),
            }
        }
    }

    fn apps(&mut self, index: usize, input: wattle_app::Input) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let mut out = Outbox::new();
        node.host.handle(self.now, input, &mut out);
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                wattle_app::Output::Call { call, what: Call::Page { doc, before, limit }, .. } => {
                    let get = |table, key: &[u8]| Ok(node.disk.get(&(table, key.to_vec())).cloned());
                    let log = node.documents.feed_log(&doc);
                    let page = log.map(|log| log.page(&get, before, limit)).unwrap_or_else(|| Ok(Vec::new()));
                    let page = page.unwrap_or_else(|why| fail(&why));
                    let result = Ok(wattle_app::Answer::Page(page));
                    self.queue.push_back((index, Event::Apps(wattle_app::Input::Done { call, result })));
                }
                wattle_app::Output::Call { call, what, .. } => {
                    self.made += 1;
                    let request = RequestId(self.made);
                    let event = match wattle_weave::to_docs(request, what) {
                        Ok(input) => {
                            node.calls.insert(request, call);
                            Event::Docs(input)
                        }
                        Err(error) => Event::Apps(wattle_app::Input::Done { call, result: Err(error) }),
                    };
                    self.queue.push_back((index, event));
                }
                wattle_app::Output::Reply { request, answer } => {
                    let twice = self.answers.insert(request.0, answer);
                    if twice.is_some() {
                        fail("a request was answered twice");
                    }
                }
                wattle_app::Output::Emit { event, .. } => self.told.push((index, event)),
                other => fail(&format!("a village has no log for {other:?}")),
            }
        }
    }

    /// Asks the app of a node.
    ///
    /// # Errors
    /// The app's refusal.
    pub fn ask(&mut self, node: usize, app: AppId, body: Vec<u8>) -> Result<Vec<u8>, Reject> {
        self.made += 1;
        let id = self.made;
        let input = wattle_app::Input::Request { id: wattle_app::RequestId(id), app, body };
        self.queue.push_back((node, Event::Apps(input)));
        self.wait(Duration::from_secs(1));
        self.answers.remove(&id).unwrap_or_else(|| fail("the app gave no answer"))
    }

    /// The same for several questions that come at once.
    pub fn ask_all(&mut self, node: usize, app: AppId, bodies: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, Reject>> {
        let first = self.made + 1;
        for body in bodies {
            self.made += 1;
            let input = wattle_app::Input::Request { id: wattle_app::RequestId(self.made), app, body };
            self.queue.push_back((node, Event::Apps(input)));
        }
        let last = self.made;
        self.wait(Duration::from_secs(1));
        let answer = |id| self.answers.remove(&id).unwrap_or_else(|| fail("the app gave no answer"));
        (first..=last).map(answer).collect()
    }

    fn docs_ask(&mut self, node: usize, input: impl FnOnce(RequestId) -> Input) -> Outcome {
        self.made += 1;
        let request = RequestId(self.made);
        self.queue.push_back((node, Event::Docs(input(request))));
        self.wait(Duration::from_secs(1));
        self.outcomes.remove(&request).unwrap_or_else(|| fail("the documents gave no answer"))
    }

    /// Lets every other node into a document of the first.
    pub fn invite_all(&mut self, doc: DocId) {
        for guest in 1..self.nodes.len() {
            let invite =
                |request| Input::Invite { request, doc, role: Role::Writer, expires: None, uses: None };
            let Outcome::Invited { access, bearer } = self.docs_ask(0, invite) else { fail("no ticket") };
            let inviter = Some(self.id(0));
            let join = |request| Input::Join { request, access, bearer: Some(bearer), inviter };
            self.docs_ask(guest, join);
        }
    }

    /// What apps told at one node, decoded.
    ///
    /// # Panics
    /// When it is something else.
    pub fn heard<T: serde::Serialize + serde::de::DeserializeOwned>(&self, node: usize) -> Vec<T> {
        let told = self.told.iter().filter(|(of, _)| *of == node);
        let read = |bytes: &[u8]| cbor::decode(bytes, bytes.len());
        told.map(|(_, bytes)| read(bytes).unwrap_or_else(|error| fail(&error.to_string()))).collect()
    }
}

fn start(
    seed: u8,
    started: UnixTime,
    disk: &BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    app: Box<dyn App>,
) -> (Documents, Host) {
    let key = SecretKey::from_bytes(&[seed; 32]);
    let me = key.node_id();
    let config = Config {
        key,
        network: NetworkName::default(),
        seed: [seed; 32],
        started,
        label: |automerge| Label { kind: wattle_app::kind_of(automerge), title: title(automerge) },
        show: Show { from: 0, form: wattle_pad::SHOWN_FORM, bytes: wattle_pad::shown },
    };
    let rows = |table| {
        let rows = disk.iter().filter(move |((of, _), _)| *of == table);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    };
    let (docs, operations) = (rows(Table::Docs), rows(Table::DocControl));
    let documents = Documents::new(&config, SHARDS, docs, operations, rows(Table::DocFeeds));
    let documents = documents.unwrap_or_else(|error| fail(&error.to_string()));
    let config = wattle_app::Config { me, seed: [seed; 32], started, quota: Quota::default() };
    (documents, Host::new(config, vec![app]))
}

fn title(automerge: &automerge::Automerge) -> String {
    use automerge::ReadDoc as _;
    let title = automerge.get(automerge::ROOT, "title").ok().flatten();
    title.and_then(|(value, _)| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn write(disk: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put { table, key, value } => drop(disk.insert((table, key), value)),
            Write::Remove { table, key } => drop(disk.remove(&(table, key))),
            Write::RemoveRange { table, range } => {
                disk.retain(|(of, key), _| *of != table || !range.contains(key));
            }
        }
    }
}
