//! HTTP/1.1 by hand, so that a test can also send what no client would.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::forum::DEADLINE;

/// A request. It names its host and closes its connection, unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    session: Option<String>,
    body: Vec<u8>,
}

/// Name of the cookie of a session at a listener.
pub fn cookie_at(at: SocketAddr) -> String {
    format!("staydown_session_{}", at.port())
}

pub fn ask(method: &str, path: &str) -> Ask {
    Ask { method: method.into(), path: path.into(), headers: Vec::new(), session: None, body: Vec::new() }
}

pub fn get(path: &str) -> Ask {
    ask("GET", path)
}

pub fn post(path: &str) -> Ask {
    ask("POST", path)
}

impl Ask {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    pub fn session(mut self, key: &str) -> Self {
        self.session = Some(key.to_owned());
        self
    }

    /// As a browser asks that shows a page.
    pub fn html(self) -> Self {
        self.with("accept", "text/html,application/xhtml+xml")
    }

    /// As a browser sends a form of our own page.
    pub fn of_our_page(self, at: SocketAddr) -> Self {
        self.with("origin", &format!("http://{at}")).with("sec-fetch-site", "same-origin")
    }

    pub fn body(mut self, kind: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self.with("content-type", kind)
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let mut form = String::new();
        for (name, value) in fields {
            let sep = if form.is_empty() { "" } else { "&" };
            form.push_str(&format!("{sep}{name}={}", encoded(value)));
        }
        self.body("application/x-www-form-urlencoded", form)
    }

    pub fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// The bytes that are sent.
    pub fn bytes(&self, at: SocketAddr) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(n, _)| n == name);
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !has("host") {
            head.push_str(&format!("host: {at}\r\n"));
        }
        if !has("connection") {
            head.push_str("connection: close\r\n");
        }
        let has_length = has("content-length") || has("transfer-encoding");
        if !has_length && (!self.body.is_empty() || !matches!(self.method.as_str(), "GET" | "HEAD")) {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        if let Some(key) = &self.session {
            head.push_str(&format!("cookie: {}={key}\r\n", cookie_at(at)));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = head.into_bytes();
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it on a connection of its own, and waits for the answer.
    pub async fn to(&self, at: SocketAddr) -> Answer {
        let mut stream = Wire::to(at).await;
        stream.send(&self.bytes(at)).await;
        let is_head = self.method == "HEAD";
        let answer = stream.answer(is_head).await;
        answer.unwrap_or_else(|| panic!("the connection was closed without an answer to {self:?}"))
    }
}

/// Everything but letters and digits as %XX.
pub fn encoded(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn to(at: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(at).await.unwrap(), read: Vec::new() }
    }

    /// Sends, as far as the other side takes it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// More of what comes; false: the connection has ended.
    async fn more(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.read)).await;
        !matches!(read.expect("the other side says something, or goes"), Ok(0) | Err(_))
    }

    /// Waits until the other side has closed, and returns what it said until then.
    pub async fn end(mut self) -> Vec<u8> {
        while self.more().await {}
        self.read
    }

    /// The next answer; none: the connection ended without one. Of a stream of events, the head.
    pub async fn answer(&mut self, is_head: bool) -> Option<Answer> {
        let (mut answer, length) = loop {
            let (head, end) = self.head().await?;
            let mut answer = Answer::of(&head)?;
            self.read.drain(..end);
            // "100 Continue" is followed by the answer.
            if answer.status == 100 {
                continue;
            }
            let events = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
            if is_head || events || matches!(answer.status, 204 | 304) {
                return Some(answer);
            }
            if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
                answer.body = self.chunks().await;
                return Some(answer);
            }
            let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
            break (answer, length);
        };
        while length.is_none_or(|length| self.read.len() < length) && self.more().await {}
        let length = length.unwrap_or(self.read.len()).min(self.read.len());
        answer.body = self.read.drain(..length).collect();
        Some(answer)
    }

    async fn head(&mut self) -> Option<(String, usize)> {
        loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                return Some((String::from_utf8_lossy(&self.read[..at]).into_owned(), at + 4));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = self.read.windows(2).position(|w| w == b"\r\n") {
                    break self.read.drain(..at + 2).collect::<Vec<_>>();
                }
                if !self.more().await {
                    return body;
                }
            };
            let text = String::from_utf8_lossy(&line);
            let length = usize::from_str_radix(text.trim().split(';').next().unwrap(), 16).unwrap();
            while self.read.len() < length + 2 {
                if !self.more().await {
                    return body;
                }
            }
            body.extend(&self.read[..length]);
            self.read.drain(..length + 2);
            if length == 0 {
                return body;
            }
        }
    }
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn of(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        Some(Self { status, headers: lines.filter_map(pair).collect(), body: Vec::new() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The short reason of a problem.
    pub fn reason(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The cookie of a session that is set: its value, and its flags.
    pub fn session_cookie(&self) -> Option<(String, String)> {
        let mut set = self.headers.iter().filter(|(n, _)| n == "set-cookie");
        set.find_map(|(_, value)| {
            let (pair, flags) = value.split_once(';').unwrap_or((value, ""));
            let (n, v) = pair.split_once('=')?;
            n.starts_with("staydown_session_").then(|| (v.to_owned(), flags.trim().to_owned()))
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}\n{:.2000}", self.status, self.headers, self.text())
    }
}
