//! `/members`: who belongs to the forum, and on what the trust in them rests: roles, groups, keys, certificates, what
//! they contribute and how much of it is disputed; and the charter that says so.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use prost::Message as _;
use tonic::{Code, Status};

use super::form::Fields;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::pieces::counted;
use super::saying::{self, days_left, say};
use super::svg::{Chart, Drawn};
use crate::clock;
use crate::keys::words::key_words;
use crate::net::status::{bad_field, refuse};
use crate::replica::charter::{Charter, ExpulsionPolicy, Member, MemberStatus, Roles, charter_signature_holds};
use crate::replica::ids::{ForumId, MemberId, TimeMs, hex};
use crate::replica::proto;
use crate::replica::suspension::SUSPENSION_DAYS_MAX;
use crate::web::{Problem, Web};
use crate::wire::files::{self, CharterFile, Invitation, Kind};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Entries that are looked at for what members contribute, so that a page is made in a tenth of a second. The list is in
/// the order of types, and within a type in that of hashes: of a long list these are a fair sample of the first types
/// only. A filter by type would walk over all entries before them, at every click.
const SAMPLED_MAX: usize = 10_000;

/// The charter in force, as the node holds it.
pub(super) struct Law {
    pub(super) charter: Charter,
    signed: proto::SignedCharter,
}

impl Law {
    /// What our company may do.
    pub(super) fn our_roles(&self, name: &str) -> Roles {
        self.charter.member_named(name).map_or(Roles::from_bits(0), |member| member.roles)
    }

    /// Founders that have signed it, and those that have not.
    fn founders(&self) -> Vec<Founder> {
        let signed = |key: &ed25519_dalek::VerifyingKey| {
            self.signed.sigs.iter().any(|sig| charter_signature_holds(key, &self.signed.body, sig))
        };
        self.charter.founders.iter().map(|(id, key)| Founder { key: id.to_string(), signed: signed(key) }).collect()
    }
}

struct Founder {
    key: String,
    signed: bool,
}

/// Asks for the charter in force.
pub(super) async fn law(web: &Web, visitor: &Visitor) -> Result<Law, Problem> {
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let signed = charters(web, visitor, status.charter_version).await?.into_iter().next();
    let signed =
        signed.ok_or_else(|| Problem::from(refuse(Code::Unavailable, "CHARTER", "there is no charter yet")))?;
    let charter = Charter::decode(&signed.body).map_err(|e| refuse(Code::Internal, "CHARTER", e.to_string()))?;
    Ok(Law { charter, signed })
}

async fn charters(web: &Web, visitor: &Visitor, from_version: u64) -> Result<Vec<proto::SignedCharter>, Problem> {
    let request = l::GetChartersRequest { from_version };
    let answer = web.service.get_charters(web.ask(visitor.caller(), request)).await?.into_inner();
    let decode = |bytes: bytes::Bytes| proto::SignedCharter::decode(bytes);
    let charters: Result<Vec<_>, _> = answer.charters.into_iter().map(decode).collect();
    charters.map_err(|e| refuse(Code::Internal, "CHARTER", e.to_string()).into())
}

/// What a member has said of the list, as far as it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contribution {
    /// Entries that it stands behind.
    supports: u64,
    /// Of them, those that another member disputes.
    disputed: u64,
    /// Entries that it disputes.
    disputes: u64,
}

impl Contribution {
    /// The share that is disputed: `3.3 %`.
    fn rate(&self) -> String {
        if self.supports == 0 {
            return "–".to_owned();
        }
        let permille = (self.disputed * 1_000 + self.supports / 2) / self.supports;
        format!("{}.{} %", permille / 10, permille % 10)
    }
}

/// Adds up what an entry says of its members.
fn add(entry: &l::Entry, found: &mut BTreeMap<String, Contribution>) {
    let stands = |said: &&l::Said| said.counts;
    let disputers: Vec<_> = entry.said.iter().filter(stands).filter(|said| said.what == "DISPUTE").collect();
    for said in entry.said.iter().filter(stands) {
        let of = found.entry(said.member.clone()).or_default();
        match said.what.as_str() {
            "SUBMIT" | "ENDORSE" => {
                of.supports += 1;
                of.disputed += u64::from(disputers.iter().any(|other| other.member_id != said.member_id));
            }
            "DISPUTE" => of.disputes += 1,
            _ => {}
        }
    }
}

/// What members contribute, and of how many entries that was counted; and whether there are more.
async fn contributions(web: &Web, visitor: &Visitor) -> Result<(BTreeMap<String, Contribution>, usize, bool), Problem> {
    let mut request = l::ListEntriesRequest { page_size: 1_000, ..Default::default() };
    let (mut found, mut looked_at) = (BTreeMap::new(), 0);
    loop {
        let page = web.service.list_entries(web.ask(visitor.caller(), request.clone())).await?.into_inner();
        looked_at += page.entries.len();
        page.entries.iter().for_each(|entry| add(entry, &mut found));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || looked_at >= SAMPLED_MAX {
            return Ok((found, looked_at, !request.page_token.is_empty()));
        }
    }
}

/// A company.
struct Row {
    id: String,
    name: String,
    group: String,
    us: bool,
    roles: String,
    tone: Tone,
    status: String,
    jurisdictions: Vec<String>,
    languages: Vec<String>,
    endpoints: Vec<String>,
    admitted_ms: u64,
    key_words: String,
    certificate: Option<(u64, Tone)>,
    supports: u64,
    rate: String,
    disputes: u64,
    can_be_suspended: bool,
}

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage {
    page: Page,
    rows: Vec<Row>,
    chart: Drawn,
    counted: String,
    charter: Facts,
    founders: Vec<Founder>,
    reasons: Vec<&'static str>,
    days_max: u64,
    may_suspend: bool,
}

/// The charter in a few facts.
struct Facts {
    version: u64,
    hash: String,
    forum: String,
    issued_ms: u64,
    valid_until_ms: u64,
    valid: Option<(u64, Tone)>,
    threshold: usize,
    taxonomy: String,
    semantics: u32,
    contest_quorum: u32,
    retract: String,
    allow_quorum: u32,
}

/// The members.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Members", Nav::Members, &said).await?;
    let law = law(&web, &visitor).await?;
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let peers = web.service.list_peers(web.ask(visitor.caller(), l::ListPeersRequest {})).await?.into_inner().peers;
    let (contributed, looked_at, more) = contributions(&web, &visitor).await?;
    let steward = law.our_roles(&page.member).has(Roles::STEWARD) && page.may_admin();
    let now = page.now;
    let row = |member: &Member| {
        let until = peers.iter().find(|p| p.member_id[..] == member.id.0).map_or(0, |p| p.certificate_until_ms);
        let us = member.name == page.member;
        let until = if us { status.certificate_until_ms } else { until };
        let contribution = contributed.get(&member.name).cloned().unwrap_or_default();
        let (tone, words) = standing(member, &law.charter, &status.suspended);
        Row {
            id: hex(&member.id.0),
            name: member.name.clone(),
            group: member.group.clone(),
            us,
            roles: member.roles.names().join(", "),
            tone,
            status: words,
            jurisdictions: member.jurisdictions.clone(),
            languages: member.languages.clone(),
            endpoints: member.endpoints.clone(),
            admitted_ms: member.admitted.0,
            key_words: key_words(member.root_key.as_bytes()),
            certificate: days_left(TimeMs(until), now),
            supports: contribution.supports,
            rate: contribution.rate(),
            disputes: contribution.disputes,
            can_be_suspended: steward && member.is_active() && !us,
        }
    };
    let mut rows: Vec<_> = law.charter.members.values().map(row).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    html(&MembersPage {
        chart: chart(&rows, &contributed),
        counted: sampled(looked_at, more),
        charter: facts(&law.charter, &status, now),
        founders: law.founders(),
        reasons: saying::reasons(),
        days_max: SUSPENSION_DAYS_MAX,
        may_suspend: rows.iter().any(|row| row.can_be_suspended),
        rows,
        page,
    })
}

fn sampled(looked_at: usize, more: bool) -> String {
    let entries = counted(looked_at as u64, "entry");
    if more {
        format!(
            "Counted over the first {entries} of the list only. The list goes by type (pdq first), then by hash: who \
             lists mostly later types is counted too low. The report counts all."
        )
    } else {
        format!("Counted over all {entries} of the list.")
    }
}

fn chart(rows: &[Row], contributed: &BTreeMap<String, Contribution>) -> Drawn {
    let of = |row: &Row| contributed.get(&row.name).cloned().unwrap_or_default();
    let names = rows.iter().map(|row| row.name.clone()).collect();
    Chart::new(
        "contribution",
        "Entries that each member stands behind",
        "Those that another member disputes stand apart.",
    )
    .over("member", names)
    .with("undisputed", rows.iter().map(|row| of(row).supports.saturating_sub(of(row).disputed)).collect())
    .with("disputed by others", rows.iter().map(|row| of(row).disputed).collect())
    .bars()
}

/// How a company stands, in a tone and words.
fn standing(member: &Member, charter: &Charter, suspended: &[l::SuspendedMember]) -> (Tone, String) {
    let by_steward = suspended.iter().find(|s| s.member_id[..] == member.id.0);
    match (member.status, charter.expulsions.get(&member.id), by_steward) {
        (_, Some(ExpulsionPolicy::Keep), _) => (Tone::Bad, "FORMER: expelled, what it said before counts".into()),
        (_, Some(ExpulsionPolicy::Void), _) => (Tone::Bad, "FORMER: expelled, nothing it said counts".into()),
        (MemberStatus::Active, None, Some(s)) => {
            (Tone::Bad, format!("SUSPENDED by a steward until {}", super::pieces::absolute(TimeMs(s.until_ms))))
        }
        (MemberStatus::Active, None, None) => (Tone::Ok, "ACTIVE".into()),
        (MemberStatus::Suspended, None, _) => (Tone::Bad, "SUSPENDED until a charter reinstates it".into()),
        (MemberStatus::Former, None, _) => (Tone::Note, "FORMER".into()),
    }
}

fn facts(charter: &Charter, status: &l::StatusResponse, now: TimeMs) -> Facts {
    let policy = &charter.policy;
    Facts {
        version: charter.version,
        hash: hex(&charter.hash.0),
        forum: hex(&status.forum_id),
        issued_ms: charter.issued.0,
        valid_until_ms: charter.valid_until.0,
        valid: days_left(charter.valid_until, now),
        threshold: charter.threshold,
        taxonomy: charter.taxonomy.clone(),
        semantics: charter.semantics,
        contest_quorum: policy.contest_quorum,
        retract: format!("{} groups, or {} of a thousand full ones", policy.retract_min, policy.retract_permille),
        allow_quorum: policy.allow_quorum,
    }
}

/// The invitation, or the charter, as a file: neither is secret, and newcomers check both against the fingerprint.
pub(super) async fn download(
    State(web): State<Web>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (kind, name) = match name.as_str() {
        "invite.sdi" => (Kind::Invitation, "invite.sdi"),
        "charter.sdc" => (Kind::Charter, "charter.sdc"),
        _ => return Err(refuse(Code::NotFound, "NOT_FOUND", "expected invite.sdi or charter.sdc").into()),
    };
    let mut chain = charters(&web, &visitor, 1).await?;
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let taxonomy =
        web.service.get_taxonomy(web.ask(visitor.caller(), l::GetTaxonomyRequest {})).await?.into_inner().file;
    let none = || refuse(Code::Unavailable, "CHARTER", "there is no charter yet");
    let bytes = match kind {
        Kind::Invitation => {
            let forum = ForumId::from_slice(&status.forum_id).ok_or_else(none)?;
            Invitation { forum, charters: chain, taxonomy }.encode()
        }
        _ => {
            let proposed = chain.pop().ok_or_else(none)?;
            let taxonomies = if taxonomy.is_empty() { Vec::new() } else { vec![taxonomy] };
            CharterFile { proposed, before: chain, taxonomies }.encode()
        }
    };
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((headers, files::armour(kind, &bytes)).into_response())
}

/// As a steward: cuts a company off for some days.
pub(super) async fn suspend(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let suspend = suspension(&fields, clock::now())?;
    let statement = l::Statement { suspend: Some(suspend), ..Default::default() };
    let said = say(&web, &visitor, statement, l::Lane::Urgent, "suspended").await?;
    Ok(see_other("/members", said))
}

fn suspension(fields: &Fields, now: TimeMs) -> Result<l::Suspension, Status> {
    let id = data_encoding::HEXLOWER.decode(fields.one("member").as_bytes()).unwrap_or_default();
    let id = MemberId::from_slice(&id).ok_or_else(|| bad_field("member", "is no member's id"))?;
    let days = u64::from(fields.number("days")?);
    if !(1..=SUSPENSION_DAYS_MAX).contains(&days) {
        return Err(bad_field("days", format!("is {days}, expected 1 to {SUSPENSION_DAYS_MAX}")));
    }
    if !fields.ticked("sure") {
        return Err(bad_field(
            "sure",
            "is not ticked: its connections end everywhere, and what it says does not count",
        ));
    }
    let (member_id, reason) = (id.0.to_vec().into(), fields.one("reason").to_owned());
    if reason.is_empty() {
        return Err(bad_field("reason", "is missing: others read why"));
    }
    Ok(l::Suspension { member_id, until_ms: now.plus(days * TimeMs::DAY_MS).0, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn what_others_dispute_counts_against_a_member_and_its_own_second_thoughts_do_not() {
        let said = |member: &str, what: &str, counts| l::Said {
            member: member.into(),
            member_id: member.as_bytes().to_vec().into(),
            what: what.into(),
            counts,
            ..Default::default()
        };
        let mut found = BTreeMap::new();
        for words in [
            vec![said("acme", "SUBMIT", true), said("bolt", "DISPUTE", true)],
            vec![said("acme", "SUBMIT", true), said("bolt", "ENDORSE", true)],
            vec![said("acme", "SUBMIT", true), said("bolt", "DISPUTE", false)],
        ] {
            add(&l::Entry { said: words, ..Default::default() }, &mut found);
        }
        assert_eq!(found["acme"], Contribution { supports: 3, disputed: 1, disputes: 0 });
        assert_eq!(found["bolt"], Contribution { supports: 1, disputed: 0, disputes: 1 });
        assert_eq!(found["acme"].rate(), "33.3 %");
        assert_eq!(Contribution::default().rate(), "–");
    }

    #[test]
    fn a_suspension_needs_a_member_some_days_a_reason_and_a_tick() {
        let id = "00".repeat(16);
        let whole = format!("member={id}&days=2&reason=mistake&sure=yes");
        let suspend = suspension(&Fields::parse(whole.as_bytes()).unwrap(), NOW).unwrap();
        assert_eq!((suspend.until_ms, suspend.reason.as_str()), (NOW.0 + 2 * TimeMs::DAY_MS, "mistake"));
        for wrong in [
            whole.replace("days=2", "days=0"),
            whole.replace("days=2", "days=15"),
            whole.replace("&sure=yes", ""),
            whole.replace("reason=mistake", "reason="),
            whole.replace("member=00", "member="),
        ] {
            assert!(suspension(&Fields::parse(wrong.as_bytes()).unwrap(), NOW).is_err(), "{wrong}");
        }
    }

    fn shown(role: Role) -> String {
        let row = Row {
            id: HOSTILE.into(),
            name: HOSTILE.into(),
            group: HOSTILE.into(),
            us: false,
            roles: HOSTILE.into(),
            tone: Tone::Ok,
            status: HOSTILE.into(),
            jurisdictions: vec![HOSTILE.into()],
            languages: vec![HOSTILE.into()],
            endpoints: vec![HOSTILE.into()],
            admitted_ms: 1,
            key_words: HOSTILE.into(),
            certificate: Some((3, Tone::Bad)),
            supports: 1,
            rate: HOSTILE.into(),
            disputes: 1,
            can_be_suspended: role == Role::Admin,
        };
        let contributed =
            BTreeMap::from([(HOSTILE.to_owned(), Contribution { supports: 2, disputed: 1, disputes: 0 })]);
        let rows = vec![row];
        rendered(&MembersPage {
            page: page(role, Nav::Members),
            chart: chart(&rows, &contributed),
            counted: sampled(1, true),
            charter: Facts {
                version: 1,
                hash: HOSTILE.into(),
                forum: HOSTILE.into(),
                issued_ms: 1,
                valid_until_ms: 1,
                valid: Some((1, Tone::Bad)),
                threshold: 1,
                taxonomy: HOSTILE.into(),
                semantics: 1,
                contest_quorum: 1,
                retract: HOSTILE.into(),
                allow_quorum: 1,
            },
            founders: vec![Founder { key: HOSTILE.into(), signed: true }],
            reasons: saying::reasons(),
            days_max: SUSPENSION_DAYS_MAX,
            may_suspend: rows.iter().any(|row| row.can_be_suspended),
            rows,
        })
    }

    #[test]
    fn only_a_steward_who_may_finds_the_form_to_suspend() {
        assert_eq!([Role::Viewer, Role::Reviewer, Role::Admin].map(|role| posts(&shown(role))), [1, 1, 2]);
    }
}
