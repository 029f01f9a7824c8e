//! The master key, which seals the store's secrets.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::process::Signal;

use crate::{
    api::{Api, Credential, Tokens, ok},
    process::{Server, cli, json, rescind, run, serve},
};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER_KEY: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A stopped server's folder, with a client and its valid tokens.
async fn used_folder(variables: &[(&str, &str)]) -> (tempfile::TempDir, Credential, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), variables);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let tokens = Api::new(&server.url).login(&credential).await;
    server.stop(Signal::TERM).await;
    (dir, credential, tokens)
}

async fn still_good(server: &Server, credential: &Credential, tokens: &Tokens) {
    let api = Api::new(&server.url);
    assert_eq!(api.verify(&tokens.access).await, ok());
    assert_eq!(api.verify(&api.login(credential).await.access).await, ok());
}

#[tokio::test]
async fn a_wrong_key_is_told_and_damages_nothing() {
    let (dir, credential, tokens) = used_folder(&[("RESCIND_MASTER_KEY", KEY)]).await;
    assert!(!dir.path().join("master.key").exists(), "a key was made beside the one given");
    let sealed = "the store was sealed under another master key";
    run(serve(dir.path()).env("RESCIND_MASTER_KEY", OTHER_KEY)).refused(1, sealed);
    let mut list = rescind();
    list.args(["client", "list", "--data-dir"]).arg(dir.path()).env("RESCIND_MASTER_KEY", OTHER_KEY);
    run(&mut list).refused(1, sealed);
    let none = run(&mut serve(dir.path()));
    none.refused(1, "master.key is missing");
    assert!(none.stderr.contains("RESCIND_MASTER_KEY_FILE"), "{none:?}");
    for bad in ["", "secret", &KEY[1..], &KEY.replace('0', "x")] {
        let outcome = run(serve(dir.path()).env("RESCIND_MASTER_KEY", bad));
        outcome.refused(1, "RESCIND_MASTER_KEY");
        assert!(outcome.stderr.contains("64 hexadecimal digits"), "{outcome:?}");
        assert!(bad.is_empty() || !outcome.stderr.contains(bad), "{outcome:?}");
    }
    let server = Server::start_with(dir.path(), &[("RESCIND_MASTER_KEY", &KEY.to_uppercase())]);
    still_good(&server, &credential, &tokens).await;
}

#[tokio::test]
async fn a_key_may_stand_in_a_file_of_any_name() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let name = file.to_str().unwrap();
    let (dir, credential, tokens) = used_folder(&[("RESCIND_MASTER_KEY_FILE", name)]).await;
    let server = Server::start_with(dir.path(), &[("RESCIND_MASTER_KEY", KEY)]);
    still_good(&server, &credential, &tokens).await;
    server.stop(Signal::TERM).await;

    let nowhere = keys.path().join("nowhere");
    let outcome = run(serve(dir.path()).env("RESCIND_MASTER_KEY_FILE", &nowhere));
    outcome.refused(1, &format!("RESCIND_MASTER_KEY_FILE names {}", nowhere.display()));
    fs::write(&file, OTHER_KEY).unwrap();
    run(serve(dir.path()).env("RESCIND_MASTER_KEY_FILE", &file))
        .refused(1, "sealed under another master key");
}

#[tokio::test]
async fn the_folders_own_key_is_missed_and_kept_from_others() {
    let (dir, credential, tokens) = used_folder(&[]).await;
    let key = dir.path().join("master.key");
    let text = fs::read_to_string(&key).unwrap();
    for mode in [0o604, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        run(&mut serve(dir.path())).refused(1, "master.key is open to every user of this machine");
        cli(dir.path(), ["client", "list"]).refused(1, "chmod o-rwx");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    fs::remove_file(&key).unwrap();
    let missing = run(&mut serve(dir.path()));
    missing.refused(1, "master.key is missing, and the store beside it is sealed under it: put it back");
    cli(dir.path(), ["client", "create", "--name", "c"]).refused(1, "master.key is missing");
    assert!(!key.exists(), "a new key would hide that the old one is lost");

    for damaged in ["", "abc\n", &text[..40]] {
        fs::write(&key, damaged).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        run(&mut serve(dir.path())).refused(1, "64 hexadecimal digits");
    }
    fs::write(&key, text).unwrap();
    still_good(&Server::start(dir.path()), &credential, &tokens).await;
}
