//! A model manager: loads a model for a while, then completes text over HTTP.
//!
//! The model is small but real: character statistics of a text built into the program, backing off from five
//! characters of context to none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::http::{Answer, Call, serve};
use super::{Listen, say};

/// The text the model is trained on.
const CORPUS: &str = include_str!("corpus.txt");
/// Characters of context the model looks at.
const CONTEXT_MAX: usize = 5;
/// Most characters of one completion.
const COMPLETION_MAX: usize = 2000;

/// Serves until the process is asked to end; `load` is how long loading takes.
pub(super) fn run(listen: &Listen, load: Duration) -> std::io::Result<()> {
    let manager = Manager { started: Instant::now(), load, model: Arc::new(OnceLock::new()) };
    let model = Arc::clone(&manager.model);
    // Loading takes the processor for a moment and the clock for a while; health is answered all along.
    let loader = std::thread::spawn(move || {
        let trained = Model::train(CORPUS);
        let rest = load.saturating_sub(manager.started.elapsed());
        let until = Instant::now() + rest;
        while let Some(rest) = until.checked_duration_since(Instant::now())
            && !rest.is_zero()
        {
            std::thread::park_timeout(rest);
        }
        say(&format!("model loaded: {} contexts", trained.next.len()));
        drop(model.set(trained));
    });
    let served = serve(listen, manager, answer);
    // Not joined: a service asked to end while it loads ends at once.
    drop(loader);
    served
}

struct Manager {
    started: Instant,
    load: Duration,
    model: Arc<OnceLock<Model>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inference {
    prompt: String,
    #[serde(default = "default_length")]
    max_tokens: usize,
    #[serde(default)]
    seed: u64,
}

fn default_length() -> usize {
    80
}

async fn answer(manager: Arc<Manager>, call: Call) -> Answer {
    match (call.method.clone(), call.path.as_str()) {
        (Method::GET, "/health") => health(&manager),
        (Method::POST, "/infer") => infer(&manager, &call),
        (_, "/health" | "/infer") => {
            Answer::error(StatusCode::METHOD_NOT_ALLOWED, "GET /health, POST /infer")
        }
        _ => Answer::not_found(),
    }
}

fn health(manager: &Manager) -> Answer {
    let uptime = manager.started.elapsed();
    match manager.model.get() {
        Some(model) => Answer::ok(json!({
            "status": "ok",
            "contexts": model.next.len(),
            "uptime_ms": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        })),
        None => {
            let share = uptime.as_secs_f64() / manager.load.as_secs_f64().max(0.001);
            let progress = (share.min(0.99) * 100.0).round() / 100.0;
            Answer(
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "status": "loading", "progress": progress }),
            )
        }
    }
}

fn infer(manager: &Manager, call: &Call) -> Answer {
    let Some(model) = manager.model.get() else {
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the model is still loading");
    };
    let request: Inference = match serde_json::from_slice(&call.body) {
        Ok(request) => request,
        Err(error) => return Answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let completion =
        model.complete(&request.prompt, request.max_tokens.min(COMPLETION_MAX), request.seed);
    Answer::ok(json!({
        "tokens": completion.chars().count(),
        "completion": completion,
    }))
}

/// How often each character follows each context.
#[derive(Debug)]
struct Model {
    /// Contexts of every length from 0 to [`CONTEXT_MAX`]; the inner map is ordered, so that a completion is the same every time.
    next: HashMap<String, BTreeMap<char, u32>>,
}

impl Model {
    fn train(text: &str) -> Self {
        let text: Vec<char> =
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
        let mut next: HashMap<String, BTreeMap<char, u32>> = HashMap::new();
        for (at, character) in text.iter().enumerate() {
            for length in 0..=CONTEXT_MAX.min(at) {
                let context = text[at - length..at].iter().collect();
                *next.entry(context).or_default().entry(*character).or_default() += 1;
            }
        }
        Self { next }
    }

    /// Continues `prompt` by `length` characters, or fewer if a sentence ends past half of them.
    fn complete(&self, prompt: &str, length: usize, seed: u64) -> String {
        let mut context: Vec<char> = prompt.chars().rev().take(CONTEXT_MAX).collect();
        context.reverse();
        // Sebastiano Vigna's splitmix64: any seed, zero included, gives a usable sequence.
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let mut completion = String::new();
        for n in 0..length {
            let Some(character) = self.pick(&context, random()) else {
                break;
            };
            completion.push(character);
            context.push(character);
            if context.len() > CONTEXT_MAX {
                context.remove(0);
            }
            if character == '.' && n * 2 > length {
                break;
            }
        }
        completion
    }

    /// Picks a character by how often it followed the longest context that was ever seen.
    fn pick(&self, context: &[char], random: u64) -> Option<char> {
        let choices = (0..=context.len()).find_map(|skip| {
            let suffix: String = context[skip..].iter().collect();
            self.next.get(&suffix)
        })?;
        let total: u64 = choices.values().copied().map(u64::from).sum();
        let mut left = random % total.max(1);
        for (character, count) in choices {
            let count = u64::from(*count);
            if left < count {
                return Some(*character);
            }
            left -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_follows_what_the_model_has_read() {
        let model = Model::train("abcabcabcabc");
        assert_eq!(model.complete("ab", 4, 0), "cabc");
    }

    #[test]
    fn the_same_seed_gives_the_same_completion_and_a_prompt_never_seen_one_too() {
        let model = Model::train(CORPUS);
        let first = model.complete("The supervisor ", 60, 7);
        assert_eq!(first, model.complete("The supervisor ", 60, 7));
        assert_ne!(first, model.complete("The supervisor ", 60, 8));
        assert!(!model.complete("\u{1f600}\u{1f600}", 10, 0).is_empty());
        assert!(!model.complete("", 10, 0).is_empty());
    }
}
