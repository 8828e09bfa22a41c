//! Goals about one document.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use automerge::Automerge;
use samod::{DocHandle, Repo};
use wattle_docs::Edit;
use wattle_types::DocId;

use crate::machines::{Cost, Pair, automerge_alone};
use crate::ours::{Node, told};
use crate::report::{aside, disk_bytes, goal, median, ms, percentile, process_cpu};
use crate::{Plan, Result, theirs, trace};

/// Types one letter in the middle.
pub fn letter() -> Edit {
    Box::new(|transaction| trace::type_letter(transaction))
}

/// A small document with samod.
pub async fn their_small(repository: &Repo) -> Result<DocHandle> {
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    trace::begin(&mut transaction)?;
    transaction.commit();
    Ok(repository.create(document).await?)
}

/// What it takes to be certain of a little on this disk.
fn sync_costs(directory: &Path) -> Result<Duration> {
    let mut file = std::fs::File::create(directory.join("certain"))?;
    let mut spans = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        spans.push(begun.elapsed());
    }
    Ok(median(&spans))
}

/// Goal 2: an edit here is on the disks of both and told to who watches there.
pub async fn live(plan: &Plan) -> Result<()> {
    let directory = plan.directory()?;
    let certain = sync_costs(directory.path())?;
    let a = Node::start(1, &directory.path().join("a")).await?;
    let b = Node::start(2, &directory.path().join("b")).await?;
    a.connect(&b).await?;
    let doc = a.documents.create(Box::new(|transaction| trace::begin(transaction))).await?;
    a.share(doc, &[&b]).await?;
    let begun_with = a.heads(doc).await;
    b.until(doc, &begun_with).await?;

    let (one, other) = (theirs::repository().await, theirs::repository().await);
    theirs::dial(&other, theirs::listen(&one).await?).await?;
    let original = their_small(&one).await?;
    let copy = theirs::find(&other, &original).await?;
    theirs::until(&copy, &theirs::heads(&original).await?).await?;

    let mut events = b.documents.events();
    let mut changes = theirs::changes(&copy);
    let (mut ours, mut samod, mut written) = (Vec::new(), Vec::new(), 0);
    let (warm, rounds) = (20, plan.pick(200, 1000));
    for round in 0..warm + rounds {
        let (begun, bytes) = (Instant::now(), disk_bytes());
        let heads = a.edit(doc, letter()).await?;
        told(&mut events, doc, &heads).await?;
        let span = begun.elapsed();
        let bytes = disk_bytes() - bytes;
        let begun = Instant::now();
        let heads = theirs::type_letter(&original).await?;
        theirs::told(&mut changes, &heads).await?;
        if round >= warm {
            ours.push(span);
            samod.push(begun.elapsed());
            written += bytes;
        }
    }
    let (p50, p99) = (percentile(&ours, 50), percentile(&ours, 99));
    let (their_p50, their_p99) = (percentile(&samod, 50), percentile(&samod, 99));
    let ratio = p50.as_secs_f64() / their_p50.as_secs_f64();
    let show = |span: Duration| format!("{:.2} ms", ms(span));
    goal("2 live edit, durable on both, p50", &show(p50), &show(their_p50), ratio, "<= 2 x", ratio <= 2.0);
    let limit = Duration::from_millis(10) + certain;
    let ratio = p99.as_secs_f64() / their_p99.as_secs_f64();
    let wanted = format!("<= {}", show(limit));
    goal("2 live edit, durable on both, p99", &show(p99), &show(their_p99), ratio, &wanted, p99 <= limit);
    aside("one fsync of 4 KiB, median", &show(certain));
    let each = written / u64::try_from(rounds * 2)?;
    aside("disk bytes an edit and node, as the system counts", &format!("{each} B"));
    one.stop().await;
    other.stop().await;
    a.stop().await;
    b.stop().await;
    Ok(())
}

/// Goals 5 and 8: our machine without network and disk.
pub fn alone(plan: &Plan, document: &Automerge) -> Result<()> {
    let mut pair = Pair::new()?;
    let doc = pair.import(document.clone())?;
    if plan.has(8) {
        // As many edits as make one snapshot due, and some.
        let edits = 2048;
        pair.take_costs();
        for _ in 0..edits {
            pair.edit(doc, letter())?;
        }
        let [cost, _] = pair.take_costs();
        let each = cost.written / edits;
        goal("8 disk bytes an edit", &format!("{each} B"), "", f64::NAN, "<= 600 B", each <= 600);
        aside("8 CPU an edit, snapshots with it", &format!("{:.2} ms", ms(cost.cpu) / edits as f64));
    }
    if plan.has(5) {
        pair.take_costs();
        pair.connect();
        pair.share(doc)?;
        pair.until_equal(doc)?;
        let [one, two] = pair.take_costs();
        let first = format!("{:.0} and {:.0} ms CPU", ms(one.cpu), ms(two.cpu));
        aside("first fetch between machines without network and disk", &first);
        again(plan, &mut pair, doc, document)?;
    }
    Ok(())
}

/// Goal 5: both start again and find out that they are equal.
fn again(plan: &Plan, pair: &mut Pair, doc: DocId, document: &Automerge) -> Result<()> {
    let (mut ours, mut raw): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let (mut one, mut two) = (document.clone(), document.clone());
    for round in 0..plan.pick(9, 15) {
        pair.restart()?;
        pair.take_costs();
        pair.connect();
        pair.until_equal(doc)?;
        ours.extend(pair.take_costs());
        if round < 3 {
            raw.extend(automerge_alone(&mut one, &mut two)?);
        }
    }
    let cpu = |costs: &[Cost]| median(&costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>());
    let sent = |costs: &[Cost]| costs.iter().map(|cost| cost.sent).max().unwrap_or(0);
    let (mine, theirs) = (sent(&ours), sent(&raw));
    let ratio = mine as f64 / theirs as f64;
    let met = mine <= 2048 && ratio <= 0.01;
    let show = |bytes: u64| format!("{bytes} B");
    let what = "5 reconnect when equal, bytes of the side that says more (theirs: automerge::sync)";
    goal(what, &show(mine), &show(theirs), ratio, "<= 2 KB, <= 0.01 x", met);
    let (mine, theirs) = (cpu(&ours), cpu(&raw));
    let ratio = mine.as_secs_f64() / theirs.as_secs_f64();
    let met = ms(mine) <= 5.0 && ratio <= 0.01;
    let show = |span| format!("{:.2} ms", ms(span));
    let what = "5 reconnect when equal, CPU a side (theirs: automerge::sync)";
    goal(what, &show(mine), &show(theirs), ratio, "<= 5 ms, <= 0.01 x", met);
    Ok(())
}

/// Goal 8: what samod gives to its storage.
pub async fn their_disk(plan: &Plan, document: &Automerge) -> Result<()> {
    let storage = theirs::Counted::default();
    let bytes = storage.bytes.clone();
    let repository = Repo::build_tokio().with_storage(storage).load().await;
    let handle = repository.create(document.clone()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = bytes.load(Ordering::Relaxed);
    let edits = plan.pick(50, 200);
    for _ in 0..edits {
        theirs::type_letter(&handle).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (bytes.load(Ordering::Relaxed) - before) / u64::try_from(edits)?;
    aside("8 disk bytes an edit, samod", &format!("{each} B"));
    repository.stop().await;
    Ok(())
}

/// Goals 6 and 3: an empty node fetches the document, then a burst of edits.
pub async fn large(plan: &Plan, document: &Automerge) -> Result<()> {
    let directory = plan.directory()?;
    let a = Node::start(1, &directory.path().join("a")).await?;
    let doc = a.documents.import(document.clone(), Box::new(|_transaction| Ok(()))).await?;
    let heads = a.heads(doc).await;
    let one = theirs::repository().await;
    let address = theirs::listen(&one).await?;
    let original = one.create(document.clone()).await?;
    let their_heads = theirs::heads(&original).await?;

    let (mut ours, mut samod, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: Option<(Node, Repo, DocHandle)> = None;
    for round in 0..plan.pick(1, 3) {
        if let Some((node, repository, _)) = last.take() {
            node.stop().await;
            repository.stop().await;
        }
        let number = u8::try_from(round)? + 2;
        let b = Node::start(number, &directory.path().join(format!("b{round}"))).await?;
        let begun = process_cpu();
        b.connect(&a).await?;
        a.share(doc, &[&b]).await?;
        b.until(doc, &heads).await?;
        ours.push(process_cpu() - begun);

        let other = theirs::repository().await;
        let begun = process_cpu();
        theirs::dial(&other, address).await?;
        let copy = theirs::find(&other, &original).await?;
        theirs::until(&copy, &their_heads).await?;
        samod.push(process_cpu() - begun);

        let (mut full, mut empty) = (document.clone(), Automerge::new());
        let begun = process_cpu();
        automerge_alone(&mut full, &mut empty)?;
        raw.push(process_cpu() - begun);
        last = Some((b, other, copy));
    }
    if plan.has(6) {
        let show = |spans: &[Duration]| format!("{:.0} ms", ms(median(spans)));
        let ratio = |theirs: &[Duration]| median(&ours).as_secs_f64() / median(theirs).as_secs_f64();
        let (to_samod, to_raw) = (ratio(&samod), ratio(&raw));
        let what = "6 first fetch, CPU of both";
        goal(what, &show(&ours), &show(&samod), to_samod, "<= 0.6 x", to_samod <= 0.6);
        let what = "6 first fetch, CPU of both (theirs: automerge::sync)";
        goal(what, &show(&ours), &show(&raw), to_raw, "<= 1.5 x", to_raw <= 1.5);
    }
    if let Some((b, other, copy)) = last {
        if plan.has(3) {
            burst(plan, (&a, &b, doc), (&original, &copy)).await?;
        }
        b.stop().await;
        other.stop().await;
    }
    one.stop().await;
    a.stop().await;
    Ok(())
}

/// Goal 3: edits as fast as they are taken, until the other side is equal.
async fn burst(plan: &Plan, ours: (&Node, &Node, DocId), samod: (&DocHandle, &DocHandle)) -> Result<()> {
    let edits = plan.pick(200, 1000);
    let (a, b, doc) = ours;
    let (begun, cpu) = (Instant::now(), process_cpu());
    futures::future::try_join_all((0..edits).map(|_| a.edit(doc, letter()))).await?;
    b.until(doc, &a.heads(doc).await).await?;
    let (span, cpu) = (begun.elapsed(), process_cpu() - cpu);

    let (original, copy) = samod;
    let (begun, their_cpu) = (Instant::now(), process_cpu());
    futures::future::try_join_all((0..edits).map(|_| theirs::type_letter(original))).await?;
    theirs::until(copy, &theirs::heads(original).await?).await?;
    let (their_span, their_cpu) = (begun.elapsed(), process_cpu() - their_cpu);

    let ratio = span.as_secs_f64() / their_span.as_secs_f64();
    let show = |span: Duration, cpu: Duration| format!("{:.0} ms ({:.0} ms CPU)", ms(span), ms(cpu));
    let what = format!("3 burst of {edits} edits until equal");
    goal(&what, &show(span, cpu), &show(their_span, their_cpu), ratio, "<= 0.1 x", ratio <= 0.1);
    Ok(())
}
