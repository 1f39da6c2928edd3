//! What our company says of one entry: opinions, votes, certificates, referrals, preservation notices, outcomes.

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, Given, Place};
use super::entries::Named;
use super::given::{self, Basis, Digits, Reason, maybe};
use super::submissions::{CertificateGiven, OutcomeGiven, PreservationGiven, ReferralGiven, VoteGiven, say};
use crate::answers::Submitted;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default()
        .routes(routes!(say_opinion))
        .routes(routes!(vote))
        .routes(routes!(certify))
        .routes(routes!(refer))
        .routes(routes!(preserve))
        .routes(routes!(tell_outcome))
}

/// What we think of an entry that is there.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum EntryStance {
    /// We stand behind it too.
    Endorse,
    /// We disagree.
    Dispute,
    /// We take back what we said.
    Neutral,
}

/// Our opinion of an entry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "stance": "DISPUTE", "reason": "news-reporting" }))]
struct OpinionGiven {
    /// What we say.
    stance: EntryStance,
    /// Names of the forum's taxonomy.
    #[serde(default)]
    labels: Vec<String>,
    /// Why, to dispute or take back.
    reason: Option<Reason>,
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
    /// When our word ends, in Unix milliseconds; 0: never.
    #[serde(default)]
    expires_ms: u64,
    /// When we want to look at it again, in Unix milliseconds; 0: never.
    #[serde(default)]
    review_ms: u64,
    /// Of a PDQ hash, to endorse one: 50 to 100.
    #[serde(default)]
    #[schema(maximum = 100)]
    quality: u32,
    /// The attack that it belongs to.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    incident_id: Option<Digits<16>>,
    /// Drawn by the caller: the same key again is answered with the first receipt, and nothing is said twice.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    client_key: Option<Digits<16>>,
}

impl From<OpinionGiven> for l::Statement {
    fn from(given: OpinionGiven) -> Self {
        let stance = match given.stance {
            EntryStance::Endorse => l::Stance::Endorse,
            EntryStance::Dispute => l::Stance::Dispute,
            EntryStance::Neutral => l::Stance::Neutral,
        };
        Self {
            stance: stance.into(),
            labels: given.labels,
            reason: given::reason(given.reason),
            severity: given.severity,
            confidence: given.confidence,
            basis: given.basis.map_or(0, Basis::number),
            expires_ms: given.expires_ms,
            review_ms: given.review_ms,
            quality: given.quality,
            incident_id: maybe(given.incident_id),
            client_key: maybe(given.client_key),
            ..Default::default()
        }
    }
}

/// Says `statement` of an entry that is there: what nobody has listed is neither endorsed nor disputed.
async fn say_of(asking: &Asking, named: Named, statement: l::Statement) -> Result<Response, Problem> {
    let request = l::GetEntryRequest { signal: Some(named.into()), receipts: false, ..Default::default() };
    let entry = asking.node().get_entry(asking.with(request)).await?.into_inner().entry.unwrap_or_default();
    let statement = l::Statement { signal: entry.signal, ..statement };
    say(asking, l::SubmitRequest { statements: vec![statement], ..Default::default() }).await
}

/// Says `statement` of a signal, whether or not it is listed.
async fn say_anyway(asking: &Asking, named: Named, statement: l::Statement) -> Result<Response, Problem> {
    let statement = l::Statement { signal: Some(named.into()), ..statement };
    say(asking, l::SubmitRequest { statements: vec![statement], ..Default::default() }).await
}

/// Endorse an entry, dispute it, or take back what we said.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/opinions",
    operation_id = "say_opinion",
    tag = "opinions",
    security(("token" = ["lookup", "submit"])),
    params(Named),
    request_body = OpinionGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn say_opinion(
    asking: Asking,
    Place(named): Place<Named>,
    Given(given): Given<OpinionGiven>,
) -> Result<Response, Problem> {
    say_of(&asking, named, given.into()).await
}

/// Vote to end an entry for everybody, or take the vote back.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/votes",
    operation_id = "vote",
    tag = "opinions",
    security(("token" = ["lookup", "review"])),
    params(Named),
    request_body = VoteGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn vote(asking: Asking, Place(named): Place<Named>, Given(given): Given<VoteGiven>) -> Result<Response, Problem> {
    say_of(&asking, named, l::Statement { retract: Some(given.into()), ..Default::default() }).await
}

/// Certify that no machine may act on a signal alone, or take the certificate back.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/certificates",
    operation_id = "certify",
    tag = "opinions",
    security(("token" = ["review"])),
    params(Named),
    request_body = CertificateGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn certify(
    asking: Asking,
    Place(named): Place<Named>,
    Given(given): Given<CertificateGiven>,
) -> Result<Response, Problem> {
    say_anyway(&asking, named, l::Statement { allow: Some(given.into()), ..Default::default() }).await
}

/// Ask all members to look at a signal, as a referral unit, or close what was asked.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/referrals",
    operation_id = "refer",
    tag = "opinions",
    security(("token" = ["submit"])),
    params(Named),
    request_body = ReferralGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn refer(
    asking: Asking,
    Place(named): Place<Named>,
    Given(given): Given<ReferralGiven>,
) -> Result<Response, Problem> {
    say_anyway(&asking, named, l::Statement { referral: Some(given.into()), ..Default::default() }).await
}

/// Tell that our company keeps a copy.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/preservations",
    operation_id = "preserve",
    tag = "opinions",
    security(("token" = ["lookup", "submit"])),
    params(Named),
    request_body = PreservationGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn preserve(
    asking: Asking,
    Place(named): Place<Named>,
    Given(given): Given<PreservationGiven>,
) -> Result<Response, Problem> {
    say_of(&asking, named, l::Statement { preserve: Some(given.into()), ..Default::default() }).await
}

/// Tell what our company did with what it found.
#[utoipa::path(
    post,
    path = "/v1/entries/{type}/{value}/outcomes",
    operation_id = "tell_outcome",
    tag = "opinions",
    security(("token" = ["lookup", "submit"])),
    params(Named),
    request_body = OutcomeGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn tell_outcome(
    asking: Asking,
    Place(named): Place<Named>,
    Given(given): Given<OutcomeGiven>,
) -> Result<Response, Problem> {
    say_of(&asking, named, l::Statement { outcome: Some(given.into()), ..Default::default() }).await
}
