//! The time of the last use.

use super::Sqlite;
use crate::{
    model::UnixSeconds,
    store::{
        Result,
        values::{LAST_USED, SAVE_USED},
    },
};

impl Sqlite {
    pub(in crate::store) async fn last_used(&self) -> Result<UnixSeconds> {
        self.read(|db| Ok(db.query_row(LAST_USED, [], |row| row.get(0))?)).await
    }

    pub(in crate::store) async fn used_at(&self, now: UnixSeconds) -> Result<()> {
        self.writer.write(move |db| Ok(db.execute(SAVE_USED, [now]).map(drop)?)).await
    }
}
