//! The requests that wait for one device.

use std::collections::VecDeque;

use crate::time::Time;

/// A bounded queue of requests, in order of arrival.
#[derive(Clone, Debug)]
pub struct Backlog<J> {
    most: usize,
    waiting: VecDeque<(Time, J)>,
}

/// Too many requests wait already; here is the one that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait for this device")]
pub struct Dropped<J>(pub J);

impl<J> Backlog<J> {
    /// An empty queue for `most` requests.
    pub fn new(most: u32) -> Backlog<J> {
        Backlog { most: most as usize, waiting: VecDeque::new() }
    }

    /// Takes in a request that was due at `scheduled`.
    pub fn offer(&mut self, scheduled: Time, job: J) -> Result<(), Dropped<J>> {
        if self.waiting.len() >= self.most {
            return Err(Dropped(job));
        }
        self.waiting.push_back((scheduled, job));
        Ok(())
    }

    /// The request that has waited longest.
    pub fn take(&mut self) -> Option<(Time, J)> {
        self.waiting.pop_front()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_comes_back() {
        let mut backlog = Backlog::new(2);
        assert_eq!(backlog.offer(Time(1), 'a'), Ok(()));
        assert_eq!(backlog.offer(Time(2), 'b'), Ok(()));
        assert_eq!(backlog.offer(Time(3), 'c'), Err(Dropped('c')));
        assert_eq!(backlog.take(), Some((Time(1), 'a')));
        assert_eq!(backlog.offer(Time(4), 'd'), Ok(()));
        assert_eq!(backlog.len(), 2);
    }
}
