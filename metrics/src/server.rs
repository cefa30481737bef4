//! The HTTP server: `GET /metrics` and `GET /healthz`, nothing else, and only in the name of a host that is this server's. It
//! runs on a thread of its own, bounded in connections, time, input and what waits for its readers, and ends when it is dropped.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::header::HOST;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, web};
use specfleet_web::{AllowedHost, HostRule, Limits};
use thiserror::Error;

use crate::registry::Registry;

/// The port that the documents use: what OpenTelemetry's exporters for Prometheus listen on.
pub const PORT: u16 = 9464;

/// The content type of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a connection may take over its request, stay idle between two, and leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    workers: 1,
    connections: 128,
    request: PATIENCE,
    keep_alive: PATIENCE,
    standstill: PATIENCE,
    grace_seconds: 1,
};

/// Why the metrics are not served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another process has the port.
    #[error("--metrics {address}: the port is in use by another process; take another one (0 takes a free one)")]
    InUse { address: SocketAddr },
    /// The address cannot be listened on for another reason.
    #[error("--metrics {address}: cannot listen there: {source}")]
    Listen {
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system gave no thread.
    #[error("--metrics: cannot start the server: {0}")]
    Start(io::Error),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes the port and answers there from now on.
    pub fn start(address: SocketAddr, registry: Registry) -> Result<Server, ServeError> {
        Server::start_for(address, registry, Vec::new())
    }

    /// The same in the name of further hosts, such as that of a proxy in front of it.
    pub fn start_for(
        address: SocketAddr,
        registry: Registry,
        allowed_hosts: Vec<AllowedHost>,
    ) -> Result<Server, ServeError> {
        let listen = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse { address },
            _ => ServeError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let hosts = HostRule::new(bound.ip().is_loopback(), allowed_hosts);
        let (tell, told) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || actix_web::rt::System::new().block_on(serve(listener, registry, hosts, tell)))
            .map_err(ServeError::Start)?;
        let stopped = || ServeError::Start(io::Error::other("its thread has stopped"));
        let handle = told.recv().map_err(|_| stopped())?.map_err(ServeError::Start)?;
        Ok(Server { address: bound, handle, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The order goes out with the call; the thread ends when it is carried out, scrapers or not.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            // A panic of the server has said so itself, and costs the run nothing.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    registry: Registry,
    hosts: HostRule,
    tell: mpsc::SyncSender<io::Result<ServerHandle>>,
) {
    let app = move || {
        App::new()
            .app_data(web::Data::new(registry.clone()))
            .app_data(web::Data::new(hosts.clone()))
            .wrap(from_fn(guard))
            .service(web::resource("/metrics").route(web::get().to(metrics)))
            .service(web::resource("/healthz").route(web::get().to(|| async { HttpResponse::Ok().body("ok\n") })))
    };
    match specfleet_web::serve(listener, LIMITS, |_, _| {}, app) {
        Ok(server) => {
            // The receiver waits for exactly this.
            let _ = tell.send(Ok(server.handle()));
            // Its end is the end of the thread; nobody is left to hear why.
            let _ = server.await;
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    }
}

/// Refuses a question in the name of another host: a page of another site could have its own name point to this machine and
/// read the figures through the browser of somebody who looks at it.
async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let (hosts, host) = (request.app_data::<web::Data<HostRule>>(), request.headers().get(HOST));
    if let (Some(hosts), Some(host)) = (hosts, host) {
        let host = String::from_utf8_lossy(host.as_bytes());
        if !hosts.admits(&host, request.peer_addr().map(|peer| peer.ip())) {
            let why = format!("these metrics are not read as {host:?} but as localhost, or by an address\n");
            return Ok(request.into_response(HttpResponse::Forbidden().body(why)));
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

async fn metrics(registry: web::Data<Registry>) -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body(registry.text())
}
