//! The pages of the commands about testnets.

use super::{Json, Page, document, offline};
use crate::exit::ErrorCode;

use ErrorCode::{Conflict, Failed, NotFound, Partial, Timeout, Usage};

/// Every leaf below `testnet`. None needs the node of `-n`: they have nodes of their own.
pub(super) const PAGES: &[Page] = &[
    offline(
        "testnet up",
        document("wattle.testnet_up/1"),
        &[Failed, Usage, Timeout, Conflict],
        [
            ("wattle testnet up 5", "five connected nodes: alice, bob, carol, dave, erin"),
            (
                "wattle testnet up 50 --backend inproc --latency 30ms",
                "fifty in one process, far from each other",
            ),
        ],
    ),
    offline(
        "testnet apply",
        document("wattle.testnet_apply/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet apply testnet.toml", "make it as the file says; a second time changes nothing"),
            ("wattle testnet apply testnet.toml --dry-run", "what that would do"),
        ],
    ),
    offline(
        "testnet down",
        document("wattle.testnet_down/1"),
        &[Failed, Usage, NotFound, Conflict],
        [
            ("wattle testnet down", "end every node, and leave no file"),
            ("wattle testnet down --name lab --keep", "end them, and keep what they have"),
        ],
    ),
    offline(
        "testnet list",
        document("wattle.testnet_list/1"),
        &[],
        [("wattle testnet list", "which there are"), ("wattle testnet list -q", "their names, for a script")],
    ),
    offline(
        "testnet status",
        document("wattle.testnet_status/1"),
        &[Failed, Usage, NotFound],
        [
            ("wattle testnet status", "every node, and what is done to the links"),
            ("wattle testnet status --watch", "the same, again and again"),
        ],
    ),
    offline(
        "testnet exec",
        Json::Lines(&["TestnetExecLine"]),
        &[Failed, Usage, NotFound, Partial],
        [
            ("wattle testnet exec --json all -- status", "the same command at every node; ends as they end"),
            ("wattle testnet exec 3 -- ping alice", "at one node; for short: wattle -t demo/3 ping alice"),
        ],
    ),
    offline(
        "testnet logs",
        Json::Lines(&["TestnetLogLine"]),
        &[Failed, Usage, NotFound],
        [
            ("wattle testnet logs", "what all nodes logged, in order"),
            ("wattle testnet logs carol -f", "of one of them, and what comes"),
        ],
    ),
    offline(
        "testnet partition",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet partition 0,1 2,3,4", "neither side hears of the other"),
            ("wattle testnet partition --one-way 0 1,2,3,4", "nobody hears alice; she hears all"),
        ],
    ),
    offline(
        "testnet heal",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet heal", "join what was cut"),
            ("wattle testnet heal --name lab", "of another testnet"),
        ],
    ),
    offline(
        "testnet latency",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet latency 50ms+-10", "every ping takes 40 to 60 ms longer"),
            (
                "wattle testnet latency alice-bob 200ms --spread heavy-tail",
                "one link, and now and then much more",
            ),
        ],
    ),
    offline(
        "testnet loss",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet loss 5%", "lose datagrams of members; what is lost of a stream comes late"),
            ("wattle testnet loss 0-1 0%", "but not between these two"),
        ],
    ),
    offline(
        "testnet rate",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet rate 1mbit", "every link carries so much each way"),
            ("wattle testnet rate 0-1 64kbit", "one link, a modem's worth"),
        ],
    ),
    offline(
        "testnet disk",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet disk 2 full", "node 2 finds no space, and refuses what it cannot keep"),
            ("wattle testnet disk free", "every node finds space again"),
        ],
    ),
    offline(
        "testnet clock",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet clock 2 5m --behind", "the clock of node 2 is five minutes slow"),
            ("wattle testnet clock 0s", "every clock is right again"),
        ],
    ),
    offline(
        "testnet clear",
        document("wattle.testnet_links/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            (
                "wattle testnet clear",
                "take latency, loss, rate, full disks and wrong clocks away; a partition stays",
            ),
            ("wattle testnet clear --name lab", "of another testnet"),
        ],
    ),
    offline(
        "testnet kill",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Conflict],
        [("wattle testnet kill 2", "SIGKILL: no goodbye"), ("wattle testnet kill alice bob", "two at once")],
    ),
    offline(
        "testnet pause",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Conflict],
        [
            ("wattle testnet pause 3", "it stands still, and its sockets stay open"),
            ("wattle testnet pause all", "as a laptop that is shut"),
        ],
    ),
    offline(
        "testnet resume",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet resume 3", "it goes on where it stood"),
            ("wattle testnet resume all", "all that were frozen"),
        ],
    ),
    offline(
        "testnet restart",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet restart 2", "bring a killed one back, with what it had on disk"),
            ("wattle testnet restart all", "all of them, one stop and one start each"),
        ],
    ),
    offline(
        "testnet add",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [("wattle testnet add", "one more node"), ("wattle testnet add 3", "three more")],
    ),
    offline(
        "testnet remove",
        document("wattle.testnet_nodes/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict],
        [
            ("wattle testnet remove 4", "it says goodbye, and its files go"),
            ("wattle testnet remove dave erin", "two of them"),
        ],
    ),
    offline(
        "testnet chaos",
        document("wattle.testnet_chaos/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict, Partial],
        [
            ("wattle testnet chaos --for 60s --seed 7", "the same faults every time, then a report"),
            ("wattle testnet chaos --kinds kill,partition --dry-run", "what would be done"),
        ],
    ),
    offline(
        "testnet demo",
        document("wattle.testnet_report/1"),
        &[Failed, Usage, NotFound, Timeout, Conflict, Partial],
        [
            ("wattle testnet demo", "five nodes, a split, a heal and a report; then nothing is left"),
            ("wattle testnet demo --keep --name look", "the same, to look at afterwards"),
        ],
    ),
    offline(
        "testnet report",
        document("wattle.testnet_report/1"),
        &[Failed, Usage, NotFound, Partial],
        [
            ("wattle testnet report", "do all agree, and how long did it take; exit 10 when not"),
            ("wattle testnet report -o report --within 30s", "as a page and as JSON too"),
        ],
    ),
];
