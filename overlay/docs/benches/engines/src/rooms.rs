//! Goals about many documents, and about one with many entries.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use futures::StreamExt;
use samod::{DocHandle, Repo};
use wattle_store::{Owner, Store};
use wattle_types::{DocId, Domain, Envelope, NetworkName, SecretKey, Table, Write, cbor};

use crate::documents::{letter, their_small};
use crate::ours::{Node, told};
use crate::report::{aside, goal, median, ms, percentile, process_cpu};
use crate::{PATIENCE, Plan, Result, theirs, trace};

/// What a round of edits cost.
struct Round {
    p50: Duration,
    cpu: Duration,
}

/// Goal 4: one edit among many open documents, by one of the peers of the one whom all are connected to, until all
/// have it.
pub async fn many(plan: &Plan) -> Result<()> {
    let (docs, peers) = (plan.pick(100, 1000), plan.pick(2, 5));
    let edits = plan.pick(50, 200);
    let one = ours(plan, 1, peers, edits).await?;
    let all = ours(plan, docs, peers, edits).await?;
    let their_one = samod(1, peers, edits).await?;
    let their_all = samod(docs, peers, edits).await?;
    let show = |span: Duration| format!("{:.2} ms", ms(span));
    let ratio = all.p50.as_secs_f64() / one.p50.as_secs_f64();
    let theirs = format!("{} of {}", show(their_all.p50), show(their_one.p50));
    let mine = format!("{} of {}", show(all.p50), show(one.p50));
    let what = format!("4 one edit, {docs} documents, {peers} peers, p50 (of with 1 document)");
    goal(&what, &mine, &theirs, ratio, "<= 3 x with 1", ratio <= 3.0);
    let ratio = all.cpu.as_secs_f64() / their_all.cpu.as_secs_f64();
    let mine = format!("{} of {}", show(all.cpu), show(one.cpu));
    let theirs = format!("{} of {}", show(their_all.cpu), show(their_one.cpu));
    goal("4 the same, CPU an edit", &mine, &theirs, ratio, "<= 0.05 x", ratio <= 0.05);
    let floor = floor(plan, peers + 1, edits).await?;
    let what = format!("300 B, signed by one of {}, verified by the others, on the disk of each, CPU", peers + 1);
    aside(&what, &format!("{}, {:.3} x", show(floor), floor.as_secs_f64() / their_all.cpu.as_secs_f64()));

    let docs = plan.pick(300, 3000);
    let (mine, theirs) = (ours_to_empty(plan, docs).await?, samod_to_empty(docs).await?);
    let ratio = mine.as_secs_f64() / theirs.as_secs_f64();
    let what = format!("4 {docs} documents to an empty node, CPU of both");
    let show = |span: Duration| format!("{:.0} ms", ms(span));
    goal(&what, &show(mine), &show(theirs), ratio, "<= 0.1 x", ratio <= 0.1);
    Ok(())
}

/// What an edit takes at the least where it is vouched for and all acknowledge it: a signature that each of the others
/// verifies, and a row that is certain on each disk. No document, no network.
async fn floor(plan: &Plan, nodes: usize, rounds: usize) -> Result<Duration> {
    let directory = plan.directory()?;
    let opened: std::result::Result<Vec<Store>, _> = (0..nodes)
        .map(|number| {
            Store::open(&directory.path().join(format!("{number}")), Owner::this_process("engines"))
        })
        .collect();
    let stores = opened?;
    let (key, network) = (SecretKey::from_bytes(&[9; 32]), NetworkName::default());
    let cpu = process_cpu();
    for round in 0..rounds {
        let vouched = Envelope::seal(&key, Domain::DocVouch, &network, &"x".repeat(200));
        for _ in 1..nodes {
            vouched.open::<String>(Domain::DocVouch, &network)?;
        }
        let value = cbor::encode(&vouched);
        let row = Write::Put { table: Table::Docs, key: format!("{round:06}").into_bytes(), value };
        futures::future::try_join_all(stores.iter().map(|store| store.commit(vec![row.clone()]))).await?;
    }
    Ok((process_cpu() - cpu) / u32::try_from(rounds)?)
}

/// CPU of both nodes from their first word to each other until one has all documents of the other.
async fn ours_to_empty(plan: &Plan, docs: usize) -> Result<Duration> {
    let directory = plan.directory()?;
    let a = Node::start(1, &directory.path().join("a")).await?;
    let b = Node::start(2, &directory.path().join("b")).await?;
    let mut ids = Vec::new();
    for _ in 0..docs {
        ids.push(a.documents.create(Box::new(|transaction| trace::begin(transaction))).await?);
    }
    quiet().await;
    let cpu = process_cpu();
    a.connect(&b).await?;
    let (host, guest) = (&a, &b);
    let joined = futures::stream::iter(&ids).map(|doc| async move {
        host.share(*doc, &[guest]).await?;
        guest.until(*doc, &host.heads(*doc).await).await
    });
    joined.buffered(64).collect::<Vec<_>>().await.into_iter().collect::<Result<()>>()?;
    let cpu = process_cpu() - cpu;
    b.stop().await;
    a.stop().await;
    Ok(cpu)
}

async fn samod_to_empty(docs: usize) -> Result<Duration> {
    let (one, other) = (theirs::repository().await, theirs::repository().await);
    let address = theirs::listen(&one).await?;
    let mut originals = Vec::new();
    for _ in 0..docs {
        originals.push(their_small(&one).await?);
    }
    quiet().await;
    let cpu = process_cpu();
    theirs::dial(&other, address).await?;
    let found = originals.iter().map(|original| theirs::find(&other, original));
    let found = futures::future::try_join_all(found).await?;
    for (original, copy) in originals.iter().zip(&found) {
        theirs::until(copy, &theirs::heads(original).await?).await?;
    }
    let cpu = process_cpu() - cpu;
    other.stop().await;
    one.stop().await;
    Ok(cpu)
}

/// Waits until this process has little to do: a node says of some ten new documents each second in the DHT that it
/// holds them.
async fn quiet() {
    let begun = Instant::now();
    loop {
        let cpu = process_cpu();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if process_cpu() - cpu < Duration::from_millis(25) {
            return;
        }
        if begun.elapsed() > Duration::from_secs(300) {
            return aside("it did not come to rest within", "300 s: what follows counts more than it should");
        }
    }
}

async fn ours(plan: &Plan, docs: usize, peers: usize, edits: usize) -> Result<Round> {
    let directory = plan.directory()?;
    let a = Node::start(1, &directory.path().join("a")).await?;
    let mut others = Vec::new();
    for number in 0..peers {
        let other =
            Node::start(u8::try_from(number)? + 2, &directory.path().join(format!("{number}"))).await?;
        a.connect(&other).await?;
        others.push(other);
    }
    let guests: Vec<&Node> = others.iter().collect();
    let (host, guests) = (&a, &guests);
    let made = futures::stream::iter(0..docs).map(|_| async move {
        let doc = host.documents.create(Box::new(|transaction| trace::begin(transaction))).await?;
        host.share(doc, guests).await?;
        Result::<DocId>::Ok(doc)
    });
    let ids: Vec<DocId> =
        made.buffered(64).collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
    for doc in &ids {
        let heads = a.heads(*doc).await;
        for guest in guests {
            guest.until(*doc, &heads).await?;
        }
    }
    quiet().await;
    let (editor, rest) = guests.split_first().ok_or("nobody edits")?;
    for doc in &ids {
        for node in guests.iter().copied().chain([host]) {
            node.documents.read(*doc, |_| ()).await?;
        }
    }
    let mut events: Vec<_> = rest.iter().map(|guest| guest.documents.events()).collect();
    events.push(host.documents.events());
    let (mut spans, cpu) = (Vec::new(), process_cpu());
    for round in 0..edits {
        let doc = ids[round * 37 % ids.len()];
        let begun = Instant::now();
        let heads = editor.edit(doc, letter()).await?;
        futures::future::try_join_all(events.iter_mut().map(|events| told(events, doc, &heads))).await?;
        spans.push(begun.elapsed());
    }
    let cpu = (process_cpu() - cpu) / u32::try_from(edits)?;
    for other in others {
        other.stop().await;
    }
    a.stop().await;
    Ok(Round { p50: median(&spans), cpu })
}

async fn samod(docs: usize, peers: usize, edits: usize) -> Result<Round> {
    let one = theirs::repository().await;
    let address = theirs::listen(&one).await?;
    let mut originals = Vec::new();
    for _ in 0..docs {
        originals.push(their_small(&one).await?);
    }
    let mut others: Vec<(Repo, Vec<DocHandle>)> = Vec::new();
    for _ in 0..peers {
        let other = theirs::repository().await;
        theirs::dial(&other, address).await?;
        let found = originals.iter().map(|original| theirs::find(&other, original));
        let found = futures::future::try_join_all(found).await?;
        others.push((other, found));
    }
    quiet().await;
    let ((_, editor), rest) = others.split_first().ok_or("nobody edits")?;
    let copies: Vec<&Vec<DocHandle>> = rest.iter().map(|(_, copies)| copies).chain([&originals]).collect();
    let (mut spans, cpu) = (Vec::new(), process_cpu());
    for round in 0..edits {
        let which = round * 37 % docs;
        let changes: Vec<_> = copies.iter().map(|copies| theirs::changes(&copies[which])).collect();
        let begun = Instant::now();
        let heads = theirs::type_letter(&editor[which]).await?;
        let all = changes.into_iter().map(|changes| theirs::told(changes, &heads));
        futures::future::try_join_all(all).await?;
        spans.push(begun.elapsed());
    }
    let cpu = (process_cpu() - cpu) / u32::try_from(edits)?;
    for (other, _) in others {
        other.stop().await;
    }
    one.stop().await;
    Ok(Round { p50: median(&spans), cpu })
}

fn body(number: usize) -> String {
    format!("message {number:06}, about as long as what people say to each other")
}

/// Goal 9: a room with many entries.
pub async fn room(plan: &Plan) -> Result<()> {
    let entries = plan.pick(20_000, 100_000);
    let directory = plan.directory()?;
    let place = directory.path().join("a");
    let a = Node::start(1, &place).await?;
    let doc = a.documents.create(Box::new(|transaction| trace::begin(transaction))).await?;
    let begun = Instant::now();
    let appended =
        futures::stream::iter(0..entries).map(|number| a.documents.append(doc, body(number).into()));
    let appended: Vec<_> = appended.buffered(200).collect().await;
    for append in appended {
        append?;
    }
    let rate = entries as f64 / begun.elapsed().as_secs_f64();
    aside("9 appended and durable, 200 at once", &format!("{rate:.0} entries/s"));
    let mut spans = Vec::new();
    for number in 0..plan.pick(200, 500) {
        let begun = Instant::now();
        a.documents.append(doc, body(number).into()).await?;
        spans.push(begun.elapsed());
    }
    let p50 = median(&spans);
    let show = |span: Duration| format!("{:.2} ms", ms(span));
    let seen = format!("{} (p99 {})", show(p50), show(percentile(&spans, 99)));
    goal("9 append, durable, p50", &seen, "", f64::NAN, "<= 3 ms", ms(p50) <= 3.0);
    a.stop().await;

    let a = Node::start(1, &place).await?;
    aside("9 the database opens after a restart in", &show(a.opened));
    let begun = Instant::now();
    let newest = a.documents.posts(doc, None, 50).await?;
    let span = begun.elapsed();
    if newest.len() != 50 {
        return Err("the newest entries are not there".into());
    }
    let their_span = as_one_document(entries)?;
    let ratio = span.as_secs_f64() / their_span.as_secs_f64();
    let what = format!("9 the newest 50 of {entries} after a restart (theirs: one Automerge list)");
    let met = ms(span) <= 20.0 && ratio <= 0.03;
    goal(&what, &show(span), &show(their_span), ratio, "<= 20 ms, <= 0.03 x", met);
    fetch(&a, directory.path(), doc).await?;
    a.stop().await;
    Ok(())
}

/// How long an Automerge document of the same messages takes until the newest are read.
fn as_one_document(entries: usize) -> Result<Duration> {
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    let list = transaction.put_object(ROOT, "messages", ObjType::List)?;
    transaction.commit();
    // A change for each message takes a minute to make; a hundred to a change makes loading cheaper for them.
    for first in (0..entries).step_by(100) {
        let mut transaction = document.transaction();
        for number in first..first + 100 {
            let message = transaction.insert_object(&list, number, ObjType::Map)?;
            transaction.put(&message, "author", i64::try_from(number % 10)?)?;
            transaction.put(&message, "at", i64::try_from(number)?)?;
            transaction.put(&message, "body", body(number))?;
        }
        transaction.commit();
    }
    let saved = document.save();
    let begun = Instant::now();
    let document = Automerge::load(&saved)?;
    for number in entries - 50..entries {
        let (_, message) = document.get(&list, number)?.ok_or("a message is not there")?;
        document.get(message, "body")?.ok_or("a message without a body")?;
    }
    Ok(begun.elapsed())
}

/// Goal 9: a newcomer fetches and verifies all entries.
async fn fetch(a: &Node, directory: &std::path::Path, doc: DocId) -> Result<()> {
    let wanted = a.documents.status(doc).await.map_or(0, |status| status.posts);
    let b = Node::start(2, &directory.join("b")).await?;
    b.connect(a).await?;
    let (begun, cpu) = (Instant::now(), process_cpu());
    a.share(doc, &[&b]).await?;
    loop {
        let here = b.documents.status(doc).await.map_or(0, |status| status.posts);
        if here >= wanted {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err("entries stay behind".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = wanted as f64 / begun.elapsed().as_secs_f64();
    let each = (process_cpu() - cpu).as_secs_f64() * 1e6 / wanted as f64;
    let what = "9 entries fetched, verified and durable at a newcomer";
    let seen = format!("{rate:.0}/s ({each:.0} us CPU each, both nodes)");
    goal(what, &seen, "", f64::NAN, ">= 15000/s, floor 10000/s", rate >= 15_000.0);
    b.stop().await;
    Ok(())
}
