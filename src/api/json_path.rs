use std::{fmt, str::FromStr};

use serde_json::Value;

/// Longest text of a path, in characters.
const MAX_LENGTH: usize = 256;
/// Most names and indexes of a path.
const MAX_SEGMENTS: usize = 32;

/// A JSONPath that selects at most one value: the singular query of RFC 9535 (section 2.3.5.1), names and indexes only.
///
/// Wildcards, descendants, slices and filters are not supported on purpose: a short path would select many values of a small
/// document, and need memory for each. In a quoted name a backslash escapes a quote or a backslash only; a path has no blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    /// As written.
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Name(String),
    /// Below zero: from the end.
    Index(i64),
}

impl JsonPath {
    /// The value at this path, if the document has it.
    pub fn select<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.segments.iter().try_fold(value, |value, segment| match segment {
            Segment::Name(name) => value.as_object()?.get(name),
            Segment::Index(index) => {
                let items = value.as_array()?;
                let distance = usize::try_from(index.unsigned_abs()).ok()?;
                let at = if *index < 0 { items.len().checked_sub(distance)? } else { distance };
                items.get(at)
            }
        })
    }
}

impl FromStr for JsonPath {
    type Err = String;

    /// The error names the fault and its place.
    fn from_str(text: &str) -> Result<Self, String> {
        match segments(text) {
            Ok(segments) => Ok(Self { text: text.to_owned(), segments }),
            Err(why) => Err(format!(
                "{:?} is not a JSONPath of one value: {why}; only names and indexes are supported, for example $.status",
                // A text of any length may come in.
                text.chars().take(MAX_LENGTH).collect::<String>()
            )),
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn segments(text: &str) -> Result<Vec<Segment>, String> {
    if text.chars().count() > MAX_LENGTH {
        return Err(format!("it has more than {MAX_LENGTH} characters"));
    }
    let mut rest = text.strip_prefix('$').ok_or("it does not begin with $")?;
    let mut segments = Vec::new();
    while !rest.is_empty() {
        if segments.len() == MAX_SEGMENTS {
            return Err(format!("it has more than {MAX_SEGMENTS} names and indexes"));
        }
        let before = &text[..text.len() - rest.len()];
        let (segment, tail) = segment(rest).map_err(|what| format!("{what} follows {before:?}"))?;
        segments.push(segment);
        rest = tail;
    }
    Ok(segments)
}

/// The first segment and the rest, or a description of the text that is no segment.
fn segment(text: &str) -> Result<(Segment, &str), String> {
    if text.starts_with("..") {
        return Err("a descendant (..)".to_owned());
    }
    if let Some(rest) = text.strip_prefix('.') {
        return dotted_name(rest);
    }
    let Some(rest) = text.strip_prefix('[') else {
        return Err(format!("{:?}, where . or [ is needed,", first(text)));
    };
    let (segment, tail) = match rest.chars().next().filter(|first| matches!(first, '\'' | '"')) {
        Some(quote) => quoted_name(&rest[1..], quote)?,
        None => index(rest)?,
    };
    match tail.chars().next() {
        Some(']') => Ok((segment, &tail[1..])),
        Some(',') => Err("a list in brackets".to_owned()),
        Some(':') => Err("a slice (:)".to_owned()),
        Some(other) => Err(format!("a bracket with {:?}, where ] is needed,", other.to_string())),
        None => Err("a bracket without its end".to_owned()),
    }
}

/// RFC 9535, 2.5.1.1: a letter, `_` or anything outside ASCII; after the first character digits too.
fn dotted_name(text: &str) -> Result<(Segment, &str), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let (name, tail) = text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()));
    if name.is_empty() {
        return Err(match first(text) {
            "*" => "a wildcard (*)".to_owned(),
            "" => "a dot without a name".to_owned(),
            other => format!("a dot and {other:?}, which begins no name,"),
        });
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) || tail.starts_with('-') {
        let name = &text[..text.find(['.', '[']).unwrap_or(text.len())];
        return Err(format!("the name {name:?}, which must be written ['{name}'],"));
    }
    Ok((Segment::Name(name.to_owned()), tail))
}

/// The name after the opening quote, and the rest.
fn quoted_name(text: &str, quote: char) -> Result<(Segment, &str), String> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == quote {
            return Ok((Segment::Name(name), &text[at + c.len_utf8()..]));
        }
        if c.is_ascii_control() {
            return Err("a name with a control character".to_owned());
        }
        if c != '\\' {
            name.push(c);
            continue;
        }
        match characters.next() {
            Some((_, escaped)) if escaped == quote || escaped == '\\' => name.push(escaped),
            Some((_, other)) => return Err(format!("a name with \\{other}, which is not supported,")),
            None => break,
        }
    }
    Err("a quoted name without its end".to_owned())
}

/// RFC 9535, 2.3.3.1: no plus, no zero before other digits, no minus zero, and within the whole numbers that JSON keeps.
fn index(text: &str) -> Result<(Segment, &str), String> {
    const LARGEST: u64 = (1 << 53) - 1;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (number, tail) = text.split_at(end);
    if number.is_empty() {
        return Err(match first(text) {
            "*" => "a wildcard (*)".to_owned(),
            "?" => "a filter (?)".to_owned(),
            ":" => "a slice (:)".to_owned(),
            "" => "a bracket without its end".to_owned(),
            "]" => "a bracket with nothing in it".to_owned(),
            other => format!("a bracket and {other:?}, which begins neither a quoted name nor an index,"),
        });
    }
    let index = number.parse::<i64>().ok().filter(|index| index.unsigned_abs() <= LARGEST);
    match index {
        Some(index) if index.to_string() == number => Ok((Segment::Index(index), tail)),
        _ => Err(format!("{number:?}, which is no index,")),
    }
}

/// The first character.
fn first(text: &str) -> &str {
    text.chars().next().map_or("", |c| &text[..c.len_utf8()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> JsonPath {
        text.parse().unwrap()
    }

    #[test]
    fn selects_by_name_and_index() {
        let document = json!({
            "status": "ok", "größe": 3, "_a1": true, "it's": "quote", "a\"b\\c": "escaped", "": "empty",
            "a-b": null, "parts": [{"up": 1}, {"up": 2}], "*": "star", "0": "name",
        });
        for (path, value) in [
            ("$", document.clone()),
            ("$.status", json!("ok")),
            ("$.größe", json!(3)),
            ("$._a1", json!(true)),
            ("$['status']", json!("ok")),
            (r#"$["status"]"#, json!("ok")),
            (r"$['it\'s']", json!("quote")),
            (r#"$["it's"]"#, json!("quote")),
            (r#"$["a\"b\\c"]"#, json!("escaped")),
            (r#"$['a"b\\c']"#, json!("escaped")),
            ("$['']", json!("empty")),
            ("$['a-b']", Value::Null),
            ("$['*']", json!("star")),
            ("$['0']", json!("name")),
            ("$.parts[0].up", json!(1)),
            ("$.parts[-1]['up']", json!(2)),
            ("$['parts'][-2].up", json!(1)),
        ] {
            let parsed = parsed(path);
            assert_eq!(parsed.select(&document), Some(&value), "{path}");
            assert_eq!(parsed.to_string(), path);
        }
        for path in [
            "$.missing",
            "$.status.length",
            "$.status[0]",
            "$.parts.up",
            "$[0]",
            "$.parts['0']",
            "$.parts[2]",
            "$.parts[-3]",
            "$.parts[9007199254740991]",
            "$.parts[-9007199254740991]",
            "$['a-b'].c",
        ] {
            assert_eq!(parsed(path).select(&document), None, "{path}");
        }
    }

    #[test]
    fn the_error_names_what_is_wrong() {
        for (path, why) in [
            ("", "it does not begin with $"),
            (".status", "it does not begin with $"),
            ("status[", "it does not begin with $"),
            (" $.a", "it does not begin with $"),
            ("$..status", "a descendant (..) follows \"$\""),
            ("$.*", "a wildcard (*) follows \"$\""),
            ("$.parts[*].up", "a wildcard (*) follows \"$.parts\""),
            ("$.parts[?@.up==1]", "a filter (?) follows \"$.parts\""),
            ("$[1:2]", "a slice (:) follows \"$\""),
            ("$[:2]", "a slice (:) follows \"$\""),
            ("$[0,1]", "a list in brackets follows \"$\""),
            ("$['a','b']", "a list in brackets follows \"$\""),
            ("$.a.", "a dot without a name follows \"$.a\""),
            ("$.a b", "\" \", where . or [ is needed, follows \"$.a\""),
            ("$a", "\"a\", where . or [ is needed, follows \"$\""),
            ("$.a-b.c", "the name \"a-b\", which must be written ['a-b'], follows \"$\""),
            ("$.1st", "the name \"1st\", which must be written ['1st'], follows \"$\""),
            ("$.['a']", "a dot and \"[\", which begins no name, follows \"$\""),
            ("$[", "a bracket without its end follows \"$\""),
            ("$[]", "a bracket with nothing in it follows \"$\""),
            ("$[0", "a bracket without its end follows \"$\""),
            ("$['a'", "a bracket without its end follows \"$\""),
            ("$['a", "a quoted name without its end follows \"$\""),
            ("$['a\\", "a quoted name without its end follows \"$\""),
            ("$['a\\n']", "a name with \\n, which is not supported, follows \"$\""),
            ("$['a\n']", "a name with a control character follows \"$\""),
            ("$['a' ]", "a bracket with \" \", where ] is needed, follows \"$\""),
            ("$[a]", "a bracket and \"a\", which begins neither a quoted name nor an index, follows \"$\""),
            ("$[01]", "\"01\", which is no index, follows \"$\""),
            ("$[-0]", "\"-0\", which is no index, follows \"$\""),
            ("$[-]", "\"-\", which is no index, follows \"$\""),
            ("$[1-2]", "\"1-2\", which is no index, follows \"$\""),
            ("$[9007199254740992]", "\"9007199254740992\", which is no index, follows \"$\""),
            ("$[99999999999999999999]", "\"99999999999999999999\", which is no index, follows \"$\""),
        ] {
            let error = path.parse::<JsonPath>().unwrap_err();
            let expected = format!(
                "{path:?} is not a JSONPath of one value: {why}; only names and indexes are supported, for example $.status"
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn limits_the_length_and_the_segments() {
        let longest = format!("$.{}", "ü".repeat(MAX_LENGTH - 2));
        assert!(longest.parse::<JsonPath>().is_ok());
        let error = format!("{longest}ü").repeat(40).parse::<JsonPath>().unwrap_err();
        assert!(error.contains("it has more than 256 characters"), "{error}");
        assert!(error.chars().count() < 400, "{error}");
        let deepest = format!("${}", ".a".repeat(MAX_SEGMENTS));
        assert!(deepest.parse::<JsonPath>().is_ok());
        let error = format!("{deepest}[0]").parse::<JsonPath>().unwrap_err();
        assert!(error.contains("it has more than 32 names and indexes"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in r#"\$([.\[\]'"\\*?:,0-9a-zé -]|\PC){0,24}"#) {
            if let Ok(path) = text.parse::<JsonPath>() {
                path.select(&json!({"a": [0, {"b": 1}]}));
            }
        }

        #[test]
        fn any_name_can_be_quoted(name in r"\PC{0,16}") {
            let quoted = name.replace('\\', r"\\").replace('\'', r"\'");
            let document = json!({name: 1});
            prop_assert_eq!(parsed(&format!("$['{quoted}']")).select(&document), Some(&json!(1)));
        }
    }
}
