//! Why a question gets no answer: a status, a word for programs and a sentence for people.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;
use specfleet_ledger::LedgerError;
use thiserror::Error;

use crate::error::Error as CommandError;

/// A refusal; as JSON `{"error": {"kind", "message"}}`.
#[derive(Debug, Error)]
#[error("{message}")]
pub(super) struct PageRefusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl PageRefusal {
    /// Something in the address makes no sense.
    pub(super) fn bad_request(message: String) -> PageRefusal {
        PageRefusal { status: StatusCode::BAD_REQUEST, kind: "bad-request", message }
    }

    /// There is nothing of this name.
    pub(super) fn not_found(message: String) -> PageRefusal {
        PageRefusal { status: StatusCode::NOT_FOUND, kind: "not-found", message }
    }

    /// This page changes nothing.
    pub(super) fn read_only() -> PageRefusal {
        let message = "the dashboard is read-only: GET and HEAD".to_owned();
        PageRefusal { status: StatusCode::METHOD_NOT_ALLOWED, kind: "read-only", message }
    }

    /// Asked in the name of another host: by a page of another site that made its name point here, or through a proxy.
    pub(super) fn foreign_host(host: &str) -> PageRefusal {
        let message = format!(
            "this dashboard is not reached as {host:?} but as localhost, 127.0.0.1 or [::1], or by a name that \
             --allow-host gives it"
        );
        PageRefusal { status: StatusCode::FORBIDDEN, kind: "foreign-host", message }
    }

    /// Asked by a page of another site.
    pub(super) fn foreign_site() -> PageRefusal {
        let message = "data of this dashboard are for its own pages: open them from there".to_owned();
        PageRefusal { status: StatusCode::FORBIDDEN, kind: "foreign-site", message }
    }

    /// Every place for an event stream is taken.
    pub(super) fn too_many_clients(most: usize) -> PageRefusal {
        let message = format!("{most} pages listen already: close one");
        PageRefusal { status: StatusCode::SERVICE_UNAVAILABLE, kind: "too-many-clients", message }
    }

    /// Too many questions wait for a report already.
    pub(super) fn busy() -> PageRefusal {
        let message = "other reports are being computed: try again in a few seconds".to_owned();
        PageRefusal { status: StatusCode::SERVICE_UNAVAILABLE, kind: "busy", message }
    }

    /// The server is on its way out.
    pub(super) fn stopping() -> PageRefusal {
        let message = "the dashboard is being stopped".to_owned();
        PageRefusal { status: StatusCode::SERVICE_UNAVAILABLE, kind: "stopping", message }
    }

    /// A part of this program stopped.
    pub(super) fn stopped() -> PageRefusal {
        let message = "the computation stopped unexpectedly".to_owned();
        PageRefusal { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "stopped", message }
    }

    /// Whether there is nothing of this name.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// The word for programs.
    #[cfg(test)]
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

impl From<LedgerError> for PageRefusal {
    fn from(error: LedgerError) -> PageRefusal {
        let (status, kind) = match &error {
            LedgerError::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
            LedgerError::StillRunning(_) => (StatusCode::CONFLICT, "still-running"),
            LedgerError::StoreBusy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            LedgerError::NewerSchema { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "newer-schema"),
            LedgerError::OlderSchema { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "older-schema"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "unreadable"),
        };
        PageRefusal { status, kind, message: error.to_string() }
    }
}

impl From<CommandError> for PageRefusal {
    fn from(error: CommandError) -> PageRefusal {
        match error {
            CommandError::Ledger(error) => error.into(),
            error => {
                PageRefusal { status: StatusCode::UNPROCESSABLE_ENTITY, kind: "unreadable", message: error.to_string() }
            }
        }
    }
}

impl ResponseError for PageRefusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => response.insert_header((ALLOW, "GET, HEAD")),
            StatusCode::SERVICE_UNAVAILABLE => response.insert_header((RETRY_AFTER, "2")),
            _ => &mut response,
        };
        response.json(json!({ "error": { "kind": self.kind, "message": self.message } }))
    }
}
