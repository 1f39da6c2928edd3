//! Answers of pure functions that cost a signature's time, kept for the simulator.
//!
//! A schedule verifies the same block once a replica, once a receipt and once a restart. What is remembered is the
//! outcome under the hash of all that goes in, so a schedule comes to the same end with and without. A shipped binary
//! has no such table: there, every signature is looked at each time.

#[cfg(feature = "wrong-rules")]
use std::{cell::RefCell, collections::BTreeMap, thread::LocalKey};

#[cfg(feature = "wrong-rules")]
use super::ids::sha256;

/// Answers of one kind: a few megabytes at most, and more than a schedule asks for.
#[cfg(feature = "wrong-rules")]
const ANSWERS_MAX: usize = 16_384;

/// Answers by the hash of the question.
#[cfg(feature = "wrong-rules")]
pub(super) type Answers<T> = RefCell<BTreeMap<[u8; 32], T>>;

/// The answer of `compute` to the question that `parts` ask, each under its own hash: parts of other lengths are another
/// question.
#[cfg(feature = "wrong-rules")]
pub(super) fn once<T: Clone>(
    answers: &'static LocalKey<Answers<T>>,
    parts: &[&[u8]],
    compute: impl FnOnce() -> T,
) -> T {
    let lengths: Vec<u8> = parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes()).collect();
    let whole = [&[&lengths[..]], parts].concat();
    let question = sha256(&whole);
    if let Some(answer) = answers.with_borrow(|answers| answers.get(&question).cloned()) {
        return answer;
    }
    let answer = compute();
    answers.with_borrow_mut(|answers| {
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(question, answer.clone());
    });
    answer
}

/// Remembers what the expression gives for the parts; without the feature `wrong-rules` it is only the expression.
macro_rules! remembered {
    ($kind:ty, $parts:expr, $compute:expr) => {{
        #[cfg(feature = "wrong-rules")]
        {
            thread_local! {
                static ANSWERS: $crate::replica::remembered::Answers<$kind> = const {
                    ::std::cell::RefCell::new(::std::collections::BTreeMap::new())
                };
            }
            $crate::replica::remembered::once(&ANSWERS, $parts, || $compute)
        }
        #[cfg(not(feature = "wrong-rules"))]
        {
            $compute
        }
    }};
}

pub(super) use remembered;

#[cfg(all(test, feature = "wrong-rules"))]
mod tests {
    use super::*;

    fn doubled(n: u64, computed: &mut u64) -> u64 {
        remembered!(u64, &[&n.to_be_bytes()], {
            *computed += 1;
            2 * n
        })
    }

    #[test]
    fn a_question_is_answered_once_and_the_table_stays_small() {
        let mut computed = 0;
        assert_eq!((doubled(4, &mut computed), doubled(4, &mut computed), computed), (8, 8, 1));
        for n in 0..ANSWERS_MAX as u64 + 10 {
            assert_eq!(doubled(n, &mut computed), 2 * n);
        }
        thread_local! {
            static FULL: Answers<u64> = const { RefCell::new(BTreeMap::new()) };
        }
        for n in 0..2 * ANSWERS_MAX as u64 {
            once(&FULL, &[&n.to_be_bytes()], || n);
            assert!(FULL.with_borrow(BTreeMap::len) <= ANSWERS_MAX);
        }
    }

    #[test]
    fn parts_that_are_cut_elsewhere_are_another_question() {
        let ask = |parts: &[&[u8]], answer: u64| remembered!(u64, parts, answer);
        assert_eq!(ask(&[b"ab", b"c"], 1), 1);
        assert_eq!(ask(&[b"a", b"bc"], 2), 2);
    }
}
