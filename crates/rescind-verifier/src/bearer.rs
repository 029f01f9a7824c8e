use thiserror::Error;

/// Why a request's `Authorization` header has no token. The list is closed: these are the two answers of
/// RFC 6750 §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum BearerError {
    /// There is no such header, or it is not of the form `Bearer <something>`: the caller did not try to
    /// present a token.
    #[error("no bearer token")]
    Missing,
    /// There are several such headers, or what follows `Bearer` cannot be a token.
    #[error("not exactly one bearer token")]
    Malformed,
}

/// Reads a request's token from the values of all its `Authorization` header lines (RFC 6750 §2.1).
///
/// Several lines are refused: if one of them were taken, a proxy in front might have looked at another one.
/// The scheme's name is case-insensitive. Spaces, and nothing else, separate it from the token. The token has
/// the characters of RFC 6750's `b64token` only, so no comma.
///
/// # Errors
///
/// [`BearerError::Missing`] if the caller presented no token, [`BearerError::Malformed`] if not exactly one.
pub fn bearer_token<'h>(lines: impl IntoIterator<Item = &'h [u8]>) -> Result<&'h str, BearerError> {
    const SCHEME: &[u8] = b"Bearer ";
    let mut lines = lines.into_iter();
    let line = lines.next().ok_or(BearerError::Missing)?;
    if lines.next().is_some() {
        return Err(BearerError::Malformed);
    }
    let (scheme, rest) = line.split_at_checked(SCHEME.len()).ok_or(BearerError::Missing)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(BearerError::Missing);
    }
    let start = rest.iter().position(|&b| b != b' ').ok_or(BearerError::Missing)?;
    match std::str::from_utf8(&rest[start..]) {
        Ok(token) if all_of_token(token) => Ok(token),
        _ => Err(BearerError::Malformed),
    }
}

/// Looks at every byte, so that the compiler can compare many at once.
fn all_of_token(text: &str) -> bool {
    text.bytes().fold(true, |so_far, b| so_far & is_token(b))
}

/// From `-` to `9` there are `-`, `.`, `/` and the digits.
fn is_token(b: u8) -> bool {
    let (letter, many) = (b | 0x20, b.wrapping_sub(b'-'));
    (letter.wrapping_sub(b'a') < 26)
        | (many <= b'9' - b'-')
        | (b == b'+')
        | (b == b'=')
        | (b == b'_')
        | (b == b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<&str, BearerError> {
        bearer_token([line.as_bytes()])
    }

    // check 23
    #[test]
    fn the_scheme_is_case_insensitive_and_spaces_follow_it() {
        for line in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "bEaReR   a.b.c"] {
            assert_eq!(read(line), Ok("a.b.c"), "{line}");
        }
        assert_eq!(read("Bearer -._~+/="), Ok("-._~+/="));
    }

    // check 19, 23
    #[test]
    fn without_the_form_there_is_no_token() {
        assert_eq!(bearer_token([]), Err(BearerError::Missing));
        for line in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer    ",
            "Bearer\ta.b.c",
            "Bearer\u{a0}a.b.c",
            " Bearer a.b.c",
            "Bearera.b.c",
            "Bearer,a.b.c",
            "Basic YTpi",
            "Basic YTpi, Bearer a.b.c",
            "a.b.c",
        ] {
            assert_eq!(read(line), Err(BearerError::Missing), "{line:?}");
        }
    }

    // check 23
    #[test]
    fn what_can_be_no_token_is_malformed() {
        for line in [
            "Bearer \ta.b.c",
            "Bearer a.b.c\t",
            "Bearer a.b.c ",
            "Bearer a.b.c, Bearer d.e.f",
            "Bearer a.b.c,d.e.f",
            "Bearer \"a.b.c\"",
            "Bearer ä",
            "Bearer a\0b",
        ] {
            assert_eq!(read(line), Err(BearerError::Malformed), "{line:?}");
        }
        assert_eq!(bearer_token([&b"Bearer \xff"[..]]), Err(BearerError::Malformed));
    }

    // check 23
    #[test]
    fn the_characters_of_a_token_are_those_of_the_rfc() {
        for b in 0..=u8::MAX {
            assert_eq!(is_token(b), b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b), "{b:#x}");
        }
    }

    // check 24
    #[test]
    fn two_lines_are_refused_whatever_they_hold() {
        for lines in [["Bearer a", "Bearer a"], ["Bearer a", "Basic b"], ["Basic b", "Bearer a"], ["", ""]] {
            assert_eq!(bearer_token(lines.map(str::as_bytes)), Err(BearerError::Malformed), "{lines:?}");
        }
    }
}
