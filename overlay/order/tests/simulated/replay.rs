//! The same inputs make the same outputs and states.

use std::sync::Arc;

use wattle_order::{Config, Core, Recovered, Seen};
use wattle_types::{Machine as _, Outbox};

use crate::liars::Liar;
use crate::world::{Options, World, digest_of};
use crate::{MILLI, SECOND, scale};

/// A17.
#[test]
fn a_recorded_run_with_faults_replays_to_the_same_outputs_and_digests() {
    let (loss, double, load_us, guards_key) = (50, 50, 10_000, false);
    let options = Options { record: true, loss, double, load_us, guards_key, ..Options::new(17, 7) };
    let mut world = World::new(options);
    world.places[5].liar = Some(Liar::VotesForAll);
    for _ in 0..2 * scale() {
        world.run(SECOND / 2);
        world.partition(&[0, 0, 0, 1, 1, 0, 0]);
        world.run(200 * MILLI);
        world.cut.clear();
    }
    assert!(world.lowest() > 20);
    for place in &world.places {
        let recovered = Recovered::read(Arc::clone(&world.committee), &mut Seen::new(), []).unwrap();
        let config = Config { guards_key: world.options.guards_key, ..world.options.config.clone() };
        let mut core = Core::new(config, place.key.clone(), recovered);
        for (step, (now, input, digest, outputs)) in place.trace.iter().enumerate() {
            let mut out = Outbox::new();
            core.handle(*now, input.clone(), &mut out);
            assert_eq!(core.digest(), *digest, "step {step}");
            assert_eq!(digest_of(out.as_slice()), *outputs, "step {step}");
        }
        assert!(place.trace.len() > 1000);
    }
}
