//! Refused requests, with what explains them.

use rescind_base::model::{Denial, DenialFilter, UnixSeconds};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{
    Postgres,
    audit::evict,
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::{
    RECORDS_SWEPT, Result, StoreError,
    values::{details_text, read_details},
};

const INSERT: &str = "
    INSERT INTO denial (request_id, at, node, operation, reason, status, owner, client_id, address, details)
    SELECT request, at, node, operation, reason, status, owner,
           coalesce(client, (SELECT client_id FROM credential WHERE credential.api_key = denied.api_key)), address, details
    FROM json_to_recordset($1::text::json) AS denied (
        request text, at bigint, node text, operation text, reason text, status bigint, owner bigint, client bigint,
        api_key text, address text, details text)";
const SELECT: &str = decisive!(
    "id, request_id, at, node, operation, reason, status, owner, client_id, address, details",
    "FROM denial
     WHERE id < $1 AND ($2::text IS NULL OR request_id = $2)
       AND ($3::bigint[] IS NULL OR client_id = ANY ($3)) AND ($4::text IS NULL OR address = $4)
       AND ($5::text IS NULL OR reason = $5) AND at >= $6 AND at < $7
     ORDER BY id DESC LIMIT $8"
);
const SWEEP_OLD: &str =
    "DELETE FROM denial WHERE id IN (SELECT id FROM denial WHERE at < $1 ORDER BY at LIMIT $2)";
// Counts nothing while all are among the newest $1: then they are not too many.
const BY_OWNER: &str = "
    SELECT owner AS client, count(*) AS count FROM denial
    WHERE EXISTS (SELECT FROM denial WHERE id <= (SELECT max(id) FROM denial) - $1) GROUP BY owner";
const SWEEP_TOO_MANY: &str = "
    DELETE FROM denial WHERE id IN (
        SELECT own.id FROM unnest($1::bigint[]) AS evicted (owner), LATERAL (
            SELECT id FROM denial WHERE denial.owner = evicted.owner ORDER BY id DESC OFFSET $2) AS own
        LIMIT $3)
     RETURNING id";

impl Postgres {
    pub(crate) async fn keep_denials(&self, denials: Vec<Denial>) -> Result<()> {
        self.write(INSERT, &[&as_json(&denials)]).await
    }

    pub(crate) async fn denials(&self, wanted: DenialFilter) -> Result<Vec<Denial>> {
        // No text of PostgreSQL has a NUL, so no request has such an id.
        if wanted.request.as_ref().is_some_and(|id| id.contains('\0')) {
            return Ok(vec![]);
        }
        let clients: Option<Vec<_>> = wanted.clients.map(|clients| clients.into_iter().map(Number).collect());
        let which: Parameters<'_> = &[
            &Number(wanted.before.unwrap_or(u64::MAX >> 1)),
            &wanted.request,
            &clients,
            &wanted.address,
            &wanted.reason,
            &Number(wanted.since),
            &Number(wanted.until),
            &Number(wanted.limit),
        ];
        let mut found = rows::read(&self.fetch(SELECT, which).await?, read)?;
        // A join does not guarantee the order.
        found.sort_unstable_by_key(|denial| std::cmp::Reverse(denial.id));
        Ok(found)
    }

    pub(crate) async fn sweep_denials(&self, before: UnixSeconds, most: u64) -> Result<bool> {
        let mut tx = self.transaction().await?;
        let old = tx.run(SWEEP_OLD, &[&Number(before), &Number(RECORDS_SWEPT)]).await?;
        let (_, is_evicted) = evict(&mut tx, BY_OWNER, SWEEP_TOO_MANY, most).await?;
        tx.done();
        Ok(old < RECORDS_SWEPT && is_evicted)
    }
}

/// Returns the parameter of [`INSERT`].
fn as_json(denials: &[Denial]) -> String {
    let denied = |denial: &Denial| {
        json!({
            "request": denial.request,
            "at": denial.at,
            "node": &*denial.node,
            "operation": denial.operation,
            "reason": denial.reason,
            "status": denial.status,
            "owner": denial.owner(),
            "client": denial.client,
            "api_key": denial.details.api_key,
            "address": denial.address,
            "details": details_text(&denial.details),
        })
    };
    Value::from_iter(denials.iter().map(denied)).to_string()
}

fn read(row: &Row) -> Result<Denial> {
    let status = u16::try_from(number(row, "status")?);
    Ok(Denial {
        id: number(row, "id")?,
        request: get(row, "request_id")?,
        at: number(row, "at")?,
        node: get::<String>(row, "node")?.into(),
        operation: get(row, "operation")?,
        reason: get(row, "reason")?,
        status: status.map_err(|_| StoreError::Unreadable("status of a denial".into()))?,
        client: maybe_number(row, "client_id")?,
        proven: number(row, "owner")? != 0,
        address: get(row, "address")?,
        details: read_details(&get::<String>(row, "details")?)?,
    })
}
