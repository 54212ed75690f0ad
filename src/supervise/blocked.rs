//! The verdict on a group that cannot continue by itself, for each reason. Pure.

use super::cause::Cause;
use super::held::held;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::see_to_dead_letters;
use crate::plain::counted;
use crate::queue::{Blocked, Phase};

/// The first rows of the table in docs/explanation/supervision.md.
pub(super) fn blocked(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Blocked(why) = &i.phase else { return None };
    let oldest = i.oldest.unwrap_or(i.ack_floor.next());
    Some(match why {
        Blocked::Damage(what) => {
            let summary = format!("group {} is blocked at a damaged block: {what}", i.group);
            let repair = s.commands.spillq("repair", "--dry-run    # with the service stopped");
            let skip = s.commands.change("set `on_damage = \"skip\"` in [disk] to skip such blocks");
            let step = Step::from(repair).or(skip);
            Verdict::unhealthy(i, State::Blocked, (None, Cause::Damage), summary, step)
        }
        Blocked::DiskError(what) => {
            let summary = format!("group {} is blocked at lines that the disk cannot read: {what}", i.group);
            let verify = s.commands.spillq(
                "verify",
                "   # with the service stopped: lists what else cannot be read; start the service when the disk works again",
            );
            Verdict::unhealthy(i, State::Blocked, (None, Cause::Damage), summary, verify)
        }
        Blocked::AckWindow => {
            let summary = format!(
                "group {} does not clear: it has 4,096 ranges of acks above line {oldest}, which blocks the ack floor",
                i.group
            );
            let next = s.commands.inspect(oldest);
            Verdict::unhealthy(i, State::Blocked, (Some("D"), Cause::NotClearing), summary, next)
        }
        Blocked::DeadLettersFull => {
            let letters = counted(i.dead_letters, "dead letter");
            let summary = format!(
                "group {} is blocked: dead letters full ({letters}), and another line is to become one",
                i.group
            );
            let step = see_to_dead_letters(i, s);
            Verdict::unhealthy(i, State::Blocked, (None, Cause::DeadLettersFull), summary, step)
        }
        Blocked::HeldBy(_) => return held(i, now, s),
    })
}
