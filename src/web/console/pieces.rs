//! Small pieces of markup that templates put together: badges, times, numbers, hashes, pages of a list.
//!
//! [`Html`] is the only text that templates do not escape. It is made in this file alone, of fixed words, of numbers,
//! and of what [`escaped`] has gone over: nothing that a member wrote becomes markup.

use std::borrow::Borrow;
use std::fmt;

use askama::filters::HtmlSafe;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::page::{Page, Tone};
use crate::replica::ids::TimeMs;
pub use crate::report::html::escaped;
use crate::report::tables;
use crate::report::time::{date, rfc3339};
use crate::wire::local as l;

/// What needs no encoding within one segment of a path, or one value of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Characters of a hash that are shown at its beginning, and at its end.
const ENDS_SHOWN: (usize, usize) = (12, 6);
/// Characters of a long value that is shown whole: the longest hash that is no video's, with its pepper.
const LONG_SHOWN: usize = 136;
/// Members that are named in a row; the page of the entry names them all.
const NAMES_SHOWN: usize = 3;
/// Between groups of three digits: narrow, and no line is broken there.
const THIN_SPACE: char = '\u{202f}';

/// Markup that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Html(String);

impl HtmlSafe for Html {}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Html {
    /// A hidden field of a form.
    pub fn field(name: &'static str, value: &str) -> Self {
        Self(format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escaped(value)))
    }

    /// A badge of `class` (of console.css) that says `text`.
    pub fn badge(class: &str, text: &str) -> Self {
        Self(format!("<span class=\"badge {}\">{}</span>", escaped(class), escaped(text)))
    }
}

/// `text` as one segment of a path, or one value of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The page of an entry.
pub fn entry_path(type_name: &str, value: &str) -> String {
    format!("/entry/{}/{}", encoded(type_name), encoded(value))
}

/// `1 234 567`, with narrow spaces.
pub fn count(n: u64) -> String {
    tables::grouped(n, THIN_SPACE)
}

/// `1 peer`, `2 peers`, `3 entries`, `4 days`.
pub fn counted(n: u64, thing: &str) -> String {
    let plural = match thing.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{thing}s"),
    };
    format!("{} {}", count(n), if n == 1 { thing } else { &plural })
}

/// The beginning and the end of a long hash.
pub fn short(value: &str) -> String {
    let chars: Vec<char> = value.chars().collect();
    let (head, tail) = ENDS_SHOWN;
    if chars.len() <= head + tail + 4 {
        return value.to_owned();
    }
    let head: String = chars[..head].iter().collect();
    let tail: String = chars[chars.len() - tail..].iter().collect();
    format!("{head}…{tail}")
}

/// `4 seconds ago`, `in 3 days`, `now`: the largest unit, rounded down.
pub fn relative(at: TimeMs, now: TimeMs) -> String {
    const UNITS: [(u64, &str); 6] = [
        (365 * 86_400_000, "year"),
        (30 * 86_400_000, "month"),
        (86_400_000, "day"),
        (3_600_000, "hour"),
        (60_000, "minute"),
        (1_000, "second"),
    ];
    let distance = at.0.abs_diff(now.0);
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| distance >= *unit) else { return "now".to_owned() };
    let words = counted(distance / unit, name);
    if at > now { format!("in {words}") } else { format!("{words} ago") }
}

/// `2026-07-01 06:00:00 UTC`.
pub fn absolute(at: TimeMs) -> String {
    let text = rfc3339(TimeMs(at.0 / 1_000 * 1_000));
    text.replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

/// An entry, however many references templates put before it.
pub trait HasEntry {
    /// The entry.
    fn entry(&self) -> &l::Entry;
}

impl HasEntry for l::Entry {
    fn entry(&self) -> &l::Entry {
        self
    }
}

impl<T: HasEntry> HasEntry for &T {
    fn entry(&self) -> &l::Entry {
        (*self).entry()
    }
}

/// A list that goes on: the addresses of its other pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pager {
    /// The first page; none: it is shown.
    pub first: Option<String>,
    /// The next one; none: this is the last.
    pub next: Option<String>,
    /// How many are shown here.
    pub shown: u64,
    /// What they are: `entry`.
    pub thing: &'static str,
}

impl Page {
    /// A moment in Unix milliseconds, in words, with the exact one beside it; 0 is `never`.
    pub fn time(&self, ms: impl Borrow<u64>) -> Html {
        self.moment(*ms.borrow(), relative)
    }

    /// A moment in Unix milliseconds, exactly; 0 is `never`.
    pub fn exact(&self, ms: impl Borrow<u64>) -> Html {
        self.moment(*ms.borrow(), |at, _| absolute(at))
    }

    /// A date in Unix milliseconds; 0 is `never`.
    pub fn date(&self, ms: impl Borrow<u64>) -> Html {
        self.moment(*ms.borrow(), |at, _| date(at))
    }

    fn moment(&self, ms: u64, words: impl Fn(TimeMs, TimeMs) -> String) -> Html {
        let at = TimeMs(ms);
        if ms == 0 {
            return Html("<span class=\"muted\">never</span>".to_owned());
        }
        let (exactly, words) = (absolute(at), words(at, self.now));
        Html(format!("<time datetime=\"{}\" title=\"{exactly}\">{words}</time>", rfc3339(at)))
    }

    /// A number with thin spaces between groups of digits.
    pub fn count(&self, n: impl Borrow<u64>) -> String {
        count(*n.borrow())
    }

    /// The same of a smaller number.
    pub fn count32(&self, n: impl Borrow<u32>) -> String {
        count(u64::from(*n.borrow()))
    }

    /// `2 entries`.
    pub fn counted(&self, n: impl Borrow<u64>, thing: impl AsRef<str>) -> String {
        counted(*n.borrow(), thing.as_ref())
    }

    /// Status of an entry: a word and a shape.
    pub fn status(&self, status: impl AsRef<str>) -> Html {
        let status = status.as_ref();
        Html::badge(&format!("status-{}", word(status)), status)
    }

    /// Verdict of a lookup: a word and a shape.
    pub fn verdict(&self, verdict: impl AsRef<str>) -> Html {
        let verdict = verdict.as_ref();
        Html::badge(&format!("verdict-{}", word(verdict)), verdict)
    }

    /// A badge in a tone.
    pub fn badge(&self, tone: impl Borrow<Tone>, text: impl AsRef<str>) -> Html {
        Html::badge(&format!("tone-{}", tone.borrow().name()), text.as_ref())
    }

    /// A short hash that leads to the page of its entry.
    pub fn entry_link(&self, type_name: impl AsRef<str>, value: impl AsRef<str>) -> Html {
        let (type_name, value) = (type_name.as_ref(), value.as_ref());
        Html(format!(
            "<a class=\"hash\" href=\"{}\"><span class=\"type\">{}</span> <code title=\"{}\">{}</code></a>",
            entry_path(type_name, value),
            escaped(type_name),
            escaped(value),
            escaped(&short(value)),
        ))
    }

    /// The same of an entry.
    pub fn entry_of(&self, entry: impl HasEntry) -> Html {
        let signal = entry.entry().signal.clone().unwrap_or_default();
        self.entry_link(&signal.r#type, &signal.value)
    }

    /// Who stands behind an entry, by name; with how many dispute it.
    pub fn speakers(&self, entry: impl HasEntry) -> Html {
        let entry = entry.entry();
        let of = |words: &[&str]| -> Vec<&str> {
            let said = entry.said.iter().filter(|said| said.counts && words.contains(&said.what.as_str()));
            said.map(|said| said.member.as_str()).collect()
        };
        let (by, against) = (of(&["SUBMIT", "ENDORSE"]), of(&["DISPUTE"]));
        let named = |members: &[&str]| {
            let shown: Vec<_> = members.iter().take(NAMES_SHOWN).map(|name| escaped(name)).collect();
            let more = members.len().saturating_sub(NAMES_SHOWN);
            let more = if more > 0 { format!(" and {} more", count(more as u64)) } else { String::new() };
            format!("{}{more}", shown.join(", "))
        };
        let by = if by.is_empty() { "<span class=\"muted\">nobody</span>".to_owned() } else { named(&by) };
        Html(if against.is_empty() {
            by
        } else {
            format!("{by} <span class=\"muted\">against {}</span>", named(&against))
        })
    }

    /// A long hexadecimal value, shortened; all of it is in its title.
    pub fn hex(&self, value: impl AsRef<str>) -> Html {
        let value = value.as_ref();
        Html(format!("<code title=\"{}\">{}</code>", escaped(value), escaped(&short(value))))
    }

    /// A long value whole, but for a video's, of which the beginning tells it from others.
    pub fn long(&self, value: impl AsRef<str>) -> Html {
        let value = value.as_ref();
        let shown: String = value.chars().take(LONG_SHOWN).collect();
        let rest = value.chars().count().saturating_sub(LONG_SHOWN) as u64;
        let rest = if rest > 0 { format!("… and {} more characters", count(rest)) } else { String::new() };
        Html(format!("{}{rest}", escaped(&shown)))
    }

    /// What somebody else wrote, with a mark in place of each character that would turn the writing around.
    pub fn text(&self, text: impl AsRef<str>) -> Html {
        Html(escaped(text.as_ref()))
    }

    /// Labels, languages and other tags, as a list in a row.
    pub fn tags(&self, tags: impl AsRef<[String]>) -> Html {
        let tags: String = tags.as_ref().iter().map(|tag| format!("<li>{}</li>", escaped(tag))).collect();
        Html(if tags.is_empty() {
            "<span class=\"muted\">none</span>".into()
        } else {
            format!("<ul class=\"tags\">{tags}</ul>")
        })
    }

    /// The way to the other pages of a list.
    pub fn pager(&self, pager: impl Borrow<Pager>) -> Html {
        let pager = pager.borrow();
        let link = |href: &Option<String>, rel: &str, name: &str| match href {
            Some(href) => format!("<a class=\"button quiet\" rel=\"{rel}\" href=\"{}\">{name}</a>", escaped(href)),
            None => String::new(),
        };
        let shown = counted(pager.shown, pager.thing);
        let more = if pager.next.is_some() { ", there are more" } else { "" };
        let (first, next) = (link(&pager.first, "first", "First page"), link(&pager.next, "next", "Next page"));
        Html(format!(
            "<nav class=\"pager\" aria-label=\"Pages of the list\"><p>{shown} here{more}</p>{first}{next}</nav>"
        ))
    }
}

/// A name as the end of a class: only letters, digits and hyphens are left of it.
fn word(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::{HOSTILE, assert_harmless, sample};
    use super::*;
    use crate::access::Role;

    #[test]
    fn addresses_hold_what_they_are_made_of_and_nothing_else() {
        for (value, path) in [
            ("ab12", "/entry/pdq/ab12"),
            ("3:ab", "/entry/pdq/3%3Aab"),
            ("../../x?y#z", "/entry/pdq/..%2F..%2Fx%3Fy%23z"),
            ("\"><script>", "/entry/pdq/%22%3E%3Cscript%3E"),
        ] {
            assert_eq!(entry_path("pdq", value), path);
        }
    }

    #[test]
    fn pieces_escape_what_they_are_given() {
        let page = sample(Role::Admin);
        let said = l::Said { member: HOSTILE.into(), what: "SUBMIT".into(), counts: true, ..Default::default() };
        let against = l::Said { what: "DISPUTE".into(), ..said.clone() };
        let signal = l::Signal { r#type: HOSTILE.into(), value: HOSTILE.into() };
        let entry = l::Entry { signal: Some(signal), said: vec![said, against], ..Default::default() };
        let pager = Pager { next: Some(format!("/list?q={HOSTILE}")), thing: "entry", ..Pager::default() };
        for html in [
            page.status(HOSTILE),
            page.verdict(HOSTILE),
            page.badge(Tone::Ok, HOSTILE),
            page.entry_of(&entry),
            page.speakers(&entry),
            page.hex(HOSTILE),
            page.long(HOSTILE),
            page.text(HOSTILE),
            page.tags([HOSTILE.to_owned()]),
            page.pager(&pager),
            Html::field("x", HOSTILE),
        ] {
            assert_harmless(&html.to_string());
        }
    }

    #[test]
    fn times_are_said_in_words_and_exactly() {
        let now = TimeMs(1_795_000_000_000);
        for (at, words) in [
            (now, "now"),
            (now.plus(999), "now"),
            (TimeMs(now.0 - 4_000), "4 seconds ago"),
            (TimeMs(now.0 - 61_000), "1 minute ago"),
            (now.plus(3 * TimeMs::DAY_MS), "in 3 days"),
            (TimeMs(now.0 - 800 * TimeMs::DAY_MS), "2 years ago"),
        ] {
            assert_eq!(relative(at, now), words);
        }
        let html = sample(Role::Viewer).time(TimeMs::DAY_MS).to_string();
        assert!(html.contains("datetime=\"1970-01-02T00:00:00Z\" title=\"1970-01-02 00:00:00 UTC\""), "{html}");
        assert!(sample(Role::Viewer).time(0).to_string().contains("never"));
    }

    #[test]
    fn numbers_and_hashes_are_short() {
        assert_eq!(
            (count(1_234_567), counted(1, "entry"), counted(2, "entry")),
            ("1\u{202f}234\u{202f}567".into(), "1 entry".into(), "2 entries".into())
        );
        assert_eq!((counted(89, "day"), counted(3, "peer")), ("89 days".into(), "3 peers".into()));
        assert_eq!((short(&"ab".repeat(32)), short("abc")), ("abababababab…ababab".into(), "abc".into()));
    }
}
