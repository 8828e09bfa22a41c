//! Faults on purpose, between their documents and the overlay, and the file that a node of a testnet starts with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_net::faults::{DELAY_MAX, FaultCounts, Faults, InvalidFaults, LinkFaults, Spread};
use wattle_store::Store;
use wattle_types::NodeId;

use crate::api::documents::{
    ErrorDocument, FaultLink, FaultLinkState, FaultsDocument, FaultsRequest, FaultsSchema, SpreadName,
};
use crate::clock;
use crate::exit::ErrorCode;

/// The clock is wrong by a day at most: what expires on purpose takes longer.
pub const CLOCK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a node of a testnet is given at its start, so that a link that is cut is so from the first packet on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultsFile {
    /// Decides what is lost and how delays vary.
    pub seed: u64,
    /// The faults at the start.
    pub faults: FaultsRequest,
}

/// The faults with which a node of a testnet starts.
#[derive(Clone, Debug)]
pub struct AtStart {
    /// Those of its links, also later.
    pub links: Faults,
    request: FaultsRequest,
}

impl AtStart {
    /// Does to the node what is not about links.
    pub fn begin(&self, store: &Store) {
        begin(store, &self.request);
    }
}

/// Why faults are not what a node can have. Caller error.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// A link of them.
    #[error(transparent)]
    Link(#[from] InvalidFaults),
    /// The clock.
    #[error("a clock is a day ahead or behind at most, not {0} ms")]
    Clock(i64),
}

/// Reads the file that a node of a testnet starts with.
///
/// # Errors
/// That it cannot be read, or what is wrong in it.
pub fn read(file: &Path) -> Result<AtStart, ErrorDocument> {
    let wrong = |error: &dyn std::fmt::Display| {
        ErrorDocument::new(ErrorCode::Usage, format!("{}: {error}", file.display()))
    };
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    let read: FaultsFile = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let links = Faults::new(read.seed);
    set_links(&links, &read.faults).map_err(|error| wrong(&error))?;
    Ok(AtStart { links, request: read.faults })
}

/// Makes these the faults of a node, and all there are.
///
/// # Errors
/// [`Refused`]; nothing changed then.
pub fn set(links: &Faults, store: &Store, request: &FaultsRequest) -> Result<(), Refused> {
    set_links(links, request)?;
    begin(store, request);
    Ok(())
}

fn set_links(links: &Faults, request: &FaultsRequest) -> Result<(), Refused> {
    if Duration::from_millis(request.clock_ms.unsigned_abs()) > CLOCK_MAX {
        return Err(Refused::Clock(request.clock_ms));
    }
    let each: BTreeMap<NodeId, LinkFaults> =
        request.links.iter().map(|link| (link.peer, link_faults(link))).collect();
    Ok(links.set(&each)?)
}

fn begin(store: &Store, request: &FaultsRequest) {
    store.pretend_full(request.disk_full);
    clock::set_skew_ms(request.clock_ms);
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
pub fn document(links: &Faults, store: &Store) -> FaultsDocument {
    FaultsDocument {
        schema: FaultsSchema::V1,
        links: states(links),
        disk_full: store.pretends_full(),
        clock_ms: clock::skew_ms(),
    }
}

fn states(links: &Faults) -> Vec<FaultLinkState> {
    links.all().into_iter().map(|(peer, faults, counts)| link_state(peer, &faults, &counts)).collect()
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
        let of = |link| FaultsRequest { links: vec![link], ..FaultsRequest::default() };
        let faults = Faults::new(1);
        set_links(&faults, &of(link)).unwrap();
        assert_eq!(states(&faults)[0].link, link);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(set_links(&faults, &of(FaultLink { delay_ms: bad, ..link })).is_err(), "{bad}");
        }
        for bad in [i64::MIN, i64::MAX, -86_400_001] {
            let clock = FaultsRequest { clock_ms: bad, ..FaultsRequest::default() };
            assert_eq!(set_links(&faults, &clock), Err(Refused::Clock(bad)));
        }
        assert_eq!(states(&faults)[0].link, link, "what is refused changes nothing");
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("faults.json");
        assert!(read(&file).unwrap_err().message.contains("faults.json"));
        std::fs::write(&file, r#"{"seed":1,"faults":{"links":[]},"more":2}"#).unwrap();
        assert_eq!(read(&file).unwrap_err().code, ErrorCode::Usage);
        let good = FaultsFile { seed: 1, faults: of(link) };
        std::fs::write(&file, serde_json::to_vec(&good).unwrap()).unwrap();
        assert_eq!(states(&read(&file).unwrap().links)[0].link, link);
    }
}
