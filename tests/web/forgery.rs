//! Requests that somebody else's page makes a browser of ours send, and names that somebody else's server gives us.

use std::net::SocketAddr;

use staydown::access::{Role, Scope};
use staydown::clock;
use staydown::config::WebConfig;
use tonic::transport::Endpoint;
use tower::{Service as _, ServiceExt as _};

use crate::house::{Browser, House, fast, sign_in_at};
use crate::wire::{Ask, ask, cookie_at, get, post};

/// What ends the session, if it gets through.
fn leave(browser: &Browser, at: SocketAddr) -> Ask {
    post("/logout").session(&browser.key).with("origin", &format!("http://{at}"))
}

fn is_open(house: &House, browser: &Browser) -> bool {
    house.access().session(&browser.key, clock::now()).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_form_of_this_very_session_changes_anything() {
    let house = House::open().await;
    let token = house.person("anna", Role::Admin);
    let (anna, other) = (house.sign_in(&token).await, house.sign_in(&token).await);
    let at = house.at;
    let form = |csrf: &str| leave(&anna, at).form(&[("csrf", csrf)]);
    let cut = &anna.csrf[..anna.csrf.len() - 1];
    let both = [("csrf", "x"), ("csrf", anna.csrf.as_str())];
    for (what, asked) in [
        ("no text", leave(&anna, at).form(&[])),
        ("an empty one", form("")),
        ("one that is made up", form("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("another session's", form(&other.csrf)),
        ("a part of it", form(cut)),
        ("the session's key itself", form(&anna.key)),
        ("the first of two", leave(&anna, at).form(&both)),
        (
            "in the address",
            ask("POST", &format!("/logout?csrf={}", anna.csrf))
                .session(&anna.key)
                .with("origin", &format!("http://{at}"))
                .form(&[]),
        ),
        ("another's in the header", form(&anna.csrf).with("x-csrf-token", &other.csrf)),
        ("as plain text", leave(&anna, at).body("text/plain", format!("csrf={}", anna.csrf))),
        ("without a type", leave(&anna, at).with("content-length", "0")),
        (
            "as files, where none are taken",
            leave(&anna, at).body(
                "multipart/form-data; boundary=x",
                format!("--x\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{}\r\n--x--\r\n", anna.csrf),
            ),
        ),
        ("as JSON", leave(&anna, at).json(&serde_json::json!({"csrf": anna.csrf}))),
    ] {
        let answer = asked.to(at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "CSRF"), "{what}: {answer:?}");
        assert!(is_open(&house, &anna), "{what}");
    }
    let answer = form(&anna.csrf).to(at).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(!is_open(&house, &anna) && is_open(&house, &other));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_from_another_site_is_refused_whatever_it_shows() {
    let house = House::open().await;
    let anna = house.sign_in(&house.person("anna", Role::Admin)).await;
    let at = house.at;
    let ours = format!("http://{at}");
    let form = || post("/logout").session(&anna.key).form(&[("csrf", &anna.csrf)]);
    let next_port = format!("http://127.0.0.1:{}", at.port().wrapping_add(1));
    for origin in
        ["http://evil.example", "null", "", &next_port, &format!("{ours}.evil.example"), "http://127.0.0.1", "file://"]
    {
        let answer = form().with("origin", origin).to(at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "ORIGIN"), "{origin}: {answer:?}");
    }
    for site in ["cross-site", "same-site", "none", "", "SAME-ORIGIN"] {
        let answer = form().with("origin", &ours).with("sec-fetch-site", site).to(at).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "ORIGIN"), "{site}: {answer:?}");
    }
    let answer = form().to(at).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "ORIGIN"), "a browser that says nothing: {answer:?}");
    // The API, by a browser: a cookie is no token.
    let api = post("/v1/lookup").session(&anna.key).json(&serde_json::json!({}));
    for asked in [api.clone().with("origin", "http://evil.example"), api.clone(), api.with("origin", &ours)] {
        let answer = asked.to(at).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    // Signing somebody in as somebody else is forgery, too.
    let token = house.person("mallory", Role::Viewer);
    let form = post("/login").form(&[("token", &token)]);
    for asked in
        [form.clone(), form.clone().with("origin", "http://evil.example"), form.with("sec-fetch-site", "cross-site")]
    {
        let answer = asked.to(at).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.session_cookie().is_none(), "{answer:?}");
    }
    assert!(is_open(&house, &anna));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_site_is_ever_let_in_by_a_header() {
    let house = House::open().await;
    let token = house.token("reader", &[Scope::Lookup]);
    let anna = house.sign_in(&house.person("anna", Role::Admin)).await;
    for asked in [
        ask("OPTIONS", "/v1/lookup")
            .with("access-control-request-method", "POST")
            .with("access-control-request-headers", "authorization"),
        get("/v1/status").bearer(&token),
        get("/").html().session(&anna.key),
        get("/login").html(),
    ] {
        let answer = asked.with("origin", "http://evil.example").to(house.at).await;
        let opened = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control-"));
        assert_eq!(opened.count(), 0, "{answer:?}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let mut house = House::open().await;
    let token = house.token("reader", &[Scope::Lookup]);
    let config = WebConfig { hosts: vec!["hashes.acme.example".into()], ..WebConfig::default() };
    let named = house.serve(&config, fast()).await;
    let evil = [
        "evil.example",
        "evil.example:7701",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "hashes.acme.example.evil.example",
    ];
    let odd = ["", ":7701", "a@127.0.0.1", "127.0.0.1/x", "0x7f000001.evil", "hashes.acme.example:x:y"];
    for host in evil.into_iter().chain(odd) {
        for path in ["/healthz", "/login", "/v1/status", "/assets/x"] {
            let answer = get(path).with("host", host).bearer(&token).to(named).await;
            assert!(matches!(answer.status, 400 | 421), "{host:?} {path}: {answer:?}");
        }
    }
    for host in [
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost:7701",
        "LOCALHOST",
        "[::1]:7701",
        "hashes.acme.example",
        "Hashes.Acme.Example:443",
    ] {
        let answer = get("/healthz").with("host", host).to(named).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    let answer = get("/healthz").with("host", "hashes.acme.example").to(house.at).await;
    assert_eq!((answer.status, answer.reason().as_str()), (421, "HOST"), "a name that no setting names");
    let twice = get("/healthz").with("host", "127.0.0.1").with("host", "evil.example").to(named).await;
    assert!(matches!(twice.status, 400 | 421), "{twice:?}");
    house.close().await;
}

/// Over HTTP/2 there is no Host header: the name stands elsewhere, and the same rules hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_over_http_2_are_judged_by_the_same_rules() {
    let house = House::open().await;
    let anna = house.sign_in(&house.person("anna", Role::Admin)).await;
    let ours = format!("http://{}", house.at);
    let mut channel = Endpoint::from_shared(ours.clone()).unwrap().connect_lazy();
    let mut send = async |origin: &str, csrf: &str| {
        let body = http_body_util::Full::new(bytes::Bytes::from(format!("csrf={csrf}")));
        let request = http::Request::post("/logout")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", format!("{}={}", cookie_at(house.at), anna.key))
            .header("origin", origin)
            .header("sec-fetch-site", "same-origin");
        let request = request.body(tonic::body::Body::new(body)).unwrap();
        channel.ready().await.unwrap().call(request).await.unwrap().status().as_u16()
    };
    assert_eq!(send("http://evil.example", &anna.csrf).await, 403);
    assert_eq!(send(&ours, "x").await, 403);
    assert!(is_open(&house, &anna));
    assert_eq!(send(&ours, &anna.csrf).await, 303);
    assert!(!is_open(&house, &anna));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_signing_in_nobody_is_sent_to_another_site() {
    let house = House::open().await;
    let token = house.person("anna", Role::Viewer);
    for next in [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "/\r\nset-cookie: a=b",
        "evil.example",
        "",
    ] {
        let asked = post("/login").of_our_page(house.at).form(&[("token", &token), ("next", next)]);
        let answer = asked.to(house.at).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{next:?}: {answer:?}");
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 1, "{answer:?}");
        let page = get(&format!("/login?next={}", crate::wire::encoded(next))).html().to(house.at).await;
        assert!(!page.text().contains("evil.example") && !page.text().contains("javascript:"), "{page:?}");
    }
    let asked = post("/login").of_our_page(house.at).form(&[("token", &token), ("next", "/list?q=a")]);
    assert_eq!(asked.to(house.at).await.header("location"), Some("/list?q=a"));
    // Whoever is sent to sign in comes back to where they were, on this site.
    let sent = get("//evil.example/x").html().to(house.at).await;
    assert!(sent.header("location").is_none_or(|to| to.starts_with("/login")), "{sent:?}");
    assert_eq!(sign_in_at(house.at, "sdt_wrong").await.status, 401);
    house.close().await;
}
