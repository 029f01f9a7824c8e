//! Copies everything in an embedded store into an empty database.

use std::{path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::{sync::mpsc::channel, task::spawn_blocking};

use super::{
    Postgres,
    connection::Connection,
    error,
    migrate::NEWEST_KNOWN,
    node::{JOIN, millis},
    rows::{Number, get},
    statements::answered_by,
};
use crate::{
    Copied, Result, StoreError, ended,
    sqlite::export::{Rows, export, last_ids},
};

/// Every table that is copied, with its columns.
const TABLES: [(&str, &str); 20] = [
    ("sealed_secret", "name, sealed"),
    ("signing_key", "id, kid, algorithm, sealed, refresh_sealed, rfc9068, created_at, signs_from, retire_at"),
    (
        "client",
        "id, name, status, generation, revision, allowlist, certificates, scopes, resources, enforces_allowlist, \
         introspect_lifetime, created_at, suspended_until, suspension_reason, tokens_revoked_at",
    ),
    (
        "credential",
        "id, client_id, api_key, secret_hash, pepper, created_at, expires_at, revoked_at, replaced_at, note",
    ),
    ("verifier", "id, name, token_hash, pepper, shares_hs256, created_at"),
    ("management_token", "id, name, role, clients, token_hash, pepper, created_at, expires_at, last_used_at"),
    (
        "administrator",
        "id, name, role, generation, password, totp, totp_used, enrolment_hash, enrolment_until, created_at, signed_in_at",
    ),
    ("creation", "token, key, request, created, at"),
    ("handover", "hash, client_id, api_key, sealed, created_at, ends_at, read_at"),
    (
        "session",
        "id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at, \
         access_expires_at, refresh_expires_at, resources",
    ),
    (
        "audit",
        "id, at, kind, actor, operator, client_id, api_key, session_id, address, node, request_id, detail, count, \
         number, hash",
    ),
    ("audit_cut", "chain, first, last, before, hash, signature"),
    ("audit_checkpoint", "chain, number, hash, at, signature"),
    ("webhook", "name, cursor, claimed_by, claimed_until"),
    ("webhook_delivery", "webhook, event, tries, next_at, tried_at, error"),
    ("credential_use", "credential_id, address, at, times"),
    ("usage", "hour, client_id, credential_id, logins, refreshes, verifications, denials"),
    ("last_verification", "credential_id, at, address"),
    ("expiry_notice", "subject, id, expires_at, days"),
    ("denial", "id, request_id, at, node, operation, reason, status, owner, client_id, address, details"),
];

/// Locks the tables, so that a first start waits and then finds the copied rows. The rows of the audit log keep their places
/// in their chains.
const BEGIN: &str = "
    BEGIN; SET LOCAL rescind.audit = 'copy'; LOCK TABLE sealed_secret, signing_key, client, credential, verifier, management_token, administrator, session, audit IN EXCLUSIVE MODE";
const IS_TAKEN: &str = concat!(
    "SELECT ",
    answered_by!(),
    ", EXISTS (SELECT FROM client) OR EXISTS (SELECT FROM signing_key) OR EXISTS (SELECT FROM sealed_secret)
       OR EXISTS (SELECT FROM verifier) OR EXISTS (SELECT FROM session) AS taken"
);
const CONTINUE_AFTER: &str = "SELECT setval(pg_get_serial_sequence($1, 'id'), $2)";
// Records a change for every copied row, for nodes that have started on the empty tables.
const TELL_ALL: &str = "
    WITH copied (kind, id, client) AS (
             SELECT 'client', id, NULL::bigint FROM client
             UNION ALL SELECT 'session', id, client_id FROM session WHERE phase = 2
             UNION ALL VALUES ('keys', NULL::bigint, NULL::bigint), ('verifiers', NULL, NULL)),
         told AS (
             INSERT INTO change (seq, kind, id, client)
             SELECT head.seq + row_number() OVER (), copied.kind, copied.id, copied.client FROM head, copied
             RETURNING seq)
    UPDATE head SET seq = (SELECT max(seq) FROM told)";

impl Postgres {
    /// Copies the embedded store in the file at `from`, in one transaction. `lent` is the longest lease term that the
    /// store may have granted to verifiers. Calls `progress` with the number of sessions copied so far.
    pub(crate) async fn move_in(
        &self,
        from: &Path,
        lent: Duration,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Copied> {
        let mut db = self.pool.manager().connect_for_long().await?;
        let warnings = db.warnings();
        db.batch(BEGIN).await?;
        if get(&db.fetch_one(IS_TAKEN, &[]).await?, "taken")? {
            return Err(StoreError::Unsuitable("it already holds clients or keys: name an empty one".into()));
        }
        let mut copied = Copied::default();
        for (table, columns) in TABLES {
            let mut nothing = |_| {};
            let progress: &mut (dyn FnMut(u64) + Send) =
                if table == "session" { &mut progress } else { &mut nothing };
            let rows = copy_table(&mut db, from, table, columns, progress).await?;
            match table {
                "client" => copied.clients = rows,
                "credential" => copied.credentials = rows,
                "session" => copied.sessions = rows,
                "audit" => copied.events = rows,
                _ => {}
            }
        }
        let path = from.to_owned();
        for (table, last) in spawn_blocking(move || last_ids(&path)).await.map_err(ended)?? {
            if TABLES.iter().any(|(name, _)| *name == table) {
                db.run(CONTINUE_AFTER, &[&table, &Number(last)]).await?;
            }
        }
        db.batch(TELL_ALL).await?;
        if !lent.is_zero() {
            // Nodes wait for this row as for a node that no longer renews its lease.
            db.run(JOIN, &[&"rescind.db", &Number(millis(lent)), &NEWEST_KNOWN, &None::<&str>]).await?;
        }
        db.commit(warnings).await?;
        db.done();
        Ok(copied)
    }
}

async fn copy_table(
    db: &mut Connection,
    from: &Path,
    table: &'static str,
    columns: &'static str,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<u64> {
    let (send, mut read) = channel::<Rows>(8);
    let path = from.to_owned();
    let reading = spawn_blocking(move || export(&path, table, columns, &send));
    let copy = format!("COPY {table} ({columns}) FROM STDIN");
    let mut sink = pin!(db.client().copy_in::<_, Bytes>(&copy).await.map_err(error::during)?);
    let mut count = 0;
    while let Some(rows) = read.recv().await {
        sink.send(rows.text.into()).await.map_err(error::during)?;
        count += rows.count;
        progress(count);
    }
    // If an error drops the sink before `finish`, the server discards the rows.
    reading.await.map_err(ended)??;
    let written = sink.finish().await.map_err(error::during)?;
    if written == count {
        Ok(count)
    } else {
        Err(StoreError::Unavailable(format!("of {count} rows of {table}, {written} arrived").into()))
    }
}
