//! Pages about the ordered log.

use super::{Json, Page, document, live, offline};
use crate::exit::ErrorCode::{Conflict, Denied, Failed, Invalid, NoNode, NoQuorum, NotFound, Timeout, Usage};

/// Every leaf below `order` and `register`.
pub(super) const PAGES: &[Page] = &[
    offline(
        "order init",
        document("wattle.order_init/1"),
        &[Usage],
        [
            ("wattle order init --validators a,b,c,d", "four nodes of this machine; writes genesis.json"),
            ("wattle order init --validators a,b,c,d -o ours.json", "into another file; ids do as well"),
        ],
    ),
    live(
        "order join",
        document("wattle.order_join/1"),
        &[Usage, NoNode, Conflict, Invalid, Failed],
        [
            ("wattle order join genesis.json", "vote, if this node is in it, else follow"),
            ("wattle -n bob order join genesis.json", "on another node"),
        ],
    ),
    live(
        "order submit",
        document("wattle.order_submit/1"),
        &[NoNode, NotFound, Timeout, Denied, NoQuorum, Failed],
        [
            ("wattle order submit \"pay bob 5\"", "append, and wait until it stands there for ever"),
            ("wattle order submit - --receipt r.json", "what is on stdin, with the proof of it"),
        ],
    ),
    live(
        "order submit-lines",
        Json::Lines(&["OrderSubmitted"]),
        &[Usage, NoNode, NotFound, Timeout, Denied, NoQuorum, Failed],
        [
            ("wattle order submit-lines", "each line of stdin is an entry; prints where each stands"),
            ("wattle order submit-lines --app register/1 --json", "what came of each, for a script"),
        ],
    ),
    live(
        "order status",
        document("wattle.order_status/1"),
        &[NoNode, NotFound, NoQuorum],
        [
            ("wattle order status", "how far it is, and who votes"),
            ("wattle order status --json", "the same, for a script"),
        ],
    ),
    live(
        "order log",
        document("wattle.order_log/1"),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle order log -c 5", "the newest five entries"),
            ("wattle order log --from 1 -f", "all of them, and on as it grows"),
        ],
    ),
    live(
        "order get",
        document("wattle.order_block/1"),
        &[Usage, NoNode, NotFound],
        [
            ("wattle order get 412", "a block"),
            ("wattle order get 412:3 --receipt r.json", "one entry of it, and its proof"),
        ],
    ),
    live(
        "order watch",
        Json::Lines(&["OrderLine"]),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle order watch", "blocks as they are committed"),
            ("wattle order watch -c 1 --timeout 1m", "the next one"),
        ],
    ),
    live(
        "order validators",
        document("wattle.order_validators/1"),
        &[NoNode, NotFound],
        [
            ("wattle order validators", "who votes, and how each does"),
            ("wattle order validators -q", "their ids only"),
        ],
    ),
    live(
        "order change",
        document("wattle.order_changed/1"),
        &[Usage, NoNode, NotFound, Conflict, Timeout, NoQuorum, Failed],
        [
            ("wattle order change --validators alice,bob,carol,erin", "these vote, once they agree"),
            ("wattle -n erin order change --validators alice,bob,carol,erin", "and erin is ready to"),
        ],
    ),
    offline(
        "order verify",
        document("wattle.order_verify/1"),
        &[Usage, Invalid],
        [
            ("wattle order verify r.json --genesis genesis.json", "whether a receipt holds"),
            ("wattle order verify r.json --genesis genesis.json --data f", "and that it is of this"),
        ],
    ),
    live(
        "order snapshot create",
        document("wattle.order_snapshot/1"),
        &[Usage, NoNode, NotFound, Failed],
        [
            ("wattle order snapshot create -o log.snapshot", "the log in a file"),
            ("wattle order snapshot create --compact", "and forget the blocks before its state"),
        ],
    ),
    live(
        "order snapshot list",
        document("wattle.order_snapshots/1"),
        &[NoNode, NotFound, Failed],
        [
            ("wattle order snapshot list", "the files that this node wrote"),
            ("wattle order snapshot list -q", "only where they are"),
        ],
    ),
    live(
        "order snapshot restore",
        document("wattle.order_restore/1"),
        &[Usage, NoNode, NotFound, Conflict, Invalid, Failed],
        [
            ("wattle order snapshot restore log.snapshot", "go on from it"),
            ("wattle -n bob order snapshot restore log.snapshot", "on another node"),
        ],
    ),
    live(
        "register append",
        document("wattle.register_append/1"),
        &[NoNode, NotFound, Timeout, Denied, NoQuorum, Failed],
        [
            (
                "wattle register append births \"ann, 3.4 kg\"",
                "a line more, and wait until it stands there for ever",
            ),
            ("wattle register append births -", "what is on stdin"),
        ],
    ),
    live(
        "register read",
        document("wattle.register/1"),
        &[NoNode, NotFound],
        [
            ("wattle register read births -c 5", "the newest five lines"),
            ("wattle register read births --from 0", "from the first on"),
        ],
    ),
    live(
        "register list",
        document("wattle.registers/1"),
        &[NoNode, NotFound],
        [
            ("wattle register list", "every register, and how many lines it has"),
            ("wattle register list -q", "only their names"),
        ],
    ),
];
