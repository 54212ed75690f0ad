//! `spillq backup`: copies the files of a snapshot, while the service runs or of a stopped store.
//!
//! This process makes the copy, so that no path is sent to the service. The copy gets its final name when it is complete
//! and synced. Until then it has a temporary name in the same folder, which a kill leaves behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spillq_storage::backup::{BackupFile, Snapshot};

use super::output::say;
use super::store::Store;
use super::{Exit, Failure, store, store_dir};
use crate::cli::BackupArgs;
use crate::http::{AdminJson, AnswerJson, Client};
use crate::plain::{counted, escape_path, size};

/// Time between two renewals of the hold, well below the time after which the service ends it.
const RENEW: Duration = Duration::from_secs(10);

/// Makes a backup.
///
/// # Errors
/// When the store cannot be read, or the copy cannot be written.
pub fn run(args: &BackupArgs) -> Result<Exit, Failure> {
    let data_dir = store_dir(&args.store)?;
    if args.to.symlink_metadata().is_ok() {
        return Err(Failure::could_not_run(format!("{} exists already", args.to.display()))
            .hint("a backup never replaces anything; name a path that does not exist"));
    }
    let (snapshot, bytes) = match Store::of(&data_dir)? {
        Store::Service(service) => {
            let hold = Hold::take(&service)?;
            let copied = copy(hold.snapshot.files(&data_dir, None), &args.to, || hold.renew());
            hold.let_go();
            (hold.snapshot, copied?)
        }
        Store::Disk(_, view, _) => {
            let snapshot = view.snapshot();
            let bytes = copy(snapshot.files(&data_dir, Some(&view)), &args.to, || Ok(()))?;
            (snapshot, bytes)
        }
    };
    let (lines, bytes) = (counted(snapshot.lines(), "line"), size(bytes));
    say(format!("{lines} ({bytes}) copied to {}", escape_path(&args.to)))
}

/// Keeps the service from removing files of the snapshot.
struct Hold<'a> {
    service: &'a Client,
    token: u64,
    snapshot: Snapshot,
}

impl Hold<'_> {
    fn take(service: &Client) -> Result<Hold<'_>, Failure> {
        let answer: AnswerJson = service.post("/v1/admin", &AdminJson::Hold { token: None })?;
        let manifest = answer.manifest.and_then(|manifest| STANDARD.decode(manifest).ok());
        let (Some(token), Some(manifest)) = (answer.hold, manifest) else {
            return Err(Failure::could_not_run("the service answered without a snapshot"));
        };
        Ok(Hold { service, token, snapshot: Snapshot::decode(&manifest).map_err(store::failure)? })
    }

    fn renew(&self) -> io::Result<()> {
        let request = AdminJson::Hold { token: Some(self.token) };
        self.service.post::<AnswerJson>("/v1/admin", &request).map(drop).map_err(io::Error::other)
    }

    fn let_go(&self) {
        // Without this, the service resumes by itself after a minute.
        if let Err(error) =
            self.service.post::<AnswerJson>("/v1/admin", &AdminJson::LetGo { token: self.token })
        {
            tracing::warn!(%error, "cannot report the end of the backup to the service, which removes segments again after a minute");
        }
    }
}

fn copy(
    files: impl Iterator<Item = Result<BackupFile, spillq_storage::Error>>,
    to: &Path,
    renew: impl Fn() -> io::Result<()>,
) -> Result<u64, Failure> {
    let cannot = |path: &Path, error: io::Error| {
        Failure::could_not_run(format!("cannot write the backup {}", path.display())).because(error)
    };
    let mut target = Target::beside(to).map_err(|error| cannot(to, error))?;
    let (mut total, mut renewed) = (0, Instant::now());
    for file in files {
        let file = file.map_err(store::failure)?;
        let mut content = Renewing { content: file.content, renew: &renew, renewed: &mut renewed };
        target
            .add(&file.name, file.bytes, &mut content)
            .map_err(|error| cannot(Path::new(&file.name), error))?;
        total += file.bytes;
    }
    target.finish(to).map_err(|error| cannot(to, error))?;
    Ok(total)
}

/// Renews the hold while a file is copied.
struct Renewing<'a, F> {
    content: Box<dyn Read>,
    renew: &'a F,
    renewed: &'a mut Instant,
}

impl<F: Fn() -> io::Result<()>> Read for Renewing<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.renewed.elapsed() >= RENEW {
            (self.renew)()?;
            *self.renewed = Instant::now();
        }
        self.content.read(buffer)
    }
}

/// The copy under its temporary name.
enum Target {
    Folder(tempfile::TempDir),
    Tar(tempfile::TempPath, Box<tar::Builder<BufWriter<File>>>),
}

impl Target {
    fn beside(to: &Path) -> io::Result<Target> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".spillq-backup-");
        if to.extension().is_some_and(|extension| extension == "tar") {
            let (file, path) = builder.tempfile_in(parent(to))?.into_parts();
            return Ok(Target::Tar(path, Box::new(tar::Builder::new(BufWriter::new(file)))));
        }
        Ok(Target::Folder(builder.tempdir_in(parent(to))?))
    }

    fn add(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        match self {
            Target::Folder(folder) => {
                let path = folder.path().join(name);
                if let Some(parent) = path.parent() {
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                }
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                io::copy(content, &mut file)?;
                file.sync_all()
            }
            Target::Tar(_, tar) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes);
                header.set_mode(0o600);
                tar.append_data(&mut header, name, content)
            }
        }
    }

    fn finish(self, to: &Path) -> io::Result<()> {
        match self {
            Target::Folder(folder) => {
                for entry in fs::read_dir(folder.path())? {
                    let path = entry?.path();
                    if path.is_dir() {
                        File::open(path)?.sync_all()?;
                    }
                }
                File::open(folder.path())?.sync_all()?;
                fs::rename(folder.keep(), to)?;
            }
            Target::Tar(path, tar) => {
                tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                path.persist_noclobber(to).map_err(|error| error.error)?;
            }
        }
        File::open(parent(to))?.sync_all()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
