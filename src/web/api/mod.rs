//! The HTTP API: the calls of the local service, in JSON.

use utoipa_axum::router::OpenApiRouter;

use super::Web;

/// The API, and the document that describes it.
pub fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
}
