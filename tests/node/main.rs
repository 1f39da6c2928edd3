//! Real nodes over loopback TLS, real sled, in temporary folders.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "helpers are shared between the modules of this binary only")]

#[macro_use]
mod forum;
mod asking;
mod certificates;
mod charters;
mod healing;
mod impostors;
mod metrics;
mod outsider;
mod reporting;
mod revocation;
mod strangers;
mod streams;
mod taxonomy;

use forum::{Forum, hash};
use staydown::wire::local::{Stance, Verdict};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_company_says_the_others_match_and_take_back() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let said = nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;
    assert_eq!(said.receipts.len(), 1);
    for node in &mut nodes {
        let found = node.expect(Verdict::Review, "sha256", &hash(1)).await;
        assert_eq!(found.matches[0].entry.as_ref().unwrap().said[0].member, "acme");
    }
    nodes[1].say(Stance::Endorse, "sha256", &hash(1)).await;
    nodes[2].expect(Verdict::Block, "sha256", &hash(1)).await;
    nodes[0].say(Stance::Neutral, "sha256", &hash(1)).await;
    nodes[1].say(Stance::Neutral, "sha256", &hash(1)).await;
    for node in &mut nodes {
        node.expect(Verdict::Allow, "sha256", &hash(1)).await;
    }
    let [mut acme, mut bolt, mut cyan] = <[_; 3]>::try_from(nodes).ok().unwrap();
    acme.agrees_with(&mut bolt).await;
    acme.agrees_with(&mut cyan).await;
    for node in [acme, bolt, cyan] {
        node.stop().await;
    }
}
