//! Snapshots that a place takes of its apps, and vouches for.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_order::{Base, Committee, Digest, Manifest, Proposal, apps_root, ordered_after, state_root};

use crate::world::Place;

/// Blocks between two snapshots.
const EVERY: u64 = 32;

/// What a place saves of its apps.
#[derive(Debug)]
pub(crate) struct Saved {
    committee: Arc<Committee>,
    base: Base,
    last: Digest,
    pub(crate) manifests: Vec<Manifest>,
    /// What was ordered, and the state, at each height.
    pub(crate) vouched: BTreeMap<u64, (Digest, Digest)>,
}

impl Saved {
    /// Nothing yet: the log begins.
    pub(crate) fn new(committee: &Arc<Committee>) -> Self {
        Self {
            committee: Arc::clone(committee),
            base: Base::of_epoch(committee, Digest::default()),
            last: Digest::default(),
            manifests: Vec::new(),
            vouched: BTreeMap::new(),
        }
    }
}

/// What a place vouches for behind a block: the state of its apps, and with it the last snapshot if it takes them.
pub(crate) fn vouch(place: &mut Place, block: &Proposal, state: Digest) -> Digest {
    let Some(saved) = &mut place.saved else { return state };
    let height = block.header().height;
    let ordered = ordered_after(saved.base.ordered, block);
    saved.base = saved.base.after(&saved.committee, block).unwrap();
    assert_eq!((saved.base.height(), saved.base.ordered), (height, ordered));
    if height.0.is_multiple_of(EVERY) {
        let bytes = state.as_bytes().repeat(20_000);
        let manifest = Manifest::new(saved.base.clone(), state, &bytes);
        assert_eq!(manifest.pieces.len(), 2);
        saved.last = manifest.digest();
        saved.manifests.push(manifest);
    }
    saved.vouched.insert(height.0, (ordered, state));
    state_root(ordered, apps_root(state, saved.last))
}
