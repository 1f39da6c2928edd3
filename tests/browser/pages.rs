//! Every page, as each kind of person sees it: at a desk and on a phone, by day and by night, with and without scripts.

use std::fmt::Write as _;

use crate::chrome::{DESK, PHONE, Visitor, axe};
use crate::stage::{ACME, BOLT, Stage};
use crate::world::hash;

/// Path, name of the picture, and an expression that is true once the page shows what it is for.
fn pages(stage: &Stage) -> Vec<(String, &'static str, &'static str)> {
    let (kind, value) = &stage.listed;
    let entry = format!("/entry/{kind}/{value}");
    let says = |path: &str, name, expression| (path.to_owned(), name, expression);
    vec![
        says(
            "/",
            "overview",
            "main.querySelectorAll('a[href^=\"/entry/\"]').length > 0 && main.querySelector('svg') !== null",
        ),
        says(
            "/list",
            "list",
            "main.querySelectorAll('tbody a[href^=\"/entry/\"]').length > 4 && /acme/.test(main.innerText)",
        ),
        says(&format!("/list?q={value}"), "found", "main.querySelectorAll('a[href^=\"/entry/\"]').length > 0"),
        says("/list?label=instruction", "nothing-found", "/nothing/i.test(main.innerText)"),
        (
            entry,
            "entry",
            "/acme/.test(main.innerText) && /bolt/.test(main.innerText) && /signature checked/.test(main.innerText)",
        ),
        says(&format!("/entry/sha256/{}", hash(900)), "disputed-entry", "/news-reporting/.test(main.innerText)"),
        says("/submit", "submit", "main.querySelector('input[type=file]') !== null"),
        says("/review", "review", "main.querySelectorAll('[data-item]').length > 0"),
        says("/members", "members", "/acme/.test(main.innerText) && /bolt/.test(main.innerText)"),
        says("/sync", "sync", "/bolt/.test(main.innerText)"),
        says("/report", "report", "main.querySelector('svg') !== null && main.querySelector('table') !== null"),
        says("/incidents", "incidents", "/livestreamed-attack/.test(main.innerText)"),
        says("/referrals", "referrals", "main.innerText.length > 80"),
        says("/resources", "resources", "main.innerText.length > 80"),
        says("/batches", "batches", "main.innerText.length > 80"),
        says("/policy", "policy", "/BLOCK/.test(main.innerText)"),
        says("/access", "access", "/admin/.test(main.innerText)"),
        says("/audit", "audit", "/sign/i.test(main.innerText)"),
    ]
}

/// What every page has, whatever it is for.
const FRAME: [(&str, &str); 9] = [
    ("one h1", "document.querySelectorAll('h1').length === 1 && document.querySelector('h1').innerText.trim() !== ''"),
    ("a title that is not the name of the program alone", "document.title.includes('·')"),
    ("one main", "document.querySelectorAll('main').length === 1"),
    ("its place in the navigation", "document.querySelectorAll('#nav [aria-current=page]').length === 1"),
    ("a way past the navigation", "document.querySelector('a.skip, a[href=\"#main\"]') !== null"),
    ("a language", "document.documentElement.lang === 'en'"),
    ("no picture but its own signs", "[...document.images].every(i => i.src.startsWith(location.origin + '/assets/'))"),
    ("no script and no style within it", "document.querySelectorAll('script:not([src]), style, [style]').length === 0"),
    (
        "a label for every field",
        "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')].every(f => f.labels.length > 0 || f.ariaLabel)",
    ),
];

/// Looks at one page, and tells what is wrong with it.
async fn look(visitor: &Visitor, origin: &str, path: &str, holds: &str, axe: Option<&str>, wrong: &mut String) {
    visitor.go(&format!("{origin}{path}")).await;
    let mut note = |what: &str, found: String| writeln!(wrong, "{path}: {what}: {found}").unwrap();
    for (what, expression) in FRAME {
        match visitor.ask(expression).await {
            Ok(value) if value == true => {}
            other => note(what, format!("{other:?}")),
        }
    }
    let own = format!("(main => {holds})(document.querySelector('main'))");
    match visitor.ask(&own).await {
        Ok(value) if value == true => {}
        other => note("what it is for", format!("{holds}: {other:?}")),
    }
    for found in visitor.found_wrong(origin).await {
        note("the browser", found);
    }
    if let Some(axe) = axe {
        for found in visitor.axe(axe).await {
            note("accessibility", found);
        }
        // What it fetched to look at styles is its own doing.
        visitor.found_wrong(origin).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_shows_what_it_is_for_and_nobody_complains() {
    let Some(stage) = Stage::shared() else { return };
    let (axe, origin) = (axe(), stage.origin(ACME));
    let visitor = stage.signed_in(ACME, "admin").await;
    let mut wrong = String::new();
    for (path, name, holds) in pages(&stage) {
        visitor.dark(false).await;
        visitor.window(DESK).await;
        look(&visitor, &origin, &path, holds, axe.as_deref(), &mut wrong).await;
        visitor.picture(&format!("{name}-light")).await;

        visitor.dark(true).await;
        if let Some(axe) = &axe {
            for found in visitor.axe(axe).await {
                writeln!(wrong, "{path}, dark: {found}").unwrap();
            }
        }
        visitor.picture(&format!("{name}-dark")).await;

        visitor.dark(false).await;
        visitor.window(PHONE).await;
        visitor.go(&format!("{origin}{path}")).await;
        if let Some(wide) = visitor.too_wide().await {
            writeln!(wrong, "{path}, phone: too wide by {wide}").unwrap();
        }
        if let Some(axe) = &axe {
            for found in visitor.axe(axe).await {
                writeln!(wrong, "{path}, phone: {found}").unwrap();
            }
        }
        visitor.picture(&format!("{name}-phone")).await;
        visitor.found_wrong(&origin).await;
    }
    assert!(wrong.is_empty(), "{wrong}");
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sign_in_page_is_as_sound_as_the_others() {
    let Some(stage) = Stage::shared() else { return };
    let (axe, origin) = (axe(), stage.origin(ACME));
    let visitor = stage.chrome().visitor().await;
    let mut wrong = Vec::new();
    for (window, dark, name) in [(DESK, false, "light"), (DESK, true, "dark"), (PHONE, false, "phone")] {
        visitor.window(window).await;
        visitor.dark(dark).await;
        visitor.go(&format!("{origin}/login")).await;
        visitor.holds("it asks for a token", "document.querySelector('form [name=token]') !== null").await;
        wrong.extend(visitor.too_wide().await);
        wrong.extend(visitor.found_wrong(&origin).await);
        if let Some(axe) = &axe {
            wrong.extend(visitor.axe(axe).await);
            visitor.found_wrong(&origin).await;
        }
        visitor.picture(&format!("login-{name}")).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_no_form_that_changes_anything() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(ACME);
    let visitor = stage.signed_in(ACME, "viewer").await;
    let mut wrong = Vec::new();
    for (path, ..) in pages(&stage) {
        let closed = matches!(path.as_str(), "/submit" | "/access" | "/audit");
        visitor.go(&format!("{origin}{path}")).await;
        let forms = "[...document.querySelectorAll('form')].filter(f => f.method === 'post' && !f.action.endsWith('/logout')).map(f => f.action)";
        let forms = visitor.value(forms).await;
        if forms.as_array().unwrap().iter().any(|_| true) {
            wrong.push(format!("{path}: {forms}"));
        }
        let found = visitor.found_wrong(&origin).await;
        let refused = found.iter().any(|line| line.contains("403"));
        if refused != closed {
            wrong.push(format!("{path}: refused is {refused}: {found:?}"));
        }
        if closed {
            visitor.holds("a refusal is a page", "document.querySelector('h1') !== null").await;
        }
    }
    let links = "[...document.querySelectorAll('nav a')].map(a => a.pathname).filter(p => ['/submit', '/access', '/audit'].includes(p))";
    visitor.go(&format!("{origin}/")).await;
    assert_eq!(visitor.value(links).await, serde_json::json!([]), "nor a link to one");
    visitor.picture("refusal-light").await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_a_person_signs_in_reads_and_disputes() {
    let Some(stage) = Stage::shared() else { return };
    let origin = stage.origin(BOLT);
    let item = hash(950);
    stage.company(ACME).does(&["submit", &format!("sha256:{item}"), "--label", "symbol"]);
    crate::world::wait_for("bolt has it", || {
        (stage.company(BOLT).run(&["entry", "show", &format!("sha256:{item}")]).code == Some(0)).then_some(())
    });
    let link = stage.link(BOLT, "reviewer");
    let visitor = stage.chrome().visitor().await;
    visitor.scripts(false).await;
    visitor.go(&format!("{origin}/entry/sha256/{item}")).await;
    visitor.holds("it asks for a token", "location.pathname === '/login'").await;
    visitor.fill("[name=token]", &link).await;
    visitor.click("form[action='/login'] [type=submit]").await;
    // Back to where they were.
    visitor.arrives(&format!("/entry/sha256/{item}")).await;
    for path in ["/", "/list", "/review", "/members", "/sync", "/report", "/submit"] {
        visitor.go(&format!("{origin}{path}")).await;
        visitor.holds("it has content", "document.querySelector('main').innerText.length > 80").await;
    }
    visitor.go(&format!("{origin}/list")).await;
    visitor.fill("main [name=q]", &item).await;
    visitor.click("main form[action='/list'] [type=submit]").await;
    visitor
        .holds(
            "it is found",
            // The whole list has it, too: the page that was asked for has to be there first.
            &format!(
                "location.search.includes('q=') && document.readyState === 'complete' && document.querySelector('main a[href=\"/entry/sha256/{item}\"]') !== null"
            ),
        )
        .await;
    visitor.click(&format!("main a[href='/entry/sha256/{item}']")).await;
    visitor.arrives(&format!("/entry/sha256/{item}")).await;
    dispute(&visitor, "art-parody").await;
    crate::world::wait_for("the dispute is signed", || {
        let shown = stage.company(BOLT).does(&["entry", "show", &format!("sha256:{item}")]).out;
        shown.contains("art-parody").then_some(())
    });
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    visitor.click("form[action='/logout'] [type=submit]").await;
    visitor.holds("they are out", "location.pathname === '/login'").await;
    visitor.go(&format!("{origin}/list")).await;
    visitor.holds("and stay out", "location.pathname === '/login'").await;
    visitor.leave().await;
}

/// Disputes the entry that the page shows, by its form.
pub async fn dispute(visitor: &Visitor, reason: &str) {
    let (form, details) = ("form:has([name=do][value=dispute])", "details:has([name=do][value=dispute])");
    if visitor.count(&format!("{details}[open]")).await == 0 {
        visitor.click(&format!("{details} > summary")).await;
    }
    visitor.choose(&format!("{form} [name=reason]"), reason).await;
    visitor.click(&format!("{form} [type=submit]")).await;
    visitor
        .holds(
            "it says what was done",
            "location.search.includes('said=') && document.querySelector('.flash') !== null",
        )
        .await;
    visitor
        .holds(
            "the page shows it",
            &format!("document.querySelector('main').innerText.includes({})", serde_json::Value::from(reason)),
        )
        .await;
}
