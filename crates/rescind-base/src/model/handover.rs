//! Secrets that are handed to somebody by a link.

use super::{ClientId, UnixSeconds};
use crate::secret::{ApiKey, TicketHash};

/// A credential's secret, sealed for whoever has the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The hash of the link.
    pub hash: TicketHash,
    pub client: ClientId,
    pub api_key: ApiKey,
    /// The secret, under a key that only the link has. `None` once it was read.
    pub sealed: Option<Vec<u8>>,
    pub created_at: UnixSeconds,
    /// From then on the link is refused.
    pub ends_at: UnixSeconds,
    pub read_at: Option<UnixSeconds>,
}
