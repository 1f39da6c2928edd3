//! The replica as a snapshot file keeps it, so that a start need not read every block again.
//!
//! An image says what blocks made of a replica under one charter chain and one set of proofs. Where any of these is
//! another by now, or a log is not on disk as it was, the image is worth nothing and is not used: then, as without it,
//! everything is derived from the blocks. Blocks that came after it are taken in on the way that all others take.
//!
//! Signatures were looked at when the blocks came; whoever adopts an image verifies the blocks below it later, while the
//! node serves already.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::finality::Attests;
use super::forks::VerifiedProof;
use super::ids::{BlockId, Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs};
use super::log::Log;
use super::suspension::Suspensions;
use super::view::{self, View};
use super::{Replica, Restore};

/// Messages of `staydown.store.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in snapshot.proto"
)]
pub(super) mod kept {
    include!(concat!(env!("OUT_DIR"), "/messages/staydown.store.v1.rs"));
}

/// Of the form of images, and of the rules by which a list follows from blocks: raised with either.
const VERSION: u32 = 1;

/// Bytes of a client key with the place where it stands.
const CLIENT_KEY_ROW: usize = 16 + 4 + 8 + 4;

/// What an image rests on: with another one it is worth nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Ground(kept::ReplicaImage);

/// A replica's image, cheap to make and apart from it: it can be written while the replica goes on.
pub struct Image {
    state: kept::ReplicaImage,
    view: view::image::Image,
}

/// Why an image is not used. Nothing of it was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// Another release made it.
    #[error("it was made by other rules ({got}) than those of this release ({VERSION})")]
    Version {
        /// Theirs.
        got: u32,
    },
    /// Something it rests on is another by now.
    #[error("{0} since it was made")]
    Stale(&'static str),
    /// A log does not stand on disk as the image has it.
    #[error("block {0}, where it ends a log, is not the one on disk")]
    Elsewhere(BlockId),
    /// It contradicts itself.
    #[error("it does not hang together: {0}")]
    Damaged(&'static str),
}

impl Image {
    /// All but the list.
    pub fn state(&self) -> Vec<u8> {
        self.state.encode_to_vec()
    }

    /// The list.
    pub fn view(&self) -> &view::image::Image {
        &self.view
    }
}

impl Replica {
    /// What the blocks held made of this replica; `None` at a moment at which that is not settled.
    pub fn image(&self) -> Option<Image> {
        let settled = self.is_settled() && self.staged.is_empty() && self.understands() && !self.view.is_stale();
        let whole = self.logs.values().all(|log| log.durable() == log.len());
        (settled && whole).then(|| Image { state: self.state_image(), view: self.view.image() })
    }

    fn state_image(&self) -> kept::ReplicaImage {
        let (attested, attested_on_day) = self.standing.attests().image();
        let (suspended, suspended_on_day) = self.standing.suspensions().image();
        let keys = &self.own.client_keys;
        let mut rows = Vec::with_capacity(keys.len() * CLIENT_KEY_ROW);
        for (key, (block, index)) in keys {
            rows.extend_from_slice(key);
            rows.extend_from_slice(&block.origin.log_no.0.to_be_bytes());
            rows.extend_from_slice(&block.seq.0.to_be_bytes());
            rows.extend_from_slice(&index.to_be_bytes());
        }
        kept::ReplicaImage {
            logs: self.logs.values().map(Log::image).collect(),
            openings: self.keyring.openings().collect(),
            attested,
            attested_on_day,
            suspended,
            suspended_on_day,
            ours: self.attester.ours().map(|(origin, head)| place(*origin, *head)).collect(),
            notable: self.attester.notable().map(|(origin, seq)| bare_place(*origin, *seq)).collect(),
            counted: self.standing.counted_places().map(|(origin, seq)| bare_place(*origin, *seq)).collect(),
            client_keys: rows.into(),
            last_time_ms: self.own.last_time.0,
            ..self.rests_on()
        }
    }

    /// What an image that is made now would rest on.
    pub fn ground(&self) -> Ground {
        Ground(self.rests_on())
    }

    /// What an image of this replica rests on, and nothing else of it.
    fn rests_on(&self) -> kept::ReplicaImage {
        let hashes = self.proofs.iter().map(VerifiedProof::hash).chain(self.charter_fork().map(|(hash, _)| hash));
        let mut proofs: Vec<_> = hashes.map(|hash| Bytes::copy_from_slice(&hash)).collect();
        proofs.sort_unstable();
        kept::ReplicaImage {
            version: VERSION,
            me: Bytes::copy_from_slice(&self.settings.me.0),
            charter_version: self.chain.version(),
            charter_hash: Bytes::copy_from_slice(&self.chain.head().0),
            law_hash: Bytes::copy_from_slice(&self.law().hash.0),
            proofs,
            ..Default::default()
        }
    }
}

impl Restore {
    /// The charter by which the list of an image must have been made.
    pub fn law(&self) -> &super::charter::Charter {
        self.replica.law()
    }

    /// Takes an image in the place of the blocks below it: after charters, proofs and outbox, before any block. `on_disk`
    /// gives the hash of the header that stands on disk at a place. Returns the logs with the last places that it has: blocks
    /// up to there need not be read.
    ///
    /// # Errors
    /// [`Unusable`]: nothing was taken in.
    pub fn adopt(
        &mut self,
        state: &[u8],
        view: View,
        on_disk: impl Fn(BlockId) -> Option<HeaderHash>,
    ) -> Result<BTreeMap<Origin, Seq>, Unusable> {
        const DAMAGED: fn(&'static str) -> Unusable = Unusable::Damaged;
        // What a clock that ran ahead took for ended would stay so: an hour never goes back while a node runs.
        if view.digest().0 > self.now.hour() {
            return Err(Unusable::Stale("the clock was set back"));
        }
        let state = kept::ReplicaImage::decode(state).map_err(|_broken| DAMAGED("it cannot be read"))?;
        self.rests_on_the_same(&state)?;
        let mut keyring = (*self.replica.keyring).clone();
        for image in &state.openings {
            let (origin, opening) = keyring.opening_of_image(image).ok_or(DAMAGED("the opening of a log"))?;
            keyring.learn_opening(origin, opening);
        }
        let mut logs = BTreeMap::new();
        for image in &state.logs {
            let opening = image.opening.as_ref().and_then(|opening| keyring.opening_of_image(opening));
            let (origin, opening) = opening.ok_or(DAMAGED("the opening of a log"))?;
            let log = Log::of_image(origin, opening, image).ok_or(DAMAGED("a log"))?;
            let end = BlockId { origin, seq: log.len() };
            if on_disk(end).is_none_or(|hash| log.hash_at(end.seq) != Some(hash)) {
                return Err(Unusable::Elsewhere(end));
            }
            logs.insert(origin, log);
        }
        let attests = Attests::of_image(&state.attested, &state.attested_on_day).ok_or(DAMAGED("attestations"))?;
        let suspensions =
            Suspensions::of_image(&state.suspended, &state.suspended_on_day).ok_or(DAMAGED("suspensions"))?;
        let ours = state.ours.iter().map(head_of).collect::<Option<_>>().ok_or(DAMAGED("our attestations"))?;
        let places = |places: &[kept::Place]| places.iter().map(seq_of).collect::<Option<BTreeMap<_, _>>>();
        let notable = places(&state.notable).ok_or(DAMAGED("places to attest"))?;
        let counted = places(&state.counted).ok_or(DAMAGED("places taken in"))?;
        let (rows, rest) = state.client_keys.as_chunks::<CLIENT_KEY_ROW>();
        if !rest.is_empty() {
            return Err(DAMAGED("client keys"));
        }

        let ends = logs.iter().map(|(origin, log)| (*origin, log.len())).collect();
        let replica = &mut self.replica;
        let me = replica.settings.me;
        replica.keyring = Arc::new(keyring);
        replica.own.log_nos.extend(logs.keys().filter(|origin| origin.member == me).map(|origin| origin.log_no));
        replica.own.last_time = replica.own.last_time.max(TimeMs(state.last_time_ms));
        replica.own.client_keys.extend(rows.iter().filter_map(|row| client_key(me, row)));
        replica.logs = logs;
        replica.standing.adopt(attests, suspensions, counted);
        replica.view = view;
        // What the time since then has ended.
        let hour = replica.hour(self.now);
        replica.view.advance(hour);
        replica.adopt_attester(ours, notable, self.now);
        Ok(ends)
    }

    fn rests_on_the_same(&self, state: &kept::ReplicaImage) -> Result<(), Unusable> {
        let now = self.replica.rests_on();
        let same = |same, what| if same { Ok(()) } else { Err(Unusable::Stale(what)) };
        if state.version != now.version {
            return Err(Unusable::Version { got: state.version });
        }
        same(state.me == now.me, "our member id has changed")?;
        let charters = (state.charter_version, &state.charter_hash) == (now.charter_version, &now.charter_hash);
        same(charters, "the charter has changed")?;
        same(state.law_hash == now.law_hash, "the charter in force has changed")?;
        same(state.proofs == now.proofs, "the proofs held have changed")?;
        same(self.replica.logs.is_empty(), "blocks were read")
    }
}

/// A row of client keys.
fn client_key(me: MemberId, row: &[u8; CLIENT_KEY_ROW]) -> Option<([u8; 16], (BlockId, u32))> {
    let (key, rest) = row.split_first_chunk::<16>()?;
    let (log_no, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let origin = Origin { member: me, log_no: LogNo(u32::from_be_bytes(*log_no)) };
    let block = BlockId { origin, seq: Seq(u64::from_be_bytes(*seq)) };
    Some((*key, (block, u32::from_be_bytes(rest.try_into().ok()?))))
}

/// A place and its hash, for the snapshot file.
pub(super) fn place(origin: Origin, head: Head) -> kept::Place {
    kept::Place { hash: Bytes::copy_from_slice(&head.hash.0), ..bare_place(origin, head.seq) }
}

/// The inverse of [`place`].
pub(super) fn head_of(place: &kept::Place) -> Option<(Origin, Head)> {
    let (origin, seq) = seq_of(place)?;
    Some((origin, Head { seq, hash: HeaderHash::from_slice(&place.hash)? }))
}

fn bare_place(origin: Origin, seq: Seq) -> kept::Place {
    kept::Place { origin: Bytes::copy_from_slice(&origin.to_bytes()), seq: seq.0, ..Default::default() }
}

fn seq_of(place: &kept::Place) -> Option<(Origin, Seq)> {
    Some((Origin::from_bytes(place.origin[..].try_into().ok()?), Seq(place.seq)))
}
