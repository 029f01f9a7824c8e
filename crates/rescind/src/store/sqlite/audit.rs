//! The audit log.

use rusqlite::{Connection, Row, named_params};

use super::Sqlite;
use crate::{
    model::{Event, Page, Record, Retention, UnixSeconds, Wanted},
    store::{Crowd, RECORDS_SWEPT, StoreError},
};

impl Sqlite {
    pub(in crate::store) async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        self.writer.write(move |db| insert(db, &events)).await
    }

    pub(in crate::store) async fn records(&self, wanted: Wanted) -> Result<Page, StoreError> {
        self.read(move |db| {
            let db = db.unchecked_transaction()?;
            let newest = db.query_row("SELECT max(id) FROM audit", [], |row| row.get(0))?;
            Ok(wanted.page(select(&db, &wanted)?, newest))
        })
        .await
    }

    pub(in crate::store) async fn sweep_records(
        &self,
        retention: Retention,
        now: UnixSeconds,
    ) -> Result<bool, StoreError> {
        // A reader counts, not the writer: there may be a million rows.
        let crowd = self.read(move |db| crowd(db, retention.max_rows)).await?;
        self.writer
            .write(move |db| {
                let mut old = db.prepare_cached(
                    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2)",
                )?;
                let old = old.execute((now.saturating_sub(retention.keep), RECORDS_SWEPT))? as u64;
                let Some(Crowd { clients, keep, excess }) = crowd else { return Ok(old < RECORDS_SWEPT) };
                let mut too_many = db.prepare_cached(
                    "DELETE FROM audit WHERE id IN (
                         SELECT id FROM audit WHERE actor = 'caller' AND coalesce(client_id, 0) = ?1
                         ORDER BY id DESC LIMIT ?2 OFFSET ?3)",
                )?;
                let mut gone = 0;
                for client in clients {
                    gone += too_many.execute((client, RECORDS_SWEPT - gone, keep))? as u64;
                    if gone == RECORDS_SWEPT {
                        break;
                    }
                }
                Ok(old < RECORDS_SWEPT && gone >= excess)
            })
            .await
    }
}

/// Returns the clients with too many records. Does not count while callers' records are among the newest `most`.
fn crowd(db: &Connection, most: u64) -> Result<Option<Crowd>, StoreError> {
    let mut counts = db.prepare_cached(
        "SELECT coalesce(client_id, 0), count(*) FROM audit
         WHERE actor = 'caller' AND EXISTS (
             SELECT 1 FROM audit WHERE actor = 'caller' AND id <= (SELECT max(id) FROM audit) - ?1)
         GROUP BY coalesce(client_id, 0)",
    )?;
    let counts = counts.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Crowd::of(counts.collect::<Result<_, _>>()?, most))
}

pub(super) fn insert(db: &Connection, events: &[Event]) -> Result<(), StoreError> {
    for Event { kind, origin, client, api_key, session, detail, count } in events {
        db.prepare_cached(
            "INSERT INTO audit (at, kind, actor, client_id, api_key, session_id, address, node, request_id,
                                detail, count)
             VALUES (:at, :kind, :actor, :client, :api_key, :session, :address, :node, :request, :detail,
                     :count)",
        )?
        .execute(named_params! {
            ":at": origin.at,
            ":kind": kind.name(),
            ":actor": origin.by.name(),
            ":client": client,
            ":api_key": api_key,
            ":session": session,
            ":address": origin.from_text(),
            ":node": origin.node,
            ":request": origin.request,
            ":detail": detail,
            ":count": count,
        })?;
    }
    Ok(())
}

fn select(db: &Connection, wanted: &Wanted) -> Result<Vec<Record>, StoreError> {
    let order = if wanted.after.is_some() { "" } else { "DESC" };
    let mut query = db.prepare_cached(&format!(
        "SELECT * FROM audit
         WHERE id > :after AND (:kind IS NULL OR kind = :kind)
           AND (:client IS NULL OR client_id = :client) AND at >= :since
         ORDER BY id {order} LIMIT :limit"
    ))?;
    let records = query.query_map(
        named_params! {
            ":after": wanted.after.unwrap_or(0),
            ":kind": wanted.kind.map(|kind| kind.name()),
            ":client": wanted.client,
            ":since": wanted.since,
            ":limit": wanted.limit,
        },
        read,
    )?;
    Ok(records.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get("id")?,
        at: row.get("at")?,
        kind: row.get("kind")?,
        by: row.get("actor")?,
        client: row.get("client_id")?,
        api_key: row.get("api_key")?,
        session: row.get("session_id")?,
        address: row.get("address")?,
        node: row.get("node")?,
        request: row.get("request_id")?,
        detail: row.get("detail")?,
        count: row.get("count")?,
    })
}
