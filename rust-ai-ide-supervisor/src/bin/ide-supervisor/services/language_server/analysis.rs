//! What can be said about documents as text: their words, where one is defined, what is unfinished or unbalanced.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::document::{Document, is_word};

/// Most completions in one answer.
const ITEMS_MAX: usize = 100;
/// Most diagnostics of one document.
const DIAGNOSTICS_MAX: usize = 100;
/// Words after which a name is defined, over the languages people use.
const DEFINING: &[&str] = &[
    "fn",
    "let",
    "const",
    "static",
    "struct",
    "enum",
    "trait",
    "type",
    "mod",
    "macro",
    "def",
    "class",
    "function",
    "var",
    "val",
    "func",
    "interface",
    "package",
    "namespace",
    "void",
    "int",
];

/// Completes `prefix` with the words of every open document, the frequent ones first.
pub(super) fn completion(
    documents: &BTreeMap<String, Document>,
    current: &Document,
    prefix: &str,
) -> Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for document in documents.values() {
        for (_, word) in document.words() {
            if word.len() > prefix.len() && word.starts_with(prefix) {
                *counts.entry(word).or_default() += 1;
            }
        }
    }
    let mut found: Vec<(&str, usize)> = counts.into_iter().collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let complete = found.len() <= ITEMS_MAX;
    let items: Vec<Value> = found
        .iter()
        .take(ITEMS_MAX)
        .enumerate()
        .map(|(rank, (word, count))| {
            let line = definition(current, word).map(|(line, _)| format!(", line {}", line + 1));
            json!({
                "label": word,
                "kind": 1,
                "detail": format!("{}{}", times(*count), line.unwrap_or_default()),
                "sortText": format!("{rank:04}"),
            })
        })
        .collect();
    json!({ "isIncomplete": !complete, "items": items })
}

/// Says how often the word at `offset` occurs and shows the line that defines it.
pub(super) fn hover(
    documents: &BTreeMap<String, Document>,
    document: &Document,
    offset: usize,
) -> Value {
    let Some((start, word)) = document.word_at(offset) else {
        return Value::Null;
    };
    let count = |document: &Document| document.words().filter(|(_, other)| *other == word).count();
    let here = count(document);
    let everywhere: usize = documents.values().map(count).sum();
    let mut text = format!("`{word}`: {} in this document", times(here));
    if everywhere > here {
        text.push_str(&format!(", {everywhere} in all open documents"));
    }
    if let Some((line, content)) = definition(document, word) {
        text.push_str(&format!("\n\nline {}:\n```\n{}\n```", line + 1, content.trim()));
    }
    json!({
        "contents": { "kind": "markdown", "value": text },
        "range": { "start": document.position(start), "end": document.position(start + word.len()) },
    })
}

/// Finds the line that defines a word: after a defining keyword or before `=` or `:`, else where it comes first.
fn definition<'d>(document: &'d Document, word: &str) -> Option<(usize, &'d str)> {
    let mut first = None;
    for (number, line) in document.text.lines().enumerate() {
        let Some(at) = find_word(line, word) else {
            continue;
        };
        first = first.or(Some((number, line)));
        let before = line[..at].trim_end().rsplit(|c| !is_word(c)).next();
        let after = line[at + word.len()..].trim_start();
        let assigned =
            (after.starts_with('=') && !after.starts_with("==")) || after.starts_with(':');
        if before.is_some_and(|keyword| DEFINING.contains(&keyword)) || assigned {
            return Some((number, line));
        }
    }
    first
}

fn find_word(line: &str, word: &str) -> Option<usize> {
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = line[..*at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Reports lines that are still to be done, and brackets without a partner.
pub(super) fn diagnostics(document: &Document) -> Vec<Value> {
    let mut found: Vec<(usize, usize, u8, String)> = document
        .words()
        .filter(|(_, word)| *word == "TODO")
        .map(|(at, word)| (at, at + word.len(), 3, "still to be done".to_owned()))
        .collect();
    let mut open: Vec<(usize, char)> = Vec::new();
    for (at, c) in document.text.char_indices() {
        match c {
            '(' | '[' | '{' => open.push((at, c)),
            ')' | ']' | '}' => match open.last() {
                Some((_, opening)) if closes(*opening, c) => drop(open.pop()),
                _ => found.push((at, at + 1, 1, format!("`{c}` closes nothing"))),
            },
            _ => {}
        }
    }
    for (at, c) in open {
        found.push((at, at + 1, 1, format!("`{c}` is never closed")));
    }
    found.sort();
    found
        .into_iter()
        .take(DIAGNOSTICS_MAX)
        .map(|(start, end, severity, message)| {
            json!({
                "range": { "start": document.position(start), "end": document.position(end) },
                "severity": severity,
                "source": "ide-supervisor demo",
                "message": message,
            })
        })
        .collect()
}

fn closes(opening: char, closing: char) -> bool {
    matches!((opening, closing), ('(', ')') | ('[', ']') | ('{', '}'))
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(texts: &[&str]) -> BTreeMap<String, Document> {
        let make = |(n, text): (usize, &&str)| {
            let uri = format!("file:///{n}");
            let document = Document { uri: uri.clone(), version: 1, text: (*text).to_owned() };
            (uri, document)
        };
        texts.iter().enumerate().map(make).collect()
    }

    #[test]
    fn completion_offers_the_frequent_word_first_from_every_document() {
        let documents = documents(&["value valid va", "valid"]);
        let answer = completion(&documents, &documents["file:///0"], "va");
        let labels: Vec<&str> = answer["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["label"].as_str().unwrap())
            .collect();
        assert_eq!(labels, ["valid", "value"]);
        assert_eq!(answer["isIncomplete"], false);
    }

    #[test]
    fn hover_counts_the_word_and_shows_where_it_is_defined() {
        let documents = documents(&["use size;\nlet size = 1;\nsize_of(size)", "size"]);
        let answer = hover(&documents, &documents["file:///0"], 5);
        let text = answer["contents"]["value"].as_str().unwrap();
        assert!(text.contains("3 times in this document, 4 in all"), "{text}");
        assert!(text.contains("line 2:\n```\nlet size = 1;"), "{text}");
        assert_eq!(answer["range"]["start"]["character"], 4);
        assert_eq!(hover(&documents, &documents["file:///0"], 4)["range"]["end"]["character"], 8);
    }

    #[test]
    fn brackets_without_a_partner_are_reported_where_they_stand() {
        let documents = documents(&["f(a]\n{ok}\n"]);
        let found = diagnostics(&documents["file:///0"]);
        let said: Vec<&str> = found.iter().map(|d| d["message"].as_str().unwrap()).collect();
        assert_eq!(said, ["`(` is never closed", "`]` closes nothing"]);
    }

    #[test]
    fn a_hundred_thousand_brackets_give_a_bounded_answer() {
        let documents = documents(&[&"(".repeat(100_000)]);
        assert_eq!(diagnostics(&documents["file:///0"]).len(), DIAGNOSTICS_MAX);
    }
}
