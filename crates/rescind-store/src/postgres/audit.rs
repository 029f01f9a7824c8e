//! The audit log.

use rescind_base::model::{AuditKey, Event, EventFilter, Page, Retention, UnixSeconds};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{
    Postgres, SNAPSHOT, chain,
    connection::{Connection, Parameters},
    rows::{self, Number, maybe_number, number},
    statements::decisive,
};
use crate::{RECORDS_SWEPT, Result, eviction::Eviction};

/// Locks the head, so that events are committed in the order of their ids. A reader that has seen an id then misses
/// no lower one.
pub(super) const LOCK_HEAD: &str = "SELECT FROM head FOR NO KEY UPDATE";
pub(super) const INSERT: &str = "
    INSERT INTO audit (at, kind, actor, operator, client_id, api_key, session_id, address, node, request_id, detail, count)
    SELECT * FROM json_to_recordset($1::text::json) AS event (
        at bigint, kind text, actor text, operator text, client bigint, api_key text, session bigint, address text, node text,
        request text, detail text, count bigint)";
const NEWEST: &str = decisive!("max(id) AS newest", "FROM audit");

macro_rules! select {
    ($order:literal) => {
        decisive!(
            chain::columns!(),
            concat!(
                "FROM audit
                 WHERE id > $1 AND ($2::text IS NULL OR kind = $2) AND ($3::bigint IS NULL OR client_id = $3)
                   AND at >= $4 AND at < $5 AND id < $7
                 ORDER BY id ",
                $order,
                " LIMIT $6"
            )
        )
    };
}
const OLDEST_FIRST: &str = select!("");
const NEWEST_FIRST: &str = select!("DESC");

const SWEEP_OLD: &str = concat!(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2) RETURNING ",
    chain::columns!()
);
// Counts nothing while all records of callers are among the newest $1 of all: then they are not too many.
const BY_CLIENT: &str = "
    SELECT coalesce(client_id, 0) AS client, count(*) AS count FROM audit
    WHERE actor = 'caller' AND EXISTS (
        SELECT FROM audit WHERE actor = 'caller' AND id <= (SELECT max(id) FROM audit) - $1)
    GROUP BY coalesce(client_id, 0)";
const SWEEP_TOO_MANY: &str = concat!(
    "DELETE FROM audit WHERE id IN (
        SELECT own.id FROM unnest($1::bigint[]) AS evicted (client), LATERAL (
            SELECT id FROM audit WHERE actor = 'caller' AND coalesce(client_id, 0) = evicted.client
            ORDER BY id DESC OFFSET $2) AS own
        LIMIT $3)
     RETURNING ",
    chain::columns!()
);

impl Postgres {
    pub(crate) async fn record(&self, events: Vec<Event>) -> Result<()> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([INSERT]).await?;
        tx.batch("BEGIN").await?;
        tx.commit_and_record(&record, &events).await
    }

    pub(crate) async fn records(&self, wanted: EventFilter) -> Result<Page> {
        let mut tx = self.transaction().await?;
        let select = if wanted.after.is_some() { OLDEST_FIRST } else { NEWEST_FIRST };
        let [select, newest] = tx.prepared([select, NEWEST]).await?;
        let which: Parameters<'_> = &[
            &Number(wanted.after.unwrap_or(0)),
            &wanted.kind.map(|kind| kind.name()),
            &wanted.client.map(Number),
            &Number(wanted.since),
            &Number(wanted.until),
            &Number(wanted.looked_for()),
            &Number(wanted.before.unwrap_or(u64::MAX >> 1)),
        ];
        let ((), found, newest, ()) = tokio::try_join!(
            biased;
            tx.batch(SNAPSHOT),
            tx.query(&select, which),
            tx.one(&newest, &[]),
            tx.batch("COMMIT"),
        )?;
        tx.done();
        Ok(wanted.page(rows::read(&found, chain::record)?, maybe_number(&newest, "newest")?))
    }

    pub(crate) async fn sweep_records(
        &self,
        retention: Retention,
        now: UnixSeconds,
        key: AuditKey,
    ) -> Result<bool> {
        let mut tx = self.transaction().await?;
        let before = Number(now.saturating_sub(retention.keep));
        tx.batch(chain::BEGIN_SWEEP).await?;
        let mut deleted = tx.fetch(SWEEP_OLD, &[&before, &Number(RECORDS_SWEPT)]).await?;
        let old = deleted.len() as u64;
        let (evicted, is_evicted) = evict(&mut tx, BY_CLIENT, SWEEP_TOO_MANY, retention.max_rows).await?;
        deleted.extend(evicted);
        chain::cut_out(&mut tx, &key, rows::read(&deleted, chain::record)?).await?;
        tx.commit().await?;
        Ok(old < RECORDS_SWEPT && is_evicted)
    }
}

/// Deletes a batch of the records of the clients with too many: one statement counts each client's, and one deletes and
/// returns. Returns the deleted, and whether no more remain to be deleted.
pub(super) async fn evict(
    db: &mut Connection,
    count: &'static str,
    delete: &'static str,
    most: u64,
) -> Result<(Vec<Row>, bool)> {
    let counts = db.fetch(count, &[&Number(most)]).await?;
    let counts = rows::read(&counts, |row| Ok((number(row, "client")?, number(row, "count")?)))?;
    let Some(Eviction { clients, keep, excess }) = Eviction::of(counts, most) else {
        return Ok((vec![], true));
    };
    let clients: Vec<_> = clients.into_iter().map(Number).collect();
    let evicted = db.fetch(delete, &[&clients, &Number(keep), &Number(RECORDS_SWEPT)]).await?;
    let is_all = evicted.len() as u64 >= excess;
    Ok((evicted, is_all))
}

/// Returns the parameter of [`INSERT`]: one statement inserts any number of events.
pub(super) fn as_json(events: &[Event]) -> String {
    let event = |Event { kind, origin, client, api_key, session, detail, count }: &Event| {
        json!({
            "at": origin.at,
            "kind": kind.name(),
            "actor": origin.by.name(),
            "operator": origin.operator.as_deref(),
            "client": client,
            "api_key": api_key,
            "session": session,
            "address": origin.from_text(),
            "node": &*origin.node,
            "request": origin.request,
            "detail": detail,
            "count": count,
        })
    };
    Value::from_iter(events.iter().map(event)).to_string()
}
