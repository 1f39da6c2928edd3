//! What waits for a person of our company, and what that person decides.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Filters, Given, Place, unfit, unfit_field};
use super::given::{self, Reason};
use super::submissions::say;
use crate::access::Scope;
use crate::answers::{KeptBlocking, Review, Signal, Submitted};
use crate::clock;
use crate::net::deciding::{self, Choice, FLOOD, KINDS, Undecided};
use crate::replica::ids::TimeMs;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_reviews)).routes(routes!(decide_review))
}

/// Why something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ReviewKind {
    /// Others disagree with what we listed.
    DisputedOwn,
    /// Others disagree with what we stand behind.
    Disputed,
    /// Certified and listed at once.
    Conflict,
    /// A referral unit asks.
    Referral,
    /// Our word ends soon.
    Expiring,
    /// We wanted to look again.
    Due,
    /// It matches far more often here than it used to.
    Flood,
}

impl ReviewKind {
    fn name(self) -> &'static str {
        match self {
            Self::DisputedOwn => "disputed-own",
            Self::Disputed => "disputed",
            Self::Conflict => "conflict",
            Self::Referral => "referral",
            Self::Expiring => "expiring",
            Self::Due => "due",
            Self::Flood => FLOOD,
        }
    }
}

/// The kind of the item with this id.
fn kind_of(id: &str) -> Option<&'static str> {
    let (name, _) = id.rsplit_once('-')?;
    KINDS.into_iter().find(|kind| *kind == name)
}

/// Which items, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only of this kind.
    #[param(inline)]
    kind: Option<ReviewKind>,
    /// Only of what was posted in this language: `pt` finds `pt-BR` too.
    language: Option<String>,
    /// Items of the page; 0: 100.
    #[serde(default)]
    #[param(minimum = 0, maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// A page of the queue.
#[derive(Debug, Serialize, ToSchema)]
struct ReviewPage {
    /// In the order of the list.
    reviews: Vec<Review>,
    /// Empty: this is the end.
    next_page_token: String,
}

/// What waits for a person.
#[utoipa::path(
    get,
    path = "/v1/reviews",
    operation_id = "list_reviews",
    tag = "review",
    security(("token" = ["lookup"])),
    params(Page),
    responses((status = 200, description = "A page; one that is not full is not always the last.", body = ReviewPage)),
)]
async fn list_reviews(asking: Asking, Filters(page): Filters<Page>) -> Answer<ReviewPage> {
    let request = l::ListReviewsRequest {
        page_size: page.page_size,
        page_token: page.page_token.unwrap_or_default(),
        kind: page.kind.map(ReviewKind::name).unwrap_or_default().into(),
        language: page.language.unwrap_or_default(),
    };
    let answer = asking.node().list_reviews(asking.with(request)).await?.into_inner();
    let reviews = answer.reviews.into_iter().map(Review::from).collect();
    Ok(Json(ReviewPage { reviews, next_page_token: answer.next_page_token }))
}

/// An item of the queue.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Which {
    /// As `GET /v1/reviews` has it.
    #[param(min_length = 1, example = "disputed-0011223344556677")]
    id: String,
}

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Decision {
    /// Stand behind it; what we said before stays, said anew.
    Endorse,
    /// Disagree with it.
    Dispute,
    /// Take back what we said.
    Withdraw,
    /// Vote to end it for everybody.
    Retract,
    /// Certify it.
    Allow,
    /// A referral: disagree with it. A conflict: take our certificate back.
    Reject,
    /// A flood: it is rightly listed, block it again. Local: nothing is signed.
    Keep,
}

impl From<Decision> for deciding::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Endorse => Self::Endorse,
            Decision::Dispute => Self::Dispute,
            Decision::Withdraw => Self::Withdraw,
            Decision::Retract => Self::Retract,
            Decision::Allow => Self::Allow,
            Decision::Reject => Self::Reject,
            Decision::Keep => Self::Keep,
        }
    }
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "decision": "dispute", "reason": "news-reporting" }))]
struct DecisionGiven {
    /// What our company says.
    decision: Decision,
    /// Why; needed to dispute, withdraw, retract and reject.
    reason: Option<Reason>,
    /// To endorse what has no label yet.
    #[serde(default)]
    labels: Vec<String>,
    /// When our word ends, in Unix milliseconds; a certificate must end, at most 400 days from now.
    #[serde(default)]
    expires_ms: u64,
    /// When our company wants to look at it again, in Unix milliseconds; 0: never.
    #[serde(default)]
    review_ms: u64,
}

/// What became of a decision: a signed word, or, of `keep`, what is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is written by its parts; this is its schema")]
enum Decided {
    Said(Submitted),
    Kept(KeptBlocking),
}

/// Decide one item; it leaves the queue with our word.
#[utoipa::path(
    post,
    path = "/v1/reviews/{id}/decision",
    operation_id = "decide_review",
    tag = "review",
    security(("token" = ["lookup", "submit", "review"])),
    params(Which),
    request_body = DecisionGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Decided),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn decide_review(
    asking: Asking,
    Place(which): Place<Which>,
    Given(given): Given<DecisionGiven>,
) -> Result<Response, Problem> {
    // An opinion alone needs no more than `submit`: to work off the queue needs this, whatever is decided.
    asking.needs(Scope::Review)?;
    let choice = Choice {
        decision: given.decision.into(),
        reason: given::reason(given.reason),
        labels: given.labels,
        expires: TimeMs(given.expires_ms),
        review: TimeMs(given.review_ms),
    };
    if choice.decision.needs_reason() && choice.reason.is_empty() {
        return Err(undecided(&Undecided::ReasonMissing));
    }
    let (kind, entry) = found(&asking, &which.id).await?;
    let signal = entry.signal.clone().unwrap_or_default();
    if choice.decision == deciding::Decision::Keep && choice.decision.answers(kind) {
        return keep(&asking, signal).await;
    }
    let statement = statement(&asking, &choice, kind, &entry).await?;
    let statements = vec![l::Statement { signal: Some(signal), ..statement }];
    say(&asking, l::SubmitRequest { statements, ..Default::default() }).await
}

/// The entry that waits under `id`.
async fn found(asking: &Asking, id: &str) -> Result<(&'static str, l::Entry), Problem> {
    let absent = || unfit(StatusCode::NOT_FOUND, "NOT_FOUND", "nothing waits under this id, or no longer");
    let kind = kind_of(id).ok_or_else(absent)?;
    let mut found = asking.waiting(kind, id).await?;
    // An id holds half of a hash: who made two subjects with one id must not have a decision on the wrong one.
    if found.len() > 1 {
        let why = format!("{} items wait under this id: say it of the entry itself", found.len());
        return Err(unfit(StatusCode::CONFLICT, "AMBIGUOUS", &why));
    }
    Ok((kind, found.pop().ok_or_else(absent)?))
}

/// Lets a signal that floods have its verdict back.
async fn keep(asking: &Asking, signal: l::Signal) -> Result<Response, Problem> {
    let request = l::ResetBreakerRequest { signal: Some(signal.clone()) };
    let kept = asking.node().reset_breaker(asking.with(request)).await?.into_inner();
    let signal = Signal { r#type: signal.r#type, value: signal.value, quality: None };
    Ok(Json(KeptBlocking { signal, until_ms: kept.until_ms }).into_response())
}

/// What our company says, but for the signal.
async fn statement(asking: &Asking, choice: &Choice, kind: &str, entry: &l::Entry) -> Result<l::Statement, Problem> {
    let wrong = |why: Undecided| undecided(&why);
    let now = clock::now();
    if choice.decision != deciding::Decision::Endorse {
        return deciding::statement(choice, kind, entry, &[], |_| false, now).map_err(wrong);
    }
    let me = asking.node().status(asking.with(l::StatusRequest {})).await?.into_inner().member_id;
    let request = l::GetEntryRequest { signal: entry.signal.clone(), receipts: false, ..Default::default() };
    let full = asking.node().get_entry(asking.with(request)).await?.into_inner().entry.unwrap_or_default();
    let taxonomy = asking.node().get_taxonomy(asking.with(l::GetTaxonomyRequest {})).await?.into_inner();
    let sayable = |label: &str| taxonomy.labels.iter().any(|known| known.name == label && !known.retired);
    deciding::statement(choice, kind, &full, &me, sayable, now).map_err(wrong)
}

/// Why a choice cannot be said, with the field as a request calls it.
fn undecided(why: &Undecided) -> Problem {
    let field = match why.field() {
        "expires" => "expires_ms",
        same => same,
    };
    unfit_field(field, &why.to_string())
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use utoipa::PartialSchema as _;

    use super::*;

    fn read<T: DeserializeOwned>(name: &str) -> T {
        serde_json::from_value(Value::from(name)).unwrap()
    }

    #[test]
    fn the_document_names_the_kinds_and_decisions_that_there_are() {
        for kind in KINDS {
            assert_eq!(read::<ReviewKind>(kind).name(), kind);
        }
        for decision in deciding::Decision::ALL {
            assert_eq!(deciding::Decision::from(read::<Decision>(decision.name())), decision);
        }
        let named = |schema: Value| schema["enum"].as_array().map_or(0, Vec::len);
        assert_eq!(named(json!(ReviewKind::schema())), KINDS.len());
        assert_eq!(named(json!(Decision::schema())), deciding::Decision::ALL.len());
    }

    #[test]
    fn an_id_tells_its_kind() {
        for kind in KINDS {
            assert_eq!(kind_of(&format!("{kind}-0011223344556677")), Some(kind));
        }
        assert!(["", "flood", "-", "floods-00", "conflict"].iter().all(|id| kind_of(id).is_none()));
    }

    #[test]
    fn a_decision_that_cannot_be_said_names_the_field_of_the_request() {
        let field = |why: &Undecided| json!(undecided(why))["field"].clone();
        assert_eq!(field(&Undecided::End), "expires_ms");
        assert_eq!(field(&Undecided::ReasonMissing), "reason");
        assert_eq!(field(&Undecided::LabelMissing), "labels");
    }
}
