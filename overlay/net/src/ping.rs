//! Round trips over `/ipfs/ping/1.0.0` (libp2p ping spec): 32 bytes there, the same 32 bytes back.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{StreamProtocol, ping};
use wattle_types::NodeId;

use crate::Overlay;
use crate::behaviour::peer_id;
use crate::report::{ConnectError, PingError, Pong};

const PING: StreamProtocol = ping::PROTOCOL_NAME;

/// One round trip; connects first when needed.
pub(crate) async fn ping(overlay: &Overlay, peer: NodeId, timeout: Duration) -> Result<Pong, PingError> {
    let attempt = async {
        let path = overlay.reach_anywhere(peer, Vec::new()).await?.path;
        let rtt = round_trip(overlay, peer).await.map_err(|error| PingError::Broken(error.to_string()))?;
        Ok(Pong { rtt, path })
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(PingError::Timeout(timeout)),
    }
}

/// One round trip over a connection that is there.
pub(crate) async fn ping_connected(
    overlay: &Overlay,
    peer: NodeId,
    timeout: Duration,
) -> Result<Pong, PingError> {
    let attempt = async {
        let path = overlay.peer(peer).await?.ok_or(ConnectError::NoAddress)?.path;
        let rtt = round_trip(overlay, peer).await.map_err(|error| PingError::Broken(error.to_string()))?;
        Ok(Pong { rtt, path })
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(PingError::Timeout(timeout)),
    }
}

async fn round_trip(overlay: &Overlay, peer: NodeId) -> std::io::Result<Duration> {
    let mut stream =
        overlay.streams.clone().open_stream(peer_id(peer), PING).await.map_err(std::io::Error::other)?;
    let mut sent = [0; 32];
    getrandom::fill(&mut sent).map_err(std::io::Error::other)?;
    let begun = Instant::now();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut received = [0; 32];
    stream.read_exact(&mut received).await?;
    let rtt = begun.elapsed();
    stream.close().await?;
    if received == sent { Ok(rtt) } else { Err(std::io::Error::other("other bytes came back")) }
}
