//! Submissions: statements of our company, signed and shared.

use axum::Json;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::asking::{Asking, Given};
use super::given::{self, Basis, Digits, Lane, Reason, SignalGiven, maybe, only};
use crate::answers::Submitted;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Bytes of a submission: 511 statements, each with a video's frames.
const SUBMISSION_BYTES_MAX: usize = 4 << 20;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(submit).layer(DefaultBodyLimit::max(SUBMISSION_BYTES_MAX)))
}

/// What our company thinks of a signal.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Stance {
    /// It belongs on the list.
    Submit,
    /// We stand behind it too.
    Endorse,
    /// We disagree.
    Dispute,
    /// We take back what we said.
    Neutral,
}

impl From<Stance> for l::Stance {
    fn from(stance: Stance) -> Self {
        match stance {
            Stance::Submit => Self::Submit,
            Stance::Endorse => Self::Endorse,
            Stance::Dispute => Self::Dispute,
            Stance::Neutral => Self::Neutral,
        }
    }
}

/// One statement: an opinion (`signal`, `stance` and what belongs to it), or exactly one of `suspend`, `retract`, `allow`,
/// `referral`, `incident`, `resource`, `preserve` and `outcome`, beside a signal where it is about one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatementGiven {
    /// What it is about.
    #[serde(default, deserialize_with = "only::maybe")]
    signal: Option<SignalGiven>,
    /// Of an opinion.
    stance: Option<Stance>,
    /// Names of the forum's taxonomy.
    #[serde(default)]
    labels: Vec<String>,
    /// 1 low to 4 highest; 0: not stated.
    #[serde(default)]
    #[schema(maximum = 4)]
    severity: u32,
    /// In percent; 0: not stated.
    #[serde(default)]
    #[schema(maximum = 100)]
    confidence: u32,
    /// What the opinion rests on.
    basis: Option<Basis>,
    /// Why, to dispute or take back.
    reason: Option<Reason>,
    /// When our word ends, in Unix milliseconds; 0: never.
    #[serde(default)]
    expires_ms: u64,
    /// When we want to look at it again, in Unix milliseconds; 0: never.
    #[serde(default)]
    review_ms: u64,
    /// BCP 47 tags of what was posted.
    #[serde(default)]
    #[schema(max_items = 32)]
    languages: Vec<String>,
    /// The attack that it belongs to.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    incident_id: Option<Digits<16>>,
    /// The same for all hashes of one item.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    item_id: Option<Digits<16>>,
    /// Of a PDQ hash, where it is required: 50 to 100.
    #[serde(default)]
    #[schema(maximum = 100)]
    quality: u32,
    /// Drawn by the caller: the same key again is answered with the first receipt, and nothing is said twice.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    client_key: Option<Digits<16>>,
    /// The signal is a host in clear, and everything on it is meant.
    #[serde(default)]
    whole_host: bool,
    /// A steward's; only in the urgent lane, and only for admins.
    #[serde(default, deserialize_with = "only::maybe")]
    suspend: Option<SuspensionGiven>,
    /// A full member's vote to end the entry for everybody.
    #[serde(default, deserialize_with = "only::maybe")]
    retract: Option<VoteGiven>,
    /// A certifier's: no machine may act on it.
    #[serde(default, deserialize_with = "only::maybe")]
    allow: Option<CertificateGiven>,
    /// A referral unit's.
    #[serde(default, deserialize_with = "only::maybe")]
    referral: Option<ReferralGiven>,
    /// A steward's or full member's; only in the urgent lane.
    #[serde(default, deserialize_with = "only::maybe")]
    incident: Option<NoticeGiven>,
    /// A certifier's counter-narrative.
    #[serde(default, deserialize_with = "only::maybe")]
    resource: Option<ResourceGiven>,
    /// We keep a copy; ask us through legal process.
    #[serde(default, deserialize_with = "only::maybe")]
    preserve: Option<PreservationGiven>,
    /// What we did with what we found.
    #[serde(default, deserialize_with = "only::maybe")]
    outcome: Option<OutcomeGiven>,
}

/// A steward cuts a member off for some days.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuspensionGiven {
    /// Whom.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    member_id: Digits<16>,
    /// At most 14 days from now, in Unix milliseconds.
    until_ms: u64,
    /// Why.
    reason: Option<Reason>,
}

/// A vote to end an entry for everybody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "yes": true, "reason": "mistake" }))]
pub(super) struct VoteGiven {
    /// False takes the vote back.
    yes: bool,
    /// Why.
    reason: Option<Reason>,
}

impl From<VoteGiven> for l::RetractVote {
    fn from(given: VoteGiven) -> Self {
        Self { yes: given.yes, reason: given::reason(given.reason) }
    }
}

/// No machine may act on the signal alone, at any member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "yes": false }))]
pub(super) struct CertificateGiven {
    /// False takes the certificate back.
    yes: bool,
    /// Required with `yes`: at most 400 days from now, in Unix milliseconds.
    #[serde(default)]
    expires_ms: u64,
    /// Our own number for it; 0: none.
    #[serde(default)]
    certificate: u32,
}

impl From<CertificateGiven> for l::Certification {
    fn from(given: CertificateGiven) -> Self {
        Self { yes: given.yes, expires_ms: given.expires_ms, certificate: given.certificate }
    }
}

/// A request to look at the signal. An order to nobody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "open": true, "authority": "police", "jurisdiction": "FR" }))]
pub(super) struct ReferralGiven {
    /// False closes it.
    open: bool,
    /// What kind of authority refers.
    authority: Option<Authority>,
    /// Two capital letters, as in FR or EU.
    #[serde(default)]
    #[schema(pattern = "^([A-Z]{2})?$")]
    jurisdiction: String,
    /// Until when an answer is wanted, in Unix milliseconds; 0: none.
    #[serde(default)]
    deadline_ms: u64,
}

/// A kind of authority.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Authority {
    ReferralUnit,
    Police,
    Prosecutor,
    Court,
    Regulator,
    Other,
}

impl Authority {
    fn name(self) -> &'static str {
        match self {
            Self::ReferralUnit => "referral-unit",
            Self::Police => "police",
            Self::Prosecutor => "prosecutor",
            Self::Court => "court",
            Self::Regulator => "regulator",
            Self::Other => "other",
        }
    }
}

impl From<ReferralGiven> for l::Referral {
    fn from(given: ReferralGiven) -> Self {
        Self {
            open: given.open,
            authority: given.authority.map(Authority::name).unwrap_or_default().into(),
            jurisdiction: given.jurisdiction,
            deadline_ms: given.deadline_ms,
        }
    }
}

/// An attack in progress.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoticeGiven {
    /// 32 digits that name it.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    id: Digits<16>,
    /// Name of the forum's taxonomy.
    #[serde(default)]
    label: String,
    /// 1 low to 4 imminent threat to life; 0: not stated.
    #[serde(default)]
    #[schema(maximum = 4)]
    level: u32,
    /// False closes what our company opened.
    open: bool,
    /// Required with `open`: when it closes by itself, at most 30 days from now, in Unix milliseconds.
    #[serde(default)]
    closes_ms: u64,
}

impl From<NoticeGiven> for l::IncidentNotice {
    fn from(given: NoticeGiven) -> Self {
        Self {
            id: given.id.bytes(),
            label: given.label,
            level: given.level,
            open: given.open,
            closes_ms: given.closes_ms,
        }
    }
}

/// A link to a counter-narrative, for topics and languages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "url": "https://example.org/answer", "labels": ["propaganda"], "languages": ["en"], "listed": true }))]
pub(super) struct ResourceGiven {
    /// https, a host and a path; at most 256 bytes; no user, port, query or fragment.
    #[schema(min_length = 10, max_length = 256)]
    url: String,
    /// What it answers: names of the forum's taxonomy.
    #[serde(default)]
    #[schema(max_items = 32)]
    labels: Vec<String>,
    /// BCP 47; none: any.
    #[serde(default)]
    #[schema(max_items = 32)]
    languages: Vec<String>,
    /// False takes it back.
    listed: bool,
    /// In Unix milliseconds; 0: never.
    #[serde(default)]
    expires_ms: u64,
}

impl From<ResourceGiven> for l::Resource {
    fn from(given: ResourceGiven) -> Self {
        Self {
            url: given.url,
            labels: given.labels,
            languages: given.languages,
            listed: given.listed,
            expires_ms: given.expires_ms,
            member: String::new(),
        }
    }
}

/// We kept a copy; ask us through legal process.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreservationGiven {
    /// At most 730 days from now, in Unix milliseconds.
    until_ms: u64,
    /// How to ask for it.
    contact: Option<Contact>,
}

/// How to ask for a copy.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Contact {
    LegalProcess,
    EmergencyDesk,
}

impl From<PreservationGiven> for l::Preservation {
    fn from(given: PreservationGiven) -> Self {
        let contact = match given.contact {
            Some(Contact::LegalProcess) => "legal-process",
            Some(Contact::EmergencyDesk) => "emergency-desk",
            None => "",
        };
        Self { until_ms: given.until_ms, contact: contact.into() }
    }
}

/// What our company did with what it found.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OutcomeGiven {
    /// What it did.
    result: OutcomeResult,
    /// When, in Unix milliseconds; not later than now.
    acted_ms: u64,
}

/// What a company did.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OutcomeResult {
    Removed,
    Restricted,
    Kept,
    NotFound,
}

impl From<OutcomeGiven> for l::Outcome {
    fn from(given: OutcomeGiven) -> Self {
        let result = match given.result {
            OutcomeResult::Removed => "removed",
            OutcomeResult::Restricted => "restricted",
            OutcomeResult::Kept => "kept",
            OutcomeResult::NotFound => "not-found",
        };
        Self { result: result.into(), acted_ms: given.acted_ms }
    }
}

impl From<StatementGiven> for l::Statement {
    fn from(given: StatementGiven) -> Self {
        let suspension = |given: SuspensionGiven| l::Suspension {
            member_id: given.member_id.bytes(),
            until_ms: given.until_ms,
            reason: given::reason(given.reason),
        };
        Self {
            signal: given.signal.map(l::Signal::from),
            stance: given.stance.map_or(l::Stance::Unspecified, l::Stance::from).into(),
            labels: given.labels,
            severity: given.severity,
            confidence: given.confidence,
            basis: given.basis.map_or(0, Basis::number),
            reason: given::reason(given.reason),
            expires_ms: given.expires_ms,
            review_ms: given.review_ms,
            languages: given.languages,
            incident_id: maybe(given.incident_id),
            item_id: maybe(given.item_id),
            quality: given.quality,
            client_key: maybe(given.client_key),
            whole_host: given.whole_host,
            suspend: given.suspend.map(suspension),
            retract: given.retract.map(Into::into),
            allow: given.allow.map(Into::into),
            referral: given.referral.map(Into::into),
            incident: given.incident.map(Into::into),
            resource: given.resource.map(Into::into),
            preserve: given.preserve.map(Into::into),
            outcome: given.outcome.map(Into::into),
        }
    }
}

/// Statements that are accepted together, or not at all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SubmissionGiven {
    /// In their order.
    #[serde(deserialize_with = "only::objects")]
    #[schema(min_items = 1, max_items = 511)]
    statements: Vec<StatementGiven>,
    /// Which of our logs they are written to.
    #[serde(default)]
    lane: Lane,
    /// Answer when so many peers hold them.
    #[serde(default)]
    wait_peers: u32,
    /// How long to wait for peers at most; 0: 10 s, longest: 120 s.
    #[serde(default)]
    wait_timeout_ms: u64,
}

/// Sign statements and share them.
///
/// Answered when they are on stable storage; with `wait_peers`, when so many peers hold them. While a node that was
/// restarted waits for its peers they are queued, and receipts come with the same `client_key` later.
#[utoipa::path(
    post,
    path = "/v1/submissions",
    operation_id = "submit",
    tag = "opinions",
    security(("token" = ["submit"])),
    request_body(content = SubmissionGiven, example = json!({ "statements": [{
        "signal": { "type": "sha256", "value": "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5" },
        "stance": "SUBMIT", "labels": ["propaganda"], "severity": 2, "basis": "human-review"
    }] })),
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn submit(asking: Asking, Given(given): Given<SubmissionGiven>) -> Result<Response, Problem> {
    let request = l::SubmitRequest {
        statements: given.statements.into_iter().map(l::Statement::from).collect(),
        lane: l::Lane::from(given.lane).into(),
        wait_peers: given.wait_peers,
        wait_timeout_ms: given.wait_timeout_ms,
    };
    say(&asking, request).await
}

/// Submits, and answers with 200, or 202 where it is queued.
pub(super) async fn say(asking: &Asking, request: l::SubmitRequest) -> Result<Response, Problem> {
    let answer = Box::pin(asking.node().submit(asking.with(request))).await?.into_inner();
    Ok(submitted(answer))
}

/// What a submission is answered with.
pub(super) fn submitted(answer: l::SubmitResponse) -> Response {
    let queued = answer.state() == l::SubmitState::Queued;
    let status = if queued { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, Json(Submitted::from(answer))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::record;

    #[test]
    fn names_are_those_of_the_records() {
        let read = |name: &str| format!("{name:?}");
        for (_, name) in record::AUTHORITIES {
            assert_eq!(serde_json::from_str::<Authority>(&read(name)).unwrap().name(), name);
        }
        for (_, name) in record::RESULTS {
            let text = format!("{{\"result\":{name:?},\"acted_ms\":1}}");
            assert_eq!(l::Outcome::from(serde_json::from_str::<OutcomeGiven>(&text).unwrap()).result, name);
        }
        for (_, name) in record::CONTACTS {
            let text = format!("{{\"contact\":{name:?},\"until_ms\":1}}");
            assert_eq!(l::Preservation::from(serde_json::from_str::<PreservationGiven>(&text).unwrap()).contact, name);
        }
    }

    #[test]
    fn limits_of_the_schema_are_those_of_the_service() {
        assert_eq!(crate::replica::own::RECORDS_PER_SUBMISSION_MAX, 511);
        assert_eq!(
            (crate::net::local::SIGNALS_MAX, crate::net::local::FILES_MAX, crate::net::local::BULK_MAX),
            (64, 8, 10_000)
        );
        assert_eq!((record::URL_SIZE_MAX, crate::replica::signal::PDQ_DISTANCE_MAX), (256, 31));
    }
}
