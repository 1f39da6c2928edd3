//! The chapters about people: a parody is certified, an authority refers, an attack overtakes a backfill, a company
//! disagrees; and two members report all of it in the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::{
    ACME, BOLT, COMPANIES, CYAN, DOVE, ECHO, Forum, MEMBERS, STEP_MAX, Sample, Teller, answers, lookup, say, statement,
    until,
};
use crate::answers;
use crate::cli::client::Node;
use crate::cli::failure::{Exit, Failure};
use crate::cli::item::Hash;
use crate::cli::show;
use crate::cli::submit::Terms;
use crate::clock;
use crate::replica::ids::{TimeMs, hex};
use crate::wire::local;
use crate::wire::local::report_part::Part;

/// How long the certificate is good for.
const CERTIFIED_DAYS: u64 = 365;
const REFERRAL_HOURS: u64 = 12;
const INCIDENT_DAYS: u64 = 2;
/// Hashes in one call of the backfill (the service takes 512).
const BACKFILL_ROWS: u64 = 500;
/// Calls of the backfill under way at once: there is always more of it waiting than the node signs in a block.
const BACKFILL_CALLS: usize = 4;
/// Hashes that are listed before the attack begins, and at which the backfill ends even if nothing overtakes it.
const BACKFILL_MIN: u64 = 4 * BACKFILL_ROWS;
const BACKFILL_MAX: u64 = 200 * BACKFILL_ROWS;

pub(super) async fn tell(
    forum: &Forum,
    parody: &Sample,
    disputed: &Sample,
    teller: &mut Teller,
) -> Result<(), Failure> {
    certified(forum, parody).await?;
    teller
        .step("acme and bolt listed a parody: BLOCK; dove, a certifier, allowed it: REVIEW at all three companies")?;
    referred(forum).await?;
    teller.step("echo, a referral unit, referred something: REVIEW, and no company has to follow")?;
    let (before, after) = attacked(forum).await?;
    teller.step(&format!(
        "an incident: acme was sending a backfill, {} hashes so far; its urgent entry matched at bolt and cyan before \
         the rest of {}",
        show::count(before),
        show::count(after)
    ))?;
    disagreed(forum, disputed).await?;
    teller
        .step("bolt endorsed another image: BLOCK; cyan disputed it as news: REVIEW, and it waits in acme's queue")?;
    let size = reported(forum).await?;
    teller.step(&format!("acme and dove wrote the transparency report: {size} bytes, the same at both"))
}

fn terms(label: &str) -> Terms {
    Terms { labels: vec![label.to_owned()], ..Terms::default() }
}

/// Our statements that an item belongs on the list.
fn listing(item: &Sample, terms: &Terms) -> Vec<local::Statement> {
    item.hashes.iter().map(|hash| statement(hash, terms, clock::random(), None)).collect()
}

/// What nobody has ever seen: a digest that was drawn.
fn unseen() -> Sample {
    Sample { hashes: vec![drawn()] }
}

fn drawn() -> Hash {
    Hash { type_name: "sha256".to_owned(), value: hex(&clock::random::<32>()), quality: None }
}

/// Every company answers this when it sees the item.
async fn verdict_is(forum: &Forum, what: &str, item: &Sample, verdict: local::Verdict) -> Result<(), Failure> {
    let wanted = answers::verdict(verdict);
    for company in COMPANIES {
        let name = MEMBERS[company].name;
        until(&format!("{what} is {wanted} at {name}"), STEP_MAX, async || {
            let answer = lookup(forum.node(company), item).await?;
            let got = answer.verdict();
            Ok((got == verdict && !answer.matches.is_empty()).then_some(()).ok_or(answers::verdict(got).to_owned()))
        })
        .await?;
    }
    Ok(())
}

async fn certified(forum: &Forum, parody: &Sample) -> Result<(), Failure> {
    for company in [ACME, BOLT] {
        say(forum.node(company), listing(parody, &terms("propaganda"))).await?;
    }
    verdict_is(forum, "the parody", parody, local::Verdict::Block).await?;
    let expires_ms = clock::now().plus(CERTIFIED_DAYS * TimeMs::DAY_MS).0;
    let allow = local::Certification { yes: true, expires_ms, certificate: 1 };
    let certificate =
        |hash: &Hash| local::Statement { signal: Some(hash.signal()), allow: Some(allow), ..Default::default() };
    say(forum.node(DOVE), parody.hashes.iter().map(certificate).collect()).await?;
    verdict_is(forum, "the certified parody", parody, local::Verdict::Review).await
}

async fn referred(forum: &Forum) -> Result<(), Failure> {
    let item = unseen();
    let referral = local::Referral {
        open: true,
        authority: "police".to_owned(),
        jurisdiction: MEMBERS[ECHO].jurisdiction.to_owned(),
        deadline_ms: clock::now().plus(REFERRAL_HOURS * TimeMs::HOUR_MS).0,
    };
    let statement =
        local::Statement { signal: Some(drawn_signal(&item)), referral: Some(referral), ..Default::default() };
    say(forum.node(ECHO), vec![statement]).await?;
    verdict_is(forum, "what is only referred", &item, local::Verdict::Review).await
}

fn drawn_signal(item: &Sample) -> local::Signal {
    item.hashes.first().map(Hash::signal).unwrap_or_default()
}

/// How many hashes of the backfill were acknowledged when the urgent entry was submitted, and in the end.
async fn attacked(forum: &Forum) -> Result<(u64, u64), Failure> {
    let backfill = Arc::new(Backfill::default());
    let mut calls = JoinSet::new();
    for _ in 0..BACKFILL_CALLS {
        calls.spawn(Arc::clone(&backfill).send(forum.node(ACME).clone()));
    }
    let overtaken = overtake(forum, &backfill).await;
    backfill.is_enough.store(true, Ordering::Relaxed);
    while let Some(ended) = calls.join_next().await {
        ended.map_err(|error| Failure::new(Exit::Bug, format!("the backfill ended: {error}")))??;
    }
    let before = overtaken?;
    let after = backfill.acknowledged.load(Ordering::Relaxed);
    // The backfill ends when it is told to, so this fails only if nothing overtook all that it may be.
    if after >= BACKFILL_MAX {
        return Err(Failure::new(Exit::Failed, "check failed: an urgent entry overtakes a backfill")
            .culprit(format!("{after} hashes of the backfill came first")));
    }
    Ok((before, after))
}

async fn overtake(forum: &Forum, backfill: &Backfill) -> Result<u64, Failure> {
    let listed = || backfill.acknowledged.load(Ordering::Relaxed);
    until("the backfill is on its way", STEP_MAX, async || {
        Ok((listed() >= BACKFILL_MIN).then_some(()).ok_or(format!("{} hashes acknowledged", listed())))
    })
    .await?;
    let id: [u8; 16] = clock::random();
    let notice = local::IncidentNotice {
        id: id.to_vec().into(),
        label: "livestreamed-attack".to_owned(),
        level: 4,
        open: true,
        closes_ms: clock::now().plus(INCIDENT_DAYS * TimeMs::DAY_MS).0,
    };
    urgently(forum.node(CYAN), vec![local::Statement { incident: Some(notice), ..Default::default() }]).await?;
    let (item, before) = (unseen(), listed());
    let terms = Terms { incident: id.to_vec(), severity: 4, ..terms("incitement") };
    urgently(forum.node(ACME), listing(&item, &terms)).await?;
    verdict_is(forum, "what belongs to the incident", &item, local::Verdict::Review).await?;
    Ok(before)
}

async fn urgently(node: &Node, statements: Vec<local::Statement>) -> Result<(), Failure> {
    let lane = local::Lane::Urgent as i32;
    node.submit(local::SubmitRequest { statements, lane, ..Default::default() }).await.map(drop)
}

/// Hashes that a company lists in bulk until it is told that it is enough.
#[derive(Default)]
struct Backfill {
    is_enough: AtomicBool,
    acknowledged: AtomicU64,
}

impl Backfill {
    async fn send(self: Arc<Self>, node: Node) -> Result<(), Failure> {
        let terms = terms("other");
        while !self.is_enough.load(Ordering::Relaxed) && self.acknowledged.load(Ordering::Relaxed) < BACKFILL_MAX {
            let statements = (0..BACKFILL_ROWS).map(|_| statement(&drawn(), &terms, clock::random(), None)).collect();
            let lane = local::Lane::Bulk as i32;
            node.submit(local::SubmitRequest { statements, lane, ..Default::default() }).await?;
            self.acknowledged.fetch_add(BACKFILL_ROWS, Ordering::Relaxed);
        }
        Ok(())
    }
}

async fn disagreed(forum: &Forum, item: &Sample) -> Result<(), Failure> {
    say(forum.node(BOLT), listing(item, &terms("symbol"))).await?;
    verdict_is(forum, "what two companies stand behind", item, local::Verdict::Block).await?;
    let found = lookup(forum.node(CYAN), item).await?.matches.into_iter().filter(|found| found.distance == 0);
    let entries: Vec<_> = found.filter_map(|found| found.entry).collect();
    let mut disputes = answers(&entries, local::Stance::Dispute);
    disputes.iter_mut().for_each(|dispute| dispute.reason = "news-reporting".to_owned());
    say(forum.node(CYAN), disputes).await?;
    verdict_is(forum, "what is disputed", item, local::Verdict::Review).await?;
    until("the dispute waits in acme's queue", STEP_MAX, async || {
        let request = local::ListReviewsRequest { kind: "disputed-own".to_owned(), ..Default::default() };
        let waiting = forum.node(ACME).reviews(request).await?.reviews;
        let is_there = waiting.iter().any(|review| review.by.iter().any(|by| by == MEMBERS[CYAN].name));
        Ok(is_there.then_some(()).ok_or(format!("{} items wait", waiting.len())))
    })
    .await
}

/// The size of the report, which is the same at a company and at the certifier as soon as both have heard everything.
async fn reported(forum: &Forum) -> Result<usize, Failure> {
    until("acme and dove write the same report", STEP_MAX, async || {
        let hour = clock::now().hour();
        let [at_acme, at_dove] = [report(forum.node(ACME), hour).await?, report(forum.node(DOVE), hour).await?];
        let differ = || format!("{} bytes at acme, {} at dove", at_acme.len(), at_dove.len());
        Ok((at_acme == at_dove && !at_acme.is_empty()).then_some(at_acme.len()).ok_or_else(differ))
    })
    .await
}

/// The forum's part of the report of the hour that has begun.
async fn report(node: &Node, hour: TimeMs) -> Result<Vec<u8>, Failure> {
    let to_ms = hour.plus(TimeMs::HOUR_MS).0;
    let request = local::ReportRequest { from_ms: hour.0, to_ms, open: true, local: false };
    let mut report = Vec::new();
    node.report(request, |part| {
        if let Part::Forum(json) = part {
            report = json.to_vec();
        }
    })
    .await?;
    Ok(report)
}
