//! Reports of a time that is over (M22): the same bytes at the member that was there, at one that was started again,
//! and at one that came late. Nobody can wait for that in a test, so what was said two days ago is signed here.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use staydown::clock;
use staydown::engine::STORE_FOLDER;
use staydown::replica::block::{Frame, Header, SignedHeader, Slot};
use staydown::replica::charter::CharterChain;
use staydown::replica::ids::{BlockId, Class, ForumId, KeyId, LogNo, Origin, TimeMs, sha256};
use staydown::replica::log::Log;
use staydown::replica::signal::{Alg, Subject};
use staydown::replica::signed::{Keyring, open_log};
use staydown::replica::{merkle, proto, record};
use staydown::report::{Report, csv, html};
use staydown::store::{Store, Write};
use staydown::wire::local::report_part::Part;
use staydown::wire::local::{self as l, Stance};

use crate::forum::{Forum, Node, hash};

const ACME: usize = 0;
const BOLT: usize = 1;
const CYAN: usize = 2;
/// delta, east and fern with their roles. They never run.
const AUTHORS: [(usize, u32); 3] = [(3, FULL | CERTIFIER), (4, FULL), (5, REFERRAL)];
const FULL: u32 = 1;
const REFERRAL: u32 = 8;
const CERTIFIER: u32 = 16;
const MIN: u64 = 60_000;

/// A company's log of two days ago.
struct Past {
    forum: ForumId,
    key: SigningKey,
    log: Log,
    keyring: Keyring,
    opening: Option<Bytes>,
    blocks: Vec<(BlockId, Bytes)>,
}

impl Past {
    fn of(forum: &Forum, company: usize) -> Self {
        let company = &forum.companies[company];
        let origin = Origin { member: company.id, log_no: LogNo(0) };
        let key = SigningKey::from_bytes(&clock::random());
        let opening = open_log(forum.forum, origin, Class::Normal.number(), &company.keys.root, &key);
        let first = record::encode(proto::Kind::LogOpen, clock::random(), &opening.message);
        let chain = CharterChain::found(forum.forum, forum.charters[0].clone()).unwrap();
        Self {
            forum: forum.forum,
            key,
            log: Log::empty(origin, opening),
            keyring: Keyring::new(&chain),
            opening: Some(first),
            blocks: Vec::new(),
        }
    }

    /// One block with one record, or with the opening before it.
    fn says(&mut self, time: TimeMs, record: Bytes) {
        let slots: Vec<_> = self.opening.take().into_iter().chain([record]).map(Slot::Record).collect();
        let payload = slots.iter().map(|slot| if let Slot::Record(bytes) = slot { bytes.len() } else { 0 });
        let payload_len = u32::try_from(payload.sum::<usize>()).unwrap();
        let (seq, prev, log_root) = self.log.next();
        let header = Header {
            forum: self.forum,
            id: BlockId { origin: self.log.origin(), seq },
            class: Class::Normal.number(),
            audience: 0,
            time,
            prev,
            log_root,
            record_count: u32::try_from(slots.len()).unwrap(),
            payload_len,
            records_root: merkle::root(slots.iter().map(Slot::leaf)),
            key_id: KeyId::of(self.key.verifying_key().as_bytes()),
            flags: 0,
            ext_hash: [0; 32],
        };
        let frame = Frame { header: SignedHeader::sign(header, &self.key), slots, ext: Bytes::new() };
        let block = self.keyring.verify(frame.clone()).unwrap();
        self.keyring.learn(&block);
        self.log.extend(&block, &self.keyring);
        self.blocks.push((block.id(), frame.encode()));
    }
}

fn about(n: u64) -> Option<proto::Subject> {
    Some(Subject::of(Alg::Sha256, &sha256(&[b"example", &n.to_be_bytes()])).to_proto())
}

fn opinion(n: u64, stance: u32, language: &str) -> Bytes {
    let (labels, languages) = if language.is_empty() { Default::default() } else { (vec![1], vec![language.into()]) };
    let opinion = proto::Opinion { subject: about(n), stance, labels, languages, ..Default::default() };
    record::encode(proto::Kind::Opinion, clock::random(), &opinion)
}

fn retract(n: u64) -> Bytes {
    let vote = proto::RetractVote { subject: about(n), yes: true, reason: 1 };
    record::encode(proto::Kind::RetractVote, clock::random(), &vote)
}

fn allow(n: u64, expires: TimeMs) -> Bytes {
    let allow = proto::Allow { subject: about(n), yes: true, expires_ms: expires.0, certificate: 7 };
    record::encode(proto::Kind::Allow, clock::random(), &allow)
}

fn referral(n: u64) -> Bytes {
    let referral = proto::Referral { subject: about(n), open: true, authority: 2, ..Default::default() };
    record::encode(proto::Kind::Referral, clock::random(), &referral)
}

fn incident(open: bool) -> Bytes {
    let incident = proto::Incident { id: vec![5; 16].into(), code: 11, level: 4, open, closes_ms: 0 };
    record::encode(proto::Kind::Incident, clock::random(), &incident)
}

fn outcome(n: u64, acted: TimeMs) -> Bytes {
    let outcome = proto::Outcome { subject: about(n), result: 1, acted_ms: acted.0 };
    record::encode(proto::Kind::Outcome, clock::random(), &outcome)
}

/// What delta, east and fern said on the day that begins at `from`, and one word of the day after.
fn the_day_before_yesterday(forum: &Forum, from: TimeMs) -> Vec<(BlockId, Bytes)> {
    let [mut delta, mut east, mut fern] = AUTHORS.map(|(company, _)| Past::of(forum, company));
    let at = |minute: u64| from.plus(minute * MIN);
    fern.says(at(1), referral(1));
    delta.says(at(5), opinion(1, 1, "fr"));
    delta.says(at(6), opinion(2, 1, "de"));
    delta.says(at(7), opinion(3, 1, "de"));
    east.says(at(10), opinion(1, 2, ""));
    east.says(at(12), opinion(2, 3, ""));
    east.says(at(15), opinion(4, 1, "pt-BR"));
    delta.says(at(18), allow(4, at(90 * 24 * 60)));
    east.says(at(20), opinion(2, 4, ""));
    delta.says(at(25), retract(3));
    east.says(at(30), retract(3));
    east.says(at(40), incident(true));
    delta.says(at(50), outcome(1, at(45)));
    east.says(at(70), incident(false));
    east.says(at(24 * 60), opinion(1, 3, ""));
    [delta, east, fern].into_iter().flat_map(|past| past.blocks).collect()
}

/// The report of the day that begins at `from`, as it is written in each format.
async fn written(node: &mut Node, from: TimeMs) -> [String; 3] {
    let to_ms = from.plus(TimeMs::DAY_MS).0;
    let request = l::ReportRequest { from_ms: from.0, to_ms, open: false, local: false };
    let mut parts = node.client.report(request).await.unwrap().into_inner();
    while let Some(part) = parts.message().await.unwrap() {
        if let Some(Part::Forum(json)) = part.part {
            let report: Report = serde_json::from_slice(&json).unwrap();
            return [report.to_json().unwrap(), csv::render(&report), html::render(&report)];
        }
    }
    panic!("no report came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m22_a_closed_period_has_one_report_also_at_whoever_came_late_or_was_started_again() {
    let mut forum = Forum::found(6);
    forum.next_charter(|charter| {
        charter.semantics = 2;
        charter.policy.as_mut().unwrap().retract_permille = 400;
        for (company, roles) in AUTHORS {
            let name = crate::forum::COMPANIES[company].0;
            charter.members.iter_mut().find(|member| member.name == name).unwrap().roles = roles;
        }
    });
    forum.companies.iter().for_each(|company| forum.invite(company));
    let from = TimeMs((clock::now().day() - 2) * TimeMs::DAY_MS);
    let blocks = the_day_before_yesterday(&forum, from);
    let store = Store::open(&forum.companies[ACME].data.join(STORE_FOLDER)).unwrap().store;
    store.write(&blocks.iter().map(|(id, bytes)| Write::Block(*id, bytes)).collect::<Vec<_>>()).unwrap();
    drop(store);

    let (mut acme, mut bolt) = (forum.start(ACME).await, forum.start(BOLT).await);
    bolt.agrees_with(&mut acme).await;
    let first = written(&mut acme, from).await;
    tells_of_the_day(&first[0]);
    assert_eq!(written(&mut bolt, from).await, first, "who had it from another");

    bolt.stop().await;
    let mut bolt = forum.start(BOLT).await;
    bolt.agrees_with(&mut acme).await;
    assert_eq!(written(&mut bolt, from).await, first, "who was started again");

    let mut cyan = forum.start(CYAN).await;
    cyan.agrees_with(&mut acme).await;
    assert_eq!(written(&mut cyan, from).await, first, "who came late");

    // What is said later changes nothing of it.
    acme.open().await;
    acme.say(Stance::Dispute, "sha256", &hash(2)).await;
    acme.say(Stance::Submit, "sha256", &hash(9)).await;
    cyan.agrees_with(&mut acme).await;
    for node in [&mut acme, &mut bolt, &mut cyan] {
        assert_eq!(written(node, from).await, first, "of a time that is over");
    }
    for node in [acme, bolt, cyan] {
        node.stop().await;
    }
}

/// What [`the_day_before_yesterday`] comes to, to the millisecond.
fn tells_of_the_day(json: &str) {
    let report: Report = serde_json::from_str(json).unwrap();
    assert!(report.head.closed && report.head.heads.len() == 3, "{:?}", report.head);
    assert_eq!((report.head.blocks, report.head.records, report.head.inert), (14, 17, 0));
    assert_eq!((report.entries.at_start, report.entries.new, report.entries.at_end), (0, 4, 4));
    let languages: Vec<_> = report.entries.by_language.iter().map(|t| (t.name.as_str(), t.new, t.at_end)).collect();
    assert_eq!(languages, [("de", 2, 2), ("fr", 1, 1), ("pt-BR", 1, 1)]);
    let took = |times: &staydown::report::Times| (times.count, times.longest_ms.map(|ms| ms / MIN));
    assert_eq!(took(&report.endorsements.time_to_corroborate), (1, Some(5)));
    assert_eq!(took(&report.disputes.time_to_withdraw), (1, Some(8)));
    assert_eq!(took(&report.retractions.time_from_first_vote), (1, Some(5)));
    assert_eq!(took(&report.retractions.time_from_listing), (1, Some(23)));
    assert_eq!(report.white_list.conflicts_at_end, 1);
    assert_eq!(took(&report.referrals.time_to_confirm), (1, Some(4)));
    assert_eq!(took(&report.incidents.time_open), (1, Some(30)));
    assert_eq!(took(&report.actions.time_to_act), (1, Some(44)));
}
