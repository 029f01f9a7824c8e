//! How credentials are used, by hours; their last verifications; and which expiries were told of.

use std::collections::BTreeMap;

use rescind_base::model::{
    ChangeOrigin, ClientId, Counted, CredentialId, Expiring, Hours, Last, Tally, UnixSeconds,
};

use super::{
    Postgres, audit,
    rows::{self, Number, get, number},
    statements::decisive,
};
use crate::{
    Result,
    values::{USAGE_SWEPT, address_text, read_address},
};

// In the order of the key, so that no two nodes wait for each other.
const ADD_USAGE: &str = "
    INSERT INTO usage (hour, client_id, credential_id, logins, refreshes, verifications, denials)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
        AS new (hour, client, credential, logins, refreshes, verifications, denials)
    ORDER BY hour, client, credential
    ON CONFLICT (hour, client_id, credential_id) DO UPDATE
    SET logins = usage.logins + excluded.logins, refreshes = usage.refreshes + excluded.refreshes,
        verifications = usage.verifications + excluded.verifications, denials = usage.denials + excluded.denials";
const ADD_LAST: &str = "
    INSERT INTO last_verification (credential_id, at, address)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS new (credential, at, address)
    ORDER BY credential
    ON CONFLICT (credential_id) DO UPDATE SET at = excluded.at, address = excluded.address
    WHERE last_verification.at <= excluded.at";
// Each hour is looked up: between a client's rows are those of all others.
const USAGE_OF: &str = decisive!(
    "hour, logins, refreshes, verifications, denials",
    "FROM (SELECT hour, sum(logins)::bigint AS logins, sum(refreshes)::bigint AS refreshes,
                  sum(verifications)::bigint AS verifications, sum(denials)::bigint AS denials
           FROM usage
           WHERE hour = ANY (ARRAY(SELECT generate_series($1::bigint, $2::bigint - 1))) AND client_id = $3
             AND ($4::bigint IS NULL OR credential_id = $4)
           GROUP BY hour) AS hours",
    "hour"
);
const LAST_VERIFICATIONS: &str = decisive!(
    "credential_id, at, address",
    "FROM last_verification WHERE credential_id IN (SELECT id FROM credential WHERE client_id = $1)"
);
// What another node deletes is left to that node.
const SWEEP_OLD: &str = "
    DELETE FROM usage WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM usage WHERE hour < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
const SWEEP_GONE: &str = "
    DELETE FROM last_verification WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM last_verification
        WHERE NOT EXISTS (SELECT FROM credential WHERE id = credential_id) LIMIT $1 FOR UPDATE SKIP LOCKED))";
const FORGET_NOTICES: &str = "DELETE FROM expiry_notice WHERE expires_at < $1";
const NOTE: &str = "
    INSERT INTO expiry_notice (subject, id, expires_at, days)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (subject, id, expires_at, days)
    ORDER BY subject, id, expires_at, days
    ON CONFLICT DO NOTHING RETURNING subject, id, expires_at, days";

impl Postgres {
    pub(crate) async fn add_usage(&self, counted: Vec<Counted>) -> Result<()> {
        let numbers = |of: fn(&Counted) -> u64| counted.iter().map(|one| Number(of(one))).collect::<Vec<_>>();
        // One statement must not name a row twice.
        let mut last = BTreeMap::new();
        for Counted { credential, tally, .. } in counted.iter().filter(|one| one.credential != 0) {
            let newest =
                last.get(credential).copied().into_iter().chain(tally.last).max_by_key(|last| last.at);
            newest.into_iter().for_each(|newest| _ = last.insert(*credential, newest));
        }
        let credentials: Vec<_> = last.keys().map(|credential| Number(*credential)).collect();
        let at: Vec<_> = last.values().map(|last: &Last| Number(last.at)).collect();
        let addresses: Vec<_> = last.values().map(|last| address_text(last.from)).collect();
        let mut tx = self.transaction().await?;
        tx.batch("BEGIN").await?;
        tx.run(
            ADD_USAGE,
            &[
                &numbers(|one| one.hour),
                &numbers(|one| one.client),
                &numbers(|one| one.credential),
                &numbers(|one| one.tally.logins),
                &numbers(|one| one.tally.refreshes),
                &numbers(|one| one.tally.verifications),
                &numbers(|one| one.tally.denials),
            ],
        )
        .await?;
        if !credentials.is_empty() {
            tx.run(ADD_LAST, &[&credentials, &at, &addresses]).await?;
        }
        tx.commit().await
    }

    pub(crate) async fn usage_of(
        &self,
        client: ClientId,
        credential: Option<CredentialId>,
        Hours { since, until }: Hours,
    ) -> Result<Vec<(u64, Tally)>> {
        let (since, until) = (Number(since), Number(until));
        let found = self.fetch(USAGE_OF, &[&since, &until, &Number(client), &credential.map(Number)]).await?;
        rows::read(&found, |row| {
            let tally = Tally {
                logins: number(row, "logins")?,
                refreshes: number(row, "refreshes")?,
                verifications: number(row, "verifications")?,
                denials: number(row, "denials")?,
                last: None,
            };
            Ok((number(row, "hour")?, tally))
        })
    }

    pub(crate) async fn last_verifications(&self, client: ClientId) -> Result<Vec<(CredentialId, Last)>> {
        rows::read(&self.fetch(LAST_VERIFICATIONS, &[&Number(client)]).await?, |row| {
            let from = read_address(&get::<String>(row, "address")?)?;
            Ok((number(row, "credential_id")?, Last { at: number(row, "at")?, from }))
        })
    }

    pub(crate) async fn sweep_usage(&self, before: u64) -> Result<bool> {
        let mut tx = self.transaction().await?;
        let old = tx.run(SWEEP_OLD, &[&Number(before), &Number(USAGE_SWEPT)]).await?;
        let gone = tx.run(SWEEP_GONE, &[&Number(USAGE_SWEPT)]).await?;
        tx.done();
        Ok(old.max(gone) < USAGE_SWEPT)
    }

    pub(crate) async fn note_expiries(
        &self,
        expiring: Vec<Expiring>,
        over: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<Expiring>> {
        let subjects: Vec<_> = expiring.iter().map(|one| one.subject.name()).collect();
        let numbers =
            |of: fn(&Expiring) -> u64| expiring.iter().map(|one| Number(of(one))).collect::<Vec<_>>();
        let (ids, at, days) =
            (numbers(|one| one.subject.id()), numbers(|one| one.expires_at), numbers(|one| one.days));
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        tx.run(FORGET_NOTICES, &[&Number(over)]).await?;
        let noted = tx.fetch(NOTE, &[&subjects, &ids, &at, &days]).await?;
        let noted = noted
            .iter()
            .map(|row| {
                let key = (number(row, "id")?, number(row, "expires_at")?, number(row, "days")?);
                Ok((get::<String>(row, "subject")?, key))
            })
            .collect::<Result<Vec<_>>>()?;
        let is_new = |one: &Expiring| {
            let key = (one.subject.id(), one.expires_at, one.days);
            noted.iter().any(|(subject, noted)| subject == one.subject.name() && *noted == key)
        };
        let new: Vec<_> = expiring.into_iter().filter(is_new).collect();
        let events: Vec<_> = new.iter().map(|one| one.event(&origin)).collect();
        tx.commit_and_record(&record, &events).await?;
        Ok(new)
    }
}
