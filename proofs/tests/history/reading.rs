//! What is a history, and where it is none.

use rescind_proofs::history::{Operation, Unreadable, check};

use crate::build::{LOST, NO, YES, login, logout, loss, operator, refresh, refreshed, revoke, verify};

const LOGIN: &str = r#"{"op":"login","begin":1,"end":2,"client":"c","node":"a","verdict":"accepted","gives":"t","generation":0}"#;
const VERIFY: &str =
    r#"{"op":"verify","begin":3,"end":4,"client":"c","node":"a","verdict":"accepted","token":"t"}"#;

fn problem(lines: &[&str]) -> (u64, String, String) {
    match check(lines.join("\n").as_bytes()) {
        Err(Unreadable::Line { line, malformed }) => (line, malformed.field, malformed.problem),
        other => panic!("{other:?}"),
    }
}

/// The second of two good lines, with one thing changed, is at fault, and its field is named.
#[track_caller]
fn at_fault(field: &str, from: &str, to: &str) {
    assert!(VERIFY.contains(from), "{from}");
    let (line, named, problem) = problem(&[LOGIN, "", &VERIFY.replacen(from, to, 1)]);
    assert_eq!((line, named.as_str()), (3, field), "{problem}");
}

#[test]
fn what_is_written_is_read_again() {
    for operation in [
        login((0, 1), "t", 7),
        login((0, 1), "t", None),
        refresh((2, u64::MAX), "t", "u"),
        refreshed((2, 3), "t", rescind_proofs::history::Verdict::Unknown),
        verify((4, 5), "\"ü\n", YES),
        logout((4, 5), "t", NO),
        operator((4, 5), LOST),
        revoke((4, 5), "t", YES),
        loss((4, 5)),
    ] {
        let line = serde_json::to_string(&operation).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(line.parse::<Operation>().unwrap(), operation);
    }
    let lines = [LOGIN, VERIFY].map(|line| line.parse::<Operation>().unwrap());
    assert_eq!(lines, [login((1, 2), "t", 0), verify((3, 4), "t", YES)]);
}

#[test]
fn a_history_without_operations_is_one() {
    assert_eq!(check(&b"\n \n"[..]).unwrap().operations, 0);
}

#[test]
fn what_is_wrong_is_named() {
    at_fault("op", "verify", "verfy");
    at_fault("begin", "3", "-3");
    at_fault("begin", "3", "3.5");
    at_fault("end", "4", "\"4\"");
    at_fault("client", "\"c\"", "42");
    at_fault("verdict", "accepted", "200");
    at_fault("token", "\"t\"", "7");
    at_fault("generations", "}", ",\"generations\":1}");
    at_fault("the operation", "\"end\":4,", "");
    at_fault("the operation", "{", "");
    at_fault("the operation", "}", "}}");
}

#[test]
fn what_cannot_be_is_named() {
    at_fault("end", "4", "2");
    at_fault("end", "\"begin\":3,\"end\":4", "\"begin\":0,\"end\":1");
    at_fault("begin", "3", "1");
    at_fault("client", "\"c\"", "\"d\"");
    at_fault("token", "\"t\"", "\"u\"");
    at_fault("token", ",\"token\":\"t\"", "");
    at_fault("token", "verify", "login");
    at_fault("gives", "verify", "refresh");
    at_fault("gives", "}", ",\"gives\":\"u\"}");
    at_fault("generation", "}", ",\"generation\":1}");
    at_fault("token", "verify", "loss");
    let revoke = VERIFY.replace("verify", "revoke").replace(",\"token\":\"t\"", "");
    assert_eq!(problem(&[LOGIN, &revoke]).1, "token");
    let loss = revoke.replace("revoke", "loss").replace("accepted", "refused");
    assert_eq!(problem(&[LOGIN, &loss]).1, "verdict");
    let (line, field, _) = problem(&[LOGIN, LOGIN]);
    assert_eq!((line, field.as_str()), (2, "gives"));
    let refused = LOGIN.replace("accepted", "refused");
    assert_eq!(problem(&[&refused]).1, "gives");
}
