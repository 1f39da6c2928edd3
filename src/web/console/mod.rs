//! The web console.

use axum::Router;

use super::Web;
use crate::net::local::LocalService;

/// What every page hears live.
#[derive(Clone)]
pub struct Hub {
    _service: LocalService,
}

impl Hub {
    /// Hears from `service`.
    pub fn new(service: LocalService) -> Self {
        Self { _service: service }
    }
}

/// The pages.
pub fn routes() -> Router<Web> {
    Router::new()
}

/// A refusal, as a page.
pub fn refusal(problem: &super::Problem) -> Option<String> {
    let _ = problem;
    None
}
