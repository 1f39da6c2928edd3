//! The chapters of docs/operating.md on stolen log keys and on copies of a node, gone through with real nodes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::drills::{enact, health_is, item, matches, says, version_is};
use crate::world::{Company, Forum, wait_for};

/// Copies a data directory, but for the lock and the socket.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A second node with everything that the first one has, at another address.
fn clone_of(forum: &Forum, company: &Company, name: &str) -> Company {
    let second = Company::new(forum.folder.path(), name);
    copy(&company.data, &second.data);
    fs::write(
        second.data.join("staydown.toml"),
        format!("[peer]\nlisten = \"{}\"\n[web]\nlisten = \"127.0.0.1:0\"\n", second.address),
    )
    .unwrap();
    second
}

/// Where a member's logs end, as `at` sees it: number and last block.
fn logs(at: &Company, member: &str) -> Vec<(u64, u64)> {
    let heads = at.status()["heads"].clone();
    let of_member = heads.as_array().unwrap().iter().filter(|head| head["member"] == member).cloned();
    let row = |head: Value| (head["log_no"].as_u64().unwrap(), head["seq"].as_u64().unwrap());
    of_member.map(row).collect()
}

/// Whom a company takes for acme's machine: the thief, or acme.
fn dial_instead(company: &Company, thief: Option<&Company>) {
    let listen = format!("[peer]\nlisten = \"{}\"\n[web]\nlisten = \"127.0.0.1:0\"\n", company.address);
    let turned = thief.map(|thief| format!("[peer.endpoints]\nacme = \"{}\"\n", thief.address));
    fs::write(company.data.join("staydown.toml"), listen + &turned.unwrap_or_default()).unwrap();
}

#[test]
fn a_cutoff_picks_the_true_chain_where_member_and_thief_signed_the_same_place() {
    let mut forum = Forum::found(3);
    forum.join();
    let (first, second, stolen) = (item(1), item(2), item(66));
    forum.companies[0].does(&["submit", &first, "--label", "symbol", "--wait-peers", "2"]);
    forum.companies[0].stop();
    let mut thief = clone_of(&forum, &forum.companies[0], "thief");
    fs::remove_file(thief.data.join("place")).unwrap();

    // Block 2 of log 0, twice: acme's, which cyan has, and the thief's, which bolt has.
    forum.companies[1].stop();
    forum.companies[0].start(&["run"]);
    forum.companies[0].ready(1);
    forum.companies[0].does(&["submit", &second, "--label", "symbol", "--wait-peers", "1"]);
    let good = forum.companies[0].does(&["log", "heads", "acme", "--json"]).json()["heads"][0].clone();
    assert_eq!(good["seq"], 2);
    forum.companies[0].stop();
    forum.companies[2].stop();
    dial_instead(&forum.companies[1], Some(&thief));
    forum.companies[1].start(&["run"]);
    thief.start(&["run"]);
    thief.ready(1);
    thief.does(&["submit", &stolen, "--label", "symbol", "--wait-peers", "1"]);
    matches(&forum.companies[1], &stolen, true);
    thief.stop();
    forum.companies[1].stop();
    dial_instead(&forum.companies[1], None);

    // They meet: neither counts, and everybody can prove why.
    for company in &mut forum.companies {
        company.start(&["run"]);
    }
    for company in &forum.companies[1..] {
        version_is(company, 1);
        wait_for("they have the proof", || (company.status()["proofs"] == 1).then_some(()));
        assert!(says(&company.status(), "acme signed contradicting blocks in log 0 from block 2 on"));
        matches(company, &stolen, false);
    }
    let (seq, head) = (good["seq"].to_string(), good["header_hash"].as_str().unwrap());
    enact(&forum, 2, 2, &["cutoff", "acme", "0", "--at", &seq, "--hash", head]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    // A chain that is missing is asked for with the next greeting: every half minute, or when somebody wants to know who
    // holds its word.
    for (company, n) in forum.companies[1..].iter().zip(5..) {
        company.does(&["submit", &item(n), "--label", "symbol", "--wait-peers", "2"]);
    }
    for company in &forum.companies {
        [&first, &second].into_iter().for_each(|item| matches(company, item, true));
    }
    let acme = &forum.companies[0];
    acme.does(&["key", "rotate", "--log"]);
    acme.does(&["submit", &item(4), "--label", "symbol", "--wait-peers", "2"]);
    forum.agree();
    for company in &forum.companies {
        matches(company, &item(4), true);
        company.run(&["match", &stolen]).ends_with(3);
        company.does(&["log", "verify"]);
    }
}

#[test]
fn a_thief_with_a_members_keys_is_noticed_and_its_words_are_cut_off() {
    let mut forum = Forum::found(3);
    forum.join();
    let (first, second, stolen, after) = (item(1), item(2), item(66), item(3));
    forum.companies[0].does(&["submit", &first, "--label", "symbol", "--wait-peers", "2"]);
    let good = forum.companies[0].does(&["log", "heads", "acme", "--json"]).json()["heads"][0].clone();
    forum.companies[0].does(&["submit", &second, "--label", "symbol", "--wait-peers", "2"]);

    // The thief has a copy of everything, without the file that would tell the program so; and it has turned the name
    // of acme's machine to its own, for bolt.
    forum.companies[0].stop();
    let mut thief = clone_of(&forum, &forum.companies[0], "thief");
    fs::remove_file(thief.data.join("place")).unwrap();
    forum.companies[1].stop();
    dial_instead(&forum.companies[1], Some(&thief));
    forum.companies[1].start(&["run"]);
    thief.start(&["run"]);
    thief.ready(1);
    thief.does(&["submit", &stolen, "--label", "symbol", "--wait-peers", "1"]);
    forum.companies[1..].iter().for_each(|company| matches(company, &stolen, true));
    thief.stop();

    // The true node comes back, sees a block of its own log that it did not write, and goes on in a new log.
    forum.companies[0].start(&["run"]);
    health_is(&forum.companies[0], "RED", "a block of our own log 0 exists that this node did not write");
    forum.companies[0].ready(1);
    forum.companies[0].does(&["submit", &after, "--label", "symbol", "--wait-peers", "1"]);
    assert_eq!(logs(&forum.companies[0], "acme").iter().map(|(log, _)| *log).collect::<Vec<_>>(), [0, 1]);

    // The founders cut the log where acme is sure of it: before its second word, which it says again.
    let (seq, head) = (good["seq"].to_string(), good["header_hash"].as_str().unwrap());
    enact(&forum, 2, 2, &["cutoff", "acme", "0", "--at", &seq, "--hash", head]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    forum.companies[1..].iter().for_each(|company| {
        matches(company, &stolen, false);
        matches(company, &second, false);
    });
    let acme = &forum.companies[0];
    acme.does(&["key", "rotate", "--log"]);
    // From its own journal: the thief's words bear its signature too, and stand in the same log elsewhere.
    assert_eq!(acme.does(&["log", "resubmit", "--json"]).json()["records"], 1);
    for company in &forum.companies {
        for item in [&first, &second, &after] {
            matches(company, item, true);
        }
    }
    // Time to arrive is given by the next word.
    acme.does(&["submit", &item(4), "--label", "symbol", "--wait-peers", "1"]);
    forum.agree();
    for company in &forum.companies {
        matches(company, &item(4), true);
        company.run(&["match", &stolen]).ends_with(3);
        company.does(&["log", "verify"]);
    }
}

#[test]
fn what_a_cutoff_took_from_a_member_is_said_again_in_a_log_that_counts() {
    let mut forum = Forum::found(3);
    forum.join();
    let acme = &forum.companies[0];
    let words: Vec<_> = (1..=3).map(item).collect();
    acme.does(&["submit", &words[0], "--label", "symbol", "--wait-peers", "2"]);
    let good = acme.does(&["log", "heads", "acme", "--json"]).json()["heads"][0].clone();
    acme.does(&["submit", &words[1], "--label", "symbol", "--wait-peers", "2"]);
    acme.does(&["submit", &words[2], "--label", "symbol", "--wait-peers", "2"]);
    let (seq, head) = (good["seq"].to_string(), good["header_hash"].as_str().unwrap());
    enact(&forum, 1, 2, &["cutoff", "acme", "0", "--at", &seq, "--hash", head]);
    for company in &forum.companies {
        version_is(company, 2);
        matches(company, &words[0], true);
        words[1..].iter().for_each(|item| matches(company, item, false));
    }
    assert_eq!(acme.does(&["log", "resubmit", "--json"]).json()["records"], 2);
    assert_eq!(acme.does(&["log", "resubmit", "--json"]).json()["records"], 0);
    for company in &forum.companies {
        words.iter().for_each(|item| matches(company, item, true));
    }
    forum.agree();
    assert_eq!(logs(acme, "acme"), [(0, 3), (1, 1)]);
}

#[test]
fn a_copied_node_says_so_and_both_operators_see_it() {
    let mut forum = Forum::found(3);
    forum.join();
    forum.companies[0].does(&["submit", &item(1), "--label", "symbol", "--wait-peers", "2"]);
    forum.companies[0].stop();
    let mut second = clone_of(&forum, &forum.companies[0], "acme-2");
    forum.companies[0].start(&["run"]);
    forum.companies[0].ready(2);
    second.start(&["run"]);
    health_is(&second, "RED", "another copy of this node is connected to");
    assert!(second.log().contains("this data directory was copied or restored"), "{}", second.log());
    // The first hears of it with its next greeting: every half minute, or when it wants to know who holds its word.
    forum.companies[0].does(&["submit", &item(3), "--label", "symbol", "--wait-peers", "2"]);
    health_is(&forum.companies[0], "RED", "another copy of this node is connected to");
    let queued = second.does(&["submit", &item(2), "--label", "symbol", "--json"]).json();
    assert_eq!(queued["state"], "QUEUED", "the copy signs nothing: {queued}");

    // The first is switched off and the copy has its address: it goes on, in logs that the first never had.
    forum.companies[0].stop();
    second.stop();
    fs::copy(forum.companies[0].data.join("staydown.toml"), second.data.join("staydown.toml")).unwrap();
    second.start(&["run"]);
    second.ready(2);
    forum.companies[1..].iter().for_each(|company| matches(company, &item(2), true));
    assert_eq!(logs(&second, "acme"), [(0, 2), (1, 1)]);
    forum.companies[0] = second;
    forum.agree();
    for company in &forum.companies {
        assert_eq!(company.status()["proofs"], 0, "nothing was signed twice");
    }
}
