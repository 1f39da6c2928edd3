//! Signing in: the token of a link becomes a session in a cookie that no script can read.
//!
//! The token stands in the fragment of the link, which browsers send to nobody. The script of the page moves it into
//! the form and out of the address; without scripts a person pastes it.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::form::Fields;
use super::page::{self, Visitor};
use super::{assets, note};
use crate::clock;
use crate::web::guard::{session_cookie, set_cookie};
use crate::web::{Problem, Web};

/// Addresses of what pages without a frame load.
macro_rules! has_assets {
    ($page:ty) => {
        impl $page {
            fn css(&self) -> &'static str {
                assets::css()
            }

            fn js(&self) -> &'static str {
                assets::js()
            }

            fn icon(&self) -> &'static str {
                assets::icon()
            }
        }
    };
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    wrong: bool,
    left: bool,
    next: String,
}

has_assets!(Login);

/// What a person sees of a refusal. It has no navigation: it may come before anybody has signed in.
#[derive(Template)]
#[template(path = "refusal.html")]
struct Refusal<'a> {
    problem: &'a Problem,
}

has_assets!(Refusal<'_>);

/// A refusal, as a page; none if it cannot be drawn.
pub(super) fn refusal(problem: &Problem) -> Option<String> {
    Refusal { problem }.render().ok()
}

/// Where a person wanted to go when they were asked to sign in.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
    #[serde(default)]
    said: String,
}

/// `GET /login`.
pub(super) async fn show(Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    page::html(&Login { wrong: false, left: wanted.said == "left", next: within(&wanted.next).to_owned() })
}

/// `POST /login`.
pub(super) async fn sign_in(
    State(web): State<Web>,
    headers: HeaderMap,
    uri: Uri,
    fields: Fields,
) -> Result<Response, Problem> {
    let (now, next) = (clock::now(), within(fields.one("next")));
    let Some((key, session)) = web.access().login(token_of(fields.one("token")), now) else {
        let refused = page::html(&Login { wrong: true, left: false, next: next.to_owned() })?;
        return Ok((StatusCode::UNAUTHORIZED, refused).into_response());
    };
    note(&web, &session.caller, "sign in", String::new()).await;
    Ok(([(SET_COOKIE, set_cookie(&web, &headers, &uri, key.reveal()))], Redirect::to(next)).into_response())
}

/// `POST /logout`.
pub(super) async fn sign_out(State(web): State<Web>, visitor: Visitor, headers: HeaderMap, uri: Uri) -> Response {
    if let Some(key) = session_cookie(&headers, &uri) {
        web.access().logout(key);
    }
    note(&web, visitor.caller(), "sign out", String::new()).await;
    ([(SET_COOKIE, set_cookie(&web, &headers, &uri, ""))], Redirect::to("/login?said=left")).into_response()
}

/// A path of this console; anything that might lead elsewhere is the first page.
fn within(next: &str) -> &str {
    let ours =
        next.starts_with('/') && !next.starts_with("//") && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if ours { next } else { "/" }
}

/// The token, also where the whole link was pasted.
fn token_of(pasted: &str) -> &str {
    pasted.rsplit_once("#t=").map_or(pasted, |(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_link_may_be_pasted() {
        assert_eq!(token_of("http://127.0.0.1:7701/#t=sdt_abc"), "sdt_abc");
        assert_eq!(token_of("sdt_abc"), "sdt_abc");
    }

    #[test]
    fn the_page_never_repeats_what_was_typed() {
        let text = |wrong, left| Login { wrong, left, next: "/".into() }.render().unwrap();
        assert!(text(true, false).contains("role=\"alert\"") && !text(true, false).contains("name=\"token\" value"));
        assert!(!text(false, true).contains("role=\"alert\""));
    }

    #[test]
    fn nobody_is_sent_elsewhere_after_signing_in() {
        for (next, to) in [
            ("/list?q=a", "/list?q=a"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nb", "/"),
            ("", "/"),
        ] {
            assert_eq!(within(next), to, "{next}");
        }
    }

    #[test]
    fn a_refusal_shows_what_it_says_as_text() {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "FIELD", "<script>x</script>").with_fix("<b>");
        let text = refusal(&problem).unwrap();
        assert!(!text.contains("<script>x") && !text.contains("<b>") && text.contains("FIELD"));
    }
}
