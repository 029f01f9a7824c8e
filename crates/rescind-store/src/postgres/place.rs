//! Which server a connection is to, and which servers may be used.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{Result, StoreError};

/// The columns that [`Place::read`] reads. The timeline is the first eight digits of the name of the log file (WAL)
/// being written. It is the same for as long as the server can be written.
pub(super) const PLACE: &str = "
    (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
    extract(epoch FROM pg_postmaster_start_time()), (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A server and a database on it, during one run of the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The server's identity, given by `initdb`. Its stand-bys have the same.
    system: u64,
    /// Raised by each promotion of a stand-by, and by each recovery to a point in time.
    timeline: u32,
    /// A restarted server may have another disk, and a database may have been created anew.
    started: String,
    database: String,
}

impl Place {
    pub(super) fn read([system, timeline, started, database]: [&str; 4]) -> Result<Place> {
        let numbers = system.parse::<i64>().ok().zip(u32::from_str_radix(timeline, 16).ok());
        let (system, timeline) = numbers.ok_or_else(|| {
            StoreError::Unreadable(format!("system identifier {system:?}, timeline {timeline:?}"))
        })?;
        let [started, database] = [started, database].map(str::to_owned);
        Ok(Place { system: system.cast_unsigned(), timeline, started, database })
    }

    /// Returns whether a commit made at `before` can be missing here only if the disk was replaced.
    pub fn goes_on(&self, before: &Place) -> bool {
        let line = |place: &Place| (place.system, place.timeline, place.database.clone());
        line(self) == line(before)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {}, timeline {}", self.system, self.timeline)
    }
}

/// The place in use, and the rules for others.
#[derive(Default)]
pub(super) struct Places {
    used: watch::Sender<Option<Place>>,
    /// The lease has no connection yet, and comes first.
    lease_waits: watch::Sender<bool>,
    rules: Mutex<Rules>,
}

#[derive(Default)]
struct Rules {
    /// The task that renews the lease must approve a place before it is used.
    guarded: bool,
    /// Systems that were used before another one was.
    former: Vec<u64>,
    /// The place used last, even if none is used now.
    newest: Option<Place>,
}

impl Places {
    /// From now on a place is used only after it was approved.
    pub(super) fn guard(&self) {
        self.rules().guarded = true;
        self.used.send_replace(None);
    }

    /// Checks that a connection to this place may be opened, if only to examine it.
    pub(super) fn admit(&self, place: &Place) -> Result<()> {
        let mut rules = self.rules();
        let Place { system, timeline, .. } = *place;
        if rules.former.contains(&system) {
            return Err(StoreError::Unsuitable(format!(
                "it is on PostgreSQL server {system}, and nodes have gone on to another one since: stop that server, or \
                 restart every node to go back to it"
            )));
        }
        match &rules.newest {
            Some(newest) if newest.system == system && timeline < newest.timeline => {
                return Err(StoreError::Unsuitable(format!(
                    "its server was taken over from (timeline {timeline} after {}), and is a primary all the same: \
                     stop it, and name the new one in database.url; or, if it was put in that one's place, restart \
                     every node",
                    newest.timeline
                )));
            }
            Some(newest) if !rules.guarded && !place.goes_on(newest) => {
                return Err(StoreError::Unavailable("another server answers than the one before".into()));
            }
            _ => {}
        }
        if !rules.guarded && rules.newest.as_ref() != Some(place) {
            rules.newest = Some(place.clone());
            self.used.send_replace(Some(place.clone()));
        }
        Ok(())
    }

    /// Approves this place, and no other.
    pub(super) fn approve(&self, place: &Place) {
        let mut rules = self.rules();
        if let Some(before) =
            rules.newest.replace(place.clone()).filter(|before| before.system != place.system)
        {
            rules.former.push(before.system);
        }
        self.used.send_replace(Some(place.clone()));
    }

    /// Returns whether this place is in use.
    pub(super) fn is_used(&self, place: &Place) -> bool {
        self.used.borrow().as_ref() == Some(place)
    }

    /// Returns the place in use.
    pub(super) fn used(&self) -> Option<Place> {
        self.used.borrow().clone()
    }

    /// Resolves when this place is in use. The task that renews the lease may be about to approve it.
    pub(super) async fn until_used(&self, place: &Place) {
        drop(self.used.subscribe().wait_for(|used| used.as_ref() == Some(place)).await);
    }

    /// Says whether the lease has no connection yet, so that the pool opens none before it.
    pub(super) fn set_lease_waits(&self, waits: bool) {
        self.lease_waits.send_replace(waits);
    }

    /// Resolves when the pool may open connections.
    pub(super) async fn until_leased(&self) {
        drop(self.lease_waits.subscribe().wait_for(|waits| !waits).await);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(system: u64, timeline: u32) -> Place {
        Place { system, timeline, ..Place::default() }
    }

    fn told(outcome: Result<()>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn without_a_guard_nothing_takes_over_but_the_same_server_started_again() {
        let places = Places::default();
        for started in ["1", "1", "2"] {
            let place = Place { started: started.into(), ..place(7, 2) };
            places.admit(&place).unwrap();
            assert!(places.is_used(&place));
        }
        assert!(told(places.admit(&place(7, 1))).contains("timeline 1 after 2"));
        for other in [place(7, 3), place(8, 9)] {
            let refused = places.admit(&other);
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
    }

    // check 96
    #[tokio::test]
    async fn under_a_guard_nothing_is_used_that_was_not_approved_of() {
        let places = Places::default();
        places.admit(&place(7, 2)).unwrap();
        places.guard();
        places.admit(&place(7, 2)).unwrap();
        assert!(!places.is_used(&place(7, 2)));
        let here = place(7, 2);
        tokio::join!(biased; places.until_used(&here), async { places.approve(&here) });
        for other in [place(7, 3), place(8, 1)] {
            places.admit(&other).unwrap();
            assert!(places.is_used(&place(7, 2)));
        }
        assert!(told(places.admit(&place(7, 1))).contains("taken over from (timeline 1 after 2)"));
        places.approve(&place(8, 1));
        // A process that went on to another server does not return by chance, whatever the timeline there.
        for back in [place(7, 2), place(7, 9)] {
            assert!(told(places.admit(&back)).contains("PostgreSQL server 7"));
        }
        places.admit(&place(8, 1)).unwrap();
        assert!(places.is_used(&place(8, 1)));
    }
}
