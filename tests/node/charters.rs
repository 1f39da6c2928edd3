//! A charter spreads from the node it was applied on, and takes effect without a restart.

use prost::Message as _;
use staydown::wire::local::{self as l, Stance, Verdict};
use tonic::Code;

use crate::forum::{Company, Forum, hash};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_company_is_admitted_and_catches_up_while_the_others_run() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    nodes[0].open().await;
    nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;

    let delta = Company::create(&forum.folder, 3);
    let member = delta.member(3, &forum.forum.0, 2);
    forum.companies.push(delta);
    let next = forum.next_charter(|charter| charter.members.push(member));
    forum.invite(&forum.companies[3]);
    let request = l::ApplyCharterRequest { charter: next.encode_to_vec().into(), ..Default::default() };
    assert_eq!(nodes[1].client.apply_charter(request).await.unwrap().into_inner().version, 2);
    for node in &mut nodes {
        wait_for!("charter 2 arrives", node.status().await.charter_version == 2);
    }

    let mut delta = forum.start(3).await;
    delta.expect(Verdict::Review, "sha256", &hash(1)).await;
    delta.open().await;
    delta.say(Stance::Submit, "sha256", &hash(2)).await;
    for node in &mut nodes {
        let found = node.expect(Verdict::Review, "sha256", &hash(2)).await;
        assert_eq!(found.matches[0].entry.as_ref().unwrap().status, "PROVISIONAL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_company_is_cut_off_at_once_and_a_charter_without_signatures_changes_nothing() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let mut unsigned = forum.next_charter(|charter| charter.members[0].status = 2);
    let signed = unsigned.clone();
    unsigned.sigs.truncate(1);
    let suspended = forum.charter.members[0].id.clone();
    let of = |id: &[u8]| forum.companies.iter().position(|c| c.id.0 == id).unwrap();
    let gone = of(&suspended);
    let stays = (gone + 1) % 3;

    let request = l::ApplyCharterRequest { charter: unsigned.encode_to_vec().into(), ..Default::default() };
    let refused = nodes[stays].client.apply_charter(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("1 valid signatures"), "{}", refused.message());

    let request = l::ApplyCharterRequest { charter: signed.encode_to_vec().into(), ..Default::default() };
    nodes[stays].client.apply_charter(request).await.unwrap();
    wait_for!("the suspended node loses its peers", nodes[gone].status().await.peers_connected == 0);
    nodes[stays].say(Stance::Submit, "sha256", &hash(9)).await;
    nodes[(gone + 2) % 3].expect(Verdict::Review, "sha256", &hash(9)).await;
    assert_eq!(nodes[gone].lookup("sha256", &hash(9)).await.verdict(), Verdict::Allow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_company_whose_keys_change_is_followed_again_at_once() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let next = forum.next_charter(|charter| {
        for (number, member) in (7..).zip(&mut charter.members) {
            member.nodes[0].tls_spki_sha256.push(vec![number; 32].into());
        }
    });
    let request = l::ApplyCharterRequest { charter: next.encode_to_vec().into(), ..Default::default() };
    nodes[0].client.apply_charter(request).await.unwrap();
    for node in &mut nodes {
        wait_for!("charter 2 arrives", node.status().await.charter_version == 2);
    }
    // Well below the repair period: only a stream brings it.
    let begun = staydown::clock::instant();
    nodes[0].say(Stance::Submit, "sha256", &hash(3)).await;
    for node in &mut nodes {
        node.expect(Verdict::Review, "sha256", &hash(3)).await;
    }
    assert!(begun.elapsed().as_secs() < 12, "took {:?}", begun.elapsed());
    for node in nodes {
        node.stop().await;
    }
}
