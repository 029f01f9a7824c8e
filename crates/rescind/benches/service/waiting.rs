//! What requests take whose bodies do not come.

use std::{path::PathBuf, thread::sleep};

use super::*;

/// Over HTTP/1.1 there is one request on each connection; over HTTP/2 there are a hundred.
const HTTP1_CONNECTIONS: usize = 900;
const HTTP2_CONNECTIONS: usize = 100;
const STREAMS: usize = 100;
const HEAD: &[u8] = b"POST /auth/login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
    Content-Length: 60\r\nExpect: 100-continue\r\n\r\n";
const ASK: &[u8] = b"GET /nowhere HTTP/1.1\r\nHost: bench\r\n\r\n";
const PING: &[u8] = b"a ping..";
/// When memory is looked at again after the last connection was closed.
const LATER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// Resident memory before a flood of heads, with them, and after it: of this program, and of the one
/// that BESIDE names.
pub(super) fn waiting(_: &Runtime) {
    let beside = std::env::var_os("BESIDE").map(PathBuf::from);
    let this = PathBuf::from(env!("CARGO_BIN_EXE_rescind"));
    for program in beside.iter().chain([&this]) {
        println!("  {}", program.display());
        flood(program, "HTTP/1.1", HTTP1_CONNECTIONS, http1);
        flood(program, "HTTP/2", HTTP2_CONNECTIONS * STREAMS, http2);
    }
}

fn flood(program: &Path, protocol: &str, requests: usize, send: fn(&Server) -> (f64, Vec<TcpStream>)) {
    let dir = tempfile::tempdir().unwrap();
    // All come from one address here. None is to be given up for its time.
    let mut settings = vec![("RESCIND_SERVER__REQUEST_TIMEOUT", "600s")];
    if program == Path::new(env!("CARGO_BIN_EXE_rescind")) {
        settings.push(("RESCIND_SERVER__MAX_REQUESTS_PER_ADDRESS", "20000"));
    }
    let server = Server::start_program(program, dir.path(), &settings);
    let begun = server.resident();
    let (connected, connections) = send(&server);
    let with = settled(&server);
    let per = |mb: f64, of: usize| mb * 1024.0 * 1024.0 / of as f64;
    println!(
        "  {protocol:<8} {begun:>5.1} MB; {} connections {connected:>6.1} ({:.0} bytes each); {requests} requests {with:>6.1} ({:.0} bytes each)",
        connections.len(),
        per(connected - begun, connections.len()),
        per(with - connected, requests),
    );
    drop(connections);
    let mut waited = Duration::ZERO;
    for later in LATER {
        sleep(later - waited);
        waited = later;
        print!("    after {later:?} {:.1} MB", server.resident());
    }
    println!();
}

/// What is resident once that no longer changes.
fn settled(server: &Server) -> f64 {
    let mut before = 0.0;
    loop {
        let now = server.resident();
        if now == before {
            return now;
        }
        before = now;
        sleep(Duration::from_secs(1));
    }
}

/// On connections of their own, on which something was answered before.
fn http1(server: &Server) -> (f64, Vec<TcpStream>) {
    let mut connections: Vec<_> = (0..HTTP1_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.public).unwrap();
            stream.write_all(ASK).unwrap();
            read_past(&mut stream, b"}}");
            stream
        })
        .collect();
    let connected = settled(server);
    for stream in &mut connections {
        stream.write_all(HEAD).unwrap();
        read_past(stream, b"100 Continue");
    }
    (connected, connections)
}

/// A hundred on each connection.
fn http2(server: &Server) -> (f64, Vec<TcpStream>) {
    let mut connections: Vec<_> = (0..HTTP2_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.public).unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            stream.write_all(&[frame(4, 0, 0, &[]), frame(6, 0, 0, PING)].concat()).unwrap();
            read_past(&mut stream, PING);
            stream
        })
        .collect();
    let connected = settled(server);
    let mut head = vec![];
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/auth/login"),
        (":authority", "bench"),
        ("content-type", "application/json"),
    ] {
        // Written out in full (RFC 7541 §6.2.2).
        head.push(0);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).unwrap());
            head.extend_from_slice(text.as_bytes());
        }
    }
    let heads: Vec<u8> = (0..STREAMS as u32).flat_map(|i| frame(1, 4, i * 2 + 1, &head)).collect();
    for stream in &mut connections {
        stream.write_all(&heads).unwrap();
    }
    (connected, connections)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn read_past(stream: &mut TcpStream, text: &[u8]) {
    let mut received = vec![];
    while !received.windows(text.len()).any(|window| window == text) {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "the server went away");
        received.extend_from_slice(&some[..read]);
    }
}
