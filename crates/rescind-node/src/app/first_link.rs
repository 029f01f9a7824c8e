//! The link by which the first administrator enrols. Only the process that has printed it knows it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::secret::TicketHash;

/// The hash of the link, and until when it is good, in boot time.
#[derive(Debug, Default)]
pub struct FirstLink(Mutex<Option<(TicketHash, Duration)>>);

impl FirstLink {
    /// Makes this the link.
    pub fn offer(&self, hash: TicketHash, until: Duration) {
        *self.get() = Some((hash, until));
    }

    /// Whether this is the link, and it is good.
    pub fn is(&self, hash: TicketHash, now: Duration) -> bool {
        self.get().is_some_and(|(offered, until)| offered == hash && now < until)
    }

    /// Makes no link good.
    pub fn withdraw(&self) {
        *self.get() = None;
    }

    fn get(&self) -> MutexGuard<'_, Option<(TicketHash, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
