//! Formats of others: `ThreatExchange`-style JSON and the `local_file` lines of python-threatexchange. Field names are
//! theirs; what of it means what here is in docs/operating.md.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::rows::{Cells, Mistake, quoted, text_of};
use crate::replica::ids::TimeMs;
use crate::replica::taxonomy::Taxonomy;

/// Their types and ours.
const TYPES: [(&str, &str); 7] = [
    ("HASH_PDQ", "pdq"),
    ("HASH_MD5", "md5"),
    ("HASH_SHA1", "sha1"),
    ("HASH_SHA256", "sha256"),
    ("HASH_SHA512", "sha512"),
    ("HASH_VIDEO_MD5", "md5"),
    ("HASH_TEXT_TLSH", "tlsh"),
];
/// Their types of what they share in clear, and ours: only read. What we list of an address is a hash that they have no
/// name for.
const READ_TYPES: [(&str, &str); 2] = [("URI", "url"), ("RAW_URI", "url")];
/// Their severities and ours; the first of a number is written.
const SEVERITIES: [(&str, u32); 6] =
    [("UNKNOWN", 0), ("INFO", 1), ("WARNING", 2), ("SEVERE", 3), ("APOCALYPSE", 4), ("SUSPICIOUS", 2)];
/// Tag of a language, as in `lang:fr`, and of a PDQ hash's quality: their objects have no fields for them.
const LANGUAGE_TAG: &str = "lang:";
const QUALITY_TAG: &str = "pdq_quality:";
/// What python-threatexchange calls an MD5.
const LOCAL_MD5: &str = "video_md5";

/// What is exported of one entry, whatever the format.
pub(super) struct Exported<'a> {
    pub(super) type_name: &'a str,
    pub(super) value: &'a str,
    pub(super) labels: &'a [String],
    pub(super) languages: &'a [String],
    pub(super) severity: u32,
    pub(super) expires: TimeMs,
    pub(super) quality: u32,
    pub(super) status: &'a str,
}

/// A row from one of their objects: an indicator with its descriptor's fields beside it, or a descriptor.
///
/// # Errors
/// It is of a type that we do not list, says that the thing is harmless, or may not be passed on.
pub(super) fn of_threatexchange(object: &Map<String, Value>, labels: &Taxonomy) -> Result<Cells<'static>, Mistake> {
    let text = |name: &'static str| match object.get(name) {
        None => Ok(None),
        Some(value) => text_of(value).map_err(|why| Mistake::in_column(name, why)),
    };
    let of_indicator = |name: &str| object.get("indicator").and_then(|inner| inner.get(name)).and_then(Value::as_str);
    let value = match object.get("indicator") {
        Some(Value::Object(_)) => of_indicator("indicator").map(|value| Cow::Owned(value.to_owned())),
        _ => text("indicator")?.or(text("raw_indicator")?),
    };
    let type_name = text("type")?.or_else(|| of_indicator("type").map(|name| Cow::Owned(name.to_owned())));
    let type_name = type_name.unwrap_or_default();
    let known = || TYPES.iter().chain(&READ_TYPES);
    let ours = known().find(|(theirs, _)| *theirs == type_name).map(|(_, ours)| *ours);
    let ours = ours.ok_or_else(|| {
        let known = known().map(|(theirs, _)| *theirs).collect::<Vec<_>>().join(", ");
        Mistake::in_column("type", format!("got {:?}, expected one of {known}", quoted(&type_name)))
    })?;
    if object.get("should_delete") == Some(&Value::Bool(true)) {
        return Err(Mistake::in_column("should_delete", "is a deletion, expected something to list"));
    }
    if let Some(status) = text("status")?.filter(|status| status != "MALICIOUS") {
        return Err(Mistake::in_column("status", format!("got {:?}, expected MALICIOUS", quoted(&status))));
    }
    if text("share_level")?.as_deref() == Some("RED") {
        return Err(Mistake::in_column("share_level", "is RED: it may not be passed on"));
    }
    let mut cells: Cells<'static> = Default::default();
    cells[0] = Some(ours.into());
    cells[1] = value;
    for tag in tags(object)? {
        if let Some(language) = tag.strip_prefix(LANGUAGE_TAG) {
            append(&mut cells[3], language);
        } else if let Some(quality) = tag.strip_prefix(QUALITY_TAG) {
            cells[6] = Some(quality.to_owned().into());
        } else if labels.sayable(&tag).is_ok() {
            append(&mut cells[2], &tag);
        }
    }
    if let Some(severity) = text("severity")? {
        let number = SEVERITIES.iter().find(|(theirs, _)| *theirs == severity).map(|(_, number)| *number);
        let wrong =
            || format!("got {:?}, expected one of {}", quoted(&severity), SEVERITIES.map(|(n, _)| n).join(", "));
        cells[4] = Some(number.ok_or_else(|| Mistake::in_column("severity", wrong()))?.to_string().into());
    }
    if let Some(seconds) = text("expired_on")?.filter(|seconds| seconds != "0") {
        let ms = seconds.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000));
        let wrong = || Mistake::in_column("expired_on", format!("got {:?}, expected Unix seconds", quoted(&seconds)));
        cells[5] = Some(ms.ok_or_else(wrong)?.to_string().into());
    }
    cells[7] = text("confidence")?;
    Ok(cells)
}

/// A list of texts, a text with commas, or the objects with a `text` that their service answers.
fn tags(object: &Map<String, Value>) -> Result<Vec<String>, Mistake> {
    let wrong = || Mistake::in_column("tags", "expected a list of texts");
    let name = |tag: &Value| tag.as_str().or_else(|| tag.get("text")?.as_str()).map(str::to_owned);
    let list = match object.get("tags") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(text.split(',').map(|tag| tag.trim().to_owned()).collect()),
        Some(Value::Object(of)) => of.get("data").and_then(Value::as_array),
        Some(list) => list.as_array(),
    };
    list.ok_or_else(wrong)?.iter().map(|tag| name(tag).ok_or_else(wrong)).collect()
}

fn append(cell: &mut Option<Cow<'static, str>>, text: &str) {
    let before = cell.take().map(|before| format!("{before};")).unwrap_or_default();
    *cell = Some(format!("{before}{text}").into());
}

/// One of their objects.
pub(super) fn threatexchange(entry: &Exported<'_>) -> Value {
    let mut tags: Vec<_> = entry.labels.to_vec();
    tags.extend(entry.languages.iter().map(|language| format!("{LANGUAGE_TAG}{language}")));
    if entry.quality > 0 {
        tags.push(format!("{QUALITY_TAG}{}", entry.quality));
    }
    let theirs = TYPES.iter().find(|(_, ours)| *ours == entry.type_name).map_or(entry.type_name, |(theirs, _)| *theirs);
    let severity = SEVERITIES.iter().find(|(_, number)| *number == entry.severity).map_or("UNKNOWN", |(name, _)| *name);
    let status = match entry.status {
        "ACTIVE" | "PROVISIONAL" => "MALICIOUS",
        "CONTESTED" => "SUSPICIOUS",
        "REFERRED" => "UNKNOWN",
        _ => "NON_MALICIOUS",
    };
    let mut object = json!({
        "indicator": entry.value, "type": theirs, "status": status, "share_level": "AMBER", "severity": severity,
        "tags": tags,
    });
    if entry.expires > TimeMs(0) {
        object["expired_on"] = (entry.expires.0 / 1_000).into();
    }
    object
}

/// A row from a line: a type and a value, or a value that says its type.
///
/// # Errors
/// The type is none of ours.
pub(super) fn of_local_file(line: &str) -> Result<Cells<'static>, Mistake> {
    let mut cells: Cells<'static> = Default::default();
    let line = line.trim();
    let (type_name, value) = match line.split_once(char::is_whitespace) {
        Some((type_name, value)) => (type_name, value.trim().to_owned()),
        None => {
            let subject = crate::replica::signal::parse_any(line).map_err(|error| Mistake::told(&error.to_string()))?;
            cells[0] = Some(subject.type_name());
            cells[1] = Some(subject.value().into());
            return Ok(cells);
        }
    };
    let type_name = if type_name == LOCAL_MD5 { "md5" } else { type_name };
    cells[0] = Some(type_name.to_owned().into());
    cells[1] = Some(value.into());
    Ok(cells)
}

/// One of their lines.
pub(super) fn local_file(entry: &Exported<'_>) -> String {
    let type_name = if entry.type_name == "md5" { LOCAL_MD5 } else { entry.type_name };
    format!("{type_name} {}", entry.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn read(text: &str) -> Result<Cells<'static>, String> {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("{text}") };
        of_threatexchange(&object, &Taxonomy::built_in()).map_err(|mistake| mistake.at_line(1))
    }

    #[test]
    fn what_is_written_their_way_is_read_back() {
        let (labels, languages) = (["symbol".to_owned(), "other".to_owned()], ["fr".to_owned()]);
        let entry = Exported {
            type_name: "pdq",
            value: "00ff",
            labels: &labels,
            languages: &languages,
            severity: 3,
            expires: TimeMs(1_801_353_600_999),
            quality: 77,
            status: "ACTIVE",
        };
        let cells = read(&threatexchange(&entry).to_string()).unwrap();
        let texts: Vec<_> = cells.iter().map(|cell| cell.as_deref().unwrap_or_default()).collect();
        assert_eq!(texts, ["pdq", "00ff", "symbol;other", "fr", "3", "1801353600000", "77", "", "", ""]);
        assert_eq!(local_file(&entry), "pdq 00ff");
        assert_eq!(local_file(&Exported { type_name: "md5", ..entry }), "video_md5 00ff");
    }

    #[test]
    fn their_objects_come_in_several_shapes() {
        for text in [
            format!("{{\"indicator\":\"{MD5}\",\"type\":\"HASH_MD5\",\"tags\":[\"symbol\",\"media_type_photo\"]}}"),
            format!("{{\"raw_indicator\":\"{MD5}\",\"type\":\"HASH_VIDEO_MD5\",\"tags\":\"symbol, uploaded\"}}"),
            format!(
                "{{\"indicator\":{{\"indicator\":\"{MD5}\",\"type\":\"HASH_MD5\",\"id\":\"1\"}},\
                 \"tags\":{{\"data\":[{{\"id\":\"2\",\"text\":\"symbol\"}}]}},\"status\":\"MALICIOUS\"}}"
            ),
        ] {
            let cells = read(&text).unwrap();
            let texts: Vec<_> = cells[..3].iter().map(|cell| cell.as_deref().unwrap_or_default()).collect();
            assert_eq!(texts, ["md5", MD5, "symbol"], "{text}");
        }
        for (theirs, ours) in [("URI", "url"), ("RAW_URI", "url"), ("HASH_TEXT_TLSH", "tlsh")] {
            let cells = read(&format!("{{\"indicator\":\"x\",\"type\":\"{theirs}\"}}")).unwrap();
            assert_eq!(cells[0].as_deref(), Some(ours));
        }
    }

    #[test]
    fn what_is_not_for_this_list_is_refused() {
        for (fields, expected) in [
            ("\"type\":\"DOMAIN\"", "line 1, column type: got \"DOMAIN\""),
            ("\"indicator\":\"x\"", "line 1, column type: got \"\""),
            ("\"type\":\"HASH_MD5\",\"status\":\"NON_MALICIOUS\"", "line 1, column status: got \"NON_MALICIOUS\""),
            ("\"type\":\"HASH_MD5\",\"share_level\":\"RED\"", "line 1, column share_level: is RED"),
            ("\"type\":\"HASH_MD5\",\"should_delete\":true", "line 1, column should_delete"),
            ("\"type\":\"HASH_MD5\",\"tags\":[1]", "line 1, column tags: expected a list"),
            ("\"type\":\"HASH_MD5\",\"severity\":\"BAD\"", "line 1, column severity: got \"BAD\""),
            ("\"type\":\"HASH_MD5\",\"expired_on\":\"2027\\u002d01\"", "line 1, column expired_on: got \"2027-01\""),
        ] {
            let told = read(&format!("{{{fields}}}")).unwrap_err();
            assert!(told.starts_with(expected), "{told}, expected {expected}");
        }
    }

    #[test]
    fn a_line_has_a_type_and_a_value_or_says_its_type() {
        for (line, expected) in [
            (format!("video_md5 {MD5}"), ["md5", MD5]),
            (format!("  md5\t{MD5}"), ["md5", MD5]),
            (format!("md5:{MD5}"), ["md5", MD5]),
            (MD5.to_owned(), ["md5", MD5]),
            ("trend_query {}".to_owned(), ["trend_query", "{}"]),
        ] {
            let cells = of_local_file(&line).unwrap();
            assert_eq!([cells[0].as_deref().unwrap(), cells[1].as_deref().unwrap()], expected, "{line}");
        }
        let told = of_local_file(&"ab".repeat(32)).unwrap_err();
        assert!(told.why.contains("pdq or sha256"), "{told:?}");
    }
}
