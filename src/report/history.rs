//! What one subject went through: the records about it become *spells*, times in which a member's register reads one
//! word, and spells become the statuses that followed one another.
//!
//! The view keeps the last word only (PROTOCOL layer 5). A report also needs to know when it was said, how long it
//! stood, and what stood before it.

use crate::replica::charter::Roles;
use crate::replica::ids::{LogNo, MemberId, Seq, TimeMs};
use crate::replica::view::Word;

/// A member as its words weigh, by its place in the charter.
pub(super) struct Seat {
    pub(super) id: MemberId,
    pub(super) group: u16,
    pub(super) roles: Roles,
    pub(super) admitted: TimeMs,
    pub(super) votes: bool,
}

/// One record with an effect on a subject's registers.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) time: TimeMs,
    pub(super) expires: TimeMs,
    pub(super) seq: Seq,
    pub(super) log_no: LogNo,
    pub(super) tags: u32,
    pub(super) index: u16,
    pub(super) seat: u16,
    pub(super) word: Word,
    pub(super) reason: u8,
}

impl Event {
    /// SUBMIT or ENDORSE.
    pub(super) fn supports(&self) -> bool {
        self.word.supports()
    }

    /// Layer 5: of one register the greatest stands, after all that are smaller.
    fn place(&self) -> (u8, u16, TimeMs, LogNo, Seq, u16) {
        (family(self.word), self.seat, self.time, self.log_no, self.seq, self.index)
    }
}

/// One record about an incident: its word is "open" or "closed", as a referral's is.
#[derive(Clone, Debug)]
pub(super) struct IncidentEvent {
    pub(super) event: Event,
    pub(super) code: u32,
}

/// What a company did with a subject, or keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A number of the results, and when.
    Acted { result: u32, at: TimeMs },
    /// A copy.
    Kept { until: TimeMs },
}

/// One record about a deed: what its word is tells nothing.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) event: Event,
    pub(super) deed: Deed,
}

impl Done {
    /// By kind, by member, and in the order in which the member said it.
    pub(super) fn place(&self) -> (bool, (u8, u16, TimeMs, LogNo, Seq, u16)) {
        (matches!(self.deed, Deed::Kept { .. }), self.event.place())
    }
}

fn family(word: Word) -> u8 {
    match word {
        Word::Stance(_) => 0,
        Word::Retract(_) => 1,
        Word::Allow(_) => 2,
        Word::Referral(_) => 3,
    }
}

/// A time in which one register reads one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spell {
    pub(super) seat: u16,
    pub(super) word: Word,
    pub(super) tags: u32,
    pub(super) reason: u8,
    pub(super) begin: TimeMs,
    /// Absent while it stands at the end of the period.
    pub(super) end: Option<End>,
}

/// How a spell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: TimeMs,
    /// What its author said then; absent if it expired.
    pub(super) by: Option<Word>,
}

impl End {
    /// Its place among all changes.
    pub(super) fn moment(self) -> Moment {
        Moment { at: self.at, said: self.by.is_some() }
    }
}

/// An instant, in two parts: what expires at it has expired before anything is said at it. A period takes in what is
/// said at its first instant and what expires at the first after it, as the view at that hour does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) at: TimeMs,
    pub(super) said: bool,
}

impl Moment {
    /// The moment of something that was said.
    pub(super) fn said(at: TimeMs) -> Self {
        Self { at, said: true }
    }
}

impl Spell {
    pub(super) fn began(&self) -> Moment {
        Moment::said(self.begin)
    }
}

/// The spells of `events`, by family, member and time. What would end after `to` stands.
pub(super) fn spells(events: &mut [Event], to: TimeMs) -> Vec<Spell> {
    events.sort_unstable_by_key(Event::place);
    let mut spells = Vec::with_capacity(1);
    for register in events.chunk_by(|a, b| (family(a.word), a.seat) == (family(b.word), b.seat)) {
        register_spells(register, to, &mut spells);
    }
    spells
}

fn register_spells(events: &[Event], to: TimeMs, spells: &mut Vec<Spell>) {
    let mut standing: Option<(Spell, TimeMs)> = None;
    for event in events {
        let dead = event.word.is_neutral() || event.expires.has_ended(event.time);
        if let Some((mut spell, expires)) = standing.take() {
            if expires.has_ended(event.time) {
                spell.end = Some(End { at: expires, by: None });
            } else if spell.word == event.word && !dead {
                // Said again: the same word with another date or other labels.
                standing = Some((spell, event.expires));
                continue;
            } else {
                spell.end = Some(End { at: event.time, by: Some(event.word) });
            }
            spells.push(spell);
        }
        standing = (!dead).then(|| (of_event(event), event.expires));
    }
    if let Some((mut spell, expires)) = standing {
        spell.end = expires.has_ended(to).then_some(End { at: expires, by: None });
        spells.push(spell);
    }
}

fn of_event(event: &Event) -> Spell {
    let Event { seat, word, tags, reason, time, .. } = *event;
    Spell { seat, word, tags, reason, begin: time, end: None }
}

/// A spell that begins (+1) or ends (-1) to weigh.
pub(super) struct Change<'a> {
    pub(super) moment: Moment,
    pub(super) begins: bool,
    pub(super) spell: &'a Spell,
}

/// All changes that `spells` make, in their order.
pub(super) fn changes(spells: &[Spell]) -> Vec<Change<'_>> {
    let mut all = Vec::with_capacity(2 * spells.len());
    for spell in spells {
        all.push(Change { moment: spell.began(), begins: true, spell });
        if let Some(end) = spell.end {
            all.push(Change { moment: end.moment(), begins: false, spell });
        }
    }
    all.sort_by_key(|change| change.moment);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::record::Stance;

    const SUBMIT: Word = Word::Stance(Stance::Submit);
    const ENDORSE: Word = Word::Stance(Stance::Endorse);
    const NEUTRAL: Word = Word::Stance(Stance::Neutral);

    fn event(time: u64, expires: u64, word: Word) -> Event {
        Event {
            time: TimeMs(time),
            expires: TimeMs(expires),
            seq: Seq(time),
            log_no: LogNo(0),
            tags: 0,
            index: 0,
            seat: 0,
            word,
            reason: 0,
        }
    }

    /// Begin, end and whether it was ended by a word, of each spell.
    fn shown(events: &mut [Event], to: u64) -> Vec<(u64, Option<(u64, bool)>)> {
        let spells = spells(events, TimeMs(to));
        spells.iter().map(|s| (s.begin.0, s.end.map(|e| (e.at.0, e.by.is_some())))).collect()
    }

    #[test]
    fn spells_begin_and_end_as_registers_read() {
        type Spells = &'static [(u64, Option<(u64, bool)>)];
        let cases: [(&str, Vec<Event>, Spells); 9] = [
            ("it stands", vec![event(1, 0, SUBMIT)], &[(1, None)]),
            ("it is taken back", vec![event(1, 0, SUBMIT), event(5, 0, NEUTRAL)], &[(1, Some((5, true)))]),
            ("nothing is taken back", vec![event(5, 0, NEUTRAL)], &[]),
            ("said again", vec![event(1, 0, SUBMIT), event(5, 0, SUBMIT)], &[(1, None)]),
            ("another word", vec![event(1, 0, SUBMIT), event(5, 0, ENDORSE)], &[(1, Some((5, true))), (5, None)]),
            ("it expires", vec![event(1, 7, SUBMIT)], &[(1, Some((7, false)))]),
            ("it expires after the period", vec![event(1, 11, SUBMIT)], &[(1, None)]),
            (
                "it expires and is said again",
                vec![event(9, 0, SUBMIT), event(1, 7, SUBMIT)],
                &[(1, Some((7, false))), (9, None)],
            ),
            ("expired before it was said", vec![event(1, 0, SUBMIT), event(8, 7, SUBMIT)], &[(1, Some((8, true)))]),
        ];
        for (what, mut events, expected) in cases {
            assert_eq!(shown(&mut events, 10), expected, "{what}");
        }
    }

    #[test]
    fn families_and_members_have_spells_of_their_own() {
        let mut events = vec![event(1, 0, SUBMIT), event(2, 0, Word::Retract(true)), event(3, 0, NEUTRAL)];
        events.push(Event { seat: 1, ..event(2, 0, SUBMIT) });
        assert_eq!(shown(&mut events, 10), [(1, Some((3, true))), (2, None), (2, None)]);
    }
}
