//! `Lookup` and its kin: what is listed of that which is asked for, and what our policy makes of it.
//!
//! Searching needs no lock. Where it comes upon nothing, which is nearly always, the answer is ready; else the replica is
//! asked about the few candidates. A search that takes microseconds is made where the call is: handing it to another thread
//! costs as much as the search. What takes longer, and what would have to wait for the replica, goes to a few threads of its
//! own, so that a thousand calls at once neither stop the node nor start a thousand threads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use super::{LocalService, SIGNALS_MAX, bad_field, bug, entry_to_proto, verdict_to_proto};
use crate::clock;
use crate::engine::Shared;
use crate::hashing::{Pool, PoolError};
use crate::matcher::{self, Candidate, Index, Sought, is_short};
use crate::meters::{LookupKind, add};
use crate::net::addresses::{self, Addresses};
use crate::net::status::refuse;
use crate::net::{floods, reviews};
use crate::policy::breaker::Breaker;
use crate::policy::in_force::InForce;
use crate::policy::{Decision, Floor, Found, Policy};
use crate::replica::Replica;
use crate::replica::ids::TimeMs;
use crate::replica::index::{MATCHES_MAX, Pdq};
use crate::replica::signal::{self, Alg, MatchKind, PDQ_QUALITY_MIN, Subject};
use crate::replica::verdict::Verdict;
use crate::replica::view::Entry;
use crate::replica::vpdq::SHARE_MIN_PERMILLE;
use crate::report::local::Counters;
use crate::wire::local as l;

/// Files of one lookup: a picture in some sizes, a video's stills.
pub const FILES_MAX: usize = 8;
/// Bytes of all files of one lookup: one of the longest that are hashed in memory.
pub const FILES_BYTES_MAX: usize = 64 << 20;
/// Queries for files have numbers from here on, in the order of the files; those below are signals.
const FILES_FROM: usize = SIGNALS_MAX;
/// Matches, the nearest first, that come with counter-narratives: a person reads no more, and a lookup holds the lock.
const OFFERED_MATCHES_MAX: usize = 16;
/// Candidates that the replica is asked about where the call is: some ten microseconds.
const ASKED_AT_ONCE_MAX: usize = 16;
/// Hashes of one bulk request: 2.5 MiB of the longest, and some 2 MiB of answer if every one of them matches.
pub const BULK_MAX: usize = 10_000;
/// Pictures of a bulk request that are searched in one go: so many that going through the index with all of them costs
/// each a third of a search of its own, and some ten milliseconds, after which others have their turn.
const BULK_PICTURES_TOGETHER: usize = 4_096;
/// Entries near a hash that are looked for in that one go. Few hashes have more, and those are searched again, one after
/// the other: with [`MATCHES_MAX`] for each of them a list of near copies would fill the memory.
const BULK_NEAR_FIRST: usize = 16;
/// Entries that are shown of a hash in bulk.
const BULK_SHOWN_MAX: usize = 4;
/// Videos of one lookup: each comes with the digits of a hundred frames, and a person reads no more.
const VIDEOS_MAX: usize = 100;
/// Entries that the replica is asked about under one hold of its lock.
const BULK_ASKED_MAX: usize = 64;

/// What lookups share.
#[derive(Clone)]
pub(super) struct Lookups {
    /// One permit a search on a thread of its own.
    searches: Arc<Semaphore>,
    hashing: Pool,
}

impl Default for Lookups {
    /// As many searches as there are cores: more would only take turns.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self { searches: Arc::new(Semaphore::new(cores)), hashing: Pool::of_all_cores() }
    }
}

/// A request that is understood.
struct Asked {
    sought: Sought,
    addresses: Addresses,
    manner: Manner,
    files: Vec<l::FileLookedUp>,
}

impl LocalService {
    /// Answers one request.
    ///
    /// # Errors
    /// What is wrong with it, or that too much is under way.
    pub(super) async fn look_up(&self, request: l::LookupRequest) -> Result<l::LookupResponse, Status> {
        let kind = if request.files.is_empty() { LookupKind::Single } else { LookupKind::File };
        let begun = clock::instant();
        let answer = self.look_up_one(request).await?;
        self.count(kind, &answer, begun);
        Ok(answer)
    }

    async fn look_up_one(&self, request: l::LookupRequest) -> Result<l::LookupResponse, Status> {
        let Asked { sought, addresses, manner, files } = self.understood(request).await?;
        let answer = self.found(sought, self.judge(addresses, manner)).await?;
        Ok(l::LookupResponse { files, ..answer })
    }

    async fn found(&self, sought: Sought, judge: Judge) -> Result<l::LookupResponse, Status> {
        if !is_short(&sought.queries) {
            return self
                .aside(move |on| {
                    let found = on.shared.matcher().now().search(&sought);
                    judge.answer(&on.shared.replica(), &on, found)
                })
                .await;
        }
        let found = self.shared().matcher().now().search(&sought);
        if found.is_empty() {
            return Ok(judge.nothing(&self.counters));
        }
        if found.candidates.len() <= ASKED_AT_ONCE_MAX
            && let Some(replica) = self.shared().replica_if_free()
        {
            return Ok(judge.answer(&replica, &self.here(), found));
        }
        self.aside(move |on| judge.answer(&on.shared.replica(), &on, found)).await
    }

    fn count(&self, kind: LookupKind, answer: &l::LookupResponse, begun: Instant) {
        let lookups = &self.shared().meters().lookups;
        // Under a shadow policy this is the verdict that the rules came to.
        let verdicts = [answer.shadow_verdict(), answer.verdict()];
        lookups.answered(kind, verdicts.into_iter().find_map(verdict_of).unwrap_or(Verdict::Allow), 1);
        lookups.took(kind, begun.elapsed());
    }

    /// Answers requests that came together over a stream, in their order; each as [`LocalService::look_up`] would.
    pub(super) async fn look_up_together(
        &self,
        requests: Vec<l::LookupRequest>,
    ) -> Vec<Result<l::LookupResponse, Status>> {
        let begun = clock::instant();
        let answers = self.all_found(requests).await;
        answers.iter().flatten().for_each(|answer| self.count(LookupKind::Stream, answer, begun));
        answers
    }

    async fn all_found(&self, requests: Vec<l::LookupRequest>) -> Vec<Result<l::LookupResponse, Status>> {
        if requests.len() == 1 {
            let mut answers = Vec::with_capacity(1);
            for request in requests {
                answers.push(self.look_up_one(request).await);
            }
            return answers;
        }
        let (mut items, mut judges, mut refused) = (Vec::new(), Vec::new(), Vec::with_capacity(requests.len()));
        for request in requests {
            refused.push(self.understood(request).await.map(|asked| {
                judges.push(self.judge(asked.addresses, asked.manner));
                items.push(asked.sought);
                asked.files
            }));
        }
        let answers = self.aside(move |on| {
            let found = on.shared.matcher().now().search_many(&items);
            let answer = |(judge, found): (&Judge, matcher::Found)| match found.is_empty() {
                true => judge.nothing(&on.counters),
                false => judge.answer(&on.shared.replica(), &on, found),
            };
            judges.iter().zip(found).map(answer).collect::<Vec<_>>()
        });
        let answers = answers.await;
        let mut answered = answers.as_ref().ok().into_iter().flatten().cloned();
        let failed = || Err(answers.as_ref().err().cloned().unwrap_or_else(bug));
        let mut answer = |files| match answered.next() {
            Some(answer) => Ok(l::LookupResponse { files, ..answer }),
            None => failed(),
        };
        refused.into_iter().map(|one| one.and_then(&mut answer)).collect()
    }

    /// Answers one request of many hashes.
    ///
    /// # Errors
    /// As [`LocalService::look_up`].
    pub(super) async fn look_up_bulk(&self, request: l::LookupBulkRequest) -> Result<l::LookupBulkResponse, Status> {
        let begun = clock::instant();
        let bulk = Bulk::of(&request)?;
        let together = if bulk.alg == Alg::Pdq { BULK_PICTURES_TOGETHER } else { BULK_MAX };
        let judge = Arc::new(self.judge(Addresses::default(), Manner::default()));
        let mut answer = l::LookupBulkResponse { looked_up: short(bulk.len()), ..Default::default() };
        for (part, begins) in bulk.parts(together).zip((0..).step_by(together)) {
            let (judge, mut rules) = (Arc::clone(&judge), std::mem::take(&mut answer.rules));
            let searched = self.aside(move |on| {
                let hits = part.search(&on, &judge, begins, &mut rules);
                (hits, rules)
            });
            let (hits, rules) = searched.await?;
            answer.hits.extend(hits);
            answer.rules = rules;
        }
        let lookups = &self.shared().meters().lookups;
        let hits = answer.hits.iter().map(|hit| [hit.shadow_verdict(), hit.verdict()]);
        let verdicts = hits.map(|verdicts| verdicts.into_iter().find_map(verdict_of).unwrap_or(Verdict::Allow));
        verdicts.for_each(|verdict| lookups.answered(LookupKind::Bulk, verdict, 1));
        let passed = u64::from(answer.looked_up) - answer.hits.len() as u64;
        lookups.answered(LookupKind::Bulk, Verdict::Allow, passed);
        lookups.took(LookupKind::Bulk, begun.elapsed());
        Ok(answer)
    }

    /// What is to be searched for.
    async fn understood(&self, mut request: l::LookupRequest) -> Result<Asked, Status> {
        check_size(&request)?;
        let threshold = threshold(request.distance_max)?;
        let share_min_permille = share_min(request.share_min_permille)?;
        let addresses = Addresses::of(&request.signals)?;
        let mut queries = self.accounts.queries(self.shared(), &mut request.signals)?;
        queries.extend(addresses.queries());
        addresses::forget(&mut request.signals);
        let mut files = Vec::with_capacity(request.files.len());
        for (n, file) in std::mem::take(&mut request.files).into_iter().enumerate() {
            let subjects = Box::pin(self.hashed(file, request.dihedral));
            let (subjects, listing, quality) = subjects.await.map_err(|error| no_hashes(n, &error))?;
            let signal = |subject: &Subject| l::Signal { r#type: subject.type_name().into(), value: subject.value() };
            files.push(l::FileLookedUp { signals: subjects.iter().map(signal).collect(), quality, listing });
            queries.extend(subjects.into_iter().map(|subject| (FILES_FROM + n, subject)));
        }
        let sought = Sought { queries, threshold, share_min_permille };
        let manner = Manner { explain: request.explain, browsing: request.browsing };
        Ok(Asked { sought, addresses, manner, files })
    }

    /// What can be looked up of a file, the positions therein of what would list it, and the quality of its picture.
    async fn hashed(&self, file: Bytes, dihedral: bool) -> Result<(Vec<Subject>, Vec<u32>, Option<u32>), PoolError> {
        let begun = clock::instant();
        let hashed = match dihedral {
            true => self.lookups.hashing.hash_positions(file).await,
            false => self.lookups.hashing.hash(file).await.map(|hashes| (hashes, None)),
        };
        let meters = self.shared().meters();
        match &hashed {
            Err(PoolError::Busy) => add(&meters.hashing_rejected, 1),
            _ => meters.hashed.observe(begun.elapsed()),
        }
        let (hashes, positions) = hashed?;
        let quality = hashes.image.as_ref().map(|image| u32::from(image.quality));
        let turned = hashes.variants.iter().chain(positions.iter().flatten());
        let turned = turned.map(|picture| Subject::of(Alg::Pdq, &picture.hash));
        let listing = hashes.subjects();
        let mut subjects: Vec<_> = listing.iter().cloned().chain(turned).collect();
        if quality.is_some_and(|quality| quality < PDQ_QUALITY_MIN) {
            subjects.retain(|subject| subject.known_alg() != Some(Alg::Pdq));
        }
        subjects.sort_unstable();
        subjects.dedup();
        let listing = (0..).zip(&subjects).filter(|(_, subject)| listing.contains(subject)).map(|(n, _)| n).collect();
        Ok((subjects, listing, quality))
    }

    /// Files that wait for a worker or are being hashed.
    pub(super) fn hashing(&self) -> usize {
        self.lookups.hashing.under_way()
    }

    fn here(&self) -> Site {
        Site { shared: Arc::clone(self.shared()), counters: Arc::clone(&self.counters) }
    }

    /// Does `work` on one of the threads for searches, when it is its turn.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce(Site) -> T + Send + 'static) -> Result<T, Status> {
        let turn = Arc::clone(&self.lookups.searches).acquire_owned().await.map_err(|_closed| bug())?;
        let place = self.here();
        let worked = tokio::task::spawn_blocking(move || {
            let answer = work(place);
            drop(turn);
            answer
        });
        worked.await.map_err(|_panicked| bug())
    }

    /// By what one lookup is judged.
    fn judge(&self, addresses: Addresses, manner: Manner) -> Judge {
        let (policy, breaker) = (self.policy.in_force(), Arc::clone(&self.breaker));
        Judge { policy, addresses, shadow: self.policy.shadow(), manner, breaker }
    }
}

fn verdict_of(verdict: l::Verdict) -> Option<Verdict> {
    match verdict {
        l::Verdict::Unspecified => None,
        l::Verdict::Allow => Some(Verdict::Allow),
        l::Verdict::Review => Some(Verdict::Review),
        l::Verdict::Block => Some(Verdict::Block),
    }
}

fn check_size(request: &l::LookupRequest) -> Result<(), Status> {
    let (signals, files) = (request.signals.len(), request.files.len());
    if signals > SIGNALS_MAX || signals + files == 0 {
        let what = format!("has {signals} entries, 1 to {SIGNALS_MAX} are possible, and none only beside files");
        return Err(bad_field("signals", what));
    }
    if files > FILES_MAX {
        return Err(bad_field("files", format!("has {files} entries, at most {FILES_MAX} are possible")));
    }
    let bytes: usize = request.files.iter().map(Bytes::len).sum();
    if bytes > FILES_BYTES_MAX {
        let what =
            format!("has {bytes} bytes, at most {FILES_BYTES_MAX} are possible: look up the hashes of longer ones");
        return Err(bad_field("files", what));
    }
    Ok(())
}

/// Why there are no hashes of the file with this number.
fn no_hashes(n: usize, error: &PoolError) -> Status {
    match error {
        PoolError::Busy => refuse(Code::ResourceExhausted, "RATE", format!("files[{n}]: {error}")),
        PoolError::Panicked => refuse(Code::Internal, "BUG", format!("files[{n}]: {error}")),
        PoolError::TooLong { .. } | PoolError::Image(_) | PoolError::TooSlow => {
            bad_field(format!("files[{n}]"), error.to_string())
        }
    }
}

fn threshold(distance_max: Option<u32>) -> Result<u32, Status> {
    match distance_max.unwrap_or(signal::PDQ_DISTANCE_MAX) {
        threshold @ 0..=signal::PDQ_DISTANCE_MAX => Ok(threshold),
        threshold => {
            let what = format!("is {threshold}, at most {} is possible", signal::PDQ_DISTANCE_MAX);
            Err(bad_field("distance_max", what))
        }
    }
}

/// Of a thousand frames of a video, so many must match.
fn share_min(permille: Option<u32>) -> Result<u32, Status> {
    match permille.unwrap_or(SHARE_MIN_PERMILLE) {
        share @ 1..=1_000 => Ok(share),
        share => Err(bad_field("share_min_permille", format!("is {share}, 1 to 1,000 are possible"))),
    }
}

/// What a search needs to have at hand.
struct Site {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

/// How somebody asks.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// Also which rule decided, and why.
    explain: bool,
    /// A person looks around, and nothing was uploaded.
    browsing: bool,
}

/// By what lookups are judged: a policy that is swapped meanwhile changes the next ones.
struct Judge {
    policy: Arc<InForce>,
    /// Those that were asked for: what stands under their expressions may not count.
    addresses: Addresses,
    shadow: bool,
    manner: Manner,
    breaker: Arc<Breaker>,
}

/// What is listed of the candidates of one item.
struct Listed {
    entries: Vec<(Candidate, Entry)>,
    /// Of the videos among them, frames of a thousand.
    shares: BTreeMap<Subject, u32>,
    truncated: bool,
}

impl Listed {
    fn of(replica: &Replica, addresses: &Addresses, found: matcher::Found, now: TimeMs) -> Self {
        let listed = |candidate: Candidate| {
            let entry = replica.view().entry(&candidate.subject, now)?;
            let counts = entry.status.matches() && addresses.count(&entry);
            counts.then_some((candidate, entry))
        };
        let mut entries: Vec<_> = found.candidates.into_iter().filter_map(listed).take(MATCHES_MAX + 1).collect();
        let truncated = found.truncated || entries.len() > MATCHES_MAX || found.videos.len() > VIDEOS_MAX;
        entries.truncate(MATCHES_MAX);
        let mut shares = BTreeMap::new();
        for video in found.videos.into_iter().take(VIDEOS_MAX) {
            // Of each the first of its records that is listed; the greatest share comes first.
            let Some(record) = video.records.into_iter().find_map(listed) else { continue };
            if let Place::Vacant(place) = shares.entry(record.1.subject.clone()) {
                place.insert(video.share_permille);
                entries.push(record);
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { entries, shares, truncated }
    }

    /// As the policy sees them.
    fn weighed<'a>(&'a self, replica: &'a Replica, flooding: &[bool], now: TimeMs) -> Vec<Found<'a>> {
        let charter = replica.charters().effective();
        let weighed = self.entries.iter().zip(flooding).map(|((candidate, entry), flooding)| {
            let incident = replica.view().in_open_incident(&entry.subject, now);
            Found { flooding: *flooding, ..Found::of(entry, candidate.distance, incident, charter) }
        });
        weighed.collect()
    }
}

impl Judge {
    /// The answer where nothing is listed. The replica is not asked for it.
    fn nothing(&self, counters: &Counters) -> l::LookupResponse {
        let decision = self.policy.decide(&[], false);
        if !self.manner.browsing {
            counters.looked_up(0, decision.verdict);
        }
        self.worded(&decision, &[], false)
    }

    /// The answer to one lookup.
    fn answer(&self, replica: &Replica, on: &Site, found: matcher::Found) -> l::LookupResponse {
        let now = clock::now();
        let labels = on.shared.taxonomy();
        let charter = replica.charters().effective();
        let listed = Listed::of(replica, &self.addresses, found, now);
        let entries = || listed.entries.iter().map(|(_, entry)| entry);
        let limits = self.policy.policy.breaker();
        let flooding = match self.manner.browsing {
            true => floods::look(replica, &self.breaker, limits, entries(), now),
            false => floods::count(replica, &self.breaker, limits, entries(), now),
        };
        let weighed = listed.weighed(replica, &flooding, now);
        let decision = self.decide(&weighed, listed.truncated);
        if !self.manner.browsing {
            on.counters.looked_up(weighed.len(), decision.verdict);
        }
        let answer = self.worded(&decision, &weighed, listed.truncated);
        let offers = |n: usize, entry: &Entry| {
            if n < OFFERED_MATCHES_MAX { reviews::offers(replica, entry, &labels, now) } else { Vec::new() }
        };
        let matches = listed.entries.iter().enumerate().map(|(n, (candidate, entry))| l::Match {
            signal_index: if candidate.query < FILES_FROM { short(candidate.query) } else { 0 },
            file_index: candidate.query.checked_sub(FILES_FROM).map(short),
            distance: candidate.distance,
            threshold: candidate.threshold,
            entry: Some(l::Entry { resources: offers(n, entry), ..entry_to_proto(entry, charter, &labels) }),
            flooding: flooding.get(n).copied().unwrap_or_default(),
            share_permille: listed.shares.get(&entry.subject).copied().unwrap_or_default(),
        });
        l::LookupResponse { matches: matches.collect(), ..answer }
    }

    /// Decides, and counts it.
    fn decide(&self, found: &[Found<'_>], truncated: bool) -> Decision {
        let decision = self.policy.decide(found, truncated);
        if decision.lowered == Some(Floor::Flooding) {
            self.breaker.count_lowered();
        }
        decision
    }

    /// The verdict, and in shadow mode what it would be.
    fn verdicts(&self, decision: &Decision) -> (l::Verdict, l::Verdict) {
        let verdict = verdict_to_proto(decision.verdict);
        if self.shadow { (l::Verdict::Allow, verdict) } else { (verdict, l::Verdict::Unspecified) }
    }

    /// The answer but for its matches.
    fn worded(&self, decision: &Decision, found: &[Found<'_>], truncated: bool) -> l::LookupResponse {
        let policy: &Policy = &self.policy.policy;
        let explained = if self.manner.explain { policy.explain(found, truncated) } else { Vec::new() };
        let explained = explained.into_iter().map(|rule| l::RuleExplained {
            rule: rule.rule,
            verdict: verdict_to_proto(rule.verdict).into(),
            line: u32::try_from(rule.line).unwrap_or(u32::MAX),
            decided: rule.fired,
            why: rule.why,
        });
        let (verdict, shadow_verdict) = self.verdicts(decision);
        l::LookupResponse {
            verdict: verdict.into(),
            shadow_verdict: shadow_verdict.into(),
            rule: policy.name(decision.decider).into(),
            lowered: decision.lowered.map(|floor| floor.to_string()).unwrap_or_default(),
            explained: explained.collect(),
            truncated,
            ..Default::default()
        }
    }
}

/// Hashes of one type, one behind the other.
struct Bulk {
    alg: Alg,
    /// Bytes of each.
    length: usize,
    digests: Bytes,
    threshold: u32,
}

impl Bulk {
    fn of(request: &l::LookupBulkRequest) -> Result<Self, Status> {
        let types = || Alg::SUPPORTED.into_iter().filter(|alg| is_bulk(*alg));
        let known = || types().map(Alg::name).collect::<Vec<_>>().join(", ");
        let wrong = || bad_field("type", format!("is {:?}, expected one of {}", request.r#type, known()));
        let alg = Alg::from_name(&request.r#type).filter(|alg| types().any(|one| one == *alg)).ok_or_else(wrong)?;
        let length = alg.digest_len().ok_or_else(wrong)?;
        let (bytes, digests) = (request.digests.len(), request.digests.clone());
        if bytes == 0 || bytes % length != 0 || bytes / length > BULK_MAX {
            let what = format!("has {bytes} bytes, expected 1 to {BULK_MAX} digests of {length} bytes for {alg}");
            return Err(bad_field("digests", what));
        }
        Ok(Self { alg, length, digests, threshold: threshold(request.distance_max)? })
    }

    fn len(&self) -> usize {
        self.digests.len() / self.length
    }

    /// The same hashes, at most so many together.
    fn parts(&self, together: usize) -> impl Iterator<Item = Self> {
        let bytes = together * self.length;
        (0..self.digests.len()).step_by(bytes).map(move |at| {
            let digests = self.digests.slice(at..self.digests.len().min(at + bytes));
            Self { digests, ..*self }
        })
    }

    /// Those that match. The first of them stands at `begins` in its request. Rules that decide are added to `rules`.
    fn search(&self, on: &Site, judge: &Judge, begins: usize, rules: &mut Vec<String>) -> Vec<l::BulkHit> {
        let index = on.shared.matcher().now();
        let mut found = self.found_in(&index);
        let mut hits = Vec::new();
        loop {
            let (mut some, mut asked) = (Vec::new(), 0);
            while asked < BULK_ASKED_MAX
                && let Some(one) = found.next()
            {
                asked += one.1.len();
                some.push(one);
            }
            if some.is_empty() {
                break;
            }
            let (now, replica) = (clock::now(), on.shared.replica());
            for (position, candidates, truncated) in some {
                let found = matcher::Found { candidates, truncated, ..Default::default() };
                let listed = Listed::of(&replica, &judge.addresses, found, now);
                if !listed.entries.is_empty() || listed.truncated {
                    hits.push(judge.hit(&replica, on, begins + position, &listed, rules, now));
                }
            }
        }
        let passed = (self.len() - hits.len()) as u64;
        judge.policy.nothing_matched(passed);
        on.counters.nothing_found(passed);
        hits
    }

    /// Positions that something may be listed for, with the candidates of each, and whether there are more.
    fn found_in<'a>(&'a self, index: &'a Index) -> Box<dyn Iterator<Item = (usize, Vec<Candidate>, bool)> + 'a> {
        let candidate = |distance, threshold, subject| Candidate { distance, query: 0, threshold, subject };
        if self.alg == Alg::Pdq {
            let hashes = self.digests.as_chunks().0;
            let near = index.near(hashes, self.threshold, BULK_NEAR_FIRST).into_iter().zip(hashes).enumerate();
            return Box::new(near.filter(|(_, (near, _))| !near.hits.is_empty()).map(
                move |(position, (near, hash))| {
                    let again = || index.near(&[*hash], self.threshold, MATCHES_MAX).pop();
                    let near = if near.truncated { again().unwrap_or(near) } else { near };
                    let hits = near.hits.into_iter().map(|(distance, hash): (u32, Pdq)| {
                        candidate(distance, self.threshold, Subject::of(Alg::Pdq, &hash))
                    });
                    (position, hits.collect(), near.truncated)
                },
            ));
        }
        let subjects: Vec<_> = self.digests.chunks_exact(self.length).map(|d| Subject::of(self.alg, d)).collect();
        let listed = index.among(&subjects).into_iter().zip(subjects).enumerate().filter(|(_, (listed, _))| *listed);
        Box::new(listed.map(move |(position, (_, subject))| (position, vec![candidate(0, 0, subject)], false)))
    }
}

/// Whether hashes of this type can be looked up in bulk: as they are.
pub fn is_bulk(alg: Alg) -> bool {
    alg == Alg::Pdq || alg.match_kind() == MatchKind::Exact && alg.kind() == signal::KIND_CONTENT
}

impl Judge {
    /// What is said of one hash in bulk.
    fn hit(
        &self,
        replica: &Replica,
        on: &Site,
        position: usize,
        listed: &Listed,
        rules: &mut Vec<String>,
        now: TimeMs,
    ) -> l::BulkHit {
        let entries = listed.entries.iter().map(|(_, entry)| entry);
        let flooding = floods::look(replica, &self.breaker, self.policy.policy.breaker(), entries, now);
        let decision = self.decide(&listed.weighed(replica, &flooding, now), listed.truncated);
        on.counters.looked_up(listed.entries.len(), decision.verdict);
        let name = self.policy.policy.name(decision.decider);
        let rule = rules.iter().position(|rule| rule == name).unwrap_or_else(|| {
            rules.push(name.to_owned());
            rules.len() - 1
        });
        let shown = listed.entries.iter().take(BULK_SHOWN_MAX).map(|(candidate, entry)| l::BulkMatch {
            distance: candidate.distance,
            digest: entry.subject.digest().to_vec().into(),
            status: entry.status.name().into(),
        });
        let (verdict, shadow_verdict) = self.verdicts(&decision);
        l::BulkHit {
            position: short(position),
            verdict: verdict.into(),
            shadow_verdict: shadow_verdict.into(),
            rule: short(rule),
            matches: short(listed.entries.len()),
            truncated: listed.truncated,
            nearest: shown.collect(),
        }
    }
}

fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
