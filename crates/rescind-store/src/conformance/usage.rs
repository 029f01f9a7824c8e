//! Counts by hours, and notices of expiries.

use rescind_base::model::{
    Counted, CredentialId, EventFilter, Expiring, Hours, Last, Subject, Tally, UnixSeconds,
};

use super::*;

fn counted(client: &Client, hour: u64, count: u64, at: Option<UnixSeconds>) -> Counted {
    let last = at.map(|at| Last { at, from: Some("192.0.2.1".parse().unwrap()) });
    let tally =
        Tally { logins: count, refreshes: count + 1, verifications: count + 2, denials: count + 3, last };
    Counted { client: client.id, credential: client.credentials[0].id, hour, tally }
}

pub(super) async fn the_counts_of_an_hour_are_added_up_until_they_are_swept(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let of_nobody = Counted { credential: 0, ..counted(&one, 100, 5, Some(9000)) };
    store
        .add_usage(vec![counted(&one, 100, 10, Some(1000)), of_nobody, counted(&two, 100, 1, None)])
        .await
        .unwrap();
    // Two hours of one credential, the newer verification first.
    store
        .add_usage(vec![counted(&one, 101, 20, Some(2000)), counted(&one, 100, 30, Some(900))])
        .await
        .unwrap();
    let logins = async |client: &Client, credential: Option<CredentialId>, since, until| {
        let counted = store.usage_of(client.id, credential, Hours { since, until }).await.unwrap();
        let all = counted.iter().map(|(hour, tally)| {
            let Tally { logins, refreshes, verifications, denials, last: _ } = *tally;
            (*hour, [logins, refreshes, verifications, denials])
        });
        all.collect::<Vec<_>>()
    };
    let credential = Some(one.credentials[0].id);
    assert_eq!(logins(&one, None, 0, 200).await, [(100, [45, 48, 51, 54]), (101, [20, 21, 22, 23])]);
    assert_eq!(logins(&one, credential, 0, 101).await, [(100, [40, 42, 44, 46])]);
    assert_eq!(logins(&one, None, 101, 102).await, [(101, [20, 21, 22, 23])]);
    assert_eq!(logins(&one, None, 102, 102).await, []);
    assert_eq!(logins(&two, None, 100, 101).await, [(100, [1, 2, 3, 4])]);
    let last = async |client: &Client| {
        let last = store.last_verifications(client.id).await.unwrap();
        last.iter().map(|(id, last)| (*id, last.at)).collect::<Vec<_>>()
    };
    assert_eq!(last(&one).await, [(one.credentials[0].id, 2000)]);
    assert_eq!(last(&two).await, []);
    assert_eq!(store.last_uses().await.unwrap(), [(one.id, 2000)]);

    change(&store, &one, |client| client.credentials.clear()).await;
    while !store.sweep_usage(101).await.unwrap() {}
    assert_eq!(logins(&one, None, 0, 200).await, [(101, [20, 21, 22, 23])]);
    assert_eq!(logins(&two, None, 0, 200).await, []);
    assert!(store.last_uses().await.unwrap().is_empty());
}

pub(super) async fn an_expiry_is_told_of_once_whoever_asks(home: &Home) {
    let store = Arc::new(home.open().await);
    let expiring = |subject, days| Expiring { subject, expires_at: 5000, days };
    let credential = || Subject::Credential { id: 1, client: 2, api_key: "rk_1".into() };
    let token = || Subject::ManagementToken { id: 1, name: "ci".into() };
    let all = vec![expiring(credential(), 7), expiring(token(), 7), expiring(Subject::Certificate, 7)];
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (store, all) = (Arc::clone(&store), all.clone());
        asking.spawn(async move { store.note_expiries(all, 4000, origin()).await.unwrap() });
    }
    let told: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    assert_eq!(told, all);
    let kinds = async || {
        let records = store.records(EventFilter::newest(100)).await.unwrap().records;
        records.into_iter().map(|record| record.kind).collect::<Vec<_>>()
    };
    let first = ["credential_expiring", "management_token_expiring", "certificate_expiring"];
    assert_eq!(kinds().await, first);
    // The next notice, and the same one of another expiry.
    let next = vec![expiring(token(), 1), Expiring { expires_at: 6000, ..expiring(token(), 7) }];
    assert_eq!(store.note_expiries(next.clone(), 4000, origin()).await.unwrap(), next);
    assert_eq!(store.note_expiries(next.clone(), 5000, origin()).await.unwrap(), []);
    assert_eq!(kinds().await.len(), 5);
    // What has expired is forgotten.
    assert_eq!(store.note_expiries(next.clone(), 5001, origin()).await.unwrap(), next[..1]);
}
