//! The proof of the audit log: its chains, and what the service has signed of them.

use std::collections::BTreeSet;

use data_encoding::BASE64URL_NOPAD;
use rescind_base::{
    clock::rfc3339,
    model::{ChainHash, Checkpoint, Fault, Link, Walk},
};
use rescind_node::{app::App, config::Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, invalid};

/// A question for the next part of the audit log.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditProof {
    /// The `cursor` of the answer before; without it, verification begins.
    pub cursor: Option<String>,
    /// Checkpoints that were kept elsewhere, the same in each question.
    #[serde(default)]
    pub checkpoints: Vec<CheckpointView>,
}

/// The newest row of a chain, signed with all rows before it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    pub chain: String,
    pub number: u64,
    /// In hexadecimal digits.
    pub hash: String,
    pub at: String,
    /// Ed25519, in base64url.
    pub signature: String,
}

/// The newest checkpoint of each chain.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckpointsView {
    /// The key that verifies the signatures, in base64url.
    pub public_key: String,
    pub checkpoints: Vec<CheckpointView>,
}

/// What was found in a part of the audit log.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ProofView {
    /// How many rows this part has.
    pub rows: u64,
    pub faults: Vec<FaultView>,
    /// The chain that this part ends.
    pub chain: Option<ChainView>,
    /// How many rows are older than the chains; in the first part only.
    pub unchained: Option<u64>,
    /// The cursor of the next part. None: all was verified.
    pub cursor: Option<String>,
}

/// A chain that was verified to its end.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainView {
    /// The name of the node that has written the rows.
    pub chain: String,
    /// The number of its last row.
    pub number: u64,
    /// The number of the row that the store's newest checkpoint has signed.
    pub signed: Option<u64>,
    pub signed_at: Option<String>,
}

/// Something that must not be in the audit log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    pub chain: Option<String>,
    /// The row's number in its chain; the first, if rows are missing.
    pub number: Option<u64>,
    /// The last row that is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<u64>,
    /// The row's id.
    pub id: Option<u64>,
    /// The row's time, or that of the signature.
    pub at: Option<String>,
    pub problem: AuditProblem,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditProblem {
    /// The row, or the one before, is not as it was written, or not in its place.
    Changed,
    /// Rows are missing.
    Removed,
    /// The row, or one before, is not what a checkpoint has signed.
    NotAsSigned,
    /// A checkpoint or the trace of deleted rows was not signed by this service.
    BadSignature,
    /// The row has no place in a chain.
    Unchained,
}

impl From<Checkpoint> for CheckpointView {
    fn from(Checkpoint { chain, link, at, signature }: Checkpoint) -> CheckpointView {
        CheckpointView {
            chain,
            number: link.number,
            hash: link.hash.to_text(),
            at: rfc3339(at),
            signature: BASE64URL_NOPAD.encode(&signature),
        }
    }
}

impl CheckpointView {
    fn read(self) -> Option<Checkpoint> {
        let CheckpointView { chain, number, hash, at, signature } = self;
        let link = Link { number, hash: ChainHash::parse(&hash)? };
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        Some(Checkpoint { chain, link, at: at.parse::<Time>().ok()?.seconds(), signature })
    }
}

/// Returns the newest row of each chain, signed now if it was not yet.
///
/// # Errors
///
/// If a chain does not continue its last checkpoint, or the store is unavailable.
pub async fn checkpoint(app: &App) -> Result<CheckpointsView, Error> {
    let signed = app.sign_chains().await?;
    if let Some(chain) = signed.broken.first() {
        let problem = "does not continue what was signed last, and is not signed again: verify the audit log";
        return Err(Error::Refused(format!("the chain {chain:?} {problem}")));
    }
    Ok(CheckpointsView {
        public_key: BASE64URL_NOPAD.encode(&app.audit_key().public()),
        checkpoints: signed.newest.into_iter().map(CheckpointView::from).collect(),
    })
}

/// Verifies the next part of the audit log, one chain after the other.
///
/// # Errors
///
/// If the question cannot be read, a given checkpoint is not of this service, or the store is unavailable.
pub async fn verify(app: &App, AuditProof { cursor, checkpoints }: AuditProof) -> Result<ProofView, Error> {
    let key = app.audit_key();
    let given: Option<Vec<_>> = checkpoints.into_iter().map(CheckpointView::read).collect();
    let given = given.filter(|given| given.iter().all(|checkpoint| key.has_signed(checkpoint)));
    let given = given.ok_or_else(|| {
        invalid(
            "checkpoints",
            "expected what this service has signed: another service, or somebody else, made these",
        )
    })?;
    let chains = app.store.chains().await?;
    let mut names: BTreeSet<_> = chains.newest.into_keys().collect();
    names.extend(given.iter().map(|checkpoint| checkpoint.chain.clone()));

    let mut proof = ProofView::default();
    let (name, after) = match cursor {
        Some(cursor) => {
            let known = read_cursor(&cursor).filter(|(chain, _)| names.contains(chain));
            known.ok_or_else(|| invalid("cursor", "expected that of the answer before"))?
        }
        None => {
            let unchained = app.store.unchained().await?;
            proof.unchained = Some(unchained.older);
            let fault = |(id, at)| view(None, Fault::Unchained { id, at });
            proof.faults.extend(unchained.added.into_iter().map(fault));
            match names.first() {
                Some(first) => (first.clone(), Link::default()),
                None => return Ok(proof),
            }
        }
    };
    let stored = chains.checkpoints.into_iter().find(|stored| stored.chain == name);
    let mut signed: Vec<_> = given.into_iter().filter(|given| given.chain == name).collect();
    let of_stored = stored.as_ref().map(|stored| (stored.link.number, stored.at));
    match stored {
        Some(stored) if key.has_signed(&stored) => signed.push(stored),
        Some(stored) if after.number == 0 => {
            proof.faults.push(view(Some(&name), Fault::BadSignature { number: stored.link.number }));
        }
        _ => {}
    }
    let stretch = app.store.stretch(&name, after).await?;
    let mut walk = Walk::after(after, &key, &signed);
    walk.go(&stretch);
    proof.rows = stretch.records.len() as u64;
    proof.faults.extend(walk.faults.drain(..).map(|fault| view(Some(&name), fault)));
    proof.cursor = if stretch.more {
        Some(write_cursor(&name, walk.last))
    } else {
        proof.chain = Some(ChainView {
            chain: name.clone(),
            number: walk.last.number,
            signed: of_stored.map(|(number, _)| number),
            signed_at: of_stored.map(|(_, at)| rfc3339(at)),
        });
        names.into_iter().find(|next| *next > name).map(|next| write_cursor(&next, Link::default()))
    };
    Ok(proof)
}

fn write_cursor(chain: &str, Link { number, hash }: Link) -> String {
    format!("{number}.{}.{chain}", hash.to_text())
}

fn read_cursor(text: &str) -> Option<(String, Link)> {
    let mut parts = text.splitn(3, '.');
    let number: u64 = parts.next()?.parse().ok()?;
    let hash = ChainHash::parse(parts.next()?)?;
    i64::try_from(number).ok()?;
    Some((parts.next()?.to_owned(), Link { number, hash }))
}

fn view(chain: Option<&str>, fault: Fault) -> FaultView {
    let (problem, number, last, id, at) = match fault {
        Fault::Changed { number, id, at } => (AuditProblem::Changed, Some(number), None, Some(id), Some(at)),
        Fault::Removed { first, last } => (AuditProblem::Removed, Some(first), Some(last), None, None),
        Fault::NotAsSigned { number, signed_at } => {
            (AuditProblem::NotAsSigned, Some(number), None, None, signed_at)
        }
        Fault::BadSignature { number } => (AuditProblem::BadSignature, Some(number), None, None, None),
        Fault::Unchained { id, at } => (AuditProblem::Unchained, None, None, Some(id), Some(at)),
    };
    FaultView { chain: chain.map(str::to_owned), number, last, id, at: at.map(rfc3339), problem }
}
