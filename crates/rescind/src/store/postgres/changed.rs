//! What a change of what nodes hold in memory is of, and how it is told.

use crate::model::{ClientId, SessionId};

/// Numbers a change, and notes what it is of. From here to the commit every other change waits.
pub(super) const TELL: &str = "
    WITH next AS (UPDATE head SET seq = seq + 1 RETURNING history, seq),
         told AS (INSERT INTO change (seq, kind, id, client) SELECT seq, $1, $2, $3 FROM next RETURNING mark)
    SELECT next.history, next.seq, told.mark FROM next, told";

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedRow {
    /// A client, or one of its credentials.
    Client(ClientId),
    /// A session ended before its time.
    Session {
        /// Whose it is.
        client: ClientId,
        /// The session.
        session: SessionId,
    },
    /// The signing keys.
    Keys,
    /// The verifiers that may follow the feed.
    Verifiers,
}

impl ChangedRow {
    /// Kind, id, client.
    pub(super) fn columns(self) -> (&'static str, Option<u64>, Option<u64>) {
        match self {
            ChangedRow::Client(client) => ("client", Some(client), None),
            ChangedRow::Session { client, session } => ("session", Some(session), Some(client)),
            ChangedRow::Keys => ("keys", None, None),
            ChangedRow::Verifiers => ("verifiers", None, None),
        }
    }
}
