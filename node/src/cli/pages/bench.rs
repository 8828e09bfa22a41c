//! The pages of the commands that load a node.

use super::{Page, document, live};
use crate::exit::ErrorCode::{Denied, Failed, NoNode, NoQuorum, NotFound, Partial, Timeout, Usage};

/// Every leaf below `bench`.
pub(super) const PAGES: &[Page] = &[
    live(
        "bench ping",
        document("wattle.bench/1"),
        &[NoNode, NotFound, Timeout, Failed, Partial],
        [
            ("wattle bench ping", "round trips to each connected peer in turn"),
            ("wattle -t demo/0 bench ping --for 10s --rate 100", "a hundred a second, in a testnet"),
        ],
    ),
    live(
        "bench gossip",
        document("wattle.bench/1"),
        &[Usage, NoNode, NotFound, Timeout, Failed, Partial],
        [
            ("wattle bench gossip", "messages, until every other node of this machine heard them"),
            ("wattle -t demo/0 bench gossip --size 1024 --clients 8", "eight at a time, of a kilobyte"),
        ],
    ),
    live(
        "bench dht",
        document("wattle.bench/1"),
        &[Usage, NoNode, NotFound, Timeout, Failed, Partial],
        [
            ("wattle bench dht", "store a record, find it again, and once more"),
            ("wattle -t demo/3 bench dht --for 30s --clients 4", "from another node of a testnet"),
        ],
    ),
    live(
        "bench doc",
        document("wattle.bench/1"),
        &[Usage, NoNode, NotFound, Timeout, Failed, Partial],
        [
            ("wattle bench doc", "edit a document, until every other node of this machine has it"),
            ("wattle -t demo/0 bench doc --rate 10 --clients 4", "four documents, ten edits a second in all"),
        ],
    ),
    live(
        "bench order",
        document("wattle.bench/1"),
        &[Usage, NoNode, NotFound, Timeout, Denied, NoQuorum, Failed, Partial],
        [
            ("wattle bench order", "entries, from asking until they stand there for ever"),
            ("wattle -t demo/0 bench order --for 10s --rate 500 --clients 64", "five hundred a second"),
        ],
    ),
];
