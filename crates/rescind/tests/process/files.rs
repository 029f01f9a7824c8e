//! A server that may open only few files.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    api::{Api, ok},
    process::{Process, cli, serve},
};

/// Runs `rescind serve` under this limit of the shell. Returns the addresses on which it listens, too.
fn limited(data_dir: &Path, limit: &str) -> (Process, String, String) {
    let serve = serve(data_dir);
    let mut command = Command::new("sh");
    command.env_clear().arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\""));
    command.arg(serve.get_program()).args(serve.get_args());
    let mut process = Process::spawn(&mut command);
    let serving = process.wait_for_log("serving");
    let address = |field: &str| serving[field].as_str().unwrap().to_owned();
    let (public, management) = (address("listen"), address("management"));
    (process, public, management)
}

/// Whether a request on this connection is answered with 404.
fn is_served(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 4096];
    let asked =
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").and_then(|()| stream.read(&mut answer));
    match asked {
        Ok(read) => answer[..read].starts_with(b"HTTP/1.1 404"),
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}");
            false
        }
    }
}

#[test]
fn what_it_may_let_itself_open_it_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, public, _) = limited(dir.path(), "-S -n 100");
    let mut open: Vec<_> = (0..200).map(|_| TcpStream::connect(&public).unwrap()).collect();
    assert!(open.iter_mut().all(is_served));
}

// check 55
#[tokio::test]
async fn those_it_cannot_hold_are_refused_and_operators_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, public, management) = limited(dir.path(), "-n 300");
    let mut open: Vec<_> = (0..200).map(|_| TcpStream::connect(&public).unwrap()).collect();
    let served = open.iter_mut().filter_map(|stream| is_served(stream).then_some(())).count();
    assert_eq!(served, 100);
    assert_eq!(Api::new(&format!("http://{management}")).get("/readyz").await, ok());
    assert_eq!(cli(dir.path(), ["status"]).code, Some(0));
}

// check 55
#[tokio::test]
async fn when_no_file_is_left_it_waits_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, public, management) = limited(dir.path(), "-n 50");
    let open: Vec<_> = (0..60).map(|_| TcpStream::connect(&public).unwrap()).collect();
    process.wait_for_log("a connection could not be accepted");
    drop(open);
    assert_eq!(Api::new(&format!("http://{management}")).get("/readyz").await, ok());
    assert_eq!(cli(dir.path(), ["status"]).code, Some(0));
}
