//! Whatever is changed in what strangers give us to look at: no parser panics, and none goes beyond its limits.
//!
//! A seed decides everything; a failure names its parser, its number and the bytes. `STAYDOWN_MUTATIONS` sets how many
//! inputs each parser gets (default: some thousands, seconds of a debug build; `scripts/mutations.sh` asks for a
//! million), `STAYDOWN_SEED` the seed. What is signed or exchanged between nodes is in `tests/mutations.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod campaign;
mod memory;
mod mutate;
mod parser;

/// A module below this folder with a function `parser() -> Parser`, and a test of the same name.
macro_rules! parsers {
    ($($name:ident),* $(,)?) => {
        $(
            mod $name;

            #[test]
            fn $name() {
                campaign::run(&$name::parser());
            }
        )*
    };
}

parsers! {
    frames,
    hash,
    image,
    url,
}
