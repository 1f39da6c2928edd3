//! Takes evidence out of a store: the chains that a replica holds, or some records with the path from each to its
//! signature and with whoever attested them.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::format::Kind;
use crate::replica::block::{Frame, SignedHeader, Slot};
use crate::replica::ids::{BlockId, Head, HeaderHash, MemberId, Origin, Seq, TimeMs};
use crate::replica::record::{self, Parsed, Statement};
use crate::replica::signed::log_leaf;
use crate::replica::{Replica, merkle, proto};
use crate::store::{Store, StoreError};
use crate::wire::local;

/// Records of one receipt: as many as a submission has.
pub const RECORDS_MAX: usize = 512;

/// What a replica held at one moment; the store has at least that.
pub struct Holding {
    charters: Vec<proto::SignedCharter>,
    proofs: BTreeMap<[u8; 32], (Option<Origin>, Vec<u8>)>,
    heads: BTreeMap<Origin, Head>,
    openings: BTreeMap<Origin, proto::LogOpen>,
    /// The hour of the view, and its digest unless the list is being derived again.
    pub view: (TimeMs, Option<[u8; 32]>),
}

impl Holding {
    /// What `replica` holds at `now`.
    pub fn of(replica: &Replica, now: TimeMs) -> Self {
        let pulse = replica.pulse(now);
        let proofs = replica.proofs_beyond(&BTreeSet::new()).into_iter().map(|message| {
            let hash = crate::replica::forks::proof_hash(&message);
            let origin = replica.proofs().iter().find(|proof| proof.hash() == hash).map(|proof| proof.origin());
            (hash, (origin, message.encode_to_vec()))
        });
        let logs = replica.logs();
        Self {
            charters: replica.charters().from(1).iter().map(|(signed, _)| signed.clone()).collect(),
            proofs: proofs.collect(),
            heads: logs.iter().filter_map(|(origin, log)| Some((*origin, log.durable_head()?))).collect(),
            openings: logs.iter().map(|(origin, log)| (*origin, log.opening().message.clone())).collect(),
            view: (pulse.view_hour, pulse.view_digest.filter(|_| !replica.is_counting())),
        }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.heads.values().map(|head| head.seq.0).sum()
    }

    fn head(&self, origin: Origin) -> Seq {
        self.heads.get(&origin).map_or(Seq(0), |head| head.seq)
    }
}

/// Why nothing could be taken out.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("block {0} is not in the store")]
    Gone(BlockId),
    #[error("the log of block {0} changed while it was read; try again")]
    Moved(BlockId),
    #[error("block {0} is not held here")]
    NotHeld(BlockId),
    #[error("block {block} has {records} records, got record {index}")]
    NoRecord { block: BlockId, records: usize, index: u32 },
    #[error("nobody takes what is exported any more")]
    Stopped,
}

/// Where items go; `false` ends it.
pub type Sink<'a> = dyn FnMut(Kind, Vec<u8>) -> bool + 'a;

/// The whole list: charters, proofs, and the blocks of every chain held, in the order of the file.
///
/// # Errors
/// [`ExportError`]; some items were handed over then.
pub fn bundle(holding: &Holding, store: &Store, sink: &mut Sink<'_>) -> Result<(), ExportError> {
    charters(holding, sink)?;
    for (_, bytes) in holding.proofs.values() {
        put(sink, Kind::Proof, bytes.clone())?;
    }
    let mut last: Option<BlockId> = None;
    let mut hash = HeaderHash::ZERO;
    let mut outcome = Ok(());
    store.for_each_block(|id, bytes| {
        if id.seq > holding.head(id.origin) {
            return ControlFlow::Continue(()); // came since, or evidence beside the chain that counts
        }
        outcome = follow(holding, &mut last, &mut hash, id, bytes).and_then(|frame| put(sink, Kind::Block, frame));
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome?;
    complete(holding, last, None)
}

fn put(sink: &mut Sink<'_>, kind: Kind, bytes: Vec<u8>) -> Result<(), ExportError> {
    if sink(kind, bytes) { Ok(()) } else { Err(ExportError::Stopped) }
}

fn charters(holding: &Holding, sink: &mut Sink<'_>) -> Result<(), ExportError> {
    holding.charters.iter().try_for_each(|charter| put(sink, Kind::Charter, charter.encode_to_vec()))
}

/// The block's bytes, if it goes on where the one before ended, and ends at the head where it should.
fn follow(
    holding: &Holding,
    last: &mut Option<BlockId>,
    hash: &mut HeaderHash,
    id: BlockId,
    bytes: &[u8],
) -> Result<Vec<u8>, ExportError> {
    let frame = Frame::decode(Bytes::copy_from_slice(bytes)).map_err(|_damaged| ExportError::Gone(id))?;
    let same = last.filter(|last| last.origin == id.origin);
    if same.is_none() {
        complete(holding, *last, Some(id.origin))?;
        *hash = HeaderHash::ZERO;
    }
    if id.seq != same.map_or(Seq(0), |last| last.seq).next() {
        return Err(ExportError::Gone(id));
    }
    if frame.header.header().prev != *hash {
        return Err(ExportError::Moved(id));
    }
    *hash = frame.header.hash();
    *last = Some(id);
    let head = holding.heads.get(&id.origin).filter(|head| head.seq == id.seq);
    if head.is_some_and(|head| head.hash != *hash) {
        return Err(ExportError::Moved(id));
    }
    Ok(frame.encode().to_vec())
}

/// No log and no end of a log is missing between `last` and the first block of `next`.
fn complete(holding: &Holding, last: Option<BlockId>, next: Option<Origin>) -> Result<(), ExportError> {
    let behind = holding.heads.iter().find(|(origin, head)| {
        let reached = last.filter(|last| last.origin == **origin).map_or(Seq(0), |last| last.seq);
        let due = next.is_none_or(|next| **origin < next) && last.is_none_or(|last| **origin >= last.origin);
        due && reached < head.seq
    });
    behind.map_or(Ok(()), |(origin, head)| Err(ExportError::Gone(BlockId { origin: *origin, seq: head.seq })))
}

/// Records at these places, each with the first word of every other member that attested it, and the proofs that dispute
/// their logs.
///
/// # Errors
/// [`ExportError`]; nothing was handed over if a record is not there.
pub fn receipt(
    holding: &Holding,
    store: &Store,
    places: &[(BlockId, u32)],
    sink: &mut Sink<'_>,
) -> Result<(), ExportError> {
    let mut records = Vec::new();
    for (block, index) in places {
        let frame = block_of(holding, store, *block)?;
        records.push((frame.header.clone(), inclusion(holding, &frame, *block, *index)?));
    }
    let attested = attestations(holding, store, &records)?;
    charters(holding, sink)?;
    let logs: BTreeSet<_> = places.iter().map(|(block, _)| Some(block.origin)).collect();
    for (_, bytes) in holding.proofs.values().filter(|(origin, _)| origin.is_some() && logs.contains(origin)) {
        put(sink, Kind::Proof, bytes.clone())?;
    }
    for ((_, record), attested) in records.iter().zip(attested) {
        put(sink, Kind::Record, record.encode_to_vec())?;
        attested.values().try_for_each(|word| put(sink, Kind::Attested, word.encode_to_vec()))?;
    }
    Ok(())
}

fn block_of(holding: &Holding, store: &Store, id: BlockId) -> Result<Frame, ExportError> {
    if id.seq == Seq(0) || id.seq > holding.head(id.origin) {
        return Err(ExportError::NotHeld(id));
    }
    let bytes = store.block(id)?.ok_or(ExportError::Gone(id))?;
    Frame::decode(bytes.into()).map_err(|_damaged| ExportError::Gone(id))
}

fn inclusion(holding: &Holding, frame: &Frame, id: BlockId, index: u32) -> Result<local::Inclusion, ExportError> {
    let records = frame.slots.len();
    let slot = usize::try_from(index).ok().and_then(|at| frame.slots.get(at));
    let slot = slot.ok_or(ExportError::NoRecord { block: id, records, index })?;
    let leaves: Vec<_> = frame.slots.iter().map(Slot::leaf).collect();
    let path = merkle::inclusion_paths(&leaves).swap_remove(index as usize);
    let open = holding.openings.get(&id.origin).ok_or(ExportError::NotHeld(id))?;
    let (record, leaf) = match slot {
        Slot::Record(record) => (record.clone(), Bytes::new()),
        Slot::Redacted(leaf) => (Bytes::new(), leaf.to_vec().into()),
    };
    Ok(local::Inclusion {
        header: Bytes::copy_from_slice(frame.header.bytes()),
        signature: Bytes::copy_from_slice(frame.header.signature()),
        log_open: open.encode_to_vec().into(),
        index,
        record,
        redacted_leaf: leaf,
        path: path.iter().map(|hash| hash.to_vec().into()).collect(),
    })
}

/// By record: the first word of each other member.
type Words = Vec<BTreeMap<MemberId, local::Attested>>;

/// Reads every block once: an attestation may stand in any of them.
fn attestations(
    holding: &Holding,
    store: &Store,
    records: &[(SignedHeader, local::Inclusion)],
) -> Result<Words, ExportError> {
    let mut found: Vec<BTreeMap<MemberId, (TimeMs, local::Inclusion, Head)>> = vec![BTreeMap::new(); records.len()];
    let mut outcome = Ok(());
    store.for_each_block(|id, bytes| {
        if id.seq <= holding.head(id.origin) {
            outcome = words_in(holding, id, bytes, records, &mut found);
        }
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome?;
    let mut chains = BTreeMap::new();
    let words = records.iter().zip(found).map(|((header, _), found)| {
        let word = |(member, (_, by, named)): (MemberId, (TimeMs, local::Inclusion, Head))| {
            Ok(later(holding, store, header, named, &mut chains)?
                .map(|(head, path)| (member, local::Attested { by: Some(by), head, path })))
        };
        found.into_iter().map(word).filter_map(Result::transpose).collect()
    });
    words.collect()
}

fn words_in(
    holding: &Holding,
    id: BlockId,
    bytes: &[u8],
    records: &[(SignedHeader, local::Inclusion)],
    found: &mut [BTreeMap<MemberId, (TimeMs, local::Inclusion, Head)>],
) -> Result<(), ExportError> {
    let frame = Frame::decode(Bytes::copy_from_slice(bytes)).map_err(|_damaged| ExportError::Gone(id))?;
    let time = frame.header.header().time;
    for (index, slot) in (0..).zip(&frame.slots) {
        let Slot::Record(bytes) = slot else { continue };
        let Parsed::Says(Statement::Attest { heads }) = record::parse(bytes) else { continue };
        for ((header, _), found) in records.iter().zip(found.iter_mut()) {
            let of = header.header().id;
            let named = heads.iter().find(|(origin, head)| *origin == of.origin && head.seq >= of.seq);
            let Some((_, named)) = named.filter(|_| of.origin.member != id.origin.member) else { continue };
            if found.get(&id.origin.member).is_none_or(|known| time < known.0) {
                found.insert(id.origin.member, (time, inclusion(holding, &frame, id, index)?, *named));
            }
        }
    }
    Ok(())
}

/// The header that an attestation names and the path from the record's header into its tree; empty if it is that header;
/// none if it is of another chain.
type Later = Option<(Bytes, Vec<Bytes>)>;

fn later(
    holding: &Holding,
    store: &Store,
    header: &SignedHeader,
    named: Head,
    chains: &mut BTreeMap<Origin, Vec<merkle::Hash>>,
) -> Result<Later, ExportError> {
    let own = header.head();
    if named.seq == own.seq {
        return Ok((named.hash == own.hash).then(Default::default));
    }
    let origin = header.header().id.origin;
    let id = BlockId { origin, seq: named.seq };
    if named.seq > holding.head(origin) {
        return Ok(None);
    }
    let later = block_of(holding, store, id)?.header;
    if later.hash() != named.hash {
        return Ok(None);
    }
    let leaves = match chains.entry(origin) {
        Place::Occupied(known) => known.into_mut(),
        Place::Vacant(room) => room.insert(leaves(holding, store, origin)?),
    };
    let before = usize::try_from(named.seq.0 - 1).unwrap_or(usize::MAX);
    let leaves = leaves.get(..before).ok_or(ExportError::Gone(id))?;
    let at = usize::try_from(own.seq.0 - 1).unwrap_or(usize::MAX);
    let path = path(leaves, at).iter().map(|hash| hash.to_vec().into()).collect();
    Ok(Some((Bytes::copy_from_slice(later.bytes()), path)))
}

/// The leaves of the tree over a log's headers.
fn leaves(holding: &Holding, store: &Store, origin: Origin) -> Result<Vec<merkle::Hash>, ExportError> {
    /// Blocks that are read at once, and their bytes.
    const PIECE: (usize, usize) = (64, 4 << 20);
    let (mut leaves, head) = (Vec::new(), holding.head(origin));
    let mut from = Seq(1);
    while from <= head {
        let piece = store.blocks_from(origin, from, PIECE.0, PIECE.1)?;
        let gone = ExportError::Gone(BlockId { origin, seq: from });
        let Some((last, _)) = piece.last() else { return Err(gone) };
        from = last.next();
        for (seq, bytes) in piece {
            let frame = Frame::decode(bytes.into()).map_err(|_damaged| ExportError::Gone(BlockId { origin, seq }))?;
            leaves.push(log_leaf(frame.header.hash()));
        }
    }
    Ok(leaves)
}

/// The path of one leaf, without those of all others: a log has many.
fn path(leaves: &[merkle::Hash], index: usize) -> Vec<merkle::Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (inside, sibling, index) =
        if index < left.len() { (left, right, index) } else { (right, left, index - left.len()) };
    let mut path = path(inside, index);
    path.push(merkle::root(sibling.iter().copied()));
    path
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::evidence::format::{Claim, Counts, Evidence, Malformed, Writer};
    use crate::evidence::verify::{Broken, Checked, verify};
    use crate::replica::Restore;
    use crate::replica::ids::Class;
    use crate::replica::testing::{START, TestForum, TestLog, attest, opinion, origin, settings};
    use crate::store::Write;

    /// Member 1 writes three blocks, member 2 attests the last of them, member 3 the second.
    fn attested() -> (tempfile::TempDir, Store, Holding, TestForum) {
        let mut forum = TestForum::of_full(3);
        forum.issue(|c| c.semantics = 2);
        let mut logs: Vec<TestLog> = (1..=3).map(|member| forum.log(member, 0, Class::Normal)).collect();
        let mut frames: Vec<_> = (0..3).map(|n| logs[0].push(&[opinion(n, 1), opinion(n + 9, 1)])).collect();
        let head = |seq: usize| (origin(1, 0), frames[seq - 1].header.head());
        let (last, second) = (attest(&[head(3)]), attest(&[head(2)]));
        frames.push(logs[1].push(&[last]));
        frames.push(logs[2].push(&[second]));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("replica")).unwrap().store;
        let mut restore = Restore::new(settings(1), forum.id, forum.charters.clone(), START).unwrap();
        for frame in &frames {
            let (id, bytes) = (frame.header.header().id, frame.encode());
            store.write(&[Write::Block(id, &bytes)]).unwrap();
            restore.stored(id, bytes).unwrap();
        }
        let holding = Holding::of(&restore.finish().0, START);
        (folder, store, holding, forum)
    }

    fn checked(items: &[(Kind, Vec<u8>)], forum: &TestForum) -> Result<Checked, Broken> {
        let count = |kind| items.iter().filter(|(k, _)| *k == kind).count() as u64;
        let counts = Counts {
            charters: count(Kind::Charter),
            proofs: count(Kind::Proof),
            main: count(Kind::Record),
            inner: count(Kind::Attested),
        };
        let mut writer = Writer::begin(Vec::new(), Evidence::Receipt).unwrap();
        items.iter().for_each(|(kind, bytes)| writer.item(*kind, bytes).unwrap());
        let bytes = writer.end(&Claim { counts, ..Claim::default() }).unwrap();
        let mut open = || Ok::<_, Malformed>(Box::new(std::io::Cursor::new(bytes.clone())) as Box<dyn Read>);
        verify(&mut open, forum.id, &mut |_| ())
    }

    #[test]
    fn a_receipt_names_who_attested_the_record_or_a_later_block_and_no_bit_of_it_can_change() {
        let (_folder, store, holding, forum) = attested();
        let attested_by = |seq| {
            let mut items = Vec::new();
            let place = BlockId { origin: origin(1, 0), seq: Seq(seq) };
            receipt(&holding, &store, &[(place, 1)], &mut |kind, bytes| {
                items.push((kind, bytes));
                true
            })
            .unwrap();
            let shown = checked(&items, &forum).unwrap().records.remove(0);
            (shown.attested.into_iter().map(|(by, _)| by).collect::<Vec<_>>(), items)
        };
        assert_eq!(attested_by(1).0, ["member-2", "member-3"]);
        assert_eq!(attested_by(3).0, ["member-2"]);
        let (by, items) = attested_by(2);
        assert_eq!(by, ["member-2", "member-3"]);
        for at in items.iter().enumerate().filter(|(_, (kind, _))| *kind > Kind::Charter).map(|(at, _)| at) {
            for place in 0..items[at].1.len() {
                let mut changed = items.clone();
                changed[at].1[place] ^= 1 << (place % 8);
                assert!(checked(&changed, &forum).is_err(), "byte {place} of item {at}");
            }
        }
        // An attestation stands behind the record that it is about.
        let mut swapped = attested_by(1).1;
        let last = swapped.len() - 1;
        swapped[last] = items[items.len() - 1].clone();
        assert!(checked(&swapped, &forum).is_err());
    }

    #[test]
    fn a_list_that_is_not_whole_is_not_handed_out() {
        let (_folder, store, mut holding, _forum) = attested();
        assert!(matches!(bundle(&holding, &store, &mut |_, _| false), Err(ExportError::Stopped)));
        bundle(&holding, &store, &mut |_, _| true).unwrap();
        holding.heads.insert(origin(2, 1), Head { seq: Seq(1), hash: HeaderHash([1; 32]) });
        assert!(matches!(bundle(&holding, &store, &mut |_, _| true), Err(ExportError::Gone(_))));
        holding.heads.remove(&origin(2, 1));
        holding.heads.insert(origin(3, 0), Head { seq: Seq(1), hash: HeaderHash([1; 32]) });
        assert!(matches!(bundle(&holding, &store, &mut |_, _| true), Err(ExportError::Moved(_))));
    }

    #[test]
    fn the_path_of_one_leaf_is_the_one_among_all() {
        for count in 1..40_u8 {
            let leaves: Vec<_> = (0..count).map(|n| merkle::leaf_hash(&[n])).collect();
            let paths = merkle::inclusion_paths(&leaves);
            for (index, expected) in paths.iter().enumerate() {
                assert_eq!(&path(&leaves, index), expected, "leaf {index} of {count}");
            }
        }
    }
}
