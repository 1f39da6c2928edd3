//! What `--json` writes for every command, and what the HTTP API answers: the one schema.
//!
//! One JSON value a command (`match` with several items and `list search` write one a line). Bytes are lowercase
//! hexadecimal, times are Unix milliseconds, 0 is "never" or "none" where the field says so. Fields are only ever
//! added. A failure is `{"error": {"cause", "culprits", "fix", "exit_code"}}`, on stdout like any answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::replica::charter::Roles;
use crate::replica::ids::{KeyId, hex};
use crate::replica::{proto, record};
use crate::wire::local;

/// A hash: `hash`, and inside most others.
#[derive(Debug, Serialize, ToSchema)]
pub struct Signal {
    /// pdq, md5, sha1, sha256, sha512, tlsh, url, vpdq, account
    pub r#type: String,
    /// Normal form.
    pub value: String,
    /// PDQ quality, 0 to 100, where it was computed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u32>,
}

/// `hash FILE`: one a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hashed {
    /// Path as given.
    pub file: String,
    /// Bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Vec<Signal>,
}

/// `submit`, `entry endorse` and the like.
#[derive(Debug, Serialize, ToSchema)]
pub struct Submitted {
    /// DURABLE or QUEUED.
    pub state: &'static str,
    /// One a statement; empty while queued.
    pub receipts: Vec<Receipt>,
    /// With `--wait-peers`.
    pub peers_holding: u32,
    /// Fewer peers than asked for hold it by now; it is durable all the same.
    pub wait_timed_out: bool,
}

/// Where a statement stands.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Receipt in forum.proto")]
pub struct Receipt {
    pub member_id: String,
    pub log_no: u32,
    pub seq: u64,
    pub index: u32,
    pub header: String,
    pub signature: String,
    pub record: String,
    pub inclusion_path: Vec<String>,
}

/// `match`: one an item.
#[derive(Debug, Serialize, ToSchema)]
pub struct Matched {
    /// Hash or path as given.
    pub item: String,
    /// ALLOW, REVIEW, BLOCK.
    pub verdict: &'static str,
    /// The line of our policy that decided.
    pub rule: String,
    /// Nearest first.
    pub matches: Vec<Match>,
    /// There are more matches than are shown.
    pub truncated: bool,
    /// In shadow mode: what the verdict would be, which is answered ALLOW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_verdict: Option<&'static str>,
    /// Why the rule's BLOCK is REVIEW here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lowered: String,
    /// With `--explain`: the rules in order, up to the one that decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<RuleExplained>,
}

/// The HTTP API's `match`: of one item, in all its signals and files.
#[derive(Debug, Serialize, ToSchema)]
pub struct LookedUp {
    /// ALLOW, REVIEW, BLOCK.
    pub verdict: &'static str,
    /// The line of our policy that decided.
    pub rule: String,
    /// Nearest first, at most 1,000.
    pub matches: Vec<Match>,
    /// There are more matches than are shown.
    pub truncated: bool,
    /// In shadow mode: what the verdict would be, which is answered ALLOW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_verdict: Option<&'static str>,
    /// Why the rule's BLOCK is REVIEW here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lowered: String,
    /// With `explain`: the rules in order, up to the one that decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<RuleExplained>,
    /// What was looked up of each file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileLookedUp>,
}

/// What was looked up of a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileLookedUp {
    /// Its hashes.
    pub signals: Vec<Signal>,
    /// Of its picture, 0 to 100; below 50 its PDQ hash says too little, and is not looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u32>,
}

impl From<local::LookupResponse> for LookedUp {
    fn from(l: local::LookupResponse) -> Self {
        let shadow = l.shadow_verdict();
        Self {
            verdict: verdict(l.verdict()),
            shadow_verdict: (shadow != local::Verdict::Unspecified).then(|| verdict(shadow)),
            rule: l.rule,
            matches: l.matches.into_iter().map(Match::from).collect(),
            truncated: l.truncated,
            lowered: l.lowered,
            explained: l.explained.into_iter().map(RuleExplained::from).collect(),
            files: l.files.into_iter().map(FileLookedUp::from).collect(),
        }
    }
}

impl From<local::Match> for Match {
    fn from(m: local::Match) -> Self {
        Self {
            distance: m.distance,
            threshold: m.threshold,
            entry: m.entry.unwrap_or_default().into(),
            flooding: m.flooding,
            signal_index: m.file_index.is_none().then_some(m.signal_index),
            file_index: m.file_index,
            share_permille: (m.share_permille > 0).then_some(m.share_permille),
        }
    }
}

impl From<local::RuleExplained> for RuleExplained {
    fn from(r: local::RuleExplained) -> Self {
        Self { verdict: verdict(r.verdict()), rule: r.rule, line: r.line, decided: r.decided, why: r.why }
    }
}

impl From<local::FileLookedUp> for FileLookedUp {
    fn from(f: local::FileLookedUp) -> Self {
        let signal = |s: local::Signal| Signal { r#type: s.r#type, value: s.value, quality: None };
        Self { signals: f.signals.into_iter().map(signal).collect(), quality: f.quality }
    }
}

/// A rule of our policy, and what became of it: inside `match --explain`, and `policy test`.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleExplained {
    /// Its name.
    pub rule: String,
    /// What it says where it decides.
    pub verdict: &'static str,
    /// Where it begins in its file; 0: in none.
    pub line: u32,
    /// Whether it decided.
    pub decided: bool,
    /// Why, or why not.
    pub why: String,
}

/// `taxonomy show`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of GetTaxonomyResponse in forum.proto")]
pub struct Taxonomy {
    pub taxonomy: String,
    pub missing: String,
    pub labels: Vec<TaxonomyLabel>,
}

/// One label.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of TaxonomyLabel in forum.proto")]
pub struct TaxonomyLabel {
    pub number: u32,
    pub name: String,
    pub facet: String,
    pub parent: String,
    pub formerly: Vec<String>,
    pub retired: bool,
    pub titles: std::collections::BTreeMap<String, String>,
}

impl From<&crate::replica::taxonomy::Taxonomy> for Taxonomy {
    fn from(taxonomy: &crate::replica::taxonomy::Taxonomy) -> Self {
        let label = |(number, label): (&u32, &crate::replica::taxonomy::Label)| TaxonomyLabel {
            number: *number,
            name: label.name.clone(),
            facet: label.facet.name().to_owned(),
            parent: label.parent.map(|parent| taxonomy.name(parent)).unwrap_or_default(),
            formerly: label.formerly.clone(),
            retired: label.retired,
            titles: label.titles.clone(),
        };
        Self {
            taxonomy: taxonomy.named().to_owned(),
            missing: taxonomy.why_missing().unwrap_or_default().to_owned(),
            labels: taxonomy.labels().iter().map(label).collect(),
        }
    }
}

impl From<local::GetTaxonomyResponse> for Taxonomy {
    fn from(t: local::GetTaxonomyResponse) -> Self {
        let label = |l: local::TaxonomyLabel| TaxonomyLabel {
            number: l.number,
            name: l.name,
            facet: l.facet,
            parent: l.parent,
            formerly: l.formerly,
            retired: l.retired,
            titles: l.titles.into_iter().map(|title| (title.language, title.text)).collect(),
        };
        Self { taxonomy: t.taxonomy, missing: t.missing, labels: t.labels.into_iter().map(label).collect() }
    }
}

/// `taxonomy check`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaxonomyChecked {
    /// Its file.
    pub file: String,
    /// What a charter writes for it; empty: it has mistakes.
    pub taxonomy: String,
    /// How many labels it has.
    pub labels: usize,
    /// What is wrong with it.
    pub errors: Vec<PolicyProblem>,
    /// What it changes against the version before.
    pub changes: Vec<String>,
    /// What it may not change.
    pub refused: Vec<String>,
}

/// `policy show`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Policy {
    /// Whether a running node says so; else this is what one would begin with.
    pub in_force: bool,
    /// Its file; empty: the policy that this release has built in.
    pub file: String,
    /// When it came into force; 0: it is not in force.
    pub since_ms: u64,
    /// Verdicts are computed and counted, and answered ALLOW.
    pub shadow: bool,
    /// Why the file as it is now is not in force; empty: it is.
    pub refused: String,
    /// The text of the file.
    pub text: String,
    /// Verdicts of each rule since then.
    pub counts: Vec<RuleCount>,
    /// The flood breaker; none: no node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

impl From<local::GetPolicyResponse> for Policy {
    fn from(p: local::GetPolicyResponse) -> Self {
        let count = |c: local::RuleCount| RuleCount { rule: c.rule, allow: c.allow, review: c.review, block: c.block };
        Self {
            in_force: true,
            file: p.file,
            since_ms: p.since_ms,
            shadow: p.shadow,
            refused: p.refused,
            text: p.text,
            counts: p.counts.into_iter().map(count).collect(),
            breaker: p.breaker.map(Breaker::from),
        }
    }
}

/// The flood breaker, inside `policy show`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Breaker in forum.proto")]
pub struct Breaker {
    pub off: bool,
    pub floor: u32,
    pub factor: u32,
    pub window_minutes: u32,
    pub hold_hours: u32,
    pub tripped: u64,
    pub trips: u64,
    pub lowered: u64,
    pub uncounted: u64,
}

/// Verdicts of one rule.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of RuleCount in forum.proto")]
pub struct RuleCount {
    pub rule: String,
    pub allow: u64,
    pub review: u64,
    pub block: u64,
}

/// `policy check`.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyChecked {
    /// The file; empty: the policy that this release has built in.
    pub file: String,
    /// How many rules it has; 0 where it has errors.
    pub rules: usize,
    /// What keeps it from being used.
    pub errors: Vec<PolicyProblem>,
    /// What is odd.
    pub warnings: Vec<PolicyProblem>,
}

/// A line of a policy file.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyProblem {
    /// Counted from 1.
    pub line: usize,
    /// What stands there and what may.
    pub message: String,
}

/// `policy test`.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyTested {
    /// The policy's file; empty: the built-in one.
    pub policy: String,
    /// The file of cases.
    pub cases: String,
    /// How many hold.
    pub held: usize,
    /// Those that do not.
    pub failed: Vec<PolicyCase>,
}

/// A case that does not hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyCase {
    /// What it is about.
    pub name: String,
    /// Where it begins in the file of cases.
    pub line: usize,
    /// The verdict that was expected.
    pub expected_verdict: &'static str,
    /// The rule that was expected; empty: any.
    pub expected_rule: String,
    /// The verdict that came.
    pub verdict: &'static str,
    /// The rule that said it.
    pub rule: String,
    /// Each rule, and why.
    pub explained: Vec<RuleExplained>,
}

/// An entry within the threshold.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Match in forum.proto")]
pub struct Match {
    pub distance: u32,
    pub threshold: u32,
    pub entry: Entry,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flooding: bool,
    /// Which of the signals that were looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_index: Option<u32>,
    /// Which of the files that were looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_index: Option<u32>,
    /// Of a video: of a thousand frames looked up, so many have one of its frames near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_permille: Option<u32>,
}

/// `entry show`, `list search`, and inside `match`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Entry in forum.proto")]
pub struct Entry {
    pub signal: Signal,
    pub subject_id: String,
    pub status: String,
    pub labels: Vec<String>,
    pub languages: Vec<String>,
    pub first_seen_ms: u64,
    pub support_groups: u32,
    pub small_support_groups: u32,
    pub dispute_groups: u32,
    pub allow_conflict: bool,
    pub said: Vec<Said>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<EntryIncident>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preserved: Vec<Kept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Done>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
}

/// One line of `list watch`. Without a change and an entry, it says only that everything up to the bookmark was told.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchEvent {
    /// STANDS, SAID or ENDED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<&'static str>,
    /// Where the node remembers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_before: Option<String>,
    /// The records that it comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordPlace>,
    /// As it is by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// To go on behind this event.
    pub bookmark: String,
}

/// Where a record stands.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of GetRecordRequest in forum.proto")]
pub struct RecordPlace {
    pub member_id: String,
    pub log_no: u32,
    pub seq: u64,
    pub index: u32,
}

/// One member's word.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Said in forum.proto")]
pub struct Said {
    pub member: String,
    pub member_id: String,
    pub group: String,
    pub jurisdictions: Vec<String>,
    pub what: String,
    pub time_ms: u64,
    pub log_no: u32,
    pub seq: u64,
    pub index: u32,
    pub expires_ms: u64,
    pub counts: bool,
    pub reason: String,
    pub severity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What else the record behind a word says; in `entry show`. What was not stated is left out.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Details in forum.proto")]
pub struct Details {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
}

/// A counter-narrative: `resource list`, and inside entries.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Resource in forum.proto")]
pub struct Resource {
    pub url: String,
    pub labels: Vec<String>,
    pub languages: Vec<String>,
    pub member: String,
    pub listed: bool,
    pub expires_ms: u64,
}

/// An attack that an entry belongs to.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of EntryIncident in forum.proto")]
pub struct EntryIncident {
    pub id: String,
    pub labels: Vec<String>,
}

/// A preservation notice.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Kept in forum.proto")]
pub struct Kept {
    pub member: String,
    pub time_ms: u64,
    pub until_ms: u64,
    pub contact: String,
}

/// What a company did.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Done in forum.proto")]
pub struct Done {
    pub member: String,
    pub time_ms: u64,
    pub result: String,
    pub acted_ms: u64,
}

/// `review list`: one an item.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Review in forum.proto")]
pub struct Review {
    pub id: String,
    pub kind: String,
    pub since_ms: u64,
    pub deadline_ms: u64,
    pub by: Vec<String>,
    pub entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flood>,
}

/// A signal that matches far more often here than it used to, inside `review list`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Flood in forum.proto")]
pub struct Flood {
    pub matches: u32,
    pub window_ms: u64,
    pub usual: u32,
    pub matches_since: u64,
    pub until_ms: u64,
    pub blocks: bool,
}

/// `review decide ID keep`.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeptBlocking {
    /// What is kept.
    pub signal: Signal,
    /// Until then it is not lowered again.
    pub until_ms: u64,
}

/// `referral list`: one a referral.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of ReferralState in forum.proto")]
pub struct Referral {
    pub signal: Signal,
    pub member: String,
    pub authority: String,
    pub jurisdiction: String,
    pub opened_ms: u64,
    pub deadline_ms: u64,
    pub closed_ms: u64,
    pub state: String,
    pub answered_ms: u64,
    pub confirmed_by: String,
    pub took_ms: u64,
    pub status: String,
}

/// `incident list`: one an incident.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of IncidentState in forum.proto")]
pub struct Incident {
    pub id: String,
    pub open: bool,
    pub entries: u64,
    pub words: Vec<IncidentWord>,
}

/// A member's word on an incident.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of IncidentWord in forum.proto")]
pub struct IncidentWord {
    pub member: String,
    pub label: String,
    pub level: u32,
    pub open: bool,
    pub closes_ms: u64,
    pub time_ms: u64,
}

/// `status`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of StatusResponse in forum.proto")]
pub struct Status {
    pub forum_name: String,
    pub forum_id: String,
    pub charter_version: u64,
    pub charter_issued_ms: u64,
    pub charter_valid_until_ms: u64,
    pub member: String,
    pub member_id: String,
    pub health: String,
    pub health_reasons: Vec<String>,
    pub entries: u64,
    pub records: u64,
    pub blocks: u64,
    pub outbox: u64,
    pub guard_pending: bool,
    pub view_hour_ms: u64,
    pub view_digest: String,
    pub peers_connected: u32,
    pub peers_total: u32,
    pub proofs: u32,
    pub peer_address: String,
    pub version: String,
    pub heads: Vec<LogHead>,
    pub suspended: Vec<SuspendedMember>,
    pub draining: bool,
    pub blocks_missing: u64,
}

/// A member that a steward has suspended.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of SuspendedMember in forum.proto")]
pub struct SuspendedMember {
    pub member: String,
    pub member_id: String,
    pub until_ms: u64,
}

/// `key rotate --log` and `log close`: a log that was ended.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of RotatedLog in forum.proto")]
pub struct EndedLog {
    pub lane: String,
    pub closed_log_no: u32,
    pub closed_seq: u64,
    pub next_log_no: u32,
}

impl From<local::RotatedLog> for EndedLog {
    fn from(l: local::RotatedLog) -> Self {
        Self { lane: l.lane, closed_log_no: l.closed_log_no, closed_seq: l.closed_seq, next_log_no: l.next_log_no }
    }
}

/// A log as this node holds it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of LogHead in forum.proto")]
pub struct LogHead {
    pub member: String,
    pub member_id: String,
    pub log_no: u32,
    pub lane: String,
    pub seq: u64,
    pub header_hash: String,
    pub forked_at: u64,
}

/// `peer list`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of PeerState in forum.proto")]
pub struct Peer {
    pub member: String,
    pub member_id: String,
    pub endpoint: String,
    pub state: String,
    pub last_error: String,
    pub retry_ms: u64,
    pub ours_missing_there: u64,
    pub theirs_missing_here: u64,
    pub last_heard_ms: u64,
    pub clock_offset_ms: i64,
    pub semantics_max: u32,
    pub agrees: String,
    pub certificate_until_ms: u64,
    pub blocks_there: u64,
    pub blocks_here: u64,
}

/// `peer list --refused`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of RefusedConnection in forum.proto")]
pub struct RefusedConnection {
    pub at_ms: u64,
    pub address: String,
    pub member: Option<String>,
    pub pin: Option<String>,
    pub reason: String,
    pub cause: String,
    pub alert: Option<String>,
    pub told_us: bool,
    pub fix: Option<String>,
}

/// `config show`: one setting.
#[derive(Serialize)]
pub struct Setting {
    /// As in the file, section first.
    pub key: &'static str,
    /// The value in use; empty where nothing is.
    pub value: String,
    /// `default`, file and line, environment variable, or flag.
    pub source: String,
    /// What holds where nobody sets it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// The environment variable that sets it.
    pub variable: String,
    /// Whether SIGHUP takes a change up; else a restart does.
    pub on_hangup: bool,
}

/// `doctor`.
#[derive(Serialize)]
pub struct Examined {
    /// Whether nothing failed.
    pub ok: bool,
    /// Whether a node runs there.
    pub running: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// `doctor`: one thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it belongs to: settings, files, keys, ...
    pub area: &'static str,
    /// OK, WARN or FAIL.
    pub level: &'static str,
    /// What was found.
    pub what: String,
    /// What to do.
    pub fix: Option<String>,
}

/// `check`.
#[derive(Serialize)]
pub struct Checked {
    /// OK, WARNING, CRITICAL or UNKNOWN.
    pub level: &'static str,
    /// 0, 1, 2 or 3.
    pub exit_code: u8,
    /// One sentence.
    pub text: String,
    /// Whether lookups may be sent to this node.
    pub ready: bool,
    /// Why it is not OK, all of it.
    pub reasons: Vec<String>,
    /// Absent if the node did not answer.
    pub figures: Option<CheckedFigures>,
}

/// `check`: what may be drawn.
#[derive(Serialize)]
pub struct CheckedFigures {
    /// Peers with a connection.
    pub peers_connected: u32,
    /// Peers in the charter.
    pub peers_total: u32,
    /// Subjects on the list.
    pub entries: u64,
    /// Blocks that half of the connected peers or more say that they have, and this node lacks.
    pub blocks_missing: u64,
    /// Submissions that wait.
    pub outbox: u64,
}

/// `log verify`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of VerifyLogResponse in forum.proto")]
pub struct Verified {
    pub logs: u64,
    pub blocks: u64,
    pub records: u64,
    pub first_break: Option<String>,
    pub view_hour_ms: u64,
    pub view_digest: String,
}

/// `charter show`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Charter {
    /// None while nobody has signed a first charter: its hash would be the name.
    pub forum_id: Option<String>,
    /// Of the forum.
    pub name: String,
    /// 1, 2, ...
    pub version: u64,
    /// Hash of the body.
    pub hash: String,
    /// When it was proposed.
    pub issued_ms: u64,
    /// When it becomes stale.
    pub valid_until_ms: u64,
    /// Key ids.
    pub founders: Vec<String>,
    /// So many of them must sign.
    pub threshold: usize,
    /// Key ids of founders whose signature holds.
    pub signed: Vec<String>,
    /// What it still lacks; empty when it counts.
    pub missing: Vec<String>,
    /// The companies.
    pub members: Vec<Member>,
    /// What it changes against the version before, in words; with `--diff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<String>>,
    /// What to think about twice before signing; with `--diff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// A company in a charter.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Member in signed.proto")]
pub struct Member {
    pub id: String,
    pub name: String,
    pub group: String,
    pub roles: Vec<&'static str>,
    pub status: &'static str,
    pub jurisdictions: Vec<String>,
    pub endpoints: Vec<String>,
    pub pins: Vec<String>,
    pub admitted_ms: u64,
}

/// `member list`: one a company, and `member show`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Member in signed.proto")]
pub struct Company {
    pub id: String,
    pub name: String,
    pub group: String,
    pub roles: Vec<&'static str>,
    /// ACTIVE, SUSPENDED by a charter, FORMER.
    pub status: &'static str,
    /// By a steward; 0: it is not.
    pub suspended_until_ms: u64,
    pub jurisdictions: Vec<String>,
    pub languages: Vec<String>,
    pub endpoints: Vec<String>,
    pub pins: Vec<String>,
    pub log_root_key_id: String,
    /// Of the log root key, to be read to each other: the same at every member.
    pub key_words: String,
    pub log_limit: u32,
    pub admitted_ms: u64,
    pub expelled: Option<Expelled>,
    pub cutoffs: Vec<Cut>,
}

/// How a company was expelled.
#[derive(Debug, Serialize, ToSchema)]
pub struct Expelled {
    /// KEEP: what it said up to its cutoffs counts; VOID: nothing does.
    pub policy: &'static str,
    /// Why.
    pub reason: String,
}

/// A log that counts up to a block; one that was not opened yet counts up to block 0.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Cutoff in signed.proto")]
pub struct Cut {
    pub log_no: u32,
    pub last_seq: u64,
    pub last_hash: String,
}

impl Company {
    /// A company of `charter`; `suspended` are those that stewards have cut off.
    pub fn of(charter: &proto::Charter, m: &proto::Member, suspended: &[local::SuspendedMember]) -> Self {
        let expulsion = charter.expulsions.iter().find(|e| e.member_id == m.id);
        let listed = expulsion.into_iter().flat_map(|e| &e.cutoffs).chain(&charter.cutoffs);
        let cut = |c: &proto::Cutoff| {
            let origin = c.origin.as_ref().filter(|origin| origin.member_id == m.id)?;
            Some(Cut { log_no: origin.log_no, last_seq: c.last_seq, last_hash: hex(&c.last_hash) })
        };
        Self {
            id: hex(&m.id),
            name: m.name.clone(),
            group: m.group.clone(),
            roles: Roles::from_bits(m.roles).names(),
            status: match m.status {
                1 => "ACTIVE",
                2 => "SUSPENDED",
                _ => "FORMER",
            },
            suspended_until_ms: suspended.iter().find(|s| s.member_id == m.id).map_or(0, |s| s.until_ms),
            jurisdictions: m.jurisdictions.clone(),
            languages: m.languages.clone(),
            endpoints: m.nodes.iter().flat_map(|node| node.endpoints.clone()).collect(),
            pins: m.nodes.iter().flat_map(|node| node.tls_spki_sha256.iter().map(|pin| hex(pin))).collect(),
            log_root_key_id: KeyId::of(&m.log_root_key).to_string(),
            key_words: crate::keys::words::key_words(&m.log_root_key),
            log_limit: m.log_limit,
            admitted_ms: m.admitted_ms,
            expelled: expulsion.map(Expelled::from),
            cutoffs: listed.filter_map(cut).collect(),
        }
    }
}

impl From<&proto::Expulsion> for Expelled {
    fn from(e: &proto::Expulsion) -> Self {
        let reason = u8::try_from(e.reason).ok().and_then(record::reason_name);
        Self {
            policy: if e.policy == 1 { "KEEP" } else { "VOID" },
            reason: reason.map_or_else(|| e.reason.to_string(), ToOwned::to_owned),
        }
    }
}

impl From<local::Receipt> for Receipt {
    fn from(r: local::Receipt) -> Self {
        Self {
            member_id: hex(&r.member_id),
            log_no: r.log_no,
            seq: r.seq,
            index: r.index,
            header: hex(&r.header),
            signature: hex(&r.signature),
            record: hex(&r.record),
            inclusion_path: r.inclusion_path.iter().map(|hash| hex(hash)).collect(),
        }
    }
}

impl From<local::SubmitResponse> for Submitted {
    fn from(s: local::SubmitResponse) -> Self {
        Self {
            state: if s.state() == local::SubmitState::Queued { "QUEUED" } else { "DURABLE" },
            receipts: s.receipts.into_iter().map(Receipt::from).collect(),
            peers_holding: s.peers_holding,
            wait_timed_out: s.wait_timed_out,
        }
    }
}

impl From<local::Entry> for Entry {
    fn from(e: local::Entry) -> Self {
        let signal = e.signal.unwrap_or_default();
        Self {
            signal: Signal { r#type: signal.r#type, value: signal.value, quality: None },
            subject_id: hex(&e.subject_id),
            status: e.status,
            labels: e.labels,
            languages: e.languages,
            first_seen_ms: e.first_seen_ms,
            support_groups: e.support_groups,
            small_support_groups: e.small_support_groups,
            dispute_groups: e.dispute_groups,
            allow_conflict: e.allow_conflict,
            said: e.said.into_iter().map(Said::from).collect(),
            resources: e.resources.into_iter().map(Resource::from).collect(),
            incidents: e.incidents.into_iter().map(|i| EntryIncident { id: hex(&i.id), labels: i.labels }).collect(),
            preserved: e
                .preserved
                .into_iter()
                .map(|k| Kept { member: k.member, time_ms: k.time_ms, until_ms: k.until_ms, contact: k.contact })
                .collect(),
            outcomes: e
                .outcomes
                .into_iter()
                .map(|d| Done { member: d.member, time_ms: d.time_ms, result: d.result, acted_ms: d.acted_ms })
                .collect(),
            receipts: Vec::new(),
        }
    }
}

/// The name of what happened to an entry; empty where there is none.
pub fn change(change: local::Change) -> &'static str {
    match change {
        local::Change::Unspecified => "",
        local::Change::Stands => "STANDS",
        local::Change::Said => "SAID",
        local::Change::Ended => "ENDED",
    }
}

impl From<local::WatchEvent> for WatchEvent {
    fn from(e: local::WatchEvent) -> Self {
        let name = change(e.change());
        let place = |place: local::GetRecordRequest| RecordPlace {
            member_id: hex(&place.member_id),
            log_no: place.log_no,
            seq: place.seq,
            index: place.index,
        };
        Self {
            change: (!name.is_empty()).then_some(name),
            status_before: (!e.status_before.is_empty()).then_some(e.status_before),
            records: e.records.into_iter().map(place).collect(),
            entry: e.entry.map(Entry::from),
            bookmark: e.bookmark,
        }
    }
}

impl From<local::Said> for Said {
    fn from(s: local::Said) -> Self {
        Self {
            member: s.member,
            member_id: hex(&s.member_id),
            group: s.group,
            jurisdictions: s.jurisdictions,
            what: s.what,
            time_ms: s.time_ms,
            log_no: s.log_no,
            seq: s.seq,
            index: s.index,
            expires_ms: s.expires_ms,
            counts: s.counts,
            reason: s.reason,
            severity: s.severity,
            details: s.details.map(Details::from),
        }
    }
}

impl From<local::Details> for Details {
    fn from(d: local::Details) -> Self {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let number = |number: u32| (number > 0).then_some(number);
        Self {
            labels: d.labels,
            languages: d.languages,
            confidence: number(d.confidence),
            basis: text(d.basis),
            review_ms: (d.review_ms > 0).then_some(d.review_ms),
            incident_id: text(hex(&d.incident_id)),
            item_id: text(hex(&d.item_id)),
            quality: number(d.quality),
            certificate: number(d.certificate),
            authority: text(d.authority),
            jurisdiction: text(d.jurisdiction),
        }
    }
}

impl From<local::Resource> for Resource {
    fn from(r: local::Resource) -> Self {
        Self {
            url: r.url,
            labels: r.labels,
            languages: r.languages,
            member: r.member,
            listed: r.listed,
            expires_ms: r.expires_ms,
        }
    }
}

impl From<local::Review> for Review {
    fn from(r: local::Review) -> Self {
        Self {
            id: r.id,
            kind: r.kind,
            since_ms: r.since_ms,
            deadline_ms: r.deadline_ms,
            by: r.by,
            entry: r.entry.unwrap_or_default().into(),
            flood: r.flood.map(Flood::from),
        }
    }
}

impl From<local::Flood> for Flood {
    fn from(f: local::Flood) -> Self {
        Self {
            matches: f.matches,
            window_ms: f.window_ms,
            usual: f.usual,
            matches_since: f.matches_since,
            until_ms: f.until_ms,
            blocks: f.blocks,
        }
    }
}

impl From<local::Breaker> for Breaker {
    fn from(b: local::Breaker) -> Self {
        Self {
            off: b.off,
            floor: b.floor,
            factor: b.factor,
            window_minutes: b.window_minutes,
            hold_hours: b.hold_hours,
            tripped: b.tripped,
            trips: b.trips,
            lowered: b.lowered,
            uncounted: b.uncounted,
        }
    }
}

impl From<local::ReferralState> for Referral {
    fn from(r: local::ReferralState) -> Self {
        let signal = r.signal.unwrap_or_default();
        Self {
            signal: Signal { r#type: signal.r#type, value: signal.value, quality: None },
            member: r.member,
            authority: r.authority,
            jurisdiction: r.jurisdiction,
            opened_ms: r.opened_ms,
            deadline_ms: r.deadline_ms,
            closed_ms: r.closed_ms,
            state: r.state,
            answered_ms: r.answered_ms,
            confirmed_by: r.confirmed_by,
            took_ms: r.took_ms,
            status: r.status,
        }
    }
}

impl From<local::IncidentState> for Incident {
    fn from(i: local::IncidentState) -> Self {
        let word = |w: local::IncidentWord| IncidentWord {
            member: w.member,
            label: w.label,
            level: w.level,
            open: w.open,
            closes_ms: w.closes_ms,
            time_ms: w.time_ms,
        };
        Self { id: hex(&i.id), open: i.open, entries: i.entries, words: i.words.into_iter().map(word).collect() }
    }
}

impl From<local::LogHead> for LogHead {
    fn from(h: local::LogHead) -> Self {
        Self {
            member: h.member,
            member_id: hex(&h.member_id),
            log_no: h.log_no,
            lane: h.lane,
            seq: h.seq,
            header_hash: hex(&h.header_hash),
            forked_at: h.forked_at,
        }
    }
}

impl From<local::StatusResponse> for Status {
    fn from(s: local::StatusResponse) -> Self {
        let suspended = |m: local::SuspendedMember| SuspendedMember {
            member: m.member,
            member_id: hex(&m.member_id),
            until_ms: m.until_ms,
        };
        Self {
            forum_name: s.forum_name,
            forum_id: hex(&s.forum_id),
            charter_version: s.charter_version,
            charter_issued_ms: s.charter_issued_ms,
            charter_valid_until_ms: s.charter_valid_until_ms,
            member: s.member,
            member_id: hex(&s.member_id),
            health: s.health,
            health_reasons: s.health_reasons,
            entries: s.entries,
            records: s.records,
            blocks: s.blocks,
            outbox: s.outbox,
            guard_pending: s.guard_pending,
            view_hour_ms: s.view_hour_ms,
            view_digest: hex(&s.view_digest),
            peers_connected: s.peers_connected,
            peers_total: s.peers_total,
            proofs: s.proofs,
            peer_address: s.peer_address,
            version: s.version,
            heads: s.heads.into_iter().map(LogHead::from).collect(),
            draining: s.draining,
            blocks_missing: s.blocks_missing,
            suspended: s.suspended.into_iter().map(suspended).collect(),
        }
    }
}

impl From<local::PeerState> for Peer {
    fn from(p: local::PeerState) -> Self {
        Self {
            member: p.member,
            member_id: hex(&p.member_id),
            endpoint: p.endpoint,
            state: p.state,
            last_error: p.last_error,
            retry_ms: p.retry_ms,
            ours_missing_there: p.ours_missing_there,
            theirs_missing_here: p.theirs_missing_here,
            last_heard_ms: p.last_heard_ms,
            clock_offset_ms: p.clock_offset_ms,
            semantics_max: p.semantics_max,
            agrees: p.agrees,
            certificate_until_ms: p.certificate_until_ms,
            blocks_there: p.blocks_there,
            blocks_here: p.blocks_here,
        }
    }
}

impl From<local::RefusedConnection> for RefusedConnection {
    fn from(c: local::RefusedConnection) -> Self {
        let known = |text: String| (!text.is_empty()).then_some(text);
        Self {
            at_ms: c.at_ms,
            address: c.address,
            member: known(c.member),
            pin: known(c.pin),
            reason: c.reason,
            cause: c.cause,
            alert: known(c.alert),
            told_us: c.told_us,
            fix: known(c.fix),
        }
    }
}

impl From<local::VerifyLogResponse> for Verified {
    fn from(v: local::VerifyLogResponse) -> Self {
        Self {
            logs: v.logs,
            blocks: v.blocks,
            records: v.records,
            first_break: (!v.first_break.is_empty()).then_some(v.first_break),
            view_hour_ms: v.view_hour_ms,
            view_digest: hex(&v.view_digest),
        }
    }
}

impl From<&crate::replica::charter::Member> for Member {
    fn from(m: &crate::replica::charter::Member) -> Self {
        use crate::replica::charter::MemberStatus;
        let status = match m.status {
            MemberStatus::Active => "ACTIVE",
            MemberStatus::Suspended => "SUSPENDED",
            MemberStatus::Former => "FORMER",
        };
        Self {
            id: m.id.to_string(),
            name: m.name.clone(),
            group: m.group.clone(),
            roles: m.roles.names(),
            status,
            jurisdictions: m.jurisdictions.clone(),
            endpoints: m.endpoints.clone(),
            pins: m.pins.iter().map(ToString::to_string).collect(),
            admitted_ms: m.admitted.0,
        }
    }
}

/// The name of a verdict.
pub fn verdict(verdict: local::Verdict) -> &'static str {
    match verdict {
        local::Verdict::Allow => "ALLOW",
        local::Verdict::Block => "BLOCK",
        // What this program does not know is for people to look at.
        local::Verdict::Review | local::Verdict::Unspecified => "REVIEW",
    }
}

/// `token new`. The one time that its secret is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewToken {
    /// The token itself.
    pub secret: String,
    /// Of a person: whoever opens it is signed in; empty for a program, and where there is no console.
    pub link: String,
    /// What the node keeps of it.
    pub token: Token,
}

/// `token list`: one a token.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Token in forum.proto")]
pub struct Token {
    pub name: String,
    pub role: String,
    pub scopes: Vec<String>,
    pub made_ms: u64,
    pub expires_ms: u64,
}

/// `audit export`: one an act.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of AuditedAct in forum.proto")]
pub struct AuditedAct {
    pub time_ms: u64,
    pub caller: String,
    pub via: String,
    pub request_id: String,
    pub action: String,
    pub target: String,
    pub outcome: String,
}

impl From<local::CreateTokenResponse> for NewToken {
    fn from(c: local::CreateTokenResponse) -> Self {
        Self { secret: c.secret, link: c.link, token: c.token.unwrap_or_default().into() }
    }
}

impl From<local::Token> for Token {
    fn from(t: local::Token) -> Self {
        Self { name: t.name, role: t.role, scopes: t.scopes, made_ms: t.made_ms, expires_ms: t.expires_ms }
    }
}

impl From<local::AuditedAct> for AuditedAct {
    fn from(a: local::AuditedAct) -> Self {
        Self {
            time_ms: a.time_ms,
            caller: a.caller,
            via: a.via,
            request_id: a.request_id,
            action: a.action,
            target: a.target,
            outcome: a.outcome,
        }
    }
}
