//! Nodes in processes of their own that are killed, whose files are damaged, restored from backups and cloned.
//!
//! `scripts/torture.sh` is the long run; what it prints belongs in the note of a release. `STAYDOWN_SEED` repeats the choices of a run, not its timing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the long run's result is what it prints")]

#[path = "../../benches/forum/mod.rs"]
mod forum;

mod clone;
mod damage;
mod drill;
mod kill;
mod restore;

/// The seed of this run's choices.
fn seed() -> u64 {
    let seed = std::env::var("STAYDOWN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(staydown::clock::random()));
    println!("STAYDOWN_SEED={seed}");
    seed
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn folder() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
}
