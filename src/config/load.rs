//! From the file, the environment and the command line to checked settings.

use std::path::Path;

use super::problem::{ConfigError, Problem};
use super::settings::Settings;
use super::sources::{Origins, Sources};
use super::{check, paths, read, written};

/// A longer configuration file is a mistake, a log for example.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Checked settings, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each came from that is not a default.
    pub origins: Origins,
    /// What is unusual but works, one sentence each.
    pub warnings: Vec<String>,
    /// The content of the file.
    pub text: String,
}

/// Reads and checks the settings.
///
/// # Errors
/// [`ConfigError::Read`] if the file cannot be read, [`ConfigError::Problems`] with everything that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_from(&read_text(sources)?, sources)
}

/// The content of the configuration file; empty without one.
///
/// # Errors
/// [`ConfigError::Read`] if it cannot be read.
pub fn read_text(sources: &Sources) -> Result<String, ConfigError> {
    let Some(file) = &sources.file else { return Ok(String::new()) };
    read_file(&sources.working_dir.join(file))
        .map_err(|source| ConfigError::Read { file: file.clone(), source })
}

/// What [`load`] does with a file whose content is `text`, for the fuzz target.
///
/// # Errors
/// [`ConfigError::Problems`].
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn load_given(text: &str, sources: &Sources) -> Result<Loaded, ConfigError> {
    load_from(text, sources)
}

/// Checks the settings, where `text` is the content of the file.
pub(super) fn load_from(text: &str, sources: &Sources) -> Result<Loaded, ConfigError> {
    let folder = sources.file.as_ref().map_or_else(
        || sources.working_dir.clone(),
        |file| {
            let whole = paths::normal(&sources.working_dir.join(file));
            whole.parent().map_or_else(|| whole.clone(), Path::to_path_buf)
        },
    );
    load_text(text, &folder, sources).map_err(|mut problems| {
        // Problems without a line come last; the sort keeps the order of discovery within a line.
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        ConfigError::Problems { file: sources.file.clone(), problems }
    })
}

fn read_file(file: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(file)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(file)
}

pub(super) fn load_text(text: &str, folder: &Path, sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let (table, syntax) = toml::de::DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        return Err(syntax.iter().map(|error| syntax_problem(text, error)).collect());
    }
    let mut reader = written::Reader::new(text, folder, sources);
    let mut settings = read::settings(&mut reader, table.get_ref());
    read::overrides(&mut reader, &mut settings, sources);
    let mut warnings = reader.suspicious_variables();
    let (mut problems, origins) = (reader.problems, reader.origins);
    problems.extend(check::problems(&settings, &origins));
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(check::fit_leases(&mut settings, &origins));
    warnings.extend(check::open_secrets(&settings));
    warnings.extend(check::tiny_min_free(&settings));
    Ok(Loaded { settings, origins, warnings, text: text.to_owned() })
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let at = error.span().map_or(0, |span| span.start);
    let (line, column) = written::line_and_column(text, at);
    Problem {
        line: Some(line),
        key: format!("column {column}"),
        value: None,
        expected: format!("not TOML: {}", error.message().replace('\n', ", ")),
    }
}
