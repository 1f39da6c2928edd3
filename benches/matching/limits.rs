//! What the machine could do at best, on memory of the size that the index has. Each measurement is one pass of one
//! thread, in CPU time; it is made in turn with what it is the limit of, so that what disturbs one disturbs both.
#![expect(unsafe_code, reason = "prefetching, and instructions that not every processor has")]

use std::hint::black_box;

use crate::cpu;
use crate::lists::mixed;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
/// Lines read in a pass.
const LINES: usize = 2_000_000;
/// Least bytes streamed in a pass.
const STREAMED: usize = 1 << 29;
/// Words asked for ahead when memory is read end to end, and at a time.
const STREAM_AHEAD: usize = 1024;
const STREAM_PIECE: usize = 256;
/// Lines prefetched ahead of the one that is read; more than a core has in flight.
const AHEAD: usize = 64;
/// Hashes that lie in the nearest cache: 32 KiB of them.
const NEAREST: usize = 1024;
/// Words of a hash.
const WORDS: usize = 4;
/// What each word is compared with.
const COMPARED: u64 = 0x0123_4567_89ab_cdef;

/// Memory of one size, to be read in several ways.
pub(crate) struct Memory {
    words: Vec<u64>,
}

impl Memory {
    /// `bytes` of it, none of them zero: a page that was never written is not a page.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { words: vec![0x5555_5555_5555_5555; bytes.max(1 << 20) / 8] }
    }

    /// Bytes a second, read from the first to the last.
    pub(crate) fn stream(&self) -> f64 {
        let bytes = 8 * self.words.len();
        let repeats = STREAMED.div_ceil(bytes);
        let pass = |sum: fn(&[u64]) -> u64| {
            seconds(|| (0..repeats).map(|_| sum(black_box(&self.words))).fold(0, u64::wrapping_add))
        };
        (repeats * bytes) as f64 / pass(sum).min(pass(sum_ahead))
    }

    /// Seconds for one cache line anywhere, if none depends on another.
    pub(crate) fn line(&self) -> f64 {
        self.run(1)
    }

    /// Seconds for one cache line of `run` neighbouring ones that begin anywhere.
    pub(crate) fn run(&self, run: usize) -> f64 {
        let count = LINES / run;
        let plain = seconds(|| self.read::<false>(count, run));
        let ahead = seconds(|| self.read::<true>(count, run));
        plain.min(ahead) / (count * run) as f64
    }

    fn read<const PREFETCH: bool>(&self, count: usize, run: usize) -> u64 {
        let lines = self.words.len() * 8 / LINE - run;
        let place = |number: usize| {
            let scattered = u128::from(mixed(number as u64)) * lines as u128;
            (scattered >> 64) as usize * (LINE / 8)
        };
        let ahead = AHEAD.div_ceil(run);
        let mut sum = 0_u64;
        for number in 0..count {
            let (now, later) = (place(number), place(number + ahead));
            for line in 0..run {
                if PREFETCH {
                    prefetch(&self.words[later + line * (LINE / 8)]);
                }
                sum = sum.wrapping_add(self.words[now + line * (LINE / 8)]);
            }
        }
        sum
    }
}

/// Distances of two hashes a second, if nothing took time but counting their bits.
pub(crate) fn distances() -> f64 {
    let words: Vec<u64> = (0..(NEAREST * WORDS) as u64).map(mixed).collect();
    let repeats = 5_000;
    let rate = |popcounts: fn(&[u64]) -> u64| {
        let pass = || (0..repeats).map(|_| popcounts(black_box(&words))).fold(0, u64::wrapping_add);
        (repeats * NEAREST) as f64 / seconds(pass)
    };
    rate(popcounts).max(rate(widest_popcounts()))
}

fn seconds(pass: impl FnOnce() -> u64) -> f64 {
    let begun = cpu::used();
    black_box(pass());
    (cpu::used() - begun).as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
fn prefetch(word: &u64) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: the instruction is in every x86-64 processor, changes no memory, and the address is that of a reference.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(word).cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_word: &u64) {}

/// Compiled for each set of instructions; the compiler makes vectors of the loops by itself.
macro_rules! for_each_processor {
    ($(#[$doc:meta])* fn $name:ident($argument:ident: $kind:ty) -> u64 $body:block) => {
        $(#[$doc])*
        fn $name($argument: $kind) -> u64 {
            #[inline(always)]
            fn body($argument: $kind) -> u64 $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
                fn widest($argument: $kind) -> u64 {
                    body($argument)
                }
                #[target_feature(enable = "avx2,popcnt")]
                fn wide($argument: $kind) -> u64 {
                    body($argument)
                }
                let widest_there = std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512vpopcntdq");
                if widest_there {
                    // SAFETY: the processor has what the function was compiled for: asked a line above.
                    return unsafe { widest($argument) };
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt") {
                    // SAFETY: the processor has what the function was compiled for: asked a line above.
                    return unsafe { wide($argument) };
                }
            }
            body($argument)
        }
    };
}

for_each_processor! {
    fn sum(words: &[u64]) -> u64 {
        let mut sums = [0_u64; 32];
        for words in words.chunks_exact(32) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
    }
}

/// The same with more lines under way than the processor has by itself.
fn sum_ahead(words: &[u64]) -> u64 {
    let later = words.get(STREAM_AHEAD..).unwrap_or_default();
    let mut all = 0_u64;
    for (piece, now) in words.chunks(STREAM_PIECE).enumerate() {
        let later = later.get(piece * STREAM_PIECE..).unwrap_or_default();
        later.iter().take(STREAM_PIECE).step_by(LINE / 8).for_each(prefetch);
        all = all.wrapping_add(sum(now));
    }
    all
}

for_each_processor! {
    /// The bits of each word and what it is compared with. Four sums in a row: an addition does not wait for the last.
    fn popcounts(words: &[u64]) -> u64 {
        let mut sums = [0_u64; 32];
        for words in words.chunks_exact(32) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += u64::from((word ^ COMPARED).count_ones());
            }
        }
        sums.iter().sum()
    }
}

/// The same in whole registers of 512 bits: compilers take half of one if nobody tells them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn popcounts_512(words: &[u64]) -> u64 {
    use std::arch::x86_64::{
        _mm512_add_epi64, _mm512_loadu_si512, _mm512_popcnt_epi64, _mm512_reduce_add_epi64, _mm512_set1_epi64,
        _mm512_setzero_si512, _mm512_xor_si512,
    };
    let compared = _mm512_set1_epi64(COMPARED.cast_signed());
    let mut sums = [_mm512_setzero_si512(); 4];
    for words in words.as_chunks::<32>().0 {
        for (sum, words) in sums.iter_mut().zip(words.as_chunks::<8>().0) {
            // SAFETY: eight words are 64 bytes, and they need no alignment.
            let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
            *sum = _mm512_add_epi64(*sum, _mm512_popcnt_epi64(_mm512_xor_si512(words, compared)));
        }
    }
    sums.iter().map(|sum| _mm512_reduce_add_epi64(*sum).cast_unsigned()).sum()
}

#[cfg(target_arch = "x86_64")]
fn widest_popcounts() -> fn(&[u64]) -> u64 {
    let has = std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vpopcntdq");
    if !has {
        return popcounts;
    }
    // SAFETY: the processor has what the function was compiled for: asked two lines above.
    |words| unsafe { popcounts_512(words) }
}

#[cfg(not(target_arch = "x86_64"))]
fn widest_popcounts() -> fn(&[u64]) -> u64 {
    popcounts
}
