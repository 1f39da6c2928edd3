//! Rules of governance that hold between files: what counts after forks, suspensions, erasures and changed keys.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::replica::block::{Frame, Slot};
use crate::replica::charter::prove_possession;
use crate::replica::exchange::{Ask, Call, DISAGREEMENTS, PeerEvent, Trouble};
use crate::replica::forks::fork_proof;
use crate::replica::ids::{BlockId, Class, Head, HeaderHash, LogNo, Origin, Seq, TimeMs};
use crate::replica::own::{Answer, Refusal, Ticket};
use crate::replica::record::{self, Parsed, Statement};
use crate::replica::signal::Subject;
use crate::replica::signed::{Keyring, Unverified, VerifiedBlock, open_log};
use crate::replica::testing::{
    FULL, START, STEWARD, TestForum, TestLog, account, attest, id, key, opinion, origin, public, settings, subject,
    suspend, verified_header, with_peppers,
};
use crate::replica::view::Status;
use crate::replica::{Alarm, Effect, Health, Input, Replica, Restore, Settings, Write, merkle, proto};

/// A node with a disk, as the engine keeps it.
struct Node {
    replica: Replica,
    now: TimeMs,
    blocks: BTreeMap<BlockId, Bytes>,
    journal: Vec<Bytes>,
    rebuilds: usize,
}

impl Node {
    fn new(forum: &TestForum, me: u8) -> Self {
        Self::with(forum, settings(me))
    }

    fn with(forum: &TestForum, settings: Settings) -> Self {
        let (replica, _) = Restore::new(settings, forum.id, forum.charters.clone(), START).unwrap().finish();
        Self { replica, now: START, blocks: BTreeMap::new(), journal: Vec::new(), rebuilds: 0 }
    }

    /// The same directory, started again.
    fn restarted(&self, forum: &TestForum, settings: Settings) -> Self {
        let mut restore = Restore::new(settings, forum.id, forum.charters.clone(), self.now).unwrap();
        self.blocks.iter().for_each(|(id, bytes)| drop(restore.stored(*id, bytes.clone())));
        self.journal.iter().for_each(|bytes| restore.journaled(bytes).unwrap());
        let (replica, effects) = restore.finish();
        let (blocks, journal) = (self.blocks.clone(), self.journal.clone());
        let mut node = Self { replica, now: self.now, blocks, journal, rebuilds: 0 };
        node.carry_out(effects);
        node
    }

    fn handle(&mut self, input: Input) -> Vec<Effect> {
        self.now = self.now.plus(1);
        let effects = self.replica.handle(input, self.now);
        self.carry_out(effects)
    }

    /// Writes, says so, and derives the list again where that is asked for; what is left is returned.
    fn carry_out(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut left = Vec::new();
        while !effects.is_empty() {
            let mut wrote = false;
            let mut next = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Journal(_, bytes) => self.journal.push(bytes),
                    Effect::Store(Write::Block(id, bytes)) => drop(self.blocks.insert(id, bytes)),
                    Effect::Store(_) => {}
                    Effect::Rebuild => {
                        self.rebuilds += 1;
                        self.rebuild(&mut next);
                    }
                    Effect::Redact(_) => {
                        let ring = self.replica.keyring();
                        for bytes in self.blocks.values_mut().chain(&mut self.journal) {
                            let mut frame = Frame::decode(bytes.clone()).unwrap();
                            ring.redact(&mut frame);
                            *bytes = frame.encode();
                        }
                        continue;
                    }
                    other => {
                        left.push(other);
                        continue;
                    }
                }
                wrote = true;
            }
            effects = next;
            if wrote {
                effects.extend(self.replica.handle(Input::Durable, self.now));
            }
        }
        left
    }

    fn rebuild(&mut self, effects: &mut Vec<Effect>) {
        let ring = self.replica.keyring();
        loop {
            let mut rebuild = self.replica.begin_rebuild(self.now);
            for bytes in self.blocks.values() {
                let block = ring.verify(Frame::decode(bytes.clone()).unwrap()).unwrap();
                self.replica.rebuild(&mut rebuild, &block);
            }
            if self.replica.finish_rebuild(&mut rebuild, self.now, effects) {
                return;
            }
        }
    }

    fn hears(&mut self, from: u8, block: &VerifiedBlock) {
        self.handle(Input::Peer(id(from), PeerEvent::Block(Box::new(block.clone()))));
    }

    fn applies(&mut self, charter: proto::SignedCharter) -> Vec<Effect> {
        self.handle(Input::Charter(charter))
    }

    /// `peer` greets with the heads that this node has, and what `change` makes of that.
    fn greeted(&mut self, peer: u8, change: impl FnOnce(&mut crate::replica::exchange::Greeting)) -> Vec<Effect> {
        let mut greeting = self.replica.greeting(self.now);
        greeting.instance = u64::from(peer);
        change(&mut greeting);
        self.handle(Input::Peer(id(peer), PeerEvent::Greeted(greeting)))
    }

    /// As [`Node::greeted`], and `peer` has no charters or proofs to add.
    fn answered(&mut self, peer: u8) {
        self.greeted(peer, |_| ());
        self.handle(Input::Peer(id(peer), PeerEvent::Ended(Call::Talk, Ok(()))));
    }

    fn says(&mut self, records: Vec<Bytes>) -> Answer {
        let submit = Input::Submit { ticket: Ticket(1), class: Class::Normal, records };
        let mut effects = self.handle(submit);
        effects.extend(self.handle(Input::Seal));
        let answer = effects.into_iter().find_map(|e| if let Effect::Answer(_, a) = e { Some(a) } else { None });
        answer.expect("an answer")
    }

    fn status(&self, about: u8) -> Option<Status> {
        self.replica.view().entry(&subject(about), self.now).map(|entry| entry.status)
    }

    fn prefix(&self, log: Origin) -> u64 {
        self.replica.prefix(log).0
    }
}

/// Member 1's log 0 in two chains of six that part after block 3, and logs of voters.
struct Forked {
    forum: TestForum,
    ring: Keyring,
    ours: Vec<VerifiedBlock>,
    theirs: Vec<VerifiedBlock>,
    proof: proto::Proof,
    voters: Vec<TestLog>,
}

impl Forked {
    fn new() -> Self {
        let groups = ["a", "b", "c", "d", "e"].map(|group| (group, FULL));
        let forum = TestForum::with(&groups, |c| c.semantics = 2);
        let mut ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let mut ours: Vec<_> = (1..=3).map(|n| log.block(&mut ring, &[opinion(n, 1)])).collect();
        let (mut other, mut theirs) = (log.clone(), ours.clone());
        ours.extend((4..=6).map(|n| log.block(&mut ring, &[opinion(n, 1)])));
        theirs.extend((4..=6).map(|n| other.block(&mut ring, &[opinion(n + 10, 1)])));
        let header = |b: &VerifiedBlock| verified_header(&ring, b.frame(), &log.opening);
        let proof = fork_proof(&header(&ours[3]), &header(&theirs[3])).unwrap().message().clone();
        let voters = (3..=5).map(|voter| forum.log(voter, 0, Class::Normal)).collect();
        Self { forum, ring, ours, theirs, proof, voters }
    }

    /// All voters but the node of member 2 attest our chain up to `seq`.
    fn attests(&mut self, seq: u64) -> Vec<VerifiedBlock> {
        let head = Head { seq: Seq(seq), hash: self.ours[usize::try_from(seq).unwrap() - 1].hash() };
        let record = attest(&[(origin(1, 0), head)]);
        self.voters.iter_mut().map(|log| log.block(&mut self.ring, std::slice::from_ref(&record))).collect()
    }

    fn header_event(&self, block: &VerifiedBlock) -> PeerEvent {
        let opening = self.ours[0].opening().unwrap();
        PeerEvent::Header(Box::new(verified_header(&self.ring, block.frame(), opening)))
    }
}

fn tell(node: &mut Node, proof: &proto::Proof) {
    node.handle(Input::Peer(id(3), PeerEvent::Proof(Box::new(proof.clone()))));
}

#[test]
fn what_two_thirds_attested_stays_in_the_list_when_its_log_forks() {
    for order in 0..3 {
        let mut world = Forked::new();
        let mut node = Node::new(&world.forum, 2);
        let attests = world.attests(5);
        // The proof comes first, in between, or last: the answer is the same.
        for (step, blocks) in [&world.ours, &attests].into_iter().enumerate() {
            if step == order {
                tell(&mut node, &world.proof);
            }
            blocks.iter().for_each(|block| node.hears(3, block));
        }
        if order == 2 {
            tell(&mut node, &world.proof);
        }
        if order == 0 {
            // Nothing beyond the fork was taken, because nobody knew yet that it counts.
            assert_eq!(node.prefix(origin(1, 0)), 3);
            continue;
        }
        assert_eq!(node.prefix(origin(1, 0)), 5, "order {order}");
        assert_eq!(node.replica.have().seq(origin(1, 0)), Seq(5));
        assert_eq!((node.status(5), node.status(6)), (Some(Status::Active), None));
        assert!(node.replica.stands());
    }
}

#[test]
fn without_attestations_everything_after_the_fork_is_void() {
    let world = Forked::new();
    let mut node = Node::new(&world.forum, 2);
    world.ours.iter().for_each(|block| node.hears(3, block));
    tell(&mut node, &world.proof);
    assert_eq!((node.prefix(origin(1, 0)), node.status(3), node.status(4)), (3, Some(Status::Active), None));
}

#[test]
fn a_node_that_holds_the_other_chain_finds_the_one_that_is_final() {
    let mut world = Forked::new();
    let mut node = Node::new(&world.forum, 2);
    world.theirs.iter().for_each(|block| node.hears(3, block));
    assert_eq!(node.status(14), Some(Status::Active));
    tell(&mut node, &world.proof);
    world.attests(6).iter().for_each(|block| node.hears(3, block));
    assert_eq!((node.prefix(origin(1, 0)), node.status(14)), (3, None));
    // A block of the final chain alone tells nothing yet.
    node.hears(3, &world.ours[3]);
    assert_eq!(node.replica.logs()[&origin(1, 0)].hash_at(Seq(4)), Some(world.theirs[3].hash()));

    let head = Head { seq: Seq(6), hash: world.ours[5].hash() };
    node.handle(Input::Timer);
    node.greeted(3, |greeting| greeting.have.set(origin(1, 0), head));
    node.handle(Input::Peer(id(3), PeerEvent::Ended(Call::Talk, Ok(()))));
    let asks = node.handle(Input::Timer);
    let wanted = Ask::Headers { origin: origin(1, 0), from: Seq(4), to: Seq(6) };
    assert!(asks.iter().any(|e| matches!(e, Effect::Ask(peer, ask) if *peer == id(3) && *ask == wanted)), "{asks:?}");
    for block in &world.ours[3..] {
        let header = world.header_event(block);
        node.handle(Input::Peer(id(3), header));
    }
    world.ours[3..].iter().for_each(|block| node.hears(3, block));
    assert_eq!(node.prefix(origin(1, 0)), 6);
    assert_eq!((node.status(6), node.status(14)), (Some(Status::Active), None));
    // The other one is not taken any more.
    node.hears(3, &world.theirs[3]);
    assert_eq!(node.prefix(origin(1, 0)), 6);
    // Everything is there after a restart, too.
    let mut forum = world.forum.clone();
    forum.charters.truncate(1);
    let mut restore = Restore::new(settings(2), forum.id, forum.charters, node.now).unwrap();
    assert!(restore.proof(&prost::Message::encode_to_vec(&world.proof)));
    node.blocks.iter().for_each(|(id, bytes)| restore.stored(*id, bytes.clone()).unwrap());
    assert_eq!(restore.finish().0.prefix(origin(1, 0)), Seq(6));
}

#[test]
fn a_steward_hides_what_is_above_its_marks_until_the_time_is_over() {
    let forum = TestForum::with(&[("a", FULL), ("b", STEWARD), ("c", FULL)], |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 3);
    let mut log = forum.log(1, 0, Class::Normal);
    let blocks: Vec<_> = (1..=3).map(|n| log.block(&mut ring, &[opinion(n, 1)])).collect();
    blocks.iter().for_each(|block| node.hears(1, block));
    let mut other = forum.log(1, 1, Class::Urgent);
    let unlisted = other.block(&mut ring, &[opinion(9, 1)]);
    node.hears(1, &unlisted);
    assert_eq!(node.replica.listed().len(), 3);

    let mark = Head { seq: Seq(2), hash: blocks[1].hash() };
    let mut steward = forum.log(2, 0, Class::Urgent);
    let until = START.plus(2 * TimeMs::HOUR_MS);
    let block = steward.block(&mut ring, &[suspend(1, &[(origin(1, 0), mark)], until)]);
    let effects = node.handle(Input::Peer(id(2), PeerEvent::Block(Box::new(block))));
    assert!(effects.iter().any(|e| matches!(e, Effect::Roster)), "{effects:?}");
    assert_eq!(node.replica.listed().iter().map(|(_, member)| *member).collect::<Vec<_>>(), [id(2), id(3)]);
    assert_eq!((node.status(2), node.status(3), node.status(9)), (Some(Status::Active), None, None));
    assert_eq!(node.replica.have().seq(origin(1, 0)), Seq(3), "what is hidden is still held and passed on");
    assert!(node.replica.health(node.now).1.iter().any(|why| why.contains("suspended by a steward")));

    node.now = until;
    let effects = node.handle(Input::Timer);
    assert!(effects.iter().any(|e| matches!(e, Effect::Roster)), "{effects:?}");
    assert_eq!((node.status(3), node.status(9)), (Some(Status::Active), Some(Status::Active)));
    assert_eq!(node.replica.listed().len(), 3);
}

#[test]
fn a_suspended_company_submits_nothing() {
    let forum = TestForum::with(&[("a", FULL), ("b", STEWARD), ("c", FULL)], |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 1);
    node.greeted(2, |_| ());
    assert!(matches!(node.says(vec![opinion(1, 1)]), Answer::Durable(_)));
    let mut steward = forum.log(2, 0, Class::Urgent);
    node.hears(2, &steward.block(&mut ring, &[suspend(1, &[], START.plus(3 * TimeMs::HOUR_MS))]));
    assert_eq!(node.says(vec![opinion(2, 1)]), Answer::Refused(Refusal::Suspended(3)));
    assert_eq!(node.replica.health(node.now).0, Health::Red);
}

fn order_erasure(forum: &mut TestForum, block: BlockId, index: u32, leaf: [u8; 32]) -> proto::SignedCharter {
    forum.issue(|c| {
        c.semantics = 2;
        c.erasures.push(proto::Erasure {
            origin: Some(crate::replica::heads::origin_to_proto(block.origin)),
            seq: block.seq.0,
            index,
            leaf_hash: Bytes::copy_from_slice(&leaf),
            reason: 7,
        });
    })
}

#[test]
fn an_erased_record_leaves_the_list_the_disk_and_everything_that_arrives_later() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut log = forum.log(1, 0, Class::Normal);
    let block = log.block(&mut ring, &[opinion(1, 1), opinion(2, 1)]);
    let mut node = Node::new(&forum, 2);
    node.hears(1, &block);
    assert_eq!(node.status(2), Some(Status::Active));
    let leaf = merkle::leaf_hash(&opinion(2, 1));
    let charter = order_erasure(&mut forum, block.id(), 2, leaf);
    node.applies(charter);
    assert_eq!((node.status(1), node.status(2)), (Some(Status::Active), None));
    let stored = Frame::decode(node.blocks[&block.id()].clone()).unwrap();
    assert_eq!(stored.slots[2], Slot::Redacted(leaf));
    assert_eq!(stored.header, block.frame().header, "the signed bytes are the same");

    // A node that comes later takes the whole block from a peer that has not heard of the order, and the redacted one.
    for frame in [block.frame().clone(), stored.clone()] {
        let mut late = Node::new(&forum, 2);
        let verified = late.replica.keyring().verify(frame).unwrap();
        late.hears(1, &verified);
        assert_eq!(Frame::decode(late.blocks[&block.id()].clone()).unwrap(), stored);
    }
    // What was verified before the order came is redacted, too.
    let mut late = Node::new(&forum, 2);
    late.hears(1, &block);
    assert_eq!(Frame::decode(late.blocks[&block.id()].clone()).unwrap(), stored);
    // The log goes on.
    node.hears(1, &log.block(&mut ring, &[opinion(3, 1)]));
    assert_eq!(node.status(3), Some(Status::Active));
    assert_eq!(node.restarted(&forum, settings(2)).status(1), Some(Status::Active));
}

#[test]
fn the_end_of_a_log_is_not_erased() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut log = forum.log(1, 0, Class::Normal);
    let close = record::encode(proto::Kind::LogClose, [1; 16], &proto::LogClose { reason: 0, next_log_no: 1 });
    let block = log.block(&mut ring, &[opinion(1, 1), close.clone()]);
    let mut node = Node::new(&forum, 2);
    node.hears(1, &block);
    let charter = order_erasure(&mut forum, block.id(), 2, merkle::leaf_hash(&close));
    node.applies(charter);
    let next = log.block(&mut ring, &[opinion(2, 1)]);
    for mut node in [node.restarted(&forum, settings(2)), node] {
        node.hears(1, &next);
        assert_eq!((node.status(1), node.status(2)), (Some(Status::Active), None), "nothing follows");
    }
}

#[test]
fn a_redacted_slot_stands_only_where_an_order_names_its_leaf() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut log = forum.log(1, 0, Class::Normal);
    let block = log.block(&mut ring, &[opinion(1, 1), opinion(2, 1)]);
    order_erasure(&mut forum, block.id(), 2, merkle::leaf_hash(&opinion(2, 1)));
    order_erasure(&mut forum, BlockId { seq: Seq(9), ..block.id() }, 0, [7; 32]);
    let ring = forum.keyring();
    let redacted = |places: &[usize]| {
        let mut frame = block.frame().clone();
        places.iter().for_each(|at| frame.slots[*at] = Slot::Redacted(frame.slots[*at].leaf()));
        ring.verify(frame)
    };
    assert!(redacted(&[2]).is_ok());
    assert!(matches!(redacted(&[1]), Err(Unverified::Redacted(_))));
    assert!(matches!(redacted(&[1, 2]), Err(Unverified::Redacted(_))));
    assert!(redacted(&[]).is_ok_and(|block| matches!(block.frame().slots[2], Slot::Redacted(_))));
    let mut other = forum.log(1, 1, Class::Normal);
    let twin = ring.verify(other.push(&[opinion(1, 1), opinion(2, 1)])).unwrap();
    assert!(twin.frame().slots.iter().all(|slot| matches!(slot, Slot::Record(_))), "another block is not meant");
}

#[test]
fn a_crash_before_the_erasure_is_made_up_for_at_the_next_start() {
    let mut forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1);
    node.says(vec![opinion(1, 1), opinion(2, 1)]);
    let block = BlockId { origin: origin(1, 0), seq: Seq(1) };
    order_erasure(&mut forum, block, 1, merkle::leaf_hash(&opinion(1, 1)));
    let again = node.restarted(&forum, settings(1));
    for bytes in again.blocks.values().chain(&again.journal) {
        assert!(!bytes.windows(32).any(|window| window == [1; 32]), "the digest is still there");
    }
    assert_eq!((again.status(1), again.status(2)), (None, Some(Status::Active)));
}

#[test]
fn our_own_erased_journal_is_read_without_the_charter_that_was_lost_with_the_store() {
    let mut forum = TestForum::of_full(1);
    let invited = forum.clone();
    let mut node = Node::new(&forum, 1);
    node.says(vec![opinion(1, 1), opinion(2, 1)]);
    node.says(vec![opinion(3, 1)]);
    let block = BlockId { origin: origin(1, 0), seq: Seq(1) };
    let charter = order_erasure(&mut forum, block, 1, merkle::leaf_hash(&opinion(1, 1)));
    node.applies(charter);
    node.blocks.clear();
    let mut again = node;
    for _ in 0..2 {
        again = again.restarted(&invited, settings(1));
        let shown = (again.status(1), again.status(2), again.status(3));
        assert_eq!(shown, (None, Some(Status::Active), Some(Status::Active)));
    }
}

/// Member 1 under a new root key.
fn re_key(forum: &mut TestForum, cutoffs: Vec<proto::Cutoff>) -> proto::SignedCharter {
    let context = forum.id.0;
    forum.issue(|c| {
        c.members[0].log_root_key = public(&key("new root"));
        c.members[0].pop = Bytes::copy_from_slice(&prove_possession(&key("new root"), &context, id(1)));
        c.cutoffs = cutoffs;
    })
}

#[test]
fn a_replaced_root_key_neither_takes_a_log_number_nor_convicts() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 2);
    let mut old = forum.log(1, 0, Class::Normal);
    let written: Vec<_> = (1..=3).map(|n| old.block(&mut ring, &[opinion(n, 1)])).collect();
    written.iter().for_each(|block| node.hears(1, block));
    // A thief of the old key takes the next number.
    let mut stolen = forum.log(1, 1, Class::Normal);
    node.hears(1, &stolen.block(&mut ring, &[opinion(8, 1)]));
    assert_eq!(node.status(8), Some(Status::Active));

    let cutoff = proto::Cutoff {
        origin: Some(crate::replica::heads::origin_to_proto(origin(1, 0))),
        last_seq: 2,
        last_hash: Bytes::copy_from_slice(&written[1].hash().0),
    };
    let charter = re_key(&mut forum, vec![cutoff]);
    node.applies(charter);
    assert_eq!((node.status(2), node.status(3), node.status(8)), (Some(Status::Active), None, None));
    assert_eq!(node.replica.have().seq(origin(1, 1)), Seq(0), "what counts nowhere is not offered");

    // The owner uses the same number under its new key.
    let mut before = ring;
    let mut ring = forum.keyring();
    let mut new = forum.log(1, 1, Class::Normal);
    new.opening = open_log(forum.id, origin(1, 1), Class::Normal.number(), &key("new root"), &new.key);
    let block = new.block(&mut ring, &[opinion(9, 1)]);
    node.hears(1, &block);
    assert_eq!((node.status(8), node.status(9)), (None, Some(Status::Active)));
    let late = stolen.block(&mut before, &[opinion(7, 1)]);
    node.hears(1, &late);
    assert_eq!(node.status(9), Some(Status::Active));
    assert!(node.replica.proofs().is_empty());
}

#[test]
fn a_node_takes_up_its_new_root_key_and_refuses_to_sign_under_the_old_one() {
    let mut forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1);
    node.says(vec![opinion(1, 1)]);
    let charter = re_key(&mut forum, Vec::new());
    node.applies(charter);
    assert_eq!(node.says(vec![opinion(2, 1)]), Answer::Refused(Refusal::RootKey(2)));
    node.handle(Input::Root(Box::new(key("new root"))));
    let Answer::Durable(receipts) = node.says(vec![opinion(2, 1)]) else { panic!("not signed") };
    assert_eq!(receipts[0].block.origin, origin(1, 1), "a new log");
    assert_eq!((node.status(1), node.status(2)), (None, Some(Status::Active)));
}

#[test]
fn closed_logs_end_and_what_is_said_later_goes_into_new_ones() {
    let forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1);
    node.says(vec![opinion(1, 1)]);
    let effects = node.handle(Input::Close { ticket: Ticket(2), next_seed: Some([9; 32]), reason: 10 });
    assert!(matches!(&effects[..], [.., Effect::Answer(Ticket(2), Answer::Durable(r))] if r.len() == 1), "{effects:?}");
    assert_eq!(node.replica.logs()[&origin(1, 0)].ended(), Some(Seq(2)));
    let Answer::Durable(receipts) = node.says(vec![opinion(2, 1)]) else { panic!("not signed") };
    assert_eq!(receipts[0].block, BlockId { origin: origin(1, 1), seq: Seq(1) });
    // After a restart with the new seed its log goes on; with the old one it cannot.
    for (seed, log_no) in [([9; 32], 1), ([1; 32], 2)] {
        let mut again = node.restarted(&forum, Settings { log_seed: seed, ..settings(1) });
        let Answer::Durable(receipts) = again.says(vec![opinion(3, 1)]) else { panic!("not signed") };
        assert_eq!(receipts[0].block.origin, origin(1, log_no));
    }
    let mut empty = Node::new(&forum, 1);
    let effects = empty.handle(Input::Close { ticket: Ticket(3), next_seed: None, reason: 0 });
    assert!(matches!(&effects[..], [Effect::Answer(Ticket(3), Answer::Durable(r))] if r.is_empty()), "{effects:?}");
}

#[test]
fn what_a_cutoff_took_is_said_again_where_it_is_still_our_word() {
    let mut forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1);
    for n in 1..=3 {
        node.says(vec![opinion(n, 1)]);
    }
    let hash = node.replica.logs()[&origin(1, 0)].hash_at(Seq(1)).unwrap();
    let charter = forum.issue(|c| {
        c.cutoffs = vec![proto::Cutoff {
            origin: Some(crate::replica::heads::origin_to_proto(origin(1, 0))),
            last_seq: 1,
            last_hash: Bytes::copy_from_slice(&hash.0),
        }];
    });
    node.applies(charter);
    assert_eq!((node.status(1), node.status(2), node.status(3)), (Some(Status::Active), None, None));
    node.says(vec![opinion(3, 4)]); // taken back meanwhile, in a new log
    let said = (1..=3).map(|n| (START.plus(1), opinion(n, 1))).collect();
    let effects = node.handle(Input::Resubmit { ticket: Ticket(4), said });
    assert!(matches!(&effects[..], [.., Effect::Answer(_, Answer::Durable(r))] if r.len() == 1), "{effects:?}");
    assert_eq!((node.status(2), node.status(3)), (Some(Status::Active), Some(Status::Inactive)));
}

#[test]
fn a_second_copy_signs_nothing_until_the_first_is_gone() {
    let forum = TestForum::of_full(3);
    let mut node = Node::new(&forum, 1);
    node.greeted(2, |greeting| greeting.second_copy = true);
    assert!(node.replica.guard_pending());
    assert!(node.replica.alarms().contains(&Alarm::SecondCopy(id(2))));
    assert_eq!(node.replica.health(node.now).0, Health::Red);
    assert_eq!(node.says(vec![opinion(1, 1)]), Answer::Queued);
    node.greeted(2, |_| ());
    assert!(!node.replica.guard_pending() && node.replica.alarms().is_empty());
    assert_eq!(node.status(1), Some(Status::Active), "what waited was signed");
}

#[test]
fn a_node_that_stood_still_asks_before_it_signs_again() {
    let forum = TestForum::of_full(3);
    let mut node = Node::new(&forum, 1);
    node.greeted(2, |_| ());
    assert!(matches!(node.says(vec![opinion(1, 1)]), Answer::Durable(_)));
    node.handle(Input::Woke);
    assert_eq!(node.says(vec![opinion(2, 1)]), Answer::Queued);
    assert!(node.handle(Input::Timer).iter().any(|effect| matches!(effect, Effect::Ask(_, Ask::Greet))));
    node.greeted(3, |greeting| greeting.second_copy = true);
    assert!(node.replica.guard_pending(), "whoever tells of a copy does not count");
    node.answered(2);
    assert_eq!(node.status(2), Some(Status::Active), "what waited was signed");
    assert_eq!(node.replica.next_log_no(), LogNo(1), "in the same log");
}

#[test]
fn a_copied_directory_leaves_its_logs_behind_for_ever() {
    let forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1);
    node.says(vec![opinion(1, 1)]);
    let moved = node.restarted(&forum, Settings { moved: true, ..settings(1) });
    let next = moved.replica.next_log_no();
    assert_eq!(next, LogNo(1));
    // Nothing was signed before the next start.
    let mut later = moved.restarted(&forum, Settings { closed_below: next, ..settings(1) });
    let Answer::Durable(receipts) = later.says(vec![opinion(2, 1)]) else { panic!("not signed") };
    assert_eq!(receipts[0].block.origin, origin(1, 1));
}

#[test]
fn a_moved_directory_asks_more_than_half_of_the_peers_until_it_has_signed() {
    let forum = TestForum::of_full(5);
    let mut node = Node::new(&forum, 1);
    let guard = |node: &mut Node, needed: u8| {
        for peer in 2..2 + needed {
            assert!(node.replica.guard_pending(), "{peer}, expected {needed} answers");
            node.greeted(peer, |_| ());
        }
        assert!(!node.replica.guard_pending(), "expected {needed} answers");
    };
    guard(&mut node, 2);
    node.says(vec![opinion(1, 1)]);
    let moved = node.restarted(&forum, Settings { moved: true, ..settings(1) });
    guard(&mut moved.restarted(&forum, Settings { moved: true, ..settings(1) }), 3);
    // The start that noticed ended before its guard opened.
    let mut again = moved.restarted(&forum, Settings { closed_below: LogNo(1), ..settings(1) });
    guard(&mut again, 3);
    again.says(vec![opinion(2, 1)]);
    guard(&mut again.restarted(&forum, Settings { closed_below: LogNo(1), ..settings(1) }), 2);
}

#[test]
fn a_number_that_was_left_behind_is_used_though_nothing_of_its_log_is_left() {
    let forum = TestForum::of_full(1);
    let mut node = Node::new(&forum, 1).restarted(&forum, Settings { closed_below: LogNo(3), ..settings(1) });
    let Answer::Durable(receipts) = node.says(vec![opinion(1, 1)]) else { panic!("not signed") };
    assert_eq!(receipts[0].block.origin, origin(1, 3));
}

/// What the node attested, by log.
fn attested(node: &Node) -> Vec<(Origin, Seq)> {
    let mut attested = Vec::new();
    for bytes in &node.journal {
        for slot in Frame::decode(bytes.clone()).unwrap().slots {
            let Slot::Record(bytes) = slot else { continue };
            if let Parsed::Says(Statement::Attest { heads }) = record::parse(&bytes) {
                attested.extend(heads.into_iter().map(|(origin, head)| (origin, head.seq)));
            }
        }
    }
    attested
}

#[test]
fn a_voter_attests_within_the_hour_and_what_is_urgent_within_a_minute() {
    let forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 2);
    node.handle(Input::Timer);
    node.answered(1);
    let mut log = forum.log(1, 0, Class::Normal);
    node.hears(1, &log.block(&mut ring, &[opinion(1, 1)]));
    node.handle(Input::Timer);
    assert!(attested(&node).is_empty());
    node.now = START.plus(TimeMs::HOUR_MS * 2);
    node.handle(Input::Timer);
    assert_eq!(attested(&node), [(origin(1, 0), Seq(1))]);
    // Attestations of others are no news: else nobody would ever be silent.
    node.hears(1, &log.block(&mut ring, &[attest(&[(origin(2, 0), Head { seq: Seq(1), hash: HeaderHash([1; 32]) })])]));
    node.now = node.now.plus(TimeMs::HOUR_MS * 2);
    node.handle(Input::Timer);
    assert_eq!(attested(&node).len(), 1);
    let mut urgent = forum.log(1, 1, Class::Urgent);
    node.hears(1, &urgent.block(&mut ring, &[opinion(2, 1)]));
    node.now = node.now.plus(60_000);
    node.handle(Input::Timer);
    assert_eq!(attested(&node)[1..], [(origin(1, 1), Seq(1))]);
    // All heads again after some hours.
    node.now = node.now.plus(TimeMs::HOUR_MS * 10);
    node.handle(Input::Timer);
    assert_eq!(attested(&node)[2..], [(origin(1, 0), Seq(2)), (origin(1, 1), Seq(1))]);
}

#[test]
fn below_level_2_nobody_attests() {
    let forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 2);
    node.handle(Input::Timer);
    node.greeted(1, |_| ());
    node.hears(1, &forum.log(1, 0, Class::Urgent).block(&mut ring, &[opinion(1, 1)]));
    node.now = START.plus(TimeMs::DAY_MS);
    node.handle(Input::Timer);
    assert!(node.journal.is_empty());
}

#[test]
fn a_charter_of_a_later_level_is_carried_and_nothing_is_signed_under_it() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut node = Node::with(&forum, Settings { semantics_max: 1, ..settings(2) });
    node.greeted(1, |_| ());
    let mut log = forum.log(1, 0, Class::Normal);
    node.hears(1, &log.block(&mut ring, &[opinion(1, 1)]));
    assert!(node.replica.pulse(node.now).view_digest.is_some());
    let charter = forum.issue(|c| c.semantics = 2);
    node.applies(charter);
    assert_eq!(node.replica.charters().version(), 2);
    assert_eq!(node.replica.pulse(node.now).view_digest, None);
    assert_eq!(node.replica.health(node.now).0, Health::Red);
    assert_eq!(node.says(vec![opinion(2, 1)]), Answer::Refused(Refusal::Semantics(2)));
    // Records of level 2 are stored as they came.
    let later = log.block(&mut ring, &[suspend(2, &[], START.plus(TimeMs::DAY_MS))]);
    node.hears(1, &later);
    assert_eq!(node.blocks[&later.id()], later.frame().encode());
    assert_eq!(node.status(1), Some(Status::Active), "lookups go on");
}

/// M6: what a release of level 2 makes of accounts in a forum of level 3: it carries them, and says that it is too old.
#[test]
fn a_node_of_level_2_carries_accounts_and_one_of_level_3_lists_them() {
    let mut forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut old = Node::with(&forum, Settings { semantics_max: 2, ..settings(2) });
    let mut new = Node::new(&forum, 2);
    let charter = forum.issue(|c| with_peppers(c, &[1]));
    let end = START.plus(TimeMs::DAY_MS).0;
    let listed = |subject: Subject| {
        let opinion =
            proto::Opinion { subject: Some(subject.to_proto()), stance: 1, expires_ms: end, ..Default::default() };
        record::encode(proto::Kind::Opinion, [3; 16], &opinion)
    };
    let block = forum.log(1, 0, Class::Normal).block(&mut ring, &[listed(account(5, 1)), opinion(1, 1)]);
    for node in [&mut old, &mut new] {
        node.greeted(1, |_| ());
        node.applies(charter.clone());
        node.hears(1, &block);
        assert_eq!(node.blocks[&block.id()], block.frame().encode(), "the bytes as they came");
        assert_eq!(node.status(1), Some(Status::Active));
    }
    let status = |node: &Node| node.replica.view().entry(&account(5, 1), node.now).map(|e| e.status);
    assert_eq!((status(&old), status(&new)), (None, Some(Status::Active)));
    assert_eq!(old.replica.health(old.now).0, Health::Red);
    assert_eq!(old.replica.pulse(old.now).view_digest, None);
    assert_eq!(old.says(vec![opinion(2, 1)]), Answer::Refused(Refusal::Semantics(3)));
    assert!(new.replica.pulse(new.now).view_digest.is_some());
}

#[test]
fn a_node_signs_nothing_of_accounts_that_would_be_inert() {
    let of = |change: fn(&mut proto::Charter), subject: Subject, expires_ms: u64| {
        let mut node = Node::new(&TestForum::with(&[("a", FULL)], change), 1);
        let opinion = proto::Opinion { subject: Some(subject.to_proto()), stance: 1, expires_ms, ..Default::default() };
        node.says(vec![record::encode(proto::Kind::Opinion, [3; 16], &opinion)])
    };
    let soon = START.plus(TimeMs::DAY_MS).0;
    let on: fn(&mut proto::Charter) = |c| with_peppers(c, &[1]);
    assert!(matches!(of(on, account(5, 1), soon), Answer::Durable(_)));
    for (change, subject, expires, expected) in [
        (on, account(5, 2), soon, "under a pepper that the charter does not have"),
        (on, account(5, 1), 0, "never ends"),
        (on, account(5, 1), START.plus(40 * TimeMs::DAY_MS).0, "ends later"),
        (|c: &mut proto::Charter| c.semantics = 3, account(5, 1), soon, "under a pepper"),
        (|c: &mut proto::Charter| c.semantics = 2, account(5, 1), soon, "roles (FULL) do not allow"),
    ] {
        let Answer::Refused(why) = of(change, subject, expires) else { panic!("{expected}") };
        assert!(why.to_string().contains(expected), "{why}, expected {expected}");
    }
}

#[test]
fn whoever_has_a_replaced_root_key_closes_no_log_of_its_owner() {
    let mut forum = TestForum::of_full(2);
    let mut node = Node::new(&forum, 1);
    let charter = re_key(&mut forum, Vec::new());
    node.applies(charter);
    node.handle(Input::Root(Box::new(key("new root"))));
    node.handle(Input::Timer);
    node.answered(2);
    let Answer::Durable(_) = node.says(vec![opinion(1, 1)]) else { panic!("not signed") };
    let ring = forum.keyring();
    // Two stories under the old key, at the number that the owner writes now.
    let stolen = forum.log(1, 0, Class::Normal);
    let [a, b] = [1, 2].map(|n| verified_header(&ring, &stolen.draft(&[opinion(n, 1)], |_| ()), &stolen.opening));
    let proof = fork_proof(&a, &b).unwrap().message().clone();
    node.handle(Input::Peer(id(2), PeerEvent::Proof(Box::new(proof))));
    assert!(node.replica.alarms().is_empty(), "{:?}", node.replica.alarms());
    // And a head of the last number, shown when it is asked for.
    let mut last = forum.log(1, 3, Class::Normal);
    let shown = last.push(&[opinion(3, 1)]);
    let head = Head { seq: Seq(1), hash: shown.header.hash() };
    node.greeted(2, |greeting| greeting.have.set(origin(1, 3), head));
    let header = verified_header(&ring, &shown, &last.opening);
    node.handle(Input::Peer(id(2), PeerEvent::Header(Box::new(header))));
    for _ in 0..4 {
        node.handle(Input::Peer(id(2), PeerEvent::Ended(Call::Talk, Ok(()))));
    }
    let Answer::Durable(receipts) = node.says(vec![opinion(2, 1)]) else { panic!("not signed") };
    assert_eq!(receipts[0].block, BlockId { origin: origin(1, 0), seq: Seq(2) });
    assert_eq!(node.replica.next_log_no(), LogNo(1));
}

/// The founders cut log 0 of member 1 at `seq` of the chain of `block`.
fn cut(forum: &mut TestForum, block: &VerifiedBlock) -> proto::SignedCharter {
    let cutoff = proto::Cutoff {
        origin: Some(crate::replica::heads::origin_to_proto(block.id().origin)),
        last_seq: block.id().seq.0,
        last_hash: Bytes::copy_from_slice(&block.hash().0),
    };
    forum.issue(|c| c.cutoffs = vec![cutoff])
}

/// `peer` greets with this head of member 1's log 0, and the talk goes on until it is asked for headers, if it is.
fn is_asked_for_headers(node: &mut Node, peer: u8, head: Head) {
    node.handle(Input::Timer);
    let mut effects = node.greeted(peer, |greeting| greeting.have.set(origin(1, 0), head));
    for _ in 0..4 {
        if effects.iter().any(|e| matches!(e, Effect::Ask(_, Ask::Headers { .. }))) {
            return;
        }
        effects = node.handle(Input::Peer(id(peer), PeerEvent::Ended(Call::Talk, Ok(()))));
        effects.extend(node.handle(Input::Timer));
    }
}

/// Lets `node` trace `chain` of member 1's log 0, from block 4 on, at `peer`, and then hear its blocks.
fn traces(node: &mut Node, world: &Forked, peer: u8, chain: &[VerifiedBlock]) {
    let last = chain.last().unwrap();
    let head = Head { seq: last.id().seq, hash: last.hash() };
    is_asked_for_headers(node, peer, head);
    for block in &chain[3..] {
        let header = world.header_event(block);
        node.handle(Input::Peer(id(peer), header));
    }
    node.handle(Input::Peer(id(peer), PeerEvent::Ended(Call::Talk, Ok(()))));
    chain[3..].iter().for_each(|block| node.hears(peer, block));
}

#[test]
fn the_chain_that_a_cutoff_picks_is_offered_and_spreads() {
    let mut world = Forked::new();
    let (mut holds, mut lacks) = (Node::new(&world.forum, 2), Node::new(&world.forum, 3));
    let charter = cut(&mut world.forum, &world.ours[4]);
    world.ours.iter().for_each(|block| holds.hears(4, block));
    world.theirs.iter().for_each(|block| lacks.hears(4, block));
    for node in [&mut holds, &mut lacks] {
        tell(node, &world.proof);
        node.applies(charter.clone());
    }
    assert_eq!((holds.prefix(origin(1, 0)), holds.replica.have().seq(origin(1, 0))), (5, Seq(5)));
    assert_eq!((lacks.prefix(origin(1, 0)), lacks.replica.have().seq(origin(1, 0))), (3, Seq(3)));
    traces(&mut lacks, &world, 4, &world.ours[..5]);
    assert_eq!((lacks.prefix(origin(1, 0)), lacks.replica.have().seq(origin(1, 0))), (5, Seq(5)));
    assert_eq!(lacks.replica.have().digest(), holds.replica.have().digest());
    assert_eq!(lacks.replica.view().digest(), holds.replica.view().digest());
}

#[test]
fn the_chain_that_a_cutoff_picks_is_asked_for_from_the_fork_on_by_who_holds_a_final_one() {
    let mut world = Forked::new();
    let mut node = Node::new(&world.forum, 2);
    let charter = cut(&mut world.forum, &world.theirs[5]);
    let attests = world.attests(4);
    world.ours[..4].iter().chain(&attests).for_each(|block| node.hears(3, block));
    tell(&mut node, &world.proof);
    node.applies(charter);
    assert_eq!((node.prefix(origin(1, 0)), node.replica.asks_beyond().seq(origin(1, 0))), (4, Seq(4)));
    is_asked_for_headers(&mut node, 4, Head { seq: Seq(6), hash: world.theirs[5].hash() });
    for block in &world.theirs[3..] {
        node.handle(Input::Peer(id(4), world.header_event(block)));
    }
    node.handle(Input::Peer(id(4), PeerEvent::Ended(Call::Talk, Ok(()))));
    assert_eq!((node.prefix(origin(1, 0)), node.replica.asks_beyond().seq(origin(1, 0))), (4, Seq(3)));
    world.theirs[3..].iter().for_each(|block| node.hears(4, block));
    assert_eq!((node.prefix(origin(1, 0)), node.replica.asks_beyond().seq(origin(1, 0))), (6, Seq(6)));
}

#[test]
fn of_a_log_that_a_cutoff_ends_no_more_is_offered_than_counts_or_nobody_disputes() {
    // Attested up to block 6 of a chain that is disputed from block 4 on.
    for (cutoff, offered) in [(2, 3), (5, 5)] {
        let mut world = Forked::new();
        let mut node = Node::new(&world.forum, 2);
        let charter = cut(&mut world.forum, &world.ours[cutoff - 1]);
        let attests = world.attests(6);
        world.ours.iter().chain(&attests).for_each(|block| node.hears(3, block));
        tell(&mut node, &world.proof);
        assert_eq!(node.replica.have().seq(origin(1, 0)), Seq(6));
        node.applies(charter);
        assert_eq!((node.prefix(origin(1, 0)), node.replica.have().seq(origin(1, 0))), (cutoff as u64, Seq(offered)));
    }
}

#[test]
fn a_list_that_is_derived_again_after_the_clock_was_set_back_is_of_the_same_hour() {
    let mut forum = TestForum::with(&[("a", STEWARD), ("b", FULL), ("c", FULL)], |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 2);
    node.hears(1, &forum.log(3, 0, Class::Normal).block(&mut ring, &[opinion(1, 1)]));
    let until = START.plus(TimeMs::HOUR_MS);
    node.hears(1, &forum.log(1, 0, Class::Normal).block(&mut ring, &[suspend(3, &[], until)]));
    assert_eq!((node.status(1), node.replica.suspended(id(3)).is_some()), (None, true));
    node.now = START.plus(3 * TimeMs::HOUR_MS);
    node.handle(Input::Timer);
    let shown = node.replica.view().digest();
    assert_eq!((node.status(1), node.replica.suspended(id(3)).is_some()), (Some(Status::Active), false));
    node.now = START;
    node.applies(forum.issue(|c| c.name = "another name".into()));
    assert_eq!(node.replica.view().digest(), shown);
}

#[test]
fn a_final_chain_does_not_take_the_place_of_the_one_that_a_cutoff_picks() {
    let mut world = Forked::new();
    let charter = cut(&mut world.forum, &world.theirs[4]);
    let attests = world.attests(6);
    let mut node = Node::new(&world.forum, 2);
    world.theirs.iter().for_each(|block| node.hears(3, block));
    tell(&mut node, &world.proof);
    attests.iter().for_each(|block| node.hears(3, block));
    node.applies(charter);
    assert_eq!(node.prefix(origin(1, 0)), 5);
    for shown in [6, 4] {
        traces(&mut node, &world, 4, &world.ours[..shown]);
        assert_eq!((node.prefix(origin(1, 0)), node.status(15), node.status(5)), (5, Some(Status::Active), None));
    }
}

#[test]
fn what_is_held_beyond_what_counts_decides_nothing() {
    // Attested up to block 4; a cutoff names block 6 of the other chain. One node holds all six blocks, one holds four.
    let mut world = Forked::new();
    let charter = cut(&mut world.forum, &world.theirs[5]);
    let attests = world.attests(4);
    let all = [6, 4].map(|held| {
        let mut node = Node::new(&world.forum, 2);
        world.ours[..held].iter().chain(&attests).for_each(|block| node.hears(3, block));
        tell(&mut node, &world.proof);
        node.applies(charter.clone());
        (node.prefix(origin(1, 0)), node.replica.have().digest(), node.replica.view().digest())
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].0, 4);
}

#[test]
fn no_digest_is_told_while_the_list_is_derived_again() {
    let mut forum = TestForum::of_full(2);
    let mut ring = forum.keyring();
    let mut node = Node::new(&forum, 2);
    node.hears(1, &forum.log(1, 0, Class::Normal).block(&mut ring, &[opinion(1, 1)]));
    assert!(node.replica.pulse(node.now).view_digest.is_some());
    let charter = forum.issue(|c| c.name = "another name".into());
    let mut effects = node.replica.handle(Input::Charter(charter), node.now);
    effects.extend(node.replica.handle(Input::Durable, node.now));
    assert!(effects.iter().any(|e| matches!(e, Effect::Rebuild)));
    assert_eq!(node.replica.charters().version(), 2);
    assert_eq!(node.replica.pulse(node.now).view_digest, None);
    node.carry_out(effects);
    assert!(node.replica.pulse(node.now).view_digest.is_some());
}

#[test]
fn a_peer_that_agrees_again_is_no_reason_for_alarm() {
    let forum = TestForum::of_full(2);
    let mut node = Node::new(&forum, 2);
    node.greeted(1, |_| ());
    let mut pulse = node.replica.pulse(node.now);
    let ours = pulse.view_digest.replace([7; 32]);
    for times in 1..=3 {
        assert!(node.replica.alarms().is_empty(), "one of the two may be about to learn something");
        node.handle(Input::Peer(id(1), PeerEvent::Tick(pulse.clone())));
        assert_eq!(DISAGREEMENTS == times, node.replica.alarms().contains(&Alarm::Diverged(id(1))));
    }
    pulse.view_digest = ours;
    node.handle(Input::Peer(id(1), PeerEvent::Tick(pulse)));
    assert!(node.replica.alarms().is_empty());
}

#[test]
fn what_a_dropped_chain_said_is_forgotten() {
    // The steward's log has two chains after block 1: one suspends member 3 in block 2, the other is final up to block 3.
    let groups = [("a", STEWARD), ("b", FULL), ("c", FULL), ("d", FULL), ("e", FULL)];
    let forum = TestForum::with(&groups, |c| c.semantics = 2);
    let mut ring = forum.keyring();
    let mut log = forum.log(1, 0, Class::Normal);
    let first = log.block(&mut ring, &[opinion(1, 1)]);
    let mut other = log.clone();
    let suspends = log.block(&mut ring, &[suspend(3, &[], START.plus(TimeMs::DAY_MS))]);
    let theirs: Vec<_> = (2..=3).map(|n| other.block(&mut ring, &[opinion(n, 1)])).collect();
    let header = |b: &VerifiedBlock| verified_header(&ring, b.frame(), &log.opening);
    let headers: Vec<_> = theirs.iter().map(header).collect();
    let proof = fork_proof(&header(&suspends), &headers[0]).unwrap().message().clone();
    let mut node = Node::new(&forum, 2);
    node.hears(4, &first);
    node.hears(4, &suspends);
    assert!(node.replica.suspended(id(3)).is_some());
    let head = Head { seq: Seq(3), hash: theirs[1].hash() };
    let words: Vec<_> = (2..=5)
        .map(|voter| forum.log(voter, 0, Class::Normal).block(&mut ring, &[attest(&[(origin(1, 0), head)])]))
        .collect();
    words.iter().for_each(|block| node.hears(4, block));
    node.handle(Input::Peer(id(4), PeerEvent::Proof(Box::new(proof))));
    assert!(node.replica.suspended(id(3)).is_none());
    is_asked_for_headers(&mut node, 4, head);
    for header in headers {
        node.handle(Input::Peer(id(4), PeerEvent::Header(Box::new(header))));
    }
    theirs.iter().for_each(|block| node.hears(4, block));
    assert_eq!(node.prefix(origin(1, 0)), 3);
    assert!(node.replica.suspended(id(3)).is_none());
    assert!(node.replica.stands());
}

#[test]
fn a_final_chain_is_fetched_with_few_rebuilds() {
    let mut world = Forked::new();
    let mut node = Node::new(&world.forum, 2);
    world.ours[..3].iter().for_each(|block| node.hears(3, block));
    tell(&mut node, &world.proof);
    (4..=6).flat_map(|seq| world.attests(seq)).collect::<Vec<_>>().iter().for_each(|block| node.hears(3, block));
    traces(&mut node, &world, 4, &world.ours[..4]);
    assert_eq!(node.prefix(origin(1, 0)), 4);
    let before = node.rebuilds;
    traces(&mut node, &world, 4, &world.ours);
    assert_eq!(node.prefix(origin(1, 0)), 6);
    assert_eq!(node.rebuilds - before, 1);
}

#[test]
fn no_log_is_closed_under_a_charter_that_is_not_understood() {
    let mut forum = TestForum::of_full(1);
    let mut node = Node::with(&forum, Settings { semantics_max: 1, ..settings(1) });
    node.says(vec![opinion(1, 1)]);
    let charter = forum.issue(|c| c.semantics = 2);
    node.applies(charter);
    let effects = node.handle(Input::Close { ticket: Ticket(2), next_seed: None, reason: 0 });
    let refused = Answer::Refused(Refusal::Semantics(2));
    assert!(matches!(&effects[..], [Effect::Answer(_, answer)] if *answer == refused), "{effects:?}");
    assert_eq!(node.journal.len(), 1);
}

#[test]
fn the_number_of_a_log_of_which_only_a_proof_is_left_is_not_used_again() {
    let world = Forked::new();
    let restore = || Restore::new(settings(1), world.forum.id, world.forum.charters.clone(), START).unwrap();
    assert_eq!(restore().finish().0.next_log_no(), LogNo(0));
    let mut restore = restore();
    assert!(restore.proof(&prost::Message::encode_to_vec(&world.proof)));
    assert_eq!(restore.finish().0.next_log_no(), LogNo(1));
}

/// Nobody publishes a head of a log that is disputed from its first block on: only the proof tells of it.
#[test]
fn an_answer_to_the_guard_is_complete_with_its_proofs() {
    let world = Forked::new();
    let mut node = Node::new(&world.forum, 1);
    node.replica.own.guard = crate::replica::own::Own::new(1, false).guard;
    let asks = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Ask(to, Ask::Greet) if *to == id(2)));
    assert!(asks(&node.handle(Input::Timer)));
    let effects = node.greeted(2, |greeting| greeting.have = crate::replica::heads::Have::default());
    assert!(effects.iter().any(|e| matches!(e, Effect::Ask(_, Ask::Proofs { .. }))), "{effects:?}");
    assert!(node.replica.guard_pending(), "what it knows of our logs is still to come");
    let proof = PeerEvent::Proof(Box::new(world.proof.clone()));
    let now = node.now;
    let written = node.replica.handle(Input::Peer(id(2), proof), now);
    let ended = node.replica.handle(Input::Peer(id(2), PeerEvent::Ended(Call::Talk, Ok(()))), now);
    assert!(node.replica.guard_pending(), "and is to be on disk");
    node.carry_out(written.into_iter().chain(ended).collect());
    assert!(!node.replica.guard_pending());
    assert_eq!(node.replica.next_log_no(), LogNo(1));
}

#[test]
fn an_answer_that_breaks_off_opens_no_guard() {
    let forum = TestForum::of_full(2);
    let mut node = Node::new(&forum, 2);
    node.handle(Input::Timer);
    node.greeted(1, |_| ());
    let broken = Trouble::Unreachable("connection reset".into());
    node.handle(Input::Peer(id(1), PeerEvent::Ended(Call::Talk, Err(broken))));
    assert!(node.replica.guard_pending());
}

#[test]
fn the_guard_does_not_wait_for_who_was_cut_off() {
    let mut forum = TestForum::of_full(2);
    let mut node = Node::new(&forum, 2);
    assert_eq!(node.says(vec![opinion(1, 1)]), Answer::Queued);
    let charter = forum.issue(|c| c.members[0].status = 2);
    node.applies(charter);
    assert!(!node.replica.guard_pending());
    node.now = node.now.plus(TimeMs::HOUR_MS);
    node.handle(Input::Timer);
    assert_eq!(node.status(1), Some(Status::Active), "what waited is signed");
}

#[test]
fn the_guard_waits_for_half_of_those_that_are_left() {
    let mut forum = TestForum::of_full(5);
    let mut node = Node::new(&forum, 5);
    node.answered(1);
    assert!(node.replica.guard_pending(), "one of four");
    let charter = forum.issue(|c| c.members[2].status = 2);
    node.applies(charter);
    assert!(!node.replica.guard_pending(), "one of three");
}

#[test]
fn blocks_of_ours_behind_a_fork_are_not_waited_for() {
    let world = Forked::new();
    let mut node = Node::new(&world.forum, 1);
    node.replica.own.expected.insert(LogNo(0), Seq(5));
    assert!(node.replica.is_missing_own_blocks());
    tell(&mut node, &world.proof);
    assert!(!node.replica.is_missing_own_blocks());
}

#[test]
fn nothing_is_acknowledged_that_would_be_inert_for_its_time() {
    let forum = TestForum::with(&[("a", FULL | STEWARD)], |c| {
        c.semantics = 2;
        c.members[0].admitted_ms = START.0 + TimeMs::DAY_MS;
    });
    let mut node = Node::new(&forum, 1);
    assert_eq!(node.says(vec![opinion(1, 1)]), Answer::Refused(Refusal::NotActive(1)));
    node.now = START.plus(TimeMs::DAY_MS);
    let until = node.now.plus(15 * TimeMs::DAY_MS);
    assert!(matches!(node.says(vec![suspend(1, &[], until)]), Answer::Refused(Refusal::Record(0, _))));
    assert!(matches!(node.says(vec![opinion(1, 1)]), Answer::Durable(_)));
    assert_eq!(node.status(1), Some(Status::Active));
}

#[test]
fn an_erasure_looks_for_blocks_that_are_on_disk_alone() {
    let mut forum = TestForum::of_full(2);
    let mut node = Node::new(&forum, 2);
    let block = BlockId { origin: origin(1, 0), seq: Seq(9) };
    let charter = order_erasure(&mut forum, block, 1, [7; 32]);
    let mut effects = node.replica.handle(Input::Charter(charter), node.now);
    effects.extend(node.replica.handle(Input::Durable, node.now));
    assert!(effects.iter().any(|e| matches!(e, Effect::Redact(ids) if ids.contains(&block))), "{effects:?}");
}
