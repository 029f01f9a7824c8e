//! The program: what it prints and how it ends.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use rescind_proofs::history::Operation;
use serde_json::Value;

use crate::build::{NO, YES, login, logout, verify};

fn check(arguments: &[&str], history: &[Operation]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check-history"));
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for operation in history {
        writeln!(input, "{}", serde_json::to_string(operation).unwrap()).unwrap();
    }
    drop(input);
    child.wait_with_output().unwrap()
}

fn history(verdict: rescind_proofs::history::Verdict) -> [Operation; 3] {
    [login((0, 10), "t", 0), logout((20, 30), "t", YES), verify((31, 40), "t", verdict)]
}

#[test]
fn a_clean_history() {
    let output = check(&[], &history(NO));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "3 operations of 1 clients with 1 pairs of tokens\n\
         login     1 accepted, 0 refused, 0 unknown\n\
         verify    0 accepted, 1 refused, 0 unknown\n\
         logout    1 accepted, 0 refused, 0 unknown\n\
         1 times a revoked token was presented\n\
         0 violations\n"
    );
}

#[test]
fn a_violation() {
    let output = check(&[], &history(YES));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with(
            "accepted after logout: token t of client c\n\
             \x20 session opened  line 1: login on a, 0 to 10\n\
             \x20 logged out      line 2: logout on a, 20 to 30\n\
             \x20 accepted        line 3: verify on a, 31 to 40\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("1 violations\n"), "{text}");

    let output = check(&["--json"], &history(YES));
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["violations"][0]["violation"], "revoked-accepted");
    assert_eq!(report["violations"][0]["logout"]["line"], 2);
    assert_eq!(report["verdicts"]["verify"]["accepted"], 1);
}

#[test]
fn no_history() {
    let mut operations = history(NO);
    operations[2].begin = 50;
    let output = check(&["--json"], &operations);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: line 3: end: before `begin`\n");
    assert_eq!(check(&["/no/such/file"], &[]).status.code(), Some(2));
}
