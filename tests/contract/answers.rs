//! What the API answers, as its documentation says: docs/api.md.

use std::fs;

use serde_json::{Value, json};

use crate::http::{Program, chunk, head};
use crate::tools::{address, forum, token};
use crate::world::{Company, hash, poster, run, wait_for};

fn program(company: &Company, name: &str, scopes: &str) -> Program {
    Program { address: address(company), token: token(company, name, &["--scope", scopes]) }
}

fn entry(n: u64) -> String {
    format!("/v1/entries/sha256/{}", hash(n))
}

#[test]
fn a_file_is_looked_up_by_its_picture_and_what_it_was_hashed_to_is_told() {
    let forum = forum(1, "");
    let acme = &forum.companies[0];
    let (png, copy) = poster(forum.folder.path(), 7);
    acme.does(&["submit", &png, "--label", "propaganda"]);
    let uploads = program(acme, "uploads", "lookup");
    let form = |fields: &[(&str, &[u8])]| {
        let mut body = Vec::new();
        for (name, value) in fields {
            let file = if *name == "file" { "; filename=\"x\"" } else { "" };
            body.extend(format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
            body.extend(*value);
            body.extend(b"\r\n");
        }
        body.extend(b"--edge--\r\n");
        uploads.ask("POST", "/v1/lookup", &[("content-type", "multipart/form-data; boundary=edge")], &body)
    };
    let copy = fs::read(copy).unwrap();
    let found = form(&[("explain", b"true"), ("file", &copy)]).is(200).json();
    assert_eq!(found["verdict"], "REVIEW", "{found}");
    let near = &found["matches"][0];
    assert!(near["distance"].as_u64().unwrap() > 0 && near["file_index"] == 0, "{near}");
    assert_eq!(
        (&near["entry"]["signal"]["type"], &near["entry"]["said"][0]["member"]),
        (&json!("pdq"), &json!("acme"))
    );
    assert!(
        found["files"][0]["signals"].as_array().unwrap().len() >= 4
            && !found["explained"].as_array().unwrap().is_empty()
    );
    assert_eq!(form(&[("file", b"only text")]).is(200).json()["verdict"], "ALLOW");
    for (fields, status) in [
        (&[("file", b"x" as &[u8]), ("dihedral", b"maybe")][..], 422),
        (&[("file", b"x"), ("distance_max", b"32")], 400),
        (&[("file", b"x"), ("other", b"1")], 422),
        (&[("signal", b"md5:900150983cd24fb0d6963f7d28e17f72")], 422),
        (&[("file", b"x" as &[u8]); 9], 422),
    ] {
        let refused = form(fields).is(status);
        assert_eq!(refused.header("content-type"), "application/problem+json", "{fields:?}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_told_as_a_problem() {
    let forum = forum(1, "");
    let acme = &forum.companies[0];
    let all = program(acme, "all", "lookup,submit,review");
    let json = [("content-type", "application/json")];
    // One byte too long: whoever refuses it has read all of it but that.
    let long = format!("{{\"hashes\":[\"{}\"]}}", "0".repeat((2 << 20) + 1 - 15));
    let text = [("content-type", "text/plain")];
    for (method, path, headers, body, status, reason) in [
        ("POST", "/v1/lookup", &json[..], "{", 400, "JSON"),
        ("POST", "/v1/lookup", &json, "[]", 422, "FIELD"),
        ("POST", "/v1/lookup", &json, "{\"signals\":[]}", 400, "FIELD"),
        ("POST", "/v1/lookup", &json, "{\"signals\":[[\"md5\",\"00\"]]}", 422, "FIELD"),
        ("POST", "/v1/lookup", &json, "{\"signals\":[{\"type\":\"md5\",\"value\":\"00\"}],\"x\":1}", 422, "FIELD"),
        ("POST", "/v1/lookup", &json, "{\"signals\":[{\"type\":\"md5\",\"value\":\"00\"}]}", 400, "FIELD"),
        ("POST", "/v1/lookup", &text, "{}", 415, "MEDIA_TYPE"),
        ("POST", "/v1/lookup", &[], "{}", 415, "MEDIA_TYPE"),
        ("POST", "/v1/lookup/batch", &json, &long, 413, "BODY"),
        ("GET", "/v1/entries?page_size=1001", &[], "", 400, "FIELD"),
        ("GET", "/v1/entries?page_sise=1", &[], "", 400, "FIELD"),
        ("GET", "/v1/entries?type=PDQ", &[], "", 400, "FIELD"),
        ("GET", "/v1/entries/md5/00", &[], "", 400, "FIELD"),
        ("GET", "/v1/entries/md5/900150983cd24fb0d6963f7d28e17f72", &[], "", 404, "NOT_FOUND"),
        ("GET", "/v1/records/00/0/1/0", &[], "", 400, "FIELD"),
        ("GET", "/v1/report?from=2026-02-30&to=now", &[], "", 400, "FIELD"),
        ("GET", "/v1/watch?bookmark=x", &[], "", 400, "FIELD"),
        ("DELETE", "/v1/status", &[], "", 405, "METHOD"),
        ("GET", "/v1/nothing", &[], "", 404, "NOT_FOUND"),
        ("GET", "/v1/members/nobody", &[], "", 404, "NOT_FOUND"),
        (
            "POST",
            "/v1/reviews/conflict-0011223344556677/decision",
            &json,
            "{\"decision\":\"endorse\"}",
            404,
            "NOT_FOUND",
        ),
    ] {
        let answer = all.ask(method, path, headers, body.as_bytes());
        let shown = &body[..body.len().min(80)];
        let problem = answer.json();
        assert_eq!((answer.status, &problem["reason"]), (status, &json!(reason)), "{method} {path} {shown}: {problem}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(status), &json!(answer.header("x-request-id"))));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
}

#[test]
fn a_submission_is_found_listed_exported_disputed_and_proven() {
    let forum = forum(2, "");
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };
    let ours = program(acme, "ours", "lookup,submit,review");
    let theirs = program(bolt, "theirs", "lookup,submit,review");
    let key = "00112233445566778899aabbccddeeff";
    let submission = json!({
        "statements": [{
            "signal": { "type": "sha256", "value": hash(1) }, "stance": "SUBMIT", "labels": ["propaganda"],
            "severity": 2, "basis": "human-review", "client_key": key,
        }],
        "wait_peers": 1,
    });
    let said = ours.post("/v1/submissions", &submission).is(200).json();
    assert_eq!((&said["state"], &said["peers_holding"]), (&json!("DURABLE"), &json!(1)), "{said}");
    let again = ours.post("/v1/submissions", &submission).is(200).json();
    assert_eq!(again["receipts"], said["receipts"], "the same key is answered with the first receipt");

    wait_for("bolt has it", || (theirs.get(&entry(1)).status == 200).then_some(()));
    let shown = theirs.get(&format!("{}?receipts=true", entry(1))).is(200).json();
    assert_eq!(
        (&shown["said"][0]["member"], &shown["receipts"][0]["record"]),
        (&json!("acme"), &said["receipts"][0]["record"])
    );
    let listed = theirs.get("/v1/entries?type=sha256&label=propaganda&member=acme&status=ACTIVE").is(200).json();
    assert_eq!((listed["entries"].as_array().unwrap().len(), &listed["next_page_token"]), (1, &json!("")));
    let exported = theirs.get("/v1/entries/export").is(200);
    assert_eq!((exported.header("content-type"), exported.json_lines().len()), ("application/x-ndjson", 1));
    let batch = json!({ "type": "sha256", "hashes": [hash(7), hash(1)] });
    let batch = theirs.post("/v1/lookup/batch", &batch).is(200).json();
    assert_eq!(
        (&batch["looked_up"], &batch["hits"][0]["position"], &batch["hits"][1]),
        (&json!(2), &json!(1), &Value::Null)
    );

    // They disagree, we are asked, and take it back.
    let opinion = json!({ "stance": "DISPUTE", "reason": "news-reporting" });
    theirs.post(&format!("{}/opinions", entry(1)), &opinion).is(200);
    theirs.post(&format!("{}/opinions", entry(2)), &opinion).is(404);
    let waits = wait_for("it waits for us", || ours.get("/v1/reviews").is(200).json()["reviews"].get(0).cloned());
    assert_eq!((&waits["kind"], &waits["by"]), (&json!("disputed-own"), &json!(["bolt"])));
    let decision = format!("/v1/reviews/{}/decision", waits["id"].as_str().unwrap());
    ours.post(&decision, &json!({ "decision": "withdraw" })).is(422);
    ours.post(&decision, &json!({ "decision": "keep" })).is(422);
    ours.post(&decision, &json!({ "decision": "withdraw", "reason": "mistake" })).is(200);
    ours.post(&decision, &json!({ "decision": "withdraw", "reason": "mistake" })).is(404);
    assert_eq!(ours.get(&entry(1)).is(200).json()["status"], "INACTIVE");

    // Others can check all of it.
    let place = &said["receipts"][0];
    let place = format!(
        "/v1/records/{}/{}/{}/{}",
        place["member_id"].as_str().unwrap(),
        place["log_no"],
        place["seq"],
        place["index"]
    );
    assert_eq!(ours.get(&place).is(200).json(), said["receipts"][0]);
    for path in [format!("{}/evidence", entry(1)), format!("{place}/evidence"), "/v1/evidence".to_owned()] {
        let file = forum.path("evidence.sde");
        let answer = wait_for("the list is not being counted", || {
            let answer = ours.get(&path);
            (answer.status != 503).then_some(answer)
        });
        fs::write(&file, answer.is(200).body).unwrap();
        run(&["verify", &file, "--forum", &forum.fingerprint]).ends_with(0);
    }
    ours.get(&format!("{place}99/evidence")).is(404);
}

#[test]
fn the_state_of_the_forum_is_told_as_the_command_line_tells_it() {
    let forum = forum(2, "");
    let acme = &forum.companies[0];
    acme.does(&["submit", &format!("sha256:{}", hash(1)), "--label", "propaganda"]);
    let viewer = program(acme, "viewer", "lookup");
    let members = acme.does(&["member", "list", "--json"]).json();
    assert_eq!(viewer.get("/v1/members").is(200).json()["members"], members);
    let id = members[1]["id"].as_str().unwrap();
    for path in ["/v1/members/bolt".to_owned(), format!("/v1/members/{id}")] {
        let company = viewer.get(&path).is(200).json();
        assert!(members.as_array().unwrap().contains(&company), "{company}");
    }
    let charter = acme.does(&["charter", "show", "--json"]).json();
    assert_eq!(viewer.get("/v1/charters").is(200).json()["charters"], json!([charter]));
    assert_eq!(viewer.get("/v1/taxonomy").is(200).json(), acme.does(&["taxonomy", "show", "--json"]).json());
    assert_eq!(viewer.get("/v1/policy").is(200).json(), acme.does(&["policy", "show", "--json"]).json());
    assert_eq!(viewer.get("/v1/status").is(200).json()["member"], "acme");
    assert_eq!(viewer.get("/v1/peers").is(200).json()["peers"][0]["member"], "bolt");
    for (path, list) in [
        ("/v1/referrals", "referrals"),
        ("/v1/incidents", "incidents"),
        ("/v1/resources", "resources"),
        ("/v1/batches", "batches"),
    ] {
        assert_eq!(viewer.get(path).is(200).json()[list], json!([]), "{path}");
    }
    let period = "/v1/report?from=2026-01-01&to=now&open=true";
    let report = viewer.get(period).is(200).json();
    assert_eq!(report["entries"]["new"], 1, "{report}");
    let table = viewer.get(&format!("{period}&format=csv")).is(200);
    assert!(table.header("content-type").starts_with("text/csv") && table.body.len() > 500);
    let page = viewer.get(&format!("{period}&format=html")).is(200);
    assert!(page.header("content-disposition").starts_with("attachment") && page.body.starts_with(b"<!"));
}

#[test]
fn admins_make_tokens_close_logs_apply_charters_and_read_who_did_what() {
    let forum = forum(2, "");
    let acme = &forum.companies[0];
    let admin = program(acme, "admin", "admin");
    let made = admin.post("/v1/tokens", &json!({ "name": "uploads", "scopes": ["lookup"] })).is(201).json();
    let uploads = Program { address: admin.address, token: made["secret"].as_str().unwrap().to_owned() };
    uploads.get("/v1/status").is(200);
    assert_eq!(admin.post("/v1/tokens", &json!({ "name": "uploads", "scopes": ["lookup"] })).status / 100, 4);
    let person = admin.post("/v1/tokens", &json!({ "name": "anna", "role": "viewer" })).is(201).json();
    assert!(person["link"].as_str().unwrap().starts_with("http://"), "{person}");
    assert_eq!(admin.get("/v1/tokens").is(200).json()["tokens"].as_array().unwrap().len(), 3);
    admin.ask("DELETE", "/v1/tokens/uploads", &[], b"").is(204);
    admin.ask("DELETE", "/v1/tokens/uploads", &[], b"").is(404);
    uploads.get("/v1/status").is(401);

    acme.does(&["submit", &format!("sha256:{}", hash(1)), "--label", "propaganda"]);
    assert_eq!(admin.ask("POST", "/v1/log/verify", &[], b"").is(200).json()["first_break"], Value::Null);
    let closed = admin.post("/v1/log/close", &json!({ "reason": "other" })).is(200).json();
    assert_eq!(closed["logs"][0]["lane"], "normal", "{closed}");
    admin.ask("POST", "/v1/log/rotate", &[], b"").is(200);
    assert_eq!(admin.post("/v1/log/resubmit", &json!({})).is(200).json()["records"], 0);

    let file = forum.path("charter-2.sdc");
    acme.does(&["charter", "renew", "--days", "400", "-o", &file]);
    let text = || fs::read_to_string(&file).unwrap();
    let early = admin.post("/v1/charters", &json!({ "file": text() }));
    assert_eq!(early.is(409).json()["reason"], "CHARTER", "nobody has signed it yet");
    for name in ["acme", "bolt"] {
        run(&["charter", "sign", &file, "--key", &forum.path(&format!("founder-{name}.pem"))]).ends_with(0);
    }
    assert_eq!(admin.post("/v1/charters", &json!({ "file": text() })).is(200).json()["version"], 2);
    assert_eq!(admin.get("/v1/charters?from_version=2").is(200).json()["charters"][0]["version"], 2);
    admin.post("/v1/charters", &json!({ "file": "no charter" })).is(422);

    let trail = admin.get("/v1/audit").is(200).json_lines();
    let did = |action: &str| {
        trail.iter().any(|act| act["action"].as_str().unwrap().starts_with(action) && act["caller"] == "admin")
    };
    assert!(did("token") && trail.iter().all(|act| act["via"] == "http"), "{trail:?}");
}

/// The next event: its name, its id and its data.
fn event(stream: &mut std::io::BufReader<std::net::TcpStream>, text: &mut String) -> (String, String, Value) {
    loop {
        if let Some((one, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                let line = one.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                line.unwrap_or_default().to_owned()
            };
            let (name, id, told) = (field("event"), field("id"), field("data"));
            *text = rest.to_owned();
            if !name.is_empty() {
                return (name, id, serde_json::from_str(&told).unwrap());
            }
            continue;
        }
        text.push_str(std::str::from_utf8(&chunk(stream).expect("the stream goes on")).unwrap());
    }
}

#[test]
fn changes_are_server_sent_events_that_go_on_from_the_last_id() {
    let mut forum = forum(1, "");
    let acme = &forum.companies[0];
    let submit = |company: &Company, n| {
        company.does(&["submit", &format!("sha256:{}", hash(n)), "--label", "propaganda"]);
    };
    submit(acme, 1);
    let follower = program(acme, "follower", "lookup");
    let watch = |headers: &[(&str, &str)], query: &str| {
        let mut stream = follower.send("GET", &format!("/v1/watch{query}"), headers, b"");
        let (status, headers) = head(&mut stream);
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        (stream, String::new())
    };
    let (mut stream, mut text) = watch(&[], "?list=true");
    let (name, _, told) = event(&mut stream, &mut text);
    assert_eq!(
        (name.as_str(), &told["change"], &told["entry"]["signal"]["value"]),
        ("change", &json!("STANDS"), &json!(hash(1)))
    );
    assert_eq!(event(&mut stream, &mut text).0, "level");
    submit(acme, 2);
    let (name, id, told) = event(&mut stream, &mut text);
    assert_eq!((name.as_str(), &told["change"], &told["bookmark"]), ("change", &json!("SAID"), &json!(id)));
    drop(stream);
    submit(acme, 3);
    let (mut stream, mut text) = watch(&[("last-event-id", &id)], "?list=true");
    let (_, _, told) = event(&mut stream, &mut text);
    assert_eq!(told["entry"]["signal"]["value"], hash(3), "only what came since");
    // The node stops: it says so, and the answer is whole.
    forum.companies[0].stop();
    let (name, _, told) =
        std::iter::repeat_with(|| event(&mut stream, &mut text)).find(|(name, ..)| name != "level").unwrap();
    assert_eq!((name.as_str(), &told["reason"]), ("problem", &json!("DRAINING")));
}
