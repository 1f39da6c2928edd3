//! What members, founders and callers write is text on every page, and never a piece of the page: each field that
//! somebody else fills holds markup here, and each page is read for it.

use prost::Message as _;
use staydown::access::{Role, Scope};
use staydown::wire::local as l;
use staydown::wire::local_service::forum_server::Forum as _;

use crate::doors::routes;
use crate::forum::hash;
use crate::house::{House, fast};
use crate::wire::{Answer, encoded, get};

/// Breaks out of text, of both kinds of quotes, of a comment, and of a script; names the field that it stood in.
fn markup(field: &str) -> String {
    format!("{field}\"'--><hostile id=\"{field}\" onclick='x'></script><script>hostile()</script>&amp;{{{{7*7}}}}")
}

/// What would stand on the page if a field became a piece of it.
const PIECES: [&str; 6] = ["<hostile", "</hostile", "<script>hostile", "\" onclick=", "' onclick=", "\"'-->"];

#[track_caller]
fn is_only_text(what: &str, answer: &Answer) {
    let text = answer.text();
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(answer.body.is_empty() || !kind.is_empty(), "{what}: what it is, the browser would guess: {answer:?}");
    // What browsers read as a page. Anything else they show as text, or save: they are told not to guess.
    let is_markup = ["html", "xml", "svg"].iter().any(|markup| kind.contains(markup));
    for piece in PIECES.into_iter().filter(|_| is_markup) {
        let around = |at: usize| {
            let bytes = &text.as_bytes()[at.saturating_sub(200)..text.len().min(at + 200)];
            String::from_utf8_lossy(bytes).into_owned()
        };
        assert!(!text.contains(piece), "{what}: {piece} in {:?}", text.find(piece).map(around));
    }
    // What is saved as a file is no page of ours: browsers open it somewhere else, where nobody is signed in.
    let is_page = kind.starts_with("text/html") && answer.header("content-disposition").is_none();
    let script = text.split("<script").skip(1).find(|script| !script.trim_start().starts_with("src=\"/assets/"));
    assert!(!is_page || script.is_none(), "{what}: a script within the page: {script:?}");
    // No handler, no address that runs, no style of a single element: the policy would refuse them, and we write none.
    for written in [" onclick=\"", " onload=\"", " onerror=\"", "href=\"javascript:", " style=\""] {
        assert!(!is_page || !text.contains(written), "{what}: {written}");
    }
}

fn taxonomy() -> String {
    let title = markup("title").replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "name = \"hostile-example\"\nversion = 1\n\n[[label]]\nnumber = 1\nname = \"propaganda\"\nfacet = \"content-type\"\n\
         title = {{ en = \"{}\", fr = \"{}\" }}\n",
        title.chars().take(100).collect::<String>(),
        title.chars().take(100).collect::<String>()
    )
}

async fn hostile_house() -> House {
    let change = |charter: &mut staydown::replica::proto::Charter| {
        charter.name = markup("forum");
        for (number, member) in charter.members.iter_mut().enumerate() {
            member.name = markup(&format!("member{number}"));
            member.group = markup(&format!("group{number}"));
            member.jurisdictions = vec![markup("jurisdiction")];
            member.languages = vec![markup("language")];
            for node in &mut member.nodes {
                node.endpoints = vec![markup("endpoint")];
                node.uri_san = markup("san");
            }
        }
    };
    House::named(3, change, fast(), &taxonomy()).await
}

/// One entry of ours, with all that can be said of it.
async fn say(house: &House) {
    let signal = Some(l::Signal { r#type: "sha256".into(), value: hash(1) });
    let statement = l::Statement {
        signal: signal.clone(),
        stance: l::Stance::Submit.into(),
        labels: vec!["propaganda".into()],
        ..Default::default()
    };
    let resource = l::Resource {
        url: format!("https://example.org/{}", markup("url")),
        labels: vec!["propaganda".into()],
        listed: true,
        ..Default::default()
    };
    let bad = l::Statement { resource: Some(resource), ..Default::default() };
    let refused = l::SubmitRequest { statements: vec![bad], ..Default::default() };
    assert!(house.service.submit(tonic::Request::new(refused)).await.is_err(), "such an address is none");
    let said = l::SubmitRequest { statements: vec![statement], ..Default::default() };
    house.service.submit(tonic::Request::new(said)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_members_groups_labels_and_the_forum_are_text_on_every_page() {
    let house = hostile_house().await;
    say(&house).await;
    house.token("program", &[Scope::Lookup]);
    let browser = house.sign_in(&house.person("anna", Role::Admin)).await;
    let mut shown = 0;
    let mut paths: Vec<_> =
        routes().into_iter().filter(|path| !path.starts_with("/assets/") && path != "/events").collect();
    paths.push(format!("/entry/sha256/{}", hash(1)));
    for path in &paths {
        let answer = get(path).html().session(&browser.key).to(house.at).await;
        // A node whose peers have such addresses is not ready, and says so.
        assert!(answer.status < 500 || path == "/readyz", "{path}: {answer:?}");
        is_only_text(path, &answer);
        shown += usize::from(answer.status == 200 && answer.text().contains("&lt;hostile"));
        shown += usize::from(answer.status == 200 && answer.text().contains("&#60;hostile"));
    }
    assert!(shown >= 8, "the names are on {shown} pages only");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_asks_for_comes_back_as_text() {
    let house = House::open().await;
    let browser = house.sign_in(&house.person("anna", Role::Admin)).await;
    let text = encoded(&markup("query"));
    let keys = [
        "q",
        "type",
        "status",
        "label",
        "labels",
        "member",
        "language",
        "lang",
        "kind",
        "said",
        "near",
        "distance",
        "page",
        "page_token",
        "next",
        "sort",
        "from",
        "to",
        "quarter",
        "state",
        "format",
        "batch",
        "id",
        "done",
        "error",
        "name",
        "csrf",
        "value",
    ];
    let query = keys.map(|key| format!("{key}={text}")).join("&");
    for path in routes().into_iter().filter(|path| !path.starts_with("/assets/") && path != "/events") {
        for asked in [get(&format!("{path}?{query}")).html(), get(&format!("{path}/{text}?{query}")).html()] {
            for asked in [asked.clone(), asked.session(&browser.key)] {
                let answer = asked.to(house.at).await;
                assert!(answer.status < 500, "{path}: {answer:?}");
                is_only_text(&path, &answer);
            }
        }
        // One at a time, since one that is refused hides the others.
        for key in keys {
            let answer = get(&format!("{path}?{key}={text}")).html().session(&browser.key).to(house.at).await;
            assert!(answer.status < 500, "{path}?{key}: {answer:?}");
            is_only_text(&format!("{path}?{key}"), &answer);
        }
    }
    for path in [
        format!("/entry/sha256/{text}"),
        format!("/entry/{text}/{}", hash(1)),
        format!("/entry/url/{text}"),
        format!("/{text}"),
    ] {
        let answer = get(&path).html().session(&browser.key).to(house.at).await;
        assert!(answer.status < 500, "{path}: {answer:?}");
        is_only_text(&path, &answer);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_that_hold_markup_come_back_as_text() {
    let house = House::open().await;
    let browser = house.sign_in(&house.person("anna", Role::Admin)).await;
    let text = markup("form");
    let keys = [
        "signal",
        "signals",
        "type",
        "value",
        "label",
        "labels",
        "language",
        "languages",
        "reason",
        "name",
        "role",
        "scope",
        "expires",
        "url",
        "incident",
        "level",
        "decision",
        "action",
        "do",
        "stance",
        "id",
        "basis",
        "severity",
        "confidence",
        "note",
        "charter",
        "taxonomy",
        "authority",
        "jurisdiction",
        "batch",
        "next",
        "token",
    ];
    let mut fields: Vec<(&str, &str)> = keys.iter().map(|key| (*key, text.as_str())).collect();
    fields.push(("csrf", &browser.csrf));
    for path in routes().into_iter().filter(|path| !path.starts_with("/v1/") && path != "/logout") {
        let asked = crate::wire::post(&path).html().session(&browser.key).of_our_page(house.at).form(&fields);
        let answer = asked.to(house.at).await;
        assert!(answer.status < 500, "{path}: {answer:?}");
        is_only_text(&path, &answer);
        let onward = answer.header("location").unwrap_or_default().to_owned();
        assert!(!onward.contains("hostile") && !onward.starts_with("//"), "{path}: {onward}");
        if onward.starts_with('/') {
            let answer = get(&onward).html().session(&browser.key).to(house.at).await;
            is_only_text(&format!("{path}, then {onward}"), &answer);
        }
    }
    // A file's name is never part of a page either, whatever the file is.
    for name in [text.replace('"', "%22"), "../../x.png".into(), "x.svg".into(), "x.html".into()] {
        let body = format!(
            "--x\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{}\r\n--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/html\r\n\r\n{text}\r\n--x--\r\n",
            browser.csrf
        );
        let asked = crate::wire::post("/submit/file").html().session(&browser.key).of_our_page(house.at);
        let answer = asked.body("multipart/form-data; boundary=x", body).to(house.at).await;
        assert!(answer.status < 500, "{name}: {answer:?}");
        is_only_text(&name, &answer);
    }
    house.close().await;
}

/// A charter that is well signed and says what it likes is what a founder can send.
#[test]
fn the_charter_of_this_file_is_one_that_nodes_take() {
    let mut forum = crate::forum::Forum::found(1);
    let signed = forum.next_charter(|charter| charter.members[0].name = markup("member"));
    let charter = staydown::replica::proto::Charter::decode(signed.body.clone()).unwrap();
    assert!(charter.members[0].name.contains("<hostile"));
}
