//! `demo` prints a link to each company's console, and each of them opens.

use std::fs;
use std::process::Stdio;

use crate::chrome::Chrome;
use crate::world::{Reaped, program, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_three_links_open_three_consoles_with_live_data() {
    let Some(chrome) = Chrome::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (told, said) = (folder.path().join("told"), folder.path().join("said"));
    let mut command = program();
    command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null());
    command.stdout(fs::File::create(&said).unwrap()).stderr(fs::File::create(&told).unwrap());
    let mut demo = Reaped(command.spawn().unwrap());
    let both = || format!("{}\n{}", fs::read_to_string(&said).unwrap(), fs::read_to_string(&told).unwrap());
    let text = wait_for("the demo says what to try", || {
        assert_eq!(demo.0.try_wait().unwrap(), None, "{}", both());
        Some(both()).filter(|text| text.contains("Ctrl-C stops"))
    });
    let links: Vec<_> = text.split_whitespace().filter(|word| word.contains("/#t=sdt_")).collect();
    assert_eq!(links.len(), 3, "{text}");
    // One browser for all of them: signing in at one signs out of no other.
    let visitor = chrome.visitor().await;
    let companies = || links.iter().map(|link| (*link, link.split_once("/#").unwrap().0)).zip(["acme", "bolt", "cyan"]);
    for ((link, origin), name) in companies() {
        visitor.go(link).await;
        visitor.arrives("/").await;
        visitor.reads(name).await;
        visitor.holds("its list is there", "document.querySelectorAll('main a[href^=\"/entry/\"]').length > 0").await;
        for path in ["/list", "/review", "/members", "/sync", "/report"] {
            visitor.go(&format!("{origin}{path}")).await;
            visitor
                .holds(
                    "the page is there",
                    "document.querySelector('h1') !== null && document.querySelector('main').innerText.length > 80",
                )
                .await;
        }
        visitor.go(&format!("{origin}/")).await;
        visitor.picture(&format!("demo-{name}-light")).await;
        assert_eq!(visitor.found_wrong(origin).await, [""; 0], "{name}");
    }
    for ((_, origin), name) in companies() {
        visitor.go(&format!("{origin}/list")).await;
        visitor.arrives("/list").await;
        visitor.reads(name).await;
    }
    assert_eq!(visitor.cookies().await.len(), links.len());
    visitor.leave().await;
    demo.signal("INT");
    assert_eq!(demo.end().0, Some(0), "{}", both());
}
