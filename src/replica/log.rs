//! One origin's hash chain: append our own, extend by the next, notice a fork or a fault (PROTOCOL section 3).

use bytes::Bytes;

use super::block::{Header, SignedHeader};
use super::forks::{FaultRule, VerifiedProof, fault_proof};
use super::ids::{Head, HeaderHash, Origin, Seq, TimeMs};
use super::image::kept;
use super::merkle::CompactRange;
use super::record::{Parsed, Statement};
use super::signed::{Keyring, Opening, VerifiedBlock, VerifiedHeader, log_leaf};

/// Bytes of a block beside its records: header and signature.
const SIGNED_BYTES: u64 = 252 + 64;

/// What we hold of one log: a gap-free prefix of one chain (I3).
#[derive(Clone, Debug)]
pub struct Log {
    origin: Origin,
    opening: Opening,
    hashes: Vec<HeaderHash>,
    /// Tree over `hashes`, and the same without the last one, for fault proofs.
    range: CompactRange,
    range_before: CompactRange,
    last: Option<SignedHeader>,
    bytes: u64,
    durable: Seq,
    /// Where its author ended it (`LogClose`).
    ended: Option<Seq>,
}

/// What became of a block that was offered.
#[derive(Debug)]
pub enum Extension {
    /// It is the new head.
    Extended,
    /// We have it.
    Known,
    /// Blocks before it are missing. Falling behind is not an error.
    Gap,
    /// It contradicts the block that we hold at its place.
    Contradicts,
    /// It does not continue our chain: either another chain, or a fault of its author.
    Diverges,
    /// Its author broke a rule, and here is the proof.
    Fault(Box<VerifiedProof>),
    /// Its author had ended the log: whoever goes on in it has stolen its key.
    Ended,
}

impl Log {
    /// The log that `first`, its block 1, opens; `None` if `first` is not a block 1.
    pub fn open(first: &VerifiedBlock) -> Option<Self> {
        Some(Self::empty(first.id().origin, first.opening()?.clone()))
    }

    /// A log of which nothing is held but its opening.
    pub fn empty(origin: Origin, opening: Opening) -> Self {
        Self {
            origin,
            opening,
            hashes: Vec::new(),
            range: CompactRange::default(),
            range_before: CompactRange::default(),
            last: None,
            bytes: 0,
            durable: Seq(0),
            ended: None,
        }
    }

    /// Which log.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Its key and lane.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The last place held.
    pub fn len(&self) -> Seq {
        Seq(self.hashes.len() as u64)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Hash of the header at `seq`.
    pub fn hash_at(&self, seq: Seq) -> Option<HeaderHash> {
        let index = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.hashes.get(index).copied()
    }

    /// The last place that is on stable storage.
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// The last place that is on stable storage, with its hash; what may be published.
    pub fn durable_head(&self) -> Option<Head> {
        self.head_at(self.durable)
    }

    /// Everything up to `seq` is on stable storage. Never goes back (I9).
    pub fn mark_durable(&mut self, seq: Seq) {
        self.durable = self.durable.max(seq.min(self.len()));
    }

    /// Time of the last block held.
    pub fn last_time(&self) -> TimeMs {
        self.last.as_ref().map_or(TimeMs(0), |signed| signed.header().time)
    }

    /// What its blocks take: header, signature and records as they were signed, in bytes. The same before and after an
    /// erasure, so that the limit on it does not depend on when the order arrived.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its author ended it.
    pub fn ended(&self) -> Option<Seq> {
        self.ended
    }

    /// The place and hash of block `seq`, if it is held.
    pub fn head_at(&self, seq: Seq) -> Option<Head> {
        Some(Head { seq, hash: self.hash_at(seq)? })
    }

    /// Header fields that the next own block must have: place, `prev`, `log_root`.
    pub fn next(&self) -> (Seq, HeaderHash, [u8; 32]) {
        (self.len().next(), self.hashes.last().copied().unwrap_or(HeaderHash::ZERO), self.range.root())
    }

    /// Extends the log by `block`, if it is the next one. Rules 5, 6 and 7.
    pub fn extend(&mut self, block: &VerifiedBlock, keyring: &Keyring) -> Extension {
        let (seq, head) = (block.id().seq, self.len());
        if self.ended.is_some_and(|ended| seq > ended) {
            return Extension::Ended;
        }
        if seq > head.next() {
            return Extension::Gap;
        }
        if seq <= head && seq > Seq(0) {
            let same = self.hash_at(seq) == Some(block.hash());
            return if same { Extension::Known } else { Extension::Contradicts };
        }
        if block.header().key_id != self.opening.key_id {
            return Extension::Diverges;
        }
        if let Some(rule) = self.broken_rule(block.header()) {
            return self.diverging(rule, block, keyring);
        }
        self.push(block.signed());
        if block.records().iter().any(|record| matches!(record, Parsed::Says(Statement::LogClose))) {
            self.ended = Some(seq);
        }
        Extension::Extended
    }

    fn broken_rule(&self, header: &Header) -> Option<FaultRule> {
        let (seq, prev, log_root) = self.next();
        if header.id.seq != seq || header.prev != prev || header.log_root != log_root {
            Some(FaultRule::Chain)
        } else if (header.class, header.audience) != (self.opening.class, self.opening.audience) {
            Some(FaultRule::Lane)
        } else if header.time < self.last_time() {
            Some(FaultRule::Time)
        } else {
            None
        }
    }

    /// A block that names another `prev` may stand on another chain: only its predecessor tells fork from fault.
    fn diverging(&self, rule: FaultRule, block: &VerifiedBlock, keyring: &Keyring) -> Extension {
        if block.header().prev != self.next().1 {
            return Extension::Diverges;
        }
        self.prove_fault(rule, block.signed(), keyring)
            .map_or(Extension::Diverges, |proof| Extension::Fault(Box::new(proof)))
    }

    /// The proof that `bad`, a header at the place after our head, breaks `rule` against our head.
    pub fn prove_fault(&self, rule: FaultRule, bad: &SignedHeader, keyring: &Keyring) -> Option<VerifiedProof> {
        let prev = self.last.as_ref().and_then(|last| VerifiedHeader::of(last, keyring));
        let bad = VerifiedHeader::of(bad, keyring)?;
        fault_proof(rule, prev.as_ref(), &bad, &self.range_before, Vec::new())
    }

    fn push(&mut self, signed: &SignedHeader) {
        let hash = signed.hash();
        self.hashes.push(hash);
        self.range_before = self.range.clone();
        self.range.append(log_leaf(hash));
        self.last = Some(signed.clone());
        self.bytes += SIGNED_BYTES + u64::from(signed.header().payload_len);
    }

    /// Everything held of it, for the snapshot file.
    pub(super) fn image(&self) -> kept::LogImage {
        let peaks = |range: &CompactRange| range.peaks().iter().map(|peak| Bytes::copy_from_slice(peak)).collect();
        let last = self.last.as_ref();
        kept::LogImage {
            opening: Some(self.opening.image(self.origin)),
            hashes: self.hashes.iter().flat_map(|hash| hash.0).collect(),
            peaks: peaks(&self.range),
            peaks_before: peaks(&self.range_before),
            size_before: self.range_before.size(),
            last_header: last.map(|last| Bytes::copy_from_slice(last.bytes())).unwrap_or_default(),
            last_signature: last.map(|last| Bytes::copy_from_slice(last.signature())).unwrap_or_default(),
            bytes: self.bytes,
            ended: self.ended.map_or(0, |seq| seq.0),
        }
    }

    /// The inverse of [`Log::image`], under an opening that holds; all of it is on stable storage. `None`: it does not
    /// hang together.
    pub(super) fn of_image(origin: Origin, opening: Opening, image: &kept::LogImage) -> Option<Self> {
        let (hashes, rest) = image.hashes.as_chunks::<{ HeaderHash::SIZE }>();
        let hashes: Vec<_> = hashes.iter().copied().map(HeaderHash).collect();
        let len = hashes.len() as u64;
        let range = |size, peaks: &[Bytes]| {
            let peaks = peaks.iter().map(|peak| peak[..].try_into().ok()).collect::<Option<Vec<_>>>()?;
            CompactRange::from_peaks(size, peaks)
        };
        let last = if image.last_header.is_empty() {
            None
        } else {
            Some(SignedHeader::from_parts(&image.last_header, &image.last_signature).ok()?)
        };
        let holds = rest.is_empty()
            && len > 0
            && last.as_ref().is_none_or(|last| Some(&last.hash()) == hashes.last())
            && image.ended <= len;
        let (range, range_before) = (range(len, &image.peaks)?, range(image.size_before, &image.peaks_before)?);
        let ended = (image.ended > 0).then_some(Seq(image.ended));
        let bytes = image.bytes;
        holds.then_some(Self { origin, opening, hashes, range, range_before, last, bytes, durable: Seq(len), ended })
    }

    /// Forgets everything after `seq`: another chain is the one that counts.
    pub fn cut(&mut self, seq: Seq) {
        let keep = usize::try_from(seq.0).unwrap_or(usize::MAX);
        if self.hashes.len() <= keep {
            return;
        }
        self.hashes.truncate(keep);
        self.range = CompactRange::default();
        self.hashes.iter().for_each(|hash| self.range.append(log_leaf(*hash)));
        // Without the last header no fault of the next can be proven; what counts from here on was attested by others.
        self.range_before = CompactRange::default();
        self.last = None;
        self.durable = self.durable.min(self.len());
        self.ended = self.ended.filter(|ended| *ended <= seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::Class;
    use crate::replica::testing::{TestForum, TestLog, opinion};
    use crate::replica::{proto, record};

    /// What became of a block, as a word.
    fn word(extension: &Extension) -> &'static str {
        match extension {
            Extension::Extended => "extended",
            Extension::Known => "known",
            Extension::Gap => "gap",
            Extension::Contradicts => "contradicts",
            Extension::Diverges => "diverges",
            Extension::Fault(_) => "fault",
            Extension::Ended => "ended",
        }
    }

    /// Blocks 1 to 6 of one chain, those of another that leaves it after block 3, and a keyring for both.
    fn two_chains() -> (Keyring, Vec<VerifiedBlock>, Vec<VerifiedBlock>, TestLog) {
        let forum = TestForum::of_full(1);
        let mut ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let mut ours: Vec<_> = (1..=3).map(|n| log.block(&mut ring, &[opinion(n, 1)])).collect();
        let mut other = log.clone();
        let mut theirs = ours.clone();
        ours.extend((4..=6).map(|n| log.block(&mut ring, &[opinion(n, 1)])));
        theirs.extend((4..=6).map(|n| other.block(&mut ring, &[opinion(n, 3)])));
        (ring, ours, theirs, log)
    }

    /// A log that holds the first blocks of `chain`.
    fn holding(chain: &[VerifiedBlock], count: usize, ring: &Keyring) -> Log {
        let mut log = Log::open(&chain[0]).unwrap();
        for block in &chain[..count] {
            assert_eq!(word(&log.extend(block, ring)), "extended");
        }
        log
    }

    #[test]
    fn a_log_is_extended_by_its_next_block_only() {
        let (ring, ours, theirs, _) = two_chains();
        for (held, offered, expected) in [
            (0, &ours[0], "extended"),
            (0, &ours[1], "gap"),
            (1, &ours[1], "extended"),
            (1, &ours[3], "gap"),
            (5, &ours[5], "extended"),
            (6, &ours[0], "known"),
            (6, &ours[5], "known"),
            (6, &theirs[2], "known"),
            (6, &theirs[3], "contradicts"),
            (6, &theirs[5], "contradicts"),
            (4, &theirs[3], "contradicts"),
            (4, &theirs[4], "diverges"),
            (3, &theirs[3], "extended"),
            (3, &theirs[4], "gap"),
        ] {
            let mut log = holding(&ours, held, &ring);
            let id = offered.id();
            assert_eq!(word(&log.extend(offered, &ring)), expected, "holding {held}, offered {id}");
            let grew = u64::from(expected == "extended");
            assert_eq!(log.len(), Seq(held as u64 + grew), "{expected} changes nothing else");
        }
    }

    #[test]
    fn a_log_opens_with_a_first_block_only() {
        let (_, ours, _, _) = two_chains();
        assert!(Log::open(&ours[1]).is_none());
        assert!(Log::open(&ours[0]).is_some_and(|log| log.is_empty() && log.last_time() == TimeMs(0)));
    }

    #[test]
    fn a_block_that_breaks_a_rule_against_our_head_is_a_fault() {
        let (ring, ours, _, log) = two_chains();
        type Change = fn(&mut Header);
        let cases: &[(&str, Change)] = &[
            ("extended", |_| ()),
            ("extended", |h| h.time = TimeMs(h.time.0 - 1)),
            ("fault", |h| h.time = TimeMs(h.time.0 - 2)),
            ("fault", |h| h.class = 1),
            ("fault", |h| h.log_root[0] ^= 1),
            ("diverges", |h| h.prev.0[0] ^= 1),
            ("diverges", |h| h.id.seq = Seq(0)),
        ];
        for (expected, change) in cases {
            let mut held = holding(&ours, 6, &ring);
            let block = ring.verify(log.draft(&[opinion(9, 1)], change)).unwrap();
            assert_eq!(word(&held.extend(&block, &ring)), *expected);
        }
    }

    #[test]
    fn a_chain_makes_way_for_another_from_a_place_on() {
        let (ring, ours, theirs, _) = two_chains();
        let mut log = holding(&ours, 6, &ring);
        log.mark_durable(Seq(6));
        log.cut(Seq(3));
        assert_eq!((log.len(), log.durable_head()), (Seq(3), log.head_at(Seq(3))));
        for block in &theirs[3..] {
            assert_eq!(word(&log.extend(block, &ring)), "extended", "{}", block.id());
        }
        assert_eq!(log.hash_at(Seq(6)), Some(theirs[5].hash()));
        log.cut(Seq(6));
        assert_eq!(log.len(), Seq(6), "there is nothing to cut");
        log.cut(Seq(0));
        assert_eq!((log.len(), log.durable_head()), (Seq(0), None));
    }

    #[test]
    fn nothing_follows_the_close_of_a_log() {
        let (mut ring, ours, _, mut author) = two_chains();
        let close = record::encode(proto::Kind::LogClose, [1; 16], &proto::LogClose { reason: 10, next_log_no: 1 });
        let mut log = holding(&ours, 6, &ring);
        let last = author.block(&mut ring, &[close]);
        assert_eq!(word(&log.extend(&last, &ring)), "extended");
        assert_eq!(log.ended(), Some(Seq(7)));
        let thief = author.block(&mut ring, &[opinion(1, 4)]);
        assert_eq!(word(&log.extend(&thief, &ring)), "ended");
        assert_eq!(word(&log.extend(&last, &ring)), "known");
        log.cut(Seq(6));
        assert_eq!(log.ended(), None);
    }

    #[test]
    fn the_durable_place_never_goes_back_nor_beyond_what_is_held() {
        let (ring, ours, _, _) = two_chains();
        let mut log = holding(&ours, 3, &ring);
        assert_eq!(log.durable_head(), None);
        log.mark_durable(Seq(2));
        log.mark_durable(Seq(1));
        assert_eq!(log.durable_head().map(|h| h.seq), Some(Seq(2)));
        log.mark_durable(Seq(9));
        assert_eq!(log.durable_head().map(|h| h.seq), Some(Seq(3)));
    }

    #[test]
    fn places_outside_the_log_have_no_hash() {
        let (ring, ours, _, _) = two_chains();
        let log = holding(&ours, 3, &ring);
        assert_eq!(log.hash_at(Seq(0)), None);
        assert_eq!(log.hash_at(Seq(3)), Some(ours[2].hash()));
        assert_eq!(log.hash_at(Seq(4)), None);
        assert_eq!(log.hash_at(Seq(u64::MAX)), None);
        let bytes: u64 = ours[..3].iter().map(|b| 316 + u64::from(b.header().payload_len)).sum();
        assert_eq!(log.bytes(), bytes);
    }
}
