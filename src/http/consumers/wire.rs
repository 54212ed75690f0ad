//! The JSON of the API. docs/openapi.json is made from these types.
#![cfg_attr(test, allow(missing_docs, reason = "derived code"))]

use serde::{Deserialize, Serialize};
use spillq_storage::{Seq, SeqRange};

use super::whole;
use crate::consumers::{GroupView, Seen, Settlement};
use crate::plain::harmless;
use crate::queue::{Counted, Rejected};
use crate::supervise::State;

/// A reason that a consumer gives is cut here, as the output of any processor is.
const REASON_BYTES_MAX: usize = 4 * 1024;

/// A request for lines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LeaseRequestJson {
    /// The name of the consumer: 1 to 64 of `A-Z a-z 0-9 . _ : @ -`.
    #[cfg_attr(test, schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:@-]+$"))]
    pub consumer: String,
    /// Lines at most; `batch.lines` of the group if it is less, or not given.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(minimum = 1))]
    pub max_lines: Option<u64>,
    /// Bytes of lines at most; `batch.bytes` of the group if it is less, or not given. A longer line comes alone.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(minimum = 1))]
    pub max_bytes: Option<u64>,
    /// How long to wait for lines, 20,000 if not given.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(minimum = 0, maximum = 60000))]
    pub wait_ms: Option<u64>,
    /// For how long to lease them; `timeout` of the group if not given.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(minimum = 100, maximum = 43200000))]
    pub lease_ms: Option<u64>,
    /// Names this request. While its lease is out, the same request of the same consumer gets the same lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:@-]+$"))]
    pub request: Option<String>,
}

/// What became of the lines of a lease: exactly one of `ack` (perhaps with `bad`), `bad`, `fail` and `release`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SettleJson {
    /// `Spillq-Epoch` of the lease. With `first` and `last`, so that an answer of 410 can say what is acked by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// `Spillq-First-Seq` of the lease.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// `Spillq-Last-Seq` of the lease.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// These lines are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckJson>,
    /// These lines are bad, in rising order: with `"ack": "all"` they become dead letters, and all others are acked. Without
    /// `ack` nothing is acked, and the batch is delivered again without the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(max_items = 256))]
    pub bad: Option<Vec<BadLineJson>>,
    /// The lines failed, and are delivered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FailJson>,
    /// `true`: the lines were not processed, and are delivered again at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<bool>,
}

/// Which lines are done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "ack is \"all\", {\"through\": SEQ} or {\"ranges\": [[FIRST, LAST], ...]}")]
pub enum AckJson {
    /// `"all"`.
    All(AllJson),
    /// All up to a line.
    Through(ThroughJson),
    /// Some ranges.
    Ranges(RangesJson),
}

/// All lines of the lease.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AllJson {
    /// The only word.
    All,
}

/// All lines of the lease up to one. The rest stays leased.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ThroughJson {
    /// The last line that is done.
    #[serde(deserialize_with = "whole::number")]
    pub through: u64,
}

/// Some lines of the lease. The rest stays leased. Not in a group in strict order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RangesJson {
    /// First and last line of each range, in rising order.
    #[serde(deserialize_with = "whole::pairs")]
    #[cfg_attr(test, schema(value_type = Vec<Pair>, min_items = 1, max_items = 1024))]
    pub ranges: Vec<[u64; 2]>,
}

/// The first and the last line of a range.
#[cfg(test)]
#[derive(utoipa::ToSchema)]
#[schema(min_items = 2, max_items = 2)]
pub(super) struct Pair(#[allow(dead_code, reason = "only its shape counts")] Vec<u64>);

/// A line that a consumer rejects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BadLineJson {
    /// Its seq.
    #[serde(deserialize_with = "whole::number")]
    pub seq: u64,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// A failure that blames no line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FailJson {
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// The destination asks for a pause of this length: no attempt is counted. The group's `retry.initial` and `retry.max` bound
    /// it. Without it the group backs off, as after any failure.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// A settlement that counted. It is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SettledJson {
    /// Lines acked by it.
    pub acked: u64,
    /// Lines of the lease that became dead letters.
    pub dead: u64,
    /// Lines of the lease that are delivered again: they failed, were released, or are not believed to be bad before something is
    /// acked.
    #[serde(default)]
    pub again: u64,
    /// Lines that stay leased: first and last of each range.
    #[cfg_attr(test, schema(value_type = Vec<Pair>))]
    pub left: Vec<[u64; 2]>,
    /// All lines of the group up to here are settled.
    pub ack_floor: u64,
    /// Always `true`: the answer comes after the sync.
    pub durable: bool,
}

/// A new deadline.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExtendJson {
    /// From now on; `timeout` of the group if not given.
    #[serde(default, deserialize_with = "whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(minimum = 100, maximum = 43200000))]
    pub lease_ms: Option<u64>,
}

/// A lease with a new deadline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ExtendedJson {
    /// The time until it expires.
    pub expires_ms: u64,
}

/// A consumer that has left.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LeftJson {
    /// Lines that it had leased.
    pub released: u64,
}

/// A group and its consumers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct GroupConsumersJson {
    /// Its name.
    pub group: String,
    /// What it is doing: `idle`, `running`, `retrying`, `refused`, `blocked`, `paused`.
    pub state: String,
    /// Lines that wait or are leased.
    pub lag_lines: u64,
    /// A group over some sources whose lines are still being counted: `lag_lines` has those of other sources too. Absent if
    /// not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counting: bool,
    /// Their bytes, estimated.
    pub lag_bytes: u64,
    /// All lines up to here are settled.
    pub ack_floor: u64,
    /// Lines that were rejected, and wait for a decision.
    pub dead_letters: u64,
    /// Why there are no lines to lease, as in `Spillq-Why`; absent if there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its consumers, most recently seen first; at most 64.
    pub consumers: Vec<ConsumerJson>,
    /// The leases that are out, oldest first.
    pub leases: Vec<HeldJson>,
}

/// A consumer, in this run of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ConsumerJson {
    /// Its name.
    pub name: String,
    /// How long ago it last asked or settled.
    pub seen_ms_ago: u64,
    /// Its requests for lines.
    pub asked: u64,
    /// The leases that it got.
    pub leased: u64,
    /// Its settlements that counted.
    pub settled: u64,
    /// Its leases that expired.
    pub expired: u64,
    /// Lines that it acked.
    pub acked_lines: u64,
}

/// A lease that is out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct HeldJson {
    /// The consumer that has it.
    pub consumer: String,
    /// Its first line.
    pub first: u64,
    /// Its last line.
    pub last: u64,
    /// Since when, in milliseconds.
    pub held_ms: u64,
    /// The time until it expires.
    pub expires_ms: u64,
}

impl SettleJson {
    /// What it says.
    ///
    /// # Errors
    /// Why it is not one settlement.
    pub(super) fn settlement(self) -> Result<Settlement, String> {
        let bad = self.bad.map(|bad| bad.into_iter().map(rejected).collect::<Vec<_>>());
        let released = match self.release {
            Some(false) => return Err("release is true or left out".to_owned()),
            release => release.is_some(),
        };
        let settlement = match (self.ack, bad, self.fail, released) {
            (Some(AckJson::All(AllJson::All)), bad, None, false) => Settlement::Done(bad.unwrap_or_default()),
            (Some(AckJson::Through(ThroughJson { through })), None, None, false) => {
                Settlement::Through(Seq(through))
            }
            (Some(AckJson::Ranges(RangesJson { ranges })), None, None, false) => {
                let range = |[first, last]: [u64; 2]| {
                    SeqRange::new(Seq(first), Seq(last)).ok_or(format!("the range {first}-{last} is empty"))
                };
                Settlement::Ranges(ranges.into_iter().map(range).collect::<Result<_, _>>()?)
            }
            (Some(_), Some(_), None, false) => {
                return Err("bad goes with \"ack\": \"all\", or alone".to_owned());
            }
            (None, Some(bad), None, false) => Settlement::Bad(bad),
            (None, None, Some(FailJson { reason, delay_ms }), false) => {
                Settlement::Failed { reason: reason_text(&reason), delay_ms }
            }
            (None, None, None, true) => Settlement::Released,
            (None, None, None, false) => {
                return Err("it says nothing of the lines: ack, bad, fail or release".to_owned());
            }
            _ => {
                return Err(
                    "it says several things of the lines: one of ack, bad, fail and release".to_owned()
                );
            }
        };
        Ok(settlement)
    }

    /// The lines that it is about, if it names them.
    pub(super) fn range(&self) -> Result<Option<SeqRange>, String> {
        match (self.first, self.last) {
            (None, None) => Ok(None),
            (Some(first), Some(last)) => {
                SeqRange::new(Seq(first), Seq(last)).map(Some).ok_or("first is behind last".to_owned())
            }
            _ => Err("first and last go together".to_owned()),
        }
    }
}

fn rejected(BadLineJson { seq, reason }: BadLineJson) -> Rejected {
    Rejected { seq: Seq(seq), reason: reason_text(&reason) }
}

/// A reason as it is logged and stored.
fn reason_text(reason: &str) -> String {
    match reason.trim() {
        "" => "the consumer gave no reason".to_owned(),
        reason => harmless(reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default()),
    }
}

fn pair(range: &SeqRange) -> [u64; 2] {
    [range.first.0, range.last.0]
}

/// Ranges as they are written.
pub(super) fn pairs(ranges: &[SeqRange]) -> Vec<[u64; 2]> {
    ranges.iter().map(pair).collect()
}

impl From<Counted> for SettledJson {
    fn from(Counted { acked, dead, again, left, ack_floor }: Counted) -> SettledJson {
        SettledJson { acked, dead, again, left: pairs(&left), ack_floor: ack_floor.0, durable: true }
    }
}

/// The consumers of a group, and the leases that are out.
pub(in crate::http) fn consumers_of(seen: Seen, now_ms: u64) -> (Vec<ConsumerJson>, Vec<HeldJson>) {
    let consumers = seen.consumers.into_iter().map(|one| ConsumerJson {
        name: one.name,
        seen_ms_ago: now_ms.saturating_sub(one.last_ms),
        asked: one.asked,
        leased: one.leased,
        settled: one.settled,
        expired: one.expired,
        acked_lines: one.acked_lines,
    });
    let leases = seen.held.into_iter().map(|held| HeldJson {
        consumer: held.consumer,
        first: held.range.first.0,
        last: held.range.last.0,
        held_ms: now_ms.saturating_sub(held.since_ms),
        expires_ms: held.until_ms.saturating_sub(now_ms),
    });
    (consumers.collect(), leases.collect())
}

impl From<GroupView> for GroupConsumersJson {
    fn from(GroupView { status, why, seen, now_ms }: GroupView) -> GroupConsumersJson {
        let (consumers, leases) = consumers_of(seen, now_ms);
        GroupConsumersJson {
            state: State::from(&status.phase).word().to_owned(),
            group: status.name,
            lag_lines: status.lag_lines,
            counting: status.is_counting,
            lag_bytes: status.lag_bytes,
            ack_floor: status.ack_floor.0,
            dead_letters: status.dead_letters,
            why: why.map(|why| why.to_string()),
            consumers,
            leases,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settlement(json: &str) -> Result<Settlement, String> {
        serde_json::from_str::<SettleJson>(json).map_err(|error| error.to_string())?.settlement()
    }

    #[test]
    fn a_request_is_one_settlement() {
        let bad = |reason: &str| vec![Rejected { seq: Seq(17), reason: reason.to_owned() }];
        let range = |first, last| SeqRange::new(Seq(first), Seq(last)).unwrap();
        for (json, expected) in [
            (r#"{"ack":"all"}"#, Settlement::Done(vec![])),
            (r#"{"ack":"all","bad":[{"seq":17,"reason":"no coin"}]}"#, Settlement::Done(bad("no coin"))),
            (r#"{"ack":{"through":500}}"#, Settlement::Through(Seq(500))),
            (r#"{"ack":{"ranges":[[1,40],[45,60]]}}"#, Settlement::Ranges(vec![range(1, 40), range(45, 60)])),
            (r#"{"bad":[{"seq":17}]}"#, Settlement::Bad(bad("the consumer gave no reason"))),
            (
                r#"{"fail":{"reason":"db down","delay_ms":5000},"epoch":"e","first":1,"last":2}"#,
                Settlement::Failed { reason: "db down".to_owned(), delay_ms: Some(5_000) },
            ),
            (r#"{"release":true}"#, Settlement::Released),
        ] {
            assert_eq!(settlement(json), Ok(expected), "{json}");
        }
        for json in [
            "{}",
            r#"{"ack":"some"}"#,
            r#"{"ack":"all","release":true}"#,
            r#"{"ack":{"through":5},"bad":[{"seq":1}]}"#,
            r#"{"ack":{"ranges":[[5,4]]}}"#,
            r#"{"fail":{},"release":true}"#,
            r#"{"release":false}"#,
            r#"{"ack":"all","more":1}"#,
            r#"{"ack":{"through":5,"more":1}}"#,
        ] {
            assert!(settlement(json).is_err(), "{json}: {:?}", settlement(json));
        }
    }

    #[test]
    fn reasons_are_bounded_and_harmless() {
        let long = format!("{{\"fail\":{{\"reason\":\"\\u001b[31mred{}\"}}}}", "ä".repeat(5_000));
        let Ok(Settlement::Failed { reason, .. }) = settlement(&long) else { panic!("{long}") };
        assert!(reason.starts_with("?[31mred") && reason.len() <= REASON_BYTES_MAX, "{reason}");
    }
}
