//! Have vectors: how far each side has come, with the hash of what stands there (PROTOCOL 6.1).

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::charter::HAVE_MAX;
use super::ids::{Head, HeaderHash, LogNo, MemberId, Origin, Seq, sha256};
use super::proto;

/// One entry a log. The hash is required: equal places with different hashes are a fork, and nothing else shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    heads: BTreeMap<Origin, Head>,
}

impl Have {
    /// The head of `origin`.
    pub fn head(&self, origin: Origin) -> Option<Head> {
        self.heads.get(&origin).copied()
    }

    /// The last place of `origin`; 0 if nothing is held.
    pub fn seq(&self, origin: Origin) -> Seq {
        self.head(origin).map_or(Seq(0), |head| head.seq)
    }

    /// Notes a head.
    pub fn set(&mut self, origin: Origin, head: Head) {
        self.heads.insert(origin, head);
    }

    /// As if nothing of `origin` were held.
    pub fn forget(&mut self, origin: Origin) {
        self.heads.remove(&origin);
    }

    /// All heads, by log.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, Head)> + '_ {
        self.heads.iter().map(|(origin, head)| (*origin, *head))
    }

    /// Number of logs.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether nothing is held at all.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Hash over the whole vector.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = b"staydown/have/v1\n".to_vec();
        for (origin, head) in self.iter() {
            bytes.extend_from_slice(&origin.to_bytes());
            bytes.extend_from_slice(&head.seq.0.to_be_bytes());
            bytes.extend_from_slice(&head.hash.0);
        }
        sha256(&[&bytes])
    }

    /// Number of blocks that this vector has and `other` lacks; at most `u64::MAX`, whatever a peer claims.
    pub fn blocks_beyond(&self, other: &Self) -> u64 {
        let beyond = self.iter().map(|(origin, head)| head.seq.0.saturating_sub(other.seq(origin).0));
        beyond.fold(0, u64::saturating_add)
    }

    /// As it travels.
    pub fn to_proto(&self) -> Vec<proto::Head> {
        self.iter().map(|(origin, head)| head_to_proto(origin, head)).collect()
    }

    /// As it was received.
    ///
    /// # Errors
    /// [`HaveError`]: the sender's fault.
    pub fn from_proto(heads: &[proto::Head]) -> Result<Self, HaveError> {
        if heads.len() > HAVE_MAX {
            return Err(HaveError::TooLong(heads.len()));
        }
        let mut have = Self::default();
        let mut last = None;
        for head in heads {
            let (origin, head) = head_from_proto(head).ok_or(HaveError::Entry)?;
            if last >= Some(origin) {
                return Err(HaveError::Order);
            }
            last = Some(origin);
            have.set(origin, head);
        }
        Ok(have)
    }
}

/// A head as it travels.
pub fn head_to_proto(origin: Origin, head: Head) -> proto::Head {
    proto::Head {
        origin: Some(origin_to_proto(origin)),
        seq: head.seq.0,
        header_hash: Bytes::copy_from_slice(&head.hash.0),
    }
}

/// A head as it was received.
pub fn head_from_proto(head: &proto::Head) -> Option<(Origin, Head)> {
    let origin = origin_from_proto(head.origin.as_ref()?)?;
    // Place 0 is "nothing yet": no block stands there, and no hash.
    let seq = Some(Seq(head.seq)).filter(|seq| *seq > Seq(0))?;
    Some((origin, Head { seq, hash: HeaderHash::from_slice(&head.header_hash)? }))
}

/// An origin as it travels.
pub fn origin_to_proto(origin: Origin) -> proto::Origin {
    proto::Origin { member_id: Bytes::copy_from_slice(&origin.member.0), log_no: origin.log_no.0 }
}

/// An origin as it was received.
pub fn origin_from_proto(origin: &proto::Origin) -> Option<Origin> {
    Some(Origin { member: MemberId::from_slice(&origin.member_id)?, log_no: LogNo(origin.log_no) })
}

/// Why a have vector is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum HaveError {
    #[error("have vector has {0} entries, at most 8192 are allowed")]
    TooLong(usize),
    #[error("have vector has an entry without member, place or hash")]
    Entry,
    #[error("have vector does not ascend by log")]
    Order,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::testing::origin;

    fn head(seq: u64, hash: u8) -> Head {
        Head { seq: Seq(seq), hash: HeaderHash([hash; 32]) }
    }

    fn have(heads: &[(u8, u32, u64, u8)]) -> Have {
        let mut have = Have::default();
        heads.iter().for_each(|(member, log_no, seq, hash)| have.set(origin(*member, *log_no), head(*seq, *hash)));
        have
    }

    #[test]
    fn a_vector_reads_back_as_it_was_written() {
        for heads in [&[][..], &[(1, 0, 1, 1)], &[(2, 1, 5, 1), (1, 0, u64::MAX, 2), (1, 7, 3, 3)]] {
            let have = have(heads);
            assert_eq!(Have::from_proto(&have.to_proto()), Ok(have.clone()));
            assert_eq!((have.len(), have.is_empty()), (heads.len(), heads.is_empty()));
        }
    }

    #[test]
    fn a_vector_ascends_and_every_entry_is_whole() {
        let good = have(&[(1, 0, 1, 1), (1, 1, 1, 1), (2, 0, 1, 1)]).to_proto();
        let refused = |change: fn(&mut Vec<proto::Head>)| {
            let mut heads = good.clone();
            change(&mut heads);
            Have::from_proto(&heads).unwrap_err()
        };
        assert_eq!(refused(|h| h.swap(0, 1)), HaveError::Order);
        assert_eq!(refused(|h| h[1] = h[0].clone()), HaveError::Order);
        assert_eq!(refused(|h| h[1].origin = None), HaveError::Entry);
        assert_eq!(refused(|h| h[1].origin.as_mut().unwrap().member_id = vec![1; 15].into()), HaveError::Entry);
        assert_eq!(refused(|h| h[1].header_hash = vec![1; 33].into()), HaveError::Entry);
        assert_eq!(refused(|h| h[1].header_hash = Bytes::new()), HaveError::Entry);
        assert_eq!(refused(|h| h[1].seq = 0), HaveError::Entry, "nothing stands at place 0");
    }

    #[test]
    fn a_vector_has_at_most_8192_entries() {
        assert_eq!(HAVE_MAX, 8_192);
        let mut all = Have::default();
        (0..=8_192).for_each(|log_no| all.set(origin(1, log_no), head(1, 1)));
        let mut heads = all.to_proto();
        assert_eq!(Have::from_proto(&heads), Err(HaveError::TooLong(8_193)));
        heads.pop();
        assert!(Have::from_proto(&heads).is_ok());
    }

    #[test]
    fn a_digest_changes_with_every_place_and_hash() {
        let vectors = [
            have(&[]),
            have(&[(1, 0, 1, 1)]),
            have(&[(1, 0, 2, 1)]),
            have(&[(1, 0, 1, 2)]),
            have(&[(1, 1, 1, 1)]),
            have(&[(2, 0, 1, 1)]),
            have(&[(1, 0, 1, 1), (2, 0, 1, 1)]),
        ];
        let digests: std::collections::BTreeSet<_> = vectors.iter().map(Have::digest).collect();
        assert_eq!(digests.len(), vectors.len());
    }

    #[test]
    fn blocks_beyond_are_those_that_the_other_lacks() {
        let ours = have(&[(1, 0, 5, 1), (1, 1, 2, 1), (2, 0, 1, 1)]);
        assert_eq!(ours.blocks_beyond(&have(&[])), 8);
        assert_eq!(ours.blocks_beyond(&have(&[(1, 0, 3, 1), (1, 1, 9, 1)])), 3);
        assert_eq!(have(&[]).blocks_beyond(&ours), 0);
        let claimed = have(&[(1, 0, u64::MAX, 1), (1, 1, u64::MAX, 1)]);
        assert_eq!(claimed.blocks_beyond(&ours), u64::MAX, "a peer may claim any place");
    }
}
