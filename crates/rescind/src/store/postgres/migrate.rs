//! Bringing the tables up to date.

use refinery::{Runner, error::Kind};
use tokio_postgres::error::SqlState;

use super::{
    authority::decisive,
    connection::{Connection, Connector},
    fault,
    rows::get,
};
use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Held by whoever brings the tables up to date: "rescind", in ASCII. Freed as its session ends.
const LOCK: &str = "SELECT pg_advisory_lock(x'72657363696e64'::bigint)";
const IS_NEW: &str = decisive!("to_regclass('refinery_schema_history') IS NULL AS is_new", "");
const NOT_GRANTED: &str = "
    SELECT count(*) > 0 AS some, current_user::text AS role, current_schema()::text AS schema
    FROM unnest(ARRAY['refinery_schema_history', 'schema', 'sealed_secret', 'signing_key', 'client', 'credential',
                      'verifier', 'session', 'head', 'change', 'node', 'audit', 'lost', 'clock']) AS relation,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE NOT has_table_privilege(to_regclass(relation), privilege)";
pub(super) const VERSION: &str = decisive!("max(version) AS version", "FROM refinery_schema_history");
const READABLE_BY: &str = decisive!("readable_by", "FROM schema");

/// Two processes that start at once do it one after the other. Where nothing is to be done, no right
/// to do it is needed.
pub(super) async fn migrate(connector: &Connector) -> Result<(), StoreError> {
    let mut db = connector.connect_for_long().await?;
    db.batch(LOCK).await?;
    may_use_tables(&mut db).await?;
    // What a newer version has added is left alone.
    let runner = embedded::migrations::runner().set_grouped(true).set_abort_missing(false);
    if !is_up_to_date(&mut db, &runner).await? {
        let warnings = db.warnings();
        runner.run_async(db.client()).await.map_err(refused)?;
        db.vouch(warnings)?;
    }

    let [readable_by] = db.prepared([READABLE_BY]).await?;
    let needed: i32 = get(&db.one(&readable_by, &[]).await?, "readable_by")?;
    if needed > newest_known() {
        return Err(StoreError::Unsuitable(
            "its tables are those of a newer version, which this one cannot read: run that version".into(),
        ));
    }
    db.done();
    Ok(())
}

/// The newest migration that this program knows.
pub(super) fn newest_known() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0)
}

/// Whether the rights on those tables that there are will do.
async fn may_use_tables(db: &mut Connection) -> Result<(), StoreError> {
    let [not_granted] = db.prepared([NOT_GRANTED]).await?;
    let missing = db.one(&not_granted, &[]).await?;
    if !get::<bool>(&missing, "some")? {
        return Ok(());
    }
    let (role, schema) = (get::<String>(&missing, "role")?, get::<String>(&missing, "schema")?);
    Err(StoreError::Unsuitable(format!(
        "the user may not use the tables: as their owner, GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN \
         SCHEMA \"{schema}\" TO \"{role}\""
    )))
}

async fn is_up_to_date(db: &mut Connection, runner: &Runner) -> Result<bool, StoreError> {
    let [is_new] = db.prepared([IS_NEW]).await?;
    if get(&db.one(&is_new, &[]).await?, "is_new")? {
        return Ok(false);
    }
    let applied = runner.get_applied_migrations_async(db.client()).await.map_err(refused)?;
    Ok(runner.get_migrations().iter().all(|migration| applied.contains(migration)))
}

fn refused(error: refinery::Error) -> StoreError {
    let foreign = || {
        StoreError::Unsuitable(format!(
            "its tables are not those of rescind ({error}): give it a database of its own"
        ))
    };
    let Kind::Connection(_, cause) = error.kind() else { return foreign() };
    let Some(cause) = cause.downcast_ref::<tokio_postgres::Error>() else { return foreign() };
    match cause.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Unsuitable(format!(
            "{}: as the database's owner, make the user of database.url the owner of a database of its own, or \
             GRANT CREATE ON SCHEMA public to it",
            fault::in_words(cause)
        )),
        Some(code) if code.code().starts_with("42") => foreign(),
        _ => StoreError::Unavailable(fault::in_words(cause).into()),
    }
}
