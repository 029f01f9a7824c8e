//! The master key, which seals the store's secrets.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
};

use rustix::process::{Signal, geteuid};

use crate::{
    api::{Api, Credential, Tokens, ok},
    fixture::Server as Postgres,
    process::{Server, cli, json, rescind, run, serve},
};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER_KEY: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A stopped server's folder, with a client and its valid tokens.
async fn used_folder(variables: &[(&str, &str)]) -> (tempfile::TempDir, Credential, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), variables);
    server.ready().await;
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
    missing.refused(1, "master.key is missing, and the store is sealed under it: put it back");
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

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_rotated_key_opens_what_the_one_before_sealed_wherever_it_was_cut_off() {
    let (dir, credential, tokens) = used_folder(&[]).await;
    let path = |name: &str| dir.path().join(name);
    let before = fs::read_to_string(path("master.key")).unwrap();
    cli(dir.path(), ["master-key", "rotate"]).refused(2, "say --yes");
    let server = Server::start(dir.path());
    cli(dir.path(), ["master-key", "rotate", "--yes"]).refused(1, "stop it first");
    server.stop(Signal::TERM).await;
    assert_eq!(fs::read_to_string(path("master.key")).unwrap(), before);

    assert_eq!(json(dir.path(), "master-key rotate --yes")["rotated"], true);
    let after = fs::read_to_string(path("master.key")).unwrap();
    assert!(after != before && !path("master.key.next").exists());
    assert_eq!(fs::metadata(path("master.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let server = Server::start(dir.path());
    still_good(&server, &credential, &tokens).await;
    let record = json(dir.path(), "audit list --kind master_key_rotated");
    assert!(record[0]["operator"].as_str().is_some_and(|name| name.contains("uid ")), "{record}");
    server.stop(Signal::TERM).await;

    // Cut off between the store and the key's file.
    fs::rename(path("master.key"), path("master.key.next")).unwrap();
    write_private(&path("master.key"), &before);
    let server = Server::start(dir.path());
    still_good(&server, &credential, &tokens).await;
    assert_eq!(fs::read_to_string(path("master.key")).unwrap(), after);
    server.stop(Signal::TERM).await;
    // Cut off before the store: the key beside is of no use, and does no harm.
    write_private(&path("master.key.next"), &format!("{OTHER_KEY}\n"));
    let server = Server::start(dir.path());
    still_good(&server, &credential, &tokens).await;
    server.stop(Signal::TERM).await;
    json(dir.path(), "master-key rotate --yes");
    still_good(&Server::start(dir.path()), &credential, &tokens).await;
}

#[tokio::test]
async fn a_key_of_ones_own_is_rotated_to_another_one() {
    let (dir, credential, tokens) = used_folder(&[("RESCIND_MASTER_KEY", KEY)]).await;
    let new = dir.path().join("new.key");
    fs::write(&new, format!("{OTHER_KEY}\n")).unwrap();
    let rotate = |args: &[&str]| {
        let mut command = rescind();
        command.args(["master-key", "rotate", "--yes", "--data-dir"]).arg(dir.path()).args(args);
        run(command.env("RESCIND_MASTER_KEY", KEY))
    };
    rotate(&[]).refused(2, "--new");
    let present = dir.path().join("present.key");
    fs::write(&present, format!("{KEY}\n")).unwrap();
    rotate(&["--new", present.to_str().unwrap()]).refused(1, "the new master key is the present one");
    let elsewhere = dir.path().join("elsewhere");
    cli(&elsewhere, ["master-key", "rotate", "--yes"]).refused(1, "there is no data in");
    assert!(!elsewhere.exists());
    cli(dir.path(), ["master-key", "rotate", "--yes", "--new", new.to_str().unwrap()]).refused(2, "--new");
    assert_eq!(rotate(&["--new", new.to_str().unwrap()]).code, Some(0));
    rotate(&["--new", new.to_str().unwrap()]).refused(1, "the store was sealed under another master key");
    run(serve(dir.path()).env("RESCIND_MASTER_KEY", KEY)).refused(1, "another master key");
    let server = Server::start_with(dir.path(), &[("RESCIND_MASTER_KEY", OTHER_KEY)]);
    still_good(&server, &credential, &tokens).await;
}

#[tokio::test]
async fn the_key_of_a_shared_database_is_rotated_when_its_nodes_are_stopped() {
    let url = Postgres::shared().database().await;
    let database = ("RESCIND_DATABASE__URL", &*url);
    let (dir, credential, tokens) = used_folder(&[database, ("RESCIND_MASTER_KEY", KEY)]).await;
    let keys = tempfile::tempdir().unwrap();
    let new = keys.path().join("new.key");
    fs::write(&new, OTHER_KEY).unwrap();
    // From another machine's folder, as the folder matters to no key that is kept outside.
    let elsewhere = tempfile::tempdir().unwrap();
    let rotate = || {
        let mut command = rescind();
        command.args(["master-key", "rotate", "--yes", "--data-dir"]).arg(elsewhere.path().join("data"));
        run(command.arg("--new").arg(&new).envs([database, ("RESCIND_MASTER_KEY", KEY)]))
    };
    let mut running = Server::start_with(dir.path(), &[database, ("RESCIND_MASTER_KEY", KEY)]);
    running.wait_for_log("joined the cluster");
    rotate().refused(1, "stop");
    still_good(&running, &credential, &tokens).await;
    running.stop(Signal::TERM).await;

    let rotated = rotate();
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    run(serve(dir.path()).envs([database, ("RESCIND_MASTER_KEY", KEY)])).refused(1, "another master key");
    let mut server = Server::start_with(dir.path(), &[database, ("RESCIND_MASTER_KEY", OTHER_KEY)]);
    server.wait_for_log("joined the cluster");
    still_good(&server, &credential, &tokens).await;
    let record = json(dir.path(), "audit list --kind master_key_rotated");
    assert!(record[0]["operator"].as_str().is_some_and(|name| name.contains("uid ")), "{record}");
}

#[tokio::test]
async fn root_rotates_a_key_of_its_own_for_a_folder_that_stays_its_owners() {
    // Only root can give a file away, and act as somebody else.
    if !geteuid().is_root() {
        return;
    }
    const OWNER: u32 = 12345;
    let (dir, credential, tokens) = used_folder(&[("RESCIND_MASTER_KEY", KEY)]).await;
    // The folder's owner can read neither key.
    let keys = tempfile::tempdir().unwrap();
    let [present, new] = ["master.key", "master.key.next"].map(|name| keys.path().join(name));
    write_private(&present, KEY);
    write_private(&new, OTHER_KEY);
    let files = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).chain([dir.path().into()]);
    files().for_each(|file| chown(file, Some(OWNER), Some(OWNER)).unwrap());
    let mut rotate = rescind();
    rotate.args(["master-key", "rotate", "--yes", "--data-dir"]).arg(dir.path()).arg("--new").arg(&new);
    let rotated = run(rotate.env("RESCIND_MASTER_KEY_FILE", &present));
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    for file in files() {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (OWNER, OWNER), "{}", file.display());
    }
    let mut serve = serve(dir.path());
    let server = Server::spawn(serve.uid(OWNER).gid(OWNER).env("RESCIND_MASTER_KEY", OTHER_KEY));
    still_good(&server, &credential, &tokens).await;
}
