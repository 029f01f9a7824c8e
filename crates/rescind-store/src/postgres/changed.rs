//! Which rows a change is of, and how the nodes learn of it.

use rescind_base::model::{ClientId, SessionId};

/// Numbers a change, and records its row. Every other change waits from here to the commit.
pub(super) const RECORD_CHANGE: &str = "
    WITH next AS (UPDATE head SET seq = seq + 1 RETURNING history, seq),
         told AS (INSERT INTO change (seq, kind, id, client) SELECT seq, $1, $2, $3 FROM next RETURNING mark)
    SELECT next.history, next.seq, told.mark FROM next, told";

/// The rows that a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedRow {
    /// A client, or one of its credentials.
    Client(ClientId),
    /// A session that ended before it expired.
    Session {
        /// The session's client.
        client: ClientId,
        /// The session.
        session: SessionId,
    },
    /// The signing keys, or the peppers.
    Keys,
    /// The verifiers that may follow the feed.
    Verifiers,
}

impl ChangedRow {
    /// Returns the columns `kind`, `id` and `client`.
    pub(super) fn columns(self) -> (&'static str, Option<u64>, Option<u64>) {
        match self {
            ChangedRow::Client(client) => ("client", Some(client), None),
            ChangedRow::Session { client, session } => ("session", Some(session), Some(client)),
            ChangedRow::Keys => ("keys", None, None),
            ChangedRow::Verifiers => ("verifiers", None, None),
        }
    }
}
