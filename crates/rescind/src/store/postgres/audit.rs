//! The audit log.

use tokio_postgres::Row;

use super::{
    Postgres, SNAPSHOT,
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::{
    model::{Event, Page, Record, Retention, UnixSeconds, Wanted},
    store::{Crowd, RECORDS_SWEPT, StoreError},
};

/// Locks the head, so that events are committed in the order of their ids. A reader that has seen an id then misses
/// no lower one.
pub(super) const LOCK_HEAD: &str = "SELECT FROM head FOR NO KEY UPDATE";
pub(super) const INSERT: &str = "
    INSERT INTO audit (at, kind, actor, client_id, api_key, session_id, address, node, request_id, detail, count)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                         $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[])";
const NEWEST: &str = decisive!("max(id) AS newest", "FROM audit");

macro_rules! select {
    ($order:literal) => {
        decisive!(
            "id, at, kind, actor, client_id, api_key, session_id, address, node, request_id, detail, count",
            concat!(
                "FROM audit
                 WHERE id > $1 AND ($2::text IS NULL OR kind = $2) AND ($3::bigint IS NULL OR client_id = $3)
                   AND at >= $4
                 ORDER BY id ",
                $order,
                " LIMIT $5"
            )
        )
    };
}
const OLDEST_FIRST: &str = select!("");
const NEWEST_FIRST: &str = select!("DESC");

const SWEEP_OLD: &str =
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";
// Counts nothing while all records of callers are among the newest $1 of all: then they are not too many.
const BY_CLIENT: &str = "
    SELECT coalesce(client_id, 0) AS client, count(*) AS count FROM audit
    WHERE actor = 'caller' AND EXISTS (
        SELECT FROM audit WHERE actor = 'caller' AND id <= (SELECT max(id) FROM audit) - $1)
    GROUP BY coalesce(client_id, 0)";
const SWEEP_TOO_MANY: &str = "
    DELETE FROM audit WHERE id IN (
        SELECT own.id FROM unnest($1::bigint[]) AS crowd (client), LATERAL (
            SELECT id FROM audit WHERE actor = 'caller' AND coalesce(client_id, 0) = crowd.client
            ORDER BY id DESC OFFSET $2) AS own
        LIMIT $3)";

impl Postgres {
    pub(in crate::store) async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([INSERT]).await?;
        tx.batch("BEGIN").await?;
        tx.commit_and_record(&record, &events).await
    }

    pub(in crate::store) async fn records(&self, wanted: Wanted) -> Result<Page, StoreError> {
        let mut tx = self.transaction().await?;
        let select = if wanted.after.is_some() { OLDEST_FIRST } else { NEWEST_FIRST };
        let [select, newest] = tx.prepared([select, NEWEST]).await?;
        let which: Parameters<'_> = &[
            &Number(wanted.after.unwrap_or(0)),
            &wanted.kind.map(|kind| kind.name()),
            &wanted.client.map(Number),
            &Number(wanted.since),
            &Number(wanted.limit),
        ];
        let ((), found, newest, ()) = tokio::try_join!(
            biased;
            tx.batch(SNAPSHOT),
            tx.query(&select, which),
            tx.one(&newest, &[]),
            tx.batch("COMMIT"),
        )?;
        tx.done();
        Ok(wanted.page(rows::read(&found, read)?, maybe_number(&newest, "newest")?))
    }

    pub(in crate::store) async fn sweep_records(
        &self,
        retention: Retention,
        now: UnixSeconds,
    ) -> Result<bool, StoreError> {
        let mut tx = self.transaction().await?;
        let [old, by_client, too_many] = tx.prepared([SWEEP_OLD, BY_CLIENT, SWEEP_TOO_MANY]).await?;
        let batch = Number(RECORDS_SWEPT);
        let before = Number(now.saturating_sub(retention.keep));
        let old = tx.execute(&old, &[&before, &batch]).await?;
        let counts = tx.query(&by_client, &[&Number(retention.max_rows)]).await?;
        let counts = rows::read(&counts, |row| Ok((number(row, "client")?, number(row, "count")?)))?;
        let (too_many, excess) = match Crowd::of(counts, retention.max_rows) {
            Some(Crowd { clients, keep, excess }) => {
                let clients: Vec<_> = clients.into_iter().map(Number).collect();
                (tx.execute(&too_many, &[&clients, &Number(keep), &batch]).await?, excess)
            }
            None => (0, 0),
        };
        tx.done();
        Ok(old < RECORDS_SWEPT && too_many >= excess)
    }
}

/// Events by columns, so that one statement inserts any number of them.
#[derive(Default)]
pub(super) struct Columns {
    at: Vec<Number>,
    kind: Vec<&'static str>,
    actor: Vec<&'static str>,
    client: Vec<Option<Number>>,
    api_key: Vec<Option<String>>,
    session: Vec<Option<Number>>,
    address: Vec<Option<String>>,
    node: Vec<String>,
    request: Vec<Option<String>>,
    detail: Vec<Option<String>>,
    count: Vec<Number>,
}

impl Columns {
    pub(super) fn of(events: &[Event]) -> Columns {
        let mut columns = Columns::default();
        for Event { kind, origin, client, api_key, session, detail, count } in events {
            columns.at.push(Number(origin.at));
            columns.kind.push(kind.name());
            columns.actor.push(origin.by.name());
            columns.client.push(client.map(Number));
            columns.api_key.push(api_key.clone());
            columns.session.push(session.map(Number));
            columns.address.push(origin.from_text());
            columns.node.push(origin.node.to_string());
            columns.request.push(origin.request.clone());
            columns.detail.push(detail.clone());
            columns.count.push(Number(*count));
        }
        columns
    }

    /// Returns the parameters of [`INSERT`].
    pub(super) fn parameters(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 11] {
        let Columns { at, kind, actor, client, api_key, session, address, node, request, detail, count } =
            self;
        [at, kind, actor, client, api_key, session, address, node, request, detail, count]
    }
}

fn read(row: &Row) -> Result<Record, StoreError> {
    Ok(Record {
        id: number(row, "id")?,
        at: number(row, "at")?,
        kind: get(row, "kind")?,
        by: get(row, "actor")?,
        client: maybe_number(row, "client_id")?,
        api_key: get(row, "api_key")?,
        session: maybe_number(row, "session_id")?,
        address: get(row, "address")?,
        node: get(row, "node")?,
        request: get(row, "request_id")?,
        detail: get(row, "detail")?,
        count: number(row, "count")?,
    })
}
