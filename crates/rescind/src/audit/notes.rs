//! What callers try, counted in a fixed amount of memory.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{By, Event, Kind, Origin};
use crate::{
    limiter::network,
    model::{ClientId, UnixSeconds},
};

/// Subjects that are told apart between one writing and the next.
const SUBJECTS: usize = 128;

/// What was noted since the last writing.
#[derive(Debug, Default)]
pub struct Notes {
    told_apart: HashMap<Subject, Tally>,
    /// What came when there was no room left to tell it apart.
    others: BTreeMap<Kind, Tally>,
}

/// What is counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Subject {
    kind: Kind,
    client: Option<ClientId>,
    source: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    first_at: UnixSeconds,
    count: u64,
}

impl Notes {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        client: Option<ClientId>,
        address: Option<IpAddr>,
        now: UnixSeconds,
    ) {
        let subject = Subject { kind, client, source: address.map(network) };
        self.count(subject, Tally { first_at: now, count: 1 });
    }

    /// Adds what was noted before.
    pub(super) fn merge(&mut self, before: Notes) {
        for (subject, tally) in before.told_apart {
            self.count(subject, tally);
        }
        for (kind, tally) in before.others {
            self.others.entry(kind).and_modify(|others| others.add(tally)).or_insert(tally);
        }
    }

    /// As events of this node, in the order in which they began.
    pub(super) fn events(&self, node: &Arc<str>) -> Vec<Event> {
        let event = |kind, from, tally: &Tally| {
            let origin =
                Origin { at: tally.first_at, by: By::Caller, from, node: Arc::clone(node), request: None };
            Event { count: tally.count, ..origin.event(kind) }
        };
        let told_apart = self.told_apart.iter().map(|(subject, tally)| Event {
            client: subject.client,
            ..event(subject.kind, subject.source.map(one_source), tally)
        });
        let others = self.others.iter().map(|(kind, tally)| Event {
            detail: Some("by others, too many to tell apart".into()),
            ..event(*kind, None, tally)
        });
        let mut events: Vec<_> = told_apart.chain(others).collect();
        events.sort_by_key(|event| event.origin.at);
        events
    }

    fn count(&mut self, subject: Subject, tally: Tally) {
        if let Some(known) = self.told_apart.get_mut(&subject) {
            known.add(tally);
        } else if self.told_apart.len() < SUBJECTS {
            self.told_apart.insert(subject, tally);
        } else {
            self.others.entry(subject.kind).and_modify(|others| others.add(tally)).or_insert(tally);
        }
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.first_at = self.first_at.min(other.first_at);
        self.count = self.count.saturating_add(other.count);
    }
}

/// The network that [`network`] gives an address of.
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
        let mut notes = Notes::default();
        let mut note = |kind, client, address: &str, now| {
            notes.add(kind, client, Some(address.parse().unwrap()), now);
        };
        note(Kind::Throttled, None, "203.0.113.7", 10);
        note(Kind::Throttled, None, "::ffff:203.0.113.7", 12);
        note(Kind::Throttled, Some(1), "203.0.113.7", 13);
        note(Kind::AddressDenied, Some(1), "2001:db8::1", 14);
        note(Kind::AddressDenied, Some(1), "2001:db8::2", 15);
        notes.add(Kind::AddressDenied, Some(1), None, 16);
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
                (Kind::Throttled, None, Some("203.0.113.7"), 2, 10),
                (Kind::Throttled, Some(1), Some("203.0.113.7"), 1, 13),
                (Kind::AddressDenied, Some(1), Some("2001:db8::/64"), 2, 14),
                (Kind::AddressDenied, Some(1), None, 1, 16),
            ]
        );
    }

    #[test]
    fn a_flood_of_sources_is_counted_and_takes_no_room() {
        let mut notes = Notes::default();
        for i in 0..100_000_u32 {
            notes.add(Kind::Throttled, None, Some(Ipv4Addr::from(i).into()), 10);
        }
        // Who was there first is still told apart.
        notes.add(Kind::Throttled, None, Some(Ipv4Addr::from(0).into()), 10);
        notes.add(Kind::AddressDenied, Some(1), None, 11);
        let events = notes.events(&"node".into());
        assert_eq!(events.len(), SUBJECTS + 2);
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 100_002);
        let others = |kind| {
            let of_kind = |e: &&Event| e.kind == kind && e.detail.is_some();
            events.iter().find(of_kind).map(|e| e.count)
        };
        assert_eq!(others(Kind::Throttled), Some(100_000 - SUBJECTS as u64));
        assert_eq!(others(Kind::AddressDenied), Some(1));
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let mut before = Notes::default();
        for i in 0..SUBJECTS as u32 + 1 {
            before.add(Kind::Throttled, None, Some(Ipv4Addr::from(i).into()), 10);
        }
        let mut notes = Notes::default();
        notes.add(Kind::Throttled, None, Some(Ipv4Addr::from(0).into()), 20);
        notes.add(Kind::AddressDenied, Some(1), None, 20);
        notes.merge(before);
        let events = notes.events(&"node".into());
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), SUBJECTS as u64 + 3);
        assert_eq!(events.len(), SUBJECTS + 1);
        let twice = events.iter().find(|event| event.count == 2 && event.detail.is_none()).unwrap();
        assert_eq!((twice.origin.at, twice.origin.from_text()), (10, Some("0.0.0.0".into())));
    }
}
