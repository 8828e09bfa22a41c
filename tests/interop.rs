//! wattle and js-libp2p in one overlay: the formats and protocols are what the documents say, not what two
//! halves of one program agree on.
//!
//! The js half is `tests/interop/peer.mjs` with its own implementation of records and topic messages. It
//! needs Node and `npm ci` in `tests/interop`; without them these tests say that they did not run, and with
//! `WATTLE_TEST_ALL=1` they fail.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper ends the test like the test itself")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wattle_tests::binary::did_not_run;
use wattle_tests::overlay::{Node, PATIENCE, network, until};
use wattle_tests::records::{key_of, signed};
use wattle_types::{ContentHash, NetworkName, NodeId, ProviderKey, Record, RecordKey, Topic};

const MESSAGES: usize = 20;

/// The js peer: one JSON line for each step, one JSON line back.
struct Js {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

impl Js {
    /// Starts it; `None` when it cannot run here and need not.
    fn start(arguments: &[&str]) -> Option<Self> {
        let installed = directory().join("node_modules/libp2p/package.json").exists();
        let spawned = Command::new("node")
            .arg("peer.mjs")
            .args(arguments)
            .current_dir(directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let (true, Ok(mut child)) = (installed, spawned) else {
            did_not_run("Node is not here (npm ci in tests/interop)");
            return None;
        };
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { _child: child, input, output })
    }

    async fn step(&mut self, step: &str, mut wish: Value) -> Value {
        wish["step"] = step.into();
        self.input.write_all(format!("{wish}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("js took too long to {step}")).unwrap();
        let answer: Value = serde_json::from_str(&line.expect("js is alive")).unwrap();
        assert_eq!(answer["ok"], true, "{step}: {}", answer["error"].as_str().unwrap_or_default());
        answer
    }

    /// Dials a node; who the js peer is.
    async fn join(&mut self, node: &Node) -> NodeId {
        let answer = self.step("dial", json!({ "address": address(node).await })).await;
        answer["id"].as_str().unwrap().parse().unwrap()
    }

    /// Repeats a step until its answer is right.
    async fn until(&mut self, what: &str, step: &str, wish: Value, right: impl Fn(&Value) -> bool) -> Value {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = self.step(step, wish.clone()).await;
                if right(&answer) {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }
}

async fn address(node: &Node) -> String {
    let addresses = node.addresses().await;
    addresses.iter().find(|address| address.is_tcp()).unwrap().to_string()
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_js_peer_joins_is_known_by_name_and_answers_pings() {
    let Some(mut js) = Js::start(&[]) else { return };
    let nodes = network(2).await;
    let id = js.join(&nodes[0]).await;
    until("the js peer is listed with its name", || async {
        let status = nodes[0].overlay.status().await.unwrap();
        status.peers.iter().any(|peer| peer.peer == id && peer.agent.as_deref() == Some("js-interop/1"))
    })
    .await;
    let rtt = js.step("ping", json!({ "address": address(&nodes[0]).await })).await;
    assert!(rtt["rtt"].as_u64().is_some(), "{rtt}");
    nodes[0].overlay.ping(id, PATIENCE).await.unwrap();
    // With libp2p's signed peer records js throws the whole of identify away and knows nothing of us.
    let wish = json!({ "id": nodes[0].id().to_string() });
    let known = js.until("js knows our name", "known", wish, |answer| answer["agent"] == "wattle/test").await;
    let protocols: Vec<&str> =
        known["protocols"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for protocol in ["/wattle/kad/1.0.0", "/meshsub/1.2.0", "/ipfs/ping/1.0.0"] {
        assert!(protocols.contains(&protocol), "{protocol} is not among {protocols:?}");
    }
    js.until("js knows us as a DHT server", "table", json!({}), |answer| answer["size"] != 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn js_and_rust_hear_each_others_messages_once_each_over_two_hops() {
    let Some(mut js) = Js::start(&[]) else { return };
    let nodes = network(3).await;
    let id = js.join(&nodes[0]).await;
    let mut follower = nodes[2].overlay.subscribe(vec!["news.>".parse().unwrap()]).await.unwrap();
    let _between = nodes[0].overlay.subscribe(vec!["news.>".parse().unwrap()]).await.unwrap();
    js.step("follow", json!({ "root": "news" })).await;
    js.until("js is in the mesh", "mesh", json!({ "root": "news" }), |answer| answer["peers"] != 0).await;
    for node in [&nodes[0], &nodes[2]] {
        until("rust is in the mesh", || async {
            node.overlay.topics().await.unwrap().iter().any(|info| !info.mesh.is_empty())
        })
        .await;
    }

    for number in 0..MESSAGES {
        js.step("publish", json!({ "topic": "news.js", "payload": format!("js {number}") })).await;
        let said = format!("rust {number}").into_bytes();
        nodes[2].overlay.publish(topic("news.rust"), said, None).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 * MESSAGES {
        let delivery = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap().unwrap();
        let from = if delivery.message.topic == topic("news.js") { id } else { nodes[2].id() };
        assert_eq!(delivery.from, from);
        seen.push(String::from_utf8(delivery.message.payload.into_vec()).unwrap());
    }
    let wanted: BTreeSet<String> =
        (0..MESSAGES).flat_map(|number| [format!("js {number}"), format!("rust {number}")]).collect();
    assert_eq!(seen.len(), wanted.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted);

    let enough = |answer: &Value| answer["heard"].as_array().is_some_and(|heard| heard.len() >= MESSAGES);
    js.until("js has heard all", "heard", json!({}), enough).await;
    // One more exchange: a second copy of anything would have come before it.
    nodes[2].overlay.publish(topic("news.rust"), b"end".to_vec(), None).await.unwrap();
    let more = |answer: &Value| answer["heard"].as_array().is_some_and(|heard| heard.len() > MESSAGES);
    let heard = js.until("js has heard the end", "heard", json!({}), more).await;
    let heard: Vec<_> = heard["heard"].as_array().unwrap().iter().collect();
    let payloads: BTreeSet<_> = heard.iter().map(|message| message["payload"].as_str().unwrap()).collect();
    assert_eq!((heard.len(), payloads.len()), (MESSAGES + 1, MESSAGES + 1), "each once");
    assert!(heard.iter().all(|message| message["from"] == nodes[2].id().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_message_of_a_js_peer_reaches_nobody() {
    let (Some(mut unsigned), Some(mut js)) = (Js::start(&["--unsigned"]), Js::start(&[])) else { return };
    let nodes = network(1).await;
    let mut follower = nodes[0].overlay.subscribe(vec!["news.>".parse().unwrap()]).await.unwrap();
    unsigned.join(&nodes[0]).await;
    let id = js.join(&nodes[0]).await;
    for js in [&mut unsigned, &mut js] {
        js.step("follow", json!({ "root": "news" })).await;
        js.until("js is in the mesh", "mesh", json!({ "root": "news" }), |answer| answer["peers"] != 0).await;
    }
    let sent = unsigned.step("publish", json!({ "topic": "news.js", "payload": "unsigned" })).await;
    assert_eq!(sent["recipients"], 1);
    // A pong is behind the message on the same connection.
    unsigned.step("ping", json!({ "address": address(&nodes[0]).await })).await;
    js.step("publish", json!({ "topic": "news.js", "payload": "signed" })).await;
    let delivery = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((delivery.from, delivery.message.payload.as_ref()), (id, b"signed".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn js_and_rust_read_each_others_records_and_find_each_others_announcements() {
    let Some(mut js) = Js::start(&[]) else { return };
    let nodes = network(4).await;
    let id = js.join(&nodes[0]).await;
    js.until("js knows a DHT server", "table", json!({}), |answer| answer["size"] != 0).await;
    let of_rust = |name: &str| key_of(nodes[2].id(), name).to_path(&NetworkName::default());

    js.step("putSigned", json!({ "name": "greeting", "sequence": 7, "payload": "from js" })).await;
    js.step("putHash", json!({ "payload": "content of js" })).await;
    for reader in &nodes[1..] {
        let found = reader.overlay.get(key_of(id, "greeting"), PATIENCE).await.unwrap();
        assert_eq!((found.record.payload(), found.record.sequence()), (b"from js".as_slice(), Some(7)));
        assert_eq!(found.record.owner(), Some(id));
        let hash = RecordKey::Hash(ContentHash::of(b"content of js"));
        assert_eq!(reader.overlay.get(hash, PATIENCE).await.unwrap().record.payload(), b"content of js");
    }

    for sequence in [1, 2] {
        let payload = format!("from rust {sequence}");
        nodes[2].overlay.put(signed(&nodes[2].key, "greeting", sequence, &payload), PATIENCE).await.unwrap();
    }
    let content = Record::content(b"content of rust".to_vec()).unwrap();
    nodes[3].overlay.put(content, PATIENCE).await.unwrap();
    let got = js.step("get", json!({ "at": of_rust("greeting") })).await;
    assert_eq!(got["payload"], "from rust 2");
    let hash = RecordKey::Hash(ContentHash::of(b"content of rust")).to_path(&NetworkName::default());
    assert_eq!(js.step("get", json!({ "at": hash })).await["payload"], "content of rust");

    for (provider, name) in [(id, "of js"), (nodes[3].id(), "of rust")] {
        let key = ProviderKey::of_name(&NetworkName::default(), &name.parse().unwrap());
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let wish = json!({ "key": hex });
        if provider == id {
            js.step("provide", wish).await;
            let finder = &nodes[1].overlay;
            until("rust finds what js provides", || async {
                finder.find_providers(key, 1, PATIENCE).await == Ok(vec![id])
            })
            .await;
        } else {
            nodes[3].overlay.provide(key, PATIENCE).await.unwrap();
            let named = json!([provider.to_string()]);
            js.until("js finds what rust provides", "providers", wish, |a| a["providers"] == named).await;
        }
    }
}
