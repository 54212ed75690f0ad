//! The verdict on a group that cannot continue by itself: one for each reason. Pure.

use super::cause::Cause;
use super::held::held;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::words::see_to_dead_letters;
use crate::queue::{Blocked, Phase};

/// The first row of the table in docs/explanation/supervision.md.
pub(super) fn blocked(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Blocked(why) = &i.phase else { return None };
    let oldest = i.oldest.unwrap_or(i.ack_floor.next());
    Some(match why {
        Blocked::Damage(_) => {
            let summary = format!("group {} is blocked at a damaged block: {why}", i.group);
            let repair = s.typed.spillq("repair", "--dry-run    # with the service stopped");
            let skip = s.typed.change("set `on_damage = \"skip\"` in [disk] to pass over such blocks");
            let step = Step::from(repair).or(skip);
            Verdict::ill(i, State::Blocked, (None, Cause::Damage), summary, step)
        }
        Blocked::DiskError(_) => {
            let summary = format!("group {} is blocked at lines that the disk cannot read: {why}", i.group);
            let verify = s.typed.spillq(
                "verify",
                "   # with the service stopped: what else cannot be read; when the disk works again, start the service",
            );
            Verdict::ill(i, State::Blocked, (None, Cause::Damage), summary, verify)
        }
        Blocked::AckWindow => {
            let summary = format!(
                "group {} does not clear: 4,096 ranges of acks lie above line {oldest}, which blocks the ack floor",
                i.group
            );
            let next = s.typed.inspect(oldest);
            Verdict::ill(i, State::Blocked, (Some("D"), Cause::NotClearing), summary, next)
        }
        Blocked::DeadLettersFull => {
            let summary = format!("group {} is blocked: {why}", i.group);
            let step = see_to_dead_letters(i, s);
            Verdict::ill(i, State::Blocked, (None, Cause::DeadLettersFull), summary, step)
        }
        Blocked::HeldBy(_) => return held(i, now, s),
    })
}
