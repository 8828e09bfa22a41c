use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wattle_types::NodeId;

use super::{BACKLOG_MAX, Fate, Faults, InvalidFaults, LINKS_MAX, LinkFaults, RESENT_AFTER, Spread};

const MS: Duration = Duration::from_millis(1);

fn peer(byte: u8) -> NodeId {
    NodeId::from_public_key([byte; 32])
}

fn with(faults: LinkFaults) -> Faults {
    let table = Faults::new(3);
    table.set(&[(peer(1), faults)].into()).expect("faults that can be");
    table
}

fn samples(spread: Spread) -> Vec<f64> {
    let faults = LinkFaults { delay: 50 * MS, jitter: 10 * MS, spread, ..LinkFaults::default() };
    let mut random = fastrand::Rng::with_seed(1);
    let mut samples: Vec<f64> =
        (0..10_000).map(|_| faults.sample(&mut random).as_secs_f64() * 1000.0).collect();
    samples.sort_by(f64::total_cmp);
    samples
}

#[test]
fn delays_spread_as_they_were_asked_to() {
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / 10_000.0;
    let uniform = samples(Spread::Uniform);
    assert!(uniform[0] >= 40.0 && uniform[9_999] <= 60.0 && (mean(&uniform) - 50.0).abs() < 0.5);
    assert!((uniform[2_500] - 45.0).abs() < 0.5, "as many everywhere: {}", uniform[2_500]);
    let normal = samples(Spread::Normal);
    assert!((mean(&normal) - 50.0).abs() < 0.5);
    assert!((normal[1_587] - 40.0).abs() < 0.7, "one deviation below: {}", normal[1_587]);
    let tail = samples(Spread::HeavyTail);
    assert!(tail[0] >= 50.0 && tail[5_000] < 55.0, "mostly a little more: {}", tail[5_000]);
    assert!(tail[9_990] > 150.0, "now and then much: {}", tail[9_990]);
}

#[test]
fn what_is_lost_of_a_stream_arrives_late_and_never_not_at_all() {
    let table = with(LinkFaults { delay: 10 * MS, loss: 0.2, ..LinkFaults::default() });
    let late = (0..1000)
        .filter(|_| table.segment_due(peer(1), 1200) > Instant::now() + 10 * MS + RESENT_AFTER)
        .count();
    assert!((150..250).contains(&late), "{late} of 1000 were sent again");
    let always = with(LinkFaults { loss: 1.0, ..LinkFaults::default() });
    assert!(always.segment_due(peer(1), 1200) < Instant::now() + 20 * RESENT_AFTER);
}

#[test]
fn a_slow_link_makes_streams_wait_and_drops_datagrams_that_would_wait_too_long() {
    let table = with(LinkFaults { rate_bits: 100_000, ..LinkFaults::default() });
    assert_eq!(table.room_after(peer(1)), Duration::ZERO);
    let mut passed = 0;
    while table.datagram_to(peer(1), 1202) != Fate::Lost {
        passed += 1;
        assert!(passed < 100, "nothing is dropped");
    }
    // A tenth of a second each, a second of them, and the one under way.
    assert!((10..=12).contains(&passed), "{passed} passed");
    let wait = table.room_after(peer(1));
    assert!(wait > BACKLOG_MAX / 2 && wait < BACKLOG_MAX, "{wait:?}");
    assert_eq!(table.room_after(peer(2)), Duration::ZERO, "other links have all their room");
}

#[test]
fn faults_that_cannot_be_are_refused_and_change_nothing() {
    let table = with(LinkFaults { loss: 0.5, ..LinkFaults::default() });
    let refused = |faults: LinkFaults| table.set(&[(peer(1), faults)].into()).expect_err("refused");
    let minute = Duration::from_secs(61);
    assert_eq!(refused(LinkFaults { delay: minute, ..LinkFaults::default() }), InvalidFaults::Delay(minute));
    assert_eq!(refused(LinkFaults { loss: 1.5, ..LinkFaults::default() }), InvalidFaults::Loss(1.5));
    assert!(matches!(
        refused(LinkFaults { loss: f64::NAN, ..LinkFaults::default() }),
        InvalidFaults::Loss(_)
    ));
    assert_eq!(refused(LinkFaults { rate_bits: 1, ..LinkFaults::default() }), InvalidFaults::Rate(1));
    let many: BTreeMap<NodeId, LinkFaults> = (0..=LINKS_MAX)
        .map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(number as u64).to_be_bytes());
            (NodeId::from_public_key(key), LinkFaults::default())
        })
        .collect();
    assert_eq!(table.set(&many), Err(InvalidFaults::Links(LINKS_MAX + 1)));
    assert_eq!(table.all()[0].1.loss, 0.5);
}

#[test]
fn the_same_seed_loses_the_same() {
    let fates = || {
        let table = with(LinkFaults { loss: 0.3, ..LinkFaults::default() });
        (0..100).map(|_| table.datagram_to(peer(1), 100)).collect::<Vec<_>>()
    };
    assert_eq!(fates(), fates());
}

#[test]
fn of_datagrams_the_share_is_lost_that_was_asked_for() {
    let table = with(LinkFaults { loss: 0.1, ..LinkFaults::default() });
    let lost = (0..10_000).filter(|_| table.datagram_to(peer(1), 100) == Fate::Lost).count();
    assert!((900..=1100).contains(&lost), "{lost} of 10 000");
    assert!((0..1000).all(|_| table.datagram_to(peer(2), 100) != Fate::Lost), "another link loses nothing");
}
