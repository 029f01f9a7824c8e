//! The places of a test's stores.

use rescind_base::random::Random;

use crate::{
    Store,
    postgres::tests::{Server, options},
};

/// Where a store keeps its data.
pub(super) enum Home {
    Folder(tempfile::TempDir),
    Database(String),
}

impl Home {
    pub(super) fn folder() -> Home {
        Home::Folder(tempfile::tempdir().unwrap())
    }

    pub(super) async fn database() -> Home {
        Home::Database(Server::shared().database().await)
    }

    pub(super) async fn open(&self) -> Store {
        match self {
            Home::Folder(folder) => {
                Store::open_file(&folder.path().join("rescind.db"), &Random::System).unwrap()
            }
            Home::Database(url) => Store::connect(&options(url)).await.unwrap(),
        }
    }
}
