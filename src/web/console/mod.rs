//! The web console: what people of our company do with their node in a browser. Pages are made here and are whole
//! without scripts; a small script adds live updates, the drop zone and the keyboard.
//!
//! It asks [`crate::net::local::LocalService`] like everybody else, as the person who is signed in, and can do nothing
//! that the command line cannot. It never shows a picture, and never keeps one.

pub mod assets;
pub mod form;
pub mod page;
pub mod pieces;

mod access;
mod audit;
mod batches;
mod entry;
pub mod events;
mod incidents;
mod lately;
mod list;
mod login;
mod members;
mod overview;
mod policy;
mod referrals;
mod report;
mod resources;
mod review;
mod saying;
mod submit;
pub mod svg;
mod sync;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

pub use self::events::Hub;
use crate::access::Caller;
use crate::net::local::gate::note_act;
use crate::web::limits::UPLOAD_BYTES_MAX;
use crate::web::{Problem, Web, request_id};

/// The pages, and what they need.
pub fn routes() -> Router<Web> {
    let upload = post(submit::file).layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX));
    Router::new()
        .route("/", get(overview::show))
        .route("/list", get(list::show))
        .route("/list/export", get(list::export))
        .route("/entry/{type}/{value}", get(entry::show).post(entry::say))
        .route("/entry/{type}/{value}/receipt.sde", get(entry::receipt))
        .route("/submit", get(submit::show).post(submit::sign))
        .route("/submit/look", post(submit::look))
        .route("/submit/file", upload)
        .route("/login", get(login::show).post(login::sign_in))
        .route("/logout", post(login::sign_out))
        .merge(desk())
        .route("/events", get(events::stream))
        .route("/assets/{name}", get(assets::asset))
}

/// The pages beside the list.
fn desk() -> Router<Web> {
    Router::new()
        .route("/review", get(review::show).post(review::decide))
        .route("/incidents", get(incidents::show).post(incidents::act))
        .route("/referrals", get(referrals::show).post(referrals::act))
        .route("/resources", get(resources::show).post(resources::act))
        .route("/batches", get(batches::show).post(batches::undo))
        .route("/members", get(members::show))
        .route("/members/suspend", post(members::suspend))
        .route("/members/{file}", get(members::download))
        .route("/sync", get(sync::show).post(sync::act))
        .route("/report", get(report::show))
        .route("/report/file", get(report::download))
        .route("/policy", get(policy::show))
        .route("/access", get(access::show).post(access::act))
        .route("/audit", get(audit::show))
        .route("/audit/file", get(audit::export))
}

/// A refusal, as a page.
pub fn refusal(problem: &Problem) -> Option<String> {
    login::refusal(problem)
}

/// Notes what the service does not note itself, because it is not asked for it: signing in and out, and exports.
async fn note(web: &Web, caller: &Caller, action: &str, target: String) {
    note_act(web.access(), caller.clone(), &request_id(), action, target).await;
}
