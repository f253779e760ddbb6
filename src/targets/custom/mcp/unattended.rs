#![allow(deprecated, reason = "servers of the older era may still request samples")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rmcp::{
    ClientHandler, RoleClient,
    model::{
        ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult,
        ElicitationAction, ErrorData,
    },
    service::RequestContext,
};

/// The client declines and notes each request of a server for input from a person or a model.
#[derive(Clone, Default)]
pub(super) struct Unattended {
    pub asked: Arc<AtomicBool>,
}

impl ClientHandler for Unattended {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info.name = "panacea".into();
        info.client_info.version = env!("CARGO_PKG_VERSION").into();
        info
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.asked.store(true, Ordering::SeqCst);
        Err(ErrorData::invalid_request("the client runs unattended", None))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.asked.store(true, Ordering::SeqCst);
        Ok(ElicitResult::new(ElicitationAction::Decline))
    }
}
