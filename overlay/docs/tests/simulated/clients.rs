//! Programs that edit through a node by automerge's own sync protocol.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::sync::{Message, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ObjType, ReadDoc as _};
use wattle_docs::{Conversation, DocError, Edit, Event, Input, Outcome, PRESENCE_PER_SECOND, Presence, Role};
use wattle_types::{DocId, Table};

use crate::SECOND;
use crate::world::{Faults, World, put};

/// A program with its own replica, as automerge-repo has it.
struct Program {
    automerge: Automerge,
    state: State,
    conversation: Box<Conversation>,
}

impl Program {
    fn new(actor: u8) -> Self {
        let automerge = Automerge::new().with_actor(ActorId::from([actor; 16]));
        Self { automerge, state: State::new(), conversation: Box::default() }
    }

    fn put(&mut self, key: &str) {
        let mut transaction = self.automerge.transaction();
        transaction.put(automerge::ROOT, key, "x").unwrap();
        transaction.commit();
    }

    fn write(&mut self, words: &str) {
        let mut transaction = self.automerge.transaction();
        let text = transaction.put_object(automerge::ROOT, "text", ObjType::Text).unwrap();
        transaction.splice_text(&text, 0, 0, words).unwrap();
        transaction.commit();
    }

    fn keys(&self) -> BTreeSet<String> {
        self.automerge.keys(automerge::ROOT).collect()
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.automerge.generate_sync_message(&mut self.state).map(Message::encode)
    }

    fn hear(&mut self, message: &[u8]) {
        let message = Message::decode(message).unwrap();
        self.automerge.receive_sync_message(&mut self.state, message).unwrap();
    }

    /// The connection broke: both sides keep what automerge keeps.
    fn reconnect(&mut self) {
        self.state = State::decode(&self.state.encode()).unwrap();
        *self.conversation = Conversation::default();
    }

    fn input(&self, doc: DocId, message: Option<Vec<u8>>) -> impl FnOnce(wattle_docs::RequestId) -> Input {
        let conversation = self.conversation.clone();
        move |request| Input::Sync { request, doc, conversation, message }
    }

    fn answered(&mut self, outcome: Result<Outcome, DocError>) -> Result<bool, DocError> {
        let Outcome::Synced { conversation, message } = outcome? else { panic!("another answer") };
        self.conversation = conversation.unwrap_or_default();
        if let Some(message) = &message {
            self.hear(message);
        }
        Ok(message.is_some())
    }

    /// Talks until neither has anything to say.
    fn talk(&mut self, world: &mut World, node: usize, doc: DocId) -> Result<(), DocError> {
        for _ in 0..20 {
            let message = self.next();
            let said = message.is_some();
            let outcome = world.ask(node, self.input(doc, message));
            if !self.answered(outcome)? && !said {
                return Ok(());
            }
        }
        panic!("they talk without end");
    }
}

fn id(number: u8) -> DocId {
    DocId::from_bytes([number; 16])
}

#[test]
fn what_a_program_writes_reaches_the_other_node_and_back() {
    let mut world = World::new(2, 21, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    program.put("from the program");
    program.talk(&mut world, 0, doc).unwrap();
    world.run(SECOND);
    world.put(1, doc, "from bob", "x").unwrap();
    world.run(SECOND);
    program.talk(&mut world, 0, doc).unwrap();
    let all = BTreeSet::from(["title", "from the program", "from bob"].map(str::to_owned));
    assert_eq!((world.keys(0, doc), world.keys(1, doc), program.keys()), (all.clone(), all.clone(), all));
    assert_eq!(world.save(0, doc), world.save(1, doc));
    let changed = |event: &&Event| matches!(event, Event::Changed { from: None, .. });
    assert_eq!(
        world.nodes[0].events.iter().filter(changed).count(),
        2,
        "the program's edit is the node's own"
    );
}

/// Whoever drives the machine does what is quick where it is: a small message is, whatever a large one is packed into
/// is not, and neither is a document of many operations.
#[test]
fn what_a_program_says_is_quick_while_it_holds_little_and_so_is_a_document() {
    let mut world = World::new(1, 20, Faults::NONE);
    let doc = world.create(0);
    let is_quick = |world: &mut World, program: &Program, message| {
        let input = program.input(doc, Some(message))(world.request());
        world.nodes[0].replica.as_ref().unwrap().is_quick(world.now, &input)
    };
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    program.put("one");
    let little = program.next().unwrap();
    assert!(is_quick(&mut world, &program, little.clone()));
    let outcome = world.ask(0, program.input(doc, Some(little)));
    program.answered(outcome).unwrap();
    // It rests, so it is read from the disk for what is asked of it.
    let is_read_quickly = |world: &mut World, all: Vec<Input>| {
        world.run(100 * SECOND);
        all.into_iter().for_each(|input| world.handle(0, input));
        let stored = world.nodes[0].disk.iter();
        let stored =
            stored.filter(|((table, _), _)| [Table::DocChanges, Table::DocSnapshots].contains(table));
        let values: Vec<_> = stored.map(|(_, value)| Some(value.clone())).collect();
        assert!(values.iter().flatten().map(Vec::len).sum::<usize>() < 2048);
        let input = Input::Loaded { doc, values: Ok(values) };
        world.nodes[0].replica.as_ref().unwrap().is_quick(world.now, &input)
    };
    let word = |world: &mut World, program: &Program, message| program.input(doc, message)(world.request());
    let words = |world: &mut World, program: &Program, count: usize| {
        (0..count).map(|_| word(world, program, None)).collect::<Vec<_>>()
    };
    let (four, five) = (words(&mut world, &program, 4), words(&mut world, &program, 5));
    assert!(is_read_quickly(&mut world, four));
    assert!(!is_read_quickly(&mut world, five), "each is answered");
    let edit = Input::Edit { request: world.request(), doc, at: None, edit: put("by hand", "x") };
    let with_edit = vec![word(&mut world, &program, None), edit];
    assert!(!is_read_quickly(&mut world, with_edit), "an edit takes what it takes");
    let many_heads = [&[0x43, 90][..], &[7; 90 * 32], &[0, 0, 0]].concat();
    let asked_much = vec![word(&mut world, &program, Some(many_heads))];
    assert!(!is_read_quickly(&mut world, asked_much));
    program.write(&"a".repeat(1_200));
    let large = program.next().unwrap();
    assert!(large.len() < 2048, "{}", large.len());
    assert!(!is_quick(&mut world, &program, large.clone()));
    let outcome = world.ask(0, program.input(doc, Some(large)));
    program.answered(outcome).unwrap();
    let one = words(&mut world, &program, 1);
    assert!(!is_read_quickly(&mut world, one));
    world.run(SECOND);
    let one = word(&mut world, &program, None);
    assert!(!world.nodes[0].replica.as_ref().unwrap().is_quick(world.now, &one));
}

/// All of what is remembered of a program is walked when it is answered.
#[test]
fn a_program_of_which_much_is_remembered_is_not_answered_quickly() {
    let mut world = World::new(1, 20, Faults::NONE);
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    let is_quick = |world: &mut World, program: &Program| {
        let input = program.input(doc, None)(world.request());
        world.nodes[0].replica.as_ref().unwrap().is_quick(world.now, &input)
    };
    assert!(is_quick(&mut world, &program));
    let many_needs = [&[0x43, 0][..], &[0xac, 0x02], &[7; 300 * 32], &[0, 0]].concat();
    let outcome = world.ask(0, program.input(doc, Some(many_needs)));
    program.answered(outcome).unwrap();
    assert!(!is_quick(&mut world, &program));
}

/// What a peer sends is, while it is one change or a few.
#[test]
fn what_a_peer_sends_is_quick_while_it_holds_few_operations() {
    let mut world = World::new(2, 20, Faults { delay_ms: 200, ..Faults::NONE });
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    let mut sent = |edit: Edit| {
        world.ask(0, |request| Input::Edit { request, doc, at: None, edit }).unwrap();
        let frame = world.last_on_its_way(1).unwrap();
        assert!(frame.len() < 2048 && frame.windows(4).any(|name| name == b"Part"), "{}", frame.len());
        let peer = world.nodes[0].id;
        let together = Input::ReceivedTogether { frames: vec![(peer, frame.clone()), (peer, frame.clone())] };
        let alone = Input::Received { peer, frame };
        let is_quick = |input| world.nodes[1].replica.as_ref().unwrap().is_quick(world.now, input);
        let is_quick = (is_quick(&alone), is_quick(&together));
        world.run(SECOND);
        is_quick
    };
    assert_eq!(sent(put("one", "x")), (true, true));
    let write = |letters: usize| -> Edit {
        Box::new(move |transaction| {
            let text = transaction
                .put_object(automerge::ROOT, "text", ObjType::Text)
                .map_err(|error| error.to_string())?;
            transaction.splice_text(&text, 0, 0, &"a".repeat(letters)).map_err(|error| error.to_string())
        })
    };
    assert_eq!(sent(write(50)), (true, true));
    assert_eq!(sent(write(500)), (false, false), "what is compressed is not looked at");
    assert_eq!(sent(put("another", "x")), (true, true));
    assert_eq!(sent(write(600)), (false, false));
    assert_eq!(sent(put("a third", "x")), (false, false), "the document is large by now");
}

#[test]
fn two_programs_that_write_at_once_on_two_nodes_end_equal_and_every_actor_is_vouched_for() {
    let mut world = World::new(2, 22, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    let mut programs: Vec<Program> = (1..=6).map(Program::new).collect();
    for (number, program) in programs.iter_mut().enumerate() {
        program.talk(&mut world, number % 2, doc).unwrap();
    }
    for round in 0..30 {
        for (number, program) in programs.iter_mut().enumerate() {
            program.put(&format!("{number} {round}"));
            if (round + number) % 3 == 0 {
                program.talk(&mut world, number % 2, doc).unwrap();
            }
        }
    }
    for _ in 0..2 {
        for (number, program) in programs.iter_mut().enumerate() {
            program.talk(&mut world, number % 2, doc).unwrap();
        }
        world.run(SECOND);
    }
    let all = world.keys(0, doc);
    assert_eq!(all.len(), 181);
    assert_eq!(world.keys(1, doc), all);
    assert!(programs.iter().all(|program| program.keys() == all));
    // What is on disk is whole, with its signatures.
    for node in 0..2 {
        world.crash(node);
        world.start(node);
        assert_eq!(world.keys(node, doc), all);
    }
    assert!(world.nodes.iter().all(|node| node.misbehaved.is_empty()));
}

#[test]
fn a_program_is_answered_only_when_what_it_wrote_is_on_disk() {
    let mut world = World::new(1, 23, Faults { disk_ms: 20, ..Faults::NONE });
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    let (mut answered, mut cut) = (0, 0);
    for round in 0..60 {
        program.put(&format!("{round}"));
        let message = program.next();
        let (request, input) = (world.request(), program.input(doc, message));
        world.handle(0, input(request));
        assert!(world.nodes[0].replies.is_empty(), "round {round}: answered before it was written");
        let pause = world.draw(30);
        world.run(Duration::from_millis(pause));
        let reply = world.nodes[0].replies.remove(&request);
        world.crash(0);
        world.start(0);
        match reply {
            Some(outcome) => {
                program.answered(outcome).unwrap();
                answered += 1;
                let keys = world.keys(0, doc);
                assert!(
                    keys.contains(&format!("{round}")),
                    "round {round} was answered and is lost: {keys:?}"
                );
            }
            None => cut += 1,
        }
        // What was not answered is said again.
        program.reconnect();
        program.talk(&mut world, 0, doc).unwrap();
        assert_eq!(world.keys(0, doc), program.keys(), "round {round}");
    }
    assert!(answered > 5 && cut > 5, "{answered} answered, {cut} cut off");
}

#[test]
fn what_is_said_to_a_program_is_on_disk_too() {
    let mut world = World::new(1, 24, Faults { disk_ms: 20, ..Faults::NONE });
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    // An edit is on its way to the disk when the program asks.
    let edit = put("being written", "x");
    let request = world.request();
    world.handle(0, Input::Edit { request, doc, at: None, edit });
    let (asked, input) = (world.request(), program.input(doc, None));
    world.handle(0, input(asked));
    assert!(world.nodes[0].replies.is_empty());
    world.run(SECOND);
    let outcome = world.nodes[0].replies.remove(&asked).unwrap();
    program.answered(outcome).unwrap();
    program.talk(&mut world, 0, doc).unwrap();
    assert!(program.keys().contains("being written"));
}

#[test]
fn a_full_disk_is_told_to_the_program_and_nothing_of_it_stays() {
    let mut world = World::new(1, 25, Faults::NONE);
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    world.nodes[0].full = true;
    program.put("during");
    assert_eq!(program.talk(&mut world, 0, doc), Err(DocError::NotSaved("the disk is full".to_owned())));
    assert!(!world.keys(0, doc).contains("during"));
    assert!(matches!(Program::talk_new(&mut world, id(5)), Err(DocError::NotSaved(_))));
    world.nodes[0].full = false;
    program.reconnect();
    program.talk(&mut world, 0, doc).unwrap();
    assert!(world.keys(0, doc).contains("during"));
    assert_eq!(world.nodes[0].replica.as_ref().unwrap().list().len(), 1);
}

impl Program {
    /// One that offers a document of its own to node 0.
    fn talk_new(world: &mut World, doc: DocId) -> Result<Self, DocError> {
        let mut program = Self::new(7);
        program.put("of a program");
        program.talk(world, 0, doc)?;
        Ok(program)
    }
}

#[test]
fn a_readers_programs_read_and_write_once_it_is_a_writer() {
    let mut world = World::new(2, 26, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Reader);
    world.run(SECOND);
    let mut program = Program::new(9);
    program.talk(&mut world, 1, doc).unwrap();
    assert!(program.keys().contains("title"));
    assert!(program.state.is_peer_read_only(), "the program is told");
    program.put("mine");
    program.talk(&mut world, 1, doc).unwrap();
    world.run(SECOND);
    assert!(!world.keys(1, doc).contains("mine") && !world.keys(0, doc).contains("mine"));
    world.put(0, doc, "news", "x").unwrap();
    world.run(SECOND);
    program.talk(&mut world, 1, doc).unwrap();
    assert!(program.keys().contains("news"));
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Grant { request, doc, to: bob, role: Role::Writer }).unwrap();
    world.run(SECOND);
    program.talk(&mut world, 1, doc).unwrap();
    world.run(SECOND);
    assert!(world.keys(0, doc).contains("mine"), "what was refused is said again");
    assert_eq!(world.save(0, doc), world.save(1, doc));
}

#[test]
fn a_document_that_a_program_made_keeps_its_id_and_is_shared_like_any_other() {
    let mut world = World::new(2, 27, Faults::NONE);
    let doc = id(5);
    let mut program = Program::talk_new(&mut world, doc).unwrap();
    let access = world.nodes[0].replica.as_ref().unwrap().access(&doc).unwrap().clone();
    assert!(access.owner.is_some_and(|owner| access.is_owner(&owner)));
    world.crash(0);
    world.start(0);
    program.reconnect();
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    world.put(1, doc, "from bob", "x").unwrap();
    world.run(SECOND);
    program.talk(&mut world, 0, doc).unwrap();
    assert_eq!(program.keys(), BTreeSet::from(["of a program", "from bob"].map(str::to_owned)));
    assert_eq!(world.keys(1, doc), program.keys());
}

#[test]
fn made_up_ids_leave_nothing_behind_and_a_joined_one_is_waited_for() {
    let mut world = World::new(2, 28, Faults::NONE);
    for number in 0..100 {
        let mut program = Program::new(9);
        assert_eq!(program.talk(&mut world, 0, id(number)), Err(DocError::Unknown(id(number))));
        // One that says it has something, and never says what.
        program.put("mine");
        program.reconnect();
        let message = program.next();
        let outcome = world.ask(0, program.input(id(number), message));
        assert!(
            matches!(outcome, Ok(Outcome::Synced { conversation: None, message: Some(_) })),
            "{outcome:?}"
        );
    }
    assert!(world.nodes[0].disk.is_empty() && world.nodes[0].replica.as_ref().unwrap().list().is_empty());

    let doc = world.create(0);
    let invite = |request| Input::Invite { request, doc, role: Role::Writer, expires: None, uses: None };
    let Ok(Outcome::Invited { access, bearer }) = world.ask(0, invite) else { panic!("no ticket") };
    let join = |request| Input::Join { request, access, bearer: Some(bearer), inviter: None };
    world.ask(1, join).unwrap();
    let mut program = Program::new(9);
    assert_eq!(program.talk(&mut world, 1, doc), Err(DocError::NotHere));
    let alice = world.nodes[0].id;
    world.faults = Faults { delay_ms: 20, ..Faults::NONE };
    world.connect(0, 1);
    world.handle(1, Input::Found { doc, peer: alice });
    // Who its members are comes before what is in it.
    while world.nodes[1].replica.as_ref().unwrap().members(&doc).unwrap().iter().next().is_none() {
        world.run(Duration::from_millis(1));
    }
    assert!(world.heads(1, doc).is_empty());
    assert_eq!(program.talk(&mut world, 1, doc), Err(DocError::NotHere));
    world.run(SECOND);
    program.reconnect();
    program.talk(&mut world, 1, doc).unwrap();
    assert!(program.keys().contains("title"));
}

#[test]
fn bytes_that_are_no_message_are_refused_and_the_document_lives_on() {
    let mut world = World::new(1, 29, Faults::NONE);
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    program.put("good");
    let good = program.next().unwrap();
    let mut refused = 0;
    for at in 0..good.len() {
        for (cut, flip) in [(true, 0), (false, 1), (false, 0x80)] {
            let mut bad = good.clone();
            if cut {
                bad.truncate(at);
            } else {
                bad[at] ^= flip;
            }
            let outcome = world.ask(0, program.input(doc, Some(bad.clone())));
            refused += usize::from(matches!(outcome, Err(DocError::Refused(_))));
            // The same to a document that is not here.
            let outcome = world.ask(0, program.input(id(5), Some(bad)));
            assert!(matches!(outcome, Err(DocError::Refused(_)) | Ok(_)), "{outcome:?}");
        }
    }
    assert!(refused > good.len(), "only {refused} of {} were refused", 3 * good.len());
    let before = world.keys(0, doc);
    world.put(0, doc, "after", "x").unwrap();
    assert_eq!(world.keys(0, doc).len(), before.len() + 1);
    program.reconnect();
    program.talk(&mut world, 0, doc).unwrap();
    assert!(program.keys().contains("after") && world.keys(0, doc).contains("good"));
}

#[test]
fn what_inflates_without_measure_never_reaches_automerge() {
    let mut world = World::new(1, 35, Faults::NONE);
    let doc = world.create(0);
    for doc in [doc, id(5)] {
        let mut program = Program::new(9);
        let mut transaction = program.automerge.transaction();
        transaction.put(automerge::ROOT, "bomb", "a".repeat(8 << 20)).unwrap();
        transaction.commit();
        let refused = program.talk(&mut world, 0, doc);
        assert!(matches!(&refused, Err(DocError::Refused(why)) if why.contains("inflate")), "{refused:?}");
    }
    // A filter that would have automerge probe two hundred million times for each change.
    let filter = [1, 10, 0x80, 0x80, 0x80, 0x60, 0, 0];
    let message = [[0x42, 0, 0, 1, 0, 8].as_slice(), &filter, &[0]].concat();
    let refused = world.ask(0, Program::new(9).input(doc, Some(message)));
    assert!(matches!(&refused, Err(DocError::Refused(why)) if why.contains("Bloom")), "{refused:?}");
    assert_eq!(world.keys(0, doc).len(), 1);
}

#[test]
fn changes_that_come_before_what_they_build_on_wait_for_it() {
    let mut world = World::new(1, 30, Faults::NONE);
    let doc = world.create(0);
    let mut program = Program::new(9);
    program.talk(&mut world, 0, doc).unwrap();
    program.put("one");
    let one = program.automerge.get_last_local_change().unwrap();
    program.put("two");
    let two = program.automerge.get_last_local_change().unwrap();
    program.put("three");
    let three = program.automerge.get_last_local_change().unwrap();
    let mut message = Message::decode(&program.next().unwrap()).unwrap();
    for (change, arrived) in [(&three, 1), (&two, 1), (&one, 4)] {
        message.changes = change.raw_bytes().to_vec().into();
        let outcome = world.ask(0, program.input(doc, Some(message.clone().encode())));
        let Ok(Outcome::Synced { conversation: Some(conversation), message: answer }) = outcome else {
            panic!("{outcome:?}")
        };
        program.conversation = conversation;
        assert_eq!(world.keys(0, doc).len(), arrived);
        let answer = Message::decode(&answer.unwrap()).unwrap();
        let missing: Vec<_> = if arrived == 4 { Vec::new() } else { vec![change.deps()[0]] };
        assert_eq!(answer.need, missing, "it asks for what is missing and for nothing else");
    }
}

#[test]
fn a_second_way_in_that_is_anothers_is_refused() {
    let mut world = World::new(2, 31, Faults::NONE);
    let doc = id(5);
    Program::talk_new(&mut world, doc).unwrap();
    let mut other = Program::new(8);
    other.put("another");
    other.talk(&mut world, 1, doc).unwrap();
    let invite = |request| Input::Invite { request, doc, role: Role::Writer, expires: None, uses: None };
    let Ok(Outcome::Invited { access, bearer }) = world.ask(0, invite) else { panic!("no ticket") };
    let join = |request| Input::Join { request, access, bearer: Some(bearer), inviter: None };
    let refused = world.ask(1, join);
    assert!(matches!(&refused, Err(DocError::Refused(why)) if why.contains("another owner")), "{refused:?}");
}

#[test]
fn what_a_removal_cut_off_does_not_come_back_by_a_program_that_has_it() {
    let mut world = World::new(3, 34, Faults::NONE);
    let doc = world.create(0);
    for guest in 1..3 {
        world.invite(0, guest, doc, Role::Writer);
    }
    world.connect_all();
    world.run(SECOND);
    let mut program = Program::new(9);
    program.talk(&mut world, 2, doc).unwrap();
    // Bob writes where only Carol and her program hear it, while Alice removes him.
    world.disconnect(0, 1);
    world.disconnect(0, 2);
    for key in ["unseen", "unseen too"] {
        world.put(1, doc, key, "x").unwrap();
    }
    world.run(SECOND);
    program.talk(&mut world, 2, doc).unwrap();
    assert!(program.keys().contains("unseen"));
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    assert!(!world.keys(2, doc).contains("unseen"));
    program.put("on top");
    program.talk(&mut world, 2, doc).unwrap();
    assert!(program.conversation.is_cut(), "{:?}", program.conversation);
    assert!(program.state.is_peer_read_only(), "{:?}", program.state);
    world.crash(2);
    world.start(2);
    world.connect_all();
    program.reconnect();
    program.put("on top again");
    program.talk(&mut world, 2, doc).unwrap();
    world.run(10 * SECOND);
    for node in [0, 2] {
        assert_eq!(world.keys(node, doc), BTreeSet::from(["title".to_owned()]), "node {node}");
    }
    // One that starts anew goes on.
    let mut fresh = Program::new(8);
    fresh.talk(&mut world, 2, doc).unwrap();
    fresh.put("fresh");
    fresh.talk(&mut world, 2, doc).unwrap();
    world.run(SECOND);
    assert!(world.keys(0, doc).contains("fresh"));
}

fn presence(sender: &str, count: u64) -> Presence {
    let (sender, session) = (sender.parse().unwrap(), "run".parse().unwrap());
    Presence { sender, session, count, data: vec![7; 100] }
}

fn heard(world: &World, node: usize) -> Vec<u64> {
    let counts = world.nodes[node].events.iter().filter_map(|event| match event {
        Event::Ephemeral { presence, .. } => Some(presence.count),
        _ => None,
    });
    counts.collect()
}

#[test]
fn presence_reaches_every_member_once_also_through_others_and_nobody_else() {
    let mut world = World::new(5, 32, Faults::NONE);
    let doc = world.create(0);
    for guest in 1..4 {
        world.invite(0, guest, doc, Role::Reader);
    }
    world.connect_all();
    world.run(5 * SECOND);
    // Node 3 hears of node 0 only through the others; node 4 is no member.
    world.disconnect(0, 3);
    let before = world.nodes[4].received_bytes;
    for count in 1..=3 {
        world.handle(0, Input::Ephemeral { doc, presence: presence("ann", count) });
        world.run(SECOND);
    }
    // What a program passes on again is not news.
    world.handle(2, Input::Ephemeral { doc, presence: presence("ann", 3) });
    world.run(SECOND);
    for node in 0..4 {
        assert_eq!(heard(&world, node), [1, 2, 3], "node {node}");
    }
    assert_eq!((heard(&world, 4), world.nodes[4].received_bytes), (Vec::new(), before));
    assert!(world.nodes[3].disk.values().all(|value| !value.windows(50).any(|bytes| bytes == [7; 50])));
}

#[test]
fn presence_beyond_its_bounds_is_dropped() {
    let mut world = World::new(2, 33, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(5 * SECOND);
    let before = world.nodes[1].received_bytes;
    for count in 1..=100 {
        world.handle(0, Input::Ephemeral { doc, presence: presence("ann", count) });
    }
    world.run(SECOND);
    assert_eq!(heard(&world, 0).len(), 100, "on the node itself all is heard");
    assert_eq!(heard(&world, 1).len(), PRESENCE_PER_SECOND as usize);
    let received = world.nodes[1].received_bytes - before;
    assert!(received < 20 * 300, "{received} bytes were sent");
    world.run(SECOND);
    let large = Presence { data: vec![7; 1025], ..presence("ann", 101) };
    world.handle(0, Input::Ephemeral { doc, presence: large });
    world.handle(0, Input::Ephemeral { doc, presence: presence("ann", 102) });
    world.run(SECOND);
    assert_eq!(heard(&world, 1).last(), Some(&102));
    assert_eq!(heard(&world, 0).len(), 101);
    world.handle(0, Input::Ephemeral { doc: id(5), presence: presence("ann", 103) });
    assert_eq!(heard(&world, 0).len(), 101);
}

/// A frame of presence as one writes it who keeps to no bounds.
fn frame(world: &World, doc: DocId, count: u64, bytes: usize) -> Vec<u8> {
    let text = |text: &str| ciborium::Value::Text(text.to_owned());
    let fields = vec![
        (text("sender"), text("eve")),
        (text("session"), text("run")),
        (text("count"), count.into()),
        (text("data"), ciborium::Value::Bytes(vec![7; bytes])),
    ];
    let message = ciborium::Value::Map(vec![(text("Ephemeral"), ciborium::Value::Map(fields))]);
    let mut frame =
        world.nodes[0].replica.as_ref().unwrap().access(&doc).unwrap().read.tag().as_bytes().to_vec();
    ciborium::into_writer(&message, &mut frame).unwrap();
    frame
}

#[test]
fn a_peer_that_keeps_to_no_bounds_is_heard_within_them() {
    let mut world = World::new(4, 36, Faults::NONE);
    let doc = world.create(0);
    for guest in [1, 2] {
        world.invite(0, guest, doc, Role::Reader);
    }
    world.connect_all();
    world.run(5 * SECOND);
    for count in 1..=100 {
        let flood = frame(&world, doc, count, 10);
        world.send(1, 0, flood);
    }
    world.run(SECOND);
    assert_eq!(heard(&world, 0).len(), PRESENCE_PER_SECOND as usize);
    assert_eq!(heard(&world, 2).len(), PRESENCE_PER_SECOND as usize);
    // One that is no member, though it may know the tag, is not heard at all.
    let outside = frame(&world, doc, 1000, 10);
    world.send(3, 0, outside);
    world.run(SECOND);
    assert!(!heard(&world, 0).contains(&1000));
    assert!(world.nodes[0].misbehaved.is_empty());
    let large = frame(&world, doc, 1001, 1025);
    world.send(1, 0, large);
    world.run(SECOND);
    let mallory = world.nodes[1].id;
    assert_eq!(world.nodes[0].misbehaved, [(mallory, "a document message over its limits")]);
    assert!(!heard(&world, 0).contains(&1001));
    // Nor is one that was a member, whose session is open still.
    world.ask(0, |request| Input::Remove { request, doc, who: mallory }).unwrap();
    let late = frame(&world, doc, 1002, 10);
    world.send(1, 0, late);
    world.run(SECOND);
    assert!(!heard(&world, 0).contains(&1002) && !heard(&world, 2).contains(&1002));
}
