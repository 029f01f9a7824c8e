//! HTTP byte by byte, for requests that no client library would send.

use std::{io::ErrorKind, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::reply::Reply;

/// The time after which a test counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends bytes and reads every answer to them, until the server has closed the connection.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<Reply> {
    converse(TcpStream::connect(address).await.unwrap(), bytes.as_ref()).await
}

/// The only answer to these bytes.
pub(crate) async fn answer(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    only(exchange(address, bytes).await)
}

/// The only answer to a request over a Unix socket. An empty `body` means a request without a body.
pub(crate) async fn local(socket: &Path, method: &str, path: &str, body: &str) -> Reply {
    let typed = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: rescind\r\n{typed}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    only(converse(UnixStream::connect(socket).await.unwrap(), request.as_bytes()).await)
}

/// The text of the answer to a request whose body is sent only when the service has asked for it (RFC 9110 §10.1.1) and
/// `meanwhile` has happened.
pub(crate) async fn continued(
    address: SocketAddr,
    head: &str,
    meanwhile: impl AsyncFnOnce(),
    body: &str,
) -> String {
    const ASKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; ASKED.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("an answer").unwrap();
    assert_eq!(asked, ASKED);
    meanwhile().await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

fn only(mut replies: Vec<Reply>) -> Reply {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

async fn converse(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<Reply> {
    tokio::time::timeout(PATIENCE, converse_patiently(stream, bytes)).await.expect("an answer")
}

/// Asserts that no part of an answer is left when the connection is closed.
async fn converse_patiently(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<Reply> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut replies, mut received) = (Vec::new(), Vec::new());
    let mut open = true;
    // A server that refuses a request need not read the rest of it.
    let _ = writer.write_all(bytes).await;
    loop {
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer).await {
            Ok(0) => break,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            read => received.extend_from_slice(&buffer[..read.unwrap()]),
        }
        while let Some((reply, length)) = first_reply(&received) {
            received.drain(..length);
            replies.push(reply);
        }
        // Only now, for the end of the requests may be taken for the end of the conversation.
        if open && !replies.is_empty() {
            open = writer.shutdown().await.is_err();
        }
    }
    assert_eq!(String::from_utf8_lossy(&received), "", "half an answer after {replies:?}");
    replies
}

fn first_reply(received: &[u8]) -> Option<(Reply, usize)> {
    let head = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut reply = Reply::parse_head(str::from_utf8(&received[..head]).unwrap());
    let length: usize = reply.header("content-length").unwrap_or("0").parse().unwrap();
    let body = received.get(head + 4..head + 4 + length)?;
    reply.body = String::from_utf8(body.to_vec()).unwrap();
    Some((reply.checked(), head + 4 + length))
}
