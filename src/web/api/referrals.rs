//! Referrals: what referral units ask all members to look at, and what came of it.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Filters};
use crate::answers::Referral;
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_referrals))
}

/// What became of a referral.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum ReferralOutcome {
    /// Nobody has answered yet.
    Open,
    /// A full member stands behind it.
    Confirmed,
    /// Closed without.
    Rejected,
    /// Its deadline passed without.
    Expired,
}

impl ReferralOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Confirmed => "CONFIRMED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// Which referrals, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only in this state.
    #[param(inline)]
    state: Option<ReferralOutcome>,
    /// Referrals of the page; 0: 100.
    #[serde(default)]
    #[param(minimum = 0, maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// A page of referrals.
#[derive(Debug, Serialize, ToSchema)]
struct ReferralPage {
    /// In the order of the list.
    referrals: Vec<Referral>,
    /// Empty: this is the end.
    next_page_token: String,
}

/// Referrals with their outcome and the time it took.
#[utoipa::path(
    get,
    path = "/v1/referrals",
    operation_id = "list_referrals",
    tag = "review",
    security(("token" = ["lookup"])),
    params(Page),
    responses((status = 200, description = "A page; one that is not full is not always the last.", body = ReferralPage)),
)]
async fn list_referrals(asking: Asking, Filters(page): Filters<Page>) -> Answer<ReferralPage> {
    let request = l::ListReferralsRequest {
        page_size: page.page_size,
        page_token: page.page_token.unwrap_or_default(),
        state: page.state.map(ReferralOutcome::name).unwrap_or_default().into(),
    };
    let answer = asking.node().list_referrals(asking.with(request)).await?.into_inner();
    let referrals = answer.referrals.into_iter().map(Referral::from).collect();
    Ok(Json(ReferralPage { referrals, next_page_token: answer.next_page_token }))
}
