//! The commands that change a charter. Each begins with the next version of this node's charter, or goes on with a file
//! (`--into`), and ends with a file that founders review and sign.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{current_chain, differences, founder, read_either, refuse_to_overwrite, roles, told_file, warnings};
use crate::accounts::{Pepper, Peppers};
use crate::cli::drafting::governing::{self, Erased, Kept, LogEnd, MemberChange, PolicyChange};
use crate::cli::drafting::{self, Standing, peppers};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::log::Heads;
use crate::cli::{Invocation, init, show, taxonomy};
use crate::replica::ids::{Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs};
use crate::replica::{merkle, record};
use crate::taxonomy::TaxonomyFile;
use crate::wire::files::CharterFile;
use crate::wire::local;
use crate::{clock, keys};

/// Where a proposal begins and ends.
#[derive(Args)]
pub(in crate::cli) struct DraftArgs {
    /// The draft to go on with [default: the next version of this node's charter]
    #[arg(long, value_name = "FILE.sdc")]
    into: Option<PathBuf>,
    /// A charter that counts, or an invitation, to draw up the next version of, on a machine without a node
    #[arg(long, value_name = "FILE", conflicts_with = "into")]
    after: Option<PathBuf>,
    /// The new charter file [default: the draft itself, or charter-N.sdc]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl DraftArgs {
    pub(super) async fn begin(&self, now: TimeMs, at: &Invocation) -> Result<CharterFile, Failure> {
        match (&self.into, &self.after) {
            (Some(path), _) => Ok(CharterFile::read(path)?),
            (None, Some(path)) => {
                let after = read_either(path)?;
                Ok(CharterFile {
                    taxonomies: after.taxonomies.clone(),
                    ..drafting::next(&drafting::chain(&after)?, now)?
                })
            }
            (None, None) => {
                let file = drafting::next(&current_chain(at).await?, now)?;
                let taxonomy = Some(taxonomy::file_of_this_place(at).await?).filter(|file| !file.is_empty());
                Ok(CharterFile { taxonomies: taxonomy.into_iter().collect(), ..file })
            }
        }
    }

    /// The file to write.
    ///
    /// # Errors
    /// It is there already, and is not the draft that we go on with.
    pub(super) fn out(&self, file: &CharterFile, at: &Invocation) -> Result<PathBuf, Failure> {
        let version = drafting::body(file)?.version;
        let named = self.out.clone().or(self.into.clone());
        let out = named.unwrap_or_else(|| PathBuf::from(format!("charter-{version}.sdc")));
        if self.into.as_ref() != Some(&out) {
            refuse_to_overwrite(&out, at)?;
        }
        Ok(out)
    }
}

/// Where it is known from how far logs reach.
#[derive(Args)]
pub(in crate::cli) struct HeadsArg {
    /// What `log heads --json` wrote at a node, for a machine without one [default: ask this node]
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

impl HeadsArg {
    /// The heads of all logs of the forum that `file` is a charter of.
    pub(super) async fn read(&self, file: &CharterFile, at: &Invocation) -> Result<Vec<LogEnd>, Failure> {
        let heads = match &self.heads {
            Some(path) => Heads::read(path)?,
            None => {
                let fix = "staydown run, or --heads FILE with what staydown log heads --json wrote at a node";
                let node = at.node().await.map_err(|failure| failure.fix(fix))?;
                Heads::from(node.status(local::StatusRequest {}).await?)
            }
        };
        heads.of(super::forum_of(file))
    }
}

#[derive(Subcommand)]
pub(in crate::cli) enum Proposal {
    /// Cut a company off for now: it cannot connect, and what it signs from now on does not count
    Suspend {
        /// Its name or id
        member: String,
        #[command(flatten)]
        heads: HeadsArg,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Take a suspension back, or an expulsion
    Reinstate {
        /// Its name or id
        member: String,
        /// What it signed meanwhile does not count; it goes on in new logs (for stolen keys)
        #[arg(long)]
        keep_cutoffs: bool,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// End a membership against the company's will
    Expel(ExpelArgs),
    /// End a membership on the company's own wish; what it said until now is kept
    Leave {
        /// Its name or id
        member: String,
        /// Why it leaves
        #[arg(long, default_value = "other")]
        reason: String,
        #[command(flatten)]
        heads: HeadsArg,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Give a company other roles
    SetRole {
        /// Its name or id
        member: String,
        /// FULL, SMALL, OBSERVER, REFERRAL, CERTIFIER, AUDITOR, STEWARD; several with commas
        #[arg(long)]
        role: String,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Change the forum's numbers: quorums, quotas, sizes
    SetPolicy(PolicyArgs),
    /// Put other labels in force: the charter names the file by its bytes, and carries it to every member
    SetTaxonomy {
        /// The taxonomy file
        file: PathBuf,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Switch a level of meaning on, when every member's node knows it
    SetSemantics {
        /// The level
        level: u32,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Whether accounts may be listed, by pseudonyms under a secret pepper that members share
    SetAccounts {
        /// on draws the first pepper; off ends what is listed
        #[arg(value_enum)]
        to: Switch,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Draw a new pepper for accounts: after a member has gone, or as a habit; the old ones are looked up until they end
    RotatePepper {
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Take an old pepper out: what is listed under it counts no more
    DropPepper {
        /// Its number
        id: u32,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Seal the peppers that live to members without a copy, at a node that can open them
    SharePeppers {
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Change what the charter says of a company: group, places, languages, logs, endpoints, pins
    SetMember(MemberArgs),
    /// Make the charter valid for so many days from today
    Renew {
        /// How many
        #[arg(long)]
        days: u64,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Let a log count up to a block and no further: for a stolen key
    Cutoff(CutoffArgs),
    /// Order that the bytes of one record disappear from every node, for ever
    Erase(EraseArgs),
    /// Put a founder's new key where the old one stood
    RotateFounder {
        /// The first 8 or more digits of the old key's id
        old: String,
        /// The new public key: a file, or 64 hexadecimal digits
        #[arg(value_name = "NEW.pub")]
        new: String,
        #[command(flatten)]
        draft: DraftArgs,
    },
    /// Add founders, take founders out, change how many of them sign
    SetFounders {
        /// Public keys of founders to add: files, or 64 hexadecimal digits
        #[arg(long, num_args = 1.., value_name = "FILE.pub")]
        add: Vec<String>,
        /// The first 8 or more digits of the ids of keys to take out
        #[arg(long, num_args = 1.., value_name = "KEY_ID")]
        remove: Vec<String>,
        /// How many of them must sign
        #[arg(long)]
        threshold: Option<u32>,
        #[command(flatten)]
        draft: DraftArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Switch {
    On,
    Off,
}

#[derive(Args)]
#[command(group = ArgGroup::new("kept").required(true).args(["keep", "void"]))]
pub(in crate::cli) struct ExpelArgs {
    /// Its name or id
    member: String,
    /// What it said until now counts on
    #[arg(long)]
    keep: bool,
    /// Nothing that it ever said counts
    #[arg(long)]
    void: bool,
    /// Why: mistake, court-or-law, key-compromise, other, ...
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    heads: HeadsArg,
    #[command(flatten)]
    draft: DraftArgs,
}

#[derive(Args)]
pub(in crate::cli) struct PolicyArgs {
    /// Groups that retract a subject, at least
    #[arg(long, value_name = "N")]
    retract_min: Option<u32>,
    /// Share of the FULL groups that retracts a subject, in thousandths
    #[arg(long, value_name = "N")]
    retract_permille: Option<u32>,
    /// Groups that contest a subject
    #[arg(long, value_name = "N")]
    contest_quorum: Option<u32>,
    /// Certifying groups that allow a subject
    #[arg(long, value_name = "N")]
    allow_quorum: Option<u32>,
    /// Records of a member and day in the normal lane
    #[arg(long, value_name = "N")]
    quota_normal: Option<u32>,
    /// Records of a member and day in the urgent lane
    #[arg(long, value_name = "N")]
    quota_urgent: Option<u32>,
    /// Records of a member and day in the bulk lane
    #[arg(long, value_name = "N")]
    quota_bulk: Option<u32>,
    /// Room for the logs of one member: bytes, or 500MiB, 8GiB
    #[arg(long, value_name = "SIZE")]
    log_bytes_max: Option<String>,
    /// Days for which a stale charter is a warning before it is an alarm
    #[arg(long, value_name = "DAYS")]
    stale_grace: Option<u64>,
    /// Days for which an account is listed at most
    #[arg(long, value_name = "DAYS")]
    account_days: Option<u64>,
    /// Whether auditors attest what is final
    #[arg(long, value_name = "BOOL")]
    auditors_attest: Option<bool>,
    #[command(flatten)]
    draft: DraftArgs,
}

#[derive(Args)]
pub(in crate::cli) struct MemberArgs {
    /// Its name or id
    member: String,
    /// Companies under one owner share one group and count once
    #[arg(long)]
    group: Option<String>,
    /// ISO 3166 codes, instead of those that stand there
    #[arg(long = "jurisdiction", visible_alias = "jurisdictions", num_args = 1.., value_delimiter = ',')]
    jurisdictions: Vec<String>,
    /// BCP 47 tags, instead of those that stand there
    #[arg(long = "language", visible_alias = "languages", num_args = 1.., value_delimiter = ',')]
    languages: Vec<String>,
    /// How many logs it may open
    #[arg(long, value_name = "N")]
    log_limit: Option<u32>,
    /// host:port, instead of those that stand there
    #[arg(long = "endpoint", num_args = 1.., value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The first 8 or more digits of a TLS pin that may not connect any more
    #[arg(long = "drop-pin", value_name = "PIN")]
    drop_pins: Vec<String>,
    #[command(flatten)]
    draft: DraftArgs,
}

#[derive(Args)]
#[command(group = ArgGroup::new("place").required(true).args(["at", "now"]))]
pub(in crate::cli) struct CutoffArgs {
    /// Its name or id
    member: String,
    /// The log's number
    log: u32,
    /// The last block that counts
    #[arg(long, value_name = "SEQ", requires = "hash")]
    at: Option<u64>,
    /// The hash of that block's header, 64 hexadecimal digits
    #[arg(long, conflicts_with = "now")]
    hash: Option<String>,
    /// The last block that this node holds
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    heads: HeadsArg,
    #[command(flatten)]
    draft: DraftArgs,
}

#[derive(Args)]
pub(in crate::cli) struct EraseArgs {
    /// The block, as MEMBER/LOG@SEQ
    #[arg(value_name = "MEMBER/LOG@SEQ")]
    block: String,
    /// The record's number in it, from 0
    index: u32,
    /// Why: court-or-law, mistake, ...
    #[arg(long)]
    reason: String,
    /// The record's leaf hash, 64 hexadecimal digits [default: ask this node]
    #[arg(long, value_name = "HASH")]
    leaf_hash: Option<String>,
    #[command(flatten)]
    draft: DraftArgs,
}

pub(super) async fn propose(change: Proposal, at: &Invocation) -> Outcome {
    match change {
        Proposal::Suspend { member, heads, draft } => {
            let begun = draft.begin(clock::now(), at).await?;
            let ends = heads.read(&begun, at).await?;
            let new = governing::suspend(&begun, &member, &ends)?;
            warn_of_forks(&new, &member, &ends, at)?;
            written(&begun, &new, &draft, at)
        }
        Proposal::Reinstate { member, keep_cutoffs, draft } => {
            let begun = draft.begin(clock::now(), at).await?;
            written(&begun, &governing::reinstate(&begun, &member, keep_cutoffs)?, &draft, at)
        }
        Proposal::Expel(args) => {
            let kept = if args.void { Kept::Nothing } else { Kept::Word };
            expel(&args.member, kept, &args.reason, &args.heads, &args.draft, at).await
        }
        Proposal::Leave { member, reason, heads, draft } => {
            expel(&member, Kept::Word, &reason, &heads, &draft, at).await
        }
        Proposal::SetRole { member, role, draft } => {
            let roles = roles(&role)?;
            let begun = draft.begin(clock::now(), at).await?;
            written(&begun, &governing::set_role(&begun, &member, roles)?, &draft, at)
        }
        Proposal::SetPolicy(args) => {
            let change = policy_change(&args)?;
            let begun = args.draft.begin(clock::now(), at).await?;
            written(&begun, &governing::set_policy(&begun, &change)?, &args.draft, at)
        }
        Proposal::SetTaxonomy { file, draft } => {
            let taxonomy = TaxonomyFile::read(&file)?;
            let begun = draft.begin(clock::now(), at).await?;
            written(&begun, &governing::set_taxonomy(&begun, &taxonomy)?, &draft, at)
        }
        Proposal::SetSemantics { level, draft } => {
            let begun = draft.begin(clock::now(), at).await?;
            let new = governing::set_semantics(&begun, level)?;
            at.terminal.talk(who_understands(level, at).await);
            written(&begun, &new, &draft, at)
        }
        Proposal::SetAccounts { to, draft } => set_accounts(to, &draft, at).await,
        Proposal::RotatePepper { draft } => rotate_pepper(&draft, at).await,
        Proposal::DropPepper { id, draft } => {
            let begun = draft.begin(clock::now(), at).await?;
            let (new, until) = peppers::drop_pepper(&begun, id)?;
            if until > clock::now() {
                let until = show::date(until);
                at.terminal.talk(format!(
                    "warning: accounts may be listed under pepper {id} until {until}: they match no more"
                ));
            }
            written(&begun, &new, &draft, at)
        }
        Proposal::SharePeppers { draft } => {
            let begun = draft.begin(clock::now(), at).await?;
            let new = shared(&begun, &begun, at)?;
            if new == begun {
                let failure = Failure::new(Exit::Refused, "nobody is given a copy: nothing would change");
                return Err(failure.fix("run it at a member that has the peppers, as a user who can read its keys"));
            }
            written(&begun, &new, &draft, at)
        }
        Proposal::SetMember(args) => {
            let begun = args.draft.begin(clock::now(), at).await?;
            let change = MemberChange {
                group: args.group,
                jurisdictions: args.jurisdictions,
                languages: args.languages,
                log_limit: args.log_limit,
                endpoints: args.endpoints,
                drop_pins: args.drop_pins,
            };
            written(&begun, &governing::set_member(&begun, &args.member, &change)?, &args.draft, at)
        }
        Proposal::Renew { days, draft } => {
            let now = clock::now();
            let begun = draft.begin(now, at).await?;
            written(&begun, &governing::renew(&begun, days, now)?, &draft, at)
        }
        Proposal::Cutoff(args) => cut_off(&args, at).await,
        Proposal::Erase(args) => erase(&args, at).await,
        Proposal::RotateFounder { old, new, draft } => {
            let new = founder("NEW.pub", &new)?;
            let begun = draft.begin(clock::now(), at).await?;
            written(&begun, &governing::rotate_founder(&begun, &old, &new)?, &draft, at)
        }
        Proposal::SetFounders { add, remove, threshold, draft } => {
            let add = add.iter().map(|text| founder("--add", text)).collect::<Result<Vec<_>, _>>()?;
            let begun = draft.begin(clock::now(), at).await?;
            written(&begun, &governing::set_founders(&begun, &add, &remove, threshold)?, &draft, at)
        }
    }
}

/// 32 random bytes at each call.
fn chance() -> [u8; 32] {
    clock::random()
}

async fn set_accounts(to: Switch, draft: &DraftArgs, at: &Invocation) -> Outcome {
    let begun = draft.begin(clock::now(), at).await?;
    let new = match to {
        Switch::On => peppers::switch_on(&begun, &Pepper::from_bytes(clock::random()), &mut chance)?,
        Switch::Off => peppers::switch_off(&begun)?,
    };
    if to == Switch::On {
        at.terminal.talk(
            "Every member that has the pepper can test whether an account that it guesses is listed, and by whom",
        );
    }
    written(&begun, &new, draft, at)
}

async fn rotate_pepper(draft: &DraftArgs, at: &Invocation) -> Outcome {
    let now = clock::now();
    let begun = draft.begin(now, at).await?;
    let (new, over) = peppers::rotate(&begun, &Pepper::from_bytes(clock::random()), now, &mut chance)?;
    for id in over {
        at.terminal.talk(format!("pepper {id} goes: everything that was listed under it has ended"));
    }
    written(&begun, &new, draft, at)
}

/// The draft with copies of the peppers that our own node can open, for those who have none. `begun` is the draft before
/// this command changed it. A draft on a machine without a node stays as it is.
pub(super) fn shared(begun: &CharterFile, file: &CharterFile, at: &Invocation) -> Result<CharterFile, Failure> {
    let Some(opened) = opened(begun, at)? else { return Ok(file.clone()) };
    let (new, sealed) = peppers::share(begun, file, &opened, &mut chance)?;
    for (name, id) in sealed {
        at.terminal.talk(format!("pepper {id} is sealed to {}, too", show::clean(&name)));
    }
    Ok(new)
}

/// The peppers of the draft that the node in our data directory can open; `None` where there is no node, or none of them
/// is for it.
fn opened(file: &CharterFile, at: &Invocation) -> Result<Option<Peppers>, Failure> {
    let Ok(config) = at.config() else { return Ok(None) };
    let (Some(me), false) = (init::member(&config.data)?, file.before.is_empty()) else { return Ok(None) };
    peppers::open(file, me, &keys::seal_secrets(&config.data.join(init::KEYS_FOLDER))?)
}

async fn expel(
    member: &str,
    kept: Kept,
    reason: &str,
    heads: &HeadsArg,
    draft: &DraftArgs,
    at: &Invocation,
) -> Outcome {
    let reason = governing::reason(reason)?;
    let begun = draft.begin(clock::now(), at).await?;
    let ends = match kept {
        Kept::Word if governing::needs_heads(&begun, member)? => heads.read(&begun, at).await?,
        _ => Vec::new(),
    };
    let new = governing::expel(&begun, member, kept, reason, &ends)?;
    warn_of_forks(&new, member, &ends, at)?;
    written(&begun, &new, draft, at)
}

/// Whom a new semantics level would leave behind, as far as our node knows.
async fn who_understands(level: u32, at: &Invocation) -> String {
    let peers = async { at.node().await?.peers(local::ListPeersRequest {}).await };
    match peers.await {
        Ok(answer) => left_behind(level, &answer.peers),
        Err(_no_node_here) => format!(
            "Ask every member for its release first (staydown --version): a node that does not know level {level} signs nothing any more"
        ),
    }
}

fn left_behind(level: u32, peers: &[local::PeerState]) -> String {
    let named = |of: &dyn Fn(u32) -> bool| -> Vec<_> {
        peers.iter().filter(|peer| of(peer.semantics_max)).map(|peer| show::clean(&peer.member)).collect()
    };
    let (behind, silent) = (named(&|known| known > 0 && known < level), named(&|known| known == 0));
    let mut told = Vec::new();
    if !behind.is_empty() {
        let behind = behind.join(", ");
        told.push(format!(
            "level {level} is too new for {behind}, whose nodes would sign nothing any more: wait for their upgrade"
        ));
    }
    if !silent.is_empty() {
        told.push(format!(
            "not heard since our node's start: {}; ask for their release (staydown --version)",
            silent.join(", ")
        ));
    }
    if told.is_empty() { format!("every peer's release understands level {level}") } else { told.join("\n") }
}

fn policy_change(args: &PolicyArgs) -> Result<PolicyChange, Failure> {
    Ok(PolicyChange {
        retract_min: args.retract_min,
        retract_permille: args.retract_permille,
        contest_quorum: args.contest_quorum,
        allow_quorum: args.allow_quorum,
        quotas: [args.quota_normal, args.quota_urgent, args.quota_bulk],
        log_bytes_max: args.log_bytes_max.as_deref().map(size).transpose()?,
        stale_grace_days: args.stale_grace,
        account_days: args.account_days,
        auditors_attest: args.auditors_attest,
    })
}

/// `8GiB`, `500MiB`, or a number of bytes.
fn size(text: &str) -> Result<u64, Failure> {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
    let read = units.iter().find_map(|(unit, bytes)| {
        let digits = text.strip_suffix(unit)?.trim_end();
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(*bytes)
    });
    read.ok_or_else(|| {
        let cause = format!("--log-bytes-max: got {text:?}, expected a size as 8GiB, 500MiB or a number of bytes");
        Failure::new(Exit::Usage, cause)
    })
}

async fn cut_off(args: &CutoffArgs, at: &Invocation) -> Outcome {
    let begun = args.draft.begin(clock::now(), at).await?;
    let head = match (args.at, &args.hash) {
        (Some(seq), Some(hash)) => Head { seq: Seq(seq), hash: HeaderHash(thirty_two("--hash", hash)?) },
        _ => {
            let ends = args.heads.read(&begun, at).await?;
            let charter = drafting::body(&begun)?;
            let member = &charter.members[governing::position(&charter, &args.member)?];
            let of = |end: &&LogEnd| end.origin.member.0 == member.id[..] && end.origin.log_no.0 == args.log;
            let end = ends.iter().find(of).ok_or_else(|| {
                let cause = format!("no block of log {} of {} is known", args.log, member.name);
                Failure::new(Exit::NotFound, cause).fix("staydown log heads")
            })?;
            end.head
        }
    };
    written(&begun, &governing::cut_off(&begun, &args.member, LogNo(args.log), head)?, &args.draft, at)
}

fn thirty_two(flag: &str, text: &str) -> Result<[u8; 32], Failure> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    bytes.try_into().map_err(|_wrong_length| {
        Failure::new(Exit::Usage, format!("{flag}: got {text:?}, expected 64 hexadecimal digits"))
    })
}

/// Member, log and block of `MEMBER/LOG@SEQ`.
pub(in crate::cli) fn place(text: &str) -> Result<(&str, LogNo, Seq), Failure> {
    let read = text.rsplit_once('@').and_then(|(log, seq)| {
        let (member, no) = log.rsplit_once('/')?;
        Some((member, LogNo(no.parse().ok()?), Seq(seq.parse().ok()?)))
    });
    read.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("got block {text:?}, expected MEMBER/LOG@SEQ, as in acme/0@12"))
    })
}

async fn erase(args: &EraseArgs, at: &Invocation) -> Outcome {
    let reason = governing::reason(&args.reason)?;
    let (member, log_no, seq) = place(&args.block)?;
    let begun = args.draft.begin(clock::now(), at).await?;
    governing::check_erasable(&begun, seq, args.index)?;
    let charter = drafting::body(&begun)?;
    let member = &charter.members[governing::position(&charter, member)?];
    let id = MemberId::from_slice(&member.id).unwrap_or(MemberId([0; 16]));
    let origin = Origin { member: id, log_no };
    let leaf = match &args.leaf_hash {
        Some(text) => thirty_two("--leaf-hash", text)?,
        None => leaf_of(origin, seq, args.index, at).await?,
    };
    let erased = Erased { origin, seq, index: args.index, leaf };
    written(&begun, &governing::erase(&begun, &erased, reason)?, &args.draft, at)
}

/// The leaf hash of a record that this node holds; tells what the record says.
async fn leaf_of(origin: Origin, seq: Seq, index: u32, at: &Invocation) -> Result<[u8; 32], Failure> {
    let fix = "staydown run, or --leaf-hash HASH with what staydown log record shows at a node";
    let node = at.node().await.map_err(|failure| failure.fix(fix))?;
    let (member_id, log_no) = (origin.member.0.to_vec().into(), origin.log_no.0);
    let request = local::GetRecordRequest { member_id, log_no, seq: seq.0, index };
    let receipt = node.record(request).await?.receipt.unwrap_or_default();
    if receipt.record.is_empty() {
        return Err(Failure::new(Exit::Refused, "the record has been erased already"));
    }
    if matches!(record::parse(&receipt.record), record::Parsed::Says(record::Statement::LogClose)) {
        let why = "this record says that its log ends, and nothing else: no node erases it";
        return Err(Failure::new(Exit::Refused, why));
    }
    at.terminal.talk(format!("the record: {}", says(&receipt.record)));
    Ok(merkle::leaf_hash(&receipt.record))
}

/// What a record says, in a few words.
pub(in crate::cli) fn says(bytes: &[u8]) -> String {
    match record::parse(bytes) {
        record::Parsed::Says(record::Statement::Opinion(opinion)) => {
            format!("{:?} of {}", opinion.stance, opinion.subject)
        }
        record::Parsed::Says(other) => show::clean(&format!("{other:?}").chars().take(200).collect::<String>()),
        record::Parsed::Inert(why) => format!("without effect: {why}"),
    }
}

/// A log that forks: which branch the cutoff names is worth a look.
fn warn_of_forks(file: &CharterFile, who: &str, ends: &[LogEnd], at: &Invocation) -> Result<(), Failure> {
    let charter = drafting::body(file)?;
    let member = &charter.members[governing::position(&charter, who)?];
    for end in ends.iter().filter(|end| end.origin.member.0 == member.id[..] && end.forked_at > 0) {
        at.terminal.talk(format!(
            "warning: log {} of {} forks at block {}: nothing from there on counts, whatever the cutoff says",
            end.origin.log_no.0, member.name, end.forked_at
        ));
    }
    Ok(())
}

fn written(begun: &CharterFile, new: &CharterFile, draft: &DraftArgs, at: &Invocation) -> Outcome {
    let out = draft.out(new, at)?;
    finish(begun, new, &out, at)
}

/// Writes the proposal, and says what it changes, what was lost, and who goes on.
pub(super) fn finish(begun: &CharterFile, new: &CharterFile, out: &Path, at: &Invocation) -> Outcome {
    new.write(out)?;
    told_file(out, at)?;
    if !new.before.is_empty() {
        differences(new)?.iter().for_each(|line| at.terminal.talk(format!("  {line}")));
        warnings(new)?.iter().for_each(|line| at.terminal.talk(format!("warning: {line}")));
    }
    let had = begun.proposed.sigs.len();
    if had > 0 {
        let signatures = if had == 1 { "1 signature was".to_owned() } else { format!("{had} signatures were") };
        at.terminal.talk(format!("{signatures} made for the charter as it was: gone"));
    }
    let threshold = Standing::of(new)?.threshold;
    at.terminal
        .talk(format!("Next, by {threshold} founders: staydown charter sign {} --key FOUNDER_KEY", out.display()));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_level_names_whom_it_would_leave_behind_and_who_was_not_heard() {
        let peer = |member: &str, semantics_max| local::PeerState {
            member: member.to_owned(),
            semantics_max,
            ..Default::default()
        };
        assert_eq!(left_behind(2, &[peer("bolt", 2), peer("cyan", 3)]), "every peer's release understands level 2");
        let told = left_behind(3, &[peer("acme", 3), peer("bolt", 2), peer("cyan", 0)]);
        assert!(told.contains("too new for bolt, whose") && told.contains("start: cyan;"), "{told}");
    }

    #[test]
    fn sizes_and_places_are_read_as_people_write_them() {
        let sizes = ["8GiB", "500 MiB", "1KiB", "77"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [8 << 30, 500 << 20, 1 << 10, 77]);
        for wrong in ["", "GiB", "-1", "+1", "8GB", "1.5GiB", "99999999999GiB"] {
            assert_eq!(size(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
        assert_eq!(place("acme/0@12").unwrap(), ("acme", LogNo(0), Seq(12)));
        for wrong in ["", "acme", "acme/0", "acme@1", "acme/x@1", "acme/0@"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
