//! One line of a history.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// A request to a node, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// When the request was sent, in nanoseconds of the recorder's clock.
    pub begin: u64,
    /// When the answer arrived, or the caller stopped waiting.
    pub end: u64,
    /// The client whose tokens the request concerns.
    pub client: String,
    /// The node that was asked.
    pub node: String,
    /// The request and the answer.
    pub action: Action,
}

/// The request and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Requests a new pair for an API key and secret.
    Login {
        /// The verdict, with the pair given.
        verdict: Verdict<Pair>,
    },
    /// Requests the next pair of a session for the latest one.
    Refresh {
        /// The pair whose refresh token was presented.
        token: String,
        /// The verdict, with the pair given.
        verdict: Verdict<Pair>,
    },
    /// Asks whether a token is valid.
    Verify {
        /// The pair whose access token was presented.
        token: String,
        /// Whether the token is valid.
        verdict: Verdict,
    },
    /// Revokes every token of the client.
    Logout {
        /// The pair whose access token was presented; `None` for an operator's logout.
        token: Option<String>,
        /// Whether the tokens were revoked.
        verdict: Verdict,
    },
    /// Ends one session.
    Revoke {
        /// The pair of which a token was presented.
        token: String,
        /// Whether the session was ended.
        verdict: Verdict,
    },
    /// Not a request: the service was restored to its state at some moment since `begin`, at `end` at the
    /// latest. Logins and refreshes may be lost; revocations must not be.
    Loss,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<T = ()> {
    /// 200.
    Accepted(T),
    /// 401. Nothing was changed.
    Refused,
    /// Another status, or no answer. The request may have been executed, may be executed later, or never.
    Unknown,
}

/// A pair of tokens, access and refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The recorder's name for the pair, here and wherever one of its tokens is presented.
    pub token: String,
    /// The client's generation that the pair carries, if known.
    pub generation: Option<u64>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// The wrong field.
    pub field: String,
    /// The problem.
    pub problem: String,
}

impl Malformed {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Malformed {
        Malformed { field: field.into(), problem: problem.into() }
    }
}

/// An action's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are those of Action")]
pub enum Kind {
    Login,
    Refresh,
    Verify,
    Logout,
    Revoke,
    Loss,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Kind::Login => "login",
            Kind::Refresh => "refresh",
            Kind::Verify => "verify",
            Kind::Logout => "logout",
            Kind::Revoke => "revoke",
            Kind::Loss => "loss",
        })
    }
}

impl<T> Verdict<T> {
    /// The same verdict by reference.
    pub fn as_ref(&self) -> Verdict<&T> {
        match self {
            Verdict::Accepted(given) => Verdict::Accepted(given),
            Verdict::Refused => Verdict::Refused,
            Verdict::Unknown => Verdict::Unknown,
        }
    }

    /// The same verdict with another result.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Verdict::Accepted(given) => Verdict::Accepted(with(given)),
            Verdict::Refused => Verdict::Refused,
            Verdict::Unknown => Verdict::Unknown,
        }
    }

    /// The result of an accepted request.
    pub fn given(self) -> Option<T> {
        match self {
            Verdict::Accepted(given) => Some(given),
            Verdict::Refused | Verdict::Unknown => None,
        }
    }
}

impl Operation {
    /// The action's kind.
    pub fn kind(&self) -> Kind {
        match self.action {
            Action::Login { .. } => Kind::Login,
            Action::Refresh { .. } => Kind::Refresh,
            Action::Verify { .. } => Kind::Verify,
            Action::Logout { .. } => Kind::Logout,
            Action::Revoke { .. } => Kind::Revoke,
            Action::Loss => Kind::Loss,
        }
    }

    /// The verdict without its result.
    pub fn verdict(&self) -> Verdict {
        match &self.action {
            Action::Login { verdict } | Action::Refresh { verdict, .. } => verdict.as_ref().map(|_| ()),
            Action::Verify { verdict, .. }
            | Action::Logout { verdict, .. }
            | Action::Revoke { verdict, .. } => *verdict,
            Action::Loss => Verdict::Accepted(()),
        }
    }
}

/// The members of a line's object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    op: Kind,
    begin: u64,
    end: u64,
    client: String,
    node: String,
    verdict: Answer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gives: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Accepted,
    Refused,
    Unknown,
}

impl FromStr for Operation {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Operation, Malformed> {
        let json = &mut serde_json::Deserializer::from_str(line);
        let read: Line =
            serde_path_to_error::deserialize(&mut *json).map_err(|e| match e.path().to_string() {
                whole if whole == "." => Malformed::new("the operation", e.inner().to_string()),
                field => Malformed::new(field, e.inner().to_string()),
            })?;
        json.end().map_err(|e| Malformed::new("the operation", e.to_string()))?;
        let Line { op, begin, end, client, node, verdict, token, gives, generation } = read;

        let presented = |token: Option<String>| token.ok_or_else(|| Malformed::new("token", "missing"));
        let action = match op {
            Kind::Login if token.is_some() => {
                return Err(Malformed::new("token", "a login presents none: `gives` names what it gives"));
            }
            Kind::Login => Action::Login { verdict: verdict.giving(gives, generation)? },
            Kind::Refresh => {
                Action::Refresh { token: presented(token)?, verdict: verdict.giving(gives, generation)? }
            }
            Kind::Verify => Action::Verify {
                token: presented(token)?,
                verdict: verdict.giving_nothing(gives, generation)?,
            },
            Kind::Logout => Action::Logout { token, verdict: verdict.giving_nothing(gives, generation)? },
            Kind::Revoke => Action::Revoke {
                token: presented(token)?,
                verdict: verdict.giving_nothing(gives, generation)?,
            },
            Kind::Loss if token.is_some() => {
                return Err(Malformed::new("token", "a loss is of everybody's"));
            }
            Kind::Loss => match verdict.giving_nothing(gives, generation)? {
                Verdict::Accepted(()) => Action::Loss,
                _ => return Err(Malformed::new("verdict", "a loss is always accepted")),
            },
        };
        Ok(Operation { begin, end, client, node, action })
    }
}

impl Answer {
    /// The verdict of an action that returns a pair if it is accepted.
    fn giving(self, gives: Option<String>, generation: Option<u64>) -> Result<Verdict<Pair>, Malformed> {
        let token = match (self, gives) {
            (Answer::Accepted, gives) => gives.ok_or_else(|| Malformed::new("gives", "missing"))?,
            (Answer::Refused, None) if generation.is_none() => return Ok(Verdict::Refused),
            (Answer::Unknown, None) if generation.is_none() => return Ok(Verdict::Unknown),
            (_, gives) => return Err(gives_nothing(gives)),
        };
        Ok(Verdict::Accepted(Pair { token, generation }))
    }

    /// The verdict of an action that returns no pair.
    fn giving_nothing(self, gives: Option<String>, generation: Option<u64>) -> Result<Verdict, Malformed> {
        if gives.is_some() || generation.is_some() {
            return Err(gives_nothing(gives));
        }
        Ok(match self {
            Answer::Accepted => Verdict::Accepted(()),
            Answer::Refused => Verdict::Refused,
            Answer::Unknown => Verdict::Unknown,
        })
    }
}

fn gives_nothing(gives: Option<String>) -> Malformed {
    let field = if gives.is_some() { "gives" } else { "generation" };
    Malformed::new(field, "only an accepted login or refresh gives a pair")
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (token, pair) = match self.action.clone() {
            Action::Login { verdict } => (None, verdict.given()),
            Action::Refresh { token, verdict } => (Some(token), verdict.given()),
            Action::Verify { token, .. } | Action::Revoke { token, .. } => (Some(token), None),
            Action::Logout { token, .. } => (token, None),
            Action::Loss => (None, None),
        };
        let (gives, generation) = pair.map(|pair| (pair.token, pair.generation)).unzip();
        let line = Line {
            op: self.kind(),
            begin: self.begin,
            end: self.end,
            client: self.client.clone(),
            node: self.node.clone(),
            verdict: match self.verdict() {
                Verdict::Accepted(()) => Answer::Accepted,
                Verdict::Refused => Answer::Refused,
                Verdict::Unknown => Answer::Unknown,
            },
            token,
            gives,
            generation: generation.flatten(),
        };
        line.serialize(serializer)
    }
}
