//! `rescind dev`

use std::path::PathBuf;

use rustix::process::Signal;

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Process, json, rescind, run},
};

#[tokio::test]
async fn dev_prints_all_there_is_to_try_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = rescind();
        command.args(["dev", "--listen", "127.0.0.1:0"]).env("TMPDIR", dir.path());
        let mut dev = Process::spawn_talking(&mut command);
        let mut printed = String::new();
        while !printed.contains("Stop it") {
            printed += &(dev.wait_for("line", |line| Some(line.to_owned())) + "\n");
        }
        assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
        assert!(printed.contains("NOT FOR PRODUCTION"), "{printed}");
        // As a shell reads it.
        let printed = printed.replace("\\\n", "");
        let after = |mark: &str| {
            let found = printed.lines().find_map(|line| line.trim().strip_prefix(mark));
            found.unwrap_or_else(|| panic!("no {mark} in {printed}")).trim().to_owned()
        };
        let url = after("URL=");
        let credential = Credential { client_id: 1, api_key: after("KEY="), api_secret: after("SECRET=") };
        let (token, refresh) = (after("TOKEN="), after("REFRESH="));
        let folder = PathBuf::from(after("Operate it:  rescind client list --data-dir"));
        let management = after("Watch it:    curl -s");

        let api = Api::new(&url);
        assert_eq!(api.verify(&token).await, ok());
        assert!(api.refresh(&refresh).await.is_ok());
        assert_eq!(api.logout(&token).await, ok());
        assert_eq!(api.verify(&token).await, unauthorized("Invalid token"));
        assert_eq!(api.verify(&api.login(&credential).await.access).await, ok());
        let metrics = reqwest::get(management).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("rescind_clients"), "{metrics}");
        let commands: Vec<_> = printed.lines().filter(|line| line.starts_with("    curl ")).collect();
        assert_eq!(commands.len(), 5);
        for (command, part) in
            commands.iter().zip(["verify", "auth/refresh", "auth/logout", "verify", "auth/login"])
        {
            assert!(command.contains(&format!("$URL/{part}")), "{command}");
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
