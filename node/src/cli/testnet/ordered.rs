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

/// How long the validators may take until all of them sign.
const SIGN_WITHIN: Duration = Duration::from_secs(30);

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
    let voters = rows.get(followers..).unwrap_or_default();
    let validators = voters.iter().map(|row| Validator { id: row.id, weight: 1 }).collect();
    let validators = Validators::new(validators).map_err(failed)?;
    let network: NetworkName = format!("testnet-{}", place.net).parse().map_err(failed)?;
    let genesis = Genesis { network, validators, rules: Rules::default(), created: unix_now() };
    let file = genesis_file(place);
    let text = format!("{}\n", serde_json::to_string(&genesis).map_err(failed)?);
    wattle_store::create_file(&file, text.as_bytes()).map_err(|error| of_io("write", &file, &error))?;
    join(place, rows).await?;
    let first = first_entry(place, voters).await?;
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
async fn first_entry(place: &Place, voters: &[Row]) -> Result<OrderSubmitDocument, Failure> {
    let Some(last) = voters.last() else { return Err(failed("a testnet without nodes")) };
    let request = OrderSubmitRequest {
        data_b64: Bytes(format!("testnet {} is up", place.net).into_bytes()),
        wait: OrderWait::Commit,
        timeout_ms: place.timeout().map(as_ms),
        ..OrderSubmitRequest::default()
    };
    // One that is not heard before the log goes on has to be wary of it for a while, and until then nobody else may
    // fail.
    let patience = place.timeout().unwrap_or(SIGN_WITHIN);
    let all_sign = futures::future::try_join_all(voters.iter().map(|row| signs(place, row)));
    tokio::time::timeout(patience, all_sign).await.map_err(|_elapsed| {
        let message = format!("timed out after {}: not all validators sign yet", short(patience));
        Failure::from(ErrorDocument::new(ErrorCode::Timeout, message))
    })??;
    let client = place.client(last)?;
    Ok(client.post::<OrderSubmitDocument>(routes::ORDER_ENTRIES, &request).await?.document)
}

/// Waits until a validator signs and has a quorum.
async fn signs(place: &Place, row: &Row) -> Result<(), Failure> {
    let client = place.client(row)?;
    loop {
        let status = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document;
        if status.signs && status.has_quorum {
            return Ok(());
        }
        tokio::time::sleep(super::start::LOOK_AGAIN).await;
    }
}
