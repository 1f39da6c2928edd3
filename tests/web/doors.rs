//! No address without a scope: the document of the API, the routes of the console and the calls of gRPC, each asked
//! without a token and with every one that is too small.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use staydown::access::{Role, Scope};
use staydown::wire::local as l;
use staydown::wire::local_service::forum_server::Forum as _;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use crate::forum::hash;
use crate::house::House;
use crate::wire::{Answer, ask, get, post};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// What a stranger may see: nothing of it is anybody's.
const OPEN: [&str; 3] = ["/login", "/healthz", "/readyz"];

/// A SHA-256 value that is on the list.
const LISTED: &str = "b7d2b5b2b1d2b5b2b1d2b5b2b1d2b5b2b1d2b5b2b1d2b5b2b1d2b5b2b1d2b5b2";

/// One operation of the API's document.
#[derive(Debug)]
struct Operation {
    method: String,
    path: String,
    scopes: Vec<Scope>,
    /// The body that the document gives as an example; an empty object where it gives none.
    body: Option<Value>,
}

/// Every operation that the document has, with something in place of each parameter.
async fn operations(house: &House) -> Vec<Operation> {
    let reader = house.token("document", &[Scope::Admin]);
    let document = get("/v1/openapi.json").bearer(&reader).to(house.at).await;
    assert_eq!(document.status, 200, "{document:?}");
    let document = document.json();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let Some(operation) = item.get(method.to_lowercase()) else { continue };
            let required = operation["security"].as_array();
            let lists = required.into_iter().flatten().flat_map(|one| one.as_object().unwrap().values());
            let names = lists.flat_map(|list| list.as_array().unwrap()).map(|name| name.as_str().unwrap().to_owned());
            let query = if path == "/v1/report" { "?from=2026-01-01&to=2026-07-01" } else { "" };
            operations.push(Operation {
                method: method.to_owned(),
                path: format!("{}{query}", filled(path)),
                scopes: names.map(|name| name.parse().unwrap()).collect(),
                body: operation.get("requestBody").map(|body| sound_body(path, example(&document, body))),
            });
        }
    }
    operations
}

/// A body that can be understood, where the document has no example of one.
fn sound_body(path: &str, example: Value) -> Value {
    match path.rsplit('/').next() {
        Some("outcomes") => json!({"result": "removed", "acted_ms": 1_790_000_000_000_u64}),
        Some("preservations") => json!({"until_ms": 1_900_000_000_000_u64}),
        Some("reset") => json!({"signal": {"type": "sha256", "value": LISTED}}),
        Some("charters") => json!({"file": "-----BEGIN"}),
        _ => example,
    }
}

/// The example of a request's body: its own, or that of its schema.
fn example(document: &Value, body: &Value) -> Value {
    let content = &body["content"]["application/json"];
    let schema = match content["schema"]["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).cloned().unwrap_or_default(),
        None => content["schema"].clone(),
    };
    let empty = || Value::Object(Default::default());
    [&content["example"], &schema["example"], &schema["examples"][0]]
        .into_iter()
        .find(|found| !found.is_null())
        .cloned()
        .unwrap_or_else(empty)
}

/// A path with something in place of each parameter.
fn filled(path: &str) -> String {
    let mut filled = String::new();
    for (number, part) in path.split('{').enumerate() {
        let Some((name, rest)) = part.split_once('}').filter(|_| number > 0) else {
            filled.push_str(part);
            continue;
        };
        filled.push_str(match name.trim_start_matches('*') {
            "type" => "sha256",
            "value" => LISTED,
            "log_no" | "seq" | "index" => "1",
            "batch" => "0011223344556677",
            "member_id" | "id" => "00112233445566778899aabbccddeeff",
            _ => "x",
        });
        filled.push_str(rest);
    }
    filled
}

/// Every path that the source registers, so that a route that nobody thought of here is asked, too.
pub fn routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web")) {
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for part in text.split(".route(").skip(1) {
            let path = part.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
            found.extend(path.map(|(path, _)| filled(path)));
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

/// Sent to sign in, or refused: nothing of the node's is in it.
fn keeps_out(answer: &Answer) -> bool {
    let sent_away = answer.status == 303 && answer.header("location").is_some_and(|to| to.starts_with("/login"));
    sent_away || answer.status == 401
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_nowhere_but_to_the_named_paths() {
    let house = House::open().await;
    let mut paths = routes();
    assert!(paths.len() > 20 && paths.contains("/") && paths.contains("/review"), "the routes are found: {paths:?}");
    paths.extend(operations(&house).await.into_iter().map(|operation| operation.path));
    let others =
        ["/v1", "/v1/", "/v1/nothing", "/v1/openapi.json", "/metrics", "/nothing", "/login/", "/login/x", "//login"];
    paths.extend(others.map(ToOwned::to_owned));
    paths.extend(
        ["/healthz/", "/readyz/x", "/LOGIN", "/assets", "/%6cogin", "/login%2f..%2fmembers"].map(ToOwned::to_owned),
    );
    paths.retain(|path| !OPEN.contains(&path.as_str()) && !path.starts_with("/assets/"));
    for path in &paths {
        for method in METHODS {
            let answer = ask(method, path).to(house.at).await;
            assert!(answer.status == 401, "{method} {path}: {answer:?}");
            let page = ask(method, path).html().to(house.at).await;
            assert!(keeps_out(&page), "{method} {path}: {page:?}");
            let forged = ask(method, path).bearer("sdt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").to(house.at).await;
            assert_eq!(forged.status, 401, "{method} {path}: {forged:?}");
        }
    }
    for path in OPEN {
        let answer = get(path).html().to(house.at).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        for secret in [house.member(), house.forum.forum.to_string()] {
            assert!(!answer.text().contains(&secret), "{path} tells a stranger {secret}: {answer:?}");
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_names_its_scopes_and_without_one_of_them_it_is_refused() {
    let house = House::open().await;
    let operations = operations(&house).await;
    assert!(operations.len() > 20, "{operations:?}");
    let without = |scope: Scope| {
        let others = Scope::ALL.into_iter().filter(|other| *other != scope && *other != Scope::Admin);
        house.token(&format!("all-but-{scope}"), &others.collect::<Vec<_>>())
    };
    let too_small = Scope::ALL.map(|scope| (scope, without(scope)));
    list(&house).await;
    let mut wrong = Vec::new();
    for operation in &operations {
        assert!(!operation.scopes.is_empty(), "it names a scope: {operation:?}");
        for needed in &operation.scopes {
            let (_, token) = too_small.iter().find(|(scope, _)| scope == needed).unwrap();
            let asked = ask(&operation.method, &operation.path).bearer(token);
            let asked = if let Some(body) = &operation.body { asked.json(body) } else { asked };
            let answer = asked.to(house.at).await;
            // Nothing waits for a decision here: whoever may review is told so.
            let of_queue = operation.path.starts_with("/v1/reviews/") && *needed != Scope::Review;
            let no_example = of_queue && answer.status == 404;
            if (answer.status, answer.reason().as_str()) != (403, "SCOPE") && !no_example {
                wrong.push(format!("without {needed}, {operation:?}: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    house.close().await;
}

/// Puts [`LISTED`] on the list.
async fn list(house: &House) {
    let statement = crate::forum::statement(l::Stance::Submit, "sha256", LISTED);
    let request = l::SubmitRequest { statements: vec![statement], ..Default::default() };
    house.service.submit(tonic::Request::new(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_refused_token_asked_for_has_not_happened() {
    let house = House::open().await;
    let reader = house.token("reader", &[Scope::Lookup, Scope::Metrics]);
    let speaker = house.token("speaker", &[Scope::Lookup, Scope::Submit, Scope::Review]);
    list(&house).await;
    let entry = format!("/v1/entries/sha256/{LISTED}");
    let opinion = json!({"stance": "DISPUTE", "reason": "news-reporting"});
    let statement = json!({"statements": [{"signal": {"type": "sha256", "value": hash(1)}, "stance": "SUBMIT", "labels": ["propaganda"]}]});
    let token = json!({"name": "mallory", "role": "admin"});
    for (token_shown, path, body) in [
        (&reader, format!("{entry}/opinions"), &opinion),
        (&reader, "/v1/submissions".to_owned(), &statement),
        (&reader, "/v1/tokens".to_owned(), &token),
        (&speaker, "/v1/tokens".to_owned(), &token),
    ] {
        let answer = post(&path).bearer(token_shown).json(body).to(house.at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "SCOPE"), "{path}: {answer:?}");
    }
    assert!(house.access().list().iter().all(|token| token.name != "mallory"));
    let listed = get("/v1/entries").bearer(&reader).to(house.at).await.json().to_string();
    assert!(listed.contains(LISTED) && !listed.contains(&hash(1)) && !listed.contains("DISPUTE"), "{listed}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_nothing_to_a_token_that_may_only_read_metrics() {
    let house = House::open().await;
    let metrics = house.token("prometheus", &[Scope::Metrics]);
    let (viewer, reviewer) = (house.person("vera", Role::Viewer), house.person("rita", Role::Reviewer));
    let open = |path: &String| OPEN.contains(&path.as_str()) || path.starts_with("/assets/") || path == "/metrics";
    // A program's token opens a session, too: it sees there no more than elsewhere.
    let session = house.sign_in(&metrics).await;
    for path in routes().into_iter().filter(|path| !open(path) && path != "/v1/openapi.json") {
        for asked in [get(&path).html().bearer(&metrics), get(&path).html().session(&session.key)] {
            let answer = asked.to(house.at).await;
            assert!(matches!(answer.status, 400 | 403 | 404 | 405) || keeps_out(&answer), "{path}: {answer:?}");
        }
    }
    for path in ["/access", "/audit"] {
        for token in [&viewer, &reviewer] {
            let browser = house.sign_in(token).await;
            let answer = get(path).html().session(&browser.key).to(house.at).await;
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
    }
    let answer = get("/metrics").bearer(&house.token("reader", &[Scope::Lookup])).to(house.at).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "SCOPE"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewers_forms_change_nothing() {
    let house = House::open().await;
    let browser = house.sign_in(&house.person("vera", Role::Viewer)).await;
    let value = hash(7);
    let fields = [
        ("csrf", browser.csrf.as_str()),
        ("type", "sha256"),
        ("value", &value),
        ("signal", &value),
        ("stance", "submit"),
        ("action", "dispute"),
        ("decision", "dispute"),
        ("label", "propaganda"),
        ("labels", "propaganda"),
        ("reason", "news-reporting"),
        ("name", "mallory"),
        ("role", "admin"),
        ("do", "dispute"),
    ];
    let mine = ["/login", "/logout"];
    for path in routes().into_iter().filter(|path| !path.starts_with("/v1/") && !mine.contains(&path.as_str())) {
        let asked = post(&path).html().session(&browser.key).of_our_page(house.at).form(&fields);
        let answer = asked.to(house.at).await;
        assert!(answer.status >= 300, "{path}: {answer:?}");
    }
    let tokens = house.access().list();
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let mut acts = Vec::new();
    house
        .access()
        .audit()
        .read(staydown::replica::ids::TimeMs(0), |act| {
            acts.push(act);
            true
        })
        .unwrap();
    let done = acts
        .iter()
        .filter(|act| act.outcome == "OK" && !act.action.starts_with("sign ") && !act.action.starts_with("export"));
    assert_eq!(done.count(), 0, "{acts:#?}");
    house.close().await;
}

/// The calls of the service, as its file has them.
fn calls() -> Vec<String> {
    let proto = include_str!("../../proto/staydown/local/v1/forum.proto");
    let names = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    names.map(|rest| format!("/staydown.local.v1.Forum/{}", rest.split('(').next().unwrap())).collect()
}

fn channel(at: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{at}")).unwrap().connect_lazy()
}

/// One empty message to a call, and the status that it ends with: as a number, -1 where it did not end with its headers.
async fn grpc_status(channel: &Channel, path: &str, token: Option<&str>) -> i32 {
    let mut request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])));
    let mut channel = channel.clone();
    let answer = channel.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap();
    let status = answer.headers().get("grpc-status");
    status.map_or(-1, |status| status.to_str().unwrap().parse().unwrap())
}

const DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_needs_a_token_and_each_call_its_scope() {
    let house = House::open().await;
    let metrics = house.token("prometheus", &[Scope::Metrics]);
    let reader = house.token("reader", &[Scope::Lookup]);
    let reviewer = house.token("reviewer", &[Scope::Lookup, Scope::Submit, Scope::Review, Scope::Metrics]);
    let channel = channel(house.at);
    let calls = calls();
    assert!(calls.len() > 30, "{calls:?}");
    for call in &calls {
        assert_eq!(grpc_status(&channel, call, None).await, UNAUTHENTICATED, "{call} without a token");
        assert_eq!(grpc_status(&channel, call, Some("sdt_x")).await, UNAUTHENTICATED, "{call} with a wrong token");
        assert_eq!(grpc_status(&channel, call, Some(&metrics)).await, DENIED, "{call} with metrics only");
    }
    for call in ["Submit", "Import", "UndoBatch", "ResetBreaker", "SubmitStream"] {
        let path = format!("/staydown.local.v1.Forum/{call}");
        assert_eq!(grpc_status(&channel, &path, Some(&reader)).await, DENIED, "{call} with lookup only");
    }
    let admins = ["ApplyCharter", "VerifyLog", "RotateLogs", "Resubmit", "CloseLogs", "CreateToken", "ListTokens"];
    for call in admins.into_iter().chain(["RevokeToken", "ListAudit"]) {
        let path = format!("/staydown.local.v1.Forum/{call}");
        assert_eq!(grpc_status(&channel, &path, Some(&reviewer)).await, DENIED, "{call} with all but admin");
    }
    for path in
        ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/no.Such/Call"]
    {
        assert_eq!(grpc_status(&channel, path, None).await, UNAUTHENTICATED, "{path}");
    }
    let status = grpc_status(&channel, "/staydown.local.v1.Forum/Status", Some(&reader)).await;
    assert_eq!(status, -1, "who may is answered");
    // A content type opens no other door.
    let odd = post("/v1/tokens").with("content-type", "application/grpc").to(house.at).await;
    assert!(odd.header("grpc-status") == Some("16"), "{odd:?}");
    house.close().await;
}
