//! The time of the last use.

use rescind_base::model::UnixSeconds;

use super::Sqlite;
use crate::{
    Result,
    values::{LAST_USED, SAVE_USED},
};

impl Sqlite {
    pub(crate) async fn last_used(&self) -> Result<UnixSeconds> {
        self.read(|db| Ok(db.query_row(LAST_USED, [], |row| row.get(0))?)).await
    }

    pub(crate) async fn used_at(&self, now: UnixSeconds) -> Result<()> {
        self.writer.write(move |db| Ok(db.execute(SAVE_USED, [now]).map(drop)?)).await
    }
}
