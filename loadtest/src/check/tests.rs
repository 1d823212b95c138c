use super::{Check, Head, Violations};
use crate::plan::{Cast, Plan, Told};

const PLAN: Plan = Plan { cast: Cast { rooms: 1, members: 2, users: 2, devices: 1 }, rate: 1, warm: 0, total: 10 };
const HEAD: Head = Head { seq: 5, rev: 7 };

fn told(number: u64) -> Told {
    Told { number, room: 0, slot: PLAN.slot(number), turn: PLAN.turn(number), due_us: 0 }
}

fn at(seq: u64) -> Head {
    Head { seq, rev: seq + 2 }
}

/// Each message of `order` reaches both members, numbered from 6; all are acknowledged.
fn verdict(order: &[u64]) -> Violations {
    let mut check = Check::new(PLAN, &[HEAD]);
    for user in [0, 1] {
        order.iter().for_each(|number| check.delivered(user, at(number + 6), &told(*number)));
    }
    (0..4).for_each(|number| assert!(check.acked(number, number + 6)));
    check.verdict()
}

#[test]
fn all_in_order_is_no_violation() {
    assert!(!verdict(&[0, 1, 2, 3]).any());
}

#[test]
fn each_violation_has_its_name() {
    assert_eq!(verdict(&[0, 1, 2]), Violations { lost: 2, ..Violations::default() });
    assert_eq!(verdict(&[0, 1, 3]), Violations { lost: 2, gaps: 2, ..Violations::default() });
    assert_eq!(verdict(&[0, 2, 1, 3]), Violations { reordered: 2, gaps: 2, ..Violations::default() });
    assert_eq!(verdict(&[0, 1, 1, 2, 3]), Violations { duplicated: 2, ..Violations::default() });
}

#[test]
fn a_message_stored_twice_is_a_duplicate() {
    let mut check = Check::new(PLAN, &[HEAD]);
    check.delivered(0, at(6), &told(0));
    check.delivered(0, at(7), &told(0));
    assert_eq!(check.verdict(), Violations { duplicated: 1, ..Violations::default() });
}

#[test]
fn a_sender_whose_messages_are_stored_in_another_order_is_a_violation() {
    let mut check = Check::new(PLAN, &[HEAD]);
    [4, 0, 2].iter().zip(6..).for_each(|(number, seq)| check.delivered(0, at(seq), &told(*number)));
    assert_eq!(check.verdict(), Violations { reordered: 2, ..Violations::default() });
}

#[test]
fn two_members_who_see_different_messages_at_one_place_are_a_violation() {
    let mut check = Check::new(PLAN, &[HEAD]);
    check.delivered(0, at(6), &told(0));
    check.delivered(1, at(6), &told(1));
    assert_eq!(check.verdict(), Violations { reordered: 1, ..Violations::default() });
}

#[test]
fn an_acknowledgement_for_another_place_is_a_lie() {
    let mut check = Check::new(PLAN, &[HEAD]);
    [0, 1].iter().for_each(|user| check.delivered(*user, at(6), &told(0)));
    [0, 1].iter().for_each(|user| check.delivered(*user, at(7), &told(1)));
    check.acked(0, 7);
    assert_eq!(check.verdict(), Violations { lost: 1, ..Violations::default() });
}

#[test]
fn a_message_to_a_stranger_is_a_violation() {
    let plan = Plan { cast: Cast { users: 3, ..PLAN.cast }, ..PLAN };
    let mut check = Check::new(plan, &[HEAD]);
    check.delivered(2, at(6), &told(0));
    assert!(check.verdict().any());
}

#[test]
fn a_client_resumes_with_what_it_has() {
    let mut check = Check::new(PLAN, &[HEAD]);
    assert_eq!(check.held(0, 1), Some(HEAD));
    check.delivered(1, at(6), &told(0));
    assert_eq!(check.held(0, 1), Some(at(6)));
    assert_eq!(check.unanswered(3).collect::<Vec<_>>(), [0, 1, 2]);
    check.acked(0, 6);
    check.refused(1);
    assert_eq!(check.unanswered(3).collect::<Vec<_>>(), [2]);
}
