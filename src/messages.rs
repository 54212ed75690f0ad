//! Log messages on standard error, as text or as one JSON object per line.
//!
//! A message is always one line, and a terminal acts on nothing in it except for the colour of its level. A message that is
//! repeated within [`FOLD`] is counted, and the count is printed instead. At most [`FOLDED_MAX`] messages are remembered
//! for that. A longer message is cut to [`MESSAGE_BYTES_MAX`] bytes.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::plain::{escape, escape_but_tabs, json_line};
use crate::processor::SAID_BY_COMMAND;

/// Time in which repeats of a message are counted.
const FOLD: Duration = Duration::from_secs(60);
/// Messages whose repeats are counted at the same time.
const FOLDED_MAX: usize = 64;
/// Bytes of one message and of one field. The end of a command's output, which is the longest field, has 4 KiB.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The format of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints open counts when it is dropped, at the end of the process.
#[derive(Debug)]
pub struct Messages(Arc<Shared>);

impl Drop for Messages {
    fn drop(&mut self) {
        self.0.print_counts();
    }
}

/// The messages of this process, for [`print_counts`].
static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Prints all counts now. To be called before the last message of a command: after it, a count would look like a new
/// message.
pub fn print_counts() {
    if let Some(shared) = SHARED.get() {
        shared.print_counts();
    }
}

/// Sets up the messages of this process, of `level` and above. To be called once.
#[must_use]
pub fn init(level: &str, format: Format, colour: bool) -> Messages {
    let shared = Arc::new(Shared { format, colour, folds: Mutex::default(), changed: Condvar::new() });
    // Output of commands is shown at every level.
    let filter = format!("warn,spillq={level},spillq_storage={level},{SAID_BY_COMMAND}=info");
    let filter = EnvFilter::new(filter);
    tracing_subscriber::registry().with(filter).with(Writer(Arc::clone(&shared))).init();
    let theirs = Arc::clone(&shared);
    SHARED.get_or_init(|| Arc::clone(&shared));
    // Without this thread, counts are printed with the next message, or at the end.
    drop(
        std::thread::Builder::new().name("spillq-messages".to_owned()).spawn(move || theirs.print_in_time()),
    );
    Messages(shared)
}

#[derive(Debug)]
struct Shared {
    format: Format,
    colour: bool,
    folds: Mutex<Folds>,
    changed: Condvar,
}

impl Shared {
    fn write(&self, line: &Line, more: Option<More>) {
        let text = match self.format {
            Format::Text => line.text(more, self.colour).into_bytes(),
            Format::Json => line.json(more),
        };
        // Without standard error there is no other place for it.
        let _ = std::io::stderr().lock().write_all(&text);
    }

    fn print_counts(&self) {
        let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
        folds.end(None, &mut |line, more| self.write(line, more));
    }

    /// Prints counts when their time is over, for as long as the process runs.
    fn print_in_time(&self) {
        let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            folds.end(Some(Instant::now()), &mut |line, more| self.write(line, more));
            let wait = folds.due().map_or(FOLD, |due| due.saturating_duration_since(Instant::now()));
            let waited = self.changed.wait_timeout(folds, wait.max(Duration::from_millis(1)));
            folds = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Writer(Arc<Shared>);

impl<S: Subscriber> Layer<S> for Writer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let by_command = event.metadata().target() == SAID_BY_COMMAND;
        let mut line =
            Line { level: *event.metadata().level(), by_command, message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        let shared = &self.0;
        if by_command {
            // Equal lines of a command are not counted together.
            line.fields.push(("from", Value::from("command"), "command".to_owned()));
            return shared.write(&line, None);
        }
        let mut folds = shared.folds.lock().unwrap_or_else(PoisonError::into_inner);
        if folds.take(line, Instant::now(), &mut |line, more| shared.write(line, more)) {
            shared.changed.notify_all();
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    level: Level,
    /// A line of the standard error of a command.
    by_command: bool,
    message: String,
    fields: Vec<(&'static str, Value, String)>,
}

/// How often a message was repeated, and in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct More {
    times: u64,
    seconds: u64,
    /// How long ago the last repeat was.
    ago: Duration,
}

impl More {
    /// When the last repeat was: a count may be printed later.
    fn last(self) -> String {
        let last = SystemTime::now().checked_sub(self.ago).unwrap_or(SystemTime::UNIX_EPOCH);
        humantime::format_rfc3339_seconds(last).to_string()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = shortened(format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, Value::from(text.as_str()), text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = shortened(value.to_owned()),
            name => {
                let value = shortened(value.to_owned());
                let quoted = format!("{value:?}");
                self.fields.push((name, Value::from(value), quoted));
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::from(value), value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::from(value), value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::from(value), value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::from(value), value.to_string()));
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push_str(" … (cut)");
    }
    text
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

impl Line {
    fn text(&self, more: Option<More>, colour: bool) -> String {
        if self.by_command {
            return self.text_of_command();
        }
        let (on, off) = match (colour, self.level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
        };
        let mut text = format!("{} {on}{:>5}{off} {}", now(), self.level.as_str(), escape(&self.message));
        // Writing to a string does not fail.
        for (name, _, value) in &self.fields {
            let _ = write!(text, " {name}={}", escape(value));
        }
        if let Some(more @ More { times, seconds, .. }) = more {
            let last = more.last();
            let clock = last.split_once('T').map_or("", |(_, clock)| clock);
            let _ = write!(text, " (… {times} more times in {seconds} s, the last at {clock})");
        }
        text.push('\n');
        text
    }

    /// `2026-01-01T10:00:00.000000Z group default: what it wrote`, tabs included.
    fn text_of_command(&self) -> String {
        let group = self.fields.iter().find(|(name, ..)| *name == "group");
        let group = group.and_then(|(_, group, _)| group.as_str()).unwrap_or_default();
        format!("{} group {}: {}\n", now(), escape(group), escape_but_tabs(&self.message))
    }

    fn json(&self, more: Option<More>) -> Vec<u8> {
        let mut object = Map::new();
        object.insert("time".to_owned(), Value::from(now()));
        object.insert("level".to_owned(), Value::from(self.level.as_str().to_lowercase()));
        object.insert("message".to_owned(), Value::from(self.message.as_str()));
        let fields = self.fields.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone()));
        object.insert("fields".to_owned(), Value::Object(fields.collect()));
        if let Some(more @ More { times, seconds, .. }) = more {
            object.insert("repeated".to_owned(), Value::from(times));
            object.insert("repeated_in_seconds".to_owned(), Value::from(seconds));
            object.insert("repeated_until".to_owned(), Value::from(more.last()));
        }
        let mut text = Vec::new();
        // Strings and numbers are written to memory, which does not fail.
        let _ = json_line(&mut text, &object);
        text
    }
}

/// Messages whose repeats are counted, the oldest first.
#[derive(Debug, Default)]
struct Folds(VecDeque<Fold>);

#[derive(Debug)]
struct Fold {
    line: Line,
    since: Instant,
    times: u64,
    /// When the last repeat was.
    last: Instant,
}

/// Prints a message, or the count of its repeats.
type Print<'t> = &'t mut dyn FnMut(&Line, Option<More>);

impl Folds {
    /// Prints `line`, or counts it. Returns whether it is the first repeat.
    fn take(&mut self, line: Line, now: Instant, print: Print<'_>) -> bool {
        self.end(Some(now), print);
        if let Some(fold) = self.0.iter_mut().find(|fold| fold.line == line) {
            fold.times += 1;
            fold.last = now;
            return fold.times == 1;
        }
        print(&line, None);
        if self.0.len() >= FOLDED_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.end(now, print);
        }
        self.0.push_back(Fold { line, since: now, times: 0, last: now });
        false
    }

    /// Prints the counts whose time is over; without a time, all of them.
    fn end(&mut self, now: Option<Instant>, print: Print<'_>) {
        while let Some(fold) = self.0.front() {
            if now.is_some_and(|now| now.saturating_duration_since(fold.since) < FOLD) {
                break;
            }
            if let Some(fold) = self.0.pop_front() {
                fold.end(now.unwrap_or_else(Instant::now), print);
            }
        }
    }

    /// When the next count is printed.
    fn due(&self) -> Option<Instant> {
        self.0.iter().find(|fold| fold.times > 0).map(|fold| fold.since + FOLD)
    }
}

impl Fold {
    fn end(self, now: Instant, print: Print<'_>) {
        if self.times > 0 {
            let seconds = now.saturating_duration_since(self.since).as_secs_f64().ceil() as u64;
            let ago = now.saturating_duration_since(self.last);
            print(&self.line, Some(More { times: self.times, seconds: seconds.max(1), ago }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::needs_escape;

    fn line(message: &str) -> Line {
        let fields = vec![("group", Value::from("a"), "\"a\"".to_owned())];
        Line { level: Level::WARN, by_command: false, message: message.to_owned(), fields }
    }

    /// Feeds messages, each at a second, and returns what was printed.
    fn printed(messages: &[(u64, &str)], end: Option<u64>) -> (Vec<String>, usize) {
        let start = Instant::now();
        let (mut folds, mut out, mut most) = (Folds::default(), Vec::new(), 0);
        let mut print = |line: &Line, more: Option<More>| {
            let more = more.map(|more| format!(" +{} in {}", more.times, more.seconds)).unwrap_or_default();
            out.push(format!("{}{more}", line.message));
        };
        for (second, message) in messages {
            folds.take(line(message), start + Duration::from_secs(*second), &mut print);
            most = most.max(folds.0.len());
        }
        folds.end(end.map(|second| start + Duration::from_secs(second)), &mut print);
        (out, most)
    }

    #[test]
    fn repeats_are_counted_and_other_messages_printed() {
        let (out, _) = printed(&[(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "a 2")], Some(60));
        assert_eq!(out, ["a", "b", "a 2", "a +2 in 60"]);
        // The next minute begins anew.
        let (out, _) = printed(&[(0, "a"), (59, "a"), (60, "a"), (61, "a")], Some(200));
        assert_eq!(out, ["a", "a +1 in 60", "a", "a +1 in 140"]);
        let (out, _) = printed(&[(0, "a"), (1, "b")], Some(200));
        assert_eq!(out, ["a", "b"], "without repeats there is no count");
    }

    #[test]
    fn a_field_that_differs_is_another_message() {
        let mut other = line("a");
        other.fields = vec![("group", Value::from("b"), "\"b\"".to_owned())];
        let (mut folds, mut count) = (Folds::default(), 0);
        for line in [line("a"), other, line("a")] {
            folds.take(line, Instant::now(), &mut |_, _| count += 1);
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn many_different_messages_are_all_printed_and_few_remembered() {
        let many: Vec<String> = (0..1_000).map(|number| format!("message {number}")).collect();
        let mut messages: Vec<(u64, &str)> = vec![(0, "first"), (0, "first")];
        messages.extend(many.iter().map(|message| (1, message.as_str())));
        let (out, most) = printed(&messages, Some(2));
        assert_eq!(most, FOLDED_MAX);
        assert_eq!(out.len(), 1_002, "each once, and the count of the first before it is forgotten");
        assert!(out.contains(&"first +1 in 1".to_owned()), "{out:?}");
    }

    #[test]
    fn a_message_is_one_line_that_is_safe_on_a_terminal() {
        let wild = "a\x1b[2J\nfake: 1\u{9b}31m\u{202e}";
        let mut hostile = line(wild);
        hostile.fields = vec![("path", Value::from(wild), wild.to_owned())];
        let more = More { times: 37, seconds: 60, ago: Duration::from_secs(3_600) };
        let text = hostile.text(Some(more), false);
        let last = more.last();
        let clock = last.split_once('T').unwrap().1;
        assert!(text.ends_with(&format!(" (… 37 more times in 60 s, the last at {clock})\n")), "{text:?}");
        assert!(!text.trim_end().contains(needs_escape) && last < now(), "{text:?} {last}");
        assert!(text.contains(r"WARN a\x1b[2J\nfake: 1\u{9b}31m\u{202e} path=a\x1b[2J"), "{text}");
        let json = String::from_utf8(hostile.json(Some(more))).unwrap();
        assert!(!json.trim_end().contains(needs_escape), "{json:?}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["message"], &read["fields"]["path"]), (&Value::from(wild), &Value::from(wild)));
        assert_eq!((&read["level"], &read["repeated"]), (&Value::from("warn"), &Value::from(37)));
        assert_eq!(read["repeated_until"], Value::from(more.last()));
        assert_eq!(shortened("ä".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX + " … (cut)".len());
    }

    #[test]
    fn a_line_of_a_command_has_its_time_and_group_and_is_safe_on_a_terminal() {
        let said = Line { by_command: true, ..line("it\tsaid \x1b[31mthis") };
        let text = said.text(None, true);
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, "group a: it\tsaid \\x1b[31mthis\n");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }
}
