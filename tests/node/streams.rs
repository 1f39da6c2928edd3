//! Many calls over one stream, as a company's own programs make them: over a real socket, of a real node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use staydown::wire::local as l;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::forum::{DEADLINE, Forum, hash, statement};

fn submission(n: u64) -> l::SubmitRequest {
    let key = hash(n).as_bytes()[..16].to_vec().into();
    let statement = l::Statement { client_key: key, ..statement(l::Stance::Submit, "sha256", &hash(n)) };
    l::SubmitRequest { statements: vec![statement], ..Default::default() }
}

fn question(n: u64) -> l::LookupRequest {
    let signal = l::Signal { r#type: "sha256".into(), value: hash(n) };
    l::LookupRequest { signals: vec![signal], ..Default::default() }
}

/// Whoever watches another company's node learns of everything that is submitted here, and has its list in the end. A
/// stream that breaks off is sent again, and nothing is said twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_streams_in_at_one_company_streams_out_at_another() {
    const COUNT: u64 = 600;
    let mut forum = Forum::found(2);
    let [mut acme, mut bolt] = <[_; 2]>::try_from(forum.start_all().await).ok().unwrap();
    acme.open().await;
    let request = l::WatchRequest { list: true, ..Default::default() };
    let mut events = bolt.client.watch(request).await.unwrap().into_inner();

    let requests = tokio_stream::iter((0..COUNT).map(submission));
    let mut answers = acme.client.submit_stream(requests).await.unwrap().into_inner();
    let mut first = Vec::new();
    while first.len() < 100 {
        first.push(answers.message().await.unwrap().unwrap());
    }
    drop(answers);
    let requests = (0..COUNT).map(submission).chain([l::SubmitRequest::default()]);
    let mut answers = acme.client.submit_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut second = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        second.push(answer);
    }
    assert_eq!(second[..100], first, "the same keys have the same receipts");
    let refused = second.pop().unwrap();
    assert_eq!((refused.sequence, refused.refusal.unwrap().code), (COUNT + 1, Code::InvalidArgument as u32));
    assert!(second.iter().all(|answer| answer.state() == l::SubmitState::Durable));

    let mut list = BTreeMap::new();
    while list.len() < usize::try_from(COUNT).unwrap() {
        let event = tokio::time::timeout(DEADLINE, events.message()).await.unwrap().unwrap().unwrap();
        if let Some(entry) = event.entry {
            assert!(list.insert(entry.subject_id.clone(), entry).is_none(), "each is told once");
        }
    }
    acme.agrees_with(&mut bolt).await;
    let request = l::ListEntriesRequest { page_size: 1_000, ..Default::default() };
    let shown = bolt.client.list_entries(request).await.unwrap().into_inner().entries;
    assert!(list == by_subject(shown), "the list of the events is the node's");

    bolt.stop().await;
    let ended = loop {
        match events.message().await {
            Ok(Some(_sign_of_life)) => {}
            Ok(None) => panic!("the end has a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    acme.stop().await;
}

fn by_subject(entries: impl IntoIterator<Item = l::Entry>) -> BTreeMap<bytes::Bytes, l::Entry> {
    entries.into_iter().map(|entry| (entry.subject_id.clone(), entry)).collect()
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_up_over_a_stream_is_answered_in_order_and_stored_nowhere() {
    const COUNT: u64 = 2_000;
    let mut forum = Forum::found(1);
    let mut node = forum.start(0).await;
    node.open().await;
    node.say(l::Stance::Submit, "sha256", &hash(7)).await;
    let requests = tokio_stream::iter((1..=COUNT).map(question));
    let answers = node.client.lookup_stream(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert!(answers.iter().map(|answer| answer.sequence).eq(1..=COUNT));
    let found: Vec<_> = answers.iter().filter(|a| !a.matches.is_empty()).map(|a| a.sequence).collect();
    assert_eq!(found, [7]);
    node.stop().await;
    let mut files = Vec::new();
    files_below(&forum.companies[0].data, &mut files);
    assert!(files.iter().any(|path| path.ends_with("journal")), "{files:?}");
    let digests: Vec<_> =
        (8..=COUNT).step_by(97).map(|n| data_encoding::HEXLOWER.decode(hash(n).as_bytes()).unwrap()).collect();
    for path in files {
        let bytes = std::fs::read(&path).unwrap_or_default();
        for digest in &digests {
            assert!(
                !bytes.windows(digest.len()).any(|window| window == digest),
                "looked up, and in {}",
                path.display()
            );
        }
    }
}
