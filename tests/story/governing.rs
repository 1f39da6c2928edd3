//! A forum governs itself: companies come, are suspended, come back and go, rules and founders change; each by a file
//! that two founders sign, applied at one node and seen at the others.

use std::fs;

use serde_json::Value;

use crate::world::{Company, Forum, Ran, hash, program, run, wait_for};

/// Draws up the next charter with a command at `company`, signs it by the founders of `signers`, applies it there, and
/// waits until the first three companies have it, but for one that the command names. Returns what `charter show --diff` says of it.
#[track_caller]
fn enact(forum: &Forum, company: usize, version: u64, command: &[&str], signers: &[&str]) -> String {
    let file = forum.path(&format!("charter-{version}.sdc"));
    let at = &forum.companies[company];
    let told = at.does(&[&["charter"], command, &["-o", &file]].concat());
    assert!(told.err.contains("staydown charter sign"), "the next step is told: {told:?}");
    let shown = run(&["charter", "show", &file, "--diff"]).ends_with(0).out;
    let early = at.run(&["charter", "apply", &file]).ends_with(6);
    assert!(early.err.contains("does not count yet"), "{early:?}");
    for name in signers {
        let key = forum.path(&format!("founder-{name}.pem"));
        let signed = run(&["charter", "sign", &file, "--key", &key]).ends_with(0);
        assert!(signed.err.contains("Changes\n  ~ "), "a founder sees what changes: {signed:?}");
    }
    assert_eq!(at.does(&["charter", "apply", &file, "--json"]).json()["version"], version);
    // Who goes is cut off before it hears of that.
    for company in forum.companies[..3].iter().filter(|company| !command.contains(&company.name.as_str())) {
        wait_for(&format!("charter {version} at {}", company.name), || {
            (company.status()["charter_version"] == version).then_some(())
        });
    }
    shown
}

#[track_caller]
fn member(at: &Company, name: &str) -> Value {
    at.does(&["member", "show", name, "--json"]).json()
}

const TWO: &[&str] = &["acme", "cyan"];

#[test]
fn a_forum_governs_itself_by_files_that_two_founders_sign() {
    let mut forum = Forum::found(3);
    forum.join();
    let value = |n: u64| format!("sha256:{}", hash(n));

    // A fourth company, with a word that others will judge without it.
    let fingerprint = forum.fingerprint.clone();
    let mut delta = Company::new(forum.folder.path(), "delta");
    let request = delta.init(&["--forum", &fingerprint], "Delta", "DE");
    let told = enact(&forum, 0, 2, &["admit", request.to_str().unwrap()], TWO);
    assert!(told.contains("+ member delta (group Delta; DE)  SMALL"), "{told}");
    let invitation = forum.path("invite-2.sdi");
    forum.companies[1].does(&["charter", "invite", "--out", &invitation]);
    delta.start(&["join", &invitation, "--forum", &fingerprint]);
    delta.ready(3);
    delta.does(&["submit", &value(1), "--label", "symbol"]);
    forum.companies.push(delta);
    forum.agree();

    // Its role, and a rule; on one machine two changes into one file.
    let file = forum.path("charter-3.sdc");
    let told = enact(&forum, 1, 3, &["set-role", "delta", "--role", "full,steward"], &["bolt", "cyan"]);
    assert!(told.contains("~ member delta: roles: SMALL becomes FULL+STEWARD"), "{told}");
    let told = enact(&forum, 2, 4, &["set-policy", "--contest-quorum", "3", "--after", &file], TWO);
    assert!(told.contains("~ policy: a subject is contested by 3 groups instead of 2"), "{told}");
    assert_eq!(member(&forum.companies[0], "delta")["roles"], serde_json::json!(["FULL", "STEWARD"]));
    let listed = forum.companies[2].does(&["member", "list"]).out;
    assert!(listed.contains("delta") && listed.contains("FULL+STEWARD") && listed.contains("ACTIVE"), "{listed}");

    // Suspended: cut off, and cut where it was.
    let told = enact(&forum, 0, 5, &["suspend", "delta"], TWO);
    for expected in [
        "~ member delta is suspended: its connections end within a second",
        "~ member delta: its log 0 counts up to block 1 (hash ",
        "~ member delta: logs that it has not opened yet (1..15) do not count",
        "warning: delta is a steward",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    wait_for("delta is cut off", || (forum.companies[0].status()["peers_connected"] == 2).then_some(()));
    let shown = member(&forum.companies[1], "delta");
    assert_eq!((&shown["status"], &shown["cutoffs"][0]["last_seq"]), (&"SUSPENDED".into(), &1.into()));
    forum.companies[1].does(&["match", &value(1)]);

    // And back: a node that starts anew finds out.
    let told = enact(&forum, 1, 6, &["reinstate", "delta"], TWO);
    assert!(told.contains("~ member delta belongs again"), "{told}");
    assert!(told.contains("may open its logs 1..15 again"), "{told}");
    let mut delta = forum.companies.pop().unwrap();
    delta.kill();
    delta.start(&["run"]);
    wait_for("delta learns that it is back", || {
        let ran = delta.run(&["status", "--json"]);
        (ran.code == Some(0) && ran.json()["charter_version"] == 6).then_some(())
    });
    delta.stop();

    // Expelled on a machine without a node: the heads are carried there, and so is the charter.
    let (heads, last) = (forum.path("heads.json"), forum.path("charter-6.sdc"));
    fs::write(&heads, forum.companies[2].does(&["log", "heads", "--json"]).out).unwrap();
    let command = ["expel", "delta", "--keep", "--reason", "key-compromise", "--after", &last, "--heads", &heads];
    let told = enact(&forum, 0, 7, &command, TWO);
    assert!(told.contains("~ member delta is a former member"), "{told}");
    assert!(told.contains("what it said until then counts on (KEEP), reason key-compromise"), "{told}");
    forum.companies[1].does(&["match", &value(1)]);
    let told = enact(&forum, 0, 8, &["expel", "delta", "--void", "--reason", "mistake"], TWO);
    assert!(told.contains("nothing that it ever said counts (VOID), reason mistake"), "{told}");
    for company in &forum.companies {
        wait_for("its word is gone", || (company.run(&["match", &value(1)]).code == Some(3)).then_some(()));
    }
    let shown = member(&forum.companies[1], "delta");
    assert_eq!((&shown["status"], &shown["expelled"]["policy"]), (&"FORMER".into(), &"VOID".into()));
    forum.companies[0].run(&["charter", "admit", request.to_str().unwrap(), "-o", &forum.path("x.sdc")]).ends_with(4);

    // Validity, a lost founder's key, and the opening of a log, which stays.
    enact(&forum, 2, 9, &["renew", "--days", "100"], TWO);
    let status = forum.companies[1].status();
    let days = (status["charter_valid_until_ms"].as_u64().unwrap() - status["charter_issued_ms"].as_u64().unwrap())
        / 86_400_000;
    assert_eq!(days, 100);
    let (new, old) = (forum.path("founder-new.pem"), founder_id(&forum, "bolt"));
    run(&["charter", "key", &new, "--no-passphrase"]).ends_with(0);
    let told = enact(&forum, 0, 10, &["rotate-founder", &old[..12], &format!("{new}.pub")], TWO);
    assert!(told.contains("+ founder ") && told.contains(&format!("- founder {old}")), "{told}");
    enact(&forum, 1, 11, &["renew", "--days", "400"], &["acme", "new"]);
    let told = forum.companies[0].run(&["charter", "erase", "acme/0@1", "0", "--reason", "other"]).ends_with(4);
    assert!(told.err.contains("opens the log"), "{told:?}");

    // One goes on its own wish; all that it said stays.
    forum.companies[1].does(&["submit", &value(2), "--label", "symbol"]);
    forum.agree();
    if staydown::replica::charter::SEMANTICS_MAX >= 2 {
        let (file, acme) = (forum.path("erasing.sdc"), &forum.companies[0]);
        acme.does(&["charter", "set-semantics", "2", "-o", &file]);
        let command = ["charter", "erase", "bolt/0@1", "1", "--reason", "court-or-law", "--into", &file];
        let told = acme.does(&command).err;
        assert!(told.contains("~ record 1 of block bolt/0@1 is erased everywhere, for ever"), "{told}");
        let leaf = acme.does(&["log", "record", "bolt/0@1", "1", "--json"]).json()["leaf_hash"].clone();
        assert!(told.contains(&leaf.as_str().unwrap()[..16]), "{told}");
    }
    let told = enact(&forum, 0, 12, &["leave", "cyan"], TWO);
    assert!(told.contains("warning: cyan has been here since the forum was founded"), "{told}");
    forum.companies[0].does(&["match", &value(2)]);
    forum.companies[2].does(&["charter", "apply", &forum.path("charter-12.sdc")]);
    assert_eq!(member(&forum.companies[2], "cyan")["status"], "FORMER");
    forum.companies[0].does(&["log", "verify"]);
}

/// The key id of a founder, from its public file.
fn founder_id(forum: &Forum, name: &str) -> String {
    let key = staydown::wire::files::read_founder(forum.path(&format!("founder-{name}.pem.pub")).as_ref()).unwrap();
    staydown::replica::ids::KeyId::of(key.as_bytes()).to_string()
}

/// A command line with `@name` for a file of the folder, the exit code, and what must be said.
type Case = (&'static str, i32, &'static [&'static str]);

const AT_A_NODE: &[Case] = &[
    ("charter suspend echo -o @x.sdc", 3, &["no member \"echo\"", "acme", "staydown member list"]),
    ("charter suspend acme -o @draft.sdc", 4, &["draft.sdc is already there", "-o"]),
    ("charter suspend acme --into @none.sdc", 65, &["none.sdc"]),
    ("charter suspend acme --into @draft.sdc", 4, &["founding draft", "charter found"]),
    ("charter suspend acme --after @junk.sdc -o @x.sdc", 65, &["junk.sdc"]),
    ("charter suspend acme --heads @none.json -o @x.sdc", 65, &["none.json", "log heads --json"]),
    ("charter suspend acme --heads @junk.json -o @x.sdc", 65, &["junk.json", "log heads --json"]),
    ("charter suspend acme --heads @other.json -o @x.sdc", 4, &["another forum", "0000", "@FORUM"]),
    ("charter suspend acme --heads @torn.json -o @x.sdc", 65, &["log 0", "damaged"]),
    ("charter reinstate acme -o @x.sdc", 4, &["neither suspended nor gone"]),
    ("charter expel acme --reason other", 2, &["--keep|--void"]),
    ("charter expel acme --keep --reason spite -o @x.sdc", 2, &["--reason", "spite", "court-or-law"]),
    ("charter leave acme --reason spite -o @x.sdc", 2, &["--reason", "spite"]),
    ("charter set-role acme --role FOOL -o @x.sdc", 2, &["--role", "FOOL", "FULL, SMALL"]),
    ("charter set-role acme --role REFERRAL,FULL -o @x.sdc", 2, &["--role", "AUDITOR"]),
    ("charter set-role acme --role FULL -o @x.sdc", 4, &["nothing would change"]),
    ("charter set-policy -o @x.sdc", 2, &["no number is given", "--help"]),
    ("charter set-policy --retract-min 0 -o @x.sdc", 2, &["--retract-min: got 0"]),
    ("charter set-policy --retract-permille 1001 -o @x.sdc", 2, &["got 1001, expected 1 to 1000"]),
    ("charter set-policy --quota-bulk 0 -o @x.sdc", 2, &["--quota-bulk: got 0"]),
    ("charter set-policy --log-bytes-max 8GB -o @x.sdc", 2, &["--log-bytes-max", "8GB", "8GiB"]),
    ("charter set-policy --stale-grace 99999 -o @x.sdc", 2, &["--stale-grace: got 99999"]),
    ("charter set-policy --auditors-attest maybe", 2, &["--auditors-attest", "maybe"]),
    ("charter set-semantics 0 -o @x.sdc", 2, &["LEVEL: got 0"]),
    ("charter set-semantics 9 -o @x.sdc", 2, &["LEVEL: got 9", "every member needs one first"]),
    ("charter set-member acme -o @x.sdc", 2, &["nothing to change is given"]),
    ("charter set-member acme --jurisdiction France -o @x.sdc", 2, &["--jurisdiction", "France", "FR"]),
    ("charter set-member acme --language f -o @x.sdc", 2, &["--language", "BCP 47"]),
    ("charter set-member acme --endpoint acme -o @x.sdc", 2, &["--endpoint", "port is missing"]),
    ("charter set-member acme --log-limit 9000 -o @x.sdc", 4, &["9000 logs", "8192"]),
    ("charter set-member acme --drop-pin 00000000 -o @x.sdc", 3, &["--drop-pin", "pins of acme"]),
    ("charter renew --days 0 -o @x.sdc", 2, &["--days: got 0"]),
    ("charter cutoff acme 0", 2, &["--at"]),
    ("charter cutoff acme 0 --at 1 --hash 00 -o @x.sdc", 2, &["--hash", "64 hexadecimal digits"]),
    ("charter cutoff acme 3 --now -o @x.sdc", 3, &["log 3 of acme", "staydown log heads"]),
    ("charter cutoff acme 16 --at 1 --hash @ZERO -o @x.sdc", 2, &["LOG: got 16", "below 16"]),
    ("charter erase acme/0 1 --reason other -o @x.sdc", 2, &["MEMBER/LOG@SEQ", "acme/0@12"]),
    ("charter erase acme/0@1 0 --reason other -o @x.sdc", 4, &["opens the log"]),
    ("charter erase acme/0@1 512 --reason other -o @x.sdc", 2, &["got record 512"]),
    ("charter erase acme/0@1 1 --reason spite -o @x.sdc", 2, &["--reason", "spite"]),
    ("charter rotate-founder 00000000 @none.pub -o @x.sdc", 65, &["none.pub"]),
    ("charter rotate-founder 00000000 @founder-acme.pem.pub -o @x.sdc", 3, &["founders are "]),
    ("charter set-founders -o @x.sdc", 2, &["nothing to change is given"]),
    ("charter set-founders --threshold 9 -o @x.sdc", 2, &["threshold of 9", "more than half"]),
    ("charter set-founders --remove 00000000 -o @x.sdc", 3, &["founders are "]),
    ("charter set-founders --add @founder-acme.pem.pub -o @x.sdc", 4, &["founder's already"]),
    ("charter admit @acme.sdj --new-key -o @x.sdc", 4, &["--new-key", "is the one that the charter has"]),
    ("member show echo", 3, &["no member \"echo\"", "staydown member list"]),
    ("log heads echo", 3, &["echo", "staydown member list"]),
    ("log record acme/0@99 0", 3, &["is not held here"]),
    ("log record acme/0@1 99", 3, &["got record 99"]),
    ("log record acme 0", 2, &["MEMBER/LOG@SEQ"]),
];

const WITHOUT_A_NODE: &[Case] = &[
    ("charter suspend acme -o @x.sdc", 5, &["cannot be reached", "--after"]),
    ("charter suspend acme --after @draft.sdc -o @x.sdc", 5, &["cannot be reached", "--heads FILE"]),
    ("member list", 5, &["cannot be reached", "staydown run"]),
    ("log heads", 5, &["staydown run"]),
    ("log record acme/0@1 0", 5, &["staydown run"]),
];

/// Runs a case, as text and as JSON. Returns what is wrong with its end.
fn complaint((line, code, told): &Case, forum: &Forum, data: &str) -> Option<String> {
    let filled = |text: &str| text.replace("@FORUM", &forum.fingerprint).replace("@ZERO", &"0".repeat(64));
    let word = |word: &str| filled(word).strip_prefix('@').map_or(filled(word), |name| forum.path(name));
    let arguments: Vec<_> = line.split(' ').map(word).collect();
    let ran = |json: &[&str]| Ran::of(program().args(["--data", data]).args(json).args(&arguments), b"");
    let text = ran(&[]);
    if text.code != Some(*code) || told.iter().any(|word| !text.err.contains(&filled(word))) || !text.out.is_empty() {
        return Some(format!("{line}: expected {code} and {told:?}, got {text:?}"));
    }
    let json = ran(&["--json"]);
    let value: Value = serde_json::from_str(&json.out).unwrap_or_default();
    let same = json.code == Some(*code) && value["error"]["exit_code"] == *code;
    (!same).then(|| format!("{line} --json: expected {code}, got {json:?}"))
}

#[test]
fn every_mistake_in_governing_is_told_with_its_place_and_writes_no_file() {
    let mut forum = Forum::found(1);
    forum.join();
    forum.companies[0].does(&["submit", &format!("sha256:{}", hash(1)), "--label", "symbol"]);
    let write = |name: &str, text: &str| fs::write(forum.path(name), text).unwrap();
    write("junk.sdc", "-----BEGIN STAYDOWN CHARTER-----\nAAAA\n");
    write("junk.json", "{\"heads\":[]}");
    let heads = forum.companies[0].does(&["log", "heads", "--json"]).out;
    write("other.json", &heads.replace(&forum.fingerprint, &"0".repeat(64)));
    write("torn.json", &heads.replace("\"header_hash\":\"", "\"header_hash\":\"0"));

    let (nobody, data) = (forum.path("nobody"), forum.companies[0].data.to_str().unwrap().to_owned());
    let mut complaints: Vec<_> = AT_A_NODE.iter().filter_map(|case| complaint(case, &forum, &data)).collect();
    complaints.extend(WITHOUT_A_NODE.iter().filter_map(|case| complaint(case, &forum, &nobody)));
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
    assert!(!fs::exists(forum.path("x.sdc")).unwrap() && !fs::exists(&nobody).unwrap());
    assert_eq!(forum.companies[0].status()["charter_version"], 1);

    // The whole of a good one: two changes in one file, and what is lost by the second.
    let file = forum.path("good.sdc");
    let acme = &forum.companies[0];
    acme.does(&["charter", "renew", "--days", "9", "-o", &file]);
    run(&["charter", "sign", &file, "--key", &forum.path("founder-acme.pem")]).ends_with(0);
    let told = acme.does(&["charter", "set-policy", "--log-bytes-max", "9GiB", "--into", &file]);
    assert!(told.err.contains("1 signature was made for the charter as it was: gone"), "{told:?}");
    let shown = run(&["charter", "show", &file, "--diff", "--json"]).ends_with(0).json();
    assert_eq!((shown["version"].as_u64(), shown["changes"].as_array().unwrap().len()), (Some(2), 2));
    assert_eq!(shown["signed"].as_array().unwrap().len(), 0);
}
