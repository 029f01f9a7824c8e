//! Refused requests, with what explains them.

use rescind_base::model::{Denial, DenialFilter, UnixSeconds};
use rusqlite::{Connection, Row, named_params};

use super::{Sqlite, audit::ids_around};
use crate::{
    RECORDS_SWEPT, Result,
    eviction::{Eviction, evict},
    values::{details_text, read_details},
};

macro_rules! select {
    ($request:literal) => {
        concat!(
            "SELECT * FROM denial
             WHERE ",
            $request,
            " AND id > :after AND id < :before
               AND (:clients IS NULL OR client_id IN (SELECT value FROM json_each(:clients)))
               AND (:address IS NULL OR address = :address) AND (:reason IS NULL OR reason = :reason)
               AND at >= :since AND at < :until
             ORDER BY id DESC LIMIT :limit"
        )
    };
}
pub(super) const NEWEST_FIRST: &str = select!(":request IS NULL");
pub(super) const OF_REQUEST: &str = select!("request_id = :request");
pub(super) const IDS_OF_TIME: &str = "
    SELECT min(id), max(id), count(*) FROM (
        SELECT id FROM denial WHERE at >= ? AND at < ? AND id > 0 LIMIT ?)";
pub(super) const SWEEP_OLD: &str =
    "DELETE FROM denial WHERE id IN (SELECT id FROM denial WHERE at < ?1 ORDER BY at LIMIT ?2)";
pub(super) const SWEEP_TOO_MANY: &str = "
    DELETE FROM denial WHERE id IN (
        SELECT id FROM denial WHERE owner = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3)";

impl Sqlite {
    pub(crate) async fn keep_denials(&self, denials: Vec<Denial>) -> Result<()> {
        self.writer.write(move |db| denials.iter().try_for_each(|denial| insert(db, denial))).await
    }

    pub(crate) async fn denials(&self, wanted: DenialFilter) -> Result<Vec<Denial>> {
        self.readers.read_long(move |db| select(&*db.unchecked_transaction()?, &wanted)).await
    }

    pub(crate) async fn sweep_denials(&self, before: UnixSeconds, most: u64) -> Result<bool> {
        // A reader counts, not the writer: there may be many rows.
        let eviction = self.readers.read_long(move |db| eviction(db, most)).await?;
        let job = move |db: &Connection| {
            let mut old = db.prepare_cached(SWEEP_OLD)?;
            let old = old.execute((before, RECORDS_SWEPT))? as u64;
            let mut too_many = db.prepare_cached(SWEEP_TOO_MANY)?;
            let is_evicted = evict(eviction, |which| Ok(too_many.execute(which)? as u64))?;
            Ok(old < RECORDS_SWEPT && is_evicted)
        };
        self.writer.write(job).await
    }
}

/// Returns the owners with too many denials. Does not count while all are among the newest `most`.
fn eviction(db: &Connection, most: u64) -> Result<Option<Eviction>> {
    let mut counts = db.prepare_cached(
        "SELECT owner, count(*) FROM denial
         WHERE EXISTS (SELECT 1 FROM denial WHERE id <= (SELECT max(id) FROM denial) - ?1) GROUP BY owner",
    )?;
    let counts = counts.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Eviction::of(counts.collect::<Result<_, _>>()?, most))
}

fn insert(db: &Connection, denial: &Denial) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO denial (request_id, at, node, operation, reason, status, owner, client_id, address, details)
         VALUES (:request, :at, :node, :operation, :reason, :status, :owner,
                 coalesce(:client, (SELECT client_id FROM credential WHERE api_key = :api_key)), :address, :details)",
    )?
    .execute(named_params! {
        ":request": denial.request,
        ":at": denial.at,
        ":node": denial.node,
        ":operation": denial.operation,
        ":reason": denial.reason,
        ":status": denial.status,
        ":owner": denial.owner(),
        ":client": denial.client,
        ":api_key": denial.details.api_key,
        ":address": denial.address,
        ":details": details_text(&denial.details),
    })?;
    Ok(())
}

fn select(db: &Connection, wanted: &DenialFilter) -> Result<Vec<Denial>> {
    let (after, before) = ids_around(db, IDS_OF_TIME, wanted.since, wanted.until)?;
    let select = if wanted.request.is_some() { OF_REQUEST } else { NEWEST_FIRST };
    let mut query = db.prepare_cached(select)?;
    let found = query.query_and_then(
        named_params! {
            ":after": after,
            ":before": wanted.before.unwrap_or(before).min(before),
            ":request": wanted.request,
            ":clients": wanted.clients.as_ref().map(|clients| format!("{clients:?}")),
            ":address": wanted.address,
            ":reason": wanted.reason,
            ":since": wanted.since,
            ":until": wanted.until,
            ":limit": wanted.limit,
        },
        read,
    )?;
    found.collect()
}

fn read(row: &Row<'_>) -> Result<Denial> {
    Ok(Denial {
        id: row.get("id")?,
        request: row.get("request_id")?,
        at: row.get("at")?,
        node: row.get("node")?,
        operation: row.get("operation")?,
        reason: row.get("reason")?,
        status: row.get("status")?,
        client: row.get("client_id")?,
        proven: row.get::<_, u64>("owner")? != 0,
        address: row.get("address")?,
        details: read_details(&row.get::<_, String>("details")?)?,
    })
}
