//! Bytes of strangers.

use std::sync::Arc;

use wattle_order::{Checker, Core, Input, Message, Recovered, Seen};
use wattle_types::{Machine as _, Outbox};

use crate::liars::Liar;
use crate::world::{Options, Random, World, keys};
use crate::{MILLI, SECOND, each_seed};

/// A13 in part: messages of every kind, each with a bit or two elsewhere, are refused or understood; nothing panics,
/// and what a machine makes of them breaks no invariant.
#[test]
fn a_bit_elsewhere_in_any_message_is_refused_or_harmless() {
    let mut world = World::new(Options { load_us: 5_000, keep: true, loss: 50, ..Options::new(13, 4) });
    world.places[3].liar = Some(Liar::VotesForAll);
    world.run(300 * MILLI);
    world.crash(0);
    world.run(SECOND);
    let messages: Vec<Vec<u8>> = world.sent.iter().map(|message| message.encode()).collect();
    let kinds: std::collections::BTreeSet<String> = world
        .sent
        .iter()
        .map(|message| format!("{message:?}").chars().take_while(|letter| letter.is_alphabetic()).collect())
        .collect();
    assert!(kinds.len() >= 6, "{kinds:?}");
    let checker = Checker::new(Arc::clone(&world.committee));
    let (from, options) = (world.places[2].id, &world.options);
    each_seed(1, |seed| {
        let recovered = Recovered::none(Arc::clone(&world.committee));
        let mut core = Core::new(options.config.clone(), keys(4)[1].clone(), recovered);
        let (mut seen, mut draw, mut sound) = (Seen::new(), Random(13 + seed), 0u64);
        core.handle(world.now, Input::Wake, &mut Outbox::new());
        for _ in 0..20_000 {
            let mut bytes = messages[draw.below(messages.len() as u64) as usize].clone();
            for _ in 0..draw.below(3) {
                let bit = draw.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let Ok(message) = Message::decode(&bytes) else { continue };
            let Ok(message) = checker.check(&mut seen, message) else { continue };
            sound += 1;
            core.handle(world.now, Input::Received { from, message }, &mut Outbox::new());
            core.check_invariants();
        }
        assert!(sound > 1000, "{sound}, seed {seed}");
    });
}
