//! The chains of the audit log.

use std::collections::BTreeMap;

use rescind_base::model::{AuditKey, Checkpoint, Cut, Deleted, Link, Record, Stretch};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use crate::{
    Result,
    chain::{Chains, STRETCH, Unchained},
    values::chain_hash,
};

impl Sqlite {
    pub(crate) async fn chains(&self) -> Result<Chains> {
        self.readers.read_long(|db| chains(&*db.unchecked_transaction()?)).await
    }

    pub(crate) async fn unchained(&self) -> Result<Unchained> {
        self.readers.read_long(|db| unchained(&*db.unchecked_transaction()?)).await
    }

    pub(crate) async fn stretch(&self, chain: String, after: u64) -> Result<Stretch> {
        let read = move |db: &Connection| {
            let db = db.unchecked_transaction()?;
            let mut records = db.prepare_cached(
                "SELECT * FROM audit WHERE node = ? AND number > ? ORDER BY number LIMIT ?",
            )?;
            let records = records.query_map(params![chain, after, STRETCH], record)?;
            let records = records.collect::<rusqlite::Result<Vec<_>>>()?;
            let mut cuts =
                db.prepare_cached("SELECT * FROM audit_cut WHERE chain = ? AND last > ? ORDER BY last")?;
            let cuts = cuts.query_map(params![chain, after], cut)?.collect::<rusqlite::Result<_>>()?;
            let more = records.len() as u64 == STRETCH;
            Ok(Stretch { records, cuts, more })
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

fn unchained(db: &Connection) -> Result<Unchained> {
    let first: Option<u64> =
        db.query_row("SELECT min(id) FROM audit WHERE number IS NOT NULL", [], |row| row.get(0))?;
    let first = first.unwrap_or(u64::MAX >> 1);
    let older =
        db.query_row("SELECT count(*) FROM audit WHERE number IS NULL AND id < ?", [first], |row| {
            row.get(0)
        })?;
    let mut added =
        db.prepare_cached("SELECT id, at FROM audit WHERE number IS NULL AND id > ? ORDER BY id LIMIT 100")?;
    let added = added.query_map([first], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Unchained { older, added: added.collect::<rusqlite::Result<_>>()? })
}

/// Returns the last link of a chain.
pub(super) fn newest(db: &Connection, chain: &str) -> Result<Link> {
    let mut newest = db.prepare_cached(
        "SELECT * FROM (
             SELECT number, hash FROM audit WHERE node = ?1 AND number IS NOT NULL
             UNION ALL SELECT last, hash FROM audit_cut WHERE chain = ?1)
         ORDER BY number DESC LIMIT 1",
    )?;
    Ok(newest.query_row([chain], |row| link(row, "number")).optional()?.unwrap_or_default())
}

/// Writes the cuts of deleted rows, and takes in those that lie next to them.
pub(super) fn cut_out(db: &Connection, key: &AuditKey, deleted: Vec<Record>) -> Result<()> {
    let mut rows_beside =
        db.prepare_cached("SELECT * FROM audit WHERE node = ?1 AND number IN (?2 - 1, ?2 + 1)")?;
    let mut cuts_beside = db.prepare_cached(
        "DELETE FROM audit_cut WHERE chain = ?1 AND (last = ?2 - 1 OR first = ?2 + 1) RETURNING *",
    )?;
    let mut insert = db.prepare_cached(
        "INSERT INTO audit_cut (chain, first, last, before, hash, signature) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    let mut chains = BTreeMap::<String, Deleted>::new();
    for row in deleted.into_iter().filter(|row| row.link.is_some()) {
        chains.entry(row.node.clone()).or_default().rows.push(row);
    }
    for (chain, mut deleted) in chains {
        for number in deleted.rows.iter().filter_map(|row| Some(row.link?.number)) {
            let found = rows_beside.query_map(params![chain, number], record)?;
            deleted.beside.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
            let found = cuts_beside.query_map(params![chain, number], cut)?;
            deleted.cuts.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
        }
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
