//! A simulation as comma-separated values, one row for each second in which something changes, and for each sync.

use super::simulate::Run;

/// Returns the rows.
pub fn csv(run: &Run) -> String {
    let mut text = "seconds,slots,others,replicas,replicas_with_slot,free,wanted\n".to_owned();
    let mut before = None;
    let mut syncs = run.syncs.iter().peekable();
    for (second, at) in run.seconds.iter().enumerate() {
        let sync = syncs.next_if(|sync| sync.at == second as u64);
        if sync.is_none() && before == Some(at) {
            continue;
        }
        before = Some(at);
        let wanted = sync.and_then(|sync| sync.wanted).map(|wanted| wanted.to_string()).unwrap_or_default();
        let (slots, others, replicas, held, free) = (at.slots, at.others, at.replicas, at.held, at.free());
        text += &format!("{second},{slots},{others},{replicas},{held},{free},{wanted}\n");
    }
    text
}
