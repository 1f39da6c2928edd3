//! What was imported is taken back as a whole, and the list goes from one forum to another as a file.

use std::fs;

use serde_json::Value;

use crate::world::{Company, Forum, hash};

const PDQ: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

fn table(rows: impl Iterator<Item = u64>) -> String {
    let rows: String = rows.map(|n| format!("sha256,{},symbol\n", hash(n))).collect();
    format!("type,value,labels\n{rows}")
}

fn entries(company: &Company) -> u64 {
    company.status()["entries"].as_u64().unwrap()
}

fn imported(company: &Company, path: &str) -> String {
    company.does(&["submit", "--from", path, "--json"]).json()["batch"].as_str().unwrap().to_owned()
}

#[test]
fn a_batch_is_undone_on_a_restored_node_and_what_was_said_since_stays() {
    let mut forum = Forum::found(2);
    forum.join();
    let (first, second) = (forum.path("first.csv"), forum.path("second.csv"));
    fs::write(&first, table(0..1_200)).unwrap();
    fs::write(&second, table(1_190..1_300)).unwrap();
    let backup = forum.path("copy");
    let acme = &mut forum.companies[0];
    let (batch, other) = (imported(acme, &first), imported(acme, &second));
    assert_ne!(batch, other);
    assert_eq!(entries(acme), 1_300);
    let listed = acme.does(&["batch", "list", "--json"]).json_lines();
    let records =
        |id: &str| listed.iter().find(|b| b["batch"] == id).map(|b: &Value| b["records"].clone()).unwrap_or_default();
    // Ten rows of the second stood already: they are the first one's.
    assert_eq!((records(&batch), records(&other)), (1_200.into(), 100.into()), "{listed:?}");

    // A person has looked at three of them since.
    acme.does(&["entry", "endorse", &format!("sha256:{}", hash(0)), "--label", "symbol"]);
    acme.does(&["entry", "dispute", &format!("sha256:{}", hash(1)), "--reason", "news-reporting"]);
    acme.does(&["entry", "withdraw", &format!("sha256:{}", hash(2)), "--reason", "mistake"]);

    // The machine is lost. What it said is in its logs, here and at the other member.
    forum.agree();
    let acme = &mut forum.companies[0];
    acme.does(&["backup", &backup, "--keys"]);
    acme.stop();
    fs::remove_dir_all(&acme.data).unwrap();
    acme.does(&["restore", &backup]);
    acme.start(&["run"]);
    acme.ready(1);

    let counted = acme.does(&["batch", "undo", &batch, "--dry-run", "--json"]).json();
    assert_eq!((&counted["withdrawn"], &counted["left_alone"]), (&1_197.into(), &3.into()), "{counted}");
    assert_eq!(entries(acme), 1_298, "of what is disputed and withdrawn nobody stands behind anything");
    let undone = acme.does(&["review", "undo", &batch, "--yes", "--json"]).json();
    assert_eq!((&undone["records"], &undone["withdrawn"]), (&1_200.into(), &1_197.into()), "{undone}");
    assert_eq!(entries(acme), 101);
    let records = acme.status()["records"].clone();
    let again = acme.does(&["batch", "undo", &batch, "--yes", "--json"]).json();
    assert_eq!((&again["withdrawn"], &again["left_alone"]), (&0.into(), &1_200.into()), "{again}");
    assert_eq!(acme.status()["records"], records, "nothing is said twice");

    // The same command is the same batch, which was undone; under another name it is said again.
    let ran = acme.does(&["submit", "--from", &first, "--json"]).json();
    assert_eq!((&ran["said"], &ran["left_alone"]), (&0.into(), &1_200.into()), "{ran}");
    acme.does(&["submit", "--from", &first, "--batch", "again"]);
    assert_eq!(entries(acme), 1_300);
    acme.does(&["batch", "undo", "again", "--yes"]);
    assert_eq!(entries(acme), 100, "also what a person had said before it: the import was the last word");
    forum.agree();
    let bolt = &forum.companies[1];
    bolt.run(&["batch", "undo", &batch, "--yes"]).ends_with(3);
    bolt.run(&["batch", "undo", "again", "--yes"]).ends_with(3);
    bolt.run(&["batch", "list"]).ends_with(3);
}

#[test]
fn a_list_goes_from_forum_to_forum_as_a_file() {
    let mut here = Forum::found(1);
    here.join();
    let acme = &here.companies[0];
    let source = here.path("list.csv");
    let mut text = "type,value,labels,languages,severity,expires,quality\n".to_owned();
    for n in 0..1_500 {
        text.push_str(&format!("sha256,{},symbol;manifesto,fr;pt-BR,{},2100-01-31,\n", hash(n), n % 5));
    }
    text.push_str(&format!("pdq,{PDQ},other,,,,77\nmd5,900150983cd24fb0d6963f7d28e17f72,other,,,,\n"));
    fs::write(&source, text).unwrap();
    acme.does(&["submit", "--from", &source]);
    acme.does(&["entry", "dispute", &format!("sha256:{}", hash(0)), "--reason", "mistake"]);

    for (name, format, count) in
        [("x.csv", "csv", 1_501), ("x.jsonl", "jsonl", 1_501), ("x.json", "threatexchange", 1_501)]
    {
        let mut there = Forum::found(1);
        there.join();
        let (path, back) = (there.path(name), there.path(&format!("back-{name}")));
        let told = acme.does(&["list", "export", "--format", format, "-o", &path]);
        assert!(told.err.contains("1,501 entries written"), "{}", told.err);
        let theirs = &there.companies[0];
        theirs.does(&["submit", "--from", &path, "--format", format]);
        assert_eq!(entries(theirs), count, "{format}");
        theirs.does(&["list", "export", "--format", format, "-o", &back]);
        // When it was first seen is another forum's matter.
        let plain = |path: &str| {
            let text = fs::read_to_string(path).unwrap();
            text.lines()
                .map(|line| line.split(",ACTIVE,").next().unwrap().to_owned())
                .map(|line| seen(&line))
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(&path), plain(&back), "{format}");
    }

    let local = here.path("x.txt");
    acme.does(&["list", "export", "--format", "local-file", "-o", &local, "--label", "other"]);
    let text = fs::read_to_string(&local).unwrap();
    assert_eq!(text, format!("pdq {PDQ}\nvideo_md5 900150983cd24fb0d6963f7d28e17f72\n"));
    fs::write(&local, text + "trend_query {}\nmd5 900150983cd24fb0d6963f7d28e17f72\n").unwrap();
    let ran = acme
        .run(&["submit", "--from", &local, "--format", "local-file", "--label", "other", "--quality", "77", "--json"])
        .ends_with(65)
        .json();
    // The same row twice is one; both stand already; one type is not known here.
    assert_eq!((&ran["stands"], &ran["said_before"], &ran["refused"]), (&2.into(), &1.into(), &1.into()), "{ran}");
    assert!(ran["error"]["culprits"][0].as_str().unwrap().starts_with("line 3, column type: "), "{ran}");

    let shown = acme.does(&["list", "export", "--type", "pdq", "--quiet"]);
    assert_eq!(shown.json_lines()[0]["quality"], 77);
    acme.run(&["list", "export", "--status", "ALLOWED"]).ends_with(3);
}

/// A line without what is another forum's: when it was first seen there.
fn seen(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut object)) => {
            object.remove("first_seen");
            Value::Object(object).to_string()
        }
        _ => line.to_owned(),
    }
}
