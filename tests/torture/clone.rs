//! A data directory that is copied while its node runs, and a second node that is started from the copy: two of one
//! member never sign one place twice, and both operators are told.

use std::sync::Arc;
use std::time::Duration;

use staydown::clock;
use tokio::time::sleep;

use crate::damage::copy;
use crate::drill::{Load, Signed, Told, all_is_well, more_durable};
use crate::forum::{Chance, DEADLINE, Forum, Process, count};
use crate::kill::all_match;

const CLONES: usize = 4;
/// Each may spend log numbers, and a member of these forums has 16.
const CLONES_OF_ONE_FORUM: usize = 5;
const STATEMENTS_MAX: u64 = 20;
/// How long both are given submissions at most, after both operators could see it.
const TOGETHER_MAX_MS: u64 = 500;

const VICTIM: usize = 0;

#[test]
fn a_cloned_node_is_noticed_and_neither_of_the_two_contradicts_the_other() {
    crate::runtime().block_on(async {
        let clones = count("STAYDOWN_CLONES", CLONES);
        let mut chance = Chance(crate::seed());
        let mut totals = (0, 0, 0);
        for first in (0..clones).step_by(CLONES_OF_ONE_FORUM) {
            let (statements, blocks, queued) = run(CLONES_OF_ONE_FORUM.min(clones - first), &mut chance).await;
            totals = (totals.0 + statements, totals.1 + blocks, totals.2 + queued);
        }
        let (statements, blocks, queued) = totals;
        println!(
            "{clones} clones: {statements} durable statements, 0 lost; {queued} were queued; {blocks} blocks signed by \
             the two, 0 places twice"
        );
    });
}

async fn run(clones: usize, chance: &mut Chance) -> (usize, usize, u64) {
    let mut forum = Forum::found(3, crate::folder());
    let mut original = forum.start(VICTIM).await;
    let mut others = [forum.start(1).await, forum.start(2).await];
    let (told, mut signed) = (Arc::new(Told::default()), Signed::default());
    for round in 0..clones {
        original.open().await;
        let load = Load::on(&original, &told);
        more_durable(&told, 1 + usize::try_from(chance.below(STATEMENTS_MAX)).unwrap()).await;
        let mut clone = start_clone(&mut forum, round).await;
        let load_of_clone = Load::on(&clone, &told);
        for node in [&mut original, &mut clone] {
            is_told_of_a_copy(node).await;
        }
        sleep(Duration::from_millis(chance.below(TOGETHER_MAX_MS))).await;
        load_of_clone.stop().await;
        // What the clone acknowledged must be at the others before it is deleted, or nobody can have it.
        let said = told.durable();
        for other in &mut others {
            all_match(other, &said).await;
        }
        clone.kill();
        more_durable(&told, 1).await;
        load.stop().await;
        signed.add(&clone_folder(&forum, round), &format!("clone {round}"));
    }
    let [bolt, cyan] = others;
    let mut nodes = [original, bolt, cyan];
    let (statements, queued) = (told.durable().len(), told.queued.load(std::sync::atomic::Ordering::SeqCst));
    all_is_well(&forum, &mut nodes, &told).await;
    let [original, ..] = nodes;
    original.kill();
    signed.add(&forum.companies[VICTIM].data, "the original");
    (statements, signed.blocks(), queued)
}

fn clone_folder(forum: &Forum, round: usize) -> std::path::PathBuf {
    forum.folder.path().join(format!("clone-{round}"))
}

/// Copies the running node's folder and starts a node from it at another address.
async fn start_clone(forum: &mut Forum, round: usize) -> Process {
    let folder = clone_folder(forum, round);
    copy(&forum.companies[VICTIM].data, &folder);
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let company = &mut forum.companies[VICTIM];
    let (data, listens) =
        (std::mem::replace(&mut company.data, folder), std::mem::replace(&mut company.address, address));
    let clone = forum.start(VICTIM).await;
    let company = &mut forum.companies[VICTIM];
    (company.data, company.address) = (data, listens);
    clone
}

/// Its operator reads in `status` that another copy of the node is connected.
async fn is_told_of_a_copy(node: &mut Process) {
    let begun = clock::instant();
    loop {
        let reasons = node.status().await.health_reasons;
        if reasons.iter().any(|reason| reason.contains("copy")) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{} is never told of a copy: {reasons:?}", node.name);
        sleep(Duration::from_millis(2)).await;
    }
}
