//! The pure view: registers, statuses, counts, digest (PROTOCOL section 5, layers 4 to 6).
//!
//! The view is a function of the *set* of blocks and of the charter: folding the same blocks in any order gives the
//! same registers, because each register keeps the record with the greatest `(time, log, seq, index)`. The one rule
//! that looks at order, the quota, looks at the logs' own; where blocks arrive so that it cannot be decided at once,
//! the view says that it is stale and is derived again from the blocks.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::{self, Quotas};
use super::block::Header;
use super::charter::{Charter, MemberStatus, Roles};
use super::ids::{BlockId, Class, LogNo, MemberId, Origin, Seq, SubjectId, TimeMs, sha256};
use super::index::HammingIndex;
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

    /// What it reads as once it has expired.
    fn is_neutral(self) -> bool {
        matches!(
            self,
            Self::Stance(Stance::Neutral) | Self::Retract(false) | Self::Allow(false) | Self::Referral(false)
        )
    }
}

/// Index into the view's members; the charter's order.
type Seat = u16;

/// One member's latest word of one family on one subject. 56 bytes: there is at least one for every subject.
#[derive(Clone, Debug)]
struct Register {
    time: TimeMs,
    expires: TimeMs,
    seq: Seq,
    log_no: LogNo,
    tags: u32,
    incident: u32,
    index: u16,
    seat: Seat,
    word: Word,
    severity: u8,
    reason: u8,
}

/// "No incident" in [`Register::incident`].
const NO_INCIDENT: u32 = u32::MAX;

impl Register {
    /// Layer 5: the greatest wins.
    fn rank(&self) -> (TimeMs, LogNo, Seq, u16) {
        (self.time, self.log_no, self.seq, self.index)
    }

    fn reads(&self, t: TimeMs) -> Option<Word> {
        let expired = self.expires > TimeMs(0) && self.expires <= t;
        (!expired && !self.word.is_neutral()).then_some(self.word)
    }
}

/// Nearly every subject has one register, which then needs no allocation.
#[derive(Clone, Debug)]
enum Registers {
    One(Register),
    Many(Vec<Register>),
}

impl Registers {
    fn as_slice(&self) -> &[Register] {
        match self {
            Self::One(register) => std::slice::from_ref(register),
            Self::Many(registers) => registers,
        }
    }

    /// Keeps the greater of the register that stands and `new`; tells whether `new` stands now.
    fn put(&mut self, new: Register) -> bool {
        let registers = match self {
            Self::One(register) => std::slice::from_mut(register),
            Self::Many(registers) => registers.as_mut_slice(),
        };
        if let Some(old) = registers.iter_mut().find(|r| r.seat == new.seat && r.word.same_family(new.word)) {
            let wins = new.rank() > old.rank();
            if wins {
                *old = new;
            }
            return wins;
        }
        match self {
            Self::One(first) => *self = Self::Many(vec![first.clone(), new]),
            Self::Many(registers) => registers.push(new),
        }
        true
    }
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

/// A member as the view needs it.
#[derive(Clone, Debug)]
struct SeatInfo {
    id: MemberId,
    group: u16,
    roles: Roles,
    admitted: TimeMs,
    votes: bool,
}

/// Labels and languages of one opinion; few distinct ones exist, so registers name them by number.
type Tags = (Box<[u32]>, Box<[String]>);

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

/// The forum's list as the blocks folded so far make it.
#[derive(Clone, Debug)]
pub struct View {
    charter: Charter,
    seats: Vec<SeatInfo>,
    full_groups: usize,
    subjects: BTreeMap<Subject, Registers>,
    pdq: HammingIndex,
    quotas: Quotas,
    tags: BTreeMap<Tags, u32>,
    tags_by_number: Vec<Tags>,
    incidents: Vec<Incident>,
    incident_numbers: BTreeMap<IncidentId, u32>,
    /// When a subject's or an incident's standing changes by itself.
    expiries: BTreeSet<(TimeMs, Subject)>,
    hour: TimeMs,
    digest: Sum256,
    listed: u64,
    records: u64,
    inert: u64,
    stale: bool,
    quota_by_arrival: bool,
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
            subjects: BTreeMap::new(),
            pdq: HammingIndex::default(),
            quotas: Quotas::default(),
            tags: BTreeMap::new(),
            tags_by_number: Vec::new(),
            incidents: Vec::new(),
            incident_numbers: BTreeMap::new(),
            expiries: BTreeSet::new(),
            hour: hour.hour(),
            digest: Sum256::default(),
            listed: 0,
            records: 0,
            inert: 0,
            stale: false,
            quota_by_arrival: false,
        }
    }

    /// The wrong rule "quota by arrival"; for the simulator.
    #[cfg(feature = "wrong-rules")]
    pub fn count_quota_by_arrival(&mut self) {
        self.quota_by_arrival = true;
    }

    /// Takes in the records of one block that is within its log's prefix.
    pub fn fold(&mut self, header: &Header, records: &[Parsed]) {
        self.records += records.len() as u64;
        let Some(seat) = self.seats.iter().position(|s| s.id == header.id.origin.member) else { return };
        let Some(class) = Class::from_number(header.class) else { return };
        let origin = header.id.origin;
        let counted = if self.quota_by_arrival { Origin { log_no: LogNo(u32::MAX), ..origin } } else { origin };
        let mut room = self.quotas.room(&self.charter, counted, class, header.time.day());
        let too_early = header.time < self.seats[seat].admitted;
        let mut used = [0_u32; 2];
        for (index, record) in records.iter().enumerate() {
            let withdraws = record.withdraws();
            used[usize::from(withdraws)] += 1;
            let within = room.take(withdraws);
            match record {
                Parsed::Says(statement)
                    if within && !too_early && admission::may_say(self.seats[seat].roles, statement) =>
                {
                    self.take(header, seat, index, statement);
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

    fn take(&mut self, header: &Header, seat: usize, index: usize, statement: &Statement) {
        let place = |word, expires| Register {
            time: header.time,
            expires,
            seq: header.id.seq,
            log_no: header.id.origin.log_no,
            tags: 0,
            incident: NO_INCIDENT,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            seat: u16::try_from(seat).unwrap_or(u16::MAX),
            word,
            severity: 0,
            reason: 0,
        };
        match statement {
            Statement::Opinion(opinion) => {
                let mut register = place(Word::Stance(opinion.stance), opinion.expires);
                register.tags = self.tags(opinion);
                register.severity = opinion.severity;
                register.reason = opinion.reason;
                if let Some(id) = opinion.incident {
                    register.incident = self.incident(id);
                }
                self.put(&opinion.subject, register);
            }
            Statement::Retract { subject, yes, reason } => {
                let mut register = place(Word::Retract(*yes), TimeMs(0));
                register.reason = u8::try_from(*reason).unwrap_or(0);
                self.put(subject, register);
            }
            Statement::Allow { subject, yes, expires } => {
                let limit = header.time.plus(ALLOW_DAYS_MAX * TimeMs::DAY_MS);
                if *expires <= limit {
                    self.put(subject, place(Word::Allow(*yes), *expires));
                }
            }
            Statement::Referral { subject, open, expires } => self.put(subject, place(Word::Referral(*open), *expires)),
            Statement::Incident { id, code, open, closes } => {
                let register = place(Word::Referral(*open), *closes);
                self.put_incident(*id, &register, *open, *code);
            }
            Statement::LogOpen(_) | Statement::LogClose | Statement::Evidence => {}
        }
    }

    fn put(&mut self, subject: &Subject, register: Register) {
        let before = self.contribution(subject);
        if register.expires > self.hour {
            self.expiries.insert((register.expires, subject.clone()));
        }
        if let Some(incident) = self.incidents.get_mut(register.incident as usize) {
            incident.subjects.insert(subject.clone());
            // The incident may close by itself, and with it end its labels here: whichever was heard of first.
            let closing = incident.registers.values().map(|r| r.closes).filter(|closes| *closes > self.hour);
            self.expiries.extend(closing.map(|closes| (closes, subject.clone())));
        }
        let changed = match self.subjects.get_mut(subject) {
            Some(registers) => registers.put(register),
            None => {
                if subject.alg() == Alg::Pdq.number()
                    && let Ok(hash) = subject.digest().try_into()
                {
                    self.pdq.insert(hash);
                }
                self.subjects.insert(subject.clone(), Registers::One(register));
                true
            }
        };
        if changed {
            self.replace(before, subject);
        }
    }

    fn put_incident(&mut self, id: IncidentId, register: &Register, open: bool, code: u32) {
        let number = self.incident(id) as usize;
        let subjects: Vec<_> = self.incidents[number].subjects.iter().cloned().collect();
        let before: Vec<_> = subjects.iter().map(|s| self.contribution(s)).collect();
        let registers = &mut self.incidents[number].registers;
        let stands = registers.get(&register.seat).is_some_and(|old| old.rank >= register.rank());
        if stands {
            return;
        }
        let said = IncidentRegister { rank: register.rank(), open, closes: register.expires, code };
        registers.insert(register.seat, said);
        for (subject, before) in subjects.iter().zip(before) {
            self.replace(before, subject);
            if register.expires > self.hour {
                self.expiries.insert((register.expires, subject.clone()));
            }
        }
    }

    fn tags(&mut self, opinion: &Opinion) -> u32 {
        let tags: Tags = (opinion.labels.as_slice().into(), opinion.languages.as_slice().into());
        let next = u32::try_from(self.tags_by_number.len()).unwrap_or(u32::MAX);
        if let Some(number) = self.tags.get(&tags) {
            return *number;
        }
        self.tags_by_number.push(tags.clone());
        self.tags.insert(tags, next);
        next
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
        let registers = self.subjects.get(subject)?.as_slice();
        let counts = self.counts(registers, t);
        let status = self.status(counts);
        let (labels, languages) = self.labels(registers, t);
        Some(Entry {
            subject: subject.clone(),
            status,
            counts,
            labels,
            languages,
            said: registers.iter().map(|r| self.said(r, t)).collect(),
            allow_conflict: status == Status::Allowed && counts.support + counts.small_support > 0,
        })
    }

    /// Subjects after `after`, in the order of the list.
    pub fn subjects_after(&self, after: Option<&Subject>) -> impl Iterator<Item = &Subject> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.subjects.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(subject, _)| subject)
    }

    /// The PDQ hashes, to be searched outside any lock.
    pub fn pdq(&self) -> &HammingIndex {
        &self.pdq
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

    /// What every member used of its quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    fn said(&self, register: &Register, t: TimeMs) -> Said {
        let seat = &self.seats[usize::from(register.seat)];
        Said {
            member: seat.id,
            word: register.word,
            time: register.time,
            block: BlockId { origin: Origin { member: seat.id, log_no: register.log_no }, seq: register.seq },
            index: register.index,
            expires: register.expires,
            counts: self.weighs(register, t).is_some(),
            reason: register.reason,
            severity: register.severity,
        }
    }

    /// The word that a register adds to the counts at `t`, if any.
    fn weighs(&self, register: &Register, t: TimeMs) -> Option<Word> {
        let seat = &self.seats[usize::from(register.seat)];
        let word = register.reads(t)?;
        let supports = matches!(word, Word::Stance(Stance::Submit | Stance::Endorse));
        (supports || seat.votes).then_some(word)
    }

    fn counts(&self, registers: &[Register], t: TimeMs) -> Counts {
        let mut groups: [Vec<u16>; 6] = Default::default();
        for register in registers {
            let seat = &self.seats[usize::from(register.seat)];
            let column = match self.weighs(register, t) {
                Some(Word::Stance(Stance::Dispute)) => 2,
                Some(Word::Stance(_)) if seat.roles.has(Roles::FULL) => 0,
                Some(Word::Stance(_)) => 1,
                Some(Word::Retract(_)) => 3,
                Some(Word::Allow(_)) => 4,
                Some(Word::Referral(_)) => 5,
                None => continue,
            };
            // No set of keys of one group counts twice (I16).
            if !groups[column].contains(&seat.group) {
                groups[column].push(seat.group);
            }
        }
        let count = |i: usize| u32::try_from(groups[i].len()).unwrap_or(u32::MAX);
        Counts {
            support: count(0),
            small_support: count(1),
            disputes: count(2),
            retract: count(3),
            allow: count(4),
            referred: count(5),
        }
    }

    /// Layer 6: the first that fits.
    fn status(&self, counts: Counts) -> Status {
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
    fn labels(&self, registers: &[Register], t: TimeMs) -> (Vec<u32>, Vec<String>) {
        let (mut labels, mut languages) = (BTreeSet::new(), BTreeSet::new());
        for register in registers {
            if !matches!(self.weighs(register, t), Some(Word::Stance(Stance::Submit | Stance::Endorse))) {
                continue;
            }
            if let Some(tags) = self.tags_by_number.get(register.tags as usize) {
                labels.extend(tags.0.iter().copied());
                languages.extend(tags.1.iter().cloned());
            }
            labels.extend(self.open_codes(register.incident, t));
        }
        (labels.into_iter().collect(), languages.into_iter().collect())
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
        let mut due = BTreeSet::new();
        while let Some((expiry, _)) = self.expiries.first()
            && *expiry <= hour
            && let Some((_, subject)) = self.expiries.pop_first()
        {
            due.insert(subject);
        }
        let before: Vec<_> = due.iter().map(|subject| self.contribution(subject)).collect();
        self.hour = hour;
        for (subject, before) in due.iter().zip(before) {
            self.replace(before, subject);
        }
    }

    /// What a subject adds to the digest; `None` while it is INACTIVE.
    fn contribution(&self, subject: &Subject) -> Option<[u8; 32]> {
        let registers = self.subjects.get(subject)?.as_slice();
        let counts = self.counts(registers, self.hour);
        let status = self.status(counts);
        if status == Status::Inactive {
            return None;
        }
        let supports =
            |r: &&Register| matches!(self.weighs(r, self.hour), Some(Word::Stance(Stance::Submit | Stance::Endorse)));
        let mut supporters: Vec<_> =
            registers.iter().filter(supports).map(|r| self.seats[usize::from(r.seat)].id).collect();
        supporters.sort_unstable();
        let (labels, _) = self.labels(registers, self.hour);
        Some(contribution(subject.id(), status, counts, &supporters, &labels))
    }

    fn replace(&mut self, before: Option<[u8; 32]>, subject: &Subject) {
        let after = self.contribution(subject);
        if let Some(before) = before {
            self.digest.subtract(before);
            self.listed -= 1;
        }
        if let Some(after) = after {
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

/// Whether `status` of a member lets its nodes connect; here because the roster and the view must agree on it.
pub fn connects(status: MemberStatus) -> bool {
    status == MemberStatus::Active
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert!(size_of::<Register>() <= 56, "{}", size_of::<Register>());
        assert!(size_of::<Subject>() <= 48, "{}", size_of::<Subject>());
        assert!(size_of::<Registers>() <= 56, "{}", size_of::<Registers>());
    }
}
