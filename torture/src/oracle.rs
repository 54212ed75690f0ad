//! The only judge: compares what was written, answered and delivered with the invariants.
//!
//! | | invariant | how it is judged |
//! |---|---|---|
//! | I1 | durable | what `status` answered, `next_seq` and ack floors, is never less afterwards; at the end every written line was delivered |
//! | I2 | no gap | no line is beyond what its writer intended to write; with the service dead those in the log follow one another; at the end they begin with 0 and have no gap |
//! | I3 | order | of each source seqs rise with the numbers; a seq names one line for ever, whichever group sees it; in strict order nothing overtakes: a delivery begins at or before the first line that is neither done nor a dead letter |
//! | I4 | once | a line has one seq; nothing comes again that an answered ack floor covers; no line of another run, no torn line |
//! | I5 | atomic | each line has the offset that it contains; with the service dead the checkpoint of a source is the end of its last line |
//! | I6 | leases | two receivers never have a line of a group at once; attempts of a line alone never fall |
//! | I7 | gone | the first seq never falls |
//! | I8 | bounded | memory, descriptors and the time of opening stay below their bounds |
//! | I9 | loud | without damage there is no finding and no loss; with damage there is one, and an exit status (see `damage`) |
//!
//! Everything here is a function of a history, and is shown to fail on histories that break it. A campaign gathers
//! the history, and judges after every fault.

use std::collections::BTreeMap;

use crate::notes::{Delivery, Run};

/// The status of the running service, or of a stopped store, at some time.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// When the answer was there.
    pub at_ns: u64,
    /// Which run of the service.
    pub run: u64,
    /// The oldest line.
    pub first_seq: u64,
    /// The next line's.
    pub next_seq: u64,
    /// Of each group.
    pub ack_floors: BTreeMap<String, u64>,
    /// Its findings.
    pub findings: Vec<String>,
}

/// A group under test.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its batches wait for each other.
    pub strict: bool,
    /// What its receivers noted, in order.
    pub deliveries: Vec<Delivery>,
    /// Its dead letters, and when each may be passed at the earliest: lines that an operator parked from then on, others from
    /// the last delivery that had them.
    pub dead: BTreeMap<u64, u64>,
}

/// Everything known of a load.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Lines that each source has written, or was about to.
    pub intents: BTreeMap<u32, u64>,
    /// In order of time.
    pub observed: Vec<Observation>,
    /// The groups whose receivers note.
    pub groups: Vec<Group>,
    /// Followed files may lose what was read of them: lines of a source may then come again with other seqs, which
    /// the campaign judges itself.
    pub files_lose_lines: bool,
}

/// Everything that breaks an invariant, each with its number in front. Holds at any time.
pub fn judge(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    observations(&history.observed, &mut broken);
    lines(history, false, &mut broken);
    for group in &history.groups {
        let complaints = group.deliveries.iter().flat_map(|delivery| &delivery.complaints);
        broken.extend(complaints.map(|what| format!("{what} (group {})", group.name)));
        acked_again(group, &history.observed, &mut broken);
        leases(group, &mut broken);
        if group.strict {
            overtaken(group, &mut broken);
        }
    }
    broken
}

/// What must also hold when the writers have ended and nothing waits any more: everything written was done by
/// each of the groups named, or is its dead letter.
pub fn judge_end(history: &History, groups: &[&str]) -> Vec<String> {
    let mut broken = judge(history);
    lines(history, true, &mut broken);
    for name in groups {
        let group = history.groups.iter().find(|group| group.name == *name);
        let done = group.iter().flat_map(|group| &group.deliveries);
        let done = done.filter(|delivery| delivery.answered.is_some_and(|(_, done)| done));
        let mut had: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for run in done.flat_map(|delivery| &delivery.runs) {
            had.entry(run.source).or_default().push((run.number, run.number + run.count));
        }
        for run in group.iter().flat_map(|group| &group.deliveries).flat_map(|delivery| &delivery.runs) {
            let dead = group.iter().flat_map(|group| group.dead.range(run.seq..run.seq + run.count));
            let numbers = dead.map(|(seq, _)| run.number + (seq - run.seq));
            had.entry(run.source).or_default().extend(numbers.map(|number| (number, number + 1)));
        }
        for (source, written) in &history.intents {
            let (covered, gap) = dense(had.remove(source).unwrap_or_default());
            if covered != *written || gap.is_some() {
                broken.push(format!(
                    "I1 group {name} did {covered} of the {written} lines of w{source} without a gap"
                ));
            }
        }
    }
    broken
}

fn observations(observed: &[Observation], broken: &mut Vec<String>) {
    for (before, after) in observed.iter().zip(observed.iter().skip(1)) {
        if after.next_seq < before.next_seq {
            broken.push(format!(
                "I1 next seq {} was answered, and then {} (run {})",
                before.next_seq, after.next_seq, after.run
            ));
        }
        if after.first_seq < before.first_seq {
            broken
                .push(format!("I7 line {} came back after first seq {}", after.first_seq, before.first_seq));
        }
        if after.run < before.run {
            broken.push(format!("I3 run {} came after run {}", after.run, before.run));
        }
        for (group, floor) in &before.ack_floors {
            let now = after.ack_floors.get(group).copied();
            if now.is_none_or(|now| now < *floor) {
                broken.push(format!(
                    "I1 group {group}: an ack up to {floor} was answered, and then {now:?} (run {})",
                    after.run
                ));
            }
        }
        if !after.findings.is_empty() && after.findings != before.findings {
            broken.push(format!("I9 findings without damage: {}", after.findings.join("; ")));
        }
    }
}

/// How far everything is covered, and the first gap.
fn dense(mut ranges: Vec<(u64, u64)>) -> (u64, Option<(u64, u64)>) {
    ranges.sort_unstable();
    let mut covered = 0;
    for (from, to) in ranges {
        if from > covered {
            return (covered, Some((covered, from)));
        }
        covered = covered.max(to);
    }
    (covered, None)
}

/// Judges the delivered lines. `at_the_end` is false while batches are in flight or notes were torn by a kill.
fn lines(history: &History, at_the_end: bool, broken: &mut Vec<String>) {
    let runs =
        || history.groups.iter().flat_map(|group| &group.deliveries).flat_map(|delivery| &delivery.runs);
    let mut by_seq: Vec<&Run> = runs().collect();
    by_seq.sort_unstable_by_key(|run| (run.seq, run.count));
    // If two runs of lines share seqs they must name the same lines. Sorted by seq, the one that reaches furthest is enough
    // to compare with: those before it were compared with it.
    let mut furthest: Option<&Run> = None;
    for run in by_seq {
        if let Some(other) = furthest.filter(|other| run.seq < other.seq + other.count)
            && (other.source, other.number + (run.seq - other.seq)) != (run.source, run.number)
        {
            broken.push(format!(
                "I3 seq {} is line {} of w{} and line {} of w{}",
                run.seq,
                run.number,
                run.source,
                other.number + (run.seq - other.seq),
                other.source
            ));
        }
        if furthest.is_none_or(|other| run.seq + run.count > other.seq + other.count) {
            furthest = Some(run);
        }
    }
    let mut by_source: BTreeMap<u32, Vec<&Run>> = BTreeMap::new();
    for run in runs() {
        by_source.entry(run.source).or_default().push(run);
    }
    for (source, mut runs) in by_source {
        runs.sort_unstable_by_key(|run| (run.number, run.seq, run.count));
        if history.files_lose_lines {
            continue;
        }
        if at_the_end {
            gaps(source, &runs, broken);
        } else {
            one_source(source, &runs, history.intents.get(&source).copied().unwrap_or_default(), broken);
        }
    }
}

/// Numbers of one source that no group saw, its runs being sorted by number.
fn gaps(source: u32, runs: &[&Run], broken: &mut Vec<String>) {
    let mut next = 0;
    for run in runs {
        if run.number > next {
            broken.push(format!("I2 lines {next}..{} of w{source} are missing", run.number));
        }
        next = next.max(run.number + run.count);
    }
}

/// The runs of one source, by number: seqs rise, and a line has one.
fn one_source(source: u32, runs: &[&Run], intent: u64, broken: &mut Vec<String>) {
    // Behind the last line so far: its number and seq, each plus one.
    let mut last = (0, 0);
    for run in runs {
        let (number, seq) = last;
        if run.number >= number && run.seq < seq {
            let line = run.number;
            broken.push(format!(
                "I3 line {line} of w{source} has seq {}, and one before it {}",
                run.seq,
                seq - 1
            ));
        } else if run.number < number && run.seq + (number - run.number) != seq {
            let (line, other) = (run.number, (seq + run.number).saturating_sub(number));
            broken.push(format!("I4 line {line} of w{source} has seq {} and seq {other}", run.seq));
        }
        if run.number + run.count > number {
            last = (run.number + run.count, run.seq + run.count);
        }
    }
    if last.0 > intent {
        broken.push(format!("I2 w{source} has line {}, but only {intent} were intended", last.0 - 1));
    }
}

/// Batches that begin after an ack of their lines was answered.
fn acked_again(group: &Group, observed: &[Observation], broken: &mut Vec<String>) {
    for delivery in &group.deliveries {
        let before = observed.partition_point(|seen| seen.at_ns < delivery.begun_ns);
        let seen = observed.get(..before).and_then(<[_]>::last);
        let floor = seen.and_then(|seen| seen.ack_floors.get(&group.name)).copied().unwrap_or_default();
        if !delivery.runs.is_empty() && delivery.first <= floor {
            broken.push(format!(
                "I4 group {}: lines {}-{} came again, but all up to {floor} had been acked",
                group.name, delivery.first, delivery.last
            ));
        }
    }
}

fn leases(group: &Group, broken: &mut Vec<String>) {
    let mut alone: BTreeMap<u64, u32> = BTreeMap::new();
    let mut out: Vec<&Delivery> = Vec::new();
    for delivery in &group.deliveries {
        out.retain(|other| other.answered.is_some_and(|(at, _)| at > delivery.begun_ns));
        for other in &out {
            let apart = other.last < delivery.first || delivery.last < other.first;
            if group.strict || !apart {
                broken.push(format!(
                    "I6 group {}: lines {}-{} were in flight when lines {}-{} came",
                    group.name, other.first, other.last, delivery.first, delivery.last
                ));
            }
        }
        out.push(delivery);
        if delivery.first == delivery.last {
            let before = alone.insert(delivery.first, delivery.attempt).unwrap_or_default();
            if delivery.attempt < before {
                broken.push(format!(
                    "I6 group {}: line {} alone came as attempt {}, after attempt {before}",
                    group.name, delivery.first, delivery.attempt
                ));
            }
        }
    }
}

/// Deliveries of a strict group that begin after a line that is neither done nor dead.
fn overtaken(group: &Group, broken: &mut Vec<String>) {
    let mut deliveries: Vec<&Delivery> = group.deliveries.iter().filter(|one| !one.runs.is_empty()).collect();
    deliveries.sort_by_key(|delivery| delivery.begun_ns);
    // A dead letter may be passed after the last delivery that had it.
    let mut dead = group.dead.clone();
    for delivery in &deliveries {
        for run in &delivery.runs {
            for (_, since) in dead.range_mut(run.seq..run.seq + run.count) {
                *since = (*since).max(delivery.begun_ns + 1);
            }
        }
    }
    // Up to here all lines are done or dead; after it there are stretches of lines that are done.
    let (mut first, mut done) = (1, BTreeMap::<u64, u64>::new());
    for delivery in deliveries {
        loop {
            if dead.get(&first).is_some_and(|since| *since <= delivery.begun_ns) {
                first += 1;
            } else if let Some((_, end)) = done.range(..=first).next_back().filter(|(_, end)| **end > first) {
                first = *end;
            } else {
                break;
            }
        }
        if delivery.first > first {
            broken.push(format!(
                "I3 group {}: lines {}-{} overtook line {first}",
                group.name, delivery.first, delivery.last
            ));
        }
        if delivery.answered.is_some_and(|(_, done)| done) {
            for run in &delivery.runs {
                let end = done.entry(run.seq).or_default();
                *end = (*end).max(run.seq + run.count);
            }
        }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
