//! Whose records are deleted when callers have too many.

use super::{RECORDS_SWEPT, Result};

/// The clients that have too many records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Eviction {
    /// Ids of the clients; 0 stands for all callers whose client is unknown.
    pub(super) clients: Vec<u64>,
    /// How many of the newest records of each client are kept.
    pub(super) keep: u64,
    /// How many records are to be deleted in total.
    pub(super) excess: u64,
}

impl Eviction {
    /// Decides from the number of records of each client, if `most` may remain in total. Clients with few records
    /// keep all of them; the others keep equally many. Returns `None` if no record is to be deleted.
    pub(super) fn of(mut counts: Vec<(u64, u64)>, most: u64) -> Option<Eviction> {
        counts.sort_unstable_by_key(|&(_, count)| count);
        let (mut left, mut waiting) = (most, counts.len() as u64);
        for (i, &(_, count)) in counts.iter().enumerate() {
            let keep = left / waiting;
            if count > keep {
                let over = &counts[i..];
                let excess = over.iter().map(|(_, count)| count - keep).sum();
                return Some(Eviction {
                    clients: over.iter().map(|&(client, _)| client).collect(),
                    keep,
                    excess,
                });
            }
            (left, waiting) = (left - count, waiting - 1);
        }
        None
    }
}

/// Has `delete` delete a batch, of one client after the other: it is told the client, how many records to delete at most and
/// how many of the newest to keep, and returns how many it has deleted. Returns whether no more remain to be deleted.
pub(super) fn evict(
    eviction: Option<Eviction>,
    mut delete: impl FnMut((u64, u64, u64)) -> Result<u64>,
) -> Result<bool> {
    let Some(Eviction { clients, keep, excess }) = eviction else { return Ok(true) };
    let mut gone = 0;
    for client in clients {
        gone += delete((client, RECORDS_SWEPT - gone, keep))?;
        if gone == RECORDS_SWEPT {
            break;
        }
    }
    Ok(gone >= excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 102
    #[test]
    fn whoever_has_most_records_makes_room() {
        let evicted = |counts: &[(u64, u64)], most| {
            Eviction::of(counts.to_vec(), most).map(|it| (it.clients, it.keep, it.excess))
        };
        assert_eq!(evicted(&[], 10), None);
        assert_eq!(evicted(&[(1, 6), (2, 4)], 10), None);
        assert_eq!(evicted(&[(1, 11)], 10), Some((vec![1], 10, 1)));
        assert_eq!(evicted(&[(1, 4), (2, 9), (0, 1)], 10), Some((vec![2], 5, 4)));
        assert_eq!(evicted(&[(1, 9), (2, 8), (3, 1)], 10), Some((vec![2, 1], 4, 9)));
        assert_eq!(evicted(&[(1, 1), (2, 1), (3, 1)], 2), Some((vec![1, 2, 3], 0, 3)));
    }
}
