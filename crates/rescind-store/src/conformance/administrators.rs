//! Administrators, their sign-ins, and secrets that are handed over.

use rescind_base::{
    model::{Administrator, Enrolment, EventFilter, Handover, Proofs, Role, SignIn},
    secret::TicketHash,
};

use super::*;

fn new(name: &str) -> Administrator {
    Administrator {
        id: 0,
        name: name.into(),
        role: Role::Viewer,
        generation: 0,
        proofs: None,
        totp_used: 0,
        enrolment: Some(Enrolment { hash: TicketHash([9; 32]), until: 2000 }),
        created_at: 1000,
        signed_in_at: None,
    }
}

async fn add(store: &Store, name: &str) -> Administrator {
    let new = new(name);
    let rule = |all: &mut Vec<_>| {
        all.push(new);
        Ok::<_, ()>(())
    };
    let ((), after) = store.change_administrators(origin(), rule).await.unwrap().unwrap();
    after.into_iter().find(|of| of.name == name).unwrap()
}

async fn kinds(store: &Store) -> Vec<String> {
    let records = store.records(EventFilter::newest(100)).await.unwrap().records;
    records.into_iter().map(|record| record.kind).filter(|kind| kind != "client_created").collect()
}

fn sign_in(of: &Administrator, hash: u8) -> SignIn {
    let hash = TicketHash([hash; 32]);
    SignIn { hash, administrator: of.id, generation: of.generation, began_at: 1000, used_at: 1000 }
}

pub(super) async fn administrators_are_changed_as_a_whole(home: &Home) {
    let store = home.open().await;
    let (one, two) = (add(&store, "one").await, add(&store, "two").await);
    assert_eq!(store.administrators().await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!((one.id > 0, Administrator { id: 0, ..one.clone() }), (true, new("one")));
    let refused = store.change_administrators(origin(), |all| {
        all.clear();
        Err::<(), _>("no")
    });
    assert_eq!(refused.await.unwrap().unwrap_err(), "no");
    let enrol = |all: &mut Vec<Administrator>| {
        all[0].proofs = Some(Proofs { password: "$argon2id$".into(), totp: vec![0, 255] });
        all[0].totp_used = 7;
        all[0].enrolment = None;
        all[0].role = Role::Admin;
        all[0].generation += 1;
        all[0].signed_in_at = Some(1500);
        Ok::<_, ()>(())
    };
    let ((), after) = store.change_administrators(origin(), enrol).await.unwrap().unwrap();
    assert_eq!(store.administrators().await.unwrap(), after);
    let one = &after[0];
    assert_eq!((one.totp_used, one.role, one.generation, one.enrolment), (7, Role::Admin, 1, None));
    assert_eq!((one.proofs.as_ref().unwrap().totp.as_slice(), one.signed_in_at), (&[0, 255][..], Some(1500)));
    let remove = |all: &mut Vec<Administrator>| {
        all.remove(1);
        Ok::<_, ()>(())
    };
    store.change_administrators(origin(), remove).await.unwrap().unwrap();
    assert_eq!(store.administrators().await.unwrap(), std::slice::from_ref(one));
    let expected = [
        "administrator_created",
        "administrator_created",
        "administrator_changed",
        "administrator_enrolled",
        "administrator_signed_in",
        "administrator_removed",
    ];
    assert_eq!(kinds(&store).await, expected);
    store.end_tokens(key("k"), origin()).await.unwrap();
    assert!(store.administrators().await.unwrap().is_empty());
}

pub(super) async fn a_sign_in_is_good_for_a_time_and_one_generation(home: &Home) {
    let store = home.open().await;
    let of = add(&store, "one").await;
    for hash in 1..=3 {
        store.begin_sign_in(sign_in(&of, hash)).await.unwrap();
    }
    let used = async |hash, now| {
        let found = store.use_sign_in(TicketHash([hash; 32]), now).await.unwrap();
        found.is_some_and(|found| found.id == of.id)
    };
    assert!(used(1, 1000 + SignIn::IDLE - 1).await && !used(9, 1000).await);
    // The use has made it last longer, and the others have ended.
    assert!(used(1, 1000 + SignIn::IDLE).await && !used(2, 1000 + SignIn::IDLE).await);
    store.end_sign_in(TicketHash([3; 32])).await.unwrap();
    assert!(used(2, 1000).await && !used(3, 1000).await);
    store.sweep_sign_ins(1000 + SignIn::IDLE).await.unwrap();
    assert!(used(1, 1000).await && !used(2, 1000).await);
    let reset = |all: &mut Vec<Administrator>| {
        all[0].generation += 1;
        Ok::<_, ()>(())
    };
    store.change_administrators(origin(), reset).await.unwrap().unwrap();
    assert!(!used(1, 1000).await);
    let of = store.administrators().await.unwrap().remove(0);
    store.begin_sign_in(sign_in(&of, 4)).await.unwrap();
    assert!(used(4, 1000).await);
    let remove = |all: &mut Vec<Administrator>| {
        all.clear();
        Ok::<_, ()>(())
    };
    store.change_administrators(origin(), remove).await.unwrap().unwrap();
    assert!(!used(4, 1000).await);
}

pub(super) async fn a_handed_over_secret_is_read_once(home: &Home) {
    let store = home.open().await;
    let hash = |n| TicketHash([n; 32]);
    for n in 1..=2 {
        let new = Handover {
            hash: hash(n),
            client: 3,
            api_key: "rk_a".into(),
            sealed: Some(vec![n, 0, 255]),
            created_at: 1000,
            ends_at: 2000,
            read_at: None,
        };
        store.hand_over(new.clone(), origin()).await.unwrap();
        assert_eq!(store.handover(hash(n)).await.unwrap(), Some(new));
    }
    let at = |at| ChangeOrigin { at, ..origin() };
    let read =
        async |n, now| store.read_handover(hash(n), at(now)).await.unwrap().and_then(|found| found.sealed);
    assert_eq!((read(9, 1500).await, read(1, 2000).await), (None, None));
    assert_eq!((read(1, 1999).await, read(1, 1999).await), (Some(vec![1, 0, 255]), None));
    let known = store.handover(hash(1)).await.unwrap().unwrap();
    assert_eq!((known.sealed, known.read_at), (None, Some(1999)));
    store.sweep_handovers(2000).await.unwrap();
    assert_eq!(store.handover(hash(2)).await.unwrap().unwrap().sealed, None);
    store.sweep_handovers(2000 + 30 * 86_400).await.unwrap();
    assert_eq!(store.handover(hash(1)).await.unwrap(), None);
    assert_eq!(kinds(&store).await, ["secret_handed_over", "secret_handed_over", "handed_over_secret_read"]);
}

pub(super) async fn a_credential_has_a_note(home: &Home) {
    let store = home.open().await;
    let client = store.create_client(client("a"), false, origin()).await.unwrap().unwrap();
    let note = |note: Option<&str>| {
        let note = note.map(str::to_owned);
        move |client: &mut Client| {
            client.credentials[0].note = note;
            Ok::<_, ()>(())
        }
    };
    for text in [Some("vault: kv/billing"), None] {
        store.change_client(client.id, origin(), note(text)).await.unwrap().unwrap().unwrap();
        let kept = store.find(client.id, 0).await.unwrap().client.unwrap();
        assert_eq!(kept.credentials[0].note.as_deref(), text);
    }
}
