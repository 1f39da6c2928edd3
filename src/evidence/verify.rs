//! Checks evidence offline: the charter chain from a fingerprint that came by another road, every signature and root,
//! and of a bundle the view that follows. A replica of its own does it, on the roads that a node takes at a start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use thiserror::Error;

use super::format::{Claim, Counts, Evidence, Item, Kind, Malformed, Reader};
use crate::replica::block::{Frame, SignedHeader, Slot};
use crate::replica::charter::{CharterChain, CharterError, SEMANTICS_MAX};
use crate::replica::ids::{BlockId, ForumId, Head, LogNo, MemberId, Origin, Seq, TimeMs};
use crate::replica::record::{self, Parsed, Statement};
use crate::replica::signed::{Keyring, VerifiedHeader, log_leaf};
use crate::replica::wrong::Rules;
use crate::replica::{Break, Effect, Replica, Restore, Settings, forks, merkle, proto};
use crate::wire::local;

/// Passes in which attestations and suspensions settle; after two a third changes nothing.
const REBUILDS_MAX: usize = 4;
/// Charters of one chain: as many as an invitation may have.
const CHARTERS_MAX: u64 = 4_096;

/// What was checked, and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The forum's name, as its charter says.
    pub forum: String,
    /// The charter in force.
    pub charter_version: u64,
    /// Items of the file; `inner` are the records that its blocks hold.
    pub counts: Counts,
    /// Signatures that hold: of charters, of the logs' openings, of headers.
    pub signatures: u64,
    /// Logs.
    pub logs: u64,
    /// Logs that a proof disputes.
    pub disputed: u64,
    /// Records of which an erasure order left the hash.
    pub erased: u64,
    /// Subjects that are listed.
    pub listed: u64,
    /// The hour and the digest of the view.
    pub view: (TimeMs, [u8; 32]),
    /// The records of a receipt.
    pub records: Vec<Shown>,
}

/// A record that a member signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its block.
    pub block: BlockId,
    /// Its number in it.
    pub index: u32,
    /// The member's name, as the newest charter that lists it says.
    pub member: String,
    /// When, by the author's clock.
    pub time: TimeMs,
    /// Its bytes; none if it was erased.
    pub record: Option<Bytes>,
    /// From which block on a proof in the receipt disputes the log.
    pub disputed_from: Option<Seq>,
    /// Members that attested that they hold the log at least up to it, with the time of their word.
    pub attested: Vec<(String, TimeMs)>,
}

/// The first thing that does not hold.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Broken {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the charters do not hold: {0}")]
    Charter(#[from] CharterError),
    #[error("{0} {1} is not encoded in the one way")]
    Encoding(&'static str, u64),
    #[error("charter {0} follows no charter, or stands twice")]
    Chain(u64),
    #[error("the charter in force is of semantics level {0}, this program knows {SEMANTICS_MAX}: it needs a newer one")]
    Level(u32),
    #[error("proof {0} does not hold, or stands in the wrong place")]
    Proof(u64),
    #[error("block {0} stands after block {1}")]
    Order(BlockId, BlockId),
    #[error(transparent)]
    Block(#[from] Break),
    #[error("a block does not stand on the chain of its log: {held} of {got} do")]
    Loose { held: u64, got: u64 },
    #[error("record {0}: {1}")]
    Record(u64, String),
    #[error("attestation {0}: {1}")]
    Attested(u64, String),
    #[error("the trailer counts {claimed} records, the blocks hold {found}")]
    Records { claimed: u64, found: u64 },
    #[error("the trailer claims the view {claimed}, the blocks give {found}")]
    View { claimed: String, found: String },
}

impl Broken {
    /// Whether the file is not whole or no evidence at all, rather than a whole file of which something does not hold.
    pub fn is_bad_file(&self) -> bool {
        matches!(self, Self::Malformed(error) if !matches!(error, Malformed::Hash | Malformed::Counts { .. }))
    }
}

/// Opens the file anew: a list with disputed logs is read more than once.
pub type Opener<'a> = dyn FnMut() -> Result<Box<dyn Read>, Malformed> + 'a;

/// Checks a file against the fingerprint of a forum. `progress` is told the items that were read.
///
/// # Errors
/// [`Broken`]: the first thing that does not hold.
pub fn verify(open: &mut Opener<'_>, forum: ForumId, progress: &mut dyn FnMut(u64)) -> Result<Checked, Broken> {
    let (what, claim) = form(open)?;
    match what {
        Evidence::Receipt => receipt(open, forum, progress),
        Evidence::Bundle => {
            let checked = derive(open, false, forum, claim.view.0, progress)?;
            if checked.counts.inner != claim.counts.inner {
                return Err(Broken::Records { claimed: claim.counts.inner, found: checked.counts.inner });
            }
            if checked.view != claim.view {
                let shown = |digest: &[u8; 32]| crate::replica::ids::hex(digest);
                return Err(Broken::View { claimed: shown(&claim.view.1), found: shown(&checked.view.1) });
            }
            Ok(checked)
        }
    }
}

/// The file's form: the claim stands at its end, and nothing is believed of a file that is not whole.
fn form(open: &mut Opener<'_>) -> Result<(Evidence, Claim), Malformed> {
    let mut reader = Reader::begin(open()?)?;
    while reader.next_item()?.is_some() {}
    let claim = reader.claim().ok_or(Malformed::Truncated)?;
    Ok((reader.what, claim))
}

/// What the charters, proofs and blocks of a bundle make at the full hour `hour`; `unfinished`: no trailer is written yet.
///
/// # Errors
/// [`Broken`].
pub fn derive(
    open: &mut Opener<'_>,
    unfinished: bool,
    forum: ForumId,
    hour: TimeMs,
    progress: &mut dyn FnMut(u64),
) -> Result<Checked, Broken> {
    let begin = |from| if unfinished { Reader::begin_unfinished(from) } else { Reader::begin(from) };
    let mut reader = begin(open()?)?;
    let (charters, mut item) = charters(&mut reader)?;
    let mut checked =
        Checked { counts: Counts { charters: charters.len() as u64, ..Counts::default() }, ..Checked::default() };
    checked.signatures = charters.iter().map(|charter| charter.sigs.len() as u64).sum();
    let mut restore = Restore::new(nobody(), forum, charters, hour)?;
    let mut proofs = ProofOrder::default();
    let mut before: Option<BlockId> = None;
    while let Some(Item { kind, bytes }) = item {
        if kind == Kind::Proof {
            checked.counts.proofs += 1;
            if !proofs.follows(&bytes, checked.counts.proofs)? || !restore.proof(&bytes) {
                return Err(Broken::Proof(checked.counts.proofs));
            }
        } else {
            checked.counts.main += 1;
            let frame = frame(&bytes, checked.counts.main)?;
            let id = frame.header.header().id;
            if let Some(before) = before.replace(id).filter(|before| *before >= id) {
                return Err(Broken::Order(id, before));
            }
            checked.counts.inner += frame.slots.len() as u64;
            checked.erased += frame.slots.iter().filter(|slot| matches!(slot, Slot::Redacted(_))).count() as u64;
            checked.signatures += 1 + u64::from(id.seq == Seq(1));
            restore.stored(id, bytes)?;
        }
        progress(checked.counts.main);
        item = reader.next_item()?;
    }
    let (mut replica, effects) = restore.finish();
    whole(&replica, &checked)?;
    if effects.iter().any(|effect| matches!(effect, Effect::Rebuild)) {
        derive_again(&mut replica, || begin(open()?), hour)?;
    }
    let charter = replica.charters().effective();
    checked.forum.clone_from(&charter.name);
    checked.charter_version = charter.version;
    checked.logs = replica.logs().len() as u64;
    checked.disputed = replica.logs().values().filter(|log| replica.proofs().fork_of(log).is_some()).count() as u64;
    checked.listed = replica.view().listed();
    checked.view = replica.view().digest();
    Ok(checked)
}

/// The charters at the head of a file, and the item after them.
fn charters<R: Read>(reader: &mut Reader<R>) -> Result<(Vec<proto::SignedCharter>, Option<Item>), Broken> {
    let mut charters = Vec::new();
    loop {
        let item = reader.next_item()?;
        let Some(Item { kind: Kind::Charter, bytes }) = item else { return Ok((charters, item)) };
        let number = charters.len() as u64 + 1;
        let charter = exactly::<proto::SignedCharter>(&bytes).ok_or(Broken::Encoding("charter", number))?;
        if number > CHARTERS_MAX {
            return Err(Broken::Chain(number));
        }
        charters.push(charter);
    }
}

/// Decodes what is encoded in the one way: other bytes would be another file with the same content.
fn exactly<M: prost::Message + Default>(bytes: &Bytes) -> Option<M> {
    M::decode(bytes.clone()).ok().filter(|message| message.encode_to_vec() == bytes[..])
}

fn frame(bytes: &Bytes, number: u64) -> Result<Frame, Broken> {
    let frame = Frame::decode(bytes.clone()).ok().filter(|frame| frame.encode() == *bytes);
    frame.ok_or(Broken::Encoding("block", number))
}

/// Proofs stand in the order of their hashes, each once.
#[derive(Default)]
struct ProofOrder(Option<[u8; 32]>);

impl ProofOrder {
    fn follows(&mut self, bytes: &Bytes, number: u64) -> Result<bool, Broken> {
        let proof = exactly::<proto::Proof>(bytes).ok_or(Broken::Encoding("proof", number))?;
        let hash = forks::proof_hash(&proof);
        Ok(self.0.replace(hash).is_none_or(|before| before < hash))
    }
}

/// Everything that was in the file is used: no charter twice, no block beside the chain of its log.
fn whole(replica: &Replica, checked: &Checked) -> Result<(), Broken> {
    let chain = replica.charters();
    if chain.version() != checked.counts.charters {
        return Err(Broken::Chain(checked.counts.charters));
    }
    if !replica.understands() {
        return Err(Broken::Level(chain.effective().semantics));
    }
    let held = replica.logs().values().map(|log| log.len().0).sum();
    if held != checked.counts.main {
        return Err(Broken::Loose { held, got: checked.counts.main });
    }
    Ok(())
}

/// As a node does when what the blocks say changes how far logs count.
fn derive_again<R: Read>(
    replica: &mut Replica,
    mut open: impl FnMut() -> Result<Reader<R>, Malformed>,
    hour: TimeMs,
) -> Result<(), Malformed> {
    let keyring = replica.keyring();
    for _ in 0..REBUILDS_MAX {
        let mut rebuild = replica.begin_rebuild(hour);
        let mut reader = open()?;
        while let Some(item) = reader.next_item()? {
            let frame = (item.kind == Kind::Block).then(|| Frame::decode(item.bytes).ok()).flatten();
            if let Some(block) = frame.and_then(|frame| keyring.verify(frame).ok()) {
                replica.rebuild(&mut rebuild, &block);
            }
        }
        if replica.finish_rebuild(&mut rebuild, hour, &mut Vec::new()) {
            break;
        }
    }
    Ok(())
}

/// Who verifies is no member: it writes nothing, and no log is its own.
fn nobody() -> Settings {
    Settings {
        me: MemberId([0; 16]),
        root: SigningKey::from_bytes(&[0; 32]),
        log_seed: [0; 32],
        seed: 0,
        rules: Rules::default(),
        instance: 0,
        moved: false,
        closed_below: LogNo(0),
        semantics_max: SEMANTICS_MAX,
    }
}

fn receipt(open: &mut Opener<'_>, forum: ForumId, progress: &mut dyn FnMut(u64)) -> Result<Checked, Broken> {
    let mut reader = Reader::begin(open()?)?;
    let (charters, mut item) = charters(&mut reader)?;
    let mut checked =
        Checked { signatures: charters.iter().map(|charter| charter.sigs.len() as u64).sum(), ..Checked::default() };
    checked.counts.charters = charters.len() as u64;
    let chain = chain(forum, charters)?;
    let keyring = Keyring::new(&chain);
    let mut proofs = ProofOrder::default();
    let mut disputed: BTreeMap<Origin, Seq> = BTreeMap::new();
    let mut latest: Option<SignedHeader> = None;
    while let Some(Item { kind, bytes }) = item {
        match kind {
            Kind::Proof => {
                checked.counts.proofs += 1;
                let number = checked.counts.proofs;
                let in_place = proofs.follows(&bytes, number)?;
                let proof = exactly(&bytes).and_then(|message| forks::verify(message, &keyring).ok());
                let proof = proof.filter(|_| in_place).ok_or(Broken::Proof(number))?;
                let from = disputed.entry(proof.origin()).or_insert(proof.seq());
                *from = proof.seq().min(*from);
            }
            Kind::Record => {
                checked.counts.main += 1;
                let wrong = |why| Broken::Record(checked.counts.main, why);
                let message = exactly(&bytes).ok_or(Broken::Encoding("record", checked.counts.main))?;
                let (header, record) = included(&message, &chain, &keyring).map_err(wrong)?;
                let block = header.header().id;
                if block.seq == Seq(0) {
                    return Err(wrong("no block has place 0".to_owned()));
                }
                checked.records.push(Shown {
                    block,
                    index: message.index,
                    member: name_of(&chain, block.origin.member),
                    time: header.header().time,
                    record,
                    disputed_from: disputed.get(&block.origin).copied(),
                    attested: Vec::new(),
                });
                latest = Some(header.signed().clone());
                checked.signatures += 2;
            }
            _ => {
                checked.counts.inner += 1;
                let number = checked.counts.inner;
                let message = exactly(&bytes).ok_or(Broken::Encoding("attestation", number))?;
                let (Some(header), Some(shown)) = (&latest, checked.records.last_mut()) else {
                    return Err(Broken::Encoding("attestation", number));
                };
                let by = attested(&message, header, &chain, &keyring).map_err(|why| Broken::Attested(number, why))?;
                shown.attested.push(by);
                checked.signatures += 2;
            }
        }
        progress(checked.counts.main);
        item = reader.next_item()?;
    }
    let charter = chain.effective();
    checked.forum.clone_from(&charter.name);
    checked.charter_version = charter.version;
    checked.erased = checked.records.iter().filter(|shown| shown.record.is_none()).count() as u64;
    let logs: BTreeSet<_> = checked.records.iter().map(|shown| shown.block.origin).collect();
    (checked.logs, checked.disputed) = (logs.len() as u64, disputed.len() as u64);
    Ok(checked)
}

fn chain(forum: ForumId, charters: Vec<proto::SignedCharter>) -> Result<CharterChain, Broken> {
    let count = charters.len() as u64;
    let mut charters = charters.into_iter();
    let first = charters.next().ok_or(Broken::Chain(1))?;
    let mut chain = CharterChain::found(forum, first)?;
    for charter in charters {
        chain.apply(charter)?;
    }
    if chain.version() == count { Ok(chain) } else { Err(Broken::Chain(count)) }
}

/// The newest charter that lists `member` says how it is called.
fn name_of(chain: &CharterChain, member: MemberId) -> String {
    let named = chain.history().filter_map(|charter| charter.member(member)).last();
    named.map_or_else(|| member.to_string(), |member| member.name.clone())
}

/// The signed header of a record, and the record unless it was erased.
fn included(
    message: &local::Inclusion,
    chain: &CharterChain,
    keyring: &Keyring,
) -> Result<(VerifiedHeader, Option<Bytes>), String> {
    let open = exactly::<proto::LogOpen>(&message.log_open).ok_or("its log's opening is not encoded in the one way")?;
    let (header, signature) = (message.header.clone(), message.signature.clone());
    let signed = proto::SignedHeader { header, signature, open: Some(open) };
    let header = keyring.verify_header(&signed).map_err(|error| error.to_string())?;
    let (of, index) = (header.header(), message.index);
    let (leaf, record) = match (message.record.is_empty(), &message.redacted_leaf[..]) {
        (false, []) => (merkle::leaf_hash(&message.record), Some(message.record.clone())),
        (true, leaf) => {
            let leaf: [u8; 32] = leaf.try_into().map_err(|_wrong| "it has neither a record nor its leaf".to_owned())?;
            let ordered =
                chain.history().any(|c| c.erasures.get(&of.id).and_then(|orders| orders.get(&index)) == Some(&leaf));
            if !ordered {
                return Err("its record is left out, and no charter orders that".to_owned());
            }
            (leaf, None)
        }
        _ => return Err("it has a record and a leaf".to_owned()),
    };
    let root = merkle::root_by_path(leaf, u64::from(index), u64::from(of.record_count), &path(&message.path)?);
    if of.flags != 0 || root != Some(of.records_root) {
        return Err(format!("record {index} is not in block {}: its path leads to another root", of.id));
    }
    Ok((header, record))
}

fn path(path: &[Bytes]) -> Result<Vec<merkle::Hash>, String> {
    let hashes = path.iter().map(|hash| hash[..].try_into().map_err(|_wrong| "a path has hashes of another length"));
    hashes.collect::<Result<_, _>>().map_err(ToOwned::to_owned)
}

/// Who attested the record under `header`, and when: the attestation is a record itself, and names that header or a later
/// one of the same log.
fn attested(
    message: &local::Attested,
    header: &SignedHeader,
    chain: &CharterChain,
    keyring: &Keyring,
) -> Result<(String, TimeMs), String> {
    let by = message.by.as_ref().ok_or("it has no record")?;
    let (said, record) = included(by, chain, keyring)?;
    let record = record.ok_or("its record was erased")?;
    let Parsed::Says(Statement::Attest { heads }) = record::parse(&record) else {
        return Err("its record attests nothing".to_owned());
    };
    let (origin, named) = (header.header().id.origin, named(message, header)?);
    let by = said.header().id.origin.member;
    if by == origin.member || !heads.contains(&(origin, named)) {
        return Err(format!("it is no other member's word on block {}", BlockId { origin, seq: named.seq }));
    }
    Ok((name_of(chain, by), said.header().time))
}

/// The head that an attestation names: the record's own header, or a later one whose tree of headers holds it.
fn named(message: &local::Attested, header: &SignedHeader) -> Result<Head, String> {
    let (own, path) = (header.head(), path(&message.path)?);
    if message.head.is_empty() {
        return if path.is_empty() { Ok(own) } else { Err("it has a path that leads nowhere".to_owned()) };
    }
    let later = SignedHeader::from_parts(&message.head, &[0; 64]).map_err(|error| error.to_string())?;
    let id = later.header().id;
    let in_one_log = later.header().forum == header.header().forum && id.origin == header.header().id.origin;
    let root = merkle::root_by_path(log_leaf(own.hash), own.seq.0 - 1, id.seq.0.saturating_sub(1), &path);
    if in_one_log && id.seq > own.seq && root == Some(later.header().log_root) {
        return Ok(later.head());
    }
    Err(format!("block {id} does not come after the record's block in its log"))
}
