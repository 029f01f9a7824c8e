//! The time of the last use.

use super::Sqlite;
use crate::{model::UnixSeconds, store::StoreError};

const LAST_USED: &str = "
    SELECT coalesce(
        (SELECT used_at FROM clock),
        (SELECT max(at) FROM (
            SELECT max(at) AS at FROM audit
            UNION ALL SELECT max(created_at) FROM client
            UNION ALL SELECT max(created_at) FROM signing_key
            UNION ALL SELECT issued_at FROM session WHERE id = (SELECT max(id) FROM session)) AS newest),
        0) AS used_at";

impl Sqlite {
    pub(in crate::store) async fn last_used(&self) -> Result<UnixSeconds, StoreError> {
        self.read(|db| Ok(db.query_row(LAST_USED, [], |row| row.get(0))?)).await
    }

    pub(in crate::store) async fn used_at(&self, now: UnixSeconds) -> Result<(), StoreError> {
        self.writer
            .write(move |db| {
                let save = "INSERT INTO clock (id, used_at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at";
                db.execute(save, [now])?;
                Ok(())
            })
            .await
    }
}
