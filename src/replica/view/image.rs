//! The image of a view: all that folding has made, in a form that is read back at the speed of memory. It is kept in a
//! file, so that a node with a long list need not fold all blocks again when it starts.
//!
//! An image is of one version of this release and of one charter: whoever changes what folding makes of a block, or the
//! form, raises [`VERSION`]. The file around it has a checksum and says which blocks are in it. Here, too, no byte is
//! believed: whatever is read, a view comes of it that can be asked and folded into, or an error.

use super::{BlockPlace, Cell, Incident, IncidentRegister, Listing, NO_INCIDENT, Register, Sum256, Table, Terms, View};
use crate::replica::charter::Charter;
use crate::replica::ids::{CharterHash, TimeMs};
use crate::replica::notes::Notes;
use crate::replica::stored::{Damaged, Source, Stored, stored};

/// Raised with every change of the form, and of what folding makes of a block.
pub const VERSION: u32 = 1;
/// More records than a forum will ever have, so that counting on is safe.
const RECORDS_MAX: u64 = 1 << 56;
/// Bytes of the table of blocks that are handed over at once.
const PIECE_BYTES: usize = 256 * 1024;

stored!(BlockPlace { time, seq, log_no, seat });
stored!(IncidentRegister { rank, open, closes, code });
stored!(Incident { registers, subjects });

impl Stored for Terms {
    fn store(&self, out: &mut Vec<u8>) {
        self.labels.to_vec().store(out);
        self.languages.to_vec().store(out);
        (self.incident, self.severity, self.reason).store(out);
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        let (labels, languages) = <(Vec<u32>, Vec<String>)>::load(source)?;
        let (incident, severity, reason) = Stored::load(source)?;
        Ok(Self { labels: labels.into(), languages: languages.into(), incident, severity, reason })
    }
}

/// A view as it stood when [`View::image`] was called. It shares its list with the view: what is folded meanwhile copies
/// those leaves that it writes, some ten kilobytes each.
#[derive(Clone, Debug)]
pub struct Image {
    /// Everything but the following, as it is written.
    head: Vec<u8>,
    blocks: Table<BlockPlace>,
    listing: Listing<{ Register::SIZE }>,
    ends: Listing<0>,
}

impl View {
    /// What is to be written. It takes as long as writing the notes does, some hundred nanoseconds each; the list itself,
    /// whatever its length, less than a millisecond.
    pub fn image(&self) -> Image {
        let mut head = Vec::new();
        VERSION.store(&mut head);
        self.charter.hash.store(&mut head);
        self.hour.store(&mut head);
        self.digest.to_bytes().store(&mut head);
        (self.listed, self.records, self.inert).store(&mut head);
        (self.stale, self.quota_by_arrival).store(&mut head);
        self.quotas.store(&mut head);
        self.notes.store(&mut head);
        (self.incidents.len() as u64).store(&mut head);
        self.incidents.iter().for_each(|incident| incident.store(&mut head));
        self.incident_numbers.store(&mut head);
        (self.terms.len() as u64).store(&mut head);
        self.terms.iter().for_each(|terms| terms.store(&mut head));
        let (blocks, listing, ends) = (self.blocks.clone(), self.listing.clone(), self.ends.clone());
        Image { head, blocks, listing, ends }
    }

    /// The view of an image that was made under `charter`. It follows no changes and remembers nothing that was replaced.
    ///
    /// # Errors
    /// When `bytes` are not the image of a view under `charter`, made by this release.
    pub fn read_from(charter: &Charter, mut bytes: &[u8]) -> Result<Self, Damaged> {
        let mut fill = |room: &mut [u8]| {
            let (now, later) = bytes.split_at_checked(room.len()).ok_or(Damaged::Short)?;
            room.copy_from_slice(now);
            bytes = later;
            Ok(())
        };
        let view = Self::load(charter, &mut Source::new(&mut fill))?;
        if bytes.is_empty() { Ok(view) } else { Err(Damaged::Long) }
    }

    /// The same of bytes that come one after the other, so that a long image need not be in memory beside its view.
    ///
    /// # Errors
    /// When they are not the image of a view under `charter`, made by this release. What follows the image is not looked at.
    pub fn load(charter: &Charter, source: &mut Source<'_>) -> Result<Self, Damaged> {
        let (version, hash) = <(u32, CharterHash)>::load(source)?;
        if version != VERSION {
            return Err(Damaged::Version { got: version, expected: VERSION });
        }
        if hash != charter.hash {
            return Err(Damaged::Charter { got: hash, expected: charter.hash });
        }
        let mut view = Self::new(charter, TimeMs::load(source)?);
        view.digest = Sum256(Sum256::limbs(Stored::load(source)?));
        (view.listed, view.records, view.inert) = Stored::load(source)?;
        (view.stale, view.quota_by_arrival) = Stored::load(source)?;
        view.quotas = Stored::load(source)?;
        view.notes = Notes::load(source)?;
        view.load_tables(source)?;
        view.listing = Listing::read_from(source, |cell| view.is_whole(cell))?;
        view.ends = Listing::read_from(source, |_| true)?;
        if view.listed > view.listing.len() as u64 || view.inert > view.records || view.records > RECORDS_MAX {
            return Err(Damaged::Number);
        }
        Ok(view)
    }

    fn load_tables(&mut self, source: &mut Source<'_>) -> Result<(), Damaged> {
        self.incidents = Stored::load(source)?;
        self.incident_numbers = Stored::load(source)?;
        let seats = self.incidents.iter().flat_map(|incident| incident.registers.keys());
        let numbers = self.incident_numbers.values();
        if !seats.copied().all(|seat| self.has_seat(seat))
            || !numbers.clone().all(|number| self.has_incident(*number))
            || numbers.count() != self.incidents.len()
        {
            return Err(Damaged::Number);
        }
        for number in 0..u64::load(source)? {
            let terms = Terms::load(source)?;
            let known = terms.incident == NO_INCIDENT || self.has_incident(terms.incident);
            if !known || u64::from(self.terms(terms)) != number {
                return Err(Damaged::Number);
            }
        }
        for _ in 0..u64::load(source)? {
            let block = BlockPlace::load(source)?;
            if !self.has_seat(block.seat) {
                return Err(Damaged::Number);
            }
            self.blocks.push(block);
        }
        Ok(())
    }

    fn has_seat(&self, seat: u16) -> bool {
        usize::from(seat) < self.seats.len()
    }

    fn has_incident(&self, number: u32) -> bool {
        (number as usize) < self.incidents.len()
    }

    fn is_whole(&self, cell: &Cell) -> bool {
        let register = Register::from_cell(*cell);
        (register.block as usize) < self.blocks.len()
            && (register.terms as usize) < self.terms.len()
            && register.to_cell() == *cell
    }
}

impl Image {
    /// Hands the image to `sink`, piece by piece, as long as that takes it.
    ///
    /// # Errors
    /// The first of `sink`.
    pub fn write_to<E>(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        sink(&self.head)?;
        let mut out = Vec::new();
        (self.blocks.len() as u64).store(&mut out);
        for block in self.blocks.iter() {
            block.store(&mut out);
            if out.len() >= PIECE_BYTES {
                sink(&out)?;
                out.clear();
            }
        }
        sink(&out)?;
        self.listing.write_to(sink)?;
        self.ends.write_to(sink)
    }
}
