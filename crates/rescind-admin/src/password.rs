//! Passwords of administrators: Argon2id with OWASP's parameters. A hash takes 19 MiB, so that only few are made at once.

use std::fmt::Display;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use rescind_base::random::Random;
use tokio::{sync::Semaphore, task::spawn_blocking};
use zeroize::Zeroizing;

use super::{Error, ensure, invalid};

static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// In KiB.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;

/// In characters (NIST SP 800-63B: at least 8 beside another factor). The most is in bytes.
const SHORTEST: usize = 12;
const LONGEST: usize = 256;

/// Returns a password's hash, as a PHC string.
///
/// # Errors
///
/// If the password is too short, too long, or the administrator's name.
pub(super) async fn hash(name: &str, password: Zeroizing<String>, random: &Random) -> Result<String, Error> {
    let fits = password.chars().count() >= SHORTEST && password.len() <= LONGEST;
    ensure(fits, "password", || {
        format!("expected {SHORTEST} characters or more, and at most {LONGEST} bytes")
    })?;
    ensure(!password.eq_ignore_ascii_case(name), "password", || {
        "expected another text than the name".into()
    })?;
    let salt = random.bytes::<16>();
    let hashed = blocking(move || {
        let hashed: PasswordHash =
            argon2().ok()?.hash_password_with_salt(password.as_bytes(), &*salt).ok()?;
        Some(hashed.to_string())
    });
    hashed.await.flatten().ok_or_else(|| invalid("password", "it could not be hashed"))
}

/// Whether this is the password. With no hash, it takes as long and is not.
pub(super) async fn matches(password: Zeroizing<String>, hash: Option<String>) -> bool {
    let matched = blocking(move || {
        // Longer ones are never stored, and would only cost.
        if password.len() > LONGEST {
            return false;
        }
        let Some(hash) = hash else {
            let hashed: Option<PasswordHash> = argon2()
                .ok()
                .and_then(|argon2| argon2.hash_password_with_salt(password.as_bytes(), &[0; 16]).ok());
            return hashed.is_none_or(|_| false);
        };
        let hash = PasswordHash::new(&hash);
        hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    });
    matched.await.unwrap_or(false)
}

fn argon2() -> Result<Argon2<'static>, impl Display> {
    Params::new(MEMORY, PASSES, 1, None)
        .map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Runs this beside the tasks of the runtime. `None`: it panicked, or the process ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _permit = AT_ONCE.acquire().await.ok()?;
    spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_kept_as_argon2id_with_owasps_parameters() {
        let password = "correct horse battery";
        let kept = hash("alice", text(password), &Random::seeded(1)).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert!(matches(text(password), Some(kept.clone())).await);
        for other in ["correct horse batterY", "", &"x".repeat(300)] {
            assert!(!matches(text(other), Some(kept.clone())).await);
        }
        assert!(!matches(text(password), None).await);
        // The same password has another hash.
        assert_ne!(hash("alice", text(password), &Random::seeded(2)).await.unwrap(), kept);
    }

    #[tokio::test]
    async fn a_weak_password_is_refused() {
        for weak in ["eleven char", "the-admin-alice", &"x".repeat(257)] {
            let refused = hash("The-Admin-Alice", text(weak), &Random::seeded(1)).await;
            assert!(refused.unwrap_err().to_string().starts_with("password: "), "{weak}");
        }
    }
}
