//! `/resources`: certified counter-narratives, which travel with the list and are offered with a match.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::Status;

use super::form::Fields;
use super::members;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::saying::{self, LabelGroup, say};
use crate::clock;
use crate::net::status::bad_field;
use crate::replica::charter::Roles;
use crate::replica::ids::TimeMs;
use crate::replica::record;
use crate::web::{Problem, Web};
use crate::wire::files::is_language;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// What the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    label: String,
    language: String,
    all: String,
    said: String,
}

/// A page that somebody certifies.
struct Row {
    url: String,
    labels: Vec<String>,
    languages: Vec<String>,
    member: String,
    expires_ms: u64,
    listed: bool,
    can_be_removed: bool,
}

#[derive(Template)]
#[template(path = "resources.html")]
struct ResourcesPage {
    page: Page,
    rows: Vec<Row>,
    truncated: bool,
    label: String,
    language: String,
    all: bool,
    labels: Vec<LabelGroup>,
    may_certify: bool,
}

/// The pages that are certified.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Resources", Nav::Resources, &Said::of(&asked.said)).await?;
    let all = !asked.all.is_empty();
    let request = l::ListResourcesRequest { label: asked.label.clone(), language: asked.language.clone(), all };
    let answer = web.service.list_resources(web.ask(visitor.caller(), request)).await?.into_inner();
    let certifies = members::law(&web, &visitor).await?.our_roles(&page.member).has(Roles::CERTIFIER);
    let may_certify = certifies && page.may_review();
    let row = |r: l::Resource| Row {
        can_be_removed: may_certify && r.listed && r.member == page.member,
        url: r.url,
        labels: r.labels,
        languages: r.languages,
        member: r.member,
        expires_ms: r.expires_ms,
        listed: r.listed,
    };
    html(&ResourcesPage {
        rows: answer.resources.into_iter().map(row).collect(),
        truncated: answer.truncated,
        label: asked.label,
        language: asked.language,
        all,
        labels: saying::labels(&web, &visitor).await?,
        may_certify,
        page,
    })
}

/// Certifies a page, or takes a certificate back.
pub(super) async fn act(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let (resource, done) = resource(&fields, clock::now())?;
    let statement = l::Statement { resource: Some(resource), ..Default::default() };
    let said = say(&web, &visitor, statement, l::Lane::Normal, done).await?;
    Ok(see_other("/resources", said))
}

fn resource(fields: &Fields, now: TimeMs) -> Result<(l::Resource, &'static str), Status> {
    let url = fields.one("url").to_owned();
    if !record::is_resource_url(&url) {
        let expected = "https, a host and a path, without user, port, query or fragment";
        return Err(bad_field("url", format!("is {url:?}, expected {expected}")));
    }
    if fields.one("act") == "remove" {
        return Ok((l::Resource { url, ..Default::default() }, "removed"));
    }
    let (labels, languages) = (fields.all("label"), fields.words("language"));
    if labels.is_empty() {
        return Err(bad_field("label", "is missing: what does the page answer?"));
    }
    if let Some(tag) = languages.iter().find(|tag| !is_language(tag)) {
        return Err(bad_field("language", format!("has {tag:?}, expected a BCP 47 tag, as in fr or pt-BR")));
    }
    let expires_ms = fields.moment("expires", now)?;
    if expires_ms > 0 && expires_ms <= now.0 {
        return Err(bad_field("expires", "is past, expected a moment to come, or never"));
    }
    Ok((l::Resource { url, labels, languages, listed: true, expires_ms, ..Default::default() }, "added"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    #[test]
    fn adding_and_removing_are_the_words_of_the_command_line() {
        let now = TimeMs(1_795_000_000_000);
        let read = |text: &str| resource(&Fields::parse(text.as_bytes()).unwrap(), now);
        let (added, done) = read("url=https://example.org/a&label=x&label=y&language=fr,+pt-BR&expires=").unwrap();
        assert_eq!((added.listed, added.labels.len(), added.expires_ms, done), (true, 2, 0, "added"));
        assert_eq!(added.languages, ["fr", "pt-BR"]);
        let (removed, done) = read("url=https://example.org/a&act=remove").unwrap();
        assert_eq!((removed.listed, removed.labels.len(), done), (false, 0, "removed"));
        for wrong in [
            "url=javascript:alert(1)&label=x",
            "url=http://example.org/a&label=x",
            "url=https://example.org/a?q=1&label=x",
            "url=https://example.org/a",
            "url=https://example.org/a&label=x&language=%21",
            "url=https://example.org/a&label=x&expires=1970-01-02",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_text_and_only_a_certifier_finds_the_forms() {
        let shown = |may_certify| {
            let row = Row {
                url: HOSTILE.into(),
                labels: vec![HOSTILE.into()],
                languages: vec![HOSTILE.into()],
                member: HOSTILE.into(),
                expires_ms: 0,
                listed: true,
                can_be_removed: may_certify,
            };
            rendered(&ResourcesPage {
                page: page(Role::Reviewer, Nav::Resources),
                rows: vec![row],
                truncated: true,
                label: HOSTILE.into(),
                language: HOSTILE.into(),
                all: true,
                labels: vec![LabelGroup { facet: HOSTILE.into(), labels: vec![HOSTILE.into()] }],
                may_certify,
            })
        };
        assert_eq!([false, true].map(|may| posts(&shown(may))), [1, 3]);
        // Nobody is led to a page by a click: what it is said to be is for people to read first.
        assert!(!shown(true).contains("<a href=\"https:"));
    }
}
