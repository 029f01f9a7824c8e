use std::thread;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Mutex;

use super::{
    super::{Follower, Options, Shared, Task},
    *,
};
use crate::{Algorithm, Claims, header_segment};

fn snapshot(epoch: &str, seq: u64) -> Snapshot {
    let hello = format!(r#"{{"epoch":"{epoch}","seq":{seq},"issuer":"i","audience":"a","keys":[]}}"#);
    Snapshot::begin(&serde_json::from_str(&hello).unwrap(), None).unwrap()
}

fn at(position: &str) -> Position {
    position.parse().unwrap()
}

fn newest(snapshots: &Snapshots) -> Position {
    snapshots.newest().unwrap().position.clone()
}

/// The position of the snapshot that decides at this second.
fn fresh(snapshots: &Snapshots, second: u64) -> Option<Position> {
    let confirmed = snapshots.confirmed()?;
    let current = snapshots.current.as_ref()?;
    assert!(Arc::ptr_eq(&confirmed.known, &current.known));
    confirmed.is_fresh(Duration::from_secs(second)).then(|| current.position.clone())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_snapshot_of_another_process_decides_nothing_before_that_has_confirmed_it() {
    let mut snapshots = Snapshots::default();
    snapshots.put(snapshot("e", 5)).unwrap();
    assert_eq!((newest(&snapshots), fresh(&snapshots, 0)), (at("e:5"), None));
    snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
    assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:5")), None));

    snapshots.put(snapshot("f", 2)).unwrap();
    let keys = What::Keys(vec![]);
    snapshots.apply(Change { seq: 3, what: keys.clone() }, 0).unwrap();
    assert_eq!((newest(&snapshots), fresh(&snapshots, 9)), (at("f:3"), Some(at("e:5"))));
    snapshots.extend(&at("f:4"), 20 * SECOND).unwrap_err();
    assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:5")), None));
    assert_eq!(snapshots.extend(&at("f:3"), 12 * SECOND).unwrap().unwrap().position, at("e:5"));
    assert_eq!((fresh(&snapshots, 11), fresh(&snapshots, 12)), (Some(at("f:3")), None));
    // A late answer does not shorten the deadline.
    snapshots.extend(&at("f:3"), 11 * SECOND).unwrap();
    assert_eq!(fresh(&snapshots, 11), Some(at("f:3")));
}

#[test]
fn a_snapshot_of_the_same_process_is_good_for_as_long_as_what_it_replaces() {
    let mut snapshots = Snapshots::default();
    snapshots.put(snapshot("e", 5)).unwrap();
    snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
    snapshots.put(snapshot("e", 7)).unwrap();
    assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:7")), None));
    assert_eq!(snapshots.put(snapshot("e", 6)).unwrap_err(), FeedError::Gap { have: 7, got: 6 });
    // The same holds after a snapshot of another process.
    snapshots.put(snapshot("f", 1)).unwrap();
    snapshots.put(snapshot("e", 8)).unwrap();
    assert_eq!((newest(&snapshots), fresh(&snapshots, 9)), (at("e:8"), Some(at("e:8"))));
}

#[test]
fn the_longest_resource_that_the_options_take_can_be_followed() {
    let hello =
        serde_json::from_str(r#"{"epoch":"e","seq":5,"issuer":"i","audience":"a","keys":[]}"#).unwrap();
    let options = Options::exact("127.0.0.1:1", "rv_");
    let longest = format!("urn:{}", "a".repeat(1020));
    let options = options.with_resource(&longest).unwrap();
    assert_eq!(options.resource.as_deref(), Some(&*longest));
    Snapshot::begin(&hello, Some(&longest)).unwrap();
    options.with_resource(&(longest + "a")).unwrap_err();
}

#[test]
fn what_is_distrusted_is_what_was_told_last() {
    let mut snapshots = Snapshots::default();
    snapshots.put(snapshot("e", 5)).unwrap();
    snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
    snapshots.put(snapshot("f", 1)).unwrap();
    snapshots.distrust();
    assert!(newest(&snapshots) == at("e:5") && snapshots.newest().unwrap().sound);
    snapshots.distrust();
    assert!(!snapshots.newest().unwrap().sound);
    assert_eq!(fresh(&snapshots, 9), Some(at("e:5")), "it was good until then");
}

// check 94
#[test]
fn ended_sessions_are_forgotten_when_no_clock_can_bring_their_tokens_back() {
    let mut snapshot = snapshot("e", 0);
    let mut seq = 0;
    let mut end = |snapshot: &mut Snapshot, until, now| {
        seq += 1;
        let ended = EndedSession { session: seq, until };
        snapshot.apply(Change { seq, what: What::Session(ended) }, now).unwrap();
    };
    end(&mut snapshot, 100, 0);
    for _ in 0..2000 {
        end(&mut snapshot, 200, 100 + MARGIN - 1);
    }
    assert!(snapshot.known.ended.pin().contains_key(&1));
    for _ in 0..20_000 {
        end(&mut snapshot, 300, 200 + MARGIN);
    }
    let known = Arc::clone(&snapshot.known);
    assert!(!known.ended.pin().contains_key(&1) && !known.ended.pin().contains_key(&2001));
    assert_eq!(known.forgotten.load(Ordering::Relaxed), 200);
    assert_eq!(known.ended.len(), 20_000);
    for _ in 0..50_000 {
        end(&mut snapshot, 400, 300 + MARGIN);
    }
    assert_eq!(known.ended.len(), 50_000);
}

const SECRET: [u8; 32] = [7; 32];

/// The client's access token of session 7 that expires at `expires_at`.
fn token(generation: u64, expires_at: UnixSeconds) -> String {
    let (client, session, credential, pair) = (1, 7, 3, 1);
    let scopes = "s".parse().unwrap();
    let resources = Default::default();
    let claims =
        Claims { client, issued_at: 0, expires_at, session, credential, generation, pair, scopes, resources };
    let payload = BASE64URL_NOPAD.encode(claims.write(&Profile::new("i", "a").unwrap(), None).as_bytes());
    let text = format!("{}.{payload}", header_segment(Algorithm::Hs256, "k", Kind::Access));
    let tag = Hmac::<Sha256>::new_from_slice(&SECRET).unwrap().chain_update(&text).finalize().into_bytes();
    format!("{text}.{}", BASE64URL_NOPAD.encode(&tag))
}

fn client(generation: u64) -> Client {
    Client {
        client_id: 1,
        name: "c".into(),
        revision: generation,
        generation,
        active: true,
        allow: vec![],
        scopes: "s".into(),
        credentials: vec![3],
    }
}

/// A snapshot with the key and the client.
fn filled(seq: u64, generation: u64) -> Snapshot {
    let mut snapshot = snapshot("e", seq);
    snapshot.verifier = Arc::new(verifier(&keys(), &snapshot.profile).unwrap());
    snapshot.add_clients(vec![client(generation)]).unwrap();
    snapshot
}

fn keys() -> Vec<WireKey> {
    vec![WireKey::new("k", Algorithm::Hs256, &SECRET)]
}

fn caller() -> Option<IpAddr> {
    Some([127, 0, 0, 1].into())
}

// check 94: the clock was set back between the removal and the verification
#[test]
fn a_token_of_a_removed_session_stays_refused() {
    let mut snapshots = Snapshots::default();
    snapshots.put(filled(0, 1)).unwrap();
    snapshots.extend(&at("e:0"), SECOND).unwrap();
    let confirmed = snapshots.confirmed().unwrap();
    let verify = |expires_at, now| confirmed.verify(&token(1, expires_at), caller(), now).map(drop);
    confirmed.known.ended.pin().insert(7, 100);
    assert_eq!(verify(100, 50), Err(Denied::Revoked));
    confirmed.known.forget(100);
    assert!(confirmed.known.ended.is_empty());
    assert_eq!(verify(100, 50), Err(Denied::Expired));
    assert_eq!(verify(101, 50), Ok(()));
    // Nor does it come back if less was to be removed later.
    confirmed.known.forget(50);
    assert_eq!(verify(100, 50), Err(Denied::Expired));
}

/// The rule that a server relies on when it has the acknowledgement.
#[tokio::test]
async fn a_verification_that_begins_after_a_change_knows_it() {
    const CHANGES: u64 = 3_000;
    let shared = Arc::new(Shared::new(Options::exact("127.0.0.1:1", "rv_")));
    let follower =
        Follower { shared: Arc::clone(&shared), task: Arc::new(Task(Mutex::new(tokio::spawn(async {})))) };
    let tokens: Vec<_> = (0..=CHANGES).map(|generation| token(generation, u64::MAX >> 11)).collect();
    assert_eq!(follower.verify(&tokens[0], caller()).unwrap_err(), Denied::Stale);
    shared.change(|snapshots| snapshots.put(filled(0, 0))).unwrap();
    assert_eq!(follower.verify(&tokens[0], caller()).unwrap_err(), Denied::Stale);
    shared.change(|snapshots| snapshots.extend(&at("e:0"), Duration::MAX)).unwrap();
    follower.verify(&tokens[0], caller()).unwrap();

    // The generation that is acknowledged.
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (follower, tokens, acknowledged) = (&follower, &tokens, &acknowledged);
            scope.spawn(move || {
                let mut valid = 0;
                loop {
                    let generation = acknowledged.load(Ordering::SeqCst);
                    if let Some(before) = generation.checked_sub(1 + reader) {
                        let verdict = follower.verify(&tokens[before as usize], caller());
                        assert_eq!(verdict.unwrap_err(), Denied::Revoked);
                    }
                    match follower.verify(&tokens[generation as usize], caller()) {
                        Ok(_) => valid += 1,
                        // A change came meanwhile.
                        Err(denied) => assert_eq!(denied, Denied::Revoked),
                    }
                    if generation == CHANGES {
                        assert!(valid > 0);
                        return;
                    }
                }
            });
        }
        for generation in 1..=CHANGES {
            match generation % 10 {
                // Among the changes there are other keys and whole snapshots.
                0 => drop(shared.change(|snapshots| snapshots.put(filled(generation, generation))).unwrap()),
                n => {
                    let change = Change { seq: generation, what: What::Client(client(generation)) };
                    shared.change(|snapshots| snapshots.apply(change, 0)).unwrap();
                    if n == 5 {
                        shared.change(|snapshots| {
                            let current = snapshots.current.as_mut().unwrap();
                            current.verifier = Arc::new(verifier(&keys(), &current.profile).unwrap());
                        });
                    }
                }
            }
            acknowledged.store(generation, Ordering::SeqCst);
        }
    });
    follower.leave().await;
    assert_eq!(follower.verify(&tokens[CHANGES as usize], caller()).unwrap_err(), Denied::Stale);
}
