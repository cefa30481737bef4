//! Ctrl-C for commands that do not wait for anything: a flag that they look at.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LISTENING: Once = Once::new();

/// A flag that Ctrl-C sets. Until this was called for the first time, Ctrl-C ends the process.
pub fn flag() -> &'static AtomicBool {
    LISTENING.call_once(|| {
        // Without the thread Ctrl-C just ends the process, as it would without this.
        let _ = std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime
                && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
            {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    });
    &INTERRUPTED
}
