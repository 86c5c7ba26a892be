//! The entropy of this process, which a run draws from its seed: hash maps, `select!` and random
//! numbers of every library ask the C library's `getrandom`, and this one takes its place here.
//! Nothing but keys of the links comes from elsewhere, and no size or time depends on those.
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static SEEDED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on all entropy follows from the seed. To be called before anything has drawn some on the
/// thread of the run.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    SEEDED.store(true, Ordering::SeqCst);
}

/// The next number of the sequence that is known as SplitMix64.
fn next() -> u64 {
    let step = 0x9e37_79b9_7f4a_7c15_u64;
    let mut mixed = STATE.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn fill(bytes: &mut [u8]) -> bool {
    if !SEEDED.load(Ordering::SeqCst) {
        return File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_ok();
    }
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    true
}

/// Takes the place of the C library's function of this name in this program.
///
/// # Safety
/// `buffer` must point to `length` bytes that may be written.
#[expect(unsafe_code, reason = "only a C function of this name reaches every library's entropy")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller promises so; bytes that were never written are only written here.
    let bytes = unsafe {
        std::ptr::write_bytes(buffer, 0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    if fill(bytes) { length as isize } else { -1 }
}
