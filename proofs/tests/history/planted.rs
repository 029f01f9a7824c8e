//! Violations of every kind, and next to each what is none by the least.

use rescind_proofs::history::{Operation, Report, Verdict, Violation};

use crate::build::{
    LOST, NO, YES, login, logout, loss, operator, pair, refresh, refreshed, report, revoke, verify,
};

/// Each violation as its kind, its token and the lines involved.
fn found(report: &Report) -> Vec<String> {
    let text = |violation: &Violation| match violation {
        Violation::RevokedAccepted { token, login, logout, accepted, .. } => {
            format!("{token} revoked {} {} {}", login.line, logout.line, accepted.line)
        }
        Violation::ConsumedTwice { token, first, second, .. } => {
            format!("{token} consumed {} {}", first.line, second.line)
        }
        Violation::LiveRefused { token, login, refused, .. } => {
            format!("{token} live {} {}", login.line, refused.line)
        }
    };
    report.violations.iter().map(text).collect()
}

#[track_caller]
fn holds<const N: usize>(operations: [Operation; N]) {
    assert_eq!(found(&report(operations)), Vec::<String>::new());
}

#[track_caller]
fn breaks<const N: usize, const V: usize>(operations: [Operation; N], violations: [&str; V]) {
    assert_eq!(found(&report(operations)), violations);
}

#[test]
fn a_session_from_login_to_logout() {
    let report = report([
        login((0, 10), "t1", 0),
        verify((11, 12), "t1", YES),
        refresh((20, 30), "t1", "t2"),
        verify((31, 32), "t1", YES),
        verify((31, 32), "t2", YES),
        logout((40, 50), "t2", YES),
        verify((51, 52), "t1", NO),
        verify((51, 53), "t2", LOST),
        refreshed((51, 54), "t2", Verdict::Refused),
        logout((60, 70), "t1", NO),
        login((80, 90), "t3", 1),
        verify((91, 92), "t3", YES),
    ]);
    assert_eq!(found(&report), Vec::<String>::new());
    assert_eq!((report.operations, report.clients, report.pairs, report.revoked_presented), (12, 1, 3, 3));
}

#[test]
fn a_token_accepted_after_logout() {
    let history =
        |begin| [login((0, 10), "t", None), logout((20, 30), "t", YES), verify((begin, 40), "t", YES)];
    breaks(history(31), ["t revoked 1 2 3"]);
    // It overlaps the logout by its first nanosecond.
    holds(history(30));
    // Whether the logout was done is not known.
    holds([login((0, 10), "t", 0), logout((20, 30), "t", LOST), verify((31, 40), "t", YES)]);
    // It was not.
    breaks([login((0, 10), "t", 0), logout((20, 30), "t", NO), verify((31, 40), "t", YES)], ["t live 1 2"]);
}

#[test]
fn every_door_is_held_to_it() {
    breaks(
        [login((0, 10), "t", 0), operator((20, 30), YES), refresh((31, 40), "t", "u")],
        ["t revoked 1 2 3"],
    );
    breaks(
        [login((0, 10), "t", 0), operator((20, 30), YES), logout((31, 40), "t", YES)],
        ["t revoked 1 2 3"],
    );
}

#[test]
fn every_token_of_every_session_goes() {
    breaks(
        [
            login((0, 10), "a1", None),
            login((5, 15), "b1", None),
            refresh((16, 25), "b1", "b2"),
            logout((30, 40), "a1", YES),
            verify((41, 50), "a1", NO),
            verify((41, 51), "b1", YES),
            verify((41, 52), "b2", YES),
        ],
        ["b1 revoked 2 4 6", "b2 revoked 2 4 7"],
    );
    // A pair of an old session, though its refresh was under way at the logout.
    breaks(
        [
            login((0, 10), "t1", None),
            operator((20, 40), YES),
            refresh((15, 45), "t1", "t2"),
            verify((46, 50), "t2", YES),
        ],
        ["t2 revoked 1 2 4"],
    );
}

#[test]
fn a_login_at_the_same_time_as_the_logout_may_come_after_it() {
    let history = |login_ended| {
        [login((0, login_ended), "t", None), operator((20, 30), YES), verify((50, 60), "t", YES)]
    };
    breaks(history(19), ["t revoked 1 2 3"]);
    holds(history(20));
    holds(history(29));
    // And before it.
    holds([login((0, 25), "t", None), operator((20, 30), YES), verify((50, 60), "t", NO)]);
}

#[test]
fn the_generation_settles_it() {
    let history = |generation, verdict| {
        [
            login((0, 10), "old", 4),
            login((15, 25), "new", generation),
            logout((20, 30), "old", YES),
            verify((31, 40), "new", verdict),
        ]
    };
    breaks(history(4, YES), ["new revoked 2 3 4"]);
    holds(history(4, NO));
    holds(history(5, YES));
    breaks(history(5, NO), ["new live 2 4"]);
}

#[test]
fn an_operator_moves_past_what_was_there_when_he_began() {
    let history = |seen, generation| {
        [
            login((0, seen), "old", 4),
            login((15, 25), "new", generation),
            operator((20, 30), YES),
            verify((31, 40), "new", YES),
        ]
    };
    breaks(history(10, 4), ["new revoked 2 3 4"]);
    holds(history(10, 5));
    // That the client had reached 4 is known only since the operator began.
    holds(history(20, 4));
    // Each logout moves on from what those before it have reached.
    let twice = |generation| {
        [
            login((0, 10), "old", 4),
            operator((11, 12), YES),
            login((18, 25), "new", generation),
            operator((20, 30), YES),
            verify((31, 40), "new", YES),
        ]
    };
    breaks(twice(5), ["new revoked 3 4 5"]);
    holds(twice(6));
}

#[test]
fn an_early_logout_counts_though_a_later_one_ended_first() {
    breaks(
        [
            login((0, 10), "t", None),
            operator((35, 40), YES),
            login((25, 30), "u", None),
            operator((20, 50), YES),
            verify((51, 60), "t", YES),
            verify((51, 61), "u", YES),
        ],
        ["t revoked 1 3 5", "u revoked 2 3 6"],
    );
}

#[test]
fn a_pair_consumed_twice() {
    let twice = |again: Verdict<_>| {
        [login((0, 10), "t", 0), refresh((20, 30), "t", "u"), refreshed((21, 31), "t", again)]
    };
    breaks(twice(Verdict::Accepted(pair("v", None))), ["t consumed 2 3"]);
    breaks(twice(Verdict::Accepted(pair("u", None))), ["t consumed 2 3"]);
    holds(twice(Verdict::Refused));
    holds(twice(Verdict::Unknown));
}

#[test]
fn a_live_token_refused() {
    breaks([login((0, 10), "t", None), verify((20, 30), "t", NO)], ["t live 1 2"]);
    // The first refusal of each token stands for all.
    breaks(
        [
            login((0, 10), "t", None),
            verify((20, 30), "t", NO),
            verify((20, 31), "t", NO),
            refresh((32, 40), "t", "u"),
            refreshed((41, 50), "u", Verdict::Refused),
        ],
        ["t live 1 2", "u live 1 5"],
    );
    // Neither yes nor no is no refusal.
    holds([login((0, 10), "t", None), verify((20, 30), "t", LOST)]);
    // Another client's logout is none of its own.
    let mut other = operator((11, 12), YES);
    other.client = "d".into();
    breaks([login((0, 10), "t", None), other, verify((20, 30), "t", NO)], ["t live 1 3"]);
}

#[test]
fn a_logout_under_way_explains_a_refusal() {
    let history = |begin, verdict| {
        [login((0, 10), "t", None), verify((20, 30), "t", NO), operator((begin, 90), verdict)]
    };
    holds(history(30, YES));
    holds(history(30, LOST));
    breaks(history(31, YES), ["t live 1 2"]);
    breaks(history(31, LOST), ["t live 1 2"]);
    breaks(history(30, NO), ["t live 1 2"]);
    let before =
        |end, verdict| [operator((0, end), verdict), login((20, 30), "t", None), verify((40, 50), "t", NO)];
    holds(before(20, YES));
    breaks(before(19, YES), ["t live 2 3"]);
    // One whose answer was lost may be done at any time.
    holds(before(19, LOST));
}

#[test]
fn a_logout_takes_back_no_generation_newer_than_the_token_that_asked() {
    let history = |generation| {
        [
            login((0, 10), "old", 4),
            logout((11, 19), "old", LOST),
            login((20, 30), "new", generation),
            verify((40, 50), "new", NO),
        ]
    };
    holds(history(4));
    breaks(history(5), ["new live 3 4"]);
}

#[test]
fn a_pair_presented_twice_may_end_its_session() {
    let history = |begin| {
        [
            login((0, 10), "t", 0),
            refresh((20, 30), "t", "u"),
            verify((35, 40), "u", NO),
            refreshed((begin, 50), "t", Verdict::Refused),
        ]
    };
    holds(history(40));
    breaks(history(41), ["u live 1 3"]);
    // The first two of three to begin are enough, however late they are answered.
    let history = |third| {
        [
            login((0, 1), "t", 0),
            verify((2, 8), "t", NO),
            refresh((10, 20), "t", "u"),
            refreshed((5, 21), "t", Verdict::Refused),
            refreshed((third, 22), "t", Verdict::Refused),
        ]
    };
    holds(history(8));
    breaks(history(9), ["t live 1 2"]);
    // Another session of the client has nothing to do with it.
    breaks(
        [
            login((0, 10), "t", 0),
            login((0, 11), "other", 0),
            refresh((20, 30), "t", "u"),
            refreshed((31, 40), "t", Verdict::Refused),
            refreshed((41, 50), "other", Verdict::Refused),
        ],
        ["other live 2 5"],
    );
}

#[test]
fn a_revocation_ends_one_session() {
    let history = |begin, verdict| {
        [
            login((0, 10), "a1", 0),
            login((0, 11), "b1", 0),
            refresh((15, 40), "a1", "a2"),
            revoke((20, 30), "a1", YES),
            verify((begin, 50), "a1", verdict),
            verify((begin, 51), "b1", YES),
        ]
    };
    breaks(history(31, YES), ["a1 revoked 1 3 5"]);
    holds(history(30, YES));
    holds(history(31, NO));
    // A pair that its refresh gives at the same time goes with it.
    breaks(
        [
            login((0, 10), "a1", 0),
            revoke((20, 30), "a1", YES),
            refresh((15, 40), "a1", "a2"),
            verify((41, 50), "a2", YES),
        ],
        ["a2 revoked 1 2 4"],
    );
    breaks(
        [
            login((0, 10), "a1", 0),
            login((0, 11), "b1", 0),
            revoke((20, 30), "a1", YES),
            verify((31, 40), "b1", NO),
        ],
        ["b1 live 2 4"],
    );
    let before =
        |verdict| [login((0, 10), "t", 0), revoke((31, 40), "t", verdict), verify((20, 30), "t", NO)];
    breaks(before(YES), ["t live 1 2"]);
    let during =
        |verdict| [login((0, 10), "t", 0), verify((20, 30), "t", NO), revoke((30, 40), "t", verdict)];
    holds(during(YES));
    holds(during(LOST));
    breaks(during(NO), ["t live 1 2"]);
    // Whether it was done is not known.
    holds([login((0, 10), "t", 0), revoke((20, 30), "t", LOST), verify((31, 40), "t", YES)]);
}

#[test]
fn a_loss_takes_what_was_given_and_nothing_that_was_taken_back() {
    let login_at = |(begin, end)| [login((begin, end), "t", 0), loss((20, 30)), verify((40, 50), "t", NO)];
    breaks(login_at((0, 19)), ["t live 1 3"]);
    holds(login_at((0, 20)));
    holds([loss((20, 30)), login((30, 35), "t", 0), verify((40, 50), "t", NO)]);
    breaks([loss((20, 30)), login((31, 35), "t", 0), verify((40, 50), "t", NO)], ["t live 2 3"]);
    // It explains no refusal from before.
    let refused_at = |end| {
        [login((0, 10), "t", 0), verify((11, end), "t", NO), refresh((12, 25), "t", "u"), loss((20, 30))]
    };
    breaks(refused_at(19), ["t live 1 2"]);
    holds(refused_at(20));
    let refreshed_again = |first, given: &str| {
        [
            login((0, 5), "t", 0),
            refresh((10, first), "t", "u"),
            loss((20, 30)),
            refresh((40, 50), "t", given),
            verify((51, 60), "u", NO),
            verify((51, 61), "t", NO),
        ]
    };
    holds(refreshed_again(20, "u"));
    holds(refreshed_again(20, "v"));
    breaks(refreshed_again(19, "u"), ["t consumed 2 4"]);
    // Again before the loss was written down.
    holds([login((0, 5), "t", 0), refresh((10, 21), "t", "u"), refresh((24, 26), "t", "u"), loss((20, 30))]);
    // Neither logout nor revocation is lost.
    let taken_back =
        |operation| [login((0, 5), "t", 0), operation, loss((20, 30)), verify((40, 50), "t", YES)];
    breaks(taken_back(logout((22, 25), "t", YES)), ["t revoked 1 2 4"]);
    breaks(taken_back(revoke((22, 25), "t", YES)), ["t revoked 1 2 4"]);
    holds(taken_back(logout((22, 25), "t", LOST)));
}
