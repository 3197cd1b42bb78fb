//! YAML text to a tree whose every node knows its line.
//!
//! Built from the parser's events rather than with a ready loader, because a configuration needs
//! what loaders drop: repeated keys, how a scalar was quoted, and bounds on depth and size (aliases
//! can make a short text a huge tree). Only the first document of a stream is read.

use std::collections::HashMap;

use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;
use saphyr_parser::Tag;

/// Levels of nesting; a configuration has three.
const DEPTH_MAX: usize = 32;
/// Nodes of the whole tree, aliases expanded.
const NODES_MAX: usize = 20_000;

/// A node and the line, from 1, where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub line: usize,
    pub data: Data,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// The text without quotes, and how to read it.
    Scalar(String, Reading),
    Sequence(Vec<Value>),
    /// In the order of the text; keys may repeat.
    Mapping(Vec<(Value, Value)>),
}

/// How a scalar is to be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    /// It stands bare: as what it looks like.
    Plain,
    /// It is quoted or a block: as a string.
    Quoted,
    /// As its core tag says, such as `int`.
    Tagged(String),
}

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct SyntaxError {
    pub line: usize,
    pub what: String,
}

/// The first document of `text`, or nothing if there is none.
pub(super) fn parse(text: &str) -> Result<Option<Value>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxError {
            line: error.marker().line().max(1),
            what: error.info().to_owned(),
        })?;
        let line = span.start.line().max(1);
        if let Some(document) = builder.on_event(event, line)? {
            return Ok(Some(document));
        }
        if builder.is_ended {
            break;
        }
    }
    Ok(None)
}

/// Assembles nodes from events.
#[derive(Default)]
struct Builder {
    /// Collections that are open, outermost first, each with the anchor it carries.
    open: Vec<(Collection, usize, usize)>,
    anchors: HashMap<usize, Value>,
    n_nodes: usize,
    is_ended: bool,
}

enum Collection {
    Sequence(Vec<Value>),
    /// The entries, and a key that waits for its value.
    Mapping(Vec<(Value, Value)>, Option<Value>),
}

impl Builder {
    /// Take one event; returns the document once it is complete.
    fn on_event(&mut self, event: Event<'_>, line: usize) -> Result<Option<Value>, SyntaxError> {
        let refuse = |what: &str| SyntaxError { line, what: what.to_owned() };
        if self.open.len() > DEPTH_MAX {
            return Err(refuse("nested too deeply"));
        }
        match event {
            Event::SequenceStart(anchor, _) => {
                self.open.push((Collection::Sequence(Vec::new()), anchor, line));
                Ok(None)
            }
            Event::MappingStart(anchor, _) => {
                self.open.push((Collection::Mapping(Vec::new(), None), anchor, line));
                Ok(None)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (collection, anchor, line) =
                    self.open.pop().ok_or_else(|| refuse("unexpected end of a collection"))?;
                let data = match collection {
                    Collection::Sequence(items) => Data::Sequence(items),
                    Collection::Mapping(entries, _) => Data::Mapping(entries),
                };
                self.add(Value { line, data }, anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let reading = match tag {
                    Some(tag) if is_core(&tag) => Reading::Tagged(tag.suffix.clone()),
                    _ if style == ScalarStyle::Plain => Reading::Plain,
                    _ => Reading::Quoted,
                };
                self.add(Value { line, data: Data::Scalar(text.into_owned(), reading) }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor).cloned() else {
                    return Err(refuse("unknown anchor referenced"));
                };
                self.n_nodes += count(&value);
                self.add(Value { line, ..value }, 0)
            }
            Event::StreamEnd => {
                self.is_ended = true;
                Ok(None)
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(None)
            }
        }
    }

    /// Put a finished node where it belongs; returns it if it is the whole document.
    fn add(&mut self, value: Value, anchor: usize) -> Result<Option<Value>, SyntaxError> {
        self.n_nodes += 1;
        if self.n_nodes > NODES_MAX {
            return Err(SyntaxError { line: value.line, what: "document is too large".to_owned() });
        }
        if anchor > 0 {
            self.n_nodes += count(&value);
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => return Ok(Some(value)),
            Some((Collection::Sequence(items), ..)) => items.push(value),
            Some((Collection::Mapping(entries, key), ..)) => match key.take() {
                None => *key = Some(value),
                Some(key) => entries.push((key, value)),
            },
        }
        Ok(None)
    }
}

fn is_core(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() || tag.handle == "!!"
}

fn count(value: &Value) -> usize {
    match &value.data {
        Data::Scalar(..) => 1,
        Data::Sequence(items) => 1 + items.iter().map(count).sum::<usize>(),
        Data::Mapping(entries) => {
            1 + entries.iter().map(|(key, value)| count(key) + count(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(value: &Value) -> String {
        let text = match &value.data {
            Data::Scalar(text, Reading::Plain) => text.clone(),
            Data::Scalar(text, Reading::Quoted) => format!("{text:?}"),
            Data::Scalar(text, Reading::Tagged(tag)) => format!("!!{tag} {text}"),
            Data::Sequence(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Data::Mapping(entries) => {
                let entry = |(key, value): &(Value, Value)| show(key) + "=" + &show(value);
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        };
        format!("{}:{text}", value.line)
    }

    #[test]
    fn nodes_know_their_lines() {
        for (text, want) in [
            ("a: 1\nb:\n  c: x\n", "1:{1:a=1:1 2:b=3:{3:c=3:x}}"),
            ("a:\n  - 'x'\n  - y\n", "1:{1:a=2:[2:\"x\" 3:y]}"),
            ("a: [x,\n  y]", "1:{1:a=1:[1:x 2:y]}"),
            ("a:\nb: 1", "1:{1:a=1:~ 2:b=2:1}"),
            ("a: 1\na: 2", "1:{1:a=1:1 2:a=2:2}"),
            ("x: &q [1]\ny: *q", "1:{1:x=1:[1:1] 2:y=2:[1:1]}"),
            ("a: !!int \"5\"", "1:{1:a=1:!!int 5}"),
            ("a: b\n---\nc: d", "1:{1:a=1:b}"),
            ("\u{feff}a: b", "1:{1:a=1:b}"),
            ("a: |\n  x\n  y\nb: c", "1:{1:a=2:\"x\\ny\\n\" 4:b=4:c}"),
        ] {
            assert_eq!(show(&parse(text).unwrap().unwrap()), want, "{text:?}");
        }
    }

    #[test]
    fn a_text_without_a_document_is_nothing() {
        for text in ["", "\n\n", "# only a comment\n"] {
            assert_eq!(parse(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(100);
        assert_eq!(parse(&deep).unwrap_err().what, "nested too deeply");
        parse(&"[".repeat(1_000_000)).unwrap_err();
        parse(&"- ".repeat(1_000_000)).unwrap_err();
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..30 {
            let before = format!("*a{}", i - 1);
            let list = [&*before; 8].join(", ");
            laughs.extend([format!("a{i}: &a{i} [{list}]\n")]);
        }
        assert_eq!(parse(&laughs).unwrap_err().what, "document is too large");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*|[-a-c0-9:?\\[\\]{}&*!|>'\"%@`#,. \t\n]{0,60}") {
            let _ = parse(&text); // must return
        }
    }
}
