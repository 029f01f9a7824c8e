//! One connection to the server's feed, from its beginning to its end.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    FeedError, Mode, SILENCE, Shared, clock,
    snapshot::Snapshot,
    sse::{Event, Parser},
    wire::{
        ACK_PATH, Ack, AckMode, Acked, Change, Client, EndedSession, FEED_PATH, Hello, Position, event_id,
    },
};

/// How often the server is asked within the time for which one answer may be used.
const QUESTIONS: u32 = 5;
/// The longest answer to an acknowledgement, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Follows the feed over one connection. Returns why the connection ended.
pub(super) async fn run(shared: &Shared) -> FeedError {
    let followed = async {
        let stream = open(shared).await?;
        tokio::select! {
            error = read(shared, stream) => error,
            error = renew(shared) => error,
        }
    };
    let outcome: Result<(), FeedError> = followed.await;
    outcome.err().unwrap_or(FeedError::Silent)
}

async fn open(shared: &Shared) -> Result<Incoming, FeedError> {
    let mut connection = connect(&shared.options.server).await?;
    let mut request = request(shared, Method::GET, FEED_PATH);
    if let Some(position) = shared.position() {
        request = request.header("last-event-id", event_id(&position));
    }
    let request = request.body(Full::default()).map_err(|_| FeedError::Unreadable)?;
    let response =
        timeout(SILENCE, send(&mut connection, request)).await.map_err(|_| FeedError::Silent)??;
    // The sender must outlive the body: dropping it would close the connection.
    let (_, body) = response.into_parts();
    tokio::spawn(async move {
        let _ = connection.ready().await;
    });
    Ok(body)
}

/// Reads the feed and applies its events.
async fn read(shared: &Shared, mut stream: Incoming) -> Result<(), FeedError> {
    let mut parser = Parser::default();
    let mut at = At::Beginning;
    loop {
        let frame = timeout(SILENCE, stream.frame()).await.map_err(|_| FeedError::Silent)?;
        let frame = frame.ok_or_else(|| FeedError::Connection("the server closed the feed".into()))?;
        let frame = frame.map_err(|e| FeedError::Connection(e.to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        for event in parser.feed(&bytes).map_err(|_| FeedError::Unreadable)? {
            at = apply(shared, &event, at)?;
        }
    }
}

/// What has arrived over a connection.
enum At {
    /// Nothing yet: the first event shows where the feed begins.
    Beginning,
    /// Parts of this snapshot have arrived.
    Snapshot(Box<Snapshot>),
    /// Everything that arrived is applied, and changes follow.
    Changes,
}

fn apply(shared: &Shared, event: &Event, at: At) -> Result<At, FeedError> {
    Ok(match (event.name.as_str(), at) {
        ("snapshot", _) => At::Snapshot(Box::new(Snapshot::begin(&data::<Hello>(event)?)?)),
        ("clients", At::Snapshot(mut snapshot)) => {
            snapshot.add_clients(data::<Vec<Client>>(event)?)?;
            At::Snapshot(snapshot)
        }
        ("sessions", At::Snapshot(mut snapshot)) => {
            snapshot.add_ended(&data::<Vec<EndedSession>>(event)?);
            At::Snapshot(snapshot)
        }
        ("complete", At::Snapshot(snapshot)) if data::<Position>(event)? == snapshot.position => {
            replace(shared, *snapshot)?;
            At::Changes
        }
        ("resumed", At::Beginning) if shared.position() == Some(data(event)?) => At::Changes,
        ("change", At::Changes) => {
            let change = data::<Change>(event)?;
            let seq = change.seq;
            shared.snapshots_mut().apply(change, clock::wall())?;
            // Last, because this makes `renew` acknowledge the change.
            shared.applied.send_replace(seq);
            At::Changes
        }
        ("heartbeat", At::Changes) => {
            let theirs = data::<Position>(event)?;
            let ours = shared.position().filter(|ours| ours.epoch == theirs.epoch);
            let ours = ours.ok_or(FeedError::Unreadable)?;
            if ours.seq != theirs.seq {
                return Err(FeedError::Gap { have: ours.seq, got: theirs.seq });
            }
            At::Changes
        }
        ("clients" | "sessions" | "complete" | "resumed" | "change" | "heartbeat", _) => {
            return Err(FeedError::Unreadable);
        }
        // An event of a later version. A later version may not add an event that changes a verdict.
        (_, at) => at,
    })
}

/// Adds a complete snapshot.
fn replace(shared: &Shared, complete: Snapshot) -> Result<(), FeedError> {
    let seq = complete.position.seq;
    let replaced = shared.snapshots_mut().put(complete)?;
    // Without the lock, because a large snapshot takes long to drop.
    drop(replaced);
    shared.applied.send_replace(seq);
    shared.complete.notify_one();
    Ok(())
}

/// Asks again and again where the feed's head is, and extends the deadline when that head is applied.
async fn renew(shared: &Shared) -> Result<(), FeedError> {
    let mode = shared.options.mode;
    let mut connection = connect(&shared.options.server).await?;
    let (mut news, mut applied) = (shared.applied.subscribe(), shared.applied.subscribe());
    let mut asked_at = None;
    // For how long the last answer may be used.
    let mut term = mode.patience();
    loop {
        let pause = (term / QUESTIONS).max(Duration::from_millis(1));
        let due = asked_at.map_or(Duration::ZERO, |at: Duration| at.saturating_add(pause));
        tokio::select! {
            () = sleep(due.saturating_sub(clock::boot())) => {}
            () = shared.complete.notified() => {}
            // A change was applied, and the server waits for the acknowledgement.
            _ = news.changed(), if mode == Mode::Exact => {}
        }
        // This question acknowledges every change applied so far.
        news.mark_unchanged();
        let now = *asked_at.insert(clock::boot());
        let Some(position) = shared.position() else { continue };
        let epoch = position.epoch.clone();
        let Acked { head, lease_ms } = timeout(mode.patience(), ask(shared, &mut connection, position))
            .await
            .map_err(|_| FeedError::Silent)??;
        term = match mode {
            Mode::Exact => Duration::from_millis(lease_ms.ok_or(FeedError::NoLease)?),
            Mode::Bounded(bound) => bound,
        };
        if head.epoch != epoch {
            // Another server process answered. Its snapshot is on the way.
            continue;
        }
        let caught_up = applied.wait_for(|&seq| seq >= head.seq);
        timeout(mode.patience(), caught_up)
            .await
            .map_err(|_| FeedError::Silent)?
            .map_err(|_| FeedError::Silent)?;
        let extended = shared.snapshots_mut().extend(&head, now.saturating_add(term));
        if extended.is_ok() {
            shared.status.send_replace(None);
        }
    }
}

/// Acknowledges the changes applied so far. The answer has the feed's head.
async fn ask(
    shared: &Shared,
    connection: &mut SendRequest<Full<Bytes>>,
    applied: Position,
) -> Result<Acked, FeedError> {
    let mode = match shared.options.mode {
        Mode::Exact => AckMode::Exact { follower: shared.name.clone() },
        Mode::Bounded(_) => AckMode::Bounded,
    };
    acknowledge(shared, connection, &Ack { applied, mode }).await
}

/// Tells the server that this follower decides nothing any more.
pub(super) async fn leave(shared: &Shared) -> Result<(), FeedError> {
    let told = async {
        let mut connection = connect(&shared.options.server).await?;
        let mode = AckMode::Leave { follower: shared.name.clone() };
        acknowledge(shared, &mut connection, &Ack { applied: Position::default(), mode }).await
    };
    timeout(SILENCE, told).await.map_err(|_| FeedError::Silent)?.map(drop)
}

async fn acknowledge(
    shared: &Shared,
    connection: &mut SendRequest<Full<Bytes>>,
    ack: &Ack,
) -> Result<Acked, FeedError> {
    let body = serde_json::to_vec(ack).map_err(|_| FeedError::Unreadable)?;
    let request = request(shared, Method::POST, ACK_PATH)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .map_err(|_| FeedError::Unreadable)?;
    let response = send(connection, request).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|e| FeedError::Connection(e.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| FeedError::Unreadable)
}

fn request(shared: &Shared, method: Method, path: &str) -> request::Builder {
    let Shared { options, .. } = shared;
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &options.server)
        .header(AUTHORIZATION, format!("Bearer {}", options.token))
}

async fn send(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, FeedError> {
    let failed = |e: hyper::Error| FeedError::Connection(e.to_string());
    // A question may follow the one before at once, if a snapshot was completed in between.
    connection.ready().await.map_err(failed)?;
    let response = connection.send_request(request).await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(FeedError::Refused(status.as_u16())),
    }
}

pub(super) async fn connect(server: &str) -> Result<SendRequest<Full<Bytes>>, FeedError> {
    let failed = |e: String| FeedError::Connection(e);
    let stream = timeout(SILENCE, TcpStream::connect(server));
    let stream = stream.await.map_err(|_| FeedError::Silent)?.map_err(|e| failed(e.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
    tokio::spawn(connection);
    Ok(requests)
}

fn data<T: DeserializeOwned>(event: &Event) -> Result<T, FeedError> {
    serde_json::from_str(&event.data).map_err(|_| FeedError::Unreadable)
}
