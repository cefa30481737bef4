//! What the dashboard and the server of metrics share: whose questions they answer ([`HostRule`]), and connections that hold
//! up nobody else ([`serve`]).
//!
//! A server that somebody leaves open beside a run must stay readable whatever else connects to it. Actix bounds how long a
//! question may take to arrive and how many connections there are. It does not bound how long an answer waits for somebody
//! who does not read it, and keeps as much of the answer in memory as its body hands over at once. Here a connection whose
//! answer makes no progress is cut, bodies are handed over in slices, and where all places are taken the one that has stood
//! still longest makes room.

mod crowd;
mod host;
mod serve;
mod slices;
mod transport;

pub use host::{AllowedHost, AllowedHostError, HostRule};
pub use serve::{ConnectHook, Limits, serve};
