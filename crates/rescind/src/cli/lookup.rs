//! Which client, or which other id or number, an operator means.

use std::{fmt::Display, str::FromStr};

use anyhow::{Context, anyhow};
use rescind_admin::ClientView;
use rescind_base::{model::ClientId, secret};

use super::{
    Failure,
    backend::{Backend, percent_encoded},
};

/// A client by its id or its name. A number is an id, as ids are written: no name is one.
#[derive(Debug, Clone)]
pub(super) enum ClientRef {
    Id(ClientId),
    Name(String),
}

impl FromStr for ClientRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ClientRef, Self::Err> {
        // A secret in the place of a name would be shown in messages.
        if secret::shown(text) != text {
            return Err(
                "expected a client's id or name; a client with so long a word in its name has an id too",
            );
        }
        let id = text.parse::<ClientId>().ok().filter(|id| id.to_string() == text);
        Ok(id.map_or_else(|| ClientRef::Name(text.trim().to_owned()), ClientRef::Id))
    }
}

impl ClientRef {
    /// The client's id.
    pub(super) async fn id(&self, backend: &mut Backend) -> Result<ClientId, Failure> {
        match self {
            ClientRef::Id(id) => Ok(*id),
            ClientRef::Name(_) => Ok(self.find(backend).await?.client_id),
        }
    }

    /// Finds the client.
    pub(super) async fn find(&self, backend: &mut Backend) -> Result<ClientView, Failure> {
        let name = match self {
            ClientRef::Id(id) => {
                let found = backend.get(&format!("/clients/{id}")).await;
                return Ok(found.with_context(|| format!("client {id}"))?);
            }
            ClientRef::Name(name) => name,
        };
        let path = format!("/clients?name={}", percent_encoded(name));
        let mut found: Vec<ClientView> = backend.get(&path).await?;
        let alike = found.len();
        found.retain(|client| client.name == *name);
        match (found.pop(), found.as_slice()) {
            (Some(client), []) => Ok(client),
            (Some(last), others) => {
                let ids = others.iter().chain([&last]).map(|client| client.client_id.to_string());
                let ids = ids.collect::<Vec<_>>().join(", ");
                Err(anyhow!("several clients have the name {name:?}: {ids}. Name one by its id").into())
            }
            (None, _) if alike > 0 => Err(anyhow!(
                "no client has the name {name:?}; `rescind client list --name {name:?}` shows {alike} that have it in theirs"
            )
            .into()),
            (None, _) => Err(anyhow!("no client has the name {name:?}; `rescind client list` shows them").into()),
        }
    }
}

/// Reads an id. Of what is none, it says which command shows them.
pub(super) fn id(shown_by: &'static str) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| text.parse().map_err(|_| format!("expected an id: `rescind {shown_by}` shows them"))
}

/// Reads a whole number that is at least this one.
pub(super) fn at_least<T>(least: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("expected a whole number, {least} or more"))
    }
}

/// A client, in a sentence.
pub(super) fn called(client: &ClientView) -> String {
    format!("client {} \"{}\"", client.client_id, client.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_meant_by_its_id_only_where_the_id_is_written_as_ids_are() {
        assert!(matches!("2".parse(), Ok(ClientRef::Id(2))));
        for name in ["0002", "+5", " 2", "99999999999999999999", "billing"] {
            let named = name.parse();
            assert!(matches!(&named, Ok(ClientRef::Name(named)) if named == name.trim()), "{named:?}");
        }
    }
}
