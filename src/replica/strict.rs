//! The strict scan (PROTOCOL section 4): one encoding per value, so that no two parsers can read the same signed bytes
//! differently. It runs on the bytes as received, before any decoder sees them.

use thiserror::Error;

/// What a message may contain; made from the proto files by `build.rs`.
#[derive(Debug)]
pub struct Schema {
    /// Name of the message.
    pub name: &'static str,
    /// Its fields, ascending by number.
    pub fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// Field number.
    pub number: u32,
    /// Field name, for messages to people.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may occur more than once.
    pub repeated: bool,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A varint of at most 32 bits.
    Uint32,
    /// A varint of at most 64 bits.
    Uint64,
    /// The varint 1.
    Bool,
    /// Bytes.
    Bytes,
    /// UTF-8.
    String,
    /// Another message.
    Message(&'static Schema),
}

include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// What a scan that found nothing wrong learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Every field is one that this release knows.
    Known,
    /// Well formed, but with fields of a later release: inert in a record, refused in a charter.
    UnknownFields,
}

/// Why bytes are not strictly encoded. Offsets count from the start of the outermost message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message} is not strictly encoded: {problem}{} at byte {offset}", .field.map(|f| format!(" in field {f}")).unwrap_or_default())]
pub struct StrictError {
    /// Message in which it was found.
    pub message: &'static str,
    /// Field, if known.
    pub field: Option<&'static str>,
    /// Where.
    pub offset: usize,
    /// What.
    pub problem: Problem,
}

/// The rules of section 4, each as its violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Problem {
    #[error("the bytes end inside a field")]
    Truncated,
    #[error("a varint is longer than it needs to be or than 64 bits")]
    Varint,
    #[error("a value is larger than its field's type")]
    Range,
    #[error("field numbers do not ascend")]
    Order,
    #[error("a singular field occurs twice")]
    Twice,
    #[error("the wire type is not the one of this field")]
    WireType,
    #[error("a singular field is present with its default value")]
    Default,
    #[error("a repeated number is not packed, or packed and empty")]
    Packed,
    #[error("text is not UTF-8")]
    Utf8,
    #[error("field number 0 or above 2^29")]
    FieldNumber,
}

/// Checks that `bytes` are the one strict encoding of a message of `schema`.
///
/// # Errors
/// The first violation, with its place.
pub fn scan(bytes: &[u8], schema: &'static Schema) -> Result<Scanned, StrictError> {
    scan_message(Cursor { bytes, offset: 0 }, schema)
}

/// Bytes still to be read, and where in the outermost message they stand.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<Self, Problem> {
        let (head, tail) = self.bytes.split_at_checked(len).ok_or(Problem::Truncated)?;
        let taken = Cursor { bytes: head, offset: self.offset };
        *self = Cursor { bytes: tail, offset: self.offset + len };
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0_u64;
        for i in 0..10 {
            let byte = self.take(1)?.bytes[0];
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return Err(Problem::Varint);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                let minimal = i == 0 || byte != 0;
                return if minimal { Ok(value) } else { Err(Problem::Varint) };
            }
        }
        Err(Problem::Varint)
    }

    fn block(&mut self) -> Result<Self, Problem> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.take(len)
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LEN: u8 = 2;
const FIXED32: u8 = 5;

fn scan_message(mut rest: Cursor<'_>, schema: &'static Schema) -> Result<Scanned, StrictError> {
    let mut scanned = Scanned::Known;
    let mut last = 0_u32;
    while !rest.bytes.is_empty() {
        let offset = rest.offset;
        let fail = |problem, field| StrictError { message: schema.name, field, offset, problem };
        let (number, wire) = tag(&mut rest).map_err(|p| fail(p, None))?;
        let field = schema.fields.iter().find(|f| f.number == number);
        let name = field.map(|f| f.name);
        if number < last {
            return Err(fail(Problem::Order, name));
        }
        match field {
            Some(field) => {
                if number == last && (!field.repeated || is_number(field.kind)) {
                    return Err(fail(Problem::Twice, name));
                }
                if scan_field(&mut rest, wire, field, &fail)? == Scanned::UnknownFields {
                    scanned = Scanned::UnknownFields;
                }
            }
            None => {
                skip_unknown(&mut rest, wire).map_err(|p| fail(p, None))?;
                scanned = Scanned::UnknownFields;
            }
        }
        last = number;
    }
    Ok(scanned)
}

fn tag(rest: &mut Cursor<'_>) -> Result<(u32, u8), Problem> {
    let tag = u32::try_from(rest.varint()?).map_err(|_too_large| Problem::FieldNumber)?;
    let number = tag >> 3;
    if number == 0 { Err(Problem::FieldNumber) } else { Ok((number, (tag & 7) as u8)) }
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Uint32 | Kind::Uint64 | Kind::Bool)
}

fn scan_field(
    rest: &mut Cursor<'_>,
    wire: u8,
    field: &'static Field,
    fail: &impl Fn(Problem, Option<&'static str>) -> StrictError,
) -> Result<Scanned, StrictError> {
    let refuse = |problem| fail(problem, Some(field.name));
    match (is_number(field.kind), field.repeated) {
        (true, false) => {
            if wire != VARINT {
                return Err(refuse(Problem::WireType));
            }
            let value = number(rest, field.kind).map_err(refuse)?;
            if value == 0 { Err(refuse(Problem::Default)) } else { Ok(Scanned::Known) }
        }
        (true, true) => {
            if wire != LEN {
                return Err(refuse(Problem::Packed));
            }
            let mut packed = rest.block().map_err(refuse)?;
            if packed.bytes.is_empty() {
                return Err(refuse(Problem::Packed));
            }
            while !packed.bytes.is_empty() {
                number(&mut packed, field.kind).map_err(refuse)?;
            }
            Ok(Scanned::Known)
        }
        (false, repeated) => {
            if wire != LEN {
                return Err(refuse(Problem::WireType));
            }
            let block = rest.block().map_err(refuse)?;
            if !repeated && block.bytes.is_empty() {
                return Err(refuse(Problem::Default));
            }
            match field.kind {
                Kind::Message(schema) => scan_message(block, schema),
                Kind::String if std::str::from_utf8(block.bytes).is_err() => Err(refuse(Problem::Utf8)),
                _ => Ok(Scanned::Known),
            }
        }
    }
}

/// Reads one number of `kind`. A value above its type's range is refused: decoders would silently cut it.
fn number(rest: &mut Cursor<'_>, kind: Kind) -> Result<u64, Problem> {
    let value = rest.varint()?;
    let max = match kind {
        Kind::Uint32 => u64::from(u32::MAX),
        Kind::Bool => 1,
        _ => u64::MAX,
    };
    if value > max { Err(Problem::Range) } else { Ok(value) }
}

fn skip_unknown(rest: &mut Cursor<'_>, wire: u8) -> Result<(), Problem> {
    match wire {
        VARINT => rest.varint().map(drop),
        FIXED64 => rest.take(8).map(drop),
        LEN => rest.block().map(drop),
        FIXED32 => rest.take(4).map(drop),
        _ => Err(Problem::WireType),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::replica::proto;

    fn problem(bytes: &[u8], schema: &'static Schema) -> Problem {
        scan(bytes, schema).unwrap_err().problem
    }

    #[test]
    fn what_prost_writes_is_strict() {
        let opinion = proto::Opinion {
            subject: Some(proto::Subject { r#type: 1, alg: 4, param: 0, digest: vec![7; 32].into() }),
            stance: 1,
            labels: vec![1, 300, 70_000],
            expires_ms: u64::MAX,
            languages: vec!["en".into(), String::new()],
            ..Default::default()
        };
        assert_eq!(scan(&opinion.encode_to_vec(), &OPINION), Ok(Scanned::Known));
    }

    #[test]
    fn each_rule_refuses_its_violation() {
        for (bytes, expected) in [
            (&[0x10, 0x01, 0x08][..], Problem::Order),   // stance, then subject
            (&[0x10, 0x01, 0x10, 0x02], Problem::Twice), // stance twice
            (&[0x10, 0x81, 0x00], Problem::Varint),      // stance 1 in two bytes
            (&[0x10, 0x00], Problem::Default),           // stance 0
            (&[0x0a, 0x00], Problem::Default),           // empty subject
            (&[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f], Problem::Range),
            (&[0x12, 0x01, 0x00], Problem::WireType), // stance as bytes
            (&[0x18, 0x01], Problem::Packed),         // labels unpacked
            (&[0x1a, 0x00], Problem::Packed),         // labels packed and empty
            (&[0x5a, 0x01, 0xff], Problem::Utf8),     // languages
            (&[0x5a, 0x05, 0x61], Problem::Truncated),
            (&[0x00], Problem::FieldNumber),
            (&[0xfb, 0x07, 0xfc, 0x07], Problem::WireType), // a group
        ] {
            assert_eq!(problem(bytes, &OPINION), expected, "{bytes:02x?}");
        }
        assert_eq!(problem(&[0x10, 0x02], &ALLOW), Problem::Range, "a bool of 2");
    }

    #[test]
    fn fields_of_a_later_release_are_told_apart() {
        assert_eq!(scan(&[0x10, 0x01, 0xf8, 0x07, 0x05], &OPINION), Ok(Scanned::UnknownFields));
    }
}
