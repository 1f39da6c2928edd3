//! The loops of `scan.rs` for machines that count many bits at once. The only file with unsafe code.
//!
//! Two things here the compiler cannot see for itself. A function compiled for more than every machine has may be
//! called only where the machine has it: a [`Level`] is made by [`levels`] alone, from what was detected, so that
//! whoever holds one may call its functions. And loads take pointers: each is made from a slice of the length it
//! reads, or from an array of known size.
#![expect(
    unsafe_code,
    reason = "SIMD loads and functions behind run-time detection; the file comment says why it is sound"
)]

use super::permutation::Moves;
use super::scan::{self, Found, Hash, Planes, Visit};

/// What the machine has. Only [`levels`] makes the upper ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Detected),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Detected),
}

/// All levels of this machine, the slowest first.
pub(super) fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Portable];
    #[cfg(target_arch = "x86_64")]
    x86::detect(&mut levels);
    levels
}

/// Asks for a place of memory that will be read soon. A place that is not there does no harm.
#[inline(always)]
pub(super) fn prefetch<T>(items: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell; it does not fault on any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(items.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, at);
}

/// Calls the function of a level.
macro_rules! at_level {
    ($level:expr, $name:ident($($argument:expr),*)) => {
        match $level {
            Level::Portable => scan::$name($($argument),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: there is such a level only where its features were detected.
            Level::Avx2(_) => unsafe { x86::avx2::$name($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the same.
            Level::Avx512(_) => unsafe { x86::avx512::$name($($argument),*) },
        }
    };
}

/// [`scan::filter`].
pub(super) fn filter(
    path: scan::Path,
    sketches: &[u16],
    visits: &mut [Visit],
    next: usize,
    found: &mut Found,
) -> usize {
    at_level!(path.0, filter(sketches, visits, next, found))
}

/// [`scan::verify`].
pub(super) fn verify(
    path: scan::Path,
    (ids, hashes): (&[u32], &[Hash]),
    queries: &[Hash],
    visits: &[Visit],
    threshold: u32,
    found: &mut Found,
) {
    at_level!(path.0, verify(ids, hashes, queries, visits, threshold, found));
}

/// [`scan::scan_one`].
pub(super) fn scan_one(path: scan::Path, hashes: &[Hash], query: &Hash, threshold: u32, found: &mut Found) {
    at_level!(path.0, scan_one(hashes, query, threshold, found));
}

/// [`scan::scan_planes`].
pub(super) fn scan_planes(
    path: scan::Path,
    (planes, count): (&Planes, usize),
    query: &Hash,
    threshold: u32,
    found: &mut Found,
) {
    at_level!(path.0, scan_planes(planes, count, query, threshold, found));
}

/// Moves the bits, where the machine has something better than tables.
pub(super) fn permute(path: scan::Path, moves: &Moves, hash: &Hash) -> Option<Hash> {
    match path.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: there is such a level only where its features were detected.
        Level::Avx512(_) => Some(unsafe { x86::avx512::permute(moves, hash) }),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Found, Hash, Level, Moves, Planes, Visit, scan};

    /// Proof that somebody looked.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) struct Detected(());

    pub(super) fn detect(levels: &mut Vec<Level>) {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("lzcnt");
        if avx2 {
            levels.push(Level::Avx2(Detected(())));
        }
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512bitalg")
            && is_x86_feature_detected!("avx512vpopcntdq");
        if avx512 {
            levels.push(Level::Avx512(Detected(())));
        }
    }

    /// The sketches of the visit from its start on, at most `N` of them: the words of a load, and which of them count.
    #[inline(always)]
    fn window<'a, const N: usize>(sketches: &'a [u16], visit: &Visit) -> (&'a [u16; N], u32) {
        let left = visit.end - visit.start;
        let start = visit.start as usize;
        // There are N more sketches in the list than positions.
        let window = sketches[start..start + N].first_chunk().expect("N sketches were cut out");
        let valid = if left as usize >= N { u32::MAX } else { (1_u32 << left) - 1 };
        (window, valid)
    }

    /// Notes the candidates whose bits are set.
    #[inline(always)]
    fn keep_all(mut bits: u32, start: u32, visit: usize, found: &mut Found) {
        while bits != 0 {
            scan::keep(found, start + bits.trailing_zeros(), visit);
            bits &= bits - 1;
        }
    }

    pub(super) mod avx2 {
        use std::arch::x86_64::{
            _mm_movemask_epi8, _mm_packs_epi16, _mm_setr_epi8, _mm256_add_epi8, _mm256_and_si256,
            _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cmpgt_epi16, _mm256_extracti128_si256,
            _mm256_loadu_si256, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_shuffle_epi8,
            _mm256_srli_epi16, _mm256_xor_si256,
        };

        use super::{Found, Hash, Planes, Visit, keep_all, scan, window};

        #[target_feature(enable = "avx2,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn filter(
            sketches: &[u16],
            visits: &mut [Visit],
            mut next: usize,
            found: &mut Found,
        ) -> usize {
            let nibble = _mm256_set1_epi8(15);
            let counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
            while let Some(visit) = visits.get_mut(next) {
                let query = _mm256_set1_epi16(visit.sketch.cast_signed());
                let over = _mm256_set1_epi16(i16::from(visit.limit) + 1);
                while visit.start < visit.end {
                    if found.len + scan::SKETCHES_AT_ONCE > scan::CHUNK {
                        return next;
                    }
                    let (window, valid) = window::<16>(sketches, visit);
                    // SAFETY: the window is 16 sketches long, which is what the load reads.
                    let sketch = unsafe { _mm256_loadu_si256(window.as_ptr().cast()) };
                    let bits = _mm256_xor_si256(sketch, query);
                    let low = _mm256_shuffle_epi8(counts, _mm256_and_si256(bits, nibble));
                    let high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
                    let bytes = _mm256_add_epi8(low, high);
                    let words = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
                    let near = _mm256_cmpgt_epi16(over, words);
                    let packed = _mm_packs_epi16(_mm256_castsi256_si128(near), _mm256_extracti128_si256::<1>(near));
                    let near = _mm_movemask_epi8(packed).cast_unsigned();
                    keep_all(near & valid, visit.start, next, found);
                    visit.start = visit.end.min(visit.start + 16);
                }
                next += 1;
            }
            next
        }

        #[target_feature(enable = "avx2,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn verify(
            ids: &[u32],
            hashes: &[Hash],
            queries: &[Hash],
            visits: &[Visit],
            threshold: u32,
            found: &mut Found,
        ) {
            scan::verify(ids, hashes, queries, visits, threshold, found);
        }

        #[target_feature(enable = "avx2,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn scan_one(hashes: &[Hash], query: &Hash, threshold: u32, found: &mut Found) {
            scan::scan_one(hashes, query, threshold, found);
        }

        #[target_feature(enable = "avx2,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn scan_planes(
            planes: &Planes,
            count: usize,
            query: &Hash,
            threshold: u32,
            found: &mut Found,
        ) {
            scan::scan_planes(planes, count, query, threshold, found);
        }
    }

    pub(super) mod avx512 {
        use std::arch::x86_64::{
            __m256i, __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_maskz_compress_epi32, _mm256_set1_epi32,
            _mm256_setr_epi32, _mm256_storeu_si256, _mm512_add_epi64, _mm512_broadcast_i64x4, _mm512_castsi256_si512,
            _mm512_cmple_epu16_mask, _mm512_cmple_epu64_mask, _mm512_cvtepi64_epi32, _mm512_loadu_si512,
            _mm512_permutexvar_epi8, _mm512_popcnt_epi16, _mm512_popcnt_epi64, _mm512_set1_epi16, _mm512_set1_epi64,
            _mm512_shuffle_i64x2, _mm512_test_epi8_mask, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
            _mm512_xor_si512,
        };

        use super::{Found, Hash, Moves, Planes, Visit, keep_all, scan, window};

        /// Hashes of one step of the scan.
        const STEP: usize = 8;

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bitalg,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn filter(
            sketches: &[u16],
            visits: &mut [Visit],
            mut next: usize,
            found: &mut Found,
        ) -> usize {
            while let Some(visit) = visits.get_mut(next) {
                let query = _mm512_set1_epi16(visit.sketch.cast_signed());
                let limit = _mm512_set1_epi16(i16::from(visit.limit));
                while visit.start < visit.end {
                    if found.len + scan::SKETCHES_AT_ONCE > scan::CHUNK {
                        return next;
                    }
                    let (window, valid) = window::<32>(sketches, visit);
                    // SAFETY: the window is 32 sketches long, which is what the load reads.
                    let sketch = unsafe { _mm512_loadu_si512(window.as_ptr().cast()) };
                    let bits = _mm512_popcnt_epi16(_mm512_xor_si512(sketch, query));
                    let near = _mm512_cmple_epu16_mask(bits, limit);
                    keep_all(near & valid, visit.start, next, found);
                    visit.start = visit.end.min(visit.start + 32);
                }
                next += 1;
            }
            next
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn verify(
            ids: &[u32],
            hashes: &[Hash],
            queries: &[Hash],
            visits: &[Visit],
            threshold: u32,
            found: &mut Found,
        ) {
            scan::verify(ids, hashes, queries, visits, threshold, found);
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn scan_one(hashes: &[Hash], query: &Hash, threshold: u32, found: &mut Found) {
            // SAFETY: a hash is four words, which is what the load reads.
            let query_twice = _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(query.0.as_ptr().cast()) });
            let limit = _mm512_set1_epi64(i64::from(threshold));
            let (steps, rest) = hashes.as_chunks::<STEP>();
            for (number, step) in steps.iter().enumerate() {
                let first = number * STEP;
                (0..STEP).step_by(2).for_each(|line| super::super::prefetch(hashes, first + scan::AHEAD + line));
                let counts = |pair: usize| {
                    let two: &[Hash; 2] = step[2 * pair..].first_chunk().expect("a step has four pairs");
                    // SAFETY: two hashes are eight words, which is what the load reads.
                    let words = unsafe { _mm512_loadu_si512(two.as_ptr().cast()) };
                    _mm512_popcnt_epi64(_mm512_xor_si512(words, query_twice))
                };
                let (a, b, c, d) = (counts(0), counts(1), counts(2), counts(3));
                let ab = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
                let cd = _mm512_add_epi64(_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
                let even = _mm512_shuffle_i64x2::<0x88>(ab, cd);
                let odd = _mm512_shuffle_i64x2::<0xdd>(ab, cd);
                let sums = _mm512_add_epi64(even, odd);
                let near = _mm512_cmple_epu64_mask(sums, limit);
                if near != 0 {
                    // So do the sums come out.
                    keep_step(near, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7), first, sums, found);
                }
            }
            let first = steps.len() * STEP;
            for (i, hash) in rest.iter().enumerate() {
                let distance = hash.distance(query);
                found.push_if(distance <= threshold, (first + i) as u32, distance);
            }
        }

        /// Notes those of a step whose bits are set, all at once: a hot list would mislead every guess.
        #[target_feature(enable = "avx512f,avx512vl,popcnt")]
        #[inline]
        fn keep_step(near: u8, order: __m256i, first: usize, sums: __m512i, found: &mut Found) {
            let at = _mm256_add_epi32(_mm256_set1_epi32((first as u32).cast_signed()), order);
            let (at, sums) = (_mm256_maskz_compress_epi32(near, at), _mm512_cvtepi64_epi32(sums));
            let sums = _mm256_maskz_compress_epi32(near, sums);
            let room: &mut [u32; STEP] = found.at[found.len..].first_chunk_mut().expect("there is room for a step");
            // SAFETY: eight numbers, which is what the store writes.
            unsafe { _mm256_storeu_si256(room.as_mut_ptr().cast(), at) };
            let room: &mut [u32; STEP] = found.distance[found.len..].first_chunk_mut().expect("the same room");
            // SAFETY: the same.
            unsafe { _mm256_storeu_si256(room.as_mut_ptr().cast(), sums) };
            found.len += near.count_ones() as usize;
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt,bmi1,lzcnt")]
        pub(in super::super) fn scan_planes(
            planes: &Planes,
            count: usize,
            query: &Hash,
            threshold: u32,
            found: &mut Found,
        ) {
            let word = |i: usize| _mm512_set1_epi64(query.0[i].cast_signed());
            let query = [word(0), word(1), word(2), word(3)];
            let limit = _mm512_set1_epi64(i64::from(threshold));
            let [a, b, c, d] = planes.words.each_ref().map(|plane| plane.as_chunks::<STEP>().0);
            for first in (0..count).step_by(STEP) {
                let counts = |plane: &[[u64; STEP]], query| {
                    // SAFETY: eight words, which is what the load reads.
                    let words = unsafe { _mm512_loadu_si512(plane[first / STEP].as_ptr().cast()) };
                    _mm512_popcnt_epi64(_mm512_xor_si512(words, query))
                };
                let ab = _mm512_add_epi64(counts(a, query[0]), counts(b, query[1]));
                let cd = _mm512_add_epi64(counts(c, query[2]), counts(d, query[3]));
                let sums = _mm512_add_epi64(ab, cd);
                let valid = if count - first < STEP { (1 << (count - first)) - 1 } else { u8::MAX };
                let near = _mm512_cmple_epu64_mask(sums, limit) & valid;
                if near != 0 {
                    keep_step(near, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), first, sums, found);
                }
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        pub(in super::super) fn permute(moves: &Moves, hash: &Hash) -> Hash {
            // SAFETY: a hash is four words, which is what the load reads.
            let source = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(hash.0.as_ptr().cast()) });
            let (bytes, masks) = (moves.byte.as_chunks::<64>().0, moves.mask.as_chunks::<64>().0);
            Hash(std::array::from_fn(|word| {
                // SAFETY: 64 bytes each, which is what the loads read.
                let (byte, mask) = unsafe {
                    (_mm512_loadu_si512(bytes[word].as_ptr().cast()), _mm512_loadu_si512(masks[word].as_ptr().cast()))
                };
                _mm512_test_epi8_mask(_mm512_permutexvar_epi8(byte, source), mask)
            }))
        }
    }
}
