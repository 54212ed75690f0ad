//! Progress of a long command: a bar on a terminal. Without a terminal, or without the feature `cli-extras`, there is none.

#[cfg(feature = "cli-extras")]
mod bar {
    use std::io::{self, IsTerminal};

    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    const TEMPLATE: &str = "{bar:30} {human_pos} of {human_len} lines, {per_sec}, {msg}, {eta} left";

    /// A bar.
    pub(in crate::cmd) struct Bar(ProgressBar);

    impl Bar {
        pub(in crate::cmd) fn start() -> Bar {
            let target = if io::stderr().is_terminal() {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            };
            let bar = ProgressBar::with_draw_target(Some(0), target);
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            Bar(bar)
        }

        pub(in crate::cmd) fn show(&self, lines: u64, total: u64, message: String) {
            self.0.set_length(total);
            self.0.set_position(lines);
            self.0.set_message(message);
        }

        pub(in crate::cmd) fn is_hidden(&self) -> bool {
            self.0.is_hidden()
        }

        /// Removes it from the screen.
        pub(in crate::cmd) fn end(self) {
            self.0.finish_and_clear();
        }
    }
}

#[cfg(not(feature = "cli-extras"))]
mod bar {
    /// Shows nothing.
    pub(in crate::cmd) struct Bar;

    impl Bar {
        pub(in crate::cmd) fn start() -> Bar {
            Bar
        }

        pub(in crate::cmd) fn show(&self, _lines: u64, _total: u64, _message: String) {}

        pub(in crate::cmd) fn is_hidden(&self) -> bool {
            true
        }

        pub(in crate::cmd) fn end(self) {}
    }
}

pub(super) use bar::Bar;
