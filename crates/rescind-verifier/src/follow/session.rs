//! One connection to the server's feed, from its beginning to its end.

use std::{collections::VecDeque, future::pending, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::SendRequest,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request,
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::{
    FeedError, Mode, Options, SILENCE, Shared, clock,
    connect::Listener,
    hold::end_refused,
    snapshot::Snapshot,
    sse::{Event, Parser},
    wire::{ACK_PATH, Ack, AckMode, Acked, Change, Client, EndedSession, FEED_PATH, Position, event_id},
};

/// How often the server is asked within the time for which one answer may be used.
const QUESTIONS: u32 = 5;
/// How often the server is asked at least, so that it learns what was counted.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The longest answer to a question, in bytes. It may have a client's whole allowlist.
const MAX_ANSWER: usize = 1024 * 1024;

/// Follows the feed over one connection. Returns why the connection ended.
pub(super) async fn run(shared: &Shared) -> FeedError {
    let followed = async {
        let stream = open(shared).await?;
        tokio::select! {
            error = read(shared, stream) => error,
            error = renew(shared) => error,
            () = settle(shared) => Ok(()),
        }
    };
    let outcome: Result<(), FeedError> = followed.await;
    outcome.err().unwrap_or(FeedError::Silent)
}

async fn open(shared: &Shared) -> Result<Incoming, FeedError> {
    let server = shared.server();
    let mut connection = shared.connector.connect(server).await?;
    let mut request = request(&shared.options, server, Method::GET, FEED_PATH);
    if let Some(position) = shared.position() {
        request = request.header("last-event-id", event_id(&position));
    }
    let response = within(SILENCE, send(&mut connection, request, Bytes::new())).await?;
    // The sender must outlive the body: dropping it would close the connection.
    tokio::spawn(async move {
        let _ = connection.ready().await;
    });
    Ok(response.into_body())
}

/// Reads the feed and applies its events.
async fn read(shared: &Shared, mut stream: Incoming) -> Result<(), FeedError> {
    let mut parser = Parser::default();
    let mut at = At::Beginning;
    loop {
        let frame = timeout(SILENCE, stream.frame()).await.map_err(|_| FeedError::Silent)?;
        let frame = frame.ok_or_else(|| FeedError::Connection("the server closed the feed".into()))?;
        let Ok(bytes) = frame.map_err(failed)?.into_data() else { continue };
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
        ("snapshot", _) => {
            At::Snapshot(Box::new(Snapshot::begin(&data(event)?, shared.options.resource.as_deref())?))
        }
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
            shared.change(|snapshots| snapshots.apply(change, clock::wall()))?;
            // Last, because this makes the change known to `settle`, and then acknowledged.
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
    let replaced = shared.change(|snapshots| snapshots.put(complete))?;
    // Without the lock, because a large snapshot takes long to drop.
    drop(replaced);
    shared.applied.send_replace(seq);
    shared.complete.notify_one();
    Ok(())
}

/// Asks again and again where the feed's head is, and extends the deadline when that head is applied.
async fn renew(shared: &Shared) -> Result<(), FeedError> {
    let mode = shared.options.mode;
    let ack_mode = match mode {
        Mode::Exact => AckMode::Exact { follower: shared.name.clone() },
        Mode::Bounded(_) => AckMode::Bounded,
    };
    let mut connection = shared.connector.connect(shared.server()).await?;
    let (mut news, mut caught_up) = (shared.settled.subscribe(), shared.applied.subscribe());
    let mut asked_at = None;
    // For how long the last answer may be used.
    let mut term = mode.patience();
    loop {
        let pause = (term / QUESTIONS).clamp(Duration::from_millis(1), REPORT_EVERY);
        let due = asked_at.map_or(Duration::ZERO, |at: Duration| at.saturating_add(pause));
        let reports = tokio::select! {
            () = sleep(due.saturating_sub(clock::boot())) => true,
            () = shared.complete.notified() => false,
            // A change was applied and has settled, and the server waits for the acknowledgement.
            _ = news.changed(), if mode == Mode::Exact => false,
        };
        // This question acknowledges every change that has settled so far.
        let settled = news.borrow_and_update().clone();
        let now = *asked_at.insert(clock::boot());
        let Some(newest) = shared.position() else { continue };
        let epoch = newest.epoch.clone();
        // For a snapshot of another server process no change has waited yet.
        let applied = settled.filter(|settled| settled.epoch == epoch).unwrap_or(newest);
        // The answer has the feed's head.
        let report = reports.then(|| shared.counts.report());
        let usage = report.as_ref().map(|report| report.counted.clone()).unwrap_or_default();
        let asked = acknowledge(shared, &mut connection, Ack { applied, mode: ack_mode.clone(), usage });
        let Acked { head, lease_ms } = within(mode.patience(), asked).await?;
        if let Some(report) = report {
            report.arrived();
        }
        term = match mode {
            Mode::Exact => Duration::from_millis(lease_ms.ok_or(FeedError::NoLease)?),
            Mode::Bounded(bound) => bound,
        };
        if head.epoch != epoch {
            // Another server process answered. Its snapshot is on the way.
            continue;
        }
        let caught_up = async {
            caught_up.wait_for(|&seq| seq >= head.seq).await.map(drop).map_err(|_| FeedError::Silent)
        };
        within(mode.patience(), caught_up).await?;
        let extended = shared.change(|snapshots| snapshots.extend(&head, now.saturating_add(term)));
        if let Ok(replaced) = extended {
            if replaced.is_some() {
                // Another state decides now.
                shared.applied.send_modify(|_| {});
            }
            shared.status.send_replace(None);
        }
    }
}

/// Lets each change be acknowledged when the connections that it ended are closed. Meanwhile the next changes end
/// theirs.
async fn settle(shared: &Shared) {
    let mut applied = shared.applied.subscribe();
    // The oldest change first: whoever acknowledges one, acknowledges those before it.
    let mut closing = VecDeque::new();
    loop {
        // Before the holds are checked, which may take a while.
        let position = shared.position();
        closing.push_back((position, end_refused(shared).await));
        loop {
            let closed = async {
                match closing.front() {
                    Some((_, ended)) => ended.closed(shared).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = closed => {
                    // Without a position, what was settled before still is: a snapshot that comes is not.
                    if let Some((Some(position), _)) = closing.pop_front() {
                        shared.settled.send_replace(Some(position));
                    }
                }
                changed = applied.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// Tells the server that this follower decides nothing any more, and what it has counted.
pub(super) async fn leave(shared: &Shared) -> Result<(), FeedError> {
    let mode = match shared.options.mode {
        Mode::Exact => AckMode::Leave { follower: shared.name.clone() },
        Mode::Bounded(_) => AckMode::Bounded,
    };
    let told = async {
        let mut report = shared.counts.report();
        if mode == AckMode::Bounded && report.counted.is_empty() {
            return Ok(());
        }
        let mut connection = shared.connector.connect(shared.server()).await?;
        loop {
            let usage = report.counted.clone();
            let ack = Ack { applied: Position::default(), mode: mode.clone(), usage };
            acknowledge(shared, &mut connection, ack).await?;
            report.arrived();
            report = shared.counts.report();
            if report.counted.is_empty() {
                return Ok(());
            }
        }
    };
    within(SILENCE, told).await
}

async fn acknowledge(
    shared: &Shared,
    connection: &mut SendRequest<Full<Bytes>>,
    ack: Ack,
) -> Result<Acked, FeedError> {
    let body = serde_json::to_vec(&ack).map_err(|_| FeedError::Unreadable)?;
    let request = request(&shared.options, shared.server(), Method::POST, ACK_PATH);
    post(connection, request.header(CONTENT_TYPE, "application/json"), body).await
}

pub(super) fn request(
    options: &Options,
    server: Listener<'_>,
    method: Method,
    path: &str,
) -> request::Builder {
    let token = format!("Bearer {}", options.token);
    Request::builder().method(method).uri(path).header(HOST, server.authority).header(AUTHORIZATION, token)
}

/// Sends a request, and reads the answer.
pub(super) async fn post<T: DeserializeOwned>(
    connection: &mut SendRequest<Full<Bytes>>,
    request: request::Builder,
    body: impl Into<Bytes>,
) -> Result<T, FeedError> {
    let response = send(connection, request, body.into()).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(failed)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| FeedError::Unreadable)
}

async fn send(
    connection: &mut SendRequest<Full<Bytes>>,
    request: request::Builder,
    body: Bytes,
) -> Result<Response<Incoming>, FeedError> {
    let request = request.body(Full::new(body)).map_err(|_| FeedError::Unreadable)?;
    // A question may follow the one before at once, if a snapshot was completed in between.
    connection.ready().await.map_err(failed)?;
    let response = connection.send_request(request).await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(FeedError::Refused(status.as_u16())),
    }
}

pub(super) fn failed(error: impl ToString) -> FeedError {
    FeedError::Connection(error.to_string())
}

pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, FeedError>>,
) -> Result<T, FeedError> {
    timeout(limit, answer).await.map_err(|_| FeedError::Silent)?
}

fn data<T: DeserializeOwned>(event: &Event) -> Result<T, FeedError> {
    serde_json::from_str(&event.data).map_err(|_| FeedError::Unreadable)
}
