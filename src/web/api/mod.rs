//! The HTTP API: what the gRPC service answers, under the same names, as JSON. A handler converts, asks, and converts; who
//! may ask what is decided behind it.
#![expect(unused_qualifications, reason = "utoipa writes the paths of parameters out, also where they are at hand")]

mod asking;
mod audit;
mod batches;
mod charters;
mod document;
mod entries;
mod evidence;
mod given;
mod incidents;
mod log;
mod lookup;
mod members;
mod opinions;
mod peers;
mod policy;
mod referrals;
mod report;
mod resources;
mod reviews;
mod status;
mod submissions;
mod taxonomy;
mod tokens;
mod watch;

use utoipa_axum::router::OpenApiRouter;

pub use self::document::document;
use super::Web;

/// Everything under `/v1/`.
pub fn routes() -> OpenApiRouter<Web> {
    operations().merge(document::routes())
}

/// Everything that the document describes.
fn operations() -> OpenApiRouter<Web> {
    let nouns = [
        lookup::routes(),
        entries::routes(),
        watch::routes(),
        submissions::routes(),
        opinions::routes(),
        batches::routes(),
        reviews::routes(),
        referrals::routes(),
        incidents::routes(),
        resources::routes(),
        status::routes(),
        peers::routes(),
        policy::routes(),
        members::routes(),
        charters::routes(),
        taxonomy::routes(),
        log::routes(),
        evidence::routes(),
        report::routes(),
        tokens::routes(),
        audit::routes(),
    ];
    nouns.into_iter().fold(OpenApiRouter::default(), OpenApiRouter::merge)
}
