//! Which device answers which task.

use specfleet_engine::id::DeviceId;

use super::{DeviceOptions, Settings};

/// Which device answers which task, for every method alike, so that methods are compared on the same devices.
///
/// Task i belongs to device i mod N; or, where a part of the fleet is for one data set, the k-th task of a data set to the
/// k-th, mod their number, of the devices that answer that data set. It holds a few bytes per entry of the fleet's pattern,
/// whatever the number of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    tasks: u32,
    devices: u32,
    /// Length of the fleet's pattern.
    period: u32,
    /// By data set; a single one that everybody answers where no part is for one.
    shares: Vec<AssignmentShare>,
    /// The data sets' stretches of tasks, in order.
    stretches: Vec<AssignmentStretch>,
}

/// The devices that answer one data set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AssignmentShare {
    /// Places in the fleet's pattern of the parts that answer it, ascending.
    places: Vec<u32>,
    /// How many devices they are.
    devices: u32,
}

/// Tasks in a row of one data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AssignmentStretch {
    /// Number of the first.
    first_task: u32,
    share: usize,
    /// How many tasks of this data set come before it.
    before: u32,
}

/// A data set that no device of the fleet answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) data_set: String,
    /// Whether a larger fleet would have a device for it.
    pub(super) in_pattern: bool,
}

impl Settings {
    /// Which device answers which task.
    pub fn assignment(&self) -> Assignment {
        // Settings are refused where a data set has no device.
        let sets = self.workload.iter().map(|part| (part.data_set.as_str(), part.requests()));
        Assignment::new(&self.device, self.run.devices, sets).expect("checked when the settings were read")
    }
}

impl Assignment {
    /// `sets`: names of the data sets and how many tasks of each, in order; a name may come again.
    pub(super) fn new<'a>(
        fleet: &DeviceOptions,
        devices: u32,
        sets: impl Iterator<Item = (&'a str, u32)>,
    ) -> Result<Assignment, Unanswered> {
        // At most 10,000 entries.
        let period = fleet.pattern.len() as u32;
        let by_data = fleet.parts.iter().any(|part| part.data_set.is_some());
        let mut names: Vec<&str> = Vec::new();
        let mut out = Assignment { tasks: 0, devices, period, shares: Vec::new(), stretches: Vec::new() };
        let mut counts: Vec<u32> = Vec::new();
        for (data_set, tasks) in sets {
            // Where no part is for a data set, they all count as one.
            let name = if by_data { data_set } else { "" };
            let share = match names.iter().position(|known| *known == name) {
                Some(share) => share,
                None => {
                    names.push(name);
                    counts.push(0);
                    out.shares.push(AssignmentShare::new(fleet, devices, data_set)?);
                    names.len() - 1
                }
            };
            out.stretches.push(AssignmentStretch { first_task: out.tasks, share, before: counts[share] });
            counts[share] += tasks;
            out.tasks += tasks;
        }
        Ok(out)
    }

    /// Number of tasks; those of the run are 0 ..= that − 1, in the order of [`Settings::tasks`].
    pub fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The device that answers a task, `task` < [`Self::tasks`].
    pub fn device(&self, task: u32) -> DeviceId {
        let stretch = self.stretches[self.stretches.partition_point(|stretch| stretch.first_task <= task) - 1];
        let share = &self.shares[stretch.share];
        let (round, place) = split((stretch.before + task - stretch.first_task) % share.devices, share.places.len());
        DeviceId(round * self.period + share.places[place])
    }

    /// The tasks of a device, ascending: the inverse of [`Self::device`].
    pub fn tasks_of(&self, device: DeviceId) -> impl Iterator<Item = u32> {
        (0..).map_while(move |n| self.nth_task(device, n))
    }

    /// The n-th task of a device, from 0; none if it has fewer. What a closed loop needs instead of a list per device.
    pub fn nth_task(&self, device: DeviceId, n: u32) -> Option<u32> {
        let mut left = u64::from(n);
        for (index, stretch) in self.stretches.iter().enumerate() {
            let end = self.stretches.get(index + 1).map_or(self.tasks, |next| next.first_task);
            let share = &self.shares[stretch.share];
            let Some(rank) = self.rank(share, device) else { continue };
            // Tasks k of the data set with k mod devices = rank, of those in this stretch.
            let (from, to) = (u64::from(stretch.before), u64::from(stretch.before + end - stretch.first_task));
            let (rank, step) = (u64::from(rank), u64::from(share.devices));
            let first = if from <= rank { rank } else { rank + (from - rank).div_ceil(step) * step };
            let count = to.saturating_sub(first).div_ceil(step);
            if left < count {
                // Below `self.tasks`.
                return Some((first + left * step - from) as u32 + stretch.first_task);
            }
            left -= count;
        }
        None
    }

    /// The how-manieth of a share's devices this is, from 0.
    fn rank(&self, share: &AssignmentShare, device: DeviceId) -> Option<u32> {
        let place = share.places.binary_search(&(device.0 % self.period)).ok()?;
        let in_fleet = device.0 < self.devices;
        in_fleet.then(|| device.0 / self.period * share.places.len() as u32 + place as u32)
    }
}

impl AssignmentShare {
    fn new(fleet: &DeviceOptions, devices: u32, data_set: &str) -> Result<AssignmentShare, Unanswered> {
        let answers = |part: &u16| {
            let own = &fleet.parts[usize::from(*part)].data_set;
            own.as_deref().is_none_or(|own| own == data_set)
        };
        let places: Vec<u32> = (0..).zip(&fleet.pattern).filter(|(_, part)| answers(part)).map(|(at, _)| at).collect();
        let period = fleet.pattern.len() as u32;
        let rest = places.iter().filter(|&&place| place < devices % period).count() as u32;
        let count = devices / period * places.len() as u32 + rest;
        if count == 0 {
            return Err(Unanswered { data_set: data_set.to_owned(), in_pattern: !places.is_empty() });
        }
        Ok(AssignmentShare { places, devices: count })
    }
}

fn split(number: u32, by: usize) -> (u32, usize) {
    (number / by as u32, number as usize % by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::tests::valid;
    use proptest::prelude::*;

    /// The rule in its own words, with a list of devices.
    fn by_the_book(settings: &Settings) -> Vec<DeviceId> {
        let all: Vec<DeviceId> = (0..settings.run.devices).map(DeviceId).collect();
        let by_data = settings.device.parts.iter().any(|part| part.data_set.is_some());
        let mut seen: Vec<String> = Vec::new();
        let mut out = Vec::new();
        for task in settings.tasks() {
            let data_set = &task.prompt.data_set;
            let own = |device: &DeviceId| {
                let wants = &settings.device.part(*device).data_set;
                wants.as_ref().is_none_or(|wants| wants == data_set)
            };
            let devices: Vec<DeviceId> = all.iter().copied().filter(own).collect();
            let k = if by_data { seen.iter().filter(|other| *other == data_set).count() } else { out.len() };
            out.push(devices[k % devices.len()]);
            seen.push(data_set.clone());
        }
        out
    }

    #[test]
    fn without_data_it_is_the_task_modulo_the_fleet() {
        let settings = valid("[run]\ndevices = 7\nprompts = 40\n[device]\nlink = \"good, poor\"");
        let assignment = settings.assignment();
        for task in 0..40 {
            assert_eq!(assignment.device(task), DeviceId(task % 7));
        }
        let mine: Vec<u32> = assignment.tasks_of(DeviceId(5)).collect();
        assert_eq!(mine, [5, 12, 19, 26, 33]);
        assert_eq!(assignment.tasks_of(DeviceId(7)).count(), 0);
        let large = valid(
            "[run]\ndevices = 1000000\nprompts = 10000000\nworkload = [{ data = \"gsm8k\", prompts = 7 }, { data = \"word-problems\", prompts = 13 }]",
        );
        assert_eq!(large.assignment().nth_task(DeviceId(999_999), 9), Some(9_999_999));
        assert_eq!(large.assignment().nth_task(DeviceId(999_999), 10), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// It agrees with the rule, and each device's tasks are its own, all of them and in order.
        #[test]
        fn it_is_the_rule_and_its_inverse(
            devices in 8u32..60,
            counts in [1u32..30, 1..30, 1..30],
            parts in proptest::collection::vec((1u32..4, 0usize..4), 1..5),
        ) {
            let sets = ["gsm8k", "word-problems", "gsm8k"];
            let mix: Vec<String> = sets.iter().zip(counts).map(|(s, n)| format!("{{ data = \"{s}\", prompts = {n} }}")).collect();
            let mut text = format!("[run]\ndevices = {devices}\nworkload = [{}]\n", mix.join(", "));
            // The first part answers anything, so that every data set has a device.
            for (index, (weight, data)) in parts.iter().enumerate() {
                text += &format!("[fleet.p{index}]\nweight = {weight}\n");
                if let (Some(data), 1..) = (sets.get(*data), index) {
                    text += &format!("data = \"{data}\"\n");
                }
            }
            let settings = valid(&text);
            let assignment = settings.assignment();
            let rule = by_the_book(&settings);
            prop_assert_eq!(assignment.tasks() as usize, rule.len());
            let mut mine: Vec<Vec<u32>> = vec![Vec::new(); devices as usize];
            for (task, device) in (0..).zip(rule) {
                prop_assert_eq!(assignment.device(task), device, "task {}", task);
                mine[device.0 as usize].push(task);
            }
            for (device, tasks) in (0..).zip(mine) {
                prop_assert_eq!(assignment.tasks_of(DeviceId(device)).collect::<Vec<_>>(), tasks);
            }
        }
    }
}
