//! Backups that are taken while a node runs and put back later: the node forgets what it said since, and must neither
//! contradict it nor lose it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::damage::copy;
use crate::drill::{Load, Signed, Told, all_is_well, more_durable};
use crate::forum::{Chance, Forum, Process, count};
use crate::kill::all_match;

const RESTORES: usize = 6;
/// Each may spend a log number, and a member of these forums has 16.
const RESTORES_OF_ONE_FORUM: usize = 10;
/// Statements before and after the backup is taken.
const STATEMENTS_MAX: u64 = 30;

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
}

impl Way {
    const ALL: [Self; 3] = [Self::SamePath, Self::OtherPath, Self::InPlace];

    fn put_back(self, backup: &Path, forum: &mut Forum, round: usize) {
        let data = forum.companies[VICTIM].data.clone();
        match self {
            Self::SamePath => fs::remove_dir_all(&data).unwrap(),
            Self::OtherPath => {
                fs::remove_dir_all(&data).unwrap();
                forum.companies[VICTIM].data = data.with_file_name(format!("acme-{round}"));
            }
            Self::InPlace => {}
        }
        copy(backup, &forum.companies[VICTIM].data);
        fs::remove_dir_all(backup).unwrap();
    }
}

async fn run(rounds: std::ops::Range<usize>, chance: &mut Chance) -> (usize, usize, usize) {
    let mut forum = Forum::found(3, crate::folder());
    let mut others = [forum.start(1).await, forum.start(2).await];
    let mut victim = forum.start(VICTIM).await;
    let (told, mut signed, mut late) = (Arc::new(Told::default()), Signed::default(), Vec::new());
    for round in rounds {
        let way = Way::ALL[round % Way::ALL.len()];
        victim.open().await;
        let mut statements = || 1 + usize::try_from(chance.below(STATEMENTS_MAX)).unwrap();
        let load = Load::on(&victim, &told);
        more_durable(&told, statements()).await;
        let backup = forum.folder.path().join("backup");
        copy(&forum.companies[VICTIM].data, &backup);
        more_durable(&told, statements()).await;
        lose(victim, load, &mut others, &told, &mut late, way).await;
        signed.add(&forum.companies[VICTIM].data, &format!("before restore {round}, {way:?}"));
        way.put_back(&backup, &mut forum, round);
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
