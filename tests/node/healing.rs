//! Restarts, lost and damaged files, restored backups: nothing acknowledged is lost and no node contradicts itself.

use std::fs;
use std::path::Path;

use staydown::wire::local::{Stance, SubmitState, Verdict};

use crate::forum::{Forum, Node, hash};

async fn three() -> (Forum, Vec<Node>) {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    (forum, nodes)
}

/// Stops acme, lets `change` do something to its data directory, and starts it again.
async fn restart(forum: &mut Forum, nodes: &mut [Node], change: impl FnOnce(&Path)) {
    let endpoints = forum.endpoints();
    let data = forum.companies[0].data.clone();
    let address = forum.companies[0].address;
    nodes[0].halt().await;
    change(&data);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    nodes[0] = Node::start(data, listener, endpoints).await;
    nodes[0].open().await;
}

/// acme says three things; after `change` and a restart they still match everywhere, and so does a fourth.
async fn nothing_is_lost_after(change: impl FnOnce(&Path)) -> Vec<u32> {
    let (mut forum, mut nodes) = three().await;
    for n in 0..3 {
        nodes[0].say(Stance::Submit, "sha256", &hash(n)).await;
        nodes[1].expect(Verdict::Review, "sha256", &hash(n)).await;
        nodes[2].expect(Verdict::Review, "sha256", &hash(n)).await;
    }
    restart(&mut forum, &mut nodes, change).await;
    nodes[0].say(Stance::Submit, "sha256", &hash(3)).await;
    for node in &mut nodes {
        for n in 0..4 {
            node.expect(Verdict::Review, "sha256", &hash(n)).await;
        }
    }
    let status = nodes[0].status().await;
    assert_eq!(status.proofs, 0, "nobody was convicted");
    nodes[0].own_logs().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_restart_goes_on_in_the_same_log() {
    assert_eq!(nothing_is_lost_after(|_| ()).await, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_store_is_rebuilt_and_the_log_goes_on() {
    assert_eq!(nothing_is_lost_after(|data| fs::remove_dir_all(data.join("replica")).unwrap()).await, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_closes_its_log() {
    assert_eq!(nothing_is_lost_after(|data| fs::remove_file(data.join("journal")).unwrap()).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_filled_again_by_the_peers_and_the_log_stays_closed() {
    let lose_all = |data: &Path| {
        fs::remove_dir_all(data.join("replica")).unwrap();
        fs::remove_file(data.join("journal")).unwrap();
    };
    assert_eq!(nothing_is_lost_after(lose_all).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_journal_closes_its_log() {
    let flip = |data: &Path| {
        let path = data.join("journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    assert_eq!(nothing_is_lost_after(flip).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_never_makes_a_node_contradict_itself() {
    let (mut forum, mut nodes) = three().await;
    nodes[0].say(Stance::Submit, "sha256", &hash(0)).await;
    let backup = forum.folder.path().join("backup");
    restart(&mut forum, &mut nodes, |data| copy(data, &backup)).await;
    nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;
    nodes[1].expect(Verdict::Review, "sha256", &hash(1)).await;
    nodes[2].expect(Verdict::Review, "sha256", &hash(1)).await;
    restart(&mut forum, &mut nodes, |data| {
        fs::remove_dir_all(data).unwrap();
        copy(&backup, data);
    })
    .await;
    nodes[0].say(Stance::Submit, "sha256", &hash(2)).await;
    for node in &mut nodes {
        for n in 0..3 {
            node.expect(Verdict::Review, "sha256", &hash(n)).await;
        }
        assert_eq!(node.status().await.proofs, 0);
    }
    assert_eq!(nodes[0].own_logs().await, [0, 1]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_peers_a_submission_is_queued_and_signed_later_even_after_a_restart() {
    what_is_queued_is_signed_after(|_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_submission_outlives_the_store() {
    what_is_queued_is_signed_after(|data| fs::remove_dir_all(data.join("replica")).unwrap()).await;
}

/// Alone, acme says something; after `change` and a restart it still waits, and once bolt is there it is signed.
async fn what_is_queued_is_signed_after(change: impl FnOnce(&Path)) {
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let queued = acme.say(Stance::Submit, "sha256", &hash(0)).await;
    assert_eq!(queued.state(), SubmitState::Queued);
    assert_eq!(acme.status().await.outbox, 1);
    acme.stop().await;
    change(&forum.companies[0].data);

    let mut acme = forum.start(0).await;
    assert_eq!(acme.status().await.outbox, 1);
    let mut bolt = forum.start(1).await;
    acme.open().await;
    acme.expect(Verdict::Review, "sha256", &hash(0)).await;
    bolt.expect(Verdict::Review, "sha256", &hash(0)).await;
    assert_eq!(acme.status().await.outbox, 0);
}
