//! Common parts of the statements by which something is decided.

/// The column that names who answered. Load balancers send a statement with a volatile function, such as
/// `pg_is_in_recovery()`, to the primary. A stand-by that is asked all the same names itself.
macro_rules! answered_by {
    () => {
        "CASE WHEN pg_is_in_recovery() THEN 'a stand-by' ELSE current_setting('rescind.session', true) END AS answered_by"
    };
}

/// Reads these columns, and who answered, to decide something. There is always a row, so that `answered_by` is known
/// where nothing is found: then `is_there` is null.
macro_rules! decisive {
    ($columns:expr, $from:expr) => {
        concat!(
            "SELECT answered_by, found.* FROM (SELECT ",
            $crate::postgres::statements::answered_by!(),
            ") AS asked LEFT JOIN (SELECT true AS is_there, ",
            $columns,
            " ",
            $from,
            ") AS found ON true"
        )
    };
    ($columns:expr, $from:expr, $order:expr) => {
        concat!($crate::postgres::statements::decisive!($columns, $from), " ORDER BY ", $order)
    };
}

pub(super) use {answered_by, decisive};
