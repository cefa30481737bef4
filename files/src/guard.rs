//! Calls of libraries that panic on some files where they should refuse them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in a call whose panic is a reason to refuse a file, and no fault of this program.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns; `None` if it panics, without the message that a panic prints: whoever calls says what is wrong with the
/// file. Panics of other threads print theirs. What `work` has left half done must not be used again.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                others(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guarded(|| 5), Some(5));
        assert_eq!(guarded(|| guarded(|| panic!("inner")).unwrap_or(7)), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("outer") }), None);
        assert!(!GUARDED.get(), "panics that follow are faults again");
    }
}
