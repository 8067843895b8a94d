//! Shares equal strings: a Mask, its consumer, its reservation and its copied Secret name each other and themselves,
//! and would otherwise hold each name and UID many times over.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

struct Pool {
    strings: HashSet<Arc<str>>,
    /// At this size strings that nobody else holds any more are dropped.
    sweep_at: usize,
}

const SMALLEST_SWEEP: usize = 1024;

static POOL: LazyLock<Mutex<Pool>> =
    LazyLock::new(|| Mutex::new(Pool { strings: HashSet::new(), sweep_at: SMALLEST_SWEEP }));

/// The one shared copy of that string.
pub fn intern(text: &str) -> Arc<str> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = pool.strings.get(text) {
        return known.clone();
    }
    if pool.strings.len() >= pool.sweep_at {
        pool.strings.retain(|text| Arc::strong_count(text) > 1);
        pool.sweep_at = (pool.strings.len() * 2).max(SMALLEST_SWEEP);
    }
    let new: Arc<str> = Arc::from(text);
    pool.strings.insert(new.clone());
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_one_and_unused_ones_go() {
        let one = intern("the same name");
        assert!(Arc::ptr_eq(&one, &intern("the same name")));
        for number in 0..10 * SMALLEST_SWEEP {
            intern(&format!("nobody keeps {number}"));
        }
        assert!(POOL.lock().expect("not poisoned").strings.len() <= 2 * SMALLEST_SWEEP);
        assert!(Arc::ptr_eq(&one, &intern("the same name")));
    }
}
