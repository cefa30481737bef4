//! The `Pool` actor: owns the pool machine and the session store. Whatever happens becomes one [`Input`]; what the
//! machine answers is carried out in order, and the timer follows its next timeout.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, MessageResult, SpawnHandle,
    WrapFuture,
};
use specfleet_engine::acceptance::Next;
use specfleet_engine::id::{ConnectionId, VerifierId};
use specfleet_engine::pool::{Batch, BatchItem, Input, Output, PoolMachine, PoolSettings, SessionKey};
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

/// Messages that may wait for the pool. A connection has at most one under way and waits until it is handled.
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
}

/// See the module's documentation.
pub(crate) struct Pool {
    machine: PoolMachine,
    /// Time zero.
    origin: Instant,
    store: SessionStore,
    connections: BTreeMap<ConnectionId, Port>,
    /// By number.
    replicas: Vec<Replica>,
    /// The span of each one's batch, for the log.
    spans: Vec<Span>,
    /// When each one's batch may be reported as done.
    releases: Vec<Time>,
    blueprint: Blueprint,
    /// The running timer and what it waits for.
    timer: Option<(Time, SpawnHandle)>,
    /// What rings at that time.
    clock: Timer,
    events: mpsc::Sender<PoolEvent>,
    /// Records of the input at hand.
    records: VecDeque<PoolEvent>,
    journal: Option<Journal>,
    /// Who waits for the last answer.
    draining: Vec<oneshot::Sender<()>>,
}

/// What a pool actor is made of.
pub(crate) struct Parts {
    pub(crate) settings: PoolSettings,
    pub(crate) origin: Instant,
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
            machine: PoolMachine::new(now, parts.settings),
            origin: parts.origin,
            store: SessionStore::default(),
            connections: BTreeMap::new(),
            spans: vec![Span::none(); parts.replicas.len()],
            releases: vec![Time::ZERO; parts.replicas.len()],
            replicas: parts.replicas,
            blueprint: parts.blueprint,
            timer: None,
            clock: parts.clock,
            events: parts.events,
            records: VecDeque::new(),
            journal: parts.journal,
            draining: Vec::new(),
        }
    }

    /// The only caller of the machine's `handle`: takes the input in, carries out what follows from it, and then lets
    /// everything outside catch up.
    fn feed(&mut self, first: Input, cargo: Cargo, ctx: &mut Context<Self>) {
        let mut inputs = VecDeque::from([(first, cargo)]);
        let mut outputs = Vec::new();
        while let Some((input, mut cargo)) = inputs.pop_front() {
            let now = time_since(self.origin);
            let shown = self.journal.is_some().then(|| input.clone());
            self.machine.handle(now, input, &mut outputs);
            if let (Some(journal), Some(input)) = (&mut self.journal, &shown) {
                journal(now, Call::Handle(input), &outputs);
            }
            for output in outputs.drain(..) {
                let follows = self.carry_out(output, &mut cargo, ctx);
                inputs.extend(follows.map(|input| (input, Cargo::default())));
            }
        }
        self.send_orders(ctx);
        self.set_timer(ctx);
        self.send_records(ctx);
        if self.outstanding() == Outstanding::default() {
            for drained in self.draining.drain(..) {
                // Whoever waited may have given up.
                let _ = drained.send(());
            }
        }
    }

    /// Does what the machine asks for. What happens because of it at once is the next input.
    fn carry_out(&mut self, output: Output, cargo: &mut Cargo, ctx: &mut Context<Self>) -> Option<Input> {
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
                let frame = ServerFrame::Refused { session: session.session, upload, reason, retry_after, price };
                self.send_frame(session.connection, frame)
            }
            Output::Start(batch) => {
                self.formed(&batch);
                if let Some(release) = self.releases.get_mut(usize::from(batch.verifier.0)) {
                    *release = batch.release;
                }
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
                self.restart(verifier, ctx)
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
            self.feed(Input::VerifierFailed(verifier), Cargo::default(), ctx);
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
                self.report(verifier, input, Cargo { answers: done.items, ..Cargo::default() }, ctx);
            }
            None => self.send_orders(ctx),
        }
    }

    /// Tells the machine of a batch that is computed, no sooner than it said.
    fn report(&mut self, verifier: VerifierId, done: Input, cargo: Cargo, ctx: &mut Context<Self>) {
        let release = self.releases.get(usize::from(verifier.0)).copied().unwrap_or(Time::ZERO);
        if release <= time_since(self.origin) {
            return self.feed(done, cargo, ctx);
        }
        // What it has to free meanwhile it can.
        self.send_orders(ctx);
        let released = self.clock.at(self.origin + Duration::from_nanos(release.0)).into_actor(self);
        ctx.spawn(released.map(move |(), pool, ctx| pool.feed(done, cargo, ctx)));
    }

    /// Starts a fresh verifier in place of one that failed.
    fn restart(&mut self, verifier: VerifierId, ctx: &mut Context<Self>) -> Option<Input> {
        let replica = self.replicas.get_mut(usize::from(verifier.0))?;
        match replica.restart(&self.blueprint) {
            Ok(()) => Some(Input::VerifierReady(verifier)),
            // No thread to be had; its jobs run elsewhere meanwhile.
            Err(_) => {
                ctx.run_later(RESTART_PAUSE, move |pool, ctx| {
                    if let Some(ready) = pool.restart(verifier, ctx) {
                        pool.feed(ready, Cargo::default(), ctx);
                    }
                });
                None
            }
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

    /// Lets the timer follow the machine's next timeout.
    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let wanted = self.machine.poll_timeout();
        if self.timer.map(|(at, _)| at) == wanted {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        self.timer = wanted.map(|at| {
            let instant = self.origin + Duration::from_nanos(at.0);
            let alarm = self.clock.at(instant).into_actor(self).map(|(), pool, ctx| {
                pool.timer = None;
                pool.feed(Input::Timeout, Cargo::default(), ctx);
            });
            let handle = ctx.spawn(alarm);
            (at, handle)
        });
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
        self.feed(Input::Disconnected(connection), Cargo::default(), ctx);
    }
}

impl Handler<FromDevice> for Pool {
    type Result = ();

    fn handle(&mut self, FromDevice(connection, request): FromDevice, ctx: &mut Context<Self>) {
        // A frame that was under way when its connection ended must not open a session that nobody closes.
        if !self.connections.contains_key(&connection) {
            return;
        }
        match request {
            Request::Upload(upload, kind) => {
                let request = upload::request(connection, &upload, kind, time_since(self.origin));
                self.feed(Input::Upload(request), Cargo { upload: Some(upload), ..Cargo::default() }, ctx);
            }
            Request::Cancel { session, upload } => {
                let session = SessionKey { connection, session };
                self.store.drop_upload(session, upload);
                self.feed(Input::Cancel { session, upload }, Cargo::default(), ctx);
            }
            Request::Close { session } => {
                self.feed(Input::Close(SessionKey { connection, session }), Cargo::default(), ctx);
            }
        }
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

    fn handle(&mut self, NextPhase(phase): NextPhase, ctx: &mut Context<Self>) -> Self::Result {
        let mut outputs = Vec::new();
        let now = time_since(self.origin);
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
            self.carry_out(output, &mut Cargo::default(), ctx);
        }
        self.send_orders(ctx);
        self.set_timer(ctx);
        self.send_records(ctx);
        MessageResult(records)
    }
}

impl Handler<GetStatus> for Pool {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(PoolStatus {
            counts: self.machine.counts(),
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
        self.feed(Input::Closing, Cargo::default(), ctx);
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
