//! Texts with a limit.

/// Returns as much of the beginning of a text as fits in this number of bytes.
pub fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_is_cut() {
        assert_eq!(beginning("abc", 9), "abc");
        assert_eq!(beginning("abc", 2), "ab");
        assert_eq!(beginning("aé", 2), "a");
        assert_eq!(beginning("é", 1), "");
    }
}
