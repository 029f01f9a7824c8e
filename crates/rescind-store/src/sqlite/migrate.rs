//! Brings the tables up to date.

use std::fmt::Display;

use rusqlite::{Connection, ErrorCode};

use crate::{
    Result, StoreError,
    migrations::{self, Applied, HISTORY, MAKE_HISTORY, SQLITE},
};

/// One transaction creates the tables and adds the migrations to the history, so that a kill leaves both or neither.
pub(super) fn migrate(db: &mut Connection) -> Result<()> {
    let tx = db.transaction()?;
    let history = history(&tx).map_err(refused)?;
    if let Some(newer) = history.get(SQLITE.len()) {
        return Err(foreign(&format_args!(
            "its migration {} ({}) is a newer one",
            newer.version, newer.name
        )));
    }
    let missing = migrations::missing(SQLITE, &history).map_err(|e| foreign(&e))?;
    tx.execute_batch(&migrations::script(missing)).map_err(refused)?;
    Ok(tx.commit()?)
}

fn history(db: &Connection) -> Result<Vec<Applied>, rusqlite::Error> {
    db.execute_batch(MAKE_HISTORY)?;
    let mut query = db.prepare(HISTORY)?;
    let rows = query.query_map([], |row| {
        Ok(Applied { version: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? })
    })?;
    rows.collect()
}

fn refused(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        // The statement or the value does not fit the existing tables.
        None | Some(ErrorCode::Unknown) => foreign(&error),
        Some(_) => error.into(),
    }
}

fn foreign(why: &dyn Display) -> StoreError {
    StoreError::Unreadable(format!("its tables are not those of this version, nor older ones: {why}"))
}
