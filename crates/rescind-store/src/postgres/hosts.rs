//! The hosts of the database's URL, and in which order they are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};
use tokio_postgres::{Config, config};

use super::error;
use crate::{Result, StoreError};

/// How long a host is waited for before the next one is asked as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// After this time a host that refused is asked again, while another one is still silent: it may be the primary by then.
const AGAIN: Duration = Duration::from_millis(500);

/// One address of a host.
#[derive(Clone)]
pub(super) struct Host {
    name: String,
    /// The URL, with no other host.
    pub(super) config: Config,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Finds the addresses of the host at a place in the URL.
type Lookup<'a> = BoxFuture<'a, (usize, Vec<Host>)>;

/// The hosts of a URL.
pub(super) struct Hosts {
    url: Config,
    /// The host that was connected to last is asked first.
    last: Mutex<Option<String>>,
}

impl Hosts {
    pub(super) fn of(url: &Config) -> Hosts {
        Hosts { url: url.clone(), last: Mutex::default() }
    }

    /// Returns the first connection that `open` opens to any host.
    ///
    /// No host holds up the others, as one would that accepts connections and never answers: the next one is asked
    /// after a short time, and a host that refuses is asked again while others are silent. Each host is given up when
    /// `open` ends.
    ///
    /// # Errors
    /// Fails when each host has failed once, with what each has said.
    pub(super) async fn first<'a, T>(
        &self,
        patience: Duration,
        open: impl Fn(Host) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let lookups = self.lookups(patience)?;
        self.first_of(lookups, open).await
    }

    async fn first_of<'a, T>(
        &self,
        mut lookups: FuturesUnordered<Lookup<'_>>,
        open: impl Fn(Host) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ask = |place: (usize, usize), host: Host, after| {
            let opened = open(host.clone());
            let asking = async move {
                sleep(after).await;
                (place, host, opened.await)
            };
            asking.boxed()
        };
        // By the place in the URL. The host that was connected to last goes before it.
        let mut waiting = BTreeMap::new();
        let mut silent = BTreeSet::new();
        let mut said = BTreeMap::new();
        let mut asked = FuturesUnordered::<BoxFuture<'_, ((usize, usize), Host, Result<T>)>>::new();
        while !(lookups.is_empty() && waiting.is_empty() && silent.is_empty()) {
            let is_next;
            tokio::select! {
                Some((i, found)) = lookups.next() => {
                    for (j, host) in found.into_iter().enumerate() {
                        waiting.insert((last.as_ref() != Some(&host.name), i, j), host);
                    }
                    is_next = lookups.is_empty() && asked.is_empty();
                }
                Some((place, host, outcome)) = asked.next() => match outcome {
                    Ok(opened) => {
                        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.name);
                        return Ok(opened);
                    }
                    Err(error) => {
                        silent.remove(&place);
                        said.insert(place, (host.to_string(), error));
                        asked.push(ask(place, host, AGAIN));
                        is_next = true;
                    }
                },
                () = sleep(HEAD_START), if !waiting.is_empty() => is_next = true,
            }
            if is_next && let Some(((_, i, j), host)) = waiting.pop_first() {
                silent.insert((i, j));
                asked.push(ask((i, j), host, Duration::ZERO));
            }
        }
        Err(error::of_each(said.into_values()))
    }

    /// Looks up the addresses of each host, all at once: a name that is not resolved holds up no other host. One that
    /// is not resolved within `patience`, or not at all, is left to the driver, which then says so.
    fn lookups(&self, patience: Duration) -> Result<FuturesUnordered<Lookup<'_>>> {
        let (names, addresses) = (self.url.get_hosts(), self.url.get_hostaddrs());
        let count = names.len().max(addresses.len());
        let ports = self.url.get_ports();
        let odd = |one: usize| one > 1 && one != count;
        if odd(ports.len()) || (!names.is_empty() && !addresses.is_empty() && names.len() != addresses.len())
        {
            let advice = "database.url has as many hosts as it has hostaddr or ports: name one for each";
            return Err(StoreError::Unsuitable(advice.into()));
        }
        let lookup = |i: usize| -> Lookup<'_> {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            let (host, address) = (names.get(i), addresses.get(i));
            Box::pin(async move {
                let (Some(config::Host::Tcp(name)), None) = (host, address) else {
                    return (i, vec![self.host(host, address, port)]);
                };
                let found = timeout(patience, lookup_host((name.as_str(), port))).await;
                let found: Vec<_> = found.into_iter().flatten().flatten().map(|found| found.ip()).collect();
                match found.as_slice() {
                    [] => (i, vec![self.host(host, None, port)]),
                    found => (i, found.iter().map(|at| self.host(host, Some(at), port)).collect()),
                }
            })
        };
        Ok((0..count).map(lookup).collect())
    }

    fn host(&self, name: Option<&config::Host>, address: Option<&IpAddr>, port: u16) -> Host {
        let url = &self.url;
        let mut config = Config::new();
        let shown = match (name, address) {
            (Some(config::Host::Tcp(name)), Some(at)) if *name != at.to_string() => {
                format!("{name} ({at}):{port}")
            }
            (Some(config::Host::Tcp(name)), _) => format!("{name}:{port}"),
            (Some(config::Host::Unix(folder)), _) => format!("{}:{port}", folder.display()),
            (None, address) => format!("{}:{port}", address.map(IpAddr::to_string).unwrap_or_default()),
        };
        match name {
            Some(config::Host::Tcp(name)) => _ = config.host(name),
            Some(config::Host::Unix(folder)) => _ = config.host_path(folder),
            None => {}
        }
        address.map(|address| config.hostaddr(*address));
        config.port(port);
        url.get_user().map(|user| config.user(user));
        url.get_password().map(|password| config.password(password));
        url.get_dbname().map(|name| config.dbname(name));
        url.get_options().map(|options| config.options(options));
        url.get_application_name().map(|name| config.application_name(name));
        url.get_connect_timeout().map(|limit| config.connect_timeout(*limit));
        url.get_tcp_user_timeout().map(|limit| config.tcp_user_timeout(*limit));
        config.ssl_mode(url.get_ssl_mode()).ssl_negotiation(url.get_ssl_negotiation());
        config.channel_binding(url.get_channel_binding());
        config.target_session_attrs(url.get_target_session_attrs());
        config.keepalives(url.get_keepalives()).keepalives_idle(url.get_keepalives_idle());
        url.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
        url.get_keepalives_retries().map(|retries| config.keepalives_retries(retries));
        Host { name: shown, config }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn hosts(url: &str) -> Hosts {
        Hosts::of(&url.parse().unwrap())
    }

    #[tokio::test]
    async fn a_silent_host_holds_up_no_other_and_the_last_good_one_is_asked_first() {
        let hosts = hosts("postgres://u:canary@127.0.0.1:1,127.0.0.2:2,127.0.0.3:3/x");
        let asked = AtomicUsize::new(0);
        let only = async |good: &'static str| {
            asked.store(0, Ordering::SeqCst);
            let open = |host: Host| {
                let asked = &asked;
                async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    if host.name == good { Ok(host.name) } else { pending().await }
                }
                .boxed()
            };
            (hosts.first(PATIENCE, open).await.unwrap(), asked.load(Ordering::SeqCst))
        };
        assert_eq!(only("127.0.0.3:3").await, ("127.0.0.3:3".into(), 3));
        assert_eq!(only("127.0.0.3:3").await, ("127.0.0.3:3".into(), 1));
        assert_eq!(only("127.0.0.2:2").await, ("127.0.0.2:2".into(), 3));
    }

    #[tokio::test]
    async fn a_name_that_is_not_resolved_holds_up_no_other_host() {
        let hosts = hosts("postgres://u@127.0.0.1:1/x");
        let lookups = hosts.lookups(PATIENCE).unwrap();
        lookups.push(pending().boxed());
        let open = |host: Host| async move { Ok(host.name) }.boxed();
        assert_eq!(hosts.first_of(lookups, open).await.unwrap(), "127.0.0.1:1");
    }

    #[tokio::test]
    async fn a_host_that_becomes_the_primary_is_found_while_another_one_is_silent() {
        let hosts = hosts("postgres://u@127.0.0.1:1,127.0.0.2:2/x");
        let asked = AtomicUsize::new(0);
        let open = |host: Host| {
            let asked = &asked;
            async move {
                match host.name.as_str() {
                    "127.0.0.2:2" if asked.fetch_add(1, Ordering::SeqCst) < 2 => {
                        Err(StoreError::Unavailable("a stand-by".into()))
                    }
                    "127.0.0.2:2" => Ok(()),
                    _ => pending().await,
                }
            }
            .boxed()
        };
        hosts.first(PATIENCE, open).await.unwrap();
    }

    #[tokio::test]
    async fn what_each_host_has_said_is_told() {
        let hosts = hosts("postgres://u:canary@127.0.0.1:1,127.0.0.2:2/x");
        let stand_by = || StoreError::Unsuitable("database does not allow writes".into());
        let open = |host: Host| {
            let first = host.name == "127.0.0.1:1";
            async move { Err::<(), _>(if first { stand_by() } else { StoreError::Unavailable("refused".into()) }) }.boxed()
        };
        let Err(StoreError::Unavailable(why)) = hosts.first(PATIENCE, open).await else {
            panic!("it is opened")
        };
        assert_eq!(why.to_string(), "127.0.0.1:1: database does not allow writes; 127.0.0.2:2: refused");
        let outcome = hosts.first(PATIENCE, |_| async move { Err::<(), _>(stand_by()) }.boxed()).await;
        assert!(matches!(outcome, Err(StoreError::Unsuitable(_))), "{outcome:?}");
    }
}
