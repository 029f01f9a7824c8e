//! Stands for TLS in a build without it.

use tokio::net::TcpStream;

use super::{FeedError, Options};

#[derive(Debug)]
pub(super) struct Tls;

impl Tls {
    pub(super) fn new(_: &Options) -> Tls {
        Tls
    }

    pub(super) async fn shake(&self, _: &str, _: TcpStream) -> Result<TcpStream, FeedError> {
        let problem = "https:// needs the feature follow-tls of rescind-verifier";
        Err(FeedError::Tls(problem.into()))
    }
}
