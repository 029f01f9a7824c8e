//! Operators' questions, and what ends by itself.

use rescind_base::model::{CredentialUse, UnixSeconds};

use super::*;

pub(super) async fn a_client_is_created_once_under_a_name_that_must_be_absent(home: &Home) {
    let store = Arc::new(home.open().await);
    let mut creations = JoinSet::new();
    for n in 0..8 {
        let store = Arc::clone(&store);
        creations.spawn(async move {
            store.create_client(client(&format!("rk_{n}")), true, origin()).await.unwrap()
        });
    }
    let created = creations.join_all().await;
    let new: Vec<_> = created.iter().filter_map(|created| created.as_ref().ok()).collect();
    let there: Vec<_> = created.iter().filter_map(|created| created.as_ref().err()).collect();
    assert_eq!((new.len(), there.len()), (1, 7));
    assert!(there.iter().all(|id| **id == new[0].id));
    // A deleted client does not hold its name, and whoever does not ask may take it twice.
    change(&store, new[0], |client| client.status = Status::Deleted).await;
    assert!(store.create_client(client("rk_8"), true, origin()).await.unwrap().is_ok());
    assert!(store.create_client(client("rk_9"), false, origin()).await.unwrap().is_ok());
}

pub(super) async fn what_is_suspended_or_has_ended_is_found_when_its_time_has_come(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let until = |until| Suspension { until, reason: Some("why".into()) };
    change(&store, &one, move |client| {
        (client.status, client.suspension) = (Status::Suspended, until(Some(5000)));
    })
    .await;
    change(&store, &two, move |client| {
        (client.status, client.suspension) = (Status::Suspended, until(None));
    })
    .await;
    let found = store.find(one.id, 0).await.unwrap().client.unwrap();
    assert_eq!((found.status, found.suspension), (Status::Suspended, until(Some(5000))));
    assert!(store.suspended_until(4999).await.unwrap().is_empty());
    assert_eq!(store.suspended_until(5000).await.unwrap(), [one.id]);
    change(&store, &one, |client| {
        (client.status, client.suspension) = (Status::Active, Suspension::default());
    })
    .await;
    assert!(store.suspended_until(5000).await.unwrap().is_empty());

    change(&store, &one, |client| {
        client.credentials[0].expires_at = Some(7000);
        client.credentials[0].replaced_at = Some(6000);
        client.credentials.push(credential("rk_3"));
    })
    .await;
    assert_eq!(store.find(one.id, 0).await.unwrap().client.unwrap().credentials[0].replaced_at, Some(6000));
    assert!(store.with_ended_credentials(7000).await.unwrap().is_empty());
    assert_eq!(store.with_ended_credentials(7001).await.unwrap(), [one.id]);
    change(&store, &one, |client| client.credentials.retain(|credential| credential.expires_at.is_none()))
        .await;
    assert!(store.with_ended_credentials(7001).await.unwrap().is_empty());
    let left = store.find(one.id, 0).await.unwrap().client.unwrap().credentials;
    assert_eq!(left.iter().map(|credential| credential.api_key.as_str()).collect::<Vec<_>>(), ["rk_3"]);
}

pub(super) async fn the_sessions_of_a_client_are_listed(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let (first, other, second) =
        (login(&store, &one, 2000).await, login(&store, &two, 2001).await, login(&store, &one, 2002).await);
    let part = async |client: &Client, before| store.sessions_of(client.id, before, 2).await.unwrap();
    let of = |sessions: &[&Session], next| SessionPart {
        sessions: sessions.iter().map(|&session| session.clone()).collect(),
        next,
    };
    let newest = u64::MAX >> 1;
    assert_eq!(part(&one, newest).await, of(&[&second], Some(other.id)));
    // Changes go on between two parts.
    let third = login(&store, &one, 2003).await;
    assert_eq!(part(&one, other.id).await, of(&[&first], Some(first.id)));
    assert_eq!(part(&one, first.id).await, of(&[], None));
    assert_eq!(part(&one, newest).await, of(&[&third, &second], Some(second.id)));
    assert_eq!(part(&two, newest).await, of(&[], Some(second.id)));
    assert_eq!(store.client_of_session(other.id).await.unwrap(), Some(two.id));
    assert_eq!(store.client_of_session(third.id + 1).await.unwrap(), None);
    assert_eq!(store.client_of_credential("rk_2").await.unwrap(), Some(two.id));
    for nobodys in ["rk_3", "rk\0"] {
        assert_eq!(store.client_of_credential(nobodys).await.unwrap(), None);
    }
}

pub(super) async fn the_uses_of_credentials_are_added_up_and_the_last_one_stays(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let (used, unused) = (one.credentials[0].id, two.credentials[0].id);
    let at = |credential, address: &str, at: UnixSeconds, times| CredentialUse {
        credential,
        address: (!address.is_empty()).then(|| address.parse().unwrap()),
        at,
        times,
    };
    let sweep = async |before| store.sweep_uses(0, before).await.unwrap();
    assert!(store.last_uses().await.unwrap().is_empty());
    // One address twice in one call, as the memory of it may have it.
    let first = vec![at(used, "203.0.113.7", 1000, 2), at(used, "", 900, 1), at(used, "203.0.113.7", 990, 1)];
    store.add_uses(first).await.unwrap();
    store.add_uses(vec![at(used, "2001:db8::1", 2000, 1), at(used, "203.0.113.7", 1500, 3)]).await.unwrap();
    let all = [at(used, "2001:db8::1", 2000, 1), at(used, "203.0.113.7", 1500, 6), at(used, "", 900, 1)];
    assert_eq!(store.uses_of(one.id).await.unwrap(), all);
    assert_eq!(store.uses_of(two.id).await.unwrap(), []);
    assert_eq!(store.last_uses().await.unwrap(), [(one.id, 2000)]);

    assert_eq!(sweep(1000).await, Some(used));
    assert_eq!(store.uses_of(one.id).await.unwrap(), all[..2]);
    sweep(9000).await;
    assert_eq!(store.uses_of(one.id).await.unwrap(), all[..1]);

    let many = (0..=255_u8).map(|n| at(unused, &format!("192.0.2.{n}"), 3000 + u64::from(n), 1)).collect();
    // However many addresses a caller has, the write of the newest deletes the oldest.
    store.add_uses(many).await.unwrap();
    let kept = store.uses_of(two.id).await.unwrap();
    assert_eq!((kept.len(), kept[0].at, kept[199].at), (200, 3255, 3056));
    // Those of a credential that is gone go with it.
    change(&store, &two, |client| client.credentials.clear()).await;
    assert_eq!(sweep(0).await, Some(unused));
    assert_eq!(store.sweep_uses(unused, 0).await.unwrap(), None);
    assert_eq!(store.last_uses().await.unwrap(), [(one.id, 2000)]);
}
