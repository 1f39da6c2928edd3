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
}

impl Keyring {
    /// The keys of every charter in `chain`: a root key that was replaced still verifies what it opened.
    pub fn new(chain: &CharterChain) -> Self {
        let mut ring = Self { forum: chain.forum(), roots: BTreeMap::new(), openings: BTreeMap::new() };
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
    }

    /// Remembers the opening in `block`, if it is the first of its log.
    pub fn learn(&mut self, block: &VerifiedBlock) {
        if let Some(opening) = &block.opening {
            self.openings.insert((block.id().origin, opening.key_id), opening.clone());
        }
    }

    /// Takes in what `other` knows beyond this.
    pub fn merge(&mut self, other: &Self) {
        self.roots.extend(other.roots.iter().map(|(id, root)| (*id, *root)));
        self.openings.extend(other.openings.iter().map(|(id, opening)| (*id, opening.clone())));
    }

    /// The opening of `origin` whose key is `key_id`.
    pub fn opening(&self, origin: Origin, key_id: KeyId) -> Option<&Opening> {
        self.openings.get(&(origin, key_id))
    }

    /// Rules 1 to 4, 8, 9 and the flags of PROTOCOL section 3.2: everything that can be said without the block before.
    ///
    /// # Errors
    /// [`Unverified`] says whose fault it is.
    pub fn verify(&self, frame: Frame) -> Result<VerifiedBlock, Unverified> {
        let header = frame.header.header();
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
        if frame.slots.iter().any(|s| matches!(s, Slot::Redacted(_))) {
            return Err(Unverified::Redacted(header.id));
        }
        // A block of the wrong lane breaks rule 6 as well, and that is what the log will prove: a header without the
        // one before it could not be checked against an opening that was signed for another lane.
        let in_its_lane = (header.class, header.audience) == (opening.class, opening.audience);
        if in_its_lane && !counts_hold(header, &frame.slots) {
            let bad = VerifiedHeader { signed: frame.header.clone(), opening: opening.clone() };
            let slots = frame.slots.iter().map(slot_to_proto).collect();
            return Err(Unverified::Fault(Box::new(bad), FaultRule::Counts, slots));
        }
        let opening = (header.id.seq == Seq(1)).then(|| opening.clone());
        let parsed = frame
            .slots
            .iter()
            .map(|s| if let Slot::Record(r) = s { record::parse(r) } else { Parsed::Inert("redacted") });
        Ok(VerifiedBlock { hash: frame.header.hash(), records: parsed.collect(), opening, frame })
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
