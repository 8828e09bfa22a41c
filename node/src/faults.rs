//! Faults on purpose, between their documents and the overlay, and the file that a node of a testnet starts with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_net::faults::{DELAY_MAX, FaultCounts, Faults, InvalidFaults, LinkFaults, Spread};
use wattle_types::NodeId;

use crate::api::documents::{
    ErrorDocument, FaultLink, FaultLinkState, FaultsDocument, FaultsSchema, SpreadName,
};
use crate::exit::ErrorCode;

/// What a node of a testnet is given at its start, so that a link that is cut is so from the first packet on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultsFile {
    /// Decides what is lost and how delays vary.
    pub seed: u64,
    /// The faults at the start.
    pub links: Vec<FaultLink>,
}

/// Reads the file that a node of a testnet starts with.
///
/// # Errors
/// That it cannot be read, or what is wrong in it.
pub fn read(file: &Path) -> Result<Faults, ErrorDocument> {
    let wrong = |error: &dyn std::fmt::Display| {
        ErrorDocument::new(ErrorCode::Usage, format!("{}: {error}", file.display()))
    };
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    let read: FaultsFile = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let faults = Faults::new(read.seed);
    set(&faults, &read.links).map_err(|error| wrong(&error))?;
    Ok(faults)
}

/// Makes these the faults of a node, and all there are.
///
/// # Errors
/// [`InvalidFaults`]; nothing changed then.
pub fn set(faults: &Faults, links: &[FaultLink]) -> Result<(), InvalidFaults> {
    let links: BTreeMap<NodeId, LinkFaults> =
        links.iter().map(|link| (link.peer, link_faults(link))).collect();
    faults.set(&links)
}

/// What cannot be a span is longer than any that is taken.
fn span(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(DELAY_MAX * 2)
}

fn link_faults(link: &FaultLink) -> LinkFaults {
    LinkFaults {
        delay: span(link.delay_ms),
        jitter: span(link.jitter_ms),
        spread: match link.spread {
            SpreadName::Uniform => Spread::Uniform,
            SpreadName::Normal => Spread::Normal,
            SpreadName::HeavyTail => Spread::HeavyTail,
        },
        loss: link.loss,
        rate_bits: link.rate_bits,
        cut_to: link.cut_to,
        cut_from: link.cut_from,
    }
}

/// The faults of a node as a document.
#[must_use]
pub fn document(faults: &Faults) -> FaultsDocument {
    let links = faults.all().into_iter().map(|(peer, faults, counts)| link_state(peer, &faults, &counts));
    FaultsDocument { schema: FaultsSchema::V1, links: links.collect() }
}

fn link_state(peer: NodeId, faults: &LinkFaults, counts: &FaultCounts) -> FaultLinkState {
    let link = FaultLink {
        peer,
        delay_ms: crate::node::millis(faults.delay),
        jitter_ms: crate::node::millis(faults.jitter),
        spread: match faults.spread {
            Spread::Uniform => SpreadName::Uniform,
            Spread::Normal => SpreadName::Normal,
            Spread::HeavyTail => SpreadName::HeavyTail,
        },
        loss: faults.loss,
        rate_bits: faults.rate_bits,
        cut_to: faults.cut_to,
        cut_from: faults.cut_from,
    };
    FaultLinkState {
        link,
        datagrams: counts.datagrams,
        datagrams_lost: counts.datagrams_lost,
        datagrams_refused: counts.datagrams_refused,
        segments: counts.segments,
        segments_resent: counts.segments_resent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_back_as_they_were_set_and_a_file_with_nonsense_is_refused() {
        let link = FaultLink {
            peer: NodeId::from_public_key([1; 32]),
            delay_ms: 25.5,
            jitter_ms: 5.0,
            spread: SpreadName::HeavyTail,
            loss: 0.1,
            rate_bits: 1_000_000,
            cut_to: true,
            cut_from: false,
        };
        let faults = Faults::new(1);
        set(&faults, &[link]).unwrap();
        assert_eq!(document(&faults).links[0].link, link);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(set(&faults, &[FaultLink { delay_ms: bad, ..link }]).is_err(), "{bad}");
        }
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("faults.json");
        assert!(read(&file).unwrap_err().message.contains("faults.json"));
        std::fs::write(&file, r#"{"seed":1,"links":[],"more":2}"#).unwrap();
        assert_eq!(read(&file).unwrap_err().code, ErrorCode::Usage);
        let good = FaultsFile { seed: 1, links: vec![link] };
        std::fs::write(&file, serde_json::to_vec(&good).unwrap()).unwrap();
        assert_eq!(document(&read(&file).unwrap()).links[0].link, link);
    }
}
