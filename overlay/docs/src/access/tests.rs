//! Rights, from sets of operations alone.

use wattle_types::{DocAccess, ReadSecret, SecretKey};

use super::*;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn access() -> DocAccess {
    DocAccess { id: DocId::of_owner(&key(1).node_id()), read: ReadSecret::from_bytes([9; 16]), owner: None }
}

fn signed(by: u8, epoch: u32, act: Act) -> Envelope {
    let operation = Operation { doc: access().id, epoch, act };
    Envelope::seal(&key(by), Domain::DocControl, &NetworkName::default(), &operation)
}

fn grant(by: u8, epoch: u32, to: u8, role: Role) -> Envelope {
    signed(by, epoch, Act::Grant { to: key(to).node_id(), role, bearer: None })
}

fn ticket(epoch: u32, to: u8, limits: Bearer) -> Envelope {
    signed(1, epoch, Act::Grant { to: key(to).node_id(), role: Role::Writer, bearer: Some(limits) })
}

fn redeem(bearer: u8, member: u8) -> Envelope {
    signed(bearer, 0, Act::Redeem { member: key(member).node_id() })
}

fn admit(by: u8, redemption: &Envelope) -> Envelope {
    signed(by, 0, Act::Admit { redemption: OpHash::new(redemption.hash()) })
}

fn remove(by: u8, epoch: u32, who: u8, keep: Vec<OpHash>) -> Envelope {
    lower(by, epoch, who, None, keep)
}

fn lower(by: u8, epoch: u32, who: u8, stays: Option<Role>, keep: Vec<OpHash>) -> Envelope {
    let who = key(who).node_id();
    signed(by, epoch, Act::Remove { who, cut: Vec::new(), feeds: Vec::new(), keep, stays })
}

const FREE: Bearer = Bearer { expires: None, uses: None };

fn log(operations: &[Envelope]) -> ControlLog {
    let mut log = ControlLog::default();
    log.extend(&access(), &NetworkName::default(), operations.to_vec());
    log
}

fn role(log: &ControlLog, node: u8) -> Option<Role> {
    log.members(&access()).role(&key(node).node_id())
}

#[test]
fn who_is_a_member_does_not_depend_on_the_order_of_arrival() {
    let bearer = redeem(20, 5);
    let mut all = vec![
        grant(1, 1, 2, Role::Admin),
        grant(2, 2, 3, Role::Writer),
        ticket(3, 20, FREE),
        bearer,
        remove(2, 4, 3, Vec::new()),
        grant(1, 5, 4, Role::Reader),
    ];
    let expected = log(&all).members(&access());
    assert_eq!(expected.iter().count(), 3);
    for turn in 0..24 {
        let index = turn % all.len();
        all.swap(index, (index * 3 + turn) % 6);
        // Whatever could not be added at first is added when it comes again.
        let mut log = ControlLog::default();
        for _ in 0..all.len() {
            for operation in &all {
                log.insert(&access(), &NetworkName::default(), operation);
            }
        }
        assert_eq!(log.members(&access()), expected);
    }
}

#[test]
fn only_the_owner_makes_admins_and_only_admins_grant() {
    let log = log(&[
        grant(1, 1, 2, Role::Admin),
        grant(2, 2, 3, Role::Writer),
        grant(2, 3, 4, Role::Admin),
        grant(3, 4, 5, Role::Writer),
        grant(9, 5, 9, Role::Writer),
        remove(3, 6, 2, Vec::new()),
    ]);
    assert_eq!(role(&log, 2), Some(Role::Admin));
    assert_eq!(role(&log, 3), Some(Role::Writer));
    assert_eq!([4, 5, 9].map(|node| role(&log, node)), [None; 3]);
}

#[test]
fn a_removed_member_does_not_come_back_by_its_old_ticket() {
    let gone = log(&[ticket(1, 20, FREE), redeem(20, 3), remove(1, 2, 3, Vec::new())]);
    assert_eq!(role(&gone, 3), None);
    let again = gone.admits(&access(), &NetworkName::default(), &redeem(20, 3), UnixTime::from_millis(0));
    assert_eq!(again, Err(Refusal::NotAMember));
    let anew =
        log(&[ticket(1, 20, FREE), redeem(20, 3), remove(1, 2, 3, Vec::new()), grant(1, 3, 3, Role::Reader)]);
    assert_eq!(role(&anew, 3), Some(Role::Reader));
}

#[test]
fn a_ticket_that_is_withdrawn_keeps_those_it_let_in_before() {
    let kept = redeem(20, 3);
    let keep = vec![OpHash::new(kept.hash())];
    let log = log(&[ticket(1, 20, FREE), kept, redeem(20, 4), remove(1, 2, 20, keep)]);
    assert_eq!((role(&log, 3), role(&log, 4)), (Some(Role::Writer), None));
}

#[test]
fn a_ticket_lets_in_as_often_and_as_long_as_it_says() {
    let admits = |limits: Bearer, used: &[u8], now: u64| {
        let mut operations = vec![ticket(1, 20, limits)];
        operations.extend(used.iter().map(|member| redeem(20, *member)));
        operations.extend(used.iter().map(|member| admit(1, &redeem(20, *member))));
        let admitted = log(&operations).admits(
            &access(),
            &NetworkName::default(),
            &redeem(20, 7),
            UnixTime::from_millis(now),
        );
        admitted.map(|admission| assert_eq!((admission.role, admission.needs_a_word), (Role::Writer, true)))
    };
    let once = Bearer { expires: None, uses: Some(1) };
    assert_eq!(admits(once.clone(), &[], 0), Ok(()));
    assert_eq!(admits(once, &[3], 0), Err(Refusal::UsedUp));
    let until = Bearer { expires: Some(1000), uses: None };
    assert_eq!(admits(until.clone(), &[3], 999), Ok(()));
    assert_eq!(admits(until, &[3], 1000), Err(Refusal::Expired));
}

#[test]
fn a_ticket_with_limits_lets_in_whom_a_member_of_its_role_signs_for() {
    let limits = Bearer { expires: Some(1000), uses: None };
    let base =
        || vec![grant(1, 1, 2, Role::Reader), grant(1, 1, 3, Role::Writer), ticket(2, 20, limits.clone())];
    let with = |more: &[Envelope]| log(&[base(), more.to_vec()].concat());
    let guest = redeem(20, 7);
    for (by, expected) in [(None, None), (Some(2), None), (Some(9), None), (Some(7), None), (Some(20), None)]
    {
        let word = by.map(|by| admit(by, &guest));
        let log = with(&[vec![guest.clone()], Vec::from_iter(word)].concat());
        assert_eq!(role(&log, 7), expected, "{by:?} lets nobody in");
    }
    for by in [1, 3] {
        assert_eq!(role(&with(&[admit(by, &guest), guest.clone()]), 7), Some(Role::Writer), "{by} does");
    }
    // Who came in lets in others; all of them go with the word of the first, unless an admin signs for them.
    let (next, last) = (redeem(20, 8), redeem(20, 6));
    let chain =
        [guest.clone(), next.clone(), last.clone(), admit(3, &guest), admit(7, &next), admit(8, &last)];
    let all = with(&chain);
    assert_eq!([7, 8, 6].map(|node| role(&all, node)), [Some(Role::Writer); 3]);
    assert_eq!(all.admitted_by(&access(), &key(3).node_id()), [OpHash::new(guest.hash())]);
    let gone = with(&[&chain[..], &[remove(1, 5, 3, Vec::new())]].concat());
    assert_eq!([7, 8, 6].map(|node| role(&gone, node)), [None; 3]);
    let stay = with(&[&chain[..], &[remove(1, 5, 3, Vec::new()), admit(1, &guest)]].concat());
    assert_eq!([7, 8, 6].map(|node| role(&stay, node)), [Some(Role::Writer); 3]);
}

#[test]
fn a_tickets_key_signs_redemptions_and_leaves_room_for_others() {
    let act = Act::Grant { to: key(3).node_id(), role: Role::Writer, bearer: None };
    let mut full =
        log(&[ticket(1, 20, FREE), signed(20, u32::MAX, act), remove(20, u32::MAX, 1, Vec::new())]);
    assert_eq!((full.hashes().len(), full.epoch()), (1, 1));
    for number in 0..=TICKET_MAX {
        let member = NodeId::from_public_key([(number % 251) as u8; 32]);
        let operation = signed(20, number as u32, Act::Redeem { member });
        full.insert(&access(), &NetworkName::default(), &operation);
    }
    assert_eq!(full.hashes().len(), TICKET_MAX + 1);
    full.extend(&access(), &NetworkName::default(), vec![ticket(1, 21, FREE), redeem(21, 3)]);
    assert_eq!(role(&full, 3), Some(Role::Writer), "another ticket lets in");
    assert!(full.insert(&access(), &NetworkName::default(), &remove(1, 2, 20, Vec::new())));
    assert_eq!(full.members(&access()).iter().count(), 1);
}

#[test]
fn a_grant_takes_nothing_away_and_what_takes_away_gives_nothing() {
    let role_after = |operations: &[Envelope]| role(&log(operations), 3);
    let (reader, writer) = (Some(Role::Reader), Some(Role::Writer));
    // Two admins that let somebody in at once, and a reader's ticket that is redeemed in a writer's name.
    assert_eq!(role_after(&[grant(1, 1, 3, Role::Writer), grant(1, 1, 3, Role::Reader)]), writer);
    assert_eq!(role_after(&[grant(1, 1, 3, Role::Writer), grant(1, 2, 3, Role::Reader)]), writer);
    let act = Act::Grant { to: key(20).node_id(), role: Role::Reader, bearer: Some(FREE) };
    assert_eq!(role_after(&[grant(1, 1, 3, Role::Writer), signed(1, 2, act), redeem(20, 3)]), writer);
    // What lowers holds until a later grant, also against one of its own epoch.
    let lowered = [grant(1, 1, 3, Role::Writer), lower(1, 2, 3, reader, Vec::new())];
    let with = |more: Envelope| role_after(&[&lowered[..], &[more]].concat());
    assert_eq!(role_after(&lowered), reader);
    assert_eq!(with(grant(1, 2, 3, Role::Writer)), reader);
    assert_eq!(with(grant(1, 3, 3, Role::Writer)), writer);
    // One who was removed does not come back by it, whichever came first.
    for epoch in [1, 2, 3] {
        assert_eq!(with(lower(1, epoch, 3, None, Vec::new())), None, "removed at {epoch}");
    }
    assert_eq!(role_after(&[lower(1, 2, 3, writer, Vec::new())]), None);
}

#[test]
fn what_an_admin_signed_holds_when_it_becomes_less() {
    let granted = grant(2, 2, 3, Role::Writer);
    let keep = vec![OpHash::new(granted.hash())];
    let stays = Some(Role::Writer);
    let log = log(&[grant(1, 1, 2, Role::Admin), granted, lower(1, 3, 2, stays, keep), {
        grant(2, 4, 4, Role::Writer)
    }]);
    assert_eq!([2, 3, 4].map(|node| role(&log, node)), [stays, stays, None]);
}

#[test]
fn a_grant_for_another_document_is_worth_nothing() {
    let act = Act::Grant { to: key(3).node_id(), role: Role::Writer, bearer: None };
    let operation = Operation { doc: DocId::from_bytes([7; 16]), epoch: 1, act };
    let elsewhere = Envelope::seal(&key(1), Domain::DocControl, &NetworkName::default(), &operation);
    assert_eq!(role(&log(&[elsewhere]), 3), None);
}
