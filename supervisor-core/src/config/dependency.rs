//! What a service needs before it starts, and who is restarted together with it.

use std::collections::BTreeMap;

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;
use serde::{Deserialize, Serialize};

use crate::ServiceId;
use crate::error::ConfigError;

/// What a dependency must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// Its process runs.
    Started,
    /// It is ready.
    #[default]
    Ready,
    /// It ended with success.
    Completed,
}

/// A service that must have reached a condition before this one starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// The service needed.
    pub id: ServiceId,
    /// What it must have reached.
    #[serde(default)]
    pub condition: DependencyCondition,
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reached = match self.condition {
            DependencyCondition::Started => "to be started",
            DependencyCondition::Ready => "to be ready",
            DependencyCondition::Completed => "to complete",
        };
        write!(f, "{} {reached}", self.id)
    }
}

/// Who is restarted when a member of a group fails (the words are those of OTP's supervisors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GroupStrategy {
    /// Only the one that failed.
    #[default]
    OneForOne,
    /// Every member.
    OneForAll,
    /// The one that failed and those declared after it.
    RestForOne,
}

/// Membership in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the group.
    pub name: String,
    /// Who is restarted; all members must agree.
    #[serde(default)]
    pub strategy: GroupStrategy,
}

/// Sorts services into layers: each layer needs only services of earlier ones, so a layer starts in parallel.
///
/// Stopping walks the layers backwards.
///
/// # Errors
/// [`ConfigError::UnknownDependency`] or [`ConfigError::DependencyCycle`] with the circle spelled out. A retry does not help.
pub fn start_layers(
    dependencies: &BTreeMap<ServiceId, Vec<ServiceId>>,
) -> Result<Vec<Vec<ServiceId>>, ConfigError> {
    let mut graph = DiGraph::<&ServiceId, ()>::new();
    let nodes: BTreeMap<_, _> = dependencies.keys().map(|id| (id, graph.add_node(id))).collect();
    for (id, needs) in dependencies {
        for need in needs {
            let Some(&target) = nodes.get(need) else {
                return Err(ConfigError::UnknownDependency {
                    id: id.to_string(),
                    missing: need.to_string(),
                });
            };
            graph.add_edge(nodes[id], target, ());
        }
    }
    // Strongly connected components come out dependencies first, which is the order layers are filled in.
    let mut layer_of = BTreeMap::new();
    let mut layers: Vec<Vec<ServiceId>> = Vec::new();
    for component in tarjan_scc(&graph) {
        let node = component[0];
        if component.len() > 1 || graph.contains_edge(node, node) {
            return Err(ConfigError::DependencyCycle { cycle: cycle_through(&graph, &component) });
        }
        let layer = graph.neighbors(node).map(|need| layer_of[&need] + 1).max().unwrap_or(0_usize);
        layer_of.insert(node, layer);
        if layers.len() <= layer {
            layers.resize(layer + 1, Vec::new());
        }
        layers[layer].push(graph[node].clone());
    }
    for layer in &mut layers {
        layer.sort();
    }
    Ok(layers)
}

/// Walks inside a strongly connected component until a node comes up twice; that stretch is a circle.
fn cycle_through(
    graph: &DiGraph<&ServiceId, ()>,
    component: &[petgraph::graph::NodeIndex],
) -> Vec<String> {
    let mut path = vec![component[0]];
    loop {
        let last = path[path.len() - 1];
        let next = graph.neighbors(last).find(|next| component.contains(next)).unwrap_or(last);
        let seen = path.iter().position(|node| *node == next);
        path.push(next);
        if let Some(start) = seen {
            return path[start..].iter().map(|node| graph[*node].to_string()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<ServiceId, Vec<ServiceId>> {
        let id = |text: &str| ServiceId::new(text).unwrap();
        edges.iter().map(|(from, to)| (id(from), to.iter().map(|to| id(to)).collect())).collect()
    }

    #[test]
    fn a_service_starts_in_the_layer_after_its_deepest_dependency() {
        let layers =
            start_layers(&graph(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b"]), ("d", &[])]))
                .unwrap();
        let names: Vec<Vec<String>> =
            layers.iter().map(|layer| layer.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(names, [vec!["a", "d"], vec!["b"], vec!["c"]]);
    }

    #[test]
    fn a_cycle_is_refused_and_spelled_out() {
        let error =
            start_layers(&graph(&[("x", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"])]))
                .expect_err("cycle");
        let ConfigError::DependencyCycle { cycle } = error else { panic!("{error}") };
        assert_eq!(cycle.len(), 4);
        assert_eq!(cycle.first(), cycle.last());
        assert!(!cycle.contains(&"x".to_owned()));
        assert!(start_layers(&graph(&[("a", &["a"])])).unwrap_err().to_string().contains("a -> a"));
    }

    #[test]
    fn a_dependency_nobody_declared_is_named() {
        let error = start_layers(&graph(&[("a", &["ghost"])])).unwrap_err();
        assert!(error.to_string().contains("ghost"), "{error}");
    }
}
