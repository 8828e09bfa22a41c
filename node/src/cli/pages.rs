//! One page a leaf: its examples, its exit codes, and what `--json` prints. Help, manual and tests read the
//! same table.

mod bench;
mod order;
mod testnet;

use crate::exit::ErrorCode;

use ErrorCode::{Conflict, Denied, Failed, Invalid, NoNode, NotFound, Partial, Timeout, Usage};

/// What `--json` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// One document with this schema.
    Document(&'static str),
    /// JSON Lines, each with `type` and `ts`, and each one of these components of `openapi.json`.
    Lines(&'static [&'static str]),
    /// The output is made for another program already: a shell, `man`.
    Plain,
}

/// The page of one leaf.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The words after `wattle`.
    pub path: &'static str,
    /// Two things to type, each with what it does.
    pub examples: [(&'static str, &'static str); 2],
    /// How it may end beside 0 and 130.
    pub exits: &'static [ErrorCode],
    /// What `--json` prints.
    pub json: Json,
    /// Whether it needs a running node.
    pub needs_node: bool,
}

const fn live(
    path: &'static str,
    json: Json,
    exits: &'static [ErrorCode],
    examples: [(&'static str, &'static str); 2],
) -> Page {
    Page { path, examples, exits, json, needs_node: true }
}

const fn offline(
    path: &'static str,
    json: Json,
    exits: &'static [ErrorCode],
    examples: [(&'static str, &'static str); 2],
) -> Page {
    Page { path, examples, exits, json, needs_node: false }
}

/// The page of the leaf at `path`.
#[must_use]
pub fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

const fn document(schema: &'static str) -> Json {
    Json::Document(schema)
}

/// Every leaf.
pub const PAGES: &[Page] = &joined::<
    { OTHERS.len() + order::PAGES.len() + testnet::PAGES.len() + bench::PAGES.len() },
>(&[OTHERS, order::PAGES, testnet::PAGES, bench::PAGES]);

/// Tables as one.
const fn joined<const ALL: usize>(tables: &[&[Page]]) -> [Page; ALL] {
    let mut all = [OTHERS[0]; ALL];
    let (mut table, mut row, mut at) = (0, 0, 0);
    while at < ALL {
        if row == tables[table].len() {
            (table, row) = (table + 1, 0);
            continue;
        }
        all[at] = tables[table][row];
        row += 1;
        at += 1;
    }
    all
}

/// Every leaf but those in files of their own.
const OTHERS: &[Page] = &[
    // This node.
    offline(
        "init",
        document("wattle.init/1"),
        &[Usage, Conflict],
        [
            ("wattle init", "a key and a config file for the node \"default\""),
            ("wattle -n home init --network home-lab --private", "one in a private network of your own"),
        ],
    ),
    offline(
        "id",
        document("wattle.id/1"),
        &[NoNode, NotFound],
        [
            ("wattle id", "who this node is, running or not"),
            ("wattle id ..Xs2fQm", "what it knows of a peer"),
        ],
    ),
    offline(
        "run",
        Json::Lines(&["ReadyLine", "EventLine"]),
        &[Usage, Conflict],
        [
            ("wattle run", "start the node here; Ctrl-C stops it"),
            ("wattle -n bob run -d", "a second one in the background; they find each other"),
        ],
    ),
    live(
        "status",
        document("wattle.status/1"),
        &[NoNode],
        [("wattle status", "one screen"), ("wattle status --watch", "the same, again and again")],
    ),
    live(
        "ui",
        document("wattle.ui/1"),
        &[NoNode, Denied, Failed],
        [
            ("wattle ui", "this node's page in the browser, signed in"),
            ("wattle ui --print", "print the link; it works once, within a minute"),
        ],
    ),
    live(
        "stop",
        document("wattle.stop/1"),
        &[NoNode, Timeout],
        [
            ("wattle stop", "leave politely, then stop"),
            ("wattle stop --now", "do not wait for the others to hear of it"),
        ],
    ),
    live(
        "wait",
        document("wattle.wait/1"),
        &[NoNode, Timeout],
        [
            ("wattle wait --ready", "until the node answers"),
            ("wattle wait --peers 3 --timeout 1m", "until it has three peers"),
        ],
    ),
    offline(
        "health",
        document("wattle.health/1"),
        &[],
        [
            ("wattle health", "one line, exit 0 when all is well"),
            ("wattle health --format nagios", "for monitors: 0 ok, 1 warning, 2 critical, 3 unknown"),
        ],
    ),
    live(
        "logs",
        Json::Lines(&["LogLine"]),
        &[NoNode],
        [
            ("wattle logs --since 10m", "what the node logged lately"),
            ("wattle logs -f --level warn", "warnings and errors as they happen"),
        ],
    ),
    live(
        "logs level",
        document("wattle.log_level/1"),
        &[Usage, NoNode],
        [
            ("wattle logs level", "what is logged now"),
            ("wattle logs level info,libp2p_kad=debug", "more of one part only"),
        ],
    ),
    // People and paths.
    live(
        "invite",
        document("wattle.invite/1"),
        &[NoNode, NotFound, Denied],
        [
            ("wattle invite", "a ticket, valid for 7 days"),
            ("wattle invite --room dev --qr", "one to scan, which leads into #dev"),
        ],
    ),
    offline(
        "join",
        document("wattle.join/1"),
        &[Timeout, Denied, Conflict, Invalid],
        [
            ("wattle join wattle:1qy0x...k3", "enter the network of whoever made the ticket"),
            ("wattle join --no-run wattle:1qy0x...k3", "only write it into the config"),
        ],
    ),
    live(
        "connect",
        document("wattle.connect/1"),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle connect /ip4/192.168.1.9/udp/7710/quic-v1", "dial an address"),
            ("wattle connect ..k9LtRw", "dial a peer, wherever it is"),
        ],
    ),
    live(
        "disconnect",
        document("wattle.disconnect/1"),
        &[NoNode, NotFound],
        [
            ("wattle disconnect bob", "drop the connection to a peer"),
            ("wattle disconnect ..k9LtRw --json", "the same, for a script"),
        ],
    ),
    live(
        "peers",
        document("wattle.peers/1"),
        &[NoNode],
        [
            ("wattle peers", "who is connected, and how"),
            ("wattle peers --sort rtt --watch", "nearest first, again and again"),
        ],
    ),
    live(
        "peers name",
        document("wattle.name/1"),
        &[NoNode, NotFound, Conflict],
        [
            ("wattle peers name ..k9LtRw bob", "from now on it is bob here"),
            ("wattle peers name ..k9LtRw \"\"", "forget the name"),
        ],
    ),
    live(
        "peers block",
        document("wattle.block/1"),
        &[NoNode, NotFound],
        [
            ("wattle peers block ..Qe2v8H", "drop a peer and never talk to it again"),
            ("wattle peers block bob --json", "the same, for a script"),
        ],
    ),
    live(
        "peers unblock",
        document("wattle.block/1"),
        &[NoNode, NotFound],
        [
            ("wattle peers unblock ..Qe2v8H", "let it in again"),
            ("wattle peers unblock bob --json", "the same, for a script"),
        ],
    ),
    live(
        "members",
        document("wattle.members/1"),
        &[NoNode],
        [
            ("wattle members --status faulty", "who is gone"),
            ("wattle members --watch --json", "who comes and goes, and who says so, a JSON object a line"),
        ],
    ),
    live(
        "members leave",
        document("wattle.members_leave/1"),
        &[NoNode],
        [
            ("wattle members leave", "tell the others that this node goes"),
            ("wattle members leave --json", "the same, for a script"),
        ],
    ),
    live(
        "members remove",
        document("wattle.members_remove/1"),
        &[NoNode, NotFound, Conflict],
        [
            ("wattle members remove dave", "it is faulty or left, and never comes back: out of every list"),
            ("wattle members remove ..k9LtRw --json", "the same, for a script"),
        ],
    ),
    live(
        "ping",
        Json::Lines(&["PingLine"]),
        &[NoNode, NotFound, Timeout, Partial],
        [
            ("wattle ping bob", "four round trips, and the path they took"),
            ("wattle ping ..k9LtRw -c 1 --timeout 2s", "one, for a script"),
        ],
    ),
    // DHT.
    live(
        "dht put",
        document("wattle.dht_put/1"),
        &[NoNode, Timeout, Partial],
        [
            ("wattle dht put greeting \"back at 10\"", "a signed record: only this node can change it"),
            ("wattle dht put hash: --file notes.txt", "a record that nobody can change; prints its key"),
        ],
    ),
    live(
        "dht get",
        document("wattle.dht_get/1"),
        &[NoNode, NotFound, Timeout, Invalid],
        [
            ("wattle dht get greeting", "the newest record of that name, whoever signed it"),
            ("wattle dht get hash:abc... -o notes.txt", "a value by its hash, into a file"),
        ],
    ),
    live(
        "dht provide",
        document("wattle.dht_provide/1"),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle dht provide printer", "announce that this node offers something"),
            ("wattle dht provide hash:abc...", "announce that it holds a value"),
        ],
    ),
    live(
        "dht find-providers",
        document("wattle.dht_find_providers/1"),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle dht find-providers printer", "who offers it"),
            ("wattle dht find-providers hash:abc... -c 1", "one holder is enough"),
        ],
    ),
    live(
        "dht find-peer",
        document("wattle.dht_find_peer/1"),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle dht find-peer ..aa71Zp", "where a peer can be reached"),
            ("wattle dht find-peer bob -q", "addresses only"),
        ],
    ),
    live(
        "dht closest",
        document("wattle.dht_closest/1"),
        &[NoNode, Timeout],
        [
            ("wattle dht closest bob/greeting", "the peers that would hold this record"),
            ("wattle dht closest ..aa71Zp", "the peers nearest to a peer"),
        ],
    ),
    live(
        "dht table",
        document("wattle.dht_table/1"),
        &[NoNode],
        [
            ("wattle dht table", "my routing table, bucket by bucket"),
            ("wattle dht table --bars", "how full the buckets are"),
        ],
    ),
    live(
        "dht trace",
        Json::Lines(&["TraceLine"]),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle dht trace ..aa71Zp", "follow a lookup hop by hop"),
            ("wattle dht trace bob/greeting --svg hops.svg", "and draw it"),
        ],
    ),
    live(
        "dht stats",
        document("wattle.dht_stats/1"),
        &[NoNode],
        [
            ("wattle dht stats", "queries, success, latencies"),
            ("wattle dht stats --json", "the same, for a script"),
        ],
    ),
    // Documents.
    live(
        "room new",
        document("wattle.room/1"),
        &[NoNode, Usage, Conflict],
        [("wattle room new dev", "make #dev"), ("wattle room new dev --json", "with its id")],
    ),
    live(
        "room list",
        document("wattle.rooms/1"),
        &[NoNode],
        [("wattle room list", "rooms, messages, who is here"), ("wattle room list -q", "only their ids")],
    ),
    live(
        "room info",
        document("wattle.room/1"),
        &[NoNode, NotFound],
        [
            ("wattle room info dev", "topic, members, how much is here"),
            ("wattle room info dev --json | jq .room.messages_missing", "what is still to come"),
        ],
    ),
    live(
        "room members",
        document("wattle.room/1"),
        &[NoNode, NotFound],
        [
            ("wattle room members dev", "who, and over which path"),
            ("wattle room members dev -q", "only their ids"),
        ],
    ),
    live(
        "room leave",
        document("wattle.room_done/1"),
        &[NoNode, NotFound],
        [
            ("wattle room leave dev", "forget it here"),
            ("wattle room leave dev -q", "only the id of what was forgotten"),
        ],
    ),
    live(
        "room export",
        Json::Lines(&["RoomLine"]),
        &[NoNode, NotFound, Conflict],
        [
            ("wattle room export dev -o dev.txt", "a line a message: time, nick, text"),
            ("wattle room export dev --json > dev.jsonl", "everything that is known of each"),
        ],
    ),
    live(
        "chat",
        Json::Lines(&["RoomLine"]),
        &[Usage, NoNode, NotFound],
        [
            ("wattle chat dev", "talk in #dev; /help lists what to type there"),
            ("wattle chat", "all rooms here, the first of them open"),
        ],
    ),
    live(
        "chat send",
        document("wattle.chat_send/1"),
        &[NoNode, NotFound, Denied, Timeout, Partial],
        [
            ("echo hi | wattle chat send dev", "a message a line"),
            ("wattle chat send dev done --wait-ack 1", "until somebody has it"),
        ],
    ),
    live(
        "chat tail",
        Json::Lines(&["RoomLine"]),
        &[NoNode, NotFound, Timeout],
        [
            ("wattle chat tail dev -f", "what was said, and what is said from now on"),
            ("wattle chat tail dev -c 1 --json", "wait for the first message"),
        ],
    ),
    live(
        "doc new",
        document("wattle.doc/1"),
        &[NoNode, NotFound],
        [
            ("wattle doc new notes", "an empty one called \"notes\"; prints its id"),
            ("wattle doc new notes --from notes.md", "one that begins with the text of a file"),
        ],
    ),
    live(
        "doc list",
        document("wattle.docs/1"),
        &[NoNode],
        [("wattle doc list", "every document here"), ("wattle doc list -q", "only their ids")],
    ),
    live(
        "doc show",
        document("wattle.doc_show/1"),
        &[NoNode, NotFound, Usage],
        [
            ("wattle doc show notes > notes.md", "its text, byte for byte"),
            ("wattle doc show notes --path todo[0].done", "one field, as JSON"),
        ],
    ),
    live(
        "doc edit",
        document("wattle.doc_edit/1"),
        &[NoNode, NotFound, Denied, Failed, Usage],
        [
            ("wattle doc edit notes", "in $VISUAL, $EDITOR or vi"),
            ("EDITOR=\"sed -i s/tea/coffee/\" wattle doc edit notes", "by a script"),
        ],
    ),
    live(
        "doc set",
        document("wattle.doc_edit/1"),
        &[NoNode, NotFound, Denied, Failed, Usage],
        [
            ("wattle doc set notes title \"Shopping\"", "what people call it"),
            ("wattle doc set notes count 3", "a number; JSON is read as JSON"),
        ],
    ),
    live(
        "doc open",
        document("wattle.ui/1"),
        &[NoNode, NotFound, Denied, Failed],
        [
            ("wattle doc open notes", "in the browser, signed in"),
            ("wattle doc open notes --print", "print the link; it works once, within a minute"),
        ],
    ),
    live(
        "doc history",
        document("wattle.doc_history/1"),
        &[NoNode, NotFound, Usage],
        [
            ("wattle doc history notes", "who did what, when; the newest first"),
            ("wattle doc history notes --each --limit 100", "every change by itself"),
        ],
    ),
    live(
        "doc diff",
        document("wattle.doc_diff/1"),
        &[NoNode, NotFound, Usage],
        [
            ("wattle doc diff notes 4f1c8e2a", "what changed since that version, and by whom"),
            ("wattle doc diff notes 4f1c8e2a 9ad03b11", "between two versions"),
        ],
    ),
    live(
        "doc watch",
        Json::Lines(&["DocLine"]),
        &[NoNode, NotFound],
        [
            ("wattle doc watch notes", "each change as it arrives: what, and by whom"),
            ("wattle doc watch notes -c 1", "wait for the next one"),
        ],
    ),
    live(
        "doc export",
        document("wattle.doc_export/1"),
        &[NoNode, NotFound, Usage, Conflict, Denied, Failed],
        [
            ("wattle doc export notes -o notes.automerge", "everything, with the history"),
            ("wattle doc export notes --format json", "fields and text, to stdout"),
        ],
    ),
    live(
        "doc import",
        document("wattle.doc/1"),
        &[NoNode, NotFound, Usage, Denied, Failed, Invalid],
        [
            ("wattle doc import notes.automerge", "with its history"),
            ("wattle doc import todo.json --title Shopping", "a document of fields"),
        ],
    ),
    live(
        "doc bind",
        Json::Lines(&["BindLine"]),
        &[NoNode, NotFound, Usage, Conflict, Denied, Failed],
        [
            ("wattle doc bind notes.md notes", "keep them in step until Ctrl-C"),
            ("wattle doc bind notes.md notes --once", "bring them together and end"),
        ],
    ),
    live(
        "doc share",
        document("wattle.doc_share/1"),
        &[NoNode, NotFound, Denied],
        [
            ("wattle doc share notes", "a ticket for whoever may write"),
            ("wattle doc share notes --ro --uses 1", "one for a single reader"),
        ],
    ),
    live(
        "doc join",
        document("wattle.doc/1"),
        &[NoNode, NotFound, Timeout, Denied, Conflict, Invalid],
        [
            ("wattle doc join wattle:1abc...", "what `wattle doc share` printed"),
            ("wattle doc join -", "one that is on stdin"),
        ],
    ),
    live(
        "doc members",
        document("wattle.doc_members/1"),
        &[NoNode, NotFound],
        [
            ("wattle doc members notes", "who, and who is here now"),
            ("wattle doc members notes -q", "only their ids"),
        ],
    ),
    live(
        "doc remove",
        document("wattle.doc_done/1"),
        &[NoNode, NotFound, Denied, Usage],
        [
            ("wattle doc remove notes bob", "from now on his changes are refused everywhere"),
            ("wattle doc remove notes ..Xs2fQm", "by a short id"),
        ],
    ),
    live(
        "doc rm",
        document("wattle.doc_done/1"),
        &[NoNode, NotFound],
        [
            ("wattle doc rm notes", "gone from this node, with its history"),
            ("wattle doc rm automerge:2Ty8bZ...", "one without a title"),
        ],
    ),
    // Topics.
    live(
        "topic pub",
        document("wattle.topic_pub/1"),
        &[NoNode, Partial],
        [
            ("wattle topic pub dev \"hello\"", "publish one message"),
            ("tail -f app.log | wattle topic pub logs.app -", "publish each line of stdin"),
        ],
    ),
    live(
        "topic sub",
        Json::Lines(&["TopicLine"]),
        &[NoNode, Timeout],
        [
            ("wattle topic sub \"sensors.>\"", "everything below sensors"),
            ("wattle topic sub dev -c 1 --timeout 5s", "one message, or exit 5"),
        ],
    ),
    live(
        "topic list",
        document("wattle.topic_list/1"),
        &[NoNode],
        [
            ("wattle topic list", "topics this node follows or publishes to"),
            ("wattle topic list --mesh", "and through which peers"),
        ],
    ),
    live(
        "topic request",
        document("wattle.topic_request/1"),
        &[NoNode, Timeout],
        [
            ("wattle topic request time.now \"\"", "ask, and print the first answer"),
            ("wattle topic request calc \"1 + 2\" --timeout 2s", "give up after two seconds"),
        ],
    ),
    live(
        "topic reply",
        Json::Lines(&["ReplyLine"]),
        &[NoNode, Failed],
        [
            ("wattle topic reply time.now --exec date", "answer every request with what `date` prints"),
            ("wattle topic reply calc --exec \"bc -l\"", "the request is the command's stdin"),
        ],
    ),
    // Settings.
    offline(
        "config show",
        document("wattle.config/1"),
        &[Usage],
        [
            ("wattle config show --origin", "every setting, and where it comes from"),
            ("wattle config show p2p.listen", "one of them"),
        ],
    ),
    offline(
        "config check",
        document("wattle.config_check/1"),
        &[Usage],
        [
            ("wattle config check", "is the config file right?"),
            ("wattle -n bob config check", "that of another node"),
        ],
    ),
    offline(
        "config defaults",
        document("wattle.config_defaults/1"),
        &[],
        [
            ("wattle config defaults", "every key with its default and its meaning"),
            ("wattle config defaults > node.toml", "a file to start from"),
        ],
    ),
    offline(
        "config set",
        document("wattle.config_set/1"),
        &[Usage],
        [
            ("wattle config set log.level debug", "change one setting; comments stay"),
            ("wattle config set p2p.mdns false", "takes effect at the next start"),
        ],
    ),
    offline(
        "config path",
        document("wattle.config_path/1"),
        &[],
        [
            ("wattle config path", "where the config file is"),
            ("$EDITOR \"$(wattle config path -q)\"", "edit it"),
        ],
    ),
    offline(
        "key new",
        document("wattle.key/1"),
        &[Usage, Conflict],
        [
            ("wattle key new", "make the key of this node, when it has none"),
            ("wattle -n bob key new", "that of another node"),
        ],
    ),
    offline(
        "key show",
        document("wattle.key/1"),
        &[NotFound, Denied],
        [
            ("wattle key show", "the public half, and where the key file is"),
            ("wattle key show -q", "the peer id only"),
        ],
    ),
    offline(
        "key export",
        document("wattle.key/1"),
        &[NotFound, Conflict, Denied],
        [
            ("wattle key export backup.key", "a copy, mode 0600"),
            ("wattle -n bob key export bob.key", "that of another node"),
        ],
    ),
    offline(
        "key import",
        document("wattle.key/1"),
        &[Usage, Conflict, Denied],
        [
            ("wattle key import backup.key", "be the node this key belongs to"),
            ("wattle -n bob key import bob.key", "for another node"),
        ],
    ),
    live(
        "token new",
        document("wattle.token/1"),
        &[NoNode, Denied],
        [
            ("wattle token new --role read --expires 30d", "a token that can look but not change"),
            ("wattle token new --role user -q > token", "the token only"),
        ],
    ),
    live(
        "token list",
        document("wattle.tokens/1"),
        &[NoNode, Denied],
        [
            ("wattle token list", "who may use the API"),
            ("wattle token list --json", "the same, for a script"),
        ],
    ),
    live(
        "token revoke",
        document("wattle.token_revoked/1"),
        &[NoNode, NotFound, Denied],
        [
            ("wattle token revoke 4f2a91c0", "a token no longer works"),
            ("wattle token revoke 4f2a91c0 --json", "the same, for a script"),
        ],
    ),
    // The rest.
    offline(
        "completions",
        Json::Plain,
        &[Usage],
        [
            ("wattle completions bash > ~/.local/share/bash-completion/completions/wattle", "bash"),
            ("wattle completions zsh > ~/.zfunc/_wattle", "zsh"),
        ],
    ),
    offline(
        "man",
        Json::Plain,
        &[Failed],
        [
            ("wattle man | man -l -", "read the manual"),
            ("wattle man -o ~/.local/share/man/man1", "install every page"),
        ],
    ),
    offline(
        "version",
        document("wattle.version/1"),
        &[],
        [
            ("wattle version", "of this program, and of the node when one runs"),
            ("wattle version --json", "the same, for a script"),
        ],
    ),
    offline(
        "doctor",
        document("wattle.doctor/1"),
        &[Failed],
        [
            ("wattle doctor", "check everything a node needs"),
            ("wattle doctor --bundle report.json", "and pack it for a bug report, without secrets"),
        ],
    ),
];
