//! Nobody gets further than a token's scopes allow, at any operation of the document.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::http::Program;
use crate::tools::{address, document, forum, token};

const SCOPES: [&str; 4] = ["lookup", "submit", "review", "admin"];

/// Method, path and scopes of every operation, with a body where it takes one.
fn operations() -> Vec<(String, String, Vec<String>, Option<Value>)> {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["security"][0]["token"].as_array().unwrap();
            let scopes = scopes.iter().map(|scope| scope.as_str().unwrap().to_owned()).collect();
            let body = operation.get("requestBody").map(|_| body(operation["operationId"].as_str().unwrap()));
            all.push((method.to_uppercase(), path.clone(), scopes, body));
        }
    }
    all
}

/// Something that each operation understands.
fn body(operation: &str) -> Value {
    let signal = json!({ "type": "md5", "value": "900150983cd24fb0d6963f7d28e17f72" });
    match operation {
        "lookup" => json!({ "signals": [signal] }),
        "lookup_batch" => json!({ "type": "md5", "hashes": ["900150983cd24fb0d6963f7d28e17f72"] }),
        "submit" => json!({ "statements": [{ "signal": signal, "stance": "SUBMIT" }] }),
        "say_opinion" => json!({ "stance": "ENDORSE" }),
        "vote" | "certify" => json!({ "yes": false }),
        "refer" => json!({ "open": false }),
        "preserve" => json!({ "until_ms": 1 }),
        "tell_outcome" => json!({ "result": "kept", "acted_ms": 1 }),
        "decide_review" => json!({ "decision": "endorse" }),
        "say_incident" => json!({ "open": false }),
        "say_resource" => json!({ "url": "https://example.org/a", "listed": false }),
        "reset_breaker" => json!({ "signal": signal }),
        "apply_charter" => json!({ "file": "-----BEGIN" }),
        "make_token" => json!({ "name": "x", "scopes": ["lookup"] }),
        _ => json!({}),
    }
}

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let values = BTreeMap::from([
        ("{type}", "md5"),
        ("{value}", "900150983cd24fb0d6963f7d28e17f72"),
        ("{member}", "acme"),
        ("{member_id}", "00112233445566778899aabbccddeeff"),
        ("{log_no}", "0"),
        ("{seq}", "1"),
        ("{index}", "0"),
        ("{batch}", "0011223344556677"),
        ("{id}", "disputed-0011223344556677"),
        ("{name}", "nobody"),
    ]);
    let path = values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path}");
    // The one operation that has no answer without fields.
    if path == "/v1/report" { path + "?from=2026-01-01&to=2026-01-02" } else { path }
}

#[test]
fn every_operation_refuses_strangers_and_whoever_has_none_of_its_scopes() {
    let forum = forum(1, "");
    let acme = &forum.companies[0];
    acme.does(&["submit", "md5:900150983cd24fb0d6963f7d28e17f72", "--label", "propaganda"]);
    let address = address(acme);
    let programs = SCOPES.map(|scope| (scope, Program { address, token: token(acme, scope, &["--scope", scope]) }));
    let stranger = Program { address, token: String::new() };
    for (method, path, scopes, body) in operations() {
        let (at, path) = (format!("{method} {path}"), filled(&path));
        let send = |program: &Program| {
            let text = body.as_ref().map(Value::to_string).unwrap_or_default();
            let headers: &[_] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
            program.ask(&method, &path, headers, text.as_bytes())
        };
        let refused = send(&stranger).is(401);
        assert_eq!(refused.header("content-type"), "application/problem+json", "{at}");
        assert!(refused.header("www-authenticate").starts_with("Bearer"), "{at}");
        for (scope, program) in programs.iter().filter(|(scope, _)| *scope != "admin") {
            if scopes == [*scope] {
                continue;
            }
            let answer = send(program);
            assert_eq!((answer.status, &answer.json()["reason"]), (403, &json!("SCOPE")), "{at} with {scope}");
        }
    }
    let document: Value = serde_json::from_str(&document()).unwrap();
    assert_eq!(
        programs[0].1.get("/v1/openapi.json").is(200).json(),
        document,
        "the node serves what the program prints"
    );
    stranger.get("/v1/openapi.json").is(401);
    stranger.get("/v1/nothing").is(401);
}
