//! Brings the tables up to date.

use std::fmt::Display;

use tokio_postgres::{Client, Row, error::SqlState};
use tracing::warn;

use super::{
    connection::Connection, connector::Connector, error, rows::get, statements::decisive, waits::telling,
};
use crate::{
    Result, StoreError,
    migrations::{self, Applied, HISTORY, MAKE_HISTORY, POSTGRES},
};

/// The newest migration that this program knows.
pub(super) const NEWEST_KNOWN: i32 = migrations::newest(POSTGRES);

/// The lock of the session that brings the tables up to date: "rescind", in ASCII. It ends with that session.
const LOCK: &str = "SELECT pg_advisory_lock(x'72657363696e64'::bigint)";
const IS_NEW: &str = decisive!("to_regclass('refinery_schema_history') IS NULL AS is_new", "");
const SCHEMA: &str = decisive!(
    "current_schema()::text AS schema, current_setting('search_path') AS path,
     current_setting('server_encoding') AS encoding, to_regclass('refinery_schema_history') IS NULL AS is_new",
    ""
);
/// Every table that the migrations create.
pub(super) const TABLES: &[&str] = &[
    "administrator",
    "audit",
    "audit_checkpoint",
    "audit_cut",
    "change",
    "client",
    "clock",
    "creation",
    "credential",
    "credential_use",
    "denial",
    "expiry_notice",
    "handover",
    "head",
    "last_verification",
    "lost",
    "management_token",
    "node",
    "refinery_schema_history",
    "schema",
    "sealed_secret",
    "session",
    "sign_in",
    "signing_key",
    "usage",
    "verifier",
    "webhook",
    "webhook_delivery",
];
const NOT_GRANTED: &str = "
    SELECT count(*) > 0 AS some, current_user::text AS role, current_schema()::text AS schema
    FROM unnest($1::text[]) AS relation,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE NOT has_table_privilege(to_regclass(relation), privilege)";
pub(super) const VERSION: &str = decisive!("max(version) AS version", "FROM refinery_schema_history");
const READABLE_BY: &str = decisive!("readable_by", "FROM schema");

/// Brings the tables up to date. Two processes that start at once do so one after the other. If no migration is
/// missing, the user needs no rights beyond those on the tables.
pub(super) async fn migrate(connector: &Connector) -> Result<()> {
    let mut db = connector.connect_for_long().await?;
    has_a_schema(&mut db).await?;
    let process = db.process;
    let migrating = async {
        db.batch(LOCK).await?;
        may_use_tables(&mut db).await?;
        bring_up_to_date(&mut db).await
    };
    telling(connector, process, "bringing the tables up to date", migrating).await?;

    let needed: i32 = get(&db.fetch_one(READABLE_BY, &[]).await?, "readable_by")?;
    if needed > NEWEST_KNOWN {
        return Err(StoreError::Unsuitable(
            "its tables are those of a newer version, which this one cannot read: run that version".into(),
        ));
    }
    db.done();
    Ok(())
}

/// Checks that tables can be created and found.
async fn has_a_schema(db: &mut Connection) -> Result<()> {
    let row = db.fetch_one(SCHEMA, &[]).await?;
    let [path, encoding] = [get::<String>(&row, "path")?, get::<String>(&row, "encoding")?];
    if get::<Option<String>>(&row, "schema")?.is_none() {
        return Err(StoreError::Unsuitable(format!(
            "no schema of search_path = {path} is there, or the user has no right to it: create it and GRANT USAGE, \
             CREATE ON SCHEMA to the user, or set search_path of the role or the database to another one"
        )));
    }
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        let advice = format!("its encoding is {encoding}, which lacks most characters");
        if get::<bool>(&row, "is_new")? {
            return Err(StoreError::Unsuitable(format!(
                "{advice}: create it with ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        warn!("the database cannot hold every name: {advice}");
    }
    Ok(())
}

/// Checks the user's rights on the tables that exist.
async fn may_use_tables(db: &mut Connection) -> Result<()> {
    let missing = db.fetch_one(NOT_GRANTED, &[&TABLES]).await?;
    if !get::<bool>(&missing, "some")? {
        return Ok(());
    }
    let (role, schema) = (get::<String>(&missing, "role")?, get::<String>(&missing, "schema")?);
    Err(StoreError::Unsuitable(format!(
        "the user may not use the tables: as their owner, GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN \
         SCHEMA \"{schema}\" TO \"{role}\""
    )))
}

/// Applies the missing migrations. Migrations of newer programs are left alone.
async fn bring_up_to_date(db: &mut Connection) -> Result<()> {
    let is_new = get(&db.fetch_one(IS_NEW, &[]).await?, "is_new")?;
    let history = if is_new { vec![] } else { history(db.client()).await.map_err(refused)? };
    let missing = migrations::missing(POSTGRES, &history).map_err(|e| foreign(&e))?;
    if missing.is_empty() {
        return Ok(());
    }
    let script = format!("{MAKE_HISTORY};{}", migrations::script(missing));
    let warnings = db.warnings();
    let applying = async {
        let tx = db.client().transaction().await?;
        tx.batch_execute(&script).await?;
        tx.commit().await
    };
    applying.await.map_err(refused)?;
    db.ensure_replicated(warnings)
}

async fn history(db: &Client) -> Result<Vec<Applied>, tokio_postgres::Error> {
    let rows = db.query(HISTORY, &[]).await?;
    let applied = |row: &Row| {
        Ok(Applied { version: row.try_get(0)?, name: row.try_get(1)?, checksum: row.try_get(2)? })
    };
    rows.iter().map(applied).collect()
}

fn refused(error: tokio_postgres::Error) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Unsuitable(format!(
            "{}: as the database's owner, make the user of database.url the owner of a database of its own, or \
             GRANT CREATE ON SCHEMA public to it",
            error::in_words(&error)
        )),
        Some(code) if code.code().starts_with("42") => foreign(&error::in_words(&error)),
        _ => StoreError::Unavailable(error::in_words(&error).into()),
    }
}

fn foreign(why: &dyn Display) -> StoreError {
    StoreError::Unsuitable(format!(
        "its tables are not those of rescind ({why}): give it a database of its own"
    ))
}
