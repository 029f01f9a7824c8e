//! The only source of randomness.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{
    Rng, SeedableRng, TryRng,
    rngs::{StdRng, SysRng},
};
use zeroize::Zeroizing;

/// The operating system's generator, or a seeded one for tests.
#[derive(Debug, Clone)]
pub enum Random {
    /// `getrandom(2)`.
    System,
    /// The same bytes for the same seed.
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// Returns a generator with the same bytes for the same seed, for tests.
    pub fn seeded(seed: u64) -> Random {
        Random::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Returns new random bytes, which are overwritten when dropped.
    ///
    /// # Panics
    /// If the operating system has no randomness: no safe key or id can be made then.
    pub fn bytes<const N: usize>(&self) -> Zeroizing<[u8; N]> {
        let mut bytes = Zeroizing::new([0; N]);
        match self {
            #[expect(clippy::expect_used, reason = "without randomness no key or id may be made")]
            Random::System => SysRng.try_fill_bytes(&mut *bytes).expect("the operating system's randomness"),
            Random::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut *bytes),
        }
        bytes
    }

    /// Returns random bytes for an id that is no secret, nearly always without a system call.
    pub fn of_public_ids<const N: usize>(&self) -> [u8; N] {
        match self {
            Random::System => rand::random(),
            Random::Seeded(_) => *self.bytes(),
        }
    }
}
