//! Backups that are taken while a node runs and put back later: the node forgets what it said since, and must neither
//! contradict it nor lose it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use staydown::wire::local as l;

use crate::damage::copy;
use crate::drill::{Load, Signed, Told, all_is_well, more_durable};
use crate::forum::{Chance, Forum, Process, count};
use crate::kill::{all_match, statement, value};

const RESTORES: usize = 6;
/// Each may spend a log number, and a member of these forums has 16.
const RESTORES_OF_ONE_FORUM: usize = 10;
/// Statements before and after the backup is taken.
const STATEMENTS_MAX: u64 = 30;

/// A restored node that nothing is said to lives at most so long.
const LIFE_MAX_MS: u64 = 800;
/// Logs of one member of these forums.
const LOG_LIMIT: usize = 16;

const VICTIM: usize = 0;

#[test]
fn a_node_that_is_restored_from_a_backup_keeps_its_word_and_never_contradicts_it() {
    crate::runtime().block_on(async {
        let restores = count("STAYDOWN_RESTORES", RESTORES);
        let mut chance = Chance(crate::seed());
        let mut totals = (0, 0, 0);
        for first in (0..restores).step_by(RESTORES_OF_ONE_FORUM) {
            let rounds = first..restores.min(first + RESTORES_OF_ONE_FORUM);
            let (statements, blocks, late) = run(rounds, &mut chance).await;
            totals = (totals.0 + statements, totals.1 + blocks, totals.2 + late);
        }
        let (statements, blocks, late) = totals;
        println!(
            "{restores} restores: {statements} durable statements, 0 lost; {blocks} blocks signed, 0 places twice; \
             {late} more were acknowledged within moments of the disk's loss and are not counted"
        );
    });
}

/// How a backup is put back.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The folder is deleted, and copied back to where it was.
    SamePath,
    /// It is copied to a folder of another name.
    OtherPath,
    /// Its files are written over those that are there; what is newer stays.
    InPlace,
    /// The node is killed at any moment after its start, and starts again before anything was said.
    Restarted,
    /// The same, and the backup is put back once more.
    Twice,
    /// Not the last backup is put back but the one before, which knows less of what became of the logs.
    Older,
}

impl Way {
    const ALL: [Self; 6] = [Self::SamePath, Self::OtherPath, Self::InPlace, Self::Restarted, Self::Twice, Self::Older];

    fn put_back(self, backup: &Path, forum: &mut Forum, round: usize) {
        let data = forum.companies[VICTIM].data.clone();
        if !matches!(self, Self::InPlace) {
            fs::remove_dir_all(&data).unwrap();
        }
        if let Self::OtherPath = self {
            forum.companies[VICTIM].data = data.with_file_name(format!("acme-{round}"));
        }
        copy(backup, &forum.companies[VICTIM].data);
    }
}

async fn run(rounds: std::ops::Range<usize>, chance: &mut Chance) -> (usize, usize, usize) {
    let mut forum = Forum::found(3, crate::folder());
    let mut others = [forum.start(1).await, forum.start(2).await];
    let mut victim = forum.start(VICTIM).await;
    let (told, mut signed, mut late) = (Arc::new(Told::default()), Signed::default(), Vec::new());
    let folder = forum.folder.path().to_owned();
    let backup = |round: usize| folder.join(format!("backup-{round}"));
    let first = rounds.start;
    for round in rounds {
        let way = Way::ALL[round % Way::ALL.len()];
        victim.open().await;
        let mut statements = || 1 + usize::try_from(chance.below(STATEMENTS_MAX)).unwrap();
        let load = Load::on(&victim, &told);
        more_durable(&told, statements()).await;
        copy(&forum.companies[VICTIM].data, &backup(round));
        more_durable(&told, statements()).await;
        lose(victim, load, &mut others, &told, &mut late, way).await;
        signed.add(&forum.companies[VICTIM].data, &format!("before restore {round}, {way:?}"));
        let of = if let Way::Older = way { first.max(round.saturating_sub(1)) } else { round };
        way.put_back(&backup(of), &mut forum, round);
        if let Way::Restarted | Way::Twice = way {
            live_shortly(&forum, Duration::from_millis(chance.below(LIFE_MAX_MS))).await;
        }
        if let Way::Twice = way {
            way.put_back(&backup(of), &mut forum, round);
        }
        victim = forum.start(VICTIM).await;
    }
    victim.open().await;
    let load = Load::on(&victim, &told);
    more_durable(&told, 5).await;
    load.stop().await;
    let [bolt, cyan] = others;
    let mut nodes = [victim, bolt, cyan];
    let counted = told.durable().len();
    all_is_well(&forum, &mut nodes, &told).await;
    let [victim, ..] = nodes;
    victim.kill();
    signed.add(&forum.companies[VICTIM].data, "at the end");
    (counted, signed.blocks(), late.len())
}

/// A start that ends before anybody has said anything.
async fn live_shortly(forum: &Forum, life: Duration) {
    let mut victim = forum.spawn(VICTIM);
    let lived = tokio::time::timeout(life, async {
        victim.serves().await.unwrap();
        std::future::pending::<()>().await;
    });
    lived.await.unwrap_err();
    victim.kill();
}

#[test]
fn a_node_whose_log_numbers_are_used_up_says_so_and_loses_nothing() {
    crate::runtime().block_on(async {
        let mut forum = Forum::found(3, crate::folder());
        let mut others = [forum.start(1).await, forum.start(2).await];
        let backup = forum.folder.path().join("backup");
        let (mut said, mut signed) = (Vec::new(), Signed::default());
        let refused = loop {
            let mut victim = forum.start(VICTIM).await;
            victim.open().await;
            let new = value(said.len() as u64);
            let request = l::SubmitRequest { statements: vec![statement(&new)], ..Default::default() };
            let answer = victim.client.submit(request).await;
            if answer.is_ok() {
                said.push(new);
            }
            for node in others.iter_mut().chain([&mut victim]) {
                all_match(node, &said).await;
            }
            if said.len() == 1 {
                copy(&forum.companies[VICTIM].data, &backup);
            }
            victim.kill();
            signed.add(&forum.companies[VICTIM].data, &format!("after {} restores", said.len()));
            if let Err(refused) = answer {
                break refused;
            }
            Way::SamePath.put_back(&backup, &mut forum, 0);
        };
        assert_eq!(said.len(), LOG_LIMIT, "each log number took a statement");
        assert!(refused.message().contains("all 16 log numbers are used up"), "{refused:?}");
        for other in &mut others {
            assert_eq!(other.status().await.proofs, 0);
        }
        println!("{LOG_LIMIT} log numbers used up by restores: then \"{}\"; 0 lost", refused.message());
    });
}

/// Kills the node. What it acknowledged must be at the others before its disk is lost, or nobody can have it; what is
/// acknowledged in the last moments is not counted. Where the loss of the disk cannot be noticed, the last moments are
/// quiet: a block that nobody else ever saw is nobody's contradiction.
async fn lose(
    mut victim: Process,
    load: Load,
    others: &mut [Process; 2],
    told: &Told,
    late: &mut Vec<String>,
    way: Way,
) {
    if let Way::InPlace = way {
        load.stop().await;
        for other in others {
            crate::forum::agreed(&mut victim, other).await;
        }
        return victim.kill();
    }
    let said = told.durable();
    for other in others {
        all_match(other, &said).await;
    }
    victim.kill();
    load.stop().await;
    late.extend(told.forget_after(said.len()));
}
