//! Labels on their way in and out: a name that people write becomes the number that is signed, or is refused with the
//! nearest names; and the file of the taxonomy on its way from peer to peer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::limits::CALL_TIMEOUT;
use super::request_id::RequestId;
use super::status::{bad_field, bad_field_with_fix, refuse, refuse_with_fix};
use crate::clock;
use crate::config::nearest;
use crate::engine::Shared;
use crate::replica::proto;
use crate::replica::taxonomy::{Label, Named, Taxonomy, Unsayable};
use crate::taxonomy::shelf::{NotTaken, Turn, understood};
use crate::wire::local as l;
use crate::wire::peer_service::peer_client::PeerClient;

/// Names that a refusal gives: who needs more of them looks at all.
const NEAREST_SHOWN_MAX: usize = 3;
/// How often a follower looks whether the taxonomy is missing: nobody can say a label until it is here.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// After a peer had no file for us, it is left alone for so long: it may be about to get it.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The number of a label that our company says.
///
/// # Errors
/// It is unknown, retired, or nobody here knows what the forum's labels are; with what to do.
pub(super) fn said(taxonomy: &Taxonomy, name: &str, field: &str) -> Result<u32, Status> {
    taxonomy.sayable(name).map_err(|why| {
        let of = taxonomy.named();
        match why {
            Unsayable::Missing => missing(taxonomy),
            Unsayable::Retired => {
                let what = format!("{name:?} is a retired label of the taxonomy {of}: nobody says it any more");
                bad_field_with_fix(field, what, "LABEL", "choose another: staydown taxonomy show")
            }
            Unsayable::Unknown => {
                let near = nearest_names(taxonomy, name);
                let what = format!("{name:?} is not a label of the taxonomy {of}; the nearest are {}", near.join(", "));
                let fix = near
                    .first()
                    .map_or_else(|| "staydown taxonomy show".to_owned(), |near| format!("did you mean {near}?"));
                bad_field_with_fix(field, what, "LABEL", fix)
            }
        }
    })
}

/// The number of a label that is looked for: also one that was retired, or of which only the number is known.
///
/// # Errors
/// No label is, or was, called so.
pub(super) fn asked(taxonomy: &Taxonomy, name: &str, field: &str) -> Result<u32, Status> {
    taxonomy
        .number(name)
        .ok_or_else(|| said(taxonomy, name, field).err().unwrap_or_else(|| bad_field(field, "is unknown")))
}

/// What depends on names waits until they are known.
///
/// # Errors
/// They are not.
pub(super) fn known(taxonomy: &Taxonomy) -> Result<(), Status> {
    if taxonomy.why_missing().is_some() { Err(missing(taxonomy)) } else { Ok(()) }
}

fn missing(taxonomy: &Taxonomy) -> Status {
    let why = taxonomy.why_missing().unwrap_or_default();
    let what = format!("the labels of the taxonomy {} are not known to this node: {why}", taxonomy.named());
    let fix = "wait until a peer is connected that has the file, or ask a founder for the charter file, and: staydown charter apply FILE.sdc";
    refuse_with_fix(Code::FailedPrecondition, "TAXONOMY", what, fix)
}

fn nearest_names<'a>(taxonomy: &'a Taxonomy, name: &str) -> Vec<&'a str> {
    let mut near: Vec<&str> = Vec::new();
    while near.len() < NEAREST_SHOWN_MAX
        && let Some(next) = nearest(name, taxonomy.sayable_names().filter(|name| !near.contains(name)))
    {
        near.push(next);
    }
    near
}

/// The labels of this node.
pub(super) fn answer(shared: &Shared) -> l::GetTaxonomyResponse {
    let taxonomy = shared.taxonomy();
    let label = |(number, label): (&u32, &Label)| l::TaxonomyLabel {
        number: *number,
        name: label.name.clone(),
        facet: label.facet.name().into(),
        parent: label.parent.map(|parent| taxonomy.name(parent)).unwrap_or_default(),
        formerly: label.formerly.clone(),
        retired: label.retired,
        titles: label
            .titles
            .iter()
            .map(|(language, text)| l::LabelTitle { language: language.clone(), text: text.clone() })
            .collect(),
    };
    l::GetTaxonomyResponse {
        taxonomy: taxonomy.named().to_owned(),
        labels: taxonomy.labels().iter().map(label).collect(),
        file: shared.taxonomies().text().unwrap_or_default(),
        missing: taxonomy.why_missing().unwrap_or_default().to_owned(),
    }
}

/// Puts the file that comes with a charter where the node finds it once the charter counts. A charter that changes the
/// taxonomy comes with its file, or nobody might ever have it.
///
/// # Errors
/// There is no file and none is here; or it is not the one that the charter names.
pub(super) fn stock(shared: &Shared, named: &str, text: &Bytes) -> Result<(), Status> {
    let field = "taxonomy";
    let taxonomy = shared.taxonomy();
    let Some(named) = Named::parse(named).filter(|named| named.sha256.is_some()) else {
        let what = format!("is given, and the charter names {named:?}, which has no file");
        return if text.is_empty() { Ok(()) } else { Err(bad_field(field, what)) };
    };
    if text.is_empty() {
        if taxonomy.named() == named.to_string() {
            return Ok(());
        }
        let what = format!("the charter names another taxonomy ({named}) and its file does not come with it");
        let fix = "staydown charter set-taxonomy FILE puts it into the charter file";
        return Err(refuse_with_fix(Code::FailedPrecondition, "TAXONOMY", what, fix));
    }
    let not_ours = |error: NotTaken| match error {
        NotTaken::Write(error) => refuse(Code::DataLoss, "STORE", error.to_string()),
        wrong => bad_field(field, wrong.to_string()),
    };
    if taxonomy.named() == named.to_string() {
        // The charter that is in force may come again, with the file that is missing.
        let file = understood(&named, text).map_err(not_ours)?;
        return match shared.taxonomies().wanted() {
            Some(_) => shared.taxonomies().take(file.text.as_bytes()).map_err(not_ours),
            None => Ok(()),
        };
    }
    shared.taxonomies().stock(&named, text).map_err(not_ours)
}

/// Asks one peer for the missing file. Returns whether it came.
pub(super) async fn fetch(turn: Turn, shared: Arc<Shared>, client: PeerClient<Channel>, peer: String) -> bool {
    let id = RequestId::new();
    let span = tracing::error_span!("asks_peer", request_id = %id, call = "GetTaxonomy", peer);
    let fetched = asked_for(&id, shared, client).instrument(span).await;
    drop(turn);
    fetched
}

async fn asked_for(id: &RequestId, shared: Arc<Shared>, mut client: PeerClient<Channel>) -> bool {
    let Some(wanted) = shared.taxonomies().wanted() else { return true };
    let forum_id = Bytes::copy_from_slice(&shared.replica().charters().forum().0);
    let request = proto::TaxonomyRequest { forum_id, sha256: Bytes::copy_from_slice(&wanted) };
    let begun = clock::instant();
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.get_taxonomy(id.asks(request))).await;
    let file = match answer {
        Ok(Ok(reply)) => reply.into_inner().file,
        // A release that does not know the question says UNIMPLEMENTED: others are asked.
        Ok(Err(status)) => {
            tracing::debug!(code = %status.code(), why = status.message(), "the peer gives no taxonomy");
            return false;
        }
        Err(_elapsed) => return false,
    };
    let taken = tokio::task::spawn_blocking(move || shared.taxonomies().take(&file)).await;
    match taken {
        Ok(Ok(())) => {
            tracing::info!(took_ms = begun.elapsed().as_millis(), "the taxonomy came from a peer");
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the peer's taxonomy is not taken");
            false
        }
        Err(_panicked) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::taxonomy::Facet;

    #[test]
    fn a_label_that_cannot_be_said_is_refused_with_what_to_do() {
        let mut labels = Taxonomy::built_in().labels().clone();
        labels.insert(20, Label { retired: true, ..Label::new("emblem", Facet::ContentType) });
        let taxonomy = Taxonomy::new("forum-2".into(), labels);
        assert_eq!(said(&taxonomy, "symbol", "f").unwrap(), 13);
        for (name, expected) in [
            ("simbol", "not a label of the taxonomy forum-2; the nearest are symbol"),
            ("label-77", "not a label of the taxonomy forum-2"),
            ("emblem", "retired"),
            ("label-20", "retired"),
        ] {
            let why = said(&taxonomy, name, "f").unwrap_err();
            assert!(why.code() == Code::InvalidArgument && why.message().contains(expected), "{name}: {why:?}");
        }
        assert_eq!(nearest_names(&taxonomy, "emblem").len(), NEAREST_SHOWN_MAX);
        for (name, number) in [("emblem", 20), ("label-77", 77), ("label-20", 20)] {
            assert_eq!(asked(&taxonomy, name, "f").unwrap(), number, "what was said can be looked for");
        }
        assert!(asked(&taxonomy, "simbol", "f").is_err());
        let missing = Taxonomy::missing("forum-3".into(), "its file is not here yet".into());
        let why = said(&missing, "symbol", "f").unwrap_err();
        assert!(why.message().contains("forum-3 are not known to this node: its file is not here yet"), "{why:?}");
        assert_eq!(asked(&missing, "label-13", "f").unwrap(), 13);
        assert!(known(&missing).is_err() && known(&taxonomy).is_ok());
    }

    /// A peer of a release that has never heard of the question.
    #[derive(Clone)]
    struct Older;

    impl tower::Service<http::Request<tonic::body::Body>> for Older {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Ok(Status::unimplemented("").into_http()))
        }
    }

    impl tonic::server::NamedService for Older {
        const NAME: &'static str = "staydown.peer.v1.Peer";
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_of_an_older_release_gives_no_file_and_the_next_one_is_asked() {
        let forum = crate::replica::testing::TestForum::of_full(2);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let settings = crate::replica::testing::settings(1);
        let (handle, _, thread) =
            crate::engine::start(folder.path(), settings, forum.id, &forum.charters, runtime).unwrap();
        let shared = Arc::clone(handle.shared());
        let file = crate::taxonomy::TaxonomyFile::parse(crate::taxonomy::EXAMPLE_TEXT).unwrap();
        shared.taxonomies().follow(&file.named.to_string());

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(super::super::limits::server().add_service(Older).serve_with_incoming(incoming));
        let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
        let turn = shared.taxonomies().turn().unwrap();
        assert!(!fetch(turn, Arc::clone(&shared), PeerClient::new(channel), "bolt".into()).await);
        assert!(
            shared.taxonomies().wanted().is_some() && shared.taxonomies().turn().is_some(),
            "the turn is free again"
        );
        tasks.shutdown().await;
        drop(shared);
        handle.stop().await;
        thread.join().unwrap();
    }
}
