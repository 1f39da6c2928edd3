//! The suite proves of itself that it would notice: each kind of fault, on a page that is made to have it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::chrome::{Chrome, DESK, PHONE, axe};

/// A server of pages that are written here.
struct Pages {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pages {
    /// Answers each path with the body that `of` gives, under a policy as strict as ours.
    fn serve(of: fn(&str) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A browser that goes away in the middle is no fault here.
                drop(stream.and_then(|stream| answer(stream, of)));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

fn answer(mut stream: TcpStream, of: fn(&str) -> Option<String>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(crate::world::DEADLINE))?;
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => request.extend(&part[..read]),
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = of(path).map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\
         content-security-policy: default-src 'none'; img-src data:; script-src 'self' 'nonce-x'; style-src 'self' 'nonce-x'\r\n\r\n{body}",
        body.len()
    )
}

fn page(main: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Example</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"></head><body><main><h1>Example</h1>{main}</main></body></html>"
    )
}

fn faults(path: &str) -> Option<String> {
    let main = match path {
        "/" => "<p>Nothing is wrong here.</p>",
        "/error" => "<script nonce=\"x\">console.error('an error')</script>",
        "/warning" => "<script nonce=\"x\">console.warn('a warning')</script>",
        "/exception" => "<script nonce=\"x\">missing()</script>",
        "/promise" => "<script nonce=\"x\">Promise.reject(new Error('unheard'))</script>",
        "/inline" => "<script>console.log('never')</script>",
        "/style" => "<p style=\"color: red\">Red</p>",
        "/foreign" => "<img alt=\"\" src=\"http://example.org/pixel.png\">",
        "/gone" => "<script nonce=\"x\" src=\"/nothing.js\"></script>",
        "/wide" => "<div class=\"wide\">wide</div><style nonce=\"x\">.wide { width: 800px }</style>",
        "/pale" => "<p>Pale</p><style nonce=\"x\">p { color: #ccc; background: #fff }</style>",
        "/unlabelled" => "<form><input name=\"q\"></form>",
        "/dark" => "<p>Dark</p><style nonce=\"x\">@media (prefers-color-scheme: dark) { p { display: none } }</style>",
        _ => return None,
    };
    Some(page(main))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_fault_is_noticed() {
    let Some(chrome) = Chrome::shared() else { return };
    let pages = Pages::serve(faults);
    let origin = pages.origin();
    let visitor = chrome.visitor().await;

    visitor.go(&format!("{origin}/")).await;
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0]);
    for (path, expected) in [
        ("error", "an error"),
        ("warning", "a warning"),
        ("exception", "missing is not defined"),
        ("promise", "unheard"),
        ("inline", "Content Security Policy"),
        ("style", "Content Security Policy"),
        ("foreign", "outside http://127.0.0.1:"),
        ("gone", "answered 404"),
    ] {
        visitor.go(&format!("{origin}/{path}")).await;
        let wrong = visitor.found_wrong(&origin).await;
        assert!(wrong.iter().any(|line| line.contains(expected)), "{path}: {expected:?} is not in {wrong:#?}");
    }
    visitor.go(&format!("{origin}/")).await;
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0], "nothing stays from one page to the next");

    visitor.window(PHONE).await;
    visitor.go(&format!("{origin}/wide")).await;
    assert!(visitor.too_wide().await.unwrap().contains("class=\"wide\""));
    visitor.go(&format!("{origin}/")).await;
    assert_eq!(visitor.too_wide().await, None);
    visitor.window(DESK).await;

    visitor.dark(true).await;
    visitor.go(&format!("{origin}/dark")).await;
    visitor.holds("it is dark", "getComputedStyle(document.querySelector('p')).display === 'none'").await;
    visitor.dark(false).await;
    visitor.holds("it is light", "getComputedStyle(document.querySelector('p')).display !== 'none'").await;

    visitor.scripts(false).await;
    visitor.go(&format!("{origin}/error")).await;
    assert_eq!(visitor.found_wrong(&origin).await, [""; 0], "no script ran");
    visitor.scripts(true).await;

    if let Some(axe) = axe() {
        visitor.go(&format!("{origin}/")).await;
        assert_eq!(visitor.axe(&axe).await, [""; 0]);
        for (path, rule) in [("pale", "color-contrast"), ("unlabelled", "label")] {
            visitor.go(&format!("{origin}/{path}")).await;
            let found = visitor.axe(&axe).await;
            assert!(found.len() == 1 && found[0].starts_with(rule), "{path}: {found:#?}");
        }
    }
    visitor.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_visitors_share_no_cookies() {
    let Some(chrome) = Chrome::shared() else { return };
    let pages = Pages::serve(faults);
    let [one, two] = [chrome.visitor().await, chrome.visitor().await];
    for visitor in [&one, &two] {
        visitor.go(&format!("{}/", pages.origin())).await;
    }
    one.value("document.cookie = 'name=one'").await;
    assert_eq!(one.cookies().await.len(), 1);
    assert_eq!(two.cookies().await.len(), 0);
    one.leave().await;
    two.leave().await;
}
