//! What would change if one snapshot took the place of another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use supervisor_core::checkpoint::CheckpointContent;

/// What would change, per service, operation and channel; empty when nothing would.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDiff {
    /// Services, by id.
    pub services: Vec<SnapshotChange>,
    /// Pending operations, by id.
    pub operations: Vec<SnapshotChange>,
    /// Channels, by name.
    pub channels: Vec<SnapshotChange>,
}

impl SnapshotDiff {
    /// Tells whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.operations.is_empty() && self.channels.is_empty()
    }

    /// Gives how many services, operations and channels would change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len() + self.operations.len() + self.channels.len()
    }

    /// Compares what is with what would be.
    #[must_use]
    pub fn between(now: &CheckpointContent, then: &CheckpointContent) -> Self {
        let services = |content: &CheckpointContent| {
            content.services.iter().map(|(id, state)| (id.to_string(), value(state))).collect()
        };
        let operations = |content: &CheckpointContent| {
            let each = content.pending_operations.iter();
            each.map(|operation| (operation.id.to_string(), value(operation))).collect()
        };
        let channels = |content: &CheckpointContent| {
            content
                .channels
                .iter()
                .map(|(name, position)| (name.clone(), value(position)))
                .collect()
        };
        Self {
            services: changes(services(now), services(then)),
            operations: changes(operations(now), operations(then)),
            channels: changes(channels(now), channels(then)),
        }
    }
}

/// One thing that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotChange {
    /// Which one.
    pub id: String,
    /// How.
    pub change: ChangeKind,
    /// The fields that differ, when it is in both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// How something would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is not there now and would be.
    Added,
    /// It is there now and would not be.
    Removed,
    /// It would be different.
    Changed,
}

/// One field that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field, as the JSON form names it.
    pub field: String,
    /// What it is.
    pub now: Value,
    /// What it would be.
    pub then: Value,
}

type Things = BTreeMap<String, Value>;

fn value<T: Serialize>(thing: &T) -> Value {
    serde_json::to_value(thing).unwrap_or_default()
}

fn changes(now: Things, then: Things) -> Vec<SnapshotChange> {
    let removed = now.keys().filter(|id| !then.contains_key(*id)).map(|id| SnapshotChange {
        id: id.clone(),
        change: ChangeKind::Removed,
        fields: Vec::new(),
    });
    let others = then.iter().filter_map(|(id, after)| {
        let (change, fields) = match now.get(id) {
            None => (ChangeKind::Added, Vec::new()),
            Some(before) if before == after => return None,
            Some(before) => (ChangeKind::Changed, fields(before, after)),
        };
        Some(SnapshotChange { id: id.clone(), change, fields })
    });
    let mut found: Vec<_> = removed.chain(others).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn fields(before: &Value, after: &Value) -> Vec<FieldChange> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Vec::new();
    };
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let get = |object: &serde_json::Map<String, Value>, name: &String| {
        object.get(name).cloned().unwrap_or_default()
    };
    names
        .into_iter()
        .map(|name| FieldChange {
            field: name.clone(),
            now: get(before, name),
            then: get(after, name),
        })
        .filter(|change| change.now != change.then)
        .collect()
}
