//! A TCP proxy whose link can be cut, stalled, slowed and redirected.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// The state of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The link carries everything at once.
    Open,
    /// Connections are broken, and new ones fail.
    Cut,
    /// Connections stay open, but carry nothing in these directions. Data sent meanwhile arrive when the link opens.
    Stalled {
        /// Towards the target.
        requests: bool,
        /// From the target.
        answers: bool,
    },
    /// Every piece of data is delayed, in each direction.
    Slow(Duration),
}

/// Listens on its own port and forwards connections to the target. Ends on drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    target: SocketAddr,
    link: Link,
    /// Raised to break every present connection.
    broken: u64,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Requests,
    Answers,
}

impl State {
    fn carries(&self, direction: Direction) -> bool {
        match (self.link, direction) {
            (Link::Stalled { requests, .. }, Direction::Requests) => !requests,
            (Link::Stalled { answers, .. }, Direction::Answers) => !answers,
            _ => true,
        }
    }
}

impl Proxy {
    /// A proxy with an open link to `target`.
    ///
    /// # Errors
    ///
    /// Fails if no port can be opened.
    pub async fn start(target: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State { target, link: Link::Open, broken: 0 });
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, seen.clone()));
            }
        });
        Ok(Proxy { address, state, accepting })
    }

    /// The proxy's own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the state of the link.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| {
            state.link = link;
            state.broken += u64::from(link == Link::Cut);
        });
    }

    /// Redirects the link to another target, and breaks all present connections.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = target;
            state.broken += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_modify(|state| state.broken += 1);
    }
}

/// Forwards one connection until either end closes it or it is broken.
async fn connection(client: TcpStream, mut state: watch::Receiver<State>) {
    let State { target, link, broken } = *state.borrow_and_update();
    if link == Link::Cut {
        return;
    }
    let carry = async {
        let Ok(server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            _ = pump(from_client, to_server, Direction::Requests, state.clone()) => {}
            _ = pump(from_server, to_client, Direction::Answers, state.clone()) => {}
        }
    };
    let mut watching = state.clone();
    tokio::select! {
        () = carry => {}
        _ = watching.wait_for(|state| state.broken != broken) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        let link = state.wait_for(|state| state.carries(direction)).await.map_err(io::Error::other)?.link;
        if length == 0 {
            return Ok(());
        }
        if let Link::Slow(delay) = link {
            sleep(delay).await;
        }
        to.write_all(&piece[..length]).await?;
    }
}
