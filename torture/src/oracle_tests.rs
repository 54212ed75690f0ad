//! The judge passes a history that is right, and finds each fault that is put into it.
#![allow(clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

use super::*;

/// Two sources, two groups, two runs of the service with a kill between them: the second batch comes twice.
fn sound() -> History {
    let run = |seq, source, number, count| Run { seq, source, number, count };
    let batch = |begun_ns, end, attempt, runs: &[Run]| Delivery {
        begun_ns,
        pid: begun_ns as u32,
        first: runs[0].seq,
        last: runs[runs.len() - 1].seq + runs[runs.len() - 1].count - 1,
        attempt,
        runs: runs.to_vec(),
        answered: end,
        ..Delivery::default()
    };
    let seen = |at_ns, run, first_seq, next_seq, floor| Observation {
        at_ns,
        run,
        first_seq,
        next_seq,
        ack_floors: BTreeMap::from([("strict".to_owned(), floor), ("loose".to_owned(), 0)]),
        ..Observation::default()
    };
    let deliveries = vec![
        batch(10, Some((20, true)), 1, &[run(1, 0, 0, 10), run(11, 1, 0, 5)]),
        batch(30, None, 1, &[run(16, 0, 10, 5)]),
        batch(60, Some((61, true)), 2, &[run(16, 0, 10, 4)]),
        batch(62, Some((63, false)), 2, &[run(20, 0, 14, 1)]),
        batch(64, Some((65, true)), 3, &[run(20, 0, 14, 1)]),
    ];
    History {
        intents: BTreeMap::from([(0, 15), (1, 5)]),
        observed: vec![
            seen(25, 1, 1, 16, 15),
            seen(35, 1, 1, 21, 15),
            seen(55, 2, 4, 21, 15),
            seen(70, 2, 4, 21, 20),
        ],
        groups: vec![
            Group {
                name: "strict".to_owned(),
                strict: true,
                deliveries: deliveries.clone(),
                ..Group::default()
            },
            Group { name: "loose".to_owned(), deliveries, ..Group::default() },
        ],
        files_lose_lines: false,
    }
}

/// The fault must be found, as a breach of this invariant, and of no other but those named.
fn finds(invariants: &[&str], fault: impl Fn(&mut History)) {
    let mut history = sound();
    fault(&mut history);
    let broken = judge_end(&history, &["strict"]);
    assert!(broken.iter().any(|what| what.starts_with(invariants[0])), "{invariants:?}: {broken:?}");
    assert!(broken.iter().all(|what| invariants.iter().any(|one| what.starts_with(one))), "{broken:?}");
}

#[test]
fn a_sound_history_passes() {
    assert_eq!(judge_end(&sound(), &["strict", "loose"]), [""; 0]);
}

#[test]
fn what_was_answered_and_is_gone_is_found() {
    finds(&["I1"], |history| history.observed[2].next_seq = 20);
    finds(&["I1"], |history| {
        history.observed[2].ack_floors.insert("strict".to_owned(), 14);
    });
    finds(&["I1"], |history| {
        history.observed[3].ack_floors.remove("loose");
    });
    finds(&["I1"], |history| {
        history.intents.insert(1, 6);
    });
    finds(&["I1"], |history| history.groups[0].deliveries[4].answered = None);
}

#[test]
fn holes_and_lines_that_nobody_wrote_are_found() {
    // The first line of w1, which no group saw: what comes behind it has overtaken it.
    finds(&["I2", "I1", "I3"], |history| {
        for group in &mut history.groups {
            group.deliveries[0].runs[1] = Run { seq: 12, source: 1, number: 1, count: 4 };
        }
    });
    finds(&["I2", "I1"], |history| {
        history.intents.insert(0, 14);
    });
}

#[test]
fn a_seq_that_names_two_lines_and_seqs_that_do_not_rise_are_found() {
    finds(&["I3", "I4"], |history| history.groups[1].deliveries[2].runs[0].seq = 15);
    finds(&["I3"], |history| {
        for group in &mut history.groups {
            for delivery in &mut group.deliveries {
                for run in delivery.runs.iter_mut().filter(|run| run.source == 0 && run.number == 0) {
                    run.seq = 100;
                }
            }
        }
    });
    finds(&["I3"], |history| history.observed[2].run = 0);
}

#[test]
fn a_line_that_comes_twice_is_found() {
    finds(&["I4", "I3"], |history| {
        let again = Delivery {
            begun_ns: 68,
            runs: vec![Run { seq: 21, source: 0, number: 14, count: 1 }],
            first: 21,
            last: 21,
            answered: Some((69, true)),
            ..Delivery::default()
        };
        history.groups[0].deliveries.push(again);
    });
    finds(&["I4"], |history| {
        let mut again = history.groups[0].deliveries[4].clone();
        (again.begun_ns, again.answered) = (80, Some((81, true)));
        history.groups[0].deliveries.push(again);
    });
    finds(&["I4"], |history| history.groups[1].deliveries[1].complaints.push("I4 torn".to_owned()));
}

#[test]
fn two_live_leases_and_attempts_that_fall_are_found() {
    finds(&["I6"], |history| history.groups[0].deliveries[2].answered = Some((63, true)));
    finds(&["I6"], |history| history.groups[1].deliveries[3].answered = Some((65, false)));
    finds(&["I6"], |history| history.groups[0].deliveries[4].attempt = 1);
}

#[test]
fn a_line_that_is_overtaken_in_strict_order_is_found() {
    // Lines 16-19 failed, and line 20 comes.
    let overtakes = |history: &mut History, group: usize| {
        history.groups[group].deliveries[2].answered = Some((61, false));
    };
    finds(&["I3", "I1"], |history| overtakes(history, 0));
    let mut history = sound();
    overtakes(&mut history, 1);
    assert_eq!(judge(&history), [""; 0], "in an unordered group it may");
    // What fails behind it overtakes too.
    finds(&["I3", "I1"], |history| {
        let failed =
            Delivery { begun_ns: 9, answered: Some((10, false)), ..sound().groups[0].deliveries[4].clone() };
        history.groups[0].deliveries.insert(0, Delivery { attempt: 1, ..failed });
    });
}

/// As `sound`, but `strict` rejects line 16 alone, which becomes a dead letter; 17-19 come later.
fn with_a_dead_letter() -> History {
    let mut history = sound();
    let group = &mut history.groups[0];
    let alone = Run { count: 1, ..group.deliveries[1].runs[0] };
    let behind = Run { seq: 17, number: 11, count: 3, ..alone };
    let like = group.deliveries[2].clone();
    let rejected =
        Delivery { last: 16, runs: vec![alone], answered: Some((57, false)), begun_ns: 56, ..like.clone() };
    group.deliveries[2] = Delivery { first: 17, runs: vec![behind], ..like };
    group.deliveries.insert(2, rejected);
    group.dead.insert(16, 0);
    history
}

#[test]
fn a_dead_letter_is_passed_and_counts_as_done_and_a_line_that_is_none_does_not() {
    assert_eq!(judge_end(&with_a_dead_letter(), &["strict"]), [""; 0]);
    let mut history = with_a_dead_letter();
    history.groups[0].dead.clear();
    let broken = judge_end(&history, &["strict"]);
    assert!(
        broken.iter().any(|what| what.starts_with("I3") && what.contains("overtook line 16")),
        "{broken:?}"
    );
    assert!(broken.iter().any(|what| what.starts_with("I1")), "{broken:?}");
}

#[test]
fn a_dead_letter_that_is_passed_before_its_last_delivery_or_before_it_is_parked_is_found() {
    let overtakes = |history: &History| judge(history).iter().any(|what| what.contains("overtook line 16"));
    let mut parked = with_a_dead_letter();
    parked.groups[0].dead.insert(16, 60);
    assert!(!overtakes(&parked), "it was parked when 17-19 came");
    parked.groups[0].dead.insert(16, 61);
    assert!(overtakes(&parked), "it was parked later");
    let mut early = with_a_dead_letter();
    let again =
        Delivery { begun_ns: 68, answered: Some((69, false)), ..early.groups[0].deliveries[2].clone() };
    early.groups[0].deliveries.push(again);
    assert!(overtakes(&early), "it was tried once more after 17-19 had come");
}

#[test]
fn what_was_gone_and_comes_back_and_findings_are_found() {
    finds(&["I7"], |history| history.observed[3].first_seq = 1);
    finds(&["I9"], |history| history.observed[3].findings.push("odd".to_owned()));
}
