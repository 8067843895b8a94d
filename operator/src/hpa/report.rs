//! A simulation as text: the plot, the changes and the verdict.

use super::{
    autoscaler::Autoscaler,
    plot::{clock, plot},
    simulate::{Options, Run},
    verdict::Verdict,
};

/// The most changes to list.
const MOST: usize = 20;

/// Returns the text.
pub fn text(autoscaler: &Autoscaler, options: &Options, run: &Run, verdict: &Verdict) -> String {
    let provider = autoscaler.target.is_provider();
    let line = if provider { "slots demanded" } else { "slots that others leave" };
    let mut text = format!("{} {}: * replicas, - {line}\n\n", autoscaler.kind, autoscaler.name);
    text += &plot(run, provider);
    text.push('\n');
    for event in options.events.iter().filter(|event| event.at > 0) {
        let what = if event.slots { "slots" } else { "slots for other Masks" };
        text += &format!("Event at {}: {} {what}\n", clock(event.at), event.value);
    }
    let width = run.changes.iter().map(|it| it.from.max(it.to).to_string().len()).max().unwrap_or(1);
    for change in run.changes.iter().take(MOST) {
        let (at, from, to) = (clock(change.at), change.from, change.to);
        text += &format!("{at:>7}  {from:>width$} -> {to:<width$}  {}\n", change.why);
    }
    if run.changes.len() > MOST {
        text += &format!("         and {} more changes\n", run.changes.len() - MOST);
    }
    if run.changes.is_empty() {
        text += &format!("No change: {}\n", run.syncs.last().map_or("no sync", |sync| sync.why.as_str()));
    }
    text += &format!("\nThe autoscaler {verdict}.\n");
    if let Some(sentence) = remainder(provider, run, verdict) {
        text += &format!("{sentence}\n");
    }
    run.notes.iter().for_each(|note| text += &format!("Note: {note}\n"));
    text
}

/// Says which replicas have no slot, and which slots no replica.
fn remainder(provider: bool, run: &Run, verdict: &Verdict) -> Option<String> {
    let end = run.seconds.last()?;
    if matches!(verdict, Verdict::Oscillates { .. } | Verdict::Unfinished { .. }) {
        return None;
    }
    if provider {
        return (end.waiting() > 0).then(|| format!("At the end, {} Masks wait for a slot.", end.waiting()));
    }
    if end.pods > end.held {
        return Some(format!("At the end, {} of {} replicas have no slot.", end.pods - end.held, end.pods));
    }
    let idle = end.free().saturating_sub(end.reserve);
    (idle > 0).then(|| format!("At the end, {idle} of {} slots are not used.", end.slots))
}
