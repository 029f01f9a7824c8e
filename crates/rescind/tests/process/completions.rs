//! Completions, as bash asks for them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Server, cli, json, run};

/// Prepares a line as bash does when the tabulator is pressed at its end, and prints what is offered.
const ASK: &str = r#"
    source <(rescind completions bash)
    read -ra COMP_WORDS <<<"$1"
    [[ $1 == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9
    _clap_complete_rescind rescind "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What is offered at the end of the line. Nothing may be said beside it.
fn offered(line: &str) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_rescind")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, "bash", line]).stdin(Stdio::null()).env_clear();
    let asked = run(bash.env("PATH", format!("{}:/usr/bin:/bin", program.display())));
    assert_eq!((asked.code, asked.stderr.as_str()), (Some(0), ""), "{line}");
    asked.stdout.lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn clients_keys_and_kinds_are_offered_as_the_running_server_knows_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let data = dir.path().display();
    let keys = ["billing", "bill of lading", "orders"].map(|name| {
        let created = cli(dir.path(), ["--json", "client", "create", "--name", name]);
        serde_json::from_str::<Value>(&created.stdout).unwrap()["api_key"].as_str().unwrap().to_owned()
    });
    let [key, ..] = keys;
    json(dir.path(), "verifier create --name api");
    json(dir.path(), "admin token create --name ci --role viewer");
    let offered = |line: &str| offered(&format!("rescind --data-dir {data} {line}"));

    assert_eq!(offered("client show b"), ["billing"]);
    let mut all = offered("client show ");
    all.retain(|word| !word.starts_with('-'));
    assert_eq!(all, ["billing", "orders", "1", "2", "3"]);
    assert_eq!(offered("session list o"), ["orders"]);
    assert_eq!(offered("audit list --client bi"), ["billing"]);
    assert_eq!(offered("admin token create --client 2"), ["2"]);
    assert_eq!(offered(&format!("credential rotate {}", &key[..12])), [key.as_str()]);
    assert_eq!(offered("admin token create --role "), ["viewer", "operator", "admin"]);
    assert_eq!(offered("key rotate --algorithm E"), ["ES256", "Ed25519", "EdDSA"]);
    assert_eq!(offered("audit list --kind pepper_"), ["pepper_rotated", "pepper_retired"]);
    assert_eq!(offered("client list --status "), ["active", "suspended"]);
    let kid = json(dir.path(), "key list")[0]["kid"].as_str().unwrap().to_owned();
    for (line, expected) in
        [("key retire ", kid.as_str()), ("verifier revoke ", "1"), ("admin token revoke ", "1")]
    {
        let words = offered(line);
        assert!(words.iter().any(|word| word == expected), "{line}: {words:?}");
    }
    // What was revoked is offered no more.
    json(dir.path(), &format!("--yes credential revoke {key}"));
    assert_eq!(offered(&format!("credential rotate {}", &key[..12])), [""; 0]);
    assert_eq!(offered("cli"), ["client"]);
    server.stop(Signal::TERM).await;

    // Nobody answers, and nothing is said of it. Nor is the store opened.
    assert_eq!(offered("client show b"), [""; 0]);
    assert_eq!(offered("admin token create --role v"), ["viewer"]);
}

#[test]
fn without_a_server_or_a_configuration_only_the_words_of_the_program_are_offered() {
    for line in
        ["rescind client sh", "rescind --data-dir /nowhere client sh", "rescind --config /nowhere client sh"]
    {
        assert_eq!(offered(line), ["show"], "{line}");
    }
    assert_eq!(offered("rescind --config /nowhere client show b"), [""; 0]);
}
