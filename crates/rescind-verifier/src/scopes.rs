use std::{fmt, str::FromStr};

use thiserror::Error;

/// The longest text of all scopes together, in bytes: room for some hundred scopes, and a bound on a token's
/// length.
const MAX_LENGTH: usize = 1024;

/// A set of scopes (RFC 6749 §3.3): sorted, without repetition, joined by single spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Box<str>);

/// Why a text cannot be read as scopes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// A scope has a character that RFC 6749's `scope-token` does not permit.
    #[error("{0:?} is not a scope: use visible ASCII characters other than \" and \\")]
    Character(String),
    /// The scopes are longer than a token has room for.
    #[error("scopes are longer than {MAX_LENGTH} characters together")]
    TooLong,
}

impl Scopes {
    /// Whether there are no scopes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes joined by single spaces, as `scope` carries them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Each scope in turn.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator(' ')
    }

    /// Whether `scope` is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|s| s == scope)
    }

    /// The scopes that both sets have.
    pub fn intersection(&self, other: &Scopes) -> Scopes {
        if self == other {
            return self.clone();
        }
        let common: Vec<&str> = self.iter().filter(|scope| other.contains(scope)).collect();
        Scopes(common.join(" ").into())
    }

    /// The scopes that one of the sets has, or both. The union may be longer than a token has room for.
    pub fn union(&self, other: &Scopes) -> Scopes {
        let mut all: Vec<&str> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        all.dedup();
        Scopes(all.join(" ").into())
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scopes: Vec<&str> = text.split(' ').filter(|s| !s.is_empty()).collect();
        if let Some(bad) =
            scopes.iter().find(|s| !s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'))
        {
            return Err(ScopeError::Character((*bad).to_owned()));
        }
        scopes.sort_unstable();
        scopes.dedup();
        let joined = scopes.join(" ");
        if joined.len() > MAX_LENGTH {
            return Err(ScopeError::TooLong);
        }
        Ok(Scopes(joined.into()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_unique() {
        let scopes: Scopes = " b  a b".parse().unwrap();
        assert_eq!(scopes.as_str(), "a b");
        assert!(scopes.contains("a") && !scopes.contains("a b") && !scopes.contains(""));
        assert_eq!("".parse::<Scopes>().unwrap().iter().count(), 0);
    }

    #[test]
    fn intersection_keeps_what_both_have() {
        let both =
            |a: &str, b: &str| a.parse::<Scopes>().unwrap().intersection(&b.parse().unwrap()).to_string();
        assert_eq!(both("a b c", "c a d"), "a c");
        assert_eq!(both("a", "b"), "");
        assert_eq!(both("a b", "a b"), "a b");
    }

    #[test]
    fn union_has_what_either_has() {
        let either = |a: &str, b: &str| a.parse::<Scopes>().unwrap().union(&b.parse().unwrap()).to_string();
        assert_eq!(either("b d", "a b c"), "a b c d");
        assert_eq!(either("a", ""), "a");
        assert_eq!(either("", ""), "");
    }

    #[test]
    fn refused() {
        assert!(matches!("a\"".parse::<Scopes>(), Err(ScopeError::Character(_))));
        assert!(matches!("ä".parse::<Scopes>(), Err(ScopeError::Character(_))));
        assert_eq!("x".repeat(MAX_LENGTH + 1).parse::<Scopes>(), Err(ScopeError::TooLong));
    }
}
