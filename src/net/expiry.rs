//! Certificates that end: said in time, and louder as the end comes near.

use crate::replica::Health;
use crate::replica::ids::TimeMs;

/// Days before the end at which it is said: a month to ask for a new certificate, two weeks to ask again, and three days
/// in which somebody must act (RED).
pub const DAYS: [u64; 3] = [30, 14, 3];

/// The stage of [`DAYS`] that a certificate has reached, from 1; 0 while nothing has to be said.
pub fn stage(not_after: TimeMs, now: TimeMs) -> usize {
    DAYS.iter().filter(|days| not_after <= now.plus(**days * TimeMs::DAY_MS)).count()
}

/// What health says of our own certificate.
pub fn of_ours(not_after: TimeMs, now: TimeMs) -> Option<(Health, String)> {
    let fix = "renew it: staydown cert renew";
    remark(not_after, now, |ends| format!("this node's certificate {ends}; {fix}"))
}

/// What health says of the certificate of the peer called `name`.
pub fn of_peer(name: &str, not_after: TimeMs, now: TimeMs) -> Option<(Health, String)> {
    let fix = "tell them to renew it: staydown cert renew";
    remark(not_after, now, |ends| format!("the certificate of {name} {ends}; {fix}"))
}

fn remark(not_after: TimeMs, now: TimeMs, say: impl Fn(&str) -> String) -> Option<(Health, String)> {
    let level = match stage(not_after, now) {
        0 => return None,
        stage if stage == DAYS.len() => Health::Red,
        _ => Health::Yellow,
    };
    let ends = match not_after.since(now) / TimeMs::DAY_MS {
        _ if not_after <= now => "has ended".to_owned(),
        0 => "ends within a day".to_owned(),
        1 => "ends in 1 day".to_owned(),
        days => format!("ends in {days} days"),
    };
    Some((level, say(&ends)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_said_30_days_before_and_is_red_3_days_before() {
        let now = TimeMs(1_795_000_000_000);
        let day = TimeMs::DAY_MS;
        for (left, expected) in [
            (31 * day, None),
            (30 * day + 1, None),
            (30 * day, Some((Health::Yellow, "ends in 30 days"))),
            (14 * day, Some((Health::Yellow, "ends in 14 days"))),
            (3 * day + 1, Some((Health::Yellow, "ends in 3 days"))),
            (3 * day, Some((Health::Red, "ends in 3 days"))),
            (day, Some((Health::Red, "ends in 1 day"))),
            (day - 1, Some((Health::Red, "ends within a day"))),
            (0, Some((Health::Red, "has ended"))),
        ] {
            let ours = of_ours(now.plus(left), now);
            let expected = expected
                .map(|(level, ends)| (level, format!("this node's certificate {ends}; renew it: staydown cert renew")));
            assert_eq!(ours, expected);
        }
        assert_eq!([31, 30, 14, 3, 0].map(|days| stage(now.plus(days * day), now)), [0, 1, 2, 3, 3]);
        let (level, text) = of_peer("bolt", TimeMs(0), now).unwrap();
        assert_eq!(level, Health::Red);
        assert_eq!(text, "the certificate of bolt has ended; tell them to renew it: staydown cert renew");
    }
}
