//! What a company's own programs may ask, and how bad questions are answered: with the field, the reason, and nothing
//! half done.

use staydown::wire::local::{self as l, Signal, Stance, SubmitState, Verdict};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::forum::{Forum, Node, hash, statement};

/// A forum of one company needs nobody's answer.
async fn alone() -> (Forum, Node) {
    let mut forum = Forum::found(1);
    let mut node = forum.start(0).await;
    node.open().await;
    (forum, node)
}

fn submission(statements: Vec<l::Statement>) -> l::SubmitRequest {
    l::SubmitRequest { statements, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_submission_is_refused_with_its_field_and_nothing_is_done() {
    let (_forum, mut node) = alone().await;
    let good = || statement(Stance::Submit, "sha256", &hash(1));
    let with = |change: fn(&mut l::Statement)| {
        let mut statement = good();
        change(&mut statement);
        statement
    };
    let pdq_without_quality = l::Statement { quality: 0, ..statement(Stance::Submit, "pdq", &hash(5)) };
    for (bad, field) in [
        (with(|s| s.signal = None), "signal"),
        (with(|s| s.signal.as_mut().unwrap().value.truncate(63)), "signal"),
        (with(|s| s.signal.as_mut().unwrap().value = "zz".repeat(32)), "signal"),
        (with(|s| s.signal.as_mut().unwrap().r#type = "sha3".into()), "signal"),
        (with(|s| s.stance = 0), "stance"),
        (with(|s| s.stance = 9), "stance"),
        (with(|s| s.labels = vec!["no-such-label".into()]), "labels"),
        (with(|s| s.languages = vec!["not a tag".into()]), "languages"),
        (with(|s| s.severity = 5), "severity"),
        (with(|s| s.confidence = 101), "confidence"),
        (with(|s| s.expires_ms = 1), "expires_ms"),
        (with(|s| s.reason = "because".into()), "reason"),
        (with(|s| s.client_key = vec![1; 15].into()), "client_key"),
        (with(|s| s.incident_id = vec![1; 17].into()), "incident_id"),
        (pdq_without_quality, "signal"),
        (
            statement(Stance::Submit, "sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            "signal",
        ),
    ] {
        let refused = node.client.submit(submission(vec![good(), bad])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
        let details = refused.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert!(violations[0].field.ends_with(field), "{field}: {violations:?}");
    }
    for (request, code) in [
        (submission(Vec::new()), Code::InvalidArgument),
        (submission((0..512).map(|n| statement(Stance::Submit, "sha256", &hash(n))).collect()), Code::InvalidArgument),
    ] {
        assert_eq!(node.client.submit(request).await.unwrap_err().code(), code);
    }
    assert_eq!(node.status().await.records, 0, "nothing is half done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_question_is_refused_with_its_field() {
    let (_forum, mut node) = alone().await;
    let signal = |value: &str| Signal { r#type: "sha256".into(), value: value.into() };
    let lookup = |signals: Vec<Signal>, distance_max| l::LookupRequest { signals, distance_max, ..Default::default() };
    for request in [
        lookup(Vec::new(), None),
        lookup(vec![signal("12")], None),
        lookup(vec![signal(&hash(1)); 65], None),
        lookup(vec![signal(&hash(1))], Some(32)),
    ] {
        assert_eq!(node.client.lookup(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let list = |change: fn(&mut l::ListEntriesRequest)| {
        let mut request = l::ListEntriesRequest::default();
        change(&mut request);
        request
    };
    for request in [
        list(|r| r.page_size = 1_001),
        list(|r| r.r#type = "sha3".into()),
        list(|r| r.status = "HAPPY".into()),
        list(|r| r.label = "no-such-label".into()),
        list(|r| r.member = "nobody".into()),
        list(|r| r.page_token = "garbage".into()),
    ] {
        assert_eq!(node.client.list_entries(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let entry = l::GetEntryRequest { signal: Some(signal(&hash(1))), receipts: false, ..Default::default() };
    assert_eq!(node.client.get_entry(entry).await.unwrap_err().code(), Code::NotFound);
    let charter = l::ApplyCharterRequest { charter: vec![0xff].into(), ..Default::default() };
    assert_eq!(node.client.apply_charter(charter).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_client_key_again_is_answered_with_the_first_receipt() {
    let (_forum, mut node) = alone().await;
    let keyed =
        |n: u8| l::Statement { client_key: vec![n; 16].into(), ..statement(Stance::Submit, "sha256", &hash(n.into())) };
    let first = node.client.submit(submission(vec![keyed(1)])).await.unwrap().into_inner();
    let both = node.client.submit(submission(vec![keyed(2), keyed(1)])).await.unwrap().into_inner();
    assert_eq!(both.receipts[1], first.receipts[0]);
    assert_ne!(both.receipts[0], first.receipts[0]);
    let again = node.client.submit(submission(vec![keyed(1), keyed(2)])).await.unwrap().into_inner();
    assert_eq!(again.state(), SubmitState::Durable);
    assert_eq!(again.receipts, [both.receipts[1].clone(), both.receipts[0].clone()]);
    let twice = node.client.submit(submission(vec![keyed(3), keyed(3)])).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_leads_from_the_record_to_the_signed_header() {
    use staydown::replica::block::SignedHeader;
    use staydown::replica::merkle::{leaf_hash, root_by_path};
    let (_forum, mut node) = alone().await;
    let statements = (0..100).map(|n| statement(Stance::Submit, "sha256", &hash(n))).collect();
    let said = node.client.submit(submission(statements)).await.unwrap().into_inner();
    assert_eq!(said.receipts.len(), 100);
    for receipt in &said.receipts {
        let header = SignedHeader::from_parts(&receipt.header, &receipt.signature).unwrap();
        let path: Vec<[u8; 32]> = receipt.inclusion_path.iter().map(|h| h[..].try_into().unwrap()).collect();
        let size = u64::from(header.header().record_count);
        let root = root_by_path(leaf_hash(&receipt.record), u64::from(receipt.index), size, &path);
        assert_eq!(root, Some(header.header().records_root));
    }
    let signal = Signal { r#type: "sha256".into(), value: hash(7) };
    let entry = l::GetEntryRequest { signal: Some(signal), receipts: true, ..Default::default() };
    let entry = node.client.get_entry(entry).await.unwrap().into_inner();
    assert_eq!(entry.receipts, [said.receipts[7].clone()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_comes_page_by_page_without_gap_or_repetition() {
    let (_forum, mut node) = alone().await;
    let statements = (0..250).map(|n| statement(Stance::Submit, "sha256", &hash(n))).collect();
    node.client.submit(submission(statements)).await.unwrap();
    node.say(Stance::Submit, "md5", "0123456789abcdef0123456789abcdef").await;
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            l::ListEntriesRequest { page_size: 100, page_token, r#type: "sha256".into(), ..Default::default() };
        let page = node.client.list_entries(request).await.unwrap().into_inner();
        seen.extend(page.entries.into_iter().map(|e| e.signal.unwrap().value));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<_> = (0..250).map(hash).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_can_wait_for_peers_and_is_told_the_truth_when_they_do_not_come() {
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let _bolt = forum.start(1).await;
    acme.open().await;
    let wait = |n, peers, timeout| l::SubmitRequest {
        wait_peers: peers,
        wait_timeout_ms: timeout,
        ..submission(vec![statement(Stance::Submit, "sha256", &hash(n))])
    };
    let one = acme.client.submit(wait(1, 1, 20_000)).await.unwrap().into_inner();
    assert_eq!((one.peers_holding, one.wait_timed_out), (1, false));
    let two = acme.client.submit(wait(2, 2, 300)).await.unwrap().into_inner();
    assert!(two.wait_timed_out && two.peers_holding < 2);
    assert_eq!(acme.lookup("sha256", &hash(2)).await.verdict(), Verdict::Review, "durable all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_log_checks_a_running_node_and_gives_the_digest_it_shows() {
    let (_forum, mut node) = alone().await;
    for n in 0..5 {
        node.say(Stance::Submit, "sha256", &hash(n)).await;
    }
    let verified = node.client.verify_log(l::VerifyLogRequest {}).await.unwrap().into_inner();
    assert_eq!((verified.first_break.as_str(), verified.logs, verified.blocks), ("", 1, 5));
    assert_eq!(verified.view_digest, node.status().await.view_digest);
}
