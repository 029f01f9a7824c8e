//! Who may read and write the files of the service, and that it leaves no core dump.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Resource, Rlimit, Signal, geteuid, getrlimit, setrlimit};

use crate::{
    api::{Api, ok},
    process::{Process, Server, cli, json, rescind, run, serve},
};

const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A data folder with a store, and the files in it that only this user may read.
fn used_folder() -> (tempfile::TempDir, PathBuf, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    json(&data, "client create --name c");
    let files =
        ["", "rescind.db", "rescind.mark", "rescind.lock", "master.key"].map(|name| data.join(name)).to_vec();
    (dir, data, files)
}

// check 111
#[tokio::test]
async fn a_folder_and_its_files_are_for_us_alone() {
    let (_dir, data, files) = used_folder();
    for file in &files {
        let before = mode(file);
        for bits in [0o004, 0o002, 0o001, 0o007] {
            set(file, before | bits);
            let shown = file.display().to_string();
            let told = format!(
                "{} is open to every user of this machine (mode {:04o}, owner uid ",
                shown.trim_end_matches('/'),
                before | bits
            );
            let outcome = run(&mut serve(&data));
            outcome.refused(1, &told);
            outcome.refused(1, "chmod o-rwx ");
            // Nor by a command that opens the store itself.
            cli(&data, ["client", "list"]).refused(1, &told);
            cli(&data, ["db", "migrate"]).refused(1, &told);
        }
        set(file, before);
    }
    let server = Server::start(&data);
    assert_eq!(Api::new(&server.management).get("/readyz").await, ok());
    // What was written by a process that was killed as well.
    server.stop(Signal::KILL).await;
    let log = data.join("rescind.db-wal");
    set(&log, 0o604);
    run(&mut serve(&data)).refused(1, &format!("{} is open to every user", log.display()));
}

// check 111
#[test]
fn an_empty_folder_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    set(&data, 0o2775);
    json(&data, "client create --name c");
    assert_eq!(mode(&data) & 0o777, 0o700);
}

// check 111
#[test]
fn what_is_somebody_elses_is_refused() {
    // Only root can give a file away.
    if !geteuid().is_root() {
        return;
    }
    let (_dir, data, files) = used_folder();
    for file in &files {
        chown(file, Some(12345), None).unwrap();
        let outcome = run(&mut serve(&data));
        outcome.refused(1, "belongs to another user (mode 0");
        outcome.refused(1, "owner uid 12345; this process is uid 0): run as uid 12345, or chown -R 0 ");
        chown(file, Some(0), None).unwrap();
    }
    assert_eq!(cli(&data, ["client", "list"]).code, Some(0));
}

// check 111
#[tokio::test]
async fn the_groups_bits_are_one_warning() {
    let (_dir, data, files) = used_folder();
    files.iter().for_each(|file| set(file, mode(file) | 0o060));
    set(&data, 0o2770);
    let (status, log) = Server::start(&data).stop(Signal::TERM).await;
    assert!(status.success());
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert_eq!(warnings.len(), 1, "{log:#?}");
    for part in [
        "the group may read or write",
        "master.key (0660)",
        "rescind.db (0660)",
        "data (2770)",
        "chmod -R g-rwx",
    ] {
        assert!(warnings[0].contains(part), "{part} is not in {}", warnings[0]);
    }
    let command = cli(&data, ["client", "list"]);
    assert!(command.code == Some(0) && command.stderr.lines().count() == 1, "{command:?}");
    assert!(command.stderr.contains("the group may read or write"), "{command:?}");
}

// check 111
#[tokio::test]
async fn new_files_are_for_us_alone_whatever_the_umask() {
    for umask in ["000", "022", "277"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let serve = serve(&data);
        let mut command = Command::new("sh");
        command.env_clear().arg("-c").arg(format!("umask {umask} && exec \"$0\" \"$@\""));
        let mut process = Process::spawn(command.arg(serve.get_program()).args(serve.get_args()));
        process.wait_for_log("serving");
        json(&data, "client create --name c");
        let files: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 5, "{files:?}");
        for file in &files {
            assert_eq!(mode(file), 0o600, "{} under {umask}", file.display());
        }
        assert_eq!((mode(&data), mode(data.parent().unwrap())), (0o700, 0o700), "{umask}");
        process.signal(Signal::TERM);
        process.ended().await;
    }
}

// check 111
#[tokio::test]
async fn a_mounted_secret_may_be_read_and_not_written_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let (mount, data) = (dir.path().join("mount"), dir.path().join("data"));
    // As Kubernetes mounts it: the file is a link into a folder that is a link.
    let version = mount.join("..2026");
    fs::create_dir_all(&version).unwrap();
    let file = version.join("key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    symlink("..2026", mount.join("..data")).unwrap();
    symlink("..data/key", mount.join("key")).unwrap();
    let named = mount.join("key");
    let variables = [("RESCIND_MASTER_KEY_FILE", named.to_str().unwrap())];
    set(&mount, 0o1777);
    set(&version, 0o755);

    for (mode, warned) in [(0o400, false), (0o440, false), (0o644, true), (0o444, true)] {
        set(&file, mode);
        let (status, log) = Server::start_with(&data, &variables).stop(Signal::TERM).await;
        assert!(status.success(), "{log:#?}");
        let warnings: Vec<_> = log.iter().filter(|line| line.contains("\"WARN\"")).collect();
        assert_eq!(warnings.len(), usize::from(warned), "{mode:o}: {log:#?}");
        let told = |line: &&String| line.contains("RESCIND_MASTER_KEY_FILE can be read by other users");
        assert!(warnings.iter().all(told), "{warnings:?}");
    }
    let refused = |told: &str| {
        run(serve(&data).envs(variables)).refused(1, told);
        let mut list = rescind();
        list.args(["client", "list", "--data-dir"]).arg(&data);
        run(list.envs(variables)).refused(1, told);
    };
    set(&file, 0o602);
    refused(&format!(
        "{} can be written by every user of this machine (mode 0602, owner uid ",
        file.display()
    ));
    set(&file, 0o600);
    set(&version, 0o757);
    refused(&format!("{} can be written by every user", version.display()));
    set(&version, 0o755);
    set(&mount, 0o777);
    refused(&format!("{} can be written by every user", mount.display()));
}

// check 111
#[tokio::test]
async fn a_certificates_key_may_be_read_and_not_written_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let files = ["certificate.pem", "key.pem"].map(|name| dir.path().join(name));
    fs::write(&files[0], certificate.pem()).unwrap();
    fs::write(&files[1], key.serialize_pem()).unwrap();
    let data = dir.path().join("data");
    let variables = [
        ("RESCIND_TLS__CERTIFICATE", files[0].to_str().unwrap()),
        ("RESCIND_TLS__KEY", files[1].to_str().unwrap()),
    ];
    set(&files[1], 0o666);
    run(serve(&data).envs(variables)).refused(1, "tls.key: ");
    run(serve(&data).envs(variables))
        .refused(1, "key.pem can be written by every user of this machine (mode 0666");
    set(&files[1], 0o644);
    let mut server = Server::start_with(&data, &variables);
    set(&files[1], 0o602);
    server.signal(Signal::HUP);
    let kept = server.wait_for_log("the certificate was not replaced: the one before stays in force");
    assert!(kept["error"].as_str().unwrap().contains("can be written by every user"), "{kept}");
    set(&files[1], 0o640);
    server.signal(Signal::HUP);
    server.wait_for_log("a new certificate is in force");
    let (_, log) = server.stop(Signal::TERM).await;
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("tls.key can be read by other users"),
        "{warnings:?}"
    );
}

// check 111
#[test]
fn no_core_is_dumped() {
    let (_dir, data, _) = used_folder();
    let limit = getrlimit(Resource::Core);
    let mut command = serve(&data);
    command.current_dir(&data);
    // Whatever the shell lets it.
    setrlimit(Resource::Core, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut process = Process::spawn(&mut command);
    process.wait_for_log("serving");
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid().as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    process.signal(Signal::ABORT);
    let (status, _) = tokio::runtime::Runtime::new().unwrap().block_on(process.ended());
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}

#[tokio::test]
async fn the_process_is_measured_where_the_machine_is_hidden() {
    let hidden = |program: &Command| {
        let mut hiding = Command::new("unshare");
        hiding.args(["--mount", "sh", "-c", "mount --bind /dev/null /proc/stat && exec \"$@\"", "sh"]);
        hiding.arg(program.get_program()).args(program.get_args());
        hiding
    };
    // Only who may mount can hide a file.
    if !hidden(&Command::new("true")).output().unwrap().status.success() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(&mut hidden(&serve(dir.path())));
    let metrics = reqwest::get(format!("{}/metrics", server.management)).await.unwrap().text().await.unwrap();
    for name in
        ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_start_time_seconds "]
    {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}: {metrics}");
    }
}
