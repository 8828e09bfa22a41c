//! How the overlay starts: swarm, listeners, restored state, then the task.

use std::time::Instant;

use libp2p::metrics::{Metrics, Registry};
use tokio::sync::{broadcast, mpsc};

use crate::actor::{Actor, kad_protocol_name, wall_clock};
use crate::behaviour::{self, peer_id};
use crate::channels::Places;
use crate::dht::Dht;
use crate::dht::store::{Caps, Records};
use crate::event::Watchers;
use crate::peers::Peers;
use crate::report::PersistBatch;
use crate::topics::Topics;
use crate::traffic::Traffic;
use crate::{Address, Config, DhtMode, Overlay, Reach, Restored, StartError, meeting};

/// Commands that may wait for the task; a caller beyond it waits itself.
const COMMANDS_MAX: usize = 256;
/// Events that a slow watcher may lag behind.
const EVENTS_MAX: usize = 1024;

impl Overlay {
    /// Starts the overlay task. It listens when this returns; dials happen afterwards. `persist` receives
    /// what must survive a restart.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(
        mut config: Config,
        restored: Restored,
        persist: mpsc::Sender<PersistBatch>,
    ) -> Result<Self, StartError> {
        check(&config)?;
        config.dht_mode = decided_mode(&config);
        let me = config.key.node_id();
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let watchers = Watchers::new(events.clone());
        let places = Places::new(watchers.clone());
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let mut records = Records::new(peer_id(me), Caps::standard());
        records.restore(&restored, wall_clock(), Instant::now());
        let traffic = Traffic::default();
        let mut swarm = behaviour::build(&config, records, &traffic)?;
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        for address in &config.external {
            swarm.add_external_address(address.as_multiaddr().clone());
        }
        let overlay = Self {
            me,
            network: config.network.clone(),
            commands: sender,
            events,
            streams: swarm.behaviour().streams.new_control(),
            places: places.clone(),
        };
        let mut actor = Box::new(Actor {
            commands,
            watchers: watchers.clone(),
            persist,
            peers: Peers::new(&config, &restored, watchers.clone(), traffic, places),
            dht: Dht::new(&config, &restored, watchers.clone()),
            topics: Topics::new(me, config.network.clone(), watchers),
            external: config.external.clone(),
            dht_server: config.dht_mode == DhtMode::Server,
            kad_protocol: kad_protocol_name(&config.network),
            registry,
            metrics,
            started: Instant::now(),
            swarm,
        });
        actor.listen(&config.listen).await?;
        tokio::spawn(actor.run());
        tokio::spawn(meeting::run(meeting::WeakOverlay::of(&overlay)));
        Ok(overlay)
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    let (low, high) = (config.connections.low_water.get(), config.connections.high_water.get());
    if high < low {
        return Err(StartError::Water { low, high });
    }
    match config.listen.iter().find(|address| address.is_quic()) {
        Some(address) if config.network_key.is_some() => Err(StartError::QuicIsNeverPrivate(address.clone())),
        _ => Ok(()),
    }
}

/// A node that only the internet leads to and that nobody there can dial would make lookups of others wait
/// for it: it asks only. Without a bootstrap on the internet the overlay is local, and everybody can be
/// dialed.
fn decided_mode(config: &Config) -> DhtMode {
    let global = |addresses: &[Address]| addresses.iter().any(|address| address.reach() == Reach::Global);
    match config.dht_mode {
        DhtMode::Auto
            if config.external.is_empty() && global(&config.bootstrap) && !global(&config.listen) =>
        {
            DhtMode::Client
        }
        DhtMode::Auto => DhtMode::Server,
        chosen => chosen,
    }
}
