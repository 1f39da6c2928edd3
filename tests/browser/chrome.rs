//! A real Chromium, and a visitor in it who writes down whatever the browser complains of.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::BrowserContextId;
use chromiumoxide::cdp::browser_protocol::dom::SetFileInputFilesParams;
use chromiumoxide::cdp::browser_protocol::emulation::{
    MediaFeature, SetDeviceMetricsOverrideParams, SetEmulatedMediaParams, SetScriptExecutionDisabledParams,
};
use chromiumoxide::cdp::browser_protocol::input::InsertTextParams;
use chromiumoxide::cdp::browser_protocol::log::{EventEntryAdded, LogEntryLevel};
use chromiumoxide::cdp::browser_protocol::network::{
    Cookie, EnableParams, EventRequestWillBeSent, EventResponseReceived, GetCookiesParams,
};
use chromiumoxide::cdp::browser_protocol::page::{CaptureScreenshotFormat, NavigateParams, Viewport};
use chromiumoxide::cdp::browser_protocol::target::{CreateBrowserContextParams, CreateTargetParams};
use chromiumoxide::cdp::js_protocol::runtime::{
    ConsoleApiCalledType, EvaluateParams, EventConsoleApiCalled, EventExceptionThrown,
};
use chromiumoxide::layout::Point;
use chromiumoxide::listeners::EventStream;
use chromiumoxide::page::ScreenshotParams;
use chromiumoxide::{Browser, Page};
use futures_util::StreamExt as _;
use serde_json::Value;
use staydown::clock;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::world::{DEADLINE, Reaped, wait_for};

/// Where Debian puts it; `STAYDOWN_CHROMIUM` names another.
const CHROMIUM: &str = "/usr/bin/chromium";
/// Longest wait for anything that must come true on a page.
const PATIENCE: Duration = Duration::from_secs(60);
/// Width and height of a desk's window, and of a phone, in CSS pixels.
pub const DESK: (i64, i64) = (1280, 900);
pub const PHONE: (i64, i64) = (390, 844);
/// What axe-core must find nothing against.
const STANDARDS: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']";

/// One browser for all tests that run at the same time: it is started by the first and ends with the last.
static SHARED: Mutex<Weak<Chrome>> = Mutex::new(Weak::new());

/// A running browser with a fresh profile, that reaches this machine only.
pub struct Chrome {
    browser: Browser,
    process: Reaped,
    profile: TempDir,
    driver: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Chrome {
    /// The browser, or nothing where there is none and none is required.
    #[expect(clippy::print_stdout, reason = "says what was skipped")]
    pub fn shared() -> Option<Arc<Self>> {
        let program = PathBuf::from(env::var_os("STAYDOWN_CHROMIUM").unwrap_or_else(|| CHROMIUM.into()));
        if !program.exists() {
            assert!(!required(), "no browser at {}: apt-get install chromium", program.display());
            println!("skipped: no browser at {}: apt-get install chromium", program.display());
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let chrome = shared.upgrade().unwrap_or_else(|| Arc::new(Self::launch(&program)));
        *shared = Arc::downgrade(&chrome);
        Some(chrome)
    }

    fn launch(program: &Path) -> Self {
        let profile = TempDir::new().unwrap();
        let told = profile.path().join("stderr");
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--force-color-profile=srgb"])
            // A page that nobody looks at goes on with its timers and events all the same.
            .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding"])
            .arg("--disable-backgrounding-occluded-windows")
            // Whatever a page may ask for, no name is looked up.
            .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost")
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&told).unwrap());
        let mut process = Reaped(command.spawn().unwrap());
        let port_file = profile.path().join("DevToolsActivePort");
        let address = wait_for("the browser can be driven", || {
            let ended = process.0.try_wait().unwrap();
            assert_eq!(ended, None, "the browser ended: {}", fs::read_to_string(&told).unwrap_or_default());
            let text = fs::read_to_string(&port_file).ok()?;
            let (port, path) = text.trim().split_once('\n')?;
            Some(format!("ws://127.0.0.1:{port}{path}"))
        });
        let (give, given) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let driver = thread::spawn(move || drive(&address, &give, stopped));
        let browser = given.recv_timeout(DEADLINE).expect("the browser answers");
        Self { browser, process, profile, driver: Some((stop, driver)) }
    }

    /// A visitor with cookies of its own, at an empty page, with a desk's window.
    pub async fn visitor(self: &Arc<Self>) -> Visitor {
        let context = self.browser.create_browser_context(CreateBrowserContextParams::default()).await.unwrap();
        let mut target = CreateTargetParams::new("about:blank");
        target.browser_context_id = Some(context.clone());
        let page = self.browser.new_page(target).await.unwrap();
        let visitor = Visitor::at(self.clone(), page, context).await;
        visitor.window(DESK).await;
        visitor
    }
}

/// Hands messages between the browser and whoever drives it.
fn drive(address: &str, give: &std::sync::mpsc::Sender<Browser>, mut stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (browser, mut handler) = Browser::connect(address).await.unwrap();
        give.send(browser).unwrap();
        // An event that the library does not know is an error here, and no reason to stop.
        while tokio::select! { _ = &mut stopped => false, event = handler.next() => event.is_some() } {}
    });
}

impl Drop for Chrome {
    fn drop(&mut self) {
        // In order, so that its own processes end before their folder goes.
        self.process.signal("TERM");
        let begun = clock::instant();
        while matches!(self.process.0.try_wait(), Ok(None)) && begun.elapsed() < DEADLINE / 10 {
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.process.0.kill());
        drop(self.process.0.wait());
        if let Some((stop, driver)) = self.driver.take() {
            stop.send(()).ok();
            drop(driver.join());
        }
        // A late process of the browser may still write: its folder is emptied again.
        let begun = clock::instant();
        while begun.elapsed() < DEADLINE / 10 {
            match fs::remove_dir_all(self.profile.path()) {
                Err(e) if e.kind() != ErrorKind::NotFound => thread::sleep(Duration::from_millis(20)),
                _ => break,
            }
        }
    }
}

/// Whether what is missing is a failure.
pub fn required() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// The folder that Cargo builds into.
fn target_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// The text of axe-core, or nothing where it is missing and not required. `.ci/run` puts it there.
#[expect(clippy::print_stdout, reason = "says what was skipped")]
pub fn axe() -> Option<String> {
    let usual = || target_folder().join("axe/axe.min.js").into_os_string();
    let path = PathBuf::from(env::var_os("STAYDOWN_AXE").unwrap_or_else(usual));
    let Ok(text) = fs::read_to_string(&path) else {
        assert!(!required(), "axe-core is not at {}", path.display());
        println!("skipped: the accessibility check: axe-core is not at {} (see .ci/run)", path.display());
        return None;
    };
    Some(text)
}

/// What a browser has seen and said at one page after another.
#[derive(Default)]
struct Seen {
    /// Errors and warnings of the console, exceptions, refusals of the content security policy, failed requests.
    complaints: Vec<String>,
    /// Every address that was asked for.
    asked: Vec<String>,
    /// The last mark that [`Visitor::settle`] had the page write.
    mark: u64,
}

/// One person with cookies of their own, at one page.
pub struct Visitor {
    page: Page,
    seen: Arc<Mutex<Seen>>,
    context: BrowserContextId,
    chrome: Arc<Chrome>,
    _listeners: JoinSet<()>,
}

impl Visitor {
    async fn at(chrome: Arc<Chrome>, page: Page, context: BrowserContextId) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let listening = Listening {
            console: page.event_listener().await.unwrap(),
            exceptions: page.event_listener().await.unwrap(),
            log: page.event_listener().await.unwrap(),
            requests: page.event_listener().await.unwrap(),
            responses: page.event_listener().await.unwrap(),
            seen: seen.clone(),
        };
        page.enable_log().await.unwrap();
        page.enable_runtime().await.unwrap();
        page.execute(EnableParams::default()).await.unwrap();
        let mut listeners = JoinSet::new();
        listeners.spawn(listening.run());
        Self { page, seen, context, chrome, _listeners: listeners }
    }

    /// Opens an address and waits until it is there.
    #[track_caller]
    pub fn go(&self, address: &str) -> impl Future<Output = ()> {
        let address = address.to_owned();
        async move {
            let left = self.asked();
            let gone = self.page.goto(NavigateParams::new(&address)).await;
            gone.unwrap_or_else(|e| panic!("{address}: {e}"));
            self.holds(&format!("{address} is open, after {left:?}"), "document.readyState === 'complete'").await;
        }
    }

    /// What an expression of the page is, or why it is nothing (a promise is waited for).
    pub async fn ask(&self, expression: &str) -> Result<Value, String> {
        let mut parameters = EvaluateParams::new(expression);
        parameters.await_promise = Some(true);
        parameters.return_by_value = Some(true);
        // As if a person had just clicked: what needs that (a download) is done.
        parameters.user_gesture = Some(true);
        let answer = self.page.execute(parameters).await.map_err(|e| e.to_string())?.result;
        match answer.exception_details {
            None => Ok(answer.result.value.unwrap_or_default()),
            Some(thrown) => {
                let what = thrown.exception.and_then(|thrown| thrown.description).unwrap_or(thrown.text);
                Err(format!("{what}, of {expression:.300}"))
            }
        }
    }

    /// The same, where it cannot fail.
    pub async fn value(&self, expression: &str) -> Value {
        self.ask(expression).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until an expression of the page is true.
    pub async fn holds(&self, what: &str, expression: &str) {
        let begun = clock::instant();
        loop {
            // A page that is on its way to the next one answers nothing for a moment.
            let last = self.ask(expression).await;
            if last == Ok(Value::Bool(true)) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let page = self.ask("`${location.href}\n${document.body?.innerText}`").await;
                panic!("never came true: {what} ({expression}: {last:?}) at {page:?}; {:?}", self.complaints());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a text can be read on the page.
    pub async fn reads(&self, text: &str) {
        let expression = format!("document.body.innerText.includes({})", Value::from(text));
        self.holds(&format!("the page says {text:?}"), &expression).await;
    }

    /// Waits until the page is at a path (with its query).
    pub async fn arrives(&self, path: &str) {
        let expression = format!(
            "location.pathname + location.search === {} && document.readyState === 'complete'",
            Value::from(path)
        );
        self.holds(&format!("the page is at {path}"), &expression).await;
    }

    /// Where the page is: what the address bar shows.
    pub async fn address(&self) -> String {
        self.value("location.href").await.as_str().unwrap().to_owned()
    }

    /// How many elements a selector finds.
    pub async fn count(&self, selector: &str) -> u64 {
        let expression = format!("document.querySelectorAll({}).length", Value::from(selector));
        self.value(&expression).await.as_u64().unwrap()
    }

    /// The text of the first element that a selector finds.
    pub async fn text(&self, selector: &str) -> String {
        let expression = format!("document.querySelector({})?.innerText", Value::from(selector));
        let value = self.value(&expression).await;
        value.as_str().unwrap_or_else(|| panic!("there is no {selector}")).trim().to_owned()
    }

    /// Clicks with the mouse, where the element is. Nothing in it waits for a script of the page: there may be none.
    pub async fn click(&self, selector: &str) {
        let expression = format!(
            "(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const box = e.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})(document.querySelector({}))",
            Value::from(selector)
        );
        let at = self.ask(&expression).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
        let (x, y) = (at[0].as_f64().unwrap(), at[1].as_f64().unwrap());
        self.page.click(Point { x, y }).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// Writes into a field, in place of what stood there.
    pub async fn fill(&self, selector: &str, text: &str) {
        let expression =
            format!("(e => {{ e.focus(); e.select?.(); }})(document.querySelector({}))", Value::from(selector));
        self.value(&expression).await;
        self.page.execute(InsertTextParams::new(text)).await.unwrap();
    }

    /// Chooses of a list.
    pub async fn choose(&self, selector: &str, value: &str) {
        let expression = format!(
            "(e => {{ e.value = {v}; e.dispatchEvent(new Event('input', {{bubbles: true}})); \
             e.dispatchEvent(new Event('change', {{bubbles: true}})); return e.value === {v}; }})\
             (document.querySelector({s}))",
            v = Value::from(value),
            s = Value::from(selector)
        );
        assert_eq!(self.value(&expression).await, true, "{selector} has no {value:?}");
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: &str) {
        self.page.find_element("body").await.unwrap().press_key(key).await.unwrap();
    }

    /// Drops files upon an element, as a person does who drags them from a folder.
    pub async fn drop_on(&self, selector: &str, name: &str, media_type: &str, bytes: &[u8]) {
        let encoded = data_encoding::BASE64.encode(bytes);
        let expression = format!(
            "(() => {{ const bytes = Uint8Array.from(atob('{encoded}'), c => c.charCodeAt(0)); \
             const dataTransfer = new DataTransfer(); \
             dataTransfer.items.add(new File([bytes], {}, {{type: {}}})); \
             const zone = document.querySelector({}); \
             for (const name of ['dragenter', 'dragover', 'drop']) \
             zone.dispatchEvent(new DragEvent(name, {{dataTransfer, bubbles: true, cancelable: true}})); }})()",
            Value::from(name),
            Value::from(media_type),
            Value::from(selector)
        );
        self.value(&expression).await;
    }

    /// Puts a file of the disk into a file field.
    pub async fn attach(&self, selector: &str, path: &str) {
        let element = self.page.find_element(selector).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
        let mut parameters = SetFileInputFilesParams::new(vec![path.to_owned()]);
        parameters.backend_node_id = Some(element.backend_node_id);
        self.page.execute(parameters).await.unwrap();
    }

    /// The size of the window, in CSS pixels.
    pub async fn window(&self, (width, height): (i64, i64)) {
        let is_phone = width < 600;
        let scale = if is_phone { 2.0 } else { 1.0 };
        self.page.execute(SetDeviceMetricsOverrideParams::new(width, height, scale, is_phone)).await.unwrap();
    }

    /// Whether the person prefers dark pages.
    pub async fn dark(&self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = vec![
            MediaFeature::new("prefers-color-scheme", scheme),
            // A page in the middle of a movement would be another one at each look.
            MediaFeature::new("prefers-reduced-motion", "reduce"),
        ];
        let parameters = SetEmulatedMediaParams::builder().features(features).build();
        self.page.execute(parameters).await.unwrap();
    }

    /// Whether pages that are opened from now on may run scripts.
    pub async fn scripts(&self, are_on: bool) {
        self.page.execute(SetScriptExecutionDisabledParams::new(!are_on)).await.unwrap();
    }

    /// The cookies that the browser would send to where it is.
    pub async fn cookies(&self) -> Vec<Cookie> {
        self.page.execute(GetCookiesParams::default()).await.unwrap().result.cookies
    }

    /// Keeps a picture of the whole page in `screenshots/` of Cargo's folder.
    pub async fn picture(&self, name: &str) {
        let folder = target_folder().join("screenshots");
        fs::create_dir_all(&folder).unwrap();
        let size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]";
        let size = self.value(size).await;
        let (width, height) = (size[0].as_f64().unwrap(), size[1].as_f64().unwrap());
        // By its place, since asking for the full page would give the window another size for good.
        let clip = Viewport { x: 0.0, y: 0.0, width, height, scale: 1.0 };
        let parameters = ScreenshotParams::builder().format(CaptureScreenshotFormat::Png);
        let parameters = parameters.clip(clip).capture_beyond_viewport(true).build();
        let bytes = self.page.screenshot(parameters).await.unwrap();
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// By how many pixels the page is wider than the window, and the elements that make it so.
    pub async fn too_wide(&self) -> Option<String> {
        // A phone zooms out of what is too wide, so that `innerWidth` grows with it: the element's own width does not.
        let expression = "(() => { const page = document.documentElement, over = page.scrollWidth - page.clientWidth; \
             if (over <= 0) return null; \
             const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > page.clientWidth + 1); \
             return `${over} px: ` + wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120)).join(' | '); })()";
        self.value(expression).await.as_str().map(ToOwned::to_owned)
    }

    /// What axe-core finds wrong here: one line for each rule that is broken, with the elements.
    pub async fn axe(&self, axe: &str) -> Vec<String> {
        if self.value("typeof axe === 'undefined'").await == true {
            self.value(&format!("{axe}; undefined")).await;
        }
        let expression = format!(
            "axe.run(document, {{runOnly: {STANDARDS}, resultTypes: ['violations']}}).then(found => found.violations.map(v => \
             `${{v.id}} (${{v.help}}): ` + v.nodes.slice(0, 5).map(n => `${{n.target.join(' ')}}: ${{n.html.slice(0, 160)}} \
             ${{n.failureSummary.replaceAll('\\n', ' ')}}`).join(' | ')))"
        );
        let found = self.value(&expression).await;
        found.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until everything that the browser has said until now is written down.
    async fn settle(&self) {
        let mark = u64::from_be_bytes(clock::random()) >> 12;
        self.value(&format!("console.debug('mark', {mark})")).await;
        let begun = clock::instant();
        while self.seen.lock().unwrap().mark != mark {
            assert!(begun.elapsed() < DEADLINE, "the browser never wrote the mark");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn complaints(&self) -> Vec<String> {
        self.seen.lock().unwrap().complaints.clone()
    }

    fn asked(&self) -> Vec<String> {
        self.seen.lock().unwrap().asked.clone()
    }

    /// What the browser has complained of since the last call, and every address outside `origin` that it asked for.
    pub async fn found_wrong(&self, origin: &str) -> Vec<String> {
        self.settle().await;
        let mut seen = self.seen.lock().unwrap();
        let asked = std::mem::take(&mut seen.asked);
        let mut wrong = std::mem::take(&mut seen.complaints);
        let inside = |address: &String| {
            let rest = address.strip_prefix(origin.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
                || ["about:", "data:", "blob:"].iter().any(|scheme| address.starts_with(scheme))
        };
        wrong.extend(asked.into_iter().filter(|a| !inside(a)).map(|a| format!("asked for {a}, outside {origin}")));
        wrong
    }

    /// The visitor goes, with cookies and page.
    pub async fn leave(self) {
        let Self { page, context, chrome, .. } = self;
        page.close().await.ok();
        chrome.browser.dispose_browser_context(context).await.ok();
    }
}

/// The streams of events of one page.
struct Listening {
    console: EventStream<EventConsoleApiCalled>,
    exceptions: EventStream<EventExceptionThrown>,
    log: EventStream<EventEntryAdded>,
    requests: EventStream<EventRequestWillBeSent>,
    responses: EventStream<EventResponseReceived>,
    seen: Arc<Mutex<Seen>>,
}

impl Listening {
    /// The console comes last, so that whoever sees a mark in it has seen what came before on the others.
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.exceptions.next() => {
                    let details = &event.exception_details;
                    let what = details.exception.as_ref().and_then(|thrown| thrown.description.as_ref());
                    self.complain(format!("exception: {}", what.unwrap_or(&details.text)));
                }
                Some(event) = self.log.next() => {
                    let entry = &event.entry;
                    if matches!(entry.level, LogEntryLevel::Error | LogEntryLevel::Warning) {
                        let at = entry.url.as_deref().unwrap_or_default();
                        self.complain(format!("log, {:?}: {} {at}", entry.source, entry.text));
                    }
                }
                Some(event) = self.requests.next() => self.noted().asked.push(event.request.url.clone()),
                Some(event) = self.responses.next() => {
                    if event.response.status >= 400 {
                        self.complain(format!("{} answered {}", event.response.url, event.response.status));
                    }
                }
                Some(event) = self.console.next() => self.console_said(&event),
                else => return,
            }
        }
    }

    fn console_said(&self, event: &EventConsoleApiCalled) {
        let said: Vec<_> = event.args.iter().map(|arg| arg.value.clone().unwrap_or_default()).collect();
        match (&event.r#type, &said[..]) {
            (ConsoleApiCalledType::Debug, [word, mark]) if word == "mark" => {
                self.noted().mark = mark.as_u64().unwrap_or_default();
            }
            (ConsoleApiCalledType::Error | ConsoleApiCalledType::Warning | ConsoleApiCalledType::Assert, _) => {
                self.complain(format!("console, {:?}: {said:?}", event.r#type));
            }
            _ => {}
        }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn complain(&self, what: String) {
        self.noted().complaints.push(what);
    }
}
