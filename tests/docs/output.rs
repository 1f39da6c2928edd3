//! Whether a command wrote what the page shows: line by line, three dots standing for anything.

const ANYTHING: &str = "...";

/// Whether `written` is what `shown` says. A line of three dots alone stands for any lines, also none.
pub(crate) fn fits(shown: &str, written: &str) -> bool {
    let shown: Vec<_> = shown.trim_end().lines().map(str::trim_end).collect();
    let written: Vec<_> = written.trim_end().lines().map(str::trim_end).collect();
    lines_fit(&shown, &written)
}

fn lines_fit(shown: &[&str], written: &[&str]) -> bool {
    match (shown.split_first(), written.split_first()) {
        (None, None) => true,
        (Some((line, rest)), _) if line.trim() == ANYTHING => {
            (0..=written.len()).any(|passed| lines_fit(rest, &written[passed..]))
        }
        (Some((line, rest)), Some((other, others))) => line_fits(line, other) && lines_fit(rest, others),
        _ => false,
    }
}

fn line_fits(shown: &str, written: &str) -> bool {
    let pieces: Vec<_> = shown.split(ANYTHING).collect();
    let [first, .., last] = &pieces[..] else { return shown == written };
    let Some(rest) = written.strip_prefix(first) else { return false };
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    for piece in &pieces[1..pieces.len() - 1] {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stand_for_anything_and_nothing_else_does() {
        assert!(fits("a ... c\n...\nz\n", "a b c\nx\ny\nz\n"));
        assert!(fits("...\nz\n", "z\n") && fits("a...", "a") && fits("... b ...", "x b y"));
        assert!(!fits("a\n", "a\nb\n") && !fits("a ... c", "a b d") && !fits("ab...bc", "abc") && !fits("a", ""));
    }
}
