//! The traces that a collector receives.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
};

use reqwest::header::CONTENT_LENGTH;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    api::{Api, Credential},
    process::{Server, json as cli},
};

/// A collector's address, and the bodies that it receives.
fn collector() -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || take(stream.unwrap(), &sender));
        }
    });
    (address, bodies)
}

fn take(mut stream: TcpStream, sender: &Sender<Vec<u8>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut length = 0;
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(first, "POST /v1/traces HTTP/1.1\r\n");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim().split_once(": ") {
                Some((name, value)) if CONTENT_LENGTH == name => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        sender.send(body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_request_and_its_steps_are_sent_in_the_trace_it_is_of_and_no_secret_with_them() {
    let (address, bodies) = collector();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        dir.path(),
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &address), ("OTEL_SERVICE_NAME", "tokens-of-mine")],
    );
    let credential = Credential::from_json(&cli(dir.path(), "client create --name traced"));
    let (trace, parent) = ([0xab; 16], [0xcd; 8]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let login =
        reqwest::Client::builder().no_proxy().build().unwrap().post(format!("{}/auth/login", server.url));
    let answer = login
        .header("traceparent", format!("00-{}-{}-01", hex(&trace), hex(&parent)))
        .json(&json!({ "username": credential.api_key, "password": credential.api_secret }))
        .send()
        .await
        .unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    let access = answer["data"]["access_token"].as_str().unwrap();
    assert_eq!(Api::new(&server.url).get(&format!("/verify/{access}?scope={access}")).await.0, 401);
    let (status, log) = server.stop(Signal::TERM).await;
    assert!(status.success(), "{log:#?}");

    let sent: Vec<u8> = bodies.try_iter().flatten().collect();
    for part in [&trace[..], &parent, b"tokens-of-mine", b"login", b"store", b"open_session", b"verify"] {
        assert!(holds(&sent, part), "{} was not sent", String::from_utf8_lossy(part));
    }
    for secret in [&credential.api_secret, access, answer["data"]["refresh_token"].as_str().unwrap()] {
        assert!(!holds(&sent, secret.as_bytes()), "{secret} was sent");
    }
    // What is for traces is in no log.
    assert!(!log.iter().any(|line| line.contains("open_session")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("\"login\"") && line.contains("\"id\"")), "{log:#?}");
}
