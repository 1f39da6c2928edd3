//! The console over TLS: browsers speak HTTP/2 there, which names hosts otherwise, and send the cookie nowhere else.

use std::fs;

use crate::chrome::Chrome;
use crate::stage::hex_of;
use crate::world::{Forum, hash, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_people_sign_in_and_send_forms_and_the_cookie_is_secure() {
    let Some(chrome) = Chrome::shared() else { return };
    let mut forum = Forum::found(1);
    let folder = forum.folder.path().to_owned();
    let (certificate, key) = (folder.join("web.pem"), folder.join("web-key.pem"));
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let company = &forum.companies[0];
    let settings = format!(
        "[peer]\nlisten = \"{}\"\n\n[web]\nlisten = \"127.0.0.1:0\"\ncertificate = {certificate:?}\nkey = {key:?}\n",
        company.address
    );
    fs::write(company.data.join("staydown.toml"), settings).unwrap();
    forum.join();
    let company = &forum.companies[0];
    let link = wait_for("a token is made", || {
        let ran = company.run(&["token", "new", "--name", "anna", "--role", "admin"]);
        ran.out.split_whitespace().find(|word| word.contains("#t=sdt_")).map(ToOwned::to_owned)
    });
    assert!(link.starts_with("https://"), "{link}");
    let origin = link.split_once("/#").unwrap().0.to_owned();
    company.does(&["submit", &format!("sha256:{}", hash(1)), "--label", "symbol"]);

    let visitor = chrome.visitor().await;
    visitor.go(&link).await;
    visitor.arrives("/").await;
    let spoken = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(visitor.value(spoken).await, "h2");
    let cookies = visitor.cookies().await;
    assert!(cookies.len() == 1 && cookies[0].secure && cookies[0].http_only, "{cookies:?}");
    // A form and a request of a script, both with the name of the host where HTTP/2 has it.
    visitor.go(&format!("{origin}/submit")).await;
    visitor.fill("[name=pasted]", &format!("sha256:{}", hash(2))).await;
    visitor.click("form[action='/submit/look'] [type=submit]").await;
    visitor.holds("it is looked up", "document.querySelector('[name=signal]') !== null").await;
    let value = visitor.value("document.querySelector('[name=signal]').value").await;
    assert_eq!(hex_of(value.as_str().unwrap(), 64), Some(hash(2)));
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    visitor.click("form[action='/logout'] [type=submit]").await;
    visitor.holds("they are signed out", "location.pathname === '/login'").await;
    visitor.leave().await;
}
