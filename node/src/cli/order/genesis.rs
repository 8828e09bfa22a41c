//! What a log begins with.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wattle_order::{Genesis, Rules, Validator, Validators};
use wattle_types::{NetworkName, NodeId};

use crate::api::documents::{ErrorDocument, OrderJoinDocument, OrderJoinRequest, VersionDocument};
use crate::cli::documents::{OrderInitDocument, OrderInitSchema};
use crate::cli::errors::{Failure, of_io};
use crate::cli::files;
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::clock::unix_now;
use crate::exit::ErrorCode;
use crate::paths::{Environment, NodeName, Paths};

/// Longer than any genesis: 128 validators at 100 bytes.
const GENESIS_BYTES_MAX: u64 = 64 * 1024;

/// Make a genesis file: who votes
#[derive(Args)]
pub(super) struct Init {
    /// Who votes: peer ids, or names of nodes on this machine, with commas
    #[arg(long, value_name = "P1,P2,P3,P4", value_delimiter = ',', required = true)]
    validators: Vec<String>,
    /// How they agree
    #[arg(long, value_name = "NAME", default_value = "hotstuff")]
    engine: Engine,
    /// The network that the log belongs to; this node's without
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
    /// Where to write it
    #[arg(short, long, value_name = "F", default_value = "genesis.json")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// Two-chain HotStuff: a third may lie
    Hotstuff,
}

/// Keep a log: vote, if this node is in its genesis, else follow
#[derive(Args)]
pub(super) struct Join {
    /// The file that `order init` wrote
    genesis: PathBuf,
}

pub(super) fn init(session: &Session, args: &Init) -> Result<(), Failure> {
    let Engine::Hotstuff = args.engine;
    let usage = |message: String| Failure::from(ErrorDocument::new(ErrorCode::Usage, message));
    let ids = args.validators.iter().map(|text| read_validator(session, text.trim()));
    let ids = ids.collect::<Result<Vec<NodeId>, Failure>>()?;
    let list = ids.iter().map(|id| Validator { id: *id, weight: 1 }).collect();
    let validators = Validators::new(list).map_err(|error| usage(error.to_string()))?;
    let network = match &args.network {
        Some(network) => network.clone(),
        None => files::load_config(&session.paths()?)?.settings.network,
    };
    let genesis = Genesis { network, validators, rules: Rules::default(), created: unix_now() };
    let failed = |error: serde_json::Error| ErrorDocument::new(ErrorCode::Failed, error.to_string());
    let value = serde_json::to_value(&genesis).map_err(failed)?;
    // In the order of its fields, in which other programs hash it.
    let text = format!("{}\n", serde_json::to_string(&genesis).map_err(failed)?);
    wattle_store::create_file(&args.output, text.as_bytes()).map_err(|error| {
        let document = of_io("write", &args.output, &error);
        match document.code {
            ErrorCode::Conflict => {
                ErrorDocument { code: ErrorCode::Usage, exit: ErrorCode::Usage.exit(), ..document }
                    .hint("another file with -o: one genesis is one log")
            }
            _ => document,
        }
    })?;
    let document = OrderInitDocument {
        schema: OrderInitSchema::V1,
        chain: genesis.chain().to_string(),
        file: args.output.display().to_string(),
        network: genesis.network.to_string(),
        validators: genesis.validators.list().iter().map(|validator| validator.id).collect(),
        genesis: value,
    };
    session.show_own(&document, |document| Shown {
        text: format!(
            "wrote {}: log {} of {} validators in network {}\neach of them and whoever follows   {} order join {}\n",
            document.file,
            document.chain.get(..16).unwrap_or_default(),
            document.validators.len(),
            document.network,
            session.program(),
            document.file,
        ),
        ids: vec![document.chain.clone()],
    })
}

/// A peer id, or the name of a node on this machine.
pub(super) fn read_validator(session: &Session, text: &str) -> Result<NodeId, Failure> {
    let why = match text.parse::<NodeId>() {
        Ok(id) => return Ok(id),
        Err(why) => why,
    };
    if let Ok(name) = text.parse::<NodeName>() {
        let paths = Paths::new(&Environment::of_process(), name, session.globals.home.as_deref());
        if let Ok(paths) = paths
            && paths.key_file().exists()
        {
            return Ok(files::read_key(&paths, &session.program())?.node_id());
        }
    }
    let message = format!("`{text}` is no node of this machine and no peer id: {why}");
    Err(ErrorDocument::new(ErrorCode::Usage, message).hint("wattle id -q, on each of them").into())
}

/// Reads a file of JSON that somebody gave us.
pub(super) fn read_json(file: &std::path::Path, most: u64, what: &str) -> Result<serde_json::Value, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let document = of_io("read", file, &error);
        match document.code {
            // It is an argument that is wrong.
            ErrorCode::NotFound => {
                ErrorDocument { code: ErrorCode::Usage, exit: ErrorCode::Usage.exit(), ..document }
            }
            _ => document,
        }
    })?;
    let invalid = |why: String| {
        let message = format!("invalid: {} is no {what}: {why}", file.display());
        Failure::from(ErrorDocument::new(ErrorCode::Invalid, message))
    };
    if bytes.len() as u64 > most {
        return Err(invalid(format!("it has more than {most} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
}

/// Reads a genesis file.
pub(in crate::cli) fn read_genesis(file: &std::path::Path) -> Result<(Genesis, serde_json::Value), Failure> {
    let value = read_json(file, GENESIS_BYTES_MAX, "genesis")?;
    let genesis: Genesis = serde_json::from_value(value.clone()).map_err(|error| {
        let message = format!("invalid: {} is no genesis: {error}", file.display());
        Failure::from(ErrorDocument::new(ErrorCode::Invalid, message))
    })?;
    Ok((genesis, value))
}

pub(super) async fn join(session: &Session, args: &Join) -> Result<(), Failure> {
    let client = session.client()?;
    let (_genesis, value) = match read_genesis(&args.genesis) {
        Ok(read) => read,
        Err(failure) => {
            // That no node runs is the first thing to say.
            client.get::<VersionDocument>(routes::VERSION).await?;
            return Err(failure);
        }
    };
    let request = OrderJoinRequest { genesis: value };
    let answer = client.post::<OrderJoinDocument>(routes::ORDER_JOIN, &request).await?;
    session.show(&answer, |answer| {
        let keeps = super::keeps(answer.role, &answer.chain);
        let text = format!("{keeps} of {} validators, at height {}\n", answer.validators, answer.height);
        Shown { text, ids: vec![answer.chain.clone()] }
    })
}
