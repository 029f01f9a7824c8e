//! Everything that verifies access tokens: a node, or a verifier in its own process.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rescind_verifier::{Denied, follow::Follower};

use super::{
    caller::{Caller, Tokens},
    recorder::Recorder,
};
use crate::history::{Action, Verdict};

/// The verifier that an API uses.
#[derive(Debug, Clone)]
pub(super) enum Verifier {
    Node(Caller),
    Attached(Attached),
}

/// A follower, and the recorder of its verdicts.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) follower: Follower,
    pub(super) recorder: Arc<Recorder>,
}

impl Verifier {
    /// Verifies an access token.
    pub(super) async fn verify(&self, tokens: &Tokens) -> Verdict {
        match self {
            Verifier::Node(caller) => caller.verify(tokens).await,
            Verifier::Attached(attached) => attached.verify(tokens),
        }
    }
}

impl Attached {
    /// Verifies an access token in memory.
    pub(super) fn verify(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = match self.follower.verify(&tokens.access, Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) {
            Ok(_) => Verdict::Accepted(()),
            // The follower is not fresh enough to decide.
            Err(Denied::Stale | Denied::NotKnown) => Verdict::Unknown,
            Err(_) => Verdict::Refused,
        };
        let action = Action::Verify { token: tokens.name.clone(), verdict };
        begun.end(&tokens.client, &self.name, action);
        verdict
    }
}
