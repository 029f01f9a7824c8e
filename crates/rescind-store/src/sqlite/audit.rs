//! The audit log.

use std::sync::{Arc, atomic::Ordering};

use rescind_base::model::{AuditKey, Event, EventFilter, Page, Record, Retention, UnixSeconds};
use rusqlite::{CachedStatement, Connection, Params, named_params};

use super::{Sqlite, chain};
use crate::{
    RECORDS_SWEPT, Result,
    eviction::{Eviction, evict},
};

/// The rows of a time are found by their ids if there are fewer.
const FEW: u64 = 10_000;

macro_rules! select {
    ($order:literal) => {
        concat!(
            "SELECT * FROM audit
             WHERE id > :after AND id < :before AND (:kind IS NULL OR kind = :kind)
               AND (:client IS NULL OR client_id = :client) AND at >= :since AND at < :until
             ORDER BY id ",
            $order,
            " LIMIT :limit"
        )
    };
}
pub(super) const OLDEST_FIRST: &str = select!("");
pub(super) const NEWEST_FIRST: &str = select!("DESC");
pub(super) const IDS_OF_TIME: &str = "
    SELECT min(id), max(id), count(*) FROM (
        SELECT id FROM audit WHERE at >= ? AND at < ? AND id > 0 LIMIT ?)";
pub(super) const SWEEP_OLD: &str = "
    DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2) RETURNING *";
pub(super) const SWEEP_TOO_MANY: &str = "
    DELETE FROM audit WHERE id IN (
        SELECT id FROM audit WHERE actor = 'caller' AND coalesce(client_id, 0) = ?1
        ORDER BY id DESC LIMIT ?2 OFFSET ?3)
    RETURNING *";

impl Sqlite {
    pub(crate) async fn record(&self, events: Vec<Event>) -> Result<()> {
        self.writer.write(move |db| insert(db, &events)).await
    }

    pub(crate) async fn records(&self, wanted: EventFilter) -> Result<Page> {
        let read = move |db: &Connection| {
            let db = db.unchecked_transaction()?;
            let newest = db.query_row("SELECT max(id) FROM audit", [], |row| row.get(0))?;
            Ok(wanted.page(select(&db, &wanted)?, newest))
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn sweep_records(
        &self,
        retention: Retention,
        now: UnixSeconds,
        key: AuditKey,
    ) -> Result<bool> {
        // A reader counts, not the writer: there may be a million rows.
        let eviction = self.readers.read_long(move |db| eviction(db, retention.max_rows)).await?;
        let readers = Arc::clone(&self.readers);
        let job = move |db: &Connection| {
            // A backup copies the rows one part after the other, and none may be missing without its cut.
            if readers.backups.load(Ordering::SeqCst) > 0 {
                return Ok(true);
            }
            let mut deleted = vec![];
            let mut old = db.prepare_cached(SWEEP_OLD)?;
            let old = delete(&mut old, (now.saturating_sub(retention.keep), RECORDS_SWEPT), &mut deleted)?;
            let mut too_many = db.prepare_cached(SWEEP_TOO_MANY)?;
            let is_evicted = evict(eviction, |which| delete(&mut too_many, which, &mut deleted))?;
            chain::cut_out(db, &key, deleted)?;
            Ok(old < RECORDS_SWEPT && is_evicted)
        };
        self.writer.write(job).await
    }
}

/// Deletes rows, and notes them. Returns how many there were.
fn delete(statement: &mut CachedStatement<'_>, with: impl Params, deleted: &mut Vec<Record>) -> Result<u64> {
    let before = deleted.len();
    for row in statement.query_map(with, chain::record)? {
        deleted.push(row?);
    }
    Ok((deleted.len() - before) as u64)
}

/// Returns the clients with too many records. Does not count while callers' records are among the newest `most`.
fn eviction(db: &Connection, most: u64) -> Result<Option<Eviction>> {
    let mut counts = db.prepare_cached(
        "SELECT coalesce(client_id, 0), count(*) FROM audit
         WHERE actor = 'caller' AND EXISTS (
             SELECT 1 FROM audit WHERE actor = 'caller' AND id <= (SELECT max(id) FROM audit) - ?1)
         GROUP BY coalesce(client_id, 0)",
    )?;
    let counts = counts.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Eviction::of(counts.collect::<Result<_, _>>()?, most))
}

pub(super) fn insert(db: &Connection, events: &[Event]) -> Result<()> {
    for event in events {
        let id = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'audit'";
        let record = event.record(db.prepare_cached(id)?.query_row([], |row| row.get(0))?);
        let link = chain::newest(db, &record.node)?.followed_by(&record);
        db.prepare_cached(
            "INSERT INTO audit (id, at, kind, actor, operator, client_id, api_key, session_id, address, node, request_id,
                                detail, count, number, hash)
             VALUES (:id, :at, :kind, :actor, :operator, :client, :api_key, :session, :address, :node, :request, :detail,
                     :count, :number, :hash)",
        )?
        .execute(named_params! {
            ":id": record.id,
            ":at": record.at,
            ":kind": record.kind,
            ":actor": record.by,
            ":operator": record.operator,
            ":client": record.client,
            ":api_key": record.api_key,
            ":session": record.session,
            ":address": record.address,
            ":node": record.node,
            ":request": record.request,
            ":detail": record.detail,
            ":count": record.count,
            ":number": link.number,
            ":hash": link.hash.0,
        })?;
    }
    Ok(())
}

fn select(db: &Connection, wanted: &EventFilter) -> Result<Vec<Record>> {
    let select = if wanted.after.is_some() { OLDEST_FIRST } else { NEWEST_FIRST };
    let (after, before) = ids_around(db, IDS_OF_TIME, wanted.since, wanted.until)?;
    let mut query = db.prepare_cached(select)?;
    let records = query.query_map(
        named_params! {
            ":after": wanted.after.unwrap_or(0).max(after),
            ":before": wanted.before.unwrap_or(before).min(before),
            ":kind": wanted.kind.map(|kind| kind.name()),
            ":client": wanted.client,
            ":since": wanted.since,
            ":until": wanted.until,
            ":limit": wanted.looked_for(),
        },
        chain::record,
    )?;
    Ok(records.collect::<Result<_, _>>()?)
}

/// Returns the ids before and after those of a time's rows, by a statement that finds the lowest and the highest in an index; of
/// a time with many rows, those before and after all. Ids are not quite in the order of the times, so a page between these
/// compares the times too. But it does not walk over all other rows in search of a few.
pub(super) fn ids_around(
    db: &Connection,
    sql: &str,
    since: UnixSeconds,
    until: UnixSeconds,
) -> Result<(u64, u64)> {
    let all = (0, u64::MAX >> 1);
    if since == 0 {
        return Ok(all);
    }
    let ids = db.prepare_cached(sql)?.query_row((since, until, FEW), |row| {
        Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?, row.get(2)?))
    });
    Ok(match ids? {
        (_, _, FEW) => all,
        (Some(first), Some(last), _) => (first - 1, last + 1),
        _ => (0, 0),
    })
}
