//! How SQLite carries out the statements on tables that grow with traffic.

use super::{audit, chain, connect, denials, migrate::migrate, rows};

/// Each reads or deletes a part of a table that may have a million rows, and must not look at the rest of it. With the part of
/// the plan that shows how it finds the rows.
const STATEMENTS: [(&str, &str); 17] = [
    (audit::OLDEST_FIRST, "SEARCH audit USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    (audit::NEWEST_FIRST, "SEARCH audit USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    (audit::IDS_OF_TIME, "COVERING INDEX audit_at (at>? AND at<?)"),
    (audit::SWEEP_OLD, "COVERING INDEX audit_at (at<?)"),
    (audit::SWEEP_TOO_MANY, "INDEX audit_of_caller (<expr>=?)"),
    (chain::AFTER, "SEARCH audit USING INTEGER PRIMARY KEY (rowid>?)"),
    (chain::RECORDS, "INDEX audit_chain (node=? AND number>?)"),
    (chain::CUTS, "SEARCH audit_cut USING PRIMARY KEY (chain=? AND last>?)"),
    (chain::NEWEST, "MERGE (UNION ALL)"),
    (chain::ROWS_BESIDE, "INDEX audit_chain (node=? AND number=?)"),
    (chain::CUTS_BESIDE, "SEARCH audit_cut USING PRIMARY KEY (chain=? AND last=?)"),
    (denials::NEWEST_FIRST, "SEARCH denial USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    (denials::OF_REQUEST, "INDEX denial_request (request_id=?"),
    (denials::IDS_OF_TIME, "COVERING INDEX denial_at (at>? AND at<?)"),
    (denials::SWEEP_OLD, "COVERING INDEX denial_at (at<?)"),
    (denials::SWEEP_TOO_MANY, "COVERING INDEX denial_owner (owner=?)"),
    (rows::SESSIONS_BEFORE, "SEARCH session USING INTEGER PRIMARY KEY (rowid<?)"),
];

#[test]
fn no_part_of_a_table_that_grows_is_found_by_a_walk_over_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut db = connect(&folder.path().join("rescind.db")).unwrap();
    migrate(&mut db).unwrap();
    for (sql, way) in STATEMENTS {
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            plan.raw_query().mapped(|row| row.get("detail")).collect::<rusqlite::Result<_>>().unwrap();
        assert!(plan.iter().any(|step| step.contains(way)), "{sql}: {plan:#?}");
        let walks = |step: &String| {
            step.contains("TEMP B-TREE FOR ORDER BY")
                || ["audit", "audit_cut", "denial", "session"]
                    .iter()
                    .any(|table| step.split(' ').take(2).eq(["SCAN", table]))
        };
        assert!(!plan.iter().any(walks), "{sql}: {plan:#?}");
    }
}
