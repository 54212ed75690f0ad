//! The server: status, lines and administration of a running service.
//!
//! Requests are bounded in size, and answers in what they may contain and in time, by [`REQUEST_WAIT`]. `listeners` decides who
//! may ask, and bounds the number of clients.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use spillq_storage::{ReadError, Reader, Seq};
use tokio::sync::Mutex;

use super::consumers::{self, Peer, consumers_of};
use super::doctor::DoctorJson;
use super::listeners::Addresses;
use super::outside::outside;
use super::programs::Programs;
use super::refused::Refused;
use super::reload::{ConfigHandle, ReloadJson};
use super::socket::{bind, serve_made_again};
use super::wire::{AdminJson, AnswerJson, AnsweredBy, Labels, LineJson, SourceNames, StatusJson};
use crate::consumers::Coordinator;
use crate::metrics::{self, Facts, Process};
use crate::queue::{Admin, Answer, Closed, Command, Handle, Replays, Status, Window, now_ms, wall_ms};
use crate::supervise::{Outside, Report, Supervision};
use crate::tail::{Snapshot, TailHandle};

/// The largest request: a list of seqs.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The most lines in one answer.
const LINES_MAX: u64 = 1_000;
/// An answer ends early after this many bytes of lines.
const LINES_BYTES_MAX: usize = 4 << 20;
/// How long a request may take.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// What answers are made from.
#[derive(Clone)]
pub struct Api {
    handle: Handle,
    window: Arc<Window>,
    tail: Option<Arc<TailHandle>>,
    supervision: Supervision,
    data_dir: Arc<Path>,
    config: Option<ConfigHandle>,
    pub(super) replays: Replays,
    coordinator: Option<Arc<Coordinator>>,
    programs: Programs,
    /// Made at the first use, and shared: requests for lines are rare.
    reader: Arc<Mutex<Option<Reader>>>,
}

/// The state that one answer shows.
struct Looked {
    status: Status,
    outside: Outside,
    snapshot: Option<Arc<Snapshot>>,
    report: Report,
}

impl Api {
    /// For the owner, and the tail if one runs.
    #[must_use]
    pub fn new(
        handle: Handle,
        window: Arc<Window>,
        tail: Option<Arc<TailHandle>>,
        supervision: Supervision,
        data_dir: &Path,
    ) -> Api {
        Api {
            handle,
            window,
            tail,
            supervision,
            data_dir: Arc::from(data_dir),
            config: None,
            replays: Replays::default(),
            coordinator: None,
            programs: Programs::default(),
            reader: Arc::default(),
        }
    }

    /// For a service that can reload its configuration.
    #[must_use]
    pub fn with_config(self, config: Option<ConfigHandle>) -> Api {
        Api { config, ..self }
    }

    /// Where seeks go that deliver lines again.
    #[must_use]
    pub fn with_replays(self, replays: Replays) -> Api {
        Api { replays, ..self }
    }

    /// Where consumers lease lines.
    #[must_use]
    pub fn with_coordinator(self, coordinator: Arc<Coordinator>) -> Api {
        Api { coordinator: Some(coordinator), ..self }
    }

    /// Collects the current state, and judges it.
    async fn look(&self) -> Result<Looked, Closed> {
        let status = self.handle.ask(Command::Status).await?;
        let (tail, data_dir) = (self.tail.clone(), Arc::clone(&self.data_dir));
        // This waits for the tail, briefly: not on a thread of the runtime.
        let looked = tokio::task::spawn_blocking(move || {
            let (outside, snapshot) = outside(&data_dir, tail.as_deref(), &status);
            (status, outside, snapshot)
        });
        let (status, outside, snapshot) = looked.await.map_err(|_| Closed)?;
        let programs_missing = self.programs.missing(self.supervision.programs()).await;
        let outside = Outside { programs_missing, ..outside };
        let report = self.supervision.look(&status, &outside, now_ms());
        Ok(Looked { status, outside, snapshot, report })
    }

    /// The current verdicts, as `doctor --json` prints them.
    ///
    /// # Errors
    /// [`Closed`] if the owner has ended.
    pub async fn doctor(&self) -> Result<DoctorJson, Closed> {
        let Looked { report, .. } = self.look().await?;
        let mut doctor = DoctorJson::new(AnsweredBy::Service, &report);
        if let Some(config) = &self.config {
            doctor.add(&[], config.current().notes());
        }
        Ok(doctor)
    }

    /// The metrics, for Prometheus.
    ///
    /// # Errors
    /// [`Closed`] if the owner has ended.
    pub async fn metrics(&self) -> Result<String, Closed> {
        let Looked { status, outside, snapshot, report } = self.look().await?;
        let ages = self.ages(&status).await?;
        let process = tokio::task::spawn_blocking(Process::of_self).await.map_err(|_| Closed)?;
        let (limit_bytes, min_free_bytes) = self.supervision.disk_limits();
        Ok(metrics::render(&Facts {
            status: &status,
            tail: snapshot.as_deref(),
            tail_busy_ms: outside.tail_busy_ms,
            ages: &ages,
            report: &report,
            limit_bytes,
            min_free_bytes,
            free_bytes: outside.free_bytes,
            process: &process,
            consumers: &self.supervision.consumers(),
            bodies_bytes: self.coordinator.as_ref().map_or((0, 0), |coordinator| coordinator.bodies_bytes()),
        }))
    }

    /// The status, as `status --json` prints it.
    ///
    /// # Errors
    /// [`Closed`] if the owner has ended.
    pub async fn status(&self) -> Result<StatusJson, Closed> {
        let Looked { status, snapshot, report, .. } = self.look().await?;
        let ages = self.ages(&status).await?;
        let config = self.config.as_ref().map(ConfigHandle::current);
        let (limit_bytes, _) = self.supervision.disk_limits();
        let mut json = StatusJson::live(&status, snapshot.as_deref(), &ages, &report, limit_bytes);
        let mut seen = self.supervision.consumers();
        for group in &mut json.groups {
            let seen = seen.remove(&group.group).unwrap_or_default();
            (group.consumers, group.held) = consumers_of(seen, now_ms());
        }
        Ok(StatusJson { config, ..json })
    }

    /// How long the oldest line of each group has been waiting, in seconds.
    async fn ages(&self, status: &Status) -> Result<BTreeMap<String, f64>, Closed> {
        let mut ages = BTreeMap::new();
        for group in &status.groups {
            let Some(oldest) = group.oldest else { continue };
            if let Ok(Ok(appended_ms)) = self.read(oldest, |block| block.append_time_ms()).await {
                ages.insert(group.name.clone(), wall_ms().saturating_sub(appended_ms) as f64 / 1e3);
            }
        }
        Ok(ages)
    }

    async fn read<T: Send + 'static>(
        &self,
        seq: Seq,
        take: impl FnOnce(&spillq_storage::Block) -> T + Send + 'static,
    ) -> Result<Result<T, ReadError>, Closed> {
        if let Some(block) = self.window.get(seq) {
            return Ok(Ok(take(&block)));
        }
        let mut slot = self.reader.lock().await;
        let mut reader = match slot.take() {
            Some(reader) => reader,
            None => self.handle.ask(Command::Reader).await?,
        };
        let read = tokio::task::spawn_blocking(move || {
            let block = reader.block(seq);
            (reader, block.map(|block| take(&block)))
        });
        let (reader, block) = read.await.map_err(|_| Closed)?;
        *slot = Some(reader);
        Ok(block)
    }

    pub(super) async fn administer(&self, admin: Admin) -> Result<Answer, Refused> {
        let changes_groups = matches!(admin, Admin::AddGroup { .. } | Admin::RemoveGroup { .. });
        let answer = self.handle.ask(|reply| Command::Admin(admin, reply)).await?;
        if let Some(coordinator) = self.coordinator.as_ref().filter(|_| changes_groups) {
            coordinator.groups_changed().await;
        }
        answer.map_err(|refusal| Refused::new(StatusCode::CONFLICT, refusal.to_string()))
    }

    fn names(&self, status: &Status) -> SourceNames {
        let labels = self
            .coordinator
            .clone()
            .map(|coordinator| -> Labels { Arc::new(move |source| coordinator.labels(source)) });
        SourceNames::of_status(status).with_labels(labels)
    }

    async fn lines(&self, from: u64, limit: u64) -> Result<Vec<LineJson>, Refused> {
        let status = self.handle.ask(Command::Status).await?;
        let names = Arc::new(self.names(&status));
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let mut seq = Seq(from);
        while (lines.len() as u64) < limit.min(LINES_MAX) && seq < status.next_seq && bytes < LINES_BYTES_MAX
        {
            let (names, start, room) = (Arc::clone(&names), seq, limit.min(LINES_MAX) as usize - lines.len());
            let some = self.read(seq, move |block| {
                let wanted = block.lines().filter(|line| line.seq >= start).take(room);
                wanted.map(|line| (line.bytes.len(), LineJson::new(&line, &names, block))).collect::<Vec<_>>()
            });
            let some = match some.await? {
                Ok(some) => some,
                Err(error) => match error.next(seq, &status.losses) {
                    Some(next) => {
                        seq = next;
                        continue;
                    }
                    None => return Err(Refused::new(StatusCode::CONFLICT, error.to_string())),
                },
            };
            bytes += some.iter().map(|(bytes, _)| bytes).sum::<usize>();
            lines.extend(some.into_iter().map(|(_, line)| line));
            seq = lines.last().map_or(seq.next(), |line| Seq(line.seq + 1));
        }
        Ok(lines)
    }
}

#[derive(Deserialize)]
struct LinesQuery {
    from: u64,
    limit: u64,
}

async fn status(State(api): State<Api>) -> Result<Json<StatusJson>, Refused> {
    Ok(Json(api.status().await?))
}

async fn doctor(State(api): State<Api>) -> Result<Json<DoctorJson>, Refused> {
    Ok(Json(api.doctor().await?))
}

async fn metrics_text(State(api): State<Api>) -> Result<impl IntoResponse, Refused> {
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], api.metrics().await?))
}

async fn health(State(api): State<Api>) -> Result<&'static str, Refused> {
    api.handle.ask(Command::Status).await?;
    Ok("ok\n")
}

async fn lines(
    State(api): State<Api>,
    Query(query): Query<LinesQuery>,
) -> Result<Json<Vec<LineJson>>, Refused> {
    Ok(Json(api.lines(query.from, query.limit).await?))
}

#[derive(Deserialize)]
struct LineQuery {
    seq: u64,
}

/// One line, wherever it is stored; dead letters outlive their segment.
async fn line(
    State(api): State<Api>,
    Query(query): Query<LineQuery>,
) -> Result<Json<Option<LineJson>>, Refused> {
    let names = api.names(&api.handle.ask(Command::Status).await?);
    let found = api.read(Seq(query.seq), move |block| {
        let line = block.lines().find(|line| line.seq == Seq(query.seq));
        line.map(|line| LineJson::new(&line, &names, block))
    });
    Ok(Json(found.await?.map_err(|error| Refused::new(StatusCode::CONFLICT, error.to_string()))?))
}

async fn admin(State(api): State<Api>, Json(request): Json<AdminJson>) -> Result<Json<AnswerJson>, Refused> {
    let answer = match request {
        AdminJson::Seek { group, to, discard_lines, given } => {
            api.seek(group, to.into(), discard_lines, given).await?
        }
        request => api.administer(request.into()).await?,
    };
    Ok(Json(answer.into()))
}

async fn reload(State(api): State<Api>) -> Result<Json<ReloadJson>, Refused> {
    let none =
        || Refused::new(StatusCode::CONFLICT, "this service cannot reload its configuration".to_owned());
    Ok(Json(api.config.ok_or_else(none)?.reload().await.ok_or(Closed)?))
}

/// Binds the socket in the data dir, which the caller has locked: an existing one belongs to a dead process. The returned
/// future serves the socket and `addresses`. A socket that is removed is created again.
///
/// # Errors
/// If the socket cannot be bound.
pub fn serve(
    data_dir: &Path,
    addresses: Addresses,
    api: Api,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let listener = bind(data_dir)?;
    let (all, reading) = routers(&api);
    let data_dir = data_dir.to_owned();
    Ok(async move {
        tokio::join!(serve_made_again(&data_dir, listener, all), addresses.serve(reading));
    })
}

/// The routes of the socket, and those of an address.
pub(super) fn routers(api: &Api) -> (Router, Router) {
    let bounded = |request: axum::extract::Request, next: axum::middleware::Next| async move {
        match tokio::time::timeout(REQUEST_WAIT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refused::new(StatusCode::GATEWAY_TIMEOUT, "the request took too long".to_owned())
                .into_response(),
        }
    };
    // Open to everyone who can reach an address: nothing here changes anything, or shows lines.
    let reading = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/doctor", get(doctor));
    let all = reading
        .clone()
        .route("/v1/lines", get(lines))
        .route("/v1/line", get(line))
        .route("/v1/admin", post(admin))
        .route("/v1/reload", post(reload))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    let all = all.with_state(api.clone());
    let all = match &api.coordinator {
        Some(coordinator) => {
            all.merge(consumers::router(Arc::clone(coordinator)).layer(Extension(Peer::Owner)))
        }
        None => all,
    };
    let bounded = axum::middleware::from_fn(bounded);
    (all.layer(bounded.clone()), reading.layer(bounded).with_state(api.clone()))
}
