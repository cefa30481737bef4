//! What the pool actor is told and asked.

use actix::{ActorContext, Context, Handler, MessageResult, ResponseFuture};
use specfleet_engine::pool::{Input, Output, SessionKey};
use specfleet_engine::time::Time;
use specfleet_engine::wire::Goodbye;
use tokio::sync::oneshot;

use super::{InputPayload, PoolActor};
use crate::error::PoolError;
use crate::message::{
    Connected, Disconnected, Drain, FromDevice, GetStatus, KillVerifier, NextPhase, Request, StopPool,
};
use crate::options::PoolCall;
use crate::replica::Replica;
use crate::status::{PoolStatus, VerifierStatus};
use crate::upload;

impl Handler<Connected> for PoolActor {
    type Result = Result<(), Goodbye>;

    fn handle(&mut self, Connected(connection, port): Connected, ctx: &mut Context<Self>) -> Self::Result {
        let machine = &self.machine;
        let is_idle = |guest| machine.sessions_of(guest) == 0;
        if let Some(leaving) = self.guests.enter(self.host.now(), connection, port, is_idle)? {
            self.gone(leaving, ctx);
        }
        Ok(())
    }
}

impl Handler<Disconnected> for PoolActor {
    type Result = ();

    fn handle(&mut self, Disconnected(connection): Disconnected, ctx: &mut Context<Self>) {
        self.guests.leave(connection);
        self.gone(connection, ctx);
    }
}

impl Handler<FromDevice> for PoolActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, FromDevice(connection, request): FromDevice, ctx: &mut Context<Self>) -> Self::Result {
        // A frame that was under way when its connection ended.
        if !self.guests.contains(connection) {
            return Box::pin(async {});
        }
        let (told, hears) = oneshot::channel();
        let mut cargo = InputPayload { _told: Some(told), ..InputPayload::default() };
        let claimed = request.at().filter(|_| self.shares_clock).map(Time::from);
        let at = self.agenda.arrival(claimed, self.host.now());
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

impl Handler<KillVerifier> for PoolActor {
    type Result = Result<oneshot::Receiver<()>, PoolError>;

    fn handle(&mut self, KillVerifier(verifier): KillVerifier, ctx: &mut Context<Self>) -> Self::Result {
        let count = self.replicas.len();
        let replica = self.replicas.get_mut(usize::from(verifier.0));
        let replica = replica.ok_or(PoolError::UnknownVerifier { verifier, count })?;
        let (done, killed) = oneshot::channel();
        replica.kill(done);
        self.send_orders(ctx);
        Ok(killed)
    }
}

impl Handler<NextPhase> for PoolActor {
    type Result = MessageResult<NextPhase>;

    fn handle(&mut self, NextPhase(phase, at): NextPhase, ctx: &mut Context<Self>) -> Self::Result {
        let mut outputs = Vec::new();
        let now = self.agenda.next_phase(at.filter(|_| self.shares_clock), self.host.now());
        self.machine.next_phase(now, phase, &mut outputs);
        if let Some(journal) = &mut self.journal {
            journal(now, PoolCall::NextPhase(phase), &outputs);
        }
        let mut records = Vec::new();
        for output in outputs {
            if let Output::VerifierRecord(record) = output {
                records.push(record);
            }
            // Neither records nor orders to verifiers lead to a further input.
            self.carry_out(output, &mut InputPayload::default());
        }
        self.turn(ctx);
        MessageResult(records)
    }
}

impl Handler<GetStatus> for PoolActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(PoolStatus {
            counts: self.machine.counts(),
            late: self.agenda.late(),
            outstanding: self.outstanding(),
            sessions: self.machine.sessions(),
            connections: self.guests.len(),
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

impl Handler<Drain> for PoolActor {
    type Result = MessageResult<Drain>;

    fn handle(&mut self, _: Drain, ctx: &mut Context<Self>) -> Self::Result {
        let (drained, receiver) = oneshot::channel();
        self.draining.push(drained);
        self.happen(Input::Closing, ctx);
        MessageResult(receiver)
    }
}

impl Handler<StopPool> for PoolActor {
    type Result = ();

    fn handle(&mut self, _: StopPool, ctx: &mut Context<Self>) {
        self.guests.close();
        for replica in &self.replicas {
            replica.stop();
        }
        ctx.stop();
    }
}
