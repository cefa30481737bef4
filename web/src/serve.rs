//! A server of an Actix application within limits.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::{HttpService, Request, Response};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Extensions};
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

use crate::crowd::Crowd;
use crate::slices::Slices;
use crate::transport::Guarded;

/// Threads of each worker for questions that block. The others wait for one.
const BLOCKING_THREADS: usize = 8;

/// Bytes of an answer that the system keeps for a connection. By itself it keeps some megabytes.
const SEND_BUFFER: usize = 256 << 10;

/// How long a connection that is being closed may take over it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub workers: usize,
    /// Most connections at a time, over all workers. Every worker lets so many more wait for a place.
    pub connections: usize,
    /// How long a question may take to arrive.
    pub request: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long an answer may wait for its reader to take some of it.
    pub standstill: Duration,
    /// Seconds that open answers get when the server stops.
    pub grace_seconds: u64,
}

/// Called with the stream of each connection, to leave something beside it for its requests.
pub type ConnectHook = fn(&dyn Any, &mut Extensions);

/// Starts to answer on a listener; `app` makes the application of each thread. Signals are not listened to: they belong to
/// the command.
///
/// # Errors
/// Where the listener cannot be used.
pub fn serve<F, A, S, B>(listener: TcpListener, limits: Limits, on_connect: ConnectHook, app: F) -> io::Result<Server>
where
    F: Fn() -> A + Send + Clone + 'static,
    A: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    // Connections have it from their listener.
    SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;
    let crowd = Crowd::new(limits.connections);
    let builder = Server::build()
        .workers(limits.workers)
        .max_concurrent_connections(2 * limits.connections)
        .worker_max_blocking_threads(BLOCKING_THREADS)
        .shutdown_timeout(limits.grace_seconds)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let service = move || {
        let (crowd, stopping) = (crowd.clone(), stopping.clone());
        let app = app().into_factory().map_err(|error| error.into().error_response());
        let app = app.map(|response| response.into().map_body(|_, body| Slices::of(body)));
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(limits.keep_alive)
            .client_request_timeout(limits.request)
            .client_disconnect_timeout(FAREWELL)
            .local_addr(address)
            .on_connect_ext(move |io: &Guarded<TcpStream>, beside: &mut Extensions| on_connect(io.get_ref(), beside))
            .h1(map_config(app, |()| AppConfig::default()));
        let enter = fn_service(move |io: TcpStream| {
            let crowd = crowd.clone();
            async move {
                let peer = io.peer_addr().ok();
                Ok((Guarded::new(io, crowd.enter().await, limits.standstill), peer))
            }
        });
        enter.and_then(http)
    };
    Ok(builder.listen("web", listener, service)?.run())
}
