//! spillq inside another program: follow a file, count its words in a processor, and end when no line waits.
//!
//! `cargo run --example embed -- /var/log/syslog`

use std::env;
use std::path::PathBuf;

use spillq::config::{Follow, Settings};
use spillq::processor::{Batch, Outcome, Processing, Processor};
use spillq::service::{self, Plan};

/// A processor acknowledges a batch with `Done`. After a crash a batch can be delivered again, with the same seqs. So a
/// real processor stores the last seq together with its result.
struct CountWords {
    words: u64,
}

impl Processor for CountWords {
    fn name(&self) -> String {
        "word counter".to_owned()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(async move {
            for line in batch.lines() {
                self.words +=
                    line.bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() as u64;
            }
            println!("lines {}: {} words so far", batch.range(), self.words);
            Outcome::Done
        })
    }
}

fn main() -> Result<(), String> {
    let file = env::args().nth(1).ok_or("name a file to follow")?;
    let file = PathBuf::from(file).canonicalize().map_err(|error| error.to_string())?;
    let mut settings = Settings::default_with(&env::temp_dir());
    settings.follow = vec![Follow::new(vec![file.to_string_lossy().into_owned()])];
    let plan = Plan { follow: true, once: true, ..Plan::default() };
    let own: Vec<(String, Box<dyn Processor>)> =
        vec![("default".to_owned(), Box::new(CountWords { words: 0 }))];
    let ended =
        service::run_with(&settings, &plan, own, &mut |_| {}).map_err(|error| format!("{error:?}"))?;
    println!("{} lines are in the log at {}", ended.status.log.next_seq - 1, settings.data_dir.display());
    Ok(())
}
