//! Whether a node's answers can be relied on, and its state in one sentence: for `/readyz`, `check`, the service manager and
//! the console, so that no two of them say different things.

use crate::report::tables::grouped;
use crate::wire::local as l;

/// Whether lookups may be sent to this node: it is not about to end, and it holds a list. Whatever else health tells of (a certificate that
/// ends soon, a charter that is stale, a disk that takes no more submissions) changes no answer of a lookup, and an
/// upload service that has only this node is worse off with none.
///
/// # Errors
/// Why not, in a sentence.
pub fn readiness(status: &l::StatusResponse) -> Result<(), String> {
    if status.draining {
        return Err("the node is stopping".to_owned());
    }
    // An empty list has no match for anything: that must not look like an answer.
    if status.blocks == 0 && status.peers_total > 0 && status.peers_connected == 0 {
        return Err("the list is empty and no peer has been reached yet".to_owned());
    }
    if status.blocks_missing > status.blocks {
        let [here, all] = [status.blocks, status.blocks.saturating_add(status.blocks_missing)].map(count);
        return Err(format!("the list is being fetched: {here} of {all} blocks are here"));
    }
    Ok(())
}

/// How many blocks are missing here, where each connected peer claims that it has so many more. Nothing has proven a claim
/// until its blocks are here, and one member may claim any number: it must not make every other node look unready. So it
/// is the middle claim that counts, of two the lower. A single peer is believed: there is nobody else to ask.
pub fn missing(claims: impl IntoIterator<Item = u64>) -> u64 {
    let mut claims: Vec<_> = claims.into_iter().collect();
    claims.sort_unstable();
    claims.get(claims.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// The state in one sentence: what is wrong, if something is, else how far the node is.
pub fn sentence(status: &l::StatusResponse) -> String {
    if let Err(why) = readiness(status) {
        return why;
    }
    match (&status.health_reasons[..], status.health.as_str()) {
        ([], _) | (_, "GREEN") => in_step(status),
        ([only], _) => only.clone(),
        ([first, rest @ ..], _) => format!("{first} (and {} more)", rest.len()),
    }
}

fn count(number: u64) -> String {
    grouped(number, ',')
}

fn in_step(s: &l::StatusResponse) -> String {
    let entries = format!("{} entr{}", count(s.entries), if s.entries == 1 { "y" } else { "ies" });
    match (s.peers_total, s.blocks_missing) {
        (0, _) => format!("the only member so far, {entries}"),
        (total, 0) => format!("in sync with {} of {total} peers, {entries}", s.peers_connected),
        (total, missing) => {
            let missing = count(missing);
            format!("{missing} blocks behind, connected to {} of {total} peers, {entries}", s.peers_connected)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(change: impl FnOnce(&mut l::StatusResponse)) -> l::StatusResponse {
        let mut status = l::StatusResponse {
            health: "GREEN".into(),
            blocks: 40,
            entries: 1_204,
            peers_connected: 2,
            peers_total: 2,
            ..Default::default()
        };
        change(&mut status);
        status
    }

    #[test]
    fn a_node_is_ready_when_its_list_is_there() {
        assert_eq!(readiness(&status(|_| ())), Ok(()));
        let red = |s: &mut l::StatusResponse| {
            s.health = "RED".into();
            s.health_reasons = vec!["storage failed".into()];
        };
        assert_eq!(readiness(&status(red)), Ok(()), "lookups go on");
        assert_eq!(readiness(&status(|s| s.peers_connected = 0)), Ok(()), "cut off, with a list");
        let alone = |s: &mut l::StatusResponse| (s.blocks, s.peers_connected, s.peers_total) = (0, 0, 0);
        assert_eq!(readiness(&status(alone)), Ok(()), "a forum of one, where nothing was said yet");
        let founded = |s: &mut l::StatusResponse| s.blocks = 0;
        assert_eq!(readiness(&status(founded)), Ok(()), "peers are there, and have nothing either");
        assert_eq!(readiness(&status(|s| s.blocks_missing = 40)), Ok(()));
        for (not_ready, why) in [
            (status(|s| s.draining = true), "the node is stopping"),
            (status(|s| (s.blocks, s.peers_connected) = (0, 0)), "the list is empty and no peer has been reached yet"),
            (status(|s| s.blocks_missing = 41), "the list is being fetched: 40 of 81 blocks are here"),
        ] {
            assert_eq!(readiness(&not_ready).unwrap_err(), why);
            assert_eq!(sentence(&not_ready), why);
        }
        assert!(readiness(&status(|s| s.blocks_missing = u64::MAX)).is_err(), "whatever is claimed can be told");
    }

    #[test]
    fn what_one_peer_claims_does_not_decide_what_is_missing() {
        let liar = 1_000_000_000_000;
        for (claims, expected) in [
            (vec![], 0),
            (vec![7], 7),
            (vec![liar, 0], 0),
            (vec![3, liar], 3),
            (vec![0, liar, 5], 5),
            (vec![u64::MAX, 900, 1_000, 2], 900),
        ] {
            assert_eq!(missing(claims.iter().copied()), expected, "{claims:?}");
            let claimed = status(|s| s.blocks_missing = missing(claims.iter().copied()));
            assert_eq!(readiness(&claimed).is_ok(), expected <= 40, "{claims:?}");
        }
    }

    #[test]
    fn the_sentence_tells_what_is_wrong_before_how_far_we_are() {
        assert_eq!(sentence(&status(|_| ())), "in sync with 2 of 2 peers, 1,204 entries");
        assert_eq!(
            sentence(&status(|s| s.blocks_missing = 3)),
            "3 blocks behind, connected to 2 of 2 peers, 1,204 entries"
        );
        assert_eq!(sentence(&status(|s| (s.peers_total, s.entries) = (0, 1))), "the only member so far, 1 entry");
        let yellow = |reasons: &[&str]| {
            let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
            sentence(&status(|s| (s.health, s.health_reasons) = ("YELLOW".into(), reasons)))
        };
        assert_eq!(yellow(&["no peer is reachable"]), "no peer is reachable");
        assert_eq!(yellow(&["a", "b", "c"]), "a (and 2 more)");
    }
}
