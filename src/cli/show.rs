//! Values as people write and read them: times, fingerprints, key words, names.

pub use crate::keys::words::key_words;
use crate::replica::ids::{ForumId, TimeMs, hex};
use crate::replica::signal::Alg;
use crate::replica::vpdq::FRAME_SIZE;
pub use crate::report::time::{date, moment, span};
use crate::report::{html, tables};

/// Digits that are shown of a video: half of its first frame's hash.
const VIDEO_DIGITS_SHOWN: usize = 32;

/// A forum's fingerprint as people type it: 64 hexadecimal digits in any case, grouped by colons, hyphens or spaces.
///
/// # Errors
/// What is wrong with it.
pub fn fingerprint(text: &str) -> Result<ForumId, String> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && !":-".contains(*c)).collect();
    if let Some(wrong) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("a fingerprint has the digits 0-9 and a-f, got {wrong:?}"));
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap_or_default();
    ForumId::from_slice(&bytes).ok_or_else(|| format!("a fingerprint has 64 digits, got {}", digits.len()))
}

/// 32 hexadecimal digits.
///
/// # Errors
/// What is wrong with it.
pub fn sixteen_bytes(text: &str) -> Result<[u8; 16], String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    bytes.try_into().map_err(|_wrong_length| format!("got {text:?}, expected 32 hexadecimal digits"))
}

/// The first digits of a long hash: enough to tell two apart in a table.
pub fn short(bytes: &[u8]) -> String {
    hex(&bytes[..bytes.len().min(8)])
}

/// `2026-11-21 19:14:12 UTC`.
pub fn time(time: TimeMs) -> String {
    let seconds = time.0 / 1_000 % 86_400;
    format!("{} {:02}:{:02}:{:02} UTC", date(time), seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A text of somebody else's, safe to show: what steers a terminal or turns the writing around becomes a dot.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if html::steers(c) { '\u{b7}' } else { c }).collect()
}

/// A hash of somebody else's with its type, in one line: a video has thousands of digits, of which the first are enough
/// to tell it from others. Programs are given all of them.
pub fn signal(type_name: &str, value: &str) -> String {
    let frames = value.len() / (2 * FRAME_SIZE);
    if type_name == Alg::Vpdq.name() && value.is_char_boundary(VIDEO_DIGITS_SHOWN) && value.len() > VIDEO_DIGITS_SHOWN {
        let first = clean(&value[..VIDEO_DIGITS_SHOWN]);
        return format!("{type_name}:{first}\u{2026} ({})", counted(frames, "frame"));
    }
    format!("{}:{}", clean(type_name), clean(value))
}

/// `18,204`.
pub fn count(number: u64) -> String {
    tables::grouped(number, ',')
}

/// `1 member`, `3 members`.
pub fn counted(number: usize, what: &str) -> String {
    let plural = match (number, what) {
        (1, _) => what.to_owned(),
        (_, "entry") => "entries".to_owned(),
        _ => format!("{what}s"),
    };
    format!("{} {plural}", count(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_taken_in_any_grouping() {
        let plain = "0f".repeat(32);
        for text in [
            plain.clone(),
            plain.to_uppercase(),
            format!(" {plain}\n"),
            vec!["0f0f"; 16].join(":"),
            vec!["0F"; 32].join(" "),
        ] {
            assert_eq!(fingerprint(&text).unwrap(), ForumId([0x0f; 32]));
        }
        assert_eq!(fingerprint("0f").unwrap_err(), "a fingerprint has 64 digits, got 2");
        assert_eq!(fingerprint("").unwrap_err(), "a fingerprint has 64 digits, got 0");
        assert!(fingerprint(&"0g".repeat(32)).unwrap_err().ends_with("got 'g'"));
        assert!(fingerprint(&format!("{plain}0f")).is_err());
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_795_000_000_000, "2026-11-18 11:06:40 UTC"),
            (4_107_542_399_000, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799_000, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(time(TimeMs(ms)), expected);
        }
    }

    #[test]
    fn strangers_texts_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\u{202e}c"), "a\u{b7}[2Jb\u{b7}\u{b7}c");
        assert_eq!(clean("Müller"), "Müller");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (counted(1, "member"), counted(3, "member"), counted(2, "entry")),
            ("1 member".into(), "3 members".into(), "2 entries".into())
        );
    }
}
