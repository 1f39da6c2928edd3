//! The pure view: registers, statuses, counts, digest (PROTOCOL section 5, layers 4 to 6).
//!
//! The view is a function of the *set* of blocks and of the charter: folding the same blocks in any order gives the
//! same registers, because each register keeps the record with the greatest `(time, log, seq, index)`. The one rule
//! that looks at order, the quota, looks at the logs' own; where blocks arrive so that it cannot be decided at once,
//! the view says that it is stale and is derived again from the blocks.

pub mod image;
mod listing;
mod table;

use std::cmp::Ordering;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::listing::{Cells, Key, Listing, Rank};
use self::table::Table;
use super::admission::{self, Quotas};
use super::block::Header;
use super::charter::{Charter, Roles};
use super::ids::{BlockId, Class, LogNo, MemberId, Origin, Seq, SubjectId, TimeMs, sha256};
use super::notes::{Notes, Tie};
use super::record::{ALLOW_DAYS_MAX, IncidentId, Opinion, Parsed, Stance, Statement};
use super::signal::{Alg, Subject};

/// Status of a subject (PROTOCOL layer 6); numbers are those of the view digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the statuses are described in PROTOCOL section 5, layer 6")]
pub enum Status {
    Erased = 1,
    Retracted = 2,
    Allowed = 3,
    Contested = 4,
    Active = 5,
    Provisional = 6,
    Referred = 7,
    Inactive = 8,
}

impl Status {
    /// All statuses, in the order in which the first that fits wins.
    pub const ALL: [Self; 8] = [
        Self::Erased,
        Self::Retracted,
        Self::Allowed,
        Self::Contested,
        Self::Active,
        Self::Provisional,
        Self::Referred,
        Self::Inactive,
    ];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Erased => "ERASED",
            Self::Retracted => "RETRACTED",
            Self::Allowed => "ALLOWED",
            Self::Contested => "CONTESTED",
            Self::Active => "ACTIVE",
            Self::Provisional => "PROVISIONAL",
            Self::Referred => "REFERRED",
            Self::Inactive => "INACTIVE",
        }
    }

    /// The status of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(name))
    }

    /// Whether a lookup returns subjects of this status.
    pub fn matches(self) -> bool {
        !matches!(self, Self::Erased | Self::Retracted | Self::Inactive)
    }
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// STANCE register.
    Stance(Stance),
    /// RETRACT register: yes or no.
    Retract(bool),
    /// ALLOW register: yes or no.
    Allow(bool),
    /// REFERRAL register: open or closed.
    Referral(bool),
}

impl Word {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stance(Stance::Submit) => "SUBMIT",
            Self::Stance(Stance::Endorse) => "ENDORSE",
            Self::Stance(Stance::Dispute) => "DISPUTE",
            Self::Stance(Stance::Neutral) => "NEUTRAL",
            Self::Retract(true) => "RETRACT",
            Self::Retract(false) => "KEEP",
            Self::Allow(true) => "ALLOW",
            Self::Allow(false) => "ALLOW_ENDED",
            Self::Referral(true) => "REFERRAL",
            Self::Referral(false) => "REFERRAL_CLOSED",
        }
    }

    fn same_family(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// Whether it stands behind the subject.
    pub fn supports(self) -> bool {
        matches!(self, Self::Stance(Stance::Submit | Stance::Endorse))
    }

    /// Whether it takes back; so reads every word that has expired.
    pub fn is_neutral(self) -> bool {
        matches!(
            self,
            Self::Stance(Stance::Neutral) | Self::Retract(false) | Self::Allow(false) | Self::Referral(false)
        )
    }
}

/// Index into the view's members; the charter's order.
type Seat = u16;

/// One member's latest word of one family on one subject.
#[derive(Clone, Copy, Debug)]
struct Register {
    /// Number of the block in which it is written.
    block: u32,
    /// Number of its terms.
    terms: u32,
    expires: TimeMs,
    index: u16,
    word: Word,
}

/// A register as it stands in the listing: there is at least one for every subject.
type Cell = [u8; Register::SIZE];

impl Register {
    const SIZE: usize = 18;
    /// The index and the word share two bytes. A block holds 512 records.
    const INDEX_BITS: u32 = 12;
    /// Words by their number in a cell.
    const WORDS: [Word; 10] = [
        Word::Stance(Stance::Submit),
        Word::Stance(Stance::Endorse),
        Word::Stance(Stance::Dispute),
        Word::Stance(Stance::Neutral),
        Word::Retract(true),
        Word::Retract(false),
        Word::Allow(true),
        Word::Allow(false),
        Word::Referral(true),
        Word::Referral(false),
    ];

    fn to_cell(self) -> Cell {
        let word = match self.word {
            Word::Stance(Stance::Submit) => 0,
            Word::Stance(Stance::Endorse) => 1,
            Word::Stance(Stance::Dispute) => 2,
            Word::Stance(Stance::Neutral) => 3,
            Word::Retract(yes) => 5 - u16::from(yes),
            Word::Allow(yes) => 7 - u16::from(yes),
            Word::Referral(yes) => 9 - u16::from(yes),
        };
        let mut cell = [0; Self::SIZE];
        cell[..4].copy_from_slice(&self.block.to_le_bytes());
        cell[4..8].copy_from_slice(&self.terms.to_le_bytes());
        cell[8..16].copy_from_slice(&self.expires.0.to_le_bytes());
        cell[16..].copy_from_slice(&(word << Self::INDEX_BITS | self.index).to_le_bytes());
        cell
    }

    fn from_cell(cell: Cell) -> Self {
        let [b0, b1, b2, b3, t0, t1, t2, t3, e0, e1, e2, e3, e4, e5, e6, e7, low, high] = cell;
        let last = u16::from_le_bytes([low, high]);
        Self {
            block: u32::from_le_bytes([b0, b1, b2, b3]),
            terms: u32::from_le_bytes([t0, t1, t2, t3]),
            expires: TimeMs(u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7])),
            index: last & ((1 << Self::INDEX_BITS) - 1),
            word: Self::WORDS[usize::from(last >> Self::INDEX_BITS).min(Self::WORDS.len() - 1)],
        }
    }

    fn reads(&self, t: TimeMs) -> Option<Word> {
        (!self.expires.has_ended(t) && !self.word.is_neutral()).then_some(self.word)
    }
}

/// A block some of whose records have an effect. 24 bytes, less than the hash that its log keeps of it.
#[derive(Clone, Copy, Debug)]
struct BlockPlace {
    time: TimeMs,
    seq: Seq,
    log_no: LogNo,
    seat: Seat,
}

/// What is said with a word. Few distinct ones exist, so registers name them by number; where every record has terms of its
/// own, they cost no more than a small multiple of these records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Terms {
    labels: Box<[u32]>,
    languages: Box<[String]>,
    incident: u32,
    severity: u8,
    reason: u8,
}

/// "No incident" in [`Terms::incident`].
const NO_INCIDENT: u32 = u32::MAX;

impl Default for Terms {
    fn default() -> Self {
        Self { labels: Box::default(), languages: Box::default(), incident: NO_INCIDENT, severity: 0, reason: 0 }
    }
}

/// The registers of a subject, in the order in which the first of each came.
fn registers(cells: Cells<'_, { Register::SIZE }>) -> impl ExactSizeIterator<Item = Register> + Clone {
    cells.iter().map(Register::from_cell)
}

/// What the list is sorted by.
fn key(subject: &Subject) -> Key<'_> {
    Key { alg: subject.alg(), kind: subject.kind(), param: subject.param(), digest: subject.digest() }
}

fn subject_of(key: Key<'_>) -> Subject {
    Subject::new(key.kind, key.alg, key.param, key.digest)
}

/// Words whose predecessors are remembered: minutes of a busy forum, in less than 2 MiB.
const REPLACED_MAX: usize = 4_096;

/// What stood before the latest words that came, for whoever tells others what changed. Nothing of the view rests on it.
#[derive(Clone, Debug, Default)]
struct Replaced {
    /// Whether anything is remembered: not while a list is derived, since the order is then not that in which it was seen.
    on: bool,
    /// By subject the places of the words that came, oldest first, each with what it took the place of.
    words: BTreeMap<Subject, VecDeque<(RecordPlace, Option<Register>)>>,
    /// The subjects of all of them, oldest first.
    order: VecDeque<Subject>,
}

impl Replaced {
    fn note(&mut self, subject: &Subject, place: RecordPlace, before: Option<Register>) {
        if self.order.len() >= REPLACED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Place::Occupied(mut words) = self.words.entry(oldest)
        {
            words.get_mut().pop_front();
            if words.get().is_empty() {
                words.remove();
            }
        }
        self.words.entry(subject.clone()).or_default().push_back((place, before));
        self.order.push_back(subject.clone());
    }

    /// What the word at `place` of `subject` took the place of; `None`: that is not remembered.
    fn before(&self, subject: &Subject, place: RecordPlace) -> Option<Option<&Register>> {
        let mut words = self.words.get(subject)?.iter();
        words.find(|(came, _)| *came == place).map(|(_, before)| before.as_ref())
    }
}

/// Whether a lookup returns a subject, where that changed. What is searched is kept beside the view, in step with these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is looked up.
    pub subject: Subject,
    /// Whether its status is now one that matches ([`Status::matches`]).
    pub matches: bool,
}

/// What the registers of a subject come to, at the hour of the digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    /// What it adds to the digest; `None` while it is INACTIVE.
    summand: Option<[u8; 32]>,
    /// Whether a lookup returns it. Time alone never turns no into yes: words end, they do not begin.
    matches: bool,
}

/// Distinct groups by what they say (PROTOCOL layer 6), in the order in which the digest has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// FULL members that submitted or endorsed.
    pub support: u32,
    /// SMALL members that did.
    pub small_support: u32,
    /// FULL and SMALL members that dispute.
    pub disputes: u32,
    /// FULL members that vote to retract.
    pub retract: u32,
    /// Certifiers that allow.
    pub allow: u32,
    /// Referral units with an open referral.
    pub referred: u32,
}

/// One member's word on a subject.
#[derive(Clone, Debug)]
pub struct Said {
    /// Who.
    pub member: MemberId,
    /// What.
    pub word: Word,
    /// When, by the author's clock.
    pub time: TimeMs,
    /// The block in which it is written.
    pub block: BlockId,
    /// Which record of it.
    pub index: u16,
    /// When it ends; 0: never.
    pub expires: TimeMs,
    /// Whether it weighs now: not expired, and within the member's role.
    pub counts: bool,
    /// Number of the reason; 0: none.
    pub reason: u8,
    /// 0: not stated.
    pub severity: u8,
}

/// A subject as all members see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is listed.
    pub subject: Subject,
    /// What the forum makes of it.
    pub status: Status,
    /// Distinct groups behind that.
    pub counts: Counts,
    /// Labels of its supporters, ascending.
    pub labels: Vec<u32>,
    /// Languages of its supporters, ascending.
    pub languages: Vec<String>,
    /// Who says what.
    pub said: Vec<Said>,
    /// Certified and supported at once: people have to look.
    pub allow_conflict: bool,
}

/// Where a word stands: the block, and the record in it.
pub type RecordPlace = (BlockId, u16);

/// A stretch of what the list went through: words that came, and time that passed.
pub struct Stretch<'a> {
    /// Whether the words of a block came within it.
    pub is_within: &'a dyn Fn(BlockId) -> bool,
    /// When it begins; what ends at this moment had ended before.
    pub from: TimeMs,
    /// When it ends; what ends at this moment ends within it.
    pub until: TimeMs,
}

/// A member as the view needs it.
#[derive(Clone, Debug)]
struct SeatInfo {
    id: MemberId,
    group: u16,
    roles: Roles,
    admitted: TimeMs,
    votes: bool,
}

/// One member's latest word on an incident.
#[derive(Clone, Debug)]
struct IncidentRegister {
    rank: (TimeMs, LogNo, Seq, u16),
    open: bool,
    closes: TimeMs,
    code: u32,
}

#[derive(Clone, Debug, Default)]
struct Incident {
    registers: BTreeMap<Seat, IncidentRegister>,
    subjects: BTreeSet<Subject>,
}

/// When the standing of a subject may change by itself, and the rank of that subject: 24 bytes in the place of a subject's
/// 48. Subjects of one rank are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    at: TimeMs,
    rank: Rank,
}

impl End {
    const SIZE: usize = 24;

    /// In the order of time, then of rank.
    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.at.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.rank.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let at = bytes.first_chunk().copied().unwrap_or_default();
        let rank = bytes.last_chunk().copied().unwrap_or_default();
        Self { at: TimeMs(u64::from_be_bytes(at)), rank: Rank::from_be_bytes(rank) }
    }

    fn key(bytes: &[u8; Self::SIZE]) -> Key<'_> {
        Key { alg: 0, kind: 0, param: 0, digest: bytes }
    }
}

/// Ends within a stretch of time that are looked up one by one, in some tens of milliseconds. Where there are more, the
/// list is walked through, which can be done in pieces.
const ENDING_MAX: usize = 65_536;

/// Whose records are being taken in, and of which block.
struct Author<'a> {
    header: &'a Header,
    seat: Seat,
    /// The block's number, from its first word on a subject on.
    block: Option<u32>,
}

/// The forum's list as the blocks folded so far make it.
///
/// It is made for tens of millions of subjects: 55 bytes for one with a digest of 32 bytes and one opinion. Beside these
/// it holds 24 bytes for each block with a word on a subject, and each distinct set of terms once; what nothing refers to
/// any more stays until the list is derived again.
#[derive(Clone, Debug)]
pub struct View {
    charter: Charter,
    seats: Vec<SeatInfo>,
    full_groups: usize,
    listing: Listing<{ Register::SIZE }>,
    blocks: Table<BlockPlace>,
    terms: Table<Arc<Terms>>,
    term_numbers: BTreeMap<Arc<Terms>, u32>,
    quotas: Quotas,
    notes: Notes,
    incidents: Vec<Incident>,
    incident_numbers: BTreeMap<IncidentId, u32>,
    /// When a subject's or an incident's standing changes by itself: see [`End`].
    ends: Listing<0>,
    hour: TimeMs,
    digest: Sum256,
    listed: u64,
    records: u64,
    inert: u64,
    stale: bool,
    quota_by_arrival: bool,
    replaced: Replaced,
    /// Changes that nobody has taken yet; `None` where nobody wants them.
    changes: Option<Vec<Change>>,
    /// The same of what ties the records of one video together.
    ties: Vec<Tie>,
}

impl View {
    /// An empty view under `charter`, with its digest evaluated at `hour`.
    pub fn new(charter: &Charter, hour: TimeMs) -> Self {
        let groups: BTreeSet<_> = charter.members.values().map(|m| m.group.as_str()).collect();
        let group =
            |name: &str| groups.iter().position(|g| *g == name).and_then(|i| u16::try_from(i).ok()).unwrap_or(u16::MAX);
        let seat = |m: &super::charter::Member| SeatInfo {
            id: m.id,
            group: group(&m.group),
            roles: m.roles,
            admitted: m.admitted,
            votes: admission::votes_count(m),
        };
        Self {
            seats: charter.members.values().map(seat).collect(),
            full_groups: charter.full_groups(),
            charter: charter.clone(),
            listing: Listing::default(),
            blocks: Table::default(),
            terms: Table::default(),
            term_numbers: BTreeMap::new(),
            quotas: Quotas::default(),
            notes: Notes::default(),
            incidents: Vec::new(),
            incident_numbers: BTreeMap::new(),
            ends: Listing::default(),
            hour: hour.hour(),
            digest: Sum256::default(),
            listed: 0,
            records: 0,
            inert: 0,
            stale: false,
            quota_by_arrival: false,
            replaced: Replaced::default(),
            changes: None,
            ties: Vec::new(),
        }
    }

    /// From now on remembers for a while what words took the place of: for the list that is in use.
    pub fn remember_replaced(&mut self) {
        self.replaced.on = true;
    }

    /// From now on keeps the changes of what a lookup returns until they are taken with [`View::take_changes`], which whoever
    /// asks for this has to do after each fold.
    pub fn follow_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// What changed since this was last asked, in the order in which it did.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What members said since this was last asked of which records are one video, in the order in which it came.
    pub fn take_ties(&mut self) -> Vec<Tie> {
        std::mem::take(&mut self.ties)
    }

    /// What takes a search of `before` to a search of this view.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let (mut old, mut new) = (before.listing.rows().peekable(), self.listing.rows().peekable());
        let mut changes = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.key.cmp(&new.key),
            };
            let gone = if order.is_le() { old.next() } else { None };
            let came = if order.is_ge() { new.next() } else { None };
            let matched = gone.is_some_and(|row| before.matches(row.cells));
            let matches = came.is_some_and(|row| self.matches(row.cells));
            if let Some(row) = came.or(gone).filter(|_| matched != matches) {
                changes.push(Change { subject: subject_of(row.key), matches });
            }
        }
    }

    /// Takes the place of `before`, for whoever follows its changes: those that were not taken yet, and then `changes`.
    pub(super) fn succeed(&mut self, before: &mut Self, changes: Vec<Change>) {
        self.changes = before.changes.take();
        if let Some(kept) = &mut self.changes {
            kept.extend(changes);
            // Few records are of videos: what was said before is taken back, and all said again.
            self.ties = std::mem::take(&mut before.ties);
            self.ties.extend(before.notes.ties().map(|tie| Tie { item: None, ..tie }));
            self.ties.extend(self.notes.ties());
        }
    }

    /// What a lookup may return, in the order of the list: its status matches at the hour of the digest. At a later time
    /// less does, never more.
    pub fn matching(&self) -> impl Iterator<Item = Subject> {
        self.listing.rows().filter(|row| self.matches(row.cells)).map(|row| subject_of(row.key))
    }

    fn matches(&self, cells: Cells<'_, { Register::SIZE }>) -> bool {
        self.status(self.counts(registers(cells), self.hour)).matches()
    }

    /// As [`View::matching`], of one kind of hash.
    pub fn matching_of(&self, alg: Alg) -> impl Iterator<Item = Subject> {
        let first = Key { alg: alg.number(), kind: 0, param: 0, digest: &[] };
        let of_kind = self.listing.rows_after(Some(first)).take_while(move |row| row.key.alg == alg.number());
        of_kind.filter(|row| self.matches(row.cells)).map(|row| subject_of(row.key))
    }

    /// The wrong rule "quota by arrival"; for the simulator.
    #[cfg(feature = "wrong-rules")]
    pub fn count_quota_by_arrival(&mut self) {
        self.quota_by_arrival = true;
    }

    /// Takes in the records of one block that is within its log's prefix.
    pub fn fold(&mut self, header: &Header, records: &[Parsed]) {
        self.records += records.len() as u64;
        let seat = self.seats.iter().position(|s| s.id == header.id.origin.member);
        let Some(seat) = seat.and_then(|seat| Seat::try_from(seat).ok()) else { return };
        let Some(class) = Class::from_number(header.class) else { return };
        let origin = header.id.origin;
        let counted = if self.quota_by_arrival { Origin { log_no: LogNo(u32::MAX), ..origin } } else { origin };
        let mut room = self.quotas.room(&self.charter, counted, class, header.time.day());
        let too_early = header.time < self.seat(seat).admitted;
        let mut used = [0_u32; 2];
        let mut author = Author { header, seat, block: None };
        for (index, record) in records.iter().enumerate() {
            let withdraws = record.withdraws(self.charter.semantics);
            used[usize::from(withdraws)] += 1;
            let within = room.take(withdraws);
            match record {
                Parsed::Says(statement)
                    if within
                        && !too_early
                        && admission::has_effect(&self.charter, self.seat(seat).roles, statement, header.time) =>
                {
                    self.take(&mut author, u16::try_from(index).unwrap_or(u16::MAX), statement);
                }
                _ => self.inert += 1,
            }
        }
        if !self.quotas.note(&self.charter, origin, class, header.time.day(), used) && !self.quota_by_arrival {
            self.stale = true;
        }
    }

    /// Whether the view has to be derived again, in the logs' order.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    fn take(&mut self, author: &mut Author<'_>, index: u16, statement: &Statement) {
        let header = author.header;
        match statement {
            Statement::Opinion(opinion) => {
                let terms = Terms {
                    labels: opinion.labels.as_slice().into(),
                    languages: opinion.languages.as_slice().into(),
                    incident: opinion.incident.map_or(NO_INCIDENT, |id| self.incident(id)),
                    severity: opinion.severity,
                    reason: opinion.reason,
                };
                self.say(author, index, &opinion.subject, Word::Stance(opinion.stance), opinion.expires, terms);
            }
            Statement::Retract { subject, yes, reason } => {
                let terms = Terms { reason: u8::try_from(*reason).unwrap_or(0), ..Terms::default() };
                self.say(author, index, subject, Word::Retract(*yes), TimeMs(0), terms);
            }
            Statement::Allow { subject, yes, expires } => {
                let limit = header.time.plus(ALLOW_DAYS_MAX * TimeMs::DAY_MS);
                if *expires <= limit {
                    self.say(author, index, subject, Word::Allow(*yes), *expires, Terms::default());
                }
            }
            Statement::Referral { subject, open, expires, .. } => {
                self.say(author, index, subject, Word::Referral(*open), *expires, Terms::default());
            }
            Statement::Incident { id, code, open, closes, .. } => {
                let rank = (header.time, header.id.origin.log_no, header.id.seq, index);
                self.put_incident(
                    *id,
                    author.seat,
                    IncidentRegister { rank, open: *open, closes: *closes, code: *code },
                );
            }
            // Structural, or read by the layers below the view.
            Statement::LogOpen(_)
            | Statement::LogClose
            | Statement::Evidence
            | Statement::Attest { .. }
            | Statement::Suspend { .. } => {}
            // Beside the statuses: see `notes`.
            Statement::AuditNote | Statement::Resource(_) | Statement::Preserve { .. } | Statement::Outcome { .. } => {}
        }
        let member = self.seat(author.seat).id;
        self.notes.take(member, header, index, statement);
        if let Statement::Opinion(Opinion { subject, .. }) = statement
            && self.changes.is_some()
            && subject.known_alg() == Some(Alg::Vpdq)
        {
            let item = self.notes.video(subject, member);
            self.ties.push(Tie { subject: subject.clone(), member, item });
        }
    }

    fn say(
        &mut self,
        author: &mut Author<'_>,
        index: u16,
        subject: &Subject,
        word: Word,
        expires: TimeMs,
        terms: Terms,
    ) {
        let (header, seat) = (author.header, author.seat);
        let (seq, log_no) = (header.id.seq, header.id.origin.log_no);
        let place = || self.blocks.push(BlockPlace { time: header.time, seq, log_no, seat });
        let block = *author.block.get_or_insert_with(place);
        let incident = terms.incident;
        let index = index.min((1 << Register::INDEX_BITS) - 1);
        let terms = self.terms(terms);
        self.put(subject, Register { block, terms, expires, index, word }, incident);
    }

    fn put(&mut self, subject: &Subject, register: Register, incident: u32) {
        self.will_end(subject, register.expires);
        if let Some(incident) = self.incidents.get_mut(incident as usize) {
            incident.subjects.insert(subject.clone());
            // The incident may close by itself, and with it end its labels here: whichever was heard of first.
            let closing: Vec<_> = incident.registers.values().map(|r| r.closes).collect();
            closing.into_iter().for_each(|closes| self.will_end(subject, closes));
        }
        let spot = match self.listing.find(&key(subject)) {
            Ok(spot) => spot,
            Err(spot) => {
                let after = self.weight(subject, std::iter::once(register));
                self.listing.insert(spot, &key(subject), &register.to_cell());
                self.exchange(subject, Weight::default(), after);
                return self.remember(subject, register, None);
            }
        };
        let mut standing: Vec<_> = registers(self.listing.cells_at(spot)).collect();
        let before = self.weight(subject, standing.iter().copied());
        let seat = self.block(register).seat;
        let own = |r: &Register| r.word.same_family(register.word) && self.block(*r).seat == seat;
        let replaced = match standing.iter().position(own) {
            Some(nth) if self.rank(register) > self.rank(standing[nth]) => {
                self.listing.replace(spot, nth, register.to_cell());
                Some(std::mem::replace(&mut standing[nth], register))
            }
            Some(_) => return,
            None => {
                self.listing.push(spot, register.to_cell());
                standing.push(register);
                None
            }
        };
        self.exchange(subject, before, self.weight(subject, standing.iter().copied()));
        self.remember(subject, register, replaced);
    }

    fn remember(&mut self, subject: &Subject, register: Register, replaced: Option<Register>) {
        if self.replaced.on {
            self.replaced.note(subject, self.place(register), replaced);
        }
    }

    fn put_incident(&mut self, id: IncidentId, seat: Seat, register: IncidentRegister) {
        let number = self.incident(id) as usize;
        let subjects: Vec<_> = self.incidents[number].subjects.iter().cloned().collect();
        let before: Vec<_> = subjects.iter().map(|s| self.standing(s)).collect();
        let registers = &mut self.incidents[number].registers;
        if registers.get(&seat).is_some_and(|old| old.rank >= register.rank) {
            return;
        }
        let closes = register.closes;
        registers.insert(seat, register);
        for (subject, before) in subjects.iter().zip(before) {
            self.exchange(subject, before, self.standing(subject));
            self.will_end(subject, closes);
        }
    }

    fn will_end(&mut self, subject: &Subject, at: TimeMs) {
        let end = End { at, rank: key(subject).rank() }.to_bytes();
        if at > self.hour
            && let Err(spot) = self.ends.find(&End::key(&end))
        {
            self.ends.insert(spot, &End::key(&end), &[]);
        }
    }

    fn terms(&mut self, terms: Terms) -> u32 {
        if let Some(number) = self.term_numbers.get(&terms) {
            return *number;
        }
        let terms = Arc::new(terms);
        let number = self.terms.push(Arc::clone(&terms));
        self.term_numbers.insert(terms, number);
        number
    }

    fn seat(&self, seat: Seat) -> &SeatInfo {
        &self.seats[usize::from(seat)]
    }

    fn block(&self, register: Register) -> BlockPlace {
        *self.blocks.at(register.block)
    }

    fn seat_of(&self, register: Register) -> &SeatInfo {
        self.seat(self.block(register).seat)
    }

    fn terms_of(&self, register: Register) -> &Terms {
        self.terms.at(register.terms)
    }

    /// Layer 5: the greatest wins.
    fn rank(&self, register: Register) -> (TimeMs, LogNo, Seq, u16) {
        let block = self.block(register);
        (block.time, block.log_no, block.seq, register.index)
    }

    fn incident(&mut self, id: IncidentId) -> u32 {
        let next = u32::try_from(self.incidents.len()).unwrap_or(NO_INCIDENT);
        let number = *self.incident_numbers.entry(id).or_insert(next);
        if number == next {
            self.incidents.push(Incident::default());
        }
        number
    }

    /// The entry of `subject` at `t`, whatever its status.
    pub fn entry(&self, subject: &Subject, t: TimeMs) -> Option<Entry> {
        let registers = registers(self.listing.cells(&key(subject))?);
        let counts = self.counts(registers.clone(), t);
        let status = self.status(counts);
        let (labels, languages) = self.labels(registers.clone(), t);
        Some(Entry {
            subject: subject.clone(),
            status,
            counts,
            labels,
            languages,
            said: registers.map(|r| self.said(r, t)).collect(),
            allow_conflict: status == Status::Allowed && counts.support + counts.small_support > 0,
        })
    }

    /// What `member` says of `subject` as its stance, expired or not.
    pub fn stance_of(&self, subject: &Subject, member: MemberId, t: TimeMs) -> Option<Said> {
        let stance = |r: &Register| matches!(r.word, Word::Stance(_)) && self.seat_of(*r).id == member;
        self.said_of(subject).find(stance).map(|register| self.said(register, t))
    }

    /// All registers of a subject, none if it is not known.
    fn said_of(&self, subject: &Subject) -> impl Iterator<Item = Register> + Clone {
        self.listing.cells(&key(subject)).into_iter().flat_map(registers)
    }

    /// How many subjects anything was ever said of.
    pub fn known(&self) -> usize {
        self.listing.len()
    }

    /// Subjects after `after`, in the order of the list.
    pub fn subjects_after(&self, after: Option<&Subject>) -> impl Iterator<Item = Subject> {
        self.listing.rows_after(after.map(key)).map(|row| subject_of(row.key))
    }

    /// Subjects after `after`, in the order of the list, each with its status at `t`.
    pub fn statuses(&self, after: Option<&Subject>, t: TimeMs) -> impl Iterator<Item = (Subject, Status)> {
        let rows = self.listing.rows_after(after.map(key));
        rows.map(move |row| (subject_of(row.key), self.status(self.counts(registers(row.cells), t))))
    }

    /// Subjects after `after`, each with whether `me` may have to look at it: several words stand on it, a referral does,
    /// or what `me` says of it ends or is due for review until `soon`.
    pub fn talked_about(
        &self,
        after: Option<&Subject>,
        me: MemberId,
        soon: TimeMs,
    ) -> impl Iterator<Item = (Subject, bool)> {
        let ends = move |r: Register| {
            let mine = self.seat_of(r).id == me;
            matches!(r.word, Word::Referral(_)) || mine && r.expires > TimeMs(0) && r.expires <= soon
        };
        self.listing.rows_after(after.map(key)).map(move |row| {
            let subject = subject_of(row.key);
            let talked = row.cells.len() > 1 || registers(row.cells).any(ends);
            let talked = talked || self.notes.is_due(&subject, me, soon);
            (subject, talked)
        })
    }

    /// Where the words stand that the entry of `subject` rests on: what members say of it, and of the incidents that
    /// they tie it to.
    pub fn places(&self, subject: &Subject) -> impl Iterator<Item = RecordPlace> + '_ {
        let cells = self.listing.cells(&key(subject)).into_iter();
        cells.flat_map(registers).flat_map(|register| self.rests_on(register)).map(|(place, _)| place)
    }

    /// Subjects after `after`, in the order of the list, each with whether its entry may have changed within `stretch`.
    pub fn changed<'a>(
        &'a self,
        after: Option<&Subject>,
        stretch: &'a Stretch<'_>,
    ) -> impl Iterator<Item = (Subject, bool)> {
        let within = move |(place, ends): (RecordPlace, TimeMs)| {
            (stretch.is_within)(place.0) || (ends > stretch.from && ends <= stretch.until)
        };
        let changed = move |cells| registers(cells).any(|register| self.rests_on(register).any(within));
        self.listing.rows_after(after.map(key)).map(move |row| (subject_of(row.key), changed(row.cells)))
    }

    /// Subjects of which a word ends, or an incident closes, after `from` and not after `until`. `None`: that lies before
    /// the hour of the digest, or too many end, and it cannot be told without looking at every subject.
    pub fn ending(&self, from: TimeMs, until: TimeMs) -> Option<impl Iterator<Item = Subject>> {
        if from < self.hour {
            return None;
        }
        let first = End { at: from.plus(1), rank: 0 }.to_bytes();
        let spot = self.ends.find(&End::key(&first)).unwrap_or_else(|spot| spot);
        let ends = self.ends.rows_from(spot).map(|row| End::from_bytes(row.key.digest));
        let ranks: Vec<_> = ends.take_while(|end| end.at <= until).take(ENDING_MAX + 1).map(|end| end.rank).collect();
        (ranks.len() <= ENDING_MAX).then(|| self.ending_of(ranks.into_iter().collect(), from, until))
    }

    /// Subjects of `ranks` of which a word ends, or an incident closes, after `from` and not after `until`.
    fn ending_of(&self, ranks: BTreeSet<Rank>, from: TimeMs, until: TimeMs) -> impl Iterator<Item = Subject> {
        let within = move |(_, ends): (RecordPlace, TimeMs)| ends > from && ends <= until;
        let ends = move |cells| registers(cells).any(|register| self.rests_on(register).any(within));
        let rows = ranks.into_iter().flat_map(|rank| self.listing.rows_of(rank));
        rows.filter(move |row| ends(row.cells)).map(|row| subject_of(row.key))
    }

    /// Subjects that were ever tied to an incident.
    pub fn tied_to(&self, id: &IncidentId) -> impl Iterator<Item = &Subject> {
        let number = self.incident_numbers.get(id);
        number.and_then(|n| self.incidents.get(*n as usize)).into_iter().flat_map(|incident| &incident.subjects)
    }

    /// The words that a register brings into an entry, its own and those on its incident, each with when it ends.
    fn rests_on(&self, register: Register) -> impl Iterator<Item = (RecordPlace, TimeMs)> + '_ {
        let own = (self.place(register), register.expires);
        let incident = self.incidents.get(self.terms_of(register).incident as usize);
        let tied = incident.into_iter().flat_map(|i| &i.registers).map(|(seat, said)| {
            let (_, log_no, seq, index) = said.rank;
            let origin = Origin { member: self.seat(*seat).id, log_no };
            ((BlockId { origin, seq }, index), said.closes)
        });
        std::iter::once(own).chain(tied)
    }

    fn place(&self, register: Register) -> RecordPlace {
        let BlockPlace { seq, log_no, seat, .. } = self.block(register);
        (BlockId { origin: Origin { member: self.seat(seat).id, log_no }, seq }, register.index)
    }

    /// The status that the entry of `subject` had at `t`, before the words came that stand in blocks for which `is_new`
    /// holds. `None`: that is not remembered. It is true if all other words came before these.
    pub fn status_before(&self, subject: &Subject, is_new: impl Fn(BlockId) -> bool, t: TimeMs) -> Option<Status> {
        let mut before = Vec::new();
        for register in registers(self.listing.cells(&key(subject))?) {
            let mut stood = Some(register);
            while let Some(came) = stood
                && let place = self.place(came)
                && is_new(place.0)
            {
                stood = self.replaced.before(subject, place)?.copied();
            }
            before.extend(stood);
        }
        Some(self.status(self.counts(before.into_iter(), t)))
    }

    /// How many subjects were ever tied to an incident.
    pub fn incident_subjects(&self, id: &IncidentId) -> usize {
        let number = self.incident_numbers.get(id);
        number.and_then(|n| self.incidents.get(*n as usize)).map_or(0, |incident| incident.subjects.len())
    }

    /// Subjects with a status other than INACTIVE.
    pub fn listed(&self) -> u64 {
        self.listed
    }

    /// Records folded.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records folded that had no effect.
    pub fn inert(&self) -> u64 {
        self.inert
    }

    /// What members say beside the statuses.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// What every member used of its quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    fn said(&self, register: Register, t: TimeMs) -> Said {
        let (terms, (block, index)) = (self.terms_of(register), self.place(register));
        Said {
            member: block.origin.member,
            word: register.word,
            time: self.block(register).time,
            block,
            index,
            expires: register.expires,
            counts: self.weighs(register, t).is_some(),
            reason: terms.reason,
            severity: terms.severity,
        }
    }

    /// The word that a register adds to the counts at `t`, if any.
    fn weighs(&self, register: Register, t: TimeMs) -> Option<Word> {
        let word = register.reads(t)?;
        (word.supports() || self.seat_of(register).votes).then_some(word)
    }

    fn counts(&self, registers: impl ExactSizeIterator<Item = Register>, t: TimeMs) -> Counts {
        let (mut counts, mut seen) = (Counts::default(), Vec::new());
        let alone = registers.len() == 1;
        for register in registers {
            let Some(word) = self.weighs(register, t) else { continue };
            let seat = self.seat_of(register);
            let (column, count) = match word {
                Word::Stance(Stance::Dispute) => (2_u8, &mut counts.disputes),
                Word::Stance(_) if seat.roles.has(Roles::FULL) => (0, &mut counts.support),
                Word::Stance(_) => (1, &mut counts.small_support),
                Word::Retract(_) => (3, &mut counts.retract),
                Word::Allow(_) => (4, &mut counts.allow),
                Word::Referral(_) => (5, &mut counts.referred),
            };
            // No set of keys of one group counts twice (I16).
            if alone || !seen.contains(&(column, seat.group)) {
                *count += 1;
                if !alone {
                    seen.push((column, seat.group));
                }
            }
        }
        counts
    }

    /// Layer 6: the first that fits.
    pub fn status(&self, counts: Counts) -> Status {
        let policy = &self.charter.policy;
        let share = (self.full_groups as u64 * u64::from(policy.retract_permille)).div_ceil(1000);
        let retract_quorum = u64::from(policy.retract_min).max(share);
        if u64::from(counts.retract) >= retract_quorum {
            Status::Retracted
        } else if counts.allow >= policy.allow_quorum {
            Status::Allowed
        } else if counts.support + counts.small_support > 0 && counts.disputes >= policy.contest_quorum {
            Status::Contested
        } else if counts.support > 0 {
            Status::Active
        } else if counts.small_support > 0 {
            Status::Provisional
        } else if counts.referred > 0 {
            Status::Referred
        } else {
            Status::Inactive
        }
    }

    /// Labels and languages of the supporters, and the labels of their open incidents.
    fn labels(&self, registers: impl Iterator<Item = Register>, t: TimeMs) -> (Vec<u32>, Vec<String>) {
        let (mut labels, mut languages) = (BTreeSet::new(), BTreeSet::new());
        for register in registers {
            if !self.weighs(register, t).is_some_and(Word::supports) {
                continue;
            }
            let terms = self.terms_of(register);
            labels.extend(terms.labels.iter().copied());
            languages.extend(terms.languages.iter().cloned());
            labels.extend(self.open_codes(terms.incident, t));
        }
        (labels.into_iter().collect(), languages.into_iter().collect())
    }

    /// Whether a supporter of `subject` says it in an incident that is open at `t`.
    pub fn in_open_incident(&self, subject: &Subject, t: TimeMs) -> bool {
        let supports = |r: &Register| self.weighs(*r, t).is_some_and(Word::supports);
        let is_open = |r| self.open_codes(self.terms_of(r).incident, t).next().is_some();
        self.said_of(subject).filter(supports).any(is_open)
    }

    fn open_codes(&self, incident: u32, t: TimeMs) -> impl Iterator<Item = u32> + '_ {
        let registers = self.incidents.get(incident as usize).into_iter().flat_map(|i| i.registers.values());
        let open = move |r: &&IncidentRegister| r.open && (r.closes == TimeMs(0) || r.closes > t);
        registers.filter(open).map(|r| r.code)
    }

    /// The view digest at the hour it was last advanced to. It detects bugs, not attackers: sums can be forged.
    pub fn digest(&self) -> (TimeMs, [u8; 32]) {
        (self.hour, self.digest.to_bytes())
    }

    /// Evaluates the digest at the hour of `now` from here on; only what expires in between is looked at.
    pub fn advance(&mut self, now: TimeMs) {
        let hour = now.hour();
        if hour <= self.hour {
            return;
        }
        let ends = self.ends.rows().map(|row| End::from_bytes(row.key.digest)).take_while(|end| end.at <= hour);
        let ranks: Vec<_> = ends.map(|end| end.rank).collect();
        self.ends.remove_first(ranks.len());
        let due: Vec<_> = self.ending_of(ranks.into_iter().collect(), self.hour, hour).collect();
        let before: Vec<_> = due.iter().map(|subject| self.standing(subject)).collect();
        self.hour = hour;
        for (subject, before) in due.iter().zip(before) {
            self.exchange(subject, before, self.standing(subject));
        }
    }

    fn standing(&self, subject: &Subject) -> Weight {
        let cells = self.listing.cells(&key(subject));
        cells.map(|cells| self.weight(subject, registers(cells))).unwrap_or_default()
    }

    fn weight(&self, subject: &Subject, registers: impl ExactSizeIterator<Item = Register> + Clone) -> Weight {
        let counts = self.counts(registers.clone(), self.hour);
        let status = self.status(counts);
        if status == Status::Inactive {
            return Weight::default();
        }
        let supports = |r: &Register| self.weighs(*r, self.hour).is_some_and(Word::supports);
        let mut supporters: Vec<_> = registers.clone().filter(supports).map(|r| self.seat_of(r).id).collect();
        supporters.sort_unstable();
        let (labels, _) = self.labels(registers, self.hour);
        let summand = contribution(subject.id(), status, counts, &supporters, &labels);
        Weight { summand: Some(summand), matches: status.matches() }
    }

    fn exchange(&mut self, subject: &Subject, before: Weight, after: Weight) {
        if before.matches != after.matches
            && let Some(changes) = &mut self.changes
        {
            changes.push(Change { subject: subject.clone(), matches: after.matches });
        }
        if let Some(before) = before.summand {
            self.digest.subtract(before);
            // An image may lie about it, and nothing rests on it.
            self.listed = self.listed.saturating_sub(1);
        }
        if let Some(after) = after.summand {
            self.digest.add(after);
            self.listed += 1;
        }
    }
}

/// One subject's summand of the view digest.
fn contribution(id: SubjectId, status: Status, counts: Counts, supporters: &[MemberId], labels: &[u32]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(96 + 16 * supporters.len() + 4 * labels.len());
    bytes.extend_from_slice(b"staydown/view/v1\n");
    bytes.extend_from_slice(&id.0);
    bytes.push(status as u8);
    for count in [counts.support, counts.small_support, counts.disputes, counts.retract, counts.allow, counts.referred]
    {
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes.extend_from_slice(&list_len(supporters.len()));
    for supporter in supporters {
        bytes.extend_from_slice(&supporter.0);
    }
    bytes.extend_from_slice(&list_len(labels.len()));
    for label in labels {
        bytes.extend_from_slice(&label.to_be_bytes());
    }
    sha256(&[&bytes])
}

/// Length of a list in the digest; lists are bounded by members and by a record's size.
fn list_len(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// A sum modulo 2^256 of big-endian numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum256([u64; 4]);

impl Sum256 {
    fn limbs(bytes: [u8; 32]) -> [u64; 4] {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_be_bytes(chunk.try_into().unwrap_or_default());
        }
        limbs
    }

    fn add(&mut self, bytes: [u8; 32]) {
        let mut carry = false;
        for (sum, limb) in self.0.iter_mut().zip(Self::limbs(bytes)).rev() {
            let (s, c) = sum.overflowing_add(limb);
            let (s, d) = s.overflowing_add(u64::from(carry));
            (*sum, carry) = (s, c || d);
        }
    }

    fn subtract(&mut self, bytes: [u8; 32]) {
        let mut borrow = false;
        for (sum, limb) in self.0.iter_mut().zip(Self::limbs(bytes)).rev() {
            let (s, c) = sum.overflowing_sub(limb);
            let (s, d) = s.overflowing_sub(u64::from(borrow));
            (*sum, borrow) = (s, c || d);
        }
    }

    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::exchange::Draw;
    use crate::replica::signed::{Keyring, VerifiedBlock};
    use crate::replica::stored::Damaged;
    use crate::replica::testing::{
        ACCOUNT_DAYS, AUDITOR, CERTIFIER, FULL, REFERRAL, SMALL, START, STEWARD, TestForum, TestLog, account, allow,
        attest, id, incident, opinion, opinion_with, origin, referral, retract, subject, suspend, with_peppers,
    };
    use crate::replica::{ids, proto, record};

    const SUBMIT: u32 = 1;
    const ENDORSE: u32 = 2;
    const DISPUTE: u32 = 3;
    const NEUTRAL: u32 = 4;
    const OBSERVER: u32 = 4;

    /// A forum, one normal log a member, and the blocks written so far.
    struct World {
        forum: TestForum,
        ring: Keyring,
        logs: BTreeMap<(u8, u32), TestLog>,
        blocks: Vec<VerifiedBlock>,
        clock: TimeMs,
    }

    impl World {
        fn new(forum: TestForum) -> Self {
            let ring = forum.keyring();
            Self { forum, ring, logs: BTreeMap::new(), blocks: Vec::new(), clock: START }
        }

        /// Members 1, 2, ... with these groups and roles.
        fn of(members: &[(&str, u32)]) -> Self {
            Self::new(TestForum::of(members))
        }

        /// A member writes one block into one of its logs; the clock goes on by a millisecond.
        fn say_in(&mut self, member: u8, log_no: u32, class: Class, records: &[bytes::Bytes]) {
            let forum = &self.forum;
            let log = self.logs.entry((member, log_no)).or_insert_with(|| forum.log(member, log_no, class));
            self.clock = self.clock.plus(1);
            log.time = self.clock;
            self.blocks.push(log.block(&mut self.ring, records));
        }

        fn say(&mut self, member: u8, record: bytes::Bytes) -> &mut Self {
            self.say_in(member, 0, Class::Normal, &[record]);
            self
        }

        fn view(&self) -> View {
            self.fold(&self.blocks)
        }

        fn fold<'a>(&self, blocks: impl IntoIterator<Item = &'a VerifiedBlock>) -> View {
            let mut view = View::new(&self.forum.charter(), START);
            for block in blocks {
                view.fold(block.header(), block.records());
            }
            view
        }

        /// Log by log in order, as a rebuild reads them.
        fn rebuilt(&self) -> View {
            self.fold(rebuild_order(&self.blocks))
        }

        fn status(&self, about: u8) -> Status {
            self.view().entry(&subject(about), self.clock).unwrap().status
        }
    }

    /// Everything a view shows at `t`.
    fn shown(view: &View, t: TimeMs) -> Vec<String> {
        let entries = view.subjects_after(None).filter_map(|s| view.entry(&s, t));
        entries
            .map(|mut e| {
                e.said.sort_by_key(|s| (s.member, s.word.name()));
                format!("{e:?}")
            })
            .collect()
    }

    /// Whoever can be in a forum, two companies of one group among them. Member 10 has left, member 11 came late.
    const EVERYBODY: [(&str, u32); 11] = [
        ("a", FULL),
        ("a", FULL),
        ("b", FULL),
        ("c", SMALL),
        ("d", CERTIFIER),
        ("e", REFERRAL),
        ("f", FULL | STEWARD),
        ("g", AUDITOR),
        ("h", OBSERVER),
        ("i", FULL),
        ("j", FULL),
    ];
    /// Blocks that a busy world's members write before member 11 is admitted.
    const BEFORE_THE_LATE_ONE: u64 = 60;

    /// Eleven members of ten groups say hundreds of things in two lanes and three logs each, of every kind there is.
    fn busy(quota: u32) -> World {
        let change = |c: &mut proto::Charter| {
            c.semantics = 2;
            c.policy.as_mut().unwrap().quota_per_day = vec![quota, quota, quota];
            c.members[9].status = 3;
            c.members[10].admitted_ms = START.0 + BEFORE_THE_LATE_ONE;
        };
        let mut world = World::new(TestForum::with(&EVERYBODY, change));
        let mut draw = Draw(7);
        for _ in 0..180 {
            let member = draw.below(EVERYBODY.len() as u64) as u8 + 1;
            let lane = draw.below(2) as usize;
            let records: Vec<_> = (0..=draw.below(3)).map(|_| anything(&mut draw, member)).collect();
            world.say_in(member, lane as u32, Class::ALL[lane], &records);
            // A second log of the same lane, so that the order of logs matters for the quota.
            if draw.below(4) == 0 {
                world.say_in(member, 2, Class::Normal, &[anything(&mut draw, member)]);
            }
        }
        // The end of a log, what two groups vote away, and what two dispute.
        world.say_in(1, 2, Class::Normal, &[encoded(proto::Kind::LogClose, &proto::LogClose::default())]);
        world.say(1, retract(0, true)).say(7, retract(0, true));
        world.say(2, opinion(13, SUBMIT)).say(3, opinion(13, DISPUTE)).say(7, opinion(13, DISPUTE));
        world
    }

    fn encoded(kind: proto::Kind, body: &impl prost::Message) -> bytes::Bytes {
        record::encode(kind, [9; 16], body)
    }

    /// What members say on subjects, and now and then what no subject's standing depends on.
    fn anything(draw: &mut Draw, member: u8) -> bytes::Bytes {
        // The small company and the referral unit also speak of what nobody else does.
        let alone = matches!(member, 4 | 6) && draw.below(3) == 0;
        let about = if alone { 12 + member } else { draw.below(12) as u8 };
        let soon = START.plus(TimeMs::HOUR_MS * (draw.below(4)));
        match (member, draw.below(10)) {
            (_, 9) => beside_the_point(draw, about),
            (5, yes) => allow(about, yes < 6, soon.plus(1)),
            (6, open) => referral_until(about, open < 6, if open < 3 { soon } else { TimeMs(0) }),
            (_, 0) => retract(about, draw.below(2) == 0),
            (_, 1 | 8) => incident(draw.below(2) as u8, 70 + u32::from(member), draw.below(3) > 0, soon),
            _ => opinion_with(about, draw.below(4) as u32 + 1, |o| {
                o.labels = vec![draw.below(3) as u32 + 1];
                o.languages = vec![["fr", "de", "pt-BR"][draw.below(3) as usize].into()];
                o.expires_ms = if draw.below(3) == 0 { soon.0 } else { 0 };
                if draw.below(2) == 0 {
                    o.incident_id = vec![draw.below(2) as u8; 16].into();
                }
            }),
        }
    }

    fn referral_until(about: u8, open: bool, until: TimeMs) -> bytes::Bytes {
        let subject = Some(subject(about).to_proto());
        encoded(proto::Kind::Referral, &proto::Referral { subject, open, expires_ms: until.0, ..Default::default() })
    }

    /// Every other kind of record, those of a later release and malformed ones: all take their place in the quota.
    fn beside_the_point(draw: &mut Draw, about: u8) -> bytes::Bytes {
        let about = Some(subject(about).to_proto());
        let head = ids::Head { seq: Seq(1), hash: ids::HeaderHash([3; 32]) };
        match draw.below(9) {
            0 => attest(&[(origin(1, 0), head)]),
            1 => suspend(2, &[(origin(2, 0), head)], START.plus(TimeMs::DAY_MS)),
            2 => encoded(
                proto::Kind::Evidence,
                &proto::Evidence { proof_hash: vec![1; 32].into(), origin: None, seq: 1 },
            ),
            3 => encoded(proto::Kind::AuditNote, &proto::AuditNote { finding: 1, ..Default::default() }),
            4 => {
                let url = "https://example.org".into();
                encoded(proto::Kind::Resource, &proto::Resource { url, listed: true, ..Default::default() })
            }
            5 => encoded(proto::Kind::Preserve, &proto::Preserve { subject: about, until_ms: 1, contact: 1 }),
            6 => encoded(proto::Kind::Outcome, &proto::Outcome { subject: about, result: 1, acted_ms: 1 }),
            7 => {
                record::encode(proto::Kind::Opinion, [9; 16], &proto::Opinion { subject: about, ..Default::default() })
            }
            _ => bytes::Bytes::from_static(b"no record"),
        }
    }

    /// Draws an order in which the logs' own orders are kept: what arrives from peers.
    fn shuffled<'a>(blocks: &'a [VerifiedBlock], draw: &mut Draw) -> Vec<&'a VerifiedBlock> {
        let mut logs: BTreeMap<Origin, VecDeque<&VerifiedBlock>> = BTreeMap::new();
        for block in blocks {
            logs.entry(block.id().origin).or_default().push_back(block);
        }
        let mut order = Vec::new();
        while !logs.is_empty() {
            let at = draw.below(logs.len() as u64) as usize;
            let origin = *logs.keys().nth(at).unwrap();
            let log = logs.get_mut(&origin).unwrap();
            order.extend(log.pop_front());
            if log.is_empty() {
                logs.remove(&origin);
            }
        }
        order
    }

    fn rebuild_order(blocks: &[VerifiedBlock]) -> Vec<&VerifiedBlock> {
        let mut blocks: Vec<_> = blocks.iter().collect();
        blocks.sort_by_key(|b| b.id());
        blocks
    }

    /// I1: the view is a function of the set of blocks. 1,000 orders, the hour advancing anywhere in between; then orders
    /// under a quota that is soon used up, where the view may say that it has to be derived again.
    #[test]
    fn the_order_of_arrival_never_shows() {
        for (quota, orders, stale_expected) in [(1_000, 1_000, false), (12, 300, true)] {
            let world = busy(quota);
            let later = START.plus(2 * TimeMs::HOUR_MS);
            let mut expected = world.rebuilt();
            assert!(!expected.is_stale(), "a rebuild in the logs' order settles the quota");
            let at_start = expected.digest();
            expected.advance(later);
            assert_ne!(at_start, expected.digest());
            let mut stale = 0;
            for seed in 0..orders {
                let mut draw = Draw(seed);
                let order = shuffled(&world.blocks, &mut draw);
                let in_order = seed == 0;
                let order = if in_order { rebuild_order(&world.blocks) } else { order };
                let advance_at = draw.below(order.len() as u64 + 1) as usize;
                let mut view = View::new(&world.forum.charter(), START);
                view.follow_changes();
                for (n, block) in order.iter().enumerate() {
                    if n == advance_at {
                        view.advance(later);
                    }
                    view.fold(block.header(), block.records());
                }
                view.advance(later);
                if view.is_stale() {
                    stale += 1;
                    continue;
                }
                assert_eq!(view.digest(), expected.digest(), "seed {seed}, quota {quota}");
                assert_eq!(
                    (view.listed(), view.records(), view.inert()),
                    (expected.listed(), expected.records(), expected.inert())
                );
                if seed % 25 == 0 {
                    assert_eq!(searched(&view.take_changes()), view.matching().collect(), "seed {seed}");
                    assert_eq!(shown(&view, later), shown(&expected, later), "seed {seed}");
                    assert_eq!(shown(&view, START), shown(&expected, START), "seed {seed}");
                }
            }
            assert_eq!(stale > 0, stale_expected, "{stale} of {orders} orders are stale with a quota of {quota}");
            assert!(stale < orders, "some orders need no rebuild");
        }
    }

    /// What is searched by whoever took all `changes`, each of which changes something.
    fn searched(changes: &[Change]) -> BTreeSet<Subject> {
        let mut searched = BTreeSet::new();
        for Change { subject, matches } in changes {
            assert!(if *matches { searched.insert(subject.clone()) } else { searched.remove(subject) }, "{subject}");
        }
        searched
    }

    #[test]
    fn whoever_follows_a_list_is_led_on_to_the_one_that_takes_its_place() {
        let world = busy(1_000);
        let half = world.blocks.len() / 2;
        let mut view = world.fold(&[]);
        view.follow_changes();
        world.blocks[..half].iter().for_each(|b| view.fold(b.header(), b.records()));
        let not_taken = view.take_changes();
        world.blocks[half..half + 9].iter().for_each(|b| view.fold(b.header(), b.records()));
        let mut derived = world.fold(&world.blocks[half..]);
        derived.advance(START.plus(3 * TimeMs::HOUR_MS));
        let changes = derived.changes_since(&view);
        derived.succeed(&mut view, changes);
        let all: Vec<_> = not_taken.into_iter().chain(derived.take_changes()).collect();
        assert!(all.iter().any(|change| !change.matches));
        assert_eq!(searched(&all), derived.matching().collect());
        assert!(derived.matching().count() > 3);
        derived.fold(world.blocks[0].header(), world.blocks[0].records());
        derived.advance(START.plus(40 * TimeMs::DAY_MS));
        assert!(derived.take_changes().iter().any(|change| !change.matches), "it is followed from then on");
    }

    /// What the test above draws its orders from has everything in it that could make an order matter.
    #[test]
    fn a_busy_world_has_every_status_kind_and_end_in_it() {
        let world = busy(1_000);
        let view = world.rebuilt();
        let entries = |t| view.subjects_after(None).filter_map(|s| view.entry(&s, t)).collect::<Vec<_>>();
        let now = entries(world.clock);
        let hours = (0..4).map(|h| START.plus(h * TimeMs::HOUR_MS));
        let seen: BTreeSet<_> = hours.flat_map(|t| entries(t).into_iter().map(|e| e.status)).collect();
        assert_eq!(seen.len() + 1, Status::ALL.len(), "all but the reserved one: {seen:?}");
        assert!(now.iter().any(|e| e.labels.iter().any(|l| *l > 70)), "codes of incidents are labels");
        assert!(
            now.iter().any(|e| e.labels != view.entry(&e.subject, START.plus(4 * TimeMs::HOUR_MS)).unwrap().labels)
        );
        let words: BTreeSet<_> = now.iter().flat_map(|e| e.said.iter().map(|s| s.word.name())).collect();
        assert_eq!(words.len(), 10, "every family both ways: {words:?}");
        let lapsed =
            |s: &Said| s.member == id(10) && !s.counts && s.expires == TimeMs(0) && s.word == Word::Retract(true);
        assert!(now.iter().any(|e| e.said.iter().any(lapsed)), "a former member's vote lapses");
        assert!(
            now.iter().all(|e| e.said.iter().all(|s| s.member != id(11) || s.time >= START.plus(BEFORE_THE_LATE_ONE)))
        );
        let kinds = world.blocks.iter().flat_map(|b| b.records()).map(|r| match r {
            Parsed::Says(statement) => Some(std::mem::discriminant(statement)),
            Parsed::Inert(_) => None,
        });
        let mut kinds: Vec<_> = kinds.map(|kind| format!("{kind:?}")).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 14 + 1, "fourteen kinds, and what is no record");
        for member in [1, 2] {
            let logs: BTreeSet<_> =
                world.blocks.iter().map(|b| b.id().origin).filter(|o| o.member == id(member)).collect();
            assert_eq!(logs.len(), 3, "several logs of one member");
        }
        assert!(busy(12).rebuilt().inert() > view.inert(), "a small quota makes records inert");
    }

    /// The digest that is kept up to date equals the one computed from nothing, at every hour.
    #[test]
    fn an_advanced_digest_is_the_digest_of_that_hour() {
        let world = busy(1_000);
        let mut kept = world.view();
        for hour in 0..6 {
            let t = START.plus(hour * TimeMs::HOUR_MS);
            kept.advance(t.plus(5));
            let mut fresh = View::new(&world.forum.charter(), t);
            world.blocks.iter().for_each(|b| fresh.fold(b.header(), b.records()));
            assert_eq!((kept.digest(), kept.listed()), (fresh.digest(), fresh.listed()), "hour {hour}");
        }
        let at = kept.digest();
        kept.advance(START);
        assert_eq!(kept.digest(), at, "the hour never goes back");
    }

    #[test]
    fn what_a_word_took_the_place_of_is_remembered_for_a_while() {
        let mut world = World::of(&[("a", FULL), ("b", FULL)]);
        world.say(1, opinion(1, SUBMIT)).say(1, opinion(1, NEUTRAL));
        let everything: Vec<_> = (0..=255).map(|about| opinion(about, SUBMIT)).collect();
        let others = REPLACED_MAX / everything.len();
        for _ in 0..others {
            world.say_in(2, 0, Class::Normal, &everything);
        }
        let came = |block: BlockId| block.origin.member == id(2) || block.seq > Seq(1);
        let mut view = world.fold(&world.blocks[..1]);
        let before = |view: &View| view.status_before(&subject(1), came, START);
        assert_eq!(before(&view), Some(Status::Active), "nothing came");
        assert_eq!(view.status_before(&subject(1), |_| true, START), None, "not while the list is derived");
        view.remember_replaced();
        for (n, block) in world.blocks[1..].iter().enumerate() {
            view.fold(block.header(), block.records());
            assert_eq!(before(&view), (n < others).then_some(Status::Active), "after {n} blocks of others");
            let remembered: usize = view.replaced.words.values().map(VecDeque::len).sum();
            assert_eq!(view.replaced.order.len(), remembered);
            assert!(remembered <= REPLACED_MAX);
        }
        let nothing = view.status_before(&subject(99), |_| true, START);
        assert_eq!(nothing, Some(Status::Inactive), "nobody had said anything of it");
    }

    /// Layer 6 as a table. Members: 1 and 2 of one group and 3, 4, 5 of others are FULL; 6 and 7 SMALL; 8 and 9
    /// certify; 10 refers. Four FULL groups, so two of them retract; two groups contest; one allows.
    #[test]
    fn every_status_follows_from_the_groups_that_speak() {
        use Status::{Active, Allowed, Contested, Inactive, Provisional, Referred, Retracted};
        const MEMBERS: [(&str, u32); 10] = [
            ("a", FULL),
            ("a", FULL),
            ("b", FULL),
            ("c", FULL),
            ("d", FULL),
            ("e", SMALL),
            ("f", SMALL),
            ("g", CERTIFIER),
            ("g", CERTIFIER),
            ("h", REFERRAL),
        ];
        let soon = START.plus(TimeMs::DAY_MS);
        let say = |stance| move |member: u8| (member, opinion(1, stance));
        let [submit, endorse, dispute, neutral] = [say(SUBMIT), say(ENDORSE), say(DISPUTE), say(NEUTRAL)];
        let retracts = |member: u8| (member, retract(1, true));
        let keeps = |member: u8| (member, retract(1, false));
        let allows = |member: u8| (member, allow(1, true, soon));
        let ends = |member: u8| (member, allow(1, false, TimeMs(0)));
        let refers = |member: u8| (member, referral(1, true));
        let closes = |member: u8| (member, referral(1, false));
        type Said = Vec<(u8, bytes::Bytes)>;
        let cases: Vec<(&str, Said, Status)> = vec![
            ("one submits", vec![submit(1)], Active),
            ("one endorses", vec![endorse(1)], Active),
            ("one takes it back", vec![submit(1), neutral(1)], Inactive),
            ("one takes it back, another stands", vec![submit(1), endorse(3), neutral(1)], Active),
            ("one says it again", vec![submit(1), neutral(1), submit(1)], Active),
            ("a small one", vec![submit(6)], Provisional),
            ("small ones", vec![submit(6), endorse(7)], Provisional),
            ("small and full", vec![submit(6), endorse(1)], Active),
            ("one disputes", vec![submit(1), dispute(3)], Active),
            ("two of one group dispute", vec![submit(3), dispute(1), dispute(2)], Active),
            ("two groups dispute", vec![submit(1), dispute(3), dispute(4)], Contested),
            ("a full and a small group dispute", vec![submit(1), dispute(3), dispute(6)], Contested),
            ("a small one's, disputed", vec![submit(6), dispute(3), dispute(4)], Contested),
            ("disputes alone", vec![dispute(3), dispute(4)], Inactive),
            ("a dispute taken back", vec![submit(1), dispute(3), dispute(4), neutral(4)], Active),
            ("its submitter disputes it", vec![submit(1), dispute(1), dispute(3)], Inactive),
            ("one votes to retract", vec![submit(1), retracts(3)], Active),
            ("one group votes to retract", vec![submit(3), retracts(1), retracts(2)], Active),
            ("two groups retract", vec![submit(1), retracts(3), retracts(4)], Retracted),
            ("two groups retract what nobody lists", vec![retracts(3), retracts(4)], Retracted),
            ("one changes its mind", vec![submit(1), retracts(3), retracts(4), keeps(4)], Active),
            ("small ones have no vote", vec![submit(1), retracts(3), retracts(6)], Active),
            ("retracted and certified", vec![submit(1), allows(8), retracts(3), retracts(4)], Retracted),
            ("certified", vec![allows(8)], Allowed),
            ("certified and listed", vec![submit(1), allows(8)], Allowed),
            ("certified and contested", vec![submit(1), dispute(3), dispute(4), allows(8)], Allowed),
            ("no longer certified", vec![submit(1), allows(8), ends(8)], Active),
            ("one of two certifiers ends it", vec![allows(8), allows(9), ends(8)], Allowed),
            ("referred", vec![refers(10)], Referred),
            ("referred and closed", vec![refers(10), closes(10)], Inactive),
            ("referred and listed", vec![refers(10), submit(1)], Active),
            ("referred and provisional", vec![refers(10), submit(6)], Provisional),
            // What a role does not allow is inert.
            ("a referral unit submits", vec![refers(10), submit(10)], Referred),
            ("a certifier submits", vec![refers(10), submit(8)], Referred),
            ("a full member certifies", vec![submit(1), allows(3)], Active),
            ("a full member refers", vec![refers(10), refers(1), closes(10)], Inactive),
        ];
        for (what, said, expected) in cases {
            let mut world = World::of(&MEMBERS);
            // Something about the subject, so that it has an entry even if all else is inert.
            world.say(1, retract(1, false));
            for (member, record) in said {
                world.say(member, record);
            }
            assert_eq!(world.status(1), expected, "{what}");
            let listed = world.view().listed();
            assert_eq!(listed, u64::from(expected != Inactive), "{what}");
        }
    }

    /// PROTOCOL layer 6, row by row, as it is written there, for every small number of groups and several policies: the
    /// first row that fits, and whether a lookup returns it.
    #[test]
    fn the_status_is_the_first_row_of_the_table_that_fits() {
        type Row = (Status, bool, fn(&Counts, &Quorums) -> bool);
        struct Quorums {
            retract: u32,
            contest: u32,
            allow: u32,
        }
        const TABLE: [Row; 8] = [
            (Status::Erased, false, |_, _| false),
            (Status::Retracted, false, |c, q| c.retract >= q.retract),
            (Status::Allowed, true, |c, q| c.allow >= q.allow),
            (Status::Contested, true, |c, q| c.support + c.small_support > 0 && c.disputes >= q.contest),
            (Status::Active, true, |c, _| c.support > 0),
            (Status::Provisional, true, |c, _| c.small_support > 0),
            (Status::Referred, true, |c, _| c.referred > 0),
            (Status::Inactive, false, |_, _| true),
        ];
        assert_eq!(TABLE.map(|(status, ..)| status), Status::ALL);
        assert_eq!(TABLE.map(|(status, ..)| status as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
        // F is 3 groups; member 4 is of a group that is counted already, and member 5 does not belong any more.
        let members = [("a", FULL), ("b", FULL), ("c", FULL | STEWARD), ("c", FULL), ("d", FULL), ("e", SMALL)];
        let mut reached = BTreeSet::new();
        for (retract_min, permille, contest, allow, retract) in [
            (1, 1, 1, 1, 1),
            (2, 500, 2, 1, 2),
            (3, 1, 1, 2, 3),
            (1, 1000, 3, 3, 3),
            (1, 667, 2, 2, 3),
            (2, 1, 2, 2, 2),
        ] {
            let view = View::new(
                &TestForum::with(&members, |c| {
                    c.members[4].status = 2;
                    let policy = c.policy.as_mut().unwrap();
                    (policy.retract_min, policy.retract_permille) = (retract_min, permille);
                    (policy.contest_quorum, policy.allow_quorum) = (contest, allow);
                })
                .charter(),
                START,
            );
            let quorums = Quorums { retract, contest, allow };
            for n in 0..4_u32.pow(6) {
                let digit = |place: u32| n / 4_u32.pow(place) % 4;
                let counts = Counts {
                    support: digit(0),
                    small_support: digit(1),
                    disputes: digit(2),
                    retract: digit(3),
                    allow: digit(4),
                    referred: digit(5),
                };
                let (expected, matches, _) = TABLE.into_iter().find(|(_, _, fits)| fits(&counts, &quorums)).unwrap();
                assert_eq!(view.status(counts), expected, "{counts:?} with a quorum of {retract} to retract");
                assert_eq!(expected.matches(), matches);
                reached.insert(expected);
            }
        }
        assert_eq!(reached.len(), 7, "every row but the reserved one: {reached:?}");
    }

    /// PROTOCOL section 2, Roles, column "counts as": what one member of each role adds to a subject's counts.
    #[test]
    fn each_role_counts_as_the_table_says() {
        const NOTHING: &str = "";
        // submit, endorse, dispute, neutral, retract, keep, allow, allow ended, referral, referral closed
        let table: [(u32, [&str; 10]); 14] = [
            (FULL, ["support", "support", "disputes", "", "retract", "", "", "", "", ""]),
            (SMALL, ["small", "small", "disputes", "", "", "", "", "", "", ""]),
            (OBSERVER, [NOTHING; 10]),
            (REFERRAL, ["", "", "", "", "", "", "", "", "referred", ""]),
            (CERTIFIER, ["", "", "", "", "", "", "allow", "", "", ""]),
            (AUDITOR, [NOTHING; 10]),
            (STEWARD, [NOTHING; 10]),
            // Roles are the union of their bits; whoever is FULL is never counted as SMALL.
            (FULL | SMALL, ["support", "support", "disputes", "", "retract", "", "", "", "", ""]),
            (FULL | STEWARD, ["support", "support", "disputes", "", "retract", "", "", "", "", ""]),
            (FULL | CERTIFIER, ["support", "support", "disputes", "", "retract", "", "allow", "", "", ""]),
            (SMALL | CERTIFIER, ["small", "small", "disputes", "", "", "", "allow", "", "", ""]),
            (SMALL | OBSERVER, ["small", "small", "disputes", "", "", "", "", "", "", ""]),
            (REFERRAL | AUDITOR, ["", "", "", "", "", "", "", "", "referred", ""]),
            (AUDITOR | STEWARD, [NOTHING; 10]),
        ];
        let soon = START.plus(TimeMs::DAY_MS);
        let words: [(&str, bytes::Bytes); 10] = [
            ("submit", opinion(1, SUBMIT)),
            ("endorse", opinion(1, ENDORSE)),
            ("dispute", opinion(1, DISPUTE)),
            ("neutral", opinion(1, NEUTRAL)),
            ("retract", retract(1, true)),
            ("keep", retract(1, false)),
            ("allow", allow(1, true, soon)),
            ("allow ended", allow(1, false, TimeMs(0))),
            ("referral", referral(1, true)),
            ("referral closed", referral(1, false)),
        ];
        for (roles, row) in table {
            for ((what, word), column) in words.iter().zip(row) {
                let mut world = World::of(&[("a", roles), ("b", FULL)]);
                world.say(1, word.clone());
                let counts = world.view().entry(&subject(1), world.clock).map(|e| e.counts).unwrap_or_default();
                let one = |name| u32::from(column == name);
                let expected = Counts {
                    support: one("support"),
                    small_support: one("small"),
                    disputes: one("disputes"),
                    retract: one("retract"),
                    allow: one("allow"),
                    referred: one("referred"),
                };
                assert_eq!(counts, expected, "{what} by {:?}", Roles::from_bits(roles).names());
            }
        }
    }

    /// I20: whatever referral units say, nothing is listed by it alone.
    #[test]
    fn referrals_alone_never_list_anything() {
        let mut world = World::of(&[("a", REFERRAL), ("b", REFERRAL | AUDITOR), ("c", REFERRAL), ("d", FULL)]);
        for member in 1..=3 {
            world.say(member, opinion(1, SUBMIT)).say(member, opinion(1, ENDORSE)).say(member, referral(1, true));
        }
        assert_eq!(world.status(1), Status::Referred);
        world.say(1, referral(1, false)).say(2, referral(1, false));
        assert_eq!(world.status(1), Status::Referred, "one is still open");
        world.say(3, referral(1, false));
        assert_eq!(world.status(1), Status::Inactive);
        world.say(3, referral_until(1, true, START.plus(TimeMs::HOUR_MS)));
        let ended = world.view().entry(&subject(1), START.plus(TimeMs::HOUR_MS)).unwrap();
        assert_eq!((world.status(1), ended.status), (Status::Referred, Status::Inactive), "its deadline has passed");
    }

    #[test]
    fn counts_are_of_groups_and_each_register_counts_once() {
        let mut world = World::of(&[("a", FULL), ("a", FULL), ("b", FULL), ("b", SMALL)]);
        for member in 1..=4 {
            world.say(member, opinion(1, SUBMIT)).say(member, opinion(1, ENDORSE)).say(member, retract(1, true));
        }
        let entry = world.view().entry(&subject(1), world.clock).unwrap();
        let expected = Counts { support: 2, small_support: 1, retract: 2, ..Counts::default() };
        assert_eq!(entry.counts, expected);
        assert_eq!(entry.said.len(), 7, "a register each of STANCE, and of RETRACT where the role allows it");
    }

    /// Rounded up: of 5 FULL groups 500 permille are 3; and never below `retract_min`.
    #[test]
    fn the_retract_quorum_is_rounded_up_and_never_below_its_least() {
        for (groups, permille, min, quorum) in [
            (5, 500, 2, 3),
            (4, 500, 2, 2),
            (5, 1, 1, 1),
            (5, 1000, 1, 5),
            (3, 334, 1, 2),
            (3, 333, 1, 1),
            (3, 1, 3, 3),
            (5, 601, 1, 4),
        ] {
            let names: Vec<_> = (0..groups).map(|n| format!("g{n}")).collect();
            let members: Vec<_> = names.iter().map(|n| (n.as_str(), FULL)).collect();
            let mut world = World::new(TestForum::with(&members, |c| {
                let policy = c.policy.as_mut().unwrap();
                (policy.retract_min, policy.retract_permille) = (min, permille);
            }));
            world.say(1, opinion(1, SUBMIT));
            for voters in 1..=groups {
                world.say(voters, retract(1, true));
                let retracted = world.status(1) == Status::Retracted;
                assert_eq!(retracted, voters >= quorum, "{voters} of {groups}, {permille} permille, at least {min}");
            }
        }
    }

    #[test]
    fn the_latest_word_by_its_authors_time_wins_whichever_lane_it_took() {
        let mut world = World::of(&[("a", FULL)]);
        world.say_in(1, 1, Class::Urgent, &[opinion(1, SUBMIT)]);
        world.say_in(1, 0, Class::Normal, &[opinion(1, NEUTRAL)]);
        assert_eq!(world.status(1), Status::Inactive);
        world.say_in(1, 1, Class::Urgent, &[opinion(1, SUBMIT), opinion(1, DISPUTE), opinion(1, ENDORSE)]);
        let entry = world.view().entry(&subject(1), world.clock).unwrap();
        assert_eq!(entry.said.len(), 1);
        assert_eq!(
            (entry.said[0].word, entry.said[0].index),
            (Word::Stance(Stance::Endorse), 3 - 1),
            "the last of a block"
        );
    }

    #[test]
    fn what_expires_reads_as_taken_back_from_that_instant_on() {
        let expires = START.plus(90 * 60_000);
        let mut world = World::of(&[("a", FULL), ("b", CERTIFIER)]);
        world.say(1, opinion_with(1, SUBMIT, |o| o.expires_ms = expires.0)).say(2, allow(2, true, expires));
        let mut view = world.view();
        for (t, status, other) in [
            (START, Status::Active, Status::Allowed),
            (TimeMs(expires.0 - 1), Status::Active, Status::Allowed),
            (expires, Status::Inactive, Status::Inactive),
        ] {
            assert_eq!(view.entry(&subject(1), t).unwrap().status, status);
            assert_eq!(view.entry(&subject(2), t).unwrap().status, other);
        }
        for (minutes, listed) in [(0, 2), (60, 2), (119, 2), (120, 0), (600, 0)] {
            view.advance(START.plus(minutes * 60_000));
            assert_eq!(view.listed(), listed, "at minute {minutes}: the digest is of the hour's start");
        }
        assert_eq!(view.digest().1, [0; 32], "nothing is listed");
    }

    #[test]
    fn a_content_opinion_without_expiry_stands_for_ever() {
        let mut world = World::of(&[("a", FULL)]);
        world.say(1, opinion(1, SUBMIT));
        let mut view = world.view();
        let far = TimeMs(START.0 * 100);
        view.advance(far);
        assert_eq!((view.entry(&subject(1), far).unwrap().status, view.listed()), (Status::Active, 1));
    }

    #[test]
    fn an_allow_of_more_than_400_days_is_inert() {
        assert_eq!(ALLOW_DAYS_MAX, 400);
        for (beyond_ms, status) in [(0, Status::Allowed), (1, Status::Active)] {
            let mut world = World::of(&[("a", FULL), ("b", CERTIFIER)]);
            world.say(1, opinion(1, SUBMIT));
            let block_time = world.clock.plus(1);
            world.say(2, allow(1, true, block_time.plus(400 * TimeMs::DAY_MS + beyond_ms)));
            assert_eq!(world.status(1), status, "{beyond_ms} ms beyond");
            let conflict = world.view().entry(&subject(1), world.clock).unwrap().allow_conflict;
            assert_eq!(conflict, status == Status::Allowed, "people have to look at what is certified and listed");
        }
        let mut world = World::of(&[("b", CERTIFIER)]);
        world.say(1, allow(1, true, TimeMs(0)));
        assert!(world.view().entry(&subject(1), world.clock).is_none(), "an ALLOW without end is inert");
    }

    #[test]
    fn former_members_keep_their_support_and_lose_their_votes() {
        let members = [("a", FULL), ("b", FULL), ("c", FULL), ("d", CERTIFIER), ("e", REFERRAL)];
        let mut world = World::of(&members);
        world.say(1, opinion(1, SUBMIT)).say(1, opinion(2, DISPUTE)).say(1, retract(3, true));
        world
            .say(2, opinion(2, SUBMIT))
            .say(2, opinion(3, SUBMIT))
            .say(2, retract(3, true))
            .say(3, opinion(2, DISPUTE));
        world.say(4, allow(4, true, START.plus(TimeMs::DAY_MS))).say(5, referral(5, true));
        let statuses = |world: &World| [1, 2, 3, 4, 5].map(|about| world.status(about));
        use Status::{Active, Allowed, Contested, Inactive, Referred, Retracted};
        assert_eq!(statuses(&world), [Active, Contested, Retracted, Allowed, Referred]);
        world.forum.issue(|c| [0, 3, 4].into_iter().for_each(|n| c.members[n].status = 3));
        assert_eq!(statuses(&world), [Active, Active, Active, Inactive, Inactive]);
        let said = world.view().entry(&subject(2), world.clock).unwrap().said;
        assert_eq!(said.iter().filter(|s| s.counts).count(), 2, "it is still shown what the former member said");
        assert_eq!(said.len(), 3);
    }

    #[test]
    fn blocks_from_before_the_admission_are_inert() {
        let mut world = World::of(&[("a", FULL)]);
        world.say(1, opinion(1, SUBMIT)).say(1, opinion(2, SUBMIT));
        let admitted = world.clock.0;
        world.forum.issue(|c| c.members[0].admitted_ms = admitted);
        let view = world.view();
        assert!(view.entry(&subject(1), world.clock).is_none());
        assert_eq!(view.entry(&subject(2), world.clock).unwrap().status, Status::Active);
    }

    #[test]
    fn records_beyond_the_quota_of_a_day_are_inert() {
        let quota = |c: &mut proto::Charter| c.policy.as_mut().unwrap().quota_per_day = vec![4, 2, 3];
        let mut world = World::new(TestForum::with(&[("a", FULL), ("b", FULL)], quota));
        // The opening takes a place; three opinions fit, the fourth does not.
        world.say_in(1, 0, Class::Normal, &[1, 2, 3, 4].map(|n| opinion(n, SUBMIT)));
        // Another lane and another member have quotas of their own.
        world.say_in(1, 1, Class::Urgent, &[5, 6].map(|n| opinion(n, SUBMIT)));
        world.say_in(2, 0, Class::Bulk, &[7, 8, 9].map(|n| opinion(n, SUBMIT)));
        // Withdrawals have one of the same size of their own.
        world.say_in(
            1,
            0,
            Class::Normal,
            &[opinion(1, NEUTRAL), retract(11, true), opinion(5, NEUTRAL), retract(12, true), retract(13, true)],
        );
        // The next day begins anew.
        world.clock = START.plus(TimeMs::DAY_MS);
        world.say_in(1, 0, Class::Normal, &[14, 15, 16, 17, 18].map(|n| opinion(n, SUBMIT)));
        let view = world.view();
        let known: Vec<u8> = (1..=18).filter(|n| view.entry(&subject(*n), world.clock).is_some()).collect();
        assert_eq!(known, [1, 2, 3, 5, 7, 8, 11, 12, 14, 15, 16, 17]);
        let used = |member, class, day| view.quotas().used(id(member), class, day);
        assert_eq!(used(1, Class::Normal, START.day()), [5, 5]);
        assert_eq!(used(1, Class::Normal, START.day() + 1), [5, 0]);
        assert_eq!(used(1, Class::Urgent, START.day()), [3, 0]);
        assert_eq!(used(2, Class::Urgent, START.day()), [0, 0]);
        assert_eq!(
            view.entry(&subject(1), world.clock).unwrap().status,
            Status::Inactive,
            "withdrawn within its quota"
        );
    }

    #[test]
    fn the_lower_log_has_the_first_claim_on_a_quota() {
        let quota = |c: &mut proto::Charter| c.policy.as_mut().unwrap().quota_per_day = vec![4, 4, 4];
        let mut world = World::new(TestForum::with(&[("a", FULL)], quota));
        world.say_in(1, 1, Class::Normal, &[1, 2].map(|n| opinion(n, SUBMIT)));
        assert!(!world.view().is_stale());
        world.say_in(1, 0, Class::Normal, &[3, 4].map(|n| opinion(n, SUBMIT)));
        assert!(world.view().is_stale(), "what was counted before may be beyond the quota now");
        let rebuilt = world.rebuilt();
        let known: Vec<u8> = (1..=4).filter(|n| rebuilt.entry(&subject(*n), world.clock).is_some()).collect();
        assert_eq!(known, [3, 4]);
    }

    #[test]
    fn labels_of_an_incident_apply_while_somebody_has_it_open() {
        let at = |hours: u64| START.plus(hours * TimeMs::HOUR_MS);
        let joined = |o: &mut proto::Opinion| {
            o.incident_id = vec![7; 16].into();
            o.labels = vec![2];
        };
        let mut world = World::of(&[("a", FULL), ("b", STEWARD), ("c", SMALL)]);
        let labels = |world: &World, t| world.view().entry(&subject(1), t).unwrap().labels;
        world.say(1, opinion_with(1, SUBMIT, joined));
        assert_eq!(labels(&world, at(0)), [2], "nobody opened it");
        world.say(3, incident(7, 66, true, TimeMs(0)));
        assert_eq!(labels(&world, at(0)), [2], "a SMALL member opens no incident");
        world.say(1, incident(7, 11, true, at(2))).say(2, incident(7, 12, true, TimeMs(0)));
        assert_eq!(labels(&world, at(0)), [2, 11, 12]);
        assert!(world.view().in_open_incident(&subject(1), at(0)));
        assert_eq!(labels(&world, at(2)), [2, 12], "the first closed by itself");
        world.say(2, incident(7, 12, false, TimeMs(0)));
        assert_eq!(labels(&world, at(0)), [2, 11]);
        assert_eq!(labels(&world, at(2)), [2]);
        assert!(!world.view().in_open_incident(&subject(1), at(2)));
        let mut view = world.view();
        let before = view.digest().1;
        view.advance(at(2));
        assert_ne!(view.digest().1, before, "labels are part of the digest");
        world.say(1, opinion(1, ENDORSE));
        assert_eq!(labels(&world, at(0)), [0_u32; 0], "the later word did not join the incident");
    }

    fn image_of(view: &View) -> Vec<u8> {
        written(&view.image())
    }

    fn written(image: &image::Image) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sink = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok::<_, ()>(())
        };
        image.write_to(&mut sink).unwrap();
        bytes
    }

    /// At any point of a busy world's life a view can be written and read, and neither it nor the one that goes on differs
    /// from then on from one that was derived.
    #[test]
    fn a_view_that_was_read_is_the_view_that_was_written() {
        for (quota, quarter) in [(1_000, 0), (1_000, 1), (1_000, 2), (1_000, 3), (1_000, 4), (12, 2)] {
            let world = busy(quota);
            let charter = world.forum.charter();
            let blocks = rebuild_order(&world.blocks);
            let (before, after) = blocks.split_at(blocks.len() * quarter / 4);
            let mut view = world.fold(before.iter().copied());
            if quarter == 3 {
                view.advance(START.plus(TimeMs::HOUR_MS));
            }
            let image = view.image();
            let bytes = written(&image);
            let mut read = View::read_from(&charter, &bytes).unwrap();
            assert_eq!(image_of(&read), bytes);
            for (n, block) in after.iter().enumerate() {
                read.fold(block.header(), block.records());
                view.fold(block.header(), block.records());
                if n % 40 == 39 {
                    let t = START.plus((n as u64 / 40) * TimeMs::HOUR_MS / 2);
                    read.advance(t);
                    view.advance(t);
                }
                assert_eq!(read.digest(), view.digest());
            }
            assert_eq!(written(&image), bytes, "an image stays as it was");
            assert_eq!(image_of(&read), image_of(&view));
            let later = START.plus(5 * TimeMs::HOUR_MS);
            let mut rebuilt = world.rebuilt();
            [&mut read, &mut rebuilt].into_iter().for_each(|view| view.advance(later));
            assert_eq!((read.digest(), read.listed()), (rebuilt.digest(), rebuilt.listed()));
            assert_eq!((read.records(), read.inert()), (rebuilt.records(), rebuilt.inert()));
            assert_eq!(shown(&read, START), shown(&rebuilt, START));
            assert!(read.changes_since(&rebuilt).is_empty());
            let notes = |view: &View| format!("{:?} {:?}", view.notes(), view.quotas());
            assert_eq!(notes(&read), notes(&rebuilt));
        }
    }

    #[test]
    fn an_image_of_another_charter_release_or_length_is_refused() {
        let mut world = busy(1_000);
        let bytes = image_of(&world.view());
        let charter = world.forum.charter();
        let refused = |charter, bytes: &[u8]| View::read_from(charter, bytes).unwrap_err();
        assert_eq!(refused(&charter, &bytes[..bytes.len() - 1]), Damaged::Short);
        assert_eq!(refused(&charter, &[bytes.as_slice(), &[0]].concat()), Damaged::Long);
        let later = [&(image::VERSION + 1).to_le_bytes(), &bytes[4..]].concat();
        assert_eq!(refused(&charter, &later), Damaged::Version { got: image::VERSION + 1, expected: image::VERSION });
        world.forum.issue(|c| c.members[0].status = 3);
        let (got, expected) = (charter.hash, world.forum.charter().hash);
        assert_eq!(refused(&world.forum.charter(), &bytes), Damaged::Charter { got, expected });
    }

    /// The file of an image has a checksum. This is the fence behind it.
    #[test]
    fn no_damage_to_an_image_makes_a_view_panic() {
        let world = busy(1_000);
        let charter = world.forum.charter();
        let bytes = image_of(&world.view());
        let (mut draw, mut taken) = (Draw(3), 0);
        for round in 0..3_000 {
            let mut bytes = bytes.clone();
            for _ in 0..=draw.below(3) {
                let at = draw.below(bytes.len() as u64) as usize;
                bytes[at] = if draw.below(2) == 0 { bytes[at] ^ 1 << draw.below(8) } else { draw.below(256) as u8 };
            }
            if round % 10 == 0 {
                let at = draw.below(bytes.len() as u64) as usize;
                bytes.truncate(at);
            }
            let Ok(mut view) = View::read_from(&charter, &bytes) else { continue };
            taken += 1;
            if taken % 8 == 0 {
                view.follow_changes();
                world.blocks.iter().for_each(|block| view.fold(block.header(), block.records()));
                assert_eq!(shown(&view, world.clock).len(), view.known());
                view.ending(view.digest().0, TimeMs(u64::MAX)).unwrap().for_each(drop);
                view.advance(TimeMs(u64::MAX));
                assert_eq!(view.changes_since(&view), []);
            }
        }
        assert!(taken > 100, "{taken} of 3000 were taken for whole");
    }

    /// What is told of a stretch is what a look at every subject finds, whichever words and incidents end in it.
    #[test]
    fn what_ends_within_a_stretch_is_found_without_looking_at_every_subject() {
        let world = busy(1_000);
        let mut view = world.view();
        let mut found = 0;
        for (hour, from, until) in
            [(0, 0, 1), (0, 0, 60), (0, 59, 61), (0, 60, 180), (1, 60, 240), (2, 119, 120), (2, 130, 900)]
        {
            view.advance(START.plus(hour * TimeMs::HOUR_MS));
            let (from, until) = (START.plus(from * 60_000), START.plus(until * 60_000));
            let stretch = Stretch { is_within: &|_| false, from, until };
            let expected: Vec<_> = view.changed(None, &stretch).filter(|(_, may)| *may).map(|(s, _)| s).collect();
            let ending = view.ending(from, until).map(|ending| ending.collect::<Vec<_>>());
            assert_eq!(ending, (from >= view.digest().0).then_some(expected.clone()), "{from:?} to {until:?}");
            found += expected.len();
        }
        assert!(found > 10, "{found}");
    }

    #[test]
    fn where_too_much_ends_at_once_the_list_has_to_be_walked_through() {
        let mut view = World::of(&[("a", FULL)]).view();
        for n in 0..=ENDING_MAX as u32 {
            let end = TimeMs(START.0 + 1 + u64::from(n));
            view.will_end(&Subject::of(Alg::Md5, &[7; 16]), end);
        }
        let last = START.plus(ENDING_MAX as u64);
        assert!(view.ending(START, last).is_some());
        assert!(view.ending(START, last.plus(1)).is_none());
        assert!(view.ending(START.plus(1), last.plus(1)).is_some());
        view.advance(START.plus(TimeMs::HOUR_MS));
        assert_eq!(view.ends.len(), 0);
    }

    fn account_opinion(pepper: u32, stance: u32, expires: TimeMs) -> bytes::Bytes {
        let subject = Some(account(5, pepper).to_proto());
        encoded(proto::Kind::Opinion, &proto::Opinion { subject, stance, expires_ms: expires.0, ..Default::default() })
    }

    /// M6: an account is listed only under a pepper that the charter has, from level 3 on, and with an end in its term.
    #[test]
    fn what_is_said_of_accounts_counts_with_permission_and_an_end_only() {
        let ttl = ACCOUNT_DAYS * TimeMs::DAY_MS;
        let said = START.plus(1);
        let latest = said.plus(ttl);
        let with = |peppers: &[u32], record: bytes::Bytes| {
            let forum = TestForum::with(&[("a", FULL | CERTIFIER), ("b", FULL)], |c| with_peppers(c, peppers));
            let mut world = World::new(forum);
            world.say(1, record);
            let view = world.view();
            (view.listed(), view.inert())
        };
        let subject = || Some(account(5, 2).to_proto());
        let allow = |expires: TimeMs| {
            encoded(
                proto::Kind::Allow,
                &proto::Allow { subject: subject(), yes: true, expires_ms: expires.0, certificate: 0 },
            )
        };
        for (what, peppers, record, listed) in [
            ("with an end", &[2][..], account_opinion(2, SUBMIT, latest), 1),
            ("of an older pepper", &[2, 7], account_opinion(2, SUBMIT, latest), 1),
            ("without an end", &[2], account_opinion(2, SUBMIT, TimeMs(0)), 0),
            ("with an end that is too late", &[2], account_opinion(2, SUBMIT, latest.plus(1)), 0),
            ("of another pepper", &[2], account_opinion(3, SUBMIT, latest), 0),
            ("without any pepper", &[], account_opinion(2, SUBMIT, latest), 0),
            ("of pepper 0", &[2], account_opinion(0, SUBMIT, latest), 0),
            ("certified with an end", &[2], allow(latest), 1),
            ("certified for too long", &[2], allow(latest.plus(1)), 0),
        ] {
            assert_eq!(with(peppers, record), (listed, 1 - listed), "{what}");
        }
        // Below level 3 nothing of it counts, whatever else it says.
        let mut world = World::of(&[("a", FULL)]);
        world.say(1, account_opinion(2, SUBMIT, latest)).say(1, account_opinion(2, NEUTRAL, TimeMs(0)));
        assert_eq!((world.view().listed(), world.view().inert()), (0, 2));
    }

    /// What takes something back, or ends an entry, needs no end: it lists nobody. A note beside the status has none.
    #[test]
    fn an_account_is_taken_back_and_retracted_without_an_end() {
        let forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| with_peppers(c, &[2]));
        let subject = || Some(account(5, 2).to_proto());
        let mut world = World::new(forum);
        let status = |world: &World| world.view().entry(&account(5, 2), world.clock).map(|e| e.status);
        world.say(1, account_opinion(2, SUBMIT, START.plus(TimeMs::DAY_MS)));
        assert_eq!(status(&world), Some(Status::Active));
        world.say(1, account_opinion(2, NEUTRAL, TimeMs(0)));
        assert_eq!(status(&world), Some(Status::Inactive));
        world.say(1, account_opinion(2, SUBMIT, START.plus(TimeMs::DAY_MS)));
        let vote = encoded(
            proto::Kind::RetractVote,
            &proto::RetractVote { subject: subject(), yes: true, ..Default::default() },
        );
        world.say(1, vote.clone()).say(2, vote);
        assert_eq!(status(&world), Some(Status::Retracted));
        assert_eq!(world.view().inert(), 0);
        world.say(1, encoded(proto::Kind::Outcome, &proto::Outcome { subject: subject(), result: 1, acted_ms: 1 }));
        assert_eq!(world.view().inert(), 1);
    }

    #[test]
    fn an_account_stops_matching_at_its_end_on_every_node() {
        let end = START.plus(TimeMs::HOUR_MS);
        let forum = TestForum::with(&[("a", FULL)], |c| with_peppers(c, &[2]));
        let mut world = World::new(forum);
        world.say(1, account_opinion(2, SUBMIT, end));
        let mut view = world.view();
        let matches = |view: &View, t| view.entry(&account(5, 2), t).unwrap().status.matches();
        assert!(matches(&view, TimeMs(end.0 - 1)) && !matches(&view, end));
        assert_eq!(view.listed(), 1);
        view.advance(end);
        assert_eq!(view.listed(), 0, "and leaves the digest with the hour");
    }

    /// The quota of a forum below level 3 is the same on a node that has never heard of accounts: to it they are inert.
    #[test]
    fn a_withdrawal_of_an_account_has_a_quota_of_its_own_from_level_3_on() {
        let used = |level: u32| {
            let forum = TestForum::with(&[("a", FULL)], |c| {
                with_peppers(c, &[2]);
                if level < 3 {
                    (c.semantics, c.peppers) = (level, Vec::new());
                }
            });
            let mut world = World::new(forum);
            world.say(1, account_opinion(2, NEUTRAL, TimeMs(0)));
            world.view().quotas().used(id(1), Class::Normal, START.day())
        };
        // The log's opening is one.
        assert_eq!((used(2), used(3)), ([2, 0], [1, 1]));
    }

    #[test]
    fn only_supporters_give_labels_and_languages() {
        let tags = |label: u32, language: &'static str| {
            move |o: &mut proto::Opinion| {
                o.labels = vec![label];
                o.languages = vec![language.into()];
            }
        };
        let mut world = World::of(&[("a", FULL), ("b", FULL), ("c", SMALL)]);
        world.say(1, opinion_with(1, SUBMIT, tags(3, "fr"))).say(2, opinion_with(1, DISPUTE, tags(4, "de")));
        world.say(3, opinion_with(1, ENDORSE, tags(1, "en")));
        let entry = world.view().entry(&subject(1), world.clock).unwrap();
        assert_eq!((entry.labels, entry.languages), (vec![1, 3], vec!["en".into(), "fr".to_owned()]));
    }

    #[test]
    fn blocks_of_strangers_and_of_unknown_lanes_change_nothing() {
        let mut world = World::of(&[("a", FULL), ("b", FULL)]);
        world.say(1, opinion(1, SUBMIT)).say(2, opinion(1, SUBMIT));
        let mut of_one = world.forum.clone();
        of_one.issue(|c| {
            c.members.remove(1);
        });
        let mut view = View::new(&of_one.charter(), START);
        world.blocks.iter().for_each(|b| view.fold(b.header(), b.records()));
        assert_eq!(view.entry(&subject(1), world.clock).unwrap().counts.support, 1);

        let log = world.forum.log(1, 1, Class::Normal);
        let mut header = log.draft(&[opinion(2, SUBMIT)], |_| ()).header.header().clone();
        header.class = 3;
        let records = world.blocks[0].records().to_vec();
        let mut view = View::new(&world.forum.charter(), START);
        view.fold(&header, &records);
        assert_eq!((view.listed(), view.records()), (0, 2));
    }

    proptest! {
        #[test]
        fn what_was_added_can_be_taken_away_in_any_order(summands in prop::collection::vec(any::<[u8; 32]>(), 0..8)) {
            let mut sum = Sum256::default();
            summands.iter().for_each(|s| sum.add(*s));
            summands.iter().rev().for_each(|s| sum.subtract(*s));
            prop_assert_eq!(sum, Sum256::default());
        }
    }

    #[test]
    fn a_sum_carries_and_wraps() {
        let mut sum = Sum256::default();
        sum.add([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 2;
        sum.add(one);
        one[31] = 1;
        assert_eq!(sum.to_bytes(), one);
    }

    #[test]
    fn a_register_and_a_subject_stay_small() {
        const { assert!(Register::SIZE <= 20) };
        assert!(size_of::<Subject>() <= 48, "{}", size_of::<Subject>());
        assert!(size_of::<BlockPlace>() <= 24, "{}", size_of::<BlockPlace>());
    }

    proptest! {
        #[test]
        fn a_register_survives_its_cell(
            (block, terms, expires) in (any::<u32>(), any::<u32>(), any::<u64>()),
            (index, word) in (0..512_u16, 0..Register::WORDS.len()),
        ) {
            let word = Register::WORDS[word];
            let register = Register { block, terms, expires: TimeMs(expires), index, word };
            let read = Register::from_cell(register.to_cell());
            prop_assert_eq!((read.block, read.terms, read.expires.0), (block, terms, expires));
            prop_assert_eq!((read.index, read.word), (index, word));
        }
    }
}
