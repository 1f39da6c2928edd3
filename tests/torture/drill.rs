//! What the drills with copied data directories share: callers that remember what they were told, and the check that
//! nobody ever signed one place twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use staydown::clock;
use staydown::engine::JOURNAL_FILE;
use staydown::replica::block::Frame;
use staydown::replica::ids::{BlockId, HeaderHash};
use staydown::store::journal::salvage;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::forum::{self, DEADLINE, Forum, Process};
use crate::kill::{all_match, statement, value};

/// Callers of one node that submit at once, each its next statement as soon as the one before is answered.
const CALLERS: usize = 2;
/// What a caller does between two statements: the drills copy a busy node, not one that has no moment left.
const PAUSE: Duration = Duration::from_millis(2);

/// What the callers of all nodes of a forum were told.
#[derive(Default)]
pub(crate) struct Told {
    next: AtomicU64,
    durable: Mutex<Vec<String>>,
    pub(crate) queued: AtomicU64,
}

impl Told {
    /// Statements whose numbers begin at `first`: no other callers of the forum may say them.
    pub(crate) fn from(first: u64) -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(first), ..Self::default() })
    }

    /// What others were told counts as well.
    pub(crate) fn add(&self, others: &Self) {
        self.durable.lock().unwrap().extend(others.durable());
        self.queued.fetch_add(others.queued.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub(crate) fn durable(&self) -> Vec<String> {
        self.durable.lock().unwrap().clone()
    }

    /// What was said after the first `count`; it does not count any more.
    pub(crate) fn forget_after(&self, count: usize) -> Vec<String> {
        self.durable.lock().unwrap().split_off(count)
    }
}

/// Callers that go on until they are stopped or their node is gone.
pub(crate) struct Load {
    callers: JoinSet<()>,
    over: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn on(node: &Process, told: &Arc<Told>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(submit(node.client.clone(), Arc::clone(told), Arc::clone(&over)));
        }
        Self { callers, over }
    }

    /// Ends when every caller has its last answer.
    pub(crate) async fn stop(mut self) {
        self.over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
    }
}

async fn submit(mut client: ForumClient<Channel>, told: Arc<Told>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::SeqCst) {
        let value = value(told.next.fetch_add(1, Ordering::SeqCst));
        let request = l::SubmitRequest { statements: vec![statement(&value)], ..Default::default() };
        let Ok(answer) = client.submit(request).await else { return };
        if answer.into_inner().state() == l::SubmitState::Durable {
            told.durable.lock().unwrap().push(value);
        } else {
            told.queued.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until `count` more statements were acknowledged as durable.
pub(crate) async fn more_durable(told: &Told, count: usize) {
    let (begun, before) = (clock::instant(), told.durable().len());
    while told.durable().len() < before + count {
        assert!(begun.elapsed() < DEADLINE, "{} of {count} statements are durable", told.durable().len() - before);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every block that one member ever signed, from all its journals, read when nobody writes them.
#[derive(Default)]
pub(crate) struct Signed(BTreeMap<BlockId, HeaderHash>);

impl Signed {
    /// Adds the journal in `data`; a block that was signed before must be the same one. Its node must not have panicked.
    pub(crate) fn add(&mut self, data: &Path, when: &str) {
        assert_eq!(forum::panics_in(data), Vec::<String>::new(), "{when}");
        let mut replay = salvage(&data.join(JOURNAL_FILE)).unwrap();
        replay
            .for_each(|_, bytes| {
                let frame = Frame::decode(Bytes::copy_from_slice(bytes)).unwrap();
                let (id, hash) = (frame.header.header().id, frame.header.hash());
                let known = *self.0.entry(id).or_insert(hash);
                assert_eq!(known, hash, "{when}: block {id} was signed twice");
            })
            .unwrap();
    }

    pub(crate) fn blocks(&self) -> usize {
        self.0.len()
    }
}

/// At the end everything durable is everywhere, everybody holds the same, and nobody knows of a fork.
pub(crate) async fn all_is_well(forum: &Forum, nodes: &mut [Process], told: &Told) {
    let said = told.durable();
    let (first, others) = nodes.split_first_mut().unwrap();
    for other in others.iter_mut() {
        forum::agreed(first, other).await;
    }
    for node in nodes {
        all_match(node, &said).await;
        let status = node.status().await;
        let reasons = status.health_reasons.join("; ");
        assert!(status.proofs == 0 && status.heads.iter().all(|head| head.forked_at == 0), "a fork: {reasons}");
        assert!(!reasons.contains("convicted") && !reasons.contains("fork"), "{reasons}");
        let verified = node.client.verify_log(l::VerifyLogRequest {}).await.unwrap().into_inner();
        assert_eq!(verified.first_break, "", "{}", node.name);
    }
    assert_eq!(forum::panics(forum), Vec::<String>::new());
}
