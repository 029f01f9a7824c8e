//! Whose records are deleted when callers have too many.

/// The clients that have too many records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crowd {
    /// Ids of the clients; 0 stands for all callers whose client is unknown.
    pub(super) clients: Vec<u64>,
    /// How many of the newest records of each client are kept.
    pub(super) keep: u64,
    /// How many records are to be deleted in total.
    pub(super) excess: u64,
}

impl Crowd {
    /// Decides from the number of records of each client, if `most` may remain in total. Clients with few records
    /// keep all of them; the others keep equally many. Returns `None` if no record is to be deleted.
    pub(super) fn of(mut counts: Vec<(u64, u64)>, most: u64) -> Option<Crowd> {
        counts.sort_unstable_by_key(|&(_, count)| count);
        let (mut left, mut waiting) = (most, counts.len() as u64);
        for (i, &(_, count)) in counts.iter().enumerate() {
            let keep = left / waiting;
            if count > keep {
                let crowd = &counts[i..];
                let excess = crowd.iter().map(|(_, count)| count - keep).sum();
                return Some(Crowd {
                    clients: crowd.iter().map(|&(client, _)| client).collect(),
                    keep,
                    excess,
                });
            }
            (left, waiting) = (left - count, waiting - 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 102
    #[test]
    fn whoever_has_most_records_makes_room() {
        let crowd = |counts: &[(u64, u64)], most| {
            Crowd::of(counts.to_vec(), most).map(|crowd| (crowd.clients, crowd.keep, crowd.excess))
        };
        assert_eq!(crowd(&[], 10), None);
        assert_eq!(crowd(&[(1, 6), (2, 4)], 10), None);
        assert_eq!(crowd(&[(1, 11)], 10), Some((vec![1], 10, 1)));
        assert_eq!(crowd(&[(1, 4), (2, 9), (0, 1)], 10), Some((vec![2], 5, 4)));
        assert_eq!(crowd(&[(1, 9), (2, 8), (3, 1)], 10), Some((vec![2, 1], 4, 9)));
        assert_eq!(crowd(&[(1, 1), (2, 1), (3, 1)], 2), Some((vec![1, 2, 3], 0, 3)));
    }
}
