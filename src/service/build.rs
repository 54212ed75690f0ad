//! Makes the parts of the service from the settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillq_storage::{Log, SourceId, State};

use super::{Plan, ServiceError};
use crate::config::{self, Settings};
use crate::http::Labels;
use crate::plain::escape_path;
use crate::processor::{
    AppendFile, Epoch, Exec, ExecStream, HttpPost, Input, Named, Paths, Processor, Program, Stdout,
};
use crate::queue::{Configuration, GroupSettings};
use crate::tail::{self, Follows, SourceRecord, TailError, TailHandle};

/// Between SIGTERM and SIGKILL for a command that must end.
const GRACE: Duration = Duration::from_secs(2);
/// Before a command that keeps failing is started again: soon enough that nobody waits for it in an outage.
const RESTART_MAX: Duration = Duration::from_secs(2);

/// The configured groups. A group that only the store has continues with the defaults; a warning names it.
pub(super) fn group_settings(settings: &Settings, log: &Log) -> Vec<GroupSettings> {
    for group in log.state().groups().values() {
        if !settings.groups.iter().any(|configured| configured.name == group.name()) {
            let waits = group.lag_lines(log.state().next_seq());
            tracing::warn!(
                group = group.name(),
                waits,
                "the store has a group that the configuration does not name: its lines are kept; \
                 `spillq group remove` ends that"
            );
        }
    }
    groups_of(settings)
}

fn groups_of(settings: &Settings) -> Vec<GroupSettings> {
    let mut groups = settings.groups.clone();
    for group in &mut groups {
        group.skip_damage = settings.skip_damage;
        // With a rate no batch is more than a second's lines.
        group.batch_lines = group.batch_lines.min(group.rate.unwrap_or(u64::MAX));
    }
    groups
}

/// The settings that the running owner can change to.
pub(super) fn owner_settings(settings: &Settings) -> Configuration {
    Configuration { groups: groups_of(settings), disk: settings.disk, when_full: settings.when_full }
}

pub(super) fn tail_settings(settings: &Settings, plan: &Plan, first_start: bool) -> tail::Settings {
    tail::Settings {
        follows: settings.follow.clone(),
        never: never(settings),
        scan_interval: tail::SCAN_INTERVAL,
        once: plan.once,
        first_start,
    }
}

/// What is never followed: the data dir, and what processors write.
pub(super) fn never(settings: &Settings) -> Vec<PathBuf> {
    let outputs = settings.processors.iter().filter_map(|processor| processor.kind.file());
    std::iter::once(settings.data_dir.as_path()).chain(outputs).map(Path::to_owned).collect()
}

pub(super) fn build(
    processor: &config::Processor,
    epoch: Epoch,
    timeout: Duration,
    paths: &SourcePaths,
) -> Result<Box<dyn Processor>, ServiceError> {
    let in_form = |input| match input {
        config::Input::Lines => Input::Lines,
        config::Input::Ndjson => Input::Ndjson(paths.lookup()),
    };
    let built = match &processor.kind {
        config::Kind::Exec(to) => {
            Ok(boxed(Exec::new(program(to, &processor.group)?, in_form(to.input), epoch)))
        }
        config::Kind::ExecStream(to) => {
            // The pause counts towards the time-out, most of which is for processing the batch.
            let restart_max = RESTART_MAX.min(timeout / 4);
            let program = program(to, &processor.group)?;
            Ok(boxed(ExecStream::new(program, in_form(to.input), epoch, restart_max)))
        }
        config::Kind::Http(to) => HttpPost::new(to, paths.lookup(), epoch).map(boxed),
        #[cfg(feature = "redis")]
        config::Kind::Redis(to) => to.clone().processor(epoch, paths.lookup()),
        #[cfg(not(feature = "redis"))]
        config::Kind::Redis(_) => return Err(left_out("redis")),
        #[cfg(feature = "postgres")]
        config::Kind::Postgres(to) => to.clone().processor(epoch, timeout, paths.lookup()),
        #[cfg(not(feature = "postgres"))]
        config::Kind::Postgres(_) => return Err(left_out("postgres")),
        #[cfg(feature = "nats")]
        config::Kind::Nats(to) => to.clone().processor(epoch, paths.lookup()),
        #[cfg(not(feature = "nats"))]
        config::Kind::Nats(_) => return Err(left_out("nats")),
        #[cfg(feature = "kafka")]
        config::Kind::Kafka(to) => to.clone().processor(epoch, timeout, paths.lookup()),
        #[cfg(not(feature = "kafka"))]
        config::Kind::Kafka(_) => return Err(left_out("kafka")),
        #[cfg(feature = "s3")]
        config::Kind::S3(to) => to.clone().processor(epoch, paths.lookup()),
        #[cfg(not(feature = "s3"))]
        config::Kind::S3(_) => return Err(left_out("s3")),
        config::Kind::Stdout => Stdout::new().map(boxed),
        config::Kind::File(to) => AppendFile::new(to.path.clone(), epoch).map(boxed),
    };
    built.map_err(|error| {
        ServiceError::Start(format!("could not start a processor of {}: {error}", processor.group), None)
    })
}

fn boxed(processor: impl Processor + 'static) -> Box<dyn Processor> {
    Box::new(processor)
}

fn program(to: &config::Command, group: &str) -> Result<Program, ServiceError> {
    let words = to.command.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>();
    let words = words
        .ok_or_else(|| ServiceError::Start(format!("the command of group {group} is not UTF-8"), None))?;
    Ok(Program {
        cwd: Some(to.cwd.clone()),
        env: to.env.clone().into_iter().collect(),
        dump_signal: to.dump_signal,
        ..Program::new(words, PathBuf::from(Exec::OWN_BINARY), GRACE)
    })
}

/// The configuration refuses such a kind before.
#[cfg(not(all(
    feature = "redis",
    feature = "postgres",
    feature = "nats",
    feature = "kafka",
    feature = "s3"
)))]
fn left_out(kind: &str) -> ServiceError {
    ServiceError::Start(format!("this program was built without {kind}"), None)
}

/// The paths of sources and their labels, for processors that want them: from the log at the start, then from the tail.
#[derive(Clone, Default)]
pub(super) struct SourcePaths(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    sources: BTreeMap<SourceId, KnownSource>,
    follows: Option<Follows>,
    tail: Option<Arc<TailHandle>>,
}

struct KnownSource {
    path: String,
    followed_as: PathBuf,
    /// `None` until a line of it is delivered, and after a reload.
    labels: Option<Arc<BTreeMap<String, String>>>,
}

impl SourcePaths {
    /// Those of all lines that the log has, also of forgotten sources.
    pub(super) fn of(state: &State) -> SourcePaths {
        SourcePaths::new(state.sources().iter().map(|(id, source)| (*id, &source.checkpoint[..])))
    }

    fn new<'a>(checkpoints: impl Iterator<Item = (SourceId, &'a [u8])>) -> SourcePaths {
        let source = |bytes: &[u8]| {
            let record = SourceRecord::decode(bytes).ok()?;
            Some(KnownSource::new(record.path(), record.rotated_from().unwrap_or(record.path())))
        };
        let sources = checkpoints.filter_map(|(id, bytes)| Some((id, source(bytes)?))).collect();
        SourcePaths(Arc::new(Mutex::new(Known { sources, ..Known::default() })))
    }

    pub(super) fn refresh_from(&self, tail: Option<Arc<TailHandle>>) {
        self.known().tail = tail;
    }

    /// Sets whose labels lines get from now on.
    pub(super) fn set_follows(&self, follows: Follows) {
        let mut known = self.known();
        known.follows = Some(follows);
        known.sources.values_mut().for_each(|source| source.labels = None);
    }

    pub(super) fn lookup(&self) -> Paths {
        let this = self.clone();
        Arc::new(move |source| {
            let mut known = this.known();
            if !known.sources.contains_key(&source) {
                // A file that appeared since: the tail answers within half a second.
                let tail = known.tail.clone()?;
                for status in &tail.status().sources {
                    let new = || KnownSource::new(&status.path, &status.followed_as);
                    known.sources.entry(status.source).or_insert_with(new);
                }
            }
            let Known { sources, follows, .. } = &mut *known;
            let source = sources.get_mut(&source)?;
            let labels = source.labels.get_or_insert_with(|| {
                let section = follows.as_ref().and_then(|follows| follows.section_of(&source.followed_as));
                Arc::new(section.map(|section| section.labels.clone()).unwrap_or_default())
            });
            Some(Named { path: source.path.clone(), labels: Arc::clone(labels) })
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The labels of a stopped store's sources, as a service with these settings delivers their lines.
///
/// # Errors
/// If the globs of a section are not valid.
pub fn labels_of(state: &State, settings: &Settings) -> Result<Labels, TailError> {
    let paths = SourcePaths::of(state);
    paths.set_follows(Follows::new(settings.follow.clone(), &never(settings))?);
    let lookup = paths.lookup();
    Ok(Arc::new(move |source| lookup(source).map(|named| (*named.labels).clone()).unwrap_or_default()))
}

impl KnownSource {
    fn new(path: &Path, followed_as: &Path) -> KnownSource {
        KnownSource { path: escape_path(path), followed_as: followed_as.to_owned(), labels: None }
    }
}

#[cfg(test)]
mod tests {
    use spillq_storage::{GroupId, StoreId};

    use super::*;
    use crate::config::{Sources, load};
    use crate::supervise::ProcessorName;

    #[test]
    fn a_processor_is_named_alike_in_messages_and_in_verdicts() {
        let mut kinds = vec![
            ("kind = \"exec\"\ncommand = [\"/bin/process\", \"a b\"]", "exec /bin/process a b"),
            ("kind = \"exec-stream\"\ncommand = [\"/bin/process\"]", "exec-stream /bin/process"),
            ("kind = \"http\"\nurl = \"https://host:1/path?key=secret\"", "http https://host:1/path"),
            ("kind = \"stdout\"", "stdout"),
            ("kind = \"file\"\npath = \"/out/lines\"", "file /out/lines"),
        ];
        if cfg!(feature = "redis") {
            kinds.push((
                "kind = \"redis\"\nurl = \"redis://localhost\"\nstream = \"lines\"",
                "redis lines on localhost:6379",
            ));
        }
        if cfg!(feature = "postgres") {
            let kind = "kind = \"postgres\"\nurl = \"postgres://me@localhost/db\"\ntable = \"lines\"";
            kinds.push((kind, "postgres lines on localhost:5432"));
        }
        if cfg!(feature = "nats") {
            let kind = "kind = \"nats\"\nurl = \"nats://a,nats://b:1\"\nstream = \"L\"\nsubject = \"l.a\"";
            kinds.push((kind, "nats l.a on a:4222,b:1"));
        }
        for (kind, name) in kinds {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, format!("data_dir = \"/q\"\n[[processor]]\n{kind}\n")).unwrap();
            let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
            let settings = load(&sources).unwrap().settings;
            let processor = settings.processors.first().unwrap();
            let epoch = Epoch { store: StoreId(7), number: 0, group: GroupId(1) };
            let paths = SourcePaths::new(std::iter::empty());
            let built = build(processor, epoch, Duration::from_secs(30), &paths).unwrap();
            let said = ProcessorName { kind: processor.kind.of(), about: built.about(), program: None };
            assert_eq!((built.name().as_str(), said.to_string().as_str()), (name, name));
        }
    }
}
