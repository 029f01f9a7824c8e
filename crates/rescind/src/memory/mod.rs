//! What this process holds in memory, in step with the store.

mod credential_table;
mod feed;
mod issuer;
mod registry;
mod signer;

pub use feed::{Changed, Feed};
pub use issuer::{Issuer, Keyring, KeyringError, Pair, generate_key, generate_upgrade, publish_ahead};
pub use registry::{KnownCredential, ReadStamp, Registry};
pub use signer::PublicKey;
