//! Callers who are slow on purpose, who stay, or who ask too often: they are let go, and others are served meanwhile.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use staydown::access::{Role, Scope};
use staydown::web::Limits;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::house::{House, fast};
use crate::wire::{Wire, get, post};

/// Short enough that a test sees it bite, and long enough for a request on a busy machine.
const SHORT: Duration = Duration::from_secs(1);
/// Between two drops.
const DRIP: Duration = Duration::from_millis(20);

fn hasty() -> Limits {
    Limits {
        first_request: SHORT,
        headers: SHORT,
        stall: 2 * SHORT,
        body_grace: SHORT,
        body_bytes_per_s: 1 << 20,
        ..fast()
    }
}

/// Sends `bytes`, and then one byte after the other for as long as anybody listens. Returns what was answered.
async fn drip(at: SocketAddr, bytes: Vec<u8>, drop: &'static [u8]) -> Vec<u8> {
    let mut wire = Wire::to(at).await;
    wire.send(&bytes).await;
    while wire.send(drop).await {
        sleep(DRIP).await;
    }
    wire.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_drips_is_let_go_and_others_are_served() {
    let house = House::with(1, |_| {}, hasty()).await;
    let (at, token) = (house.at, house.token("program", &[Scope::Lookup, Scope::Submit]));
    let anna = house.sign_in(&house.person("anna", Role::Reviewer)).await;
    let head = |asked: crate::wire::Ask| asked.with("content-length", "100000").bytes(at);
    let mut slow = JoinSet::new();
    for bytes in [
        Vec::new(),
        b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ".to_vec(),
        // The first bytes of HTTP/2, and no more.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r".to_vec(),
        head(post("/v1/lookup").bearer(&token).with("content-type", "application/json")),
        head(post("/v1/lookup").bearer(&token).with("content-type", "multipart/form-data; boundary=x")),
        head(post("/login").of_our_page(at).with("content-type", "application/x-www-form-urlencoded")),
        head(
            post("/logout")
                .session(&anna.key)
                .of_our_page(at)
                .with("content-type", "application/x-www-form-urlencoded"),
        ),
        head(
            post("/submit/file")
                .session(&anna.key)
                .of_our_page(at)
                .with("x-csrf-token", &anna.csrf)
                .with("content-type", "multipart/form-data; boundary=x"),
        ),
        head(get("/healthz")),
    ] {
        slow.spawn(async move { (String::from_utf8_lossy(&bytes).into_owned(), drip(at, bytes.clone(), b"a").await) });
    }
    while let Some(ended) = {
        let asked = get("/healthz").to(at).await;
        assert_eq!(asked.status, 200, "others are served: {asked:?}");
        slow.join_next().await
    } {
        let (asked, answered) = ended.unwrap();
        let said = String::from_utf8_lossy(&answered).into_owned();
        let is_probe = asked.starts_with("GET /healthz");
        assert!(is_probe || !said.contains(" 200 "), "{asked}: {said}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_nothing_is_let_go() {
    let house = House::with(1, |_| {}, hasty()).await;
    // Nothing at all; a request that is not finished; one that is answered, and then nothing.
    for bytes in [Vec::new(), b"GET / HT".to_vec(), get("/healthz").with("connection", "keep-alive").bytes(house.at)] {
        let mut wire = Wire::to(house.at).await;
        wire.send(&bytes).await;
        let said = wire.end().await;
        assert_eq!(said.starts_with(b"HTTP/1.1 200"), bytes.ends_with(b"\r\n\r\n"), "{}", said.escape_ascii());
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_is_let_go() {
    let house = House::with(1, |_| {}, hasty()).await;
    let login = get("/login").html().with("connection", "keep-alive").bytes(house.at);
    let mut wire = Wire::to(house.at).await;
    let many = login.repeat(64);
    // What is asked is answered until both sides' buffers are full; from then on nothing moves.
    let gone = async { while wire.send(&many).await {} };
    timeout(crate::forum::DEADLINE, gone).await.expect("the connection is closed");
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_a_place_that_is_left_is_given_to_the_next() {
    let house = House::with(1, |_| {}, Limits { connections_max: 2, ..fast() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(house.at).await;
        wire.send(&get("/healthz").with("connection", "keep-alive").bytes(house.at)).await;
        assert_eq!(wire.answer(false).await.unwrap().status, 200);
        held.push(wire);
    }
    let mut next = Wire::to(house.at).await;
    next.send(&get("/healthz").bytes(house.at)).await;
    assert!(timeout(SHORT, next.answer(false)).await.is_err(), "there is no place");
    drop(held.pop());
    assert_eq!(next.answer(false).await.unwrap().status, 200);
    drop(held);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_asks_too_often_waits_and_no_other_does() {
    let some = |n| NonZeroU32::new(n).unwrap();
    let limits = Limits { requests_per_s: some(1), requests_burst: some(3), ..fast() };
    let house = House::with(1, |_| {}, limits).await;
    let (one, other) = (house.token("one", &[Scope::Lookup]), house.token("other", &[Scope::Lookup]));
    let mut refused = None;
    for _ in 0..50 {
        let answer = get("/v1/status").bearer(&one).to(house.at).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("fifty at once are too many");
    assert_eq!((refused.status, refused.reason().as_str()), (429, "RATE"), "{refused:?}");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0, "{refused:?}");
    assert_eq!(get("/v1/status").bearer(&other).to(house.at).await.status, 200);
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    // A browser of the same person shares its token's share.
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slow_and_keeps_nobody_out_who_has_a_token() {
    let some = |n| NonZeroU32::new(n).unwrap();
    let limits = Limits { strangers_per_s: some(1), strangers_burst: some(3), ..fast() };
    let house = House::with(1, |_| {}, limits).await;
    let token = house.token("one", &[Scope::Lookup]);
    let anna = house.person("anna", Role::Viewer);
    let browser = house.sign_in(&anna).await;
    let guess = |n: u32| get("/v1/status").bearer(&format!("sdt_{n:043}"));
    let mut last = 401;
    for n in 0..50 {
        let answer = guess(n).to(house.at).await;
        assert!(answer.status == 401 || answer.status == 429, "{answer:?}");
        last = answer.status;
        if last == 429 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            break;
        }
    }
    assert_eq!(last, 429, "fifty guesses at once are too many");
    let login = crate::house::sign_in_at(house.at, "sdt_wrong").await;
    assert!(matches!(login.status, 401 | 429), "{login:?}");
    assert_eq!(get("/v1/status").bearer(&token).to(house.at).await.status, 200);
    assert_eq!(get("/").html().session(&browser.key).to(house.at).await.status, 200);
    assert_eq!(get("/healthz").to(house.at).await.status, 200);
    house.close().await;
}
