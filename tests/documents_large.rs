//! A document of megabytes, and what people do with others meanwhile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]
#![expect(clippy::print_stdout, reason = "it says what it took")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ROOT, ReadDoc as _};
use wattle::documents::SHARDS;
use wattle_docs::{Edit, Role, Shard, Steps};
use wattle_pad::{Answer, Refusal};
use wattle_tests::documents::put;
use wattle_tests::honest::Honest;
use wattle_types::{DocId, cbor};

/// Bytes of text: as much as a document may hold, or what takes an unoptimised build as long as that.
const LARGE: usize = if cfg!(debug_assertions) { 2 << 20 } else { 10 << 20 };

/// How long a large document may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(120);

/// Edits that are made while nothing else happens.
const CALM_EDITS: usize = 40;

/// Letters that are typed into a large document.
const LETTERS: usize = if cfg!(debug_assertions) { 20 } else { 100 };

fn large() -> Steps {
    let line = "What is written here is long, and is read by nobody but the machine.\n";
    let text = line.repeat(LARGE / line.len());
    let mut steps = wattle_pad::create_in_steps("large".to_owned(), text).unwrap();
    Box::new(move |tx| steps(tx).map_err(|error| error.to_string()))
}

/// A small document that has another home than a large one.
async fn small(node: &Honest, large: Option<DocId>) -> DocId {
    let mut small = node.documents.create(put("title", "small")).await.unwrap();
    for _ in 0..8 {
        if large.is_none_or(|large| Shard::of(&large, SHARDS) != Shard::of(&small, SHARDS)) {
            break;
        }
        small = node.documents.create(put("title", "small")).await.unwrap();
    }
    small
}

/// Changes a document; how long it took until that was on disk.
async fn edit(node: &Honest, doc: DocId) -> Duration {
    static EDITS: AtomicU64 = AtomicU64::new(0);
    let value = EDITS.fetch_add(1, Ordering::Relaxed).to_string();
    let began = Instant::now();
    let edited = node.documents.edit(doc, None, put("name", &value)).await.unwrap();
    assert_ne!(edited.before, edited.after);
    began.elapsed()
}

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort();
    spans[spans.len() / 2]
}

async fn calm(node: &Honest, doc: DocId) -> Duration {
    let mut spans = Vec::new();
    for _ in 0..CALM_EDITS {
        spans.push(edit(node, doc).await);
    }
    median(spans)
}

/// What was measured beside work on a large document.
struct Beside {
    took: Duration,
    edits: Vec<Duration>,
    listed: Duration,
    told: String,
}

impl Beside {
    /// The work takes seconds, and an edit that waited for it would take as long. So each takes less than a quarter of
    /// it, and half of them less than a twentieth, however busy the processor is that all of them share. Gives how long
    /// the work took.
    fn waits_for_nothing(self) -> Duration {
        let Self { took, edits, listed, told } = self;
        let slowest = edits.iter().max().copied().unwrap_or_default();
        assert!(took > Duration::from_millis(500), "too fast to tell anything: {told}");
        assert!(edits.len() > 10 && slowest < took / 4, "an edit waited for the large document: {told}");
        assert!(listed < took / 4, "a list waited {listed:?} for the large document: {told}");
        assert!(median(edits) < took / 20, "edits are slow beside it: {told}");
        took
    }
}

/// Edits a small document at one node until `work` on a large one ends, and looks at the list of all.
async fn beside(what: &str, node: &Honest, docs: &[DocId], calm: Duration, work: impl Future) -> Beside {
    let began = Instant::now();
    let (mut spans, mut listed) = (Vec::new(), Duration::ZERO);
    let mut work = std::pin::pin!(work);
    while futures::FutureExt::now_or_never(work.as_mut()).is_none() {
        spans.push(edit(node, docs[0]).await);
        if spans.len().is_multiple_of(10) {
            let began = Instant::now();
            let list = node.documents.list().await;
            listed = listed.max(began.elapsed());
            let all_there = docs.iter().all(|doc| list.iter().any(|status| status.doc == *doc));
            assert!(all_there, "a document whose machine is busy is not in the list");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    let slowest = spans.iter().max().copied().unwrap_or_default();
    let middle = median(spans.clone());
    let told = format!(
        "{what} took {took:?}; of {} edits {middle:?} is the middle, {slowest:?} the slowest, {calm:?} the middle \
         when idle",
        spans.len()
    );
    println!("{told}");
    Beside { took, edits: spans, listed, told }
}

/// A large document that was made beside edits of a small one. Its home is drawn with its id: where that is the home of
/// the small one, as once in 64 times, that one waits, and another large one is made.
async fn made(node: &Honest) -> DocId {
    loop {
        let doc = small(node, None).await;
        let quiet = calm(node, doc).await;
        let mut made = None;
        let making = async { made = Some(node.documents.create_in_steps(large()).await) };
        let beside = beside("making it", node, &[doc], quiet, making).await;
        let big = made.unwrap().unwrap();
        if Shard::of(&big, SHARDS) != Shard::of(&doc, SHARDS) {
            beside.waits_for_nothing();
            return big;
        }
    }
}

/// Types a letter into a section of a large document at one node; how long it took until the other had it.
async fn letter(from: &Honest, to: &Honest, doc: DocId, number: usize) -> Duration {
    let edit: Edit = Box::new(move |tx| {
        let written = |tx: &mut Transaction<'_>| {
            let (_, sections) = tx.get(ROOT, "sections")?.unwrap();
            let (_, section) = tx.get(&sections, number % tx.length(&sections))?.unwrap();
            tx.splice_text(&section, number, 0, "x")
        };
        written(tx).map_err(|error| error.to_string())
    });
    let began = Instant::now();
    from.documents.edit(doc, None, edit).await.unwrap();
    while to.heads(doc).await != from.heads(doc).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// The text that a node shows of a document at first.
async fn shown(node: &Honest, doc: DocId) -> String {
    let shown = node.documents.show(doc).await.unwrap();
    let shown = cbor::decode::<Result<Answer, Refusal>>(&shown, shown.len()).unwrap();
    match shown.unwrap() {
        Answer::Content { text, .. } => text.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_go_on_while_another_document_of_megabytes_is_made_synced_and_loaded() {
    let (alice, bob) = (Honest::start(1).await, Honest::start(2).await);
    bob.node.join(&alice.node).await;
    let big = made(&alice).await;

    let doc = small(&bob, Some(big)).await;
    let quiet = calm(&bob, doc).await;
    alice.invite(&bob, big, Role::Writer).await;
    let comes = async {
        while bob.heads(big).await != alice.heads(big).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let comes = async { tokio::time::timeout(COMES_WITHIN, comes).await.unwrap() };
    beside("synchronising it", &bob, &[doc, big], quiet, comes).await.waits_for_nothing();

    let mut typed = Vec::new();
    for number in 0..LETTERS {
        typed.push(letter(&alice, &bob, big, number).await);
    }
    typed.sort();
    let rests = async {
        while !bob.documents.is_shown(big).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(COMES_WITHIN, rests).await.unwrap();
    let bob = bob.restart_documents().await;
    let began = Instant::now();
    let at_first = shown(&bob, big).await;
    let showing = began.elapsed();
    let read = bob.documents.read(big, |automerge| wattle_pad::text(automerge, None).ok().flatten());
    let text = tokio::sync::Mutex::new(None);
    let loading = async { *text.lock().await = read.await.ok().flatten() };
    let loading = beside("loading it", &bob, &[doc, big], quiet, loading).await.waits_for_nothing();
    let (half, most) = (typed[LETTERS / 2], typed[LETTERS * 99 / 100]);
    println!("a letter came after {half:?} (p50), {most:?} (p99); it was shown after {showing:?}");
    assert!(at_first.len() > LARGE - 100 && text.into_inner() == Some(at_first), "bob has not all of it");
    assert!(showing < loading / 4, "it was shown after {showing:?}, and reading it takes {loading:?}");
    assert!(most < loading / 4, "a letter came after {most:?}, and reading it takes {loading:?}");
}
