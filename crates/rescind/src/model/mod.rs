//! The domain's values, and the rules that need only these values.

mod certificate;
pub mod changes;
mod client;
mod event;
mod remembered;
mod session;
mod signing_key;
mod verifier;

pub use rescind_verifier::{ClientId, CredentialId, SessionId, UnixSeconds};

pub use certificate::{CertificateName, CertificateNames, PeerCertificate};
pub use client::{Client, Credential, Status};
pub use event::{Actor, ChangeOrigin, Event, EventKind, Page, Record, Retention, Wanted};
pub use remembered::{Highest, Remembered, RememberedClient};
pub use session::{OnReuse, Phase, Presented, Session, TokenRules};
pub use signing_key::SigningKeyRecord;
pub use verifier::{LONGEST_LEASE, VerifierRecord};
