//! Connections that begin with a header of the PROXY protocol.

use rescind_node::config::Config;

use crate::{app::TestApp, raw};

fn balanced(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config.server.proxy_protocol = true;
}

fn v1(source: &str) -> Vec<u8> {
    let family = if source.contains(':') { "TCP6" } else { "TCP4" };
    let destination = if source.contains(':') { "2001:db8::1" } else { "10.0.0.1" };
    format!("PROXY {family} {source} {destination} 54321 443\r\n").into()
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[10, 0, 0, 1, 0xd4, 0x31, 0x01, 0xbb]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &addresses].concat()
}

// check 63
#[tokio::test]
async fn the_caller_is_whom_the_balancer_names_whatever_a_header_says() {
    let app = TestApp::with(balanced).await;
    let client = app.client_allowed(&["203.0.113.7", "2001:db8::7", "127.0.0.2"]).await;
    let body = format!(r#"{{"username":"{}","password":"{}"}}"#, client.key, client.secret);
    let login = format!(
        "POST /auth/login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let status = async |header: Vec<u8>| {
        let reply = raw::answer(app.address, [header, login.clone().into_bytes()].concat()).await;
        if reply.status != 200 {
            reply.is_error(403, "IP address not authorized");
        }
        reply.status
    };
    assert_eq!(status(v1("203.0.113.7")).await, 200);
    assert_eq!(status(v1("2001:db8::7")).await, 200);
    assert_eq!(status(v2([203, 0, 113, 7])).await, 200);
    assert_eq!(status(v1("203.0.113.8")).await, 403);
    assert_eq!(status(v2([203, 0, 113, 8])).await, 403);
    // A caller in the balancers' own network is a caller as well.
    assert_eq!(status(v1("127.0.0.2")).await, 200);
    // A balancer that names nobody: a health check.
    assert_eq!(status(b"PROXY UNKNOWN\r\n".to_vec()).await, 403);
    // NAT64 stands for the IPv4 address in it.
    assert_eq!(status(v1("64:ff9b::cb00:7107")).await, 200);
    assert_eq!(status(v1("64:ff9b::cb00:7108")).await, 403);
}

// check 63
#[tokio::test]
async fn only_a_trusted_proxy_may_send_the_header_and_it_must() {
    let request = b"GET /verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec();
    let trusting = TestApp::with(balanced).await;
    assert!(raw::exchange(trusting.address, &request).await.is_empty());
    assert!(
        raw::exchange(trusting.address, b"PROXY TCP4 x y 1 2\r\nGET / HTTP/1.1\r\n\r\n").await.is_empty()
    );
    let distrusting = TestApp::with(|config| {
        balanced(config);
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(raw::answer(distrusting.address, &request).await.status, 401);
    let forged = [v1("203.0.113.7"), request].concat();
    assert_eq!(raw::exchange(distrusting.address, forged).await[0].status, 400);
}
