//! How many rows a change writes.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Home, create, login, logout};
use crate::{
    Store,
    postgres::tests::{copy_sessions, count_rows, rows_written},
};

pub(super) async fn logout_writes_as_much_however_many_sessions_live(home: &Home) {
    let store = Arc::new(home.open().await);
    let one = create(&store, "rk_1").await;
    let many = create(&store, "rk_2").await;
    login(&store, &one, 1000).await;
    login(&store, &many, 1000).await;
    match home {
        Home::Folder(_) => {
            let mut logins = JoinSet::new();
            for _ in 0..100_000 {
                if logins.len() == 1000 {
                    logins.join_next().await.unwrap().unwrap();
                }
                let (store, many) = (Arc::clone(&store), many.clone());
                logins.spawn(async move { login(&store, &many, 1000).await });
            }
            logins.join_all().await;
        }
        // One statement makes the sessions: the logins are not the test, and each would wait for the disk.
        Home::Database(url) => copy_sessions(url, many.id, 100_000).await,
    }
    // In a shared store a change also writes the head and a row of `change`.
    let expected = match home {
        Home::Folder(_) => 1,
        Home::Database(_) => 3,
    };
    if let Home::Database(url) = home {
        count_rows(url).await;
    }
    for client in [&one, &many] {
        let before = written(home, &store).await;
        assert_eq!(logout(&store, client).await.generation, 1);
        assert_eq!(written(home, &store).await - before, expected);
    }
}

/// Returns how many rows were inserted, changed and deleted so far.
async fn written(home: &Home, store: &Store) -> u64 {
    match (home, store) {
        (Home::Database(url), _) => rows_written(url).await,
        (_, Store::Sqlite(sqlite)) => sqlite.rows_written().await.unwrap(),
        _ => unreachable!("a folder is SQLite's"),
    }
}
