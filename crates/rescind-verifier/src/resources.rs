use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest text of all resources together, in bytes, as a token's `aud` has them: a bound on a token's length.
pub(crate) const MAX_LENGTH: usize = 1024;

/// What stands between two of them in a JSON list.
const BETWEEN: &str = "\",\"";

/// A set of resources: URIs of APIs, sorted and without repetition. As a token's `aud` they say which APIs the token
/// is for. A clone copies no text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(
    /// The URIs as a JSON list has them, without its ends. So a token's payload is read and written without another
    /// form in between. `None` is the empty set.
    Option<Arc<str>>,
);

/// Why a text cannot be read as resources.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// A resource is no absolute URI, has a fragment (RFC 8707 §2), or a character that no URI has.
    #[error(
        "{0:?} is not a resource: use an absolute URI without a fragment, such as https://api.example.com/orders"
    )]
    Uri(String),
    /// The resources are longer than a token has room for.
    #[error("resources are longer than {MAX_LENGTH} characters together")]
    TooLong,
}

impl Resources {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each resource in turn.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.as_deref().into_iter().flat_map(|text| text.split(BETWEEN))
    }

    /// Whether `resource` is one of them.
    pub fn contains(&self, resource: &str) -> bool {
        self.iter().any(|r| r == resource)
    }

    /// Whether `resource` is one of them; if there are none, whether it is the `default`.
    pub fn names(&self, resource: &str, default: &str) -> bool {
        if self.is_empty() { resource == default } else { self.contains(resource) }
    }

    /// The resources as a JSON list has them, without its ends: one resource is its own text.
    pub(crate) fn as_json(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// The resources of a text that is exactly as [`as_json`](Self::as_json) writes them, and not empty. `None`: it is
    /// not.
    pub(crate) fn from_json(text: &str) -> Option<Resources> {
        let mut before = "";
        let ascending = text.split(BETWEEN).all(|resource| {
            let follows = before < resource && is_resource(resource);
            before = resource;
            follows
        });
        (ascending && text.len() <= MAX_LENGTH).then(|| Resources(Some(text.into())))
    }

    /// The set of these resources.
    ///
    /// # Errors
    ///
    /// Fails if a resource is no absolute URI, or if they are too long together.
    pub fn new<'a>(resources: impl IntoIterator<Item = &'a str>) -> Result<Resources, ResourceError> {
        let mut resources: Vec<&str> = resources.into_iter().collect();
        if let Some(bad) = resources.iter().find(|resource| !is_resource(resource)) {
            return Err(ResourceError::Uri((*bad).to_owned()));
        }
        resources.sort_unstable();
        resources.dedup();
        let text = resources.join(BETWEEN);
        if text.len() > MAX_LENGTH {
            return Err(ResourceError::TooLong);
        }
        Ok(Resources((!text.is_empty()).then(|| text.into())))
    }
}

/// Whether this is an absolute URI without a fragment, in characters that JSON does not escape.
fn is_resource(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let in_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let in_uri = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'#' | b'<' | b'>');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(in_scheme)
        && !rest.is_empty()
        && rest.bytes().all(in_uri)
}

/// Reads resources that are separated by spaces.
impl FromStr for Resources {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        Resources::new(text.split(' ').filter(|resource| !resource.is_empty()))
    }
}

/// Writes the resources, separated by spaces.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, resource) in self.iter().enumerate() {
            write!(f, "{}{resource}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_unique_and_written_as_they_are_read() {
        let resources: Resources = "https://b.example  urn:a https://b.example".parse().unwrap();
        assert_eq!(resources.to_string(), "https://b.example urn:a");
        assert_eq!(resources.as_json(), r#"https://b.example","urn:a"#);
        assert!(resources.contains("urn:a") && !resources.contains("urn:") && !resources.contains(""));
        assert_eq!(Resources::from_json(resources.as_json()), Some(resources));
        assert!("".parse::<Resources>().unwrap().is_empty());
        assert_eq!(Resources::default().iter().count(), 0);
    }

    #[test]
    fn a_resource_is_an_absolute_uri_without_a_fragment() {
        for bad in [
            "orders",
            "/orders",
            "https:",
            ":x",
            "1a:x",
            "a b:c",
            "https://a#b",
            "https://ä",
            "x:\"",
            "x:\\",
            "x:<",
        ] {
            assert_eq!(Resources::new([bad]), Err(ResourceError::Uri(bad.into())), "{bad}");
            assert_eq!(Resources::from_json(bad), None, "{bad}");
        }
        for good in ["https://a", "urn:a", "a+b-c.d:e", "https://a:8443/b?c=d&e"] {
            assert_eq!(Resources::new([good]).unwrap().to_string(), good);
        }
    }

    #[test]
    fn one_text_is_canonical() {
        for text in
            ["", r#"urn:b","urn:a"#, r#"urn:a","urn:a"#, r#"urn:a",""#, r#"","urn:a"#, r#"urn:a", "urn:b"#]
        {
            assert_eq!(Resources::from_json(text), None, "{text}");
        }
        let longest = format!("urn:{}", "a".repeat(MAX_LENGTH - 4));
        assert!(Resources::from_json(&longest).is_some());
        assert!(Resources::from_json(&(longest.clone() + "a")).is_none());
        assert_eq!(Resources::new([&*longest, "urn:b"]), Err(ResourceError::TooLong));
    }
}
