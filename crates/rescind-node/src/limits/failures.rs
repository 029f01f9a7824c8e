//! Counts failures per subject in a fixed amount of memory.
//!
//! Each slot holds one number: the time at which its failures no longer count (GCRA, ITU-T I.371 §A.1). A
//! caller who floods the table only removes counted failures. The table never refuses a subject that has not
//! failed, and valid credentials are never looked up in it.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rescind_base::model::ClientId;
use rescind_verifier::nat64;

/// Slots that share a lock; a subject may be in any slot of its set.
const WAYS: usize = 8;
const SETS: usize = 8192;
/// The limit of a source network, as a multiple of one key's limit from that network.
const PER_NETWORK: u32 = 10;

/// The failure limiter.
#[derive(Debug)]
pub struct Limiter {
    per_minute: u32,
    hasher: RandomState,
    sets: Box<[Mutex<[Slot; WAYS]>]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    subject: u64,
    forgiven_at: Duration,
}

/// A limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// The time until the next failure is within the limit.
    pub retry_after: Duration,
}

impl Limiter {
    /// Allows `per_minute` failures for each key and source network; 0 means no limit.
    pub fn new(per_minute: u32) -> Limiter {
        Limiter {
            per_minute,
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a failure of `key` (as the caller presented it) from `source`, and of `source` as a whole.
    ///
    /// # Errors
    ///
    /// Fails if either limit is exceeded.
    pub fn failed(&self, key: &[u8], source: IpAddr, now: Duration) -> Result<(), Throttled> {
        let (network, of_network) = (network(source), self.per_minute.saturating_mul(PER_NETWORK));
        self.count(&(key, network), self.per_minute, now).and(self.count(&network, of_network, now))
    }

    /// Counts a failure of a client that has proved its identity from `source`, by a token that is valid,
    /// expired or not valid yet. Only this client is counted.
    ///
    /// # Errors
    ///
    /// Fails if the client's limit is exceeded.
    pub fn failed_as(&self, client: ClientId, source: IpAddr, now: Duration) -> Result<(), Throttled> {
        self.count(&("client", client, network(source)), self.per_minute, now)
    }

    /// Counts one event of `subject`, and returns whether its limit allows that.
    pub fn admits(&self, subject: &impl Hash, per_minute: u32, now: Duration) -> bool {
        self.count(subject, per_minute, now).is_ok()
    }

    /// Counts one event of `subject`; with 0 `per_minute` there is no limit.
    fn count(&self, subject: &impl Hash, per_minute: u32, now: Duration) -> Result<(), Throttled> {
        if per_minute == 0 {
            return Ok(());
        }
        let window = Duration::from_secs(60);
        let cost = window / per_minute;
        let subject = self.hasher.hash_one(subject);
        let mut set = self.sets[subject as usize % SETS].lock().unwrap_or_else(PoisonError::into_inner);
        let known = set.iter().position(|slot| slot.subject == subject);
        let slot = match known {
            Some(i) => &mut set[i],
            None => {
                // Replaces the subject whose failures stop counting first.
                #[expect(clippy::unwrap_used, reason = "a set is never empty")]
                let slot = set.iter_mut().min_by_key(|slot| slot.forgiven_at).unwrap();
                *slot = Slot { subject, forgiven_at: Duration::ZERO };
                slot
            }
        };
        let forgiven_at = slot.forgiven_at.max(now) + cost;
        if forgiven_at > now + window {
            return Err(Throttled { retry_after: forgiven_at - window - now });
        }
        slot.forgiven_at = forgiven_at;
        Ok(())
    }
}

/// The network counted as one source: an IPv4 address, also one that NAT64 has translated, or the /64 of one IPv6
/// subscriber.
pub fn network(source: IpAddr) -> IpAddr {
    match nat64(source).unwrap_or(source.to_canonical()) {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    // check 76
    #[test]
    fn failures_are_bounded_per_key_and_network() {
        let limiter = Limiter::new(30);
        let fails = |key: &[u8], from: IpAddr, s| limiter.failed(key, from, at(s));
        for _ in 0..30 {
            assert_eq!(fails(b"a", HOME, 0), Ok(()));
        }
        assert_eq!(fails(b"a", HOME, 0), Err(Throttled { retry_after: Duration::from_secs(2) }));
        assert_eq!(fails(b"a", HOME, 2), Ok(()));
        assert!(fails(b"a", HOME, 2).is_err());
        assert_eq!(fails(b"b", HOME, 2), Ok(()));
        assert_eq!(fails(b"a", "203.0.113.9".parse().unwrap(), 2), Ok(()));
        assert_eq!(fails(b"a", HOME, 120), Ok(()));
    }

    #[test]
    fn one_network_fails_ten_times_as_often_whatever_the_keys() {
        let limiter = Limiter::new(30);
        let allowed = (0..1000_u32).filter(|i| limiter.failed(&i.to_le_bytes(), HOME, at(0)).is_ok()).count();
        assert_eq!(allowed, 300);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_network_and_a_mapped_address_is_ipv4() {
        let limiter = Limiter::new(1);
        assert!(limiter.failed(b"a", "2001:db8::1".parse().unwrap(), at(0)).is_ok());
        assert!(limiter.failed(b"a", "2001:db8::2".parse().unwrap(), at(0)).is_err());
        assert!(limiter.failed(b"a", "2001:db8:0:1::1".parse().unwrap(), at(0)).is_ok());
        assert!(limiter.failed(b"a", HOME, at(0)).is_ok());
        assert!(limiter.failed(b"a", "::ffff:127.0.0.1".parse().unwrap(), at(0)).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = Limiter::new(0);
        assert!((0..10_000).all(|_| limiter.failed(b"a", HOME, at(0)).is_ok()));
    }

    #[test]
    fn a_flood_of_strangers_takes_no_memory() {
        let limiter = Limiter::new(30);
        for i in 0..200_000_u32 {
            let _ = limiter.failed(b"a", std::net::Ipv4Addr::from(i).into(), at(0));
        }
        assert_eq!(limiter.sets.len() * WAYS * size_of::<Slot>(), 65_536 * 24);
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_a_64_and_nat64_is_the_first() {
        for (address, counted) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("64:ff9b::203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3::7", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()), counted.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
