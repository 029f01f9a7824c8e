//! Operations on sessions: open, refresh, end and sweep.

use rescind_base::model::{Client, ClientId, Event, Phase, Session, SessionId, UnixSeconds};
use tokio::try_join;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Parameters,
    rows::{self, Number, number},
    statements::decisive,
};
use crate::{Result, StoreError, Swept, guarded};

/// Rows that one batch of a sweep looks at: few, so that no refresh waits long for it.
const SWEEP_BATCH: u64 = 1000;

const INSERT_SESSION: &str = "
    INSERT INTO session (client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                         issued_at, access_expires_at, refresh_expires_at, resources)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id";
// Inserts the session under its former id if its row was deleted.
const END_SESSION: &str = "
    INSERT INTO session (id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                         issued_at, access_expires_at, refresh_expires_at, resources)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO UPDATE SET phase = excluded.phase, refresh_expires_at = excluded.refresh_expires_at";
const UPDATE_SESSION: &str = "
    UPDATE session SET key_id = $2, pair = $3, phase = $4, issued_at = $5, access_expires_at = $6,
                       refresh_expires_at = $7
    WHERE id = $1";
const IDS: &str = decisive!("min(id) AS first, max(id) AS last", "FROM session");
const SWEEP_UP_TO: &str = decisive!(
    "max(id) AS last, count(*) AS count",
    "FROM (SELECT id FROM session WHERE id > $1 ORDER BY id LIMIT $2) AS batch"
);
// A session that was lost with its login has no client (`history.rs`). The conditions are on the row itself, so that
// PostgreSQL checks a row again that was refreshed meanwhile.
const SWEEP: &str = "
    DELETE FROM session WHERE id > $1 AND id <= $2
      AND (refresh_expires_at < $3
           OR generation < (SELECT generation FROM client WHERE client.id = session.client_id))";

/// The values of a session's columns, after that of the id.
macro_rules! session_values {
    ($session:expr $(, $id:expr)?) => {
        &[
            $($id,)?
            &Number($session.client),
            &Number($session.credential),
            &Number($session.key),
            &Number($session.generation),
            &$session.scopes.as_str(),
            &Number($session.pair),
            &($session.phase as i16),
            &Number($session.started_at),
            &Number($session.issued_at),
            &Number($session.access_expires_at),
            &Number($session.refresh_expires_at),
            &$session.resources.to_string(),
        ]
    };
}

impl Postgres {
    pub(crate) async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>> {
        let mut tx = self.transaction_of(client).await?;
        let [insert] = tx.prepared([INSERT_SESSION]).await?;
        let Some(client) = tx.begin_with_client(client).await? else {
            tx.roll_back().await?;
            return Ok(None);
        };
        let mut opened = guarded(|| rule(&client))?;
        let Ok(session) = &mut opened else {
            tx.roll_back().await?;
            return Ok(Some(opened));
        };
        let values: Parameters<'_> = session_values!(session);
        let (row, ()) = try_join!(biased; tx.one(&insert, values), tx.commit())?;
        session.id = number(&row, "id")?;
        Ok(Some(opened))
    }

    pub(crate) async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>> {
        let mut tx = self.transaction_of(client).await?;
        let [update, tell, record] = tx.prepared([UPDATE_SESSION, RECORD_CHANGE, audit::INSERT]).await?;
        let found = tx.begin_with_session(client, session).await?;
        let before = found.session.filter(|session| session.client == client);
        let (Some(owner), Some(before)) = (found.client, before) else {
            tx.commit_as_missing().await?;
            return Ok(None);
        };
        let mut after = before.clone();
        let (outcome, event) = guarded(|| rule(&owner, &mut after))?;
        let events = event.as_slice();
        if after == before {
            // A pair that is issued again must be as durable as a new one: see `change_client`.
            tx.commit().await?;
            return Ok(Some((outcome, after)));
        }
        let values: Parameters<'_> = &[
            &Number(after.id),
            &Number(after.key),
            &Number(after.pair),
            &(after.phase as i16),
            &Number(after.issued_at),
            &Number(after.access_expires_at),
            &Number(after.refresh_expires_at),
        ];
        let update = tx.execute(&update, values);
        let (updated, ()) = if after.phase == Phase::Ended && before.phase != Phase::Ended {
            let ended = ChangedRow::Session { client, session };
            try_join!(biased; update, tx.commit_with_change([&tell, &record], ended, events))?
        } else {
            try_join!(biased; update, tx.commit_and_record(&record, events))?
        };
        match updated {
            1 => Ok(Some((outcome, after))),
            _ => Err(StoreError::Unavailable("the session was swept while it changed".into())),
        }
    }

    pub(crate) async fn end_session(
        &self,
        client: ClientId,
        id: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<(Session, Option<Event>)> + Send + 'static,
    ) -> Result<Option<Session>> {
        let mut tx = self.transaction_of(client).await?;
        let [end, tell, record] = tx.prepared([END_SESSION, RECORD_CHANGE, audit::INSERT]).await?;
        let found = tx.begin_with_session(client, id).await?;
        let is_foreign = found.session.as_ref().is_some_and(|session| session.client != client);
        let owner = found.client.filter(|_| !is_foreign);
        let ended = guarded(|| owner.and_then(|owner| rule(&owner, found.session.clone())))?;
        let Some((ended, event)) = ended else {
            tx.commit_as_missing().await?;
            return Ok(None);
        };
        if found.session.as_ref() == Some(&ended) {
            // An end that was found must be as durable as a new one: see `change_client`.
            tx.commit().await?;
            return Ok(Some(ended));
        }
        let values: Parameters<'_> = session_values!(ended, &Number(id));
        let what = ChangedRow::Session { client, session: id };
        let told = tx.commit_with_change([&tell, &record], what, event.as_slice());
        try_join!(biased; tx.execute(&end, values), told)?;
        Ok(Some(ended))
    }

    pub(crate) async fn session_ids(&self) -> Result<Option<(SessionId, SessionId)>> {
        let ids = rows::one(self.fetch(IDS, &[]).await?)?;
        let [first, last] = ["first", "last"].map(|name| rows::get::<Option<Number>>(&ids, name));
        Ok(first?.zip(last?).map(|(first, last)| (first.0, last.0)))
    }

    pub(crate) async fn sweep(&self, after: SessionId, expired: UnixSeconds) -> Result<Swept> {
        let mut tx = self.transaction().await?;
        let batch = tx.fetch_one(SWEEP_UP_TO, &[&Number(after), &Number(SWEEP_BATCH)]).await?;
        let Some(last) = rows::get::<Option<Number>>(&batch, "last")? else {
            tx.done();
            return Ok(Swept { deleted: 0, kept: 0, next: None });
        };
        let deleted = tx.run(SWEEP, &[&Number(after), &last, &Number(expired)]).await?;
        tx.done();
        let [deleted, kept] = [deleted, number(&batch, "count")?.saturating_sub(deleted)]
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Ok(Swept { deleted, kept, next: Some(last.0) })
    }
}
