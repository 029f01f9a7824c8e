//! What signals do to a server, and what systemd is told.

use std::{
    fs::{self, DirBuilder},
    net::TcpListener,
    os::unix::{fs::DirBuilderExt, net::UnixDatagram},
    path::Path,
};

use rustix::process::Signal;

use crate::{
    api::{Api, Credential, ok},
    process::{PATIENCE, Process, Server, cli, json, serve},
};

/// The next message to systemd that is not the watchdog's.
fn next_word(systemd: &UnixDatagram) -> String {
    loop {
        let mut message = [0; 256];
        let length = systemd.recv(&mut message).unwrap();
        let message = str::from_utf8(&message[..length]).unwrap();
        if message != "WATCHDOG=1\n" {
            return message.trim_end().to_owned();
        }
    }
}

fn with_settings(data_dir: &Path, file: &Path) -> Server {
    Server::spawn(serve(data_dir).arg("--config").arg(file))
}

#[tokio::test]
async fn sigterm_tells_probes_first_and_requests_are_still_answered() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let credential = Credential::from_json(&json(&data, "client create --name c"));
    let mut server = Server::start_with(&data, &[("RESCIND_SERVER__SHUTDOWN_DELAY", "1h")]);
    let (api, management) = (Api::new(&server.url), Api::new(&server.management));
    assert_eq!(management.get("/readyz").await, ok());
    server.signal(Signal::TERM);
    server.wait_for_log("stopping soon: /readyz is 503, and requests are still answered");
    assert_eq!(management.get("/readyz").await, (503, "Draining: send new work elsewhere".into()));
    assert_eq!(management.get("/livez").await, ok());
    let pair = api.login(&credential).await;
    assert_eq!(api.logout(&pair.access).await, ok());
    assert_eq!(cli(&data, ["status"]).code, Some(2));

    drop(server);
    let server = Server::start_with(&data, &[("RESCIND_SERVER__SHUTDOWN_DELAY", "1s")]);
    let (status, lines) = server.stop(Signal::TERM).await;
    let messages = ["stopping soon: /readyz is 503", "draining", "stopped"];
    let places = messages.map(|message| lines.iter().position(|line| line.contains(message)));
    assert!(status.success() && places.is_sorted() && places[0].is_some(), "{lines:?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_delay_and_open_requests_still_finish() {
    let dir = tempfile::tempdir().unwrap();
    for (first, second) in
        [(Signal::TERM, Signal::INT), (Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)]
    {
        let mut server = Server::start_with(dir.path(), &[("RESCIND_SERVER__SHUTDOWN_DELAY", "1h")]);
        server.signal(first);
        server.wait_for_log("stopping soon: /readyz is 503, and requests are still answered");
        let (status, lines) = server.stop(second).await;
        let messages = ["a second signal: the delay ends now", "draining", "stopped"];
        let places = messages.map(|message| lines.iter().position(|line| line.contains(message)));
        assert!(status.success() && places.is_sorted() && places[0].is_some(), "{lines:?}");
    }
}

#[tokio::test]
async fn sighup_reads_the_settings_again_and_other_signals_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("rescind.toml"));
    fs::write(&file, "").unwrap();
    let mut server = with_settings(&data, &file);
    for signal in [Signal::USR1, Signal::USR2] {
        server.signal(signal);
    }
    let again = "the log's level was read again";
    let reload = |server: &Server, text: &str| {
        fs::write(&file, text).unwrap();
        server.signal(Signal::HUP);
    };
    reload(&server, "[log]\nlevel = 'debug'");
    assert_eq!(server.wait_for_log(again)["level"], "Debug");
    // Its own lines are not logged at that level, and those of an error are.
    reload(&server, "[log]\nlevel = 'error'");
    reload(&server, "[log]\nlevel = 'loud'");
    let kept = server.wait_for_log("the settings were not read again: they stay as they are");
    assert!(kept["error"].as_str().unwrap().starts_with("log.level = \"loud\""), "{kept}");
    reload(&server, "[log]\nlevel = 'info'\n[tokens]\naccess_ttl = '30m'");
    assert_eq!(server.wait_for_log(again)["level"], "Info");
    server.wait_for_log("other settings have changed than log.level: they need a restart");
    assert_eq!(cli(&data, ["status"]).code, Some(0));
}

#[tokio::test]
async fn systemd_is_told_of_every_step_and_that_the_service_lives() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let server = Server::start_with(&dir.path().join("data"), &variables);
    assert_eq!(next_word(&systemd), "READY=1");
    server.signal(Signal::HUP);
    let reloading = next_word(&systemd);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next_word(&systemd), "READY=1");
    let mut message = [0; 256];
    while systemd.recv(&mut message).unwrap() != "WATCHDOG=1\n".len() {}
    assert!(message.starts_with(b"WATCHDOG=1\n"));
    assert!(server.stop(Signal::TERM).await.0.success());
    assert_eq!(next_word(&systemd), "STOPPING=1");
}

#[tokio::test]
async fn a_start_that_waits_for_its_database_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/rescind", database.local_addr().unwrap());
    let mut command = serve(&dir.path().join("data"));
    let process = Process::spawn(command.env("RESCIND_DATABASE__URL", url));
    // It has asked, and is never answered.
    let asked = database.accept().unwrap();
    process.signal(Signal::TERM);
    let (status, lines) = process.ended().await;
    assert!(
        status.success() && lines.iter().any(|line| line.contains("stopped before it served")),
        "{lines:?}"
    );
    drop(asked);
}

#[tokio::test]
async fn a_socket_that_somebody_removed_is_made_again_and_status_tells_that_from_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    // Stopped, it cannot make it again meanwhile.
    server.signal(Signal::STOP);
    fs::remove_file(data.join("rescind.sock")).unwrap();
    cli(&data, ["status"]).refused(2, "running, but nobody answers at ");
    server.signal(Signal::CONT);
    server.wait_for_log("somebody removed the socket for commands: it was made again");
    assert_eq!(cli(&data, ["status"]).code, Some(0));
    // Another folder in its place is not this server's.
    fs::rename(&data, dir.path().join("moved")).unwrap();
    DirBuilder::new().mode(0o700).create(&data).unwrap();
    let gone = server.wait_for_log("the socket for commands is gone, and cannot be made again");
    assert_eq!(gone["error"], "another folder is in the place of the data folder");
    cli(&data, ["status"]).refused(2, "not running: no server has ");
    fs::remove_dir(&data).unwrap();
    fs::rename(dir.path().join("moved"), &data).unwrap();
    server.stop(Signal::TERM).await;
    cli(&data, ["status"]).refused(2, "not running: no server has ");
}
