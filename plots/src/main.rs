//! `plots RESULTS FOLDER` draws SVG files from measurements: one JSON object a line, as `plots/measure` prints them.
//!
//! Each object has `what` (which figure), `x`, and the measured values by name. A figure has a panel for each value, so that
//! values of different units need no common axis.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

/// A figure: its file, what the x axis is, and its panels: the name of a value, and what the axis says.
struct Figure {
    what: &'static str,
    x: &'static str,
    panels: &'static [(&'static str, &'static str)],
}

const FIGURES: &[Figure] = &[
    Figure {
        what: "disk",
        x: "plain synced copy on that disk, MB/s",
        panels: &[
            ("ratio_to_copy", "ingestion, compared with the copy"),
            ("ratio_to_zstd", "ingestion, compared with zstd -1"),
            ("written_per_byte", "bytes written for each byte"),
        ],
    },
    Figure {
        what: "lines",
        x: "lines of 350 bytes, nobody consumes",
        panels: &[
            ("mb_per_s", "ingestion, MB/s"),
            ("peak_mib", "peak memory, MiB"),
            ("open_s", "open after kill -9, s"),
        ],
    },
    Figure {
        what: "files",
        x: "files",
        panels: &[("peak_mib", "peak memory, MiB"), ("idle_percent", "idle, % of a processor")],
    },
    Figure {
        what: "groups",
        x: "groups, each to a file",
        panels: &[("peak_mib", "peak memory, MiB"), ("mb_per_s", "delivered to all of them, MB/s")],
    },
];

const PANEL: (u32, u32) = (330, 260);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [results, folder] = args.as_slice() else {
        eprintln!("plots RESULTS FOLDER: draws FOLDER/bench-*.svg from what plots/measure printed");
        return ExitCode::from(2);
    };
    match draw_all(Path::new(results), Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plots: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw_all(results: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(results).map_err(|error| format!("{}: {error}", results.display()))?;
    let mut measured: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let object: Value = serde_json::from_str(line)
            .map_err(|error| format!("{}, line {}: {error}", results.display(), number + 1))?;
        let what = object["what"].as_str().unwrap_or_default().to_owned();
        measured.entry(what).or_default().push(object);
    }
    for figure in FIGURES {
        let Some(objects) = measured.get(figure.what) else {
            eprintln!("plots: nothing is measured for {}", figure.what);
            continue;
        };
        draw(figure, objects, &folder.join(format!("bench-{}.svg", figure.what)))?;
    }
    Ok(())
}

fn draw(figure: &Figure, objects: &[Value], to: &Path) -> Result<(), Box<dyn Error>> {
    let panels = figure.panels.len();
    let root = SVGBackend::new(to, (PANEL.0 * panels as u32, PANEL.1)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (name, label)) in root.split_evenly((1, panels)).iter().zip(figure.panels) {
        let points =
            objects.iter().filter_map(|object| Some((object["x"].as_f64()?, object[*name].as_f64()?)));
        let mut points: Vec<(f64, f64)> = points.collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        if points.is_empty() {
            return Err(format!("no {name} is measured for {}", figure.what).into());
        }
        panel(area, label, figure.x, &points)?;
    }
    root.present()?;
    Ok(())
}

/// One value over x, which is logarithmic. The y axis begins at 0, so that what does not grow looks so.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    label: &str,
    x: &str,
    points: &[(f64, f64)],
) -> Result<(), Box<dyn Error>> {
    let least = points.iter().map(|point| point.0).fold(f64::MAX, f64::min);
    let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.25;
    let mut chart = ChartBuilder::on(area)
        .caption(label, ("sans-serif", 14))
        .margin(8)
        .margin_right(18)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d((least / 1.2..most * 1.2).log_scale(), 0.0..top.max(f64::MIN_POSITIVE))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(x)
        .x_labels(5)
        .x_label_formatter(&|x| short(*x))
        .y_labels(5)
        .label_style(("sans-serif", 11))
        .axis_desc_style(("sans-serif", 12))
        .draw()?;
    let line = RGBColor(30, 90, 160);
    chart.draw_series(LineSeries::new(points.iter().copied(), line.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| {
        EmptyElement::at(*point)
            + Circle::new((0, 0), 3, line.filled())
            + Text::new(short(point.1), (-8, -16), ("sans-serif", 11).into_font())
    }))?;
    Ok(())
}

/// `0.28`, `41`, `10,000`, `1 M`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.0} M", n / 1e6),
        n if n >= 1e3 => format!("{:.0},{:03}", (n / 1e3).floor(), n % 1e3),
        n if n >= 10.0 => format!("{n:.0}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_a_panel_for_each_value_and_a_missing_one_is_an_error() {
        let folder = std::env::temp_dir().join(format!("spillq-plots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let results = folder.join("results.jsonl");
        let point = |x: u32| {
            format!("{{\"what\": \"files\", \"x\": {x}, \"peak_mib\": 20.5, \"idle_percent\": 0.25}}\n")
        };
        std::fs::write(&results, [1, 100, 10_000].map(point).concat()).unwrap();
        draw_all(&results, &folder).unwrap();
        let drawn = std::fs::read_to_string(folder.join("bench-files.svg")).unwrap();
        assert!(drawn.contains("peak memory, MiB") && drawn.contains("idle, % of a processor"), "{drawn}");
        std::fs::write(&results, "{\"what\": \"files\", \"x\": 1, \"peak_mib\": 20}\n").unwrap();
        let error = draw_all(&results, &folder).unwrap_err().to_string();
        assert_eq!(error, "no idle_percent is measured for files");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.283, 9.99, 41.4, 999.0, 1_000.0, 10_000.0, 1.1e8].map(short);
        assert_eq!(shown, ["0.28", "9.99", "41", "999", "1,000", "10,000", "110 M"]);
    }
}
