use std::io::{Read as _, Write as _};

use automerge::marks::{ExpandMark, Mark};
use automerge::sync::{self, SyncDoc as _};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{AutoCommit, Change, ObjType, ROOT, ScalarValue};
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::reader::Bound;
use super::*;

fn unsigned(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = number;
    while rest > 0x7f {
        bytes.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_bits(rest));
    bytes
}

fn signed(number: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = number;
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        if rest == if low & 0x40 == 0 { 0 } else { -1 } {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [unsigned(size(bytes)), bytes.to_vec()].concat()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A chunk whose checksum is `checksum`.
fn framed(checksum: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    [&MAGIC, checksum, &[kind], &prefixed(content)].concat()
}

/// A chunk with the right checksum.
fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
    framed(&Hash::of(kind, size(content)).over(content)[..4], kind, content)
}

/// A compressed change with the right checksum.
fn compressed(content: &[u8]) -> Vec<u8> {
    let hash = Hash::of(CHANGE, size(content)).over(content);
    framed(&hash[..4], COMPRESSED_CHANGE, &deflate(content))
}

type Columns<'a> = &'a [(u64, Vec<u8>)];

fn columns(columns: Columns<'_>) -> [Vec<u8>; 2] {
    let heads = columns.iter().map(|(spec, data)| [unsigned(*spec), unsigned(size(data))].concat());
    let names = [unsigned(columns.len() as u64), heads.collect::<Vec<_>>().concat()].concat();
    [names, columns.iter().map(|(_, data)| data.clone()).collect::<Vec<_>>().concat()]
}

/// The content of a change that depends on nothing.
fn change(of: Columns<'_>) -> Vec<u8> {
    let head = [&[0], &prefixed(&[7; 16])[..], &[1, 1, 0, 0, 0]].concat();
    [head, columns(of).concat()].concat()
}

/// The content of a document with one actor and no heads.
fn document(of_changes: Columns<'_>, of_operations: Columns<'_>) -> Vec<u8> {
    let head = [&[1], &prefixed(&[7; 16])[..], &[0]].concat();
    let [change_names, change_data] = columns(of_changes);
    let [operation_names, operation_data] = columns(of_operations);
    [head, change_names, operation_names, change_data, operation_data].concat()
}

/// `count` operations that each put null under one key.
fn puts(count: i64) -> Vec<(u64, Vec<u8>)> {
    let run = |value: &[u8]| [signed(count), value.to_vec()].concat();
    let insert = unsigned(count.unsigned_abs());
    vec![(21, run(&[1, b'k'])), (52, insert), (66, run(&[1])), (86, run(&[0])), (112, run(&[0]))]
}

/// Everything that documents are made of, by two authors who worked apart and together.
fn eventful() -> (AutoCommit, AutoCommit) {
    let mut one = AutoCommit::new().with_author(Some(vec![1; 32].into()));
    let text = one.put_object(ROOT, "text", ObjType::Text).unwrap();
    one.splice_text(&text, 0, 0, &"Rods woven together. ".repeat(200)).unwrap();
    one.commit_with(CommitOptions::default().with_message("the first words").with_time(1_800_000_000));
    let list = one.put_object(ROOT, "list", ObjType::List).unwrap();
    for (index, value) in [
        ScalarValue::Null,
        ScalarValue::Boolean(true),
        ScalarValue::Int(-7),
        ScalarValue::Uint(u64::MAX),
        ScalarValue::F64(0.5),
        ScalarValue::Timestamp(-1),
        ScalarValue::counter(3),
        ScalarValue::Bytes(vec![0xff; 700]),
        ScalarValue::Str("wattle 🪵".into()),
    ]
    .into_iter()
    .enumerate()
    {
        one.insert(&list, index, value).unwrap();
    }
    let mut two = one.fork().with_author(Some(vec![2; 32].into()));
    for round in 0..40 {
        one.splice_text(&text, round * 3, 2, "ab🪵").unwrap();
        one.increment(&list, 6, 2).unwrap();
        two.splice_text(&text, 900 + round, 1, "").unwrap();
        two.put(ROOT, format!("key {round}"), i64::try_from(round).unwrap()).unwrap();
        one.commit();
        two.commit();
        if round % 10 == 9 && round < 20 {
            one.merge(&mut two).unwrap();
            two.merge(&mut one).unwrap();
        }
    }
    let bold = Mark::new("bold".into(), true, 10, 200);
    one.mark(&text, bold, ExpandMark::Both).unwrap();
    one.split_block(&text, 50).unwrap();
    one.delete(ROOT, "key 3").unwrap();
    one.empty_change(CommitOptions::default());
    two.delete(&list, 0).unwrap();
    two.commit();
    (one, two)
}

/// Bytes of a chunk's content.
fn content(chunk: &[u8]) -> u64 {
    size(Chunk::split(chunk).map(|(chunk, _)| chunk.content).unwrap())
}

#[test]
fn every_change_is_accepted_with_its_hash_and_its_size() {
    let (mut one, mut two) = eventful();
    one.merge(&mut two).unwrap();
    let changes = one.get_changes(&[]);
    assert!(changes.len() > 80);
    for mut change in changes {
        let wanted = ChangeSummary {
            hash: change.hash().0,
            inflated_bytes: content(change.raw_bytes()),
            rows: change.len() as u64,
        };
        // Where an operation overwrites several others, those are more cells than there are operations.
        for bytes in [change.raw_bytes().to_vec(), change.bytes().into_owned()] {
            let got = inspect_change(&bytes).unwrap();
            assert!(got.rows >= wanted.rows && got.rows <= 2 * wanted.rows + 2, "{got:?} {wanted:?}");
            assert_eq!(ChangeSummary { rows: wanted.rows, ..got }, wanted);
        }
    }
}

#[test]
fn every_way_to_save_is_accepted_with_its_size() {
    let (mut one, mut two) = eventful();
    let before = one.get_heads();
    one.merge(&mut two).unwrap();
    let plain = inspect(&one.save_nocompress()).unwrap();
    assert_eq!((plain.documents, plain.inflated_bytes), (1, content(&one.save_nocompress())));
    let saved = one.save();
    assert!(saved.len() < one.save_nocompress().len());
    let (parts, deflated) = deflated_columns(&saved);
    let inflated: u64 = parts.iter().map(|part| part.len() as u64).sum();
    assert_eq!(plain.document_rows, plain.rows);
    let expected = Summary { inflated_bytes: content(&saved) - deflated + inflated, ..plain };
    assert_eq!(inspect(&saved), Ok(expected));
    let after = inspect(&one.save_after(&before)).unwrap();
    assert_eq!((after.documents, after.changes > 10), (0, true));
    one.put(ROOT, "more", 1).unwrap();
    assert_eq!(inspect(&one.save_incremental()).unwrap().changes, 1);
    assert_eq!(inspect(&AutoCommit::new().save()).unwrap().rows, 0);
}

/// The deflated columns of a saved document as automerge's own inflater has them, and their deflated size.
fn deflated_columns(saved: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let (chunk, _) = Chunk::split(saved).unwrap();
    let mut reader = Reader::plain(chunk.content);
    for _ in 0..reader.unsigned().unwrap() {
        let length = reader.unsigned().unwrap();
        reader.skip(length).unwrap();
    }
    content::skip_hashes(&mut reader).unwrap();
    let mut all = columns::Column::read_all(&mut reader).unwrap();
    all.extend(columns::Column::read_all(&mut reader).unwrap());
    let (mut parts, mut deflated) = (Vec::new(), 0);
    for column in all {
        let bytes = &reader.rest()[..usize::try_from(column.length).unwrap()];
        reader.skip(column.length).unwrap();
        if column.is_deflated() {
            let mut part = Vec::new();
            DeflateDecoder::new(bytes).read_to_end(&mut part).unwrap();
            parts.push(part);
            deflated += column.length;
        }
    }
    assert!(!parts.is_empty());
    (parts, deflated)
}

/// All sync messages of two replicas until they are equal.
fn dialog(one: &mut AutoCommit, two: &mut AutoCommit) -> Vec<Vec<u8>> {
    let (mut of_one, mut of_two) = (sync::State::new(), sync::State::new());
    let mut messages = Vec::new();
    loop {
        let there = one.sync().generate_sync_message(&mut of_one);
        let back = two.sync().generate_sync_message(&mut of_two);
        if there.is_none() && back.is_none() {
            return messages;
        }
        if let Some(message) = there {
            messages.push(message.clone().encode());
            two.sync().receive_sync_message(&mut of_two, message).unwrap();
        }
        if let Some(message) = back {
            messages.push(message.clone().encode());
            one.sync().receive_sync_message(&mut of_one, message).unwrap();
        }
    }
}

#[test]
fn every_message_of_a_sync_is_accepted() {
    let (mut one, mut two) = eventful();
    let mut messages = dialog(&mut one, &mut two);
    messages.extend(dialog(&mut one, &mut AutoCommit::new()));
    messages.extend(dialog(&mut AutoCommit::new(), &mut AutoCommit::new()));
    let all: Vec<_> = messages.iter().map(|message| inspect_sync(message).unwrap()).collect();
    assert!(all.iter().any(|message| message.chunks.documents == 1), "a whole document was sent");
    assert!(all.iter().any(|message| message.chunks.changes + message.chunks.compressed_changes > 10));
    assert!(messages.iter().any(|message| message[0] == 0x42) && messages.iter().any(|m| m[0] == 0x43));
}

#[test]
fn a_change_of_a_few_bytes_cannot_say_endless_operations() {
    assert_eq!(inspect_change(&chunk(CHANGE, &change(&puts(1000)))).unwrap().rows, 1000);
    assert_eq!(Change::from_bytes(chunk(CHANGE, &change(&puts(1000)))).unwrap().len(), 1000);
    let rows = ChunkError::Rows { max: CHANGE_ROWS_MAX };
    let more_than = |max: u64| [i64::try_from(max).unwrap() + 1, 1 << 40, i64::MAX, i64::MIN];
    for count in more_than(CHANGE_ROWS_MAX) {
        let content = change(&puts(count));
        assert_eq!(inspect(&chunk(CHANGE, &content)), Err(rows.clone()));
        assert_eq!(inspect(&compressed(&content)), Err(rows.clone()));
    }
    let of_document = ChunkError::Rows { max: DOCUMENT_ROWS_MAX };
    for count in more_than(DOCUMENT_ROWS_MAX) {
        assert_eq!(inspect(&chunk(DOCUMENT, &document(&[], &puts(count)))), Err(of_document.clone()));
        assert_eq!(inspect(&chunk(DOCUMENT, &document(&puts(count), &[]))), Err(of_document.clone()));
    }
    let many = i64::try_from(CHANGE_ROWS_MAX).unwrap();
    let most = chunk(CHANGE, &change(&puts(many))).repeat(64);
    assert_eq!(inspect(&most).map(|summary| summary.rows), Ok(ROWS_MAX));
    let more = [most, chunk(CHANGE, &change(&puts(1)))].concat();
    let all = ChunkError::Rows { max: ROWS_MAX };
    assert_eq!(inspect(&more), Err(all), "the cap is on all chunks of an input");
    let nulls = vec![(66, [vec![0], unsigned(1 << 50)].concat())];
    assert_eq!(inspect(&chunk(CHANGE, &change(&nulls))), Err(rows.clone()));
    let group = vec![(112, [signed(1 << 20), unsigned(1 << 40)].concat())];
    assert_eq!(inspect(&chunk(CHANGE, &change(&group))), Err(rows));
}

/// What this machine's user or a program here brings may be as large as the largest document is.
#[test]
fn a_file_may_hold_more_than_a_peer_may_send_and_not_endlessly_more() {
    let of = |count: u64| chunk(DOCUMENT, &document(&[], &puts(i64::try_from(count).unwrap())));
    let message = |chunk: &[u8]| [&[0x43, 0, 0, 0, 1], &prefixed(chunk)[..]].concat();
    let larger = of(DOCUMENT_ROWS_MAX + 1);
    assert_eq!(inspect_sync(&message(&larger)).unwrap().chunks.document_rows, DOCUMENT_ROWS_MAX + 1);
    let endless = of(Caps::FILE.document_rows + 1);
    let rows = ChunkError::Rows { max: Caps::FILE.document_rows };
    assert_eq!(inspect_sync(&message(&endless)), Err(rows.clone().into()));
    assert_eq!(load(&endless).unwrap_err(), rows.to_string());
}

#[test]
fn what_is_little_is_told_by_its_operations_its_changes_and_their_actors() {
    let of = |count: i64| chunk(CHANGE, &change(&puts(count)));
    let is_little = |chunks: &[Vec<u8>]| {
        let message = [vec![0x43, 0, 0, 0], unsigned(chunks.len() as u64)].concat();
        let items: Vec<u8> = chunks.iter().flat_map(|chunk| prefixed(chunk)).collect();
        let in_message = is_little_sync(&[message, items].concat());
        assert_eq!(are_little(chunks.iter().map(Vec::as_slice)), in_message);
        in_message
    };
    assert!(is_little(&[of(256)]) && !is_little(&[of(257)]));
    assert!(!is_little(&[of(150), of(150)]), "they are applied together");
    assert!(is_little(&vec![of(1); 8]) && !is_little(&vec![of(1); 9]), "each may be by another actor");
    let of_document = |operations: i64| chunk(DOCUMENT, &document(&[], &puts(operations)));
    assert!(is_little(&[of_document(256)]) && !is_little(&[of_document(257)]));
    let of_changes = |changes: i64| chunk(DOCUMENT, &document(&puts(changes), &[]));
    assert!(is_little(&[of_changes(16)]) && !is_little(&[of_changes(17)]));
    let of_actors = |actors: u64| {
        let [none, _] = columns(&[]);
        let names: Vec<u8> = (0..actors).flat_map(|actor| prefixed(&[low_bits(actor)])).collect();
        chunk(DOCUMENT, &[unsigned(actors), names, vec![0], none.clone(), none].concat())
    };
    assert!(is_little(&[of_actors(8)]) && !is_little(&[of_actors(9)]));
    assert!(!is_little(&[compressed(&change(&puts(1)))]), "what is compressed is not looked at");
    assert!(!is_little(&[vec![1, 2, 3]]), "nor is what is refused");
    let heads = [vec![0x43], unsigned(70), vec![7; 70 * 32], vec![0, 0, 0]].concat();
    assert!(inspect_sync(&heads).is_ok() && !is_little_sync(&heads), "a long list is walked too");
}

#[test]
fn actors_and_their_clocks_are_bounded() {
    let actors = |count: u64| [vec![0], prefixed(&[7; 16]), vec![1, 1, 0, 0], unsigned(count)].concat();
    let many = [actors(ACTORS_MAX + 1), vec![0; 70_000]].concat();
    let refused = ChunkError::Actors { got: ACTORS_MAX + 1, max: ACTORS_MAX };
    assert_eq!(inspect(&chunk(CHANGE, &many)), Err(refused.clone()));
    assert_eq!(inspect(&compressed(&many)), Err(refused));
    let names = [unsigned(60_000), vec![0; 60_000], vec![0]].concat();
    let [heads, data] = columns(&[(1, [signed(60_000), vec![0]].concat())]);
    let content = [names, heads, vec![0], data].concat();
    let clocks = ChunkError::Clocks { actors: 60_000, changes: 60_000 };
    assert_eq!(inspect(&chunk(DOCUMENT, &content)), Err(clocks));
}

#[test]
fn ratio_and_size_are_bounded_whatever_is_compressed() {
    let blank = |bytes: usize| change(&[(87, vec![b' '; bytes])]);
    let free = usize::try_from(RATIO_FREE_BYTES).unwrap();
    assert!(inspect(&compressed(&blank(free - 100))).is_ok(), "small and repetitive is honest");
    let large = compressed(&blank(free + 1));
    let ratio = ChunkError::Ratio { deflated: content(&large), max: RATIO_FREE_BYTES };
    assert_eq!(inspect(&large), Err(ratio));
    let column = deflate(&vec![0; 3 * free]);
    let ratio = ChunkError::Ratio { deflated: size(&column), max: RATIO_FREE_BYTES };
    assert_eq!(inspect(&chunk(DOCUMENT, &document(&[], &[(0x5f, column.clone())]))), Err(ratio.clone()));
    assert_eq!(inspect(&chunk(DOCUMENT, &document(&[(0x5f, column)], &[]))), Err(ratio));
    let noisy: Vec<u8> =
        (0..5_u32 << 20).map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let honest = chunk(CHANGE, &change(&[(87, noisy)]));
    let max = ChunkError::Inflated { max: INFLATED_BYTES_MAX };
    assert!(inspect(&honest.repeat(12)).is_ok());
    assert_eq!(inspect(&honest.repeat(13)), Err(max));
}

#[test]
fn deflate_streams_end_where_their_part_ends() {
    let content = change(&puts(500));
    let good = compressed(&content);
    let (Chunk { checksum, content: stream, .. }, _) = Chunk::split(&good).unwrap();
    let refused = |stream: &[u8]| inspect(&framed(&checksum, COMPRESSED_CHANGE, stream)).unwrap_err();
    assert_eq!(refused(&[stream, &[0]].concat()), ChunkError::Trailing);
    assert_eq!(refused(&stream[..stream.len() - 1]), ChunkError::Truncated);
    assert_eq!(refused(&[]), ChunkError::Truncated);
    assert_eq!(refused(&[0xff; 20]), ChunkError::Deflate);
    let twice = chunk(CHANGE, &change(&[(0x5f, deflate(b"automerge never does this"))]));
    assert_eq!(inspect(&twice), Err(ChunkError::Columns));
}

#[test]
fn what_is_not_a_chunk_is_named() {
    let (mut one, _) = eventful();
    let saved = one.save();
    assert_eq!(inspect(&[]), Err(ChunkError::Empty));
    assert_eq!(inspect(b"GET / HTTP/1.1"), Err(ChunkError::NotAChunk));
    assert_eq!(inspect(&[&saved[..], b"more"].concat()), Err(ChunkError::NotAChunk));
    assert_eq!(inspect(&chunk(3, &[])), Err(ChunkError::Kind { kind: 3 }));
    assert_eq!(inspect(&chunk(DOCUMENT, &[document(&[], &[]), vec![0]].concat())), Err(ChunkError::Trailing));
    assert_eq!(inspect_change(&saved), Err(ChunkError::NotOneChange));
    let single = chunk(CHANGE, &change(&puts(1)));
    assert_eq!(inspect_change(&single.repeat(2)), Err(ChunkError::NotOneChange));
    let other = [&MAGIC, &[0; 4], &single[8..]].concat();
    assert!(matches!(inspect(&other), Err(ChunkError::Checksum { got: [0, 0, 0, 0], .. })));
    let disordered = change(&[(52, vec![1]), (21, vec![])]);
    assert_eq!(inspect(&chunk(CHANGE, &disordered)), Err(ChunkError::Columns));
    let overlong = [&MAGIC[..], &[0; 4], &[1], &[0xff; 11]].concat();
    assert_eq!(inspect(&overlong), Err(ChunkError::Number));
}

#[test]
fn filters_that_automerge_cannot_bear_are_refused() {
    let message = |filter: &[u8]| [&[0x42, 0, 0, 1, 0], &prefixed(filter)[..], &[0]].concat();
    let haves = |filter: &[u8]| inspect_sync(&message(filter)).map(|summary| summary.haves);
    assert_eq!(haves(&[]), Ok(1));
    assert_eq!(haves(&[4, 10, 7, 1, 2, 3, 4, 5]), Ok(1));
    assert_eq!(haves(&[4, 0, 7]), Err(SyncError::Bloom { entries: 4, bits: 0, probes: 7 }));
    assert!(matches!(haves(&[4, 10, 17, 1, 2, 3, 4, 5]), Err(SyncError::Bloom { probes: 17, .. })));
    assert_eq!(haves(&[4, 10, 7, 1, 2, 3, 4]), Err(ChunkError::Truncated.into()));
    assert_eq!(haves(&[4, 10, 7, 1, 2, 3, 4, 5, 6]), Err(ChunkError::Trailing.into()));
    let many = [&[0x43, 0, 0][..], &unsigned(9), &[0; 18], &[0]].concat();
    assert_eq!(inspect_sync(&many), Err(SyncError::Haves { got: 9, max: SYNC_HAVES_MAX }));
    assert_eq!(inspect_sync(&[0x44, 0, 0, 0, 0]), Err(SyncError::Version { version: 0x44 }));
    assert_eq!(inspect_sync(&[0x43, 0, 0, 0, 1, 0]), Err(ChunkError::Empty.into()));
    assert_eq!(inspect_sync(&[0x43, 0, 0, 0, 0, 1, 2, 3]), Err(ChunkError::Trailing.into()));
}

#[test]
fn nothing_cut_short_passes() {
    let (mut one, mut two) = eventful();
    let large = one.get_changes(&[]).iter_mut().map(|change| change.bytes().into_owned()).next().unwrap();
    for whole in [one.save(), large, chunk(CHANGE, &change(&puts(9)))] {
        assert!(inspect(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(inspect(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
    }
    for message in dialog(&mut one, &mut two) {
        let whole = inspect_sync(&message).unwrap();
        for length in 0..message.len() {
            // Only the flags can be missing: that is a whole message of an older version.
            assert!(inspect_sync(&message[..length]).is_err() || length == message.len() - 3);
        }
        assert_eq!(inspect_sync(&message[..message.len() - 3]).unwrap_or(whole), whole);
    }
}

/// Bytes with a few places changed, and with the checksum of what they have become.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    (prop::sample::select(seeds), places).prop_map(|(mut bytes, places)| {
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let (mut one, mut two) = eventful();
    one.merge(&mut two).unwrap();
    let mut seeds: Vec<_> = one.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
    seeds.truncate(12);
    seeds.extend([one.save(), one.save_nocompress(), one.save_after(&[])]);
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_chunks_never_panic(bytes in mutated(seeds())) {
        drop(inspect(&bytes));
        let Ok((chunk, _)) = Chunk::split(&bytes) else { return Ok(()) };
        // With the checksum repaired everything behind it is reached.
        let mut summary = Summary::default();
        let mut content = Content::new(&mut summary, Caps::PEER);
        drop(content.document(chunk.content));
        drop(content.change(&mut Reader::plain(chunk.content)));
        drop(inspect(&compressed(chunk.content)));
    }

    #[test]
    fn what_passes_inflates_to_what_was_counted(bytes in mutated(vec![deflate(&change(&puts(77)))])) {
        let bound = Bound::deflated(size(&bytes), INFLATED_BYTES_MAX);
        if let Ok(counted) = measure(&bytes, bound) {
            let mut inflated = Vec::new();
            if DeflateDecoder::new(&bytes[..]).read_to_end(&mut inflated).is_ok() {
                prop_assert_eq!(size(&inflated), counted);
            }
        }
    }

    #[test]
    fn mutated_sync_messages_never_panic(bytes in mutated(dialogs())) {
        drop(inspect_sync(&bytes));
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop((inspect(&bytes), inspect_change(&bytes), inspect_sync(&bytes)));
        drop((inspect(&chunk(DOCUMENT, &bytes)), inspect(&chunk(CHANGE, &bytes)), inspect(&compressed(&bytes))));
    }
}

fn dialogs() -> Vec<Vec<u8>> {
    let (mut one, mut two) = eventful();
    dialog(&mut one, &mut two)
}
