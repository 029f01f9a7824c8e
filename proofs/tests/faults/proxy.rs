use std::time::Duration;

use rescind_proofs::faults::{Link, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than a link that is open takes, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to see what arrives at once.
const A_WHILE: Duration = Duration::from_millis(200);

/// Answers every byte with this one.
async fn answering(answer: u8) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                while connection.read_u8().await.is_ok() && connection.write_u8(answer).await.is_ok() {}
            });
        }
    });
    address
}

/// The answer to one byte; `None` if the connection is broken.
async fn ask(connection: &mut TcpStream) -> Option<u8> {
    connection.write_u8(0).await.ok()?;
    timeout(PATIENCE, connection.read_u8()).await.expect("no answer and no end").ok()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

#[tokio::test]
async fn an_open_link_carries() {
    let proxy = Proxy::start(answering(1).await).await.unwrap();
    let mut connection = connect(&proxy).await;
    assert_eq!(ask(&mut connection).await, Some(1));
    assert_eq!(ask(&mut connection).await, Some(1));
}

#[tokio::test]
async fn a_cut_link_breaks_connections_and_makes_none() {
    let proxy = Proxy::start(answering(1).await).await.unwrap();
    let mut connection = connect(&proxy).await;
    assert_eq!(ask(&mut connection).await, Some(1));
    proxy.set(Link::Cut);
    assert_eq!(ask(&mut connection).await, None);
    assert_eq!(ask(&mut connect(&proxy).await).await, None);
    proxy.set(Link::Open);
    assert_eq!(ask(&mut connect(&proxy).await).await, Some(1));
}

#[tokio::test]
async fn a_stalled_link_keeps_what_was_sent() {
    for link in [
        Link::Stalled { requests: true, answers: false },
        Link::Stalled { requests: false, answers: true },
        Link::Stalled { requests: true, answers: true },
    ] {
        let proxy = Proxy::start(answering(1).await).await.unwrap();
        let mut connection = connect(&proxy).await;
        assert_eq!(ask(&mut connection).await, Some(1));
        proxy.set(link);
        connection.write_u8(0).await.unwrap();
        assert!(timeout(A_WHILE, connection.read_u8()).await.is_err(), "{link:?}");
        proxy.set(Link::Open);
        assert_eq!(timeout(PATIENCE, connection.read_u8()).await.unwrap().unwrap(), 1);
    }
}

#[tokio::test]
async fn a_slow_link_takes_its_time_both_ways() {
    let proxy = Proxy::start(answering(1).await).await.unwrap();
    let mut connection = connect(&proxy).await;
    proxy.set(Link::Slow(A_WHILE));
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&mut connection).await, Some(1));
    assert!(began.elapsed() >= 2 * A_WHILE);
}

#[tokio::test]
async fn led_elsewhere_it_leads_nobody_to_where_it_led() {
    let proxy = Proxy::start(answering(1).await).await.unwrap();
    let mut connection = connect(&proxy).await;
    assert_eq!(ask(&mut connection).await, Some(1));
    proxy.lead_to(answering(2).await);
    assert_eq!(ask(&mut connection).await, None);
    assert_eq!(ask(&mut connect(&proxy).await).await, Some(2));
}
