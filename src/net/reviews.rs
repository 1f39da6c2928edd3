//! What waits for a person of our company, and what the forum shows beside its list: referrals, incidents, resources.
//!
//! Nothing of it is kept anywhere: every page is computed from the view, and from what the flood breaker has tripped
//! (`floods.rs`). An item of the queue leaves it with our company's next word on its subject, which is a signed record
//! like any other.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;

use super::floods;
use super::labels;
use super::local::{PAGE_DEFAULT, PAGE_DIGITS_MAX, PAGE_MAX, SCAN_MAX, entry_to_proto, parse_token, token};
use super::status::bad_field;
use super::survey;
use crate::clock;
use crate::engine::Shared;
use crate::policy::breaker::Trip;
use crate::replica::Replica;
use crate::replica::charter::{Charter, Roles};
use crate::replica::ids::{MemberId, TimeMs, hex};
use crate::replica::notes::{self, Answered, IncidentWord, Note, Span};
use crate::replica::record::{self, IncidentId, Resource, Stance};
use crate::replica::signal::Subject;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::view::{Entry, Said, Status as Standing, Word};
use crate::wire::local as l;

/// What ends or is due for review within so many days waits for a person.
pub const SOON_DAYS: u64 = 7;
/// Incidents, or resources, of one answer.
const SHOWN_MAX: usize = 1_000;
/// Subjects that a page of the queue passes by under one hold of the lock: about a millisecond.
const PASSED_MAX: usize = 16_384;
/// Of these, entries that are looked at for a count: about a millisecond.
const COUNTED_MAX: usize = 512;

/// Why something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    DisputedOwn,
    Disputed,
    Conflict,
    Referral,
    Expiring,
    Due,
    Flood,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::DisputedOwn, Self::Disputed, Self::Conflict, Self::Referral, Self::Expiring, Self::Due, Self::Flood];

    fn name(self) -> &'static str {
        match self {
            Self::DisputedOwn => "disputed-own",
            Self::Disputed => "disputed",
            Self::Conflict => "conflict",
            Self::Referral => "referral",
            Self::Expiring => "expiring",
            Self::Due => "due",
            Self::Flood => "flood",
        }
    }
}

/// What the flood breaker has tripped.
type Tripped = BTreeMap<Subject, Trip>;

/// One thing that waits.
struct Waiting {
    kind: Kind,
    since: TimeMs,
    deadline: TimeMs,
    by: BTreeSet<MemberId>,
}

/// Where a page begins, and how long it is.
///
/// # Errors
/// The field that is wrong.
fn page(size: u32, from: &str) -> Result<(usize, Option<Subject>), Status> {
    let size = match size as usize {
        0 => PAGE_DEFAULT,
        n if n <= PAGE_MAX => n,
        n => return Err(bad_field("page_size", format!("is {n}, at most {PAGE_MAX} is possible"))),
    };
    let unknown = || bad_field("page_token", format!("{from:?} is unknown"));
    let after = if from.is_empty() { None } else { Some(parse_token(from).ok_or_else(unknown)?) };
    Ok((size, after))
}

/// Refuses a name that is none of `known`.
fn one_of(field: &str, name: &str, mut known: impl Iterator<Item = &'static str> + Clone) -> Result<(), Status> {
    if name.is_empty() || known.clone().any(|k| k == name) {
        return Ok(());
    }
    let all = known.by_ref().collect::<Vec<_>>().join(", ");
    Err(bad_field(field, format!("{name:?} is unknown; known: {all}")))
}

/// Whether `tag` is of the language that is asked for: `pt` asks for `pt-BR` too.
pub(super) fn is_of_language(tag: &str, asked: &str) -> bool {
    let (tag, asked) = (tag.to_ascii_lowercase(), asked.to_ascii_lowercase());
    tag.strip_prefix(asked.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A page of the queue; `tripped` are the signals that match far more often here than they used to.
///
/// # Errors
/// The field that is wrong.
pub(super) async fn list_reviews(
    shared: &Shared,
    tripped: &Tripped,
    request: &l::ListReviewsRequest,
) -> Result<l::ListReviewsResponse, Status> {
    let (size, mut after) = page(request.page_size, &request.page_token)?;
    one_of("kind", &request.kind, Kind::ALL.into_iter().map(Kind::name))?;
    let mut answer = l::ListReviewsResponse::default();
    loop {
        after = scan(shared, tripped, request, after.as_ref(), size, &mut answer.reviews);
        if after.is_none() || is_full(&answer.reviews, size) {
            break;
        }
        tokio::task::yield_now().await;
    }
    answer.next_page_token = after.map(|subject| token(&subject)).unwrap_or_default();
    Ok(answer)
}

/// The kinds of what waits.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().map(Kind::name)
}

/// How much of each kind waits. It goes through the whole list, in pieces.
pub(super) fn count(shared: &Shared, tripped: &Tripped, counts: &mut BTreeMap<&'static str, survey::Waiting>) {
    let all = l::ListReviewsRequest::default();
    let mut after = None;
    loop {
        let now = clock::now();
        let soon = now.plus(SOON_DAYS * TimeMs::DAY_MS);
        let replica = shared.replica();
        let charter = replica.charters().effective();
        let (mut last, mut looked_at, mut more) = (None, 0, false);
        for (passed, (subject, talked_about)) in subjects(&replica, tripped, &all, after.as_ref(), soon).enumerate() {
            if passed >= PASSED_MAX || looked_at >= COUNTED_MAX {
                more = true;
                break;
            }
            if talked_about && let Some(entry) = replica.view().entry(&subject, now) {
                looked_at += 1;
                let flood = tripped.get(&subject).and_then(|trip| of_flood(&replica, &entry, trip));
                for one in waiting(&replica, charter, &entry, now).into_iter().chain(flood) {
                    counts.entry(one.kind.name()).or_default().add(one.since, one.deadline);
                }
            }
            last = Some(subject);
        }
        if !more {
            return;
        }
        after = last;
        drop(replica);
        std::thread::yield_now();
    }
}

/// Whether a page has enough: videos have long names, and few of them are a page.
fn is_full(reviews: &[l::Review], size: usize) -> bool {
    let signals = reviews.iter().filter_map(|review| review.entry.as_ref()?.signal.as_ref());
    reviews.len() >= size || signals.map(|signal| signal.value.len()).sum::<usize>() > PAGE_DIGITS_MAX
}

/// Looks at the next subjects under one hold of the lock; returns the last one looked at, or `None` at the end.
fn scan(
    shared: &Shared,
    tripped: &Tripped,
    request: &l::ListReviewsRequest,
    after: Option<&Subject>,
    size: usize,
    found: &mut Vec<l::Review>,
) -> Option<Subject> {
    let (now, labels) = (clock::now(), shared.taxonomy());
    let replica = shared.replica();
    let soon = now.plus(SOON_DAYS * TimeMs::DAY_MS);
    let (mut last, mut looked_at) = (None, 0);
    for (passed, (subject, talked_about)) in subjects(&replica, tripped, request, after, soon).enumerate() {
        if passed >= PASSED_MAX || looked_at >= SCAN_MAX || is_full(found, size) {
            return last;
        }
        last = Some(subject.clone());
        if talked_about {
            looked_at += 1;
            let reviews = reviews(&replica, &subject, &labels, tripped.get(&subject), now);
            found.extend(reviews.into_iter().filter(|review| fits(review, request)));
        }
    }
    None
}

/// Subjects after `after`, each with whether something of it may wait.
fn subjects<'a>(
    replica: &'a Replica,
    tripped: &'a Tripped,
    request: &l::ListReviewsRequest,
    after: Option<&'a Subject>,
    soon: TimeMs,
) -> Box<dyn Iterator<Item = (Subject, bool)> + 'a> {
    use std::ops::Bound::{Excluded, Unbounded};
    // A few are tripped, and there are millions to pass by.
    if request.kind == Kind::Flood.name() {
        let tripped = tripped.range((after.map_or(Unbounded, Excluded), Unbounded));
        return Box::new(tripped.map(|(subject, _)| (subject.clone(), true)));
    }
    let all = replica.view().talked_about(after, replica.me(), soon);
    Box::new(all.map(|(subject, talked_about)| {
        let is_tripped = tripped.contains_key(&subject);
        (subject, talked_about || is_tripped)
    }))
}

fn fits(review: &l::Review, request: &l::ListReviewsRequest) -> bool {
    let languages = review.entry.as_ref().map(|e| e.languages.as_slice()).unwrap_or_default();
    (request.kind.is_empty() || request.kind == review.kind)
        && (request.language.is_empty() || languages.iter().any(|tag| is_of_language(tag, &request.language)))
}

/// What of `subject` waits for our company at `now`.
fn reviews(
    replica: &Replica,
    subject: &Subject,
    labels: &Taxonomy,
    trip: Option<&Trip>,
    now: TimeMs,
) -> Vec<l::Review> {
    let charter = replica.charters().effective();
    let Some(entry) = replica.view().entry(subject, now) else { return Vec::new() };
    let mut waiting = waiting(replica, charter, &entry, now);
    waiting.extend(trip.and_then(|trip| of_flood(replica, &entry, trip)));
    let review = |w: Waiting| l::Review {
        id: format!("{}-{}", w.kind.name(), hex(&entry.subject.id().0[..8])),
        kind: w.kind.name().into(),
        entry: Some(entry_to_proto(&entry, charter, labels)),
        since_ms: w.since.0,
        deadline_ms: w.deadline.0,
        by: w.by.iter().map(|member| replica.name_of(*member)).collect(),
        flood: trip.filter(|_| w.kind == Kind::Flood).map(|trip| floods::to_proto(replica, &entry, trip, now)),
    };
    waiting.into_iter().map(review).collect()
}

fn waiting(replica: &Replica, charter: &Charter, entry: &Entry, now: TimeMs) -> Vec<Waiting> {
    let me = replica.me();
    let roles = charter.member(me).map_or(Roles::from_bits(0), |m| m.roles);
    let opines = roles.has_any(Roles::FULL.and(Roles::SMALL));
    let (mine, others): (Vec<_>, Vec<_>) = entry.said.iter().partition(|said| said.member == me);
    // What was said before our latest word was there when we said it.
    let decided = mine.iter().map(|said| said.time).max().unwrap_or(TimeMs(0));
    let about = |fits: fn(Word) -> bool| -> Vec<&Said> {
        others.iter().copied().filter(|said| said.counts && said.time > decided && fits(said.word)).collect()
    };
    let mut found = Vec::new();
    let ours = mine.iter().find(|said| said.counts && said.word.supports());
    if let Some(ours) = ours.filter(|_| entry.status != Standing::Retracted) {
        let kind = if ours.word == Word::Stance(Stance::Submit) { Kind::DisputedOwn } else { Kind::Disputed };
        found.extend(of_words(kind, &about(opposes)));
    }
    if entry.allow_conflict && (opines || roles.has(Roles::CERTIFIER)) {
        found.extend(of_words(Kind::Conflict, &about(|word| word.supports() || word == Word::Allow(true))));
    }
    if opines {
        found.extend(open_referrals(replica, charter, entry, decided, now));
    }
    let soon = now.plus(SOON_DAYS * TimeMs::DAY_MS);
    let ending = |kind, said: &Said, at: TimeMs| {
        (at > TimeMs(0) && at <= soon).then(|| Waiting { kind, since: said.time, deadline: at, by: [me].into() })
    };
    for said in mine.iter().filter(|said| said.counts && (said.word.supports() || said.word == Word::Allow(true))) {
        found.extend(ending(Kind::Expiring, said, said.expires));
    }
    if let Some(said) = ours {
        let review = replica.view().notes().review(&entry.subject, me, said.block, said.index);
        found.extend(ending(Kind::Due, said, review.unwrap_or_default()));
    }
    found
}

/// A dispute is proposed, until our company has said anything of it.
fn of_flood(replica: &Replica, entry: &Entry, trip: &Trip) -> Option<Waiting> {
    let decided = entry.said.iter().any(|said| said.member == replica.me() && said.time > trip.at);
    let waiting = Waiting { kind: Kind::Flood, since: trip.at, deadline: trip.until, by: BTreeSet::new() };
    (entry.status.matches() && !decided).then_some(waiting)
}

fn opposes(word: Word) -> bool {
    matches!(word, Word::Stance(Stance::Dispute) | Word::Retract(true))
}

fn of_words(kind: Kind, words: &[&Said]) -> Option<Waiting> {
    let since = words.iter().map(|said| said.time).max()?;
    Some(Waiting { kind, since, deadline: TimeMs(0), by: words.iter().map(|said| said.member).collect() })
}

/// Referrals that nobody has answered, and that came after our latest word.
fn open_referrals(
    replica: &Replica,
    charter: &Charter,
    entry: &Entry,
    decided: TimeMs,
    now: TimeMs,
) -> Option<Waiting> {
    let support = support(charter, entry);
    let mut found: Option<Waiting> = None;
    for (unit, spans) in replica.view().notes().referrals(&entry.subject) {
        let open = |span: &&Span| span.opened > decided && span.answered(&support, now) == Answered::Open;
        let Some(span) = spans.last().filter(open).filter(|_| is_active(charter, unit)) else { continue };
        let all = found.get_or_insert(Waiting {
            kind: Kind::Referral,
            since: span.opened,
            deadline: span.deadline,
            by: BTreeSet::new(),
        });
        all.by.insert(unit);
        all.since = all.since.min(span.opened);
        // The first deadline of several; 0 is none.
        all.deadline = [all.deadline, span.deadline].into_iter().filter(|d| *d > TimeMs(0)).min().unwrap_or_default();
    }
    found
}

fn is_active(charter: &Charter, member: MemberId) -> bool {
    charter.member(member).is_some_and(|m| m.is_active())
}

/// The FULL members that stand behind an entry, and since when.
fn support(charter: &Charter, entry: &Entry) -> Vec<(TimeMs, MemberId)> {
    let is_full = |said: &&Said| charter.member(said.member).is_some_and(|m| m.roles.has(Roles::FULL));
    let said = entry.said.iter().filter(|said| said.counts && said.word.supports()).filter(is_full);
    said.map(|said| (said.time, said.member)).collect()
}

/// A page of referrals.
///
/// # Errors
/// The field that is wrong.
pub(super) fn list_referrals(
    shared: &Shared,
    request: &l::ListReferralsRequest,
) -> Result<l::ListReferralsResponse, Status> {
    let (size, after) = page(request.page_size, &request.page_token)?;
    one_of("state", &request.state, ["OPEN", "CONFIRMED", "REJECTED", "EXPIRED"].into_iter())?;
    let now = clock::now();
    let replica = shared.replica();
    let mut answer = l::ListReferralsResponse::default();
    let (mut last, mut digits): (Option<Subject>, usize) = (None, 0);
    for (looked_at, subject) in replica.view().notes().referred_after(after.as_ref()).enumerate() {
        if looked_at >= SCAN_MAX || answer.referrals.len() >= size || digits > PAGE_DIGITS_MAX {
            answer.next_page_token = last.map(|subject| token(&subject)).unwrap_or_default();
            return Ok(answer);
        }
        let states = referrals(&replica, subject, now);
        let before = answer.referrals.len();
        answer.referrals.extend(states.filter(|s| request.state.is_empty() || s.state == request.state));
        digits += (answer.referrals.len() - before) * subject.value().len();
        last = Some(subject.clone());
    }
    Ok(answer)
}

fn referrals<'a>(
    replica: &'a Replica,
    subject: &'a Subject,
    now: TimeMs,
) -> impl Iterator<Item = l::ReferralState> + 'a {
    let charter = replica.charters().effective();
    let entry = replica.view().entry(subject, now);
    let support = entry.as_ref().map(|entry| support(charter, entry)).unwrap_or_default();
    let status = entry.map_or(Standing::Inactive, |entry| entry.status).name();
    let state = move |unit: MemberId, span: &Span| {
        let answered = span.answered(&support, now);
        l::ReferralState {
            signal: Some(l::Signal { r#type: subject.type_name().into_owned(), value: subject.value() }),
            member: replica.name_of(unit),
            member_id: unit.0.to_vec().into(),
            authority: record::code_name(&record::AUTHORITIES, "authority", span.authority),
            jurisdiction: record::jurisdiction_name(span.jurisdiction),
            opened_ms: span.opened.0,
            deadline_ms: span.deadline.0,
            closed_ms: span.closed.map_or(0, |at| at.0),
            state: answered.name().into(),
            answered_ms: answered.at().map_or(0, |at| at.0),
            confirmed_by: match answered {
                Answered::Confirmed(member, _) => replica.name_of(member),
                _ => String::new(),
            },
            took_ms: answered.at().unwrap_or(now).since(span.opened),
            status: status.into(),
        }
    };
    let spans = replica.view().notes().referrals(subject);
    spans.flat_map(move |(unit, spans)| spans.iter().map(|span| state(unit, span)).collect::<Vec<_>>())
}

/// All incidents, those with the latest word first.
pub(super) fn list_incidents(shared: &Shared) -> l::ListIncidentsResponse {
    let (now, labels) = (clock::now(), shared.taxonomy());
    let replica = shared.replica();
    let mut incidents: Vec<_> = replica.view().notes().incidents().collect();
    incidents.sort_by_key(|(_, words)| std::cmp::Reverse(words.values().map(|note| note.time).max()));
    let state = |(id, words): &(IncidentId, &BTreeMap<MemberId, Note<IncidentWord>>)| l::IncidentState {
        id: id.to_vec().into(),
        open: words.values().any(|note| note.what.is_open(now)),
        words: words.values().map(|note| incident_word(&replica, note, &labels, now)).collect(),
        entries: replica.view().incident_subjects(id) as u64,
    };
    l::ListIncidentsResponse {
        truncated: incidents.len() > SHOWN_MAX,
        incidents: incidents.iter().take(SHOWN_MAX).map(state).collect(),
    }
}

fn incident_word(replica: &Replica, note: &Note<IncidentWord>, labels: &Taxonomy, now: TimeMs) -> l::IncidentWord {
    l::IncidentWord {
        member: replica.name_of(note.member),
        member_id: note.member.0.to_vec().into(),
        label: if note.what.code == 0 { String::new() } else { labels.name(note.what.code) },
        level: note.what.level,
        open: note.what.is_open(now),
        closes_ms: note.what.closes.0,
        time_ms: note.time.0,
    }
}

/// Certified counter-narratives, by address.
///
/// # Errors
/// The label is unknown.
pub(super) fn list_resources(
    shared: &Shared,
    request: &l::ListResourcesRequest,
) -> Result<l::ListResourcesResponse, Status> {
    let taxonomy = shared.taxonomy();
    let label = match request.label.as_str() {
        "" => None,
        label => Some(labels::asked(&taxonomy, label, "label")?),
    };
    let now = clock::now();
    let replica = shared.replica();
    let fits = |note: &&Note<Resource>| {
        let resource = &note.what;
        let languages = &resource.languages;
        (request.all || notes::is_offered(resource, now) && is_active(replica.charters().effective(), note.member))
            && label.is_none_or(|label| resource.labels.contains(&label))
            && (request.language.is_empty()
                || languages.is_empty()
                || languages.iter().any(|tag| is_of_language(tag, &request.language)))
    };
    let mut resources: Vec<_> = replica.view().notes().resources().filter(fits).take(SHOWN_MAX + 1).collect();
    let truncated = resources.len() > SHOWN_MAX;
    resources.truncate(SHOWN_MAX);
    let resources = resources.into_iter().map(|note| resource_to_proto(&replica, note, &taxonomy)).collect();
    Ok(l::ListResourcesResponse { resources, truncated })
}

fn resource_to_proto(replica: &Replica, note: &Note<Resource>, labels: &Taxonomy) -> l::Resource {
    l::Resource {
        url: note.what.url.clone(),
        labels: note.what.labels.iter().map(|label| labels.name(*label)).collect(),
        languages: note.what.languages.clone(),
        listed: note.what.listed,
        expires_ms: note.what.expires.0,
        member: replica.name_of(note.member),
    }
}

/// What active certifiers offer against an entry, for its labels and languages.
pub(super) fn offers(replica: &Replica, entry: &Entry, labels: &Taxonomy, now: TimeMs) -> Vec<l::Resource> {
    let offers = replica.view().notes().offers(&entry.labels, &entry.languages, now);
    let offers = offers.into_iter().filter(|note| is_active(replica.charters().effective(), note.member));
    offers.map(|note| resource_to_proto(replica, note, labels)).collect()
}

/// Adds to an entry what is said beside its status: incidents, preserved copies, outcomes. `details` are those of its
/// words, in their order.
pub(super) fn complete(
    replica: &Replica,
    entry: &Entry,
    details: Vec<Option<l::Details>>,
    labels: &Taxonomy,
    shown: &mut l::Entry,
    now: TimeMs,
) {
    let notes = replica.view().notes();
    for (said, details) in shown.said.iter_mut().zip(details) {
        said.details = details;
    }
    let words = entry.said.iter().zip(&shown.said).filter(|(said, _)| said.counts && said.word.supports());
    let ids = words.filter_map(|(_, shown)| shown.details.as_ref()?.incident_id[..].try_into().ok());
    let ids: BTreeSet<IncidentId> = ids.collect();
    let open_labels = |id: &IncidentId| {
        let words = notes.incident(id).into_iter().flat_map(|words| words.values());
        let codes: BTreeSet<_> = words.filter(|note| note.what.is_open(now)).map(|note| note.what.code).collect();
        codes.into_iter().map(|code| labels.name(code)).collect()
    };
    shown.incidents =
        ids.iter().map(|id| l::EntryIncident { id: id.to_vec().into(), labels: open_labels(id) }).collect();
    let kept = notes.preserved(&entry.subject).map(|note| l::Kept {
        member: replica.name_of(note.member),
        member_id: note.member.0.to_vec().into(),
        time_ms: note.time.0,
        until_ms: note.what.until.0,
        contact: record::code_name(&record::CONTACTS, "contact", note.what.contact),
    });
    shown.preserved = kept.collect();
    let done = notes.acted(&entry.subject).map(|note| l::Done {
        member: replica.name_of(note.member),
        member_id: note.member.0.to_vec().into(),
        time_ms: note.time.0,
        result: record::code_name(&record::RESULTS, "result", note.what.result),
        acted_ms: note.what.at.0,
    });
    shown.outcomes = done.collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_asks_for_its_regions_too() {
        for (tag, asked, expected) in
            [("pt-BR", "pt", true), ("pt", "pt-BR", false), ("PT-br", "pt-BR", true), ("ptx", "pt", false)]
        {
            assert_eq!(is_of_language(tag, asked), expected, "{tag} {asked}");
        }
    }

    #[test]
    fn pages_are_bounded_and_names_are_known() {
        assert_eq!(page(0, "").unwrap(), (PAGE_DEFAULT, None));
        assert!(page(1_001, "").is_err() && page(1, "x").is_err());
        assert!(one_of("kind", "conflict", Kind::ALL.into_iter().map(Kind::name)).is_ok());
        let why = one_of("kind", "conflicts", Kind::ALL.into_iter().map(Kind::name)).unwrap_err();
        assert!(why.message().contains("known: disputed-own, disputed, conflict"), "{}", why.message());
    }
}
