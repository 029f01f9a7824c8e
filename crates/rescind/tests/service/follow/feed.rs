//! The feed itself, event by event.

use std::collections::VecDeque;

use reqwest::{Method, header::AUTHORIZATION};
use rescind::auth;
use rescind_admin as admin;
use rescind_node::memory::Changed;
use rescind_verifier::follow::{
    FeedError,
    sse::{Event, Parser},
    wire::{ACK_PATH, Change, FEED_PATH, Position, What, event_id},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    app::{HOUR, TestApp},
    follow::{Followed, PATIENCE, now, refused_in_time, until, verifier_token},
    reply::Reply,
};

/// One connection to the feed.
pub(crate) struct Stream {
    response: reqwest::Response,
    parser: Parser,
    events: VecDeque<Event>,
    /// Everything that arrived.
    pub(crate) bytes: Vec<u8>,
}

impl Stream {
    pub(crate) async fn open(app: &TestApp, token: &str, last_event_id: Option<&str>) -> Stream {
        let mut request = management(app, Method::GET, FEED_PATH).bearer_auth(token);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Stream { response, parser: Parser::default(), events: VecDeque::new(), bytes: Vec::new() }
    }

    /// The next event. `None`: the server has ended the feed.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("an event").unwrap()?;
            self.bytes.extend_from_slice(&chunk);
            self.events.extend(self.parser.feed(&chunk).unwrap());
        }
        self.events.pop_front()
    }

    /// The next event that is no heartbeat.
    async fn news(&mut self) -> (String, Value) {
        loop {
            let event = self.next().await.expect("no end of the feed");
            if event.name != "heartbeat" {
                return (event.name, serde_json::from_str(&event.data).unwrap());
            }
        }
    }

    /// Reads the snapshot that comes now, and returns its position.
    pub(crate) async fn snapshot(&mut self) -> Position {
        let (name, hello) = self.news().await;
        assert_eq!(name, "snapshot", "{hello}");
        loop {
            let (name, data) = self.news().await;
            match name.as_str() {
                "clients" | "sessions" => {}
                "complete" => {
                    let position: Position = serde_json::from_value(data).unwrap();
                    assert_eq!(
                        (&hello["epoch"], &hello["seq"]),
                        (&json!(position.epoch), &json!(position.seq))
                    );
                    return position;
                }
                _ => panic!("{name} within a snapshot"),
            }
        }
    }

    pub(crate) async fn change(&mut self) -> Change {
        let (name, data) = self.news().await;
        assert_eq!(name, "change", "{data}");
        serde_json::from_value(data).unwrap()
    }

    /// Asserts that the feed resumes at this position, without a snapshot.
    pub(crate) async fn resumed(&mut self, position: &Position) {
        let (name, data) = self.news().await;
        assert_eq!((name.as_str(), data), ("resumed", json!(position)));
    }
}

pub(crate) fn management(app: &TestApp, method: Method, path: &str) -> reqwest::RequestBuilder {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.request(method, format!("http://{}{path}", app.management))
}

pub(crate) fn ack(position: &Position, mode: &str) -> Value {
    json!({"epoch": position.epoch, "seq": position.seq, "mode": mode})
}

#[tokio::test]
async fn whoever_comes_back_gets_what_was_missed_and_nothing_else() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let client = app.client().await;
    let mut stream = Stream::open(&app, &token, None).await;
    let position = stream.snapshot().await;
    drop(stream);

    let pair = app.grant(&client).await;
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    auth::revoke(&app.app, client.id, &pair.access).await.unwrap();
    let mut stream = Stream::open(&app, &token, Some(&event_id(&position))).await;
    stream.resumed(&position).await;
    let (first, second) = (stream.change().await, stream.change().await);
    assert_eq!((first.seq, second.seq), (position.seq + 1, position.seq + 2));
    assert!(
        matches!(first.what, What::Client(c) if c.client_id == client.id && !c.active && c.generation == 1)
    );
    assert!(matches!(second.what, What::Session(s) if s.session == 1));
    let id = format!("id: {}:{}\n", position.epoch, second.seq);
    assert!(str::from_utf8(&stream.bytes).unwrap().contains(&id));
    // What comes after goes to it live.
    admin::resume(&app.app, client.id).await.unwrap();
    assert_eq!(stream.change().await.seq, position.seq + 3);
}

#[tokio::test]
async fn whoever_missed_more_than_is_remembered_gets_a_snapshot() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let client = app.client().await;
    let feed = app.app.memory.registry.feed();
    let before = feed.head();
    for _ in 0..10_000 {
        feed.publish(Changed::Client(client.id));
    }
    let mut stream = Stream::open(&app, &token, Some(&event_id(&before))).await;
    stream.resumed(&before).await;
    for missed in 1..=10_000 {
        assert_eq!(stream.change().await.seq, before.seq + missed);
    }
    feed.publish(Changed::Client(client.id));
    let head = feed.head();
    let of_another = Position { epoch: "another".into(), ..head.clone() };
    let from_the_future = Position { seq: head.seq + 1, ..head.clone() };
    for id in [&before, &of_another, &from_the_future]
        .map(event_id)
        .iter()
        .map(String::as_str)
        .chain(["", ":", "x"])
    {
        assert_eq!(Stream::open(&app, &token, Some(id)).await.snapshot().await, head, "{id:?}");
    }
}

#[tokio::test]
async fn a_restarted_server_sends_a_snapshot_of_a_new_epoch() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let mut stream = Stream::open(&app, &token, None).await;
    let position = stream.snapshot().await;
    let app = app.restart().await;
    while let Some(event) = stream.next().await {
        assert_eq!(event.name, "heartbeat", "nothing else than the end");
    }
    let next = Stream::open(&app, &token, Some(&event_id(&position))).await.snapshot().await;
    assert_ne!(position.epoch, next.epoch);
}

#[tokio::test]
async fn a_large_snapshot_is_complete() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let allow: Vec<String> =
        (0..256).map(|n| format!("2001:db8:1234:5678:9abc:def0:1234:{n:x}/128")).collect();
    let mut clients = Vec::new();
    for n in 0..120 {
        let new = admin::NewClient {
            name: format!("client {n}"),
            allow: allow.clone(),
            ..admin::NewClient::default()
        };
        clients.push(app.client_of(new).await.id);
    }
    let mut stream = Stream::open(&app, &token, None).await;
    stream.snapshot().await;
    let text = str::from_utf8(&stream.bytes).unwrap();
    for id in clients {
        assert_eq!(text.matches(&format!("{{\"client_id\":{id},")).count(), 1);
    }
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest < 1 << 20, "{longest} bytes in one line");
}

#[tokio::test]
async fn only_verifiers_may_follow_and_only_on_the_management_listener() {
    let app = TestApp::today(|_| {}).await;
    let client = app.client().await;
    let access = app.grant(&client).await.access;
    let good = verifier_token(&app, true).await;
    let position = app.app.memory.registry.feed().head();
    let requests = || {
        [
            management(&app, Method::GET, FEED_PATH),
            management(&app, Method::POST, ACK_PATH).json(&ack(&position, "bounded")),
        ]
    };
    for request in requests() {
        app.send(request).await.is_error(401, "Authorization header required");
    }
    for wrong in [&access, &client.secret, &good[..good.len() - 1], "rv_x"] {
        for request in requests() {
            app.send(request.bearer_auth(wrong)).await.is_error(401, "Invalid token");
        }
    }
    for request in requests() {
        let twice = request.bearer_auth(&good).header(AUTHORIZATION, format!("Bearer {good}"));
        app.send(twice).await.is_error(401, "Invalid token");
    }
    for (method, path) in [(Method::GET, FEED_PATH), (Method::POST, ACK_PATH)] {
        app.send(app.request(method, path).bearer_auth(&good)).await.is_error(404, "No such path");
    }
}

#[tokio::test]
async fn an_acknowledgement_is_answered_with_the_head() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let mut stream = Stream::open(&app, &token, None).await;
    let position = stream.snapshot().await;
    let client = app.client().await;
    let send = async |body: Value| -> Reply {
        app.send(management(&app, Method::POST, ACK_PATH).bearer_auth(&token).json(&body)).await
    };
    let head = json!({"epoch": position.epoch, "seq": position.seq + 1});
    assert_eq!(send(ack(&position, "bounded")).await.json(), head);
    for mode in ["exact", "leave", "", "Bounded"] {
        assert_eq!(send(ack(&position, mode)).await.status, 400, "{mode:?}");
    }
    assert_eq!(send(json!({"epoch": "e"})).await.status, 400);
    // Exact, as another process of the same verifier.
    let named = |mode: &str, follower: &str| {
        let mut ack = ack(&position, mode);
        ack["follower"] = follower.into();
        ack
    };
    for bad in ["", "a b", "\n", "ü", &"x".repeat(65)] {
        for mode in ["exact", "leave"] {
            send(named(mode, bad)).await.is_error(400, "follower: expected 1 to 64 visible ASCII characters");
        }
    }
    let leased = json!({"epoch": position.epoch, "seq": position.seq + 1, "lease_ms": 2454});
    assert_eq!(send(named("exact", &"x".repeat(64))).await.json(), leased);
    assert_eq!(send(named("leave", &"x".repeat(64))).await.json(), head);
    // A process that may be behind tells nobody that they are not.
    app.app.cluster.lease.end();
    for ack in [ack(&position, "bounded"), named("exact", "x"), named("leave", "x")] {
        assert_eq!(send(ack).await.status, 503);
    }
    drop(client);
}

#[tokio::test]
async fn a_revoked_verifier_follows_no_more() {
    let f = Followed::start().await;
    let token = verifier_token(&f.app, false).await;
    let mut stream = Stream::open(&f.app, &token, None).await;
    stream.snapshot().await;
    // This one first: of the other's revocation it is not told any more.
    for verifier in admin::verifiers(&f.app.app).into_iter().rev() {
        admin::revoke_verifier(&f.app.app, verifier.verifier_id).await.unwrap();
    }
    let bound = std::time::Duration::from_millis(500);
    refused_in_time(&f.follower, &f.pair.access, now(), bound, rescind_verifier::Denied::Stale).await;
    until("a refusal", || *f.follower.status().borrow() == Some(FeedError::Refused(401))).await;
    // Not a change that is made after.
    f.app.logout(&f.pair.access).await.is_logged_out();
    while let Some(event) = stream.next().await {
        assert_eq!(event.name, "heartbeat", "{event:?}");
    }
}

// A client that presents an ended session's token again and again makes no changes.
#[tokio::test]
async fn a_session_ends_once() {
    let app = TestApp::today(|_| {}).await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    auth::revoke(&app.app, client.id, &pair.access).await.unwrap();
    let feed = app.app.memory.registry.feed();
    let (head, ended) = (feed.head(), feed.ended());
    auth::revoke(&app.app, client.id, &pair.access).await.unwrap();
    app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    assert_eq!((feed.head(), feed.ended()), (head, ended));
}

// check 91: a token that has expired by a clock set forward stands again when that is set back
#[tokio::test]
async fn an_ended_session_is_not_forgotten_while_a_clock_is_an_hour_ahead() {
    let app = TestApp::today(|config| config.tokens.refresh_ttl = "1h".parse().unwrap()).await;
    let token = verifier_token(&app, true).await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    auth::revoke(&app.app, client.id, &pair.access).await.unwrap();
    app.advance(HOUR + 60);
    app.app.sweep().await.unwrap();
    app.advance(-HOUR - 60);
    let mut stream = Stream::open(&app, &token, None).await;
    stream.snapshot().await;
    assert!(str::from_utf8(&stream.bytes).unwrap().contains("event: sessions\ndata: [{\"session\":1,"));
}
