use wattle_docs::{Label, Outcome, RequestId, Role, Show};
use wattle_types::{NetworkName, NodeId, SecretKey, Table, UnixTime, Write};

use super::*;

const COUNT: u16 = 5;

/// A node: its machines and its disk.
struct Node {
    documents: Documents,
    disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    sent: Vec<(NodeId, Vec<u8>)>,
    outcomes: BTreeMap<RequestId, Outcome>,
}

fn config(seed: u8) -> Config {
    Config {
        key: SecretKey::from_bytes(&[seed; 32]),
        network: NetworkName::default(),
        seed: [seed; 32],
        started: UnixTime::from_millis(1_800_000_000_000),
        label: |_| Label::default(),
        show: Show::NOTHING,
    }
}

impl Node {
    fn new(seed: u8) -> Self {
        let documents = Documents::new(&config(seed), COUNT, Vec::new(), Vec::new(), Vec::new()).unwrap();
        Self { documents, disk: BTreeMap::new(), sent: Vec::new(), outcomes: BTreeMap::new() }
    }

    fn handle(&mut self, input: Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.documents.handle(Time::ZERO, input, &mut out);
            for output in out.drain() {
                match output {
                    Output::Send { peer, frame } => self.sent.push((peer, frame)),
                    Output::Persist { id, writes } => {
                        for write in writes {
                            let Write::Put { table, key, value } = write else {
                                panic!("nothing is removed")
                            };
                            self.disk.insert((table, key), value);
                        }
                        todo.push(Input::Persisted { id });
                    }
                    Output::Reply { request, outcome } => {
                        self.outcomes.insert(request, outcome.unwrap());
                    }
                    Output::Misbehaved { why, .. } => panic!("{why}"),
                    _ => {}
                }
            }
        }
    }

    fn create(&mut self, number: u64) -> DocId {
        let request = RequestId(number);
        self.handle(Input::Create { request, history: None, edit: Box::new(|_| Ok(())) });
        match self.outcomes.remove(&request) {
            Some(Outcome::Opened { doc }) => doc,
            other => panic!("{other:?}"),
        }
    }

    fn rows(&self, table: Table) -> Rows {
        let rows = self.disk.iter().filter(|((of, _), _)| *of == table);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }
}

#[test]
fn a_document_is_made_where_its_id_is_at_home_and_is_there_again_after_a_restart() {
    let mut node = Node::new(1);
    let docs: Vec<DocId> = (0..10).map(|number| node.create(number)).collect();
    let homes: Vec<u16> = docs.iter().map(|doc| Shard::of(doc, COUNT).index()).collect();
    assert_eq!(homes, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], "each machine makes its share");
    for doc in &docs {
        assert!(node.documents.home(doc).unwrap().status(doc).is_some(), "{doc} is not at home");
    }
    let [rows, operations, feeds] = [Table::Docs, Table::DocControl, Table::DocFeeds].map(|it| node.rows(it));
    let again = Documents::new(&config(1), COUNT, rows, operations, feeds).unwrap();
    assert_eq!(again.list(), node.documents.list());
    for doc in &docs {
        assert_eq!(again.members(doc).unwrap().iter().count(), 1, "{doc} is without its operations");
    }
}

#[test]
fn no_two_machines_of_a_node_draw_the_same() {
    let mut node = Node::new(1);
    let docs: std::collections::BTreeSet<DocId> = (0..20).map(|number| node.create(number)).collect();
    let secrets: std::collections::BTreeSet<DocTag> =
        docs.iter().map(|doc| node.documents.access(doc).unwrap().read.tag()).collect();
    assert_eq!((docs.len(), secrets.len()), (20, 20));
}

/// Passes frames on until nothing more is said.
fn talk(alice: &mut Node, bob: &mut Node, ids: (NodeId, NodeId)) {
    while !alice.sent.is_empty() || !bob.sent.is_empty() {
        for (_, frame) in std::mem::take(&mut alice.sent) {
            bob.handle(Input::Received { peer: ids.0, frame });
        }
        for (_, frame) in std::mem::take(&mut bob.sent) {
            alice.handle(Input::Received { peer: ids.1, frame });
        }
    }
}

#[test]
fn every_document_of_two_nodes_comes_through_one_channel() {
    let (mut alice, mut bob) = (Node::new(1), Node::new(2));
    let ids = (config(1).key.node_id(), config(2).key.node_id());
    alice.handle(Input::PeerUp { peer: ids.1 });
    bob.handle(Input::PeerUp { peer: ids.0 });
    let docs: Vec<DocId> = (0..10).map(|number| alice.create(number)).collect();
    for (number, doc) in (100..).zip(&docs) {
        let (request, doc) = (RequestId(number), *doc);
        alice.handle(Input::Invite { request, doc, role: Role::Writer, expires: None, uses: None });
        let Some(Outcome::Invited { access, bearer }) = alice.outcomes.remove(&request) else { panic!() };
        bob.handle(Input::Join { request, access, bearer: Some(bearer), inviter: Some(ids.0) });
        talk(&mut alice, &mut bob, ids);
    }
    let here = bob.documents.list();
    assert_eq!(here.len(), docs.len());
    for status in here {
        assert_eq!((status.members, status.peers.len()), (2, 1), "{}", status.doc);
        let home = Shard::of(&status.doc, COUNT);
        assert!(
            home.holds(&status.doc) && bob.documents.home(&status.doc).unwrap().access(&status.doc).is_some()
        );
    }
}

#[test]
fn a_tag_that_means_nothing_here_is_always_for_the_same_machine() {
    let mut node = Node::new(1);
    let frame = |tag: u8| Input::Received { peer: config(2).key.node_id(), frame: vec![tag; 40] };
    let before: Vec<Route> = (0..50).map(|tag| node.documents.shards.route(&frame(tag))).collect();
    for number in 0..10 {
        node.create(number);
    }
    let after: Vec<Route> = (0..50).map(|tag| node.documents.shards.route(&frame(tag))).collect();
    assert_eq!(before, after);
    assert!(after.iter().any(|route| *route != after[0]), "strangers' tags are spread");
}

#[test]
fn who_broke_the_protocol_is_gone_for_the_machine_that_says_so() {
    let peer = config(2).key.node_id();
    let next = follows(&Output::Misbehaved { peer, why: "a test" });
    assert!(matches!(next, Some(Input::PeerDown { peer: gone }) if gone == peer));
}
