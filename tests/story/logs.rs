//! Log lines for programs: one request is followed from whoever sent it to the other company's node, and a call between the
//! nodes in both their logs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;

use serde_json::Value;
use staydown::wire::local as l;
use tokio::runtime::Runtime;
use tonic::Request;

use crate::privacy::client;
use crate::world::{Company, Forum, hash, wait_for};

const SUBMITTED: &str = "from-the-upload-service";
const REFUSED: &str = "another-request_1";

/// The lines of a company's log that are for programs; each is checked.
fn lines(company: &Company) -> Vec<Value> {
    let log = company.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    // What is still being written is no line yet.
    let lines = lines.filter(|line| line.ends_with('}')).map(|line| serde_json::from_str(line).unwrap());
    lines.inspect(|line: &Value| assert!(is_whole(line), "{line}")).collect()
}

fn is_whole(line: &Value) -> bool {
    let known = ["timestamp", "level", "target", "message", "request_id", "fields"];
    let all = line.as_object().unwrap();
    known[..4].iter().all(|key| all[*key].is_string()) && all.keys().all(|key| known.contains(&key.as_str()))
}

fn ids(company: &Company, whose: &str, call: &str) -> BTreeSet<String> {
    let of_call = |line: &Value| line["fields"][whose].is_string() && line["fields"]["call"] == call;
    lines(company)
        .into_iter()
        .filter(of_call)
        .filter_map(|line| Some(line["request_id"].as_str()?.to_owned()))
        .collect()
}

fn asked<T>(message: T, id: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", id.parse().unwrap());
    request
}

#[test]
fn one_request_is_followed_through_the_logs_of_two_companies() {
    let mut forum = Forum::found(2);
    for company in &forum.companies {
        let mut settings = File::options().append(true).open(company.data.join("staydown.toml")).unwrap();
        settings.write_all(b"[log]\nformat = \"json\"\nfilter = \"info,staydown=debug\"\n").unwrap();
    }
    forum.join();
    for company in &mut forum.companies {
        company.stop();
        company.start(&["run"]);
    }
    forum.ready();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };

    let runtime = Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let mut acmes = client(acme);
    let signal = l::Signal { r#type: "sha256".into(), value: hash(1) };
    let statement = l::Statement { signal: Some(signal), stance: l::Stance::Submit.into(), ..Default::default() };
    let said = l::SubmitRequest { statements: vec![statement], ..Default::default() };
    let said = runtime.block_on(acmes.submit(asked(said, SUBMITTED))).unwrap();
    assert_eq!(said.metadata().get("x-request-id").unwrap(), SUBMITTED);
    let refused = runtime.block_on(acmes.submit(asked(l::SubmitRequest::default(), REFUSED))).unwrap_err();
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), REFUSED);
    let looked_up =
        l::LookupRequest { signals: vec![l::Signal { r#type: "sha256".into(), value: hash(2) }], ..Default::default() };
    runtime.block_on(acmes.lookup(asked(looked_up, "one-lookup"))).unwrap();

    let line = |company: &Company, id: &str, message: &str| {
        lines(company).into_iter().find(|line| line["request_id"] == id && line["message"] == message)
    };
    let durable = wait_for("what was said is logged", || line(acme, SUBMITTED, "said: durable and published"));
    let block = durable["fields"]["block"].clone();
    assert!(block.is_string() && durable["fields"]["records"] == 1, "{durable}");
    let refusal = wait_for("the refusal is logged", || line(acme, REFUSED, "refused"));
    assert!(refusal["fields"]["reason"] == "FIELD" && refusal["fields"]["call"] == "Submit", "{refusal}");
    wait_for("bolt's log has the block", || {
        let arrived = |line: &Value| line["fields"]["block"] == block;
        lines(bolt).iter().any(|l| arrived(l) && l["message"] == "a block of another member is durable").then_some(())
    });
    // What acme asks bolt has one name in both logs, and the other way round.
    for (one, other) in [(acme, bolt), (bolt, acme)] {
        wait_for("a call has one name on both sides", || {
            let (asks, answers) = (ids(one, "peer", "Hello"), ids(other, "member", "Hello"));
            (!asks.is_disjoint(&answers)).then_some(())
        });
    }
    let log = acme.log();
    assert!(log.contains("one-lookup") && !log.contains(&hash(2)), "what was looked up is in no line");
}
