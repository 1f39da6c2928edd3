//! The web console: what people of our company do with their node in a browser. Pages are made here and are whole
//! without scripts; a small script adds live updates, the drop zone and the keyboard.
//!
//! It asks [`crate::net::local::LocalService`] like everybody else, as the person who is signed in, and can do nothing
//! that the command line cannot. It never shows a picture, and never keeps one.

pub mod assets;
pub mod page;
pub mod pieces;

mod entry;
mod events;
mod list;
mod login;
mod overview;
mod submit;

use axum::Router;
use axum::routing::get;

use crate::web::Web;

/// The pages, and what they need.
pub fn routes() -> Router<Web> {
    Router::new()
        .route("/", get(overview::show))
        .route("/list", get(list::show))
        .route("/list/export", get(list::export))
        .route("/entry/{type}/{value}", get(entry::show).post(entry::say))
        .route("/entry/{type}/{value}/receipt.sde", get(entry::receipt))
        .route("/submit", get(submit::show).post(submit::sign))
        .route("/submit/file", axum::routing::post(submit::file))
        .route("/login", get(login::show).post(login::sign_in))
        .route("/logout", axum::routing::post(login::sign_out))
        .route("/events", get(events::stream))
        .route("/assets/{name}", get(assets::asset))
}
