//! Chains of the audit log: each row has a hash over itself and the hash of the row before it of the same node. So no row
//! can be changed, removed or moved without a trace in all rows after it.
//!
//! The service signs the newest row of each chain from time to time (a checkpoint), and what it has itself deleted (a
//! cut). docs/audit.md says what each proves.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::{ChainHash, Link, Record, UnixSeconds};
use crate::clock::rfc3339;

impl Link {
    /// Returns the link of the record that follows this one. Each value is hashed with its length, so that no two records
    /// have the same form. PostgreSQL does the same in `audit_link`.
    pub fn followed_by(&self, record: &Record) -> Link {
        let number = self.number + 1;
        let text = |value: u64| Some(value.to_string());
        let some = |value: &str| Some(value.to_owned());
        let parts = [
            some(&record.node),
            text(number),
            text(record.id),
            text(record.at),
            some(&record.kind),
            some(&record.by),
            record.operator.clone(),
            record.client.and_then(text),
            record.api_key.clone(),
            record.session.and_then(text),
            record.address.clone(),
            record.request.clone(),
            record.detail.clone(),
            text(record.count),
        ];
        let parts = parts.iter().map(Option::as_deref);
        let hash = Sha256::new().chain_update(self.hash.0).chain_update(form(parts)).finalize();
        Link { number, hash: ChainHash(hash.into()) }
    }
}

fn form<'a>(parts: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let mut form = String::new();
    for part in parts {
        // Writing to a string does not fail.
        let _ = match part {
            Some(part) => write!(form, "{}:{part}", part.len()),
            None => write!(form, "-"),
        };
    }
    form
}

/// Rows of a chain that were deleted because of their age or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub chain: String,
    pub first: u64,
    /// The hash of the row before.
    pub before: ChainHash,
    /// The last row that was deleted.
    pub last: Link,
    pub signature: Vec<u8>,
}

/// A row of a chain that the service has signed, with all rows before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub chain: String,
    pub link: Link,
    pub at: UnixSeconds,
    pub signature: Vec<u8>,
}

/// The key that signs checkpoints and cuts (Ed25519).
#[derive(Clone)]
pub struct AuditKey(Box<SigningKey>);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

impl AuditKey {
    pub fn new(seed: &[u8; 32]) -> AuditKey {
        AuditKey(Box::new(SigningKey::from_bytes(seed)))
    }

    /// Returns the key that verifies, as RFC 8032 encodes it.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    pub fn checkpoint(&self, chain: &str, link: Link, at: UnixSeconds) -> Checkpoint {
        let signature = self.sign(&of_checkpoint(chain, link, at));
        Checkpoint { chain: chain.to_owned(), link, at, signature }
    }

    /// Returns whether this service has signed the checkpoint.
    pub fn has_signed(&self, Checkpoint { chain, link, at, signature }: &Checkpoint) -> bool {
        self.verifies(&of_checkpoint(chain, *link, *at), signature)
    }

    pub fn cut(&self, chain: &str, first: u64, before: ChainHash, last: Link) -> Cut {
        let signature = self.sign(&of_cut(chain, first, before, last));
        Cut { chain: chain.to_owned(), first, before, last, signature }
    }

    /// Returns whether this service has signed the cut.
    pub fn has_cut(&self, Cut { chain, first, before, last, signature }: &Cut) -> bool {
        self.verifies(&of_cut(chain, *first, *before, *last), signature)
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        self.0.sign(text.as_bytes()).to_bytes().to_vec()
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key: VerifyingKey = self.0.verifying_key();
        Signature::from_slice(signature)
            .is_ok_and(|signed| key.verify_strict(text.as_bytes(), &signed).is_ok())
    }
}

fn of_checkpoint(chain: &str, Link { number, hash }: Link, at: UnixSeconds) -> String {
    let (number, hash, at) = (number.to_string(), hash.to_text(), rfc3339(at));
    form(["rescind audit checkpoint", chain, &number, &hash, &at].map(Some))
}

fn of_cut(chain: &str, first: u64, before: ChainHash, Link { number, hash }: Link) -> String {
    let (first, before) = (first.to_string(), before.to_text());
    let (number, hash) = (number.to_string(), hash.to_text());
    form(["rescind audit cut", chain, &first, &before, &number, &hash].map(Some))
}

/// Rows of one chain that are deleted, and what lies beside them.
#[derive(Debug, Default)]
pub struct Deleted {
    pub rows: Vec<Record>,
    /// The rows that remain directly before and after them.
    pub beside: Vec<Record>,
    /// The cuts that lie directly before and after them.
    pub cuts: Vec<Cut>,
}

impl Deleted {
    /// Sorts deleted rows by their chains.
    pub fn by_chain(rows: Vec<Record>) -> BTreeMap<String, Deleted> {
        let mut chains = BTreeMap::<String, Deleted>::new();
        for row in rows.into_iter().filter(|row| row.link.is_some()) {
            chains.entry(row.node.clone()).or_default().rows.push(row);
        }
        chains
    }

    /// Returns the numbers of the rows.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().filter_map(|row| Some(row.link?.number))
    }

    /// Makes the cuts, which take in those beside them. What does not follow from the row before, or is not what the row
    /// after follows from, is in no cut: whoever has changed a row so that it is swept must not get a signature for that.
    pub fn cuts(self, key: &AuditKey, chain: &str) -> Vec<Cut> {
        let beside: BTreeMap<u64, &Record> =
            self.beside.iter().filter_map(|record| Some((record.link?.number, record))).collect();
        let rows = self.rows.into_iter().filter_map(|row| Some((row.link?.number, Gone::Row(row))));
        let gone: BTreeMap<u64, Gone> =
            rows.chain(self.cuts.into_iter().map(|cut| (cut.first, Gone::Cut(cut)))).collect();
        let (mut cuts, mut run): (Vec<Cut>, Option<Run>) = (vec![], None);
        for (first, gone) in gone {
            if let Some(ended) = run.take_if(|run| run.last.number + 1 != first) {
                ended.end(key, chain, &beside, &mut cuts);
            }
            let run = run.get_or_insert_with(|| Run::begin(first, &beside));
            run.take_in(gone, key);
        }
        if let Some(run) = run {
            run.end(key, chain, &beside, &mut cuts);
        }
        cuts
    }
}

enum Gone {
    Row(Record),
    Cut(Cut),
}

/// Numbers without a gap that are gone.
struct Run {
    /// The first number that a new cut can have, and the hash before.
    from: u64,
    before: ChainHash,
    last: Link,
    /// The hash of the row before is known.
    follows: bool,
    is_whole: bool,
    taken_in: Vec<Cut>,
}

impl Run {
    fn begin(first: u64, beside: &BTreeMap<u64, &Record>) -> Run {
        let number = first.saturating_sub(1);
        let hash = match number {
            0 => Some(ChainHash::default()),
            number => beside.get(&number).and_then(|record| record.link).map(|link| link.hash),
        };
        let (before, follows) = (hash.unwrap_or_default(), hash.is_some());
        Run {
            from: first,
            before,
            last: Link { number, hash: before },
            follows,
            is_whole: true,
            taken_in: vec![],
        }
    }

    fn take_in(&mut self, gone: Gone, key: &AuditKey) {
        let (link, holds) = match gone {
            Gone::Row(record) => {
                let link = record.link.unwrap_or_default();
                if !self.follows {
                    // Nothing proves this row, but it may be what the next one follows from.
                    (self.from, self.before) = (link.number + 1, link.hash);
                }
                (link, !self.follows || self.last.followed_by(&record) == link)
            }
            Gone::Cut(cut) => {
                if !self.follows {
                    (self.from, self.before) = (cut.first, cut.before);
                }
                let holds = key.has_cut(&cut) && (!self.follows || cut.before == self.last.hash);
                let last = cut.last;
                self.taken_in.push(cut);
                (last, holds)
            }
        };
        self.is_whole &= holds;
        (self.last, self.follows) = (link, true);
    }

    fn end(self, key: &AuditKey, chain: &str, beside: &BTreeMap<u64, &Record>, cuts: &mut Vec<Cut>) {
        let next = beside.get(&(self.last.number + 1));
        let is_followed = next.is_none_or(|next| next.link == Some(self.last.followed_by(next)));
        if !self.is_whole || !is_followed {
            cuts.extend(self.taken_in);
        } else if self.from <= self.last.number {
            cuts.push(key.cut(chain, self.from, self.before, self.last));
        }
    }
}

/// What the rows of a chain show of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The row, or the one before, is not as it was written, or not in its place.
    Changed { number: u64, id: u64, at: UnixSeconds },
    /// The rows with these numbers are missing, and no signed cut has them.
    Removed { first: u64, last: u64 },
    /// The row, or one before, is not what was signed: in a checkpoint of this time, or in the cut after the row.
    NotAsSigned { number: u64, signed_at: Option<UnixSeconds> },
    /// A checkpoint or cut of this row is not of this service.
    BadSignature { number: u64 },
    /// The row has no place in a chain, though later ones than the first of a chain have.
    Unchained { id: u64, at: UnixSeconds },
}

/// The walk over a chain, from row to row.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    key: &'a AuditKey,
    /// The row that was looked at last.
    pub last: Link,
    /// The hash is that of the row before. It is not known after missing rows.
    follows: bool,
    signed: &'a [Checkpoint],
    pub faults: Vec<Fault>,
}

/// The next rows of a chain, and the cuts between and behind them; both up to the same number.
#[derive(Debug, Clone, Default)]
pub struct Stretch {
    /// In the order of their numbers.
    pub records: Vec<Record>,
    /// In the order of their numbers.
    pub cuts: Vec<Cut>,
    /// There are more rows.
    pub more: bool,
}

impl Stretch {
    /// Makes it of the next records and the next cuts, of which at most so many were read each. What lies behind the end of
    /// those that were not read to their end is left to the next stretch.
    pub fn of(mut records: Vec<Record>, mut cuts: Vec<Cut>, most: u64) -> Stretch {
        let number = |record: &Record| record.link.map_or(0, |link| link.number);
        let of_records = records.last().map(number).filter(|_| records.len() as u64 == most);
        let of_cuts = cuts.last().map(|cut| cut.last.number).filter(|_| cuts.len() as u64 == most);
        let end = of_records.into_iter().chain(of_cuts).min();
        if let Some(end) = end {
            records.retain(|record| number(record) <= end);
            cuts.retain(|cut| cut.last.number <= end);
        }
        Stretch { records, cuts, more: end.is_some() }
    }
}

impl<'a> Walk<'a> {
    /// A walk that goes on after `last`. The rows are compared with the checkpoints in `signed`, which are of this chain.
    pub fn after(last: Link, key: &'a AuditKey, signed: &'a [Checkpoint]) -> Walk<'a> {
        Walk { key, last, follows: true, signed, faults: vec![] }
    }

    /// A walk that begins at the row of a checkpoint.
    pub fn from_checkpoint(checkpoint: &'a Checkpoint, key: &'a AuditKey) -> Walk<'a> {
        let before = Link { number: checkpoint.link.number.saturating_sub(1), hash: ChainHash::default() };
        let mut walk = Walk::after(before, key, std::slice::from_ref(checkpoint));
        walk.follows = false;
        if !key.has_signed(checkpoint) {
            walk.faults.push(Fault::BadSignature { number: checkpoint.link.number });
        }
        walk
    }

    /// Goes over the next rows.
    pub fn go(&mut self, Stretch { records, cuts, more }: &Stretch) {
        let begun = self.last.number;
        for record in records {
            let Some(link) = record.link else { continue };
            self.cross(cuts, begun, link.number);
            if link.number > self.last.number + 1 {
                self.missing(link.number - 1);
            }
            let expected = self.last.followed_by(record);
            if (self.follows && expected.hash != link.hash) || expected.number != link.number {
                self.faults.push(Fault::Changed { number: link.number, id: record.id, at: record.at });
            }
            self.at(link);
        }
        self.cross(cuts, begun, u64::MAX);
        if !more {
            let signed = self.signed.iter().map(|checkpoint| checkpoint.link.number).max().unwrap_or(0);
            if signed > self.last.number {
                self.missing(signed);
            }
        }
    }

    /// Crosses the cuts that lie before the row with this number. Where these rows begin, after `begun`, a cut may take in
    /// rows that were looked at: a sweep has deleted them since.
    fn cross(&mut self, cuts: &[Cut], begun: u64, before: u64) {
        for cut in cuts {
            let next = self.last.number + 1;
            if cut.last.number < next || cut.last.number >= before {
                continue;
            }
            if cut.first > next {
                self.missing(cut.first - 1);
            }
            let is_joined = match cut.first < next {
                true => self.last.number == begun,
                false => cut.before == self.last.hash,
            };
            if self.follows && !is_joined {
                self.faults.push(Fault::NotAsSigned { number: self.last.number, signed_at: None });
            }
            if !self.key.has_cut(cut) {
                self.faults.push(Fault::BadSignature { number: cut.last.number });
            }
            self.at(cut.last);
        }
    }

    fn missing(&mut self, last: u64) {
        self.faults.push(Fault::Removed { first: self.last.number + 1, last });
        (self.last.number, self.follows) = (last, false);
    }

    fn at(&mut self, link: Link) {
        (self.last, self.follows) = (link, true);
        for Checkpoint { link: signed, at, .. } in self.signed {
            if signed.number == link.number && signed.hash != link.hash {
                self.faults.push(Fault::NotAsSigned { number: link.number, signed_at: Some(*at) });
            }
        }
    }
}
