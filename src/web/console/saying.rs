//! What the pages say on our company's behalf, and what their forms offer to choose from.

use tonic::Status;

use super::page::{Tone, Visitor};
use crate::net::status::bad_field;
use crate::replica::ids::TimeMs;
use crate::replica::record;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Messages of these pages after something was done; [`super::page::flash`] knows them.
pub(super) const FLASHES: [(&str, Tone, &str); 12] = [
    ("kept", Tone::Ok, "Kept. The verdict of this entry is not lowered again for a while, or until a restart."),
    (
        "suspended",
        Tone::Ok,
        "Suspended. The word is signed and travels in the urgent lane; only a charter makes it last.",
    ),
    ("opened", Tone::Ok, "The incident is open, here and wherever this arrives."),
    ("closed", Tone::Ok, "Our company's word on the incident is closed. Others may keep it open."),
    ("added", Tone::Ok, "Certified. The page is offered with matches of its topics and languages."),
    ("removed", Tone::Ok, "Our certificate of the page is taken back."),
    ("undone", Tone::Ok, "What stood of the import is withdrawn."),
    (
        "undone-part",
        Tone::Warn,
        "A part of the import is withdrawn: the day's quota is used up. Undo it again to go on.",
    ),
    ("rotated", Tone::Ok, "The logs are closed. What is said next opens new ones under a new key."),
    ("logs-closed", Tone::Ok, "The logs are closed. What is said next opens new ones."),
    ("revoked", Tone::Ok, "Revoked. Sessions that the link opened have ended."),
    ("said-again", Tone::Ok, "What did not count any more is said again in new logs."),
];

/// Signs one statement of ours. Gives the key of the message to show: `done`, or that it waits in the outbox.
pub(super) async fn say(
    web: &Web,
    visitor: &Visitor,
    statement: l::Statement,
    lane: l::Lane,
    done: &'static str,
) -> Result<&'static str, Problem> {
    say_all(web, visitor, vec![statement], lane, done).await
}

/// The same of several: all of them are accepted or none is.
pub(super) async fn say_all(
    web: &Web,
    visitor: &Visitor,
    statements: Vec<l::Statement>,
    lane: l::Lane,
    done: &'static str,
) -> Result<&'static str, Problem> {
    let request = l::SubmitRequest { statements, lane: lane as i32, ..Default::default() };
    let answer = web.service.submit(web.ask(visitor.caller(), request)).await?.into_inner();
    web.hub().lately.forget().await;
    Ok(if answer.state() == l::SubmitState::Queued { "queued" } else { done })
}

/// Labels of one facet, as a form offers them.
pub(super) struct LabelGroup<L = String> {
    pub(super) facet: String,
    pub(super) labels: Vec<L>,
}

/// What our company can say of the forum's taxonomy, by facet. Empty where the node does not know it.
pub(super) async fn labels(web: &Web, visitor: &Visitor) -> Result<Vec<LabelGroup>, Problem> {
    let answer = web.service.get_taxonomy(web.ask(visitor.caller(), l::GetTaxonomyRequest {})).await?.into_inner();
    Ok(grouped(answer.labels))
}

fn grouped(labels: Vec<l::TaxonomyLabel>) -> Vec<LabelGroup> {
    by_facet(labels, |label| label.name.clone())
}

/// What can still be said, each as `named` shows it, by facet.
pub(super) fn by_facet<L>(labels: Vec<l::TaxonomyLabel>, named: impl Fn(&l::TaxonomyLabel) -> L) -> Vec<LabelGroup<L>> {
    let mut groups: Vec<LabelGroup<L>> = Vec::new();
    for label in labels.into_iter().filter(|label| !label.retired) {
        let shown = named(&label);
        match groups.iter_mut().find(|group| group.facet == label.facet) {
            Some(group) => group.labels.push(shown),
            None => groups.push(LabelGroup { facet: label.facet, labels: vec![shown] }),
        }
    }
    groups
}

/// Names of the forum's reasons.
pub(super) fn reasons() -> Vec<&'static str> {
    record::REASONS.iter().map(|(_, name)| *name).collect()
}

/// Hashes as people paste them, one a line or between commas: `sha256:...`, or an `https://` address.
pub(super) fn signals(text: &str) -> Result<Vec<l::Signal>, Status> {
    let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
    let signals: Vec<_> = items.map(signal).collect::<Result<_, _>>()?;
    if signals.is_empty() {
        return Err(bad_field("items", "is empty, expected at least one hash as in sha256:..."));
    }
    Ok(signals)
}

fn signal(item: &str) -> Result<l::Signal, Status> {
    if item.starts_with("https://") || item.starts_with("http://") {
        return Ok(l::Signal { r#type: "url".into(), value: item.into() });
    }
    let wrong = || bad_field("items", format!("has {item:?}, expected TYPE:VALUE as in sha256:..., or an address"));
    let (name, value) = item.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
    Ok(l::Signal { r#type: name.to_ascii_lowercase(), value: value.into() })
}

/// `3 d 4 h`.
pub(super) fn span(ms: u64) -> String {
    crate::report::time::span(ms)
}

/// How long until `until`, in whole days and a tone; none where nothing is known.
pub(super) fn days_left(until: TimeMs, now: TimeMs) -> Option<(u64, Tone)> {
    if until == TimeMs(0) {
        return None;
    }
    let days = until.since(now) / TimeMs::DAY_MS;
    Some((
        days,
        if days < 7 {
            Tone::Bad
        } else if days < 30 {
            Tone::Warn
        } else {
            Tone::Ok
        },
    ))
}

/// What the tests of these pages share.
#[cfg(test)]
pub(super) mod testing {
    use askama::Template;

    use super::super::page::{Nav, Page, State, Waiting};
    use super::*;
    use crate::access::Role;
    use crate::clock;

    /// What a member could put into any name, label or address.
    pub(in super::super) const HOSTILE: &str = "<img src=x onerror=alert(1)>\"' onclick=x {{ 7 }}";

    /// The frame around a page of somebody with this role.
    pub(in super::super) fn page(role: Role, current: Nav) -> Page {
        Page {
            title: HOSTILE.into(),
            current,
            forum: HOSTILE.into(),
            member: HOSTILE.into(),
            version: "0".into(),
            state: State { tone: Tone::Ok, sentence: HOSTILE.into() },
            caller: "anna".into(),
            scopes: role.scopes(),
            csrf: "csrf-of-anna".into(),
            reviews: Waiting::default(),
            disputed_own: 0,
            flash: None,
            now: clock::now(),
        }
    }

    /// The page as text, in which nothing of [`HOSTILE`] has become markup, and every form that changes something
    /// carries the proof that it is ours.
    pub(in super::super) fn rendered(template: &impl Template) -> String {
        let text = template.render().unwrap();
        for forbidden in ["<img", "\"' onclick", " style=", "<script>", "javascript:"] {
            assert!(!text.contains(forbidden), "{forbidden} in {text}");
        }
        assert_eq!(posts(&text), text.matches("value=\"csrf-of-anna\"").count(), "{text}");
        assert_eq!(text.matches("<h1").count(), 1);
        text
    }

    /// Forms that change something; the one to sign out is on every page.
    pub(in super::super) fn posts(text: &str) -> usize {
        text.matches("method=\"post\"").count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_taken_as_they_are_pasted() {
        let signals = signals("sha256:AB, https://example.org/page\n\nMD5:cd").unwrap();
        let shown: Vec<_> = signals.iter().map(|s| format!("{} {}", s.r#type, s.value)).collect();
        assert_eq!(shown, ["sha256 AB", "url https://example.org/page", "md5 cd"]);
        for wrong in ["", " , ", "abcdef", "sha256:"] {
            assert!(super::signals(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_that_nobody_says_any_more_are_not_offered() {
        let label = |name: &str, facet: &str, retired| l::TaxonomyLabel {
            name: name.into(),
            facet: facet.into(),
            retired,
            ..Default::default()
        };
        let groups = grouped(vec![
            label("a", "x", false),
            label("b", "y", false),
            label("c", "x", false),
            label("d", "z", true),
        ]);
        let shown: Vec<_> = groups.iter().map(|g| format!("{}: {}", g.facet, g.labels.join(" "))).collect();
        assert_eq!(shown, ["x: a c", "y: b"]);
    }

    #[test]
    fn keys_of_messages_are_told_apart_from_those_of_other_pages() {
        for (key, ..) in FLASHES {
            assert!(super::super::page::flash(key).is_some(), "{key}");
        }
    }

    #[test]
    fn certificates_that_end_soon_are_seen() {
        let now = TimeMs(1_795_000_000_000);
        assert_eq!(days_left(TimeMs(0), now), None);
        assert_eq!(days_left(now.plus(3 * TimeMs::DAY_MS), now), Some((3, Tone::Bad)));
        assert_eq!(days_left(now.plus(90 * TimeMs::DAY_MS), now), Some((90, Tone::Ok)));
        assert_eq!(days_left(TimeMs(1), now), Some((0, Tone::Bad)));
    }
}
