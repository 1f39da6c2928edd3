//! Fork and fault proofs: a few hundred bytes that convict an author everywhere, checkable with the charter alone
//! (PROTOCOL sections 3.2 and 8).
//!
//! Accuracy (I6) rests on one fact: a correct node signs at most one header for a place in a log, and that header
//! satisfies rules 5 to 8 against the one before. Every check below derives a contradiction to exactly that.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::block::{self, Slot};
use super::ids::{HeaderHash, KeyId, MemberId, Origin, Seq, sha256};
use super::log::Log;
use super::merkle::CompactRange;
use super::proto;
use super::signed::{Keyring, Unverified, VerifiedHeader, counts_hold, log_leaf};

/// Peaks of a compact range: one a bit of the size.
const FRONTIER_MAX: usize = 64;

/// Which rule of PROTOCOL section 3.2 a correctly signed header breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultRule {
    /// 5: seq, prev or `log_root` do not continue the log.
    Chain,
    /// 6: class or audience are not the opening's.
    Lane,
    /// 7: time runs backwards.
    Time,
    /// 8: count or length are out of range or not those of the records.
    Counts,
}

impl FaultRule {
    /// The rule's number.
    pub fn number(self) -> u32 {
        match self {
            Self::Chain => 5,
            Self::Lane => 6,
            Self::Time => 7,
            Self::Counts => 8,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Chain, Self::Lane, Self::Time, Self::Counts].into_iter().find(|rule| rule.number() == number)
    }
}

/// A proof that holds. No other constructor than the functions below.
#[derive(Clone, Debug)]
pub struct VerifiedProof {
    origin: Origin,
    root: KeyId,
    seq: Seq,
    hash: [u8; 32],
    message: proto::Proof,
}

impl VerifiedProof {
    /// The convicted log.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The root key that opened it: a log of another root key has another history.
    pub fn root(&self) -> KeyId {
        self.root
    }

    /// The place from which on it counts no more; at least 1.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Name of the proof.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// As it travels and is stored.
    pub fn message(&self) -> &proto::Proof {
        &self.message
    }

    fn new(against: &VerifiedHeader, proof: proto::proof::P) -> Self {
        let (id, root) = (against.header().id, against.opening().root_key_id);
        let message = proto::Proof { p: Some(proof) };
        Self { origin: id.origin, root, seq: id.seq.max(Seq(1)), hash: proof_hash(&message), message }
    }
}

/// Name of a proof: the hash of its bytes.
pub fn proof_hash(message: &proto::Proof) -> [u8; 32] {
    sha256(&[b"staydown/proof/v1\n", &message.encode_to_vec()])
}

/// Two different headers for one place: the author told two stories. Not so if two root keys opened the log: whoever
/// stole a key that was replaced would else convict what its owner writes under the new one.
pub fn fork_proof(a: &VerifiedHeader, b: &VerifiedHeader) -> Option<VerifiedProof> {
    let same_root = a.opening().root_key_id == b.opening().root_key_id;
    if a.header().id != b.header().id || a.signed().hash() == b.signed().hash() || !same_root {
        return None;
    }
    // One order of the two, so that whoever finds the fork writes the same bytes.
    let (a, b) = if a.signed().hash() < b.signed().hash() { (a, b) } else { (b, a) };
    let proof = proto::ForkProof { a: Some(a.to_proto()), b: Some(b.to_proto()) };
    Some(VerifiedProof::new(a, proto::proof::P::Fork(proof)))
}

/// `bad` breaks `rule`, given the header before it and the tree of the header hashes before that one.
pub fn fault_proof(
    rule: FaultRule,
    prev: Option<&VerifiedHeader>,
    bad: &VerifiedHeader,
    before_prev: &CompactRange,
    slots: Vec<proto::Slot>,
) -> Option<VerifiedProof> {
    let with_range = rule == FaultRule::Chain;
    let fault = proto::FaultProof {
        prev: prev.map(VerifiedHeader::to_proto),
        bad: Some(bad.to_proto()),
        slots,
        rule: rule.number(),
        frontier: if with_range {
            before_prev.peaks().iter().map(|p| Bytes::copy_from_slice(p)).collect()
        } else {
            Vec::new()
        },
    };
    let frontier = with_range.then(|| before_prev.clone());
    fault_holds(rule, prev, bad, frontier.as_ref(), &fault.slots).ok()?;
    Some(VerifiedProof::new(bad, proto::proof::P::Fault(fault)))
}

/// Checks a proof as received. Charter forks are the charter chain's business.
///
/// # Errors
/// [`ProofError`]: the sender's fault, whoever is accused.
pub fn verify(proof: proto::Proof, keyring: &Keyring) -> Result<VerifiedProof, ProofError> {
    match proof.p {
        Some(proto::proof::P::Fork(fork)) => verify_fork(&fork, keyring),
        Some(proto::proof::P::Fault(fault)) => verify_fault(fault, keyring),
        _ => Err(ProofError::Kind),
    }
}

fn verify_fork(fork: &proto::ForkProof, keyring: &Keyring) -> Result<VerifiedProof, ProofError> {
    let (Some(a), Some(b)) = (&fork.a, &fork.b) else { return Err(ProofError::Kind) };
    // A header of the wrong lane is a fault, and can be a fork as well: then the other one shows for which lane the
    // log was opened. One of the two always does, because whoever wrote the proof held it as a block.
    let (a, b) = match (keyring.verify_header(a), keyring.verify_header(b)) {
        (Ok(a), Err(_)) => {
            let b = keyring.verify_header_as(b, Some(lane(&a)))?;
            (a, b)
        }
        (Err(_), Ok(b)) => (keyring.verify_header_as(a, Some(lane(&b)))?, b),
        (a, b) => (a?, b?),
    };
    fork_proof(&a, &b).ok_or(ProofError::NoContradiction)
}

fn verify_fault(fault: proto::FaultProof, keyring: &Keyring) -> Result<VerifiedProof, ProofError> {
    let rule = FaultRule::from_number(fault.rule).ok_or(ProofError::Kind)?;
    let with_slots = rule == FaultRule::Counts;
    if with_slots && fault.prev.is_some()
        || !with_slots && !fault.slots.is_empty()
        || rule != FaultRule::Chain && !fault.frontier.is_empty()
    {
        return Err(ProofError::Kind); // a relay could add it, and the same proof would have many names
    }
    let prev = fault.prev.as_ref().map(|p| keyring.verify_header(p)).transpose()?;
    // The opening was signed for the lane of the header before; whichever rule is broken, the lane may be as well.
    let lane = prev.as_ref().map(lane);
    let bad = keyring.verify_header_as(fault.bad.as_ref().ok_or(ProofError::Kind)?, lane)?;
    // Bytes that a rule has no use for would travel and be stored with the proof, and give it another name.
    let superfluous = rule != FaultRule::Counts && !fault.slots.is_empty()
        || rule == FaultRule::Counts && prev.is_some()
        || (rule != FaultRule::Chain || prev.is_none()) && !fault.frontier.is_empty();
    if superfluous {
        return Err(ProofError::Kind);
    }
    let frontier = frontier(&fault, prev.as_ref())?;
    fault_holds(rule, prev.as_ref(), &bad, frontier.as_ref(), &fault.slots)?;
    Ok(VerifiedProof::new(&bad, proto::proof::P::Fault(fault)))
}

fn frontier(fault: &proto::FaultProof, prev: Option<&VerifiedHeader>) -> Result<Option<CompactRange>, ProofError> {
    let Some(prev) = prev.filter(|_| fault.rule == FaultRule::Chain.number()) else { return Ok(None) };
    if fault.frontier.len() > FRONTIER_MAX {
        return Err(ProofError::Frontier);
    }
    let peaks: Option<Vec<_>> = fault.frontier.iter().map(|p| p[..].try_into().ok()).collect();
    let size = prev.header().id.seq.previous().0;
    let range = peaks.and_then(|peaks| CompactRange::from_peaks(size, peaks)).ok_or(ProofError::Frontier)?;
    // The header before committed to exactly these hashes: nobody can invent them.
    if range.root() == prev.header().log_root { Ok(Some(range)) } else { Err(ProofError::Frontier) }
}

fn fault_holds(
    rule: FaultRule,
    prev: Option<&VerifiedHeader>,
    bad: &VerifiedHeader,
    before_prev: Option<&CompactRange>,
    slots: &[proto::Slot],
) -> Result<(), ProofError> {
    if let Some(prev) = prev {
        let (p, b) = (prev.header().id, bad.header().id);
        if p.origin != b.origin || p.seq.next() != b.seq || prev.opening().key_id != bad.opening().key_id {
            return Err(ProofError::NotConsecutive);
        }
    }
    let broken = match rule {
        FaultRule::Chain => chain_is_broken(prev, bad, before_prev),
        FaultRule::Lane => prev.is_some_and(|p| lane(p) != lane(bad)),
        FaultRule::Time => prev.is_some_and(|p| bad.header().time < p.header().time),
        FaultRule::Counts => counts_are_broken(bad, slots)?,
    };
    if broken { Ok(()) } else { Err(ProofError::NoContradiction) }
}

fn lane(header: &VerifiedHeader) -> (u16, u16) {
    (header.header().class, header.header().audience)
}

/// Rule 5: what the header before and the hashes before that demand is not what stands there.
fn chain_is_broken(prev: Option<&VerifiedHeader>, bad: &VerifiedHeader, before_prev: Option<&CompactRange>) -> bool {
    let header = bad.header();
    match (prev, before_prev) {
        (Some(prev), Some(range)) => {
            let hash = prev.signed().hash();
            let mut range = range.clone();
            range.append(log_leaf(hash));
            header.prev != hash || header.log_root != range.root()
        }
        (None, _) if header.id.seq <= Seq(1) => {
            let empty = CompactRange::default().root();
            header.id.seq == Seq(0) || header.prev != HeaderHash::ZERO || header.log_root != empty
        }
        _ => false,
    }
}

/// Rule 8: the slots are the signed ones, and the header's numbers are not theirs.
///
/// Every slot must be a record. The hash of a record cannot be the hash of a node of the tree, so records give the
/// signed root in one way only. A redacted slot is a bare hash, and could be such a node: the two halves of an honest
/// block of four would pass for a block of two.
fn counts_are_broken(bad: &VerifiedHeader, slots: &[proto::Slot]) -> Result<bool, ProofError> {
    let slots =
        slots.iter().cloned().map(block::slot).collect::<Result<Vec<_>, _>>().map_err(|_malformed| ProofError::Kind)?;
    if bad.header().flags != 0 {
        return Err(ProofError::Kind); // a later release's flag may give the numbers another meaning
    }
    if slots.iter().any(|slot| matches!(slot, Slot::Redacted(_))) {
        return Err(ProofError::Slots);
    }
    if super::merkle::root(slots.iter().map(Slot::leaf)) != bad.header().records_root {
        return Err(ProofError::Slots);
    }
    Ok(!counts_hold(bad.header(), &slots))
}

/// The proofs that a node holds: for each convicted log, by the root key that opened it, the one with the lowest place,
/// so that their number is bounded by the number of logs.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    by_log: BTreeMap<(Origin, KeyId), VerifiedProof>,
}

impl Proofs {
    /// Takes in a proof; tells whether it says more than what was known.
    pub fn add(&mut self, proof: VerifiedProof) -> bool {
        if self.fork_under(proof.origin, proof.root).is_some_and(|known| known <= proof.seq) {
            return false;
        }
        self.by_log.insert((proof.origin, proof.root), proof);
        true
    }

    /// The lowest disputed place of the logs that `root` opened as `origin`: `fork(o)` of PROTOCOL layer 1.
    pub fn fork_under(&self, origin: Origin, root: KeyId) -> Option<Seq> {
        self.by_log.get(&(origin, root)).map(VerifiedProof::seq)
    }

    /// The lowest disputed place of `log`.
    pub fn fork_of(&self, log: &Log) -> Option<Seq> {
        self.fork_under(log.origin(), log.opening().root_key_id)
    }

    /// The lowest disputed place of `origin`, whichever root key opened it.
    pub fn fork(&self, origin: Origin) -> Option<Seq> {
        let roots = (origin, KeyId([0; 32]))..=(origin, KeyId([0xff; 32]));
        self.by_log.range(roots).map(|(_, proof)| proof.seq).min()
    }

    /// The proof that `proof` would take the place of.
    pub fn weaker_than(&self, proof: &VerifiedProof) -> Option<&VerifiedProof> {
        self.by_log.get(&(proof.origin, proof.root))
    }

    /// Whether any log of `member` is convicted.
    pub fn taints(&self, member: MemberId) -> bool {
        self.iter().any(|proof| proof.origin.member == member)
    }

    /// All proofs, by log.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedProof> {
        self.by_log.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_log.len()
    }

    /// Whether nobody is convicted.
    pub fn is_empty(&self) -> bool {
        self.by_log.is_empty()
    }
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum ProofError {
    #[error("proof is of an unknown kind or incomplete")]
    Kind,
    #[error(transparent)]
    Header(#[from] Unverified),
    #[error("the two headers do not contradict each other")]
    NoContradiction,
    #[error("the two headers do not follow each other in one log")]
    NotConsecutive,
    #[error("the frontier is not the one that the header before committed to")]
    Frontier,
    #[error("the records are not the ones that were signed")]
    Slots,
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::replica::block::{Frame, Header};
    use crate::replica::ids::{Class, TimeMs};
    use crate::replica::log::{Extension, Log};
    use crate::replica::testing::{START, TestForum, TestLog, header_of, opinion, verified_header};

    /// A log of `blocks` honest blocks, and a keyring that knows its opening.
    fn written(blocks: usize) -> (TestForum, Keyring, TestLog, Log, Vec<Frame>) {
        let forum = TestForum::of_full(2);
        let mut ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let first = log.push(&[]);
        let block = ring.verify(first.clone()).unwrap();
        ring.learn(&block);
        let mut held = Log::open(&block).unwrap();
        held.extend(&block, &ring);
        let mut frames = vec![first];
        for n in 1..blocks {
            let frame = log.push(&[opinion(n as u8, 1)]);
            held.extend(&ring.verify(frame.clone()).unwrap(), &ring);
            frames.push(frame);
        }
        (forum, ring, log, held, frames)
    }

    /// The proof that a block with a change to its header gives, found in the way in which a replica finds it.
    fn found(change: impl FnOnce(&mut Header)) -> (Option<VerifiedProof>, TestForum) {
        let (forum, ring, log, mut held, _) = written(5);
        let bad = log.draft(&[opinion(9, 1)], change);
        let proof = match ring.verify(bad) {
            Ok(block) => match held.extend(&block, &ring) {
                Extension::Fault(proof) => Some(*proof),
                Extension::Diverges => held.prove_fault(FaultRule::Chain, block.signed(), &ring),
                other => panic!("{other:?}"),
            },
            Err(Unverified::Fault(bad, rule, slots)) => fault_proof(rule, None, &bad, &CompactRange::default(), slots),
            Err(other) => panic!("{other}"),
        };
        (proof, forum)
    }

    /// The proof, through its bytes, on a node that has the charter and nothing else.
    fn by_a_stranger(proof: &VerifiedProof, forum: &TestForum) -> Result<VerifiedProof, ProofError> {
        verify(proto::Proof::decode(&proof.message().encode_to_vec()[..]).unwrap(), &forum.keyring())
    }

    #[test]
    fn every_broken_rule_is_proven_to_strangers() {
        type Change = fn(&mut Header);
        let cases: &[(&str, u32, Change)] = &[
            ("another prev", 5, |h| h.prev.0[0] ^= 1),
            ("no prev", 5, |h| h.prev = HeaderHash::ZERO),
            ("another log_root", 5, |h| h.log_root[31] ^= 1),
            ("another class", 6, |h| h.class = 1),
            ("an unknown class", 6, |h| h.class = 777),
            ("another audience", 6, |h| h.audience = 1),
            ("an earlier time", 7, |h| h.time = TimeMs(START.0 + 2)),
            ("time 0", 7, |h| h.time = TimeMs(0)),
            ("no records declared", 8, |h| h.record_count = 0),
            ("more records than there are", 8, |h| h.record_count = 2),
            ("a longer payload", 8, |h| h.payload_len += 1),
            // More than one rule at once: the proof must hold all the same, or who relays it is banned for it.
            ("another log_root and class", 5, |h| {
                h.log_root[0] ^= 1;
                h.class = 1;
            }),
            ("another prev and class", 5, |h| {
                h.prev.0[0] ^= 1;
                h.class = 1;
            }),
            ("another class and an earlier time", 6, |h| {
                h.class = 2;
                h.time = TimeMs(0);
            }),
            ("everything", 5, |h| {
                h.log_root[0] ^= 1;
                h.audience = 9;
                h.time = TimeMs(0);
            }),
            ("another class and no records declared", 6, |h| {
                h.class = 1;
                h.record_count = 0;
            }),
            ("an earlier time and no records declared", 8, |h| {
                h.time = TimeMs(0);
                h.record_count = 0;
            }),
        ];
        for (what, rule, change) in cases {
            let (proof, forum) = found(change);
            let proof = proof.unwrap_or_else(|| panic!("{what} is not proven"));
            let Some(proto::proof::P::Fault(fault)) = &proof.message().p else { panic!("{what}") };
            assert_eq!(fault.rule, *rule, "{what}");
            let read = by_a_stranger(&proof, &forum).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((read.hash(), read.origin(), read.seq()), (proof.hash(), proof.origin(), Seq(6)), "{what}");
        }
    }

    /// I6: no rule, with whatever else is put beside it, convicts who kept the rules.
    #[test]
    fn no_proof_holds_against_an_honest_log() {
        let (_, ring, log, _, frames) = written(6);
        let header = |n: usize| header_of(&frames[n], &log.opening);
        let slots = |n: usize| frames[n].slots.iter().map(block::slot_to_proto).collect::<Vec<_>>();
        let mut range = CompactRange::default();
        for (n, frame) in frames.iter().enumerate() {
            for rule in 0..10 {
                for prev in [None, n.checked_sub(1).map(header), Some(header(n)), Some(header((n + 1) % 6))] {
                    for frontier in [Vec::new(), range.peaks().iter().map(|p| Bytes::copy_from_slice(p)).collect()] {
                        for slots in [Vec::new(), slots(n), slots((n + 1) % 6)] {
                            let fault = proto::FaultProof {
                                prev: prev.clone(),
                                bad: Some(header(n)),
                                slots,
                                rule,
                                frontier: frontier.clone(),
                            };
                            let proof = proto::Proof { p: Some(proto::proof::P::Fault(fault)) };
                            assert!(verify(proof, &ring).is_err(), "block {n}, rule {rule}");
                        }
                    }
                }
            }
            if n > 0 {
                range.append(log_leaf(frames[n - 1].header.hash()));
            }
            assert_eq!(range.size(), n as u64, "{}", frame.header.header().id);
            for m in 0..frames.len() {
                let fork = proto::ForkProof { a: Some(header(n)), b: Some(header(m)) };
                let proof = proto::Proof { p: Some(proto::proof::P::Fork(fork)) };
                assert_eq!(verify(proof, &ring).unwrap_err(), ProofError::NoContradiction);
            }
        }
    }

    #[test]
    fn a_fault_proof_with_another_frontier_or_other_slots_proves_nothing() {
        let (proof, forum) = found(|h| h.log_root[0] ^= 1);
        let Some(proto::proof::P::Fault(fault)) = proof.unwrap().message().p.clone() else { panic!() };
        let (longer, _) = found(|h| h.log_root[1] ^= 1);
        assert!(longer.is_some());
        let outcome = |change: fn(&mut proto::FaultProof)| {
            let mut fault = fault.clone();
            change(&mut fault);
            verify(proto::Proof { p: Some(proto::proof::P::Fault(fault)) }, &forum.keyring()).map(|p| p.hash())
        };
        assert!(outcome(|_| ()).is_ok());
        assert_eq!(outcome(|f| f.frontier[0] = vec![7; 32].into()), Err(ProofError::Frontier));
        assert_eq!(outcome(|f| f.frontier.push(vec![7; 32].into())), Err(ProofError::Frontier));
        assert_eq!(outcome(|f| f.frontier = vec![vec![7; 32].into(); 65]), Err(ProofError::Frontier));
        assert_eq!(outcome(|f| f.frontier.clear()), Err(ProofError::Frontier));
        assert_eq!(outcome(|f| f.prev = None), Err(ProofError::Kind), "a frontier that nothing uses");
        assert_eq!(outcome(|f| f.bad = None), Err(ProofError::Kind));
        assert_eq!(outcome(|f| f.rule = 4), Err(ProofError::Kind));
        assert_eq!(outcome(|f| f.slots = vec![proto::Slot::default()]), Err(ProofError::Kind));

        let (proof, forum) = found(|h| h.record_count = 2);
        let Some(proto::proof::P::Fault(fault)) = proof.unwrap().message().p.clone() else { panic!() };
        let outcome = |change: fn(&mut proto::FaultProof)| {
            let mut fault = fault.clone();
            change(&mut fault);
            verify(proto::Proof { p: Some(proto::proof::P::Fault(fault)) }, &forum.keyring()).map(|p| p.hash())
        };
        assert!(outcome(|_| ()).is_ok());
        assert_eq!(outcome(|f| f.slots.clear()), Err(ProofError::Slots));
        assert_eq!(outcome(|f| f.slots.push(f.slots[0].clone())), Err(ProofError::Slots));
        assert_eq!(outcome(|f| f.frontier = vec![vec![7; 32].into()]), Err(ProofError::Kind));
    }

    #[test]
    fn a_fault_needs_the_header_directly_before_of_the_same_log() {
        let (forum, ring, log, _, frames) = written(5);
        let bad = verified_header(&ring, &log.draft(&[], |h| h.time = TimeMs(0)), &log.opening);
        let mut other = forum.log(1, 1, Class::Normal);
        for _ in 0..4 {
            other.push(&[]);
        }
        let elsewhere = verified_header(&ring, &other.push(&[]), &other.opening);
        let none = CompactRange::default();
        let proves =
            |prev: &VerifiedHeader| fault_proof(FaultRule::Time, Some(prev), &bad, &none, Vec::new()).is_some();
        assert!(proves(&verified_header(&ring, &frames[4], &log.opening)));
        assert!(!proves(&verified_header(&ring, &frames[3], &log.opening)), "two before");
        assert!(!proves(&elsewhere), "of another log");
    }

    #[test]
    fn a_fork_is_one_proof_whoever_finds_it() {
        let (forum, ring, log, _, _) = written(3);
        let [a, b] = [1, 2].map(|n| verified_header(&ring, &log.draft(&[opinion(n, 1)], |_| ()), &log.opening));
        let (one, other) = (fork_proof(&a, &b).unwrap(), fork_proof(&b, &a).unwrap());
        assert_eq!(one.hash(), other.hash());
        assert_eq!((one.origin(), one.seq()), (log.origin, Seq(4)));
        assert_eq!(by_a_stranger(&one, &forum).unwrap().hash(), one.hash());
        assert!(one.message().encoded_len() < 1_000, "{} bytes", one.message().encoded_len());
        // Received the other way round, it is the same proof.
        let Some(proto::proof::P::Fork(fork)) = one.message().p.clone() else { panic!() };
        let swapped = proto::ForkProof { a: fork.b.clone(), b: fork.a.clone() };
        let swapped = verify(proto::Proof { p: Some(proto::proof::P::Fork(swapped)) }, &ring).unwrap();
        assert_eq!(swapped.hash(), one.hash());
        assert!(fork_proof(&a, &a).is_none());
    }

    #[test]
    fn two_openings_of_one_log_are_a_fork_at_its_first_block() {
        let forum = TestForum::of_full(2);
        let ring = forum.keyring();
        let one = forum.log(1, 0, Class::Normal);
        let mut two = forum.log(1, 0, Class::Normal);
        two.key = crate::replica::testing::key("another log key");
        two.opening =
            crate::replica::signed::open_log(forum.id, two.origin, 0, &crate::replica::testing::root(1), &two.key);
        let [a, b] = [one, two].map(|log| verified_header(&ring, &log.draft(&[], |_| ()), &log.opening));
        let proof = fork_proof(&a, &b).unwrap();
        assert_eq!(by_a_stranger(&proof, &forum).unwrap().seq(), Seq(1));
    }

    #[test]
    fn a_first_block_that_continues_something_is_a_fault() {
        let forum = TestForum::of_full(2);
        let ring = forum.keyring();
        let log = forum.log(1, 0, Class::Normal);
        for change in [(|h| h.prev.0[0] = 1) as fn(&mut Header), |h| h.log_root[0] ^= 1] {
            let bad = verified_header(&ring, &log.draft(&[], change), &log.opening);
            let proof = fault_proof(FaultRule::Chain, None, &bad, &CompactRange::default(), Vec::new()).unwrap();
            assert_eq!(by_a_stranger(&proof, &forum).unwrap().seq(), Seq(1));
        }
        let good = verified_header(&ring, &log.draft(&[], |_| ()), &log.opening);
        assert!(fault_proof(FaultRule::Chain, None, &good, &CompactRange::default(), Vec::new()).is_none());
    }

    #[test]
    fn of_two_proofs_the_lower_place_counts() {
        let (_, ring, _, _, frames) = written(4);
        let forum = TestForum::of_full(2);
        let mut log = forum.log(1, 0, Class::Normal);
        let at = |log: &TestLog| {
            let [a, b] = [1, 2].map(|n| verified_header(&ring, &log.draft(&[opinion(n, 3)], |_| ()), &log.opening));
            fork_proof(&a, &b).unwrap()
        };
        let mut proofs_at = vec![at(&log)];
        for frame in &frames {
            assert_eq!(
                log.push(&if proofs_at.len() == 1 { vec![] } else { vec![opinion(proofs_at.len() as u8 - 1, 1)] }),
                *frame
            );
            proofs_at.push(at(&log));
        }
        let mut proofs = Proofs::default();
        assert!(proofs.is_empty() && proofs.fork(log.origin).is_none() && !proofs.taints(log.origin.member));
        for (seq, says_more) in [(4, true), (5, false), (4, false), (2, true), (3, false), (1, true)] {
            assert_eq!(proofs.add(proofs_at[seq - 1].clone()), says_more, "fork at {seq}");
        }
        assert_eq!((proofs.fork(log.origin), proofs.len()), (Some(Seq(1)), 1));
        assert!(proofs.taints(log.origin.member));
    }

    #[test]
    fn a_charter_fork_or_nothing_is_no_proof_here() {
        let ring = TestForum::of_full(1).keyring();
        assert_eq!(verify(proto::Proof::default(), &ring).unwrap_err(), ProofError::Kind);
        let charter = proto::Proof { p: Some(proto::proof::P::Charter(proto::CharterFork::default())) };
        assert_eq!(verify(charter, &ring).unwrap_err(), ProofError::Kind);
        let fork = proto::Proof { p: Some(proto::proof::P::Fork(proto::ForkProof::default())) };
        assert_eq!(verify(fork, &ring).unwrap_err(), ProofError::Kind);
    }
}
