//! Real nodes over loopback TLS.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "helpers are shared between the modules of this binary only")]

#[macro_use]
mod forum;

use forum::Forum;
use staydown::wire::local::{Stance, Verdict};

const HASH: &str = "aa11f2d1c3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccddee";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_company_says_the_others_match_and_take_back() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let said = nodes[0].say(Stance::Submit, "sha256", HASH).await;
    assert_eq!(said.receipts.len(), 1);
    for node in &mut nodes {
        let found = node.expect(Verdict::Review, "sha256", HASH).await;
        assert_eq!(found.matches[0].entry.as_ref().unwrap().said[0].member, "acme");
    }
    nodes[1].say(Stance::Endorse, "sha256", HASH).await;
    nodes[2].expect(Verdict::Block, "sha256", HASH).await;
    nodes[0].say(Stance::Neutral, "sha256", HASH).await;
    nodes[1].say(Stance::Neutral, "sha256", HASH).await;
    for node in &mut nodes {
        node.expect(Verdict::Allow, "sha256", HASH).await;
    }
    for node in nodes {
        node.stop().await;
    }
}
