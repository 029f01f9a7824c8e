//! Scopes that are read are a sorted set, hold what was written and nothing else, and come back the
//! same from their own text. So does what two sets have in common.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rescind_verifier::Scopes;

fn is_a_set(scopes: &Scopes) {
    assert_eq!(scopes.as_str().parse().as_ref(), Ok(scopes));
    let list: Vec<&str> = scopes.iter().collect();
    assert!(list.is_sorted_by(|a, b| a < b), "sorted, without repetition");
    assert_eq!(list.join(" "), scopes.as_str());
    assert_eq!(list.is_empty(), scopes.is_empty());
}

fuzz_target!(|text: &str| {
    let (text, other) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(scopes) = text.parse::<Scopes>() else { return };
    is_a_set(&scopes);
    assert!(scopes.iter().all(|scope| text.split(' ').any(|written| written == scope)));
    assert!(text.split(' ').filter(|written| !written.is_empty()).all(|written| scopes.contains(written)));

    let Ok(other) = other.parse::<Scopes>() else { return };
    let common = scopes.intersection(&other);
    is_a_set(&common);
    assert_eq!(common, other.intersection(&scopes));
    assert!(common.iter().all(|scope| scopes.contains(scope) && other.contains(scope)));
    assert!(scopes.iter().all(|scope| common.contains(scope) == other.contains(scope)));
});
