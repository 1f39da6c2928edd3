//! The OpenAPI document of all operations, and what is the same for each of them: who may ask, and how it is refused.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr,
    Required, Response as Answered, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;

use crate::net::request_id::REQUEST_ID;
use crate::web::Web;
use crate::web::problem::{PROBLEM_JSON, Problem};

/// What the operations are about, in the order of the document.
const TAGS: [(&str, &str); 8] = [
    ("list", "The list: looking up, reading, following."),
    ("opinions", "What our company says."),
    ("review", "What waits for a person, and what the forum shows beside the list."),
    ("evidence", "Records and files that others can check."),
    ("report", "The transparency report."),
    ("governance", "Members, charters, labels and logs."),
    ("node", "This node, its peers, its policy."),
    ("access", "Tokens, and who did what."),
];

/// How an operation is refused: status, and when.
const REFUSALS: [(&str, &str); 10] = [
    ("400", "The request makes no sense: `field` says which part of it."),
    ("401", "There is no token, or one that is unknown or has ended."),
    ("403", "The token does not allow it, or the forum does not allow it to our company: `reason` is SCOPE, ROLE, ..."),
    ("404", "There is no such thing here."),
    ("409", "The state of the node or of the forum does not allow it now: `reason` says why."),
    ("413", "The body is too long."),
    ("415", "The body is of another media type."),
    ("422", "The body is not of the form that is asked for: `detail` says which part of it."),
    ("429", "Too many requests, too much at once, or a quota that is used up: ask again after `Retry-After`."),
    ("503", "The node does not answer this now: it stops, its disk is full, or its store failed."),
];

/// A bug is answered with it.
const BUG: (&str, &str) = ("500", "A mistake of this program: please report it.");

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().route("/v1/openapi.json", get(serve))
}

/// The document, for whoever has a token.
async fn serve() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The OpenAPI document, as JSON that people can read.
///
/// # Errors
/// It cannot be written, which is a mistake of ours.
pub fn document() -> Result<String, serde_json::Error> {
    // utoipa writes u-int64 where the registry of formats has uint64.
    described().to_pretty_json().map(|text| text.replace("\"format\": \"u-int", "\"format\": \"uint"))
}

/// All operations, each with what is the same for all of them.
fn described() -> OpenApi {
    let mut document = assembled();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        operations.into_iter().flatten().for_each(complete);
    }
    document
}

/// What the operations say of themselves, under one head.
fn assembled() -> OpenApi {
    let (_, operations) = super::operations().split_for_parts();
    let info = InfoBuilder::new()
        .title("staydown")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What a company asks its own node. Bytes are lowercase hexadecimal digits, times are Unix milliseconds, and 0 is \
             \"never\" or \"none\" where a field says so. Fields are only ever added.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let tags = TAGS.map(|(name, what)| TagBuilder::new().name(name).description(Some(what)).build());
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("sdt_")
        .description(Some("A token of `staydown token new`."))
        .build();
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("token", SecurityScheme::Http(scheme))
        .build();
    let head = OpenApiBuilder::new().info(info).tags(Some(tags)).components(Some(components)).build();
    head.merge_from(operations)
}

/// Adds what is the same for each operation.
fn complete(operation: &mut Operation) {
    let scopes = operation.security.iter().flatten().flat_map(scopes_of).map(|scope| format!("`{scope}`"));
    let scopes = scopes.collect::<Vec<_>>().join(" and ");
    let description = operation.description.take().unwrap_or_default();
    let needed = format!("A token needs {scopes}.");
    let text = if description.is_empty() { needed } else { format!("{description}\n\n{needed}") };
    operation.description = Some(text);
    let name = ParameterBuilder::new()
        .name(REQUEST_ID)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(String::schema()))
        .description(Some(
            "Names the request in the node's log and in what it is answered: 8 to 64 letters, digits, - and _; another one is \
             replaced.",
        ))
        .build();
    operation.parameters.get_or_insert_default().push(RefOr::T(name));
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
    }
    for (status, when) in REFUSALS.into_iter().chain([BUG]) {
        if is_possible(operation, status) {
            operation.responses.responses.insert(status.to_owned(), RefOr::T(refusal(status, when)));
        }
    }
}

fn scopes_of(requirement: &utoipa::openapi::security::SecurityRequirement) -> Vec<String> {
    let value = serde_json::to_value(requirement).unwrap_or_default();
    let lists = value.as_object().into_iter().flat_map(|object| object.values());
    lists
        .flat_map(|list| list.as_array().cloned().unwrap_or_default())
        .filter_map(|scope| scope.as_str().map(Into::into))
        .collect()
}

/// What has no body is not refused for it.
fn is_possible(operation: &Operation, status: &str) -> bool {
    operation.request_body.is_some() || !matches!(status, "413" | "415" | "422")
}

fn refusal(status: &str, when: &str) -> Answered {
    let schema = utoipa::openapi::Ref::from_schema_name(Problem::name());
    let answered = ResponseBuilder::new()
        .description(when)
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build());
    let answered = if matches!(status, "429" | "503") {
        let header = HeaderBuilder::new().schema(Some(u32::schema())).description(Some("In seconds.")).build();
        answered.header("Retry-After", header)
    } else {
        answered
    };
    answered.build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::Scope;

    /// Method, path and description of every operation.
    fn operations() -> Vec<(String, String, Operation)> {
        let mut all = Vec::new();
        for (path, item) in described().paths.paths {
            let methods = [("get", item.get), ("post", item.post), ("put", item.put), ("delete", item.delete)];
            all.extend(methods.into_iter().filter_map(|(m, op)| Some((m.to_owned(), path.clone(), op?))));
        }
        all
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_a_tag_scopes_and_its_refusals() {
        let mut names = BTreeSet::new();
        let all = operations();
        assert!(all.len() >= 40, "{}", all.len());
        for (method, path, operation) in all {
            let at = format!("{method} {path}");
            assert!(path.starts_with("/v1/"), "{at}");
            assert!(names.insert(operation.operation_id.clone().expect(&at)), "{at}");
            assert!(operation.summary.as_ref().is_some_and(|summary| summary.len() > 5), "{at}");
            let tags = operation.tags.clone().unwrap_or_default();
            assert!(tags.len() == 1 && TAGS.iter().any(|(tag, _)| *tag == tags[0]), "{at}: {tags:?}");
            let scopes: Vec<_> = operation.security.iter().flatten().flat_map(scopes_of).collect();
            assert!(
                !scopes.is_empty() && scopes.iter().all(|scope| scope.parse::<Scope>().is_ok()),
                "{at}: {scopes:?}"
            );
            for status in ["400", "401", "403", "404", "409", "429", "500", "503"] {
                assert!(operation.responses.responses.contains_key(status), "{at}: {status}");
            }
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let text = document().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert!(text.contains("\"format\": \"uint64\"") && !text.contains("u-int"));
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let named: BTreeSet<_> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.contains("Problem") && named.contains("Entry"), "{named:?}");
        for name in named {
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
