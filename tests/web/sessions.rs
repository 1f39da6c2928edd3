//! Sessions: from where they come, what carries them, how many there are, and what ends them. And what every answer wears.

use staydown::access::session::PER_TOKEN_MAX;
use staydown::access::token::Wanted;
use staydown::access::{Role, Scope, Scopes, Via};
use staydown::clock;
use staydown::config::WebConfig;
use staydown::replica::ids::TimeMs;
use tokio::time::timeout;

use crate::forum::DEADLINE;
use crate::house::{House, fast, sign_in_at};
use crate::wire::{Answer, Wire, ask, cookie_at, get, post};

fn refuses(answer: &Answer) -> bool {
    answer.status == 401 || answer.status == 303 && answer.header("location").unwrap().starts_with("/login")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_a_new_one_and_no_script_or_site_reads_it() {
    let mut house = House::open().await;
    let token = house.person("anna", Role::Reviewer);
    // Whoever planted a cookie before does not hold the session afterwards.
    let planted = "A".repeat(43);
    let asked = post("/login").of_our_page(house.at).session(&planted).form(&[("token", &token)]);
    let answer = asked.to(house.at).await;
    let (key, flags) = answer.session_cookie().unwrap();
    assert!(key != planted && key.len() == 43, "{answer:?}");
    let named = answer.header("set-cookie").unwrap().starts_with(&format!("{}=", cookie_at(house.at)));
    assert!(named, "browsers keep cookies of two ports apart by their names only: {answer:?}");
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(flags.contains(flag), "{flags}");
    }
    assert!(!flags.contains("Domain") && !flags.contains("Secure"), "{flags}");
    assert!(!answer.headers.iter().any(|(_, value)| value.contains(&token)), "{answer:?}");
    assert!(refuses(&get("/").html().session(&planted).to(house.at).await));
    assert_eq!(get("/").html().session(&key).to(house.at).await.status, 200);
    // Behind a proxy that ends TLS, browsers send it over TLS only.
    let config = WebConfig { allow_plaintext: true, ..WebConfig::default() };
    let proxied = house.serve(&config, fast()).await;
    let asked = post("/login").of_our_page(proxied).with("x-forwarded-proto", "https").form(&[("token", &token)]);
    assert!(asked.to(proxied).await.session_cookie().unwrap().1.contains("Secure"));
    // Nobody is signed in twice under one key.
    let [one, two] = [sign_in_at(house.at, &token).await, sign_in_at(house.at, &token).await];
    assert_ne!(one.session_cookie(), two.session_cookie());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_where_it_belongs_and_nowhere_else() {
    let house = House::open().await;
    let token = house.person("anna", Role::Admin);
    let browser = house.sign_in(&token).await;
    for asked in [
        get(&format!("/v1/status?token={token}")),
        get(&format!("/v1/status?access_token={token}")),
        get(&format!("/v1/status?t={token}")),
        get("/v1/status").with("authorization", &token),
        get("/v1/status").with("authorization", &format!("Basic {token}")),
        get("/v1/status").with("authorization", "Bearer "),
        get("/v1/status").with("authorization", "Bearer"),
        get("/v1/status").with("x-api-key", &token),
        get("/v1/status").with("cookie", &format!("token={token}")),
        get("/v1/status").session(&token),
        get("/v1/status").bearer(&browser.key),
        get("/v1/status").bearer(&token[..token.len() - 1]),
        get("/v1/status").bearer(&format!("{token}A")),
        get("/v1/status").bearer(&token.to_uppercase()),
        get("/v1/status").session(&format!("{}A", browser.key)),
        get("/v1/status").with("cookie", &format!("{}=", cookie_at(house.at))),
        // Another node's on the same host.
        get("/v1/status").with("cookie", &format!("staydown_session_{}={}", house.at.port() ^ 1, browser.key)),
    ] {
        let answer = asked.to(house.at).await;
        assert_eq!(answer.status, 401, "{asked:?}: {answer:?}");
    }
    // A token that does not hold is refused, whatever cookie is beside it.
    let answer = get("/v1/status").bearer("sdt_x").session(&browser.key).to(house.at).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(get("/v1/status").bearer(&token).to(house.at).await.status, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_their_token_and_there_are_only_so_many() {
    let house = House::open().await;
    let token = house.person("anna", Role::Viewer);
    let first = house.sign_in(&token).await;
    let mut others = Vec::new();
    for _ in 0..PER_TOKEN_MAX {
        others.push(house.sign_in(&token).await);
    }
    assert!(refuses(&get("/list").html().session(&first.key).to(house.at).await), "the idlest goes");
    assert_eq!(house.access().session_count(clock::now()), PER_TOKEN_MAX);
    assert_eq!(get("/list").html().session(&others[0].key).to(house.at).await.status, 200);

    // Signing out ends one, and tells the browser.
    let asked = post("/logout").session(&others[0].key).of_our_page(house.at).form(&[("csrf", &others[0].csrf)]);
    let answer = asked.to(house.at).await;
    assert!(answer.session_cookie().unwrap().1.contains("Max-Age=0"), "{answer:?}");
    assert!(refuses(&get("/list").html().session(&others[0].key).to(house.at).await));
    assert_eq!(get("/list").html().session(&others[1].key).to(house.at).await.status, 200);

    // Taking the token back ends all, and what is open on it.
    let mut events = Wire::to(house.at).await;
    events.send(&get("/events").session(&others[1].key).bytes(house.at)).await;
    let opened = events.answer(false).await.expect("the stream is opened");
    assert_eq!(opened.status, 200, "{opened:?}");
    house.access().revoke("anna").unwrap().unwrap();
    for browser in &others {
        assert!(refuses(&get("/list").html().session(&browser.key).to(house.at).await));
    }
    assert_eq!(sign_in_at(house.at, &token).await.status, 401);
    timeout(DEADLINE, events.end()).await.expect("the stream ends with its token");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_opens_nothing() {
    let house = House::open().await;
    let (now, before) = (clock::now(), TimeMs(clock::now().0 - 2 * TimeMs::DAY_MS));
    let wanted =
        Wanted { name: "old".into(), role: Some(Role::Admin), scopes: Scopes::default(), expires: TimeMs(now.0 - 1) };
    let (secret, _) = house.access().make_token(wanted, before).unwrap();
    let (key, _) = house.access().login(secret.reveal(), before).unwrap();
    assert_eq!(get("/v1/status").bearer(secret.reveal()).to(house.at).await.status, 401);
    assert_eq!(sign_in_at(house.at, secret.reveal()).await.status, 401);
    assert!(refuses(&get("/").html().session(key.reveal()).to(house.at).await));
    assert!(house.access().bearer(secret.reveal(), Via::Http, before).is_some(), "it was one");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_wears_the_same_headers() {
    let house = House::open().await;
    let (token, admin) = (house.token("program", &[Scope::Lookup]), house.person("anna", Role::Admin));
    let browser = house.sign_in(&admin).await;
    let css = get("/login").html().to(house.at).await.text();
    let css = css.split('"').find(|text| text.starts_with("/assets/") && text.ends_with(".css")).unwrap().to_owned();
    let too_much = post("/login").of_our_page(house.at).with("content-length", "999999999");
    for asked in [
        get("/").html().session(&browser.key),
        get("/login").html(),
        get(&css),
        get("/healthz"),
        ask("HEAD", "/healthz"),
        get("/v1/status").bearer(&token),
        get("/v1/status"),
        get("/v1/tokens").bearer(&token),
        get("/v1/nothing").bearer(&token),
        get("/nothing").html().session(&browser.key),
        ask("DELETE", "/list").session(&browser.key).of_our_page(house.at).with("x-csrf-token", &browser.csrf),
        get("/members").html(),
        get("/healthz").with("host", "evil.example"),
        post("/logout").session(&browser.key).form(&[]),
        get("/events").session(&browser.key),
        too_much,
    ] {
        let answer = asked.to(house.at).await;
        let says = |name: &str, part: &str| answer.header(name).is_some_and(|value| value.contains(part));
        let policy = answer.header("content-security-policy").unwrap_or_default().to_owned();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{asked:?}: {answer:?}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert!(says("x-content-type-options", "nosniff"), "{asked:?}: {answer:?}");
        assert!(says("referrer-policy", "same-origin"), "{asked:?}: {answer:?}");
        assert!(says("x-frame-options", "DENY"), "{asked:?}: {answer:?}");
        assert!(says("cross-origin-opener-policy", "same-origin"), "{asked:?}: {answer:?}");
        assert!(says("cross-origin-resource-policy", "same-origin"), "{asked:?}: {answer:?}");
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() >= 8), "{asked:?}: {answer:?}");
        let is_asset =
            answer.status == 200 && answer.header("content-type").is_some_and(|kind| kind.starts_with("text/css"));
        assert_eq!(says("cache-control", "no-store"), !is_asset, "{asked:?}: {answer:?}");
        assert!(answer.header("server").is_none() && answer.header("x-powered-by").is_none(), "{answer:?}");
    }
    // What a caller calls its request is not repeated if it could be anything else.
    let odd = get("/healthz").with("x-request-id", "<script>alert(1)</script>").to(house.at).await;
    assert!(!odd.header("x-request-id").unwrap().contains('<'), "{odd:?}");
    house.close().await;
}
