//! A device that lives by declared times does the same at the same times, however late its host is.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use specfleet_engine::device::{
    DeviceClock, DeviceMachine, Due, Input, Lookback, NextToken, NextTurn, Output, Signals, Start, Step, StepResult,
    UploadPlan, Verdict,
};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::Method;
use specfleet_engine::pool::JobKind;
use specfleet_engine::record::VerifyCost;
use specfleet_engine::time::{Span, Time};
use specfleet_tests::setups::{small, zoo};

/// How late a host is with each thing in turn, in nanoseconds; a declared draft step takes about 1,000.
struct Lateness<'a>(std::iter::Cycle<std::slice::Iter<'a, u64>>);

impl Lateness<'_> {
    fn next(&mut self) -> Span {
        Span(*self.0.next().expect("endless"))
    }
}

/// A device, its host, and a pool that takes a time of its own for each upload.
struct Host {
    machine: DeviceMachine,
    clock: DeviceClock,
    now: Time,
    step: Option<(Time, Step)>,
    /// Answers by when their first bit comes.
    answers: VecDeque<(Time, Verdict, u64)>,
    downlink: VecDeque<(Time, Input)>,
    /// What the machine was told and asked for, with its times.
    log: Vec<String>,
    /// What it promised the pool last; nothing may arrive before.
    promised: Time,
    finished: bool,
}

impl Host {
    fn run(method: Method, late: &[u64]) -> Host {
        let settings = small(method, 0, 24).device;
        let machine = DeviceMachine::new(DeviceId(3), Arc::new(settings)).expect("valid");
        let mut host = Host {
            clock: DeviceClock::new(&machine),
            machine,
            now: Time(1_000_000),
            step: None,
            answers: VecDeque::new(),
            downlink: VecDeque::new(),
            log: Vec::new(),
            promised: Time::ZERO,
            finished: false,
        };
        let mut late = Lateness(late.iter().cycle());
        for input in [Input::Join, Input::Connected] {
            let at = host.clock.happened(Time(1_000_000));
            host.tell(at, input, &mut late);
        }
        let scheduled = Time(2_000_000);
        host.now = scheduled + late.next();
        let generation = GenerationId { method: 0, prompt: 5, repetition: 0, pass: 0 };
        let start = Start { generation, data_set: 0, prompt_tokens: 4, scheduled };
        let at = host.clock.start(scheduled, host.now);
        host.tell(at, Input::Start(start), &mut late);
        while !host.finished {
            let wake = host.wake(&mut late);
            if host.finished {
                break;
            }
            let step = host.step.map(|(at, _)| at);
            let answer = host.answers.front().map(|(at, ..)| *at);
            let next = [wake, step, answer].into_iter().flatten().min().expect("something is due");
            host.now = host.now.max(next);
            if let Some((_, step)) = host.step.take_if(|(at, _)| *at <= host.now) {
                let at = host.clock.step_done(host.now);
                host.tell(at, Input::StepDone(drafted(&step)), &mut late);
            }
            while let Some((_, verdict, bits)) = host.answers.pop_front_if(|(at, ..)| *at <= host.now) {
                let (upload, pool) = (verdict.upload, verdict.cost.pool_time());
                host.clock.heard(host.now);
                let left = host.machine.left_pool(host.now, upload, pool);
                let (arrives, downlink) = host.machine.receive(left, bits);
                host.downlink.push_back((arrives, Input::Verdict(Verdict { downlink, ..verdict })));
            }
        }
        host
    }

    /// Tells the machine of all that is due; when the host has to look again.
    fn wake(&mut self, late: &mut Lateness<'_>) -> Option<Time> {
        loop {
            let arrival = self.downlink.front().map(|(at, _)| *at);
            match self.clock.next(&self.machine, arrival, self.now) {
                NextTurn::Now(at, due) => {
                    let input = match due {
                        Due::Timeout => Input::Timeout,
                        Due::Arrival => self.downlink.pop_front().expect("it is due").1,
                    };
                    let at = self.clock.turn(at, self.now);
                    self.tell(at, input, late);
                }
                NextTurn::At(at) => return Some(at + late.next()),
                NextTurn::Nothing => return None,
            }
        }
    }

    fn tell(&mut self, at: Time, input: Input, late: &mut Lateness<'_>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            // A step that is done is told early or late, and ends with a timeout; what follows from that does not differ.
            if !matches!(input, Input::StepDone(_) | Input::Timeout) {
                self.log.push(format!("{at:?} {input:?}"));
            }
            self.machine.handle(at, input, &mut out);
            for output in out {
                match output {
                    Output::Step(step) => {
                        self.log.push(format!("{at:?} {step:?}"));
                        self.step = Some((self.now + late.next(), step));
                    }
                    Output::Upload(plan) => {
                        self.log.push(format!("{at:?} {plan:?}"));
                        assert!(at >= self.promised, "{plan:?} arrives at {at:?}, promised {:?}", self.promised);
                        inputs.push_back(Input::Sent { upload: plan.upload, bytes: 50 });
                        self.answer(at, &plan, late);
                    }
                    Output::Record(record) => self.log.push(format!("{record:?}")),
                    Output::Finished(record) => {
                        self.log.push(format!("{record:?}"));
                        self.finished = true;
                    }
                    _ => {}
                }
            }
        }
        let answered = self.downlink.back().map(|(at, _)| *at);
        if let Some(promised) = self.clock.promise(&self.machine, answered, false) {
            self.promised = promised;
        }
    }

    /// What the pool says, and when it comes: not before it has left.
    fn answer(&mut self, arrived: Time, plan: &UploadPlan, late: &mut Lateness<'_>) {
        let pool = Span(700 + u64::from(plan.upload.0 * 37 % 11) * 400);
        let (drafts, writes) = match plan.job {
            JobKind::Judge { drafts, .. } => (drafts, 0),
            JobKind::Write { left } => (0, left),
        };
        let answers = writes.max(1);
        let mut left = arrived;
        for answer in 0..answers {
            left = left + pool;
            let accepted = drafts.saturating_sub(u8::from(plan.upload.0.is_multiple_of(3)));
            let next = match () {
                () if writes > 0 => NextToken::Bonus(answer % 5),
                () if accepted < drafts => NextToken::Replacement(plan.upload.0 % 5),
                () => NextToken::None,
            };
            let cost = VerifyCost { compute: pool, ..VerifyCost::default() };
            let more = answer + 1 < answers;
            let verdict = Verdict {
                upload: plan.upload,
                accepted,
                next,
                more,
                cost,
                price: 0.0,
                bytes: 30,
                downlink: Span::ZERO,
            };
            let comes = left.max(self.now) + late.next();
            let comes = self.answers.back().map_or(comes, |(last, ..)| comes.max(*last));
            self.answers.push_back((comes, verdict, 64));
        }
    }
}

fn drafted(step: &Step) -> StepResult {
    let number = step.position * 7 + step.rejections;
    StepResult {
        generation: step.generation,
        position: step.position,
        rejections: step.rejections,
        token: number % 5,
        signals: Signals {
            statistic: (number % 10) as f32 / 5.0,
            importance: (number % 7) as f32,
            importance_threshold: 3.0,
            draft_probability: 0.5,
            gate_draw: (number % 10) as f32 / 10.0,
        },
        payload_bits: 40 + number % 90,
        lookback: Some(Lookback { importance: (number % 7) as f32, threshold: 3.0 }),
    }
}

proptest! {
    /// Steps that are computed late, timers that ring late and frames that come late change nothing that is reported.
    #[test]
    fn a_late_host_changes_nothing(method in 0usize..11, late in prop::collection::vec(0u64..6_000, 1..20)) {
        let method = zoo().swap_remove(method);
        let punctual = Host::run(method.clone(), &[0]);
        let late = Host::run(method, &late);
        let different = late.log.iter().zip(&punctual.log).find(|(late, punctual)| late != punctual);
        prop_assert_eq!(different, None);
        prop_assert_eq!(late.log.len(), punctual.log.len());
    }
}

/// The control: on a device that is not emulated the host shows.
#[test]
fn a_real_device_goes_by_its_host() {
    let run = |late: &[u64]| {
        let setup = small(zoo().swap_remove(2), 0, 8);
        let mut settings = setup.device;
        settings.link.emulated = false;
        let machine = DeviceMachine::new(DeviceId(3), Arc::new(settings)).expect("valid");
        let mut clock = DeviceClock::new(&machine);
        let started = clock.start(Time(1_000), Time(1_000 + late[0]));
        // The host's clock goes on while the device is told.
        clock.turn(started, started + Span(700));
        (started, clock.next(&machine, Some(Time(5_000)), Time(6_000)), clock.take_overrun())
    };
    assert_eq!(run(&[0]), (Time(1_000), NextTurn::Now(Time(6_000), Due::Arrival), Span::ZERO));
    assert_eq!(run(&[400]), (Time(1_400), NextTurn::Now(Time(6_000), Due::Arrival), Span::ZERO));
}
