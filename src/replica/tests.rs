//! Rules that hold between modules, each on the smallest forum that shows it.

mod governing;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;

use super::block::{Frame, Slot, slot_to_proto};
use super::charter::{SEMANTICS_MAX, charter_hash, prove_possession, sign_charter};
use super::exchange::PeerEvent;
use super::ids::{Class, ForumId, LogNo, MemberId, TimeMs};
use super::own::{Answer, Refusal, Ticket};
use super::signed::Unverified;
use super::{Alarm, Effect, Health, Input, Replica, Restore, Settings, forks, merkle, proto, record, signal};

const NOW: TimeMs = TimeMs(1_795_000_000_000);
const NONCE: [u8; 32] = [5; 32];

/// A forum of `members` companies with one founder.
struct Forum {
    id: ForumId,
    body: proto::Charter,
    charters: Vec<proto::SignedCharter>,
}

fn root(member: u8) -> SigningKey {
    SigningKey::from_bytes(&[member; 32])
}

fn founder() -> SigningKey {
    SigningKey::from_bytes(&[99; 32])
}

fn member(number: u8) -> proto::Member {
    let id = MemberId([number; 16]);
    proto::Member {
        id: Bytes::copy_from_slice(&id.0),
        name: format!("member {number}"),
        group: format!("group {number}"),
        roles: 1,
        status: 1,
        log_limit: 16,
        log_root_key: Bytes::copy_from_slice(root(number).verifying_key().as_bytes()),
        pop: Bytes::copy_from_slice(&prove_possession(&root(number), &NONCE, id)),
        ..Default::default()
    }
}

fn signed(body: &proto::Charter) -> proto::SignedCharter {
    let body: Bytes = body.encode_to_vec().into();
    proto::SignedCharter { sigs: vec![sign_charter(&founder(), &body)], body }
}

impl Forum {
    fn of(members: u8, quota: u32) -> Self {
        let body = proto::Charter {
            version: 1,
            name: "forum".into(),
            semantics: 1,
            founder_keys: vec![Bytes::copy_from_slice(founder().verifying_key().as_bytes())],
            threshold: 1,
            members: (1..=members).map(member).collect(),
            policy: Some(proto::Policy {
                retract_min: 2,
                retract_permille: 500,
                contest_quorum: 2,
                allow_quorum: 1,
                quota_per_day: vec![quota; 3],
                log_bytes_max: 1 << 20,
                ..Default::default()
            }),
            nonce: Bytes::copy_from_slice(&NONCE),
            ..Default::default()
        };
        let first = signed(&body);
        Self { id: ForumId(charter_hash(&first.body).0), body, charters: vec![first] }
    }

    /// A version 2 called `name`.
    fn second(&self, name: &str, change: impl FnOnce(&mut proto::Charter)) -> proto::SignedCharter {
        let mut body = proto::Charter {
            version: 2,
            prev_hash: Bytes::copy_from_slice(&charter_hash(&self.charters[0].body).0),
            forum_id: Bytes::copy_from_slice(&self.id.0),
            name: name.into(),
            ..self.body.clone()
        };
        change(&mut body);
        signed(&body)
    }

    fn restore(&self) -> Restore {
        let settings = Settings {
            me: MemberId([1; 16]),
            root: root(1),
            log_seed: [7; 32],
            seed: 1,
            rules: Default::default(),
            instance: 1,
            moved: false,
            closed_below: LogNo(0),
            semantics_max: SEMANTICS_MAX,
        };
        Restore::new(settings, self.id, self.charters.clone(), NOW).unwrap()
    }
}

fn opinion(digest: u8, stance: u32) -> Bytes {
    let subject = proto::Subject { r#type: 1, alg: 4, param: 0, digest: vec![digest; 32].into() };
    let opinion = proto::Opinion { subject: Some(subject), stance, ..Default::default() };
    record::encode(proto::Kind::Opinion, [digest; 16], &opinion)
}

/// Says `records` and makes them durable: the answer, and the frames that were signed.
fn say(replica: &mut Replica, records: Vec<Bytes>) -> (Answer, Vec<Frame>) {
    say_in(replica, Class::Normal, records)
}

fn say_in(replica: &mut Replica, class: Class, records: Vec<Bytes>) -> (Answer, Vec<Frame>) {
    let submit = Input::Submit { ticket: Ticket(1), class, records };
    let mut effects = replica.handle(submit, NOW);
    effects.extend(replica.handle(Input::Seal, NOW));
    effects.extend(replica.handle(Input::Durable, NOW));
    let (mut answer, mut frames) = (None, Vec::new());
    for effect in effects {
        match effect {
            Effect::Answer(_, a) => answer = Some(a),
            Effect::Journal(_, bytes) => frames.push(Frame::decode(bytes).unwrap()),
            _ => {}
        }
    }
    (answer.unwrap(), frames)
}

#[test]
fn a_relay_that_redacts_an_honest_block_convicts_nobody() {
    let (mut replica, _) = Forum::of(1, 100).restore().finish();
    let (_, frames) = say(&mut replica, vec![opinion(2, 1), opinion(3, 1), opinion(4, 1), opinion(6, 1)]);
    let (_, later) = say(&mut replica, vec![opinion(8, 1), opinion(9, 1)]);
    let keyring = replica.keyring();
    for frame in [&frames[0], &later[0]] {
        let leaves: Vec<_> = frame.slots.iter().map(Slot::leaf).collect();
        let split = leaves.len().next_power_of_two() / 2;
        let halves = [merkle::root(leaves[..split].to_vec()), merkle::root(leaves[split..].to_vec())];
        for forged in [vec![merkle::root(leaves.clone())], halves.to_vec()] {
            let slots: Vec<_> = forged.into_iter().map(Slot::Redacted).collect();
            let forged = Frame { slots: slots.clone(), ..frame.clone() };
            assert_eq!(forged.records_root(), frame.header.header().records_root, "the root alone tells nothing");
            let relayed = keyring.verify(forged).unwrap_err();
            // Block 1 without its LogOpen is the sender's fault; any other redacted block is held.
            assert!(matches!(relayed, Unverified::Opening(..) | Unverified::Redacted(_)), "{relayed}");
            let bad = proto::SignedHeader {
                header: Bytes::copy_from_slice(frame.header.bytes()),
                signature: Bytes::copy_from_slice(frame.header.signature()),
                open: replica.opening(frame.header.header().id.origin).map(|o| o.message.clone()),
            };
            let slots = slots.iter().map(slot_to_proto).collect();
            let fault = proto::FaultProof { bad: Some(bad), slots, rule: 8, ..Default::default() };
            let proof = proto::Proof { p: Some(proto::proof::P::Fault(fault)) };
            assert_eq!(forks::verify(proof, &keyring).unwrap_err(), forks::ProofError::Slots);
        }
    }
}

#[test]
fn a_full_quota_does_not_stop_a_withdrawal() {
    // Two a day: the log's opening and one statement.
    let (mut replica, _) = Forum::of(1, 2).restore().finish();
    assert!(matches!(say(&mut replica, vec![opinion(2, 1)]).0, Answer::Durable(_)));
    assert!(matches!(say(&mut replica, vec![opinion(3, 1)]).0, Answer::Refused(Refusal::Quota { .. })));
    assert!(matches!(say(&mut replica, vec![opinion(2, 4)]).0, Answer::Durable(_)));
}

#[test]
fn nobody_stands_behind_what_is_harmless_and_everybody_may_disagree_with_it() {
    let (mut replica, _) = Forum::of(1, 100).restore().finish();
    let own = signal::Subject::new(1, 4, 0, &[5; 32]);
    replica.handle(Input::Harmless(std::sync::Arc::new([own].into())), NOW);
    for (digest, stance, expected) in [
        (0, 1, Some("ALL_ZERO")),
        (0, 2, Some("ALL_ZERO")),
        (0, 3, None),
        (0, 4, None),
        (5, 1, Some("OWN_HARMLESS")),
        (5, 2, Some("OWN_HARMLESS")),
        (5, 3, None),
        (5, 4, None),
        (6, 2, None),
    ] {
        let refused = match say(&mut replica, vec![opinion(digest, stance)]).0 {
            Answer::Refused(Refusal::Guard(0, why)) => Some(why.code()),
            Answer::Durable(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused, expected, "digest {digest}, stance {stance}");
    }
    replica.handle(Input::Harmless(Default::default()), NOW);
    assert!(matches!(say(&mut replica, vec![opinion(5, 1)]).0, Answer::Durable(_)), "taken off the list");
}

#[test]
fn a_charter_fork_counts_after_a_restart() {
    let mut forum = Forum::of(1, 100);
    let (one, other) = (forum.second("one", |c| c.members.push(member(2))), forum.second("other", |_| ()));
    forum.charters.push(one.clone());
    let fork = proto::CharterFork { a: Some(one), b: Some(other) };
    let proof = proto::Proof { p: Some(proto::proof::P::Charter(fork)) };
    let mut restore = forum.restore();
    assert!(restore.proof(&proof.encode_to_vec()));
    let (replica, _) = restore.finish();
    assert_eq!(replica.charters().effective().version, 1);
    assert!(replica.alarms().contains(&Alarm::CharterFork(2)));
    assert_eq!(replica.health(NOW).0, Health::Red);
    assert!(replica.exchanges().is_empty(), "member 2 belongs to one side of the fork only");
    assert!(!replica.guard_pending());
}

#[test]
fn a_log_that_counted_verifies_under_a_lower_limit() {
    let mut forum = Forum::of(1, 100);
    let (mut replica, _) = forum.restore().finish();
    say(&mut replica, vec![opinion(2, 1)]);
    let (_, frames) = say_in(&mut replica, Class::Urgent, vec![opinion(3, 1)]); // log 1
    let lower = forum.second("lower", |c| c.members[0].log_limit = 1);
    forum.charters.push(lower);
    let (late, _) = forum.restore().finish();
    assert!(late.keyring().verify(frames[0].clone()).is_ok());
}

#[test]
fn a_peer_that_sends_bad_charters_is_told_of_once() {
    let forum = Forum::of(2, 100);
    let (mut replica, _) = forum.restore().finish();
    for number in 0..5 {
        let mut bad = forum.second("bad", |c| c.members[1].name = "x".repeat(1_000 + number));
        bad.sigs.clear();
        replica.handle(Input::Peer(MemberId([2; 16]), PeerEvent::Charter(bad)), NOW);
        let unsound = forum.second("bad", |c| {
            c.members[1].name = "x".repeat(1_000 + number);
            c.members[1].log_limit = 0;
        });
        replica.handle(Input::Peer(MemberId([2; 16]), PeerEvent::Charter(unsound)), NOW);
    }
    assert_eq!(replica.alarms().len(), 1);
}
