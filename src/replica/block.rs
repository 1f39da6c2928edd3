//! The block: a header of 252 bytes that is signed, and the records it commits to (PROTOCOL section 3.1).

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;
use thiserror::Error;

use super::ids::{BlockId, ForumId, Head, HeaderHash, KeyId, LogNo, MemberId, Origin, Seq, TimeMs, sha256};
use super::remembered::remembered;
use super::{merkle, proto};

/// Length of a header in bytes; frozen.
pub const HEADER_SIZE: usize = 252;
/// Records in one block; one signature covers them all, and a fork proof never needs them.
pub const RECORDS_PER_BLOCK_MAX: usize = 512;
/// Sum of the lengths of a block's records; a frame then stays well below a message of 1 MiB.
pub const PAYLOAD_SIZE_MAX: usize = 262_144;
/// Length of one record.
pub const RECORD_SIZE_MAX: usize = 4_096;

const MAGIC: &[u8; 8] = b"SDBLOCK1";
const HEADER_TYPE: &str = "application/vnd.staydown.block-header.v1";

/// DSSE v1 pre-authentication encoding: what is really signed, so that no signature of one kind passes for another.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The one accepted verification predicate (PROTOCOL S2): strict, without cofactor, over the type and the bytes.
pub fn signature_holds(key: &VerifyingKey, payload_type: &str, body: &[u8], signature: &[u8]) -> bool {
    let holds =
        || Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(&pae(payload_type, body), &s).is_ok());
    remembered!(bool, &[key.as_bytes(), payload_type.as_bytes(), body, signature], holds())
}

/// Signs `body` as `payload_type`.
pub fn sign(key: &SigningKey, payload_type: &str, body: &[u8]) -> [u8; 64] {
    let signature = || key.sign(&pae(payload_type, body)).to_bytes();
    remembered!([u8; 64], &[key.as_bytes(), payload_type.as_bytes(), body], signature())
}

/// The fields of a header. Encoding and decoding are inverse to each other to the byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which forum.
    pub forum: ForumId,
    /// Which place in which log.
    pub id: BlockId,
    /// Lane, by number: an unknown one is a fault only if it differs from the opening's.
    pub class: u16,
    /// Index into the charter's audiences; 0 is everybody.
    pub audience: u16,
    /// The author's time; never less than the previous block's.
    pub time: TimeMs,
    /// Hash of the previous header; zero before the first.
    pub prev: HeaderHash,
    /// RFC 6962 root over the header hashes of all blocks before this one.
    pub log_root: [u8; 32],
    /// Number of records.
    pub record_count: u32,
    /// Sum of the records' lengths in bytes.
    pub payload_len: u32,
    /// RFC 6962 root over the records' bytes.
    pub records_root: [u8; 32],
    /// The log's key.
    pub key_id: KeyId,
    /// 0 in this version.
    pub flags: u32,
    /// 0, or the hash of an extension carried beside the block.
    pub ext_hash: [u8; 32],
}

impl Header {
    /// The 252 bytes.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(MAGIC);
        put(&self.forum.0);
        put(&self.id.origin.to_bytes());
        put(&self.class.to_be_bytes());
        put(&self.audience.to_be_bytes());
        put(&self.id.seq.0.to_be_bytes());
        put(&self.time.0.to_be_bytes());
        put(&self.prev.0);
        put(&self.log_root);
        put(&self.record_count.to_be_bytes());
        put(&self.payload_len.to_be_bytes());
        put(&self.records_root);
        put(&self.key_id.0);
        put(&self.flags.to_be_bytes());
        put(&self.ext_hash);
        bytes
    }

    /// Reads 252 bytes.
    ///
    /// # Errors
    /// Only the magic can be wrong: every other pattern of bytes is some header.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, FrameError> {
        fn part<const N: usize>(bytes: &[u8; HEADER_SIZE], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[at..at + N]);
            out
        }
        if part::<8>(bytes, 0) != *MAGIC {
            return Err(FrameError::Magic);
        }
        Ok(Self {
            forum: ForumId(part(bytes, 8)),
            id: BlockId {
                origin: Origin {
                    member: MemberId(part(bytes, 40)),
                    log_no: LogNo(u32::from_be_bytes(part(bytes, 56))),
                },
                seq: Seq(u64::from_be_bytes(part(bytes, 64))),
            },
            class: u16::from_be_bytes(part(bytes, 60)),
            audience: u16::from_be_bytes(part(bytes, 62)),
            time: TimeMs(u64::from_be_bytes(part(bytes, 72))),
            prev: HeaderHash(part(bytes, 80)),
            log_root: part(bytes, 112),
            record_count: u32::from_be_bytes(part(bytes, 144)),
            payload_len: u32::from_be_bytes(part(bytes, 148)),
            records_root: part(bytes, 152),
            key_id: KeyId(part(bytes, 184)),
            flags: u32::from_be_bytes(part(bytes, 216)),
            ext_hash: part(bytes, 220),
        })
    }
}

/// A header as its author signed it; the signature may be anything until `signed.rs` has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    bytes: [u8; HEADER_SIZE],
    signature: [u8; 64],
    header: Header,
}

impl SignedHeader {
    /// A header and signature as received.
    ///
    /// # Errors
    /// [`FrameError`] when a length or the magic is wrong.
    pub fn from_parts(header: &[u8], signature: &[u8]) -> Result<Self, FrameError> {
        let bytes = header.try_into().map_err(|_wrong| FrameError::HeaderSize(header.len()))?;
        let signature = signature.try_into().map_err(|_wrong| FrameError::SignatureSize(signature.len()))?;
        Ok(Self { bytes, signature, header: Header::decode(&bytes)? })
    }

    /// Signs `header` with the log's key.
    pub fn sign(header: Header, key: &SigningKey) -> Self {
        let bytes = header.encode();
        Self { bytes, signature: sign(key, HEADER_TYPE, &bytes), header }
    }

    /// The fields.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The signed bytes.
    pub fn bytes(&self) -> &[u8; HEADER_SIZE] {
        &self.bytes
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// `H("staydown/header/v1\n" || header)`.
    pub fn hash(&self) -> HeaderHash {
        HeaderHash(sha256(&[b"staydown/header/v1\n", &self.bytes]))
    }

    /// Place and hash.
    pub fn head(&self) -> Head {
        Head { seq: self.header.id.seq, hash: self.hash() }
    }

    /// Whether `key` signed exactly these bytes.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        signature_holds(key, HEADER_TYPE, &self.bytes, &self.signature)
    }
}

/// One record's place in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The record's bytes.
    Record(Bytes),
    /// The leaf hash that stays after an erasure order.
    Redacted(merkle::Hash),
}

impl Slot {
    /// The leaf of `records_root`; the same for a record and for what its erasure leaves.
    pub fn leaf(&self) -> merkle::Hash {
        match self {
            Self::Record(bytes) => merkle::leaf_hash(bytes),
            Self::Redacted(leaf) => *leaf,
        }
    }
}

/// A block as it travels and as it is stored. Well formed, within the limits, and nothing more: see `signed.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The signed header.
    pub header: SignedHeader,
    /// The records, in order.
    pub slots: Vec<Slot>,
    /// Extension bytes; empty in this version.
    pub ext: Bytes,
}

impl Frame {
    /// Frame from its message.
    ///
    /// # Errors
    /// [`FrameError`] for wrong lengths and for more than the limits allow.
    pub fn from_proto(frame: proto::BlockFrame) -> Result<Self, FrameError> {
        let header = SignedHeader::from_parts(&frame.header, &frame.signature)?;
        if frame.slots.len() > RECORDS_PER_BLOCK_MAX {
            return Err(FrameError::TooManyRecords(frame.slots.len()));
        }
        let slots = frame.slots.into_iter().map(slot).collect::<Result<Vec<_>, _>>()?;
        let payload = slots.iter().map(|s| if let Slot::Record(r) = s { r.len() } else { 0 }).sum::<usize>();
        if payload > PAYLOAD_SIZE_MAX {
            return Err(FrameError::PayloadSize(payload));
        }
        if !frame.ext.is_empty() && sha256(&[&frame.ext]) != header.header.ext_hash {
            return Err(FrameError::Extension);
        }
        Ok(Self { header, slots, ext: frame.ext })
    }

    /// The message of this frame.
    pub fn to_proto(&self) -> proto::BlockFrame {
        proto::BlockFrame {
            header: Bytes::copy_from_slice(&self.header.bytes),
            signature: Bytes::copy_from_slice(&self.header.signature),
            slots: self.slots.iter().map(slot_to_proto).collect(),
            ext: self.ext.clone(),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no frame.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        Self::from_proto(proto::BlockFrame::decode(bytes).map_err(|_undecodable| FrameError::Encoding)?)
    }

    /// The stored form: the message that travels.
    pub fn encode(&self) -> Bytes {
        self.to_proto().encode_to_vec().into()
    }

    /// Length of the stored form in bytes.
    pub fn encoded_len(&self) -> usize {
        self.to_proto().encoded_len()
    }

    /// RFC 6962 root over the slots.
    pub fn records_root(&self) -> merkle::Hash {
        merkle::root(self.slots.iter().map(Slot::leaf))
    }
}

/// A slot from its message.
///
/// # Errors
/// [`FrameError::Slot`] for an empty slot or a leaf of the wrong length.
pub fn slot(slot: proto::Slot) -> Result<Slot, FrameError> {
    match slot.s {
        Some(proto::slot::S::Record(bytes)) => Ok(Slot::Record(bytes)),
        Some(proto::slot::S::RedactedLeaf(leaf)) => {
            leaf[..].try_into().map(Slot::Redacted).map_err(|_wrong| FrameError::Slot)
        }
        None => Err(FrameError::Slot),
    }
}

/// The message of a slot.
pub fn slot_to_proto(slot: &Slot) -> proto::Slot {
    let s = match slot {
        Slot::Record(bytes) => proto::slot::S::Record(bytes.clone()),
        Slot::Redacted(leaf) => proto::slot::S::RedactedLeaf(Bytes::copy_from_slice(leaf)),
    };
    proto::Slot { s: Some(s) }
}

/// Why bytes are no frame: the sender's fault, whoever signed it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum FrameError {
    #[error("frame does not decode")]
    Encoding,
    #[error("header has {0} bytes, expected 252")]
    HeaderSize(usize),
    #[error("signature has {0} bytes, expected 64")]
    SignatureSize(usize),
    #[error("header does not begin with SDBLOCK1")]
    Magic,
    #[error("block has {0} records, at most 512 are allowed")]
    TooManyRecords(usize),
    #[error("block has {0} bytes of records, at most 262144 are allowed")]
    PayloadSize(usize),
    #[error("slot is empty or its leaf has not 32 bytes")]
    Slot,
    #[error("extension does not match the header's ext_hash")]
    Extension,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROTOCOL section 16.
    #[test]
    fn the_published_vector_holds() {
        let vector = |name: &str| {
            include_str!("../../tests/vectors/block-v1.txt")
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .unwrap()
                .to_owned()
        };
        let key = SigningKey::from_bytes(&[7; 32]);
        assert_eq!(super::super::ids::hex(key.verifying_key().as_bytes()), vector("public_key"));
        let records: [&[u8]; 3] = [b"record-a", b"record-b", b"record-c"];
        let records_root = merkle::root(records.map(merkle::leaf_hash));
        assert_eq!(super::super::ids::hex(&records_root), vector("records_root"));

        let mut range = merkle::CompactRange::default();
        let mut prev = HeaderHash::ZERO;
        let mut signed = Vec::new();
        for seq in 1..=2 {
            let block = SignedHeader::sign(
                Header {
                    forum: ForumId([0xf0; 32]),
                    id: BlockId { origin: Origin { member: MemberId([0x11; 16]), log_no: LogNo(3) }, seq: Seq(seq) },
                    class: 0,
                    audience: 0,
                    time: TimeMs(1_795_000_000_000 + seq),
                    prev,
                    log_root: range.root(),
                    record_count: 3,
                    payload_len: 24,
                    records_root,
                    key_id: KeyId::of(key.verifying_key().as_bytes()),
                    flags: 0,
                    ext_hash: [0; 32],
                },
                &key,
            );
            prev = block.hash();
            range.append(merkle::leaf_hash(&prev.0));
            signed.push(block);
        }
        assert_eq!(signed[0].hash().to_string(), vector("header1_hash"));
        assert_eq!(super::super::ids::hex(signed[1].bytes()), vector("header2"));
        assert_eq!(signed[1].hash().to_string(), vector("header2_hash"));
        assert_eq!(super::super::ids::hex(signed[1].signature()), vector("sig2"));
        assert!(signed[1].is_signed_by(&key.verifying_key()));
        assert_eq!(Header::decode(signed[1].bytes()).unwrap(), *signed[1].header());
        assert!(pae(HEADER_TYPE, signed[1].bytes()).starts_with(vector("pae_prefix").trim_matches('"').as_bytes()));
    }
}
