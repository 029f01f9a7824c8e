//! Certificates and private keys in PEM files.
//!
//! The reader's errors may contain bytes of a private key, so they are not passed on. This module itself finds out
//! what is wrong with a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use zeroize::Zeroizing;

use super::circumstances::circumstances;

/// Why a file cannot be used. The text follows the file's name, and repeats nothing of the file's content.
#[derive(Debug, Error)]
pub enum PemError {
    #[error("cannot be read: {}{}", .1, circumstances(.0, .1))]
    Unreadable(PathBuf, io::Error),
    #[error("is empty")]
    Empty,
    #[error("is binary (DER), not PEM: convert it with `openssl {0} -inform DER -in FILE -out NEW-FILE`")]
    Der(&'static str),
    #[error(
        "is encrypted, and nobody is here to type its passphrase: decrypt it with `openssl pkey -in FILE -out NEW-FILE`"
    )]
    Encrypted,
    #[error(
        "has lost its line breaks: every -----BEGIN …----- and -----END …----- must be a line of its own"
    )]
    OneLine,
    #[error("holds {0} that is damaged or cut off")]
    Damaged(&'static str),
    #[error("holds {holds}, and no {expected}")]
    Another { holds: &'static str, expected: &'static str },
    #[error("holds no {0} in PEM")]
    Nothing(&'static str),
}

/// What a file must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Certificate,
    PrivateKey,
}

/// The label in `-----BEGIN …-----`, and what the block contains.
const LABELS: [(&str, &str); 10] = [
    ("CERTIFICATE", "a certificate"),
    ("PRIVATE KEY", "a private key"),
    ("RSA PRIVATE KEY", "a private key"),
    ("EC PRIVATE KEY", "a private key"),
    ("ENCRYPTED PRIVATE KEY", "a private key"),
    ("OPENSSH PRIVATE KEY", "a key in OpenSSH's own form (`ssh-keygen -p -m PKCS8 -f COPY` converts a copy)"),
    ("PUBLIC KEY", "a public key"),
    ("CERTIFICATE REQUEST", "a certificate request"),
    ("X509 CRL", "a revocation list"),
    ("EC PARAMETERS", "a curve's parameters"),
];

/// Returns every certificate of a file: at least one.
///
/// # Errors
/// Fails if the file cannot be read, or has no certificate or a damaged one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(problem(&text, Expected::Certificate)),
    }
}

/// Returns the first private key of a file.
///
/// # Errors
/// Fails if the file cannot be read, or has no private key or a damaged one.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| problem(&text, Expected::PrivateKey))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    fs::read(path).map(Zeroizing::new).map_err(|e| PemError::Unreadable(path.to_owned(), e))
}

/// Returns what is wrong with a file that does not contain what is expected.
fn problem(text: &[u8], expected: Expected) -> PemError {
    let (name, article, command) = match expected {
        Expected::Certificate => ("certificate", "a certificate", "x509"),
        Expected::PrivateKey => ("private key", "a private key", "pkey"),
    };
    // DER begins with a sequence whose length takes more than one byte. No text begins so.
    if let [0x30, 0x80..=0x84, ..] = text {
        return PemError::Der(command);
    }
    let text = Zeroizing::new(String::from_utf8_lossy(text).into_owned());
    if text.trim().is_empty() {
        return PemError::Empty;
    }
    let mut holds = Vec::new();
    for line in text.split(['\n', '\r']).map(str::trim_end) {
        if !line.contains("-----BEGIN ") && !line.contains("-----END ") {
            continue;
        }
        let label = line.strip_prefix("-----").and_then(|rest| rest.strip_suffix("-----"));
        if label.is_none_or(|label| label.contains("-----")) {
            return PemError::OneLine;
        }
        let begins = |known: &str| line == format!("-----BEGIN {known}-----");
        holds.extend(LABELS.iter().filter(|(known, _)| begins(known)).map(|(_, what)| *what));
    }
    match holds.first() {
        Some(_) if holds.contains(&article) => match expected {
            Expected::PrivateKey if text.contains("ENCRYPTED") => PemError::Encrypted,
            _ => PemError::Damaged(article),
        },
        Some(holds) => PemError::Another { holds, expected: name },
        None => PemError::Nothing(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is wrong with a file of this text.
    fn refused(text: &[u8]) -> (String, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        (
            certificates(file.path()).unwrap_err().to_string(),
            private_key(file.path()).unwrap_err().to_string(),
        )
    }

    // check 108
    #[test]
    fn what_is_wrong_with_a_file_is_found_out_and_nothing_of_it_repeated() {
        let body = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmFyeQ==";
        let block =
            |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let lost =
            "has lost its line breaks: every -----BEGIN …----- and -----END …----- must be a line of its own";
        let key = block("PRIVATE KEY", body);
        for (text, certificate, private) in [
            (String::new(), "is empty", "is empty"),
            (" \r\n".into(), "is empty", "is empty"),
            (body.into(), "holds no certificate in PEM", "holds no private key in PEM"),
            (key.replace('\n', ""), lost, lost),
            (key.replace('\n', " "), lost, lost),
            (key.replace('\n', "\\n"), lost, lost),
            (key.replace(&format!("{body}\n"), body), lost, lost),
            (key.replace("-----BEGIN", "  -----BEGIN"), lost, lost),
            (
                block("PRIVATE KEY", "*canary*"),
                "holds a private key, and no certificate",
                "holds a private key that is damaged or cut off",
            ),
            (
                key.replace("-----END PRIVATE KEY-----\n", ""),
                "holds a private key, and no certificate",
                "holds a private key that is damaged or cut off",
            ),
            (
                block("CERTIFICATE", "*canary*"),
                "holds a certificate that is damaged or cut off",
                "holds a certificate, and no private key",
            ),
            (
                block("ENCRYPTED PRIVATE KEY", body),
                "holds a private key, and no certificate",
                "is encrypted, and nobody is here to type its passphrase: decrypt it with `openssl pkey -in FILE -out NEW-FILE`",
            ),
            (
                block(
                    "EC PRIVATE KEY",
                    &format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{body}"),
                ),
                "holds a private key, and no certificate",
                "is encrypted, and nobody is here to type its passphrase: decrypt it with `openssl pkey -in FILE -out NEW-FILE`",
            ),
            (
                block("OPENSSH PRIVATE KEY", body),
                "holds a key in OpenSSH's own form (`ssh-keygen -p -m PKCS8 -f COPY` converts a copy), and no certificate",
                "holds a key in OpenSSH's own form (`ssh-keygen -p -m PKCS8 -f COPY` converts a copy), and no private key",
            ),
            (block("CANARY", body), "holds no certificate in PEM", "holds no private key in PEM"),
        ] {
            assert_eq!(refused(text.as_bytes()), (certificate.into(), private.into()), "{text}");
        }
        let (certificate, private) = refused(&[0x30, 0x82, 0x01, 0x00, 0xff]);
        assert!(certificate.contains("`openssl x509 -inform DER"), "{certificate}");
        assert!(private.contains("`openssl pkey -inform DER"), "{private}");
        assert!(
            private_key(Path::new("/nowhere"))
                .unwrap_err()
                .to_string()
                .starts_with("cannot be read: No such")
        );
        assert!(
            private_key(Path::new("/"))
                .unwrap_err()
                .to_string()
                .starts_with("cannot be read: Is a directory")
        );
    }
}
