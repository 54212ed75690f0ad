//! Leases and offers of one group, step by step.

use spillq_storage::state::AckSet;

use super::*;
use crate::queue::command::Verdict;

fn state() -> GroupState {
    GroupState::empty("default", Seq(0))
}

fn view(state: &GroupState, next_seq: u64) -> View<'_> {
    View { state, next_seq: Seq(next_seq), now_ms: 0 }
}

fn ack(state: &mut GroupState, range: SeqRange) {
    state.apply(&GroupChange::Ack { range });
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq(first), Seq(last)).unwrap()
}

const FAILED: (FailureKind, &str) = (FailureKind::Failed, "it failed");
const NONE_REJECTED: fn(Seq, u32) -> u32 = |_, _| 0;

#[test]
fn a_strict_group_has_one_lease_and_one_offer_read_ahead() {
    let state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
    let first = group.offer(view(&state, 26), false, 1).unwrap();
    assert_eq!(first.range, range(1, 10));
    group.lease(view(&state, 26), 1, Seq(8), 100).unwrap();
    assert_eq!(group.offer(view(&state, 26), false, 2), Err(Idle::InFlight));
    assert_eq!(group.offer(view(&state, 26), true, 3).unwrap().range, range(9, 18), "behind what was leased");
    assert_eq!(group.offer(view(&state, 26), true, 4), Err(Idle::InFlight));
    assert!(group.lease(view(&state, 26), 3, Seq(18), 101).is_none(), "not before the first has ended");
}

#[test]
fn a_strict_group_keeps_its_order_over_a_crash_with_lines_that_were_released_before() {
    // 11-20 were in flight, and released; 21-30 are the other half, suspect from the run before; so is 41.
    let mut state = state();
    ack(&mut state, range(1, 10));
    ack(&mut state, range(35, 36));
    for range in [range(11, 30), range(41, 41)] {
        state.apply(&GroupChange::Lease { range });
    }
    state.begin_run();
    state.apply(&GroupChange::Lease { range: range(11, 20) });
    state.apply(&GroupChange::Return { range: range(11, 20), failed_for_ms: None });
    assert_eq!(state.suspects(), [range(21, 30), range(41, 41)]);
    let mut group = Group::new(GroupSettings { batch_lines: 6, ..GroupSettings::named("default") }, &state);
    let mut found = Vec::new();
    for number in 0..9 {
        let offer = group.offer(view(&state, 51), false, number).unwrap();
        let (lease, _) = group.lease(view(&state, 51), number, offer.range.last, 100 + number).unwrap();
        assert!(lease.range.lines() <= 6, "{}", lease.range);
        let lease = group.take(100 + number).unwrap();
        group.acked(lease.clone(), 0);
        group.made_durable();
        ack(&mut state, lease.range);
        found.push((lease.range.first.0, lease.range.last.0));
    }
    let expected = [(11, 16), (17, 20), (21, 26), (27, 30), (31, 34), (37, 40), (41, 41), (42, 47), (48, 50)];
    assert_eq!(found, expected);
}

/// Lines that had failed between acked ones were fresh after a restart, and were never offered because the window was full.
#[test]
fn a_full_ack_window_is_emptied_from_within() {
    let mut state = state();
    for even in 1..=AckSet::RANGES_MAX as u64 {
        ack(&mut state, range(even * 2 + 1, even * 2 + 1));
    }
    let end = AckSet::RANGES_MAX as u64 * 2 + 100;
    let settings = GroupSettings { strict: false, in_flight: 3, ..GroupSettings::named("a") };
    let mut group = Group::new(settings, &state);
    assert_eq!(group.offer(view(&state, end), false, 1).unwrap().range, range(1, 2));
    group.lease(view(&state, end), 1, Seq(1), 1).unwrap();
    // Behind a leased line an ack would add a range.
    assert_eq!(group.offer(view(&state, end), false, 2).unwrap().range, range(4, 4));
    group.settling.push(range(5, end - 100));
    let full = || Idle::Blocked(Blocked::AckWindow);
    assert_eq!(group.offer(view(&state, end), false, 3), Err(full()), "nothing above it");
    assert_eq!(group.idle(view(&state, end)), Some(full()));
    let lease = group.take(1).unwrap();
    assert_eq!(group.acked(lease, 0), [GroupChange::Ack { range: range(1, 1) }]);
    ack(&mut state, range(1, 1));
    assert_eq!(group.offer(view(&state, end), false, 3).unwrap().range, range(2, 2));
}

#[test]
fn an_offer_read_ahead_is_invalid_when_the_batch_before_it_fails() {
    let state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
    group.offer(view(&state, 26), false, 1).unwrap();
    group.lease(view(&state, 26), 1, Seq(10), 100).unwrap();
    group.offer(view(&state, 26), true, 2).unwrap();
    let lease = group.take(100).unwrap();
    group.failed(view(&state, 26), lease, FAILED, &NONE_REJECTED);
    assert!(group.lease(view(&state, 26), 2, Seq(20), 101).is_none());
    assert_eq!(group.offer(view(&state, 26), false, 3), Err(Idle::Until(200)));
    let later = View { now_ms: 200, ..view(&state, 26) };
    assert_eq!(
        group.offer(later, false, 4).unwrap().range,
        range(1, 10),
        "the same lines are delivered again"
    );
}

/// A consumer can release its lines while those behind them are read ahead.
#[test]
fn an_offer_read_ahead_is_invalid_when_the_batch_before_it_is_released() {
    for (strict, is_leased) in [(true, false), (false, true)] {
        let state = state();
        let settings = GroupSettings { strict, batch_lines: 10, ..GroupSettings::named("default") };
        let mut group = Group::new(settings, &state);
        group.offer(view(&state, 26), false, 1).unwrap();
        group.lease(view(&state, 26), 1, Seq(10), 100).unwrap();
        group.offer(view(&state, 26), true, 2).unwrap();
        let lease = group.take(100).unwrap();
        group.released(lease);
        let ahead = group.lease(view(&state, 26), 2, Seq(20), 101);
        assert_eq!(ahead.is_some(), is_leased, "in strict order nothing overtakes");
        if strict {
            assert_eq!(group.offer(view(&state, 26), false, 3).unwrap().range, range(1, 10));
        }
    }
}

/// With a backlog, what was read ahead took the place of a batch that had failed, for ever.
#[test]
fn nothing_is_read_ahead_of_lines_whose_back_off_is_over() {
    let state = state();
    let settings = GroupSettings { strict: false, in_flight: 2, batch_lines: 5, ..GroupSettings::named("a") };
    let mut group = Group::new(settings, &state);
    for (token, last) in [(100, 5), (101, 10)] {
        group.offer(view(&state, 41), false, token).unwrap();
        group.lease(view(&state, 41), token, Seq(last), token).unwrap();
    }
    let lease = group.take(100).unwrap();
    group.failed(view(&state, 41), lease, FAILED, &NONE_REJECTED);
    group.set(GroupSettings { in_flight: 1, ..group.settings().as_ref().clone() });
    let later = View { now_ms: 10_000, ..view(&state, 41) };
    assert_eq!(group.offer(later, true, 3), Err(Idle::InFlight), "the failed lines are due");
    let lease = group.take(101).unwrap();
    group.acked(lease, 10_000);
    assert_eq!(group.offer(later, false, 4).unwrap().range, range(1, 5));
}

#[test]
fn leases_of_dropped_lines_end_and_the_rest_is_offered_again() {
    let mut state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
    group.offer(view(&state, 41), false, 1).unwrap();
    group.lease(view(&state, 41), 1, Seq(10), 100).unwrap();
    group.offer(view(&state, 41), true, 2).unwrap();
    ack(&mut state, range(1, 5));
    group.dropped(range(1, 5), 0);
    assert!(group.take(100).is_none(), "its token is stale");
    let ahead = group.lease(view(&state, 41), 2, Seq(20), 101);
    assert!(ahead.is_none(), "in a strict group what was read ahead would overtake the rest");
    assert_eq!(group.offer(view(&state, 41), false, 3).unwrap().range, range(6, 15));
    assert!(group.lease(view(&state, 41), 3, Seq(15), 102).is_some());
}

#[test]
fn lines_acked_but_not_durable_yet_are_not_offered_again() {
    let mut state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
    group.offer(view(&state, 41), false, 1).unwrap();
    group.lease(view(&state, 41), 1, Seq(10), 100).unwrap();
    group.offer(view(&state, 41), true, 2).unwrap();
    assert_eq!(group.offer_ahead(view(&state, 41), 3), None, "one is read ahead already");
    let lease = group.take(100).unwrap();
    group.acked(lease, 0);
    assert_eq!(group.offer_ahead(view(&state, 41), 3).map(|offer| offer.range), Some(range(21, 30)));
    group.release_offer(3);
    group.lease(view(&state, 41), 2, Seq(20), 101).unwrap();
    assert_eq!(group.offer_ahead(view(&state, 41), 4).map(|offer| offer.range), Some(range(21, 30)));
    group.release_offer(4);
    ack(&mut state, range(1, 10));
    group.made_durable();
    assert_eq!(group.offer_ahead(view(&state, 41), 5).map(|offer| offer.range), Some(range(21, 30)));
}

#[test]
fn an_unordered_group_leases_past_lines_in_flight() {
    let mut state = state();
    let settings =
        GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("default") };
    let mut group = Group::new(settings, &state);
    for (reservation, expected) in [(1, range(1, 5)), (2, range(6, 10)), (3, range(11, 15))] {
        assert_eq!(group.offer(view(&state, 31), false, reservation).unwrap().range, expected);
        group.lease(view(&state, 31), reservation, expected.last, reservation).unwrap();
    }
    let lease = group.take(2).unwrap();
    assert_eq!(group.acked(lease, 0), [GroupChange::Ack { range: range(6, 10) }]);
    ack(&mut state, range(6, 10));
    assert_eq!(group.offer(view(&state, 31), false, 4).unwrap().range, range(16, 20));
}

/// Found by kills: a line alone was delivered as attempt 3, and after a restart, between acked lines, as attempt 1.
#[test]
fn attempts_of_a_line_alone_never_fall_over_a_restart() {
    let mut state = state();
    let mut attempts = Vec::new();
    let mut deliver = |group: &mut Group, state: &mut GroupState, now_ms| {
        let view = View { now_ms, ..view(state, 2) };
        group.offer(view, false, now_ms).unwrap();
        let (lease, leased) = group.lease(view, now_ms, Seq(1), now_ms).unwrap();
        attempts.push(lease.attempt);
        state.apply(&leased);
        let lease = group.take(now_ms).unwrap();
        let view = View { state, next_seq: Seq(2), now_ms };
        let changes = group.failed(view, lease, FAILED, &NONE_REJECTED);
        changes.iter().for_each(|change| state.apply(change));
    };
    let settings = GroupSettings { strict: false, ..GroupSettings::named("default") };
    for hour in 0..3 {
        let mut group = Group::new(settings.clone(), &state);
        for delivery in 1..4 {
            deliver(&mut group, &mut state, hour * 3_600_000 + delivery * 600_000);
        }
    }
    assert_eq!(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn an_offer_read_ahead_takes_no_place_in_flight() {
    let state = state();
    let settings = GroupSettings { strict: false, in_flight: 2, batch_lines: 5, ..GroupSettings::named("a") };
    let mut group = Group::new(settings, &state);
    group.offer(view(&state, 31), false, 1).unwrap();
    group.lease(view(&state, 31), 1, Seq(5), 100).unwrap();
    assert_eq!(group.offer(view(&state, 31), true, 2).unwrap().range, range(6, 10));
    assert_eq!(group.offer(view(&state, 31), false, 3).unwrap().range, range(11, 15), "for a second worker");
    assert_eq!(group.offer(view(&state, 31), true, 4), Err(Idle::InFlight), "one is read ahead already");
    assert!(group.lease(view(&state, 31), 3, Seq(15), 101).is_some());
    assert_eq!(group.offer(view(&state, 31), false, 5), Err(Idle::InFlight));
    let lease = group.take(100).unwrap();
    group.acked(lease, 0);
    assert!(group.lease(view(&state, 31), 2, Seq(10), 102).is_some());
}

/// Found on a busy machine: one of three workers had nothing to do while the other two had read ahead.
#[test]
fn offers_read_ahead_never_keep_a_worker_from_a_free_place() {
    let state = state();
    let settings = GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("a") };
    let mut group = Group::new(settings, &state);
    group.offer(view(&state, 31), false, 1).unwrap();
    group.lease(view(&state, 31), 1, Seq(5), 100).unwrap();
    assert_eq!(group.offer(view(&state, 31), true, 2).unwrap().range, range(6, 10));
    group.offer(view(&state, 31), false, 3).unwrap();
    group.lease(view(&state, 31), 3, Seq(15), 101).unwrap();
    assert_eq!(group.offer(view(&state, 31), true, 4), Err(Idle::InFlight), "one is read ahead already");
    assert_eq!(group.offer(view(&state, 31), false, 5).unwrap().range, range(16, 20), "for the third");
}

#[test]
fn new_settings_apply_from_the_next_batch_and_leases_continue_as_they_began() {
    let mut state = state();
    let three = GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("a") };
    let mut group = Group::new(three, &state);
    for token in 1..=3 {
        group.offer(view(&state, 31), false, token).unwrap();
        group.lease(view(&state, 31), token, Seq(token * 5), token).unwrap();
    }
    group.set(GroupSettings { batch_lines: 2, ..GroupSettings::named("a") });
    assert_eq!(group.offer(view(&state, 31), false, 4), Err(Idle::InFlight), "in strict order now");
    for (token, lines) in [(2, range(6, 10)), (1, range(1, 5))] {
        let lease = group.take(token).unwrap();
        assert_eq!(group.acked(lease, 0), [GroupChange::Ack { range: lines }]);
        ack(&mut state, lines);
        assert_eq!(group.offer(view(&state, 31), false, 4), Err(Idle::InFlight));
    }
    let lease = group.take(3).unwrap();
    group.failed(view(&state, 31), lease, FAILED, &NONE_REJECTED);
    let later = View { now_ms: 200, ..view(&state, 31) };
    let offer = group.offer(later, false, 4).unwrap();
    assert_eq!(offer.range, range(11, 15), "the failed batch comes first, unchanged");
    group.lease(later, 4, offer.range.last, 9).unwrap();
    let lease = group.take(9).unwrap();
    group.acked(lease, 0);
    ack(&mut state, range(11, 15));
    assert_eq!(group.offer(view(&state, 31), false, 5).unwrap().range, range(16, 17));
}

#[test]
fn a_group_blocked_by_damage_continues_once_it_may_skip_it() {
    let state = state();
    let mut group = Group::new(GroupSettings::named("a"), &state);
    group.block_unreadable("line 1".to_owned(), false);
    group.set(GroupSettings { timeout_ms: 1, ..GroupSettings::named("a") });
    assert_eq!(
        group.offer(view(&state, 31), false, 1),
        Err(Idle::Blocked(Blocked::Damage("line 1".to_owned())))
    );
    group.set(GroupSettings { skip_damage: true, ..GroupSettings::named("a") });
    assert_eq!(group.offer(view(&state, 31), false, 1).unwrap().range, range(1, 30));
}

/// Found by torture: a line that was parked between its offer and its lease was delivered although it was a dead letter.
#[test]
fn a_line_that_is_parked_while_it_is_offered_is_not_leased() {
    let mut state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 2, ..GroupSettings::named("default") }, &state);
    group.offer(view(&state, 5), false, 1).unwrap();
    group.settled(range(1, 1), 0);
    ack(&mut state, range(1, 1));
    group.made_durable();
    assert!(group.lease(view(&state, 5), 1, Seq(2), 7).is_none(), "of a fresh batch");
    assert_eq!(group.offer(view(&state, 5), false, 2).unwrap().range, range(2, 3));
    group.lease(view(&state, 5), 2, Seq(2), 8).unwrap();
    let lease = group.take(8).unwrap();
    group.failed(view(&state, 5), lease, FAILED, &NONE_REJECTED);
    let later = View { now_ms: 200, ..view(&state, 5) };
    assert_eq!(group.offer(later, false, 3).unwrap().range, range(2, 2));
    group.settled(range(2, 2), 200);
    ack(&mut state, range(2, 2));
    group.made_durable();
    let later = View { now_ms: 200, ..view(&state, 5) };
    assert!(group.lease(later, 3, Seq(2), 9).is_none(), "of a batch that is delivered again");
    assert_eq!(group.offer(later, false, 4).unwrap().range, range(3, 4));
}

/// A line that was in flight each time another one killed the process was given up on.
#[test]
fn after_a_crash_a_suspect_is_in_flight_alone_so_that_a_death_is_caused_by_it() {
    let mut state = state();
    let settings = GroupSettings { strict: false, in_flight: 3, batch_lines: 1, ..GroupSettings::named("a") };
    let mut group = Group::new(settings.clone(), &state);
    for token in 1..=3 {
        group.offer(view(&state, 9), false, token).unwrap();
        let (_, change) = group.lease(view(&state, 9), token, Seq(token), token).unwrap();
        state.apply(&change);
    }
    state.begin_run();
    assert!(state.deaths().is_empty(), "any of the three may be the cause: {state:?}");
    let mut group = Group::new(settings.clone(), &state);
    for token in 1..=2 {
        assert_eq!(group.offer(view(&state, 9), false, token).unwrap().range, range(token, token));
        assert_eq!(group.offer(view(&state, 9), false, 10), Err(Idle::InFlight), "alone");
        let (_, change) = group.lease(view(&state, 9), token, Seq(token), token).unwrap();
        state.apply(&change);
        assert_eq!(group.offer(view(&state, 9), true, 10), Err(Idle::InFlight), "nothing is read ahead");
        let lease = group.take(token).unwrap();
        group.acked(lease, 0).iter().for_each(|change| state.apply(change));
        group.made_durable();
    }
    let offer = group.offer(view(&state, 9), false, 3).unwrap();
    let (_, change) = group.lease(view(&state, 9), 3, offer.range.last, 3).unwrap();
    state.apply(&change);
    state.begin_run();
    assert_eq!(state.deaths().iter().collect::<Vec<_>>(), [(&Seq(3), &1)]);
    // It fails without killing the process: from then on others are in flight with it.
    let mut group = Group::new(settings, &state);
    group.offer(view(&state, 9), false, 1).unwrap();
    group.lease(view(&state, 9), 1, Seq(3), 1).unwrap();
    let lease = group.take(1).unwrap();
    group.failed(view(&state, 9), lease, FAILED, &NONE_REJECTED);
    let later = View { now_ms: 200, ..view(&state, 9) };
    for token in 2..=4 {
        group.offer(later, false, token).unwrap();
    }
}

/// A line far ahead that was parked and revived was delivered before lines that were never delivered.
#[test]
fn in_strict_order_a_revived_line_waits_for_its_turn() {
    let mut state = state();
    let mut group = Group::new(GroupSettings { batch_lines: 4, ..GroupSettings::named("default") }, &state);
    group.settled(range(7, 7), 0);
    state.apply(&GroupChange::Dead { seq: Seq(7) });
    group.made_durable();
    state.apply(&GroupChange::Revive { seq: Seq(7) });
    group.revive(Seq(7));
    let mut found = Vec::new();
    for token in 1..=4 {
        let offer = group.offer(view(&state, 11), false, token).unwrap();
        let (_, change) = group.lease(view(&state, 11), token, offer.range.last, token).unwrap();
        state.apply(&change);
        let lease = group.take(token).unwrap();
        group.acked(lease.clone(), 0).iter().for_each(|change| state.apply(change));
        group.made_durable();
        found.push(lease.range);
    }
    assert_eq!(found, [range(1, 4), range(5, 6), range(7, 7), range(8, 10)]);
}

#[test]
fn a_stale_token_changes_nothing() {
    let state = state();
    let mut group = Group::new(GroupSettings::named("default"), &state);
    group.offer(view(&state, 5), false, 1).unwrap();
    group.lease(view(&state, 5), 1, Seq(4), 7).unwrap();
    assert!(group.take(8).is_none());
    assert!(group.take(7).is_some());
    assert!(group.take(7).is_none(), "a lease ends once");
}

#[test]
fn an_empty_or_paused_group_gives_the_reason() {
    let mut state = state();
    let mut group = Group::new(GroupSettings::named("default"), &state);
    assert_eq!(group.offer(view(&state, 1), false, 1), Err(Idle::Empty));
    state.apply(&GroupChange::Pause(true));
    assert_eq!(group.offer(view(&state, 5), false, 1), Err(Idle::Paused));
}

/// A group that leases up to ten of twenty lines at a time, and its state.
struct Ten(Group, GroupState);

impl Ten {
    fn new() -> Ten {
        let state = state();
        let settings = GroupSettings { batch_lines: 10, ..GroupSettings::named("default") };
        Ten(Group::new(settings, &state), state)
    }

    fn lease(&mut self) -> ActiveLease {
        let Ten(group, state) = self;
        let offer = group.offer(view(state, 21), false, 1).unwrap();
        let (_, change) = group.lease(view(state, 21), 1, offer.range.last, 1).unwrap();
        state.apply(&change);
        group.take(1).unwrap()
    }

    fn commit(&mut self, changes: &[GroupChange]) {
        changes.iter().for_each(|change| self.1.apply(change));
        self.0.made_durable();
    }

    fn acked(&mut self) -> SeqRange {
        let lease = self.lease();
        let range = lease.range;
        let changes = self.0.acked(lease, 0);
        self.commit(&changes);
        range
    }

    /// The next lines fail, and one of them is named.
    fn named(&mut self, seq: u64) -> SeqRange {
        let lease = self.lease();
        let bad = (FailureKind::BadLine(Seq(seq)), "it is bad");
        let range = lease.range;
        let changes = self.0.failed(view(&self.1, 21), lease, bad, &NONE_REJECTED);
        self.commit(&changes);
        range
    }

    fn acked_except(&mut self, lines: &[u64]) -> (SeqRange, Vec<GroupChange>) {
        let lease = self.lease();
        let reason = |seq: &u64| Rejected { seq: Seq(*seq), reason: format!("line {seq} is bad") };
        let range = lease.range;
        let changes = self.0.acked_except(lease, lines.iter().map(reason).collect(), 0);
        self.commit(&changes);
        (range, changes)
    }

    fn dead_letter(&mut self) -> Option<(u64, String)> {
        let condemned = self.0.condemned(0, &NONE_REJECTED)?;
        assert_eq!(condemned.cause, DeadCause::Rejected);
        self.0.settled(SeqRange::one(condemned.seq), 0);
        self.commit(&[GroupChange::Dead { seq: condemned.seq }]);
        Some((condemned.seq.0, condemned.reason))
    }
}

#[test]
fn a_list_that_is_believed_acks_the_others_and_condemns_its_lines_in_their_order() {
    let mut ten = Ten::new();
    assert_eq!(ten.named(3), range(1, 10));
    assert_eq!(ten.acked(), range(1, 2));
    assert!(!ten.0.believes_lists(false), "no number has proven right yet");
    assert!(ten.0.believes_lists(true), "seqs need no proof");
    assert_eq!(ten.named(3), range(3, 3));
    assert_eq!(ten.dead_letter(), Some((3, "it is bad".to_owned())));
    assert!(ten.0.believes_lists(false));

    let (list_of, changes) = ten.acked_except(&[5, 10]);
    assert_eq!(list_of, range(4, 10), "the rest of a batch that was cut");
    let ends = GroupChange::Return { range: range(4, 10), failed_for_ms: None };
    let acks = [range(4, 4), range(6, 9)].map(|range| GroupChange::Ack { range });
    assert_eq!(changes, [&[ends][..], &acks].concat());
    assert_eq!(ten.dead_letter(), Some((5, "line 5 is bad".to_owned())));
    assert_eq!(ten.dead_letter(), Some((10, "line 10 is bad".to_owned())));
    assert_eq!(ten.dead_letter(), None);

    let (list_of, changes) = ten.acked_except(&(11..=20).collect::<Vec<_>>());
    assert_eq!(changes, [GroupChange::Return { range: list_of, failed_for_ms: None }], "nothing is acked");
    for seq in 11..=20 {
        assert_eq!(ten.dead_letter(), Some((seq, format!("line {seq} is bad"))));
    }
    assert_eq!(ten.0.offer(view(&ten.1, 21), false, 4), Err(Idle::Empty));
    assert_eq!(ten.1.acks().floor(), Seq(20));
}

#[test]
fn numbers_that_were_wrong_once_are_never_right_again() {
    let mut ten = Ten::new();
    assert_eq!(ten.named(3), range(1, 10));
    assert_eq!(ten.acked(), range(1, 2));
    assert_eq!(ten.acked(), range(3, 3), "it is not bad");
    assert_eq!(ten.named(6), range(4, 10));
    assert_eq!(ten.named(6), range(4, 7), "bisected");
    assert_eq!(ten.named(4), range(4, 5));
    assert_eq!(ten.named(4), range(4, 4));
    assert!(!ten.0.believes_lists(false) && ten.0.believes_lists(true), "seqs are no numbers");
}

#[test]
fn a_list_counts_only_if_it_is_believed_and_is_one() {
    let list = |lines: &[u64], by_seq| {
        let rejected = |seq: &u64| Rejected { seq: Seq(*seq), reason: "it is bad".to_owned() };
        Verdict::DoneExcept { rejected: lines.iter().map(rejected).collect(), by_seq }
    };
    let failed = |kind| {
        let summary = "it is bad".to_owned();
        Verdict::Failed { kind, summary, tail: String::new(), timed_out: false }
    };
    let named = |seq| failed(FailureKind::BadLine(Seq(seq)));
    for (lines, of, believes_lists, verdict) in [
        (&[3, 5][..], range(1, 9), true, list(&[3, 5], false)),
        (&[3, 5], range(1, 9), false, named(3)),
        (&[], range(1, 9), false, Verdict::Done),
        (&[3], range(3, 3), true, named(3)),
        (&[5, 3], range(1, 9), true, failed(FailureKind::Poison)),
        (&[3, 3], range(1, 9), true, failed(FailureKind::Poison)),
        (&[3, 10], range(1, 9), true, failed(FailureKind::Poison)),
    ] {
        assert_eq!(
            list(lines, false).believed(of, &Own::default(), |_| believes_lists),
            verdict,
            "{lines:?} of {of}"
        );
    }
    assert_eq!(
        list(&[3], true).believed(range(3, 3), &Own::default(), |by_seq| by_seq),
        list(&[3], true),
        "named by its seq"
    );
    assert_eq!(list(&[3], true).believed(range(1, 9), &Own::default(), |_| false), named(3), "too many wait");
    assert_eq!(Verdict::Released.believed(range(1, 9), &Own::default(), |_| false), Verdict::Released);
}

/// An unordered group of 30 lines, with lines 1-10 leased as token 1.
fn leased_ten(strict: bool) -> Ten {
    let state = state();
    let settings = GroupSettings { strict, batch_lines: 10, ..GroupSettings::named("default") };
    let mut ten = Ten(Group::new(settings, &state), state);
    let Ten(group, state) = &mut ten;
    group.offer(view(state, 31), false, 1).unwrap();
    let (_, change) = group.lease(view(state, 31), 1, Seq(10), 1).unwrap();
    state.apply(&change);
    ten
}

impl Ten {
    fn some(&mut self, done: &[SeqRange]) -> Option<Vec<SeqRange>> {
        let (changes, left) = self.0.acked_some(view(&self.1, 31), 1, done)?;
        self.commit(&changes);
        Some(left)
    }
}

#[test]
fn parts_of_a_lease_are_acked_and_the_rest_stays_leased() {
    let mut ten = leased_ten(true);
    assert_eq!(ten.some(&[range(1, 4)]), Some(vec![range(5, 10)]));
    assert_eq!((ten.1.acks().floor(), ten.1.leases()), (Seq(4), &[range(5, 10)][..]));
    assert_eq!(
        ten.0.offer(view(&ten.1, 31), false, 2),
        Err(Idle::InFlight),
        "strict order waits for the rest"
    );
    assert_eq!(ten.some(&[range(1, 5)]), Some(vec![range(6, 10)]), "acked lines may be acked again");
    let lease = ten.0.take(1).unwrap();
    let changes = ten.0.released(lease);
    ten.commit(&changes);
    assert!(ten.1.leases().is_empty());
    assert_eq!(ten.0.offer(view(&ten.1, 31), false, 3).unwrap().range, range(6, 15));
}

#[test]
fn a_lease_whose_parts_are_all_acked_has_ended() {
    let mut ten = leased_ten(false);
    assert_eq!(ten.some(&[range(2, 3), range(7, 7)]), Some(vec![range(1, 1), range(4, 6), range(8, 10)]));
    assert_eq!(ten.1.leases(), [range(1, 1), range(4, 6), range(8, 10)]);
    assert_eq!(ten.some(&[range(1, 6)]), Some(vec![range(8, 10)]));
    assert_eq!(ten.some(&[range(1, 99)]), Some(vec![]));
    assert!(ten.1.leases().is_empty() && ten.0.take(1).is_none());
    assert_eq!(ten.some(&[range(1, 1)]), None, "stale");
    assert_eq!(ten.1.acks().floor(), Seq(10));
}

#[test]
fn of_a_lease_in_parts_only_one_part_has_failed() {
    let mut ten = leased_ten(false);
    ten.some(&[range(3, 3), range(6, 6)]).unwrap();
    let lease = ten.0.take(1).unwrap();
    let bad = (FailureKind::BadLine(Seq(5)), "it is bad");
    let changes = ten.0.failed(view(&ten.1, 31), lease, bad, &NONE_REJECTED);
    ten.commit(&changes);
    assert!(ten.1.leases().is_empty());
    // Of the part with the bad line: the line before it, and the bad one. The other parts are as they were.
    let mut offered = Vec::new();
    for token in 2..=5 {
        let offer = ten.0.offer(view(&ten.1, 31), false, token).unwrap();
        let (_, change) = ten.0.lease(view(&ten.1, 31), token, offer.range.last, token).unwrap();
        ten.commit(&[change]);
        let lease = ten.0.take(token).unwrap();
        let changes = ten.0.acked(lease, 0);
        ten.commit(&changes);
        offered.push(offer.range);
    }
    assert_eq!(offered, [range(4, 4), range(5, 5), range(1, 2), range(7, 16)]);
}

#[test]
fn a_lease_is_cut_into_a_bounded_number_of_parts() {
    let state = state();
    let settings = GroupSettings { strict: false, batch_lines: 1_000, ..GroupSettings::named("default") };
    let mut ten = Ten(Group::new(settings, &state), state);
    let Ten(group, state) = &mut ten;
    group.offer(view(state, 1_001), false, 1).unwrap();
    let (_, change) = group.lease(view(state, 1_001), 1, Seq(1_000), 1).unwrap();
    state.apply(&change);
    let every_other: Vec<SeqRange> = (1..=500).map(|half| SeqRange::one(Seq(2 * half))).collect();
    let before = ten.1.clone();
    assert_eq!(ten.some(&every_other), None);
    assert_eq!(ten.1, before, "nothing was changed");
    assert_eq!(ten.some(&every_other[..64]).map(|left| left.len()), None, "one too many");
    assert_eq!(ten.some(&every_other[..63]).map(|left| left.len()), Some(64));
}

#[test]
fn dropped_lines_end_a_lease_in_parts_as_a_whole() {
    let mut ten = leased_ten(false);
    ten.some(&[range(3, 4)]).unwrap();
    ten.1.apply(&GroupChange::Skip { range: range(1, 1), dropped: true });
    let changes = ten.0.dropped(range(1, 1), 0);
    assert_eq!(changes, [GroupChange::Return { range: range(5, 10), failed_for_ms: None }]);
    ten.commit(&changes);
    assert!(ten.1.leases().is_empty() && ten.0.take(1).is_none());
}

#[test]
fn lines_named_by_seq_become_dead_letters_at_once() {
    let mut ten = leased_ten(false);
    ten.some(&[range(4, 4)]).unwrap();
    let lease = ten.0.take(1).unwrap();
    let reason = |seq: u64| Rejected { seq: Seq(seq), reason: format!("line {seq} is bad") };
    let listed = Verdict::DoneExcept { rejected: vec![reason(2), reason(9)], by_seq: true };
    let Verdict::DoneExcept { rejected, .. } =
        listed.believed(lease.range, &lease.own, |by_seq| ten.0.believes_lists(by_seq))
    else {
        panic!("seqs are believed");
    };
    let changes = ten.0.acked_except(lease, rejected, 0);
    ten.commit(&changes);
    let acks = [range(1, 1), range(3, 3), range(5, 8), range(10, 10)].map(|range| GroupChange::Ack { range });
    assert_eq!(changes[2..], acks);
    assert_eq!(ten.dead_letter(), Some((2, "line 2 is bad".to_owned())));
    assert_eq!(ten.dead_letter(), Some((9, "line 9 is bad".to_owned())));
    assert_eq!((ten.1.acks().floor(), ten.1.leases().len()), (Seq(10), 0));
}
