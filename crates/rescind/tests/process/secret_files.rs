//! Files of private keys that cannot be used, for every reason.

use std::{fs, path::Path};

use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;

use crate::{
    canary::Canary,
    process::{Server, run, serve},
};

struct Pair {
    certificate: String,
    key: String,
    der: Vec<u8>,
    canaries: [Canary; 2],
}

impl Pair {
    #[track_caller]
    fn assert_absent(&self, text: &str) {
        self.canaries.iter().for_each(|canary| canary.assert_absent(text));
    }
}

fn new_pair() -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap().pem();
    let der = key.serialize_der();
    // The scalar, behind the outer parts that every key of this kind shares.
    let scalar = &der[36..68];
    let canaries = [Canary::new(scalar), Canary::new(BASE64.encode(scalar))];
    Pair { certificate, key: key.serialize_pem(), der, canaries }
}

fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

/// Contents of `tls.key` that are no key, each with its error text.
fn bad_keys(pair: &Pair) -> Vec<(Vec<u8>, &'static str)> {
    let Pair { certificate, key, der, .. } = pair;
    let at = der.windows(8).position(|part| part == [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]).unwrap();
    let mut another_curve = der.clone();
    another_curve[at + 7] = 6;
    let lost = "has lost its line breaks";
    vec![
        (key.replace('\n', "").into(), lost),
        (key.replace('\n', " ").into(), lost),
        (key.replace('\n', "\\n").into(), lost),
        (key.replace("\n-----END", "-----END").into(), lost),
        (key.replace("-----BEGIN", " -----BEGIN").into(), lost),
        (key.split("-----END").next().unwrap().into(), "holds a private key that is damaged or cut off"),
        (key.replacen('M', "*", 1).into(), "holds a private key that is damaged or cut off"),
        (block("PRIVATE KEY", &der[..40]).into(), "damaged, or of a kind that is not supported: RSA of 2048"),
        (block("PRIVATE KEY", &another_curve).into(), "ECDSA on P-256 or P-384, and Ed25519 are"),
        (
            block("ENCRYPTED PRIVATE KEY", der).into(),
            "is encrypted, and nobody is here to type its passphrase",
        ),
        (der.clone(), "is binary (DER), not PEM: convert it with `openssl pkey -inform DER"),
        (certificate.clone().into(), "holds a certificate, and no private key"),
        (BASE64.encode(der).into(), "holds no private key in PEM"),
        (vec![], "is empty"),
    ]
}

// check 108
#[test]
fn a_private_key_of_no_use_is_told_at_the_start_without_a_byte_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, other) = (new_pair(), new_pair());
    let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
    let start = |variables: &[(&str, &Path)]| {
        run(serve(&dir.path().join("data"))
            .env("RESCIND_LOG__LEVEL", "trace")
            .envs(variables.iter().copied()))
    };
    let both = [("RESCIND_TLS__CERTIFICATE", certificate.as_path()), ("RESCIND_TLS__KEY", &key)];
    fs::write(&certificate, &pair.certificate).unwrap();
    for (text, problem) in bad_keys(&pair) {
        fs::write(&key, text).unwrap();
        let outcome = start(&both);
        pair.assert_absent(&outcome.stderr);
        outcome.refused(1, &format!("error: tls.key = {key:?}: "));
        outcome.refused(1, problem);
    }
    fs::write(&key, &other.key).unwrap();
    let outcome = start(&both);
    other.assert_absent(&outcome.stderr);
    outcome.refused(1, &format!("belongs to another certificate than tls.certificate = {certificate:?}"));

    // The key, where a certificate should be.
    fs::write(&key, &pair.key).unwrap();
    for text in [pair.key.replace('\n', ""), format!("{}{}", pair.certificate, pair.key).replace('\n', "")] {
        let bad = dir.path().join("bad.pem");
        fs::write(&bad, text).unwrap();
        let url = Path::new("postgres://u@127.0.0.1:1/x?sslmode=require");
        for (name, variables) in [
            (
                "tls.certificate",
                vec![("RESCIND_TLS__CERTIFICATE", bad.as_path()), ("RESCIND_TLS__KEY", &key)],
            ),
            ("tls.client_ca", [both.as_slice(), &[("RESCIND_TLS__CLIENT_CA", &bad)]].concat()),
            ("database.tls_ca", vec![("RESCIND_DATABASE__URL", url), ("RESCIND_DATABASE__TLS_CA", &bad)]),
        ] {
            let outcome = start(&variables);
            pair.assert_absent(&outcome.stderr);
            outcome.refused(1, &format!("{name} = {bad:?}: has lost its line breaks"));
        }
    }
}

// check 108
#[tokio::test]
async fn a_private_key_of_no_use_is_told_at_a_reload_without_a_byte_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, other) = (new_pair(), new_pair());
    let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
    fs::write(&certificate, &pair.certificate).unwrap();
    fs::write(&key, &pair.key).unwrap();
    let variables = [
        ("RESCIND_TLS__CERTIFICATE", certificate.to_str().unwrap()),
        ("RESCIND_TLS__KEY", key.to_str().unwrap()),
        ("RESCIND_LOG__LEVEL", "trace"),
    ];
    let mut server = Server::start_with(&dir.path().join("data"), &variables);
    let mut bad = bad_keys(&pair);
    bad.push((other.key.clone().into(), "belongs to another certificate"));
    for (text, problem) in bad {
        fs::write(&key, text).unwrap();
        server.signal(Signal::HUP);
        // What is half written when the files are looked at is told as well.
        while !server.wait_for_log("the certificate was not replaced: the one before stays in force")["error"]
            .as_str()
            .unwrap()
            .contains(problem)
        {}
    }
    let (status, log) = server.stop(Signal::TERM).await;
    assert!(status.success());
    pair.assert_absent(&log.join("\n"));
    other.assert_absent(&log.join("\n"));
}
