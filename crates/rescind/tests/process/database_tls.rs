//! A database server that refuses TLS and asks for the password in the clear.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
};

use crate::process::{Outcome, PATIENCE, run, serve};

/// A server that reports all bytes it received on each connection.
struct Greedy {
    port: u16,
    sent: Receiver<Vec<u8>>,
}

impl Greedy {
    fn start() -> Greedy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, sent) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(answer(stream.unwrap())).is_err() {
                    break;
                }
            }
        });
        Greedy { port, sent }
    }

    /// Returns the program's outcome with this server, and what the program sent to the server.
    fn tell(&self, host: &str, parameters: &str) -> (Outcome, String) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("postgres://u:canary@{host}:{}/x{parameters}", self.port);
        let outcome = run(serve(dir.path())
            .env("RESCIND_DATABASE__URL", url)
            .env("RESCIND_DATABASE__START_TIMEOUT", "0s"));
        let sent = self.sent.recv_timeout(PATIENCE).unwrap();
        (outcome, String::from_utf8_lossy(&sent).into_owned())
    }
}

/// Refuses TLS, and asks a client that goes on for the password. Returns all bytes received.
fn answer(mut stream: TcpStream) -> Vec<u8> {
    let mut sent = vec![];
    let mut message = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut message) {
        sent.extend(&message[..length]);
        let answer: &[u8] = match message[4..8] {
            [4, 210, 22, 47] => b"N",
            _ => b"R\0\0\0\x08\0\0\0\x03",
        };
        if String::from_utf8_lossy(&sent).contains("canary") || stream.write_all(answer).is_err() {
            break;
        }
    }
    sent
}

// check 110
#[test]
fn a_server_that_refuses_tls_never_gets_the_password() {
    let greedy = Greedy::start();
    // An address of this machine that is not written as one.
    for parameters in ["", "?sslmode=prefer", "?sslmode=require"] {
        let (outcome, sent) = greedy.tell("127.1", parameters);
        outcome.refused(1, "sslmode=disable");
        assert!(!outcome.stderr.contains("canary") && !outcome.stderr.contains("answer"), "{outcome:?}");
        assert_eq!(sent, "\0\0\0\x08\x04\u{fffd}\x16/", "the question for TLS alone");
    }
    // It would have taken it.
    for (host, parameters) in [("127.1", "?sslmode=disable"), ("127.0.0.1", ""), ("localhost", "")] {
        let (_, sent) = greedy.tell(host, parameters);
        assert!(sent.contains("canary"), "{host}{parameters}: {sent:?}");
    }
}
