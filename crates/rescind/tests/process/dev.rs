//! `rescind dev`

use std::path::PathBuf;

use rustix::process::Signal;

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Process, json, rescind, run},
};

#[tokio::test]
async fn dev_prints_all_there_is_to_try_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = rescind();
        command.args(["dev", "--listen", "127.0.0.1:0"]).env("TMPDIR", dir.path());
        let mut dev = Process::spawn_talking(&mut command);
        // In the order in which it prints them.
        let after = |mark: &'static str| {
            move |line: &str| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned())
        };
        let url = dev.wait_for("address", after(" at "));
        dev.wait_for("warning", after("NOT FOR PRODUCTION"));
        let credential = Credential {
            client_id: 1,
            api_key: dev.wait_for("key", after("API key")),
            api_secret: dev.wait_for("secret", after("API secret")),
        };
        let token = dev.wait_for("token", after("access token"));
        let commands: Vec<String> = (0..4)
            .map(|_| dev.wait_for("command", |line| line.contains("curl ").then(|| line.to_owned())))
            .collect();
        let folder = PathBuf::from(dev.wait_for("folder", after("--data-dir")));

        let api = Api::new(&url);
        assert_eq!(api.verify(&token).await, ok());
        assert_eq!(api.logout(&token).await, ok());
        assert_eq!(api.verify(&token).await, unauthorized("Invalid token"));
        assert_eq!(api.verify(&api.login(&credential).await.access).await, ok());
        for (command, part) in commands.iter().zip(["/verify", "/auth/logout", "/verify", "/auth/login"]) {
            assert!(command.contains(&format!("{url}{part}")), "{command}");
        }
        assert!(folder.starts_with(dir.path()), "{}", folder.display());
        assert_eq!(json(&folder, "client list")[0]["name"], "demo");

        dev.signal(signal);
        assert_eq!(dev.ended().await.0.code(), Some(0));
        assert!(!folder.exists(), "its folder is still there");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "something is still there");
    }
}

#[test]
fn dev_that_cannot_listen_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = run(rescind().args(["dev", "--listen", &address]).env("TMPDIR", dir.path()));
    outcome.refused(1, &format!("cannot listen on {address}"));
    let outcome = run(rescind().args(["dev", "--listen", "here"]).env("TMPDIR", dir.path()));
    outcome.refused(1, "server.listen = \"here\" (flag --listen)");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "something is still there");
}
