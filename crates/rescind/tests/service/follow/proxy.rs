//! A network between a follower and its server, in which a test can block each direction separately.

use std::{net::SocketAddr, time::Duration};

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

/// What the network does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Nothing of the feed's stream arrives any more.
    pub(crate) hold_feed: bool,
    /// No question arrives any more.
    pub(crate) hold_questions: bool,
    /// No answer to a question arrives any more.
    pub(crate) hold_answers: bool,
    /// Every answer to a question takes this long.
    pub(crate) delay: Duration,
    /// Every connection is closed.
    pub(crate) closed: bool,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::default());
        let watched = weather.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut until, weather) = (watched.clone(), watched.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = carry(stream, server, weather) => {}
                        _ = until.wait_for(|weather| weather.closed) => {}
                    }
                });
            }
        });
        Proxy { address, weather, accepting }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn carry(
    follower: TcpStream,
    server: SocketAddr,
    weather: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    follower.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut first = [0];
    follower.peek(&mut first).await?;
    let is_feed = first == *b"G";
    let (from_follower, to_follower) = follower.into_split();
    let (from_server, to_server) = server.into_split();
    let up = weather.clone();
    tokio::select! {
        up = pump(from_follower, to_server, up, |w| w.hold_questions && !is_feed, |_| Duration::ZERO) => up,
        down = pump(
            from_server,
            to_follower,
            weather,
            |w| if is_feed { w.hold_feed } else { w.hold_answers },
            |w| if is_feed { Duration::ZERO } else { w.delay },
        ) => down,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    held: impl Fn(&Weather) -> bool,
    delay: impl Fn(&Weather) -> Duration,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let delay = delay(&weather.borrow());
        sleep(delay).await;
        let _ = weather.wait_for(|weather| !held(weather)).await;
        to.write_all(&buffer[..length]).await?;
    }
}
