//! What document peers and local programs send: automerge bytes, frames about a document, what rooms are told, files,
//! and messages of automerge-repo.

use std::panic::catch_unwind;
use std::time::Duration;

use automerge::{Automerge, Change, ROOT, ReadDoc as _};
use miniz_oxide::deflate::compress_to_vec;
use sha2::{Digest as _, Sha256};
use wattle_docs::chunk::{INFLATED_BYTES_MAX, ROWS_MAX, Summary, inspect, inspect_change, inspect_sync};
use wattle_docs::repo::{DecodeError, FRAME_BYTES_MAX, Message};
use wattle_docs::{Input, Role};
use wattle_pad::{FileContent, import, recognise, summary, text, title, to_json};
use wattle_types::{DocId, Domain, Envelope, NetworkName, SecretKey, cbor};

use super::members::key;
use super::parts;
use crate::documents::{self as peer, Bearer, Desk, Payload, Sent, Speaker, put};

/// Automerge bytes: as they are, then as the content of each kind of chunk with the checksum it needs.
pub(super) fn chunk(bytes: &[u8]) {
    if let Ok(summary) = inspect(bytes) {
        bounded(&summary);
        assert!(summary.documents + summary.changes + summary.compressed_changes > 0, "nothing is no chunk");
    }
    if let Ok(change) = inspect_change(bytes) {
        assert_eq!(inspect(bytes).map(|summary| summary.rows), Ok(change.rows), "one way to count");
    }
    // A checksum is not found by chance, and behind it is most of what there is to find.
    for kind in [0, 1] {
        let checksum = checksum(kind, bytes);
        let plain = inspect(&framed(kind, checksum, bytes));
        let Ok(plain) = plain else { continue };
        bounded(&plain);
        if kind == 1 {
            let packed = inspect(&framed(2, checksum, &compress_to_vec(bytes, 6)));
            let packed = packed.map(|packed| (packed.rows, packed.inflated_bytes));
            assert_eq!(packed, Ok((plain.rows, plain.inflated_bytes)), "the same change, compressed");
        }
    }
    // Here the bytes are the deflate stream itself; no checksum is needed to inflate it.
    assert!(inspect_change(&framed(2, [0; 4], bytes)).is_err(), "four zeros are no checksum");
}

/// A sync message of automerge, as it is.
pub(super) fn sync_message(bytes: &[u8]) {
    if let Ok(summary) = inspect_sync(bytes) {
        bounded(&summary.chunks);
    }
}

/// A frame of a program that speaks automerge-repo.
pub(super) fn repo_message(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(message) => {
            let written = message.encode();
            assert_eq!(Message::decode(&written), Ok(message), "what is read can be written");
        }
        Err(DecodeError::TooLarge { .. }) => assert!(bytes.len() > FRAME_BYTES_MAX, "a frame is capped"),
        Err(_) => {}
    }
}

/// A node with a document, and a writer of it who says what it likes.
struct Pair {
    desk: Desk,
    doc: DocId,
    writer: Speaker,
}

impl Pair {
    fn new() -> Self {
        let mut desk = Desk::new(key(1));
        let doc = desk.create();
        let (access, bearer) = desk.invite(doc, Role::Writer, &Bearer { expires: None, uses: None });
        let writer = Speaker::new(key(2), access, Some(bearer));
        let redemption = writer.redemption(writer.id());
        desk.meet(&writer, redemption);
        Self { desk, doc, writer }
    }

    /// Whatever was said: the document can be read, written, and read again from the disk.
    fn holds(mut self) {
        self.desk.wait(Duration::from_secs(1));
        let before = self.desk.read(self.doc);
        look_at(&before);
        let edit = put("title", "still here");
        let edited = self.desk.ask(|request| Input::Edit { request, doc: self.doc, at: None, edit });
        assert!(edited.is_ok(), "who owns a document can write it: {edited:?}");
        let (here, again) = (self.desk.read(self.doc), self.desk.restarted().read(self.doc));
        assert_eq!(here.get_heads(), again.get_heads(), "what is shown is what is on disk");
        let title = again.get(ROOT, "title").ok().flatten();
        assert_eq!(title.and_then(|(title, _)| title.into_string().ok()).as_deref(), Some("still here"));
    }
}

/// What people look at of a document that a stranger wrote.
fn look_at(document: &Automerge) {
    let (_title, _summary) = (title(document), summary(document));
    let (_text, _fields) = (text(document, None), to_json(document, None));
}

/// The same envelope, signed again by the writer if it is in its name.
fn signed(envelope: Envelope, domain: Domain, key: &SecretKey) -> Envelope {
    if envelope.author() != key.node_id() {
        return envelope;
    }
    let signature = key.sign(domain, &NetworkName::default(), envelope.body());
    Envelope::from_parts(envelope.author(), envelope.body().to_vec(), signature)
}

fn all_signed(envelopes: Vec<Envelope>, domain: Domain, key: &SecretKey) -> Vec<Envelope> {
    envelopes.into_iter().map(|envelope| signed(envelope, domain, key)).collect()
}

/// A message as the writer would send it: what it says in its own name is signed.
fn said(message: peer::Message, key: &SecretKey) -> peer::Message {
    use peer::Message as Said;
    match message {
        Said::Learn { operations } => {
            Said::Learn { operations: all_signed(operations, Domain::DocControl, key) }
        }
        Said::Posts { posts, asked } => {
            let sign = |post: Sent| Sent { envelope: signed(post.envelope, Domain::DocPost, key), ..post };
            Said::Posts { posts: posts.into_iter().map(sign).collect(), asked }
        }
        Said::Forked { entries } => Said::Forked { entries: all_signed(entries, Domain::DocPost, key) },
        Said::Part { transfer, part, parts: 1, bytes } => {
            let payload = cbor::decode::<Payload>(&bytes, bytes.len()).map(|payload| {
                let vouches = all_signed(payload.vouches, Domain::DocVouch, key);
                cbor::encode(&Payload { vouches, ..payload }).into()
            });
            Said::Part { transfer, part, parts: 1, bytes: payload.unwrap_or(bytes) }
        }
        other => other,
    }
}

/// Messages of a writer about a document, each behind a byte and its length; the byte says whether the writer signs
/// them anew.
pub(super) fn document_frames(bytes: &[u8]) {
    let mut pair = Pair::new();
    let tag = pair.writer.access.read.tag();
    for (how, bytes) in parts(bytes) {
        let frame = match cbor::decode::<peer::Message>(bytes, bytes.len()) {
            Ok(message) if how % 2 == 1 => pair.writer.frame(&said(message, &pair.writer.key)),
            _ => [tag.as_bytes().as_slice(), bytes].concat(),
        };
        pair.desk.hears(pair.writer.id(), frame);
    }
    pair.holds();
}

/// What is inside a change that a writer vouches for: on top of what is there.
pub(super) fn document_change(bytes: &[u8]) {
    let framed = framed(1, checksum(1, bytes), bytes);
    if inspect_change(&framed).is_err() {
        return;
    }
    // The writer's own program may not survive it, and this node has to.
    let Ok(Ok(change)) = catch_unwind(|| Change::from_bytes(framed.clone())) else { return };
    let mut pair = Pair::new();
    let vouch = pair.writer.vouch(&pair.writer.key, pair.doc, 0, &change);
    let push = pair.writer.push(vec![vouch], vec![framed]);
    pair.desk.hears(pair.writer.id(), push);
    pair.holds();
}

/// A file that somebody imports, under a name that promises nothing and under one that promises JSON.
pub(super) fn file(bytes: &[u8]) {
    for name in ["x", "x.json"] {
        let Ok(content) = recognise(name, bytes) else { continue };
        let loaded = match content {
            FileContent::Automerge => match wattle_docs::chunk::load(bytes) {
                Ok(loaded) => loaded,
                Err(_) => continue,
            },
            FileContent::Json(_) | FileContent::Text(_) => Automerge::new(),
        };
        let mut document = loaded;
        let mut transaction = document.transaction();
        let imported = import(&mut transaction, &content, None, name);
        transaction.commit();
        look_at(&document);
        if let (Ok(()), FileContent::Text(written)) = (imported, &content) {
            assert_eq!(text(&document, None).ok().flatten().as_ref(), Some(written), "a text is what it was");
        }
    }
}

fn bounded(summary: &Summary) {
    assert!(summary.rows <= ROWS_MAX, "rows are capped");
    assert!(summary.inflated_bytes <= INFLATED_BYTES_MAX, "bytes are capped");
}

fn unsigned(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn checksum(kind: u8, content: &[u8]) -> [u8; 4] {
    let hash = Sha256::new().chain_update([kind]).chain_update(unsigned(content.len())).chain_update(content);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    [a, b, c, d]
}

fn framed(kind: u8, checksum: [u8; 4], content: &[u8]) -> Vec<u8> {
    [&[0x85, 0x6f, 0x4a, 0x83][..], &checksum, &[kind], &unsigned(content.len()), content].concat()
}
