//! From where credentials are used, counted in a bounded amount of memory until it is written.

use std::{collections::HashMap, net::IpAddr};

use rescind_base::model::{CredentialId, CredentialUse, UnixSeconds};

/// The most credentials and addresses counted between two writes. Beyond it the addresses are left out.
const COUNTED: usize = 1000;

/// The uses since the last write.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<(CredentialId, Option<IpAddr>), (UnixSeconds, u64)>);

impl Uses {
    pub(super) fn add(&mut self, used: CredentialUse) {
        let CredentialUse { credential, address, at, times } = used;
        let key = (credential, address.map(|address| address.to_canonical()));
        let key = if self.0.len() < COUNTED || self.0.contains_key(&key) { key } else { (credential, None) };
        let (last, sum) = self.0.entry(key).or_default();
        (*last, *sum) = (at.max(*last), times + *sum);
    }

    pub(super) fn take(&mut self) -> Vec<CredentialUse> {
        let used = std::mem::take(&mut self.0).into_iter();
        used.map(|((credential, address), (at, times))| CredentialUse { credential, address, at, times })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_flood_of_addresses_is_counted_and_takes_no_room() {
        let mut uses = Uses::default();
        for address in 0..10_000_u32 {
            let address = Some(Ipv4Addr::from(address).into());
            uses.add(CredentialUse { credential: 1, address, at: 10, times: 1 });
        }
        uses.add(CredentialUse {
            credential: 2,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            at: 11,
            times: 1,
        });
        let used = uses.take();
        assert_eq!(used.len(), COUNTED + 2);
        assert_eq!(used.iter().map(|used| used.times).sum::<u64>(), 10_001);
        assert_eq!(
            used.iter().find(|used| used.credential == 2).map(|used| (used.address, used.at)),
            Some((None, 11))
        );
        assert!(uses.take().is_empty());
    }
}
