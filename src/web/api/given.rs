//! What several requests are made of. Everything that the schema forbids is refused here already: names that nobody knows,
//! digits that are none, a list where an object belongs.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use utoipa::ToSchema;

use crate::replica::record;
use crate::replica::signal::Alg;
use crate::wire::local as l;

/// A kind of signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SignalType {
    Pdq,
    Md5,
    Sha1,
    Sha256,
    Sha512,
    Tlsh,
    Url,
    Account,
    Vpdq,
}

impl SignalType {
    /// As the service calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pdq => Alg::Pdq,
            Self::Md5 => Alg::Md5,
            Self::Sha1 => Alg::Sha1,
            Self::Sha256 => Alg::Sha256,
            Self::Sha512 => Alg::Sha512,
            Self::Tlsh => Alg::Tlsh,
            Self::Url => Alg::Url,
            Self::Account => Alg::Account,
            Self::Vpdq => Alg::Vpdq,
        }
        .name()
    }
}

/// A hash in its normal form or as people type it; a web address or an account in clear is hashed in the node, and
/// forgotten.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "type": "sha256", "value": "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5" }))]
pub(super) struct SignalGiven {
    /// What kind of hash `value` is.
    pub r#type: SignalType,
    /// Digits; of `url` also an address as in `https://example.org/page`; of `account` also `platform:id`.
    #[schema(min_length = 1)]
    pub value: String,
}

impl From<SignalGiven> for l::Signal {
    fn from(given: SignalGiven) -> Self {
        Self { r#type: given.r#type.name().into(), value: given.value }
    }
}

/// A lane of our log.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lane {
    /// What people say every day.
    #[default]
    Normal,
    /// Attacks and suspensions.
    Urgent,
    /// Back-catalogues.
    Bulk,
}

impl From<Lane> for l::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Normal => Self::Normal,
            Lane::Urgent => Self::Urgent,
            Lane::Bulk => Self::Bulk,
        }
    }
}

/// Why somebody disagrees, takes back or votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    Mistake,
    NewsReporting,
    EducationResearch,
    ArtParody,
    CounterSpeech,
    OutOfTaxonomy,
    CourtOrLaw,
    Overmatching,
    Duplicate,
    KeyCompromise,
    Other,
}

impl Reason {
    /// Its number in records.
    fn number(self) -> u8 {
        match self {
            Self::Mistake => 1,
            Self::NewsReporting => 2,
            Self::EducationResearch => 3,
            Self::ArtParody => 4,
            Self::CounterSpeech => 5,
            Self::OutOfTaxonomy => 6,
            Self::CourtOrLaw => 7,
            Self::Overmatching => 8,
            Self::Duplicate => 9,
            Self::KeyCompromise => 10,
            Self::Other => 99,
        }
    }

    /// As the service calls it.
    pub(super) fn name(self) -> &'static str {
        record::reason_name(self.number()).unwrap_or_default()
    }
}

/// The service's name of a reason; empty: none is given.
pub(super) fn reason(given: Option<Reason>) -> String {
    given.map(Reason::name).unwrap_or_default().to_owned()
}

/// What an opinion rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Basis {
    HumanReview,
    Automated,
    CourtOrder,
    Referral,
    OtherMember,
}

impl Basis {
    /// Its number in records.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::HumanReview => 1,
            Self::Automated => 2,
            Self::CourtOrder => 3,
            Self::Referral => 4,
            Self::OtherMember => 5,
        }
    }
}

/// So many bytes, given as lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digits<const N: usize>(pub [u8; N]);

impl<const N: usize> Digits<N> {
    /// Nothing else than twice as many digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }

    /// As messages carry them.
    pub(super) fn bytes(self) -> bytes::Bytes {
        self.0.to_vec().into()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Digits<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom(format!("expected {} lowercase hexadecimal digits", 2 * N));
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// Digits that may be absent, as messages carry them.
pub(super) fn maybe<const N: usize>(digits: Option<Digits<N>>) -> bytes::Bytes {
    digits.map(Digits::bytes).unwrap_or_default()
}

/// Bytes as they are: of a file in a form, or of a file that is answered.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it is a schema")]
pub(super) struct Binary(String);

/// Objects, and nothing that merely could be read as one: serde takes a list of values for a struct, too, which no schema
/// allows.
pub(super) mod only {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::Deserialize;
    use serde::de::value::MapAccessDeserializer;
    use serde::de::{Deserializer, MapAccess, Visitor};

    /// A value that is written as an object.
    pub(in crate::web::api) struct Object<T>(pub T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_map(Fields(PhantomData)).map(Self)
        }
    }

    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    /// For a field.
    pub(in crate::web::api) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
        Object::deserialize(from).map(|Object(inside)| inside)
    }

    /// For a field that may be absent.
    pub(in crate::web::api) fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<Object<T>>::deserialize(from).map(|inside| inside.map(|Object(inside)| inside))
    }

    /// For a list.
    pub(in crate::web::api) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        Vec::<Object<T>>::deserialize(from).map(|all| all.into_iter().map(|Object(inside)| inside).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn names_are_those_of_the_records() {
        for (number, name) in record::REASONS {
            let reason: Reason = read(&format!("{name:?}")).unwrap();
            assert_eq!((reason.number(), reason.name()), (number, name));
        }
        for (number, name) in record::BASES {
            assert_eq!(read::<Basis>(&format!("{name:?}")).unwrap().number(), number);
        }
        for alg in Alg::ALL {
            assert_eq!(read::<SignalType>(&format!("{:?}", alg.name())).unwrap().name(), alg.name());
        }
        for wrong in ["\"PDQ\"", "\"\"", "7", "null"] {
            assert!(read::<SignalType>(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_no_object_and_digits_are_lowercase_and_of_the_right_number() {
        assert!(read::<only::Object<SignalGiven>>("{\"type\":\"md5\",\"value\":\"x\"}").is_some());
        for wrong in ["[\"md5\",\"x\"]", "{\"type\":\"md5\",\"value\":\"x\",\"more\":1}", "{\"type\":\"md5\"}", "null"]
        {
            assert!(read::<only::Object<SignalGiven>>(wrong).is_none(), "{wrong}");
        }
        assert_eq!(read::<Digits<2>>("\"00ff\""), Some(Digits([0, 255])));
        for wrong in ["\"00FF\"", "\"00f\"", "\"00ff00\"", "\"0xff\"", "\"\"", "255"] {
            assert!(read::<Digits<2>>(wrong).is_none(), "{wrong}");
        }
    }
}
