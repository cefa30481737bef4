//! The clock on the wall: what runs are dated by, and nothing else. Everything that lasts is measured by a clock that nobody
//! sets.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// Refuses a time before 1970: runs are dated from there, and their store would stop the program.
pub fn check(now: SystemTime) -> Result<(), Error> {
    if now < UNIX_EPOCH { Err(Error::WallClock) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_times_before_1970_are_refused() {
        let day = Duration::from_secs(86_400);
        assert!(check(UNIX_EPOCH).is_ok() && check(UNIX_EPOCH + 3_000_000 * day).is_ok());
        let error = check(UNIX_EPOCH - Duration::from_nanos(1)).expect_err("it is before");
        assert_eq!((error.exit_code(), error.to_string().lines().count()), (1, 1));
    }
}
