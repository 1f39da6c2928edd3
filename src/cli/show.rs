//! Values as people write and read them: times, fingerprints, key words, names.

use crate::replica::ids::{ForumId, TimeMs, hex, sha256};
use crate::replica::signal::Alg;
use crate::replica::vpdq::FRAME_SIZE;
pub use crate::report::time::{date, span};
use crate::report::{html, tables, time as calendar};

/// Number of key words: 8 of 2,048 are 88 bits, out of reach for who would make a second request with the same words.
pub const KEY_WORDS: usize = 8;
const WORD_BITS: usize = 11;
/// Digits that are shown of a video: half of its first frame's hash.
const VIDEO_DIGITS_SHOWN: usize = 32;

/// The key words of `bytes`: the first 88 bits of its SHA-256, eleven bits a word.
pub fn key_words(bytes: &[u8]) -> String {
    let digest = sha256(&[bytes]);
    let list = bip39::Language::English.word_list();
    let bit = |at: usize| usize::from(digest[at / 8] >> (7 - at % 8) & 1);
    let word = |number: usize| (0..WORD_BITS).fold(0, |index, i| index << 1 | bit(number * WORD_BITS + i));
    (0..KEY_WORDS).map(|number| list[word(number)]).collect::<Vec<_>>().join("-")
}

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

/// A moment as people write it: `2027-01-31` (its start, UTC), `90d` or `12h` from `now`, Unix milliseconds, `never`.
/// 0 stands for never.
///
/// # Errors
/// What was expected.
pub fn moment(text: &str, now: TimeMs) -> Result<TimeMs, String> {
    let wrong = || format!("got {text:?}, expected a date as 2027-01-31, a span as 90d or 12h, or never");
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    if text == "never" {
        return Ok(TimeMs(0));
    }
    for (unit, ms) in [('d', TimeMs::DAY_MS), ('h', TimeMs::HOUR_MS)] {
        if let Some(span) = text.strip_suffix(unit) {
            let ms = number(span).filter(|n| *n > 0).and_then(|n| n.checked_mul(ms)).ok_or_else(wrong)?;
            return Ok(now.plus(ms));
        }
    }
    let at = match calendar::parse_date(text) {
        Some(at) => at,
        None => TimeMs(number(text).ok_or_else(wrong)?),
    };
    if at > now { Ok(at) } else { Err(format!("got {text:?}, which is past; expected a moment to come, or never")) }
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

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn key_words_are_eight_and_depend_on_every_byte() {
        // SHA-256 of "abc" is ba7816bf..: 10111010011 is 1491, the first word.
        let words = key_words(b"abc");
        let list = bip39::Language::English.word_list();
        assert_eq!(words.split('-').count(), 8);
        assert_eq!(words.split('-').next().unwrap(), list[0b101_1101_0011]);
        assert_ne!(words, key_words(b"abd"));
    }

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
    fn moments_are_dates_spans_or_never() {
        assert_eq!(moment("2027-01-31", NOW).unwrap(), TimeMs(1_801_353_600_000));
        assert_eq!(moment("90d", NOW).unwrap(), NOW.plus(90 * TimeMs::DAY_MS));
        assert_eq!(moment("12h", NOW).unwrap(), NOW.plus(12 * TimeMs::HOUR_MS));
        assert_eq!(moment("never", NOW).unwrap(), TimeMs(0));
        assert_eq!(moment("1795000000001", NOW).unwrap(), NOW.plus(1));
        for wrong in [
            "",
            "soon",
            "0d",
            "d",
            "-1d",
            "99999999999999999999d",
            "2027-02-30",
            "2027-13-01",
            "2026-11-01",
            "1",
            "27-01-01",
            "+5",
        ] {
            assert!(moment(wrong, NOW).is_err(), "{wrong}");
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
