//! Whoever decides over access tokens: a node that is asked, or a verifier in a process of its own.

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

/// Whom an API asks.
#[derive(Debug, Clone)]
pub(super) enum Verifier {
    Node(Caller),
    Attached(Attached),
}

/// A follower, and where its verdicts are written down.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) follower: Follower,
    pub(super) recorder: Arc<Recorder>,
}

impl Verifier {
    /// Whether an access token stands.
    pub(super) async fn verify(&self, tokens: &Tokens) -> Verdict {
        match self {
            Verifier::Node(caller) => caller.verify(tokens).await,
            Verifier::Attached(attached) => attached.verify(tokens),
        }
    }
}

impl Attached {
    /// The same, in memory.
    pub(super) fn verify(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = match self.follower.verify(&tokens.access, Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) {
            Ok(_) => Verdict::Accepted(()),
            // It knows too little of this token, or of anything.
            Err(Denied::Stale | Denied::NotKnown) => Verdict::Unknown,
            Err(_) => Verdict::Refused,
        };
        let action = Action::Verify { token: tokens.name.clone(), verdict };
        begun.end(&tokens.client, &self.name, action);
        verdict
    }
}
