//! The local service: what a company asks its own node. Nothing that is looked up is stored, logged or sent.

mod batches;
mod evidence;
mod export;
pub mod gate;
mod lookups;
mod observe;
mod server;
mod streams;
mod tokens;
mod watch;

pub use lookups::{BULK_MAX, FILES_BYTES_MAX, FILES_MAX, is_bulk};
pub use server::LocalServer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status, Streaming};

use super::accounts::Accounts;
use super::addresses;
use super::expiry;
use super::floods;
use super::report;
use super::status::{bad_field, of_failure, of_refusal, of_store, refuse};
use super::survey::Surveys;
use super::tls::{Connections, RefusedConnection, Sender, Tls};
use super::{labels, reviews, saying};
use crate::access::Access;
use crate::clock;
use crate::engine::{self, Handle, JOURNAL_FILE, Shared};
use crate::keys::{KEYS_FOLDER, LOG_SEED_FILE, is_credential, write_log_seed};
use crate::meters::add;
use crate::policy::breaker::{Breaker, Trip};
use crate::policy::harmless::Harmless;
use crate::policy::in_force::Standing as PolicyStanding;
use crate::replica::block::{Frame, Slot};
use crate::replica::charter::{Charter, CharterError};
use crate::replica::heads::{Have, head_to_proto};
use crate::replica::ids::{BlockId, Class, LogNo, MemberId, Origin, Seq, TimeMs, hex};
use crate::replica::log::Log;
use crate::replica::own::{Answer, RECORDS_PER_SUBMISSION_MAX, Receipt};
use crate::replica::signal::{self, Alg, Subject};
use crate::replica::suspension::SUSPENSION_DAYS_MAX;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;
use crate::replica::view::{Entry, Said, Status as Standing};
use crate::replica::{Health, Input, Replica, Settings, merkle, proto, record};
use crate::report::local::Counters;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum;

/// Signals of one lookup: all hashes of one item, in a few variants.
pub const SIGNALS_MAX: usize = 64;
/// Entries of one page.
pub const PAGE_MAX: usize = 1_000;
/// Entries of a page when nothing is asked.
pub(super) const PAGE_DEFAULT: usize = 100;
/// Subjects that a filtered page looks at before it gives up its turn: the engine waits no longer than that.
pub(super) const SCAN_MAX: usize = 4_096;
/// How long a submission waits for peers when nothing is asked.
const WAIT_DEFAULT_MS: u64 = 10_000;
/// Longest wait for peers.
const WAIT_MAX_MS: u64 = 120_000;
/// Pause between looks at what peers hold.
const WAIT_STEP: Duration = Duration::from_millis(50);
/// Logs of a member that one suspension marks: a mark has about 70 bytes, and a record 4,096.
const SUSPEND_MARKS_MAX: usize = 48;
/// Digits of the longest hash that is no video's: that of an account under the last pepper, or of a SHA-512.
const DIGITS_MAX: usize = 128;
/// Digits of the hashes of one page: a page of videos is a short one, within [`LOCAL_MESSAGE_BYTES_MAX`].
pub(super) const PAGE_DIGITS_MAX: usize = 1 << 20;
/// Peers whose last word health repeats while none is connected: the others most likely say the same.
const WHY_ALONE_MAX: usize = 3;
/// Labels, or languages, of one statement.
pub(super) const TAGS_MAX: usize = 32;

/// The service.
#[derive(Clone)]
pub struct LocalService {
    engine: Handle,
    settings: Settings,
    peer_address: String,
    endpoints: BTreeMap<String, String>,
    lines: Option<(Tls, Connections)>,
    policy: Arc<PolicyStanding>,
    counters: Arc<Counters>,
    reports: Arc<Semaphore>,
    accounts: Arc<Accounts>,
    breaker: Arc<Breaker>,
    harmless: Arc<Harmless>,
    importing: batches::Importing,
    streams: streams::Streams,
    lookups: lookups::Lookups,
    surveys: Surveys,
    access: Arc<Access>,
    console: Option<Arc<str>>,
}

impl LocalService {
    /// Serves what `engine` knows; `settings` are what `VerifyLog` rebuilds the replica with, `endpoints` the local
    /// overrides by member name.
    pub fn new(engine: Handle, settings: Settings, peer_address: String, endpoints: BTreeMap<String, String>) -> Self {
        let policy = Arc::new(PolicyStanding::built_in());
        let counters = Arc::clone(engine.shared().counters());
        let reports = Arc::new(Semaphore::new(report::REPORTS_AT_ONCE));
        let accounts = Arc::new(Accounts::new(engine.shared().data().join(KEYS_FOLDER)));
        let breaker = Arc::new(Breaker::new(u64::from_be_bytes(clock::random()), clock::now()));
        let streams = streams::Streams::default();
        let importing = batches::Importing::new(engine.clone(), Arc::clone(&counters), streams.keys.clone());
        Self {
            engine,
            settings,
            peer_address,
            endpoints,
            lines: None,
            policy,
            counters,
            reports,
            importing,
            streams,
            lookups: lookups::Lookups::default(),
            surveys: Surveys::default(),
            accounts,
            breaker,
            harmless: Arc::default(),
            access: Arc::new(Access::none()),
            console: None,
        }
    }

    /// Keeps tokens and the audit trail here; `console` is where a person goes with a token, as in
    /// `http://127.0.0.1:7701`.
    #[must_use]
    pub fn with_access(self, access: Arc<Access>, console: Option<String>) -> Self {
        Self { access, console: console.map(Into::into), ..self }
    }

    /// Tokens, sessions and the audit trail.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Ends endless streams when `stop` becomes true, and says so to whoever reads them.
    #[must_use]
    pub fn with_stop(self, stop: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { streams: self.streams.with_stop(stop), ..self }
    }

    /// Tells also of the connections to peers: refusals, and certificates that end.
    #[must_use]
    pub fn with_lines(self, tls: Tls, connections: Connections) -> Self {
        Self { lines: Some((tls, connections)), ..self }
    }

    /// Judges matches by this policy instead of the built-in one.
    #[must_use]
    pub fn with_policy(self, policy: Arc<PolicyStanding>) -> Self {
        Self { policy, ..self }
    }

    /// Tells in health when the file of harmless hashes is not in use.
    #[must_use]
    pub fn with_harmless(self, harmless: Arc<Harmless>) -> Self {
        Self { harmless, ..self }
    }

    /// Why nothing is signed any more, if the storage has failed.
    pub fn failure(&self) -> Option<String> {
        self.shared().failure().map(|failed| failed.to_string())
    }

    /// The gRPC service, with its limits set.
    pub fn into_server(self) -> LocalServer {
        LocalServer::new(&self)
    }
}

#[tonic::async_trait]
impl Forum for LocalService {
    type ExportEvidenceStream = evidence::Pieces;

    async fn export_evidence(
        &self,
        request: Request<l::ExportEvidenceRequest>,
    ) -> Result<Response<Self::ExportEvidenceStream>, Status> {
        evidence::export(self.shared(), request.get_ref()).map(Response::new)
    }

    async fn submit(&self, request: Request<l::SubmitRequest>) -> Result<Response<l::SubmitResponse>, Status> {
        let begun = self.begin(request.into_inner()).await?;
        self.finish(begun).await.map(Response::new)
    }

    type SubmitStreamStream = streams::Answers<l::SubmitResponse>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<l::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        streams::submit(self, request.into_inner()).map(Response::new)
    }

    async fn lookup(&self, request: Request<l::LookupRequest>) -> Result<Response<l::LookupResponse>, Status> {
        self.look_up(request.into_inner()).await.map(Response::new)
    }

    type WatchStream = watch::Events;

    async fn watch(&self, request: Request<l::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self.streams.watch()?;
        watch::watch(self.shared(), &self.streams, permit, request.get_ref()).map(Response::new)
    }

    type LookupStreamStream = streams::Answers<l::LookupResponse>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<l::LookupRequest>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        streams::lookup(self, request.into_inner()).map(Response::new)
    }

    type LookupBulkStream = streams::Answers<l::LookupBulkResponse>;

    async fn lookup_bulk(
        &self,
        request: Request<Streaming<l::LookupBulkRequest>>,
    ) -> Result<Response<Self::LookupBulkStream>, Status> {
        streams::lookup_bulk(self, request.into_inner()).map(Response::new)
    }

    async fn get_entry(&self, request: Request<l::GetEntryRequest>) -> Result<Response<l::GetEntryResponse>, Status> {
        let mut request = request.into_inner();
        let now = clock::now();
        let entry = self.entry(&mut request, now)?;
        let places: Vec<_> = entry.said.iter().map(|said| (said.block, u32::from(said.index))).collect();
        let stored = self.stored_receipts(&places);
        let labels = self.shared().taxonomy();
        // Words are shown even where the store has lost their blocks.
        let details = stored.iter().flatten().map(|receipt| saying::details(&receipt.record, &labels)).collect();
        let receipts = if request.receipts { stored? } else { Vec::new() };
        let receipts = receipts.into_iter().map(receipt_to_proto).collect();
        let replica = self.shared().replica();
        let mut shown = entry_to_proto(&entry, replica.charters().effective(), &labels);
        shown.resources = reviews::offers(&replica, &entry, &labels, now);
        reviews::complete(&replica, &entry, details, &labels, &mut shown, now);
        drop(replica);
        if request.verify {
            let sound = self.sound(&places);
            entry.said.iter().zip(&mut shown.said).for_each(|(said, word)| word.verified = sound.contains(&said.block));
        }
        Ok(Response::new(l::GetEntryResponse { entry: Some(shown), receipts }))
    }

    async fn list_entries(
        &self,
        request: Request<l::ListEntriesRequest>,
    ) -> Result<Response<l::ListEntriesResponse>, Status> {
        let filter = Filter::new(&request.into_inner(), self.shared())?;
        let mut page = l::ListEntriesResponse::default();
        let mut after = filter.after.clone();
        loop {
            let looked_at = filter.scan(self.shared(), after.as_ref(), &mut page.entries);
            after = looked_at;
            let full = filter.is_full(&page.entries);
            if full || after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        page.next_page_token = after.map(|subject| token(&subject)).unwrap_or_default();
        Ok(Response::new(page))
    }

    async fn list_reviews(
        &self,
        request: Request<l::ListReviewsRequest>,
    ) -> Result<Response<l::ListReviewsResponse>, Status> {
        reviews::list_reviews(self.shared(), &self.tripped(), request.get_ref()).await.map(Response::new)
    }

    async fn list_referrals(
        &self,
        request: Request<l::ListReferralsRequest>,
    ) -> Result<Response<l::ListReferralsResponse>, Status> {
        reviews::list_referrals(self.shared(), request.get_ref()).map(Response::new)
    }

    async fn list_incidents(
        &self,
        _request: Request<l::ListIncidentsRequest>,
    ) -> Result<Response<l::ListIncidentsResponse>, Status> {
        Ok(Response::new(reviews::list_incidents(self.shared())))
    }

    async fn list_resources(
        &self,
        request: Request<l::ListResourcesRequest>,
    ) -> Result<Response<l::ListResourcesResponse>, Status> {
        reviews::list_resources(self.shared(), request.get_ref()).map(Response::new)
    }

    async fn status(&self, _request: Request<l::StatusRequest>) -> Result<Response<l::StatusResponse>, Status> {
        Ok(Response::new(self.state()))
    }

    async fn list_peers(
        &self,
        _request: Request<l::ListPeersRequest>,
    ) -> Result<Response<l::ListPeersResponse>, Status> {
        let now = clock::now();
        let replica = self.shared().replica();
        let charter = replica.charters().effective();
        let ours = replica.have();
        let blocks_here = ours.blocks_beyond(&Have::default());
        let shown = self.certificates();
        let refused = self.lines.iter().flat_map(|(_, connections)| connections.recent_refusals());
        let refused = refused.map(|refused| refused_to_proto(&refused, charter)).collect();
        let peers = replica.exchanges().iter().map(|(id, exchange)| {
            let member = charter.member(*id);
            let name = member.map(|m| m.name.clone()).unwrap_or_default();
            let listed = member.and_then(|m| m.endpoints.first().cloned()).unwrap_or_default();
            l::PeerState {
                endpoint: self.endpoints.get(&name).cloned().unwrap_or(listed),
                member: name,
                member_id: id.0.to_vec().into(),
                state: exchange.state(now).name().into(),
                last_error: exchange.last_error().unwrap_or_default().into(),
                retry_ms: exchange.retry_at().since(now),
                ours_missing_there: ours.blocks_beyond(exchange.theirs()),
                theirs_missing_here: exchange.theirs().blocks_beyond(&ours),
                blocks_there: exchange.theirs().blocks_beyond(&Have::default()),
                blocks_here,
                last_heard_ms: exchange.last_heard().0,
                clock_offset_ms: exchange.clock_offset_ms(),
                semantics_max: exchange.semantics_max(),
                agrees: match exchange.agrees() {
                    Some(true) => "YES",
                    Some(false) => "NO",
                    None => "UNKNOWN",
                }
                .into(),
                certificate_until_ms: shown.get(id).map_or(0, |until| until.0),
            }
        });
        let totals = self.lines.iter().flat_map(|(_, connections)| connections.refused_total());
        let refusals = totals.map(|(reason, count)| l::RefusalCount { reason: reason.into(), count }).collect();
        Ok(Response::new(l::ListPeersResponse { peers: peers.collect(), refused, refusals }))
    }

    async fn get_charters(
        &self,
        request: Request<l::GetChartersRequest>,
    ) -> Result<Response<l::GetChartersResponse>, Status> {
        let replica = self.shared().replica();
        let from = replica.charters().from(request.get_ref().from_version.max(1));
        let charters = from.iter().map(|(signed, _)| prost::Message::encode_to_vec(signed).into()).collect();
        Ok(Response::new(l::GetChartersResponse { charters }))
    }

    async fn apply_charter(
        &self,
        request: Request<l::ApplyCharterRequest>,
    ) -> Result<Response<l::ApplyCharterResponse>, Status> {
        let request = request.into_inner();
        let charter: proto::SignedCharter = prost::Message::decode(request.charter)
            .map_err(|e| bad_field("charter", format!("does not decode: {e}")))?;
        self.stock_taxonomy(&charter, request.taxonomy).await?;
        let applied = self.engine.apply_charter(charter).await.map_err(|f| of_failure(&f))?;
        let version = applied.map_err(|e| refuse(Code::FailedPrecondition, "CHARTER", e.to_string()))?;
        let replica = self.shared().replica();
        // One of two charters for one version is kept as evidence, and is not in force.
        if replica.charters().fork().is_some() {
            return Err(refuse(Code::FailedPrecondition, "CHARTER", CharterError::Frozen.to_string()));
        }
        let charter_hash = replica.charters().head().0.to_vec().into();
        Ok(Response::new(l::ApplyCharterResponse { version, charter_hash }))
    }

    async fn verify_log(
        &self,
        _request: Request<l::VerifyLogRequest>,
    ) -> Result<Response<l::VerifyLogResponse>, Status> {
        let (forum, charters) = {
            let replica = self.shared().replica();
            let chain = replica.charters();
            (chain.forum(), chain.from(1).iter().map(|(signed, _)| signed.clone()).collect())
        };
        let shared = Arc::clone(self.shared());
        let settings = self.settings.clone();
        let verify =
            move || engine::verify(shared.store(), &shared.data().join(JOURNAL_FILE), settings, forum, charters);
        let verified = tokio::task::spawn_blocking(verify).await.map_err(|_panicked| bug())?;
        let verified = verified.map_err(|e| refuse(Code::DataLoss, "STORE", e.to_string()))?;
        Ok(Response::new(verified_to_proto(verified)))
    }

    async fn rotate_logs(
        &self,
        _request: Request<l::RotateLogsRequest>,
    ) -> Result<Response<l::RotateLogsResponse>, Status> {
        let keys = self.shared().data().join(KEYS_FOLDER);
        if is_credential(LOG_SEED_FILE) {
            let what = "the log seed comes from the service manager: change it there, and restart the node";
            return Err(refuse(Code::FailedPrecondition, "CREDENTIAL", what));
        }
        let seed: [u8; 32] = clock::random();
        // The logs are closed first: a crash in between leaves closed logs and the old seed, which is no harm.
        let logs = self.end_logs(Some(seed), 0).await?;
        let written = tokio::task::spawn_blocking(move || write_log_seed(&keys, &seed)).await;
        let written = written.map_err(|_panicked| refuse(Code::Internal, "BUG", "please report"))?;
        written.map_err(|error| refuse(Code::DataLoss, "STORE", error.to_string()))?;
        Ok(Response::new(l::RotateLogsResponse { logs }))
    }

    async fn close_logs(
        &self,
        request: Request<l::CloseLogsRequest>,
    ) -> Result<Response<l::CloseLogsResponse>, Status> {
        let reason = reason(&request.get_ref().reason, "reason")?;
        Ok(Response::new(l::CloseLogsResponse { logs: self.end_logs(None, reason).await? }))
    }

    async fn resubmit(&self, request: Request<l::ResubmitRequest>) -> Result<Response<l::ResubmitResponse>, Status> {
        match self.engine.resubmit(request.into_inner().from_peers).await.map_err(|e| of_failure(&e))? {
            Answer::Durable(receipts) => {
                let records = receipts.len() as u64;
                Ok(Response::new(l::ResubmitResponse { records, queued: false }))
            }
            Answer::Queued => Ok(Response::new(l::ResubmitResponse { records: 0, queued: true })),
            Answer::Refused(refusal) => Err(of_refusal(&refusal)),
        }
    }

    type ReportStream = report::Parts;

    async fn report(&self, request: Request<l::ReportRequest>) -> Result<Response<Self::ReportStream>, Status> {
        let busy = "another report is being made: wait for it";
        let permit = Arc::clone(&self.reports).try_acquire_owned();
        let permit = permit.map_err(|_taken| refuse(Code::ResourceExhausted, "RATE", busy))?;
        let shared = Arc::clone(self.shared());
        report::answer(shared, Arc::clone(&self.counters), request.get_ref(), permit).map(Response::new)
    }

    async fn import(&self, request: Request<l::ImportRequest>) -> Result<Response<l::ImportResponse>, Status> {
        self.importing.import(request.into_inner()).await.map(Response::new)
    }

    async fn list_batches(
        &self,
        _request: Request<l::ListBatchesRequest>,
    ) -> Result<Response<l::ListBatchesResponse>, Status> {
        self.importing.list().await.map(Response::new)
    }

    type UndoBatchStream = batches::Words;

    async fn undo_batch(
        &self,
        request: Request<l::UndoBatchRequest>,
    ) -> Result<Response<Self::UndoBatchStream>, Status> {
        self.importing.undo(request.get_ref()).await.map(Response::new)
    }

    type ExportEntriesStream = export::Parts;

    async fn export_entries(
        &self,
        request: Request<l::ListEntriesRequest>,
    ) -> Result<Response<Self::ExportEntriesStream>, Status> {
        let permit = self.streams.export()?;
        export::export(self.shared(), permit, request.get_ref()).map(Response::new)
    }

    async fn get_taxonomy(
        &self,
        _request: Request<l::GetTaxonomyRequest>,
    ) -> Result<Response<l::GetTaxonomyResponse>, Status> {
        Ok(Response::new(labels::answer(self.shared())))
    }

    async fn get_record(
        &self,
        request: Request<l::GetRecordRequest>,
    ) -> Result<Response<l::GetRecordResponse>, Status> {
        let (id, index) = place_of(request.get_ref(), "member_id")?;
        let absent = |what: String| refuse(Code::NotFound, "NOT_FOUND", what);
        let held = self.shared().replica().logs().get(&id.origin).and_then(Log::durable_head);
        if id.seq == Seq(0) || held.is_none_or(|head| head.seq < id.seq) {
            let held = held.map_or(0, |head| head.seq.0);
            return Err(absent(format!("block {id} is not held here; this node has {held} blocks of that log")));
        }
        let block = self.stored_block(id)?;
        let slots = block.0.slots.len();
        let receipt = receipt(&block, id, index)
            .ok_or_else(|| absent(format!("block {id} has {slots} records, got record {index}")))?;
        Ok(Response::new(l::GetRecordResponse { receipt: Some(receipt_to_proto(receipt)) }))
    }

    async fn get_policy(
        &self,
        _request: Request<l::GetPolicyRequest>,
    ) -> Result<Response<l::GetPolicyResponse>, Status> {
        let in_force = self.policy.in_force();
        let counts = in_force.counts().into_iter().map(|count| l::RuleCount {
            rule: count.rule,
            allow: count.allow,
            review: count.review,
            block: count.block,
        });
        Ok(Response::new(l::GetPolicyResponse {
            text: in_force.text.clone(),
            file: in_force.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            since_ms: in_force.since.0,
            shadow: self.policy.shadow(),
            refused: self.policy.refused().map(|why| why.to_string()).unwrap_or_default(),
            counts: counts.collect(),
            breaker: Some(floods::breaker_to_proto(in_force.policy.breaker(), self.breaker.tally(clock::now()))),
            warnings: in_force.policy.warnings().iter().map(warning_to_proto).collect(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<l::CreateTokenRequest>,
    ) -> Result<Response<l::CreateTokenResponse>, Status> {
        tokens::create(&self.access, self.console.as_deref(), request.into_inner()).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        _request: Request<l::ListTokensRequest>,
    ) -> Result<Response<l::ListTokensResponse>, Status> {
        Ok(Response::new(tokens::list(&self.access)))
    }

    async fn revoke_token(
        &self,
        request: Request<l::RevokeTokenRequest>,
    ) -> Result<Response<l::RevokeTokenResponse>, Status> {
        tokens::revoke(&self.access, request.into_inner()).await.map(Response::new)
    }

    type ListAuditStream = streams::Answers<l::AuditedAct>;

    async fn list_audit(
        &self,
        request: Request<l::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        Ok(Response::new(tokens::audit(&self.access, request.get_ref())))
    }

    async fn reset_breaker(
        &self,
        request: Request<l::ResetBreakerRequest>,
    ) -> Result<Response<l::ResetBreakerResponse>, Status> {
        let subject = subject(request.get_ref().signal.as_ref(), "signal")?;
        let absent = || refuse(Code::NotFound, "NOT_FOUND", "the signal is not tripped here, or no longer");
        let until = self.breaker.keep(&subject, clock::now()).ok_or_else(absent)?;
        Ok(Response::new(l::ResetBreakerResponse { until_ms: until.0 }))
    }
}

/// What a check of the logs found, as it is told to people: the same for a running node and for a stopped one.
pub fn verified_to_proto(verified: engine::Verified) -> l::VerifyLogResponse {
    l::VerifyLogResponse {
        logs: verified.logs,
        blocks: verified.blocks,
        records: verified.records,
        first_break: verified.first_break.unwrap_or_default(),
        view_hour_ms: verified.view_hour.0,
        view_digest: verified.view_digest.to_vec().into(),
    }
}

fn bug() -> Status {
    refuse(Code::Internal, "BUG", "something failed that should not: please report it")
}

/// Refuses what would be signed while nothing can be written.
fn accepting(shared: &Shared) -> Result<(), Status> {
    if let Some(failed) = shared.failure() {
        return Err(of_failure(&failed));
    }
    if engine::submissions_off(shared.data()) {
        return Err(refuse(
            Code::Unavailable,
            "DISK_LOW",
            "the disk is nearly full: submissions are off, lookups go on",
        ));
    }
    Ok(())
}

/// A block out of the store.
fn frame(shared: &Shared, id: BlockId) -> Result<Frame, Status> {
    let bytes = shared.store().block(id).map_err(|error| of_store(&error))?;
    bytes.and_then(|bytes| Frame::decode(bytes.into()).ok()).ok_or_else(|| gone(id))
}

/// The place that a caller names; `field` is where it does.
fn place_of(record: &l::GetRecordRequest, field: &str) -> Result<(BlockId, u32), Status> {
    let member = MemberId::from_slice(&record.member_id).ok_or_else(|| {
        bad_field(field, format!("has {} bytes, expected {}", record.member_id.len(), MemberId::SIZE))
    })?;
    let origin = Origin { member, log_no: LogNo(record.log_no) };
    Ok((BlockId { origin, seq: Seq(record.seq) }, record.index))
}

fn queued() -> l::SubmitResponse {
    l::SubmitResponse { state: l::SubmitState::Queued.into(), ..Default::default() }
}

fn class(lane: l::Lane) -> Result<Class, Status> {
    match lane {
        l::Lane::Unspecified | l::Lane::Normal => Ok(Class::Normal),
        l::Lane::Urgent => Ok(Class::Urgent),
        l::Lane::Bulk => Ok(Class::Bulk),
    }
}

/// The submitter's key of each record, in order; `None`: it has none.
type Keys = Vec<Option<record::ClientKey>>;

fn check_size(request: &l::SubmitRequest) -> Result<(), Status> {
    match request.statements.len() {
        0 => Err(bad_field("statements", "is empty")),
        1..=RECORDS_PER_SUBMISSION_MAX => Ok(()),
        count => {
            let what = format!("has {count} entries, at most {RECORDS_PER_SUBMISSION_MAX} are allowed");
            Err(bad_field("statements", what))
        }
    }
}

/// The records of a submission, in their strict encoding, each with its client key. `marks` tells how far the logs of a
/// member reach.
fn records(
    request: &l::SubmitRequest,
    class: Class,
    labels: &Taxonomy,
    marks: impl Fn(MemberId) -> Result<Vec<proto::Head>, Status>,
) -> Result<(Vec<Bytes>, Keys), Status> {
    let mut records = Vec::with_capacity(request.statements.len());
    let mut keys = Vec::with_capacity(request.statements.len());
    for (index, statement) in request.statements.iter().enumerate() {
        if let Some(suspension) = &statement.suspend {
            keys.push(None);
            records.push(suspend(suspension, statement, index, class, &marks)?);
            continue;
        }
        if let Some(said) = saying::record(statement, index, class, labels)? {
            keys.push(None);
            records.push(said);
            continue;
        }
        let opinion = opinion(statement, index, labels)?;
        keys.push(opinion.client_key[..].try_into().ok());
        records.push(record::encode(proto::Kind::Opinion, clock::random(), &opinion));
    }
    Ok((records, keys))
}

fn suspend(
    suspension: &l::Suspension,
    statement: &l::Statement,
    index: usize,
    class: Class,
    marks: impl Fn(MemberId) -> Result<Vec<proto::Head>, Status>,
) -> Result<Bytes, Status> {
    let field = |name: &str| format!("statements[{index}].suspend{name}");
    if *statement != (l::Statement { suspend: Some(suspension.clone()), ..Default::default() }) {
        return Err(bad_field(field(""), "stands beside other fields, expected it alone"));
    }
    if class != Class::Urgent {
        return Err(bad_field(field(""), format!("is in the {} lane, expected the urgent one", class.name())));
    }
    let member = MemberId::from_slice(&suspension.member_id).ok_or_else(|| {
        let got = suspension.member_id.len();
        bad_field(field(".member_id"), format!("has {got} bytes, expected {}", MemberId::SIZE))
    })?;
    let (now, until) = (clock::now(), TimeMs(suspension.until_ms));
    // A block may be signed some moments later than this: that only makes the time shorter.
    if until <= now || until > now.plus(SUSPENSION_DAYS_MAX * TimeMs::DAY_MS) {
        let why = format!("is {}, expected a time within {SUSPENSION_DAYS_MAX} days from now ({})", until.0, now.0);
        return Err(bad_field(field(".until_ms"), why));
    }
    let said = proto::Suspend {
        member_id: member.0.to_vec().into(),
        marks: marks(member)?,
        until_ms: until.0,
        reason: reason(&suspension.reason, &field(".reason"))?,
    };
    Ok(record::encode(proto::Kind::Suspend, clock::random(), &said))
}

/// How far the logs of `member` reach here, for a suspension: what others have of it beyond that does not count.
fn marks(replica: &Replica, member: MemberId) -> Result<Vec<proto::Head>, Status> {
    let charter = replica.charters().effective();
    if charter.member(member).is_none_or(|m| !m.is_active()) {
        let what = format!("{} is no active member (charter {})", replica.name_of(member), charter.version);
        return Err(refuse(Code::FailedPrecondition, "NOT_ACTIVE", what));
    }
    if member == replica.me() {
        return Err(refuse(Code::FailedPrecondition, "SUSPEND_SELF", "a steward does not suspend itself"));
    }
    let of_member = replica.logs().iter().filter(|(origin, _)| origin.member == member);
    // A forked log counts up to where both chains are one: its mark is on the chain that we hold.
    let head = |(origin, log): (&Origin, &Log)| Some(head_to_proto(*origin, log.durable_head()?));
    let heads: Vec<_> = of_member.filter_map(head).collect();
    if heads.len() > SUSPEND_MARKS_MAX {
        let what = format!("it has {} logs, and a suspension marks at most {SUSPEND_MARKS_MAX}", heads.len());
        return Err(refuse(Code::FailedPrecondition, "TOO_MANY_LOGS", what));
    }
    Ok(heads)
}

/// The number of a reason's name; 0 for none.
pub(super) fn reason(name: &str, field: &str) -> Result<u32, Status> {
    if name.is_empty() {
        return Ok(0);
    }
    let unknown = || bad_field(field, format!("{name:?} is unknown; known: {}", known_reasons()));
    record::reason_number(name).map(u32::from).ok_or_else(unknown)
}

fn opinion(statement: &l::Statement, index: usize, taxonomy: &Taxonomy) -> Result<proto::Opinion, Status> {
    let field = |name: &str| format!("statements[{index}].{name}");
    let at_most = |name: &str, value: u32, max: u32| {
        if value <= max {
            Ok(value)
        } else {
            Err(bad_field(field(name), format!("is {value}, at most {max} is possible")))
        }
    };
    let sixteen = |name: &str, bytes: &Bytes| match bytes.len() {
        0 | 16 => Ok(bytes.clone()),
        n => Err(bad_field(field(name), format!("has {n} bytes, expected 16"))),
    };
    let stance = match statement.stance() {
        l::Stance::Unspecified => return Err(bad_field(field("stance"), "is missing or unknown")),
        stance => stance as u32,
    };
    let subject = subject(statement.signal.as_ref(), &field("signal"))?;
    let mut numbers = Vec::new();
    for label in &statement.labels {
        numbers.push(labels::said(taxonomy, label, &field("labels"))?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    if statement.languages.len() > TAGS_MAX {
        return Err(bad_field(field("languages"), format!("has more than {TAGS_MAX} entries")));
    }
    if let Some(tag) = statement.languages.iter().find(|tag| !record::is_language(tag)) {
        return Err(bad_field(field("languages"), format!("{tag:?} is not a BCP 47 tag such as en or pt-BR")));
    }
    Ok(proto::Opinion {
        subject: Some(subject.to_proto()),
        stance,
        labels: numbers,
        severity: at_most("severity", statement.severity, 4)?,
        expires_ms: expiry(statement.expires_ms).map_err(|why| bad_field(field("expires_ms"), why))?,
        review_ms: expiry(statement.review_ms).map_err(|why| bad_field(field("review_ms"), why))?,
        incident_id: sixteen("incident_id", &statement.incident_id)?,
        basis: at_most("basis", statement.basis, 5)?,
        confidence: at_most("confidence", statement.confidence, 100)?,
        client_key: sixteen("client_key", &statement.client_key)?,
        languages: statement.languages.clone(),
        reason: reason(&statement.reason, &field("reason"))?,
        item_id: sixteen("item_id", &statement.item_id)?,
        quality: at_most("quality", statement.quality, 100)?,
    })
}

fn expiry(expires_ms: u64) -> Result<u64, String> {
    let now = clock::now();
    match TimeMs(expires_ms).has_ended(now) {
        false => Ok(expires_ms),
        true => Err(format!("{expires_ms} lies in the past (now is {})", now.0)),
    }
}

fn known_reasons() -> String {
    record::REASONS.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

pub(super) fn subject(signal: Option<&l::Signal>, field: &str) -> Result<Subject, Status> {
    let signal = signal.ok_or_else(|| bad_field(field, "is missing"))?;
    let parsed = if signal.r#type.is_empty() {
        signal::parse_any(&signal.value)
    } else {
        signal::parse(&signal.r#type, &signal.value)
    };
    parsed.map_err(|error| bad_field(field, error.to_string()))
}

/// Receipts of statements that were made before and of those made now, in the order of the request.
fn in_order(keys: &Keys, before: Vec<Receipt>, now: Vec<Receipt>) -> Vec<Receipt> {
    let key = |receipt: &Receipt| client_key(&receipt.record);
    let mut before: BTreeMap<_, _> = before.into_iter().filter_map(|r| Some((key(&r)?, r))).collect();
    let mut now = now.into_iter();
    let next = |k: &Option<record::ClientKey>| k.and_then(|k| before.remove(&k)).or_else(|| now.next());
    keys.iter().filter_map(next).collect()
}

fn client_key(bytes: &[u8]) -> Option<record::ClientKey> {
    match record::parse(bytes) {
        record::Parsed::Says(record::Statement::Opinion(opinion)) => opinion.client_key,
        _ => None,
    }
}

/// A submission that stands on the engine's queue, or was made before.
struct Begun {
    since: Instant,
    keys: Keys,
    /// Receipts of what was said before under the same keys; none: it is under way.
    before: Option<Vec<Receipt>>,
    /// What the engine makes of the rest; none: there is no rest.
    rest: Option<JoinHandle<Result<Answer, engine::Failed>>>,
    wait_peers: u32,
    wait_timeout_ms: u64,
}

/// Waits for the answer, also when the caller goes: until it is there, nobody else may say it under the same keys.
#[expect(
    clippy::disallowed_methods,
    reason = "the task ends with the engine's answer, and the engine gives one or ends"
)]
fn answered(asked: engine::Asked, keys: streams::KeysTaken) -> JoinHandle<Result<Answer, engine::Failed>> {
    tokio::spawn(async move {
        let answer = asked.answer().await;
        drop(keys);
        answer
    })
}

impl LocalService {
    /// The entry that is asked for. An account may be listed under several peppers: one that matches goes before one that
    /// does not, and the newest before the others.
    fn entry(&self, request: &mut l::GetEntryRequest, now: TimeMs) -> Result<Entry, Status> {
        let replica = self.shared().replica();
        let subjects = match &mut request.signal {
            Some(signal) => self.accounts.subjects(&replica, signal, "signal")?,
            None => vec![subject(None, "signal")?],
        };
        let entries = subjects.iter().filter_map(|subject| replica.view().entry(subject, now));
        let entry =
            entries.reduce(|best, next| if !best.status.matches() && next.status.matches() { next } else { best });
        let sought = subjects.first().map(ToString::to_string).unwrap_or_default();
        entry.ok_or_else(|| refuse(Code::NotFound, "NOT_FOUND", format!("{sought} is not on the list")))
    }

    /// Signals that are tripped now. None while the breaker is off.
    fn tripped(&self) -> BTreeMap<Subject, Trip> {
        if self.policy.in_force().policy.breaker().off {
            return BTreeMap::new();
        }
        self.breaker.all_tripped(clock::now())
    }

    /// Whoever learns of the charter finds its taxonomy here.
    async fn stock_taxonomy(&self, charter: &proto::SignedCharter, text: Bytes) -> Result<(), Status> {
        // One that does not decode is refused with all the others that do not count.
        let Ok(charter) = <proto::Charter as prost::Message>::decode(charter.body.clone()) else { return Ok(()) };
        let shared = Arc::clone(self.shared());
        let stocked = tokio::task::spawn_blocking(move || labels::stock(&shared, &charter.taxonomy, &text)).await;
        stocked.map_err(|_panicked| bug())?
    }

    /// Understands a submission and puts it on the engine's queue: what is begun later is carried out later.
    async fn begin(&self, mut request: l::SubmitRequest) -> Result<Begun, Status> {
        let since = clock::instant();
        accepting(self.shared())?;
        let class = class(request.lane())?;
        check_size(&request)?;
        self.accounts.resolve(&self.shared().replica(), &mut request.statements)?;
        addresses::resolve(&mut request.statements)?;
        let marks = |member| marks(&self.shared().replica(), member);
        let (records, keys) = records(&request, class, &self.shared().taxonomy(), marks)?;
        saying::entitled(&self.shared().replica(), &records)?;
        let guard = self.streams.keys.take(&keys).await;
        let (before, fresh) = self.already_said(records, &keys)?;
        let rest = if fresh.is_empty() {
            None
        } else {
            let asked = self.engine.begin_submission(class, fresh).await.map_err(|f| of_failure(&f))?;
            Some(answered(asked, guard))
        };
        let (wait_peers, wait_timeout_ms) = (request.wait_peers, request.wait_timeout_ms);
        Ok(Begun { since, keys, before, rest, wait_peers, wait_timeout_ms })
    }

    /// The answer to a submission.
    async fn finish(&self, begun: Begun) -> Result<l::SubmitResponse, Status> {
        let answer = match (begun.rest, begun.before) {
            (None, Some(receipts)) => Answer::Durable(receipts),
            (None, None) => Answer::Queued,
            (Some(rest), before) => match rest.await.map_err(|_panicked| bug())?.map_err(|f| of_failure(&f))? {
                Answer::Durable(receipts) => {
                    let took = u64::try_from(begun.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.counters.submitted(receipts.len(), took);
                    self.shared().meters().submissions.took.observe(begun.since.elapsed());
                    Answer::Durable(in_order(&begun.keys, before.unwrap_or_default(), receipts))
                }
                other => other,
            },
        };
        let became = &self.shared().meters().submissions;
        let receipts = match answer {
            Answer::Durable(receipts) => {
                add(&became.durable, 1);
                receipts
            }
            Answer::Queued => {
                add(&became.queued, 1);
                return Ok(queued());
            }
            Answer::Refused(refusal) => {
                add(&became.refused, 1);
                return Err(of_refusal(&refusal));
            }
        };
        let (peers_holding, wait_timed_out) = self.wait(&receipts, begun.wait_peers, begun.wait_timeout_ms).await?;
        Ok(l::SubmitResponse {
            state: l::SubmitState::Durable.into(),
            receipts: receipts.into_iter().map(receipt_to_proto).collect(),
            peers_holding,
            wait_timed_out,
            ..Default::default()
        })
    }

    /// Ends the logs that this node writes.
    async fn end_logs(&self, next_seed: Option<[u8; 32]>, reason: u32) -> Result<Vec<l::RotatedLog>, Status> {
        let before: Vec<_> = self.shared().replica().lanes().collect();
        let answer = self.engine.close_logs(next_seed, reason).await.map_err(|e| of_failure(&e))?;
        let receipts = match answer {
            Answer::Durable(receipts) => receipts,
            Answer::Refused(refusal) => return Err(of_refusal(&refusal)),
            Answer::Queued => Vec::new(),
        };
        let next = self.shared().replica().next_log_no().0;
        let log = |(class, log_no): (Class, LogNo)| {
            let closed = receipts.iter().find(|r| r.block.origin.log_no == log_no)?;
            Some(l::RotatedLog {
                lane: class.name().into(),
                closed_log_no: log_no.0,
                closed_seq: closed.block.seq.0,
                next_log_no: next,
            })
        };
        Ok(before.into_iter().filter_map(log).collect())
    }

    /// What was said before under the same client keys is answered with its first receipt, never said again. `None`
    /// among the answers: it is under way.
    fn already_said(&self, records: Vec<Bytes>, keys: &Keys) -> Result<(Option<Vec<Receipt>>, Vec<Bytes>), Status> {
        let mut places = Vec::new();
        let mut fresh = Vec::new();
        let mut seen = BTreeSet::new();
        let mut under_way = false;
        {
            let replica = self.shared().replica();
            let waiting = if keys.iter().any(Option::is_some) { replica.keys_under_way() } else { BTreeSet::new() };
            for (record, key) in records.into_iter().zip(keys) {
                match key {
                    Some(key) if !seen.insert(*key) => {
                        return Err(bad_field("client_key", "stands twice in one submission"));
                    }
                    Some(key) if waiting.contains(key) => under_way = true,
                    Some(key) => match replica.submitted_before(key) {
                        Some(place) => places.push(place),
                        None => fresh.push(record),
                    },
                    None => fresh.push(record),
                }
            }
        }
        let receipts = self.stored_receipts(&places)?;
        Ok(((!under_way).then_some(receipts), fresh))
    }

    /// The receipts of records that are in the store. Each block is read once, however many of its records are asked for.
    fn stored_receipts(&self, places: &[(BlockId, u32)]) -> Result<Vec<Receipt>, Status> {
        let mut blocks = BTreeMap::new();
        for (id, _) in places {
            if !blocks.contains_key(id) {
                blocks.insert(*id, self.stored_block(*id)?);
            }
        }
        places.iter().map(|(id, index)| receipt(&blocks[id], *id, *index).ok_or_else(|| gone(*id))).collect()
    }

    /// Those of the blocks that are read back whole, signed by the key of their log, and stand in it.
    fn sound(&self, places: &[(BlockId, u32)]) -> BTreeSet<BlockId> {
        let blocks: BTreeSet<_> = places.iter().map(|(id, _)| *id).collect();
        let keyring = self.shared().replica().keyring();
        let verified = |id: &BlockId| keyring.verify(frame(self.shared(), *id).ok()?).ok();
        let verified: Vec<_> = blocks.iter().filter_map(verified).collect();
        let replica = self.shared().replica();
        let held = |id: BlockId| replica.logs().get(&id.origin).and_then(|log| log.hash_at(id.seq));
        verified.into_iter().filter(|block| held(block.id()) == Some(block.hash())).map(|block| block.id()).collect()
    }

    fn stored_block(&self, id: BlockId) -> Result<(Frame, Vec<Vec<merkle::Hash>>), Status> {
        let frame = frame(self.shared(), id)?;
        let leaves: Vec<_> = frame.slots.iter().map(Slot::leaf).collect();
        let paths = merkle::inclusion_paths(&leaves);
        Ok((frame, paths))
    }

    /// Waits until so many peers say that they hold the last of `receipts`, or says the truth after the time.
    async fn wait(&self, receipts: &[Receipt], peers: u32, timeout_ms: u64) -> Result<(u32, bool), Status> {
        let Some(last) = receipts.iter().map(|r| r.block).max_by_key(|b| (b.origin, b.seq)).filter(|_| peers > 0)
        else {
            return Ok((0, false));
        };
        let timeout_ms = if timeout_ms == 0 { WAIT_DEFAULT_MS } else { timeout_ms.min(WAIT_MAX_MS) };
        let begun = clock::instant();
        loop {
            let holding = u32::try_from(self.shared().replica().peers_holding(last)).unwrap_or(u32::MAX);
            if holding >= peers {
                return Ok((holding, false));
            }
            // A node that stops follows nobody any more: waiting longer tells nothing new.
            if self.streams.is_stopping() || begun.elapsed() >= Duration::from_millis(timeout_ms) {
                return Ok((holding, true));
            }
            self.engine.input(Input::Probe).await.map_err(|f| of_failure(&f))?;
            tokio::time::sleep(WAIT_STEP).await;
        }
    }

    /// When the certificates end that peers showed on connections that are open; of several of one peer, the one that
    /// ends last: it was shown last.
    fn certificates(&self) -> BTreeMap<MemberId, TimeMs> {
        let mut until = BTreeMap::new();
        let mut note = |member, not_after: TimeMs| {
            let latest: &mut TimeMs = until.entry(member).or_default();
            *latest = not_after.max(*latest);
        };
        if let Some((tls, connections)) = &self.lines {
            connections.peers().iter().for_each(|(peer, _)| note(peer.member, peer.not_after));
            tls.dialed().iter().for_each(|peer| note(peer.member, peer.not_after));
        }
        until
    }

    /// What health says of certificates that end: our own first.
    fn endings(&self, now: TimeMs, name_of: impl Fn(MemberId) -> String) -> Vec<(Health, String)> {
        let ours = self.lines.iter().filter_map(|(tls, _)| expiry::of_ours(tls.facts().not_after, now));
        let theirs = self.certificates().into_iter();
        ours.chain(theirs.filter_map(|(peer, until)| expiry::of_peer(&name_of(peer), until, now))).collect()
    }

    /// What health says of that which our own company has to see to.
    fn wanting(&self, replica: &Replica) -> Vec<String> {
        let taxonomy = self.shared().taxonomy();
        let labels = taxonomy.why_missing().map(|why| {
            let named = taxonomy.named();
            format!("labels are shown by their numbers and cannot be said: taxonomy {named}: {why}")
        });
        let policy = self.policy.refused();
        let policy = policy.map(|why| format!("the policy file is not in force, the one before it is: {why}"));
        let harmless = self.harmless.refused();
        let harmless =
            harmless.map(|why| format!("the file of harmless hashes is not in use, the one before it is: {why}"));
        let floods = floods::reason(self.tripped().len());
        let peppers = self.accounts.shut(replica);
        let index = self.shared().matcher().trouble().map(str::to_owned);
        labels.into_iter().chain(index).chain(policy).chain(peppers).chain(harmless).chain(floods).collect()
    }

    /// How the node is: what `Status` answers.
    pub fn state(&self) -> l::StatusResponse {
        let now = clock::now();
        let replica = self.shared().replica();
        let charter = replica.charters().effective();
        let (mut health, mut reasons) = replica.health(now);
        if let Some(failed) = self.shared().failure() {
            health = Health::Red;
            reasons.push(failed.to_string());
        }
        if let Some(why) = self.shared().unsound() {
            health = Health::Red;
            reasons.push(format!("on disk {why}: restart the node, and it fetches that again"));
        }
        let ends = self.endings(now, |member| replica.name_of(member));
        let wanting = self.wanting(&replica).into_iter().map(|reason| (Health::Yellow, reason));
        for (level, reason) in ends.into_iter().chain(wanting) {
            health = health.max(level);
            reasons.push(reason);
        }
        let alone = replica.exchanges().values().all(|exchange| !exchange.is_connected());
        let why = replica.exchanges().iter().filter_map(|(peer, exchange)| Some((*peer, exchange.last_error()?)));
        // Whoever is cut off by all is not told by a charter or a record: their last words are all that it has.
        reasons.extend(
            why.filter(|_| alone).take(WHY_ALONE_MAX).map(|(peer, why)| format!("{}: {why}", replica.name_of(peer))),
        );
        let (hour, digest) = replica.view().digest();
        let heads = replica.logs().iter().filter_map(|(origin, log)| {
            let head = log.durable_head()?;
            Some(l::LogHead {
                member: replica.name_of(origin.member),
                member_id: origin.member.0.to_vec().into(),
                log_no: origin.log_no.0,
                lane: Class::from_number(log.opening().class).map_or("unknown", Class::name).into(),
                seq: head.seq.0,
                header_hash: head.hash.0.to_vec().into(),
                forked_at: replica.proofs().fork(*origin).map_or(0, |seq| seq.0),
            })
        });
        let heads: Vec<_> = heads.collect();
        let suspended = charter.active().filter_map(|member| {
            let until_ms = replica.suspended(member.id)?.0;
            Some(l::SuspendedMember { member: member.name.clone(), member_id: member.id.0.to_vec().into(), until_ms })
        });
        let connected: Vec<_> = replica.exchanges().values().filter(|e| e.is_connected()).collect();
        let ours = replica.have();
        let ahead = connected.iter().map(|peer| peer.theirs().blocks_beyond(&ours));
        l::StatusResponse {
            forum_name: charter.name.clone(),
            forum_id: replica.charters().forum().0.to_vec().into(),
            charter_version: charter.version,
            charter_issued_ms: charter.issued.0,
            charter_valid_until_ms: charter.valid_until.0,
            member: replica.name_of(replica.me()),
            member_id: replica.me().0.to_vec().into(),
            health: health.name().into(),
            health_reasons: reasons,
            entries: replica.view().listed(),
            records: replica.view().records(),
            blocks: heads.iter().map(|head| head.seq).sum(),
            outbox: replica.outbox_len() as u64,
            guard_pending: replica.guard_pending(),
            view_hour_ms: hour.0,
            view_digest: digest.to_vec().into(),
            peers_connected: u32::try_from(connected.len()).unwrap_or(u32::MAX),
            peers_total: u32::try_from(replica.exchanges().len()).unwrap_or(u32::MAX),
            heads,
            proofs: u32::try_from(replica.proofs().len()).unwrap_or(u32::MAX),
            peer_address: self.peer_address.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            suspended: suspended.collect(),
            draining: self.streams.is_stopping(),
            blocks_missing: super::readiness::missing(ahead),
            lookups: Some(lookup_counts(&self.counters, now)),
            certificate_until_ms: self.lines.as_ref().map_or(0, |(tls, _)| tls.facts().not_after.0),
        }
    }
}

fn lookup_counts(counters: &Counters, now: TimeMs) -> l::LookupCounts {
    let part = counters.part(now);
    l::LookupCounts {
        since_ms: part.since_ms,
        lookups: part.lookups,
        with_a_match: part.lookups_with_a_match,
        matches: part.matches,
        allowed: part.allowed,
        reviewed: part.reviewed,
        blocked: part.blocked,
    }
}

fn warning_to_proto(warning: &crate::fields::Problem) -> l::PolicyWarning {
    l::PolicyWarning { line: u32::try_from(warning.line).unwrap_or(u32::MAX), message: warning.message.clone() }
}

fn refused_to_proto(refused: &RefusedConnection, charter: &Charter) -> l::RefusedConnection {
    let reason = &refused.reason;
    let pin = reason.pin();
    let alert = reason.alert();
    let named = |pin| charter.members.values().find(|m| m.pins.contains(&pin)).map(|m| m.name.clone());
    l::RefusedConnection {
        at_ms: refused.at.0,
        address: refused.address.to_string(),
        member: pin.and_then(named).unwrap_or_default(),
        pin: pin.map(|pin| hex(&pin.0)).unwrap_or_default(),
        reason: reason.label().into(),
        cause: reason.cause(),
        alert: alert.map(|(alert, _)| format!("{alert:?}")).unwrap_or_default(),
        told_us: matches!(alert, Some((_, Sender::Peer))),
        fix: reason.fix().unwrap_or_default().into(),
    }
}

fn gone(id: BlockId) -> Status {
    refuse(Code::DataLoss, "STORE", format!("block {id} is not in the store"))
}

fn receipt((frame, paths): &(Frame, Vec<Vec<merkle::Hash>>), block: BlockId, index: u32) -> Option<Receipt> {
    let record = match frame.slots.get(index as usize)? {
        Slot::Record(record) => record.clone(),
        Slot::Redacted(_) => Bytes::new(),
    };
    let path = paths.get(index as usize)?.clone();
    let (header, signature) = (*frame.header.bytes(), *frame.header.signature());
    Some(Receipt { block, index, header, signature, record, path })
}

fn receipt_to_proto(receipt: Receipt) -> l::Receipt {
    l::Receipt {
        member_id: receipt.block.origin.member.0.to_vec().into(),
        log_no: receipt.block.origin.log_no.0,
        seq: receipt.block.seq.0,
        index: receipt.index,
        header: receipt.header.to_vec().into(),
        signature: receipt.signature.to_vec().into(),
        record: receipt.record,
        inclusion_path: receipt.path.iter().map(|hash| hash.to_vec().into()).collect(),
    }
}

fn verdict_to_proto(verdict: Verdict) -> l::Verdict {
    match verdict {
        Verdict::Allow => l::Verdict::Allow,
        Verdict::Review => l::Verdict::Review,
        Verdict::Block => l::Verdict::Block,
    }
}

/// Time of the earliest statement that still stands.
fn first_seen(entry: &Entry) -> TimeMs {
    entry.said.iter().map(|said| said.time).min().unwrap_or(TimeMs(0))
}

/// An entry; its labels are called as `labels` has them.
pub(super) fn entry_to_proto(entry: &Entry, charter: &Charter, labels: &Taxonomy) -> l::Entry {
    l::Entry {
        signal: Some(l::Signal { r#type: entry.subject.type_name().into_owned(), value: entry.subject.value() }),
        status: entry.status.name().into(),
        labels: entry.labels.iter().map(|label| labels.name(*label)).collect(),
        languages: entry.languages.clone(),
        first_seen_ms: first_seen(entry).0,
        said: entry.said.iter().map(|said| said_to_proto(said, charter)).collect(),
        support_groups: entry.counts.support,
        small_support_groups: entry.counts.small_support,
        dispute_groups: entry.counts.disputes,
        allow_conflict: entry.allow_conflict,
        subject_id: entry.subject.id().0.to_vec().into(),
        ..Default::default()
    }
}

fn said_to_proto(said: &Said, charter: &Charter) -> l::Said {
    let member = charter.member(said.member);
    l::Said {
        member: member.map_or_else(|| said.member.to_string(), |m| m.name.clone()),
        member_id: said.member.0.to_vec().into(),
        group: member.map(|m| m.group.clone()).unwrap_or_default(),
        jurisdictions: member.map(|m| m.jurisdictions.clone()).unwrap_or_default(),
        what: said.word.name().into(),
        time_ms: said.time.0,
        log_no: said.block.origin.log_no.0,
        seq: said.block.seq.0,
        index: u32::from(said.index),
        expires_ms: said.expires.0,
        counts: said.counts,
        reason: record::reason_name(said.reason).unwrap_or_default().into(),
        severity: u32::from(said.severity),
        details: None,
        verified: false,
    }
}

/// What a page of the list is to show.
struct Filter {
    page_size: usize,
    after: Option<Subject>,
    alg: Option<Alg>,
    status: Option<Standing>,
    label: Option<u32>,
    language: String,
    member: Option<MemberId>,
    include_inactive: bool,
    since: TimeMs,
    now: TimeMs,
}

impl Filter {
    fn new(request: &l::ListEntriesRequest, shared: &Shared) -> Result<Self, Status> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let unknown = |field: &str, text: &str| bad_field(field, format!("{text:?} is unknown"));
        let page_size = match request.page_size as usize {
            0 => PAGE_DEFAULT,
            n if n <= PAGE_MAX => n,
            n => return Err(bad_field("page_size", format!("is {n}, at most {PAGE_MAX} is possible"))),
        };
        let alg = given(&request.r#type).map(|t| Alg::from_name(&t).ok_or_else(|| unknown("type", &t))).transpose()?;
        let status =
            given(&request.status).map(|t| Standing::from_name(&t).ok_or_else(|| unknown("status", &t))).transpose()?;
        let label = given(&request.label).map(|t| labels::asked(&shared.taxonomy(), &t, "label")).transpose()?;
        let member = given(&request.member)
            .map(|t| {
                let replica = shared.replica();
                let member = replica.charters().effective().member_named(&t).map(|m| m.id);
                member.ok_or_else(|| bad_field("member", format!("nobody in the charter is called {t:?}")))
            })
            .transpose()?;
        let after =
            given(&request.page_token).map(|t| parse_token(&t).ok_or_else(|| unknown("page_token", &t))).transpose()?;
        Ok(Self {
            page_size,
            after,
            alg,
            status,
            label,
            language: request.language.clone(),
            member,
            include_inactive: request.include_inactive,
            since: TimeMs(request.since_ms),
            now: clock::now(),
        })
    }

    /// Looks at the next subjects under one hold of the lock; returns the last one looked at, or `None` at the end.
    fn scan(&self, shared: &Shared, after: Option<&Subject>, page: &mut Vec<l::Entry>) -> Option<Subject> {
        let labels = shared.taxonomy();
        let replica = shared.replica();
        let charter = replica.charters().effective();
        let mut last = None;
        for (looked_at, subject) in replica.view().subjects_after(after).enumerate() {
            if looked_at >= SCAN_MAX || self.is_full(page) {
                return last;
            }
            last = Some(subject.clone());
            if self.alg.is_some_and(|alg| alg.number() != subject.alg()) {
                continue;
            }
            let entry = replica.view().entry(&subject, self.now);
            page.extend(entry.filter(|e| self.shows(e)).map(|e| entry_to_proto(&e, charter, &labels)));
        }
        None
    }

    fn is_full(&self, page: &[l::Entry]) -> bool {
        // Videos stand last in the list: only at the end of a page one has to look how long they are.
        let digits = |entry: &l::Entry| entry.signal.as_ref().map_or(0, |signal| signal.value.len());
        let is_long = page.last().is_some_and(|entry| digits(entry) > DIGITS_MAX);
        page.len() >= self.page_size || is_long && page.iter().map(digits).sum::<usize>() > PAGE_DIGITS_MAX
    }

    fn shows(&self, entry: &Entry) -> bool {
        first_seen(entry) >= self.since
            && (self.include_inactive || self.status == Some(Standing::Inactive) || entry.status != Standing::Inactive)
            && self.status.is_none_or(|s| s == entry.status)
            && self.label.is_none_or(|l| entry.labels.contains(&l))
            && (self.language.is_empty()
                || entry.languages.iter().any(|tag| reviews::is_of_language(tag, &self.language)))
            && self.member.is_none_or(|m| entry.said.iter().any(|s| s.member == m))
    }
}

/// A page token: the subject that the page ended with. Every subject has one, whatever its type.
pub(super) fn token(subject: &Subject) -> String {
    format!("{}.{}.{}.{}", subject.kind(), subject.alg(), subject.param(), hex(subject.digest()))
}

pub(super) fn parse_token(token: &str) -> Option<Subject> {
    let mut parts = token.splitn(4, '.');
    let (kind, alg, param) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let digest = data_encoding::HEXLOWER.decode(parts.next()?.as_bytes()).ok()?;
    Some(Subject::new(kind, alg, param, &digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::index::MATCHES_MAX;
    use crate::replica::testing::{START, TestForum, settings};

    /// PDQ hashes that differ in their last two bytes only: all near to each other.
    fn near(number: u16) -> [u8; 32] {
        let mut hash = [0x5a; 32];
        hash[30..].copy_from_slice(&number.to_be_bytes());
        hash
    }

    fn signal(hash: &[u8]) -> l::Signal {
        l::Signal { r#type: "pdq".into(), value: data_encoding::HEXLOWER.encode(hash) }
    }

    fn statements(numbers: std::ops::Range<u16>) -> l::SubmitRequest {
        let statement = |n| l::Statement {
            signal: Some(signal(&near(n))),
            stance: l::Stance::Submit.into(),
            quality: 100,
            ..Default::default()
        };
        l::SubmitRequest { statements: numbers.map(statement).collect(), ..Default::default() }
    }

    #[test]
    fn a_suspension_stands_alone_in_the_urgent_lane_and_ends_within_14_days() {
        let day = TimeMs::DAY_MS;
        let asked = |days: u64, change: fn(&mut l::Statement), lane| {
            let suspension = l::Suspension {
                member_id: vec![7; 16].into(),
                until_ms: clock::now().0 + days * day,
                reason: "other".into(),
            };
            let mut statement = l::Statement { suspend: Some(suspension), ..Default::default() };
            change(&mut statement);
            let request = l::SubmitRequest { statements: vec![statement], ..Default::default() };
            records(&request, lane, &Taxonomy::built_in(), |_| Ok(Vec::new()))
                .map_err(|status| status.message().to_owned())
        };
        let (made, keys) = asked(13, |_| (), Class::Urgent).unwrap();
        let said = record::parse(&made[0]);
        assert!(matches!(said, record::Parsed::Says(record::Statement::Suspend { reason: 99, .. })), "{said:?}");
        assert_eq!(keys, [None]);
        for (days, change, lane, expected) in [
            (13, (|_| ()) as fn(&mut l::Statement), Class::Normal, "is in the normal lane, expected the urgent one"),
            (15, |_| (), Class::Urgent, "within 14 days from now"),
            (0, |_| (), Class::Urgent, "within 14 days from now"),
            (13, |s| s.severity = 1, Class::Urgent, "stands beside other fields"),
            (
                13,
                |s| s.suspend.as_mut().unwrap().member_id = vec![7; 15].into(),
                Class::Urgent,
                "has 15 bytes, expected 16",
            ),
            (13, |s| s.suspend.as_mut().unwrap().reason = "spite".into(), Class::Urgent, "\"spite\" is unknown"),
        ] {
            let why = asked(days, change, lane).unwrap_err();
            assert!(why.contains(expected), "{why}, expected {expected}");
        }
    }

    #[test]
    fn a_label_that_the_taxonomy_does_not_have_is_shown_by_its_number_and_never_said() {
        let forum = TestForum::of_full(1);
        let mut view = crate::replica::view::View::new(&forum.charter(), START);
        let said = crate::replica::testing::opinion_with(1, 1, |o| o.labels = vec![13, 77]);
        let block = forum.log(1, 0, Class::Normal).block(&mut forum.keyring(), &[said]);
        view.fold(block.header(), block.records());
        let entry = view.entry(&crate::replica::testing::subject(1), START).unwrap();
        assert_eq!(entry_to_proto(&entry, &forum.charter(), &Taxonomy::built_in()).labels, ["symbol", "label-77"]);
        for unknown in ["label-77", "simbol"] {
            let mut request = statements(0..1);
            request.statements[0].labels = vec![unknown.into()];
            let why = records(&request, Class::Normal, &Taxonomy::built_in(), |_| Ok(Vec::new())).unwrap_err();
            assert!(why.message().contains("the nearest are symbol, "), "{}", why.message());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn answers_are_bounded_and_say_so() {
        let forum = TestForum::of_full(1);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let service = LocalService::new(handle.clone(), settings(1), String::new(), BTreeMap::new());
        let lookup = async |signals: Vec<l::Signal>| {
            service.lookup(Request::new(l::LookupRequest { signals, ..Default::default() })).await
        };
        let list = async |page_size, page_token: String| {
            let request = l::ListEntriesRequest { page_size, page_token, ..Default::default() };
            service.list_entries(Request::new(request)).await
        };

        for numbers in [0..511, 511..1_000] {
            service.submit(Request::new(statements(numbers))).await.unwrap();
        }
        let found = lookup(vec![signal(&near(0))]).await.unwrap().into_inner();
        assert_eq!((found.matches.len(), found.truncated), (1_000, false));
        service.submit(Request::new(statements(1_000..1_001))).await.unwrap();
        let found = lookup(vec![signal(&near(0))]).await.unwrap().into_inner();
        assert_eq!((found.matches.len(), found.truncated), (MATCHES_MAX, true), "1,001 hashes are near");
        assert!(found.matches.is_sorted_by_key(|m| m.distance), "the nearest are kept");

        assert!(lookup(vec![signal(&near(0)); SIGNALS_MAX]).await.is_ok());
        assert_eq!(lookup(vec![signal(&near(0)); SIGNALS_MAX + 1]).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(lookup(Vec::new()).await.unwrap_err().code(), Code::InvalidArgument);
        let far = l::LookupRequest { signals: vec![signal(&near(0))], distance_max: Some(32), ..Default::default() };
        assert_eq!(service.lookup(Request::new(far)).await.unwrap_err().code(), Code::InvalidArgument);

        for (asked, given) in [(0, PAGE_DEFAULT), (1, 1), (1_000, PAGE_MAX)] {
            let page = list(asked, String::new()).await.unwrap().into_inner();
            assert_eq!(page.entries.len(), given, "a page of {asked}");
            let rest = list(1_000, page.next_page_token).await.unwrap().into_inner();
            assert_eq!(rest.entries.len(), (1_001 - given).min(1_000), "and what comes after it");
        }
        assert_eq!(list(1_001, String::new()).await.unwrap_err().code(), Code::InvalidArgument);

        let taken = service.reports.try_acquire_many(u32::try_from(report::REPORTS_AT_ONCE).unwrap()).unwrap();
        let report =
            async || service.report(Request::new(l::ReportRequest { to_ms: 3_600_000, ..Default::default() })).await;
        assert_eq!(report().await.err().unwrap().code(), Code::ResourceExhausted, "one report at a time");
        drop(taken);
        assert!(report().await.is_ok());

        for refused in [statements(0..0), statements(0..512)] {
            assert_eq!(service.submit(Request::new(refused)).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let mut tagged = statements(0..1);
        tagged.statements[0].languages = vec!["en".into(); TAGS_MAX + 1];
        assert_eq!(service.submit(Request::new(tagged)).await.unwrap_err().code(), Code::InvalidArgument);
        assert!(clock::now() > START, "blocks of tests are of the past");
        drop(service);
        handle.stop().await;
        thread.join().unwrap();
    }
}
