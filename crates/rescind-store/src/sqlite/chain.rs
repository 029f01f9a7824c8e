//! The chains of the audit log.

use rescind_base::model::{AuditKey, Checkpoint, Cut, Deleted, Link, Record, Stretch, UnixSeconds};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use crate::{
    Result,
    chain::{Chains, STRETCH, Unchained},
    values::chain_hash,
};

pub(super) const AFTER: &str = "SELECT id, at, number IS NULL FROM audit WHERE id > ? ORDER BY id LIMIT ?";
/// The most rows without a place that are told of.
const ADDED_TOLD: usize = 100;
pub(super) const RECORDS: &str = "SELECT * FROM audit WHERE node = ? AND number > ? ORDER BY number LIMIT ?";
pub(super) const CUTS: &str = "SELECT * FROM audit_cut WHERE chain = ? AND last > ? ORDER BY last LIMIT ?";
pub(super) const NEWEST: &str = "
    SELECT * FROM (
        SELECT number, hash FROM audit WHERE node = ?1 AND number IS NOT NULL
        UNION ALL SELECT last, hash FROM audit_cut WHERE chain = ?1)
    ORDER BY number DESC LIMIT 1";
pub(super) const ROWS_BESIDE: &str = "
    SELECT * FROM audit WHERE node = ?1
      AND number IN (SELECT value - 1 FROM json_each(?2) UNION ALL SELECT value + 1 FROM json_each(?2))";
// With OR, SQLite would look at every cut of the chain.
pub(super) const CUTS_BESIDE: &str = "
    DELETE FROM audit_cut WHERE chain = ?1 AND last IN (
        SELECT value - 1 FROM json_each(?2)
        UNION ALL
        SELECT last FROM audit_cut WHERE chain = ?1 AND first IN (SELECT value + 1 FROM json_each(?2)))
    RETURNING *";

impl Sqlite {
    pub(crate) async fn chains(&self) -> Result<Chains> {
        self.readers.read_long(|db| chains(&*db.unchecked_transaction()?)).await
    }

    pub(crate) async fn unchained(&self) -> Result<Unchained> {
        let (first, older) = self.readers.read_long(|db| older(&*db.unchecked_transaction()?)).await?;
        let (mut added, mut next) = (vec![], Some(first));
        while let Some(id) = next.filter(|_| added.len() < ADDED_TOLD) {
            let rows = self.readers.read_long(move |db| after(db, id)).await?;
            next = rows.last().map(|&(id, ..)| id);
            added.extend(rows.into_iter().filter_map(|(id, at, is_added)| is_added.then_some((id, at))));
        }
        added.truncate(ADDED_TOLD);
        Ok(Unchained { older, added })
    }

    pub(crate) async fn stretch(&self, chain: String, after: u64) -> Result<Stretch> {
        let read = move |db: &Connection| {
            let (db, next) = (db.unchecked_transaction()?, params![chain, after, STRETCH]);
            let records =
                db.prepare_cached(RECORDS)?.query_map(next, record)?.collect::<rusqlite::Result<_>>()?;
            let cuts = db.prepare_cached(CUTS)?.query_map(next, cut)?.collect::<rusqlite::Result<_>>()?;
            Ok(Stretch::of(records, cuts, STRETCH))
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn save_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        self.writer
            .write(move |db| {
                let Checkpoint { chain, link, at, signature } = checkpoint;
                db.prepare_cached(
                    "INSERT INTO audit_checkpoint (chain, number, hash, at, signature) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (chain) DO UPDATE SET number = excluded.number, hash = excluded.hash, at = excluded.at,
                         signature = excluded.signature WHERE number < excluded.number",
                )?
                .execute(params![chain, link.number, link.hash.0, at, signature])?;
                Ok(())
            })
            .await
    }
}

fn chains(db: &Connection) -> Result<Chains> {
    // One look-up for each chain, not one for each row.
    let mut names = db.prepare_cached(
        "WITH RECURSIVE chain (name) AS (
             SELECT min(node) FROM audit WHERE number IS NOT NULL
             UNION ALL
             SELECT (SELECT min(node) FROM audit WHERE node > name AND number IS NOT NULL) FROM chain WHERE name IS NOT NULL)
         SELECT name FROM chain WHERE name IS NOT NULL
         UNION SELECT chain FROM audit_cut UNION SELECT chain FROM audit_checkpoint ORDER BY name",
    )?;
    let names = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let newest = names.into_iter().map(|name| newest(db, &name).map(|link| (name, link)));
    let newest = newest.collect::<Result<_>>()?;
    let mut checkpoints =
        db.prepare_cached("SELECT chain, number, hash, at, signature FROM audit_checkpoint ORDER BY chain")?;
    let checkpoints = checkpoints.query_map([], |row| {
        let link = link(row, "number")?;
        Ok(Checkpoint {
            chain: row.get("chain")?,
            link,
            at: row.get("at")?,
            signature: row.get("signature")?,
        })
    })?;
    let checkpoints = checkpoints.collect::<rusqlite::Result<_>>()?;
    Ok(Chains { newest, checkpoints })
}

/// Returns the first row that has a place in a chain, and how many rows are before it.
fn older(db: &Connection) -> Result<(u64, u64)> {
    let first: Option<u64> =
        db.query_row("SELECT min(id) FROM audit WHERE number IS NOT NULL", [], |row| row.get(0))?;
    let first = first.unwrap_or(u64::MAX >> 1);
    let older = "SELECT count(*) FROM audit WHERE number IS NULL AND id < ?";
    Ok((first, db.query_row(older, [first], |row| row.get(0))?))
}

/// Returns the next rows after this one: ids, times, and whether they have no place in a chain.
fn after(db: &Connection, id: u64) -> Result<Vec<(u64, UnixSeconds, bool)>> {
    let mut rows = db.prepare_cached(AFTER)?;
    let rows = rows.query_map((id, STRETCH), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the last link of a chain.
pub(super) fn newest(db: &Connection, chain: &str) -> Result<Link> {
    let mut newest = db.prepare_cached(NEWEST)?;
    Ok(newest.query_row([chain], |row| link(row, "number")).optional()?.unwrap_or_default())
}

/// Writes the cuts of deleted rows, and takes in those that lie next to them.
pub(super) fn cut_out(db: &Connection, key: &AuditKey, deleted: Vec<Record>) -> Result<()> {
    let mut rows_beside = db.prepare_cached(ROWS_BESIDE)?;
    let mut cuts_beside = db.prepare_cached(CUTS_BESIDE)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO audit_cut (chain, first, last, before, hash, signature) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for (chain, mut deleted) in Deleted::by_chain(deleted) {
        let numbers = format!("{:?}", deleted.numbers().collect::<Vec<_>>());
        let of = params![chain, numbers];
        deleted.beside = rows_beside.query_map(of, record)?.collect::<rusqlite::Result<_>>()?;
        deleted.cuts = cuts_beside.query_map(of, cut)?.collect::<rusqlite::Result<_>>()?;
        for Cut { chain, first, before, last, signature } in deleted.cuts(key, &chain) {
            insert.execute(params![chain, first, last.number, before.0, last.hash.0, signature])?;
        }
    }
    Ok(())
}

fn cut(row: &Row<'_>) -> rusqlite::Result<Cut> {
    let (last, before) = (link(row, "last")?, chain_hash(&row.get::<_, Vec<u8>>("before")?));
    let (chain, first) = (row.get("chain")?, row.get("first")?);
    Ok(Cut { chain, first, before, last, signature: row.get("signature")? })
}

/// Reads a link whose number is in this column.
pub(super) fn link(row: &Row<'_>, number: &str) -> rusqlite::Result<Link> {
    let hash: Vec<u8> = row.get("hash")?;
    Ok(Link { number: row.get(number)?, hash: chain_hash(&hash) })
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get("id")?,
        at: row.get("at")?,
        kind: row.get("kind")?,
        by: row.get("actor")?,
        operator: row.get("operator")?,
        client: row.get("client_id")?,
        api_key: row.get("api_key")?,
        session: row.get("session_id")?,
        address: row.get("address")?,
        node: row.get("node")?,
        request: row.get("request_id")?,
        detail: row.get("detail")?,
        count: row.get("count")?,
        link: row.get::<_, Option<u64>>("number")?.map(|_| link(row, "number")).transpose()?,
    })
}
