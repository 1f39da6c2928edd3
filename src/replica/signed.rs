//! The only road from received bytes to a block one may believe.
//!
//! [`VerifiedBlock`] has no other constructor than [`Keyring::verify`]. Verifying is the expensive part and needs no
//! state but the charter and the logs' openings, so it runs on worker threads, before the engine's queue.

use std::collections::BTreeMap;

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use thiserror::Error;

use super::block::{
    Frame, FrameError, Header, PAYLOAD_SIZE_MAX, RECORDS_PER_BLOCK_MAX, SignedHeader, Slot, sign, signature_holds,
    slot_to_proto,
};
use super::charter::{CharterChain, public_key};
use super::forks::FaultRule;
use super::ids::{BlockId, ForumId, HeaderHash, KeyId, Origin, Seq};
use super::image::kept;
use super::record::{self, Parsed, Statement};
use super::{merkle, proto};

const LOG_OPEN_TYPE: &str = "application/vnd.staydown.log-open.v1";

/// A log's key, and the member's word that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The key that signs the log's headers.
    pub key: VerifyingKey,
    /// Its name.
    pub key_id: KeyId,
    /// The member's key that signed the opening.
    pub root_key_id: KeyId,
    /// The log's lane.
    pub class: u16,
    /// The log's audience.
    pub audience: u16,
    /// As it travels.
    pub message: proto::LogOpen,
}

impl Opening {
    /// For the snapshot file.
    pub(super) fn image(&self, origin: Origin) -> kept::OpeningImage {
        kept::OpeningImage {
            origin: Bytes::copy_from_slice(&origin.to_bytes()),
            class: self.class.into(),
            audience: self.audience.into(),
            message: prost::Message::encode_to_vec(&self.message).into(),
        }
    }
}

/// The bytes that a root key signs to open a log (PROTOCOL section 1).
fn log_open_body(forum: ForumId, origin: Origin, class: u16, audience: u16, key: &[u8; 32], root: KeyId) -> Vec<u8> {
    [&forum.0[..], &origin.to_bytes(), &class.to_be_bytes(), &audience.to_be_bytes(), key, &root.0].concat()
}

/// The opening of one of our own logs.
pub fn open_log(forum: ForumId, origin: Origin, class: u16, root: &SigningKey, log: &SigningKey) -> Opening {
    let key = log.verifying_key();
    let root_key_id = KeyId::of(root.verifying_key().as_bytes());
    let body = log_open_body(forum, origin, class, 0, key.as_bytes(), root_key_id);
    Opening {
        key,
        key_id: KeyId::of(key.as_bytes()),
        root_key_id,
        class,
        audience: 0,
        message: proto::LogOpen {
            public_key: Bytes::copy_from_slice(key.as_bytes()),
            root_key_id: Bytes::copy_from_slice(&root_key_id.0),
            root_signature: Bytes::copy_from_slice(&sign(root, LOG_OPEN_TYPE, &body)),
        },
    }
}

/// Everything that is needed to verify blocks: the members' root keys, and the openings of the logs seen so far.
///
/// Knowledge only grows here, so what verified once verifies for ever (but for a charter fork, which freezes all).
#[derive(Clone, Debug)]
pub struct Keyring {
    forum: ForumId,
    roots: BTreeMap<(super::ids::MemberId, KeyId), (VerifyingKey, u32)>,
    openings: BTreeMap<(Origin, KeyId), Opening>,
    /// Records that any charter held orders to be erased, with the leaf that stays. An order is never taken back.
    erasures: BTreeMap<BlockId, BTreeMap<u32, merkle::Hash>>,
}

impl Keyring {
    /// The keys of every charter in `chain`: a root key that was replaced still verifies what it opened.
    pub fn new(chain: &CharterChain) -> Self {
        let mut ring =
            Self { forum: chain.forum(), roots: BTreeMap::new(), openings: BTreeMap::new(), erasures: BTreeMap::new() };
        ring.renew(chain);
        ring
    }

    /// Takes in the keys of a charter that was applied.
    pub fn renew(&mut self, chain: &CharterChain) {
        for member in chain.history().flat_map(|c| c.members.values()) {
            let id = KeyId::of(member.root_key.as_bytes());
            // A limit that a later charter lowers stops new logs at home; what counted once verifies everywhere, or
            // whoever joins later would not get the logs that the others hold.
            let root = self.roots.entry((member.id, id)).or_insert((member.root_key, 0));
            root.1 = root.1.max(member.log_limit);
        }
        for (block, orders) in chain.history().flat_map(|c| &c.erasures) {
            self.erasures.entry(*block).or_default().extend(orders);
        }
    }

    /// Blocks of which something is to be erased, with the number of their records that are: a later order may name
    /// another record of a block.
    pub fn erasures(&self) -> impl Iterator<Item = (BlockId, usize)> + '_ {
        self.erasures.iter().map(|(block, orders)| (*block, orders.len()))
    }

    /// Takes the redacted slots of a frame of our own journal for ordered: we put them there under a charter that may be
    /// lost with the store, and our own log must not wait for it.
    pub(super) fn trust_redacted(&mut self, frame: &Frame) {
        for (index, slot) in (0..).zip(&frame.slots) {
            if let Slot::Redacted(leaf) = slot {
                self.erasures.entry(frame.header.header().id).or_default().insert(index, *leaf);
            }
        }
    }

    /// Puts the leaf in the place of every record that is to be erased; tells whether there was one.
    pub fn redact(&self, frame: &mut Frame) -> bool {
        let Some(orders) = self.erasures.get(&frame.header.header().id) else { return false };
        let mut redacted = false;
        for (index, leaf) in orders {
            let slot = usize::try_from(*index).ok().and_then(|index| frame.slots.get_mut(index));
            // An order for other bytes than these was given for another chain.
            if let Some(slot) = slot.filter(|s| is_erasable(s) && s.leaf() == *leaf) {
                *slot = Slot::Redacted(*leaf);
                redacted = true;
            }
        }
        redacted
    }

    /// As [`Keyring::redact`], for a block that was verified before the order came.
    pub fn redact_block(&self, mut block: VerifiedBlock) -> VerifiedBlock {
        if self.redact(&mut block.frame) {
            block.records = parsed(&block.frame);
        }
        block
    }

    /// Every redacted slot stands where an order says so.
    fn covers(&self, frame: &Frame) -> bool {
        let orders = self.erasures.get(&frame.header.header().id);
        (0..).zip(&frame.slots).all(|(index, slot)| match slot {
            Slot::Record(_) => true,
            Slot::Redacted(leaf) => orders.and_then(|orders| orders.get(&index)) == Some(leaf),
        })
    }

    /// Remembers the opening in `block`, if it is the first of its log.
    pub fn learn(&mut self, block: &VerifiedBlock) {
        if let Some(opening) = &block.opening {
            self.openings.insert((block.id().origin, opening.key_id), opening.clone());
        }
    }

    /// All openings, for the snapshot file.
    pub(super) fn openings(&self) -> impl Iterator<Item = kept::OpeningImage> {
        self.openings.iter().map(|((origin, _), opening)| opening.image(*origin))
    }

    /// An opening of the snapshot file with its log, if the member's root key signed it.
    pub(super) fn opening_of_image(&self, image: &kept::OpeningImage) -> Option<(Origin, Opening)> {
        let origin = Origin::from_bytes(image.origin[..].try_into().ok()?);
        let message = <proto::LogOpen as prost::Message>::decode(&image.message[..]).ok()?;
        let (class, audience) = (u16::try_from(image.class).ok()?, u16::try_from(image.audience).ok()?);
        let opening = self.check_opening(BlockId { origin, seq: Seq(1) }, class, audience, message).ok()?;
        Some((origin, opening))
    }

    /// Remembers an opening that holds.
    pub(super) fn learn_opening(&mut self, origin: Origin, opening: Opening) {
        self.openings.insert((origin, opening.key_id), opening);
    }

    /// Takes in what `other` knows beyond this.
    pub fn merge(&mut self, other: &Self) {
        self.roots.extend(other.roots.iter().map(|(id, root)| (*id, *root)));
        self.openings.extend(other.openings.iter().map(|(id, opening)| (*id, opening.clone())));
        for (block, orders) in &other.erasures {
            self.erasures.entry(*block).or_default().extend(orders);
        }
    }

    /// The opening of `origin` whose key is `key_id`.
    pub fn opening(&self, origin: Origin, key_id: KeyId) -> Option<&Opening> {
        self.openings.get(&(origin, key_id))
    }

    /// Rules 1 to 4, 8, 9 and the flags of PROTOCOL section 3.2: everything that can be said without the block before.
    ///
    /// # Errors
    /// [`Unverified`] says whose fault it is.
    pub fn verify(&self, mut frame: Frame) -> Result<VerifiedBlock, Unverified> {
        let header = &frame.header.header().clone();
        self.is_of_forum(header)?;
        let opening = self.opening_of(&frame)?;
        if header.key_id != opening.key_id || !frame.header.is_signed_by(&opening.key) {
            return Err(Unverified::Signature(header.id));
        }
        // Slots are not signed: a relay could have changed them, so a wrong root never convicts the author.
        if frame.records_root() != header.records_root {
            return Err(Unverified::RecordsRoot(header.id));
        }
        // Before rule 8: a later release's flag may give its numbers another meaning, and a redacted slot may hide
        // any number of records behind one node of the tree. Neither convicts an author.
        if header.flags != 0 {
            return Err(Unverified::Flags(header.id, header.flags));
        }
        if !self.covers(&frame) {
            return Err(Unverified::Redacted(header.id));
        }
        self.redact(&mut frame);
        let whole = frame.slots.iter().all(|slot| matches!(slot, Slot::Record(_)));
        if !whole && !counts_may_hold(header, &frame.slots) {
            return Err(Unverified::Redacted(header.id));
        }
        // A block of the wrong lane breaks rule 6 as well, and that is what the log will prove: a header without the
        // one before it could not be checked against an opening that was signed for another lane.
        let in_its_lane = (header.class, header.audience) == (opening.class, opening.audience);
        if whole && in_its_lane && !counts_hold(header, &frame.slots) {
            let bad = VerifiedHeader { signed: frame.header.clone(), opening: opening.clone() };
            let slots = frame.slots.iter().map(slot_to_proto).collect();
            return Err(Unverified::Fault(Box::new(bad), FaultRule::Counts, slots));
        }
        let opening = (header.id.seq == Seq(1)).then(|| opening.clone());
        Ok(VerifiedBlock { hash: frame.header.hash(), records: parsed(&frame), opening, frame })
    }

    /// Verifies a header that travels without its payload, by the opening that travels with it.
    ///
    /// # Errors
    /// [`Unverified`]: always the sender's fault.
    pub fn verify_header(&self, header: &proto::SignedHeader) -> Result<VerifiedHeader, Unverified> {
        self.verify_header_as(header, None)
    }

    /// As [`Keyring::verify_header`]; `lane` is the class and audience that the opening was signed with, where the
    /// header's own are what is in dispute.
    ///
    /// # Errors
    /// [`Unverified`]: always the sender's fault.
    pub fn verify_header_as(
        &self,
        header: &proto::SignedHeader,
        lane: Option<(u16, u16)>,
    ) -> Result<VerifiedHeader, Unverified> {
        let signed = SignedHeader::from_parts(&header.header, &header.signature)?;
        self.is_of_forum(signed.header())?;
        let id = signed.header().id;
        let message = header.open.clone().ok_or(Unverified::UnknownLog(id))?;
        let (class, audience) = lane.unwrap_or((signed.header().class, signed.header().audience));
        let opening = self.check_opening(id, class, audience, message)?;
        if signed.header().key_id != opening.key_id || !signed.is_signed_by(&opening.key) {
            return Err(Unverified::Signature(id));
        }
        Ok(VerifiedHeader { signed, opening })
    }

    fn is_of_forum(&self, header: &Header) -> Result<(), Unverified> {
        if header.forum == self.forum { Ok(()) } else { Err(Unverified::Forum(header.forum)) }
    }

    /// The opening that binds the frame's key: known from before, or record 0 of block 1 itself.
    fn opening_of(&self, frame: &Frame) -> Result<Opening, Unverified> {
        let header = frame.header.header();
        if header.id.seq != Seq(1) {
            let known = self.opening(header.id.origin, header.key_id).cloned();
            return known.ok_or(Unverified::UnknownLog(header.id));
        }
        let first = frame.slots.first().map(|slot| match slot {
            Slot::Record(bytes) => record::parse(bytes),
            Slot::Redacted(_) => Parsed::Inert("redacted"),
        });
        let Some(Parsed::Says(Statement::LogOpen(message))) = first else {
            return Err(Unverified::Opening(header.id, "block 1 does not begin with a LogOpen"));
        };
        self.check_opening(header.id, header.class, header.audience, message)
    }

    fn check_opening(
        &self,
        id: BlockId,
        class: u16,
        audience: u16,
        message: proto::LogOpen,
    ) -> Result<Opening, Unverified> {
        let refuse = |why| Unverified::Opening(id, why);
        let root_key_id = KeyId::from_slice(&message.root_key_id).ok_or(refuse("root_key_id has not 32 bytes"))?;
        // Our charter may simply be older than the sender's: not the sender's fault.
        let (root, limit) = self.roots.get(&(id.origin.member, root_key_id)).ok_or(Unverified::UnknownMember(id))?;
        if id.origin.log_no.0 >= *limit {
            return Err(Unverified::UnknownMember(id));
        }
        let key = public_key(&message.public_key).ok_or(refuse("log key is not sound"))?;
        let body = log_open_body(self.forum, id.origin, class, audience, key.as_bytes(), root_key_id);
        if !signature_holds(root, LOG_OPEN_TYPE, &body, &message.root_signature) {
            return Err(refuse("root signature does not hold"));
        }
        Ok(Opening { key_id: KeyId::of(key.as_bytes()), key, root_key_id, class, audience, message })
    }
}

fn parsed(frame: &Frame) -> Vec<Parsed> {
    let read = |slot: &Slot| if let Slot::Record(r) = slot { record::parse(r) } else { Parsed::Inert("redacted") };
    frame.slots.iter().map(read).collect()
}

/// A record, but not the one that ends its log: whoever had it erased before it was read would not know that nothing
/// may follow, and others would.
fn is_erasable(slot: &Slot) -> bool {
    let Slot::Record(record) = slot else { return false };
    !matches!(record::parse(record), Parsed::Says(Statement::LogClose))
}

/// Rule 8, as far as it can be told where records were erased.
fn counts_may_hold(header: &Header, slots: &[Slot]) -> bool {
    let present = slots.iter().map(|s| if let Slot::Record(bytes) = s { bytes.len() } else { 0 }).sum::<usize>();
    let (count, declared) = (header.record_count as usize, header.payload_len as usize);
    (1..=RECORDS_PER_BLOCK_MAX).contains(&count)
        && count == slots.len()
        && declared <= PAYLOAD_SIZE_MAX
        && present <= declared
}

/// Rule 8, for slots none of which is redacted.
pub(super) fn counts_hold(header: &Header, slots: &[Slot]) -> bool {
    let count = header.record_count as usize;
    let declared = header.payload_len as usize;
    let present = slots.iter().map(|s| if let Slot::Record(bytes) = s { bytes.len() } else { 0 }).sum::<usize>();
    (1..=RECORDS_PER_BLOCK_MAX).contains(&count)
        && count == slots.len()
        && declared <= PAYLOAD_SIZE_MAX
        && present == declared
}

/// A block that its author's key signed and whose records are the ones it was signed with.
#[derive(Clone, Debug)]
pub struct VerifiedBlock {
    frame: Frame,
    hash: HeaderHash,
    records: Vec<Parsed>,
    opening: Option<Opening>,
}

impl VerifiedBlock {
    /// Its place.
    pub fn id(&self) -> BlockId {
        self.header().id
    }

    /// Its header's hash.
    pub fn hash(&self) -> HeaderHash {
        self.hash
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        self.frame.header.header()
    }

    /// Header and signature.
    pub fn signed(&self) -> &SignedHeader {
        &self.frame.header
    }

    /// What travels and what is stored.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The records, read.
    pub fn records(&self) -> &[Parsed] {
        &self.records
    }

    /// The log's opening, if this is its first block.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }
}

/// A header that its log's key signed, with the opening that binds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedHeader {
    signed: SignedHeader,
    opening: Opening,
}

impl VerifiedHeader {
    /// A header of a block that verified, whose opening `keyring` knows.
    pub fn of(signed: &SignedHeader, keyring: &Keyring) -> Option<Self> {
        let header = signed.header();
        let opening = keyring.opening(header.id.origin, header.key_id)?.clone();
        Some(Self { signed: signed.clone(), opening })
    }

    /// Header and signature.
    pub fn signed(&self) -> &SignedHeader {
        &self.signed
    }

    /// The fields.
    pub fn header(&self) -> &Header {
        self.signed.header()
    }

    /// The log's opening.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// As it travels.
    pub fn to_proto(&self) -> proto::SignedHeader {
        proto::SignedHeader {
            header: Bytes::copy_from_slice(self.signed.bytes()),
            signature: Bytes::copy_from_slice(self.signed.signature()),
            open: Some(self.opening.message.clone()),
        }
    }
}

/// The leaf of a log's tree that stands for a header.
pub fn log_leaf(hash: HeaderHash) -> merkle::Hash {
    merkle::leaf_hash(&hash.0)
}

/// Why a frame is not believed. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unverified {
    /// The sender's fault: these are not 252 bytes of header, or more records than allowed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The sender's fault: the block is of another forum.
    #[error("block belongs to forum {0}")]
    Forum(ForumId),
    /// The sender's fault: nobody's key signed this.
    #[error("signature of block {0} does not hold")]
    Signature(BlockId),
    /// The sender's fault: the records are not the ones that were signed.
    #[error("records of block {0} do not give its records_root")]
    RecordsRoot(BlockId),
    /// The sender's fault: the log was not opened by the member's root key.
    #[error("opening of log of block {0} does not hold: {1}")]
    Opening(BlockId, &'static str),
    /// Nobody's fault: our charter may be older than the sender's. Fetch charters, ask again.
    #[error("block {0} is of a member, root key or log number that our charter does not list")]
    UnknownMember(BlockId),
    /// Nobody's fault: we have not seen the log's first block.
    #[error("block {0} is of a log whose opening we do not hold")]
    UnknownLog(BlockId),
    /// The author's fault, and here is the evidence.
    #[error("block {} breaks rule {}", .0.header().id, .1.number())]
    Fault(Box<VerifiedHeader>, FaultRule, Vec<proto::Slot>),
    /// Ours, in a way: a later release knows this flag. Hold.
    #[error("block {0} has flags {1:#x} that this release does not know")]
    Flags(BlockId, u32),
    /// Hold: a slot is redacted and no charter of ours orders that.
    #[error("block {0} has a redacted record that no erasure order covers")]
    Redacted(BlockId),
}

impl Unverified {
    /// Whether the peer that sent it must answer for it.
    pub fn is_senders_fault(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Forum(_) | Self::Signature(_) | Self::RecordsRoot(_) | Self::Opening(..))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::replica::ids::{Class, TimeMs};
    use crate::replica::testing::{START, TestForum, TestLog, header_of, key, opinion, root, subject, verified_header};

    /// A forum of two companies, and a log of the first with one block, whose opening the keyring knows.
    fn begun() -> (TestForum, Keyring, TestLog, Frame) {
        let forum = TestForum::of_full(2);
        let mut ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let first = log.push(&[opinion(1, 1)]);
        ring.learn(&ring.verify(first.clone()).unwrap());
        (forum, ring, log, first)
    }

    fn tampered(frame: &Frame, change: impl FnOnce(&mut [u8; 252], &mut [u8; 64])) -> Frame {
        let (mut header, mut signature) = (*frame.header.bytes(), *frame.header.signature());
        change(&mut header, &mut signature);
        let header = SignedHeader::from_parts(&header, &signature).unwrap();
        Frame { header, ..frame.clone() }
    }

    #[test]
    fn an_honest_block_verifies_with_its_records_and_its_opening() {
        let (_, ring, mut log, first) = begun();
        let block = ring.verify(first).unwrap();
        assert!(matches!(block.records()[0], Parsed::Says(Statement::LogOpen(_))));
        assert!(matches!(&block.records()[1], Parsed::Says(Statement::Opinion(o)) if o.subject == subject(1)));
        assert_eq!(block.opening(), Some(&log.opening));
        let second = ring.verify(log.push(&[opinion(2, 1)])).unwrap();
        assert_eq!((second.opening(), second.id().seq), (None, Seq(2)));
    }

    /// M1: one flipped bit is refused. Every bit of header and signature, one block.
    #[test]
    fn every_bit_of_header_and_signature_matters() {
        let (_, ring, mut log, _) = begun();
        let frame = log.push(&[opinion(2, 1)]);
        for bit in (0..252 * 8).step_by(7) {
            let (mut header, signature) = (*frame.header.bytes(), *frame.header.signature());
            header[bit / 8] ^= 1 << (bit % 8);
            match SignedHeader::from_parts(&header, &signature) {
                Err(FrameError::Magic) => assert!(bit < 64),
                Err(error) => panic!("{error}"),
                Ok(header) => assert!(ring.verify(Frame { header, ..frame.clone() }).is_err(), "bit {bit}"),
            }
        }
        for bit in (0..64 * 8).step_by(3) {
            let frame = tampered(&frame, |_, signature| signature[bit / 8] ^= 1 << (bit % 8));
            let id = frame.header.header().id;
            assert_eq!(ring.verify(frame).unwrap_err(), Unverified::Signature(id), "bit {bit}");
        }
    }

    #[test]
    fn each_tampering_is_told_by_its_name() {
        let (forum, ring, mut log, first) = begun();
        let second = log.push(&[opinion(2, 1), opinion(3, 1)]);
        let id = second.header.header().id;
        let refused = |frame: Frame| ring.verify(frame).unwrap_err();

        let other_forum = tampered(&second, |header, _| header[8] ^= 1);
        assert!(matches!(refused(other_forum), Unverified::Forum(_)));

        let time = tampered(&second, |header, _| header[79] ^= 1);
        assert_eq!(refused(time), Unverified::Signature(id));

        let mut slot = second.clone();
        slot.slots[0] = Slot::Record(opinion(9, 1));
        assert_eq!(refused(slot), Unverified::RecordsRoot(id));

        let mut order = second.clone();
        order.slots.swap(0, 1);
        assert_eq!(refused(order), Unverified::RecordsRoot(id));

        let mut fewer = second.clone();
        fewer.slots.pop();
        assert_eq!(refused(fewer), Unverified::RecordsRoot(id));

        let mut redacted = second.clone();
        redacted.slots[0] = Slot::Redacted(redacted.slots[0].leaf());
        assert_eq!(refused(redacted), Unverified::Redacted(id));

        let mut redacted_opening = first.clone();
        redacted_opening.slots[0] = Slot::Redacted(redacted_opening.slots[0].leaf());
        assert!(matches!(refused(redacted_opening), Unverified::Opening(..)));

        let stranger = TestForum::of_full(3);
        let mut theirs = stranger.log(3, 0, Class::Normal);
        let theirs = theirs.push(&[]);
        assert!(matches!(refused(theirs), Unverified::Forum(f) if f == stranger.id));

        let unknown = log.draft(&[opinion(4, 1)], |h| h.id.origin.log_no.0 = 1);
        assert!(matches!(refused(unknown), Unverified::UnknownLog(_)));

        let mut unopened = forum.log(2, 0, Class::Normal);
        unopened.push(&[]);
        assert!(matches!(refused(unopened.push(&[])), Unverified::UnknownLog(_)));

        let flagged = log.draft(&[opinion(4, 1)], |h| h.flags = 4);
        assert!(matches!(refused(flagged), Unverified::Flags(_, 4)));
    }

    #[test]
    fn a_log_is_opened_by_a_root_key_of_the_charter_below_the_log_limit() {
        let forum = TestForum::of_full(2);
        let ring = forum.keyring();
        let opens = |member, log_no| ring.verify(forum.log(member, log_no, Class::Normal).push(&[]));
        assert!(opens(1, 3).is_ok());
        assert!(matches!(opens(1, 4), Err(Unverified::UnknownMember(_))), "the log limit is 4");
        assert!(matches!(opens(3, 0), Err(Unverified::UnknownMember(_))), "nobody's member");

        let mut by_another_root = forum.log(1, 0, Class::Normal);
        by_another_root.opening = open_log(forum.id, by_another_root.origin, 0, &root(2), &by_another_root.key);
        assert!(matches!(ring.verify(by_another_root.push(&[])), Err(Unverified::UnknownMember(_))));
    }

    #[test]
    fn an_opening_holds_for_its_forum_log_lane_and_key_only() {
        let forum = TestForum::of_full(2);
        let ring = forum.keyring();
        let log = forum.log(1, 0, Class::Normal);
        let opened_for = |opening: Opening| {
            let mut log = log.clone();
            let class = log.opening.class;
            log.opening = Opening { class, ..opening };
            ring.verify(log.push(&[]))
        };
        let refused = |opening: Opening, why: &str| {
            assert!(matches!(opened_for(opening), Err(Unverified::Opening(..))), "{why}");
        };
        assert!(opened_for(log.opening.clone()).is_ok());
        let origin = log.origin;
        refused(open_log(forum.id, origin, Class::Urgent.number(), &root(1), &log.key), "another lane");
        refused(open_log(ForumId([1; 32]), origin, 0, &root(1), &log.key), "another forum");
        refused(open_log(forum.id, crate::replica::testing::origin(1, 1), 0, &root(1), &log.key), "another log");
        refused(open_log(forum.id, crate::replica::testing::origin(2, 0), 0, &root(1), &log.key), "another member");
        let mut weak = log.opening.clone();
        weak.message.public_key = vec![0; 32].into();
        refused(weak, "a weak key");
        let mut short = log.opening.clone();
        short.message.root_key_id = vec![0; 31].into();
        refused(short, "no key identifier");

        let of_another_key = open_log(forum.id, origin, 0, &root(1), &key("another"));
        assert!(matches!(opened_for(of_another_key), Err(Unverified::Signature(_))));
    }

    #[test]
    fn a_first_block_begins_with_an_opening() {
        let forum = TestForum::of_full(2);
        let log = forum.log(1, 0, Class::Normal);
        let mut frame = log.draft(&[opinion(1, 1)], |_| ());
        frame.slots.swap(0, 1);
        assert!(matches!(forum.keyring().verify(frame.clone()), Err(Unverified::Opening(..))));
        frame.slots.clear();
        assert!(matches!(forum.keyring().verify(frame), Err(Unverified::Opening(..))));
    }

    #[test]
    fn wrong_counts_of_a_signed_block_are_its_authors_fault() {
        let (_, ring, log, _) = begun();
        for change in [
            (|h| h.record_count = 0) as fn(&mut Header),
            |h| h.record_count = 2,
            |h| h.record_count = 513,
            |h| h.payload_len += 1,
            |h| h.payload_len = 0,
            |h| h.payload_len = PAYLOAD_SIZE_MAX as u32 + 1,
        ] {
            let outcome = ring.verify(log.draft(&[opinion(4, 1)], change));
            assert!(matches!(outcome, Err(Unverified::Fault(_, FaultRule::Counts, _))), "{outcome:?}");
        }
    }

    #[test]
    fn a_header_alone_verifies_with_the_opening_that_travels_with_it() {
        let (forum, ring, mut log, _) = begun();
        let frame = log.push(&[opinion(2, 1)]);
        let verified = verified_header(&forum.keyring(), &frame, &log.opening);
        assert_eq!(verified.to_proto(), header_of(&frame, &log.opening));

        let mut without = header_of(&frame, &log.opening);
        without.open = None;
        assert!(matches!(ring.verify_header(&without), Err(Unverified::UnknownLog(_))));
        let other = forum.log(1, 1, Class::Normal);
        assert!(matches!(ring.verify_header(&header_of(&frame, &other.opening)), Err(Unverified::Opening(..))));
        let urgent = log.draft(&[], |h| h.class = Class::Urgent.number());
        assert!(matches!(ring.verify_header(&header_of(&urgent, &log.opening)), Err(Unverified::Opening(..))));
        assert!(ring.verify_header_as(&header_of(&urgent, &log.opening), Some((0, 0))).is_ok());
    }

    #[test]
    fn a_replaced_root_key_still_verifies_what_it_opened() {
        let mut forum = TestForum::of_full(2);
        let old = forum.log(1, 0, Class::Normal).push(&[]);
        let new_root = key("new root");
        let pop = crate::replica::charter::prove_possession(&new_root, &forum.id.0, crate::replica::testing::id(1));
        forum.issue(|c| {
            c.members[0].log_root_key = crate::replica::testing::public(&new_root);
            c.members[0].pop = Bytes::copy_from_slice(&pop);
        });
        assert!(forum.keyring().verify(old).is_ok());
    }

    #[test]
    fn only_what_a_relay_can_change_is_the_senders_fault() {
        let id = BlockId { origin: crate::replica::testing::origin(1, 0), seq: Seq(1) };
        for (why, senders) in [
            (Unverified::Frame(FrameError::Magic), true),
            (Unverified::Forum(ForumId([0; 32])), true),
            (Unverified::Signature(id), true),
            (Unverified::RecordsRoot(id), true),
            (Unverified::Opening(id, ""), true),
            (Unverified::UnknownMember(id), false),
            (Unverified::UnknownLog(id), false),
            (Unverified::Flags(id, 1), false),
            (Unverified::Redacted(id), false),
        ] {
            assert_eq!(why.is_senders_fault(), senders, "{why}");
        }
    }

    #[test]
    fn a_time_in_the_future_verifies() {
        let (_, ring, log, _) = begun();
        let future = log.draft(&[opinion(4, 1)], |h| h.time = TimeMs(START.0 * 2));
        assert!(ring.verify(future).is_ok(), "it is held, never refused");
    }
}
