//! Mutated tokens: the verifier accepts none, and `jsonwebtoken` refuses them too, except for the
//! differences listed in [`differences`]. `scripts/mutants` makes more of them.

mod cached;
mod differences;
mod json;
mod keys;
mod mutate;
mod peer;
mod random;

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use differences::{Difference, explain, issued};
use jsonwebtoken::get_current_timestamp;
use keys::verifier;
use mutate::Mutator;
use peer::Peer;
use rescind_verifier::{Claims, Denied, Kind, Verifier};

use crate::{fixture::profile, oracle::as_json};

/// The number of mutants, unless `MUTANTS` is set.
const MUTANTS: usize = 50_000;

/// The results for mutants of one kind.
#[derive(Default)]
struct Tally {
    refused_by_both: usize,
    refused_by_ours_alone: usize,
}

// check 34, 36, 38, 39, 40, 41, 42, 44, 45, 46, 47
#[test]
fn no_mutant_is_accepted_and_a_general_library_agrees() {
    let (verifier, peer) = (verifier(), Peer::new());
    let mut mutator = Mutator::new(number("MUTANTS_SEED", 1) as u64);
    let (mut tallies, mut differences) = (BTreeMap::<_, Tally>::new(), BTreeMap::new());
    // Their hashes alone: 10^6 tokens would be some hundred megabytes.
    let (mut met, mut mutants, mut good) = (HashSet::new(), 0, 0);

    while mutants < number("MUTANTS", MUTANTS) {
        let (how, token) = mutator.next();
        if !met.insert(BuildHasherDefault::<DefaultHasher>::default().hash_one(&token)) {
            continue;
        }
        // jsonwebtoken reads the wall clock, and cannot be told another time.
        let now = get_current_timestamp();
        let (ours, theirs) = (authenticated(&verifier, &token, now), peer.accepts(&token));

        // What the issuer would have written is no mutant, however it came about.
        let good_for = |claims: &Claims| claims.issued_at <= now + 60 && now < claims.expires_at;
        if let Some((kind, claims, client_id)) = issued(&token).filter(|(_, claims, _)| good_for(claims)) {
            good += 1;
            let written = as_json(&claims, &profile(), client_id.as_deref());
            assert_eq!(theirs.map(|theirs| theirs.claims), Some(written), "{token}");
            assert_eq!(ours, Ok((kind, claims)), "{token}");
            continue;
        }
        mutants += 1;
        assert!(ours.is_err(), "accepted, {how:?}: {ours:?}: {token}");
        let tally = tallies.entry(how).or_default();
        if theirs.is_none() {
            tally.refused_by_both += 1;
            continue;
        }
        tally.refused_by_ours_alone += 1;
        let difference = explain(&token, now);
        assert!(difference.is_some(), "accepted by jsonwebtoken, {how:?}: {ours:?}: {token}");
        *differences.entry(difference.unwrap()).or_insert(0) += 1;
    }

    println!("{mutants} mutants, none accepted; {good} good tokens among them");
    for (how, Tally { refused_by_both, refused_by_ours_alone }) in &tallies {
        println!(
            "  {how:<10?} refused by both {refused_by_both:>7}, by ours alone {refused_by_ours_alone:>7}"
        );
    }
    for (difference, count) in &differences {
        println!("  {count:>7}  {difference}");
    }
    assert!(good > mutants / 1000, "were everything refused, nothing would have been shown: {good}");
    // A second of the clock is too short to be met by chance.
    let met = |difference: &Difference| {
        differences.contains_key(difference) || *difference == Difference::LastSecond
    };
    let unmet: Vec<_> = Difference::ALL.into_iter().filter(|difference| !met(difference)).collect();
    assert!(unmet.is_empty(), "differences that are none: {unmet:?}");
}

/// The kind and claims of an accepted token. A token is accepted as one kind at most.
fn authenticated(verifier: &Verifier, token: &str, now: u64) -> Result<(Kind, Claims), Denied> {
    match verifier.authenticate(token, Kind::Access, now) {
        Err(Denied::WrongKind) => {
            verifier.authenticate(token, Kind::Refresh, now).map(|c| (Kind::Refresh, c))
        }
        verdict => verdict.map(|claims| (Kind::Access, claims)),
    }
}

#[expect(clippy::disallowed_methods, reason = "the test's own settings: scripts/mutants asks for more")]
fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}
