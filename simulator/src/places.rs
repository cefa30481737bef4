//! Things that an event refers to by a number, because events are small and sorted.

/// Numbered places; what is free is used again.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps `thing` and says where.
    pub(crate) fn keep(&mut self, thing: T) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(thing);
                place
            }
            None => {
                self.places.push(Some(thing));
                // Fewer than a shard has events, which are numbered by a `u32` too.
                (self.places.len() - 1) as u32
            }
        }
    }

    /// What lies at `place`, which is free from now on.
    pub(crate) fn take(&mut self, place: u32) -> Option<T> {
        let thing = self.places[place as usize].take();
        if thing.is_some() {
            self.free.push(place);
        }
        thing
    }
}
