//! A lookup through wattle's handle beside the same lookup on a bare swarm, in one run and one overlay.
//!
//! With up to 64 nodes neither of the two dials: a bare swarm keeps whatever connection it has, ours at most 64. With
//! more nodes ours dials during its lookups, and the figures are of that.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{StreamProtocol, SwarmBuilder, identify, noise, ping, tcp, yamux};
use wattle_net::TraceTarget;
use wattle_tests::overlay::PATIENCE;
use wattle_types::{ContentHash, NetworkName, RecordKey};

use super::{Cpu, Random, Table, percentile};

/// What any program on rust-libp2p would compose for a DHT.
#[derive(NetworkBehaviour)]
struct Bare {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

fn bare_swarm() -> Option<Swarm<Bare>> {
    let behaviour = |keypair: &Keypair| {
        let me = keypair.public().to_peer_id();
        let mut settings = kad::Config::new(StreamProtocol::new("/wattle/kad/1.0.0"));
        settings.disjoint_query_paths(true).set_periodic_bootstrap_interval(None);
        let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), settings);
        kad.set_mode(Some(kad::Mode::Client));
        let identify = identify::Config::new("/wattle/wattle/1".to_owned(), keypair.public());
        Bare { identify: identify::Behaviour::new(identify), ping: ping::Behaviour::default(), kad }
    };
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .ok()?
        .with_quic()
        .with_behaviour(behaviour)
        .ok()?
        .with_swarm_config(|settings| settings.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    Some(swarm)
}

async fn bare_lookup(swarm: &mut Swarm<Bare>, key: Vec<u8>) -> Duration {
    let begun = Instant::now();
    let query = swarm.behaviour_mut().kad.get_closest_peers(key);
    loop {
        if let SwarmEvent::Behaviour(BareEvent::Kad(kad::Event::OutboundQueryProgressed { id, step, .. })) =
            swarm.select_next_some().await
            && id == query
            && step.last
        {
            return begun.elapsed();
        }
    }
}

/// Runs the swarm for a while, so that it learns the overlay.
async fn drive(swarm: &mut Swarm<Bare>, span: Duration) {
    let end = tokio::time::sleep(span);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            _ = swarm.select_next_some() => {}
        }
    }
}

/// Compares, in turns, so that both see the machine in the same mood.
pub(crate) async fn compare(count: u32) {
    let mut random = Random::new(19);
    let mut nodes = Vec::new();
    super::super::grow(&mut nodes, count, &mut random).await;
    super::super::settle().await;
    let (Some(mut bare), Some(ours)) = (bare_swarm(), nodes.last().cloned()) else { return };
    for node in &nodes {
        let Ok(peer) = libp2p::PeerId::from_bytes(&node.id().to_peer_id_bytes()) else { return };
        for address in node.addresses().await {
            if let Ok(address) = address.without_peer().to_string().parse() {
                bare.behaviour_mut().kad.add_address(&peer, address);
            }
        }
    }
    drive(&mut bare, Duration::from_secs(3)).await;
    let (mut ours_ms, mut bare_ms) = (Vec::new(), Vec::new());
    let (mut ours_cpu, mut bare_cpu) = (0.0, 0.0);
    for _ in 0..30 {
        for _ in 0..10 {
            let key = RecordKey::Hash(ContentHash::of(&random.bytes()));
            let cpu = Cpu::now();
            bare_ms.push(
                bare_lookup(&mut bare, key.to_bytes(&NetworkName::default())).await.as_secs_f64() * 1e3,
            );
            bare_cpu += cpu.spent_ms();
        }
        for _ in 0..10 {
            let key = RecordKey::Hash(ContentHash::of(&random.bytes()));
            let (cpu, begun) = (Cpu::now(), Instant::now());
            drop(ours.overlay.closest(TraceTarget::Record(key), PATIENCE).await);
            ours_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            ours_cpu += cpu.spent_ms();
        }
    }
    let (ours_text, bare_text) = (percentile(&mut ours_ms), percentile(&mut bare_ms));
    let middle = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let mut table =
        Table::new(&format!("a lookup through the handle beside a bare swarm, {count} nodes, 300 each"));
    table.row("handle ms, median / p99", ours_text);
    table.row("bare swarm ms, median / p99", bare_text);
    table.row("latency ratio of medians", format!("{:.2}", middle(&ours_ms) / middle(&bare_ms)));
    table.row("CPU ratio", format!("{:.2}", ours_cpu / bare_cpu.max(1.0)));
    table.print();
}
