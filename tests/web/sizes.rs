//! Too much, too many, too deep, out of the folder, and two readings of one request.

use std::collections::BTreeSet;

use staydown::access::{Role, Scope};
use staydown::web::Limits;
use staydown::web::limits::{UPLOAD_BYTES_MAX, UPLOADS_MAX};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::forum::DEADLINE;
use crate::house::{Browser, House, fast};
use crate::wire::{Wire, ask, get, post};

/// What the files of the data directory begin with or hold: none of it may ever be answered.
const SECRETS: [&str; 4] = ["PRIVATE KEY", "\"sha256\"", "root:x:", "[package]"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_leads_out_of_the_assets_or_of_the_list() {
    let house = House::open().await;
    let anna = house.sign_in(&house.person("anna", Role::Admin)).await;
    let ups = [
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%5c",
        "..\\",
        "%252e%252e%252f",
        "..%c0%af",
        "..;/",
        "....//",
        "%2e%2e%00/",
    ];
    let files = ["access.json", "keys/log-root.pem", "etc/passwd", "Cargo.toml", "%00access.json"];
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for up in ups {
        for file in files {
            for count in [1, 3, 8] {
                paths.insert(format!("/assets/{}{file}", up.repeat(count)));
                paths.insert(format!("/entry/sha256/{}{file}", up.repeat(count)));
                paths.insert(format!("/v1/entries/{}{file}/x", up.repeat(count)));
                paths.insert(format!("/v1/tokens/{}{file}", up.repeat(count)));
            }
        }
    }
    paths.extend(
        ["/assets//etc/passwd", "/assets/%2fetc%2fpasswd", "/assets/console.css%00.js", "/assets/.", "/assets/.."]
            .map(Into::into),
    );
    for path in &paths {
        for asked in [get(path).html(), get(path).html().session(&anna.key)] {
            let answer = asked.to(house.at).await;
            let text = answer.text();
            assert!(answer.status < 500 && answer.status != 200, "{path}: {answer:?}");
            assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{path}: {answer:?}");
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_long_is_refused() {
    let limits = Limits { form_bytes_max: 4 << 10, ..fast() };
    let house = House::with(1, |_| {}, limits).await;
    let token = house.token("program", &[Scope::Lookup, Scope::Submit]);
    let anna = house.sign_in(&house.person("anna", Role::Reviewer)).await;
    for (asked, what) in [
        (post("/v1/submissions").bearer(&token).with("content-type", "application/json"), "JSON"),
        (
            post("/logout")
                .session(&anna.key)
                .of_our_page(house.at)
                .with("content-type", "application/x-www-form-urlencoded"),
            "a form",
        ),
        (
            post("/login").of_our_page(house.at).with("content-type", "application/x-www-form-urlencoded"),
            "a stranger's form",
        ),
    ] {
        // It is announced and never sent: nobody waits for it.
        let mut wire = Wire::to(house.at).await;
        wire.send(&asked.clone().with("content-length", "9999999999").bytes(house.at)).await;
        let answer = wire.answer(false).await.unwrap_or_else(|| panic!("{what} is answered"));
        assert_eq!(answer.status, 413, "{what}: {answer:?}");
        // Without a length, it is counted.
        let mut wire = Wire::to(house.at).await;
        wire.send(&asked.clone().with("transfer-encoding", "chunked").bytes(house.at)).await;
        let piece = format!("100000\r\n{}\r\n", "a".repeat(0x10_0000));
        for _ in 0..=UPLOAD_BYTES_MAX >> 20 {
            if !wire.send(piece.as_bytes()).await {
                break;
            }
        }
        if let Some(answer) = wire.answer(false).await {
            assert_eq!(answer.status, 413, "{what} in pieces: {answer:?}");
        }
    }
    let long = post("/logout").session(&anna.key).of_our_page(house.at).form(&[("csrf", &"a".repeat(8 << 10))]);
    assert_eq!(long.to(house.at).await.status, 413);
    let long = post("/login").of_our_page(house.at).form(&[("token", &"a".repeat(8 << 10))]);
    assert_eq!(long.to(house.at).await.status, 413);
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    house.close().await;
}

fn parts(count: usize, bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..count {
        body.extend(format!("--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{number}.bin\"\r\ncontent-type: application/octet-stream\r\n\r\n").bytes());
        body.extend(std::iter::repeat_n(b'a', bytes));
        body.extend(b"\r\n");
    }
    body.extend(b"--x--\r\n");
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_few_and_not_too_long() {
    let house = House::open().await;
    let token = house.token("program", &[Scope::Lookup]);
    let anna = house.sign_in(&house.person("anna", Role::Reviewer)).await;
    let kind = "multipart/form-data; boundary=x";
    let api = || post("/v1/lookup").bearer(&token);
    let page = || post("/submit/file").session(&anna.key).of_our_page(house.at).with("x-csrf-token", &anna.csrf);
    for (name, asked) in [("the API", api()), ("the page", page())] {
        for (what, body) in [("too many", parts(2_000, 1)), ("too long", parts(2, UPLOAD_BYTES_MAX / 2))] {
            let answer = asked.clone().body(kind, body).to(house.at).await;
            assert!(matches!(answer.status, 400 | 413 | 422), "{what} for {name}: {answer:?}");
        }
        let long_header =
            format!("--x\r\ncontent-disposition: form-data; name=\"{}\"\r\n\r\na\r\n--x--\r\n", "n".repeat(100_000));
        for (what, body) in [
            ("a header that is too long", long_header.into_bytes()),
            ("an end that never comes", b"--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nabc".to_vec()),
            ("another boundary", b"--y\r\n\r\n--y--\r\n".to_vec()),
            ("nothing", Vec::new()),
        ] {
            let answer = asked.clone().body(kind, body).to(house.at).await;
            assert!((400..500).contains(&answer.status), "{what} for {name}: {answer:?}");
        }
        let unnamed = asked.clone().body("multipart/form-data", parts(1, 1)).to(house.at).await;
        assert!((400..500).contains(&unnamed.status), "no boundary for {name}: {unnamed:?}");
    }
    // A part that proves the session comes first, or the file is not read.
    let proof = format!("--x\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{}\r\n", anna.csrf).into_bytes();
    let file = parts(1, 10);
    let last = [&file[..file.len() - b"--x--\r\n".len()], &proof, b"--x--\r\n"].concat();
    let form = |body: Vec<u8>| post("/submit/file").session(&anna.key).of_our_page(house.at).body(kind, body);
    for forged in [file.clone(), last] {
        let answer = form(forged).to(house.at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "CSRF"), "{answer:?}");
    }
    let answer = form([proof, file].concat()).to(house.at).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_files_are_taken_in_at_once_and_whoever_may_not_send_any_takes_no_place() {
    // Whoever holds a place here is not late before the test is over.
    let house = House::with(1, |_| {}, Limits { body_grace: 10 * DEADLINE, ..fast() }).await;
    let (program, metrics) = (house.token("program", &[Scope::Lookup]), house.token("metrics", &[Scope::Metrics]));
    let vera = house.sign_in(&house.person("vera", Role::Viewer)).await;
    let anna = house.sign_in(&house.person("anna", Role::Reviewer)).await;
    let kind = "multipart/form-data; boundary=x";
    let page = |browser: &Browser| {
        let asked = post("/submit/file").session(&browser.key).of_our_page(house.at);
        asked.with("x-csrf-token", &browser.csrf)
    };
    let api = |token: &str| post("/v1/lookup").bearer(token);
    let mut held = JoinSet::new();
    for _ in 0..=UPLOADS_MAX {
        let mut wire = Wire::to(house.at).await;
        let begun = api(&program).with("content-type", kind).with("content-length", "100000");
        wire.send(&begun.bytes(house.at)).await;
        held.spawn(async move { wire.answer(false).await });
    }
    let last = timeout(DEADLINE, held.join_next()).await.expect("one of them finds no place");
    let last = last.unwrap().unwrap().expect("it is told so");
    assert_eq!((last.status, last.reason().as_str()), (429, "RATE"), "{last:?}");
    let full = page(&anna).body(kind, parts(1, 10)).to(house.at).await;
    assert_eq!((full.status, full.reason().as_str()), (429, "RATE"), "the page and the API share them: {full:?}");
    for asked in [page(&vera), api(&metrics)] {
        let answer = asked.body(kind, parts(1, 10)).to(house.at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "SCOPE"), "{answer:?}");
    }
    held.shutdown().await;
    let served = async {
        while api(&program).body(kind, parts(1, 10)).to(house.at).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, served).await.expect("places that are left are given to the next");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_addresses_are_bounded() {
    let house = House::open().await;
    let long = "a".repeat(100 << 10);
    let many = (0..150).fold(get("/healthz"), |asked, n| asked.with(&format!("x-{n}"), "1"));
    let wide = (0..60).fold(get("/healthz"), |asked, n| asked.with(&format!("x-{n}"), &"a".repeat(2_000)));
    for (what, asked) in [
        ("one header", get("/healthz").with("x-long", &long)),
        ("many headers", many),
        ("wide headers", wide),
        ("an address", get(&format!("/healthz?{long}"))),
        ("a method", ask(&"A".repeat(100 << 10), "/healthz")),
    ] {
        let mut wire = Wire::to(house.at).await;
        wire.send(&asked.bytes(house.at)).await;
        // The connection may be closed upon what is still on its way, and take the answer with it.
        if let Some(answer) = wire.answer(false).await {
            assert!(matches!(answer.status, 400 | 414 | 431), "{what}: {answer:?}");
        }
    }
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_is_deep_or_wild_is_refused_and_nothing_falls_over() {
    let house = House::open().await;
    let token = house.token("program", &[Scope::Lookup, Scope::Submit, Scope::Review, Scope::Admin]);
    let deep = [("[", "]"), ("{\"a\":", "}"), ("{\"statements\":[", "]}")];
    let mut bodies: Vec<Vec<u8>> = deep
        .iter()
        .map(|(open, close)| format!("{}1{}", open.repeat(10_000), close.repeat(10_000)).into_bytes())
        .collect();
    bodies.extend(
        ["", "null", "[]", "1e999999", "\"", "{", "{\"signals\":1}", "{\"signals\":[{\"type\":1}]}", "\u{0}"]
            .map(|text| text.as_bytes().to_vec()),
    );
    bodies.push(vec![0xff, 0xfe, 0x00]);
    bodies.push(b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec());
    for path in ["/v1/lookup", "/v1/submissions", "/v1/tokens", "/v1/charters", "/v1/incidents", "/v1/resources"] {
        for body in &bodies {
            let answer = post(path).bearer(&token).body("application/json", body.clone()).to(house.at).await;
            assert!((400..500).contains(&answer.status), "{path} {:?}: {answer:?}", body.escape_ascii().to_string());
        }
        let packed = post(path).bearer(&token).with("content-encoding", "gzip").json(&serde_json::json!({}));
        assert!((400..500).contains(&packed.to(house.at).await.status), "{path}, packed");
    }
    house.close().await;
}

/// Where a proxy in front reads one request and this node two, the second is somebody else's. Whatever can be read in two
/// ways is the last on its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_can_be_read_in_two_ways_is_the_last_one_of_its_connection() {
    let house = House::open().await;
    let at = house.at;
    let second = format!("GET /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n");
    let head = |headers: &str| {
        format!(
            "POST /login HTTP/1.1\r\nhost: {at}\r\norigin: http://{at}\r\ncontent-type: application/x-www-form-urlencoded\r\n{headers}\r\n"
        )
    };
    for (what, bytes) in [
        ("both lengths", format!("{}0\r\n\r\n{second}", head("content-length: 5\r\ntransfer-encoding: chunked\r\n"))),
        (
            "both, the other way round",
            format!("{}0\r\n\r\n{second}", head("transfer-encoding: chunked\r\ncontent-length: 5\r\n")),
        ),
        ("two lengths", format!("{}a=b{second}", head("content-length: 3\r\ncontent-length: 0\r\n"))),
        ("a list of lengths", format!("{}a=b{second}", head("content-length: 3, 0\r\n"))),
        ("a signed length", format!("{}a=b{second}", head("content-length: +3\r\n"))),
        ("a length in hex", format!("{}a=b{second}", head("content-length: 0x3\r\n"))),
        ("an unknown coding", format!("{}0\r\n\r\n{second}", head("transfer-encoding: xchunked\r\n"))),
        ("chunks within a coding", format!("{}0\r\n\r\n{second}", head("transfer-encoding: chunked, identity\r\n"))),
        (
            "a space before the colon",
            format!("{}0\r\n\r\n{second}", head("content-length : 5\r\ntransfer-encoding: chunked\r\n")),
        ),
        (
            "a folded line",
            format!("{}0\r\n\r\n{second}", head("transfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n")),
        ),
        (
            "a name with a control character",
            format!("{}0\r\n\r\n{second}", head("transfer-encoding\u{b}: chunked\r\ncontent-length: 5\r\n")),
        ),
        (
            "a chunk length that overflows",
            format!("{}10000000000000000\r\na\r\n0\r\n\r\n{second}", head("transfer-encoding: chunked\r\n")),
        ),
        (
            "a chunk length with a sign",
            format!("{}-1\r\na\r\n0\r\n\r\n{second}", head("transfer-encoding: chunked\r\n")),
        ),
        ("a carriage return alone", format!("GET /healthz HTTP/1.1\rhost: {at}\r\r{second}")),
        (
            "chunks in HTTP/1.0",
            format!("{}0\r\n\r\n{second}", head("transfer-encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ),
    ] {
        let mut wire = Wire::to(at).await;
        wire.send(bytes.as_bytes()).await;
        let said = String::from_utf8_lossy(&wire.end().await).into_owned();
        let answers = said.matches("HTTP/1.1 ").count() + said.matches("HTTP/1.0 ").count();
        assert!(answers <= 1, "{what} got {answers} answers: {said}");
        assert!(!said.contains("\r\n\r\nok"), "{what}: the second was answered: {said}");
        assert!(said.is_empty() || !said.contains(" 200 "), "{what}: {said}");
    }
    // Two that are sound are two.
    let mut wire = Wire::to(at).await;
    let last = get("/healthz").bytes(at);
    wire.send(&[second.as_bytes(), &last].concat()).await;
    let said = String::from_utf8_lossy(&wire.end().await).into_owned();
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    house.close().await;
}
