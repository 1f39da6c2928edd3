//! What a charter changes against the one before, in words that a founder can judge, and what to think about twice
//! before signing it. No field may change without a line: each is compared as it is, whatever the words show of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::member_words;
use crate::cli::drafting::governing::{ACTIVE, FORMER, Kept, SUSPENDED, log_no};
use crate::cli::drafting::peppers;
use crate::cli::{show, taxonomy};
use crate::replica::charter::Roles;
use crate::replica::ids::{CharterHash, KeyId, TimeMs, hex, sha256};
use crate::replica::{proto, record};
use crate::taxonomy::compare;

/// A line each; none when nothing changes. `hash` is that of the charter before, `files` are those of taxonomies that are
/// at hand.
pub(super) fn changes(old: &proto::Charter, hash: CharterHash, new: &proto::Charter, files: &[Bytes]) -> Vec<String> {
    let mut diff = Diff { old, new, files, lines: Vec::new() };
    diff.chain(hash);
    diff.numbers();
    diff.section("founders", old.founder_keys != new.founder_keys, Diff::founders);
    diff.section("policy", old.policy != new.policy, Diff::policy);
    diff.section("members", old.members != new.members, Diff::members);
    diff.section("expulsions", terms(old) != terms(new), Diff::expulsions);
    diff.section("cutoffs", listed_cutoffs(old) != listed_cutoffs(new), Diff::cutoffs);
    diff.section("erasure orders", old.erasures != new.erasures, Diff::erasures);
    diff.section("peppers", old.peppers != new.peppers, Diff::peppers);
    diff.carried();
    diff.lines
}

/// What founders should think about twice, a line each. `old`: the charter before, if there is one.
pub(super) fn warnings(old: Option<&proto::Charter>, new: &proto::Charter, now: TimeMs) -> Vec<String> {
    let mut lines = Vec::new();
    let until = TimeMs(new.valid_until_ms);
    if until <= now {
        lines.push(format!("this charter is stale already: it is valid until {}", show::time(until)));
    }
    let voices = |c: &proto::Charter| {
        c.members.iter().filter(|m| m.status == ACTIVE && m.roles & Roles::FULL.bits() != 0).count()
    };
    if !new.members.is_empty() && voices(new) == 0 {
        lines.push("no FULL member is left: nothing that is listed counts, and nothing can be retracted".to_owned());
    }
    // What was so before was said before.
    let told = old.map(pepper_warnings).unwrap_or_default();
    lines.extend(pepper_warnings(new).into_iter().filter(|line| !told.contains(line)));
    let Some(old) = old else { return lines };
    if new.threshold < old.threshold {
        lines.push(format!(
            "from now on {} people can change this forum together, {} had to until now",
            new.threshold, old.threshold
        ));
    }
    for key in old.founder_keys.iter().filter(|key| !new.founder_keys.contains(key)) {
        lines.push(format!("founder {} cannot sign any more", KeyId::of(key)));
    }
    let days = |c: &proto::Charter| c.policy.as_ref().map_or(0, |p| p.account_ttl_max_ms) / TimeMs::DAY_MS;
    if !new.peppers.is_empty() && days(new) < days(old) {
        lines.push(format!(
            "every word on an account that was given for more than {} days is void at once, disputes too",
            days(new)
        ));
    }
    let now_of = |m: &proto::Member| new.members.iter().find(|n| n.id == m.id);
    for m in old.members.iter().filter(|m| m.status == ACTIVE && m.roles & Roles::STEWARD.bits() != 0) {
        if now_of(m).is_none_or(|n| n.status != ACTIVE || n.roles & Roles::STEWARD.bits() == 0) {
            lines.push(format!("{} is a steward and can suspend nobody any more", show::clean(&m.name)));
        }
    }
    let first = |m: &proto::Member| m.admitted_ms <= old.members.iter().map(|m| m.admitted_ms).min().unwrap_or(0);
    for m in old.members.iter().filter(|m| m.status == ACTIVE && first(m)) {
        if now_of(m).is_none_or(|n| n.status != ACTIVE) {
            lines.push(format!("{} has been here since the forum was founded", show::clean(&m.name)));
        }
    }
    for member in old.members.iter().filter(|m| now_of(m).is_none()) {
        let name = show::clean(&member.name);
        lines.push(format!("{name} is taken out altogether: a company that goes is usually expelled, or leaves"));
    }
    lines
}

/// Who cannot deal with accounts, and who could still guess them.
fn pepper_warnings(charter: &proto::Charter) -> Vec<String> {
    let Some(id) = peppers::newest(charter) else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, has_key) in peppers::without_copy(charter, id) {
        let name = show::clean(&name);
        lines.push(match has_key {
            true => format!("{name} has no copy of pepper {id}: it finds no accounts (staydown charter share-peppers)"),
            false => format!(
                "{name} has no seal key: it finds no accounts (there: staydown key rotate --seal; here: admit its request)"
            ),
        });
    }
    let gone = |m: &&proto::Member| {
        m.status == FORMER && charter.peppers.iter().any(|c| c.pepper_id == id && c.member_id == m.id)
    };
    for member in charter.members.iter().filter(gone) {
        let name = show::clean(&member.name);
        lines.push(format!(
            "{name} knows pepper {id} and can test guesses of what is listed under it: staydown charter rotate-pepper, into the same file"
        ));
    }
    lines
}

struct Diff<'a> {
    old: &'a proto::Charter,
    new: &'a proto::Charter,
    files: &'a [Bytes],
    lines: Vec<String>,
}

impl Diff<'_> {
    fn say(&mut self, line: impl AsRef<str>) {
        self.lines.push(show::clean(line.as_ref()));
    }

    /// Runs `tell` if something `changed`, and says so itself when `tell` found no words for it.
    fn section(&mut self, what: &str, changed: bool, tell: fn(&mut Self)) {
        let before = self.lines.len();
        if changed {
            tell(self);
            if self.lines.len() == before {
                self.say(format!("~ {what}: stand in another order, or twice"));
            }
        }
    }

    fn compare(&mut self, what: &str, changed: bool, old: impl Into<String>, new: impl Into<String>) {
        if changed {
            self.say(format!("~ {what}: {} becomes {}", old.into(), new.into()));
        }
    }

    /// Version, predecessor, forum, nonce: they follow from the charter before, and whatever else they say is an alarm.
    fn chain(&mut self, hash: CharterHash) {
        let (old, new) = (self.old, self.new);
        if new.version != old.version + 1 {
            self.say(format!("! version {} does not follow version {}", new.version, old.version));
        }
        if new.prev_hash[..] != hash.0 {
            self.say(format!("! it names {} as the charter before, which is {hash}", hex(&new.prev_hash)));
        }
        let forum = if old.version == 1 { &hash.0[..] } else { &old.forum_id[..] };
        if new.forum_id != forum {
            self.say(format!("! it is for forum {}, expected {}", hex(&new.forum_id), hex(forum)));
        }
        if new.nonce != old.nonce && !(old.version == 1 && new.nonce.is_empty()) {
            self.say(format!("~ nonce: {} becomes {}", hex(&old.nonce), hex(&new.nonce)));
        }
    }

    fn numbers(&mut self) {
        let (old, new) = (self.old, self.new);
        self.compare("name", old.name != new.name, &old.name, &new.name);
        if old.semantics != new.semantics {
            let meant = "2 switches on finality, suspensions by stewards and erasure orders, 3 lets the charter have \
                         accounts, 4 lets members list videos by their frames; a node that does not know the level signs nothing any more";
            self.say(format!("~ semantics level: {} becomes {} ({meant})", old.semantics, new.semantics));
        }
        if old.threshold != new.threshold {
            let way = if new.threshold < old.threshold { "falls" } else { "rises" };
            self.say(format!("~ threshold {way} from {} to {} founders", old.threshold, new.threshold));
        }
        self.compare("taxonomy", old.taxonomy != new.taxonomy, &old.taxonomy, &new.taxonomy);
        if old.taxonomy != new.taxonomy {
            self.labels();
        }
        let valid = |c: &proto::Charter| {
            format!("{} (issued {})", show::date(TimeMs(c.valid_until_ms)), show::time(TimeMs(c.issued_ms)))
        };
        let changed = (old.issued_ms, old.valid_until_ms) != (new.issued_ms, new.valid_until_ms);
        self.compare("valid until", changed, valid(old), valid(new));
    }

    /// What the other taxonomy changes, where both files are at hand.
    fn labels(&mut self) {
        let named = [&self.old.taxonomy, &self.new.taxonomy];
        match named.map(|named| taxonomy::among(named, self.files)) {
            [Some(old), Some(new)] => {
                let changes = compare(&old, &new);
                changes.lines.iter().for_each(|line| self.say(format!("  {line}")));
                changes.refused.iter().for_each(|line| self.say(format!("! {line}")));
            }
            found => {
                for (named, _) in named.into_iter().zip(found).filter(|(_, found)| found.is_none()) {
                    self.say(format!(
                        "! the file of {named} is not in this charter file: ask for it, and judge it yourself"
                    ));
                }
            }
        }
    }

    fn founders(&mut self) {
        let ids = |c: &proto::Charter| c.founder_keys.iter().map(|key| KeyId::of(key)).collect::<BTreeSet<_>>();
        let (old, new) = (ids(self.old), ids(self.new));
        for id in new.difference(&old) {
            self.say(format!("+ founder {id}: can sign charters from now on"));
        }
        for id in old.difference(&new) {
            self.say(format!("- founder {id}: cannot sign charters any more"));
        }
    }

    fn policy(&mut self) {
        let (old, new) = (self.old.policy.clone().unwrap_or_default(), self.new.policy.clone().unwrap_or_default());
        let proto::Policy {
            retract_min,
            retract_permille,
            contest_quorum,
            allow_quorum,
            quota_per_day,
            account_ttl_max_ms,
            stale_grace_ms,
            auditors_attest,
            log_bytes_max,
        } = new;
        let days = |ms: u64| {
            let whole = ms / TimeMs::DAY_MS;
            if whole * TimeMs::DAY_MS == ms { format!("{whole} days") } else { format!("{ms} ms") }
        };
        let mut line = |changed: bool, text: String| {
            if changed {
                self.lines.push(format!("~ policy: {text}"));
            }
        };
        line(
            retract_min != old.retract_min,
            format!("a subject is retracted by {retract_min} groups at least instead of {}", old.retract_min),
        );
        line(
            retract_permille != old.retract_permille,
            format!(
                "a subject is retracted by {retract_permille} of 1000 FULL groups instead of {}",
                old.retract_permille
            ),
        );
        line(
            contest_quorum != old.contest_quorum,
            format!("a subject is contested by {contest_quorum} groups instead of {}", old.contest_quorum),
        );
        line(
            allow_quorum != old.allow_quorum,
            format!("a subject is allowed by {allow_quorum} certifying groups instead of {}", old.allow_quorum),
        );
        let quotas = |quotas: &[u32]| quotas.iter().map(|n| show::count(u64::from(*n))).collect::<Vec<_>>().join(" / ");
        line(
            quota_per_day != old.quota_per_day,
            format!(
                "a member says at most {} records a day (normal / urgent / bulk) instead of {}",
                quotas(&quota_per_day),
                quotas(&old.quota_per_day)
            ),
        );
        line(
            account_ttl_max_ms != old.account_ttl_max_ms,
            format!("account records last {} instead of {}", days(account_ttl_max_ms), days(old.account_ttl_max_ms)),
        );
        line(
            stale_grace_ms != old.stale_grace_ms,
            format!(
                "a stale charter is an alarm after {} instead of {}",
                days(stale_grace_ms),
                days(old.stale_grace_ms)
            ),
        );
        line(
            auditors_attest != old.auditors_attest,
            format!("auditors {} to what is final", if auditors_attest { "attest, too," } else { "no longer attest" }),
        );
        line(
            log_bytes_max != old.log_bytes_max,
            format!(
                "a member's logs hold at most {} bytes instead of {}",
                show::count(log_bytes_max),
                show::count(old.log_bytes_max)
            ),
        );
        // There is a policy or there is none: decoding both as the default would hide that.
        if self.old.policy.is_some() != self.new.policy.is_some() {
            self.say("~ policy: is there on one side only");
        }
    }

    fn members(&mut self) {
        let (old, new) = (by_id(self.old), by_id(self.new));
        for (id, m) in &new {
            match old.get(id) {
                None => self.say(format!(
                    "+ member {}  pins {}  key {}  logs {}",
                    member_words(m),
                    pins(m).iter().map(|pin| pin[..16.min(pin.len())].to_owned()).collect::<Vec<_>>().join(","),
                    show::short(&KeyId::of(&m.log_root_key).0),
                    m.log_limit
                )),
                Some(before) if before != m => self.member(before, m),
                Some(_) => {}
            }
        }
        for (_, m) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
            self.say(format!("- member {}", member_words(m)));
        }
    }

    fn member(&mut self, old: &proto::Member, new: &proto::Member) {
        let begun = self.lines.len();
        let proto::Member {
            id: _, // it is what they are compared by
            name,
            group,
            roles,
            status,
            log_limit,
            log_root_key,
            nodes,
            admitted_ms,
            seal_key,
            jurisdictions,
            languages,
            pop,
        } = new;
        let who = format!("member {}", old.name);
        self.compare(&format!("{who}: name"), *name != old.name, &old.name, name);
        if *group != old.group {
            self.say(format!("~ {who}: group {} becomes {group}: companies of one group count once", old.group));
        }
        let shown = |bits: u32| match Roles::from_bits(bits).names().join("+") {
            names if names.is_empty() || bits > 127 => format!("{names} (bits {bits})"),
            names => names,
        };
        self.compare(&format!("{who}: roles"), *roles != old.roles, shown(old.roles), shown(*roles));
        if *status != old.status {
            let words = match *status {
                ACTIVE => "belongs again: its nodes connect, and what it says counts",
                SUSPENDED => "is suspended: its connections end within a second, and none is accepted",
                FORMER => "is a former member: its connections end within a second, and its votes lapse",
                _ => "has a status that nobody knows",
            };
            self.say(format!("~ {who} {words}"));
        }
        self.compare(
            &format!("{who}: logs it may open"),
            *log_limit != old.log_limit,
            old.log_limit.to_string(),
            log_limit.to_string(),
        );
        if *log_root_key != old.log_root_key {
            let id = |key: &[u8]| show::short(&KeyId::of(key).0);
            let meant = "logs opened under the old key count up to their cutoff, and not at all without one";
            let (before, after) = (id(&old.log_root_key), id(log_root_key));
            self.say(format!("~ {who}: log root key {before} becomes {after}: {meant}"));
        }
        if *nodes != old.nodes {
            self.nodes(&who, old, new);
        }
        if *admitted_ms != old.admitted_ms {
            let time = |ms| show::time(TimeMs(ms));
            let text = format!("~ {who}: what it wrote before {} does not count", time(*admitted_ms));
            self.say(format!("{text} (until now: before {})", time(old.admitted_ms)));
        }
        let digits = |bytes: &[u8]| if bytes.is_empty() { "none".to_owned() } else { hex(bytes) };
        self.compare(&format!("{who}: seal key"), *seal_key != old.seal_key, digits(&old.seal_key), digits(seal_key));
        let joined = |codes: &[String]| if codes.is_empty() { "none".to_owned() } else { codes.join(", ") };
        let changed = *jurisdictions != old.jurisdictions;
        self.compare(&format!("{who}: jurisdictions"), changed, joined(&old.jurisdictions), joined(jurisdictions));
        let changed = *languages != old.languages;
        self.compare(&format!("{who}: languages"), changed, joined(&old.languages), joined(languages));
        if *pop != old.pop {
            self.say(format!("~ {who}: has proven anew that it holds its log root key"));
        }
        if self.lines.len() == begun {
            self.say(format!("~ {who}: changes in a way that has no words"));
        }
    }

    fn nodes(&mut self, who: &str, old: &proto::Member, new: &proto::Member) {
        let begun = self.lines.len();
        let (before, after): (BTreeSet<_>, BTreeSet<_>) =
            (pins(old).into_iter().collect(), pins(new).into_iter().collect());
        for pin in after.difference(&before) {
            self.say(format!("~ {who}: + TLS pin {pin}: a node with this key connects as {}", new.name));
        }
        for pin in before.difference(&after) {
            self.say(format!("~ {who}: - TLS pin {pin}: a node with this key is cut off"));
        }
        let endpoints = |m: &proto::Member| joined_of(m, |node| node.endpoints.join(" "));
        let (a, b) = (endpoints(old), endpoints(new));
        self.compare(&format!("{who}: endpoints"), a != b, &a, &b);
        let names = |m: &proto::Member| joined_of(m, |node| format!("{:?}", node.uri_san));
        let (a, b) = (names(old), names(new));
        self.compare(&format!("{who}: names in certificates"), a != b, &a, &b);
        let authority = |m: &proto::Member| joined_of(m, |node| node.require_ca.to_string());
        let (a, b) = (authority(old), authority(new));
        self.compare(&format!("{who}: needs a certificate authority"), a != b, &a, &b);
        if self.lines.len() == begun {
            self.say(format!("~ {who}: its nodes or pins stand in another order, or twice"));
        }
    }

    fn expulsions(&mut self) {
        let of = |c: &proto::Charter| -> BTreeMap<Vec<u8>, proto::Expulsion> {
            c.expulsions.iter().map(|e| (e.member_id.to_vec(), e.clone())).collect()
        };
        let (old, new) = (of(self.old), of(self.new));
        let kept = |e: &proto::Expulsion| match e.policy {
            policy if policy == Kept::Word as u32 => "what it said until then counts on (KEEP)".to_owned(),
            policy if policy == Kept::Nothing as u32 => "nothing that it ever said counts (VOID)".to_owned(),
            policy => format!("by a policy that nobody knows ({policy})"),
        };
        for (id, e) in &new {
            let terms = (e.policy, e.reason);
            if old.get(id).is_none_or(|before| (before.policy, before.reason) != terms) {
                let name = self.name(id);
                self.say(format!("~ member {name} is out: {}, reason {}", kept(e), reason(e.reason)));
            }
        }
        for (id, e) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
            let name = self.name(id);
            self.say(format!("~ member {name}: its expulsion is taken back; until now: {}", kept(e)));
        }
    }

    fn cutoffs(&mut self) {
        let (old, new) = (all_cutoffs(self.old), all_cutoffs(self.new));
        // Logs that were never opened come in heaps: one line a member for all of them.
        let mut unopened: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        for (place, (seq, hash)) in &new {
            let before = old.get(place);
            if before == Some(&(*seq, hash.clone())) {
                continue;
            }
            if *seq == 0 && before.is_none() {
                unopened.entry(place.0.clone()).or_default().push(place.1);
                continue;
            }
            let was = before.map(|(seq, _)| format!(", until now up to block {seq}")).unwrap_or_default();
            let name = self.name(&place.0);
            self.say(format!(
                "~ member {name}: its log {} counts up to block {seq} (hash {}){was}",
                place.1,
                show::short(hash)
            ));
        }
        for (id, numbers) in unopened {
            let name = self.name(&id);
            self.say(format!("~ member {name}: logs that it has not opened yet ({}) do not count", ranges(&numbers)));
        }
        let mut opened: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        for ((id, no), (seq, _)) in old.iter().filter(|(place, _)| !new.contains_key(*place)) {
            let name = self.name(id);
            // Of an expelled member counts what is listed, and of one that is void nothing.
            let expelled = self.new.expulsions.iter().find(|e| e.member_id[..] == id[..]);
            match (expelled.map(|e| e.policy), *seq) {
                (None, 0) => opened.entry(id.clone()).or_default().push(*no),
                (None, seq) => self.say(format!(
                    "~ member {name}: its log {no} counts beyond block {seq} again, with whatever was signed there since"
                )),
                (Some(policy), seq) if policy == Kept::Word as u32 && seq > 0 => {
                    self.say(format!("~ member {name}: its log {no}, until now up to block {seq}, does not count any more"));
                }
                (Some(_), _) => {}
            }
        }
        for (id, numbers) in opened {
            let name = self.name(&id);
            self.say(format!("~ member {name}: may open its logs {} again", ranges(&numbers)));
        }
    }

    fn erasures(&mut self) {
        let place = |e: &proto::Erasure| {
            let origin = e.origin.clone().unwrap_or_default();
            (origin.member_id.to_vec(), origin.log_no, e.seq, e.index)
        };
        let of = |c: &proto::Charter| -> BTreeMap<_, proto::Erasure> {
            c.erasures.iter().map(|e| (place(e), e.clone())).collect()
        };
        let (old, new) = (of(self.old), of(self.new));
        let shown = |diff: &Self, e: &proto::Erasure| {
            let (id, log, seq, index) = place(e);
            format!("record {index} of block {}/{log}@{seq}", diff.name(&id))
        };
        for (at, e) in &new {
            let what = shown(self, e);
            let by = format!("(reason {}, leaf {})", reason(e.reason), show::short(&e.leaf_hash));
            match old.get(at) {
                None => self.say(format!("~ {what} is erased everywhere, for ever {by}")),
                Some(before) if before != e => {
                    let was = format!("(reason {}, leaf {})", reason(before.reason), show::short(&before.leaf_hash));
                    self.say(format!("! {what} was erased {was}, and now {by}"));
                }
                Some(_) => {}
            }
        }
        for (_, e) in old.iter().filter(|(at, _)| !new.contains_key(*at)) {
            let what = shown(self, e);
            self.say(format!("! the order to erase {what} is taken back: nodes that hold no copy cannot restore it"));
        }
    }

    /// A pepper that lives is what it was: another copy of it may be another pepper, and is an alarm, unless the member has
    /// another seal key.
    fn peppers(&mut self) {
        type Copies = BTreeMap<u32, BTreeMap<Vec<u8>, Bytes>>;
        let by_id = |c: &proto::Charter| {
            let mut all = Copies::new();
            for copy in &c.peppers {
                all.entry(copy.pepper_id).or_default().insert(copy.member_id.to_vec(), copy.sealed.clone());
            }
            all
        };
        let (old, new) = (by_id(self.old), by_id(self.new));
        let names = |diff: &Self, copies: &BTreeMap<Vec<u8>, Bytes>| {
            copies.keys().map(|id| diff.name(id)).collect::<Vec<_>>().join(", ")
        };
        match (old.is_empty(), new.is_empty()) {
            (true, false) => self.say("~ accounts: may be listed from now on, by pseudonyms and for a time"),
            (false, true) => self.say("~ accounts: may be listed no more, and what is listed counts no more"),
            _ => {}
        }
        let seal_key =
            |c: &proto::Charter, id: &[u8]| c.members.iter().find(|m| m.id[..] == *id).map(|m| m.seal_key.clone());
        for (id, copies) in &new {
            let Some(before) = old.get(id) else {
                self.say(format!("+ pepper {id}: sealed to {}", names(self, copies)));
                continue;
            };
            for (member, sealed) in copies {
                let name = self.name(member);
                let same_key = seal_key(self.old, member) == seal_key(self.new, member);
                match before.get(member) {
                    None => self.say(format!("~ pepper {id}: sealed to {name}, too")),
                    Some(was) if was == sealed => {}
                    Some(_) if same_key => self.say(format!(
                        "! pepper {id}: the copy for {name} is another one, under the same seal key: it may be another pepper"
                    )),
                    Some(_) => self.say(format!("~ pepper {id}: sealed to the new key of {name}")),
                }
            }
            for member in before.keys().filter(|member| !copies.contains_key(*member)) {
                self.say(format!("~ pepper {id}: {} has no copy any more", self.name(member)));
            }
        }
        for (id, _) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
            self.say(format!("- pepper {id}: what is listed under it counts no more"));
        }
    }

    /// What this release carries and does not read.
    fn carried(&mut self) {
        // Every field by its name: a new one does not compile until it has its words.
        let proto::Charter {
            version: _,
            prev_hash: _,
            forum_id: _,
            name: _,
            semantics: _,
            founder_keys: _,
            threshold: _,
            members: _,
            audiences,
            policy: _,
            expulsions: _,
            cutoffs: _,
            erasures: _,
            peppers: _,
            ca_certs,
            issued_ms: _,
            valid_until_ms: _,
            nonce: _,
            taxonomy: _,
        } = self.new;
        let (old, new) = (self.old, self.new);
        let bare = |change: fn(&mut proto::Charter, &proto::Charter), from: &proto::Charter| {
            let mut bare = proto::Charter::default();
            change(&mut bare, from);
            hex(&sha256(&[&bare.encode_to_vec()])[..8])
        };
        let of = |number: usize, digest: String| format!("{number} ({digest})");
        let pick: fn(&mut proto::Charter, &proto::Charter) = |to, from| to.audiences.clone_from(&from.audiences);
        let (a, b) = (of(old.audiences.len(), bare(pick, old)), of(audiences.len(), bare(pick, new)));
        self.compare("audiences", *audiences != old.audiences, a, b);
        let pick: fn(&mut proto::Charter, &proto::Charter) = |to, from| to.ca_certs.clone_from(&from.ca_certs);
        let (a, b) = (of(old.ca_certs.len(), bare(pick, old)), of(ca_certs.len(), bare(pick, new)));
        self.compare("certificate authorities", *ca_certs != old.ca_certs, a, b);
    }

    fn name(&self, id: &[u8]) -> String {
        let all = self.new.members.iter().chain(&self.old.members);
        all.into_iter().find(|m| m.id == id).map_or_else(|| hex(id), |m| m.name.clone())
    }
}

/// The expulsions without their cutoffs, which have lines of their own.
fn terms(charter: &proto::Charter) -> Vec<(&[u8], u32, u32)> {
    charter.expulsions.iter().map(|e| (&e.member_id[..], e.policy, e.reason)).collect()
}

fn listed_cutoffs(charter: &proto::Charter) -> Vec<&[proto::Cutoff]> {
    let expelled = charter.expulsions.iter().map(|e| &e.cutoffs[..]).filter(|cutoffs| !cutoffs.is_empty());
    expelled.chain([&charter.cutoffs[..]]).collect()
}

fn by_id(charter: &proto::Charter) -> BTreeMap<Vec<u8>, proto::Member> {
    charter.members.iter().map(|m| (m.id.to_vec(), m.clone())).collect()
}

fn pins(m: &proto::Member) -> Vec<String> {
    m.nodes.iter().flat_map(|node| node.tls_spki_sha256.iter().map(|pin| hex(pin))).collect()
}

fn joined_of(m: &proto::Member, tell: impl Fn(&proto::NodeEntry) -> String) -> String {
    m.nodes.iter().map(tell).collect::<Vec<_>>().join("; ")
}

/// Block and hash, by member and log: those of expulsions and, over them, those of the charter itself.
fn all_cutoffs(charter: &proto::Charter) -> BTreeMap<(Vec<u8>, u32), (u64, Vec<u8>)> {
    let all = charter.expulsions.iter().flat_map(|e| &e.cutoffs).chain(&charter.cutoffs);
    let entry = |c: &proto::Cutoff| {
        let id = c.origin.as_ref().map(|o| o.member_id.to_vec()).unwrap_or_default();
        ((id, log_no(c)), (c.last_seq, c.last_hash.to_vec()))
    };
    all.map(entry).collect()
}

fn reason(number: u32) -> String {
    let name = u8::try_from(number).ok().and_then(record::reason_name);
    name.map_or_else(|| number.to_string(), ToOwned::to_owned)
}

/// `1, 3..15`.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let shown = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}..{b}") });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::drafting;
    use crate::cli::drafting::tests::{NOW, founded, founder};
    use crate::replica::charter::charter_hash;
    use crate::replica::strict::{CHARTER, Field, Kind, Schema};

    /// A second charter in which every field of every message is set.
    fn whole() -> proto::Charter {
        let mut charter = drafting::body(&founded()).unwrap();
        let ids: Vec<Bytes> = charter.members.iter().map(|m| m.id.clone()).collect();
        let origin = |at: usize, log_no| Some(proto::Origin { member_id: ids[at].clone(), log_no });
        let cutoff =
            |at, log_no| proto::Cutoff { origin: origin(at, log_no), last_seq: 17, last_hash: vec![0x9a; 32].into() };
        charter.version = 2;
        charter.prev_hash = vec![1; 32].into();
        charter.forum_id = vec![2; 32].into();
        charter.audiences = vec![proto::Audience { index: 1, name: "few".into(), member_ids: ids.clone() }];
        charter.cutoffs = vec![cutoff(0, 1), cutoff(0, 2)];
        let (member_id, cutoffs) = (ids[1].clone(), vec![cutoff(1, 1)]);
        charter.expulsions = vec![proto::Expulsion { member_id, policy: 1, cutoffs, reason: 3 }];
        charter.erasures =
            vec![proto::Erasure { origin: origin(2, 1), seq: 12, index: 4, leaf_hash: vec![5; 32].into(), reason: 7 }];
        let sealed = vec![6; 48].into();
        charter.peppers = vec![proto::SealedPepper { pepper_id: 1, member_id: ids[0].clone(), sealed }];
        charter.ca_certs = vec![vec![7; 16].into()];
        let policy = charter.policy.as_mut().unwrap();
        policy.auditors_attest = true;
        for m in &mut charter.members {
            m.seal_key = vec![8; 32].into();
            m.languages = vec!["fr".into(), "de".into()];
            m.nodes[0].uri_san = "spiffe://example.org/node".into();
            m.nodes[0].require_ca = true;
        }
        charter
    }

    #[test]
    fn a_shorter_term_of_accounts_is_warned_of_and_a_longer_one_is_not() {
        let old = whole();
        for (days, off, expected) in [(90, false, true), (200, false, false), (180, false, false), (90, true, false)] {
            let mut new = follower(&old).0;
            new.policy.as_mut().unwrap().account_ttl_max_ms = days * TimeMs::DAY_MS;
            if off {
                new.peppers.clear();
            }
            let told = warnings(Some(&old), &new, NOW).join("\n");
            assert_eq!(told.contains("more than 90 days is void at once, disputes too"), expected, "{days}: {told}");
        }
    }

    /// The charter after it, that changes nothing.
    fn follower(charter: &proto::Charter) -> (proto::Charter, CharterHash) {
        let hash = charter_hash(&charter.encode_to_vec());
        let prev_hash = Bytes::copy_from_slice(&hash.0);
        (proto::Charter { version: charter.version + 1, prev_hash, ..charter.clone() }, hash)
    }

    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                return value;
            }
        }
    }

    fn put(out: &mut Vec<u8>, mut value: u64) {
        while value > 127 {
            out.push(u8::try_from(value & 127).unwrap() | 128);
            value >>= 7;
        }
        out.push(u8::try_from(value).unwrap());
    }

    /// A field of a message: its schema, and its content without tag and length.
    type Part = (&'static Field, u64, Vec<u8>);

    fn parts(bytes: &[u8], schema: &'static Schema) -> Vec<Part> {
        let (mut at, mut parts) = (0, Vec::new());
        while at < bytes.len() {
            let tag = varint(bytes, &mut at);
            let field = schema.fields.iter().find(|f| u64::from(f.number) == tag >> 3).unwrap();
            let begun = at;
            let value = varint(bytes, &mut at);
            if tag & 7 == 2 {
                let length = usize::try_from(value).unwrap();
                parts.push((field, tag, bytes[at..at + length].to_vec()));
                at += length;
            } else {
                parts.push((field, tag, bytes[begun..at].to_vec()));
            }
        }
        parts
    }

    fn joined(parts: &[Part]) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, tag, content) in parts {
            put(&mut out, *tag);
            if tag & 7 == 2 {
                put(&mut out, content.len() as u64);
            }
            out.extend(content);
        }
        out
    }

    /// Every message that differs from `bytes` in one place: a number, a text, bytes; a field left out, or twice.
    fn variants(bytes: &[u8], schema: &'static Schema, path: &str) -> Vec<(String, Vec<u8>)> {
        let parts = parts(bytes, schema);
        let mut found = Vec::new();
        for (i, (field, tag, content)) in parts.iter().enumerate() {
            let path = format!("{path}.{}[{i}]", field.name);
            let mut with = |what: &str, content: Vec<u8>| {
                let mut changed = parts.clone();
                changed[i].2 = content;
                found.push((format!("{path} {what}"), joined(&changed)));
            };
            match field.kind {
                Kind::Message(inner) => {
                    for (what, content) in variants(content, inner, &path) {
                        with(&what, content);
                    }
                }
                Kind::Bytes | Kind::String => {
                    let mut content = content.clone();
                    let last = content.len() - 1;
                    content[last] ^= 1;
                    with("changed", content);
                }
                Kind::Bool => with("changed", vec![0]),
                Kind::Uint32 | Kind::Uint64 => {
                    let (mut at, mut out) = (0, Vec::new());
                    let value = varint(content, &mut at);
                    put(&mut out, value + 1);
                    out.extend(&content[at..]);
                    with("changed", out);
                }
            }
            let mut without = parts.clone();
            without.remove(i);
            found.push((format!("{path} left out"), joined(&without)));
            if field.repeated && tag & 7 == 2 && !matches!(field.kind, Kind::Uint32) {
                let mut twice = parts.clone();
                twice.insert(i, parts[i].clone());
                found.push((format!("{path} twice"), joined(&twice)));
                if i > 0 && parts[i - 1].0.number == field.number && parts[i - 1].2 != *content {
                    let mut swapped = parts.clone();
                    swapped.swap(i, i - 1);
                    found.push((format!("{path} swapped"), joined(&swapped)));
                }
            }
        }
        found
    }

    /// Field paths of the schema that `whole` does not set.
    fn unset(bytes: &[u8], schema: &'static Schema) -> Vec<String> {
        let parts = parts(bytes, schema);
        let mut missing = Vec::new();
        for field in schema.fields {
            let mut here = parts.iter().filter(|(f, ..)| f.number == field.number).peekable();
            if here.peek().is_none() {
                missing.push(format!("{}.{}", schema.name, field.name));
            }
            if let (Kind::Message(inner), Some((_, _, content))) = (field.kind, here.next()) {
                missing.extend(unset(content, inner));
            }
        }
        missing
    }

    #[test]
    fn no_field_of_a_charter_changes_without_a_line() {
        let old = whole();
        assert_eq!(unset(&old.encode_to_vec(), &CHARTER), [] as [&str; 0], "the test misses a field");
        let (next, hash) = follower(&old);
        assert_eq!(changes(&old, hash, &next, &[]), [] as [&str; 0]);
        let variants = variants(&next.encode_to_vec(), &CHARTER, "charter");
        assert!(variants.len() > 200, "{}", variants.len());
        let mut silent = Vec::new();
        for (what, bytes) in variants {
            let Ok(changed) = proto::Charter::decode(&bytes[..]) else { continue };
            if changed != next && changes(&old, hash, &changed, &[]).is_empty() {
                silent.push(what);
            }
        }
        assert_eq!(silent, [] as [&str; 0]);
    }

    type Edit = fn(&mut proto::Charter);

    fn lines(change: impl FnOnce(&mut proto::Charter)) -> Vec<String> {
        let old = whole();
        let (mut next, hash) = follower(&old);
        change(&mut next);
        changes(&old, hash, &next, &[])
    }

    #[test]
    fn labels_that_come_and_go_are_told_where_their_files_are_at_hand() {
        let file = crate::taxonomy::TaxonomyFile::parse(crate::taxonomy::EXAMPLE_TEXT).unwrap();
        let old = whole();
        let (mut next, hash) = follower(&old);
        next.taxonomy = file.named.to_string();
        let told = |files: &[Bytes]| changes(&old, hash, &next, files).join("\n");
        assert!(told(&[]).contains(&format!("! the file of {} is not in this charter file", next.taxonomy)));
        assert!(
            told(&[Bytes::from("name = 1")]).contains("is not in this charter file"),
            "it must be the one that is named"
        );
        let told = told(&[file.text.clone().into()]);
        assert!(told.contains("+ label 1001 org-example-front (producer)") && !told.contains("! "), "{told}");
    }

    #[test]
    fn changes_are_told_in_words_that_can_be_judged() {
        let table: [(Edit, &str); 11] = [
            (|c| c.threshold = 3, "~ threshold rises from 2 to 3 founders"),
            (
                |c| c.policy.as_mut().unwrap().contest_quorum = 3,
                "~ policy: a subject is contested by 3 groups instead of 2",
            ),
            (
                |c| c.members[2].status = 2,
                "~ member cyan is suspended: its connections end within a second, and none is accepted",
            ),
            (
                |c| c.cutoffs[0].last_seq = 9,
                "~ member acme: its log 1 counts up to block 9 (hash 9a9a9a9a9a9a9a9a), until now up to block 17",
            ),
            (
                |c| drop(c.cutoffs.remove(0)),
                "~ member acme: its log 1 counts beyond block 17 again, with whatever was signed there since",
            ),
            (
                |c| c.erasures.push(proto::Erasure { index: 5, ..c.erasures[0].clone() }),
                "~ record 5 of block cyan/1@12 is erased everywhere, for ever (reason court-or-law, leaf 0505050505050505)",
            ),
            (
                |c| c.expulsions[0].policy = 2,
                "~ member bolt is out: nothing that it ever said counts (VOID), reason education-research",
            ),
            (|c| c.members[0].roles = 66, "~ member acme: roles: FULL becomes SMALL+STEWARD"),
            (
                |c| c.members[0].group = "ACME, Inc".into(),
                "~ member acme: group ACME becomes ACME, Inc: companies of one group count once",
            ),
            (|c| c.members[0].languages.clear(), "~ member acme: languages: fr, de becomes none"),
            (
                |c| c.valid_until_ms += TimeMs::DAY_MS,
                "~ valid until: 2027-12-23 (issued 2026-11-18 11:06:40 UTC) becomes 2027-12-24 (issued 2026-11-18 11:06:40 UTC)",
            ),
        ];
        for (change, expected) in table {
            assert_eq!(lines(change), [expected]);
        }
        let told = lines(|c| c.founder_keys[0] = Bytes::copy_from_slice(founder(9).verifying_key().as_bytes()));
        assert!(told.len() == 2 && told[0].starts_with("+ founder ") && told[1].starts_with("- founder "), "{told:?}");
        let told = lines(|c| c.members[0].name = "ac\u{1b}me".into());
        assert_eq!(told, ["~ member acme: name: acme becomes ac\u{b7}me"]);
    }

    #[test]
    fn logs_that_were_never_opened_are_told_in_one_line() {
        let zero = |log_no| proto::Cutoff {
            origin: Some(proto::Origin { member_id: vec![11; 16].into(), log_no }),
            last_seq: 0,
            last_hash: vec![0; 32].into(),
        };
        let told = lines(|c| c.cutoffs.extend([3, 4, 5, 7].map(zero)));
        assert_eq!(told, ["~ member acme: logs that it has not opened yet (3..5, 7) do not count"]);
    }

    #[test]
    fn what_happens_to_peppers_is_told_and_another_copy_is_an_alarm() {
        let copy = |pepper_id, member: u8, fill: u8| proto::SealedPepper {
            pepper_id,
            member_id: vec![member; 16].into(),
            sealed: vec![fill; 80].into(),
        };
        // The whole charter has pepper 1 for acme.
        assert_eq!(
            lines(|c| c.peppers.extend([copy(1, 12, 3), copy(2, 11, 4), copy(2, 12, 5)])),
            ["~ pepper 1: sealed to bolt, too", "+ pepper 2: sealed to acme, bolt"]
        );
        assert_eq!(
            lines(|c| c.peppers = vec![copy(2, 11, 4)]),
            ["+ pepper 2: sealed to acme", "- pepper 1: what is listed under it counts no more"]
        );
        let other = lines(|c| c.peppers[0].sealed = vec![9; 80].into());
        assert!(other[0].starts_with("! pepper 1: the copy for acme is another one"), "{other:?}");
        let rekeyed = lines(|c| {
            c.peppers[0].sealed = vec![9; 80].into();
            c.members[0].seal_key = vec![9; 32].into();
        });
        assert!(rekeyed.contains(&"~ pepper 1: sealed to the new key of acme".to_owned()), "{rekeyed:?}");
        let off = lines(|c| c.peppers.clear());
        assert!(off[0].starts_with("~ accounts: may be listed no more"), "{off:?}");
    }

    #[test]
    fn founders_are_warned_of_what_cannot_be_taken_back_easily() {
        let old = whole();
        let warned = |change: fn(&mut proto::Charter), expected: &str| {
            let mut new = old.clone();
            change(&mut new);
            let lines = warnings(Some(&old), &new, NOW);
            assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:?}");
        };
        assert_eq!(warnings(Some(&old), &old, NOW), [] as [&str; 0]);
        warned(|c| c.valid_until_ms = NOW.0, "is stale already");
        warned(|c| c.threshold = 1, "1 people can change this forum together, 2 had to");
        warned(|c| c.members.iter_mut().for_each(|m| m.status = 2), "no FULL member is left");
        warned(|c| c.members[0].status = 3, "acme has been here since the forum was founded");
        warned(|c| drop(c.members.remove(0)), "acme is taken out altogether");
        warned(|c| drop(c.founder_keys.remove(0)), "cannot sign any more");
        warned(|c| c.members[0].status = 3, "acme knows pepper 1 and can test guesses of what is listed under it");
        warned(|c| c.peppers[0].pepper_id = 2, "bolt has no copy of pepper 2");
        warned(
            |c| {
                c.peppers[0].pepper_id = 2;
                c.members[1].seal_key = Bytes::new();
            },
            "bolt has no seal key: it finds no accounts",
        );
        let mut stewarded = old.clone();
        stewarded.members[1].roles |= Roles::STEWARD.bits();
        assert!(warnings(Some(&stewarded), &old, NOW)[0].contains("bolt is a steward"));
    }

    #[test]
    fn numbers_of_the_status_are_those_of_the_charter() {
        assert_eq!((ACTIVE, SUSPENDED, FORMER), (1, 2, 3));
    }
}
