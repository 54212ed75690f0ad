//! The leases that are out and the consumers that were seen. Pure: `now` is an argument, in milliseconds by the clock for
//! deadlines.
//!
//! Bounds: as many leases as groups have in flight, [`CONSUMERS_MAX`] consumers a group, [`ENDED_MAX`] ended leases.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use spillq_storage::{GroupId, SeqRange};

use super::token::LeaseToken;
use super::view::{ConsumerView, ExpiredView, HeldView, Seen};
use crate::queue::Own;

/// Consumers of a group that are remembered; the one that was seen least recently goes first.
const CONSUMERS_MAX: usize = 64;
/// Ended leases whose end is remembered, to tell an expired token from a settled one.
const ENDED_MAX: usize = 4_096;

/// A lease that is out.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) group: GroupId,
    /// Its token at the owner.
    pub(super) lease: u64,
    pub(super) range: SeqRange,
    /// Those that are its group's own.
    pub(super) own: Own,
    pub(super) left: Vec<SeqRange>,
    pub(super) attempt: u32,
    pub(super) consumer: String,
    pub(super) since_ms: u64,
    pub(super) until_ms: u64,
    /// The connection with which it ends.
    pub(super) connection: Option<u64>,
    /// Settlements that were received and not answered yet. It does not expire meanwhile.
    pub(super) settling: u32,
}

/// Why a token counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its time was up: the lines are delivered again.
    Expired,
    /// All of its lines were settled.
    Settled,
    /// The service gave it out in an earlier run.
    Restarted,
    /// An operator moved the group, or its lines were dropped.
    Revoked,
    /// Its connection or its consumer left.
    Left,
    /// It was never given out, or ended long ago.
    Unknown,
}

/// What is known of one consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    last_ms: u64,
    /// Rising: who was seen last, within a millisecond too.
    order: u64,
    asked: u64,
    leased: u64,
    settled: u64,
    expired: u64,
    acked_lines: u64,
    /// The last request with a name: when it came, as a number of requests, and the lease that it got.
    request: Option<(String, u64, Option<LeaseToken>)>,
}

/// The consumers of one group.
#[derive(Debug, Default)]
struct GroupTable {
    /// The last number of [`Known::order`].
    order: u64,
    consumers: BTreeMap<String, Known>,
    expired_in_a_row: u64,
    last_expired: Option<ExpiredView>,
    leased: u64,
    settled: u64,
    expired: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    groups: BTreeMap<GroupId, GroupTable>,
    leases: HashMap<LeaseToken, Held>,
    /// The connections that leases may end with.
    connections: HashSet<u64>,
    ended: HashMap<LeaseToken, (Gone, GroupId)>,
    ended_order: VecDeque<LeaseToken>,
}

/// What a repeated request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    /// It is not a repetition, and the request of this number.
    No(u64),
    /// The lease of the first time, which is still out.
    Lease(LeaseToken),
    /// That lease has ended.
    Gone(Gone),
}

impl Table {
    /// A consumer asks for lines, perhaps with a request that it sent before. If that waits still, it is replaced: its
    /// connection is probably gone.
    pub(super) fn asks(
        &mut self,
        group: GroupId,
        consumer: &str,
        request: Option<&str>,
        now_ms: u64,
    ) -> Repeated {
        let known = self.known(group, consumer, now_ms);
        known.asked += 1;
        let number = known.asked;
        let before = known.request.as_ref().filter(|(before, ..)| Some(before.as_str()) == request);
        let before = before.and_then(|(.., token)| *token);
        if before.is_none()
            && let Some(request) = request
        {
            known.request = Some((request.to_owned(), number, None));
        }
        match before {
            None => Repeated::No(number),
            Some(token) if self.leases.contains_key(&token) => Repeated::Lease(token),
            Some(token) => Repeated::Gone(self.gone(token)),
        }
    }

    /// A lease was given out to the request of this number. `false` if the request was sent again since, and only the later one
    /// counts: nothing is noted then.
    pub(super) fn leased(
        &mut self,
        token: LeaseToken,
        held: Held,
        (request, number): (Option<&str>, u64),
    ) -> bool {
        let known = self.known(held.group, &held.consumer, held.since_ms);
        match (&mut known.request, request) {
            (Some((last, at, lease)), Some(request)) if last == request => {
                if *at != number {
                    return false;
                }
                *lease = Some(token);
            }
            _ => {}
        }
        known.leased += 1;
        self.groups.entry(held.group).or_default().leased += 1;
        self.leases.insert(token, held);
        true
    }

    /// The lease is bound to another connection.
    pub(super) fn bind(&mut self, token: LeaseToken, connection: u64) {
        if let Some(held) = self.leases.get_mut(&token) {
            held.connection = Some(connection);
        }
    }

    /// A connection is open; leases may end with it.
    pub(super) fn connected(&mut self, connection: u64) {
        self.connections.insert(connection);
    }

    /// A connection is gone. Returns the leases that end with it.
    pub(super) fn disconnected(&mut self, connection: u64) -> Vec<Held> {
        self.connections.remove(&connection);
        self.end_all(Gone::Left, |held| held.connection == Some(connection))
    }

    pub(super) fn is_open(&self, connection: u64) -> bool {
        self.connections.contains(&connection)
    }

    /// Ends the leases of a group that the owner does not have any more: it has those of `tokens`, and perhaps some from `next`
    /// on.
    pub(super) fn reconcile(&mut self, group: GroupId, tokens: &[u64], next: u64) {
        self.end_all(Gone::Revoked, |held| {
            held.group == group && held.settling == 0 && held.lease < next && !tokens.contains(&held.lease)
        });
    }

    /// Groups of which leases are out.
    pub(super) fn groups_held(&self) -> BTreeSet<GroupId> {
        self.leases.values().map(|held| held.group).collect()
    }

    /// Groups with leases whose time is up.
    pub(super) fn groups_due(&self, now_ms: u64) -> BTreeSet<GroupId> {
        self.leases.values().filter(|held| held.until_ms <= now_ms).map(|held| held.group).collect()
    }

    pub(super) fn held(&self, token: LeaseToken) -> Option<&Held> {
        self.leases.get(&token)
    }

    /// Leases that are out.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Leases of a group that are out.
    pub(super) fn held_of(&self, group: GroupId) -> usize {
        self.leases.values().filter(|held| held.group == group).count()
    }

    /// A settlement was received: until it is answered, the lease does not expire.
    pub(super) fn begin_settling(&mut self, token: LeaseToken, now_ms: u64) -> Option<Held> {
        let held = self.leases.get_mut(&token)?;
        held.settling += 1;
        let held = held.clone();
        self.known(held.group, &held.consumer, now_ms);
        Some(held)
    }

    /// The settlement counted: what is left of the lease, and how many lines it acked.
    pub(super) fn settled(&mut self, token: LeaseToken, left: Vec<SeqRange>, acked: u64, now_ms: u64) {
        let Some(held) = self.leases.get_mut(&token) else { return };
        held.settling = held.settling.saturating_sub(1);
        let (group, consumer, is_over) = (held.group, held.consumer.clone(), left.is_empty());
        held.left = left;
        let known = self.known(group, &consumer, now_ms);
        known.settled += 1;
        known.acked_lines += acked;
        let of = self.groups.entry(group).or_default();
        of.settled += 1;
        (of.expired_in_a_row, of.last_expired) = (0, None);
        if is_over {
            self.end(token, Gone::Settled);
        }
    }

    /// The settlement was refused: the lease continues.
    pub(super) fn not_settled(&mut self, token: LeaseToken) {
        if let Some(held) = self.leases.get_mut(&token) {
            held.settling = held.settling.saturating_sub(1);
        }
    }

    /// The owner does not know the lease any more. If another settlement of it is on its way, that one has ended it.
    pub(super) fn stale(&mut self, token: LeaseToken) {
        self.not_settled(token);
        if self.leases.get(&token).is_some_and(|held| held.settling == 0) {
            self.end(token, Gone::Revoked);
        }
    }

    /// Sets a new deadline; `false` if the lease is not out.
    pub(super) fn extend(&mut self, token: LeaseToken, until_ms: u64, now_ms: u64) -> bool {
        let Some(held) = self.leases.get_mut(&token) else { return false };
        held.until_ms = until_ms;
        let (group, consumer) = (held.group, held.consumer.clone());
        self.known(group, &consumer, now_ms);
        true
    }

    /// The lease is over.
    pub(super) fn end(&mut self, token: LeaseToken, why: Gone) -> Option<Held> {
        let held = self.leases.remove(&token)?;
        if why == Gone::Expired {
            let of = self.groups.entry(held.group).or_default();
            of.expired += 1;
            of.expired_in_a_row += 1;
            let consumer = held.consumer.clone();
            of.last_expired = Some(ExpiredView { consumer, range: held.span(), at_ms: held.until_ms });
            if let Some(known) = of.consumers.get_mut(&held.consumer) {
                known.expired += 1;
            }
        }
        self.ended.insert(token, (why, held.group));
        self.ended_order.push_back(token);
        while self.ended_order.len() > ENDED_MAX {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
        Some(held)
    }

    /// Why a token counts no more, in this run.
    pub(super) fn gone(&self, token: LeaseToken) -> Gone {
        self.ended.get(&token).map_or(Gone::Unknown, |(gone, _)| *gone)
    }

    /// The group of a lease that has ended, if that is remembered.
    pub(super) fn group_of_ended(&self, token: LeaseToken) -> Option<GroupId> {
        self.ended.get(&token).map(|(_, group)| *group)
    }

    /// Ends the leases whose time is up.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Held> {
        self.end_all(Gone::Expired, |held| held.until_ms <= now_ms && held.settling == 0)
    }

    /// When the next lease expires.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.leases.values().filter(|held| held.settling == 0).map(|held| held.until_ms).min()
    }

    /// Ends all leases that `is_over` accepts.
    pub(super) fn end_all(&mut self, why: Gone, is_over: impl Fn(&Held) -> bool) -> Vec<Held> {
        let over: Vec<LeaseToken> =
            self.leases.iter().filter(|(_, held)| is_over(held)).map(|(token, _)| *token).collect();
        let mut ended: Vec<Held> = over.into_iter().filter_map(|token| self.end(token, why)).collect();
        ended.sort_by_key(|held| held.range);
        ended
    }

    /// A consumer stops.
    pub(super) fn leave(&mut self, group: GroupId, consumer: &str) -> Vec<Held> {
        self.end_all(Gone::Left, |held| held.group == group && held.consumer == consumer)
    }

    /// What is known of the consumers of a group.
    pub(super) fn seen(&self, group: GroupId) -> Seen {
        let mut held: Vec<HeldView> =
            self.leases.values().filter(|held| held.group == group).map(Held::view).collect();
        held.sort_by_key(|held| (held.since_ms, held.range));
        let Some(of) = self.groups.get(&group) else { return Seen { held, ..Seen::default() } };
        let mut consumers: Vec<(&String, &Known)> = of.consumers.iter().collect();
        consumers.sort_by_key(|(_, known)| Reverse(known.order));
        Seen {
            consumers: consumers.into_iter().map(|(name, known)| known.view(name)).collect(),
            held,
            expired_in_a_row: of.expired_in_a_row,
            last_expired: of.last_expired.clone(),
            leased: of.leased,
            settled: of.settled,
            expired: of.expired,
        }
    }

    /// A consumer that was seen now.
    fn known(&mut self, group: GroupId, consumer: &str, now_ms: u64) -> &mut Known {
        let of = self.groups.entry(group).or_default();
        if !of.consumers.contains_key(consumer) && of.consumers.len() >= CONSUMERS_MAX {
            let oldest = of.consumers.iter().min_by_key(|(_, known)| known.order);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                of.consumers.remove(&oldest);
            }
        }
        of.order += 1;
        let known = of.consumers.entry(consumer.to_owned()).or_default();
        known.order = of.order;
        known.last_ms = known.last_ms.max(now_ms);
        known
    }
}

impl Held {
    /// How many lines are left.
    pub(super) fn lines_left(&self) -> u64 {
        self.left.iter().map(|left| self.own.count(*left)).sum()
    }

    /// From the first line that is left to the last.
    pub(super) fn span(&self) -> SeqRange {
        let ends = self.left.first().zip(self.left.last());
        ends.map_or(self.range, |(first, last)| SeqRange { first: first.first, last: last.last })
    }

    fn view(&self) -> HeldView {
        let Held { since_ms, until_ms, .. } = *self;
        HeldView { consumer: self.consumer.clone(), range: self.span(), since_ms, until_ms }
    }
}

impl Known {
    fn view(&self, name: &str) -> ConsumerView {
        let Known { last_ms, asked, leased, settled, expired, acked_lines, .. } = *self;
        ConsumerView { name: name.to_owned(), last_ms, asked, leased, settled, expired, acked_lines }
    }
}

#[cfg(test)]
mod tests {
    use spillq_storage::Seq;

    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    fn held(consumer: &str, range: SeqRange, since_ms: u64, until_ms: u64) -> Held {
        Held {
            group: GROUP,
            lease: 1,
            range,
            own: Own::default(),
            left: vec![range],
            attempt: 1,
            consumer: consumer.to_owned(),
            since_ms,
            until_ms,
            connection: None,
            settling: 0,
        }
    }

    fn token() -> LeaseToken {
        LeaseToken::new(1).unwrap()
    }

    #[test]
    fn a_repeated_request_gets_its_lease_while_it_is_out() {
        let (mut table, lease) = (Table::default(), token());
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 5), Repeated::No(1));
        assert!(table.leased(lease, held("w1", range(1, 10), 5, 100), (Some("a"), 1)));
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 6), Repeated::Lease(lease));
        assert_eq!(table.asks(GROUP, "w2", Some("a"), 6), Repeated::No(1), "of another consumer");
        assert_eq!(table.asks(GROUP, "w1", None, 6), Repeated::No(3));
        table.begin_settling(lease, 7).unwrap();
        table.settled(lease, vec![], 10, 7);
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 8), Repeated::Gone(Gone::Settled));
        assert_eq!(table.gone(lease), Gone::Settled);
    }

    #[test]
    fn of_two_requests_with_one_name_the_later_gets_the_lease() {
        let (mut table, one, two) = (Table::default(), token(), token());
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 5), Repeated::No(1));
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 6), Repeated::No(2), "the first waits still");
        assert!(!table.leased(one, held("w1", range(1, 10), 7, 100), (Some("a"), 1)));
        assert_eq!((table.len(), table.seen(GROUP).leased), (0, 0));
        assert!(table.leased(two, held("w1", range(1, 10), 7, 100), (Some("a"), 2)));
        assert_eq!(table.asks(GROUP, "w1", Some("a"), 8), Repeated::Lease(two));
    }

    #[test]
    fn leases_that_the_owner_has_revoked_end() {
        let (mut table, one, two, new) = (Table::default(), token(), token(), token());
        for (token, lease) in [(one, 1), (two, 2), (new, 5)] {
            table.leased(token, Held { lease, ..held("w1", range(1, 10), 0, 100) }, (None, 0));
        }
        table.reconcile(GROUP, &[2], 5);
        assert_eq!(
            (table.gone(one), table.held(two).is_some(), table.held(new).is_some()),
            (Gone::Revoked, true, true)
        );
        table.reconcile(GroupId(9), &[], 9);
        assert_eq!(table.len(), 2, "of another group");
    }

    #[test]
    fn of_two_settlements_at_once_the_one_that_counted_decides() {
        let (mut table, lease) = (Table::default(), token());
        table.leased(lease, held("w1", range(1, 10), 0, 100), (None, 0));
        table.begin_settling(lease, 1).unwrap();
        table.begin_settling(lease, 1).unwrap();
        table.stale(lease);
        table.settled(lease, vec![], 10, 2);
        assert_eq!((table.gone(lease), table.seen(GROUP).settled), (Gone::Settled, 1));
        table.leased(lease, held("w1", range(1, 10), 0, 100), (None, 0));
        table.begin_settling(lease, 1).unwrap();
        table.stale(lease);
        assert_eq!(table.gone(lease), Gone::Revoked);
    }

    #[test]
    fn leases_end_with_their_connection() {
        let (mut table, one, two) = (Table::default(), token(), token());
        table.connected(7);
        table.leased(one, Held { connection: Some(7), ..held("w1", range(1, 10), 0, 100) }, (None, 0));
        table.leased(two, Held { connection: Some(7), ..held("w1", range(11, 20), 0, 100) }, (None, 0));
        table.connected(8);
        table.bind(two, 8);
        assert!(table.is_open(7));
        assert_eq!(table.disconnected(7).len(), 1);
        assert!(!table.is_open(7) && table.held(two).is_some());
    }

    #[test]
    fn a_lease_expires_at_its_deadline_but_not_while_it_is_settled() {
        let (mut table, one, two) = (Table::default(), token(), token());
        table.leased(one, held("w1", range(1, 10), 0, 100), (None, 0));
        table.leased(two, held("w2", range(11, 20), 0, 50), (None, 0));
        assert_eq!((table.next_expiry(), table.expire(49).len()), (Some(50), 0));
        assert_eq!(table.expire(50).iter().map(|held| held.range).collect::<Vec<_>>(), [range(11, 20)]);
        assert_eq!(table.gone(two), Gone::Expired);
        table.begin_settling(one, 99).unwrap();
        assert_eq!((table.next_expiry(), table.expire(500).len()), (None, 0), "it was received in time");
        table.settled(one, vec![range(5, 10)], 4, 500);
        assert_eq!(table.next_expiry(), Some(100));
        assert!(table.extend(one, 900, 501) && !table.extend(two, 900, 501));
        assert_eq!((table.expire(899).len(), table.expire(900).len(), table.len()), (0, 1, 0));
    }

    #[test]
    fn consumers_are_seen_with_what_they_hold_and_what_became_of_it() {
        let (mut table, one, two) = (Table::default(), token(), token());
        assert_eq!(table.seen(GROUP), Seen::default());
        table.asks(GROUP, "w1", None, 10);
        table.leased(one, held("w1", range(1, 10), 11, 100), (None, 0));
        table.asks(GROUP, "w2", None, 20);
        let seen = table.seen(GROUP);
        assert_eq!(
            seen.held,
            [HeldView { consumer: "w1".into(), range: range(1, 10), since_ms: 11, until_ms: 100 }]
        );
        assert_eq!(
            seen.consumers.iter().map(|one| (one.name.as_str(), one.last_ms)).collect::<Vec<_>>(),
            [("w2", 20), ("w1", 11)]
        );
        table.expire(100);
        let seen = table.seen(GROUP);
        assert_eq!((seen.expired_in_a_row, seen.expired, seen.settled), (1, 1, 0));
        let expired = ExpiredView { consumer: "w1".to_owned(), range: range(1, 10), at_ms: 100 };
        assert_eq!(seen.last_expired, Some(expired));
        table.leased(two, held("w2", range(1, 10), 110, 200), (None, 0));
        table.begin_settling(two, 120).unwrap();
        table.settled(two, vec![], 10, 121);
        let seen = table.seen(GROUP);
        assert_eq!(
            (seen.expired_in_a_row, seen.last_expired.clone(), seen.expired, seen.settled),
            (0, None, 1, 1)
        );
        let acked = |name: &str| {
            seen.consumers.iter().find(|one| one.name == name).map(|one| (one.acked_lines, one.expired))
        };
        assert_eq!((acked("w1"), acked("w2")), (Some((0, 1)), Some((10, 0))));
        table.leased(one, held("w1", range(11, 20), 130, 200), (None, 0));
        assert_eq!(table.leave(GROUP, "w1").len(), 1);
        assert_eq!(table.gone(one), Gone::Left);
        assert_eq!(table.seen(GROUP).consumers.len(), 2, "who was there is not forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut table = Table::default();
        for number in 0..2 * CONSUMERS_MAX {
            table.asks(GROUP, &format!("w{number}"), None, number as u64);
        }
        let seen = table.seen(GROUP);
        assert_eq!(seen.consumers.len(), CONSUMERS_MAX);
        assert!(seen.consumers.iter().all(|one| one.last_ms >= CONSUMERS_MAX as u64), "the newest are kept");
        let first = token();
        table.leased(first, held("w", range(1, 1), 0, 1), (None, 0));
        table.end(first, Gone::Revoked);
        for _ in 0..ENDED_MAX {
            let token = token();
            table.leased(token, held("w", range(1, 1), 0, 1), (None, 0));
            table.end(token, Gone::Settled);
        }
        assert_eq!(
            (table.gone(first), table.ended.len(), table.ended_order.len()),
            (Gone::Unknown, ENDED_MAX, ENDED_MAX)
        );
    }
}
