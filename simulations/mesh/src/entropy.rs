//! Chance and wall time of the whole process, from a seed and from tokio's clock.
//!
//! `getrandom` and `clock_gettime` of this program stand before those of the C library, so that whatever is linked into
//! it asks here: hash maps, noise keys, gossipsub, `SystemTime`. What they hand out depends on the order of the
//! questions alone; with one thread and virtual time that order is a function of the seed.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::time::Instant;

/// The wall clock when a run starts: 2030-01-01, in seconds since the Unix epoch.
const WALL_START_S: i64 = 1_893_456_000;

static CHANCE: Mutex<Option<ChaCha12Rng>> = Mutex::new(None);
static VIRTUAL_START: OnceLock<Instant> = OnceLock::new();

/// Everything random from here on follows from `seed`. Threads that are running keep the hash keys they have.
pub fn seed(seed: u64) {
    *CHANCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(ChaCha12Rng::seed_from_u64(seed));
}

/// The wall clock moves with the time of the present runtime from here on; before, it stands still.
pub fn start_clock() {
    VIRTUAL_START.get_or_init(Instant::now);
}

/// Time since [`start_clock`].
pub fn elapsed() -> Duration {
    VIRTUAL_START.get().map(Instant::elapsed).unwrap_or_default()
}

#[expect(unsafe_code, reason = "the symbol of the C library is replaced, and its contract is raw memory")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, bytes: usize, _flags: c_uint) -> isize {
    // SAFETY: callers own `bytes` writable bytes at `buffer`, as the contract of getrandom(2) demands.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes) };
    let mut chance = CHANCE.lock().unwrap_or_else(PoisonError::into_inner);
    chance.get_or_insert_with(|| ChaCha12Rng::seed_from_u64(0)).fill_bytes(buffer);
    bytes as isize
}

#[expect(unsafe_code, reason = "the symbol of the C library is replaced, and its contract is raw memory")]
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if clock != libc::CLOCK_REALTIME {
        // SAFETY: the arguments are passed on as they came, to the call they were meant for.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock as c_long, time) as c_int };
    }
    let elapsed = elapsed();
    let seconds = WALL_START_S + elapsed.as_secs() as i64;
    // SAFETY: callers own the structure at `time`, as the contract of clock_gettime(2) demands.
    unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: elapsed.subsec_nanos().into() }) };
    0
}
