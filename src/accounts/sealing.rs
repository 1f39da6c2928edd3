//! A pepper, sealed to one member: HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and AES-256-GCM. What it is
//! sealed for stands in HPKE's `info`, so that no copy opens in another forum, for another member, or as another pepper.

use std::convert::Infallible;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _, single_shot_open, single_shot_seal_with_rng};
use zeroize::Zeroizing;

use crate::replica::charter::{SEALED_PEPPER_SIZE, SealKey};
use crate::replica::ids::{ForumId, MemberId};

/// 32 secret bytes under which the forum's accounts are pseudonyms. They leave memory only sealed.
pub struct Pepper(Zeroizing<[u8; 32]>);

impl Pepper {
    /// A pepper of these bytes, which are random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// The secret half of a member's seal key.
#[derive(Clone)]
pub struct SealSecret(Zeroizing<[u8; 32]>);

impl SealSecret {
    /// A secret of these bytes, which are random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for its file.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half. Random bytes have a sound one.
    pub fn public(&self) -> Option<SealKey> {
        SealKey::from_slice(&X25519HkdfSha256::sk_to_pk(&self.private()?).to_bytes())
    }

    fn private(&self) -> Option<<X25519HkdfSha256 as hpke::Kem>::PrivateKey> {
        <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(&self.0[..]).ok()
    }
}

impl std::fmt::Debug for SealSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealSecret(..)")
    }
}

/// What a sealed copy is for, and good for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The forum.
    pub forum: ForumId,
    /// Which of its peppers.
    pub pepper: u32,
    /// To whom it is sealed.
    pub member: MemberId,
}

impl Place {
    /// `"staydown/pepper/v1\n" || forum_id(32) || pepper_id(4) || member_id(16)`.
    fn bytes(&self) -> Vec<u8> {
        [&b"staydown/pepper/v1\n"[..], &self.forum.0, &self.pepper.to_be_bytes(), &self.member.0].concat()
    }
}

/// Seals `pepper` to `key`: the ephemeral key, then ciphertext and tag. `chance` is 32 random bytes, used for nothing
/// else. `None` only for a key under which anybody could open it.
pub fn seal(pepper: &Pepper, place: &Place, key: &SealKey, chance: [u8; 32]) -> Option<[u8; SEALED_PEPPER_SIZE]> {
    let key = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(key.as_bytes()).ok()?;
    let sealed = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &key,
        &place.bytes(),
        pepper.as_bytes(),
        &[],
        &mut Given { bytes: Zeroizing::new(chance), used: 0 },
    );
    let (ephemeral, ciphertext) = sealed.ok()?;
    [&ephemeral.to_bytes()[..], &ciphertext].concat().try_into().ok()
}

/// The pepper in a sealed copy. `None`: it was sealed to another key or for another place, or was changed.
pub fn open(sealed: &[u8], place: &Place, secret: &SealSecret) -> Option<Pepper> {
    let (ephemeral, ciphertext) = sealed.split_at_checked(32)?;
    let ephemeral = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(ephemeral).ok()?;
    let opened = single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret.private()?,
        &ephemeral,
        &place.bytes(),
        ciphertext,
        &[],
    );
    let opened = Zeroizing::new(opened.ok()?);
    opened[..].try_into().ok().map(Pepper::from_bytes)
}

/// Hands out bytes that were drawn elsewhere: chance is an input here, too. HPKE takes 32 of them, once; should it ever
/// want more, they are not repeated: sealing stops.
struct Given {
    bytes: Zeroizing<[u8; 32]>,
    used: usize,
}

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        let left = self.bytes.get(self.used..self.used + to.len());
        let Some(left) = left else { panic!("sealing wants more than 32 random bytes: please report") };
        to.copy_from_slice(left);
        self.used += to.len();
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { forum: ForumId([1; 32]), pepper: 3, member: MemberId([2; 16]) };

    fn secret(number: u8) -> SealSecret {
        SealSecret::from_bytes([number; 32])
    }

    #[test]
    fn a_sealed_pepper_opens_at_its_place_under_its_key_only() {
        let key = secret(1).public().unwrap();
        let sealed = seal(&Pepper::from_bytes([7; 32]), &PLACE, &key, [9; 32]).unwrap();
        assert_eq!(sealed.len(), SEALED_PEPPER_SIZE);
        assert_eq!(open(&sealed, &PLACE, &secret(1)).unwrap().as_bytes(), &[7; 32]);
        for moved in [
            Place { forum: ForumId([9; 32]), ..PLACE },
            Place { pepper: 4, ..PLACE },
            Place { member: MemberId([9; 16]), ..PLACE },
        ] {
            assert!(open(&sealed, &moved, &secret(1)).is_none(), "{moved:?}");
        }
        assert!(open(&sealed, &PLACE, &secret(2)).is_none(), "another member's key");
        for at in 0..sealed.len() {
            let mut changed = sealed;
            changed[at] ^= 1;
            assert!(open(&changed, &PLACE, &secret(1)).is_none(), "byte {at}");
        }
        for cut in [0, 31, 32, 47, 79] {
            assert!(open(&sealed[..cut], &PLACE, &secret(1)).is_none(), "{cut} bytes");
        }
        let again = seal(&Pepper::from_bytes([7; 32]), &PLACE, &key, [8; 32]).unwrap();
        assert_ne!(sealed, again, "other chance, another copy");
        assert!(!sealed.windows(8).any(|bytes| bytes == [7; 8]));
    }

    /// Sealed by the HPKE of Python's `cryptography`, as docs/protocol.md says.
    #[test]
    fn a_copy_that_another_implementation_sealed_opens() {
        let sealed = concat!(
            "7e6c502492fb8e7feeafa88aa263b2902225dfdc6969715a43db65e4d49d4203aade51003ee8ce78",
            "e36cff67847eabdca77d919ad38450e281147ec1706152db34b7d7339eb452afe8ad1c5cdacc9559",
        );
        let sealed = data_encoding::HEXLOWER.decode(sealed.as_bytes()).unwrap();
        assert_eq!(open(&sealed, &PLACE, &secret(1)).unwrap().as_bytes(), &[7; 32]);
    }

    /// Whatever the list of `SealKey` leaves out would show here: under such a key the shared secret is known to all.
    #[test]
    fn what_is_of_small_order_seals_nothing() {
        let small = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for hex in small {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
            assert_eq!(SealKey::from_slice(&bytes), None, "{hex}");
            let key = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(&bytes).unwrap();
            let sealed = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &key,
                b"",
                b"",
                b"",
                &mut Given { bytes: Zeroizing::new([3; 32]), used: 0 },
            );
            assert!(sealed.is_err(), "{hex}");
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        assert_eq!(format!("{:?} {:?}", secret(1), Pepper::from_bytes([1; 32])), "SealSecret(..) Pepper(..)");
    }
}
