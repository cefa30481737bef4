//! The `Pool` actor: owns the pool machine and the session store. Whatever happens becomes one [`Input`] in the
//! [`Agenda`], which says when the machine is told of it; what the machine answers is carried out in order, and the timer
//! follows what comes next.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, MessageResult, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use specfleet_engine::acceptance::Next;
use specfleet_engine::id::{ConnectionId, VerifierId};
use specfleet_engine::pool::{
    Agenda, Batch, BatchItem, Input, NextInput, Output, PoolMachine, PoolSettings, SessionKey,
};
use specfleet_engine::record::BatchRecord;
use specfleet_engine::time::Time;
use specfleet_engine::wire::{Goodbye, ServerFrame, Upload, VerdictFrame};
use specfleet_timer::Timer;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Span, debug, debug_span, info, warn};

use crate::error::PoolError;
use crate::judge::ItemAnswer;
use crate::message::{Connected, Disconnected, Drain, FromDevice, GetStatus, Kill, NextPhase, Port, Request, Stop};
use crate::options::{Call, Journal, PoolEvent};
use crate::replica::{Blueprint, Replica};
use crate::status::{Outstanding, PoolStatus, VerifierStatus};
use crate::store::SessionStore;
use crate::upload;
use crate::verifier_actor::{Answer, BatchOrder, Order, VerifierFailed, span};

/// Messages that may wait for the pool. A connection has at most one under way and waits until the machine is told of it.
const MAILBOX: usize = 64;

/// After what a verifier that got no thread is tried again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What an input brings along that the machine does not see.
#[derive(Default)]
struct Cargo {
    /// With `Input::Upload`: what was uploaded, until it is admitted.
    upload: Option<Box<Upload>>,
    /// With `Input::BatchDone`: what came out, by item.
    answers: Vec<ItemAnswer>,
    /// With an input from a device: dropped when the machine has been told of it, which is what its connection waits for.
    _told: Option<oneshot::Sender<()>>,
}

/// See the module's documentation.
pub(crate) struct Pool {
    machine: PoolMachine,
    agenda: Agenda<Cargo>,
    /// Whether devices go by the same clock.
    shares_clock: bool,
    /// Time zero.
    origin: Instant,
    store: SessionStore,
    connections: BTreeMap<ConnectionId, Port>,
    /// By number.
    replicas: Vec<Replica>,
    /// The span of each one's batch, for the log.
    spans: Vec<Span>,
    blueprint: Blueprint,
    /// The running timer and what it waits for.
    timer: Option<(Time, SpawnHandle)>,
    /// What rings at that time.
    clock: Timer,
    events: mpsc::Sender<PoolEvent>,
    /// Records of the input at hand.
    records: VecDeque<PoolEvent>,
    journal: Option<Journal>,
    /// Verifiers that could not be started again for want of a thread.
    without_thread: Vec<VerifierId>,
    /// Who waits for the last answer.
    draining: Vec<oneshot::Sender<()>>,
}

/// What a pool actor is made of.
pub(crate) struct Parts {
    pub(crate) settings: PoolSettings,
    pub(crate) origin: Instant,
    pub(crate) shares_clock: bool,
    pub(crate) blueprint: Blueprint,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) clock: Timer,
    pub(crate) events: mpsc::Sender<PoolEvent>,
    pub(crate) journal: Option<Journal>,
}

impl Actor for Pool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Pool {
    /// A pool whose verifiers run already.
    pub(crate) fn new(mut parts: Parts) -> Pool {
        let now = time_since(parts.origin);
        if let Some(journal) = &mut parts.journal {
            journal(now, Call::New, &[]);
        }
        Pool {
            agenda: Agenda::new(now, parts.settings.cost.is_some(), parts.shares_clock),
            machine: PoolMachine::new(now, parts.settings),
            shares_clock: parts.shares_clock,
            origin: parts.origin,
            store: SessionStore::default(),
            connections: BTreeMap::new(),
            spans: vec![Span::none(); parts.replicas.len()],
            replicas: parts.replicas,
            blueprint: parts.blueprint,
            timer: None,
            clock: parts.clock,
            events: parts.events,
            records: VecDeque::new(),
            journal: parts.journal,
            without_thread: Vec::new(),
            draining: Vec::new(),
        }
    }

    /// Tells the machine of everything whose time has come, and then lets everything outside catch up.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        let mut outputs = Vec::new();
        let wake = loop {
            match self.agenda.next(self.machine.poll_timeout(), time_since(self.origin)) {
                NextInput::Now(at, input) => {
                    let (input, cargo) = input.unwrap_or((Input::Timeout, Cargo::default()));
                    self.handle(at, input, cargo, &mut outputs);
                }
                NextInput::At(at) => break Some(at),
                NextInput::Nothing => break None,
            }
        };
        self.send_orders(ctx);
        self.restart_later(ctx);
        self.set_timer(wake, ctx);
        self.send_records(ctx);
        if self.agenda.is_empty() && self.outstanding() == Outstanding::default() {
            for drained in self.draining.drain(..) {
                // Whoever waited may have given up.
                let _ = drained.send(());
            }
        }
    }

    /// Something has happened that is not emulated.
    fn happen(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.agenda.happen(time_since(self.origin), input, Cargo::default());
        self.turn(ctx);
    }

    /// The only caller of the machine's `handle`: takes the input in and carries out what follows from it.
    fn handle(&mut self, at: Time, input: Input, mut cargo: Cargo, outputs: &mut Vec<Output>) {
        if let Input::Upload(request) = &input
            && !self.connections.contains_key(&request.session.connection)
        {
            // It would open a session that nobody closes.
            return;
        }
        if let Input::Cancel { session, upload } = &input {
            self.store.drop_upload(*session, *upload);
        }
        let shown = self.journal.is_some().then(|| input.clone());
        self.machine.handle(at, input, outputs);
        if let (Some(journal), Some(input)) = (&mut self.journal, &shown) {
            journal(at, Call::Handle(input), outputs);
        }
        for output in outputs.drain(..) {
            if let Some(follows) = self.carry_out(output, &mut cargo) {
                self.agenda.happen(time_since(self.origin), follows, Cargo::default());
            }
        }
    }

    /// Does what the machine asks for. What happens because of it at once is the next input.
    fn carry_out(&mut self, output: Output, cargo: &mut Cargo) -> Option<Input> {
        match output {
            Output::Admitted { session, .. } => {
                if let Some(upload) = cargo.upload.take() {
                    self.store.admit(session, upload);
                }
                None
            }
            Output::Refused { session, upload, reason, retry_after, price } => {
                // Refused on arrival it was never stored, and a pending upload of the same number is another one.
                if cargo.upload.take().is_none() {
                    self.store.drop_upload(session, upload);
                }
                info!(connection = session.connection.0, session = session.session, upload = upload.0, reason = %reason, "refused");
                self.agenda.answered(session.connection);
                let frame = ServerFrame::Refused { session: session.session, upload, reason, retry_after, price };
                self.send_frame(session.connection, frame)
            }
            Output::Start(batch) => {
                self.formed(&batch);
                self.agenda.started(batch.verifier, batch.release);
                let order = BatchOrder {
                    batch: batch.batch,
                    evict: batch.evict,
                    tasks: batch.items.iter().map(|item| self.store.task(item)).collect(),
                    ordered: Instant::now(),
                };
                self.order(batch.verifier, Order::Batch(order));
                None
            }
            Output::Verdict { session, upload, item, more, cost, price } => {
                let answer = cargo.answers.get_mut(item as usize)?;
                let (accepted, next) = (answer.outcome.accepted, answer.outcome.next);
                self.store.commit(session, accepted, next, more);
                let next = std::mem::replace(&mut answer.next, Next::None);
                if !more {
                    self.agenda.answered(session.connection);
                }
                let frame = VerdictFrame { session: session.session, upload, accepted, next, more, cost, price };
                self.send_frame(session.connection, ServerFrame::Verdict(Box::new(frame)))
            }
            Output::Forget(session) => {
                self.store.forget(session);
                None
            }
            Output::DropKv { verifier, session } => {
                self.order(verifier, Order::Free(session));
                None
            }
            Output::Restart(verifier) => {
                warn!(verifier = verifier.0, "verifier failed, another is started in its place");
                self.restart(verifier)
            }
            Output::Record(record) => {
                self.over(&record);
                self.records.push_back(PoolEvent::Batch(record));
                None
            }
            Output::VerifierRecord(record) => {
                self.records.push_back(PoolEvent::Verifier(record));
                None
            }
        }
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    /// Queues a frame for a device. One that has let its queue fill up is gone from here on.
    fn send_frame(&mut self, connection: ConnectionId, frame: ServerFrame) -> Option<Input> {
        let port = self.connections.get(&connection)?;
        match port.frames.try_send(frame) {
            Ok(()) => None,
            // Its task is ending and will say so.
            Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(_)) => {
                let port = self.connections.remove(&connection)?;
                let _ = port.end.send(Goodbye::SlowReader);
                Some(Input::Disconnected(connection))
            }
        }
    }

    // ---- verifiers ---------------------------------------------------------------------------------------------

    fn order(&mut self, verifier: VerifierId, order: Order) {
        if let Some(replica) = self.replicas.get_mut(usize::from(verifier.0)) {
            replica.order(order);
        }
    }

    /// Sends each verifier its orders; the answer comes back as a future of this actor.
    fn send_orders(&mut self, ctx: &mut Context<Self>) {
        for index in 0..self.replicas.len() {
            let Some(request) = self.replicas[index].send() else { continue };
            // There are at most `u16::MAX` verifiers, by the type of the setting.
            let verifier = VerifierId(index as u16);
            ctx.spawn(request.into_actor(self).map(move |answer, pool, ctx| pool.answered(verifier, answer, ctx)));
        }
    }

    fn answered(
        &mut self,
        verifier: VerifierId,
        answer: Result<Result<Answer, VerifierFailed>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        // A mailbox that is gone means that the whole thread died.
        let Ok(Ok(Answer { batch, held })) = answer else {
            let at = self.agenda.failed(verifier, time_since(self.origin));
            self.handle(at, Input::VerifierFailed(verifier), Cargo::default(), &mut Vec::new());
            self.turn(ctx);
            return;
        };
        if let Some(replica) = self.replicas.get_mut(usize::from(verifier.0)) {
            replica.answered(held);
        }
        match batch {
            Some(done) => {
                let input = Input::BatchDone {
                    verifier,
                    batch: done.batch,
                    waited: done.waited,
                    compute: done.compute,
                    outcomes: done.items.iter().map(|item| item.outcome).collect(),
                };
                let cargo = Cargo { answers: done.items, ..Cargo::default() };
                self.agenda.computed(verifier, time_since(self.origin), input, cargo);
                self.turn(ctx);
            }
            None => self.send_orders(ctx),
        }
    }

    /// Starts a fresh verifier in place of one that failed.
    fn restart(&mut self, verifier: VerifierId) -> Option<Input> {
        let replica = self.replicas.get_mut(usize::from(verifier.0))?;
        match replica.restart(&self.blueprint) {
            Ok(()) => Some(Input::VerifierReady(verifier)),
            // No thread to be had; its jobs run elsewhere meanwhile.
            Err(_) => {
                self.without_thread.push(verifier);
                None
            }
        }
    }

    /// Tries again to start those that got no thread.
    fn restart_later(&mut self, ctx: &mut Context<Self>) {
        for verifier in std::mem::take(&mut self.without_thread) {
            ctx.run_later(RESTART_PAUSE, move |pool, ctx| {
                if let Some(ready) = pool.restart(verifier) {
                    pool.happen(ready, ctx);
                } else {
                    pool.restart_later(ctx);
                }
            });
        }
    }

    // ---- the log -----------------------------------------------------------------------------------------------

    /// A batch begins: its span, with what the ledger's row will say.
    fn formed(&mut self, batch: &Batch) {
        let (Some(span), sequences) = (self.spans.get_mut(usize::from(batch.verifier.0)), batch.items.len()) else {
            return;
        };
        *span = debug_span!("batch", batch = batch.batch, verifier = batch.verifier.0, sequences, tokens = Empty);
        if !span.is_disabled() {
            span.record("tokens", batch.items.iter().map(BatchItem::work).sum::<u32>());
            debug!(parent: &*span, "formed");
        }
    }

    /// A batch is over.
    fn over(&mut self, record: &BatchRecord) {
        let Some(span) = self.spans.get_mut(usize::from(record.verifier.0)) else { return };
        let span = std::mem::replace(span, Span::none());
        let (compute_ns, work, nanojoules) = (record.compute.0, record.work, record.nanojoules);
        if record.completed {
            debug!(parent: &span, compute_ns, work, nanojoules, "completed");
        } else {
            let (batch, verifier) = (record.batch, record.verifier.0);
            warn!(parent: &span, batch, verifier, compute_ns, work, nanojoules, "failed");
        }
    }

    // ---- time and records --------------------------------------------------------------------------------------

    /// Sets the one timer.
    fn set_timer(&mut self, wanted: Option<Time>, ctx: &mut Context<Self>) {
        if self.timer.map(|(at, _)| at) == wanted {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        // A time beyond what the clock can tell never comes.
        let instant = |at: Time| Some((at, self.origin.checked_add(Duration::from_nanos(at.0))?));
        let Some((at, instant)) = wanted.and_then(instant) else { return };
        let alarm = self.clock.at(instant).into_actor(self).map(|(), pool, ctx| {
            pool.timer = None;
            pool.turn(ctx);
        });
        self.timer = Some((at, ctx.spawn(alarm)));
    }

    /// Hands the records over. While their queue is full this actor handles nothing else, and the devices wait in turn.
    fn send_records(&mut self, ctx: &mut Context<Self>) {
        while let Some(record) = self.records.pop_front() {
            match self.events.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.records.clear(),
                Err(TrySendError::Full(record)) => {
                    let events = self.events.clone();
                    self.records.push_front(record);
                    let rest = std::mem::take(&mut self.records);
                    let send_rest = async move {
                        for record in rest {
                            // The error is a receiver that is gone.
                            let _ = events.send(record).await;
                        }
                    };
                    ctx.wait(send_rest.into_actor(self));
                }
            }
        }
    }

    fn outstanding(&self) -> Outstanding {
        let (queued_jobs, queued_tokens, running) = self.machine.outstanding();
        Outstanding { queued_jobs, queued_tokens, running }
    }
}

impl Handler<Connected> for Pool {
    type Result = ();

    fn handle(&mut self, Connected(connection, port): Connected, _: &mut Context<Self>) {
        self.connections.insert(connection, port);
    }
}

impl Handler<Disconnected> for Pool {
    type Result = ();

    fn handle(&mut self, Disconnected(connection): Disconnected, ctx: &mut Context<Self>) {
        self.connections.remove(&connection);
        self.agenda.forget(connection);
        self.happen(Input::Disconnected(connection), ctx);
    }
}

impl Handler<FromDevice> for Pool {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, FromDevice(connection, request): FromDevice, ctx: &mut Context<Self>) -> Self::Result {
        // A frame that was under way when its connection ended.
        if !self.connections.contains_key(&connection) {
            return Box::pin(async {});
        }
        let (told, hears) = oneshot::channel();
        let mut cargo = Cargo { _told: Some(told), ..Cargo::default() };
        let claimed = request.at().filter(|_| self.shares_clock).map(Time::from);
        let at = self.agenda.arrival(claimed, time_since(self.origin));
        let input = match request {
            Request::Upload(upload, kind) => {
                let request = upload::request(connection, &upload, kind, at);
                cargo.upload = Some(upload);
                Input::Upload(request)
            }
            Request::Cancel { session, upload, .. } => {
                Input::Cancel { session: SessionKey { connection, session }, upload }
            }
            Request::Close { session, .. } => Input::Close(SessionKey { connection, session }),
            Request::Promise { device, until, after_answer } => {
                if self.shares_clock {
                    self.agenda.promise(connection, device, until.into(), after_answer);
                    self.turn(ctx);
                }
                return Box::pin(async {});
            }
        };
        self.agenda.arrive(connection, at, input, cargo);
        self.turn(ctx);
        // The error is how it hears.
        Box::pin(async { drop(hears.await) })
    }
}

impl Handler<Kill> for Pool {
    type Result = Result<oneshot::Receiver<()>, PoolError>;

    fn handle(&mut self, Kill(verifier): Kill, ctx: &mut Context<Self>) -> Self::Result {
        let count = self.replicas.len();
        let replica = self.replicas.get_mut(usize::from(verifier.0));
        let replica = replica.ok_or(PoolError::UnknownVerifier { verifier, count })?;
        let (done, killed) = oneshot::channel();
        replica.kill(done);
        self.send_orders(ctx);
        Ok(killed)
    }
}

impl Handler<NextPhase> for Pool {
    type Result = MessageResult<NextPhase>;

    fn handle(&mut self, NextPhase(phase, at): NextPhase, ctx: &mut Context<Self>) -> Self::Result {
        let mut outputs = Vec::new();
        let now = self.agenda.next_phase(at.filter(|_| self.shares_clock), time_since(self.origin));
        self.machine.next_phase(now, phase, &mut outputs);
        if let Some(journal) = &mut self.journal {
            journal(now, Call::NextPhase(phase), &outputs);
        }
        let mut records = Vec::new();
        for output in outputs {
            if let Output::VerifierRecord(record) = output {
                records.push(record);
            }
            // Neither records nor orders to verifiers lead to a further input.
            self.carry_out(output, &mut Cargo::default());
        }
        self.turn(ctx);
        MessageResult(records)
    }
}

impl Handler<GetStatus> for Pool {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(PoolStatus {
            counts: self.machine.counts(),
            late: self.agenda.late(),
            outstanding: self.outstanding(),
            sessions: self.machine.sessions(),
            connections: self.connections.len(),
            kv: self.replicas.iter().map(Replica::held).collect(),
            verifiers: self
                .machine
                .activities()
                .zip(&self.replicas)
                .map(|(activity, replica)| VerifierStatus { activity, restarts: replica.restarts() })
                .collect(),
        })
    }
}

impl Handler<Drain> for Pool {
    type Result = MessageResult<Drain>;

    fn handle(&mut self, _: Drain, ctx: &mut Context<Self>) -> Self::Result {
        let (drained, receiver) = oneshot::channel();
        self.draining.push(drained);
        self.happen(Input::Closing, ctx);
        MessageResult(receiver)
    }
}

impl Handler<Stop> for Pool {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        for (_, port) in std::mem::take(&mut self.connections) {
            // A task that is ending by itself takes no farewell.
            let _ = port.end.send(Goodbye::Closing);
        }
        for replica in &self.replicas {
            replica.stop();
        }
        ctx.stop();
    }
}

/// Now, in the run's time.
fn time_since(origin: Instant) -> Time {
    Time::ZERO + span(origin, Instant::now())
}
