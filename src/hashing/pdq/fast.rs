//! One function compiled twice: for every machine of its kind, and for those with AVX2, which do eight floats at once.
//! The compiler makes both of the same code, and may neither contract nor reorder its float operations.

use super::{Picture, Spectrum};

/// [`Picture::spectrum`], as fast as this machine can.
pub(super) fn spectrum(picture: &Picture<'_>, blur: bool) -> (Spectrum, u8) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "the feature was detected in the line above; that is all the call asks for")]
        // SAFETY: this machine has AVX2.
        return unsafe { with_avx2(picture, blur) };
    }
    picture.spectrum(blur)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(picture: &Picture<'_>, blur: bool) -> (Spectrum, u8) {
    picture.spectrum(blur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::drawn;

    #[test]
    fn every_road_gives_the_same_bits() {
        for (seed, (width, height)) in (0..).zip([(64, 64), (5, 5), (333, 517), (1024, 129), (31, 900), (2049, 700)]) {
            let rgb = drawn::poster(seed, width, height).into_raw();
            let picture = Picture::new(width, height, &rgb).unwrap();
            for blur in [true, width != 64] {
                let bits = |(spectrum, quality): (Spectrum, u8)| (spectrum.map(|row| row.map(f32::to_bits)), quality);
                assert_eq!(bits(spectrum(&picture, blur)), bits(picture.spectrum(blur)), "{width} x {height}");
            }
        }
    }
}
