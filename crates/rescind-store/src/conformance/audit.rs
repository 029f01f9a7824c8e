//! The audit log.

use rescind_base::model::{
    AuditKey, CertificateNames, Event, EventFilter, EventKind, Page, Record, Retention, VerifierRecord,
    changes,
};
use rescind_verifier::Resources;
use tokio::task::JoinSet;

use super::*;
use crate::postgres::tests::connect;

const ALL: EventFilter = EventFilter::newest(1000);

async fn records(store: &Store, wanted: EventFilter) -> Vec<Record> {
    store.records(wanted).await.unwrap().records
}

/// Returns kind, client, API key and detail of the records added since `after`, and moves `after` on.
async fn added(store: &Store, after: &mut u64) -> Vec<String> {
    let Page { records, last, .. } = store.records(EventFilter { after: Some(*after), ..ALL }).await.unwrap();
    *after = last;
    let text = |record: Record| {
        let client = record.client.map(|id| id.to_string());
        let parts = [Some(record.kind), client, record.api_key, record.detail];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    records.into_iter().map(text).collect()
}

pub(super) async fn change(store: &Store, client: &Client, rule: impl FnOnce(&mut Client) + Send + 'static) {
    let rule = |client: &mut Client| {
        rule(client);
        Ok::<_, ()>(())
    };
    store.change_client(client.id, origin(), rule).await.unwrap().unwrap().unwrap();
}

/// Runs a statement on the store's tables, outside of the store.
pub(super) async fn beside(home: &Home, sql: &str) -> Result<(), String> {
    match home {
        Home::Folder(folder) => {
            let db = rusqlite::Connection::open(folder.path().join("rescind.db")).unwrap();
            db.execute_batch(sql).map_err(|e| e.to_string())
        }
        Home::Database(url) => connect(url).await.batch_execute(sql).await.map_err(|e| format!("{e:?}")),
    }
}

pub(super) async fn every_change_is_on_record(home: &Home) {
    let store = home.open().await;
    let (one, mut after) = (create(&store, "rk_1").await, 0);
    assert_eq!(added(&store, &mut after).await, ["client_created 1 tést", "credential_created 1 rk_1"]);
    let record = &records(&store, ALL).await[0];
    let of = (record.id, record.at, record.by.as_str(), record.node.as_str(), record.count);
    assert_eq!(of, (1, 1000, "operator", "node", 1));
    assert_eq!((record.request.as_deref(), &record.address, record.session), (Some("r1"), &None, None));

    change(&store, &one, |client| client.name = "other".into()).await;
    change(&store, &one, |client| {
        client.allowlist = Allowlist::from_iter(["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    })
    .await;
    change(&store, &one, |client| client.allowlist = Allowlist::default()).await;
    change(&store, &one, |client| {
        client.certificates = "dns:b uri:spiffe://example.com/api".parse().unwrap()
    })
    .await;
    change(&store, &one, |client| client.certificates = CertificateNames::default()).await;
    change(&store, &one, |client| client.scopes = "b c".parse().unwrap()).await;
    change(&store, &one, |client| client.resources = "urn:a urn:b".parse().unwrap()).await;
    change(&store, &one, |client| client.resources = Resources::default()).await;
    change(&store, &one, |client| {
        client.credentials[0].expires_at = Some(5000);
        client.credentials.push(Credential { expires_at: Some(6000), ..credential("rk_2") });
    })
    .await;
    change(&store, &one, |client| client.credentials[1].revoked_at = Some(2000)).await;
    assert_eq!(
        added(&store, &mut after).await,
        [
            "client_renamed 1 other",
            "allowlist_changed 1 +::1/128 -2001:db8::/32",
            "allowlist_changed 1 -10.0.0.0/8 -::1/128: every address may call",
            "certificates_changed 1 +dns:b -dns:api.example.com",
            "certificates_changed 1 -dns:b -uri:spiffe://example.com/api: no certificate is needed",
            "scopes_changed 1 +c -a",
            "resources_changed 1 +urn:b -https://api.example.com/b",
            "resources_changed 1 -urn:a -urn:b: the default audience",
            "credential_expiry_changed 1 rk_1 ends 1970-01-01T01:23:20Z",
            "credential_created 1 rk_2 ends 1970-01-01T01:40:00Z",
            "credential_revoked 1 rk_2",
        ]
    );
    change(&store, &one, |client| client.generation += 1).await;
    change(&store, &one, |client| (client.status, client.generation) = (Status::Suspended, 2)).await;
    change(&store, &one, |client| client.status = Status::Active).await;
    // A client's own revocations are not recorded.
    logout(&store, &one).await;
    change(&store, &one, |_| {}).await;
    change(&store, &one, |client| {
        client.status = Status::Deleted;
        client.credentials[0].revoked_at = Some(2000);
    })
    .await;
    assert_eq!(
        added(&store, &mut after).await,
        ["client_logged_out 1", "client_suspended 1", "client_resumed 1", "client_deleted 1"]
    );

    store.first_key(key("k1"), origin()).await.unwrap();
    store.first_key(key("k2"), origin()).await.unwrap();
    store.rotate_key(None, key("k3"), 500, origin()).await.unwrap();
    store.retire_keys(origin(), |_| false).await.unwrap();
    store.retire_keys(origin(), |key| key.kid == "k1").await.unwrap();
    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: SecretHash { bytes: [1; 32], pepper: 1 },
        shares_hs256: true,
        created_at: 1,
    };
    store.create_verifier(verifier, origin()).await.unwrap();
    store.delete_verifier(9, origin()).await.unwrap();
    store.delete_verifier(1, origin()).await.unwrap();
    assert_eq!(
        added(&store, &mut after).await,
        [
            "signing_key_created k1, Ed25519, signs from 1970-01-01T00:16:40Z",
            "signing_key_created k3, Ed25519, signs from 1970-01-01T00:16:40Z",
            "signing_key_retired k1",
            "verifier_created 1, v, with HS256 keys",
            "verifier_revoked 1, v, with HS256 keys",
        ]
    );

    let two = create(&store, "rk_4").await;
    let session = login(&store, &two, 1000).await;
    added(&store, &mut after).await;
    for phase in [Phase::RefreshEnded, Phase::RefreshEnded, Phase::Ended] {
        let rule = move |client: &Client, session: &mut Session| {
            session.phase = phase;
            let from = Some("192.0.2.1/32".parse().unwrap());
            (
                (),
                Some(changes::of_reuse(
                    client,
                    session,
                    &ChangeOrigin { by: Actor::Caller, from, ..origin() },
                )),
            )
        };
        store.change_session(two.id, session.id, rule).await.unwrap().unwrap();
    }
    let reuse = EventFilter { kind: Some(EventKind::RefreshTokenReused), ..ALL };
    let record = &records(&store, reuse).await[0];
    assert_eq!((record.session, record.by.as_str()), (Some(session.id), "caller"));
    assert_eq!(record.address.as_deref(), Some("192.0.2.1"));
    // Calls that changed nothing are not recorded.
    assert_eq!(
        added(&store, &mut after).await,
        [
            "refresh_token_reused 2 rk_4 the session can be refreshed no more",
            "refresh_token_reused 2 rk_4 the session was ended",
        ]
    );
}

pub(super) async fn what_cannot_be_put_on_record_is_not_done(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let session = login(&store, &one, 1000).await;
    store.first_key(key("k1"), origin()).await.unwrap();
    let (break_it, mend_it) = match home {
        Home::Folder(_) => (
            "CREATE TRIGGER no_record BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END",
            "DROP TRIGGER no_record",
        ),
        Home::Database(_) => (
            "ALTER TABLE audit ADD CONSTRAINT no_record CHECK (false) NOT VALID",
            "ALTER TABLE audit DROP CONSTRAINT no_record",
        ),
    };
    beside(home, break_it).await.unwrap();

    let suspend = |client: &mut Client| {
        client.status = Status::Suspended;
        Ok::<_, ()>(())
    };
    assert!(store.change_client(one.id, origin(), suspend).await.is_err());
    assert!(store.create_client(client("rk_2"), false, origin()).await.is_err());
    assert!(store.rotate_key(None, key("k2"), 5, origin()).await.is_err());
    assert!(store.retire_keys(origin(), |_| true).await.is_err());
    let end = |client: &Client, session: &mut Session| {
        session.phase = Phase::Ended;
        ((), Some(changes::of_reuse(client, session, &origin())))
    };
    assert!(store.change_session(one.id, session.id, end).await.is_err());
    // A client's own logout is not recorded, so it succeeds.
    assert_eq!(logout(&store, &one).await.generation, 1);

    beside(home, mend_it).await.unwrap();
    let left = store.load().await.unwrap();
    assert_eq!((left.clients.len(), left.clients[0].status), (1, Status::Active));
    assert_eq!((left.keys.len(), left.keys[0].retire_at), (1, None));
    assert_eq!(store.find(one.id, session.id).await.unwrap().session, Some(session));
    assert_eq!(records(&store, ALL).await.len(), 3);
}

pub(super) fn audit_key() -> AuditKey {
    AuditKey::new(&[1; 32])
}

/// Returns an event of a caller's attempt, of this client and time.
pub(super) fn noted(client: u64, at: u64) -> Event {
    let origin = ChangeOrigin { at, by: Actor::Caller, ..origin() };
    Event { client: Some(client), ..origin.event(EventKind::Throttled) }
}

pub(super) async fn what_is_on_record_is_found_page_by_page(home: &Home) {
    let store = home.open().await;
    let events = (1..=10).map(|i| noted(i % 2, 1000 + i)).collect();
    store.record(events).await.unwrap();
    store.record(vec![]).await.unwrap();
    store.record(vec![origin().event(EventKind::ClientLoggedOut)]).await.unwrap();
    let ids = async |wanted| {
        let page: Page = store.records(wanted).await.unwrap();
        (page.records.iter().map(|record| record.id).collect::<Vec<_>>(), page.last)
    };
    // The newest records, or those after an id.
    assert_eq!(ids(EventFilter { limit: 3, ..ALL }).await, (vec![9, 10, 11], 11));
    assert_eq!(ids(EventFilter { limit: 3, after: Some(0), ..ALL }).await, (vec![1, 2, 3], 3));
    assert_eq!(ids(EventFilter { limit: 3, after: Some(9), ..ALL }).await, (vec![10, 11], 11));
    assert_eq!(ids(EventFilter { after: Some(11), ..ALL }).await, (vec![], 11));
    // Those before another id, the newest of them first.
    assert_eq!(ids(EventFilter { limit: 3, before: Some(9), ..ALL }).await, (vec![6, 7, 8], 11));
    assert_eq!(ids(EventFilter { limit: 3, before: Some(2), ..ALL }).await, (vec![1], 11));
    let of_client = EventFilter { client: Some(1), ..ALL };
    assert_eq!(ids(EventFilter { limit: 2, ..of_client }).await, (vec![7, 9], 11));
    assert_eq!(ids(EventFilter { after: Some(1), limit: 2, ..of_client }).await, (vec![3, 5], 5));
    let throttled = EventFilter { kind: Some(EventKind::Throttled), ..ALL };
    assert_eq!(ids(EventFilter { since: 1009, ..throttled }).await, (vec![9, 10], 11));
    assert_eq!(ids(EventFilter { kind: Some(EventKind::AddressDenied), ..ALL }).await, (vec![], 11));
    // A kind that a newer version writes is read as well.
    let newer = "INSERT INTO audit (at, kind, actor, node, count) VALUES (1, 'teleported', 'ghost', 'n', 1)";
    beside(home, newer).await.unwrap();
    let record = &records(&store, EventFilter { after: Some(11), ..ALL }).await[0];
    assert_eq!((record.kind.as_str(), record.by.as_str()), ("teleported", "ghost"));
}

pub(super) async fn what_is_on_record_stays_as_it_is(home: &Home) {
    let store = home.open().await;
    store.record(vec![noted(1, 1000)]).await.unwrap();
    let changed = beside(home, "UPDATE audit SET at = 1").await.unwrap_err();
    assert!(changed.contains("what is on record is not changed"), "{changed}");
    assert_eq!(records(&store, ALL).await[0].at, 1000);
}

pub(super) async fn records_are_swept_when_they_are_old_or_too_many(home: &Home) {
    async fn sweep(store: &Store, retention: Retention, now: u64) -> (usize, usize) {
        let mut batches = 1;
        while !store.sweep_records(retention, now, audit_key()).await.unwrap() {
            batches += 1;
        }
        let left = EventFilter { limit: u64::MAX >> 1, ..ALL };
        (batches, records(store, left).await.len())
    }

    let store = home.open().await;
    let operators = create(&store, "rk_1").await;
    store.record((0..3000).map(|i| noted(1, 2000 + i)).collect()).await.unwrap();
    let keep = Retention { keep: 500, max_rows: 5000 };
    assert_eq!(sweep(&store, keep, 1500).await, (1, 3002));
    // At 1501, records of 1000 are older than 500 seconds; at 4000, so are the callers' first 1500.
    assert_eq!(sweep(&store, keep, 1501).await, (1, 3000));
    assert_eq!(sweep(&store, keep, 4000).await, (2, 1500));
    // The oldest of the callers' records are deleted, whatever their age.
    change(&store, &operators, |client| client.generation += 1).await;
    let few = Retention { keep: 1_000_000, max_rows: 1001 };
    assert_eq!(sweep(&store, few, 4000).await, (1, 1002));
    store.record((0..2000).map(|i| noted(1, 5000 + i)).collect()).await.unwrap();
    // Records of operators stay.
    assert_eq!(sweep(&store, few, 7000).await, (2, 1002));
    assert_eq!(records(&store, EventFilter { kind: Some(EventKind::ClientLoggedOut), ..ALL }).await.len(), 1);
}

pub(super) async fn one_clients_records_push_out_no_other_clients(home: &Home) {
    let store = home.open().await;
    let retention = Retention { keep: 1_000_000, max_rows: 1000 };
    let stranger = |at| Event { client: None, ..noted(1, at) };
    store.record((0..100).map(|i| noted(1, 1000 + i)).collect()).await.unwrap();
    store.record((0..50).map(|i| stranger(1000 + i)).collect()).await.unwrap();
    for flood in [1100, 5000] {
        store.record((0..3500).map(|i| noted(2, flood + i)).collect()).await.unwrap();
        while !store.sweep_records(retention, 9000, audit_key()).await.unwrap() {}
        let left = records(&store, ALL).await;
        let of = |client| left.iter().filter(|record| record.client == client).collect::<Vec<_>>();
        assert_eq!((of(Some(1)).len(), of(None).len(), of(Some(2)).len()), (100, 50, 850));
        // The newest records of that client stay.
        assert_eq!(of(Some(2))[0].at, flood + 3500 - 850);
    }
    // Two clients with too many records keep equally many.
    store.record((0..3500).map(|i| stranger(10_000 + i)).collect()).await.unwrap();
    while !store.sweep_records(retention, 20_000, audit_key()).await.unwrap() {}
    let left = records(&store, ALL).await;
    let of = |client| left.iter().filter(|record| record.client == client).count();
    assert_eq!((of(Some(1)), of(None), of(Some(2))), (100, 450, 450));
}

pub(super) async fn whoever_follows_the_record_misses_nothing(home: &Home) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 50;
    let store = Arc::new(home.open().await);
    let other = match home {
        Home::Folder(_) => Arc::clone(&store),
        Home::Database(_) => Arc::new(home.open().await),
    };
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(if writer % 2 == 0 { &store } else { &other });
        writers.spawn(async move {
            let client = create(&store, &format!("rk_{writer}")).await;
            for i in 0..EACH {
                if i % 2 == 0 {
                    change(&store, &client, |client| client.generation += 1).await;
                } else {
                    store.record(vec![noted(client.id, 1000), noted(client.id, 1000)]).await.unwrap();
                }
            }
        });
    }
    let (mut followed, mut after) = (vec![], 0);
    loop {
        let all_written = writers.is_empty();
        let page = store.records(EventFilter { after: Some(after), limit: 7, ..ALL }).await.unwrap();
        let end = page.records.is_empty();
        followed.extend(page.records.iter().map(|record| record.id));
        after = page.last;
        while let Some(written) = writers.try_join_next() {
            written.unwrap();
        }
        if all_written && end {
            break;
        }
    }
    // Each writer adds records of a client, its credential, and changes of the client.
    assert_eq!(followed.len() as u64, WRITERS * (2 + EACH / 2 + EACH));
    let all: Vec<_> =
        records(&store, EventFilter { limit: 10_000, ..ALL }).await.iter().map(|record| record.id).collect();
    assert_eq!(followed, all);
}
