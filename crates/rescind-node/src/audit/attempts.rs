//! Attempts of callers, counted in a fixed amount of memory.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use rescind_base::model::{Actor, ChangeOrigin, ClientId, Event, EventKind, UnixSeconds};

use crate::limits::network;

/// The number of subjects counted separately between two writes.
const SUBJECTS: usize = 128;
/// The number of sources counted separately for one client, so that one client leaves room for others; and
/// for all attempts without a known client together.
const OF_CLIENT: usize = 16;
const OF_STRANGERS: usize = 64;

/// The attempts since the last write.
#[derive(Debug, Default)]
pub struct Attempts {
    subjects: HashMap<Subject, Tally>,
    /// The attempts of subjects for which there was no room.
    others: BTreeMap<EventKind, Tally>,
}

/// Attempts with the same values here are one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Subject {
    kind: EventKind,
    client: Option<ClientId>,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// A network that counts as one source; `None` if the caller's address is unknown.
    One(Option<IpAddr>),
    /// The client's other sources, for which it had no room.
    Others,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    first_at: UnixSeconds,
    count: u64,
}

impl Attempts {
    pub(super) fn add(
        &mut self,
        kind: EventKind,
        client: Option<ClientId>,
        address: Option<IpAddr>,
        now: UnixSeconds,
    ) {
        let subject = Subject { kind, client, source: Source::One(address.map(network)) };
        self.count(subject, Tally { first_at: now, count: 1 });
    }

    /// Adds attempts that were counted before.
    pub(super) fn merge(&mut self, before: Attempts) {
        for (subject, tally) in before.subjects {
            self.count(subject, tally);
        }
        for (kind, tally) in before.others {
            self.others.entry(kind).or_insert(Tally::NONE).add(tally);
        }
    }

    /// The attempts as events of this node, in the order of their first occurrence.
    pub(super) fn events(&self, node: &Arc<str>) -> Vec<Event> {
        let event = |kind, from, tally: &Tally| {
            let origin = ChangeOrigin {
                at: tally.first_at,
                by: Actor::Caller,
                operator: None,
                from,
                node: Arc::clone(node),
                request: None,
            };
            Event { count: tally.count, ..origin.event(kind) }
        };
        let subjects = self.subjects.iter().map(|(subject, tally)| {
            let (from, detail) = match subject.source {
                Source::One(source) => (source.map(one_source), None),
                Source::Others => (None, Some("from other addresses, too many to tell apart".into())),
            };
            Event { client: subject.client, detail, ..event(subject.kind, from, tally) }
        });
        let others = self.others.iter().map(|(kind, tally)| Event {
            detail: Some("by others, too many to tell apart".into()),
            ..event(*kind, None, tally)
        });
        let mut events: Vec<_> = subjects.chain(others).collect();
        events.sort_by_key(|event| event.origin.at);
        events
    }

    fn count(&mut self, mut subject: Subject, tally: Tally) {
        if let Some(known) = self.subjects.get_mut(&subject) {
            return known.add(tally);
        }
        let of_same = self.subjects.keys().filter(|known| known.client == subject.client).count();
        if subject.client.is_some() && of_same >= OF_CLIENT {
            subject.source = Source::Others;
        }
        let has_room = self.subjects.len() < SUBJECTS && (subject.client.is_some() || of_same < OF_STRANGERS);
        if has_room || self.subjects.contains_key(&subject) {
            self.subjects.entry(subject).or_insert(Tally::NONE).add(tally);
        } else {
            self.others.entry(subject.kind).or_insert(Tally::NONE).add(tally);
        }
    }
}

impl Tally {
    const NONE: Tally = Tally { first_at: UnixSeconds::MAX, count: 0 };

    fn add(&mut self, other: Tally) {
        self.first_at = self.first_at.min(other.first_at);
        self.count = self.count.saturating_add(other.count);
    }
}

/// The prefix of an address that [`network`] returned.
fn one_source(network: IpAddr) -> IpNet {
    let length = if network.is_ipv4() { 32 } else { 64 };
    IpNet::new(network, length).unwrap_or_else(|_| network.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_one_source_tries_is_one_event() {
        let mut notes = Attempts::default();
        let mut note = |kind, client, address: &str, now| {
            notes.add(kind, client, Some(address.parse().unwrap()), now);
        };
        note(EventKind::Throttled, None, "203.0.113.7", 10);
        note(EventKind::Throttled, None, "::ffff:203.0.113.7", 12);
        note(EventKind::Throttled, Some(1), "203.0.113.7", 13);
        note(EventKind::AddressDenied, Some(1), "2001:db8::1", 14);
        note(EventKind::AddressDenied, Some(1), "2001:db8::2", 15);
        notes.add(EventKind::AddressDenied, Some(1), None, 16);
        let events = notes.events(&"node".into());
        let froms: Vec<_> = events.iter().map(|event| event.origin.from_text()).collect();
        let told: Vec<_> = events
            .iter()
            .zip(&froms)
            .map(|(event, from)| (event.kind, event.client, from.as_deref(), event.count, event.origin.at))
            .collect();
        assert_eq!(
            told,
            [
                (EventKind::Throttled, None, Some("203.0.113.7"), 2, 10),
                (EventKind::Throttled, Some(1), Some("203.0.113.7"), 1, 13),
                (EventKind::AddressDenied, Some(1), Some("2001:db8::/64"), 2, 14),
                (EventKind::AddressDenied, Some(1), None, 1, 16),
            ]
        );
    }

    #[test]
    fn a_flood_of_sources_is_counted_and_takes_no_room() {
        let mut notes = Attempts::default();
        for i in 0..100_000_u32 {
            notes.add(EventKind::Throttled, None, Some(Ipv4Addr::from(i).into()), 10);
        }
        // The first sources are still counted separately.
        notes.add(EventKind::Throttled, None, Some(Ipv4Addr::from(0).into()), 10);
        notes.add(EventKind::AddressDenied, Some(1), None, 11);
        let events = notes.events(&"node".into());
        assert_eq!(events.len(), OF_STRANGERS + 2);
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 100_002);
        assert_eq!(others(&events, EventKind::Throttled, None), Some(100_000 - OF_STRANGERS as u64));
        // So is every known client.
        assert_eq!(others(&events, EventKind::AddressDenied, Some(1)), None);
    }

    /// The count of this client's sources that are not counted separately.
    fn others(events: &[Event], kind: EventKind, client: Option<ClientId>) -> Option<u64> {
        let is_it = |e: &&Event| e.kind == kind && e.client == client && e.detail.is_some();
        events.iter().find(is_it).map(|e| e.count)
    }

    // check 102
    #[test]
    fn one_clients_flood_leaves_room_for_the_others() {
        let mut notes = Attempts::default();
        for i in 0..10_000_u32 {
            let source = Some(Ipv4Addr::from(i).into());
            notes.add(EventKind::AddressDenied, Some(1), source, 10);
            notes.add(EventKind::RefreshTokenReused, Some(1), source, 10);
            notes.add(EventKind::Throttled, None, source, 10);
        }
        for client in 2..10 {
            notes.add(EventKind::AddressDenied, Some(client), Some(Ipv4Addr::LOCALHOST.into()), 11);
        }
        let events = notes.events(&"node".into());
        assert_eq!(events.iter().filter(|event| event.client == Some(1)).count(), OF_CLIENT + 2);
        let of_flood = |kind| others(&events, kind, Some(1));
        assert_eq!(of_flood(EventKind::AddressDenied), Some(10_000 - OF_CLIENT as u64 / 2));
        assert_eq!(of_flood(EventKind::RefreshTokenReused), Some(10_000 - OF_CLIENT as u64 / 2));
        for client in 2..10 {
            let own: Vec<_> = events.iter().filter(|event| event.client == Some(client)).collect();
            assert_eq!((own.len(), own[0].count), (1, 1));
            assert_eq!(own[0].origin.from_text(), Some("127.0.0.1".into()));
        }
    }

    #[test]
    fn many_clients_at_once_take_no_more_room() {
        let mut notes = Attempts::default();
        for client in 0..10_000 {
            notes.add(EventKind::AddressDenied, Some(client), None, 10);
        }
        let events = notes.events(&"node".into());
        assert_eq!(events.len(), SUBJECTS + 1);
        assert_eq!(others(&events, EventKind::AddressDenied, None), Some(10_000 - SUBJECTS as u64));
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let mut before = Attempts::default();
        for i in 0..OF_STRANGERS as u32 + 1 {
            before.add(EventKind::Throttled, None, Some(Ipv4Addr::from(i).into()), 10);
        }
        let mut notes = Attempts::default();
        notes.add(EventKind::Throttled, None, Some(Ipv4Addr::from(0).into()), 20);
        notes.add(EventKind::AddressDenied, Some(1), None, 20);
        notes.merge(before);
        let events = notes.events(&"node".into());
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), OF_STRANGERS as u64 + 3);
        assert_eq!(events.len(), OF_STRANGERS + 2);
        let twice = events.iter().find(|event| event.count == 2 && event.detail.is_none()).unwrap();
        assert_eq!((twice.origin.at, twice.origin.from_text()), (10, Some("0.0.0.0".into())));
    }
}
