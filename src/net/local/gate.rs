//! Who of our company may make which call, and what is noted of it: the one table of both.
//!
//! Whoever comes over the Unix socket has no [`Caller`] and may do everything: the socket's mode says who that is. Whoever
//! comes over TCP, by gRPC, HTTP or console, was given one by its token. A call that changes something, or takes much of
//! the list away, is noted in the audit trail before it is answered; what was looked up never is.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;
use tracing::{Instrument as _, Span};

use super::{LocalService, batches, bug, evidence, export, report, streams, watch};
use crate::access::audit::Did;
use crate::access::{Access, Caller, Scope};
use crate::clock;
use crate::net::limits::SUBMISSIONS_AHEAD;
use crate::net::request_id::RequestId;
use crate::net::status::{REASON, refuse, refuse_with_fix};
use crate::replica::ids::{MemberId, hex};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum;

/// The local service behind its door.
#[derive(Clone)]
pub struct Gate {
    service: LocalService,
}

impl Gate {
    /// Guards `service`.
    pub fn new(service: LocalService) -> Self {
        Self { service }
    }

    /// What is guarded.
    pub fn service(&self) -> &LocalService {
        &self.service
    }

    /// Many hashes at once, as one message of `LookupBulk` is answered: for callers that have no stream.
    ///
    /// # Errors
    /// The caller may not, or what is wrong with the request.
    pub async fn lookup_batch(
        &self,
        request: Request<l::LookupBulkRequest>,
    ) -> Result<Response<l::LookupBulkResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.look_up_bulk(request.into_inner()).await.map(Response::new)
    }

    /// Lets through whoever may, and remembers who it is, for the note that follows. A refusal stands in the log and not
    /// in the trail: whoever may do nothing could otherwise push what others did out of it.
    fn may<T>(&self, request: &Request<T>, scope: Scope) -> Result<Acting, Status> {
        let acting = Acting::of(request);
        if let Some(caller) = &acting.caller {
            allowed(caller, acting.id.as_ref().map_or("", RequestId::as_str), scope)?;
        }
        Ok(acting)
    }

    /// Does what somebody asked for, and notes what came of it before the answer is given. Both also happen where the caller
    /// goes meanwhile: what was signed by then is signed.
    async fn carried<T: Send + 'static>(
        &self,
        acting: Acting,
        action: impl Into<String>,
        target: impl FnOnce(&T) -> String + Send + 'static,
        act: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        if acting.caller.is_none() {
            return act.await;
        }
        let (access, action) = (Arc::clone(&self.service.access), action.into());
        let whole = async move {
            let answer = act.await;
            noted(&access, &acting, action, target, answer).await
        };
        spawn(whole.instrument(Span::current())).await.map_err(|_panicked| bug())?
    }

    /// The same for what only reads, but much of it: it is noted when it is given, and only so often.
    async fn handed_out<T: Send + 'static>(
        &self,
        acting: Acting,
        action: &str,
        what: String,
        act: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        if acting.caller.as_ref().is_some_and(|caller| !self.service.access.may_be_noted(caller)) {
            return Err(refuse(Code::ResourceExhausted, "RATE", "too many exports: wait, and ask again"));
        }
        let answer = act.await?;
        noted(&self.service.access, &acting, action.to_owned(), |_| what, Ok(answer)).await
    }

    /// A stream that ends, and says why, when the token that it was opened with ends or is taken back.
    fn while_it_stands<T: Send + 'static>(&self, acting: &Acting, stream: streams::Answers<T>) -> streams::Answers<T> {
        let Some(caller) = acting.caller.clone() else { return stream };
        let access = Arc::clone(&self.service.access);
        let ended = Arc::clone(&access).ended(caller.clone());
        let farewell = stream::once(async move { access.time_left(&caller, clock::now()).is_none() });
        let farewell = farewell.filter_map(async |has_ended| has_ended.then(|| Err(token_ended())));
        stream.take_until(Box::pin(ended)).chain(farewell).boxed()
    }
}

fn token_ended() -> Status {
    refuse(Code::Unauthenticated, "TOKEN", "the token has ended, or was taken back")
}

#[expect(clippy::disallowed_methods, reason = "the task ends with the act that it carries out")]
fn spawn<T: Send + 'static>(act: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(act)
}

/// Notes what came of an act, and hands the answer on.
async fn noted<T>(
    access: &Arc<Access>,
    acting: &Acting,
    action: String,
    target: impl FnOnce(&T) -> String,
    answer: Result<T, Status>,
) -> Result<T, Status> {
    let Some(caller) = acting.caller.clone() else { return answer };
    let (target, outcome) = match &answer {
        Ok(answer) => (target(answer), "OK".to_owned()),
        Err(status) => (String::new(), why(status)),
    };
    let id = acting.id.as_ref().map_or_else(String::new, ToString::to_string);
    note(access, caller, id, action, target, outcome).await;
    answer
}

/// Notes an act, and returns when that is on stable storage.
async fn note(access: &Arc<Access>, caller: Caller, id: String, action: String, target: String, outcome: String) {
    let access = Arc::clone(access);
    let noted = tokio::task::spawn_blocking(move || {
        let did = Did { action: &action, target: &target, outcome: &outcome };
        access.audit().note(&caller, &id, clock::now(), &did)
    });
    match noted.await {
        Ok(Ok(())) => {}
        // What was done cannot be undone for it.
        Ok(Err(error)) => tracing::error!(%error, "an act could not be noted in the audit trail"),
        Err(error) => tracing::error!(%error, "please report this"),
    }
}

/// Who acts, under which request.
struct Acting {
    caller: Option<Caller>,
    id: Option<RequestId>,
}

impl Acting {
    fn of<T>(request: &Request<T>) -> Self {
        Self { caller: request.extensions().get().cloned(), id: request.extensions().get().cloned() }
    }
}

/// Lets a caller through that may, and says of any other in the log under which request it asked.
///
/// # Errors
/// The token allows less.
pub fn allowed(caller: &Caller, request_id: &str, scope: Scope) -> Result<(), Status> {
    if caller.scopes.allow(scope) {
        return Ok(());
    }
    tracing::warn!(token = %caller.name, needs = %scope, request_id, "a token allows less than was asked for");
    Err(refused(caller, scope))
}

/// The refusal of a caller whose token allows less.
pub(super) fn refused(caller: &Caller, scope: Scope) -> Status {
    let has = caller.scopes.names().join(", ");
    let message = format!("the token {} allows {has}; this needs {scope}", caller.name);
    refuse_with_fix(
        Code::PermissionDenied,
        "SCOPE",
        message,
        "ask whoever runs the node for another token: staydown token new",
    )
}

/// The short reason of a refusal. Its message may name what was asked for, which is kept nowhere.
fn why(status: &Status) -> String {
    let trailer = status.metadata().get(REASON).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let reason = trailer.or_else(|| status.get_details_error_info().map(|info| info.reason));
    reason.unwrap_or_else(|| status.code().description().to_owned())
}

/// What saying this needs.
fn scope_of(statement: &l::Statement) -> Scope {
    let decides = statement.retract.is_some()
        || statement.allow.is_some()
        || statement.incident.is_some()
        || statement.resource.is_some();
    match statement {
        _ if statement.suspend.is_some() => Scope::Admin,
        _ if decides => Scope::Review,
        _ => Scope::Submit,
    }
}

/// What saying all of this needs. The scopes are not ordered, so each that is needed is asked for.
fn scopes_of(request: &l::SubmitRequest) -> impl Iterator<Item = Scope> + '_ {
    Scope::ALL.into_iter().filter(|scope| match scope {
        // A submission that says nothing is refused for that; until then it is one.
        Scope::Submit => request.statements.is_empty() || request.statements.iter().any(|s| scope_of(s) == *scope),
        _ => request.statements.iter().any(|s| scope_of(s) == *scope),
    })
}

/// What is said, in words of the command line: of all statements the first, and how many more.
fn action_of(request: &l::SubmitRequest) -> String {
    let Some(first) = request.statements.first() else { return "submit".into() };
    let word = match first.stance() {
        _ if first.suspend.is_some() => "suspend",
        _ if first.retract.is_some() => "retract",
        _ if first.allow.is_some() => "allow",
        _ if first.referral.is_some() => "referral",
        _ if first.incident.is_some() => "incident",
        _ if first.resource.is_some() => "resource",
        _ if first.preserve.is_some() => "preserve",
        _ if first.outcome.is_some() => "outcome",
        l::Stance::Endorse => "endorse",
        l::Stance::Dispute => "dispute",
        l::Stance::Neutral => "withdraw",
        l::Stance::Submit | l::Stance::Unspecified => "submit",
    };
    match request.statements.len() {
        1 => word.into(),
        count => format!("{word} and {} more", count - 1),
    }
}

/// Where it stands in our log.
fn places(answer: &l::SubmitResponse) -> String {
    if answer.state() == l::SubmitState::Queued {
        return "queued".into();
    }
    let place = |receipt: &l::Receipt| {
        let member = MemberId::from_slice(&receipt.member_id).map(|id| id.to_string()).unwrap_or_default();
        format!("{member}/{}@{}#{}", receipt.log_no, receipt.seq, receipt.index)
    };
    match &answer.receipts[..] {
        [] => String::new(),
        [one] => place(one),
        [first, .., last] => format!("{} to {}", place(first), place(last)),
    }
}

#[tonic::async_trait]
impl Forum for Gate {
    async fn submit(&self, request: Request<l::SubmitRequest>) -> Result<Response<l::SubmitResponse>, Status> {
        for scope in scopes_of(request.get_ref()) {
            self.may(&request, scope)?;
        }
        let (acting, action) = (Acting::of(&request), action_of(request.get_ref()));
        let service = self.service.clone();
        let act = async move { service.submit(request).await };
        self.carried(acting, action, |answer| places(answer.get_ref()), act).await
    }

    async fn lookup(&self, request: Request<l::LookupRequest>) -> Result<Response<l::LookupResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.lookup(request).await
    }

    async fn get_entry(&self, request: Request<l::GetEntryRequest>) -> Result<Response<l::GetEntryResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.get_entry(request).await
    }

    async fn list_entries(
        &self,
        request: Request<l::ListEntriesRequest>,
    ) -> Result<Response<l::ListEntriesResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_entries(request).await
    }

    async fn status(&self, request: Request<l::StatusRequest>) -> Result<Response<l::StatusResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.status(request).await
    }

    async fn list_peers(
        &self,
        request: Request<l::ListPeersRequest>,
    ) -> Result<Response<l::ListPeersResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_peers(request).await
    }

    async fn get_charters(
        &self,
        request: Request<l::GetChartersRequest>,
    ) -> Result<Response<l::GetChartersResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.get_charters(request).await
    }

    async fn apply_charter(
        &self,
        request: Request<l::ApplyCharterRequest>,
    ) -> Result<Response<l::ApplyCharterResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.apply_charter(request).await };
        self.carried(acting, "charter apply", |answer| format!("charter {}", answer.get_ref().version), act).await
    }

    async fn verify_log(
        &self,
        request: Request<l::VerifyLogRequest>,
    ) -> Result<Response<l::VerifyLogResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.verify_log(request).await };
        self.carried(acting, "log verify", |answer| answer.get_ref().first_break.clone(), act).await
    }

    async fn rotate_logs(
        &self,
        request: Request<l::RotateLogsRequest>,
    ) -> Result<Response<l::RotateLogsResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.rotate_logs(request).await };
        self.carried(acting, "log rotate", |answer| format!("{} logs", answer.get_ref().logs.len()), act).await
    }

    async fn resubmit(&self, request: Request<l::ResubmitRequest>) -> Result<Response<l::ResubmitResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.resubmit(request).await };
        self.carried(acting, "log resubmit", |answer| format!("{} records", answer.get_ref().records), act).await
    }

    async fn close_logs(
        &self,
        request: Request<l::CloseLogsRequest>,
    ) -> Result<Response<l::CloseLogsResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.close_logs(request).await };
        self.carried(acting, "log close", |answer| format!("{} logs", answer.get_ref().logs.len()), act).await
    }

    async fn get_record(
        &self,
        request: Request<l::GetRecordRequest>,
    ) -> Result<Response<l::GetRecordResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.get_record(request).await
    }

    async fn get_policy(
        &self,
        request: Request<l::GetPolicyRequest>,
    ) -> Result<Response<l::GetPolicyResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.get_policy(request).await
    }

    type ExportEvidenceStream = evidence::Pieces;

    async fn export_evidence(
        &self,
        request: Request<l::ExportEvidenceRequest>,
    ) -> Result<Response<Self::ExportEvidenceStream>, Status> {
        let acting = self.may(&request, Scope::Lookup)?;
        let what = match request.get_ref().records.len() {
            0 => "the whole list".to_owned(),
            count => format!("{count} records"),
        };
        let service = self.service.clone();
        let act = async move { service.export_evidence(request).await };
        self.handed_out(acting, "export evidence", what, act).await
    }

    async fn list_reviews(
        &self,
        request: Request<l::ListReviewsRequest>,
    ) -> Result<Response<l::ListReviewsResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_reviews(request).await
    }

    async fn list_referrals(
        &self,
        request: Request<l::ListReferralsRequest>,
    ) -> Result<Response<l::ListReferralsResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_referrals(request).await
    }

    async fn list_incidents(
        &self,
        request: Request<l::ListIncidentsRequest>,
    ) -> Result<Response<l::ListIncidentsResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_incidents(request).await
    }

    async fn list_resources(
        &self,
        request: Request<l::ListResourcesRequest>,
    ) -> Result<Response<l::ListResourcesResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_resources(request).await
    }

    type ReportStream = report::Parts;

    async fn report(&self, request: Request<l::ReportRequest>) -> Result<Response<Self::ReportStream>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.report(request).await
    }

    async fn reset_breaker(
        &self,
        request: Request<l::ResetBreakerRequest>,
    ) -> Result<Response<l::ResetBreakerResponse>, Status> {
        let acting = self.may(&request, Scope::Review)?;
        // Only what is listed trips the breaker: its subject is no secret, but a name in clear would be.
        let what = request.get_ref().signal.as_ref().map(|signal| signal.r#type.clone()).unwrap_or_default();
        let service = self.service.clone();
        let act = async move { service.reset_breaker(request).await };
        self.carried(acting, "breaker reset", |_| what, act).await
    }

    async fn import(&self, request: Request<l::ImportRequest>) -> Result<Response<l::ImportResponse>, Status> {
        let acting = self.may(&request, Scope::Submit)?;
        let batch = request.get_ref().rows.first().map(|row| hex(row.client_key.get(..8).unwrap_or_default()));
        let what = format!("batch {}, {} rows", batch.unwrap_or_default(), request.get_ref().rows.len());
        let service = self.service.clone();
        let act = async move { service.import(request).await };
        self.carried(acting, "import", |_| what, act).await
    }

    async fn list_batches(
        &self,
        request: Request<l::ListBatchesRequest>,
    ) -> Result<Response<l::ListBatchesResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.list_batches(request).await
    }

    type UndoBatchStream = batches::Words;

    async fn undo_batch(
        &self,
        request: Request<l::UndoBatchRequest>,
    ) -> Result<Response<Self::UndoBatchStream>, Status> {
        let acting = self.may(&request, Scope::Submit)?;
        let (what, dry_run) = (format!("batch {}", hex(&request.get_ref().batch)), request.get_ref().dry_run);
        if dry_run {
            return self.service.undo_batch(request).await;
        }
        let service = self.service.clone();
        self.carried(acting, "batch undo", |_| what, async move { service.undo_batch(request).await }).await
    }

    type ExportEntriesStream = export::Parts;

    async fn export_entries(
        &self,
        request: Request<l::ListEntriesRequest>,
    ) -> Result<Response<Self::ExportEntriesStream>, Status> {
        let acting = self.may(&request, Scope::Lookup)?;
        let service = self.service.clone();
        let act = async move { service.export_entries(request).await };
        self.handed_out(acting, "export list", String::new(), act).await
    }

    async fn get_taxonomy(
        &self,
        request: Request<l::GetTaxonomyRequest>,
    ) -> Result<Response<l::GetTaxonomyResponse>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.get_taxonomy(request).await
    }

    type SubmitStreamStream = streams::Answers<l::SubmitResponse>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<l::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let acting = self.may(&request, Scope::Submit)?;
        let (_, extensions, requests) = request.into_parts();
        let caller = extensions.get::<Caller>().cloned();
        let access = Arc::clone(&self.service.access);
        // Who may not say one of them is told so, and the stream ends: a program with too small a token is set up wrongly.
        let checked = requests.map(move |request| {
            let request = request?;
            let Some(caller) = &caller else { return Ok(request) };
            if access.time_left(caller, clock::now()).is_none() {
                return Err(token_ended());
            }
            let missing = scopes_of(&request).find(|scope| !caller.scopes.allow(*scope));
            missing.map_or(Ok(request), |scope| Err(refused(caller, scope)))
        });
        let answers = streams::submit(&self.service, Box::pin(checked))?;
        if acting.caller.is_none() {
            return Ok(Response::new(answers));
        }
        // Answers are taken, and noted, whether somebody reads them or not: what was read of the requests is signed.
        let (heard, told) = mpsc::channel(SUBMISSIONS_AHEAD);
        let (access, span) = (Arc::clone(&self.service.access), Span::current());
        let taking = async move {
            let mut answers = answers;
            while let Some(answer) = answers.next().await {
                let answer = noted(&access, &acting, "submit".into(), places, answer).await;
                drop(heard.send(answer).await); // whoever asked may have gone
            }
        };
        drop(spawn(taking.instrument(span)));
        Ok(Response::new(ReceiverStream::new(told).boxed()))
    }

    type LookupStreamStream = streams::Answers<l::LookupResponse>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<l::LookupRequest>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let acting = self.may(&request, Scope::Lookup)?;
        let answers = self.service.lookup_stream(request).await?;
        Ok(answers.map(|answers| self.while_it_stands(&acting, answers)))
    }

    type LookupBulkStream = streams::Answers<l::LookupBulkResponse>;

    async fn lookup_bulk(
        &self,
        request: Request<Streaming<l::LookupBulkRequest>>,
    ) -> Result<Response<Self::LookupBulkStream>, Status> {
        let acting = self.may(&request, Scope::Lookup)?;
        let answers = self.service.lookup_bulk(request).await?;
        Ok(answers.map(|answers| self.while_it_stands(&acting, answers)))
    }

    type WatchStream = watch::Events;

    async fn watch(&self, request: Request<l::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let acting = self.may(&request, Scope::Lookup)?;
        let events = self.service.watch(request).await?;
        Ok(events.map(|events| self.while_it_stands(&acting, events)))
    }

    async fn create_token(
        &self,
        request: Request<l::CreateTokenRequest>,
    ) -> Result<Response<l::CreateTokenResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let name = request.get_ref().name.clone();
        let service = self.service.clone();
        let act = async move { service.create_token(request).await };
        self.carried(acting, "token new", |_| name, act).await
    }

    async fn list_tokens(
        &self,
        request: Request<l::ListTokensRequest>,
    ) -> Result<Response<l::ListTokensResponse>, Status> {
        self.may(&request, Scope::Admin)?;
        self.service.list_tokens(request).await
    }

    async fn revoke_token(
        &self,
        request: Request<l::RevokeTokenRequest>,
    ) -> Result<Response<l::RevokeTokenResponse>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let name = request.get_ref().name.clone();
        let service = self.service.clone();
        let act = async move { service.revoke_token(request).await };
        self.carried(acting, "token revoke", |_| name, act).await
    }

    type ListAuditStream = streams::Answers<l::AuditedAct>;

    async fn list_audit(
        &self,
        request: Request<l::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        let acting = self.may(&request, Scope::Admin)?;
        let service = self.service.clone();
        let act = async move { service.list_audit(request).await };
        self.handed_out(acting, "audit read", String::new(), act).await
    }
}

/// Notes something that is no call, and went well: that somebody signed in, or took an export out of pages.
pub async fn note_act(access: &Arc<Access>, caller: Caller, id: &RequestId, action: &str, target: String) {
    note(access, caller, id.to_string(), action.to_owned(), target, "OK".into()).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::access::{Role, Scopes, Via};
    use crate::engine;
    use crate::replica::testing::{TestForum, settings};

    fn caller(scopes: Scopes) -> Caller {
        Caller { name: "anna".into(), scopes, via: Via::Http, token: None }
    }

    fn by<T>(message: T, scopes: Scopes) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(caller(scopes));
        request.extensions_mut().insert(RequestId::taken("request-1").unwrap());
        request
    }

    fn said(change: impl FnOnce(&mut l::Statement)) -> l::SubmitRequest {
        let value = "ab".repeat(32);
        let signal = Some(l::Signal { r#type: "sha256".into(), value });
        let mut statement = l::Statement { signal, stance: l::Stance::Submit.into(), ..Default::default() };
        change(&mut statement);
        l::SubmitRequest { statements: vec![statement], ..Default::default() }
    }

    #[test]
    fn each_statement_needs_its_scope() {
        type Change = fn(&mut l::Statement);
        let needed = |change: Change| scopes_of(&said(change)).collect::<Vec<_>>();
        let cases: [(Change, Scope); 9] = [
            (|_| (), Scope::Submit),
            (|s| s.stance = l::Stance::Dispute.into(), Scope::Submit),
            (|s| s.referral = Some(l::Referral::default()), Scope::Submit),
            (|s| s.preserve = Some(l::Preservation::default()), Scope::Submit),
            (|s| s.retract = Some(l::RetractVote::default()), Scope::Review),
            (|s| s.allow = Some(l::Certification::default()), Scope::Review),
            (|s| s.incident = Some(l::IncidentNotice::default()), Scope::Review),
            (|s| s.resource = Some(l::Resource::default()), Scope::Review),
            (|s| s.suspend = Some(l::Suspension::default()), Scope::Admin),
        ];
        for (change, scope) in cases {
            assert_eq!(needed(change), [scope]);
        }
        let mut both = said(|_| ());
        both.statements.extend(said(|s| s.suspend = Some(l::Suspension::default())).statements);
        assert_eq!(scopes_of(&both).collect::<Vec<_>>(), [Scope::Submit, Scope::Admin], "none hides behind another");
        assert_eq!(scopes_of(&l::SubmitRequest::default()).collect::<Vec<_>>(), [Scope::Submit]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_may_not_is_refused_and_what_is_done_is_noted_without_what_was_looked_up() {
        let forum = TestForum::of_full(1);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let access = Arc::new(Access::open(folder.path()).unwrap());
        let service = LocalService::new(handle.clone(), settings(1), String::new(), BTreeMap::new());
        let gate = Gate::new(service.with_access(Arc::clone(&access), Some("http://127.0.0.1:1".into())));

        let viewer = Role::Viewer.scopes();
        let refused = gate.submit(by(said(|_| ()), viewer)).await.unwrap_err();
        assert_eq!((refused.code(), why(&refused)), (Code::PermissionDenied, "SCOPE".into()));
        assert!(refused.message().contains("needs submit"), "{}", refused.message());
        assert!(gate.list_tokens(by(l::ListTokensRequest {}, Role::Reviewer.scopes())).await.is_err());
        let lookup = l::LookupRequest {
            signals: said(|_| ()).statements[0].signal.clone().into_iter().collect(),
            ..Default::default()
        };
        assert!(gate.lookup(by(lookup.clone(), viewer)).await.is_ok());
        assert!(gate.lookup(by(lookup, Scopes::of(&[Scope::Metrics]))).await.is_err());
        gate.submit(by(said(|_| ()), Role::Reviewer.scopes())).await.unwrap();
        let token = l::CreateTokenRequest { name: "bob".into(), role: "viewer".into(), ..Default::default() };
        let made = gate.create_token(by(token, Role::Admin.scopes())).await.unwrap().into_inner();
        assert_eq!(made.link, format!("http://127.0.0.1:1/#t={}", made.secret));
        assert!(gate.submit(Request::new(said(|_| ()))).await.is_ok(), "over the Unix socket nobody shows a token");

        let mut acts = Vec::new();
        let all = |act| {
            acts.push(act);
            true
        };
        access.audit().read(crate::replica::ids::TimeMs(0), all).unwrap();
        let told: Vec<_> = acts.iter().map(|act| (act.action.as_str(), act.outcome.as_str())).collect();
        assert_eq!(told, [("submit", "OK"), ("token new", "OK")]);
        assert!(acts[0].target.ends_with("/0@1#1") && acts[0].request_id == "request-1", "{:?}", acts[0]);
        assert!(
            acts.iter().all(|act| !format!("{act:?}").contains("abab") && !format!("{act:?}").contains(&made.secret))
        );
        drop(gate);
        handle.stop().await;
        thread.join().unwrap();
    }
}
