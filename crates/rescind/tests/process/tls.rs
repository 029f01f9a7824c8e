//! Certificates: which ones prevent a start, and what SIGHUP does.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;

use crate::process::{Server, cli, rescind, run, serve};

/// A self-signed certificate and its key, as PEM.
fn certificate(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_that_cannot_be_used_stop_the_start_naming_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let (good, key) = certificate(|_| {});
    let (old, old_key) = certificate(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let file = |name: &str, text: &str| write(dir.path(), name, text).to_str().unwrap().to_owned();
    let (good, key) = (file("good.pem", &good), file("key.pem", &key));
    let (old, old_key) = (file("old.pem", &old), file("old-key.pem", &old_key));
    let (empty, junk) = (
        file("empty.pem", "nothing"),
        file("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    );
    let start = |certificate: &str, key: &str, more: &[(&str, &str)]| {
        let mut command = serve(&dir.path().join("data"));
        command.env("RESCIND_TLS__CERTIFICATE", certificate).env("RESCIND_TLS__KEY", key);
        run(command.envs(more.iter().copied()))
    };
    let missing = "/nowhere.pem";
    start(missing, &key, &[]).refused(1, "error: tls.certificate = \"/nowhere.pem\": ");
    start(&good, missing, &[]).refused(1, "error: tls.key = \"/nowhere.pem\": ");
    start(&empty, &key, &[]).refused(1, "error: tls.certificate = ");
    start(&key, &key, &[]).refused(1, "error: tls.certificate = ");
    start(&junk, &key, &[]).refused(1, "error: tls.certificate = ");
    start(&good, &good, &[]).refused(1, "error: tls.key = ");
    start(&good, &old_key, &[]).refused(1, "error: tls.key = ");
    start(&old, &old_key, &[]).refused(1, "expired at 2021-01-01T00:00:00Z");
    let client_ca = [("RESCIND_TLS__CLIENT_CA", missing)];
    start(&good, &key, &client_ca).refused(1, "error: tls.client_ca = \"/nowhere.pem\": ");
    start(&good, &key, &[("RESCIND_TLS__CLIENT_CA", &junk)]).refused(1, "error: tls.client_ca = ");

    let check = |variable: &str| run(rescind().args(["config", "check"]).env(variable, &good));
    check("RESCIND_TLS__CERTIFICATE").refused(1, "tls.key = \"\" (default): expected the file");
    check("RESCIND_TLS__KEY").refused(1, "tls.certificate = \"\" (default): expected the file");
}

#[tokio::test]
async fn sighup_takes_up_a_new_certificate_and_leaves_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let put = |(certificate, key): (String, String)| {
        let key = write(dir.path(), "key.pem", &format!("{key:\n<4096}"));
        (write(dir.path(), "certificate.pem", &format!("{certificate:\n<4096}")), key)
    };
    let (certificate_file, key_file) =
        put(certificate(|params| params.not_after = date_time_ymd(2100, 1, 1)));
    let variables = [
        ("RESCIND_TLS__CERTIFICATE", certificate_file.to_str().unwrap()),
        ("RESCIND_TLS__KEY", key_file.to_str().unwrap()),
    ];
    let data_dir = dir.path().join("data");
    let mut server = Server::start_with(&data_dir, &variables);
    // Asked for, the same ones are read again.
    server.signal(Signal::HUP);
    assert_eq!(server.wait_for_log("a new certificate is in force")["until"], "2100-01-01T00:00:00Z");
    put(certificate(|params| params.not_after = date_time_ymd(2101, 1, 1)));
    server.signal(Signal::HUP);
    while server.wait_for_log("a new certificate is in force")["until"] != "2101-01-01T00:00:00Z" {}
    // Unasked, files of the same length and time of modification are read too, as tools that copy files leave them.
    let files = [&certificate_file, &key_file];
    let times = files.map(|file| fs::metadata(file).unwrap().modified().unwrap());
    put(certificate(|params| params.not_after = date_time_ymd(2101, 1, 2)));
    for (file, time) in files.into_iter().zip(times) {
        OpenOptions::new().write(true).open(file).unwrap().set_modified(time).unwrap();
    }
    while server.wait_for_log("a new certificate is in force")["until"] != "2101-01-02T00:00:00Z" {}
    let metrics = reqwest::get(format!("{}/metrics", server.management)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\nrescind_certificate_expires_timestamp_seconds 4134067200\n"), "{metrics}");
    fs::remove_file(&certificate_file).unwrap();
    server.signal(Signal::HUP);
    let kept = server.wait_for_log("the certificate was not replaced: the one before stays in force");
    assert!(kept["error"].as_str().unwrap().starts_with("tls.certificate = "), "{kept}");
    assert_eq!(cli(&data_dir, ["status"]).code, Some(0));
}
