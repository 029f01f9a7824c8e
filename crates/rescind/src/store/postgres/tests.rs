//! What PostgreSQL alone must do.

#[path = "../../../tests/fixture/postgres.rs"]
mod fixture;

use std::time::Duration;

pub(in crate::store) use fixture::{Server, connect};

use super::*;

pub(in crate::store) fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.parse().unwrap(),
        pool_size: 16,
        // No test waits for it; a busy machine may be slow.
        statement_timeout: Duration::from_secs(60),
        tls_ca: None,
        accept_lost_commits: false,
    }
}

/// Counts the rows written from now on.
pub(in crate::store) async fn count_rows(url: &str) {
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

pub(in crate::store) async fn rows_written(url: &str) -> u64 {
    let row = connect(url).await.query_one("SELECT last_value FROM written", &[]).await.unwrap();
    row.get::<_, Number>(0).0
}
