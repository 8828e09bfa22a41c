//! The validators change: those who vote and those who are to say so, each on its own node.

use std::time::{Duration, Instant};

use clap::Args;
use wattle_types::NodeId;

use super::genesis::read_validator;
use crate::api::documents::{
    ErrorDocument, OrderChange, OrderChangeDocument, OrderChangeRequest, OrderStatusDocument, OrderValidator,
};
use crate::cli::documents::{OrderChangedDocument, OrderChangedSchema};
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::table::tame;
use crate::exit::ErrorCode;

/// How long it waits for the others when nobody says.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it looks how far they are, and how often who joins tries to be heard.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How often it says so again: an approval counts for a minute.
const SAY_EVERY: Duration = Duration::from_secs(20);

/// Replace the validators, once enough of the old and all of the new say so
#[derive(Args)]
pub(super) struct Change {
    /// Who votes then: peer ids, or names of nodes on this machine. Run it with the same on a quorum of those who vote
    /// now and on each of these
    #[arg(long, value_name = "P1,P2,P3,P4", value_delimiter = ',', required = true)]
    validators: Vec<String>,
}

pub(super) async fn change(session: &Session, args: &Change) -> Result<(), Failure> {
    let client = session.client()?;
    // That no node runs is the first thing to say.
    let before = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document;
    let ids = args.validators.iter().map(|text| read_validator(session, text.trim()));
    let ids = ids.collect::<Result<Vec<NodeId>, Failure>>()?;
    let patience = session.timeout().unwrap_or(PATIENCE);
    let began = Instant::now();
    let (mut said, mut shown): (Option<(Instant, bool)>, Option<String>) = (None, None);
    let (mut known, mut hindered) = (None, None);
    loop {
        let status = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document;
        if status.epoch > before.epoch {
            return done(session, &status, &ids);
        }
        let again = |(at, heard): (Instant, bool)| at.elapsed() >= if heard { SAY_EVERY } else { TRY_EVERY };
        if said.is_none_or(again) {
            let timeout_ms = u64::try_from(patience.as_millis()).ok();
            let request = OrderChangeRequest { validators: ids.clone(), epoch: before.epoch, timeout_ms };
            match client.post::<OrderChangeDocument>(routes::ORDER_CHANGES, &request).await {
                Ok(answer) => {
                    (said, hindered) = (Some((Instant::now(), answer.document.heard)), None);
                    known = Some(answer.document.change);
                }
                // They changed a moment ago.
                Err(Failure::Error(error)) if error.code == ErrorCode::Conflict => {}
                // It waits for others anyway.
                Err(Failure::Error(error)) if error.code == ErrorCode::NoQuorum => {
                    (said, hindered) = (Some((Instant::now(), false)), Some(error));
                }
                Err(failure) => return Err(failure),
            }
        }
        let mut wanted: Vec<NodeId> = ids.clone();
        wanted.sort_unstable();
        known = status.changes.into_iter().find(|change| change.validators == wanted).or(known);
        if let Some(change) = &known {
            let typed: Vec<(NodeId, &str)> =
                ids.iter().copied().zip(args.validators.iter().map(String::as_str)).collect();
            let line = progress(change, &status.validators, &typed);
            if shown.as_ref() != Some(&line) {
                session.out.note(&line);
                shown = Some(line);
            }
        }
        if began.elapsed() >= patience {
            if let Some(error) = hindered {
                return Err(Failure::Error(error));
            }
            let message = "timed out waiting for the others";
            let document = ErrorDocument::new(ErrorCode::Timeout, message)
                .detail("so far", shown.unwrap_or_default())
                .detail("", "what this node approved counts for a minute more");
            return Err(document
                .hint("wattle order change, with the same validators, on each of them")
                .into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn progress(change: &OrderChange, validators: &[OrderValidator], typed: &[(NodeId, &str)]) -> String {
    let of = |id: &NodeId| {
        let known = validators.iter().find(|validator| validator.id == *id);
        // A name that was typed is one that is understood.
        let named = typed.iter().find(|(of, name)| of == id && name.parse::<NodeId>().is_err());
        let named = named.map(|(_, name)| tame(name));
        named.or_else(|| known.map(super::label)).unwrap_or_else(|| format!("..{}", id.short()))
    };
    let missing: Vec<String> = change.missing.iter().map(of).collect();
    let wait = if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(", ")) };
    format!(
        "approved by {} of {} who vote now, {} needed{wait}",
        change.votes,
        validators.len(),
        change.quorum
    )
}

fn done(session: &Session, status: &OrderStatusDocument, ids: &[NodeId]) -> Result<(), Failure> {
    let validators: Vec<NodeId> = status.validators.iter().map(|validator| validator.id).collect();
    let mut wanted = ids.to_vec();
    wanted.sort_unstable();
    if validators != wanted {
        let message = format!("epoch {} began with other validators than these", status.epoch);
        return Err(ErrorDocument::new(ErrorCode::Conflict, message).hint("wattle order validators").into());
    }
    let document = OrderChangedDocument {
        schema: OrderChangedSchema::V1,
        chain: status.chain.clone(),
        epoch: status.epoch,
        validators,
    };
    session.show_own(&document, |document| {
        let names: Vec<String> = status.validators.iter().map(super::label).collect();
        Shown {
            text: format!("epoch {}: {} vote from now on\n", document.epoch, names.join(", ")),
            ids: document.validators.iter().map(NodeId::to_string).collect(),
        }
    })
}
