//! Administrators and their sign-ins, which no process holds in memory: each request for a page reads them from the store.

use rescind_base::{
    model::{Administrator, ChangeOrigin, SignIn, UnixSeconds},
    secret::TicketHash,
    telemetry::step,
};
use tracing::{Instrument, warn};

use super::{Result, Store, ask, values::LAST_USED_EVERY};

impl Store {
    /// Returns every administrator, in the order of creation.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn administrators(&self) -> Result<Vec<Administrator>> {
        ask!(self, administrators())
    }

    /// Lets `rule` change the administrators, and saves and numbers what it returns. If `rule` fails, nothing is saved.
    /// # Errors
    /// Fails if the store is unavailable, or `rule` panics.
    pub async fn change_administrators<T: Send + 'static, E: Send + 'static>(
        &self,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Vec<Administrator>) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<(T, Vec<Administrator>), E>> {
        ask!(self, change_administrators(origin, rule))
    }

    /// Adds a sign-in.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn begin_sign_in(&self, new: SignIn) -> Result<()> {
        ask!(self, begin_sign_in(new))
    }

    /// Returns whose sign-in has this hash, and notes that it was used. `None`: there is none, or it has ended. That the
    /// use cannot be written is logged only: reads work without the disk.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn use_sign_in(&self, hash: TicketHash, now: UnixSeconds) -> Result<Option<Administrator>> {
        let found = ask!(self, sign_in(hash))?;
        let Some((sign_in, administrator)) = found.filter(|(sign_in, of)| sign_in.is_good(of, now)) else {
            return Ok(None);
        };
        if sign_in.used_at + LAST_USED_EVERY <= now
            && let Err(error) = ask!(self, sign_in_used(hash, now))
        {
            warn!(%error, "the use of the dashboard could not be written");
        }
        Ok(Some(administrator))
    }

    /// Deletes a sign-in.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn end_sign_in(&self, hash: TicketHash) -> Result<()> {
        ask!(self, end_sign_in(hash))
    }

    /// Deletes the sign-ins that have ended by time.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_sign_ins(&self, now: UnixSeconds) -> Result<()> {
        let (began_by, used_by) = (now.saturating_sub(SignIn::LONGEST), now.saturating_sub(SignIn::IDLE));
        ask!(self, sweep_sign_ins(began_by, used_by))
    }
}
