//! The migrations of both stores, and which of them a store still needs.
//!
//! A store's history is a table with one row for each applied migration. The table's name, its columns and the
//! checksums are those of a library that earlier versions used, so that their stores need no conversion.

use std::fmt::Write;

use rescind_base::clock::{Clock, rfc3339};
use thiserror::Error;

/// Creates the history table, if there is none.
pub(super) const MAKE_HISTORY: &str = "
    CREATE TABLE IF NOT EXISTS refinery_schema_history (
        version    int4 PRIMARY KEY,
        name       VARCHAR(255),
        applied_on VARCHAR(255),
        checksum   VARCHAR(255))";
/// The columns of [`Applied`].
pub(super) const HISTORY: &str =
    "SELECT version, name, checksum FROM refinery_schema_history ORDER BY version";

/// A step from one version of the tables to the next. A migration that was released is never edited.
#[derive(Debug)]
pub(super) struct Migration {
    version: i32,
    name: &'static str,
    /// SipHash-1-3 of name, version and SQL as Rust hashes them, with a key of zeros; in decimal.
    checksum: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($folder:literal, $($version:literal $name:literal $checksum:literal,)+) => {
        &[$(Migration {
            version: $version,
            name: $name,
            checksum: $checksum,
            sql: include_str!(concat!("../migrations/", $folder, "/V", $version, "__", $name, ".sql")),
        }),+]
    };
}

/// Each migration's number is its place, counted from 1.
pub(super) const SQLITE: &[Migration] = migrations! { "sqlite",
    1 "initial" "9679596992246476093",
    2 "audit" "2147152956577216057",
    3 "client_certificates" "16507789932061383346",
    4 "promise" "2053733516921080405",
    5 "resources" "11032876857501590008",
    6 "introspect_lifetime" "6839932620187203510",
    7 "operators" "15067431312237593497",
    8 "management_tokens" "4836817494874840191",
    9 "pepper" "13725044747189022448",
    10 "usage" "4722453772449919129",
    11 "denials" "15850884384434172218",
    12 "audit_chain" "14811804501496670453",
    13 "administrators" "526702147782434878",
};
/// Each migration's number is its place, counted from 1.
pub(super) const POSTGRES: &[Migration] = migrations! { "postgres",
    1 "initial" "3009340895722490991",
    2 "audit" "18185080689172977765",
    3 "client_certificates" "3517322860522715612",
    4 "promise" "367010546301617778",
    5 "resources" "10428010471272407676",
    6 "introspect_lifetime" "12384775659289691851",
    7 "operators" "3413468163475611641",
    8 "profile" "11855605527034809763",
    9 "management_tokens" "4337476055740936554",
    10 "pepper" "13644041986755864704",
    11 "usage" "14707280961098766658",
    12 "denials" "6253580983066985921",
    13 "audit_chain" "17879868967927038793",
    14 "administrators" "2798366848783051872",
};

/// A migration that a store's history contains.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) version: i32,
    pub(super) name: String,
    pub(super) checksum: String,
}

/// The store has another migration in the place of one of this program's.
#[derive(Debug, Error)]
#[error("its migration {version} ({name}) is not the one of this program")]
pub(super) struct Differs {
    version: i32,
    name: String,
}

/// Returns the migrations that a store with this history lacks. Migrations of newer programs are ignored.
///
/// # Errors
/// Fails if the store has another migration in the place of one of these.
pub(super) fn missing(
    known: &'static [Migration],
    history: &[Applied],
) -> Result<&'static [Migration], Differs> {
    let same = |known: &Migration, has: &Applied| {
        (known.version, known.name, known.checksum) == (has.version, &has.name, &has.checksum)
    };
    match known.iter().zip(history).find(|(known, has)| !same(known, has)) {
        Some((_, has)) => Err(Differs { version: has.version, name: has.name.clone() }),
        None => Ok(known.get(history.len()..).unwrap_or_default()),
    }
}

/// Returns SQL, for one transaction, that applies these migrations and adds them to the history.
pub(super) fn script(migrations: &[Migration]) -> String {
    let now = rfc3339(Clock::System.now());
    let mut script = String::new();
    for Migration { version, name, checksum, sql } in migrations {
        // Writing to a string does not fail.
        let _ = write!(
            script,
            "{sql};
             INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 VALUES ({version}, '{name}', '{now}', '{checksum}');\n"
        );
    }
    script
}

/// Returns the number of the newest of these migrations.
pub(super) const fn newest(known: &[Migration]) -> i32 {
    match known.last() {
        Some(migration) => migration.version,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    fn history(migrations: &[Migration]) -> Vec<Applied> {
        let applied = |m: &Migration| Applied {
            version: m.version,
            name: m.name.to_owned(),
            checksum: m.checksum.to_owned(),
        };
        migrations.iter().map(applied).collect()
    }

    /// The checksums are defined by the standard library's hasher, though its algorithm may change in a later
    /// version.
    #[test]
    fn checksums_are_those_of_the_files_and_numbers_those_of_the_places() {
        for migrations in [SQLITE, POSTGRES] {
            for (place, migration) in (1..).zip(migrations) {
                assert_eq!(migration.version, place);
                let mut hasher = DefaultHasher::new();
                (migration.name, migration.version, migration.sql).hash(&mut hasher);
                assert_eq!(hasher.finish().to_string(), migration.checksum, "{}", migration.name);
            }
        }
    }

    #[test]
    fn a_store_lacks_what_its_history_does_not_have() {
        for has in 0..=POSTGRES.len() {
            let missing = missing(POSTGRES, &history(&POSTGRES[..has])).unwrap();
            assert_eq!(missing.first().map(|m| m.version), POSTGRES.get(has).map(|m| m.version));
        }
        let mut newer = history(POSTGRES);
        newer.push(Applied { version: 99, name: "colours".into(), checksum: "1".into() });
        assert!(missing(POSTGRES, &newer).unwrap().is_empty());
    }

    #[test]
    fn a_history_with_another_migration_or_a_gap_is_refused() {
        let told = |history: &[Applied]| missing(POSTGRES, history).unwrap_err().to_string();
        assert!(told(&history(SQLITE)).starts_with("its migration 1 (initial)"));
        let mut with_a_gap = history(POSTGRES);
        with_a_gap.remove(1);
        assert!(told(&with_a_gap).starts_with("its migration 3 (client_certificates)"));
    }
}
