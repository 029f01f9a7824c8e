//! What commands say when their output cannot be written.

use std::{fs::OpenOptions, path::Path, process::Stdio};

use serde_json::json;

use crate::{
    api::Credential,
    process::{Outcome, json, rescind},
};

/// Runs a command whose output goes to a full device.
fn without_room(dir: &Path, args: &[&str]) -> Outcome {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = rescind();
    command.arg("--data-dir").arg(dir).args(args).stdout(full).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn what_was_done_is_said_though_its_output_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let done = |command: &str, says: &str| {
        without_room(dir, &command.split(' ').collect::<Vec<_>>()).refused(1, says);
    };
    let first = Credential::from_json(&json(dir, "client create --name c"));
    let rotated = without_room(dir, &["credential", "rotate", &first.api_key]);
    rotated.refused(1, "was created and its secret is lost, so revoke it");
    assert!(rotated.stderr.contains(&format!("{} ends at", first.api_key)), "{rotated:?}");
    let lost = json(dir, "credential list 1")[1]["api_key"].as_str().unwrap().to_owned();
    assert!(rotated.stderr.contains(&lost), "{rotated:?}");
    done(
        "client create --name d",
        "client 2 was created and its secret is lost: create another with `rescind credential create 2`",
    );
    done("client allow add 1 192.0.2.0/24", "client 1 \"c\" was changed");
    assert_eq!(json(dir, "client show 1")["allow"], json!(["192.0.2.0/24"]));

    done("key rotate", "the signing key was rotated: its output could not be written");
    let keys = json(dir, "key list");
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let retired = keys.as_array().unwrap().iter().find(|key| key["status"] != "signing").unwrap();
    let kid = retired["kid"].as_str().unwrap();
    done(&format!("key retire {kid} --yes"), &format!("key {kid} was retired"));
    assert_eq!(json(dir, "key list").as_array().unwrap().len(), 1);

    done("verifier create --name d", "verifier 1 was created and its token is lost");
    done("verifier revoke 1 --yes", "verifier 1 was revoked");
    assert_eq!(json(dir, "verifier list"), json!([]));
    done("admin create alice --role viewer", "administrator \"alice\" was created and the link is lost");
    done("admin role alice operator", "administrator \"alice\" is operator now");
    done("admin remove alice --yes", "administrator \"alice\" was removed");
    assert_eq!(json(dir, "admin list"), json!([]));
    done(
        "admin token create --name d --role viewer",
        "management token 1 was created and its text is lost: revoke it with `rescind admin token revoke 1`",
    );
    done("admin token revoke 1 --yes", "management token 1 was revoked");
    assert_eq!(json(dir, "admin token list"), json!([]));

    let file = dir.join("backup");
    let file = file.to_str().unwrap();
    done(&format!("db backup {file}"), &format!("the backup is in {file}"));
    done(&format!("db restore {file} --yes"), "the backup was restored");
    done("db restored --yes", "every token has ended");
    done("db migrate", "the tables are up to date");
    // What changes nothing has nothing to add.
    for reads in ["client list", "db backup -", "--help", "client --help", "--version"] {
        let outcome = without_room(dir, &reads.split(' ').collect::<Vec<_>>());
        outcome.refused(1, "error: No space left on device");
    }
}
