//! Backups, and their restoration.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
};

use rustix::process::{Signal, geteuid};
use serde_json::Value;

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Process, Server, cli, json, rescind, run, serve},
};

/// A data folder with a client, and a folder for backups beside it.
fn folders() -> (tempfile::TempDir, PathBuf, Credential) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let credential = Credential::from_json(&json(&data, "client create --name backed-up"));
    (dir, data, credential)
}

fn backup(data: &Path, to: &Path) -> Value {
    json(data, &format!("db backup {}", to.display()))
}

fn restore(data: &Path, from: &Path) -> Value {
    json(data, &format!("--yes db restore {}", from.display()))
}

#[tokio::test]
async fn everything_is_back_but_tokens() {
    let (dir, data, credential) = folders();
    let (file, server) = (dir.path().join("b.db"), Server::start(&data));
    json(&data, "key rotate --algorithm EdDSA --publish-ahead 0s");
    json(&data, "client allow add 1 127.0.0.0/8");
    let spare = Credential::from_json(&json(&data, "credential create 1"));
    let api = Api::new(&server.url);
    let before = api.login(&credential).await;
    let written = backup(&data, &file);
    assert_eq!(written["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // None of this is in it.
    let after = api.login(&credential).await;
    assert_eq!(api.logout(&before.access).await, ok());
    let later = api.login(&spare).await;
    json(&data, &format!("--yes credential revoke {}", spare.api_key));
    json(&data, "client create --name later");
    let sealed = json(&data, "key list");
    cli(&data, ["--yes", "db", "restore", file.to_str().unwrap()]).refused(1, "is in use by another rescind");
    assert!(server.stop(Signal::TERM).await.0.success());

    let restored = restore(&data, &file);
    assert_eq!((&restored["clients"], &restored["credentials"]), (&1.into(), &2.into()));
    let kinds = json(&data, "audit list");
    assert_eq!(kinds.as_array().unwrap().iter().filter(|event| event["kind"] == "store_restored").count(), 1);
    let keys = json(&data, "key list");
    assert_eq!((keys.as_array().unwrap().len(), &keys[0]["algorithm"]), (1, &"EdDSA".into()));
    assert!(!sealed.to_string().contains(keys[0]["kid"].as_str().unwrap()));
    assert_eq!(json(&data, "client show 1")["allow"], serde_json::json!(["127.0.0.0/8"]));
    let audit = json(&data, "audit list");
    let kinds: Vec<_> = audit.as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    let restored = [
        "store_backed_up",
        "store_restored",
        "signing_key_created",
        "signing_key_retired",
        "signing_key_retired",
    ];
    assert_eq!(kinds[kinds.len() - 5..], restored);

    let server = Server::start(&data);
    let api = Api::new(&server.url);
    let again = (api.login(&credential).await, api.login(&spare).await);
    // Whatever a session of now may have for a number, no token from before is of it.
    for tokens in [&before, &after, &later] {
        assert_eq!(api.verify(&tokens.access).await, unauthorized("Invalid token"));
        assert_eq!(api.refresh(&tokens.refresh).await.unwrap_err(), unauthorized("Invalid token"));
        assert_eq!(api.logout(&tokens.access).await, unauthorized("Invalid token"));
    }
    assert_eq!(api.verify(&again.0.access).await, ok());
    assert_eq!(api.verify(&again.1.access).await, ok());
    assert_eq!(Credential::from_json(&json(&data, "client create --name next")).client_id, 2);
    drop(server);

    // What was there before is kept, and is a whole store, whose tokens end if it is put back.
    for kept in ["rescind.replaced-1", "rescind.replaced-2"] {
        let replaced = data.join(kept);
        fs::copy(data.join("master.key"), replaced.join("master.key")).unwrap();
        let listed = cli(&replaced, ["client", "list", "--json"]);
        assert!(listed.stderr.contains("every token has been ended"), "{listed:?}");
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
        assert_eq!(listed[1]["name"], if kept.ends_with('1') { "later" } else { "next" });
        if kept.ends_with('1') {
            assert_eq!(restore(&data, &file)["replaced"], data.join("rescind.replaced-2").to_str().unwrap());
        }
    }
}

#[tokio::test]
async fn a_backup_that_is_stopped_leaves_no_file() {
    let (dir, data, _) = folders();
    let server = Server::start(&data);
    let target = dir.path().join("backups");
    fs::create_dir(&target).unwrap();
    server.signal(Signal::STOP);
    let mut command = rescind();
    command.arg("--data-dir").arg(&data).args(["db", "backup"]).arg(target.join("b.db"));
    let mut backup = Process::spawn(&mut command);
    // It has its file when it says that it waits.
    backup.wait_for("line", |line| line.contains("waiting for the server").then_some(()));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    backup.signal(Signal::INT);
    let (status, lines) = backup.ended().await;
    assert!(status.code() == Some(1) && lines.last().unwrap().contains("b.db was not written"), "{lines:?}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    server.signal(Signal::CONT);
}

// check 98
#[tokio::test]
async fn a_verifier_is_not_back_and_is_handed_no_key() {
    let (dir, data, _) = folders();
    let file = dir.path().join("b.db");
    let verifiers = ["kept", "revoked"]
        .map(|name| json(&data, &format!("verifier create --name {name} --share-hs256"))["token"].clone());
    backup(&data, &file);
    json(&data, "--yes verifier revoke 2");

    // Told for people, and as data.
    for folder in ["one", "two"] {
        let elsewhere = dir.path().join(folder);
        fs::create_dir(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
        fs::copy(data.join("master.key"), elsewhere.join("master.key")).unwrap();
    }
    let told = cli(&dir.path().join("one"), ["--yes", "db", "restore", file.to_str().unwrap()]);
    assert!(told.stdout.contains("2 verifiers were left out"), "{}", told.stdout);
    assert!(told.stdout.contains("since the backup: kept, revoked.\n"), "{}", told.stdout);
    let data = dir.path().join("two");
    assert_eq!(restore(&data, &file)["dropped_verifiers"], serde_json::json!(["kept", "revoked"]));

    assert_eq!(json(&data, "verifier list"), serde_json::json!([]));
    let audit = json(&data, "audit list --kind verifier_revoked");
    let details: Vec<_> = audit.as_array().unwrap().iter().map(|e| e["detail"].as_str().unwrap()).collect();
    assert_eq!(details, ["1, kept, with HS256 keys", "2, revoked, with HS256 keys"]);
    let server = Server::start(&data);
    for token in verifiers {
        let feed = reqwest::Client::new().get(format!("{}/feed/v1", server.management));
        let answer = feed.bearer_auth(token.as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let form = [("token", "x")];
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let asked = reqwest::Client::new()
            .post(format!("{}/oauth2/introspect", server.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .bearer_auth(token.as_str().unwrap());
        assert_eq!(asked.body(form).send().await.unwrap().status(), 401);
    }
    // The next one has a number of its own.
    assert_eq!(json(&data, "verifier create --name next")["verifier_id"], 3);
}

#[tokio::test]
async fn another_machine_needs_the_file_and_the_master_key() {
    let (dir, data, credential) = folders();
    let file = dir.path().join("b.db");
    // No server runs.
    backup(&data, &file);
    let elsewhere = dir.path().join("elsewhere");
    let text = file.to_str().unwrap();
    cli(&elsewhere, ["db", "restore", text]).refused(1, "master.key is missing");

    let other = dir.path().join("other");
    json(&other, "client create --name other");
    cli(&other, ["--yes", "db", "restore", text]).refused(1, "another master key");
    assert_eq!(json(&other, "client show 1")["name"], "other");
    cli(&other, ["db", "restore", text]).refused(2, "say --yes");

    fs::copy(data.join("master.key"), elsewhere.join("master.key")).unwrap();
    let restored = restore(&elsewhere, &file);
    assert_eq!(restored["clients"], 1);
    let mut here: Vec<_> =
        fs::read_dir(&elsewhere).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    here.sort();
    assert_eq!(here, ["master.key", "rescind.db", "rescind.lock", "rescind.mark"]);
    assert_eq!(fs::metadata(elsewhere.join("rescind.db")).unwrap().permissions().mode() & 0o777, 0o600);
    let server = Server::start(&elsewhere);
    assert_eq!(
        Api::new(&server.url).verify(&Api::new(&server.url).login(&credential).await.access).await,
        ok()
    );
}

// check 79
#[tokio::test]
async fn a_backup_holds_no_session_and_no_secret() {
    let (dir, data, credential) = folders();
    let (file, server) = (dir.path().join("b.db"), Server::start(&data));
    let tokens = Api::new(&server.url).login(&credential).await;
    backup(&data, &file);
    let printed = rescind().arg("--data-dir").arg(&data).args(["db", "backup", "-"]).output().unwrap();
    assert!(
        printed.status.success() && printed.stdout.starts_with(b"SQLite format 3\0"),
        "{:?}",
        printed.stderr
    );
    let master = fs::read_to_string(data.join("master.key")).unwrap();
    let bytes = fs::read(&file).unwrap();
    for secret in [credential.api_secret.as_str(), &tokens.access, &tokens.refresh, master.trim()] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    assert!(bytes.windows(9).any(|window| window == b"backed-up"));
    // Not even if it is taken for a store as it is.
    let copied = dir.path().join("copied");
    DirBuilder::new().mode(0o700).create(&copied).unwrap();
    fs::copy(&file, copied.join("rescind.db")).unwrap();
    fs::copy(data.join("master.key"), copied.join("master.key")).unwrap();
    let server = Server::start(&copied);
    assert_eq!(Api::new(&server.url).verify(&tokens.access).await, unauthorized("Invalid token"));
}

#[test]
fn what_is_no_backup_changes_nothing() {
    let (dir, data, _) = folders();
    let file = dir.path().join("b.db");
    backup(&data, &file);
    let text = file.to_str().unwrap();
    cli(&data, ["db", "backup", text]).refused(1, "is there already");
    cli(&data, ["db", "backup", "/nowhere/b.db"]).refused(1, "/nowhere/b.db");
    cli(&data, ["--yes", "db", "restore", "/nowhere/b.db"]).refused(1, "/nowhere/b.db: No such file");
    let mut damaged = fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[4096..middle].fill(0x5a);
    for (what, bytes) in [("text", b"this is no backup".to_vec()), ("damaged", damaged), ("empty", vec![])] {
        let bad = dir.path().join(what);
        fs::write(&bad, bytes).unwrap();
        cli(&data, ["--yes", "db", "restore", bad.to_str().unwrap()]).refused(1, "it");
        assert_eq!(json(&data, "client show 1")["name"], "backed-up", "{what}");
        let beside =
            fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(
            beside.into_iter().all(|name| !name.starts_with("rescind.repl") && !name.contains("tmp")),
            "{what}"
        );
    }
    // A store that was lost is not begun anew, be it its mark or its log that tells of it.
    fs::remove_file(data.join("rescind.db")).unwrap();
    for _ in 0..2 {
        run(rescind().arg("serve").arg("--data-dir").arg(&data)).refused(1, "rescind.mark is here, and");
    }
    fs::remove_file(data.join("rescind.mark")).unwrap();
    let log = OpenOptions::new().write(true).create_new(true).mode(0o600).open(data.join("rescind.db-wal"));
    log.unwrap().write_all(b"what was answered").unwrap();
    run(rescind().arg("serve").arg("--data-dir").arg(&data)).refused(1, "put that back");
    assert_eq!(fs::read(data.join("rescind.db-wal")).unwrap(), b"what was answered");
}

// check 111
#[tokio::test]
async fn a_restore_by_root_leaves_everything_to_the_folders_owner() {
    // Only root can give a file away, and act as somebody else.
    if !geteuid().is_root() {
        return;
    }
    const OWNER: u32 = 12345;
    let (dir, data, credential) = folders();
    // The owner cannot reach the backup, nor could it read it.
    let kept = dir.path().join("kept");
    DirBuilder::new().mode(0o700).create(&kept).unwrap();
    let file = kept.join("b.db");
    backup(&data, &file);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let files = || fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).chain([data.clone()]);
    files().for_each(|file| chown(file, Some(OWNER), Some(OWNER)).unwrap());
    assert_eq!(restore(&data, &file)["clients"], 1);
    for file in files() {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (OWNER, OWNER), "{}", file.display());
    }
    let mut serve = serve(&data);
    let server = Server::spawn(serve.uid(OWNER).gid(OWNER));
    Api::new(&server.url).login(&credential).await;
}

#[test]
fn what_is_denied_is_told_by_path_owner_and_us() {
    let (dir, data, _) = folders();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !geteuid().is_root() {
        return;
    }
    let owner =
        format!("{} belongs to uid 0, gid 0, mode 0755; this process is uid 12345", dir.path().display());
    // A folder in which nothing may be made, for a data folder and for a backup.
    let other = |args: &[&str]| {
        let mut command = rescind();
        run(command.args(args).uid(12345).gid(12345))
    };
    let new = dir.path().join("new");
    other(&["serve", "--data-dir", new.to_str().unwrap()]).refused(1, &owner);
    other(&["--data-dir", data.to_str().unwrap(), "status"])
        .refused(1, "mode 0700; this process is uid 12345");
    let config = dir.path().join("rescind.toml");
    fs::write(&config, "").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let told = format!("{} belongs to uid 0, gid 0, mode 0600; this process is uid 12345", config.display());
    other(&["serve", "--config", config.to_str().unwrap()]).refused(1, &told);
    let mut command = rescind();
    let variable = ("RESCIND_MASTER_KEY_FILE", config.to_str().unwrap());
    let named = run(command.args(["serve", "--data-dir", "/nowhere"]).envs([variable]).uid(12345).gid(12345));
    named.refused(1, &told);
}
