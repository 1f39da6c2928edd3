//! Tokens, session keys and what is looked up stand in no log, no audit trail and no file: a node that talks as much as it
//! can is asked by every door, and then everything that it wrote is searched.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use staydown::access::audit::AUDIT_FILE;

use crate::forum::hash;
use crate::house::sign_in_at;
use crate::wire::{encoded, get, post};
use crate::world::{Company, Forum, wait_for};

/// A node of the real program, that writes down everything.
fn talkative() -> Forum {
    let mut forum = Forum::found(1);
    let company = &mut forum.companies[0];
    let at = company.address;
    let settings =
        format!("[peer]\nlisten = \"{at}\"\n\n[web]\nlisten = \"127.0.0.1:0\"\n\n[log]\nfilter = \"trace\"\n");
    fs::write(company.data.join("staydown.toml"), settings).unwrap();
    forum.join();
    forum
}

fn web_address(company: &Company) -> SocketAddr {
    wait_for("the node says where its console is", || {
        let text = fs::read_to_string(company.data.join("web.addr")).ok()?;
        let text = text.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        text.parse().ok()
    })
}

/// Makes a token by the command line; `options` say of what kind.
fn token(company: &Company, name: &str, options: &[&str]) -> String {
    let ran = company.does(&[&["token", "new", "--name", name], options].concat());
    let told = format!("{}{}", ran.out, ran.err);
    let at = told.find("sdt_").unwrap_or_else(|| panic!("a token is told: {told}"));
    told[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn stands_in(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_what_is_looked_up_are_written_down_nowhere() {
    let forum = talkative();
    let company = &forum.companies[0];
    let at = web_address(company);
    let program = token(company, "program", &["--scope", "lookup,submit"]);
    let person = token(company, "anna", &["--role", "admin"]);
    assert!(program.len() == 47 && person.len() == 47, "{program} {person}");
    let wrong = "sdt_WRONGWRONGWRONGWRONGWRONGWRONGWRONGWRONG00";

    // Looked up by each door, and on no list; a web address, too.
    let values: Vec<String> = (1..=8).map(hash).collect();
    let secret_host = "looked-up-host.example";
    let address = format!("https://{secret_host}/a/b?c=d");
    let asked = json!({"signals": [{"type": "sha256", "value": values[0]}]});
    let mut answers = vec![
        post("/v1/lookup").bearer(&program).json(&asked).to(at).await,
        post("/v1/lookup").bearer(&program).json(&json!({"signals": [{"type": "url", "value": address}]})).to(at).await,
        get(&format!("/v1/entries/sha256/{}", values[1])).bearer(&program).to(at).await,
        get(&format!("/v1/entries?q={}", values[2])).bearer(&program).to(at).await,
        get(&format!("/v1/status?token={program}")).to(at).await,
        get("/v1/status").bearer(wrong).to(at).await,
        // Refused, and what was wrong with it is told to the caller alone.
        post("/v1/lookup")
            .bearer(&program)
            .json(&json!({"signals": [{"type": "sha512", "value": values[3]}]}))
            .to(at)
            .await,
    ];
    let login = sign_in_at(at, &person).await;
    let (key, _) = login.session_cookie().unwrap();
    for path in [
        format!("/list?q={}", values[4]),
        format!("/entry/sha256/{}", values[5]),
        format!("/entry/url/{}", encoded(&address)),
        format!("/submit?signal={}", values[6]),
        format!("/login?next={}", encoded(&format!("/entry/sha256/{}", values[7]))),
    ] {
        answers.push(get(&path).html().session(&key).to(at).await);
        answers.push(get(&path).html().to(at).await);
    }
    answers.push(sign_in_at(at, wrong).await);
    assert!(answers.iter().all(|answer| answer.status < 500), "{answers:?}");
    let trail = company.data.join(AUDIT_FILE);
    wait_for("the trail has the sign-in", || fs::read_to_string(&trail).ok().filter(|text| text.contains("anna")));

    // The query part of an address is whoever's it is: it is not written down either.
    let mut written = vec![("the log".to_owned(), company.log().into_bytes())];
    files(&company.data, &mut written);
    let mut needles = values.clone();
    needles.extend([program.clone(), person.clone(), key, wrong.to_owned(), secret_host.to_owned()]);
    assert!(written[0].1.len() > 1_000, "it does write down: {}", company.log());
    for (name, bytes) in &written {
        for needle in &needles {
            assert!(!stands_in(bytes, needle), "{needle} stands in {name}");
        }
    }
    // Whoever can read the files cannot use what is in them.
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["access.json", AUDIT_FILE] {
        let mode = fs::metadata(company.data.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    drop(forum);
}
