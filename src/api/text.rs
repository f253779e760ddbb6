//! Parts of messages for people.

use std::fmt::Display;

/// `A, B and C`.
pub(crate) fn in_words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match (items.pop(), items.is_empty()) {
        (None, _) => String::new(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} and {last}", items.join(", ")),
    }
}

/// `1 component`, `2 components`.
pub(crate) fn counted<N: Display + From<u8> + PartialEq>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The first `length` characters of the text.
pub(crate) fn truncated(mut text: String, length: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(length) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_a_cut_keeps_whole_characters() {
        assert_eq!([0, 1, 2].map(|count: u32| counted(count, "pod")), ["0 pods", "1 pod", "2 pods"]);
        assert_eq!(["äöü", "ä", ""].map(|text| truncated(text.to_owned(), 2)), ["äö", "ä", ""]);
    }
}
