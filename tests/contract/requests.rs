//! Requests that the document allows, and requests that it forbids: none of them breaks the node, and every answer is one
//! of those that the document describes.

use std::fs;

use tempfile::TempDir;

use crate::http::Program;
use crate::tools::{address, document, forum, python, token, tool};
use crate::world::Ran;

/// Requests of each kind that an operation is asked with: some 45 operations, in a minute or two.
const EXAMPLES: &str = "8";
/// The same requests each time.
const SEED: &str = "20261122";
/// Not asked: what waits for events never ends.
const ENDLESS: &str = "watch";
/// What is not checked: a schema cannot say which labels a forum has, or that a time lies in the future; what it allows may
/// be refused for that.
const UNCHECKED: &str = "positive_data_acceptance";

#[test]
fn no_request_breaks_the_node_and_every_answer_is_as_the_document_says() {
    let Some(python) = python() else { return };
    let forum = forum(1, "");
    let acme = &forum.companies[0];
    let token = token(acme, "schemathesis", &["--scope", "admin"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("openapi.json");
    fs::write(&file, document()).unwrap();
    acme.does(&[
        "submit",
        "sha256:5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5",
        "--label",
        "propaganda",
    ]);
    let mut command = tool(&python, "schemathesis", folder.path());
    command.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", crate::tools::script(""));
    command.args(["run", "openapi.json", "--url", &format!("http://{}", address(acme))]);
    command.args(["--header", &format!("Authorization: Bearer {token}"), "--seed", SEED, "--max-examples", EXAMPLES]);
    command.args(["--generation-database", "none", "--workers", "2", "--request-timeout", "60", "--no-shrink"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--exclude-operation-id", ENDLESS]);
    command.args(["--exclude-checks", UNCHECKED, "--continue-on-failure"]);
    let ran = crate::tools::long(&mut command);
    assert_eq!(ran.code, Some(0), "{}\n{}", tail(&ran), acme.log());
    // It still answers, also this token, and what it has written holds.
    Program { address: address(acme), token }.get("/v1/status").is(200);
    acme.does(&["log", "verify"]);
}

/// The end of what it says, which sums up.
fn tail(ran: &Ran) -> String {
    let lines: Vec<_> = ran.out.lines().chain(ran.err.lines()).collect();
    lines[lines.len().saturating_sub(400)..].join("\n")
}
