//! The device's connection: making and losing it, what comes over it and what goes.

use actix::prelude::*;
use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::{downlink_bits, token_bits};
use specfleet_engine::device::{Input, NextToken, Refusal, UploadPlan, Verdict};
use specfleet_engine::id::UploadId;
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{ClientFrame, ServerFrame, VerdictFrame};

use super::{Device, Link, NO_PROMISE};
use crate::connection::{Incoming, PoolConnection};
use crate::error::{AgentError, LinkError};
use crate::options::DeviceCall;
use crate::rounds;

impl Device {
    pub(super) fn connect(&mut self, ctx: &mut Context<Self>) {
        if self.fatal.is_some() {
            return;
        }
        let (connector, device, hello) = (self.connector.clone(), self.device, self.hello.clone());
        self.attempt += 1;
        let number = self.attempt;
        let attempt = async move { connector.connect(device, hello).await };
        ctx.spawn(attempt.into_actor(self).map(move |result, device, ctx| match result {
            // The machine has hung up meanwhile and hears nothing of it.
            Ok(connection) if device.attempt != number => connection.outgoing.cut(),
            Err(_) if device.attempt != number => {}
            Ok(connection) => device.connected(connection, ctx),
            Err(error) => device.lost(error, ctx),
        }));
    }

    fn connected(&mut self, connection: PoolConnection, ctx: &mut Context<Self>) {
        let PoolConnection { verifier, outgoing, incoming } = connection;
        if let Some(change) = self.begun_with.as_ref().and_then(|before| before.change_to(&verifier)) {
            outgoing.cut();
            return self.lost(LinkError::OtherVerifier(change), ctx);
        }
        self.verifier = Some(verifier);
        let number = self.attempt;
        let listening = self.listen(number, incoming, ctx);
        self.link = Some(Link { number, outgoing, listening });
        self.promised = NO_PROMISE;
        self.last_link_error = None;
        rounds::connected(self.device, number);
        self.happened(Input::Connected, ctx);
    }

    /// The connection, or the attempt to make one, has ended.
    pub(super) fn lost(&mut self, error: LinkError, ctx: &mut Context<Self>) {
        self.hang_up(error, ctx);
        self.happened(Input::Disconnected, ctx);
    }

    /// Ends the connection, or the attempt to make one, without a word to the machine.
    pub(super) fn hang_up(&mut self, error: LinkError, ctx: &mut Context<Self>) {
        self.attempt += 1;
        if let Some(link) = self.link.take() {
            ctx.cancel_future(link.listening);
            link.outgoing.cut();
        }
        rounds::lost(self.device, self.attempt - 1, &error);
        // What was still in the downlink is lost with it.
        self.downlink.clear();
        if error.is_final() {
            self.give_up(AgentError::Link(error.clone()));
        }
        self.last_link_error = Some(error);
    }

    /// Tells everybody who waits that it is in vain.
    pub(super) fn give_up(&mut self, error: AgentError) {
        for waiting in self.wait_until_ready.drain(..) {
            let _ = waiting.send(Err(error.clone()));
        }
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(error.clone()));
        }
        self.fatal = Some(error);
    }

    /// Waits for the next frame of the connection with this number.
    fn listen(&mut self, number: u32, mut incoming: Incoming, ctx: &mut Context<Self>) -> SpawnHandle {
        let next = async move { (incoming.next().await, incoming) };
        ctx.spawn(next.into_actor(self).map(move |(heard, incoming), device, ctx| {
            if device.link.as_ref().is_none_or(|link| link.number != number) {
                return;
            }
            match heard {
                Ok((frame, bytes)) => {
                    let listening = device.listen(number, incoming, ctx);
                    if let Some(link) = &mut device.link {
                        link.listening = listening;
                    }
                    device.heard(frame, bytes, ctx);
                }
                Err(error) => device.lost(error, ctx),
            }
        }))
    }

    fn heard(&mut self, frame: ServerFrame, bytes: usize, ctx: &mut Context<Self>) {
        match frame {
            ServerFrame::Verdict(verdict) if verdict.session == self.machine.session() => {
                self.verdict(*verdict, bytes, ctx);
            }
            ServerFrame::Refused { session, upload, reason, retry_after, price }
                if session == self.machine.session() =>
            {
                if reason.is_final() && self.plan.is_some_and(|plan| plan.upload == upload) {
                    self.failure = Some(AgentError::Refused(reason));
                }
                self.round.refused(upload, reason, retry_after);
                // It goes down like a verdict of one token number.
                let bits = token_bits(self.machine.settings().vocab as usize);
                let (arrives, downlink) = self.receive(upload, Span::ZERO, bits);
                let refusal = Refusal { upload, reason, retry_after, price, downlink };
                self.downlink.push_back((arrives, Input::Refused(refusal)));
                self.wake(ctx);
            }
            // Too late: of a generation that is over.
            ServerFrame::Verdict(_) | ServerFrame::Refused { .. } => {}
            ServerFrame::Goodbye(goodbye) => self.lost(LinkError::Goodbye(goodbye), ctx),
            ServerFrame::Welcome(_) => self.lost(LinkError::Protocol("it welcomes twice"), ctx),
        }
    }

    /// A verdict's first bit has arrived: sends it through the emulated downlink.
    fn verdict(&mut self, frame: VerdictFrame, bytes: usize, ctx: &mut Context<Self>) {
        let resample = matches!(frame.next, Next::Resample(_));
        let Some(next) = self.next_token(&frame) else {
            self.lost(LinkError::Protocol("its verdict does not fit the upload"), ctx);
            return;
        };
        self.round.verdict(&frame, bytes);
        let settings = self.machine.settings();
        let bits = downlink_bits(&settings.method.payload, settings.vocab as usize, resample);
        let (arrives, downlink) = self.receive(frame.upload, frame.cost.pool_time(), bits);
        let verdict = Verdict {
            upload: frame.upload,
            accepted: frame.accepted,
            next,
            more: frame.more,
            cost: frame.cost,
            price: frame.price,
            // The limit on frames lies far below the largest `u32`.
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            downlink,
        };
        self.downlink.push_back((arrives, Input::Verdict(verdict)));
        self.wake(ctx);
    }

    /// A frame's first bit has arrived: when its last one has, and how long that takes.
    fn receive(&mut self, upload: UploadId, pool: Span, bits: u64) -> (Time, Span) {
        let now = self.host();
        self.clock.heard(now);
        let left = self.machine.left_pool(now, upload, pool);
        let (arrives, downlink) = self.machine.receive(left, bits);
        if let Some(journal) = &self.journal {
            journal(self.device, now, DeviceCall::Receive { upload, pool, bits, arrives });
        }
        (arrives, downlink)
    }

    /// What follows the accepted drafts; `None` if the frame asks for a draw from a distribution of another vocabulary.
    fn next_token(&self, frame: &VerdictFrame) -> Option<NextToken> {
        match &frame.next {
            Next::None => Some(NextToken::None),
            Next::Replacement(token) => Some(NextToken::Replacement(*token)),
            Next::Bonus(token) => Some(NextToken::Bonus(*token)),
            Next::Resample(y) => match self.plan.filter(|plan| plan.upload == frame.upload) {
                Some(plan) => {
                    let rejected = plan.committed + u32::from(frame.accepted);
                    let token = self.store.as_ref()?.resample(rejected, plan.rejections, y)?;
                    Some(NextToken::Resampled(token))
                }
                // Of an upload that is no longer under way: the machine drops it, whatever it says.
                None => Some(NextToken::None),
            },
        }
    }

    pub(super) fn upload(&mut self, plan: UploadPlan, ctx: &mut Context<Self>) {
        self.plan = Some(plan);
        let now = self.clock.now();
        let arrives = self.reading(now);
        let patience = plan.deadline.since(now);
        let wanted = plan.wanted.map(|wanted| wanted.since(now));
        let upload = self.store.as_ref().and_then(|store| store.upload(&plan, patience, wanted, arrives));
        let Some(upload) = upload else { return };
        if let Some(bytes) = self.send(&ClientFrame::Upload(Box::new(upload)), ctx) {
            if let Some(store) = &self.store {
                let method = &self.machine.settings().method.name;
                self.round.uploaded(self.device, method, store.prompt_tokens(), &plan, bytes);
            }
            if self.begun_with.is_none() {
                self.begun_with = self.verifier.clone();
            }
            // It promises nothing until it is answered.
            self.promised = NO_PROMISE;
            self.inbox.push_back(Input::Sent { upload: plan.upload, bytes });
        }
    }

    /// Queues a frame for the pool, if there is a connection; one that takes no frames has ended.
    pub(super) fn send(&mut self, frame: &ClientFrame, ctx: &mut Context<Self>) -> Option<u32> {
        match self.link.as_ref()?.outgoing.send(frame) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.hang_up(error, ctx);
                self.inbox.push_back(Input::Disconnected);
                None
            }
        }
    }
}
