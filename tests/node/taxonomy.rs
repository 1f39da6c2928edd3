//! The file that says what labels mean: it comes with the charter that names it, and goes to every node that lacks it.

use bytes::Bytes;
use prost::Message as _;
use staydown::replica::ids::sha256;
use staydown::replica::proto;
use staydown::taxonomy::{EXAMPLE_TEXT, TaxonomyFile};
use staydown::wire::local::{self as l, Stance};
use tonic::Code;

use crate::forum::{Forum, Node, hash, statement};
use crate::outsider;

async fn labels(node: &mut Node) -> l::GetTaxonomyResponse {
    node.client.get_taxonomy(l::GetTaxonomyRequest {}).await.unwrap().into_inner()
}

fn has_example(answer: &l::GetTaxonomyResponse) -> bool {
    answer.labels.iter().any(|label| label.name == "org-example-front" && label.number == 1001)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charter_that_changes_the_labels_comes_with_their_file_or_not_at_all() {
    let mut forum = Forum::found(2);
    let [mut acme, mut bolt] = <[_; 2]>::try_from(forum.start_all().await).ok().unwrap();
    acme.open().await;
    bolt.open().await;
    let named = TaxonomyFile::parse(EXAMPLE_TEXT).unwrap().named.to_string();
    let charter = forum.next_charter(|charter| charter.taxonomy.clone_from(&named)).encode_to_vec();
    let request = |taxonomy: &'static str| l::ApplyCharterRequest {
        charter: charter.clone().into(),
        taxonomy: Bytes::from_static(taxonomy.as_bytes()),
    };
    for (taxonomy, code, expected) in [
        ("", Code::FailedPrecondition, "its file does not come with it"),
        ("name = \"x\"", Code::InvalidArgument, "the file has the SHA-256"),
    ] {
        let refused = acme.client.apply_charter(request(taxonomy)).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(expected), "{refused:?}");
        assert_eq!(acme.status().await.charter_version, 1, "nothing was half done");
    }
    let unknown = l::SubmitRequest {
        statements: vec![l::Statement {
            labels: vec!["org-example-front".into()],
            ..statement(Stance::Submit, "sha256", &hash(1))
        }],
        ..Default::default()
    };
    let refused = acme.client.submit(unknown.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    acme.client.apply_charter(request(EXAMPLE_TEXT)).await.unwrap();
    assert_eq!(labels(&mut acme).await.file, EXAMPLE_TEXT, "as soon as the charter is in force");
    acme.client.submit(unknown).await.unwrap();
    wait_for!("bolt has the file from acme", has_example(&labels(&mut bolt).await));
    assert!(!bolt.status().await.health_reasons.iter().any(|why| why.contains("taxonomy")));
    // Once more, as after a lost answer: nothing happens to what is there.
    acme.client.apply_charter(request(EXAMPLE_TEXT)).await.unwrap();
    acme.client.apply_charter(request("")).await.unwrap();
    assert!(has_example(&labels(&mut acme).await));

    // Members may ask for it by its hash, and for nothing else.
    let (asking, asked) = (&forum.companies[1], &forum.companies[0]);
    let mut client = outsider::client(&asking.keys.tls, asked);
    let mut ask = async |forum_id: &[u8], text: &str| {
        let digest = sha256(&[text.as_bytes()]);
        let (forum_id, sha256) = (forum_id.to_vec().into(), digest.to_vec().into());
        client.get_taxonomy(proto::TaxonomyRequest { forum_id, sha256 }).await.map(|reply| reply.into_inner().file)
    };
    assert_eq!(ask(&forum.forum.0, EXAMPLE_TEXT).await.unwrap(), EXAMPLE_TEXT);
    assert_eq!(ask(&forum.forum.0, "x").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ask(&[0; 32], EXAMPLE_TEXT).await.unwrap_err().code(), Code::FailedPrecondition);
    acme.stop().await;
    bolt.stop().await;
}
