//! `/review`: what waits for a person of our company, the oldest first. The keyboard moves through it and opens the
//! form of a decision in place; without scripts the same buttons are links to the same page with that form open.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::{Code, Status};

use super::form::Fields;
use super::members;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::pieces::{Pager, count, counted, encoded};
use super::saying::{self, LabelGroup, say, span};
use crate::access::Scope;
use crate::clock;
use crate::net::deciding::{self, Choice, Decision, FLOOD, KINDS, Undecided};
use crate::net::status::{bad_field, refuse, refuse_with_fix};
use crate::replica::charter::Roles;
use crate::replica::ids::TimeMs;
use crate::replica::taxonomy::is_name;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Items that are read to find the oldest: a queue that is longer is worked off by kind and language.
const READ_MAX: usize = 2_000;
/// Items of one page: what somebody works off at a sitting.
const SHOWN_MAX: usize = 25;

/// What the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    kind: String,
    language: String,
    from: usize,
    /// The item whose form is open.
    id: String,
    /// The decision that it is for.
    decision: String,
    said: String,
}

impl Asked {
    /// This page with other things open.
    fn path(&self, more: &[(&str, &str)]) -> String {
        let from = if self.from > 0 { self.from.to_string() } else { String::new() };
        let own = [("kind", self.kind.as_str()), ("language", &self.language), ("from", &from)];
        let fields = own.iter().chain(more).filter(|(_, value)| !value.is_empty());
        let query: Vec<_> = fields.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        if query.is_empty() { "/review".to_owned() } else { format!("/review?{}", query.join("&")) }
    }
}

/// A decision that an item offers.
struct Offer {
    name: &'static str,
    words: &'static str,
    key: &'static str,
    href: String,
    open: bool,
}

/// The form of a decision.
struct Form {
    name: &'static str,
    words: &'static str,
    meaning: &'static str,
    needs_reason: bool,
    takes_labels: bool,
    takes_review: bool,
    takes_expires: bool,
    needs_expires: bool,
    danger: bool,
    suggested: &'static str,
}

/// Something that waits.
struct Item {
    id: String,
    kind: String,
    tone: Tone,
    what: String,
    since_ms: u64,
    deadline_ms: u64,
    type_name: String,
    value: String,
    status: String,
    labels: Vec<String>,
    languages: Vec<String>,
    support: u32,
    disputes: u32,
    /// Who disagrees, and why.
    against: Vec<String>,
    flood: String,
    offers: Vec<Offer>,
    form: Option<Form>,
}

#[derive(Template)]
#[template(path = "review.html")]
struct ReviewPage {
    page: Page,
    kinds: Vec<(&'static str, bool)>,
    language: String,
    kind: String,
    items: Vec<Item>,
    pager: Pager,
    total: String,
    truncated: bool,
    reasons: Vec<&'static str>,
    labels: Vec<LabelGroup>,
    back: String,
}

/// The queue.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Review", Nav::Review, &Said::of(&asked.said)).await?;
    let request =
        l::ListReviewsRequest { kind: asked.kind.clone(), language: asked.language.clone(), ..Default::default() };
    let (mut reviews, truncated) = read(&web, &visitor, request).await?;
    reviews.sort_by(|a, b| (a.since_ms, &a.id).cmp(&(b.since_ms, &b.id)));
    let total = reviews.len();
    let law = members::law(&web, &visitor).await?;
    let us = Us { name: page.member.clone(), roles: law.our_roles(&page.member), may_review: page.may_review() };
    let shown = reviews.into_iter().skip(asked.from).take(SHOWN_MAX);
    let items: Vec<_> = shown.map(|review| item(review, &asked, &us)).collect();
    let next = asked.from.saturating_add(items.len());
    let at = |from: usize| Asked { from, ..asked.clone() }.path(&[]);
    let pager = Pager {
        first: (asked.from > 0).then(|| at(0)),
        next: (next < total && !items.is_empty()).then(|| at(next)),
        shown: items.len() as u64,
        thing: "item",
    };
    let labels = if items.iter().any(|item| item.form.as_ref().is_some_and(|form| form.takes_labels)) {
        saying::labels(&web, &visitor).await?
    } else {
        Vec::new()
    };
    html(&ReviewPage {
        page,
        kinds: KINDS.map(|kind| (kind, kind == asked.kind)).to_vec(),
        language: asked.language.clone(),
        kind: asked.kind.clone(),
        items,
        pager,
        total: format!("{}{}", counted(total as u64, "item"), if truncated { " at least" } else { "" }),
        truncated,
        reasons: saying::reasons(),
        labels,
        back: asked.path(&[]),
    })
}

/// Items of the queue, at most [`READ_MAX`], and whether there are more.
async fn read(
    web: &Web,
    visitor: &Visitor,
    mut request: l::ListReviewsRequest,
) -> Result<(Vec<l::Review>, bool), Problem> {
    request.page_size = 1_000;
    let mut reviews = Vec::new();
    loop {
        let page = web.service.list_reviews(web.ask(visitor.caller(), request.clone())).await?.into_inner();
        reviews.extend(page.reviews);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || reviews.len() >= READ_MAX {
            return Ok((reviews, !request.page_token.is_empty()));
        }
    }
}

/// Our company, as far as it decides what is offered.
struct Us {
    name: String,
    roles: Roles,
    may_review: bool,
}

fn item(review: l::Review, asked: &Asked, us: &Us) -> Item {
    let entry = review.entry.unwrap_or_default();
    let signal = entry.signal.clone().unwrap_or_default();
    let fitting =
        Decision::ALL.into_iter().filter(|decision| us.may_review && offered(*decision, &review.kind, &entry, us));
    let open = (review.id == asked.id).then(|| Decision::from_name(&asked.decision)).flatten();
    let offer = |decision: Decision| Offer {
        name: decision.name(),
        words: words(decision, &review.kind).0,
        key: words(decision, &review.kind).1,
        href: format!("{}#{}", asked.path(&[("id", &review.id), ("decision", decision.name())]), encoded(&review.id)),
        open: open == Some(decision),
    };
    let offers: Vec<_> = fitting.map(offer).collect();
    let form = open.filter(|_| offers.iter().any(|offer| offer.open)).map(|decision| form(decision, &review.kind));
    let against = entry.said.iter().filter(|said| said.counts && said.what == "DISPUTE");
    let reason = |said: &l::Said| if said.reason.is_empty() { "no reason".to_owned() } else { said.reason.clone() };
    let against = against.map(|said| format!("{}: {}", said.member, reason(said))).collect();
    let (tone, what) = told(&review.kind, &review.by, review.deadline_ms);
    Item {
        tone,
        what,
        against,
        flood: review.flood.map(|flood| flood_text(&flood)).unwrap_or_default(),
        id: review.id,
        kind: review.kind,
        since_ms: review.since_ms,
        deadline_ms: review.deadline_ms,
        type_name: signal.r#type,
        value: signal.value,
        status: entry.status,
        labels: entry.labels,
        languages: entry.languages,
        support: entry.support_groups + entry.small_support_groups,
        disputes: entry.dispute_groups,
        offers,
        form,
    }
}

/// Whether a decision is offered: the node would refuse the others, by role or because there is nothing to take back.
fn offered(decision: Decision, kind: &str, entry: &l::Entry, us: &Us) -> bool {
    let ours =
        |what: &[&str]| entry.said.iter().any(|said| said.member == us.name && what.contains(&said.what.as_str()));
    let opines = us.roles.has_any(Roles::FULL.and(Roles::SMALL));
    decision.answers(kind)
        && match decision {
            Decision::Endorse => opines,
            // Of a referral the word is "reject"; both say the same.
            Decision::Dispute => opines && kind != "referral",
            Decision::Withdraw => opines && ours(&["SUBMIT", "ENDORSE", "DISPUTE"]),
            Decision::Retract => us.roles.has(Roles::FULL),
            Decision::Allow => us.roles.has(Roles::CERTIFIER) && !ours(&["ALLOW"]),
            Decision::Reject if kind == "conflict" => ours(&["ALLOW"]),
            Decision::Reject => opines,
            Decision::Keep => true,
        }
}

/// The words on a button, and its key.
fn words(decision: Decision, kind: &str) -> (&'static str, &'static str) {
    match decision {
        Decision::Endorse => ("Endorse", "e"),
        Decision::Dispute => ("Dispute", "d"),
        Decision::Withdraw => ("Withdraw", "w"),
        Decision::Retract => ("Vote to retract", "t"),
        Decision::Allow => ("Certify", "c"),
        Decision::Reject if kind == "conflict" => ("Take certificate back", "x"),
        Decision::Reject => ("Reject", "x"),
        Decision::Keep => ("Keep blocking", "b"),
    }
}

fn form(decision: Decision, kind: &str) -> Form {
    let meaning = match decision {
        Decision::Endorse => "Our company stands behind it. What it said before stays, said anew.",
        Decision::Dispute => "Our company disagrees. The others read why.",
        Decision::Withdraw => "Our company takes back what it said, and says nothing of it any more.",
        Decision::Retract => {
            "Our company votes to end the entry for everybody. The vote counts together with those of other members."
        }
        Decision::Allow => "Our company certifies it: no machine acts on it alone, at any member.",
        Decision::Reject if kind == "conflict" => "Our company takes its certificate back.",
        Decision::Reject => "Our company disagrees with the referral. The unit and the others read why.",
        Decision::Keep => {
            "It is rightly listed: it has its verdict back on this node. Nothing is signed, nobody else learns of it."
        }
    };
    Form {
        name: decision.name(),
        words: words(decision, kind).0,
        meaning,
        needs_reason: decision.needs_reason(),
        takes_labels: decision == Decision::Endorse,
        takes_review: decision == Decision::Endorse,
        takes_expires: matches!(decision, Decision::Endorse | Decision::Allow),
        needs_expires: decision == Decision::Allow,
        danger: decision == Decision::Retract,
        suggested: if kind == FLOOD { "overmatching" } else { "" },
    }
}

/// What an item is about, in a tone and a sentence.
fn told(kind: &str, by: &[String], deadline_ms: u64) -> (Tone, String) {
    let disagree = if by.len() == 1 { "disagrees" } else { "disagree" };
    let by = by.join(", ");
    match kind {
        "disputed-own" => (Tone::Bad, format!("We listed it, and {by} {disagree}")),
        "disputed" => (Tone::Warn, format!("We stand behind it, and {by} {disagree}")),
        "conflict" => (Tone::Warn, format!("Certified and listed at once, by {by}")),
        "referral" => (Tone::Note, format!("Referred by {by}")),
        "expiring" => (Tone::Note, format!("Our word ends {}", super::pieces::absolute(TimeMs(deadline_ms)))),
        "due" => (Tone::Note, "We wanted to look at it again".to_owned()),
        FLOOD => (Tone::Bad, "It matches far more often here than it used to".to_owned()),
        _ => (Tone::Note, format!("Concerns {by}")),
    }
}

fn flood_text(flood: &l::Flood) -> String {
    let effect = match flood.blocks {
        true => "it keeps its BLOCK for an open incident",
        false => "it is no more than REVIEW here for now",
    };
    let [matches, usual] = [flood.matches, flood.usual].map(|n| count(n.into()));
    let (window, since) = (span(flood.window_ms), count(flood.matches_since));
    format!("Matched {matches} times in {window} where {usual} is usual, {since} times since; {effect}.")
}

/// Takes a decision.
pub(super) async fn decide(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    // An opinion alone needs no more than `submit`: to work off the queue needs this, whatever is decided.
    if !visitor.may(Scope::Review) {
        let why = format!("{} may not decide what waits; this needs {}", visitor.caller().name, Scope::Review);
        return Err(refuse(Code::PermissionDenied, "SCOPE", why).into());
    }
    let back = Asked { kind: fields.one("kind").into(), language: fields.one("language").into(), ..Asked::default() };
    let (id, name) = (fields.one("id"), fields.one("decision"));
    let decision = Decision::from_name(name).ok_or_else(|| bad_field("decision", format!("{name:?} is none")))?;
    let kind = id.rsplit_once('-').map_or("", |(kind, _)| kind).to_owned();
    let entry = waiting(&web, &visitor, id, &kind).await?;
    let signal = entry.signal.clone().unwrap_or_default();
    if decision == Decision::Keep && decision.answers(&kind) {
        let request = l::ResetBreakerRequest { signal: Some(signal) };
        web.service.reset_breaker(web.ask(visitor.caller(), request)).await?;
        web.hub().lately.forget().await;
        return Ok(see_other(&back.path(&[]), "kept"));
    }
    let choice = choice(decision, &fields)?;
    let statement = stated(&web, &visitor, &choice, &kind, &entry).await?;
    let statement = l::Statement { signal: Some(signal), ..statement };
    let said = say(&web, &visitor, statement, l::Lane::Normal, "decided").await?;
    Ok(see_other(&back.path(&[]), said))
}

fn choice(decision: Decision, fields: &Fields) -> Result<Choice, Status> {
    let now = clock::now();
    let labels = fields.all("label");
    if let Some(wrong) = labels.iter().find(|label| !is_name(label)) {
        return Err(bad_field("label", format!("{wrong:?} cannot be a label")));
    }
    Ok(Choice {
        decision,
        reason: fields.one("reason").to_owned(),
        labels,
        expires: TimeMs(fields.moment("expires", now)?),
        review: TimeMs(fields.moment("review", now)?),
    })
}

/// The entry that waits under `id`.
async fn waiting(web: &Web, visitor: &Visitor, id: &str, kind: &str) -> Result<l::Entry, Problem> {
    let gone = || {
        let what = format!("nothing waits under {id:?} any more: somebody has decided it");
        Problem::from(refuse_with_fix(Code::NotFound, "NOT_FOUND", what, "go back to the queue"))
    };
    if !KINDS.contains(&kind) {
        return Err(gone());
    }
    let mut found = web.waiting(visitor.caller(), kind, id).await?;
    // An id holds half of a hash: who made two subjects with one id must not have a decision on the wrong one.
    if found.len() > 1 {
        let what = format!("{} items wait under {id:?}", found.len());
        let fix = "say it on the page of the entry";
        return Err(refuse_with_fix(Code::FailedPrecondition, "AMBIGUOUS", what, fix).into());
    }
    found.pop().ok_or_else(gone)
}

/// What our company says, but for the signal.
async fn stated(
    web: &Web,
    visitor: &Visitor,
    choice: &Choice,
    kind: &str,
    entry: &l::Entry,
) -> Result<l::Statement, Problem> {
    let wrong = |why: Undecided| Problem::from(bad_field(why.field(), why.to_string()));
    let now = clock::now();
    if choice.decision != Decision::Endorse {
        return deciding::statement(choice, kind, entry, &[], |_| false, now).map_err(wrong);
    }
    let me = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner().member_id;
    let request = l::GetEntryRequest { signal: entry.signal.clone(), ..Default::default() };
    let full = web.service.get_entry(web.ask(visitor.caller(), request)).await?.into_inner().entry.unwrap_or_default();
    let groups = saying::labels(web, visitor).await?;
    let sayable = |name: &str| groups.iter().any(|group| group.labels.iter().any(|label| label == name));
    deciding::statement(choice, kind, &full, &me, sayable, now).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    fn us(roles: Roles, may_review: bool) -> Us {
        Us { name: "acme".into(), roles, may_review }
    }

    fn review(kind: &str) -> l::Review {
        let said = |what: &str| l::Said { member: "acme".into(), what: what.into(), ..Default::default() };
        let entry = l::Entry { said: vec![said("SUBMIT"), said("ALLOW")], ..Default::default() };
        l::Review {
            id: format!("{kind}-0011223344556677"),
            kind: kind.into(),
            entry: Some(entry),
            ..Default::default()
        }
    }

    fn offers(kind: &str, us: &Us) -> Vec<&'static str> {
        item(review(kind), &Asked::default(), us).offers.iter().map(|offer| offer.name).collect()
    }

    #[test]
    fn only_what_answers_an_item_is_offered_and_to_a_viewer_nothing() {
        let full = us(Roles::FULL, true);
        assert_eq!(offers("disputed-own", &full), ["endorse", "dispute", "withdraw", "retract"]);
        assert_eq!(offers("referral", &full), ["endorse", "withdraw", "retract", "reject"]);
        assert_eq!(offers("conflict", &us(Roles::CERTIFIER, true)), ["reject"]);
        assert_eq!(offers(FLOOD, &us(Roles::SMALL, true)), ["endorse", "dispute", "withdraw", "keep"]);
        for kind in KINDS {
            assert!(offers(kind, &us(Roles::FULL.and(Roles::CERTIFIER), false)).is_empty(), "{kind}");
        }
    }

    #[test]
    fn every_decision_has_a_key_of_its_own_and_none_that_moves() {
        for kind in KINDS {
            let mut keys: Vec<_> =
                Decision::ALL.into_iter().filter(|d| d.answers(kind)).map(|d| words(d, kind).1).collect();
            assert!(!keys.iter().any(|key| ["j", "k", "g", "/", "?"].contains(key)));
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "{kind}");
        }
    }

    #[test]
    fn the_form_of_the_decision_that_was_chosen_is_open_and_no_other() {
        let id = review("due").id;
        let asked = Asked { id: id.clone(), decision: "dispute".into(), kind: "due".into(), ..Asked::default() };
        let open = item(review("due"), &asked, &us(Roles::FULL, true));
        assert!(open.form.as_ref().is_some_and(|form| form.name == "dispute" && form.needs_reason));
        assert!(open.offers[0].href.contains("kind=due") && open.offers[0].href.ends_with(&format!("#{id}")));
        // Nobody opens by an address what is not offered.
        let keep = Asked { decision: "keep".into(), ..asked };
        assert!(item(review("due"), &keep, &us(Roles::FULL, true)).form.is_none());
        assert!(item(review("due"), &keep, &us(Roles::FULL, false)).form.is_none());
    }

    #[test]
    fn whoever_decides_reads_who_disagrees_and_why() {
        let said = |reason: &str, counts| l::Said {
            member: "bolt".into(),
            what: "DISPUTE".into(),
            reason: reason.into(),
            counts,
            ..Default::default()
        };
        let entry = l::Entry {
            said: vec![said("news-reporting", true), said("", true), said("mistake", false)],
            ..Default::default()
        };
        let shown =
            item(l::Review { entry: Some(entry), ..review("disputed") }, &Asked::default(), &us(Roles::FULL, true));
        assert_eq!(shown.against, ["bolt: news-reporting", "bolt: no reason"]);
    }

    #[test]
    fn filters_stay_in_the_address_and_are_encoded() {
        let asked = Asked { kind: "a&b=c".into(), language: "pt-BR".into(), from: 25, ..Asked::default() };
        assert_eq!(asked.path(&[]), "/review?kind=a%26b%3Dc&language=pt-BR&from=25");
        assert_eq!(Asked::default().path(&[]), "/review");
    }

    fn queue(role: Role) -> String {
        let asked = Asked { id: HOSTILE.into(), decision: "dispute".into(), kind: HOSTILE.into(), ..Asked::default() };
        let us = us(Roles::FULL, role != Role::Viewer);
        let words = |_| HOSTILE.to_owned();
        let entry = l::Entry {
            signal: Some(l::Signal { r#type: HOSTILE.into(), value: HOSTILE.into() }),
            labels: (0..2).map(words).collect(),
            languages: vec![HOSTILE.into()],
            status: HOSTILE.into(),
            ..Default::default()
        };
        let review = l::Review { entry: Some(entry), by: vec![HOSTILE.into()], ..review("disputed") };
        let open = Asked { id: review.id.clone(), ..asked };
        rendered(&ReviewPage {
            page: page(role, Nav::Review),
            kinds: KINDS.map(|kind| (kind, false)).to_vec(),
            language: HOSTILE.into(),
            kind: HOSTILE.into(),
            items: vec![item(review, &open, &us)],
            pager: Pager { thing: "item", ..Pager::default() },
            total: "1 item".into(),
            truncated: true,
            reasons: saying::reasons(),
            labels: vec![LabelGroup { facet: HOSTILE.into(), labels: vec![HOSTILE.into()] }],
            back: open.path(&[]),
        })
    }

    #[test]
    fn a_viewer_sees_the_queue_and_no_way_to_decide() {
        let (viewer, reviewer) = (queue(Role::Viewer), queue(Role::Reviewer));
        assert_eq!((posts(&viewer), posts(&reviewer)), (1, 2));
        assert!(!viewer.contains("data-key=") && reviewer.contains("data-key=\"d\""));
    }
}
