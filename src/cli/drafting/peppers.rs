//! Peppers in a charter: accounts switched on and off, a new pepper, an old one that goes, copies for those who came later.
//! Pure: peppers and chance are given, and nothing of a pepper is left but its sealed copies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::body;
use super::governing::{ACTIVE, edit, refused};
use crate::accounts::sealing::{self, Place};
use crate::accounts::{Pepper, Peppers, SealSecret};
use crate::cli::failure::{Exit, Failure};
use crate::cli::show;
use crate::replica::charter::{ACCOUNTS_LEVEL, Charter, PEPPERS_MAX, Roles, SealKey, charter_hash};
use crate::replica::ids::{ForumId, MemberId, TimeMs};
use crate::replica::proto;
use crate::wire::files::CharterFile;

/// A node that was away for a week may list accounts under the old pepper until it hears of the new one.
pub(in crate::cli) const SUPERSEDED_GRACE_MS: u64 = 7 * TimeMs::DAY_MS;

/// 32 random bytes, new ones at each call.
pub(in crate::cli) type Chance<'a> = &'a mut dyn FnMut() -> [u8; 32];

/// Who gets peppers: of the members that belong, those whose roles deal with accounts.
fn sees_accounts(member: &proto::Member) -> bool {
    member.status == ACTIVE && Roles::from_bits(member.roles).deal_with_accounts()
}

/// The members that ought to have a copy of the pepper `id` and have none: by name, and whether they have a seal key.
pub(in crate::cli) fn without_copy(charter: &proto::Charter, id: u32) -> Vec<(String, bool)> {
    let has = |m: &proto::Member| charter.peppers.iter().any(|c| c.pepper_id == id && c.member_id == m.id);
    let lack = charter.members.iter().filter(|m| sees_accounts(m) && !has(m));
    lack.map(|m| (m.name.clone(), !m.seal_key.is_empty())).collect()
}

/// The pepper under which accounts are listed from this charter on.
pub(in crate::cli) fn newest(charter: &proto::Charter) -> Option<u32> {
    charter.peppers.iter().map(|copy| copy.pepper_id).max()
}

/// Lets accounts be listed, under a first pepper.
pub(in crate::cli) fn switch_on(
    file: &CharterFile,
    pepper: &Pepper,
    chance: Chance<'_>,
) -> Result<CharterFile, Failure> {
    let charter = body(file)?;
    if !charter.peppers.is_empty() {
        return Err(refused("accounts are on already").fix("staydown charter rotate-pepper, for another pepper"));
    }
    begin(file, &charter)?;
    add(file, pepper, chance)
}

/// Ends the listing of accounts: what was listed counts no more.
pub(in crate::cli) fn switch_off(file: &CharterFile) -> Result<CharterFile, Failure> {
    if body(file)?.peppers.is_empty() {
        return Err(refused("accounts are off: the charter has no pepper"));
    }
    edit(file, |charter| {
        charter.peppers.clear();
        Ok(())
    })
}

/// A new pepper beside those that live, of which those go that nothing can be listed under any more. Returns which.
pub(in crate::cli) fn rotate(
    file: &CharterFile,
    pepper: &Pepper,
    now: TimeMs,
    chance: Chance<'_>,
) -> Result<(CharterFile, Vec<u32>), Failure> {
    let charter = body(file)?;
    if charter.peppers.is_empty() {
        return Err(refused("accounts are off: the charter has no pepper").fix("staydown charter set-accounts on"));
    }
    begin(file, &charter)?;
    let needed = needed_until(file, &charter)?;
    let over: Vec<_> = needed.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
    let live: BTreeSet<_> = charter.peppers.iter().map(|c| c.pepper_id).filter(|id| !over.contains(id)).collect();
    if live.len() >= PEPPERS_MAX {
        let (oldest, until) = needed.iter().next().map_or((0, now), |(id, until)| (*id, *until));
        let cause = format!("{} peppers live already, at most {PEPPERS_MAX} do", live.len());
        return Err(refused(cause)
            .culprit(format!("pepper {oldest} is needed until {}", show::date(until)))
            .fix(format!("staydown charter drop-pepper {oldest}, which gives up what is listed under it")));
    }
    let file = match over.is_empty() {
        true => file.clone(),
        false => edit(file, |charter| {
            charter.peppers.retain(|copy| !over.contains(&copy.pepper_id));
            Ok(())
        })?,
    };
    Ok((add(&file, pepper, chance)?, over))
}

/// Takes an old pepper out: what is listed under it counts no more. Returns until when it was needed.
pub(in crate::cli) fn drop_pepper(file: &CharterFile, id: u32) -> Result<(CharterFile, TimeMs), Failure> {
    let charter = body(file)?;
    let newest = newest(&charter).unwrap_or(0);
    if !charter.peppers.iter().any(|copy| copy.pepper_id == id) {
        let live: BTreeSet<_> = charter.peppers.iter().map(|copy| copy.pepper_id.to_string()).collect();
        let live = if live.is_empty() { "none".to_owned() } else { live.into_iter().collect::<Vec<_>>().join(", ") };
        return Err(Failure::new(Exit::NotFound, format!("the charter has no pepper {id}; it has {live}")));
    }
    if id == newest {
        let cause = format!("pepper {id} is the newest: accounts are listed under it");
        return Err(refused(cause).fix("staydown charter rotate-pepper first, or staydown charter set-accounts off"));
    }
    let until = needed_until(file, &charter)?.get(&id).copied().unwrap_or_default();
    let new = edit(file, |charter| {
        charter.peppers.retain(|copy| copy.pepper_id != id);
        Ok(())
    })?;
    Ok((new, until))
}

/// The peppers of a draft that `me` opens by `secrets`: its own, and those of the charter in force, for an admission under
/// another seal key takes our copies out of the draft. `None`: no copy is for `me`.
pub(in crate::cli) fn open(
    begun: &CharterFile,
    me: MemberId,
    secrets: &[SealSecret],
) -> Result<Option<Peppers>, Failure> {
    let forum = forum(begun)?;
    let mut opened = None;
    // An id is one pepper in all versions.
    for signed in [&begun.proposed].into_iter().chain(begun.before.last()) {
        let charter = Charter::decode(&signed.body)?;
        if charter.peppers.values().any(|copies| copies.contains_key(&me)) {
            let peppers: &mut Peppers = opened.get_or_insert_default();
            peppers.open.extend(Peppers::of(&charter, forum, me, secrets).open);
        }
    }
    Ok(opened)
}

/// Seals the peppers that are open here to the members that have a seal key and no copy: those that live in `begun`, the
/// draft before copies went from it with the seal keys that they were for. Returns for whom which one.
pub(in crate::cli) fn share(
    begun: &CharterFile,
    file: &CharterFile,
    peppers: &Peppers,
    chance: Chance<'_>,
) -> Result<(CharterFile, Vec<(String, u32)>), Failure> {
    let forum = forum(file)?;
    let mut charter = body(file)?;
    let mut sealed = Vec::new();
    let live = ids(&body(begun)?);
    for (id, pepper) in peppers.open.iter().filter(|(id, _)| live.contains(*id)) {
        sealed.extend(seal_to_all(&mut charter, forum, *id, pepper, chance)?.into_iter().map(|name| (name, *id)));
    }
    if sealed.is_empty() {
        return Ok((file.clone(), sealed));
    }
    let new = edit(file, |c| {
        *c = charter;
        Ok(())
    })?;
    Ok((new, sealed))
}

/// Refuses an admission that took the last copy of a pepper away: everything that is listed under it would end.
pub(in crate::cli) fn all_kept(begun: &CharterFile, file: &CharterFile) -> Result<(), Failure> {
    let before = body(begun)?;
    let Some(lost) = ids(&before).difference(&ids(&body(file)?)).next().copied() else { return Ok(()) };
    let holds = |m: &&proto::Member| before.peppers.iter().any(|c| c.pepper_id == lost && c.member_id == m.id);
    let holders: Vec<_> = before.members.iter().filter(holds).map(|m| show::clean(&m.name)).collect();
    let cause = format!("with the old seal key of {} the last copy of pepper {lost} would go", holders.join(", "));
    Err(refused(cause)
        .culprit("everything that is listed under it would end")
        .fix("admit the request at the node of a company that opens the pepper, as a user who can read its keys"))
}

fn ids(charter: &proto::Charter) -> BTreeSet<u32> {
    charter.peppers.iter().map(|copy| copy.pepper_id).collect()
}

/// What a charter of accounts needs besides a pepper.
fn begin(file: &CharterFile, charter: &proto::Charter) -> Result<(), Failure> {
    forum(file)?;
    if charter.semantics < ACCOUNTS_LEVEL {
        let cause =
            format!("the forum is at semantics level {}; accounts need level {ACCOUNTS_LEVEL}", charter.semantics);
        let fix = format!("staydown charter set-semantics {ACCOUNTS_LEVEL}, into the same file first");
        return Err(refused(cause).fix(fix));
    }
    Ok(())
}

fn forum(file: &CharterFile) -> Result<ForumId, Failure> {
    let first = file.before.first().ok_or_else(|| {
        refused("a founding draft is no forum yet: a pepper is sealed for one forum")
            .fix("found it, and then switch accounts on")
    })?;
    Ok(ForumId(charter_hash(&first.body).0))
}

fn add(file: &CharterFile, pepper: &Pepper, chance: Chance<'_>) -> Result<CharterFile, Failure> {
    let forum = forum(file)?;
    let used = versions(file)?.iter().chain([&body(file)?]).filter_map(newest).max().unwrap_or(0);
    let id = used.checked_add(1).ok_or_else(|| refused("all numbers of peppers are used up"))?;
    edit(file, |charter| {
        if seal_to_all(charter, forum, id, pepper, chance)?.is_empty() {
            let cause = "no member that deals with accounts has a seal key in the charter";
            return Err(
                refused(cause).fix("staydown key rotate --seal at each, and staydown charter admit its request")
            );
        }
        Ok(())
    })
}

/// Seals a pepper to every member that ought to have it, has a key, and has no copy. Returns their names.
fn seal_to_all(
    charter: &mut proto::Charter,
    forum: ForumId,
    id: u32,
    pepper: &Pepper,
    chance: Chance<'_>,
) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for member in charter.members.iter().filter(|m| sees_accounts(m) && !m.seal_key.is_empty()) {
        if charter.peppers.iter().any(|copy| copy.pepper_id == id && copy.member_id == member.id) {
            continue;
        }
        let unsound = || refused(format!("the seal key of {} is not sound", member.name));
        let key = SealKey::from_slice(&member.seal_key).ok_or_else(unsound)?;
        let place = Place { forum, pepper: id, member: MemberId::from_slice(&member.id).ok_or_else(unsound)? };
        let sealed = sealing::seal(pepper, &place, &key, chance()).ok_or_else(unsound)?;
        let sealed = Bytes::copy_from_slice(&sealed);
        charter.peppers.push(proto::SealedPepper { pepper_id: id, member_id: member.id.clone(), sealed });
        names.push(member.name.clone());
    }
    charter.peppers.sort_by(|a, b| (a.pepper_id, &a.member_id).cmp(&(b.pepper_id, &b.member_id)));
    Ok(names)
}

fn versions(file: &CharterFile) -> Result<Vec<proto::Charter>, Failure> {
    let decoded = file.before.iter().map(|signed| proto::Charter::decode(signed.body.clone()));
    decoded.map(|c| c.map_err(|error| Failure::new(Exit::BadInput, error.to_string()))).collect()
}

/// Until when something may be listed under each pepper but the newest: the longest time that accounts were listed for,
/// after the charter that brought the next one.
fn needed_until(file: &CharterFile, charter: &proto::Charter) -> Result<BTreeMap<u32, TimeMs>, Failure> {
    let versions = versions(file)?;
    let ttl = |c: &proto::Charter| c.policy.as_ref().map_or(0, |policy| policy.account_ttl_max_ms);
    let longest = versions.iter().chain([charter]).map(ttl).max().unwrap_or(0);
    let ids: BTreeSet<_> = charter.peppers.iter().map(|copy| copy.pepper_id).collect();
    let old = ids.iter().filter(|id| ids.last() != Some(id));
    let until = old.map(|id| {
        let next = versions.iter().chain([charter]).find(|c| newest(c).is_some_and(|newest| newest > *id));
        let superseded = TimeMs(next.map_or(charter.issued_ms, |c| c.issued_ms));
        (*id, superseded.plus(longest).plus(SUPERSEDED_GRACE_MS))
    });
    Ok(until.collect())
}

#[cfg(test)]
mod tests {
    use super::super::governing::{Kept, expel, set_role, set_semantics};
    use super::super::tests::{NOW, founded, founder, request, secret};
    use super::super::{admit, chain, next, sign};
    use super::*;
    use crate::wire::files::Binding;

    fn counted() -> impl FnMut() -> [u8; 32] {
        let mut calls = 0_u8;
        move || {
            calls += 1;
            [calls; 32]
        }
    }

    fn pepper(number: u8) -> Pepper {
        Pepper::from_bytes([number; 32])
    }

    /// The next version after `file`, `days` later.
    fn after(file: &CharterFile, days: u64) -> CharterFile {
        let signed = sign(&sign(file, &founder(1)).unwrap(), &founder(2)).unwrap();
        let issued = TimeMs(body(file).unwrap().issued_ms);
        next(&chain(&signed).unwrap(), issued.plus(days * TimeMs::DAY_MS)).unwrap()
    }

    fn level_3() -> CharterFile {
        set_semantics(&after(&founded(), 1), 3).unwrap()
    }

    /// Level 3, with pepper 1 sealed to acme, bolt and cyan.
    fn with_accounts() -> CharterFile {
        switch_on(&level_3(), &pepper(1), &mut counted()).unwrap()
    }

    fn copies(file: &CharterFile) -> Vec<(u32, u8)> {
        body(file).unwrap().peppers.iter().map(|copy| (copy.pepper_id, copy.member_id[0])).collect()
    }

    /// What the company of this seed opens.
    fn opened(file: &CharterFile, seed: u8) -> Peppers {
        let charter = Charter::decode(&file.proposed.body).unwrap();
        Peppers::of(&charter, forum(file).unwrap(), MemberId([seed; 16]), &[secret(seed)])
    }

    #[test]
    fn accounts_are_switched_on_for_all_that_deal_with_them_at_level_3_only() {
        let told = switch_on(&after(&founded(), 1), &pepper(1), &mut counted()).unwrap_err();
        assert!(told.cause.contains("level 2") && told.fix.unwrap().contains("set-semantics 3"));
        assert!(switch_on(&founded(), &pepper(1), &mut counted()).unwrap_err().cause.contains("founding draft"));
        let file = set_role(&level_3(), "cyan", Roles::OBSERVER).unwrap();
        let file = switch_on(&file, &pepper(1), &mut counted()).unwrap();
        assert_eq!(copies(&file), [(1, 11), (1, 12)], "an observer has no use for it");
        assert_eq!(opened(&file, 11).open.len(), 1);
        assert!(opened(&file, 12).open.contains_key(&1) && opened(&file, 13).open.is_empty());
        assert!(switch_on(&file, &pepper(1), &mut counted()).is_err());
        let off = switch_off(&after(&file, 1)).unwrap();
        assert!(copies(&off).is_empty());
        // A number is never used again: what was listed under it must not come back.
        let again = switch_on(&after(&off, 1), &pepper(2), &mut counted()).unwrap();
        assert_eq!(copies(&again)[0].0, 2);
        assert!(set_semantics(&after(&file, 1), 2).unwrap_err().cause.contains("peppers"));
    }

    #[test]
    fn a_rotation_keeps_what_is_needed_and_drops_what_is_not() {
        let second = rotate(&after(&with_accounts(), 10), &pepper(2), NOW, &mut counted()).unwrap();
        assert_eq!((copies(&second.0).len(), second.1.as_slice()), (6, &[][..]));
        // Superseded on day 11; listed for 180 days at most, and a week.
        let issued = TimeMs(body(&second.0).unwrap().issued_ms);
        for (days, dropped) in [(186, vec![]), (187, vec![1])] {
            let later = issued.plus(days * TimeMs::DAY_MS);
            let third = rotate(&after(&second.0, days), &pepper(3), later, &mut counted()).unwrap();
            assert_eq!(third.1, dropped, "{days} days later");
            assert_eq!(copies(&third.0).len(), if dropped.is_empty() { 9 } else { 6 });
        }
        let (dropped, until) = drop_pepper(&after(&second.0, 1), 1).unwrap();
        assert_eq!(until, issued.plus(187 * TimeMs::DAY_MS));
        assert!(copies(&dropped).iter().all(|(id, _)| *id == 2));
        assert!(drop_pepper(&second.0, 2).unwrap_err().fix.unwrap().contains("set-accounts off"));
        assert!(drop_pepper(&second.0, 9).unwrap_err().cause.contains("it has 1, 2"));
    }

    #[test]
    fn more_than_eight_peppers_do_not_live_at_once() {
        let mut file = with_accounts();
        for number in 2..=8 {
            file = rotate(&after(&file, 1), &pepper(number), NOW, &mut counted()).unwrap().0;
        }
        let told = rotate(&after(&file, 1), &pepper(9), NOW, &mut counted()).unwrap_err();
        assert!(told.cause.contains("8 peppers live") && told.fix.unwrap().contains("drop-pepper 1"), "{}", told.cause);
    }

    #[test]
    fn a_newcomer_gets_its_copies_where_the_peppers_are_open() {
        let file = after(&with_accounts(), 1);
        let delta = request("delta", 14, Binding::Forum(forum(&file).unwrap()));
        let file = admit(&file, &delta, Some(Roles::FULL), NOW).unwrap();
        assert_eq!(without_copy(&body(&file).unwrap(), 1), [("delta".to_owned(), true)]);
        let here = opened(&file, 12);
        let (shared, for_whom) = share(&file, &file, &here, &mut counted()).unwrap();
        assert_eq!(for_whom, [("delta".to_owned(), 1)]);
        assert!(opened(&shared, 14).open.contains_key(&1) && without_copy(&body(&shared).unwrap(), 1).is_empty());
        let (same, nobody) = share(&file, &shared, &here, &mut counted()).unwrap();
        assert_eq!((same, nobody.len()), (shared, 0));
        assert!(share(&file, &file, &Peppers::default(), &mut counted()).unwrap().1.is_empty());
    }

    #[test]
    fn a_copy_goes_with_the_seal_key_that_it_was_for() {
        let file = after(&with_accounts(), 1);
        let mut bolt = request("bolt", 12, Binding::Forum(forum(&file).unwrap())).applicant;
        bolt.seal_key = secret(77).public();
        let key = ed25519_dalek::SigningKey::from_bytes(&[12; 32]);
        let rekeyed = crate::wire::files::JoinRequest::make(&bolt, &key, NOW).unwrap();
        let changed = admit(&file, &rekeyed, None, NOW).unwrap();
        assert_eq!(copies(&changed), [(1, 11), (1, 13)]);
        let (shared, for_whom) = share(&file, &changed, &opened(&file, 11), &mut counted()).unwrap();
        assert_eq!((for_whom, copies(&shared).len()), (vec![("bolt".to_owned(), 1)], 3));
        // A request of an older release says nothing of the key and changes nothing.
        bolt.seal_key = None;
        let silent = crate::wire::files::JoinRequest::make(&bolt, &key, NOW).unwrap();
        let same = admit(&file, &silent, None, NOW).unwrap();
        assert_eq!(body(&same).unwrap(), body(&file).unwrap());
    }

    /// `file` with another seal key of the company of this seed, `secret(seed + 60)`.
    fn rekeyed(file: &CharterFile, name: &str, seed: u8) -> CharterFile {
        let mut company = request(name, seed, Binding::Forum(forum(file).unwrap())).applicant;
        company.seal_key = secret(seed + 60).public();
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        admit(file, &crate::wire::files::JoinRequest::make(&company, &key, NOW).unwrap(), None, NOW).unwrap()
    }

    #[test]
    fn a_seal_key_changes_at_the_companys_own_node_though_nobody_else_has_the_pepper() {
        let alone =
            ["bolt", "cyan"].iter().fold(level_3(), |file, name| set_role(&file, name, Roles::OBSERVER).unwrap());
        let alone = switch_on(&alone, &pepper(1), &mut counted()).unwrap();
        let all = with_accounts();
        for (file, companies) in [(alone, &[("acme", 11)][..]), (all, &[("acme", 11), ("bolt", 12), ("cyan", 13)])] {
            let begun = after(&file, 1);
            let changed = companies.iter().fold(begun.clone(), |file, (name, seed)| rekeyed(&file, name, *seed));
            assert_eq!(copies(&changed), [], "the copies open nowhere any more");
            let why = all_kept(&begun, &changed).unwrap_err();
            assert!(
                why.cause.contains("acme") && why.cause.ends_with("the last copy of pepper 1 would go"),
                "{}",
                why.cause
            );
            let old = [secret(11)];
            for place in [&begun, &changed] {
                assert_eq!(open(place, MemberId([11; 16]), &old).unwrap().unwrap().open.len(), 1);
            }
            let here = open(&begun, MemberId([11; 16]), &old).unwrap().unwrap();
            let (shared, _) = share(&begun, &changed, &here, &mut counted()).unwrap();
            all_kept(&begun, &shared).unwrap();
            for (_, seed) in companies {
                assert!(
                    open(&shared, MemberId([*seed; 16]), &[secret(*seed + 60)]).unwrap().unwrap().open.contains_key(&1)
                );
            }
        }
        assert!(open(&after(&with_accounts(), 1), MemberId([14; 16]), &[secret(14)]).unwrap().is_none());
        // What was taken out on purpose in the same file does not come back.
        let second = rotate(&after(&with_accounts(), 1), &pepper(2), NOW, &mut counted()).unwrap().0;
        let begun = drop_pepper(&after(&second, 1), 1).unwrap().0;
        let here = open(&begun, MemberId([11; 16]), &[secret(11)]).unwrap().unwrap();
        let (shared, _) = share(&begun, &rekeyed(&begun, "acme", 11), &here, &mut counted()).unwrap();
        assert!(copies(&shared).iter().all(|(id, _)| *id == 2) && copies(&shared).len() == 3);
    }

    #[test]
    fn who_has_left_gets_no_new_pepper() {
        let gone = expel(&after(&with_accounts(), 1), "cyan", Kept::Nothing, 99, &[]).unwrap();
        let (rotated, _) = rotate(&gone, &pepper(2), NOW, &mut counted()).unwrap();
        assert_eq!(copies(&rotated), [(1, 11), (1, 12), (1, 13), (2, 11), (2, 12)]);
    }
}
