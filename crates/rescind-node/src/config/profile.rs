//! The issuer and audience of every token.

use rescind_verifier::Profile;

use super::Config;

impl Config {
    /// The issuer and audience of every token. `None` if they cannot be written in a token.
    pub fn profile(&self) -> Option<Profile> {
        Profile::new(&self.tokens.issuer, self.audience())
    }

    /// The settings that make the profile, for people. Nodes with the same text have the same profile.
    pub fn profile_in_words(&self) -> String {
        format!("tokens.issuer = {:?} and tokens.audience = {:?}", self.tokens.issuer, self.audience())
    }

    /// The default audience is the issuer itself.
    fn audience(&self) -> &str {
        let named = Some(&self.tokens.audience).filter(|audience| !audience.is_empty());
        named.unwrap_or(&self.tokens.issuer)
    }
}
