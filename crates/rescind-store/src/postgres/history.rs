//! Databases that have lost changes: how the loss is noticed and repaired.

use std::sync::{Arc, Mutex, PoisonError};

use rescind_base::model::{
    ChangeOrigin, Event, EventKind, Highest, Remembered, SigningKeyRecord,
    changes::{of_administrators, of_client, of_end, of_keys, of_management_token, of_verifiers},
};

use super::{
    Postgres, administrators,
    audit::{INSERT, as_json},
    changed::{ChangedRow, RECORD_CHANGE},
    clients::{UPDATE_CLIENT, all_clients, save_client, save_credential},
    connection::{Connection, Parameters},
    keys::{DELETE_KEY, DELETE_VERIFIER, KEYS, VERIFIERS, insert_key},
    management::{self, DELETE_ALL},
    place::Place,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::{Known, Mark, Position, Repeated, Result, StoreError};

const POSITION: &str = decisive!(
    "head.history, head.seq, newest.mark, known.mark AS found, lost.repeated, lost.ended,
     EXISTS (SELECT FROM change WHERE seq <= $1) AS reaches_back",
    "FROM head LEFT JOIN change AS newest ON newest.seq = head.seq
               LEFT JOIN change AS known ON known.seq = $1
               LEFT JOIN lost ON lost.history = $2"
);

/// Begins a transaction that excludes all other changes. It locks the tables before the head, as all transactions do: every
/// table that it may write.
const BEGIN_ALONE: &str = "
    BEGIN;
    LOCK TABLE client, credential, signing_key, verifier, session, administrator, sign_in, management_token, handover
        IN EXCLUSIVE MODE;
    SELECT FROM head FOR UPDATE";
/// Begins a new history, whose numbers are higher than all that are known to have been used.
const BEGIN_HISTORY: &str = "UPDATE head SET history = gen_random_uuid(), seq = greatest(seq, $1)";
const LOST: &str = "
    INSERT INTO lost (history, repeated, ended, at, client, credential, verifier, key, session)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (history) DO UPDATE SET
        repeated = greatest(lost.repeated, excluded.repeated), ended = lost.ended OR excluded.ended,
        client = excluded.client, credential = excluded.credential, verifier = excluded.verifier,
        key = excluded.key, session = excluded.session";
/// A session that was lost with its login gets a row, without a client. Otherwise verifiers would accept its tokens:
/// a signed token is valid unless its session is reported as ended.
const END_SESSIONS: &str = "
    INSERT INTO session (id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                         issued_at, access_expires_at, refresh_expires_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, 0, 0, 0, 0, '', 0, 2, 0, 0, until, until FROM unnest($1::bigint[], $2::bigint[]) AS known (id, until)
    ON CONFLICT (id) DO UPDATE SET phase = 2 WHERE session.phase <> 2 RETURNING id, client_id";
const MOVE_SESSIONS_ON: &str = "
    UPDATE session SET pair = known.pair FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS known (client, id, pair)
    WHERE session.id = known.id AND session.client_id = known.client AND session.pair < known.pair";
const DELETE_KEYS_AND_VERIFIERS: &str = "DELETE FROM signing_key; DELETE FROM verifier";
/// The most sessions in one statement.
const BATCH: usize = 10_000;

/// The newest change that this process knows of.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest(Arc<Mutex<Known>>);

impl Newest {
    pub(super) fn get(&self) -> Known {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes this change, if it is newer.
    pub(super) fn note(&self, known: Known) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.seq < known.seq {
            *newest = known;
        }
    }

    /// Takes this change, newer or not.
    pub(super) fn set(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Postgres {
    /// Returns the newest change that this process knows of: one that it has committed or has in memory.
    pub fn known(&self) -> Known {
        self.newest.get()
    }

    /// Takes this change for the newest known, if it is newer.
    pub fn note_known(&self, known: Known) {
        self.newest.note(known);
    }

    /// Takes this change for the newest known, newer or not.
    pub fn set_known(&self, known: Known) {
        self.newest.set(known);
    }

    /// Returns what the database has of this change.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn position(&self, known: &Known) -> Result<Position> {
        let mut tx = self.transaction().await?;
        let position = position(&mut tx, known).await?;
        tx.done();
        Ok(position)
    }

    /// Repeats what this process has in memory and the database at `place` has lost, up to `known`. Memory is
    /// complete up to `whole`, which is lower if changes of others before this process's own are missing. If no
    /// remaining key signs, adds `new`. `None`: others have repeated everything.
    ///
    /// # Errors
    /// Fails if the store is unavailable, or another server answers than `place`.
    pub async fn repeat(
        &self,
        place: &Place,
        known: &Known,
        whole: u64,
        memory: &Remembered,
        new: SigningKeyRecord,
        origin: &ChangeOrigin,
    ) -> Result<Option<Repeated>> {
        let mut alone = Alone::begin(self.connection_to(place).await?).await?;
        let here = position(&mut alone.db, known).await?;
        // If others have repeated the loss, this process only adds to it.
        let by_others = here.standing(known, true).is_some();
        if !by_others {
            let (history, repeated, highest) = (known.history, known.seq.min(whole), memory.highest);
            alone
                .begin_history(known.seq, &[Lost { history, repeated, ended: false, highest }], origin)
                .await?;
        }
        let clients = alone.narrow_clients(memory, origin).await?;
        let sessions = alone.move_sessions_on(memory).await?;
        let (keys, verifiers) = alone.take_back(memory, new, origin).await?;
        let repeated = Repeated { clients, sessions, keys, verifiers };
        if by_others && repeated == Repeated::default() {
            alone.roll_back().await?;
            return Ok(None);
        }
        alone.events.push(lost_event(origin, &here.head, known, &format!("repeated: {repeated}")));
        self.newest.set(alone.commit().await?);
        Ok(Some(repeated))
    }

    /// Revokes every token, because no process remembers what the database at `place` has lost up to `known`. `None`:
    /// this was done before, or a process has repeated the changes.
    ///
    /// # Errors
    /// Fails if the store is unavailable, or another server answers than `place`.
    pub async fn end_history(
        &self,
        place: &Place,
        known: &Known,
        key: SigningKeyRecord,
        origin: &ChangeOrigin,
    ) -> Result<Option<Vec<SigningKeyRecord>>> {
        let mut alone = Alone::begin(self.connection_to(place).await?).await?;
        let here = position(&mut alone.db, known).await?;
        if here.standing(known, false).is_some() {
            alone.roll_back().await?;
            return Ok(None);
        }
        alone.events.push(lost_event(origin, &here.head, known, "every token was ended"));
        let (keys, newest) = alone.end(&[*known], key, origin).await?;
        self.newest.set(newest);
        Ok(Some(keys))
    }

    pub(crate) async fn end_tokens(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let db = self.pool.manager().connect_for_long().await?;
        if !self.pool.manager().places.is_used(&db.place) {
            return Err(StoreError::Unavailable("this node has not approved of the server".into()));
        }
        let mut alone = Alone::begin(db).await?;
        // The change known here may be of another history than the database's.
        let known = self.known();
        let mut lost = vec![position(&mut alone.db, &known).await?.head];
        lost.extend(Some(known).filter(|known| known.seq > 0));
        let (keys, newest) = alone.end(&lost, key, &origin).await?;
        self.newest.set(newest);
        Ok(keys)
    }

    /// Opens a connection for long work to this server, and to no other.
    async fn connection_to(&self, place: &Place) -> Result<Connection> {
        let db = self.pool.manager().connect_for_long().await?;
        if db.place == *place {
            Ok(db)
        } else {
            Err(StoreError::Unavailable("another server has taken over meanwhile".into()))
        }
    }
}

pub(super) async fn position(db: &mut Connection, known: &Known) -> Result<Position> {
    let row = db.fetch_one(POSITION, &[&Number(known.seq), &known.history]).await?;
    Ok(Position {
        head: rows::known(&row)?,
        found: get(&row, "found")?,
        reaches_back: get(&row, "reaches_back")?,
        repeated: maybe_number(&row, "repeated")?,
        ended: get::<Option<bool>>(&row, "ended")?.unwrap_or_default(),
    })
}

/// Returns the audit log's event for a database that went back.
fn lost_event(origin: &ChangeOrigin, here: &Known, known: &Known, outcome: &str) -> Event {
    let detail = format!("change {} after {}; {outcome}", here.seq, known.seq);
    Event { detail: Some(detail), ..origin.event(EventKind::HistoryLost) }
}

/// A history of which changes were lost.
struct Lost {
    history: Mark,
    repeated: u64,
    ended: bool,
    highest: Highest,
}

/// A transaction that excludes all other changes.
struct Alone {
    db: Connection,
    warnings: u64,
    told: Vec<ChangedRow>,
    events: Vec<Event>,
}

impl Alone {
    async fn begin(db: Connection) -> Result<Alone> {
        let warnings = db.warnings();
        db.batch(BEGIN_ALONE).await?;
        Ok(Alone { db, warnings, told: vec![], events: vec![] })
    }

    async fn roll_back(self) -> Result<()> {
        self.db.batch("ROLLBACK").await?;
        self.db.done();
        Ok(())
    }

    /// Begins a new history, and reserves the ids and numbers of the lost ones.
    async fn begin_history(&mut self, seq: u64, lost: &[Lost], origin: &ChangeOrigin) -> Result<()> {
        self.db.run(BEGIN_HISTORY, &[&Number(seq)]).await?;
        // No memory has the management tokens and the administrators, and some of these may have been revoked in the changes that were lost.
        let tokens = rows::read(&self.db.fetch(DELETE_ALL, &[]).await?, management::token)?;
        self.events
            .extend(tokens.iter().map(|t| of_management_token(t, EventKind::ManagementTokenRevoked, origin)));
        let gone = self.db.fetch(administrators::DELETE_ALL, &[]).await?;
        let gone = rows::read(&gone, administrators::administrator)?;
        self.events.extend(of_administrators(&gone, &[], origin));
        self.db.batch(administrators::END_WITH_THEM).await?;
        for Lost { history, repeated, ended, highest } in lost {
            let Highest { client, credential, verifier, key, session } = highest;
            let [client, credential, verifier, key, session] =
                [client, credential, verifier, key, session].map(|&id| Number(id));
            let (repeated, at) = (Number(*repeated), Number(origin.at));
            let values: Parameters<'_> =
                &[history, &repeated, ended, &at, &client, &credential, &verifier, &key, &session];
            self.db.run(LOST, values).await?;
        }
        Ok(())
    }

    /// Commits, and returns the newest change.
    async fn commit(mut self) -> Result<Known> {
        let Alone { db, warnings, told, events } = &mut self;
        if told.is_empty() {
            // A new history must have a change of its own.
            told.push(ChangedRow::Keys);
        }
        let mut newest = Known::default();
        for what in told {
            let (kind, id, client) = what.columns();
            newest = rows::known(
                &db.fetch_one(RECORD_CHANGE, &[&kind, &id.map(Number), &client.map(Number)]).await?,
            )?;
        }
        db.run(INSERT, &[&as_json(events)]).await?;
        db.commit(*warnings).await?;
        db.done();
        Ok(newest)
    }

    async fn narrow_clients(&mut self, memory: &Remembered, origin: &ChangeOrigin) -> Result<usize> {
        let [update] = self.db.prepared([UPDATE_CLIENT]).await?;
        let mut narrowed = 0;
        for before in all_clients(&mut self.db).await? {
            let mut after = before.clone();
            memory.narrow(&mut after, origin.at);
            if after == before {
                continue;
            }
            save_client(&self.db, &update, &after).await?;
            for changed in after.credentials.iter().filter(|changed| !before.credentials.contains(changed)) {
                save_credential(&mut self.db, changed).await?;
            }
            self.events.extend(of_client(Some(&before), &after, origin));
            self.told.push(ChangedRow::Client(after.id));
            narrowed += 1;
        }
        Ok(narrowed)
    }

    /// Ends the sessions that ended in memory, and raises pair numbers so that no used refresh token is valid again.
    async fn move_sessions_on(&mut self, memory: &Remembered) -> Result<usize> {
        let mut moved = 0;
        for ended in memory.ended.chunks(BATCH) {
            let ids: Vec<_> = ended.iter().map(|ended| Number(ended.session)).collect();
            let untils: Vec<_> = ended.iter().map(|ended| Number(ended.until)).collect();
            for row in self.db.fetch(END_SESSIONS, &[&ids, &untils]).await? {
                let (client, session) = (number(&row, "client_id")?, number(&row, "id")?);
                self.told.push(ChangedRow::Session { client, session });
                moved += 1;
            }
        }
        for pairs in memory.pairs.chunks(BATCH) {
            let column =
                |of: fn(&(u64, u64, u64)) -> u64| pairs.iter().map(of).map(Number).collect::<Vec<_>>();
            let (client, session, pair) = (column(|p| p.0), column(|p| p.1), column(|p| p.2));
            moved += usize::try_from(self.db.run(MOVE_SESSIONS_ON, &[&client, &session, &pair]).await?)
                .unwrap_or(0);
        }
        Ok(moved)
    }

    /// Deletes the keys and verifiers that are revoked in memory. Returns how many of each.
    async fn take_back(
        &mut self,
        memory: &Remembered,
        new: SigningKeyRecord,
        origin: &ChangeOrigin,
    ) -> Result<(usize, usize)> {
        let before = KEYS.all(&mut self.db).await?;
        let (retired, good): (Vec<_>, Vec<_>) = before.iter().partition(|key| memory.has_retired(key));
        if !retired.is_empty() {
            for key in &retired {
                self.db.run(DELETE_KEY, &[&Number(key.id)]).await?;
            }
            if good.iter().all(|key| key.retire_at.is_some()) {
                insert_key(&mut self.db, &new).await?;
            }
            self.events.extend(of_keys(&before, &KEYS.all(&mut self.db).await?, origin));
            self.told.push(ChangedRow::Keys);
        }
        let before = VERIFIERS.all(&mut self.db).await?;
        let (revoked, good): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|verifier| memory.has_revoked(verifier));
        if !revoked.is_empty() {
            for verifier in &revoked {
                self.db.run(DELETE_VERIFIER, &[&Number(verifier.id)]).await?;
            }
            self.events.extend(of_verifiers(&before, &good, origin));
            self.told.push(ChangedRow::Verifiers);
        }
        Ok((retired.len(), revoked.len()))
    }

    /// Revokes every token, and ends the lost histories. Returns the key and the newest change.
    async fn end(
        mut self,
        lost: &[Known],
        key: SigningKeyRecord,
        origin: &ChangeOrigin,
    ) -> Result<(Vec<SigningKeyRecord>, Known)> {
        let ended = |known: &Known| Lost {
            history: known.history,
            repeated: 0,
            ended: true,
            highest: Highest::default(),
        };
        let seq = lost.iter().map(|known| known.seq).max().unwrap_or(0);
        self.begin_history(seq, &lost.iter().map(ended).collect::<Vec<_>>(), origin).await?;
        let (before, verifiers) = (KEYS.all(&mut self.db).await?, VERIFIERS.all(&mut self.db).await?);
        self.db.batch(DELETE_KEYS_AND_VERIFIERS).await?;
        insert_key(&mut self.db, &key).await?;
        let after = KEYS.all(&mut self.db).await?;
        self.events.extend(of_end(&before, &after, &verifiers, origin));
        self.told.extend([ChangedRow::Keys, ChangedRow::Verifiers]);
        Ok((after, self.commit().await?))
    }
}
