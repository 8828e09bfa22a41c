//! Documents and rooms of real nodes at size, through cuts and kills. What is small here is run at full size by
//! hand: each test names its variable, and tests/SOAK.md what was seen.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use wattle_tests::binary::{Machine, wait_for};
use wattle_tests::local::{Api, Draw, Local, PATIENCE, percentile, size, until_equal};
use wattle_types::NodeId;

/// Tells threads to stop when what they accompany has ended, however it did.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was acknowledged, by document.
#[derive(Default)]
struct Journal {
    edits: u64,
    fields: BTreeMap<String, BTreeSet<String>>,
    lines: BTreeMap<String, BTreeSet<String>>,
}

/// One editor at a node: sets fields, puts lines into texts and takes others out, until it is told to stop.
fn edits(
    api: &Api,
    name: &str,
    docs: &[String],
    draw: &mut Draw,
    journal: &Mutex<Journal>,
    stop: &AtomicBool,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let doc = &docs[draw.below(docs.len())];
        let mark = format!("{name}{number}");
        let done = if draw.below(2) == 0 {
            api.set(doc, &mark, &json!(draw.below(1000))).map(|_heads| (true, mark))
        } else {
            edit_text(api, doc, mark, draw)
        };
        let Some((field, mark)) = done else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let mut journal = journal.lock().unwrap();
        journal.edits += 1;
        let told = if field { &mut journal.fields } else { &mut journal.lines };
        if !mark.is_empty() {
            told.entry(doc.clone()).or_default().insert(mark);
        }
    }
}

/// Puts a line that stays into a text, with one that may be taken out again, and takes such a one out.
fn edit_text(api: &Api, doc: &str, mark: String, draw: &mut Draw) -> Option<(bool, String)> {
    let (_, content) = api.ask(&format!("GET /api/v1/docs/{doc}/content"), &Value::Null)?;
    let text = content["text"].as_str().unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // Not in one edit with what comes in: a difference may keep letters of the one for the other, and another node
    // takes the same line out meanwhile.
    let is_loose = |line: &String| line.starts_with('-') && !line.contains('+');
    let loose = lines.iter().position(is_loose).filter(|_| draw.below(2) == 0);
    match loose {
        Some(loose) => drop(lines.remove(loose)),
        None => {
            lines.insert(draw.below(lines.len() + 1), format!("+{mark}+"));
            lines.insert(draw.below(lines.len() + 1), format!("-{mark}-"));
        }
    }
    let text = lines.iter().fold(String::new(), |text, line| format!("{text}{line}\n"));
    let body = json!({ "at": content["heads"], "text_b64": BASE64.encode(text.as_bytes()) });
    let (status, done) = api.ask(&format!("POST /api/v1/docs/{doc}/text"), &body)?;
    assert_eq!(status, 200, "{done}");
    Some((false, if loose.is_some() { String::new() } else { mark }))
}

/// Cuts the nodes into two halves, at both ends of every way between them, or lets all meet.
fn cut(nodes: &[Local<'_>], side: impl Fn(usize) -> bool) {
    for (one, here) in nodes.iter().enumerate() {
        for (other, there) in nodes.iter().enumerate() {
            if one != other && here.is_up() {
                here.block(there, side(one) != side(other));
            }
        }
    }
}

/// Lasts for so many seconds: `WATTLE_CHAOS=60 WATTLE_CHAOS_SEEDS=3`.
#[test]
fn through_cuts_and_kills_no_acknowledged_edit_is_lost_and_all_nodes_end_equal() {
    let seconds = size("WATTLE_CHAOS", 5);
    let (count, documents) = if seconds >= 60 { (5, 20) } else { (3, 4) };
    for seed in 0..size("WATTLE_CHAOS_SEEDS", 1) {
        let machine = Machine::new(None);
        let mut nodes: Vec<Local<'_>> =
            (0..count).map(|number| Local::start(&machine, &format!("n{number}"))).collect();
        let docs: Vec<String> =
            (0..documents).map(|number| nodes[number % count].api().new_doc(&format!("d{number}"))).collect();
        for (number, doc) in docs.iter().enumerate() {
            let host = number % count;
            for guest in (0..count).filter(|guest| *guest != host) {
                nodes[guest].join(&nodes[host], doc);
            }
        }
        let (journal, stop) = (Mutex::new(Journal::default()), AtomicBool::new(false));
        let mut draw = Draw(0x5eed + seed as u64);
        let (mut cuts, mut kills) = (0, 0);
        std::thread::scope(|scope| {
            let _stops = Stops(&stop);
            for node in &nodes {
                let (api, name, mut draw) = (node.api(), node.name().to_owned(), draw.clone());
                draw.0 ^= u64::from_str_radix(&name[1..], 16).unwrap_or_default() << 7;
                let (docs, journal, stop) = (&docs, &journal, &stop);
                scope.spawn(move || edits(&api, &name, docs, &mut draw, journal, stop));
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(seconds as u64) {
                let side = draw.below(1 << count);
                cut(&nodes, |node| side >> node & 1 == 1);
                cuts += 1;
                std::thread::sleep(Duration::from_secs(2).min(Duration::from_secs(seconds as u64) / 3));
                if begun.elapsed().as_secs() as usize / 5 >= kills {
                    let victim = draw.below(count);
                    assert!(!nodes[victim].log().contains("panicked"), "{}", nodes[victim].log());
                    nodes[victim].kill();
                    nodes[victim].run();
                    kills += 1;
                }
            }
        });
        cut(&nodes, |_| true);
        let healed = until_equal(&nodes.iter().collect::<Vec<_>>(), Duration::from_secs(20));
        let journal = journal.into_inner().unwrap();
        println!("seed {seed}: {} edits, {cuts} cuts, {kills} kills, equal after {healed:?}", journal.edits);
        assert!(journal.edits >= if seconds >= 60 { 5000 } else { 50 }, "{} edits", journal.edits);
        for doc in &docs {
            let read = |node: &Local<'_>| node.api().get(&format!("/api/v1/docs/{doc}/export?format=json"));
            let all: Vec<Value> = nodes.iter().map(read).collect();
            assert!(all.windows(2).all(|pair| pair[0]["data_b64"] == pair[1]["data_b64"]), "{doc}");
        }
        for node in &nodes {
            assert!(!node.log().contains("panicked"), "{}", node.log());
            for doc in &docs {
                nothing_is_lost(&node.api().get(&format!("/api/v1/docs/{doc}/content")), doc, &journal);
            }
        }
    }
}

fn nothing_is_lost(content: &Value, doc: &str, journal: &Journal) {
    let text = content["text"].as_str().unwrap_or_default();
    for field in journal.fields.get(doc).into_iter().flatten() {
        assert!(content["value"][field].is_number(), "{doc} lost {field}");
    }
    for line in journal.lines.get(doc).into_iter().flatten() {
        assert_eq!(text.matches(&format!("+{line}+")).count(), 1, "{line} in {doc}: {text}");
    }
}

/// The time until an edit of one node is seen at another, so many times.
fn latency(from: &Local<'_>, to: &Local<'_>, doc: &str, name: &str, times: usize) -> Vec<Duration> {
    let (from, to) = (from.api(), to.api());
    let path = format!("/api/v1/docs/{doc}/content?path={name}");
    let seen = |number: usize| {
        to.ask(&format!("GET {path}"), &Value::Null).is_some_and(|(_, it)| it["value"] == number)
    };
    let one = |number| {
        let begun = Instant::now();
        from.set(doc, name, &json!(number)).unwrap();
        wait_until("the edit is seen", || seen(number));
        begun.elapsed()
    };
    (0..times).map(one).collect()
}

/// As [`wait_for`], without the pause that it makes.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Whether a node holds exactly what a peer holds, in all its documents.
fn in_sync(node: &Local<'_>, count: usize) -> bool {
    let docs = node.api().get("/api/v1/docs");
    let synced =
        |doc: &&Value| doc["peers"].as_array().is_some_and(|all| all.iter().any(|it| it["in_sync"] == true));
    docs["docs"].as_array().is_some_and(|docs| docs.iter().filter(synced).count() == count)
}

/// How much slower a build for tests does the work of a document than the one that ships: at most so much.
const SLOWER: u32 = if cfg!(debug_assertions) { 20 } else { 1 };
/// The same for what waits more than it computes, on a machine that runs other tests as well.
const BUSIER: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// With so many documents: `WATTLE_DOCS=1000`, and then with five peers.
#[test]
fn many_documents_are_shared_in_seconds_and_those_that_nobody_edits_cost_the_others_nothing() {
    let count = size("WATTLE_DOCS", 60);
    let machine = Machine::new(None);
    let a = Local::start(&machine, "a");
    let mut b = Local::start(&machine, "b");
    let others: Vec<Local<'_>> = (0..if count >= 1000 { 4 } else { 0 })
        .map(|number| Local::start(&machine, &format!("c{number}")))
        .collect();
    b.meets(&a);
    let first = a.api().new_doc("first");
    b.join(&a, &first);
    others.iter().for_each(|other| other.join(&a, &first));
    let alone = percentile(&mut latency(&a, &b, &first, "alone", 50), 50);
    let empty = [a.resident_bytes(), b.resident_bytes()];

    let begun = Instant::now();
    let docs: Vec<String> = (1..count).map(|number| a.api().new_doc(&format!("d{number}"))).collect();
    let made = begun.elapsed();
    let begun = Instant::now();
    let tickets: Vec<Value> = docs
        .iter()
        .map(|doc| {
            a.api().ok(&format!("POST /api/v1/docs/{doc}/tickets"), &json!({ "role": "writer" }))["ticket"]
                .clone()
        })
        .collect();
    let invited = begun.elapsed();
    let join_all = |guest: &Local<'_>| {
        std::thread::scope(|scope| {
            for part in tickets.chunks(tickets.len().div_ceil(8)) {
                let api = guest.api();
                scope.spawn(move || {
                    for ticket in part {
                        api.ok("POST /api/v1/docs/join", &json!({ "ticket": ticket }));
                    }
                });
            }
        });
    };
    let begun = Instant::now();
    join_all(&b);
    until_equal(&[&a, &b], 2 * PATIENCE);
    let synced = begun.elapsed();
    assert!(synced < Duration::from_secs(10) * BUSIER, "{count} documents took {synced:?}");
    others.iter().for_each(join_all);

    let among = percentile(&mut latency(&a, &b, &first, "among", 50), 50);
    let open = [a.resident_bytes(), b.resident_bytes()];
    let each = [0, 1].map(|node| open[node].saturating_sub(empty[node]) / count as u64);
    let open = open.map(mebibytes);
    assert!(among <= alone * 3 + Duration::from_millis(2) * SLOWER, "{among:?} instead of {alone:?}");

    wait_for("all are in sync", PATIENCE, || in_sync(&b, count));
    b.kill();
    let begun = Instant::now();
    b.run();
    b.meets(&a);
    wait_for("all are in sync again", PATIENCE, || in_sync(&b, count));
    let again = begun.elapsed();
    let peers = b.api().get("/api/v1/peers");
    let peer = peers["peers"].as_array().unwrap().iter().find(|peer| peer["id"] == *a.id()).unwrap();
    let bytes = peer["bytes_in"].as_u64().unwrap() + peer["bytes_out"].as_u64().unwrap();
    println!(
        "{count} documents: made in {made:?}, invited in {invited:?}, at the other in {synced:?}; an edit {alone:?} \
         alone, {among:?} among them; {open:?} MiB, {each:?} B a document; equal again {again:?} after a kill, with {bytes} bytes"
    );
    assert!(again < Duration::from_secs(5) * BUSIER, "equal documents took {again:?}");
    assert!(bytes < 1 << 20, "{bytes} bytes for what was equal");
}

#[test]
fn who_is_killed_a_moment_after_it_came_is_in_step_a_moment_after_it_is_back() {
    let machine = Machine::new(None);
    let (one, other) = (Local::start(&machine, "one"), Local::start(&machine, "other"));
    let id = |node: &Local<'_>| node.id().parse::<NodeId>().unwrap();
    // Of two channels that both opened at once the one of the lower id stays, so the higher one is taken for late.
    let (a, mut b) = if id(&one) < id(&other) { (one, other) } else { (other, one) };
    let doc = a.api().new_doc("shared");
    b.join(&a, &doc);
    b.kill();
    b.run();
    b.meets(&a);
    let begun = Instant::now();
    wait_for("they are in step again", PATIENCE, || in_sync(&b, 1));
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
}

/// What one author typed: every character of the text says by itself who typed it.
const ALPHABETS: [&str; 3] = ["abcdefgh", "ijklmnop", "一二三四五六七八"];

/// One edit of an author: some characters out, some of its own in. Gives the change and the text as it left it.
fn types(api: &Api, doc: &str, author: usize, draw: &mut Draw) -> (String, String) {
    let content = api.get(&format!("/api/v1/docs/{doc}/content"));
    let mut text: Vec<char> = content["text"].as_str().unwrap_or_default().chars().collect();
    let at = draw.below(text.len() + 1);
    let removed = draw.below(4).min(text.len() - at);
    let own: Vec<char> = ALPHABETS[author].chars().collect();
    let mut typed: Vec<char> = (0..1 + draw.below(5)).map(|_| own[draw.below(own.len())]).collect();
    // Typing what was there changes nothing, and is no change.
    if text[at..at + removed] == typed {
        typed.push(own[0]);
    }
    text.splice(at..at + removed, typed);
    let text: String = text.into_iter().collect();
    let body = json!({ "at": content["heads"], "text_b64": BASE64.encode(text.as_bytes()) });
    let done = api.ok(&format!("POST /api/v1/docs/{doc}/text"), &body);
    (done["change"].as_str().unwrap().to_owned(), text)
}

/// At so many points: `WATTLE_POINTS=100`.
#[test]
fn every_version_reads_as_its_author_left_it_and_every_character_names_who_typed_it_on_all_nodes() {
    let points = size("WATTLE_POINTS", 25);
    let machine = Machine::new(None);
    let nodes: Vec<Local<'_>> = (0..3).map(|number| Local::start(&machine, &format!("n{number}"))).collect();
    let doc = nodes[0].api().new_doc("story");
    nodes[1..].iter().for_each(|guest| guest.join(&nodes[0], &doc));
    let (mut draw, mut journal) = (Draw(0x71e), Vec::new());
    for round in 0..points.div_ceil(10) {
        // Alone, two and one, or all together.
        cut(&nodes, |node| node == round % 4);
        for edit in 0..12 {
            let author = (edit + round) % 3;
            let (change, text) = types(&nodes[author].api(), &doc, author, &mut draw);
            journal.push((author, change, text));
        }
        cut(&nodes, |_| true);
        until_equal(&nodes.iter().collect::<Vec<_>>(), PATIENCE);
    }
    let text =
        nodes[0].api().get(&format!("/api/v1/docs/{doc}/content"))["text"].as_str().unwrap().to_owned();
    assert!(ALPHABETS.iter().all(|own| text.contains(|c| own.contains(c))), "{text}");
    for _ in 0..points {
        let (author, change, text) = &journal[draw.below(journal.len())];
        for node in &nodes {
            let then = node.api().get(&format!("/api/v1/docs/{doc}/content?at={change}"));
            assert_eq!(then["text"], **text, "{change} of {author} at {}", node.name());
        }
    }
    for node in &nodes {
        let past = node.api().get(&format!("/api/v1/docs/{doc}/history?each=true&limit=500"));
        let steps = past["steps"].as_array().unwrap();
        for (author, change, _) in &journal {
            let step = steps.iter().find(|step| step["version"] == **change).unwrap();
            assert_eq!(step["author"]["id"], *nodes[*author].id(), "{change} at {}", node.name());
        }
        let saved = node.api().get(&format!("/api/v1/docs/{doc}/export?format=automerge"));
        let saved = BASE64.decode(saved["data_b64"].as_str().unwrap().as_bytes()).unwrap();
        blames_rightly(&automerge::Automerge::load(&saved).unwrap(), &text, &nodes);
    }
}

fn blames_rightly(doc: &automerge::Automerge, text: &str, nodes: &[Local<'_>]) {
    let mut end = 0;
    for typed in wattle_pad::blame(doc) {
        assert_eq!(typed.bytes.start, end, "no character is left out");
        end = typed.bytes.end;
        let author = doc.get_author_for_actor(&typed.actor).unwrap();
        let author = NodeId::from_public_key(author.as_bytes().try_into().unwrap()).to_string();
        let own = nodes.iter().position(|node| node.id() == author).unwrap();
        let part = &text[typed.bytes];
        assert!(part.chars().all(|c| ALPHABETS[own].contains(c)), "{part} is not of n{own}");
    }
    assert_eq!(end, text.len());
}

/// Says so many things, none of which may be refused for good.
fn talks(api: &Api, name: &str, count: usize, done: &AtomicBool) {
    for number in 0..count {
        let body = json!({ "text": format!("{name} {number}") });
        wait_until("a message is taken", || {
            let told = api.ask("POST /api/v1/rooms/dev/messages", &body);
            matches!(told, Some((200, _)))
        });
    }
    done.store(true, Ordering::Relaxed);
}

/// The whole room, page by page: ids and texts, in order.
fn talk(api: &Api) -> Vec<(String, String)> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/api/v1/rooms/dev/messages?limit=500{before}"));
        let row = |message: &Value| {
            let part = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
            (part("id"), part("text"))
        };
        let rows: Vec<_> = page["messages"].as_array().unwrap().iter().rev().map(row).collect();
        all.extend(rows);
        match page["before"].as_str() {
            Some(place) => before = format!("&before={place}"),
            None => break,
        }
    }
    all.reverse();
    all
}

fn newest(api: &Api) -> Vec<Value> {
    let page = api.get("/api/v1/rooms/dev/messages?limit=50");
    page["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect()
}

/// Every node says so many things, while the ways between them are cut now here, now there; how often.
fn talk_through_cuts(nodes: &[Local<'_>], each: usize, pause: Duration) -> usize {
    let (mut cuts, mut draw) = (0, Draw(0x7a1c));
    let done: Vec<AtomicBool> = nodes.iter().map(|_| AtomicBool::new(false)).collect();
    std::thread::scope(|scope| {
        for (node, done) in nodes.iter().zip(&done) {
            let (api, name) = (node.api(), node.name().to_owned());
            until_the_room_is_there(&api);
            scope.spawn(move || talks(&api, &name, each, done));
        }
        // At least one cut, however fast they are.
        while cuts == 0 || !done.iter().all(|done| done.load(Ordering::Relaxed)) {
            let side = 1 + draw.below((1 << nodes.len()) - 2);
            cut(nodes, |node| side >> node & 1 == 1);
            cuts += 1;
            std::thread::sleep(pause);
        }
    });
    cuts
}

fn until_the_room_is_there(api: &Api) {
    wait_until("the room is there", || {
        api.ask("GET /api/v1/rooms/dev", &Value::Null).is_some_and(|answer| answer.0 == 200)
    });
}

/// What each author said stands in the order in which it was said.
fn in_own_order(talk: &[(String, String)], authors: usize, each: usize) {
    for author in 0..authors {
        let own = talk.iter().filter_map(|(_, text)| text.strip_prefix(&format!("n{author} ")));
        let own: Vec<usize> = own.map(|number| number.parse().unwrap()).collect();
        assert!(own.iter().copied().eq(0..each), "what n{author} says is not in its order");
    }
}

/// With so many messages: `WATTLE_TALK=100000`, of ten authors then, five of whom are gone in the end.
#[test]
fn a_long_talk_reads_alike_on_all_nodes_and_a_newcomer_sees_its_end_at_once() {
    let total = size("WATTLE_TALK", 900);
    let (stay, gone) = if total >= 10_000 { (5, 5) } else { (2, 1) };
    let machine = Machine::new(None);
    let mut nodes: Vec<Local<'_>> =
        (0..stay + gone).map(|number| Local::start(&machine, &format!("n{number}"))).collect();
    let made = nodes[0].api().ok("POST /api/v1/rooms", &json!({ "name": "dev" }));
    let room = made["room"]["id"].as_str().unwrap().to_owned();
    nodes[1..].iter().for_each(|guest| guest.join(&nodes[0], &room));
    let begun = Instant::now();
    let each = total / (stay + gone);
    let cuts =
        talk_through_cuts(&nodes, each, Duration::from_millis(if total >= 10_000 { 2000 } else { 500 }));
    cut(&nodes, |_| true);
    let said = begun.elapsed();
    let all =
        |node: &Local<'_>| node.api().get("/api/v1/rooms/dev")["room"]["messages"] == each * (stay + gone);
    wait_for("all have all", PATIENCE * 4, || nodes.iter().all(all));
    let healed = begun.elapsed() - said;
    nodes.truncate(stay);
    let first = talk(&nodes[0].api());
    assert_eq!(first.len(), each * (stay + gone));
    for node in &nodes[1..] {
        assert!(talk(&node.api()) == first, "{} reads another talk", node.name());
    }
    in_own_order(&first, stay + gone, each);

    nodes[0].kill();
    nodes[0].run();
    let api = nodes[0].api();
    until_the_room_is_there(&api);
    let begun = Instant::now();
    let last = newest(&api);
    let opened = begun.elapsed();
    assert_eq!(last.len(), 50);

    let newcomer = Local::start(&machine, "late");
    newcomer.meets(&nodes[0]);
    let begun = Instant::now();
    newcomer.join(&nodes[0], &room);
    let joined = begun.elapsed();
    wait_until("the newcomer sees the end", || {
        let there = newcomer.api().ask("GET /api/v1/rooms/dev", &Value::Null).is_some_and(|it| it.0 == 200);
        there && newest(&newcomer.api()) == last
    });
    let shown = begun.elapsed();
    wait_for("the newcomer has all", Duration::from_secs(60), || all(&newcomer));
    let whole = begun.elapsed();
    println!(
        "{} messages, {cuts} cuts, said in {said:?}, everywhere {healed:?} later; the newest 50 {opened:?} after a \
         kill; a newcomer joined in {joined:?}, showed them after {shown:?} and had all after {whole:?}",
        first.len()
    );
    assert!(talk(&newcomer.api()) == first, "the newcomer reads another talk");
    assert!(opened < Duration::from_millis(20) * SLOWER, "{opened:?}");
    assert!(shown < Duration::from_secs(1) * BUSIER, "{shown:?}");
}

/// With so many kilobytes: `WATTLE_TEXT_KB=10240`.
#[test]
fn a_text_of_megabytes_opens_at_once_and_freezes_no_other_document() {
    let kilobytes = size("WATTLE_TEXT_KB", 64);
    let machine = Machine::new(None);
    let mut node = Local::start(&machine, "a");
    let small = node.api().new_doc("small");
    let line = "a line of sixty-four bytes, so that it is easy to count them all\n";
    let text: String = line.repeat((kilobytes << 10) / line.len());
    let (api, stop) = (node.api(), AtomicBool::new(false));
    let (pasted, slowest) = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let beside = scope.spawn(|| {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                api.set(&small, "beside", &json!(times.len())).unwrap();
                times.push(begun.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            times.into_iter().max().unwrap_or_default()
        });
        let begun = Instant::now();
        let big = api.new_doc("big");
        let paste = json!({ "text_b64": BASE64.encode(text.as_bytes()) });
        let answer = api.ok(&format!("POST /api/v1/docs/{big}/text"), &paste);
        assert_eq!(answer["lines_added"], text.lines().count());
        let pasted = begun.elapsed();
        // What is too long is refused in words, and at once.
        let begun = Instant::now();
        let more = json!({ "text_b64": BASE64.encode("x".repeat(11 << 20).as_bytes()) });
        let (status, refused) = api.ask(&format!("POST /api/v1/docs/{big}/text"), &more).unwrap();
        let why = refused["message"].as_str().unwrap();
        assert!(status == 400 && why.contains("too long") && why.contains("10485760"), "{status}: {refused}");
        assert!(begun.elapsed() < Duration::from_secs(1) * BUSIER, "{:?}", begun.elapsed());
        stop.store(true, Ordering::Relaxed);
        (pasted, beside.join().unwrap())
    });
    node.kill();
    node.run();
    let begun = Instant::now();
    let content = node.api().get("/api/v1/docs/big/content");
    let opened = begun.elapsed();
    assert!(content["text"] == *text, "the text is another after a restart");
    let held = mebibytes(node.resident_bytes());
    println!(
        "{kilobytes} KiB: pasted in {pasted:?}, others waited {slowest:?}, opened in {opened:?}, {held} MiB held"
    );
    assert!(opened < Duration::from_secs(2) * BUSIER, "opening took {opened:?}");
    assert!(held <= 400, "{held} MiB");
    assert!(slowest < Duration::from_millis(200) * SLOWER, "another document waited {slowest:?}");
}
