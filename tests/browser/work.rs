//! What people do in the console: sign in, submit, dispute, decide; and what reaches them without asking.

use std::fs;

use crate::pages::dispute;
use crate::stage::{ACME, BOLT, Stage, hex_of};
use crate::world::{hash, poster, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_becomes_a_cookie_that_no_script_reads_and_the_token_is_gone() {
    let Some(stage) = Stage::shared() else { return };
    let (origin, link) = (stage.origin(ACME), stage.link(ACME, "reviewer"));
    let token = link.split_once("#t=").unwrap().1.to_owned();
    let visitor = stage.chrome().visitor().await;
    visitor.go(&link).await;
    visitor.arrives("/").await;
    assert!(!visitor.address().await.contains("sdt_"), "{}", visitor.address().await);
    let cookies = visitor.cookies().await;
    let [cookie] = &cookies[..] else { panic!("one cookie: {cookies:?}") };
    assert!(cookie.name.starts_with("staydown_session_") && cookie.http_only && cookie.session, "{cookie:?}");
    assert!(!cookie.value.contains(&token), "{cookie:?}");
    assert_eq!(visitor.value("document.cookie").await, "");
    // Nothing of it stays where a script, another page or the next person looks.
    let stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, document.documentElement.outerHTML, performance.getEntries().map(e => e.name)])";
    assert!(!visitor.value(stored).await.to_string().contains(&token));
    // On the way back the page goes, and its answer with it.
    visitor.ask("history.back()").await.ok();
    visitor.holds("going back shows no token", "!location.href.includes('sdt_')").await;
    visitor.go(&format!("{origin}/")).await;
    visitor.arrives("/").await;
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);

    // A link that does not hold says so, and one that was revoked too.
    let stranger = stage.chrome().visitor().await;
    stranger.go(&format!("{origin}/#t=sdt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).await;
    stranger
        .holds("it is refused", "location.pathname === '/login' && /does not open/.test(document.body.innerText)")
        .await;
    assert!(!stranger.address().await.contains("sdt_"));
    stranger.leave().await;

    visitor.click("form[action='/logout'] [type=submit]").await;
    visitor.holds("they are signed out", "location.pathname === '/login'").await;
    assert_eq!(visitor.cookies().await.len(), 0);
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_is_dropped_is_hashed_signed_and_forgotten() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(ACME);
    let (path, _) = poster(stage.folder(), 21);
    let bytes = fs::read(&path).unwrap();
    let visitor = stage.signed_in(ACME, "reviewer").await;
    visitor.go(&format!("{origin}/submit")).await;
    visitor.drop_on("[data-drop] .drop", "a-telling-name.png", "image/png", &bytes).await;
    visitor.holds("its hashes can be signed", "document.querySelectorAll('[name=signal]').length > 0").await;
    let page = visitor.value("document.documentElement.outerHTML").await.to_string();
    assert!(!page.contains("a-telling-name"), "not even its name is shown");
    assert_eq!(visitor.value("[...document.images].filter(i => !i.src.includes('/assets/')).length").await, 0);
    let value = visitor.value("document.querySelector('[name=signal]').value").await;
    let value = hex_of(value.as_str().unwrap(), 64).or_else(|| hex_of(value.as_str().unwrap(), 32)).unwrap();
    visitor.picture("submit-hashed-light").await;
    visitor.click("[name=label][value=propaganda]").await;
    visitor.click("form[action='/submit'] [type=submit].primary").await;
    visitor
        .holds(
            "it says that it is signed",
            "document.querySelector('.flash') !== null && !document.querySelector('[name=signal]')",
        )
        .await;
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    // The other company has it, and this node has no picture.
    let found = wait_for("bolt has it", || {
        let listed = stage.company(BOLT).run(&["match", &path, "--json"]);
        listed.out.contains("acme").then_some(listed.out)
    });
    assert!(found.contains(&value), "{value}: {found}");
    let piece = &bytes[bytes.len() / 2..bytes.len() / 2 + 64];
    let holds = |bytes: &[u8]| bytes.windows(piece.len()).any(|window| window == piece);
    let files = every_file(&stage.company(ACME).data);
    assert!(files.len() > 5 && files.iter().all(|path| !holds(&fs::read(path).unwrap_or_default())), "no copy is kept");

    // By the file field, which is there for whoever does not drag; a smaller copy is near to what is listed now.
    let (_, copy) = poster(stage.folder(), 21);
    visitor.go(&format!("{origin}/submit")).await;
    visitor.attach("input[type=file]", &copy).await;
    if visitor.count("[name=signal]").await == 0 {
        visitor.ask("document.querySelector('[data-drop] [type=submit]')?.click()").await.ok();
    }
    visitor.holds("the near match is shown", "/near matches/i.test(document.body.innerText)").await;
    assert!(visitor.text("main").await.contains("acme"));
    visitor.picture("submit-near-light").await;
    visitor.leave().await;
}

fn every_file(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(every_file(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_company_lists_appears_by_itself() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(ACME);
    let visitor = stage.signed_in(ACME, "viewer").await;
    let item = hash(960);
    visitor.value("window.stays = true").await;
    stage.company(BOLT).does(&["submit", &format!("sha256:{item}"), "--label", "propaganda"]);
    let shown = format!("document.querySelector('main a[href=\"/entry/sha256/{item}\"]') !== null");
    visitor.holds("the entry is on the page", &shown).await;
    assert_eq!(visitor.value("window.stays").await, true, "and the page was not loaded again");
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    visitor.click(&format!("main a[href='/entry/sha256/{item}']")).await;
    visitor.arrives(&format!("/entry/sha256/{item}")).await;
    // On the page of an entry, a word that is new is told too.
    visitor.value("window.stays = true").await;
    stage.company(BOLT).does(&["entry", "withdraw", &format!("sha256:{item}")]);
    let told = "[...document.querySelectorAll('[data-live-entry]')].some(e => !e.hidden)";
    visitor.holds("it says that something is new", told).await;
    assert_eq!(visitor.value("window.stays").await, true);
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_are_told_when_another_company_disputes_our_entry() {
    let Some(stage) = Stage::shared() else { return };
    let item = hash(970);
    stage.company(ACME).does(&["submit", &format!("sha256:{item}"), "--label", "symbol"]);
    let (ours, theirs) = (stage.signed_in(ACME, "reviewer").await, stage.signed_in(BOLT, "reviewer").await);
    ours.go(&format!("{}/members", stage.origin(ACME))).await;
    ours.value("window.stays = true").await;
    let count = "Number(document.querySelector('nav [data-count=reviews]')?.innerText || 0)";
    let before = ours.value(count).await.as_f64().unwrap();

    let origin = stage.origin(BOLT);
    wait_for("bolt has it", || {
        (stage.company(BOLT).run(&["entry", "show", &format!("sha256:{item}")]).code == Some(0)).then_some(())
    });
    theirs.go(&format!("{origin}/entry/sha256/{item}")).await;
    dispute(&theirs, "counter-speech").await;
    assert_eq!(theirs.found_wrong(&origin).await, [""; 0]);

    ours.holds("one more waits", &format!("{count} > {before}")).await;
    ours.holds(
        "a notice says that our entry is disputed",
        "[...document.querySelectorAll('.flash, #live')].some(e => !e.hidden && /disput/i.test(e.innerText))",
    )
    .await;
    assert_eq!(ours.value("window.stays").await, true, "and the page was not loaded again");
    ours.picture("notice-light").await;
    assert_eq!(ours.found_wrong(&stage.origin(ACME)).await, [""; 0]);
    ours.leave().await;
    theirs.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_worked_off_by_keyboard() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(ACME);
    let item = hash(980);
    let (ours, named) = (stage.company(ACME), format!("sha256:{item}"));
    ours.does(&["submit", &named, "--label", "symbol"]);
    wait_for("bolt has it", || (stage.company(BOLT).run(&["entry", "show", &named]).code == Some(0)).then_some(()));
    stage.company(BOLT).does(&["entry", "dispute", &named, "--reason", "art-parody"]);
    wait_for("it waits at acme", || ours.run(&["review", "list", "--json"]).out.contains(&item).then_some(()));

    let visitor = stage.signed_in(ACME, "reviewer").await;
    // To the queue: g, and then r.
    visitor.press("g").await;
    visitor.press("r").await;
    visitor.arrives("/review").await;
    let of_item = format!("document.activeElement?.closest('[data-item]')?.innerHTML.includes('{item}') === true");
    for _ in 0..50 {
        if visitor.value(&of_item).await == true {
            break;
        }
        visitor.press("j").await;
    }
    visitor.holds("j goes to it", &of_item).await;
    visitor.picture("review-keyboard-light").await;
    // w withdraws: its form opens with the focus in it. Nothing is signed by one key.
    visitor.press("w").await;
    visitor
        .holds("the form is open", "document.querySelector('form.decide [name=decision]')?.value === 'withdraw'")
        .await;
    let before = ours.does(&["entry", "show", &named, "--json"]).json();
    assert!(before["said"].to_string().contains("SUBMIT"), "{before}");
    let on_submit =
        "document.activeElement?.type === 'submit' && document.activeElement.closest('form.decide') !== null";
    for _ in 0..20 {
        if visitor.value("document.activeElement?.name === 'reason'").await == true {
            visitor.press("ArrowDown").await;
        }
        if visitor.value(on_submit).await == true {
            break;
        }
        visitor.press("Tab").await;
    }
    visitor.holds("the keyboard reaches the button", on_submit).await;
    visitor.press("Enter").await;
    visitor.holds("it is decided", &format!("document.querySelector('.flash') !== null && !document.querySelector('main').innerHTML.includes('{item}')")).await;
    wait_for("it has left the queue", || (!ours.run(&["review", "list", "--json"]).out.contains(&item)).then_some(()));
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);

    // The help is there, and closes.
    visitor.press("?").await;
    visitor.holds("? shows the keys", "document.querySelector('dialog[open]') !== null").await;
    visitor.press("Escape").await;
    visitor.holds("Escape closes it", "document.querySelector('dialog[open]') === null").await;
    visitor.press("/").await;
    visitor.holds("/ goes to the search", "document.activeElement?.name === 'q'").await;
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_has_plots_their_figures_and_files() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(ACME);
    let visitor = stage.signed_in(ACME, "viewer").await;
    visitor.go(&format!("{origin}/report")).await;
    let plots = "[...document.querySelectorAll('main svg')].filter(s => s.getAttribute('role') === 'img')";
    visitor.holds("plots are named", &format!("{plots}.length > 0 && {plots}.every(s => (s.getAttribute('aria-label') || s.getAttribute('aria-labelledby') || s.querySelector('title')))")).await;
    visitor.holds("their figures are in tables", "document.querySelectorAll('main table td').length > 4").await;
    let links = "[...document.querySelectorAll('main a[download]')].map(a => a.href)";
    let links = visitor.value(links).await;
    let links: Vec<_> = links.as_array().unwrap().iter().map(|link| link.as_str().unwrap().to_owned()).collect();
    assert!(links.len() >= 2, "{links:?}");
    for link in links {
        let answer = visitor
            .value(&format!(
                "fetch({}).then(async r => [r.status, (await r.text()).length, r.headers.get('content-disposition')])",
                serde_json::Value::from(link.as_str())
            ))
            .await;
        assert!(
            answer[0] == 200 && answer[1].as_u64() > Some(100) && answer[2].to_string().contains("attachment"),
            "{link}: {answer}"
        );
    }
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    visitor.leave().await;
}
