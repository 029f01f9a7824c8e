//! Tests of the PostgreSQL store alone.

mod authority;
mod copy;
mod doubt;
#[path = "../../../tests/fixture/postgres.rs"]
mod fixture;
mod history;
mod nodes;
mod pooled;
mod room;
mod settings;
mod start;
mod tls;

use std::time::Duration;

use tokio_postgres::Client as Session;

pub(crate) use fixture::{Server, connect};

use super::{Number, PostgresOptions, audit};
use crate::{Store, conformance};

const WAITS_FOR_A_LOCK: &str = "SELECT count(*) > 0 FROM pg_stat_activity
                                WHERE datname = current_database() AND wait_event_type = 'Lock'";

pub(crate) fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.parse().unwrap(),
        pool_size: 16,
        // No test waits for this limit; a busy machine may be slow.
        statement_timeout: Duration::from_secs(60),
        tls_ca: None,
        accept_lost_commits: false,
        require_synchronous: false,
    }
}

/// Starts to count the rows that are written.
pub(crate) async fn count_rows(url: &str) {
    let db = connect(url).await;
    db.batch_execute(
        "CREATE SEQUENCE written;
         CREATE FUNCTION written() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM nextval(''written''); RETURN NULL; END';
         DO $$ DECLARE t text; BEGIN
             FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
                 EXECUTE format('CREATE TRIGGER written AFTER INSERT OR UPDATE OR DELETE ON %I
                                 FOR EACH ROW EXECUTE FUNCTION written()', t);
             END LOOP;
         END $$;
         SELECT nextval('written');",
    )
    .await
    .unwrap();
}

pub(crate) async fn rows_written(url: &str) -> u64 {
    let row = connect(url).await.query_one("SELECT last_value FROM written", &[]).await.unwrap();
    row.get::<_, Number>(0).0
}

/// Copies each session of a client `count` times.
pub(crate) async fn copy_sessions(url: &str, client: u64, count: i32) {
    const COLUMNS: &str =
        "client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at,
                           access_expires_at, refresh_expires_at";
    let copy = format!(
        "INSERT INTO session ({COLUMNS})
         SELECT {COLUMNS} FROM session, generate_series(1, $2) WHERE client_id = $1"
    );
    connect(url).await.execute(&copy, &[&Number(client), &count]).await.unwrap();
}

/// Waits until `sql` returns true.
async fn until(db: &Session, sql: &str) {
    for _ in 0..3000 {
        if db.query_one(sql, &[]).await.unwrap().get(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be: {sql}");
}
