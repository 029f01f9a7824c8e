//! The exit codes. 0 done, 1 failed, 2 bad usage; `status`: 0 ready, 1 error, 2 not ready.

use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    process::Stdio,
};

use rustix::process::Signal;

use crate::{
    api::{Api, Credential, ok},
    process::{Server, cli, json, rescind, run, serve},
};

#[test]
fn bad_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["frobnicate"][..],
        &["client"],
        &["client", "create"],
        &["client", "show"],
        &["client", "show", "-1"],
        &["client", "allow", "add", "1"],
        &["client", "certificate", "add", "1"],
        &["credential", "create", "1", "--expires-in", "1w"],
        &["token", "inspect"],
        &["completions", "cmd.com"],
        &["serve", "--lisen", "127.0.0.1:0"],
        &["config", "print", "--default"],
    ] {
        cli(dir.path(), args).refused(2, "--help");
    }
    // Nothing at all: what there is to be had.
    let nothing = run(&mut rescind());
    assert!(nothing.code == Some(2) && nothing.stderr.contains("Commands:"), "{nothing:?}");
    for flag in ["--help", "--version"] {
        let outcome = run(rescind().arg(flag));
        assert!(outcome.code == Some(0) && outcome.stdout.contains("rescind"), "{outcome:?}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a refused command left something");
}

#[tokio::test]
async fn destructive_commands_want_yes_and_change_nothing_without() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let tokens = api.login(&credential).await;
    let keys = json(dir.path(), "key rotate");
    let commands = [
        format!("client delete {}", credential.client_id),
        format!("credential revoke {}", credential.api_key),
        format!("key retire {}", keys[0]["kid"].as_str().unwrap()),
    ];
    for command in &commands {
        cli(dir.path(), command.split(' ')).refused(2, "say --yes");
        cli(dir.path(), command.split(' ').chain(["--json"])).refused(2, "say --yes");
    }
    assert_eq!(api.verify(&tokens.access).await, ok());
    assert_eq!(json(dir.path(), "key list"), keys);
    assert_eq!(json(dir.path(), "client list")[0]["status"], "active");
    assert!(api.refresh(&tokens.refresh).await.is_ok());

    server.stop(Signal::TERM).await;
    for command in &commands {
        cli(dir.path(), command.split(' ')).refused(2, "say --yes");
    }
    assert_eq!(json(dir.path(), "credential list 1")[0]["status"], "active");
    for command in commands.iter().rev() {
        assert_eq!(cli(dir.path(), command.split(' ').chain(["--yes"])).code, Some(0), "{command}");
    }
}

#[test]
fn a_folder_without_data_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    for missing in [dir.path().to_owned(), dir.path().join("typo")] {
        for command in [
            "client list",
            "client show 1",
            "client logout 1 --yes",
            "client delete 1 --yes",
            "client allow check 1 ::1",
            "credential list 1",
            "credential create 1",
            "key list",
            "key rotate",
            "token inspect x",
        ] {
            let outcome = cli(&missing, command.split(' '));
            outcome.refused(1, "there is no data in");
            assert!(outcome.stderr.contains(missing.to_str().unwrap()), "{outcome:?}");
        }
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a refused command left something");
    assert_eq!(json(&dir.path().join("typo"), "client create --name c")["client_id"], 1);
}

// check 80
#[tokio::test]
async fn status_is_0_when_ready_and_2_when_not() {
    let dir = tempfile::tempdir().unwrap();
    cli(dir.path(), ["status"]).refused(2, "not running");
    cli(dir.path(), ["status", "--json"]).refused(2, "not running");
    let server = Server::start(dir.path());
    let ready = cli(dir.path(), ["status"]);
    assert!(ready.code == Some(0) && ready.stdout.starts_with("ready\n"), "{ready:?}");
    let status = json(dir.path(), "status");
    assert_eq!((status["ready"].as_bool(), status["clients"].as_u64()), (Some(true), Some(0)));
    server.stop(Signal::TERM).await;
    cli(dir.path(), ["status"]).refused(2, "not running");
    // Without a server there is nobody to ask, data or not.
    json(dir.path(), "client create --name c");
    cli(dir.path(), ["status"]).refused(2, "not running");
    cli(dir.path(), ["status", "--config", "/nowhere.toml"]).refused(1, "/nowhere.toml");
}

#[test]
fn what_is_expected_in_the_place_of_an_argument_is_told() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name c");
    let verifier = "expected an id: `rescind verifier list` shows them";
    cli(dir.path(), ["verifier", "revoke", "abc"]).refused(2, verifier);
    let token = "expected an id: `rescind admin token list` shows them";
    cli(dir.path(), ["admin", "token", "revoke", "abc"]).refused(2, token);
    let session = "expected an id: `rescind session list CLIENT` shows them";
    cli(dir.path(), ["session", "revoke", "abc"]).refused(2, session);
    cli(dir.path(), ["audit", "list", "--after", "abc"]).refused(2, "expected an id: `rescind audit list`");
    cli(dir.path(), ["webhook", "replay", "siem", "--event", "abc"])
        .refused(2, "expected an id: `rescind webhook dead NAME` shows them");
    for command in ["client list", "session list c", "explain"] {
        let limit = command.split(' ').chain(["--limit", "abc"]);
        cli(dir.path(), limit).refused(2, "expected a whole number");
    }
    // A client is found by its name here too.
    let create = ["admin", "token", "create", "--name", "ci", "--role", "viewer", "--client"];
    cli(dir.path(), create.into_iter().chain(["billing2"])).refused(1, "no client has the name \"billing2\"");
    let created = cli(dir.path(), create.into_iter().chain(["c", "--json"])).json();
    assert_eq!(created["clients"], serde_json::json!([1]));
    for name in ["a b", "a/b", "a?b", "ä"] {
        for command in ["test", "dead", "replay"] {
            cli(dir.path(), ["webhook", command, name]).refused(1, "no such webhook");
        }
    }
}

// check 86
#[test]
fn what_cannot_be_done_is_1() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name c");
    cli(dir.path(), ["client", "create", "--name", " "]).refused(1, "name: expected 1 to 200 characters");
    cli(dir.path(), ["client", "create", "--name", "x\u{1b}[31m"]).refused(1, "control characters");
    cli(dir.path(), ["client", "create", "--name", "c", "--scope", "a\"b"]).refused(1, "scopes");
    cli(dir.path(), ["client", "create", "--name", "c", "--allow", "10.0.0.1/8"]).refused(1, "10.0.0.0/8");
    assert_eq!(json(dir.path(), "client list").as_array().unwrap().len(), 1);
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    cli(&file, ["client", "create", "--name", "c"]).refused(1, "a-file is no folder: name the data folder");
    run(&mut serve(&file)).refused(1, "a-file is no folder: name the data folder");
    std::fs::write(&file, b"\xff").unwrap();
    cli(dir.path(), ["config", "check", "--config", file.to_str().unwrap()])
        .refused(1, "a-file: it is no text");
    std::fs::write(dir.path().join("rescind.db"), "this is no database").unwrap();
    let _ = std::fs::remove_file(dir.path().join("rescind.db-wal"));
    cli(dir.path(), ["client", "list"]).refused(1, "rescind.db is no database, or is damaged: put it back");
}

#[tokio::test]
async fn a_data_folder_in_use_by_a_process_that_is_not_a_server_is_told() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name c");
    let lock = std::fs::File::open(dir.path().join("rescind.lock")).unwrap();
    lock.try_lock().unwrap();
    cli(dir.path(), ["client", "list"]).refused(1, "does not answer on its socket");
}

#[test]
fn completions_are_for_the_shell_that_was_named() {
    let bash = run(rescind().args(["completions", "bash"]));
    assert_eq!((bash.code, bash.stderr.as_str()), (Some(0), ""));
    assert!(bash.stdout.contains("-F _clap_complete_rescind rescind"), "{bash:?}");
    for shell in ["zsh", "fish"] {
        let script = run(rescind().args(["completions", shell]));
        assert!(script.code == Some(0) && script.stdout.contains("rescind"), "{script:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    for args in [&["config", "print", "--defaults"][..], &["completions", "bash"]] {
        let mut command = rescind();
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        child.wait().unwrap();
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_server_that_has_stopped_answering_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.signal(Signal::STOP);
    let reads = ["status", "client list", "client show c", "token inspect x", "audit verify"];
    let waiting = reads.map(|command| {
        let mut rescind = rescind();
        rescind.arg("--data-dir").arg(dir.path()).args(command.split(' '));
        (command, tokio::task::spawn_blocking(move || run(&mut rescind)))
    });
    for (command, outcome) in waiting {
        let outcome = outcome.await.unwrap();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{command}: {outcome:?}");
        // Nothing was asked to change.
        let said = "waiting for the server\nerror: the server does not answer\n";
        assert_eq!(outcome.stderr, said, "{command}");
    }
    server.signal(Signal::CONT);
}

#[test]
fn a_server_that_works_on_a_long_answer_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("rescind.sock")).unwrap();
    let server = std::thread::spawn(move || {
        let asked = || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            (stream, String::from_utf8_lossy(&request[..length]).into_owned())
        };
        let answer = |mut stream: UnixStream, body: &str| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        };
        let (long, wanted) = asked();
        // The command asks whether anybody is there before it gives up.
        let (other, question) = asked();
        answer(other, "{}");
        answer(long, "[]");
        [wanted, question]
    });
    let listed = cli(dir.path(), ["client", "list", "--json"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (Some(0), "[]\n"), "{listed:?}");
    assert_eq!(listed.stderr, "waiting for the server\n");
    let [wanted, question] = server.join().unwrap();
    assert!(wanted.starts_with("GET /admin/v1/clients?"), "{wanted}");
    assert!(question.starts_with("GET /admin/v1/status "), "{question}");
}

#[test]
fn what_is_written_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let _server = Server::start(&data_dir);
    json(&data_dir, "client create --name c");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for file in std::fs::read_dir(&data_dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}
