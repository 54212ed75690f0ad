//! The rules one by one, on the parts of one group. `model_test.rs` tests them together.

use super::failed::Failed;
use super::*;
use crate::queue::failure::FailureKind;

const SETTINGS: RetrySettings = RetrySettings {
    initial_ms: 200,
    max_ms: 30_000,
    attempts: 8,
    rejects: 100,
    give_up_after_ms: 600_000,
    stuck: Stuck::Hold,
};
const NEW: Remembered = Remembered { failures: 0, for_ms: 0, exceeds_rejects: false };

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn one(seq: u64) -> SeqRange {
    SeqRange::one(Seq(seq))
}

/// The next delivery, at the time at which it is due.
fn next(retries: &mut Retries, now_ms: &mut u64) -> Option<SeqRange> {
    loop {
        match retries.next(*now_ms) {
            Next::Deliver(range) => {
                retries.begin(range);
                return Some(range);
            }
            Next::Wait(until) => *now_ms = until,
            Next::Held(_) | Next::Nothing => return None,
        }
    }
}

fn strict() -> Retries {
    Retries::new(SETTINGS, true)
}

/// Deliveries of a batch of 1,000 lines to a destination that is down until `until_ms`: when each was, and of which lines.
fn outage(until_ms: u64) -> Vec<(u64, SeqRange)> {
    let (mut retries, mut now_ms, mut deliveries) = (strict(), 0, Vec::new());
    let mut batch = Some(range(1, 1_000));
    while let Some(lines) = batch {
        deliveries.push((now_ms, lines));
        if now_ms < until_ms {
            let failed = retries.failed(lines, FailureKind::Failed, now_ms, NEW);
            assert_eq!(failed.condemned, None, "an outage condemns no line");
        } else {
            retries.settled(lines, true, now_ms);
        }
        batch = next(&mut retries, &mut now_ms);
    }
    assert!(retries.is_empty());
    deliveries
}

/// Under earlier rules each back-off had some twelve deliveries, and among them a line from further behind.
#[test]
fn an_outage_costs_one_delivery_per_back_off_and_nothing_overtakes() {
    let deliveries = outage(25_000);
    let (failed, acked): (Vec<_>, Vec<_>) = deliveries.iter().partition(|(at, _)| *at < 25_000);
    let times: Vec<u64> = failed.iter().map(|(at, _)| *at).collect();
    assert_eq!(
        times,
        [0, 200, 600, 1_400, 3_000, 6_200, 12_600],
        "doubling, whatever part of the batch it is"
    );
    assert!(failed.iter().all(|(_, lines)| lines.first == Seq(1)), "{failed:?}");
    let mut expected = Seq(1);
    for (_, lines) in &acked {
        assert_eq!(lines.first, expected, "{acked:?}");
        expected = lines.last.next();
    }
    assert_eq!(expected, Seq(1_001));
}

#[test]
fn a_batch_is_bisected_once_down_to_its_first_line_and_whole_batches_continue_after_it() {
    let deliveries = outage(3_600_000);
    let bisected: Vec<u64> = deliveries.iter().map(|(_, lines)| lines.lines()).take(13).collect();
    assert_eq!(bisected, [1_000, 1_000, 500, 250, 125, 63, 32, 16, 8, 4, 2, 1, 1]);
    let last: Vec<SeqRange> = deliveries.iter().map(|(_, lines)| *lines).rev().take(2).collect();
    assert_eq!(last, [range(2, 1_000), one(1)], "what was bisected is one batch again");
    let waits: Vec<u64> = deliveries.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(waits.iter().rev().skip(1).take(50).all(|wait| *wait == SETTINGS.max_ms), "{waits:?}");
}

#[test]
fn a_line_that_fails_alone_twice_holds_a_strict_group_and_never_becomes_a_dead_letter() {
    let (mut retries, mut now_ms) = (strict(), 0);
    retries.failed(one(7), FailureKind::Failed, now_ms, NEW);
    assert_eq!(retries.held(), None, "one failure may be an accident");
    for failures in 1..1_000 {
        assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)));
        let line = Remembered { failures, ..NEW };
        assert_eq!(retries.failed(one(7), FailureKind::Failed, now_ms, line).condemned, None);
        assert_eq!(retries.held(), Some(Seq(7)));
        assert_eq!(retries.is_exhausted(), failures + 1 >= SETTINGS.attempts, "{failures}");
    }
    retries.settled(one(7), true, now_ms);
    assert_eq!(retries.held(), None);
}

#[test]
fn with_stuck_dead_letter_a_line_is_given_up_on_after_attempts_and_time() {
    let settings = RetrySettings { stuck: Stuck::DeadLetter, ..SETTINGS };
    for strict in [true, false] {
        let (mut retries, mut now_ms, mut times) = (Retries::new(settings, strict), 5_000, 0);
        let mut line = NEW;
        let condemned = loop {
            let failed = retries.failed(one(7), FailureKind::Failed, now_ms, line);
            times += 1;
            line = Remembered { failures: times, for_ms: failed.charged_ms.unwrap(), ..NEW };
            if let Some(seq) = failed.condemned {
                break seq;
            }
            assert!(next(&mut retries, &mut now_ms).is_some());
        };
        assert_eq!((condemned, retries.condemned()), (Seq(7), Some((Seq(7), DeadCause::Failed))));
        let took = now_ms - 5_000;
        assert!((600_000..600_000 + SETTINGS.max_ms).contains(&took), "{took} ms");
        assert_eq!(line.for_ms, took);
    }
}

#[test]
fn the_duration_of_failing_is_remembered_over_a_restart() {
    let settings = RetrySettings { stuck: Stuck::DeadLetter, ..SETTINGS };
    let mut retries = Retries::new(settings, true);
    retries.add_line(Seq(7), 20, 0);
    let mut now_ms = 3;
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)), "alone, as before");
    let failed = retries.failed(
        one(7),
        FailureKind::Failed,
        now_ms,
        Remembered { failures: 20, for_ms: 599_000, ..NEW },
    );
    assert_eq!(
        failed,
        Failed { charged_ms: Some(599_000), condemned: None },
        "the time between two runs does not count"
    );
    assert_eq!(retries.held(), Some(Seq(7)));
    next(&mut retries, &mut now_ms);
    let line = Remembered { failures: 21, for_ms: 599_000, ..NEW };
    let failed = retries.failed(one(7), FailureKind::Failed, 1_003, line);
    assert_eq!(failed, Failed { charged_ms: Some(600_000), condemned: Some(Seq(7)) });
}

#[test]
fn in_an_unordered_group_a_line_is_a_dead_letter_after_attempts_if_another_was_acked_since_the_first() {
    for other_is_acked in [true, false] {
        let (mut retries, mut now_ms) = (Retries::new(SETTINGS, false), 0);
        let mut condemned = None;
        for failures in 0..50 {
            let line = Remembered { failures, ..NEW };
            condemned = retries
                .failed(one(7), FailureKind::Failed, now_ms, line)
                .condemned
                .map(|seq| (seq, failures));
            if condemned.is_some() {
                break;
            }
            if failures == 0 && other_is_acked {
                retries.settled(range(8, 20), true, now_ms);
            }
            assert!(next(&mut retries, &mut now_ms).is_some());
        }
        assert_eq!(condemned, other_is_acked.then_some((Seq(7), SETTINGS.attempts - 1)));
    }
}

#[test]
fn in_an_unordered_group_fresh_lines_wait_while_every_batch_fails() {
    let (mut retries, mut now_ms, mut batches) = (Retries::new(SETTINGS, false), 0, 0);
    while now_ms < 60_000 {
        retries.failed(range(batches * 10 + 1, batches * 10 + 10), FailureKind::Failed, now_ms, NEW);
        batches += 1;
        now_ms = retries.fresh_waits(now_ms).expect("they wait");
    }
    assert_eq!(batches, 9, "not one after the other, until all of the log is in parts");
    retries.settled(range(1, 10), true, now_ms);
    assert_eq!(retries.fresh_waits(now_ms), None);
}

#[test]
fn the_pause_that_a_destination_asks_for_is_bounded() {
    for (asked, waits) in
        [(0, SETTINGS.initial_ms), (SETTINGS.max_ms / 2, SETTINGS.max_ms / 2), (u64::MAX, SETTINGS.max_ms)]
    {
        let mut retries = strict();
        let failed = retries.failed(range(1, 9), FailureKind::Later(asked), 1_000, NEW);
        assert_eq!(failed, Failed::default(), "nothing is charged");
        assert_eq!(retries.next(1_000 + waits - 1), Next::Wait(1_000 + waits), "{asked}");
        assert_eq!(retries.next(1_000 + waits), Next::Deliver(range(1, 9)), "{asked}");
    }
}

#[test]
fn the_first_named_line_is_delivered_alone_once_more_and_later_ones_are_believed() {
    let (mut retries, mut now_ms) = (strict(), 0);
    assert_eq!(retries.failed(range(1, 9), FailureKind::BadLine(Seq(5)), 0, NEW).condemned, None);
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(1, 4)), "the lines before it");
    retries.settled(range(1, 4), true, 0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(5)), "alone, to check whether the number is right");
    assert_eq!(retries.failed(one(5), FailureKind::BadLine(Seq(5)), 0, NEW).condemned, Some(Seq(5)));
    assert_eq!(retries.condemned(), Some((Seq(5), DeadCause::Rejected)));
    retries.settled(one(5), false, 0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(6, 9)), "and the lines after it");
    retries.settled(range(6, 9), true, 0);

    let failed = retries.failed(range(10, 19), FailureKind::BadLine(Seq(12)), 0, NEW);
    assert_eq!((failed.condemned, retries.condemned()), (Some(Seq(12)), None), "after the lines before it");
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(10, 11)));
    retries.settled(range(10, 11), true, 0);
    assert_eq!(retries.condemned(), Some((Seq(12), DeadCause::Rejected)), "it is not delivered again");
    retries.settled(one(12), false, 0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(13, 19)));
    assert_eq!(now_ms, 0, "a rejection is no reason to back off");
}

#[test]
fn numbers_that_were_wrong_once_are_ignored_and_do_not_cost_a_delivery_per_line() {
    let (mut retries, mut now_ms, mut deliveries) = (strict(), 0, 1);
    retries.failed(range(1, 4_000), FailureKind::BadLine(Seq(1)), 0, NEW);
    let mut dead = Vec::new();
    // Line 4,000 is bad, and each time the first line of the batch is named.
    while let Some(lines) = next(&mut retries, &mut now_ms) {
        deliveries += 1;
        if lines.contains(Seq(4_000)) {
            retries.failed(lines, FailureKind::BadLine(lines.first), 0, NEW);
        } else {
            retries.settled(lines, true, 0);
        }
        if let Some((seq, _)) = retries.condemned() {
            dead.push(seq);
            retries.settled(SeqRange::one(seq), false, 0);
        }
    }
    assert_eq!(dead, [Seq(4_000)]);
    assert!(deliveries < 30, "{deliveries} deliveries");
    assert_eq!(now_ms, 0);
}

#[test]
fn blame_without_a_number_bisects_at_once_down_to_the_line() {
    for kind in [FailureKind::Poison, FailureKind::TooLarge] {
        let (mut retries, mut now_ms, mut deliveries) = (strict(), 0, 1);
        let mut dead = Vec::new();
        retries.failed(range(1, 1_000), kind, 0, NEW);
        while let Some(lines) = next(&mut retries, &mut now_ms) {
            deliveries += 1;
            match lines.contains(Seq(700)) {
                true => drop(retries.failed(lines, kind, 0, NEW)),
                false => retries.settled(lines, true, 0),
            }
            if let Some((seq, cause)) = retries.condemned() {
                dead.push((seq, cause));
                retries.settled(SeqRange::one(seq), false, 0);
            }
        }
        assert_eq!(dead, [(Seq(700), DeadCause::Rejected)]);
        assert!(deliveries <= 23, "{deliveries} deliveries");
        assert_eq!(now_ms, 0, "without a back-off");
    }
}

#[test]
fn when_every_line_is_rejected_the_first_one_waits_and_is_not_charged() {
    let (mut retries, mut now_ms) = (strict(), 0);
    let exceeds = Remembered { exceeds_rejects: true, ..NEW };
    assert_eq!(
        retries.failed(one(7), FailureKind::Poison, 0, exceeds).condemned,
        None,
        "it is delivered once more"
    );
    for round in 1..=20 {
        assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)));
        assert_eq!(retries.failed(one(7), FailureKind::Poison, now_ms, exceeds), Failed::default());
        assert_eq!(
            retries.group_wait(),
            Some((now_ms + SETTINGS.max_ms, GroupWait::EveryLineRejected(Seq(7))))
        );
        assert_eq!(retries.is_exhausted(), round >= SETTINGS.attempts);
    }
    // The command was fixed.
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)));
    retries.settled(one(7), true, now_ms);
    assert_eq!(
        (retries.group_wait(), retries.is_empty(), retries.rejects_max()),
        (None, true, SETTINGS.rejects)
    );
}

#[test]
fn one_rejected_line_is_enough_until_lines_were_acked_in_this_run() {
    let mut retries = strict();
    assert_eq!(retries.rejects_max(), 1);
    retries.settled(one(1), false, 0);
    assert_eq!(retries.rejects_max(), 1, "a dead letter is not an ack");
    retries.settled(one(2), true, 0);
    assert_eq!(retries.rejects_max(), 100);
}

#[test]
fn a_revived_line_is_a_dead_letter_again_at_its_first_failure() {
    for kind in [FailureKind::Failed, FailureKind::Down, FailureKind::Poison, FailureKind::TooLarge] {
        let (mut retries, mut now_ms) = (strict(), 0);
        retries.failed(range(11, 20), FailureKind::Failed, 0, NEW);
        retries.revive(Seq(5), 0);
        assert_eq!(retries.next(now_ms), Next::Deliver(one(5)));
        retries.begin(one(5));
        assert_eq!(retries.failed(one(5), kind, 0, NEW).condemned, Some(Seq(5)), "{kind:?}");
        assert!(retries.condemned().is_some());
        retries.settled(one(5), false, 0);
        assert_eq!(next(&mut retries, &mut now_ms), Some(range(11, 20)), "it holds no other line");
    }
}

#[test]
fn a_line_that_killed_the_process_too_often_is_held_until_an_operator_acts() {
    let (mut retries, mut now_ms) = (strict(), 0);
    retries.add_line(Seq(7), 0, SETTINGS.attempts - 1);
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)), "not yet");

    let mut retries = strict();
    retries.add_suspect(range(6, 8));
    retries.add_line(Seq(7), 0, SETTINGS.attempts);
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(6)), "the lines before it");
    retries.settled(one(6), true, 0);
    assert_eq!((retries.next(0), retries.held()), (Next::Held(Seq(7)), Some(Seq(7))));
    assert_eq!(retries.killers().collect::<Vec<_>>(), [Seq(7)]);
    assert!(retries.is_exhausted(), "a run that ends by itself does not wait for it");
    retries.retry_now(0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)), "once more");

    let mut retries = Retries::new(RetrySettings { stuck: Stuck::DeadLetter, ..SETTINGS }, true);
    retries.add_line(Seq(7), 0, SETTINGS.attempts);
    assert_eq!(retries.condemned(), Some((Seq(7), DeadCause::Died)));

    let mut retries = Retries::new(SETTINGS, false);
    retries.add_line(Seq(7), 0, SETTINGS.attempts);
    retries.add_untried(range(8, 9));
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(8, 9)), "without order others continue");
}

#[test]
fn an_operator_can_skip_a_back_off() {
    let mut retries = strict();
    for times in 0..12 {
        retries.failed(one(7), FailureKind::Failed, 0, Remembered { failures: times, ..NEW });
    }
    assert_eq!(retries.next(1_000), Next::Wait(SETTINGS.max_ms));
    retries.retry_now(1_000);
    assert_eq!(retries.next(1_000), Next::Deliver(one(7)));
    retries.failed(range(8, 9), FailureKind::Refused, 1_000, NEW);
    retries.retry_now(2_000);
    assert_eq!(retries.next(2_000), Next::Deliver(one(7)), "of a refusal too");
}

/// An exec-stream counted its header, and so named line 6 instead of 5. Line 6 was bad as well, so the numbers were believed,
/// and line 12 became a dead letter instead of 11.
#[test]
fn a_number_is_proven_only_by_an_answer_that_names_the_line_again() {
    let (mut retries, mut now_ms) = (strict(), 0);
    retries.failed(range(1, 20), FailureKind::BadLine(Seq(6)), 0, NEW);
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(1, 5)));
    retries.settled(range(1, 5), true, 0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(one(6)));
    assert_eq!(retries.failed(one(6), FailureKind::Poison, 0, NEW).condemned, Some(Seq(6)), "it is rejected");
    retries.settled(one(6), false, 0);
    assert_eq!(next(&mut retries, &mut now_ms), Some(range(7, 20)));
    let failed = retries.failed(range(7, 20), FailureKind::BadLine(Seq(12)), 0, NEW);
    assert_eq!(failed.condemned, None, "the next number is checked as well");
}

#[test]
fn in_an_unordered_group_an_ack_counts_for_a_line_that_is_in_flight_again() {
    let (mut retries, mut now_ms) = (Retries::new(SETTINGS, false), 0);
    for failures in 0..SETTINGS.attempts {
        if failures > 0 {
            assert_eq!(next(&mut retries, &mut now_ms), Some(one(7)));
            retries.settled(one(100 + u64::from(failures)), true, now_ms);
        }
        let failed = retries.failed(one(7), FailureKind::Failed, now_ms, Remembered { failures, ..NEW });
        assert_eq!(failed.condemned.is_some(), failures + 1 == SETTINGS.attempts, "{failures}");
    }
}

/// `status` once reported that lines behind a held line were retried at once, and `doctor` that the group works.
#[test]
fn in_strict_order_the_first_line_is_next() {
    let (mut retries, mut now_ms) = (strict(), 0);
    let mut lines = range(1, 4);
    for _ in 0..8 {
        retries.failed(lines, FailureKind::Failed, now_ms, NEW);
        lines = next(&mut retries, &mut now_ms).unwrap();
    }
    retries.failed(lines, FailureKind::Failed, now_ms, NEW);
    let (range, until) = retries.waiting().unwrap();
    assert!(range == one(1) && until > now_ms, "{range} at {until}, now {now_ms}");
}
