//! Refused requests, with what explains them.

use rescind_base::model::{Denial, DenialDetails, DenialFilter, MissedAllowlist, Revoked};

use super::*;

const ALL: DenialFilter = DenialFilter {
    before: None,
    limit: 1000,
    request: None,
    clients: None,
    address: None,
    reason: None,
    since: 0,
    until: 1 << 40,
};

/// A denial of a client that has proved its identity, or of nobody known.
fn denied(request: &str, at: u64, client: Option<u64>) -> Denial {
    Denial {
        id: 0,
        request: request.into(),
        at,
        node: "node".into(),
        operation: "verify".into(),
        reason: "revoked".into(),
        status: 401,
        client,
        proven: client.is_some(),
        address: None,
        details: DenialDetails::default(),
    }
}

async fn requests(store: &Store, wanted: DenialFilter) -> Vec<String> {
    store.denials(wanted).await.unwrap().into_iter().map(|denial| denial.request).collect()
}

pub(super) async fn denials_are_found_by_all_that_they_are_asked_for(home: &Home) {
    let store = home.open().await;
    let client = create(&store, "rk_1").await;
    let details = DenialDetails {
        api_key: Some("rk_1".into()),
        client_generation: Some(7),
        revoked: Some(Revoked::Session),
        allowlist: Some(MissedAllowlist { entries: 2, nearest: vec!["10.0.0.0/8".into()] }),
        not_kept: 3,
        ..DenialDetails::default()
    };
    let full = Denial { address: Some("192.0.2.1".into()), details, ..denied("a", 1000, Some(client.id)) };
    // A client that only its API key names.
    let claimed =
        Denial { client: None, proven: false, reason: "throttled".into(), status: 429, ..full.clone() };
    let claimed = Denial { request: "b".into(), at: 2000, ..claimed };
    let unknown = denied("c\t\"", 3000, None);
    store.keep_denials(vec![full.clone(), claimed.clone(), unknown.clone()]).await.unwrap();

    let found = store.denials(ALL).await.unwrap();
    assert!(found.is_sorted_by(|a, b| a.id > b.id));
    let expected = [
        Denial { id: found[0].id, ..unknown },
        Denial { id: found[1].id, client: Some(client.id), ..claimed },
        Denial { id: found[2].id, ..full },
    ];
    assert_eq!(found, expected);
    let of = async |wanted| requests(&store, wanted).await;
    assert_eq!(of(DenialFilter { limit: 2, ..ALL }).await, ["c\t\"", "b"]);
    assert_eq!(of(DenialFilter { before: Some(found[1].id), ..ALL }).await, ["a"]);
    assert_eq!(of(DenialFilter { request: Some("a".into()), ..ALL }).await, ["a"]);
    assert_eq!(of(DenialFilter { request: Some("a\0b".into()), ..ALL }).await, [""; 0]);
    assert_eq!(of(DenialFilter { clients: Some(vec![client.id, 99]), ..ALL }).await, ["b", "a"]);
    assert_eq!(of(DenialFilter { clients: Some(vec![]), ..ALL }).await, [""; 0]);
    assert_eq!(of(DenialFilter { address: Some("192.0.2.1".into()), ..ALL }).await, ["b", "a"]);
    assert_eq!(of(DenialFilter { reason: Some("throttled".into()), ..ALL }).await, ["b"]);
    assert_eq!(of(DenialFilter { since: 1000, until: 2000, ..ALL }).await, ["a"]);
    assert_eq!(of(DenialFilter { since: 2000, ..ALL }).await, ["c\t\"", "b"]);
    assert_eq!(of(DenialFilter { since: 2000, before: Some(found[0].id), ..ALL }).await, ["b"]);
    assert_eq!(of(DenialFilter { since: 3001, ..ALL }).await, [""; 0]);
    assert_eq!(of(DenialFilter { since: 1000, request: Some("b".into()), ..ALL }).await, ["b"]);
    // They are read again by the next process.
    drop(store);
    assert_eq!(home.open().await.denials(ALL).await.unwrap(), expected);
}

// check 102
pub(super) async fn denials_are_swept_when_they_are_old_or_too_many(home: &Home) {
    let store = home.open().await;
    let of = |name: &str, client, numbers: std::ops::Range<u64>| {
        numbers.map(|n| denied(&format!("{name}{n}"), n, client)).collect::<Vec<_>>()
    };
    store.keep_denials(of("few", Some(1), 0..3)).await.unwrap();
    store.keep_denials(of("many", Some(2), 0..2500)).await.unwrap();
    // Whoever has proved nothing is one owner, whatever API key was presented.
    let claims = |denial| Denial { client: Some(1), proven: false, ..denial };
    store.keep_denials(of("none", None, 0..40).into_iter().map(claims).collect()).await.unwrap();
    let left = async || {
        let found = requests(&store, DenialFilter { limit: 5000, ..ALL }).await;
        ["few", "many", "none"].map(|name| found.iter().filter(|request| request.starts_with(name)).count())
    };
    let sweep = async |before, most| while !store.sweep_denials(before, most).await.unwrap() {};
    sweep(0, 5000).await;
    assert_eq!(left().await, [3, 2500, 40]);
    sweep(0, 100).await;
    assert_eq!(left().await, [3, 57, 40]);
    assert_eq!(
        requests(&store, DenialFilter { clients: Some(vec![2]), limit: 1, ..ALL }).await,
        ["many2499"]
    );
    sweep(0, 63).await;
    assert_eq!(left().await, [3, 30, 30]);
    // Old are all of the first and the last.
    sweep(2480, 5000).await;
    assert_eq!(left().await, [0, 20, 0]);
}
