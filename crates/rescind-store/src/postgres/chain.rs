//! The chains of the audit log. `audit_link`, a trigger, links each new row to the row before.

use rescind_base::model::{AuditKey, Checkpoint, Cut, Deleted, Link, Record, Stretch};
use tokio_postgres::Row;

use super::{
    Postgres, SNAPSHOT,
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
    transaction::Transaction,
};
use crate::{
    Result,
    chain::{Chains, STRETCH, Unchained},
    values::chain_hash,
};

macro_rules! columns {
    () => {
        "id, at, kind, actor, operator, client_id, api_key, session_id, address, node, request_id, detail, count, number, hash"
    };
}
pub(super) use columns;

// One look-up for each chain, not one for each row.
const NEWEST: &str = decisive!(
    "name, number, hash",
    "FROM (
         WITH RECURSIVE chain (name) AS (
             SELECT min(node) FROM audit WHERE number IS NOT NULL
             UNION ALL
             SELECT (SELECT min(node) FROM audit WHERE node > name AND number IS NOT NULL) FROM chain WHERE name IS NOT NULL)
         SELECT name FROM chain WHERE name IS NOT NULL
         UNION SELECT chain FROM audit_cut UNION SELECT chain FROM audit_checkpoint) AS chains
     LEFT JOIN LATERAL (
         SELECT * FROM (
             (SELECT number, hash FROM audit WHERE node = name AND number IS NOT NULL ORDER BY number DESC LIMIT 1)
             UNION ALL
             (SELECT last, hash FROM audit_cut WHERE chain = name ORDER BY last DESC LIMIT 1)) AS ends
         ORDER BY number DESC LIMIT 1) AS newest ON true",
    "name"
);
const CHECKPOINTS: &str = decisive!("chain, number, hash, at, signature", "FROM audit_checkpoint", "chain");
const FIRST: &str = decisive!("min(id) AS first", "FROM audit WHERE number IS NOT NULL");
const UNCHAINED: &str = decisive!("count(*) AS count", "FROM audit WHERE number IS NULL AND id < $1");
const ADDED: &str = decisive!(
    "id, at",
    "FROM (SELECT id, at FROM audit WHERE number IS NULL AND id > $1 ORDER BY id LIMIT 100) AS added",
    "id"
);
const RECORDS: &str = decisive!(
    columns!(),
    "FROM (SELECT * FROM audit WHERE node = $1 AND number > $2 ORDER BY number LIMIT $3) AS stretch",
    "number"
);
const CUTS: &str = decisive!(
    "chain, first, last, before, hash, signature",
    "FROM (SELECT * FROM audit_cut WHERE chain = $1 AND last > $2 ORDER BY last LIMIT $3) AS stretch",
    "last"
);
const SAVE: &str = "
    INSERT INTO audit_checkpoint AS known (chain, number, hash, at, signature) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (chain) DO UPDATE SET number = excluded.number, hash = excluded.hash, at = excluded.at,
        signature = excluded.signature WHERE known.number < excluded.number";
/// Two sweeps at once could make two cuts of rows that lie beside each other, or wait for each other's rows.
pub(super) const BEGIN_SWEEP: &str =
    "BEGIN; SET LOCAL rescind.audit = 'sweep'; LOCK TABLE audit_cut IN EXCLUSIVE MODE";
const ROWS_BESIDE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM audit WHERE node = $2
      AND number IN (SELECT beside FROM unnest($1::bigint[]) AS n, LATERAL (VALUES (n - 1), (n + 1)) AS v (beside))"
);
const CUTS_BESIDE: &str = "
    DELETE FROM audit_cut USING unnest($1::bigint[]) AS deleted (number)
    WHERE chain = $2 AND (last = deleted.number - 1 OR first = deleted.number + 1)
    RETURNING chain, first, last, before, hash, signature";
const CUT: &str = "
    INSERT INTO audit_cut (chain, first, last, before, hash, signature)
    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[])";

impl Postgres {
    pub(crate) async fn chains(&self) -> Result<Chains> {
        let mut tx = self.transaction().await?;
        tx.batch(SNAPSHOT).await?;
        let newest = rows::read(&tx.fetch(NEWEST, &[]).await?, |row| {
            let newest = maybe_number(row, "number")?.map(|_| link(row, "number")).transpose()?;
            Ok((get(row, "name")?, newest.unwrap_or_default()))
        })?;
        let checkpoints = rows::read(&tx.fetch(CHECKPOINTS, &[]).await?, |row| {
            let (chain, link) = (get(row, "chain")?, link(row, "number")?);
            Ok(Checkpoint { chain, link, at: number(row, "at")?, signature: get(row, "signature")? })
        })?;
        tx.batch("COMMIT").await?;
        tx.done();
        Ok(Chains { newest: newest.into_iter().collect(), checkpoints })
    }

    pub(crate) async fn unchained(&self) -> Result<Unchained> {
        let mut tx = self.transaction().await?;
        tx.batch(SNAPSHOT).await?;
        let first = maybe_number(&tx.fetch_one(FIRST, &[]).await?, "first")?.unwrap_or(u64::MAX >> 1);
        let older = number(&tx.fetch_one(UNCHAINED, &[&Number(first)]).await?, "count")?;
        let added = tx.fetch(ADDED, &[&Number(first)]).await?;
        let added = rows::read(&added, |row| Ok((number(row, "id")?, number(row, "at")?)))?;
        tx.batch("COMMIT").await?;
        tx.done();
        Ok(Unchained { older, added })
    }

    pub(crate) async fn stretch(&self, chain: String, after: u64) -> Result<Stretch> {
        let mut tx = self.transaction().await?;
        let [records, cuts] = tx.prepared([RECORDS, CUTS]).await?;
        let next: Parameters<'_> = &[&chain, &Number(after), &Number(STRETCH)];
        let ((), records, cuts, ()) = tokio::try_join!(
            biased;
            tx.batch(SNAPSHOT),
            tx.query(&records, next),
            tx.query(&cuts, next),
            tx.batch("COMMIT"),
        )?;
        tx.done();
        Ok(Stretch::of(rows::read(&records, record)?, rows::read(&cuts, cut)?, STRETCH))
    }

    pub(crate) async fn save_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint { chain, link, at, signature } = checkpoint;
        let (number, hash, at) = (Number(link.number), link.hash.0.as_slice(), Number(at));
        self.fetch(SAVE, &[&chain, &number, &hash, &at, &signature]).await.map(drop)
    }
}

/// Writes the cuts of deleted rows, and takes in those that lie next to them.
pub(super) async fn cut_out(tx: &mut Transaction, key: &AuditKey, deleted: Vec<Record>) -> Result<()> {
    for (chain, mut deleted) in Deleted::by_chain(deleted) {
        let numbers: Vec<_> = deleted.numbers().map(Number).collect();
        deleted.beside = rows::read(&tx.fetch(ROWS_BESIDE, &[&numbers, &chain]).await?, record)?;
        deleted.cuts = rows::read(&tx.fetch(CUTS_BESIDE, &[&numbers, &chain]).await?, cut)?;
        let cuts = deleted.cuts(key, &chain);
        let firsts: Vec<_> = cuts.iter().map(|cut| Number(cut.first)).collect();
        let lasts: Vec<_> = cuts.iter().map(|cut| Number(cut.last.number)).collect();
        let befores: Vec<_> = cuts.iter().map(|cut| cut.before.0.as_slice()).collect();
        let hashes: Vec<_> = cuts.iter().map(|cut| cut.last.hash.0.as_slice()).collect();
        let signatures: Vec<_> = cuts.iter().map(|cut| cut.signature.as_slice()).collect();
        tx.run(CUT, &[&chain, &firsts, &lasts, &befores, &hashes, &signatures]).await?;
    }
    Ok(())
}

fn cut(row: &Row) -> Result<Cut> {
    let (chain, last) = (get(row, "chain")?, link(row, "last")?);
    let before = chain_hash(&get::<Vec<u8>>(row, "before")?);
    Ok(Cut { chain, first: number(row, "first")?, before, last, signature: get(row, "signature")? })
}

/// Reads a link whose number is in this column.
pub(super) fn link(row: &Row, column: &str) -> Result<Link> {
    Ok(Link { number: number(row, column)?, hash: chain_hash(&get::<Vec<u8>>(row, "hash")?) })
}

pub(super) fn record(row: &Row) -> Result<Record> {
    Ok(Record {
        id: number(row, "id")?,
        at: number(row, "at")?,
        kind: get(row, "kind")?,
        by: get(row, "actor")?,
        operator: get(row, "operator")?,
        client: maybe_number(row, "client_id")?,
        api_key: get(row, "api_key")?,
        session: maybe_number(row, "session_id")?,
        address: get(row, "address")?,
        node: get(row, "node")?,
        request: get(row, "request_id")?,
        detail: get(row, "detail")?,
        count: number(row, "count")?,
        link: maybe_number(row, "number")?.map(|_| link(row, "number")).transpose()?,
    })
}
