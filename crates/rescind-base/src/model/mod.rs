//! The domain's values, and the rules that need only these values.

mod administrator;
mod certificate;
mod chain;
pub mod changes;
mod client;
mod denial;
mod event;
mod expiry;
mod handover;
mod management_token;
mod protected_resource;
mod remembered;
mod session;
mod signing_key;
mod usage;
mod verifier;
mod webhook;

pub use rescind_verifier::{ClientId, CredentialId, SessionId, UnixSeconds};

pub use administrator::{Administrator, Enrolment, Proofs, SignIn};
pub use certificate::{CertificateName, CertificateNames, PeerCertificate};
pub use chain::{AuditKey, Checkpoint, Cut, Deleted, Fault, Stretch, Walk};
pub use client::{Client, Credential, CredentialUse, Status, Suspension};
pub use denial::{
    AskedOfToken, Check, Denial, DenialDetails, DenialFilter, Forwarded, Hop, HopRole, MissedAllowlist,
    PresentedKind, PresentedToken, Refusal, Revoked,
};
pub use event::{
    Actor, ChainHash, ChangeOrigin, Event, EventFilter, EventKind, Link, Page, Record, Retention,
};
pub use expiry::{Expiring, FIRST_NOTICE, Subject};
pub use handover::Handover;
pub use management_token::{Creation, CreationKey, ManagementToken, Role};
pub use protected_resource::ProtectedResource;
pub use remembered::{Highest, Remembered, RememberedClient};
pub use session::{OnReuse, Phase, Presented, Session, TokenRules};
pub use signing_key::SigningKeyRecord;
pub use usage::{Counted, HOUR, Hours, Last, Tally};
pub use verifier::{LONGEST_LEASE, VerifierRecord};
pub use webhook::{Delivery, WebhookState};
