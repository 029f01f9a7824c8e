//! A pooler that hands sessions on.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{StoreError, postgres::url::DatabaseUrl};

const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Reads a message of the protocol: its type, if it has one, its length, and the rest.
async fn message(from: &mut (impl AsyncRead + Unpin), has_type: bool) -> Vec<u8> {
    let head = usize::from(has_type);
    let mut message = vec![0; head + 4];
    from.read_exact(&mut message).await.unwrap();
    let length = u32::from_be_bytes(message[head..].try_into().unwrap()) as usize;
    message.resize(head + length, 0);
    from.read_exact(&mut message[head + 4..]).await.unwrap();
    message
}

/// Reads until the server is ready for the next query (`ReadyForQuery`).
async fn answer(from: &mut TcpStream) -> Vec<u8> {
    let mut answer = vec![];
    loop {
        let message = message(from, true).await;
        answer.extend_from_slice(&message);
        if message[0] == b'Z' {
            return answer;
        }
    }
}

/// Answers the first queries of a client by one session, and all others by a second one.
async fn hand_on(mut client: TcpStream, server: (String, u16)) {
    let mut startup = message(&mut client, false).await;
    if startup[4..] == TLS_REQUEST {
        client.write_all(b"N").await.unwrap();
        startup = message(&mut client, false).await;
    }
    let mut sessions = vec![];
    let mut greeting = vec![];
    for _ in 0..2 {
        let mut session = TcpStream::connect(&server).await.unwrap();
        session.write_all(&startup).await.unwrap();
        greeting = answer(&mut session).await;
        sessions.push(session);
    }
    client.write_all(&greeting).await.unwrap();
    // The driver asks whether the server is writable, and then the session is set up.
    for begins in ["SHOW", "SET"] {
        let query = message(&mut client, true).await;
        assert!(query[5..].starts_with(begins.as_bytes()), "{}", String::from_utf8_lossy(&query));
        sessions[0].write_all(&query).await.unwrap();
        client.write_all(&answer(&mut sessions[0]).await).await.unwrap();
    }
    let _ = copy_bidirectional(&mut client, &mut sessions[1]).await;
}

#[tokio::test]
async fn a_session_whose_warnings_are_not_heard_commits_nothing_for_sure() {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let tx = store.postgres().unwrap().transaction().await.unwrap();
    tx.batch("BEGIN; SET client_min_messages = error").await.unwrap();
    match tx.commit().await {
        Err(StoreError::Unsuitable(why)) => assert!(why.contains("pool_mode = session"), "{why}"),
        other => panic!("{other:?}"),
    }
}

// check 112
#[tokio::test]
async fn a_session_that_was_set_up_in_another_is_refused() {
    let url = Server::shared().database().await;
    let config = url.parse::<DatabaseUrl>().unwrap().config().clone();
    let server = ("127.0.0.1".to_owned(), config.get_ports()[0]);
    let pooler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = pooler.local_addr().unwrap().port();
    let pooled = url.replace(&format!(":{}/", server.1), &format!(":{port}/"));
    assert_ne!(url, pooled);
    tokio::spawn(async move {
        loop {
            let (client, _) = pooler.accept().await.unwrap();
            tokio::spawn(hand_on(client, server.clone()));
        }
    });
    match Store::connect(&options(&pooled)).await {
        Err(StoreError::Unsuitable(why)) => assert!(why.contains("pool_mode = session"), "{why}"),
        other => panic!("{other:?}"),
    }
}
