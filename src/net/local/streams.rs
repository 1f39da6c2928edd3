//! `SubmitStream`, `LookupStream` and `LookupBulk`: many calls over one stream, answered in the order of the requests.
//!
//! Each request is carried out as the single call would be. Some are under way at once, so that one group commit covers
//! many submissions; no further request is read while as many wait, and HTTP/2's windows hand that on to the caller.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Keys, LocalService, refuse};
use crate::meters::Meters;
use crate::net::limits::{
    EXPORTS_MAX, LOOKUP_STREAMS_MAX, LOOKUPS_AHEAD, LOOKUPS_TOGETHER, SUBMISSIONS_AHEAD, SUBMIT_STREAMS_MAX,
    WATCHES_MAX,
};
use crate::net::status::REASON;
use crate::replica::record::ClientKey;
use crate::wire::local as l;

/// What a stream answers.
pub(super) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// What all streams of the local service share.
#[derive(Clone)]
pub(super) struct Streams {
    submits: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    stop: Option<watch::Receiver<bool>>,
    /// What submissions that are under way say, alone or in streams.
    pub(super) keys: KeysUnderWay,
}

impl Default for Streams {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            submits: places(SUBMIT_STREAMS_MAX),
            lookups: places(LOOKUP_STREAMS_MAX),
            watches: places(WATCHES_MAX),
            exports: places(EXPORTS_MAX),
            stop: None,
            keys: KeysUnderWay::default(),
        }
    }
}

impl Streams {
    pub(super) fn with_stop(self, stop: watch::Receiver<bool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Whether the node was told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| *stop.borrow())
    }

    /// Resolves when the node is told to stop.
    pub(super) async fn stopped(self) {
        match self.stop {
            Some(mut stop) => drop(stop.wait_for(|stop| *stop).await), // a sender that is gone means stop, too
            None => std::future::pending().await,
        }
    }

    /// A place for one more watch.
    ///
    /// # Errors
    /// All are taken.
    pub(super) fn watch(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.watches, WATCHES_MAX, "watches")
    }

    pub(super) fn export(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.exports, EXPORTS_MAX, "exports")
    }
}

fn place(places: &Arc<Semaphore>, max: usize, what: &str) -> Result<OwnedSemaphorePermit, Status> {
    let all = || format!("{max} {what} are open on this node, more are not possible: end one, or wait");
    Arc::clone(places).try_acquire_owned().map_err(|_taken| refuse(Code::ResourceExhausted, "STREAMS", all()))
}

/// What a stream ends with when the node is told to stop.
pub(super) fn draining() -> Status {
    refuse(Code::Unavailable, "DRAINING", "this node stops: go on when it runs again")
}

/// Carries out `requests` in their order. What was put on the engine's queue is carried out even if the caller goes.
///
/// # Errors
/// There are too many such streams.
pub(super) fn submit(
    service: &LocalService,
    requests: impl Stream<Item = Result<l::SubmitRequest, Status>> + Send + Unpin + 'static,
) -> Result<Answers<l::SubmitResponse>, Status> {
    let permit = place(&service.streams.submits, SUBMIT_STREAMS_MAX, "streams of submissions")?;
    let service = Arc::new(service.clone());
    let requests = numbered(requests, service.streams.clone());
    let finisher = Arc::clone(&service);
    // One after the other onto the queue, and then together until they are answered.
    let begun = requests.then(move |(sequence, request)| {
        let service = Arc::clone(&service);
        async move {
            let begun = match request {
                Ok(request) => Ok(Box::pin(service.begin(request)).await),
                Err(broken) => Err(broken),
            };
            (sequence, begun)
        }
    });
    let answers = begun.map(move |(sequence, begun)| {
        let service = Arc::clone(&finisher);
        async move {
            let answer = match begun? {
                Ok(begun) => Box::pin(service.finish(begun)).await,
                Err(refused) => Err(refused),
            };
            let meters = service.shared().meters();
            let refused =
                |status: Status| l::SubmitResponse { refusal: Some(refusal(meters, &status)), ..Default::default() };
            Ok(l::SubmitResponse { sequence, ..answer.unwrap_or_else(refused) })
        }
    });
    Ok(holding(permit, answers.buffered(SUBMISSIONS_AHEAD)))
}

/// Answers `requests` in their order: those that wait are searched for together. Nothing of what is looked up is kept.
///
/// # Errors
/// There are too many such streams.
pub(super) fn lookup(
    service: &LocalService,
    requests: impl Stream<Item = Result<l::LookupRequest, Status>> + Send + Unpin + 'static,
) -> Result<Answers<l::LookupResponse>, Status> {
    let permit = place(&service.streams.lookups, LOOKUP_STREAMS_MAX, "streams of lookups")?;
    let service = Arc::new(service.clone());
    let together = numbered(requests, service.streams.clone()).ready_chunks(LOOKUPS_TOGETHER);
    let answers = together.map(move |requests| {
        let service = Arc::clone(&service);
        async move {
            // What breaks a stream is the last in it.
            let broken = |(_, request): &(u64, Result<_, Status>)| request.as_ref().err().cloned();
            let broken = requests.last().and_then(broken);
            let (numbers, requests): (Vec<_>, Vec<_>) =
                requests.into_iter().filter_map(|(sequence, request)| Some((sequence, request.ok()?))).unzip();
            let answers = Box::pin(service.look_up_together(requests)).await;
            let meters = Arc::clone(service.shared().meters());
            let refused = move |status: Status| l::LookupResponse {
                refusal: Some(refusal(&meters, &status)),
                ..Default::default()
            };
            let answers = numbers
                .into_iter()
                .zip(answers)
                .map(move |(sequence, answer)| Ok(l::LookupResponse { sequence, ..answer.unwrap_or_else(&refused) }));
            stream::iter(answers.chain(broken.map(Err)).collect::<Vec<_>>())
        }
    });
    Ok(holding(permit, answers.buffered(LOOKUPS_AHEAD).flatten()))
}

/// Answers `requests` of many hashes each, in their order.
///
/// # Errors
/// There are too many streams of lookups.
pub(super) fn lookup_bulk(
    service: &LocalService,
    requests: impl Stream<Item = Result<l::LookupBulkRequest, Status>> + Send + Unpin + 'static,
) -> Result<Answers<l::LookupBulkResponse>, Status> {
    let permit = place(&service.streams.lookups, LOOKUP_STREAMS_MAX, "streams of lookups")?;
    let service = Arc::new(service.clone());
    let answers = numbered(requests, service.streams.clone()).map(move |(sequence, request)| {
        let service = Arc::clone(&service);
        async move {
            let answer = Box::pin(service.look_up_bulk(request?)).await;
            let meters = service.shared().meters();
            let refused = |status: Status| l::LookupBulkResponse {
                refusal: Some(refusal(meters, &status)),
                ..Default::default()
            };
            Ok(l::LookupBulkResponse { sequence, ..answer.unwrap_or_else(refused) })
        }
    });
    Ok(holding(permit, answers.buffered(LOOKUPS_AHEAD)))
}

/// The requests with their numbers from 1 on. A broken one is the last, and so is the word that the node stops.
fn numbered<T: Send + 'static, R: Stream<Item = Result<T, Status>> + Send + Unpin + 'static>(
    requests: R,
    streams: Streams,
) -> BoxStream<'static, (u64, Result<T, Status>)> {
    let stopped: BoxFuture<'static, ()> = Box::pin(streams.stopped());
    let next = |state: Option<(u64, R, BoxFuture<'static, ()>)>| async move {
        let (sequence, mut requests, mut stopped) = state?;
        let request = tokio::select! {
            biased;
            () = &mut stopped => Err(draining()),
            request = requests.next() => request?,
        };
        let rest = request.is_ok().then(|| (sequence + 1, requests, stopped));
        Some(((sequence, request), rest))
    };
    stream::unfold(Some((1, requests, stopped)), next).boxed()
}

/// Keeps what a stream needs, such as its place, until the stream is gone.
pub(super) fn holding<K: Send + 'static, T: Send + 'static>(
    kept: K,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answers<T> {
    let hold = move |_: &Result<T, Status>| {
        let _kept = &kept;
    };
    answers.inspect(hold).boxed()
}

/// A refusal as it stands in an answer, and counted.
fn refusal(meters: &Meters, status: &Status) -> l::Refusal {
    let reason = status.metadata().get(REASON).and_then(|reason| reason.to_str().ok()).unwrap_or_default();
    meters.refused(reason);
    let details = status.get_error_details();
    let field = details.bad_request().and_then(|bad| bad.field_violations.first()).map(|v| v.field.clone());
    let fix = details.error_info().and_then(|told| told.metadata.get("fix").cloned());
    l::Refusal {
        code: u32::try_from(status.code() as i32).unwrap_or_default(),
        reason: reason.to_owned(),
        message: status.message().to_owned(),
        field: field.unwrap_or_default(),
        fix: fix.unwrap_or_default(),
    }
}

/// Client keys of submissions that are under way: a second one under the same key waits, and is then answered with the
/// receipts of the first. The replica alone cannot tell: what stands on the engine's queue it has not seen.
#[derive(Clone, Default)]
pub(super) struct KeysUnderWay(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    keys: Mutex<BTreeSet<ClientKey>>,
    freed: Notify,
}

impl KeysUnderWay {
    /// Waits until none of `keys` is under way, and takes them all.
    pub(super) async fn take(&self, keys: &Keys) -> KeysTaken {
        let wanted: BTreeSet<_> = keys.iter().copied().flatten().collect();
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut taken = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
                if taken.is_disjoint(&wanted) {
                    taken.extend(&wanted);
                    return KeysTaken { keys: wanted, of: self.clone() };
                }
            }
            freed.await;
        }
    }
}

/// Frees its keys when it is dropped.
pub(super) struct KeysTaken {
    keys: BTreeSet<ClientKey>,
    of: KeysUnderWay,
}

impl Drop for KeysTaken {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.of.0.keys.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| !self.keys.contains(key));
            self.of.0.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use tonic::Request;

    use super::*;
    use crate::engine::{self, Handle};
    use crate::replica::testing::{TestForum, settings};
    use crate::wire::local_service::forum_server::Forum as _;

    /// A node of a forum of one, without a network.
    struct Node {
        service: LocalService,
        engine: Handle,
        thread: thread::JoinHandle<()>,
        stop: watch::Sender<bool>,
        _folder: tempfile::TempDir,
    }

    impl Node {
        fn start() -> Self {
            let forum = TestForum::of_full(1);
            let folder = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Handle::current();
            let (engine, _, thread) =
                engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
            let (stop, stopped) = watch::channel(false);
            let service = LocalService::new(engine.clone(), settings(1), String::new(), BTreeMap::new());
            Self { service: service.with_stop(stopped), engine, thread, stop, _folder: folder }
        }

        fn records(&self) -> u64 {
            self.engine.shared().replica().view().records()
        }

        async fn end(self) {
            drop(self.service);
            self.engine.stop().await;
            self.thread.join().unwrap();
        }
    }

    fn signal(n: u64) -> l::Signal {
        let digest = crate::replica::ids::sha256(&[b"streams", &n.to_be_bytes()]);
        l::Signal { r#type: "sha256".into(), value: data_encoding::HEXLOWER.encode(&digest) }
    }

    fn says(n: u64, stance: l::Stance, key: u8) -> l::SubmitRequest {
        let client_key = if key > 0 { vec![key; 16].into() } else { Default::default() };
        let statement =
            l::Statement { signal: Some(signal(n)), stance: stance.into(), client_key, ..Default::default() };
        l::SubmitRequest { statements: vec![statement], ..Default::default() }
    }

    fn requests<T: Send + 'static>(
        requests: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    ) -> impl Stream<Item = Result<T, Status>> + Send + Unpin {
        stream::iter(requests.into_iter().map(Ok))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn submissions_are_carried_out_and_answered_in_order_and_a_refused_one_ends_nothing() {
        let node = Node::start();
        let mut broken = says(7, l::Stance::Submit, 0);
        broken.statements[0].signal = None;
        let said = (0..300).map(|n| match n {
            17 => broken.clone(),
            // In order: what is said of one hash last is what stands.
            n if n % 3 == 1 => says(n - 1, l::Stance::Neutral, 0),
            n => says(n, l::Stance::Submit, 0),
        });
        let said: Vec<_> = said.collect();
        let answers: Vec<_> = submit(&node.service, requests(said)).unwrap().collect().await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().map(|a| a.sequence).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
        for answer in &answers {
            if answer.sequence == 18 {
                let refusal = answer.refusal.clone().unwrap();
                assert_eq!((refusal.code, &refusal.reason[..]), (Code::InvalidArgument as u32, "FIELD"));
                assert_eq!(refusal.field, "statements[0].signal");
                assert!(refusal.message.contains("is missing") && answer.receipts.is_empty(), "{refusal:?}");
            } else {
                assert_eq!((answer.state(), answer.receipts.len()), (l::SubmitState::Durable, 1));
                assert_eq!(answer.refusal, None);
            }
        }
        let places: Vec<_> = answers.iter().flat_map(|a| &a.receipts).map(|r| (r.seq, r.index)).collect();
        assert!(places.is_sorted(), "they stand in the log in the order of the requests");
        let blocks = places.last().unwrap().0;
        assert!(blocks < 150, "{blocks} blocks for 299 submissions: several share one");
        let request = l::ListEntriesRequest { page_size: 1_000, ..Default::default() };
        let listed = node.service.list_entries(Request::new(request)).await.unwrap().into_inner().entries.len();
        assert_eq!(listed, 99, "withdrawn is withdrawn");
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_key_is_said_once_wherever_it_comes_from() {
        let node = Node::start();
        let same = || requests((0..40_u8).map(|n| says(1, l::Stance::Submit, n % 2 + 1)));
        let streams = (0..3).map(|_| submit(&node.service, same()).unwrap().collect::<Vec<_>>());
        let alone = node.service.submit(Request::new(says(1, l::Stance::Submit, 1)));
        let (answers, alone) = tokio::join!(futures_util::future::join_all(streams), alone);
        let alone = alone.unwrap().into_inner().receipts;
        for answers in answers {
            let receipts: Vec<_> = answers.into_iter().map(|a| a.unwrap().receipts).collect();
            assert_eq!(receipts.len(), 40);
            for (n, receipt) in receipts.iter().enumerate() {
                assert_eq!(receipt.len(), 1);
                assert_eq!(n % 2 == 0, *receipt == alone, "the same key has the same receipt, for ever");
            }
        }
        assert_eq!(node.records(), 2 + 1, "two statements, and the opening of the log");
        assert!(node.service.streams.keys.0.keys.lock().unwrap().is_empty(), "nothing stays under way");
        node.end().await;
    }

    /// Whoever goes in the middle has what was acknowledged, and the rest is there or not; under the same keys it can be
    /// sent again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_goes_loses_nothing_that_was_acknowledged() {
        let node = Node::start();
        let said = |n: u8| says(u64::from(n), l::Stance::Submit, n + 1);
        let mut answers = submit(&node.service, requests((0..100).map(said))).unwrap();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 20 {
            acknowledged.push(answers.next().await.unwrap().unwrap().receipts);
        }
        drop(answers);
        let again: Vec<_> = submit(&node.service, requests((0..100).map(said))).unwrap().collect().await;
        let again: Vec<_> = again.into_iter().map(|a| a.unwrap().receipts).collect();
        assert_eq!(again[..20], acknowledged);
        assert_eq!(node.records(), 100 + 1, "each once");
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_is_read_than_is_under_way() {
        let node = Node::start();
        let endless = stream::repeat_with(|| Ok(says(1, l::Stance::Submit, 0)));
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let endless = endless.inspect(move |_: &Result<_, Status>| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut answers = submit(&node.service, Box::pin(endless)).unwrap();
        for _ in 0..10 {
            answers.next().await.unwrap().unwrap();
        }
        let read = read.load(Ordering::SeqCst);
        assert!((10..=10 + SUBMISSIONS_AHEAD + 1).contains(&read), "{read} requests were read for 10 answers");
        drop(answers);
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lookups_are_answered_in_order_and_a_malformed_one_with_its_own_error() {
        let node = Node::start();
        node.service.submit(Request::new(says(3, l::Stance::Submit, 0))).await.unwrap();
        let asked = |n: u64| match n {
            5 => l::LookupRequest::default(),
            n => l::LookupRequest { signals: vec![signal(n)], ..Default::default() },
        };
        let answers: Vec<_> = lookup(&node.service, requests((0..200).map(asked))).unwrap().collect().await;
        assert_eq!(answers.len(), 200);
        for (n, answer) in (1..).zip(answers) {
            let answer = answer.unwrap();
            assert_eq!(answer.sequence, n);
            assert_eq!(answer.matches.len(), usize::from(n == 4), "request {n}");
            assert_eq!(answer.refusal.as_ref().map(|r| &r.field[..]), (n == 6).then_some("signals"));
        }
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_is_looked_up_by_its_hashes_and_a_mirrored_picture_in_all_positions() {
        use crate::hashing::{drawn, pdq};
        let node = Node::start();
        let picture = drawn::poster(5, 320, 240);
        let hash = pdq(320, 240, picture.as_raw());
        let mut listed = says(2, l::Stance::Submit, 0);
        let value = data_encoding::HEXLOWER.encode(&hash.hash);
        listed.statements[0].signal = Some(l::Signal { r#type: "pdq".into(), value });
        listed.statements[0].quality = hash.quality.into();
        node.service.submit(Request::new(listed)).await.unwrap();
        node.service.submit(Request::new(says(3, l::Stance::Submit, 0))).await.unwrap();

        let png = |picture| bytes::Bytes::from(drawn::png_bytes(&picture).unwrap());
        let mirrored = png(image::imageops::flip_horizontal(&picture));
        let asked = |files: Vec<bytes::Bytes>, dihedral| l::LookupRequest {
            signals: vec![signal(3)],
            files,
            dihedral,
            ..Default::default()
        };
        let text = bytes::Bytes::from_static(b"no picture");
        let broken = png(picture.clone()).slice(..100);
        let many = vec![text.clone(); 9];
        let asked = [
            asked(vec![text.clone(), png(picture)], false),
            asked(vec![mirrored.clone()], false),
            asked(vec![mirrored], true),
            asked(vec![text, broken], true),
            asked(many, false),
        ];
        for together in [false, true] {
            let answers: Vec<_> = if together {
                lookup(&node.service, requests(asked.clone())).unwrap().map(Result::unwrap).collect().await
            } else {
                let alone = asked.clone().map(|asked| lookup(&node.service, requests([asked])).unwrap());
                stream::iter(alone).flatten().map(Result::unwrap).collect().await
            };
            let found = answers
                .iter()
                .map(|answer| answer.matches.iter().map(|m| (m.file_index, m.distance == 0)).collect::<Vec<_>>());
            let (by_signal, by_file) = ((None, true), |n| (Some(n), true));
            let found: Vec<_> = found.collect();
            assert_eq!(found[..2], [vec![by_signal, by_file(1)], vec![by_signal]]);
            assert!(found[2].len() == 2 && found[2][1].0 == Some(0), "{found:?}");
            let signals = |n: usize| answers[n].files.iter().map(|file| file.signals.len()).collect::<Vec<_>>();
            assert_eq!((signals(0), signals(1)), (vec![4, 5], vec![5]), "digests, and of a picture its hash");
            assert!(signals(2)[0] > 8, "{:?}", signals(2));
            let fields: Vec<_> = answers[3..].iter().map(|a| a.refusal.clone().unwrap().field).collect();
            assert_eq!(fields, ["files[1]", "files"]);
        }
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hashes_in_bulk_are_answered_as_each_alone_and_counted_but_for_the_flood_breaker() {
        let node = Node::start();
        for n in [3, 700, 9_999] {
            node.service.submit(Request::new(says(n, l::Stance::Submit, 0))).await.unwrap();
        }
        let digests = |numbers: std::ops::Range<u64>| {
            let all = numbers.flat_map(|n| data_encoding::HEXLOWER.decode(signal(n).value.as_bytes()).unwrap());
            bytes::Bytes::from(all.collect::<Vec<_>>())
        };
        let of = |kind: &str, digests| l::LookupBulkRequest { r#type: kind.into(), digests, ..Default::default() };
        let asked = [
            of("sha256", digests(0..10_000)),
            of("sha256", digests(0..10_001)),
            of("account", digests(0..1)),
            of("sha256", digests(0..1).slice(..31)),
            of("sha256", bytes::Bytes::new()),
            of("pdq", digests(0..10_000)),
            l::LookupBulkRequest { distance_max: Some(32), ..of("pdq", digests(0..1)) },
            of("sha256", digests(3..4)),
        ];
        let answers: Vec<_> = lookup_bulk(&node.service, requests(asked)).unwrap().collect().await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let fields = answers.iter().map(|a| a.refusal.as_ref().map(|r| r.field.clone()).unwrap_or_default());
        assert_eq!(fields.collect::<Vec<_>>(), ["", "digests", "type", "digests", "digests", "", "distance_max", ""]);
        assert_eq!(answers.iter().map(|a| a.sequence).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        let positions = |answer: &l::LookupBulkResponse| answer.hits.iter().map(|h| h.position).collect::<Vec<_>>();
        assert_eq!((positions(&answers[0]), positions(&answers[5])), (vec![3, 700, 9_999], vec![]));
        assert_eq!(answers.iter().map(|a| a.looked_up).sum::<u32>(), 20_001);

        let alone = l::LookupRequest { signals: vec![signal(700)], ..Default::default() };
        let alone = node.service.lookup(Request::new(alone)).await.unwrap().into_inner();
        let hit = &answers[0].hits[1];
        assert_eq!((hit.verdict(), &answers[0].rules[hit.rule as usize]), (alone.verdict(), &alone.rule));
        assert_eq!((hit.matches, &hit.nearest[0].digest), (1, &digests(700..701)));
        assert_eq!(hit.nearest[0].status, alone.matches[0].entry.clone().unwrap().status);

        let counted = node.service.counters.part(crate::clock::now());
        assert_eq!((counted.lookups, counted.lookups_with_a_match), (20_002, 5), "each hash is a lookup");
        let policy = node.service.get_policy(Request::new(l::GetPolicyRequest {})).await.unwrap().into_inner();
        let decided: u64 = policy.counts.iter().map(|c| c.allow + c.review + c.block).sum();
        assert_eq!(decided, 20_002);

        // Whoever goes through an archive finds one entry as often as the archive has it.
        let many = of("sha256", digests(3..4).repeat(5_000).into());
        let answers: Vec<_> = lookup_bulk(&node.service, requests([many])).unwrap().collect().await;
        assert_eq!(answers[0].as_ref().unwrap().hits.len(), 5_000);
        let policy = node.service.get_policy(Request::new(l::GetPolicyRequest {})).await.unwrap().into_inner();
        assert_eq!(policy.breaker.unwrap().tripped, 0);
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn streams_are_few_and_end_when_the_node_stops() {
        let node = Node::start();
        let never = || Box::pin(stream::pending::<Result<l::LookupRequest, Status>>());
        let mut open: Vec<_> = (0..LOOKUP_STREAMS_MAX).map(|_| lookup(&node.service, never()).unwrap()).collect();
        let refused = lookup(&node.service, never()).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get(REASON).unwrap(), "STREAMS");
        open.pop();
        open.push(lookup(&node.service, never()).unwrap());

        let never = || Box::pin(stream::pending::<Result<l::SubmitRequest, Status>>());
        let submits: Vec<_> = (0..SUBMIT_STREAMS_MAX).map(|_| submit(&node.service, never()).unwrap()).collect();
        assert_eq!(submit(&node.service, never()).err().unwrap().code(), Code::ResourceExhausted);
        drop(submits);

        // What was sent before is still answered.
        let sent = stream::iter([Ok(says(1, l::Stance::Submit, 0))]).chain(stream::pending());
        let mut answers = submit(&node.service, Box::pin(sent)).unwrap();
        assert!(answers.next().await.unwrap().is_ok());
        node.stop.send_replace(true);
        let told = answers.next().await.unwrap().unwrap_err();
        assert_eq!(
            (told.code(), told.metadata().get(REASON).unwrap().to_str().unwrap()),
            (Code::Unavailable, "DRAINING")
        );
        assert!(answers.next().await.is_none());
        for mut answers in open {
            assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        }
        drop(answers);
        node.end().await;
    }
}
