//! Interns strings: a Mask, its consumer, its reservation and its copied Secret refer to each other, and would
//! otherwise store each name and UID several times.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

struct Pool {
    strings: HashSet<Arc<str>>,
    /// The size at which the pool drops strings that are no longer in use.
    sweep_at: usize,
}

const SMALLEST_SWEEP: usize = 1024;

static POOL: LazyLock<Mutex<Pool>> =
    LazyLock::new(|| Mutex::new(Pool { strings: HashSet::new(), sweep_at: SMALLEST_SWEEP }));

/// Returns the shared copy of a string.
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
    fn equal_strings_are_shared_and_unused_ones_are_dropped() {
        let one = intern("the same name");
        assert!(Arc::ptr_eq(&one, &intern("the same name")));
        for number in 0..10 * SMALLEST_SWEEP {
            intern(&format!("unused {number}"));
        }
        assert!(POOL.lock().expect("not poisoned").strings.len() <= 2 * SMALLEST_SWEEP);
        assert!(Arc::ptr_eq(&one, &intern("the same name")));
    }
}
