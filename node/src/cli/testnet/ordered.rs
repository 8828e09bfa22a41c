//! The ordered log of a testnet: begun with it, kept by its last nodes, followed by the others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use wattle_order::{Genesis, Rules, Validator, Validators};
use wattle_types::{NetworkName, NodeId};

use super::state::{Kept, Place, Row};
use crate::api::documents::{
    Bytes, ErrorDocument, OrderJoinDocument, OrderJoinRequest, OrderStatusDocument, OrderSubmitDocument,
    OrderSubmitRequest, OrderWait,
};
use crate::cli::documents::TestnetLog;
use crate::cli::errors::{Failure, of_io};
use crate::cli::order::read_genesis;
use crate::cli::routes;
use crate::cli::values::{as_ms, short};
use crate::clock::unix_now;
use crate::exit::ErrorCode;

/// How long the validators may take to be connected to each other.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

fn failed(error: impl std::fmt::Display) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, error.to_string()).into()
}

fn genesis_file(place: &Place) -> PathBuf {
    place.directory.join("genesis.json")
}

/// Begins a log: the last `votes` of the nodes are its validators. A split that leaves the first nodes alone then
/// leaves most validators together.
pub(super) async fn begin(
    place: &Place,
    rows: &[Row],
    votes: u32,
    begun: Instant,
) -> Result<(Kept, TestnetLog), Failure> {
    let followers = rows.len().saturating_sub(usize::try_from(votes).unwrap_or(usize::MAX));
    let validators = rows.iter().skip(followers).map(|row| Validator { id: row.id, weight: 1 }).collect();
    let validators = Validators::new(validators).map_err(failed)?;
    let network: NetworkName = format!("testnet-{}", place.net).parse().map_err(failed)?;
    let genesis = Genesis { network, validators, rules: Rules::default(), created: unix_now() };
    let file = genesis_file(place);
    let text = format!("{}\n", serde_json::to_string(&genesis).map_err(failed)?);
    wattle_store::create_file(&file, text.as_bytes()).map_err(|error| of_io("write", &file, &error))?;
    join(place, rows).await?;
    let first = first_entry(place, rows).await?;
    let log = TestnetLog {
        chain: genesis.chain().to_string(),
        validators: genesis.validators.list().iter().map(|validator| validator.id).collect(),
        height: first.height.unwrap_or_default(),
        first_block_ms: as_ms(begun.elapsed()),
    };
    let kept = Kept { chain: log.chain.clone(), entry: first.entry, height: log.height };
    Ok((kept, log))
}

/// Who votes in a testnet; nobody without a log.
pub(super) fn voters(place: &Place) -> Result<Vec<NodeId>, Failure> {
    let file = genesis_file(place);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let (genesis, _) = read_genesis(&file)?;
    Ok(genesis.validators.list().iter().map(|validator| validator.id).collect())
}

/// Nodes keep the log of their testnet, if it has one.
pub(super) async fn join(place: &Place, rows: &[Row]) -> Result<(), Failure> {
    let file = genesis_file(place);
    if !file.exists() {
        return Ok(());
    }
    let (_, genesis) = read_genesis(&file)?;
    let joins = rows.iter().map(|row| join_one(place, row, &genesis));
    futures::future::join_all(joins).await.into_iter().collect()
}

async fn join_one(place: &Place, row: &Row, genesis: &Value) -> Result<(), Failure> {
    let request = OrderJoinRequest { genesis: genesis.clone() };
    place.client(row)?.post::<OrderJoinDocument>(routes::ORDER_JOIN, &request).await.map(drop)
}

/// Has something ordered: then it is known that the log works.
async fn first_entry(place: &Place, rows: &[Row]) -> Result<OrderSubmitDocument, Failure> {
    let Some(last) = rows.last() else { return Err(failed("a testnet without nodes")) };
    let request = OrderSubmitRequest {
        data_b64: Bytes(format!("testnet {} is up", place.net).into_bytes()),
        wait: OrderWait::Commit,
        timeout_ms: place.timeout().map(as_ms),
        ..OrderSubmitRequest::default()
    };
    let client = place.client(last)?;
    // Who is asked before it is connected to enough others would say at once that there is no quorum.
    let connected = async {
        while !client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document.has_quorum {
            tokio::time::sleep(super::up::LOOK_AGAIN).await;
        }
        Ok::<(), Failure>(())
    };
    let patience = place.timeout().unwrap_or(CONNECTED_WITHIN);
    tokio::time::timeout(patience, connected).await.map_err(|_elapsed| {
        let message = format!("timed out after {}: too few validators are connected", short(patience));
        Failure::from(ErrorDocument::new(ErrorCode::Timeout, message))
    })??;
    Ok(client.post::<OrderSubmitDocument>(routes::ORDER_ENTRIES, &request).await?.document)
}
