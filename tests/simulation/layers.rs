//! How far each log counts: PROTOCOL section 5, layers 1 to 3, from raw blocks, by the text alone.
//!
//! Plain loops over everything that is held; nothing is kept between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use staydown::replica::proto;

use crate::checkers::{Block, Hash, LogId, Mark, Says, hash};

/// A steward's suspension lasts at most two weeks.
const SUSPENSION_MS: u64 = 14 * 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// Everything that a view depends on, but for the time.
pub(crate) struct Held<'a> {
    pub(crate) charter: &'a proto::Charter,
    /// Lowest disputed place, by log.
    pub(crate) forks: &'a BTreeMap<LogId, u64>,
    /// All chains that are known of each log, each from its first block on; the one that is published first.
    pub(crate) chains: &'a BTreeMap<LogId, Vec<Vec<&'a Block>>>,
}

/// Members of a charter by their id.
pub(crate) fn members(charter: &proto::Charter) -> BTreeMap<[u8; 16], &proto::Member> {
    charter.members.iter().filter_map(|m| Some((m.id[..].try_into().ok()?, m))).collect()
}

/// Order of a record among those of several members: time, log, seq, index in the block, index in the record.
type Place = (u64, u32, u64, usize, usize);
/// A steward's word: where it stands, on whom, and its marks.
type Word<'a> = (Place, [u8; 16], &'a [Mark]);

/// What the groups attested: by group and log, places in the order in which they were said.
type Attested<'a> = BTreeMap<(&'a str, LogId), BTreeMap<(Place, [u8; 16]), (u64, Hash)>>;

impl<'a> Held<'a> {
    fn fork(&self, log: LogId) -> usize {
        self.forks.get(&log).map_or(usize::MAX, |at| *at as usize)
    }

    /// Blocks that all chains of a log have in common, by the proofs.
    fn undisputed(&self, log: LogId) -> &[&'a Block] {
        let main = self.chains.get(&log).and_then(|c| c.first()).map_or(&[][..], Vec::as_slice);
        &main[..main.len().min(self.fork(log) - 1)]
    }

    /// Members that attest for their groups.
    fn voters(&self) -> BTreeMap<[u8; 16], &'a str> {
        let auditors = self.charter.policy.as_ref().is_some_and(|p| p.auditors_attest);
        let roles = if auditors { 1 | 32 } else { 1 };
        let voter = self.charter.members.iter().filter(|m| m.status == 1 && m.roles & roles != 0);
        voter.filter_map(|m| Some((m.id[..].try_into().ok()?, m.group.as_str()))).collect()
    }

    fn attested(&self) -> Attested<'a> {
        let voters = self.voters();
        let mut attested = Attested::new();
        for log in self.chains.keys() {
            let Some(group) = voters.get(&log.0) else { continue };
            // A voter is read as far as the charter lets its log count; a cutoff that reaches beyond the voter's own fork
            // makes nobody read beyond it.
            let undisputed = self.undisputed(*log);
            let mut read = self.cut(*log, undisputed.to_vec());
            read.truncate(undisputed.len());
            for block in read {
                for (index, said) in block.said.iter().enumerate() {
                    let Says::Attest { heads } = said else { continue };
                    for (nth, (of, seq, hash)) in heads.iter().enumerate() {
                        let place = ((block.time, log.1, block.seq, index, nth), log.0);
                        attested.entry((group, *of)).or_default().insert(place, (*seq, *hash));
                    }
                }
            }
        }
        attested
    }

    /// `final(o)` of every log: the chain, and how far.
    pub(crate) fn finality(&self) -> BTreeMap<LogId, (usize, usize)> {
        let members = members(self.charter);
        let groups: BTreeSet<_> = self.voters().into_values().collect();
        let attested = self.attested();
        let mut finality = BTreeMap::new();
        for (log, chains) in self.chains {
            let owner = members.get(&log.0).map(|m| m.group.as_str());
            let voters: Vec<_> = groups.iter().filter(|g| Some(**g) != owner).collect();
            let needed = 2 * voters.len() / 3 + 1;
            for (which, chain) in chains.iter().enumerate() {
                let mut supports: Vec<_> = voters
                    .iter()
                    .map(|g| attested.get(&(**g, *log)).map_or(0, |said| support(said.values(), chain)))
                    .collect();
                supports.sort_unstable_by(|a, b| b.cmp(a));
                let length = supports.get(needed - 1).copied().unwrap_or(0);
                let best = finality.entry(*log).or_insert((0, 0));
                if length > best.1 {
                    *best = (which, length);
                }
            }
        }
        finality
    }

    /// Layer 3 without suspensions: the blocks of each log that count.
    fn unsuspended(&self) -> BTreeMap<LogId, Vec<&'a Block>> {
        let finality = if self.charter.semantics >= 2 { self.finality() } else { BTreeMap::new() };
        let mut prefixes = BTreeMap::new();
        for (log, chains) in self.chains {
            let mut counted = self.undisputed(*log).to_vec();
            if let Some((which, length)) = finality.get(log)
                && *length > counted.len()
            {
                counted = chains[*which][..*length].to_vec();
            }
            let mut counted = self.cut(*log, counted);
            // What follows the author's own word that the log ends is somebody else's.
            let closes = |b: &&Block| b.said.iter().any(|s| matches!(s, Says::Close));
            let end = counted.iter().position(closes).map_or(counted.len(), |at| at + 1);
            counted.truncate(end);
            prefixes.insert(*log, counted);
        }
        prefixes
    }

    /// What the charter lets count.
    fn cut(&self, log: LogId, counted: Vec<&'a Block>) -> Vec<&'a Block> {
        let chains = &self.chains[&log];
        let members = members(self.charter);
        let Some(member) = members.get(&log.0) else { return Vec::new() };
        let expulsion = self.charter.expulsions.iter().find(|e| e.member_id[..] == log.0);
        if expulsion.is_some_and(|e| e.policy == 2) {
            return Vec::new();
        }
        let mut all = self.charter.expulsions.iter().flat_map(|e| &e.cutoffs).chain(&self.charter.cutoffs);
        let here =
            |c: &&proto::Cutoff| c.origin.as_ref().is_some_and(|o| o.member_id[..] == log.0 && o.log_no == log.1);
        let Some(cutoff) = all.rfind(here) else {
            let opened = chains[0].first().and_then(|b| b.opening());
            let current = opened.is_some_and(|open| open.root_key_id[..] == hash(&[&member.log_root_key]));
            return if current && expulsion.is_none() && member.status == 1 { counted } else { Vec::new() };
        };
        let at = cutoff.last_seq as usize;
        let ends_there =
            |chain: &&Vec<&Block>| at > 0 && chain.get(at - 1).is_some_and(|b| b.hash[..] == cutoff.last_hash[..]);
        if let Some(chain) = chains.iter().find(ends_there) {
            return chain[..at].to_vec(); // it picks the chain, across any fork
        }
        let other_chain = at > 0 && chains[0].len() >= at;
        let common = if other_chain { self.common(log) } else { counted };
        common.into_iter().take(at).collect()
    }

    /// What a chain that is not held has in common with the one that is: nothing, as long as nothing is proven.
    fn common(&self, log: LogId) -> Vec<&'a Block> {
        if self.forks.contains_key(&log) { self.undisputed(log).to_vec() } else { Vec::new() }
    }

    /// Who is suspended by stewards at `t`, and what of their logs is above the marks.
    pub(crate) fn suspended(&self, t: u64) -> BTreeMap<[u8; 16], Vec<&'a [Mark]>> {
        let mut suspended: BTreeMap<[u8; 16], Vec<&[Mark]>> = BTreeMap::new();
        if self.charter.semantics < 2 {
            return suspended;
        }
        let members = members(self.charter);
        let mut words: BTreeMap<[u8; 16], Vec<Word<'_>>> = BTreeMap::new();
        for (log, blocks) in self.unsuspended() {
            let steward = members.get(&log.0).is_some_and(|m| m.status == 1 && m.roles & 64 != 0);
            for block in blocks.iter().filter(|_| steward) {
                for (index, said) in block.said.iter().enumerate() {
                    let Says::Suspend { target, marks, until } = said else { continue };
                    let ends = until.div_ceil(HOUR_MS) * HOUR_MS;
                    if *until <= block.time + SUSPENSION_MS && t < ends {
                        let place = (block.time, log.1, block.seq, index, 0);
                        words.entry(log.0).or_default().push((place, *target, marks));
                    }
                }
            }
        }
        for (steward, mut words) in words {
            words.sort_unstable();
            let others = members.iter().filter(|(id, m)| m.status == 1 && **id != steward).count();
            let room = (others / 3).max(1);
            let mut targets = BTreeSet::new();
            for (_, target, marks) in words {
                if targets.contains(&target) || targets.len() < room {
                    targets.insert(target);
                    suspended.entry(target).or_default().push(marks);
                }
            }
        }
        suspended
    }

    /// Layer 3: the blocks of each log that count at `t`.
    pub(crate) fn prefixes(&self, t: u64) -> BTreeMap<LogId, Vec<&'a Block>> {
        let mut prefixes = self.unsuspended();
        let suspended = self.suspended(t);
        for (log, blocks) in &mut prefixes {
            let counted = blocks.len();
            for marks in suspended.get(&log.0).into_iter().flatten() {
                let Some((_, seq, hash)) = marks.iter().find(|m| m.0 == *log) else {
                    blocks.clear();
                    continue;
                };
                let at = *seq as usize;
                // What is held beyond what counts may not tell.
                let elsewhere = at <= counted && self.chains[log][0][at - 1].hash != *hash;
                blocks.truncate(if elsewhere { self.common(*log).len().min(at) } else { at });
            }
        }
        prefixes
    }
}

/// How far a voter supports a chain: as far as what it attested lies on it, in the order it was said.
fn support<'b>(said: impl Iterator<Item = &'b (u64, Hash)>, chain: &[&Block]) -> usize {
    let mut highest = 0;
    for (seq, hash) in said {
        let at = *seq as usize;
        if at == 0 || chain.get(at - 1).is_none_or(|b| b.hash != *hash) {
            break;
        }
        highest = highest.max(at);
    }
    highest
}

/// Whether the charter says by itself how far a log counts.
pub(crate) fn is_cut(charter: &proto::Charter, log: LogId) -> bool {
    let all = charter.expulsions.iter().flat_map(|e| &e.cutoffs).chain(&charter.cutoffs);
    let mut listed = all.filter(|c| c.origin.as_ref().is_some_and(|o| o.member_id[..] == log.0 && o.log_no == log.1));
    let expelled = charter.expulsions.iter().any(|e| e.member_id[..] == log.0);
    expelled || listed.next().is_some()
}

/// How far every correct voter attested one chain of a log; nothing if a third of the voters or more are faulty.
pub(crate) fn attested_by_all(
    charter: &proto::Charter,
    log: LogId,
    chains: &BTreeMap<LogId, Vec<Vec<Rc<Block>>>>,
    forks: &BTreeMap<LogId, u64>,
    faulty: impl Fn(&proto::Member) -> bool,
) -> Option<usize> {
    let borrowed =
        chains.iter().map(|(log, c)| (*log, c.iter().map(|c| c.iter().map(Rc::as_ref).collect()).collect())).collect();
    let held = Held { charter, forks, chains: &borrowed };
    let members = members(charter);
    let owner = members.get(&log.0)?;
    let current = chains.get(&log)?.first()?.first()?.opening()?.root_key_id[..] == hash(&[&owner.log_root_key]);
    let voters = held.voters();
    let groups: BTreeSet<_> = voters.values().filter(|g| **g != owner.group).copied().collect();
    let bad: BTreeSet<_> = voters.iter().filter(|(id, _)| faulty(members[*id])).map(|(_, g)| *g).collect();
    let correct: Vec<_> = groups.difference(&bad).collect();
    if !current || owner.status != 1 || 3 * groups.intersection(&bad).count() >= groups.len() || correct.is_empty() {
        return None;
    }
    let attested = held.attested();
    let nothing = BTreeMap::new();
    let all = |chain: &Vec<&Block>| {
        correct
            .iter()
            .map(|g| support(attested.get(&(**g, log)).unwrap_or(&nothing).values(), chain))
            .min()
            .unwrap_or(0)
    };
    borrowed.get(&log)?.iter().map(all).max()
}
