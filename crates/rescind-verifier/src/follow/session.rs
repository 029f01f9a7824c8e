//! One connection to the server's feed, from its beginning to its end.

use std::{sync::PoisonError, time::Duration};

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
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    FeedError, Shared, clock,
    known::Known,
    sse::{Event, Parser},
    wire::{ACK_PATH, Ack, Change, Client, EndedSession, FEED_PATH, Hello, Position, event_id},
};

/// Servers send a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(5);
/// An answer longer than any position is none.
const MAX_ANSWER: usize = 64 * 1024;

/// Follows until something breaks, and tells what.
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

/// Applies what comes.
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

/// How far a connection's feed has come.
enum At {
    /// Nothing was said yet of where it begins.
    Beginning,
    /// Within a snapshot.
    Snapshot(Box<Known>),
    /// What is known has all that came.
    Changes,
}

fn apply(shared: &Shared, event: &Event, at: At) -> Result<At, FeedError> {
    Ok(match (event.name.as_str(), at) {
        ("snapshot", _) => At::Snapshot(Box::new(Known::begin(&data::<Hello>(event)?)?)),
        ("clients", At::Snapshot(mut known)) => {
            known.add_clients(data::<Vec<Client>>(event)?)?;
            At::Snapshot(known)
        }
        ("sessions", At::Snapshot(mut known)) => {
            known.add_ended(&data::<Vec<EndedSession>>(event)?);
            At::Snapshot(known)
        }
        ("complete", At::Snapshot(known)) if data::<Position>(event)? == known.position => {
            replace(shared, *known)?;
            At::Changes
        }
        ("resumed", At::Beginning) if shared.position() == Some(data(event)?) => At::Changes,
        ("change", At::Changes) => {
            let change = data::<Change>(event)?;
            let seq = change.seq;
            let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
            known.as_mut().ok_or(FeedError::Unreadable)?.apply(change, clock::wall())?;
            drop(known);
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
        // What a later version adds cannot change a verdict.
        (_, at) => at,
    })
}

/// Goes over to a complete snapshot.
fn replace(shared: &Shared, mut complete: Known) -> Result<(), FeedError> {
    let Position { epoch, seq } = complete.position.clone();
    let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_ref() {
        if known.position.epoch == epoch && known.position.seq > seq {
            return Err(FeedError::Gap { have: known.position.seq, got: seq });
        }
        // It is newer than what it replaces, and so good for at least as long.
        complete.deadline = known.deadline;
    }
    let replaced = known.replace(complete);
    drop(known);
    // It may be large: nobody waits for its end.
    drop(replaced);
    shared.applied.send_replace(seq);
    shared.complete.notify_one();
    Ok(())
}

/// Asks, again and again, where the head is, and extends the deadline when that has been applied.
async fn renew(shared: &Shared) -> Result<(), FeedError> {
    let bound = shared.options.bound;
    let mut connection = connect(&shared.options.server).await?;
    let mut applied = shared.applied.subscribe();
    let mut ticks = interval((bound / 5).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.complete.notified() => {}
        }
        let Some(position) = shared.position() else { continue };
        let asked_at = clock::boot();
        let head = timeout(bound, ask(shared, &mut connection, &position))
            .await
            .map_err(|_| FeedError::Silent)??;
        if head.epoch != position.epoch {
            // The server is another process than before: its snapshot is on the way.
            continue;
        }
        let caught_up = applied.wait_for(|&seq| seq >= head.seq);
        timeout(bound, caught_up).await.map_err(|_| FeedError::Silent)?.map_err(|_| FeedError::Silent)?;
        let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
        // The state that was there when the question was answered, or a newer one of the same process.
        let known_then =
            known.as_mut().filter(|k| k.position.epoch == head.epoch && k.position.seq >= head.seq);
        let Some(state) = known_then else { continue };
        state.deadline = state.deadline.max(asked_at.saturating_add(bound));
        drop(known);
        shared.status.send_replace(None);
    }
}

async fn ask(
    shared: &Shared,
    connection: &mut SendRequest<Full<Bytes>>,
    position: &Position,
) -> Result<Position, FeedError> {
    let Position { epoch, seq } = position.clone();
    let ack = Ack { epoch, seq, mode: "bounded".into() };
    let body = serde_json::to_vec(&ack).map_err(|_| FeedError::Unreadable)?;
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
    // One question follows another at once where a snapshot was completed meanwhile.
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

impl Shared {
    /// The place that the feed may go on from.
    fn position(&self) -> Option<Position> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.sound).map(|known| known.position.clone())
    }
}
