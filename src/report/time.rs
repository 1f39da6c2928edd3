//! Moments of UTC as a report writes and reads them.

use crate::replica::ids::TimeMs;

/// Days of 400 years, which are always the same.
const ERA_DAYS: u64 = 146_097;
/// Days from the first of March of the year 0 to the first of January 1970.
const EPOCH_DAYS: u64 = 719_468;

/// `2026-07-01`.
pub fn date(at: TimeMs) -> String {
    let (year, month, day) = civil(at.day());
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-07-01T00:00:00Z`, with milliseconds where there are any.
pub fn rfc3339(at: TimeMs) -> String {
    let (seconds, ms) = (at.0 / 1_000 % 86_400, at.0 % 1_000);
    let fraction = if ms > 0 { format!(".{ms:03}") } else { String::new() };
    format!("{}T{:02}:{:02}:{:02}{fraction}Z", date(at), seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `3 d 4 h`, `12 min 5 s`, `250 ms`: the two largest units, rounded down.
pub fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let Some(first) = UNITS.iter().position(|(unit, _)| ms >= *unit) else { return format!("{ms} ms") };
    let (unit, name) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(small, name)| (ms % unit / small, name)).filter(|(count, _)| *count > 0);
    let rest = rest.map(|(count, name)| format!(" {count} {name}")).unwrap_or_default();
    format!("{} {name}{rest}", ms / unit)
}

/// A date, which is its first instant, or a moment as RFC 3339 writes it, in UTC: `2026-07-01`, `2026-07-01T06:00:00Z`.
///
/// # Errors
/// What was got and what was expected.
pub fn parse(text: &str) -> Result<TimeMs, String> {
    let wrong = || format!("got {text:?}, expected a date as 2026-07-01, or an hour of UTC as 2026-07-01T06:00:00Z");
    let (date, clock) = text.split_at_checked(10).ok_or_else(wrong)?;
    let day = parse_date(date).ok_or_else(wrong)?;
    let within = if clock.is_empty() { Some(0) } else { parse_clock(clock) };
    within.map(|ms| day.plus(ms)).ok_or_else(wrong)
}

/// A moment as people write it: `2027-01-31` (its start, UTC), `90d` or `12h` from `now`, Unix milliseconds, `never`.
/// 0 stands for never.
///
/// # Errors
/// What was expected.
pub fn moment(text: &str, now: TimeMs) -> Result<TimeMs, String> {
    let wrong = || format!("got {text:?}, expected a date as 2027-01-31, a span as 90d or 12h, or never");
    if text == "never" {
        return Ok(TimeMs(0));
    }
    for (unit, ms) in [('d', TimeMs::DAY_MS), ('h', TimeMs::HOUR_MS)] {
        if let Some(span) = text.strip_suffix(unit) {
            let ms = number(span, u64::MAX).filter(|n| *n > 0).and_then(|n| n.checked_mul(ms)).ok_or_else(wrong)?;
            return Ok(now.plus(ms));
        }
    }
    let at = match parse_date(text) {
        Some(at) => at,
        None => TimeMs(number(text, u64::MAX).ok_or_else(wrong)?),
    };
    if at > now { Ok(at) } else { Err(format!("got {text:?}, which is past; expected a moment to come, or never")) }
}

fn number(text: &str, most: u64) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= most)
}

/// The first instant of a date as `2026-07-01`, from 1970 to 9999.
pub fn parse_date(text: &str) -> Option<TimeMs> {
    let [year, month, day] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
    let shaped = (year.len(), month.len(), day.len()) == (4, 2, 2);
    let days = days(number(year, 9_999)?, number(month, 12)?, number(day, 31)?)?;
    let at = TimeMs(days * TimeMs::DAY_MS);
    // A day that the month does not have comes back as another date.
    (shaped && date(at) == text).then_some(at)
}

fn parse_clock(text: &str) -> Option<u64> {
    let clock = text.strip_prefix('T')?;
    let clock = clock.strip_suffix('Z').or_else(|| clock.strip_suffix("+00:00"))?;
    let [hours, minutes, seconds] = clock.split(':').collect::<Vec<_>>().try_into().ok()?;
    let shaped = (hours.len(), minutes.len(), seconds.len()) == (2, 2, 2);
    let (hours, minutes, seconds) = (number(hours, 23)?, number(minutes, 59)?, number(seconds, 59)?);
    shaped.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000)
}

/// Days since 1970 of a date from then on. The year begins in March here, so that the leap day is its last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || month == 0 || day == 0 {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    (era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(EPOCH_DAYS)
}

fn civil(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(EPOCH_DAYS);
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn moments_are_read_and_written_alike() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2026-07-01T06:00:00Z", 1_782_885_600_000),
            ("2026-12-31T23:59:59Z", 1_798_761_599_000),
            ("2100-02-28T23:59:59Z", 4_107_542_399_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(parse(text), Ok(TimeMs(ms)), "{text}");
            assert_eq!(rfc3339(TimeMs(ms)), text);
        }
        assert_eq!(parse("2026-07-01"), parse("2026-07-01T00:00:00+00:00"));
        assert_eq!(rfc3339(TimeMs(7)), "1970-01-01T00:00:00.007Z");
        for day in (0..60_000).chain((60_000..2_900_000).step_by(37)) {
            let at = TimeMs(day * TimeMs::DAY_MS);
            assert_eq!(parse(&date(at)), Ok(at), "day {day}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2026",
            "2026-7-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "1969-12-31",
            "2026-07-01T06:00",
            "2026-07-01T06:00:00",
            "2026-07-01T24:00:00Z",
            "2026-07-01T06:00:00+02:00",
            "+026-07-01",
            "äöüäöü",
        ] {
            assert!(parse(text).unwrap_err().contains("expected a date as"), "{text}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
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
}
