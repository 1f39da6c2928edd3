//! What members say beside the statuses: how referrals went, incidents, resources, preserved copies, outcomes, and when
//! an author wants to look again.
//!
//! Nothing here enters a status or the view digest. Like the view it is a function of the *set* of records: of each
//! author and thing the record of the greatest rank stands, and referrals keep all their words. It grows with the
//! records that count, which quotas bound.

use std::collections::{BTreeMap, BTreeSet};

use super::block::Header;
use super::ids::{BlockId, LogNo, MemberId, Seq, TimeMs};
use super::record::{IncidentId, Resource, Stance, Statement};
use super::signal::{Alg, Subject};
use super::stored::{Damaged, Source, Stored, stored};
use super::vpdq::ItemId;

/// Resources offered with one entry: a person reads them.
pub const OFFERS_MAX: usize = 8;
/// Resources of one label that are looked at for an offer, so that a certifier with thousands does not slow lookups down.
const OFFERS_SCAN_MAX: usize = 256;

/// The greatest wins, as for registers (PROTOCOL layer 5).
type Rank = (TimeMs, LogNo, Seq, u16);

/// One statement and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<T> {
    /// Who says it.
    pub member: MemberId,
    /// When, by the author's clock.
    pub time: TimeMs,
    /// The block in which it is written.
    pub block: BlockId,
    /// Which record of it.
    pub index: u16,
    /// What is said.
    pub what: T,
}

impl<T> Note<T> {
    fn rank(&self) -> Rank {
        (self.time, self.block.origin.log_no, self.block.seq, self.index)
    }
}

/// A referral, opened or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReferralWord {
    open: bool,
    expires: TimeMs,
    authority: u32,
    jurisdiction: u32,
}

/// One request of one referral unit, from its opening to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it was opened.
    pub opened: TimeMs,
    /// Until when an answer is wanted; 0: none is set.
    pub deadline: TimeMs,
    /// Number of the kind of authority.
    pub authority: u32,
    /// Number of its jurisdiction.
    pub jurisdiction: u32,
    /// When the unit closed it.
    pub closed: Option<TimeMs>,
}

/// What became of a referral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Nobody has answered yet.
    Open,
    /// A FULL member stands behind it, since then.
    Confirmed(MemberId, TimeMs),
    /// The unit closed it, and until then nobody stood behind it.
    Rejected(TimeMs),
    /// Its deadline passed, and until then nobody stood behind it.
    Expired(TimeMs),
}

impl Answered {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Confirmed(..) => "CONFIRMED",
            Self::Rejected(_) => "REJECTED",
            Self::Expired(_) => "EXPIRED",
        }
    }

    /// When it was answered.
    pub fn at(self) -> Option<TimeMs> {
        match self {
            Self::Open => None,
            Self::Confirmed(_, at) | Self::Rejected(at) | Self::Expired(at) => Some(at),
        }
    }
}

impl Span {
    /// What became of it at `now`, where `support` are the FULL members that stand behind its subject and since when.
    /// What was listed before the referral was confirmed when it came.
    pub fn answered(&self, support: &[(TimeMs, MemberId)], now: TimeMs) -> Answered {
        let expired = Some(self.deadline).filter(|deadline| *deadline > TimeMs(0) && *deadline <= now);
        let end = self.closed.into_iter().chain(expired).min();
        let first = support.iter().min().filter(|(since, _)| end.is_none_or(|end| *since <= end));
        match (first, end) {
            (Some((since, member)), _) => Answered::Confirmed(*member, self.opened.max(*since)),
            (None, None) => Answered::Open,
            (None, Some(end)) if self.closed == Some(end) => Answered::Rejected(end),
            (None, Some(end)) => Answered::Expired(end),
        }
    }
}

/// One member's word on an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentWord {
    /// Label of its subjects while it is open.
    pub code: u32,
    /// 1 low .. 4 imminent threat to life; 0: not stated.
    pub level: u32,
    /// Opened or closed.
    pub open: bool,
    /// When it closes by itself; 0: never.
    pub closes: TimeMs,
}

impl IncidentWord {
    /// Whether it is open at `t`.
    pub fn is_open(&self, t: TimeMs) -> bool {
        self.open && (self.closes == TimeMs(0) || self.closes > t)
    }
}

/// "I kept a copy."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preserved {
    /// Until when; 0: not stated.
    pub until: TimeMs,
    /// Number of the way to ask for it.
    pub contact: u32,
}

/// What a company did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted {
    /// Number of the result.
    pub result: u32,
    /// When.
    pub at: TimeMs,
}

type ByMember<T> = BTreeMap<MemberId, Note<T>>;

/// What a member says of which video a record is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The record's frames.
    pub subject: Subject,
    /// Who says it.
    pub member: MemberId,
    /// The video; `None`: it is a part of none, or its author no longer stands behind it.
    pub item: Option<ItemId>,
}

/// Everything that members say beside the statuses.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    referrals: BTreeMap<(Subject, MemberId), BTreeMap<Rank, ReferralWord>>,
    incidents: BTreeMap<IncidentId, ByMember<IncidentWord>>,
    resources: BTreeMap<(String, MemberId), Note<Resource>>,
    /// Keys of `resources` by the labels that they answer.
    topics: BTreeMap<u32, BTreeSet<(String, MemberId)>>,
    preserved: BTreeMap<Subject, ByMember<Preserved>>,
    acted: BTreeMap<Subject, ByMember<Acted>>,
    /// When the author of an opinion wants to look again; holds while that opinion stands.
    reviews: BTreeMap<(Subject, MemberId), Note<TimeMs>>,
    /// Of the records of videos, which of them belong together; nothing of any other hash.
    videos: BTreeMap<(Subject, MemberId), Note<Option<ItemId>>>,
}

stored!(<T> Note { member, time, block, index, what });
stored!(ReferralWord { open, expires, authority, jurisdiction });
stored!(IncidentWord { code, level, open, closes });
stored!(Resource { url, languages, labels, listed, expires });
stored!(Preserved { until, contact });
stored!(Acted { result, at });

/// All but what follows from the rest.
impl Stored for Notes {
    fn store(&self, out: &mut Vec<u8>) {
        self.referrals.store(out);
        self.incidents.store(out);
        self.preserved.store(out);
        self.acted.store(out);
        self.reviews.store(out);
        self.videos.store(out);
        (self.resources.len() as u64).store(out);
        self.resources().for_each(|note| note.store(out));
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        let (referrals, incidents) = Stored::load(source)?;
        let (preserved, acted, reviews, videos) = Stored::load(source)?;
        let mut notes = Self { referrals, incidents, preserved, acted, reviews, videos, ..Self::default() };
        Vec::load(source)?.into_iter().for_each(|note| notes.put_resource(note));
        Ok(notes)
    }
}

impl Notes {
    /// Takes in what `member` may say and says in record `index` of a block. The caller has checked that it counts.
    pub fn take(&mut self, member: MemberId, header: &Header, index: u16, statement: &Statement) {
        let (time, block) = (header.time, header.id);
        let rank = (time, block.origin.log_no, block.seq, index);
        if let Statement::Opinion(opinion) = statement
            && opinion.subject.known_alg() == Some(Alg::Vpdq)
        {
            let stands = matches!(opinion.stance, Stance::Submit | Stance::Endorse);
            let note = Note { member, time, block, index, what: opinion.item.filter(|_| stands) };
            put(&mut self.videos, (opinion.subject.clone(), member), note);
        }
        match statement {
            Statement::Opinion(opinion) if opinion.review > TimeMs(0) => {
                let note = Note { member, time, block, index, what: opinion.review };
                put(&mut self.reviews, (opinion.subject.clone(), member), note);
            }
            Statement::Referral { subject, open, expires, authority, jurisdiction } => {
                let word =
                    ReferralWord { open: *open, expires: *expires, authority: *authority, jurisdiction: *jurisdiction };
                self.referrals.entry((subject.clone(), member)).or_default().insert(rank, word);
            }
            Statement::Incident { id, code, level, open, closes } => {
                let what = IncidentWord { code: *code, level: *level, open: *open, closes: *closes };
                let note = Note { member, time, block, index, what };
                put(self.incidents.entry(*id).or_default(), member, note);
            }
            Statement::Resource(resource) => {
                let note = Note { member, time, block, index, what: resource.clone() };
                self.put_resource(note);
            }
            Statement::Preserve { subject, until, contact } => {
                let note = Note { member, time, block, index, what: Preserved { until: *until, contact: *contact } };
                put(self.preserved.entry(subject.clone()).or_default(), member, note);
            }
            Statement::Outcome { subject, result, acted } => {
                let note = Note { member, time, block, index, what: Acted { result: *result, at: *acted } };
                put(self.acted.entry(subject.clone()).or_default(), member, note);
            }
            _ => {}
        }
    }

    fn put_resource(&mut self, note: Note<Resource>) {
        let key = (note.what.url.clone(), note.member);
        let before = self.resources.get(&key).map(|n| n.what.labels.clone()).unwrap_or_default();
        put(&mut self.resources, key.clone(), note);
        let after = &self.resources[&key].what;
        for label in before {
            if let Some(topic) = self.topics.get_mut(&label) {
                topic.remove(&key);
            }
        }
        for label in after.labels.iter().filter(|_| after.listed) {
            self.topics.entry(*label).or_default().insert(key.clone());
        }
    }

    /// The referrals of each unit on `subject`, oldest first.
    pub fn referrals(&self, subject: &Subject) -> impl Iterator<Item = (MemberId, Vec<Span>)> {
        let from = (subject.clone(), MemberId([0; MemberId::SIZE]));
        let of_subject = self.referrals.range(from..).take_while({
            let subject = subject.clone();
            move |((about, _), _)| *about == subject
        });
        of_subject.map(|((_, unit), words)| (*unit, spans(words)))
    }

    /// Subjects that were ever referred, after `after`, in the order of the list.
    pub fn referred_after(&self, after: Option<&Subject>) -> impl Iterator<Item = &Subject> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |subject| Excluded((subject.clone(), MemberId([255; MemberId::SIZE]))));
        let mut last: Option<&Subject> = None;
        let subjects = self.referrals.range((from, Unbounded)).map(|((subject, _), _)| subject);
        subjects.filter(move |subject| last.replace(subject) != Some(*subject))
    }

    /// Every incident with each member's latest word on it.
    pub fn incidents(&self) -> impl Iterator<Item = (IncidentId, &BTreeMap<MemberId, Note<IncidentWord>>)> {
        self.incidents.iter().map(|(id, words)| (*id, words))
    }

    /// Each member's latest word on an incident.
    pub fn incident(&self, id: &IncidentId) -> Option<&BTreeMap<MemberId, Note<IncidentWord>>> {
        self.incidents.get(id)
    }

    /// Every resource with its certifier's latest word on it, by address.
    pub fn resources(&self) -> impl Iterator<Item = &Note<Resource>> {
        self.resources.values()
    }

    /// The resources that answer one of `labels` in one of `languages` at `t`: at most [`OFFERS_MAX`]. A resource
    /// without languages answers in any, and an entry without languages takes any.
    pub fn offers(&self, labels: &[u32], languages: &[String], t: TimeMs) -> Vec<&Note<Resource>> {
        let keys = labels.iter().filter_map(|label| self.topics.get(label));
        let keys: BTreeSet<_> = keys.flat_map(|topic| topic.iter().take(OFFERS_SCAN_MAX)).collect();
        let fits =
            |note: &&Note<Resource>| is_offered(&note.what, t) && share_language(&note.what.languages, languages);
        keys.into_iter().filter_map(|key| self.resources.get(key)).filter(fits).take(OFFERS_MAX).collect()
    }

    /// Who keeps a copy of `subject`.
    pub fn preserved(&self, subject: &Subject) -> impl Iterator<Item = &Note<Preserved>> {
        self.preserved.get(subject).into_iter().flat_map(BTreeMap::values)
    }

    /// Who did what with `subject`.
    pub fn acted(&self, subject: &Subject) -> impl Iterator<Item = &Note<Acted>> {
        self.acted.get(subject).into_iter().flat_map(BTreeMap::values)
    }

    /// When `member` wants to look at `subject` again, by the opinion that is written at this place.
    pub fn review(&self, subject: &Subject, member: MemberId, block: BlockId, index: u16) -> Option<TimeMs> {
        let note = self.reviews.get(&(subject.clone(), member))?;
        (note.block == block && note.index == index).then_some(note.what)
    }

    /// Which video `member` makes `subject` a part of.
    pub fn video(&self, subject: &Subject, member: MemberId) -> Option<ItemId> {
        if self.videos.is_empty() { None } else { self.videos.get(&(subject.clone(), member))?.what }
    }

    /// All that members say of which records are one video.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        let tie = |((subject, member), note): (&(Subject, MemberId), &Note<Option<ItemId>>)| {
            note.what.map(|item| Tie { subject: subject.clone(), member: *member, item: Some(item) })
        };
        self.videos.iter().filter_map(tie)
    }

    /// Whether `member` wanted to look at `subject` again until `until`, by an opinion that may not stand any more.
    pub fn is_due(&self, subject: &Subject, member: MemberId, until: TimeMs) -> bool {
        let note = || self.reviews.get(&(subject.clone(), member));
        !self.reviews.is_empty() && note().is_some_and(|note| note.what <= until)
    }
}

/// Whether a resource is offered at `t`.
pub fn is_offered(resource: &Resource, t: TimeMs) -> bool {
    resource.listed && !resource.expires.has_ended(t)
}

fn put<K: Ord, T>(notes: &mut BTreeMap<K, Note<T>>, key: K, new: Note<T>) {
    if notes.get(&key).is_none_or(|old| new.rank() > old.rank()) {
        notes.insert(key, new);
    }
}

/// An opening begins a referral; another one before its end sets its terms anew.
fn spans(words: &BTreeMap<Rank, ReferralWord>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for ((time, ..), word) in words {
        let last = spans
            .last_mut()
            .filter(|span| span.closed.is_none() && (span.deadline == TimeMs(0) || span.deadline > *time));
        match (last, word.open) {
            (Some(span), true) => {
                (span.deadline, span.authority, span.jurisdiction) = (word.expires, word.authority, word.jurisdiction);
            }
            (Some(span), false) => span.closed = Some(*time),
            (None, true) => spans.push(Span {
                opened: *time,
                deadline: word.expires,
                authority: word.authority,
                jurisdiction: word.jurisdiction,
                closed: None,
            }),
            (None, false) => {}
        }
    }
    spans
}

/// Whether two sets of language tags have a language in common, whatever the region: `pt` and `pt-BR` have.
fn share_language(a: &[String], b: &[String]) -> bool {
    let primary = |tag: &str| tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
    a.is_empty() || b.is_empty() || a.iter().any(|x| b.iter().any(|y| primary(x) == primary(y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::block::Header;
    use crate::replica::ids::Class;
    use crate::replica::testing::{FULL, START, TestForum, id, opinion, origin, subject};
    use crate::replica::{proto, record};

    /// A header at `START + ms`, of the member's only log.
    fn header(member: u8, ms: u64) -> Header {
        let forum = TestForum::of(&[("a", FULL)]);
        let block = forum.log(1, 0, Class::Normal).block(&mut forum.keyring(), &[opinion(1, 1)]);
        let place = BlockId { origin: origin(member, 0), seq: Seq(ms + 1) };
        Header { time: START.plus(ms), id: place, ..block.header().clone() }
    }

    fn notes(said: &[(u8, u64, Statement)]) -> Notes {
        let mut notes = Notes::default();
        said.iter().for_each(|(member, ms, said)| notes.take(id(*member), &header(*member, *ms), 0, said));
        notes
    }

    fn refers(open: bool, deadline: u64) -> Statement {
        let expires = if deadline == 0 { TimeMs(0) } else { START.plus(deadline) };
        Statement::Referral { subject: subject(1), open, expires, authority: 1, jurisdiction: 2 }
    }

    /// Openings, closings and deadlines of unit 7, the support of member 1, and what became of the last referral.
    #[test]
    fn a_referral_is_confirmed_by_support_and_rejected_or_expired_without() {
        let at = |ms| START.plus(ms);
        let by = id(1);
        type Case = (&'static str, Vec<(u64, bool, u64)>, Option<u64>, Answered);
        let cases: Vec<Case> = vec![
            ("nobody answers", vec![(10, true, 0)], None, Answered::Open),
            ("supported later", vec![(10, true, 0)], Some(30), Answered::Confirmed(by, at(30))),
            ("listed before", vec![(10, true, 0)], Some(5), Answered::Confirmed(by, at(10))),
            ("closed without", vec![(10, true, 0), (20, false, 0)], None, Answered::Rejected(at(20))),
            ("supported, then closed", vec![(10, true, 0), (20, false, 0)], Some(15), Answered::Confirmed(by, at(15))),
            ("closed, then supported", vec![(10, true, 0), (20, false, 0)], Some(30), Answered::Rejected(at(20))),
            ("too late", vec![(10, true, 40)], None, Answered::Expired(at(40))),
            ("in time", vec![(10, true, 40)], Some(39), Answered::Confirmed(by, at(39))),
            ("not due yet", vec![(10, true, 400)], None, Answered::Open),
            ("extended", vec![(10, true, 40), (20, true, 400)], None, Answered::Open),
            ("opened again", vec![(10, true, 0), (20, false, 0), (30, true, 0)], None, Answered::Open),
            ("opened after its end", vec![(10, true, 20), (30, true, 0)], None, Answered::Open),
        ];
        for (what, words, support, expected) in cases {
            let said: Vec<_> = words.iter().map(|(ms, open, deadline)| (7, *ms, refers(*open, *deadline))).collect();
            let mut backwards = said.clone();
            backwards.reverse();
            for said in [said, backwards] {
                let notes = notes(&said);
                let (unit, spans) = notes.referrals(&subject(1)).next().unwrap();
                let support: Vec<_> = support.iter().map(|ms| (at(*ms), id(1))).collect();
                assert_eq!(spans.last().unwrap().answered(&support, at(100)), expected, "{what}");
                assert_eq!(unit, id(7));
            }
        }
    }

    #[test]
    fn resources_are_offered_by_topic_and_language_while_they_are_listed() {
        let resource = |url: &str, labels: &[u32], languages: &[&str], listed, ends: u64| {
            Statement::Resource(Resource {
                url: url.into(),
                labels: labels.to_vec(),
                languages: languages.iter().map(|l| (*l).to_owned()).collect(),
                listed,
                expires: if ends == 0 { TimeMs(0) } else { START.plus(ends) },
            })
        };
        let said = [
            (7, 1, resource("https://a.example.org", &[1], &["fr"], true, 0)),
            (7, 2, resource("https://b.example.org", &[1, 2], &[], true, 0)),
            (7, 3, resource("https://c.example.org", &[1], &["pt-BR"], true, 50)),
            (7, 5, resource("https://d.example.org", &[1], &[], false, 0)),
            (7, 4, resource("https://d.example.org", &[1], &[], true, 0)),
        ];
        let notes = notes(&said);
        let urls = |labels: &[u32], languages: &[&str], ms| -> String {
            let languages: Vec<_> = languages.iter().map(|l| (*l).to_owned()).collect();
            let offers = notes.offers(labels, &languages, START.plus(ms));
            offers.iter().map(|n| &n.what.url[8..9]).collect()
        };
        assert_eq!(urls(&[1], &[], 10), "abc");
        assert_eq!(urls(&[1], &["FR"], 10), "ab");
        assert_eq!(urls(&[1], &["pt"], 10), "bc");
        assert_eq!(urls(&[1], &["pt"], 50), "b", "it has ended");
        assert_eq!(urls(&[2], &["de"], 10), "b");
        assert_eq!(urls(&[3], &[], 10), "");
        assert_eq!(urls(&[], &[], 10), "");
    }

    #[test]
    fn an_answer_offers_eight_resources_at_most() {
        let resource = |n: u64| {
            Statement::Resource(Resource {
                url: format!("https://r{n}.example.org"),
                labels: vec![1],
                languages: Vec::new(),
                listed: true,
                expires: TimeMs(0),
            })
        };
        let said: Vec<_> = (0..20).map(|n| (7, n, resource(n))).collect();
        assert_eq!(notes(&said).offers(&[1], &[], START).len(), OFFERS_MAX);
    }

    #[test]
    fn a_record_is_a_part_of_the_video_that_its_authors_latest_opinion_names() {
        let about = crate::replica::testing::video(1, 3);
        let said = |stance, item: Option<u8>| {
            let opinion = proto::Opinion {
                subject: Some(about.to_proto()),
                stance,
                item_id: item.map(|item| vec![item; 16].into()).unwrap_or_default(),
                ..Default::default()
            };
            let bytes = record::encode(proto::Kind::Opinion, [9; 16], &opinion);
            match record::parse(&bytes) {
                record::Parsed::Says(said) => said,
                other => panic!("{other:?}"),
            }
        };
        for (words, expected) in [
            (vec![(1, said(1, Some(7)))], Some(7)),
            (vec![(1, said(1, Some(7))), (2, said(2, Some(8)))], Some(8)),
            (vec![(1, said(1, Some(7))), (2, said(2, None))], None),
            (vec![(1, said(1, Some(7))), (2, said(4, Some(7)))], None),
            (vec![(1, said(3, Some(7)))], None),
        ] {
            let words: Vec<_> = words.into_iter().map(|(ms, said)| (1, ms, said)).collect();
            for words in [words.clone(), words.into_iter().rev().collect()] {
                let notes = notes(&words);
                let item = expected.map(|item: u8| [item; 16]);
                assert_eq!((notes.video(&about, id(1)), notes.video(&about, id(2))), (item, None));
                assert_eq!(
                    notes.ties().map(|tie| tie.item).collect::<Vec<_>>(),
                    item.map(Some).into_iter().collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn a_date_of_review_holds_while_its_opinion_stands() {
        let said = |review| match record::parse(&opinion(1, 1)) {
            record::Parsed::Says(Statement::Opinion(o)) => Statement::Opinion(record::Opinion { review, ..o }),
            other => panic!("{other:?}"),
        };
        let notes = notes(&[(1, 5, said(START.plus(99))), (1, 6, said(TimeMs(0)))]);
        let place = |ms| header(1, ms).id;
        assert_eq!(notes.review(&subject(1), id(1), place(5), 0), Some(START.plus(99)));
        assert_eq!(notes.review(&subject(1), id(1), place(6), 0), None, "a later opinion sets none");
        let is_due = |member, ms| notes.is_due(&subject(1), id(member), START.plus(ms));
        assert_eq!([is_due(1, 99), is_due(1, 98), is_due(2, 99)], [true, false, false]);
    }
}
