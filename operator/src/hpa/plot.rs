//! A plot made of characters: `*` for replicas, `-` for the slots that others leave.

use super::{simulate::Run, world::Snapshot};

const WIDTH: usize = 72;
const HEIGHT: usize = 14;

/// Returns the slots that are there for the replicas: for Pods, what others leave; for a MaskProvider, what is
/// demanded.
pub fn line(at: &Snapshot, provider: bool) -> u32 {
    if provider { at.others } else { at.slots.saturating_sub(at.others + at.reserve) }
}

/// Returns a time as minutes and seconds.
pub fn clock(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Draws a simulation.
pub fn plot(run: &Run, provider: bool) -> String {
    let count = run.seconds.len();
    let width = WIDTH.min(count);
    let range = |column: usize, of: &dyn Fn(&Snapshot) -> u32| {
        let from = column * count / width;
        let to = ((column + 1) * count / width).max(from + 1);
        let values = run.seconds[from..to].iter().map(of);
        values.fold((u32::MAX, 0), |(low, high), value| (low.min(value), high.max(value)))
    };
    let top = run.seconds.iter().map(|at| at.replicas.max(line(at, provider))).max().unwrap_or(0).max(1);
    let height = HEIGHT.min(top as usize + 1);
    // The lowest row is zero.
    let row = |value: u32| (f64::from(value) * (height - 1) as f64 / f64::from(top)).round() as usize;
    let mut cells = vec![vec![' '; width]; height];
    let mut draw = |mark: char, of: &dyn Fn(&Snapshot) -> u32| {
        for column in 0..width {
            let (low, high) = range(column, of);
            cells[row(low)..=row(high)].iter_mut().for_each(|row| row[column] = mark);
        }
    };
    draw('-', &|at| line(at, provider));
    draw('*', &|at| at.replicas);
    let digits = top.to_string().len();
    let mut text = String::new();
    for row in (0..height).rev() {
        let value = (f64::from(top) * row as f64 / (height - 1) as f64).round();
        let label = if row % 4 == 0 || row == height - 1 { value.to_string() } else { String::new() };
        let cells: String = cells[row].iter().collect();
        text += &format!("{label:>digits$} |{}\n", cells.trim_end());
    }
    text += &format!("{:>digits$} +{}\n", "", "-".repeat(width));
    let mut times = vec![' '; width + 8];
    for (column, second) in [(0, 0), (width / 2, count / 2), (width - 1, count - 1)] {
        let label = clock(second as u64);
        let from = column.saturating_sub(label.len() / 2);
        times.iter_mut().skip(from).zip(label.chars()).for_each(|(cell, c)| *cell = c);
    }
    let times: String = times.into_iter().collect();
    text + &format!("{:digits$}  {}\n", "", times.trim_end())
}
