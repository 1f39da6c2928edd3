//! `/access`: who of our company gets in, for administrators: tokens, new ones, and taking one back.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use tonic::Status;

use super::form::Fields;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use crate::access::token::{DAYS_DEFAULT, DAYS_MAX, NAME_MAX};
use crate::access::{Role, Scope};
use crate::clock;
use crate::net::status::bad_field;
use crate::replica::ids::TimeMs;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// A token.
struct Row {
    name: String,
    kind: String,
    scopes: Vec<String>,
    made_ms: u64,
    expires_ms: u64,
    ended: bool,
    soon: bool,
    /// The one that is used for this page.
    own: bool,
}

/// What is shown once.
struct Made {
    name: String,
    link: String,
    secret: String,
    expires_ms: u64,
}

#[derive(Template)]
#[template(path = "access.html")]
struct AccessPage {
    page: Page,
    tokens: Vec<Row>,
    made: Option<Made>,
    roles: Vec<(&'static str, &'static str)>,
    scopes: Vec<&'static str>,
    days: u64,
    days_max: u64,
    name_max: usize,
}

/// The tokens.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    page(&web, &visitor, &said, None).await
}

async fn page(web: &Web, visitor: &Visitor, said: &Said, made: Option<Made>) -> Result<Response, Problem> {
    let answer = web.service.list_tokens(web.ask(visitor.caller(), l::ListTokensRequest {})).await?.into_inner();
    let page = Page::new(web, visitor, "Access", Nav::Access, said).await?;
    let tokens = answer.tokens.into_iter().map(|token| row(token, &page.caller, page.now)).collect();
    let meaning = |role: Role| match role {
        Role::Viewer => "looks up and reads",
        Role::Reviewer => "also speaks for the company",
        Role::Admin => "also runs the node",
    };
    html(&AccessPage {
        page,
        tokens,
        made,
        roles: Role::ALL.map(|role| (role.name(), meaning(role))).to_vec(),
        scopes: Scope::ALL.map(Scope::name).to_vec(),
        days: DAYS_DEFAULT,
        days_max: DAYS_MAX,
        name_max: NAME_MAX,
    })
}

fn row(token: l::Token, caller: &str, now: TimeMs) -> Row {
    let expires = TimeMs(token.expires_ms);
    Row {
        own: token.name == caller,
        kind: if token.role.is_empty() { "program".to_owned() } else { token.role },
        name: token.name,
        scopes: token.scopes,
        made_ms: token.made_ms,
        expires_ms: token.expires_ms,
        ended: expires.has_ended(now),
        soon: !expires.has_ended(now) && expires.since(now) < 7 * TimeMs::DAY_MS,
    }
}

/// Makes a token, or takes one back.
pub(super) async fn act(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    if fields.one("act") == "revoke" {
        let request = l::RevokeTokenRequest { name: fields.one("name").to_owned() };
        web.service.revoke_token(web.ask(visitor.caller(), request)).await?;
        return Ok(see_other("/access", "revoked"));
    }
    let request = wanted(&fields, clock::now())?;
    let answer = web.service.create_token(web.ask(visitor.caller(), request)).await?.into_inner();
    let token = answer.token.unwrap_or_default();
    // Shown in the answer itself: an address that could be opened again would show it again.
    let made = Made { name: token.name, link: answer.link, secret: answer.secret, expires_ms: token.expires_ms };
    page(&web, &visitor, &Said::default(), Some(made)).await
}

fn wanted(fields: &Fields, now: TimeMs) -> Result<l::CreateTokenRequest, Status> {
    let (role, scopes) = (fields.one("role").to_owned(), fields.all("scope"));
    let scopes = if role == "program" { scopes } else { Vec::new() };
    let role = if role == "program" { String::new() } else { role };
    if role.is_empty() && scopes.is_empty() {
        return Err(bad_field("scope", "is missing: what may the program do?"));
    }
    let days = match u64::from(fields.number("days")?) {
        0 => DAYS_DEFAULT,
        days if days <= DAYS_MAX => days,
        days => return Err(bad_field("days", format!("is {days}, at most {DAYS_MAX} are possible"))),
    };
    let (name, expires_ms) = (fields.one("name").to_owned(), now.plus(days * TimeMs::DAY_MS).0);
    Ok(l::CreateTokenRequest { name, role, scopes, expires_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::console::saying::testing::{HOSTILE, page as framed, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn a_person_gets_a_role_and_a_program_scopes() {
        let read = |text: &str| wanted(&Fields::parse(text.as_bytes()).unwrap(), NOW);
        let person = read("name=anna&role=reviewer&scope=admin&days=30").unwrap();
        // Boxes that were ticked for a program give a person nothing.
        assert_eq!((person.role.as_str(), person.scopes.len()), ("reviewer", 0));
        assert_eq!(person.expires_ms, NOW.0 + 30 * TimeMs::DAY_MS);
        let program = read("name=upload&role=program&scope=lookup&scope=metrics").unwrap();
        assert_eq!((program.role.as_str(), program.scopes), ("", vec!["lookup".to_owned(), "metrics".to_owned()]));
        for wrong in ["name=x&role=program", "name=x", "name=x&role=viewer&days=401", "name=x&role=viewer&days=-1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_that_ends_soon_is_seen() {
        let token = |days: u64| l::Token { expires_ms: NOW.0 + days * TimeMs::DAY_MS, ..Default::default() };
        let seen = |days| (row(token(days), "anna", NOW).soon, row(token(days), "anna", NOW).ended);
        assert_eq!((seen(0), seen(3), seen(30)), ((false, true), (true, false), (false, false)));
    }

    #[test]
    fn a_link_is_shown_once_and_names_stay_text() {
        let shown = |made| {
            let token = l::Token {
                name: HOSTILE.into(),
                role: HOSTILE.into(),
                scopes: vec![HOSTILE.into()],
                ..Default::default()
            };
            rendered(&AccessPage {
                page: framed(Role::Admin, Nav::Access),
                tokens: vec![row(token, "anna", NOW)],
                made,
                roles: vec![("viewer", "looks up and reads")],
                scopes: Scope::ALL.map(Scope::name).to_vec(),
                days: DAYS_DEFAULT,
                days_max: DAYS_MAX,
                name_max: NAME_MAX,
            })
        };
        let link = "http://127.0.0.1:7701/#t=sdt_x";
        let made = Made { name: HOSTILE.into(), link: link.into(), secret: "sdt_x".into(), expires_ms: 1 };
        assert!(shown(Some(made)).contains(link) && !shown(None).contains("sdt_"));
        assert_eq!(posts(&shown(None)), 3);
    }
}
