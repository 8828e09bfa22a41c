//! The libp2p swarm: transports and behaviours with wattle's settings, each with the reason it is not the
//! default.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OptionalTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{
    PeerId, StreamProtocol, Transport as _, allow_block_list, connection_limits, dns, gossipsub, identify,
    kad, mdns, memory_connection_limits, noise, ping, pnet, quic, swarm, tcp, yamux,
};
use wattle_types::limits::{RECORD_TTL_MAX_MS, TOPIC_BYTES_MAX, TOPIC_MESSAGE_BYTES_MAX};
use wattle_types::{ContentHash, NetworkKey, NetworkName, NodeId, TopicRoot};

use crate::dht::store::Records;
use crate::ends::Ending;
use crate::traffic::Traffic;
use crate::{Config, DhtMode, Profile, StartError};

/// Kademlia's k: peers per bucket, holders per record (Maymounkov and Mazieres, "Kademlia", 2002, section
/// 2.3).
pub(crate) const K: NonZeroUsize = NonZeroUsize::new(20).expect("20 is not zero");

/// Kademlia's alpha: questions under way at once in one lookup.
pub(crate) const ALPHA: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not zero");

/// Largest Kademlia message: 20 peers with 8 addresses each, or one record with them.
pub(crate) const KAD_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The behaviours, those that may deny a connection first: a later one must not keep books on a connection
/// that an earlier one then denies.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(crate) allowed: Toggle<allow_block_list::Behaviour<allow_block_list::AllowedPeers>>,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<Records>,
    pub(crate) gossip: gossipsub::Behaviour<gossipsub::IdentityTransform, Subscriptions>,
    pub(crate) streams: libp2p_stream::Behaviour,
}

/// The libp2p id of a node.
pub(crate) fn peer_id(node: NodeId) -> PeerId {
    #[expect(clippy::expect_used, reason = "the bytes are the canonical encoding of an Ed25519 key")]
    PeerId::from_bytes(&node.to_peer_id_bytes()).expect("an Ed25519 public key is a peer id")
}

/// The node of a libp2p id; `None` for keys other than Ed25519, which cannot connect here.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

/// The Kademlia protocol of a network. Nodes of other networks do not speak it.
pub(crate) fn kad_protocol(network: &NetworkName) -> StreamProtocol {
    protocol(format!("/{network}/kad/1.0.0"))
}

/// The protocol of a network's channels for documents.
pub(crate) fn documents_protocol(network: &NetworkName) -> StreamProtocol {
    protocol(format!("/wattle/{network}/docs/1"))
}

/// The protocol of a network's channels between members.
pub(crate) fn members_protocol(network: &NetworkName) -> StreamProtocol {
    protocol(format!("/wattle/{network}/members/1"))
}

/// The protocol of a network's channels between validators of its ordered log.
pub(crate) fn order_protocol(network: &NetworkName) -> StreamProtocol {
    protocol(format!("/wattle/{network}/order/1"))
}

/// The protocol of a network's channels over which those who follow the ordered log ask for it.
pub(crate) fn order_sync_protocol(network: &NetworkName) -> StreamProtocol {
    protocol(format!("/wattle/{network}/order-sync/1"))
}

fn protocol(name: String) -> StreamProtocol {
    #[expect(clippy::expect_used, reason = "the name begins with a slash by construction")]
    StreamProtocol::try_from_owned(name).expect("a protocol name begins with a slash")
}

/// What identify says of a network. A peer that says another one is in another network.
pub(crate) fn network_protocol(network: &NetworkName) -> String {
    format!("/wattle/{network}/1")
}

/// Builds the swarm. Nothing listens yet.
pub(crate) fn build(
    config: &Config,
    records: Records,
    traffic: &Traffic,
) -> Result<Swarm<Behaviour>, StartError> {
    let mut secret = *config.key.to_bytes();
    #[expect(clippy::expect_used, reason = "32 bytes are always an Ed25519 secret key")]
    let keypair = Keypair::ed25519_from_bytes(&mut secret).expect("32 bytes are a secret key");
    let me = keypair.public().to_peer_id();
    let traffic = traffic.clone();
    let transport = transport(&keypair, config.network_key.as_ref())?;
    let transport = match &config.faults {
        Some(faults) => crate::faults::shape(transport, faults.clone()),
        None => transport,
    };
    let transport = transport.map(move |(peer, muxer), _| (peer, traffic.count(peer, muxer))).boxed();
    let behaviour = behaviour(config, &keypair, records)?;
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(30))
        .with_dial_concurrency_factor(NonZeroU8::MIN)
        .with_smart_dial();
    Ok(Swarm::new(transport, behaviour, me, swarm_config))
}

/// QUIC and TCP with Noise and Yamux, both through DNS. A private network has TCP only, inside its pre-shared
/// key.
fn transport(
    keypair: &Keypair,
    network_key: Option<&NetworkKey>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let failed = |part, why: &dyn std::fmt::Display| StartError::Transport { part, why: why.to_string() };
    let noise = noise::Config::new(keypair).map_err(|error| failed("noise", &error))?;
    let psk = network_key.map(|key| pnet::PnetConfig::new(pnet::PreSharedKey::new(*key.as_bytes())));
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, _| async move {
            match psk {
                Some(psk) => psk.handshake(socket).await.map(Either::Left).map_err(std::io::Error::other),
                None => Ok(Either::Right(socket)),
            }
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(Duration::from_secs(10))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Ending::new(muxer))));
    let quic = match network_key {
        Some(_) => OptionalTransport::none(),
        None => {
            let mut settings = quic::Config::new(keypair);
            // A dead UDP port says nothing: this is how long every lookup waits for a peer that is gone.
            settings.handshake_timeout = Duration::from_secs(3);
            OptionalTransport::some(quic::tokio::Transport::new(settings))
        }
    };
    let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let direct = quic.or_transport(tcp).map(|either, _| either.into_inner());
    let named = dns::tokio::Transport::system(direct).map_err(|error| failed("DNS", &error))?;
    Ok(named.boxed())
}

fn behaviour(config: &Config, keypair: &Keypair, records: Records) -> Result<Behaviour, StartError> {
    let me = keypair.public().to_peer_id();
    let mut allowed = None;
    if !config.allow.is_empty() {
        let mut list = allow_block_list::Behaviour::<allow_block_list::AllowedPeers>::default();
        for node in &config.allow {
            list.allow_peer(peer_id(*node));
        }
        allowed = Some(list);
    }
    let mdns = if config.mdns { mdns_behaviour(me) } else { None };
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(config)),
        memory: memory_connection_limits::Behaviour::with_max_bytes(config.memory_bytes_max),
        blocked: allow_block_list::Behaviour::default(),
        allowed: Toggle::from(allowed),
        mdns: Toggle::from(mdns),
        identify: identify::Behaviour::new(identify_config(config, keypair)),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(15))),
        kad: kademlia(config, me, records),
        gossip: gossip(config, keypair)?,
        streams: libp2p_stream::Behaviour::new(),
    })
}

/// Twice `high_water`, so that a full node still meets newcomers and its own machine decides who goes:
/// refused here, nobody could ever take the place of an idle stranger. 64 handshakes from outside at once.
/// Four per peer: both sides may dial at the same moment while older connections are still closing, and a
/// refusal here would come after the other side has already closed the twin.
fn connection_limits(config: &Config) -> connection_limits::ConnectionLimits {
    let high = u32::try_from(config.connections.high_water.get()).unwrap_or(u32::MAX);
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(64))
        .with_max_pending_outgoing(Some(64))
        .with_max_established(Some(high.saturating_mul(2)))
        .with_max_established_per_peer(Some(4))
}

/// A machine without a multicast-capable interface still runs; the LAN is then silent and status says so.
fn mdns_behaviour(me: PeerId) -> Option<mdns::tokio::Behaviour> {
    let settings = mdns::Config { query_interval: Duration::from_secs(30), ..mdns::Config::default() };
    match mdns::tokio::Behaviour::new(settings, me) {
        Ok(behaviour) => Some(behaviour),
        Err(error) => {
            tracing::warn!(%error, "no multicast here: peers on the local network are not found by themselves");
            None
        }
    }
}

/// Never `new_with_signed_peer_record`: its envelope has a domain that js-libp2p refuses, and it then ignores
/// the peer.
fn identify_config(config: &Config, keypair: &Keypair) -> identify::Config {
    identify::Config::new(network_protocol(&config.network), keypair.public())
        .with_agent_version(config.agent.clone())
        .with_push_listen_addr_updates(true)
        .with_cache_size(256)
}

fn kademlia(config: &Config, me: PeerId, records: Records) -> kad::Behaviour<Records> {
    let mut settings = kad::Config::new(kad_protocol(&config.network));
    settings
        // Records and providers reach our own checks and quotas, never the store directly.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        // The table is filled through our gate (identified, direct address, subnet diversity).
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_replication_factor(K)
        .set_parallelism(ALPHA)
        // Baumgart and Mies, "S/Kademlia", section 4.4: lookups over disjoint paths.
        .disjoint_query_paths(true)
        .set_query_timeout(Duration::from_secs(20))
        .set_max_packet_size(KAD_MESSAGE_BYTES_MAX)
        .set_record_ttl(Some(Duration::from_millis(RECORD_TTL_MAX_MS)))
        .set_provider_record_ttl(Some(Duration::from_millis(RECORD_TTL_MAX_MS)))
        // libp2p's jobs copy the whole store into memory at once; ours go one record at a time
        // (dht::republish).
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        // Its bootstrap asks for every bucket at once, so that joining costs more the larger the network is.
        .set_periodic_bootstrap_interval(None)
        // A put offers its record again to those near ones that answer without it; the library itself caches
        // nothing.
        .set_caching(kad::Caching::Enabled { max_peers: u16::try_from(K.get()).unwrap_or(u16::MAX) });
    let mut kademlia = kad::Behaviour::with_config(me, records, settings);
    let mode = match config.dht_mode {
        DhtMode::Client => kad::Mode::Client,
        DhtMode::Server | DhtMode::Auto => kad::Mode::Server,
    };
    // Explicit, because the automatic mode takes a relay's address for a reachable one.
    kademlia.set_mode(Some(mode));
    kademlia
}

/// Which topics of others are remembered: a hundred of this network's per peer. The default remembers
/// everything that anybody makes up.
pub(crate) type Subscriptions = gossipsub::MaxCountSubscriptionFilter<OwnTopics>;

/// Topics of this network.
pub(crate) struct OwnTopics {
    prefix: String,
}

impl gossipsub::TopicSubscriptionFilter for OwnTopics {
    fn can_subscribe(&mut self, topic: &gossipsub::TopicHash) -> bool {
        let root = topic.as_str().strip_prefix(&self.prefix);
        root.is_some_and(|root| !root.is_empty() && root.len() <= TOPIC_BYTES_MAX)
    }
}

type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, Subscriptions>;

fn gossip(config: &Config, keypair: &Keypair) -> Result<Gossip, StartError> {
    let failed = |why: String| StartError::Transport { part: "gossip", why };
    let settings = gossip_settings(config.profile).build().map_err(|error| failed(error.to_string()))?;
    let authenticity = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let subscriptions = gossipsub::MaxCountSubscriptionFilter {
        filter: OwnTopics { prefix: TopicRoot::gossip_prefix(&config.network) },
        max_subscribed_topics: 100,
        max_subscriptions_per_request: 100,
    };
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, settings, subscriptions)
        .map_err(|error| failed(error.to_owned()))?;
    gossip.with_peer_score(peer_score(), score_thresholds()).map_err(failed)?;
    Ok(gossip)
}

fn gossip_settings(profile: Profile) -> gossipsub::ConfigBuilder {
    let heartbeat = match profile {
        Profile::Lan => Duration::from_millis(500),
        Profile::Wan => Duration::from_secs(1),
    };
    let mut settings = gossipsub::ConfigBuilder::default();
    settings
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        // 20 bytes instead of 72: a heartbeat's IHAVE then fits 3.5 times the messages.
        .message_id_fn(message_id)
        .max_transmit_size(TOPIC_MESSAGE_BYTES_MAX + 4096)
        // The library's receiver refuses control data over 16 KiB per message, which its sender does not
        // split: from about 75 messages a second on one topic it resets streams.
        .max_control_message_size(1024 * 1024)
        .max_control_messages_sent(400)
        .heartbeat_interval(heartbeat)
        .heartbeat_initial_delay(Duration::from_millis(300))
        .mesh_n(6)
        .mesh_n_low(5)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        // In a well-connected overlay flooding one's own messages only adds copies.
        .flood_publish(false)
        .idontwant_on_publish(true)
        .idontwant_message_size_threshold(1024);
    settings
}

/// Content-addressed: author, sequence and bytes name a message, so that nobody can occupy the id of
/// another's.
fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let source = message.source.map(|peer| peer.to_bytes()).unwrap_or_default();
    let sequence = message.sequence_number.unwrap_or_default().to_be_bytes();
    let whole = [message.topic.as_str().as_bytes(), &[0], &source, &sequence, &message.data].concat();
    gossipsub::MessageId::new(ContentHash::of(&whole).as_bytes().get(..20).unwrap_or_default())
}

/// Only what a peer does wrong counts. The defaults also punish quiet topics (P3: fewer than 20 deliveries)
/// and many nodes behind one address (P6: a testnet on one machine), and so silence honest peers.
fn peer_score() -> gossipsub::PeerScoreParams {
    gossipsub::PeerScoreParams {
        topic_score_cap: 100.0,
        ip_colocation_factor_weight: 0.0,
        app_specific_weight: 1.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.9,
        retain_score: Duration::from_secs(600),
        ..gossipsub::PeerScoreParams::default()
    }
}

fn score_thresholds() -> gossipsub::PeerScoreThresholds {
    gossipsub::PeerScoreThresholds {
        gossip_threshold: -40.0,
        publish_threshold: -80.0,
        graylist_threshold: -160.0,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 1.0,
    }
}

/// How a topic counts: a little for being there and for first deliveries, a lot against for invalid messages
/// (P4).
pub(crate) fn topic_score() -> gossipsub::TopicScoreParams {
    gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.9,
        ..gossipsub::TopicScoreParams::default()
    }
}
