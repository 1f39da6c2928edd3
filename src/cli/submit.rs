//! `submit`: hashes are signed and shared. A file is hashed here and stays here.

use std::path::PathBuf;

use clap::Args;

use super::backfill::Job;
use super::failure::{Exit, Failure, Outcome};
use super::item::{Hash, Item};
use super::list::check;
use super::rows::Format;
use super::{Invocation, backfill, show, taxonomy};
use crate::answers;
use crate::clock;
use crate::replica::block::PAYLOAD_SIZE_MAX;
use crate::replica::ids::{TimeMs, sha256};
use crate::replica::own::RECORDS_PER_SUBMISSION_MAX;
use crate::replica::signal::Alg;
use crate::replica::{record, signal};
use crate::wire::files::is_language;
use crate::wire::local;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["items", "account", "url", "from"]))]
pub(super) struct SubmitArgs {
    /// Files (all their hashes, as one item each), hashes as in sha256:..., or pages as in https://...
    #[arg(value_name = "FILE|HASH|URL")]
    items: Vec<String>,
    /// A page, with its query; or everything below a directory, as in example.org/videos/; may be repeated
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Everything on the host that --url names, and on those below it: it matches when a second full member says so, too
    #[arg(long)]
    whole_host: bool,
    /// An account instead, where the forum lists accounts: as in example-video:4711; it needs --expires; may be repeated
    #[arg(long, value_name = "PLATFORM:ID")]
    account: Vec<String>,
    /// Thousands at once, as one batch: a table with the columns type,value,labels,languages,severity,expires,quality, or
    /// JSON lines with these names
    #[arg(long, value_name = "FILE.csv|FILE.jsonl")]
    from: Option<PathBuf>,
    /// Format of the file [default: by its name]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Name of the batch, so that another file goes on with it [default: what is in the file]
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    /// Write the rows that are refused into this file, to be mended and sent again; why, into FILE.reasons
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Only read the file and list what is wrong in it; needs no node
    #[arg(long)]
    check: bool,
    /// Label of the taxonomy; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// 1 low .. 4 imminent threat to life
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=4))]
    severity: u32,
    /// Language of what was posted, as in fr or pt-BR; may be repeated
    #[arg(long, value_name = "TAG")]
    language: Vec<String>,
    /// When it ends: 2027-01-31, 90d, 12h, never
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    expires: String,
    /// The attack that it belongs to (32 hexadecimal digits); takes the urgent lane
    #[arg(long, value_name = "ID", conflicts_with = "bulk")]
    incident: Option<String>,
    /// How sure our company is, in percent
    #[arg(long, value_name = "1..100", value_parser = clap::value_parser!(u32).range(1..=100))]
    confidence: Option<u32>,
    /// What it rests on: human-review, automated, court-order, referral, other-member
    #[arg(long, value_name = "NAME")]
    basis: Option<String>,
    /// When our company wants to look at it again: 2027-01-31, 90d
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    review: String,
    /// Take the bulk lane, which yields to the others
    #[arg(long)]
    bulk: bool,
    /// PDQ quality of a pdq hash that is given as a hash
    #[arg(long, value_name = "0..100", value_parser = clap::value_parser!(u32).range(0..=100))]
    quality: Option<u32>,
    /// List videos by their digests only, not by their frames
    #[arg(long, conflicts_with = "from")]
    no_frames: bool,
    /// Wait until so many peers hold it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    wait_peers: u32,
    /// 32 hexadecimal digits of your own: the same submission again is answered with the first receipts
    #[arg(long, value_name = "KEY", conflicts_with = "from")]
    client_key: Option<String>,
}

/// Bytes of one submission: its records go into one block's payload.
const SUBMISSION_BYTES_MAX: usize = PAYLOAD_SIZE_MAX - 4_096;
/// Bytes of a record beside the hash, in a usual statement: 511 of the longest digests are one submission.
const STATEMENT_BYTES_MAX: usize = 396;

/// What a submission says of each of its hashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    pub(super) labels: Vec<String>,
    pub(super) languages: Vec<String>,
    pub(super) severity: u32,
    pub(super) expires: TimeMs,
    pub(super) incident: Vec<u8>,
    pub(super) confidence: u32,
    pub(super) basis: u32,
    pub(super) review: TimeMs,
    /// `expires` and `review` as they are written: a span means another moment each time it is read.
    pub(super) expires_as: String,
    pub(super) review_as: String,
}

pub(super) async fn submit(args: &SubmitArgs, at: &Invocation) -> Outcome {
    let terms = terms(args, clock::now())?;
    let key = client_key(args)?;
    if let Some(path) = &args.from {
        let lane = if args.incident.is_some() { local::Lane::Urgent } else { local::Lane::Bulk };
        let job = Job {
            path,
            format: Format::of(args.format, path)?,
            labels: &taxonomy::of_this_place(at).await?,
            defaults: &terms,
            quality: args.quality,
            lane,
            batch: args.batch.as_deref(),
            rejected: args.rejected.as_deref(),
        };
        return if args.check { backfill::check(&job, at) } else { Box::pin(backfill::backfill(&job, at)).await };
    }
    if args.format.is_some() || args.batch.is_some() || args.rejected.is_some() || args.check {
        let cause = "--format, --batch, --rejected and --check are about a file: --from is missing";
        return Err(Failure::new(Exit::Usage, cause).fix("staydown submit --from FILE.csv"));
    }
    if terms.labels.is_empty() {
        return Err(Failure::new(Exit::Usage, "--label is missing").fix("staydown taxonomy show"));
    }
    let mut items = args.items.iter().map(|item| Item::read(item)).collect::<Result<Vec<_>, _>>()?;
    for url in &args.url {
        items.push(Item::address(url)?);
    }
    check_hosts(&items, args.whole_host)?;
    items.extend(args.account.iter().map(|account| Item::account(account)));
    if terms.expires == TimeMs(0) && items.iter().any(Item::is_account) {
        let failure = Failure::new(Exit::Usage, "--expires is missing: what is said of an account ends");
        return Err(failure.culprit("people change, and so do the owners of accounts").fix("--expires 90d"));
    }
    let statements = statements(&items, &terms, (args.quality, !args.no_frames), key, at)?;
    let lane = match (&args.incident, args.bulk) {
        (Some(_), _) => local::Lane::Urgent,
        (None, true) => local::Lane::Bulk,
        (None, false) => local::Lane::Normal,
    };
    let node = at.node().await?;
    let mut told = local::SubmitResponse::default();
    for statements in in_submissions(statements) {
        let request =
            local::SubmitRequest { statements, lane: lane as i32, wait_peers: args.wait_peers, wait_timeout_ms: 0 };
        let answer = node.submit(request).await?;
        let receipts = [std::mem::take(&mut told.receipts), answer.receipts.clone()].concat();
        told = local::SubmitResponse { receipts, ..answer };
    }
    print_answer(told, at)?;
    Ok(Exit::Ok)
}

/// Refuses a whole host where none was meant, for it is written like its first page, and one on which everybody publishes.
fn check_hosts(items: &[Item], whole_host: bool) -> Result<(), Failure> {
    if let Some(host) = items.iter().find(|item| item.is_too_broad()) {
        let refusal = signal::GuardRefusal::HostTooBroad;
        return Err(Failure::new(Exit::Usage, format!("{}: {refusal} ({})", host.name(), refusal.code())));
    }
    let Some(host) = items.iter().find(|item| item.is_whole_host()).filter(|_| !whole_host) else { return Ok(()) };
    let failure = Failure::new(Exit::Usage, format!("{} is a whole host: --whole-host is missing", host.name()));
    Err(failure
        .culprit("to list it is to list every page on it and on the hosts below it")
        .fix("name the page or the directory, as in --url 'example.org/videos/', or give --whole-host"))
}

fn terms(args: &SubmitArgs, now: TimeMs) -> Result<Terms, Failure> {
    if let Some(tag) = args.language.iter().find(|tag| !is_language(tag)) {
        return Err(Failure::new(
            Exit::Usage,
            format!("--language: got {tag:?}, expected a BCP 47 tag, as in fr or pt-BR"),
        ));
    }
    let wrong = |flag: &'static str| move |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"));
    let incident = args.incident.as_deref().map(show::sixteen_bytes).transpose().map_err(wrong("--incident"))?;
    Ok(Terms {
        labels: args.label.clone(),
        languages: args.language.clone(),
        severity: args.severity,
        expires: show::moment(&args.expires, now).map_err(wrong("--expires"))?,
        incident: incident.map(|id| id.to_vec()).unwrap_or_default(),
        confidence: args.confidence.unwrap_or(0),
        basis: basis(args.basis.as_deref())?,
        review: show::moment(&args.review, now).map_err(wrong("--review"))?,
        expires_as: args.expires.clone(),
        review_as: args.review.clone(),
    })
}

fn client_key(args: &SubmitArgs) -> Result<Option<[u8; 16]>, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--client-key: {why}"));
    args.client_key.as_deref().map(show::sixteen_bytes).transpose().map_err(wrong)
}

/// The number of a basis; 0 when none is given.
pub(super) fn basis(name: Option<&str>) -> Result<u32, Failure> {
    let known = record::BASES.map(|(_, name)| name);
    check("--basis", name, |name| known.contains(&name), &known)?;
    Ok(name.and_then(basis_number).unwrap_or(0))
}

/// The number of a basis, if the name is one.
pub(super) fn basis_number(name: &str) -> Option<u32> {
    record::code(&record::BASES, name)
}

/// One statement a hash; the hashes of one file share an item id. All are accepted, or none is.
fn statements(
    items: &[Item],
    terms: &Terms,
    (quality, frames): (Option<u32>, bool),
    key: Option<[u8; 16]>,
    at: &Invocation,
) -> Result<Vec<local::Statement>, Failure> {
    let mut statements = Vec::new();
    for item in items {
        item.tell_of_video(at);
        let item_id = item_id(item, key.as_ref());
        let hashes = item.hashes().into_iter();
        for hash in hashes.filter(|hash| frames || hash.type_name != Alg::Vpdq.name()) {
            if hash.is_poor() {
                at.terminal
                    .talk(format!("{}: its picture has too little in it; only its digests are listed", item.name()));
                continue;
            }
            let hash = Hash { quality: hash.quality.or(quality), ..hash };
            let key = key.map_or_else(clock::random, |key| derived_key(&key, &hash, terms));
            statements.push(statement(&hash, terms, key, item_id.as_deref()));
        }
    }
    if statements.len() > RECORDS_PER_SUBMISSION_MAX {
        let cause = format!("{} hashes at once, at most {RECORDS_PER_SUBMISSION_MAX} are accepted", statements.len());
        return Err(Failure::new(Exit::Usage, cause).fix("staydown submit --from FILE.csv"));
    }
    Ok(statements)
}

/// Statements in submissions that are not too large, in order: one, but for the records of hours of video. They belong
/// together by their item id, not by standing in one block.
fn in_submissions(statements: Vec<local::Statement>) -> Vec<Vec<local::Statement>> {
    let bytes = |statement: &local::Statement| {
        statement.signal.as_ref().map_or(0, |signal| signal.value.len() / 2) + STATEMENT_BYTES_MAX
    };
    let (mut parts, mut room) = (Vec::new(), 0);
    for statement in statements {
        if parts.is_empty() || room < bytes(&statement) {
            parts.push(Vec::new());
            room = SUBMISSION_BYTES_MAX;
        }
        room -= bytes(&statement);
        if let Some(part) = parts.last_mut() {
            part.push(statement);
        }
    }
    parts
}

/// Of a file, one from which nobody can tell which file it was; none for a lone hash. Random, but for a client key: records
/// of a long video that a first run has sent and those of a second must be the same video's.
fn item_id(item: &Item, key: Option<&[u8; 16]>) -> Option<Vec<u8>> {
    let Item::File(_, hashes) = item else { return None };
    let derived = |key: &[u8; 16]| sha256(&[b"staydown/item-id/v1\n", key, &hashes.digests.sha256])[..16].to_vec();
    Some(key.map_or_else(|| clock::random::<16>().to_vec(), derived))
}

/// What is said of one hash.
pub(super) fn statement(hash: &Hash, terms: &Terms, key: [u8; 16], item_id: Option<&[u8]>) -> local::Statement {
    local::Statement {
        signal: Some(hash.signal()),
        stance: local::Stance::Submit as i32,
        labels: terms.labels.clone(),
        languages: terms.languages.clone(),
        severity: terms.severity,
        expires_ms: terms.expires.0,
        incident_id: terms.incident.clone().into(),
        quality: hash.quality.unwrap_or(0),
        client_key: key.to_vec().into(),
        item_id: item_id.unwrap_or_default().to_vec().into(),
        confidence: terms.confidence,
        basis: terms.basis,
        review_ms: terms.review.0,
        ..Default::default()
    }
}

/// The same key for the same statement: submitting twice says it once. `base` tells one backfill from another.
pub(super) fn derived_key(base: &[u8; 16], hash: &Hash, terms: &Terms) -> [u8; 16] {
    let mut said = format!(
        "{hash}\n{:?}\n{}\n{}\n{}\n{:?}\n{:?}",
        hash.quality,
        terms.labels.join(","),
        terms.languages.join(","),
        terms.severity,
        terms.expires,
        terms.incident
    );
    // Only where they are given: keys that were derived before there were such terms stay the same.
    let later = (terms.confidence, terms.basis, terms.review);
    if later != Default::default() {
        said.push_str(&format!("\n{later:?}"));
    }
    let digest = sha256(&[b"staydown/client-key/v1\n", base, said.as_bytes()]);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// What became of a submission.
pub(super) fn print_answer(answer: local::SubmitResponse, at: &Invocation) -> Result<(), Failure> {
    if at.terminal.json {
        return at.terminal.json(&answers::Submitted::from(answer));
    }
    if answer.state() == local::SubmitState::Queued {
        at.terminal.talk("queued: stored, and signed as soon as peers have confirmed our logs (see staydown status)");
    }
    for receipt in &answer.receipts {
        at.terminal.data(format!("log {} block {} record {}", receipt.log_no, receipt.seq, receipt.index))?;
    }
    if answer.wait_timed_out {
        at.terminal.talk(format!("durable here; only {} peers hold it so far", answer.peers_holding));
    } else if answer.peers_holding > 0 {
        at.terminal.talk(format!("held by {} peers", answer.peers_holding));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> Hash {
        Hash { type_name: "md5".to_owned(), value: "00".repeat(16), quality: None }
    }

    #[test]
    fn hours_of_video_are_several_submissions_and_all_else_is_one() {
        let statements = |count: usize, digits: usize| {
            let signal = local::Signal { r#type: "vpdq".to_owned(), value: "0".repeat(digits) };
            vec![local::Statement { signal: Some(signal), ..Default::default() }; count]
        };
        let parts = |count, digits| in_submissions(statements(count, digits)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(parts(63, 7_400), [63]);
        assert_eq!(parts(144, 7_400), [63, 63, 18]);
        assert_eq!(parts(RECORDS_PER_SUBMISSION_MAX, 128), [RECORDS_PER_SUBMISSION_MAX]);
        assert!(in_submissions(Vec::new()).is_empty());
    }

    #[test]
    fn a_file_keeps_its_item_id_in_a_second_run_with_its_client_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join(text);
            std::fs::write(&path, text).unwrap();
            Item::of_file(&path).unwrap()
        };
        let (one, key) = (file("one"), Some(&[1; 16]));
        assert_eq!(item_id(&one, key), item_id(&file("one"), key));
        assert_ne!(item_id(&one, key), item_id(&one, Some(&[2; 16])));
        assert_ne!(item_id(&one, key), item_id(&file("two"), key));
        assert_ne!(item_id(&one, None), item_id(&one, None));
        assert_eq!(item_id(&Item::read("md5:900150983cd24fb0d6963f7d28e17f72").unwrap(), key), None);
    }

    #[test]
    fn a_derived_key_is_the_same_for_the_same_statement_only() {
        let terms = Terms { labels: vec!["symbol".to_owned()], ..Terms::default() };
        let key = derived_key(&[0; 16], &hash(), &terms);
        assert_eq!(key, derived_key(&[0; 16], &hash(), &terms.clone()));
        assert_ne!(key, derived_key(&[1; 16], &hash(), &terms));
        assert_ne!(key, derived_key(&[0; 16], &hash(), &Terms { severity: 2, ..terms.clone() }));
        assert_ne!(key, derived_key(&[0; 16], &hash(), &Terms { basis: 2, ..terms.clone() }));
        assert_ne!(key, derived_key(&[0; 16], &Hash { quality: Some(60), ..hash() }, &terms));
    }
}
