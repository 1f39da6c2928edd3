//! Who of our company may make which call, and what is noted of it: the one table of both.
//!
//! Whoever comes over the Unix socket has no [`Caller`] and may do everything: the socket's mode says who that is. Whoever
//! comes over TCP, by gRPC, HTTP or console, was given one by its token. A call that changes something, or takes much of
//! the list away, is noted in the audit trail before it is answered; what was looked up never is.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{LocalService, batches, evidence, export, report, streams, watch};
use crate::access::audit::Did;
use crate::access::{Access, Caller, Scope};
use crate::clock;
use crate::net::request_id::RequestId;
use crate::net::status::{REASON, refuse_with_fix};
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

    /// Lets through whoever may.
    fn may<T>(&self, request: &Request<T>, scope: Scope) -> Result<(), Status> {
        match request.extensions().get::<Caller>() {
            Some(caller) if !caller.scopes.allow(scope) => {
                self.note(request.extensions().get(), Some(caller), "refused", scope.name(), "SCOPE");
                Err(refused(caller, scope))
            }
            _ => Ok(()),
        }
    }

    /// The same, and remembers who it is, for the note that follows.
    fn act<T>(&self, request: &Request<T>, scope: Scope) -> Result<Acting, Status> {
        self.may(request, scope)?;
        let (caller, id) = (request.extensions().get().cloned(), request.extensions().get().cloned());
        Ok(Acting { caller, id })
    }

    fn note(&self, id: Option<&RequestId>, caller: Option<&Caller>, action: &str, target: &str, outcome: &str) {
        let Some(caller) = caller else { return };
        let did = Did { action, target, outcome };
        let noted = self.service.access.audit().note(caller, id.map_or("", RequestId::as_str), clock::now(), &did);
        if let Err(error) = noted {
            // What was done cannot be undone for it.
            tracing::error!(%error, action, "an act could not be noted in the audit trail");
        }
    }

    /// Notes what came of an act, and hands the answer on.
    fn noted<T>(
        &self,
        acting: &Acting,
        action: &str,
        target: impl FnOnce(&T) -> String,
        answer: Result<T, Status>,
    ) -> Result<T, Status> {
        if acting.caller.is_some() {
            let (target, outcome) = match &answer {
                Ok(answer) => (target(answer), "OK".to_owned()),
                Err(status) => (String::new(), why(status)),
            };
            self.note(acting.id.as_ref(), acting.caller.as_ref(), action, &target, &outcome);
        }
        answer
    }
}

/// Who acts, under which request.
struct Acting {
    caller: Option<Caller>,
    id: Option<RequestId>,
}

fn refused(caller: &Caller, scope: Scope) -> Status {
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
        let (caller, id) = (request.extensions().get().cloned(), request.extensions().get().cloned());
        let (acting, action) = (Acting { caller, id }, action_of(request.get_ref()));
        let answer = self.service.submit(request).await;
        self.noted(&acting, &action, |answer| places(answer.get_ref()), answer)
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
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.apply_charter(request).await;
        self.noted(&acting, "charter apply", |answer| format!("charter {}", answer.get_ref().version), answer)
    }

    async fn verify_log(
        &self,
        request: Request<l::VerifyLogRequest>,
    ) -> Result<Response<l::VerifyLogResponse>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.verify_log(request).await;
        self.noted(&acting, "log verify", |answer| answer.get_ref().first_break.clone(), answer)
    }

    async fn rotate_logs(
        &self,
        request: Request<l::RotateLogsRequest>,
    ) -> Result<Response<l::RotateLogsResponse>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.rotate_logs(request).await;
        self.noted(&acting, "log rotate", |answer| format!("{} logs", answer.get_ref().logs.len()), answer)
    }

    async fn resubmit(&self, request: Request<l::ResubmitRequest>) -> Result<Response<l::ResubmitResponse>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.resubmit(request).await;
        self.noted(&acting, "log resubmit", |answer| format!("{} records", answer.get_ref().records), answer)
    }

    async fn close_logs(
        &self,
        request: Request<l::CloseLogsRequest>,
    ) -> Result<Response<l::CloseLogsResponse>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.close_logs(request).await;
        self.noted(&acting, "log close", |answer| format!("{} logs", answer.get_ref().logs.len()), answer)
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
        let acting = self.act(&request, Scope::Lookup)?;
        let what = match request.get_ref().records.len() {
            0 => "the whole list".to_owned(),
            count => format!("{count} records"),
        };
        let answer = self.service.export_evidence(request).await;
        self.noted(&acting, "export evidence", |_| what, answer)
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
        let acting = self.act(&request, Scope::Review)?;
        // Only what is listed trips the breaker: its subject is no secret, but a name in clear would be.
        let what = request.get_ref().signal.as_ref().map(|signal| signal.r#type.clone()).unwrap_or_default();
        let answer = self.service.reset_breaker(request).await;
        self.noted(&acting, "breaker reset", |_| what, answer)
    }

    async fn import(&self, request: Request<l::ImportRequest>) -> Result<Response<l::ImportResponse>, Status> {
        let acting = self.act(&request, Scope::Submit)?;
        let batch = request.get_ref().rows.first().map(|row| hex(row.client_key.get(..8).unwrap_or_default()));
        let what = format!("batch {}, {} rows", batch.unwrap_or_default(), request.get_ref().rows.len());
        let answer = self.service.import(request).await;
        self.noted(&acting, "import", |_| what, answer)
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
        let acting = self.act(&request, Scope::Submit)?;
        let (what, dry_run) = (format!("batch {}", hex(&request.get_ref().batch)), request.get_ref().dry_run);
        let answer = self.service.undo_batch(request).await;
        if dry_run {
            return answer;
        }
        self.noted(&acting, "batch undo", |_| what, answer)
    }

    type ExportEntriesStream = export::Parts;

    async fn export_entries(
        &self,
        request: Request<l::ListEntriesRequest>,
    ) -> Result<Response<Self::ExportEntriesStream>, Status> {
        let acting = self.act(&request, Scope::Lookup)?;
        let answer = self.service.export_entries(request).await;
        self.noted(&acting, "export list", |_| String::new(), answer)
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
        let acting = self.act(&request, Scope::Submit)?;
        let (_, extensions, requests) = request.into_parts();
        let caller = extensions.get::<Caller>().cloned();
        // Who may not say one of them is told so, and the stream ends: a program with too small a token is set up wrongly.
        let checked = requests.map(move |request| {
            let request = request?;
            let Some(caller) = &caller else { return Ok(request) };
            let missing = scopes_of(&request).find(|scope| !caller.scopes.allow(*scope));
            missing.map_or(Ok(request), |scope| Err(refused(caller, scope)))
        });
        let answers = streams::submit(&self.service, Box::pin(checked))?;
        if acting.caller.is_none() {
            return Ok(Response::new(answers));
        }
        let gate = self.clone();
        let noted = answers.map(move |answer| gate.noted(&acting, "submit", places, answer));
        Ok(Response::new(Box::pin(noted)))
    }

    type LookupStreamStream = streams::Answers<l::LookupResponse>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<l::LookupRequest>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.lookup_stream(request).await
    }

    type LookupBulkStream = streams::Answers<l::LookupBulkResponse>;

    async fn lookup_bulk(
        &self,
        request: Request<Streaming<l::LookupBulkRequest>>,
    ) -> Result<Response<Self::LookupBulkStream>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.lookup_bulk(request).await
    }

    type WatchStream = watch::Events;

    async fn watch(&self, request: Request<l::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.may(&request, Scope::Lookup)?;
        self.service.watch(request).await
    }

    async fn create_token(
        &self,
        request: Request<l::CreateTokenRequest>,
    ) -> Result<Response<l::CreateTokenResponse>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let name = request.get_ref().name.clone();
        let answer = self.service.create_token(request).await;
        self.noted(&acting, "token new", |_| name, answer)
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
        let acting = self.act(&request, Scope::Admin)?;
        let name = request.get_ref().name.clone();
        let answer = self.service.revoke_token(request).await;
        self.noted(&acting, "token revoke", |_| name, answer)
    }

    type ListAuditStream = streams::Answers<l::AuditedAct>;

    async fn list_audit(
        &self,
        request: Request<l::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        let acting = self.act(&request, Scope::Admin)?;
        let answer = self.service.list_audit(request).await;
        self.noted(&acting, "audit read", |_| String::new(), answer)
    }
}

/// For whoever notes something that is no call: a login, say.
pub fn note_login(access: &Arc<Access>, caller: &Caller, id: &RequestId, action: &str) {
    let did = Did { action, target: "", outcome: "OK" };
    if let Err(error) = access.audit().note(caller, id.as_str(), clock::now(), &did) {
        tracing::error!(%error, action, "an act could not be noted in the audit trail");
    }
}
