//! The command line's side of the local service: the node answers, or it is said plainly why not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt as _;
use tower::service_fn;

use super::failure::{Exit, Failure};
use crate::wire::local;
use crate::wire::local_service::forum_client::ForumClient;

/// Longest answer: a page of 1,000 entries with a word of each of fifty members.
const ANSWER_SIZE_MAX: usize = 64 * 1024 * 1024;
/// How long an ordinary call may take before the node counts as hung.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Verifying reads everything; ten million entries take minutes.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A running node, reached over its Unix socket.
#[derive(Clone)]
pub(super) struct Node {
    forum: ForumClient<Channel>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $method:ident($request:ident) -> $response:ident, $timeout:expr;)*) => {
        impl Node {
            $($(#[$doc])*
            ///
            /// # Errors
            /// What the node answers, as a message and an exit code.
            pub(super) async fn $name(&self, request: local::$request) -> Result<local::$response, Failure> {
                let mut forum = self.forum.clone();
                within($timeout, forum.$method(request)).await
            })*
        }
    };
}

calls! {
    /// Signs and shares statements.
    submit: submit(SubmitRequest) -> SubmitResponse, CALL_TIMEOUT;
    /// Takes up the rows of a file.
    import: import(ImportRequest) -> ImportResponse, CALL_TIMEOUT;
    /// The imports of our company.
    batches: list_batches(ListBatchesRequest) -> ListBatchesResponse, CALL_TIMEOUT;
    /// Looks an item up.
    lookup: lookup(LookupRequest) -> LookupResponse, CALL_TIMEOUT;
    /// One entry.
    entry: get_entry(GetEntryRequest) -> GetEntryResponse, CALL_TIMEOUT;
    /// A page of the list.
    entries: list_entries(ListEntriesRequest) -> ListEntriesResponse, CALL_TIMEOUT;
    /// A page of what waits for a person.
    reviews: list_reviews(ListReviewsRequest) -> ListReviewsResponse, CALL_TIMEOUT;
    /// A page of referrals.
    referrals: list_referrals(ListReferralsRequest) -> ListReferralsResponse, CALL_TIMEOUT;
    /// Attacks, open and closed.
    incidents: list_incidents(ListIncidentsRequest) -> ListIncidentsResponse, CALL_TIMEOUT;
    /// Certified counter-narratives.
    resources: list_resources(ListResourcesRequest) -> ListResourcesResponse, CALL_TIMEOUT;
    /// A person keeps what floods.
    reset_breaker: reset_breaker(ResetBreakerRequest) -> ResetBreakerResponse, CALL_TIMEOUT;
    /// State of the node.
    status: status(StatusRequest) -> StatusResponse, CALL_TIMEOUT;
    /// State of its peers.
    peers: list_peers(ListPeersRequest) -> ListPeersResponse, CALL_TIMEOUT;
    /// The charter chain.
    charters: get_charters(GetChartersRequest) -> GetChartersResponse, CALL_TIMEOUT;
    /// Applies a charter.
    apply: apply_charter(ApplyCharterRequest) -> ApplyCharterResponse, CALL_TIMEOUT;
    /// One record by its place.
    record: get_record(GetRecordRequest) -> GetRecordResponse, CALL_TIMEOUT;
    /// The policy in force.
    policy: get_policy(GetPolicyRequest) -> GetPolicyResponse, CALL_TIMEOUT;
    /// What labels mean.
    taxonomy: get_taxonomy(GetTaxonomyRequest) -> GetTaxonomyResponse, CALL_TIMEOUT;
    /// Checks everything stored.
    verify: verify_log(VerifyLogRequest) -> VerifyLogResponse, VERIFY_TIMEOUT;
    /// Closes our logs and goes on under new numbers and a new seed.
    rotate_logs: rotate_logs(RotateLogsRequest) -> RotateLogsResponse, CALL_TIMEOUT;
    /// Closes our logs, under the seed that we have.
    close_logs: close_logs(CloseLogsRequest) -> CloseLogsResponse, CALL_TIMEOUT;
    /// Makes a token.
    create_token: create_token(CreateTokenRequest) -> CreateTokenResponse, CALL_TIMEOUT;
    /// The tokens that there are.
    tokens: list_tokens(ListTokensRequest) -> ListTokensResponse, CALL_TIMEOUT;
    /// Takes a token back.
    revoke_token: revoke_token(RevokeTokenRequest) -> RevokeTokenResponse, CALL_TIMEOUT;
    /// Says again what does not count.
    resubmit: resubmit(ResubmitRequest) -> ResubmitResponse, CALL_TIMEOUT;
}

impl Node {
    /// Withdraws a batch; `heard` is called with each word on how far it is.
    ///
    /// # Errors
    /// What the node answers, as a message and an exit code.
    pub(super) async fn undo(
        &self,
        request: local::UndoBatchRequest,
        mut heard: impl FnMut(local::UndoProgress),
    ) -> Result<(), Failure> {
        let mut forum = self.forum.clone();
        let mut words = within(CALL_TIMEOUT, forum.undo_batch(request)).await?;
        while let Some(word) = within(CALL_TIMEOUT, async { words.message().await.map(Response::new) }).await? {
            heard(word);
        }
        Ok(())
    }

    /// The list, in the order of its subjects; `heard` is called with each part of it, and ends it by failing.
    ///
    /// # Errors
    /// What the node answers, or `heard` does.
    pub(super) async fn export(
        &self,
        request: local::ListEntriesRequest,
        mut heard: impl FnMut(local::ExportPart) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut forum = self.forum.clone();
        let mut parts = within(CALL_TIMEOUT, forum.export_entries(request)).await?;
        // A filter that little fits may look at a long list before it finds something to answer.
        while let Some(part) = within(VERIFY_TIMEOUT, async { parts.message().await.map(Response::new) }).await? {
            heard(part)?;
        }
        Ok(())
    }

    /// The audit trail; `heard` is called with each act, and ends it by failing.
    ///
    /// # Errors
    /// What the node answers, or `heard` does.
    pub(super) async fn audit(
        &self,
        request: local::ListAuditRequest,
        mut heard: impl FnMut(local::AuditedAct) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut forum = self.forum.clone();
        let mut acts = within(CALL_TIMEOUT, forum.list_audit(request)).await?;
        while let Some(act) = within(CALL_TIMEOUT, async { acts.message().await.map(Response::new) }).await? {
            heard(act)?;
        }
        Ok(())
    }

    /// The transparency report of a period; `heard` is called with each part of it as it comes.
    ///
    /// # Errors
    /// What the node answers, as a message and an exit code.
    pub(super) async fn report(
        &self,
        request: local::ReportRequest,
        mut heard: impl FnMut(local::report_part::Part),
    ) -> Result<(), Failure> {
        let mut forum = self.forum.clone();
        let mut parts = within(CALL_TIMEOUT, forum.report(request)).await?;
        // Between two parts; a large store is read for minutes, and tells every second how far it is.
        while let Some(part) = within(VERIFY_TIMEOUT, async { parts.message().await.map(Response::new) }).await? {
            part.part.into_iter().for_each(&mut heard);
        }
        Ok(())
    }

    /// Looks up many hashes; one answer a request, in their order.
    ///
    /// # Errors
    /// What the node answers, as a message and an exit code.
    pub(super) async fn bulk(
        &self,
        requests: Vec<local::LookupBulkRequest>,
    ) -> Result<Vec<local::LookupBulkResponse>, Failure> {
        let mut forum = self.forum.clone();
        let mut stream = within(CALL_TIMEOUT, forum.lookup_bulk(tokio_stream::iter(requests))).await?;
        let mut answers = Vec::new();
        while let Some(answer) = within(CALL_TIMEOUT, async { stream.message().await.map(Response::new) }).await? {
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Connects to the node that listens on `socket`.
    ///
    /// # Errors
    /// Nobody listens there (exit 5), or we may not ask.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Failure> {
        // Tried once by hand: tonic's own error hides what the operating system said.
        UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
        let path = PathBuf::from(socket);
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://local.invalid")
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable(socket, &io::Error::other(error)))?;
        Ok(Self { forum: ForumClient::new(channel).max_decoding_message_size(ANSWER_SIZE_MAX) })
    }
}

/// What an evidence file is made of, as the node sends it.
pub(super) struct Pieces(Streaming<local::EvidencePiece>);

impl Pieces {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// What the node answers, or that it has not for a long time.
    pub(super) async fn next(&mut self) -> Result<Option<local::EvidencePiece>, Failure> {
        within(VERIFY_TIMEOUT, async { self.0.message().await.map(Response::new) }).await
    }
}

/// What changes of the list, as the node sends it.
pub(super) struct Changes(Streaming<local::WatchEvent>);

impl Changes {
    /// The next event, however long that takes; none: the node stops.
    ///
    /// # Errors
    /// What the node answers.
    pub(super) async fn next(&mut self) -> Result<Option<local::WatchEvent>, Failure> {
        match self.0.message().await {
            Err(status) if reason(&status).as_deref() == Some("DRAINING") => Ok(None),
            event => event.map_err(|status| refused(&status)),
        }
    }
}

impl Node {
    /// What changes of the list.
    ///
    /// # Errors
    /// What the node answers.
    pub(super) async fn watch(&self, request: local::WatchRequest) -> Result<Changes, Failure> {
        let mut forum = self.forum.clone();
        within(CALL_TIMEOUT, forum.watch(request)).await.map(Changes)
    }

    /// The whole list, or some records.
    ///
    /// # Errors
    /// What the node answers.
    pub(super) async fn evidence(&self, request: local::ExportEvidenceRequest) -> Result<Pieces, Failure> {
        let mut forum = self.forum.clone();
        within(CALL_TIMEOUT, forum.export_evidence(request)).await.map(Pieces)
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let place = socket.display();
    let failure = Failure::new(Exit::Unreachable, format!("the node cannot be reached: {place}: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failure.fix("staydown run"),
        io::ErrorKind::PermissionDenied => failure
            .culprit("the settings local.socket and local.mode say who may ask this node")
            .fix("run this as the node's user, or widen local.mode"),
        _ => failure,
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status)),
        Err(_elapsed) => {
            let cause = format!("the node has not answered for {} s", limit.as_secs());
            Err(Failure::new(Exit::Unreachable, cause).fix("look at the node's log; staydown status"))
        }
    }
}

fn reason(status: &Status) -> Option<String> {
    status.get_error_details().error_info().map(|told| told.reason.clone())
}

/// The node's refusal as message and exit code. The one place where gRPC codes are translated.
fn refused(status: &Status) -> Failure {
    let details = status.get_error_details();
    let exit = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::AlreadyExists
        | Code::Aborted => Exit::Refused,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
        Code::DataLoss => Exit::Storage,
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal => Exit::Failed,
    };
    let reason = reason(status);
    let cause = match &reason {
        Some(reason) if !reason.is_empty() => format!("{} ({reason})", status.message()),
        _ => status.message().to_owned(),
    };
    let mut failure = Failure::new(exit, if cause.is_empty() { format!("{:?}", status.code()) } else { cause });
    for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
        failure = failure.culprit(format!("{}: {}", violation.field, violation.description));
    }
    for violation in details.precondition_failure().into_iter().flat_map(|failed| &failed.violations) {
        failure = failure.culprit(format!("{}: {}", violation.subject, violation.description));
    }
    match details.error_info().and_then(|told| told.metadata.get("fix")) {
        Some(fix) => failure.fix(fix.clone()),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn refusals_become_exit_codes() {
        for (code, exit) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::FailedPrecondition, 4),
            (Code::ResourceExhausted, 4),
            (Code::Unavailable, 5),
            (Code::DataLoss, 75),
            (Code::Internal, 1),
        ] {
            assert_eq!(refused(&Status::new(code, "x")).exit as u8, exit, "{code:?}");
        }
    }

    #[test]
    fn details_of_a_refusal_are_shown() {
        let mut details = ErrorDetails::with_bad_request_violation("statements[1].labels", "got \"x\"");
        details.set_error_info("LABEL", "staydown", HashMap::from([("fix".to_owned(), "use y".to_owned())]));
        let status = Status::with_error_details(Code::InvalidArgument, "a label is unknown", details);
        let failure = refused(&status);
        assert_eq!(failure.cause, "a label is unknown (LABEL)");
        assert_eq!(failure.culprits, ["statements[1].labels: got \"x\""]);
        assert_eq!(failure.fix.as_deref(), Some("use y"));
    }

    #[tokio::test]
    async fn a_node_that_does_not_run_is_unreachable_and_the_cure_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("local.sock");
        let failure = Node::connect(&socket).await.err().unwrap();
        assert_eq!((failure.exit as u8, failure.fix.as_deref()), (5, Some("staydown run")));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let failure = Node::connect(&socket).await.err().unwrap();
        assert_eq!((failure.exit as u8, failure.fix.as_deref()), (5, Some("staydown run")));
    }
}
