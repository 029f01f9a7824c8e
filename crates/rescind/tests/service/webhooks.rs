//! Webhooks, sent to a receiver on this machine.

use std::{
    collections::VecDeque,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
};

use rescind::webhooks::{self, DeadQuery, Delivering, Hook, ReplayQuestion};
use rescind_base::{
    clock::Clock,
    model::{Actor, Delivery, EventFilter, EventKind},
    random::Random,
};
use rescind_node::{
    app::App,
    config::{Config, Webhook},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use crate::app::{DAY, NOW};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver does with the next request.
enum Answer {
    Status(&'static str),
    /// Closes the connection when this is dropped.
    Nothing(mpsc::Receiver<()>),
}

struct Receiver {
    url: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: mpsc::UnboundedReceiver<Request>,
}

#[derive(Debug)]
struct Request {
    target: String,
    id: String,
    event: Value,
}

impl Receiver {
    /// Answers 204, unless the test has said what else.
    async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=canary", listener.local_addr().unwrap());
        let answers = Arc::<Mutex<VecDeque<Answer>>>::default();
        let (send, requests) = mpsc::unbounded_channel();
        let next = Arc::clone(&answers);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let (mut target, mut id, mut length) = (String::new(), String::new(), 0);
                stream.read_line(&mut target).await.unwrap();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    match line.trim().split_once(": ") {
                        Some(("webhook-id", value)) => id = value.to_owned(),
                        Some(("content-length", value)) => length = value.parse().unwrap(),
                        Some(_) => {}
                        None => break,
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                send.send(Request { target, id, event: serde_json::from_slice(&body).unwrap() }).unwrap();
                let answer = next.lock().unwrap().pop_front().unwrap_or(Answer::Status("204 No Content"));
                match answer {
                    Answer::Status(status) => {
                        let head =
                            format!("HTTP/1.1 {status}\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n");
                        stream.write_all(head.as_bytes()).await.unwrap();
                    }
                    Answer::Nothing(mut end) => {
                        tokio::spawn(async move {
                            _ = end.recv().await;
                            drop(stream);
                        });
                    }
                }
            }
        });
        Receiver { url, answers, requests }
    }

    fn will(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    /// The kinds and details of the events that were received since the last call.
    fn received(&mut self) -> Vec<String> {
        let mut received = vec![];
        while let Ok(request) = self.requests.try_recv() {
            received.push(format!(
                "{} {}",
                request.event["kind"].as_str().unwrap(),
                request.event["detail"].as_str().unwrap_or("-")
            ));
        }
        received
    }
}

fn hook(name: &str, receiver: &Receiver, folder: &Path, events: &[EventKind]) -> Webhook {
    let secret_file = folder.join("secret");
    std::fs::write(&secret_file, SECRET).unwrap();
    Webhook {
        name: name.to_owned(),
        url: receiver.url.clone().try_into().unwrap(),
        events: events.to_owned(),
        secret_file,
        ca: None,
        allow_http: false,
    }
}

async fn open(folder: &TempDir, hooks: &[Webhook], clock: &Clock) -> Arc<App> {
    let mut config = Config::default();
    config.server.data_dir = folder.path().join("data");
    config.webhook = hooks.to_vec();
    App::open(&config, None, clock.clone(), Random::seeded(1)).await.unwrap()
}

fn delivering(app: &Arc<App>, name: &str) -> Delivering {
    let config = app.webhooks.iter().find(|hook| hook.name == name).unwrap();
    Delivering::new(Arc::clone(app), Hook::open(config).unwrap())
}

/// Writes an event of this kind into the audit log.
async fn happen(app: &App, kind: EventKind, detail: &str) {
    let mut event = app.audit.origin(Actor::Operator, None).event(kind);
    event.detail = Some(detail.to_owned());
    app.store.record(vec![event]).await.unwrap();
}

#[tokio::test]
async fn events_of_the_wanted_kinds_are_sent_once_through_restarts() {
    let (folder, clock, mut receiver) =
        (tempfile::tempdir().unwrap(), Clock::manual(NOW), Receiver::start().await);
    let hooks = [hook("siem", &receiver, folder.path(), &[EventKind::ClientSuspended])];
    let app = open(&folder, &hooks, &clock).await;
    happen(&app, EventKind::ClientSuspended, "before").await;
    let mut siem = delivering(&app, "siem");
    siem.look().await.unwrap();
    happen(&app, EventKind::ClientSuspended, "one").await;
    happen(&app, EventKind::ClientResumed, "two").await;
    siem.look().await.unwrap();
    siem.look().await.unwrap();
    let request = receiver.requests.recv().await.unwrap();
    assert_eq!(request.target, "POST /hook?token=canary HTTP/1.1\r\n");
    assert!(request.id.starts_with("evt_") && request.id.len() == 36, "{}", request.id);
    assert_eq!(
        (&request.event["kind"], &request.event["detail"]),
        (&"client_suspended".into(), &"one".into())
    );
    assert_eq!(receiver.received(), [""; 0]);
    happen(&app, EventKind::ClientSuspended, "while nobody sends").await;
    drop(siem);
    drop(app);
    let app = open(&folder, &hooks, &clock).await;
    delivering(&app, "siem").look().await.unwrap();
    assert_eq!(receiver.received(), ["client_suspended while nobody sends"]);
    let view = &webhooks::webhooks(&app).await.unwrap()[0];
    assert_eq!((view.lag, view.waiting, view.dead), (0, 0, 0));
    assert!(view.url.ends_with("/…") && !view.url.contains("hook"), "{view:?}");
}

#[tokio::test]
async fn what_is_not_accepted_is_sent_again_and_dead_after_the_last_attempt() {
    let (folder, clock, mut receiver) =
        (tempfile::tempdir().unwrap(), Clock::manual(NOW), Receiver::start().await);
    let hooks = [hook("siem", &receiver, folder.path(), &[EventKind::ClientSuspended])];
    let app = open(&folder, &hooks, &clock).await;
    let mut siem = delivering(&app, "siem");
    siem.look().await.unwrap();
    receiver.will(["500 Internal Server Error", "302 Found"].map(Answer::Status));
    happen(&app, EventKind::ClientSuspended, "one").await;
    siem.look().await.unwrap();
    // The pause is 3 to 5 seconds, by the service's clock.
    clock.advance(2);
    siem.look().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    clock.advance(3);
    siem.look().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(webhooks::webhooks(&app).await.unwrap()[0].waiting, 1);
    happen(&app, EventKind::ClientSuspended, "two").await;
    clock.advance(30);
    siem.look().await.unwrap();
    assert_eq!(receiver.received(), ["client_suspended two", "client_suspended one"]);
    assert_eq!(webhooks::webhooks(&app).await.unwrap()[0].waiting, 0);

    receiver.will((0..9).map(|_| Answer::Status("500 Internal Server Error")));
    happen(&app, EventKind::ClientSuspended, "three").await;
    for _ in 0..12 {
        siem.look().await.unwrap();
        clock.advance(DAY);
    }
    assert_eq!(receiver.received().len(), 9);
    let dead = webhooks::dead(&app, "siem", DeadQuery::default()).await.unwrap();
    let [dead] = &dead.deliveries[..] else { panic!("{dead:?}") };
    assert_eq!((dead.tries, dead.error.as_str()), (9, "the receiver answered 500 Internal Server Error"));
    // Somebody asks for it.
    assert!(webhooks::replay(&app, "siem", ReplayQuestion { event: Some(dead.event + 100) }).await.is_err());
    assert_eq!(webhooks::replay(&app, "siem", ReplayQuestion::default()).await.unwrap().events, 1);
    siem.look().await.unwrap();
    assert_eq!(receiver.received(), ["client_suspended three"]);
    let view = &webhooks::webhooks(&app).await.unwrap()[0];
    assert_eq!((view.waiting, view.dead), (0, 0));
}

#[tokio::test]
async fn a_replay_whose_caller_has_gone_is_in_the_audit_log() {
    let (folder, clock, receiver) =
        (tempfile::tempdir().unwrap(), Clock::manual(NOW), Receiver::start().await);
    let hooks = [hook("siem", &receiver, folder.path(), &[EventKind::ClientSuspended])];
    let app = open(&folder, &hooks, &clock).await;
    happen(&app, EventKind::ClientSuspended, "one").await;
    delivering(&app, "siem").look().await.unwrap();
    let error = "the receiver answered 500".to_owned();
    let dead = Delivery { webhook: "siem".into(), event: 1, tries: 9, next_at: None, tried_at: NOW, error };
    app.store.save_delivery(dead).await.unwrap();
    {
        let mut replay = pin!(webhooks::replay(&app, "siem", ReplayQuestion::default()));
        assert!(replay.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    // The store makes changes in their order.
    happen(&app, EventKind::ClientSuspended, "two").await;
    assert_eq!(webhooks::webhooks(&app).await.unwrap()[0].waiting, 1);
    let records = app.store.records(EventFilter::newest(10)).await.unwrap().records;
    let replayed = records.iter().find(|record| record.kind == "webhook_replayed").unwrap();
    assert_eq!(replayed.detail.as_deref(), Some("siem, 1 events"));
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW));
    let (mut slow, mut quick) = (Receiver::start().await, Receiver::start().await);
    let hooks = [hook("slow", &slow, folder.path(), &[]), hook("quick", &quick, folder.path(), &[])];
    let app = open(&folder, &hooks, &clock).await;
    for name in ["slow", "quick"] {
        delivering(&app, name).look().await.unwrap();
    }
    let (end, hangs) = mpsc::channel(1);
    slow.will([Answer::Nothing(hangs)]);
    happen(&app, EventKind::ClientRenamed, "one").await;
    let running = tokio::spawn(webhooks::run(Arc::clone(&app), webhooks::open(&app).unwrap()));
    slow.requests.recv().await.unwrap();
    assert_eq!(quick.requests.recv().await.unwrap().event["detail"], "one");
    happen(&app, EventKind::ClientRenamed, "two").await;
    assert_eq!(quick.requests.recv().await.unwrap().event["detail"], "two");
    assert!(slow.requests.try_recv().is_err());
    // It closes the connection, and gets the next event.
    drop(end);
    assert_eq!(slow.requests.recv().await.unwrap().event["detail"], "two");
    running.abort();
}

#[tokio::test]
async fn a_test_says_whether_the_receiver_has_accepted_it() {
    let (folder, clock, mut receiver) =
        (tempfile::tempdir().unwrap(), Clock::manual(NOW), Receiver::start().await);
    let hooks = [hook("siem", &receiver, folder.path(), &[])];
    let app = open(&folder, &hooks, &clock).await;
    assert!(webhooks::test(&app, "siem").await.unwrap().accepted);
    assert_eq!(receiver.received(), ["webhook_test -"]);
    receiver.will([Answer::Status("308 Permanent Redirect")]);
    let told = webhooks::test(&app, "siem").await.unwrap().error.unwrap();
    assert_eq!(told, "the receiver answered 308 Permanent Redirect, and redirects are not followed");
    std::fs::write(folder.path().join("secret"), "canary").unwrap();
    let told = webhooks::test(&app, "siem").await.unwrap_err().to_string();
    assert!(
        told.starts_with("webhook siem: secret_file: expected whsec_") && !told.contains("canary"),
        "{told}"
    );
    assert!(webhooks::test(&app, "other").await.is_err());
}
