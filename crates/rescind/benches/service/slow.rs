//! What slow peers cost the others.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

const SLOW: usize = 500;
const ROUNDS: usize = 10;
const EACH: usize = 10_000;
const HEALTHY: usize = 2;
/// Between two bytes of one slow connection.
const PAUSE: Duration = Duration::from_secs(1);

/// How long healthy callers wait for a verification (check 55), in turns with nobody else there and
/// with slow connections open: heads and bodies that come byte by byte, and answers that nobody reads.
pub(super) fn slow(runtime: &Runtime) {
    let store = Store::new(runtime);
    let server = Server::start(store.dir.path());
    let mut connections: Vec<_> = (0..HEALTHY).map(|_| Connection::to(&server.public)).collect();
    let (mut alone, mut beside) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        for (slow, waited) in [(0, &mut alone), (SLOW, &mut beside)] {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // With nobody to keep open it wakes as often: its share of the machine is no part of this.
                scope.spawn(|| keep_open(&server.public, slow, &over));
                waited.extend(ask(&mut connections, &store.token));
                over.store(true, Ordering::Relaxed);
            });
        }
    }
    for p in [50.0, 99.0, 99.9] {
        let (alone, beside) = (percentile(&mut alone, p), percentile(&mut beside, p));
        println!(
            "  p{p:<5} alone {alone:>9.2?}   beside {SLOW} slow connections {beside:>9.2?}   ratio {:.2}",
            beside.as_secs_f64() / alone.as_secs_f64()
        );
    }
}

/// So many slow connections; those that the server has let go of come again.
fn keep_open(address: &str, slow: usize, over: &AtomicBool) {
    let mut peers: Vec<_> = (0..slow).map(|i| Slow::open(address, i)).collect();
    for turn in (0..SLOW).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
        if let Some(peer) = peers.get_mut(turn)
            && peer.goes_on().is_err()
        {
            *peer = Slow::open(address, turn);
        }
        std::thread::park_timeout(PAUSE / SLOW as u32);
    }
}

/// How long each of many verifications took, over these connections side by side.
fn ask(connections: &mut [Connection], token: &str) -> Vec<Duration> {
    let once = |connection: &mut Connection| {
        let begun = Instant::now();
        assert!(connection.ask("/verify", token).starts_with("HTTP/1.1 200"));
        begun.elapsed()
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(move || (0..EACH).map(|_| once(connection)).collect::<Vec<_>>()))
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}

/// A connection of somebody who takes his time.
struct Slow {
    stream: TcpStream,
    byte: &'static [u8],
}

impl Slow {
    fn open(address: &str, i: usize) -> Slow {
        const LOGIN: &str = "POST /auth/login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
        let mut stream = TcpStream::connect(address).unwrap();
        let (first, byte): (String, &[u8]) = match i % 3 {
            0 => ("GET /verify HTTP/1.1\r\nX: ".into(), b"y"),
            1 => (format!("{LOGIN}Content-Length: 60000\r\n\r\n"), b" "),
            _ => ("GET /verify HTTP/1.1\r\nHost: bench\r\n\r\n".into(), b""),
        };
        stream.write_all(first.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Slow { stream, byte }
    }

    fn goes_on(&mut self) -> std::io::Result<()> {
        match self.stream.write_all(self.byte) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
    }
}
