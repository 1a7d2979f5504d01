//! Core's contract suites on the real store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use supervisor_core::testing::store_contract;
use supervisor_persist::StatePersistence;
use tempfile::TempDir;

async fn fresh() -> (TempDir, StatePersistence) {
    let directory = tempfile::tempdir().unwrap();
    let store = StatePersistence::new(directory.path().join("s.db"), directory.path().join("c"))
        .await
        .unwrap();
    (directory, store)
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_states_and_journal() {
    store_contract::states_and_journal(&fresh().await.1).await;
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_events() {
    store_contract::events(&fresh().await.1).await;
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_the_audit_trail() {
    store_contract::audit(&fresh().await.1).await;
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_checkpoints() {
    let (_directory, store) = fresh().await;
    store_contract::checkpoints(&store).await;
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_the_outbox() {
    store_contract::outbox(&fresh().await.1).await;
}

#[tokio::test]
async fn the_store_keeps_the_promises_about_repetitions() {
    store_contract::dedup(&fresh().await.1).await;
}
