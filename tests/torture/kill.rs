//! SIGKILL at random moments of a loaded node: nothing acknowledged is lost, no fork of its own, no log number spent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use staydown::clock;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::forum::{self, Chance, DEADLINE, Forum, Process, count};

const KILLS: usize = 20;
/// Callers that submit at once, each its next submission as soon as the one before is answered.
const CALLERS: u64 = 4;
/// Most statements of one submission.
const STATEMENTS_MAX: u64 = 8;
/// Signals that one lookup takes.
const SIGNALS_MAX: usize = 64;
/// The victim is killed at most so long after it was started: some die before they serve, most under load.
const LIFE_MAX_MS: u64 = 800;

const VICTIM: usize = 0;
const WITNESS: usize = 1;

#[test]
fn a_node_that_is_killed_at_any_moment_keeps_its_word() {
    crate::runtime().block_on(run(count("STAYDOWN_KILLS", KILLS)));
}

/// What the callers were told.
#[derive(Default)]
struct Told {
    next: AtomicU64,
    acknowledged: Mutex<Vec<String>>,
    queued: AtomicU64,
}

async fn run(kills: usize) {
    let forum = Forum::found(2, crate::folder());
    let mut witness = forum.start(WITNESS).await;
    let mut chance = Chance(crate::seed());
    let told = Arc::new(Told::default());
    let mut checked = 0;
    let mut at_the_start = 0;
    for round in 0..kills {
        let mut victim = forum.spawn(VICTIM);
        let life = Duration::from_millis(chance.below(LIFE_MAX_MS));
        let mut served = false;
        let load = async {
            victim.serves().await.unwrap();
            served = true;
            // Every other time the load begins while submissions are still queued in the outbox.
            if round % 2 == 0 {
                let earlier = told.acknowledged.lock().unwrap()[checked..].to_vec();
                victim.open().await;
                all_match(&mut victim, &earlier).await;
                checked += earlier.len();
            }
            load(&victim.client, &told).await;
        };
        tokio::time::timeout(life, load).await.unwrap_err();
        at_the_start += usize::from(!served);
        victim.kill();
    }
    let mut victim = forum.start(VICTIM).await;
    victim.open().await;
    let said = told.acknowledged.lock().unwrap().clone();
    for node in [&mut victim, &mut witness] {
        all_match(node, &said).await;
    }
    let (ours, theirs) = forum::agreed(&mut victim, &mut witness).await;
    for status in [&ours, &theirs] {
        assert_eq!(status.proofs, 0, "a fork: {:?}", status.health_reasons);
        let numbers: Vec<_> = status.heads.iter().filter(|h| h.member == "acme").map(|h| h.log_no).collect();
        assert_eq!(numbers, [0], "a log number was spent: {:?}", status.health_reasons);
    }
    assert_eq!(ours.outbox, 0, "everything queued is signed");
    println!(
        "{kills} kills: {} acknowledged statements, 0 lost; {} submissions had been queued; {} blocks in one log, 0 forks; {at_the_start} kills hit the start",
        said.len(),
        told.queued.load(Ordering::SeqCst),
        ours.blocks,
    );
    assert_eq!(forum::panics(&forum), Vec::<String>::new());
    assert!(said.len() > kills, "the node was hardly loaded");
}

/// Submits until nobody answers any more.
async fn load(client: &ForumClient<Channel>, told: &Arc<Told>) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(submit_for_ever(client.clone(), Arc::clone(told)));
    }
    while callers.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn submit_for_ever(mut client: ForumClient<Channel>, told: Arc<Told>) {
    loop {
        let first = told.next.fetch_add(STATEMENTS_MAX, Ordering::SeqCst);
        let values: Vec<_> = (first..=first + first / STATEMENTS_MAX % STATEMENTS_MAX).map(value).collect();
        let statements = values.iter().map(|value| statement(value)).collect();
        let request = l::SubmitRequest { statements, ..Default::default() };
        let Ok(answer) = client.submit(request).await else { return };
        told.queued.fetch_add(u64::from(answer.into_inner().state() == l::SubmitState::Queued), Ordering::SeqCst);
        told.acknowledged.lock().unwrap().extend(values);
    }
}

pub(crate) fn value(number: u64) -> String {
    data_encoding::HEXLOWER.encode(&forum::scattered::<32>(number))
}

fn signal(value: &str) -> l::Signal {
    l::Signal { r#type: "sha256".into(), value: value.into() }
}

pub(crate) fn statement(value: &str) -> l::Statement {
    l::Statement {
        signal: Some(signal(value)),
        stance: l::Stance::Submit.into(),
        labels: vec!["propaganda".into()],
        ..Default::default()
    }
}

/// Waits until all of `values` match.
pub(crate) async fn all_match(node: &mut Process, values: &[String]) {
    let begun = clock::instant();
    for values in values.chunks(SIGNALS_MAX) {
        loop {
            let request =
                l::LookupRequest { signals: values.iter().map(|v| signal(v)).collect(), ..Default::default() };
            let found = node.client.lookup(request).await.unwrap().into_inner().matches.len();
            if found == values.len() {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{}: {found} of {} statements are there", node.name, values.len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
