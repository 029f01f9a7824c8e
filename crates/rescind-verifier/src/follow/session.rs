//! One connection to the server's feed, from its beginning to its end.

use std::{sync::PoisonError, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
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
    let response = send(&mut connection, request).await?;
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
    let mut snapshot = None;
    loop {
        let frame = timeout(SILENCE, stream.frame()).await.map_err(|_| FeedError::Silent)?;
        let frame = frame.ok_or_else(|| FeedError::Connection("the server closed the feed".into()))?;
        let frame = frame.map_err(|e| FeedError::Connection(e.to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        for event in parser.feed(&bytes).map_err(|_| FeedError::Unreadable)? {
            apply(shared, &event, &mut snapshot)?;
        }
    }
}

fn apply(shared: &Shared, event: &Event, snapshot: &mut Option<Known>) -> Result<(), FeedError> {
    let building = |snapshot: &mut Option<Known>| snapshot.take().ok_or(FeedError::Unreadable);
    match event.name.as_str() {
        "snapshot" => *snapshot = Some(Known::begin(&data::<Hello>(event)?)?),
        "clients" => {
            let mut known = building(snapshot)?;
            known.add_clients(data::<Vec<Client>>(event)?)?;
            *snapshot = Some(known);
        }
        "sessions" => {
            let mut known = building(snapshot)?;
            known.add_ended(&data::<Vec<EndedSession>>(event)?);
            *snapshot = Some(known);
        }
        "complete" => {
            let mut complete = building(snapshot)?;
            let seq = complete.position.seq;
            let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
            // It is newer than what it replaces, and so good for at least as long.
            complete.deadline = known.as_ref().map_or(Duration::ZERO, |known| known.deadline);
            *known = Some(complete);
            drop(known);
            shared.applied.send_replace(seq);
            shared.complete.notify_one();
        }
        "change" => {
            let change = data::<Change>(event)?;
            let seq = change.seq;
            let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
            known.as_mut().ok_or(FeedError::Unreadable)?.apply(change, clock::wall())?;
            drop(known);
            shared.applied.send_replace(seq);
        }
        // Heartbeats are heard by their coming. What a later version adds cannot change a verdict.
        _ => {}
    }
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
        if let Some(known) =
            known.as_mut().filter(|k| k.position.epoch == head.epoch && k.position.seq >= head.seq)
        {
            known.deadline = known.deadline.max(asked_at + bound);
        }
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
    let body = response.into_body().collect().await.map_err(|e| FeedError::Connection(e.to_string()))?;
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
    let response =
        connection.send_request(request).await.map_err(|e| FeedError::Connection(e.to_string()))?;
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
    fn position(&self) -> Option<Position> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|known| known.position.clone())
    }
}
