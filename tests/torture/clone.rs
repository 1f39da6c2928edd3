//! A data directory that is copied while its node runs, and a second node that is started from the copy: two of one
//! member never sign one place twice, and both operators are told.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use staydown::clock;
use staydown::store::place::Place;
use tokio::time::sleep;

use crate::damage::copy;
use crate::drill::{Load, Signed, Told, all_is_well, more_durable};
use crate::forum::{self, Chance, DEADLINE, Forum, Process, count};
use crate::kill::all_match;

const CLONES: usize = 4;
/// Each may spend log numbers, and a member of these forums has 16.
const CLONES_OF_ONE_FORUM: usize = 5;
const STATEMENTS_MAX: u64 = 20;
/// How long both are given submissions at most, after both operators could see it.
const TOGETHER_MAX_MS: u64 = 500;
/// A node that is paused for less than ten seconds does not notice.
const PAUSE_MIN: Duration = Duration::from_secs(12);
/// The statements to the clones are numbered from here: 2^32 for each, and the original's below.
const CLONES_FIRST: u64 = 1 << 32;

const VICTIM: usize = 0;

/// How a clone comes to be.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The folder is copied; its node notices.
    Folder,
    /// The whole machine is: the clone's files say that they stand where they stood, so only the peers can tell.
    Machine,
    /// The same, and it is started in the moment in which neither of the two is connected to any peer.
    MachineUnseen,
}

impl Way {
    const ALL: [Self; 3] = [Self::Folder, Self::Machine, Self::MachineUnseen];
}

#[test]
fn a_cloned_node_is_noticed_and_neither_of_the_two_contradicts_the_other() {
    crate::runtime().block_on(async {
        let clones = count("STAYDOWN_CLONES", CLONES);
        let mut chance = Chance(crate::seed());
        let mut totals = (0, 0, 0);
        for first in (0..clones).step_by(CLONES_OF_ONE_FORUM) {
            let rounds = first..clones.min(first + CLONES_OF_ONE_FORUM);
            let (statements, blocks, queued) = run(rounds, &mut chance).await;
            totals = (totals.0 + statements, totals.1 + blocks, totals.2 + queued);
        }
        let (statements, blocks, queued) = totals;
        println!(
            "{clones} clones: {statements} durable statements, 0 lost; {queued} were queued; {blocks} blocks signed by \
             the two, 0 places twice"
        );
    });
}

/// The one moment in which files and peers know nothing: nothing was said since the image was made, and the original
/// stands still while its image is started. What it signed when it goes on would be signed twice.
#[test]
fn an_original_that_stood_still_while_its_image_was_started_signs_nothing() {
    crate::runtime().block_on(async {
        let mut forum = Forum::found(3, crate::folder());
        let mut original = forum.start(VICTIM).await;
        let mut others = start_others(&forum).await;
        let (told, told_clone) = (Arc::new(Told::default()), Told::from(CLONES_FIRST));
        original.open().await;
        let load = Load::on(&original, &told);
        more_durable(&told, 5).await;
        load.stop().await;
        for other in &mut others {
            forum::agreed(&mut original, other).await;
        }
        original.pause();
        let paused = clock::instant();
        copy_running(&forum, 0, Way::MachineUnseen);
        // Else the peers would still hold the connections of the original.
        others.into_iter().for_each(Process::kill);
        others = start_others(&forum).await;
        let mut clone = start_clone(&mut forum, 0, another_address()).await;
        clone.open().await;
        let load_of_clone = Load::on(&clone, &told_clone);
        more_durable(&told_clone, 5).await;
        sleep(PAUSE_MIN.saturating_sub(paused.elapsed())).await;
        original.resume();
        let load = Load::on(&original, &told);
        is_told_of_a_copy(&mut original, Way::MachineUnseen).await;
        load.stop().await;
        load_of_clone.stop().await;
        original.kill();
        clone.kill();
        takes_over(&mut forum, 0, &mut others, &told_clone).await;
        let mut signed = Signed::default();
        signed.add(&clone_folder(&forum, 0), "the image");
        original = forum.start(VICTIM).await;
        original.open().await;
        told.add(&told_clone);
        let mut nodes = vec![original];
        nodes.extend(others);
        all_is_well(&forum, &mut nodes, &told).await;
        nodes.into_iter().for_each(Process::kill);
        signed.add(&forum.companies[VICTIM].data, "the original");
    });
}

async fn run(rounds: std::ops::Range<usize>, chance: &mut Chance) -> (usize, usize, u64) {
    let mut forum = Forum::found(3, crate::folder());
    let mut original = forum.start(VICTIM).await;
    let mut others = start_others(&forum).await;
    let (told, mut signed) = (Arc::new(Told::default()), Signed::default());
    for round in rounds {
        let way = Way::ALL[round % Way::ALL.len()];
        original.open().await;
        let load = Load::on(&original, &told);
        more_durable(&told, 1 + usize::try_from(chance.below(STATEMENTS_MAX)).unwrap()).await;
        copy_running(&forum, round, way);
        let told_clone = Told::from(CLONES_FIRST * (1 + round as u64));
        let mut clone = if let Way::MachineUnseen = way {
            // What was said since stands at the others: nothing else could tell this clone that it is one.
            more_durable(&told, 1).await;
            all_at(&mut others, &told).await;
            others.into_iter().for_each(Process::kill);
            let clone = start_clone(&mut forum, round, another_address()).await;
            others = start_others(&forum).await;
            clone
        } else {
            start_clone(&mut forum, round, another_address()).await
        };
        let load_of_clone = Load::on(&clone, &told_clone);
        for node in [&mut original, &mut clone] {
            is_told_of_a_copy(node, way).await;
        }
        sleep(Duration::from_millis(chance.below(TOGETHER_MAX_MS))).await;
        load_of_clone.stop().await;
        // What the clone acknowledged, only the clone has: nobody calls its address.
        if chance.below(2) == 0 && told_clone.durable().is_empty() {
            clone.kill();
            more_durable(&told, 1).await;
            load.stop().await;
        } else {
            lose(original, load, &mut others, way).await;
            clone.kill();
            takes_over(&mut forum, round, &mut others, &told_clone).await;
            original = forum.start(VICTIM).await;
        }
        told.add(&told_clone);
        signed.add(&clone_folder(&forum, round), &format!("clone {round}, {way:?}"));
    }
    let mut nodes = vec![original];
    nodes.extend(others);
    let (statements, queued) = (told.durable().len(), told.queued.load(std::sync::atomic::Ordering::SeqCst));
    all_is_well(&forum, &mut nodes, &told).await;
    nodes.into_iter().for_each(Process::kill);
    signed.add(&forum.companies[VICTIM].data, "the original");
    (statements, signed.blocks(), queued)
}

async fn start_others(forum: &Forum) -> Vec<Process> {
    vec![forum.start(1).await, forum.start(2).await]
}

async fn all_at(others: &mut [Process], told: &Told) {
    let said = told.durable();
    for other in others {
        all_match(other, &said).await;
    }
}

/// Kills the original. Where its clone can only be told by the peers, they have everything by then: what nobody but the
/// dead ever saw, its image contradicts unknowingly when it goes on.
async fn lose(mut original: Process, load: Load, others: &mut [Process], way: Way) {
    if let Way::Folder = way {
        original.kill();
        return load.stop().await;
    }
    load.stop().await;
    for other in others {
        forum::agreed(&mut original, other).await;
    }
    original.kill();
}

/// The clone gets the original's address: it signs, in logs of its own, until it is gone too.
async fn takes_over(forum: &mut Forum, round: usize, others: &mut [Process], told: &Arc<Told>) {
    let mut clone = start_clone(forum, round, forum.companies[VICTIM].address).await;
    clone.open().await;
    let load = Load::on(&clone, told);
    more_durable(told, 2).await;
    load.stop().await;
    all_at(others, told).await;
    clone.kill();
}

/// Copies the running node's folder.
fn copy_running(forum: &Forum, round: usize, way: Way) {
    let folder = clone_folder(forum, round);
    copy(&forum.companies[VICTIM].data, &folder);
    if !matches!(way, Way::Folder) {
        Place::write(&folder).unwrap();
    }
}

fn clone_folder(forum: &Forum, round: usize) -> std::path::PathBuf {
    forum.folder.path().join(format!("clone-{round}"))
}

/// Starts a node from the copy.
async fn start_clone(forum: &mut Forum, round: usize, address: SocketAddr) -> Process {
    let folder = clone_folder(forum, round);
    let company = &mut forum.companies[VICTIM];
    let (data, listens) =
        (std::mem::replace(&mut company.data, folder), std::mem::replace(&mut company.address, address));
    let clone = forum.start(VICTIM).await;
    let company = &mut forum.companies[VICTIM];
    (company.data, company.address) = (data, listens);
    clone
}

/// An address of this machine that nobody uses yet.
fn another_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Its operator reads in `status` that another copy of the node is connected.
async fn is_told_of_a_copy(node: &mut Process, way: Way) {
    let begun = clock::instant();
    loop {
        let reasons = node.status().await.health_reasons;
        if reasons.iter().any(|reason| reason.contains("copy")) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{way:?}: {} is never told of a copy: {reasons:?}", node.stderr.display());
        sleep(Duration::from_millis(2)).await;
    }
}
