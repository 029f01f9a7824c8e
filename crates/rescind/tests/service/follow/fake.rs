//! A server of a feed, controlled by a test.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::follow::PATIENCE;

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    feeds: mpsc::UnboundedReceiver<Feed>,
    answer: Arc<Mutex<String>>,
    answered: watch::Receiver<u64>,
    question: watch::Receiver<String>,
}

/// A follower's request for the feed, not answered yet.
pub(crate) struct Feed {
    pub(crate) last_event_id: Option<String>,
    stream: BufReader<TcpStream>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (feeds, coming) = mpsc::unbounded_channel();
        let (answer, (count, answered)) = (Arc::<Mutex<String>>::default(), watch::channel(0));
        let (asked, question) = watch::channel(String::new());
        let answers = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (feeds, answers) = (feeds.clone(), Arc::clone(&answers));
                let (count, asked) = (count.clone(), asked.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, feeds, answers, count, asked).await;
                });
            }
        });
        Fake { address, feeds: coming, answer, answered, question }
    }

    /// The next connection to the feed.
    pub(crate) async fn feed(&mut self) -> Feed {
        timeout(PATIENCE, self.feeds.recv()).await.expect("a follower that comes").unwrap()
    }

    /// Sets the answer to every question from now on.
    pub(crate) fn answer(&self, text: impl Into<String>) {
        *self.answer.lock().unwrap() = text.into();
    }

    /// Waits until this many more questions have been answered.
    pub(crate) async fn answered(&mut self, more: u64) {
        let target = *self.answered.borrow() + more;
        let answered = self.answered.wait_for(|&count| count >= target);
        timeout(PATIENCE, answered).await.expect("questions").unwrap();
    }

    /// Waits for a question that begins with this text.
    pub(crate) async fn asked(&mut self, beginning: &str) {
        let asked = self.question.wait_for(|question| question.starts_with(beginning));
        drop(timeout(PATIENCE, asked).await.expect(beginning).unwrap());
    }

    /// How many questions were answered.
    pub(crate) fn questions(&self) -> u64 {
        *self.answered.borrow()
    }
}

async fn serve(
    stream: TcpStream,
    feeds: mpsc::UnboundedSender<Feed>,
    answer: Arc<Mutex<String>>,
    count: watch::Sender<u64>,
    asked: watch::Sender<String>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        while stream.read_line(&mut line).await? > 2 {
            head.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        let Some(first) = head.first() else { return Ok(()) };
        let header = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.split_once(": "));
            lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        if first.starts_with("GET ") {
            let _ = feeds.send(Feed { last_event_id: header("last-event-id"), stream });
            return Ok(());
        }
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await?;
        asked.send_replace(String::from_utf8(body).unwrap());
        let answer = answer.lock().unwrap().clone();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(answer.as_bytes()).await?;
        count.send_modify(|count| *count += 1);
    }
}

impl Feed {
    /// Sends the head of the feed's answer.
    pub(crate) async fn begin(mut self) -> Feed {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        self
    }

    /// Sends bytes. The follower may have disconnected.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub(crate) async fn snapshot(&mut self, epoch: &str, seq: u64) {
        let position = format!(r#""epoch":"{epoch}","seq":{seq}"#);
        self.send(format!(
            "event: snapshot\ndata: {{{position},\"issuer\":\"i\",\"audience\":\"a\",\"keys\":[]}}\n\n\
             event: complete\nid: {epoch}:{seq}\ndata: {{{position}}}\n\n"
        ))
        .await;
    }

    /// Waits until the follower has closed the connection.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        let end =
            timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the end of the connection");
        // A connection closed with something unread is reset.
        assert!(end.is_err() || rest.is_empty());
    }
}
