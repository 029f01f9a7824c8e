//! What statements have in common by which something is decided.

/// The column that says who has answered. Load balancers send what calls a volatile function, such as
/// `pg_is_in_recovery()`, to the primary; a stand-by that is asked all the same says what it is.
macro_rules! answered_by {
    () => {
        "CASE WHEN pg_is_in_recovery() THEN 'a stand-by' ELSE current_setting('rescind.session', true) END AS answered_by"
    };
}

/// Reads these columns to decide something. Who has answered is told where nothing is found, too:
/// there is always a row, in which `is_there` is null then.
macro_rules! decisive {
    ($columns:expr, $from:expr) => {
        concat!(
            "SELECT answered_by, found.* FROM (SELECT ",
            $crate::store::postgres::statements::answered_by!(),
            ") AS asked LEFT JOIN (SELECT true AS is_there, ",
            $columns,
            " ",
            $from,
            ") AS found ON true"
        )
    };
    ($columns:expr, $from:expr, $order:expr) => {
        concat!($crate::store::postgres::statements::decisive!($columns, $from), " ORDER BY ", $order)
    };
}

pub(super) use {answered_by, decisive};
