//! A table's rows as PostgreSQL's `COPY` reads them.

use std::{io::Write, path::Path};

use rusqlite::types::ValueRef;
use tokio::sync::mpsc::Sender;

use super::connect;
use crate::{Result, StoreError};

/// Bytes that are sent at once.
const CHUNK: usize = 64 * 1024;

/// Some whole rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    pub(crate) text: Vec<u8>,
}

/// Sends every row of a table, in the order of the ids. Stops when the receiver is dropped.
pub(crate) fn export(path: &Path, table: &str, columns: &str, send: &Sender<Rows>) -> Result<()> {
    let db = connect(path)?;
    let mut query = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1"))?;
    let width = query.column_count();
    let mut found = query.query([])?;
    let mut rows = Rows::default();
    while let Some(row) = found.next()? {
        for column in 0..width {
            write(&mut rows.text, row.get_ref(column)?).map_err(|e| StoreError::Unavailable(e.into()))?;
            rows.text.push(if column + 1 < width { b'\t' } else { b'\n' });
        }
        rows.count += 1;
        if rows.text.len() >= CHUNK && send.blocking_send(std::mem::take(&mut rows)).is_err() {
            return Ok(());
        }
    }
    // A dropped receiver is no error of the table.
    let _ = send.blocking_send(rows);
    Ok(())
}

/// Returns the highest id that each table has ever given, with the table's name.
pub(crate) fn last_ids(path: &Path) -> Result<Vec<(String, u64)>> {
    let db = connect(path)?;
    let mut query = db.prepare("SELECT name, seq FROM sqlite_sequence")?;
    let ids = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn write(text: &mut Vec<u8>, value: ValueRef<'_>) -> std::io::Result<()> {
    match value {
        ValueRef::Null => text.write_all(b"\\N"),
        ValueRef::Integer(number) => write!(text, "{number}"),
        ValueRef::Real(number) => write!(text, "{number}"),
        ValueRef::Blob(bytes) => {
            text.write_all(b"\\\\x")?;
            bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
        }
        ValueRef::Text(bytes) => bytes.iter().try_for_each(|byte| match byte {
            b'\\' => text.write_all(b"\\\\"),
            b'\n' => text.write_all(b"\\n"),
            b'\r' => text.write_all(b"\\r"),
            b'\t' => text.write_all(b"\\t"),
            byte => text.write_all(&[*byte]),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_so_that_none_looks_like_another() {
        let written = |value| {
            let mut text = vec![];
            write(&mut text, value).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(written(ValueRef::Null), r"\N");
        assert_eq!(written(ValueRef::Text(br"\N")), r"\\N");
        assert_eq!(written(ValueRef::Text("a\tb\nc\rd\\é".as_bytes())), r"a\tb\nc\rd\\é");
        assert_eq!(written(ValueRef::Integer(-5)), "-5");
        assert_eq!(written(ValueRef::Blob(&[0, 255])), r"\\x00ff");
    }
}
