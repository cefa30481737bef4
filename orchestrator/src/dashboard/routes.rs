//! What the server answers: pages, their files, data as JSON, events. It refuses whatever is no question.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, Path, Query};
use actix_web::{App, HttpRequest, HttpResponse, Responder, ResponseError};
use serde::Deserialize;
use serde::Serialize;

use super::State;
use super::compare::compare;
use super::events::Connection;
use super::name::RunName;
use super::refusal::Refusal;
use super::runs::Filter;
use crate::page::{assets, policy, render};

/// The whole of it.
pub(super) fn app(
    state: Data<State>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    // `to` answers any method; the guard in front lets through the two that only read.
    App::new()
        .app_data(state)
        .app_data(web::QueryConfig::default().error_handler(|error, _| Refusal::bad_request(error.to_string()).into()))
        .app_data(web::PathConfig::default().error_handler(|error, _| Refusal::bad_request(error.to_string()).into()))
        .wrap(from_fn(guard))
        .service(web::resource("/").to(shell))
        .service(web::resource("/compare").to(shell))
        .service(web::resource("/runs/{run}").to(shell))
        .service(web::resource("/assets/{name:.*}").to(asset))
        .service(web::resource("/api/runs").to(list))
        .service(web::resource("/api/runs/{run}").to(about))
        .service(web::resource("/api/runs/{run}/report").to(report))
        .service(web::resource("/api/runs/{run}/report.html").to(file))
        .service(web::resource("/api/compare").to(compared))
        .service(web::resource("/events").to(events))
        .default_service(web::to(nothing))
}

/// Stands before every answer: refuses what would change something or comes from a page of another site, and says what the
/// browser may do with the answer.
async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let loopback = request.app_data::<Data<State>>().is_none_or(|state| state.loopback);
    let refused = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Some(Refusal::read_only())
    } else if loopback && !request.headers().get(HOST).is_none_or(|host| host.to_str().is_ok_and(names_this_machine)) {
        Some(Refusal::foreign_host())
    } else {
        None
    };
    let mut response = match refused {
        Some(refusal) => request.error_response(refusal).map_into_boxed_body(),
        None => next.call(request).await?.map_into_boxed_body(),
    };
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy::of_dashboard()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether a `Host` header is this machine by a name that no other site can have. Otherwise a page from elsewhere could have its
/// own name point to the loopback and read what stands here.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The frame of a page; its scripts ask for the rest.
async fn shell() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(assets::SHELL)
}

async fn asset(name: Path<String>) -> Result<HttpResponse, Refusal> {
    let asset = assets::served().find(|asset| asset.name == name.as_str());
    let asset = asset.ok_or_else(|| Refusal::not_found(format!("no file {:?}", name.as_str())))?;
    Ok(HttpResponse::Ok().content_type(asset.media_type()).body(asset.text))
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    Refusal::not_found(format!("nothing at {:?}", request.path())).error_response()
}

/// Runs a question about files where it may block.
async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    web::block(question).await.map_err(|_| Refusal::stopped())?
}

fn json(content: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(content)
}

async fn list(state: Data<State>, filter: Query<Filter>) -> Result<HttpResponse, Refusal> {
    let runs = state.runs.clone();
    Ok(json(&blocking(move || runs.filtered(&filter)).await?))
}

async fn about(state: Data<State>, run: Path<String>) -> Result<HttpResponse, Refusal> {
    let (run, runs) = (RunName::parse(&run)?, state.runs.clone());
    Ok(json(&blocking(move || runs.about(&run)).await?))
}

async fn report(state: Data<State>, run: Path<String>) -> Result<HttpResponse, Refusal> {
    let run = RunName::parse(&run)?;
    let report = state.reports.get(&run).await.map_err(|refusal| state.runs.explain(&run, refusal))?;
    Ok(json(&*report))
}

/// The report as a file of its own.
async fn file(state: Data<State>, run: Path<String>) -> Result<HttpResponse, Refusal> {
    let run = RunName::parse(&run)?;
    let report = state.reports.get(&run).await.map_err(|refusal| state.runs.explain(&run, refusal))?;
    let disposition = format!("attachment; filename=\"{}.html\"", run.as_str());
    let page = blocking(move || Ok(render(std::slice::from_ref(&*report)))).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_DISPOSITION, disposition))
        .body(page))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Two {
    a: String,
    b: String,
}

async fn compared(state: Data<State>, two: Query<Two>) -> Result<HttpResponse, Refusal> {
    let (a, b) = (RunName::parse(&two.a)?, RunName::parse(&two.b)?);
    compare(&state, &a, &b).await
}

async fn events(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream; charset=utf-8");
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let connection = request.conn_data::<Connection>().cloned();
    Ok(response.body(state.hub.subscribe(connection)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_this_machine() {
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(names_this_machine(good), "{good}");
        }
        for bad in
            ["", "example.org", "localhost.example.org:8080", "10.0.0.1:8080", "127.0.0.1.example.org", "[::2]:80"]
        {
            assert!(!names_this_machine(bad), "{bad}");
        }
    }
}
