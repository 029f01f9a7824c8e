//! Administrators and their sign-ins.

use rescind_base::{
    model::{
        Administrator, ChangeOrigin, Enrolment, Proofs, SignIn, UnixSeconds, changes::of_administrators,
    },
    secret::TicketHash,
};
use tokio_postgres::Row;

use super::{
    Postgres,
    changed::ChangedRow,
    connection::{Connection, Parameters},
    keys::Table,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::{Result, guarded, values::parsed};

macro_rules! administrator {
    () => {
        "administrator.id, name, role, administrator.generation, password, totp, totp_used, enrolment_hash, \
         enrolment_until, created_at, signed_in_at"
    };
}

const ALL: &str = decisive!(administrator!(), "FROM administrator", "id");
pub(super) const DELETE_ALL: &str = concat!("DELETE FROM administrator RETURNING ", administrator!());
/// What ends with the administrators.
pub(super) const END_WITH_THEM: &str = "DELETE FROM sign_in; DELETE FROM handover";
const DELETE: &str = "DELETE FROM administrator WHERE id = $1";
const END_ALL_OF: &str = "DELETE FROM sign_in WHERE administrator = $1";
const INSERT: &str = "
    INSERT INTO administrator (name, role, generation, password, totp, totp_used, enrolment_hash, enrolment_until,
                               created_at, signed_in_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const UPDATE: &str = "
    UPDATE administrator SET name = $1, role = $2, generation = $3, password = $4, totp = $5, totp_used = $6,
        enrolment_hash = $7, enrolment_until = $8, created_at = $9, signed_in_at = $10
    WHERE id = $11";
const BEGIN_SIGN_IN: &str = "
    INSERT INTO sign_in (hash, administrator, generation, began_at, used_at) VALUES ($1, $2, $3, $4, $5)";
const SIGN_IN: &str = decisive!(
    concat!(administrator!(), ", sign_in.generation AS of_generation, began_at, used_at"),
    "FROM sign_in JOIN administrator ON administrator.id = sign_in.administrator WHERE hash = $1"
);
const SIGN_IN_USED: &str = "UPDATE sign_in SET used_at = $2 WHERE hash = $1";
const END_SIGN_IN: &str = "DELETE FROM sign_in WHERE hash = $1";
const SWEEP: &str = "DELETE FROM sign_in WHERE began_at <= $1 OR used_at <= $2";

// No node has administrators in memory. The change shows whether a database has lost this commit; older programs know its
// kind.
const ADMINISTRATORS: Table<Administrator> = Table {
    begin: "BEGIN; LOCK TABLE administrator IN SHARE ROW EXCLUSIVE MODE",
    select: ALL,
    read: administrator,
    changed: ChangedRow::Verifiers,
    events: of_administrators,
};

impl Postgres {
    pub(crate) async fn administrators(&self) -> Result<Vec<Administrator>> {
        rows::read(&self.fetch(ALL, &[]).await?, administrator)
    }

    pub(crate) async fn change_administrators<T: Send + 'static, E: Send + 'static>(
        &self,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Vec<Administrator>) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<(T, Vec<Administrator>), E>> {
        let mut tx = self.transaction().await?;
        let before = ADMINISTRATORS.begin(&mut tx).await?;
        let mut wanted = before.clone();
        let outcome = match guarded(|| rule(&mut wanted))? {
            Ok(outcome) => outcome,
            Err(refused) => {
                tx.roll_back().await?;
                return Ok(Err(refused));
            }
        };
        for gone in before.iter().filter(|was| wanted.iter().all(|kept| kept.id != was.id)) {
            tx.run(DELETE, &[&Number(gone.id)]).await?;
            tx.run(END_ALL_OF, &[&Number(gone.id)]).await?;
        }
        for changed in wanted.iter().filter(|now| !before.contains(now)) {
            save(&mut tx, changed).await?;
        }
        let after = ADMINISTRATORS.commit(tx, &before, &origin).await?;
        Ok(Ok((outcome, after)))
    }

    pub(crate) async fn begin_sign_in(&self, new: SignIn) -> Result<()> {
        let SignIn { hash, administrator, generation, began_at, used_at } = new;
        let numbers = [administrator, generation, began_at, used_at].map(Number);
        let [administrator, generation, began_at, used_at] = &numbers;
        self.write(BEGIN_SIGN_IN, &[&hash.0.as_slice(), administrator, generation, began_at, used_at]).await
    }

    pub(crate) async fn sign_in(&self, hash: TicketHash) -> Result<Option<(SignIn, Administrator)>> {
        let read = |row: &Row| {
            let administrator = administrator(row)?;
            let sign_in = SignIn {
                hash,
                administrator: administrator.id,
                generation: number(row, "of_generation")?,
                began_at: number(row, "began_at")?,
                used_at: number(row, "used_at")?,
            };
            Ok((sign_in, administrator))
        };
        Ok(rows::read(&self.fetch(SIGN_IN, &[&hash.0.as_slice()]).await?, read)?.pop())
    }

    pub(crate) async fn sign_in_used(&self, hash: TicketHash, now: UnixSeconds) -> Result<()> {
        self.write(SIGN_IN_USED, &[&hash.0.as_slice(), &Number(now)]).await
    }

    pub(crate) async fn end_sign_in(&self, hash: TicketHash) -> Result<()> {
        self.write(END_SIGN_IN, &[&hash.0.as_slice()]).await
    }

    pub(crate) async fn sweep_sign_ins(&self, began_by: UnixSeconds, used_by: UnixSeconds) -> Result<()> {
        self.write(SWEEP, &[&Number(began_by), &Number(used_by)]).await
    }
}

async fn save(db: &mut Connection, administrator: &Administrator) -> Result<()> {
    let Administrator { id, name, role, generation, proofs, totp_used, enrolment, created_at, signed_in_at } =
        administrator;
    let (role, generation, totp_used) = (role.name(), Number(*generation), Number(*totp_used));
    let (created_at, signed_in_at) = (Number(*created_at), signed_in_at.map(Number));
    let (password, totp) =
        (proofs.as_ref().map(|proofs| &proofs.password), proofs.as_ref().map(|proofs| &proofs.totp));
    let hash = enrolment.map(|enrolment| enrolment.hash.0);
    let (hash, until) =
        (hash.as_ref().map(|hash| hash.as_slice()), enrolment.map(|enrolment| Number(enrolment.until)));
    let (sql, id) = if *id == 0 { (INSERT, None) } else { (UPDATE, Some(Number(*id))) };
    let values: Parameters<'_> = &[
        name,
        &role,
        &generation,
        &password,
        &totp,
        &totp_used,
        &hash,
        &until,
        &created_at,
        &signed_in_at,
        &id,
    ];
    db.run(sql, &values[..values.len() - usize::from(id.is_none())]).await?;
    Ok(())
}

pub(super) fn administrator(row: &Row) -> Result<Administrator> {
    Ok(Administrator {
        id: number(row, "id")?,
        name: get(row, "name")?,
        role: parsed(&get::<String>(row, "role")?)?,
        generation: number(row, "generation")?,
        proofs: match (get(row, "password")?, get(row, "totp")?) {
            (Some(password), Some(totp)) => Some(Proofs { password, totp }),
            _ => None,
        },
        totp_used: number(row, "totp_used")?,
        enrolment: match maybe_number(row, "enrolment_until")? {
            Some(until) => {
                Some(Enrolment { hash: TicketHash(rows::hash_bytes(row, "enrolment_hash")?), until })
            }
            None => None,
        },
        created_at: number(row, "created_at")?,
        signed_in_at: maybe_number(row, "signed_in_at")?,
    })
}
