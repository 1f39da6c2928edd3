//! Two companies with a short history between them, their consoles, and a browser to look at them.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::chrome::{Chrome, Visitor};
use crate::world::{Company, Forum, hash, poster, wait_for};

/// One stage for all tests that run at the same time: what each of them says is about entries of its own.
static SHARED: Mutex<Weak<Stage>> = Mutex::new(Weak::new());
/// So that no two tokens have one name.
static TOKENS: AtomicU32 = AtomicU32::new(0);

pub const ACME: usize = 0;
pub const BOLT: usize = 1;

/// A forum of real nodes with consoles.
pub struct Stage {
    chrome: Arc<Chrome>,
    forum: Forum,
    /// An image on the list, submitted by acme and endorsed by bolt, as `type` and value.
    pub listed: (String, String),
}

impl Stage {
    /// The stage, or nothing where there is no browser and none is required.
    pub fn shared() -> Option<Arc<Self>> {
        let chrome = Chrome::shared()?;
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = shared.upgrade().unwrap_or_else(|| Arc::new(Self::set(chrome)));
        *shared = Arc::downgrade(&stage);
        Some(stage)
    }

    /// acme lists some things; bolt endorses one and disputes another; an attack is under way.
    fn set(chrome: Arc<Chrome>) -> Self {
        let mut forum = Forum::found(2);
        forum.join();
        let (acme, bolt) = (&forum.companies[ACME], &forum.companies[BOLT]);
        let (png, _) = poster(forum.folder.path(), 1);
        acme.does(&["submit", &png, "--label", "propaganda"]);
        for number in 900..905 {
            acme.does(&["submit", &format!("sha256:{}", hash(number)), "--label", "symbol"]);
        }
        acme.does(&["incident", "open", "--label", "livestreamed-attack", "--level", "4", "--closes", "2d"]);
        let shown = acme.does(&["hash", &png, "--json"]).out;
        let value = hex_of(&shown, 64).expect("a hash of the poster");
        let kind = if shown.contains("\"pdq\"") { "pdq" } else { "sha256" };
        // Which of its hashes that is, the list says.
        let listed = [kind, "pdq", "sha256", "md5"].into_iter().find_map(|kind| {
            let item = format!("{kind}:{value}");
            (acme.run(&["entry", "show", &item]).code == Some(0)).then(|| (kind.to_owned(), value.clone()))
        });
        let listed = listed.expect("the poster is on the list");
        let item = format!("{}:{}", listed.0, listed.1);
        let disputed = format!("sha256:{}", hash(900));
        for item in [&item, &disputed] {
            wait_for("bolt has it from acme", || (bolt.run(&["entry", "show", item]).code == Some(0)).then_some(()));
        }
        bolt.does(&["entry", "endorse", &item]);
        bolt.does(&["entry", "dispute", &disputed, "--reason", "news-reporting"]);
        wait_for("acme has the dispute", || {
            let ran = acme.run(&["review", "list", "--json"]);
            ran.out.contains("disputed-own").then_some(())
        });
        Self { chrome, forum, listed }
    }

    pub fn company(&self, number: usize) -> &Company {
        &self.forum.companies[number]
    }

    pub fn folder(&self) -> &Path {
        self.forum.folder.path()
    }

    pub fn chrome(&self) -> &Arc<Chrome> {
        &self.chrome
    }

    /// Where a company's console is, as in `http://127.0.0.1:41711`.
    pub fn origin(&self, number: usize) -> String {
        origin(self.company(number))
    }

    /// A link that signs somebody in, as `token new` prints it.
    pub fn link(&self, number: usize, role: &str) -> String {
        let name = format!("{role}-{}", TOKENS.fetch_add(1, Ordering::Relaxed));
        let ran = self.company(number).does(&["token", "new", "--name", &name, "--role", role]);
        let told = ran.out.split_whitespace().find(|word| word.contains("#t=sdt_"));
        told.unwrap_or_else(|| panic!("no link in {ran:?}")).to_owned()
    }

    /// Somebody who has opened their link.
    pub async fn signed_in(&self, number: usize, role: &str) -> Visitor {
        let visitor = self.chrome.visitor().await;
        visitor.go(&self.link(number, role)).await;
        visitor.arrives("/").await;
        visitor
    }
}

pub fn origin(company: &Company) -> String {
    wait_for("the node says where its console is", || {
        let text = std::fs::read_to_string(company.data.join("web.addr")).ok()?;
        let address = text.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        (!address.is_empty()).then(|| format!("http://{address}"))
    })
}

/// The first run of so many hexadecimal digits in a text.
pub fn hex_of(text: &str, digits: usize) -> Option<String> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    runs.into_iter().find(|run| run.len() == digits).map(ToOwned::to_owned)
}
