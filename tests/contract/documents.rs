//! The document itself, and what is made from it.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{address, document, done, forum, python, script, token, tool};

/// Nothing beautifies the client: it is not kept. What the generator does not know is read as bytes.
const CONFIG: &str = "package_name_override: forum_client
post_hooks: []
content_type_overrides:
  application/x-ndjson: application/octet-stream
  application/vnd.staydown.evidence: application/octet-stream
  text/event-stream: text/plain
";

#[test]
fn the_document_is_valid_openapi_3_1() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("openapi.json");
    fs::write(&file, document()).unwrap();
    done(tool(&python, "python", folder.path()).arg(script("validate.py")).arg(&file));
}

#[test]
fn every_operation_stands_in_the_documentation_with_its_scopes() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["security"][0]["token"].as_array().unwrap();
            let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str().unwrap()).collect();
            let row = format!("| `{} {path}` | {} |", method.to_uppercase(), scopes.join(", "));
            assert!(page.contains(&row), "docs/api.md lacks {row}");
        }
    }
}

#[test]
fn a_client_that_is_made_from_the_document_submits_and_looks_up() {
    let Some(python) = python() else { return };
    let forum = forum(1, "");
    let acme = &forum.companies[0];
    let folder = TempDir::new().unwrap();
    let (file, config) = (folder.path().join("openapi.json"), folder.path().join("config.yaml"));
    fs::write(&file, document()).unwrap();
    fs::write(&config, CONFIG).unwrap();
    let generated = done(
        tool(&python, "openapi-python-client", folder.path())
            .args(["generate", "--meta", "none", "--fail-on-warning", "--path"])
            .arg(&file)
            .arg("--config")
            .arg(&config)
            .arg("--output-path")
            .arg(folder.path().join("forum_client")),
    );
    assert!(!generated.out.contains("Warning"), "{generated:?}");
    let url = format!("http://{}", address(acme));
    let token = token(acme, "client", &["--scope", "lookup,submit"]);
    let mut client = tool(&python, "python", folder.path());
    done(client.arg(script("client.py")).arg(folder.path()).args([&url, &token]));
}
