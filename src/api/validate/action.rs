//! The action of a remedy with its parameters.

use crate::api::{ActionKind, Hook, Intent, ScaleRemedy};

/// The action of a remedy whose every parameter is usable.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidAction {
    Rollback,
    RollbackConfig,
    RollbackState,
    CleanupMemory {
        hook: Option<Hook>,
    },
    Scale(ScaleRemedy),
    /// The policy defines the whole intent; nothing in it depends on the state of the component.
    Fixed(Intent),
}

impl ValidAction {
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Rollback => ActionKind::Rollback,
            Self::RollbackConfig => ActionKind::RollbackConfig,
            Self::RollbackState => ActionKind::RollbackState,
            Self::CleanupMemory { .. } => ActionKind::CleanupMemory,
            Self::Scale(_) => ActionKind::Scale,
            Self::Fixed(intent) => intent.action(),
        }
    }

    /// Whether the remedy still allows a plan with this intent. The numbers and templates of an intent are decided again each
    /// time, so they are not compared.
    pub fn allows(&self, intent: &Intent) -> bool {
        match (self, intent) {
            (Self::CleanupMemory { hook }, Intent::CleanupMemory { hook: planned, .. }) => hook == planned,
            (Self::Fixed(fixed), planned) => fixed == planned,
            (action, intent) => action.kind() == intent.action(),
        }
    }
}
