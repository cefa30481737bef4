//! How much memory the process has allocated, counted at its allocator: what an input makes a parser ask for is counted
//! whether or not it is ever written to.
#![expect(unsafe_code, reason = "the standard library hands out an allocator's calls through an unsafe trait alone")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What is refused, so that an input which asks for more and more ends this process and no other one.
const REFUSED: usize = 4 << 30;

/// The system's allocator with a count.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The input that is measured.
static INPUT: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Says which input is measured next.
pub(crate) fn name_input(seed: u64, number: u64) {
    INPUT[0].store(seed, Ordering::Relaxed);
    INPUT[1].store(number, Ordering::Relaxed);
}

/// Starts a new measurement, and returns what is held at its start.
pub(crate) fn begin() -> usize {
    let held = HELD.load(Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
    held
}

/// The most that was held at a time since [`begin`].
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Counts some bytes; whether there may be as many.
fn add(bytes: usize) -> bool {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    PEAK.fetch_max(held, Ordering::Relaxed);
    if held > REFUSED {
        let [seed, number] = INPUT.each_ref().map(|part| part.load(Ordering::Relaxed));
        // Past the test harness, which would allocate for it and forget it when the process ends.
        let _ = writeln!(std::io::stderr(), "seed {seed}, mutation {number}: {held} bytes are asked for");
    }
    held <= REFUSED
}

fn take(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes on to the system's allocator as it came; the counters neither allocate nor panic. What the
// system refuses is counted as well: the request is what matters, and the process ends on it or gives the memory back.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let is_allowed = add(layout.size());
        // SAFETY: the caller keeps the contract of this same method.
        let place = if is_allowed { unsafe { System.alloc(layout) } } else { ptr::null_mut() };
        if place.is_null() {
            take(layout.size());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let is_allowed = add(layout.size());
        // SAFETY: the caller keeps the contract of this same method.
        let place = if is_allowed { unsafe { System.alloc_zeroed(layout) } } else { ptr::null_mut() };
        if place.is_null() {
            take(layout.size());
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        take(layout.size());
        // SAFETY: the caller keeps the contract of this same method.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_allowed = add(size);
        // SAFETY: the caller keeps the contract of this same method.
        let moved = if is_allowed { unsafe { System.realloc(place, layout, size) } } else { ptr::null_mut() };
        take(if moved.is_null() { size } else { layout.size() });
        moved
    }
}
