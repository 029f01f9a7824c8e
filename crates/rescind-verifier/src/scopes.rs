use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest text of all scopes together, in bytes: room for some hundred scopes, and a bound on a token's
/// length.
const MAX_LENGTH: usize = 1024;

/// A set of scopes (RFC 6749 §3.3): sorted, without repetition, joined by single spaces. A clone copies no
/// text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(
    /// `None` is the empty set. An empty text would be one shared by all, and so would its count of clones.
    Option<Arc<str>>,
);

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
        self.0.is_none()
    }

    /// The scopes joined by single spaces, as `scope` carries them.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Each scope in turn.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_str().split_terminator(' ')
    }

    /// Whether `scope` is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|s| s == scope)
    }

    /// The scopes that both sets have.
    pub fn intersection(&self, other: &Scopes) -> Scopes {
        if self == other || self.iter().all(|scope| other.contains(scope)) {
            return self.clone();
        }
        Scopes::joined(self.iter().filter(|scope| other.contains(scope)).collect())
    }

    /// The scopes that one of the sets has, or both. The union may be longer than a token has room for.
    pub fn union(&self, other: &Scopes) -> Scopes {
        Scopes::joined(self.iter().chain(other.iter()).collect())
    }

    /// The scopes of a text that is exactly as [`as_str`](Self::as_str) writes them, and not empty. `None`: it is
    /// not.
    pub(crate) fn from_canonical(text: &str) -> Option<Scopes> {
        let mut before: &[u8] = b"";
        let ascending = text.as_bytes().split(|b| *b == b' ').all(|scope| {
            // Byte by byte: some processors take longer to compare an empty slice than for all the rest.
            let follows = before.iter().lt(scope) && scope.iter().copied().all(is_scope_character);
            before = scope;
            follows
        });
        (ascending && text.len() <= MAX_LENGTH).then(|| Scopes(Some(text.into())))
    }

    fn joined(mut scopes: Vec<&str>) -> Scopes {
        scopes.sort_unstable();
        scopes.dedup();
        Scopes((!scopes.is_empty()).then(|| scopes.join(" ").into()))
    }
}

/// Whether RFC 6749's `scope-token` permits the character.
fn is_scope_character(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let scopes: Vec<&str> = text.split(' ').filter(|s| !s.is_empty()).collect();
        if let Some(bad) = scopes.iter().find(|s| !s.bytes().all(is_scope_character)) {
            return Err(ScopeError::Character((*bad).to_owned()));
        }
        let scopes = Scopes::joined(scopes);
        if scopes.as_str().len() > MAX_LENGTH { Err(ScopeError::TooLong) } else { Ok(scopes) }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
        assert_eq!(both("b c", "a b c d"), "b c");
        assert_eq!(both("", "a"), "");
    }

    #[test]
    fn union_has_what_either_has() {
        let either = |a: &str, b: &str| a.parse::<Scopes>().unwrap().union(&b.parse().unwrap()).to_string();
        assert_eq!(either("b d", "a b c"), "a b c d");
        assert_eq!(either("a", ""), "a");
        assert_eq!(either("", ""), "");
    }

    #[test]
    fn canonical_is_what_is_written_as_it_would_be() {
        for text in
            ["", " ", "a", "b", " a", "a ", "a b", "a  b", "b a", "a a", "a ab b", "a\"", "ä", "a:b a.b"]
        {
            let scopes = Scopes::from_canonical(text);
            let written = text.parse::<Scopes>().ok().filter(|s| s.as_str() == text && !s.is_empty());
            assert_eq!(scopes, written, "{text:?}");
        }
        assert!(Scopes::from_canonical(&"x".repeat(MAX_LENGTH)).is_some());
        assert!(Scopes::from_canonical(&"x".repeat(MAX_LENGTH + 1)).is_none());
    }

    #[test]
    fn refused() {
        assert!(matches!("a\"".parse::<Scopes>(), Err(ScopeError::Character(_))));
        assert!(matches!("ä".parse::<Scopes>(), Err(ScopeError::Character(_))));
        assert_eq!("x".repeat(MAX_LENGTH + 1).parse::<Scopes>(), Err(ScopeError::TooLong));
    }
}
