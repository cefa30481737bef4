//! What the server answers: pages, their files, data as JSON, events. It refuses whatever is no question.

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

use super::DashboardState;
use super::compare::compare;
use super::events::OpenPage;
use super::name::RunName;
use super::refusal::PageRefusal;
use super::runs::Filter;
use crate::page::{assets, policy, render};

/// The whole of it.
pub(super) fn app(
    state: Data<DashboardState>,
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
        .app_data(
            web::QueryConfig::default().error_handler(|error, _| PageRefusal::bad_request(error.to_string()).into()),
        )
        .app_data(
            web::PathConfig::default().error_handler(|error, _| PageRefusal::bad_request(error.to_string()).into()),
        )
        .wrap(from_fn(guard))
        .service(web::resource("/").to(shell))
        .service(web::resource("/compare").to(shell))
        .service(web::resource("/runs/{run}").to(nested_shell))
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
    let refused = if matches!(*request.method(), Method::GET | Method::HEAD) {
        foreign_host(&request).or_else(|| foreign_site(&request))
    } else {
        Some(PageRefusal::read_only())
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

/// The refusal of a request in the name of a host that is none of ours.
fn foreign_host(request: &ServiceRequest) -> Option<PageRefusal> {
    let state = request.app_data::<Data<DashboardState>>()?;
    let host = String::from_utf8_lossy(request.headers().get(HOST)?.as_bytes());
    let peer = request.peer_addr().map(|peer| peer.ip());
    (!state.hosts.admits(&host, peer)).then(|| PageRefusal::foreign_host(&host))
}

/// The refusal of a question for data that a page of another site asks through somebody's browser: it could not read the
/// answer, but it could have this program work for it. Frames of pages and their files cost nothing.
fn foreign_site(request: &ServiceRequest) -> Option<PageRefusal> {
    let asks_for_data = request.path().starts_with("/api/") || request.path() == "/events";
    let site = request.headers().get("sec-fetch-site")?;
    let is_foreign = !matches!(site.as_bytes(), b"same-origin" | b"none");
    (asks_for_data && is_foreign).then(PageRefusal::foreign_site)
}

/// The frame of a page; its scripts ask for the rest.
async fn shell() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(assets::shell("./"))
}

/// The same for a page one level further down.
async fn nested_shell() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(assets::shell("../"))
}

async fn asset(name: Path<String>) -> Result<HttpResponse, PageRefusal> {
    let asset = assets::served().find(|asset| asset.name == name.as_str());
    let asset = asset.ok_or_else(|| PageRefusal::not_found(format!("no file {:?}", name.as_str())))?;
    Ok(HttpResponse::Ok().content_type(asset.media_type()).body(asset.text))
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    PageRefusal::not_found(format!("nothing at {:?}", request.path())).error_response()
}

/// Runs a question about files where it may block.
async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, PageRefusal> + Send + 'static,
) -> Result<T, PageRefusal> {
    web::block(question).await.map_err(|_| PageRefusal::stopped())?
}

fn json(content: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(content)
}

async fn list(state: Data<DashboardState>, filter: Query<Filter>) -> Result<HttpResponse, PageRefusal> {
    let runs = state.runs.clone();
    Ok(json(&blocking(move || runs.filtered(&filter)).await?))
}

async fn about(state: Data<DashboardState>, run: Path<String>) -> Result<HttpResponse, PageRefusal> {
    let (run, runs) = (RunName::parse(&run)?, state.runs.clone());
    Ok(json(&blocking(move || runs.about(&run)).await?))
}

async fn report(state: Data<DashboardState>, run: Path<String>) -> Result<HttpResponse, PageRefusal> {
    let run = RunName::parse(&run)?;
    let report = state.reports.get(&run).await.map_err(|refusal| state.runs.explain(&run, refusal))?;
    Ok(json(&*report))
}

/// The report as a file of its own.
async fn file(state: Data<DashboardState>, run: Path<String>) -> Result<HttpResponse, PageRefusal> {
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

async fn compared(state: Data<DashboardState>, two: Query<Two>) -> Result<HttpResponse, PageRefusal> {
    let (a, b) = (RunName::parse(&two.a)?, RunName::parse(&two.b)?);
    compare(&state, &a, &b).await
}

async fn events(state: Data<DashboardState>, request: HttpRequest) -> Result<HttpResponse, PageRefusal> {
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream; charset=utf-8");
    // A proxy that collects an answer before it passes it on, as nginx does by itself, would hold back every event.
    response.insert_header(("x-accel-buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let connection = request.conn_data::<OpenPage>().cloned();
    Ok(response.body(state.hub.subscribe(connection)?))
}
