//! Operations on sessions: open, refresh, end and sweep.

use tokio::try_join;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Parameters,
    rows::{self, Number, number},
    statements::decisive,
};
use crate::{
    model::{Client, ClientId, Event, Phase, Session, SessionId, UnixSeconds},
    store::{StoreError, Swept, guarded},
};

/// Rows that one batch of a sweep looks at: few, so that no refresh waits long for it.
const SWEEP_BATCH: u64 = 1000;

const INSERT_SESSION: &str = "
    INSERT INTO session (client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                         issued_at, access_expires_at, refresh_expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id";
// Inserts the session under its former id if its row was deleted.
const END_SESSION: &str = "
    INSERT INTO session (id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                         issued_at, access_expires_at, refresh_expires_at)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (id) DO UPDATE SET phase = excluded.phase, refresh_expires_at = excluded.refresh_expires_at";
const UPDATE_SESSION: &str = "
    UPDATE session SET key_id = $2, pair = $3, phase = $4, issued_at = $5, access_expires_at = $6,
                       refresh_expires_at = $7
    WHERE id = $1";
const SWEEP_UP_TO: &str = decisive!(
    "max(id) AS last, count(*) AS count",
    "FROM (SELECT id FROM session WHERE id > $1 ORDER BY id LIMIT $2) AS batch"
);
// The conditions are on the row itself, so that PostgreSQL checks a row again that was refreshed meanwhile.
const SWEEP: &str = "
    DELETE FROM session USING client
    WHERE client.id = session.client_id AND session.id > $1 AND session.id <= $2
      AND (session.refresh_expires_at < $3 OR session.generation < client.generation)";

impl Postgres {
    pub(in crate::store) async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>, StoreError> {
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
        let values: Parameters<'_> = &[
            &Number(session.client),
            &Number(session.credential),
            &Number(session.key),
            &Number(session.generation),
            &session.scopes.as_str(),
            &Number(session.pair),
            &(session.phase as i16),
            &Number(session.started_at),
            &Number(session.issued_at),
            &Number(session.access_expires_at),
            &Number(session.refresh_expires_at),
        ];
        let (row, ()) = try_join!(biased; tx.one(&insert, values), tx.commit())?;
        session.id = number(&row, "id")?;
        Ok(Some(opened))
    }

    pub(in crate::store) async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>, StoreError> {
        let mut tx = self.transaction_of(client).await?;
        let [update, tell, record] = tx.prepared([UPDATE_SESSION, RECORD_CHANGE, audit::INSERT]).await?;
        let found = tx.begin_with_session(client, session).await?;
        let Some((client, Some(before))) = found.filter(|(client, found)| is_own(client, found.as_ref()))
        else {
            tx.commit_as_missing().await?;
            return Ok(None);
        };
        let mut after = before.clone();
        let (outcome, event) = guarded(|| rule(&client, &mut after))?;
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
            let ended = ChangedRow::Session { client: client.id, session };
            try_join!(biased; update, tx.commit_with_change([&tell, &record], ended, events))?
        } else {
            try_join!(biased; update, tx.commit_and_record(&record, events))?
        };
        match updated {
            1 => Ok(Some((outcome, after))),
            _ => Err(StoreError::Unavailable("the session was swept while it changed".into())),
        }
    }

    pub(in crate::store) async fn end_session(
        &self,
        client: ClientId,
        id: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<Session> + Send + 'static,
    ) -> Result<Option<Session>, StoreError> {
        let mut tx = self.transaction_of(client).await?;
        let [end, tell, record] = tx.prepared([END_SESSION, RECORD_CHANGE, audit::INSERT]).await?;
        let found = tx.begin_with_session(client, id).await?;
        let Some((client, found)) = found.filter(|(client, found)| is_own(client, found.as_ref())) else {
            tx.commit_as_missing().await?;
            return Ok(None);
        };
        let Some(ended) = guarded(|| rule(&client, found.clone()))? else {
            tx.commit_as_missing().await?;
            return Ok(None);
        };
        if found.as_ref() == Some(&ended) {
            // An end that was found must be as durable as a new one: see `change_client`.
            tx.commit().await?;
            return Ok(Some(ended));
        }
        let values: Parameters<'_> = &[
            &Number(id),
            &Number(ended.client),
            &Number(ended.credential),
            &Number(ended.key),
            &Number(ended.generation),
            &ended.scopes.as_str(),
            &Number(ended.pair),
            &(ended.phase as i16),
            &Number(ended.started_at),
            &Number(ended.issued_at),
            &Number(ended.access_expires_at),
            &Number(ended.refresh_expires_at),
        ];
        let what = ChangedRow::Session { client: client.id, session: id };
        try_join!(biased; tx.execute(&end, values), tx.commit_with_change([&tell, &record], what, &[]))?;
        Ok(Some(ended))
    }

    pub(in crate::store) async fn sweep(
        &self,
        after: SessionId,
        expired: UnixSeconds,
    ) -> Result<Swept, StoreError> {
        let mut tx = self.transaction().await?;
        let [last, delete] = tx.prepared([SWEEP_UP_TO, SWEEP]).await?;
        let batch = tx.one(&last, &[&Number(after), &Number(SWEEP_BATCH)]).await?;
        let Some(last) = rows::get::<Option<Number>>(&batch, "last")? else {
            tx.done();
            return Ok(Swept { deleted: 0, kept: 0, next: None });
        };
        let deleted = tx.execute(&delete, &[&Number(after), &last, &Number(expired)]).await?;
        tx.done();
        let [deleted, kept] = [deleted, number(&batch, "count")?.saturating_sub(deleted)]
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Ok(Swept { deleted, kept, next: Some(last.0) })
    }
}

/// Returns whether the session, if one was found, is this client's.
fn is_own(client: &Client, found: Option<&Session>) -> bool {
    found.is_none_or(|session| session.client == client.id)
}
